"""``mitsuba-gdpt evaluate --sequence`` on tiny sequences: cells, failures, resumption, results."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from mitsuba_gdpt import denoisers, exr, metrics, references, rendering
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.cli import main
from mitsuba_gdpt.denoisers import Call, registry
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.evaluation import (
    Record,
    Settings,
    evaluate,
    write_results,
)

SCENE = "builtin:corner-gallery"
FLY, STATIC = "corner-gallery-fly", "corner-gallery-static"
FRAMES = 3


@pytest.fixture
def settings(variant_llvm_rgb: str) -> Settings:
    return Settings(
        scenes=(SCENE,),
        methods=(Call("none"), Call("poisson-l2")),
        spp=(2,),
        seeds=2,
        metrics=("relmse", "flicker", "static-variance"),
        max_depth=4,
        width=20,
        reference_spp=16,
        repeats=1,
        frames=FRAMES,
        static=True,
    )


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Methods that a test registers are forgotten after it."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))


def quick(settings: Settings, *methods: str, **changes: Any) -> Settings:
    chosen = tuple(map(Call, methods))
    values = {"methods": chosen, "seeds": 1, "static": False, "metrics": ("relmse",), **changes}
    return dataclasses.replace(settings, **values)


def forbid(monkeypatch: pytest.MonkeyPatch, target: Any, name: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError(f"{name} was called again")

    monkeypatch.setattr(target, name, fail)


def test_cells_are_measured_written_and_not_repeated(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    simulated_clock: None,
) -> None:
    records = evaluate(settings, tmp_path)
    assert [(r.scene, r.seed, r.method, r.error) for r in records] == [
        (name, seed, method, None)
        for name in (FLY, STATIC)
        for seed in (0, 1)
        for method in ("none", "poisson-l2")
    ]
    for record in records:
        expected = {"relmse", "flicker"} | (
            {"static-variance"} if record.scene == STATIC else set()
        )
        assert set(record.metrics) == expected
        assert record.denoise_seconds > 0
    one, other = (r for r in records if (r.scene, r.method) == (FLY, "none"))
    assert one.metrics != other.metrics, "two seeds gave the same sequence"
    assert len({r.rendered_spp for r in records if r.method == "none"}) == 1, (
        "the fly-through and the camera at rest have one timing"
    )
    still = next(r for r in records if (r.scene, r.method) == (STATIC, "none"))
    # Independent noise: twice the variance, as far as three frames tell.
    ratio = still.metrics["flicker"] / still.metrics["static-variance"]
    assert 1.2 < ratio < 3
    _check_flicker(one, tmp_path)

    forbid(monkeypatch, rendering, "open_source")
    assert evaluate(settings, tmp_path) == records


def _check_flicker(record: Record, folder: Path) -> None:
    """Compute it again from the frames that were stored, which are half floats."""
    frames = [
        torch.from_numpy(exr.read_image(folder / f"images/{FLY}/none-2spp/frame-{i:04d}.exr"))
        for i in range(FRAMES)
    ]
    shown = [exr.read_image(folder / f"images/{FLY}/reference/frame-{i:04d}.exr") for i in range(3)]
    halves = [references.read(path) for path in (folder / "references/corner-gallery").iterdir()]
    assert len(halves) == FRAMES, "the camera at rest is that of the middle frame"
    ordered = [min(halves, key=lambda h: float(np.abs(h.mean - image).max())) for image in shown]
    a, b = (torch.from_numpy(np.stack([getattr(h, n) for h in ordered])) for n in ("a", "b"))
    grey = torch.stack([h.reference(denoised=True).grey for h in ordered])
    expected = float(metrics.flicker(torch.stack(frames), metrics.Reference(a, b, grey)))
    assert record.metrics["flicker"] == pytest.approx(expected, rel=5e-3)


def test_a_recurrent_method_keeps_its_state_and_starts_anew(
    settings: Settings, tmp_path: Path, scratch: None
) -> None:
    @registry.register("counting", needs=("primal",), doc="frame numbers", recurrent=True)
    def count(buffers: FrameBuffers, state: int | None) -> tuple[torch.Tensor, int]:
        number = (state or 0) + 1
        return torch.full_like(buffers["primal"], number), number

    chosen = quick(settings, "counting", seeds=2, static=True)
    records = evaluate(chosen, tmp_path)
    assert [record.error for record in records] == [None] * 4
    for name in (FLY, STATIC):
        folder = tmp_path / "images" / name / "counting-2spp"
        levels = [float(exr.read_image(path).mean()) for path in sorted(folder.iterdir())]
        # In units of the brightness that the method's input is brought to.
        assert levels == pytest.approx([levels[0], 2 * levels[0], 3 * levels[0]], rel=1e-3), (
            "each sequence counts from 1; warming up does not count"
        )


def test_methods_get_motion_and_halves(
    settings: Settings, tmp_path: Path, scratch: None, simulated_clock: None
) -> None:
    seen: list[float] = []
    halves_seen: list[Any] = []

    @registry.register("moving", needs=("primal", "motion"), doc="reads motion")
    def moving(buffers: FrameBuffers) -> torch.Tensor:
        seen.append(float(buffers["motion"].abs().max()))
        return buffers["primal"].clone()

    @registry.register("halving", needs=("primal",), doc="reads half buffers")
    def halving(buffers: FrameBuffers, *, halves: Any = None) -> torch.Tensor:
        halves_seen.append(halves)
        return 0.5 * (halves[0]["primal"] + halves[1]["primal"])

    chosen = quick(settings, "moving", "halving")
    records = evaluate(chosen, tmp_path)
    assert [record.error for record in records] == [None, None]
    assert seen[:2] == [0, 0], "the first frame, once to warm up"
    assert min(seen[2:]) > 0
    assert len({float(a["primal"].sum()) for a, _ in halves_seen}) == FRAMES


def test_failing_methods_and_scenes_stop_nothing_and_are_tried_again(
    settings: Settings, tmp_path: Path, scratch: None
) -> None:
    broken = [True]

    @registry.register(
        "fragile", needs=("primal",), doc="fails at the second frame", recurrent=True
    )
    def fragile(buffers: FrameBuffers, state: int | None) -> tuple[torch.Tensor, int]:
        if state is not None and broken:
            raise ConfigError("no paint left")
        return buffers["primal"].clone(), 1

    catalogue = tmp_path / "mine.toml"
    frames = "{ origin = [0, 1, 3], target = [0, 1, 0], fov = 50 }, " * 2
    catalogue.write_text(
        'split = "test"\n[scenes.missing]\nsource = "missing.xml"\ntitle = "T"\nauthor = "A"\n'
        f'licence = "L"\nfly_through = [{frames}]\n'
    )
    chosen = quick(settings, "fragile", "none", scenes=(str(catalogue), SCENE))
    out = tmp_path / "out"
    records = evaluate(chosen, out)
    assert ["does not exist" in str(record.error) for record in records] == [
        True,
        True,
        False,
        False,
    ]
    assert [record.error for record in records[2:]] == ["no paint left", None]
    page = write_results(records, chosen, out, {"command": "test"})
    text = page.read_text(encoding="utf-8")
    assert "missing.xml does not exist" in text
    assert "no paint left" in text
    assert not (out / f"animations/{FLY}/fragile-2spp.png").exists()
    broken.clear()
    again = evaluate(chosen, out)
    assert [record.error for record in again[2:]] == [None, None]


def test_results_are_written(settings: Settings, tmp_path: Path) -> None:
    chosen = quick(settings, "none", static=True, metrics=settings.metrics)
    records = evaluate(chosen, tmp_path)
    page = write_results(records, chosen, tmp_path, {"command": "test"}, rate=5)
    text = page.read_text(encoding="utf-8")
    data = json.loads(text.split('id="viewer-data">')[1].split("</script>")[0])
    assert [(view["title"], view["frame"]) for view in data["views"]] == [
        (name, frame) for name in (FLY, STATIC) for frame in range(FRAMES)
    ]
    tables = (tmp_path / "results.md").read_text()
    assert "Fly-through: all scenes, in the time of 2 spp" in tables
    assert "Camera at rest: variance over time, in the time of 2 spp" in tables
    assert "Fly-through: variance over time" not in tables
    values = json.loads((tmp_path / "results.json").read_text())
    assert values["settings"]["frames"] == FRAMES
    assert len(values["records"]) == 2
    for label in ("none-2spp", "reference"):
        with Image.open(tmp_path / f"animations/{FLY}/{label}.png") as picture:
            shown = [np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(picture)]
            assert picture.info["duration"] == pytest.approx(200)
        assert len(shown) == FRAMES
        with Image.open(tmp_path / f"animations/{FLY}/{label}-strip.png") as sheet:
            assert sheet.width > FRAMES * 20
    frame = exr.read_image(tmp_path / f"images/{FLY}/reference/frame-0002.exr")
    assert np.array_equal(shown[2], exr.to_8bit(frame))

    small = write_results(records, chosen, tmp_path, {"command": "test"}, page_bytes=1)
    text = small.read_text(encoding="utf-8")
    assert f"to keep the page small: {STATIC}, 2 spp" in text


ARGUMENTS = (
    "evaluate", SCENE, "--sequence", "--static", "--frames", "3", "--width", "16", "--spp", "1",
    "--seeds", "1", "--reference-spp", "8", "--repeats", "1", "--max-depth", "3",
    "-m", "none", "-m", "poisson-l2", "--metric", "relmse", "--metric", "flicker",
)  # fmt: skip


def test_killed_and_run_again(tmp_path: Path, variant_llvm_rgb: str) -> None:
    command = [sys.executable, "-m", "mitsuba_gdpt", *ARGUMENTS, "-o", str(tmp_path)]
    for pattern in ("references/*/*.npz", "cells/*/*.json"):  # killed when there is one of these
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while not list(tmp_path.glob(pattern)) and child.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL, "it was finished already"
    before = {path: path.read_bytes() for path in tmp_path.glob("[cr]*/*/*.[jn][sp][oz]*")}
    assert any(path.suffix == ".npz" for path in before)
    with pytest.raises(SystemExit) as stop:
        main([*ARGUMENTS, "-o", str(tmp_path)])
    assert stop.value.code == 0
    assert all(path.read_bytes() == data for path, data in before.items())
    cells = [json.loads(path.read_text()) for path in tmp_path.glob("cells/*/*.json")]
    assert [cell["error"] for cell in cells] == [None] * 4
    assert (tmp_path / "report.html").is_file()
    assert not list(tmp_path.rglob("*.partial.npz"))


def test_command_line_refuses_what_makes_no_sense(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], variant_llvm_rgb: str
) -> None:
    for words, message in (
        ([SCENE, "--static"], "add --sequence"),
        ([SCENE, "--metric", "flicker"], "of sequences only"),
        (["nonsense.xml", "--sequence"], "no fly-through is known for 'nonsense.xml'"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", *words, "-m", "none", "-o", str(tmp_path)])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert denoisers.find("none")
