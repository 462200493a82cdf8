"""Writes Darc files to the description of the format, for the tests; nothing else writes them."""

from __future__ import annotations

import io
import itertools
import struct
from pathlib import Path
from typing import Any

import numpy as np

TYPES = ["bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"]

#: First channel of each buffer in a file, from the description of NGPT's configuration.
PLACES = {
    **{"primal": 0, "dx": 3, "dy": 6, "dx.var": 9, "dy.var": 10, "primal.var": 11},
    **{"albedo": 12, "normal": 15, "depth": 18, "albedo.var": 19, "normal.var": 20},
    **{"depth.var": 21, "diffuse": 22, "specular": 25, "diffuse.var": 28, "specular.var": 29},
}


def encode(array: np.ndarray, chunk: tuple[int, ...], version: int) -> bytes:
    code = next(i for i, name in enumerate(TYPES) if array.dtype == np.dtype(name))
    words = [array.ndim, *array.shape, *chunk, *([code] if version >= 1 else [])]
    parts = [struct.pack(f"<{len(words)}I", *words)]
    counts = [-(-n // c) for n, c in zip(array.shape, chunk, strict=True)]
    for cell in itertools.product(*map(range, counts)):
        inside = tuple(slice(i * c, (i + 1) * c) for i, c in zip(cell, chunk, strict=True))
        padded = np.zeros(chunk, array.dtype)
        piece = array[inside]
        padded[tuple(slice(n) for n in piece.shape)] = piece
        parts.append(padded.astype(array.dtype.newbyteorder("<")).tobytes())
    return b"".join(parts)


def npy(value: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array(value, dtype=object), allow_pickle=True)
    return stream.getvalue()


def write(
    path: Path,
    arrays: list[np.ndarray],
    chunk: tuple[int, ...],
    version: int = 2,
    names: bytes | None = None,
) -> Path:
    names = npy({f"crop-{i}": i for i in range(len(arrays))}) if names is None else names
    at = 4 + 4 + 8 + (8 if version >= 2 else 0)
    addresses, bodies = [], []
    for array in arrays:
        addresses.append(at)
        bodies.append(encode(array, chunk, version))
        at += len(bodies[-1])
    directory = struct.pack(f"<Q{len(arrays)}Q", len(arrays), *addresses)
    header = b"darc" + struct.pack("<IQ", version, at)
    if version >= 2:
        header += struct.pack("<Q", at + len(directory))
    path.write_bytes(header + b"".join(bodies) + directory + (names if version >= 2 else b""))
    return path


def crops(count: int = 2, levels: int = 3, height: int = 5, width: int = 7) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [
        random.normal(size=(levels + 1, height, width, 30)).astype(np.float16) for _ in range(count)
    ]
