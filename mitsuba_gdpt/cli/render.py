"""``mitsuba-gdpt render``: from a scene to buffers and a clean picture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitsuba_gdpt import checks
from mitsuba_gdpt._version import __version__
from mitsuba_gdpt.cli import options
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.integrators.parameters import DEFAULT_SHIFTS, Parameters

if TYPE_CHECKING:
    import mitsuba as mi
    import torch

    from mitsuba_gdpt.buffers import FrameBuffers
    from mitsuba_gdpt.denoisers import Call

_SPP = 16


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
    tev: options.Tev = False,
    spp: Annotated[
        int | None,
        typer.Option(help="Samples per pixel.", min=1, show_default=f"{_SPP}, or what --time pays"),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--time",
            metavar="SECONDS",
            help="Instead of --spp: the best image for so many seconds of rendering and "
            "reconstruction. Chooses shifts and quality too, unless given.",
            show_default=False,
        ),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(
            metavar="RELMSE",
            help="Instead of --time: until the estimated relMSE of the denoised image is below "
            "this, as 0.01; with --spp as the most. A map of the estimate is the layer 'error'.",
            show_default=False,
        ),
    ] = None,
    wall: Annotated[
        bool, typer.Option("--wall", help="With --time: loading and compiling count as well.")
    ] = False,
    progressive: Annotated[
        bool,
        typer.Option(
            "--progressive", help="Render in passes, and write the image so far after each."
        ),
    ] = False,
    adaptive: Annotated[
        bool | None,
        typer.Option(
            "--adaptive/--uniform",
            help="Whether pixels may get different numbers of samples; the layer 'samples' tells "
            "how many.",
            show_default="with --time, where it pays",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.exr",
            help="Add samples to what --time, --progressive or --adaptive left, up to --spp or for "
            "--time; by default also the file that is written.",
            show_default=False,
        ),
    ] = None,
    fly_through: Annotated[
        int | None,
        typer.Option(
            metavar="FRAMES",
            help="So many frames of the fly-through that a catalogue has for the scene, on one "
            "budget of --time or --spp (in the mean); -o is a folder. The same command goes on.",
            min=2,
            show_default=False,
        ),
    ] = None,
    span: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="START STOP",
            help="With --fly-through: part of it that the frames cover, 0 to 1.",
        ),
    ] = (0.0, 1.0),
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
            help="Depth at which Russian roulette begins; by default what the scene says, "
            f"else {Parameters.defaults()['rr_depth']}.",
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
        typer.Option(
            help="Offset paths of gdpt per sample: 1, 2, 4 or 0 (no gradients).",
            show_default=str(DEFAULT_SHIFTS),
        ),
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
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed of the random numbers.", min=0, show_default="0, or that of --resume"
        ),
    ] = None,
    sensor: Annotated[int, typer.Option(help="Which of the scene's sensors.", min=0)] = 0,
    define: options.Define = None,
    variant: options.Variant = None,
) -> None:
    """Render a scene with gradients and features, reconstruct the image, write EXR and PNG.

    Example: mitsuba-gdpt render scene.xml --spp 8 --denoise poisson-l1 -o out.exr --png out.png
    """
    # Everything that can be wrong is looked at before the first ray is traced.
    output = resume if output is None else output
    if output is None and png is None and not tev:
        raise ConfigError("nothing would be written; give -o FILE.exr, --png FILE.png or both")
    if fly_through is None:
        options.check_output(output, ".exr")
    else:
        _check_fly_through(
            output,
            {
                "--png": png,
                "--noise": noise,
                "--resume": resume,
                "--wall": wall,
                "--progressive": progressive,
                "--adaptive": adaptive,
                "--tev": tev,
                "--sensor": sensor,
                "-D": define,
            },
        )
    options.check_output(png, ".png")
    if seconds is not None and spp is not None:
        raise ConfigError("got both --time and --spp; expected one of them")
    if noise is not None:
        if seconds is not None or resume is not None:
            raise ConfigError(
                f"got both --noise and {'--resume' if seconds is None else '--time'}; expected "
                "--noise alone, or with --spp as the most"
            )
        checks.real("--noise", noise, above=0)
    if wall and seconds is None:
        raise ConfigError("--wall is about --time; add --time SECONDS")
    parameters = options.key_values(define, "-D")
    denoiser_options = options.typed_values(option, "--option")
    options.check_quality(quality, denoise)

    from mitsuba_gdpt import rendering
    from mitsuba_gdpt.cli import session

    watch = session.Stopwatch()
    variant = rendering.set_variant(variant)
    given = {
        "max_depth": max_depth,
        "rr_depth": rr_depth,
        "hide_emitters": hide_emitters,
        "shifts": shifts,
        "features": features,
        "variances": variances,
    }
    given = {key: value for key, value in given.items() if value is not None}
    if fly_through is not None:
        assert output is not None
        from mitsuba_gdpt.cli.fly_through import render_fly_through
        from mitsuba_gdpt.denoisers import Call

        method = None if denoise is None else Call.parse(denoise).with_options(denoiser_options)
        render_fly_through(
            scene,
            output,
            fly_through,
            span,
            rendering.Budget(seconds, (spp or _SPP) if seconds is None else None),
            given if method is None else rendering.with_buffers(given, method.requires),
            size=(width, height),
            stops=exposure,
            quality=quality,
            method=method,
            seed=seed or 0,
            variant=variant,
        )
        return
    with watch.part("load"):
        source = rendering.open_source(scene, width=width, height=height, parameters=parameters)
        source.sensor(sensor)
    settings = source.integrator | given
    from mitsuba_gdpt import display  # brings torch
    from mitsuba_gdpt.denoisers import Call, check_method, extra_buffers
    from mitsuba_gdpt.denoisers import denoise as reconstruct

    reached, before = None, 0  # the estimated error; samples that were there
    method = None if denoise is None else Call.parse(denoise).with_options(denoiser_options)
    if method is not None:
        settings = rendering.with_buffers(settings, method.requires)
    described = {
        "scene": scene,
        "variant": variant,
        "sensor": str(sensor),
        "parameters": " ".join(f"{key}={value}" for key, value in sorted(parameters.items())),
    }
    stops = exposure + math.log2(source.exposure)
    files = _Files(output, png, stops, {**described, **source.contents.words()})
    live = display.Live(source.name, tev=True) if tev else None

    def update(image: torch.Tensor, buffers: FrameBuffers) -> None:
        files.write(image, buffers)
        if live is not None:
            live(image, buffers)

    with session.progress_bar():
        if progressive or adaptive or not all(x is None for x in (resume, seconds, noise)):
            if method is None and denoiser_options:
                raise ConfigError("--option is about a method; name it with --denoise")
            by_count = seconds is None and noise is None
            budget = rendering.Budget(
                seconds, (spp or _SPP) if by_count else spp, noise, wall, watch.seconds["load"]
            )
            resumed = None
            if resume is not None:
                with session.quiet():
                    resumed = rendering.Accumulation.from_exr(resume)
            if resumed is not None and seed not in (None, resumed.passes[0].seed):
                raise ConfigError(
                    f"{resume} was rendered with --seed {resumed.passes[0].seed}, got {seed}; "
                    "leave --seed out, or begin a new file"
                )
            before = 0 if resumed is None else resumed.spp
            job = rendering.BudgetedRender(
                source,
                settings,
                budget,
                seed=seed or 0,
                sensor=sensor,
                quality=quality,
                method=method,
                adaptive=adaptive,
                update=update,
                resumed=resumed,
                described=described,
            )
            if resumed is not None:  # of the same settings
                source.contents.require(
                    resumed.frame.metadata, f"{resume} was rendered", "begin a new file"
                )
            try:
                done = job.run()
            except Exception:
                if job.buffers is not None:  # what has been rendered is not lost
                    files.write(None, job.buffers)
                raise
            buffers, call, image = done.buffers, done.method, done.image
            watch.seconds |= done.seconds
            if done.noise is not None:
                reached = _reached(done.noise, done.noise_range, noise)
        else:
            if method is None:
                settings = rendering.with_buffers(settings, extra_buffers(quality))
            integrator = rendering.make_integrator(settings)
            call = method or _default(integrator, quality).with_options(denoiser_options)
            check_method(call, {}, integrator.layout)
            with watch.part("render"):
                buffers = rendering.render(
                    source, integrator, spp=spp or _SPP, seed=seed or 0, sensor=sensor
                )
            try:
                with watch.part("denoise"):
                    image = reconstruct(buffers, call)
            except Exception:
                files.write(None, buffers)  # what has been rendered is not lost
                raise
    files.write(image, buffers, call)
    total = int(buffers.metadata["spp"])  # after the sampler's rounding
    new, taken = buffers.width * buffers.height * (total - before), watch.seconds["render"]
    rate = session.count(new / taken if new else 0.0)
    first = watch.seconds.get("first", 0.0)
    parts = [
        f"{source.name}: {buffers.width}x{buffers.height}, {total} spp, {variant}",
        f"loaded in {watch.seconds['load']:.2f} s",
        *([f"compiled in {first:.2f} s"] if first else []),
        f"rendered in {taken:.2f} s ({rate} samples/s)",
        f"{call} in {watch.seconds['denoise']:.2f} s",
        *([] if reached is None else [reached]),
        f"peak memory {session.peak_memory()}",
    ]
    if written := [str(path) for path in (output, png) if path]:
        parts.append("wrote " + " and ".join(written))
    print(", ".join(parts))
    if live is not None:
        live(image, buffers)


def _check_fly_through(output: Path | None, others: Mapping[str, object]) -> None:
    """Refuse what is about single images, and an output that is no folder.

    Raises:
        ConfigError: Of these.
    """
    if wrong := [name for name, value in others.items() if value]:
        raise ConfigError(f"got --fly-through and {wrong[0]}, which is about single images")
    if output is None or output.suffix or output.is_file():
        raise ConfigError(f"--fly-through writes a folder, got {output}; give -o FOLDER")


class _Files:
    """What a render writes, whole or so far; each file is replaced at once."""

    def __init__(
        self,
        output: Path | None,
        png: Path | None,
        stops: float,
        described: Mapping[str, str],
    ) -> None:
        self.output, self.png, self.stops = output, png, stops
        self.described = described

    def write(
        self, image: torch.Tensor | None, buffers: FrameBuffers, call: Call | None = None
    ) -> None:
        """Write the buffers, and the image where there is one."""
        from mitsuba_gdpt import exr

        metadata = {"version": __version__, **self.described}
        image = None if image is None else image.cpu()
        if self.output is not None:
            if call is not None:
                metadata["method"] = str(call)
            layer = None if call is not None and call.method == "none" else image
            buffers.to_exr(self.output, image=layer, metadata=metadata)
        if self.png is not None and image is not None:
            exr.write_png(self.png, image, exposure=self.stops)


def _reached(level: float, ends: tuple[float, float] | None, noise: float | None) -> str:
    """Say which estimated error was reached, and where that is not what was asked for."""
    text = f"estimated relMSE {level:.2g}"
    if ends is not None:
        text += " ({:.2g} to {:.2g})".format(*ends)
    return text if noise is None or level <= noise else f"{text}, asked for {noise:g}"


def _default(integrator: mi.Integrator, quality: str | None) -> Call:
    """Return the method for what an integrator samples."""
    from mitsuba_gdpt import denoisers

    layout = integrator.layout
    if integrator.shifts == 0:
        layout = denoisers.without_gradients(layout)
    return denoisers.default_call(layout, quality)
