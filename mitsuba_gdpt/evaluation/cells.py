"""The cells of one scene or sequence: written down, resumed, and allowed to fail.

A still image is a sequence of one frame. The methods of a domain take each frame as it is rendered,
so that memory does not grow with the number of frames.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mitsuba_gdpt import interrupts, metrics, records, references, rendering
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import GDPTError
from mitsuba_gdpt.evaluation import equal_time
from mitsuba_gdpt.evaluation.equal_time import EqualTime
from mitsuba_gdpt.evaluation.inputs import Inputs, render_inputs, timed_integrators
from mitsuba_gdpt.evaluation.runs import FAILURES, Run, Values
from mitsuba_gdpt.evaluation.settings import GRADIENT, PRIMAL, Settings, domain_of
from mitsuba_gdpt.evaluation.shots import Shot
from mitsuba_gdpt.evaluation.store import Record, Store
from mitsuba_gdpt.motion import PinholeCamera, add_motion
from mitsuba_gdpt.provenance import digest, fingerprint
from mitsuba_gdpt.scenes import make_sensor


@dataclass
class View:
    """A loaded scene with the cameras and references of a shot.

    Attributes:
        source: The scene.
        sensors: One per frame.
        halves: References: one per frame, in memory or in a file.
        timed_sensor: What equal time is measured on.
        denoised: Whether errors are relative to the brightness of a denoised reference.
    """

    source: rendering.Source
    sensors: list[Any]
    halves: list[references.Halves | Path]
    timed_sensor: Any
    denoised: bool
    _last: tuple[Path, metrics.Reference] | None = None

    def reference(self, frame: int) -> metrics.Reference:
        """Return the reference of a frame."""
        kept = self.halves[frame]
        if not isinstance(kept, Path):
            return kept.reference(denoised=self.denoised)
        if self._last is None or self._last[0] != kept:  # a camera at rest has one for all frames
            self._last = kept, references.read(kept).reference(denoised=self.denoised)
        return self._last[1]

    @cached_property
    def cameras(self) -> list[PinholeCamera]:
        """The cameras of the frames, for motion."""
        return [PinholeCamera.from_sensor(sensor) for sensor in self.sensors]


class Cells:
    """All cells of one scene or sequence; loads it only if a cell is missing.

    Attributes:
        shot: What is looked at.
        name: As in records, tables and file names.
        settings: What is compared.
        store: Where results are kept.
    """

    def __init__(
        self,
        shot: Shot,
        settings: Settings,
        store: Store,
        on_record: Callable[[Record], None] | None = None,
    ) -> None:
        self.shot, self.settings, self.store = shot, settings, store
        self.name = shot.name
        self._on_record = on_record
        self._loaded: View | Exception | None = None
        self._warm: set[Call] = set()
        source = str(shot.source), shot.source.content, dict(shot.parameters)
        middle = None if shot.middle is None else dataclasses.asdict(shot.middle)
        #: What measured times depend on beyond the settings.
        self._timing_identity: tuple[Any, ...] = (*source, middle)
        places = references.places(shot.source) if shot.is_still else []
        kept = [records.stamp(place) for place in places]
        path = [dataclasses.asdict(camera) for camera in shot.cameras]
        #: What results depend on beyond settings, method and samples.
        self._identity = (*source, path, settings.reference_spp, kept)

    def records(self) -> Iterator[Record]:
        """Yield the cells, old ones and new ones."""
        for spp in self.settings.spp:
            timing = self.timing(spp)
            for seed in range(self.settings.seeds):
                yield from self.make(spp, seed, timing)

    def timing(self, spp: int) -> EqualTime | Exception | None:
        """Return the sample counts of equal time, or why there are none; None if no cell lacks."""
        seeds = range(self.settings.seeds)
        if all(len(self._kept(spp, seed)) == len(self.settings.methods) for seed in seeds):
            return None
        try:
            return self._timing(spp)
        except FAILURES as error:
            interrupts.pass_on(error)
            return error

    def make(self, spp: int, seed: int, timing: EqualTime | Exception | None) -> list[Record]:
        """Return the cells of a seed in the order of the methods, making those that are missing.

        Args:
            spp: Budget.
            seed: Number of the repetition.
            timing: As from :meth:`timing`.
        """
        found = self.kept(spp, seed, timing)
        for record in found.values():
            self._report(record)
        missing = [method for method in self.settings.methods if str(method) not in found]
        if isinstance(timing, Exception):
            for method in missing:
                record = self._failure(method, spp, seed, timing)
                found[str(method)] = self._keep(record)
        elif missing:
            assert timing is not None
            for record in self._measure(missing, timing, seed):
                found[record.method] = record
        return [found[str(method)] for method in self.settings.methods]

    def make_up(self, spp: int, seed: int, reason: str) -> list[Record]:
        """Return the cells of a seed of which a worker could not make all.

        Args:
            spp: Budget.
            seed: Number of the repetition.
            reason: What became of them where the worker wrote nothing.
        """
        found = self._kept(spp, seed)
        for method in self.settings.methods:
            if str(method) not in found:
                record = self.store.record(self.name, str(method), spp, seed)
                if record is None or record.error is None:
                    record = self._failure(method, spp, seed, GDPTError(reason))
                    self.store.write_record(record)
                found[str(method)] = record
            self._report(found[str(method)])
        return [found[str(method)] for method in self.settings.methods]

    def is_complete(self, spp: int, seed: int) -> bool:
        """Tell whether all cells of a seed are there, at the samples of the latest equal time."""
        timing = self.store.timing(self.shot.scene, spp, self._timing_mark())
        return len(self.kept(spp, seed, timing)) == len(self.settings.methods)

    @property
    def view_key(self) -> str:
        """Fingerprint of the references that :meth:`load` makes."""
        settings = self.settings
        return digest(self._identity, settings.max_depth, settings.width)

    def view_files(self) -> list[Path]:
        """Return the files that :meth:`load` has made or read, after it."""
        frames: Sequence[int | None] = range(len(self.shot.cameras)) or (None,)
        shown = [self.store.frame_path(self.name, None, 0, frame) for frame in frames]
        return [*shown, *(path for path in self.load().halves if isinstance(path, Path))]

    def reference_file(self) -> Path:
        """Return where the reference of a still image is, or will be once it is rendered.

        Raises:
            FormatError: A stored reference is damaged.
        """
        stored = references.stored_path(self.shot.source, self.settings.max_depth)
        if stored is not None and self._stored() is not None:
            return stored
        return self.store.reference_path(self.name)

    def kept(self, spp: int, seed: int, timing: EqualTime | Exception | None) -> dict[str, Record]:
        """Return the cells of a seed that were made before and still count, by method."""
        found = self._kept(spp, seed)
        if not isinstance(timing, EqualTime):
            return found
        # Measured anew, equal time may be another number of samples: then all are made anew.
        return {
            label: record
            for label, record in found.items()
            if record.rendered_spp == samples(record.domain, timing)
        }

    def load(self) -> View:
        """Load the scene and its references, once; a failure is not tried again either."""
        if self._loaded is None:
            try:
                self._loaded = self._load()
            except FAILURES as error:
                interrupts.pass_on(error)
                self._loaded = error
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded

    def _kept(self, spp: int, seed: int) -> dict[str, Record]:
        """Return the cells that were made before, with these settings, by the methods' labels."""
        found = {}
        for method in self.settings.methods:
            record = self.store.record(self.name, str(method), spp, seed)
            if (
                record is not None
                and record.error is None
                and record.fingerprint == self._hash(method, record.rendered_spp)
            ):
                found[str(method)] = record
        return found

    def _timing(self, spp: int) -> EqualTime:
        mark = self._timing_mark()
        timing = self.store.timing(self.shot.scene, spp, mark)
        if timing is None:
            view = self.load()
            timing = equal_time.measure(
                view.source,
                *timed_integrators(view.source, self.settings),
                spp=spp,
                repeats=self.settings.repeats,
                sensor=view.timed_sensor,
            )
            self.store.write_timing(self.shot.scene, timing, mark)
        return timing

    def _timing_mark(self) -> str:
        settings = self.settings
        return fingerprint(
            settings.max_depth,
            settings.width,
            dict(settings.gdpt),
            settings.plain_path,
            settings.features(GRADIENT),
            settings.needs_variances(GRADIENT),
            *self._timing_identity,
        )

    def _success(
        self, method: Call, timing: EqualTime, seed: int, seconds: float, values: Values
    ) -> Record:
        rendered = samples(domain_of(method), timing)
        primal = domain_of(method) == PRIMAL
        return Record(
            scene=self.name,
            method=str(method),
            domain=domain_of(method),
            spp=timing.spp,
            seed=seed,
            rendered_spp=rendered,
            render_seconds=timing.primal_seconds if primal else timing.seconds,
            denoise_seconds=seconds,
            metrics=values.means,
            standard_errors=values.standard_errors,
            fingerprint=self._hash(method, rendered),
        )

    def _failure(self, method: Call, spp: int, seed: int, error: Exception) -> Record:
        text = " ".join(rendering.plain(error).split()) if str(error) else type(error).__name__
        return Record(self.name, str(method), domain_of(method), spp, seed, error=text)

    def _keep(self, record: Record, pictures: Sequence[Path] = ()) -> Record:
        self.store.write_record(record, pictures if record.error is None else ())
        self._report(record)
        return record

    def _report(self, record: Record) -> None:
        if self._on_record is not None:
            self._on_record(record)

    def _hash(self, method: Call, rendered_spp: int) -> str:
        settings = self.settings
        return fingerprint(
            settings.max_depth,
            settings.width,
            dict(settings.gdpt),
            domain_of(method) == PRIMAL and (settings.plain_path, settings.needs_halves),
            settings.metrics,
            method.method,
            {key: str(value) for key, value in method.options.items()},
            rendered_spp,
            *self._identity,
        )

    # ---------------------------------------------------------------- frames

    def _stored(self) -> references.Halves | None:
        """Return the stored reference of a still image, if one of the size that is asked for."""
        shot, settings = self.shot, self.settings
        halves = references.stored(shot.source, settings.max_depth) if shot.is_still else None
        return halves if halves and settings.width in (None, halves.size[0]) else None

    def _load(self) -> View:
        shot, settings = self.shot, self.settings
        halves = self._stored()
        if halves is not None:
            width, height = halves.size
            source = rendering.open_source(
                shot.source, width=width, height=height, parameters=shot.parameters
            )
        else:
            width = settings.width or references.DEFAULT_WIDTH
            source = rendering.open_source(shot.source, width=width, parameters=shot.parameters)
        if not shot.is_still:
            return self._load_sequence(source)
        if halves is None:
            halves = references.render(
                source,
                spp=settings.reference_spp,
                max_depth=settings.max_depth,
                target=self.store.reference_path(self.name),
                label=f"reference of {self.name}",
            )
        self.store.write_image(self.store.frame_path(self.name, None, 0, None), halves.mean)
        return View(source, [0], [halves], 0, denoised=False)

    def _load_sequence(self, source: rendering.Source) -> View:
        shot, settings = self.shot, self.settings
        width, height = (int(side) for side in source.sensor(0).film().size())
        sensors: list[Any] = []
        paths: list[references.Halves | Path] = []
        for frame, camera in enumerate(shot.cameras):
            sensor = make_sensor(camera, width, height)
            mark = digest(
                str(shot.source), dict(shot.parameters), dataclasses.asdict(camera), width, height
            )
            path = self.store.reference_path(shot.scene, mark)
            if path not in paths:  # a camera at rest has one reference
                halves = references.render(
                    source,
                    spp=settings.reference_spp,
                    max_depth=settings.max_depth,
                    target=path,
                    label=f"reference of {self.name}, frame {frame}",
                    sensor=sensor,
                    frame=frame,
                )
            self.store.write_image(self.store.frame_path(self.name, None, 0, frame), halves.mean)
            sensors.append(sensor)
            paths.append(path)
        assert shot.middle is not None
        timed = make_sensor(shot.middle, width, height)
        return View(source, sensors, paths, timed, denoised=True)

    def _measure(self, methods: Sequence[Call], timing: EqualTime, seed: int) -> Iterator[Record]:
        """Make and keep one new cell per method; failures become records."""
        for domain in dict.fromkeys(domain_of(method) for method in methods):
            runs = [
                Run(method, self.shot, self.settings, self._warm)
                for method in methods
                if domain_of(method) == domain
            ]
            self._play(runs, domain, timing, seed)
            for run in runs:  # kept now: the other domain may take hours
                yield self._record(run, timing, seed)

    def _play(self, runs: Sequence[Run], domain: str, timing: EqualTime, seed: int) -> None:
        """Render frame by frame and let all methods that have not failed take each."""
        view = self.load()
        for frame in range(len(view.sensors)):
            if not any(run.error is None for run in runs):
                return
            try:
                inputs = self._render(view, domain, timing, seed, frame)
                reference = view.reference(frame)
            except FAILURES as error:
                interrupts.pass_on(error)
                for run in runs:
                    run.error = run.error or error
                return
            for run in runs:
                image = run.step(inputs, reference)
                if image is not None and seed == 0:
                    path = self._picture(run.method, timing.spp, frame)
                    self.store.write_image(path, image.numpy())

    def _render(self, view: View, domain: str, timing: EqualTime, seed: int, frame: int) -> Inputs:
        inputs = render_inputs(
            view.source,
            self.settings,
            domain,
            spp=samples(domain, timing),
            seed=seed if self.shot.is_still else frame_seed(seed, frame),
            sensor=view.sensors[frame],
        )
        if self.shot.is_still or not self.settings.needs_motion(domain):
            return inputs
        previous = view.cameras[frame - 1] if frame else None
        moved = add_motion(inputs.frame, view.cameras[frame], previous)
        return dataclasses.replace(inputs, frame=moved)

    def _record(self, run: Run, timing: EqualTime, seed: int) -> Record:
        try:
            if run.error is not None:
                raise run.error
            values = run.values()
        except FAILURES as error:
            interrupts.pass_on(error)
            return self._keep(self._failure(run.method, timing.spp, seed, error))
        seconds = statistics.fmean(run.seconds)
        record = self._success(run.method, timing, seed, seconds, values)
        frames = range(self.settings.frames) if seed == 0 else ()
        pictures = [self._picture(run.method, timing.spp, frame) for frame in frames]
        return self._keep(record, pictures)

    def _picture(self, method: Call, spp: int, frame: int) -> Path:
        number = None if self.shot.is_still else frame
        return self.store.frame_path(self.name, str(method), spp, number)


def frame_seed(seed: int, frame: int) -> int:
    """Return the seed of a frame's render: frames, and repetitions, are independent."""
    sequence = np.random.SeedSequence(seed, spawn_key=(frame,))
    return int(sequence.generate_state(1)[0]) >> 1


def samples(domain: str, timing: EqualTime) -> int:
    """Return the samples per pixel that a domain's methods get for a budget."""
    return timing.primal_spp if domain == PRIMAL else timing.spp
