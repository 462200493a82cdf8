"""All cells of an evaluation, here or on workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mitsuba_gdpt import execution, interrupts, progress
from mitsuba_gdpt.data.workers import with_variant
from mitsuba_gdpt.errors import plain
from mitsuba_gdpt.evaluation import equal_time
from mitsuba_gdpt.evaluation.cells import Cells
from mitsuba_gdpt.evaluation.equal_time import EqualTime
from mitsuba_gdpt.evaluation.inputs import timed_integrators
from mitsuba_gdpt.evaluation.settings import Settings, domain_of
from mitsuba_gdpt.evaluation.shots import Shot, find_shots
from mitsuba_gdpt.evaluation.store import Record, Store
from mitsuba_gdpt.evaluation.units import (
    DomainUnit,
    RecordUnit,
    ViewUnit,
    forget_scenes,
    found_or_failed,
    opened,
)
from mitsuba_gdpt.execution import FAILURES
from mitsuba_gdpt.scenes.reference import require_any


def evaluate(
    settings: Settings,
    folder: Path,
    *,
    on_record: Callable[[Record], None] | None = None,
    cluster: execution.ClusterOptions | None = None,
) -> list[Record]:
    """Run all cells that ``folder`` does not hold yet.

    Args:
        settings: What is compared.
        folder: Results are written here, one file per cell; see :mod:`.store`.
        on_record: Called with every cell, as soon as it is known.
        cluster: Where; by default in this process. Workers make references and cells side by side;
            equal time is measured in this process, while they do nothing.

    Returns:
        All cells of these settings, in the order scene or sequence, spp, seed, method. Cells that
        failed have an ``error``; they are tried again by the next call.

    Raises:
        FormatError: The folder cannot be written, or a catalogue is missing or damaged.
        ConfigError: A scene is unknown or has no fly-through, or two have the same name.
        MissingScenesError: None of the scene files is there.
        VariantError: No variant is set.
        ClusterError: There is no cluster to work with.
        Interrupted: Ctrl-C.
    """
    cluster = with_variant(cluster)
    shots = find_shots(settings)
    require_any(dict.fromkeys(shot.source for shot in shots))
    folder.mkdir(parents=True, exist_ok=True)
    total = len(shots) * len(settings.spp) * settings.seeds * len(settings.methods)
    with collected(total, on_record) as (found, report):
        # Here one scene at a time is in memory; workers are given all that there is to do.
        for part in [[shot] for shot in shots] if cluster is None else [shots]:
            _evaluate(part, settings, folder, report, cluster)
    order = {str(method): number for number, method in enumerate(settings.methods)}
    names = {shot.name: number for number, shot in enumerate(shots)}
    budgets = {spp: number for number, spp in enumerate(settings.spp)}
    found.sort(key=lambda r: (names[r.scene], budgets[r.spp], r.seed, order[r.method]))
    return found


@contextmanager
def collected(
    total: int, on_record: Callable[[Record], None] | None
) -> Iterator[tuple[list[Record], Callable[[Record], None]]]:
    """Collect cells as they become known, report progress, and free the last scene at the end.

    Args:
        total: Number of cells.
        on_record: Called with each.

    Yields:
        The cells so far, and what takes the next.

    Raises:
        Interrupted: Ctrl-C in the ``with`` block.
    """
    found: list[Record] = []
    try:
        with progress.task("evaluating", total=total) as task:

            def report(record: Record) -> None:
                found.append(record)
                if on_record is not None:
                    on_record(record)
                task.advance()

            yield found, report
    except KeyboardInterrupt as error:
        raise execution.Interrupted(
            f"interrupted with {len(found)} of {total} cells complete; run the same again to go on "
            "from the last finished cell"
        ) from error
    finally:
        forget_scenes()


def make(
    units: Sequence[RecordUnit],
    report: Callable[[Record], None],
    cluster: execution.ClusterOptions | None = None,
) -> None:
    """Run units, and report their cells as they end.

    Args:
        units: Handed out in this order.
        report: Called with each cell.
        cluster: Where; by default in this process.
    """
    for unit in units:
        for blank in unit.blanks:
            Store(unit.folder).forget_failure(blank)

    def ended(unit: RecordUnit, error: str) -> None:
        for record in unit.records(error):
            report(record)

    execution.run(units, cluster=cluster, description=None, on_ended=ended)


def _evaluate(
    shots: Sequence[Shot],
    settings: Settings,
    folder: Path,
    report: Callable[[Record], None],
    cluster: execution.ClusterOptions | None,
) -> None:
    """Make the references of shots that lack cells, measure equal time, make the cells."""
    store, seeds = Store(folder), range(settings.seeds)
    lacking: dict[str, list[Shot]] = {}
    for shot in shots:
        cells = Cells(shot, settings, store)
        for spp in settings.spp:
            if not cells.are_there(spp):
                lacking.setdefault(shot.scene, []).append(shot)
                break
    views = [ViewUnit(tuple(members), settings, folder) for members in lacking.values()]
    summary = execution.run(views, cluster=cluster, description=None)
    reasons = {s.name: summary.failed.get(view.key) for view in views for s in view.shots}
    units: list[DomainUnit] = []
    domains = tuple(dict.fromkeys(map(domain_of, settings.methods)))
    for shot in shots:
        cells = Cells(shot, settings, store)
        for spp in settings.spp:
            if cells.are_there(spp):
                for seed in seeds:
                    for record in cells.kept(spp, seed):
                        report(record)
                continue
            timing: EqualTime | str = reasons[shot.name] or _measured(cells, spp)
            for seed in seeds:
                if isinstance(timing, str):
                    for record in _failed(cells, spp, seed, timing):
                        report(record)
                else:
                    units += [
                        DomainUnit(shot, settings, folder, timing, seed, domain)
                        for domain in domains
                    ]
    make(units, report, cluster)


def _measured(cells: Cells, spp: int) -> EqualTime | str:
    """Return the sample counts of equal time, kept or measured, or why there are none."""
    cell, settings = cells.timing(spp), cells.settings
    if (kept := cell.kept()) is not None:
        return EqualTime.of(kept)
    try:
        shown = opened(cells.shot, settings, cells.store.folder).view
        timing = equal_time.measure(
            shown.source,
            *timed_integrators(shown.source, settings),
            spp=spp,
            repeats=settings.repeats,
            sensor=shown.timed_sensor,
        )
    except FAILURES as error:
        interrupts.pass_on(error)
        return plain(error)
    cell.keep(timing.as_dict())
    return timing


def _failed(cells: Cells, spp: int, seed: int, reason: str) -> Iterator[Record]:
    """Yield the cells of a scene that cannot be loaded or timed; some may be there from before."""
    for method in cells.settings.methods:
        kept = cells.record(method, spp, seed)
        blank = Record(cells.shot.name, str(method), domain_of(method), spp, seed)
        if kept is None:
            cells.store.forget_failure(blank)
        yield kept or found_or_failed(blank, cells.store, reason)
