"""Base class of the metrics over a data set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

import torch
from torch import Tensor

from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.metrics.images import Reference

Self = TypeVar("Self", bound="Accumulator")


class Accumulator(ABC):
    """Collects one number per image and finishes with their mean.

    Every image has one vote, whatever its size: a test set's value is the mean over its images.
    (Subclasses whose name begins with ``Pooled`` say what they do instead.) The state is a float64
    sum and a count, so parts of a data set can be evaluated apart and merged.

    Example:
        >>> from mitsuba_gdpt.metrics import MeanRelMSE
        >>> metric = MeanRelMSE()
        >>> metric.update(torch.ones(4, 4, 3), torch.zeros(4, 4, 3))
        >>> metric.update(torch.ones(2, 8, 8, 3), torch.ones(2, 8, 8, 3))
        >>> metric.compute()
        tensor(33.3333, dtype=torch.float64)
    """

    #: Whether a larger value means a better image.
    higher_is_better = False

    def __init__(self) -> None:
        """Start empty."""
        self.reset()

    @abstractmethod
    def _update(self, image: Tensor, reference: Tensor | Reference) -> Tensor:
        """Return one number per image, (N,)."""

    def _compute(self, mean: Tensor) -> Tensor:
        """Finish: turn the mean of the numbers into the value."""
        return mean

    def reset(self) -> None:
        """Forget everything."""
        self._total = torch.zeros((), dtype=torch.float64)
        self._count = 0

    @property
    def count(self) -> int:
        """Number of images seen."""
        return self._count

    def update(self, image: Tensor, reference: Tensor | Reference) -> None:
        """Add one image or a batch; no gradient is kept.

        Args:
            image: (H, W, 3) or (N, H, W, 3), scene-linear.
            reference: Of the same shape.

        Raises:
            LayoutError, ConfigError, NonFiniteError: As for the function of the same metric.
        """
        with torch.no_grad():
            values = self._update(image, reference)
        self._total += values.sum(dtype=torch.float64).cpu()
        self._count += len(values)

    def merge(self: Self, other: Self) -> None:
        """Add what another one of the same kind has seen.

        Raises:
            ConfigError: The other one is of another class or has other constants.
        """
        if type(other) is not type(self) or other._constants() != self._constants():
            raise ConfigError(
                f"cannot merge {type(other).__name__} {other._constants()} into "
                f"{type(self).__name__} {self._constants()}; expected the same metric"
            )
        self._total += other._total
        self._count += other._count

    def compute(self) -> Tensor:
        """Return the value over all images seen, float64 scalar.

        Raises:
            ConfigError: No image has been seen.
        """
        if not self._count:
            raise ConfigError(f"{type(self).__name__} has seen no image; call update() first")
        return self._compute(self._total / self._count)

    def _constants(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}
