"""The notebooks of examples/: committed as they ran, and run again here at the size of a toy."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from mitsuba_gdpt import progress
from mitsuba_gdpt.denoisers import registry
from mitsuba_gdpt.display import Pictures

FOLDER = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
#: What decides how long a cell takes, and how much of it is enough here.
SIZES = (
    (r"\bwidth=\d+", "width=24"),
    (r"\bspp=(?!\()\d+", "spp=2"),
    (r"\breference_spp=\d+", "reference_spp=4"),
    (r"\bspp=\([\d, ]+\)", "spp=(2,)"),
    (r"\bcrops=\d+", "crops=3"),
    (r"\bseeds=\d+", "seeds=2"),
    (r"\bframes\(\d+\)", "frames(2)"),
    (r'\bmax_depth": \d+', 'max_depth": 2'),
    ("tiled-hall|glass-bar", "corner-gallery"),
)


def cells(path: Path) -> list[Any]:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_six() -> None:
    assert len(NOTEBOOKS) == 6
    page = (FOLDER.parent / "docs" / "tutorials" / "index.md").read_text(encoding="utf-8")
    assert all(f"\n{path.stem}\n" in page for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_as_they_ran(path: Path) -> None:
    assert path.stat().st_size < 500_000
    code = cells(path)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert any("text/html" in output.get("data", {}) for output in outputs) or "±" in str(outputs)
    assert not any(output.output_type == "error" for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_run(
    path: Path, variant_llvm_rgb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))  # one registers a method
    names: dict[str, Any] = {}
    for cell in cells(path):
        source = cell.source
        for long, short in SIZES:
            source = re.sub(long, short, source)
        tree = ast.parse(source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, str(path), "exec"), names)
        if last is not None:  # what a notebook would show
            value = eval(compile(ast.Expression(last.value), str(path), "eval"), names)
            if isinstance(value, Pictures):
                assert "base64," in value._repr_html_()
