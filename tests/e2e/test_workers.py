"""Units on workers: sharing, crashes, limits, interruptions."""

from __future__ import annotations

import functools
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from mitsuba_gdpt import execution, rendering
from mitsuba_gdpt.execution import ClusterError, ClusterOptions
from tests.kills import unit_processes
from tests.work import (
    Crash,
    Devour,
    Kill,
    KillOnce,
    KillWorker,
    Leak,
    Raise,
    Threads,
    WriteFile,
    set_up_badly,
)

MIB = 2**20
ROOT = Path(__file__).parents[2]


def run(units, look=None, **options):
    def ended(unit, error):
        if look is not None:
            look(unit)

    cluster = ClusterOptions(**{"workers": 2, "threads": 1, **options})
    return execution.run(units, cluster=cluster, description="testing", on_ended=ended)


def write_files(folder: Path, count: int, seconds: float = 0.0) -> list[WriteFile]:
    return [WriteFile(folder, f"u{i:02}", seconds) for i in range(count)]


def ours() -> list[psutil.Process]:
    """The unit processes that are alive."""
    return unit_processes(os.getpid())


def wait_until(condition, seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_one_thread_loads_images(tmp_path: Path) -> None:
    """Mitsuba waits for a thread of its pool to read EXR files; of one thread there is none."""
    code = """
import sys
import drjit as dr
import mitsuba as mi
import numpy as np
from mitsuba_gdpt import rendering

mi.set_variant("llvm_ad_rgb")
mi.Bitmap(np.full((64, 64, 3), 0.5, np.float32)).write("sky.exr")
dr.set_thread_count(1)
source = rendering.open_source("scene.xml")
assert dr.thread_count() == 1
"""
    scene = (
        '<scene version="3.0.0"><emitter type="envmap"><string name="filename" value="sky.exr"/>'
    )
    (tmp_path / "scene.xml").write_text(scene + "</emitter></scene>")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=120
    )


def test_two_workers_share_the_work(tmp_path: Path) -> None:
    units = write_files(tmp_path, 12, 0.1)
    units[3].run()
    hosts = set()

    def look(unit: WriteFile) -> None:
        connections = psutil.Process().net_connections("inet")
        hosts.update(c.laddr.ip for c in connections if c.status == "LISTEN")

    summary = run(units, look, units_per_worker=4)
    assert (summary.done, summary.skipped, summary.failed) == (11, 1, {})
    assert hosts <= {"127.0.0.1"}  # nobody else can reach us
    records = [unit.record() for unit in units if unit is not units[3]]
    per_process = Counter(record["pid"] for record in records)
    assert max(per_process.values()) <= 4
    assert len(per_process) >= 3
    assert os.getpid() not in per_process
    assert {record["threads"] for record in records} == {"1"}
    assert all(len(unit.attempts()) == 1 for unit in units)
    assert not ours()


def test_processes_are_set_up(tmp_path: Path) -> None:
    units = [Threads(tmp_path, "a"), Threads(tmp_path, "b")]
    setup = functools.partial(rendering.set_variant, "llvm_ad_mono")
    with pytest.warns(UserWarning, match="with 99 thread"):
        summary = run(units, workers=1, threads=99, setup=setup)
    assert summary.failed == {}
    assert (tmp_path / "a.threads").read_text() == "99 llvm_ad_mono"


def test_failed_setup_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="setting up failed: nothing works here"):
        run(write_files(tmp_path, 3), setup=set_up_badly)


def test_failures_and_deaths_do_not_stop_the_others(tmp_path: Path) -> None:
    kill, crash = Kill(tmp_path, "kill"), Crash(tmp_path, "crash")
    once = KillOnce(tmp_path, "once")
    units = [Raise(tmp_path, "raise"), kill, crash, once, *write_files(tmp_path, 4)]
    summary = run(units, retries=1)
    assert summary.done == 5
    assert summary.failed == {
        "raise": "ZeroDivisionError: not this time",
        "kill": "its process was killed by SIGKILL (out of memory?), 2 times in a row",
        "crash": "its process was killed by SIGSEGV, 2 times in a row; its last words: "
        "Critical failure: no more registers",
    }
    assert [len(u.attempts()) for u in (kill, crash, once)] == [2, 2, 2]


def test_processes_killed_at_random(tmp_path: Path) -> None:
    units = write_files(tmp_path, 16, 0.15)
    rng = random.Random(1)
    killed = []

    def kill_one(unit: WriteFile) -> None:
        if (victims := ours()) and len(killed) < 4:
            killed.append(rng.choice(victims))
            killed[-1].kill()

    summary = run(units, kill_one, retries=4)
    assert len(killed) == 4
    assert (summary.done, summary.failed) == (16, {})
    assert all(unit.record()["pid"] in unit.attempts() for unit in units)


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A unit leaks 32 MiB, so 10 in one process would leave 320."""
    units = [Leak(tmp_path, f"u{i}") for i in range(10)]
    assert run(units, workers=1, units_per_worker=3).done == 10
    memory = [unit.record()["memory"] for unit in units]
    assert memory[2] - memory[0] > 60 * MIB  # the leak is real
    assert max(memory) - min(memory) < 80 * MIB


def test_too_much_memory(tmp_path: Path) -> None:
    devour = Devour(tmp_path, "devour")
    summary = run([devour, *write_files(tmp_path, 2)], memory_limit=700 * MIB)
    assert summary.done == 2
    assert summary.failed == {"devour": "its process used more than 0.68 GiB of memory"}
    assert len(devour.attempts()) == 1  # a fresh process would not help


DRIVER = """
import signal, sys
from pathlib import Path
from mitsuba_gdpt import execution
from tests.work import WriteFile

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for its "command &"
units = [WriteFile(Path(sys.argv[1]), f"u{i:02}", 0.3) for i in range(12)]
options = execution.ClusterOptions(workers=2, threads=1)
print(execution.run(units, cluster=options, description="testing"))
"""


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_stopped_driver_leaves_nothing_and_is_resumed(tmp_path: Path, signal_number: int) -> None:
    command = [sys.executable, "-c", DRIVER, str(tmp_path)]
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    environment = os.environ | {"TMPDIR": str(scratch), "PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)
    units = write_files(tmp_path, 12)
    wait_until(lambda: sum(unit.is_done() for unit in units) >= 3 or driver.poll() is not None)
    assert driver.poll() is None, driver.communicate()[1]
    children = psutil.Process(driver.pid).children(recursive=True)
    assert children
    driver.send_signal(signal_number)
    _, errors = driver.communicate(timeout=20)
    if signal_number == signal.SIGINT:
        assert "of 12 results complete; run the same again" in errors.splitlines()[-1]
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert not list(scratch.iterdir()), "temporary folders are left"
    complete = [unit for unit in units if unit.is_done()]
    assert len(complete) < 12
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert f"{12 - len(complete)} done, {len(complete)} skipped, 0 failed" in done.stdout
    assert all(len(unit.attempts()) == 1 for unit in complete)
    assert not list(tmp_path.glob(".*"))  # no temporary files


@pytest.fixture
def scheduler():
    """A Dask cluster of its own processes, as on other machines."""
    import distributed

    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        host="127.0.0.1",
        silence_logs=50,
    ) as cluster:
        yield cluster.scheduler_address


def test_external_scheduler(tmp_path: Path, scheduler: str, monkeypatch) -> None:
    killer = KillWorker(tmp_path, "killer")
    units = [killer, *write_files(tmp_path, 8, 0.1)]
    summary = run(units, scheduler=scheduler, retries=1)
    assert summary.failed == {"killer": "2 Dask workers died while they ran it"}
    assert summary.done == 8
    records = [unit.record() for unit in units[1:]]
    assert os.getpid() not in {record["parent"] for record in records}

    from mitsuba_gdpt.execution import cluster

    monkeypatch.setattr(cluster, "__version__", "9.9.9")
    with pytest.raises(ClusterError, match=r"has mitsuba_gdpt .*, the driver 9\.9\.9; install"):
        run(write_files(tmp_path / "..", 1), scheduler=scheduler)


def test_no_scheduler(tmp_path: Path, monkeypatch) -> None:
    from mitsuba_gdpt.execution import cluster

    monkeypatch.setattr(cluster, "_CONNECT_TIMEOUT", 1.0)
    with pytest.raises(ClusterError, match="cannot connect to the Dask scheduler at tcp://127"):
        run(write_files(tmp_path, 1), scheduler="tcp://127.0.0.1:9")
