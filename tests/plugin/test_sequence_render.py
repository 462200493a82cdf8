"""Sequences on one budget: time, what each frame gets, going on after Ctrl-C."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from mitsuba_gdpt import denoisers, exr, rendering
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.cli import main
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.rendering import Budget, SequenceRender, sequence_folder
from mitsuba_gdpt.scenes.catalogue import Catalogue
from tests import kills

SCENE = "builtin:corner-gallery"
SIZE = (24, 16)
FRAMES = 4
SETTINGS = {"max_depth": 3, "shifts": 1}
METHOD = Call.parse("temporal(using=poisson-l2)")


@pytest.fixture
def source(variant_llvm_rgb: str) -> rendering.Source:
    return rendering.open_source(SCENE, width=SIZE[0], height=SIZE[1])


@pytest.fixture
def cameras() -> list:
    scene = Catalogue.open("builtin").scene("corner-gallery")
    return [scene.fly(0.4 + 0.02 * number) for number in range(FRAMES)]


def render(source, cameras, folder: Path, budget: Budget, **options) -> rendering.RenderedSequence:
    options = {"method": METHOD, "seed": 3, **options}
    return SequenceRender(source, cameras, folder, SETTINGS, budget, size=SIZE, **options).run()


def files(folder: Path) -> list[torch.Tensor]:
    return [FrameBuffers.from_exr(path).data for path in sorted(folder.glob("*.exr"))]


def test_samples_are_those_asked_for(source, cameras, tmp_path: Path) -> None:
    seen = []
    done = render(
        source, cameras, tmp_path, Budget(spp=12), on_frame=lambda n, image: seen.append(image)
    )
    assert FRAMES * 11 <= sum(done.spp) <= FRAMES * 12
    assert len(seen) == FRAMES
    assert all(image.shape == (16, 24, 3) and image.isfinite().all() for image in seen)
    assert not any(torch.equal(seen[0], image) for image in seen[1:])
    headers = [FrameBuffers.from_exr(path).metadata for path in sorted(tmp_path.glob("*.exr"))]
    assert [int(header["spp"]) for header in headers] == list(done.spp)
    seeds = [{word.split(":")[0] for word in header["passes"].split()} for header in headers]
    assert all(len(of_frame) == 1 for of_frame in seeds)
    assert len(set.union(*seeds)) == FRAMES


def test_plans_of_before_are_read(source, cameras, tmp_path: Path) -> None:
    """They call fields by other names."""
    before = render(source, cameras[:2], tmp_path, Budget(spp=8))
    path = tmp_path / sequence_folder.PLAN
    plan = json.loads(path.read_text())
    for old, new in sequence_folder._RENAMED.items():
        plan[old] = plan.pop(new)
    path.write_text(json.dumps(plan))
    assert render(source, cameras[:2], tmp_path, Budget(spp=8)).spp == before.spp


def test_frames_are_denoised_again_as_they_were(
    source, cameras, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files know their cameras, and so the motion between them."""
    render(source, cameras, tmp_path, Budget(spp=4))
    monkeypatch.chdir(tmp_path)
    words = ("-m", str(METHOD), "-o", "again-####.exr")
    with pytest.raises(SystemExit) as stop:
        main(["denoise", "frame-####.exr", *words])
    assert not stop.value.code
    for number in range(FRAMES):
        before, again = (exr.read(f"{n}-{number:04d}.exr") for n in ("frame", "again"))
        for name in "RGB":
            assert np.array_equal(again.channels[name], before.channels[f"denoised.{name}"])


@pytest.mark.parametrize("count", [0, 3, 9, 10])
def test_interrupted_and_continued_equals_undisturbed(
    source, cameras, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    budget = Budget(spp=12)
    render(source, cameras, whole, budget)
    with monkeypatch.context() as patch:
        original, numbers = rendering.frame.render, itertools.count()

        def rendered(*arguments, **options):
            if next(numbers) == count:
                raise KeyboardInterrupt
            return original(*arguments, **options)

        patch.setattr(rendering.frame, "render", rendered)
        if count < 2 * FRAMES:  # not every frame has a sample
            with pytest.raises(KeyboardInterrupt):
                render(source, cameras, part, budget)
        else:
            assert render(source, cameras, part, budget).interrupted
    done = render(source, cameras, part, budget)
    assert not done.interrupted
    assert all(map(torch.equal, files(part), files(whole)))
    images = [(folder / "frame-0003.exr").read_bytes() for folder in (part, whole)]
    assert images[0] == images[1]  # the reconstruction too
    with pytest.raises(ConfigError, match="holds another sequence: budget of it differ"):
        render(source, cameras, part, Budget(spp=13))
    with pytest.raises(ConfigError, match="cameras of it differ"):
        render(source, cameras[:3], part, budget)


@pytest.mark.parametrize("interrupted", [None, 5, 12])
def test_time_is_kept(
    source, cameras, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: int | None
) -> None:
    """By a clock that renders and reconstructions move; frames differ in what a sample takes.

    A process that goes on compiles again, which is no part of the time either.
    """
    now, price, numbers, compiled = [0.0], itertools.cycle([0.1, 0.3]), itertools.count(), [False]
    original, advance = rendering.frame.render, denoisers.Call.advance

    def rendered(source, integrator, *, spp, seed, sensor, counts=None, first=0):
        if next(numbers) == interrupted:
            raise KeyboardInterrupt
        now[0] += 0.5 + next(price) * spp + (0.0 if compiled[0] else 40.0)
        compiled[0] = True
        return original(source, integrator, spp=spp, seed=seed, sensor=sensor, first=first)

    def advanced(call, frame, state):
        now[0] += 0.2
        return advance(call, frame, state)

    monkeypatch.setattr(rendering.frame, "render", rendered)
    monkeypatch.setattr(denoisers.Call, "advance", advanced)
    arguments = (source, cameras, tmp_path, Budget(60.0))
    if interrupted is not None:
        with suppress(KeyboardInterrupt):
            render(*arguments, clock=lambda: now[0])
        compiled[0] = False
    done = render(*arguments, clock=lambda: now[0])
    taken = json.loads((tmp_path / "sequence.json").read_text())["spent_seconds"] + FRAMES * 0.2
    assert 0.93 * 60 < taken < 1.05 * 60
    assert min(done.spp) > 10
    if interrupted is None:
        assert done.seconds["render"] + done.seconds["denoise"] == pytest.approx(taken)


def test_command_line(tmp_path: Path, variant_llvm_rgb: str) -> None:
    def run(*words: object) -> int:
        with pytest.raises(SystemExit) as stop:
            main(["render", SCENE, "--width", "16", *map(str, words), "--max-depth", "2"])
        return int(stop.value.code or 0)

    folder = tmp_path / "fly"
    options = ("--fly-through", 2, "--span", 0.4, 0.5, "--denoise", "poisson-l2", "-o", folder)
    assert run("--spp", 5, *options) == 0
    names = {path.name for path in folder.iterdir()}
    assert {"frame-0000.exr", "frame-0001.png", "sequence.json"} <= names
    assert run("--spp", 6, *options) == 2
    assert run("--noise", 0.1, *options) == 2
    assert run("--fly-through", 2, "-o", tmp_path / "a.exr") == 2


def test_killed_command_goes_on_with_the_same_bits(tmp_path: Path, variant_llvm_rgb: str) -> None:
    """Killed as a pass of a frame is written, and again between image and picture of another."""

    def words(folder: Path) -> list[str]:
        return [
            *("render", SCENE, "--width", "16", "--max-depth", "2", "--fly-through", "2"),
            *("--span", "0.4", "0.5", "--denoise", "poisson-l2", "--spp", "6", "-o", str(folder)),
        ]

    def contents(folder: Path) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != sequence_folder.PLAN}

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    # Renamings of a whole run: plan, 2 frames, plan (2), 2 frames and plan each, 2 images each.
    for point, expected in ((5, ["4", "4"]), (5, ["6", "6"])):
        kills.command(point, words(killed))
        found = [FrameBuffers.from_exr(path) for path in sorted(killed.glob("*.exr"))]
        assert [frame.metadata["spp"] for frame in found] == expected
        assert [*killed.glob(".*.tmp")]
    for folder in (killed, whole):
        with pytest.raises(SystemExit) as stop:
            main(words(folder))
        assert not stop.value.code
    assert contents(killed) == contents(whole)
    assert len(contents(whole)) == 4


def test_no_pass_has_too_few_samples_for_variances(source, cameras, tmp_path: Path) -> None:
    parameters = {**SETTINGS, "variances": True}

    def begin(spp: int) -> SequenceRender:
        return SequenceRender(source, cameras, tmp_path, parameters, Budget(spp=spp), size=SIZE)

    with pytest.raises(ConfigError, match=r"spp of a sequence is 5; .* 4, or 6 or more"):
        begin(5)
    for spp in (4, 6):
        begin(spp)


def test_sensors_are_no_cameras(source, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"camera of type .*; expected .*scenes\.Camera"):
        render(source, source.scene.sensors(), tmp_path / "a", Budget(spp=4))
    assert not (tmp_path / "a").exists()
