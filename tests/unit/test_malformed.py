"""Whatever is in a file, reading it ends soon, in little memory, well or with one line."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.malformed import KINDS, Outcome

ROOT = Path(__file__).parents[2]
_HANGS = 60.0  # seconds; machines for tests are slow
_MOST_MEGABYTES = 1024


def outcomes(count: int, seed: int, folder: Path) -> list[Outcome]:
    """Read a corpus in another process; after a hang or a crash the next kind goes on in one."""
    found, left = [], [*KINDS]
    while left:
        words = [str(word) for word in (count, seed, folder, *left)]
        command = [sys.executable, "-m", "tests.malformed", *words]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
            found += watch(child)
        left = left[left.index(found[-1].kind) + 1 :]
    return found


def watch(child: subprocess.Popen[str]) -> list[Outcome]:
    """Collect outcomes, and kill the child if one takes too long."""
    assert child.stdout is not None
    found, current = [], (next(iter(KINDS)), -1)
    timer = threading.Timer(_HANGS, child.kill)
    timer.start()
    for line in child.stdout:
        if not line.startswith(("[", '{"kind"')):  # what OpenEXR has to say
            continue
        values = json.loads(line)
        timer.cancel()
        timer = threading.Timer(_HANGS, child.kill)
        timer.start()
        if isinstance(values, list):
            current = (values[0], values[1])
        else:
            found.append(Outcome(**values))
    timer.cancel()
    if child.wait() != 0:
        found.append(Outcome(*current, f"ended with {child.returncode}", _HANGS, 0.0))
    return found


@pytest.mark.parametrize(
    ("count", "seed"),
    [pytest.param(12, 1, id="few"), pytest.param(290, 2, id="2030", marks=pytest.mark.slow)],
)
def test_malformed_files(tmp_path: Path, count: int, seed: int) -> None:
    found = outcomes(count, seed, tmp_path)
    for kind in KINDS:
        those = [outcome for outcome in found if outcome.kind == kind]
        counts = Counter(
            "other" if o.result not in ("read", "refused") else o.result for o in those
        )
        print(
            f"{kind}: {dict(counts)}, slowest {max(o.seconds for o in those):.1f} s, "
            f"peak {max(o.megabytes for o in those):.0f} MB"
        )
    wrong = [o for o in found if o.result not in ("read", "refused")]
    assert not wrong, "\n".join(f"{o.kind} {o.number}: {o.result}" for o in wrong)
    assert len(found) == count * len(KINDS)
    assert max(outcome.megabytes for outcome in found) < _MOST_MEGABYTES
    assert {outcome.result for outcome in found} == {"read", "refused"}
