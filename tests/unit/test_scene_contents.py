"""What a scene is made of, and what becomes of what was made of it before it was edited."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt import provenance, references
from mitsuba_gdpt.batch import Batch, SceneChoice, expand
from mitsuba_gdpt.data import origins
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.evaluation.cells import Cells
from mitsuba_gdpt.evaluation.settings import Settings
from mitsuba_gdpt.evaluation.shots import find_shots
from mitsuba_gdpt.evaluation.store import Store
from mitsuba_gdpt.rendering.sequence_folder import Plan
from mitsuba_gdpt.scenes import SceneRef
from mitsuba_gdpt.scenes.contents import Contents

MAIN = """<scene version="3.0.0">
  <default name="kind" value="oak"/><default name="wood" value="$kind"/>
  <path value="lib"/>
  <include filename="parts/all.xml"/>
  <emitter type="envmap"><string name="filename" value="sky.exr"/></emitter>
  <bsdf type="roughconductor"><spectrum name="eta" filename="gold.spd"/>
    <string name="distribution" value="beckmann"/></bsdf>
</scene>"""
PART = """<scene version="3.0.0">
  <include filename="more.xml"/>
  <shape type="ply"><string name="filename" value="far.ply"/></shape>
  <texture type="bitmap"><string name="filename" value="$wood.png"/></texture>
</scene>"""
MORE = '<scene version="3.0.0"><volume><string name="filename" value="fog.vol"/></volume></scene>'
#: Names in the XML to where the files are.
OTHERS = {
    "parts/all.xml": "parts/all.xml",
    "more.xml": "parts/more.xml",
    "far.ply": "lib/far.ply",
    "oak.png": "oak.png",
    "fog.vol": "fog.vol",
    "sky.exr": "sky.exr",
    "gold.spd": "gold.spd",
}


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    folder = tmp_path / "room"
    for place in [*OTHERS.values(), "elm.png", "beckmann/x", "unused.png"]:
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(place)
    (folder / "parts/all.xml").write_text(PART)
    (folder / "parts/more.xml").write_text(MORE)
    path = folder / "scene.xml"
    path.write_text(MAIN)
    return path


def contents(scene: Path, **parameters: str) -> Contents:
    return SceneRef.parse(scene).contents(parameters)


def test_all_files_are_found(scene: Path) -> None:
    assert contents(scene).others.keys() == OTHERS.keys()
    assert contents(scene, wood="elm").others.keys() == {*OTHERS} - {"oak.png"} | {"elm.png"}


@pytest.mark.parametrize("name", ["scene.xml", *OTHERS])
def test_an_edited_file_is_named(scene: Path, name: str) -> None:
    before = contents(scene)
    path = scene.parent / OTHERS.get(name, name)
    path.write_text(path.read_text().replace("o", "0", 1) + " ")
    now = contents(scene)
    assert now.key != before.key
    for stored in (before.as_dict(), before.words(), json.loads(json.dumps(before.as_dict()))):
        assert name in now.changed(stored)
    with pytest.raises(ConfigError, match=f"{name}.* ha(s|ve) been edited since then; begin anew"):
        now.require(before.words(), "then", "begin anew")


def test_lost_and_new_files_are_named(scene: Path) -> None:
    before = contents(scene)
    (scene.parent / "sky.exr").unlink()
    assert contents(scene).changed(before.words()) == ["sky.exr"]
    assert before.changed(contents(scene).words()) == ["sky.exr"]
    assert contents(scene).changed(contents(scene).words()) == []


def test_files_that_are_not_its_own_do_not_count(scene: Path) -> None:
    before = contents(scene)
    (scene.parent / "unused.png").write_text("edited")
    assert contents(scene) == before
    moved = scene.parent.rename(scene.parents[1] / "elsewhere")
    assert contents(moved / "scene.xml") == before


def test_what_older_versions_stored(scene: Path) -> None:
    """They hashed the XML alone: the rest cannot be told, and is accepted."""
    before = {"scene_hash": contents(scene).own[:16]}
    (scene.parent / "sky.exr").write_text("edited")
    assert contents(scene).changed(before) == []
    assert contents(scene).changed({}) == []
    assert contents(scene).changed({**before, "scene_files": "damaged"}) == []
    scene.write_text(MAIN + " ")
    assert contents(scene).changed(before) == ["scene.xml"]


def test_scenes_without_files(tmp_path: Path) -> None:
    nothing = SceneRef.parse("builtin:chess").contents()
    assert (nothing.key, nothing.words(), nothing.changed({"scene_hash": "x"})) == ("", {}, [])
    assert SceneRef.parse(tmp_path / "no.xml").contents().key == ""
    broken = tmp_path / "broken.xml"
    broken.write_text('<scene><string name="filename" value="broken.xml"/><<')
    assert SceneRef.parse(broken).contents().own == provenance.content(broken)


def test_blocks_of_a_variation(tmp_path: Path) -> None:
    mesh = tmp_path / "meshes/a.ply"
    mesh.parent.mkdir()
    mesh.write_text("one")
    reference, parameters = SceneRef.parse("builtin:chess@3"), {"blocks": str(tmp_path)}
    before = reference.contents(parameters)
    mesh.write_text("two")
    assert reference.contents(parameters).changed(before.words()) == ["a.ply"]


def test_circles_of_includes_end(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text('<scene><include filename="b.xml"/></scene>')
    (tmp_path / "b.xml").write_text('<scene><include filename="a.xml"/></scene>')
    assert contents(path).others.keys() == {"a.xml", "b.xml"}


def test_files_are_read_once(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_COARSEST_CLOCK", 0)  # they were written just now
    before, read = contents(scene), provenance._content.cache_info().misses
    assert contents(scene) == before
    assert provenance._content.cache_info().misses == read


def edited(scene: Path, key: Callable[[], object]) -> bool:
    """Tell whether a key changes with a texture."""
    before = key()
    assert key() == before
    (scene.parent / "oak.png").write_text("edited")
    return key() != before


def test_references_of_an_edited_scene_do_not_count(scene: Path) -> None:
    reference = SceneRef.parse(scene)
    own, image = provenance.digest(contents(scene).own, {}), np.ones((2, 2, 3), np.float32)
    place = scene.parent / references.FILE_NAME
    references.Halves(image, image, 12, 1, references.identity(reference)).save(place)
    assert references.stored_path(reference, 12) == place
    assert edited(scene, lambda: references.identity(reference))
    with pytest.warns(UserWarning, match=r"reference\.npz is left out.* \(files that it includes"):
        assert references.stored_path(reference, 12) is None
    references.Halves(image, image, 12, 1, own).save(place)  # of an older version
    assert references.stored_path(reference, 12) == place
    scene.write_text(MAIN + " ")
    with pytest.warns(UserWarning, match=r"reference\.npz is left out.* \(its XML or parameters"):
        assert references.stored_path(reference, 12) is None


def test_evaluations(scene: Path, tmp_path: Path) -> None:
    settings = Settings(scenes=(str(scene),), methods=(Call("none"),))
    (shot,) = find_shots(settings)
    assert edited(scene, lambda: Cells(shot, settings, Store(tmp_path)).view_key)


def test_batches(scene: Path, tmp_path: Path) -> None:
    batch = Batch(scenes=(SceneChoice(str(scene)),), output=tmp_path / "out")
    assert edited(scene, lambda: expand(batch, "llvm_ad_rgb")[0].render_key)


def test_sequences(scene: Path, tmp_path: Path) -> None:
    now = contents(scene)
    described = {"scene": "room", **now.words()}
    Plan(described, 1, "none", 0.0).write(tmp_path)
    assert Plan.read(tmp_path, described, now) is not None
    Plan({"scene": "room"}, 1, "none", 0.0).write(tmp_path)  # of an older version
    assert Plan.read(tmp_path, described, now) is not None
    Plan(described, 1, "none", 0.0).write(tmp_path)
    (scene.parent / "oak.png").write_text("edited")
    now = contents(scene)
    with pytest.raises(ConfigError, match=r"^oak\.png has been edited since .* was begun; give"):
        Plan.read(tmp_path, {"scene": "room", **now.words()}, now)


def test_sets(scene: Path) -> None:
    def agreed(known: object, begun: bool = True) -> dict[str, Any]:
        now = {"room": contents(scene), "chess": SceneRef.parse("builtin:chess").contents()}
        return origins.agreed(now, known, lambda name: begun, "set")

    before, kept = contents(scene), json.loads(json.dumps(agreed(None, begun=False)))
    assert kept == {"room": before.as_dict()}
    assert agreed(kept) == kept
    origins.require_now(before.key, str(scene), {})
    (scene.parent / "oak.png").write_text("edited")
    for unknown in (None, {}, {"room": 3}):  # of an older version, or damaged
        assert agreed(unknown) == {}
    with pytest.raises(ConfigError, match=r"oak\.png has been edited since set was begun with the"):
        agreed(kept)
    with pytest.raises(ConfigError, match="have been edited since this run was begun"):
        origins.require_now(before.key, str(scene), {})
    assert agreed(kept, begun=False) == {"room": contents(scene).as_dict()}
