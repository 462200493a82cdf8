"""Which sequences an evaluation looks at."""

from __future__ import annotations

from pathlib import Path

import pytest

from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import ConfigError, FormatError
from mitsuba_gdpt.evaluation import Settings
from mitsuba_gdpt.evaluation.shots import find_shots
from mitsuba_gdpt.evaluation.units import frame_seed
from mitsuba_gdpt.rendering.fly_through import find_scenes
from mitsuba_gdpt.scenes.catalogue import Catalogue

SCENE = """
[scenes.{name}]
source = "{name}/scene.xml"
title = "T"
author = "A"
licence = "L"
exposure = 2
"""
FLY = """
fly_through = [
  {{ origin = [0, 1, 3], target = [0, 1, 0], fov = 50 }},
  {{ origin = [{x}, 1, 3], target = [0, 1, 0], fov = 50 }},
]
"""


def settings(*scenes: str, **changes: object) -> Settings:
    values: dict[str, object] = {"methods": (Call("none"),), "frames": 5, **changes}
    return Settings(scenes=scenes, **values)  # type: ignore[arg-type]


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """Two scenes with a fly-through and one without; none of the scene files exists."""
    text = 'split = "test"\n'
    text += SCENE.format(name="hall") + FLY.format(x=2)
    text += SCENE.format(name="bare")
    text += SCENE.format(name="yard") + FLY.format(x=4)
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_a_catalogue_means_all_its_fly_throughs(catalogue: Path) -> None:
    assert [scene.name for scene in find_scenes(str(catalogue))] == ["hall", "yard"]
    assert len(find_scenes("builtin")) == sum(
        bool(scene.fly_through) for scene in Catalogue.builtin().scenes
    )


def test_one_scene_of_a_catalogue(catalogue: Path) -> None:
    assert [scene.source for scene in find_scenes("builtin:chess")] == ["builtin:chess"]
    (scene,) = find_scenes(f"{catalogue}:yard")
    assert scene.fly_through[1].origin[0] == 4


def test_a_scene_file_or_folder_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Catalogue.open("dev", check_files=False, root=tmp_path).scenes[0]
    monkeypatch.setenv("MITSUBA_GDPT_SCENES", str(tmp_path))
    file = Path(known.source)
    file.parent.mkdir(parents=True)
    file.touch()
    assert [scene.name for scene in find_scenes(str(file))] == [known.name]
    if file.name == "scene.xml":
        assert [scene.name for scene in find_scenes(str(file.parent))] == [known.name]
    with pytest.raises(ConfigError, match=r"no fly-through is known for 'other\.xml'"):
        find_scenes("other.xml")


def test_shots_are_named_and_the_camera_at_rest_is_the_middle_one(catalogue: Path) -> None:
    shots = find_shots(settings(str(catalogue), static=True))
    assert [shot.name for shot in shots] == ["hall-fly", "hall-static", "yard-fly", "yard-static"]
    fly, still = shots[:2]
    assert [camera.origin[0] for camera in fly.cameras][::4] == [0.0, 2.0]
    assert set(still.cameras) == {fly.cameras[2]} == {fly.middle}
    assert still.middle == fly.middle, "both are timed on one camera"
    assert len(still.cameras) == 5
    assert fly.exposure == 2
    assert [shot.name for shot in find_shots(settings(str(catalogue)))] == ["hall-fly", "yard-fly"]


def test_a_still_is_a_sequence_of_one(catalogue: Path) -> None:
    words = ("builtin:chess", f"{catalogue}:yard", "rooms/attic/scene.xml", "cellar.xml")
    shots = find_shots(settings(*words, frames=1))
    assert [shot.name for shot in shots] == ["chess", "yard", "attic", "cellar"]
    assert all(shot.is_still and not shot.static for shot in shots)
    assert [shot.exposure for shot in shots] == [1, 2, 1, 1]
    with pytest.raises(ConfigError, match="two scenes are named attic"):
        find_shots(settings("a/attic.xml", "b/attic.xml", frames=1))


def test_what_makes_no_sense_is_refused(catalogue: Path) -> None:
    with pytest.raises(ConfigError, match="has no fly-through"):
        find_shots(settings(f"{catalogue}:bare"))
    with pytest.raises(ConfigError, match="two scenes are named hall"):
        find_shots(settings(str(catalogue), f"{catalogue}:hall"))
    with pytest.raises(FormatError, match="there is no such catalogue"):
        find_shots(settings("nowhere.toml"))
    with pytest.raises(ConfigError, match="frames is 1, of a camera at rest"):
        settings("builtin", frames=1, static=True)
    with pytest.raises(ConfigError, match="frames is 0; expected at least 1"):
        settings("builtin", frames=0)
    with pytest.raises(ConfigError, match="span is nan"):
        settings("builtin", span=(0.0, float("nan")))
    with pytest.raises(ConfigError, match="unknown metric 'wobble'"):
        settings("builtin", metrics=("wobble",))
    with pytest.raises(ConfigError, match=r"flicker: of sequences only.*--sequence"):
        Settings(scenes=("a.xml",), methods=(Call("none"),), metrics=("relmse", "flicker"))


def test_variance_over_time_is_for_cameras_at_rest() -> None:
    chosen = settings("builtin", metrics=("relmse", "flicker", "static-variance"))
    assert chosen.metrics_of(static=False) == ("relmse", "flicker")
    assert chosen.metrics_of(static=True) == ("relmse", "flicker", "static-variance")


def test_seeds_of_frames_are_distinct_and_leave_room_for_a_second_half() -> None:
    seeds = [frame_seed(seed, frame) for seed in range(20) for frame in range(300)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= 0
    assert max(seeds) < 2**31
