"""Which neighbours the offset paths of a sample look at, and what their gradients estimate.

A forward difference rests on two *one-sided gradients*: dx(i) = right(i) - left(i + 1), where
right(i) is the expected gradient of paths of pixel i that are shifted to the right, and left(i + 1)
that of paths of its neighbour that are shifted to the left. A schedule says how each sample is
shifted, and turns the gradients of all samples into unbiased estimates of the four one-sided
gradients of each pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import drjit as dr
import mitsuba as mi

from mitsuba_gdpt.integrators.accumulate import PixelMean, pixel_mean

#: Pixel shift, +x right and +y down.
Move = tuple["mi.Int32", "mi.Int32"]

#: Axis and sign of the shift to each side.
SIDES = {"right": (0, 1), "left": (0, -1), "down": (1, 1), "up": (1, -1)}
#: Ahead and behind: the sides that a forward difference along each axis rests on.
PAIRS = (("right", "left"), ("down", "up"))


@dataclass(frozen=True)
class ShiftSchedule:
    """No offset paths at all; the other schedules derive from this one.

    Attributes:
        spp: Samples per pixel.
    """

    spp: int
    #: Whether there are offset paths.
    shifted: ClassVar[bool] = False

    @staticmethod
    def of(shifts: int, spp: int) -> ShiftSchedule:
        """Return the schedule of a render.

        One sample with one offset path would see one axis only, so it takes two. Where there are
        fewer than four offset paths per pixel, one for each side, differences are one-sided.

        Args:
            shifts: Offset paths per base path: 0, 1, 2 or 4.
            spp: Samples per pixel.
        """
        if shifts == 0:
            return ShiftSchedule(spp)
        if shifts == spp == 1:
            shifts = 2
        if shifts * spp < 4:
            return OneSided(spp, shifts)
        return {1: InTurns, 2: Alternating, 4: All}[shifts](spp)

    def moves(self, x: mi.Int32, y: mi.Int32, sample: mi.UInt32, seed: mi.UInt32) -> list[Move]:
        """Return the pixel shift of each offset path.

        Args:
            x: Column of the base path's pixel.
            y: Its row.
            sample: Index of the sample in its pixel.
            seed: Of the frame, the same in all pixels and tiles.
        """
        return []

    def estimates(
        self, gradients: list[list[mi.Float]], moves: list[Move], sample: mi.UInt32, variances: bool
    ) -> dict[str, PixelMean]:
        """Return the one-sided gradients of each pixel, by side.

        Args:
            gradients: Of each offset path, three arrays over lanes (evaluated).
            moves: What :meth:`moves` returned.
            sample: Index of each sample in its pixel.
            variances: Whether to estimate variances as well.
        """
        return {}


@dataclass(frozen=True)
class _Periodic(ShiftSchedule):
    """Offset paths that look to each side in every sample, or in one of each ``period``.

    Those samples are a fixed subset of all, so their mean is unbiased without a factor. Of spp
    samples ceil((spp - remainder) / period) have a remainder: one or more, since there are at
    least ``period`` samples.
    """

    #: Of each side: offset path, and the samples that count, those whose index has this remainder.
    slots: ClassVar[dict[str, tuple[int, int]]]
    period: ClassVar[int]
    shifted = True

    def estimates(
        self, gradients: list[list[mi.Float]], moves: list[Move], sample: mi.UInt32, variances: bool
    ) -> dict[str, PixelMean]:
        """As of the base class."""
        result = {}
        for side, (slot, remainder) in self.slots.items():
            selected, count = None, None
            if self.period > 1:
                selected = (sample & (self.period - 1)) == remainder
                count = (self.spp + self.period - 1 - remainder) // self.period
            result[side] = pixel_mean(gradients[slot], self.spp, variances, selected, count)
        return result


@dataclass(frozen=True)
class All(_Periodic):
    """Four offset paths: one to each side."""

    slots: ClassVar = {"right": (0, 0), "left": (1, 0), "down": (2, 0), "up": (3, 0)}
    period = 1

    def moves(self, x: mi.Int32, y: mi.Int32, sample: mi.UInt32, seed: mi.UInt32) -> list[Move]:
        """As of the base class."""
        return [(mi.Int32(dx), mi.Int32(dy)) for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))]


@dataclass(frozen=True)
class Alternating(_Periodic):
    """Two offset paths: right and down in even samples, left and up in odd ones."""

    slots: ClassVar = {"right": (0, 0), "left": (0, 1), "down": (1, 0), "up": (1, 1)}
    period = 2

    def moves(self, x: mi.Int32, y: mi.Int32, sample: mi.UInt32, seed: mi.UInt32) -> list[Move]:
        """As of the base class."""
        forward = (sample & 1) == 0
        return [
            (dr.select(forward, mi.Int32(dx), -dx), dr.select(forward, mi.Int32(dy), -dy))
            for dx, dy in ((1, 0), (0, 1))
        ]


@dataclass(frozen=True)
class InTurns(_Periodic):
    """One offset path: right, down, left, up in turns."""

    slots: ClassVar = {"right": (0, 0), "down": (0, 1), "left": (0, 2), "up": (0, 3)}
    period = 4

    def moves(self, x: mi.Int32, y: mi.Int32, sample: mi.UInt32, seed: mi.UInt32) -> list[Move]:
        """As of the base class."""
        turn = sample & 3
        sign = dr.select(turn < 2, mi.Int32(1), -1)
        horizontal = (turn & 1) == 0
        return [(dr.select(horizontal, sign, 0), dr.select(horizontal, 0, sign))]


@dataclass(frozen=True)
class OneSided(ShiftSchedule):
    """Fewer offset paths than sides: a difference is estimated from one of its pixels alone.

    A random bit of each row (for dx; of each column for dy) decides which. With a single sample on
    an axis, twice the gradient of the side that it looks to is unbiased: E over the bit is
    (2 right(i) + 0) / 2 - (0 + 2 left(i + 1)) / 2 = dx(i). All pixels of a row look to the same
    side, so each difference has exactly one of the two terms. A third sample with one offset path
    looks to the other side of the first: then both sides have one sample each, and no factor.

    Attributes:
        shifts: Offset paths per base path: 1 (horizontal in even samples, vertical in odd ones) or
            2 (one along each axis).
    """

    shifts: int
    shifted = True

    def moves(self, x: mi.Int32, y: mi.Int32, sample: mi.UInt32, seed: mi.UInt32) -> list[Move]:
        """As of the base class."""

        def sign(line: mi.Int32, axis: int) -> mi.Int32:
            salt = 0x9E3779B9 * (axis + 1) % 2**32
            bit = mi.sample_tea_32(mi.UInt32(line), seed ^ salt)[0] & 1
            return dr.select(bit == 1, mi.Int32(1), -1)

        if self.shifts == 2:
            return [(sign(y, 0), mi.Int32(0)), (mi.Int32(0), sign(x, 1))]
        horizontal = (sample & 1) == 0
        dx = dr.select(horizontal, sign(y, 0), 0)
        dy = dr.select(horizontal, 0, sign(x, 1))
        first = sample < 2
        return [(dr.select(first, dx, -dx), dr.select(first, dy, -dy))]

    def estimates(
        self, gradients: list[list[mi.Float]], moves: list[Move], sample: mi.UInt32, variances: bool
    ) -> dict[str, PixelMean]:
        """As of the base class."""
        result = {}
        for side, (axis, sign) in SIDES.items():
            slot = axis if self.shifts == 2 else 0
            # Samples on this axis: one in two of the pixels' own, or all.
            samples = self.spp if self.shifts == 2 else (self.spp + 1 - axis) // 2
            factor = 2 if samples == 1 else 1
            components = [factor * c for c in gradients[slot]]
            selected = moves[slot][axis] == sign
            # Of the samples on an axis at most one looks to this side.
            result[side] = pixel_mean(components, self.spp, variances, selected, 1)
        return result
