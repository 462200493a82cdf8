"""The best image within a time: passes until the budget is spent, reconstruction included.

Or the image of a given error: passes in two independent halves, whose reconstructions tell how far
the image of both is off (:mod:`.noise`).

What there is to choose from, and what is known of it, is in :mod:`.contenders`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt import checks
from mitsuba_gdpt.channels import ERROR, SAMPLES
from mitsuba_gdpt.errors import ConfigError, LayoutError
from mitsuba_gdpt.integrators.parameters import DEFAULT_SHIFTS
from mitsuba_gdpt.rendering import frame as frames
from mitsuba_gdpt.rendering import noise as noises
from mitsuba_gdpt.rendering.adaptive import (
    LEAST_SPP,
    MOST_OF_MEAN,
    PARTS,
    Streams,
    pilot_spp,
)
from mitsuba_gdpt.rendering.contenders import ANY_ERROR, ERRORS, Contender, Costs
from mitsuba_gdpt.rendering.frame import make_integrator, with_buffers
from mitsuba_gdpt.rendering.passes import FIRST_SPP, LARGEST_SPP, Accumulation, Pass, seed_of
from mitsuba_gdpt.rendering.source import Source
from mitsuba_gdpt.rendering.state import Planes, State, attach

if TYPE_CHECKING:
    import mitsuba as mi
    import numpy as np
    import torch

    from mitsuba_gdpt.buffers import FrameBuffers
    from mitsuba_gdpt.denoisers import Call

#: An image in between is worth its time if it takes no more than this share of what is left.
_UPDATE_SHARE = 0.1
#: Reconstruction is timed on the middle of the frame: this share of its area, and less where that
#: would take more than a share of the time that is left.
_LEAST_PROBE, _PROBE, _PROBE_SHARE = 1 / 16, 1 / 4, 0.02
#: Where there is a choice of offset paths, what a sample takes is told by another pass, of so many
#: samples, if that takes no more than this share of the time that is left.
_LARGER, _LARGER_SHARE = 8, 0.03
#: Errors that are further off than this are all alike.
_FAR = 1e6
#: A last pass may be larger than the next of the usual sequence by this factor.
_LAST = 1.5
#: Samples go where they are needed if deciding where takes no more than this share of the time, and
#: with ``wall`` if there is time enough to compile another kernel.
_PLAN_SHARE, _LEAST_WALL = 0.05, 30.0
#: Level of quality of the reconstructions that tell where.
_QUICK = "fast"
#: Share of what is left that the first pass of each stream takes: much at once, for the
#: sake of stratification, and not more, since what it costs is a guess.
_FIRST_ROUND = 0.75
#: No pass is worth while with fewer samples, as a share of all.
_LEAST_ROUND = 0.02

Update = Callable[["torch.Tensor", "FrameBuffers"], None]


@dataclass(frozen=True)
class Budget:
    """When a render ends: after some seconds, with some samples per pixel, or at a noise level.

    Attributes:
        seconds: Of rendering and reconstruction. Compiling kernels, and what else happens only the
            first time, is not part of it unless ``wall`` is set.
        spp: Samples per pixel in all; with ``noise`` the most.
        noise: Estimated relMSE of the reconstruction at which it is good enough.
        wall: Whether ``seconds`` is what a clock on the wall shows.
        spent: Seconds that were spent before (loading the scene), for ``wall``.
    """

    seconds: float | None = None
    spp: int | None = None
    noise: float | None = None
    wall: bool = False
    spent: float = 0.0

    def __post_init__(self) -> None:
        if self.noise is not None:
            if self.seconds is not None:
                raise ConfigError("got both noise and seconds; expected noise, or noise and spp")
            checks.real("noise", self.noise, above=0)
        elif (self.seconds is None) == (self.spp is None):
            raise ConfigError("give a budget: either seconds or spp, or noise")
        if self.seconds is not None:
            checks.budget("seconds", self.seconds)
        elif self.wall:
            raise ConfigError("wall is about seconds; give them, or leave it out")
        if self.spp is not None:
            checks.spp("spp", self.spp)


@dataclass(frozen=True)
class Rendered:
    """What became of a budget.

    Attributes:
        image: (H, W, 3), linear radiance, on the renderer's device.
        buffers: Means over all passes, (H, W, C); with a noise level also ``error``, and where the
            pixels have different numbers of samples ``samples``.
        shifts: Offset paths per sample of the main passes.
        method: What reconstructed the image.
        seconds: ``render``, ``denoise`` and ``first`` (what happens only the first time).
        interrupted: Whether Ctrl-C ended it early. Pressed while the image was reconstructed, it
            leaves the noisy one, and ``none`` as the method.
        noise: Estimated relMSE of the image, the mean of ``buffers.error``; None without a noise
            level.
    """

    image: torch.Tensor
    buffers: FrameBuffers
    shifts: int
    method: Call
    seconds: Mapping[str, float]
    interrupted: bool
    noise: float | None = None


@dataclass(frozen=True)
class Choice:
    """What a budget would be spent on.

    Attributes:
        shifts: Offset paths per sample.
        method: Of reconstruction.
        denoise: Seconds of a reconstruction, 0 where no time is given.
        seconds: Where the time for choosing went, as of :class:`Rendered`.
    """

    shifts: int
    method: Call
    denoise: float
    seconds: Mapping[str, float]


def render(
    scene: mi.Scene | Source,
    *,
    seconds: float | None = None,
    spp: int | None = None,
    noise: float | None = None,
    wall: bool = False,
    sensor: int | mi.Sensor = 0,
    seed: int = 0,
    quality: str | None = None,
    method: str | Call | None = None,
    adaptive: bool | None = None,
    on_update: Update | None = None,
    **parameters: Any,
) -> Rendered:
    """Render and reconstruct the best image for a budget.

    The first passes measure what a sample costs, with and without offset paths, and what a
    reconstruction costs; the rest of the time goes where the error is expected to be least.
    Ctrl-C ends it with the image so far:

        done = render(scene, seconds=30)
        done.image, done.buffers, done.seconds

    Args:
        scene: A variant has to be set.
        seconds: Of rendering and reconstruction together; what happens only the first time, as
            compiling kernels, is reported apart. Kept within 5 % from 10 s on, and never exceeded
            by more than a pass.
        spp: Samples per pixel, instead of ``seconds``; with ``noise`` the most.
        noise: Instead of ``seconds``: end when the estimated relMSE of the image is below this.
            ``buffers.error`` is a map of the estimate. How good it is: docs/how-to/budget.md.
        wall: Whether ``seconds`` includes what happens only the first time.
        sensor: Index of a sensor of the scene, or a sensor.
        seed: Seed of the sampler.
        quality: Level of reconstruction, see :func:`~mitsuba_gdpt.denoise`; by default the one
            that the time allows.
        method: Method of reconstruction, instead of ``quality``.
        adaptive: Whether pixels may get different numbers of samples, by what reconstructions of a
            pilot say; ``buffers.samples`` tells how many. The image stays unbiased. By default
            with ``seconds``, where they pay for 128 samples per pixel and more.
        on_update: Called with the (H, W, 3) image so far and its buffers, as often as the time
            allows, and with the last one. :class:`mitsuba_gdpt.Live` shows it.
        parameters: Of ``gdpt``. With ``seconds``, ``shifts`` is chosen where it is not given.

    Returns:
        The image, the buffers and where the time went.

    Raises:
        ConfigError: A value makes no sense.
        LayoutError: The method needs buffers that ``parameters`` do not ask for.
    """
    source = Source.of(scene)
    call = named_method(method, quality)
    budget = Budget(seconds, spp, noise, wall)
    if on_update is not None and not callable(on_update):
        raise ConfigError(
            f"on_update is {checks.show(on_update)}; expected a function of the image and its "
            "buffers"
        )
    if adaptive not in (None, True, False):
        raise ConfigError(f"adaptive is {checks.show(adaptive)}; expected True, False or None")
    done = BudgetedRender(
        source,
        {**source.integrator, **parameters},
        budget,
        seed=seed,
        sensor=sensor,
        quality=quality,
        method=call,
        adaptive=adaptive,
        update=on_update,
    ).run()
    if on_update is not None:
        on_update(done.image, done.buffers)
    return done


def named_method(method: str | Call | None, quality: str | None) -> Call | None:
    """Return the method of reconstruction that is named, if one is.

    Raises:
        ConfigError: It is none, or a level of quality beside it would have no effect.
    """
    from mitsuba_gdpt.denoisers import Call, find_level

    if method is None:
        find_level(quality)
        return None
    if quality is not None:
        raise ConfigError(
            f"quality {checks.show(quality)} chooses a method, but {str(method)!r} is named; leave "
            "one out"
        )
    return Call.parse(method)


class BudgetedRender:
    """One render on a budget."""

    def __init__(
        self,
        source: Source,
        parameters: Mapping[str, Any],
        budget: Budget,
        *,
        seed: int = 0,
        sensor: int | mi.Sensor = 0,
        quality: str | None = None,
        method: Call | None = None,
        adaptive: bool | None = None,
        update: Update | None = None,
        resumed: Accumulation | None = None,
        described: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Check what was asked for.

        Args:
            source: Scene.
            parameters: Of ``gdpt``. With a time and without ``shifts`` they are chosen by what this
                scene's cost.
            budget: When to stop.
            seed: Of the sampler. Halves, and parts of a pilot, have seeds that follow from it.
            sensor: Index of a sensor of the scene, or a sensor.
            quality: Level of reconstruction; without it and ``method`` it is chosen too.
            method: Method of reconstruction.
            adaptive: Whether pixels may get different numbers of samples; None where it pays.
            update: Called with the image so far and its buffers after passes, as often as a budget
                of time allows.
            resumed: What an earlier render left, to go on with.
            described: Metadata of this render that what was left must have too, besides size and
                integrator.
            clock: For tests.

        Raises:
            ConfigError: A value makes no sense, or the method cannot run on these buffers.
        """
        self._source, self._budget, self._sensor = source, budget, sensor
        self._update, self._clock = update, clock
        self._accumulation = Accumulation() if resumed is None else resumed.copied()
        extra = [] if method is not None else self._extra_buffers(quality)
        self._parameters = with_buffers(parameters, extra)
        if resumed is not None and budget.noise is not None:
            raise ConfigError(
                "a noise level needs two halves, and a file holds the mean of both; expected "
                "seconds or spp to go on with it"
            )
        if adaptive and budget.noise is not None:
            raise ConfigError(
                "got both adaptive and noise, which needs two halves that know nothing of each "
                "other; expected one"
            )
        self._resumed = Accumulation() if resumed is None else resumed.copied()
        self._kept = len(self._resumed.passes)
        self._adaptive = adaptive
        self._even = False  # whether a pilot said so
        self._streams: Streams | None = None
        self._sequence = 0  # of the passes that belong to no half and no part of a pilot
        self._adaptive_costs: Costs | None = None
        self._halves = (Accumulation(), Accumulation())
        self._error: torch.Tensor | None = None
        self._seed = self._accumulation.passes[0].seed if self._accumulation.passes else seed
        self._integrators: dict[int, Any] = {}
        self._costs: dict[int, Costs] = {}
        self._seconds = dict.fromkeys(("render", "denoise", "first"), 0.0)
        self._contenders = self._find_contenders(quality, method)
        least = 2 * max(i.parameters.least_spp for i in self._integrators.values())
        if budget.noise is not None and budget.spp is not None and budget.spp < least:
            raise ConfigError(
                f"spp is {budget.spp}; a noise level needs two halves of the samples: expected "
                f"{least} or more"
            )
        self._check_rest()
        self._start = 0.0
        view = source.view(sensor)
        if self._may_adapt(view):
            self._streams = Streams()
        integrator = " ".join(str(next(iter(self._integrators.values()))).split())
        known = {**(described or {}), "integrator": integrator}
        layout = next(iter(self._integrators.values())).layout
        self._accumulation.check(*source.size(sensor), known, layout)
        if resumed is not None and resumed.state is not None and self._may_go_on():
            self._go_on(resumed.state)

    def _check_rest(self) -> None:
        """Refuse to add fewer samples than a pass may have.

        Raises:
            ConfigError: It would.
        """
        have, spp = self._accumulation.spp, self._budget.spp
        least = max(i.parameters.least_spp for i in self._integrators.values())
        if have and spp is not None and have < spp < have + least:
            raise ConfigError(
                f"spp is {spp}, and {have} samples are there; with variances expected "
                f"{have + least} or more"
            )

    def run(self) -> Rendered:
        """Render and reconstruct.

        Raises:
            KeyboardInterrupt: Before the first pass was complete.
        """
        from mitsuba_gdpt.denoisers import Call

        self._start = self._clock()
        interrupted = False
        chosen = image = None
        try:
            chosen = self._choose()
            if self._budget.noise is None:
                self._spend(chosen)
            else:
                image = self._refine(chosen)
        except KeyboardInterrupt:
            if not self._accumulation.passes:
                raise
            interrupted = True
        frame = self._accumulation.frame
        chosen = chosen or self._most_telling()
        method = chosen.method
        if image is None:
            try:
                image = self._denoise(chosen, frame)
                if self._both_halves():  # interrupted
                    self._error = self._estimate(chosen, image)
            except KeyboardInterrupt:  # the samples, which took longer, are not lost
                interrupted = True
                if image is None:
                    image, method = frame.primal, Call("none")
        level = None
        frame = self._with_samples(frame)
        if self._error is not None:
            frame, level = frame.appended(ERROR, self._error), float(self._error.mean())
        if interrupted:
            frame = self._with_state(frame)
        return Rendered(
            image, frame, chosen.shifts, method, dict(self._seconds), interrupted, level
        )

    def choose(self) -> Choice:
        """Take the first passes, and return what the rest would be spent on."""
        self._start = self._clock()
        best = self._choose()
        return Choice(best.shifts, best.method, best.denoise or 0.0, dict(self._seconds))

    @property
    def buffers(self) -> FrameBuffers | None:
        """What has been rendered so far, (H, W, C), also where :meth:`run` failed."""
        if not self._accumulation.passes:
            return None
        return self._with_state(self._with_samples(self._accumulation.frame))

    # ------------------------------------------------------------- contenders

    def _find_contenders(self, quality: str | None, method: Call | None) -> list[Contender]:
        from mitsuba_gdpt import denoisers

        given = self._parameters.get("shifts")
        if given is None and self._budget.spp is not None and self._budget.noise is None:
            given = DEFAULT_SHIFTS  # nothing is measured: as one render of so many samples has it
        if method is not None:
            shifts = int("dx" in method.reads) if given is None else given
            denoisers.check_method(method, {}, self._integrator(shifts).layout)
            return [Contender(shifts, method)]
        level = quality
        if quality is None and self._budget.seconds is None:
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
            layout = self._integrator(shifts).layout
            layout = layout if shifts else denoisers.without_gradients(layout)
            seconds = denoisers.find_level(name).seconds_per_megapixel
            found.append(Contender(shifts, denoisers.default_call(layout, name), errors, seconds))
        return found

    def _extra_buffers(self, quality: str | None) -> list[str]:
        """Return optional buffers that levels which come into question make use of."""
        from mitsuba_gdpt import denoisers

        levels = [quality] if quality or self._budget.seconds is None else denoisers.LEVELS
        names = [name for level in levels for name in denoisers.extra_buffers(level)]
        if self._accumulation.passes:  # what is gone on with has them or never will
            names = [name for name in names if name in self._accumulation.frame.layout]
        return names

    def _integrator(self, shifts: int) -> Any:
        if shifts not in self._integrators:
            self._integrators[shifts] = make_integrator({**self._parameters, "shifts": shifts})
        return self._integrators[shifts]

    def _most_telling(self) -> Contender:
        """Return what suits the samples that were taken before anything was chosen."""
        gradients = self._accumulation.gradient_spp > 0
        fitting = (c for c in self._contenders if gradients == (c.shifts > 0))
        return next(fitting, self._contenders[0])

    def _choose(self) -> Contender:
        """Measure what the contenders cost, and return the one with the least error expected."""
        if self._budget.seconds is None:
            return self._contenders[0]
        warm = 0.0
        numbers = dict.fromkeys(contender.shifts for contender in self._contenders)
        for shifts in numbers:
            # What takes longer cannot be tried, but there has to be something.
            if self._accumulation.passes and self._left() < 2 * warm:
                break
            cold = self._pass(shifts, FIRST_SPP)
            warm = self._pass(shifts, FIRST_SPP)
            self._excuse(cold - warm, "render")
            # What a pass takes whatever its samples would make all of them look alike.
            if len(numbers) > 1 and warm * _LARGER / FIRST_SPP < _LARGER_SHARE * self._left():
                self._pass(shifts, _LARGER)
        if self._left() <= 0:
            return self._contenders[0]
        first, *others = (c for c in self._contenders if c.shifts in self._costs)
        self._measure_denoise(first)  # the cheapest
        assert first.denoise is not None
        for other in others:
            other.denoise = first.denoise * other.megapixel / first.megapixel
        chosen = min((first, *others), key=self._expected)
        assert chosen.denoise is not None
        if chosen is not first:
            self._measure_denoise(chosen)
        return chosen

    def _expected(self, contender: Contender) -> float:
        """Return the error that a contender would end with, in units of the table."""
        assert contender.denoise is not None
        spp = self._costs[contender.shifts].affordable(self._left() - contender.denoise)
        return contender.error(self._accumulation.spp + spp if spp > 0 else 0)

    def _measure_denoise(self, contender: Contender) -> None:
        """Time a reconstruction of the middle of the frame, after one that is not counted."""
        frame, area = self._accumulation.frame, _PROBE
        if contender.denoise:
            affordable = _PROBE_SHARE * max(0.0, self._left()) / (2 * contender.denoise)
            area = min(max(affordable, _LEAST_PROBE), _PROBE)
        sides = (frame.width, frame.height)
        width, height = (max(1, round(math.sqrt(area) * side)) for side in sides)
        probe = frame.crop((frame.width - width) // 2, (frame.height - height) // 2, width, height)
        seconds = []
        for _ in range(2):
            before = self._seconds["denoise"]
            self._denoise(contender, probe)
            seconds.append(self._seconds["denoise"] - before)
        self._excuse(seconds[0] - seconds[1], "denoise")
        contender.denoise = seconds[1] * frame.width * frame.height / (width * height)

    # ------------------------------------------------------------- passes

    def _spend(self, chosen: Contender) -> None:
        if self._budget.seconds is not None and chosen.denoise is None:  # nothing is left
            return
        if self._streams is not None:
            price = 1.0 if self._streams.planned else self._plan(self._streams, chosen)
            if price is not None:
                self._spend_adaptively(self._streams, chosen, price)
                return
            self._spread_evenly()
        while (spp := self._next_spp(chosen)) > 0:
            self._pass(chosen.shifts, spp)
            if self._update is not None and self._next_spp(chosen) > 0:
                self._show(chosen)

    # ------------------------------------------------------------- different numbers of samples

    def _may_adapt(self, view: mi.Sensor) -> bool:
        """Return whether pixels may get different numbers of samples, as far as is known yet."""
        from mitsuba_gdpt.integrators import arguments

        wanted = self._budget.seconds is not None if self._adaptive is None else self._adaptive
        if not wanted or self._budget.noise is not None:
            return False
        try:
            self._quick()
            some = next(iter(self._integrators.values()))
            arguments.portion_sampler(view, some.parameters)
        except (ConfigError, LayoutError):
            if self._adaptive:
                raise
            return False
        return True

    def _spread_evenly(self) -> None:
        self._streams, self._sequence, self._even = None, PARTS, True

    def _may_go_on(self) -> bool:
        """Return whether an adaptive render that was interrupted goes on as if it had not been.

        With a time it does not: what is measured would have to be the same again.
        """
        return self._budget.spp is not None and self._adaptive is not False

    def _go_on(self, state: State) -> None:
        """Be where an adaptive render was when its file was written."""
        if "even" in state.known:
            self._spread_evenly()
            return
        planes, like = state.planes, self._accumulation.frame
        self._resumed = Accumulation()
        if "before" in state.known:
            self._resumed = Accumulation.taken_from(state, planes, like, "before")
        self._kept = len(self._resumed.passes)
        self._streams, pilot = Streams.taken_from(state, planes, like)
        if self._streams.planned:
            self._accumulation = Accumulation.together(self._resumed, self._streams.mean())
            return
        self._accumulation = self._resumed.copied()
        for part in pilot:
            self._accumulation.add(part.frame, part.passes[0])

    def _with_state(self, frame: FrameBuffers) -> FrameBuffers:
        """Add what it takes to go on as if nothing had happened."""
        if self._budget.spp is None or (self._streams is None and not self._even):
            return frame
        if self._streams is None:
            return attach(frame, {"even": True}, {})
        planes: Planes = {}
        known = self._streams.put(planes)
        if known is None:
            return frame
        if self._resumed.passes:
            known["before"] = self._resumed.put(planes, "before")
        return attach(frame, known, planes)

    def _quick(self) -> Call:
        """Return the method whose reconstructions tell where samples are needed.

        Raises:
            LayoutError: None can run here without gradients, as without OIDN.
        """
        from mitsuba_gdpt import denoisers

        layout = next(iter(self._integrators.values())).layout
        return denoisers.default_call(denoisers.without_gradients(layout), _QUICK)

    def _plan(self, streams: Streams, chosen: Contender) -> float | None:
        """Complete the pilot and share out what comes after it.

        Returns:
            What a sample will cost over what one of the pilot costs; None where it does not pay.
        """
        from mitsuba_gdpt import denoisers

        have = sum(done.spp for done in self._accumulation.passes[self._kept :])
        spp = have + self._spp_to_come(chosen)
        part = streams.part or pilot_spp(spp)
        if spp < (2 * part * PARTS if self._adaptive else LEAST_SPP):
            return None
        streams.part = part
        if not self._adaptive:
            pixels = self._accumulation.frame.width * self._accumulation.frame.height
            seconds = denoisers.find_level(_QUICK).seconds_per_megapixel * pixels / 1e6
            left = self._left()
            if seconds > _PLAN_SHARE * left or (self._budget.wall and left < _LEAST_WALL):
                return None
        while (missing := part - streams.least_spp) > 0:
            self._pass(chosen.shifts, missing)
            if self._update is not None and self._budget.seconds is None:
                self._show(chosen)
        start = self._clock()
        price = streams.plan(self._quick(), self._spp_to_come(chosen))
        self._seconds["denoise"] += self._clock() - start
        return price

    def _spend_adaptively(self, streams: Streams, chosen: Contender, price: float) -> None:
        self._compile_adaptive(chosen)
        if self._budget.seconds is not None:
            fixed, slope = self._costs[chosen.shifts].line
            self._adaptive_costs = Costs({spp: fixed + spp * slope * price for spp in (1.0, 2.0)})
        while spp := self._next_adaptive_spp(streams, chosen):
            self._adaptive_pass(streams, chosen.shifts, spp)
            shown = self._budget.seconds is None or streams.turn.stream == 0
            if self._update is not None and shown and self._next_adaptive_spp(streams, chosen):
                self._show(chosen)

    def _next_adaptive_spp(self, streams: Streams, chosen: Contender) -> float:
        """Return the samples of the next pass, in the mean; 0 where all are taken."""
        turn = streams.turn
        if turn.stream == 0:
            share = 1.0 if any(turn.given) else _FIRST_ROUND
            spp = share * self._spp_to_come(chosen) / 2
            if spp < max(1.0, _LEAST_ROUND * self._accumulation.spp):
                return 0.0
            # A pixel is never split, and some get many times the mean.
            lanes = self._integrator(chosen.shifts).parameters.max_lanes
            return min(spp, max(1.0, lanes / MOST_OF_MEAN))
        if self._budget.seconds is not None:  # if the other took longer than expected
            return min(turn.spp, self._spp_to_come(chosen))
        return turn.spp

    def _compile_adaptive(self, chosen: Contender) -> None:
        """Render next to nothing: compiling happens only the first time."""
        import numpy as np

        from mitsuba_gdpt.integrators.pixels import PORTION

        counts = np.zeros(self._accumulation.frame.data.shape[:2], np.intp)
        counts[0, 0] = PORTION
        seconds = []
        for _ in range(2):
            start = self._clock()
            self._render(chosen.shifts, PORTION, PARTS, counts)
            seconds.append(self._clock() - start)
        self._seconds["render"] += sum(seconds)
        self._excuse(seconds[0] - seconds[1], "render")

    def _adaptive_pass(self, streams: Streams, shifts: int, spp: float) -> None:
        """Render a pass of the next stream with ``spp`` samples per pixel in the mean."""
        start = self._clock()
        counts = streams.next_counts(spp)
        if not counts.any():
            streams.skip(spp)
            return
        mean = max(1, round(float(counts.mean())))  # of both streams the same, for the costs
        # Its own: where in a sequence a pixel is depends on its counts.
        sequence = PARTS + 1 + len(self._accumulation.passes)
        frame, done = self._render(shifts, mean, sequence, counts)
        streams.add(frame, done, counts, spp)
        self._accumulation = Accumulation.together(self._resumed, streams.mean())
        seconds = self._clock() - start
        self._seconds["render"] += seconds
        if self._adaptive_costs is not None:
            self._adaptive_costs.note(mean, seconds)

    def _spp_to_come(self, chosen: Contender) -> int:
        """Return the samples per pixel that the rest of the budget pays for."""
        if self._budget.spp is not None:
            return max(0, self._budget.spp - self._accumulation.spp)
        assert chosen.denoise is not None
        costs = self._adaptive_costs or self._costs[chosen.shifts]
        return costs.affordable(self._left() - chosen.denoise)

    def _with_samples(self, frame: FrameBuffers) -> FrameBuffers:
        """Append the samples of each pixel where their numbers differ."""
        if self._streams is None or not self._streams.planned:
            return frame
        return frame.appended(SAMPLES, self._accumulation.samples)

    # ------------------------------------------------------------- noise levels

    def _refine(self, chosen: Contender) -> torch.Tensor:
        """Render pairs of passes, one for each half, until the error is estimated small enough."""
        assert self._budget.noise is not None
        level = math.inf
        while True:
            spp = self._next_pair(chosen, level)
            for number in (0, 1):
                self._pass(chosen.shifts, spp, number)
            frame = self._accumulation.frame
            image = self._denoise(chosen, frame)
            self._error = self._estimate(chosen, image)
            level = float(self._error.mean())
            if level <= self._budget.noise or self._next_pair(chosen, level) == 0:
                return image
            if self._update is not None:
                self._update(image, frame.appended(ERROR, self._error))

    def _next_pair(self, chosen: Contender, level: float) -> int:
        """Return the samples of each of the next two passes; 0 where no more are allowed."""
        have = self._accumulation.spp
        least = self._integrator(chosen.shifts).parameters.least_spp
        spp = max(FIRST_SPP, min(have // 2, LARGEST_SPP))
        if have and math.isfinite(level):
            assert self._budget.noise is not None
            ratio = min(level / self._budget.noise, _FAR)
            wanted = have * (ratio ** (1 / chosen.errors[1]) - 1) / 2
            spp = min(spp, max(least, math.ceil(wanted)))
        if self._budget.spp is not None:
            spp = min(spp, (self._budget.spp - have) // 2)
        return spp if spp >= least else 0

    def _both_halves(self) -> bool:
        return all(half.passes for half in self._halves)

    def _estimate(self, chosen: Contender, image: torch.Tensor) -> torch.Tensor:
        """Return the map of the estimated error of an image of both halves, (H, W, 1)."""
        halves = [half.frame for half in self._halves]
        images = [self._denoise(chosen, half) for half in halves]
        return noises.error_map(image, images, [half.primal for half in halves])

    def _next_spp(self, chosen: Contender) -> int:
        usual = self._accumulation.next_spp()
        least = self._integrator(chosen.shifts).parameters.least_spp
        if self._budget.spp is not None:
            left = self._budget.spp - self._accumulation.spp
            return left if left < usual + least else usual  # what is left would be no pass
        assert chosen.denoise is not None
        affordable = self._costs[chosen.shifts].affordable(self._left() - chosen.denoise)
        if affordable < least:
            return 0
        return affordable if affordable <= _LAST * usual else usual

    def _pass(self, shifts: int, spp: int, half: int | None = None) -> float:
        """Render a pass, also for a half of the samples, and return its seconds."""
        import numpy as np

        start = self._clock()
        sequence = self._sequence if half is None else half
        if self._streams is not None:
            sequence = self._streams.next_part
        frame, done = self._render(shifts, spp, sequence)
        if half is not None:
            self._halves[half].add(frame, done)
        if self._streams is not None:
            bounces = self._integrator(shifts).bounces
            self._streams.add_pilot(frame, done, np.array(bounces))
        self._accumulation.add(frame, done)
        seconds = self._clock() - start
        self._seconds["render"] += seconds
        self._costs.setdefault(shifts, Costs()).note(done.spp, seconds)
        return seconds

    def _render(
        self,
        shifts: int,
        spp: int,
        sequence: int,
        counts: np.ndarray[Any, np.dtype[np.intp]] | None = None,
    ) -> tuple[FrameBuffers, Pass]:
        """Render the next pass of a sequence of random numbers."""
        import drjit as dr

        seed = seed_of(self._seed, sequence)
        frame = frames.render(
            self._source,
            self._integrator(shifts),
            spp=spp,
            seed=seed,
            sensor=self._sensor,
            counts=counts,
            first=self._accumulation.taken(seed),
        )
        dr.sync_thread()
        return frame, Pass(seed, int(frame.metadata["spp"]), shifts)

    def _show(self, chosen: Contender) -> None:
        """Hand the image so far on, unless that takes too much of the time."""
        assert self._update is not None
        if self._budget.seconds is not None:
            assert chosen.denoise is not None
            if chosen.denoise > _UPDATE_SHARE * self._left():
                return
        frame = self._accumulation.frame
        image = self._denoise(chosen, frame)
        self._update(image, self._with_state(self._with_samples(frame)))

    def _denoise(self, contender: Contender, frame: FrameBuffers) -> torch.Tensor:
        from mitsuba_gdpt import denoisers

        start = self._clock()
        image: torch.Tensor = denoisers.denoise(frame, contender.method)
        if image.is_cuda:
            import torch

            torch.cuda.synchronize(image.device)
        self._seconds["denoise"] += self._clock() - start
        return image

    # ------------------------------------------------------------- time

    def _excuse(self, seconds: float, part: str) -> None:
        """Count seconds that only the first time takes apart."""
        seconds = max(0.0, seconds)
        self._seconds[part] -= seconds
        self._seconds["first"] += seconds

    def _left(self) -> float:
        """Return the seconds that are left of the budget."""
        assert self._budget.seconds is not None
        spent = self._clock() - self._start
        spent += self._budget.spent if self._budget.wall else -self._seconds["first"]
        return self._budget.seconds - spent
