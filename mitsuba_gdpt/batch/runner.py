"""Check a batch, run it, show what came of it."""

from __future__ import annotations

import json
import os
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt import (
    denoisers,
    execution,
    exr,
    metrics,
    packages,
    records,
    rendering,
    report,
)
from mitsuba_gdpt.batch.jobs import EXPOSURE, Job, expand
from mitsuba_gdpt.batch.spec import Batch
from mitsuba_gdpt.batch.unit import RenderUnit, forget_scenes, group
from mitsuba_gdpt.data.workers import with_variant
from mitsuba_gdpt.errors import ConfigError, GDPTError, VariantError
from mitsuba_gdpt.scenes import SceneRef

if TYPE_CHECKING:
    from mitsuba_gdpt.channels import Layout

GALLERY = "gallery.html"


@dataclass(frozen=True)
class Result:
    """What a batch left behind.

    Attributes:
        jobs: All jobs.
        summary: Counts renders, not jobs: one may serve several denoisers.
        failed: EXR path or folder of each job that is not done, with its error in one line.
        gallery: The page, if one was wanted.
    """

    jobs: tuple[Job, ...]
    summary: execution.Summary
    failed: Mapping[Path, str]
    gallery: Path | None


def run(batch: Batch, *, cluster: execution.ClusterOptions | None = None) -> Result:
    """Do the jobs of a batch that are not done yet, and write the gallery.

    A Mitsuba variant has to be set; workers use the same.

    Args:
        batch: What to do.
        cluster: Where; by default in this process. Without a ``setup`` of its own, workers set the
            variant of this process.

    Raises:
        GDPTError: As for :func:`validate`; jobs that fail are in the result instead.
        Interrupted: Ctrl-C.
    """
    jobs = validate(batch)
    batch.output.mkdir(parents=True, exist_ok=True)
    units = group(jobs)
    try:
        summary = execution.run(units, cluster=with_variant(cluster), description="batch")
    finally:
        forget_scenes()
    failed = dict(_failures(units, summary))
    page = None
    if batch.gallery:
        page = batch.output / GALLERY
        told = captions(jobs)
        items = [
            _item(job, caption, failed.get(job.output), page.parent)
            for job, caption in zip(jobs, told, strict=True)
        ]
        renders = f"{len(jobs)} {batch.things} from {len(units)} renders, {len(failed)} failed"
        report.write_gallery(report.Gallery(batch.title, items, subtitle=renders), page)
    return Result(jobs, summary, failed, page)


def validate(batch: Batch) -> tuple[Job, ...]:
    """Look for everything that can be wrong before a scene is loaded, and return the jobs.

    Raises:
        VariantError: No Mitsuba variant is set.
        ConfigError: A name is unknown, names collide, or settings of the integrator or a denoiser
            make no sense.
        FormatError: A scene or a reference is missing.
        MissingDependencyError: A denoiser, a metric or the gallery needs a package.
    """
    import mitsuba as mi

    if mi.variant() is None:
        raise VariantError(
            "no Mitsuba variant is set; call mi.set_variant('llvm_ad_rgb') or another one first"
        )
    if batch.gallery:
        packages.check("jinja2", "batch")
    jobs = expand(batch, mi.variant())
    for name in batch.metrics:
        metrics.find(name)
    layouts: dict[str, Layout] = {}
    checked: set[tuple[denoisers.Call, str]] = set()
    read: set[str] = set()
    from mitsuba_gdpt.references import images  # brings torch

    for job in jobs:
        _check_scene(job)
        _check_output(job)
        settings = json.dumps(dict(job.settings), sort_keys=True)
        if settings not in layouts:
            with _blaming(f"integrator {job.integrator!r}"):
                layouts[settings] = rendering.make_integrator(job.settings).layout
        if (job.call, settings) not in checked:
            checked.add((job.call, settings))
            with _blaming(f"denoiser {job.denoiser!r}"):
                denoisers.check_method(job.call, {}, layouts[settings])
        for name in job.metrics if job.reference else ():
            if (obstacle := metrics.find(name).obstacle()) is not None:
                raise obstacle
        for path in set(job.reference) - read:
            images(path)  # all of it: a file that was cut short has a good head
            read.add(path)
    return jobs


class _blaming:  # noqa: N801  (a context manager, used like a function)
    """Put the label of an entry before the message of an error."""

    def __init__(self, label: str) -> None:
        self.label = label

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, GDPTError):
            raise type(error)(f"{self.label}: {error}") from error


def _check_scene(job: Job) -> None:
    reference = SceneRef.parse(job.source)
    with _blaming(f"scene {job.scene!r}"):
        reference.check()
        if job.fly_through is not None:
            _ = job.shot  # raises where there is no fly-through
    if reference.is_builtin and job.parameters:
        raise ConfigError(
            f"scene {job.scene!r}: built-in scenes take no parameters, "
            f"got {', '.join(job.parameters)}"
        )


def _check_output(job: Job) -> None:
    """Look for what is in the way of a job's files."""
    for path in (*job.pictures, job.cell.record):
        if path.is_dir():
            raise ConfigError(f"{path}: there is a folder of that name; expected a file or nothing")
    for parent in job.shown.parents:
        if parent.exists():
            if not parent.is_dir():
                raise ConfigError(f"{parent}: there is a file of that name; expected a folder")
            if not os.access(parent, os.W_OK):
                raise ConfigError(f"{parent}: this folder cannot be written")
            return


def _failures(units: list[RenderUnit], summary: execution.Summary) -> Iterator[tuple[Path, str]]:
    for unit in units:
        if (error := summary.failed.get(unit.key)) is None:
            continue
        for job in unit.jobs:
            if not job.is_done():
                yield job.output, error


def captions(jobs: Sequence[Job]) -> list[str]:
    """Return what tells jobs apart besides scene and denoiser: what all have in common is left out.

    Where the label of a denoiser is not its method, the method is said.
    """
    axes = {
        "sensor": [f"sensor {job.sensor}" for job in jobs],
        "integrator": [job.integrator for job in jobs],
        "amount": [job.amount for job in jobs],
        "seed": [f"seed {job.seed}" for job in jobs],
    }
    told = [axis for name, axis in axes.items() if name == "amount" or len(set(axis)) > 1]
    methods = (str(job.call) for job in jobs)
    return [
        ", ".join(words if method == job.denoiser else (method, *words))
        for job, method, *words in zip(jobs, methods, *told, strict=True)
    ]


def _item(job: Job, caption: str, error: str | None, folder: Path) -> report.GalleryItem:
    """Make the tile of a job."""
    image: Any = None
    exposure = 0.0
    links: dict[str, str] = {}
    values: dict[str, float] = {}
    if error is None:
        if job.png:
            image = job.shown.with_suffix(".png")
        else:
            image = exr.read_image(job.shown, exr.DENOISED)
            exposure = job.exposure + float(exr.read_metadata(job.shown)[EXPOSURE])
        pictures = (path for path in job.pictures if path.stem == job.shown.stem)
        for path in (*pictures, job.cell.record):
            relative = Path(os.path.relpath(path, folder)).as_posix()
            links[path.suffix.removeprefix(".").upper()] = urllib.parse.quote(relative)
        measured = (records.read(job.cell.record) or {}).get("metrics", {})
        values = {
            metrics.find(name).label: value for name, value in measured.items() if value is not None
        }
    return report.GalleryItem(
        title=f"{job.scene}: {job.denoiser}",
        image=image,
        exposure=exposure,
        caption=caption,
        links=links,
        metrics=values,
        error=error,
    )
