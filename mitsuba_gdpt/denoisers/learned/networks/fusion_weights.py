"""The network of ``ngpt-fusion``: how far a gradient can be trusted, one number per difference.

A U-Net of two levels, on pixels or on blocks of them. Gradients in y are handled by the same
filters as those in x, transposed: what makes a gradient worth trusting does not depend on its
direction, and there is half as much to learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from mitsuba_gdpt.denoisers.learned.networks.layers import Convolution

_SLOPE = 0.1  # of the leaky ReLU


@dataclass(frozen=True)
class FusionWeightsConfig:
    """Sizes of the network.

    The input has the channels that belong to x, those that belong to y, those that belong to
    neither. In each of the three, quantities of single pixels come first, row by row for the pixels
    of a block, then those of the block.

    Attributes:
        directed: Input channels that belong to one direction; there are as many for x as for y.
        shared: Input channels that belong to none.
        width: Channels at the resolution of the input; twice as many at half of that.
        patch: Side of the blocks of pixels that a position of the input stands for; 1 or 2.
        directed_pixels: Of the ``directed`` quantities, how many are there for each pixel of a
            block; with blocks only.
        shared_pixels: Of the ``shared`` ones.
    """

    directed: int = 0
    shared: int = 0
    width: int = 24
    patch: int = 1
    directed_pixels: int = 0
    shared_pixels: int = 0

    #: What height and width of the input have to be multiples of.
    alignment = 2
    #: How far, in positions of the input, one of them can influence the output.
    radius = 10

    @property
    def inputs(self) -> int:
        """Channels of the input: those for x, those for y, those for neither."""
        return 2 * self.directed + self.shared

    @property
    def pixels(self) -> int:
        """Pixels of a block."""
        return self.patch**2

    def turned(self) -> list[int]:
        """Return which channel of the input stands where in that of the transposed image."""
        along = self._turned_part(self.directed, self.directed_pixels)
        shared = self._turned_part(self.shared, self.shared_pixels)
        return [
            *(self.directed + i for i in along),
            *along,
            *(2 * self.directed + i for i in shared),
        ]

    def turned_block(self) -> list[int]:
        """Return which pixel of a block stands where in that of the transposed image."""
        side = range(self.patch)
        return [self.patch * column + row for row in side for column in side]

    def _turned_part(self, channels: int, quantities: int) -> list[int]:
        block = self.turned_block()
        moved = [self.pixels * q + i for q in range(quantities) for i in block]
        return [*moved, *range(len(moved), channels)]


class FusionWeights(nn.Module):
    """(N, h, w, inputs) to (N, h, w, 2 pixels): for x, then for y, of each pixel, row by row.

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
        self.head = Convolution(width, config.pixels, 1, zero=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the network; height and width are even."""
        values = [self._one(x, turned=False), self._one(x, turned=True)]
        return torch.cat(values, dim=1).permute(0, 2, 3, 1)

    def _one(self, x: torch.Tensor, *, turned: bool) -> torch.Tensor:
        """Return the values of one direction, (N, pixels, h, w).

        Transposed filters on the image are the filters on the transposed image, without a copy.
        """
        x = x.permute(0, 3, 1, 2)
        first, *others = self.fine
        x = _filtered(x, first, turned=turned, order=self.config.turned() if turned else None)
        for layer in others:
            x = _filtered(x, layer, turned=turned)
        y = functional.avg_pool2d(x, 2)
        for layer in self.coarse:
            y = _filtered(y, layer, turned=turned)
        x = _merged(x, y, self.merge, turned=turned)
        y = torch.as_tensor(self.head(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        return y[:, self.config.turned_block()] if turned else y


def _merged(x: torch.Tensor, y: torch.Tensor, layer: Convolution, *, turned: bool) -> torch.Tensor:
    """Apply a layer of 3x3 filters, and the activation, to x beside y at twice its resolution.

    The values of y are never repeated, nor both made one: each spreads over 4x4 pixels, with
    filters that hold the sums of what would be the same value. A transposed convolution does that.

    Args:
        x: (N, C, 2h, 2w).
        y: (N, c, h, w).
        layer: For C + c channels.
        turned: Transpose the filters.
    """
    weight = layer.effective_weight()
    weight = weight.transpose(2, 3) if turned else weight
    fine, coarse = weight.split([x.shape[1], y.shape[1]], dim=1)
    result = functional.conv2d(x, fine, layer.bias, padding=1)
    result += functional.conv_transpose2d(y, _spread(coarse), stride=2, padding=1)
    return functional.leaky_relu(result, _SLOPE, inplace=True)


def _spread(weight: torch.Tensor) -> torch.Tensor:
    """Return 4x4 filters of a transposed convolution, (c, C, 4, 4), that do what 3x3 filters would.

    Args:
        weight: (C, c, 3, 3), of a convolution that sees each value in a block of 2x2 pixels.
    """
    spread = weight.flip(2, 3).transpose(0, 1)
    spread = functional.pad(spread, (0, 1)) + functional.pad(spread, (1, 0))
    return functional.pad(spread, (0, 0, 0, 1)) + functional.pad(spread, (0, 0, 1, 0))


def _filtered(
    x: torch.Tensor, layer: nn.Module, *, turned: bool, order: list[int] | None = None
) -> torch.Tensor:
    """Apply a layer, or its transposed filters, and the activation to (N, C, H, W).

    Args:
        x: Input.
        layer: A :class:`~mitsuba_gdpt.denoisers.learned.networks.layers.Convolution`.
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
