"""``mitsuba-gdpt denoise``: from buffers in files to clean pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mitsuba_gdpt import checks
from mitsuba_gdpt.cli import options
from mitsuba_gdpt.errors import ConfigError, FormatError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from mitsuba_gdpt.buffers import FrameBuffers
    from mitsuba_gdpt.cli import session

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
            help="Image to denoise, EXR, PFM or NPZ: any render, with whatever layers it has. Of "
            "a sequence: frame.####.exr. Of NGPT: scene-primal.exr, and its siblings are read too.",
            metavar="IN.exr",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write the denoised image, linear: EXR, PFM or NPZ.",
            metavar="FILE",
            show_default=False,
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    png: options.Png = None,
    exposure: options.Exposure = 0.0,
    tev: options.Tev = False,
    albedo: Annotated[
        Path | None,
        typer.Option(
            "--albedo",
            "--alb",
            help="Albedo, if it is in a file of its own.",
            metavar="FILE",
            show_default=False,
            rich_help_panel=options.INPUT,
        ),
    ] = None,
    normal: Annotated[
        Path | None,
        typer.Option(
            "--normal",
            "--nrm",
            help="Normals, if they are in a file of their own; taken as they are.",
            metavar="FILE",
            show_default=False,
            rich_help_panel=options.INPUT,
        ),
    ] = None,
    noisy_ch: Annotated[
        str,
        typer.Option(
            "--noisy-ch",
            help="Layer of IN.exr that is denoised, where it is not found by its name.",
            metavar="LAYER",
            show_default=False,
            rich_help_panel=options.INPUT,
        ),
    ] = "",
    albedo_ch: Annotated[
        str,
        typer.Option(
            "--albedo-ch",
            help="Layer of IN.exr with the albedo, likewise.",
            metavar="LAYER",
            show_default=False,
            rich_help_panel=options.INPUT,
        ),
    ] = "",
    normals_ch: Annotated[
        str,
        typer.Option(
            "--normals-ch",
            help="Layer of IN.exr with the normals, likewise; relative to the camera unless "
            "--to-sensor is given.",
            metavar="LAYER",
            show_default=False,
            rich_help_panel=options.INPUT,
        ),
    ] = "",
    normals_space: Annotated[
        str | None,
        typer.Option(
            help="'camera' says that the normals in IN.exr are relative to the camera (+X left, "
            "+Y up, +Z forward). Unless this or --to-sensor is given, normals that may be in "
            "world space are not used.",
            metavar="camera",
            show_default=False,
            rich_help_panel=options.INPUT,
        ),
    ] = None,
    to_sensor: Annotated[
        str | None,
        typer.Option(
            help="Matrix from world to camera, 16 numbers row by row: normals in world space are "
            "turned by it.",
            metavar="A,B,...",
            show_default=False,
            rich_help_panel=options.INPUT,
        ),
    ] = None,
    frames: Annotated[
        str | None,
        typer.Option(
            help="Which frames of a sequence, as 1-24; by default all that are there.",
            metavar="FIRST-LAST",
            show_default=False,
            rich_help_panel=options.SEQUENCE,
        ),
    ] = None,
    animation: Annotated[
        Path | None,
        typer.Option(
            help="Write the denoised frames as one animation: .png or .webp, both lossless, or "
            ".mp4 where ffmpeg is installed.",
            metavar="FILE",
            show_default=False,
            rich_help_panel=options.SEQUENCE,
        ),
    ] = None,
    rate: Annotated[
        float,
        typer.Option(
            help="Frames per second of the animation.",
            min=0.1,
            metavar="FPS",
            rich_help_panel=options.SEQUENCE,
        ),
    ] = 24.0,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            "-m",
            help="Denoising method, as 'oidn' or 'oidn(ensemble=4)'; 'mitsuba-gdpt info' lists "
            "them. By default the best one of --quality that can use what the file has.",
            metavar="NAME",
            show_default=False,
            rich_help_panel=options.METHOD,
        ),
    ] = None,
    quality: options.Quality = None,
    option: options.DenoiserOptions = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="Where to compute: cpu, cuda, mps; by default cuda if there is one.",
            metavar="NAME",
            show_default=False,
            rich_help_panel=options.METHOD,
        ),
    ] = None,
) -> None:
    """Turn a noisy render, of Mitsuba or of another program, into a clean image.

    One file, with whatever layers it has:
      mitsuba-gdpt denoise noisy.exr -o clean.exr --png clean.png
    Albedo and normals in files of their own:
      mitsuba-gdpt denoise color.exr --albedo a.exr --normal n.exr -o clean.exr
    A sequence, here also as one animation:
      mitsuba-gdpt denoise in.####.exr -o out.####.exr --animation out.png
    As with Intel's oidnDenoise, and bit for bit its image:
      mitsuba-gdpt denoise --hdr color.pfm --alb a.pfm --nrm n.pfm -o out.pfm

    Layers are found by the names that Mitsuba, Blender, pbrt, OIDN and NGPT
    give them. What is missing is left out, and a line says so.
    """
    files = _Files(buffers, albedo, normal, output, png)
    if output is None and png is None and animation is None and not tev:
        raise ConfigError("nothing would be written; give -o FILE.exr, --png FILE.png or both")
    jobs = _sequence(files, frames, animation)
    from mitsuba_gdpt import denoisers, image_files, report

    for job in jobs:
        _check_apart(job)
    options.check_output(output, *image_files.SUFFIXES)
    options.check_output(png, ".png")
    if animation is not None:
        report.check_animation(animation)
        options.check_output(animation, animation.suffix.lower())
    matrix = None if to_sensor is None else _matrix(to_sensor)
    method_options = options.typed_values(option, "--option")
    if method is not None:
        denoisers.Call.parse(method).with_options(method_options)
    options.check_quality(quality, method)
    device = _device(device)

    words: dict[str, Any] = {"normals_space": normals_space, "to_sensor": matrix}
    words |= {"noisy_ch": noisy_ch, "albedo_ch": albedo_ch, "normals_ch": normals_ch}
    images = _denoised(jobs, words, _Method(method, quality, method_options, len(jobs) > 1), device)
    pictures = (_written(*item, exposure, animation is not None, tev) for item in images)
    if animation is None:
        for _ in pictures:
            pass
    else:
        report.write_animation(pictures, animation, rate=rate)
        print(f"wrote {animation}: {len(jobs)} frames at {rate:g} per second")


class _Method:
    """What reconstructs one frame after the other."""

    def __init__(
        self, method: str | None, quality: str | None, options: dict[str, Any], sequence: bool
    ) -> None:
        from mitsuba_gdpt import denoisers

        self._method, self._quality, self._options = method, quality, options
        self._stream: Any = None
        self._camera: Any = None  # of the frame before
        if sequence:  # one stream, so that methods which remember frames can
            self._stream = denoisers.stream(method, quality=quality, **options)

    def __call__(self, frame: FrameBuffers) -> tuple[torch.Tensor, str]:
        """Return the image of the next frame, and the text of the method that made it."""
        from mitsuba_gdpt import denoisers, motion

        if self._stream is not None:
            frame, self._camera = motion.add_known_motion(frame, self._camera)
            return self._stream(frame).cpu(), str(self._stream.method)
        layout = denoisers.usable_layout(frame)
        call = denoisers.Call.parse(self._method or denoisers.default_call(layout, self._quality))
        call = call.with_options(self._options)
        return denoisers.denoise(frame, call).cpu(), str(call)


def _denoised(
    jobs: list[_Files], words: dict[str, Any], method: _Method, device: str
) -> Iterator[tuple[_Files, FrameBuffers, torch.Tensor, str, session.Stopwatch]]:
    from mitsuba_gdpt.cli import session

    for job in jobs:
        watch = session.Stopwatch()
        with watch.part("load"), session.quiet():
            frame = _load(job, words).to(device)
        with session.progress_bar(), watch.part("denoise"):
            image, name = method(frame)
        yield job, frame, image, name, watch


def _written(
    job: _Files,
    frame: FrameBuffers,
    image: torch.Tensor,
    method: str,
    watch: session.Stopwatch,
    exposure: float,
    shown: bool,
    tev: bool,
) -> NDArray[np.uint8] | None:
    """Write the files of a frame, say so, and return its picture where it is to be shown."""
    from mitsuba_gdpt import display, exr
    from mitsuba_gdpt.cli import session

    _write(job, frame, image, method, exposure)
    parts = [
        f"{job.image}: {frame.width}x{frame.height}",
        f"loaded in {watch.seconds['load']:.2f} s",
        f"{method} in {watch.seconds['denoise']:.2f} s on {frame.device.type}",
        f"peak memory {session.peak_memory()}",
    ]
    if written := [str(path) for path in (job.output, job.png) if path]:
        parts.append("wrote " + " and ".join(written))
    print(", ".join(parts))
    if tev:
        sent: dict[str, Any] = {job.image.name: frame, f"{job.image.name} by {method}": image}
        display.to_tev(**sent)
    if not shown:
        return None
    return exr.displayed(image, exposure=exposure, attributes=frame.attributes)


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
    from mitsuba_gdpt import foreign

    given = dict(words)
    if files.albedo is not None:
        given["albedo"] = foreign.read_image(files.albedo, "albedo")
    if files.normal is not None:
        given["normals"] = foreign.read_image(files.normal, "normal")
    return foreign.take(files.image, None, foreign.Words(**given))


def _write(
    files: _Files, frame: FrameBuffers, image: torch.Tensor, method: str, exposure: float
) -> None:
    from mitsuba_gdpt import exr, image_files

    if files.output is not None:
        metadata = {**frame.metadata, "method": method}
        image_files.write(files.output, image, metadata=metadata, attributes=frame.attributes)
    if files.png is not None:
        exr.write_png(files.png, image, exposure=exposure, attributes=frame.attributes)


def _sequence(files: _Files, frames: str | None, animation: Path | None) -> list[_Files]:
    """Return the files of each frame; of one, where no name has ``#``.

    Raises:
        ConfigError: Some names have ``#`` and others not, or the range is none.
        FormatError: There are no such frames.
    """
    given = [path for path in vars(files).values() if path is not None]
    marked = [path for path in given if _DIGITS.search(path.name)]
    if not marked:
        for option, value in (("--frames", frames), ("--animation", animation)):
            if value is not None:
                raise ConfigError(f"{option} is about sequences; give names like frame.####.exr")
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


def _check_apart(files: _Files) -> None:
    """Refuse to write the image over what it is made of.

    Raises:
        ConfigError: It would replace a file, with all its layers, that has taken longer to make.
    """
    if files.output is None:
        return
    for path in (files.image, files.albedo, files.normal):
        if path is not None and path.resolve() == files.output.resolve():
            raise ConfigError(
                f"{files.output} would replace {path}, which it is made of; give -o another name"
            )


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
