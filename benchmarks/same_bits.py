"""Whether a change of the code keeps its results bit for bit.

Every section yields results by name; a file keeps their SHA-256. Record before and after a change
on the same machine, with the same packages, and compare:

    python benchmarks/same_bits.py record before.json [SECTION ...]
    python benchmarks/same_bits.py compare before.json after.json

or compare two checkouts, each with its own list of results, in one go:

    python benchmarks/same_bits.py checkouts OLD NEW [SECTION ...]

A section is a function in :data:`SECTIONS` that yields (name, array) pairs, or (name, bytes).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import mitsuba_gdpt  # before Dr.Jit starts: chooses its LLVM

Results = Iterator[tuple[str, "np.ndarray | bytes"]]

SCENES = (
    "corner-gallery",
    "glass-bar",
    "pergola",
    "spectral-bench",
    "string-lights",
    "tiled-hall",
)
VARIANTS = ("llvm_ad_rgb", "llvm_ad_mono", "llvm_ad_spectral")
FEATURES = "position,visibility,diffuse,specular,roughness,emission"
#: Shifts and samples of a few renders whose samples are too few for all directions.
FEW = ((1, 1), (1, 2), (1, 3), (2, 1))


def renders() -> Results:
    """All channels of six built-in scenes: every number of shifts in every kind of variant."""
    import mitsuba as mi

    from mitsuba_gdpt import scenes

    def render(scene: mi.Scene, shifts: int, spp: int) -> np.ndarray:
        options = {"shifts": shifts, "variances": spp > 1, "features": FEATURES, "max_depth": 5}
        integrator = mi.load_dict({"type": "gdpt", **options})
        return np.array(integrator.render(scene, spp=spp, seed=3))

    for variant in VARIANTS:
        mi.set_variant(variant)
        for name in SCENES:
            scene = scenes.load(name, width=32, height=32)
            few = FEW if (variant, name) == (VARIANTS[0], SCENES[0]) else ()
            for shifts, spp in (*((shifts, 5) for shifts in (0, 1, 2, 4)), *few):
                label = f"{variant} {name}, shifts={shifts}, {spp} spp"
                yield label, render(scene, shifts, spp)


#: Options that change what methods compute, besides the defaults.
OPTIONS: tuple[tuple[str, dict[str, object]], ...] = (
    ("nfor", {"bandwidths": (0.25,), "patch_radius": 1, "window_radius": 4}),
    ("oidn", {"aux": "raw", "ensemble": 4, "prefilter": "balanced"}),
    ("oidn", {"aux": "none", "quality": "fast", "input_scale": 2.0}),
    ("oidn-fusion", {"weight": 4.0}),
    ("poisson-l1", {"preset": "L1L", "cg_iterations": 40}),
    ("poisson-l2", {"alpha": 0.01}),
    ("temporal", {"frames": 2, "feedback": 0.9}),
)


def methods() -> Results:
    """The images that every method makes of three frames of noise, and of two small renders."""
    import torch

    from mitsuba_gdpt import FrameBuffers, denoise_sequence, denoisers
    from mitsuba_gdpt.channels import TABLE, Layout

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    layout = Layout(TABLE)
    noise = [
        FrameBuffers(torch.rand(20, 23, layout.count, generator=generator), layout)
        for _ in range(3)
    ]
    sequences = {"noise": noise, **_rendered()}
    defaults = [(method.name, {}) for method in denoisers.methods() if method.available]
    for name, options in (*defaults, *OPTIONS):
        for source, frames in sequences.items():
            images = torch.stack(list(denoise_sequence(frames, name, **options)))
            text = ", ".join(f"{key}={value}" for key, value in options.items())
            yield f"{name} ({text}) of {source}", images.numpy()


def _rendered() -> dict[str, list[mitsuba_gdpt.FrameBuffers]]:
    """Render two scenes with everything that methods read, once each."""
    import mitsuba as mi

    from mitsuba_gdpt import FrameBuffers, scenes

    mi.set_variant(VARIANTS[0])
    options = {"shifts": 4, "variances": True, "features": FEATURES, "max_depth": 5}
    integrator = mi.load_dict({"type": "gdpt", **options})
    result = {}
    for name in SCENES[:2]:
        scene = scenes.load(name, width=40, height=32)
        image = integrator.render(scene, spp=4, seed=3)
        result[name] = [FrameBuffers.from_render(image, integrator)]
    return result


#: Networks of a few parameters: method, and what is set besides.
_UNET = {"growth": [4, 4], "units": [1, 1], "down": [4], "up": [4], "patch": 1}
_RECURRENT = {"stages": [3, 4, 4], "decoder": [4], "finest": [4, 4]}
TRAININGS: tuple[tuple[str, dict[str, object]], ...] = (
    ("ngpt-small", {"network": _UNET, "loss": "ngpt-l1"}),
    ("ngpt-small", {"network": _UNET, "loss": "noise2noise", "schedule": "one-cycle"}),
    ("ngpt-small", {"network": _UNET, "loss": "fusion-seen", "targets": "poisson-l2"}),
    ("ngpt-oidn", {"network": _UNET, "guides": ["poisson-l2"], "resident": True}),
    ("kpcn-small", {"network": {"layers": 2, "width": 4, "filter": 3, "kernel": 3}}),
    ("ngpt-fusion", {"guides": ["poisson-l2"]}),
    ("rdae-grad", {"network": _RECURRENT, "sequence.length": 3, "sequence.size": 16}),
    ("rdae", {"network": {**_RECURRENT, "warp": True}, "sequence.length": 2, "sequence.size": 16}),
)


def training() -> Results:
    """The weights and figures after the first steps of every kind of training, on noise."""
    import warnings

    import torch
    from safetensors.numpy import load_file

    from mitsuba_gdpt.training.config import TrainingConfig, load_config
    from mitsuba_gdpt.training.run import train

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # that noisy targets bias losses
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _write_crops(root / "crops.zarr")
        _write_frames(root / "frames")
        for number, (method, options) in enumerate(TRAININGS):
            values = {
                "method": method,
                "output": str(root / str(number)),
                "data": [str(root / ("frames" if method.startswith("rdae") else "crops.zarr"))],
                "holdout": 0.5,
                "steps": 4,
                "batch": 2,
                "checkpoint_every": 100,
                "validation_examples": 2,
                "precision": "float32",
            }
            config: TrainingConfig = load_config(None, {**values, **options})
            path = train(config)
            label = ", ".join(f"{key}={value}" for key, value in options.items())
            arrays = [array.ravel() for _, array in sorted(load_file(path).items())]
            yield f"{method} ({label}): weights", np.concatenate(arrays)
            figures = root / str(number) / "validation" / "step-0000004.json"
            yield f"{method} ({label}): validation", figures.read_bytes()


def _write_crops(path: Path) -> None:
    """Write a crop set of noise."""
    from mitsuba_gdpt.channels import Layout
    from mitsuba_gdpt.data import store
    from mitsuba_gdpt.data.plan import CropPlan
    from mitsuba_gdpt.scenes.catalogue import CameraBox, CatalogueScene

    box = CameraBox((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    scene = CatalogueScene("noise", "noise.xml", "noise", "nobody", "CC0", boxes=(box,))
    plan = CropPlan((scene,), crops=4, size=32, levels=3, frame=(64, 48))
    layout = Layout.make(features=("position", "diffuse", "specular"), variances=True)
    store.create(plan, layout, path, crops_per_shard=4)
    random = np.random.default_rng(0)
    shapes = ((plan.levels, 32, 32, layout.count), (plan.target_renders, 32, 32, 3), (32, 32))
    arrays = [random.random((4, *shape)).astype(np.float16) for shape in shapes]
    (shard,) = store.shards(plan, path, 4)
    shard.write(*arrays, np.stack([np.arange(4), np.zeros(4, int)], axis=-1))


def _write_frames(root: Path) -> None:
    """Write a frame set of noise with two renders per frame."""
    import torch

    from mitsuba_gdpt import FrameBuffers
    from mitsuba_gdpt.channels import DERIVED, Layout
    from mitsuba_gdpt.data.frame_set import TARGET, frame_folder, noisy_name
    from mitsuba_gdpt.motion import PinholeCamera

    layout = Layout((*Layout.make().buffers, *DERIVED))
    camera = PinholeCamera(np.eye(4), np.array([[-20.0, 0, 12], [0, -20, 10], [0, 0, 1]]))
    generator = torch.Generator().manual_seed(0)
    for scene in ("one", "other"):
        for index in range(4):
            folder = frame_folder(root, "train", scene, index)
            folder.mkdir(parents=True)
            for name in (TARGET, noisy_name(0), noisy_name(1)):
                data = torch.rand(20, 24, layout.count, generator=generator)
                FrameBuffers(data, layout, camera.metadata()).to_exr(folder / name)


#: Renders on a budget: what for, besides the scene. Seconds are those of a clock made up.
BUDGETS: tuple[dict[str, object], ...] = (
    {"spp": 12},
    {"spp": 9, "variances": True, "method": "poisson-l2"},
    {"spp": 8, "quality": "high", "features": " position,,roughness"},
    {"noise": 0.05, "spp": 64},
    {"noise": 0.01, "spp": 40, "method": "poisson-l1"},
    {"spp": 72, "adaptive": True, "shifts": 1},
    {"spp": 72, "adaptive": True, "variances": True, "method": "poisson-l2"},
    {"seconds": 8.0},
    {"seconds": 8.0, "quality": "fast", "shifts": 0},
    {"seconds": 40.0, "adaptive": True},
    {"seconds": 40.0, "adaptive": False, "method": "poisson-l2"},
    {"seconds": 0.01},
    {"seconds": 60.0, "wall": True},
)
#: Passes after which some of them are interrupted, to go on from a file.
INTERRUPTED = (1, 3, 6)


def budgets() -> Results:
    """Renders on budgets, whole and interrupted: images, buffers, headers, and what is shown."""
    from unittest.mock import patch

    import mitsuba as mi

    from mitsuba_gdpt import denoisers, rendering
    from mitsuba_gdpt.denoisers import Call
    from mitsuba_gdpt.rendering import adaptive

    mi.set_variant(VARIANTS[0])
    source = rendering.open_source("builtin:corner-gallery", width=24, height=16)
    render, denoise = rendering.frame.render, denoisers.denoise
    now, left = 0.0, 0
    shown: list[Any] = []

    def timed(*words: Any, **options: Any) -> Any:
        nonlocal now, left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        counts = options.get("counts")
        now += 0.05 + 0.1 * (options["spp"] if counts is None else float(counts.mean()))
        return render(*words, **options)

    def reconstructed(frame: Any, method: Any, **words: Any) -> Any:
        nonlocal now
        if not words:  # else a trial on black pixels
            now += frame.width * frame.height / 1000
        return denoise(frame, method, **words)

    def run(options: dict[str, Any], passes: int, **more: Any) -> rendering.Rendered:
        nonlocal now, left
        now, left, rest = 0.0, passes, dict(options)
        limits = {key: rest.pop(key, None) for key in ("seconds", "spp", "noise")}
        budget = rendering.Budget(**limits, wall=bool(rest.pop("wall", False)))
        method = Call.parse(rest.pop("method")) if "method" in rest else None
        more |= {key: rest.pop(key, None) for key in ("quality", "adaptive")}
        parameters = {"max_depth": 3, **rest}
        return rendering.BudgetedRender(
            source, parameters, budget, method=method, seed=3, clock=lambda: now, **more
        ).run()

    def results(label: str, done: rendering.Rendered) -> Results:
        yield f"{label}: image", done.image.numpy()
        yield from _of_file(label, done.buffers)
        rest = [done.shifts, str(done.method), done.noise, sorted(done.seconds.items())]
        yield f"{label}: rest", repr(rest).encode()

    with (
        patch.object(rendering.frame, "render", timed),
        patch.object(denoisers, "denoise", reconstructed),
        patch.object(adaptive, "_LEAST_AGREEMENT", -2.0),
    ):
        for options in BUDGETS:
            label = ", ".join(f"{key}={value}" for key, value in options.items())
            shown.clear()
            done = run(options, 1000, update=lambda *update: shown.append(update))
            yield from results(label, done)
            for number, (image, frame) in enumerate(shown):
                yield f"{label}: shown image {number}", image.numpy()
                yield from _of_file(f"{label}: shown {number}", frame)
            for passes in INTERRUPTED:
                part = run(options, passes)
                yield from results(f"{label}, {passes} passes", part)
                if part.interrupted and "noise" not in options:
                    with tempfile.TemporaryDirectory() as folder:
                        path = Path(folder) / "part.exr"
                        part.buffers.to_exr(path)
                        before = rendering.Accumulation.from_exr(path)
                        done = run(options, 1000, resumed=before)
                    yield from results(f"{label}, on after {passes} passes", done)


def _of_file(label: str, frame: mitsuba_gdpt.FrameBuffers) -> Results:
    """What a file has of buffers."""
    yield f"{label}: buffers", frame.data.numpy()
    yield f"{label}: header", repr(sorted(frame.metadata.items())).encode()
    for name, plane in sorted(frame.planes.items()):
        yield f"{label}: {name}", plane


def sequences() -> Results:
    """Sequences on a budget of samples: what their folders hold."""
    import mitsuba as mi

    from mitsuba_gdpt import FrameBuffers, rendering
    from mitsuba_gdpt.scenes.catalogue import Catalogue

    mi.set_variant(VARIANTS[0])
    source = rendering.open_source("builtin:corner-gallery", width=24, height=16)
    scene = Catalogue.open("builtin").scene("corner-gallery")
    cameras = [scene.fly(0.4 + 0.02 * number) for number in range(3)]
    for spp, options in (
        (12, {}),
        (10, {"variances": True, "method": "temporal,using=poisson-l2"}),
    ):
        with tempfile.TemporaryDirectory() as folder:
            words = {"width": 24, "height": 16, "spp": spp, "max_depth": 3, **options}
            rendering.render_sequence(source, cameras, folder, **words)
            for path in sorted(Path(folder).iterdir()):
                if path.suffix == ".exr":
                    yield from _of_file(f"{spp} spp: {path.name}", FrameBuffers.from_exr(path))
                elif path.suffix == ".json":
                    plan = json.loads(path.read_text()).items()
                    plan = {key: value for key, value in plan if "seconds" not in key}
                    yield f"{spp} spp: {path.name}", json.dumps(plan).encode()


SECTIONS: dict[str, Callable[[], Results]] = {
    "renders": renders,
    "budgets": budgets,
    "sequences": sequences,
    "methods": methods,
    "training": training,
}


def digest(result: np.ndarray | bytes) -> str:
    """Return the SHA-256 of bytes, or of an array with its type and shape."""
    if isinstance(result, bytes):
        return hashlib.sha256(result).hexdigest()
    head = f"{result.dtype.str} {result.shape} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(result).tobytes()).hexdigest()


def record(path: Path, sections: list[str]) -> None:
    """Write the digests of sections; those of others that the file has are kept."""
    stored = json.loads(path.read_text()) if path.is_file() else {}
    for section in sections:
        found = {}
        for name, result in SECTIONS[section]():
            found[name] = digest(result)
            print(f"{found[name][:8]}  {section}: {name}", flush=True)
            path.write_text(json.dumps(stored | {section: found}, indent=1) + "\n")
        stored[section] = found


def compare(before: Path, after: Path) -> int:
    """Print what differs; return how many results do, or stand in one file only."""
    files = [json.loads(path.read_text()) for path in (before, after)]
    a, b = ({(s, n): d for s, found in f.items() for n, d in found.items()} for f in files)
    differing = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
    for section, name in differing:
        missing = [str(p) for p, d in ((before, a), (after, b)) if (section, name) not in d]
        print(f"{section}: {name}: " + (f"not in {missing[0]}" if missing else "differs"))
    print(f"{len(a.keys() | b.keys()) - len(differing)} results are the same, {len(differing)} not")
    return len(differing)


def compare_checkouts(old: Path, new: Path, sections: list[str]) -> int:
    """Record with the code of two checkouts, compare; return how many results differ."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, root in (("old", old), ("new", new)):
            paths.append(Path(folder) / f"{name}.json")
            script = root.resolve() / "benchmarks" / "same_bits.py"
            words = [sys.executable, "-P", str(script), "record", str(paths[-1]), *sections]
            environment = {**os.environ, "PYTHONPATH": str(root.resolve())}
            subprocess.run(words, cwd=root, env=environment, check=True)
        return compare(*paths)


def main() -> int:
    """Record or compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record")
    recording.add_argument("path", type=Path)
    recording.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    comparing = commands.add_parser("compare")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    both = commands.add_parser("checkouts")
    both.add_argument("old", type=Path)
    both.add_argument("new", type=Path)
    both.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    args = parser.parse_args()
    if args.command == "checkouts":
        return min(compare_checkouts(args.old, args.new, args.sections), 1)
    if args.command == "compare":
        return min(compare(args.before, args.after), 1)
    if unknown := [name for name in args.sections if name not in SECTIONS]:
        parser.error(f"there is no section {unknown[0]!r}; expected {', '.join(SECTIONS)}")
    record(args.path, args.sections or [*SECTIONS])
    return 0


if __name__ == "__main__":
    sys.exit(main())
