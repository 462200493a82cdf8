"""Samples in two independent halves, until their reconstructions say that the image is good enough.

What they say is in :mod:`.noise`.
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

#: Errors that are further off than this are all alike.
_FAR = 1e6


class Halves(Spending):
    """Pairs of passes, one for each half, for a budget with a noise level."""

    def __init__(self, session: Session) -> None:
        """Begin; a session that goes on with a file cannot be taken apart in halves."""
        super().__init__(session)
        self._halves = (Accumulation(), Accumulation())

    def spend(self, chosen: Contender) -> torch.Tensor:
        """Render pairs of passes until the error is estimated small enough; return the image."""
        session = self._session
        assert session.budget.noise is not None
        level = math.inf
        while True:
            spp = self._next_pair(chosen, level)
            for number, half in enumerate(self._halves):
                session.take(chosen.shifts, spp, number, half.add)
            frame = session.accumulation.frame
            image = session.denoise(chosen, frame)
            self.error = self._estimate(chosen, image)
            level = float(self.error.mean())
            if level <= session.budget.noise or self._next_pair(chosen, level) == 0:
                return image
            if session.update is not None:
                session.update(image, frame.appended(ERROR, self.error))

    def _next_pair(self, chosen: Contender, level: float) -> int:
        """Return the samples of each of the next two passes; 0 where no more are allowed."""
        budget, have = self._session.budget, self._session.accumulation.spp
        least = self._session.integrator(chosen.shifts).parameters.least_spp
        spp = max(FIRST_SPP, min(have // 2, LARGEST_SPP))
        if have and math.isfinite(level):
            assert budget.noise is not None
            ratio = min(level / budget.noise, _FAR)
            wanted = have * (ratio ** (1 / chosen.errors[1]) - 1) / 2
            spp = min(spp, max(least, math.ceil(wanted)))
        if budget.spp is not None:
            spp = min(spp, (budget.spp - have) // 2)
        return spp if spp >= least else 0

    def judge(self, chosen: Contender, image: torch.Tensor) -> None:
        """Estimate the error of an image, if there is something of both halves."""
        if all(half.passes for half in self._halves):
            self.error = self._estimate(chosen, image)

    def _estimate(self, chosen: Contender, image: torch.Tensor) -> torch.Tensor:
        """Return the map of the estimated error of an image of both halves, (H, W, 1)."""
        halves = [half.frame for half in self._halves]
        images = [self._session.denoise(chosen, half) for half in halves]
        return noises.error_map(image, images, [half.primal for half in halves])
