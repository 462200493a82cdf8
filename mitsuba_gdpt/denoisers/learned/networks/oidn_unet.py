"""The network of Intel Open Image Denoise in torch, and an adapter that adds features to its own.

The network's weights are constants: they come from the installed library
(:mod:`mitsuba_gdpt.denoisers.classical.oidn_weights`) and are stored in no file of this package.
What can be learned is the adapter and, if wanted, a difference to those weights. All of it starts
at zero, so that at first the image is the library's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

#: Layer to its input and output channels, with nine inputs: radiance, albedo, normal.
LAYERS: dict[str, tuple[int, int]] = {
    "enc_conv0": (9, 32),
    "enc_conv1": (32, 32),
    "enc_conv2": (32, 48),
    "enc_conv3": (48, 64),
    "enc_conv4": (64, 80),
    "enc_conv5a": (80, 96),
    "enc_conv5b": (96, 96),
    "dec_conv4a": (96 + 64, 112),
    "dec_conv4b": (112, 112),
    "dec_conv3a": (112 + 48, 96),
    "dec_conv3b": (96, 96),
    "dec_conv2a": (96 + 32, 64),
    "dec_conv2b": (64, 64),
    "dec_conv1a": (64 + 9, 64),
    "dec_conv1b": (64, 32),
    "dec_conv0": (32, 3),
}
INPUTS = LAYERS["enc_conv0"][0]
#: What height and width of the input have to be multiples of.
ALIGNMENT = 16
#: How far, in pixels, an input can influence the output.
RADIUS = 128

Features = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class AdapterConfig:
    """Sizes of the adapter.

    Attributes:
        inputs: Its channels per pixel.
        widths: Channels at a half, a quarter, an eighth and a sixteenth of the resolution.
    """

    inputs: int = 0
    widths: tuple[int, ...] = (24, 32, 40, 48)


class OIDNNetwork(nn.Module):
    """(N, H, W, 9 + inputs of the adapter) to (N, H, W, 3), both as the library encodes radiance.

    Args:
        weights: ``NAME.weight`` and ``NAME.bias`` of :data:`LAYERS`.
        adapter: Sizes of the adapter; None for none.
        tuned: Learn a difference to the weights, too.
    """

    def __init__(
        self, weights: Features, adapter: AdapterConfig | None = None, *, tuned: bool = False
    ) -> None:
        super().__init__()
        self.base = nn.Module()
        self.delta = nn.ParameterDict() if tuned else None
        for key, value in weights.items():
            self.base.register_buffer(key.replace(".", "_"), value.clone(), persistent=False)
            if self.delta is not None:
                self.delta[key.replace(".", "_")] = nn.Parameter(torch.zeros_like(value))
        self.adapter = None if adapter is None else Adapter(adapter)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the network; height and width are multiples of :data:`ALIGNMENT`."""
        x = x.permute(0, 3, 1, 2)
        seen, others = x.split([INPUTS, x.shape[1] - INPUTS], dim=1)
        added: Features = {} if self.adapter is None else self.adapter(torch.cat([seen, others], 1))

        def layer(name: str, *inputs: torch.Tensor) -> torch.Tensor:
            y = self._convolution(name, inputs[0] if len(inputs) == 1 else torch.cat(inputs, 1))
            return y + added[name] if name in added else y

        def level(x: torch.Tensor, *names: str) -> torch.Tensor:
            for name in names:
                x = functional.relu(layer(name, x))
            return x

        def down(x: torch.Tensor) -> torch.Tensor:
            return functional.max_pool2d(x, 2)

        def up(x: torch.Tensor, skip: torch.Tensor, first: str, second: str) -> torch.Tensor:
            larger = functional.interpolate(x, scale_factor=2)
            return level(functional.relu(layer(first, larger, skip)), second)

        half = down(level(seen, "enc_conv0", "enc_conv1"))
        quarter = down(level(half, "enc_conv2"))
        eighth = down(level(quarter, "enc_conv3"))
        y = level(down(level(eighth, "enc_conv4")), "enc_conv5a", "enc_conv5b")
        y = up(y, eighth, "dec_conv4a", "dec_conv4b")
        y = up(y, quarter, "dec_conv3a", "dec_conv3b")
        y = up(y, half, "dec_conv2a", "dec_conv2b")
        y = up(y, seen, "dec_conv1a", "dec_conv1b")
        return layer("dec_conv0", y).permute(0, 2, 3, 1)

    def _convolution(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self._tensor(name + "_weight"), self._tensor(name + "_bias")
        return functional.conv2d(x, weight, bias, padding=1)

    def _tensor(self, name: str) -> torch.Tensor:
        value = torch.as_tensor(getattr(self.base, name))
        return value if self.delta is None else value + self.delta[name]


class Adapter(nn.Module):
    """A slim U-Net on blocks of 2x2 pixels, whose features are added to those of the base.

    Returns what is to be added to the results of layers of :data:`LAYERS`; zeros at first.
    """

    def __init__(self, config: AdapterConfig) -> None:
        super().__init__()
        a, b, c, d = config.widths
        self.encoder = nn.ModuleDict(
            {
                "by2": _Pair(4 * (INPUTS + config.inputs), a),
                "by4": _Pair(a, b),
                "by8": _Pair(b, c),
                "by16": _Pair(c, d),
            }
        )
        self.decoder = nn.ModuleDict(
            {"by8": _Pair(d + c, c), "by4": _Pair(c + b, b), "by2": _Pair(b + a, a)}
        )
        joined = {
            "enc_conv0": (a, 4),
            "enc_conv2": (a, 1),
            "enc_conv3": (b, 1),
            "enc_conv4": (c, 1),
            "enc_conv5b": (d, 1),
            "dec_conv4b": (c, 1),
            "dec_conv3b": (b, 1),
            "dec_conv2b": (a, 1),
            "dec_conv1b": (a, 4),
            "dec_conv0": (a, 4),
        }
        self.joints = nn.ModuleDict(
            {
                name: nn.Conv2d(width, LAYERS[name][1] * pixels, 1)
                for name, (width, pixels) in joined.items()
            }
        )
        for joint in self.joints.values():
            for parameter in joint.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return features by the name of the layer that they are added to; x is (N, C, H, W)."""
        half = self.encoder["by2"](functional.pixel_unshuffle(x, 2))
        quarter = self.encoder["by4"](functional.avg_pool2d(half, 2))
        eighth = self.encoder["by8"](functional.avg_pool2d(quarter, 2))
        sixteenth = self.encoder["by16"](functional.avg_pool2d(eighth, 2))
        up = {}
        y = sixteenth
        for name, skip in (("by8", eighth), ("by4", quarter), ("by2", half)):
            larger = functional.interpolate(y, scale_factor=2)
            y = up[name] = self.decoder[name](torch.cat([larger, skip], 1))
        sources = {
            "enc_conv0": half,
            "enc_conv2": half,
            "enc_conv3": quarter,
            "enc_conv4": eighth,
            "enc_conv5b": sixteenth,
            "dec_conv4b": up["by8"],
            "dec_conv3b": up["by4"],
            "dec_conv2b": up["by2"],
            "dec_conv1b": up["by2"],
            "dec_conv0": up["by2"],
        }
        added = {}
        for name, source in sources.items():
            values = self.joints[name](source)
            full = values.shape[1] != LAYERS[name][1]
            added[name] = functional.pixel_shuffle(values, 2) if full else values
        return added


class _Pair(nn.Module):
    """Two 3x3 convolutions with activations."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.leaky_relu(self.first(x), 0.1)
        return functional.leaky_relu(self.second(x), 0.1)
