"""Portable float maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mitsuba_gdpt import pfm
from mitsuba_gdpt.errors import FormatError, LayoutError


def test_round_trip_and_rows_from_the_bottom(tmp_path: Path) -> None:
    image = np.random.default_rng(0).random((3, 5, 3)).astype(np.float32)
    pfm.write(tmp_path / "a.pfm", image)
    assert np.array_equal(pfm.read(tmp_path / "a.pfm"), image)
    content = (tmp_path / "a.pfm").read_bytes()
    assert content.startswith(b"PF\n5 3\n-1.0\n")
    assert content.endswith(image[0].tobytes())


def test_big_endian_and_grey(tmp_path: Path) -> None:
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    (tmp_path / "a.pfm").write_bytes(b"Pf 3 2 1.0\n" + image[::-1].astype(">f4").tobytes())
    assert np.array_equal(pfm.read(tmp_path / "a.pfm")[..., 0], image)


def test_scale(tmp_path: Path) -> None:
    image = np.arange(6, dtype=np.float32).reshape(2, 3)
    (tmp_path / "a.pfm").write_bytes(b"Pf\n3 2\n-0.5\n" + image[::-1].tobytes())
    assert np.array_equal(pfm.read(tmp_path / "a.pfm")[..., 0], image / 2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"P6\n1 1\n255\n",
        b"PF\n",
        b"PF\n2 2\n-1.0\n" + bytes(47),
        b"PF\n0 2\n-1.0\n",
        b"PF\n999999999 999999999\n-1.0\n",
        b"PF\n-1 2\n-1.0\n" + bytes(100),
        b"PF\n1 1\nnan\n" + bytes(12),
        b"PF\n1 1\n0\n" + bytes(12),
        b"PF\n1 1\n--\n" + bytes(12),
        b"PF\n" + b"9" * 5000 + b" 1\n-1.0\n",
    ],
)
def test_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pfm"
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        pfm.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_missing_and_wrong_shape(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"a\.pfm: cannot read"):
        pfm.read(tmp_path / "a.pfm")
    with pytest.raises(LayoutError, match=r"expected \(H, W, 3\)"):
        pfm.write(tmp_path / "a.pfm", np.zeros((2, 2), np.float32))
