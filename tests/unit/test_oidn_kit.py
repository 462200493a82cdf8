"""The layout of OIDN's training toolkit: names as its pattern wants them, pixels as they were."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from mitsuba_gdpt import Layout, exr
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.data import CropSet, FrameSet, oidn_kit
from mitsuba_gdpt.errors import ConfigError
from tests import crops

#: From the toolkit's documentation.
NAMES = re.compile(r".+_([0-9]+(spp)?|ref|reference|gt|target)\.(hdr|ldr|sh1[xyz]|alb|nrm)\.exr")


def names(folder: Path) -> list[str]:
    found = sorted(path.name for path in folder.iterdir())
    assert all(NAMES.fullmatch(name) for name in found)
    return found


def pairs(folder: Path, features: str, target: str) -> set[tuple[str, str]]:
    """Pair noisy images with references as the toolkit's ``dataset.py`` does.

    The last part of a name before feature and ``exr`` tells versions of an image apart; of their
    names in order the last one is the reference; all others need every feature, or the group is
    left out without a word.
    """
    groups: dict[str, set[str]] = {}
    for path in folder.glob("*.*.exr"):
        version = path.name.rsplit(".", 2)[0]
        base, _, suffix = version.rpartition("_")
        number = suffix.lower().removesuffix("spp")
        same = number.isdecimal() or suffix.lower() in ("ref", "reference", "gt", "target")
        groups.setdefault(base if base and same else version, set()).add(version)

    def has(version: str, kinds: str) -> bool:
        return all((folder / f"{version}.{kind}.exr").is_file() for kind in kinds.split())

    return {
        (noisy, reference)
        for versions in groups.values()
        for *inputs, reference in [sorted(versions)]
        if inputs and all(has(version, features) for version in inputs) and has(reference, target)
        for noisy in inputs
    }


def test_crops(tmp_path: Path) -> None:
    crops.fill(str(tmp_path / "set.zarr"), crops.fill_plan(size=8, crops=2))
    opened = CropSet.open(tmp_path / "set.zarr")
    count = oidn_kit.export_crops(opened, tmp_path / "data" / "train")
    assert count == len(opened) * opened.levels
    crop = opened[1]
    base = f"{crop.scene}-{crop.index:05d}"
    files = [name for name in names(tmp_path / "data" / "train") if name.startswith(f"{base}_")]
    spps = sorted(set(crop.spp.tolist()))
    assert len(files) == 3 * (len(spps) + 1)
    learned = pairs(tmp_path / "data" / "train", "hdr alb nrm", "hdr")
    assert {noisy for noisy, reference in learned if reference == f"{base}_ref"} == {
        f"{base}_{spp:04d}spp" for spp in spps
    }
    assert len(learned) == count
    # --clean_aux reads the features of references, networks for albedo alone its albedo.
    assert pairs(tmp_path / "data" / "train", "hdr", "hdr alb nrm") == learned
    assert pairs(tmp_path / "data" / "train", "alb", "alb") == learned
    folder = tmp_path / "data" / "train"
    read = exr.read_image(folder / f"{base}_{spps[0]:04d}spp.alb.exr")
    np.testing.assert_array_equal(read, crop.buffers[0].albedo)
    np.testing.assert_array_equal(
        exr.read_image(folder / f"{base}_ref.hdr.exr"), crop.targets.mean(0)
    )
    weights = crop.spp / crop.spp.sum()
    albedo = sum(w * frame.albedo for w, frame in zip(weights, crop.buffers, strict=True))
    np.testing.assert_allclose(exr.read_image(folder / f"{base}_ref.alb.exr"), albedo, rtol=1e-5)


def test_frames_of_equal_samples_have_references_of_their_own(tmp_path: Path) -> None:
    layout = Layout.make()
    folder = tmp_path / "train" / "Room" / "frame-0000"
    folder.mkdir(parents=True)
    target = FrameBuffers(torch.rand(4, 6, layout.count), layout)
    target.to_exr(folder / "target.exr")
    for k in range(2):
        frame = FrameBuffers(torch.rand(4, 6, layout.count), layout)
        frame.to_exr(folder / f"noisy-{k}.exr", metadata={"spp": 2})
    assert oidn_kit.export_frames(FrameSet.open(tmp_path), tmp_path / "out") == 2
    assert names(tmp_path / "out") == [
        *(f"Room-00000-1_0002spp.{kind}.exr" for kind in ("alb", "hdr", "nrm")),
        *(f"Room-00000-1_ref.{kind}.exr" for kind in ("alb", "hdr", "nrm")),
        *(f"Room-00000_0002spp.{kind}.exr" for kind in ("alb", "hdr", "nrm")),
        *(f"Room-00000_ref.{kind}.exr" for kind in ("alb", "hdr", "nrm")),
    ]
    assert pairs(tmp_path / "out", "hdr alb nrm", "hdr alb nrm") == {
        ("Room-00000_0002spp", "Room-00000_ref"),
        ("Room-00000-1_0002spp", "Room-00000-1_ref"),
    }
    np.testing.assert_array_equal(
        exr.read_image(tmp_path / "out" / "Room-00000-1_ref.hdr.exr"), target.primal
    )


def test_renders(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((4, 6, 3)).astype(np.float32)
    for name, spp in (("a", 2), ("b", 16)):
        exr.write_image(tmp_path / f"{name}.exr", image * spp, metadata={"spp": spp})
    exr.write_image(tmp_path / "room.exr", image)
    files = [tmp_path / "a.exr", tmp_path / "b.exr"]
    assert oidn_kit.export_renders(files, tmp_path / "room.exr", tmp_path / "out") == 2
    assert names(tmp_path / "out") == [
        "room_0002spp.hdr.exr",
        "room_0016spp.hdr.exr",
        "room_ref.hdr.exr",
    ]
    exr.write_image(tmp_path / "small.exr", image[:2])
    with pytest.raises(ConfigError, match=r"small\.exr has 6 x 2 pixels.*6 x 4; expected one size"):
        oidn_kit.export_renders([tmp_path / "small.exr"], tmp_path / "room.exr", tmp_path / "out")
    layout = Layout.make()
    FrameBuffers(torch.rand(4, 6, layout.count), layout).to_exr(tmp_path / "more.exr")
    files = [tmp_path / "a.exr", tmp_path / "more.exr"]
    with pytest.raises(ConfigError, match=r"has primal, albedo, normal, and .*a\.exr primal;"):
        oidn_kit.export_renders(files, tmp_path / "room.exr", tmp_path / "out")
    with pytest.raises(ConfigError, match="no noisy render"):
        oidn_kit.export_renders([], tmp_path / "room.exr", tmp_path / "out")
