"""The network of ``ngpt-fusion``: how far a gradient can be trusted, one number per difference.

A U-Net of two levels. Gradients in y are handled by the same filters as those in x, on the
transposed image: what makes a gradient worth trusting does not depend on its direction, and there
is half as much to learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from mitsuba_gdpt.denoisers.networks.layers import Convolution

_SLOPE = 0.1  # of the leaky ReLU


@dataclass(frozen=True)
class FusionWeightsConfig:
    """Sizes of the network.

    Attributes:
        directed: Input channels that belong to one direction; there are as many for x as for y.
        shared: Input channels that belong to none.
        width: Channels at full resolution; twice as many at half.
    """

    directed: int = 0
    shared: int = 0
    width: int = 24

    #: What height and width of the input have to be multiples of.
    alignment = 2
    #: How far, in pixels, an input can influence the output.
    radius = 10

    @property
    def inputs(self) -> int:
        """Channels of the input: those for x, those for y, those for neither."""
        return 2 * self.directed + self.shared


class FusionWeights(nn.Module):
    """(N, H, W, inputs) to (N, H, W, 2): one value for the x, one for the y direction.

    Starts with zeros.
    """

    def __init__(self, config: FusionWeightsConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.fine = nn.ModuleList(
            [Convolution(config.inputs, width, 3), Convolution(width, width, 3)]
        )
        self.coarse = nn.ModuleList(
            [Convolution(width, 2 * width, 3), Convolution(2 * width, 2 * width, 3)]
        )
        self.merge = Convolution(3 * width, width, 3)
        self.head = Convolution(width, 1, 1, zero=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the network; height and width are even."""
        return torch.cat([self._one(x, turned=False), self._one(x, turned=True)], dim=-1)

    def _one(self, x: torch.Tensor, *, turned: bool) -> torch.Tensor:
        """Return the values of one direction, (N, H, W, 1).

        Transposed filters on the image are the filters on the transposed image, without a copy.
        """
        config = self.config
        order = None
        if turned:  # what belongs to the other direction stands first
            both = [*range(2 * config.directed)]
            along, across = both[: config.directed], both[config.directed :]
            order = [*across, *along, *range(2 * config.directed, config.inputs)]
        x = x.permute(0, 3, 1, 2)
        first, *others = self.fine
        x = _filtered(x, first, turned=turned, order=order)
        for layer in others:
            x = _filtered(x, layer, turned=turned)
        y = functional.avg_pool2d(x, 2)
        for layer in self.coarse:
            y = _filtered(y, layer, turned=turned)
        y = functional.interpolate(y, scale_factor=2)
        x = torch.cat([x, y], dim=1)
        x = _filtered(x, self.merge, turned=turned)
        return torch.as_tensor(self.head(x.permute(0, 2, 3, 1)))


def _filtered(
    x: torch.Tensor, layer: nn.Module, *, turned: bool, order: list[int] | None = None
) -> torch.Tensor:
    """Apply a layer, or its transposed filters, and the activation to (N, C, H, W).

    Args:
        x: Input.
        layer: A :class:`~mitsuba_gdpt.denoisers.networks.layers.Convolution`.
        turned: Transpose the filters.
        order: Which channel of the input each of the layer's stands for; by default the same.
    """
    assert isinstance(layer, Convolution)
    weight = layer.effective_weight()
    if order is not None:
        filters = torch.empty_like(weight)
        filters[:, order] = weight
        weight = filters
    weight = weight.transpose(2, 3) if turned else weight
    y = functional.conv2d(x, weight, layer.bias, padding=weight.shape[-1] // 2)
    return functional.leaky_relu(y, _SLOPE, inplace=True)
