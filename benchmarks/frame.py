"""One frame from ray to clean image: time, memory and kernels, nothing leaving the device.

Time of a render and a reconstruction together, first (with whatever has to be compiled, unless the
log had it compiled before) and later frames; the most memory that Dr.Jit and torch held on the
device (on the CPU: Dr.Jit's alone); and the kernels of one later render, the slowest first.

    python benchmarks/frame.py [SCENE] [--method METHOD ...] [--width 1280] [--spp 8]

With ``--drjit-log FILE`` Dr.Jit writes there what it compiles and launches in the first render, and
what it says of the slowest kernel is shown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import load, table, untrained_weights

from mitsuba_gdpt import denoisers, rendering

KERNELS = 8  # shown


def peak_memory(backend: Any) -> list[object]:
    """Return peak memory of Dr.Jit and of torch in GiB; the latter only on a GPU."""
    import drjit as dr
    import torch

    most: list[object] = [dr.detail.malloc_watermark(backend) / 2**30]
    on_gpu = backend == dr.JitBackend.CUDA and torch.cuda.is_available()
    return [*most, torch.cuda.max_memory_reserved() / 2**30 if on_gpu else ""]


def kernels(render: Any) -> list[list[object]]:
    """Return one row per kernel of a render, the slowest first."""
    import drjit as dr

    with dr.scoped_set_flag(dr.JitFlag.KernelHistory, True):
        dr.kernel_history_clear()
        render()
        dr.sync_thread()
        history = dr.kernel_history([dr.KernelType.JIT])
    history.sort(key=lambda kernel: -kernel["execution_time"])
    return [
        [k["hash"][:8], k["size"], k["operation_count"], bool(k["uses_optix"]), k["execution_time"]]
        for k in history[:KERNELS]
    ]


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Send Dr.Jit's log, which goes to standard output, to a file instead."""
    import drjit as dr

    level = dr.log_level()
    sys.stdout.flush()
    stdout = os.dup(1)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 1)
        dr.set_log_level(dr.LogLevel.Info)
        try:
            yield
        finally:
            dr.set_log_level(level)
            sys.stdout.flush()
            os.dup2(stdout, 1)
            os.close(stdout)


def about(kernel: str, log: Path) -> str:
    """Return what Dr.Jit's log says of a kernel."""
    lines = log.read_text(errors="replace").splitlines()
    for i, line in enumerate(lines):
        if f"launching {kernel}" in line:
            end = next(j for j in range(i, len(lines)) if "jit_eval(): done" in lines[j])
            return "\n".join(text.strip() for text in lines[i:end])
    return "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", nargs="?", default="morning-room")
    parser.add_argument("--method", nargs="+", default=["none", "poisson-l1", "ngpt", "ngpt-small"])
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--spp", type=int, default=8)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--variant", help="by default the best that works")
    parser.add_argument("--drjit-log", type=Path, metavar="FILE")
    args = parser.parse_args()

    import drjit as dr
    import mitsuba as mi
    import torch

    rendering.set_variant(args.variant)
    backend = dr.backend_v(mi.Float)
    scene = load(args.scene, args.width, args.depth)
    integrator: Any = mi.load_dict({"type": "gdpt", "max_depth": args.depth, "variances": True})
    if args.drjit_log:
        with log_to(args.drjit_log):
            mi.render(scene, integrator=integrator, spp=args.spp, seed=98)
            dr.sync_thread()
    rows: list[list[object]] = []
    for method in args.method:
        options: dict[str, Any] = {}
        if (obstacle := denoisers.find(method).obstacle) is not None:
            if (weights := untrained_weights(method)) is None:
                print(f"- {method}: not available: {obstacle}")
                continue
            options["weights"] = weights
        dr.detail.malloc_clear_statistics()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for seed in range(args.repeats + 1):
            start = time.perf_counter()
            frame = mi.render(scene, integrator=integrator, spp=args.spp, seed=seed)
            image = denoisers.denoise(frame, method, layout=integrator, **options)
            dr.eval(image)
            dr.sync_thread()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        later = statistics.median(seconds[1:])
        rows.append([method, seconds[0], later, min(seconds[1:]), *peak_memory(backend)])
    height, width = frame.shape[:2]
    print(f"{args.scene}, {width}x{height}, {args.spp} spp, {mi.variant()}\n")
    header = ["render and", "first, s", "median, s", "least, s", "Dr.Jit, GiB", "torch, GiB"]
    print(table(header, rows) + "\n")
    header = ["kernel", "lanes", "operations", "OptiX", "ms"]
    found = kernels(lambda: mi.render(scene, integrator=integrator, spp=args.spp, seed=99))
    print(table(header, found))
    if args.drjit_log:
        print(f"\nDr.Jit on the slowest:\n\n```\n{about(str(found[0][0]), args.drjit_log)}\n```")


if __name__ == "__main__":
    main()
