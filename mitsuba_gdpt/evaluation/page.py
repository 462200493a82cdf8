"""What an evaluation leaves for people: an HTML report, tables as CSV, JSON and Markdown, pictures.

A report of sequences plays them; animated pictures of them lie beside it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mitsuba_gdpt import exr, metrics, progress, references, report
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import FormatError
from mitsuba_gdpt.evaluation import tables
from mitsuba_gdpt.evaluation.cells import Cells
from mitsuba_gdpt.evaluation.settings import Settings
from mitsuba_gdpt.evaluation.shots import Shot, find_shots
from mitsuba_gdpt.evaluation.store import Record, Store
from mitsuba_gdpt.evaluation.summary import Results, to_csv
from mitsuba_gdpt.files import replace_text

#: The reference's label in the viewer.
REFERENCE = "reference"
#: A report that is larger than this takes long to open. Sequences that do not fit are left out of
#: the viewer; their animated pictures and EXR files are there all the same.
PAGE_BYTES = 256 << 20
#: What the definitions of the metrics leave open.
BRIGHTNESS = "grey(r): of OIDN's image of the reference, so that its noise does not count"
_BYTES_PER_PIXEL = 6  # of noisy images in the report, with base64; docs/how-to/report.md
_STRIP_FRAMES = 8


def write_results(
    records: list[Record],
    settings: Settings,
    folder: Path,
    provenance: Mapping[str, str],
    *,
    rate: float = 12.0,
    page_bytes: int = PAGE_BYTES,
) -> Path:
    """Write report.html, results.csv, results.json, results.md, and animations of sequences.

    Args:
        records: All cells.
        settings: What they were made with.
        folder: Folder of the evaluation, which also holds the pictures.
        provenance: How to make the numbers again, for the head of the report.
        rate: Frames per second of the animations.
        page_bytes: Sequences beyond this size are not shown in the report, which says so.

    Returns:
        Path of the HTML report.
    """
    store, shots = Store(folder), find_shots(settings)
    results = Results(records)
    strips = [
        strip
        for shot in shots
        for spp in settings.spp
        for strip in [_Strip(shot, spp, results, settings, store)]
        if strip.readable
    ]
    shown = strips
    left_out: list[_Strip] = []
    if settings.moving:
        with progress.task("writing animations", total=len(strips)) as task:
            for strip in strips:
                _write_pictures(strip, store, rate)
                task.advance()
        shown, left_out = _fit(strips, page_bytes)
    notes = [*mixture(results), *definitions(settings.metrics)]
    if settings.moving:
        notes.insert(0, BRIGHTNESS)
    described = describe_references(settings, store)
    if left_out:
        names = "; ".join(f"{strip.shot.name}, {strip.spp} spp" for strip in left_out)
        notes.insert(0, f"Not in the viewer, to keep the page small: {names}. See animations/.")
    what = f"{counted(shots, 'sequence')} of {settings.frames} frames"
    page = report.Report(
        title="Image sequences at equal render time"
        if settings.moving
        else "Evaluation at equal render time",
        subtitle=f"{what if settings.moving else counted(shots, 'scene')}, "
        f"{counted(results.methods, 'method')}, {settings.seed_count}",
        provenance=provenance,
        tables=[*_tables(records, settings, shots), *reference_tables(described)],
        plots=_plots(records, settings, shots),
        views=[view for strip in shown for view in strip.views()],
        failures=failures(results),
        notes=notes,
    )
    return write_files(page, records, settings, folder, {"references": described})


def counted(things: Sized, noun: str) -> str:
    """Return a number of things in words, such as ``1 scene``."""
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def describe_references(settings: Settings, store: Store) -> dict[str, dict[str, Any]]:
    """Return what still images were compared with: name to what :func:`references.describe` says.

    Scenes that did not load have none, and damaged ones are left out: their cells say so.
    """
    found = {}
    for shot in () if settings.moving else find_shots(settings):
        with suppress(FormatError):
            path = Cells(shot, settings, store).reference_file()
            if path.is_file():
                found[shot.name] = references.describe(path)
    return found


def reference_tables(described: Mapping[str, Mapping[str, Any]]) -> list[report.Table]:
    """Return the table of what :func:`describe_references` found; none if that is nothing."""
    if not described:
        return []
    cells = [
        [
            report.Cell(text=f"{values['width']}x{values['height']}"),
            report.Cell(float(values["spp"])) if values["spp"] else report.Cell(text="-"),
            report.Cell(values["noise"]),
            report.Cell(text=values["sha256"]),
        ]
        for values in described.values()
    ]
    table = report.Table(
        title="References",
        columns=[report.Header(text) for text in ("size", "spp of a half", "noise", "SHA-256")],
        rows=[report.Header(name) for name in described],
        cells=cells,
        corner="scene",
        caption="Noise: the relMSE that the mean of both halves has by itself, estimated from "
        "their difference. Errors of L2 and relMSE are without it; all other metrics contain it.",
    )
    return [table]


def _kinds(
    records: list[Record], settings: Settings, shots: list[Shot]
) -> Iterator[tuple[str, Results, tuple[str, ...]]]:
    """Yield heading, cells and metrics of the kinds of shots; they have no common mean."""
    if not settings.moving:
        yield "", Results(records), settings.metrics
        return
    for static, heading in ((False, "Fly-through: "), (True, "Camera at rest: ")):
        names = {shot.name for shot in shots if shot.static == static}
        if chosen := [record for record in records if record.scene in names]:
            yield heading, Results(chosen), settings.metrics_of(static=static)


def _tables(records: list[Record], settings: Settings, shots: list[Shot]) -> list[report.Table]:
    kinds = list(_kinds(records, settings, shots))
    found = [
        table
        for heading, results, names in kinds
        for table in tables.all_tables(results, names, heading=heading)
    ]
    # A scene's sequences share the times.
    note = " Of one frame: the camera in the middle of the fly-through stands for all."
    return [*found, tables.times(kinds[0][1], note=note if settings.moving else "")]


def _plots(records: list[Record], settings: Settings, shots: list[Shot]) -> list[report.Plot]:
    """Return the curves of the first metric and, of stills the second, of sequences theirs."""
    plots = []
    for heading, results, names in _kinds(records, settings, shots):
        for index, name in enumerate(names):
            if index == 0 or (metrics.find(name).temporal if settings.moving else index == 1):
                plots += tables.curves(results, name, heading=heading)
    if not settings.moving:
        return plots
    # A single point shows nothing.
    return [plot for plot in plots if sum(len(curve.x) for curve in plot.curves) > 1]


def write_files(
    page: report.Report,
    records: list[Record],
    settings: Settings,
    folder: Path,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write a report, and its numbers as CSV, JSON and Markdown beside it.

    Args:
        page: The report.
        records: All cells.
        settings: What they were made with.
        folder: Folder of the evaluation.
        more: Further values for the JSON file.

    Returns:
        Path of the HTML report.
    """
    values = {
        "provenance": dict(page.provenance),
        "settings": settings.as_dict(),
        "records": [asdict(record) for record in records],
        **(more or {}),
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


def numbers(record: Record) -> dict[str, Any]:
    """Return what the viewer shows beside the image of a cell, as fields of a ``ViewImage``."""
    return {
        "metrics": {metrics.find(name).label: value for name, value in record.metrics.items()},
        "seconds": record.render_seconds + record.denoise_seconds,
    }


def flip_map(pixels: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the HDR-FLIP error of each pixel, (H, W)."""
    image, target = (metrics.displayable(torch.from_numpy(array)) for array in (pixels, reference))
    return metrics.flip_map(image, target).numpy()


@dataclass
class _Strip:
    """The frames of one shot at one budget, of the first seed."""

    shot: Shot
    spp: int
    results: Results
    settings: Settings
    store: Store

    @property
    def readable(self) -> bool:
        """Whether the scene was rendered at all; the failures say why not."""
        return all(self._path(None, frame).is_file() for frame in self.frames)

    @property
    def frames(self) -> Sequence[int | None]:
        return (None,) if self.shot.is_still else range(self.settings.frames)

    def methods(self) -> Iterator[tuple[Call, Record | None]]:
        """Yield the methods with their first cell, None where it failed."""
        for method in self.settings.methods:
            cells = self.results.cells(self.shot.name, str(method), self.spp)
            yield method, next((record for record in cells if record.seed == 0), None)

    def images(self, method: Call | None) -> Iterator[NDArray[np.float32]]:
        """Yield the frames of a method, or of the reference."""
        return (exr.read_image(self._path(method, frame)) for frame in self.frames)

    def size(self) -> int:
        """Return about how many bytes the strip takes in the report."""
        height, width, _ = exr.read_image(self._path(None, self.frames[0])).shape
        return height * width * _BYTES_PER_PIXEL * len(self.frames) * (len(self._shown()) + 1)

    def views(self) -> Iterator[report.View]:
        """Yield the frames as the viewer takes them."""
        name = self.shot.name
        for frame in self.frames:
            reference = exr.read_image(self._path(None, frame))
            images = [report.ViewImage(REFERENCE, reference, reference=True)]
            for method, record in self.methods():
                if record is None:
                    error = self.results.error(name, str(method), self.spp)
                    images.append(
                        report.ViewImage(str(method), error=error or "the first seed failed")
                    )
                    continue
                pixels = exr.read_image(self._path(method, frame))
                flip = flip_map(pixels, reference) if self.shot.is_still else None
                images.append(report.ViewImage(str(method), pixels, flip=flip, **numbers(record)))
            yield report.View(
                name,
                images,
                group=f"{self.spp} spp",
                exposure=math.log2(self.shot.exposure),
                frame=frame,
            )

    def _shown(self) -> list[Call]:
        return [method for method, record in self.methods() if record is not None]

    def _path(self, method: Call | None, frame: int | None) -> Path:
        spp = 0 if method is None else self.spp
        label = None if method is None else str(method)
        return self.store.frame_path(self.shot.name, label, spp, frame)


def _fit(strips: list[_Strip], limit: int) -> tuple[list[_Strip], list[_Strip]]:
    """Split strips into those that fit into a report, the first at least, and the others."""
    shown: list[_Strip] = []
    left_out: list[_Strip] = []
    room = limit
    for strip in strips:
        size = strip.size()
        if size <= room or not shown:
            shown.append(strip)
            room -= size
        else:
            left_out.append(strip)
    return shown, left_out


def _write_pictures(strip: _Strip, store: Store, rate: float) -> None:
    """Write the animation and the contact sheet of every method and of the reference."""
    stops = math.log2(strip.shot.exposure)
    finished = [method for method, record in strip.methods() if record is not None]
    for method in (None, *finished):
        label = None if method is None else str(method)
        target = store.animation_path(strip.shot.name, label, strip.spp)
        try:
            report.write_animation(strip.images(method), target, rate=rate, exposure=stops)
            pictures: dict[str, Any] = {
                f"frame {frame}": image * np.float32(strip.shot.exposure)
                for frame, image in enumerate(strip.images(method))
                if frame in _spread(len(strip.frames), _STRIP_FRAMES)
            }
        except FormatError as error:  # a frame was deleted: its cell would not be made again
            raise FormatError(
                f"{error}; delete the cell of {target.stem} to make it again"
            ) from error
        sheet = target.with_name(f"{target.stem}-strip.png")
        report.contact_sheet(pictures, sheet, columns=min(len(pictures), _STRIP_FRAMES // 2))


def _spread(count: int, wanted: int) -> set[int]:
    """Return at most ``wanted`` numbers below ``count``, evenly spread, the first and the last."""
    return {round(i * (count - 1) / (wanted - 1)) for i in range(wanted)}
