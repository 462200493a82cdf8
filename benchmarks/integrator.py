"""Cost of ``gdpt`` as a multiple of ``path`` at equal spp and depth.

Both render in one process, in turns, so that whatever else the machine does hits both. Reported
is the ratio of the median times. ``--latency`` adds what a first render costs in a new process,
with kernels to be compiled and with kernels in caches on disk; ``--latency-only`` shows nothing
else.

    python benchmarks/integrator.py [SCENE ...] [--spp 16] [--width 512] [--repeats 3] [--latency]

What docs/results publishes, in about five minutes of two idle cores:

    python benchmarks/integrator.py --publish

is the dev scenes at 640x360 and 8 spp, written to docs/results/data/DATE-integrator-cost.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from common import DEV, INTERIORS, dev_scenes, geometric_mean, publish, scene_file, table

from mitsuba_gdpt import rendering, scenes
from mitsuba_gdpt.evaluation.settings import CLOCKS

#: What is published.
PUBLISHED: dict[str, Any] = {"width": 640, "height": 360, "spp": 8, "shifts": "0,1,4"}


def candidates(shifts: str) -> dict[str, dict[str, Any]]:
    """Return the integrators that are compared; the first is what the others are compared with."""
    counts = [int(word) for word in shifts.split(",")]
    return {
        "path": {"type": "path"},
        **{f"gdpt shifts={count}": {"type": "gdpt", "shifts": count} for count in counts},
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


def medians(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Return the median seconds of each integrator on a scene."""
    import drjit as dr
    import mitsuba as mi

    source = rendering.open_source(scene_file(name), width=args.width, height=args.height)
    made = {
        key: mi.load_dict({**value, "max_depth": args.depth})
        for key, value in candidates(args.shifts).items()
    }
    clock = CLOCKS[args.clock]
    seconds: dict[str, list[float]] = {key: [] for key in made}
    for i in range(args.repeats + 1):
        for key, integrator in made.items():
            start = clock()
            dr.eval(mi.render(source.scene, integrator=integrator, spp=args.spp, seed=i))
            dr.sync_thread()
            if i > 0:  # the first round compiles
                seconds[key].append(clock() - start)
    return {key: statistics.median(values) for key, values in seconds.items()}


def latencies(variant: str) -> Iterator[list[object]]:
    """Yield seconds of the first renders of new processes, twice with the same new caches."""
    for name, integrator in candidates("1,4").items():
        with tempfile.TemporaryDirectory() as folder:
            # Dr.Jit's cache is in the home folder; OptiX and CUDA have their own.
            caches = dict.fromkeys(("HOME", "OPTIX_CACHE_PATH", "CUDA_CACHE_PATH"), folder)
            for kernels in ("to be compiled", "in caches on disk"):
                done = subprocess.run(
                    [sys.executable, "-c", LATENCY.format(integrator, variant)],
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
    parser.add_argument("--height", type=int, help="by default as the scene's proportions are")
    parser.add_argument("--shifts", default="1,4,2,0", help="offset paths per sample of gdpt")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variant", default="llvm_ad_rgb")
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--latency-only", action="store_true")
    parser.add_argument("--publish", action="store_true", help="see above")
    args = parser.parse_args()
    if args.publish:
        vars(args).update(PUBLISHED)
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
    rendering.set_variant(args.variant)
    names = list(candidates(args.shifts))
    header = ["scene", f"{names[0]}, s", *names[1:]]
    rows: list[list[object]] = []
    found: dict[str, dict[str, float]] = {}
    builtin = () if args.publish else scenes.names()
    for name in args.scenes or [*dev_scenes(), *builtin]:
        seconds = found[name] = medians(name, args)
        first, *others = seconds.values()
        rows.append([name, first, *(other / first for other in others)])
        print(table(header, rows[-1:]).splitlines()[-1], flush=True)
    groups = {"dev scenes": DEV, "of these, interiors": INTERIORS, "built-in": scenes.names()}
    for group, members in groups.items():
        of_group = [row for row in rows if row[0] in members]
        if of_group:
            means = [
                geometric_mean([float(str(row[i])) for row in of_group])
                for i in range(2, len(header))
            ]
            rows.append([f"geometric mean, {group}", "", *means])
    size = f"{args.width}x{args.height}" if args.height else f"width {args.width}"
    print(f"\nspp {args.spp}, {size}, depth {args.depth}, {args.clock} clock, {args.variant}\n")
    print(table(header, rows))
    if args.publish:
        kept = ("width", "height", "spp", "depth", "repeats", "clock", "variant")
        settings = {key: vars(args)[key] for key in kept}
        publish("integrator-cost", {"settings": settings, "seconds": found})


if __name__ == "__main__":
    main()
