"""The one entry point: which units have to run, where, and what became of them."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from mitsuba_gdpt import interrupts, progress
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.execution.options import ClusterOptions, cores
from mitsuba_gdpt.execution.units import AnyUnit, Interrupted, Outcome, Summary, Unit, attempt

_log = logging.getLogger(__name__)

#: Seconds in which a file written on another host should become visible on this one.
_PATIENCE = 10.0


def run(
    units: Sequence[AnyUnit],
    *,
    cluster: ClusterOptions | None = None,
    description: str | None,
    on_ended: Callable[[AnyUnit, str], None] | None = None,
) -> Summary:
    """Run the units whose results are not there yet.

    A unit that fails does not stop the others. Call it again after a failure, an interruption or
    a crash: it goes on where it stopped.

    Args:
        units: Handed out in this order.
        cluster: Where to run; by default in this process, one after the other.
        description: For the progress report ("rendering crops"); None reports nothing.
        on_ended: Called in this thread for every unit, at once for those that are skipped, with
            the error in one line, or an empty text.

    Raises:
        ConfigError: Two units have the same key.
        ClusterError: There is no cluster to work with.
        Interrupted: Ctrl-C; units in progress are abandoned.
    """
    _check_keys(units)
    summary, todo = Summary(), []
    for unit in units:
        if not unit.is_done():
            todo.append(unit)
            continue
        summary.skipped += 1
        if on_ended is not None:
            on_ended(unit, "")
    if not todo:
        return summary
    patience = 0.0 if cluster is None else _PATIENCE
    with interrupts.watching(), _reported(description, len(todo)) as advance:

        def finish(unit: AnyUnit, outcome: Outcome) -> None:
            error = outcome.error or _missing_result(unit, patience)
            if error:
                summary.failed[unit.key] = error
                _log.info("unit %s failed: %s\n%s", unit.key, error, outcome.details)
            else:
                summary.done += 1
            if on_ended is not None:
                on_ended(unit, error)
            advance()

        try:
            if cluster is None:
                for unit in todo:
                    finish(unit, attempt(unit))
            else:
                _warn_of_too_many_threads(cluster)
                from mitsuba_gdpt.execution.cluster import run_units

                run_units(todo, cluster, finish)
        except KeyboardInterrupt as error:
            finished = summary.done + summary.skipped
            raise Interrupted(
                f"interrupted with {finished} of {len(units)} results complete; run the same "
                "again to go on from there"
            ) from error
    return summary


@contextmanager
def _reported(description: str | None, total: int) -> Iterator[Callable[[], None]]:
    """Report progress; yields what advances it."""
    if description is None:
        yield lambda: None
        return
    with progress.task(description, total=total) as task:
        yield task.advance


def _check_keys(units: Sequence[Unit]) -> None:
    seen: set[str] = set()
    for unit in units:
        if unit.key in seen:
            raise ConfigError(f"two units have the key {unit.key!r}; expected unique keys")
        seen.add(unit.key)


def _missing_result(unit: Unit, patience: float) -> str:
    """Look for the result of a unit that ended well; network file systems may need a moment."""
    interrupts.check()
    end = time.monotonic() + patience
    while not unit.is_done():
        if time.monotonic() >= end:
            where = "; do the workers share this file system?" if patience else ""
            return f"it ran without an error, but its result is not there{where}"
        time.sleep(0.2)
    return ""


def _warn_of_too_many_threads(cluster: ClusterOptions) -> None:
    if cluster.scheduler is not None or cluster.slurm is not None:
        return
    wanted, there = cluster.workers * cluster.local_threads, cores()
    if wanted > there:
        warnings.warn(
            f"{cluster.workers} workers with {cluster.local_threads} thread(s) each want {wanted} "
            f"cores, this process may use {there}; they will slow each other down",
            stacklevel=3,
        )
