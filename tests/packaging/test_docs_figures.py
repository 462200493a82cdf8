"""Pages have figures from data and code alone, and lines that can be read.

Between markers figures are generated (``test_docs.py``). Elsewhere stand only the constants of
definitions, which :data:`ALLOWED` lists. Research notes and cards of models are of their day.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    path
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    if path.parent.name != "research"
    and not (path.parent.name == "project" and (ROOT / f"{path.stem.upper()}.md").exists())
]
#: Characters; tables cannot be broken, and have more.
WIDEST, WIDEST_ROW = 160, 260

_UNITS = "ms|s|seconds?|minutes?|min|hours?|h|[kMG]i?B|%|times"
_SMALL = "two|three|four|five|six|seven|eight|nine|ten|half an?|quarter of an?"
_FIGURE = re.compile(
    rf"(?<![\w.,/-])(?:\d[\d.]*[ -]?|(?:{_SMALL})[ -])(?:{_UNITS}|hour)(?!\w)"
    r"|factor of \w+|\d{1,3}(?:,\d{3}){2,}"
)
_DECIMAL = re.compile(r"\| *[-+]?\d+\.\d+ *(?=\|)")

#: What defines something, or is asked for in a command, by page.
ALLOWED = {
    "README.md": {"7.5 s", "30 s"},
    "CONTRIBUTING.md": {"16 times", "500 kB"},
    "explanation/equal-time.md": {"0.1 %"},
    "explanation/reconstruction.md": {"2 GiB"},
    "explanation/sampling.md": {"ten times", "1 %"},
    "how-to/budget.md": {"30 seconds"},
    "how-to/evaluation.md": {"5 %"},
    "how-to/execution.md": {"ten seconds"},
    "how-to/notebooks.md": {"ten seconds"},
    "how-to/sequence-evaluation.md": {"256 MiB"},
    "how-to/sequences.md": {"10 %", "30 %", "15 %", "0.3 times"},
    "reference/metrics.md": {"0.1 %"},
    "results/index.md": {"four times", "10 s", "30 s", "100 s"},
}


def by_hand(text: str) -> str:
    """Return a page without what is generated and without code, lines where they were."""
    blocks = (r"<!-- generated: ([a-z0-9-]+) -->.*?<!-- end of \1 -->", r"^```.*?^```")
    for block in blocks:
        text = re.sub(
            block, lambda m: "\n" * m[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE
        )
    return text


def figures(text: str) -> set[str]:
    """Return numbers with units, and rows of a table with several decimal numbers."""
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", lambda m: "\n" * m[0].count("\n") + "`", by_hand(text))
    rows = {line for line in text.splitlines() if len(_DECIMAL.findall(line)) > 1}
    return {match[0] for match in _FIGURE.finditer(text)} | rows


def too_long(text: str) -> list[str]:
    """Return the lines that are too long to be read."""
    return [
        line
        for line in by_hand(text).splitlines()
        if len(line) > (WIDEST_ROW if line.lstrip().startswith("|") else WIDEST)
    ]


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT)).removeprefix("docs/")


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_figures_come_from_data(path: Path) -> None:
    """Generate them (``docs/generate.py``), move them to a research note, or say it without."""
    if path.parent.name == "models" and path.name != "README.md":
        return
    found = figures(path.read_text(encoding="utf-8"))
    allowed = ALLOWED.get(_name(path), set())
    assert found <= allowed
    assert allowed <= found  # the list holds nothing that is gone


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_lines_can_be_read(path: Path) -> None:
    assert not too_long(path.read_text(encoding="utf-8"))


def test_typed_figures_and_long_lines_are_noticed() -> None:
    text = """
A render takes 3.5 s, or `--time 30` seconds, four times as long as [before](a-2-s.md).
| fast | 1.25 | 0.5 |
| default | 0.5 | weight |, 1,234,567 parameters, off by a factor of 3
```sh
sleep 2 s
```
<!-- generated: x -->
20 %
<!-- end of x -->
"""
    assert figures(text) == {
        "3.5 s",
        "four times",
        "1,234,567",
        "factor of 3",
        "| fast | 1.25 | 0.5 |",
    }
    wide = "w" * 161
    assert too_long(f"{wide}\n| {wide} |\n| {'w' * 260} |\n```\n{wide}\n```\n") == [
        wide,
        f"| {'w' * 260} |",
    ]
