"""Cost of crop sets: time per crop against bare renders, flatness, reading.

Per crop: the time of ``CropRenderer.render`` and encoding, as a multiple of the sum of
``Integrator.render`` with the same spps, seeds and sensor, both in turns in one process. Flatness:
seconds and memory per sample over the crops, and kernels compiled after the first crop. Reading:
milliseconds per (crop, level) in one thread, wall clock and processor.

    python benchmarks/crops.py [SCENE] [--crops 12] [--size 64] [--max-spp 64] [--lens] [--plot PNG]
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import table

import mitsuba_gdpt  # noqa: F401
from mitsuba_gdpt import scenes
from mitsuba_gdpt.scenes.catalogue import CameraBox, CatalogueScene


def around_default_view(name: str, lens: bool) -> CatalogueScene:
    """Return a built-in scene with cameras close to its default one."""
    camera = scenes.describe(name).camera
    low, high = (tuple(x + d for x in camera.origin) for d in (-0.1, 0.1))
    return CatalogueScene(
        name=name,
        source=f"builtin:{name}",
        title=name,
        author="",
        licence="",
        fov=(40.0, 60.0),
        boxes=(CameraBox(low, high),),
        targets=(camera.target,) if lens else (),
    )


def seconds(function: Any) -> float:
    import drjit as dr

    start = time.perf_counter()
    function()
    dr.sync_thread()
    return time.perf_counter() - start


def memory() -> float:
    """Return the memory of this process now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def draw(rows: list[list[Any]], path: Path) -> None:
    """Plot what should be flat: cost against bare renders, and memory."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    index, _, _, ratio, _, memory = zip(*rows, strict=True)
    above.plot(index, ratio, ".", markersize=3)
    above.axhline(1.15, linestyle="--", color="grey", linewidth=1)
    above.set_ylim(0.5, 2)
    above.set_ylabel("time / bare renders")
    below.plot(index, memory, ".", markersize=3)
    below.set_ylim(0, 1.3 * max(memory))
    below.set_ylabel("memory, MiB")
    below.set_xlabel("crop")
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", nargs="?", default="corner-gallery")
    parser.add_argument("--crops", type=int, default=12)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--max-spp", type=int, default=64)
    parser.add_argument("--lens", action="store_true", help="thin lens instead of pinhole")
    parser.add_argument("--plot", type=Path, help="draw ratio and memory over the crops")
    arguments = parser.parse_args()

    import drjit as dr
    import mitsuba as mi
    import torch

    from mitsuba_gdpt.data import CropDataset, store, units
    from mitsuba_gdpt.data.plan import CropPlan
    from mitsuba_gdpt.data.render import LAYOUT, CropRenderer, make_sensor

    torch.set_num_threads(1)
    mi.set_variant("llvm_ad_rgb")
    mi.set_log_level(mi.LogLevel.Error)
    scene = around_default_view(arguments.scene, arguments.lens)
    plan = CropPlan(
        (scene,),
        crops=arguments.crops,
        size=arguments.size,
        max_spp=arguments.max_spp,
        reference_spp=64,
    )
    renderer = CropRenderer(scene, plan)
    rows: list[list[object]] = []
    encoded = []
    for spec in plan.specs(scene):
        sensor = make_sensor(spec)
        pieces = [(renderer._gdpt, n, s) for n, s in zip(spec.spp, spec.seeds, strict=True)]
        pieces += [(renderer._primal, 32, s) for s in spec.target_seeds]

        def bare(pieces: Any = pieces, sensor: Any = sensor) -> None:
            for integrator, spp, seed in pieces:
                integrator.render(renderer.source.scene, sensor=sensor, spp=spp, seed=seed)

        with dr.scoped_set_flag(dr.JitFlag.KernelHistory, True):
            dr.kernel_history_clear()
            crop = seconds(lambda spec=spec: encoded.append(units.encode(renderer.render(spec))))
            history = dr.kernel_history([dr.KernelType.JIT])
        compiled = sum(not k["cache_hit"] or k["cache_disk"] for k in history)
        if spec.index > 0:  # the first one compiles
            samples = sum(n for _, n, _ in pieces) * plan.size**2
            ratio = crop / seconds(bare)
            rows.append([spec.index, samples / 1e6, crop, ratio, compiled, memory()])
    header = ["crop", "M samples", "s", "x bare renders", "kernels compiled", "MiB"]
    print(f"{arguments.scene}, {plan.size} px, {'lens' if arguments.lens else 'pinhole'}\n")
    print(table(header, rows))
    ratios = [float(row[3]) for row in rows]
    # Time is linear in samples with an offset per render; the residual's trend is the leak.
    n, t = np.array([row[1] for row in rows], float), np.array([row[2] for row in rows], float)
    slope, offset = np.polyfit(n, t, 1)
    early, late = np.array_split((t / (slope * n + offset)), 2)
    print(f"\nmedian ratio to bare renders: {np.median(ratios):.3f}")
    print(f"{slope:.2f} s per M samples + {offset:.2f} s per crop")
    print(f"later half against earlier half of the crops: {late.mean() / early.mean():.3f}")

    if arguments.plot:
        draw(rows, arguments.plot)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "set.zarr"
        store.create(plan, LAYOUT, path, crops_per_shard=5)
        for shard in store.shards(plan, path, 5):
            part = encoded[shard.start : shard.stop]
            shard.write(*(np.stack(column) for column in zip(*part, strict=True)))
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        data = CropDataset(path)
        _ = data[0]
        order = np.random.default_rng(0).permutation(len(data)).tolist()
        wall, cpu = time.perf_counter(), time.process_time()
        for i in order:
            _ = data[i]
        wall, cpu = (time.perf_counter() - wall), (time.process_time() - cpu)
        scale = 1e3 / len(order)
        print(f"reading: {wall * scale:.1f} ms per item, {cpu * scale:.1f} ms of processor time")
        print(f"size: {size / len(encoded) / 2**20:.2f} MiB per crop")


if __name__ == "__main__":
    main()
