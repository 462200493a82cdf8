"""Running many independent pieces of work, here or on many machines.

A :class:`Unit` is a picklable object that leaves its result on disk under a final name only when
it is complete; a :class:`CellUnit` is one whose results are :class:`Cell` objects, records that
know how they were made. :func:`run` skips the units whose results are there, runs the others and
reports those that failed; after a crash the same call goes on where it stopped.

Without :class:`ClusterOptions` units run in this process, one after the other, and Dask is not
imported. With them, Dask distributed sends units to workers, on this machine, at a scheduler's
address or in SLURM jobs. A Dask worker runs no unit itself: it keeps a *unit process* for that,
which is replaced after a number of units (Mitsuba's memory grows when many scenes are loaded),
when it dies, and when it uses too much memory. The worker thus stays responsive, a crash is
blamed on the right unit, and all this works the same on every kind of cluster.
"""

from __future__ import annotations

from mitsuba_gdpt.execution.cells import FAILURES, Cell, CellsError, CellUnit, collecting
from mitsuba_gdpt.execution.dispatch import run
from mitsuba_gdpt.execution.options import UNITS_PER_WORKER, ClusterOptions
from mitsuba_gdpt.execution.units import ClusterError, Interrupted, Summary, Unit

__all__ = [
    "FAILURES",
    "UNITS_PER_WORKER",
    "Cell",
    "CellUnit",
    "CellsError",
    "ClusterError",
    "ClusterOptions",
    "Interrupted",
    "Summary",
    "Unit",
    "collecting",
    "run",
]
