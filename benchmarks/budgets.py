"""What becomes of budgets: time asked and taken, true error, and whether another choice was better.

    python benchmarks/budgets.py --output DIR [SCENE ...] [--budgets 3 10 30 100] [--noise 0.02]
        [--curves] [--publish]

Three things are found for each scene. How errors fall with the samples, for each of the choices
that ``gdpt.render(scene, seconds=...)`` has, and for Mitsuba's ``path``: one render per number of
offset paths, reconstructed in between. What a sample and a reconstruction cost here. And what
becomes of each budget. The best choice in hindsight is the one whose curve is lowest where that
choice would have ended, had it taken all of the time in one pass; so is the best of ``path`` and
OIDN. With levels of noise, what was estimated is compared with what is true. By default: the six
development scenes and fourteen built-in ones, in the size of their reference or 320 pixels wide.

Each of these leaves a line in DIR/results.jsonl, so a call that was interrupted goes on. References
that are not there are rendered first, into DIR. For figures that are to be published nothing else
may run on the machine, but for ``--curves``: that finds the curves only, which know no clock. All
of it takes about three hours and the references.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from common import dev_scenes, geometric_mean, publish, table
from references import DEPTH, open_scene, scene_file

from mitsuba_gdpt import denoisers, metrics, provenance, references, rendering, scenes
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.evaluation.settings import PLAIN
from mitsuba_gdpt.rendering import Budget, BudgetedRender
from mitsuba_gdpt.rendering.contenders import ERRORS, ERRORS_SPP, Costs
from mitsuba_gdpt.rendering.frame import make_integrator
from mitsuba_gdpt.rendering.passes import Accumulation, render_pass
from mitsuba_gdpt.scenes import SceneRef

if TYPE_CHECKING:
    import torch

    from mitsuba_gdpt.buffers import FrameBuffers

SCENES = 20
BUDGETS = (3.0, 10.0, 30.0, 100.0)
#: Of renders to a level of noise.
MOST_SPP = 1024
METRICS = ("relmse", "relmse-trimmed")
LEAST = 1e-9  # an unbiased estimate of an error may be below 0
SEED = 1
#: What renders: numbers of offset paths, and Mitsuba's path tracer, whose images ``gdpt`` renders
#: with what is its own switched off. Times are those of ``path`` itself.
SHIFTS = tuple(dict.fromkeys(shifts for shifts, _ in ERRORS))
PATH = "path"
#: What ``path`` is reconstructed by.
PATH_METHODS = {
    "raw": "oidn(aux=raw)",
    "clean": "oidn(aux=clean)",
    "twice": "oidn(aux=clean, ensemble=2)",
    "prefiltered": "oidn",
}
#: Curves have a point at so many samples per pixel, and one after each growth by a factor.
FIRST_SPP, GROWTH = 8, 2
#: They go on for this share of the longest budget: processor seconds over the processors.
LONGER = 1.0
#: Passes that tell what a sample costs, and how often these and reconstructions are timed.
TIMED_SPP, TIMES = (8, 32), 3


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


class Scene:
    """A scene, and what is found for it."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        """Load it."""
        self.args, self.halves = args, reference(name, args)
        width, height = self.halves.size
        self.source = rendering.open_source(scene_file(name), width=width, height=height)

    def errors(self, image: torch.Tensor) -> dict[str, float]:
        """Return the errors of an image by metric."""
        found = {n: metrics.find(n)(image.cpu(), self.halves.reference()).value for n in METRICS}
        return {name: max(LEAST, value) for name, value in found.items()}

    def integrator(self, shifts: int | str) -> Any:
        """Return ``gdpt`` with the buffers that all levels of quality make use of."""
        if shifts == PATH:
            return make_integrator({**self.source.integrator, **PLAIN, "max_depth": DEPTH})
        extra = {name for level in denoisers.LEVELS for name in denoisers.extra_buffers(level)}
        parameters = {"max_depth": DEPTH, "shifts": shifts, "features": ",".join(sorted(extra))}
        return make_integrator({**self.source.integrator, **parameters})

    def take(self, integrator: Any, passes: Accumulation, spp: int) -> None:
        """Add a pass."""
        done = render_pass(self.source, integrator, spp=spp, seed=SEED, sensor=0, before=passes)
        passes.add(*done)

    def curve(self, shifts: int | str) -> dict[str, Any]:
        """Return errors by level of quality, at growing numbers of samples."""
        integrator, passes = self.integrator(shifts), Accumulation()
        limit = LONGER * max(self.args.budgets) * (os.cpu_count() or 1)
        spent = 0.0
        points: list[dict[str, Any]] = []
        for spp in sizes():
            start = time.process_time()
            self.take(integrator, passes, spp - passes.spp)
            if len(points) > 1:  # the first ones compile
                spent += time.process_time() - start
            images = {q: denoisers.denoise(passes.frame, c) for q, c in calls(shifts, passes.frame)}
            errors = {quality: self.errors(image) for quality, image in images.items()}
            points.append({"spp": passes.spp, "errors": errors})
            if spent > limit:
                return {"points": points}
        raise AssertionError("sizes have no end")

    def cost(self, shifts: int | str) -> dict[str, Any]:
        """Return what is fixed in a pass, what a sample takes, and each reconstruction, in s."""
        integrator, passes, costs = self.integrator(shifts), Accumulation(), Costs()
        self.take(integrator, passes, TIMED_SPP[0])
        take = self.path() if shifts == PATH else partial(self.take, integrator, passes)
        for spp in TIMED_SPP:
            costs.note(spp, timed(partial(take, spp)))
        fixed, sample = costs.line
        reconstruction = {
            quality: timed(partial(denoisers.denoise, passes.frame, call))
            for quality, call in calls(shifts, passes.frame)
        }
        return {"fixed": fixed, "sample": sample, "reconstruction": reconstruction}

    def path(self) -> Callable[[int], None]:
        """Return what renders with Mitsuba's own path tracer."""
        import drjit as dr
        import mitsuba as mi

        tracer = mi.load_dict({**self.source.integrator, "max_depth": DEPTH, "type": PATH})

        def take(spp: int) -> None:
            tracer.render(self.source.scene, sensor=self.source.sensor(0), seed=SEED, spp=spp)
            dr.sync_thread()

        return take

    def budget(self, seconds: float) -> dict[str, Any]:
        """Render with a budget of time."""
        return self._spent(Budget(seconds))

    def level(self, level: float) -> dict[str, Any]:
        """Render to a level of noise."""
        return self._spent(Budget(spp=MOST_SPP, noise=level))

    def _spent(self, budget: Budget) -> dict[str, Any]:
        """Render with a budget, and return what became of it."""
        parameters = {**self.source.integrator, "max_depth": DEPTH}
        done = BudgetedRender(self.source, parameters, budget, seed=SEED).run()
        if done.interrupted:
            raise KeyboardInterrupt
        return {
            "taken": done.seconds["render"] + done.seconds["denoise"],
            "first": done.seconds["first"],
            "spp": int(done.buffers.metadata["spp"]),
            "shifts": done.shifts,
            "method": str(done.method),
            "noise": done.noise,
            **self.errors(done.image),
        }


def sizes() -> Iterator[int]:
    """Return the samples per pixel at the points of a curve."""
    return (FIRST_SPP * GROWTH**k for k in itertools.count())


def calls(shifts: int | str, frame: FrameBuffers) -> list[tuple[str, Call]]:
    """Return the method of each level of quality, or those that ``path`` is reconstructed by."""
    if shifts == PATH:
        return [(name, Call.parse(text)) for name, text in PATH_METHODS.items()]
    layout = frame.layout if shifts else denoisers.without_gradients(frame.layout)
    return [(q, denoisers.default_call(layout, q)) for s, q in ERRORS if s == shifts]


def timed(work: Callable[[], object]) -> float:
    """Return the median of the seconds that something takes, after once that does not count."""
    found = []
    for _ in range(1 + TIMES):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return float(np.median(found[1:]))


def work(args: argparse.Namespace, path: Path) -> list[dict[str, Any]]:
    """Find what is missing; return all rows."""
    rows = []
    if path.exists():
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    keys = ("scene", "what", "value")
    done = {tuple(row[key] for key in keys) for row in rows}
    wanted: list[tuple[str, float | str]] = []
    if args.budgets:
        wanted += [("curve", shifts) for shifts in (*SHIFTS, PATH)]
    if not args.curves:
        wanted += [("cost", shifts) for shifts in (*SHIFTS, PATH) if args.budgets]
        wanted += [("budget", seconds) for seconds in args.budgets]
        wanted += [("level", level) for level in args.noise]
    for name in args.scenes:
        todo = [w for w in wanted if (name, *w) not in done]
        if not todo:
            continue
        scene = Scene(name, args)
        find: dict[str, Callable[[Any], dict[str, Any]]] = {
            "curve": scene.curve,
            "cost": scene.cost,
            "budget": scene.budget,
            "level": scene.level,
        }
        for what, value in todo:
            row = dict(zip(keys, (name, what, value), strict=True)) | find[what](value)
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
    "over best",
    "relMSE over path",
    "trimmed over path",
]
SUMMARY_HEAD = [
    "asked, s",
    "scenes",
    "least share",
    "largest share",
    "over the best choice",
    "relMSE over path + OIDN",
    "trimmed over path + OIDN",
]


def hindsight(
    rows: list[dict[str, Any]],
    scene: str,
    seconds: float,
    metric: str,
    tracers: Sequence[int | str],
) -> dict[str, float]:
    """Return the error of each choice of these tracers, had it taken all of the time in one pass.

    Choices whose curves do not reach as far are left out.
    """
    mine = {(row["what"], row["value"]): row for row in rows if row["scene"] == scene}
    found = {}
    for tracer in tracers:
        curve, cost = mine.get(("curve", tracer)), mine.get(("cost", tracer))
        if curve is None or cost is None:
            continue
        known = [point["spp"] for point in curve["points"]]
        for name, reconstruction in cost["reconstruction"].items():
            spp = (seconds - reconstruction - cost["fixed"]) / cost["sample"]
            if not known[0] <= spp <= known[-1]:
                continue
            errors = [point["errors"][name][metric] for point in curve["points"]]
            logs = np.interp(np.log(spp), np.log(known), np.log(errors))
            found[f"{tracer} {name}"] = float(np.exp(logs))
    return found


def mean_errors(rows: list[dict[str, Any]]) -> dict[tuple[int, str], list[float]]:
    """Return what :data:`ERRORS` has by choice: geometric means over the scenes.

    Curves that end before the last number of samples go on as they fell between their last points.
    """
    curves = {(r["scene"], r["value"]): r["points"] for r in rows if r["what"] == "curve"}
    first = next(iter(ERRORS))

    def errors(scene: str, shifts: int, quality: str) -> list[float]:
        points = curves[scene, shifts]
        spp = np.log([point["spp"] for point in points])
        logs = np.log([point["errors"][quality][METRICS[-1]] for point in points])
        wanted = np.log(ERRORS_SPP)
        slope = (logs[-1] - logs[-3]) / (spp[-1] - spp[-3])
        beyond = logs[-1] + slope * (wanted - spp[-1])
        found = np.where(wanted > spp[-1], beyond, np.interp(wanted, spp, logs))
        return [float(error) for error in np.exp(found)]

    found = {}
    for shifts, quality in ERRORS:
        ratios = []
        for scene in dict.fromkeys(scene for scene, _ in curves):
            base = errors(scene, *first)[0]
            ratios.append([error / base for error in errors(scene, shifts, quality)])
        found[shifts, quality] = [geometric_mean(column) for column in zip(*ratios, strict=True)]
    return found


def times(rows: list[dict[str, Any]]) -> tuple[list[list[object]], list[list[object]]]:
    """Return a row per render of a time, and one per budget that sums them up."""
    details: list[list[object]] = []
    ratios: dict[float, list[list[float]]] = {}
    for row in rows:
        if row["what"] != "budget":
            continue
        scene, seconds = row["scene"], row["value"]
        choices = hindsight(rows, scene, seconds, METRICS[-1], SHIFTS)
        if not choices:
            continue
        best = min(choices, key=choices.__getitem__)
        over = [row[METRICS[-1]] / choices[best]]
        for metric in METRICS:
            of_path = hindsight(rows, scene, seconds, metric, [PATH]).values()
            over.append(row[metric] / min(of_path) if of_path else math.nan)
        ratios.setdefault(seconds, []).append([row["taken"] / seconds, *over])
        details.append(
            [scene, seconds, row["taken"], row["spp"], f"{row['shifts']} {row['method']}"]
            + [row[name] for name in METRICS]
            + [best, *over]
        )
    details.sort(key=lambda cells: cells[1])  # type: ignore[arg-type, return-value]
    summary: list[list[object]] = []
    for seconds, found in sorted(ratios.items()):
        taken, *over = zip(*found, strict=True)
        means = [_mean_and_worst([r for r in ratio if math.isfinite(r)]) for ratio in over]
        summary.append([seconds, len(found), min(taken), max(taken), *means])
    return details, summary


def _mean_and_worst(ratios: list[float]) -> str:
    """Return the mean, the largest, and of how many scenes."""
    if not ratios:
        return ""
    return f"{geometric_mean(ratios):.2f} ({max(ratios):.2f}; {len(ratios)})"


def levels(rows: list[dict[str, Any]]) -> list[list[object]]:
    """Return a row per render to a level of noise."""
    return [
        [r["scene"], r["value"], r["spp"], r["noise"], r["relmse"], r["relmse"] / r["noise"]]
        for r in rows
        if r["what"] == "level"
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
    parser.add_argument("--curves", action="store_true", help="find what knows no clock only")
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
