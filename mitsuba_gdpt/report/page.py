"""The report: one HTML file with tables, plots and an HDR image viewer, and nothing beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from mitsuba_gdpt import progress
from mitsuba_gdpt.files import replace_text
from mitsuba_gdpt.report import plots, ranking, style
from mitsuba_gdpt.report.model import Report, View, ViewImage
from mitsuba_gdpt.report.planes import BlobStore, pack_map, pack_pixels


def write_report(report: Report, path: str | os.PathLike[str]) -> None:
    """Write a report as one HTML file that needs neither a server nor a network.

    Args:
        report: What to show.
        path: Replaced if it exists.

    Raises:
        FormatError: The folder does not exist or the disk is full.
        MissingDependencyError: jinja2, or matplotlib for plots, is not installed.
    """
    replace_text(path, render_report(report))


def render_report(report: Report) -> str:
    """Return the text of :func:`write_report`."""
    colours = style.colour_names(report.methods)
    blobs = BlobStore()
    with progress.task("packing images", total=len(report.views)) as task:
        views = []
        for view in report.views:
            views.append(_pack_view(view, blobs))
            task.advance()
    marks = [ranking.marks(table) for table in report.tables]
    drawn = [
        (plot, *plots.draw(plot, colours, f"plot{index}"))
        for index, plot in enumerate(report.plots)
    ]
    return style.fill(
        "report.html",
        report=report,
        colours=colours,
        marks=marks,
        marked={mark for table in marks for row in table for mark in row},
        plots=drawn,
        slopes=any(entry.slope is not None for *_, legend in drawn for entry in legend),
        viewer={
            "epsilon": report.epsilon,
            "methods": _viewer_methods(report, colours),
            "views": views,
        },
        animated=any(view.frame is not None for view in report.views),
        blobs=blobs.texts,
    )


def _viewer_methods(report: Report, colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """All labels of the viewer, the references last; their order gives the number keys."""
    images = [image for view in report.views for image in view.images]
    ordered = sorted(images, key=lambda image: image.reference)
    return [
        {"label": label, "colour": colours.get(label), "reference": label not in colours}
        for label in dict.fromkeys(image.label for image in ordered)
    ]


def _pack_view(view: View, blobs: BlobStore) -> dict[str, Any]:
    height, width = view.size
    return {
        "title": view.title,
        "group": view.group,
        "frame": view.frame,
        "exposure": view.exposure,
        "caption": view.caption,
        "width": width,
        "height": height,
        "images": [_pack_image(image, blobs) for image in view.images],
    }


def _pack_image(image: ViewImage, blobs: BlobStore) -> dict[str, Any]:
    packed: dict[str, Any] = {
        "label": image.label,
        "reference": image.reference,
        # As text: JSON has no NaN, and the digits are the same as in the tables.
        "metrics": {name: style.number(value) for name, value in image.metrics.items()},
        "seconds": None if image.seconds is None else style.number(image.seconds),
        "error": image.error,
    }
    if image.pixels is not None:
        data, packed["saturated"] = pack_pixels(image.pixels)
        packed["pixels"] = blobs.add(data)
        packed["flip"] = None if image.flip is None else blobs.add(pack_map(image.flip))
    return packed
