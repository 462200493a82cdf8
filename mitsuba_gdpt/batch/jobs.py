"""From the axes of a batch to its jobs."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mitsuba_gdpt import denoisers, exr
from mitsuba_gdpt._version import __version__
from mitsuba_gdpt.batch.spec import AXES, Batch, Override
from mitsuba_gdpt.errors import ConfigError, FormatError
from mitsuba_gdpt.rendering import BUILTIN

#: Header attributes of the EXR files: fingerprints of all settings, and of those of the render.
SETTINGS, RENDER = "batch.settings", "batch.render"
#: Header attribute: stops that suit the scene, before those of the job.
EXPOSURE = "batch.scene_exposure"


@dataclass(frozen=True)
class Job:
    """One combination, overrides applied.

    Attributes:
        scene: Label.
        sensor: Index.
        integrator: Label.
        spp: Samples per pixel.
        seed: Seed.
        denoiser: Label.
        output: The EXR file.
        variant: Mitsuba variant.
        source: Path of an XML file, or ``builtin:NAME``.
        parameters: Values for ``$name`` parameters.
        width: Image width in pixels or None.
        height: Image height in pixels or None.
        settings: Parameters of ``gdpt``.
        method: Reconstruction method.
        options: Its options.
        reference: EXR files: none, one or two halves.
        metrics: Names of metrics.
        exposure: Stops.
        png: Whether to write a PNG.
    """

    scene: str
    sensor: int
    integrator: str
    spp: int
    seed: int
    denoiser: str
    output: Path
    variant: str
    source: str
    parameters: Mapping[str, str]
    width: int | None
    height: int | None
    settings: Mapping[str, Any]
    method: str
    options: Mapping[str, Any]
    reference: tuple[str, ...]
    metrics: tuple[str, ...]
    exposure: float
    png: bool

    @property
    def label(self) -> str:
        """The six labels in one line."""
        return (
            f"{self.scene} sensor {self.sensor}, {self.integrator}, {self.spp} spp, "
            f"seed {self.seed}, {self.denoiser}"
        )

    @property
    def png_path(self) -> Path:
        """Where the picture goes."""
        return self.output.with_suffix(".png")

    @property
    def metrics_path(self) -> Path:
        """Where the metrics go."""
        return self.output.with_suffix(".json")

    @property
    def products(self) -> tuple[Path, ...]:
        """All files of the job; the EXR is written last."""
        wanted = (
            (self.png_path, self.png),
            (self.metrics_path, bool(self.reference)),
            (self.output, True),
        )
        return tuple(path for path, is_wanted in wanted if is_wanted)

    @cached_property
    def scene_key(self) -> str:
        """Fingerprint of the loaded scene: equal ones need not be loaded again."""
        keys = ("variant", "source", "parameters", "width", "height")
        content = {key: getattr(self, key) for key in keys}
        return _fingerprint({**content, "file": _content(self.source), "version": __version__})

    @cached_property
    def render_key(self) -> str:
        """Fingerprint of the render: jobs that have it in common share one."""
        keys = ("sensor", "spp", "seed", "settings")
        return _fingerprint({**{key: getattr(self, key) for key in keys}, "scene": self.scene_key})

    @cached_property
    def settings_key(self) -> str:
        """Fingerprint of all that decides on the files of the job."""
        keys = ("method", "options", "reference", "metrics", "exposure", "png")
        content = {key: getattr(self, key) for key in keys}
        if not self.reference:
            del content["metrics"]
        references = [_stamp(path) for path in self.reference]
        return _fingerprint({**content, "render": self.render_key, "references": references})

    def is_done(self) -> bool:
        """Tell whether all files are there, made with these settings."""
        return (
            all(path.is_file() for path in self.products)
            and recorded(self.output, SETTINGS) == self.settings_key
        )


def expand(batch: Batch, variant: str) -> tuple[Job, ...]:
    """Return the jobs of a batch, in the order in which they are listed.

    Args:
        batch: The axes.
        variant: Mitsuba variant that is going to render.

    Raises:
        ConfigError: Two jobs would write the same file, or an override matches no job.
    """
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
    return jobs


def _jobs(batch: Batch, variant: str, used: set[int]) -> Iterator[Job]:
    axes = (
        batch.scenes,
        batch.sensors,
        batch.integrators,
        batch.spp,
        batch.seeds,
        batch.denoisers,
    )
    for scene, sensor, integrator, spp, seed, denoiser in itertools.product(*axes):
        method = denoiser.method or denoisers.default_method().name
        label = denoiser.name or method
        labels: dict[str, Any] = dict(
            zip(AXES, (scene.name, sensor, integrator.name, spp, seed, label), strict=True)
        )
        try:
            name = batch.name.format(**labels)
        except ValueError as error:
            raise ConfigError(f"name: {batch.name!r} does not fit {labels}: {error}") from error
        job: Job | None = Job(
            **labels,
            output=batch.output / name,
            variant=variant,
            source=scene.source,
            parameters=dict(scene.parameters),
            width=batch.width,
            height=batch.height,
            settings=dict(integrator.settings),
            method=method,
            options=dict(denoiser.options),
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
    for key, value in values.items():
        if isinstance(value, Mapping):
            values[key] = {**getattr(job, key), **value}
    return replace(job, **values)


def recorded(path: Path, attribute: str) -> str | None:
    """Return a header attribute of an EXR file; None if there is no such file or attribute."""
    try:
        return exr.read_metadata(path).get(attribute)
    except FormatError:
        return None


def describe(job: Job) -> dict[str, Any]:
    """Return the fields of a job as JSON can hold them."""
    return {key: str(v) if isinstance(v, Path) else v for key, v in asdict(job).items()}


def _fingerprint(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _content(source: str) -> str:
    """Fingerprint of a scene file; textures and meshes beside it are not looked at."""
    if source.startswith(BUILTIN):
        return ""
    try:
        return hashlib.sha256(Path(source).read_bytes()).hexdigest()
    except OSError:
        return "missing"


def _stamp(path: str) -> tuple[int, int] | None:
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
