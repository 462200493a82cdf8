"""Units in this process, and what can be said without starting workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mitsuba_gdpt import execution, progress
from mitsuba_gdpt.errors import ConfigError, GDPTError
from mitsuba_gdpt.execution import ClusterOptions
from mitsuba_gdpt.execution.dispatch import cores
from tests.work import Forget, Interrupt, Raise, RaiseOurs, WriteFile


def run(units, **arguments):
    return execution.run(units, description="testing", **arguments)


def test_runs_what_is_missing(tmp_path: Path) -> None:
    units = [WriteFile(tmp_path, f"u{i}") for i in range(4)]
    units[1].run()
    finished = []
    summary = run(units, on_finished=finished.append)
    assert (summary.done, summary.skipped, summary.failed) == (3, 1, {})
    assert finished == [units[0], units[2], units[3]]
    assert [len(unit.attempts()) for unit in units] == [1, 1, 1, 1]
    again = run(units, on_finished=finished.append)
    assert (again.done, again.skipped) == (0, 4)
    assert len(finished) == 3
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
        ({"workers": 0}, "got workers=0; expected at least 1"),
        ({"threads": 0}, "got threads=0"),
        ({"units_per_worker": 0}, "got units_per_worker=0"),
        ({"retries": -1}, "got retries=-1; expected at least 0"),
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
