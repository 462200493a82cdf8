"""What a command needs around its work: progress bar, clock and memory."""

from __future__ import annotations

import ctypes
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from typing import TYPE_CHECKING, Any

import typer

from mitsuba_gdpt import progress

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

try:
    import resource
except ImportError:  # Windows
    _resource: Any = None
else:
    _resource = resource


#: Seconds between lines of progress in pipes and log files, and of work that is worth any.
_LINE_INTERVAL, _LINE_PATIENCE = 10.0, 5.0


class _BarTask:
    def __init__(self, bar: Progress, identifier: TaskID) -> None:
        self.bar, self.identifier = bar, identifier

    def advance(self, amount: float = 1.0) -> None:
        self.bar.advance(self.identifier, amount)

    def close(self) -> None:
        self.bar.remove_task(self.identifier)


class _BarReporter:
    def __init__(self, bar: Progress) -> None:
        self.bar = bar

    def start(self, description: str, total: float) -> progress.Task:
        return _BarTask(self.bar, self.bar.add_task(description, total=total))


@contextmanager
def progress_bar() -> Iterator[None]:
    """Show progress reports on standard error: as a bar, or as lines if that is no terminal.

    Lines are few, and of long work only; ``MITSUBA_GDPT_PROGRESS`` has its way with them.
    """
    if not sys.stderr.isatty():
        if progress.ENVIRONMENT_VARIABLE in os.environ:
            yield
            return
        with progress.reporting(progress.LineReporter(_LINE_INTERVAL, _LINE_PATIENCE)):
            yield
        return
    from rich.console import Console
    from rich.progress import Progress

    with (
        Progress(console=Console(stderr=True), transient=True) as bar,
        progress.reporting(_BarReporter(bar)),
    ):
        yield


@contextmanager
def resumable(advice: str = "") -> Iterator[None]:
    """Tell, where Ctrl-C ends the ``with`` block, how to go on.

    Done here because typer makes an exit code of a ``KeyboardInterrupt`` and forgets its text.

    Args:
        advice: For work that does not say by itself how far it got (see
            :class:`mitsuba_gdpt.execution.Interrupted`).

    Raises:
        Abort: Ctrl-C; :func:`mitsuba_gdpt.cli.app.main` shows the text.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        raise typer.Abort(str(error) or f"interrupted; {advice}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep back what libraries print where the ``with`` block fails: the error says it in one line.

    OpenEXR writes lines of its own about damaged pixels, some past Python's streams.
    """
    streams = (sys.stdout, sys.stderr)
    with ExitStack() as stack:
        kept = []
        for stream, number in zip(streams, (1, 2), strict=True):
            stream.flush()
            original = os.dup(number)
            stack.callback(os.close, original)
            file = stack.enter_context(tempfile.TemporaryFile())
            os.dup2(file.fileno(), number)
            kept.append((stream, number, original, file))
        printed, failed = io.StringIO(), True
        try:
            with redirect_stdout(printed):
                yield
            failed = False
        finally:
            _flush_libraries()
            for stream, number, original, file in kept:
                stream.flush()
                os.dup2(original, number)
                if not failed:
                    file.seek(0)
                    os.write(number, file.read())
            if not failed:
                print(printed.getvalue(), end="")


def _flush_libraries() -> None:
    """Write out what the C library has kept of standard output."""
    with suppress(OSError, TypeError, AttributeError):  # where it has another name
        ctypes.CDLL(None).fflush(None)


class Stopwatch:
    """Seconds of the parts of a command.

    Example:
        >>> watch = Stopwatch()
        >>> with watch.part("render"):
        ...     pass
        >>> watch.seconds["render"] < 1
        True
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the ``with`` block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start


def peak_memory() -> str:
    """Return the largest amount of memory that this process has used, for people."""
    text = "unknown"
    if _resource is not None:
        unit = 1 if sys.platform == "darwin" else 1024
        host = _resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss * unit
        text = f"{host / 2**30:.2f} GiB"
    import drjit as dr

    if device := dr.detail.malloc_watermark(dr.JitBackend.CUDA):
        text += f" + {device / 2**30:.2f} GiB on the GPU"
    return text


def count(number: float) -> str:
    """Return a number with a metric suffix: 1.23 M."""
    for factor, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= factor:
            return f"{number / factor:.3g}{suffix}"
    return f"{number:.3g}"
