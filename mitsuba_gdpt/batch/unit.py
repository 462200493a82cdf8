"""One render and all jobs that are made from it."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt import execution, exr, provenance, rendering
from mitsuba_gdpt._version import __version__
from mitsuba_gdpt.batch.jobs import EXPOSURE, RENDER, Job, describe
from mitsuba_gdpt.rendering.fly_through import find_scene
from mitsuba_gdpt.rendering.sequence_folder import forget, holds

if TYPE_CHECKING:
    import torch

    from mitsuba_gdpt.buffers import FrameBuffers


@dataclass(frozen=True)
class RenderUnit(execution.CellUnit):
    """Renders once and reconstructs for each job.

    Attributes:
        jobs: Have the same ``render_key``.
    """

    jobs: tuple[Job, ...]

    @property
    def key(self) -> str:
        """Labels for people, fingerprint for uniqueness."""
        job = self.jobs[0]
        labels = f"{job.scene}-{job.sensor}-{job.integrator}-{job.amount}-{job.seed}".replace(
            " ", ""
        )
        return f"{labels}-{job.render_key[:8]}"

    @property
    def cells(self) -> list[execution.Cell]:
        """One per job."""
        return [job.cell for job in self.jobs]

    def make(self, missing: Sequence[execution.Cell]) -> dict[str, str]:
        """Render, or take the buffers from a job that has them, and do the jobs that are left.

        Raises:
            GDPTError: The scene cannot be rendered.
        """
        todo = [job for job in self.jobs if job.cell in missing]
        rendered = self._recorded()
        source = self._source() if rendered is None else None
        if source is not None:
            width, height = source.size(self.jobs[0].sensor)
        else:
            assert rendered is not None
            width, height = rendered.buffers.width, rendered.buffers.height
        errors: dict[str, str] = {}
        work = []
        for job in todo:
            with execution.collecting(errors, job.cell.name):
                work.append((job, _load_reference(job, width, height)))
        if work and rendered is None:
            assert source is not None
            rendered = self._render(source)
        for job, reference in work:
            assert rendered is not None
            with execution.collecting(errors, job.cell.name):
                _finish(job, rendered, reference)
        return errors

    def _recorded(self) -> _Rendered | None:
        """Read the buffers from the file of a job that has been done before, if there is one."""
        from mitsuba_gdpt.buffers import FrameBuffers

        for job in self.jobs:
            if job.has_render():
                buffers = FrameBuffers.from_exr(job.output)
                exposure = float(buffers.metadata[EXPOSURE])
                return _Rendered(buffers, exposure, float(buffers.metadata["render_seconds"]))
        return None

    def _source(self) -> rendering.Source:
        job = self.jobs[0]
        parameters = tuple(job.parameters.items())
        return _open(job.scene_key, job.source, job.width, job.height, parameters)

    def _render(self, source: rendering.Source) -> _Rendered:
        import drjit as dr

        job = self.jobs[0]
        settings = {**source.integrator, **job.settings}
        if job.seconds is not None:
            done = rendering.BudgetedRender(
                source,
                settings,
                rendering.Budget(job.seconds),
                seed=job.seed,
                sensor=job.sensor,
                method=job.call,
            ).run()
            if done.interrupted:  # what Ctrl-C left is no result
                raise KeyboardInterrupt
            return _Rendered(done.buffers, math.log2(source.exposure), done.seconds["render"])
        assert job.spp is not None
        integrator = rendering.make_integrator(settings)
        start = time.perf_counter()
        buffers = rendering.render(
            source, integrator, spp=job.spp, seed=job.seed, sensor=job.sensor
        )
        dr.sync_thread()  # a GPU works in the background: wait for it here
        seconds = time.perf_counter() - start
        return _Rendered(buffers, math.log2(source.exposure), seconds)


@dataclass(frozen=True)
class _Rendered:
    """Attributes: buffers; stops that suit the scene; seconds that the render took."""

    buffers: FrameBuffers
    exposure: float
    seconds: float


@dataclass(frozen=True)
class SequenceUnit(RenderUnit):
    """Renders and reconstructs a sequence for each job, in the folder of the job."""

    def make(self, missing: Sequence[execution.Cell]) -> dict[str, str]:
        """Go on where an earlier run of a job was killed, or begin.

        Raises:
            KeyboardInterrupt: Ctrl-C.
        """
        errors: dict[str, str] = {}
        for job in self.jobs:
            if job.cell in missing:
                with execution.collecting(errors, job.cell.name):
                    _make_sequence(job)
        return errors


def _make_sequence(job: Job) -> None:
    """Make the frames of a job, and its record."""
    shot = job.shot
    scene = find_scene(job.source)
    parameters = {**shot.parameters, **job.parameters}
    source = _open(
        job.scene_key, shot.source, job.width, job.height, tuple(sorted(parameters.items()))
    )
    width, height = (int(side) for side in source.sensor(0).film().size())
    depth = {} if shot.max_depth is None else {"max_depth": shot.max_depth}
    stops = math.log2(scene.exposure)
    described = {**_described(job), RENDER: job.render_key, EXPOSURE: str(stops)}
    record = job.cell.record
    if not holds(job.output, described) or (record.exists() and not job.has_render()):
        forget(job.output)
    record.unlink(missing_ok=True)  # killed from here on, it goes on with what is there

    def picture(number: int, image: torch.Tensor) -> None:
        path = job.buffers[number].with_suffix(".png")
        exr.write_png(path, image.cpu(), exposure=stops + job.exposure)

    done = rendering.SequenceRender(
        source,
        shot.cameras,
        job.output,
        {**source.integrator, **depth, **job.settings},
        rendering.Budget(job.seconds, job.spp),
        size=(width, height),
        seed=job.seed,
        method=job.call,
        on_frame=picture if job.png else None,
        described=described,
    ).run()
    if done.interrupted:  # what Ctrl-C left is no result
        raise KeyboardInterrupt
    report = {
        "job": describe(job),
        **{f"{part}_seconds": seconds for part, seconds in done.seconds.items()},
        "spp": list(done.spp),
        RENDER: job.render_key,
    }
    job.cell.keep(report, job.pictures)


def group(jobs: Sequence[Job]) -> list[RenderUnit]:
    """Group jobs by render, renders of one scene next to each other.

    A process that works on units in this order loads each scene once.
    """
    scenes: dict[str, dict[str, list[Job]]] = {}
    for job in jobs:
        scenes.setdefault(job.scene_key, {}).setdefault(job.render_key, []).append(job)
    return [
        (RenderUnit if members[0].fly_through is None else SequenceUnit)(tuple(members))
        for renders in scenes.values()
        for members in renders.values()
    ]


def forget_scenes() -> None:
    """Free the scene that this process has kept."""
    _open.cache_clear()


@functools.lru_cache(maxsize=1)  # one scene: they can be large
def _open(
    scene_key: str,
    source: str,
    width: int | None,
    height: int | None,
    parameters: tuple[tuple[str, str], ...],
) -> rendering.Source:
    """Load a scene; the key tells files that have changed, and variants, apart."""
    return rendering.open_source(source, width=width, height=height, parameters=dict(parameters))


def _load_reference(job: Job, width: int, height: int) -> Any:
    """Read the reference of a job, if it has one, and see whether it fits the render."""
    if not job.reference:
        return None
    from mitsuba_gdpt import references

    return references.load(job.reference, width, height)


def _described(job: Job) -> dict[str, str]:
    """Return what headers say of every job."""
    return {
        "version": __version__,
        "variant": job.variant,
        "scene": job.source,
        "method": str(job.call),
        "sources": provenance.sources(),
    }


def _finish(job: Job, rendered: _Rendered, reference: Any) -> None:
    """Reconstruct and write the files of one job; the record, which tells that it is done, last."""
    from mitsuba_gdpt import denoisers

    job.output.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    image = denoisers.denoise(rendered.buffers, job.call).cpu()
    denoise_seconds = time.perf_counter() - start
    if job.png:
        exr.write_png(
            job.output.with_suffix(".png"), image, exposure=rendered.exposure + job.exposure
        )
    metadata = {
        **_described(job),
        "sensor": job.sensor,
        "render_seconds": rendered.seconds,
        "denoise_seconds": denoise_seconds,
        EXPOSURE: rendered.exposure,
    }
    rendered.buffers.to_exr(job.output, image=image, metadata=metadata)
    report = {
        "job": describe(job),
        "render_seconds": rendered.seconds,
        "denoise_seconds": denoise_seconds,
        **_measure(job, image, reference),
        RENDER: job.render_key,
    }
    job.cell.keep(report, job.pictures)


def _measure(job: Job, image: torch.Tensor, reference: Any) -> dict[str, dict[str, float | None]]:
    """Return the errors by metric, and of those that are estimates the standard errors."""
    from mitsuba_gdpt import metrics

    values: dict[str, float | None] = {}
    errors: dict[str, float | None] = {}
    for name in job.metrics if reference is not None else ():
        metric = metrics.find(name)
        # Reconstructions may be slightly negative.
        value = metric(metrics.displayable(image) if metric.nonnegative else image, reference)
        # Infinite is the PSNR of identical images.
        values[name] = value.value if math.isfinite(value.value) else None
        if value.standard_error is not None:
            errors[name] = value.standard_error
    return {"metrics": values, "standard_errors": errors}
