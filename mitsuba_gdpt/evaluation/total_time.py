"""Equal *total* time: pairs of integrator and method on budgets of render plus reconstruction.

Both costs are measured at the size that people render, warm and in turns. Errors are measured on
the frames of an evaluation, which may be smaller, with the sample counts that those costs imply.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mitsuba_gdpt import denoisers, interrupts, progress, records, rendering
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import ConfigError, GDPTError
from mitsuba_gdpt.evaluation.cells import Cells
from mitsuba_gdpt.evaluation.inputs import Inputs
from mitsuba_gdpt.evaluation.runs import FAILURES, Run, timed
from mitsuba_gdpt.evaluation.settings import (
    CLOCKS,
    GRADIENT,
    IntegratorSpec,
    Settings,
    domain_of,
)
from mitsuba_gdpt.evaluation.shots import Shot, find_shots
from mitsuba_gdpt.evaluation.store import Record, Store
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
        fixed: Of a render besides its samples.
        per_sample: Of one sample per pixel.
        denoise: Of the reconstruction.
    """

    fixed: float
    per_sample: float
    denoise: float

    def samples(self, seconds: float, least: int) -> int | None:
        """Return the samples per pixel that a budget of total time pays for; None if too few."""
        share = (seconds - self.denoise - self.fixed) / self.per_sample
        count = int(share + _ROUNDING)
        return min(count, MOST_SPP) if count >= least else None

    def seconds(self, spp: int) -> float:
        """Return the total time of so many samples."""
        return self.fixed + self.per_sample * spp + self.denoise


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
        ConfigError: No integrator goes with a method, or as for
            :func:`~mitsuba_gdpt.evaluation.evaluate`.
    """
    shots = find_shots(settings)
    require_any(dict.fromkeys(shot.source for shot in shots))
    pairs, skipped = _pairs(settings)
    folder.mkdir(parents=True, exist_ok=True)
    found = TotalTime([], {}, {}, skipped)
    total = len(shots) * len(pairs) * len(settings.seconds) * settings.seeds
    with progress.task("evaluating", total=total) as task:
        for shot in shots:
            for record in _Contest(shot, settings, Store(folder), pairs).run(found):
                found.records.append(record)
                if on_record is not None:
                    on_record(record)
                task.advance()
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


class _Contest:
    """All pairs on one scene."""

    def __init__(self, shot: Shot, settings: Settings, store: Store, pairs: Sequence[Pair]) -> None:
        self.shot, self.settings, self.store, self.pairs = shot, settings, store, pairs
        self._cells = Cells(shot, settings, store)
        self._warm: set[Call] = set()

    def run(self, found: TotalTime) -> Iterator[Record]:
        """Yield the cells of the scene, and note costs and sample counts."""
        try:
            costs = self._costs()
        except FAILURES as error:
            interrupts.pass_on(error)
            for pair in self.pairs:
                yield self._failure(pair, 0, 0, error)
            return
        found.costs[self.shot.name] = costs  # type: ignore[index]
        for pair in self.pairs:
            least = 2 if pair.integrator.needs_variances(self.settings) else 1
            counts: list[int] = []
            for budget in self.settings.seconds:
                spp = costs[pair.label].samples(budget, least)
                if spp is not None:
                    found.spp[self.shot.name, pair.label, budget] = spp  # type: ignore[index]
                    counts.append(spp)
            for spp in dict.fromkeys(counts):
                for seed in range(self.settings.seeds):
                    yield self._cell(pair, costs[pair.label], spp, seed)

    # ---------------------------------------------------------------- costs

    def _costs(self) -> dict[str, Cost]:
        width, height = self.settings.cost_size
        clock = "" if self.settings.clock == "wall" else f"-{self.settings.clock}"
        path = self.store.folder / "costs" / f"{self.shot.name}-{width}x{height}{clock}.json"
        key = fingerprint(
            "costs",
            [pair.label for pair in self.pairs],
            self._render_key(),
            self.settings.repeats,
            width,
            height,
        )
        kept = records.read(path)
        if kept is not None and records.is_complete(path, kept, key):
            return {label: Cost(**values) for label, values in kept["costs"].items()}
        costs = self._measure_costs(width, height)
        path.parent.mkdir(parents=True, exist_ok=True)
        values = {label: asdict(cost) for label, cost in costs.items()}
        records.write(path, key, {"costs": values})
        return costs

    def _measure_costs(self, width: int, height: int) -> dict[str, Cost]:
        shot = self.shot
        source = rendering.open_source(
            shot.source, width=width, height=height, parameters=shot.parameters
        )
        integrators = {pair.integrator.label: pair.integrator for pair in self.pairs}
        tracers = {label: self._tracer(spec, source) for label, spec in integrators.items()}
        frames: dict[str, FrameBuffers] = {}
        renders: dict[tuple[str, int], Callable[[], Any]] = {}
        for label, tracer in tracers.items():
            timed_one = tracer
            if integrators[label].is_path:
                timed_one = _own_path({**source.integrator, **integrators[label].options})
            for spp in (FEW, MANY):
                renders[label, spp] = _render(timed_one, source, spp)
            frames[label] = tracer(source, FEW, 0)
        clock = CLOCKS[self.settings.clock]
        rendered = _in_turns(renders, self.settings.repeats, clock)
        reconstructions: dict[str, Callable[[], Any]] = {
            pair.label: _reconstruct(pair, frames[pair.integrator.label]) for pair in self.pairs
        }
        reconstructed = _in_turns(reconstructions, self.settings.repeats, clock)
        costs = {}
        for pair in self.pairs:
            few, many = (rendered[pair.integrator.label, spp] for spp in (FEW, MANY))
            slope = max((many - few) / (MANY - FEW), _LEAST_SLOPE * many / MANY)
            fixed = max(0.0, few - FEW * slope)
            costs[pair.label] = Cost(fixed, slope, reconstructed[pair.label])
        return costs

    # ---------------------------------------------------------------- errors

    def _cell(self, pair: Pair, cost: Cost, spp: int, seed: int) -> Record:
        key = fingerprint(
            "total time",
            self._render_key(),
            pair.label,
            self.settings.metrics,
            self.settings.width,
            asdict(cost),
            spp,
        )
        kept = self.store.record(self.shot.name, pair.label, spp, seed)
        if kept is not None and kept.error is None and kept.fingerprint == key:
            return kept
        run = Run(pair.method, self.shot, self.settings, self._warm)
        try:
            view = self._cells.load()
            frame = self._tracer(pair.integrator, view.source)(view.source, spp, seed)
            image = run.step(Inputs(frame), view.reference(0))
            if run.error is not None:
                raise run.error
            assert image is not None
        except FAILURES as error:
            interrupts.pass_on(error)
            return self._failure(pair, spp, seed, error)
        pictures = []
        if seed == 0:
            pictures.append(self.store.image_path(self.shot.name, pair.label, spp))
            self.store.write_image(pictures[0], image.numpy())
        values = run.values()
        record = Record(
            scene=self.shot.name,
            method=pair.label,
            domain=pair.integrator.label,
            spp=spp,
            seed=seed,
            rendered_spp=spp,
            render_seconds=cost.fixed + cost.per_sample * spp,
            denoise_seconds=cost.denoise,
            metrics=values.means,
            standard_errors=values.standard_errors,
            fingerprint=key,
        )
        self.store.write_record(record, pictures)
        return record

    def _failure(self, pair: Pair, spp: int, seed: int, error: Exception) -> Record:
        text = " ".join(rendering.plain(error).split()) or type(error).__name__
        record = Record(self.shot.name, pair.label, pair.integrator.label, spp, seed, error=text)
        self.store.write_record(record)
        return record

    def _render_key(self) -> list[Any]:
        return [self._cells.view_key, [asdict(spec) for spec in self.settings.integrators]]

    def _tracer(
        self, spec: IntegratorSpec, source: rendering.Source
    ) -> Callable[[rendering.Source, int, int], FrameBuffers]:
        """Return what renders a scene: source, spp and seed to buffers."""
        parameters = {**source.integrator, **spec.parameters(self.settings)}
        integrator = rendering.make_integrator(parameters)
        return lambda view, spp, seed: rendering.render(view, integrator, spp=spp, seed=seed)


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
