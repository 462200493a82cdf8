"""How far a reconstruction is off, estimated without a reference, from two halves of its samples.

Let A and B be the reconstructions of two independent halves, a and b their noisy primals, each the
mean of two independent parts, a1 and a2, b1 and b2. A knows nothing of b, so (A - b1) (A - b2) has
the squared error of A as its expectation, bias included, whatever the method does. So has
(A - b)^2 less the variance of b, half the expectation of (a - b)^2. These are all six pairs of
parts; :func:`_error_of_half` is their mean, for A and B.

Four steps make a map of it:

- Errors are relative to brightness, for which the reconstruction stands in. Where it contradicts
  the noisy primal by more than noise explains (as beside lamps that it spreads), the primal does,
  and where it keeps a spike that one half has, the other half: :func:`_brightness`.
- The mean over the pixels has a standard error, which single pixels with fireflies make large. The
  variance of the image of all samples, (A - B)^2 / 4, is known closely; alone it misses what both
  halves get wrong alike, mostly more than half. But on training scenes the error of a half is
  :data:`TIMES_VARIANCE` times as large, within a factor of exp(:data:`SPREAD`). Both are put
  together by Bayes' rule: :func:`_levels`.
- The variance of a half is twice that of all samples, and the bias is about the same: the error of
  the image of all samples is less by the variance.
- Likewise in a window around each pixel, where the ratio to the variance is that of the frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Squared error of a half over the variance of the image of all samples: the geometric mean over
#: renders of training scenes, and the standard deviation of its logarithm.
TIMES_VARIANCE, SPREAD = 4.4, 0.45
#: Degrees of freedom of its distribution.
_FREEDOM = 4
#: Standard error of what is measured, relative to it, besides that of the mean. With it true
#: errors of renders of training scenes are in the range of an :class:`Estimate` as often as told.
_UNSURE = 0.1
#: What is at the ends of that range, and in between.
_QUANTILES = 0.1, 0.5, 0.9
#: Of that ratio in a window, about that of the frame.
_LOCAL_SPREAD = 0.5
#: Side of the window that the map is smoothed with, in pixels.
_WINDOW = 17
#: A pixel is a spike if it is so many times as bright as the brightest around it.
_SPIKE = 1.5
#: Of the squared difference of reconstruction and primal, so many times the variance is noise,
#: which is the larger of the pixel's own and what it is, relative to brightness, in a window.
_NOISE, _NOISE_WINDOW = 4.0, 3
_STEPS = 1000
_TINY = 1e-30


@dataclass(frozen=True)
class Half:
    """Half of the samples of an image, which knows nothing of the other half.

    Attributes:
        image: What was reconstructed from it, (H, W, 3).
        primal: What that was made of, (H, W, 3).
        parts: The primal of two independent parts of it, (H, W, 3) each.
    """

    image: torch.Tensor
    primal: torch.Tensor
    parts: tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Estimate:
    """How far an image is off.

    Attributes:
        map: Squared error relative to squared brightness, (H, W, 1), 0 or more, smooth. The mean
            estimates :func:`~mitsuba_gdpt.metrics.relmse`; the constant in it is the same.
        low: The true one is above this in nine of ten renders.
        high: And below this in nine of ten.
    """

    map: torch.Tensor
    low: float
    high: float

    @property
    def level(self) -> float:
        """The mean of the map."""
        return float(self.map.mean())


def estimate(image: torch.Tensor, first: Half, second: Half) -> Estimate:
    """Estimate the squared error of an image, relative to its squared brightness.

    Args:
        image: Reconstruction of all samples, (H, W, 3).
        first: Half of the samples.
        second: The other half.
    """
    from mitsuba_gdpt.denoisers.images import mean_square, window_mean
    from mitsuba_gdpt.metrics.pixelwise import RELMSE_EPSILON

    scale = 1 / (_brightness(image, first, second).square() + RELMSE_EPSILON)
    error = _error_of_half(first, second) * scale
    variance = mean_square(first.image - second.image) * scale / 4
    deviation = error.std(correction=0) / error.numel() ** 0.5
    mean = float(variance.mean())
    low, level, high = _levels(float(error.mean()), float(deviation), mean)
    if not level > 0:
        return Estimate(error.new_zeros(error.shape), 0.0, high)
    local, squares, least = (
        window_mean(values[None], _WINDOW)[0] for values in (error, error.square(), variance)
    )
    uncertain = (squares - local.square()).clamp_min(0) / _WINDOW**2
    expected = least * (level / mean) if mean > 0 else local.clamp_min(0)
    known = (expected * _LOCAL_SPREAD).square()
    local = (local * known + expected * uncertain) / (known + uncertain).clamp_min(_TINY)
    local = (local - least).maximum(least)
    return Estimate(local * ((level - mean) / local.mean()), low - mean, high - mean)


def _error_of_half(first: Half, second: Half) -> torch.Tensor:
    """Return estimates of the mean squared error of the images of both halves, (H, W, 1)."""
    from mitsuba_gdpt.denoisers.images import mean_square

    across = -mean_square(first.primal - second.primal)
    within = across.new_zeros(())
    for half, other in ((first, second), (second, first)):
        across = across + mean_square(half.image - other.primal)
        one, two = (half.image - part for part in other.parts)
        within = within + (one * two).mean(-1, keepdim=True)
    # Four of the six pairs are across.
    return (2 * across + within) / 6


def _brightness(image: torch.Tensor, first: Half, second: Half) -> torch.Tensor:
    """Return the brightness that errors are relative to, the mean over the channels, (H, W, 1)."""
    import torch

    from mitsuba_gdpt.denoisers.images import brightest_around, mean_square, window_mean
    from mitsuba_gdpt.metrics.pixelwise import RELMSE_EPSILON

    grey = image.mean(-1, keepdim=True)
    spike = grey > _SPIKE * brightest_around(grey[None, ..., 0])[0, ..., None]
    for half in (first, second):
        darker = half.image.mean(-1, keepdim=True).minimum(grey)
        grey = darker.where(spike, grey)
    primal = (first.primal + second.primal) / 2
    parts = torch.stack([*first.parts, *second.parts])
    variance = mean_square(parts - primal).sum(0) / (len(parts) * (len(parts) - 1))
    unit = grey.square() + RELMSE_EPSILON
    variance = variance.maximum(window_mean((variance / unit)[None], _NOISE_WINDOW)[0] * unit)
    change = primal.mean(-1, keepdim=True) - grey
    beyond = (change.square() - _NOISE * variance).clamp_min(0)
    return grey + change * (beyond / (beyond + variance).clamp_min(_TINY))


def _levels(error: float, deviation: float, variance: float) -> tuple[float, ...]:
    """Return what the squared error of a half may be, by what is measured and by its variance.

    Args:
        error: Unbiased estimate.
        deviation: Its standard deviation.
        variance: Of the image of all samples; that of a half is twice as large.

    Returns:
        Quantiles of what both leave: 0 or more.
    """
    import torch

    if not variance > 0:
        return (max(0.0, error),) * len(_QUANTILES)
    least, most = math.log(2 * variance), math.log(60 * variance + max(0.0, error) + 4 * deviation)
    logarithm = torch.linspace(least, most, _STEPS, dtype=torch.float64)
    level = logarithm.exp()
    off = (logarithm - math.log(TIMES_VARIANCE * variance)) / SPREAD
    missed = (level - error) / max(math.hypot(deviation, _UNSURE * error), _TINY)
    # Student's t, as a ratio that is far off is possible: of methods that blur, say.
    usual = torch.log1p(off.square() / _FREEDOM) * (_FREEDOM + 1)
    likely = torch.softmax(-(usual + missed.square()) / 2, 0).cumsum(0)
    return tuple(float(level[int((likely < quantile).sum())]) for quantile in _QUANTILES)
