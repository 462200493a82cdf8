"""Killing the processes that make data sets: at known points, or at random moments."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import torch

from mitsuba_gdpt.data import CropSet

DIE_AT = "GDPT_TEST_DIE_AT"
DRIVER, WORKER = "driver", "worker"
_PATIENCE = 120.0  # seconds until the next shard; machines for tests are slow


def die_when_told() -> None:
    """Let this process kill itself before a file becomes visible; which one, the environment says.

    Files become visible by renaming, and nothing else: what there is between two renamings looks
    alike from outside, so to die before each of them is to die at every moment that matters.
    """
    last, renamings = int(os.environ.get(DIE_AT, -1)), itertools.count()

    def dying(rename: Callable[..., None]) -> Callable[..., None]:
        def instead(*arguments: object) -> None:
            if next(renamings) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(*arguments)

        return instead

    os.replace, os.rename = dying(os.replace), dying(os.rename)


def command(point: int, words: Sequence[str], prepared: str = "") -> None:
    """Run the command line until it kills itself before a renaming.

    Args:
        point: How many renamings there are before.
        words: Of the command line.
        prepared: Python code that comes first.
    """
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from tests import kills
from mitsuba_gdpt.cli import main
{prepared}
kills.die_when_told()
main(sys.argv[1:])
"""
    environment = {**os.environ, DIE_AT: str(point)}
    done = subprocess.run(
        [sys.executable, "-c", code, *words], env=environment, timeout=300, check=False
    )
    assert done.returncode == -signal.SIGKILL


def unit_processes(driver: int) -> list[psutil.Process]:
    """Return the processes that work for another one, see ``mitsuba_gdpt.execution``."""
    return [p for p in psutil.Process(driver).children(recursive=True) if _is_unit_process(p)]


def _is_unit_process(process: psutil.Process) -> bool:
    try:
        return any("mitsuba_gdpt.execution.child" in word for word in process.cmdline())
    except psutil.Error:
        return False


def disturb(
    start: Callable[[], subprocess.Popen[str]],
    path: Path,
    undisturbed: Path,
    victims: Sequence[str],
    seed: int,
) -> int:
    """Make a crop set on workers, and kill the victims one after the other.

    Each is killed a random moment after another shard has been finished. What is left is then
    compared with an undisturbed set.

    Args:
        start: Starts or resumes the making of the set.
        path: The set.
        undisturbed: The same set, made in peace.
        victims: ``DRIVER`` or ``WORKER`` each.
        seed: Of the random moments.

    Returns:
        How many victims were killed before the set was finished.
    """
    rng, caught = random.Random(seed), 0
    driver = start()
    for victim in victims:
        if driver.poll() is not None:
            if len(CropSet.open(path)) == len(CropSet.open(undisturbed)):
                shutil.rmtree(path)  # it was finished: begin again
            driver = start()
        if not _wait_for_progress(driver, path):
            continue
        time.sleep(rng.uniform(0.0, 0.05))
        if victim == DRIVER:
            driver.kill()
            caught += driver.wait() != 0
        elif workers := unit_processes(driver.pid):
            rng.choice(workers).kill()
            caught += 1
        check_readable(path, undisturbed)
    driver.communicate(timeout=_PATIENCE)
    return caught


def _wait_for_progress(driver: subprocess.Popen[str], path: Path) -> bool:
    """Wait for the next shard; False if there is none."""

    def finished() -> int:
        return len(list(path.glob("*/faults/c/*/0")))

    before, end = finished(), time.monotonic() + _PATIENCE
    while driver.poll() is None:
        if finished() > before:
            return True
        assert time.monotonic() < end, f"{path}: no shard in {_PATIENCE} s"
        time.sleep(0.002)
    return False


def check_readable(path: Path, undisturbed: Path) -> None:
    """Check that each crop that a set lists can be read and is right."""
    crop_set, reference = CropSet.open(path), CropSet.open(undisturbed)
    where = {reference.where(i): i for i in range(len(reference))}
    for i in range(len(crop_set)):
        crop, theirs = crop_set[i], reference[where[crop_set.where(i)]]
        assert torch.equal(crop.noisy, theirs.noisy)
        assert torch.equal(crop.targets, theirs.targets)
