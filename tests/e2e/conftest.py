"""A browser for the tests of pages, a clock for those that need a certain equal time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from mitsuba_gdpt.evaluation import equal_time
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
    """Equal time is 2.5 times the samples of ``gdpt``, whatever else the machine does."""

    def interleave(_: object, jobs: Mapping[str, tuple[Any, int]], *__: object) -> dict[str, float]:
        return {
            name: spp * (0.25 if integrator.shifts else 0.1)
            for name, (integrator, spp) in jobs.items()
        }

    monkeypatch.setattr(equal_time, "_interleave", interleave)
