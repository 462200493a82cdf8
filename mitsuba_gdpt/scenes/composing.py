"""Built-in scenes, composed and varied: ready for Mitsuba."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt import checks
from mitsuba_gdpt.errors import ConfigError, VariantError
from mitsuba_gdpt.scenes.loading import loading_threads
from mitsuba_gdpt.scenes.registry import (
    VARIATION_SIGN,
    SceneInfo,
    builder,
    describe,
    film,
    parse_name,
)
from mitsuba_gdpt.scenes.variations import vary
from mitsuba_gdpt.scenes.world import World

if TYPE_CHECKING:
    import mitsuba as mi


def as_dict(
    name: str,
    *,
    width: int | None = None,
    height: int | None = None,
    spp: int | None = None,
    max_depth: int = 12,
    sensor: Mapping[str, Any] | None = None,
    integrator: Mapping[str, Any] | str | None = None,
    blocks: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Return a built-in scene as a dictionary for ``mi.load_dict``, free to be edited.

    A Mitsuba variant must be set, because transforms and bitmaps are Mitsuba objects. Meshes are
    PLY files in a directory that lives as long as this process. Give ``optimize=False`` to
    ``mi.load_dict``, as :func:`load` does, where the same seed has to give the same image.

    Args:
        name: One of :func:`names`, or ``NAME@SEED``: the scene with its materials, lights and sky
            drawn anew, and with further objects (see :mod:`mitsuba_gdpt.scenes.variations`).
        width: Image width in pixels. With one of width and height, the other follows from the
            scene's own proportions; without both, the scene's own size is taken.
        height: Image height in pixels.
        spp: Samples per pixel of the sampler (default 16).
        max_depth: Path depth of the default integrator (-1: unlimited).
        sensor: Entries that replace or extend those of the camera, for example
            ``{"to_world": ..., "fov": 30}``.
        integrator: A plugin dictionary, or a plugin name that gets ``max_depth``; default
            ``path``.
        blocks: Folder with ``meshes/*.ply`` and ``hdri/*.exr`` that a variation draws from too.

    Returns:
        A scene dictionary: integrator, sensor (with an ``hdrfilm``, box filter, float32 RGB, and an
        independent sampler), BSDFs under their own names, shapes, emitters.

    Raises:
        ConfigError: The name is unknown, a number makes no sense, or blocks are given for a scene
            as composed.
        FormatError: The folder of blocks holds none.

    Example:
        >>> scene = as_dict("glass-bar", width=320)  # doctest: +SKIP
        >>> scene["brass"] = {"type": "diffuse"}  # doctest: +SKIP
        >>> mi.load_dict(scene, optimize=False)  # doctest: +SKIP
    """
    base, seed = parse_name(name)
    info = describe(base)
    if blocks is not None and seed is None:
        raise ConfigError(
            f"only variations of built-in scenes take blocks; expected {name}{VARIATION_SIGN}SEED"
        )
    columns, rows = _size(info, width, height)
    if spp is not None and spp < 1:
        raise ConfigError(f"spp must be at least 1, got {spp}")
    if max_depth < -1:
        raise ConfigError(f"max_depth must be -1 (unlimited) or not negative, got {max_depth}")
    import mitsuba as mi

    if mi.variant() is None:
        raise VariantError("no Mitsuba variant is set; call mi.set_variant('llvm_ad_rgb') first")
    world = World()
    builder(base)(world)
    if seed is not None:
        vary(world, base, seed, None if blocks is None else Path(blocks))
    if integrator is None:
        integrator = "path"
    if isinstance(integrator, str):
        integrator = {"type": integrator, "max_depth": max_depth}
    camera = info.camera.as_dict() | {
        "film": film(columns, rows),
        "sampler": {"type": "independent", "sample_count": 16 if spp is None else spp},
    }
    return {
        "type": "scene",
        "integrator": dict(integrator),
        "sensor": camera | dict(sensor or {}),
        **world.as_dict(),
    }


def load(
    name: str,
    *,
    width: int | None = None,
    height: int | None = None,
    spp: int | None = None,
    max_depth: int = 12,
    sensor: Mapping[str, Any] | None = None,
    integrator: Mapping[str, Any] | str | None = None,
    blocks: str | os.PathLike[str] | None = None,
) -> mi.Scene:
    """Load a built-in scene; the arguments are those of :func:`as_dict`.

    Example:
        >>> mi.set_variant("llvm_ad_rgb")  # doctest: +SKIP
        >>> mi.render(load("glass-bar", width=320), spp=16)  # doctest: +SKIP
    """
    description = as_dict(
        name,
        width=width,
        height=height,
        spp=spp,
        max_depth=max_depth,
        sensor=sensor,
        integrator=integrator,
        blocks=blocks,
    )
    import mitsuba as mi

    # Merging meshes orders emitters by pointer: the same seed would give another image each time.
    with loading_threads():
        return mi.load_dict(description, optimize=False)


def _size(info: SceneInfo, width: int | None, height: int | None) -> tuple[int, int]:
    for label, value in (("width", width), ("height", height)):
        if value is not None:
            checks.pixels(label, value)
    if width is None and height is None:
        return info.width, info.height
    if width is None:
        assert height is not None
        width = max(1, round(height * info.width / info.height))
    elif height is None:
        height = max(1, round(width * info.height / info.width))
    return width, height
