"""The documents say what the code and the data say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from mitsuba_gdpt.rendering.budget import ERRORS

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
    """What a render on a budget expects of errors is what was measured; "high" was not."""
    found = generate.total_time.latest()
    pairs = {
        (0, "fast"): "gdpt shifts=0 + oidn(aux=raw)",
        (1, "balanced"): "gdpt shifts=1 + ngpt-fusion-fast",
    }
    base, _ = found.power_law(pairs[0, "fast"], "relmse-trimmed")
    for row, pair in pairs.items():
        error, power = found.power_law(pair, "relmse-trimmed")
        assert ERRORS[row] == pytest.approx((error / base, power), abs=0.02)


def documents() -> list[Path]:
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def test_links_lead_somewhere() -> None:
    """Between files of the repository; anchors are checked where the site is built."""
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in documents()
        for target in _LINK.findall(path.read_text(encoding="utf-8"))
        if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists()
    ]
    assert not broken
