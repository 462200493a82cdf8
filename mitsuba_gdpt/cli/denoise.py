"""``mitsuba-gdpt denoise``: from buffers in files to clean pictures."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mitsuba_gdpt import checks
from mitsuba_gdpt.cli import options
from mitsuba_gdpt.errors import ConfigError, FormatError

if TYPE_CHECKING:
    import torch

    from mitsuba_gdpt.buffers import FrameBuffers

_IMAGES = (".exr", ".pfm")
_DIGITS = re.compile(r"#+")


@dataclass(frozen=True)
class _Files:
    """The files of a frame; of a sequence, with ``####`` for its number."""

    image: Path
    albedo: Path | None
    normal: Path | None
    output: Path | None
    png: Path | None

    def at(self, number: int) -> _Files:
        """Return the files of one frame of a sequence."""
        paths = {name: path and _numbered(path, number) for name, path in vars(self).items()}
        return replace(self, **paths)


def denoise(
    buffers: Annotated[
        Path,
        typer.Argument(
            help="EXR or PFM file: a gdpt render, an image alone, or layers of another program. "
            "Of a sequence: frame.####.exr.",
            metavar="IN.exr",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write the denoised image as an RGB EXR (or PFM).",
            show_default=False,
        ),
    ] = None,
    png: options.Png = None,
    exposure: options.Exposure = 0.0,
    albedo: Annotated[
        Path | None,
        typer.Option(help="Albedo from a file of its own.", metavar="FILE", show_default=False),
    ] = None,
    normal: Annotated[
        Path | None,
        typer.Option(
            help="Normals from a file of their own; taken as they are.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    normals_space: Annotated[
        str | None,
        typer.Option(
            help="'camera': normals of IN.exr, of whatever name, are in Mitsuba's camera frame. "
            "Those that may be in world space are left out otherwise.",
            show_default=False,
        ),
    ] = None,
    to_sensor: Annotated[
        str | None,
        typer.Option(
            help="World to camera, 16 numbers row by row: turns normals in world space.",
            metavar="A,B,...",
            show_default=False,
        ),
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option(
            help="Frames of a sequence, as 1-24; by default all that are there.",
            metavar="FIRST-LAST",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Denoising method; 'mitsuba-gdpt info' lists them. By default what --quality "
            "says.",
            show_default=False,
        ),
    ] = None,
    quality: options.Quality = None,
    option: options.DenoiserOptions = None,
    device: Annotated[
        str | None,
        typer.Option(help="torch device; by default the GPU if there is one.", show_default=False),
    ] = None,
) -> None:
    """Reconstruct a clean image from what a renderer stored, gdpt or another one.

    Example: mitsuba-gdpt denoise out.exr --method poisson-l2 -o clean.exr --png clean.png

    With files of their own: mitsuba-gdpt denoise color.exr --albedo a.exr --normal n.exr -o c.exr
    """
    files = _Files(buffers, albedo, normal, output, png)
    if output is None and png is None:
        raise ConfigError("nothing would be written; give -o FILE.exr, --png FILE.png or both")
    options.check_output(output, *_IMAGES)
    options.check_output(png, ".png")
    jobs = _sequence(files, frames)
    matrix = None if to_sensor is None else _matrix(to_sensor)
    method_options = options.denoiser_options(option)

    from mitsuba_gdpt import denoisers
    from mitsuba_gdpt.cli import session

    if method is not None:
        denoisers.Call.parse(method).with_options(method_options)
    options.check_quality(quality, method)
    device = _device(device)

    reconstruct: Callable[[Any], torch.Tensor] | None = None
    if len(jobs) > 1:  # one stream, so that methods which remember frames can
        reconstruct = denoisers.stream(method, quality=quality, **method_options)
    words = {"normals_space": normals_space, "to_sensor": matrix}
    for job in jobs:
        watch = session.Stopwatch()
        with watch.part("load"), session.quiet():
            frame = _load(job, words).to(device)
        chosen = method
        with session.progress_bar(), watch.part("denoise"):
            if reconstruct is None:
                layout = denoisers.usable_layout(frame)
                call = denoisers.Call.parse(method or denoisers.default_call(layout, quality))
                call = call.with_options(method_options)
                image, chosen = denoisers.denoise(frame, call).cpu(), str(call)
            else:
                image = reconstruct(frame).cpu()
                chosen = getattr(reconstruct, "method", method)
        _write(job, frame, image, str(chosen), exposure)
        parts = [
            f"{job.image}: {frame.width}x{frame.height}",
            f"loaded in {watch.seconds['load']:.2f} s",
            f"{chosen} in {watch.seconds['denoise']:.2f} s on {frame.device.type}",
            f"peak memory {session.peak_memory()}",
            "wrote " + " and ".join(str(path) for path in (job.output, job.png) if path),
        ]
        print(", ".join(parts))


def _device(name: str | None) -> str:
    """Return a torch device that works."""
    import torch

    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split(".")[0]
        raise ConfigError(f"--device {name!r} does not work: {reason}") from error
    return name


def _load(files: _Files, words: dict[str, Any]) -> FrameBuffers:
    from mitsuba_gdpt import exr, foreign

    if files.image.suffix.lower() not in _IMAGES:
        exr.read(files.image)  # says what is wrong with it
        raise FormatError(f"{files.image}: expected a name that ends in {' or '.join(_IMAGES)}")
    given = dict(words)
    if files.albedo is not None:
        given["albedo"] = foreign.read_image(files.albedo, "albedo")
    if files.normal is not None:
        given["normals"] = foreign.read_image(files.normal, "normal")
    return foreign.take(files.image, None, foreign.Words(**given))


def _write(
    files: _Files, frame: FrameBuffers, image: torch.Tensor, method: str, exposure: float
) -> None:
    from mitsuba_gdpt import exr, pfm

    if files.output is not None and files.output.suffix.lower() == ".pfm":
        pfm.write(files.output, image.numpy())
    elif files.output is not None:
        metadata = {**frame.metadata, "denoiser": method}
        exr.write_image(files.output, image, metadata=metadata, attributes=frame.attributes)
    if files.png is not None:
        exr.write_png(files.png, image, exposure=exposure, attributes=frame.attributes)


def _sequence(files: _Files, frames: str | None) -> list[_Files]:
    """Return the files of each frame; of one, where no name has ``#``.

    Raises:
        ConfigError: Some names have ``#`` and others not, or the range is none.
        FormatError: There are no such frames.
    """
    given = [path for path in vars(files).values() if path is not None]
    marked = [path for path in given if _DIGITS.search(path.name)]
    if not marked:
        if frames is not None:
            raise ConfigError("--frames is about sequences; give names like frame.####.exr")
        return [files]
    if files.image not in marked or len(marked) != len(given):
        other = next(path for path in given if path not in marked or files.image not in marked)
        raise ConfigError(f"expected #### in every name of a sequence, or in none; got {other}")
    if frames is not None:
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", frames)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise ConfigError(f"--frames is {checks.show(frames)}; expected FIRST-LAST, as 1-24")
        numbers = list(range(int(match[1]), int(match[2] or match[1]) + 1))
    else:
        numbers = _numbers(files.image)
    jobs = [files.at(number) for number in numbers]
    for job in jobs:
        for path in (job.image, job.albedo, job.normal):
            if path is not None and not path.is_file():
                raise FormatError(f"{path}: no such file; expected one per frame of the sequence")
    return jobs


def _numbers(pattern: Path) -> list[int]:
    """Return the numbers of the frames that are there."""
    match = _DIGITS.search(pattern.name)
    assert match is not None
    before, after = pattern.name[: match.start()], pattern.name[match.end() :]
    width = len(match[0])
    name = re.compile(f"{re.escape(before)}(\\d{{{width},}}){re.escape(after)}")
    names = [path.name for path in pattern.parent.iterdir()] if pattern.parent.is_dir() else []
    found = sorted(int(m[1]) for n in names if (m := name.fullmatch(n)))
    if not found:
        raise FormatError(f"{pattern}: there are no such files")
    return found


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(_DIGITS.sub(lambda m: str(number).zfill(len(m[0])), path.name, count=1))


def _matrix(text: str) -> list[list[float]]:
    words = text.split(",")
    if len(words) != 16:
        raise ConfigError(f"--to-sensor has {len(words)} numbers; expected 16, row by row")
    try:
        values = [checks.real("--to-sensor", float(word)) for word in words]
    except ValueError as error:
        raise ConfigError(f"--to-sensor is no list of numbers: {error}") from error
    return [values[4 * row : 4 * row + 4] for row in range(4)]
