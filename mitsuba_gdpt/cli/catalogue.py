"""``mitsuba-gdpt catalogue``: make a scene catalogue, and look at the views that it gives."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mitsuba_gdpt.cli import options
from mitsuba_gdpt.errors import ConfigError

if TYPE_CHECKING:
    from mitsuba_gdpt.rendering import Source
    from mitsuba_gdpt.scenes import Camera
    from mitsuba_gdpt.scenes.cameras import Report
    from mitsuba_gdpt.scenes.catalogue import CatalogueScene

catalogue = typer.Typer(
    name="catalogue",
    help="Make and review scene catalogues: the views that data sets are rendered from.",
    no_args_is_help=True,
)

_FLIGHT_VIEWS = 4
_ASPECT = 16 / 9


@catalogue.command()
def propose(
    scene: Annotated[
        str, typer.Argument(help="Mitsuba XML file, or builtin:NAME (see: mitsuba-gdpt scenes).")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="TOML file to write; replaced if it exists.")
    ],
    name: Annotated[
        str | None,
        typer.Option(
            help="Name in the catalogue; by default that of the scene's folder or file.",
            show_default=False,
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Human-readable name.", show_default=False)
    ] = None,
    author: Annotated[str, typer.Option(help="Whom to credit.")] = "unknown",
    licence: Annotated[str, typer.Option(help="Short name of the licence.")] = "unknown",
    split: Annotated[
        str,
        typer.Option(help="What the scene is for: train, dev or test; only train has boxes."),
    ] = "train",
    sensor: Annotated[
        int, typer.Option(help="Which of the scene's sensors to start from.", min=0)
    ] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the search.", min=0)] = 0,
    define: options.Define = None,
    variant: options.Variant = None,
) -> None:
    """Find camera boxes, targets and a fly-through in a scene; write a catalogue of it.

    Look at the result with 'review', and edit the file until all views are good.

    Example: mitsuba-gdpt catalogue propose scene.xml -o scene.toml
    """
    options.check_output(output, ".toml")
    parameters = options.key_values(define, "-D")
    from dataclasses import replace

    from mitsuba_gdpt import files, rendering
    from mitsuba_gdpt.scenes import SceneRef, cameras, describe
    from mitsuba_gdpt.scenes.catalogue import SPLITS, to_toml
    from mitsuba_gdpt.scenes.survey import Survey

    if split not in SPLITS:
        raise ConfigError(f"--split is {split!r}; expected one of {', '.join(SPLITS)}")
    reference = SceneRef.parse(scene)
    reference.check()
    if reference.is_builtin:
        title = title or describe(reference.target).title
    rendering.set_variant(variant)
    source = rendering.open_source(reference, parameters=parameters)
    entry, report = cameras.propose_scene(
        Survey(source.scene, seed=seed, sensor=sensor),
        name or _identifier(source.name),
        str(reference),
        title=title or source.name,
        author=author,
        licence=licence,
    )
    entry = replace(entry, parameters=parameters)
    if split != "train":
        entry = replace(entry, split=split, boxes=(), targets=())
    written = scene
    if reference.file is not None:
        written = os.path.relpath(reference.file, output.parent).replace(os.sep, "/")
    files.replace_text(output, f'split = "{split}"\n\n{to_toml(entry, source=written)}')
    summary = f"{len(entry.boxes)} boxes, {len(entry.targets)} targets; {_summary(report)}"
    print(f"{output}: {summary if entry.boxes else f'{len(entry.fly_through)} key frames'}")


@catalogue.command()
def review(
    file: Annotated[
        str, typer.Argument(metavar="CATALOGUE", help="TOML file, or train, dev or builtin.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the contact sheets."),
    ],
    scene: Annotated[
        list[str] | None,
        typer.Option(help="Only this scene; may be repeated. By default all.", show_default=False),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder that scene files are relative to.",
            envvar="MITSUBA_GDPT_SCENES",
            show_default=False,
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="Sampled views per scene.", min=1)] = 12,
    width: Annotated[int, typer.Option(help="Width of a view in pixels.", min=16)] = 128,
    spp: Annotated[int, typer.Option(help="Samples per pixel.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the sampled views.", min=0)] = 0,
    variant: options.Variant = None,
) -> None:
    """Render sampled views and the fly-through of each scene to FOLDER/NAME.png.

    Also says how many of a larger number of sampled views are free of complaints.

    Example: mitsuba-gdpt catalogue review train --root scenes -o review
    """
    options.check_folder(output)

    from mitsuba_gdpt import rendering
    from mitsuba_gdpt.cli import session
    from mitsuba_gdpt.report import contact_sheet
    from mitsuba_gdpt.scenes import cameras
    from mitsuba_gdpt.scenes.catalogue import Catalogue
    from mitsuba_gdpt.scenes.survey import Survey

    opened = Catalogue.open(file, root=root)
    chosen = [opened.scene(name) for name in scene] if scene else list(opened.scenes)
    rendering.set_variant(variant)
    output.mkdir(parents=True, exist_ok=True)
    for entry in chosen:
        source = rendering.open_source(entry.source, parameters=entry.parameters)
        views = _views(entry, count, seed)
        with session.progress_bar():
            pictures = {
                caption: _render(source, entry, camera, width, spp)
                for caption, camera in views.items()
            }
        path = output / f"{entry.name}.png"
        contact_sheet(pictures, path, columns=4)
        text = "no camera boxes"
        if entry.boxes:
            survey = Survey(source.scene, seed=seed, exposure=entry.exposure, up=entry.up)
            text = _summary(cameras.review(survey, entry))
        print(f"{path}: {text}")


def _views(entry: CatalogueScene, count: int, seed: int) -> dict[str, Camera]:
    from mitsuba_gdpt.scenes.cameras import sample_views

    views = {}
    if entry.boxes:
        for i, camera in enumerate(sample_views(entry, count, seed)):
            views[f"{i + 1}: fov {camera.fov:.0f}"] = camera
    if entry.fly_through:
        for i in range(_FLIGHT_VIEWS):
            time = i / (_FLIGHT_VIEWS - 1)
            views[f"fly-through {time:.2f}"] = entry.fly(time)
    if not views:
        raise ConfigError(f"scene {entry.name!r} has neither camera boxes nor a fly-through")
    return views


def _render(source: Source, entry: CatalogueScene, camera: Camera, width: int, spp: int) -> Any:
    from mitsuba_gdpt import rendering, scenes
    from mitsuba_gdpt.denoisers import denoise

    sensor = scenes.make_sensor(camera, width, max(1, round(width / _ASPECT)))
    integrator = rendering.make_integrator({"max_depth": entry.max_depth})
    buffers = rendering.render(source, integrator, spp=spp, sensor=sensor)
    return denoise(buffers, "poisson-l1").cpu().numpy() * entry.exposure


def _summary(report: Report) -> str:
    complaints = ", ".join(f"{reason} {share:.0%}" for reason, share in report.complaints.items())
    return f"{report.accepted:.0%} of sampled views are good" + (
        f" ({complaints})" if complaints else ""
    )


def _identifier(name: str) -> str:
    """Return a name as a catalogue wants it."""
    return re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_") or "scene"
