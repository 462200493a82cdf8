"""The best image within a time: passes until the budget is spent, reconstruction included.

Or the image of a given number of samples, or of a given error. A render on a budget has three
parts, which share a :class:`~.session.Session` (the passes so far, and what they take):

- :mod:`.limits`: when it ends, and how much time is left;
- :mod:`.choice`: the first passes, by which offset paths and a method are chosen;
- :mod:`.spending`: the passes that follow, the same in all pixels; :mod:`.uneven`, more where they
  are needed; or :mod:`.halves`, until the image is good enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt import checks
from mitsuba_gdpt.channels import ERROR
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.rendering import uneven
from mitsuba_gdpt.rendering.adaptive import Streams
from mitsuba_gdpt.rendering.choice import Choice, Chooser, extra_buffers
from mitsuba_gdpt.rendering.contenders import Contender
from mitsuba_gdpt.rendering.frame import with_buffers
from mitsuba_gdpt.rendering.halves import PARTS, Halves
from mitsuba_gdpt.rendering.limits import Budget, Purse
from mitsuba_gdpt.rendering.passes import Accumulation
from mitsuba_gdpt.rendering.session import Session, Update
from mitsuba_gdpt.rendering.source import Source
from mitsuba_gdpt.rendering.spending import Spending
from mitsuba_gdpt.rendering.uneven import Uneven

if TYPE_CHECKING:
    import mitsuba as mi
    import torch

    from mitsuba_gdpt.buffers import FrameBuffers
    from mitsuba_gdpt.denoisers import Call


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
        noise_range: The true one is above the first number in nine of ten renders, and below the
            second in nine of ten.
    """

    image: torch.Tensor
    buffers: FrameBuffers
    shifts: int
    method: Call
    seconds: Mapping[str, float]
    interrupted: bool
    noise: float | None = None
    noise_range: tuple[float, float] | None = None


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
        noise: Instead of ``seconds``: end when the estimated relMSE of the image is below this,
            and the true one is below 1.5 times this in nine of ten renders.
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
        before = Accumulation() if resumed is None else resumed
        extra = extra_buffers(budget, before, quality, method)
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
        self._purse = Purse(budget, clock)
        self._session = Session(
            source,
            self._purse,
            with_buffers(parameters, extra),
            before.copied(),
            sensor=sensor,
            seed=seed,
            update=update,
        )
        self._chooser = Chooser(self._session, quality, method)
        _check_least(self._session)
        view = source.view(sensor)
        self._spending = self._begin(view, before.copied(), adaptive)
        integrator = " ".join(str(self._session.first_integrator).split())
        known = {**(described or {}), "integrator": integrator}
        size = source.size(sensor)
        self._session.accumulation.check(*size, known, self._session.layout)
        # With a time it cannot go on as if it had not been interrupted: what is measured differs.
        if before.state is not None and budget.spp is not None and adaptive is not False:
            self._spending = uneven.resumed(self._session, before.state, adaptive)

    def _begin(self, view: mi.Sensor, before: Accumulation, adaptive: bool | None) -> Spending:
        if self._purse.budget.noise is not None:
            return Halves(self._session)
        if uneven.may_be_uneven(self._session, view, adaptive):
            return Uneven(self._session, before, Streams(), adaptive=adaptive)
        return Spending(self._session)

    def run(self) -> Rendered:
        """Render and reconstruct.

        Raises:
            KeyboardInterrupt: Before the first pass was complete.
        """
        from mitsuba_gdpt.denoisers import Call

        session = self._session
        self._purse.open()
        interrupted = False
        chosen = image = None
        try:
            chosen = self._chooser.choose(self._spending.take)
            image = self._spend(chosen)
        except KeyboardInterrupt:
            if not session.accumulation.passes:
                raise
            interrupted = True
        frame = session.accumulation.frame
        chosen = chosen or self._chooser.most_telling()
        method = chosen.method
        if image is None:
            try:
                image = session.denoise(chosen, frame)
                self._spending.judge(chosen, image)
            except KeyboardInterrupt:  # the samples, which took longer, are not lost
                interrupted = True
                if image is None:
                    image, method = frame.primal, Call("none")
        found = self._spending.estimate
        frame = self._spending.with_samples(frame)
        if found is not None:
            frame = frame.appended(ERROR, found.map)
        if interrupted:
            frame = self._spending.with_state(frame)
        seconds = dict(self._purse.seconds)
        level, ends = (None, None) if found is None else (found.level, (found.low, found.high))
        return Rendered(image, frame, chosen.shifts, method, seconds, interrupted, level, ends)

    def _spend(self, chosen: Contender) -> torch.Tensor | None:
        """Take the samples; return the image if it is made already."""
        if self._purse.budget.seconds is not None and chosen.denoise is None:  # nothing is left
            return None
        if isinstance(self._spending, Uneven) and not self._spending.pays(chosen):
            self._spending = uneven.evened(self._session)
        return self._spending.spend(chosen)

    def choose(self) -> Choice:
        """Take the first passes, and return what the rest would be spent on."""
        self._purse.open()
        best = self._chooser.choose(self._spending.take)
        return Choice(best.shifts, best.method, best.denoise or 0.0, dict(self._purse.seconds))

    @property
    def buffers(self) -> FrameBuffers | None:
        """What has been rendered so far, (H, W, C), also where :meth:`run` failed."""
        return self._spending.so_far() if self._session.accumulation.passes else None


def _check_least(session: Session) -> None:
    """Refuse to add fewer samples than passes may have.

    Raises:
        ConfigError: It would come to that.
    """
    have, budget, least = session.accumulation.spp, session.budget, session.least_spp
    if budget.noise is not None and budget.spp is not None and budget.spp < PARTS * least:
        raise ConfigError(
            f"spp is {budget.spp}; a noise level needs {PARTS} parts of the samples: expected "
            f"{PARTS * least} or more"
        )
    if have and budget.spp is not None and have < budget.spp < have + least:
        raise ConfigError(
            f"spp is {budget.spp}, and {have} samples are there; with variances expected "
            f"{have + least} or more"
        )
