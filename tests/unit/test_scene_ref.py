"""What people write for a scene."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mitsuba_gdpt.errors import ConfigError, FormatError, MissingScenesError
from mitsuba_gdpt.scenes import SceneRef, film
from mitsuba_gdpt.scenes.catalogue import Catalogue
from mitsuba_gdpt.scenes.places import ROOT_VARIABLE
from mitsuba_gdpt.scenes.reference import require_any

ENTRY = """split = "dev"
[scenes.hall]
source = "hall/scene.xml"
title = "T"
author = "A"
licence = "L"
exposure = 2
parameters = { depth = "3" }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a catalogue, its scene, and a scene of no catalogue."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(ENTRY)
    for name in ("hall/scene.xml", "room/lamp.xml"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("text", "catalogue", "target", "name"),
    [
        ("builtin:chess", "builtin", "chess", "chess"),
        ("dev:veach-mis", "dev", "veach-mis", "veach-mis"),
        ("mine.toml:hall", "mine.toml", "hall", "hall"),
        ("hall/scene.xml", None, "hall/scene.xml", "hall"),
        ("hall", None, "hall/scene.xml", "hall"),
        ("room/lamp.xml", None, "room/lamp.xml", "lamp"),
        ("./nowhere.xml", None, "nowhere.xml", "nowhere"),
        ("c:x.xml", None, "c:x.xml", "c:x"),
    ],
)
def test_parse(folder: Path, text: str, catalogue: str | None, target: str, name: str) -> None:
    reference = SceneRef.parse(text)
    assert reference == SceneRef(target, catalogue)
    assert reference.name == name
    assert SceneRef.parse(str(reference)) == reference


def test_a_scene_in_the_current_folder_has_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "hall")
    assert SceneRef.parse("scene.xml").name == "hall"
    assert SceneRef.parse(".").name == "hall"


def test_paths_relative_to_a_folder(folder: Path) -> None:
    assert SceneRef.parse("lamp.xml", folder / "room").file == folder / "room/lamp.xml"
    assert SceneRef.parse("hall", folder).file == folder / "hall/scene.xml"
    assert SceneRef.parse("mine.toml:hall", folder).file == folder / "hall/scene.xml"
    assert SceneRef.parse("builtin:chess", folder).file is None


def test_what_a_catalogue_knows(folder: Path) -> None:
    entry = SceneRef.parse("mine.toml:hall").entry()
    assert entry == Catalogue.open("mine.toml").scene("hall")
    assert entry.file == folder / "hall/scene.xml"
    assert entry.builtin is None
    assert SceneRef.parse("mine.toml:hall").parameters == {"depth": "3"}
    assert SceneRef.parse("hall").entry() is None
    assert SceneRef.parse("builtin:chess").parameters == {}


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("builtin:ches", ConfigError, "did you mean 'chess'"),
        ("mine.toml:hal", ConfigError, "did you mean 'hall'"),
        ("no.toml:hall", FormatError, "there is no such catalogue"),
        ("no.xml", FormatError, "the file no.xml does not exist"),
        ("chess", FormatError, "did you mean builtin:chess?"),
        ("dev:veach-mis", MissingScenesError, f"veach-mis/scene.xml. *{ROOT_VARIABLE}"),
    ],
)
def test_what_is_not_there(folder: Path, text: str, error: type[Exception], message: str) -> None:
    pattern = message if "*" in message else re.escape(message)
    with pytest.raises(error, match=pattern.replace(" *", ".*")):
        SceneRef.parse(text).check()


def test_one_error_for_all_that_is_missing(folder: Path) -> None:
    nothing = [SceneRef.parse(f"no/{i}.xml") for i in range(2000)]
    with pytest.raises(MissingScenesError) as caught:
        require_any(nothing)
    message = str(caught.value)
    assert message.startswith("missing scene files: no/0.xml, no/1.xml, no/2.xml and 1997 more.")
    assert ROOT_VARIABLE in message
    assert len(message) < 300
    require_any([*nothing, SceneRef.parse("hall")])
    require_any([*nothing, SceneRef.parse("builtin:chess")])
    require_any([])


def test_film() -> None:
    assert film(4, 3, crop_width=2)["crop_width"] == 2
    assert film(4, 3) == {
        "type": "hdrfilm",
        "width": 4,
        "height": 3,
        "rfilter": {"type": "box"},
        "pixel_format": "rgb",
        "component_format": "float32",
    }
