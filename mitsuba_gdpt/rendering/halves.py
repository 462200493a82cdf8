"""Samples in two independent halves, until their reconstructions say that the image is good enough.

Each half is of two independent parts, which tell its noise. What all of them say is in
:mod:`.noise`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mitsuba_gdpt.channels import ERROR
from mitsuba_gdpt.rendering import noise as noises
from mitsuba_gdpt.rendering.contenders import Contender
from mitsuba_gdpt.rendering.passes import FIRST_SPP, LARGEST_SPP, Accumulation
from mitsuba_gdpt.rendering.session import Session
from mitsuba_gdpt.rendering.spending import Spending

if TYPE_CHECKING:
    import torch

#: Parts of the first half and of the second, by the number of their sequence of random numbers.
_PARTS = (0, 2), (1, 3)
#: How many there are.
PARTS = 4
#: How far the error may be above the level, in one of ten renders.
_ABOVE = 1.5
#: Errors that are further off than this are all alike.
_FAR = 1e6


class Halves(Spending):
    """Rounds of passes, one for each part of each half, for a budget with a noise level."""

    def __init__(self, session: Session) -> None:
        """Begin; a session that goes on with a file cannot be taken apart in halves."""
        super().__init__(session)
        self._parts = [Accumulation() for _ in range(PARTS)]

    def spend(self, chosen: Contender) -> torch.Tensor:
        """Render rounds of passes until the error is small enough for sure; return the image."""
        session = self._session
        while True:
            spp = self._next_round(chosen)
            for number, part in enumerate(self._parts):
                session.take(chosen.shifts, spp, number, part.add)
            frame = session.accumulation.frame
            image = session.denoise(chosen, frame)
            self.estimate = self._estimated(chosen, image)
            if self._excess() <= 1 or self._next_round(chosen) == 0:
                return image
            if session.update is not None:
                session.update(image, frame.appended(ERROR, self.estimate.map))

    def _excess(self) -> float:
        """Return the estimated error over the level: what is likely, or what is still possible."""
        noise, found = self._session.budget.noise, self.estimate
        assert noise is not None
        assert found is not None
        return min(max(found.level, found.high / _ABOVE) / noise, _FAR)

    def _next_round(self, chosen: Contender) -> int:
        """Return the samples of each of the next passes; 0 where no more are allowed."""
        budget, have = self._session.budget, self._session.accumulation.spp
        least = self._session.integrator(chosen.shifts).parameters.least_spp
        spp = max(FIRST_SPP, min(have // PARTS, LARGEST_SPP))
        if self.estimate is not None:
            wanted = have * (self._excess() ** (1 / chosen.errors[1]) - 1) / PARTS
            spp = min(spp, max(least, math.ceil(wanted)))
        if budget.spp is not None:
            spp = min(spp, (budget.spp - have) // PARTS)
        return spp if spp >= least else 0

    def judge(self, chosen: Contender, image: torch.Tensor) -> None:
        """Estimate the error of an image, if there is something of all parts."""
        if all(part.passes for part in self._parts):
            self.estimate = self._estimated(chosen, image)

    def _estimated(self, chosen: Contender, image: torch.Tensor) -> noises.Estimate:
        """Return the estimated error of an image of all parts."""
        halves = []
        for numbers in _PARTS:
            first, second = (self._parts[number] for number in numbers)
            frame = Accumulation.together(first, second).frame
            parts = first.frame.primal, second.frame.primal
            halves.append(noises.Half(self._session.denoise(chosen, frame), frame.primal, parts))
        return noises.estimate(image, *halves)
