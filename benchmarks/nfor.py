"""Quality and time of NFOR, at equal spp.

For each scene: relMSE of the primal, and by how much it falls with ``nfor`` with and without halves
(and in brackets without the 0.1 % of pixels with the largest error). References as in
``gradients.py``.

    python benchmarks/nfor.py [SCENE ...] [--spp 32] [--threads 2]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from common import DEV, SHARED, dev_scenes, geometric_mean, load, table
from gradients import reference_of

import mitsuba_gdpt as gdpt
from mitsuba_gdpt import metrics
from mitsuba_gdpt.evaluation.inputs import merge


def examine(name: str, spp: int, depth: int) -> tuple[list[object], list[float]]:
    """Return one row of the table, and its ratios of errors."""
    import mitsuba as mi

    width = np.load(SHARED / "dev" / name / "reference.npz")["a"].shape[1] if name in DEV else 192
    scene = load(name, width, depth)
    reference = reference_of(name, scene, depth)
    integrator: Any = mi.load_dict(
        {"type": "gdpt", "max_depth": depth, "shifts": 0, "variances": True}
        | {"features": "visibility"}
    )
    halves = []
    for seed in (11, 12):
        out = mi.render(scene, integrator=integrator, spp=spp // 2, seed=seed)
        halves.append(gdpt.FrameBuffers.from_render(out, integrator))
    buffers = merge(*halves, (spp // 2, spp // 2), integrator.layout)

    def errors(image: torch.Tensor) -> tuple[float, float]:
        image = image.double()
        of_image = metrics.relmse(image, reference), metrics.trimmed_relmse(image, reference)
        return float(of_image[0]), float(of_image[1])

    before = errors(buffers["primal"])
    row: list[object] = [name, before[0]]
    ratios, seconds = [], []
    for options in ({"halves": tuple(halves)}, {}):
        start = time.perf_counter()
        image = gdpt.denoise(buffers, "nfor", **options)
        seconds.append(time.perf_counter() - start)
        after = errors(image)
        ratios += [before[0] / after[0], before[1] / after[1]]
    cells = [f"{ratios[i]:.2f} ({ratios[i + 1]:.2f})" for i in (0, 2)]
    return [*row, *cells, *seconds], ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", nargs="*", help="dev or built-in scenes (default: all dev)")
    parser.add_argument("--spp", type=int, default=32, help="even, at least 4 (default: 32)")
    parser.add_argument("--max-depth", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: 2)")
    arguments = parser.parse_args()
    if arguments.spp < 4 or arguments.spp % 2:
        parser.error(f"--spp is {arguments.spp}; expected an even number >= 4")

    import mitsuba as mi

    mi.set_variant("llvm_ad_rgb")
    mi.set_log_level(mi.LogLevel.Error)
    torch.set_num_threads(arguments.threads)
    rows, all_ratios = [], []
    for name in arguments.scenes or dev_scenes():
        row, ratios = examine(name, arguments.spp, arguments.max_depth)
        rows.append(row)
        all_ratios.append(ratios)
        print(f"{name} done", flush=True)
    mean = [geometric_mean(column) for column in zip(*all_ratios, strict=True)]
    rows.append(["geometric mean", ""] + [f"{mean[i]:.2f} ({mean[i + 1]:.2f})" for i in (0, 2)])
    rows[-1] += ["", ""]
    header = ["scene", "relMSE", "nfor", "nfor, no halves", "s", "s, no halves"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
