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


@dataclass
class PixelMean:
    """Mean over the samples of each pixel, and the variance of that mean.

    Attributes:
        mean: One Float array over pixels per component.
        variance: Float array over pixels, averaged over components; ``None`` if not asked for.
    """

    mean: list[Any]
    variance: Any = None


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
    components: list[Any],
    spp: int,
    variance: bool,
    selected: Any = None,
    count: int | None = None,
) -> PixelMean:
    """Reduce lanes to pixels.

    The variance is computed in two passes around the pixel's own mean: E[x^2] - E[x]^2 would
    cancel catastrophically in float32 (depth, position). A single sample says nothing about its
    deviation; its square stands in: on average that is the variance plus the squared expectation.

    Args:
        components: Float arrays over lanes (evaluated).
        spp: Lanes per pixel.
        variance: Also compute the variance of the mean.
        selected: Optional Bool over lanes: the samples that count.
        count: How many these are in each pixel; all if None.
    """
    n = spp if count is None else count
    if selected is not None:
        components = [dr.select(selected, c, 0) for c in components]
    means = [_block_sum(c, spp) * _reciprocal(n) for c in components]
    if not variance:
        return PixelMean(means)
    if n == 1:
        squares = sum((dr.square(mean) for mean in means), mi.Float(0))
        return PixelMean(means, squares * _reciprocal(len(components)))
    pixel = dr.arange(mi.UInt32, dr.width(components[0])) // dr.opaque(mi.UInt32, spp)
    total = mi.Float(0)
    for c, mean in zip(components, means, strict=True):
        deviation = c - dr.gather(mi.Float, mean, pixel)
        if selected is not None:
            deviation = dr.select(selected, deviation, 0)
        total += _block_sum(dr.square(deviation), spp)
    return PixelMean(means, total * _reciprocal(len(components) * n * (n - 1)))


def _reciprocal(n: int) -> Any:
    """Return 1 / n as an input of kernels instead of a constant, which each spp would recompile."""
    return dr.opaque(mi.Float, np.float32(1) / np.float32(n))


def _block_sum(x: Any, size: int) -> Any:
    if size == 1:
        return x
    if x.state == dr.VarState.Literal:
        # Dr.Jit would fold the sum into a constant of the kernel, another one for each spp.
        return dr.full(mi.Float, x[0], dr.width(x) // size) * dr.opaque(mi.Float, size)
    return dr.block_sum(x, size)


class Frame:
    """Per-pixel results of the whole crop window, filled tile by tile."""

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self._planes: dict[str, Any] = {}

    def put(self, tile: Any, name: str, plane: Any) -> None:
        """Store the pixels of a tile (row-major Float array) in the plane ``name``."""
        if tile.area == self.width * self.height:
            self._planes[name] = plane
            return
        index = dr.arange(mi.UInt32, tile.area)
        row = index // dr.opaque(mi.UInt32, tile.width)
        column = index - row * dr.opaque(mi.UInt32, tile.width)
        # Opaque, so that one kernel serves all tiles.
        first = dr.opaque(mi.UInt32, tile.y * self.width + tile.x)
        target = row * self.width + column + first
        if name not in self._planes:
            self._planes[name] = dr.zeros(mi.Float, self.width * self.height)
        dr.scatter(self._planes[name], plane, target)

    def get(self, name: str) -> Any:
        """Return a whole plane: Float array over pixels, row-major."""
        return self._planes[name]

    def eval(self) -> None:
        """Compute all planes, so that the lanes they come from can be freed."""
        dr.eval(self._planes)

    def forward_difference(self, ahead: str, behind: str, axis: str, variance: bool) -> Any:
        """Combine the two one-sided estimates of a forward difference.

        The value at pixel i is ``ahead[i] - behind[i + 1]`` (the sum for variances), 0 in the
        last column (``axis="x"``) or row (``axis="y"``), where the neighbour is off the film.
        """
        index = dr.arange(mi.UInt32, self.width * self.height)
        row = index // dr.opaque(mi.UInt32, self.width)
        column = index - row * dr.opaque(mi.UInt32, self.width)
        if axis == "x":
            inside, step = column + 1 < self.width, 1
        else:
            inside, step = row + 1 < self.height, self.width
        other = dr.gather(mi.Float, self.get(behind), index + step, inside)
        return dr.select(inside, self.get(ahead) + (other if variance else -other), 0)

    def interleave(self, planes: list[Any]) -> Any:
        """Return an evaluated (H, W, C) TensorXf with the planes as channels."""
        count = len(planes)
        flat = dr.zeros(mi.Float, self.width * self.height * count)
        index = dr.arange(mi.UInt32, self.width * self.height) * count
        for i, plane in enumerate(planes):
            dr.scatter(flat, plane, index + i)
        dr.eval(flat)
        return mi.TensorXf(flat, (self.height, self.width, count))
