"""Statistical comparison of two renderers from independent batches.

Every quantity is estimated by ``K`` independent renders (batches). Batch means of a pixel are
close to normal, so the difference of two such estimates is tested with Welch's t. Per-pixel tests
share one error budget (Šidák); because they have little power against a small bias that many
pixels share, signed sums over the frame and over its edges are tested too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

#: False-alarm probability of one test. A run makes about 600 of them: 1 % for the whole table.
ALPHA = 2e-5


@dataclass
class Finding:
    """Outcome of one test: smallest p-value and the threshold it was held against."""

    name: str
    p: float
    threshold: float

    @property
    def biased(self) -> bool:
        return bool(self.p < self.threshold)


def finite_difference(image: np.ndarray, axis: str) -> np.ndarray:
    """Forward difference of (..., H, W) images; last column or row 0."""
    result = np.zeros_like(image)
    if axis == "x":
        result[..., :, :-1] = image[..., :, 1:] - image[..., :, :-1]
    else:
        result[..., :-1, :] = image[..., 1:, :] - image[..., :-1, :]
    return result


def welch(a: np.ndarray, b: np.ndarray, rounding: np.ndarray | float) -> np.ndarray:
    """Two-sided p-values of equal means; batches along axis 0.

    ``rounding`` is the standard error that float32 alone may cause: pixels without noise (a
    directly seen sky) still differ by it.
    """
    va, vb = a.var(0, ddof=1) / len(a), b.var(0, ddof=1) / len(b)
    se2 = va + vb + np.square(rounding) + 1e-14
    dof = (va + vb) ** 2 / (va**2 / (len(a) - 1) + vb**2 / (len(b) - 1) + 1e-300)
    t = (a.mean(0) - b.mean(0)) / np.sqrt(se2)
    return 2 * stats.t.sf(np.abs(t), np.maximum(dof, 1))


def compare(
    name: str,
    a: np.ndarray,
    b: np.ndarray,
    edges: np.ndarray,
    rounding: np.ndarray,
    alpha: float = ALPHA,
) -> list[Finding]:
    """Test batches of images for equal expectation.

    Args:
        name: What is compared, for messages.
        a: (K, H, W) batches of one renderer.
        b: (K', H, W) batches of the other.
        edges: (H, W) signs: -1, 0, 1. Pixels near edges, with the sign of the expected value.
        rounding: (H, W) error that float32 alone may cause.
        alpha: False-alarm probability of each of the three tests.
    """
    pixels = welch(a, b, rounding).ravel()
    findings = [Finding(f"{name}, worst pixel", pixels.min(), 1 - (1 - alpha) ** (1 / pixels.size))]
    everywhere = np.ones_like(edges)
    for region, mask in (("global mean", everywhere), ("edges", edges)):
        if mask.any():
            total = float((rounding * np.abs(mask)).sum())
            p = welch((a * mask).sum((1, 2)), (b * mask).sum((1, 2)), total)
            findings.append(Finding(f"{name}, {region}", float(p), alpha))
    return findings


def compare_renders(
    gdpt: dict[str, np.ndarray], path: np.ndarray, alpha: float = ALPHA
) -> list[Finding]:
    """Test ``primal``, ``dx`` and ``dy`` of gdpt batches against ``path`` batches (K, H, W)."""
    expected = {
        "primal": path,
        "dx": finite_difference(path, "x"),
        "dy": finite_difference(path, "y"),
    }
    # A sum of a thousand equal float32 numbers is off by up to 4e-5, seen in `path`.
    rounding = 5e-5 * np.abs(path).mean(0)
    findings = []
    for name, reference in expected.items():
        mean = reference.mean(0)
        strong = np.abs(mean) > np.quantile(np.abs(mean), 0.75)
        edges = np.sign(mean) * strong if name != "primal" else _edge_mask(mean)
        findings += compare(name, gdpt[name], reference, edges, rounding, alpha)
    return findings


def _edge_mask(image: np.ndarray) -> np.ndarray:
    contrast = np.abs(finite_difference(image, "x")) + np.abs(finite_difference(image, "y"))
    return (contrast > np.quantile(contrast, 0.75)).astype(float)
