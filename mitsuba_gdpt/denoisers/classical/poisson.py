r"""Screened Poisson reconstruction: the image that fits the noisy primal and the sampled gradients.

With the primal :math:`I`, the sampled gradients :math:`G_x, G_y` and the forward differences
:math:`\Delta_x, \Delta_y` (no difference is taken across the image border) the image
:math:`x` minimises

.. math:: E_p(x) = \sum \|\alpha (x - I)\|^p + \sum \|\Delta_x x - G_x\|^p
    + \sum \|\Delta_y x - G_y\|^p

over pixels, where :math:`\|\cdot\|` is the Euclidean norm over RGB and :math:`p` is 2 ("L2") or
1 ("L1"); M. Kettunen et al., *Gradient-Domain Path Tracing*, ACM TOG 34(4), 2015. The presets are
those of its authors' solver. What is kept and what differs:

* The energy, alpha, the iteratively reweighted least squares (IRLS) scheme with its weights
  and its falling regularisation are the authors'.
* The linear systems are solved differently. The unweighted one (all of L2, and the first
  iteration of L1) has constant coefficients and reflecting borders, so the discrete cosine
  transform solves it directly. The reweighted ones are solved by conjugate gradients (CG) *with*
  a diagonal preconditioner, and only as far as ``cg_tolerance`` asks. The weights of one system
  differ by factors of 10^5 and more, which plain CG does not master in 50 steps: around
  fireflies it stops far away from the minimum.

Bias: L2 is linear and therefore unbiased, but shows every outlier as a dipole. L1 is slightly
biased towards the majority of the constraints and robust against outliers. Neither is clamped:
negative pixels are possible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from mitsuba_gdpt import progress
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.denoisers.exposure import Exposure
from mitsuba_gdpt.denoisers.registry import register
from mitsuba_gdpt.denoisers.solvers.cosine_transform import (
    cosine_transform,
    inverse_cosine_transform,
    laplacian_eigenvalues,
)
from mitsuba_gdpt.denoisers.solvers.screened_poisson import (
    ConjugateGradients,
    add_adjoint,
    normalise,
)
from mitsuba_gdpt.errors import ConfigError

#: Weight of the primal against the gradients; the default of the authors' solver.
DEFAULT_ALPHA = 0.2

_LEAST_REGULARISATION = 1e-10  # many iterations must not let weights reach infinity


@dataclass(frozen=True)
class Preset:
    """Parameters of one IRLS reconstruction.

    Attributes:
        irls_iterations: Number of linear systems; the first is unweighted, so 1 means L2.
        regularisation: Added to the residual norm in the weights of the second system, in radiance
            at common brightness (:mod:`mitsuba_gdpt.denoisers.exposure`); keeps rows that fit
            exactly from getting infinite weight.
        regularisation_decay: Factor on ``regularisation`` from one system to the next.
        cg_iterations: Most CG steps spent on one system.
        cg_tolerance: A system counts as solved when its preconditioned residual norm has fallen
            to this fraction of what it was before the first step; 0 takes all steps.
    """

    irls_iterations: int
    regularisation: float
    regularisation_decay: float
    cg_iterations: int
    cg_tolerance: float

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: A value is out of range.
        """
        for name in ("irls_iterations", "cg_iterations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if not (math.isfinite(self.regularisation) and self.regularisation > 0):
            raise ConfigError(f"regularisation is {self.regularisation}; expected a number > 0")
        if not 0 < self.regularisation_decay <= 1:
            raise ConfigError(
                f"regularisation_decay is {self.regularisation_decay}; expected 0 < decay <= 1"
            )
        if not 0 <= self.cg_tolerance < 1:
            raise ConfigError(f"cg_tolerance is {self.cg_tolerance}; expected 0 <= tolerance < 1")


#: Names and iteration counts of the authors' solver. The tolerances are ours (theirs: always the
#: full count of plain CG steps): with L1D's, energy and error end below those of the original.
L1_PRESETS = {
    "L1D": Preset(20, 0.05, 0.5, 50, 0.1),
    "L1Q": Preset(64, 1.0, 0.7, 1000, 1e-2),
    "L1L": Preset(7, 1e-4, 0.1, 20000, 1e-3),
}


@register(
    "poisson-l1",
    needs=("primal", "dx", "dy"),
    doc="screened Poisson, L1 by IRLS",
    group="everyday",
    seconds_per_megapixel=0.8,
)
def poisson_l1(
    buffers: FrameBuffers,
    *,
    alpha: float = DEFAULT_ALPHA,
    preset: str = "L1D",
    irls_iterations: int | None = None,
    regularisation: float | None = None,
    regularisation_decay: float | None = None,
    cg_iterations: int | None = None,
    cg_tolerance: float | None = None,
) -> torch.Tensor:
    """Reconstruct an image under the L1 norm: robust against outliers, slightly biased.

    Args:
        buffers: Needs ``primal``, ``dx`` and ``dy``; values must be finite.
        alpha: Weight of the primal against the gradients, > 0.
        preset: ``"L1D"`` (default), ``"L1Q"`` (quality: many small steps of the regularisation)
            or ``"L1L"`` (few, precisely solved systems).
        irls_iterations: Replaces the preset's value, as do the other four; see :class:`Preset`.
        regularisation: See :class:`Preset`.
        regularisation_decay: See :class:`Preset`.
        cg_iterations: See :class:`Preset`.
        cg_tolerance: See :class:`Preset`.

    Returns:
        (H, W, 3) float32 scene-linear radiance on the buffers' device.

    Raises:
        ConfigError: An option is out of range or the preset unknown.
    """
    if preset not in L1_PRESETS:
        raise ConfigError(f"unknown preset {preset!r}; expected one of {', '.join(L1_PRESETS)}")
    given: dict[str, Any] = {
        "irls_iterations": irls_iterations,
        "regularisation": regularisation,
        "regularisation_decay": regularisation_decay,
        "cg_iterations": cg_iterations,
        "cg_tolerance": cg_tolerance,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    return _reconstruct(buffers, alpha, replace(L1_PRESETS[preset], **chosen))


@register(
    "poisson-l2",
    group="everyday",
    seconds_per_megapixel=0.13,
    needs=("primal", "dx", "dy"),
    doc="screened Poisson, L2, solved directly",
    exposure=Exposure.BINARY,
)
def poisson_l2(buffers: FrameBuffers, *, alpha: float = DEFAULT_ALPHA) -> torch.Tensor:
    """Reconstruct an image under the L2 norm: unbiased, shows outliers as dipoles.

    Args:
        buffers: Needs ``primal``, ``dx`` and ``dy``; values must be finite.
        alpha: Weight of the primal against the gradients, > 0.

    Returns:
        (H, W, 3) float32 scene-linear radiance on the buffers' device.

    Raises:
        ConfigError: ``alpha`` is out of range.
    """
    return _reconstruct(buffers, alpha, None)


def energy(image: torch.Tensor, buffers: FrameBuffers, alpha: float, p: int) -> float:
    """Evaluate the energy that :func:`poisson_l1` (p = 1) or :func:`poisson_l2` (p = 2) minimises.

    Args:
        image: (H, W, 3) float32.
        buffers: The buffers that the image was reconstructed from.
        alpha: Weight of the primal against the gradients.
        p: Exponent of the residual norms.

    Returns:
        The energy, summed in double precision.
    """
    problem = _Problem(buffers, alpha)
    rows = problem.residuals(_planar(image.to(buffers.data)))
    return sum(float(row.double().norm(dim=0).pow(p).sum()) for row in rows)


def _planar(image: torch.Tensor) -> torch.Tensor:
    """(H, W, 3) to contiguous (3, H, W): the weights, which RGB share, then broadcast."""
    return image.permute(2, 0, 1).contiguous()


def _reconstruct(buffers: FrameBuffers, alpha: float, preset: Preset | None) -> torch.Tensor:
    """Solve the L2 problem and, with a preset, go on from there to L1."""
    if not (math.isfinite(alpha) and alpha > 0):
        raise ConfigError(f"alpha is {alpha}; expected a number > 0")
    problem = _Problem(buffers, alpha)
    # Both solvers compute a correction from residuals instead of the image from the right-hand
    # side: the rounding error is then relative to the correction, which matters for small alpha
    # and large weights.
    image = problem.primal + _solve_unweighted(problem)
    if preset is not None:
        _reweight(problem, image, preset)
    return image.permute(1, 2, 0).contiguous()


@dataclass(frozen=True, init=False)
class _Problem:
    """The rows of the least-squares problem: three blocks (primal, x and y gradients).

    A block of residuals is (3, H, W), (3, H, W-1) or (3, H-1, W); a block of weights the same
    without the first axis. The gradients' last column and row carry no information and are left
    out, which is the border rule.
    """

    primal: torch.Tensor
    dx: torch.Tensor
    dy: torch.Tensor
    alpha: float

    def __init__(self, buffers: FrameBuffers, alpha: float) -> None:
        object.__setattr__(self, "primal", _planar(buffers["primal"]))
        object.__setattr__(self, "dx", _planar(buffers["dx"][:, :-1]))
        object.__setattr__(self, "dy", _planar(buffers["dy"][:-1]))
        object.__setattr__(self, "alpha", alpha)

    def residuals(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Return target minus prediction, block by block."""
        return [
            (self.primal - image).mul_(self.alpha),
            (self.dx - image[:, :, 1:]).add_(image[:, :, :-1]),
            (self.dy - image[:, 1:]).add_(image[:, :-1]),
        ]

    def adjoint(self, rows: list[torch.Tensor]) -> torch.Tensor:
        """Apply the transposed system matrix: (3, H, W), overwrites the first block."""
        primal, dx, dy = rows
        return add_adjoint(primal.mul_(self.alpha), dx, dy)


def _solve_unweighted(problem: _Problem) -> torch.Tensor:
    """Return the correction of the primal that minimises the L2 energy, (3, H, W)."""
    rows = problem.residuals(problem.primal)
    right = problem.adjoint(rows)
    _, height, width = right.shape
    spectrum = cosine_transform(cosine_transform(right, 2), 1)
    eigenvalues = laplacian_eigenvalues(height, right)[:, None] + laplacian_eigenvalues(
        width, right
    )
    spectrum /= eigenvalues.add_(problem.alpha**2).to(spectrum.dtype)
    # The divergence sums to zero: what stands here is rounding error, and a small alpha would
    # amplify it into a shift of the whole image.
    spectrum[:, 0, 0] = 0
    return inverse_cosine_transform(inverse_cosine_transform(spectrum, 1), 2)


def _reweight(problem: _Problem, image: torch.Tensor, preset: Preset) -> None:
    """Run the reweighted iterations of IRLS on ``image`` (3, H, W), in place."""
    # One channel at a time keeps a CPU's working set in cache (1.9 times as fast at 1280x720);
    # all at once needs fewer kernel launches on a GPU. The three systems are independent.
    channels = 1 if image.device.type == "cpu" else len(image)
    solve = ConjugateGradients(image[:channels])
    systems = preset.irls_iterations - 1
    with progress.task("reconstructing", total=systems) as task:
        for step in range(systems):
            decayed = preset.regularisation * preset.regularisation_decay**step
            right, scale, coupling_x, coupling_y = _weighted_system(problem, image, decayed)
            for start in range(0, len(image), channels):
                part = slice(start, start + channels)
                correction = solve(
                    right[part], coupling_x, coupling_y, preset.cg_iterations, preset.cg_tolerance
                )
                image[part].addcmul_(scale, correction)
            task.advance()


def _weighted_system(
    problem: _Problem, image: torch.Tensor, regularisation: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Set up the normal equations for a correction of ``image``, weighted by its residuals.

    It is scaled to a diagonal of ones, which makes the original's normalisation of the weights to a
    mean of 1 unnecessary.

    Returns:
        The right-hand side (3, H, W), the scale of the unknowns (H, W), and the couplings to the
        horizontal (H, W-1) and vertical (H-1, W) neighbours, all scaled.
    """
    regularisation = max(regularisation, _LEAST_REGULARISATION)
    rows = problem.residuals(image)
    weights = [_rgb_norm(row).add_(regularisation).reciprocal_() for row in rows]
    right = problem.adjoint([row.mul_(weight) for row, weight in zip(rows, weights, strict=True)])
    confidence, weight_x, weight_y = weights
    confidence *= problem.alpha**2
    scale, coupling_x, coupling_y = normalise(confidence, weight_x, weight_y)
    return right.mul_(scale), scale, coupling_x, coupling_y


def _rgb_norm(row: torch.Tensor) -> torch.Tensor:
    """Euclidean norm over the first axis; ``vector_norm`` takes 30 times as long on a CPU."""
    squared = row[0] * row[0]
    for channel in row[1:]:
        squared.addcmul_(channel, channel)
    return squared.sqrt_()
