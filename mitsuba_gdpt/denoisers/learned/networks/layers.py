"""Layers with weight normalisation, on channel-last tensors (N, H, W, C).

All but the 3x3 convolution are matrix products over pixels. On channel-last memory these read a
slice of the channels of a larger tensor without copying it, which is what a dense block needs:
every unit reads all features that its level has so far.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

_EPSILON = 1e-8  # of the original: keeps a zero filter finite


class NormedConvolution(nn.Module):
    r"""Filters whose length is a parameter of its own, one per output channel.

    The effective filter is :math:`W s \sqrt 2 / \sqrt{10^{-8} + \sum W^2}`, with the sum over
    rows, columns and input channels, as in NGPT (Kettunen et al. 2019); ``s`` starts at 1, the
    bias at 0.

    Args:
        inputs: Input channels.
        outputs: Output channels.
        size: Rows and columns of the filter.
        zero: Start with filters of length 0, so that the layer returns zeros.
    """

    folded: bool

    def __init__(self, inputs: int, outputs: int, size: int = 1, *, zero: bool = False) -> None:
        super().__init__()
        self.folded = False
        self.weight = nn.Parameter(torch.empty(outputs, inputs, size, size))
        self.scale = nn.Parameter(torch.zeros(outputs) if zero else torch.ones(outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        # Only the direction counts.
        nn.init.normal_(self.weight, std=1 / math.sqrt(inputs * size * size))

    def effective_weight(self) -> torch.Tensor:
        """Return the filters that are applied, (outputs, inputs, size, size)."""
        if self.folded:
            return self.weight
        norm = self.weight.square().sum((1, 2, 3), keepdim=True).add(_EPSILON).rsqrt()
        return self.weight * (norm * (math.sqrt(2) * self.scale[:, None, None, None]))

    def fold(self) -> None:
        """Replace the filters by the effective ones, for inference; cannot be undone."""
        with torch.no_grad():
            self.weight.copy_(self.effective_weight())
        self.folded = True


def fold_weight_norm(module: nn.Module) -> None:
    """Fold the weight normalisation of all layers inside a module; see NormedConvolution."""
    for layer in module.modules():
        if isinstance(layer, NormedConvolution) and not layer.folded:
            layer.fold()


class Pointwise(NormedConvolution):
    """1x1 convolution: (N, H, W, inputs) -> (N, H, W, outputs)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer; ``x`` may be a slice of a wider channel-last tensor."""
        return functional.linear(x, self.effective_weight()[:, :, 0, 0], self.bias)


class Convolution(NormedConvolution):
    """Zero-padded convolution with an odd filter size: (N, H, W, inputs) -> (N, H, W, outputs)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer."""
        padding = self.weight.shape[-1] // 2
        # The permutation of a contiguous tensor is torch's "channels_last" format: no copy.
        y = functional.conv2d(
            x.permute(0, 3, 1, 2), self.effective_weight(), self.bias, padding=padding
        )
        return y.permute(0, 2, 3, 1)


class Down(NormedConvolution):
    """2x2 convolution with stride 2: (N, 2h, 2w, inputs) -> (N, h, w, outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer."""
        filters = self.effective_weight().permute(0, 2, 3, 1).flatten(1)
        return functional.linear(gather_blocks(x), filters, self.bias)


class Up(NormedConvolution):
    """Transposed 2x2 convolution with stride 2: (N, h, w, inputs) -> (N, 2h, 2w, outputs)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer."""
        filters = self.effective_weight().permute(2, 3, 0, 1).flatten(0, 2)
        return scatter_blocks(functional.linear(x, filters, self.bias.repeat(4)))


def gather_blocks(x: torch.Tensor, size: int = 2) -> torch.Tensor:
    """Move blocks of size x size pixels into channels: (N, sh, sw, C) -> (N, h, w, s*s*C)."""
    n, height, width, channels = x.shape
    blocks = x.reshape(n, height // size, size, width // size, size, channels)
    return blocks.permute(0, 1, 3, 2, 4, 5).reshape(
        n, height // size, width // size, size * size * channels
    )


def scatter_blocks(x: torch.Tensor, size: int = 2) -> torch.Tensor:
    """Undo :func:`gather_blocks`: (N, h, w, s*s*C) -> (N, sh, sw, C)."""
    n, height, width, channels = x.shape
    channels //= size * size
    blocks = x.reshape(n, height, width, size, size, channels)
    return blocks.permute(0, 1, 3, 2, 4, 5).reshape(n, height * size, width * size, channels)
