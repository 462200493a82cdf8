"""Frame sets: rendered, killed and finished, read back by name; sets of other tools."""

from __future__ import annotations

import itertools
import json
import math
import os
import pickle
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
import torch

from mitsuba_gdpt import exr
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.data import frame_set, frames
from mitsuba_gdpt.data.frame_plan import (
    CameraSequence,
    FramePlan,
    FrameSettings,
    fly_through,
    still,
)
from mitsuba_gdpt.data.frame_set import FrameSet, read_frame
from mitsuba_gdpt.data.frames import frame_units, render_frames
from mitsuba_gdpt.denoisers import denoise
from mitsuba_gdpt.errors import ConfigError, FormatError
from mitsuba_gdpt.motion import PinholeCamera, screen_motion
from mitsuba_gdpt.scenes import Camera, describe, make_sensor
from tests import kills

SETTINGS = FrameSettings(width=24, height=16, spp=1, noisy=2, target_spp=4, features=("roughness",))
SCENE = "corner-gallery"


def swing(time: float) -> Camera:
    """A camera on an arc around the target of the built-in view."""
    camera = describe(SCENE).camera
    x, y, z = camera.origin
    return replace(camera, origin=(x + 0.8 * math.sin(1.5 * time), y + 0.2 * time, z))


def plan(count: int = 3, **settings: Any) -> FramePlan:
    source = f"builtin:{SCENE}"
    return FramePlan(
        (
            CameraSequence("Gallery", "train", source, fly_through(swing, count), max_depth=3),
            CameraSequence("Still", "test", source, still(swing(0.5), 2), max_depth=3),
        ),
        replace(SETTINGS, **settings),
    )


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*.exr"))
        if not path.name.startswith(".")
    }


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("frames") / "set"


@pytest.fixture
def rendered(tmp_path: Path, original: Path, variant_llvm_rgb: str) -> Path:
    """A set of its own for each test, rendered once."""
    if not original.exists():
        assert not render_frames(plan(), original).failed
    return Path(shutil.copytree(original, tmp_path / "set"))


class TestRendering:
    def test_tree_and_reader(self, rendered: Path) -> None:
        frames_there = FrameSet.open(rendered)
        assert frames_there.scenes("train") == ("Gallery",)
        assert frames_there.scenes("test") == ("Still",)
        sequence = frames_there.sequence("train", "Gallery")
        assert len(sequence) == 3
        assert [frame.index for frame in sequence] == [0, 1, 2]
        assert sequence[1].folder == rendered / "train" / "Gallery" / "frame-0001"
        assert sequence[1].renders == 2
        assert sequence[1].noisy(1).names == (
            *Layout.make(features=("roughness",)).names,
            "motion",
        )
        assert sequence[1].target().names == (
            "primal",
            "albedo",
            "normal",
            "depth",
            "roughness",
            "motion",
        )
        assert len(contents(rendered)) == 5 * 3

    def test_channels_in_other_readers(self, rendered: Path) -> None:
        import mitsuba as mi

        frame = FrameSet.open(rendered).sequence("train", "Gallery")[2]
        path = frame.folder / "noisy-0.exr"
        buffers = frame.noisy(0)
        names = set(buffers.layout.channels)
        assert {"R", "dx.G", "normal.Z", "depth.T", "roughness.I", "motion.X", "motion.Y"} < names
        with OpenEXR.File(str(path), separate_channels=True) as file:
            assert set(file.channels()) == names
            for i, name in enumerate(buffers.layout.channels):
                np.testing.assert_array_equal(file.channels()[name].pixels, buffers.data[..., i])
        bitmap = mi.Bitmap(str(path))
        array = np.array(bitmap)
        for i, field in enumerate(bitmap.struct_()):
            where = buffers.layout.channels.index(field.name)
            np.testing.assert_array_equal(array[..., i], buffers.data[..., where])

    def test_renders_differ_in_noise_only(self, rendered: Path) -> None:
        sequence = FrameSet.open(rendered).sequence("train", "Gallery")
        first, second = sequence[0].noisy(0), sequence[0].noisy(1)
        assert not torch.equal(first.primal, second.primal)
        depths = [b.depth.flatten() for b in (first, second, sequence[0].target())]
        assert torch.corrcoef(torch.stack(depths)).min() > 0.8  # of the same view
        seeds = {exr.read_metadata(path)["seed"] for path in rendered.rglob("train/**/*.exr")}
        assert len(seeds) == 9

    def test_motion_is_that_of_the_stored_cameras(self, rendered: Path) -> None:
        sequence = FrameSet.open(rendered).sequence("train", "Gallery")
        assert not sequence[0].target().motion.any()
        for before, now in itertools.pairwise(sequence):
            for buffers in (now.target(), now.noisy(1)):
                expected = screen_motion(buffers.depth, now.camera(), before.camera())
                assert torch.equal(buffers.motion, expected)
                assert expected.abs().max() > 0.3

    def test_metadata(self, rendered: Path) -> None:
        frame = FrameSet.open(rendered).sequence("test", "Still")[1]
        metadata = frame.noisy(1).metadata
        assert metadata["scene"] == "Still"
        assert metadata["spp"] == "1"
        assert metadata["frame"] == "1"
        assert metadata["variant"] == "llvm_ad_rgb"
        assert frame.target().metadata["spp"] == "4"
        sensor = make_sensor(swing(0.5), SETTINGS.width, SETTINGS.height)
        expected = PinholeCamera.from_sensor(sensor)
        np.testing.assert_array_equal(frame.camera().to_world, expected.to_world)

    def test_camera_at_rest(self, rendered: Path) -> None:
        """Same target in every frame, no motion, new noise."""
        first, second = FrameSet.open(rendered).sequence("test", "Still")
        assert torch.equal(first.target().data, second.target().data)
        assert not second.target().motion.any()
        assert not torch.equal(first.noisy(0).primal, second.noisy(0).primal)

    def test_rerun_restores_what_is_missing(self, rendered: Path) -> None:
        whole = contents(rendered)
        for name in list(whole)[::2]:
            (rendered / name).unlink()
        with pytest.raises(FormatError):
            FrameSet.open(rendered)
        assert not render_frames(plan(), rendered).failed
        assert contents(rendered) == whole

    def test_order_and_process_do_not_matter(self, rendered: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        units = pickle.loads(pickle.dumps(frame_units(plan(), other)))
        frames._open.cache_clear()
        for unit in reversed(units):
            assert not unit.is_done()
            unit.run()
            assert unit.is_done()
        assert contents(other) == contents(rendered)

    def test_denoised_targets(self, rendered: Path, tmp_path: Path) -> None:
        """The noisy renders are the same; of the target, the primal is what oidn makes of it."""
        pytest.importorskip("mitsuba_oidn")
        assert not render_frames(plan(target="denoised"), tmp_path / "other").failed
        made, plainly = (
            FrameSet.open(root).sequence("train", "Gallery")
            for root in (tmp_path / "other", rendered)
        )
        for frame, plain in zip(made, plainly, strict=True):
            assert torch.equal(frame.noisy(1).data, plain.noisy(1).data)
            target, before = frame.target(), plain.target()
            assert torch.equal(target.primal, denoise(before, "oidn"))
            assert torch.equal(target.data[..., 3:], before.data[..., 3:])
            assert target.metadata["method"] == "oidn"
            assert "method" not in frame.noisy(1).metadata
        with pytest.raises(ConfigError, match=r"differs in target \('denoised', now None\)"):
            render_frames(plan(), tmp_path / "other")
        with pytest.raises(ConfigError, match=r"differs in target \(None, now 'denoised'\)"):
            render_frames(plan(target="denoised"), rendered)
        with pytest.raises(ConfigError, match="expected one of rendered, denoised"):
            FrameSettings(target="painted")

    def test_number_of_shifts(self, tmp_path: Path, variant_llvm_rgb: str) -> None:
        """The targets are the same; noisy gradients are those of one shift instead of four."""
        made, descriptions = {}, {}
        for shifts in (1, 4):
            root = tmp_path / str(shifts)
            settings = replace(SETTINGS, spp=4, noisy=1, shifts=shifts)
            assert not render_frames(FramePlan(plan().sequences[1:], settings), root).failed
            made[shifts] = FrameSet.open(root).sequence("test", "Still")[0]
            descriptions[shifts] = json.loads((root / "frames.json").read_text())["plan"]
        assert torch.equal(made[1].target().data, made[4].target().data)
        assert not torch.equal(made[1].noisy(0)["dx"], made[4].noisy(0)["dx"])
        assert descriptions[1]["settings"]["shifts"] == 1
        assert "shifts" not in descriptions[4]["settings"]  # as in sets from before the choice

    def test_another_plan_is_refused(self, rendered: Path) -> None:
        with pytest.raises(ConfigError, match=r"differs in spp \(1, now 2\)\. Choose"):
            render_frames(plan(spp=2), rendered)
        with pytest.raises(ConfigError, match="differs in its sequences"):
            render_frames(plan(count=4), rendered)

    def test_without_motion_with_variances_in_half(
        self, tmp_path: Path, variant_llvm_rgb: str
    ) -> None:
        settings = plan(spp=2, motion=False, variances=True, half=True, noisy=1)
        only = FramePlan(settings.sequences[1:], settings.settings)
        assert not render_frames(only, tmp_path).failed
        (sequence,) = FrameSet.open(tmp_path).sequences
        noisy = sequence[0].noisy(0)
        assert noisy.layout == Layout.make(features=("roughness",), variances=True)
        with OpenEXR.File(str(sequence[0].folder / "noisy-0.exr"), separate_channels=True) as file:
            assert file.channels()["R"].pixels.dtype == np.float16
        target = sequence[0].target()
        assert "primal.var" in target
        assert not {"dx", "dy", "dx.var", "dy.var", "motion"} & set(target.names)

    def test_a_broken_scene_does_not_stop_the_others(
        self, tmp_path: Path, variant_llvm_rgb: str
    ) -> None:
        broken = CameraSequence("Broken", "train", str(tmp_path / "no.xml"), still(swing(0), 1))
        broken_plan = FramePlan((broken, plan().sequences[1]), SETTINGS)
        failed = render_frames(broken_plan, tmp_path / "set").failed
        assert list(failed) == ["train-Broken-0000"]
        assert "no.xml does not exist" in failed["train-Broken-0000"]
        assert len(contents(tmp_path / "set")) == 2 * 3


CHILD = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
from mitsuba_gdpt import rendering
rendering.set_variant("llvm_ad_rgb")
from tests import kills
from tests.plugin.test_frames import plan, render_frames
kills.die_when_told()
render_frames(plan(), Path({root!r}))
"""


def test_killed_at_known_points(tmp_path: Path, rendered: Path) -> None:
    """Before a frame, and before the checksum of one."""
    root, whole = tmp_path / "killed", contents(rendered)
    code = CHILD.format(tests=str(Path(__file__).parents[2]), root=str(root))
    for point in (3, 6):
        environment = {**os.environ, kills.DIE_AT: str(point)}
        child = subprocess.run([sys.executable, "-c", code], env=environment, timeout=300)
        assert child.returncode == -signal.SIGKILL
        assert all(whole[name] == data for name, data in contents(root).items())  # none is torn
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    assert contents(root) == whole
    assert not [*root.rglob("*.tmp")]
    assert not [*tmp_path.glob(".*")]


@pytest.mark.parametrize("name", ["noisy-1.exr", "target.exr"])
@pytest.mark.parametrize("noted", [True, False])
def test_damaged_frame_is_made_anew(
    rendered: Path, variant_llvm_rgb: str, name: str, noted: bool
) -> None:
    root, whole = rendered, contents(rendered)
    folders = sorted(path.parent for path in root.rglob("target.exr"))
    damages = [b"", whole[f"{folders[1].relative_to(root)}/{name}"][:-100]]
    for folder, damaged in zip(folders, damages, strict=False):
        (folder / name).write_bytes(damaged)
        if not noted:  # as of before there were checksums
            (folder / ".checksums.json").unlink()
    summary = render_frames(plan(), root)
    assert (summary.done, len(summary.failed)) == (2, 0)
    assert contents(root) == whole
    assert render_frames(plan(), root).done == 0


class TestPlan:
    def test_seeds_are_distinct_and_stable(self, tmp_path: Path) -> None:
        units = frame_units(plan(100, noisy=5), tmp_path)
        noisy = [unit.seed(k) for unit in units for k in range(1, 6)]
        assert len(set(noisy)) == len(noisy)
        moving = units[:100]
        assert len({unit.seed(0) for unit in moving} | set(noisy)) == 100 + len(noisy)
        assert units[3].seed(2) == frame_units(plan(100), "elsewhere")[3].seed(2)
        assert units[3].seed(2) != frame_units(plan(100, seed=1), tmp_path)[3].seed(2)

    def test_keys(self, tmp_path: Path) -> None:
        keys = [unit.key for unit in frame_units(plan(), tmp_path)]
        assert keys[:2] == ["train-Gallery-0000", "train-Gallery-0001"]
        assert len(set(keys)) == 5

    def test_targets_of_a_camera_that_stops(self, tmp_path: Path) -> None:
        a, b = swing(0), swing(1)
        sequence = CameraSequence("S", "train", "builtin:x", (a, a, b, b, a))
        units = frame_units(FramePlan((sequence,), SETTINGS), tmp_path)
        assert [unit.target_index for unit in units] == [0, 0, 2, 2, 4]
        assert [unit.previous for unit in units] == [None, a, a, b, b]

    def test_is_stored(self, tmp_path: Path) -> None:
        assert json.loads(json.dumps(plan().as_dict())) == plan().as_dict()

    def test_fly_through(self) -> None:
        cameras = fly_through(swing, 5)
        assert cameras == tuple(swing(t) for t in (0, 0.25, 0.5, 0.75, 1))
        with pytest.raises(ConfigError, match="expected 2 or more"):
            fly_through(swing, 1)
        with pytest.raises(ConfigError, match="expected 1 or more"):
            still(swing(0), 0)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"width": 0}, "width is 0"),
            ({"noisy": 0}, "noisy is 0"),
            ({"seed": -1}, "seed is -1"),
            ({"variances": True}, "variances need 2 or more"),
            ({"shifts": 0}, "shifts is 0; expected 1, 2 or 4"),
            ({"features": ("motion",)}, "motion cannot be rendered"),
            ({"features": ("colour",)}, "unknown feature"),
        ],
    )
    def test_bad_settings(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            replace(SETTINGS, **change)

    def test_bad_sequences(self) -> None:
        one = plan().sequences[0]
        with pytest.raises(ConfigError, match=r"'\.\./x'; expected letters"):
            replace(one, scene="../x")
        with pytest.raises(ConfigError, match="expected one of: train, test"):
            replace(one, split="dev")
        with pytest.raises(ConfigError, match="has no cameras"):
            replace(one, cameras=())
        with pytest.raises(ConfigError, match="more than one sequence of that name"):
            FramePlan((one, replace(one, split="test")))
        with pytest.raises(ConfigError, match="has no sequences"):
            FramePlan(())


def foreign(path: Path, normals: str = "RGB", **more: np.ndarray) -> dict[str, np.ndarray]:
    random = np.random.default_rng(len(str(path)))
    names = ["R", "G", "B", "depth.Z", *(f"normal.{c}" for c in normals)]
    pixels = {name: random.random((4, 5)).astype(np.float32) for name in names} | more
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"compression": OpenEXR.ZIP_COMPRESSION}
    OpenEXR.File(header, dict(pixels)).write(str(path))  # it replaces the values
    return pixels


class TestForeignSets:
    @pytest.mark.parametrize("normals", ["RGB", "XYZ"])
    def test_seven_channels(self, tmp_path: Path, normals: str) -> None:
        for index in range(2):
            folder = tmp_path / "train" / "Sponza" / f"frame-{index:04d}"
            pixels = foreign(folder / "target.exr", normals)
            for k in range(5):
                foreign(folder / f"noisy-{k}.exr", normals)
        frame = FrameSet.open(tmp_path).sequence("train", "Sponza")[1]
        assert frame.renders == 5
        target = frame.target()
        assert set(target.names) == {"primal", "depth", "normal"}
        for i, c in enumerate("RGB"):
            np.testing.assert_array_equal(target.primal[..., i], pixels[c])
            np.testing.assert_array_equal(target.normal[..., i], pixels[f"normal.{normals[i]}"])
        np.testing.assert_array_equal(target.depth[..., 0], pixels["depth.Z"])
        assert "depth.Z" in target.metadata[frame_set.CONVERTED]
        with pytest.raises(FormatError, match=r"target\.exr: no camera"):
            frame.camera()

    def test_both_names(self, tmp_path: Path) -> None:
        path = tmp_path / "a.exr"
        foreign(path, **{"depth.T": np.ones((4, 5), np.float32)})
        frame = read_frame(path)
        assert (frame.depth == 1).all()  # ours counts
        assert set(frame.names) == {"primal", "depth", "normal"}

    def test_incomplete_normal(self, tmp_path: Path) -> None:
        foreign(tmp_path / "a.exr", normals="RG")
        with pytest.raises(FormatError, match=r"a\.exr: 'normal' lacks channels"):
            read_frame(tmp_path / "a.exr")

    def test_no_colour(self, tmp_path: Path) -> None:
        plane = np.ones((4, 5), np.float32)
        exr.write(tmp_path / "a.exr", {"depth.Z": plane})
        with pytest.raises(FormatError, match="expected R, G, B"):
            read_frame(tmp_path / "a.exr")

    def test_other_channels_are_left_out(self, tmp_path: Path) -> None:
        foreign(tmp_path / "a.exr", **{"A": np.ones((4, 5), np.float32)})
        assert set(read_frame(tmp_path / "a.exr").names) == {"primal", "depth", "normal"}


class TestReader:
    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        for index in range(3):
            for name in ("target.exr", "noisy-0.exr"):
                foreign(tmp_path / "train" / "S" / f"frame-{index:04d}" / name)
        return tmp_path

    def test_complete(self, tree: Path) -> None:
        (tree / "train" / "S" / ".target.exr.1234.tmp").touch()  # left by a killed process
        (tree / "train" / "S" / "notes.txt").touch()
        assert len(FrameSet.open(tree).sequence("train", "S")) == 3

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match="no frame set; expected folders like train/SCENE"):
            FrameSet.open(tmp_path)
        (tmp_path / "train" / "S").mkdir(parents=True)
        with pytest.raises(FormatError, match="S: no frames"):
            FrameSet.open(tmp_path)

    @pytest.mark.parametrize("name", ["target.exr", "noisy-0.exr"])
    def test_incomplete_frame(self, tree: Path, name: str) -> None:
        (tree / "train" / "S" / "frame-0001" / name).unlink()
        with pytest.raises(FormatError, match="frame-0001: incomplete"):
            FrameSet.open(tree)

    def test_missing_frame(self, tree: Path) -> None:
        for path in (tree / "train" / "S" / "frame-0001").iterdir():
            path.unlink()
        (tree / "train" / "S" / "frame-0001").rmdir()
        with pytest.raises(FormatError, match=r"S: frame-0001 is missing \(1 in all\)"):
            FrameSet.open(tree)

    def test_gap_in_renders(self, tree: Path) -> None:
        folder = tree / "train" / "S" / "frame-0001"
        (folder / "noisy-0.exr").rename(folder / "noisy-1.exr")
        with pytest.raises(FormatError, match="incomplete"):
            FrameSet.open(tree)

    def test_unknown_names(self, tree: Path) -> None:
        frames_there = FrameSet.open(tree)
        with pytest.raises(ConfigError, match="no split 'dev'"):
            frames_there.scenes("dev")
        with pytest.raises(ConfigError, match="has no scene 'T'; there are: S"):
            frames_there.sequence("train", "T")
        with pytest.raises(ConfigError, match="has 1 noisy renders; there is no 1"):
            frames_there.sequence("train", "S")[0].noisy(1)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "frames.json: cannot read this JSON file"),
            ("[]", "expected an object"),
            ('{"format": "mitsuba_gdpt.frames", "version": 2}', "version 2; this reads"),
        ],
    )
    def test_description(self, tree: Path, text: str, message: str) -> None:
        (tree / "frames.json").write_text(text)
        with pytest.raises(FormatError, match=message):
            FrameSet.open(tree)
