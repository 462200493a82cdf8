"""Progress reports of long work, decoupled from how they are shown.

Work says how much there is and how much is done; whoever runs it decides what to do with that:

    with progress.task("rendering", total=passes) as task:
        for _ in range(passes):
            ...
            task.advance()

Nothing is shown by default, as a library should behave, except in notebooks.
``MITSUBA_GDPT_PROGRESS=1`` in the environment prints lines on standard error, and the command line
installs a progress bar with :func:`reporting`. The module imports neither torch nor mitsuba.
"""

from __future__ import annotations

import html
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

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
    def __init__(self, description: str, total: float, interval: float, patience: float) -> None:
        self.description, self.total, self.interval = description, total, interval
        self.patience = patience
        self.done = 0.0
        self.started = self.printed = time.perf_counter()

    def advance(self, amount: float = 1.0) -> None:
        self.done += amount
        now = time.perf_counter()
        if now - self.printed >= self.interval and self._is_long(now) and self.done < self.total:
            self._print()

    def close(self) -> None:
        if self._is_long(time.perf_counter()):
            self._print()

    def _is_long(self, now: float) -> bool:
        return now - self.started >= self.patience

    def _print(self) -> None:
        self.printed = time.perf_counter()
        share = 100 * self.done / self.total if self.total else 100
        elapsed = self.printed - self.started
        print(f"{self.description}: {share:.0f} % after {elapsed:.1f} s", file=sys.stderr)


class LineReporter:
    """Prints at most one line per ``interval`` seconds and task; fit for log files."""

    def __init__(self, interval: float = 2.0, patience: float = 0.0) -> None:
        """Choose how much is printed.

        Args:
            interval: Least number of seconds between two lines of a task.
            patience: Work that takes fewer seconds is not mentioned.
        """
        self.interval, self.patience = interval, patience

    def start(self, description: str, total: float) -> Task:
        """Begin a task whose lines start with ``description``."""
        return _LineTask(description, total, self.interval, self.patience)


class _NotebookTask:
    """A line below the cell that says how far the work is, and goes when it has ended."""

    def __init__(self, description: str, total: float, interval: float) -> None:
        self.description, self.total, self.interval = description, total, interval
        self.done = 0.0
        self.handle: Any = None
        self.started = self.shown = time.perf_counter()

    def advance(self, amount: float = 1.0) -> None:
        self.done += amount
        if time.perf_counter() - self.shown >= self.interval:
            self.shown = time.perf_counter()
            share = 100 * self.done / self.total if self.total else 100
            elapsed = self.shown - self.started
            self._show(
                f'<progress value="{share:.0f}" max="100"></progress> '
                f"{html.escape(self.description)}: {share:.0f} % after {elapsed:.0f} s"
            )

    def close(self) -> None:
        if self.handle is not None:
            self._show("")

    def _show(self, text: str) -> None:
        from IPython.display import HTML, display

        if self.handle is None:
            self.handle = display(HTML(text), display_id=True)
        else:
            self.handle.update(HTML(text))


class NotebookReporter:
    """Shows work of more than ``interval`` seconds below the cell of a notebook."""

    def __init__(self, interval: float = 1.0) -> None:
        """Choose the least number of seconds between two looks of a task."""
        self.interval = interval

    def start(self, description: str, total: float) -> Task:
        """Begin a task that is shown by its description."""
        return _NotebookTask(description, total, self.interval)


def in_notebook() -> bool:
    """Tell whether this process is the kernel of a notebook, without importing IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


_reporter: ContextVar[Reporter | None] = ContextVar("mitsuba_gdpt_progress", default=None)


def current() -> Reporter:
    """Return the reporter in force: installed, asked for by the environment, or what fits.

    That is one line below the cell in a notebook, and elsewhere silence.
    """
    if (reporter := _reporter.get()) is not None:
        return reporter
    if os.environ.get(ENVIRONMENT_VARIABLE, "0") not in ("", "0"):
        return LineReporter()
    return NotebookReporter() if in_notebook() else SilentReporter()


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
