"""More samples where they reduce the error of the reconstruction more.

A pilot of four independent parts makes two maps: each is the squared difference of the
reconstructions of two parts, which is what more samples will take away. The samples that follow
come in two streams, and in each their number follows the map of the *other* stream's pilot. So no
pixel's samples have a say in how many there are of them: each stream is unbiased, and so is their
mean with equal weights. (A mean over samples whose number depends on them is not: Kirk and Arvo,
*Unbiased sampling techniques for image synthesis*, SIGGRAPH 1991.)

The two maps are independent estimates of one thing. Where they do not agree, what they show is
noise, and the same number of samples everywhere is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt.rendering.passes import Accumulation, Pass
from mitsuba_gdpt.rendering.state import Planes, State

if TYPE_CHECKING:
    import numpy as np
    import torch

    from mitsuba_gdpt.buffers import FrameBuffers
    from mitsuba_gdpt.denoisers import Call

#: Fewer samples per pixel, in all, are spread evenly: many small passes are less well stratified
#: than one large one, and that is lost first.
LEAST_SPP = 128
#: Parts of the pilot, and the share of all samples that is meant for it.
PARTS = 4
_PILOT_SHARE = 1 / 4
#: In which the parts get their passes: two of each stream.
_ORDER = (0, 2, 1, 3)
#: Samples per pixel of a part: what a reconstruction needs, and what is enough.
_LEAST_PILOT, _MOST_PILOT = 4, 32
#: The maps are made of frames of half the width and height: a quarter of the time.
_REDUCTION = 2
#: Of the map, in its pixels: side of the window that it is smoothed with, twice.
_WINDOW = 5
#: Largest value of the map: this quantile. Fireflies are not where the error is.
_QUANTILE = 0.99
#: Least correlation of the logarithms of the two maps. On training scenes it is 0.8 and more.
_LEAST_AGREEMENT = 0.65
#: Brightness below which an error is not weighed any higher, of the geometric mean of the frame.
_DARK = 0.2
#: What counts as nothing beside 1; deviation of logarithms that may be rounding.
_TINY, _FLAT = 1e-6, 1e-3
#: Cost of a sample whose path is not scattered, over that of a bounce.
_LEAST_COST = 0.1
#: A pixel gets at most so many times the mean.
MOST_OF_MEAN = 16


def pilot_spp(spp: int) -> int:
    """Return the samples per pixel of each part of a pilot.

    Args:
        spp: Samples per pixel in all.
    """
    part = max(1, int(spp * _PILOT_SHARE / PARTS))
    return min(max(2 ** int(math.log2(part)), _LEAST_PILOT), _MOST_PILOT)


@dataclass(frozen=True)
class _Turn:
    """Where the rounds are, each of a pass of the first stream and one of the second.

    Attributes:
        stream: Whose pass is next.
        spp: Samples per pixel of each pass of this round, in the mean.
        given: To each stream so far, of those that follow the plan.
    """

    stream: int = 0
    spp: float = 0.0
    given: tuple[float, float] = (0.0, 0.0)

    def next(self, spp: float) -> _Turn:
        """Return the turn after a pass of so many samples."""
        given = tuple(g + spp * (i == self.stream) for i, g in enumerate(self.given))
        return _Turn(1 - self.stream, spp, given)  # type: ignore[arg-type]


class Streams:
    """Two independent streams of samples, which share out theirs by each other's pilot.

    Attributes:
        part: Samples per pixel that each part of the pilot is meant to have; 0 if not known yet.
        turn: Whose pass is next, once there is a plan.
    """

    def __init__(self) -> None:
        self.part = 0
        self.turn = _Turn()
        self._parts = [Accumulation() for _ in range(PARTS)]
        self._streams = (Accumulation(), Accumulation())
        self._bounces: list[Any] = [0.0, 0.0]  # times samples, by stream
        self._bounces_of: dict[int, Any] = {}  # of the last pass of each part
        self._plans: list[_Plan] = []

    def add_pilot(
        self, frame: FrameBuffers, done: Pass, bounces: np.ndarray[Any, np.dtype[np.float32]]
    ) -> None:
        """Add a pass with the same number of samples in all pixels, to the next part.

        Args:
            frame: Its buffers.
            done: How it was rendered.
            bounces: How often the paths of each pixel were scattered, in the mean, (H, W).
        """
        part = self.next_part
        for accumulation in (self._parts[part], self._streams[part // 2]):
            accumulation.add(frame, done)
        self._bounces[part // 2] = self._bounces[part // 2] + bounces * done.spp
        self._bounces_of[part] = bounces

    @property
    def next_part(self) -> int:
        """Number of the part that the next pass of the pilot is for."""
        return min(_ORDER, key=lambda i: self._parts[i].spp)

    @property
    def least_spp(self) -> int:
        """Samples per pixel of the smallest part of the pilot."""
        return min(part.spp for part in self._parts)

    def plan(self, call: Call, spp: int) -> float | None:
        """Decide where the samples to come go to.

        Args:
            call: Quick method that does without gradients.
            spp: Samples per pixel to come, in both streams, if they were the same everywhere.

        Returns:
            What a sample will cost in the mean, over what one of the pilot costs; None if the
            numbers should not differ from pixel to pixel.
        """
        import torch

        images = [_reconstruction(part.frame, call) for part in self._parts]
        maps = [_difference(*images[:2]), _difference(*images[2:])]
        if _agreement(*maps) < _LEAST_AGREEMENT:
            return None
        size = self._parts[0].frame.data.shape[:2]
        plans = []
        for i, error in enumerate(reversed(maps)):
            # Of the other stream as well: long paths tend to be those that bring light.
            bounces = torch.from_numpy(self._bounces[1 - i] / self._streams[1 - i].spp)
            costs = _smooth(bounces, _REDUCTION * _WINDOW + 1).numpy() + _LEAST_COST
            plans.append(_Plan.make(_enlarged(error, size), costs, self._streams[i].spp, spp / 2))
        self._plans = [plan for plan, _ in plans]
        return sum(price for _, price in plans) / len(plans)

    @property
    def planned(self) -> bool:
        """Whether the numbers of samples differ from pixel to pixel from now on."""
        return bool(self._plans)

    def next_counts(self, spp: float) -> np.ndarray[Any, np.dtype[np.intp]]:
        """Return the samples of each pixel in the next pass, (H, W).

        Args:
            spp: How many these are in the mean.
        """
        stream = self.turn.stream
        return self._plans[stream].counts(self.turn.given[stream], spp)

    def add(
        self,
        frame: FrameBuffers,
        done: Pass,
        counts: np.ndarray[Any, np.dtype[np.intp]],
        spp: float,
    ) -> None:
        """Add a pass of the stream whose turn it is.

        Args:
            frame: Its buffers.
            done: How it was rendered.
            counts: Of :meth:`next_counts`.
            spp: What these were asked for.
        """
        import torch

        samples = torch.from_numpy(counts).to(frame.data)[..., None]
        streams = [stream.copied() for stream in self._streams]
        streams[self.turn.stream].add(frame, done, samples)
        after = self.turn.next(spp), (streams[0], streams[1])
        self.turn, self._streams = after  # Ctrl-C comes before or after this line

    def skip(self, spp: float) -> None:
        """Pass over a turn in which no pixel gets a sample."""
        self.turn = self.turn.next(spp)

    def mean(self) -> Accumulation:
        """Return the mean of both streams."""
        return Accumulation.mean(*self._streams)

    def put(self, planes: Planes) -> dict[str, Any] | None:
        """Store all that is needed to go on.

        Args:
            planes: Added to.

        Returns:
            What else :meth:`taken_from` has to know. None for a pilot whose parts have several
            passes, as where a time is given: it cannot be stored.
        """
        import numpy as np

        if self._plans:
            turn, streams = self.turn, self._streams
            for i, plan in enumerate(self._plans):
                planes[f"plan {i}"] = plan.portions
            return {
                "turn": vars(turn),
                "streams": [s.put(planes, f"streams {i}") for i, s in enumerate(streams)],
            }
        parts = [i for i in _ORDER if self._parts[i].passes and i in self._bounces_of]
        if any(len(self._parts[i].passes) > 1 for i in parts):
            return None
        for i in parts:
            planes[f"bounces {i}"] = np.asarray(self._bounces_of[i], np.float32)
        stored = {str(i): self._parts[i].put(planes, f"parts {i}") for i in parts}
        return {"part": self.part, "parts": stored}

    @classmethod
    def taken_from(
        cls, state: State, planes: Planes, like: FrameBuffers
    ) -> tuple[Streams, list[Accumulation]]:
        """Return what :meth:`put` stored, with the bits that it had.

        Args:
            state: What is known.
            planes: By name.
            like: (H, W, C) buffers with the same layout and header.

        Returns:
            The streams, and the passes of the pilot as long as it is not complete.

        Raises:
            FormatError: Something is missing.
        """
        result, passes = cls(), []
        if "turn" in state.known:
            given = state.part("turn", "given")
            turn = state.part("turn", "stream"), state.part("turn", "spp"), (given[0], given[1])
            result.turn = _Turn(*turn)
            result._plans = [_Plan(planes[f"plan {i}"]) for i in (0, 1)]
            first, second = (
                Accumulation.taken_from(state, planes, like, "streams", i) for i in (0, 1)
            )
            result._streams = first, second
            return result, []
        result.part = state.part("part")
        for i in _ORDER:
            if str(i) not in state.part("parts"):
                break
            part = Accumulation.taken_from(state, planes, like, "parts", str(i))
            result.add_pilot(part.frame, part.passes[0], planes[f"bounces {i}"])
            passes.append(part)
        return result, passes


class _Plan:
    """How the samples of a stream are shared out.

    A pixel's samples n after the last pass minimise the sum of the roots of error / n for a sum of
    n times cost, but are no fewer than the pilot's. (Roots, not squares, for what is seen: with
    squares the errors of easy pixels grow until they show.)

    Attributes:
        portions: Of each pixel, for a sample per pixel in the mean, (H, W) float32.
    """

    def __init__(self, portions: np.ndarray[Any, np.dtype[np.float32]]) -> None:
        import numpy as np

        self.portions = portions
        # A whole number of portions each, and over several passes as many as planned.
        self._threshold = np.random.default_rng(0).random(portions.shape)

    @classmethod
    def make(
        cls, error: np.ndarray[Any, Any], costs: np.ndarray[Any, Any], have: int, spp: float
    ) -> tuple[_Plan, float]:
        """Plan.

        Args:
            error: What samples take away, (H, W).
            costs: Of a sample, (H, W), in any unit.
            have: Samples per pixel of the pilot.
            spp: Samples per pixel to come, if they were the same everywhere.

        Returns:
            Also what a sample to come will cost in the mean, over what one of the pilot costs.
        """
        import numpy as np

        from mitsuba_gdpt.integrators.pixels import PORTION

        costs = costs / costs.mean()
        wanted = (np.sqrt(error) / costs) ** (2 / 3)
        more = _shared_out(wanted, costs, have, spp) - have
        price = float((more * costs).sum() / more.sum())
        return cls((more / (PORTION * more.mean())).astype(np.float32)), price

    def counts(self, given: float, spp: float) -> np.ndarray[Any, np.dtype[np.intp]]:
        """Return the samples of each pixel, (H, W), of ``spp`` more after those given before."""
        import numpy as np

        from mitsuba_gdpt.integrators.pixels import PORTION

        portions = self.portions.astype(np.float64)
        before = np.floor(portions * given + self._threshold)
        after = np.floor(portions * (given + spp) + self._threshold)
        return ((after - before) * PORTION).astype(np.intp)


def _shared_out(
    weights: np.ndarray[Any, Any], costs: np.ndarray[Any, Any], least: float, more: float
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return numbers in proportion to weights, ``least`` or more.

    They cost as much as ``least + more`` everywhere would, with costs whose mean is 1.
    """
    import numpy as np

    mean = least + more
    weights = np.maximum(weights.astype(np.float64) / max(weights.mean(), _TINY), _TINY)
    low, high = 0.0, mean / _TINY
    for _ in range(100):  # halvings of the factor's range
        middle = (low + high) / 2
        numbers = np.clip(weights * middle, least, MOST_OF_MEAN * mean)
        low, high = (middle, high) if (numbers * costs).mean() < mean else (low, middle)
    return numbers


def _reconstruction(frame: FrameBuffers, call: Call) -> torch.Tensor:
    """Return the reconstruction of a frame of reduced size, (h, w, 3)."""
    from torch.nn import functional

    from mitsuba_gdpt import denoisers
    from mitsuba_gdpt.buffers import FrameBuffers

    frame = frame.select(denoisers.without_gradients(frame.layout).names)
    planes = frame.data.permute(2, 0, 1)[None]
    small = functional.avg_pool2d(planes, _REDUCTION, ceil_mode=True)
    return denoisers.denoise(FrameBuffers(small[0].permute(1, 2, 0), frame.layout), call)


def _difference(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the squared difference of two images, relative to their brightness, smooth, (h, w)."""
    from mitsuba_gdpt.denoisers.images import LEARNED_KEY, exposure_scale, mean_square

    mean = ((first + second) / 2).clamp_min(0)
    scale = exposure_scale(mean[None])[0] / LEARNED_KEY  # in units of the frame's brightness
    brightness = (mean * scale).mean(-1, keepdim=True).square() + _DARK**2
    error = mean_square((first - second) * scale) / brightness
    ordered = error.flatten().sort().values
    return _smooth(error.clamp_max(ordered[int(_QUANTILE * (len(ordered) - 1))])[..., 0], _WINDOW)


def _smooth(plane: torch.Tensor, size: int) -> torch.Tensor:
    """Return means over a window, twice, (h, w)."""
    from mitsuba_gdpt.denoisers.images import window_mean

    result = plane[None, ..., None]
    for _ in range(2):
        result = window_mean(result, size)
    return result[0, ..., 0]


def _agreement(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the correlation of the logarithms of two maps; 0 where one is the same everywhere."""
    import torch

    logarithms = [
        (error + _TINY * error.amax().clamp_min(_TINY)).log().flatten() for error in (first, second)
    ]
    if min(float(values.std(correction=0)) for values in logarithms) < _FLAT:
        return 0.0
    return float(torch.corrcoef(torch.stack(logarithms))[0, 1])


def _enlarged(error: torch.Tensor, size: Sequence[int]) -> np.ndarray[Any, Any]:
    """Return a map at full size."""
    from torch.nn import functional

    large = functional.interpolate(error[None, None], scale_factor=_REDUCTION, mode="bilinear")
    return large[0, 0, : size[0], : size[1]].cpu().numpy()
