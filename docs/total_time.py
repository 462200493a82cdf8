"""Tables and the plot of equal total time, from published data; see ``docs/publish.py``."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "results" / "data"
METRICS = {"relmse": "relMSE", "relmse-trimmed": "trimmed relMSE", "hdr-flip": "HDR-FLIP"}


class TotalTime:
    """One published evaluation at equal total time."""

    def __init__(self, path: Path) -> None:
        self.name = path.stem
        values = json.loads(path.read_text(encoding="utf-8"))
        self.provenance: dict[str, str] = values["provenance"]
        self.settings: dict[str, Any] = values["settings"]
        self.costs: dict[str, dict[str, list[float]]] = {
            scene: {_pair(p): cost for p, cost in costs.items()}
            for scene, costs in values["costs"].items()
        }
        self.spp = {(s, _pair(p), t): n for s, p, t, n in values["spp"]}
        self._errors = {(s, _pair(p), n): metrics for s, p, n, metrics in values["errors"]}
        self.scenes = list(self.costs)
        self.pairs = list(next(iter(self.costs.values())))
        self.budgets: list[float] = self.settings["seconds"]
        self.references: dict[str, dict[str, Any]] = values.get("references", {})

    def error(self, scene: str, pair: str, seconds: float, metric: str) -> float:
        """Return an error; NaN where the budget pays for no sample."""
        spp = self.spp.get((scene, pair, seconds))
        return math.nan if spp is None else float(self._errors[scene, pair, spp][metric])

    def baseline(self, seconds: float, metric: str) -> str:
        """Return the best pair of Mitsuba's ``path`` and OIDN for a budget, over all scenes."""
        own = [p for p in self.pairs if p.startswith("path + oidn")]
        means = {p: self.mean(p, seconds, metric) for p in own}
        return min((p for p in own if not math.isnan(means[p])), key=lambda p: means[p])

    def mean(self, pair: str, seconds: float, metric: str) -> float:
        """Return the geometric mean over the scenes; NaN unless all are affordable."""
        values = [self.error(scene, pair, seconds, metric) for scene in self.scenes]
        return math.nan if any(map(math.isnan, values)) else statistics.geometric_mean(values)

    def by_spp(self, scene: str, pair: str, metric: str) -> dict[int, float]:
        """Return the errors of a pair in a scene, by samples per pixel."""
        return {
            spp: self.error(scene, pair, seconds, metric)
            for seconds in self.budgets
            if (spp := self.spp.get((scene, pair, seconds))) is not None
        }

    def ratios(self, pair: str, seconds: float, metric: str, over: str) -> dict[str, float]:
        """Return a pair's errors over those of another, scene by scene."""
        return {
            scene: self.error(scene, pair, seconds, metric)
            / self.error(scene, over, seconds, metric)
            for scene in self.scenes
        }


def _pair(label: str) -> str:
    """Return a pair as calls; files of before say ``gdpt shifts=1`` of the integrator."""
    integrator, plus, method = label.partition(" + ")
    name, *words = integrator.split(" ")
    if words and "(" not in integrator:
        integrator = f"{name}({', '.join(words)})"
    return integrator + plus + method


def latest() -> TotalTime:
    """Return the newest published evaluation at equal total time."""
    paths = sorted(DATA.glob("*-total-time.json"))
    if not paths:
        raise FileNotFoundError(f"{DATA} has no *-total-time.json; see docs/publish.py")
    return TotalTime(paths[-1])


def default_pair() -> str:
    """Return what the plugin and ``denoise()`` do where nobody chooses, as a pair."""
    from mitsuba_gdpt.denoisers import default_call
    from mitsuba_gdpt.integrators.parameters import DEFAULT_SHIFTS

    return f"gdpt(shifts={DEFAULT_SHIFTS}) + {default_call().method}"


def standings(table: Callable[..., str]) -> str:
    """All pairs at all budgets, over the best of ``path`` + OIDN at the same budget."""
    found = latest()
    labels = METRICS.values()
    parts = []
    for seconds in found.budgets:
        over = {metric: found.baseline(seconds, metric) for metric in METRICS}
        means, worsts, unpaid = [], [], []
        for pair in found.pairs:
            by_metric = [found.ratios(pair, seconds, metric, over[metric]) for metric in METRICS]
            if any(math.isnan(value) for ratios in by_metric for value in ratios.values()):
                unpaid.append(f"`{pair}`")
                continue
            counts = [found.spp[scene, pair, seconds] for scene in found.scenes]
            geometric = (statistics.geometric_mean(ratios.values()) for ratios in by_metric)
            means.append([f"`{pair}`", *map(_ratio, geometric), f"{min(counts)} to {max(counts)}"])
            worst = (max((value, scene) for scene, value in ratios.items()) for ratios in by_metric)
            worsts.append([f"`{pair}`", *(f"{_ratio(v)} {scene}" for v, scene in worst)])
        told = ", ".join(
            f"`{base}` ({', '.join(METRICS[m] for m in METRICS if over[m] == base)})"
            for base in dict.fromkeys(over.values())
        )
        parts.append(f"### {seconds:g} s\n\nGeometric means, over {told}:\n")
        parts.append(table(("integrator + method", *labels, "spp"), means))
        parts.append("The worst scene of each:\n")
        parts.append(table(("integrator + method", *labels), worsts))
        if unpaid:
            parts.append(f"Not a sample in every scene: {', '.join(unpaid)}.\n")
    return "\n".join(parts)


def costs(table: Callable[..., str]) -> str:
    """What renders cost per scene, and reconstructions over all scenes."""
    found = latest()
    integrators = list(dict.fromkeys(pair.partition(" + ")[0] for pair in found.pairs))
    rows = []
    for scene, by_pair in found.costs.items():
        first = {
            i: next(c for p, c in by_pair.items() if p.partition(" + ")[0] == i)
            for i in integrators
        }
        at8 = {i: c[0] + 8 * c[1] for i, c in first.items()}
        base = at8[integrators[0]]
        rows.append([scene, f"{base:.2f}", *(_ratio(at8[i] / base) for i in integrators[1:])])
    renders = table(
        ("scene", f"`{integrators[0]}` at 8 spp, s", *(f"`{i}`" for i in integrators[1:])), rows
    )
    methods: dict[str, list[float]] = {}
    for by_pair in found.costs.values():
        for pair, cost in by_pair.items():
            methods.setdefault(pair.partition(" + ")[2], []).append(cost[2])
    seconds = table(
        ("method", "median, s", "most, s"),
        [(f"`{m}`", f"{statistics.median(v):.2f}", f"{max(v):.2f}") for m, v in methods.items()],
    )
    return f"{renders}\n{seconds}"


def provenance(table: Callable[..., str]) -> str:
    """What is needed to make the numbers again."""
    found = latest()
    size = "x".join(map(str, found.settings["cost_size"]))
    rows = [
        ("data", f"`docs/results/data/{found.name}.json`"),
        ("scenes", ", ".join(found.scenes)),
        ("size at which costs are measured", size),
        ("clock", found.settings["clock"]),
        ("seeds", found.settings["seeds"]),
        *(
            (
                f"reference of {scene}",
                f"{r['spp']} spp in each half, noise {r['noise']:.2g}, {r['sha256']}",
            )
            for scene, r in found.references.items()
        ),
        *found.provenance.items(),
    ]
    return table(("", ""), rows)


def headline(table: Callable[..., str]) -> str:
    """The default against the best of ``path`` + OIDN, per budget."""
    found, pair = latest(), default_pair()
    rows = []
    for seconds in found.budgets:
        over = {metric: found.baseline(seconds, metric) for metric in METRICS}
        ratios = (
            found.mean(pair, seconds, metric) / found.mean(over[metric], seconds, metric)
            for metric in METRICS
        )
        rows.append([f"{seconds:g} s", *map(_ratio, ratios)])
    return table(("budget", *METRICS.values()), rows)


_LINES = (":", "--", "-", "-.")


def plot(path: Path) -> None:
    """Draw the error of every pair against total seconds, one panel per metric.

    A colour is a method, a kind of line an integrator.
    """
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    from mitsuba_gdpt.report.style import PALETTE

    found = latest()
    integrators, methods = (
        list(dict.fromkeys(pair.split(" + ", 1)[i] for pair in found.pairs)) for i in (0, 1)
    )
    colours = {name: PALETTE[i % len(PALETTE)][0] for i, name in enumerate(methods)}
    figure, axes = plt.subplots(1, len(METRICS), figsize=(12, 4.2), layout="constrained")
    for axis, (metric, label) in zip(axes, METRICS.items(), strict=True):
        for pair in found.pairs:
            points = [(s, found.mean(pair, s, metric)) for s in found.budgets]
            known = [point for point in points if not math.isnan(point[1])]
            if known:
                integrator, method = pair.split(" + ", 1)
                style = {
                    "color": colours[method],
                    "linestyle": _LINES[integrators.index(integrator) % len(_LINES)],
                }
                axis.loglog(*zip(*known, strict=True), marker="o", ms=3, **style)
        axis.set(title=label, xlabel="render + reconstruction, s")
        axis.set_xticks(found.budgets, [f"{s:g}" for s in found.budgets])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.tick_params(which="minor", bottom=False, left=False)
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.grid(axis="y", alpha=0.3)
    keys = [
        *(Line2D([], [], color="0.3", linestyle=_LINES[i]) for i in range(len(integrators))),
        *(Line2D([], [], color=colours[method], marker="o", ms=4) for method in methods),
    ]
    names = [*integrators, *methods]
    figure.legend(keys, names, loc="outside lower center", ncols=3, fontsize=9)
    figure.savefig(path, dpi=110)


def _ratio(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def blocks(table: Callable[[Sequence[str], Any], str]) -> dict[str, Callable[[], str]]:
    """Return the generated blocks of this module, by name."""
    makers = {
        "total-time-standings": standings,
        "total-time-costs": costs,
        "total-time-provenance": provenance,
        "total-time-headline": headline,
    }
    return {name: lambda make=make: make(table) for name, make in makers.items()}  # type: ignore[misc]


if __name__ == "__main__":
    plot(Path(__file__).parent / "images" / "frontier.png")
