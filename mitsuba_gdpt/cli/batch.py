"""``mitsuba-gdpt batch``: many scenes, settings and denoisers in one go."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitsuba_gdpt.cli import cluster

if TYPE_CHECKING:
    from mitsuba_gdpt.batch import Job


@cluster.spreadable
def batch(
    jobs: Annotated[Path, typer.Argument(help="Description of the batch.", metavar="JOBS.toml")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, list the jobs and stop.")
    ] = False,
    *,
    place: cluster.Place = cluster.Place(workers=1),  # noqa: B008  (immutable)
) -> None:
    """Render and reconstruct the product of scenes, sensors, settings, spp, seeds and denoisers.

    What is there already is skipped: call it again to go on after a crash.
    Example: mitsuba-gdpt batch jobs.toml --workers 4
    """
    from mitsuba_gdpt import batch as batches
    from mitsuba_gdpt.cli import session

    spec = batches.Batch.from_toml(jobs)
    where = place.open()
    if dry_run:
        _list(batches.validate(spec), spec.things)
        return
    watch = session.Stopwatch()
    with session.resumable(), session.progress_bar(), watch.part("batch"):
        result = batches.run(spec, cluster=where)
    for path, error in result.failed.items():
        print(f"failed: {path}: {error}", file=sys.stderr)
    parts = [
        f"{len(result.jobs)} {spec.things}",
        f"renders: {result.summary}",
        f"{watch.seconds['batch']:.1f} s",
        f"wrote {result.gallery or spec.output}",
    ]
    print(", ".join(parts))
    if result.failed:
        raise typer.Exit(1)


def _list(jobs: tuple[Job, ...], things: str) -> None:
    for job in jobs:
        print(f"{'done' if job.is_done() else 'todo'}  {job.output}  ({job.label})")
    renders = len({job.render_key for job in jobs})
    print(f"{len(jobs)} {things} from {renders} renders")
