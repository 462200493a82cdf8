"""The table of what the integrator costs, from published data; see ``benchmarks/integrator.py``."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from total_time import DATA

#: Scenes that are rooms: long paths, mostly diffuse.
INTERIORS = ("living-room", "staircase2", "living-room-3", "veach-bidir")


def costs(table: Callable[..., str]) -> str:
    """Render times over those of ``path``, scene by scene."""
    paths = sorted(DATA.glob("*-integrator-cost.json"))
    if not paths:
        return "No run is published yet: `python benchmarks/integrator.py --publish` makes one.\n"
    values = json.loads(paths[-1].read_text(encoding="utf-8"))
    settings, seconds = values["settings"], values["seconds"]
    first, *others = next(iter(seconds.values()))
    rows: list[list[str]] = []
    for scene, by_integrator in seconds.items():
        base = by_integrator[first]
        ratios = (f"{by_integrator[other] / base:.2f}" for other in others)
        rows.append([scene, f"{base:.2f}", *ratios])
    groups = {"all": list(seconds), "interiors": [s for s in INTERIORS if s in seconds]}
    for name, scenes in groups.items():
        means = (
            statistics.geometric_mean(seconds[s][other] / seconds[s][first] for s in scenes)
            for other in others
        )
        rows.append([f"geometric mean, {name}", "", *(f"{mean:.2f}" for mean in means)])
    size = f"{settings['width']}x{settings['height']}"
    said = (
        f"Over `{first}`, at {settings['spp']} spp, depth {settings['depth']} and {size} pixels; "
        f"medians of {settings['repeats']} renders in turns ({settings['clock']} clock, "
        f"{values['provenance']['machine']}; `docs/results/data/{paths[-1].name}`).\n"
    )
    head = ("scene", f"`{first}`, s", *(f"`{other}`" for other in others))
    return f"{said}\n{table(head, rows)}"


def blocks(table: Callable[[Sequence[str], Any], str]) -> dict[str, Callable[[], str]]:
    """Return the generated blocks of this module, by name."""
    return {"integrator-costs": lambda: costs(table)}
