"""Progress reports of long work, decoupled from how they are shown.

Work says how much there is and how much is done; whoever runs it decides what to do with that:

    with progress.task("rendering", total=passes) as task:
        for _ in range(passes):
            ...
            task.advance()

Nothing is shown by default, as a library should behave. ``MITSUBA_GDPT_PROGRESS=1`` in the
environment prints lines on standard error, and the command line installs a progress bar with
:func:`reporting`. The module imports neither torch nor mitsuba.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

ENVIRONMENT_VARIABLE = "MITSUBA_GDPT_PROGRESS"


class Task(Protocol):
    """One running piece of work."""

    def advance(self, amount: float = 1.0) -> None:
        """Report that ``amount`` of the total has been done since the last call."""

    def close(self) -> None:
        """Report that the work has ended, finished or not."""


class Reporter(Protocol):
    """Where reports go."""

    def start(self, description: str, total: float) -> Task:
        """Begin to show a piece of work."""


class _SilentTask:
    def advance(self, amount: float = 1.0) -> None:
        pass

    def close(self) -> None:
        pass


class SilentReporter:
    """Shows nothing."""

    def start(self, description: str, total: float) -> Task:
        """Ignore the work."""
        return _SilentTask()


class _LineTask:
    def __init__(self, description: str, total: float, interval: float) -> None:
        self.description, self.total, self.interval = description, total, interval
        self.done = 0.0
        self.started = self.printed = time.perf_counter()

    def advance(self, amount: float = 1.0) -> None:
        self.done += amount
        if time.perf_counter() - self.printed >= self.interval and self.done < self.total:
            self._print()

    def close(self) -> None:
        self._print()

    def _print(self) -> None:
        self.printed = time.perf_counter()
        share = 100 * self.done / self.total if self.total else 100
        elapsed = self.printed - self.started
        print(f"{self.description}: {share:.0f} % after {elapsed:.1f} s", file=sys.stderr)


class LineReporter:
    """Prints at most one line per ``interval`` seconds and task; fit for log files."""

    def __init__(self, interval: float = 2.0) -> None:
        """Choose the least number of seconds between two lines of a task."""
        self.interval = interval

    def start(self, description: str, total: float) -> Task:
        """Begin a task whose lines start with ``description``."""
        return _LineTask(description, total, self.interval)


_reporter: ContextVar[Reporter | None] = ContextVar("mitsuba_gdpt_progress", default=None)


def current() -> Reporter:
    """Return the reporter in force: installed, asked for by the environment, or silent."""
    if (reporter := _reporter.get()) is not None:
        return reporter
    if os.environ.get(ENVIRONMENT_VARIABLE, "0") not in ("", "0"):
        return LineReporter()
    return SilentReporter()


@contextmanager
def reporting(reporter: Reporter) -> Iterator[None]:
    """Send all reports made inside the ``with`` block to ``reporter``."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)


@contextmanager
def task(description: str, total: float) -> Iterator[Task]:
    """Report one piece of work to the current reporter.

    Args:
        description: A word or two, lower case ("rendering").
        total: Amount of work; the unit is the caller's choice.

    Yields:
        The task; call its ``advance()`` as parts of the work get done.
    """
    running = current().start(description, total)
    try:
        yield running
    finally:
        running.close()
