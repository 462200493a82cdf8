"""From path samples to pixels: block reductions, no atomics, so the same seed gives the same bits.

Lanes are pixel-major (all samples of a pixel are neighbours), hence a per-pixel sum is a sum over
a block of consecutive lanes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

#: What is larger counts as infinite: the squared deviations of 2^24 samples have a sum that float32
#: can hold, and so has whatever else is summed up.
LARGEST = 1e15


@dataclass
class PixelMean:
    """Mean over the samples of each pixel, and the variance of that mean.

    Attributes:
        mean: One array over pixels per component.
        variance: Array over pixels, averaged over components; ``None`` if not asked for.
    """

    mean: list[mi.Float]
    variance: mi.Float | None = None


def is_sound(value: Any) -> Any:
    """Tell which entries of a Dr.Jit array can be summed up: neither NaN nor beyond LARGEST."""
    return dr.abs(value) <= LARGEST


def widened(tree: Any, width: int) -> Any:
    """Return a PyTree whose Dr.Jit arrays of width 1 have one entry per lane.

    Whatever is the same in all lanes, Dr.Jit may keep as one number; a sum over lanes has to count
    it as often as it stands for.

    Args:
        tree: Dr.Jit arrays in dataclasses, dictionaries, lists and tuples.
        width: Number of lanes.
    """
    if dr.is_array_v(tree):
        if dr.width(tree) == width:
            return tree
        return dr.select(dr.full(mi.Bool, True, width), tree, dr.zeros(type(tree)))
    if isinstance(tree, dict):
        return {key: widened(value, width) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(widened(value, width) for value in tree)
    return replace(tree, **{f.name: widened(getattr(tree, f.name), width) for f in fields(tree)})


def pixel_mean(
    components: list[mi.Float],
    spp: int,
    variance: bool,
    selected: mi.Bool | None = None,
    count: int | None = None,
) -> PixelMean:
    """Reduce lanes to pixels.

    The variance is computed in two passes around the pixel's own mean: E[x^2] - E[x]^2 would
    cancel catastrophically in float32 (depth, position). A single sample says nothing about its
    deviation; its square stands in: on average that is the variance plus the squared expectation.

    Args:
        components: Arrays over lanes (evaluated).
        spp: Lanes per pixel.
        variance: Also compute the variance of the mean.
        selected: The samples that count, over lanes; all if None.
        count: How many these are in each pixel; all if None.
    """
    n = spp if count is None else count
    if selected is not None:
        components = [dr.select(selected, c, 0) for c in components]
    means = [_block_sum(c, spp) * _reciprocal(n) for c in components]
    if not variance:
        return PixelMean(means)
    pixel = dr.arange(mi.UInt32, dr.width(components[0])) // dr.opaque(mi.UInt32, spp)
    total = mi.Float(0)
    for c, mean in zip(components, means, strict=True):
        deviation = c - dr.gather(mi.Float, mean, pixel)
        if selected is not None:
            deviation = dr.select(selected, deviation, 0)
        total += _block_sum(dr.square(deviation), spp)
    result = total * _reciprocal(len(components) * n * max(n - 1, 1))
    if selected is not None:
        squares = sum((dr.square(mean) for mean in means), mi.Float(0))
        # Whether there is one is data: how many of 4 to 7 samples look to a side differs.
        lonely = dr.opaque(mi.Bool, n == 1)
        result = dr.select(lonely, squares * _reciprocal(len(components)), result)
    return PixelMean(means, result)


def pooled(parts: PixelMean, samples: int, first: mi.UInt32, count: mi.UInt32) -> PixelMean:
    """Combine the portions of each pixel, which are neighbours in ``parts``.

    Means and variances as of all samples together (Chan, Golub and LeVeque 1983). A loop over the
    portions of a pixel, in order, so that the same seed gives the same bits.

    Args:
        parts: Of each portion (evaluated).
        samples: Samples of a portion, 2 or more.
        first: Number of the first portion of each pixel.
        count: How many portions it has, 1 or more.
    """
    width, components = dr.width(first), len(parts.mean)
    n = dr.opaque(mi.Float, samples)
    # Of a portion: sum of squared deviations, from the variance of its mean.
    squares = dr.opaque(mi.Float, samples * (samples - 1))
    state = (
        dr.zeros(mi.UInt32, width),
        [dr.zeros(mi.Float, width) for _ in range(components)],
        dr.zeros(mi.Float, width),
    )

    def add(
        i: mi.UInt32, mean: list[mi.Float], deviation: mi.Float
    ) -> tuple[mi.UInt32, list[mi.Float], mi.Float]:
        place, active = first + i, i < count
        share = 1 / (mi.Float(i) + 1)
        change = [
            dr.gather(mi.Float, part, place, active) - m
            for part, m in zip(parts.mean, mean, strict=True)
        ]
        if parts.variance is not None:
            between = sum((dr.square(c) for c in change), mi.Float(0)) / components
            deviation = deviation + n * mi.Float(i) * share * between
            deviation += squares * dr.gather(mi.Float, parts.variance, place, active)
        mean = [m + c * share for m, c in zip(mean, change, strict=True)]
        return i + 1, mean, deviation

    _, mean, deviation = dr.while_loop(
        state, lambda i, *_: i < count, add, labels=("i", "mean", "deviation")
    )
    if parts.variance is None:
        return PixelMean(mean)
    total = n * mi.Float(count)
    return PixelMean(mean, deviation / (total * (total - 1)))


def _reciprocal(n: int) -> mi.Float:
    """Return 1 / n as an input of kernels instead of a constant, which each spp would recompile."""
    return dr.opaque(mi.Float, np.float32(1) / np.float32(n))


def _block_sum(x: mi.Float, size: int) -> mi.Float:
    if size == 1:
        return x
    if x.state == dr.VarState.Literal:
        # Dr.Jit would fold the sum into a constant of the kernel, another one for each spp.
        return dr.full(mi.Float, x[0], dr.width(x) // size) * dr.opaque(mi.Float, size)
    return dr.block_sum(x, size)
