"""Errors of reconstructions of the same renders of the development scenes, as ratios to the first.

For methods that read the same samples, such as several weights of one network: what equal time adds
to that is in ``mitsuba-gdpt evaluate``. Renders are kept in a folder, so that a later call compares
others on the very same ones.

    python benchmarks/reconstructions.py METHOD METHOD ... --keep FOLDER [--spp 2 8 32] [--shifts 1]
                                       [--each]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from common import DEV, dev_reference, dev_scenes, geometric_mean, load, table

MAX_DEPTH = 12
METRICS = ("relmse", "relmse-trimmed", "hdr-flip")
LEAST = 1e-9  # an unbiased estimate of an error may be below 0


def render(scene: str, spp: int, shifts: int, folder: Path) -> Any:
    """Return a render of the size of the reference, (H, W, C), made or read."""
    path = folder / f"{scene}-{shifts}-{spp}.npy"
    if not path.exists():
        import mitsuba as mi

        integrator = mi.load_dict({"type": "gdpt", "max_depth": MAX_DEPTH, "shifts": shifts})
        width, _ = dev_reference(scene).size
        image = mi.render(
            load(scene, width, MAX_DEPTH), integrator=integrator, spp=spp, seed=1000 + spp
        )
        np.save(path, np.array(image))
    return np.load(path)


def errors(call: str, scene: str, buffers: Any) -> list[float]:
    """Return the errors of a method, one per metric."""
    from mitsuba_gdpt import denoise, metrics

    halves = dev_reference(scene).reference()
    image = denoise(buffers, call)
    found = []
    for metric in map(metrics.find, METRICS):
        shown = metrics.displayable(image) if metric.nonnegative else image
        found.append(max(LEAST, metric(shown, halves).value))
    return found


def _shown(ratios: Iterable[float]) -> str:
    return " / ".join(f"{ratio:.2f}" for ratio in ratios)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="+", help="calls, as for 'mitsuba-gdpt evaluate -m'")
    parser.add_argument("--keep", type=Path, required=True, help="folder of the renders")
    parser.add_argument("--spp", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--shifts", type=int, default=1)
    parser.add_argument("--each", action="store_true", help="also print the ratios of each scene")
    args = parser.parse_args()
    if not dev_scenes():
        return
    import torch

    from mitsuba_gdpt import rendering
    from mitsuba_gdpt.buffers import FrameBuffers

    rendering.set_variant(None)
    args.keep.mkdir(parents=True, exist_ok=True)
    each: list[list[object]] = []
    rows: dict[str, list[object]] = {call: [call] for call in args.methods}
    for spp in args.spp:
        found: dict[str, list[list[float]]] = {call: [] for call in args.methods}
        for scene in DEV:
            data = torch.from_numpy(render(scene, spp, args.shifts, args.keep))
            buffers = FrameBuffers.from_tensor(data)
            for call in args.methods:
                found[call].append(errors(call, scene, buffers))
        first = np.array(found[args.methods[0]])
        for call, values in found.items():
            ratios = np.array(values) / first
            means = [geometric_mean(list(column)) for column in ratios.T]
            worst = float(ratios[:, METRICS.index("relmse-trimmed")].max())
            rows[call].append(_shown(means) + f" ({worst:.2f})")
            each += [
                [call, spp, scene, _shown(row)] for scene, row in zip(DEV, ratios, strict=True)
            ]
        print(f"{spp} spp done", flush=True)
    header = [f"{spp} spp" for spp in args.spp]
    print(f"{', '.join(METRICS)} (in brackets the worst scene's relmse-trimmed)\n")
    print(table(["method", *header], list(rows.values())))
    if args.each:
        print("\n" + table(["method", "spp", "scene", ", ".join(METRICS)], each))


if __name__ == "__main__":
    main()
