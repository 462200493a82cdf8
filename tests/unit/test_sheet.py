"""Contact sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mitsuba_gdpt import exr
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.report import contact_sheet


def test_pictures_of_files_and_arrays_share_a_grid(tmp_path: Path) -> None:
    red = np.zeros((20, 30, 3), np.float32)
    red[..., 0] = 1
    exr.write_png(tmp_path / "red.png", red)
    target = tmp_path / "sheet.png"
    pictures = {"file": tmp_path / "red.png", "array": red, "white": np.ones((20, 30, 3)), "d": red}
    contact_sheet(pictures, target, columns=2)
    sheet = np.asarray(Image.open(target))
    assert sheet.shape == (8 + 2 * (20 + 20 + 8), 8 + 2 * (30 + 8), 3)
    assert (sheet[8:28, 8:38] == (255, 0, 0)).all()
    assert (sheet[8:28, 46:76] == (255, 0, 0)).all()
    assert (sheet[56:76, 8:38] == 255).all()
    assert (sheet[28:48, 8:38] > 100).any(), "the caption is missing"


def test_no_picture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        contact_sheet({}, tmp_path / "sheet.png")


def test_long_captions_stay_below_their_pictures(tmp_path: Path) -> None:
    black = np.zeros((10, 60, 3), np.float32)
    target = tmp_path / "sheet.png"
    contact_sheet({"a caption that is far too wide": black, "b": black}, target, columns=2)
    sheet = np.asarray(Image.open(target)).astype(int)
    assert (sheet[18:38, 8:68] > 100).any()
    assert (sheet[:, 68:76] == 24).all(), "it runs into the next one"
