"""Evaluation: settings, merged halves, references that survive interruption, means and tables."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mitsuba_gdpt import exr, metrics, references, rendering
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import ConfigError, FormatError
from mitsuba_gdpt.evaluation import (
    IntegratorSpec,
    Record,
    Results,
    Settings,
    evaluate,
    runner,
    tables,
)
from mitsuba_gdpt.evaluation.equal_time import EqualTime
from mitsuba_gdpt.evaluation.inputs import merge
from mitsuba_gdpt.evaluation.settings import domain_of, file_name
from mitsuba_gdpt.evaluation.store import Store
from mitsuba_gdpt.evaluation.summary import to_csv
from mitsuba_gdpt.evaluation.units import DomainUnit, ViewUnit
from mitsuba_gdpt.execution import Cell
from mitsuba_gdpt.scenes import SceneRef


def settings(**changes: object) -> Settings:
    values: dict[str, object] = {"scenes": ("a.xml",), "methods": (Call("none"),)}
    return Settings(**{**values, **changes})  # type: ignore[arg-type]


class TestSettings:
    def test_files_are_called_as_methods_with_their_options(self) -> None:
        assert file_name(str(Call("poisson-l1", {"alpha": 0.1}))) == "poisson-l1_alpha=0.1"

    def test_the_domain_follows_from_what_a_method_reads(self) -> None:
        assert domain_of(Call("poisson-l2")) == "gradient"
        assert domain_of(Call("none")) == "primal"

    def test_halves_are_rendered_only_for_methods_that_read_them(self) -> None:
        """Two halves are stratified each on its own: worse than one render of all samples."""
        assert not settings(methods=(Call("none"), Call("oidn"))).needs_halves
        assert settings(methods=(Call("none"), Call("nfor"))).needs_halves

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"scenes": ()}, "at least one of: scenes"),
            ({"spp": (2, 2)}, "twice"),
            ({"seeds": 0}, "seeds is 0"),
            ({"spp": (0,)}, "expected at least 1"),
            ({"methods": (Call("none"), Call("none"))}, "twice"),
        ],
    )
    def test_bad_settings_are_refused(self, changes: dict[str, object], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            settings(**changes)


class TestMerge:
    """Halves of 3 and 1 samples of a known distribution."""

    def frames(self, counts: tuple[int, int], variances: bool) -> list[FrameBuffers]:
        generator = torch.Generator().manual_seed(1)
        layout = Layout.make(variances=variances)
        frames = []
        for count in counts:
            samples = torch.randn(count, 300, 300, layout.count, generator=generator) * 2 + 1
            frame = FrameBuffers(samples.mean(0), layout)
            if variances:
                for name in layout.names:
                    if name.endswith(".var"):
                        base = samples[..., layout.slices[name.removesuffix(".var")]]
                        frame[name][:] = (base.var(0) / count).mean(-1, keepdim=True)
            frames.append(frame)
        return frames

    @pytest.mark.parametrize("variances", [True, False])
    @pytest.mark.parametrize("counts", [(2, 2), (3, 2)])
    def test_the_mean_and_its_variance(self, counts: tuple[int, int], variances: bool) -> None:
        a, b = self.frames(counts, variances)
        merged = merge(a, b, counts, Layout.make(variances=True))
        n, m = counts
        expected = (n * a.primal + m * b.primal) / (n + m)
        assert torch.allclose(merged.primal, expected, atol=1e-6)
        for name in ("primal.var", "depth.var"):
            # Samples have variance 4; 90,000 pixels pin the mean estimate to about 1 %.
            assert float(merged[name].mean()) == pytest.approx(4 / (n + m), rel=0.02)


class TestReferences:
    @pytest.fixture
    def source(self, monkeypatch: pytest.MonkeyPatch) -> rendering.Source:
        """A scene whose renders are uniform noise of mean 1; 'calls' counts them."""

        def render(
            source: object, tracer: object, *, spp: int, seed: int, sensor: object
        ) -> FrameBuffers:
            self.calls.append((spp, seed))
            if len(self.calls) == self.interrupt_at:
                raise KeyboardInterrupt
            width, height = self.size
            noise = np.random.default_rng(seed).uniform(0, 2, (height, width, spp, 3)).mean(2)
            data = torch.zeros(height, width, Layout.make().count)
            data[..., :3] = torch.from_numpy(noise)  # the image is flat: dx and dy have no noise
            return FrameBuffers(data, Layout.make())

        self.calls: list[tuple[int, int]] = []
        self.interrupt_at = -1
        self.size = (5, 4)
        monkeypatch.setattr(rendering.Source, "size", lambda *_: self.size)
        monkeypatch.setattr(rendering, "render", render)
        monkeypatch.setattr(rendering, "make_integrator", lambda parameters: None)
        return rendering.Source("noise", None)  # type: ignore[arg-type]

    def make(self, source: rendering.Source, target: Path, spp: int = 150) -> references.Halves:
        return references.render(source, spp=spp, max_depth=7, target=target, label="test")

    def test_halves_are_independent_and_have_all_samples(
        self, source: rendering.Source, tmp_path: Path
    ) -> None:
        halves = self.make(source, tmp_path / "r.npz")
        assert [spp for spp, _ in self.calls] == [64, 64, 64, 64, 22, 22]
        assert len({seed for _, seed in self.calls}) == 6
        assert abs(float(halves.a.mean()) - 1) < 0.05
        assert not np.array_equal(halves.a, halves.b)

    def test_an_interrupted_reference_goes_on_to_the_same_bits(
        self, source: rendering.Source, tmp_path: Path
    ) -> None:
        whole = self.make(source, tmp_path / "whole.npz")
        self.calls.clear()
        self.interrupt_at = 4
        with pytest.raises(KeyboardInterrupt):
            self.make(source, tmp_path / "r.npz")
        self.interrupt_at = -1
        done = len(self.calls)
        resumed = self.make(source, tmp_path / "r.npz")
        assert len(self.calls) - done == 3, "finished passes were rendered again"
        assert np.array_equal(resumed.a, whole.a)
        assert np.array_equal(resumed.b, whole.b)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["r.npz", "whole.npz"]

    def test_a_finished_reference_is_read_and_a_smaller_one_replaced(
        self, source: rendering.Source, tmp_path: Path
    ) -> None:
        self.make(source, tmp_path / "r.npz")
        self.calls.clear()
        self.make(source, tmp_path / "r.npz")
        assert not self.calls
        self.make(source, tmp_path / "r.npz", spp=200)
        assert self.calls

    def test_one_of_another_size_or_scene_is_replaced(
        self, source: rendering.Source, tmp_path: Path
    ) -> None:
        def make(scene: str) -> references.Halves:
            return references.render(
                source, spp=80, max_depth=7, target=tmp_path / "r.npz", label="test", scene=scene
            )

        make("")
        count = len(self.calls)
        make("one")  # what is there does not say what it is of
        assert len(self.calls) == count
        # Sums that an interrupted render left are of another one, too.
        for size, scene in (((6, 4), "one"), ((7, 4), "one"), ((7, 4), "two")):
            self.size, self.interrupt_at = size, len(self.calls) + 2
            with pytest.raises(KeyboardInterrupt):
                make(scene)
            self.interrupt_at = -1
        self.size = (6, 4)
        assert make("two").size == (6, 4)
        count = len(self.calls)
        make("two")
        assert len(self.calls) == count
        make("one")
        assert len(self.calls) > count

    def test_gradients_leave_less_noise(self, source: rendering.Source, tmp_path: Path) -> None:
        options = {"spp": 64, "max_depth": 7, "label": "test"}
        plain = references.render(source, target=tmp_path / "p.npz", **options)
        solved = references.render(source, target=tmp_path / "g.npz", shifts=4, **options)
        # Weights that are the same everywhere keep the mean exactly, others up to noise.
        assert float(solved.mean.mean()) == pytest.approx(float(plain.mean.mean()), rel=0.01)
        assert 0 < solved.noise < 0.7 * plain.noise

    def test_noise_is_the_error_of_the_mean(self, tmp_path: Path) -> None:
        random = np.random.default_rng(0)
        a, b = (1 + 0.1 * random.standard_normal((64, 64, 3), np.float32) for _ in range(2))
        halves = references.Halves(a, b, 12, 64)
        error = metrics.relmse(torch.from_numpy(halves.mean), torch.ones(64, 64, 3))
        assert halves.noise == pytest.approx(float(error), rel=0.1)

    def test_one_that_is_kept_goes_on_until_its_noise_is_low(
        self, source: rendering.Source, tmp_path: Path
    ) -> None:
        def make(**goal: float) -> references.Halves:
            target = tmp_path / "r.npz"
            options = {"max_depth": 7, "label": "test", "scene": "one", "keep": True}
            return references.render(source, target=target, **options, **goal)

        first = make(spp=64)
        assert len(self.calls) == 2
        again = make(spp=1 << 14, noise=first.noise / 4)
        assert again.noise <= first.noise / 4
        assert again.spp > first.spp
        assert len({seed for _, seed in self.calls}) == len(self.calls) == 2 * again.spp / 64
        assert np.load(tmp_path / "r.npz")["a"].dtype == np.float16
        before = len(self.calls)
        make(spp=1 << 14, noise=first.noise / 4)
        assert len(self.calls) == before, "it had been good enough"
        make(spp=1 << 14, noise=again.noise / 4, seconds=0)
        assert len(self.calls) == before, "there was no time"

    def test_npz_and_exr_files_are_read_alike(self, tmp_path: Path) -> None:
        a, b = (np.full((4, 6, 3), level, np.float32) for level in (1.0, 2.0))
        both, one, other = (str(tmp_path / name) for name in ("r.npz", "a.exr", "b.exr"))
        references.Halves(a, b, 12, 64).save(Path(both))
        exr.write_image(one, a)
        exr.write_image(other, b)
        for paths in ((both,), (one, other)):
            found = references.load(paths, 6, 4)
            assert found.b is not None
            assert (float(found.a.mean()), float(found.b.mean())) == (1.0, 2.0)
        assert references.load((one,), 6, 4).b is None
        with pytest.raises(ConfigError, match="the reference has 6x4 pixels, the render 6x5"):
            references.load((both,), 6, 5)
        with pytest.raises(ConfigError, match="got 3 images; expected one, or two halves"):
            references.load((both, one), 6, 4)

    def test_one_beside_the_scene_counts_if_its_depth_fits(self, tmp_path: Path) -> None:
        image = np.ones((2, 3, 3), np.float32)
        np.savez(tmp_path / references.FILE_NAME, a=image, b=image)
        scene = str(tmp_path / "scene.xml")
        found = references.stored(SceneRef.parse(scene), 12)
        assert found is not None
        assert found.size == (3, 2)
        assert references.stored(SceneRef.parse(scene), 6) is None
        assert references.stored(SceneRef.parse("builtin:chess"), 12) is None

    def test_one_in_the_folder_comes_first_if_it_is_of_this_scene(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        room, folder = tmp_path / "room", tmp_path / "references"
        room.mkdir()
        folder.mkdir()
        (room / "scene.xml").write_text("<scene/>")
        scene = SceneRef.parse(room)
        image = np.ones((2, 3, 3), np.float32)
        references.Halves(image, image, 12, 1).save(room / references.FILE_NAME)
        references.Halves(image, image, 12, 2, references.identity(scene)).save(folder / "room.npz")
        monkeypatch.setenv(references.FOLDER_VARIABLE, str(folder))
        assert references.stored_path(scene, 12) == folder / "room.npz"
        described = references.describe(folder / "room.npz")
        assert (described["spp"], described["noise"], described["width"]) == (2, 0.0, 3)
        (room / "scene.xml").write_text("<scene><!-- edited --></scene>")
        with pytest.warns(UserWarning, match=r"room\.npz is left out"):
            assert references.stored_path(scene, 12) == room / references.FILE_NAME

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda p: p.write_bytes(b"PK\x03\x04junk"), "cannot read"),
            (lambda p: np.savez(p, a=np.ones((2, 2, 3))), "no array b"),
            (lambda p: np.savez(p, a=np.ones((2, 2, 3)), b=np.ones((2, 3, 3))), "shapes"),
            (lambda p: np.savez(p, a=np.ones((1, 1, 3)), b=np.full((1, 1, 3), np.nan)), "NaN"),
        ],
    )
    def test_a_damaged_file_is_named(
        self, damage: Callable[[Path], None], message: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "reference.npz"
        damage(path)
        with pytest.raises(FormatError, match=message):
            references.read(path)


def cell(scene: str, method: str, spp: int, seed: int, value: float) -> Record:
    return Record(
        scene=scene,
        method=method,
        domain="primal",
        spp=spp,
        seed=seed,
        rendered_spp=2 * spp,
        render_seconds=spp / 10,
        denoise_seconds=0.5,
        metrics={"relmse": value},
    )


@pytest.fixture
def results() -> Results:
    records = [
        cell(scene, method, spp, seed, level * (1 + seed) / spp)
        for scene, level in (("hall", 1.0), ("room", 100.0))
        for method in ("none", "oidn")
        for spp in (2, 8)
        for seed in (0, 1, 2)
    ]
    broken = Record("room", "oidn", "primal", 32, 0, error="out of paint")
    return Results([*records, broken, *(cell("hall", "oidn", 32, s, 0.1) for s in (0, 1, 2))])


class TestResults:
    def test_mean_and_standard_error_over_seeds(self, results: Results) -> None:
        value = results.value("hall", "none", 2, "relmse")
        assert value.mean == pytest.approx(np.mean([0.5, 1.0, 1.5]))
        assert value.standard_error == pytest.approx(np.std([0.5, 1, 1.5], ddof=1) / math.sqrt(3))

    def test_geometric_mean_over_scenes(self, results: Results) -> None:
        value = results.over_scenes("none", 2, "relmse", geometric=True)
        assert value.mean == pytest.approx(10.0)
        one = results.value("hall", "none", 2, "relmse")
        # Both scenes have the same relative error e; that of the mean is sqrt(2 e^2) / 2.
        expected = value.mean * one.standard_error / one.mean / math.sqrt(2)
        assert value.standard_error == pytest.approx(expected)

    def test_a_scene_without_value_makes_the_mean_unknown(self, results: Results) -> None:
        assert math.isnan(results.over_scenes("oidn", 32, "relmse", geometric=True).mean)
        assert results.error("room", "oidn", 32) == "out of paint"
        assert results.error("hall", "oidn", 32) is None

    def test_csv_has_every_cell(self, results: Results) -> None:
        rows = list(csv.DictReader(io.StringIO(to_csv(results.records))))
        assert len(rows) == len(results.records)
        assert rows[0]["relmse"] == "0.5"
        assert [row["error"] for row in rows].count("out of paint") == 1

    def test_tables_show_values_and_failures(self, results: Results) -> None:
        table = tables.per_scene(results, "relmse", 32)
        assert [[c.error for c in row] for row in table.cells] == [
            [None, None],
            [None, "out of paint"],
        ]
        assert table.cells[1][0].value == pytest.approx(0.1)
        summary = tables.overview(results, ["relmse"], 8)
        assert summary.cells[0][0].value == pytest.approx(2.5)
        assert [c.value for c in summary.cells[0][1:]] == [16, 0.8, 0.5]

    def test_curves_leave_out_what_is_unknown(self, results: Results) -> None:
        by_label = {curve.label: curve for curve in tables.curves(results, "relmse")[0].curves}
        assert list(by_label["none"].x) == [4, 16]
        assert list(by_label["oidn"].x) == [4, 16]


def test_records_survive_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path)
    record = cell("hall", "none", 2, 1, 0.25)
    store.write_record(record)
    assert store.record("hall", "none", 2, 1) == record
    assert store.record("hall", "none", 2, 0) is None


def test_cells_of_another_equal_time_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant_llvm_rgb: str
) -> None:
    """Else a method that is added later would be compared at another number of samples."""
    path_traced, gradients, later = (Call.parse(name) for name in ("oidn", "poisson-l1", "none"))
    measured = 3

    def make(self: DomainUnit, missing: Sequence[Cell]) -> dict[str, Exception]:
        for blank in self.blanks:
            if blank.method in {cell.name for cell in missing}:
                Store(tmp_path).write_record(replace(blank, metrics={"relmse": 1.0}))
        return {}

    def view(self: ViewUnit, missing: Sequence[Cell]) -> dict[str, Exception]:
        for cell in missing:
            cell.keep({})
        return {}

    monkeypatch.setattr(DomainUnit, "make", make)
    monkeypatch.setattr(ViewUnit, "make", view)
    monkeypatch.setattr(
        runner, "_measured", lambda cells, spp: EqualTime(spp, 1.0, measured, 1.0, 1)
    )

    def spp(methods: tuple[Call, ...]) -> dict[tuple[str, int], int | None]:
        asked = settings(scenes=("builtin:tiled-hall",), methods=methods, spp=(2,), seeds=2)
        return {(r.method, r.seed): r.rendered_spp for r in evaluate(asked, tmp_path)}

    first = spp((path_traced, gradients))
    assert first == {("oidn", s): 3 for s in (0, 1)} | {("poisson-l1", s): 2 for s in (0, 1)}
    measured = 4
    assert spp((path_traced, gradients)) == first  # nothing is missing, nothing is measured
    for path in (tmp_path / "cells").rglob("oidn-2spp-1*"):
        path.unlink()
    second = spp((path_traced, gradients, later))
    assert {second["oidn", s] for s in (0, 1)} == {second["none", s] for s in (0, 1)} == {4}
    assert second["poisson-l1", 0] == 2


def test_long_labels_become_short_file_names() -> None:
    names = {file_name("é" * 500 + end) for end in "ab"}
    assert len(names) == 2
    assert max(len(name.encode()) for name in names) < 200
    with pytest.raises(ConfigError, match="two methods would write the same files"):
        settings(methods=tuple(Call("oidn", {"weights": name}) for name in ("a+b", "a_b")))


class TestIntegrators:
    """Contenders at equal total time are written as calls, and read as they are written."""

    @pytest.mark.parametrize(
        ("text", "options"),
        [
            ("path", {}),
            ("path(rr_depth=3, hide_emitters=true)", {"rr_depth": 3, "hide_emitters": True}),
            ("gdpt(shifts=1)", {"shifts": 1}),
            (" gdpt ( shifts = 2, stratified = false )", {"shifts": 2, "stratified": False}),
        ],
    )
    def test_calls(self, text: str, options: dict[str, object]) -> None:
        spec = IntegratorSpec.parse(text)
        assert spec.options == options
        assert IntegratorSpec.parse(spec.label) == spec
        assert [type(value) for value in spec.options.values()] == [*map(type, options.values())]

    def test_nobody_gets_parts_of_the_radiance_of_path(self) -> None:
        methods = (Call("oidn", {"split": True}), Call("nfor"), Call("temporal"))
        given = settings(methods=methods)
        own = IntegratorSpec.parse("path").parameters(given)["features"].split(",")
        ours = IntegratorSpec.parse("gdpt(shifts=0)").parameters(given)["features"].split(",")
        assert "direct" in ours
        assert set(ours) - set(own) <= {"direct", "diffuse", "specular", "emission"}
        assert not set(own) & {"direct", "diffuse", "specular", "emission"}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("nonsense", "got the integrator 'nonsense'; expected one of gdpt, path"),
            ("gdpt(", "integrator 'gdpt\\('; expected NAME or NAME"),
            ("", "integrator ''; expected NAME or NAME"),
            ("gdpt(shifts=9)", '"shifts" is 9'),
            ("gdpt(shifts=true)", "gdpt: shifts is 'true'; expected a whole number"),
            ("gdpt(spam=1)", "gdpt has no parameter 'spam' here; expected some of: .*shifts"),
            ("gdpt(max_depth=3)", "max_depth, features, variances are those of the whole"),
            ("path(shifts=1)", "expected some of: rr_depth, hide_emitters"),
            ("path(rr_depth=-4)", '"rr_depth" is -4'),
        ],
    )
    def test_what_makes_no_sense(self, text: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            IntegratorSpec.parse(text)


def test_csv_holds_no_formulas() -> None:
    record = Record("=cmd()", "-m", "primal", 2, 0, metrics={"relmse": -0.5}, error="@sum")
    line = to_csv([record]).splitlines()[1]
    assert line.startswith("'=cmd(),'-m,primal,2,0,0,")
    assert ",-0.5,'@sum" in line


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"spp": (10**12,)}, "spp is .*; expected at most"),
        ({"seeds": float("nan")}, "seeds is nan; expected a whole number"),
        ({"reference_spp": 2.5}, "reference_spp is 2.5"),
        ({"width": 10**6}, "width is 1000000; expected at most 65536"),
        ({"max_depth": 0}, "max_depth is 0; expected at least 1"),
        ({"gdpt": {"rr_depth": float("inf")}}, "rr_depth is 'inf'; expected a whole number"),
        ({"gdpt": {"shifts": 3}}, '"shifts" is 3; expected 0, 1, 2 or 4'),
        ({"seconds": (2.0, 2.0)}, "seconds holds a value twice"),
    ],
)
def test_settings_that_make_no_sense(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings(**{"scenes": ("a.xml",), "methods": (Call("none"),), **values})
