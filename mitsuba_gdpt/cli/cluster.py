"""Options of the commands whose work can be spread over processes and machines."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from mitsuba_gdpt.cli import options
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
        help="Start workers as SLURM jobs; see docs/how-to/execution.md.",
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


@dataclass(frozen=True)
class Place:
    """Where the work of a command is done, as given on the command line; see :func:`spreadable`."""

    workers: OptionalWorkers = None
    threads: Threads = None
    scheduler: Scheduler = None
    slurm: Slurm = None
    units_per_worker: UnitsPerWorker = None
    variant: options.Variant = None

    def open(self) -> ClusterOptions | None:
        """Set the variant, and make what :func:`mitsuba_gdpt.execution.run` takes of the rest.

        Returns:
            None for work in this process.

        Raises:
            ConfigError: Options contradict each other, or there is no such variant.
            VariantError: The variant does not work here.
            MissingDependencyError: Dask is not installed.
        """
        from mitsuba_gdpt import execution, rendering

        elsewhere = {
            "--threads": self.threads,
            "--scheduler": self.scheduler,
            "--slurm": self.slurm,
        }
        given = [name for name, value in elsewhere.items() if value is not None]
        workers = self.workers
        if workers is None:
            workers = 1 if given else 0
        variant = rendering.set_variant(self.variant)
        if workers == 0:
            if given:
                raise ConfigError(
                    f"--workers 0 means this process, so it excludes {', '.join(given)}"
                )
            return None
        return execution.ClusterOptions(
            workers=workers,
            threads=self.threads,
            scheduler=self.scheduler,
            slurm=self.slurm,
            units_per_worker=self.units_per_worker or execution.UNITS_PER_WORKER,
            setup=functools.partial(rendering.set_variant, variant),
        )


def spreadable(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of :class:`Place`, which it takes as the argument ``place``.

    A default value of ``place`` holds the defaults of the options.
    """
    signature = inspect.signature(command)
    types = get_type_hints(command, include_extras=True)
    default = signature.parameters["place"].default
    default = Place() if default is inspect.Parameter.empty else default
    types_of_options = get_type_hints(Place, include_extras=True)
    if default.workers is not None:
        types_of_options["workers"] = Workers
    names = [field.name for field in fields(Place)]

    @functools.wraps(command)
    def wrapper(**values: Any) -> None:
        place = Place(**{name: values.pop(name) for name in names})
        command(**values, place=place)

    own = [
        parameter.replace(annotation=types[name])
        for name, parameter in signature.parameters.items()
        if name != "place"
    ]
    added = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=getattr(default, name),
            annotation=types_of_options[name],
        )
        for name in names
    ]
    wrapper.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in (*own, *added)}
    return wrapper
