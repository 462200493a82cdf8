"""A sequence within a time: one budget for all frames.

All frames get the same samples. More of them for frames that others see, or whose pixels have just
come into sight, was tried and has not paid (docs/research/2026-11-30-noise.md). Offset paths and
method are those that :mod:`.budget` chooses for the middle frame.

Everything is in its folder (:mod:`.sequence_folder`): whatever ends a render, the same call goes on
and gives the same bits.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt import checks, files, progress
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.rendering import timing
from mitsuba_gdpt.rendering.budget import BudgetedRender, named_method
from mitsuba_gdpt.rendering.frame import make_integrator, with_buffers
from mitsuba_gdpt.rendering.limits import Budget
from mitsuba_gdpt.rendering.passes import (
    FIRST_SPP,
    LARGEST_SPP,
    Accumulation,
    Pass,
    render_pass,
    seed_of,
)
from mitsuba_gdpt.rendering.sequence_folder import Plan, frame_path
from mitsuba_gdpt.rendering.source import Source
from mitsuba_gdpt.scenes import Camera

if TYPE_CHECKING:
    import mitsuba as mi
    import torch

    from mitsuba_gdpt.buffers import FrameBuffers
    from mitsuba_gdpt.denoisers import Call
    from mitsuba_gdpt.motion import PinholeCamera

#: Samples per pixel that every frame gets, in two passes that tell what they cost.
LEAST_SPP = 2 * FIRST_SPP
#: Shares of the time that is left which are rendered at once. First passes of few samples tell
#: little about what many take, so the rest is planned when most is done, and again in the end.
_ROUNDS = (0.7, 1.0, 1.0)
#: Frames whose reconstruction is timed before the rest is planned.
_TIMED = 2


@dataclass(frozen=True)
class RenderedSequence:
    """What became of the budget of a sequence.

    Attributes:
        folder: Has ``frame-0000.exr`` and so on: buffers, and the image as layer ``denoised``.
        spp: Samples per pixel of each frame.
        shifts: Offset paths per sample.
        method: What reconstructed the frames.
        seconds: ``render``, ``denoise`` and ``first`` (what happens only the first time).
        interrupted: Whether Ctrl-C ended it early.
    """

    folder: Path
    spp: tuple[int, ...]
    shifts: int
    method: Call
    seconds: Mapping[str, float]
    interrupted: bool


def render_sequence(
    scene: mi.Scene | Source,
    cameras: Sequence[Camera],
    folder: str | os.PathLike[str],
    *,
    width: int,
    height: int,
    seconds: float | None = None,
    spp: int | None = None,
    seed: int = 0,
    quality: str | None = None,
    method: str | Call | None = None,
    on_frame: Callable[[int, torch.Tensor], None] | None = None,
    **parameters: Any,
) -> RenderedSequence:
    """Render and reconstruct the best sequence for one budget of all its frames.

    A call that was interrupted or killed goes on where it was, with the same result; so does one
    that is complete, which reconstructs once more.

    Args:
        scene: A variant has to be set.
        cameras: :class:`mitsuba_gdpt.scenes.Camera`, one per frame, of one shot without cuts.
        folder: Where frames go; made if it is missing.
        width: Of the frames, in pixels.
        height: Of the frames, in pixels.
        seconds: For all frames: rendering and reconstruction, without what happens only the first
            time and without writing files.
        spp: Samples per pixel in the mean over the frames, instead of ``seconds``.
        seed: Of the sampler.
        quality: Level of reconstruction, see :func:`~mitsuba_gdpt.denoise`.
        method: Method of reconstruction, as for :func:`~mitsuba_gdpt.stream`; by default
            ``temporal`` with what the time allows.
        on_frame: Called with the number of each frame and its (H, W, 3) image, in the end.
        parameters: Of ``gdpt``.

    Raises:
        ConfigError: A value makes no sense, the folder holds another sequence, or a scene that
            :func:`~mitsuba_gdpt.rendering.open_source` loaded has been edited since.
        FormatError: A file of the folder is damaged or cannot be written.
        KeyboardInterrupt: Ctrl-C, before there was a sample of each frame or while the frames are
            reconstructed; the same call goes on.
    """
    source = Source.of(scene)
    return SequenceRender(
        source,
        cameras,
        folder,
        {**source.integrator, **parameters},
        Budget(seconds, spp),
        size=(width, height),
        seed=seed,
        quality=quality,
        method=named_method(method, quality),
        on_frame=on_frame,
    ).run()


class SequenceRender:
    """The frames of one shot on one budget."""

    def __init__(
        self,
        source: Source,
        cameras: Sequence[Camera],
        folder: str | os.PathLike[str],
        parameters: Mapping[str, Any],
        budget: Budget,
        *,
        size: tuple[int, int],
        seed: int = 0,
        quality: str | None = None,
        method: Call | None = None,
        on_frame: Callable[[int, torch.Tensor], None] | None = None,
        described: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Check what was asked for; see :func:`render_sequence`.

        Args:
            source: Scene.
            cameras: One per frame.
            folder: Where frames go.
            parameters: Of ``gdpt``.
            budget: Seconds, or samples per pixel in the mean.
            size: Width and height.
            seed: Of the sampler.
            quality: Level of reconstruction.
            method: Method of reconstruction.
            on_frame: Called with the number and the image of each frame.
            described: Further words for the headers of files.
            clock: For tests.

        Raises:
            ConfigError: A value makes no sense.
        """
        if not cameras:
            raise ConfigError("got no cameras; expected one per frame")
        if wrong := [type(c).__name__ for c in cameras if not isinstance(c, Camera)]:
            raise ConfigError(
                f"got a camera of type {wrong[0]}; expected mitsuba_gdpt.scenes.Camera(origin=..., "
                "target=..., fov=...) for each frame"
            )
        if budget.noise is not None:
            raise ConfigError("got a noise level for a sequence; expected seconds or spp")
        if budget.spp is not None:
            checks.spp("spp of a sequence", budget.spp, least=LEAST_SPP)
        for name, value in zip(("width", "height"), size, strict=True):
            checks.pixels(name, value)
        self._source, self._budget, self._seed, self._size = source, budget, seed, size
        self._cameras, self._folder = tuple(cameras), Path(folder)
        self._parameters = dict(parameters)
        self._least = make_integrator(parameters).parameters.least_spp
        if budget.spp is not None and 0 < budget.spp - LEAST_SPP < self._least:
            raise ConfigError(
                f"spp of a sequence is {budget.spp}; with variances expected {LEAST_SPP}, or "
                f"{LEAST_SPP + self._least} or more"
            )
        self._quality, self._method = quality, method
        self._words = {**(described or {}), **source.contents.words()}
        self._on_frame, self._clock = on_frame, clock
        self._seconds = dict.fromkeys(("render", "denoise", "first"), 0.0)
        self._integrator: Any = None
        self._cold = budget.seconds is not None  # kernels are still to be compiled

    def run(self) -> RenderedSequence:
        """Render and reconstruct; see :func:`render_sequence`."""
        from mitsuba_gdpt.denoisers import Call

        self._folder.mkdir(parents=True, exist_ok=True)
        files.sweep_once(self._folder)
        self._plan = self._open()
        method = Call.parse(self._plan.method)
        parameters = with_buffers(self._parameters, method.requires)
        self._integrator = make_integrator({**parameters, "shifts": self._plan.shifts})
        interrupted = False
        try:
            if self._plan.share is None:
                self._first_passes(method)
                self._share_out()
            self._spend_rest()
        except KeyboardInterrupt:
            if self._plan.share is None:
                raise
            interrupted = True
        spp = self._reconstruct(method)
        return RenderedSequence(
            self._folder, spp, self._plan.shifts, method, dict(self._seconds), interrupted
        )

    # ------------------------------------------------------------- what is decided

    def _open(self) -> Plan:
        """Read what was decided before, or choose offset paths and method on the middle frame."""
        described = {
            "size": list(self._size),
            "cameras": [asdict(camera) for camera in self._cameras],
            "parameters": {key: str(value) for key, value in sorted(self._parameters.items())},
            "budget": {"seconds": self._budget.seconds, "spp": self._budget.spp},
            "seed": self._seed,
            "quality": self._quality,
            "method": None if self._method is None else str(self._method),
            **self._words,
        }
        described = json.loads(json.dumps(described))  # as it will be read
        if (plan := Plan.read(self._folder, described, self._source.contents)) is not None:
            return plan
        share = None if self._budget.seconds is None else self._budget.seconds / len(self._cameras)
        middle = BudgetedRender(
            self._source,
            self._parameters,
            Budget(share, self._budget.spp),
            adaptive=False,
            sensor=self._sensor(len(self._cameras) // 2),
            quality=self._quality,
            method=self._method,
            clock=self._clock,
        )
        choice = middle.choose()
        self._seconds, self._cold = dict(choice.seconds), False
        plan = Plan(
            described,
            choice.shifts,
            str(self._method or over_frames(choice.method)),
            choice.denoise,
            choice.seconds["render"] + choice.seconds["denoise"],
        )
        plan.write(self._folder)
        return plan

    def _left(self) -> float:
        """Return what is left for samples: seconds of all frames, or samples per pixel."""
        count = len(self._cameras)
        if self._budget.spp is not None:
            return float((self._budget.spp - LEAST_SPP) * count)
        assert self._budget.seconds is not None
        spent, denoise = self._plan.spent_seconds, self._plan.denoise_seconds * count
        return max(0.0, self._budget.seconds - spent - denoise)

    def _share_out(self) -> None:
        """Give all frames the same samples for what is left and their first passes took."""
        self._plan.share = int(self._left() / sum(self._plan.seconds_per_spp))
        self._plan.write(self._folder)

    def _spend_rest(self) -> None:
        """Render round after round, the one first that an earlier call did not finish."""
        plan = self._plan
        shares = _ROUNDS if self._budget.spp is None else (1.0,)
        while True:
            if plan.rounds:
                self._render(plan.rounds[-1])
            if len(plan.rounds) == len(shares):
                return
            have = plan.rounds[-1] if plan.rounds else [LEAST_SPP] * len(self._cameras)
            assert plan.share is not None
            total = plan.share * sum(plan.seconds_per_spp)
            part = shares[len(plan.rounds)] * self._left() / total if total else 0.0
            part = part if self._budget.spp is None else 1.0
            if plan.rounds and part * plan.share < 1:
                return
            more = int(part * plan.share)
            more = more if more >= self._least else 0
            plan.rounds.append([n + more for n in have])
            plan.write(self._folder)

    # ------------------------------------------------------------- passes

    def _sensor(self, number: int) -> mi.Sensor:
        from mitsuba_gdpt.scenes import make_sensor

        return make_sensor(self._cameras[number], *self._size)

    def _pass(self, number: int, done: Accumulation, spp: int) -> None:
        """Render a pass of a frame and add it."""
        if self._cold:  # goes on in a new process; compiling is no part of the budget
            start, self._cold = self._clock(), False
            self._rendered(number, done, FIRST_SPP)
            self._seconds["first"] += self._clock() - start
        with timing.timed(self._clock) as block:
            done.add(*self._rendered(number, done, spp))
        self._seconds["first"] += block.compiling
        self._spend("render", block.seconds)
        per_spp = block.seconds / spp if self._budget.spp is None else 1.0
        self._plan.seconds_per_spp[number] = per_spp

    def _rendered(self, number: int, done: Accumulation, spp: int) -> tuple[FrameBuffers, Pass]:
        """Render the next samples of a frame."""
        return render_pass(
            self._source,
            self._integrator,
            spp=spp,
            seed=seed_of(self._seed, number),
            sensor=self._sensor(number),
            before=done,
        )

    def _spend(self, part: str, seconds: float) -> None:
        self._seconds[part] += seconds
        self._plan.spent_seconds += seconds

    def _first_passes(self, method: Call) -> None:
        """Render two passes of each frame, which tell what frames cost.

        Nothing of an earlier call is used: until a round is planned, it is only this that is lost.
        """
        from mitsuba_gdpt import denoisers

        self._plan.seconds_per_spp = [1.0] * len(self._cameras)
        video, taken = denoisers.stream(method), []
        with progress.task("first passes", total=len(self._cameras)) as task:
            for number in range(len(self._cameras)):
                done = Accumulation()
                for _ in range(2):
                    self._pass(number, done, FIRST_SPP)
                self._write(number, done.frame)
                if self._budget.seconds is not None and number < _TIMED:
                    start = self._clock()
                    video(self._with_motion(number, done.frame))
                    taken.append(self._clock() - start)
                    self._spend("denoise", taken[-1])
                task.advance()
        if taken:
            self._plan.denoise_seconds = sum(taken) / len(taken)

    def _render(self, wanted: Sequence[int]) -> None:
        """Render passes until each frame has the samples that it shall have."""
        numbers = range(len(wanted))
        with progress.task("rendering frames", total=float(sum(wanted))) as task:
            for number in numbers:
                done = Accumulation.from_exr(frame_path(self._folder, number))
                task.advance(done.spp)
                while (missing := wanted[number] - done.spp) > 0:
                    before = done.spp
                    self._pass(number, done, min(missing, LARGEST_SPP))
                    self._write(number, done.frame)
                    self._plan.write(self._folder)
                    task.advance(done.spp - before)

    def _pinhole(self, number: int) -> PinholeCamera:
        from mitsuba_gdpt.motion import PinholeCamera

        return PinholeCamera.from_sensor(self._sensor(number))

    def _with_motion(self, number: int, frame: FrameBuffers) -> FrameBuffers:
        from mitsuba_gdpt.motion import add_motion

        before = self._pinhole(number - 1) if number > 0 else None
        return add_motion(frame, self._pinhole(number), before)

    def _write(self, number: int, frame: FrameBuffers, image: Any = None) -> None:
        """Write the file of a frame, with the camera: so its motion can be found again."""
        words = {**self._words, **self._pinhole(number).metadata()}
        frame.to_exr(frame_path(self._folder, number), image=image, metadata=words)

    def _reconstruct(self, method: Call) -> tuple[int, ...]:
        from mitsuba_gdpt import denoisers

        video = denoisers.stream(method)
        spp = []
        with progress.task("reconstructing", total=len(self._cameras)) as task:
            for number in range(len(self._cameras)):
                done = Accumulation.from_exr(frame_path(self._folder, number))
                start = self._clock()
                image = video(self._with_motion(number, done.frame))
                self._spend("denoise", self._clock() - start)
                self._write(number, done.frame, image.cpu())
                if self._on_frame is not None:
                    self._on_frame(number, image)
                spp.append(done.spp)
                task.advance()
        return tuple(spp)


def over_frames(method: Call) -> Call:
    """Return a method of single frames on the samples of several."""
    from mitsuba_gdpt.denoisers import Call

    return Call("temporal", {"using": method})
