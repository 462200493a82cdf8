"""Buffers as small pictures for people, and HTML that holds them: what notebooks show.

Each kind of buffer has its way of being seen: radiance is exposed alike in all pictures of a frame,
differences and directions are grey where they are zero, lengths are bright where they are short.
Works on NumPy arrays; imports neither torch nor mitsuba.
"""

from __future__ import annotations

import base64
import html
import io
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mitsuba_gdpt import exr
from mitsuba_gdpt.channels import PRIMAL, Buffer

#: Largest width of a picture, in pixels.
WIDTH = 256
_BRIGHT, _LIT = 0.8, 0.9  # so bright is shown what such a share of the pixels is darker than
_SHARE = 0.98  # of values that are not cut off
_MISSING = (255, 0, 255)  # pixels that are not finite
_LEAST_TEXT = 24  # characters of a line, however narrow the terminal is


@dataclass(frozen=True)
class Picture:
    """A picture with what is written below it.

    Attributes:
        name: What it shows.
        note: Range of the values.
        pixels: (h, w, 3) uint8.
    """

    name: str
    note: str
    pixels: NDArray[np.uint8]

    @property
    def png(self) -> bytes:
        """The bytes of a PNG file."""
        file = io.BytesIO()
        Image.fromarray(self.pixels).save(file, format="PNG", optimize=True)
        return file.getvalue()


def of_buffers(values: NDArray[np.float32], buffers: Sequence[Buffer]) -> list[Picture]:
    """Return a picture of each buffer of a frame, all radiance exposed alike.

    Args:
        values: (H, W, C).
        buffers: What the channels are, in order.
    """
    images, start = {}, 0
    for buffer in buffers:
        images[buffer] = values[..., start : start + len(buffer)]
        start += len(buffer)
    light = next((image for b, image in images.items() if b.name == PRIMAL), None)
    exposure = automatic_exposure(light) if light is not None else 1.0
    return [
        picture(_seen(image, buffer, exposure), image, buffer.name)
        for buffer, image in images.items()
    ]


def of_image(image: NDArray[np.float32], name: str, exposure: float) -> Picture:
    """Return the picture of an (H, W, 3) image, which an exposure multiplies."""
    return picture(exr.linear_to_srgb(image * np.float32(exposure)), image, name)


def automatic_exposure(image: NDArray[np.float32]) -> float:
    """Return the factor that makes an (H, W, 3) image as bright as a picture should be."""
    return _BRIGHT / size if (size := _typical(image, _LIT)) > 0 else 1.0


def picture(shown: NDArray[np.float32], values: NDArray[np.float32], name: str) -> Picture:
    """Make a picture of what is to be seen, and note the range of what it stands for.

    Args:
        shown: (H, W, 3), 0..1 as on a screen.
        values: (H, W, c), which may have values that are not finite.
        name: What it is.
    """
    finite = np.isfinite(values)
    missing = ~finite.all(axis=-1)
    inside = values[finite]
    note = f"{_number(inside.min())} … {_number(inside.max())}" if inside.size else ""
    if missing.any():
        note += f", {np.count_nonzero(missing)} pixels not finite"
    pixels = np.round(np.clip(np.nan_to_num(shown), 0, 1) * 255).astype(np.uint8)
    pixels[missing] = _MISSING
    return Picture(name, note, _small(pixels))


def to_html(pictures: Iterable[Picture], title: str) -> str:
    """Return pictures side by side, as HTML that needs nothing else."""
    figures = "".join(
        f'<figure style="margin:0"><img src="data:image/png;base64,'
        f'{base64.b64encode(item.png).decode()}" alt="{html.escape(item.name)}" '
        f'style="display:block;image-rendering:pixelated;width:{_shown_width(item)}px">'
        f"<figcaption><b>{html.escape(item.name)}</b> "
        f'<small style="opacity:.7">{html.escape(item.note)}</small></figcaption></figure>'
        for item in pictures
    )
    return (
        f"<div><div>{html.escape(title)}</div>"
        f'<div style="display:flex;flex-wrap:wrap;gap:8px">{figures}</div></div>'
    )


#: Characters from which on a cell is not squeezed into a column of single words.
_LONG_CELL = 20


def to_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table as HTML, which scrolls where it is wider than the page."""

    def cell(word: str) -> str:
        width = "min-width:14em;" if len(word) > _LONG_CELL else ""
        return f'<td style="{width}vertical-align:top">{html.escape(word)}</td>'

    top = "".join(f"<th>{html.escape(word)}</th>" for word in head)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    table = f'<table style="text-align:left"><tr>{top}</tr>{body}</table>'
    return f'<div style="overflow-x:auto">{table}</div>'


def to_text(
    head: Sequence[str], sections: Mapping[str, Sequence[Sequence[str]]], width: int
) -> str:
    """Return tables that have their columns in common as text for terminals.

    Args:
        head: Of the columns but for the first, above the first table.
        sections: Heading to rows. First cells are below the heading, the last ones are wrapped, and
            those between are numbers.
        width: In characters.
    """
    rows = [row for section in sections.values() for row in section]
    name = max([*map(len, sections), *(len(row[0]) + 2 for row in rows)])
    numbers = [
        max(map(len, column)) for column in zip(head, *(row[1:] for row in rows), strict=True)
    ]
    start = name + sum(size + 2 for size in numbers[:-1]) + 2
    lines: list[str] = []

    def add(first: str, cells: Sequence[str], last: str) -> None:
        found = [first.ljust(name), *(c.rjust(n) for c, n in zip(cells, numbers, strict=False))]
        text = wrapped(last, max(width - start, _LEAST_TEXT)).replace("\n", "\n" + " " * start)
        lines.append("  ".join([*found, text]).rstrip())

    for number, (heading, section) in enumerate(sections.items()):
        shown = head if number == 0 else [""] * len(head)
        add(heading, shown[:-1], shown[-1])
        for row in section:
            add(f"  {row[0]}", row[1:-1], row[-1])
    return "\n".join(lines)


def wrapped(text: str, width: int) -> str:
    """Return a text in lines; words, paths and calls stay whole."""
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _seen(image: NDArray[np.float32], buffer: Buffer, exposure: float) -> NDArray[np.float32]:
    """Return what the eye gets of a buffer: (H, W, 3), 0..1 on a screen."""
    if buffer.variance_of is not None:
        return _three(_relative(np.sqrt(np.maximum(image, 0))))
    if buffer.difference is not None or buffer.kind == "displacement":
        return _three(0.5 + 0.5 * _relative(image))
    if buffer.kind == "radiance":
        return exr.linear_to_srgb(_three(image) * np.float32(exposure))
    if buffer.kind == "direction":
        return 0.5 + 0.5 * image
    if buffer.kind == "point":
        return 0.5 + 0.5 * _relative(image - _mean(image))
    if buffer.kind == "distance":
        return _three(np.where(image > 0, 1 - 0.8 * _relative(image), 0))
    return exr.linear_to_srgb(_three(image))


def _three(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return three channels of one, two (the third is grey) or three."""
    if image.shape[-1] == 1:
        return np.repeat(image, 3, axis=-1)
    if image.shape[-1] == 2:
        return np.concatenate([image, np.full_like(image[..., :1], 0.5)], axis=-1)
    return image


def _typical(image: NDArray[np.float32], share: float = _SHARE) -> float:
    """Return the magnitude that few values exceed; 0 where there is none."""
    sizes = np.abs(image[np.isfinite(image)])
    sizes = sizes[sizes > 0]
    return float(np.quantile(sizes, share)) if sizes.size else 0.0


def _relative(image: NDArray[np.float32]) -> NDArray[np.float32]:
    size = _typical(image)
    return np.clip(image / size, -1, 1).astype(np.float32) if size > 0 else image


def _mean(image: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.nanmean(np.where(np.isfinite(image), image, np.nan), axis=(0, 1))


def _small(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    if width <= WIDTH:
        return pixels
    size = WIDTH, max(1, round(height * WIDTH / width))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))


def _shown_width(item: Picture) -> int:
    """Return a width that people see something at; small renders are enlarged by whole numbers."""
    width = item.pixels.shape[1]
    return width * max(1, WIDTH // 2 // width)


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else str(value)
