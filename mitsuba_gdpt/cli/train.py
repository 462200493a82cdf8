"""``mitsuba-gdpt train``: a reconstruction network from crop sets or frame sets."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from mitsuba_gdpt import checks
from mitsuba_gdpt.cli import options
from mitsuba_gdpt.errors import ConfigError


def train(
    method: Annotated[
        str | None,
        typer.Argument(
            help="What to train: ngpt-small, rdae, ..., or a recipe such as ngpt-100; may stand in "
            "the file instead.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Crop sets, or frame sets for rdae; may stand in the file instead.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="Settings; docs/how-to/training.md lists them. Flags take precedence.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder of the run; by default runs/METHOD, or a numbered one.",
            show_default=False,
        ),
    ] = None,
    validation: Annotated[
        list[Path] | None,
        typer.Option(
            help="Set to validate on; may be repeated. By default crops or scenes are held out.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Minibatches in all; with --resume more than a finished run had.",
            min=1,
            show_default=False,
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            "--epochs",
            "--max-epochs",
            "--max_epochs",
            help="Passes over the examples, instead of --steps.",
            min=0,
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            "--batch-size",
            "--batch_size",
            help="Examples per minibatch.",
            min=1,
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            "--num-workers",
            "--num_workers",
            help="Processes that load data.",
            min=0,
            show_default=False,
        ),
    ] = None,
    seq_length: Annotated[
        int | None,
        typer.Option(
            "--seq-length",
            "--seq_length",
            help="Frames of a window, of recurrent methods.",
            min=1,
            show_default=False,
        ),
    ] = None,
    initial_weights: Annotated[
        str | None,
        typer.Option(
            "--initial-weights",
            "--ckpt",
            metavar="WEIGHTS",
            help="File of weights to start from, or a method whose weights ship.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, show_default=False)] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any other setting, such as learning_rate=1e-3 or terms.smape=1; may be repeated.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder, if there is one.")
    ] = False,
    guides_only: Annotated[
        bool,
        typer.Option(
            "--guides-only",
            help="Only compute and store the images of other methods that the network sees.",
        ),
    ] = False,
) -> None:
    """Train a reconstruction network. Can be killed at any time and resumed.

    Example: mitsuba-gdpt train ngpt-oidn crops.zarr -o runs/oidn --steps 20000
    """
    overrides: dict[str, Any] = {
        "method": method,
        "data": [str(path) for path in data] if data else None,
        "output": None if output is None else str(output),
        "validation": [str(path) for path in validation] if validation else None,
        "steps": steps,
        "batch": batch,
        "workers": workers,
        "seed": seed,
        "sequence.length": seq_length,
        "initial_weights": initial_weights,
    }
    overrides = {key: value for key, value in overrides.items() if value is not None}
    overrides |= options.typed_values(setting, "--set")

    from mitsuba_gdpt.cli import session
    from mitsuba_gdpt.training import load_config

    settings = load_config(config, overrides)

    from mitsuba_gdpt.training import run

    if guides_only:
        advice = "run the same again to go on; what is computed is kept"
        with session.resumable(advice), session.progress_bar():
            opened = run.open_sets(settings)
            run.prepare_guides(opened)
        count = opened.training.preparations + opened.validation.preparations
        print(f"{count} renders have their guides: {', '.join(settings.model.guides) or 'none'}")
        return
    sets = None
    if epochs is not None:
        if steps is not None:
            raise ConfigError("got --steps and --epochs; expected one of them")
        sets = run.open_sets(settings)
        checks.real("--epochs", epochs, above=0, most=checks.MOST)
        passes = math.ceil(epochs * len(sets.training) / settings.batch)
        settings = dataclasses.replace(settings, steps=passes)
    with session.resumable("run the same with --resume to go on from the last checkpoint"):
        path = run.train(settings, resume=resume, sets=sets, report=_show)
    print(f"wrote {path}")


def _show(line: str) -> None:
    print(line, flush=True)
