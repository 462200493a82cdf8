"""``mitsuba-gdpt dataset evaluate``: methods against each other on renders that are stored."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitsuba_gdpt.cli import options
from mitsuba_gdpt.cli.evaluate import (
    DEFAULT_METRICS,
    chosen_methods,
    chosen_metrics,
    conclude,
)
from mitsuba_gdpt.errors import ConfigError

if TYPE_CHECKING:
    from mitsuba_gdpt.denoisers import Call
    from mitsuba_gdpt.evaluation.stored_sets import StoredSets


def evaluate_stored(
    sets: Annotated[
        list[Path],
        typer.Argument(
            metavar="SET.zarr|FILE.darc|FOLDER",
            help="Crop sets, and data sets of the original NGPT: files, or folders of them.",
        ),
    ],
    output: options.ResultsFolder,
    method: options.Methods = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="Metric; may be repeated, the most important first. By default those of "
            f"{', '.join(DEFAULT_METRICS)} that run here.",
            show_default=False,
        ),
    ] = None,
    scenes: Annotated[
        str | None, typer.Option(metavar="A,B", help="Only these scenes.", show_default=False)
    ] = None,
    crops: Annotated[
        int | None,
        typer.Option(help="This many crops, spread over all; by default all.", min=1),
    ] = None,
    markdown: options.Markdown = False,
) -> None:
    """Compare methods on stored renders; a rerun continues where it stopped.

    Every method gets every noisy render: not equal time, as methods without gradients get no
    samples in place of them. Networks know the crops that they were trained on: use others.

    Example: mitsuba-gdpt dataset evaluate test.zarr -m none -m poisson-l1 -o results
    """
    options.check_folder(output)

    from mitsuba_gdpt import provenance
    from mitsuba_gdpt.cli import session
    from mitsuba_gdpt.evaluation import stored
    from mitsuba_gdpt.evaluation.stored_page import write_stored
    from mitsuba_gdpt.evaluation.stored_sets import open_stored

    opened = open_stored(sets)
    methods = chosen_methods(method) if method else _fitting(chosen_methods(None), opened)
    names = chosen_metrics(metric, DEFAULT_METRICS)
    wanted = [name.strip() for name in scenes.split(",")] if scenes else []

    def show(cell: stored.StoredCell) -> None:
        if cell.error is not None:
            print(f"{cell.example.name}, {cell.method}: {cell.error}", file=sys.stderr)

    advice = "run the same again to go on from the last finished cell"
    with session.resumable(advice), session.progress_bar():
        cells = stored.evaluate_stored(
            opened, methods, names, output, scenes=wanted, most=crops, on_cell=show
        )
        command = shlex.join(["mitsuba-gdpt", *sys.argv[1:]])
        page = write_stored(cells, names, output, {"command": command, **provenance.describe()})
    written = f"{page} and results.csv, summary.csv, results.json, results.md beside it"
    conclude([cell.error for cell in cells], written, output, markdown=markdown)


def _fitting(methods: tuple[Call, ...], opened: StoredSets) -> tuple[Call, ...]:
    """Return the methods whose buffers are in all sets."""
    chosen = []
    for call in methods:
        lacking = {
            name for layout in opened.layouts for name in call.requires if name not in layout
        }
        if lacking:
            print(f"left out: {call}: the sets lack {', '.join(sorted(lacking))}", file=sys.stderr)
        else:
            chosen.append(call)
    if not chosen:
        raise ConfigError("no method runs on the buffers of these sets; name one with --method")
    return tuple(chosen)
