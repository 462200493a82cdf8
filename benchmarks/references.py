"""References of scenes in two independent halves, of as many samples as the time allows.

    python benchmarks/references.py [SCENE ...] --output DIR [--spp 65536] [--seconds 80]

Scenes share the time evenly. What comes out is DIR/SCENE.npz, to be put beside the scene's file as
``reference.npz`` (see ``mitsuba_gdpt.references``): its images are half floats, which is as good as
the noise that is left, and brighter values than those can have are cut off and counted. The size is
that of the reference beside the scene, where there is one.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from common import SHARED, dev_scenes, load, table

from mitsuba_gdpt import FrameBuffers, references
from mitsuba_gdpt.files import replace_file

DEPTH = references.STORED_DEPTH
#: Paths in a pass: about 0.3 kB each.
LANES = {"cuda": 1 << 24, "llvm": 1 << 20}
HEADER = ["reference", "size", "spp of a half", "s", "million samples/s", "noise", "cut off"]


def width_of(name: str, default: int) -> int:
    """Return the width of the reference beside a scene, in pixels."""
    path = SHARED / "dev" / name / references.FILE_NAME
    return references.read(path).size[0] if path.is_file() else default


def render(name: str, width: int, spp: int, seconds: float, path: Path) -> list[object]:
    """Render both halves by turns until the samples or the time are up; return a row."""
    import mitsuba as mi
    import torch

    lanes = LANES[mi.variant().partition("_")[0]]
    scene = load(name, width_of(name, width), DEPTH)
    options = {"shifts": 0, "max_depth": DEPTH, "max_lanes": lanes, "freeze": True}
    tracer = mi.load_dict({"type": "gdpt"} | options)
    width, height = (int(side) for side in scene.sensors()[0].film().size())
    count = max(1, min(spp, lanes // (width * height)))
    sums: list[torch.Tensor] = []
    start = time.monotonic()
    done = 0
    while done == 0 or (done < spp and time.monotonic() - start < seconds):
        count = min(count, spp - done)
        for half in range(2):
            # Both halves and all passes have random numbers of their own.
            image = tracer.render(scene, seed=2 * done + half, spp=count)
            primal = FrameBuffers.from_render(image, tracer).primal.double() * count
            if done == 0:
                sums.append(primal)
            else:
                sums[half] += primal
            _ = float(sums[half].sum())  # waits, so that the clock is right
        done += count
    taken = time.monotonic() - start
    a, b = ((total / done).cpu().numpy() for total in sums)
    most = float(np.finfo(np.float16).max)
    bright = int((a > most).sum() + (b > most).sum())
    halves = [np.minimum(half, most).astype(np.float16) for half in (a, b)]

    def write_to(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez_compressed(
                stream, a=halves[0], b=halves[1], max_depth=np.int64(DEPTH), spp=np.int64(done)
            )

    replace_file(path, write_to)
    # Relative standard deviation of the mean of both halves, in the median over pixels.
    noise = float(np.median(np.abs(a - b) / (a + b + 1e-6))) / 0.6745
    rate = 2e-6 * done * width * height / taken
    return [name, f"{width}x{height}", done, taken, rate, noise, bright]


def main() -> None:
    """Render what fits into the time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", nargs="*")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--spp", type=int, default=65536, help="of both halves together")
    parser.add_argument("--seconds", type=float, default=80.0)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--variant", default="cuda_ad_rgb")
    args = parser.parse_args()
    import mitsuba as mi

    mi.set_variant(args.variant)
    args.output.mkdir(parents=True, exist_ok=True)
    names, end = args.scenes or dev_scenes(), time.monotonic() + args.seconds
    print(table(HEADER, []), flush=True)
    for i, name in enumerate(names):
        left = (end - time.monotonic()) / (len(names) - i)
        path = args.output / f"{name}.npz"
        row = render(name, args.width, max(1, args.spp // 2), left, path)
        print(table(HEADER, [row]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
