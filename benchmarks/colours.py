"""What networks make of strong colours, and of the grid that they compute on.

    python benchmarks/colours.py [--publish]

Mitsuba's Cornell box, with the mean colours of its red and green walls in a render of few samples,
in what networks make of it with numbers of 16 and of 32 bits, and in a reference. *Grid* compares
the differences of neighbours across the borders of blocks of 2x2 pixels with those inside, relative
to the same in the reference: 1 where a network leaves no trace of its blocks. ``--publish`` writes
docs/results/data/DATE-colours.json.
"""

from __future__ import annotations

import argparse
from typing import Any

import mitsuba as mi
import numpy as np
import torch
from common import publish, table

import mitsuba_gdpt

SIDE, SPP, REFERENCE = 128, 16, 512
METHODS = ("ngpt", "ngpt-small", "ngpt-fusion")
PRECISIONS = ("bfloat16", "float32")
WALLS = {"red": 0, "green": 1}


def render(spp: int, seed: int) -> torch.Tensor:
    """Return the buffers of the Cornell box, (H, W, 16)."""
    box = mi.cornell_box()
    box["sensor"]["film"] |= {"width": SIDE, "height": SIDE, "rfilter": {"type": "box"}}
    scene = mi.load_dict(box | {"integrator": {"type": "gdpt"}})
    return torch.from_numpy(np.array(mi.render(scene, spp=spp, seed=seed)))


def of_wall(image: torch.Tensor, albedo: torch.Tensor, channel: int) -> torch.Tensor:
    """Return the pixels of a wall, (N, 3): where the albedo is of one colour, mostly."""
    others = [c for c in range(3) if c != channel]
    mine = albedo[..., channel] > 2 * albedo[..., others].amax(-1)
    return image[mine]


def grid(image: torch.Tensor) -> float:
    """Return differences across the borders of blocks of 2x2 pixels over those inside them."""
    logarithms = image.clamp(min=0).log1p()
    ratios = []
    for axis in (0, 1):
        steps = logarithms.diff(dim=axis).abs().mean([d for d in (0, 1, 2) if d != axis])
        ratios.append(float(steps[1::2].mean() / steps[::2].mean()))
    return float(np.mean(ratios))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--publish", action="store_true", help="see above")
    arguments = parser.parse_args()
    mi.set_variant("llvm_ad_rgb")
    noisy, reference = render(SPP, 0), render(REFERENCE, 1)[..., :3]
    albedo = noisy[..., 9:12]
    images = {"reference": reference, "primal": noisy[..., :3]}
    for method in METHODS:
        for precision in PRECISIONS:
            call = f"{method}(precision={precision})"
            images[call] = mitsuba_gdpt.denoise(noisy, call)
    found: dict[str, Any] = {}
    for name, image in images.items():
        walls = {
            wall: of_wall(image, albedo, channel).mean(0).tolist()
            for wall, channel in WALLS.items()
        }
        dark = of_wall(image, albedo, WALLS["red"])[:, 2]
        found[name] = {
            **walls,
            "not_above_0": float((dark <= 0).float().mean()),
            "grid": grid(image) / grid(reference),
        }
    head = ["image", *WALLS, "red wall, blue not above 0", "grid"]
    rows = [
        [
            name,
            *(np.round(value, 4) if isinstance(value, list) else value for value in row.values()),
        ]
        for name, row in found.items()
    ]
    print(table(head, rows))
    if arguments.publish:
        settings = {"side": SIDE, "spp": SPP, "reference_spp": REFERENCE}
        publish("colours", {"settings": settings, "images": found})


if __name__ == "__main__":
    main()
