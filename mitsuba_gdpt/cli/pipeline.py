"""Render and reconstruct, with the errors of Mitsuba's plugin loader turned into ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt.cli.source import Source, plain
from mitsuba_gdpt.errors import ConfigError, GDPTError

if TYPE_CHECKING:
    import mitsuba as mi

    from mitsuba_gdpt.buffers import FrameBuffers
    from mitsuba_gdpt.channels import Layout


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


def check_method(method: str, options: Mapping[str, Any], layout: Layout) -> None:
    """Try a denoising method on four black pixels, before hours go into rendering.

    Raises:
        GDPTError: The method or one of its options is unknown, a buffer that it needs would be
            missing, or it cannot run on this machine.
    """
    import torch

    from mitsuba_gdpt.denoisers import denoise

    denoise(torch.zeros(2, 2, layout.count), method, layout=layout, **options)


def render(
    source: Source, integrator: mi.Integrator, *, spp: int, seed: int = 0, sensor: int = 0
) -> FrameBuffers:
    """Render a scene to named buffers.

    Raises:
        ConfigError: The integrator cannot work with these numbers.
        RuntimeError: Mitsuba failed; the message names the scene.
    """
    from mitsuba_gdpt.buffers import FrameBuffers

    view = source.sensor(sensor)
    try:
        # Not mi.render(), whose differentiable wrapper replaces the message of any error.
        image = integrator.render(source.scene, sensor=view, spp=spp, seed=seed)
    except RuntimeError as error:
        if isinstance(error, GDPTError):
            raise
        raise RuntimeError(f"rendering {source.name} failed: {plain(error)}") from error
    return FrameBuffers.from_render(image, integrator)
