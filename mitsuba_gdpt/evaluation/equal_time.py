"""Equal time, measured: how many path-traced samples cost as much as ``gdpt``.

Both integrators render in one process in turns, so that whatever else the machine does hits both.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt import rendering

if TYPE_CHECKING:
    import mitsuba as mi

#: A budget counts as met within this share of the time.
_TOLERANCE = 0.05
_ATTEMPTS = 4
#: A sample costs at least this share of the mean cost per sample of a whole render. On renders of
#: milliseconds noise can hide the slope; without a floor the guess would be millions of samples.
_LEAST_SLOPE = 0.1


@dataclass(frozen=True)
class EqualTime:
    """Sample counts of equal render time on one scene.

    Attributes:
        spp: Samples per pixel of ``gdpt``.
        render_seconds: Median wall time of ``gdpt`` with its features.
        primal_spp: Samples per pixel of path tracing with features in that time.
        primal_render_seconds: Median wall time of these.
        repeats: Renders of each that the medians are taken from.
    """

    spp: int
    render_seconds: float
    primal_spp: int
    primal_render_seconds: float
    repeats: int

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> EqualTime:
        """Make it of the fields that a record has, among others."""
        return cls(**{key.name: values[key.name] for key in fields(cls)})

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-compatible values."""
        return asdict(self)


def measure(
    source: rendering.Source,
    gradient: mi.Integrator,
    primal: mi.Integrator,
    *,
    spp: int,
    repeats: int = 3,
    sensor: int | mi.Sensor = 0,
) -> EqualTime:
    """Find how many samples ``primal`` takes in the time in which ``gradient`` takes ``spp``.

    A render has a fixed cost besides that of its samples, so a ratio at one sample count does not
    do: two counts give both costs, their line gives a first guess, and the guess is timed and
    corrected until it fits within 5 %, or to the nearest whole number of samples.

    Args:
        source: Scene.
        gradient: ``gdpt``.
        primal: The same with ``shifts=0``: path tracing with the same features.
        spp: Samples per pixel of ``gradient``.
        repeats: Timed renders of each candidate per attempt.
        sensor: What is rendered.
    """
    warm: set[tuple[int, int]] = set()

    def interleave(jobs: Mapping[str, tuple[Any, int]]) -> dict[str, float]:
        for integrator, count in jobs.values():
            if (id(integrator), count) not in warm:  # traced, and at first compiled
                rendering.render(source, integrator, spp=count, sensor=sensor)
                warm.add((id(integrator), count))
        return _interleave(source, jobs, repeats, sensor)

    few, many = spp, 2 * spp
    medians = interleave({"budget": (gradient, spp), "few": (primal, few), "many": (primal, many)})
    slope = (medians["many"] - medians["few"]) / (many - few)
    per_sample = max(slope, _LEAST_SLOPE * medians["many"] / many)
    fixed = medians["few"] - per_sample * few
    guess = max(1, round((medians["budget"] - fixed) / per_sample))
    tried: dict[int, EqualTime] = {}
    for _ in range(_ATTEMPTS):
        medians = interleave({"budget": (gradient, spp), "primal": (primal, guess)})
        budget, seconds = medians["budget"], medians["primal"]
        tried[guess] = EqualTime(spp, budget, guess, seconds, repeats)
        if abs(seconds / budget - 1) <= _TOLERANCE:
            break
        better = max(1, guess + round((budget - seconds) / per_sample))
        if better in tried:
            break
        guess = better
    return min(tried.values(), key=lambda t: abs(t.primal_render_seconds / t.render_seconds - 1))


def _interleave(
    source: rendering.Source,
    jobs: Mapping[str, tuple[Any, int]],
    repeats: int,
    sensor: int | mi.Sensor,
) -> dict[str, float]:
    """Return the median seconds of each (integrator, spp), rendered in turns."""
    import drjit as dr

    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats):
        for name, (integrator, spp) in jobs.items():
            dr.sync_thread()
            start = time.perf_counter()
            rendering.render(source, integrator, spp=spp, seed=turn, sensor=sensor)
            dr.sync_thread()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}
