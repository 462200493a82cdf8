"""More samples where they are needed: a pilot, a plan, and two streams that follow it.

Where they are needed, and who gets how many, is in :mod:`.adaptive`; what a file keeps of it is in
:mod:`.state`. Here is when: what the pilot may take, and what is left for the streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mitsuba_gdpt.channels import SAMPLES
from mitsuba_gdpt.errors import ConfigError, LayoutError
from mitsuba_gdpt.rendering.adaptive import LEAST_SPP, MOST_OF_MEAN, PARTS, Streams, pilot_spp
from mitsuba_gdpt.rendering.contenders import Contender, Costs
from mitsuba_gdpt.rendering.passes import Accumulation, Pass
from mitsuba_gdpt.rendering.session import Session
from mitsuba_gdpt.rendering.spending import Spending
from mitsuba_gdpt.rendering.state import Planes, State, attach

if TYPE_CHECKING:
    import mitsuba as mi

    from mitsuba_gdpt.buffers import FrameBuffers
    from mitsuba_gdpt.denoisers import Candidate

#: Samples go where they are needed if deciding where takes no more than this share of the time, and
#: with ``wall`` if there is time enough to compile another kernel.
_PLAN_SHARE, _LEAST_WALL = 0.05, 30.0
#: Level of quality of the reconstructions that tell where.
_QUICK = "fast"
#: Share of what is left that the first pass of each stream takes: much at once, for the
#: sake of stratification, and not more, since what it costs is a guess.
_FIRST_ROUND = 0.75
#: Parts of a pilot may lack this fraction of their samples.
_LACK = 4
#: No pass is worth while with fewer samples, as a share of all.
_LEAST_ROUND = 0.02


def may_be_uneven(session: Session, view: mi.Sensor, adaptive: bool | None) -> bool:
    """Return whether pixels may get different numbers of samples, as far as is known yet.

    Args:
        session: What is rendered.
        view: From where.
        adaptive: Whether they shall; None where it pays.

    Raises:
        ConfigError: They shall, and this sampler or film cannot.
        LayoutError: They shall, and nothing can tell where, as without OIDN.
    """
    from mitsuba_gdpt.integrators import arguments

    wanted = session.budget.seconds is not None if adaptive is None else adaptive
    if not wanted or session.budget.noise is not None:
        return False
    try:
        _quick(session)
        arguments.portion_sampler(view, session.first_integrator.parameters)
    except (ConfigError, LayoutError):
        if adaptive:
            raise
        return False
    return True


def evened(session: Session) -> Spending:
    """Return what goes on after a pilot that said: the same everywhere."""
    return Spending(session, PARTS, piloted=True)


def resumed(session: Session, state: State, adaptive: bool | None) -> Spending:
    """Return what is where an adaptive render was when its file was written.

    Args:
        session: Its accumulation is replaced by the one of then.
        state: Of the file.
        adaptive: As of :class:`Uneven`.

    Raises:
        FormatError: Something is missing.
    """
    if "even" in state.known:
        return evened(session)
    planes, like = state.planes, session.accumulation.frame
    before = Accumulation()
    if "before" in state.known:
        before = Accumulation.taken_from(state, planes, like, "before")
    streams, pilot = Streams.taken_from(state, planes, like)
    if streams.planned:
        session.accumulation = Accumulation.together(before, streams.mean())
    else:
        session.accumulation = before.copied()
        for part in pilot:
            session.accumulation.add(part.frame, part.passes[0])
    return Uneven(session, before, streams, adaptive=adaptive)


def _quick(session: Session) -> Candidate:
    """Return the way to reconstruct that tells where samples are needed.

    Raises:
        LayoutError: None can run here without gradients, as without OIDN.
    """
    from mitsuba_gdpt import denoisers

    return denoisers.default_candidate(denoisers.without_gradients(session.layout), _QUICK)


class Uneven(Spending):
    """Different numbers of samples in different pixels, once a pilot has said that it pays."""

    def __init__(
        self, session: Session, before: Accumulation, streams: Streams, *, adaptive: bool | None
    ) -> None:
        """Begin a pilot, or go on with it or with what follows.

        Args:
            session: Where passes are taken.
            before: What an earlier render left; its samples are the same everywhere.
            streams: All that came after it.
            adaptive: True whether or not it pays.
        """
        super().__init__(session)
        self._before, self._streams, self._adaptive = before, streams, adaptive
        self._kept = len(before.passes)
        self._price = 1.0  # of a sample to come, over what one of the pilot costs
        self._costs: Costs | None = None  # of passes with different numbers

    # ------------------------------------------------------------- pilot

    def take(self, shifts: int, spp: int) -> float:
        """Render a pass of the pilot, and return its seconds.

        Args:
            shifts: Offset paths per sample.
            spp: Samples per pixel.
        """
        import numpy as np

        def add(frame: FrameBuffers, done: Pass) -> None:
            bounces = self._session.integrator(shifts).bounces
            self._streams.add_pilot(frame, done, np.array(bounces))

        return self._session.take(shifts, spp, self._streams.next_part, add)

    def pays(self, chosen: Contender) -> bool:
        """Complete the pilot and share out what comes after it, unless that does not pay."""
        if not self._streams.planned:
            price = self._plan(chosen)
            if price is None:
                return False
            self._price = price
        return True

    def _plan(self, chosen: Contender) -> float | None:
        """Plan; return what a sample will cost over what one of the pilot costs, or None."""
        session, purse, streams = self._session, self._session.purse, self._streams
        have = sum(done.spp for done in session.accumulation.passes[self._kept :])
        spp = have + self._spp_to_come(chosen)
        part = streams.part or pilot_spp(spp)
        if spp < (2 * part * PARTS if self._adaptive else LEAST_SPP):
            return None
        streams.part = part
        if not self._adaptive:
            pixels = session.accumulation.frame.width * session.accumulation.frame.height
            seconds = _quick(session).seconds_per_megapixel * pixels / 1e6
            left = purse.left
            if seconds > _PLAN_SHARE * left or (purse.budget.wall and left < _LEAST_WALL):
                return None
        # With a time, a pass for a few samples takes more of it than they are worth.
        enough = part if purse.budget.seconds is None else part - part // _LACK
        while streams.least_spp < enough:
            missing = part - streams.least_spp
            self.take(chosen.shifts, missing)
            if session.update is not None and purse.budget.seconds is None:
                self._show(chosen)
        start = purse.clock()
        price = streams.plan(_quick(session).call, self._spp_to_come(chosen))
        purse.pay("denoise", start)
        return price

    # ------------------------------------------------------------- streams

    def spend(self, chosen: Contender) -> None:
        """Take samples as planned until the budget is spent."""
        session = self._session
        self._compile(chosen)
        if session.budget.seconds is not None:
            fixed, slope = session.costs[chosen.shifts].line
            self._costs = Costs({spp: fixed + spp * slope * self._price for spp in (1.0, 2.0)})
        while spp := self._next_mean(chosen):
            self._take_next(chosen.shifts, spp)
            shown = session.budget.seconds is None or self._streams.turn.stream == 0
            if session.update is not None and shown and self._next_mean(chosen):
                self._show(chosen)

    def _compile(self, chosen: Contender) -> None:
        """Render next to nothing: compiling happens only the first time."""
        import numpy as np

        from mitsuba_gdpt.integrators.pixels import PORTION

        session, purse = self._session, self._session.purse
        counts = np.zeros(session.accumulation.frame.data.shape[:2], np.intp)
        # More than one pixel and portion: what has one of them is another kernel.
        counts.flat[:2] = PORTION, 2 * PORTION
        seconds = []
        for _ in range(2):
            with purse.rendering() as block:
                session.render(chosen.shifts, PORTION, PARTS, counts)
            seconds.append(block.seconds)
        if not purse.knows_compiling:
            purse.excuse(seconds[0] - seconds[1], "render")

    def _next_mean(self, chosen: Contender) -> float:
        """Return the samples per pixel of the next pass, in the mean; 0 where all are taken."""
        session, turn = self._session, self._streams.turn
        if turn.stream == 0:
            share = 1.0 if any(turn.given) else _FIRST_ROUND
            spp = share * self._spp_to_come(chosen) / 2
            if spp < max(1.0, _LEAST_ROUND * session.accumulation.spp):
                return 0.0
            # A pixel is never split, and some get many times the mean.
            lanes = session.integrator(chosen.shifts).parameters.max_lanes
            return min(spp, max(1.0, lanes / MOST_OF_MEAN))
        if session.budget.seconds is not None:  # if the other took longer than expected
            return min(turn.spp, self._spp_to_come(chosen))
        return turn.spp

    def _take_next(self, shifts: int, spp: float) -> None:
        """Render a pass of the next stream with ``spp`` samples per pixel in the mean."""
        session, streams = self._session, self._streams
        with session.purse.rendering() as block:
            counts = streams.next_counts(spp)
            if not counts.any():
                streams.skip(spp)
                return
            mean = max(1, round(float(counts.mean())))  # of both streams the same, for the costs
            # Its own: where in a sequence a pixel is depends on its counts.
            sequence = PARTS + 1 + len(session.accumulation.passes)
            frame, done = session.render(shifts, mean, sequence, counts)
            streams.add(frame, done, counts, spp)
            session.accumulation = Accumulation.together(self._before, streams.mean())
        if self._costs is not None:
            self._costs.note(mean, block.seconds, block.growing)

    def _spp_to_come(self, chosen: Contender) -> int:
        """Return the samples per pixel that the rest of the budget pays for."""
        session, budget = self._session, self._session.budget
        if budget.spp is not None:
            return max(0, budget.spp - session.accumulation.spp)
        assert chosen.denoise is not None
        costs = self._costs or session.costs[chosen.shifts]
        return costs.affordable(session.purse.left - chosen.denoise)

    # ------------------------------------------------------------- what a file has

    def with_samples(self, frame: FrameBuffers) -> FrameBuffers:
        """Append the samples of each pixel where their numbers differ."""
        if not self._streams.planned:
            return frame
        return frame.appended(SAMPLES, self._session.accumulation.samples)

    def with_state(self, frame: FrameBuffers) -> FrameBuffers:
        """Add what else it takes to go on; with a time what is measured would have to be equal."""
        if self._session.budget.spp is None:
            return frame
        planes: Planes = {}
        known = self._streams.put(planes)
        if known is None:
            return frame
        if self._before.passes:
            known["before"] = self._before.put(planes, "before")
        return attach(frame, known, planes)
