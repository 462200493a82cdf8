r"""Fusion of an image with sampled gradients: a screened Poisson solve with weights per pixel.

With an image :math:`B` of brightness :math:`b`, sampled gradients :math:`G_x, G_y`, weights
:math:`w_x, w_y \ge 0` per pixel and forward differences :math:`\Delta_x, \Delta_y`, the result
minimises

.. math:: \sum |x - B|^2 / b^2 + \sum w_x |\Delta_x x - G_x|^2 / (b b_{right})
    + \sum w_y |\Delta_y x - G_y|^2 / (b b_{below})

over pixels and RGB. Errors count relative to the brightness, so that where a lamp meets a dark wall
the lamp gives way: one per cent of its radiance may be many times that of the wall. The result is
linear in B and G, and differentiable in these and the weights. The derivative is that of the exact
minimum (implicit differentiation, one more solve with the same matrix), so no iteration is stored.
Where both weights vanish the result is B.
"""

from __future__ import annotations

from typing import Any

import torch

#: Steps of conjugate gradients. With weights of 20 everywhere they leave 2 % of the correction;
#: a fixed number never waits for a GPU.
ITERATIONS = 24
_TINY = 1e-30


def fuse(
    base: torch.Tensor,
    dx: torch.Tensor,
    dy: torch.Tensor,
    weight_x: torch.Tensor,
    weight_y: torch.Tensor,
    brightness: torch.Tensor,
    iterations: int = ITERATIONS,
) -> torch.Tensor:
    """Return the minimum.

    Args:
        base: (N, H, W, 3).
        dx: (N, H, W, 3) forward differences; the last column is not read.
        dy: The same in y; the last row is not read.
        weight_x: (N, H, W, 1), 0 or more; the last column is not read.
        weight_y: The same in y; the last row is not read.
        brightness: (N, H, W, 1), above 0; without derivative.
        iterations: Steps of conjugate gradients.

    Returns:
        (N, H, W, 3).
    """
    base, dx, dy, weight_x, weight_y, brightness = (
        x.permute(0, 3, 1, 2) for x in (base, dx, dy, weight_x, weight_y, brightness)
    )
    confidence = brightness.detach().square().reciprocal()
    root = confidence.sqrt()
    weight_x = weight_x[..., :-1] * root[..., 1:] * root[..., :-1]
    weight_y = weight_y[..., :-1, :] * root[..., 1:, :] * root[..., :-1, :]
    # The unknown is the correction of the base: rounding errors are then relative to it.
    rows_x = weight_x * (dx[..., :-1] - _difference_x(base))
    rows_y = weight_y * (dy[..., :-1, :] - _difference_y(base))
    right = _adjoint(rows_x, rows_y)
    correction: torch.Tensor = _Solve.apply(right, weight_x, weight_y, confidence, iterations)
    return (base + correction).permute(0, 2, 3, 1)


def _difference_x(x: torch.Tensor) -> torch.Tensor:
    return x[..., 1:] - x[..., :-1]


def _difference_y(x: torch.Tensor) -> torch.Tensor:
    return x[..., 1:, :] - x[..., :-1, :]


def _adjoint(rows_x: torch.Tensor, rows_y: torch.Tensor) -> torch.Tensor:
    """Apply the transposed differences: (N, 3, H, W-1) and (N, 3, H-1, W) to (N, 3, H, W)."""
    n, channels, height = rows_x.shape[:3]
    result = rows_x.new_zeros(n, channels, height, rows_y.shape[3])
    result[..., 1:] += rows_x
    result[..., :-1] -= rows_x
    result[..., 1:, :] += rows_y
    result[..., :-1, :] -= rows_y
    return result


class _Solve(torch.autograd.Function):
    """The solution of (confidence + Dx' wx Dx + Dy' wy Dy) x = right."""

    @staticmethod
    def forward(
        ctx: Any,
        right: torch.Tensor,
        weight_x: torch.Tensor,
        weight_y: torch.Tensor,
        confidence: torch.Tensor,
        iterations: int,
    ) -> torch.Tensor:
        solution = _conjugate_gradients(right, weight_x, weight_y, confidence, iterations)
        ctx.iterations = iterations
        ctx.save_for_backward(solution, weight_x, weight_y, confidence)
        return solution

    @staticmethod
    def backward(
        ctx: Any, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None]:
        solution, weight_x, weight_y, confidence = ctx.saved_tensors
        # The matrix is symmetric: the adjoint problem is the same one.
        adjoint = _conjugate_gradients(gradients[0], weight_x, weight_y, confidence, ctx.iterations)
        by_x = -(_difference_x(adjoint) * _difference_x(solution)).sum(1, keepdim=True)
        by_y = -(_difference_y(adjoint) * _difference_y(solution)).sum(1, keepdim=True)
        return adjoint, by_x, by_y, None, None


def _conjugate_gradients(
    right: torch.Tensor,
    weight_x: torch.Tensor,
    weight_y: torch.Tensor,
    confidence: torch.Tensor,
    iterations: int,
) -> torch.Tensor:
    """Solve with the diagonal as preconditioner, every image and channel with its own steps."""
    diagonal = confidence.clone()
    diagonal[..., 1:] += weight_x
    diagonal[..., :-1] += weight_x
    diagonal[..., 1:, :] += weight_y
    diagonal[..., :-1, :] += weight_y
    # Scaled by 1 / sqrt(diagonal) from both sides the matrix has a diagonal of ones.
    scale = diagonal.rsqrt()
    coupling_x = weight_x * scale[..., 1:] * scale[..., :-1]
    coupling_y = weight_y * scale[..., 1:, :] * scale[..., :-1, :]
    residual = right * scale
    solution = torch.zeros_like(residual)
    direction = residual.clone()
    squared = _squared(residual)
    for _ in range(iterations):
        product = direction.clone()
        product[..., 1:].addcmul_(coupling_x, direction[..., :-1], value=-1)
        product[..., :-1].addcmul_(coupling_x, direction[..., 1:], value=-1)
        product[..., 1:, :].addcmul_(coupling_y, direction[..., :-1, :], value=-1)
        product[..., :-1, :].addcmul_(coupling_y, direction[..., 1:, :], value=-1)
        length = squared / _dot(direction, product).clamp_min(_TINY)
        solution.addcmul_(length, direction)
        residual.addcmul_(length, product, value=-1)
        previous, squared = squared, _squared(residual)
        direction.mul_(squared / previous.clamp_min(_TINY)).add_(residual)
    return solution.mul_(scale)


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Inner product per image and channel, (N, 3, 1, 1)."""
    return (a * b).sum((2, 3), keepdim=True)


def _squared(a: torch.Tensor) -> torch.Tensor:
    """Inner product with itself: reads once, and writes nothing."""
    return torch.linalg.vector_norm(a, dim=(2, 3), keepdim=True).square()
