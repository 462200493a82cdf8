r"""The loss of the recurrent autoencoder, on windows of a sequence.

C. R. A. Chaitanya et al., ACM TOG 36(4), 2017, section 4. With the images of a window behind the
curve :math:`c`, prediction *p* and target *y*, the loss is

.. math:: \frac1T \sum_t w_t\,[\,0.8\,|p_t - y_t| + 0.1\,|L p_t - L y_t|
    + 0.1\,|\dot p_t - \dot y_t|\,]

with means over pixels and channels, the Laplacian of Gaussian *L*, the difference to the frame
before :math:`\dot p_t = p_t - p_{t-1}` (nothing for the first), and weights
:math:`w_t = e^{-(T-1-t)^2/8}` that grow to 1 as the memory fills: (0.011, 0.044, 0.135, 0.325,
0.607, 0.882, 1) for seven frames.

Three things are not as in the original. :math:`c(x) = \pm\log(1 + 10 |x|)` of the exposed image
stands for a power of 0.2, which has no slope at 0. The filter is applied to each channel by itself,
and its entries add up to 0, so that it is blind to constants.

An absolute deviation pulls towards the median, and radiance is skewed: with noisy targets the
result is too dark. Use converged targets, or denoised ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from mitsuba_gdpt.denoisers.images import exposure_scale
from mitsuba_gdpt.errors import ConfigError

#: Terms that a loss of sequences can have, and what they are; see the module.
SEQUENCE_TERMS = {
    "spatial": "mean absolute deviation behind the curve of the loss",
    "edges": "the same of images filtered by the Laplacian of Gaussian",
    "temporal": "the same of differences to the frame before",
}
LOG_SIZE, LOG_SIGMA = 9, 1.5

_GAIN = 10.0  # 1 / the brightness, relative to an exposed 1, where linear turns to logarithmic
_RISE = 8.0  # 2 sigma^2 of the weights of frames, sigma = 2 frames


def compress(image: torch.Tensor, exposure: torch.Tensor) -> torch.Tensor:
    """Apply the curve of the loss to radiance times a factor that broadcasts."""
    x = image * exposure
    sign = torch.where(x < 0, -1.0, 1.0)  # not sign(x) and abs(x): black has a slope too
    return sign * (_GAIN * sign * x).log1p()


def frame_weights(length: int) -> torch.Tensor:
    """Return the weights of the frames of a window, (T,)."""
    before_last = torch.arange(length - 1, -1, -1, dtype=torch.float32)
    return (-before_last.square() / _RISE).exp()


def laplacian_of_gaussian(size: int = LOG_SIZE, sigma: float = LOG_SIGMA) -> torch.Tensor:
    """Return the filter, (size, size), shifted to a sum of 0."""
    axis = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    square = (axis[:, None].square() + axis.square()) / (2 * sigma**2)
    values = -(1 - square) * (-square).exp() / (math.pi * sigma**4)
    return (values - values.mean()).float()


def find_edges(images: torch.Tensor) -> torch.Tensor:
    """Filter each channel with the Laplacian of Gaussian.

    Args:
        images: (N, H, W, c).

    Returns:
        (N, H - 8, W - 8, c): without the border, where the filter would leave the image. Empty for
        images that are smaller than the filter.
    """
    channels = images.shape[-1]
    if min(images.shape[1:3]) < LOG_SIZE:
        return images[:, :0, :0]
    kernel = laplacian_of_gaussian().to(images).expand(channels, 1, LOG_SIZE, LOG_SIZE)
    return functional.conv2d(images.permute(0, 3, 1, 2), kernel, groups=channels).permute(
        0, 2, 3, 1
    )


def common_exposure(targets: torch.Tensor) -> torch.Tensor:
    """Return one factor for all frames of a window, (N, 1, 1, 1, 1), from (N, T, H, W, 3)."""
    scales = exposure_scale(targets.flatten(0, 1)).view(targets.shape[:2])
    return scales.log().mean(1).exp()[:, None, None, None, None]


def flicker(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the mean deviation of frame differences behind the curve of the loss.

    Args:
        p: (N, T, H, W, 3) images.
        y: Targets, likewise.
    """
    exposure = common_exposure(y)
    deviation = compress(p, exposure) - compress(y, exposure)
    return deviation.diff(dim=1).abs().mean()


class SequenceLoss(nn.Module):
    """A weighted sum of terms on windows; see the module.

    Args:
        weights: Term to weight, names of :data:`SEQUENCE_TERMS`.

    Raises:
        ConfigError: There is no term.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.weights = {name: weight for name, weight in weights.items() if weight}
        if not self.weights:
            raise ConfigError("got a loss without terms; expected at least one weight above 0")

    def forward(
        self, p: torch.Tensor, y: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """Evaluate all terms.

        Args:
            p: (N, T, H, W, 3) prediction.
            y: (N, T, H, W, 3) target.
            generator: Not used: no term draws anything.

        Returns:
            The value of each term, and their weighted sum under ``loss``.
        """
        exposure = common_exposure(y)
        deviation = compress(p, exposure) - compress(y, exposure)
        parts = {"spatial": deviation}
        if "edges" in self.weights:
            edges = find_edges(deviation.flatten(0, 1))  # the filter is linear
            parts["edges"] = edges.unflatten(0, deviation.shape[:2])
        if "temporal" in self.weights:
            parts["temporal"] = torch.cat(
                [torch.zeros_like(deviation[:, :1]), deviation.diff(dim=1)], 1
            )
        weights = frame_weights(p.shape[1]).to(p)
        values = {}
        for name in self.weights:
            part = parts[name]
            if part.numel():
                values[name] = (weights * part.abs().mean((0, 2, 3, 4))).mean()
            else:
                values[name] = deviation.new_zeros(())
        total = torch.stack([weight * values[name] for name, weight in self.weights.items()])
        return {**values, "loss": total.sum()}
