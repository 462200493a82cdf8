"""One render and all jobs that are made from it."""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt import exr, rendering
from mitsuba_gdpt._version import __version__
from mitsuba_gdpt.batch import jobs as records
from mitsuba_gdpt.batch.jobs import Job
from mitsuba_gdpt.errors import ConfigError, GDPTError
from mitsuba_gdpt.files import replace_text

if TYPE_CHECKING:
    import torch

    from mitsuba_gdpt.buffers import FrameBuffers


@dataclass(frozen=True)
class RenderUnit:
    """Renders once and reconstructs for each job; see :class:`mitsuba_gdpt.execution.Unit`.

    Attributes:
        jobs: Have the same ``render_key``.
    """

    jobs: tuple[Job, ...]

    @property
    def key(self) -> str:
        """Labels for people, fingerprint for uniqueness."""
        job = self.jobs[0]
        labels = f"{job.scene}-{job.sensor}-{job.integrator}-{job.spp}spp-{job.seed}"
        return f"{labels}-{job.render_key[:8]}"

    def is_done(self) -> bool:
        """Tell whether all jobs are."""
        return all(job.is_done() for job in self.jobs)

    def run(self) -> None:
        """Render, or take the buffers from a job that has them, and do the jobs that are left.

        Raises:
            GDPTError: The scene cannot be rendered, or jobs failed; the message names them.
        """
        todo = [job for job in self.jobs if not job.is_done()]
        references = {job.reference: _load_reference(job) for job in todo if job.reference}
        buffers, exposure, seconds = self._buffers(references)
        errors = {}
        for job in todo:
            try:
                _finish(job, buffers, references.get(job.reference), exposure, seconds)
            except (GDPTError, ArithmeticError, RuntimeError) as error:
                errors[job.denoiser] = " ".join(str(error).split())
        if errors:
            raise JobsError(errors)

    def _buffers(self, references: dict[tuple[str, ...], Any]) -> tuple[FrameBuffers, float, float]:
        """Return buffers, stops that suit the scene, and the seconds that rendering took."""
        import drjit as dr

        from mitsuba_gdpt.buffers import FrameBuffers

        job = self.jobs[0]
        for other in self.jobs:
            if records.recorded(other.output, records.RENDER) == job.render_key:
                buffers = FrameBuffers.from_exr(other.output)
                metadata = buffers.metadata
                exposure = float(metadata[records.EXPOSURE])
                return buffers, exposure, float(metadata["render_seconds"])
        source = _open(
            job.scene_key, job.source, job.width, job.height, tuple(job.parameters.items())
        )
        size = tuple(source.sensor(job.sensor).film().size())
        for paths, reference in references.items():
            if (other_size := tuple(reference.mean.shape[1::-1])) != size:
                raise ConfigError(
                    f"{paths[0]}: the reference has {other_size[0]}x{other_size[1]} pixels, the "
                    f"render {size[0]}x{size[1]}; set width and height"
                )
        integrator = rendering.make_integrator({**source.integrator, **job.settings})
        start = time.perf_counter()
        buffers = rendering.render(
            source, integrator, spp=job.spp, seed=job.seed, sensor=job.sensor
        )
        dr.sync_thread()  # a GPU works in the background: wait for it here
        seconds = time.perf_counter() - start
        buffers.metadata["integrator"] = " ".join(str(integrator).split())
        return buffers, math.log2(source.exposure), seconds


class JobsError(GDPTError, RuntimeError):
    """Some jobs of a render failed, after it was rendered.

    Attributes:
        errors: Label of the denoiser to one line.
    """

    def __init__(self, errors: dict[str, str]) -> None:
        """Collect the errors of jobs."""
        super().__init__("; ".join(f"{label}: {text}" for label, text in errors.items()))
        self.errors = errors

    def __reduce__(self) -> Any:  # exceptions are pickled by their args
        return type(self), (self.errors,)


def group(jobs: Sequence[Job]) -> list[RenderUnit]:
    """Group jobs by render, renders of one scene next to each other.

    A process that works on units in this order loads each scene once.
    """
    scenes: dict[str, dict[str, list[Job]]] = {}
    for job in jobs:
        scenes.setdefault(job.scene_key, {}).setdefault(job.render_key, []).append(job)
    return [
        RenderUnit(tuple(members)) for renders in scenes.values() for members in renders.values()
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


def _load_reference(job: Job) -> Any:
    import torch

    from mitsuba_gdpt import metrics

    return metrics.Reference(*(torch.from_numpy(exr.read_image(path)) for path in job.reference))


def _finish(
    job: Job, buffers: FrameBuffers, reference: Any, exposure: float, seconds: float
) -> None:
    """Reconstruct and write the files of one job; the EXR, which tells that it is done, last."""
    from mitsuba_gdpt import denoisers

    job.output.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    image = denoisers.denoise(buffers, job.method, **job.options).cpu()
    denoise_seconds = time.perf_counter() - start
    if job.png:
        exr.write_png(job.png_path, image, exposure=exposure + job.exposure)
    if reference is not None:
        report = {
            "job": records.describe(job),
            "seconds": {"render": seconds, "denoise": denoise_seconds},
            "metrics": _measure(job, image, reference),
            "settings": job.settings_key,
        }
        replace_text(job.metrics_path, json.dumps(report, indent=2) + "\n")
    metadata = {
        "version": __version__,
        "variant": job.variant,
        "scene": job.source,
        "sensor": job.sensor,
        "spp": job.spp,
        "seed": job.seed,
        "denoiser": job.method,
        "denoiser_options": json.dumps(dict(job.options), sort_keys=True),
        "render_seconds": seconds,
        "denoise_seconds": denoise_seconds,
        records.EXPOSURE: exposure,
        records.RENDER: job.render_key,
        records.SETTINGS: job.settings_key,
    }
    buffers.to_exr(job.output, image=image, metadata=metadata)


def _measure(job: Job, image: torch.Tensor, reference: Any) -> dict[str, dict[str, float | None]]:
    from mitsuba_gdpt import metrics

    result = {}
    for name in job.metrics:
        metric = metrics.find(name)
        # Reconstructions may be slightly negative.
        value = metric(metrics.displayable(image) if metric.nonnegative else image, reference)
        number = value.value if math.isfinite(value.value) else None  # PSNR of identical images
        result[name] = {"value": number, "standard_error": value.standard_error}
    return result
