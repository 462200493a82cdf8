"""``mitsuba-gdpt evaluate``: methods against each other at equal time, with a report."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitsuba_gdpt import checks
from mitsuba_gdpt.channels import Layout, buffer
from mitsuba_gdpt.cli import cluster, options
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.integrators.parameters import DEFAULT_SHIFTS

if TYPE_CHECKING:
    from mitsuba_gdpt.denoisers import Call


#: The most important first. E-LPIPS is left out: its 200 draws take longer than all the rest.
DEFAULT_METRICS = (
    "relmse",
    "relmse-trimmed",
    "hdr-flip",
    "smape",
    "psnr",
    "ssim",
    "lpips-squeeze",
)
#: What is not said.
_SPP, _COST_SIZE, _CLOCK = "2,8,32", "1280x720", "wall"
_DEFAULT_SEQUENCE_METRICS = ("relmse", "hdr-flip", "flicker", "static-variance")


@cluster.spreadable
def evaluate(
    scenes: Annotated[
        list[str],
        typer.Argument(
            help="Mitsuba XML files, folders with a scene.xml, or builtin:NAME. With --sequence: "
            "these as far as a catalogue knows them, whole catalogues (dev), or CATALOGUE:NAME."
        ),
    ],
    output: options.ResultsFolder,
    method: options.Methods = None,
    spp: Annotated[
        str | None,
        typer.Option(
            metavar="N,N",
            help=f"Samples per pixel of gdpt; each sets a budget. By default {_SPP}.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Repetitions of each cell.", min=1)] = 3,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="Metric; may be repeated, the most important first. By default "
            f"those of {', '.join(DEFAULT_METRICS)} that run here; with --sequence: "
            f"{', '.join(_DEFAULT_SEQUENCE_METRICS)}.",
            show_default=False,
        ),
    ] = None,
    max_depth: Annotated[
        int, typer.Option(help="Longest path; stored references without a depth have 12.", min=1)
    ] = 12,
    width: Annotated[
        int | None,
        typer.Option(
            help="Image width in pixels; by default that of the stored reference, else 320.",
            min=1,
            show_default=False,
        ),
    ] = None,
    reference_spp: Annotated[
        int,
        typer.Option(help="Samples per pixel of each half of a reference to be rendered.", min=1),
    ] = 1024,
    repeats: Annotated[int, typer.Option(help="Timed renders per measurement.", min=1)] = 3,
    shifts: Annotated[
        int,
        typer.Option(help="Offset paths of gdpt per sample: 1, 2 or 4; one is best at equal time."),
    ] = DEFAULT_SHIFTS,
    plain_path: Annotated[
        bool,
        typer.Option(
            "--plain-path",
            help="Path tracing, for methods without gradients, draws independent samples and "
            "chooses emitters by sampling weight, as Mitsuba's path does, instead of being "
            "stratified and aimed as gdpt is.",
        ),
    ] = False,
    sequence: Annotated[
        bool, typer.Option("--sequence", help="Compare on fly-throughs instead of single views.")
    ] = False,
    static: Annotated[
        bool,
        typer.Option("--static", help="With --sequence: also with a camera at rest, for flicker."),
    ] = False,
    frames: Annotated[
        int, typer.Option(help="With --sequence: frames of each sequence.", min=2)
    ] = 16,
    span: Annotated[
        tuple[float, float],
        typer.Option(
            metavar="START STOP",
            help="With --sequence: part of the fly-through that the frames cover, 0 to 1.",
        ),
    ] = (0.0, 1.0),
    rate: Annotated[
        float, typer.Option(help="With --sequence: frames per second of animations.", min=0.1)
    ] = 12.0,
    seconds: Annotated[
        str | None,
        typer.Option(
            metavar="S,S",
            help="Budgets of total time, render and reconstruction, instead of --spp: every "
            "integrator with every method, with the samples that the budget pays for.",
            show_default=False,
        ),
    ] = None,
    integrator: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[(KEY=VALUE, ...)]",
            help="With --seconds: integrator with parameters, gdpt or path (Mitsuba's own); may "
            "be repeated. By default path and gdpt with shifts=0, 1 and 4.",
            show_default=False,
        ),
    ] = None,
    cost_size: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="With --seconds: picture size at which costs are measured. By default "
            f"{_COST_SIZE}.",
            show_default=False,
        ),
    ] = None,
    clock: Annotated[
        str | None,
        typer.Option(
            metavar="wall|processor",
            help="With --seconds: what measures costs. processor: the time of all processors over "
            f"their number, about what a machine takes that does nothing else; on CPUs. By default "
            f"{_CLOCK}.",
            show_default=False,
        ),
    ] = None,
    markdown: options.Markdown = False,
    *,
    place: cluster.Place,
) -> None:
    """Compare methods at equal render time; a rerun continues where it stopped.

    Methods that read gradients get a gdpt render of N spp. All others get as many path-traced
    samples, with features, as take the same time, measured in the same run.

    Example: mitsuba-gdpt evaluate builtin:corner-gallery --spp 2,8 -o results

    Sequences: mitsuba-gdpt evaluate dev --sequence --static --spp 2 -o sequences

    Total time: mitsuba-gdpt evaluate builtin:corner-gallery --seconds 2,4,8 -m oidn -o frontier
    """
    counts = options.whole_numbers(spp or _SPP, "--spp")
    options.check_folder(output)
    if data := [word for word in scenes if word.lower().rstrip("/").endswith((".zarr", ".darc"))]:
        raise ConfigError(
            f"{data[0]} is a data set, not a scene; to compare on its renders: "
            f"mitsuba-gdpt dataset evaluate {data[0]} -o {output}"
        )
    budgets = _seconds(seconds)
    size = _size(cost_size or _COST_SIZE)
    of_time = {"--integrator": integrator, "--cost-size": cost_size, "--clock": clock}
    for name, value in of_time.items():
        if value and not budgets:
            raise ConfigError(f"{name} is about budgets of total time; add --seconds")
    if budgets and spp is not None:
        raise ConfigError("got both --seconds and --spp; expected one of them")
    if budgets and sequence:
        raise ConfigError("--seconds is about still images; leave out --sequence")
    if static and not sequence:
        raise ConfigError("--static is about sequences; add --sequence")

    import mitsuba as mi

    from mitsuba_gdpt import evaluation, provenance
    from mitsuba_gdpt.cli import session

    contenders = (
        tuple(map(evaluation.IntegratorSpec.parse, integrator or ()))
        or evaluation.settings.CONTENDERS
    )
    where = place.open()
    if budgets and where is not None:
        raise ConfigError("--seconds measures times in this process; leave out the workers")
    variant = mi.variant()

    def show(record: evaluation.Record) -> None:
        first, value = next(iter(record.metrics.items()), ("", 0.0))
        text = record.error or f"{first} {value:.4g}"
        print(
            f"{record.scene}, {record.method}, {record.spp} spp, seed {record.seed}: {text}",
            file=sys.stderr,
        )

    def origin() -> dict[str, str]:
        command = shlex.join(["mitsuba-gdpt", *sys.argv[1:]])
        return {"command": command, **provenance.describe(), "variant": variant}

    advice = "run the same again to go on from the last finished cell"
    with session.resumable(advice), session.progress_bar():
        settings = evaluation.Settings(
            scenes=tuple(scenes),
            methods=chosen_methods(method),
            spp=counts,
            seeds=seeds,
            metrics=chosen_metrics(
                metric, _DEFAULT_SEQUENCE_METRICS if sequence else DEFAULT_METRICS
            ),
            max_depth=max_depth,
            width=width,
            reference_spp=reference_spp,
            repeats=repeats,
            gdpt={"shifts": shifts},
            plain_path=plain_path,
            frames=frames if sequence else 1,
            static=static,
            span=span,
            cost_size=size,
            clock=clock or _CLOCK,
            seconds=budgets,
            integrators=contenders,
        )
        if budgets:
            found = evaluation.evaluate_total_time(settings, output, on_record=show)
            records = found.records
            page = evaluation.write_total_time(found, settings, output, origin())
        else:
            records = evaluation.evaluate(settings, output, on_record=show, cluster=where)
            page = evaluation.write_results(records, settings, output, origin(), rate=rate)
    written = f"{page} and results.csv, .json, .md beside it"
    conclude([record.error for record in records], written, output, markdown=markdown)


def conclude(errors: Sequence[str | None], written: str, output: Path, *, markdown: bool) -> None:
    """Say what an evaluation came to.

    Args:
        errors: What every cell died of, or None.
        written: Names of the files that are there now.
        output: Their folder.
        markdown: Also print the tables.

    Raises:
        typer.Exit: Every cell failed.
    """
    if markdown:
        print((output / "results.md").read_text(encoding="utf-8"))
    failed = [error for error in errors if error is not None]
    print(f"{len(errors)} cells, {len(failed)} failed, wrote {written}")
    if failed and len(failed) == len(errors):
        print(f"error: every cell failed, the first: {failed[0]}", file=sys.stderr)
        raise typer.Exit(1)


def chosen_methods(words: list[str] | None) -> tuple[Call, ...]:
    """Return the methods asked for, or all that can run on this machine.

    Raises:
        GDPTError: One that was asked for cannot run: nothing is rendered for it in vain.
    """
    from mitsuba_gdpt import denoisers

    if words:
        calls = tuple(denoisers.Call.parse(word) for word in words)
        for call in calls:
            denoisers.check_method(call, {}, Layout(tuple(map(buffer, call.reads))))
        return calls
    chosen = []
    for method in denoisers.methods():
        if obstacle := method.obstacle:
            print(f"left out: {method.name}: {obstacle}", file=sys.stderr)
        else:
            chosen.append(denoisers.Call(method.name))
    return tuple(chosen)


def _seconds(text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        found = tuple(float(word) for word in text.split(","))
    except ValueError:
        raise ConfigError(
            f"--seconds is {checks.show(text)}; expected a list of numbers such as 2,8.5"
        ) from None
    return tuple(checks.budget("--seconds", value) for value in found)


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and len(text) < 20):
        raise ConfigError(
            f"--cost-size is {checks.show(text)}; expected WIDTHxHEIGHT such as 1280x720"
        )
    return checks.pixels("--cost-size", int(width)), checks.pixels("--cost-size", int(height))


def chosen_metrics(words: list[str] | None, defaults: tuple[str, ...]) -> tuple[str, ...]:
    """Return the metrics asked for, or of the default ones those that can be computed here."""
    from mitsuba_gdpt import metrics

    if words:
        return tuple(metrics.find(word).name for word in words)
    chosen = []
    for name in defaults:
        metric = metrics.find(name)
        if obstacle := metric.obstacle():
            print(f"left out: {name}: {obstacle}", file=sys.stderr)
        else:
            chosen.append(name)
    return tuple(chosen)
