"""Renders that are stored, in crop sets and Darc files, one by one with their references."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from mitsuba_gdpt import metrics, provenance
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.data import darc
from mitsuba_gdpt.data.darc import DarcFile
from mitsuba_gdpt.data.darc_import import finite, scene_name
from mitsuba_gdpt.data.dataset import CropSet
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.evaluation.settings import file_name


@dataclass(frozen=True)
class Example:
    """One noisy render of a set.

    Attributes:
        scene: Name of the scene.
        crop: Number of the crop in the scene; crops are independent of each other.
        level: Number of the render among those of its crop, fewest samples first.
        spp: Samples per pixel; 0 where the set does not say.
        pixels: Of the image.
    """

    scene: str
    crop: int
    level: int
    spp: int
    pixels: int

    @property
    def name(self) -> str:
        """Name in files."""
        return f"{file_name(self.scene)}-{self.crop:05d}-{self.level}"


class Stored(Protocol):
    """Noisy renders with references."""

    @property
    def layout(self) -> Layout:
        """Channels of the renders."""

    @property
    def identity(self) -> Any:
        """What results depend on, JSON-compatible."""

    def examples(self) -> list[Example]:
        """Return what there is, crop by crop."""

    def load(self, example: Example) -> tuple[FrameBuffers, metrics.Reference]:
        """Read a render and its reference.

        Raises:
            FormatError: The data are damaged.
        """


class StoredCrops:
    """A crop set; references in two halves remove their own noise from squared errors."""

    def __init__(self, path: Path) -> None:
        """Open a set, finished or not; raises as :meth:`.CropSet.open`."""
        self.crops = CropSet.open(path)
        self._position = {self.crops.where(i): i for i in range(len(self.crops))}

    @property
    def layout(self) -> Layout:
        """See :class:`Stored`."""
        return self.crops.layout

    @property
    def identity(self) -> Any:
        """See :class:`Stored`."""
        return self.crops.attributes

    def examples(self) -> list[Example]:
        """See :class:`Stored`."""
        samples = {
            scene: np.stack(list(self.crops.table(scene, "spp").values()), axis=-1)
            for scene in self.crops.scenes
        }
        return [
            Example(scene, crop, level, int(samples[scene][crop, level]), self.crops.size**2)
            for scene, crop in self._position
            for level in range(self.crops.levels)
        ]

    def load(self, example: Example) -> tuple[FrameBuffers, metrics.Reference]:
        """See :class:`Stored`."""
        item = self.crops.level(self._position[example.scene, example.crop], example.level)
        targets = [half.contiguous() for half in item["targets"][:2]]
        return FrameBuffers(item["buffers"].contiguous(), self.layout), metrics.Reference(*targets)


class StoredDarc:
    """A Darc file for training or testing; infinities become the largest value of float16."""

    layout = darc.LAYOUT

    def __init__(self, path: Path) -> None:
        """Look into a file; raises as :class:`.DarcFile`."""
        self.path = path
        try:
            self.scene = scene_name(path)
        except ConfigError:  # named otherwise
            self.scene = path.stem
        with DarcFile(path) as file:
            self._shapes = [file.crop_shape(index) for index in range(len(file))]

    @property
    def identity(self) -> Any:
        """See :class:`Stored`."""
        status = self.path.stat()
        return [self.path.name, status.st_size, status.st_mtime_ns]

    def examples(self) -> list[Example]:
        """See :class:`Stored`."""
        return [
            Example(self.scene, crop, level, 0, height * width)
            for crop, (levels, height, width) in enumerate(self._shapes)
            for level in range(levels)
        ]

    def load(self, example: Example) -> tuple[FrameBuffers, metrics.Reference]:
        """See :class:`Stored`."""
        with DarcFile(self.path) as file:
            noisy, target = map(_plain, file.level(example.crop, example.level))
        return FrameBuffers(noisy, self.layout), metrics.Reference(target)


class StoredSets:
    """Several of them, of scenes with different names."""

    def __init__(self, parts: Sequence[Stored]) -> None:
        """Put sets together.

        Raises:
            ConfigError: Two have a scene of the same name, or there is no example.
        """
        self._home: dict[Example, Stored] = {}
        owners: dict[str, Stored] = {}
        for part in parts:
            for example in part.examples():
                if owners.setdefault(example.scene, part) is not part:
                    raise ConfigError(
                        f"two of the sets have a scene {example.scene!r}; evaluate them apart"
                    )
                self._home[example] = part
        if not self._home:
            raise ConfigError("the sets have no finished crop to evaluate on")

    @functools.cached_property
    def layouts(self) -> list[Layout]:
        """The layouts of all sets."""
        return list(dict.fromkeys(part.layout for part in self._home.values()))

    def examples(self, scenes: Sequence[str] = (), most: int | None = None) -> list[Example]:
        """Return what there is, crop by crop.

        Args:
            scenes: Only these.
            most: This many crops, spread evenly; None for all.

        Raises:
            ConfigError: There is no such scene.
        """
        known = list(dict.fromkeys(example.scene for example in self._home))
        if unknown := sorted({*scenes} - {*known}):
            raise ConfigError(
                f"no scene {', '.join(unknown)} in the sets; they have: {', '.join(known)}"
            )
        chosen = [e for e in self._home if not scenes or e.scene in scenes]
        crops = list(dict.fromkeys((e.scene, e.crop) for e in chosen))
        kept = {*spread(crops, len(crops) if most is None else most)}
        return [e for e in chosen if (e.scene, e.crop) in kept]

    def load(self, example: Example) -> tuple[FrameBuffers, metrics.Reference]:
        """See :class:`Stored`."""
        return self._home[example].load(example)

    def mark(self, example: Example) -> str:
        """Return a hash of what an example depends on."""
        return provenance.digest(self._home[example].identity, asdict(example))


def open_stored(paths: Sequence[str | os.PathLike[str]]) -> StoredSets:
    """Open crop sets, Darc files and folders of Darc files.

    Raises:
        ConfigError: A folder is neither, two sets have a scene of the same name, or no crop is
            finished.
        FormatError: A file is missing or damaged, or of another kind.
    """
    parts: list[Stored] = []
    for path in map(Path, paths):
        if path.suffix.lower() == ".zarr" or (path / "zarr.json").is_file():
            parts.append(StoredCrops(path))
        elif path.is_dir():
            files = sorted(path.glob("*.darc"))
            if not files:
                raise ConfigError(
                    f"{path}: neither a crop set nor a folder with Darc files (*.darc)"
                )
            parts += map(StoredDarc, files)
        else:
            parts.append(StoredDarc(path))
    return StoredSets(parts)


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """Return at most so many of the items, spread evenly."""
    count = min(most, len(items))
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def _plain(values: Any) -> torch.Tensor:
    """Return values of a file, which may be infinite, as float32."""
    return torch.from_numpy(finite(values)[0].astype(np.float32))
