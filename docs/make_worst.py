"""Make docs/images/worst.png: where a method errs most, beside its input and the reference.

    python docs/make_worst.py RESULTS METHOD SPP [OTHER METHODS]

RESULTS is a folder of ``mitsuba-gdpt evaluate``. Of each scene only the worst crop is considered.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.nn import functional

from mitsuba_gdpt import metrics, report
from mitsuba_gdpt.evaluation.store import Store

SIZE, SCALE, CROPS = 48, 5, 3


def main(folder: Path, method: str, spp: str, others: list[str]) -> None:
    """Find the crops, print their errors and write the picture."""
    crops, store = [], Store(folder)
    for scene in sorted((folder / "images").iterdir()):
        labels = {name: name for name in [*others, method]} | {"reference": None}
        images = {
            name: torch.from_numpy(store.read_image(scene.name, label, int(spp)))
            for name, label in labels.items()
        }
        error = metrics.relative_error_map(images[method], images["reference"])
        # 1 % of the largest errors, fireflies of the references among them, do not decide.
        error = error.clamp(max=float(error.flatten().quantile(0.99)))
        means = functional.avg_pool2d(error[None, None], SIZE, SIZE // 4)[0, 0]
        row, column = divmod(int(means.argmax()), means.shape[1])
        place = (row * (SIZE // 4), column * (SIZE // 4))
        crops.append((float(means.max()), scene.name, place, images))
    crops.sort(key=lambda crop: -crop[0])
    pictures = {}
    for error, scene, (y, x), images in crops[:CROPS]:
        print(f"{scene} at {x}, {y}: {error:.3g}")
        exposure = 0.4 / float(images["reference"][y : y + SIZE, x : x + SIZE].mean())
        for name, image in images.items():
            part = image[y : y + SIZE, x : x + SIZE].numpy() * exposure
            enlarged = part.repeat(SCALE, 0).repeat(SCALE, 1)
            pictures[f"{scene}, {name}"] = enlarged
    target = Path(__file__).parent / "images" / "worst.png"
    report.contact_sheet(pictures, target, columns=len(others) + 2)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
