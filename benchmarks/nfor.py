"""Quality and time of NFOR, at equal spp.

For each scene: relMSE of the primal, and by how much it falls with ``nfor``, with and without
halves, and with OIDN (and in brackets without the 0.1 % of pixels with the largest error).
References as in ``gradients.py``.

    python benchmarks/nfor.py [SCENE ...] [--spp 32] [--threads 2] [--publish]

``--publish`` writes docs/results/data/DATE-nfor.json.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch
from common import DEV, dev_reference, dev_scenes, geometric_mean, load, publish, table
from gradients import reference_of

import mitsuba_gdpt as gdpt
from mitsuba_gdpt import metrics
from mitsuba_gdpt.evaluation.inputs import merge

#: What is compared: method and options, by label.
CANDIDATES = ("nfor", "nfor, no halves", "oidn(aux=raw)")


def examine(name: str, spp: int, depth: int) -> dict[str, Any]:
    """Return relMSE and trimmed relMSE of the primal and of all candidates, and their seconds."""
    import mitsuba as mi

    width = dev_reference(name).size[0] if name in DEV else 192
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

    def errors(image: torch.Tensor) -> list[float]:
        image = image.double()
        of_image = metrics.relmse(image, reference), metrics.trimmed_relmse(image, reference)
        return [float(value) for value in of_image]

    found: dict[str, Any] = {"errors": {"primal": errors(buffers["primal"])}, "seconds": {}}
    for label in CANDIDATES:
        options = {"halves": tuple(halves)} if label == "nfor" else {}
        start = time.process_time()
        image = gdpt.denoise(buffers, label.removesuffix(", no halves"), **options)
        found["seconds"][label] = time.process_time() - start
        found["errors"][label] = errors(image)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", nargs="*", help="dev or built-in scenes (default: all dev)")
    parser.add_argument("--spp", type=int, default=32, help="even, at least 4 (default: 32)")
    parser.add_argument("--max-depth", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: 2)")
    parser.add_argument("--publish", action="store_true", help="see above")
    arguments = parser.parse_args()
    if arguments.spp < 4 or arguments.spp % 2:
        parser.error(f"--spp is {arguments.spp}; expected an even number >= 4")

    import mitsuba as mi

    mi.set_variant("llvm_ad_rgb")
    mi.set_log_level(mi.LogLevel.Error)
    torch.set_num_threads(arguments.threads)
    found = {}
    for name in arguments.scenes or dev_scenes():
        found[name] = examine(name, arguments.spp, arguments.max_depth)
        print(f"{name} done", flush=True)
    rows: list[list[object]] = []
    ratios: dict[str, list[float]] = {label: [] for label in CANDIDATES}
    for name, values in found.items():
        before, trimmed = values["errors"]["primal"]
        cells = []
        for label in CANDIDATES:
            after = values["errors"][label]
            ratios[label].append(before / after[0])
            cells.append(f"{before / after[0]:.2f} ({trimmed / after[1]:.2f})")
        rows.append([name, before, *cells, *values["seconds"].values()])
    rows.append(["geometric mean", "", *map(geometric_mean, ratios.values()), "", "", ""])
    header = ["scene", "relMSE", *CANDIDATES, *(f"{label}, s" for label in CANDIDATES)]
    print(table(header, rows))
    if arguments.publish:
        settings = {"spp": arguments.spp, "depth": arguments.max_depth}
        errors = {name: values["errors"] for name, values in found.items()}
        publish("nfor", {"settings": settings, "scenes": errors})


if __name__ == "__main__":
    main()
