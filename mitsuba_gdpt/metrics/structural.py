"""Metrics of the displayed image: PSNR, SSIM, MS-SSIM.

Both images go through :func:`~.images.encode_display` (sRGB of Reinhard, clipped to [0, 1]), so the
data range is 1. Negative values are refused. With a :class:`~.images.Reference` of two halves the
mean of the halves is used: the display curve is not linear, and no unbiased estimate exists.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mitsuba_gdpt import packages
from mitsuba_gdpt.errors import LayoutError
from mitsuba_gdpt.metrics.accumulator import Accumulator
from mitsuba_gdpt.metrics.images import Reference, encode_display, pair

#: Side of the Gaussian window of SSIM and MS-SSIM, and its standard deviation, in pixels.
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
#: MS-SSIM halves the image four times; the window must fit what is left.
MS_SSIM_LEAST_SIDE = (SSIM_WINDOW - 1) * 2**4 + 1


def psnr(image: Tensor, reference: Tensor | Reference) -> Tensor:
    r"""Peak signal-to-noise ratio of the displayed image, :math:`-10 \log_{10}` of its MSE, in dB.

    Args:
        image: (H, W, 3) or (N, H, W, 3), scene-linear, non-negative.
        reference: Of the same shape.

    Returns:
        Scalar; from the mean MSE of the batch. Infinite for identical images, where it has no
        gradient.

    Raises:
        LayoutError: Shapes are wrong or differ.
        ConfigError: Dtypes or devices are wrong or differ, or a value is negative.
        NonFiniteError: A value is NaN or infinite.
    """
    return _psnr_compute(_psnr_update(image, reference).mean())


def ssim(image: Tensor, reference: Tensor | Reference) -> Tensor:
    """Structural similarity of the displayed image (Wang et al. 2004).

    Gaussian window of 11 pixels and standard deviation 1.5, K = (0.01, 0.03), data range 1, per
    channel, windows inside the image only, as in the paper; by ``pytorch-msssim``.

    Args:
        image: (H, W, 3) or (N, H, W, 3) with sides of at least 11, scene-linear, non-negative.
        reference: Of the same shape.

    Returns:
        Scalar; mean over channels and batch. 1 for identical images.

    Raises:
        LayoutError: Shapes are wrong, differ or are too small.
        ConfigError, NonFiniteError: As for :func:`psnr`.
        MissingDependencyError: ``pytorch-msssim`` (extra ``eval``) is not installed.
    """
    return _ssim_update(image, reference).mean()


def ms_ssim(image: Tensor, reference: Tensor | Reference) -> Tensor:
    """Multi-scale structural similarity of the displayed image (Wang et al. 2003).

    Five scales with the weights of the paper, otherwise as :func:`ssim`. Negative contrast terms
    count as 0.

    Args:
        image: (H, W, 3) or (N, H, W, 3) with sides of at least 161, scene-linear, non-negative.
        reference: Of the same shape.

    Returns:
        Scalar; mean over channels and batch. 1 for identical images.

    Raises:
        LayoutError, ConfigError, NonFiniteError, MissingDependencyError: As for :func:`ssim`.
    """
    return _ms_ssim_update(image, reference).mean()


class PooledPSNR(Accumulator):
    """:func:`psnr` of the mean MSE over images.

    Not the mean of PSNRs: that is ruled by the images that are nearly perfect, and is infinite as
    soon as one is.
    """

    higher_is_better = True

    def _update(self, image: Tensor, reference: Tensor | Reference) -> Tensor:
        return _psnr_update(image, reference)

    def _compute(self, mean: Tensor) -> Tensor:
        return _psnr_compute(mean)


class MeanSSIM(Accumulator):
    """Mean over images of :func:`ssim`."""

    higher_is_better = True

    def _update(self, image: Tensor, reference: Tensor | Reference) -> Tensor:
        return _ssim_update(image, reference)


class MeanMSSSIM(Accumulator):
    """Mean over images of :func:`ms_ssim`."""

    higher_is_better = True

    def _update(self, image: Tensor, reference: Tensor | Reference) -> Tensor:
        return _ms_ssim_update(image, reference)


def displayed_pair(image: Tensor, reference: Tensor | Reference) -> tuple[Tensor, Tensor]:
    """Check and encode both images; (N, H, W, 3) display values in [0, 1] each."""
    image, reference = pair(image, reference, nonnegative=True)
    return encode_display(image), encode_display(reference.mean)


def _psnr_update(image: Tensor, reference: Tensor | Reference) -> Tensor:
    shown, target = displayed_pair(image, reference)
    return ((shown - target) ** 2).mean((1, 2, 3))


def _psnr_compute(squared_error: Tensor) -> Tensor:
    return -10 * torch.log10(squared_error)


def _ssim_update(image: Tensor, reference: Tensor | Reference) -> Tensor:
    return _structural("ssim", SSIM_WINDOW, image, reference)


def _ms_ssim_update(image: Tensor, reference: Tensor | Reference) -> Tensor:
    return _structural("ms_ssim", MS_SSIM_LEAST_SIDE, image, reference)


def _structural(function: str, least: int, image: Tensor, reference: Tensor | Reference) -> Tensor:
    shown, target = displayed_pair(image, reference)
    if min(shown.shape[1:3]) < least:  # the package would warn and skip the window, or assert
        raise LayoutError(
            f"{function}: got an image of {shown.shape[1]} x {shown.shape[2]} pixels; "
            f"expected at least {least} on each side"
        )
    compute: Any = getattr(packages.load("pytorch_msssim", "eval"), function)
    values: Tensor = compute(
        shown.movedim(-1, 1),
        target.movedim(-1, 1),
        data_range=1.0,
        size_average=False,
        win_size=SSIM_WINDOW,
        win_sigma=SSIM_SIGMA,
    )
    return values
