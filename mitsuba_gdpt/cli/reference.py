"""``mitsuba-gdpt reference``: references in two independent halves, with little noise."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from mitsuba_gdpt.cli import options
from mitsuba_gdpt.errors import ConfigError, FormatError


def reference(
    scenes: Annotated[
        list[str],
        typer.Argument(help="Mitsuba XML files, folders with a scene.xml, or CATALOGUE:NAME."),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Folder for NAME.npz; 'evaluate' looks there if MITSUBA_GDPT_REFERENCES names it.",
        ),
    ],
    spp: Annotated[int, typer.Option(help="Samples per pixel of each half, at most.", min=1)] = 1
    << 16,
    noise: Annotated[
        float,
        typer.Option(
            help="Enough is what has so little: relMSE of the mean of both halves, estimated from "
            "their difference. 0: all samples in any case.",
            min=0.0,
        ),
    ] = 1e-4,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--time",
            metavar="SECONDS",
            help="Per scene, at most; by default no limit.",
            show_default=False,
        ),
    ] = None,
    shifts: Annotated[
        int,
        typer.Option(
            help="Offset paths per sample: 1, 2 or 4, whose gradients an unbiased solve uses, or 0."
        ),
    ] = 4,
    max_depth: Annotated[int, typer.Option(help="Longest path.", min=1)] = 12,
    width: Annotated[
        int | None,
        typer.Option(
            help="Image width in pixels; by default that of the reference that is there, else 320.",
            min=1,
            show_default=False,
        ),
    ] = None,
    variant: options.Variant = None,
) -> None:
    """Render references in two independent halves; a rerun goes on where it stopped.

    Of the samples of each half, with their gradients, the screened Poisson equation makes an
    image, which is unbiased. NAME.npz is there after the first passes and gets better; the sums
    beside it, NAME.partial.npz, are only needed to go on.

    Example: mitsuba-gdpt reference scene.xml --noise 1e-4 -o references
    """
    options.check_folder(output)

    from mitsuba_gdpt import references, rendering
    from mitsuba_gdpt.cli import session
    from mitsuba_gdpt.scenes import SceneRef
    from mitsuba_gdpt.scenes.reference import require_any

    found = [SceneRef.parse(word) for word in scenes]
    for scene in found:
        if scene.is_builtin:
            raise ConfigError(
                f"{scene} has no file, so nothing would find its reference; 'evaluate' renders one"
            )
    if len({scene.name for scene in found}) != len(found):
        raise ConfigError("two scenes have the same name; expected different ones, or two folders")
    require_any(found)
    rendering.set_variant(variant)
    output.mkdir(parents=True, exist_ok=True)
    with session.resumable("run the same again to go on"), session.progress_bar():
        for scene in found:
            target = output / f"{scene.name}.npz"
            before = references.stored(scene, max_depth)
            size: tuple[int, int | None] = (width or references.DEFAULT_WIDTH, None)
            if before is not None and width in (None, before.size[0]):
                size = before.size
            source = rendering.open_source(scene, width=size[0], height=size[1])
            _check_kind(target, references.identity(scene), source.size(0), max_depth)
            watch = session.Stopwatch()
            with watch.part("all"):
                halves = references.render(
                    source,
                    spp=spp,
                    max_depth=max_depth,
                    target=target,
                    label=f"reference of {scene.name}",
                    shifts=shifts,
                    noise=noise,
                    seconds=math.inf if seconds is None else seconds,
                    scene=references.identity(scene),
                    keep=True,
                )
            print(
                f"{target}: {halves.size[0]}x{halves.size[1]}, {halves.spp} spp in each half, "
                f"noise {halves.noise:.2g}, {watch.seconds['all']:.0f} s"
                + ("" if before is None else f"; noise before: {before.noise:.2g}"),
                flush=True,
            )


def _check_kind(target: Path, scene: str, size: tuple[int, int], max_depth: int) -> None:
    """Refuse to replace a reference of the same scene by one that is no better version of it.

    Args:
        target: File to write.
        scene: As of :func:`mitsuba_gdpt.references.identity`.
        size: Width and height.
        max_depth: Longest path.

    Raises:
        ConfigError: It has another size or depth.
    """
    from mitsuba_gdpt import references

    with suppress(FormatError):  # there is none, or it is damaged
        before = references.read(target)
        same = before.scene and references.is_same(before.scene, scene)
        if same and (before.size, before.max_depth) != (size, max_depth):
            width, height = before.size
            raise ConfigError(
                f"{target} has {width}x{height} pixels and paths up to {before.max_depth}, not "
                f"{size[0]}x{size[1]} and {max_depth}; give --width {width} --max-depth "
                f"{before.max_depth} to go on with it, or another folder"
            )
