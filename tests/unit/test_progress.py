"""Lines of progress: few, and of long work only."""

from __future__ import annotations

import sys

import pytest

from mitsuba_gdpt import progress
from mitsuba_gdpt.cli import session


class Clock:
    """Stands for the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "perf_counter", lambda: self.now)


def work(clock: Clock, steps: int, seconds: float) -> None:
    with progress.task("rendering", steps) as task:
        for _ in range(steps):
            clock.now += seconds
            task.advance()


def test_lines_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv(progress.ENVIRONMENT_VARIABLE, raising=False)
    assert not sys.stderr.isatty()
    clock = Clock(monkeypatch)
    with session.progress_bar():
        work(clock, 4, 1.0)  # too short to be told
        assert capsys.readouterr().err == ""
        work(clock, 8, 4.0)
    assert capsys.readouterr().err.splitlines() == [
        "rendering: 38 % after 12.0 s",
        "rendering: 75 % after 24.0 s",
        "rendering: 100 % after 32.0 s",
    ]


@pytest.mark.parametrize(("value", "lines"), [("0", 0), ("1", 4)])
def test_the_environment_decides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], value: str, lines: int
) -> None:
    monkeypatch.setenv(progress.ENVIRONMENT_VARIABLE, value)
    clock = Clock(monkeypatch)
    with session.progress_bar():
        work(clock, 4, 2.0)
    assert len(capsys.readouterr().err.splitlines()) == lines
