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

Features = Mapping[str, torch.Tensor]

#: Channels of the input: radiance, albedo, normal.
INPUTS = 9
#: What height and width of the input have to be multiples of.
ALIGNMENT = 16
#: How far, in pixels, an input can influence the output.
RADIUS = 128


@dataclass(frozen=True)
class Topology:
    """Names of the 3x3 convolutions, from the input to the output.

    Each level of the encoder ends in pooling, whose result goes on and, but for the last one,
    aside; each level of the decoder begins with what is twice as large and what went aside.

    Attributes:
        encoder: Layers of each level.
        bottom: Layers at a sixteenth of the resolution.
        decoder: Layers of each level, the lowest resolution first.
        last: The one without an activation.
    """

    encoder: tuple[tuple[str, ...], ...]
    bottom: tuple[str, ...]
    decoder: tuple[tuple[str, ...], ...]
    last: str

    @classmethod
    def of(cls, weights: Features) -> Topology:
        """Return that of one of the library's networks, by the names of its weights."""
        return LARGE if f"{LARGE.last}.weight" in weights else BASE


#: The networks at the quality ``high`` that take features as rendered, and at lower ones.
BASE = Topology(
    encoder=(("enc_conv0", "enc_conv1"), ("enc_conv2",), ("enc_conv3",), ("enc_conv4",)),
    bottom=("enc_conv5a", "enc_conv5b"),
    decoder=tuple((f"dec_conv{level}a", f"dec_conv{level}b") for level in (4, 3, 2, 1)),
    last="dec_conv0",
)
#: The network at the quality ``high`` for features without noise.
LARGE = Topology(
    encoder=tuple((f"enc_conv{level}a", f"enc_conv{level}b") for level in (1, 2, 3, 4)),
    bottom=("enc_conv5a", "enc_conv5b"),
    decoder=tuple((f"dec_conv{level}a", f"dec_conv{level}b") for level in (4, 3, 2, 1)),
    last="dec_conv1c",
)


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
        weights: ``NAME.weight`` and ``NAME.bias`` of the layers of :data:`BASE` or :data:`LARGE`.
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
        self.topology = Topology.of(weights)
        outputs = {key.removesuffix(".bias"): len(v) for key, v in weights.items() if v.dim() == 1}
        self.adapter = None if adapter is None else Adapter(adapter, self.topology, outputs)

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

        def up(x: torch.Tensor, skip: torch.Tensor, first: str, *others: str) -> torch.Tensor:
            larger = functional.interpolate(x, scale_factor=2)
            return level(functional.relu(layer(first, larger, skip)), *others)

        net = self.topology
        y, aside = seen, [seen]
        for names in net.encoder:
            y = down(level(y, *names))
            aside.append(y)
        y = level(y, *net.bottom)
        for names, skip in zip(net.decoder, aside[-2::-1], strict=True):
            y = up(y, skip, *names)
        return layer(net.last, y).permute(0, 2, 3, 1)

    def _convolution(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self._tensor(name + "_weight"), self._tensor(name + "_bias")
        return functional.conv2d(x, weight, bias, padding=1)

    def _tensor(self, name: str) -> torch.Tensor:
        value = torch.as_tensor(getattr(self.base, name))
        return value if self.delta is None else value + self.delta[name]


class Adapter(nn.Module):
    """A slim U-Net on blocks of 2x2 pixels, whose features are added to those of the base.

    Returns what is to be added to the results of layers, by name; zeros at first.

    Args:
        config: Sizes.
        topology: Of the base.
        outputs: Channels of its layers.
    """

    def __init__(
        self, config: AdapterConfig, topology: Topology, outputs: Mapping[str, int]
    ) -> None:
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
        first, second, third, fourth = (names[0] for names in topology.encoder)
        by8, by4, by2, full = (names[-1] for names in topology.decoder)
        #: Layer to the features that it gets: by the first way down or on the way up, at which
        #: resolution; and how many pixels of the base one of theirs is.
        self._sources = {
            first: ("down", "by2", 4),
            second: ("down", "by2", 1),
            third: ("down", "by4", 1),
            fourth: ("down", "by8", 1),
            topology.bottom[-1]: ("down", "by16", 1),
            by8: ("up", "by8", 1),
            by4: ("up", "by4", 1),
            by2: ("up", "by2", 1),
            full: ("up", "by2", 4),
            topology.last: ("up", "by2", 4),
        }
        widths = {"by2": a, "by4": b, "by8": c, "by16": d}
        self.joints = nn.ModuleDict(
            {
                name: nn.Conv2d(widths[place], outputs[name] * pixels, 1)
                for name, (_, place, pixels) in self._sources.items()
            }
        )
        for joint in self.joints.values():
            for parameter in joint.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return features by the name of the layer that they are added to; x is (N, C, H, W)."""
        down = {"by2": self.encoder["by2"](functional.pixel_unshuffle(x, 2))}
        for before, place in (("by2", "by4"), ("by4", "by8"), ("by8", "by16")):
            down[place] = self.encoder[place](functional.avg_pool2d(down[before], 2))
        up, y = {}, down["by16"]
        for place in ("by8", "by4", "by2"):
            larger = functional.interpolate(y, scale_factor=2)
            y = up[place] = self.decoder[place](torch.cat([larger, down[place]], 1))
        features = {"down": down, "up": up}
        added = {}
        for name, (way, place, pixels) in self._sources.items():
            values = self.joints[name](features[way][place])
            added[name] = functional.pixel_shuffle(values, 2) if pixels > 1 else values
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
