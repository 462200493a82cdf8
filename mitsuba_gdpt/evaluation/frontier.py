"""The report of equal total time: error against seconds, and which pair is best for a budget."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mitsuba_gdpt import metrics, report
from mitsuba_gdpt.evaluation import page, tables
from mitsuba_gdpt.evaluation.settings import Settings
from mitsuba_gdpt.evaluation.store import Store
from mitsuba_gdpt.evaluation.summary import Results
from mitsuba_gdpt.evaluation.total_time import FEW, MANY, TotalTime

_RATIO_SPP = 8
_PERCENTILE = 90


def write_total_time(
    found: TotalTime, settings: Settings, folder: Path, provenance: Mapping[str, str]
) -> Path:
    """Write report.html, results.csv, results.json and results.md.

    Args:
        found: As from :func:`~mitsuba_gdpt.evaluation.evaluate_total_time`.
        settings: What it was made with.
        folder: Folder of the evaluation.
        provenance: How to make the numbers again, for the head of the report.

    Returns:
        Path of the HTML report.
    """
    contest = Contest(found, settings)
    described = page.describe_references(settings, Store(folder))
    paid = {seconds for _, _, seconds in found.spp}
    unpaid = [f"{seconds:g} s" for seconds in settings.seconds if seconds not in paid]
    width, height = settings.cost_size
    shared = "; seconds are those of the processors over their number"
    clock = "" if settings.clock == "wall" else shared
    notes = [
        f"Costs are those of {width}x{height} pixels: medians of {settings.repeats} renders of "
        f"{FEW} and of {MANY} samples per pixel, and of as many reconstructions, all in turns and "
        f"after one that is not timed{clock}. Errors are measured on frames of the evaluation's "
        f"own size (width: {settings.width or 'that of the reference'}), with the samples that a "
        "budget pays for at these costs.",
        *([f"Too little for a sample of any pair: {', '.join(unpaid)}."] if unpaid else []),
        *(f"{label} does not go together: {reason}" for label, reason in found.skipped.items()),
    ]
    content = report.Report(
        title="Evaluation at equal total time",
        subtitle=f"{page.counted(contest.scenes, 'scene')}, {len(contest.pairs)} pairs of "
        f"integrator and method, {settings.seed_count}",
        provenance=provenance,
        tables=[
            contest.frontier(),
            *(contest.standings(seconds) for seconds in settings.seconds if seconds in paid),
            *contest.costs(),
            *page.reference_tables(described),
        ],
        plots=[plot for name in settings.metrics if (plot := contest.curves(name)) is not None],
        failures=page.failures(contest.results),
        notes=[*notes, *page.mixture(contest.results), *page.definitions(settings.metrics)],
    )
    more = {
        "costs": {
            scene: {label: asdict(cost) for label, cost in costs.items()}
            for scene, costs in found.costs.items()
        },
        "spp": [
            {"scene": scene, "pair": label, "seconds": seconds, "spp": spp}
            for (scene, label, seconds), spp in found.spp.items()
        ],
        "skipped": dict(found.skipped),
        "references": described,
    }
    return page.write_files(content, found.records, settings, folder, more)


class Contest:
    """Errors of all pairs at all budgets.

    Attributes:
        results: The cells.
        scenes: Names, in order of appearance.
        pairs: Labels, in order of appearance.
    """

    def __init__(self, found: TotalTime, settings: Settings) -> None:
        self.found, self.settings = found, settings
        self.results = Results(found.records)
        self.scenes = self.results.scenes
        self.pairs = list(
            dict.fromkeys([*(label for costs in found.costs.values() for label in costs)])
        )

    def errors(self, label: str, seconds: float, name: str) -> dict[str, float]:
        """Return a metric of a pair at a budget, scene by scene; NaN where it affords nothing."""
        found = {}
        for scene in self.scenes:
            spp = self.found.spp.get((scene, label, seconds))
            value = math.nan if spp is None else self.results.value(scene, label, spp, name).mean
            found[scene] = value
        return found

    def mean(self, label: str, seconds: float, name: str) -> float:
        """Return the mean over the scenes, geometric for errors; NaN unless all have a value."""
        values = list(self.errors(label, seconds, name).values())
        if not values or not all(math.isfinite(value) for value in values):
            return math.nan
        if metrics.find(name).higher_is_better:
            return statistics.fmean(values)
        return statistics.geometric_mean(values) if min(values) > 0 else math.nan

    def best(self, seconds: float, name: str) -> tuple[str, float] | None:
        """Return the pair of the best mean at a budget, and that mean."""
        means = {label: self.mean(label, seconds, name) for label in self.pairs}
        known = {label: value for label, value in means.items() if not math.isnan(value)}
        if not known:
            return None
        choose = max if metrics.find(name).higher_is_better else min
        label = choose(known, key=lambda key: known[key])
        return label, known[label]

    def frontier(self) -> report.Table:
        """Return the best pair of each budget: budgets x metrics."""
        rows = []
        for seconds in self.settings.seconds:
            row = []
            for name in self.settings.metrics:
                best = self.best(seconds, name)
                row += [
                    report.Cell(text="-") if best is None else report.Cell(text=best[0]),
                    report.Cell(text="-") if best is None else report.Cell(best[1]),
                ]
            rows.append(row)
        columns = []
        for name in self.settings.metrics:
            columns += [report.Header(f"best in {metrics.find(name).label}"), report.Header("mean")]
        return report.Table(
            title="Frontier: the best pair for a budget",
            columns=columns,
            rows=[report.Header(f"{seconds:g} s") for seconds in self.settings.seconds],
            cells=rows,
            corner="total time",
            caption="Of the pairs that every scene can afford; means over the scenes, geometric "
            "for errors.",
        )

    def standings(self, seconds: float) -> report.Table:
        """Return the pairs at one budget: means of all metrics, and the spread of the first."""
        first = self.settings.metrics[0]
        cells = []
        for label in self.pairs:
            errors = self.errors(label, seconds, first)
            row = [_number(self.mean(label, seconds, name)) for name in self.settings.metrics]
            cells.append([*row, *self._spread(errors, first), *self._samples(label, seconds)])
        label = metrics.find(first).label
        columns = [
            report.Header(metrics.find(name).label, better=tables.better(name))
            for name in self.settings.metrics
        ]
        columns += [
            report.Header(text)
            for text in (
                f"{label}, median",
                f"{label}, {_PERCENTILE} %",
                f"{label}, worst",
                "worst scene",
                "samples",
                "scenes",
            )
        ]
        return report.Table(
            title=f"In {seconds:g} s of total time",
            columns=columns,
            rows=[report.Header(pair) for pair in self.pairs],
            cells=cells,
            corner="integrator + method",
            caption="Means over the scenes, geometric for errors; median, percentile and worst "
            "over the scenes that the budget pays for, as many as the last column says. Samples: "
            "per pixel, mean over these scenes.",
        )

    def costs(self) -> list[report.Table]:
        """Return what integrators cost on each scene, and what methods cost over all scenes."""
        return [self._render_costs(), self._denoise_costs()]

    def curves(self, name: str) -> report.Plot | None:
        """Return the error of every pair against total seconds; None if there is none."""
        drawn = []
        for label in self.pairs:
            points = [(s, self.mean(label, s, name)) for s in self.settings.seconds]
            known = [(s, value) for s, value in points if value > 0]  # NaN is not
            if known:
                x_values, y_values = zip(*known, strict=True)
                drawn.append(report.Curve(label, x_values, y_values))
        if not drawn:
            return None
        metric = metrics.find(name)
        return report.Plot(
            title=f"{metric.label} against total time",
            curves=drawn,
            x_label="render + reconstruction, seconds",
            y_label=f"{metric.label}, mean over the scenes",
        )

    def _render_costs(self) -> report.Table:
        firsts: dict[str, str] = {}
        for label in self.pairs:
            firsts.setdefault(label.partition(" + ")[0], label)
        names, rows = [], []
        for scene, costs in self.found.costs.items():
            base = next(iter(costs.values()))
            for integrator, label in firsts.items():
                cost = costs[label]
                seconds = cost.seconds(_RATIO_SPP) - cost.denoise_seconds
                names.append(f"{scene}, {integrator}")
                rows.append(
                    [
                        _number(cost.fixed_seconds),
                        _number(cost.seconds_per_spp),
                        _number(seconds / (base.seconds(_RATIO_SPP) - base.denoise_seconds)),
                    ]
                )
        columns = ("fixed, s", "per sample, s", f"ratio at {_RATIO_SPP} spp")
        return report.Table(
            title="What renders cost",
            columns=[report.Header(text) for text in columns],
            rows=[report.Header(name) for name in names],
            cells=rows,
            corner="scene, integrator",
            caption=f"Ratio: over {next(iter(firsts), 'the first')}, both at {_RATIO_SPP} samples "
            "per pixel.",
        )

    def _denoise_costs(self) -> report.Table:
        cells = []
        for label in self.pairs:
            seconds = [costs[label].denoise_seconds for costs in self.found.costs.values()]
            cells.append([_number(statistics.median(seconds)), _number(max(seconds))])
        return report.Table(
            title="What reconstruction costs",
            columns=[report.Header("median, s"), report.Header("most, s")],
            rows=[report.Header(label) for label in self.pairs],
            cells=cells,
            corner="integrator + method",
            caption="Over the scenes.",
        )

    def _spread(self, errors: Mapping[str, float], name: str) -> list[report.Cell]:
        known = {scene: value for scene, value in errors.items() if math.isfinite(value)}
        if not known:
            return [report.Cell(text="-")] * 4
        higher = metrics.find(name).higher_is_better
        worst = (min if higher else max)(known, key=lambda scene: known[scene])
        share = 100 - _PERCENTILE if higher else _PERCENTILE
        values: Sequence[float] = list(known.values())
        return [
            _number(statistics.median(values)),
            _number(float(np.percentile(values, share))),
            _number(known[worst]),
            report.Cell(text=worst),
        ]

    def _samples(self, label: str, seconds: float) -> list[report.Cell]:
        counts = [
            spp
            for scene in self.scenes
            if (spp := self.found.spp.get((scene, label, seconds))) is not None
        ]
        mean = statistics.fmean(counts) if counts else math.nan
        return [_number(mean), report.Cell(float(len(counts)))]


def _number(value: float) -> report.Cell:
    return report.Cell(value) if math.isfinite(value) else report.Cell(text="-")
