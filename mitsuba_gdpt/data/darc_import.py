"""Import of Darc files, the training data of the original NGPT, into crop sets.

A shard is a unit of work, as when crops are rendered: it is read, encoded and written before the
next one is read, and an interrupted import goes on where it stopped.

A Darc file says less than a plan. Sample counts are stored as 0 and the deviation of the target as
0, which mean "unknown", and there are no tables of seeds, windows and cameras.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt.data import store
from mitsuba_gdpt.data.darc import LAYOUT, DarcCrop, DarcFile
from mitsuba_gdpt.data.plan import Records, differences, level_names
from mitsuba_gdpt.data.shard import Array, ShardUnit
from mitsuba_gdpt.errors import ConfigError, FormatError, NonFiniteError
from mitsuba_gdpt.scenes.catalogue import require_unmeasured

if TYPE_CHECKING:
    from mitsuba_gdpt.execution import Summary

#: Crops that are in memory at a time, each as float16 and one as float32.
CROPS_PER_SHARD = 5

#: How the original names its files: prefix, scene, crops, images per crop.
_NAME = re.compile(r"[^-]+-(?P<scene>[A-Za-z0-9_][A-Za-z0-9_.-]*)-\d+-\d+\.darc")
_EXPECTED_NAME = "PREFIX-SCENE-CROPS-IMAGES.darc"


def import_darc(
    paths: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    crops_per_shard: int = CROPS_PER_SHARD,
    measured_scenes: bool = False,
) -> Summary:
    """Import Darc files, or what is missing of them.

    Args:
        paths: Files of one scene each, called ``{prefix}-{scene}-{crop_count}-{images}.darc``.
        output: Folder of the crop set, by custom ``NAME.zarr``; created if it is not there.
        crops_per_shard: Crops that are written together; only used for a new set.
        measured_scenes: Also import scenes that methods are measured on: members of the released
            sets are in the catalogue ``dev``.

    Returns:
        Which shards were imported, were there already or failed. A crop with a NaN fails, with
        those of its shard, and the others go on.

    Raises:
        ConfigError: A file's name says no scene, or one to measure on; two say the same; the crops
            do not fit together; or there is another set at ``output``.
        FormatError: A file is damaged or no Darc file, or the set cannot be created.
    """
    from mitsuba_gdpt import execution

    plan = DarcPlan.open(paths)
    if not measured_scenes:
        require_unmeasured(
            (scene.name for scene in plan.scenes),
            "Leave them out, or say measured_scenes=True (--measured-scenes)",
        )
    stored = store.create(plan, LAYOUT, output, crops_per_shard=crops_per_shard)
    files = {scene.name: scene.path for scene in plan.scenes}
    units = [
        DarcUnit(shard, files[shard.scene])
        for shard in store.shards(plan, Path(output).absolute(), stored["crops_per_shard"])
    ]
    return execution.run(units, description="crops")


@dataclass(frozen=True)
class DarcScene:
    """One file.

    Attributes:
        name: Name of the scene, from that of the file.
        path: The file.
        crops: How many it holds.
        length: Of the file in bytes.
        exposure: 1, as a file says nothing of it.
    """

    name: str
    path: Path
    crops: int
    length: int
    exposure: float = 1.0


@dataclass(frozen=True)
class DarcPlan:
    """What a set of imported files will hold; a :class:`~mitsuba_gdpt.data.store.Content`.

    Attributes:
        scenes: The files.
        size: Width and height of all crops in pixels.
        levels: Noisy renders of all crops.
        target_renders: One, the clean render.
    """

    scenes: tuple[DarcScene, ...]
    size: int
    levels: int
    target_renders: int = 1

    @classmethod
    def open(cls, paths: Sequence[str | os.PathLike[str]]) -> DarcPlan:
        """Look into files, without reading crops.

        Raises:
            ConfigError: As of :func:`import_darc`.
            FormatError: As of :func:`import_darc`.
        """
        scenes: dict[str, DarcScene] = {}
        shapes: dict[tuple[int, int, int], str] = {}
        for path in map(Path, paths):
            name = scene_name(path)
            if name in scenes:
                raise ConfigError(
                    f"{scenes[name].path} and {path} are both of the scene {name!r}; expected one "
                    "file per scene. Import them into different sets"
                )
            with DarcFile(path) as file:
                for index in range(len(file)):
                    shapes.setdefault(file.crop_shape(index), f"{path}, crop {index}")
                scenes[name] = DarcScene(name, path.absolute(), len(file), path.stat().st_size)
            if not scenes[name].crops:
                raise FormatError(f"{path} holds no crops")
        if not scenes:
            raise ConfigError("got no Darc files; expected at least one")
        if len(shapes) > 1:
            found = "; ".join(f"{place}: {shape}" for shape, place in shapes.items())
            raise ConfigError(
                f"the crops of a set have one shape, got several (noisy renders, height, width): "
                f"{found}. Import them into different sets"
            )
        ((levels, height, width),) = shapes
        if height != width:
            raise ConfigError(
                f"{next(iter(shapes.values()))} has {width} x {height} pixels; expected square "
                "crops. Frames for testing can be read with mitsuba_gdpt.data.DarcFile"
            )
        return cls(tuple(scenes.values()), height, levels)

    def count(self, scene: DarcScene) -> int:
        """Return the number of crops of a scene."""
        return scene.crops

    def records(self, scene: DarcScene) -> Records:
        """Return unknown sample counts."""
        return {"spp": (np.zeros((scene.crops, self.levels), np.int32), level_names(self.levels))}

    def to_dict(self) -> dict[str, Any]:
        """Return the attribute ``plan`` of the set."""
        return {
            "imported": "darc",
            "size": self.size,
            "levels": self.levels,
            "scenes": [
                {
                    "name": scene.name,
                    "exposure": scene.exposure,
                    "file": scene.path.name,
                    "crops": scene.crops,
                    "bytes": scene.length,
                }
                for scene in self.scenes
            ],
        }

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """Name what differs from the attribute ``plan`` of a set; the files may have moved."""
        return differences(self.to_dict(), stored)


@dataclass(frozen=True)
class DarcUnit(ShardUnit):
    """One shard to be filled from a file; picklable.

    Attributes:
        file: To read from.
    """

    file: Path

    def run(self) -> None:
        """Read the crops and write them.

        Raises:
            FormatError: The file is damaged, or the shard cannot be written.
            NonFiniteError: A value is NaN, or a variance negative.
        """
        with DarcFile(self.file) as file:
            rows = []
            for index in range(self.shard.start, self.shard.stop):
                crop = file.crop(index)
                try:
                    rows.append(encode(crop))
                except NonFiniteError as error:
                    found = ", ".join(f"{n} in {name}" for name, n in crop.nonfinite.items())
                    raise NonFiniteError(
                        f"{self.file}, crop {index}: {error}, because of a NaN or a negative "
                        f"variance (NaN and infinity in the file: {found or 'none'})"
                    ) from error
        self.shard.write(*(np.stack(column) for column in zip(*rows, strict=True)))


def scene_name(path: Path) -> str:
    """Return the name of the scene from that of a file.

    Raises:
        ConfigError: The file is not called as the original's are.
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ConfigError(
            f"{path}: the name of the file should say the scene, as {_EXPECTED_NAME} (for example "
            "train-living-room-250-5.darc); rename it"
        )
    return match["scene"]


def encode(crop: DarcCrop) -> tuple[Array, Array, Array, Array]:
    """Return a crop as a set stores it: noisy, targets, target_deviation and faults.

    What the original stored as infinity was above 65504, the largest value of float16: it becomes
    that value and is counted as clamped. Variances are clamped before their root is taken.

    Raises:
        NonFiniteError: A value is NaN, or a variance negative.
    """
    noisy, a = finite(crop.noisy)
    target, b = finite(crop.target)
    halves, _ = store.to_half(noisy, store.variance_channels(LAYOUT))
    targets, _ = store.to_half(target)
    deviation = np.zeros(crop.target.shape[:2], np.float16)
    return halves, targets[np.newaxis], deviation, np.array([a + b, 0], np.int64)


def finite(values: NDArray[np.float16]) -> tuple[NDArray[np.float16], int]:
    """Clamp infinities to the largest value of float16, and count them; NaN stays."""
    infinite = np.isinf(values)
    bound = np.float16(store.HALF_MAX)
    return np.clip(values, -bound, bound), int(infinite.sum())
