"""``mitsuba-gdpt dataset``: rendering crop sets on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mitsuba_gdpt.cli import main
from mitsuba_gdpt.data import CropSet, units
from tests.crops import XML

CATALOGUE = """
split = "{split}"
[scenes.squares]
source = "squares.xml"
title = "Squares"
author = "nobody"
licence = "CC0"
exposure = 2.0
max_depth = 2
{views}
[scenes.broken]
source = "broken.xml"
title = "Broken"
author = "nobody"
licence = "CC0"
{views}
"""
VIEWS = "boxes = [{ min = [-0.5, -0.5, 3.0], max = [0.5, 0.5, 4.0] }]\ntargets = [[0, 0, 0]]"
SMALL = [
    *("--crops", "2", "--size", "16", "--spp-levels", "2", "--max-spp", "8"),
    *("--reference-spp", "8", "--scenes", "squares"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "squares.xml").write_text(XML)
    (tmp_path / "broken.xml").write_text("<scene")
    (tmp_path / "scenes.toml").write_text(CATALOGUE.format(split="train", views=VIEWS))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    units._open.clear()
    output = capsys.readouterr()
    return int(stop.value.code or 0), output.out, output.err


def test_render_resume_and_look(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, catalogue = folder / "set.zarr", folder / "scenes.toml"
    code, out, err = run(capsys, "dataset", "crops", catalogue, "-o", path, *SMALL)
    assert code == 0, err
    assert "2 of 2 crops of 1 scene(s), shards: 1 rendered" in out
    assert "0 clamped, 0 nonfinite samples" in out
    code, out, err = run(capsys, "dataset", "crops", catalogue, "-o", path, *SMALL)
    assert code == 0, err
    assert "1 were there, 0 failed" in out

    crop = CropSet.open(path)[1]
    assert (crop.exposure, crop.noisy.shape) == (2.0, (2, 16, 16, 30))
    sheet = folder / "sheet.png"
    code, out, err = run(capsys, "dataset", "sheet", path, "-o", sheet)
    assert code == 0, err
    assert Image.open(sheet).width > 6 * 192

    code, _, err = run(capsys, "dataset", "crops", catalogue, "-o", path, *SMALL, "--seed", 1)
    assert code == 2
    assert "another plan: seed differ" in err


def test_failed_scenes_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (*SMALL[:-1], "broken,squares")
    path = folder / "set.zarr"
    code, out, err = run(capsys, "dataset", "crops", folder / "scenes.toml", "-o", path, *words)
    assert code == 1
    assert "2 of 4 crops of 2 scene(s)" in out
    assert "error: 1 shard(s) failed: broken-0000: cannot load the scene" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "set.zip"), "should end in .zarr"),
        (("-o", "nowhere/set.zarr"), "folder nowhere does not exist"),
        (("-o", "scenes.zarr"), "it is no folder"),
        (("-o", "a.zarr", "--target", "soap"), "'soap'; expected one of halves"),
        (("-o", "a.zarr", "--scenes", "sqares"), "did you mean 'squares'?"),
        (("-o", "a.zarr", "--max-spp", "2"), "--max-spp"),
        (("-o", "a.zarr", "--variant", "scalar_rgb"), "does not support"),
    ],
)
def test_bad_input(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    Path("scenes.zarr").write_text("no folder")
    code, _, err = run(capsys, "dataset", "crops", "scenes.toml", *words)
    assert code == 2, err
    assert message in err
    assert not Path("a.zarr").exists()


def test_scenes_for_measuring_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "dev.toml").write_text(CATALOGUE.format(split="dev", views=""))
    path = folder / "a.zarr"
    code, _, err = run(capsys, "dataset", "crops", folder / "dev.toml", "-o", path)
    assert code == 2
    assert "not for training: squares (dev), broken (dev)" in err
    assert not path.exists()


def test_sheet_of_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "dataset", "sheet", folder / "no.zarr", "-o", folder / "a.png")
    assert code == 2
    assert "no crop set" in err
