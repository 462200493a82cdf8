"""Latency and memory of every reconstruction method, as multiples of ``oidn``.

All methods run in one process, in turns, so that whatever else the machine does hits all of them;
reported are median and least time of a call on buffers in memory, and ratios of the medians to
``oidn`` with prefiltered features and to its variants. Peak memory is that of a fresh process per
method: growth of the resident set from just before the first call to the end, so it includes
weights and libraries that the method loads; on a GPU, what torch reserves there.

    python benchmarks/denoise.py [METHOD ...] [--size 512x512 ...] [--repeats 5] [--synthetic]

With ``--untrained``, networks without shipped weights run with random ones.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from common import table, untrained_weights

#: Further calls, where nobody says which.
VARIANTS = (
    "oidn(quality=balanced)",
    "oidn(aux=clean)",
    "oidn(aux=raw)",
    "oidn(aux=raw, quality=fast)",
    "oidn(aux=none, quality=fast)",
    "ngpt-fusion(using=oidn(aux=clean, ensemble=2))",
    "ngpt(precision=float32)",
    "ngpt-small(precision=float32)",
)
#: What all are compared with; shown where they are among the methods that ran.
BASELINES = ("oidn", *(name for name in VARIANTS if "quality=fast" in name))
SIZES = ("512x512", "1280x720")
SCENE, SPP = "morning-room", 4


def buffers(size: str, variant: str, synthetic: bool) -> Any:
    """Return features and variances of a render, or noise in their shape, on its device."""
    import torch

    from mitsuba_gdpt import rendering
    from mitsuba_gdpt.buffers import FrameBuffers
    from mitsuba_gdpt.channels import OPTIONAL, Layout

    width, height = map(int, size.split("x"))
    features = [b.name for b in OPTIONAL if b.name in ("diffuse", "specular", "roughness")]
    if synthetic:
        layout = Layout.make(features=features, variances=True)
        noise = torch.rand(height, width, layout.count, generator=torch.Generator().manual_seed(0))
        return FrameBuffers(noise, layout).to("cuda" if variant.startswith("cuda") else "cpu")
    source = rendering.open_source(f"builtin:{SCENE}", width=width, height=height)
    integrator = rendering.make_integrator(
        {**source.integrator, "features": ",".join(features), "variances": True}
    )
    return rendering.render(source, integrator, spp=SPP)


def candidates(wanted: list[str], untrained: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """Return name -> (method, options) of what can run here, and name -> reason of the rest."""
    from mitsuba_gdpt import denoisers

    texts = wanted or [*(method.name for method in denoisers.methods()), *VARIANTS]
    able, unable = {}, {}
    for text in texts:
        call = denoisers.Call.parse(text)
        obstacle = call.obstacle
        if obstacle and untrained and (weights := untrained_weights(call.method)):
            able[text] = (call.method, {**call.options, "weights": weights})
        elif obstacle:
            unable[text] = str(obstacle)
        else:
            able[text] = (call.method, dict(call.options))
    return able, unable


def latencies(frame: Any, able: dict[str, Any], repeats: int) -> dict[str, list[float]]:
    """Return seconds of each call, after one round that is not counted."""
    import torch

    from mitsuba_gdpt import denoisers

    seconds: dict[str, list[float]] = {name: [] for name in able}
    for i in range(repeats + 1):
        for name, (method, options) in able.items():
            start = time.perf_counter()
            denoisers.denoise(frame, method, **options)
            if frame.device.type == "cuda":
                torch.cuda.synchronize(frame.device)
            if i > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def peak_memory(name: str, size: str, variant: str, untrained: bool) -> float:
    """Return MB that one call adds to the peak memory of a fresh process."""
    command = [sys.executable, __file__, name, "--size", size, "--memory-of-this-process"]
    command += ["--variant", variant, *(["--untrained"] if untrained else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.split()[-1])


def measure_memory(name: str, size: str, variant: str, untrained: bool) -> float:
    """Return MB by which memory grows at most while a method runs, first call included.

    On a GPU that is what torch reserves. Elsewhere it is the resident set, on Linux only: resets
    the kernel's high-water mark (proc(5), ``clear_refs``) before the call, which ``ru_maxrss``
    cannot do; otherwise start-up could hide the call.
    """
    import torch

    from mitsuba_gdpt import denoisers

    frame = buffers(size, variant, synthetic=True)
    method, options = candidates([name], untrained)[0][name]
    if frame.device.type == "cuda":
        held = torch.cuda.memory_reserved(frame.device)
        denoisers.denoise(frame, method, **options)
        torch.cuda.synchronize(frame.device)
        return (torch.cuda.max_memory_reserved(frame.device) - held) / 2**20
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = _status("VmRSS")
    denoisers.denoise(frame, method, **options)
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))


def report(size: str, seconds: dict[str, list[float]], memory: dict[str, float]) -> str:
    """Return the table of one size."""
    median = {name: statistics.median(times) for name, times in seconds.items()}
    baselines = [name for name in BASELINES if name in median]
    header = [size, "median, s", "least, s", *(f"x {b}" for b in baselines), "peak memory, MB"]
    rows: list[list[object]] = [
        [
            name,
            median[name],
            min(times),
            *(median[name] / median[baseline] for baseline in baselines),
            round(memory[name]) if name in memory else "",
        ]
        for name, times in seconds.items()
    ]
    return table(header, rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", help="calls, as for 'mitsuba-gdpt evaluate -m'")
    parser.add_argument("--size", nargs="+", default=SIZES, help="WIDTHxHEIGHT")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of torch and Dr.Jit")
    parser.add_argument("--synthetic", action="store_true", help="noise instead of a render")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory")
    parser.add_argument("--untrained", action="store_true", help="random weights where none ship")
    parser.add_argument("--variant", help="of Mitsuba, by default the best that works")
    parser.add_argument("--memory-of-this-process", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    from mitsuba_gdpt import rendering

    variant = rendering.set_variant(args.variant)
    if args.memory_of_this_process:
        print(measure_memory(args.methods[0], args.size[0], variant, args.untrained))
        return

    import drjit as dr
    import torch

    from mitsuba_gdpt import provenance

    if args.threads:
        torch.set_num_threads(args.threads)
        dr.set_thread_count(args.threads)
    able, unable = candidates(args.methods, args.untrained)
    load = "/".join(f"{v:.1f}" for v in os.getloadavg())
    origin = provenance.describe()
    print(f"{origin['machine']}, load {load}\n{origin['libraries']}\n{origin['date']}")
    what = "noise" if args.synthetic else f"{SCENE}, {SPP} spp"
    print(f"{what}, {args.repeats} rounds, {torch.get_num_threads()} threads, {variant}")
    print("random weights where none ship\n" if args.untrained else "", flush=True)
    for size in args.size:
        seconds = latencies(buffers(size, variant, args.synthetic), able, args.repeats)
        memory = {}
        if not args.no_memory:
            memory = {name: peak_memory(name, size, variant, args.untrained) for name in able}
        print(report(size, seconds, memory) + "\n", flush=True)
    for name, reason in unable.items():
        print(f"- {name}: not available: {reason}")
    print(f"load at the end {'/'.join(f'{v:.1f}' for v in os.getloadavg())}")


if __name__ == "__main__":
    main()
