"""Archives of images: those of NumPy and NGPT, ours, and what is no image."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt import Layout, image_files, npz
from mitsuba_gdpt.errors import FormatError, LayoutError
from mitsuba_gdpt.foreign import Words, take

IMAGE = np.random.default_rng(0).random((4, 6, 3)).astype(np.float32)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64, ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_numpy_writes(tmp_path: Path, kind: Any, order: Any) -> None:
    array = np.asarray(IMAGE, dtype=kind, order=order)
    np.savez(tmp_path / "a.npz", array, note=np.array("text"), count=np.arange(3))
    images = npz.read(tmp_path / "a.npz")
    assert list(images) == [npz.UNNAMED]
    np.testing.assert_array_equal(images[npz.UNNAMED], array.astype(np.float32))


def test_written_as_ngpt_does(tmp_path: Path) -> None:
    image_files.write(tmp_path / "a.npz", IMAGE)
    with np.load(tmp_path / "a.npz") as archive:
        assert archive.files == ["arr_0"]
        np.testing.assert_array_equal(archive["arr_0"], IMAGE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    with pytest.raises(LayoutError, match=r"shape \(4, 6\)"):
        image_files.write(tmp_path / "b.npz", IMAGE[..., 0])
    with pytest.raises(FormatError, match=r"b\.jpg: expected a name that ends in \.exr or"):
        image_files.write(tmp_path / "b.jpg", IMAGE)


def test_arrays_are_layers(tmp_path: Path) -> None:
    images = {"color": IMAGE, "albedo": IMAGE / 2, "depth": IMAGE[..., 0], "normal": IMAGE}
    np.savez(tmp_path / "a.npz", **images)
    frame = take(tmp_path / "a.npz", None, Words(normals_space="camera"))
    assert frame.names == ("primal", "albedo", "normal", "depth")
    np.testing.assert_array_equal(frame.primal, IMAGE)
    np.testing.assert_array_equal(frame.normal, IMAGE)
    np.testing.assert_array_equal(frame.depth, IMAGE[..., :1])


@pytest.mark.parametrize(("count", "names"), [(1, "primal"), (4, "primal"), (16, None)])
def test_one_array(tmp_path: Path, count: int, names: str | None) -> None:
    np.savez(tmp_path / "a.npz", np.ones((4, 6, count), np.float32))
    frame = take(tmp_path / "a.npz")
    assert frame.names == ((names,) if names else Layout.make().names)


def zipped(member: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", member)
    return file.getvalue()


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no archive", "cannot read this NPZ archive"),
        (zipped(b""), "cannot read this NPZ archive"),
        (zipped(saved(IMAGE)[:-4]), "284 bytes for the shape"),
        (zipped(saved(IMAGE).replace(b"(4, 6, 3)", b"(9, 9, 9)")), "288 bytes for the shape"),
        (zipped(saved(IMAGE).replace(b"(4, 6, 3)", b"(-1,6, 3)")), "288 bytes for the shape"),
        (zipped(saved(np.array([{"a": 1}]))), r"no float array \(H, W, C\); the archive has: 'a'"),
        (zipped(saved(np.ones((2, 2, 5), np.float32))), "a tensor with 5 channels"),
        (zipped(saved(IMAGE))[:200], "cannot read this NPZ archive"),
    ],
)
def test_what_is_no_image(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(FormatError, match=rf"a\.npz: .*{message}"):
        take(tmp_path / "a.npz")


def test_arrays_of_two_sizes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", color=IMAGE, albedo=IMAGE[:2])
    with pytest.raises(FormatError, match=r"sizes \[\(2, 6\), \(4, 6\)\]; expected one size"):
        take(tmp_path / "a.npz")
    with pytest.raises(FormatError, match="no such file"):
        take(tmp_path / "b.npz")
