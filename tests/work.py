"""Small work units for the tests of execution; importable by the processes that run them."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.files import replace_text

HOARD: list[bytearray] = []  # what leaking units leave behind


@dataclass(frozen=True)
class WriteFile:
    """Writes who ran it into a file, after some time."""

    folder: Path
    key: str
    seconds: float = 0.0

    @property
    def path(self) -> Path:
        return self.folder / f"{self.key}.json"

    def is_done(self) -> bool:
        return self.path.exists()

    def run(self) -> None:
        with (self.folder / f"{self.key}.attempts").open("a") as attempts:
            attempts.write(f"{os.getpid()}\n")
        self.work()
        record = {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "threads": os.environ.get("OMP_NUM_THREADS"),
            "memory": psutil.Process().memory_info().rss,
        }
        replace_text(self.path, json.dumps(record))

    def work(self) -> None:
        time.sleep(self.seconds)

    def record(self) -> dict:
        return json.loads(self.path.read_text())

    def attempts(self) -> list[int]:
        path = self.folder / f"{self.key}.attempts"
        return [int(line) for line in path.read_text().split()] if path.exists() else []


class Raise(WriteFile):
    def work(self) -> None:
        raise ZeroDivisionError("not\nthis time")


class RaiseOurs(WriteFile):
    def work(self) -> None:
        raise ConfigError("got a, expected b; do c")


class Interrupt(WriteFile):
    def work(self) -> None:
        raise KeyboardInterrupt


class Disguise(WriteFile):
    """Makes another error of an interrupt, as callbacks of Dr.Jit do."""

    def work(self) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise RuntimeError("dr.while_loop(): encountered an exception") from error


class Swallow(WriteFile):
    """Presses Ctrl-C, and takes no notice the first time."""

    def work(self) -> None:
        if len(self.attempts()) == 1:
            with contextlib.suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)


class Grandchild(WriteFile):
    """Starts a Python that imports modules of common names."""

    def work(self) -> None:
        subprocess.run([sys.executable, "-c", "import random, pickle, numpy"], check=True)


class LeaveTemporaryFile(WriteFile):
    def work(self) -> None:
        descriptor, path = tempfile.mkstemp()
        os.close(descriptor)
        (self.folder / f"{self.key}.where").write_text(path)

    def where(self) -> Path:
        return Path((self.folder / f"{self.key}.where").read_text())


class Forget(WriteFile):
    """Runs without leaving a result."""

    def run(self) -> None:
        pass


class Kill(WriteFile):
    def work(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class KillOnce(WriteFile):
    def work(self) -> None:
        if len(self.attempts()) == 1:
            os.kill(os.getpid(), signal.SIGKILL)


class KillWorker(WriteFile):
    """Kills the Dask worker that keeps its process."""

    def work(self) -> None:
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)


class Crash(WriteFile):
    def work(self) -> None:
        os.write(2, b"Critical failure: no more registers\n")
        ctypes.string_at(0)


class Leak(WriteFile):
    def work(self) -> None:
        HOARD.append(bytearray(os.urandom(1024) * 1024 * 32))


class Devour(WriteFile):
    def work(self) -> None:
        for _ in range(100):
            HOARD.append(bytearray(os.urandom(1024) * 1024 * 16))
            time.sleep(0.02)


class Threads(WriteFile):
    """Records the size of Dr.Jit's pool and the variant as well."""

    def work(self) -> None:
        import drjit as dr
        import mitsuba as mi

        (self.folder / f"{self.key}.threads").write_text(f"{dr.thread_count()} {mi.variant()}")


def set_up_badly() -> None:
    raise ConfigError("nothing works here")
