"""Shards of crop sets: a few crops of a scene, written whole or not at all, and read one by one.

A shard is written in a folder of its own, and its files are then moved into the set: first the
images, then :data:`CHECKSUMS` of these, last the array :data:`MARKER`. Readers look at nothing that
is not marked: whatever a killed process leaves behind is overwritten when the shard is rendered
again. So is what no longer is what it was when it was written.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt import packages
from mitsuba_gdpt.data.metadata import (
    CHECKSUMS,
    FAULTS,
    IMAGES,
    MARKER,
    METADATA,
    SUMMED,
    read_rows,
)
from mitsuba_gdpt.errors import FormatError
from mitsuba_gdpt.files import checksum, temporary_beside

#: Arrays that are filled shard by shard, in the order of writing, and their dimensions.
_DIMENSIONS = {"noisy": 5, "targets": 5, "target_deviation": 3, CHECKSUMS: 2, MARKER: 2}

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Shard:
    """Where a few crops of a set are stored.

    Attributes:
        path: Folder of the set.
        scene: Name of the scene.
        number: Number of the shard in the scene.
        start: First crop.
        stop: Crop after the last one.
    """

    path: Path
    scene: str
    number: int
    start: int
    stop: int

    @property
    def key(self) -> str:
        """Name of the shard, unique in the set."""
        return f"{self.scene}-{self.number:04d}"

    @property
    def folder(self) -> Path:
        """Folder of the scene."""
        return self.path / self.scene

    def is_complete(self) -> bool:
        """Whether the shard has been written, and is what was written: reads all of it."""
        marks = read_rows(self.folder, MARKER, self.number, len(FAULTS))
        count = self.stop - self.start
        if marks is None or len(marks) < count or (marks[:count] < 0).any():
            return False
        known = read_rows(self.folder, CHECKSUMS, self.number, 2 * len(SUMMED))
        if known is None:
            return self._is_readable()
        return known.tolist() == [self._checksums(self.folder)]

    def _checksums(self, folder: Path) -> list[int]:
        """Return size and checksum of each file, in the folder of a scene."""
        result: list[int] = []
        for name in SUMMED:
            try:
                result += checksum(folder / self._file(name))
            except OSError:  # all is zero
                result += [0, 0]
        return result

    def _is_readable(self) -> bool:
        """Whether the images can be read, of sets that have no checksums."""
        zarr = packages.load("zarr", "data")

        if not all((self.folder / self._file(name)).is_file() for name in IMAGES[:2]):
            return False
        try:
            group: Any = zarr.open_group(self.folder, mode="r")
            for name in IMAGES:
                group[name][self.start : self.stop]
        except Exception:  # the library raises whatever a damaged file leads to
            return False
        return True

    def _file(self, name: str) -> str:
        """Return the path of the shard's file of an array, within the scene."""
        return f"{name}/c/{self.number}" + "/0" * (_DIMENSIONS[name] - 1)

    def write(self, noisy: Array, targets: Array, deviation: Array, faults: Array) -> None:
        """Write encoded crops; the same values again leave the same files.

        Args:
            noisy: (crops, L, H, W, C) float16, see :func:`~.store.to_half`.
            targets: (crops, T, H, W, 3) float16.
            deviation: (crops, H, W) float16.
            faults: (crops, 2) integers, see :data:`FAULTS`.

        Raises:
            FormatError: The disk is full, or another error of the system.
        """
        zarr = packages.load("zarr", "data")

        scratch = temporary_beside(self.path / self.key)
        try:
            present = [name for name in _DIMENSIONS if (self.folder / name).is_dir()]
            for name in ("", *present):
                (scratch / name).mkdir()
                shutil.copyfile(self.folder / name / METADATA, scratch / name / METADATA)
            group: Any = zarr.open_group(scratch, mode="r+")
            images = zip(IMAGES, (noisy, targets, deviation), strict=True)
            for name, values in (*images, (MARKER, faults)):
                group[name][self.start : self.stop] = values
            if CHECKSUMS in present:
                group[CHECKSUMS][self.number] = self._checksums(scratch)
            for name in present:
                self._move(scratch, name)
        except OSError as error:
            raise FormatError(
                f"{self.path}: cannot write crops {self.start} to {self.stop - 1} of "
                f"{self.scene!r}: {error.strerror or error}. What was written before is kept; make "
                "room and run the same command again"
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _move(self, scratch: Path, name: str) -> None:
        """Put the file of an array into its place; where all is zero, there is none."""
        made, place = scratch / self._file(name), self.folder / self._file(name)
        if made.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(made, place)
        else:
            place.unlink(missing_ok=True)


@dataclass(frozen=True)
class ShardUnit:
    """A shard as a piece of work; subclasses say how it is filled.

    Attributes:
        shard: What to write.
    """

    shard: Shard

    @property
    def key(self) -> str:
        """Name of the work, unique in the set."""
        return self.shard.key

    def is_done(self) -> bool:
        """Whether the shard has been written and is intact."""
        return self.shard.is_complete()


class ShardReader:
    """Reads single chunks of one array of a scene, with no more than that takes.

    Zarr reads the same files, but hands each step to another thread: 2.5 ms per chunk instead of
    0.5 ms. Only for the layout that :func:`~.store.create` makes. Has no open files, so it can be
    pickled.
    """

    _EMPTY = 2**64 - 1  # offset and length of a chunk that is all zeros, and of no data

    def __init__(self, folder: Path, shape: tuple[int, ...], crops_per_shard: int) -> None:
        """Describe an array.

        Args:
            folder: That of the array.
            shape: Length of the array's dimensions: crop, and further ones.
            crops_per_shard: Crops in one file.
        """
        self._folder, self._crops = folder, crops_per_shard
        self._levels = shape[1] if folder.name == "noisy" else 1
        self._shape = shape[2:] if folder.name == "noisy" else shape[1:]
        self._planar = self._shape if len(self._shape) == 2 else _channels_first(self._shape)
        self._tail = "/0" * (len(shape) - 1)
        self._sizes: dict[int, int | None] = {}

    def read(self, crop: int, level: int = 0) -> Array:
        """Return a chunk as float16, channel-last in name but stored as planes.

        Raises:
            OSError: The file cannot be read.
            ValueError: The file is damaged.
        """
        blosc = packages.load("numcodecs", "data").Blosc()

        shard, row = divmod(crop, self._crops)
        try:
            file = (self._folder / f"c/{shard}{self._tail}").open("rb")
        except FileNotFoundError:
            # Without checksums a black shard, which has no file, cannot be told from a lost one.
            # Deviations of 0 are common, images without anything in them are not.
            unknown = self._size(shard) is None and self._folder.name == IMAGES[-1]
            if unknown or self._size(shard) == 0:
                return np.zeros(self._shape, np.float16)
            raise
        count = self._crops * self._levels
        with file:
            if self._size(shard) not in (None, found := os.fstat(file.fileno()).st_size):
                raise ValueError(f"{found} bytes; expected {self._size(shard)}")
            # Sharding codec of Zarr v3: offset and length of each chunk, then a checksum.
            file.seek(-(16 * count + 4), os.SEEK_END)
            index = np.frombuffer(file.read(16 * count), "<u8").reshape(count, 2)
            offset, length = (int(v) for v in index[row * self._levels + level])
            if offset == self._EMPTY:
                return np.zeros(self._shape, np.float16)
            if offset + length > file.tell():
                raise ValueError("the file is shorter than its index says")
            file.seek(offset)
            planes = np.empty(self._planar, np.float16)
            blosc.decode(file.read(length), out=planes)
        return planes if planes.ndim == 2 else np.moveaxis(planes, -3, -1)

    def _size(self, shard: int) -> int | None:
        """Return what size the file of a shard had when it was written, None if that is unknown."""
        if shard not in self._sizes:
            known = read_rows(self._folder.parent, CHECKSUMS, shard, 2 * len(SUMMED))
            column = 2 * IMAGES.index(self._folder.name)
            self._sizes[shard] = int(known[0, column]) if known is not None and len(known) else None
        return self._sizes[shard]


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-3], shape[-1], *shape[-3:-1])
