"""Animated pictures: every frame is there, as it is, and is shown as long as it should be."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from mitsuba_gdpt import exr
from mitsuba_gdpt.errors import ConfigError, FormatError, MissingDependencyError, NonFiniteError
from mitsuba_gdpt.report import write_animation


def frames(count: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.random((12, 17, 3)).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_frames_are_kept_to_the_last_bit(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"fly{suffix}"
    write_animation(iter(frames()), target, rate=20, exposure=-1)
    with Image.open(target) as picture:
        shown = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
        picture.seek(2)
        picture.load()
        assert picture.info["duration"] == pytest.approx(50)
        assert picture.info["loop"] == 0
    assert len(shown) == 5
    for image, frame in zip(shown, frames(), strict=True):
        assert np.array_equal(image, exr.to_8bit(frame, exposure=-1))
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_frames_at_rest_keep_their_time(tmp_path: Path) -> None:
    a, b = frames(2)
    write_animation([a, a, a, b], tmp_path / "a.png", rate=10)
    with Image.open(tmp_path / "a.png") as picture:
        times = [frame.info["duration"] for frame in ImageSequence.Iterator(picture)]
    assert sum(times) == pytest.approx(400)


def test_bad_input_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "fly.png"
    with pytest.raises(ConfigError, match=r"ends in \.png or \.webp or \.mp4"):
        write_animation(frames(), tmp_path / "fly.gif")
    with pytest.raises(ConfigError, match="got no frame; expected at least one"):
        write_animation([], target)
    with pytest.raises(ConfigError, match="one size"):
        write_animation([*frames(), np.zeros((3, 3, 3))], target)
    with pytest.raises(ConfigError, match="0 frames per second"):
        write_animation(frames(), target, rate=0)
    with pytest.raises(NonFiniteError):
        write_animation([np.full((2, 2, 3), np.nan)], target)
    with pytest.raises(FormatError, match="does not exist"):
        write_animation(frames(), tmp_path / "missing" / "fly.png")
    assert not list(tmp_path.iterdir())


#: Stands for ffmpeg: keeps its arguments and the pixels that it is given.
ENCODER = """#!{python}
import sys
from pathlib import Path
pixels = sys.stdin.buffer.read({read})
if {code}:
    sys.exit("unknown encoder")
Path(sys.argv[-1]).write_bytes(" ".join(sys.argv[1:-1]).encode() + b"\\0" + pixels)
"""


def install_encoder(folder: Path, monkeypatch: pytest.MonkeyPatch, read: int, code: int) -> None:
    program = folder / "ffmpeg"
    program.write_text(ENCODER.format(python=sys.executable, read=read, code=code))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_video_is_given_all_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingDependencyError, match=r"needs the program ffmpeg.*\.png or \.webp"):
        write_animation(frames(), tmp_path / "fly.mp4")
    install_encoder(tmp_path, monkeypatch, -1, 0)
    given = [exr.to_8bit(frame) for frame in frames()]
    write_animation((*given[:2], *frames()[2:]), tmp_path / "fly.mp4", rate=29.97)
    words, _, pixels = (tmp_path / "fly.mp4").read_bytes().partition(b"\0")
    assert pixels == np.stack(given).tobytes()
    assert b"-f rawvideo -pix_fmt rgb24 -s 17x12 -r 29.97 -i -" in words
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ffmpeg", "fly.mp4"]


@pytest.mark.parametrize("size", [2, 400])  # more than a pipe holds
def test_video_that_fails_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    install_encoder(tmp_path, monkeypatch, 1, 1)
    with pytest.raises(FormatError, match=r"fly\.mp4: ffmpeg failed: 'unknown encoder'"):
        write_animation([np.zeros((size, size, 3))] * 3, tmp_path / "fly.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["ffmpeg"]
