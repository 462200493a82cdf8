"""A frame: rendered tile by tile, put together to whole planes, handed out as a tensor."""

from __future__ import annotations

from collections.abc import Callable

import drjit as dr
import mitsuba as mi

from mitsuba_gdpt import progress
from mitsuba_gdpt.channels import DIFFERENCE_AXES, Layout
from mitsuba_gdpt.integrators import sampling
from mitsuba_gdpt.integrators.accumulate import PixelMean
from mitsuba_gdpt.integrators.camera import Tile, shared_subpixel, split_into_tiles
from mitsuba_gdpt.integrators.features import roughness_table
from mitsuba_gdpt.integrators.parameters import Parameters
from mitsuba_gdpt.integrators.renderer import TileArrays, TileKey, TileMeans
from mitsuba_gdpt.integrators.shifts import PAIRS

_GOLDEN_RATIO = 0x9E3779B9  # spreads the seeds of the tiles; the first keeps the user's
_ALPHA = "alpha"


class Frame:
    """Per-pixel results of the whole crop window, filled tile by tile.

    Attributes:
        width: Of the crop window, in pixels.
        height: Likewise.
        nonfinite_samples: Samples that were NaN or infinite, in all tiles.
    """

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self.nonfinite_samples = 0
        # By the name of a buffer or of a side; nothing else is called like either.
        self._means: dict[str, PixelMean] = {}

    def put(self, tile: Tile, means: TileMeans) -> None:
        """Store the pixels of a tile, and compute them, so that its lanes can be freed."""
        self.nonfinite_samples += means.nonfinite[0]
        for name, mean in (means.buffers | means.sides | {_ALPHA: means.alpha}).items():
            self._put(tile, name, mean)
        dr.eval(self._means)

    def _put(self, tile: Tile, name: str, values: PixelMean) -> None:
        if tile.area == self.width * self.height:
            self._means[name] = values
            return
        index = dr.arange(mi.UInt32, tile.area)
        row = index // dr.opaque(mi.UInt32, tile.width)
        column = index - row * dr.opaque(mi.UInt32, tile.width)
        # Opaque, so that one kernel serves all tiles.
        first = dr.opaque(mi.UInt32, tile.y * self.width + tile.x)
        target = row * self.width + column + first
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

    def full(self, value: float) -> mi.Float:
        """Return a plane that is the same everywhere."""
        return mi.Float(value) + dr.zeros(mi.Float, self.width * self.height)

    def _black(self, components: int, variance: bool) -> PixelMean:
        def plane() -> mi.Float:
            return dr.zeros(mi.Float, self.width * self.height)

        return PixelMean([plane() for _ in range(components)], plane() if variance else None)


def render_frame(
    scene: mi.Scene,
    sensor: mi.Sensor,
    sampler: mi.Sampler,
    seed: int,
    parameters: Parameters,
    render_tile: Callable[..., TileMeans],
) -> Frame:
    """Render all tiles of a frame.

    Args:
        scene: The scene.
        sensor: Its sensor.
        sampler: Knows the samples per pixel, all of which are taken in one pass.
        seed: In [0, 2^32).
        parameters: Of the integrator.
        render_tile: ``render_tile(scene, sensor, sampler, arrays, key)`` renders one.
    """
    width, height = (int(v) for v in sensor.film().crop_size())
    spp = sampler.sample_count()
    roughness = roughness_table(scene) if "roughness" in parameters.layout else None
    subpixel = shared_subpixel(sensor, spp, seed) if parameters.shared_subpixel else None
    stratified = parameters.stratified and sampler.class_name() == sampling.PLAIN
    frame = Frame(width, height)
    frame_seed = dr.opaque(mi.UInt32, seed)
    tiles = split_into_tiles(width, height, spp, parameters.max_lanes)
    with progress.task("rendering", total=width * height) as task:
        for i, tile in enumerate(tiles):
            # Opaque: as a literal, a seed that happens to equal another number of the scene would
            # look like a change of the program.
            tile_seed = dr.opaque(mi.UInt32, (seed + i * _GOLDEN_RATIO) % 2**32)
            if not stratified:
                sampler = sampler.clone()
                sampler.seed(tile_seed, tile.area * spp)
            arrays = TileArrays(tile_seed, frame_seed, subpixel, roughness)
            key = TileKey(parameters, tile, spp, stratified)
            frame.put(tile, render_tile(scene, sensor, sampler, arrays, key))
            task.advance(tile.area)
    if frame.nonfinite_samples:
        mi.Log(
            mi.LogLevel.Warn,
            f"gdpt: {frame.nonfinite_samples} of {width * height * spp} samples were NaN or "
            "infinite and were counted as black. Look for broken BSDF parameters, textures or "
            "emitters in the scene.",
        )
    return frame
