"""Ctrl-C, which must end a command at any moment and never be taken for a failure.

Python turns the signal into a ``KeyboardInterrupt``. Where that strikes inside a callback of Dr.Jit
it comes back as a ``RuntimeError``; some libraries swallow it. So whoever watches notes the signal
itself: :func:`noticed` tells, :func:`check` raises what got lost, :func:`pass_on` keeps those who
collect failures from taking it for one.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

#: Exit code of a command that was interrupted, as shells report it.
EXIT_CODE = 130

_noticed = False
_RETRY = 0.05  # seconds between two looks whether an import has ended


def noticed() -> bool:
    """Tell whether Ctrl-C was pressed while :func:`watching`."""
    return _noticed


def check() -> None:
    """Raise the ``KeyboardInterrupt`` that somebody may have swallowed.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed while :func:`watching`.
    """
    if _noticed:
        raise KeyboardInterrupt


def pass_on(error: BaseException) -> None:
    """Raise ``KeyboardInterrupt`` if an error is, or comes from, an interrupt.

    Raises:
        KeyboardInterrupt: It does; where Ctrl-C has been noted, every error does.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop()
        if current is None or id(current) in seen:
            continue
        if isinstance(current, KeyboardInterrupt) or _noticed:
            raise KeyboardInterrupt(str(current) if isinstance(current, KeyboardInterrupt) else "")
        seen.add(id(current))
        waiting += [current.__cause__, current.__context__]


@contextmanager
def watching() -> Iterator[None]:
    """Note Ctrl-C inside the ``with`` block; it still raises ``KeyboardInterrupt``.

    Does nothing inside another such block, in other threads than the main one, and where somebody
    else handles the signal.
    """
    global _noticed
    before = signal.getsignal(signal.SIGINT)
    ours = before in (signal.default_int_handler, _leave)
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    hook = sys.unraisablehook

    def report(unraisable: Any) -> None:
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):  # it has been noted
            hook(unraisable)

    _noticed = False
    sys.unraisablehook = report
    signal.signal(signal.SIGINT, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        sys.unraisablehook = hook
        _noticed = False


@contextmanager
def kept() -> Iterator[None]:
    """Keep the handler of Ctrl-C while a library is imported that puts its own in its place."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is not before:
            signal.signal(signal.SIGINT, before)


def guard_start() -> None:
    """Act as early as possible where this process is the command ``mitsuba-gdpt``.

    Ctrl-C during the imports, where there is nothing to save and libraries make other errors of it,
    ends the process at once. ``python -m mitsuba_gdpt`` puts the current folder before all other
    places of modules; it is taken out again, so that a ``random.py`` there is not run.
    """
    as_module = sys.argv[:1] == ["-m"]
    words = sys.orig_argv
    if as_module and "-m" in words[:-1]:
        command = words[words.index("-m") + 1] == __package__
    else:
        command = bool(sys.argv) and Path(sys.argv[0]).name == "mitsuba-gdpt"
    if not command:
        return
    if as_module and sys.path and not _holds_this_package(sys.path[0]):
        del sys.path[0]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


def finish() -> None:
    """Let nothing disturb the end of a command whose exit code is decided."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _holds_this_package(folder: str) -> bool:
    return Path(folder or ".").resolve() == Path(__file__).resolve().parents[1]


def _note(signum: int, frame: FrameType | None) -> None:
    global _noticed
    _noticed = True
    if _imports(frame):  # libraries are not made for being interrupted there, some abort
        timer = threading.Timer(_RETRY, _thread.interrupt_main)
        timer.daemon = True
        timer.start()
        return
    raise KeyboardInterrupt


def _imports(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _leave(signum: int, frame: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(EXIT_CODE)
