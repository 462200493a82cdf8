"""Tables of single benchmarks, from what their ``--publish`` has written."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from total_time import DATA, latest

Table = Callable[[Sequence[str], Iterable[Sequence[object]]], str]


def newest(name: str) -> tuple[dict[str, Any], str]:
    """Return the newest published values of that name, and words that say where they are from.

    Raises:
        FileNotFoundError: There are none.
    """
    paths = sorted(DATA.glob(f"*-[0-9][0-9]-{name}.json"))
    if not paths:
        raise FileNotFoundError(f"{DATA} has no DATE-{name}.json; expected one that is committed")
    values = json.loads(paths[-1].read_text(encoding="utf-8"))
    origin = values["provenance"]
    source = f"`{origin['command']}`, {origin['machine']}; `docs/results/data/{paths[-1].name}`"
    return values, source


def nfor_quality(table: Table) -> str:
    """By how much relMSE falls, scene by scene."""
    values, source = newest("nfor")
    scenes: dict[str, Any] = values["scenes"]
    labels = [label for label in next(iter(scenes.values())) if label != "primal"]

    def falls(scene: str, label: str) -> list[float]:
        errors = scenes[scene]
        return [
            before / after for before, after in zip(errors["primal"], errors[label], strict=True)
        ]

    rows: list[list[object]] = []
    for scene, found in scenes.items():
        cells = ["{:.1f} ({:.1f})".format(*falls(scene, label)) for label in labels]
        rows.append([scene, f"{found['primal'][0]:.2g}", *cells])
    means = []
    for label in labels:
        columns = zip(*(falls(scene, label) for scene in scenes), strict=True)
        means.append("{:.1f} ({:.1f})".format(*map(statistics.geometric_mean, columns)))
    rows.append(["geometric mean", "", *means])
    settings = values["settings"]
    said = (
        "relMSE of the primal over that of the result; in brackets without the pixels with the "
        f"largest errors (`relmse-trimmed`). {settings['spp']} spp in two halves, `shifts=0`,\n"
        f"depth {settings['depth']}, frames as large as the references ({source}).\n"
    )
    head = ("scene", "relMSE of the primal", *labels)
    return f"{said}\n{table(head, rows)}"


def metrics_bias(table: Table) -> str:
    """How biased relMSE is against noisy references."""
    values, _ = newest("metrics")
    rows = [
        (f"{error:.3f}", deviation, f"{halves:+.1%}", f"{mean:+.1%}")
        for error, deviation, halves, mean in values["bias"]
    ]
    return table(("true relMSE", "deviation of a half", "bias, halves", "bias, their mean"), rows)


def metrics_cost(table: Table) -> str:
    """What every metric costs."""
    values, source = newest("metrics")
    side = values["settings"]["side"]
    rows = [(f"`{name}`", f"{seconds:.3f}") for name, seconds in values["seconds"].items()]
    cost = table(("metric", f"CPU s per {side} x {side} image"), rows)
    return f"({source})\n\n{cost}"


#: Samples per pixel at which the noise of references is compared with errors.
SPP = 32


def least_error(scene: str) -> float:
    """Return the least relMSE of all published pairs at :data:`SPP`, between their samples."""
    found = latest()
    errors = []
    for pair in found.pairs:
        by_spp = found.by_spp(scene, pair, "relmse")
        if min(by_spp) <= SPP <= max(by_spp):
            counts, values = np.array(sorted(by_spp.items())).T
            errors.append(np.interp(math.log(SPP), np.log(counts), np.log(values)))
    return math.exp(min(errors))


def references(table: Table) -> str:
    """How noisy the references of the development scenes are, remade and as they were."""
    values, source = newest("references")
    rows = [
        (
            scene,
            "gradients" if found["shifts"] else "paths alone",
            found["spp"],
            f"{found['seconds'] / 60:.0f}",
            f"{found['before']:.2g}",
            f"{found['noise']:.2g}",
            f"{found['noise'] / least_error(scene):.2f}",
        )
        for scene, found in values["scenes"].items()
    ]
    share = f"noise / least error at {SPP} spp"
    head = ("scene", "made with", "spp of a half", "minutes", "noise before", "noise", share)
    said = f"({source}; errors are relMSE of the [results](../results/index.md))"
    return f"{said}\n\n{table(head, rows)}"


def reference_samplers(table: Table) -> str:
    """How soon which number of offset paths has a reference of the same noise."""
    values, source = newest("reference-samplers")
    counts = values["shifts"]
    rows = [
        (scene, *(f"{times[0] / seconds:.2f}" for seconds in times[1:]))
        for scene, times in values["seconds"].items()
    ]
    means = (
        statistics.geometric_mean(times[0] / times[i] for times in values["seconds"].values())
        for i in range(1, len(counts))
    )
    rows.append(("geometric mean", *(f"{mean:.2f}" for mean in means)))
    head = ("scene", *(f"`shifts={count}`" for count in counts[1:]))
    said = (
        "Time to the same noise by paths alone, over that with gradients: above 1, they are sooner"
    )
    return f"{said}\n({source}).\n\n{table(head, rows)}"


def colours(table: Table) -> str:
    """What networks make of strong colours, and whether their blocks of pixels show."""
    values, source = newest("colours")

    def colour(mean: Sequence[float]) -> str:
        return ", ".join(f"{value:.4f}" for value in mean)

    rows = [
        (
            f"`{name}`" if "(" in name else name,
            colour(found["red"]),
            colour(found["green"]),
            f"{found['not_above_0']:.0%}",
            f"{found['grid']:.2f}",
        )
        for name, found in values["images"].items()
    ]
    settings = values["settings"]
    said = (
        f"Mitsuba's Cornell box, {settings['side']} x {settings['side']} pixels, {settings['spp']} "
        f"spp, reference {settings['reference_spp']} spp. *Grid*: differences across blocks of 2x2 "
        f"pixels over\nthose inside, relative to the reference ({source}).\n"
    )
    head = ("image", "red wall, mean RGB", "green wall", "red wall: blue not above 0", "grid")
    return f"{said}\n{table(head, rows)}"


def methods(table: Table) -> str:
    """What methods take, and how good they are."""
    from mitsuba_gdpt import denoisers

    values, source = newest("methods")
    errors = values["relmse_trimmed"]
    rows = [
        (
            f"`{method.name}`",
            method.group,
            "" if method.seconds_per_megapixel is None else f"{method.seconds_per_megapixel:g}",
            f"{errors[method.name]:#.2g}" if method.name in errors else "",
        )
        for method in denoisers.methods()
    ]
    settings = values["settings"]
    said = (
        f"Error: relMSE at {settings['spp']} spp, `shifts={settings['shifts']}`, without the 0.1 % "
        f"of pixels with the largest, geometric mean over the\ndevelopment scenes; by default, "
        f"networks in float32 ({source}).\n"
    )
    return f"{said}\n{table(('method', 'group', 's per megapixel', 'error'), rows)}"


def budgets(table: Table) -> str:
    """What becomes of budgets of time, scene by scene."""
    import budgets as benchmark

    details, _ = benchmark.times(newest("budgets")[0]["rows"])
    return table(benchmark.TIMES_HEAD, map(_rounded, details))


def budgets_summary(table: Table) -> str:
    """What becomes of budgets of time, in all."""
    import budgets as benchmark

    values, source = newest("budgets")
    _, summary = benchmark.times(values["rows"])
    said = (
        "Shares of the time asked for that were taken. Trimmed relMSE over that of the best "
        "choice in hindsight, and errors over the\nbest of Mitsuba's `path` + OIDN in hindsight: "
        f"geometric means, in brackets the worst and the number of scenes\n({source}):\n"
    )
    return f"{said}\n{table(benchmark.SUMMARY_HEAD, map(_rounded, summary))}"


def _rounded(row: Sequence[object]) -> list[object]:
    return [f"{cell:.3g}" if isinstance(cell, float) else cell for cell in row]


def budget_errors() -> dict[tuple[int, str], list[float]]:
    """What a render on a budget should expect of errors, by its choice."""
    import budgets as benchmark

    found: dict[tuple[int, str], list[float]] = benchmark.mean_errors(newest("budgets")[0]["rows"])
    return found


def recipe(table: Table) -> str:
    """What the steps of the guide that trains a network take."""
    values, source = newest("recipe")
    steps = values["steps"]
    rows = [
        (
            f"`{' '.join(step['command'].split()[:3])}`",
            f"{step['processor']:.0f}",
            f"{step['clock']:.0f}",
        )
        for step in steps
    ]
    total = (f"{sum(step[key] for step in steps):.0f}" for key in ("processor", "clock"))
    rows.append(("all", *total))
    said = f"Seconds of processors and on the clock, two cores ({source}):"
    return f"{said}\n\n{table(('command', 'processor, s', 'clock, s'), rows)}"


def blocks(table: Table) -> dict[str, Callable[[], str]]:
    """Return the generated blocks of this module, by name."""
    makers = {
        "budgets": budgets,
        "budgets-summary": budgets_summary,
        "colours": colours,
        "methods": methods,
        "metrics-bias": metrics_bias,
        "metrics-cost": metrics_cost,
        "nfor-quality": nfor_quality,
        "recipe": recipe,
        "reference-samplers": reference_samplers,
        "references": references,
    }
    return {name: lambda make=make: make(table) for name, make in makers.items()}  # type: ignore[misc]
