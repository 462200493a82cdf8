"""Make docs/images/teaser.png: primal, what denoise() makes of it, and reference side by side."""

from __future__ import annotations

from pathlib import Path

import mitsuba as mi
import numpy as np

import mitsuba_gdpt as gdpt
from mitsuba_gdpt import exr

SCENE, WIDTH, HEIGHT = "tiled-hall", 400, 300


def main() -> None:
    """Render and compose."""
    mi.set_variant("llvm_ad_rgb")
    scene = gdpt.scenes.load(SCENE, width=WIDTH, height=HEIGHT)
    integrator = mi.load_dict({"type": "gdpt", "max_depth": 12})
    noisy = mi.render(scene, integrator=integrator, spp=8)
    clean = np.array(gdpt.denoise(noisy, layout=integrator))
    path = mi.load_dict({"type": "path", "max_depth": 12})
    reference = np.mean(
        [np.array(mi.render(scene, integrator=path, spp=64, seed=i)) for i in range(8)], 0
    )
    gap = np.ones((HEIGHT, 6, 3), np.float32)
    panels = [np.array(noisy)[..., :3], gap, clean, gap, reference]
    target = Path(__file__).parent / "images" / "teaser.png"
    target.parent.mkdir(exist_ok=True)
    stops = np.log2(gdpt.scenes.describe(SCENE).exposure)
    exr.write_png(target, np.concatenate(panels, 1), exposure=stops)


if __name__ == "__main__":
    main()
