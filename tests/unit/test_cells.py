"""Cells: what counts, what is made again, what a failure leaves; the same for all of them."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mitsuba_gdpt import execution
from mitsuba_gdpt.batch.unit import RenderUnit
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.evaluation.stored import _ExampleUnit
from mitsuba_gdpt.evaluation.total_time import PairUnit
from mitsuba_gdpt.evaluation.units import DomainUnit, ViewUnit
from mitsuba_gdpt.execution import Cell, CellUnit, collecting


class Scene:
    """Something that has to go when nobody needs it."""


@dataclass(frozen=True)
class Numbers(CellUnit):
    """Writes one file per letter; some letters fail."""

    folder: Path
    letters: str
    fingerprint: str = "first"
    bad: str = ""
    made: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        return self.letters

    @property
    def cells(self) -> list[Cell]:
        return [
            Cell(letter, self.folder / f"{letter}.json", self.fingerprint)
            for letter in self.letters
        ]

    def make(self, missing: Sequence[Cell]) -> dict[str, str]:
        errors: dict[str, str] = {}
        for cell in missing:
            with collecting(errors, cell.name):
                self.made.append(cell.name)
                if cell.name in self.bad:
                    raise ConfigError(f"no\n {cell.name}")
                product = self.folder / f"{cell.name}.txt"
                product.write_text(cell.name)
                cell.keep({"letter": cell.name}, [product])
        return errors


def run(unit: CellUnit) -> execution.Summary:
    return execution.run([unit], description=None)


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    assert str(run(first := Numbers(tmp_path, "abc"))) == "1 done, 0 skipped, 0 failed"
    assert first.made == ["a", "b", "c"]
    assert first.cells[0].kept() is not None
    assert str(run(again := Numbers(tmp_path, "abc"))) == "0 done, 1 skipped, 0 failed"
    assert again.made == []
    run(more := Numbers(tmp_path, "abcd"))
    assert more.made == ["d"], "one more cell is no reason to make the others again"


def damage(path: Path, how: str) -> None:
    record, product = path / "b.json", path / "b.txt"
    if how == "product cut short":
        product.write_text("")
    elif how == "product replaced":
        product.write_text("x")
    elif how == "product gone":
        product.unlink()
    elif how == "record gone":
        record.unlink()
    elif how == "record of others":
        record.write_text(json.dumps({"fingerprint": "first", "files": {"../b.txt": None}}))
    else:
        texts = {
            "record cut short": record.read_text()[:20],
            "record empty": "",
            "record no table": "[1]",
            "record deep": "[" * 100_000,
            "record of zeros": "\0" * 100,
            "files no table": json.dumps({"fingerprint": "first", "files": 3}),
        }
        record.write_text(texts[how])


@pytest.mark.parametrize(
    "how",
    [
        "product cut short",
        "product replaced",
        "product gone",
        "record gone",
        "record of others",
        "record cut short",
        "record empty",
        "record no table",
        "record deep",
        "record of zeros",
        "files no table",
    ],
)
def test_what_is_damaged_is_made_again(tmp_path: Path, how: str) -> None:
    run(Numbers(tmp_path, "abc"))
    damage(tmp_path, how)
    run(again := Numbers(tmp_path, "abc"))
    assert again.made == ["b"]
    assert str(run(Numbers(tmp_path, "abc"))) == "0 done, 1 skipped, 0 failed"


def test_what_depends_on_something_else_is_made_again(tmp_path: Path) -> None:
    run(Numbers(tmp_path, "ab"))
    run(other := Numbers(tmp_path, "ab", "second"))
    assert other.made == ["a", "b"]
    assert str(run(Numbers(tmp_path, "ab", "second"))) == "0 done, 1 skipped, 0 failed"


def test_failures_are_named_and_tried_again(tmp_path: Path) -> None:
    summary = run(failing := Numbers(tmp_path, "abc", bad="ac"))
    assert summary.failed == {"abc": "a: no a; c: no c"}
    assert failing.made == ["a", "b", "c"], "one that fails takes no other along"
    run(again := Numbers(tmp_path, "abc"))
    assert again.made == ["a", "c"]


def test_a_failure_keeps_nothing_alive() -> None:
    """What is left of a scene would be compiled into the kernels of the next one."""
    errors: dict[str, str] = {}
    gone = []

    def fail() -> None:
        scene = Scene()
        gone.append(weakref.ref(scene))
        raise ConfigError("out of paint")

    gc.disable()
    try:
        with collecting(errors, "wall"):
            fail()
        assert gone[0]() is None
    finally:
        gc.enable()
    assert errors == {"wall": "out of paint"}


def test_bugs_are_not_taken_for_results() -> None:
    with pytest.raises(KeyError), collecting({}, "wall"):
        raise KeyError("wall")


@pytest.mark.parametrize("unit", [RenderUnit, ViewUnit, DomainUnit, PairUnit, _ExampleUnit])
def test_batches_and_evaluations_decide_nothing_of_this_by_themselves(
    unit: type[CellUnit],
) -> None:
    for name in ("run", "is_done", "missing"):
        assert getattr(unit, name) is getattr(CellUnit, name)
