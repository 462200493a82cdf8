"""Renders on a budget: what they take, what they choose, interruption, going on."""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import mitsuba_gdpt as gdpt
from mitsuba_gdpt import denoisers, rendering
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.cli import main
from mitsuba_gdpt.denoisers import Call, default_call
from mitsuba_gdpt.errors import ConfigError, FormatError, LayoutError
from mitsuba_gdpt.rendering import Accumulation, Budget, BudgetedRender, adaptive, choice, timing
from mitsuba_gdpt.rendering.contenders import Contender, Costs
from tests import kills

SCENE = "builtin:corner-gallery"
SETTINGS = {"max_depth": 3}


@pytest.fixture
def source(variant_llvm_rgb: str) -> rendering.Source:
    return rendering.open_source(SCENE, width=24, height=16)


def price(method: str) -> float:
    """Return about what a reconstruction costs over one of the lowest level."""
    return 4.0 if "split" in method else 2.0 if "clean" in method else 1.0


class World:
    """A clock, and what renders and reconstructions take by it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.sample, self.fixed, self.megapixel = 0.0, {0: 0.1, 1: 0.15}, 0.05, 400.0
        self.compile, self.compiled = 3.0, set()
        self.growth, self.largest = 0.0, 0.0  # seconds of a sample beyond the largest pass so far
        render, denoise = rendering.frame.render, denoisers.denoise

        def rendered(source, integrator, *, spp, seed, sensor, counts=None, first=0):
            mean = spp if counts is None else float(counts.mean())
            self.now += self.fixed + self.sample[integrator.shifts] * mean
            self.now += self.growth * max(0.0, mean - self.largest)
            self.largest = max(self.largest, mean)
            kernel = integrator.shifts, counts is None
            if kernel not in self.compiled:
                self.now += self.compile
                self.compiled.add(kernel)
            options = {"counts": counts, "first": first}
            return render(source, integrator, spp=spp, seed=seed, sensor=sensor, **options)

        def reconstructed(frame, method, **options):
            if options:  # a trial on black pixels
                return denoise(frame, method, **options)
            self.now += frame.width * frame.height * 1e-6 * self.megapixel * price(str(method))
            return denoise(frame, "poisson-l2" if "fusion" in str(method) else "none")

        monkeypatch.setattr(rendering.frame, "render", rendered)
        monkeypatch.setattr(denoisers, "denoise", reconstructed)

    def clock(self) -> float:
        return self.now


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


@pytest.mark.parametrize("seconds", [5.0, 10.0, 30.0])
@pytest.mark.parametrize("wall", [False, True])
def test_time_is_kept(source, world: World, seconds: float, wall: bool) -> None:
    job = BudgetedRender(source, SETTINGS, Budget(seconds, wall=wall, spent=1.0), clock=world.clock)
    start = world.now
    done = job.run()
    spent = done.seconds["render"] + done.seconds["denoise"]
    assert spent + done.seconds["first"] == pytest.approx(world.now - start)
    # Compilations are told apart; timed reconstructions have the same time in both calls.
    assert done.seconds["first"] == pytest.approx(len(world.compiled) * world.compile, abs=0.01)
    if wall:
        spent += done.seconds["first"] + 1.0
    if seconds > 9.0 or not wall:
        assert 0.9 * seconds < spent <= 1.02 * seconds
    assert done.buffers.metadata["spp"] == str(
        sum(int(p.split(":")[1]) for p in done.buffers.metadata["passes"].split())
    )


def test_offset_paths_are_chosen_by_their_price(source, world: World) -> None:
    world.sample[1] = 1.02 * world.sample[0]
    cheap = BudgetedRender(source, SETTINGS, Budget(8.0), clock=world.clock).run()
    assert cheap.shifts == 1
    assert "fusion" in str(cheap.method)
    assert cheap.buffers.dx.any()
    world.sample[1] = 1.0
    world.compiled.clear()
    dear = BudgetedRender(source, SETTINGS, Budget(8.0), clock=world.clock).run()
    assert dear.shifts == 0
    assert str(dear.method).startswith("oidn")
    passes = dear.buffers.metadata["passes"].split()
    assert [p.split(":")[2] for p in passes[:4]] == ["0", "0", "1", "1"]
    assert all(p.endswith(":0") for p in passes[4:])


def test_what_a_pass_takes_whatever_its_samples_is_told_apart(source, world: World) -> None:
    """In passes of two samples offset paths seem to cost half as much again; it is thrice."""
    world.fixed, world.sample = 0.1, {0: 0.02, 1: 0.06}
    job = BudgetedRender(source, SETTINGS, Budget(100.0), clock=world.clock)
    assert job.choose().shifts == 0


@pytest.mark.parametrize("seconds", [3.0, 4.0, 6.0, 9.0, 13.0])
def test_memory_that_a_larger_pass_needs_first_is_no_surprise(
    source, world: World, seconds: float
) -> None:
    """What samples take beyond the largest pass so far, no earlier pass can tell."""
    world.sample, world.fixed, world.growth = {0: 0.1}, 0.0, 0.1
    parameters = {**SETTINGS, "shifts": 0}
    done = BudgetedRender(
        source, parameters, Budget(seconds), quality="balanced", clock=world.clock
    ).run()
    assert 0.85 * seconds < done.seconds["render"] + done.seconds["denoise"] < 1.05 * seconds


@pytest.mark.parametrize(
    ("given", "shifts", "method"),
    [
        ({"parameters": {"shifts": 2}}, 2, "ngpt-fusion"),
        ({"parameters": {"shifts": 0}}, 0, "oidn(aux=clean)"),
        ({"quality": "fast", "parameters": {"shifts": 0}}, 0, "oidn(aux=raw)"),
        ({"quality": "high", "parameters": {"shifts": 1}}, 1, str(default_call(quality="high"))),
        ({"method": Call.parse("poisson-l1")}, 1, "poisson-l1"),
        ({"method": Call.parse("none")}, 0, "none"),
    ],
)
def test_what_is_given_is_kept(source, world: World, given: dict, shifts: int, method: str) -> None:
    parameters = {**SETTINGS, **given.pop("parameters", {})}
    world.sample[2], world.megapixel = 0.2, 800.0
    done = BudgetedRender(source, parameters, Budget(4.0), clock=world.clock, **given).run()
    assert (done.shifts, str(done.method)) == (shifts, method)
    assert {p.split(":")[2] for p in done.buffers.metadata["passes"].split()} == {str(shifts)}


@pytest.mark.parametrize("method", [None, Call.parse("none")])
def test_samples_in_passes_are_rendered_and_denoised_as_at_once(source, method) -> None:
    """Gradients included: what is stored can be reconstructed with them later."""
    done = BudgetedRender(source, SETTINGS, Budget(spp=4), method=method).run()
    assert done.shifts == rendering.make_integrator(SETTINGS).shifts
    assert done.buffers.dx.any()
    assert str(done.method) == str(method or default_call(done.buffers.layout))


def test_what_the_highest_level_splits_is_rendered(source, world: World, tmp_path: Path) -> None:
    """Where it comes into question; and what is gone on with stays as it is."""
    pytest.importorskip("mitsuba_oidn")
    done = BudgetedRender(source, SETTINGS, Budget(spp=4), quality="high").run()
    assert "direct" in done.buffers
    assert "split=true" in str(done.method)
    assert (
        "direct" in BudgetedRender(source, SETTINGS, Budget(4.0), clock=world.clock).run().buffers
    )
    plain = BudgetedRender(source, SETTINGS, Budget(spp=4)).run()
    assert "direct" not in plain.buffers
    plain.buffers.to_exr(tmp_path / "plain.exr")
    resumed = Accumulation.from_exr(tmp_path / "plain.exr")
    more = BudgetedRender(source, SETTINGS, Budget(spp=8), quality="high", resumed=resumed).run()
    assert "direct" not in more.buffers
    assert "ensemble=2" in str(more.method)


def interrupt_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    render: Callable = rendering.frame.render
    numbers: Iterator[int] = itertools.count()

    def rendered(*arguments, **options):
        if next(numbers) == count:
            raise KeyboardInterrupt
        return render(*arguments, **options)

    monkeypatch.setattr(rendering.frame, "render", rendered)


def test_interrupted_and_resumed_equals_undisturbed(
    source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (source, {**SETTINGS, "shifts": 1, "variances": True}, Budget(spp=12))
    method = Call.parse("poisson-l2")
    whole = BudgetedRender(*arguments, seed=3, method=method).run()
    assert [int(p.split(":")[1]) for p in whole.buffers.metadata["passes"].split()] == [2, 2, 4, 4]
    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        part = BudgetedRender(*arguments, seed=3, method=method).run()
    assert part.interrupted
    assert part.buffers.metadata["spp"] == "4"
    assert part.image.isfinite().all()
    part.buffers.to_exr(tmp_path / "part.exr")
    resumed = Accumulation.from_exr(tmp_path / "part.exr")
    again = BudgetedRender(*arguments, seed=99, method=method, resumed=resumed).run()
    assert torch.equal(again.buffers.data, whole.buffers.data)
    assert torch.equal(again.image, whole.image)
    interrupt_after(0, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        BudgetedRender(*arguments).run()


def test_no_pass_has_too_few_samples_for_variances(source, tmp_path: Path) -> None:
    arguments = (source, {**SETTINGS, "variances": True})
    method = Call.parse("none")
    done = BudgetedRender(*arguments, Budget(spp=9), method=method).run()
    assert [int(p.split(":")[1]) for p in done.buffers.metadata["passes"].split()] == [2, 2, 5]
    done.buffers.to_exr(tmp_path / "a.exr")
    resumed = Accumulation.from_exr(tmp_path / "a.exr")
    with pytest.raises(ConfigError, match=r"spp is 10, and 9 samples are there; .* 11 or more"):
        BudgetedRender(*arguments, Budget(spp=10), method=method, resumed=resumed)
    same = BudgetedRender(*arguments, Budget(spp=9), method=method, resumed=resumed).run()
    assert torch.equal(same.buffers.data, done.buffers.data)


def test_mean_of_passes_is_the_image(source) -> None:
    """Against one render of many samples; both have the same expectation."""
    done = gdpt.render(source.scene, spp=64, method="none", max_depth=3, seed=1)
    integrator = rendering.make_integrator({**SETTINGS, "shifts": 0})
    one = rendering.render(source, integrator, spp=64, seed=2)
    mean = float(one.primal.mean())
    assert float(done.image.mean()) == pytest.approx(mean, rel=0.03)


def test_images_in_between(source) -> None:
    seen = []
    done = gdpt.render(
        source,
        spp=8,
        max_depth=3,
        method="poisson-l2",
        on_update=lambda image, frame: seen.append((frame.metadata["spp"], image.clone())),
    )
    assert [spp for spp, _ in seen] == ["2", "4", "8"]
    assert not torch.equal(seen[-2][1], done.image)
    assert torch.equal(seen[-1][1], done.image)


def test_command_line(
    tmp_path: Path, variant_llvm_rgb: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(*words: object) -> int:
        with pytest.raises(SystemExit) as stop:
            main(["render", SCENE, "--width", "16", "--height", "12", *map(str, words)])
        return int(stop.value.code or 0)

    method = ("--denoise", "poisson-l2", "--max-depth", 3)
    first, whole = tmp_path / "a.exr", tmp_path / "b.exr"
    assert run("--spp", 4, "--progressive", "-o", first, *method) == 0
    assert run("--spp", 8, "--resume", first, "--png", tmp_path / "a.png", *method) == 0
    assert run("--spp", 8, "--progressive", "-o", whole, *method) == 0
    assert first.read_bytes() == whole.read_bytes()
    assert run("--time", 0.3, "-o", tmp_path / "c.exr", "--max-depth", 3) == 0
    assert run("--spp", 8, "--resume", first, "--max-depth", 4) == 2
    assert run("--noise", 0.5, "--spp", 8, "-o", whole, *method) == 0
    assert "error" in FrameBuffers.from_exr(whole)
    assert run("--noise", 0.5, "--time", 3, "-o", whole) == 2
    assert run("--noise", 0.5, "--resume", whole) == 2
    with pytest.raises(SystemExit):
        main(["denoise", str(first), "-m", "poisson-l2", "-o", str(tmp_path / "d.exr")])
    assert run("--spp", 16, "--resume", tmp_path / "d.exr", *method) == 2
    assert "what was rendered before has primal; expected" in capfd.readouterr().err
    bits = first.read_bytes()  # nothing to do: all the samples are there
    assert run("--spp", 8, "--resume", first, *method) == 0
    assert first.read_bytes() == bits
    assert run("--spp", 16, "--resume", first, "--seed", 7, *method) == 2
    assert run("--spp", 16, "--resume", first, "--seed", 0, *method) == 0
    assert run("--noise", 0.5, "--adaptive", "-o", whole) == 2
    assert run("--spp", 40, "--adaptive", "-o", whole, *method) == 0


def test_noise_level(source, tmp_path: Path) -> None:
    """The level is reached, by no more samples than about twice what it takes."""
    options = {"method": "poisson-l2", "max_depth": 3}
    seen = []
    done = gdpt.render(
        source.scene,
        noise=0.02,
        **options,
        on_update=lambda image, frame: seen.append(float(frame.error.mean())),
    )
    assert done.noise == pytest.approx(float(done.buffers.error.mean()))
    assert done.noise == pytest.approx(seen[-1])
    assert done.noise <= 0.02
    # It ended when that was sure enough.
    low, high = done.noise_range
    assert low < done.noise < high <= 1.5 * 0.02
    assert done.buffers.error.shape == (16, 24, 1)
    most = gdpt.render(source.scene, noise=1e-9, spp=14, **options)
    assert most.noise > 1e-3
    passes = most.buffers.metadata["passes"].split()
    assert [int(p.split(":")[1]) for p in passes] == [2, 2, 2, 2, 1, 1, 1, 1]
    assert len({p.split(":")[0] for p in passes}) == 4
    # It can go on by samples, but not by a level: the halves are gone.
    most.buffers.to_exr(tmp_path / "a.exr")
    resumed = Accumulation.from_exr(tmp_path / "a.exr")
    assert "error" not in resumed.frame
    with pytest.raises(ConfigError, match="a noise level needs two halves"):
        BudgetedRender(source, SETTINGS, Budget(noise=0.1), resumed=resumed)


def test_interrupted_at_a_noise_level(source, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_after(5, monkeypatch)
    done = gdpt.render(source.scene, noise=1e-9, method="poisson-l2", max_depth=3)
    assert done.interrupted
    assert done.buffers.metadata["spp"] == "10"
    assert done.noise == pytest.approx(float(done.buffers.error.mean()))


def test_interrupted_where_the_image_is_reconstructed(source, monkeypatch) -> None:
    """Samples take longer than a second Ctrl-C: they are kept, with the noisy image."""

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    job = BudgetedRender(source, SETTINGS, Budget(spp=4), method=Call.parse("poisson-l2"))
    monkeypatch.setattr(denoisers, "denoise", interrupted)
    done = job.run()
    assert done.interrupted
    assert done.buffers.metadata["spp"] == "4"
    assert torch.equal(done.image, done.buffers.primal)
    assert str(done.method) == "none"


def test_what_failed_after_the_render_leaves_its_buffers(source, monkeypatch) -> None:
    def failing(*arguments, **options):
        raise ConfigError("out of order")

    job = BudgetedRender(source, SETTINGS, Budget(spp=4))
    assert job.buffers is None
    monkeypatch.setattr(denoisers, "denoise", failing)
    with pytest.raises(ConfigError):
        job.run()
    kept: FrameBuffers | None = job.buffers  # not what it was
    assert kept is not None
    assert kept.metadata["spp"] == "4"


@pytest.mark.parametrize("budget", [Budget(0.01), Budget(1e-9), Budget(0.1, wall=True, spent=9.0)])
def test_a_time_that_is_less_than_a_pass(source, world: World, budget: Budget) -> None:
    """One pass tells what compiling took, the next what a pass takes; then it is over."""
    ticks = itertools.count()
    world.clock = lambda: world.now + 1e-7 * next(ticks)
    done = BudgetedRender(source, SETTINGS, budget, clock=world.clock).run()
    assert done.buffers.metadata["spp"] == "4"
    assert (done.shifts, str(done.method)) == (0, "oidn(aux=raw)")
    assert done.image.isfinite().all()


def test_interrupted_once_chosen_keeps_the_choice(source, world: World, monkeypatch) -> None:
    """The first passes have gradients, the many after them have none."""
    world.sample[1] = 1.0
    interrupt_after(6, monkeypatch)
    done = BudgetedRender(source, SETTINGS, Budget(30.0), clock=world.clock).run()
    assert done.interrupted
    assert done.shifts == 0


def test_a_level_out_of_reach(source) -> None:
    """It takes the samples that are allowed, and no level is so low that numbers overflow."""
    options = {"method": "poisson-l2", "max_depth": 3}
    done = gdpt.render(source.scene, noise=1e-300, spp=8, **options)
    assert done.buffers.metadata["spp"] == "8"
    with pytest.raises(ConfigError, match="spp is 1; a noise level needs 4 parts"):
        gdpt.render(source.scene, noise=0.1, spp=1, **options)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"seconds": 1.0, "spp": 1},
        {"seconds": 1.0, "noise": 1.0},
        {"seconds": 0.0},
        {"seconds": float("nan")},
        {"seconds": 1e9},
        {"noise": 0.0},
    ],
)
def test_budgets_that_make_no_sense(given: dict) -> None:
    with pytest.raises(ConfigError):
        Budget(**given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sensor": -1}, "there is no sensor -1; count from 0"),
        ({"sensor": "a"}, "expected the index of a sensor"),
        ({"sensor": None}, "expected the index of a sensor"),
        ({"method": 5}, "the method is 5; expected its name"),
        ({"method": "none", "quality": "fast"}, "'fast' chooses a method, but 'none' is named"),
        ({"wall": True}, "wall is about seconds"),
        ({"adaptive": "yes"}, "expected True, False or None"),
        ({"on_update": 3}, "expected a function of the image"),
    ],
)
def test_arguments_that_make_no_sense(source, given: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        gdpt.render(source.scene, spp=4, **given)


def test_what_is_no_scene(variant_llvm_rgb: str, tmp_path: Path) -> None:
    calls = (
        lambda: gdpt.render("scene.xml", spp=4),
        lambda: gdpt.features(None),
        lambda: gdpt.render_sequence(None, [], tmp_path, width=8, height=8, spp=4),
    )
    for call in calls:
        with pytest.raises(ConfigError, match=r"expected a Mitsuba scene, as mi\.load_file\(\)"):
            call()


@pytest.fixture
def agreeing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the maps of the two pilots agree, whatever this small picture shows."""
    monkeypatch.setattr(adaptive, "_LEAST_AGREEMENT", -2.0)


@pytest.mark.parametrize(("seconds", "uneven"), [(8.0, False), (40.0, True)])
def test_adaptive_where_it_pays(
    source, world: World, agreeing: None, seconds: float, uneven: bool
) -> None:
    world.sample = {0: 0.1, 1: 0.12}
    done = BudgetedRender(source, SETTINGS, Budget(seconds), clock=world.clock).run()
    assert ("samples" in done.buffers) == uneven
    spent = done.seconds["render"] + done.seconds["denoise"]
    assert 0.93 * seconds < spent <= 1.02 * seconds
    assert done.seconds["first"] == pytest.approx(len(world.compiled) * world.compile, abs=0.01)
    if uneven:
        mean = float(done.buffers.samples.mean())
        assert mean == pytest.approx(int(done.buffers.metadata["spp"]), abs=3)
        assert float(done.buffers.samples.min()) >= 2 * 16
        world.compiled.clear()
        plain = BudgetedRender(
            source, SETTINGS, Budget(seconds), adaptive=False, clock=world.clock
        ).run()
        assert "samples" not in plain.buffers


def test_passes_of_nearly_equal_sizes_tell_no_slope() -> None:
    costs = Costs()
    for spp, seconds in ((2, 0.3), (32, 3.3), (30, 3.4)):
        costs.note(spp, seconds)
    fixed, slope = costs.line
    assert slope == pytest.approx(3.1 / 28)
    assert fixed == pytest.approx(3.4 - 30 * slope)


def test_a_slow_pass_of_the_pilot(
    source, world: World, agreeing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pilot ends with passes of nearly equal sizes, whose difference tells nothing."""
    world.sample = {0: 0.03, 1: 0.04}
    render, sizes = rendering.frame.render, []

    def rendered(*arguments, spp, counts=None, **options):
        sizes.append(spp)
        if counts is None and spp == 30:
            world.now += 0.1
        return render(*arguments, spp=spp, counts=counts, **options)

    monkeypatch.setattr(rendering.frame, "render", rendered)
    job = BudgetedRender(source, {**SETTINGS, "shifts": 0}, Budget(30.0), clock=world.clock)
    done = job.run()
    assert sizes[2:6] == [21, 32, 30, 30]
    assert 0.93 * 30 < done.seconds["render"] + done.seconds["denoise"] <= 1.02 * 30


def test_adaptive_passes_that_take_longer(
    source, world: World, agreeing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Than samples of the pilot said: the second stream gets what is left, not as much again."""
    world.sample = {0: 0.1, 1: 0.12}
    render = rendering.frame.render

    def rendered(*arguments, counts=None, **options):
        if counts is not None:
            world.now += 0.1 * float(counts.mean())
        return render(*arguments, counts=counts, **options)

    monkeypatch.setattr(rendering.frame, "render", rendered)
    job = BudgetedRender(source, {**SETTINGS, "shifts": 0}, Budget(40.0), clock=world.clock)
    done = job.run()
    assert "samples" in done.buffers
    assert 0.93 * 40 < done.seconds["render"] + done.seconds["denoise"] <= 1.05 * 40


def test_adaptive_passes_fit_the_lanes(
    source, agreeing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Little of a frame takes much of the time, of which a pixel may get many times the mean."""
    render, given = rendering.frame.render, []

    def rendered(*arguments, counts=None, **options):
        given.extend([] if counts is None else [counts])
        return render(*arguments, counts=counts, **options)

    monkeypatch.setattr(rendering.frame, "render", rendered)
    options = {"max_depth": 3, "shifts": 0, "method": "none", "adaptive": True}
    done = gdpt.render(source.scene, spp=400, max_lanes=512, **options)
    assert all(counts.mean() <= 1.1 * 512 / adaptive.MOST_OF_MEAN for counts in given)
    assert done.buffers.samples.mean() == pytest.approx(400, rel=0.05)


CROPPED = """<scene version="3.0.0">
  <sensor type="perspective">
    <film type="hdrfilm">
      <integer name="width" value="40"/><integer name="height" value="30"/>
      <integer name="crop_offset_x" value="7"/><integer name="crop_offset_y" value="4"/>
      <integer name="crop_width" value="12"/><integer name="crop_height" value="8"/>
      <rfilter type="box"/>
    </film>
    <transform name="to_world"><lookat origin="0,0,3" target="0,0,0" up="0,1,0"/></transform>
  </sensor>
  <emitter type="constant"/>
  <shape type="sphere"/>
</scene>"""


def test_crop_windows_go_on(variant_llvm_rgb: str, tmp_path: Path) -> None:
    scene, part, rest = tmp_path / "crop.xml", tmp_path / "a.exr", tmp_path / "b.exr"
    scene.write_text(CROPPED)
    for words in (["4", "-o", str(part)], ["8", "-o", str(rest), "--resume", str(part)]):
        with pytest.raises(SystemExit) as stop:
            main(["render", str(scene), "--progressive", "--denoise", "none", "--spp", *words])
        assert not stop.value.code
    frame = FrameBuffers.from_exr(rest)
    assert (frame.width, frame.height, frame.metadata["spp"]) == (12, 8, "8")


def test_an_edited_scene_is_no_more_of_the_same(
    variant_llvm_rgb: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    scene, part, rest = tmp_path / "crop.xml", tmp_path / "a.exr", tmp_path / "b.exr"

    def run(*words: str) -> int:
        with pytest.raises(SystemExit) as stop:
            main(["render", str(scene), "--progressive", "--denoise", "none", *words])
        return int(stop.value.code or 0)

    scene.write_text(CROPPED)
    assert run("--spp", "4", "-o", str(part)) == 0
    scene.write_text(CROPPED.replace("0,0,3", "0,0,4"))
    assert run("--spp", "8", "-o", str(rest), "--resume", str(part)) == 2
    assert "crop.xml has been edited since" in capfd.readouterr().err
    # A file of before this was looked at.
    frame = FrameBuffers.from_exr(part)
    del frame.metadata["scene_hash"]
    frame.to_exr(part)
    assert run("--spp", "8", "-o", str(rest), "--resume", str(part)) == 0


def test_even_where_maps_do_not_agree(source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive, "_LEAST_AGREEMENT", 2.0)
    done = gdpt.render(source.scene, spp=40, adaptive=True, max_depth=3, method="poisson-l2")
    assert "samples" not in done.buffers
    assert done.buffers.metadata["spp"] == "40"


def test_adaptive_render_goes_on(
    source, agreeing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"adaptive": True, "max_depth": 3, "method": "poisson-l2", "shifts": 1}
    seen = []
    done = gdpt.render(
        source.scene, spp=64, **options, on_update=lambda _, frame: seen.append(frame)
    )
    samples = done.buffers.samples
    assert samples.mean() == pytest.approx(64, abs=2)
    assert samples.min() < samples.max()
    # The pilot, the passes after it, and the image.
    assert len(seen) >= 7
    assert ["samples" in frame for frame in seen] == [False] * 4 + [True] * (len(seen) - 4)
    assert [bool(frame.planes) for frame in seen] == [True] * (len(seen) - 1) + [False]
    done.buffers.to_exr(tmp_path / "a.exr")
    assert torch.equal(FrameBuffers.from_exr(tmp_path / "a.exr").samples, samples)
    resumed = Accumulation.from_exr(tmp_path / "a.exr")
    assert "samples" not in resumed.frame
    more = BudgetedRender(
        source,
        {"max_depth": 3, "shifts": 1},
        Budget(spp=96),
        method=Call.parse("none"),
        resumed=resumed,
    ).run()
    assert more.buffers.metadata["spp"] == "96"
    # Interrupted between the two streams, the image has what there is.
    count = len(done.buffers.metadata["passes"].split())
    interrupt_after(count, monkeypatch)
    part = gdpt.render(source.scene, spp=64, **options)
    assert part.interrupted
    assert part.image.isfinite().all()


@pytest.mark.parametrize("kind", ["adaptive", "even", "after another", "no gradients"])
def test_adaptive_render_interrupted_anywhere_has_the_same_bits(
    source, agreeing: None, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted in every pass, written, read and interrupted in the next, and so to its end."""
    parameters = {**SETTINGS, "shifts": int(kind != "no gradients"), "variances": True}
    options = {"method": Call.parse("poisson-l2"), "adaptive": True, "seed": 5}
    options |= {"method": Call.parse("none")} if kind == "no gradients" else {}
    if kind == "even":
        monkeypatch.setattr(adaptive, "_LEAST_AGREEMENT", 2.0)
    path, resumed = tmp_path / "a.exr", None
    if kind == "after another":
        before = BudgetedRender(source, parameters, Budget(spp=48), **options).run()
        before.buffers.to_exr(tmp_path / "b.exr")
        resumed = Accumulation.from_exr(tmp_path / "b.exr")
        assert resumed.state is None
    budget = Budget(spp=136 if resumed else 72)
    whole = BudgetedRender(source, parameters, budget, resumed=resumed, **options).run()
    assert ("samples" in whole.buffers) == (kind != "even")
    written: list[FrameBuffers] = []
    for _ in range(40):
        with monkeypatch.context() as patch:
            # Two renders that are not counted, where the pilot is complete, come with each.
            interrupt_after(1 + 2 * (len(written) >= 4 and kind != "even"), patch)
            job = BudgetedRender(source, parameters, budget, resumed=resumed, **options)
            done = job.run()
        if not done.interrupted:
            break
        done.buffers.to_exr(path)
        resumed = Accumulation.from_exr(path)
        assert resumed.state is not None
        assert set(resumed.frame.names) == set(done.buffers.without("samples").names)
        written.append(done.buffers)
    assert len(written) >= 6
    assert torch.equal(done.buffers.data, whole.buffers.data)
    assert torch.equal(done.image, whole.image)
    assert done.buffers.metadata == whole.buffers.metadata
    assert not done.buffers.planes
    assert len({frame.metadata["passes"] for frame in written}) == len(written)


def test_killed_adaptive_command_goes_on_with_the_same_bits(
    agreeing: None, tmp_path: Path, variant_llvm_rgb: str
) -> None:
    """Killed as the third part of the pilot is written, and as the second stream is."""
    killed, whole = tmp_path / "killed.exr", tmp_path / "whole.exr"

    def words(output: Path) -> list[str]:
        options = ("--adaptive", "--denoise", "poisson-l2", "--spp", "64", "-o", str(output))
        going_on = ("--resume", str(output)) if output.exists() else ()
        return ["render", SCENE, "--width", "24", "--max-depth", "3", *options, *going_on]

    alike = "from mitsuba_gdpt.rendering import adaptive; adaptive._LEAST_AGREEMENT = -2.0"
    for point, passes in ((2, 2), (3, 5)):
        kills.command(point, words(killed), alike)
        assert len(FrameBuffers.from_exr(killed).metadata["passes"].split()) == passes
    for path in (killed, whole):
        with pytest.raises(SystemExit) as stop:
            main(words(path))
        assert not stop.value.code
    assert killed.read_bytes() == whole.read_bytes()
    assert "samples" in FrameBuffers.from_exr(whole)


def test_state_of_an_adaptive_render_can_be_left_out_or_damaged(
    source, agreeing: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters, options = {**SETTINGS, "shifts": 1}, {"method": Call.parse("none")}
    with monkeypatch.context() as patch:
        interrupt_after(8, patch)
        part = BudgetedRender(source, parameters, Budget(spp=64), adaptive=True, **options).run()
    part.buffers.to_exr(tmp_path / "a.exr")

    def go_on(path: Path, seconds: float | None = None, **more: object) -> rendering.Rendered:
        budget = Budget(seconds, None if seconds else 64)
        resumed = Accumulation.from_exr(path)
        return BudgetedRender(source, parameters, budget, resumed=resumed, **options, **more).run()

    # By itself a file says that it goes on adaptively.
    assert "samples" in go_on(tmp_path / "a.exr").buffers
    even = go_on(tmp_path / "a.exr", adaptive=False)
    assert "samples" not in even.buffers
    assert even.buffers.metadata["spp"] == "64"
    assert "samples" not in go_on(tmp_path / "a.exr", seconds=0.2, adaptive=False).buffers
    lacking = FrameBuffers.from_exr(tmp_path / "a.exr")  # as what leaves out foreign layers
    lacking.to_exr(tmp_path / "b.exr")
    with pytest.raises(FormatError, match=r"lacks the channel .* Give --uniform"):
        go_on(tmp_path / "b.exr")
    assert go_on(tmp_path / "b.exr", adaptive=False).buffers.metadata["spp"] == "64"
    for text in ("{", "[]", '{"turn":{}}', '{"part":4,"parts":{"0":{}}}'):
        lacking.to_exr(tmp_path / "c.exr", metadata={"adaptive": text})
        with pytest.raises(FormatError, match="does not hold what an adaptive render needs"):
            go_on(tmp_path / "c.exr")


def test_adaptive_makes_no_sense_with_a_noise_level(source) -> None:
    with pytest.raises(ConfigError, match="expected one"):
        gdpt.render(source.scene, noise=0.1, adaptive=True)


def test_adaptive_needs_a_quick_method(source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OIDN none does without gradients: refused where asked for, else not done."""
    candidate = denoisers.default_candidate

    def without_oidn(layout=None, quality=None):
        if quality == "fast":
            raise LayoutError("no method can run here")
        return candidate(layout, quality)

    monkeypatch.setattr(denoisers, "default_candidate", without_oidn)
    options = {"method": Call.parse("poisson-l2")}
    with pytest.raises(LayoutError):
        BudgetedRender(source, SETTINGS, Budget(spp=64), adaptive=True, **options)
    done = BudgetedRender(source, SETTINGS, Budget(0.3), **options).run()
    assert "samples" not in done.buffers


def test_compiling_is_told_apart_whenever_it_happens(source) -> None:
    """Passes of fewer than four samples, and those of more, are kernels of their own."""
    from mitsuba_gdpt.rendering.limits import Purse
    from mitsuba_gdpt.rendering.passes import Accumulation
    from mitsuba_gdpt.rendering.session import Session

    fresh = {"max_depth": 3, "rr_depth": 10**6 + time.time_ns() % 10**9}  # compiled nowhere yet
    purse = Purse(Budget(seconds=60.0))
    session = Session(source, purse, fresh, Accumulation(), sensor=0, seed=0, update=None)
    first = []
    for spp in (2, 2, 8, 8):
        session.take(1, spp, 0)
        first.append(purse.seconds["first"] - sum(first))
    assert first[0] > 0
    assert first[2] > 0
    assert first[1] == first[3] == pytest.approx(0)
    purse.open()
    assert purse.left == pytest.approx(60 + first[0] + first[2], abs=1)


def test_kernels_of_samples_tell_what_grows_with_them() -> None:
    """Tables that are made anew in each pass may have more lanes, and pixels have fewer."""
    kernels = [
        {"size": 917_504, "execution_time": 100.0},
        {"size": 115_200, "execution_time": 250.0},
        {"size": 115_200, "execution_time": 50.0},
        {"size": 57_600, "execution_time": 3.0},  # of a last tile, or of pixels
        {"size": 3, "execution_time": 40.0},
    ]
    assert timing.of_samples(kernels) == pytest.approx(0.303)
    tiles = [{"size": 4_000_000 - 90_000 * i, "execution_time": 900.0 + i} for i in range(9)]
    assert timing.of_samples(tiles) == pytest.approx(9 * 0.904)
    assert timing.of_samples([]) == 0


def test_one_pass_tells_what_a_sample_takes_and_what_is_fixed(source) -> None:
    from mitsuba_gdpt.rendering.limits import Purse
    from mitsuba_gdpt.rendering.passes import Accumulation
    from mitsuba_gdpt.rendering.session import Session

    purse = Purse(Budget(seconds=60.0))
    session = Session(source, purse, SETTINGS, Accumulation(), sensor=0, seed=0, update=None)
    for spp in (64, 64, 1024):
        seconds = session.take(0, spp, 0)
        fixed, slope = session.costs[0].line
        assert seconds == pytest.approx(fixed + spp * slope)
        assert slope > 0
    assert fixed < 0.5 * seconds  # of so many samples; in such small passes nearly all is fixed
    known = Costs()
    known.note(4, 1.0, growing=0.2)
    assert known.line == pytest.approx((0.8, 0.05))
    known.note(4, 1.0)
    assert known.line == pytest.approx((0.0, 0.25))


def test_expected_errors_are_those_of_the_table() -> None:
    law = Contender(0, Call.parse("none"), errors=(8.0, 4.0, 1.0, 0.5))
    found = [law.error(spp) for spp in (2, 8, 16, 32, 128, 512, 2048)]
    assert found == pytest.approx([16.0, 8.0, 32**0.5, 4.0, 1.0, 0.5, 0.25])
    assert law.error(0) == math.inf


def test_adaptive_passes_compile_nothing_that_is_not_told_apart(
    source, agreeing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they need is compiled once, on next to no pixels, and not taken for rendering."""
    import drjit as dr

    fresh = {"max_depth": 3, "rr_depth": 10**6 + time.time_ns() % 10**9, "shifts": 0}
    render, compiled = rendering.frame.render, []

    def rendered(*arguments, counts=None, **options):
        dr.kernel_history_clear()
        frame = render(*arguments, counts=counts, **options)
        if counts is not None:
            kernels = dr.kernel_history([dr.KernelType.JIT])
            compiled.append(sum(not kernel["cache_hit"] for kernel in kernels))
        return frame

    monkeypatch.setattr(rendering.frame, "render", rendered)
    done = BudgetedRender(source, fresh, Budget(spp=128), adaptive=True).run()
    assert "samples" in done.buffers
    assert len(compiled) > 3
    assert compiled[0] > 0
    assert not any(compiled[2:])


@pytest.mark.parametrize(("least", "tried"), [(1.15, {0, 1}), (4.0, {0})])
def test_offset_paths_are_tried_only_where_they_may_pay(
    source, world: World, monkeypatch: pytest.MonkeyPatch, least: float, tried: set[int]
) -> None:
    """Whatever they cost here, at least that much."""
    monkeypatch.setattr(choice, "_LEAST_PRICE", least)
    done = BudgetedRender(source, SETTINGS, Budget(9.0), adaptive=False, clock=world.clock).run()
    assert {int(p.split(":")[2]) for p in done.buffers.metadata["passes"].split()} == tried


def test_a_history_of_kernels_that_the_user_records_is_left_alone(source) -> None:
    import drjit as dr

    from mitsuba_gdpt.rendering.limits import Purse

    purse = Purse(Budget(seconds=60.0))
    assert purse.knows_compiling
    with dr.scoped_set_flag(dr.JitFlag.KernelHistory, True):
        dr.kernel_history_clear()
        assert not purse.knows_compiling
        with purse.rendering():
            dr.eval(dr.arange(dr.llvm.Float, 3) + 1)
        assert dr.kernel_history([dr.KernelType.JIT])
    assert purse.seconds["first"] == 0
