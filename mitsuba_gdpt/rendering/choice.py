"""What a budget is spent on: offset paths and method, chosen by what the first passes cost.

What there is to choose from, and what is known of it, is in :mod:`.contenders`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mitsuba_gdpt.integrators.parameters import DEFAULT_SHIFTS
from mitsuba_gdpt.rendering.contenders import ANY_ERROR, ERRORS, Contender, Costs
from mitsuba_gdpt.rendering.limits import Budget
from mitsuba_gdpt.rendering.passes import FIRST_SPP, Accumulation
from mitsuba_gdpt.rendering.session import Session

if TYPE_CHECKING:
    from mitsuba_gdpt.denoisers import Call

#: Reconstruction is timed on the middle of the frame: this share of its area, and less where that
#: would take more than a share of the time that is left; but so many pixels, since of fewer the
#: time says nothing about more.
_PROBE, _PROBE_SHARE, _PROBE_PIXELS = 1 / 4, 0.03, 1 << 14
#: What a sample takes is told by a larger pass, which takes this share of the time that is left.
_TELLING_SHARE = 0.04
#: Other numbers of offset paths are tried if such a pass takes no more than this share.
_TRIAL_SHARE = 0.07
#: A sample with an offset path costs at least so much more than one without.
_LEAST_PRICE = 1.15


@dataclass(frozen=True)
class Choice:
    """What a budget would be spent on.

    Attributes:
        shifts: Offset paths per sample.
        method: Of reconstruction.
        denoise: Seconds of a reconstruction, 0 where no time is given.
        seconds: Where the time for choosing went, as of :class:`~.budget.Rendered`.
    """

    shifts: int
    method: Call
    denoise: float
    seconds: Mapping[str, float]


def extra_buffers(
    budget: Budget, accumulation: Accumulation, quality: str | None, method: Call | None
) -> list[str]:
    """Return optional buffers that methods which come into question make use of.

    Args:
        budget: With a time, levels of quality come into question that are not named.
        accumulation: What is gone on with has them or never will.
        quality: Level of reconstruction that is named.
        method: Method that is named; what it needs is the caller's business.
    """
    from mitsuba_gdpt import denoisers

    if method is not None:
        return []
    levels = [quality] if quality or budget.seconds is None else denoisers.LEVELS
    names = [name for level in levels for name in denoisers.extra_buffers(level)]
    if accumulation.passes:
        names = [name for name in names if name in accumulation.frame.layout]
    return names


class Chooser:
    """Finds the contenders, and the one among them with the least error expected."""

    def __init__(self, session: Session, quality: str | None, method: Call | None) -> None:
        """Find what comes into question.

        Args:
            session: Where first passes are taken.
            quality: Level of reconstruction; without it and ``method`` it is chosen.
            method: Method of reconstruction.

        Raises:
            ConfigError: A value makes no sense.
            LayoutError: The method cannot run on these buffers.
        """
        self._session = session
        self._contenders = self._find(quality, method)

    def _find(self, quality: str | None, method: Call | None) -> list[Contender]:
        from mitsuba_gdpt import denoisers

        session, budget = self._session, self._session.budget
        given = session.parameters.get("shifts")
        if given is None and budget.spp is not None and budget.noise is None:
            given = DEFAULT_SHIFTS  # nothing is measured: as one render of so many samples has it
        if method is not None:
            shifts = int("dx" in method.reads) if given is None else given
            denoisers.check_method(method, {}, session.integrator(shifts).layout)
            return [Contender(shifts, method)]
        level = quality
        if quality is None and budget.seconds is None:
            level = denoisers.DEFAULT_QUALITY
        rows = {
            (shifts if given is None else given, name): errors
            for (shifts, name), errors in ERRORS.items()
            if level in (None, name) and given in (None, shifts)
        }
        if not rows:  # a combination that the table does not have is the user's own choice
            rows[given or 0, level or denoisers.DEFAULT_QUALITY] = ANY_ERROR
        found = []
        for (shifts, name), errors in rows.items():
            layout = session.integrator(shifts).layout
            layout = layout if shifts else denoisers.without_gradients(layout)
            best = denoisers.default_candidate(layout, name)
            found.append(Contender(shifts, best.call, errors, best.seconds_per_megapixel))
        return found

    def most_telling(self) -> Contender:
        """Return what suits the samples that were taken before anything was chosen."""
        gradients = self._session.accumulation.gradient_spp > 0
        fitting = (c for c in self._contenders if gradients == (c.shifts > 0))
        return next(fitting, self._contenders[0])

    def choose(self, take: Callable[[int, int], float]) -> Contender:
        """Measure what the contenders cost, and return the one with the least error expected.

        Args:
            take: Renders a pass with a number of offset paths and of samples, and returns what it
                took; called only where a time is given.
        """
        session, purse = self._session, self._session.purse
        if purse.budget.seconds is None:
            return self._contenders[0]
        number, *rivals = dict.fromkeys(contender.shifts for contender in self._contenders)
        telling = self._measure_passes(take, number)
        for shifts in rivals:
            # What takes too long, or has no chance, is not tried.
            if self._is_affordable(number, telling) and self._may_be_best(shifts, number):
                self._measure_passes(take, shifts, telling)
        if purse.left <= 0:
            return self._contenders[0]
        first, *others = (c for c in self._contenders if c.shifts in session.costs)
        self._measure_denoise(first, _PROBE)  # the cheapest
        assert first.denoise is not None
        for other in others:
            other.denoise = first.denoise * other.megapixel / first.megapixel
        # Where the likely choice takes longer than guessed, there may be a better one; it is tried
        # once more, since every trial takes time as well.
        tried = [first]
        for _ in range(2):
            chosen = min((first, *others), key=self._expected)
            if any(chosen is contender for contender in tried):
                return chosen
            if (area := self._affordable_probe(chosen)) == 0:
                return chosen
            self._measure_denoise(chosen, area)
            tried.append(chosen)
        return min(tried, key=self._expected)

    def _measure_passes(
        self, take: Callable[[int, int], float], shifts: int, telling: int | None = None
    ) -> int:
        """Find what passes cost.

        Args:
            take: As of :meth:`choose`.
            shifts: Offset paths per sample.
            telling: Samples of the pass that tells what a sample takes, since to compare small
                passes would be to compare what they take whatever their samples. By default
                those of a share of the time.

        Returns:
            The samples of that pass.
        """
        session, purse = self._session, self._session.purse
        if purse.knows_compiling and telling is not None:
            take(shifts, telling)
            return telling
        cold = take(shifts, FIRST_SPP)
        if not purse.knows_compiling:
            warm = take(shifts, FIRST_SPP)
            purse.excuse(cold - warm, "render")
        costs = session.costs[shifts]
        if telling is None:
            telling = max(FIRST_SPP, int(_TELLING_SHARE * purse.left / costs.line[1]))
        if purse.knows_compiling or telling > FIRST_SPP:
            take(shifts, telling)
        if purse.knows_compiling:
            fixed, slope = costs.line
            purse.excuse(cold - fixed - slope * FIRST_SPP, "render")
        return telling

    def _is_affordable(self, shifts: int, spp: int) -> bool:
        """Whether another pass takes little enough of the time that is left to be a trial.

        Args:
            shifts: Offset paths per sample that have been tried.
            spp: Samples per pixel.
        """
        fixed, slope = self._session.costs[shifts].line
        return fixed + slope * spp < _TRIAL_SHARE * self._session.purse.left

    def _may_be_best(self, shifts: int, known: int) -> bool:
        """Whether offset paths that cost as little as they ever do would be worth it.

        Args:
            shifts: Number of them that was not tried.
            known: Number that was.
        """
        costs = {known: 1.0, shifts: _LEAST_PRICE ** (shifts - known)}
        errors = {
            number: min(
                self._expected(contender, self._session.costs[known], price)
                for contender in self._contenders
                if contender.shifts == number
            )
            for number, price in costs.items()
        }
        return errors[shifts] < errors[known]

    def _expected(
        self, contender: Contender, costs: Costs | None = None, price: float = 1.0
    ) -> float:
        """Return the error that a contender would end with, in units of the table.

        Args:
            contender: Whose time of reconstruction may be a guess.
            costs: Of passes, by default those of its offset paths.
            price: What a sample costs over what ``costs`` say.
        """
        session = self._session
        frame = session.accumulation.frame
        denoise = contender.denoise
        if denoise is None:
            denoise = contender.megapixel * frame.width * frame.height / 1e6
        costs = costs or session.costs[contender.shifts]
        spp = costs.affordable(session.purse.left - denoise) / price
        return contender.error(session.accumulation.spp + spp if spp > 0 else 0)

    def _affordable_probe(self, contender: Contender) -> float:
        """Return the share of the frame on which to time a reconstruction; 0 where it is too dear.

        Args:
            contender: Whose time is guessed.
        """
        session, frame = self._session, self._session.accumulation.frame
        if not contender.denoise:  # too little for the clock
            return _PROBE
        # One reconstruction is for nothing, as it may be the first of its kind.
        affordable = _PROBE_SHARE * max(0.0, session.purse.left) / (2 * contender.denoise)
        least = min(_PROBE, _PROBE_PIXELS / (frame.width * frame.height))
        return min(affordable, _PROBE) if affordable >= least else 0.0

    def _measure_denoise(self, contender: Contender, area: float) -> None:
        """Time a reconstruction of the middle of the frame, after one that is not counted.

        Args:
            contender: Whose time is found.
            area: Share of the frame.
        """
        session, purse = self._session, self._session.purse
        frame = session.accumulation.frame
        sides = (frame.width, frame.height)
        width, height = (max(1, round(math.sqrt(area) * side)) for side in sides)
        probe = frame.crop((frame.width - width) // 2, (frame.height - height) // 2, width, height)
        seconds = []
        for _ in range(2):
            before = purse.seconds["denoise"]
            session.denoise(contender, probe)
            seconds.append(purse.seconds["denoise"] - before)
        purse.excuse(seconds[0] - seconds[1], "denoise")
        contender.denoise = min(seconds) * frame.width * frame.height / (width * height)
