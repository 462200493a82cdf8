"""The report of a run, ``report.html``: it grows with every validation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mitsuba_gdpt import packages, provenance, report
from mitsuba_gdpt.denoisers.images import exposure_scale
from mitsuba_gdpt.errors import MissingDependencyError
from mitsuba_gdpt.training import history
from mitsuba_gdpt.training.validation import LABELS, TARGET

if TYPE_CHECKING:
    from mitsuba_gdpt.training.config import TrainingConfig

FILE = "report.html"
_POINTS = 400  # of a curve
#: Title, unit and name in the history of what is plotted besides the errors.
_CURVES = (("Loss", "loss", "loss"), ("Learning rate", "learning rate", "learning_rate"))


def obstacle() -> MissingDependencyError | None:
    """Return why no report can be written, or None."""
    try:
        for package in ("jinja2", "matplotlib"):
            packages.check(package, "eval")
    except MissingDependencyError as error:
        return error
    return None


def write_page(
    folder: Path,
    config: TrainingConfig,
    step: int,
    pictures: Mapping[int, Mapping[str, torch.Tensor]],
    facts: Mapping[str, str],
) -> Path:
    """Write the report of a run as it is now, in place of the one before.

    Args:
        folder: Of the run; losses and validations are read from it.
        config: Of the run.
        step: Steps done.
        pictures: Examples of the last validation by number: name to (H, W, 3) radiance, the target
            among them.
        facts: What else to say of the run.

    Returns:
        The file.

    Raises:
        MissingDependencyError: A package is missing; see :func:`obstacle`.
        FormatError: The file cannot be written, or figures of a validation are damaged.
    """
    figures = history.validations(folder)
    terms = ", ".join(f"{weight:g} {name}" for name, weight in config.loss_terms.items())
    settings = {
        "steps": f"{step} of {config.steps}, {config.batch} examples each",
        "loss": terms,
        "data": ", ".join(Path(data).name for data in config.data),
        "schedule": f"{config.schedule}, learning rate {config.learning_rate:g}",
        **facts,
    }
    path = folder / FILE
    content = report.Report(
        title=f"Training of {config.method}",
        subtitle=f"step {step} of {config.steps}; reload the page after the next validation",
        provenance={**settings, **provenance.describe()},
        tables=[_table(figures[step], step)] if step in figures else [],
        plots=[*_training_plots(folder), *_validation_plots(figures)],
        views=[_view(index, images) for index, images in pictures.items()],
        notes=[
            "Errors are means over examples that were held out; of a sequence the images are its "
            "last frame. Older pictures: validation/."
        ],
    )
    report.write_report(content, path)
    return path


def _table(figures: history.Figures, step: int) -> report.Table:
    names = list(dict.fromkeys(name for values in figures.values() for name in values))
    return report.Table(
        title=f"Validation at step {step}",
        columns=[report.Header(LABELS.get(name, name), better="lower") for name in names],
        rows=[report.Header(image) for image in figures],
        cells=[
            [report.Cell(values[n]) if n in values else report.Cell(text="-") for n in names]
            for values in figures.values()
        ],
        corner="image",
    )


def _training_plots(folder: Path) -> Iterator[report.Plot]:
    for title, unit, name in _CURVES:
        x, y = history.curve(folder, name, _POINTS)
        if len(x) > 1:
            yield report.Plot(title, [report.Curve(unit, x, y)], "step", unit, slopes=False)


def _validation_plots(figures: Mapping[int, history.Figures]) -> Iterator[report.Plot]:
    """Yield a plot per figure, once there are two validations."""
    every = [values for images in figures.values() for values in images.values()]
    for name in dict.fromkeys(name for values in every for name in values):
        curves = []
        for image in dict.fromkeys(image for images in figures.values() for image in images):
            points = [
                (float(step), value)
                for step, images in figures.items()
                if (value := images.get(image, {}).get(name, 0.0)) > 0 and step > 0
            ]
            if len(points) > 1:
                curves.append(report.Curve(image, *_columns(points)))
        if curves:
            label = LABELS.get(name, name)
            yield report.Plot(f"Validation: {label}", curves, "step", label, slopes=False)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _view(index: int, images: Mapping[str, torch.Tensor]) -> report.View:
    scale = float(exposure_scale(images[TARGET][None]))
    shown: list[Any] = [
        report.ViewImage(name, image.numpy(), reference=name == TARGET)
        if bool(image.isfinite().all())
        else report.ViewImage(name, error="some values are NaN or infinite")
        for name, image in images.items()
    ]
    return report.View(f"example {index}", shown, exposure=math.log2(scale))
