"""The work of evaluations, in pieces that run here or on workers.

A still image is a sequence of one frame. The methods that share a render take each frame as it is
rendered, so that memory does not grow with the number of frames.
"""

from __future__ import annotations

import dataclasses
import statistics
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mitsuba_gdpt import execution, interrupts
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import plain
from mitsuba_gdpt.evaluation import view
from mitsuba_gdpt.evaluation.cells import Cells, samples
from mitsuba_gdpt.evaluation.equal_time import EqualTime
from mitsuba_gdpt.evaluation.inputs import Inputs, render_inputs
from mitsuba_gdpt.evaluation.runs import Run
from mitsuba_gdpt.evaluation.settings import Settings
from mitsuba_gdpt.evaluation.shots import Shot
from mitsuba_gdpt.evaluation.store import Record, Store
from mitsuba_gdpt.evaluation.view import View
from mitsuba_gdpt.execution import FAILURES, Cell
from mitsuba_gdpt.motion import add_motion


@dataclass(frozen=True)
class ViewUnit(execution.CellUnit):
    """Loads the shots of one scene, which renders their references."""

    shots: tuple[Shot, ...]
    settings: Settings
    folder: Path

    @property
    def key(self) -> str:
        """Names of the shots."""
        return "-".join(shot.name for shot in self.shots)

    @cached_property
    def cells(self) -> list[Cell]:
        """One per shot."""
        store = Store(self.folder)
        return [Cells(shot, self.settings, store).view for shot in self.shots]

    def make(self, missing: Sequence[Cell]) -> dict[str, str]:
        """Render what is missing.

        Raises:
            GDPTError: The scene does not load.
        """
        for shot, cell in zip(self.shots, self.cells, strict=True):
            if cell in missing:
                loaded = opened(shot, self.settings, self.folder).view
                cell.keep({}, self._files(shot, loaded))
        return {}

    def _files(self, shot: Shot, loaded: View) -> list[Path]:
        frames: Sequence[int | None] = range(len(shot.cameras)) or (None,)
        store = Store(self.folder)
        shown = [store.frame_path(shot.name, None, 0, frame) for frame in frames]
        return [*shown, *(path for path in loaded.halves if isinstance(path, Path))]


class RecordUnit(execution.CellUnit):
    """A unit whose cells are errors of methods.

    Attributes:
        folder: Of the evaluation.
    """

    folder: Path

    @property
    @abstractmethod
    def blanks(self) -> Sequence[Record]:
        """What is known of the cells before they are made."""

    @property
    def cells(self) -> list[Cell]:
        """One per blank record."""
        store = Store(self.folder)
        return [store.cell(blank) for blank in self.blanks]

    def records(self, error: str) -> list[Record]:
        """Return what the unit came to; cells that are not there become records of failure.

        Args:
            error: What the unit died of, for cells that do not say it themselves.
        """
        return [found_or_failed(blank, Store(self.folder), error) for blank in self.blanks]

    def _keep(self, record: Record, pictures: Sequence[Path] = ()) -> None:
        Store(self.folder).write_record(record, pictures)


@dataclass(frozen=True)
class DomainUnit(RecordUnit):
    """The cells of all methods of one domain on one shot, at one budget, with one seed."""

    shot: Shot
    settings: Settings
    folder: Path
    timing: EqualTime
    seed: int
    domain: str

    @property
    def key(self) -> str:
        """The labels."""
        return f"{self.shot.name}-{self.timing.spp}spp-{self.seed}-{self.domain}"

    @cached_property
    def blanks(self) -> list[Record]:
        """One per method of the domain."""
        cells = Cells(self.shot, self.settings, Store(self.folder))
        methods = self.settings.of_domain(self.domain)
        return [cells.blank(method, self.timing, self.seed) for method in methods]

    def make(self, missing: Sequence[Cell]) -> dict[str, str]:
        """Render frame by frame and let all methods that have not failed take each."""
        names = {cell.name for cell in missing}
        scene = opened(self.shot, self.settings, self.folder)
        blanks = [blank for blank in self.blanks if blank.method in names]
        methods = {str(method): method for method in self.settings.methods}
        runs = [
            Run(methods[blank.method], self.shot, self.settings, scene.warm) for blank in blanks
        ]
        self._play(runs, scene)
        errors = {run.label: run.error for run in runs if run.error}
        for blank, run in zip(blanks, runs, strict=True):
            if not run.error:
                with execution.collecting(errors, blank.method):
                    self._finish(blank, run)
            if error := errors.get(blank.method):
                self._keep(failure(blank, error))
        return errors

    def _play(self, runs: Sequence[Run], scene: Opened) -> None:
        for frame in range(len(scene.view.sensors)):
            if all(run.error for run in runs):
                return
            try:
                inputs = self._render(scene.view, frame)
                reference = scene.view.reference(frame)
            except FAILURES as error:
                interrupts.pass_on(error)
                for run in runs:
                    run.error = run.error or plain(error)
                return
            for run in runs:
                image = run.step(inputs, reference)
                if image is not None and self.seed == 0:
                    path = self._picture(run.label, frame)
                    Store(self.folder).write_image(path, image.numpy())

    def _render(self, shown: View, frame: int) -> Inputs:
        inputs = render_inputs(
            shown.source,
            self.settings,
            self.domain,
            spp=samples(self.domain, self.timing),
            seed=self.seed if self.shot.is_still else frame_seed(self.seed, frame),
            sensor=shown.sensors[frame],
        )
        if self.shot.is_still or not self.settings.needs_motion(self.domain):
            return inputs
        previous = shown.cameras[frame - 1] if frame else None
        moved = add_motion(inputs.frame, shown.cameras[frame], previous)
        return dataclasses.replace(inputs, frame=moved)

    def _finish(self, blank: Record, run: Run) -> None:
        values = run.values()
        frames = range(self.settings.frames) if self.seed == 0 else ()
        pictures = [self._picture(blank.method, frame) for frame in frames]
        done = dataclasses.replace(
            blank,
            denoise_seconds=statistics.fmean(run.seconds),
            metrics=values.means,
            standard_errors=values.standard_errors,
        )
        self._keep(done, pictures)

    def _picture(self, label: str, frame: int) -> Path:
        number = None if self.shot.is_still else frame
        return Store(self.folder).frame_path(self.shot.name, label, self.timing.spp, number)


def found_or_failed(blank: Record, store: Store, reason: str) -> Record:
    """Return a cell that is there, or what is written of its failure, or write that."""
    found = store.record(blank.scene, blank.method, blank.spp, blank.seed)
    if found is not None and (found.error or found.fingerprint == blank.fingerprint):
        return found
    failed = failure(blank, reason)
    store.write_record(failed)
    return failed


def failure(blank: Record, reason: str) -> Record:
    """Return the record of a cell that could not be made."""
    return Record(blank.scene, blank.method, blank.domain, blank.spp, blank.seed, error=reason)


def frame_seed(seed: int, frame: int) -> int:
    """Return the seed of a frame's render: frames, and repetitions, are independent."""
    sequence = np.random.SeedSequence(seed, spawn_key=(frame,))
    return int(sequence.generate_state(1)[0]) >> 1


class Opened:
    """The scene of a shot, loaded when it is first asked for, and what has run on it.

    Attributes:
        warm: Methods that have loaded their weights and compiled their kernels.
    """

    def __init__(self, shot: Shot, settings: Settings, folder: Path) -> None:
        self._what = shot, settings, folder
        self.warm: set[Call] = set()
        self._view: View | None = None
        self._error = ""

    def is_of(self, shot: Shot, settings: Settings, folder: Path) -> bool:
        """Tell whether it is what was asked for."""
        return self._what == (shot, settings, folder)

    @property
    def view(self) -> View:
        """The scene and its references; a failure is not tried again.

        Raises:
            CellsError: They cannot be loaded.
        """
        if self._view is None and not self._error:
            shot, settings, folder = self._what
            try:
                self._view = view.load(shot, settings, Store(folder))
            except FAILURES as error:
                interrupts.pass_on(error)
                self._error = plain(error)  # see execution.collecting()
        if self._view is None:
            raise execution.CellsError(self._error)
        return self._view


_opened: list[Opened] = []


def opened(shot: Shot, settings: Settings, folder: Path) -> Opened:
    """Return the latest shot again, which keeps its scene, or another, after that is forgotten."""
    if not (_opened and _opened[0].is_of(shot, settings, folder)):
        forget_scenes()
        _opened.append(Opened(shot, settings, folder))
    return _opened[0]


def forget_scenes() -> None:
    """Free the scene that this process has kept."""
    _opened.clear()
