"""One method on its way through the frames of a shot."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from mitsuba_gdpt import denoisers, interrupts, metrics
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import plain
from mitsuba_gdpt.evaluation.inputs import Inputs
from mitsuba_gdpt.evaluation.settings import Settings
from mitsuba_gdpt.evaluation.shots import Shot
from mitsuba_gdpt.execution import FAILURES


@dataclass(frozen=True)
class Values:
    """What the metrics say of one cell.

    Attributes:
        means: Metric name to value.
        standard_errors: Metric name to the metric's own standard error, where it has one.
    """

    means: dict[str, float]
    standard_errors: dict[str, float]


class Run:
    """One method on all frames of a shot.

    Recurrent methods keep their state from frame to frame.

    Attributes:
        method: What reconstructs.
        seconds: Of the frames so far.
        error: What it died of, in one line; empty while it lives.
    """

    def __init__(self, method: Call, shot: Shot, settings: Settings, warm: set[Call]) -> None:
        """Begin before the first frame.

        Args:
            method: What reconstructs.
            shot: Whose frames are going to come.
            settings: Which metrics are computed.
            warm: Methods that have run on frames of this size; added to.
        """
        self.method = method
        self.seconds: list[float] = []
        self.error = ""
        self._warm = warm
        self._stream: denoisers.Stream | None = None
        names = settings.metrics if shot.is_still else settings.metrics_of(static=shot.static)
        self._metrics = [metrics.find(name) for name in names]
        self._still = shot.is_still
        self._accumulators: list[metrics.Accumulator] = []
        self._values = Values({}, {})

    @property
    def label(self) -> str:
        """Text of the method."""
        return str(self.method)

    def step(self, inputs: Inputs, reference: metrics.Reference) -> torch.Tensor | None:
        """Reconstruct and compare the next frame; None if this fails or something did before."""
        if self.error:
            return None
        try:
            image = self._denoise(inputs).cpu()
            if self._still:
                self._compare(image, reference)
            else:
                self._accumulate(image, reference)
        except FAILURES as error:
            interrupts.pass_on(error)
            self.error = plain(error)  # see execution.collecting()
            return None
        return image

    def values(self) -> Values:
        """Return what the metrics say of all frames."""
        if self._still:
            return self._values
        pairs = zip(self._metrics, self._accumulators, strict=True)
        return Values({metric.name: float(sums.compute()) for metric, sums in pairs}, {})

    def _compare(self, image: torch.Tensor, reference: metrics.Reference) -> None:
        for metric in self._metrics:
            result = metric(_shown(image, metric), reference)
            self._values.means[metric.name] = result.value
            if result.standard_error is not None:
                self._values.standard_errors[metric.name] = result.standard_error

    def _accumulate(self, image: torch.Tensor, reference: metrics.Reference) -> None:
        if not self._accumulators:  # not before: this may ask for weights
            self._accumulators = [metric.accumulator(None) for metric in self._metrics]
        for metric, accumulator in zip(self._metrics, self._accumulators, strict=True):
            accumulator.update(_shown(image, metric), reference)

    def _denoise(self, inputs: Inputs) -> torch.Tensor:
        denoise = self._reconstruction(inputs)
        if self.method not in self._warm:  # loads weights, compiles kernels
            denoise()
            if self._stream is not None:
                self._stream.reset()
            self._warm.add(self.method)
        image, seconds = timed(denoise, inputs.frame.device)
        self.seconds.append(seconds)
        return image

    def _reconstruction(self, inputs: Inputs) -> Callable[[], torch.Tensor]:
        method = with_halves(self.method, inputs)
        if self._still:

            def one() -> torch.Tensor:
                image: torch.Tensor = denoisers.denoise(inputs.frame, method)
                return image

            return one
        # Half buffers are an option, so methods that take them get a new stream with each frame;
        # none of them is recurrent.
        if self._stream is None or method is not self.method:
            self._stream = denoisers.stream(method)
        stream = self._stream

        def following() -> torch.Tensor:
            image: torch.Tensor = stream(inputs.frame)
            return image

        return following


def with_halves(method: Call, inputs: Inputs) -> Call:
    """Return a method with the half buffers of a frame, where it takes them."""
    if inputs.halves is None or not method.target.takes_halves:
        return method
    return method.with_options({"halves": inputs.halves})


def timed(work: Callable[[], torch.Tensor], device: torch.device) -> tuple[torch.Tensor, float]:
    """Return the result of ``work`` and the seconds that it took."""
    _synchronise(device)
    start = time.perf_counter()
    image = work()
    _synchronise(device)
    return image, time.perf_counter() - start


def _shown(image: torch.Tensor, metric: metrics.Metric) -> torch.Tensor:
    """Return an image as a metric takes it: some refuse negative values."""
    return metrics.displayable(image) if metric.nonnegative else image


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
