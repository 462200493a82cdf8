"""Small scenes, plans and made-up crops for the tests of crop sets; importable by processes."""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mitsuba_gdpt import execution
from mitsuba_gdpt.data import store
from mitsuba_gdpt.data.plan import CropPlan
from mitsuba_gdpt.data.render import LAYOUT
from mitsuba_gdpt.data.shard import Array, Shard, ShardUnit
from mitsuba_gdpt.scenes.catalogue import CameraBox, CatalogueScene

_COMMIT = re.compile(rb'"commit": "[^"]*"')

#: A bright and a dark square, one before the other, under a lamp and a grey sky.
XML = """<scene version="3.0.0">
  <emitter type="constant"><rgb name="radiance" value="0.2"/></emitter>
  <shape type="rectangle">
    <transform name="to_world"><scale value="40"/><translate z="-2"/></transform>
    <bsdf type="diffuse"><rgb name="reflectance" value="0.8, 0.4, 0.2"/></bsdf>
  </shape>
  <shape type="rectangle">
    <transform name="to_world"><scale value="0.7"/><rotate y="1" angle="20"/></transform>
    <bsdf type="diffuse"><rgb name="reflectance" value="0.1, 0.2, 0.3"/></bsdf>
  </shape>
  <shape type="sphere">
    <transform name="to_world"><scale value="0.3"/><translate y="6" z="8"/></transform>
    <emitter type="area"><rgb name="radiance" value="300"/></emitter>
  </shape>
</scene>"""


def scene(name: str = "squares", source: object = "nowhere.xml", **options: Any) -> CatalogueScene:
    values: dict[str, Any] = {
        "title": name,
        "author": "nobody",
        "licence": "CC0",
        "max_depth": 3,
        "boxes": (CameraBox((-0.5, -0.5, 3.0), (0.5, 0.5, 4.0)),),
        "targets": ((0.0, 0.0, 0.0), (0.3, 0.2, 0.0)),
    }
    return CatalogueScene(name=name, source=str(source), **(values | options))


def write_scene(folder: Path, name: str = "squares", **options: Any) -> CatalogueScene:
    path = folder / f"{name}.xml"
    path.write_text(XML)
    return scene(name, path, **options)


def made_up(plan: CropPlan, shard: Shard) -> tuple[Array, ...]:
    """Return encoded crops that depend on scene and index only."""
    random = np.random.default_rng([len(shard.scene), shard.start])
    count, size, channels = shard.stop - shard.start, plan.size, LAYOUT.count
    shapes = [
        (plan.levels, size, size, channels),
        (plan.target_renders, size, size, 3),
        (size, size),
    ]
    arrays = [random.random((count, *shape)).astype(np.float16) for shape in shapes]
    faults = np.stack([np.arange(shard.start, shard.stop), np.zeros(count, int)], axis=-1)
    return (*arrays, faults)


def content(path: Path) -> dict[str, str]:
    """Hash every file of a set, or of another folder.

    All but the commit of this checkout: somebody may edit or commit while tests run.
    """

    def digest(file: Path) -> str:
        return hashlib.sha256(_COMMIT.sub(b"", file.read_bytes())).hexdigest()

    return {
        str(file.relative_to(path)): digest(file)
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def fill_plan(size: int = 32, crops: int = 11) -> CropPlan:
    scenes = (scene("one"), scene("second"))
    return CropPlan(scenes, crops=crops, size=size, levels=3, frame=(64, 48))


@dataclass(frozen=True)
class FillUnit(ShardUnit):
    """Writes one shard of made-up crops."""

    plan: CropPlan

    def run(self) -> None:
        self.shard.write(*made_up(self.plan, self.shard))


def fill(path: str, plan: CropPlan | None = None, workers: int = 0) -> None:
    """Create a set and write the shards that are missing; announce that on standard output."""
    plan = plan or fill_plan()
    attributes = store.create(plan, LAYOUT, path, crops_per_shard=2)
    print("ready", flush=True)
    shards = store.shards(plan, path, attributes["crops_per_shard"])
    if workers:
        cluster = execution.ClusterOptions(workers=workers, threads=1)
        units = [FillUnit(shard, plan) for shard in shards]
        summary = execution.run(units, cluster=cluster, description="filling")
        assert not summary.failed, summary
        return
    for shard in shards:
        if not shard.is_complete():
            shard.write(*made_up(plan, shard))


if __name__ == "__main__":
    from tests import crops, kills  # workers have to find the class of units by its name

    kills.die_when_told()
    size, count, workers = map(int, sys.argv[2:])
    crops.fill(sys.argv[1], crops.fill_plan(size, count), workers)
