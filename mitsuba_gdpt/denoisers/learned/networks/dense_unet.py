"""The dense U-Net of NGPT, and its smaller relatives.

M. Kettunen, E. Härkönen, J. Lehtinen, *Deep Convolutional Reconstruction for Gradient-Domain
Rendering*, ACM TOG 38(4), 2019. Four resolutions; on each, units of a 1x1 and a 3x3 convolution
append ``growth`` features to the list of all features of that level. After every convolution, the
last included, comes a leaky ReLU.

What differs from the original by configuration only: sizes, pooling, the activation of the head,
and ``patch`` (the network then works on blocks of pixels, at a fraction of the cost).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from mitsuba_gdpt.denoisers.learned.networks import resampling
from mitsuba_gdpt.denoisers.learned.networks.layers import (
    Convolution,
    Down,
    Pointwise,
    Up,
    gather_blocks,
    scatter_blocks,
)
from mitsuba_gdpt.errors import ConfigError

POOLS = ("conv", *resampling.DOWN)
UNPOOLS = ("conv", *resampling.UP)

#: Slope of the leaky ReLU between a 1x1 convolution and resampling that is none, in the original.
_RESAMPLING_SLOPE = 0.2


@dataclass(frozen=True)
class DenseUNetConfig:
    """Sizes of a dense U-Net; the defaults are those of the paper.

    Attributes:
        inputs: Input channels.
        outputs: Output channels.
        growth: Features that a unit appends, per level, finest first.
        units: Units per level before pooling; as many again after unpooling.
        down: Channels after the pooling that follows levels 0, 1, ...
        up: Channels after the unpooling that leads to levels 0, 1, ...
        pool: ``"conv"`` (2x2, stride 2), or ``"average"``, ``"max"`` or ``"lanczos"`` after a 1x1
            convolution.
        unpool: ``"conv"`` (transposed 2x2), or ``"bilinear"``, ``"nearest"`` or ``"lanczos"`` after
            a 1x1 convolution.
        slope: Of the leaky ReLU for negative values; 0.2 where resampling follows a 1x1
            convolution.
        head_activation: Whether the output passes through the leaky ReLU too.
        zero_head: Start with a network that returns zeros.
        patch: Blocks of patch x patch pixels are moved into channels before level 0.
    """

    inputs: int = 16
    outputs: int = 3
    growth: tuple[int, ...] = (40, 80, 80, 80)
    units: tuple[int, ...] = (4, 3, 2, 2)
    down: tuple[int, ...] = (160, 160, 160)
    up: tuple[int, ...] = (80, 160, 160)
    pool: str = "conv"
    unpool: str = "conv"
    slope: float = 0.01
    head_activation: bool = True
    zero_head: bool = False
    patch: int = 1

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together.

        Raises:
            ConfigError: A list has the wrong length, or a value is out of range.
        """
        levels = len(self.growth)
        lengths = (len(self.units), len(self.down) + 1, len(self.up) + 1)
        if not levels or any(length != levels for length in lengths):
            raise ConfigError(
                f"growth, units, down, up have {levels}, {lengths[0]}, {lengths[1] - 1}, "
                f"{lengths[2] - 1} entries; expected L, L, L-1, L-1 for L levels"
            )
        sizes = (self.inputs, self.outputs, self.patch, *self.growth, *self.down, *self.up)
        if min(sizes) < 1 or min(self.units) < 0:
            raise ConfigError(f"channel counts must be 1 or more, units 0 or more; got {self}")
        for name, choice in (("pool", POOLS), ("unpool", UNPOOLS)):
            if getattr(self, name) not in choice:
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}; expected one of {', '.join(choice)}"
                )

    @property
    def alignment(self) -> int:
        """Height and width of the input must be multiples of this."""
        return self.patch << len(self.down)

    @property
    def radius(self) -> int:
        """How far, in pixels, an input can influence the output, in each direction."""
        levels = range(len(self.units))
        convolutions = sum(2 * self.units[level] << level for level in levels)
        interpolation = sum(
            (resampling.REACH.get(self.pool, 0) << level)
            + (resampling.REACH.get(self.unpool, 0) << (level + 1))
            for level in levels[:-1]
        )
        return self.patch * (convolutions + interpolation + (1 << len(self.down))) - 1

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the complete feature list, per level."""
        entering = (self.inputs * self.patch**2, *self.down)
        return tuple(
            entering[level]
            + 2 * self.units[level] * self.growth[level]
            + (self.up[level] if level < len(self.up) else 0)
            for level in range(len(self.growth))
        )


class DenseList:
    """The growing list of features of one level.

    While gradients are recorded, features are concatenated. Otherwise they are written into one
    tensor of the final size, and each layer reads a prefix of its channels.
    """

    def __init__(self, features: torch.Tensor, capacity: int) -> None:
        """Start a list with (N, H, W, C) features; ``capacity`` is the final C."""
        self._count = features.shape[-1]
        self._buffer: torch.Tensor | None = None
        self._features = features
        if not torch.is_grad_enabled():
            # Not empty: the products of torch 2.13 on processors with AMX read up to 31 channels
            # beyond those of a row, times 0, which a NaN survives.
            self._buffer = features.new_zeros((*features.shape[:-1], capacity))
            self._buffer[..., : self._count] = features

    def append(self, features: torch.Tensor) -> None:
        """Add (N, H, W, C) features."""
        start, self._count = self._count, self._count + features.shape[-1]
        if self._buffer is None:
            self._features = torch.cat([self._features, features], dim=-1)
        else:
            self._buffer[..., start : self._count] = features

    @property
    def features(self) -> torch.Tensor:
        """All features so far, (N, H, W, C)."""
        return self._features if self._buffer is None else self._buffer[..., : self._count]


class Unit(nn.Module):
    """1x1 convolution to twice the growth, then 3x3 to the growth."""

    def __init__(self, inputs: int, growth: int, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self.reduce = Pointwise(inputs, 2 * growth)
        self.filter = Convolution(2 * growth, growth, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the new features, (N, H, W, growth)."""
        x = activate(self.reduce(x), self.slope)
        return activate(self.filter(x), self.slope)


class Resample(nn.Module):
    """Change of resolution by a factor of two, with an activation."""

    def __init__(self, inputs: int, outputs: int, kind: str, slope: float, up: bool) -> None:
        super().__init__()
        learned = kind == "conv"
        convolution = Up(inputs, outputs) if up else Down(inputs, outputs)
        self.layer = convolution if learned else Pointwise(inputs, outputs)
        self.slope = slope if learned else _RESAMPLING_SLOPE
        self._resample = None if learned else (resampling.UP if up else resampling.DOWN)[kind]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, H/2, W/2, outputs) or (N, 2H, 2W, outputs)."""
        x = activate(self.layer(x), self.slope)
        return x if self._resample is None else self._resample(x)


class DenseUNet(nn.Module):
    """The network: (N, H, W, inputs) to (N, H, W, outputs).

    H and W must be multiples of ``config.alignment``. With the default configuration it has
    4,358,534 parameters and costs 0.83 million multiplications per pixel.
    """

    def __init__(self, config: DenseUNetConfig) -> None:
        super().__init__()
        self.config = config
        growth, slope = config.growth, config.slope
        self.encoders, self.decoders = nn.ModuleList(), nn.ModuleList()
        self.pools, self.unpools = nn.ModuleList(), nn.ModuleList()

        def units(inputs: int, level: int) -> nn.ModuleList:
            starts = (inputs + i * growth[level] for i in range(config.units[level]))
            return nn.ModuleList(Unit(start, growth[level], slope) for start in starts)

        entering = (config.inputs * config.patch**2, *config.down)
        for level, inputs in enumerate(entering):
            encoded = inputs + config.units[level] * growth[level]
            self.encoders.append(units(inputs, level))
            if level < len(config.down):
                down, up = config.down[level], config.up[level]
                below = config.widths[level + 1]
                self.pools.append(Resample(encoded, down, config.pool, slope, up=False))
                self.unpools.append(Resample(below, up, config.unpool, slope, up=True))
                self.decoders.append(units(encoded + up, level))
            else:
                self.decoders.append(units(encoded, level))
        self.head = Pointwise(
            config.widths[0], config.outputs * config.patch**2, zero=config.zero_head
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the network; see the class."""
        config = self.config
        if x.shape[1] % config.alignment or x.shape[2] % config.alignment:
            raise ConfigError(
                f"got an input of {x.shape[1]} x {x.shape[2]} pixels; expected multiples of "
                f"{config.alignment}"
            )
        if config.patch > 1:
            x = gather_blocks(x, config.patch)
        levels: list[DenseList] = []
        for level, units in enumerate(self.encoders):
            if level:
                x = self.pools[level - 1](x)
            levels.append(DenseList(x, config.widths[level]))
            x = _grow(levels[level], units)
        for level in reversed(range(len(levels))):
            if level < len(self.unpools):
                levels[level].append(self.unpools[level](x))
            x = _grow(levels[level], self.decoders[level])
        x = self.head(x)
        if config.head_activation:
            x = activate(x, config.slope)
        return scatter_blocks(x, config.patch) if config.patch > 1 else x


def _grow(features: DenseList, units: nn.Module) -> torch.Tensor:
    for unit in units.children():
        features.append(unit(features.features))
    return features.features


def activate(x: torch.Tensor, slope: float) -> torch.Tensor:
    """Apply the leaky ReLU, in place where no gradient is recorded."""
    return functional.leaky_relu(x, slope, inplace=not torch.is_grad_enabled())


def multiplications_per_pixel(config: DenseUNetConfig) -> float:
    """Count the multiplications of a network per input pixel."""
    total, width = 0.0, config.inputs * config.patch**2
    for level, growth in enumerate(config.growth):
        share = 0.25**level / config.patch**2
        if level:
            width = config.down[level - 1]
        after = width + config.units[level] * growth
        starts = [width + i * growth for i in range(config.units[level])]
        if level < len(config.down):
            down, up = config.down[level], config.up[level]
            total += share * after * down  # 2x2 at a quarter of the pixels, or 1x1 at all
            upsampled = 4 if config.unpool == "conv" else 1
            total += share / 4 * upsampled * config.widths[level + 1] * up
            after += up
        starts += [after + i * growth for i in range(config.units[level])]
        total += share * sum(start * 2 * growth + 9 * 2 * growth * growth for start in starts)
    return total + config.widths[0] * config.outputs
