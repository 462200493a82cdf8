"""Rendering crops: one scene stays loaded and one set of kernels serves all its crops.

A kernel is compiled anew for each different constant in it, which takes seconds. So everything that
differs between crops has to reach the kernels as data: see :func:`make_sensor`. ``dr.freeze`` would
save tracing (0.1 s per render), but ``gdpt`` does not support it, and it does not notice a film
that changes its size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt import rendering, scenes
from mitsuba_gdpt.channels import PRIMAL, VARIANCE_SUFFIX, Layout
from mitsuba_gdpt.data.plan import CropPlan, CropSpec
from mitsuba_gdpt.errors import NonFiniteError

if TYPE_CHECKING:
    import mitsuba as mi
    import torch

    from mitsuba_gdpt.buffers import FrameBuffers
    from mitsuba_gdpt.scenes.catalogue import CatalogueScene

#: Optional buffers of the noisy renders; with the core and all variances they are 30 channels.
FEATURES = ("diffuse", "specular")
#: Channels of the noisy renders.
LAYOUT = Layout.make(FEATURES, variances=True)

#: Sensor parameters that Mitsuba would compile into the kernels as constants.
_CONSTANTS = ("aperture_radius", "focus_distance")


#: Targets that are reconstructed from gradients: not a plain primal.
RECONSTRUCTED = frozenset({"gdpt-l1", "gdpt-l2"})


@dataclass(frozen=True)
class RenderedCrop:
    """What was rendered for one crop; tensors are on the renderer's device.

    Attributes:
        spec: The crop.
        noisy: Buffers of each noisy render, in the order of ``spec.spp``.
        targets: (T, H, W, 3) float32: two independent halves, or one image.
        target_variance: (H, W) float32, variance of the mean of the targets, averaged over RGB.
            For reconstructed targets that of the primal before reconstruction.
        nonfinite_samples: Samples of all renders that were NaN or infinite and count as black.
    """

    spec: CropSpec
    noisy: list[FrameBuffers]
    targets: torch.Tensor
    target_variance: torch.Tensor
    nonfinite_samples: int


class CropRenderer:
    """A loaded scene and the integrators for its crops; a Mitsuba variant has to be set."""

    def __init__(self, scene: CatalogueScene, plan: CropPlan) -> None:
        """Load a scene.

        Raises:
            FormatError: The scene cannot be loaded.
        """
        self.scene, self.plan = scene, plan
        self.source = rendering.open_source(scene.source, parameters=scene.parameters)
        settings = self.source.integrator | {
            "max_depth": scene.max_depth,
            "max_lanes": plan.max_lanes,
            "variances": True,
        }
        self._gdpt = rendering.make_integrator(
            settings | {"shifts": plan.shifts, "features": ",".join(FEATURES)}
        )
        # Targets are reconstructed: the cleaner the gradients, the better.
        self._target_gdpt = rendering.make_integrator(settings | {"shifts": 4, "features": ""})
        self._primal = rendering.make_integrator(settings | {"shifts": 0, "features": ""})

    def render(self, spec: CropSpec) -> RenderedCrop:
        """Render the noisy versions of a crop and its target.

        Raises:
            NonFiniteError: A pixel is NaN or infinite; names scene, crop, seed and channels.
            RuntimeError: Mitsuba failed; the message names scene and crop.
        """
        sensor, bad = make_sensor(spec), 0
        noisy = []
        for spp, seed in zip(spec.spp, spec.seeds, strict=True):
            noisy.append(self._render(self._gdpt, sensor, spec, spp, seed))
            bad += self._gdpt.nonfinite_samples
        renders, integrator = len(spec.target_seeds), self._primal
        if self.plan.target in RECONSTRUCTED:
            integrator = self._target_gdpt
        frames = []
        for seed in spec.target_seeds:
            spp = self.plan.spp_behind_target // renders
            frames.append(self._render(integrator, sensor, spec, spp, seed))
            bad += integrator.nonfinite_samples
        import torch

        variances = [frame[PRIMAL + VARIANCE_SUFFIX][..., 0] for frame in frames]
        variance = torch.stack(variances).sum(0) / renders**2  # of the mean of the targets
        return RenderedCrop(spec, noisy, torch.stack(self._targets(frames)), variance, bad)

    def _targets(self, frames: list[FrameBuffers]) -> list[torch.Tensor]:
        from mitsuba_gdpt.denoisers import denoise
        from mitsuba_gdpt.denoisers.halves import reconstruct_halves

        if self.plan.target == "gdpt-l2":
            return list(reconstruct_halves(*frames))
        if self.plan.target == "gdpt-l1":
            # The solver does not know that radiance is never negative.
            return [denoise(frame, "poisson-l1").clamp(min=0) for frame in frames]
        return [frame[PRIMAL] for frame in frames]

    def _render(
        self, integrator: mi.Integrator, sensor: mi.Sensor, spec: CropSpec, spp: int, seed: int
    ) -> FrameBuffers:
        where = f"scene {spec.scene!r}, crop {spec.index}, {spp} spp, seed {seed}"
        try:
            frame = rendering.render(self.source, integrator, spp=spp, seed=seed, sensor=sensor)
            frame.validate()
        except NonFiniteError as error:
            raise NonFiniteError(f"{where}: {error}") from error
        except RuntimeError as error:
            raise RuntimeError(f"{where}: {error}") from error
        return frame


def make_sensor(spec: CropSpec) -> mi.Sensor:
    """Return a sensor that sees a crop, for use with kernels that other crops have compiled.

    A crop of a pinhole camera's picture is the whole picture of another pinhole camera, with a
    narrower field of view and a shifted principal point. Both are data for the kernels, whereas
    Mitsuba's perspective camera makes constants of the size of the full frame.

    A thin lens camera has no principal point, but takes the film's crop window as data; its lens
    radius and focus become data here. Its frame is made square: otherwise the scales of both axes
    are equal or not, by rounding, and where they are, Mitsuba shares one variable between them,
    which makes it another kernel.
    """
    import drjit as dr
    import mitsuba as mi

    camera: dict[str, Any] = spec.camera.as_dict()
    (width, height), (x, y), size = spec.frame, spec.offset, spec.size
    film = scenes.film(size, size)
    if spec.camera.aperture:
        side = max(width, height)  # both are even, so that the crop is moved by whole pixels
        film = scenes.film(
            side,
            side,
            crop_width=size,
            crop_height=size,
            crop_offset_x=x + (side - width) // 2,
            crop_offset_y=y + (side - height) // 2,
        )
    else:
        extent = math.tan(math.radians(spec.camera.fov) / 2) * size / max(width, height)
        camera |= {
            "fov": math.degrees(2 * math.atan(extent)),
            # From the middle of the frame to that of the crop, in units of the crop.
            "principal_point_offset_x": (x + size / 2 - width / 2) / size,
            "principal_point_offset_y": (y + size / 2 - height / 2) / size,
        }
    sensor = mi.load_dict(camera | {"film": film, "sampler": {"type": "independent"}})
    parameters = mi.traverse(sensor)
    for name in _CONSTANTS:
        if name in parameters:
            # Changes the sensor's own variable, without what update() would compute anew.
            dr.make_opaque(parameters[name])
    return sensor
