"""What an evaluation leaves for people: an HTML report, tables as CSV, JSON and Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mitsuba_gdpt import exr, metrics, report
from mitsuba_gdpt.errors import FormatError
from mitsuba_gdpt.evaluation import tables
from mitsuba_gdpt.evaluation.settings import Settings
from mitsuba_gdpt.evaluation.store import Record, Store
from mitsuba_gdpt.evaluation.summary import Results, to_csv
from mitsuba_gdpt.files import replace_text

#: The reference's label in the viewer.
REFERENCE = "reference"


def write_results(
    records: list[Record],
    settings: Settings,
    folder: Path,
    provenance: Mapping[str, str],
    exposures: Mapping[str, float] | None = None,
) -> Path:
    """Write report.html, results.csv, results.json and results.md.

    Args:
        records: All cells.
        settings: What they were made with.
        folder: Folder of the evaluation, which also holds the pictures.
        provenance: How to make the numbers again, for the head of the report.
        exposures: Scene name to a factor on the radiance that suits the viewer.

    Returns:
        Path of the HTML report.
    """
    results = Results(records)
    page = report.Report(
        title="Evaluation at equal render time",
        subtitle=f"{len(results.scenes)} scenes, {len(results.methods)} methods, "
        f"{settings.seed_count}",
        provenance=provenance,
        tables=[*tables.all_tables(results, settings.metrics), tables.times(results)],
        plots=[plot for name in settings.metrics[:2] for plot in tables.curves(results, name)],
        views=_views(results, settings, Store(folder), exposures or {}),
        failures=failures(results),
        notes=[*mixture(results), *definitions(settings.metrics)],
    )
    return write_files(page, records, settings, folder)


def write_files(
    page: report.Report, records: list[Record], settings: Settings, folder: Path
) -> Path:
    """Write a report, and its numbers as CSV, JSON and Markdown beside it.

    Args:
        page: The report.
        records: All cells.
        settings: What they were made with.
        folder: Folder of the evaluation.

    Returns:
        Path of the HTML report.
    """
    values = {
        "provenance": dict(page.provenance),
        "settings": settings.as_dict(),
        "records": [asdict(record) for record in records],
    }
    replace_text(folder / "results.json", json.dumps(values, indent=1) + "\n")
    replace_text(folder / "results.csv", to_csv(records))
    replace_text(folder / "results.md", markdown(page))
    target = folder / "report.html"
    report.write_report(page, target)
    return target


def markdown(page: report.Report) -> str:
    """Return all tables and failures as Markdown, to be pasted into an issue."""
    lines = [f"- {key}: {value}" for key, value in page.provenance.items()]
    parts = ["\n".join(lines)]
    for table in page.tables:
        parts += [f"### {table.title}", report.to_markdown(table), table.caption]
    parts += [note for note in page.notes if "states of the code" in note]
    if page.failures:
        parts += ["### Failures", "\n".join(f"- {f.title}: {f.message}" for f in page.failures)]
    return "\n\n".join(part for part in parts if part) + "\n"


def definitions(names: Iterable[str]) -> list[str]:
    """Return what metrics are, one paragraph each."""
    return [f"{metric.label}: {metric.doc}." for metric in map(metrics.find, names)]


def mixture(results: Results) -> list[str]:
    """Return a paragraph that warns of cells of several states of the code, if there are."""
    if len(states := results.sources()) < 2:
        return []
    count = {state: sum(r.sources == state for r in results.records) for state in states}
    told = ", ".join(f"{count[state]} of {state or 'an unknown state'}" for state in states)
    return [
        f"The cells were made by {len(states)} states of the code ({told}): do not compare them."
    ]


def failures(results: Results) -> list[report.Failure]:
    """Return one entry per method and error, with all the cells that it struck."""
    found: dict[tuple[str, str], list[str]] = {}
    for record in results.failures():
        cell = f"{record.scene}, {record.spp} spp, seed {record.seed}"
        found.setdefault((record.method, str(record.error)), []).append(cell)
    return [
        report.Failure(f"{method}: {'; '.join(cells)}", error)
        for (method, error), cells in found.items()
    ]


def _views(
    results: Results, settings: Settings, store: Store, exposures: Mapping[str, float]
) -> list[report.View]:
    by_label = {method.label: method for method in settings.methods}
    views = []
    for scene in results.scenes:
        try:
            reference = exr.read_image(store.image_path(scene, None))
        except FormatError:
            continue  # the scene did not load; the failures say so
        for spp in results.spp:
            images = [report.ViewImage(REFERENCE, reference, reference=True)]
            for label in results.methods:
                cells = results.cells(scene, label, spp)
                if not cells or cells[0].seed != 0:
                    error = results.error(scene, label, spp) or "the first seed failed"
                    images.append(report.ViewImage(label, error=error))
                    continue
                pixels = exr.read_image(store.image_path(scene, by_label[label], spp))
                images.append(
                    report.ViewImage(
                        label,
                        pixels,
                        flip=_flip_map(pixels, reference),
                        **numbers(cells[0]),
                    )
                )
            stops = math.log2(exposures.get(scene, 1.0))
            views.append(report.View(scene, images, group=f"{spp} spp", exposure=stops))
    return views


def numbers(record: Record) -> dict[str, Any]:
    """Return what the viewer shows beside the image of a cell, as fields of a ``ViewImage``."""
    return {
        "metrics": {metrics.find(name).label: value for name, value in record.metrics.items()},
        "seconds": record.render_seconds + record.denoise_seconds,
    }


def _flip_map(pixels: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the HDR-FLIP error of each pixel, (H, W)."""
    image, target = (metrics.displayable(torch.from_numpy(array)) for array in (pixels, reference))
    return metrics.flip_map(image, target).numpy()
