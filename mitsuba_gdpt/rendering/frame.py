"""One frame of a scene as named buffers; errors of Mitsuba's plugin loader become ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt.errors import ConfigError, GDPTError
from mitsuba_gdpt.rendering.source import Source, plain

if TYPE_CHECKING:
    import mitsuba as mi

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


def render(
    source: Source,
    integrator: mi.Integrator,
    *,
    spp: int,
    seed: int = 0,
    sensor: int | mi.Sensor = 0,
) -> FrameBuffers:
    """Render a scene to named buffers, as seen by one of its sensors or by another one.

    Raises:
        ConfigError: The integrator cannot work with these numbers.
        RuntimeError: Mitsuba failed; the message names the scene.
    """
    from mitsuba_gdpt.buffers import FrameBuffers

    view = source.sensor(sensor) if isinstance(sensor, int) else sensor
    try:
        # Not mi.render(), whose differentiable wrapper replaces the message of any error.
        image = integrator.render(source.scene, sensor=view, spp=spp, seed=seed)
    except RuntimeError as error:
        if isinstance(error, GDPTError):
            raise
        raise RuntimeError(f"rendering {source.name} failed: {plain(error)}") from error
    return FrameBuffers.from_render(image, integrator)
