"""The documents say what the code and the data say."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mitsuba_gdpt.denoisers.learned import weights
from mitsuba_gdpt.references import Halves
from mitsuba_gdpt.rendering.contenders import ERRORS

ROOT = Path(__file__).parents[2]
_LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s#]+)(?:#[^)]*)?\)")


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_blocks_are_current(generate: ModuleType) -> None:
    """``python docs/generate.py`` mends it."""
    texts = {path: path.read_text(encoding="utf-8") for path in generate.documents()}
    stale = [str(path) for path, text in texts.items() if generate.generated(text) != text]
    assert not stale
    whole = "".join(texts.values())
    unused = [name for name in generate.BLOCKS if f"<!-- generated: {name} -->" not in whole]
    assert not unused


def test_an_edited_block_is_noticed(generate: ModuleType) -> None:
    text = (ROOT / "docs" / "reference" / "buffers.md").read_text(encoding="utf-8")
    edited = text.replace("path-traced radiance", "painted radiance")
    assert edited != text
    assert generate.generated(edited) == text


def test_budgets_count_on_the_published_errors(generate: ModuleType) -> None:
    """What a render on a budget expects of errors is what was measured."""
    found = generate.measured.budget_errors()
    assert found.keys() == ERRORS.keys()
    for choice, errors in found.items():
        assert ERRORS[choice] == pytest.approx(errors, rel=0.02)


def test_validation_in_cards_is_what_the_training_wrote(generate: ModuleType) -> None:
    """The row of the output, in bold, as far as a card has one."""
    checked = 0
    for name, path in generate.cards.files().items():
        text = (ROOT / "docs" / "models" / f"{path.stem.rpartition('-')[0]}.md").read_text()
        values = json.loads(weights.describe(path).metadata["validation"])["output"]
        section = text.partition("## Validation")[2].partition("\n## ")[0]
        head = re.search(r"^\| image \|(.*)\|$", section, re.MULTILINE)
        row = re.search(r"^\| \*\*output\*\* \|(.*)\|$", section, re.MULTILINE)
        if head is None or row is None:
            continue
        checked += 1
        for label, told in zip(head[1].split("|"), row[1].split("|"), strict=True):
            digits = len(told.strip().partition(".")[2])
            value = values[label.strip().lower()]
            assert float(told) == pytest.approx(value, abs=0.51 * 10**-digits), (name, label)
    assert checked >= 6


def test_errors_of_methods_are_the_published_ones(generate: ModuleType) -> None:
    from mitsuba_gdpt import methods

    values, _ = generate.measured.newest("methods")
    shown = {method.name: method.error for method in methods() if method.error is not None}
    assert shown == {name: float(f"{e:.2g}") for name, e in values["relmse_trimmed"].items()}


def test_what_is_published_of_an_evaluation(generate: ModuleType) -> None:
    publish = importlib.import_module("publish")  # of docs/, as generate's neighbours are
    record = {"scene": "a", "method": "p + x", "spp": 8, "error": None, "sources": "0123"}
    records = [{**record, "metrics": {"relmse": value}} for value in (1.0, 2.0)]
    cost = {"fixed_seconds": 0.123456, "seconds_per_spp": 1.0, "denoise_seconds": 2.0}
    kept = ("seconds", "cost_size", "seeds", "repeats", "clock", "metrics", "max_depth", "width")
    results = {
        "records": records,
        "provenance": {"date": "2026-01-01"},
        "settings": dict.fromkeys(kept, 1),
        "costs": {"a": {"p + x": cost}},
        "spp": [{"scene": "a", "pair": "p + x", "seconds": 3.0, "spp": 8}],
        "references": {"a": {"sha256": "ab", "spp": 64, "noise": 1.23456e-4, "file": "/a"}},
    }
    values = publish.condense(results)
    assert values["costs"] == {"a": {"p + x": [0.1235, 1.0, 2.0]}}
    assert values["errors"] == [["a", "p + x", 8, {"relmse": 1.5}]]
    assert values["references"] == {"a": {"sha256": "ab", "spp": 64, "noise": 1.235e-4}}
    assert values["provenance"]["sources"] == "0123"
    with pytest.raises(ValueError, match="1 cells failed, the first: no paint"):
        publish.condense({**results, "records": [*records, {**record, "error": "no paint"}]})
    with pytest.raises(ValueError, match="2 states of the code"):
        publish.condense({**results, "records": [*records, {**records[0], "sources": "4"}]})


def test_commands_in_data_name_no_folder_of_a_machine(generate: ModuleType) -> None:
    for path in generate.total_time.DATA.glob("*.json"):
        command = json.loads(path.read_text(encoding="utf-8"))["provenance"]["command"]
        assert not re.search(r"(^|\s)/", command), path


def test_what_is_published_of_references(generate: ModuleType, tmp_path: Path) -> None:
    publish = importlib.import_module("publish")
    image = np.full((2, 3, 3), 0.5, np.float32)
    Halves(image, image + 0.01, 12, 64, "scene").save(tmp_path / "hall.npz", half=True)
    np.savez(tmp_path / "hall.partial.npz", state=np.array([2, 64, 64, 12, 4]))
    line = "/a/hall.npz: 3x2, 64 spp in each half, noise 0.1, {} s; noise before: 1.5e-3\n"
    log = tmp_path / "log.txt"
    log.write_text("rendering: 3 %\n" + line.format(20) + line.format(40), encoding="utf-8")
    found = publish.condense_references(tmp_path)["scenes"]["hall"]
    assert found["noise"] > 0
    assert {**found, "noise": 0.1} == {
        "size": [3, 2],
        "shifts": 4,
        "spp": 64,
        "seconds": 60,
        "before": 0.0015,
        "noise": 0.1,
    }
    log.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="has no line of hall"):
        publish.condense_references(tmp_path)


def documents() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def _source(path: Path) -> Path:
    """Return the file that a link leads to: the site copies notebooks from ``examples/``."""
    notebook = path.suffix == ".ipynb" and path.parent.name == "tutorials"
    return ROOT / "examples" / path.name if notebook else path


def test_links_lead_somewhere() -> None:
    """Between files of the repository; anchors are checked where the site is built."""
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in documents()
        for target in _LINK.findall(path.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:", target) and not _source(path.parent / target).exists()
    ]
    assert not broken


def test_tests_that_documents_name_are_there() -> None:
    missing = []
    for path in documents():
        for file, name in re.findall(r"`(test_\w+\.py)::(\w+)`", path.read_text(encoding="utf-8")):
            found = [p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob(file)]
            if not any(f"def {name}(" in text for text in found):
                missing.append(f"{path.name}: {file}::{name}")
    assert not missing
