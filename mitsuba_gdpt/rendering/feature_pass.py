"""Features for the render of any integrator, without tracing paths beyond what they show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.rendering.frame import make_integrator, render
from mitsuba_gdpt.rendering.source import Source

if TYPE_CHECKING:
    import mitsuba as mi

    from mitsuba_gdpt.buffers import FrameBuffers

#: Optional buffers that need no light.
OPTIONAL = ("position", "roughness")
_DEPTH = 64  # mirrors and panes that are looked through


def features(
    scene: mi.Scene,
    *,
    spp: int = 16,
    sensor: int | mi.Sensor = 0,
    seed: int = 0,
    also: tuple[str, ...] = (),
    previous: mi.Sensor | None = None,
) -> FrameBuffers:
    """Render albedo, normal and depth at the first surface that is neither mirror nor glass.

    For the render of any integrator, to denoise it with more than itself:

        f = features(scene, spp=16)
        clean = denoise(image, albedo=f.albedo, normals=f.normal)

    The albedo is right for metals and glass too, and normals are in the camera's frame. The film
    holds these buffers afterwards.

    Args:
        scene: Seen by one of its sensors or by another one; a variant has to be set.
        spp: Samples per pixel.
        sensor: Index of a sensor of the scene, or a sensor.
        seed: Seed of the sampler.
        also: Names out of :data:`OPTIONAL`.
        previous: Sensor of the previous frame; adds ``motion``, for perspective cameras.

    Returns:
        (H, W, C) buffers ``albedo``, ``normal``, ``depth``, those of ``also``, and ``motion``.

    Raises:
        ConfigError: A name is none of these, or a sensor is no perspective camera.
    """
    if unknown := [name for name in also if name not in OPTIONAL]:
        raise ConfigError(
            f"unknown feature(s) {', '.join(map(repr, unknown))}; expected: {', '.join(OPTIONAL)}"
        )
    source = Source.of(scene)
    view = source.view(sensor)
    parameters = {"shifts": 0, "max_depth": _DEPTH, "features_only": True}
    tracer = make_integrator({**parameters, "features": ",".join(also)})
    buffers = render(source, tracer, spp=spp, seed=seed, sensor=view)
    buffers = buffers.select([name for name in buffers.names if name not in ("primal", "dx", "dy")])
    if previous is not None:
        from mitsuba_gdpt.motion import PinholeCamera, add_motion

        cameras = PinholeCamera.from_sensor(view), PinholeCamera.from_sensor(previous)
        buffers = add_motion(buffers, *cameras)
    return buffers
