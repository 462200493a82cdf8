"""The ``gdpt`` plugin: parameters, passes, film."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

from mitsuba_gdpt import progress
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.errors import ConfigError, VariantError, reraise_interrupt
from mitsuba_gdpt.integrators import camera as cam
from mitsuba_gdpt.integrators import features as feat
from mitsuba_gdpt.integrators import sampling
from mitsuba_gdpt.integrators.accumulate import Frame, PixelMean, pixel_mean, widened
from mitsuba_gdpt.integrators.color import radiance_rgb, reflectance_rgb
from mitsuba_gdpt.integrators.emitter_table import EmitterTable
from mitsuba_gdpt.integrators.emitters import Emitters
from mitsuba_gdpt.integrators.freezing import FrozenMethod
from mitsuba_gdpt.integrators.parameters import MOST_LANES, Parameters
from mitsuba_gdpt.integrators.path import PathConfig, PathSample, PrimaryHit, trace

_INFINITE = 2**32 - 1
_GOLDEN_RATIO = 0x9E3779B9  # spreads the seeds of the tiles; the first keeps the user's
_RGB = ("R", "G", "B")
_NOT_DIFFERENTIABLE = (
    "gdpt is not differentiable: its dx and dy are differences between pixels, not derivatives by "
    "parameters of the scene; use Mitsuba's prb for those"
)

#: The manual page of the plugin, in the form of Mitsuba's own.
_DOC = rf"""Gradient-domain path tracer (:monosp:`gdpt`).

{Parameters.plugin_parameters()}

The primal image has the expected value of Mitsuba's ``path`` with the same parameters.
``dx`` and ``dy`` are unbiased estimates of its forward differences, from hybrid shift
mapping (random replay, then reconnection) with the film treated as box-filtered.

Limits: rgb, mono and spectral variants of LLVM and CUDA only. Participating media are
ignored, as in ``path``. Sensors whose response differs between pixels are treated as if
it did not. Not differentiable.

See Kettunen et al., "Gradient-Domain Path Tracing", SIGGRAPH 2015.

.. code-block:: python

    'type': 'gdpt',
    'max_depth': 12
"""


def make_plugin() -> type:
    """Return the integrator class for the variant that is active now.

    A class body binds the types of one variant, so every variant needs a class of its own.
    """
    variant = mi.variant()

    class GDPTIntegrator(mi.SamplingIntegrator):
        __doc__ = _DOC

        def __init__(self, props: mi.Properties):
            super().__init__(props)
            #: Samples of the last render that were NaN or infinite and counted as black.
            self.nonfinite_samples = 0
            self._warned = False
            self._parameters = Parameters.from_properties(props)
            self._frozen_tile = FrozenMethod(self._render_tile, self._parameters.freeze)

        @property
        def parameters(self) -> Parameters:
            """Values of all parameters; each of them is an attribute of its own as well."""
            return self._parameters

        @parameters.setter
        def parameters(self, value: Parameters) -> None:
            self._parameters = value
            self._frozen_tile.enabled = value.freeze

        @property
        def layout(self) -> Layout:
            """Meaning of the channels of a render."""
            return self._parameters.layout

        @layout.setter
        def layout(self, value: Layout) -> None:
            self.parameters = self._parameters.with_layout(value)

        def aov_names(self) -> list[str]:
            """Names of all channels after the film's own colour."""
            return list(self.layout.channels[len(_RGB) :])

        def to_string(self) -> str:
            """Return a description with all parameters."""
            return str(self._parameters)

        __repr__ = __str__ = to_string

        # ------------------------------------------------------------------ rendering

        def render(
            self,
            scene: mi.Scene,
            sensor: int | mi.Sensor = 0,
            seed: int | mi.UInt32 = 0,
            spp: int = 0,
            develop: bool = True,
            evaluate: bool = True,
        ) -> mi.TensorXf:
            """Render primal, gradient and feature buffers.

            Returns:
                (H, W, C) float32 tensor, channels as in :attr:`layout`, evaluated. The film holds
                the same channels (and alpha, if it has any) under their names.
            """
            _check_variant(variant, scene)
            sensor = _sensor(scene, sensor)
            film = sensor.film()
            size = [*film.crop_size()]
            if not all(size):
                raise ConfigError(
                    f"the film's crop window is {size} pixels; expected 1 x 1 or more"
                )
            _check_film(film)
            self._warn_once(scene, film)
            # Before anything else: what a film still holds of the last render is part of the scene.
            film.prepare(self.aov_names())
            with dr.suspend_grad(), _interruptible():
                sampler = sensor.sampler().clone()
                spp = self._sample_count(sampler, spp)
                frame = self._render_frame(scene, sensor, sampler, _seed(seed), spp)
                planes = self._planes(frame)
                tensor = frame.interleave(planes)
                _fill_film(film, frame, planes)
            return tensor if develop else mi.TensorXf()

        def render_forward(self, *args: Any, **kwargs: Any) -> Any:
            """Refuse: see the limits above."""
            raise ConfigError(_NOT_DIFFERENTIABLE)

        def render_backward(self, *args: Any, **kwargs: Any) -> Any:
            """Refuse: see the limits above."""
            raise ConfigError(_NOT_DIFFERENTIABLE)

        def sample(
            self,
            scene: mi.Scene,
            sampler: mi.Sampler,
            ray: mi.RayDifferential3f,
            medium: mi.Medium | None = None,
            active: bool | mi.Bool = True,
        ) -> tuple[Any, Any, list[Any]]:
            """Return the plain path estimate along a ray, for use inside another integrator.

            A single ray has no neighbours, so the gradients among the AOVs are 0. The features
            are in the ray's world frame, since no camera is known.
            """
            ray = mi.Ray3f(ray)
            hit = cam.primary_hit(self, scene, ray, mi.Bool(active))
            config = self._path_config(mi.Transform4f(), self._roughness_table(scene))
            base = PrimaryHit(ray, hit, mi.Bool(active))
            result = trace(self._emitters(scene), sampler, base, [], config)
            lanes = self._feature_lanes(result, None, ray.wavelengths)
            zero = mi.Float(0)
            aovs = [
                component
                for buffer in self.layout.buffers[1:]
                for component in lanes.get(buffer.name, [zero] * len(buffer))
            ]
            return dr.select(result.valid, result.L, 0), result.valid, aovs

        # ------------------------------------------------------------------ helpers

        def _warn_once(self, scene: mi.Scene, film: mi.Film) -> None:
            """Say what this integrator ignores, in its first render only."""
            if self._warned:
                return
            self._warned = True
            if not film.rfilter().is_box_filter():
                mi.Log(
                    mi.LogLevel.Warn,
                    "gdpt: the film's reconstruction filter is used as a box filter; add "
                    '<rfilter type="box"/> to the film to silence this warning.',
                )
            if any(shape.is_medium_transition() for shape in scene.shapes()):
                mi.Log(
                    mi.LogLevel.Warn,
                    "gdpt: participating media are ignored, as by the path integrator.",
                )

        def _sample_count(self, sampler: mi.Sampler, spp: int) -> int:
            least = self._parameters.least_spp
            if not isinstance(spp, int | np.integer) or not 0 <= spp <= MOST_LANES:
                raise ConfigError(f"spp is {spp}; expected {least} to {MOST_LANES}")
            if spp:
                sampler.set_sample_count(int(spp))
            spp = sampler.sample_count()
            if spp < least:
                raise ConfigError(
                    f"spp is {spp}; variances={self.variances} needs at least {least}"
                )
            sampler.set_samples_per_wavefront(spp)
            return spp

        def _shifts_at(self, spp: int) -> int:
            """Return the number of offset paths per base path in a render of so many samples."""
            shifts = int(self.shifts)
            return 2 if shifts == spp == 1 else shifts

        def _roughness_table(self, scene: mi.Scene) -> Any:
            return feat.roughness_table(scene) if "roughness" in self.layout else None

        def _emitters(self, scene: mi.Scene, camera: cam.Camera | None = None) -> Emitters:
            if not self.emitter_importance:
                return Emitters(scene)
            try:
                return Emitters(scene, EmitterTable.of(scene, camera.probes if camera else None))
            except RuntimeError as error:  # plugins need not be able to emit rays
                reraise_interrupt(error)
                text = "gdpt: emitters are chosen by their sampling weights, since one cannot be"
                mi.Log(mi.LogLevel.Info, f"{text} measured: {error}")
                return Emitters(scene)

        def _path_config(self, to_camera: Any, roughness: Any) -> PathConfig:
            names = frozenset(self.layout.names) & feat.OPTIONAL
            return PathConfig(
                max_depth=_INFINITE if self.max_depth < 0 else self.max_depth,
                rr_depth=self.rr_depth,
                hide_emitters=self.hide_emitters,
                features=feat.FeatureConfig(names, to_camera, roughness),
                features_only=self.features_only,
            )

        def _render_frame(
            self, scene: mi.Scene, sensor: mi.Sensor, sampler: mi.Sampler, seed: int, spp: int
        ) -> Frame:
            width, height = (int(v) for v in sensor.film().crop_size())
            table = self._roughness_table(scene)
            subpixel = cam.shared_subpixel(self, sensor, spp, seed)
            stratified = self.stratified and sampler.class_name() == sampling.PLAIN
            frame = Frame(width, height)
            tiles = cam.split_into_tiles(width, height, spp, self.max_lanes)
            self.nonfinite_samples = 0
            frame_seed = dr.opaque(mi.UInt32, seed)
            with progress.task("rendering", total=width * height) as task:
                for i, tile in enumerate(tiles):
                    # Opaque: as a literal, a seed that happens to equal another number of the scene
                    # would look like a change of the program.
                    tile_seed = dr.opaque(mi.UInt32, (seed + i * _GOLDEN_RATIO) % 2**32)
                    if not stratified:
                        sampler = sampler.clone()
                        sampler.seed(tile_seed, tile.area * spp)
                    arrays = tile_seed, frame_seed, subpixel, table
                    means, finite = self._frozen_tile(
                        scene, sensor, sampler, arrays, (tile, spp, stratified, self._parameters)
                    )
                    self.nonfinite_samples += tile.area * spp - finite[0]
                    for name, mean in means.items():
                        self._store(frame, tile, name, mean)
                    frame.eval()
                    task.advance(tile.area)
            if self.nonfinite_samples:
                mi.Log(
                    mi.LogLevel.Warn,
                    f"gdpt: {self.nonfinite_samples} of {width * height * spp} samples were NaN "
                    "or infinite and were counted as black. Look for broken BSDF parameters, "
                    "textures or emitters in the scene.",
                )
            return frame

        def _render_tile(
            self, scene: mi.Scene, sensor: mi.Sensor, sampler: mi.Sampler, arrays: Any, key: Any
        ) -> tuple[dict[str, PixelMean], Any]:
            """Return the pixels of a tile, and how many samples were finite (UInt32 of width 1).

            Must not look at values of arrays; see :class:`FrozenMethod`.
            """
            seed, frame_seed, subpixel, table = arrays
            tile, spp, stratified, _ = key
            # A frozen method has to return the state of its arguments: spare it the sampler's.
            draws: Any = sampler.clone()
            if stratified:
                draws = sampling.SobolSampler.start(seed, tile.area, spp)
            camera = cam.Camera(self, scene, sensor, spp, subpixel)
            shifts = self._shifts_at(spp)
            sparse = 0 < shifts * spp < 4
            moves = cam.sparse_shifts(shifts, frame_seed) if sparse else cam.SHIFTS[shifts]
            base, neighbours, moved, weight, index = camera.primary_hits(tile, draws, moves)
            config = self._path_config(camera.world_to_camera(tile), table)
            emitters = self._emitters(scene, camera)
            result = trace(emitters, draws, base, neighbours, config)
            wavelengths = base.ray.wavelengths

            # What is the same for all samples has width 1 until here: sums would count it once.
            result = widened(result, tile.area * spp)
            # A broken sample must not reach the pixel, nor its neighbours through a gradient.
            L = dr.select(result.valid, result.L, 0) * weight
            finite = dr.all(dr.isfinite(L))
            lanes = self._feature_lanes(result, weight, wavelengths)
            for name, components in lanes.items():
                lanes[name] = [dr.select(dr.isfinite(c), c, 0) for c in components]
            lanes["primal"] = radiance_rgb(dr.select(finite, L, 0), wavelengths)
            lanes["alpha"] = [dr.select(result.valid, mi.Float(1), 0)]
            gradients = []
            for D in result.D:
                D = D * weight
                ok = dr.all(dr.isfinite(D))
                finite &= ok
                gradients.append(radiance_rgb(dr.select(ok, D, 0), wavelengths))
            dr.eval(lanes, gradients, finite)

            means = {
                name: pixel_mean(components, spp, self.variances and f"{name}.var" in self.layout)
                for name, components in lanes.items()
            }
            if sparse:
                means |= self._sparse_gradients(gradients, moved, shifts, spp)
                return means, dr.count(finite)
            for direction, (slot, remainder) in cam.DIRECTIONS[shifts].items():
                components, period = gradients[slot], 4 // shifts
                if period == 1:
                    means[direction] = pixel_mean(components, spp, self.variances)
                else:
                    selected = (index & (period - 1)) == remainder
                    count = (spp + period - 1 - remainder) // period
                    means[direction] = pixel_mean(components, spp, self.variances, selected, count)
            return means, dr.count(finite)

        def _sparse_gradients(
            self, gradients: list[Any], moved: list[Any], shifts: int, spp: int
        ) -> dict[str, PixelMean]:
            """Return the one-sided gradients of a render with :func:`camera.sparse_shifts`."""
            means = {}
            for direction, (axis, sign) in cam.SIDES.items():
                slot = axis if shifts == 2 else 0
                samples = spp if shifts == 2 else (spp + 1 - axis) // 2
                selected = moved[slot][axis] == sign
                factor = 2 if samples == 1 else 1
                components = [factor * c for c in gradients[slot]]
                means[direction] = pixel_mean(components, spp, self.variances, selected, 1)
            return means

        def _store(self, frame: Frame, tile: cam.Tile, name: str, result: Any) -> None:
            for i, plane in enumerate(result.mean):
                frame.put(tile, f"{name}.{i}", plane)
            if result.variance is not None:
                frame.put(tile, f"{name}.var", result.variance)

        def _feature_lanes(
            self, result: PathSample, weight: Any, wavelengths: Any
        ) -> dict[str, list[Any]]:
            """Return the components of each feature buffer, by buffer name, over lanes."""
            f = result.features
            lanes: dict[str, list[Any]] = {
                "albedo": reflectance_rgb(f.albedo, weight, wavelengths),
                "normal": [*f.normal],
                "depth": [f.depth],
            }
            names = self.layout.names
            if "position" in names:
                lanes["position"] = [*f.extra["position"]]
            if "visibility" in names:
                rays = f.extra["shadow_rays"]
                lanes["visibility"] = [dr.select(rays > 0, f.extra["lit"] / rays, 1)]
            if "roughness" in names:
                lanes["roughness"] = [f.extra["roughness"]]
            counts = result.valid & dr.all(dr.isfinite(result.L))
            parts = {}
            if "diffuse" in names or "specular" in names:
                parts["diffuse"] = dr.select(counts, f.extra["diffuse"], 0)
                parts["specular"] = dr.select(counts, result.L, 0) - parts["diffuse"]
            if "emission" in names:
                parts["emission"] = dr.select(counts, f.extra["emission"], 0)
            for name, part in parts.items():
                if name in names:
                    part = part if weight is None else part * weight
                    lanes[name] = radiance_rgb(part, wavelengths)
            return lanes

        def _planes(self, frame: Frame) -> list[Any]:
            """Return one Float array per channel of the layout."""
            planes = []
            pairs = {"dx": ("right", "left", "x"), "dy": ("down", "up", "y")}
            for buffer in self.layout.buffers:
                name, is_variance = buffer.name, buffer.name.endswith(".var")
                base = name.removesuffix(".var")
                suffixes = ["var"] if is_variance else range(len(buffer))
                for suffix in suffixes:
                    if base not in pairs:
                        planes.append(frame.get(f"{base}.{suffix}"))
                    elif self.shifts == 0:
                        planes.append(dr.zeros(mi.Float, frame.width * frame.height))
                    else:
                        ahead, behind, axis = pairs[base]
                        planes.append(
                            frame.forward_difference(
                                f"{ahead}.{suffix}", f"{behind}.{suffix}", axis, is_variance
                            )
                        )
            return planes

    for name in Parameters.defaults():
        setattr(GDPTIntegrator, name, _attribute(name))
    return GDPTIntegrator


def _attribute(name: str) -> property:
    """Return a parameter of the integrator as an attribute, checked when it is set."""

    def get(self: Any) -> Any:
        return getattr(self.parameters, name)

    def put(self: Any, value: Any) -> None:
        self.parameters = replace(self.parameters, **{name: value})

    return property(get, put)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C inside a callback of Dr.Jit end a render as what it is."""
    try:
        yield
    except RuntimeError as error:
        reraise_interrupt(error)
        raise


def _check_variant(variant: str, scene: mi.Scene) -> None:
    """Refuse an integrator or a scene of another variant than the one that is set now.

    Raises:
        VariantError: Names both.
    """
    if (now := mi.variant()) != variant:
        raise VariantError(
            f"this gdpt integrator was made for the variant {variant!r}, but {now!r} is set; load "
            "integrator and scene again after mi.set_variant()"
        )
    if not isinstance(scene, mi.Scene):
        raise VariantError(
            f"the scene is a {type(scene).__name__} of another variant; expected one that was "
            f"loaded after mi.set_variant({variant!r})"
        )


def _sensor(scene: mi.Scene, sensor: int | mi.Sensor) -> mi.Sensor:
    if not isinstance(sensor, int):
        return sensor
    sensors = scene.sensors()
    if not 0 <= sensor < len(sensors):
        raise ConfigError(
            f"sensor {sensor} was asked for, but the scene has {len(sensors)}; "
            "add a <sensor> to the scene or pick another index"
        )
    return sensors[sensor]


def _check_film(film: mi.Film) -> None:
    """Refuse a film that wants other channels than colour.

    Raises:
        ConfigError: It does, as ``specfilm``.
    """
    if mi.has_flag(film.flags(), mi.FilmFlags.Special):
        name = film.class_name()
        name = "specfilm" if name == "SpecFilm" else name
        raise ConfigError(
            f"the film {name} is not supported: gdpt renders RGB, not bands; use hdrfilm"
        )


def _seed(seed: int | mi.UInt32) -> int:
    value = seed[0] if isinstance(seed, mi.UInt32) and dr.width(seed) == 1 else seed
    if not isinstance(value, int | np.integer):
        raise ConfigError(f"the seed is {seed}; expected a whole number")
    return int(value) % 2**32


def _fill_film(film: mi.Film, frame: Frame, planes: list[Any]) -> None:
    """Hand the pixels to the film, so that ``film.bitmap()`` and ``film.write()`` have them.

    The film has been prepared.
    """
    planes = [*planes]
    extra = [mi.Float(1)]  # the weight that the film divides by
    if mi.has_flag(film.flags(), mi.FilmFlags.Alpha):
        extra.insert(0, frame.get("alpha.0"))
    planes[len(_RGB) : len(_RGB)] = [
        e + dr.zeros(mi.Float, frame.width * frame.height) for e in extra
    ]
    film.put_block(mi.ImageBlock(frame.interleave(planes), film.crop_offset()))
