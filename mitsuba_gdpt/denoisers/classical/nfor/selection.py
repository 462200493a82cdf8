"""Choice of the bandwidth per pixel, by estimates of the squared error from two halves.

Bitterli et al. 2016, section 5.3. Each half was denoised with weights and features from the other
half; what it became can be compared with the other half's noisy colours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812

from mitsuba_gdpt.denoisers.classical.nfor.nlmeans import PatchDistances, filter_images
from mitsuba_gdpt.denoisers.classical.nfor.pair import Pair

# Of the filter that smooths errors and choices. The paper takes 1, which at few samples carries
# choices from noisy pixels to dark ones beside them.
_BANDWIDTH = 0.5


def squared_error(colour: Pair, variance: torch.Tensor, filtered: Pair) -> torch.Tensor:
    """Estimate the squared error of the mean of two filtered halves.

    Args:
        colour: The noisy halves.
        variance: (H, W) variance of their mean.
        filtered: The halves denoised, colours of each regressed on their own.

    Returns:
        (H, W) mean over channels: unbiased but noisy, so it can be negative.
    """
    variance_a, variance_b = colour.variances_of_halves(variance)
    error_a = (filtered.a - colour.b).square().mean(0) - variance_b
    error_b = (filtered.b - colour.a).square().mean(0) - variance_a
    # These are errors of the halves; averaging takes away this much of their variance.
    return colour.mix(error_a, error_b) - filtered.variance()


def select(errors: torch.Tensor, candidates: Sequence[Pair], distances: PatchDistances) -> Pair:
    """Blend candidates, in favour of the one with the least estimated error.

    Args:
        errors: (K, H, W) noisy squared errors.
        candidates: K pairs of filtered halves.
        distances: Of the noisy image, to smooth errors and choices with.

    Returns:
        The blend of the first and of the second halves.
    """
    smooth = filter_images(errors, distances, _BANDWIDTH)
    best = F.one_hot(smooth.argmin(0), len(candidates)).movedim(-1, 0).to(errors.dtype)
    shares = filter_images(best, distances, _BANDWIDTH)[:, None]
    a = (shares * torch.stack([pair.a for pair in candidates])).sum(0)
    b = (shares * torch.stack([pair.b for pair in candidates])).sum(0)
    return Pair(a, b, candidates[0].share)
