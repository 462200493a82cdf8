"""Weights of Open Image Denoise's networks, read from the installed ``mitsuba-oidn`` package.

The library holds them as blobs in its own format, TZA 2.0: a table of named tensors. They are found
by their hash: another version of the library has other weights, with which what was trained on top
of these would make another image, so it is refused. The weights are Intel's, under Apache-2.0.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import math
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mitsuba_gdpt import packages
from mitsuba_gdpt.errors import WeightsError

#: Version of the ``mitsuba-oidn`` package that the hashes are of.
VERSION = "0.1.2"
#: Network to the SHA-256 of its blob. ``hdr_alb_nrm``: radiance without an upper bound, albedo and
#: normal as rendered, at the quality ``high``; ``hdr_calb_cnrm``: both free of noise, at lower
#: qualities; ``hdr_calb_cnrm_large``: the same at ``high``.
HASHES = {
    "hdr_alb_nrm": "e586ef2ff48d7fbb7611986405220ed8fc5c13ca79bfc40be4dc742fbf959e1a",
    "hdr_calb_cnrm": "d0057057bd76c64e3e67b449728ef8f4fd2f11ccfb74c1e59b9d50dafd50ee0e",
    "hdr_calb_cnrm_large": "08130cdc4f33b7a513d0073757f089ac830f900613bb5bad72ca42c52b934465",
}
_MAGIC = struct.pack("<HBB", 0x41D7, 2, 0)
_MOST_TENSORS = 256
_TYPES: dict[str, np.dtype[Any]] = {"h": np.dtype("<f2"), "f": np.dtype("<f4")}


@functools.cache
def read(network: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a network by name, float32.

    Args:
        network: A key of :data:`HASHES`.

    Raises:
        MissingDependencyError: The package is not installed.
        WeightsError: It holds other weights.
    """
    packages.check("mitsuba_oidn", "oidn")
    spec = importlib.util.find_spec("mitsuba_oidn")
    assert spec is not None  # checked
    assert spec.origin is not None
    libraries = sorted(Path(spec.origin).parent.glob("*mitsuba_oidn_core*"))
    for library in libraries:
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as m:
            for blob in blobs(m):
                if hashlib.sha256(blob).hexdigest() == HASHES[network]:
                    return parse(blob)
    found = ", ".join(str(library) for library in libraries) or "no library of the package"
    raise WeightsError(
        f"{found}: no weights {network!r} as in mitsuba-oidn {VERSION}; install that version: "
        f"pip install mitsuba-oidn=={VERSION}"
    )


def blobs(data: bytes | mmap.mmap) -> Iterator[bytes]:
    """Yield the blobs of weights inside a file; what only looks like one is left out."""
    start = data.find(_MAGIC)
    while start >= 0:
        size = _size(data, start)
        if size is not None:
            yield bytes(data[start : start + size])
        start = data.find(_MAGIC, start + 1)


def parse(blob: bytes) -> dict[str, torch.Tensor]:
    """Return the tensors of a blob, float32.

    Raises:
        ValueError: It is no TZA 2.0, is cut short, or holds NaN or infinity. The library trusts
            what it is given: a wrong offset in there would read beyond the blob.
    """
    if not blob.startswith(_MAGIC):
        raise ValueError("it is not in OIDN's format TZA 2.0")
    try:
        rows, _ = _table(blob, 0)
    except _MALFORMED as error:
        raise ValueError(f"its table of tensors is damaged ({error})") from error
    tensors = {}
    for name, shape, kind, offset, size in rows:
        if offset + size > len(blob):
            raise ValueError(f"the tensor {name!r} of {size} bytes ends beyond the file")
        values = np.frombuffer(blob, _TYPES[kind], math.prod(shape), offset).reshape(shape)
        if not np.isfinite(values).all():
            raise ValueError(f"the tensor {name!r} holds NaN or infinity")
        tensors[name] = torch.from_numpy(values.astype(np.float32))
    return tensors


#: What reading a table that is none raises.
_MALFORMED = (struct.error, UnicodeDecodeError, KeyError, IndexError, ValueError)

_Row = tuple[str, tuple[int, ...], str, int, int]


def _size(data: bytes | mmap.mmap, start: int) -> int | None:
    """Return the bytes of the blob at a position, or None if there is none."""
    try:
        rows, end = _table(data, start)
    except _MALFORMED:
        return None
    return max([end, *(offset + size for *_, offset, size in rows)])


def _table(data: bytes | mmap.mmap, start: int) -> tuple[list[_Row], int]:
    """Return name, shape, type, offset and bytes of each tensor, and where the table ends.

    Raises:
        ValueError: There is no table of a plausible size, as other exceptions of parsing.
    """
    (position,) = struct.unpack_from("<Q", data, start + len(_MAGIC))

    def take(layout: str) -> tuple[int, ...]:
        nonlocal position
        values = struct.unpack_from("<" + layout, data, start + position)
        position += struct.calcsize("<" + layout)
        return values

    def text(length: int) -> str:
        nonlocal position
        word = bytes(data[start + position : start + position + length]).decode("ascii")
        position += length
        return word

    if not len(_MAGIC) < position < len(data) - start:
        raise ValueError("the table lies outside")
    (count,) = take("I")
    if not 0 < count <= _MOST_TENSORS:
        raise ValueError(f"{count} tensors")
    rows = []
    for _ in range(count):
        name = text(*take("H"))
        (dimensions,) = take("B")
        shape = take(f"{dimensions}I")
        text(dimensions)  # meaning of the axes: "oihw" or "x"
        kind = text(1)
        (offset,) = take("Q")
        rows.append((name, shape, kind, offset, math.prod(shape) * _TYPES[kind].itemsize))
    return rows, position
