"""References of scenes in as many samples as the time allows, and how soon which sampler has them.

    python benchmarks/references.py [SCENE ...] --output DIR [--spp 65536] [--seconds 80]
    python benchmarks/references.py [SCENE ...] --compare [--publish]

The first renders DIR/NAME.npz as ``mitsuba-gdpt reference`` does, scenes sharing the time evenly.

The second renders two halves with 0, 1 and 4 offset paths per sample, and prints processor seconds
times noise (lower is better): the time in which a sampler gets to a relMSE of 1. With offset paths
the images are the unbiased reconstructions that references are made with. ``--publish`` writes
docs/results/data/DATE-reference-samplers.json.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from common import dev_scenes, publish, scene_file, table

from mitsuba_gdpt import references, rendering
from mitsuba_gdpt.scenes import SceneRef

DEPTH = references.STORED_DEPTH
SHIFTS = (0, 1, 4)
HEADER = ["reference", "size", "spp of a half", "s", "million samples/s", "noise"]


def open_scene(name: str, default: int) -> rendering.Source:
    """Load a scene in the size of the reference that is there, else ``default`` pixels wide."""
    there = references.stored(SceneRef.parse(scene_file(name)), DEPTH)
    width, height = (default, None) if there is None else there.size
    return rendering.open_source(scene_file(name), width=width, height=height)


def render(args: argparse.Namespace, name: str, seconds: float) -> list[object]:
    """Render both halves by turns until the samples or the time are up; return a row."""
    start = time.monotonic()
    halves = references.render(
        open_scene(name, args.width),
        spp=max(1, args.spp // 2),
        max_depth=DEPTH,
        target=args.output / f"{name}.npz",
        label=name,
        shifts=args.shifts,
        seconds=seconds,
        scene=references.identity(SceneRef.parse(scene_file(name))),
        keep=True,
    )
    taken = time.monotonic() - start
    width, height = halves.size
    rate = 2e-6 * halves.spp * width * height / taken
    return [name, f"{width}x{height}", halves.spp, taken, rate, halves.noise]


def compare(name: str, width: int, spp: int) -> list[float]:
    """Return processor seconds times noise of each sampler, for the mean of two renders."""
    source = open_scene(name, width)
    found = []
    for shifts in SHIFTS:
        tracer = rendering.make_integrator(
            {**source.integrator, "max_depth": DEPTH, "shifts": shifts, "freeze": True}
        )
        rendering.render(source, tracer, spp=spp, seed=0)  # compiles
        start = time.process_time()
        frames = [rendering.render(source, tracer, spp=spp, seed=seed) for seed in (1, 2)]
        seconds = (time.process_time() - start) / (os.cpu_count() or 1)
        if shifts:
            halves = references.from_gradients(*frames, DEPTH, spp)
        else:
            a, b = (frame.primal.cpu().numpy().copy() for frame in frames)
            halves = references.Halves(a, b, DEPTH, spp)
        found.append(seconds * halves.noise)
    return found


def main() -> None:
    """Render what fits into the time, or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", nargs="*")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--publish", action="store_true", help="with --compare: see above")
    parser.add_argument("--spp", type=int, default=65536, help="of both halves together")
    parser.add_argument("--seconds", type=float, default=80.0)
    parser.add_argument("--shifts", type=int, default=0)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--variant", default="cuda_ad_rgb")
    args = parser.parse_args()
    if not (args.output or args.compare):
        parser.error("expected --output DIR, or --compare")
    rendering.set_variant(args.variant)
    names = args.scenes or dev_scenes()
    if args.compare:
        head = ["scene", *(f"shifts={shifts}, s x noise" for shifts in SHIFTS)]
        print(table(head, []), flush=True)
        rows: dict[str, Any] = {}
        for name in names:
            rows[name] = compare(name, args.width, min(args.spp, 64))
            print(table(head, [[name, *rows[name]]]).splitlines()[-1], flush=True)
        if args.publish:
            publish("reference-samplers", {"shifts": SHIFTS, "seconds": rows})
        return
    args.output.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + args.seconds
    print(table(HEADER, []), flush=True)
    for i, name in enumerate(names):
        left = (end - time.monotonic()) / (len(names) - i)
        row = render(args, name, left)
        print(table(HEADER, [row]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
