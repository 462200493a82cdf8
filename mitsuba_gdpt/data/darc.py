"""Darc files: the training data of NGPT (Kettunen et al., TOG 38(4), 2019), read safely.

Versions 0, 1 and 2 of the container; see ``docs/formats/darc.md``. A file is a list of arrays. In a
training file each is a crop: several noisy renders and, last, the clean one, with 30 channels.

Nothing in a file is trusted: sizes are checked against the length of the file before anything is
allocated, and the map of names, which is a Python pickle, is read without running any of its code.
"""

from __future__ import annotations

import itertools
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt import channels
from mitsuba_gdpt.channels import PRIMAL, Layout
from mitsuba_gdpt.checks import reason
from mitsuba_gdpt.data.darc_names import read_names
from mitsuba_gdpt.errors import ConfigError, FormatError

#: Buffers in the order of a crop's 30 channels.
ORDER = (
    *("primal", "dx", "dy", "dx.var", "dy.var", "primal.var"),
    *("albedo", "normal", "depth", "albedo.var", "normal.var", "depth.var"),
    *("diffuse", "specular", "diffuse.var", "specular.var"),
)
#: What the channels are after reading.
LAYOUT = Layout.make(features=("diffuse", "specular"), variances=True)

#: What a file begins with.
MAGIC = b"darc"
_VERSIONS = (0, 1, 2)
#: Types of arrays, by number.
DTYPES = tuple(
    np.dtype(name).newbyteorder("<")
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "float32", "float64", "complex64", "complex128"),
    )
)
_UINT8 = DTYPES.index(np.dtype("u1"))
_MOST_DIMENSIONS = 8
# Larger than in any training file. Without them a file of a few megabytes keeps a reader busy.
_MOST_ARRAYS = 1 << 16
_MOST_CHUNKS = 1 << 18
_MOST_NAME_BYTES = 4 << 20

#: For each of our channels its place in the file.
_FROM_FILE = [
    {name: i for i, name in enumerate(c for b in ORDER for c in channels.buffer(b).channels)}[name]
    for name in LAYOUT.channels
]


@dataclass(frozen=True, eq=False)
class DarcCrop:
    """One crop of a training file.

    Attributes:
        index: Number in the file.
        noisy: (L, H, W, C) float16, channels as in :data:`LAYOUT`; levels as in the file. Values
            that did not fit float16 are infinite.
        target: (H, W, 3) float16, scene-linear.
        nonfinite: Name of a buffer (or ``target``) to its number of values that are NaN or
            infinite; empty if there are none.
    """

    index: int
    noisy: NDArray[np.float16]
    target: NDArray[np.float16]
    nonfinite: dict[str, int]


@dataclass(frozen=True)
class _Array:
    """Header of one array, checked against the length of the file."""

    start: int  # of its first chunk
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def chunk_bytes(self) -> int:
        return math.prod(self.chunk) * self.dtype.itemsize

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return tuple(-(-size // step) for size, step in zip(self.shape, self.chunk, strict=True))


class DarcFile:
    """An open Darc file; use it in a ``with`` statement.

    Example:
        >>> with DarcFile("train-room-250-5.darc") as file:  # doctest: +SKIP
        ...     for crop in file.crops():
        ...         print(crop.index, crop.noisy.shape, crop.nonfinite)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open a file and read its directory, but no array.

        Raises:
            FormatError: The file is missing, of another kind or version, truncated or damaged.
        """
        self.path = Path(path)
        try:
            self._file: BinaryIO = self.path.open("rb")
        except OSError as error:
            raise FormatError(f"{path}: cannot read this file: {error.strerror}") from error
        try:
            self._size = os.fstat(self._file.fileno()).st_size
            self.version, directory, self._names_at = self._read_header()
            self._arrays = self._read_directory(directory)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> DarcFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        """Return the number of arrays."""
        return len(self._arrays)

    def shape(self, index: int) -> tuple[int, ...]:
        """Return the shape of an array.

        Raises:
            ConfigError: There are not so many.
        """
        return self._array(index).shape

    def read(self, index: int, first: int = 0, last: int | None = None) -> NDArray[Any]:
        """Read an array, or a range of its first axis; one chunk at a time.

        Args:
            index: Number in the file.
            first: First entry along the first axis.
            last: One past the last entry; None for all.

        Raises:
            ConfigError: There is no such array or range.
            FormatError: The file ends early.
        """
        array = self._array(index)
        last = array.shape[0] if last is None else last
        if not 0 <= first < last <= array.shape[0]:
            raise ConfigError(
                f"{self.path}: got the range {first}..{last} of array {index}; expected one "
                f"inside 0..{array.shape[0]}"
            )
        result = np.empty((last - first, *array.shape[1:]), array.dtype.newbyteorder("="))
        inner = array.grid[1:]
        rows = range(first // array.chunk[0], -(-last // array.chunk[0]))
        # The first axis is the slowest of the chunk grid: these chunks follow each other.
        self._file.seek(array.start + rows.start * math.prod(inner) * array.chunk_bytes)
        for place in itertools.product(rows, *map(range, inner)):
            chunk = np.frombuffer(self._take(array.chunk_bytes), array.dtype).reshape(array.chunk)
            source, target = [], []
            for axis, (cell, step) in enumerate(zip(place, array.chunk, strict=True)):
                low, high = (first, last) if axis == 0 else (0, array.shape[axis])
                begin, end = max(cell * step, low), min((cell + 1) * step, high)
                source.append(slice(begin - cell * step, end - cell * step))
                target.append(slice(begin - low, end - low))
            result[tuple(target)] = chunk[tuple(source)]  # without the padding of edge chunks
        return result

    def crops(self) -> Iterator[DarcCrop]:
        """Read the crops of a training or test file, one after the other.

        Raises:
            FormatError: An array is not a crop: (renders, H, W, 30), of type float16.
        """
        return map(self.crop, range(len(self)))

    def crop(self, index: int) -> DarcCrop:
        """Read one crop.

        Raises:
            ConfigError: There are not so many.
            FormatError: As :meth:`crop_shape`, or the file ends early.
        """
        self.crop_shape(index)
        images = self.read(index)
        noisy = np.take(images[:-1], _FROM_FILE, axis=-1)
        primal = len(channels.buffer(PRIMAL))
        target = np.ascontiguousarray(images[-1, ..., :primal])
        return DarcCrop(index, noisy, target, _count_nonfinite(noisy, target))

    def level(self, index: int, level: int) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
        """Read one noisy render of a crop, and its target; no more of a frame of a test file.

        Args:
            index: Number of the crop.
            level: Number of the render, 0 for the fewest samples.

        Returns:
            (H, W, C) with channels as in :data:`LAYOUT`, and (H, W, 3).

        Raises:
            ConfigError: There is no such crop or render.
            FormatError: As :meth:`crop_shape`, or the file ends early.
        """
        levels, _, _ = self.crop_shape(index)
        if level not in range(levels):
            raise ConfigError(
                f"{self.path}: crop {index} has {levels} noisy renders; there is no number {level}"
            )
        noisy = self.read(index, level, level + 1)[0]
        clean = self.read(index, levels, levels + 1)[0]
        primal = len(channels.buffer(PRIMAL))
        return np.take(noisy, _FROM_FILE, axis=-1), np.ascontiguousarray(clean[..., :primal])

    def crop_shape(self, index: int) -> tuple[int, int, int]:
        """Return noisy renders, height and width of a crop, without reading it.

        Raises:
            ConfigError: There are not so many.
            FormatError: The array is not a crop: (renders, H, W, 30), of type float16.
        """
        array = self._array(index)
        expected = len(array.shape) == 4 and array.shape[0] > 1
        if not expected or array.shape[3] != LAYOUT.count or array.dtype != np.float16:
            raise FormatError(
                f"{self.path}: array {index} is {array.dtype.name} {array.shape}; expected "
                f"float16 (renders, height, width, {LAYOUT.count}), the last render clean"
            )
        renders, height, width, _ = array.shape
        return renders - 1, height, width

    def names(self) -> dict[str, int]:
        """Read the map from names to array numbers; empty before version 2.

        Raises:
            FormatError: It is damaged, or a pickle of anything but a plain dictionary.
        """
        if self._names_at is None:
            return {}
        self._seek(self._names_at, "the map of names")
        blob = self._file.read(_MOST_NAME_BYTES + 1)
        if len(blob) > _MOST_NAME_BYTES:
            raise FormatError(f"{self.path}: the map of names is over {_MOST_NAME_BYTES} bytes")
        try:
            return read_names(blob)
        except Exception as error:  # a damaged pickle can raise anything
            raise FormatError(
                f"{self.path}: cannot read the map of names: {reason(error)}. The arrays do not "
                f"need it"
            ) from error

    def _array(self, index: int) -> _Array:
        if index not in range(len(self._arrays)):
            raise ConfigError(f"{self.path} has {len(self)} arrays; there is no number {index}")
        return self._arrays[index]

    def _take(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise FormatError(f"{self.path}: truncated; it ends after {self._size} bytes")
        return data

    def _numbers(self, kind: str, count: int = 1) -> tuple[int, ...]:
        code = f"<{count}{kind}"
        return struct.unpack(code, self._take(struct.calcsize(code)))

    def _seek(self, address: int, what: str) -> None:
        if address >= self._size:
            raise FormatError(
                f"{self.path}: truncated or damaged; {what} should be at byte {address}, the file "
                f"has {self._size}"
            )
        self._file.seek(address)

    def _read_header(self) -> tuple[int, int, int | None]:
        """Return version, address of the directory and that of the names."""
        magic = self._file.read(len(MAGIC))
        if magic != MAGIC:
            raise FormatError(f"{self.path}: not a Darc file; it begins with {magic!r}")
        (version,) = self._numbers("I")
        if version not in _VERSIONS:
            raise FormatError(f"{self.path}: Darc version {version}; expected 0, 1 or 2")
        (directory,) = self._numbers("Q")
        return version, directory, self._numbers("Q")[0] if version >= 2 else None

    def _read_directory(self, address: int) -> tuple[_Array, ...]:
        self._seek(address, "the directory")
        (count,) = self._numbers("Q")
        if count > _MOST_ARRAYS or count * 8 > self._size:
            raise FormatError(
                f"{self.path}: damaged; got a directory of {count} arrays, expected at most "
                f"{_MOST_ARRAYS}, and that it fits into the file"
            )
        return tuple(self._read_array(i, at) for i, at in enumerate(self._numbers("Q", count)))

    def _read_array(self, index: int, address: int) -> _Array:
        self._seek(address, f"array {index}")
        (dimensions,) = self._numbers("I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise FormatError(
                f"{self.path}: damaged; array {index} has {dimensions} dimensions, expected 1 to "
                f"{_MOST_DIMENSIONS}"
            )
        shape, chunk = self._numbers("I", dimensions), self._numbers("I", dimensions)
        code = self._numbers("I")[0] if self.version >= 1 else _UINT8
        if 0 in shape or 0 in chunk or code >= len(DTYPES):
            raise FormatError(
                f"{self.path}: damaged; array {index} has shape {shape}, chunks {chunk} and type "
                f"number {code}"
            )
        array = _Array(self._file.tell(), shape, chunk, DTYPES[code])
        chunks = math.prod(array.grid)
        end = array.start + chunks * array.chunk_bytes
        if end > self._size:
            raise FormatError(
                f"{self.path}: truncated; array {index} should end at byte {end}, the file has "
                f"{self._size}"
            )
        if chunks > _MOST_CHUNKS:
            raise FormatError(
                f"{self.path}: damaged; array {index} of shape {shape} has {chunks} chunks, "
                f"expected at most {_MOST_CHUNKS}"
            )
        return array


def _count_nonfinite(noisy: NDArray[np.float16], target: NDArray[np.float16]) -> dict[str, int]:
    bad = np.count_nonzero(~np.isfinite(noisy), axis=(0, 1, 2))
    counts = {name: int(bad[where].sum()) for name, where in LAYOUT.slices.items()}
    counts["target"] = int(np.count_nonzero(~np.isfinite(target)))
    return {name: count for name, count in counts.items() if count}
