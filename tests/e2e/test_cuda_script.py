"""benchmarks/on_cuda.py: what hangs or dies in one test is told, and takes nothing else along."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from types import ModuleType

import pytest

TESTS = """
import os, signal, time
import pytest

def test_passes(): pass
def test_fails(): assert 1 == 2
def test_skips(): pytest.skip("no reason")
def test_dies(): os.kill(os.getpid(), signal.SIGSEGV)
def test_hangs(): time.sleep(1000)
def test_goes_on(): pass

@pytest.fixture
def dirty():
    yield
    raise RuntimeError("not torn down")

def test_leaves_a_mess(dirty): pass
"""
NAMES = [line.split("(")[0][4:] for line in TESTS.splitlines() if line.startswith("def test")]

REPORT = """text

| scene | path, s | gdpt |
| --- | --- | --- |
| a | 1.00 | 1.30 |
| geometric mean, dev scenes |  | 1.25 |
| geometric mean, built-in |  | 1.70 |

| 1280x720 | median, s |
| --- | --- |
| ngpt | 0.0150 |
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    folder = Path(__file__).parents[2] / "benchmarks"
    monkeypatch.syspath_prepend(str(folder))  # for what it imports
    module = importlib.import_module("on_cuda")
    monkeypatch.setattr(module, "PATIENCE", 8.0)
    return module


def test_every_test_is_accounted_for(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "ROOT", tmp_path)
    (tmp_path / "test_them.py").write_text(TESTS)
    ids = [f"test_them.py::{name}" for name in NAMES]
    outcomes: dict[str, object] = {}
    script.run_share(ids, time.monotonic() + 100, tmp_path / "share", outcomes)
    found = {test.rpartition("::")[2]: outcome for test, outcome in outcomes.items()}
    results = {name: outcome.result for name, outcome in found.items()}  # type: ignore[attr-defined]
    assert results == {
        "test_passes": "passed",
        "test_fails": "failed",
        "test_skips": "skipped",
        "test_dies": "crashed",
        "test_hangs": "hung",
        "test_goes_on": "passed",
        "test_leaves_a_mess": "failed",
    }
    assert "assert 1 == 2" in found["test_fails"].text  # type: ignore[attr-defined]
    assert found["test_skips"].text == "no reason"  # type: ignore[attr-defined]


def test_steps_are_cut_short_and_keep_their_output(script: ModuleType, tmp_path: Path) -> None:
    code = "import time; print('| a |\\n| --- |\\n| 1 |'); time.sleep(1000)"
    result = script.run_command(script.Step("slow", 3, ("-c", code)), 3, tmp_path)
    assert (result.result, result.tables) == ("out of time", [[{"a": "1"}]])
    result = script.run_command(
        script.Step("bad", 9, ("-c", "raise SystemExit('no')")), 9, tmp_path
    )
    assert result.result == "failed"
    assert "exit code 1" in result.text
    assert "no" in result.text


def test_goals_are_read_off_the_tables(script: ModuleType) -> None:
    tables = script.tables_of(REPORT)
    assert [len(rows) for rows in tables] == [3, 1]
    results = [
        script.Result("integrator", "ok", tables=tables[:1]),
        script.Result("denoisers", "ok", tables=tables[1:]),
    ]
    values = script.measured(results)
    found = {name: value for name, value in values.items() if value is not None}
    assert found == {"gdpt / path": 1.25, "ngpt, ms": 15.0}
    assert set(values) == set(script.GOALS)
    text = script.markdown(results, "Title", 1.0)
    assert "| ngpt-small, ms | not measured | <= 5.0 |" in text


def test_all_steps_fit_into_ten_minutes(script: ModuleType, tmp_path: Path) -> None:
    plan = script.steps("cuda_ad_rgb", False, tmp_path)
    assert sum(step.seconds for step in plan) < 600
    assert len({step.name for step in plan}) == len(plan)
