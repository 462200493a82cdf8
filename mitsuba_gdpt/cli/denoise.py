"""``mitsuba-gdpt denoise``: from buffers in a file to a clean picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mitsuba_gdpt.cli import options
from mitsuba_gdpt.errors import ConfigError


def denoise(
    buffers: Annotated[
        Path, typer.Argument(help="EXR file with the layers of a gdpt render.", metavar="IN.exr")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Write the denoised image as an RGB EXR.", show_default=False
        ),
    ] = None,
    png: options.Png = None,
    exposure: options.Exposure = 0.0,
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
    """Reconstruct the image of a gdpt render that was stored with all its buffers.

    Example: mitsuba-gdpt denoise out.exr --method poisson-l2 -o clean.exr --png clean.png
    """
    if output is None and png is None:
        raise ConfigError("nothing would be written; give -o FILE.exr, --png FILE.png or both")
    options.check_output(output, ".exr")
    options.check_output(png, ".png")
    method_options = options.denoiser_options(option)

    import torch

    from mitsuba_gdpt import denoisers, exr
    from mitsuba_gdpt.buffers import FrameBuffers
    from mitsuba_gdpt.cli import session

    if method is not None:
        denoisers.find(method)
    options.check_quality(quality, method)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split(".")[0]
        raise ConfigError(f"--device {device!r} does not work: {reason}") from error

    watch = session.Stopwatch()
    with watch.part("load"):
        frame = FrameBuffers.from_exr(buffers, device=device)
    if method is None:
        default, given = denoisers.default_call(denoisers.usable_layout(frame), quality)
        method, method_options = default.name, {**given, **method_options}
    with session.progress_bar(), watch.part("denoise"):
        image = denoisers.denoise(frame, method, **method_options)
        image = image.cpu()  # a GPU works in the background: wait for it here
    if output is not None:
        metadata = {**frame.metadata, "denoiser": method}
        exr.write_image(output, image, metadata=metadata, attributes=frame.attributes)
    if png is not None:
        exr.write_png(png, image, exposure=exposure, attributes=frame.attributes)
    parts = [
        f"{buffers}: {frame.width}x{frame.height}",
        f"loaded in {watch.seconds['load']:.2f} s",
        f"{method} in {watch.seconds['denoise']:.2f} s on {frame.device.type}",
        f"peak memory {session.peak_memory()}",
        "wrote " + " and ".join(str(path) for path in (output, png) if path),
    ]
    print(", ".join(parts))
