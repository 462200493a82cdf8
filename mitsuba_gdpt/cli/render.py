"""``mitsuba-gdpt render``: from a scene to buffers and a clean picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from mitsuba_gdpt._version import __version__
from mitsuba_gdpt.cli import options
from mitsuba_gdpt.errors import ConfigError


def render(
    scene: Annotated[
        str, typer.Argument(help="Mitsuba XML file, or builtin:NAME (see: mitsuba-gdpt scenes).")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write all buffers as a multi-layer EXR; the denoised image is the layer "
            "'denoised'.",
            show_default=False,
        ),
    ] = None,
    png: options.Png = None,
    exposure: options.Exposure = 0.0,
    spp: Annotated[int, typer.Option(help="Samples per pixel.", min=1)] = 16,
    width: Annotated[
        int | None,
        typer.Option(
            help="Image width in pixels; the height follows unless given.",
            min=1,
            show_default=False,
        ),
    ] = None,
    height: Annotated[
        int | None, typer.Option(help="Image height in pixels.", min=1, show_default=False)
    ] = None,
    denoise: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="Denoising method, or 'none'; 'mitsuba-gdpt info' lists them. By default "
            "what --quality says.",
            show_default=False,
        ),
    ] = None,
    quality: options.Quality = None,
    option: options.DenoiserOptions = None,
    max_depth: Annotated[
        int | None,
        typer.Option(
            help="Longest path, -1 for no limit; by default what the scene says, else no limit.",
            min=-1,
            show_default=False,
        ),
    ] = None,
    rr_depth: Annotated[
        int | None,
        typer.Option(
            help="Depth at which Russian roulette begins; by default what the scene says, else 5.",
            min=1,
            show_default=False,
        ),
    ] = None,
    hide_emitters: Annotated[
        bool | None,
        typer.Option(
            "--hide-emitters/--show-emitters",
            help="Directly visible emitters; by default what the scene says.",
            show_default=False,
        ),
    ] = None,
    shifts: Annotated[
        int | None,
        typer.Option(help="Offset paths per sample: 4, 2 or 0 (no gradients).", show_default="4"),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Further buffers: position, visibility, diffuse, specular, roughness, emission.",
            show_default=False,
        ),
    ] = None,
    variances: Annotated[
        bool | None, typer.Option("--variances", help="Also write the variance of each buffer.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the random numbers.", min=0)] = 0,
    sensor: Annotated[int, typer.Option(help="Which of the scene's sensors.", min=0)] = 0,
    define: options.Define = None,
    variant: options.Variant = None,
) -> None:
    """Render a scene with gradients and features, reconstruct the image, write EXR and PNG.

    Example: mitsuba-gdpt render scene.xml --spp 8 --denoise poisson-l1 -o out.exr --png out.png
    """
    # Everything that can be wrong is looked at before the first ray is traced.
    if output is None and png is None:
        raise ConfigError("nothing would be written; give -o FILE.exr, --png FILE.png or both")
    options.check_output(output, ".exr")
    options.check_output(png, ".png")
    parameters = options.key_values(define, "-D")
    denoiser_options = options.denoiser_options(option)
    options.check_quality(quality, denoise)

    from mitsuba_gdpt import rendering
    from mitsuba_gdpt.cli import session

    watch = session.Stopwatch()
    variant = rendering.set_variant(variant)
    with watch.part("load"):
        source = rendering.open_source(scene, width=width, height=height, parameters=parameters)
        source.sensor(sensor)
    given = {
        "max_depth": max_depth,
        "rr_depth": rr_depth,
        "hide_emitters": hide_emitters,
        "shifts": shifts,
        "features": features,
        "variances": variances,
    }
    from mitsuba_gdpt import denoisers, exr  # denoisers brings torch

    integrator = rendering.make_integrator(
        source.integrator | {key: value for key, value in given.items() if value is not None}
    )
    if denoise is None:
        layout = integrator.layout
        if integrator.shifts == 0:
            layout = denoisers.without_gradients(layout)
        call = denoisers.default_call(layout, quality)
    else:
        call = denoisers.Call.parse(denoise)
    call = call.with_options(denoiser_options)
    denoisers.check_method(call, {}, integrator.layout)

    metadata = {
        "version": __version__,
        "scene": scene,
        "variant": variant,
    }
    with session.progress_bar():
        with watch.part("render"):
            buffers = rendering.render(source, integrator, spp=spp, seed=seed, sensor=sensor)
        try:
            with watch.part("denoise"):
                image = denoisers.denoise(buffers, call).cpu()
        except Exception:
            if output is not None:  # what has been rendered is not lost
                buffers.to_exr(output, metadata=metadata)
            raise
    if output is not None:
        metadata["denoiser"] = str(call)
        buffers.to_exr(output, image=None if call.method == "none" else image, metadata=metadata)
    if png is not None:
        exr.write_png(png, image, exposure=exposure + math.log2(source.exposure))
    spp = int(buffers.metadata["spp"])  # after the sampler's rounding
    rate = session.count(buffers.width * buffers.height * spp / watch.seconds["render"])
    parts = [
        f"{source.name}: {buffers.width}x{buffers.height}, {spp} spp, {variant}",
        f"loaded in {watch.seconds['load']:.2f} s",
        f"rendered in {watch.seconds['render']:.2f} s ({rate} samples/s)",
        f"{call} in {watch.seconds['denoise']:.2f} s",
        f"peak memory {session.peak_memory()}",
        "wrote " + " and ".join(str(path) for path in (output, png) if path),
    ]
    print(", ".join(parts))
