"""Import of the layout of OIDN's toolkit: small files, written as its documentation says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt import exr
from mitsuba_gdpt.data import CropDataset, CropSet, import_oidn, oidn_kit
from mitsuba_gdpt.errors import ConfigError, LayoutError
from mitsuba_gdpt.training.config import load_config
from mitsuba_gdpt.training.run import fitting, open_sets
from tests import crops

KINDS = {"hdr": "primal", "alb": "albedo", "nrm": "normal"}


def write(folder: Path, version: str, seed: int, shape: tuple[int, int] = (20, 36)) -> Any:
    """Write an image with its features; return them by their kind, as float16."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    images = {kind: draw.random((*shape, 3)).astype(np.float16) for kind in KINDS}
    for kind, image in images.items():
        exr.write_image(folder / f"{version}.{kind}.exr", image.astype(np.float32))
    return images


def test_values_and_windows(tmp_path: Path) -> None:
    room = tmp_path / "train" / "room"
    # As names they are in another order than as numbers.
    versions = {name: write(room, name, k) for k, name in enumerate(("a_16", "a_2spp", "a_4"))}
    target = write(room, "a_ref", 9)
    alone = write(tmp_path / "train", "hall_1", 10), write(tmp_path / "train", "hall_64", 11)
    with pytest.warns(UserWarning, match=r"2 noisy images are left out: .*hall has 1"):
        summary = import_oidn(tmp_path / "train", tmp_path / "set.zarr", size=16)
    assert (summary.done, summary.failed) == (2, {})
    opened = CropSet.open(tmp_path / "set.zarr")
    assert opened.layout.names == ("primal", "albedo", "normal")
    assert [opened.where(i) for i in range(len(opened))] == [
        ("hall", 0), ("hall", 1), ("room", 0), ("room", 1),
    ]  # fmt: skip
    hall, room_crop = opened[1], opened[2]
    np.testing.assert_array_equal(hall.targets[0], alone[1]["hdr"][2:18, 18:34])
    assert (hall.spp.tolist(), room_crop.spp.tolist()) == ([1], [2])
    for kind, name in KINDS.items():
        np.testing.assert_array_equal(
            room_crop.buffers[0][name], versions["a_2spp"][kind][2:18, 2:18]
        )
    np.testing.assert_array_equal(room_crop.targets[0], target["hdr"][2:18, 2:18])
    window = opened.table("room", "window")
    assert [window[name].tolist() for name in ("frame_width", "x", "y")] == [
        [36, 36], [2, 18], [2, 2],
    ]  # fmt: skip


def test_again_and_what_differs(tmp_path: Path) -> None:
    for k, name in enumerate(("a_2", "a_4", "a_8", "a_ref")):
        write(tmp_path / "in", name, k)
    first = import_oidn(tmp_path / "in", tmp_path / "set.zarr", size=8, crops=2)
    assert (first.done, len(CropSet.open(tmp_path / "set.zarr"))) == (1, 2)
    assert CropSet.open(tmp_path / "set.zarr")[0].spp.tolist() == [2, 4, 8]
    again = import_oidn(tmp_path / "in", tmp_path / "set.zarr", size=8, crops=2)
    assert (again.done, again.skipped) == (0, 1)
    with pytest.raises(ConfigError, match="another plan: crops differ"):
        import_oidn(tmp_path / "in", tmp_path / "set.zarr", size=8, crops=3)


def test_what_was_exported(tmp_path: Path) -> None:
    """There and back: whole crops, so nothing is cut."""
    crops.fill(str(tmp_path / "set.zarr"), crops.fill_plan(size=8, crops=2))
    before = CropSet.open(tmp_path / "set.zarr")
    oidn_kit.export_crops(before, tmp_path / "train")
    import_oidn(tmp_path / "train", tmp_path / "again.zarr", size=8, normals_space="camera")
    after = CropSet.open(tmp_path / "again.zarr")
    assert (len(after), after.levels) == (len(before), before.levels)
    for position in range(len(before)):
        scene, number = before.where(position)
        (other,) = [i for i in range(len(after)) if after.where(i)[0] == f"{scene}-{number:05d}"]
        ours, theirs = before[position], after[other]
        assert theirs.spp.tolist() == ours.spp.tolist()
        np.testing.assert_array_equal(theirs.buffers[0].primal, ours.buffers[0].primal)
        np.testing.assert_array_equal(theirs.buffers[-1].normal, ours.buffers[-1].normal)
        np.testing.assert_allclose(theirs.targets[0], ours.targets.mean(0), rtol=1e-3)


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        import_oidn(tmp_path / "none", tmp_path / "set.zarr")
    write(tmp_path / "in", "a_2", 0)
    with (
        pytest.warns(UserWarning, match=r"no other version of it: a_2\.hdr\.exr"),
        pytest.raises(ConfigError, match="no noisy image with a reference"),
    ):
        import_oidn(tmp_path / "in", tmp_path / "set.zarr", size=8)
    write(tmp_path / "in", "a_ref", 1)
    with pytest.raises(ConfigError, match=r"has 36 x 20 pixels, and crops 32 x 32"):
        import_oidn(tmp_path / "in", tmp_path / "set.zarr", size=32)
    with pytest.raises(ConfigError, match="normals_space is 'view'; expected 'camera' or 'world'"):
        import_oidn(tmp_path / "in", tmp_path / "set.zarr", size=8, normals_space="view")
    write(tmp_path / "in", "a_4", 2)
    (tmp_path / "in" / "a_4.nrm.exr").unlink()
    with pytest.raises(ConfigError, match=r"same features.*a_2: primal, albedo, normal; .*a_4: "):
        import_oidn(tmp_path / "in", tmp_path / "set.zarr", size=8)
    exr.write_image(tmp_path / "in" / "a_4.nrm.exr", np.full((4, 4, 3), 0.5, np.float32))
    failed = import_oidn(tmp_path / "in", tmp_path / "set.zarr", size=8).failed
    assert [text for text in failed.values() if "a_4.nrm.exr: 4 x 4 pixels; expected 36" in text]
    write(tmp_path / "dev" / "living-room", "a_2", 1)
    write(tmp_path / "dev" / "living-room", "a_ref", 1)
    with pytest.raises(ConfigError, match=r"measured on the scene\(s\) living-room"):
        import_oidn(tmp_path / "dev", tmp_path / "dev.zarr", size=8)


def test_infinity_is_clamped_and_counted(tmp_path: Path) -> None:
    write(tmp_path / "in", "a_ref", 1)
    image = write(tmp_path / "in", "a_2", 0)["hdr"].astype(np.float32)
    image[3, 9] = np.inf
    exr.write_image(tmp_path / "in" / "a_2.hdr.exr", image)
    import_oidn(tmp_path / "in", tmp_path / "set.zarr", size=16)
    opened = CropSet.open(tmp_path / "set.zarr")
    assert opened.faults["clamped"] == 3
    assert float(opened[0].noisy.max()) == 65504


def test_a_network_without_depth_is_trained_on_it(tmp_path: Path) -> None:
    for k, name in enumerate(("a_2", "a_ref")):
        write(tmp_path / "in", name, k)
    import_oidn(tmp_path / "in", tmp_path / "set.zarr", size=16)
    values = {"method": "ngpt-small-nograd", "data": [str(tmp_path / "set.zarr")]}
    with pytest.raises(LayoutError, match=r"lack the buffer\(s\) depth; .*\(inputs=-depth\)"):
        open_sets(load_config(None, values))
    config = load_config(None, values | {"inputs": ["-depth"]})
    assert [f.source for f in config.model.inputs.features] == ["primal", "albedo", "normal"]
    sets = open_sets(config)
    assert sets.training[0].buffers.layout == CropDataset(tmp_path / "set.zarr").layout
    told: list[str] = []
    fitted = fitting(config, sets, told.append)
    assert not fitted.augmentation.flip
    assert "normals in world space: no flips and transpositions" in told
    blind = open_sets(load_config(None, values | {"inputs": ["-depth", "-normal"]}))
    assert blind.training.mirrored
