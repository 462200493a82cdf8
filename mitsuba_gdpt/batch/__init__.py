"""Batches: the product of scenes, sensors, integrator settings, spp, seeds and denoisers.

    spec = batch.Batch.from_toml("jobs.toml")
    result = batch.run(spec, cluster=ClusterOptions(workers=4))

Every combination is a :class:`Job` with one multi-layer EXR, a PNG and, where there is a
reference, a JSON file of metrics. Jobs that differ only in what happens after rendering share one
render. Jobs whose files are there, made with the same settings, are skipped, so the same call
goes on after a crash. See docs/how-to/batch.md.
"""

from __future__ import annotations

from mitsuba_gdpt.batch.jobs import Job, expand
from mitsuba_gdpt.batch.runner import Result, run, validate
from mitsuba_gdpt.batch.spec import Batch, IntegratorChoice, Override, SceneChoice

__all__ = [
    "Batch",
    "IntegratorChoice",
    "Job",
    "Override",
    "Result",
    "SceneChoice",
    "expand",
    "run",
    "validate",
]
