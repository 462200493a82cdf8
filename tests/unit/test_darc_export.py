"""Darc files that are written: as the description of the format has them, and read again."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from mitsuba_gdpt.channels import VARIANCE_SUFFIX, Layout
from mitsuba_gdpt.data import CropSet, DarcFile, export_darc, import_darc
from mitsuba_gdpt.data.darc import LAYOUT
from mitsuba_gdpt.data.darc_export import crop_images, write_darc
from mitsuba_gdpt.data.dataset import Crop
from mitsuba_gdpt.errors import ConfigError, FormatError
from tests import crops, darcs

#: What the original's own writer leaves of its names: a pickle of an empty dictionary.
_NO_NAMES = darcs.npy({})


@pytest.mark.parametrize("chunk", [(1, 5, 7, 3), (1, 4, 4, 3), (2, 3, 5, 7)])
@pytest.mark.parametrize("dtype", ["float16", "uint8", "bool", ">f4"])
def test_bytes_are_those_of_the_description(
    tmp_path: Path, chunk: tuple[int, ...], dtype: str
) -> None:
    arrays = [(10 * array).astype(dtype) for array in darcs.crops()]
    native = [array.astype(array.dtype.newbyteorder("=")) for array in arrays]
    expected = darcs.write(tmp_path / "a.darc", native, chunk, names=_NO_NAMES).read_bytes()
    write_darc(tmp_path / "b.darc", arrays, chunk=chunk)
    written = (tmp_path / "b.darc").read_bytes()
    start = struct.unpack("<Q", expected[16:24])[0]  # of the names, which libraries pickle freely
    assert written[:start] == expected[:start]
    with DarcFile(tmp_path / "b.darc") as file:
        assert file.version == 2
        assert file.names() == {}
        for i, array in enumerate(native):
            np.testing.assert_array_equal(file.read(i), array)


def test_names_are_read_by_any_numpy(tmp_path: Path) -> None:
    """Also by those before 2, which know no ``numpy._core``."""
    path = tmp_path / "a.darc"
    write_darc(path, darcs.crops(), names={"first": 0, "second": 1})
    with DarcFile(path) as file:
        assert file.names() == {"first": 0, "second": 1}
    data = path.read_bytes()
    assert b"_core" not in data
    with path.open("rb") as stream:
        stream.seek(struct.unpack("<Q", data[16:24])[0])
        assert np.load(stream, allow_pickle=True).item() == {"first": 0, "second": 1}


def test_chunks_are_the_originals(tmp_path: Path) -> None:
    write_darc(tmp_path / "a.darc", [np.zeros((2, 130, 128, 30), np.float16)])
    header = (tmp_path / "a.darc").read_bytes()[24 : 24 + 4 * 10]
    assert struct.unpack("<10I", header) == (4, 2, 130, 128, 30, 1, 128, 128, 3, 9)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 4, 30)), np.zeros((2, 0, 4, 30)), np.zeros((1, 1, 1, 1), "U3")]
)
def test_arrays_that_do_not_fit(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(ConfigError, match=r"expected 4 axes, none of them empty, and one of"):
        write_darc(tmp_path / "a.darc", [array])
    assert not list(tmp_path.iterdir())


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="create it first"):
        write_darc(tmp_path / "nowhere" / "a.darc", [])


def test_a_set_goes_there_and_back(tmp_path: Path) -> None:
    crops.fill(str(tmp_path / "set.zarr"), crops.fill_plan(size=16, crops=3))
    first = CropSet.open(tmp_path / "set.zarr")
    paths = export_darc(first, tmp_path / "darc", prefix="test")
    assert [path.name for path in paths] == ["test-one-3-3.darc", "test-second-3-3.darc"]
    import_darc(paths, tmp_path / "again.zarr")
    again = CropSet.open(tmp_path / "again.zarr")
    assert again.scenes == first.scenes
    assert len(again) == len(first) == 6
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(other.targets[0], one.targets.mean(0), rtol=2**-11, atol=0)
        for before, after in zip(one.buffers, other.buffers, strict=True):
            for name in one.layout.names:
                # A variance is stored as its root in the set and as itself in the file.
                tolerance = 2**-9 if name.endswith(VARIANCE_SUFFIX) else 0
                torch.testing.assert_close(after[name], before[name], rtol=tolerance, atol=1e-7)


def made(layout: Layout) -> Crop:
    random = torch.Generator().manual_seed(0)
    noisy = torch.rand((2, 4, 6, layout.count), generator=random)
    targets = torch.rand((2, 4, 6, 3), generator=random)
    spp = torch.tensor([2, 8])
    return Crop("a", 0, spp, noisy, layout, targets, torch.zeros(4, 6), 1.0, 0)


@pytest.mark.parametrize("layout", [LAYOUT, Layout.make(("roughness",)), Layout.make()])
def test_what_a_set_lacks(layout: Layout) -> None:
    crop = made(layout)
    images = crop_images(crop)
    assert images.shape == (3, 4, 6, 30)
    assert images.dtype == np.float16
    for name, place in darcs.PLACES.items():
        width = LAYOUT.slices[name].stop - LAYOUT.slices[name].start
        found = images[..., place : place + width]
        if name in layout:
            expected = crop.noisy[..., layout.slices[name]].half().numpy()
            np.testing.assert_array_equal(found[:-1], expected)
            if name != "primal":
                np.testing.assert_array_equal(found[-1], expected[-1])
        else:
            assert (found == (np.inf if name.endswith(VARIANCE_SUFFIX) else 0)).all()
    np.testing.assert_array_equal(images[-1, ..., :3], crop.targets.mean(0).half().numpy())


@pytest.mark.parametrize("prefix", ["", "a-b", "../a"])
def test_prefixes_that_names_do_not_take(tmp_path: Path, prefix: str) -> None:
    crops.fill(str(tmp_path / "set.zarr"), crops.fill_plan(size=8, crops=1))
    with pytest.raises(ConfigError, match="prefix is"):
        export_darc(CropSet.open(tmp_path / "set.zarr"), tmp_path / "darc", prefix=prefix)
    assert not (tmp_path / "darc").exists()
