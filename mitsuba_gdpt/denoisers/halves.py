"""Two independent renders of the same image: the least noise that has no bias.

Least squares with weights by the inverse variance would be the best unbiased estimate of an image
from its primal and gradients, if the variances were known. Estimated from the same samples, they
bias it: where a pixel happens to be too bright its variance does, too. So each half is solved with
the variances of the *other* one. These are independent of its noise, the solution is linear in the
buffers, and so its expectation is the image.

Uniform weights (``poisson-l2``) are as good where noise is even, and fail where it is not: the
noise of the edges of a lamp in view goes far around it.
"""

from __future__ import annotations

import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import PRIMAL
from mitsuba_gdpt.denoisers.images import window_mean
from mitsuba_gdpt.denoisers.solvers.screened_poisson import solve_weighted
from mitsuba_gdpt.denoisers.variances import SAMPLED, estimated_variances, rendered_variances
from mitsuba_gdpt.errors import LayoutError

#: Pixels around that a variance is the largest mean of: single ones are too low by chance.
_WINDOW = 5
#: Least standard deviation, relative to the brightness around and a thousandth of the mean one.
_RELATIVE, _DARK = 1e-3, 1e-3
_TINY = 1e-30


def reconstruct_halves(a: FrameBuffers, b: FrameBuffers) -> tuple[torch.Tensor, torch.Tensor]:
    """Reconstruct two independent renders of the same image, without bias.

    Args:
        a: A render with ``primal``, ``dx`` and ``dy``, and best with their variances; without them
            they are estimated from contradictions of the three.
        b: Another one with other samples.

    Returns:
        The images (H, W, 3), float32 linear radiance; a little below 0 where it is dark.

    Raises:
        LayoutError: A buffer is missing, or sizes differ.
    """
    for frame in (a, b):
        if missing := [name for name in SAMPLED if name not in frame]:
            raise LayoutError(f"halves need {', '.join(SAMPLED)}; {', '.join(missing)} missing")
    if a.data.shape[:2] != b.data.shape[:2]:
        raise LayoutError(
            f"halves of one image have one size; got {tuple(a.data.shape[:2])} and "
            f"{tuple(b.data.shape[:2])}"
        )
    of_a, of_b = _variances(a), _variances(b)
    return _solve(a, of_b), _solve(b, of_a)


def _variances(frame: FrameBuffers) -> list[torch.Tensor]:
    """Return the variances of the primal, dx and dy, (H, W, 1) above 0 each."""
    data, layout = frame.data[None], frame.layout
    found = {**estimated_variances(data, layout), **rendered_variances(data, layout)}
    bright = window_mean(frame[PRIMAL][None].clamp_min(0).mean(-1, keepdim=True), _WINDOW)
    least = (_RELATIVE * (bright + _DARK * bright.mean())).square() + _TINY
    return [
        (torch.maximum(found[name], window_mean(found[name], _WINDOW)) + least)[0]
        for name in SAMPLED
    ]


def _solve(frame: FrameBuffers, variances: list[torch.Tensor]) -> torch.Tensor:
    primal, dx, dy = (frame[name].permute(2, 0, 1)[None] for name in SAMPLED)
    confidence, weight_x, weight_y = (v.reciprocal().permute(2, 0, 1)[None] for v in variances)
    solved = solve_weighted(primal, dx, dy, confidence, weight_x, weight_y)
    return solved[0].permute(1, 2, 0).contiguous()
