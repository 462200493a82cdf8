r"""KPCN: one filter per pixel, predicted by two networks, for the diffuse and the specular part.

S. Bako et al., *Kernel-Predicting Convolutional Networks for Denoising Monte Carlo Renderings*,
ACM TOG 36(4), 2017. It uses no gradients of radiance and is here for comparison. With the diffuse
part :math:`c_d`, the specular part :math:`c_s` and the albedo :math:`f`, the networks filter
:math:`c_d / (f + 0.00316)` and :math:`\log(1 + c_s)` (section 4.1); the results are multiplied and
exponentiated back and added.

Inputs of each network (34 channels): the part, its forward differences in x and y, its variance;
normal, depth and albedo, each with forward differences and variance. Depth and its variance are
divided by the frame's maximum (and its square).

Differences from the paper: variances here are means over RGB, so that those of the parts are
divided by the mean of the squared albedo factor and of :math:`(1 + c_s)^2`; and the two networks
are trained together from the start.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mitsuba_gdpt.channels import DIFFERENCE_AXES, VARIANCE_SUFFIX, Layout, buffer
from mitsuba_gdpt.denoisers.images import difference
from mitsuba_gdpt.denoisers.learned.features import require
from mitsuba_gdpt.denoisers.learned.model import How, Model, ModelConfig
from mitsuba_gdpt.denoisers.learned.networks import (
    KernelNetwork,
    KernelNetworkConfig,
    apply_kernels,
)

ALBEDO_EPSILON = 0.00316
_NEAREST = 1e-18  # depth that counts as none, in any unit; its square is a float32
_PARTS = ("diffuse", "specular")
_AUXILIARY = ("normal", "depth", "albedo")


@dataclass(frozen=True)
class KPCNConfig(ModelConfig):
    """Sizes of both networks; the defaults are those of the paper.

    Attributes:
        layers: Convolutions, the last included.
        width: Channels between them.
        filter: Rows and columns of the convolutions, odd.
        kernel: Rows and columns of the predicted filters, odd.
    """

    layers: int = 9
    width: int = 100
    filter: int = 5
    kernel: int = 21

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the buffers that the model reads."""
        names = (*_PARTS, *_AUXILIARY)
        return (*names, *(name + VARIANCE_SUFFIX for name in names))

    @property
    def network(self) -> KernelNetworkConfig:
        """Sizes of one network."""
        inputs = sum(3 * len(buffer(name)) + 1 for name in ("diffuse", *_AUXILIARY))
        return KernelNetworkConfig(inputs, self.layers, self.width, self.filter, self.kernel)


class KPCN(Model):
    """Reconstruction by predicted filters; see the module."""

    guides = ()

    def __init__(self, config: KPCNConfig) -> None:
        super().__init__()
        self.config = config
        self.needs = config.needs
        self.diffuse = KernelNetwork(config.network)
        self.specular = KernelNetwork(config.network)

    def image(
        self, data: torch.Tensor, layout: Layout, guides: torch.Tensor | None, how: How
    ) -> torch.Tensor:
        """See :meth:`Model.image`; shifts mean nothing here."""
        diffuse, specular, albedo = preprocess(data, layout, how.depth_scale)
        diffuse = self._filter(self.diffuse, diffuse, how.memory)
        specular = self._filter(self.specular, specular, how.memory)
        return diffuse * albedo + specular.expm1()

    def _filter(
        self, network: KernelNetwork, x: torch.Tensor, memory: float | None
    ) -> torch.Tensor:
        """Filter the first three channels of a network's input."""

        def run(tile: torch.Tensor) -> torch.Tensor:
            logits = network(tile).float()
            with torch.autocast(tile.device.type, enabled=False):
                return apply_kernels(tile[..., :3], logits)

        size = network.config
        # Logits, their softmax, one filter row's products, and two layers.
        floats = 2 * size.kernel**2 + 6 * size.kernel + 2 * size.width + size.inputs
        return self._in_tiles(run, x, floats=floats, alignment=1, radius=size.radius, memory=memory)


def preprocess(
    data: torch.Tensor, layout: Layout, depth_scale: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make the inputs of the two networks.

    Args:
        data: (N, H, W, C) buffers with the parts, features and their variances.
        layout: Meaning of C.
        depth_scale: (N,) factors on the normalised depth; for training.

    Returns:
        (N, H, W, 34) input of the diffuse network, the same of the specular one (the first three
        channels of each are what it filters), and the (N, H, W, 3) factor on the former's result.

    Raises:
        LayoutError: A buffer is missing.
    """
    slices = layout.slices
    needs = KPCNConfig().needs
    require(needs, layout)
    values = {name: data[..., slices[name]] for name in needs}
    variances = {name: values[name + VARIANCE_SUFFIX] for name in (*_PARTS, *_AUXILIARY)}

    factor = values["albedo"] + ALBEDO_EPSILON
    diffuse = values["diffuse"] / factor
    diffuse_variance = variances["diffuse"] / factor.square().mean(-1, keepdim=True)
    clamped = values["specular"].clamp_min(0)  # it is a difference, and may round to below 0
    specular = clamped.log1p()
    specular_variance = variances["specular"] / (1 + clamped).square().mean(-1, keepdim=True)

    largest = values["depth"].amax((1, 2, 3), keepdim=True).clamp_min(_NEAREST)
    if depth_scale is not None:
        largest = largest / depth_scale[:, None, None, None]
    values["depth"] = values["depth"] / largest
    variances["depth"] = variances["depth"] / largest.square()
    shared = [
        part for name in _AUXILIARY for part in _with_gradients(values[name], variances[name])
    ]
    return (
        torch.cat([*_with_gradients(diffuse, diffuse_variance), *shared], dim=-1),
        torch.cat([*_with_gradients(specular, specular_variance), *shared], dim=-1),
        factor,
    )


def _with_gradients(x: torch.Tensor, variance: torch.Tensor) -> list[torch.Tensor]:
    """Return x, its forward differences (0 in the last column and row), and the variance."""
    return [x, *(difference(x, dim) for dim in DIFFERENCE_AXES.values()), variance]
