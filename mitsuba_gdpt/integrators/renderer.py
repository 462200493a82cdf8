"""One pass over pixels: from camera rays to the means of all buffers over a pixel's samples."""

from __future__ import annotations

from dataclasses import dataclass

import drjit as dr
import mitsuba as mi

from mitsuba_gdpt.errors import reraise_interrupt
from mitsuba_gdpt.integrators import features as feat
from mitsuba_gdpt.integrators.accumulate import PixelMean, is_sound, pixel_mean, widened
from mitsuba_gdpt.integrators.camera import Camera, SkipEmitters, primary_hit
from mitsuba_gdpt.integrators.color import radiance_rgb
from mitsuba_gdpt.integrators.emitter_table import EmitterTable
from mitsuba_gdpt.integrators.emitters import Emitters
from mitsuba_gdpt.integrators.environment_table import EnvironmentTable
from mitsuba_gdpt.integrators.parameters import Parameters
from mitsuba_gdpt.integrators.path import PathConfig, PrimaryHit, trace
from mitsuba_gdpt.integrators.pixels import Pixels
from mitsuba_gdpt.integrators.sampling import Sampler, SobolSampler
from mitsuba_gdpt.integrators.shifts import ShiftSchedule

_INFINITE = 2**32 - 1


@dataclass(frozen=True)
class TileKey:
    """What a tile is rendered with, besides arrays: all of it may be part of the kernels.

    Attributes:
        parameters: Of the integrator.
        pixels: What to render.
        spp: Samples per pixel, or per portion of one.
        most_spp: Largest number of samples of a pixel.
        stratified: Draw stratified numbers instead of those of the sampler.
    """

    parameters: Parameters
    pixels: Pixels
    spp: int
    most_spp: int
    stratified: bool


@dataclass
class TileArrays:
    """What a tile is rendered with that is data for the kernels.

    Attributes:
        seed: Of the frame (UInt32 of width 1).
        first: Samples per pixel that were taken with the same seed before, likewise.
        subpixel: Shared sub-pixel positions by sample index, or None.
        roughness: Roughness by BSDF, or None.
    """

    seed: mi.UInt32
    first: mi.UInt32
    subpixel: tuple[mi.Float, mi.Float] | None
    roughness: mi.Float | None


@dataclass
class TileMeans:
    """Pixels of a tile.

    Attributes:
        buffers: By name, but for the gradients and variances.
        sides: One-sided gradients by side (``shifts.SIDES``).
        alpha: Share of the samples that met something.
        bounces: How often paths were scattered.
        nonfinite: Number of samples that were NaN, or infinite to ``LARGEST`` (UInt32 of width 1).
    """

    buffers: dict[str, PixelMean]
    sides: dict[str, PixelMean]
    alpha: PixelMean
    bounces: PixelMean
    nonfinite: mi.UInt32


def render_tile(
    scene: mi.Scene,
    sensor: mi.Sensor,
    sampler: mi.Sampler,
    arrays: TileArrays,
    key: TileKey,
    skip_emitters: SkipEmitters,
) -> TileMeans:
    """Render a tile; must not look at values of arrays, see :class:`freezing.FrozenMethod`.

    Args:
        scene: The scene.
        sensor: The sensor.
        sampler: Seeded for the tile; not read where ``key.stratified``.
        arrays: Data.
        key: Constants.
        skip_emitters: ``skip_area_emitters`` of the integrator, for ``hide_emitters``.
    """
    parameters, pixels, spp = key.parameters, key.pixels, key.spp
    skip = skip_emitters if parameters.hide_emitters else None
    layout, variances = parameters.layout, parameters.variances
    camera = Camera(scene, sensor, spp, arrays.subpixel, skip)
    # A frozen method has to return the state of its arguments: spare it the sampler's.
    draws: Sampler = sampler.clone()
    if key.stratified:
        lanes = pixels.lanes(spp)
        x, y = mi.UInt32(lanes.x), mi.UInt32(lanes.y)
        draws = SobolSampler.start(arrays.seed, x, y, lanes.sample, key.most_spp, arrays.first)
    schedule = ShiftSchedule.of(parameters.offset_paths, spp)
    base, neighbours, moves, weight, sample = camera.primary_hits(
        pixels, draws, schedule, arrays.seed + arrays.first
    )
    config = _path_config(parameters, camera.world_to_camera(pixels), arrays.roughness)
    result = trace(_emitters(scene, parameters, camera), draws, base, neighbours, config)
    wavelengths = base.ray.wavelengths

    # What is the same for all samples has width 1 until here: sums would count it once.
    result = widened(result, pixels.area * spp)
    # A broken sample must not reach the pixel, nor its neighbours through a gradient.
    L = dr.select(result.valid, result.L, 0) * weight
    broken = ~dr.all(is_sound(L))
    values = feat.lanes(result.features, layout.names, result.L, result.valid, weight, wavelengths)
    for name, components in values.items():
        values[name] = [dr.select(is_sound(c), c, 0) for c in components]
    values["primal"] = radiance_rgb(dr.select(broken, 0, L), wavelengths)
    alpha = [dr.select(result.valid, mi.Float(1), 0)]
    gradients = []
    for D in result.D:
        D = D * weight
        ok = dr.all(is_sound(D))
        broken |= ~ok
        gradients.append(radiance_rgb(dr.select(ok, D, 0), wavelengths))
    bounces = [mi.Float(result.bounces)]
    dr.eval(values, alpha, bounces, gradients, broken)

    varying = {buffer.variance_of for buffer in layout.buffers}
    return TileMeans(
        {name: pixel_mean(c, spp, name in varying) for name, c in values.items()},
        schedule.estimates(gradients, moves, sample, variances),
        pixel_mean(alpha, spp, False),
        pixel_mean(bounces, spp, False),
        dr.count(broken),
    )


def trace_ray(
    scene: mi.Scene,
    sampler: mi.Sampler,
    ray: mi.Ray3f,
    active: mi.Bool,
    parameters: Parameters,
    skip_emitters: SkipEmitters,
) -> tuple[mi.Spectrum, mi.Bool, list[mi.Float]]:
    """Trace paths along rays of unknown origin: no gradients, features in the world's frame.

    Returns:
        Radiance, whether the path met something, and the components of all buffers but the primal.
    """
    layout = parameters.layout
    skip = skip_emitters if parameters.hide_emitters else None
    base = PrimaryHit(ray, primary_hit(scene, ray, active, skip), active)
    roughness = feat.roughness_table(scene) if "roughness" in layout else None
    config = _path_config(parameters, mi.Transform4f(), roughness)
    result = trace(_emitters(scene, parameters), sampler, base, [], config)
    lanes = feat.lanes(result.features, layout.names, result.L, result.valid, None, ray.wavelengths)
    aovs = [
        component
        for buffer in layout.buffers[1:]
        for component in lanes.get(buffer.name, [mi.Float(0)] * len(buffer))
    ]
    return dr.select(result.valid, result.L, 0), result.valid, aovs


def _path_config(
    parameters: Parameters, to_camera: mi.Transform4f, roughness: mi.Float | None
) -> PathConfig:
    """Return the constants of the estimator.

    Args:
        parameters: Of the integrator.
        to_camera: World to camera.
        roughness: Roughness by BSDF, where it is recorded.
    """
    names = frozenset(parameters.layout.names) & feat.OPTIONAL
    return PathConfig(
        max_depth=_INFINITE if parameters.max_depth < 0 else parameters.max_depth,
        rr_depth=parameters.rr_depth,
        hide_emitters=parameters.hide_emitters,
        features=feat.FeatureConfig(names, to_camera, roughness),
        features_only=parameters.features_only,
    )


def _emitters(scene: mi.Scene, parameters: Parameters, camera: Camera | None = None) -> Emitters:
    """Return the emitters of a scene, with what is known of their importance if that is wanted."""
    if parameters.features_only or not parameters.emitter_importance:
        return Emitters(scene)
    try:
        probes = camera.probes if camera else None
        table, environment = EmitterTable.of(scene, probes), None
        if table is not None or len(scene.emitters()) == 1:
            environment = EnvironmentTable.of(scene, probes)
        return Emitters(scene, table, environment)
    except RuntimeError as error:  # plugins need not be able to emit rays
        reraise_interrupt(error)
        text = "gdpt: emitters are chosen by their sampling weights, since one cannot be"
        mi.Log(mi.LogLevel.Info, f"{text} measured: {error}")
        return Emitters(scene)
