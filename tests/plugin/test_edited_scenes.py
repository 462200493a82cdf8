"""Whoever goes on with what was made of a scene notices that a file of it has been edited."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mitsuba as mi
import numpy as np
import pytest

from mitsuba_gdpt import rendering
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.cli.app import main
from mitsuba_gdpt.data import frames, render_crops, units
from mitsuba_gdpt.data.frame_plan import CameraSequence, FramePlan, FrameSettings, still
from mitsuba_gdpt.data.frames import frame_units, render_frames
from mitsuba_gdpt.data.plan import CropPlan
from mitsuba_gdpt.errors import ConfigError, FormatError
from mitsuba_gdpt.scenes import Camera, SceneRef
from tests.crops import scene as entry

MAIN = """<scene version="3.0.0">
  <path value="pictures"/><default name="paint" value="paint"/>
  <include filename="parts/wall.xml"/>
  <sensor type="perspective">
    <transform name="to_world"><lookat origin="0,0,3" target="0,0,0" up="0,1,0"/></transform>
    <film type="hdrfilm"><integer name="width" value="12"/><integer name="height" value="8"/></film>
  </sensor>
  <emitter type="envmap"><string name="filename" value="sky.exr"/></emitter>
</scene>"""
WALL = """<scene version="3.0.0"><shape type="ply"><string name="filename" value="wall.ply"/>
  <bsdf type="diffuse"><texture type="bitmap" name="reflectance">
    <string name="filename" value="$paint.png"/></texture></bsdf></shape></scene>"""
FILES = {
    "parts/wall.xml": "parts/wall.xml",
    "sky.exr": "sky.exr",
    "wall.ply": "wall.ply",
    "paint.png": "pictures/paint.png",
}
CAMERA = Camera((0, 0, 3), (0, 0, 0))


@pytest.fixture
def scene(tmp_path: Path, device_variant: str) -> Iterator[Path]:
    folder = tmp_path / "room"
    for name in ("parts", "pictures"):
        (folder / name).mkdir(parents=True)
    path = folder / "scene.xml"
    path.write_text(MAIN)
    (folder / "parts/wall.xml").write_text(WALL)
    mi.Bitmap(np.full((4, 8, 3), 0.5, np.float32)).write(str(folder / "sky.exr"))
    mi.load_dict({"type": "rectangle"}).write_ply(str(folder / "wall.ply"))
    paint(folder, 200)
    paint(folder, 30, "other")
    yield path
    units._open.clear()
    frames._open.cache_clear()


def paint(folder: Path, level: int, name: str = "paint") -> None:
    mi.Bitmap(np.full((2, 2, 3), level, np.uint8)).write(str(folder / f"pictures/{name}.png"))


def test_what_mitsuba_reads_is_found(scene: Path) -> None:
    """Each file that is found is one without which the scene does not load, and there are all."""
    found = SceneRef.parse(scene).contents().others
    assert found.keys() == FILES.keys()
    for place in FILES.values():
        file = scene.parent / place
        kept = file.read_bytes()
        file.unlink()
        with pytest.raises(FormatError), warnings.catch_warnings():
            rendering.open_source(str(scene))
        file.write_bytes(kept)
    rendering.open_source(str(scene))


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, words)])
    return int(stop.value.code or 0)


def test_renders(scene: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    part, words = tmp_path / "a.exr", ("--progressive", "--denoise", "none")
    assert command("render", scene, *words, "--spp", 4, "-o", part) == 0
    paint(scene.parent, 100)
    again = ("render", scene, *words, "--spp", 8, "--resume", part, "-o", tmp_path / "b.exr")
    assert command(*again) == 2
    said = capfd.readouterr().err
    assert f"paint.png has been edited since {part} was rendered; begin a new file" in said
    # Another file by another parameter is no edit.
    assert command(*again, "-D", "paint=other") == 2
    assert "has parameters" in capfd.readouterr().err
    paint(scene.parent, 200)
    assert command(*again) == 0
    frame = FrameBuffers.from_exr(part)  # of an older version, which knew the XML alone
    del frame.metadata["scene_files"]
    frame.to_exr(part)
    paint(scene.parent, 100)
    assert command(*again) == 0


def test_crop_sets(scene: Path, tmp_path: Path) -> None:
    numbers = {"size": 8, "levels": 1, "max_spp": 3, "reference_spp": 4, "frame": (16, 8)}
    plan = CropPlan((entry("room", scene),), crops=2, **numbers)  # type: ignore[arg-type]
    path = tmp_path / "set.zarr"
    assert not render_crops(plan, path, crops_per_shard=1).failed
    (path / "room/faults/c/1/0").unlink()
    paint(scene.parent, 100)
    with pytest.raises(
        ConfigError, match=r"paint\.png has been edited since .*set\.zarr was begun"
    ):
        render_crops(plan, path)
    # A renderer that is open does not know of it: its scene is loaded again for another set.
    opened = units._open[0][1]
    assert not render_crops(plan, tmp_path / "other.zarr").failed
    assert units._open[0][1] is not opened
    paint(scene.parent, 200)
    assert render_crops(plan, path).done == 1


def test_frame_sets(scene: Path, tmp_path: Path) -> None:
    settings = FrameSettings(width=8, height=8, noisy=1, target_spp=2)
    sequence = CameraSequence("room", "train", str(scene), still(CAMERA, 1), max_depth=2)
    plan, path = FramePlan((sequence,), settings), tmp_path / "set"
    assert not render_frames(plan, path).failed
    paint(scene.parent, 100)
    with pytest.raises(ConfigError, match=r"paint\.png has been edited since .*set was begun"):
        render_frames(plan, path)
    assert not render_frames(plan, tmp_path / "other").failed
    dark, bright = (
        FrameBuffers.from_exr(tmp_path / name / "train/room/frame-0000/target.exr")
        for name in ("other", "set")
    )
    assert dark["albedo"].mean() < 0.7 * bright["albedo"].mean()
    # Edited while the set is rendered.
    (unit,) = frame_units(plan, tmp_path / "third")
    paint(scene.parent, 50)
    with pytest.raises(ConfigError, match="have been edited since this run was begun"):
        unit.run()
    replace(unit, contents="").run()


def test_sequences(scene: Path, tmp_path: Path) -> None:
    def render() -> None:
        source = rendering.open_source(str(scene))
        options = {"width": 12, "height": 8, "spp": 4, "max_depth": 2}
        rendering.render_sequence(source, [CAMERA] * 2, tmp_path / "frames", **options)

    render()
    paint(scene.parent, 100)
    with pytest.raises(ConfigError, match=r"paint\.png has been edited since .*frames was begun"):
        render()
    paint(scene.parent, 200)
    render()
