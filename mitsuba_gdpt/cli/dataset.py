"""``mitsuba-gdpt dataset``: rendering of training data, and looking at them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitsuba_gdpt.cli import options
from mitsuba_gdpt.errors import ConfigError, GDPTError

if TYPE_CHECKING:
    from mitsuba_gdpt.execution import Summary

dataset = typer.Typer(
    name="dataset", help="Render data sets for training, and look at them.", no_args_is_help=True
)

_SHOWN_FAILURES = 5
_LEAST_WIDTH = 192  # of a picture on a contact sheet


@dataset.command()
def crops(
    catalogue: Annotated[
        str,
        typer.Argument(help="Scene catalogue: a TOML file, or the name of one of the package."),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="SET.zarr", help="Folder of the crop set."),
    ],
    crops: Annotated[
        int, typer.Option(help="Crops per scene (times the scene's weight).", min=1)
    ] = 250,
    size: Annotated[int, typer.Option(help="Width and height of a crop in pixels.", min=8)] = 128,
    spp_levels: Annotated[int, typer.Option(help="Noisy renders per crop.", min=1)] = 5,
    min_spp: Annotated[int, typer.Option(help="Least samples per pixel.", min=2)] = 2,
    max_spp: Annotated[
        int, typer.Option(help="All samples per pixel are below this number.", min=3)
    ] = 1024,
    target: Annotated[
        str,
        typer.Option(
            help="halves: two independent renders of half the reference spp each; path: one "
            "render; gdpt-l1: gdpt reconstructed by poisson-l1."
        ),
    ] = "halves",
    reference_spp: Annotated[
        int | None,
        typer.Option(
            help="Samples per pixel behind the target.",
            min=2,
            show_default="256 for halves, else 4096",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Changes all that is random.", min=0)] = 0,
    scenes: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Only these scenes of the catalogue.", show_default=False),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes; more than one need the extra 'batch'.", min=1)
    ] = 1,
    variant: options.Variant = None,
) -> None:
    """Render a crop set for training: noisy crops with all buffers, and targets.

    What has been rendered already is skipped: after an interruption, run the same command again.

    Example: mitsuba-gdpt dataset crops builtin -o train.zarr --crops 20 --max-spp 64
    """
    options.check_output(output, ".zarr", folder=True)

    from mitsuba_gdpt import rendering
    from mitsuba_gdpt.cli import session
    from mitsuba_gdpt.data import CropPlan, CropSet, render_crops
    from mitsuba_gdpt.scenes.catalogue import Catalogue

    opened = Catalogue.open(catalogue)
    names = [name.strip() for name in scenes.split(",")] if scenes else []
    chosen = [opened.scene(name) for name in names] if names else opened.scenes
    plan = CropPlan(
        scenes=tuple(chosen),
        crops=crops,
        size=size,
        levels=spp_levels,
        min_spp=min_spp,
        max_spp=max_spp,
        target=target,  # type: ignore[arg-type]  # the plan checks it
        reference_spp=reference_spp,
        seed=seed,
    )
    rendering.set_variant(variant)
    cluster = None
    if workers > 1:
        from mitsuba_gdpt.execution import ClusterOptions

        cluster = ClusterOptions(workers=workers)
    watch = session.Stopwatch()
    with session.progress_bar(), watch.part("all"):
        summary = render_crops(plan, output, cluster=cluster)
    made = CropSet.open(output)
    faults = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in made.faults.items())
    print(
        f"{output}: {len(made)} of {made.planned} crops of {len(chosen)} scene(s), "
        f"shards: {summary.done} rendered in {watch.seconds['all']:.0f} s, "
        f"{summary.skipped} were there, {len(summary.failed)} failed; {faults}"
    )
    _report_failures(summary)


def _report_failures(summary: Summary) -> None:
    """Raise an error that tells what failed; the same text is told once."""
    if not summary.failed:
        return
    shards_of: dict[str, list[str]] = {}
    for key, text in summary.failed.items():
        shards_of.setdefault(text, []).append(key)
    lines = [
        f"{keys[0]}{f' and {len(keys) - 1} more' if keys[1:] else ''}: {text}"
        for text, keys in shards_of.items()
    ]
    hidden = len(lines) - _SHOWN_FAILURES
    more = f"; and {hidden} more errors" if hidden > 0 else ""
    raise GDPTError(
        f"{len(summary.failed)} shard(s) failed: {'; '.join(lines[:_SHOWN_FAILURES])}{more}"
    )


@dataset.command()
def sheet(
    crop_set: Annotated[
        Path, typer.Argument(metavar="SET.zarr", help="Crop set, finished or not.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="SHEET.png", help="Picture to write.")
    ],
    count: Annotated[int, typer.Option(help="How many crops, spread over the set.", min=1)] = 12,
) -> None:
    """Put crops on a contact sheet: fewest samples, most samples, target.

    Example: mitsuba-gdpt dataset sheet train.zarr -o sheet.png
    """
    options.check_output(output, ".png")

    import numpy as np

    from mitsuba_gdpt.data import CropSet
    from mitsuba_gdpt.report import contact_sheet

    opened = CropSet.open(crop_set)
    if not len(opened):
        raise ConfigError(f"{crop_set} has no finished crop yet ({opened.planned} are planned)")
    positions = np.unique(np.linspace(0, len(opened) - 1, min(count, len(opened))).astype(int))
    pictures = {}
    for position in positions.tolist():
        crop = opened[position]
        images = {f"{int(crop.spp[i])} spp": crop.buffers[i].primal for i in (0, -1)}
        images["target"] = crop.targets.mean(0)
        for caption, image in images.items():
            # Small crops are enlarged, so that the captions have room.
            for axis in (0, 1):
                image = image.repeat_interleave(-(-_LEAST_WIDTH // opened.size), axis)
            pictures[f"{crop.scene} {crop.index}, {caption}"] = image * crop.exposure
    # Six columns: two crops side by side.
    contact_sheet(pictures, output, columns=3 if len(positions) == 1 else 6)
    print(f"{output}: {len(positions)} of {len(opened)} finished crops ({opened.planned} planned)")
