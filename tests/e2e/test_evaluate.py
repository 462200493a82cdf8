"""``mitsuba-gdpt evaluate`` on tiny pictures: cells, failures, resumption, results."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from mitsuba_gdpt import denoisers, provenance, rendering
from mitsuba_gdpt.cli import main
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.evaluation import (
    Record,
    Results,
    Settings,
    evaluate,
    write_results,
)
from mitsuba_gdpt.execution import ClusterOptions

SCENE = "builtin:corner-gallery"
BALL = """<scene version="3.0.0">
  <sensor type="perspective">
    <film type="hdrfilm">
      <integer name="width" value="24"/><integer name="height" value="16"/>
    </film>
    <transform name="to_world"><lookat origin="0,0,4" target="0,0,0" up="0,1,0"/></transform>
  </sensor>
  <emitter type="constant"><rgb name="radiance" value="1"/></emitter>
  <shape type="sphere"/>
</scene>"""


@pytest.fixture
def settings(variant_llvm_rgb: str) -> Settings:
    return Settings(
        scenes=(SCENE,),
        methods=(Call("none"), Call("poisson-l2")),
        spp=(2,),
        seeds=2,
        metrics=("relmse", "smape"),
        max_depth=4,
        width=24,
        reference_spp=32,
        repeats=1,
    )


def test_cells_are_measured_written_and_not_repeated(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulated_clock: None
) -> None:
    records = evaluate(settings, tmp_path)
    assert [(r.method, r.seed, r.error) for r in records] == [
        ("none", 0, None),
        ("poisson-l2", 0, None),
        ("none", 1, None),
        ("poisson-l2", 1, None),
    ]
    by_method = {record.method: record for record in records}
    assert by_method["poisson-l2"].rendered_spp == 2
    assert by_method["none"].rendered_spp == 5, "path tracing gets more samples in the same time"
    assert by_method["none"].render_seconds > 0
    value = Results(records).value("corner-gallery", "none", 2, "relmse")
    assert value.standard_error > 0, "two seeds gave the same image"

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("rendered again")

    monkeypatch.setattr(rendering, "open_source", fail)
    assert evaluate(settings, tmp_path) == records


def test_failing_cells_are_reported_and_tried_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = denoisers.find("poisson-l2")
    broken = Call("poisson-l2")

    def fail(*_: object, **__: object) -> None:
        raise ConfigError("no paint left")

    with monkeypatch.context() as patch:
        patch.setattr(type(method), "advance", fail)
        records = evaluate(settings, tmp_path)
    assert {record.error for record in records} == {"no paint left"}
    again = evaluate(settings, tmp_path)
    assert {record.error for record in again} == {None}
    assert str(broken) in Results(again).methods


def test_a_scene_that_does_not_load_stops_nothing(settings: Settings, tmp_path: Path) -> None:
    both = dataclasses.replace(settings, scenes=("missing.xml", SCENE), seeds=1)
    records = evaluate(both, tmp_path)
    assert ["does not exist" in str(record.error) for record in records] == [
        True,
        True,
        False,
        False,
    ]
    page = write_results(records, both, tmp_path, {"command": "test"})
    text = page.read_text(encoding="utf-8")
    assert "missing.xml does not exist" in text
    assert "no value" not in (tmp_path / "results.md").read_text()
    values = json.loads((tmp_path / "results.json").read_text())
    assert len(values["records"]) == 4
    assert (tmp_path / "results.csv").read_text().count("\n") == 5


def test_a_catalogue_without_its_scenes_is_one_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "dev", "--sequence", "-m", "none", "-o", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "MITSUBA_GDPT_SCENES" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["images/corner-gallery/none-2spp.exr", "cells", "references"])
def test_damaged_results_are_made_again(
    settings: Settings, tmp_path: Path, name: str, simulated_clock: None
) -> None:
    before = evaluate(settings, tmp_path)
    path = tmp_path / name
    for file in [path] if path.is_file() else list(path.rglob("*.*")):
        file.write_bytes(file.read_bytes()[:20])
    if name == "references":  # rendered again where it is needed
        (tmp_path / "cells/corner-gallery/none-2spp-0.json").unlink()
    after = evaluate(settings, tmp_path)
    assert [record.error for record in after] == [None] * 4
    assert [record.metrics for record in after] == [record.metrics for record in before]


def test_a_scene_that_was_edited_has_another_reference(
    settings: Settings, tmp_path: Path, simulated_clock: None
) -> None:
    scene = tmp_path / "ball.xml"
    scene.write_text(BALL)
    settings = dataclasses.replace(settings, scenes=(str(scene),), methods=(Call("none"),), seeds=1)
    (before,) = evaluate(settings, tmp_path / "out")
    scene.write_text(BALL.replace('value="1"', 'value="30"'))
    (after,) = evaluate(settings, tmp_path / "out")
    assert after.metrics["smape"] == pytest.approx(before.metrics["smape"], rel=0.5)
    (smaller,) = evaluate(dataclasses.replace(settings, width=16), tmp_path / "out")
    assert smaller.error is None


def test_cells_of_other_code_are_made_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulated_clock: None
) -> None:
    before = evaluate(settings, tmp_path)
    assert {record.sources for record in before} == {provenance.sources()}
    monkeypatch.setattr(provenance, "sources", lambda: "other code")
    after = evaluate(settings, tmp_path)
    assert {record.sources for record in after} == {"other code"}
    write_results([*before[:1], *after[1:]], settings, tmp_path, {})
    assert "made by 2 states of the code" in (tmp_path / "results.md").read_text()
    assert "other code" in (tmp_path / "report.html").read_text()


def test_all_cells_failed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    scene = tmp_path / "broken.xml"
    scene.write_text("<scene version='3.0.0'><shape type='nonsense'/></scene>")
    words = ["evaluate", str(scene), "-m", "none", "--spp", "1", "--seeds", "1"]
    with pytest.raises(SystemExit) as stop:
        main([*words, "--metric", "relmse", "-o", str(tmp_path / "out")])
    assert stop.value.code == 1
    assert "every cell failed, the first: " in capfd.readouterr().err.splitlines()[-1]


def test_workers_make_the_same_cells(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, simulated_clock: None
) -> None:
    """Also one that fails there, and a scene that does not load."""
    broken = tmp_path / "broken.xml"
    broken.write_text("<scene version='3.0.0'><shape type='nonsense'/></scene>")
    methods = (*settings.methods, Call("optix"))
    chosen = dataclasses.replace(settings, scenes=(SCENE, str(broken)), methods=methods)
    here = evaluate(chosen, tmp_path / "here")
    told: list[Record] = []
    cluster = ClusterOptions(workers=1, threads=1)
    there = evaluate(chosen, tmp_path / "there", on_record=told.append, cluster=cluster)
    assert sorted(map(str, there)) == sorted(map(str, told)), "each is told once, when it is known"

    def what(record: Record) -> tuple[object, ...]:
        error = record.error and record.error.split(";")[0]
        return record.scene, record.method, record.seed, record.rendered_spp, record.metrics, error

    assert list(map(what, there)) == list(map(what, here))
    assert [record.error is None for record in there] == [True, True, False] * 2 + [False] * 6
    (first, *_) = (tmp_path / "there" / "images").rglob("none-2spp.exr")
    assert (
        first.read_bytes() == (tmp_path / "here/images/corner-gallery/none-2spp.exr").read_bytes()
    )
    fine = dataclasses.replace(settings)
    monkeypatch.setattr(rendering, "open_source", None)
    assert evaluate(fine, tmp_path / "there", cluster=cluster) == [
        record for record in there if record.error is None
    ]
