"""Where units run and what their processes may use."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mitsuba_gdpt import checks, packages
from mitsuba_gdpt.errors import ConfigError

#: Mitsuba's leaks are of the order of megabytes per scene; starting a process takes about a second.
UNITS_PER_WORKER = 100
_MOST_WORKERS = 10_000


@dataclass(frozen=True)
class ClusterOptions:
    """A Dask cluster; by default one that lives in this process and ends with it.

    Attributes:
        workers: Number of workers, each running one unit at a time: processes on this machine,
            or SLURM jobs. Has no meaning with ``scheduler``, where all workers are used.
        threads: Threads per worker, for Dr.Jit and for torch. By default the cores that this
            process may use are divided among local workers; elsewhere it is the number of threads
            that the Dask worker was started with (``dask worker --nthreads``).
        scheduler: Address of a running Dask scheduler (``tcp://host:8786``).
        slurm: TOML file of options of ``dask_jobqueue.SLURMCluster``; see docs/how-to/execution.md.
        setup: Called once in each unit process before its first unit, for example
            ``functools.partial(rendering.set_variant, "llvm_ad_rgb")``. Has to be picklable.
        units_per_worker: A worker's process is replaced after this many units.
        retries: How often a unit whose process died is tried again.
        memory_limit: Bytes that a unit process may occupy before it is killed. By default the
            memory of this machine is divided among local workers; elsewhere it is the limit of the
            Dask worker, if that has one.

    Raises:
        ConfigError: A number is out of range, or scheduler and slurm are both given.
        MissingDependencyError: Dask is not installed.
    """

    workers: int = 1
    threads: int | None = None
    scheduler: str | None = None
    slurm: str | os.PathLike[str] | None = None
    setup: Callable[[], object] | None = None
    units_per_worker: int = UNITS_PER_WORKER
    retries: int = 2
    memory_limit: int | None = None

    def __post_init__(self) -> None:
        for name, least, most in (
            ("workers", 1, _MOST_WORKERS),
            ("threads", 1, _MOST_WORKERS),
            ("units_per_worker", 1, checks.MOST),
            ("retries", 0, checks.MOST),
            ("memory_limit", 1, 1 << 62),
        ):
            if (value := getattr(self, name)) is not None:
                checks.whole(name, value, least=least, most=most)
        if self.scheduler is not None and self.slurm is not None:
            raise ConfigError(
                "got both a scheduler address and SLURM options; expected one of them: SLURM jobs "
                "connect to a scheduler of their own"
            )
        if self.scheduler is not None and "://" not in self.scheduler:
            raise ConfigError(
                f"got the scheduler address {self.scheduler!r}; expected one like tcp://host:8786"
            )
        if self.slurm is not None and not Path(self.slurm).is_file():
            raise ConfigError(f"the file of SLURM options {self.slurm} does not exist")
        packages.check("distributed", "batch")
        if self.slurm is not None:
            packages.check("dask_jobqueue", "batch")

    @property
    def local_threads(self) -> int:
        """Threads per worker on this machine."""
        return self.threads or max(1, cores() // self.workers)


def cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
