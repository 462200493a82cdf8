"""The part that talks to Dask: clusters, workers, and the loop that hands out units.

The only module of the package that imports Dask; :func:`mitsuba_gdpt.execution.run` imports it
when it is needed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import distributed
from distributed.diagnostics.plugin import WorkerPlugin

from mitsuba_gdpt import interrupts, subprocesses, toml
from mitsuba_gdpt._version import __version__
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.execution.options import ClusterOptions
from mitsuba_gdpt.execution.process import ProcessKeeper
from mitsuba_gdpt.execution.units import AnyUnit, ClusterError, Outcome

_POLL_INTERVAL = 1.0  # seconds between two looks for new workers
_CONNECT_TIMEOUT = 20.0
_PLUGIN_TIMEOUT = 10.0
_LOOPBACK = "127.0.0.1:0"
_SUBMIT_TIMEOUT = 60.0
_ADAPT = "adapt"  # table of the SLURM options with the arguments of Cluster.adapt()
_log = logging.getLogger(__name__)


class UnitPlugin(WorkerPlugin):
    """Gives a Dask worker its unit processes, and ends them with it."""

    def __init__(self, options: ClusterOptions, memory_limit: int | None) -> None:
        """Take what unit processes need to know.

        Args:
            options: As given by the user.
            memory_limit: Bytes per unit process; None for what the Dask worker has.
        """
        self.name = f"mitsuba-gdpt-{uuid.uuid4().hex}"  # several drivers may share a cluster
        self.version = __version__
        self._threads = options.threads
        self._memory_limit = memory_limit
        self._keeper_options = {
            "setup": cloudpickle.dumps(options.setup),
            "units_per_process": options.units_per_worker,
            "retries": options.retries,
        }
        self._keeper: ProcessKeeper | None = None

    def setup(self, worker: distributed.Worker) -> None:
        """Called by Dask on each worker, also on those that join later."""
        limit = self._memory_limit or worker.memory_manager.memory_limit
        self._keeper = ProcessKeeper(
            **self._keeper_options,
            threads=self._threads or worker.state.nthreads,
            memory_limit=limit,
            name=worker.address,
        )

    def teardown(self, worker: distributed.Worker) -> None:
        """Called by Dask when the worker or the run ends."""
        if self._keeper is not None:
            self._keeper.close()

    def run(self, payload: bytes) -> Outcome:
        """Run a pickled unit in this worker's unit process."""
        assert self._keeper is not None, "Dask did not set this plugin up"
        return self._keeper.run(payload)


class UnitError(Exception):
    """Brings the outcome of a failed unit home.

    Dask sends an exception along with the news of the failure, while a return value stays on the
    worker until it is asked for, and is lost with it.
    """

    def __init__(self, outcome: Outcome) -> None:
        """Wrap an outcome."""
        super().__init__(outcome)
        self.outcome = outcome


def run_on_worker(payload: bytes, plugin: str, version: str) -> None:
    """Run a pickled unit; the task that Dask sees."""
    worker = distributed.get_worker()
    if version != __version__:
        raise UnitError(Outcome(_other_version(version, __version__), unfit=worker.address))
    end = time.monotonic() + _PLUGIN_TIMEOUT
    while plugin not in worker.plugins:  # it has joined just now
        if time.monotonic() >= end:
            raise UnitError(Outcome("it has not been set up; see its log", unfit=worker.address))
        time.sleep(0.1)
    setup: Any = worker.plugins[plugin]
    outcome: Outcome = setup.run(payload)
    if outcome.error:
        raise UnitError(outcome)


def run_units(
    units: Sequence[AnyUnit], options: ClusterOptions, finish: Callable[[AnyUnit, Outcome], None]
) -> None:
    """Run units on a cluster; ``finish`` is called in this thread as each one ends.

    Raises:
        ClusterError: No connection, or no worker that can run units.
        ConfigError: The SLURM options make no sense.
    """
    with _client(options) as (client, refusals):
        _check_versions(client)
        local = options.scheduler is None and options.slurm is None
        limit = options.memory_limit
        if local and limit is None:
            limit = distributed.system.MEMORY_LIMIT // options.workers
        plugin = UnitPlugin(options, limit)
        client.register_plugin(plugin)
        try:
            with client.as_current():
                _hand_out(units, client, plugin.name, options.retries, finish, refusals)
        finally:
            try:
                client.unregister_worker_plugin(plugin.name)
            except Exception as error:  # unit processes without a master end by themselves
                _log.debug("cannot clean up on the workers: %s", error)


def _hand_out(
    units: Sequence[AnyUnit],
    client: distributed.Client,
    plugin: str,
    retries: int,
    finish: Callable[[AnyUnit, Outcome], None],
    refusals: Sequence[str],
) -> None:
    """Keep each worker busy with one unit at a time, and send the units of dead workers to others.

    Not left to Dask, which queues several units on a worker and blames all of them when it dies.
    ``refusals`` grows when the cluster cannot start a worker.
    """
    waiting, active = deque(units), dict[distributed.Future, tuple[AnyUnit, str]]()
    unfit: dict[str, Outcome] = {}
    deaths: Counter[str] = Counter()
    while waiting or active:
        interrupts.check()
        workers = set(_ask(client.nthreads))
        if refusals and not workers:
            raise ClusterError(f"the cluster cannot start workers: {refusals[0]}")
        for future, (unit, address) in list(active.items()):
            if address in workers:
                continue
            future.cancel()
            del active[future]
            deaths[unit.key] += 1
            if deaths[unit.key] > retries and not unit.is_done():
                finish(unit, Outcome(f"{deaths[unit.key]} Dask workers died while they ran it"))
            else:
                waiting.appendleft(unit)
        if not active and workers and workers <= unfit.keys():
            address, outcome = next(iter(unfit.items()))
            _log.info("%s: %s", address, outcome.details)
            raise ClusterError(f"no worker can run units; {address}: {outcome.error}")
        busy = {address for _, address in active.values()}
        for address in sorted(workers - busy - unfit.keys()):
            if not waiting:
                break
            unit = waiting.popleft()
            future = client.submit(
                run_on_worker,
                cloudpickle.dumps(unit),
                plugin,
                __version__,
                key=f"{unit.key}-{uuid.uuid4().hex}",
                workers=[address],
                pure=False,
            )
            active[future] = unit, address
        for future in _wait(active):
            unit, _ = active.pop(future)
            outcome = _outcome(future)
            if outcome.unfit:
                _log.warning("%s runs no more units: %s", outcome.unfit, outcome.error)
                unfit[outcome.unfit] = outcome
                waiting.appendleft(unit)
            else:
                finish(unit, outcome)


def _wait(futures: dict[distributed.Future, Any]) -> set[distributed.Future]:
    """Wait for a future to end, but not longer than it is good not to look for new workers."""
    if not futures:
        time.sleep(_POLL_INTERVAL)
        return set()
    try:
        done: set[distributed.Future] = distributed.wait(
            list(futures), timeout=_POLL_INTERVAL, return_when="FIRST_COMPLETED"
        ).done
    except (TimeoutError, distributed.TimeoutError):
        return set()
    return done


def _outcome(future: distributed.Future) -> Outcome:
    """Tell what became of a unit whose future has ended."""
    if future.status == "cancelled":
        raise ClusterError("the connection to the Dask scheduler was lost; start it and try again")
    if future.status != "error":  # the result is on disk, and is looked for there
        return Outcome()
    error = future.exception()
    if isinstance(error, UnitError):
        return error.outcome
    return Outcome.of(error)


def _ask(question: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return question(*arguments)
    except (OSError, ValueError, distributed.CancelledError) as error:
        raise ClusterError(f"the Dask scheduler does not answer: {error}") from error


# ------------------------------------------------------------------------------------- clusters


@contextmanager
def _client(options: ClusterOptions) -> Iterator[tuple[distributed.Client, list[str]]]:
    """Connect to the cluster that is asked for, starting it if it is to be ours.

    Yields:
        The client, and a list to which is added why workers cannot be started.
    """
    refusals: list[str] = []
    with (
        subprocesses.scratch() as folder,
        dask.config.set(
            {
                "temporary-directory": str(folder),
                "distributed.scheduler.work-stealing": False,
            }
        ),
    ):
        if options.scheduler is not None:
            with _connect(options.scheduler) as client:
                yield client, refusals
        elif options.slurm is not None:
            # Its scheduler has to be reached from other hosts, so it listens on all interfaces.
            with (
                _closing(slurm_cluster(options.slurm, options.workers, refusals)) as cluster,
                _connect(cluster) as client,
            ):
                yield client, refusals
        else:
            with _local_cluster(options) as cluster, _connect(cluster) as client:
                yield client, refusals


@contextmanager
def _closing(cluster: Any) -> Iterator[Any]:
    """Close a cluster in the end, also one whose workers are just being refused."""
    try:
        yield cluster
    finally:
        try:
            cluster.close()
        except AssertionError as error:  # Dask's own, of a worker that it could not start
            _log.debug("cannot close the cluster properly: %s", error)


def _local_cluster(options: ClusterOptions) -> distributed.LocalCluster:
    """Start a scheduler and workers inside this process.

    Workers only look after their unit processes. They talk through memory; Dask also gives each
    node an HTTP server, dashboard or not, which is kept from other machines.
    """
    return distributed.LocalCluster(
        n_workers=options.workers,
        threads_per_worker=options.local_threads,
        processes=False,
        dashboard_address=_LOOPBACK,
        worker_dashboard_address=_LOOPBACK,
        scheduler_kwargs={"dashboard": False},
        memory_limit=None,  # would be compared with the memory of this process
        silence_logs=logging.ERROR,
    )


def slurm_cluster(
    path: str | os.PathLike[str], workers: int, refusals: list[str] | None = None
) -> Any:
    """Start a scheduler whose workers are SLURM jobs.

    Args:
        path: TOML file with keyword arguments of ``dask_jobqueue.SLURMCluster``. An optional table
            ``[adapt]`` holds those of ``Cluster.adapt``, and decides on the number of jobs.
        workers: Number of jobs without such a table.
        refusals: What the scheduler says to jobs that it does not take is added to this list.

    Raises:
        FormatError: The file is not TOML.
        ConfigError: An option is unknown or missing.
        ClusterError: There is no SLURM here.
    """
    with interrupts.kept():  # dask_jobqueue would make Ctrl-C a success
        from dask_jobqueue.slurm import SLURMCluster, SLURMJob

    settings = toml.read(Path(path))
    adapt = settings.pop(_ADAPT, None)
    if adapt is not None and not isinstance(adapt, dict):
        raise ConfigError(f"{path}: {_ADAPT} is {adapt!r}; expected a table [{_ADAPT}]")
    said: list[str] = [] if refusals is None else refusals

    class Job(SLURMJob):
        """Tells what becomes of its submission, where Dask would log it and wait for ever."""

        async def start(self) -> None:
            try:
                await asyncio.wait_for(super().start(), _SUBMIT_TIMEOUT)
            except Exception as error:
                said.append(_submission(error, self.submit_command))
                await distributed.deploy.spec.ProcessInterface.start(self)

    class Cluster(SLURMCluster):
        job_cls = Job

    settings["scheduler_options"] = {"dashboard": False, **settings.get("scheduler_options", {})}
    settings.setdefault("silence_logs", logging.ERROR)
    # Workers shall not look for modules in the folder in which they happen to be started.
    prologue = settings.get("job_script_prologue")
    if prologue is None:
        prologue = dask.config.get("jobqueue.slurm.job-script-prologue", None) or []
    settings["job_script_prologue"] = ["export PYTHONSAFEPATH=1", *prologue]
    try:
        cluster = Cluster(**settings)
    except OSError as error:
        raise ClusterError(f"{path}: the Dask scheduler does not start: {error}") from error
    except Exception as error:  # whatever it makes of values of the wrong kind
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: dask_jobqueue.SLURMCluster refuses this: {reason}") from error
    try:
        if adapt is None:
            cluster.scale(jobs=workers)
        else:
            cluster.adapt(**adapt)
    except (TypeError, ValueError) as error:
        cluster.close()
        raise ConfigError(f"{path}: [{_ADAPT}] is refused: {error}") from error
    return cluster


def _submission(error: Exception, command: str) -> str:
    """Return what went wrong with a job's submission, in the scheduler's own words."""
    program = shlex.split(command)[0]
    if shutil.which(program) is None:
        return f"{program} not found; run this where SLURM jobs can be submitted"
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return f"{program} did not answer within {_SUBMIT_TIMEOUT:.0f} s"
    text = str(error)
    _, mark, words = text.partition("stderr:")  # dask_jobqueue puts its own command before it
    lines = [line.strip() for line in (words if mark else text).splitlines() if line.strip()]
    return " ".join(lines) or type(error).__name__


def _connect(target: Any) -> distributed.Client:
    try:
        return distributed.Client(target, timeout=_CONNECT_TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"cannot connect to the Dask scheduler at {target}: {error}; start one with "
            "'dask scheduler', or leave the address out to work on this machine"
        ) from error


def _check_versions(client: distributed.Client) -> None:
    """Ask the workers that are there for their version; later ones are asked by each task."""
    answers = _ask(lambda: client.run(_version, on_error="return"))
    for address, answer in answers.items():
        if isinstance(answer, Exception):
            raise ClusterError(
                f"the worker {address} cannot use mitsuba_gdpt: {answer}; install version "
                f"{__version__} there, with the extra 'batch'"
            )
        if answer != __version__:
            raise ClusterError(f"the worker {address} {_other_version(__version__, answer)}")


def _version() -> str:
    return __version__


def _other_version(driver: str, worker: str) -> str:
    return f"has mitsuba_gdpt {worker}, the driver {driver}; install the same version on both"
