"""Evaluation on stored renders: numbers by hand, Darc files, reruns, failures."""

from __future__ import annotations

import csv
import json
import math
import statistics
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt import metrics
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.cli.app import main
from mitsuba_gdpt.cli.stored import _fitting
from mitsuba_gdpt.data import CropSet, export_darc
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import ConfigError, FormatError
from mitsuba_gdpt.evaluation import stored, stored_sets
from mitsuba_gdpt.evaluation.stored import StoredCell, evaluate_stored
from mitsuba_gdpt.evaluation.stored_page import mean, write_stored
from mitsuba_gdpt.evaluation.stored_sets import open_stored
from tests import crops, darcs

METHODS = (Call("none"), Call("poisson-l2"))
NAMES = ("relmse", "psnr")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    crops.fill(str(folder / "set.zarr"), crops.fill_plan(size=16, crops=3))
    return folder


@pytest.fixture(scope="module")
def cells(data: Path) -> list[StoredCell]:
    return evaluate_stored(open_stored([data / "set.zarr"]), METHODS, NAMES, data / "out")


def test_values_are_those_of_the_metrics(data: Path, cells: list[StoredCell]) -> None:
    crop_set = CropSet.open(data / "set.zarr")
    assert len(cells) == 2 * 3 * 3 * 2  # scenes, crops, levels, methods
    for cell in cells[:: len(METHODS)]:
        where = [crop_set.where(i) for i in range(len(crop_set))]
        crop = crop_set[where.index((cell.example.scene, cell.example.crop))]
        assert cell.error is None
        assert cell.example.spp == int(crop.spp[cell.example.level])
        primal = crop.buffers[cell.example.level].primal.contiguous()
        halves = metrics.Reference(*(half.contiguous() for half in crop.targets))
        assert cell.metrics["relmse"] == pytest.approx(float(metrics.relmse(primal, halves)))


def test_standard_errors_are_over_crops(cells: list[StoredCell]) -> None:
    own = [cell for cell in cells if cell.method == "none"]
    by_crop = [
        statistics.fmean(c.metrics["relmse"] for c in own[first : first + 3])
        for first in range(0, 18, 3)
    ]
    value = mean(own, "relmse")
    assert value.mean == pytest.approx(statistics.fmean(by_crop))
    assert value.standard_error == pytest.approx(statistics.stdev(by_crop) / math.sqrt(6))
    assert value.count == 6


def test_files_say_the_same(data: Path, cells: list[StoredCell]) -> None:
    page = write_stored(cells, NAMES, data / "out", {"commit": "here"})
    text = page.read_text()
    assert "18 renders of 6 crops of 2 scenes, 2 methods" in text
    with (data / "out" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(cells)
    assert float(rows[5]["relmse"]) == pytest.approx(cells[5].metrics["relmse"])
    with (data / "out" / "summary.csv").open() as file:
        first = next(csv.DictReader(file))
    value = mean([cell for cell in cells if cell.method == "none"], "relmse")
    assert (first["method"], first["scene"], first["level"]) == ("none", "all", "all")
    assert float(first["relmse"]) == pytest.approx(value.mean)
    assert float(first["relmse.standard_error"]) == pytest.approx(value.standard_error)
    content = json.loads((data / "out" / "results.json").read_text())
    assert content["summary"][0]["metrics"]["relmse"] == pytest.approx(value.mean)
    assert len(content["records"]) == len(cells)
    assert "| none |" in (data / "out" / "results.md").read_text()


def test_darc_files_of_the_same_crops(data: Path, cells: list[StoredCell]) -> None:
    """One target instead of two halves: the error of the halves' mean."""
    export_darc(CropSet.open(data / "set.zarr"), data / "darc")
    sets = open_stored([data / "darc"])
    found = evaluate_stored(sets, METHODS[:1], ("l1",), data / "out-darc")
    again = evaluate_stored(open_stored([data / "set.zarr"]), METHODS[:1], ("l1",), data / "out-l1")
    assert [c.example.name for c in found] == [c.example.name for c in again]
    assert {cell.example.spp for cell in found} == {0}
    for one, other in zip(found, again, strict=True):
        assert one.metrics["l1"] == pytest.approx(other.metrics["l1"], rel=1e-3)
    write_stored(found, ("l1",), data / "out-darc", {})
    assert "level 2" in (data / "out-darc" / "results.md").read_text()


def test_a_rerun_makes_only_what_is_missing(
    data: Path, cells: list[StoredCell], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    run = stored._ExampleUnit._run

    def spy(self: stored._ExampleUnit, method: Call, *data: Any) -> Any:
        made.append(f"{self.example.name} {method}")
        return run(self, method, *data)

    monkeypatch.setattr(stored._ExampleUnit, "_run", spy)
    (data / "out" / "cells" / "one-00001-2" / "none.json").unlink()
    shown = stored.shown_examples([cell.example for cell in cells[::2]])
    stored.image_path(data / "out", shown[0], "poisson-l2").unlink()
    again = evaluate_stored(open_stored([data / "set.zarr"]), METHODS, NAMES, data / "out")
    assert made == [f"{shown[0].name} poisson-l2", "one-00001-2 none"]
    assert [cell.metrics for cell in again] == [cell.metrics for cell in cells]


def test_infinities_and_nan(tmp_path: Path) -> None:
    arrays = [np.abs(array) for array in darcs.crops(2, 2, 8, 8)]
    arrays[0][0, 1, 1, 0] = np.inf
    arrays[1][1, 2, 2, 1] = np.nan
    path = darcs.write(tmp_path / "frames.darc", arrays, (1, 8, 8, 3))
    found = evaluate_stored(open_stored([path]), METHODS, ("smape",), tmp_path / "out")
    failed = [cell for cell in found if cell.error is not None]
    assert {cell.example.name for cell in failed} == {"frames-00001-1"}
    write_stored(found, ("smape",), tmp_path / "out", {})
    assert "failed" in (tmp_path / "out" / "results.md").read_text()
    assert math.isnan(mean([c for c in found if c.method == "none"], "smape").mean)


def test_chosen_crops(data: Path) -> None:
    sets = open_stored([data / "set.zarr"])
    assert [e.crop for e in sets.examples(["second"], most=1)] == [1, 1, 1]
    with pytest.raises(ConfigError, match="no scene third in the sets; they have: one, second"):
        sets.examples(["third"])


def test_what_is_no_set(tmp_path: Path, data: Path) -> None:
    with pytest.raises(ConfigError, match="neither a crop set nor a folder with Darc files"):
        open_stored([tmp_path])
    with pytest.raises(FormatError, match="cannot read this file"):
        open_stored([tmp_path / "a.darc"])
    with pytest.raises(ConfigError, match="two of the sets have a scene 'one'"):
        open_stored([data / "set.zarr", data / "set.zarr"])


def test_single_renders_of_a_darc_file(tmp_path: Path) -> None:
    path = darcs.write(tmp_path / "a.darc", darcs.crops(), (1, 4, 4, 3))
    with stored_sets.DarcFile(path) as file:
        crop = file.crop(1)
        noisy, target = file.level(1, 2)
        np.testing.assert_array_equal(noisy, crop.noisy[2])
        np.testing.assert_array_equal(target, crop.target)
        with pytest.raises(ConfigError, match="crop 1 has 3 noisy renders; there is no number 3"):
            file.level(1, 3)


def call(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    captured = capsys.readouterr()
    code = end.value.code
    return (code if isinstance(code, int) else 0), captured.out, captured.err


def test_command(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("dataset", "evaluate", data / "set.zarr", "-o", tmp_path / "out", "--crops", 2)
    chosen = ("-m", "none", "-m", "poisson-l2")
    code, out, err = call(capsys, *words, *chosen, "--metric", "l1", "--markdown")
    assert code == 0, err
    assert "12 cells, 0 failed" in out
    assert "| none |" in out
    code, out, err = call(capsys, *words, *chosen, "--metric", "ms-ssim", "--scenes", "one")
    assert code == 1  # too small for it
    assert "12 cells, 12 failed" in out
    assert "every cell failed" in err
    code, _, err = call(capsys, "evaluate", data / "set.zarr", "-o", tmp_path / "b")
    assert code == 2
    assert "is a data set, not a scene" in err
    assert "mitsuba-gdpt dataset evaluate" in err


def test_methods_that_fit(capsys: pytest.CaptureFixture[str]) -> None:
    bare: Any = SimpleNamespace(layouts=[Layout.make()])
    calls = (Call("none"), Call("kpcn-small"))
    assert _fitting(calls, bare) == calls[:1]
    assert "left out: kpcn-small: the sets lack" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no method runs on the buffers"):
        _fitting(calls[1:], bare)
