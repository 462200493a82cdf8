"""The network of KPCN: a plain stack of convolutions that predicts one filter per pixel.

S. Bako et al., *Kernel-Predicting Convolutional Networks for Denoising Monte Carlo Renderings*,
ACM TOG 36(4), 2017: nine layers of 100 5x5 filters, of which the last has 21x21 outputs; a softmax
makes them weights of the pixel's neighbourhood.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from mitsuba_gdpt.errors import ConfigError


@dataclass(frozen=True)
class KernelNetworkConfig:
    """Sizes; the defaults are those of the paper.

    Attributes:
        inputs: Input channels.
        layers: Convolutions, the last included.
        width: Channels between them.
        filter: Rows and columns of the convolutions, odd.
        kernel: Rows and columns of the predicted filters, odd.
    """

    inputs: int
    layers: int = 9
    width: int = 100
    filter: int = 5
    kernel: int = 21

    def __post_init__(self) -> None:
        """Refuse sizes that make no sense.

        Raises:
            ConfigError: A value is out of range or even.
        """
        if min(self.inputs, self.layers, self.width, self.filter, self.kernel) < 1:
            raise ConfigError(f"sizes must be 1 or more; got {self}")
        if self.filter % 2 == 0 or self.kernel % 2 == 0:
            raise ConfigError(f"filter and kernel must be odd; got {self.filter}, {self.kernel}")

    @property
    def radius(self) -> int:
        """How far an input can influence the filtered image, in pixels."""
        return self.layers * (self.filter // 2) + self.kernel // 2


class KernelNetwork(nn.Sequential):
    """(N, H, W, inputs) to (N, H, W, kernel * kernel) logits, row by row of the filter."""

    def __init__(self, config: KernelNetworkConfig) -> None:
        layers: list[nn.Module] = []
        channels = config.inputs
        for _ in range(config.layers - 1):
            layers += [_convolution(channels, config.width, config.filter), nn.ReLU(inplace=True)]
            channels = config.width
        layers.append(_convolution(channels, config.kernel**2, config.filter))
        super().__init__(*layers)
        self.config = config

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the network; see the class."""
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def apply_kernels(image: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    r"""Filter an image with a softmax filter per pixel.

    Works on one row of all filters at a time: the intermediate product has k and not k² times the
    size of the image.

    Args:
        image: (N, H, W, c); beyond the border the nearest pixel is repeated.
        logits: (N, H, W, k * k), k odd; entry :math:`k i + j` belongs to the neighbour
            :math:`i - \lfloor k/2 \rfloor` rows below and :math:`j - \lfloor k/2 \rfloor` columns
            to the right.

    Returns:
        (N, H, W, c)
    """
    size = round(logits.shape[-1] ** 0.5)
    if size * size != logits.shape[-1] or size % 2 == 0:
        raise ConfigError(f"got {logits.shape[-1]} logits per pixel; expected an odd square")
    height, half = image.shape[1], size // 2
    padded = functional.pad(image.permute(0, 3, 1, 2), (half,) * 4, mode="replicate")
    weights = logits.softmax(dim=-1).unflatten(-1, (size, size))
    result = torch.zeros_like(image)
    for row in range(size):
        # (N, c, H, W, k) view: the k pixels that a filter row reads, for every pixel
        windows = padded[:, :, row : row + height].unfold(3, size, 1)
        result = result + torch.einsum("nchwk,nhwk->nhwc", windows, weights[..., row, :])
    return result


def _convolution(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias) if layer.bias is not None else None
    return layer
