"""What happened in a run so far: losses now and then, and the figures of all validations."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from mitsuba_gdpt.files import read_json, replace_text

_FILE = "losses.jsonl"
_FIGURES = re.compile(r"step-(\d+)\.json")

#: Names of images to names of figures to values.
Figures = Mapping[str, Mapping[str, float]]


def begin(folder: Path, step: int) -> None:
    """Forget what came after the step that a run goes on from: it happens again."""
    kept = [line for line in _lines(folder) if line["step"] <= step]
    replace_text(folder / _FILE, "".join(json.dumps(line) + "\n" for line in kept))
    for path in (folder / "validation").glob("step-*.json"):
        if int(path.stem.partition("-")[2]) > step:
            path.unlink()
            path.with_suffix(".png").unlink(missing_ok=True)


def add(folder: Path, step: int, values: Mapping[str, float]) -> None:
    """Note losses and whatever else is known of a step."""
    with (folder / _FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, **values}) + "\n")


def curve(folder: Path, name: str, most: int) -> tuple[list[float], list[float]]:
    """Return steps and values > 0 of one name, as means of neighbours if there are many.

    Args:
        folder: Of the run.
        name: As given to :func:`add`.
        most: Number of points at most.
    """
    points = [(line["step"], line[name]) for line in _lines(folder) if line.get(name, 0) > 0]
    size = -(-len(points) // most) or 1
    blocks = [points[i : i + size] for i in range(0, len(points), size)]
    means = [[sum(column) / len(block) for column in zip(*block, strict=True)] for block in blocks]
    return [x for x, _ in means], [y for _, y in means]


def validations(folder: Path) -> dict[int, Figures]:
    """Return the figures of all validations by step.

    Raises:
        FormatError: A file of them is damaged.
    """
    found = {
        int(match[1]): path
        for path in (folder / "validation").glob("step-*.json")
        if (match := _FIGURES.fullmatch(path.name))
    }
    return {step: read_json(found[step]) for step in sorted(found)}


def _lines(folder: Path) -> list[dict[str, float]]:
    """Return what was noted; a last line that was cut off when a run was killed does not count."""
    path = folder / _FILE
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines
