"""NumPy's archives of images, as NGPT writes them: float arrays by name, read without pickle."""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mitsuba_gdpt.checks import show
from mitsuba_gdpt.errors import FormatError
from mitsuba_gdpt.files import replace_file

#: What NumPy, and so NGPT, calls an array without a name.
UNNAMED = "arr_0"
#: As in :mod:`mitsuba_gdpt.exr`: so many bytes, or so many times its size, a file may hold.
_ALWAYS_READ, _MOST_COMPRESSED = 1 << 28, 2048
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, TypeError) + (
    NotImplementedError,
    RuntimeError,
    MemoryError,
)


def read(path: str | os.PathLike[str]) -> dict[str, NDArray[np.float32]]:
    """Read the images of an archive.

    Returns:
        Name to (H, W, C); (H, W) arrays get C = 1, and other arrays are left out.

    Raises:
        FormatError: The file is missing or damaged, no archive, or has no image.
    """
    path = Path(path)
    images: dict[str, NDArray[np.float32]] = {}
    others: list[str] = []
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            promised, actual = sum(member.file_size for member in members), path.stat().st_size
            if promised > max(_ALWAYS_READ, _MOST_COMPRESSED * actual):
                raise FormatError(f"{path}: {promised} bytes of arrays in {actual}; damaged")
            for member in members:
                name = member.filename.removesuffix(".npy")
                array = _array(archive, member)
                if array is None or array.ndim not in (2, 3) or 0 in array.shape:
                    others.append(name)
                    continue
                images[name] = array.reshape(*array.shape[:2], -1)
    except FileNotFoundError as error:
        raise FormatError(f"{path}: no such file; expected an NPZ archive") from error
    except OSError as error:
        raise FormatError(f"{path}: cannot read this file: {error.strerror or error}") from error
    except _DAMAGED as error:
        raise FormatError(f"{path}: cannot read this NPZ archive: {show(str(error))}") from error
    if not images:
        found = ", ".join(map(show, others[:8])) or "nothing"
        raise FormatError(f"{path}: no float array (H, W, C); the archive has: {found}")
    return images


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[np.float32] | None:
    """Read an array; None for one that is not of real floating point numbers.

    NumPy's own reader reserves what the header promises before it looks at what is there.

    Raises:
        ValueError: It is damaged.
    """
    with archive.open(member) as file:
        version = npy.read_magic(file)
        header: Any = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, kind = header(file)
        if kind.kind != "f":
            return None
        content = file.read()
    if len(content) != math.prod(shape) * kind.itemsize:
        raise ValueError(f"{member.filename} has {len(content)} bytes for the shape {shape}")
    array = np.frombuffer(content, kind).reshape(shape, order="F" if fortran else "C")
    return array.astype(np.float32)


def write(path: str | os.PathLike[str], images: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays to a compressed archive, atomically.

    Raises:
        FormatError: The folder does not exist or the disk is full.
    """
    arrays: dict[str, Any] = dict(images)

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:  # NumPy would add a suffix to a name
            np.savez_compressed(file, **arrays)

    replace_file(path, save)
