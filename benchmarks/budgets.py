"""What becomes of budgets: time asked and taken, true error, and whether another choice was better.

    python benchmarks/budgets.py --output DIR [SCENE ...] [--budgets 3 10 30 100] [--noise 0.02]
        [--publish]

Renders each scene with each budget as ``gdpt.render(scene, seconds=...)`` does, and once more with
each of the choices that it has. The best of these in hindsight is what the choice is measured by.
With levels of noise, what was estimated is compared with what is true. By default: the six
development scenes and fourteen built-in ones, in the size of their reference or 320 pixels wide.

Each render leaves a line in DIR/results.jsonl, so a call that was interrupted goes on. References
that are not there are rendered first, into DIR. For figures that are to be published nothing else
may run on the machine; all of it takes about four hours and the references.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import dev_scenes, geometric_mean, publish, table
from references import DEPTH, open_scene, scene_file

from mitsuba_gdpt import provenance, references, rendering, scenes
from mitsuba_gdpt.rendering import Budget, BudgetedRender
from mitsuba_gdpt.rendering.contenders import ERRORS
from mitsuba_gdpt.scenes import SceneRef

SCENES = 20
BUDGETS = (3.0, 10.0, 30.0, 100.0)
FREE = "chosen"
#: Of renders to a level of noise.
MOST_SPP = 1024
METRICS = ("relmse", "relmse-trimmed")
LEAST = 1e-9  # an unbiased estimate of an error may be below 0
#: The ways to spend a time, by the name that rows have.
CHOICES: Mapping[str, tuple[dict[str, Any], str | None]] = {
    FREE: ({}, None),
    **{f"{shifts} {quality}": ({"shifts": shifts}, quality) for shifts, quality in ERRORS},
}


def default_scenes() -> list[str]:
    """Return twenty names: the development scenes, then built-in ones."""
    real = dev_scenes()
    return [*real, *scenes.names()[: SCENES - len(real)]]


def reference(name: str, args: argparse.Namespace) -> references.Halves:
    """Return the reference of a scene, rendered if it is nowhere."""
    scene = SceneRef.parse(scene_file(name))
    return references.stored(scene, DEPTH) or references.render(
        open_scene(name, args.width),
        spp=args.reference_spp,
        max_depth=DEPTH,
        target=args.output / f"{name}.npz",
        label=name,
        seconds=args.reference_seconds,
        scene=references.identity(scene),
        keep=True,
    )


def measure(
    source: rendering.Source, halves: references.Halves, budget: Budget, choice: str
) -> dict[str, Any]:
    """Render once; return the figures."""
    from mitsuba_gdpt import metrics

    settings, quality = CHOICES[choice]
    parameters = {**source.integrator, "max_depth": DEPTH, **settings}
    done = BudgetedRender(source, parameters, budget, seed=1, quality=quality).run()
    if done.interrupted:
        raise KeyboardInterrupt
    image = done.image.cpu()
    found = {name: metrics.find(name)(image, halves.reference()).value for name in METRICS}
    return {
        "taken": done.seconds["render"] + done.seconds["denoise"],
        "first": done.seconds["first"],
        "spp": int(done.buffers.metadata["spp"]),
        "shifts": done.shifts,
        "method": str(done.method),
        "noise": done.noise,
        **{name: max(LEAST, value) for name, value in found.items()},
    }


def work(args: argparse.Namespace, path: Path) -> list[dict[str, Any]]:
    """Render what is missing; return all rows."""
    rows = []
    if path.exists():
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    keys = ("scene", "choice", "budget", "level")
    done = {tuple(row[key] for key in keys) for row in rows}
    timed = [(choice, seconds, None) for seconds in args.budgets for choice in CHOICES]
    for name in args.scenes:
        todo = [
            t for t in [*timed, *((FREE, None, n) for n in args.noise)] if (name, *t) not in done
        ]
        if not todo:
            continue
        halves = reference(name, args)
        width, height = halves.size
        source = rendering.open_source(scene_file(name), width=width, height=height)
        for choice, seconds, level in todo:
            limit = MOST_SPP if seconds is None else None
            result = measure(source, halves, Budget(seconds, limit, level), choice)
            row = dict(zip(keys, (name, choice, seconds, level), strict=True)) | result
            rows.append(row)
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
    return [row for row in rows if row["scene"] in args.scenes]


#: What :func:`times` returns.
TIMES_HEAD = [
    "scene",
    "asked, s",
    "taken, s",
    "spp",
    "chosen",
    "relMSE",
    "trimmed",
    "best",
    "ratio",
]
SUMMARY_HEAD = [
    "asked, s",
    "scenes",
    "least share",
    "largest share",
    "ratio to best",
    "worst ratio",
]


def times(rows: list[dict[str, Any]]) -> tuple[list[list[object]], list[list[object]]]:
    """Return a row per render of a time, and one per budget that sums them up."""
    errors = {(r["scene"], r["budget"], r["choice"]): r["relmse-trimmed"] for r in rows}
    details: list[list[object]] = []
    ratios: dict[float, list[tuple[float, float]]] = {}
    for row in rows:
        if row["choice"] != FREE or row["budget"] is None:
            continue
        scene, seconds = row["scene"], row["budget"]
        fixed = {c: errors[scene, seconds, c] for c in CHOICES if (scene, seconds, c) in errors}
        fixed.pop(FREE)
        if not fixed:
            continue
        best = min(fixed, key=fixed.__getitem__)
        ratio = row["relmse-trimmed"] / fixed[best]
        ratios.setdefault(seconds, []).append((row["taken"] / seconds, ratio))
        details.append(
            [scene, seconds, row["taken"], row["spp"], f"{row['shifts']} {row['method']}"]
            + [row[name] for name in METRICS]
            + [best, ratio]
        )
    summary: list[list[object]] = []
    for seconds, pairs in sorted(ratios.items()):
        taken, ratio = zip(*pairs, strict=True)
        summary.append(
            [seconds, len(pairs), min(taken), max(taken), geometric_mean(ratio), max(ratio)]
        )
    return details, summary


def levels(rows: list[dict[str, Any]]) -> list[list[object]]:
    """Return a row per render to a level of noise."""
    return [
        [r["scene"], r["level"], r["spp"], r["noise"], r["relmse"], r["relmse"] / r["noise"]]
        for r in rows
        if r["level"] is not None
    ]


def main() -> None:
    """Render, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", nargs="*", help="by default twenty")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--budgets", type=float, nargs="*", default=[*BUDGETS], metavar="SECONDS")
    parser.add_argument("--noise", type=float, nargs="*", default=[], metavar="RELMSE")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--reference-spp", type=int, default=4096, help="of each half")
    parser.add_argument("--reference-seconds", type=float, default=300.0)
    parser.add_argument("--variant")
    parser.add_argument("--publish", action="store_true", help="write docs/results/data")
    args = parser.parse_args()
    rendering.set_variant(args.variant)
    args.scenes = args.scenes or default_scenes()
    args.output.mkdir(parents=True, exist_ok=True)
    rows = work(args, args.output / "results.jsonl")
    details, summary = times(rows)
    print(table(TIMES_HEAD, details))
    print("\n" + table(SUMMARY_HEAD, summary))
    if found := levels(rows):
        head = ["scene", "level", "spp", "estimated relMSE", "true relMSE", "ratio"]
        print("\n" + table(head, found))
    origin = {"command": " ".join(["python", *sys.argv]), **provenance.describe()}
    written = {"provenance": origin, "rows": rows}
    (args.output / "budgets.json").write_text(json.dumps(written, indent=1) + "\n", "utf-8")
    if args.publish:
        publish("budgets", {"rows": rows})


if __name__ == "__main__":
    main()
