"""Where numbers come from: versions, commit, machine. Stored beside everything that is made."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

from mitsuba_gdpt._version import __version__

#: Distributions that decide the numbers.
_LIBRARIES = ("mitsuba", "drjit", "torch", "numpy", "zarr", "mitsuba-oidn")


def describe(*, date: bool = True) -> dict[str, str]:
    """Return what is needed to make the same numbers again, as short texts.

    Args:
        date: Also say when; leave it out of files that shall be the same whenever they are made.

    Returns:
        ``version`` of this package, ``commit`` of its checkout (where there is one; marked if files
        differ from it), ``libraries`` with versions, ``machine`` and ``date`` (UTC).
    """
    libraries = (f"{name} {version(name)}" for name in _LIBRARIES)
    found = {
        "version": __version__,
        "commit": commit(),
        "libraries": ", ".join([f"Python {platform.python_version()}", *libraries]),
        "machine": f"{processor()}, {os.cpu_count()} threads",
    }
    if date:
        now = datetime.datetime.now(datetime.timezone.utc)
        found["date"] = now.strftime("%Y-%m-%d %H:%M UTC")
    return {key: value for key, value in found.items() if value}


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
