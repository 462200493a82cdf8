"""Make docs/images/teaser.png: one scene at equal total time, with insets, errors and seconds.

    python docs/teaser.py RESULTS SCENE SECONDS

RESULTS is a folder of ``mitsuba-gdpt evaluate ... --seconds ...``, SCENE one of its scenes, by its
path. The best of ``path`` + OIDN for the budget stands beside the default. The insets are where the
default gains most, and where it gains least.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional
from total_time import default_pair

from mitsuba_gdpt import metrics, rendering
from mitsuba_gdpt.evaluation.store import Store
from mitsuba_gdpt.scenes import SceneRef

WIDTH, INSET, GAP, LINE = 480, 56, 8, 17
METRIC = "relmse-trimmed"
Pixels = NDArray[np.float32]


def main(folder: Path, scene: str, seconds: float) -> None:
    """Choose, crop and compose."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    name = SceneRef.parse(scene).name
    spp = {
        s["pair"]: s["spp"] for s in results["spp"] if (s["scene"], s["seconds"]) == (name, seconds)
    }
    errors = {
        r["method"]: r["metrics"]
        for r in results["records"]
        if (r["scene"], r["seed"]) == (name, 0) and spp.get(r["method"]) == r["spp"]
    }
    theirs = min(
        (p for p in errors if p.startswith("path + oidn")), key=lambda p: errors[p][METRIC]
    )
    ours, store = default_pair(), Store(folder)
    pictures = {pair: store.read_image(name, pair, spp[pair]) for pair in (theirs, ours)}
    reference = store.read_image(name, None)
    exposure = 0.35 / float(np.exp(np.log(reference.mean(-1) + 1e-4).mean()))
    captions = {
        pair: (
            f"{pair.replace('gdpt(shifts=1) + ', 'gdpt + ')}, {spp[pair]} spp",
            f"relMSE {errors[pair]['relmse']:.4f}, trimmed {errors[pair][METRIC]:.4f}, "
            f"HDR-FLIP {errors[pair]['hdr-flip']:.3f}",
        )
        for pair in (theirs, ours)
    }
    gradient = _gradient(scene, reference.shape[1], reference.shape[0], spp[ours])
    places = _places(pictures[theirs], pictures[ours], reference)
    columns = [
        (*captions[theirs], _display(pictures[theirs], exposure)),
        ("sampled gradients dx, dy", "grey is 0", gradient),
        (*captions[ours], _display(pictures[ours], exposure)),
        (
            "reference",
            f"the others: {seconds:g} s each, in all",
            _display(reference, exposure),
        ),
    ]
    target = Path(__file__).parent / "images" / "teaser.png"
    _compose(columns, places).save(target, optimize=True)
    print(target)


def _display(image: Pixels, exposure: float) -> NDArray[np.uint8]:
    tone = metrics.encode_display(torch.from_numpy(np.maximum(image, 0) * exposure))
    return (tone.numpy() * 255 + 0.5).astype(np.uint8)


def _gradient(scene: str, width: int, height: int, spp: int) -> NDArray[np.uint8]:
    """Render what the reconstruction is given: dx above, dy below the diagonal."""
    rendering.set_variant("llvm_ad_rgb")
    source = rendering.open_source(scene, width=width, height=height)
    integrator = rendering.make_integrator({**source.integrator, "max_depth": 12, "shifts": 1})
    buffers = rendering.render(source, integrator, spp=spp)
    rows, columns = np.mgrid[:height, :width]
    above = (columns * height > rows * width)[..., None]
    value = np.where(above, buffers.dx.numpy(), buffers.dy.numpy()).mean(-1, keepdims=True)
    scale = 4 / float(buffers.primal.mean())
    grey = 0.5 + 0.5 * value * scale / (1 + np.abs(value) * scale)
    return (np.repeat(grey, 3, -1) * 255).astype(np.uint8)


def _places(theirs: Pixels, ours: Pixels, reference: Pixels) -> list[tuple[int, int]]:
    """Return the two places where the two images differ most in error, either way."""
    tensors = [torch.from_numpy(image) for image in (theirs, ours, reference)]
    errors = [metrics.relative_error_map(t, tensors[2]).clamp(max=1) for t in tensors[:2]]
    means = functional.avg_pool2d((errors[0] - errors[1])[None, None], INSET, INSET // 4)[0, 0]
    found: list[tuple[int, int]] = []
    for chosen in (means.argmax(), means.argmin()):  # where we gain most, and where least
        row, column = divmod(int(chosen), means.shape[1])
        found.append((row * (INSET // 4), column * (INSET // 4)))
    return found


def _compose(columns: list[tuple[str, str, Any]], places: list[tuple[int, int]]) -> Image.Image:
    size = (WIDTH - GAP) // 2
    height = round(columns[0][2].shape[0] * WIDTH / columns[0][2].shape[1])
    top = 2 * LINE + GAP
    canvas = Image.new(
        "RGB", (len(columns) * (WIDTH + GAP) - GAP, top + height + GAP + size), "white"
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    colours = ("#d55e00", "#0072b2")
    for number, (first, second, pixels) in enumerate(columns):
        left = number * (WIDTH + GAP)
        draw.text((left, 0), first, "black", font)
        draw.text((left, LINE), second, "black", font)
        whole = Image.fromarray(pixels)
        canvas.paste(whole.resize((WIDTH, height), Image.Resampling.LANCZOS), (left, top))
        scale = WIDTH / whole.width
        for i, ((y, x), colour) in enumerate(zip(places, colours, strict=True)):
            inset = whole.crop((x, y, x + INSET, y + INSET)).resize(
                (size, size), Image.Resampling.NEAREST
            )
            at = (left + i * (size + GAP), top + height + GAP)
            canvas.paste(inset, at)
            draw.rectangle((*at, at[0] + size - 1, at[1] + size - 1), outline=colour, width=3)
            corner = (left + x * scale, top + y * scale)
            end = (corner[0] + INSET * scale, corner[1] + INSET * scale)
            draw.rectangle((*corner, *end), outline=colour, width=2)
    return canvas


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python docs/teaser.py RESULTS SCENE SECONDS")
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
