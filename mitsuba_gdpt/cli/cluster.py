"""Options of the commands whose work can be spread over processes and machines."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mitsuba_gdpt.errors import ConfigError

if TYPE_CHECKING:
    from mitsuba_gdpt.execution import ClusterOptions

_WORKERS_HELP = (
    "Worker processes on this machine, or SLURM jobs; 0 works in this process, without Dask."
)
Workers = Annotated[int, typer.Option(help=_WORKERS_HELP, min=0)]
#: For commands that by default work in this process.
OptionalWorkers = Annotated[
    int | None,
    typer.Option(
        help=_WORKERS_HELP, min=0, show_default="0, or 1 with another option of a cluster"
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        help="Threads per worker; by default the cores are divided among the workers.",
        min=1,
        show_default=False,
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Use the workers of a running Dask scheduler, tcp://host:8786.",
        show_default=False,
    ),
]
Slurm = Annotated[
    Path | None,
    typer.Option(
        metavar="OPTIONS.toml",
        help="Start workers as SLURM jobs; see docs/execution.md.",
        show_default=False,
    ),
]
UnitsPerWorker = Annotated[
    int | None,
    typer.Option(
        help="Replace a worker's process after so many units of work, which bounds its memory.",
        min=1,
        show_default="100",
    ),
]


def cluster_options(
    *,
    workers: int | None,
    threads: int | None,
    scheduler: str | None,
    slurm: Path | None,
    units_per_worker: int | None,
    variant: str,
) -> ClusterOptions | None:
    """Make of the options above what :func:`mitsuba_gdpt.execution.run` takes.

    Args:
        workers: As given; None is 1 if another option asks for workers, else 0.
        threads: As given.
        scheduler: As given.
        slurm: As given.
        units_per_worker: As given.
        variant: Mitsuba variant that workers set.

    Returns:
        None for work in this process.

    Raises:
        ConfigError: Options contradict each other.
        MissingDependencyError: Dask is not installed.
    """
    from mitsuba_gdpt import execution, rendering

    elsewhere = {"--threads": threads, "--scheduler": scheduler, "--slurm": slurm}
    given = [name for name, value in elsewhere.items() if value is not None]
    if workers is None:
        workers = 1 if given else 0
    if workers == 0:
        if given:
            raise ConfigError(f"--workers 0 means this process, so it excludes {', '.join(given)}")
        return None
    return execution.ClusterOptions(
        workers=workers,
        threads=threads,
        scheduler=scheduler,
        slurm=slurm,
        units_per_worker=units_per_worker or execution.UNITS_PER_WORKER,
        setup=functools.partial(rendering.set_variant, variant),
    )


@contextmanager
def resumable() -> Iterator[None]:
    """Tell, where Ctrl-C ends the ``with`` block, how far it got and how to go on.

    Done here because typer makes an exit code of a ``KeyboardInterrupt`` and forgets its text.
    """
    from mitsuba_gdpt.execution import Interrupted

    try:
        yield
    except Interrupted as error:
        print(error, file=sys.stderr)
        raise typer.Exit(128 + signal.SIGINT) from error
