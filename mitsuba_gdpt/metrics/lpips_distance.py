"""LPIPS 0.1: distance of the features of an image classifier, SqueezeNet or AlexNet.

R. Zhang et al., *The Unreasonable Effectiveness of Deep Features as a Perceptual Metric*, CVPR
2018. The module :class:`LPIPS` takes display values, for training and for parity with other code;
the function and the accumulator take linear images as all other metrics do.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from mitsuba_gdpt.errors import ConfigError, LayoutError
from mitsuba_gdpt.metrics.accumulator import Accumulator
from mitsuba_gdpt.metrics.backbones import AlexNet, Backbone, Perturbation, SqueezeNet
from mitsuba_gdpt.metrics.images import Reference
from mitsuba_gdpt.metrics.structural import displayed_pair
from mitsuba_gdpt.metrics.weights import find_folder, load_features, load_heads

Network = Literal["squeeze", "alex"]
Folder = str | os.PathLike[str] | None

# What the authors subtract from, and divide, values in [-1, 1] by.
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
_EPSILON = 1e-10  # added to the length of a feature vector


class FeatureDistance(nn.Module):
    """Weighted squared distance of unit-length features, summed over the taps of a backbone.

    Equation 1 of the paper: per tap, both feature vectors are divided by their length, squared
    differences are averaged over pixels, and channels are summed with non-negative weights.
    """

    def __init__(self, backbone: Backbone, heads: list[Tensor]) -> None:
        """Put a loaded backbone and the weights of its taps' channels together."""
        super().__init__()
        self.backbone = backbone
        self.taps = len(heads)
        for index, weight in enumerate(heads):
            self.register_buffer(f"head{index}", weight.clone())
        self.register_buffer("shift", torch.tensor(_SHIFT).reshape(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(_SCALE).reshape(1, 3, 1, 1))

    def distance(self, pairs: Tensor, perturb: Perturbation | None = None) -> Tensor:
        """Compare the first half of a batch with the second.

        Args:
            pairs: (2M, 3, H, W) display values in [0, 1]; M images, then their references.
            perturb: Applied to the input of every convolution, to image and reference alike.

        Returns:
            (M,) distances.
        """
        x = (2 * pairs - 1 - self.get_buffer("shift")) / self.get_buffer("scale")
        # Pooling is several times faster in this layout. vector_norm needs no memory for squares,
        # and its gradient at 0 is 0, where that of sqrt is infinite.
        x = x.contiguous(memory_format=torch.channels_last)
        count = len(x) // 2
        total = x.new_zeros(count)
        for index, features in enumerate(self.backbone(x, perturb)):
            length = torch.linalg.vector_norm(features, dim=1, keepdim=True)
            unit = features / (length + _EPSILON)
            difference = unit[:count] - unit[count:]
            squared = torch.linalg.vector_norm(difference, dim=(2, 3)).square()
            pixels = difference[0, 0].numel()
            total = total + squared @ self.get_buffer(f"head{index}") / pixels
        return total


class LPIPS(FeatureDistance):
    """LPIPS 0.1 as a frozen, differentiable module on display values.

    Its values are those of the package ``lpips`` with ``normalize=True``.

    Args:
        network: ``"squeeze"`` or ``"alex"``; the VGG variant is not offered.
        weights: Folder of weights; see :mod:`mitsuba_gdpt.metrics.weights`.

    Raises:
        ConfigError: The network is unknown.
        WeightsError: The weights are missing or damaged.
    """

    def __init__(self, network: Network = "squeeze", *, weights: Folder = None) -> None:
        if network not in ("squeeze", "alex"):
            raise ConfigError(f"got network {network!r}; expected 'squeeze' or 'alex'")
        folder = find_folder(weights)
        backbone = SqueezeNet() if network == "squeeze" else AlexNet()
        load_features(backbone, network, folder)
        heads = load_heads(f"lpips_v0.1.{network}", backbone.channels, folder)
        super().__init__(backbone, heads)

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """Compare batches of display values.

        NaN is passed on, not looked for: that would make a GPU wait in every training step.

        Args:
            image: (N, H, W, 3) display values, nominally in [0, 1].
            reference: Of the same shape.

        Returns:
            (N,) distances; 0 for identical images, larger is worse.

        Raises:
            LayoutError: Shapes are wrong, differ or are too small.
        """
        pairs = stacked(image, reference)
        require_side(min(pairs.shape[2:]), self.backbone.least_side, image)
        return self.distance(pairs)


def lpips(
    image: Tensor,
    reference: Tensor | Reference,
    *,
    network: Network = "squeeze",
    weights: Folder = None,
) -> Tensor:
    """LPIPS of the displayed image (:func:`~.images.encode_display`).

    Args:
        image: (H, W, 3) or (N, H, W, 3), scene-linear, non-negative; sides of at least 17
            (``squeeze``) or 31 (``alex``) pixels.
        reference: Of the same shape; of halves, the mean is used.
        network: As for :class:`LPIPS`.
        weights: Folder of weights; see :mod:`mitsuba_gdpt.metrics.weights`.

    Returns:
        Scalar; mean over the batch. Differentiable.

    Raises:
        LayoutError: Shapes are wrong, differ or are too small.
        ConfigError: Dtypes or devices are wrong or differ, or a value is negative.
        NonFiniteError: A value is NaN or infinite.
        WeightsError: The weights are missing or damaged.
    """
    return _lpips_update(image, reference, network, weights).mean()


class MeanLPIPS(Accumulator):
    """Mean over images of :func:`lpips`."""

    def __init__(self, network: Network = "squeeze", *, weights: Folder = None) -> None:
        """Choose the arguments of :func:`lpips`."""
        super().__init__()
        self.network = network
        self.weights = weights

    def _update(self, image: Tensor, reference: Tensor | Reference) -> Tensor:
        return _lpips_update(image, reference, self.network, self.weights)


def stacked(image: Tensor, reference: Tensor) -> Tensor:
    """Check two (N, H, W, 3) batches and stack them to (2N, 3, H, W)."""
    for tensor, what in ((image, "image"), (reference, "reference")):
        if tensor.ndim != 4 or tensor.shape[-1] != 3 or 0 in tensor.shape:
            raise LayoutError(
                f"{what}: got shape {tuple(tensor.shape)}; expected a batch (N, H, W, 3)"
            )
    if image.shape != reference.shape:
        raise LayoutError(
            f"got an image of shape {tuple(image.shape)} and a reference of "
            f"{tuple(reference.shape)}; expected the same"
        )
    return torch.cat([image, reference]).movedim(-1, 1)


def require_side(side: int, least: int, image: Tensor) -> None:
    """Refuse images of which a network would leave nothing."""
    if side < least:
        raise LayoutError(
            f"got images of {image.shape[1]} x {image.shape[2]} pixels, of which the network sees "
            f"{side} on the shorter side; expected at least {least}"
        )


@lru_cache(maxsize=4)
def _module(network: Network, folder: str, device: str, dtype: torch.dtype) -> LPIPS:
    return LPIPS(network, weights=folder).to(device=device, dtype=dtype)


def _lpips_update(
    image: Tensor, reference: Tensor | Reference, network: Network, weights: Folder
) -> Tensor:
    shown, target = displayed_pair(image, reference)
    folder = str(find_folder(weights).resolve())
    module = _module(network, folder, str(shown.device), shown.dtype)
    values: Tensor = module(shown, target)
    return values
