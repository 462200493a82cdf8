"""Sequences: every method on all frames of a fly-through, or of a camera at rest.

The methods of a domain take each frame as it is rendered, so that memory does not grow with the
number of frames; each works as a stream, so that recurrent methods keep their state.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mitsuba_gdpt import denoisers, interrupts, metrics, rendering
from mitsuba_gdpt.evaluation import cells, references
from mitsuba_gdpt.evaluation.cells import FAILURES, Cells, Values
from mitsuba_gdpt.evaluation.equal_time import EqualTime
from mitsuba_gdpt.evaluation.inputs import Inputs, render_inputs
from mitsuba_gdpt.evaluation.settings import MethodSpec, SequenceSettings
from mitsuba_gdpt.evaluation.shots import Shot, find_shots
from mitsuba_gdpt.evaluation.store import Record, Store
from mitsuba_gdpt.motion import PinholeCamera, add_motion
from mitsuba_gdpt.provenance import digest
from mitsuba_gdpt.scenes import SceneRef, make_sensor
from mitsuba_gdpt.scenes.reference import require_any


def evaluate_sequences(
    settings: SequenceSettings, folder: Path, *, on_record: Callable[[Record], None] | None = None
) -> list[Record]:
    """Run all cells that ``folder`` does not hold yet: methods on whole sequences.

    Args:
        settings: What is compared.
        folder: As for :func:`~mitsuba_gdpt.evaluation.evaluate`.
        on_record: Called with every cell.

    Returns:
        All cells of these settings, in the order sequence, spp, seed, method. ``Record.scene`` is
        the name of the sequence.

    Raises:
        FormatError: The folder cannot be written, or a catalogue is missing or damaged.
        ConfigError: A scene is unknown or has no fly-through, or two have the same name.
        MissingScenesError: None of the scene files is there.
    """
    shots = find_shots(settings)
    require_any({SceneRef.parse(shot.sequence.source): None for shot in shots})
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder)
    return cells.run([_Sequence(shot, settings, store) for shot in shots], on_record)


@dataclass
class _View:
    """A loaded scene with the cameras and references of a sequence."""

    source: rendering.Source
    sensors: list[Any]
    references: list[Path]
    timed_sensor: Any
    _last: tuple[Path, metrics.Reference] | None = None

    def reference(self, frame: int) -> metrics.Reference:
        path = self.references[frame]
        if self._last is None or self._last[0] != path:  # a camera at rest has one for all frames
            self._last = path, references.read(path).reference(denoised=True)
        return self._last[1]

    @cached_property
    def cameras(self) -> list[PinholeCamera]:
        return [PinholeCamera.from_sensor(sensor) for sensor in self.sensors]


class _Sequence(Cells[_View]):
    """All cells of one sequence."""

    settings: SequenceSettings

    def __init__(self, shot: Shot, settings: SequenceSettings, store: Store) -> None:
        super().__init__(shot.name, settings, store)
        self.shot = shot
        sequence = shot.sequence
        scene = sequence.source, SceneRef.parse(sequence.source).content, dict(sequence.parameters)
        self.timing_identity = (*scene, dataclasses.asdict(shot.middle))
        path = [dataclasses.asdict(camera) for camera in sequence.cameras]
        self.identity = (*scene, path, settings.reference_spp, "denoised brightness")
        self._warm: set[str] = set()

    @property
    def timing_name(self) -> str:
        """Name of the scene: its sequences share the measured times."""
        return self.shot.scene

    def _load(self) -> _View:
        settings, sequence = self.settings, self.shot.sequence
        source = rendering.open_source(
            sequence.source,
            width=settings.width or references.DEFAULT_WIDTH,
            parameters=sequence.parameters,
        )
        width, height = (int(side) for side in source.sensor(0).film().size())
        sensors, paths = [], []
        for frame, camera in enumerate(sequence.cameras):
            sensor = make_sensor(camera, width, height)
            mark = digest(
                sequence.source,
                dict(sequence.parameters),
                dataclasses.asdict(camera),
                width,
                height,
            )
            path = self.store.reference_path(self.shot.scene, mark)
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
        return _View(source, sensors, paths, make_sensor(self.shot.middle, width, height))

    def _measure(
        self, methods: Sequence[MethodSpec], timing: EqualTime, seed: int
    ) -> Iterable[Record]:
        records: dict[str, Record] = {}
        for domain in dict.fromkeys(method.domain for method in methods):
            chosen = [method for method in methods if method.domain == domain]
            runs = [_Run(method, self) for method in chosen]
            self._play(runs, domain, timing, seed)
            for run in runs:  # kept now: the other domain may take hours
                record = self._record(run, timing, seed)
                pictures = [
                    self.store.frame_path(self.name, run.method, timing.spp, frame)
                    for frame in range(self.settings.frames)
                    if seed == 0
                ]
                records[run.method.label] = self._keep(run.method, record, pictures)
        return [records[method.label] for method in methods]

    def _play(self, runs: Sequence[_Run], domain: str, timing: EqualTime, seed: int) -> None:
        """Render frame by frame and let all methods that have not failed take each."""
        view = self._prepare()
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
                    path = self.store.frame_path(self.name, run.method, timing.spp, frame)
                    self.store.write_image(path, image.numpy())

    def _render(self, view: _View, domain: str, timing: EqualTime, seed: int, frame: int) -> Inputs:
        inputs = render_inputs(
            view.source,
            self.settings,
            domain,
            spp=cells.samples(domain, timing),
            seed=frame_seed(seed, frame),
            sensor=view.sensors[frame],
        )
        if not self.settings.needs_motion(domain):
            return inputs
        previous = view.cameras[frame - 1] if frame else None
        moved = add_motion(inputs.frame, view.cameras[frame], previous)
        return dataclasses.replace(inputs, frame=moved)

    def _record(self, run: _Run, timing: EqualTime, seed: int) -> Record:
        try:
            if run.error is not None:
                raise run.error
            values = run.values()
        except FAILURES as error:
            return self._failure(run.method, timing.spp, seed, error)
        return self._success(run.method, timing, seed, statistics.fmean(run.seconds), values)


class _Run:
    """One method on its way through a sequence.

    Attributes:
        method: What reconstructs.
        seconds: Of the frames so far.
        error: What it died of.
    """

    def __init__(self, method: MethodSpec, sequence: _Sequence) -> None:
        self.method = method
        self.seconds: list[float] = []
        self.error: Exception | None = None
        self._warm = sequence._warm
        self._stream: denoisers.Stream | None = None
        self._metrics = [
            metrics.find(name) for name in sequence.settings.metrics_of(static=sequence.shot.static)
        ]
        self._accumulators: list[metrics.Accumulator] = []

    def step(self, inputs: Inputs, reference: metrics.Reference) -> torch.Tensor | None:
        """Reconstruct and compare the next frame; None if this fails or something did before."""
        if self.error is not None:
            return None
        try:
            image = self._denoise(inputs).cpu()
            if not self._accumulators:  # not before: this may ask for weights
                self._accumulators = [metric.accumulator(None) for metric in self._metrics]
            for metric, accumulator in zip(self._metrics, self._accumulators, strict=True):
                accumulator.update(cells.shown(image, metric), reference)
        except FAILURES as error:
            interrupts.pass_on(error)
            self.error = error
            return None
        return image

    def values(self) -> Values:
        """Return what the metrics say of all frames."""
        pairs = zip(self._metrics, self._accumulators, strict=True)
        return Values({metric.name: float(sums.compute()) for metric, sums in pairs}, {})

    def _denoise(self, inputs: Inputs) -> torch.Tensor:
        stream = self._stream_for(inputs)

        def denoise() -> torch.Tensor:
            image: torch.Tensor = stream(inputs.frame)
            return image

        if self.method.label not in self._warm:  # loads weights, compiles kernels
            denoise()
            stream.reset()
            self._warm.add(self.method.label)
        image, seconds = cells.timed(denoise, inputs.frame.device)
        self.seconds.append(seconds)
        return image

    def _stream_for(self, inputs: Inputs) -> denoisers.Stream:
        options = cells.options_for(self.method, inputs)
        # Half buffers are an option, so methods that take them get a new stream with each frame;
        # none of them is recurrent.
        if self._stream is None or "halves" in options:
            self._stream = denoisers.stream(self.method.name, **options)
        return self._stream


def frame_seed(seed: int, frame: int) -> int:
    """Return the seed of a frame's render: frames, and repetitions, are independent."""
    sequence = np.random.SeedSequence(seed, spawn_key=(frame,))
    return int(sequence.generate_state(1)[0]) >> 1
