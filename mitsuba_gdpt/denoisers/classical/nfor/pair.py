"""Two halves of one render: the basis of every estimate that must not look at its own noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Pair:
    """Two images from independent samples.

    Attributes:
        a: (C, H, W).
        b: (C, H, W).
        share: Fraction of all samples that are in ``a``, between 0 and 1.
    """

    a: torch.Tensor
    b: torch.Tensor
    share: float

    def mix(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Average what was computed of the halves, by their numbers of samples."""
        return self.share * a + (1 - self.share) * b

    def mean(self) -> torch.Tensor:
        """(C, H, W) image of all samples."""
        return self.mix(self.a, self.b)

    def variances_of_halves(self, variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Variances of ``a`` and ``b`` from that of their mean."""
        return variance / self.share, variance / (1 - self.share)

    def variance(self) -> torch.Tensor:
        """(H, W) estimate of the variance of :meth:`mean` from one difference; mean over C.

        With n samples, var(a) = s² / (share n) and so on: var(a - b) is var(mean) divided by
        share (1 - share). Without bias, and very noisy.
        """
        return self.share * (1 - self.share) * (self.a - self.b).square().mean(0)
