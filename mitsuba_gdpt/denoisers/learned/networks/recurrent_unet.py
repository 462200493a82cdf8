"""The recurrent denoising autoencoder: a U-Net with memory in every stage of its encoder.

C. R. A. Chaitanya et al., *Interactive Reconstruction of Monte Carlo Image Sequences using a
Recurrent Denoising Autoencoder*, ACM TOG 36(4), 2017. A stage is a 3x3 convolution and a recurrent
block, whose output is passed on three ways: pooled to the next stage, across to the decoder, and to
the same block in the next frame. Leaky ReLU follows every convolution but the last.

What differs from the original by configuration only: sizes, a head that starts at zero, and
``patch`` (the network then works on blocks of pixels, at a fraction of the cost).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from mitsuba_gdpt.denoisers.learned.networks.layers import gather_blocks, scatter_blocks
from mitsuba_gdpt.errors import ConfigError


@dataclass(frozen=True)
class RecurrentUNetConfig:
    """Sizes of a recurrent autoencoder; the defaults are those of the original.

    Attributes:
        inputs: Input channels.
        outputs: Output channels.
        stages: Channels of the stages of the encoder, finest first. The image is halved between
            them.
        decoder: Channels of the two convolutions at each resolution of the decoder but the finest,
            coarsest first.
        finest: Channels of the two convolutions at the finest resolution.
        slope: Of the leaky ReLU for negative values.
        zero_head: Start with a network that returns zeros.
        patch: Blocks of patch x patch pixels are moved into channels before the first stage.
    """

    inputs: int = 7
    outputs: int = 3
    stages: tuple[int, ...] = (32, 43, 57, 76, 101, 101)
    decoder: tuple[int, ...] = (76, 57, 43, 32)
    finest: tuple[int, ...] = (128, 64)
    slope: float = 0.1
    zero_head: bool = False
    patch: int = 1

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together.

        Raises:
            ConfigError: A list has the wrong length, or a channel count is less than 1.
        """
        if (
            len(self.stages) < 2
            or len(self.decoder) != len(self.stages) - 2
            or len(self.finest) != 2
        ):
            raise ConfigError(
                f"stages, decoder, finest have {len(self.stages)}, {len(self.decoder)}, "
                f"{len(self.finest)} entries; expected L, L-2, 2 for L >= 2 stages"
            )
        sizes = (self.inputs, self.outputs, self.patch, *self.stages, *self.decoder, *self.finest)
        if min(sizes) < 1:
            raise ConfigError(f"channel counts must be 1 or more; got {self}")

    @property
    def alignment(self) -> int:
        """Height and width of the input must be multiples of this."""
        return self.patch << (len(self.stages) - 1)


class RecurrentUNet(nn.Module):
    """The network; see the module."""

    def __init__(self, config: RecurrentUNetConfig) -> None:
        super().__init__()
        self.config = config
        blocks = config.patch**2
        widths = (config.stages[0], *config.stages)
        self.entry = _convolution(config.inputs * blocks, config.stages[0], config.slope)
        self.encoder = nn.ModuleList(
            _Stage(inputs, outputs, config.slope)
            for inputs, outputs in zip(widths, config.stages, strict=False)
        )
        self.decoder = nn.ModuleList()
        inputs = config.stages[-1]
        pairs = [(width, width) for width in config.decoder] + [config.finest]
        for skip, (first, second) in zip(config.stages[-2::-1], pairs, strict=True):
            self.decoder.append(_Pair(inputs + skip, first, second, config.slope))
            inputs = second
        self.exit = _convolution(inputs, config.outputs * blocks, 1.0)
        if config.zero_head:
            nn.init.zeros_(self.exit.weight)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(
        self, x: torch.Tensor, hidden: Sequence[torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Process one frame.

        Args:
            x: (N, H, W, inputs), H and W multiples of the alignment.
            hidden: What the frame before returned, perhaps warped; None for the first frame, which
                is the same as zeros.

        Returns:
            (N, H, W, outputs), and per stage (N, h, w, channels) with h = H / patch, H / 2 patch...
        """
        patch, slope = self.config.patch, self.config.slope
        if patch > 1:
            x = gather_blocks(x, patch)
        x = _activate(self.entry(x.permute(0, 3, 1, 2)), slope)
        outputs: list[torch.Tensor] = []
        for index, stage in enumerate(self.encoder):
            if index:
                x = functional.max_pool2d(x, 2)
            memory = None if hidden is None else hidden[index].permute(0, 3, 1, 2)
            x = stage(x, memory)
            outputs.append(x)
        for pair, skip in zip(self.decoder, outputs[-2::-1], strict=True):
            x = pair(torch.cat([functional.interpolate(x, scale_factor=2.0), skip], 1))
        y = self.exit(x).permute(0, 2, 3, 1)
        y = scatter_blocks(y, patch) if patch > 1 else y
        return y, tuple(output.permute(0, 2, 3, 1) for output in outputs)


class _Stage(nn.Module):
    """A convolution and a recurrent block, (N, inputs, h, w) -> (N, outputs, h, w)."""

    def __init__(self, inputs: int, outputs: int, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.entry = _convolution(inputs, outputs, slope)
        self.before = _convolution(outputs, outputs, slope)
        self.merge = _convolution(2 * outputs, outputs, slope)
        self.after = _convolution(outputs, outputs, slope)

    def forward(self, x: torch.Tensor, memory: torch.Tensor | None) -> torch.Tensor:
        x = _activate(self.entry(x), self.slope)
        x = _activate(self.before(x), self.slope)
        # Zeros rather than half of the filters: a graph that is the same for every frame.
        memory = torch.zeros_like(x) if memory is None else memory.to(x.dtype)
        x = _activate(self.merge(torch.cat([x, memory], 1)), self.slope)
        return _activate(self.after(x), self.slope)


class _Pair(nn.Module):
    """Two convolutions, (N, inputs, h, w) -> (N, second, h, w)."""

    def __init__(self, inputs: int, first: int, second: int, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.first = _convolution(inputs, first, slope)
        self.second = _convolution(first, second, slope)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _activate(self.second(_activate(self.first(x), self.slope)), self.slope)


def _convolution(inputs: int, outputs: int, slope: float) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.kaiming_uniform_(layer.weight, a=slope)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _activate(x: torch.Tensor, slope: float) -> torch.Tensor:
    return functional.leaky_relu(x, slope, inplace=True)
