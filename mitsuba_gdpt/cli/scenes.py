"""``mitsuba-gdpt scenes``: the built-in scenes, as a list and as pictures."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitsuba_gdpt.cli import options
from mitsuba_gdpt.errors import ConfigError

if TYPE_CHECKING:
    from mitsuba_gdpt.scenes import SceneInfo

_SHEET_COLUMNS, _GAP, _CAPTION = 3, 8, 20


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
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"cannot write into {folder}: it is not a folder")

    from mitsuba_gdpt import exr
    from mitsuba_gdpt.cli import pipeline, session
    from mitsuba_gdpt.cli.source import BUILTIN, open_source
    from mitsuba_gdpt.denoisers import denoise

    session.set_variant(variant)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for info in chosen:
        watch = session.Stopwatch()
        with session.progress_bar(), watch.part("all"):
            source = open_source(f"{BUILTIN}{info.name}", width=width)
            integrator = pipeline.make_integrator(source.integrator)
            image = denoise(pipeline.render(source, integrator, spp=spp))
            path = folder / f"{info.name}.png"
            exr.write_png(path, image, exposure=math.log2(source.exposure))
        paths.append(path)
        print(f"{path}: {spp} spp, {watch.seconds['all']:.1f} s")
    sheet = folder / "contact-sheet.png"
    _contact_sheet(paths, sheet)
    print(sheet)


def _contact_sheet(paths: list[Path], target: Path) -> None:
    """Arrange pictures of equal width in a grid, each with its name below."""
    from PIL import Image, ImageDraw, ImageFont

    pictures = [Image.open(path).convert("RGB") for path in paths]
    columns = min(_SHEET_COLUMNS, len(pictures))
    rows = [pictures[i : i + columns] for i in range(0, len(pictures), columns)]
    cell = max(picture.width for picture in pictures)
    heights = [max(picture.height for picture in row) + _CAPTION + _GAP for row in rows]
    size = (columns * (cell + _GAP) + _GAP, sum(heights) + _GAP)
    sheet = Image.new("RGB", size, (24, 24, 24))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    captions = iter(path.stem for path in paths)
    top = _GAP
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            left = _GAP + column * (cell + _GAP)
            sheet.paste(picture, (left, top))
            draw.text((left, top + picture.height + 2), next(captions), (220, 220, 220), font)
        top += height
    sheet.save(target)
