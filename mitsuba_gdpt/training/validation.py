"""Validation on held-out examples: figures against the guides and the primal, and a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
#: How the network's own image is called in the results.
OUTPUT = "output"


def validate(
    model: Model,
    task: Task,
    examples: ExampleSet,
    *,
    most: int,
    precision: str,
    batch: int,
    sheet: Path | None = None,
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

    Returns:
        For each image (``primal``, the guides, ``output``): ``relmse`` (unbiased if targets come
        in two halves), ``smape``, and for sequences ``flicker``
        (:func:`~mitsuba_gdpt.training.sequence_losses.flicker`), means over the examples.
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
            candidates["target"] = torch.stack(halves).mean(0)
            candidates = {name: image[:, -1] for name, image in candidates.items()}
            for i in range(len(example)):
                if sheet is not None and chosen[done + i] in shown:
                    scale = exposure_scale(candidates["target"][i : i + 1])[0]
                    for name, image in candidates.items():
                        pictures[f"{name} {int(loaded.index[i])}"] = (image[i] * scale).cpu()
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
    return values


#: Figures, and how they are called.
LABELS = {"relmse": "relMSE", "smape": "SMAPE", "flicker": "flicker"}


def summary(results: dict[str, dict[str, float]]) -> str:
    """Return the results in one line."""
    return "; ".join(
        " ".join([name, *(f"{LABELS[metric]} {value:.4g}" for metric, value in values.items())])
        for name, values in results.items()
    )
