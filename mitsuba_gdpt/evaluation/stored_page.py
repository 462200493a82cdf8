"""What an evaluation on stored renders leaves for people: report, CSV, JSON and Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mitsuba_gdpt import exr, metrics, report
from mitsuba_gdpt.denoisers.images import exposure_scale
from mitsuba_gdpt.evaluation import page, tables
from mitsuba_gdpt.evaluation.stored import StoredCell, crops_of, image_path, shown_examples
from mitsuba_gdpt.evaluation.stored_sets import Example
from mitsuba_gdpt.evaluation.summary import Value, error_column, spreadsheet
from mitsuba_gdpt.files import replace_text

#: Column of the time of the reconstruction, which stands beside those of the metrics.
TIME = "denoise_seconds"
_PLOTTED = 2  # metrics
_NAMED_FAILURES = 5
_ERRORS = (
    "± standard error over the crops, of each of which all renders are averaged first; over the "
    "renders of a single crop there is none but the metric's own"
)


class StoredResults:
    """All results of an evaluation on stored renders.

    Attributes:
        cells: The results.
        methods: Labels of the methods.
        scenes: Names of the scenes.
        levels: Numbers of the renders of a crop.
    """

    def __init__(self, cells: Sequence[StoredCell]) -> None:
        self.cells = list(cells)
        self.methods = list(dict.fromkeys(cell.method for cell in cells))
        self.scenes = list(dict.fromkeys(cell.example.scene for cell in cells))
        self.levels = sorted({cell.example.level for cell in cells})

    def chosen(
        self, method: str, *, scene: str | None = None, level: int | None = None
    ) -> list[StoredCell]:
        """Return the results of a method, all or of one scene or level."""
        return [
            cell
            for cell in self.cells
            if cell.method == method
            and scene in (None, cell.example.scene)
            and level in (None, cell.example.level)
        ]

    def level_spp(self, level: int) -> list[int]:
        """Return the sample counts of a level, in order; none where one is unknown."""
        counts = {cell.example.spp for cell in self.cells if cell.example.level == level}
        return [] if 0 in counts else sorted(counts)

    def level_name(self, level: int) -> str:
        """Return what a level is called."""
        counts = self.level_spp(level)
        if not counts:
            return f"level {level}"
        return f"{counts[0]} spp" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} spp"


def mean(cells: Sequence[StoredCell], name: str) -> Value:
    """Return the mean of a metric, with the standard error over crops.

    Args:
        cells: Of one method.
        name: Of the metric, or ``"denoise_seconds"``.

    Returns:
        NaN where a cell failed or there is none.
    """
    if not cells or any(cell.error is not None for cell in cells):
        return Value(math.nan, count=0)
    crops = [statistics.fmean(_value(cell, name) for cell in group) for group in crops_of(cells)]
    if len(crops) > 1:
        error = statistics.stdev(crops) / math.sqrt(len(crops))
        return Value(statistics.fmean(crops), error, len(crops))
    own = [cell.standard_errors.get(name, math.nan) for cell in cells]
    return Value(crops[0], math.sqrt(sum(e * e for e in own)) / len(own))


def write_stored(
    cells: Sequence[StoredCell], names: Sequence[str], folder: Path, provenance: Mapping[str, str]
) -> Path:
    """Write report.html, results.csv, summary.csv, results.json and results.md.

    Args:
        cells: As from :func:`~mitsuba_gdpt.evaluation.stored.evaluate_stored`.
        names: Metric names, the most important first.
        folder: Folder of the evaluation, which also holds the images.
        provenance: How to make the numbers again, for the head of the report.

    Returns:
        Path of the HTML report.

    Raises:
        FormatError: A file cannot be written, or an image was deleted.
    """
    results = StoredResults(cells)
    examples = list(dict.fromkeys(cell.example for cell in cells))
    crops = len({(example.scene, example.crop) for example in examples})
    content = report.Report(
        title="Evaluation on stored renders",
        subtitle=f"{len(examples)} renders of {crops} crops of {len(results.scenes)} scenes, "
        f"{len(results.methods)} methods",
        provenance=provenance,
        tables=list(_tables(results, names)),
        plots=list(_plots(results, names[:_PLOTTED])),
        views=[_view(results, example, folder) for example in shown_examples(examples)],
        failures=list(_failures(results)),
        notes=[
            "Every method gets the same renders. This is not equal time: methods without "
            "gradients get no samples in place of them.",
            *page.definitions(names),
        ],
    )
    summary, rows = list(_summary(results, names)), [_record(cell) for cell in cells]
    values = {
        "provenance": dict(provenance),
        "metrics": list(names),
        "summary": summary,
        "records": rows,
    }
    replace_text(folder / "results.json", json.dumps(values, indent=1) + "\n")
    replace_text(folder / "results.csv", _csv(rows, names))
    replace_text(folder / "summary.csv", _csv(summary, names))
    replace_text(folder / "results.md", page.markdown(content))
    target = folder / "report.html"
    report.write_report(content, target)
    return target


def _value(cell: StoredCell, name: str) -> float:
    return cell.denoise_seconds if name == TIME else cell.metrics[name]


def _tables(results: StoredResults, names: Sequence[str]) -> Iterator[report.Table]:
    columns = [
        *(report.Header(metrics.find(name).label, better=tables.better(name)) for name in names),
        report.Header("denoise, s"),
    ]
    shown = (*names, TIME)
    found = [[_cell(results.chosen(m), name) for name in shown] for m in results.methods]
    yield _table(results, "All renders", columns, found, f"Arithmetic means. {_ERRORS}.")
    for name in names:
        parts: list[tuple[str, dict[str, Any]]] = []
        if len(results.levels) > 1:
            parts += [(results.level_name(level), {"level": level}) for level in results.levels]
        if len(results.scenes) > 1:
            parts += [(scene, {"scene": scene}) for scene in results.scenes]
        if parts:
            metric = metrics.find(name)
            yield _table(
                results,
                f"{metric.label} by samples and scenes",
                [report.Header(label, better=tables.better(name)) for label, _ in parts],
                [
                    [_cell(results.chosen(method, **which), name) for _, which in parts]
                    for method in results.methods
                ],
                metric.doc,
            )


def _table(
    results: StoredResults,
    title: str,
    columns: Sequence[report.Header],
    cells: Sequence[Sequence[report.Cell]],
    caption: str,
) -> report.Table:
    return report.Table(
        title=title,
        columns=columns,
        rows=[report.Header(method) for method in results.methods],
        cells=cells,
        corner="method",
        caption=caption,
    )


def _cell(cells: Sequence[StoredCell], name: str) -> report.Cell:
    """Return a mean as a table shows it, or that it has none because renders failed."""
    errors = [cell.error for cell in cells if cell.error is not None]
    if errors:
        return report.Cell(error=f"{len(errors)} of {len(cells)} renders failed: {errors[0]}")
    return tables.cell(mean(cells, name))


def _plots(results: StoredResults, names: Sequence[str]) -> Iterator[report.Plot]:
    """Yield error against samples, where these are known and differ."""
    spp = [results.level_spp(level) for level in results.levels]
    if len(spp) < 2 or not all(spp):
        return
    x_values = [float(f"{statistics.geometric_mean(counts):.3g}") for counts in spp]
    for name in names:
        metric, curves = metrics.find(name), []
        for method in results.methods:
            found = [mean(results.chosen(method, level=level), name) for level in results.levels]
            points = [
                (x, v.mean, 0.0 if math.isnan(v.standard_error) else v.standard_error)
                for x, v in zip(x_values, found, strict=True)
                if v.mean > 0  # NaN is not
            ]
            if len(points) > 1:
                curves.append(report.Curve(method, *zip(*points, strict=True)))
        if curves:
            yield report.Plot(
                title=f"{metric.label} against samples",
                curves=curves,
                x_label="samples per pixel, geometric mean over the crops",
                y_label=f"{metric.label}, mean over the crops",
            )


def _view(results: StoredResults, example: Example, folder: Path) -> report.View:
    reference = exr.read_image(image_path(folder, example, None))
    images = [report.ViewImage("reference", reference, reference=True)]
    has_flip = metrics.find("hdr-flip").obstacle() is None
    for cell in results.cells:
        if cell.example != example:
            continue
        if cell.error is not None:
            images.append(report.ViewImage(cell.method, error=cell.error))
            continue
        pixels = exr.read_image(image_path(folder, example, cell.method))
        images.append(
            report.ViewImage(
                cell.method,
                pixels,
                flip=page.flip_map(pixels, reference) if has_flip else None,
                metrics={metrics.find(name).label: v for name, v in cell.metrics.items()},
                seconds=cell.denoise_seconds,
            )
        )
    scale = exposure_scale(torch.from_numpy(np.ascontiguousarray(reference))[None])
    return report.View(
        f"{example.scene} {example.crop}",
        images,
        group=f"{example.spp} spp" if example.spp else f"level {example.level}",
        exposure=math.log2(float(scale)),
    )


def _failures(results: StoredResults) -> Iterator[report.Failure]:
    """Yield one entry per method and error, with some of the renders that it struck."""
    found: dict[tuple[str, str], list[str]] = {}
    for cell in results.cells:
        if cell.error is not None:
            found.setdefault((cell.method, cell.error), []).append(cell.example.name)
    for (method, error), struck in found.items():
        more = len(struck) - _NAMED_FAILURES
        named = ", ".join(struck[:_NAMED_FAILURES]) + (f" and {more} more" if more > 0 else "")
        yield report.Failure(f"{method}: {named}", error)


def _summary(results: StoredResults, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield mean and standard error per method: of all renders, of each level, of each scene."""
    parts: list[dict[str, Any]] = [
        {},
        *({"level": level} for level in results.levels),
        *({"scene": scene} for scene in results.scenes),
    ]
    for method in results.methods:
        for part in parts:
            cells = results.chosen(method, **part)
            means = {name: mean(cells, name) for name in (*names, TIME)}
            yield {
                "method": method,
                "scene": part.get("scene", "all"),
                "level": part.get("level", "all"),
                "crops": len(crops_of(cells)),
                "renders": len(cells),
                "failed": sum(cell.error is not None for cell in cells),
                TIME: _number(means[TIME].mean),
                "metrics": {name: _number(means[name].mean) for name in names},
                "standard_errors": {n: _number(m.standard_error) for n, m in means.items()},
            }


def _record(cell: StoredCell) -> dict[str, Any]:
    """Return what is known of a cell; None is what is not."""
    values = cell.as_dict()
    time = cell.denoise_seconds if cell.error is None else None
    return {**values, "spp": cell.example.spp or None, TIME: time}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _csv(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """Return rows of JSON as a table: metrics and standard errors are columns."""
    estimated = {name for row in rows for name in row["standard_errors"]}

    def flat(row: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        plain = {key: {key: value} for key, value in row.items() if key != "standard_errors"}
        plain["metrics"] = {name: row["metrics"].get(name) for name in names}
        for name, value in (item for table in plain.values() for item in table.items()):
            yield name, value
            if name in estimated:
                yield error_column(name), row["standard_errors"].get(name)

    table = [dict(flat(row)) for row in rows]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table[0])
    for line in table:
        writer.writerow([spreadsheet("" if cell is None else cell) for cell in line.values()])
    return stream.getvalue()
