"""What an evaluation of sequences leaves for people: a report that plays them, and pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt import exr, metrics, progress, report
from mitsuba_gdpt.errors import FormatError
from mitsuba_gdpt.evaluation import page, tables
from mitsuba_gdpt.evaluation.settings import MethodSpec, SequenceSettings
from mitsuba_gdpt.evaluation.shots import Shot, find_shots
from mitsuba_gdpt.evaluation.store import Record, Store
from mitsuba_gdpt.evaluation.summary import Results

#: A report that is larger than this takes long to open. Sequences that do not fit are left out of
#: the viewer; their animated pictures and EXR files are there all the same.
PAGE_BYTES = 256 << 20
#: What the definitions of the metrics leave open.
BRIGHTNESS = "grey(r): of OIDN's image of the reference, so that its noise does not count"
_BYTES_PER_PIXEL = 6  # of noisy images in the report, with base64; docs/report.md
_STRIP_FRAMES = 8


def write_sequence_results(
    records: list[Record],
    settings: SequenceSettings,
    folder: Path,
    provenance: Mapping[str, str],
    *,
    rate: float = 12.0,
    page_bytes: int = PAGE_BYTES,
) -> Path:
    """Write report.html, results.csv, results.json, results.md, and animations of all sequences.

    Args:
        records: All cells.
        settings: What they were made with.
        folder: Folder of the evaluation, which also holds the frames.
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
    with progress.task("writing animations", total=len(strips)) as task:
        for strip in strips:
            _write_pictures(strip, store, rate)
            task.advance()
    shown, left_out = _fit(strips, page_bytes)
    notes = [*page.mixture(results), BRIGHTNESS, *page.definitions(settings.metrics)]
    if left_out:
        names = "; ".join(f"{strip.shot.name}, {strip.spp} spp" for strip in left_out)
        notes.insert(0, f"Not in the viewer, to keep the page small: {names}. See animations/.")
    content = report.Report(
        title="Image sequences at equal render time",
        subtitle=f"{len(shots)} sequences of {settings.frames} frames, "
        f"{len(results.methods)} methods, {settings.seed_count}",
        provenance=provenance,
        tables=_tables(records, settings, shots),
        plots=_plots(records, settings, shots),
        views=[view for strip in shown for view in strip.views()],
        failures=page.failures(results),
        notes=notes,
    )
    return page.write_files(content, records, settings, folder)


def _kinds(
    records: list[Record], settings: SequenceSettings, shots: list[Shot]
) -> Iterator[tuple[str, Results, tuple[str, ...]]]:
    """Yield heading, cells and metrics of the two kinds of sequences; they have no common mean."""
    for static, heading in ((False, "Fly-through: "), (True, "Camera at rest: ")):
        names = {shot.name for shot in shots if shot.static == static}
        if chosen := [record for record in records if record.scene in names]:
            yield heading, Results(chosen), settings.metrics_of(static=static)


def _tables(
    records: list[Record], settings: SequenceSettings, shots: list[Shot]
) -> list[report.Table]:
    kinds = list(_kinds(records, settings, shots))
    found = [
        table
        for heading, results, names in kinds
        for table in tables.all_tables(results, names, heading=heading)
    ]
    # A scene's sequences share the times.
    note = " Of one frame: the camera in the middle of the fly-through stands for all."
    return [*found, tables.times(kinds[0][1], note=note)]


def _plots(
    records: list[Record], settings: SequenceSettings, shots: list[Shot]
) -> list[report.Plot]:
    """Return the curves of the first metric and of those of sequences."""
    return [
        plot
        for heading, results, names in _kinds(records, settings, shots)
        for index, name in enumerate(names)
        if index == 0 or metrics.find(name).temporal
        for plot in tables.curves(results, name, heading=heading)
        if sum(len(curve.x) for curve in plot.curves) > 1  # a single point shows nothing
    ]


@dataclass
class _Strip:
    """The frames of one sequence at one budget, of the first seed."""

    shot: Shot
    spp: int
    results: Results
    settings: SequenceSettings
    store: Store

    @property
    def readable(self) -> bool:
        """Whether the scene was rendered at all; the failures say why not."""
        return all(self._path(None, frame).is_file() for frame in self.frames)

    @property
    def frames(self) -> range:
        return range(self.settings.frames)

    def methods(self) -> Iterator[tuple[MethodSpec, Record | None]]:
        """Yield the methods with their first cell, None where it failed."""
        for method in self.settings.methods:
            cells = self.results.cells(self.shot.name, method.label, self.spp)
            yield method, next((record for record in cells if record.seed == 0), None)

    def images(self, method: MethodSpec | None) -> Iterator[NDArray[np.float32]]:
        """Yield the frames of a method, or of the reference."""
        return (exr.read_image(self._path(method, frame)) for frame in self.frames)

    def size(self) -> int:
        """Return about how many bytes the strip takes in the report."""
        height, width, _ = exr.read_image(self._path(None, 0)).shape
        return height * width * _BYTES_PER_PIXEL * len(self.frames) * (len(self._shown()) + 1)

    def views(self) -> Iterator[report.View]:
        """Yield the frames as the viewer takes them."""
        name = self.shot.name
        for frame in self.frames:
            reference = exr.read_image(self._path(None, frame))
            images = [report.ViewImage(page.REFERENCE, reference, reference=True)]
            for method, record in self.methods():
                if record is None:
                    error = self.results.error(name, method.label, self.spp)
                    images.append(
                        report.ViewImage(method.label, error=error or "the first seed failed")
                    )
                    continue
                pixels = exr.read_image(self._path(method, frame))
                images.append(report.ViewImage(method.label, pixels, **page.numbers(record)))
            yield report.View(
                name,
                images,
                group=f"{self.spp} spp",
                exposure=math.log2(self.shot.exposure),
                frame=frame,
            )

    def _shown(self) -> list[MethodSpec]:
        return [method for method, record in self.methods() if record is not None]

    def _path(self, method: MethodSpec | None, frame: int) -> Path:
        spp = 0 if method is None else self.spp
        return self.store.frame_path(self.shot.name, method, spp, frame)


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
        target = store.animation_path(strip.shot.name, method, strip.spp)
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
