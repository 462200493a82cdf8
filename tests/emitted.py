"""What is written while tests run, held against the table of keys."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mitsuba_gdpt import exr, files, keys

#: Keys that tell records of units that tests make up.
_MADE_UP = {"letter", "pid"}
_BY_NAME = {
    "sequence.json": "sequence",
    "frames.json": "set",
    "run.json": "run",
    "losses.jsonl": "run",
    **dict.fromkeys(("results.json", "results.csv", "summary.csv"), "results"),
}
_KEPT = {"cells", "timing", "costs", "views"}
_ERROR_COLUMN = ".standard_error"


@contextmanager
def watching(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Collect the keys that files of this process get and the table lacks."""
    replace = files.replace_file
    lacking: list[str] = []

    def replaced(path: str | os.PathLike[str], write_to: Callable[[Path], object]) -> None:
        replace(path, write_to)
        lacking.extend(faults(Path(path)))

    monkeypatch.setattr(files, "replace_file", replaced)
    monkeypatch.setattr(exr, "replace_file", replaced)
    yield lacking


def unknown(kind: str, content: Any) -> list[str]:
    """Return the keys of a file, at any depth, that the table does not have for its kind."""
    known = {key.name: key for key in keys.TABLE if kind in key.files}
    return sorted(set(_unknown(content, known)))


def _unknown(content: Any, known: Mapping[str, keys.Key], names: int = 0) -> Iterator[str]:
    if isinstance(content, list | tuple):
        for value in content:
            yield from _unknown(value, known, names)
    if not isinstance(content, Mapping) or names < 0:
        return
    for name, value in content.items():
        if names:
            yield from _unknown(value, known, names - 1)
        elif name not in known:
            yield name
        else:
            yield from _unknown(value, known, known[name].names)


def kind_of(path: Path, content: Any) -> str:
    """Return what kind of file it is, of the table; empty for files that are nobody's business."""
    if path.name.startswith(".") or path.name == "zarr.json":  # of Zarr's making
        return ""
    if path.name in _BY_NAME:
        return _BY_NAME[path.name]
    if path.parent.name == "validation":
        return "validation"
    if _KEPT & {folder.name for folder in path.parents}:
        return "results"
    if isinstance(content, Mapping) and _MADE_UP & content.keys():
        return ""
    return "job" if isinstance(content, Mapping) and "job" in content else "unknown"


def faults(path: Path) -> list[str]:
    """Return the keys of a file that the table lacks."""
    if path.suffix == ".exr":
        return [f"{path.name}: {name}" for name in unknown("image", exr.read_metadata(path))]
    if path.suffix not in (".json", ".jsonl", ".csv"):
        return []
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".csv":
        return _column_faults(path, next(csv.reader([text.partition("\n")[0]])))
    try:
        lines = text.splitlines() if path.suffix == ".jsonl" else [text]
        contents = [json.loads(line) for line in lines]
    except ValueError:
        return []
    found = []
    for content in contents:
        kind = kind_of(path, content)
        if kind in ("", "validation"):  # images and metrics by name
            continue
        found += [f"{path.name} ({kind}): {name}" for name in unknown(kind, content)]
    return found


def _column_faults(path: Path, columns: list[str]) -> list[str]:
    from mitsuba_gdpt import metrics

    named = [column.removesuffix(_ERROR_COLUMN) for column in columns]
    known = {*metrics.METRICS, *metrics.SEQUENCE_METRICS}
    own = [name for name in named if name not in known]
    return [f"{path.name}: {name}" for name in unknown("results", dict.fromkeys(own))]
