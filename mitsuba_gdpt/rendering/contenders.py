"""Ways to spend a budget: what their errors fall like, and what they cost here.

What a sample and a reconstruction cost is measured on the first passes of the render itself. What
errors fall like is a table, made from the published evaluation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mitsuba_gdpt.denoisers import Call

#: Trimmed relMSE of a number of shifts and a level of quality at 8 spp, over that of the first row,
#: and the power of the samples that it falls with: means over the development scenes, of
#: docs/results/data.
ERRORS: dict[tuple[int, str], tuple[float, float]] = {
    (0, "fast"): (1.0, 0.55),
    (0, "balanced"): (0.79, 0.53),
    (0, "high"): (0.74, 0.57),
    (1, "fast"): (0.90, 0.61),
    (1, "balanced"): (0.77, 0.60),
    (1, "high"): (0.78, 0.65),
}
_REFERENCE_SPP = 8
#: What counts where nothing is compared.
ANY_ERROR = (1.0, 0.5)
#: A sample costs at least this share of the mean cost per sample; timings are noisy.
_LEAST_SLOPE = 0.5
#: Sizes of passes are clearly different from this factor on.
_APART = 1.5


@dataclass
class Contender:
    """A way to spend the budget: with so many shifts, reconstructed so.

    Attributes:
        shifts: Offset paths per sample.
        method: Of reconstruction.
        errors: What errors fall like, see :data:`ERRORS`.
        megapixel: Seconds that a megapixel is said to take, for what is not measured.
        denoise: Seconds of a reconstruction here, as far as known.
    """

    shifts: int
    method: Call
    errors: tuple[float, float] = ANY_ERROR
    megapixel: float = 0.0
    denoise: float | None = None

    def error(self, spp: float) -> float:
        """Return the error that is expected with so many samples, in units of the table."""
        factor, exponent = self.errors
        return factor * (spp / _REFERENCE_SPP) ** -exponent if spp > 0 else math.inf


@dataclass
class Costs:
    """What passes of one integrator take; the latest of clearly different sizes tell.

    Attributes:
        timed: Seconds of passes by their samples per pixel, the latest last.
    """

    timed: dict[float, float] = field(default_factory=dict)

    def note(self, spp: float, seconds: float) -> None:
        """Add a pass."""
        self.timed.pop(spp, None)
        self.timed[spp] = seconds

    @property
    def line(self) -> tuple[float, float]:
        """Fixed seconds of a pass, and seconds of a sample."""
        (spp, seconds), *others = reversed(self.timed.items())
        mean = seconds / spp
        # The difference of passes of nearly equal sizes would be nothing but noise.
        apart = (other for other in others if max(spp, other[0]) >= _APART * min(spp, other[0]))
        other = next(apart, None)
        if other is None:
            return 0.0, mean
        slope = (seconds - other[1]) / (spp - other[0])
        slope = min(max(slope, _LEAST_SLOPE * mean), mean)
        return seconds - slope * spp, slope

    def affordable(self, seconds: float) -> int:
        """Return the samples per pixel of a pass that takes so long."""
        fixed, slope = self.line
        return int((seconds - fixed) / slope) if seconds > fixed else 0
