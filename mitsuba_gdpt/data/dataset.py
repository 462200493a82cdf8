"""Reading crop sets: by crop, and as a torch data set of (crop, level) pairs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import CORE, GRADIENTS, Layout
from mitsuba_gdpt.checks import reason
from mitsuba_gdpt.data import metadata, store
from mitsuba_gdpt.data.shard import ShardReader
from mitsuba_gdpt.errors import ConfigError, FormatError

#: What a crop's targets and noisy renders tell together.
_TARGET_BUFFERS = frozenset(b.name for b in CORE) | frozenset(GRADIENTS)


@dataclass(frozen=True)
class Crop:
    """One crop of a set, in memory.

    Attributes:
        scene: Name of the scene.
        index: Number of the crop in the scene.
        spp: (L,) int64, samples per pixel of the noisy renders, ascending; 0 where an imported
            file does not say.
        noisy: (L, H, W, C) float32, meaning of C as in ``layout``.
        layout: Channels of ``noisy``.
        targets: (T, H, W, 3) float32: two independent halves (T = 2) or one image.
        target_variance: (H, W) float32, variance of the mean of the targets, averaged over RGB; 0
            in imported sets, where it is unknown.
        exposure: Factor on the radiance that suits an 8-bit picture.
        clamped: Number of stored values that were too large for float16.
    """

    scene: str
    index: int
    spp: torch.Tensor
    noisy: torch.Tensor
    layout: Layout
    targets: torch.Tensor
    target_variance: torch.Tensor
    exposure: float
    clamped: int

    @property
    def buffers(self) -> list[FrameBuffers]:
        """The noisy renders as named views of ``noisy``."""
        return [FrameBuffers(level, self.layout) for level in self.noisy]


class CropSet:
    """A crop set on disk, read-only; only crops whose shard was complete when it was opened.

    Can be opened while it is being rendered, pickled, and used after a fork.

    Attributes:
        path: Folder of the set.
        attributes: Plan, versions, commit and channels; see docs/formats/crops_v1.md.
        layout: Channels of the noisy renders.
    """

    def __init__(self, path: Path, attributes: dict[str, Any]) -> None:
        """Use :meth:`open`."""
        self.path, self.attributes = path, attributes
        self.layout = Layout.from_channels(attributes["channels"])
        self._variances = store.variance_channels(self.layout)
        self._scenes = [scene["name"] for scene in attributes["plan"]["scenes"]]
        self._exposures = {s["name"]: float(s["exposure"]) for s in attributes["plan"]["scenes"]}
        self._faults = {name: self._read_marks(name) for name in self._scenes}
        self._spp = {name: self._read_table(name, "spp") for name in self._scenes}
        self._crops = [
            (name, int(index))
            for name in self._scenes
            for index in np.flatnonzero(self._faults[name][:, 0] >= 0)
        ]

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> CropSet:
        """Open a set, finished or not.

        Raises:
            FormatError: It is missing, is no crop set or of an unknown version.
        """
        return cls(Path(path), metadata.read_attributes(Path(path)))

    @property
    def scenes(self) -> list[str]:
        """Names of the scenes, whether or not they have finished crops."""
        return [*self._scenes]

    @property
    def planned(self) -> int:
        """Number of crops that the set will have when it is finished."""
        return sum(len(table) for table in self._faults.values())

    @property
    def levels(self) -> int:
        """Noisy renders per crop."""
        return int(self.attributes["plan"]["levels"])

    @property
    def size(self) -> int:
        """Width and height of a crop in pixels."""
        return int(self.attributes["plan"]["size"])

    @property
    def target_count(self) -> int:
        """Number of target images per crop: two halves, or one."""
        return int(self._arrays[self._scenes[0]]["targets"].shape[1])

    @property
    def mirrored(self) -> bool:
        """Whether its normals are in the camera's frame, so that crops may be mirrored."""
        return self.attributes["plan"].get("normals_space", "camera") == "camera"

    @property
    def faults(self) -> dict[str, int]:
        """Sums over the finished crops of what :data:`metadata.FAULTS` counts."""
        done = [table[table[:, 0] >= 0] for table in self._faults.values()]
        totals = np.concatenate(done).sum(0) if done else np.zeros(len(metadata.FAULTS), int)
        return {name: int(total) for name, total in zip(metadata.FAULTS, totals, strict=True)}

    def __len__(self) -> int:
        return len(self._crops)

    def __getitem__(self, position: int) -> Crop:
        """Read a crop with all its noisy renders.

        Raises:
            IndexError: There are not so many finished crops.
            FormatError: The data are damaged.
        """
        scene, index = self._crops[position]
        return Crop(
            scene=scene,
            index=index,
            spp=torch.from_numpy(self._spp[scene][index].astype(np.int64)),
            noisy=torch.stack(
                [self._decode(scene, "noisy", index, level) for level in range(self.levels)]
            ),
            layout=self.layout,
            targets=self._decode(scene, "targets", index),
            target_variance=self._target_variance(scene, index),
            exposure=self._exposures[scene],
            clamped=int(self._faults[scene][index, 0]),
        )

    def where(self, position: int) -> tuple[str, int]:
        """Return scene and crop number of a finished crop."""
        return self._crops[position]

    def level(self, position: int, level: int) -> dict[str, Any]:
        """Read one noisy render of a crop and its target; see :class:`CropDataset`."""
        scene, index = self._crops[position]
        return {
            "buffers": self._decode(scene, "noisy", index, level),
            "targets": self._decode(scene, "targets", index),
            "target_variance": self._target_variance(scene, index),
            "spp": torch.tensor(int(self._spp[scene][index, level])),
            "scene": scene,
        }

    def target_buffers(self, position: int, level: int) -> FrameBuffers:
        """Gather what the set knows of a crop but one of its noisy renders.

        The primal is the mean of the targets; albedo, normal and depth are the means over the
        samples of all noisy renders; dx, dy and their variances are those of all but ``level``,
        whose noise they therefore do not share.

        Raises:
            ConfigError: The set has one noisy render per crop only.
            FormatError: The data are damaged.
        """
        if self.levels < 2:
            raise ConfigError(f"{self.path} has one noisy render per crop; expected two or more")
        scene, index = self._crops[position]
        layout = self.layout.chosen(set(self.layout.names) & _TARGET_BUFFERS)
        spp = torch.from_numpy(self._spp[scene][index].astype(np.float32))
        others = spp * (torch.arange(len(spp)) != level)
        levels = [self._decode(scene, "noisy", index, i) for i in range(self.levels)]
        parts = []
        for b in layout.buffers:
            values = torch.stack([one[..., self.layout.slices[b.name]] for one in levels])
            weights = (spp if b.difference is None else others)[:, None, None, None]
            weights = weights / weights.sum()
            if b.variance_of is not None:
                weights = weights.square()
            parts.append((weights * values).sum(0))
        parts[0] = self._decode(scene, "targets", index).mean(0)
        return FrameBuffers(torch.cat(parts, dim=-1), layout)

    def table(self, scene: str, name: str) -> dict[str, np.ndarray[Any, Any]]:
        """Return what the plan said about all crops of a scene, by component.

        Args:
            scene: Name of the scene.
            name: ``"spp"`` or ``"faults"``, and of rendered sets ``"seed"``, ``"window"`` or
                ``"camera"``.

        Raises:
            ConfigError: The set has no such scene or table.
        """
        if scene not in self._arrays:
            raise ConfigError(f"{self.path} has no scene {scene!r}; it has {self._scenes}")
        tables = [
            n
            for n, a in self._arrays[scene].items()
            if "components" in a.attrs and n not in (metadata.MARKER, metadata.CHECKSUMS)
        ]
        if name == metadata.MARKER:
            return dict(zip(metadata.FAULTS, self._faults[scene].T, strict=True))
        if name not in tables:
            raise ConfigError(f"{self.path} has no table {name!r}; it has {sorted(tables)}")
        array = self._arrays[scene][name]
        values = self._read_table(scene, name)
        return dict(zip(array.attrs["components"], values.T, strict=True))

    # ------------------------------------------------------------------------------- internals

    @cached_property
    def _arrays(self) -> dict[str, dict[str, Any]]:
        return metadata.open_arrays(self.path, self.attributes)

    def __getstate__(self) -> dict[str, Any]:
        # Zarr's handles hold locks and an event loop: workers of a data loader make their own.
        return {key: value for key, value in self.__dict__.items() if key != "_arrays"}

    def _read_table(self, scene: str, name: str) -> np.ndarray[Any, Any]:
        return metadata.read_table(self.path / scene, self._arrays[scene], name)

    def _read_marks(self, scene: str) -> np.ndarray[Any, Any]:
        count = self._arrays[scene][metadata.MARKER].shape[0]
        return metadata.read_marks(self.path / scene, count, self.attributes["crops_per_shard"])

    @cached_property
    def _readers(self) -> dict[tuple[str, str], ShardReader]:
        return {
            (scene, name): ShardReader(
                self.path / scene / name,
                self._arrays[scene][name].shape,
                self.attributes["crops_per_shard"],
            )
            for scene in self._scenes
            for name in metadata.IMAGES
        }

    def _decode(self, scene: str, name: str, index: int, level: int = 0) -> torch.Tensor:
        try:
            values = self._readers[scene, name].read(index, level)
        except (OSError, ValueError, RuntimeError) as error:
            raise FormatError(
                f"{self.path}: {name} of crop {index} of {scene!r} cannot be read: "
                f"{reason(error)}; make the set again where it is, which replaces what is damaged"
            ) from error
        # float() keeps the memory layout, planes; indices are channel-last all the same.
        decoded = torch.from_numpy(values).to(torch.float32)
        if name == "noisy":
            decoded[..., self._variances].square_()
        return decoded

    def _target_variance(self, scene: str, index: int) -> torch.Tensor:
        return self._decode(scene, "target_deviation", index).square_()


class CropDataset(Dataset[dict[str, Any]]):
    """All (crop, level) pairs of one or several crop sets, crop by crop.

    An item is a dictionary of float32 tensors (channel-last, scene-linear) and a string:

    ``buffers`` (H, W, C), ``targets`` (T, H, W, 3), ``target_variance`` (H, W), ``spp`` () int64,
    ``index`` () int64 (position in this data set) and ``scene``.

    Attributes:
        sets: The sets.
        layout: Channels of ``buffers``.

    Example:
        >>> data = CropDataset(["train.zarr"])  # doctest: +SKIP
        >>> loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True)  # doctest: +SKIP
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        scenes: Sequence[str] | None = None,
    ) -> None:
        """Open sets.

        Args:
            paths: Folders of sets with the same channels, crop size and number of target images.
            scenes: Use only these scenes.

        Raises:
            ConfigError: The sets do not fit together, a scene is unknown, or no crop is finished.
            FormatError: A path is no crop set.
        """
        if isinstance(paths, str | os.PathLike):
            paths = [paths]
        if not paths:
            raise ConfigError("got no paths; expected at least one crop set")
        self.sets = [CropSet.open(path) for path in paths]
        first = self.sets[0]
        self.layout = first.layout
        for other in self.sets[1:]:
            self._check_alike(first, other)
        known = [name for crops in self.sets for name in crops.scenes]
        if unknown := [name for name in scenes or () if name not in known]:
            raise ConfigError(f"no scene {', '.join(unknown)} in the sets; they have: {known}")
        self._pairs = [
            (which, position, level)
            for which, crops in enumerate(self.sets)
            for position in range(len(crops))
            if scenes is None or crops.where(position)[0] in scenes
            for level in range(crops.levels)
        ]
        if not self._pairs:
            raise ConfigError(
                f"no crop is finished yet in {', '.join(str(path) for path in paths)}"
            )

    @staticmethod
    def _check_alike(first: CropSet, other: CropSet) -> None:
        for what in ("layout", "size", "target_count"):
            ours, theirs = getattr(first, what), getattr(other, what)
            if ours != theirs:
                raise ConfigError(
                    f"{first.path} and {other.path} cannot be used together: their {what} is "
                    f"{ours} and {theirs}"
                )

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one noisy render and its target."""
        which, position, level = self._pairs[index]
        return self.sets[which].level(position, level) | {"index": torch.tensor(index)}

    def target_buffers(self, index: int) -> FrameBuffers:
        """Gather what is known of the crop of an item; see :meth:`CropSet.target_buffers`."""
        which, position, level = self._pairs[index]
        return self.sets[which].target_buffers(position, level)
