"""The ``gdpt`` plugin: parameters, passes, film."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

from mitsuba_gdpt import checks
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.integrators import arguments
from mitsuba_gdpt.integrators.frame import Frame, render_frame
from mitsuba_gdpt.integrators.freezing import FrozenMethod
from mitsuba_gdpt.integrators.parameters import MOST_LANES, Parameters
from mitsuba_gdpt.integrators.renderer import TileArrays, TileKey, TileMeans, render_tile, trace_ray

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
            #: How often the paths of each pixel of the last render were scattered, in the mean,
            #: (H, W): what their time goes with.
            self.bounces = mi.TensorXf()
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
            first: int = 0,
        ) -> mi.TensorXf:
            """Render primal, gradient and feature buffers.

            Args:
                scene: The scene.
                sensor: Index of a sensor of the scene, or a sensor.
                seed: Seed of the sampler.
                spp: Samples per pixel; 0 for as many as the sensor's sampler says.
                develop: Whether to return the tensor; the film has the pixels in any case.
                evaluate: Without effect: it is always evaluated.
                first: Samples per pixel that earlier renders took with this seed. Their mean with
                    these is as well stratified as one render.

            Returns:
                (H, W, C) float32 tensor, channels as in :attr:`layout`, evaluated. The film holds
                the same channels (and alpha, if it has any) under their names.
            """
            sensor = self._checked(scene, sensor)
            film = sensor.film()
            # Before anything else: what a film still holds of the last render is part of the scene.
            film.prepare(self.aov_names())
            with dr.suspend_grad(), arguments.interruptible():
                sampler = arguments.prepared_sampler(sensor, spp, self._parameters)
                first = checks.whole("first", first, most=MOST_LANES)
                frame = self._rendered(scene, sensor, sampler, seed, self._frozen_tile, first=first)
                planes = frame.planes(self.layout)
                tensor = frame.interleave(planes)
                _fill_film(film, frame, planes)
            return tensor if develop else mi.TensorXf()

        def render_counts(
            self,
            scene: mi.Scene,
            counts: np.ndarray[Any, Any],
            sensor: int | mi.Sensor = 0,
            seed: int | mi.UInt32 = 0,
        ) -> mi.TensorXf:
            """Render pixels with different numbers of samples.

            Every pixel has the expected value of :meth:`render`, whatever its count and those of
            its neighbours, as long as the counts do not depend on these samples.

            Args:
                scene: The scene.
                counts: Samples per pixel of the crop window, (H, W) whole numbers, multiples of 8.
                sensor: Index of a sensor of the scene, or a sensor.
                seed: Seed of the sampler.

            Returns:
                (H, W, C) float32 tensor, channels as in :attr:`layout`, evaluated; 0 in pixels
                without samples, and in differences with one. The film is left as it is.
            """
            sensor = self._checked(scene, sensor)
            wanted = arguments.counts_of(counts, sensor.film())
            with dr.suspend_grad(), arguments.interruptible():
                sampler = arguments.portion_sampler(sensor, self._parameters)
                # Every pass has another number of pixels: nothing that could be played again.
                frame = self._rendered(
                    scene, sensor, sampler, seed, self._render_tile, counts=wanted
                )
                return frame.interleave(frame.planes(self.layout))

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
        ) -> tuple[mi.Spectrum, mi.Bool, list[mi.Float]]:
            """Return the plain path estimate along a ray, for use inside another integrator.

            A single ray has no neighbours, so the gradients among the AOVs are 0. The features
            are in the ray's world frame, since no camera is known.
            """
            ray, active = mi.Ray3f(ray), mi.Bool(active)
            skip = self.skip_area_emitters
            return trace_ray(scene, sampler, ray, active, self._parameters, skip)

        # ------------------------------------------------------------------ helpers

        def _checked(self, scene: mi.Scene, sensor: int | mi.Sensor) -> mi.Sensor:
            """Return the sensor of a render that can be done."""
            arguments.check_variant(variant, scene)
            sensor = arguments.sensor_of(scene, sensor)
            arguments.check_film(sensor.film())
            self._warn_once(scene, sensor.film())
            return sensor

        def _rendered(
            self,
            scene: mi.Scene,
            sensor: mi.Sensor,
            sampler: mi.Sampler,
            seed: int | mi.UInt32,
            render_tile: Callable[..., TileMeans],
            **options: Any,
        ) -> Frame:
            """Render a frame, and keep what is known about it besides its planes."""
            start = arguments.seed_of(seed)
            self.nonfinite_samples = 0
            frame = render_frame(
                scene, sensor, sampler, start, self._parameters, render_tile, **options
            )
            self.nonfinite_samples = frame.nonfinite_samples
            self.bounces = frame.plane(frame.bounces)
            return frame

        def _warn_once(self, scene: mi.Scene, film: mi.Film) -> None:
            """Say what this integrator ignores, in its first render only."""
            if not self._warned:
                self._warned = True
                for text in arguments.ignored(scene, film):
                    mi.Log(mi.LogLevel.Warn, f"gdpt: {text}")

        def _render_tile(
            self,
            scene: mi.Scene,
            sensor: mi.Sensor,
            sampler: mi.Sampler,
            arrays: TileArrays,
            key: TileKey,
        ) -> TileMeans:
            return render_tile(scene, sensor, sampler, arrays, key, self.skip_area_emitters)

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


def _fill_film(film: mi.Film, frame: Frame, planes: list[mi.Float]) -> None:
    """Hand the pixels to the film, so that ``film.bitmap()`` and ``film.write()`` have them.

    The film has been prepared.
    """
    has_alpha = mi.has_flag(film.flags(), mi.FilmFlags.Alpha)
    colour, aovs = planes[: len(_RGB)], planes[len(_RGB) :]
    weight = frame.full(1)  # the film divides by it
    block = [*colour, *([frame.alpha] if has_alpha else []), weight, *aovs]
    film.put_block(mi.ImageBlock(frame.interleave(block), film.crop_offset()))
