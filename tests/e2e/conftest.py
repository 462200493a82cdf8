"""A browser for the tests of pages, a clock for those that need a certain equal time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from mitsuba_gdpt.evaluation import equal_time, total_time
from tests.e2e.browser import EXECUTABLE, Browser


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if EXECUTABLE is None:
        pytest.skip("no Chromium; apt-get install chromium")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def simulated_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal time is 2.5 times the samples of ``gdpt``, whatever else the machine does.

    Where budgets are of total time, a sample of any integrator takes 0.1 s and all else nothing.
    """

    def interleave(_: object, jobs: Mapping[str, tuple[Any, int]], *__: object) -> dict[str, float]:
        return {
            name: spp * (0.25 if integrator.shifts else 0.1)
            for name, (integrator, spp) in jobs.items()
        }

    def in_turns(work: Mapping[Any, Any], *_: object) -> dict[Any, float]:
        return {key: 0.1 * key[1] if isinstance(key, tuple) else 0.0 for key in work}

    monkeypatch.setattr(equal_time, "_interleave", interleave)
    monkeypatch.setattr(total_time, "_in_turns", in_turns)
