"""What a second worker brings: units per second of two workers against one, a thread each.

    python benchmarks/workers.py

Run it on a machine that has nothing else to do, with two cores or more. Both run the same batch of
small renders of built-in scenes, in turns, from process start to last file; a first run, not
counted, fills the cache of compiled kernels.
"""

from __future__ import annotations

import argparse
import functools
import os
import tempfile
import time
from pathlib import Path

import common

from mitsuba_gdpt import batch, rendering
from mitsuba_gdpt.execution import ClusterOptions

SCENES = ("corner-gallery", "tiled-hall", "morning-room")


def seconds(spec: batch.Batch, workers: int) -> float:
    """Time one run from nothing."""
    setup = functools.partial(rendering.set_variant, "llvm_ad_rgb")
    cluster = ClusterOptions(workers=workers, threads=1, setup=setup)
    start = time.perf_counter()
    result = batch.run(spec, cluster=cluster)
    elapsed = time.perf_counter() - start
    assert not result.failed, result.failed
    assert result.summary.skipped == 0
    return elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=8, help="renders per scene")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--spp", type=int, default=16)
    options = parser.parse_args()

    rendering.set_variant("llvm_ad_rgb")
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load before the start {load:.1f}", flush=True)

    def run(workers: int, seeds: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            spec = batch.Batch(
                scenes=tuple(batch.SceneChoice(f"builtin:{name}") for name in SCENES),
                output=Path(folder),
                denoisers=("none",),
                seeds=tuple(range(seeds)),
                spp=(options.spp,),
                width=options.width,
                gallery=False,
                png=False,
            )
            return seconds(spec, workers)

    run(1, 1)
    rows, ratios = [], []
    for number in range(options.rounds):
        one, two = run(1, options.seeds), run(2, options.seeds)
        ratios.append(one / two)
        rows.append([number + 1, one, two, ratios[-1]])
        print(f"round {number + 1}: {one:.1f} s, {two:.1f} s", flush=True)
    print(common.table(["round", "1 worker [s]", "2 workers [s]", "ratio"], rows))
    print(f"{options.seeds * len(SCENES)} renders of {options.width} pixels, {options.spp} spp;")
    print(f"geometric mean of the ratio: {common.geometric_mean(ratios):.2f}")


if __name__ == "__main__":
    main()
