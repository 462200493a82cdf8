"""Variations of built-in scenes: other materials, lights and objects; one seed is one scene."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import mitsuba as mi
import numpy as np
import pytest

from mitsuba_gdpt import rendering, scenes
from mitsuba_gdpt.errors import ConfigError, FormatError
from mitsuba_gdpt.scenes import Catalogue, cameras
from mitsuba_gdpt.scenes.geometry import box

NAME = "corner-gallery"


@pytest.fixture(autouse=True)
def _variant() -> None:
    rendering.set_variant(None)


def shown(node: Any) -> Any:
    """Return a scene dictionary as plain data: objects by their text, paths by their name."""
    if isinstance(node, dict):
        return {key: shown(value) for key, value in node.items()}
    if isinstance(node, str):
        return Path(node).name  # meshes are named by their content
    if isinstance(node, mi.Bitmap):
        return np.array(node).tobytes()
    return str(node)


def test_a_seed_is_a_scene() -> None:
    first, again, other, plain = (
        shown(scenes.as_dict(name, width=32))
        for name in (f"{NAME}@1", f"{NAME}@1", f"{NAME}@2", NAME)
    )
    assert first == again
    changed = [key for key in plain if first.get(key) != plain[key]]
    assert len(changed) >= 5
    assert [key for key in other if other[key] != first.get(key)]
    assert set(first) - set(plain)  # objects that were not there


def test_another_process_draws_the_same() -> None:
    code = (
        "from mitsuba_gdpt import rendering, scenes; rendering.set_variant(None); "
        "import numpy as np, mitsuba as mi; "
        f"print(repr(float(np.array(mi.render(scenes.load('{NAME}@3', width=16), spp=4)).sum())))"
    )
    sums = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(sums) == 1


@pytest.mark.parametrize("name", scenes.names())
def test_every_scene_can_be_varied(name: str) -> None:
    image = np.array(mi.render(scenes.load(f"{name}@5", width=24), spp=2))
    assert np.isfinite(image).all()
    assert image.max() > 0


def test_cameras_stay_in_the_open() -> None:
    """No camera box of a variation has an object in it: views see something at a distance."""
    for scene in Catalogue.builtin().chosen(("chess", "door-ajar")).varied(2).scenes:
        loaded = rendering.open_source(scene.source).scene
        for camera in cameras.sample_views(scene, 20, seed=3):
            sensor = scenes.make_sensor(camera, 8, 8)
            ray, _ = sensor.sample_ray_differential(0.0, 0.5, [0.5, 0.5], [0.5, 0.5])
            near = loaded.ray_intersect(mi.Ray3f(ray.o, ray.d))
            assert float(near.t[0]) > 0.01, (scene.name, camera)


def test_blocks_are_used(tmp_path: Path) -> None:
    (tmp_path / "meshes").mkdir()
    (tmp_path / "hdri").mkdir()
    (tmp_path / "meshes" / "cube.ply").write_bytes(box((0, 0, 0), (3, 1, 1)).to_ply())
    mi.Bitmap(np.ones((8, 16, 3), np.float32)).write(str(tmp_path / "hdri" / "even.exr"))
    catalogue = Catalogue.builtin().chosen(("pergola",)).varied(6, tmp_path)
    files = [
        str(part["filename"])
        for scene in catalogue.scenes
        for part in scenes.as_dict(
            scene.builtin, width=16, blocks=scene.parameters["blocks"]
        ).values()
        if isinstance(part, dict) and "filename" in part
    ]
    assert sum(file.endswith("cube.ply") for file in files) >= 3
    plain = shown(scenes.as_dict("pergola@1", width=16))
    assert plain != shown(scenes.as_dict("pergola@1", width=16, blocks=tmp_path))
    rendering.open_source("builtin:pergola@2", width=16, parameters={"blocks": str(tmp_path)})


def test_catalogues_of_variations() -> None:
    catalogue = Catalogue.builtin().chosen(("chess", NAME)).varied(3)
    assert [scene.name for scene in catalogue.scenes[:2]] == ["chess-v1", "chess-v2"]
    assert len(catalogue.scenes) == 6
    scene = catalogue.scene(f"{NAME}-v3")
    assert scene.builtin == f"{NAME}@3"
    assert scene.file is None
    assert scene.boxes == Catalogue.builtin().scene(NAME).boxes
    assert scenes.describe(f"{NAME}@3").name == f"{NAME}@3"


def test_what_is_no_variation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="NAME@SEED with a whole number"):
        scenes.as_dict(f"{NAME}@red")
    with pytest.raises(ConfigError, match="no built-in scene 'corner'"):
        scenes.as_dict("corner@1")
    with pytest.raises(ConfigError, match=f"expected {NAME}@SEED"):
        scenes.as_dict(NAME, blocks=tmp_path)
    with pytest.raises(FormatError, match="no meshes"):
        scenes.as_dict(f"{NAME}@1", blocks=tmp_path)
    with pytest.raises(FormatError, match="no meshes"):
        Catalogue.builtin().varied(1, tmp_path)
    with pytest.raises(ConfigError, match="take no parameters"):
        rendering.open_source(f"builtin:{NAME}", parameters={"blocks": str(tmp_path)})
    with pytest.raises(ConfigError, match="made of built-in scenes"):
        Catalogue.open("train", check_files=False).varied(1)
    with pytest.raises(ConfigError, match="made of built-in scenes"):
        Catalogue.builtin().varied(1).varied(1)
