"""What a metric is given: checked images, references (also noisy ones), and their display form.

Images are channel-last torch tensors, (H, W, 3) or (N, H, W, 3), float32 or float64, scene-linear
with Rec. 709 primaries. Whatever is wrong with them is an error that counts the faulty values:
a metric of a broken image must not be a number.

Negative values are legitimate in reconstructed images (Poisson, NFOR). Metrics of the linear
domain accept them; metrics that look at the displayed image or model the eye refuse them, because
such light does not exist, and :func:`displayable` is the one way to get rid of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mitsuba_gdpt.errors import ConfigError, LayoutError, NonFiniteError

_DTYPES = (torch.float32, torch.float64)
_SRGB_LINEAR_END = 0.0031308  # below, the curve is a straight line (IEC 61966-2-1)


@dataclass(frozen=True, eq=False)
class Reference:
    r"""What an image is compared with: a converged image, or two independent noisy halves.

    A rendered reference has noise of its own. If :math:`a` and :math:`b` are two independent
    renders with the same expectation :math:`r`, then :math:`E[(p-a)(p-b)] = (p-r)^2`: the squared
    error against the unknown :math:`r` is estimated without the bias
    :math:`\mathrm{Var}[(a+b)/2]` that comparing with their mean has. The estimate for one image
    can be slightly negative. Metrics that are not polynomials of the reference use the mean of the
    halves and keep a bias; the documentation of each says which.

    Attributes:
        a: The reference, or its first half; (H, W, 3) or (N, H, W, 3), scene-linear.
        b: The second half, rendered with another seed, or None.
        brightness: What errors are relative to, (H, W, 1) or (N, H, W, 1): an estimate of the mean
            of the reference's channels with less noise than the halves have, such as that of a
            denoised image. Where a noisy reference happens to be dark, errors would count too much.
            By default the mean of the channels of :attr:`mean`.

    Raises:
        LayoutError: A shape is wrong, or the halves differ in shape.
        ConfigError: A dtype is not float32 or float64, or dtype or device differ.
        NonFiniteError: A value is NaN or infinite.
    """

    a: Tensor
    b: Tensor | None = None
    brightness: Tensor | None = None

    def __post_init__(self) -> None:
        check_image(self.a, "reference")
        if self.b is not None:
            check_image(self.b, "second half of the reference")
            _check_alike(self.b, self.a, "second half of the reference", "first")
        if self.brightness is not None:
            _check_values(self.brightness, "brightness of the reference")
            _check_alike(self.brightness, self.a[..., :1], "brightness", "reference, one channel")

    @cached_property
    def mean(self) -> Tensor:
        """Mean of the halves, or the only reference; shape of ``a``."""
        return self.a if self.b is None else 0.5 * (self.a + self.b)

    @cached_property
    def grey(self) -> Tensor:
        """:attr:`brightness`, or the mean of the channels; shape of ``a`` with one channel."""
        return self.mean.mean(-1, keepdim=True) if self.brightness is None else self.brightness

    def squared_error(self, image: Tensor) -> Tensor:
        """Return (p - a)(p - b), an unbiased estimate of (p - r)^2 per value; shape of ``a``."""
        first = image - self.a
        return first * (first if self.b is None else image - self.b)


def check_image(image: Tensor, what: str = "image") -> None:
    """Check kind, shape and values of an image; ``what`` names it in the message.

    Raises:
        LayoutError: It is not (H, W, 3) or (N, H, W, 3), or it is empty.
        ConfigError: It is not a torch tensor of float32 or float64.
        NonFiniteError: A value is NaN or infinite.
    """
    if not isinstance(image, Tensor):
        raise ConfigError(
            f"{what}: got {type(image).__name__}; expected a torch tensor (torch.as_tensor(...))"
        )
    shape = tuple(image.shape)
    if image.ndim not in (3, 4) or shape[-1] != 3 or 0 in shape:
        hint = "; channels come last" if image.ndim in (3, 4) and shape[-3] == 3 else ""
        raise LayoutError(f"{what}: got shape {shape}; expected (H, W, 3) or (N, H, W, 3){hint}")
    _check_values(image, what)


def _check_values(image: Tensor, what: str) -> None:
    if image.dtype not in _DTYPES:
        raise ConfigError(f"{what}: got {image.dtype}; expected float32 or float64 (image.float())")
    if not bool(torch.isfinite(image).all()):
        nan, infinite = int(image.isnan().sum()), int(image.isinf().sum())
        raise NonFiniteError(
            f"{what}: {nan} values are NaN and {infinite} infinite, of {image.numel()}; expected "
            f"finite values. Find what produces them: an error of such an image means nothing"
        )


def as_reference(reference: Tensor | Reference) -> Reference:
    """Wrap a tensor as a reference without noise; see :class:`Reference` for errors."""
    return reference if isinstance(reference, Reference) else Reference(reference)


def pair(
    image: Tensor, reference: Tensor | Reference, *, nonnegative: bool = False
) -> tuple[Tensor, Reference]:
    """Check an image against its reference and give both a batch axis.

    Args:
        image: (H, W, 3) or (N, H, W, 3).
        reference: Of the same shape, dtype and device.
        nonnegative: Also refuse negative values.

    Returns:
        (N, H, W, 3) image, and the reference with tensors of that shape.

    Raises:
        LayoutError: Shapes are wrong or differ.
        ConfigError: Dtypes or devices are wrong or differ, or a value is negative and must not be.
        NonFiniteError: A value is NaN or infinite.
    """
    reference = as_reference(reference)
    check_image(image)
    _check_alike(image, reference.a, "image", "reference")
    if nonnegative:
        _check_nonnegative(image, "image")
        _check_nonnegative(reference.mean, "reference")
    if image.ndim == 3:
        b, brightness = (
            None if part is None else part[None] for part in (reference.b, reference.brightness)
        )
        return image[None], Reference(reference.a[None], b, brightness)
    return image, reference


def one_image(image: Tensor) -> None:
    """Refuse a batch, where a map of one image is made.

    Raises:
        LayoutError: It is not (H, W, 3).
    """
    if isinstance(image, Tensor) and image.ndim != 3:
        raise LayoutError(
            f"image: got shape {tuple(image.shape)}; expected one image (H, W, 3). "
            f"Make the maps of a batch one by one"
        )


def displayable(image: Tensor) -> Tensor:
    """Set negative values to 0, as a display does; for metrics that refuse negative input.

    Call it explicitly, once, on reconstructed images. It is no repair of broken ones.

    Args:
        image: (H, W, 3) or (N, H, W, 3).

    Returns:
        The same with negative values replaced; differentiable, with gradient 0 there.

    Raises:
        LayoutError, ConfigError, NonFiniteError: As for :func:`check_image`.
    """
    check_image(image)
    return image.clamp(min=0)


def reinhard(image: Tensor) -> Tensor:
    """Compress radiance per pixel, keeping hue and sign: x / (1 + mean over RGB of abs(x)).

    As in NGPT (Kettunen et al., *Deep Convolutional Reconstruction for Gradient-Domain Rendering*,
    ACM TOG 38(4), 2019). One component may exceed 1, up to 3 for a pure primary.

    Args:
        image: (..., 3), scene-linear.
    """
    return image / (1 + image.abs().mean(-1, keepdim=True))


def srgb(linear: Tensor) -> Tensor:
    """Encode with the sRGB curve (IEC 61966-2-1), without clipping.

    Negative values continue the linear segment; values above 1 continue the power function. The
    gradient is finite everywhere. :func:`mitsuba_gdpt.exr.linear_to_srgb` is the clipping curve
    of 8-bit files, in NumPy.
    """
    power = 1.055 * linear.clamp(min=_SRGB_LINEAR_END) ** (1 / 2.4) - 0.055
    return torch.where(linear <= _SRGB_LINEAR_END, 12.92 * linear, power)


def encode_display(image: Tensor) -> Tensor:
    """Turn a non-negative linear image into display values: sRGB of Reinhard, clipped to [0, 1].

    This is the domain of PSNR, SSIM, MS-SSIM, LDR-FLIP, LPIPS and E-LPIPS. There is no exposure:
    the scene's own scale decides. Differentiable.
    """
    return srgb(reinhard(image)).clamp(0, 1)


def _check_alike(image: Tensor, other: Tensor, what: str, than: str) -> None:
    if image.shape != other.shape:
        raise LayoutError(
            f"{what}: got shape {tuple(image.shape)}; expected that of the {than}, "
            f"{tuple(other.shape)}"
        )
    if image.dtype != other.dtype or image.device != other.device:
        raise ConfigError(
            f"{what}: got {image.dtype} on {image.device}; expected as the {than}: "
            f"{other.dtype} on {other.device} (image.to(reference))"
        )


def _check_nonnegative(image: Tensor, what: str) -> None:
    if count := int((image < 0).sum()):
        raise ConfigError(
            f"{what}: {count} of {image.numel()} values are negative, down to "
            f"{float(image.min()):g}; this metric needs light that can be shown. "
            f"Pass mitsuba_gdpt.metrics.displayable(image)"
        )
