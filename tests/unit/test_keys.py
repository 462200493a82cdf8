"""The table of keys, and the watch over what is written while tests run."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

from mitsuba_gdpt import exr, files, keys
from mitsuba_gdpt.data.frame_set import CONVERTED
from mitsuba_gdpt.denoisers.learned import weights
from mitsuba_gdpt.evaluation.store import Record
from mitsuba_gdpt.evaluation.summary import to_csv
from mitsuba_gdpt.rendering.passes import PASSES
from mitsuba_gdpt.training import history
from tests import emitted

#: Other words for what has a key.
_SYNONYMS = ("stderr", "time", "duration", "sec", "samples", "made_by", "origin", "std")


def test_the_convention() -> None:
    names = [key.name for key in keys.TABLE]
    assert len(set(names)) == len(names)
    for key in keys.TABLE:
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", key.name)
        assert not {*_SYNONYMS} & {key.name, *key.name.split("_")}
        assert key.files
        assert {*key.files} <= keys.FILES.keys()
        assert key.meaning
    assert {PASSES, CONVERTED} <= {*names}


def test_shipped_weights() -> None:
    folders = [*weights.folders()]
    described = [weights.describe(p) for f in folders for p in sorted(f.glob("*.safetensors"))]
    assert described
    for info in described:
        assert emitted.unknown("weights", dict(info.metadata)) == [], info.path.name
    assert emitted.unknown("weights", {"license": "MIT"}) == ["license"]


def test_history_of_a_training(tmp_path: Path) -> None:
    history.add(tmp_path, 10, {"loss": 1.0, "learning_rate": 1e-3})
    (path,) = tmp_path.glob("*.jsonl")
    assert emitted.faults(path) == []
    history.add(tmp_path, 20, {"rate": 1.0})
    assert emitted.faults(path) == ["losses.jsonl (run): rate"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("results.json", {"records": [{"metrics": {"relmse": 1.0}, "seed": 0}]}, []),
        ("results.json", {"records": [{"relmse": 1.0}]}, ["results.json (results): relmse"]),
        ("costs/a.json", {"costs": {"a": {"p + x": {"fixed_seconds": 1.0}}}}, []),
        ("costs/a.json", {"costs": {"a": {"p + x": {"fixed": 1.0}}}}, ["a.json (results): fixed"]),
        (
            "frames.json",
            {"plan": {"any": {"thing": 1}}, "made_by": {}},
            ["frames.json (set): made_by"],
        ),
        ("a.json", {"job": {"scene": "a"}, "Seed": 1}, ["a.json (job): Seed"]),
        ("nobody-knows.json", {"spp": 1}, ["nobody-knows.json (unknown): spp"]),
        (".checksums.json", {"a.exr": [1, 2]}, []),
    ],
)
def test_what_lacks_is_found(
    tmp_path: Path, name: str, content: object, expected: list[str]
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    assert emitted.faults(path) == expected


def test_every_test_is_watched(tmp_path: Path, lacking_keys: list[str]) -> None:
    exr.write_image(tmp_path / "a.exr", [[[1.0, 2.0, 3.0]]], metadata={"spp": 1, "Scene": "a"})
    files.replace_text(tmp_path / "results.csv", "scene,relmse,relmse.standard_error,colour\n")
    assert lacking_keys == ["a.exr: Scene", "results.csv: colour"]
    lacking_keys.clear()


def test_standard_errors_are_columns() -> None:
    estimated = Record(
        "a",
        "x",
        "primal",
        8,
        0,
        metrics={"elpips": 2.0, "l1": 1.0},
        standard_errors={"elpips": 0.5},
    )
    plain = Record("a", "y", "primal", 8, 0, metrics={"l1": 3.0})
    rows = list(csv.DictReader(io.StringIO(to_csv([estimated, plain]))))
    shown = [[row[c] for c in ("elpips", "elpips.standard_error", "l1")] for row in rows]
    assert shown == [["2.0", "0.5", "1.0"], ["", "", "3.0"]]
    assert "l1.standard_error" not in rows[0]
