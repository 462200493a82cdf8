"""All cells of an evaluation, here or on workers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mitsuba_gdpt import execution, progress, records, rendering
from mitsuba_gdpt.errors import GDPTError
from mitsuba_gdpt.evaluation.cells import Cells
from mitsuba_gdpt.evaluation.settings import Settings
from mitsuba_gdpt.evaluation.shots import Shot, find_shots
from mitsuba_gdpt.evaluation.store import Record, Store
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
        on_record: Called with every cell.
        cluster: Where; by default in this process. Workers make references and cells side by side;
            equal time is measured in this process, while they do nothing.

    Returns:
        All cells of these settings, in the order scene or sequence, spp, seed, method. Cells that
        failed have an ``error``; they are tried again by the next call.

    Raises:
        FormatError: The folder cannot be written, or a catalogue is missing or damaged.
        ConfigError: A scene is unknown or has no fly-through, or two have the same name.
        MissingScenesError: None of the scene files is there.
        ClusterError: There is no cluster to work with.
        Interrupted: Ctrl-C, while workers run.
    """
    shots = find_shots(settings)
    require_any(dict.fromkeys(shot.source for shot in shots))
    folder.mkdir(parents=True, exist_ok=True)
    total = len(shots) * len(settings.spp) * settings.seeds * len(settings.methods)
    failed = {} if cluster is None else _make_on_workers(shots, settings, folder, cluster)
    with progress.task("evaluating", total=total) as task:

        def report(record: Record) -> None:
            if on_record is not None:
                on_record(record)
            task.advance()

        made: list[Record] = []
        for shot in shots:
            cells = Cells(shot, settings, Store(folder), report)
            for spp in settings.spp:
                reasons = {
                    seed: failed.get((shot.name, spp, seed)) for seed in range(settings.seeds)
                }
                timing = None if any(reasons.values()) else cells.timing(spp)
                for seed, reason in reasons.items():
                    if cluster is not None and timing is None:
                        made += cells.make_up(spp, seed, reason or "its cell is gone")
                    else:
                        made += cells.make(spp, seed, timing)
        return made


#: Name of a shot, spp and seed of the cells that a worker could not make, and why.
_Failures = dict[tuple[str, int, int], str]


def _make_on_workers(
    shots: list[Shot], settings: Settings, folder: Path, cluster: execution.ClusterOptions
) -> _Failures:
    if cluster.setup is None:
        import mitsuba as mi

        setup = functools.partial(rendering.set_variant, mi.variant())
        cluster = replace(cluster, setup=setup)
    seeds = range(settings.seeds)
    lacking = []
    for shot in shots:
        cells = Cells(shot, settings, Store(folder))
        if not all(cells.is_complete(spp, seed) for spp in settings.spp for seed in seeds):
            lacking.append(shot)
    scenes: dict[str, list[Shot]] = {}
    for shot in lacking:
        scenes.setdefault(shot.scene, []).append(shot)
    views = [ViewUnit(tuple(members), settings, folder) for members in scenes.values()]
    summary = execution.run(views, cluster=cluster, description="rendering references")
    failed: _Failures = {}
    units = []
    for unit in views:
        for shot in unit.shots:
            cells = Cells(shot, settings, Store(folder))
            for spp in settings.spp:
                reason = summary.failed.get(unit.key)
                if reason is None and isinstance(timing := cells.timing(spp), Exception):
                    reason = str(timing) or type(timing).__name__
                for seed in seeds:
                    if reason is None:
                        units.append(CellUnit(shot, settings, folder, spp, seed))
                    else:
                        failed[shot.name, spp, seed] = reason
    summary = execution.run(units, cluster=cluster, description="evaluating")
    for cell in units:
        if (reason := summary.failed.get(cell.key)) is not None:
            failed[cell.shot.name, cell.spp, cell.seed] = reason
    return failed


class CellsError(GDPTError, RuntimeError):
    """Some cells of a unit failed; their records say why."""


@dataclass(frozen=True)
class ViewUnit:
    """Loads the shots of one scene, which renders their references.

    See :class:`mitsuba_gdpt.execution.Unit`.
    """

    shots: tuple[Shot, ...]
    settings: Settings
    folder: Path

    @property
    def key(self) -> str:
        """Name of the scene."""
        return self.shots[0].scene

    def is_done(self) -> bool:
        """Tell whether the references of all shots are there, and whole."""
        for shot in self.shots:
            path = self._record(shot)
            values = records.read(path)
            key = Cells(shot, self.settings, Store(self.folder)).view_key
            if values is None or not records.is_complete(path, values, key):
                return False
        return True

    def run(self) -> None:
        """Render what is missing.

        Raises:
            GDPTError: The scene does not load.
        """
        for shot in self.shots:
            cells = Cells(shot, self.settings, Store(self.folder))
            cells.load()
            self._record(shot).parent.mkdir(parents=True, exist_ok=True)
            records.write(self._record(shot), cells.view_key, {}, cells.view_files())

    def _record(self, shot: Shot) -> Path:
        return self.folder / "views" / f"{shot.name}.json"


@dataclass(frozen=True)
class CellUnit:
    """Makes the cells of all methods on one shot, at one budget, with one seed.

    See :class:`mitsuba_gdpt.execution.Unit`.
    """

    shot: Shot
    settings: Settings
    folder: Path
    spp: int
    seed: int

    @property
    def key(self) -> str:
        """The labels."""
        return f"{self.shot.name}-{self.spp}spp-{self.seed}"

    def is_done(self) -> bool:
        """Tell whether all cells are there."""
        return Cells(self.shot, self.settings, Store(self.folder)).is_complete(self.spp, self.seed)

    def run(self) -> None:
        """Make those that are missing; the equal time has been measured before.

        Raises:
            CellsError: Some failed.
        """
        cells = _open(self.shot, self.settings, self.folder)
        made = cells.make(self.spp, self.seed, cells.timing(self.spp))
        if errors := [f"{record.method}: {record.error}" for record in made if record.error]:
            raise CellsError("; ".join(errors))


_opened: Cells | None = None


def _open(shot: Shot, settings: Settings, folder: Path) -> Cells:
    """Return the cells of the latest shot again, which keep its scene, or those of another."""
    global _opened
    if _opened is None or (_opened.shot, _opened.settings, _opened.store.folder) != (
        shot,
        settings,
        folder,
    ):
        _opened = Cells(shot, settings, Store(folder))
    return _opened
