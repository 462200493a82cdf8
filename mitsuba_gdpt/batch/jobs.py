"""From the axes of a batch to its jobs."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mitsuba_gdpt import checks, denoisers, execution, records
from mitsuba_gdpt.batch.spec import AXES, SUFFIX, Batch, Override
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.data.frame_plan import CameraSequence, catalogue_sequence
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.provenance import content, fingerprint
from mitsuba_gdpt.rendering.fly_through import find_scene
from mitsuba_gdpt.rendering.sequence import over_frames
from mitsuba_gdpt.rendering.sequence_folder import frame_path
from mitsuba_gdpt.scenes import SceneRef

#: Header attribute of the EXR files: stops that suit the scene, before those of the job.
EXPOSURE = "exposure_stops"
#: Key of the record: fingerprint of what decides on the render.
RENDER = "render_key"
#: Larger products are taken for mistakes.
MOST_JOBS = 100_000


@dataclass(frozen=True)
class Job:
    """One combination, overrides applied.

    Attributes:
        scene: Label.
        sensor: Index.
        integrator: Label.
        spp: Samples per pixel, or None.
        seconds: Of rendering and reconstruction, where ``spp`` is None.
        seed: Seed.
        denoiser: Label.
        fly_through: Frames of a sequence; None for an image.
        span: Part of the fly-through that they cover.
        output: The EXR file, or the folder of a sequence.
        variant: Mitsuba variant.
        source: Path of an XML file, or ``builtin:NAME``.
        parameters: Values for ``$name`` parameters.
        width: Image width in pixels or None.
        height: Image height in pixels or None.
        settings: Parameters of ``gdpt``.
        call: Reconstruction method with its options.
        reference: EXR files: none, one or two halves.
        metrics: Names of metrics.
        exposure: Stops.
        png: Whether to write a PNG.
    """

    scene: str
    sensor: int
    integrator: str
    spp: int | None
    seconds: float | None
    seed: int
    denoiser: str
    fly_through: int | None
    span: tuple[float, float]
    output: Path
    variant: str
    source: str
    parameters: Mapping[str, str]
    width: int | None
    height: int | None
    settings: Mapping[str, Any]
    call: denoisers.Call
    reference: tuple[str, ...]
    metrics: tuple[str, ...]
    exposure: float
    png: bool

    @property
    def label(self) -> str:
        """The labels in one line."""
        return (
            f"{self.scene} sensor {self.sensor}, {self.integrator}, {self.amount}, "
            f"seed {self.seed}, {self.denoiser}"
        )

    @property
    def amount(self) -> str:
        """Samples or time, with the unit."""
        return f"{self.spp} spp" if self.seconds is None else f"{self.seconds:g} s"

    @property
    def buffers(self) -> tuple[Path, ...]:
        """The EXR files: one, or one per frame."""
        if self.fly_through is None:
            return (self.output,)
        return tuple(frame_path(self.output, number) for number in range(self.fly_through))

    @property
    def shown(self) -> Path:
        """The EXR file that stands for the job: that of the frame in the middle of a sequence."""
        return self.buffers[len(self.buffers) // 2]

    @property
    def cell(self) -> execution.Cell:
        """Its place in the store: the record has settings, times and metrics."""
        stem = self.output.name.removesuffix(SUFFIX)
        record = self.output.with_name(f"{stem}.json")
        return execution.Cell(f"{self.scene}, {self.denoiser}", record, self.settings_key)

    @property
    def pictures(self) -> tuple[Path, ...]:
        """The files of the job but for its record, which is written last."""
        pngs = (path.with_suffix(".png") for path in self.buffers)
        return (*self.buffers, *(pngs if self.png else ()))

    @functools.cached_property
    def shot(self) -> CameraSequence:
        """The frames of a sequence, as the catalogue of its scene has them.

        Raises:
            FormatError: There is no such catalogue, or it is no TOML.
            ConfigError: The scene has no fly-through.
        """
        assert self.fly_through is not None
        return _shot(self.source, self.fly_through, self.span)

    @functools.cached_property
    def scene_key(self) -> str:
        """Fingerprint of the loaded scene: equal ones need not be loaded again."""
        source, parameters = self.source, self.parameters
        if self.fly_through is not None:
            source, parameters = self.shot.source, {**self.shot.parameters, **parameters}
        return fingerprint(
            self.variant,
            self.source,
            dict(self.parameters),
            self.width,
            self.height,
            _contents(source, tuple(sorted(parameters.items()))),
        )

    @functools.cached_property
    def render_key(self) -> str:
        """Fingerprint of the render: jobs that have it in common share one."""
        amount: tuple[Any, ...] = (self.spp,)
        if self.seconds is not None:  # the reconstruction has its part of the time
            amount = (self.seconds, str(self.call))
        if self.fly_through is not None:  # rendered and reconstructed in one
            amount = (self.spp, self.seconds, str(self.call), asdict(self.shot))
        return fingerprint(self.scene_key, self.sensor, *amount, self.seed, dict(self.settings))

    @functools.cached_property
    def settings_key(self) -> str:
        """Fingerprint of all that decides on the files of the job."""
        references = [content(path) for path in self.reference]
        return fingerprint(
            self.render_key,
            str(self.call),
            list(self.reference),
            references,
            list(self.metrics) if self.reference else [],
            self.exposure,
            self.png,
        )

    def is_done(self) -> bool:
        """Tell whether all files are there, whole, and made with these settings."""
        return self.cell.kept() is not None

    def has_render(self) -> bool:
        """Tell whether the file holds buffers that this job would render, whatever became of it."""
        record = records.read(self.cell.record) or {}
        if record.get(RENDER) != self.render_key:
            return False
        return replace(self.cell, fingerprint=str(record.get("fingerprint"))).kept() is not None


def expand(batch: Batch, variant: str) -> tuple[Job, ...]:
    """Return the jobs of a batch, in the order in which they are listed.

    Args:
        batch: The axes.
        variant: Mitsuba variant that is going to render.

    Raises:
        ConfigError: There are absurdly many, one would write outside the output folder, two would
            write the same file, or an override matches no job.
    """
    count = math.prod(len(axis) for axis in _axes(batch))
    if count > MOST_JOBS:
        raise ConfigError(f"got a batch of {count} jobs; expected at most {MOST_JOBS}")
    _shot.cache_clear()  # files may have changed
    _contents.cache_clear()
    used: set[int] = set()
    jobs = tuple(_jobs(batch, variant, used))
    for number, override in enumerate(batch.overrides):
        if number not in used:
            raise ConfigError(
                f"override number {number + 1} matches no job: {dict(override.match)}; "
                "its values have to be labels or numbers of this batch"
            )
    if not jobs:
        raise ConfigError("nothing is left to do: every job is skipped by an override")
    writers: dict[Path, Job] = {}
    for job in jobs:
        other = writers.setdefault(job.output, job)
        if other is not job:
            raise ConfigError(
                f"two jobs would write {job.output}: {other.label}; {job.label}. Put what tells "
                "them apart into the template 'name'"
            )
    for job in jobs:
        for folder in job.output.parents:
            if writer := writers.get(folder):
                raise ConfigError(
                    f"{folder} would be the result of one job ({writer.label}) and the folder of "
                    f"another ({job.label}); change the template 'name'"
                )
    return jobs


@functools.lru_cache  # of all jobs of a scene the same
def _shot(source: str, frames: int, span: tuple[float, float]) -> CameraSequence:
    return catalogue_sequence(find_scene(source), frames, span=span, split="test")


@functools.lru_cache
def _contents(source: str, parameters: tuple[tuple[str, str], ...]) -> str:
    return SceneRef.parse(source).contents(dict(parameters)).key


def _recorded(settings: Mapping[str, Any]) -> Layout | None:
    """Return what a render with these settings holds, None for everything."""
    if settings.get("shifts") == 0:
        return denoisers.without_gradients(Layout.make())
    return None


def _axes(batch: Batch) -> tuple[Sequence[Any], ...]:
    return (
        batch.scenes,
        batch.sensors,
        batch.integrators,
        batch.amounts,
        batch.seeds,
        tuple(batch.calls.items()),
    )


def _jobs(batch: Batch, variant: str, used: set[int]) -> Iterator[Job]:
    for scene, sensor, integrator, amount, seed, (label, named) in itertools.product(*_axes(batch)):
        call = named or denoisers.default_call(_recorded(integrator.settings))
        if named is None and batch.fly_through is not None:
            call = over_frames(call)
        labels: dict[str, Any] = dict(
            zip(
                AXES,
                (scene.name, sensor, integrator.name, *amount, seed, label or call.method),
                strict=True,
            )
        )
        try:
            name = batch.name.format(**labels)
        except (ValueError, LookupError, AttributeError) as error:
            raise ConfigError(f"name: {batch.name!r} does not fit {labels}: {error}") from error
        checks.relative_path(f"name {batch.name!r}", name)
        if batch.fly_through is None and not name.endswith(SUFFIX):
            raise ConfigError(
                f"name: {batch.name!r} gives {name!r}; expected one that ends in {SUFFIX}"
            )
        job: Job | None = Job(
            **labels,
            fly_through=batch.fly_through,
            span=batch.span,
            output=batch.output / name,
            variant=variant,
            source=scene.source,
            parameters=dict(scene.parameters),
            width=batch.width,
            height=batch.height,
            settings=dict(integrator.settings),
            call=call,
            reference=scene.reference,
            metrics=batch.metrics,
            exposure=batch.exposure,
            png=batch.png,
        )
        for number, override in enumerate(batch.overrides):
            if override.matches(labels):
                used.add(number)
                job = job and _apply(override, job)
        if job is not None:
            yield job


def _apply(override: Override, job: Job) -> Job | None:
    values = dict(override.values)
    if values.pop("skip", False):
        return None
    if "options" in values:
        values["call"] = job.call.with_options(values.pop("options"))
    for key, value in values.items():
        if isinstance(value, Mapping):
            values[key] = {**getattr(job, key), **value}
    return replace(job, **values)


def describe(job: Job) -> dict[str, Any]:
    """Return the fields of a job as JSON can hold them; ``call`` is called ``method``."""
    values = {**asdict(job), "method": job.call}
    del values["call"]
    return {key: str(v) if isinstance(v, Path | denoisers.Call) else v for key, v in values.items()}
