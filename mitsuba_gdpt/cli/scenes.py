"""``mitsuba-gdpt scenes``: the built-in scenes, as a list and as pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitsuba_gdpt.cli import options

if TYPE_CHECKING:
    from mitsuba_gdpt.scenes import SceneInfo


def scenes(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names of scenes; all of them by default.", show_default=False),
    ] = None,
    preview: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Render them to FOLDER/NAME.png, and a contact sheet of all.",
            show_default=False,
        ),
    ] = None,
    width: Annotated[int, typer.Option(help="Width of the pictures in pixels.", min=1)] = 320,
    spp: Annotated[int, typer.Option(help="Samples per pixel of the pictures.", min=1)] = 16,
    variant: options.Variant = None,
) -> None:
    """List the built-in scenes, or render pictures of them.

    Example: mitsuba-gdpt scenes --preview previews
    """
    from mitsuba_gdpt import scenes as library

    chosen = [library.describe(name) for name in names or library.names()]
    if preview is None:
        _list(chosen)
    else:
        _render(chosen, preview, width, spp, variant)


def _list(chosen: list[SceneInfo]) -> None:
    from rich.console import Console
    from rich.padding import Padding

    # Soft-wrapped to the terminal, as plain text that can be searched in a pipe.
    console = Console(highlight=False)
    for info in chosen:
        console.print(f"[bold]builtin:{info.name}[/]  {info.width}x{info.height}, {info.title}")
        console.print(Padding(info.doc, (0, 0, 0, 4), expand=False))
        console.print(Padding(f"[dim]{', '.join(info.tags)}[/]", (0, 0, 0, 4), expand=False))


def _render(
    chosen: list[SceneInfo], folder: Path, width: int, spp: int, variant: str | None
) -> None:
    options.check_folder(folder)

    from mitsuba_gdpt import exr, rendering
    from mitsuba_gdpt.cli import session
    from mitsuba_gdpt.denoisers import denoise
    from mitsuba_gdpt.report import contact_sheet
    from mitsuba_gdpt.scenes.places import BUILTIN
    from mitsuba_gdpt.scenes.reference import SceneRef

    rendering.set_variant(variant)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for info in chosen:
        watch = session.Stopwatch()
        with session.progress_bar(), watch.part("all"):
            source = rendering.open_source(SceneRef(info.name, BUILTIN), width=width)
            integrator = rendering.make_integrator(source.integrator)
            image = denoise(rendering.render(source, integrator, spp=spp))
            path = folder / f"{info.name}.png"
            exr.write_png(path, image, exposure=math.log2(source.exposure))
        paths.append(path)
        print(f"{path}: {spp} spp, {watch.seconds['all']:.1f} s")
    sheet = folder / "contact-sheet.png"
    contact_sheet({path.stem: path for path in paths}, sheet)
    print(sheet)
