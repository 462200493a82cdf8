"""Contact sheets: many pictures in one PNG, to be looked at."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from mitsuba_gdpt import exr
from mitsuba_gdpt.errors import ConfigError

_GAP, _CAPTION = 8, 20
_PAPER, _INK = (24, 24, 24), (220, 220, 220)


def contact_sheet(
    pictures: Mapping[str, Any], target: str | os.PathLike[str], *, columns: int = 3
) -> None:
    """Arrange pictures in a grid, each with its name below, and write them as a PNG.

    Args:
        pictures: Caption to picture: the path of an 8-bit file, or (H, W, 3) scene-linear radiance
            (shown as sRGB, clipped to 0..1).
        target: PNG file to write.
        columns: Pictures per row.

    Raises:
        ConfigError: There is no picture.
    """
    if not pictures:
        raise ConfigError("got no pictures for a contact sheet; expected at least one")
    images = {caption: _open(picture) for caption, picture in pictures.items()}
    captions = list(images)
    rows = [captions[i : i + columns] for i in range(0, len(captions), columns)]
    cell = max(image.width for image in images.values())
    heights = [max(images[name].height for name in row) + _CAPTION + _GAP for row in rows]
    size = (min(columns, len(images)) * (cell + _GAP) + _GAP, sum(heights) + _GAP)
    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, caption in enumerate(row):
            left = _GAP + column * (cell + _GAP)
            sheet.paste(images[caption], (left, top))
            text = _fitted(caption, cell, font)
            draw.text((left, top + images[caption].height + 2), text, _INK, font)
        top += height
    sheet.save(Path(target))


def _fitted(caption: str, width: int, font: Any) -> str:
    """Leave out what is in the middle of a caption that is wider than its picture."""
    text = caption
    for kept in range(len(caption) - 1, 1, -1):
        if font.getlength(text) <= width:
            break
        text = f"{caption[: (kept + 1) // 2]}…{caption[-(kept // 2) :]}"
    return text


def _open(picture: Any) -> Image.Image:
    if isinstance(picture, str | os.PathLike):
        return Image.open(picture).convert("RGB")
    return Image.fromarray(exr.to_8bit(picture))
