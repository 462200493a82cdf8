"""Cost of ``gdpt`` as a multiple of ``path`` at equal spp and depth.

Both render in one process, in turns, so that whatever else the machine does hits both. Reported
is the ratio of the best times. ``--latency`` adds what a first render costs in a new process, with
kernels to be compiled and with kernels in caches on disk; ``--latency-only`` shows nothing else.

    python benchmarks/integrator.py [SCENE ...] [--spp 16] [--width 512] [--repeats 3] [--latency]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from common import DEV, INTERIORS, dev_scenes, geometric_mean, load, table

import mitsuba_gdpt  # noqa: F401
from mitsuba_gdpt import scenes

CANDIDATES = {
    "path": {"type": "path"},
    "gdpt": {"type": "gdpt"},  # one shift
    "gdpt, shifts=4": {"type": "gdpt", "shifts": 4},
    "gdpt, shifts=2": {"type": "gdpt", "shifts": 2},
    "gdpt, shifts=0": {"type": "gdpt", "shifts": 0},
}

LATENCY = """
import time; t = [time.perf_counter()]
def lap(): t.append(time.perf_counter()); return t[-1] - t[-2]
import mitsuba as mi, drjit as dr, mitsuba_gdpt
mi.set_variant('{1}')
imported = lap()
from mitsuba_gdpt import scenes
scene = scenes.load('corner-gallery', width=128, height=128)
integrator = mi.load_dict({0} | {{'max_depth': 12}})
lap()
laps = []
for i in range(3):
    dr.eval(mi.render(scene, integrator=integrator, spp=4, seed=i)); dr.sync_thread()
    laps.append(lap())
print(imported, *laps)
"""


def ratios(name: str, width: int, spp: int, depth: int, repeats: int) -> list[float]:
    """Return seconds of ``path`` and the ratios of the others to it."""
    import drjit as dr
    import mitsuba as mi

    scene = load(name, width, depth)
    made = {k: mi.load_dict(v | {"max_depth": depth}) for k, v in CANDIDATES.items()}
    best = dict.fromkeys(made, float("inf"))
    for i in range(repeats + 1):
        for key, integrator in made.items():
            start = time.perf_counter()
            dr.eval(mi.render(scene, integrator=integrator, spp=spp, seed=i))
            dr.sync_thread()
            if i > 0:  # the first round compiles
                best[key] = min(best[key], time.perf_counter() - start)
    path = best.pop("path")
    return [path, *(seconds / path for seconds in best.values())]


def latencies(variant: str) -> Iterator[list[object]]:
    """Yield seconds of the first renders of new processes, twice with the same new caches."""
    for name in ("path", "gdpt", "gdpt, shifts=4"):
        with tempfile.TemporaryDirectory() as folder:
            # Dr.Jit's cache is in the home folder; OptiX and CUDA have their own.
            caches = dict.fromkeys(("HOME", "OPTIX_CACHE_PATH", "CUDA_CACHE_PATH"), folder)
            for kernels in ("to be compiled", "in caches on disk"):
                done = subprocess.run(
                    [sys.executable, "-c", LATENCY.format(CANDIDATES[name], variant)],
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                    env={**os.environ, **caches},
                )
                seconds = map(float, done.stdout.split())
                yield [name, kernels, *seconds]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", nargs="*")
    parser.add_argument("--spp", type=int, default=16)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variant", default="llvm_ad_rgb")
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--latency-only", action="store_true")
    args = parser.parse_args()
    if not args.latency_only:
        print_ratios(args)
    if args.latency or args.latency_only:
        print(f"\nSeconds in a new process, 128x128, 4 spp, {args.variant}\n")
        header = ["integrator", "kernels", "import", "1st render", "2nd", "3rd"]
        print(table(header, []), flush=True)
        for row in latencies(args.variant):  # one by one, for it may be stopped
            print(table(header, [row]).splitlines()[-1], flush=True)


def print_ratios(args: argparse.Namespace) -> None:
    """Measure and print the ratios, scene by scene, then all of them."""

    import mitsuba as mi

    mi.set_variant(args.variant)
    header = ["scene", "path, s", *list(CANDIDATES)[1:]]
    rows: list[list[object]] = []
    for name in args.scenes or [*dev_scenes(), *scenes.names()]:
        row = ratios(name, args.width, args.spp, args.depth, args.repeats)
        rows.append([name, *row])
        print(table(header, rows[-1:]).splitlines()[-1], flush=True)
    groups = {"dev scenes": DEV, "of these, interiors": INTERIORS, "built-in": scenes.names()}
    for group, members in groups.items():
        found = [row for row in rows if row[0] in members]
        if found:
            means = [
                geometric_mean([float(str(r[i])) for r in found]) for i in range(2, len(header))
            ]
            rows.append([f"geometric mean, {group}", "", *means])
    print(f"\nspp {args.spp}, width {args.width}, depth {args.depth}, {args.variant}\n")
    print(table(header, rows))


if __name__ == "__main__":
    main()
