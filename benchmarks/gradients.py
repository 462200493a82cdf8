"""Quality of the gradients and of Poisson reconstruction, at equal spp.

For each scene: mean squared error of dx and dy over that of finite differences of ``path`` (below
1 means the shift pays), and relMSE of the primal, ``poisson-l1`` and ``poisson-l2``. Errors are
estimated against two independent half references a, b as mean((p - a)(p - b)), which is free of the
reference's own noise. "trimmed" leaves out the 0.1 % of pixels with the largest error: fireflies.

    python benchmarks/gradients.py [SCENE ...] [--spp 8] [--seeds 3] [--shifts 4]
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from common import DEV, dev_reference, dev_scenes, load, table
from scipy.ndimage import binary_dilation

import mitsuba_gdpt as gdpt
from mitsuba_gdpt import metrics
from mitsuba_gdpt.metrics import Reference


def tensor(image: Any) -> torch.Tensor:
    """Return an image of any kind as float64: errors of references are small differences."""
    return torch.from_numpy(np.array(image)[..., :3].astype(np.float64))


def difference(image: torch.Tensor, axis: int) -> torch.Tensor:
    """Forward difference along an axis, 0 in the last column or row."""
    return image.diff(dim=axis, append=image.narrow(axis, -1, 1))


def differences(reference: Reference, axis: int) -> Reference:
    """Return the forward difference of both halves."""
    assert reference.b is not None
    return Reference(difference(reference.a, axis), difference(reference.b, axis))


def error(image: torch.Tensor, reference: Reference) -> np.ndarray:
    """Unbiased squared error per pixel."""
    return reference.squared_error(image).mean(-1).numpy()


def trimmed(values: np.ndarray) -> float:
    """Mean without the largest 0.1 %, of errors of any kind and of all seeds together.

    (``metrics.trimmed_relmse`` trims each image by itself.)
    """
    return float(np.sort(values.ravel())[: int(values.size * 0.999)].mean())


def reference_of(name: str, scene: Any, depth: int) -> Reference:
    """Return two independent references: stored beside the scene, or rendered."""
    import mitsuba as mi

    if name in DEV:
        stored = dev_reference(name)
        return Reference(tensor(stored.a), tensor(stored.b))
    path = mi.load_dict({"type": "path", "max_depth": depth})
    halves = [
        np.mean([np.array(mi.render(scene, integrator=path, spp=128, seed=s)) for s in seeds], 0)
        for seeds in (range(900, 904), range(950, 954))
    ]
    return Reference(*map(tensor, halves))


def examine(name: str, spp: int, seeds: int, depth: int, shifts: int) -> list[object]:
    """Return one row of the table."""
    import mitsuba as mi

    width = dev_reference(name).size[0] if name in DEV else 192
    scene = load(name, width, depth)
    reference = reference_of(name, scene, depth)
    path = mi.load_dict({"type": "path", "max_depth": depth})
    integrator = mi.load_dict({"type": "gdpt", "max_depth": depth, "shifts": shifts})
    ratios: dict[str, list[np.ndarray]] = {}
    for seed in range(seeds):
        out = mi.render(scene, integrator=integrator, spp=spp, seed=seed)
        b = gdpt.FrameBuffers.from_render(out, integrator)
        plain = tensor(mi.render(scene, integrator=path, spp=spp, seed=seed))
        for i, key in enumerate(("dy", "dx")):
            true = differences(reference, i)
            ratios.setdefault(key, []).append(error(b[key].double(), true))
            ratios.setdefault(f"path {key}", []).append(error(difference(plain, i), true))
        for method in ("none", "poisson-l1", "poisson-l2"):
            image = gdpt.denoise(b, method=method).double()
            ratios.setdefault(method, []).append(
                metrics.relative_error_map(image, reference).numpy()
            )
    stacked = {key: np.stack(values) for key, values in ratios.items()}
    row: list[object] = [name]
    for mean in (np.mean, trimmed):
        row += [float(mean(stacked[k]) / mean(stacked[f"path {k}"])) for k in ("dx", "dy")]
    row += [float(np.mean(stacked[m])) for m in ("none", "poisson-l1", "poisson-l2")]
    row += [trimmed(stacked[m]) for m in ("none", "poisson-l1")]
    return row


def cornell(spp: int, seeds: int, shifts: int) -> list[float]:
    """Gain of dx and dy over path's differences on the Cornell box, lamp and 3 px around left out.

    The setting of the original's published figures: 256x256, depth 8, no Russian roulette.
    """
    import mitsuba as mi

    description = mi.cornell_box()
    description["sensor"]["film"] |= {"width": 256, "height": 256, "rfilter": {"type": "box"}}
    scene = mi.load_dict(description)
    options = {"max_depth": 8, "rr_depth": 100}
    path = mi.load_dict({"type": "path"} | options)
    integrator = mi.load_dict({"type": "gdpt", "shifts": shifts} | options)
    halves = [
        torch.stack(
            [tensor(mi.render(scene, integrator=path, spp=256, seed=seed)) for seed in range(*ends)]
        ).mean(0)
        for ends in ((900, 904), (950, 954))
    ]
    reference = Reference(*halves)
    keep = ~binary_dilation(reference.mean.amax(-1).numpy() > 2, iterations=3)
    gains = []
    for axis, key in ((1, "dx"), (0, "dy")):
        true = differences(reference, axis)
        ours, theirs = [], []
        for seed in range(seeds):
            out = np.array(mi.render(scene, integrator=integrator, spp=spp, seed=seed))
            plain = tensor(mi.render(scene, integrator=path, spp=spp, seed=seed))
            gradient = tensor(out[..., integrator.layout.slices[key]])
            ours.append(error(gradient, true)[keep].mean())
            theirs.append(error(difference(plain, axis), true)[keep].mean())
        gains.append(float(np.mean(theirs) / np.mean(ours)))
    return gains


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", nargs="*")
    parser.add_argument("--spp", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--shifts", type=int, default=4)
    args = parser.parse_args()

    import mitsuba as mi

    mi.set_variant("llvm_ad_rgb")
    dx, dy = cornell(16, args.seeds, args.shifts)
    print(f"Cornell box, 16 spp: error of dx {dx:.1f} times, of dy {dy:.1f} times below path's\n")
    header = ["scene", "dx", "dy", "dx trimmed", "dy trimmed", "primal", "L1", "L2"]
    header += ["primal trimmed", "L1 trimmed"]
    rows = []
    for name in args.scenes or [*dev_scenes(), *gdpt.scenes.names()]:
        rows.append(examine(name, args.spp, args.seeds, args.depth, args.shifts))
        print(table(header, rows[-1:]).splitlines()[-1], flush=True)
    print(f"\nspp {args.spp}, {args.seeds} seeds, shifts={args.shifts}\n")
    print(table(header, rows))


if __name__ == "__main__":
    main()
