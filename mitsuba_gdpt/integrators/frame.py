"""A frame: rendered tile by tile, put together to whole planes, handed out as a tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

from mitsuba_gdpt import progress
from mitsuba_gdpt.channels import DIFFERENCE_AXES, Layout
from mitsuba_gdpt.integrators import sampling
from mitsuba_gdpt.integrators.accumulate import LARGEST, PixelMean, pooled
from mitsuba_gdpt.integrators.camera import shared_subpixel
from mitsuba_gdpt.integrators.features import roughness_table
from mitsuba_gdpt.integrators.parameters import Parameters
from mitsuba_gdpt.integrators.pixels import (
    PORTION,
    Pixels,
    Portions,
    Tile,
    split_into_portions,
    split_into_tiles,
)
from mitsuba_gdpt.integrators.renderer import TileArrays, TileKey, TileMeans
from mitsuba_gdpt.integrators.shifts import PAIRS, SIDES

# Spread the seeds of Mitsuba's samplers over tiles and passes; the first keeps the user's.
_GOLDEN_RATIO, _OF_PASS = 0x9E3779B9, 0x85EBCA6B
_ALPHA, _BOUNCES = "alpha", "bounces"


class Frame:
    """Per-pixel results of the whole crop window, filled tile by tile.

    Attributes:
        width: Of the crop window, in pixels.
        height: Likewise.
        nonfinite_samples: Samples that were NaN or infinite (beyond ``LARGEST``), in all tiles.
    """

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self.nonfinite_samples = 0
        # By the name of a buffer or of a side; nothing else is called like either.
        self._means: dict[str, PixelMean] = {}
        self._sampled: mi.Bool | None = None  # pixels with samples, unless these are all

    def put(self, tile: Tile, means: TileMeans) -> None:
        """Store the pixels of a tile, and compute them, so that its lanes can be freed."""
        self.nonfinite_samples += means.nonfinite[0]
        for name, mean in (means.sides | _planes(means)).items():
            self._put(tile, name, mean)
        dr.eval(self._means)

    def put_portions(self, portions: Portions, means: TileMeans, shifts: int) -> None:
        """Store the pixels that portions of samples belong to, and compute them.

        Args:
            portions: The pixels.
            means: Of each portion.
            shifts: Offset paths per sample.
        """
        self.nonfinite_samples += means.nonfinite[0]
        pixel, first, count = (
            mi.UInt32(array) for array in (portions.pixel, portions.first, portions.count)
        )
        if self._sampled is None:
            self._sampled = dr.zeros(mi.Bool, self.width * self.height)
        dr.scatter(self._sampled, mi.Bool(True), pixel)
        for parts, samples in (
            (_planes(means), PORTION),
            (means.sides, PORTION * shifts // len(SIDES)),
        ):
            for name, part in parts.items():
                self._scatter(name, pooled(part, samples, first, count), pixel)
        dr.eval(self._means, self._sampled)

    def _put(self, tile: Tile, name: str, values: PixelMean) -> None:
        if tile.area == self.width * self.height:
            self._means[name] = values
            return
        index = dr.arange(mi.UInt32, tile.area)
        row = index // dr.opaque(mi.UInt32, tile.width)
        column = index - row * dr.opaque(mi.UInt32, tile.width)
        # Opaque, so that one kernel serves all tiles.
        first = dr.opaque(mi.UInt32, tile.y * self.width + tile.x)
        self._scatter(name, values, row * self.width + column + first)

    def _scatter(self, name: str, values: PixelMean, target: mi.UInt32) -> None:
        if name not in self._means:
            self._means[name] = self._black(len(values.mean), values.variance is not None)
        whole = self._means[name]
        for plane, part in zip(whole.mean, values.mean, strict=True):
            dr.scatter(plane, part, target)
        if whole.variance is not None:
            dr.scatter(whole.variance, values.variance, target)

    @property
    def alpha(self) -> mi.Float:
        """Share of the samples of each pixel that met something."""
        return self._means[_ALPHA].mean[0]

    @property
    def bounces(self) -> mi.Float:
        """How often the paths of each pixel were scattered, in the mean."""
        return self._means[_BOUNCES].mean[0]

    def planes(self, layout: Layout) -> list[mi.Float]:
        """Return one Float array over pixels (row-major) per channel of a layout."""
        planes: list[mi.Float] = []
        for buffer in layout.buffers:
            mean = self._mean(buffer.variance_of or buffer.name)
            planes += [mean.variance] if buffer.variance_of else mean.mean
        return planes

    def _mean(self, name: str) -> PixelMean:
        if name not in DIFFERENCE_AXES:
            return self._means[name]
        axis = [*DIFFERENCE_AXES].index(name)
        ahead, behind = PAIRS[axis]
        if ahead not in self._means:  # no offset paths
            return self._black(3, True)
        return self._forward_difference(self._means[ahead], self._means[behind], axis)

    def _forward_difference(self, ahead: PixelMean, behind: PixelMean, axis: int) -> PixelMean:
        """Combine two one-sided gradients to a forward difference along an axis (0: x, 1: y).

        The value at pixel i is ``ahead[i] - behind[i + 1]`` (the sum for variances), 0 in the
        last column or row, where the neighbour is off the film.
        """
        index = dr.arange(mi.UInt32, self.width * self.height)
        row = index // dr.opaque(mi.UInt32, self.width)
        column = index - row * dr.opaque(mi.UInt32, self.width)
        if axis == 0:
            inside, step = column + 1 < self.width, 1
        else:
            inside, step = row + 1 < self.height, self.width
        if self._sampled is not None:  # a difference takes both pixels
            inside &= self._sampled
            inside &= dr.gather(mi.Bool, self._sampled, index + step, inside)

        def combine(a: mi.Float, b: mi.Float, sign: int) -> mi.Float:
            other = dr.gather(mi.Float, b, index + step, inside)
            return dr.select(inside, a + (other if sign > 0 else -other), 0)

        mean = [combine(a, b, -1) for a, b in zip(ahead.mean, behind.mean, strict=True)]
        if ahead.variance is None:
            return PixelMean(mean)
        return PixelMean(mean, combine(ahead.variance, behind.variance, 1))

    def interleave(self, planes: list[mi.Float]) -> mi.TensorXf:
        """Return an evaluated (H, W, C) TensorXf with the planes as channels."""
        count = len(planes)
        flat = dr.zeros(mi.Float, self.width * self.height * count)
        index = dr.arange(mi.UInt32, self.width * self.height) * count
        for i, plane in enumerate(planes):
            dr.scatter(flat, plane, index + i)
        dr.eval(flat)
        return mi.TensorXf(flat, (self.height, self.width, count))

    def plane(self, plane: mi.Float) -> mi.TensorXf:
        """Return a plane as an (H, W) TensorXf."""
        return mi.TensorXf(plane, (self.height, self.width))

    def full(self, value: float) -> mi.Float:
        """Return a plane that is the same everywhere."""
        return mi.Float(value) + dr.zeros(mi.Float, self.width * self.height)

    def _black(self, components: int, variance: bool) -> PixelMean:
        def plane() -> mi.Float:
            return dr.zeros(mi.Float, self.width * self.height)

        return PixelMean([plane() for _ in range(components)], plane() if variance else None)


def _planes(means: TileMeans) -> dict[str, PixelMean]:
    """Return what is a mean over all samples."""
    return means.buffers | {_ALPHA: means.alpha, _BOUNCES: means.bounces}


def render_frame(
    scene: mi.Scene,
    sensor: mi.Sensor,
    sampler: mi.Sampler,
    seed: int,
    parameters: Parameters,
    render_tile: Callable[..., TileMeans],
    *,
    first: int = 0,
    counts: np.ndarray[Any, np.dtype[np.intp]] | None = None,
) -> Frame:
    """Render all passes of a frame.

    Args:
        scene: The scene.
        sensor: Its sensor.
        sampler: Knows the samples per pixel, all of which are taken in one pass; with ``counts``
            :data:`~pixels.PORTION`.
        seed: In [0, 2^32).
        parameters: Of the integrator.
        render_tile: ``render_tile(scene, sensor, sampler, arrays, key)`` renders one pass.
        first: Samples per pixel that were taken with this seed before.
        counts: Samples per pixel where these differ, (H, W), multiples of the portion.
    """
    width, height = (int(v) for v in sensor.film().crop_size())
    spp = sampler.sample_count()
    most_spp = spp if counts is None else int(counts.max())
    samples = width * height * spp if counts is None else int(counts.sum())
    lanes = parameters.max_lanes
    parts: Iterable[Tile] | Iterable[Portions] = (
        split_into_tiles(width, height, spp, lanes)
        if counts is None
        else split_into_portions(counts, lanes)
    )
    passes = _Passes(scene, sensor, sampler, seed, parameters, render_tile, most_spp, first)
    frame = Frame(width, height)
    with progress.task("rendering", total=samples // spp) as task:
        for pixels in parts:
            means = passes.render(pixels)
            if isinstance(pixels, Tile):
                frame.put(pixels, means)
            else:
                frame.put_portions(pixels, means, parameters.offset_paths)
            task.advance(pixels.area)
    if frame.nonfinite_samples:
        mi.Log(
            mi.LogLevel.Warn,
            f"gdpt: {frame.nonfinite_samples} of {samples} samples were NaN or "
            f"infinite (beyond {LARGEST:g}) and were counted as black. Look for broken BSDF "
            "parameters, textures or emitters in the scene.",
        )
    return frame


class _Passes:
    """What all passes of a frame have in common."""

    def __init__(
        self,
        scene: mi.Scene,
        sensor: mi.Sensor,
        sampler: mi.Sampler,
        seed: int,
        parameters: Parameters,
        render_tile: Callable[..., TileMeans],
        most_spp: int,
        first: int,
    ) -> None:
        self._scene, self._sensor, self._sampler = scene, sensor, sampler
        self._parameters, self._render_tile, self._most_spp = parameters, render_tile, most_spp
        self._roughness = roughness_table(scene) if "roughness" in parameters.layout else None
        self._subpixel = (
            shared_subpixel(sensor, most_spp, seed, first) if parameters.shared_subpixel else None
        )
        self._stratified = parameters.stratified and sampler.class_name() == sampling.PLAIN
        # Opaque: as a literal, a seed that happens to equal another number of the scene would
        # look like a change of the program.
        self._seed, self._first = dr.opaque(mi.UInt32, seed), dr.opaque(mi.UInt32, first)
        self._next_seed = (seed + first * _OF_PASS) % 2**32

    def render(self, pixels: Pixels) -> TileMeans:
        """Render the next pass."""
        spp = self._sampler.sample_count()
        if not self._stratified:
            self._sampler = self._sampler.clone()
            self._sampler.seed(dr.opaque(mi.UInt32, self._next_seed), pixels.area * spp)
            self._next_seed = (self._next_seed + _GOLDEN_RATIO) % 2**32
        arrays = TileArrays(self._seed, self._first, self._subpixel, self._roughness)
        key = TileKey(self._parameters, pixels, spp, self._most_spp, self._stratified)
        return self._render_tile(self._scene, self._sensor, self._sampler, arrays, key)
