"""Convolutional parts of image classifiers, as LPIPS and E-LPIPS use them.

Modules are numbered as in torchvision's ``features``, so that its state dictionaries fit. The
networks are frozen; gradients flow to their input only.

SqueezeNet 1.1: F. Iandola et al. 2016. AlexNet: A. Krizhevsky 2014 ("one weird trick").
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

#: Applied to the input of every convolution (dropout); None means nothing is.
Perturbation = Callable[[Tensor], Tensor]


class Fire(nn.Module):
    """SqueezeNet's module: a 1x1 "squeeze", then 1x1 and 3x3 "expand" side by side; all ReLU."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        """Choose channel counts; the output has ``2 * expand``."""
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor, perturb: Perturbation | None = None) -> Tensor:
        """Map (N, C, H, W) to (N, 2 * expand, H, W); each expansion is perturbed by itself."""
        perturb = perturb or nn.Identity()
        x = functional.relu_(self.squeeze(perturb(x)))
        branches = (self.expand1x1(perturb(x)), self.expand3x3(perturb(x)))
        return functional.relu_(torch.cat(branches, 1))


class Backbone(nn.Module):
    """A chain of layers that also returns what some of them put out.

    Attributes:
        taps: Indices of the layers whose output is returned; -1 is the input itself.
        channels: Channel count of each tap.
        least_side: Smallest height and width that leaves every layer something to work on.
    """

    taps: tuple[int, ...]
    channels: tuple[int, ...]
    least_side: int

    def __init__(self, layers: dict[int, nn.Module]) -> None:
        """Number the layers as torchvision does; those left out have no weights."""
        super().__init__()
        for index, layer in layers.items():
            self.add_module(str(index), layer)
        self.eval().requires_grad_(False)

    def forward(self, x: Tensor, perturb: Perturbation | None = None) -> list[Tensor]:
        """Return the taps of (N, 3, H, W) normalised images, (N, C, h, w) each."""
        found = [x] if -1 in self.taps else []
        for name, layer in self.named_children():
            if isinstance(layer, Fire):
                x = layer(x, perturb)
            elif isinstance(layer, nn.Conv2d) and perturb is not None:
                x = layer(perturb(x))
            else:
                x = layer(x)
            if int(name) in self.taps:
                found.append(x)
        return found


class SqueezeNet(Backbone):
    """SqueezeNet 1.1 with the 7 taps of LPIPS, or the 10 of E-LPIPS."""

    def __init__(self, *, every_layer: bool = False) -> None:
        """Choose the taps.

        Args:
            every_layer: Tap the input, the first convolution and every fire module, and let
                pooling windows end inside the image, as the authors of E-LPIPS do. Otherwise tap
                the layers of LPIPS and let windows overhang (``ceil_mode``), as torchvision does.
        """
        layers: dict[int, nn.Module] = {0: nn.Conv2d(3, 64, 3, stride=2), 1: nn.ReLU(inplace=True)}
        for index in (2, 5, 8):
            layers[index] = nn.MaxPool2d(3, stride=2, ceil_mode=not every_layer)
        fires = {
            3: (64, 16, 64),
            4: (128, 16, 64),
            6: (128, 32, 128),
            7: (256, 32, 128),
            9: (256, 48, 192),
            10: (384, 48, 192),
            11: (384, 64, 256),
            12: (512, 64, 256),
        }
        layers |= {index: Fire(*counts) for index, counts in fires.items()}
        super().__init__(dict(sorted(layers.items())))
        if every_layer:
            self.taps = (-1, 1, *fires)
            self.channels = (3, 64, *(2 * expand for _, _, expand in fires.values()))
            self.least_side = 31
        else:
            self.taps = (1, 4, 7, 9, 10, 11, 12)
            self.channels = (64, 128, 256, 384, 384, 512, 512)
            self.least_side = 17


class AlexNet(Backbone):
    """AlexNet with the 5 taps of LPIPS."""

    def __init__(self) -> None:
        super().__init__(
            {
                0: nn.Conv2d(3, 64, 11, stride=4, padding=2),
                1: nn.ReLU(inplace=True),
                2: nn.MaxPool2d(3, stride=2),
                3: nn.Conv2d(64, 192, 5, padding=2),
                4: nn.ReLU(inplace=True),
                5: nn.MaxPool2d(3, stride=2),
                6: nn.Conv2d(192, 384, 3, padding=1),
                7: nn.ReLU(inplace=True),
                8: nn.Conv2d(384, 256, 3, padding=1),
                9: nn.ReLU(inplace=True),
                10: nn.Conv2d(256, 256, 3, padding=1),
                11: nn.ReLU(inplace=True),
            }
        )
        self.taps = (1, 4, 7, 9, 11)
        self.channels = (64, 192, 384, 256, 256)
        self.least_side = 31
