"""What scenes and sequences have in common: cells that are written down, resumed, and may fail."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch

from mitsuba_gdpt import denoisers, interrupts, metrics, progress, rendering
from mitsuba_gdpt.errors import GDPTError
from mitsuba_gdpt.evaluation import equal_time
from mitsuba_gdpt.evaluation.equal_time import EqualTime
from mitsuba_gdpt.evaluation.inputs import Inputs, timed_integrators
from mitsuba_gdpt.evaluation.settings import GRADIENT, PRIMAL, MethodSpec, Settings
from mitsuba_gdpt.evaluation.store import Record, Store
from mitsuba_gdpt.provenance import fingerprint

if TYPE_CHECKING:
    import mitsuba as mi

#: What a cell may die of without taking the others along; anything else is a bug and is raised.
FAILURES = (GDPTError, RuntimeError, MemoryError)


class View(Protocol):
    """A loaded scene and what of it is timed."""

    @property
    def source(self) -> rendering.Source:
        """The scene."""

    @property
    def timed_sensor(self) -> int | mi.Sensor:
        """What equal time is measured on."""


Loaded = TypeVar("Loaded", bound=View)


class Cells(ABC, Generic[Loaded]):
    """All cells of one scene or sequence; loads it only if a cell is missing.

    Attributes:
        name: As in records, tables and file names.
        settings: What is compared.
        store: Where results are kept.
    """

    def __init__(self, name: str, settings: Settings, store: Store) -> None:
        self.name, self.settings, self.store = name, settings, store
        self._loaded: Loaded | Exception | None = None

    def records(self) -> Iterator[Record]:
        """Yield the cells, old ones and new ones."""
        for spp in self.settings.spp:
            kept = [self._kept(spp, seed) for seed in range(self.settings.seeds)]
            timing: EqualTime | Exception | None = None
            if any(len(found) < len(self.settings.methods) for found in kept):
                try:
                    timing = self._timing(spp)
                except FAILURES as error:
                    interrupts.pass_on(error)
                    timing = error
            for seed, found in enumerate(kept):
                yield from self._cells(spp, seed, found, timing)

    # ------------------------------------------------------------------ what differs

    #: What results depend on beyond settings, method and samples; JSON-compatible.
    identity: tuple[Any, ...] = ()
    #: What measured times depend on beyond the settings.
    timing_identity: tuple[Any, ...] = ()

    @property
    def timing_name(self) -> str:
        """Name under which the measured times are kept."""
        return self.name

    @abstractmethod
    def _load(self) -> Loaded:
        """Load the scene and its references."""

    @abstractmethod
    def _measure(
        self, methods: Sequence[MethodSpec], timing: EqualTime, seed: int
    ) -> Iterable[Record]:
        """Make and keep one new cell per method, in their order; failures become records."""

    # ------------------------------------------------------------------ what does not

    def _kept(self, spp: int, seed: int) -> dict[str, Record]:
        """Return the cells that were made before, with these settings, by the methods' labels."""
        found = {}
        for method in self.settings.methods:
            record = self.store.record(self.name, method, spp, seed)
            if (
                record is not None
                and record.error is None
                and record.fingerprint == self._hash(method, record.rendered_spp)
            ):
                found[method.label] = record
        return found

    def _cells(
        self,
        spp: int,
        seed: int,
        kept: dict[str, Record],
        timing: EqualTime | Exception | None,
    ) -> Iterator[Record]:
        """Return the cells of a seed; ``timing`` is None where nothing is missing."""
        if isinstance(timing, EqualTime):
            # Measured anew, equal time may be another number of samples: then all are made anew.
            kept = {
                label: record
                for label, record in kept.items()
                if record.rendered_spp == samples(record.domain, timing)
            }
        missing = [method for method in self.settings.methods if method.label not in kept]
        made: Iterator[Record] = iter(())
        if isinstance(timing, Exception):
            failed = [(method, self._failure(method, spp, seed, timing)) for method in missing]
            made = (self._keep(method, record) for method, record in failed)
        elif missing:
            assert timing is not None
            made = iter(self._measure(missing, timing, seed))
        for method in self.settings.methods:
            yield kept[method.label] if method.label in kept else next(made)

    def _prepare(self) -> Loaded:
        """Load once; a failure is not tried again either."""
        if self._loaded is None:
            try:
                self._loaded = self._load()
            except FAILURES as error:
                interrupts.pass_on(error)
                self._loaded = error
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded

    def _timing(self, spp: int) -> EqualTime:
        settings = self.settings
        mark = fingerprint(
            settings.max_depth,
            settings.width,
            dict(settings.gdpt),
            settings.plain_path,
            settings.features(GRADIENT),
            settings.needs_variances(GRADIENT),
            *self.timing_identity,
        )
        timing = self.store.timing(self.timing_name, spp, mark)
        if timing is None:
            view = self._prepare()
            timing = equal_time.measure(
                view.source,
                *timed_integrators(view.source, settings),
                spp=spp,
                repeats=settings.repeats,
                sensor=view.timed_sensor,
            )
            self.store.write_timing(self.timing_name, timing, mark)
        return timing

    def _success(
        self, method: MethodSpec, timing: EqualTime, seed: int, seconds: float, values: Values
    ) -> Record:
        rendered = samples(method.domain, timing)
        primal = method.domain == PRIMAL
        return Record(
            scene=self.name,
            method=method.label,
            domain=method.domain,
            spp=timing.spp,
            seed=seed,
            rendered_spp=rendered,
            render_seconds=timing.primal_seconds if primal else timing.seconds,
            denoise_seconds=seconds,
            metrics=values.means,
            standard_errors=values.standard_errors,
            fingerprint=self._hash(method, rendered),
        )

    def _failure(self, method: MethodSpec, spp: int, seed: int, error: Exception) -> Record:
        text = " ".join(rendering.plain(error).split()) if str(error) else type(error).__name__
        return Record(self.name, method.label, method.domain, spp, seed, error=text)

    def _keep(self, method: MethodSpec, record: Record, pictures: Sequence[Path] = ()) -> Record:
        self.store.write_record(record, method, pictures if record.error is None else ())
        return record

    def _hash(self, method: MethodSpec, rendered_spp: int) -> str:
        settings = self.settings
        return fingerprint(
            settings.max_depth,
            settings.width,
            dict(settings.gdpt),
            method.domain == PRIMAL and (settings.plain_path, settings.needs_halves),
            settings.metrics,
            method.name,
            {key: str(value) for key, value in method.options.items()},
            rendered_spp,
            *self.identity,
        )


@dataclass(frozen=True)
class Values:
    """What the metrics say of one cell.

    Attributes:
        means: Metric name to value.
        standard_errors: Metric name to the metric's own standard error, where it has one.
    """

    means: dict[str, float]
    standard_errors: dict[str, float]


def run(groups: Sequence[Cells[Any]], on_record: Callable[[Record], None] | None) -> list[Record]:
    """Return all cells, making those that are missing.

    Args:
        groups: Scenes or sequences, all with the same settings.
        on_record: Called with every cell.
    """
    total = sum(
        len(group.settings.spp) * group.settings.seeds * len(group.settings.methods)
        for group in groups
    )
    records = []
    with progress.task("evaluating", total=total) as task:
        for group in groups:
            for record in group.records():
                records.append(record)
                if on_record is not None:
                    on_record(record)
                task.advance()
    return records


def samples(domain: str, timing: EqualTime) -> int:
    """Return the samples per pixel that a domain's methods get for a budget."""
    return timing.primal_spp if domain == PRIMAL else timing.spp


def options_for(method: MethodSpec, inputs: Inputs) -> dict[str, Any]:
    """Return the options of a method, with the half buffers where it takes them."""
    options = dict(method.options)
    if "halves" in denoisers.find(method.name).options and inputs.halves is not None:
        options["halves"] = inputs.halves
    return options


def shown(image: torch.Tensor, metric: metrics.Metric) -> torch.Tensor:
    """Return an image as a metric takes it: some refuse negative values."""
    return metrics.displayable(image) if metric.nonnegative else image


def timed(work: Callable[[], torch.Tensor], device: torch.device) -> tuple[torch.Tensor, float]:
    """Return the result of ``work`` and the seconds that it took."""
    _synchronise(device)
    start = time.perf_counter()
    image = work()
    _synchronise(device)
    return image, time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
