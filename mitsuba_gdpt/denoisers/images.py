"""What is done to images whatever they show: differences, windows, brightness, spikes, motion."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch.nn import functional

from mitsuba_gdpt.channels import DIFFERENCE_AXES, PRIMAL

LEARNED_KEY = 0.18  # what networks with an exposure of their own have learned with, as OIDN

_BLOCK = 16
_BLACK = 1e-12  # luminance, relative to the brightest block, that counts as none
_LUMINANCE = (0.2126, 0.7152, 0.0722)
#: Factors keep to 2 to plus or minus this, so that they and their inverses are normal float32.
LARGEST_EXPONENT = 120
_DARK = 1e-8
_PLANAR_ROWS = 16


def difference(image: torch.Tensor, dim: int) -> torch.Tensor:
    """Return forward differences, and 0 at the end; each channel as it lies in memory."""
    length = image.shape[dim] - 1
    result = torch.empty_like(image)
    here, following = (image.narrow(dim, start, length) for start in (0, 1))
    if image.requires_grad:
        result.narrow(dim, 0, length).copy_(following - here)
    else:
        torch.sub(following, here, out=result.narrow(dim, 0, length))
    result.narrow(dim, length, 1).zero_()
    return result


def mean_depth(depth: torch.Tensor) -> torch.Tensor:
    """Return the mean depth of what was hit: a unit of length that fits the scene.

    Args:
        depth: (N, H, W, 1); 0 where nothing was hit.

    Returns:
        (N, 1, 1, 1); 1 where nothing was hit at all.
    """
    mean = depth.sum((1, 2, 3)) / (depth > 0).sum((1, 2, 3)).clamp_min(1)
    return torch.where(mean > 0, mean, torch.ones_like(mean))[:, None, None, None]


def mean_square(x: torch.Tensor) -> torch.Tensor:
    """Return the mean of squares over the channels, (..., C) to (..., 1)."""
    # Several times as fast as a reduction along the last axis, on planes of channels.
    first, *others = x.unbind(-1)
    total = first.square()
    for values in others:
        total = total.addcmul_(values, values)
    return total.div_(x.shape[-1])[..., None]


def window_mean(x: torch.Tensor, size: int) -> torch.Tensor:
    """Return the mean over a square window, of what lies inside the frame.

    Args:
        x: (N, H, W, C).
        size: Side of the window in pixels, odd.
    """
    for dim in (1, 2):
        x = _window_mean_along(x, size // 2, dim)
    return x


def _window_mean_along(x: torch.Tensor, reach: int, dim: int) -> torch.Tensor:
    length = x.shape[dim]
    total = x.clone()
    count = x.new_ones(length)
    for k in range(1, min(reach, length - 1) + 1):
        for of, values in ((dim, (total, x)), (0, (count, torch.ones_like(count)))):
            result, source = values
            result.narrow(of, 0, length - k).add_(source.narrow(of, k, length - k))
            result.narrow(of, k, length - k).add_(source.narrow(of, 0, length - k))
    shape = [1] * x.dim()
    shape[dim] = length
    return total.mul_(count.reciprocal().view(shape))


def planar(data: torch.Tensor) -> torch.Tensor:
    """Return the same values (N, H, W, C), every channel in one piece of memory.

    Arithmetic on single channels, and means over three of them, run several times faster on it.
    """
    n, height, width, channels = data.shape
    planes = data.permute(0, 3, 1, 2)
    if data.requires_grad or planes.is_contiguous():
        return planes.contiguous().permute(0, 2, 3, 1)
    result = planes.new_empty(n, channels, height, width)
    # The channels of a pixel are read one after the other: from the cache, if they fit into it.
    for top in range(0, height, _PLANAR_ROWS):
        rows = slice(top, top + _PLANAR_ROWS)
        result[:, :, rows].copy_(planes[:, :, rows])
    return result.permute(0, 2, 3, 1)


def exposure_scale(primal: torch.Tensor) -> torch.Tensor:
    """Return the factor that brings a frame to a common brightness, (N, 1, 1, 1).

    It is 0.18 over the geometric mean of the luminance of blocks, which hardly depends on
    the noise; black blocks do not count. 1 for a black frame. ``2 ** n`` times the radiance gives
    exactly ``2 ** -n`` times the factor.

    Args:
        primal: (N, H, W, 3) radiance.
    """
    if primal.device.type == "mps":  # which lacks some of these operations
        return exposure_scale(primal.cpu()).to(primal.device)
    red, green, blue = (primal[..., i] * factor for i, factor in enumerate(_LUMINANCE))
    luminance = red.add_(green).add_(blue)
    unit = _power_of_two(luminance.amax((1, 2)))
    rows, columns = (max(1, size // _BLOCK) for size in luminance.shape[1:])
    blocks = functional.adaptive_avg_pool2d(
        (luminance / unit[:, None, None])[:, None], (rows, columns)
    ).flatten(1)
    lit = blocks > (_BLACK * blocks.amax(1, keepdim=True)).clamp_min(0)
    logarithms = torch.where(lit, blocks, torch.ones_like(blocks)).log()
    mean = (logarithms.sum(1) / lit.sum(1).clamp_min(1)).exp()
    scale = (LEARNED_KEY / mean / unit).clamp(2.0**-LARGEST_EXPONENT, 2.0**LARGEST_EXPONENT)
    return torch.where(lit.any(1), scale, torch.ones_like(mean))[:, None, None, None]


def _power_of_two(x: torch.Tensor) -> torch.Tensor:
    """Return the powers of two next to positive numbers, exactly; 1 for others."""
    positive = x > 0
    x = torch.where(positive, x, torch.ones_like(x))
    return (x / (2 * torch.frexp(x).mantissa)).clamp_min(2.0**-LARGEST_EXPONENT)


def without_spikes(buffers: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Limit isolated bright pixels of the primal, and its gradients accordingly.

    A pixel's mean over RGB becomes at most that of the brightest of its eight neighbours. Radiance
    is not negative, so no difference is larger than the larger of the two pixels: gradients are
    limited to the brightest of the limited pixels around. Colours stay.

    Args:
        buffers: Name to (N, H, W, c); has the primal.

    Returns:
        The primal, and dx and dy as far as they were there.
    """
    primal = buffers[PRIMAL]
    mean = primal.mean(-1)
    limit = brightest_around(mean)
    limited = {PRIMAL: primal * _at_most(mean, limit)}
    around = _brightest(torch.minimum(mean, limit), center=True)
    for name in DIFFERENCE_AXES:
        if name in buffers:
            gradient = buffers[name]
            limited[name] = gradient * _at_most(gradient.abs().mean(-1), around)
    return limited


def brightest_around(image: torch.Tensor) -> torch.Tensor:
    """Return the brightest of the eight pixels around each one; itself where there is none.

    Args:
        image: (N, H, W).
    """
    return _brightest(image, center=False)


def _brightest(image: torch.Tensor, *, center: bool) -> torch.Tensor:
    """Return the maximum over 3x3 pixels, (N, H, W), with or without the one in the middle."""
    padded = functional.pad(image, (1, 1, 1, 1), value=-math.inf)
    sides = torch.maximum(padded[..., :-2], padded[..., 2:])
    rows = torch.maximum(sides, padded[..., 1:-1])
    others = torch.maximum(rows[:, :-2], rows[:, 2:])
    result = torch.maximum(others, (rows if center else sides)[:, 1:-1])
    return torch.where(result.isinf(), image, result)  # a frame of one pixel has no neighbours


def _at_most(value: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
    """Return the factors (N, H, W, 1) that bring values of 0 or more down to their limits."""
    factor = limit.clamp_min(0) / value.clamp_min(_DARK)
    return torch.where(value > limit, factor, torch.ones_like(factor))[..., None]


def warp(
    image: torch.Tensor, motion: torch.Tensor, mode: str = "bilinear", beyond: str = "zeros"
) -> torch.Tensor:
    """Fetch from an earlier image what is at each pixel now.

    Args:
        image: (N, H, W, c).
        motion: (N, H, W, 2) in pixels of the image, +x right, +y down: what is at (x, y) was at
            (x, y) + motion.
        mode: ``"bilinear"`` or ``"bicubic"``.
        beyond: What is beyond the border: ``"zeros"``, or the nearest pixel, ``"border"``.

    Returns:
        (N, H, W, c).
    """
    height, width = image.shape[1:3]
    rows = torch.arange(height, device=image.device, dtype=motion.dtype)[:, None]
    columns = torch.arange(width, device=image.device, dtype=motion.dtype)
    # With align_corners=False, -1 and 1 are the outer edges of the first and last pixel.
    x = (2 * (columns + motion[..., 0]) + 1) / width - 1
    y = (2 * (rows + motion[..., 1]) + 1) / height - 1
    moved = functional.grid_sample(
        image.permute(0, 3, 1, 2), torch.stack([x, y], -1), mode, beyond, align_corners=False
    )
    return moved.permute(0, 2, 3, 1)
