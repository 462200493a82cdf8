"""How far a reconstruction is off, estimated without a reference, from two halves of its samples.

Let A and B be the reconstructions of two independent halves, a and b their noisy primals. A knows
nothing of b, so E[(A - b)^2] is the squared error of A, bias of the reconstruction included, plus
the variance of b; and that is half of E[(a - b)^2]. So

    (A - b)^2 - (a - b)^2 / 2

has the squared error of A as its expectation, whatever the method does. (A - B)^2 / 4 alone, the
variance of the mean of both, misses what both halves get wrong alike: mostly more than half.

The mean of that over the pixels is noisy where single pixels are. So those where the halves of the
primal differ most are left out, no more than it takes to make the standard error of the mean small.
The image of all samples is better than those of the halves, by a factor that is the median over
renders of training scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Squared error of the image of all samples over that of a half: median over training scenes.
ALL_OVER_HALF = 0.65
#: Shares of the pixels that are kept: the largest with which the standard error of the mean is at
#: most so large a part of it, else the last.
_KEPT, _SURE = (1.0, 0.999, 0.99, 0.97, 0.9), 0.3
#: Side of the window that the map is smoothed with, in pixels.
_WINDOW = 17


def error_map(
    image: torch.Tensor, images: Sequence[torch.Tensor], primals: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Estimate the squared error of an image, relative to its squared brightness.

    Args:
        image: Reconstruction of all samples, (H, W, 3).
        images: Reconstructions of two independent halves, (H, W, 3) each.
        primals: What these were made of, (H, W, 3) each.

    Returns:
        (H, W, 1), 0 or more, smooth. The mean estimates
        :func:`~mitsuba_gdpt.metrics.relmse`; the constant in it is the same.
    """
    import torch

    from mitsuba_gdpt.denoisers.images import mean_square, window_mean
    from mitsuba_gdpt.metrics.pixelwise import RELMSE_EPSILON

    (first, second), (a, b) = images, primals
    scale = 1 / (image.mean(-1, keepdim=True).square() + RELMSE_EPSILON)
    noise = mean_square(a - b) * scale
    error = (mean_square(first - b) + mean_square(second - a)) * scale / 2 - noise / 2
    error *= ALL_OVER_HALF
    variance = mean_square(first - second) * scale / 4
    kept = _reliable(error, noise)
    # What noise hides is at least the variance that is seen.
    level = torch.maximum(error[kept].mean(), variance.mean())
    local, least = (
        window_mean(values[None], _WINDOW)[0]
        for values in (torch.where(kept, error, variance), variance)
    )
    local = torch.maximum(local, least)
    mean = local.mean()
    return local * (level / mean) if mean > 0 else local


def _reliable(error: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return which pixels make the mean of the error, (H, W, 1) bool.

    Args:
        error: Estimates of single pixels, (H, W, 1).
        noise: Squared difference of the halves that they are made of, likewise.
    """
    ordered = noise.flatten().sort().values
    for share in _KEPT:
        kept = noise <= ordered[max(1, int(share * len(ordered))) - 1]
        values = error[kept]
        deviation = values.std(correction=0) / len(values) ** 0.5
        if deviation <= _SURE * values.mean():
            break
    return kept
