"""Units in this process, and what can be said without starting workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mitsuba_gdpt import execution, interrupts, progress, subprocesses
from mitsuba_gdpt.errors import ConfigError, GDPTError
from mitsuba_gdpt.execution import ClusterError, ClusterOptions
from mitsuba_gdpt.execution.dispatch import cores
from tests.work import (
    Disguise,
    Forget,
    Grandchild,
    Interrupt,
    LeaveTemporaryFile,
    Raise,
    RaiseOurs,
    Swallow,
    WriteFile,
)


def run(units, **arguments):
    return execution.run(units, description="testing", **arguments)


def test_runs_what_is_missing(tmp_path: Path) -> None:
    units = [WriteFile(tmp_path, f"u{i}") for i in range(4)]
    units[1].run()
    ended = []
    summary = run(units, on_ended=lambda unit, error: ended.append((unit, error)))
    assert (summary.done, summary.skipped, summary.failed) == (3, 1, {})
    assert ended == [(units[number], "") for number in (1, 0, 2, 3)]
    assert [len(unit.attempts()) for unit in units] == [1, 1, 1, 1]
    again = run(units)
    assert (again.done, again.skipped) == (0, 4)
    assert str(again) == "0 done, 4 skipped, 0 failed"


def test_failures_do_not_stop_the_others(tmp_path: Path) -> None:
    units = [
        Raise(tmp_path, "a"),
        RaiseOurs(tmp_path, "b"),
        Forget(tmp_path, "c"),
        WriteFile(tmp_path, "d"),
    ]
    summary = run(units)
    assert summary.done == 1
    assert summary.failed == {
        "a": "ZeroDivisionError: not this time",
        "b": "got a, expected b; do c",
        "c": "it ran without an error, but its result is not there",
    }


def test_progress(tmp_path: Path) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.calls: list[object] = []

        def start(self, description: str, total: float) -> Recorder:
            self.calls.append((description, total))
            return self

        def advance(self, amount: float = 1.0) -> None:
            self.calls.append(amount)

        def close(self) -> None:
            self.calls.append("closed")

    recorder = Recorder()
    with progress.reporting(recorder):
        run([WriteFile(tmp_path, "a"), Raise(tmp_path, "b")])
    assert recorder.calls == [("testing", 2), 1.0, 1.0, "closed"]


def test_interruption_says_how_to_go_on(tmp_path: Path) -> None:
    units = [WriteFile(tmp_path, "a"), Interrupt(tmp_path, "b"), WriteFile(tmp_path, "c")]
    with pytest.raises(KeyboardInterrupt, match=r"1 of 3 results complete; run the same again"):
        run(units)
    assert not units[2].is_done()


def test_interrupt_that_became_another_error_is_no_failure(tmp_path: Path) -> None:
    units = [Disguise(tmp_path, "a"), WriteFile(tmp_path, "b")]
    with pytest.raises(KeyboardInterrupt, match=r"0 of 2 results complete"):
        run(units)
    assert not units[1].is_done()


def test_interrupt_that_a_unit_swallows_ends_the_run(tmp_path: Path) -> None:
    units = [Swallow(tmp_path, "a"), WriteFile(tmp_path, "b")]
    with pytest.raises(KeyboardInterrupt, match=r"of 2 results complete"):
        run(units)
    assert not units[1].is_done()
    assert not interrupts.noticed()
    assert run(units).failed == {}


def test_keys_have_to_differ(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two units have the key 'a'"):
        run([WriteFile(tmp_path, "a"), WriteFile(tmp_path, "b"), WriteFile(tmp_path, "a")])


def test_serial_runs_import_no_dask() -> None:
    code = (
        "import sys; from mitsuba_gdpt import execution; execution.run([], description='x'); "
        "assert not {'dask', 'distributed', 'torch'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers is 0; expected at least 1"),
        ({"threads": 0}, "threads is 0"),
        ({"units_per_worker": 0}, "units_per_worker is 0"),
        ({"workers": 2.5}, "workers is 2.5; expected a whole number"),
        ({"threads": float("nan")}, "threads is nan"),
        ({"retries": -1}, "retries is -1; expected at least 0"),
        ({"scheduler": "localhost:8786"}, "expected one like tcp://"),
        ({"scheduler": "tcp://a:1", "slurm": "x.toml"}, "expected one of them"),
        ({"slurm": "/nonexistent/x.toml"}, "does not exist"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ClusterOptions(**options)


def test_cores_are_divided() -> None:
    assert ClusterOptions(workers=1).local_threads == cores()
    assert ClusterOptions(workers=10 * cores()).local_threads == 1
    assert ClusterOptions(workers=2, threads=3).local_threads == 3


def test_slurm_job_script(tmp_path: Path) -> None:
    from mitsuba_gdpt.execution.cluster import slurm_cluster

    options = tmp_path / "slurm.toml"
    options.write_text(
        'queue = "cpu"\ncores = 8\nprocesses = 1\nmemory = "16GB"\nwalltime = "02:00:00"\n'
        'interface = "lo"\njob_extra_directives = ["--qos=low"]\n'
        "[adapt]\nminimum_jobs = 0\nmaximum_jobs = 4\n"
    )
    with slurm_cluster(options, workers=2) as cluster:
        script = cluster.job_script()
        assert "http" not in cluster.scheduler.services
    for line in ("#SBATCH -p cpu", "#SBATCH --cpus-per-task=8", "-t 02:00:00", "--qos=low"):
        assert line in script
    assert "--nthreads 8" in script  # one unit at a time, with all cores of the job
    assert "--memory-limit" in script
    assert "export PYTHONSAFEPATH=1" in script  # no module of the folder that it starts in


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cores = ", "cannot read this TOML file"),
        ('memory = "1GB"', "refuses this: .*cores"),
        ('cores = 1\nmemory = "1GB"\nquene = "cpu"', "refuses this: .*quene"),
        ('adapt = 3\ncores = 1\nmemory = "1GB"', "expected a table"),
    ],
)
def test_bad_slurm_options(tmp_path: Path, text: str, message: str) -> None:
    from mitsuba_gdpt.execution.cluster import slurm_cluster

    options = tmp_path / "slurm.toml"
    options.write_text(text)
    with pytest.raises(GDPTError, match=message):
        slurm_cluster(options, workers=1)


SLURM = """queue = "cpu"\ncores = 2\nprocesses = 1\nmemory = "2GB"\ninterface = "lo"\n"""


@pytest.mark.parametrize(
    ("sbatch", "message"),
    [
        (None, "cannot start workers: sbatch not found"),
        ("echo sbatch: error: no such partition >&2; exit 1", "sbatch: error: no such partition"),
        ("exit 3", "cannot start workers: "),
        ("echo sent", "cannot start workers: .*job id"),
    ],
)
def test_a_cluster_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd, sbatch: str | None, message: str
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    if sbatch is not None:
        (programs / "sbatch").write_text(f"#!/bin/sh\n{sbatch}\n")
        (programs / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    options = tmp_path / "slurm.toml"
    options.write_text(SLURM)
    with pytest.raises(ClusterError, match=message):
        run([WriteFile(tmp_path, "a")], cluster=ClusterOptions(slurm=options))
    assert "Traceback" not in capfd.readouterr().err


HOSTILE = """
import pathlib
pathlib.Path({marker!r}).touch()
raise SystemExit(99)
"""


def test_children_run_no_file_of_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, results, marker = tmp_path / "here", tmp_path / "results", tmp_path / "executed"
    here.mkdir()
    results.mkdir()
    for name in ("random", "numpy", "mitsuba_gdpt", "pickle", "drjit", "sitecustomize"):
        (here / f"{name}.py").write_text(HOSTILE.format(marker=str(marker)))
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend("")  # as in an interactive session
    units = [WriteFile(results, "a"), Grandchild(results, "b")]
    assert run(units, cluster=ClusterOptions(workers=1, threads=1)).failed == {}
    assert not marker.exists()


def test_temporary_folders_go_with_their_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    results = tmp_path / "results"
    results.mkdir()
    unit = LeaveTemporaryFile(results, "a")
    assert run([unit], cluster=ClusterOptions(workers=1, threads=1)).failed == {}
    assert unit.where().parent.parent.name.startswith("mitsuba-gdpt-")
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_what_the_dead_left_is_removed_and_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import os, sys; from mitsuba_gdpt import subprocesses as s; "
        "c = s.scratch(); f = c.__enter__(); (f / 'x').touch(); print(f, flush=True); {}"
    )
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def start(end: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", code.format(end)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    (tmp_path / "mitsuba-gdpt-of-a-person").mkdir()
    dead, living = start("os._exit(1)"), start("sys.stdin.read(); os._exit(1)")
    left = Path(dead.communicate(timeout=60)[0].strip())
    assert living.stdout is not None
    kept = Path(living.stdout.readline().strip())
    with subprocesses.scratch() as own, subprocesses.scratch() as same:
        assert own == same
        assert {path.name for path in tmp_path.iterdir()} == {
            kept.name,
            own.name,
            "mitsuba-gdpt-of-a-person",
        }
    living.communicate()
    assert not own.exists()
    assert left != kept
