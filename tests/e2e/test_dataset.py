"""``mitsuba-gdpt dataset``: crop sets, frame sets and imports on the command line."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mitsuba_gdpt import rendering
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.cli import main
from mitsuba_gdpt.data import (
    CropDataset,
    CropSet,
    FrameSet,
    darc_import,
    frames,
    import_darc,
    units,
)
from mitsuba_gdpt.scenes.catalogue import Catalogue
from tests import darcs, kills
from tests.crops import XML, content
from tests.kills import DRIVER, WORKER

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
FLIGHT = """fly_through = [
  { origin = [-0.2, 0.0, 4.0], target = [0.0, 0.0, 0.0], fov = 40 },
  { origin = [0.3, 0.1, 3.5], target = [0.0, 0.0, 0.0], fov = 40 },
]"""
SMALL = [
    *("--crops", "2", "--size", "16", "--spp-levels", "2", "--max-spp", "8"),
    *("--reference-spp", "8", "--scenes", "squares"),
]


FRAMES = [
    *("--frames", "2", "--width", "16", "--height", "16", "--noisy", "2", "--target-spp", "4"),
    *("--scenes", "squares"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "squares.xml").write_text(XML)
    (tmp_path / "broken.xml").write_text("<scene")
    views = f"{VIEWS}\n{FLIGHT}"
    (tmp_path / "scenes.toml").write_text(CATALOGUE.format(split="train", views=views))
    (tmp_path / "dev.toml").write_text(CATALOGUE.format(split="dev", views=FLIGHT))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    units._open.clear()
    frames._open.cache_clear()
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
    there = content(path)
    (path / "squares/faults/c/0/0").unlink()  # as if it had been killed; a worker does it again
    code, out, err = run(capsys, "dataset", "crops", catalogue, "-o", path, *SMALL, "--workers", 1)
    assert code == 0, err
    assert "shards: 1 rendered" in out
    assert content(path) == there

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


ROOT = Path(__file__).parents[2]


def command(folder: Path, path: Path, *words: object) -> list[str]:
    """Return the command that renders a crop set as a process of its own."""
    first = [sys.executable, "-m", "mitsuba_gdpt", "dataset", "crops", folder / "scenes.toml"]
    return [str(word) for word in (*first, "-o", path, *SMALL, *words)]


@pytest.mark.slow
def test_workers_and_driver_killed_while_rendering(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What test_crop_store.py does with made-up crops in less time."""
    victims = [WORKER, WORKER, DRIVER] * 4
    path, undisturbed = folder / "set.zarr", folder / "full.zarr"
    count = ("--crops", 60)
    code, _, err = run(
        capsys, "dataset", "crops", folder / "scenes.toml", "-o", undisturbed, *SMALL, *count
    )
    assert code == 0, err

    def start() -> subprocess.Popen[str]:
        words = command(folder, path, *count, "--workers", 2, "--threads", 1)
        pipe = subprocess.PIPE
        return subprocess.Popen(words, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)

    caught = kills.disturb(start, path, undisturbed, victims, len(victims))
    with start() as last:
        out, err = last.communicate(timeout=120)
    assert last.returncode == 0, err
    assert f"{count[1]} of {count[1]} crops of 1 scene(s)" in out
    assert content(path) == content(undisturbed)
    assert caught >= len(victims) // 2


def test_full_disk(folder: Path) -> None:
    """On a file system of 160 KiB that only the command sees; it is full after some shards."""
    small = folder / "small"
    small.mkdir()
    alone = ["unshare", "--map-root-user", "--mount", "sh", "-ec"]
    mount = f"mount -t tmpfs -o size=160k none {small}"
    if not shutil.which("unshare") or subprocess.run([*alone, mount], check=False).returncode:
        pytest.skip("no file system may be mounted here")
    path, copy = small / "set.zarr", folder / "copy.zarr"
    render = shlex.join(command(folder, path, "--crops", 15))
    script = f"{mount}; {render} || echo exit $?; cp -r {path} {copy}"
    done = subprocess.run([*alone, script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "exit 1" in done.stdout
    error = done.stderr.splitlines()[-1]
    assert re.match(r"error: \d+ shard\(s\) failed: squares-\d{4}", error), error
    assert "No space left on device. What was written before is kept; make room and run" in error
    finished = len(CropSet.open(copy))
    assert 0 < finished < 15
    done = subprocess.run(
        command(folder, copy, "--crops", 15), cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert f"{finished // 5} were there, 0 failed" in done.stdout
    crop_set = CropSet.open(copy)
    assert len(crop_set) == 15
    assert all(crop_set[i].noisy.isfinite().all() for i in range(15))


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
        (("-o", "a.zarr", "--workers", "0", "--threads", "2"), "--workers 0 means this process"),
        (("-o", "a.zarr", "--slurm", "no.toml"), "options no.toml does not exist"),
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
    path = folder / "a.zarr"
    code, _, err = run(capsys, "dataset", "crops", folder / "dev.toml", "-o", path)
    assert code == 2
    assert "not for training: squares (dev), broken (dev)" in err
    assert not path.exists()


def test_sheet_of_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "dataset", "sheet", folder / "no.zarr", "-o", folder / "a.png")
    assert code == 2
    assert "no crop set" in err


# ------------------------------------------------------------------------------------ frame sets


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def frame_files(scene: str, count: int = 2) -> list[str]:
    names = (".checksums.json", "noisy-0.exr", "noisy-1.exr", "target.exr")
    return [f"{scene}/frame-{i:04d}/{name}" for i in range(count) for name in names]


def test_frames_and_rerun(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder / "new" / "frames"
    words = ("dataset", "frames", folder / "scenes.toml", "-o", root, *FRAMES)
    code, out, err = run(capsys, *words)
    assert code == 0, err
    assert "2 of 2 frames of 1 scene(s), 2 rendered in" in out
    assert files(root) == ["frames.json", *frame_files("train/squares")]
    first, second = FrameSet.open(root).sequence("train", "squares")
    target = second.target()
    assert target.data.shape[:2] == (16, 16)
    assert target.metadata["spp"] == "4"
    assert target.motion.abs().max() > 0.1
    assert not first.target().motion.any()
    there = content(root)

    def no_render(*_: object, **__: object) -> None:
        raise AssertionError("nothing was to be rendered")

    with monkeypatch.context() as patch:
        patch.setattr(rendering, "render", no_render)
        code, out, err = run(capsys, *words)
    assert code == 0, err
    assert "2 of 2 frames of 1 scene(s), 0 rendered in 0 s, 2 were there, 0 failed" in out
    assert content(root) == there
    (root / "train/squares/frame-0001/noisy-1.exr").unlink()
    # A worker sets the same variant, and makes the same file.
    code, out, err = run(capsys, *words, "--workers", 1)
    assert code == 0, err
    assert "1 rendered" in out
    assert content(root) == there

    code, _, err = run(capsys, *words, "--spp", 2)
    assert code == 2
    assert "differs in spp (1, now 2)" in err


def test_frames_for_measuring_go_to_test(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder / "frames"
    words = ("dataset", "frames", folder / "dev.toml", "-o", root, *FRAMES, "--still")
    code, _, err = run(capsys, *words, "--split", "train")
    assert code == 2
    assert "not for training: squares (dev)" in err
    assert not root.exists()
    code, _, err = run(capsys, *words)
    assert code == 0, err
    assert files(root) == ["frames.json", *frame_files("test/squares")]
    first, second = FrameSet.open(root).sequence("test", "squares")
    assert torch.equal(first.target().data, second.target().data)  # a camera at rest
    assert not torch.equal(first.noisy(0).primal, second.noisy(0).primal)


def test_part_of_a_flight_with_denoised_targets(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mitsuba_oidn")
    root = folder / "part"
    words = ("dataset", "frames", folder / "scenes.toml", "-o", root, *FRAMES)
    code, _, err = run(capsys, *words, "--span", "0.5", "0.25")
    assert (code, root.exists()) == (2, False)
    assert "expected 0 <= start < stop <= 1" in err
    code, _, err = run(capsys, *words, "--span", "0.25", "0.5", "--targets", "denoised")
    assert code == 0, err
    (sequence,) = json.loads((root / "frames.json").read_text())["plan"]["sequences"]
    scene = Catalogue.open(folder / "scenes.toml").scene("squares")
    origins = [list(scene.fly(time).origin) for time in (0.25, 0.5)]
    assert [camera["origin"] for camera in sequence["cameras"]] == origins
    frame = FrameSet.open(root).sequence("train", "squares")[0]
    assert frame.target().metadata["method"] == "oidn"


def test_failed_frames_are_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folder / "frames"
    words = (*FRAMES[:-1], "broken,squares")
    code, out, err = run(capsys, "dataset", "frames", folder / "scenes.toml", "-o", root, *words)
    assert code == 1
    assert "2 of 4 frames of 2 scene(s)" in out
    assert "error: 2 frame(s) failed: train-broken-0000 and 1 more: cannot load the scene" in err
    assert files(root / "train") == frame_files("squares")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "scenes.toml"), "it is not a folder"),
        (("-o", "a", "--frames", "1"), "expected 2 or more"),
        (("-o", "a", "--split", "dev"), "expected one of: train, test"),
        (("-o", "a", "--scenes", "sqares"), "did you mean 'squares'?"),
        (("-o", "a", "--scheduler", "127.0.0.1:9"), "expected one like tcp://host:8786"),
        (("-o", "a", "--workers", "0", "--threads", "2"), "--workers 0 means this process"),
    ],
)
def test_bad_input_of_frames(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    code, _, err = run(capsys, "dataset", "frames", "scenes.toml", *words)
    assert code == 2, err
    assert message in err
    assert not Path("a").exists()


def test_frames_need_key_frames(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalogue = folder / "boxes.toml"
    catalogue.write_text(CATALOGUE.format(split="train", views=VIEWS))
    code, _, err = run(capsys, "dataset", "frames", catalogue, "-o", folder / "a")
    assert code == 2
    assert "scene 'squares' has no fly-through; add key frames" in err


# --------------------------------------------------------------------------------- imported sets


def write_darc(path: Path, count: int, seed: int, **sizes: int) -> list[np.ndarray]:
    arrays = darcs.crops(count, **{"levels": 3, "height": 8, "width": 8} | sizes)
    variances = [place for name, place in darcs.PLACES.items() if name.endswith(".var")]
    for array in arrays:
        array *= np.float16(seed)
        array[..., variances] = np.abs(array[..., variances])
    darcs.write(path, arrays, (1, 8, 8, 3))
    return arrays


def test_import_darc(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kitchen, hall = folder / "train-kitchen-7-3.darc", folder / "train-long-hall-2-3.darc"
    arrays = {"kitchen": write_darc(kitchen, 7, 1), "long-hall": write_darc(hall, 2, 2)}
    fireflies = arrays["long-hall"][1]
    fireflies[0, 2, 3, darcs.PLACES["primal"] + 1] = np.inf
    fireflies[1, 3, 3, darcs.PLACES["dx"]] = -np.inf
    fireflies[2, 4, 5, darcs.PLACES["dx.var"]] = np.inf
    fireflies[-1, 0, 0, 2] = np.inf
    darcs.write(hall, arrays["long-hall"], (2, 3, 5, 7))
    path = folder / "set.zarr"
    measured = folder / "train-living-room-2-3.darc"
    write_darc(measured, 2, 3)
    code, _, err = run(capsys, "dataset", "import-darc", measured, "-o", path)
    assert code == 2
    assert "measured on the scene(s) living-room (catalogue 'dev')" in err
    assert not path.exists()
    other = folder / "measured.zarr"
    assert run(capsys, "dataset", "import-darc", measured, "-o", other, "--measured-scenes")[0] == 0
    words = ("dataset", "import-darc", kitchen, hall, "-o", path)
    code, out, err = run(capsys, *words)
    assert code == 0, err
    assert "9 of 9 crops of 2 scene(s), shards: 3 imported in" in out
    assert "4 clamped, 0 nonfinite samples" in out

    crop_set = CropSet.open(path)
    assert crop_set.layout == Layout.make(features=("diffuse", "specular"), variances=True)
    assert [crop_set.where(i) for i in (0, 6, 7)] == [
        ("kitchen", 0),
        ("kitchen", 6),
        ("long-hall", 0),
    ]
    for position in range(9):
        crop = crop_set[position]
        original = arrays[crop.scene][crop.index].astype(np.float32)
        original = np.clip(original, -65504, 65504)
        assert crop.spp.tolist() == [0, 0, 0]
        assert not crop.target_variance.any()
        assert np.array_equal(crop.targets, original[None, -1, ..., :3])
        for name, where in crop.layout.slices.items():
            first = darcs.PLACES[name]
            expected = original[:-1, ..., first : first + where.stop - where.start]
            tolerance = 2e-3 if name.endswith(".var") else 0  # stored as deviations
            np.testing.assert_allclose(crop.noisy[..., where], expected, rtol=tolerance)
    assert len(CropDataset(path)) == 27
    code, _, err = run(capsys, "dataset", "sheet", path, "-o", folder / "sheet.png", "--count", 1)
    assert code == 0, err
    assert Image.open(folder / "sheet.png").width > 3 * 192

    there = content(path)

    def no_run(unit: darc_import.DarcUnit) -> None:
        raise AssertionError("nothing was to be imported")

    with monkeypatch.context() as patch:
        patch.setattr(darc_import.DarcUnit, "run", no_run)
        code, out, err = run(capsys, *words)
    assert code == 0, err
    assert re.search(r"0 imported in \d+ s, 3 were there, 0 failed", out)
    assert content(path) == there
    (path / "kitchen/faults/c/0/0").unlink()  # as if it had been killed in the first shard
    assert "1 imported" in run(capsys, *words)[1]
    assert content(path) == there

    code, _, err = run(capsys, *words[:3], "-o", path)
    assert code == 2
    assert "another plan: scene long-hall differ" in err


def test_import_holds_one_shard(folder: Path) -> None:
    def peak(count: int) -> int:
        file = folder / f"train-a-{count}-3.darc"
        write_darc(file, count, 1, height=32, width=32)
        tracemalloc.start()
        summary = import_darc([file], folder / f"{count}.zarr", crops_per_shard=2)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert summary.done == count // 2
        return most

    peak(2)  # imports packages
    assert peak(24) < 1.5 * peak(4)


def test_darc_with_a_nan(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = write_darc(folder / "train-a-7-3.darc", 7, 1)
    arrays[1][0, 2, 3, darcs.PLACES["depth"]] = np.nan
    darcs.write(folder / "train-a-7-3.darc", arrays, (1, 8, 8, 3))
    path = folder / "set.zarr"
    words = ("dataset", "import-darc", folder / "train-a-7-3.darc", "-o", path)
    code, out, err = run(capsys, *words)
    assert code == 1
    assert "2 of 7 crops" in out
    assert "a-0000: " in err
    assert "crop 1: 1 of 5760 values are NaN" in err
    assert "1 in depth" in err
    assert json.loads((path / "zarr.json").read_text())["attributes"]["plan"]["imported"] == "darc"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["kitchen.darc"], "rename it"),
        (["train-a-1-3.darc", "more-a-1-3.darc"], "both of the scene 'a'"),
        (["train-a-1-3.darc", "wide-b-1-3.darc"], "have one shape, got several"),
        (["wide-b-1-3.darc"], "has 12 x 8 pixels; expected square crops"),
        (["empty-c-0-3.darc"], "holds no crops"),
        (["missing-a-1-3.darc"], "No such file"),
    ],
)
def test_bad_darc_files(
    folder: Path, capsys: pytest.CaptureFixture[str], names: list[str], message: str
) -> None:
    for name in ("kitchen.darc", "train-a-1-3.darc", "more-a-1-3.darc"):
        write_darc(folder / name, 1, 1)
    write_darc(folder / "wide-b-1-3.darc", 1, 1, width=12)
    write_darc(folder / "empty-c-0-3.darc", 0, 1)
    paths = [folder / name for name in names]
    code, _, err = run(capsys, "dataset", "import-darc", *paths, "-o", folder / "a.zarr")
    assert code == 2, err
    assert message in err
    assert not (folder / "a.zarr").exists()
