"""Comparison of reconstruction methods on renders that are stored: crop sets and Darc files.

    source = open_stored(["test.zarr"])
    results = evaluate_stored(source, (Call("poisson-l1"),), ("relmse",), Path("results"))
    write_stored(results, ("relmse",), Path("results"), {})

Every method gets every noisy render as it is. Nothing is rendered, so this is not equal time: a
method without gradients gets no samples in place of them. The folder holds one small file per
render and method, so that a rerun goes on:

OUT/cells/SCENE-00012-1/METHOD.json     errors and time, or what went wrong
OUT/images/SCENE-00012-1/METHOD.exr     of the renders that the report shows (half float)
OUT/images/SCENE-00012-1/reference.exr
OUT/report.html, results.csv, summary.csv, results.json, results.md
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from mitsuba_gdpt import denoisers, execution, metrics, provenance, records
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.evaluation.runs import timed
from mitsuba_gdpt.evaluation.settings import file_name
from mitsuba_gdpt.evaluation.store import Store
from mitsuba_gdpt.evaluation.stored_sets import Example, StoredSets, spread
from mitsuba_gdpt.execution import Cell

#: Renders whose images are kept and shown, at most.
SHOWN = 12
_SHOWN_PIXELS = 1 << 20  # of all of them together; what a report takes of a method


@dataclass(frozen=True)
class StoredCell:
    """One method on one render.

    Attributes:
        example: The render.
        method: Label of the method.
        denoise_seconds: Time of the reconstruction.
        metrics: Metric name to value.
        standard_errors: Metric name to the metric's own standard error, where it has one.
        error: What went wrong, or None.
        sources: State of the code that made it, see :func:`mitsuba_gdpt.provenance.sources`.
    """

    example: Example
    method: str
    denoise_seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    sources: str = field(default_factory=lambda: provenance.sources())

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, those of the render beside the others, JSON-compatible."""
        values = asdict(self)
        return {**values.pop("example"), **values}


def evaluate_stored(
    sets: StoredSets,
    methods: Sequence[Call],
    names: Sequence[str],
    folder: Path,
    *,
    scenes: Sequence[str] = (),
    most: int | None = None,
    on_cell: Callable[[StoredCell], None] | None = None,
) -> list[StoredCell]:
    """Run all methods on all renders, but for what ``folder`` holds already.

    Args:
        sets: As from :func:`~.stored_sets.open_stored`.
        methods: Methods with options.
        names: Metric names.
        folder: Results are written here; see the module.
        scenes: Only these.
        most: This many crops, spread evenly; None for all.
        on_cell: Called with every result.

    Returns:
        All results, render by render. Those that failed have an ``error``; they are tried again by
        the next call.

    Raises:
        ConfigError: There is no such scene.
        FormatError: The folder cannot be written.
    """
    examples = sets.examples(scenes, most)
    shown = {*shown_examples(examples)}
    warm: set[tuple[Call, int]] = set()
    found = []

    def ended(unit: _ExampleUnit, error: str) -> None:
        for cell in unit.results(error):
            found.append(cell)
            if on_cell is not None:
                on_cell(cell)

    units = [
        _ExampleUnit(sets, example, methods, names, folder, keep=example in shown, warm=warm)
        for example in examples
    ]
    execution.run(units, description="evaluating", on_ended=ended)
    order = {example: number for number, example in enumerate(examples)}
    return sorted(found, key=lambda cell: order[cell.example])


def shown_examples(examples: Sequence[Example]) -> list[Example]:
    """Return the renders whose images are kept, spread evenly; at least one."""
    most = min(SHOWN, _SHOWN_PIXELS // max(example.pixels for example in examples))
    return spread(examples, max(most, 1))


def image_path(folder: Path, example: Example, label: str | None) -> Path:
    """Return where an image is kept; that of the reference without a label."""
    name = "reference" if label is None else file_name(label)
    return folder / "images" / example.name / f"{name}.exr"


class _ExampleUnit(execution.CellUnit):
    """All methods on one render, which is read when the first needs it."""

    def __init__(
        self,
        sets: StoredSets,
        example: Example,
        methods: Sequence[Call],
        names: Sequence[str],
        folder: Path,
        *,
        keep: bool,
        warm: set[tuple[Call, int]],
    ) -> None:
        self.example, self.folder, self.keep = example, folder, keep
        self._sets, self._warm = sets, warm
        self._methods = {str(method): method for method in methods}
        self._metrics = [metrics.find(name) for name in names]
        self._mark = sets.mark(example)

    @property
    def key(self) -> str:
        """Name of the render."""
        return self.example.name

    @functools.cached_property
    def cells(self) -> list[Cell]:
        """One per method."""
        names = [metric.name for metric in self._metrics]
        return [
            Cell(
                label,
                self.folder / "cells" / self.example.name / f"{file_name(label)}.json",
                provenance.fingerprint(self._mark, method.identity, names, self.keep),
            )
            for label, method in self._methods.items()
        ]

    def make(self, missing: Sequence[Cell]) -> dict[str, str]:
        """Read the render and reconstruct it by the methods that are missing."""
        errors: dict[str, str] = {}
        data: list[tuple[FrameBuffers, metrics.Reference]] = []
        for cell in missing:
            with execution.collecting(errors, cell.name):
                if not data:
                    data.append(self._sets.load(self.example))
                    if self.keep:
                        self._write(None, data[0][1].mean)
                frame, reference = data[0]
                image, result = self._run(self._methods[cell.name], frame, reference)
                pictures = []
                if self.keep:
                    reference_path = image_path(self.folder, self.example, None)
                    pictures = [self._write(cell.name, image), reference_path]
                cell.keep(result.as_dict(), pictures)
        for cell in missing:
            if error := errors.get(cell.name):
                failed = StoredCell(self.example, cell.name, error=error)
                replace(cell, fingerprint="").keep(failed.as_dict())
        return errors

    def results(self, error: str) -> list[StoredCell]:
        """Return what the unit came to.

        Args:
            error: What it died of, for cells that do not say it themselves.
        """
        found = []
        for cell in self.cells:
            values = cell.kept()
            if values is None:  # it failed, and may say why
                written = records.read(cell.record) or {}
                values = written if written.get("error") else {}
            kept = {f.name: values[f.name] for f in fields(StoredCell) if f.name in values}
            known = {"method": cell.name, "error": error or None}
            found.append(StoredCell(**{**known, **kept, "example": self.example}))
        return found

    def _run(
        self, method: Call, frame: FrameBuffers, reference: metrics.Reference
    ) -> tuple[torch.Tensor, StoredCell]:
        def work() -> torch.Tensor:
            image: torch.Tensor = denoisers.denoise(frame, method)
            return image

        if (method, self.example.pixels) not in self._warm:  # loads weights, compiles kernels
            work()
            self._warm.add((method, self.example.pixels))
        image, seconds = timed(work, frame.device)
        image = image.cpu()
        values, errors = {}, {}
        for metric in self._metrics:
            shown = metrics.displayable(image) if metric.nonnegative else image
            result = metric(shown, reference)
            values[metric.name] = result.value
            if result.standard_error is not None:
                errors[metric.name] = result.standard_error
        return image, StoredCell(self.example, str(method), seconds, values, errors)

    def _write(self, label: str | None, image: torch.Tensor) -> Path:
        path = image_path(self.folder, self.example, label)
        Store(self.folder).write_image(path, image.numpy())
        return path


def crops_of(cells: Sequence[StoredCell]) -> list[list[StoredCell]]:
    """Return the cells, crop by crop."""
    groups: dict[tuple[str, int], list[StoredCell]] = {}
    for cell in cells:
        groups.setdefault((cell.example.scene, cell.example.crop), []).append(cell)
    return list(groups.values())
