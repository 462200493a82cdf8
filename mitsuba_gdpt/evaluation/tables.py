"""The tables and curves of an evaluation, as plain data for HTML, Markdown and CSV alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from mitsuba_gdpt import metrics, report
from mitsuba_gdpt.evaluation.summary import Results, Value


def all_tables(results: Results, names: Sequence[str], *, heading: str = "") -> list[report.Table]:
    """Return the tables of a report that have errors: over all scenes, then scene by scene.

    Args:
        results: The cells.
        names: Metric names, the most important first.
        heading: Put before all titles, where a report has the tables of several sets of cells.
    """
    tables = [overview(results, names, spp, heading=heading) for spp in results.spp]
    tables += [
        per_scene(results, name, spp, heading=heading) for name in names for spp in results.spp
    ]
    return tables


def overview(
    results: Results, names: Sequence[str], spp: int, *, heading: str = ""
) -> report.Table:
    """Return the means over all scenes at one budget: methods x metrics."""
    cells = []
    for method in results.methods:
        row = [cell(_mean(results, method, spp, name)) for name in names]
        cells.append([*row, *_time_cells(results, method, spp)])
    columns = [report.Header(metrics.find(name).label, better=better(name)) for name in names]
    columns += [report.Header(text) for text in ("samples", "render, s", "denoise, s")]
    return report.Table(
        title=f"{heading}{'all' if heading else 'All'} scenes, in the time of {spp} spp",
        columns=columns,
        rows=[report.Header(method) for method in results.methods],
        cells=cells,
        corner="method",
        caption=(
            "Errors: geometric means over the scenes; PSNR and SSIM: arithmetic. ± standard error "
            "that the seeds imply. Samples: per pixel of the method's own input, mean over the "
            "scenes; methods without gradients get as many as fit into gdpt's render time. "
            "Denoising is not part of that time."
        ),
    )


def per_scene(results: Results, name: str, spp: int, *, heading: str = "") -> report.Table:
    """Return one metric at one budget: methods x scenes."""
    metric = metrics.find(name)
    cells = []
    for method in results.methods:
        row = []
        for scene in results.scenes:
            link = report.view_link(scene, f"{spp} spp", method)
            error = results.error(scene, method, spp)
            value = results.value(scene, method, spp, name)
            row.append(report.Cell(error=error) if error else cell(value, link))
        cells.append(row)
    return report.Table(
        title=f"{heading}{metric.label}, in the time of {spp} spp",
        columns=[report.Header(scene, better=better(name)) for scene in results.scenes],
        rows=[report.Header(method) for method in results.methods],
        cells=cells,
        corner="method",
        caption=metric.doc,
    )


def times(results: Results, *, note: str = "") -> report.Table:
    """Return what equal time means here: seconds and samples, scenes x budgets.

    Args:
        results: The cells.
        note: Added to the caption.
    """
    columns, rows = [], []
    for spp in results.spp:
        columns += [f"gdpt {spp} spp, s", "path-traced spp", "path-traced, s"]
    for scene in results.scenes:
        row = []
        for spp in results.spp:
            found = {
                record.domain: record
                for record in results.records
                if (record.scene, record.spp) == (scene, spp) and record.error is None
            }
            gradient, primal = found.get("gradient"), found.get("primal")
            row.append(_number(gradient.render_seconds if gradient else None))
            row.append(_number(primal.rendered_spp if primal else None))
            row.append(_number(primal.render_seconds if primal else None))
        rows.append(row)
    return report.Table(
        title="Equal time",
        columns=[report.Header(text) for text in columns],
        rows=[report.Header(scene) for scene in results.scenes],
        cells=rows,
        corner="scene",
        caption=f"Median wall time of interleaved renders in one process, features included.{note}",
    )


def curves(results: Results, name: str, *, heading: str = "") -> list[report.Plot]:
    """Return the error over all scenes against samples and against time."""
    metric = metrics.find(name)
    plots = []
    for against, words, label in (
        ("spp", "samples", "samples per pixel"),
        ("seconds", "time", "render + denoise, seconds"),
    ):
        drawn = []
        for method in results.methods:
            points = []
            for spp in results.spp:
                value = _mean(results, method, spp, name)
                x = (
                    _spp(results, method, spp)
                    if against == "spp"
                    else _seconds(results, method, spp)
                )
                if value.mean > 0 and x > 0:  # NaN is neither
                    error = 0.0 if math.isnan(value.standard_error) else value.standard_error
                    points.append((x, value.mean, error))
            if points:
                x_values, y_values, errors = zip(*points, strict=True)
                drawn.append(report.Curve(method, x_values, y_values, errors))
        if drawn:
            plots.append(
                report.Plot(
                    title=f"{heading}{metric.label} against {words}",
                    curves=drawn,
                    x_label=label,
                    y_label=f"{metric.label}, mean over the scenes",
                    slopes=against == "spp",
                )
            )
    return plots


def better(name: str) -> Literal["lower", "higher"]:
    """Return which values of a metric are the better ones."""
    return "higher" if metrics.find(name).higher_is_better else "lower"


def _mean(results: Results, method: str, spp: int, name: str) -> Value:
    geometric = not metrics.find(name).higher_is_better
    return results.over_scenes(method, spp, name, geometric=geometric)


def cell(value: Value, href: str | None = None) -> report.Cell:
    """Return a mean as a table shows it."""
    if math.isnan(value.mean):
        return report.Cell(text="-")
    error = None if math.isnan(value.standard_error) else value.standard_error
    return report.Cell(value.mean, error, href=href)


def _number(value: float | None) -> report.Cell:
    if value is None or math.isnan(value):
        return report.Cell(text="-")
    return report.Cell(float(value))


def _time_cells(results: Results, method: str, spp: int) -> list[report.Cell]:
    seconds = [results.seconds(scene, method, spp) for scene in results.scenes]
    n = len(seconds)
    render, denoise = (sum(s[i] for s in seconds) / n for i in (0, 1))
    return [_number(_spp(results, method, spp)), _number(render), _number(denoise)]


def _spp(results: Results, method: str, spp: int) -> float:
    """Return the mean number of samples in a method's inputs; NaN unless all scenes have one."""
    counts = []
    for scene in results.scenes:
        cells = results.cells(scene, method, spp)
        counts.append(cells[0].rendered_spp if cells else math.nan)
    return sum(counts) / len(counts)


def _seconds(results: Results, method: str, spp: int) -> float:
    """Return the mean of render plus reconstruction time; NaN unless all scenes have one."""
    return sum(sum(results.seconds(s, method, spp)) for s in results.scenes) / len(results.scenes)
