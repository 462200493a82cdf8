"""From cells to tables: means and standard errors, per scene and over scenes."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mitsuba_gdpt.evaluation.store import Record


@dataclass(frozen=True)
class Value:
    """A mean over seeds (and scenes).

    Attributes:
        mean: The mean; NaN where nothing was measured.
        standard_error: Of the mean; NaN for a single seed.
        count: Number of values behind it.
    """

    mean: float
    standard_error: float = math.nan
    count: int = 1


class Results:
    """All cells of an evaluation.

    Attributes:
        records: The cells.
        scenes: Scene names in order of appearance.
        methods: Method labels.
        spp: Budgets, in samples per pixel of ``gdpt``.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.records = list(records)
        self.scenes = list(dict.fromkeys(record.scene for record in self.records))
        self.methods = list(dict.fromkeys(record.method for record in self.records))
        self.spp = sorted({record.spp for record in self.records})

    def cells(self, scene: str, method: str, spp: int) -> list[Record]:
        """Return the seeds of a cell that went well."""
        return [
            record
            for record in self.records
            if (record.scene, record.method, record.spp) == (scene, method, spp)
            and record.error is None
        ]

    def sources(self) -> list[str]:
        """Return the states of the code that made the cells; more than one is worth a warning."""
        return sorted({record.sources for record in self.records if record.error is None})

    def failures(self) -> list[Record]:
        """Return the cells that failed."""
        return [record for record in self.records if record.error is not None]

    def error(self, scene: str, method: str, spp: int) -> str | None:
        """Return why a cell has no value at all, or None."""
        if self.cells(scene, method, spp):
            return None
        for record in self.failures():
            if (record.scene, record.method, record.spp) == (scene, method, spp):
                return record.error
        return None

    def value(self, scene: str, method: str, spp: int, metric: str) -> Value:
        """Return a metric's mean over the seeds."""
        cells = self.cells(scene, method, spp)
        values = [record.metrics[metric] for record in cells if metric in record.metrics]
        if not values:
            return Value(math.nan, count=0)
        if len(values) > 1:
            spread = statistics.stdev(values) / math.sqrt(len(values))
            return Value(statistics.fmean(values), spread, len(values))
        own = next((r.standard_errors[metric] for r in cells if metric in r.standard_errors), None)
        return Value(values[0], math.nan if own is None else own)

    def over_scenes(self, method: str, spp: int, metric: str, *, geometric: bool) -> Value:
        """Return the mean over all scenes; NaN unless each of them has a value.

        Args:
            method: Label.
            spp: Budget.
            metric: Metric name.
            geometric: Geometric mean, for errors that differ by orders of magnitude between
                scenes; a value that is not positive (an error below what a noisy reference
                resolves) makes it NaN. Else the arithmetic mean.

        Returns:
            The mean with the standard error that the seeds imply; the scenes are taken as given.
        """
        values = [self.value(scene, method, spp, metric) for scene in self.scenes]
        n = len(values)
        if any(math.isnan(v.mean) for v in values) or not n:
            return Value(math.nan, count=0)
        if not geometric:
            error = math.sqrt(sum(v.standard_error**2 for v in values)) / n
            return Value(statistics.fmean(v.mean for v in values), error, n)
        if any(v.mean <= 0 for v in values):
            return Value(math.nan, count=0)
        mean = statistics.geometric_mean(v.mean for v in values)
        relative = math.sqrt(sum((v.standard_error / v.mean) ** 2 for v in values)) / n
        return Value(mean, mean * relative, n)

    def seconds(self, scene: str, method: str, spp: int) -> tuple[float, float]:
        """Return render time and median reconstruction time of a cell in seconds, or NaN."""
        cells = self.cells(scene, method, spp)
        if not cells:
            return math.nan, math.nan
        return cells[0].render_seconds, statistics.median(r.denoise_seconds for r in cells)


def to_csv(records: Sequence[Record]) -> str:
    """Return one line per cell, metrics as columns, those that are estimates with their errors."""
    names = list(dict.fromkeys(name for record in records for name in record.metrics))
    estimated = {name for record in records for name in record.standard_errors}
    columns = {
        column: (table, name)
        for name in names
        for column, table in ((name, "metrics"), (error_column(name), "standard_errors"))
        if table == "metrics" or name in estimated
    }
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    fixed = ["scene", "method", "domain", "spp", "rendered_spp", "seed"]
    fixed += ["render_seconds", "denoise_seconds", "sources"]
    writer.writerow([*fixed, *columns, "error"])
    for record in records:
        values = [getattr(record, table).get(name, "") for table, name in columns.values()]
        row = [*(getattr(record, key) for key in fixed), *values, record.error or ""]
        writer.writerow([spreadsheet(cell) for cell in row])
    return stream.getvalue()


def error_column(metric: str) -> str:
    """Return the name of the column with the standard error of a metric."""
    return f"{metric}.standard_error"


def spreadsheet(cell: object) -> object:
    """Keep spreadsheets from taking a text for a formula, which might do anything."""
    if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{cell}"
    return cell
