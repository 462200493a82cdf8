"""Error of every method that reconstructs single images, as ``methods()`` shows it.

Each gets the same renders of the dev scenes, ``shifts=1``, with its defaults, networks in float32.
The error is the relMSE without the 0.1 % of pixels with the largest, geometric mean over scenes.

    python benchmarks/methods.py [METHOD ...] [--spp 8] [--publish]

``--publish`` writes docs/results/data/DATE-methods.json; what ``methods()`` shows is in
mitsuba_gdpt/denoisers/errors.toml, which a test compares with it.
"""

from __future__ import annotations

import argparse

from common import dev_reference, dev_scenes, geometric_mean, publish, scene_file, table

import mitsuba_gdpt as gdpt
from mitsuba_gdpt import denoisers, metrics, rendering

DEPTH = 12
#: What one method or another reads.
READ = {"variances": True, "features": "diffuse,specular,visibility"}


def examine(name: str, methods: list[str], spp: int) -> dict[str, float]:
    """Return the error of each method on a scene."""
    reference = dev_reference(name)
    source = rendering.open_source(scene_file(name), width=reference.size[0])
    integrator = rendering.make_integrator({"max_depth": DEPTH, "shifts": 1, **READ})
    buffers = rendering.render(source, integrator, spp=spp, seed=21)
    found = {}
    for method in methods:
        options = {"precision": "float32"} if "precision" in denoisers.find(method).options else {}
        image = gdpt.denoise(buffers, method, **options)
        found[method] = float(metrics.trimmed_relmse(image, reference.reference()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", help="default: all that are there")
    parser.add_argument("--spp", type=int, default=8, help="(default: 8)")
    parser.add_argument("--publish", action="store_true", help="see above")
    arguments = parser.parse_args()

    import mitsuba as mi

    mi.set_variant("llvm_ad_rgb")
    mi.set_log_level(mi.LogLevel.Error)
    still = [m.name for m in gdpt.methods() if m.available and not m.recurrent]
    methods = arguments.methods or still
    found = {}
    for name in dev_scenes():
        found[name] = examine(name, methods, arguments.spp)
        print(f"{name} done", flush=True)
    means = {m: geometric_mean([errors[m] for errors in found.values()]) for m in methods}
    print(table(["method", "trimmed relMSE"], [*means.items()]))
    if arguments.publish:
        settings = {"spp": arguments.spp, "shifts": 1, "max_depth": DEPTH}
        publish("methods", {"settings": settings, "relmse_trimmed": means})


if __name__ == "__main__":
    main()
