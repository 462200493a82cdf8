"""Which pixels a pass renders, and which lane is which sample of which pixel.

Lanes are pixel-major: those of a pixel, or of a portion of its samples, are neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import drjit as dr
import mitsuba as mi
import numpy as np

#: Samples of a portion, the unit in which pixels may get more or less of them. Two samples for each
#: side, and whole pairs of mirrored sub-pixel positions (:func:`camera.shared_subpixel`).
PORTION = 8


@dataclass(frozen=True)
class Lanes:
    """What each lane is.

    Attributes:
        x: Column of its pixel, relative to the crop window.
        y: Row, likewise.
        sample: Index of the sample in its pixel.
    """

    x: mi.Int32
    y: mi.Int32
    sample: mi.UInt32


class Pixels(Protocol):
    """Places of a frame that get the same number of samples each."""

    @property
    def area(self) -> int:
        """How many they are."""

    def lanes(self, spp: int) -> Lanes:
        """Return what each lane is.

        Args:
            spp: Lanes per place.
        """


@dataclass(frozen=True)
class Tile:
    """A rectangle of pixels, relative to the crop window, that is rendered in one pass."""

    x: int
    y: int
    width: int
    height: int

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    def grown(self, width: int, height: int) -> Tile:
        """Return the tile and the pixels around it that exist in a ``width`` x ``height`` crop."""
        x0, y0 = max(self.x - 1, 0), max(self.y - 1, 0)
        x1, y1 = min(self.x + self.width + 1, width), min(self.y + self.height + 1, height)
        return Tile(x0, y0, x1 - x0, y1 - y0)

    def lanes(self, spp: int) -> Lanes:
        """As of the protocol."""
        # Sizes and offsets are opaque, so that one kernel serves all tiles, crops and spps.
        index = dr.arange(mi.UInt32, self.area * spp)
        pixel = index // dr.opaque(mi.UInt32, spp)
        row = pixel // dr.opaque(mi.UInt32, self.width)
        column = pixel - row * dr.opaque(mi.UInt32, self.width)
        x = mi.Int32(column) + dr.opaque(mi.Int32, self.x)
        y = mi.Int32(row) + dr.opaque(mi.Int32, self.y)
        return Lanes(x, y, index - pixel * dr.opaque(mi.UInt32, spp))


def split_into_tiles(width: int, height: int, spp: int, max_lanes: int) -> list[Tile]:
    """Cover a crop with tiles whose pixels times ``spp`` stay below ``max_lanes``.

    Whole rows where possible: a band has the smallest number of border pixels that are traced
    twice. A single pixel is never split, so ``spp > max_lanes`` exceeds the limit.
    """
    rows = max_lanes // (width * spp)
    if rows >= 1:
        columns, rows = width, min(rows, height)
    else:
        columns, rows = max(1, min(width, max_lanes // spp)), 1
    return [
        Tile(x, y, min(columns, width - x), min(rows, height - y))
        for y in range(0, height, rows)
        for x in range(0, width, columns)
    ]


@dataclass(frozen=True, eq=False)
class Portions:
    """Pixels anywhere, each as often as it gets portions of :data:`PORTION` samples.

    Attributes:
        pixel: Numbers of the pixels in the crop window (row-major), ascending, once each.
        count: Portions of each.
        width: Of the crop window, in pixels.
    """

    pixel: np.ndarray[Any, np.dtype[np.intp]]
    count: np.ndarray[Any, np.dtype[np.intp]]
    width: int

    @property
    def area(self) -> int:
        """Number of portions."""
        return int(self.count.sum())

    @property
    def first(self) -> np.ndarray[Any, np.dtype[np.intp]]:
        """Where the portions of each pixel begin."""
        return np.cumsum(self.count) - self.count

    @cached_property
    def _by_portion(self) -> tuple[mi.UInt32, mi.UInt32]:
        """Number of the pixel of each portion, and of the portion in its pixel."""
        number = np.arange(self.area) - np.repeat(self.first, self.count)
        return mi.UInt32(np.repeat(self.pixel, self.count)), mi.UInt32(number)

    def lanes(self, spp: int) -> Lanes:
        """As of the protocol."""
        index = dr.arange(mi.UInt32, self.area * spp)
        portion = index // dr.opaque(mi.UInt32, spp)
        pixel, number = (dr.gather(mi.UInt32, array, portion) for array in self._by_portion)
        row = pixel // dr.opaque(mi.UInt32, self.width)
        column = pixel - row * dr.opaque(mi.UInt32, self.width)
        sample = index + (number - portion) * dr.opaque(mi.UInt32, spp)
        return Lanes(mi.Int32(column), mi.Int32(row), sample)


def split_into_portions(
    counts: np.ndarray[Any, np.dtype[np.intp]], max_lanes: int
) -> Iterator[Portions]:
    """Cover the pixels that get samples, in parts of at most ``max_lanes`` lanes.

    A single pixel is never split.

    Args:
        counts: Samples per pixel, (H, W), multiples of :data:`PORTION`.
        max_lanes: Largest number of lanes of a part.
    """
    portions = counts.ravel() // PORTION
    pixel = np.flatnonzero(portions)
    count = portions[pixel]
    ends = np.cumsum(count)
    start = 0
    while start < len(pixel):
        before = ends[start - 1] if start else 0
        stop = np.searchsorted(ends, before + max(1, max_lanes // PORTION), side="right")
        stop = max(int(stop), start + 1)
        yield Portions(pixel[start:stop], count[start:stop], counts.shape[1])
        start = stop
