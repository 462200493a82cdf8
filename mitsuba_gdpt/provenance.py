"""Where numbers come from: versions, commit, machine. Stored beside everything that is made."""

from __future__ import annotations

import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from mitsuba_gdpt import plugins
from mitsuba_gdpt._version import __version__

#: Distributions that decide the numbers.
_LIBRARIES = ("mitsuba", "drjit", "torch", "numpy", "zarr", "mitsuba-oidn")
#: Parts of the package that show, order or send around what others have computed. All else decides
#: pixels, errors or times.
_NO_PIXELS = frozenset({"cli", "execution", "report", "training", "__main__.py", "interrupts.py"})
#: Nanoseconds between two changes of a file that its times may not tell apart (FAT: 2 s).
_COARSEST_CLOCK = 2_000_000_000


def describe(*, date: bool = True) -> dict[str, str]:
    """Return what is needed to make the same numbers again, as short texts.

    Args:
        date: Also say when; leave it out of files that shall be the same whenever they are made.

    Returns:
        ``version`` of this package, ``sources`` (see :func:`sources`), ``commit`` of its checkout
        (where there is one; marked if files differ from it), ``libraries`` with versions,
        ``machine`` and ``date`` (UTC).
    """
    libraries = (f"{name} {version(name)}" for name in _LIBRARIES)
    found = {
        "version": __version__,
        "sources": sources(),
        "commit": commit(),
        "libraries": ", ".join([f"Python {platform.python_version()}", *libraries]),
        "machine": f"{processor()}, {os.cpu_count()} threads",
    }
    if date:
        now = datetime.datetime.now(datetime.UTC)
        found["date"] = now.strftime("%Y-%m-%d %H:%M UTC")
    return {key: value for key, value in found.items() if value}


@functools.cache
def sources() -> str:
    """Return a hash of all that pixels depend on besides settings and scenes.

    That is: the source files of this package but for those that only show or distribute results,
    the names of its weights (which hold hashes of their content), plug-ins, and the versions of the
    libraries that compute.
    """
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if name.parts[0] in _NO_PIXELS or "__pycache__" in name.parts:
            continue
        if path.suffix in (".py", ".toml"):
            digest.update(f"{name.as_posix()}\n".encode())
            digest.update(path.read_bytes())
        elif path.suffix == ".safetensors":
            digest.update(f"{name.as_posix()}\n".encode())
    for plugin in plugins.identity():
        digest.update(f"{plugin}\n".encode())
    for library in _LIBRARIES:
        digest.update(f"{library} {version(library)}\n".encode())
    return digest.hexdigest()[:12]


def fingerprint(*values: Any) -> str:
    """Return a short hash of JSON-compatible values and of :func:`sources`.

    What is made anew when this changes can never be a mixture of two states of the code.
    """
    return digest(sources(), *values)


def digest(*values: Any) -> str:
    """Return a short hash of JSON-compatible values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def content(path: str | os.PathLike[str]) -> str:
    """Return a hash of a file; empty if it cannot be read.

    A file is read once per process (1 GiB takes about a second), as long as its :func:`stamp` stays
    the same; what was written just now is read again, for clocks of file systems are coarse.
    """
    known = stamp(path)
    if known is None:
        return ""
    read = _content.__wrapped__ if _is_recent(known) else _content
    return read(os.path.abspath(path), known)


def stamp(path: str | os.PathLike[str]) -> tuple[int, ...] | None:
    """Return what changes with a file: number, size and times; None if there is no such file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    # The time of the last change of the inode, too: copying may keep that of the content.
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_recent(known: tuple[int, ...]) -> bool:
    return abs(time.time_ns() - max(known[2:])) < _COARSEST_CLOCK


@functools.lru_cache(maxsize=1 << 16)
def _content(path: str, _stamp: tuple[int, ...]) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def version(distribution: str) -> str:
    """Return the version of an installed distribution, or ``(not installed)``."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def commit() -> str:
    """Return the commit of the checkout that this code runs from; empty where there is none."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    words = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=, modified"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def processor() -> str:
    """Return the name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
