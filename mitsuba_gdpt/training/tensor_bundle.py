"""Reading checkpoints of TensorFlow without it: tensor bundles, ``NAME.index`` and ``NAME.data-*``.

The index is a sorted table of LevelDB: blocks of entries whose keys share prefixes, an index of
the blocks, and a footer of 48 bytes that says where that is. The values are protocol buffers
(``BundleEntryProto``) with type, shape, shard, offset and size of a tensor; the data files hold the
bytes of the tensors, little-endian. See ``tensorflow/core/util/tensor_bundle`` and
``tensorflow/core/protobuf/tensor_bundle.proto``. Checksums are not looked at.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt.errors import FormatError

INDEX_SUFFIX = ".index"

_MAGIC = bytes.fromhex("57fb808b247547db")
_FOOTER = 48
_MOST_INDEX = 1 << 24
_MOST_TENSOR = 1 << 30
#: Types that networks are stored in, by the number of TensorFlow; others are left out.
_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("<f8"), 19: np.dtype("<f2")}
# Wire types of protocol buffers.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class _Entry:
    kind: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int


def read_bundle(path: Path) -> dict[str, NDArray[Any]]:
    """Read the floating-point tensors of a checkpoint.

    Args:
        path: What all its files begin with, or its index.

    Returns:
        Name to values.

    Raises:
        FormatError: A file is missing or damaged.
    """
    prefix = Path(str(path).removesuffix(INDEX_SUFFIX))
    index = Path(f"{prefix}{INDEX_SUFFIX}")
    try:
        content = _read(index, _MOST_INDEX)
        entries = {key.decode(): value for key, value in _table(content)}
        shards = _shard_count(entries.pop("", b""))
        return {
            name: _tensor(prefix, entry, shards)
            for name, value in entries.items()
            if (entry := _entry(value)).kind in _TYPES
        }
    except (IndexError, ValueError, struct.error) as error:
        raise FormatError(f"{index}: damaged, or no index of a checkpoint: {error}") from error


def _read(path: Path, most: int) -> bytes:
    try:
        if path.stat().st_size > most:
            raise FormatError(f"{path}: {path.stat().st_size} bytes; expected at most {most}")
        return path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: cannot read this file of a checkpoint: {error}") from error


def _tensor(prefix: Path, entry: _Entry, shards: int) -> NDArray[Any]:
    path = Path(f"{prefix}.data-{entry.shard:05d}-of-{shards:05d}")
    kind = _TYPES[entry.kind]
    if entry.size != math.prod(entry.shape) * kind.itemsize or entry.size > _MOST_TENSOR:
        raise ValueError(f"a tensor of shape {entry.shape} with {entry.size} bytes")
    try:
        values = np.fromfile(path, kind, math.prod(entry.shape), offset=entry.offset)
    except OSError as error:
        raise FormatError(f"{path}: cannot read this file of a checkpoint: {error}") from error
    if values.nbytes != entry.size:
        raise FormatError(f"{path}: it ends before a tensor does; the file was cut short")
    return values.reshape(entry.shape)


# ------------------------------------------------------------------------------------ table


def _table(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield all keys and values."""
    footer = content[-_FOOTER:]
    if len(footer) < _FOOTER or not footer.endswith(_MAGIC):
        raise ValueError("it does not end as such a file")
    at = 0
    numbers = []
    for _ in range(4):  # offset and size of the index of metadata, and of that of the blocks
        number, at = _varint(footer, at)
        numbers.append(number)
    for _, handle in _block(content, *numbers[2:]):
        offset, at = _varint(handle, 0)
        size, _ = _varint(handle, at)
        yield from _block(content, offset, size)


def _block(content: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the entries of a block, which ends with a list of the keys that are given in full."""
    if offset + size >= len(content) or size < 4:
        raise ValueError("a block lies outside the file")
    if content[offset + size]:
        raise ValueError("a block is compressed, which TensorFlow does not do")
    block = content[offset : offset + size]
    (restarts,) = struct.unpack("<I", block[-4:])
    at, end, key = 0, size - 4 - 4 * restarts, b""
    while at < end:
        shared, at = _varint(block, at)
        added, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + added]
        at += added
        yield key, block[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number in groups of seven bits; return it and where the next begins."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number has more than 64 bits")


# ------------------------------------------------------------------------- protocol buffers


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield the number and the value of each field."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"an entry has a field of the unknown type {wire}")
        yield tag >> 3, message[at : at + size]
        at += size


def _shard_count(header: bytes) -> int:
    return int(dict(_fields(header)).get(1, 1))


def _entry(value: bytes) -> _Entry:
    found = {"kind": 0, "shard": 0, "offset": 0, "size": 0}
    names = {1: "kind", 3: "shard", 4: "offset", 5: "size"}
    shape: tuple[int, ...] = ()
    for number, content in _fields(value):
        if number == 2:
            sizes = [dict(_fields(dim)).get(1, 0) for field, dim in _fields(content) if field == 2]
            shape = tuple(int(size) for size in sizes)
        elif number in names:
            found[names[number]] = int(content)
    return _Entry(shape=shape, **found)
