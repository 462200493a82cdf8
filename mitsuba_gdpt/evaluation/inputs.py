"""What the methods of one cell are given: renders of equal cost in both domains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from mitsuba_gdpt import rendering
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import VARIANCE_SUFFIX, Layout
from mitsuba_gdpt.evaluation.settings import GRADIENT, PRIMAL, Settings

if TYPE_CHECKING:
    import mitsuba as mi

#: Distance between the seeds of two halves, beyond any number of repetitions.
_SECOND_HALF = 1 << 20


@dataclass(frozen=True)
class Inputs:
    """Buffers for the methods of one domain.

    Attributes:
        frame: The render.
        halves: Two independent renders whose sample-weighted mean is ``frame``, for methods that
            ask for them; None in the gradient domain and where there is only one sample.
    """

    frame: FrameBuffers
    halves: tuple[FrameBuffers, FrameBuffers] | None = None


def integrator(
    source: rendering.Source, settings: Settings, domain: str, *, bare: bool = False
) -> mi.Integrator:
    """Make the integrator of a domain.

    The primal domain is served by ``gdpt`` without offset paths, which is path tracing that
    records features from the hits it has: within a few percent of the time of ``path`` alone, and
    so the fastest such baseline there is (``aov`` around ``path`` takes 1.8 times as long). It
    also stratifies its samples and aims at the emitters that matter, unless ``settings.plain_path``
    says otherwise.

    Args:
        source: Scene.
        settings: Which methods have to be served.
        domain: ``GRADIENT`` or ``PRIMAL``.
        bare: Leave out variances and optional features.
    """
    parameters = {**source.integrator, **settings.gdpt, "max_depth": settings.max_depth}
    if domain == PRIMAL:
        better = not settings.plain_path
        parameters |= {"shifts": 0, "stratified": better, "emitter_importance": better}
    if not bare:
        parameters["features"] = ",".join(settings.features(domain))
        parameters["variances"] = settings.needs_variances(domain)
    return rendering.make_integrator(parameters)


def timed_integrators(
    source: rendering.Source, settings: Settings
) -> tuple[mi.Integrator, mi.Integrator]:
    """Make the integrators whose render times are compared, for gradients and without.

    The second is relieved of variances and optional features, which only some baselines read:
    they get them for nothing.
    """
    return integrator(source, settings, GRADIENT), integrator(source, settings, PRIMAL, bare=True)


def render_inputs(
    source: rendering.Source,
    settings: Settings,
    domain: str,
    *,
    spp: int,
    seed: int,
    sensor: int | mi.Sensor = 0,
) -> Inputs:
    """Render what the methods of a domain are given.

    Args:
        source: Scene.
        settings: Which methods have to be served.
        domain: ``GRADIENT``: one render of ``gdpt``. ``PRIMAL``: path tracing; in two halves and
            their mean if a method reads halves, which are each stratified on its own.
        spp: Samples per pixel, of both halves together.
        seed: Below 2^31: the second half has another one.
        sensor: What is rendered.
    """
    if domain == PRIMAL and (settings.needs_halves or spp == 1):
        return _render_halves(source, settings, spp, seed, sensor)
    tracer = integrator(source, settings, domain)
    return Inputs(rendering.render(source, tracer, spp=spp, seed=seed, sensor=sensor))


def _render_halves(
    source: rendering.Source, settings: Settings, spp: int, seed: int, sensor: int | mi.Sensor
) -> Inputs:
    tracer = integrator(source, settings, PRIMAL)
    layout = tracer.layout
    counts = (spp - spp // 2, spp // 2)
    if min(counts) < 2:  # one sample has no variance; merge() takes it from the two halves
        tracer.variances = False
    if spp == 1:
        return Inputs(rendering.render(source, tracer, spp=1, seed=seed, sensor=sensor))
    first, second = (
        rendering.render(source, tracer, spp=count, seed=seed + offset, sensor=sensor)
        for count, offset in zip(counts, (0, _SECOND_HALF), strict=True)
    )
    return Inputs(merge(first, second, counts, layout), (first, second))


def merge(
    a: FrameBuffers, b: FrameBuffers, counts: tuple[int, int], layout: Layout
) -> FrameBuffers:
    """Average two independent renders of the same view.

    Args:
        a: A render.
        b: Another of the same layout and size.
        counts: Their samples per pixel, the weights of the average.
        layout: Layout of the result: that of the halves, or that with variances added.

    Returns:
        Mean buffers. Variances are those of the mean, pooled from the halves' own and the squared
        difference of the halves; from the latter alone (one degree of freedom: very noisy) where
        the halves have none.
    """
    n, m = counts
    total = n + m
    data = torch.empty((a.height, a.width, layout.count), dtype=torch.float32, device=a.device)
    merged = FrameBuffers(data, layout)
    for name in layout.names:
        if not name.endswith(VARIANCE_SUFFIX):
            merged[name][:] = (n * a[name] + m * b[name]) / total
            continue
        base = name.removesuffix(VARIANCE_SUFFIX)
        # Sums of squared deviations from the common mean: between the halves, and inside them.
        between = n * m / total * (a[base] - b[base]).square().mean(-1, keepdim=True)
        if name in a:
            inside = n * (n - 1) * a[name] + m * (m - 1) * b[name]
            merged[name][:] = (inside + between) / ((total - 1) * total)
        else:
            merged[name][:] = between / total
    return merged
