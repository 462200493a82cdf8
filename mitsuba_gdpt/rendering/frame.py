"""One frame of a scene as named buffers; errors of Mitsuba's plugin loader become ours."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt.channels import OPTIONAL, VARIANCES
from mitsuba_gdpt.errors import ConfigError, GDPTError, plain
from mitsuba_gdpt.integrators.parameters import feature_names
from mitsuba_gdpt.rendering.source import Source

if TYPE_CHECKING:
    import mitsuba as mi
    import numpy as np

    from mitsuba_gdpt.buffers import FrameBuffers


def make_integrator(parameters: Mapping[str, Any]) -> mi.Integrator:
    """Instantiate ``gdpt``.

    Raises:
        ConfigError: A parameter is unknown or has a value that makes no sense.
    """
    import mitsuba as mi

    try:
        return mi.load_dict({**parameters, "type": "gdpt"})
    except RuntimeError as error:
        # Whatever a plugin's constructor raises, Mitsuba makes a RuntimeError of it.
        raise ConfigError(plain(error)) from error


def with_buffers(parameters: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Return parameters of ``gdpt`` that make it render some buffers too.

    Args:
        parameters: Parameters.
        names: Of optional buffers and variances; others are always there, or not its business.
    """
    variances = [row for row in VARIANCES if row.name in names]
    wanted = {*names, *(row.variance_of for row in variances)}
    result = dict(parameters)
    if variances:
        result["variances"] = True
    if missing := [row.name for row in OPTIONAL if row.name in wanted]:
        given = feature_names(str(result.get("features") or ""))
        result["features"] = ",".join(dict.fromkeys([*given, *missing]))
    return result


def render(
    source: Source,
    integrator: mi.Integrator,
    *,
    spp: int,
    seed: int = 0,
    sensor: int | mi.Sensor = 0,
    counts: np.ndarray[Any, np.dtype[np.intp]] | None = None,
    first: int = 0,
) -> FrameBuffers:
    """Render a scene to named buffers, as seen by one of its sensors or by another one.

    Args:
        source: Scene.
        integrator: ``gdpt``, as :func:`make_integrator` makes it.
        spp: Samples per pixel; 0 for as many as the scene says. Most samplers take certain numbers
            only, and round others.
        seed: Seed of the sampler; numbers beyond 32 bits are cut to their lower 32.
        sensor: Index of a sensor of the scene, or a sensor.
        counts: Samples of each pixel, (H, W), multiples of 8; then ``spp`` is their mean.
        first: Samples per pixel that were taken with this seed before, with no counts.

    Returns:
        (H, W, C) buffers. Their ``metadata`` holds the samples per pixel (``spp``) and the seed
        (``seed``) that they were rendered with, and the integrator's settings (``integrator``).

    Raises:
        ConfigError: The integrator cannot work with these numbers.
        RuntimeError: Mitsuba failed; the message names the scene.
    """
    from mitsuba_gdpt.buffers import FrameBuffers

    view = source.view(sensor)
    try:
        # Not mi.render(), whose differentiable wrapper replaces the message of any error.
        if counts is None:
            spp = _rounded(view.sampler(), spp)
            image = integrator.render(source.scene, sensor=view, spp=spp, seed=seed, first=first)
        else:
            image = integrator.render_counts(source.scene, counts, sensor=view, seed=seed)
    except RuntimeError as error:
        if isinstance(error, GDPTError):
            raise
        raise RuntimeError(f"rendering {source.name} failed: {plain(error)}") from error
    buffers = FrameBuffers.from_render(image, integrator)
    buffers.metadata.update(
        spp=str(spp), seed=str(seed % 2**32), integrator=" ".join(str(integrator).split())
    )
    return buffers


def _rounded(sampler: mi.Sampler, spp: int) -> int:
    """Return the number of samples per pixel that a sampler takes where it is asked for ``spp``.

    Raises:
        ConfigError: No sampler takes so many.
    """
    sampler = sampler.clone()
    try:
        if spp:
            sampler.set_sample_count(spp)
    except TypeError:  # beyond 32 bits
        raise ConfigError(f"spp is {spp}; expected 1 to {2**32 - 1}") from None
    return int(sampler.sample_count())
