"""Equal *total* time: pairs of integrator and method on budgets of render plus reconstruction.

Both costs are measured at the size that people render, warm and in turns. Errors are measured on
the frames of an evaluation, which may be smaller, with the sample counts that those costs imply.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mitsuba_gdpt import denoisers, execution, interrupts, rendering
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import ConfigError, GDPTError, plain
from mitsuba_gdpt.evaluation.cells import Cells
from mitsuba_gdpt.evaluation.inputs import Inputs
from mitsuba_gdpt.evaluation.runner import collected, make
from mitsuba_gdpt.evaluation.runs import Run, timed
from mitsuba_gdpt.evaluation.settings import (
    CLOCKS,
    GRADIENT,
    IntegratorSpec,
    Settings,
    domain_of,
)
from mitsuba_gdpt.evaluation.shots import Shot, find_shots
from mitsuba_gdpt.evaluation.store import Record, Store
from mitsuba_gdpt.evaluation.units import RecordUnit, failure, opened
from mitsuba_gdpt.execution import FAILURES, Cell
from mitsuba_gdpt.provenance import fingerprint
from mitsuba_gdpt.scenes.reference import require_any

#: Sample counts whose times give the fixed cost of a render and that of a sample.
FEW, MANY = 2, 8
#: Budgets that would pay for more samples are cut: errors fall no further that matters here.
MOST_SPP = 4096
#: A sample costs at least this share of the mean cost per sample; see ``equal_time``.
_LEAST_SLOPE = 0.1
_ROUNDING = 1e-6  # of a sample


@dataclass(frozen=True)
class Pair:
    """A contender: what renders and what reconstructs."""

    integrator: IntegratorSpec
    method: Call

    @property
    def label(self) -> str:
        """As in tables."""
        return f"{self.integrator.label} + {self.method}"


@dataclass(frozen=True)
class Cost:
    """Seconds of a pair on one scene, at the size of the costs.

    Attributes:
        fixed_seconds: Of a render besides its samples.
        seconds_per_spp: Of one sample per pixel.
        denoise_seconds: Of the reconstruction.
    """

    fixed_seconds: float
    seconds_per_spp: float
    denoise_seconds: float

    def samples(self, seconds: float, least: int) -> int | None:
        """Return the samples per pixel that a budget of total time pays for; None if too few."""
        share = (seconds - self.denoise_seconds - self.fixed_seconds) / self.seconds_per_spp
        count = int(share + _ROUNDING)
        return min(count, MOST_SPP) if count >= least else None

    def seconds(self, spp: int) -> float:
        """Return the total time of so many samples."""
        return self.fixed_seconds + self.seconds_per_spp * spp + self.denoise_seconds


@dataclass(frozen=True)
class TotalTime:
    """What an evaluation at equal total time found.

    Attributes:
        records: The cells; ``Record.spp`` is the number of samples, seconds are those of the costs.
        costs: Scene to label of a pair to its cost.
        spp: Scene, label and budget to the samples that it pays for, as far as it pays for any.
        skipped: Label of a pair to why it does not go together.
    """

    records: list[Record]
    costs: Mapping[str, Mapping[str, Cost]]
    spp: Mapping[tuple[str, str, float], int]
    skipped: Mapping[str, str]


def evaluate_total_time(
    settings: Settings, folder: Path, *, on_record: Callable[[Record], None] | None = None
) -> TotalTime:
    """Run what ``folder`` does not hold yet of all pairs, scenes, budgets and seeds.

    Args:
        settings: What is compared; ``seconds`` are the budgets.
        folder: Results are written here, one file per cell; see :mod:`.store`.
        on_record: Called with every cell.

    Raises:
        ConfigError: No integrator goes with a method, no budget pays for a sample, or as for
            :func:`~mitsuba_gdpt.evaluation.evaluate`.
    """
    shots = find_shots(settings)
    require_any(dict.fromkeys(shot.source for shot in shots))
    pairs, skipped = _pairs(settings)
    folder.mkdir(parents=True, exist_ok=True)
    found = TotalTime([], {}, {}, skipped)
    total = len(shots) * len(pairs) * len(settings.seconds) * settings.seeds
    with collected(total, on_record) as (records, report):
        for shot in shots:
            try:
                units = list(_compete(shot, settings, folder, pairs, found))
            except FAILURES as error:
                interrupts.pass_on(error)
                reason = plain(error)
                for pair in pairs:
                    failed = failure(_blank(shot, pair, 0, 0), reason)
                    Store(folder).write_record(failed)
                    report(failed)
            else:
                make(units, report)
    if not records:
        least = min(cost.seconds(1) for costs in found.costs.values() for cost in costs.values())
        raise ConfigError(
            f"no budget pays for a sample: got {max(settings.seconds):g} s at most; a render of 1 "
            f"sample and its reconstruction take {least:.2g} s or more at "
            f"{settings.cost_size[0]}x{settings.cost_size[1]}"
        )
    found.records.extend(records)
    return found


def _pairs(settings: Settings) -> tuple[list[Pair], dict[str, str]]:
    pairs, skipped = [], {}
    for integrator in settings.integrators:
        for method in settings.methods:
            pair = Pair(integrator, method)
            try:
                layout = _layout(integrator, settings)
                if domain_of(method) == GRADIENT and not integrator.has_gradients:
                    raise ConfigError(
                        f"{method.method} reads dx and dy, {integrator.label} has none"
                    )
                denoisers.check_method(method, {}, layout)
            except GDPTError as error:
                skipped[pair.label] = " ".join(str(error).split())
            else:
                pairs.append(pair)
    if not pairs:
        raise ConfigError(f"no integrator goes with a method; {next(iter(skipped.values()))}")
    return pairs, skipped


def _layout(integrator: IntegratorSpec, settings: Settings) -> Layout:
    layout: Layout = rendering.make_integrator(integrator.parameters(settings)).layout
    return layout


@dataclass(frozen=True)
class PairUnit(RecordUnit):
    """The cell of one pair on one scene, with so many samples and one seed.

    Attributes:
        cost: What it costs there.
        spp: Samples per pixel.
    """

    shot: Shot
    settings: Settings
    folder: Path
    pair: Pair
    cost: Cost
    spp: int
    seed: int

    @property
    def key(self) -> str:
        """The labels."""
        return f"{self.shot.name}-{self.pair.label}-{self.spp}spp-{self.seed}"

    @cached_property
    def blanks(self) -> list[Record]:
        """The one."""
        key = fingerprint(
            "total time",
            _render_key(Cells(self.shot, self.settings, Store(self.folder))),
            self.pair.label,
            self.settings.metrics,
            self.settings.width,
            asdict(self.cost),
            self.spp,
        )
        return [
            replace(
                _blank(self.shot, self.pair, self.spp, self.seed),
                rendered_spp=self.spp,
                render_seconds=self.cost.fixed_seconds + self.cost.seconds_per_spp * self.spp,
                denoise_seconds=self.cost.denoise_seconds,
                fingerprint=key,
            )
        ]

    def make(self, missing: Sequence[Cell]) -> dict[str, str]:
        """Render, reconstruct and compare."""
        (blank,) = self.blanks
        errors: dict[str, str] = {}
        with execution.collecting(errors, blank.method):
            scene = opened(self.shot, self.settings, self.folder)
            run = Run(self.pair.method, self.shot, self.settings, scene.warm)
            tracer = _tracer(self.pair.integrator, scene.view.source, self.settings)
            frame = tracer(scene.view.source, self.spp, self.seed)
            image = run.step(Inputs(frame), scene.view.reference(0))
            if image is None:
                raise execution.CellsError(run.error)
            pictures, store = [], Store(self.folder)
            if self.seed == 0:
                pictures.append(store.image_path(self.shot.name, blank.method, self.spp))
                store.write_image(pictures[0], image.numpy())
            values = run.values()
            done = replace(blank, metrics=values.means, standard_errors=values.standard_errors)
            self._keep(done, pictures)
        for error in errors.values():
            self._keep(failure(blank, error))
        return errors


def _compete(
    shot: Shot, settings: Settings, folder: Path, pairs: Sequence[Pair], found: TotalTime
) -> Iterator[PairUnit]:
    """Note costs and sample counts of all pairs on one scene, yield what is to be made.

    Raises:
        GDPTError: The scene cannot be loaded.
    """
    costs = _costs(Cells(shot, settings, Store(folder)), pairs)
    found.costs[shot.name] = costs  # type: ignore[index]
    for pair in pairs:
        least = 2 if pair.integrator.needs_variances(settings) else 1
        counts: list[int] = []
        for budget in settings.seconds:
            spp = costs[pair.label].samples(budget, least)
            if spp is not None:
                found.spp[shot.name, pair.label, budget] = spp  # type: ignore[index]
                counts.append(spp)
        for spp in dict.fromkeys(counts):
            for seed in range(settings.seeds):
                yield PairUnit(shot, settings, folder, pair, costs[pair.label], spp, seed)


def _blank(shot: Shot, pair: Pair, spp: int, seed: int) -> Record:
    return Record(shot.name, pair.label, pair.integrator.label, spp, seed)


def _render_key(cells: Cells) -> list[Any]:
    return [cells.view_key, [asdict(spec) for spec in cells.settings.integrators]]


def _costs(cells: Cells, pairs: Sequence[Pair]) -> dict[str, Cost]:
    """Return what pairs cost on a scene, by label, kept or measured."""
    settings = cells.settings
    width, height = settings.cost_size
    clock = "" if settings.clock == "wall" else f"-{settings.clock}"
    key = fingerprint(
        "costs",
        [pair.label for pair in pairs],
        _render_key(cells),
        settings.repeats,
        width,
        height,
    )
    cell = cells.store.costs(f"{cells.shot.name}-{width}x{height}{clock}", key)
    if (kept := cell.kept()) is not None:
        return {label: Cost(**values) for label, values in kept["costs"].items()}
    costs = _measure_costs(cells.shot, settings, pairs)
    cell.keep({"costs": {label: asdict(cost) for label, cost in costs.items()}})
    return costs


def _measure_costs(shot: Shot, settings: Settings, pairs: Sequence[Pair]) -> dict[str, Cost]:
    width, height = settings.cost_size
    source = rendering.open_source(
        shot.source, width=width, height=height, parameters=shot.parameters
    )
    integrators = {pair.integrator.label: pair.integrator for pair in pairs}
    tracers = {label: _tracer(spec, source, settings) for label, spec in integrators.items()}
    frames: dict[str, FrameBuffers] = {}
    renders: dict[tuple[str, int], Callable[[], Any]] = {}
    for label, tracer in tracers.items():
        timed_one = tracer
        if integrators[label].is_path:
            timed_one = _own_path({**source.integrator, **integrators[label].options})
        for spp in (FEW, MANY):
            renders[label, spp] = _render(timed_one, source, spp)
        frames[label] = tracer(source, FEW, 0)
    clock = CLOCKS[settings.clock]
    rendered = _in_turns(renders, settings.repeats, clock)
    reconstructions: dict[str, Callable[[], Any]] = {
        pair.label: _reconstruct(pair, frames[pair.integrator.label]) for pair in pairs
    }
    reconstructed = _in_turns(reconstructions, settings.repeats, clock)
    costs = {}
    for pair in pairs:
        few, many = (rendered[pair.integrator.label, spp] for spp in (FEW, MANY))
        slope = max((many - few) / (MANY - FEW), _LEAST_SLOPE * many / MANY)
        fixed = max(0.0, few - FEW * slope)
        costs[pair.label] = Cost(fixed, slope, reconstructed[pair.label])
    return costs


def _tracer(
    spec: IntegratorSpec, source: rendering.Source, settings: Settings
) -> Callable[[rendering.Source, int, int], FrameBuffers]:
    """Return what renders a scene: source, spp and seed to buffers."""
    integrator = rendering.make_integrator({**source.integrator, **spec.parameters(settings)})
    return lambda shown, spp, seed: rendering.render(shown, integrator, spp=spp, seed=seed)


def _own_path(parameters: Mapping[str, Any]) -> Callable[[rendering.Source, int, int], Any]:
    """Return what renders with Mitsuba's own path tracer, whose time is that of ``path``."""
    import mitsuba as mi

    tracer = mi.load_dict({**parameters, "type": "path"})
    return lambda view, spp, seed: tracer.render(
        view.scene, sensor=view.sensor(0), spp=spp, seed=seed
    )


def _render(tracer: Any, source: rendering.Source, spp: int) -> Callable[[], Any]:
    def work() -> None:
        import drjit as dr

        tracer(source, spp, 0)
        dr.sync_thread()

    return work


def _reconstruct(pair: Pair, frame: FrameBuffers) -> Callable[[], Any]:
    def denoise() -> Any:
        return denoisers.denoise(frame, pair.method)

    return lambda: timed(denoise, frame.device)


def _in_turns(
    work: Mapping[Any, Callable[[], Any]], repeats: int, clock: Callable[[], float]
) -> dict[Any, float]:
    """Return the median seconds of each, after one call that nobody times.

    All take turns, so that whatever else the machine does hits all of them.
    """
    for call in work.values():
        call()
    seconds: dict[Any, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, call in work.items():
            start = clock()
            call()
            seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}
