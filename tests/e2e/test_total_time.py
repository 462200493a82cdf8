"""Equal total time on tiny pictures: costs, samples, cells, the frontier."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mitsuba_gdpt import rendering
from mitsuba_gdpt.cli import main
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.evaluation import (
    IntegratorSpec,
    Record,
    Settings,
    TotalTime,
    evaluate_total_time,
    total_time,
    write_total_time,
)
from mitsuba_gdpt.evaluation.frontier import Contest
from mitsuba_gdpt.evaluation.total_time import Cost

SCENE = "builtin:corner-gallery"
PATH, PLAIN, SHIFTED = "path + none", "gdpt(shifts=0) + none", "gdpt(shifts=1) + poisson-l2"


@pytest.fixture
def settings(variant_llvm_rgb: str) -> Settings:
    return Settings(
        scenes=(SCENE,),
        methods=(Call("none"), Call("poisson-l2")),
        seeds=1,
        metrics=("relmse", "psnr"),
        max_depth=2,
        width=24,
        reference_spp=32,
        repeats=1,
        seconds=(1.0, 4.0),
        integrators=(
            IntegratorSpec("path"),
            IntegratorSpec("gdpt", {"shifts": 0}),
            IntegratorSpec("gdpt", {"shifts": 1}),
        ),
        cost_size=(32, 18),
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Renders take 0.2 s and 0.1, 0.15 or 0.3 s per sample, reconstruction 0 or 0.5 s.

    Returns:
        Sizes of what was rendered meanwhile.
    """
    sizes: list[tuple[int, int]] = []

    def in_turns(work: dict, repeats: int, clock: Callable[[], float]) -> dict:
        slopes = {"path": 0.1, "gdpt(shifts=0)": 0.15, "gdpt(shifts=1)": 0.3}
        for call in work.values():
            call()
        return {
            key: 0.2 + slopes[key[0]] * key[1]
            if isinstance(key, tuple)
            else 0.5 * key.endswith("poisson-l2")
            for key in work
        }

    original = rendering.open_source

    def open_source(*arguments, **options):
        source = original(*arguments, **options)
        sizes.append(tuple(int(side) for side in source.sensor(0).film().size()))
        return source

    monkeypatch.setattr(total_time, "_in_turns", in_turns)
    monkeypatch.setattr(rendering, "open_source", open_source)
    return sizes


def test_budgets_buy_samples(
    settings: Settings, clock: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Record] = []
    found = evaluate_total_time(settings, tmp_path, on_record=told.append)
    assert told == found.records
    assert clock == [(32, 18), (24, 24)], "costs at their own size, errors at the evaluation's"
    costs = found.costs["corner-gallery"]
    assert costs[PATH] == Cost(pytest.approx(0.2), pytest.approx(0.1), 0.0)
    assert costs[SHIFTED].denoise_seconds == 0.5
    assert found.spp == {
        ("corner-gallery", PATH, 1.0): 8,
        ("corner-gallery", PATH, 4.0): 38,
        ("corner-gallery", PLAIN, 1.0): 5,
        ("corner-gallery", PLAIN, 4.0): 25,
        ("corner-gallery", "gdpt(shifts=1) + none", 1.0): 2,
        ("corner-gallery", "gdpt(shifts=1) + none", 4.0): 12,
        ("corner-gallery", SHIFTED, 1.0): 1,
        ("corner-gallery", SHIFTED, 4.0): 11,
    }
    assert set(found.skipped) == {"path + poisson-l2", "gdpt(shifts=0) + poisson-l2"}
    assert {record.error for record in found.records} == {None}
    assert len(found.records) == 8
    for record in found.records:
        assert record.render_seconds + record.denoise_seconds <= 4.0
        assert set(record.metrics) == {"relmse", "psnr"}
    by_key = {(r.method, r.spp, r.seed): r.metrics["relmse"] for r in found.records}
    assert by_key[PATH, 38, 0] < by_key[PATH, 8, 0]

    monkeypatch.setattr(rendering, "open_source", None)
    again = evaluate_total_time(settings, tmp_path)
    assert again.records == found.records
    page = write_total_time(found, settings, tmp_path, {"command": "test"})
    text = page.read_text(encoding="utf-8")
    assert "path + poisson-l2 does not go together" in text
    tables = (tmp_path / "results.md").read_text()
    for words in ("Frontier: the best pair for a budget", "In 1 s of total time", "worst scene"):
        assert words in tables
    values = json.loads((tmp_path / "results.json").read_text())
    assert values["costs"]["corner-gallery"][PATH]["fixed_seconds"] == pytest.approx(0.2)
    assert {"scene": "corner-gallery", "pair": PATH, "seconds": 4.0, "spp": 38} in values["spp"]
    assert len(values["records"]) == 8


def test_a_scene_that_does_not_load_stops_nothing(
    settings: Settings, clock: list, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.xml"
    broken.write_text("<scene version='3.0.0'><shape type='nonsense'/></scene>")
    chosen = dataclasses.replace(settings, scenes=(str(broken), SCENE), seeds=1, seconds=(1.0,))
    found = evaluate_total_time(chosen, tmp_path / "out")
    errors = [record.error is None for record in found.records]
    assert errors == [False] * 4 + [True] * 4
    text = write_total_time(found, chosen, tmp_path / "out", {}).read_text(encoding="utf-8")
    assert "nonsense" in text


def test_costs_are_medians_by_the_clock() -> None:
    ticks = iter((0.0, 1.0, 5.0, 8.0, 10.0, 20.0))
    assert total_time._in_turns({"a": int}, 3, lambda: next(ticks)) == {"a": 3.0}
    with pytest.raises(ConfigError, match="clock is 'sun'; expected one of: wall, processor"):
        Settings(scenes=(SCENE,), methods=(Call("none"),), clock="sun")


def test_command(tmp_path: Path, capfd: pytest.CaptureFixture[str], clock: list) -> None:
    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", SCENE, "-m", "none", "-o", str(tmp_path), *words])
        return (int(stop.value.code or 0), *capfd.readouterr())

    words = "--seconds 1 --integrator path --cost-size 32x18 --width 16 --seeds 1 --repeats 1"
    words += " --reference-spp 8 --max-depth 3 --metric relmse"
    code, out, err = call(*words.split())
    assert (code, out.startswith("1 cells, 0 failed")) == (0, True), err
    for wrong, message in (
        ("--seconds nan", "--seconds is nan; expected a finite number"),
        ("--seconds 0", "--seconds is 0.0; expected"),
        ("--seconds 1 --cost-size 0x4", "--cost-size is 0; expected at least 1"),
        ("--seconds 1 --cost-size big", "expected WIDTHxHEIGHT"),
        ("--seconds 1 --integrator bdpt", "expected one of gdpt, path"),
        ("--integrator path", "add --seconds"),
        ("--cost-size 32x18", "--cost-size is about budgets of total time; add --seconds"),
        ("--clock processor", "--clock is about budgets of total time; add --seconds"),
        ("--seconds 1 --spp 2", "got both --seconds and --spp"),
        ("--seconds 1 --sequence", "leave out --sequence"),
        ("--seconds 1 --workers 1", "leave out the workers"),
    ):
        code, _, err = call(*wrong.split())
        assert (code, message in err) == (2, True), err


def test_no_pair_is_an_error(settings: Settings, tmp_path: Path) -> None:
    chosen = dataclasses.replace(
        settings, methods=(Call("poisson-l2"),), integrators=(IntegratorSpec("path"),)
    )
    with pytest.raises(
        ConfigError,
        match=r"no integrator goes with a method; poisson-l2 reads dx and dy, path has none",
    ):
        evaluate_total_time(chosen, tmp_path)


def test_frontier_spread_and_worst_scene(settings: Settings) -> None:
    """From cells that are made up, so that the right values are known."""
    cost = Cost(0.0, 1.0, 0.0)
    errors = {"a": (1.0, 4.0), "b": (4.0, 1.0), "c": (16.0, 0.25)}
    records, spp = [], {}
    for scene, values in errors.items():
        for pair, value in zip(("p + x", "q + y"), values, strict=True):
            records.append(
                Record(scene, pair, pair[0], 2, 0, 2, metrics={"relmse": value, "psnr": value})
            )
            spp[scene, pair, 2.0] = 2
    costs = {scene: dict.fromkeys(("p + x", "q + y"), cost) for scene in errors}
    chosen = dataclasses.replace(settings, seconds=(1.0, 2.0))
    contest = Contest(TotalTime(records, costs, spp, {}), chosen)
    assert contest.mean("p + x", 2.0, "relmse") == pytest.approx(4.0)
    assert contest.mean("p + x", 2.0, "psnr") == pytest.approx(7.0)
    assert contest.best(2.0, "relmse") == ("q + y", pytest.approx(1.0))
    assert contest.best(2.0, "psnr") == ("p + x", pytest.approx(7.0))
    assert contest.best(1.0, "relmse") is None
    row = contest.standings(2.0).cells[0]
    assert [cell.value for cell in row[2:5]] == pytest.approx([4.0, 13.6, 16.0])
    assert row[5].text == "c"
    (curve, other) = contest.curves("relmse").curves
    assert (list(curve.x), list(other.y)) == ([2.0], [pytest.approx(1.0)])


@pytest.mark.parametrize(
    ("seconds", "least", "expected"), [(1.0, 1, None), (1.2, 1, 1), (1.9, 1, 4), (1.2, 2, None)]
)
def test_samples_of_a_budget(seconds: float, least: int, expected: int | None) -> None:
    cost = Cost(fixed_seconds=0.5, seconds_per_spp=0.2, denoise_seconds=0.5)
    assert cost.samples(seconds + 1e-9, least) == expected
    assert Cost(0, 1e-9, 0).samples(1e3, 1) == total_time.MOST_SPP
    if expected is not None:
        assert cost.seconds(expected) <= seconds + 1e-9


def test_path_is_mitsubas_with_features(settings: Settings) -> None:
    """What is timed is ``path``; what is reconstructed is the same image, and features."""
    import mitsuba as mi
    import numpy as np

    source = rendering.open_source(SCENE, width=24, height=18)
    spec = IntegratorSpec("path", {"rr_depth": 3})
    ours = rendering.render(
        source, rendering.make_integrator(spec.parameters(settings)), spp=4, seed=5
    )
    given = {"type": "path", "max_depth": settings.max_depth, **spec.options}
    theirs = mi.load_dict(given).render(source.scene, sensor=source.sensor(0), spp=4, seed=5)
    np.testing.assert_allclose(ours.primal.numpy(), theirs.numpy()[..., :3], rtol=1e-5, atol=1e-6)
    assert {"albedo", "normal", "depth"} < set(ours.names)
    assert not spec.has_gradients


def test_budgets_that_pay_for_nothing_are_refused(settings: Settings, tmp_path: Path) -> None:
    cheap = dataclasses.replace(settings, seconds=(1e-9,), methods=(Call("none"),), repeats=1)
    with pytest.raises(ConfigError, match="no budget pays for a sample: got 1e-09 s at most"):
        evaluate_total_time(cheap, tmp_path)
