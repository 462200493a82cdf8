r"""Variances of the primal and its gradients: as rendered, or estimated from contradictions.

The primal and its gradients measure the same image, so that where they contradict each other there
is noise, whatever the image is:

- The true gradients around a square of four pixels add up to nothing. What the sampled ones add up
  to, their *circulation*, has the sum of four variances as its expected square.
- The differences of the primal and the gradients have the same expectation. The expected square of
  what is between them is at most about twice the variance of the primal plus that of the gradient.

Both are estimates from single pixels: unbiased up to correlations between neighbours, but with
relative deviations of 1 and more. The variance of few samples is no better: where they happen to
agree it is 0, whatever they miss. Both rarely fail at the same pixel, so :func:`cautious` takes the
larger one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mitsuba_gdpt.channels import DIFFERENCE_AXES, PRIMAL, VARIANCE_SUFFIX, Layout
from mitsuba_gdpt.denoisers.images import difference, mean_square

#: What the functions of this module return a variance of.
SAMPLED = (PRIMAL, *DIFFERENCE_AXES)

Variances = Mapping[str, torch.Tensor]


def rendered_variances(data: torch.Tensor, layout: Layout) -> Variances:
    """Return those variances that were rendered, (N, H, W, 1) each.

    Args:
        data: (N, H, W, C) buffers.
        layout: Meaning of C.
    """
    names = {name: name + VARIANCE_SUFFIX for name in SAMPLED}
    return {
        name: data[..., layout.slices[buffer]] for name, buffer in names.items() if buffer in layout
    }


def estimated_variances(data: torch.Tensor, layout: Layout) -> Variances:
    """Estimate the variances of the pixel means, mean over RGB, (N, H, W, 1) each.

    Like those that are rendered, they are 0 where there is no difference. A frame of one row or
    column has no squares of pixels: there the gradients seem free of noise.

    Args:
        data: (N, H, W, C) buffers.
        layout: Meaning of C; has the primal and its gradients.
    """
    primal, dx, dy = (data[..., layout.slices[name]] for name in SAMPLED)
    along_x, along_y = DIFFERENCE_AXES["dx"], DIFFERENCE_AXES["dy"]
    # Zero in the last row and column, where a gradient is missing.
    circulation = mean_square(difference(dy, along_x) - difference(dx, along_y)) / 4
    between = [
        _both_sides(mean_square(difference(primal, dim) - gradient), dim) / 2
        for gradient, dim in ((dx, along_x), (dy, along_y))
    ]
    directions = max(1, sum(primal.shape[dim] > 1 for dim in DIFFERENCE_AXES.values()))
    return {
        PRIMAL: torch.stack(between).sum(0) / directions,
        "dx": _both_sides(circulation, along_y),
        "dy": _both_sides(circulation, along_x),
    }


def cautious_variances(data: torch.Tensor, layout: Layout) -> Variances:
    """Return the rendered variances, those of dx and dy not below their estimates.

    Args:
        data: (N, H, W, C) buffers.
        layout: Meaning of C; has the primal, its gradients, and the variances of the gradients.
    """
    estimates, variances = estimated_variances(data, layout), rendered_variances(data, layout)
    larger = {name: torch.maximum(variances[name], estimates[name]) for name in DIFFERENCE_AXES}
    return {**variances, **larger}


def _both_sides(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Give each position the mean of what lies before and behind it.

    Args:
        x: Entry i belongs between the positions i and i + 1; the last one is nothing.
        dim: Axis.
    """
    size = x.shape[dim]
    if size == 1:
        return torch.zeros_like(x)
    inner, end = x.narrow(dim, 0, size - 1), torch.zeros_like(x.narrow(dim, 0, 1))
    behind, before = torch.cat([inner, end], dim), torch.cat([end, inner], dim)
    count = torch.full((size,), 2.0, dtype=x.dtype, device=x.device)
    count[0] = count[-1] = 1.0
    shape = [1] * x.dim()
    shape[dim] = size
    return (behind + before) / count.view(shape)
