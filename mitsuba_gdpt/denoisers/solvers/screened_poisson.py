r"""Screened Poisson systems: the five-point operator, conjugate gradients, fusion.

With a confidence :math:`c > 0` per pixel, weights :math:`w_x, w_y \ge 0` of the differences to the
right and downwards, and forward differences :math:`\Delta_x, \Delta_y`, the matrix is

.. math:: A = c + \Delta_x' w_x \Delta_x + \Delta_y' w_y \Delta_y

No difference is taken across the border. Images are (..., H, W); weights are (..., H, W-1) and
(..., H-1, W), and broadcast.
"""

from __future__ import annotations

from typing import Any

import torch

#: Steps of conjugate gradients of :func:`fuse`. With weights of 20 everywhere they leave 2 % of the
#: correction; a fixed number never waits for a GPU.
ITERATIONS = 24

#: Most steps of :func:`solve_weighted`; some hundreds are common.
_MOST_ITERATIONS = 3000

_CHECK_INTERVAL = 4  # steps; reading the residual back synchronises a GPU
# 0 / tiny instead of 0 / 0 where a channel is solved exactly.
_TINY = torch.finfo(torch.float32).tiny


def add_adjoint(image: torch.Tensor, rows_x: torch.Tensor, rows_y: torch.Tensor) -> torch.Tensor:
    """Add the transposed differences of (..., H, W-1) and (..., H-1, W), in place."""
    image[..., 1:] += rows_x
    image[..., :-1] -= rows_x
    image[..., 1:, :] += rows_y
    image[..., :-1, :] -= rows_y
    return image


def normalise(
    confidence: torch.Tensor, weight_x: torch.Tensor, weight_y: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scale rows and columns of the matrix by 1 / sqrt(diagonal).

    This is the Jacobi preconditioner; it leaves a diagonal of ones, which saves a multiplication
    per pixel, and makes the scale of all weights together irrelevant.

    Args:
        confidence: (..., H, W); overwritten.
        weight_x: (..., H, W-1).
        weight_y: (..., H-1, W).

    Returns:
        The scale of the unknowns and of the right-hand side (..., H, W), and the couplings to the
        horizontal (..., H, W-1) and vertical (..., H-1, W) neighbours: matrix entries, negated.
    """
    diagonal = confidence
    diagonal[..., 1:] += weight_x
    diagonal[..., :-1] += weight_x
    diagonal[..., 1:, :] += weight_y
    diagonal[..., :-1, :] += weight_y
    scale = diagonal.rsqrt_()
    coupling_x = (weight_x * scale[..., 1:]).mul_(scale[..., :-1])
    coupling_y = (weight_y * scale[..., 1:, :]).mul_(scale[..., :-1, :])
    return scale, coupling_x, coupling_y


class ConjugateGradients:
    """Conjugate gradients for normalised systems of one shape, whose memory is allocated once.

    Every image and channel has its own step sizes and its own end.
    """

    def __init__(self, like: torch.Tensor) -> None:
        self._solution, self._direction, self._product, self._scratch = (
            torch.empty_like(like) for _ in range(4)
        )

    def __call__(
        self,
        residual: torch.Tensor,
        coupling_x: torch.Tensor,
        coupling_y: torch.Tensor,
        iterations: int,
        tolerance: float = 0.0,
    ) -> torch.Tensor:
        """Solve from a zero start.

        Args:
            residual: (..., H, W) right-hand side; overwritten.
            coupling_x: See :func:`normalise`.
            coupling_y: See :func:`normalise`.
            iterations: Most steps.
            tolerance: A channel is solved when the norm of its residual has fallen to this fraction
                of the first one; 0 takes all steps.

        Returns:
            (..., H, W) solution, valid until the next call.
        """
        solution, direction, product = self._solution.zero_(), self._direction, self._product
        direction.copy_(residual)
        squared = _squared(residual)
        goal = squared * tolerance**2
        for step in range(1, iterations + 1):
            _multiply(direction, coupling_x, coupling_y, product)
            torch.mul(direction, product, out=self._scratch)
            length = squared / self._scratch.sum((-2, -1), keepdim=True).clamp_min_(_TINY)
            solution.addcmul_(length, direction)
            residual.addcmul_(length, product, value=-1)
            previous, squared = squared, _squared(residual)
            if tolerance and step % _CHECK_INTERVAL == 0:
                going = squared > goal
                if not bool(going.any()):
                    break
                # What has arrived stays where it is, as if it were solved alone: the result must
                # not depend on how many channels a device takes at a time.
                residual *= going
                squared *= going
            direction.mul_(squared / previous.clamp_min_(_TINY)).add_(residual)
        return solution


def _squared(a: torch.Tensor) -> torch.Tensor:
    """Inner product with itself: reads once, and writes nothing."""
    return torch.linalg.vector_norm(a, dim=(-2, -1), keepdim=True).square()


def _multiply(
    vector: torch.Tensor, coupling_x: torch.Tensor, coupling_y: torch.Tensor, out: torch.Tensor
) -> None:
    """Write the product of the normalised matrix and ``vector`` (..., H, W) to ``out``."""
    left, right = vector[..., :-1], vector[..., 1:]
    out[..., :1] = vector[..., :1]
    torch.addcmul(right, coupling_x, left, value=-1, out=out[..., 1:])
    out[..., :-1].addcmul_(coupling_x, right, value=-1)
    out[..., 1:, :].addcmul_(coupling_y, vector[..., :-1, :], value=-1)
    out[..., :-1, :].addcmul_(coupling_y, vector[..., 1:, :], value=-1)


def fuse(
    base: torch.Tensor,
    dx: torch.Tensor,
    dy: torch.Tensor,
    weight_x: torch.Tensor,
    weight_y: torch.Tensor,
    brightness: torch.Tensor,
    iterations: int = ITERATIONS,
) -> torch.Tensor:
    r"""Fuse an image with sampled gradients, by weights per pixel.

    With an image :math:`B` of brightness :math:`b` and sampled gradients :math:`G_x, G_y` the
    result minimises

    .. math:: \sum |x - B|^2 / b^2 + \sum w_x |\Delta_x x - G_x|^2 / (b b_{right})
        + \sum w_y |\Delta_y x - G_y|^2 / (b b_{below})

    over pixels and RGB. Errors count relative to the brightness, so that where a lamp meets a dark
    wall the lamp gives way: one per cent of its radiance may be many times that of the wall. The
    result is linear in B and G, and differentiable in these and the weights. The derivative is that
    of the exact minimum (implicit differentiation, one more solve with the same matrix), so no
    iteration is stored. Where both weights vanish the result is B.

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
    right = _right_hand_side(base, dx, dy, weight_x, weight_y)
    correction: torch.Tensor = _Solve.apply(right, weight_x, weight_y, confidence, iterations)
    return (base + correction).permute(0, 2, 3, 1)


def solve_weighted(
    base: torch.Tensor,
    dx: torch.Tensor,
    dy: torch.Tensor,
    confidence: torch.Tensor,
    weight_x: torch.Tensor,
    weight_y: torch.Tensor,
    tolerance: float = 1e-4,
) -> torch.Tensor:
    r"""Minimise :math:`\sum c |x - B|^2 + w_x |\Delta_x x - G_x|^2 + w_y |\Delta_y x - G_y|^2`.

    Args:
        base: (N, 3, H, W) image B.
        dx: (N, 3, H, W) forward differences; the last column is not read.
        dy: The same in y; the last row is not read.
        confidence: (N, 1, H, W), above 0.
        weight_x: (N, 1, H, W), 0 or more; the last column is not read.
        weight_y: The same in y; the last row is not read.
        tolerance: Norm of the residual, relative to the first one, that ends the iteration.

    Returns:
        (N, 3, H, W).
    """
    weight_x, weight_y = weight_x[..., :-1], weight_y[..., :-1, :]
    right = _right_hand_side(base, dx, dy, weight_x, weight_y)
    return base + _solve(right, weight_x, weight_y, confidence, _MOST_ITERATIONS, tolerance)


def _right_hand_side(
    base: torch.Tensor,
    dx: torch.Tensor,
    dy: torch.Tensor,
    weight_x: torch.Tensor,
    weight_y: torch.Tensor,
) -> torch.Tensor:
    """Return that of the system for the correction of an image (N, 3, H, W)."""
    rows_x = weight_x * (dx[..., :-1] - base.diff(dim=-1))
    rows_y = weight_y * (dy[..., :-1, :] - base.diff(dim=-2))
    return add_adjoint(base.new_zeros(base.shape), rows_x, rows_y)


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
        solution = _solve(right, weight_x, weight_y, confidence, iterations)
        ctx.iterations = iterations
        ctx.save_for_backward(solution, weight_x, weight_y, confidence)
        return solution

    @staticmethod
    def backward(
        ctx: Any, *gradients: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None]:
        solution, weight_x, weight_y, confidence = ctx.saved_tensors
        # The matrix is symmetric: the adjoint problem is the same one.
        adjoint = _solve(gradients[0], weight_x, weight_y, confidence, ctx.iterations)
        by_x, by_y = (
            -(adjoint.diff(dim=dim) * solution.diff(dim=dim)).sum(1, keepdim=True)
            for dim in (-1, -2)
        )
        return adjoint, by_x, by_y, None, None


def _solve(
    right: torch.Tensor,
    weight_x: torch.Tensor,
    weight_y: torch.Tensor,
    confidence: torch.Tensor,
    iterations: int,
    tolerance: float = 0.0,
) -> torch.Tensor:
    scale, coupling_x, coupling_y = normalise(confidence.clone(), weight_x, weight_y)
    residual = right * scale
    solve = ConjugateGradients(residual)
    return solve(residual, coupling_x, coupling_y, iterations, tolerance).mul_(scale)
