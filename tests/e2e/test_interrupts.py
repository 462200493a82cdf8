"""Ctrl-C ends a command at any moment with 130 and one line."""

from __future__ import annotations

import _thread
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from mitsuba_gdpt import interrupts, rendering
from mitsuba_gdpt.cli import main

#: Runs the command line with a SIGINT that comes when a certain line of imports is reached.
AT_IMPORT = """
import builtins, os, signal, sys, time
sys.argv = ["mitsuba-gdpt", "render", "builtin:corner-gallery", "--width", "8", "-o", {output!r}]
original, moment = builtins.__import__, {moment!r}

def watched(name, *arguments, **options):
    if name == moment:
        builtins.__import__ = original
        os.kill(os.getpid(), signal.SIGINT)
        try:
            time.sleep(1)
        except BaseException:  # as careless libraries do
            raise ImportError("half of it is missing")
    return original(name, *arguments, **options)

builtins.__import__ = watched
from mitsuba_gdpt.cli import main
main()
"""


@pytest.mark.parametrize("moment", ["typer", "mitsuba", "torch"])
def test_during_imports(tmp_path: Path, moment: str) -> None:
    code = AT_IMPORT.format(moment=moment, output=str(tmp_path / "a.exr"))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    assert not list(tmp_path.iterdir())


def test_python_m_runs_no_file_of_the_current_folder(tmp_path: Path) -> None:
    for name in ("random", "numpy", "typer"):
        (tmp_path / f"{name}.py").write_text("open('executed', 'w')")
    done = subprocess.run(
        [sys.executable, "-m", "mitsuba_gdpt", "--version"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0
    assert not (tmp_path / "executed").exists()


def press(*arguments: object, **options: object) -> None:
    """Press Ctrl-C where a library makes another error of it."""
    try:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    except KeyboardInterrupt:
        raise RuntimeError("dr.while_loop(): encountered an exception") from None


def swallow(*arguments: object, **options: object) -> None:
    try:
        press()
    except RuntimeError:
        raise SystemExit(1) from None


@pytest.mark.parametrize("strike", [press, swallow])
def test_during_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], strike
) -> None:
    monkeypatch.setattr(rendering, "render", strike)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stop:
        main(["render", "builtin:corner-gallery", "--width", "8", "-o", str(tmp_path / "a.exr")])
    assert (stop.value.code, capfd.readouterr().err) == (130, "interrupted\n")
    assert signal.getsignal(signal.SIGINT) is before


def wait_for_ctrl_c() -> None:
    _thread.interrupt_main()
    time.sleep(5)


@pytest.mark.skipif(find_spec("dask_jobqueue") is None, reason="needs the extra batch")
def test_libraries_do_not_take_ctrl_c_over(tmp_path: Path) -> None:
    (tmp_path / "slurm.toml").write_text('cores = 1\nmemory = "1 GB"\n')
    code = """
import signal
from mitsuba_gdpt.execution.cluster import slurm_cluster
before = signal.getsignal(signal.SIGINT)
slurm_cluster("slurm.toml", workers=0).close()
assert signal.getsignal(signal.SIGINT) is before, signal.getsignal(signal.SIGINT)
signal.raise_signal(signal.SIGINT)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        timeout=120,
        check=False,
    )
    assert "KeyboardInterrupt" in done.stderr, done.stderr
    assert done.returncode != 0


def test_errors_are_no_interrupts() -> None:
    with interrupts.watching():
        interrupts.pass_on(ValueError("x"))
        interrupts.check()
    with interrupts.watching():
        with pytest.raises(KeyboardInterrupt):
            wait_for_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            interrupts.pass_on(ValueError("x"))
    assert not interrupts.noticed()
