"""What data came from: versions and commit, to be stored beside it."""

from __future__ import annotations

import importlib.metadata
import subprocess
from pathlib import Path

from mitsuba_gdpt._version import __version__

_LIBRARIES = ("mitsuba", "drjit", "torch", "numpy", "zarr")


def versions() -> dict[str, str]:
    """Return the versions of this package and of the libraries that decide its results."""
    return {"mitsuba_gdpt": __version__} | {
        name: importlib.metadata.version(name) for name in _LIBRARIES
    }


def commit() -> str | None:
    """Return the git commit of this package, with ``+`` if files differ; None if not in git."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():  # an installed copy, perhaps inside somebody else's work
        return None
    try:
        head = _git(folder, "rev-parse", "HEAD")
        return head + ("+" if _git(folder, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()
