"""How the samples of a budget are taken once it is known what it is spent on.

:class:`Spending` takes the same number of samples in all pixels, in larger and larger passes. Two
others build on it: :class:`~.uneven.Uneven` and :class:`~.halves.Halves`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mitsuba_gdpt.rendering.contenders import Contender
from mitsuba_gdpt.rendering.noise import Estimate
from mitsuba_gdpt.rendering.passes import FIRST_SPP
from mitsuba_gdpt.rendering.session import Session
from mitsuba_gdpt.rendering.state import attach

if TYPE_CHECKING:
    import torch

    from mitsuba_gdpt.buffers import FrameBuffers

#: An image in between is worth its time if it takes no more than this share of what is left.
_UPDATE_SHARE = 0.1
#: A pass that is larger than any before by more than this factor is not the last: the first time
#: that a pass needs so much memory, it takes longer than others tell.
_GROWN = 2
#: It takes this share of what is left, and no more seconds than that, since a pass that is
#: interrupted is lost.
_SHARE, _LONGEST = 0.5, 10.0


class Spending:
    """The same number of samples in all pixels.

    Attributes:
        estimate: Of the error of the image, where there is one.
    """

    def __init__(self, session: Session, sequence: int = 0, *, piloted: bool = False) -> None:
        """Go on with a session.

        Args:
            session: Where passes are taken.
            sequence: Of random numbers.
            piloted: Whether this is what a pilot said, which a file then remembers.
        """
        self.estimate: Estimate | None = None
        self._session, self._sequence, self._piloted = session, sequence, piloted

    def take(self, shifts: int, spp: int) -> float:
        """Render a pass before anything is chosen, and return its seconds.

        Args:
            shifts: Offset paths per sample.
            spp: Samples per pixel.
        """
        return self._session.take(shifts, spp, self._sequence)

    def spend(self, chosen: Contender) -> torch.Tensor | None:
        """Take samples until the budget is spent.

        Returns:
            The image, (H, W, 3), if it had to be made to know that this is the end.
        """
        while (spp := self._next_spp(chosen)) > 0:
            self.take(chosen.shifts, spp)
            if self._session.update is not None and self._next_spp(chosen) > 0:
                self._show(chosen)
        return None

    def _next_spp(self, chosen: Contender) -> int:
        session, budget = self._session, self._session.budget
        least = session.integrator(chosen.shifts).parameters.least_spp
        if budget.spp is not None:
            usual, left = session.accumulation.next_spp(), budget.spp - session.accumulation.spp
            return left if left < usual + least else usual  # what is left would be no pass
        assert chosen.denoise is not None
        costs = session.costs[chosen.shifts]
        affordable = costs.affordable(session.purse.left - chosen.denoise)
        least = max(least, FIRST_SPP)  # a kernel for a single sample would have to be compiled
        if affordable < least:
            return 0
        part = max(least, int(min(_SHARE * affordable, _LONGEST / costs.line[1])))
        is_last = affordable <= _GROWN * max(costs.timed) or affordable < part + least
        return affordable if is_last else part

    def judge(self, chosen: Contender, image: torch.Tensor) -> None:
        """Estimate the error of an image that :meth:`spend` did not come to, if that is known.

        Args:
            chosen: What made the image.
            image: Reconstruction of all samples so far, (H, W, 3).
        """

    def so_far(self) -> FrameBuffers:
        """Return the buffers with all that it takes to go on as if nothing had happened."""
        return self.with_state(self.with_samples(self._session.accumulation.frame))

    def with_samples(self, frame: FrameBuffers) -> FrameBuffers:
        """Append the samples of each pixel where their numbers differ."""
        return frame

    def with_state(self, frame: FrameBuffers) -> FrameBuffers:
        """Add what else it takes to go on."""
        if self._piloted and self._session.budget.spp is not None:
            return attach(frame, {"even": True}, {})
        return frame

    def _show(self, chosen: Contender) -> None:
        """Hand the image so far on, unless that takes too much of the time."""
        session = self._session
        assert session.update is not None
        if session.budget.seconds is not None:
            assert chosen.denoise is not None
            if chosen.denoise > _UPDATE_SHARE * session.purse.left:
                return
        image = session.denoise(chosen, session.accumulation.frame)
        session.update(image, self.so_far())
