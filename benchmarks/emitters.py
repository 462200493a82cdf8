"""Noise and time of ``gdpt`` when it chooses what light to sample, over leaving that to the scene.

Noise is the variance over seeds relative to the squared brightness (plus 0.01), without the 0.1 %
of pixels where it is largest. Both ways render in one process, in turns; times are medians.

    python benchmarks/emitters.py [SCENE ...] [--spp 8] [--width 160] [--seeds 12] [--shifts 1]
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
from common import dev_scenes, geometric_mean, load, table

import mitsuba_gdpt  # noqa: F401
from mitsuba_gdpt import scenes


def noise(images: np.ndarray, brightness: np.ndarray) -> float:
    """Return the trimmed relative variance of (seeds, H, W, 3)."""
    relative = images.var(0, ddof=1).mean(-1) / (brightness**2 + 0.01)
    values = np.sort(relative, axis=None)
    return float(values[: int(0.999 * len(values))].mean())


def measure(name: str, args: argparse.Namespace) -> list[object] | None:
    """Return a row of the table; None for scenes with one emitter that is no environment."""
    import drjit as dr
    import mitsuba as mi

    scene = load(name, args.width, args.depth)
    count = len(scene.emitters())
    if count < 2 and scene.environment() is None:
        return None
    base = {"type": "gdpt", "max_depth": args.depth, "shifts": args.shifts}
    integrators = [mi.load_dict(base | {"emitter_importance": on}) for on in (False, True)]
    images: list[list[np.ndarray]] = [[], []]
    seconds: list[list[float]] = [[], []]
    for seed in range(-2, args.seeds):  # the first two are traced and compiled
        for k, integrator in enumerate(integrators):
            start = time.perf_counter()
            image = mi.render(scene, integrator=integrator, spp=args.spp, seed=abs(seed))
            dr.sync_thread()
            if seed >= 0:
                seconds[k].append(time.perf_counter() - start)
                images[k].append(np.array(image))
    before, after = (np.stack(part) for part in images)
    grey = np.concatenate([before, after])[..., :3].mean((0, -1))
    channels = {n: integrators[0].layout.slices[n] for n in ("primal", "dx", "dy")}
    ratios = [noise(after[..., c], grey) / noise(before[..., c], grey) for c in channels.values()]
    lapse = statistics.median(seconds[1]) / statistics.median(seconds[0])
    return [name, count, *ratios, lapse]


def main() -> None:
    """Measure every scene that has a choice and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("scenes", nargs="*")
    parser.add_argument("--spp", type=int, default=8)
    parser.add_argument("--width", type=int, default=160)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--shifts", type=int, default=1)
    parser.add_argument("--variant", default="llvm_ad_rgb")
    args = parser.parse_args()

    import mitsuba as mi

    mi.set_variant(args.variant)
    names = args.scenes or [*dev_scenes(), *scenes.names()]
    rows = []
    for name in names:
        row = measure(name, args)
        if row is not None:
            rows.append(row)
            print(*row, flush=True)
    means = [geometric_mean([row[i] for row in rows]) for i in range(2, 6)]  # type: ignore[misc]
    rows.append(["geometric mean", "", *means])
    print(table(["scene", "emitters", "primal", "dx", "dy", "time"], rows))


if __name__ == "__main__":
    main()
