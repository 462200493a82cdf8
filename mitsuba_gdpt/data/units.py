"""Rendering of whole crop sets, split into pieces of work that any process can do."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mitsuba_gdpt.data import origins, store, workers
from mitsuba_gdpt.data.plan import CropPlan
from mitsuba_gdpt.data.render import LAYOUT, CropRenderer, RenderedCrop
from mitsuba_gdpt.data.shard import Array, ShardUnit
from mitsuba_gdpt.errors import NonFiniteError
from mitsuba_gdpt.scenes import SceneRef

if TYPE_CHECKING:
    from mitsuba_gdpt.execution import ClusterOptions, Summary
    from mitsuba_gdpt.scenes import CatalogueScene

#: What is rendered before it is written, and so at most lost when a process is killed.
CROPS_PER_SHARD = 5


def render_crops(
    plan: CropPlan,
    path: str | os.PathLike[str],
    *,
    cluster: ClusterOptions | None = None,
    crops_per_shard: int = CROPS_PER_SHARD,
) -> Summary:
    """Render a crop set, or what is missing of it.

    The same plan on the same kind of machine gives the same files, however often the work is
    interrupted and however many processes share it. Without ``cluster`` a Mitsuba variant has to be
    set.

    Args:
        plan: What to render.
        path: Folder of the set, by custom ``NAME.zarr``; created if it is not there.
        cluster: Where to render; by default in this process.
        crops_per_shard: Crops that are written together; only used for a new set.

    Returns:
        Which shards were rendered, were there already or failed. A scene that cannot be loaded
        fails, and the others go on.

    Raises:
        ConfigError: There is another set at ``path``, or a scene of it has been edited.
        FormatError: The set cannot be created.
        VariantError: No variant is set, where one is needed.
    """
    from mitsuba_gdpt import execution

    cluster = workers.with_variant(cluster)
    contents = {
        scene.name: SceneRef.parse(scene.source).contents(scene.parameters) for scene in plan.scenes
    }
    stored = store.create(
        plan,
        LAYOUT,
        path,
        crops_per_shard=crops_per_shard,
        attributes={
            "variant": workers.variant(),
            origins.SCENES: origins.agreed(contents, None, lambda name: False, path),
        },
    )
    folder, known = Path(path).absolute(), stored.get(origins.SCENES)
    kept = origins.agreed(contents, known, lambda name: store.is_begun(folder / name), path)
    if kept != (known or {}):
        store.amend(folder, {origins.SCENES: kept})
    units = [
        CropUnit(shard, plan, contents[shard.scene].key)
        for shard in store.shards(plan, folder, stored["crops_per_shard"])
    ]
    return execution.run(units, cluster=cluster, description="crops")


@dataclass(frozen=True)
class CropUnit(ShardUnit):
    """One shard of a crop set to be rendered; picklable.

    Attributes:
        plan: Of the set.
        contents: Key of what the scene is made of, as of ``scenes.contents``.
    """

    plan: CropPlan
    contents: str

    def run(self) -> None:
        """Render the crops and write them.

        Raises:
            ConfigError: The scene has been edited since the work was begun.
            FormatError: The scene cannot be loaded or the shard cannot be written.
            NonFiniteError: A pixel is NaN or infinite; names scene, crop and seed.
        """
        renderer = _renderer(self.plan, self.shard.scene, self.contents)
        specs = [
            self.plan.crop(renderer.scene, index)
            for index in range(self.shard.start, self.shard.stop)
        ]
        rows = [encode(renderer.render(spec)) for spec in specs]
        self.shard.write(*(np.stack(column) for column in zip(*rows, strict=True)))


def encode(crop: RenderedCrop) -> tuple[Array, Array, Array, Array]:
    """Return a crop as a set stores it: noisy, targets, target_deviation and faults.

    Raises:
        NonFiniteError: A value is NaN or infinite; names scene and crop.
    """
    noisy = np.stack([frame.data.cpu().numpy() for frame in crop.noisy])
    spec = crop.spec
    try:
        halves, a = store.to_half(noisy, store.variance_channels(LAYOUT))
        targets, b = store.to_half(crop.targets.cpu().numpy())
        variance = crop.target_variance.cpu().numpy()[..., None]
        deviation, c = store.to_half(variance, slice(0, 1))
    except NonFiniteError as error:
        raise NonFiniteError(
            f"scene {spec.scene!r}, crop {spec.index}, seeds {spec.seeds + spec.target_seeds}: "
            f"{error}"
        ) from error
    faults = np.array([a + b + c, crop.nonfinite_samples], np.int64)
    return halves, targets, deviation[..., 0], faults


_open: list[tuple[tuple[str, CatalogueScene, CropPlan], CropRenderer]] = []


def _renderer(plan: CropPlan, scene: str, contents: str) -> CropRenderer:
    """Return a renderer; the last one is kept, for most units follow one of the same scene.

    Not an ``lru_cache``: the last scene has to go before the next one comes. Materials of all
    scenes in memory end up in the kernels.
    """
    wanted = plan.scene(scene)
    origins.require_now(contents, wanted.source, wanted.parameters)
    key = contents, wanted, plan
    if not (_open and _open[0][0] == key):
        _open.clear()
        gc.collect()
        _open.append((key, CropRenderer(wanted, plan)))
    return _open[0][1]
