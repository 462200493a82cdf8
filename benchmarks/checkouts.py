"""Time of a first and of repeated renders of two checkouts, in turns, and over ``path``.

    python benchmarks/checkouts.py OLD NEW [--rounds 5] [--size 256]

Every round starts a process for each checkout, which imports the package, renders a built-in scene
for the first time, then with ``gdpt`` and Mitsuba's ``path`` in turns. Printed are medians of the
ratios NEW / OLD within a round, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

SCENES = ("corner-gallery", "glass-bar")
_CHILD = """
import json, sys, time
start = time.perf_counter()
import mitsuba_gdpt
found = {"import": time.perf_counter() - start}
import mitsuba as mi
from mitsuba_gdpt import scenes
mi.set_variant("llvm_ad_rgb")
size, names = int(sys.argv[1]), sys.argv[2:]
for name in names:
    scene = scenes.load(name, width=size, height=size)
    kinds = {
        "gdpt": mi.load_dict({"type": "gdpt", "max_depth": 6, "shifts": 1}),
        "gdpt, no shifts": mi.load_dict({"type": "gdpt", "max_depth": 6, "shifts": 0}),
        "path": mi.load_dict({"type": "path", "max_depth": 6}),
    }
    times = {kind: [] for kind in kinds}
    for turn in range(6):
        for kind, integrator in kinds.items():
            start = time.perf_counter()
            mi.render(scene, integrator=integrator, spp=8, seed=turn).numpy()
            times[kind].append(time.perf_counter() - start)
    path = min(times["path"][1:])
    for kind in ("gdpt", "gdpt, no shifts"):
        first, *rest = times[kind]
        found[f"{name}, {kind}: first"] = first
        found[f"{name}, {kind}: repeated"] = min(rest)
        found[f"{name}, {kind}: over path"] = min(rest) / path
print(json.dumps(found))
"""


def measure(checkout: Path, size: int) -> dict[str, float]:
    """Return seconds, and ratios, of one process."""
    environment = {**os.environ, "PYTHONPATH": str(checkout.resolve())}
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(size), *SCENES],
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values


def main() -> None:
    """Print medians of both, and of their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=256, help="of the image, in pixels")
    args = parser.parse_args()
    rounds = [
        [measure(checkout, args.size) for checkout in (args.old, args.new)]
        for _ in range(args.rounds)
    ]
    print("| | old | new | new / old |\n|---|---|---|---|")
    for key in rounds[0][0]:
        old, new = ([both[i][key] for both in rounds] for i in (0, 1))
        ratio = statistics.median(n / o for o, n in zip(old, new, strict=True))
        print(
            f"| {key} | {statistics.median(old):.3g} | {statistics.median(new):.3g} | {ratio:.2f} |"
        )


if __name__ == "__main__":
    main()
