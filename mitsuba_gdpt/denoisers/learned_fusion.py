r"""``ngpt-fusion``: the method ``oidn-fusion`` with weights that a network predicts.

What :mod:`mitsuba_gdpt.denoisers.fusion` derives from the variance of a gradient alone, this model
derives from all that speaks for or against it: the noise around it, how far it contradicts the
guide's image, what albedo, normal and depth do there. Noise is what contradicts itself in the
buffers (:mod:`mitsuba_gdpt.denoisers.noise`): variances need not be rendered. Networks that saw
rendered ones besides, or instead, were no better. The network returns logarithms of factors on
the weights, nothing else: wherever it is wrong, the result is still a fusion of two good sources.

All inputs are relative to the brightness of the guide's image, so the exposure does not matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from mitsuba_gdpt.channels import DIFFERENCE_AXES, PRIMAL, Layout
from mitsuba_gdpt.denoisers import fusion, noise
from mitsuba_gdpt.denoisers.exposure import exposure_scale
from mitsuba_gdpt.denoisers.inputs import (
    difference,
    mean_square,
    planar,
    require,
    window_mean,
)
from mitsuba_gdpt.denoisers.models import Model, converge
from mitsuba_gdpt.denoisers.networks import FusionWeights, FusionWeightsConfig

_FLOOR = 1e-4  # of what is shown as a logarithm: a relative standard deviation of one per cent
_LOGARITHM = 0.25  # scale of logarithms, so that inputs are about 1
_LARGEST = 3.0  # relative deviations beyond it look the same
_DEPTH_EPSILON = 1e-3
#: Smallest logit: a weight of a four-hundredth is as good as none.
_LEAST_LOGIT = -6.0
#: Slope below it: a network that has lost all trust must be able to gain it again.
_LEAK = 0.02

#: Channels of :func:`features`, per direction and besides.
DIRECTED, SHARED = 11, 4


@dataclass(frozen=True)
class FusionModelConfig:
    """The model.

    Attributes:
        guides: The one method whose image is fused with the gradients.
        width: Channels of the network at full resolution.
        consistency: See :class:`~mitsuba_gdpt.denoisers.models.DenseModelConfig`.
    """

    guides: tuple[str, ...] = (fusion.GUIDE,)
    width: int = 24
    consistency: float = 0.005

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the buffers that the model reads: what every render has."""
        return (*noise.SOURCES, "albedo", "normal", "depth")

    @property
    def network(self) -> FusionWeightsConfig:
        """Sizes of the network."""
        return FusionWeightsConfig(DIRECTED, SHARED, self.width)


class FusionModel(Model):
    """Fusion with predicted weights; see the module."""

    def __init__(self, config: FusionModelConfig) -> None:
        super().__init__()
        self.config = config
        self.guides, self.needs = config.guides, config.needs
        self.network = FusionWeights(config.network)

    def forward(
        self,
        data: torch.Tensor,
        layout: Layout,
        guides: torch.Tensor | None = None,
        *,
        shift: tuple[int, int] = (0, 0),
        depth_scale: torch.Tensor | None = None,
        memory: float | None = None,
    ) -> torch.Tensor:
        """Reconstruct images; see :meth:`Model.forward`. ``shift``, ``depth_scale``: no effect."""
        require(self.needs, layout)
        chosen = self._choose(guides, self.guides)
        assert chosen is not None  # there is one
        image, data = planar(chosen[:, 0]), planar(data)
        variances = noise.estimated(data, layout)
        x = features(data, layout, image, variances)
        height, width = x.shape[1:3]
        aligned = self.config.network.alignment
        padding = (0, 0, 0, -width % aligned, 0, -height % aligned)
        logits = self._run(functional.pad(x, padding), memory).float()[:, :height, :width]
        logits = _LEAST_LOGIT + functional.leaky_relu(logits - _LEAST_LOGIT, _LEAK)
        image = fusion.fuse_gradients(
            image, data, layout, logits, variances, limited=not self.training
        )
        if not self.config.consistency:
            return image
        primal = data[..., layout.slices[PRIMAL]]
        return converge(image, primal, variances[PRIMAL], self.config.consistency)

    def _run(self, x: torch.Tensor, memory: float | None) -> torch.Tensor:
        """Apply the network."""
        size = self.config.network
        floats = 2 * size.inputs + 8 * size.width
        return self._in_tiles(
            self.network,
            x,
            floats=floats,
            alignment=size.alignment,
            radius=size.radius,
            memory=memory,
        )


def features(
    data: torch.Tensor, layout: Layout, image: torch.Tensor, variances: noise.Variances
) -> torch.Tensor:
    """Make the input of the network.

    Args:
        data: (N, H, W, C) buffers.
        layout: Meaning of C.
        image: (N, H, W, 3) radiance of the guide.
        variances: Those of the primal, dx and dy.

    Returns:
        (N, H, W, 2 :data:`DIRECTED` + :data:`SHARED`): what belongs to dx, to dy, to neither.
    """
    buffers = {name: data[..., part] for name, part in layout.slices.items()}
    primal = buffers[PRIMAL]
    brightness = fusion.brightness(image, primal)
    directed = []
    for name, dim in DIFFERENCE_AXES.items():
        variance = variances[name] / brightness.square()
        gradient = buffers[name] / brightness
        expected = difference(image, dim) / brightness
        residual = gradient - expected
        squared = mean_square(residual)
        depth = buffers["depth"]
        directed += [
            _log(variance),
            _log(window_mean(variance, 5)),
            _log(window_mean(variance, 3)),
            _log(squared),
            _log(window_mean(squared, 3)),
            residual.mean(-1, keepdim=True).clamp(-_LARGEST, _LARGEST),
            _log(mean_square(expected)),
            _log(mean_square(gradient)),
            _log(3 * mean_square(difference(buffers["albedo"], dim))),
            _log(3 * mean_square(difference(buffers["normal"], dim))),
            _log((difference(depth, dim) / (depth + _DEPTH_EPSILON)).square()),
        ]
    variance = variances[PRIMAL] / brightness.square()
    deviation = (primal - image).mean(-1, keepdim=True) / brightness
    shared = [
        _log(variance),
        _log(window_mean(variance, 5)),
        deviation.clamp(-_LARGEST, _LARGEST),
        (brightness * exposure_scale(primal)).log() * _LOGARITHM,
    ]
    return torch.cat([*directed, *shared], dim=-1)


def _log(x: torch.Tensor) -> torch.Tensor:
    return (x + _FLOOR).log() * _LOGARITHM
