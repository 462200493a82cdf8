"""Sequences as animated pictures, which every browser plays."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from mitsuba_gdpt import exr
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.files import replace_file

#: Suffix to Pillow's format and options. All keep every pixel: a lossy codec would hide flicker.
_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"default_image": False}),
    ".webp": ("WEBP", {"lossless": True, "method": 2}),
}


def write_animation(
    frames: Iterable[Any],
    target: str | os.PathLike[str],
    *,
    rate: float = 12.0,
    exposure: float = 0.0,
) -> None:
    """Write frames as an animated picture that repeats for ever, atomically.

    Neighbouring frames that are equal in 8 bits are stored as one that is shown for longer.

    Args:
        frames: (H, W, 3) scene-linear each, of one size; shown as sRGB, clipped to 0..1.
        target: File to write: ``.png`` (APNG) or ``.webp``, both without loss.
        rate: Frames per second.
        exposure: Stops; +1 doubles the brightness.

    Raises:
        ConfigError: There is no frame, they differ in size, or the suffix or the rate makes no
            sense.
        LayoutError, NonFiniteError: As for :func:`mitsuba_gdpt.exr.to_8bit`.
        FormatError: The file cannot be written.
    """
    target = Path(target)
    if target.suffix.lower() not in _FORMATS:
        raise ConfigError(
            f"cannot animate {target.name}; expected a name that ends in {' or '.join(_FORMATS)}"
        )
    if not 0 < rate < float("inf"):
        raise ConfigError(f"got {rate} frames per second; expected a positive number")
    pictures = [Image.fromarray(exr.to_8bit(frame, exposure=exposure)) for frame in frames]
    if len(sizes := {picture.size for picture in pictures}) != 1:
        raise ConfigError(
            f"{target}: got {len(pictures)} frames of the sizes {sorted(sizes)}; expected at least "
            f"one frame, and one size"
        )
    kind, options = _FORMATS[target.suffix.lower()]
    first, *others = pictures
    replace_file(
        target,
        lambda temporary: first.save(
            temporary,
            format=kind,
            save_all=True,
            append_images=others,
            duration=1000 / rate,
            loop=0,
            **options,
        ),
    )
