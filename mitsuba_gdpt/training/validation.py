"""Validation on held-out examples: figures against the guides and the primal, and a picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from mitsuba_gdpt import metrics, progress, report
from mitsuba_gdpt.channels import PRIMAL
from mitsuba_gdpt.denoisers.images import exposure_scale
from mitsuba_gdpt.denoisers.learned.model import Model, autocast
from mitsuba_gdpt.training.examples import Example, ExampleSet
from mitsuba_gdpt.training.sequence_losses import flicker
from mitsuba_gdpt.training.tasks import Task

#: Rows of the picture.
ROWS = 6
#: How the network's own image is called in the results, and what it should be in pictures.
OUTPUT, TARGET = "output", "target"
#: Middle part of an image that perceptual figures are of, in pixels, and draws of E-LPIPS: enough
#: for a mean over examples.
_PERCEIVED, _DRAWS = 128, 4
_LEAST_PERCEIVED = 64


def validate(
    model: Model,
    task: Task,
    examples: ExampleSet,
    *,
    most: int,
    precision: str,
    batch: int,
    sheet: Path | None = None,
    show: Callable[[int, dict[str, torch.Tensor]], None] | None = None,
) -> dict[str, dict[str, float]]:
    """Measure a model on examples spread evenly over a set.

    Args:
        model: In evaluation mode; its device is where everything happens.
        task: How it is applied.
        examples: The set.
        most: Number of examples to use at most.
        precision: See :func:`~mitsuba_gdpt.denoisers.learned.model.autocast`.
        batch: Examples at a time.
        sheet: PNG file to write: primal, guides, output and target of some examples; of sequences
            the last frame.
        show: Called with the number of each of these examples and with its images by name,
            (H, W, 3) radiance on the CPU.

    Returns:
        For each image (``primal``, the guides, ``output``): ``relmse`` (unbiased if targets come
        in two halves), ``smape``, and for sequences ``flicker``
        (:func:`~mitsuba_gdpt.training.sequence_losses.flicker`), means over the examples. Where
        perceptual weights are installed, also ``lpips-squeeze`` and ``elpips``, of the middle of
        images of at least 64 pixels, of sequences of the last one.
    """
    count = min(most, len(examples))
    chosen = [(2 * i + 1) * len(examples) // (2 * count) for i in range(count)]
    shown = set(chosen[:: max(1, math.ceil(count / ROWS))])
    device = next(model.parameters()).device
    names = [PRIMAL, *examples.guides.methods, OUTPUT]
    sums: dict[str, dict[str, float]] = {name: {} for name in names}
    pictures: dict[str, torch.Tensor] = {}
    subset = torch.utils.data.Subset(examples, chosen)
    loader = DataLoader(subset, batch_size=batch, collate_fn=Example.stack)
    done = 0
    with progress.task("validating", total=count) as told:
        for loaded in loader:
            example = loaded.to(device)
            with torch.no_grad(), autocast(precision, device):
                output = task.reconstruct(model, example).float()
            primal = example.buffers[PRIMAL]
            images = [primal, *example.inner.unbind(-4), output]
            candidates = dict(zip(names, images, strict=True))
            halves = example.target.unbind(-4)[:2]
            for name, image in candidates.items():
                for metric, value in _measure(image, halves).items():
                    sums[name][metric] = sums[name].get(metric, 0.0) + value * len(image)
            candidates[TARGET] = torch.stack(halves).mean(0)
            candidates = {name: image[:, -1] for name, image in candidates.items()}
            for i in range(len(example)):
                if sheet is not None and chosen[done + i] in shown:
                    scale, index = exposure_scale(candidates[TARGET][i : i + 1])[0], loaded.index[i]
                    for name, image in candidates.items():
                        pictures[f"{name} {int(index)}"] = (image[i] * scale).cpu()
                    if show is not None:
                        show(int(index), {n: image[i].cpu() for n, image in candidates.items()})
            done += len(example)
            told.advance(len(example))
    if sheet is not None:
        report.contact_sheet(pictures, sheet, columns=len(names) + 1)
    return {
        name: {metric: total / count for metric, total in values.items()}
        for name, values in sums.items()
    }


def _measure(image: torch.Tensor, halves: Sequence[torch.Tensor]) -> dict[str, float]:
    """Return the figures of images (N, T, H, W, 3)."""
    flat = image.flatten(0, -4)
    reference = metrics.Reference(*(half.flatten(0, -4) for half in halves))
    values = {
        "relmse": float(metrics.relmse(flat, reference)),
        "smape": float(metrics.smape(flat, reference)),
    }
    if image.shape[1] > 1:
        values["flicker"] = float(flicker(image, torch.stack(list(halves)).mean(0)))
    return values | _perceive(image[:, -1], torch.stack(list(halves)).mean(0)[:, -1])


def _perceive(image: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    """Return LPIPS and E-LPIPS of the middle of images (N, H, W, 3); none without weights."""
    if min(image.shape[1:3]) < _LEAST_PERCEIVED or metrics.find("elpips").obstacle() is not None:
        return {}
    parts = []
    for whole in (image, target):
        top, left = ((size - min(size, _PERCEIVED)) // 2 for size in whole.shape[1:3])
        part = whole[:, top : top + _PERCEIVED, left : left + _PERCEIVED]
        parts.append(metrics.displayable(part))
    return {
        "lpips-squeeze": float(metrics.lpips(*parts)),
        "elpips": float(metrics.elpips(*parts, draws=_DRAWS)),
    }


#: Figures, and how they are called.
LABELS = {
    **{"relmse": "relMSE", "smape": "SMAPE", "flicker": "flicker"},
    **{"lpips-squeeze": "LPIPS", "elpips": "E-LPIPS"},
}


def summary(results: dict[str, dict[str, float]]) -> str:
    """Return the results in one line."""
    return "; ".join(
        " ".join([name, *(f"{LABELS[metric]} {value:.4g}" for metric, value in values.items())])
        for name, values in results.items()
    )
