"""Results that know how they were made: a JSON record beside files, which tells whether they count.

A record holds a fingerprint of all that its results depend on (see
:func:`mitsuba_gdpt.provenance.fingerprint`), the state of the sources, and the stamps of the files
that belong to it. It is written after them. What a rerun finds counts only if the fingerprint is
the one that it would write, and no file was cut short or replaced since.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mitsuba_gdpt import files, provenance

_MOST_BYTES = 1 << 26


def stamp(path: Path) -> str | None:
    """Return size and checksum of a file; None if it cannot be read."""
    try:
        size, checksum = files.checksum(path)
    except OSError:
        return None
    return f"{size}-{checksum:08x}"


def write(
    path: Path, fingerprint: str, values: Mapping[str, Any], products: Iterable[Path] = ()
) -> None:
    """Write a record, atomically.

    Args:
        path: JSON file.
        fingerprint: Of all that the results depend on.
        values: What there is to say, JSON-compatible.
        products: Files that belong to the results, in the folder of the record or below it.

    Raises:
        FormatError: It cannot be written.
    """
    stamps = {os.path.relpath(product, path.parent): stamp(product) for product in products}
    content = {
        **values,
        "fingerprint": fingerprint,
        "sources": provenance.sources(),
        "files": stamps,
    }
    files.replace_text(path, json.dumps(content, indent=1) + "\n")


def read(path: Path) -> dict[str, Any] | None:
    """Return the content of a record; None if there is none, or it is damaged."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def is_complete(path: Path, values: Mapping[str, Any], fingerprint: str) -> bool:
    """Tell whether a record that was read counts.

    Args:
        path: Where it was read.
        values: Its content.
        fingerprint: What it would be made with now.
    """
    stamps = values.get("files", {})
    return (
        values.get("fingerprint") == fingerprint
        and isinstance(stamps, dict)
        and all(kept and stamp(path.parent / name) == kept for name, kept in stamps.items())
    )
