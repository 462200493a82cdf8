"""What NFOR starts from: colour, features and their variances, with or without halves."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import PRIMAL, VARIANCE_SUFFIX
from mitsuba_gdpt.denoisers.classical.nfor.pair import Pair
from mitsuba_gdpt.denoisers.images import mean_depth, window_mean
from mitsuba_gdpt.errors import ConfigError, LayoutError

#: Features that a render always has, with their variances.
FEATURES = ("albedo", "normal", "depth")
#: A feature without a variance channel: used where two halves tell how noisy it is.
VISIBILITY = "visibility"

Halves = tuple[FrameBuffers, FrameBuffers]

_SCALING_WINDOW = 7  # pixels: squares over which two estimates of the variance are compared
_LEAST_SCALE = 0.1
_VISIBILITY_WINDOW = 3  # pixels: square over which its only estimate is averaged
_LARGEST_MISMATCH = 0.05  # of render and halves, relative to the difference of the halves


@dataclass(frozen=True)
class Image:
    """One buffer of a render.

    Attributes:
        value: (C, H, W) float32, mean of all samples.
        variance: (H, W) variance of ``value``, mean over C.
        halves: ``value`` of two halves of the samples, if they were given.
    """

    value: torch.Tensor
    variance: torch.Tensor
    halves: Pair | None = None


def read(buffers: FrameBuffers, halves: Halves | None) -> tuple[Image, list[Image]]:
    """Take colour and features out of a render and its halves.

    Returns:
        The primal, and the features: all of order 1, depth in units of its mean.

    Raises:
        ConfigError: The render is not the mean of the halves.
        LayoutError: The halves differ from the render in size or device, or lack a buffer.
        NonFiniteError: The halves contain NaN or infinity.
    """
    names = list(FEATURES)
    share = None
    if halves is not None:
        if all(VISIBILITY in part for part in (buffers, *halves)):
            names.append(VISIBILITY)
        _check(buffers, halves, names)
        share = _share(*(_planar(part, PRIMAL) for part in (buffers, *halves)))
    colour = _image(PRIMAL, buffers, halves, share)
    return colour, [_image(name, buffers, halves, share) for name in names]


def _check(buffers: FrameBuffers, halves: Halves, names: list[str]) -> None:
    if len(halves) != 2:
        raise ConfigError(f"got {len(halves)} halves; expected two renders, or None")
    for label, half in zip("ab", halves, strict=True):
        if half.data.shape[:2] != buffers.data.shape[:2] or half.device != buffers.device:
            raise LayoutError(
                f"half {label} is {half.height} x {half.width} on {half.device}; expected "
                f"{buffers.height} x {buffers.width} on {buffers.device}, as the whole render"
            )
        if missing := [name for name in (PRIMAL, *names) if name not in half]:
            raise LayoutError(
                f"half {label} lacks the buffer(s) {', '.join(missing)}; "
                f"there are: {', '.join(half.names)}"
            )
        half.validate((PRIMAL, *names))


def _share(whole: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> float:
    """Find which fraction of the samples is in the first half, by least squares.

    Raises:
        ConfigError: The whole is not a weighted mean of the halves.
    """
    difference = (a - b).double()
    squared = float(difference.square().sum())
    scale = float(whole.double().square().sum())
    noisy = squared > 1e-12 * scale
    share = float((difference * (whole - b)).sum()) / squared if noisy else 0.5
    mismatch = float((whole - b - share * difference).square().sum())
    if mismatch > _LARGEST_MISMATCH**2 * squared + 1e-10 * scale or not 0.01 < share < 0.99:
        raise ConfigError(
            "the primal is not the mean of the two halves' primals; pass the halves whose "
            "sample-weighted mean these buffers are"
        )
    return share


def _image(name: str, buffers: FrameBuffers, halves: Halves | None, share: float | None) -> Image:
    """Take one buffer out of a render and its halves, with the best estimate of its variance."""
    value = _planar(buffers, name)
    unit = torch.ones_like(value[0, 0, 0])
    if name == "depth":
        unit = mean_depth(value[..., None])[0, 0, 0, 0]
    value = value / unit
    if halves is None or share is None:
        return Image(value, buffers[name + VARIANCE_SUFFIX][..., 0].clamp_min(0) / unit**2)
    pair = Pair(_planar(halves[0], name) / unit, _planar(halves[1], name) / unit, share)
    if name == VISIBILITY:
        return Image(value, _window_mean(pair.variance(), _VISIBILITY_WINDOW), pair)
    variance = buffers[name + VARIANCE_SUFFIX][..., 0].clamp_min(0) / unit**2
    return Image(value, _matched(variance, pair.variance()), pair)


def _matched(variance: torch.Tensor, from_halves: torch.Tensor) -> torch.Tensor:
    """Scale the sample variance to agree with the difference of the halves around each pixel.

    Stratified samples have less error than their variance suggests. The difference of the halves
    shows how much less, without bias but with much noise, so the two are compared over windows;
    F. Rousselle et al., *Adaptive Rendering with Non-Local Means Filtering*, 2012. Never up:
    more error than independent samples have is noise of the comparison.
    """
    tiny = torch.finfo(variance.dtype).tiny
    expected = _window_mean(from_halves, _SCALING_WINDOW)
    ratio = expected / _window_mean(variance, _SCALING_WINDOW).clamp_min(tiny)
    return variance * ratio.clamp(_LEAST_SCALE, 1)


def _planar(buffers: FrameBuffers, name: str) -> torch.Tensor:
    """(C, H, W) contiguous."""
    return buffers[name].movedim(-1, 0).contiguous()


def _window_mean(image: torch.Tensor, size: int) -> torch.Tensor:
    return window_mean(image[None, ..., None], size)[0, ..., 0]
