"""A worker's side of its unit process: start, watch, replace."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mitsuba_gdpt import subprocesses
from mitsuba_gdpt.execution import link
from mitsuba_gdpt.execution.units import Outcome

_POLL_INTERVAL = 0.1
_GRACE = 2.0  # seconds between asking a process to end and killing it
_TAIL = 2000  # characters of output that are kept when a process has died
_PROGRAM = (
    "from mitsuba_gdpt.execution.child import main; main(*map(int, sys.argv[1:3]), *sys.argv[3:])"
)


class UnitProcess:
    """One process that runs units, one after the other, until it is closed or dies."""

    def __init__(self, setup: bytes, threads: int, memory_limit: int | None, scratch: Path) -> None:
        """Start the process and run the setup in it.

        Args:
            setup: Pickled callable or None.
            threads: For Dr.Jit and torch.
            memory_limit: Bytes of resident memory at which it is killed.
            scratch: Folder of this process for temporary files. The new one gets a folder in it,
                and removes all of it if this process dies.
        """
        self.units = 0
        self.too_large = False
        self._limit = memory_limit
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  (closed in close())
        self._folder = tempfile.mkdtemp(dir=scratch)

        def child(
            address: str, more: Mapping[str, str], words: dict[str, Any]
        ) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                subprocesses.python(_PROGRAM, os.getpid(), threads, scratch, address),
                env={**_environment(threads, self._folder), **more},
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                **words,
            )

        self._process, self._connection = link.start(child)
        self.setup_outcome = self._ask(setup)

    @property
    def alive(self) -> bool:
        """Whether the process can take another unit."""
        return self._process.poll() is None

    def run(self, payload: bytes) -> Outcome | None:
        """Run a pickled unit; None if the process died of it."""
        self.units += 1
        return self._ask(payload)

    def cause_of_death(self) -> str:
        """Describe in one line how the process ended."""
        if self.too_large:
            assert self._limit is not None
            return f"its process used more than {self._limit / 2**30:.2f} GiB of memory"
        code = self._reap()
        if code >= 0:
            return f"its process ended with exit code {code}"
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"its process was killed by {signal.Signals(-code).name}{hint}"

    def last_output(self) -> str:
        """Return the end of what the process wrote to standard output and error."""
        size = os.fstat(self._output.fileno()).st_size
        start = max(0, size - _TAIL)
        if hasattr(os, "pread"):  # the process shares the file position
            tail = os.pread(self._output.fileno(), _TAIL, start)
        else:
            self._output.seek(start)
            tail = self._output.read(_TAIL)
            self._output.seek(0, os.SEEK_END)
        return tail.decode(errors="replace").strip()

    def close(self) -> None:
        """Let the process end; one that does not is killed."""
        self._connection.close()  # it takes that for the sign to leave
        self._reap()
        self._output.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def stop(self) -> None:
        """End the process in the middle of a unit; for other threads than the one that waits."""
        self._process.terminate()
        self._reap()

    def _reap(self) -> int:
        try:
            return self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _ask(self, message: bytes) -> Outcome | None:
        try:
            self._connection.send_bytes(message)
            while not self._connection.poll(_POLL_INTERVAL):
                if self._limit is not None and resident_memory(self._process.pid) > self._limit:
                    self.too_large = True
                    self._process.kill()
            outcome: Outcome = self._connection.recv()
        except (EOFError, OSError):
            return None
        return outcome


class ProcessKeeper:
    """Keeps a fit unit process at hand: replaces one that is worn out or dead.

    Thread-safe; one unit runs at a time.
    """

    def __init__(
        self,
        *,
        setup: bytes,
        threads: int,
        units_per_process: int,
        retries: int,
        memory_limit: int | None,
        name: str,
    ) -> None:
        """Remember how processes are started; none is before the first unit.

        Args:
            setup: Pickled callable or None, run first in each process.
            threads: Per process.
            units_per_process: After these a process is replaced.
            retries: Further attempts at a unit whose process died.
            memory_limit: Bytes per process, or None.
            name: Who is to blame if no process can be set up.
        """
        self._setup, self._threads, self._limit = setup, threads, memory_limit
        self._units_per_process, self._retries, self._name = units_per_process, retries, name
        self._lock = threading.Lock()
        self._process: UnitProcess | None = None
        self._closed = False
        self._stack = ExitStack()
        self._scratch = self._stack.enter_context(subprocesses.scratch())

    def run(self, payload: bytes) -> Outcome:
        """Run a pickled unit, again if its process dies, and say what came of it."""
        with self._lock:
            reason = output = ""
            tries = 0
            while tries <= self._retries and not self._closed:
                tries += 1
                process = self._fit_process()
                setup = process.setup_outcome
                if setup is None or setup.error:
                    error = process.cause_of_death() if setup is None else setup.error
                    details = process.last_output() if setup is None else setup.details
                    self._discard()
                    return Outcome(f"setting up failed: {error}", details, unfit=self._name)
                fresh = process.units == 0
                outcome = process.run(payload)
                if outcome is not None:
                    if process.units >= self._units_per_process:
                        self._discard()
                    return outcome
                reason, output = process.cause_of_death(), process.last_output()
                self._discard()
                if process.too_large and fresh:  # it would be again
                    break
            if self._closed:
                return Outcome("stopped", unfit=self._name)
            last = f"; its last words: {output.splitlines()[-1]}" if output else ""
            times = f", {tries} times in a row" if tries > 1 else ""
            return Outcome(f"{reason}{times}{last}", output)

    def close(self) -> None:
        """End the process and whatever runs in it."""
        self._closed = True
        while not self._lock.acquire(timeout=_POLL_INTERVAL):
            if (process := self._process) is not None:
                process.stop()
        self._discard()
        self._stack.close()
        self._lock.release()

    def _fit_process(self) -> UnitProcess:
        if self._process is not None and not self._process.alive:  # died while idle
            self._discard()
        if self._process is None:
            self._process = UnitProcess(self._setup, self._threads, self._limit, self._scratch)
        return self._process

    def _discard(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None


def resident_memory(pid: int) -> int:
    """Return the resident memory of a process in bytes, 0 if it has ended."""
    import psutil  # comes with distributed

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _environment(threads: int, folder: str) -> dict[str, str]:
    """Environment of a unit process: where temporary files go, thread counts of the libraries."""
    return {
        "OMP_WAIT_POLICY": "PASSIVE",  # other processes want the cores
        **subprocesses.environment(),
        "TMPDIR": folder,
        **{f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "MKL", "OPENBLAS")},
    }
