"""Validation on held-out examples: figures against the guides and the primal, and a picture."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from mitsuba_gdpt import metrics, report
from mitsuba_gdpt.channels import PRIMAL
from mitsuba_gdpt.denoisers import models
from mitsuba_gdpt.denoisers.inputs import exposure_scale
from mitsuba_gdpt.denoisers.models import Model
from mitsuba_gdpt.training.examples import Examples

#: Rows of the picture.
ROWS = 6
#: How the network's own image is called in the results.
OUTPUT = "output"


def validate(
    model: Model,
    examples: Examples,
    *,
    most: int,
    precision: str,
    batch: int,
    sheet: Path | None = None,
) -> dict[str, dict[str, float]]:
    """Measure a model on examples spread evenly over a set.

    Args:
        model: In evaluation mode; its device is where everything happens.
        examples: The set.
        most: Number of examples to use at most.
        precision: See :func:`~mitsuba_gdpt.denoisers.models.precision`.
        batch: Examples at a time.
        sheet: PNG file to write: primal, guides, output and target of some examples.

    Returns:
        For each image (``primal``, the guides, ``output``): ``relmse`` (unbiased if targets come
        in two halves) and ``smape``, means over the examples.
    """
    count = min(most, len(examples))
    chosen = [(2 * i + 1) * len(examples) // (2 * count) for i in range(count)]
    shown = set(chosen[:: max(1, math.ceil(count / ROWS))])
    device = next(model.parameters()).device
    names = [PRIMAL, *examples.guides.methods, OUTPUT]
    sums = {name: {"relmse": 0.0, "smape": 0.0} for name in names}
    pictures: dict[str, torch.Tensor] = {}
    loader = DataLoader(torch.utils.data.Subset(examples, chosen), batch_size=batch)
    done = 0
    for loaded in loader:
        buffers, images = loaded["buffers"].to(device), loaded["images"].to(device)
        targets, guides = images[:, : examples.targets], images[:, examples.targets :]
        with torch.no_grad(), models.precision(precision, device):
            output = model(buffers, examples.layout, guides).float()
        primal = buffers[..., examples.layout.slices[PRIMAL]]
        reference = metrics.Reference(*targets.unbind(1)[:2])
        candidates = [primal, *guides.unbind(1), output]
        for name, image in zip(names, candidates, strict=True):
            size = len(image)
            sums[name]["relmse"] += float(metrics.relmse(image, reference)) * size
            sums[name]["smape"] += float(metrics.smape(image, reference)) * size
        for i in range(len(buffers)):
            if sheet is not None and chosen[done + i] in shown:
                scale = exposure_scale(reference.mean[i : i + 1])[0]
                for name, image in [
                    *zip(names, candidates, strict=True),
                    ("target", reference.mean),
                ]:
                    pictures[f"{name} {int(loaded['index'][i])}"] = (image[i] * scale).cpu()
        done += len(buffers)
    if sheet is not None:
        report.contact_sheet(pictures, sheet, columns=len(names) + 1)
    return {
        name: {metric: total / count for metric, total in values.items()}
        for name, values in sums.items()
    }


def summary(results: dict[str, dict[str, float]]) -> str:
    """Return the results in one line."""
    return "; ".join(
        f"{name} relMSE {values['relmse']:.4g} SMAPE {values['smape']:.4g}"
        for name, values in results.items()
    )
