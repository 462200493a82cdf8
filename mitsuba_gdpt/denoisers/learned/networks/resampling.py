"""Resampling by a factor of two without parameters, on channel-last tensors (N, H, W, C).

The variants of NGPT besides learned convolutions. Beyond the border images go on by reflection
about their last pixel. Lanczos filters have two lobes; pixels lie at the centres of their areas, so
that a pixel of the finer image is a quarter of a pixel off those of the coarser one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

_AXES = (-3, -2)


def average(x: torch.Tensor) -> torch.Tensor:
    """Return means of 2x2 pixels."""
    return _blocks(x).mean((-4, -2))


def maximum(x: torch.Tensor) -> torch.Tensor:
    """Return maxima of 2x2 pixels."""
    return _blocks(x).amax((-4, -2))


def lanczos_down(x: torch.Tensor) -> torch.Tensor:
    """Halve an image by the Lanczos filter of half the frequency, 8 taps."""
    taps = _normalised([_lanczos((i - 0.5) / 2) for i in range(-3, 5)])
    for dim in _AXES:
        length = x.shape[dim] // 2
        x = _weighted(_reflected(x, dim, 3), dim, taps, length, stride=2)
    return x


def nearest(x: torch.Tensor) -> torch.Tensor:
    """Double an image by repetition."""
    return x.repeat_interleave(2, -3).repeat_interleave(2, -2)


def bilinear(x: torch.Tensor) -> torch.Tensor:
    """Double an image by linear interpolation."""
    return _doubled(x, lambda offset: [1 - offset, offset])


def lanczos_up(x: torch.Tensor) -> torch.Tensor:
    """Double an image by the Lanczos filter, 4 taps."""
    return _doubled(x, lambda offset: _normalised([_lanczos(i - offset) for i in range(-1, 3)]))


#: Resampling to half and to twice the size, by name.
DOWN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "average": average,
    "max": maximum,
    "lanczos": lanczos_down,
}
UP: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "bilinear": bilinear,
    "nearest": nearest,
    "lanczos": lanczos_up,
}
#: How far each reads beyond what a 2x2 convolution would, in pixels of its input.
REACH = {"average": 0, "max": 0, "nearest": 0, "bilinear": 1, "lanczos": 3}


def _blocks(x: torch.Tensor) -> torch.Tensor:
    n, height, width, channels = x.shape
    return x.reshape(n, height // 2, 2, width // 2, 2, channels)


def _lanczos(t: float) -> float:
    return _sinc(t) * _sinc(t / 2)


def _sinc(t: float) -> float:
    return math.sin(math.pi * t) / (math.pi * t) if t else 1.0


def _normalised(taps: Sequence[float]) -> list[float]:
    return [tap / sum(taps) for tap in taps]


def _doubled(x: torch.Tensor, taps: Callable[[float], Sequence[float]]) -> torch.Tensor:
    """Double an image by filters at 1/4 and 3/4 between its pixels, along one axis after another.

    Args:
        x: (N, H, W, C).
        taps: Position between two pixels to the weights of those around, half of them before it.
    """
    filters = [taps(0.25), taps(0.75)]
    pad = len(filters[0]) // 2
    for dim in _AXES:
        length = x.shape[dim]
        extended = _reflected(x, dim, pad)
        # Between the pixel before the first and the first lies the first output, and so on.
        phases = [_weighted(extended, dim, weights, length + 1) for weights in filters]
        x = torch.stack(phases, dim).flatten(dim - 1, dim).narrow(dim, 1, 2 * length)
    return x


def _weighted(
    x: torch.Tensor, dim: int, taps: Sequence[float], length: int, stride: int = 1
) -> torch.Tensor:
    """Correlate with a filter along an axis; the first output reads the first entries."""
    reach = (length - 1) * stride + 1
    parts = [x.narrow(dim, i, reach) for i in range(len(taps))]
    if stride > 1:
        index = torch.arange(0, reach, stride, device=x.device)
        parts = [part.index_select(dim, index) for part in parts]
    return torch.stack([tap * part for tap, part in zip(taps, parts, strict=True)]).sum(0)


def _reflected(x: torch.Tensor, dim: int, pad: int) -> torch.Tensor:
    """Extend an image of any size at both ends of an axis."""
    size = x.shape[dim]
    period = max(2 * (size - 1), 1)
    folded = torch.arange(-pad, size + pad, device=x.device).remainder(period)
    return x.index_select(dim, torch.where(folded < size, folded, period - folded))
