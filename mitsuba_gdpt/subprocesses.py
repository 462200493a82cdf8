"""Python processes that this package starts, and the temporary folders that they may use.

A child looks for modules where its parent does, but never first in the current folder: a
``random.py`` that happens to lie there is not run.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows, where folders of dead processes stay
    _fcntl: Any = None
else:
    _fcntl = fcntl

_PRELUDE = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
_PREFIX = "mitsuba-gdpt-"
_OWNER = ".owner"
_WATCH_INTERVAL = 0.5


def python(program: str, *arguments: object) -> list[str]:
    """Return the command that runs a program in a Python of its own.

    Args:
        program: Statements on one line.
        arguments: Become ``sys.argv[1:]``.
    """
    path = json.dumps(module_path())
    return [sys.executable, "-I", "-c", _PRELUDE + program, path, *map(str, arguments)]


def module_path() -> list[str]:
    """Return where modules are looked for: as here, but last in the current folder, if at all.

    The folder that holds this package keeps its place also where it is the current one.
    """
    here, root = os.getcwd(), str(Path(__file__).parents[1])
    entries = [here if entry in ("", ".") else entry for entry in sys.path]
    first = [entry for entry in entries if entry != here or here == root]
    return list(dict.fromkeys([*first, root, *entries]))


def environment() -> dict[str, str]:
    """Return the environment for a child, whose own children are kept from this folder too."""
    return {**os.environ, "PYTHONSAFEPATH": "1"}


def end_with(parent: int, last: Callable[[], object] | None = None) -> None:
    """Let this process end soon after the one that has started it, whatever it is doing.

    Args:
        parent: Process that has to live for this one to go on.
        last: What to do before.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_INTERVAL)
        if last is not None:
            last()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Scratch:
    """The temporary folder of this process; see :func:`scratch`."""

    def __init__(self) -> None:
        self.users = 0
        self.folder: Path | None = None
        self.lock = threading.Lock()
        self._owner: int | None = None

    def open(self) -> Path:
        with self.lock:
            if self.folder is None:
                _sweep()
                self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
                if _fcntl is not None:
                    self._owner = _locked(self.folder)
                atexit.register(self.remove)
            self.users += 1
            return self.folder

    def close(self) -> None:
        with self.lock:
            self.users -= 1
            last = self.users == 0
        if last:
            self.remove()

    def remove(self) -> None:
        with self.lock:
            if self.folder is not None:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder = None
            if self._owner is not None:
                os.close(self._owner)
                self._owner = None
        atexit.unregister(self.remove)


def _locked(folder: Path) -> int:
    """Return the descriptor of a locked file; whoever finds it unlocked knows that we are dead."""
    new = folder / f"{_OWNER}.new"
    descriptor = os.open(new, os.O_CREAT | os.O_RDWR, 0o600)
    _fcntl.flock(descriptor, _fcntl.LOCK_EX)  # before it has its name
    new.rename(folder / _OWNER)
    return descriptor


_scratch = _Scratch()


@contextmanager
def scratch() -> Iterator[Path]:
    """Provide a temporary folder of this process, the same to all who ask at the same time.

    It goes with the last of them. What a process left that was killed is removed by the next one
    that asks: folders are locked by their owners, so nobody else's is touched.
    """
    folder = _scratch.open()
    try:
        yield folder
    finally:
        _scratch.close()


def remove_orphan(folder: str | os.PathLike[str]) -> bool:
    """Remove the temporary folder of a process if that has died.

    Returns:
        Whether it has; where files cannot be locked nobody knows.
    """
    owner = Path(folder) / _OWNER
    if _fcntl is None:
        return False
    with suppress(OSError):
        if owner.stat().st_uid != os.getuid():
            return False
        descriptor = os.open(owner, os.O_RDWR)
        try:
            _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)
        return True
    return False


def _sweep() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        remove_orphan(folder)
