"""Ways to spend a budget: what their errors fall like, and what they cost here.

What a sample and a reconstruction cost is measured on the first passes of the render itself. What
errors fall like is a table, made from published curves.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mitsuba_gdpt.denoisers import Call

#: Trimmed relMSE of a number of shifts and a level of quality at :data:`ERRORS_SPP` samples per
#: pixel, over that of the first at the fewest: geometric means over twenty scenes, of the curves
#: that benchmarks/budgets.py has published in docs/results/data.
ERRORS: dict[tuple[int, str], tuple[float, ...]] = {
    (0, "fast"): (1.0, 0.471, 0.229, 0.119),
    (0, "balanced"): (0.898, 0.412, 0.195, 0.102),
    (0, "high"): (0.808, 0.346, 0.149, 0.072),
    (1, "fast"): (0.869, 0.387, 0.167, 0.073),
    (1, "balanced"): (0.789, 0.345, 0.15, 0.066),
    (1, "high"): (0.737, 0.309, 0.129, 0.055),
}
ERRORS_SPP = (8, 32, 128, 512)
#: What counts where nothing is compared.
ANY_ERROR = tuple((ERRORS_SPP[0] / spp) ** 0.5 for spp in ERRORS_SPP)
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
        errors: At :data:`ERRORS_SPP`, see :data:`ERRORS`.
        megapixel: Seconds that a megapixel is said to take, for what is not measured.
        denoise: Seconds of a reconstruction here, as far as known.
    """

    shifts: int
    method: Call
    errors: tuple[float, ...] = ANY_ERROR
    megapixel: float = 0.0
    denoise: float | None = None

    def error(self, spp: float) -> float:
        """Return the error that is expected with so many samples, in units of the table.

        Between two numbers of the table, and beyond them, it is a power of the samples.
        """
        if spp <= 0:
            return math.inf
        last = len(ERRORS_SPP) - 1
        i = min(max(bisect.bisect(ERRORS_SPP, spp) - 1, 0), last - 1)
        growth = math.log(spp / ERRORS_SPP[i]) / math.log(ERRORS_SPP[i + 1] / ERRORS_SPP[i])
        error: float = self.errors[i] * (self.errors[i + 1] / self.errors[i]) ** growth
        return error


@dataclass
class Costs:
    """What passes of one integrator take; the latest tell.

    Attributes:
        timed: Seconds of passes by their samples per pixel, the latest last.
        growing: Part of these that grows with the samples, by the same, where that is known.
    """

    timed: dict[float, float] = field(default_factory=dict)
    growing: dict[float, float] = field(default_factory=dict)

    def note(self, spp: float, seconds: float, growing: float | None = None) -> None:
        """Add a pass.

        Args:
            spp: Its samples per pixel.
            seconds: That it took.
            growing: Part of them that grows with the samples, if that is known.
        """
        for known in (self.timed, self.growing):
            known.pop(spp, None)
        self.timed[spp] = seconds
        if growing is not None:
            self.growing[spp] = growing

    @property
    def line(self) -> tuple[float, float]:
        """Fixed seconds of a pass, and seconds of a sample."""
        (spp, seconds), *others = reversed(self.timed.items())
        mean = seconds / spp
        if spp in self.growing:
            return seconds - self.growing[spp], self.growing[spp] / spp
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
