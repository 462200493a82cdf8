"""Scene catalogues: the file format and its errors, sampled cameras, fly-throughs."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt import scenes
from mitsuba_gdpt.errors import ConfigError, FormatError
from mitsuba_gdpt.scenes import Camera, CameraBox, Catalogue, CatalogueScene, KeyFrame
from mitsuba_gdpt.scenes.catalogue import (
    CAMERA_DIMENSIONS,
    require_unmeasured,
    shipped,
    to_toml,
)
from mitsuba_gdpt.scenes.flythrough import fly
from mitsuba_gdpt.scenes.places import ROOT_VARIABLE

FILE = """
split = "train"

[scenes.room]
source = "room/scene.xml"
title = "A room"
author = "Nobody"
licence = "CC0"
parameters = { resx = 64, glossy = true, tint = "red" }
max_depth = 8
exposure = 2
up = [0, 0, 1]
fov = [30, 60.5]
weight = 0.5
targets = [[0, 0, 0], [1, 2, 3]]
boxes = [{ min = [1, 1, 1], max = [2, 2, 2] }, { min = [3, 1, 1], max = [4, 2, 4] }]
fly_through = [
  { origin = [0, 0, 5], target = [1, 0, 5], up = [0, 0, 1], fov = 40 },
  { origin = [0, 4, 5], target = [1, 4, 5], up = [0, 0, 1], fov = 50 },
]

[scenes.bar]
source = "builtin:glass-bar"
title = "Glass bar"
author = "Us"
licence = "BSD-3-Clause"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    _make_scene(tmp_path)
    path = tmp_path / "my.toml"
    path.write_text(FILE)
    return path


def _make_scene(root: Path) -> None:
    (root / "room").mkdir(parents=True)
    (root / "room" / "scene.xml").touch()


def _scene(**changes: Any) -> CatalogueScene:
    values = {
        "name": "x",
        "source": "builtin:chess",
        "title": "X",
        "author": "A",
        "licence": "CC0",
        "boxes": (CameraBox((0, 0, 0), (1, 1, 1)), CameraBox((2, 0, 0), (3, 3, 1))),
        "targets": ((5.0, 5.0, 5.0), (-5.0, 0.0, 1.0)),
    }
    return CatalogueScene(**(values | changes))


def _points(count: int) -> np.ndarray[Any, Any]:
    """A Latin hypercube."""
    rng = np.random.default_rng(3)
    strata = [rng.permutation(count) for _ in range(CAMERA_DIMENSIONS)]
    return (np.stack(strata, axis=1) + rng.random((count, CAMERA_DIMENSIONS))) / count


# --- The file


def test_file_is_read(file: Path) -> None:
    catalogue = Catalogue.open(file)
    assert [s.name for s in catalogue.scenes] == ["room", "bar"]
    room = catalogue.scene("room")
    assert room.source == str(file.parent / "room" / "scene.xml")
    assert room.parameters == {"resx": "64", "glossy": "true", "tint": "red"}
    assert (room.max_depth, room.exposure, room.up, room.fov) == (8, 2.0, (0, 0, 1), (30, 60.5))
    assert room.boxes[1] == CameraBox((3, 1, 1), (4, 2, 4))
    assert room.targets == ((0, 0, 0), (1, 2, 3))
    assert room.fly_through[1] == KeyFrame((0, 4, 5), (1, 4, 5), (0, 0, 1), 50)
    assert catalogue.scene("bar").source == "builtin:glass-bar"
    assert catalogue.shares() == {"room": pytest.approx(1 / 3), "bar": pytest.approx(2 / 3)}
    catalogue.require_training()


def test_written_scene_is_read_back(file: Path) -> None:
    room = dataclasses.replace(Catalogue.open(file).scene("room"), title='"q" \\ ü\n', max_roll=10)
    file.write_text(f'split = "train"\n{to_toml(room, source="room/scene.xml")}')
    assert Catalogue.open(file).scene("room") == room


def test_root_of_sources(
    file: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, environment = tmp_path_factory.mktemp("given"), tmp_path_factory.mktemp("environment")
    own = file.parent / "own"
    for root in (given, environment, own):
        _make_scene(root)
    file.write_text(f'root = "own"\n{FILE}')

    def source(**options: Any) -> Path:
        return Path(Catalogue.open(file, **options).scene("room").source).parents[1]

    assert source() == own
    monkeypatch.setenv(ROOT_VARIABLE, str(environment))
    assert source() == environment
    assert source(root=given) == given


def test_missing_scene_files_are_named(file: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(FormatError, match=rf"nowhere/room/scene\.xml.*{ROOT_VARIABLE}"):
        Catalogue.open(file, root=nowhere)
    assert len(Catalogue.open(file, root=nowhere, check_files=False).scenes) == 2


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('split = "train"', "", r"my\.toml: the key 'split' is missing"),
        ('split = "train"', 'split = "trian"', "split is 'trian'; expected one of train, dev"),
        ('split = "train"', 'split = "train"\nroots = "x"', "key 'roots'; did you mean 'root'"),
        ('split = "train"', 'split = "dev"', r"scene 'room': split is 'dev', so it must not have"),
        ("[scenes.room]", "[scenes.Room]", "a name consists of small letters"),
        ("max_depth", "max_dept", "'room': unknown key 'max_dept'; did you mean 'max_depth'"),
        ("max_depth = 8", "max_depth = 0", "max_depth is 0; expected at least 1, or -1"),
        ("max_depth = 8", "max_depth = 8.5", r"max_depth is 8\.5; expected a whole number"),
        ('title = "A room"', 'title = ""', "title is ''; expected a text"),
        ('author = "Nobody"', "", "the key 'author' is missing"),
        ("exposure = 2", "exposure = 0", "exposure is 0; expected a number above 0"),
        ("exposure = 2", "exposure = true", "exposure is True; expected a finite number"),
        ("weight = 0.5", "weight = nan", "weight is nan; expected a finite number"),
        ("up = [0, 0, 1]\nfov", "up = [0, 0]\nfov", r"up is \[0, 0\]; expected 3 numbers"),
        ("up = [0, 0, 1]\nfov", "up = [0, 0, 0]\nfov", "up is a zero vector"),
        ("[30, 60.5]", "[30]", r"fov is \[30\]; expected least and greatest"),
        ("[30, 60.5]", "[60, 30]", "expected 0 < least <= greatest < 180"),
        ("weight = 0.5", "max_roll = 200", "max_roll is 200.0; expected 0 to 180"),
        ("[[0, 0, 0], [1, 2, 3]]", "3", "targets is 3; expected a list of points"),
        ("[[0, 0, 0], [1, 2, 3]]", "[[1.5, 1.5, 1.5]]", "lies inside a camera box"),
        ("{ min = [1, 1, 1], max", "{ max", "boxes number 1: the key 'min' is missing"),
        ("min = [1, 1, 1]", "min = [1, 2, 1]", "boxes number 1: a camera box needs min < max"),
        ("{ min = [1, 1, 1], max", "{ low = 1, min = [1, 1, 1], max", "unknown key 'low'"),
        ("boxes = [{", "boxes = [3, {", "boxes number 1: expected a table, got 3"),
        ("fov = 40", "fov = 190", "key frame 1 has fov 190"),
        ("target = [1, 0, 5]", "target = [0, 0, 9]", "key frame 1 looks along its up vector"),
        ("resx = 64", "resx = [64]", "expected a number, a truth value or a text for 'resx'"),
        ("builtin:glass-bar", "builtin:glas-bar", "did you mean 'glass-bar'"),
        ('"BSD-3-Clause"', '"BSD"\nparameters = { a = 1 }', "built-in scenes take no parameters"),
    ],
)
def test_errors_say_where_and_what(file: Path, old: str, new: str, message: str) -> None:
    assert FILE.count(old) == 1
    file.write_text(FILE.replace(old, new))
    with pytest.raises(ConfigError, match=message) as error:
        Catalogue.open(file)
    assert str(file) in str(error.value)


def test_a_lone_key_frame_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least 2 key frames, got 1"):
        _scene(fly_through=(KeyFrame((0, 0, 0), (1, 0, 0)),))


def test_no_toml_and_no_file(file: Path) -> None:
    file.write_text("split = ")
    with pytest.raises(FormatError, match=r"my\.toml: cannot read this TOML file"):
        Catalogue.open(file)
    with pytest.raises(FormatError, match=r"no such catalogue; .* builtin, dev, train"):
        Catalogue.open(file.parent / "other.toml")
    file.write_text('split = "train"\nscenes = {}')
    with pytest.raises(ConfigError, match="expected at least one table"):
        Catalogue.open(file)
    file.write_text('split = "train"\nscenes = 3')
    with pytest.raises(ConfigError, match="scenes is 3; expected a table"):
        Catalogue.open(file)


def test_unknown_scene_gets_a_suggestion(file: Path) -> None:
    with pytest.raises(ConfigError, match="no scene 'rom'; did you mean 'room'"):
        Catalogue.open(file).scene("rom")


# --- Sampled cameras


def test_positions_are_uniform_in_the_boxes() -> None:
    scene = _scene()
    cameras = [scene.sample_camera(u) for u in _points(4000)]
    origins = np.array([camera.origin for camera in cameras])
    first = origins[:, 0] < 1.5
    assert first.mean() == pytest.approx(0.25, abs=1e-3), "boxes count by volume, stratified"
    for box, inside in ((scene.boxes[0], first), (scene.boxes[1], ~first)):
        assert (origins[inside] >= box.min).all()
        assert (origins[inside] <= box.max).all()
        relative = (origins[inside] - box.min) / np.subtract(box.max, box.min)
        np.testing.assert_allclose(relative.mean(axis=0), 0.5, atol=0.05)
        np.testing.assert_allclose(relative.std(axis=0), 1 / math.sqrt(12), atol=0.02)


def test_strata_survive() -> None:
    """With one box, n strata of a dimension of u are n strata of the position."""
    scene = _scene(boxes=(CameraBox((0, 0, 0), (1, 2, 4)),), fov=(30, 60))
    n = 64
    cameras = [scene.sample_camera(u) for u in _points(n)]
    unit = np.array([camera.origin for camera in cameras]) / (1, 2, 4)
    for axis in range(3):
        assert sorted((unit[:, axis] * n).astype(int)) == list(range(n))
    assert sorted(int((camera.fov - 30) / 30 * n) for camera in cameras) == list(range(n))
    targets = [camera.target for camera in cameras]
    assert targets.count(scene.targets[0]) == n // 2


def test_same_point_same_camera() -> None:
    u = _points(1)[0]
    assert _scene().sample_camera(u) == _scene().sample_camera(list(u))


def test_depth_of_field_follows_the_target() -> None:
    scene = _scene()
    relative = []
    for camera in (scene.sample_camera(u) for u in _points(4000)):
        assert camera.focus == pytest.approx(math.dist(camera.origin, camera.target))
        relative.append(camera.aperture / camera.focus)
    assert min(relative) >= 0
    # |N(0, σ²)|: mean σ √(2/π), mean square σ²
    assert np.mean(relative) == pytest.approx(0.005 * math.sqrt(2 / math.pi), rel=0.02)
    assert np.mean(np.square(relative)) == pytest.approx(0.005**2, rel=0.05)
    assert scene.sample_camera([np.nextafter(1, 0)] * CAMERA_DIMENSIONS).aperture < 0.04 * 10


def test_without_targets_directions_cover_the_sphere() -> None:
    scene = _scene(targets=())
    cameras = [scene.sample_camera(u) for u in _points(4000)]
    d = np.array([np.subtract(camera.target, camera.origin) for camera in cameras])
    np.testing.assert_allclose(np.linalg.norm(d, axis=1), 1)
    np.testing.assert_allclose(d.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose((d[:, :, None] * d[:, None]).mean(axis=0), np.eye(3) / 3, atol=0.03)
    assert all(camera.aperture == 0 for camera in cameras)


def test_roll_is_that_of_a_uniform_up_vector_or_limited() -> None:
    def roll(camera: Camera) -> float:
        d = np.subtract(camera.target, camera.origin) / math.dist(camera.target, camera.origin)
        up = np.array([0, 1, 0]) - d * d[1]
        assert d @ camera.up == pytest.approx(0, abs=1e-9)
        return math.degrees(math.atan2(np.cross(up, camera.up) @ d, up @ camera.up))

    rolls = np.sort([roll(_scene().sample_camera(u)) for u in _points(720)])
    np.testing.assert_allclose(rolls, np.arange(720) / 2 - 179.75, atol=0.5)
    limited = [roll(_scene(max_roll=15.0).sample_camera(u)) for u in _points(100)]
    assert 14 < max(map(abs, limited)) <= 15 + 1e-6


def test_looking_straight_along_up_is_fine() -> None:
    scene = _scene(targets=((0.5, 9.0, 0.5),), boxes=(CameraBox((0, 0, 0), (1, 1, 1)),))
    camera = scene.sample_camera([0.5] * CAMERA_DIMENSIONS)
    assert np.isfinite(camera.up).all()
    assert np.linalg.norm(camera.up) == pytest.approx(1)
    assert camera.up[1] == pytest.approx(0)


def test_sampling_refuses_nonsense() -> None:
    with pytest.raises(ConfigError, match=r"takes 8 numbers, got shape \(5,\)"):
        _scene().sample_camera([0.5] * 5)
    for bad in (1.0, -0.1, math.nan):
        with pytest.raises(ConfigError, match=r"numbers in \[0, 1\)"):
            _scene().sample_camera([0.5] * 7 + [bad])
    with pytest.raises(ConfigError, match=r"no camera boxes.*split is 'dev'"):
        _scene(split="dev", boxes=(), targets=()).sample_camera([0.5] * CAMERA_DIMENSIONS)


# --- Fly-throughs

FRAMES = (
    KeyFrame((0, 0, 0), (0, 0, -1), (0, 1, 0), 40),
    KeyFrame((1, 0, 0), (2, 0, -1), (0, 1, 0), 40),
    KeyFrame((2, 1, 0), (4, 0, -1), (0, 1, 0), 60),
)


def test_fly_through_meets_its_key_frames_smoothly() -> None:
    for i, frame in enumerate(FRAMES):
        camera = fly(FRAMES, i / 2)
        assert (camera.origin, camera.target, camera.up, camera.fov) == (
            frame.origin,
            frame.target,
            frame.up,
            frame.fov,
        )
    path = np.array([fly(FRAMES, t).origin for t in np.linspace(0, 1, 401)])
    speed = np.diff(path, axis=0) * 400
    assert np.abs(np.diff(speed, axis=0)).max() < 0.1, "no jump in velocity"
    assert np.linalg.norm(speed[0]) < 0.05, "starts at rest"
    assert np.linalg.norm(speed[-1]) < 0.05, "ends at rest"


def test_fly_through_errors() -> None:
    with pytest.raises(ConfigError, match="at least 2 key frames, got 1"):
        fly(FRAMES[:1], 0.0)
    with pytest.raises(ConfigError, match="from 0 to 1"):
        fly(FRAMES, 1.01)


# --- The catalogues of the package


def test_builtin_catalogue_has_every_builtin_scene() -> None:
    catalogue = Catalogue.builtin()
    assert {scene.name for scene in catalogue.scenes} == set(scenes.names())
    catalogue.require_training()
    for scene in catalogue.scenes:
        assert scene.source == f"builtin:{scene.name}"
        assert scene.title == scenes.describe(scene.name).title
        _check_training(scene)


def test_train_catalogue(shared_dir: Path) -> None:
    catalogue = Catalogue.open("train", root=shared_dir / "scenes")
    folders = {path.parent.name for path in (shared_dir / "scenes" / "train").glob("*/scene.xml")}
    assert {scene.name for scene in catalogue.scenes} == folders
    catalogue.require_training()
    for scene in catalogue.scenes:
        _check_training(scene)


def test_dev_catalogue(shared_dir: Path) -> None:
    catalogue = Catalogue.open("dev", root=shared_dir / "scenes")
    folders = {path.parent.name for path in (shared_dir / "scenes" / "dev").glob("*/scene.xml")}
    assert {scene.name for scene in catalogue.scenes} == folders
    for scene in catalogue.scenes:
        assert len(scene.fly_through) >= 3
        assert not scene.boxes
    with pytest.raises(ConfigError, match="must not be trained on"):
        catalogue.require_training()


def test_shipped_catalogues_are_complete() -> None:
    assert set(shipped()) == {"builtin", "dev", "train"}
    everything = [
        scene for name in shipped() for scene in Catalogue.open(name, check_files=False).scenes
    ]
    assert len({scene.name for scene in everything}) == len(everything)
    assert all(scene.author != "unknown" and scene.licence != "unknown" for scene in everything)


def _check_training(scene: CatalogueScene) -> None:
    assert scene.boxes, scene.name
    assert len(scene.targets) >= 3, scene.name
    assert len(scene.fly_through) >= 3, scene.name


def test_scenes_to_measure_on_are_not_trained_on() -> None:
    """Members of the released sets of NGPT, by their names there, and others of ``dev``."""
    for name in ("living-room", "living-room-3", "staircase2", "Living_Room"):
        with pytest.raises(
            ConfigError, match=rf"scene\(s\) {name} \(catalogue 'dev'\).* Leave it out"
        ):
            require_unmeasured(["kitchen", name], "Leave it out")
    require_unmeasured(["classroom", "staircase", "living-room-2"], "")
    for name in shipped():
        opened = Catalogue.open(name, check_files=False)
        if opened.split == "train":
            require_unmeasured((scene.name for scene in opened.scenes), "")
