"""Files that are complete or not there: written under a temporary name, then renamed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path

from mitsuba_gdpt import checks
from mitsuba_gdpt.errors import FormatError


def replace_file(path: str | os.PathLike[str], write_to: Callable[[Path], object]) -> None:
    """Let ``write_to`` fill a temporary file beside ``path``, then rename it.

    Not made by ``tempfile``, whose files only the owner may read.

    Args:
        path: Replaced if it exists.
        write_to: Called with the temporary path; leaves the finished file there.

    Raises:
        FormatError: The folder does not exist, the disk is full, or another error of the system.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FormatError(f"{path}: the folder {path.parent} does not exist; create it first")
    temporary = path.with_name(f".{_shortened(path.name)}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        write_to(temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        raise FormatError(f"{path}: cannot write this file: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _shortened(name: str) -> str:
    """Return the beginning of a file name, so that what is added to it fits a file system."""
    while len(os.fsencode(name)) > checks.MOST_NAME_BYTES:
        name = name[:-1]
    return name


def replace_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file; see :func:`replace_file`."""
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
