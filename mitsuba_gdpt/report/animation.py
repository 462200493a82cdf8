"""Sequences as moving pictures: animated ones, which every browser plays, or video."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mitsuba_gdpt import exr
from mitsuba_gdpt.checks import show
from mitsuba_gdpt.errors import ConfigError, FormatError, MissingDependencyError
from mitsuba_gdpt.files import replace_file

#: Suffix to Pillow's format and options. All keep every pixel: a lossy codec would hide flicker.
_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"default_image": False}),
    ".webp": ("WEBP", {"lossless": True, "method": 2}),
}
_VIDEO = ".mp4"
_PROGRAM = "ffmpeg"
#: What animations may be stored in.
SUFFIXES = (*_FORMATS, _VIDEO)
#: H.264 that every player takes: 4:2:0, so even sizes; a quality at which noise survives.
_CODEC = ("-an", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-c:v", "libx264", "-crf", "14") + (
    "-pix_fmt",
    "yuv420p",
    "-movflags",
    "+faststart",
    "-f",
    "mp4",
)


def check_animation(target: str | os.PathLike[str]) -> None:
    """Refuse an animation that could not be written, before any work is done.

    Raises:
        ConfigError: The suffix is none of :data:`SUFFIXES`.
        MissingDependencyError: It is video, and there is no ffmpeg.
    """
    target = Path(target)
    if target.suffix.lower() not in SUFFIXES:
        raise ConfigError(
            f"cannot animate {target.name}; expected a name that ends in {' or '.join(SUFFIXES)}"
        )
    if target.suffix.lower() == _VIDEO and shutil.which(_PROGRAM) is None:
        raise MissingDependencyError(
            f"{target}: MP4 needs the program {_PROGRAM}, and PATH has none; install it, or name a "
            f"file that ends in {' or '.join(_FORMATS)}"
        )


def write_animation(
    frames: Iterable[Any],
    target: str | os.PathLike[str],
    *,
    rate: float = 12.0,
    exposure: float = 0.0,
) -> None:
    """Write frames as an animated picture that repeats for ever, or as video, atomically.

    In pictures, neighbouring frames that are equal in 8 bits are stored as one that is shown for
    longer.

    Args:
        frames: (H, W, 3) each, of one size: scene-linear, shown as sRGB and clipped to 0..1; or
            uint8, shown as they are.
        target: File to write: ``.png`` (APNG) or ``.webp``, both without loss; ``.mp4`` (H.264)
            where ffmpeg is on PATH.
        rate: Frames per second.
        exposure: Stops; +1 doubles the brightness of scene-linear frames.

    Raises:
        ConfigError: There is no frame, they differ in size, or the suffix or the rate makes no
            sense.
        LayoutError, NonFiniteError: As for :func:`mitsuba_gdpt.exr.to_8bit`.
        MissingDependencyError: There is no ffmpeg for ``.mp4``.
        FormatError: The file cannot be written.
    """
    target = Path(target)
    check_animation(target)
    if not 0 < rate < float("inf"):
        raise ConfigError(f"got {rate} frames per second; expected a positive number")
    images = _of_one_size(frames, exposure, target)
    if target.suffix.lower() == _VIDEO:
        _write_video(images, target, rate)
    else:
        _write_picture(images, target, rate)


def _of_one_size(
    frames: Iterable[Any], exposure: float, target: Path
) -> Iterator[NDArray[np.uint8]]:
    size: tuple[int, ...] = ()
    for frame in frames:
        ready = isinstance(frame, np.ndarray) and frame.dtype == np.uint8
        image = frame if ready else exr.to_8bit(frame, exposure=exposure)
        if (size := size or image.shape) != image.shape:
            raise ConfigError(
                f"{target}: got frames of {size[1]} x {size[0]} and of {image.shape[1]} x "
                f"{image.shape[0]} pixels; expected one size"
            )
        yield image
    if not size:
        raise ConfigError(f"{target}: got no frame; expected at least one")


def _write_picture(images: Iterator[NDArray[np.uint8]], target: Path, rate: float) -> None:
    kind, options = _FORMATS[target.suffix.lower()]
    first, *others = [Image.fromarray(image) for image in images]
    replace_file(
        target,
        lambda temporary: first.save(
            temporary,
            format=kind,
            save_all=True,
            append_images=others,
            duration=1000 / rate,
            loop=0,
            **options,
        ),
    )


def _write_video(images: Iterator[NDArray[np.uint8]], target: Path, rate: float) -> None:
    first = next(images)
    source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{first.shape[1]}x{first.shape[0]}")
    head = (_PROGRAM, "-nostdin", "-y", "-loglevel", "error", *source, "-r", f"{rate:g}", "-i", "-")

    def encode(temporary: Path) -> None:
        with tempfile.TemporaryFile() as said:
            command = [*head, *_CODEC, str(temporary)]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=said) as run:
                assert run.stdin is not None
                try:
                    for image in chain((first,), images):
                        run.stdin.write(np.ascontiguousarray(image).tobytes())
                    run.stdin.close()
                except BrokenPipeError:  # it says why
                    with suppress(BrokenPipeError):
                        run.stdin.close()
                except BaseException:
                    run.kill()
                    raise
            said.seek(0)
            text = said.read(4096).decode(errors="replace").strip()
        if run.returncode or not temporary.is_file():
            raise FormatError(f"{target}: {_PROGRAM} failed: {show(text or run.returncode)}")

    replace_file(target, encode)
