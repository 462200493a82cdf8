"""The search for equal time on a simulated clock: found, and not misled by noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mitsuba_gdpt import rendering
from mitsuba_gdpt.evaluation import equal_time

SPP = 8


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[equal_time.EqualTime, int]]:
    """Run the search on costs as functions of the sample count; also return the largest count."""

    def run(
        gradient: Callable[[int], float], primal: Callable[[int], float]
    ) -> tuple[equal_time.EqualTime, int]:
        asked = []

        def interleave(
            _: object, jobs: Mapping[str, tuple[Any, int]], *__: object
        ) -> dict[str, float]:
            asked.extend(spp for _, spp in jobs.values())
            return {name: cost(spp) for name, (cost, spp) in jobs.items()}

        monkeypatch.setattr(rendering, "render", lambda *_, **__: None)
        monkeypatch.setattr(equal_time, "_interleave", interleave)
        source: Any = None
        costs: Any = (gradient, primal)
        return equal_time.measure(source, *costs, spp=SPP), max(asked)

    return run


@pytest.mark.parametrize("fixed", [0.0, 0.1, 10.0])
def test_the_count_of_equal_time_is_found(search: Any, fixed: float) -> None:
    timing, _ = search(lambda n: fixed + 0.25 * n, lambda n: fixed + 0.1 * n)
    assert abs(timing.primal_render_seconds / timing.render_seconds - 1) <= 0.05
    if fixed < 1:  # otherwise other counts take the same time within the tolerance
        assert timing.primal_spp == 20


@pytest.mark.parametrize("slope", [0.0, -1e-4, 1e-7])
def test_a_slope_hidden_by_noise_does_not_ask_for_millions_of_samples(
    search: Any, slope: float
) -> None:
    """Without a floor this asked for 10**7 samples per pixel and did not return within hours."""
    _, most = search(lambda n: 0.03, lambda n: max(0.005, 0.01 + slope * n))
    assert most < 1000 * SPP


def test_nothing_is_timed_before_it_was_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rendered: list[tuple[Any, int]] = []
    monkeypatch.setattr(
        rendering, "render", lambda _, integrator, spp, **__: rendered.append((integrator, spp))
    )
    costs = {"gradient": 0.25, "primal": 0.1}

    def interleave(_: object, jobs: Mapping[str, tuple[Any, int]], *__: object) -> dict[str, float]:
        assert set(jobs.values()) <= set(rendered)
        return {name: costs[integrator] * spp for name, (integrator, spp) in jobs.items()}

    monkeypatch.setattr(equal_time, "_interleave", interleave)
    source: Any = None
    gradient: Any = "gradient"
    primal: Any = "primal"
    timing = equal_time.measure(source, gradient, primal, spp=SPP)
    assert timing.primal_spp == 20
    assert len(rendered) == len(set(rendered)), "once is enough"
