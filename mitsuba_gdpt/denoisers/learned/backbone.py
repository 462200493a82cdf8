r"""``ngpt-backbone``: OIDN's network in torch, and an adapter that reads the gradients.

A network that starts as OIDN makes its image in one pass and learns end to end, where
``ngpt-fusion`` can only correct what OIDN has made. Without training the image *is* the library's,
up to rounding. Only what is learned is stored; the weights of the base are read from the installed
library.

Radiance goes through the library's exposure and transfer function, whose constants are those of its
public source (``core/color``). The adapter sees, besides what the base sees, the gradients and what
contradicts them, relative to the brightness around.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.nn import functional

from mitsuba_gdpt.channels import DIFFERENCE_AXES, PRIMAL, Layout
from mitsuba_gdpt.denoisers.classical import oidn_weights
from mitsuba_gdpt.denoisers.images import difference, mean_square, planar, window_mean
from mitsuba_gdpt.denoisers.learned.features import require
from mitsuba_gdpt.denoisers.learned.model import How, Model, ModelConfig, converge
from mitsuba_gdpt.denoisers.learned.networks.oidn_unet import (
    ALIGNMENT,
    INPUTS,
    RADIUS,
    AdapterConfig,
    OIDNNetwork,
)
from mitsuba_gdpt.denoisers.variances import SAMPLED, Variances, estimated_variances
from mitsuba_gdpt.errors import ConfigError

# The transfer function: linear, a power, a logarithm.
_A, _B, _C, _D = 1.41283765e03, 1.64593172, 0.431384981, -2.94139609e-3
_E, _F, _G = 0.192653254, 6.26026094e-3, 0.998620152
_Y0, _Y1 = 1.5794576e-6, 3.22087631e-2
_X0, _X1 = 2.23151711e-3, 0.370974749
_MOST_RADIANCE = 65504.0

_LUMINANCE = (0.212671, 0.715160, 0.072169)
_KEY = 0.18
_BLOCK = 16
_BLACK = 1e-8

_AROUND = 5  # pixels
_EPSILON = 0.01  # brightness, at the library's exposure, below which nothing is relative to it
_FLOOR, _LOGARITHM = 1e-4, 0.25
__all__ = [
    "EVIDENCE",
    "INPUTS",
    "RADIUS",
    "BackboneConfig",
    "BackboneModel",
    "decode",
    "encode",
    "evidence",
    "exposure",
]

#: Channels of :func:`evidence`.
EVIDENCE = 11
#: Activations per pixel, for tiles, of the larger network.
_FLOATS = 400


@dataclass(frozen=True)
class BackboneConfig(ModelConfig):
    """The model.

    Attributes:
        base: Which of the library's networks; a key of ``oidn_weights.HASHES``.
        adapter: Channels of the adapter at a half, a quarter, an eighth and a sixteenth of the
            resolution; none for the base alone.
        tuned: Whether the weights of the base are learned too, as differences.
        consistency: See :class:`~mitsuba_gdpt.denoisers.learned.dense.DenseModelConfig`.
    """

    base: str = "hdr_alb_nrm"
    adapter: tuple[int, ...] = field(default=(24, 32, 40, 48))
    tuned: bool = False
    consistency: float = 0.005

    def __post_init__(self) -> None:
        """Refuse what there is no network for.

        Raises:
            ConfigError: The base is unknown, or the adapter has another number of levels.
        """
        if self.base not in oidn_weights.HASHES:
            known = ", ".join(oidn_weights.HASHES)
            raise ConfigError(f"base is {self.base!r}; expected one of: {known}")
        if self.adapter and len(self.adapter) != len(AdapterConfig().widths):
            raise ConfigError(f"adapter is {self.adapter}; expected four widths, or none")

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the buffers that the model reads."""
        gradients = SAMPLED if self.adapter or self.consistency else (PRIMAL,)
        return (*gradients, "albedo", "normal")


class BackboneModel(Model):
    """OIDN's network with an adapter; see the module.

    Raises:
        MissingDependencyError: The library is not installed.
        WeightsError: It is another version.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.guides, self.needs = (), config.needs
        adapter = AdapterConfig(EVIDENCE, config.adapter) if config.adapter else None
        self.network = OIDNNetwork(oidn_weights.read(config.base), adapter, tuned=config.tuned)

    def image(
        self, data: torch.Tensor, layout: Layout, guides: torch.Tensor | None, how: How
    ) -> torch.Tensor:
        """See :meth:`Model.image`; variations mean nothing here."""
        require(self.needs, layout)
        data = planar(data)
        buffers = {name: data[..., layout.slices[name]] for name in self.needs}
        primal = buffers[PRIMAL]
        scale = exposure(primal)
        seen = [
            encode(primal * scale),
            buffers["albedo"].clamp(0, 1),
            buffers["normal"].clamp(-1, 1) * 0.5 + 0.5,
        ]
        variances = None
        if self.config.adapter or self.config.consistency:
            variances = estimated_variances(data, layout)
        if self.config.adapter:
            assert variances is not None
            seen.append(evidence(data, layout, scale, variances))
        height, width = data.shape[1:3]
        x = torch.cat([part.permute(0, 3, 1, 2) for part in seen], dim=1)
        rest = (0, -width % ALIGNMENT, 0, -height % ALIGNMENT)
        x = functional.pad(x, rest, mode="replicate") if any(rest) else x
        y = self._run(x.permute(0, 2, 3, 1).contiguous(), how.memory)[:, :height, :width]
        image = decode(y.float()) / scale
        if self.config.consistency:
            assert variances is not None
            image = converge(image, primal, variances[PRIMAL], self.config.consistency)
        return image

    def _run(self, x: torch.Tensor, memory: float | None) -> torch.Tensor:
        """Apply the network."""
        return self._in_tiles(
            self.network, x, floats=_FLOATS, alignment=ALIGNMENT, radius=RADIUS, memory=memory
        )


def evidence(
    data: torch.Tensor, layout: Layout, scale: torch.Tensor, variances: Variances
) -> torch.Tensor:
    """Return what the gradients say, relative to the brightness around, (N, H, W, EVIDENCE).

    Args:
        data: (N, H, W, C) buffers.
        layout: Meaning of C.
        scale: (N, 1, 1, 1) exposure.
        variances: Those of the primal, dx and dy.
    """
    primal = data[..., layout.slices[PRIMAL]]
    mean = primal.clamp_min(0).mean(-1, keepdim=True)
    factor = (window_mean(mean, _AROUND) + _EPSILON / scale).reciprocal()

    def logarithm(x: torch.Tensor) -> torch.Tensor:
        return (x + _FLOOR).log() * _LOGARITHM

    parts = [logarithm(variances[PRIMAL] * factor.square())]
    for name, dim in DIFFERENCE_AXES.items():
        if name not in SAMPLED:
            continue
        gradient = data[..., layout.slices[name]]
        parts += [
            torch.asinh(2 * gradient * factor),
            logarithm(variances[name] * factor.square()),
            logarithm(mean_square((difference(primal, dim) - gradient) * factor)),
        ]
    return torch.cat(parts, dim=-1)


def encode(radiance: torch.Tensor) -> torch.Tensor:
    """Apply the library's transfer function; negative radiance counts as 0."""
    return _curve(radiance.clamp_min(0)) / _curve(radiance.new_tensor(_MOST_RADIANCE))


def decode(values: torch.Tensor) -> torch.Tensor:
    """Undo :func:`encode`; negative values count as 0."""
    x = values.clamp_min(0) * _curve(values.new_tensor(_MOST_RADIANCE))
    power = ((x.clamp(_X0, _X1) - _D) / _B).pow(1 / _C)
    # Without the limit the derivative of the branch that is not taken overflows.
    logarithm = ((x.clamp_min(_X1) - _G) / _E).exp() - _F
    return torch.where(x <= _X0, x / _A, torch.where(x <= _X1, power, logarithm))


def _curve(y: torch.Tensor) -> torch.Tensor:
    power = _B * y.clamp(_Y0, _Y1).pow(_C) + _D
    logarithm = _E * (y.clamp_min(_Y1) + _F).log() + _G
    return torch.where(y <= _Y0, _A * y, torch.where(y <= _Y1, power, logarithm))


def exposure(primal: torch.Tensor) -> torch.Tensor:
    """Return the factor on radiance that the library chooses by itself, (N, 1, 1, 1).

    Args:
        primal: (N, H, W, 3) radiance.
    """
    luminance = (primal.clamp_min(0) * primal.new_tensor(_LUMINANCE)).sum(-1)[:, None]
    height, width = luminance.shape[-2:]
    rows, columns = (max(1, -(-size // _BLOCK)) for size in (height, width))
    blocks = functional.adaptive_avg_pool2d(luminance, (rows, columns)).flatten(1)
    lit = blocks > _BLACK
    mean = torch.where(lit, blocks.clamp_min(_BLACK).log2(), 0.0).sum(1) / lit.sum(1).clamp_min(1)
    scale = torch.where(lit.any(1), _KEY / mean.exp2(), torch.ones_like(mean))
    return scale[:, None, None, None]
