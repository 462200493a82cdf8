"""Portable float maps, the images of OIDN's programs: three channels or one, float32, no layers."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt.checks import MOST_PIXELS
from mitsuba_gdpt.errors import FormatError, LayoutError
from mitsuba_gdpt.files import replace_file

_LONGEST_HEADER = 256
_HEADER = re.compile(rb"(P[Ff])\s+(\d{1,9})\s+(\d{1,9})\s+([-+.\deE]{1,32})\s")


def read(path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """Read an image, first row on top, times the scale of its header.

    Returns:
        (H, W, 3) or (H, W, 1).

    Raises:
        FormatError: The file is missing, damaged, or no PFM.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(_LONGEST_HEADER)
            match = _HEADER.match(head)
            if match is None:
                raise FormatError(f"{path}: not a PFM image; expected 'PF' or 'Pf', size and scale")
            count = 3 if match[1] == b"PF" else 1
            width, height, scale = int(match[2]), int(match[3]), _scale(match[4])
            size = path.stat().st_size - match.end()
            inside = 1 <= width <= MOST_PIXELS and 1 <= height <= MOST_PIXELS
            if scale is None or not inside or size < 4 * width * height * count:
                raise FormatError(
                    f"{path}: a header for {width} x {height} x {count} values, and {size} bytes "
                    f"after it; the file is damaged"
                )
            file.seek(match.end())
            content = file.read(4 * width * height * count)
    except OSError as error:
        raise FormatError(f"{path}: cannot read this file: {error.strerror}") from error
    values = np.frombuffer(content, "<f4" if scale < 0 else ">f4")
    image = values.reshape(height, width, count)[::-1].astype(np.float32)
    return image if abs(scale) == 1 else image * np.float32(abs(scale))


def _scale(text: bytes) -> float | None:
    """Return the scale, whose sign is the order of bytes; None if it is none."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and value != 0 else None


def write(path: str | os.PathLike[str], image: NDArray[np.float32]) -> None:
    """Write an (H, W, 3) image, atomically.

    Raises:
        FormatError: The folder does not exist or the disk is full.
        LayoutError: ``image`` has another shape.
    """
    if image.ndim != 3 or image.shape[2] != 3:
        raise LayoutError(f"{path}: got an image of shape {image.shape}; expected (H, W, 3)")
    header = f"PF\n{image.shape[1]} {image.shape[0]}\n-1.0\n".encode()
    content = header + np.ascontiguousarray(image[::-1], dtype="<f4").tobytes()
    replace_file(path, lambda temporary: temporary.write_bytes(content))
