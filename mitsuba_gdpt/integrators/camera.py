"""Camera rays, and primary hits shared between neighbouring pixels."""

from __future__ import annotations

from collections.abc import Callable

import drjit as dr
import mitsuba as mi
import numpy as np

from mitsuba_gdpt.integrators.accumulate import widened
from mitsuba_gdpt.integrators.path import PrimaryHit
from mitsuba_gdpt.integrators.pixels import Pixels, Tile
from mitsuba_gdpt.integrators.plugins import Plugin
from mitsuba_gdpt.integrators.sampling import Sampler, sequence_index
from mitsuba_gdpt.integrators.shifts import Move, ShiftSchedule

#: ``skip_area_emitters`` of an integrator; None where emitters are not hidden.
SkipEmitters = Callable[..., "mi.PreliminaryIntersection3f"]

#: Class of the sensor that consists of others.
_BATCH = "BatchSensor"


def shared_subpixel(
    sensor: mi.Sensor, spp: int, seed: int, first: int = 0
) -> tuple[mi.Float, mi.Float] | None:
    """Return sub-pixel positions by sample index for :class:`Camera`; None: not to be shared.

    Samples come in pairs that mirror each other about the centre of the pixel. Since all pixels
    share the positions, samples that are off the centre on average would shift the whole image,
    which no denoiser can see. The first samples of the pairs are a Sobol set with random digits
    flipped, in the left or the right half of the pixel. So each point alone is uniform over the
    pixel, and all of them together, or those whose index has one remainder modulo 2 or 4, are
    stratified.
    """
    if sensor.needs_aperture_sample() or sensor.shutter_open_time() > 0:
        return None
    index = sequence_index(dr.arange(mi.UInt32, spp), spp) + dr.opaque(mi.UInt32, first)
    # Opaque, so that one kernel serves all seeds.
    flips = [
        dr.opaque(mi.UInt32, int(f)) for f in np.random.default_rng(seed).integers(2**32, size=3)
    ]
    pair, right = index >> 1, ((index ^ flips[2]) & 1) == 1
    x, y = 0.5 * mi.radical_inverse_2(pair, flips[0]), mi.sobol_2(pair, flips[1])
    x, y = (dr.select(right, dr.minimum(1 - v, dr.one_minus_epsilon(v)), v) for v in (x, y))
    dr.eval(x, y)
    return x, y


def primary_hit(
    scene: mi.Scene, ray: mi.Ray3f, active: mi.Bool, skip_emitters: SkipEmitters | None
) -> mi.PreliminaryIntersection3f:
    """Find the primary vertex; with hidden emitters, what lies behind them (as in ``path``)."""
    hit = scene.ray_intersect_preliminary(ray, coherent=True, active=active)
    if skip_emitters is None:
        return hit
    skip = active & hit.is_valid() & (hit.shape.emitter() != None)  # noqa: E711
    si = hit.compute_surface_interaction(ray, mi.RayFlags.Minimal, skip)
    behind = skip_emitters(scene, si.spawn_ray(ray.d), True, skip)
    return dr.select(skip, behind, hit)


class Camera:
    """Draws the camera samples of pixels and finds the primary hits of all their paths.

    Pinhole cameras with an instantaneous shutter use one sub-pixel position per sample index, the
    same in all pixels. Then the primary ray of an offset path *is* the base ray of the
    neighbouring pixel, and each primary hit of a tile is traced once instead of five times. With a
    lens or an open shutter that sharing would ghost, so every pixel draws its own.

    Attributes:
        subpixel: Shared sub-pixel positions by sample index, or None.
    """

    def __init__(
        self,
        scene: mi.Scene,
        sensor: mi.Sensor,
        spp: int,
        subpixel: tuple[mi.Float, mi.Float] | None,
        skip_emitters: SkipEmitters | None,
    ):
        """Set up; ``subpixel`` comes from :func:`shared_subpixel`."""
        self.scene, self.sensor, self.spp = scene, sensor, spp
        self.skip_emitters = skip_emitters
        self.width, self.height = (int(v) for v in sensor.film().crop_size())
        self.subpixel = subpixel

    def primary_hits(
        self, pixels: Pixels, sampler: Sampler, schedule: ShiftSchedule, seed: mi.UInt32
    ) -> tuple[PrimaryHit, list[PrimaryHit], list[Move], mi.Spectrum, mi.UInt32]:
        """Return the primary hits of the base paths of pixels, and of their offset paths.

        Args:
            pixels: What to render; lanes are pixel-major.
            sampler: Seeded for ``pixels.area * spp`` lanes.
            schedule: Of the offset paths.
            seed: Of the frame, for the schedule.

        Returns:
            Base hit, offset hits, their pixel shifts, sensor weight and sample index.
        """
        lanes = pixels.lanes(self.spp)
        x, y, sample = lanes.x, lanes.y, lanes.sample
        # Same order of dimensions as in Mitsuba's own integrators.
        jitter = sampler.next_2d()
        lens = sampler.next_2d() if self.sensor.needs_aperture_sample() else mi.Point2f(0.5)
        time = mi.Float(self.sensor.shutter_open())
        if self.sensor.shutter_open_time() > 0:
            time += sampler.next_1d() * self.sensor.shutter_open_time()
        wavelength = sampler.next_1d() if mi.is_spectral else mi.Float(0)
        if self.subpixel is not None:
            jitter = self._shared_jitter(sample)
        if self.subpixel is not None and isinstance(pixels, Tile):
            find = self._shared_finder(pixels, halo=schedule.shifted)
        else:

            def find(
                ray: mi.Ray3f, x: mi.Int32, y: mi.Int32, sample: mi.UInt32, active: mi.Bool
            ) -> mi.PreliminaryIntersection3f:
                return primary_hit(self.scene, ray, active, self.skip_emitters)

        def hit(dx: mi.Int32, dy: mi.Int32) -> tuple[PrimaryHit, mi.Spectrum]:
            nx, ny = x + dx, y + dy
            inside = (nx >= 0) & (nx < self.width) & (ny >= 0) & (ny < self.height)
            position = mi.Point2f(mi.Float(nx), mi.Float(ny)) + jitter
            ray, weight = self._ray(position, lens, time, wavelength)
            return PrimaryHit(ray, find(ray, nx, ny, sample, inside), inside), weight

        base, weight = hit(mi.Int32(0), mi.Int32(0))
        moves = schedule.moves(x, y, sample, seed)
        return base, [hit(*move)[0] for move in moves], moves, weight, sample

    def world_to_camera(self, pixels: Pixels) -> mi.Transform4f:
        """Return the transform to the frame of the camera that looks through each lane's pixel."""
        x = mi.Float(pixels.lanes(self.spp).x)
        return _world_to_camera(self.sensor, (x + 0.5) / self.width)

    def probes(self, count: int) -> mi.Ray3f:
        """Return ``count`` rays through evenly spread points of the film."""
        i = dr.arange(mi.UInt32, count)
        x = (mi.Float(i) + 0.5) * dr.opaque(mi.Float, self.width / count)
        y = mi.radical_inverse_2(i, mi.UInt32(0)) * dr.opaque(mi.Float, self.height)
        time = mi.Float(self.sensor.shutter_open())
        ray, _ = self._ray(mi.Point2f(x, y), mi.Point2f(0.5), time, mi.Float(0))
        # In memory: of rays of which a component is the same number everywhere, as those of an
        # irradiance meter can be, Dr.Jit 1.5 makes programs that LLVM refuses.
        ray.o, ray.d = widened([ray.o, ray.d], count)
        dr.eval(ray)
        return ray

    def _shared_jitter(self, sample: mi.UInt32) -> mi.Point2f:
        assert self.subpixel is not None
        return mi.Point2f(*(dr.gather(mi.Float, c, sample) for c in self.subpixel))

    def _shared_finder(self, tile: Tile, halo: bool) -> Callable[..., mi.PreliminaryIntersection3f]:
        """Trace the primary rays of a tile and of the pixels around it; return a look-up.

        Args:
            tile: Pixels to render.
            halo: Whether the pixels around it are wanted; offset paths need them.
        """
        if halo:
            tile = tile.grown(self.width, self.height)
        lanes = tile.lanes(self.spp)
        position = mi.Point2f(mi.Float(lanes.x), mi.Float(lanes.y))
        position += self._shared_jitter(lanes.sample)
        ray, _ = self._ray(position, mi.Point2f(0.5), mi.Float(0), mi.Float(0))
        hits = primary_hit(self.scene, ray, mi.Bool(True), self.skip_emitters)
        dr.eval(hits)
        x0, y0, width = (dr.opaque(mi.Int32, v) for v in (tile.x, tile.y, tile.width))
        spp = dr.opaque(mi.UInt32, self.spp)

        def find(
            ray: mi.Ray3f, x: mi.Int32, y: mi.Int32, sample: mi.UInt32, active: mi.Bool
        ) -> mi.PreliminaryIntersection3f:
            lane = mi.UInt32((y - y0) * width + (x - x0)) * spp + sample
            return dr.gather(type(hits), hits, lane, active)

        return find

    def _ray(
        self, position: mi.Point2f, lens: mi.Point2f, time: mi.Float, wavelength: mi.Float
    ) -> tuple[mi.Ray3f, mi.Spectrum]:
        """Sample camera rays at film positions given in pixels relative to the crop."""
        scale = mi.Point2f(
            dr.opaque(mi.Float, 1 / self.width), dr.opaque(mi.Float, 1 / self.height)
        )
        # As Mitsuba's own integrators do: there are sensors that have nothing else.
        ray, weight = self.sensor.sample_ray_differential(time, wavelength, position * scale, lens)
        return mi.Ray3f(ray), weight


def _world_to_camera(sensor: mi.Sensor, x: mi.Float) -> mi.Transform4f:
    """Return the inverse of a sensor's transform at a horizontal place on its film in [0, 1].

    The film of a ``batch`` is shared by several sensors, side by side in equal parts.
    """
    if sensor.class_name() != _BATCH:
        return sensor.world_transform().inverse()
    parts = [c for c in Plugin.of(sensor).children.values() if isinstance(c, mi.Sensor)]
    place = x * len(parts)
    result = _world_to_camera(parts[0], place)
    for i, part in enumerate(parts[1:], start=1):
        result = dr.select(place >= i, _world_to_camera(part, place - i), result)
    return result
