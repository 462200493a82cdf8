"""The list of built-in scenes: a decorator that fills it and the functions that read it."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt import checks
from mitsuba_gdpt.errors import ConfigError, VariantError
from mitsuba_gdpt.scenes.loading import loading_threads
from mitsuba_gdpt.scenes.world import World

if TYPE_CHECKING:
    import mitsuba as mi

Vector = tuple[float, float, float]

#: Between the name of a built-in scene and the seed of a variation of it.
VARIATION_SIGN = "@"
#: The parameter of variations: a folder with ``meshes/*.ply`` and ``hdri/*.exr``.
BLOCKS = "blocks"


@dataclass(frozen=True)
class Camera:
    """Where a scene is seen from, in the scene's own unit (metres in the built-in ones).

    Attributes:
        origin: Position.
        target: Point in the middle of the picture.
        up: Direction that is vertical in the picture; of any length, not parallel to the view.
        fov: Field of view in degrees along the wider image axis.
        aperture: Lens radius; 0 is a pinhole.
        focus: Distance of the focal plane; by default the distance of the target.
    """

    origin: Vector
    target: Vector
    up: Vector = (0.0, 1.0, 0.0)
    fov: float = 45.0
    aperture: float = 0.0
    focus: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the sensor plugin, without film and sampler."""
        import mitsuba as mi

        sensor: dict[str, Any] = {
            "type": "thinlens" if self.aperture else "perspective",
            "fov": self.fov,
            "fov_axis": "larger",
            "near_clip": 0.01,
            "far_clip": 1000.0,
            "to_world": mi.ScalarTransform4f().look_at(
                origin=list(self.origin), target=list(self.target), up=list(self.up)
            ),
        }
        if self.aperture:
            sensor["aperture_radius"] = self.aperture
            sensor["focus_distance"] = self.focus or math.dist(self.origin, self.target)
        return sensor


def film(width: int, height: int, **crop: int) -> dict[str, Any]:
    """Return the film plugin that this package renders to: box filter, float32 RGB.

    Args:
        width: Pixels.
        height: Pixels.
        **crop: ``crop_width``, ``crop_height``, ``crop_offset_x``, ``crop_offset_y`` in pixels.
    """
    return {
        "type": "hdrfilm",
        "width": width,
        "height": height,
        "rfilter": {"type": "box"},
        "pixel_format": "rgb",
        "component_format": "float32",
        **crop,
    }


def make_sensor(camera: Camera, width: int, height: int) -> mi.Sensor:
    """Return a sensor with a :func:`film` of this size in pixels; a variant has to be set."""
    import mitsuba as mi

    sampler = {"type": "independent"}
    return mi.load_dict({**camera.as_dict(), "film": film(width, height), "sampler": sampler})


@dataclass(frozen=True)
class SceneInfo:
    """What is known about a built-in scene without building it.

    Attributes:
        name: Identifier, as given to :func:`load`.
        title: Human-readable name.
        doc: Which phenomena it covers.
        tags: Phenomena as machine-readable words, out of :data:`TAGS`.
        camera: The default view.
        width: Default image width in pixels.
        height: Default image height in pixels.
        exposure: Factor on the radiance before a tone curve, for previews.
    """

    name: str
    title: str
    doc: str
    tags: tuple[str, ...]
    camera: Camera
    width: int = 512
    height: int = 288
    exposure: float = 1.0


#: The words that ``SceneInfo.tags`` may use, with their meaning.
TAGS: Mapping[str, str] = {
    "interreflection": "a large part of the light arrives after several diffuse bounces",
    "indirect": "no emitter is visible from most of what the camera sees",
    "glossy": "rough conductors or rough plastics reflect their surroundings",
    "mirror": "perfectly specular reflection",
    "glass": "smooth or rough refraction",
    "caustics": "light focused by mirrors or glass onto diffuse surfaces",
    "textured": "procedural bitmaps on large surfaces",
    "environment": "lit by an HDR environment map",
    "interior": "a closed or nearly closed room",
    "many-lights": "dozens of emitters",
    "thin": "wires, railings, leaves: features around or below a pixel",
    "mask": "alpha-masked surfaces",
    "bump": "bump-mapped surfaces",
    "depth-of-field": "thin-lens camera with visible blur",
    "spectral": "measured or sampled spectra dominate the look",
    "mis": "emitter and BSDF sampling are both needed",
}


@dataclass(frozen=True)
class _Entry:
    info: SceneInfo
    build: Callable[[World], None]


_SCENES: dict[str, _Entry] = {}


def scene(
    *, title: str, tags: tuple[str, ...], camera: Camera, **options: Any
) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    """Register a function that fills a :class:`World` as a built-in scene.

    The scene's name is the function's with dashes, its ``doc`` the first paragraph of the
    docstring.

    Args:
        title: Human-readable name.
        tags: Words out of :data:`TAGS`.
        camera: Default view.
        **options: Further fields of :class:`SceneInfo` (width, height, exposure).

    Raises:
        ConfigError: A tag is unknown or the name is taken.
    """

    def register(build: Callable[[World], None]) -> Callable[[World], None]:
        name = build.__name__.replace("_", "-")
        if unknown := sorted(set(tags) - set(TAGS)):
            raise ConfigError(
                f"scene {name!r} has unknown tags {unknown}; known: {', '.join(TAGS)}"
            )
        if name in _SCENES:
            raise ConfigError(f"there are two built-in scenes called {name!r}")
        doc = " ".join((inspect.getdoc(build) or "").split("\n\n")[0].split())
        info = SceneInfo(name=name, title=title, doc=doc, tags=tags, camera=camera, **options)
        _SCENES[name] = _Entry(info, build)
        return build

    return register


def names() -> tuple[str, ...]:
    """Return the names of all built-in scenes."""
    return tuple(_SCENES)


def describe(name: str) -> SceneInfo:
    """Return what is known about a built-in scene, or about a variation ``NAME@SEED`` of one.

    Raises:
        ConfigError: There is no such scene.
    """
    base, seed = parse_name(name)
    info = _entry(base).info
    return info if seed is None else dataclasses.replace(info, name=name)


def parse_name(name: str) -> tuple[str, int | None]:
    """Split ``NAME@SEED`` into name and seed; the seed is None for a scene as composed.

    Raises:
        ConfigError: What follows the ``@`` is no whole number.
    """
    base, sign, seed = name.partition(VARIATION_SIGN)
    if sign and not (seed.isascii() and seed.isdigit()):
        raise ConfigError(
            f"a variation of a built-in scene is NAME{VARIATION_SIGN}SEED with a whole number, "
            f"such as {next(iter(_SCENES), 'NAME')}{VARIATION_SIGN}17; got {name!r}"
        )
    return base, int(seed) if sign else None


def check_parameters(name: str, parameters: Mapping[str, str]) -> None:
    """Make sure that a built-in scene takes these parameters: variations take :data:`BLOCKS`.

    Raises:
        ConfigError: There is one that it does not take.
    """
    known = (BLOCKS,) if parse_name(name)[1] is not None else ()
    if unknown := [key for key in parameters if key not in known]:
        raise ConfigError(
            f"built-in scenes take no parameters, but {BLOCKS!r} for variations NAME"
            f"{VARIATION_SIGN}SEED; {name} got {', '.join(unknown)}"
        )


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
    entry = _entry(base)
    if blocks is not None and seed is None:
        raise ConfigError(
            f"only variations of built-in scenes take blocks; expected {name}{VARIATION_SIGN}SEED"
        )
    columns, rows = _size(entry.info, width, height)
    if spp is not None and spp < 1:
        raise ConfigError(f"spp must be at least 1, got {spp}")
    if max_depth < -1:
        raise ConfigError(f"max_depth must be -1 (unlimited) or not negative, got {max_depth}")
    import mitsuba as mi

    if mi.variant() is None:
        raise VariantError("no Mitsuba variant is set; call mi.set_variant('llvm_ad_rgb') first")
    world = World()
    entry.build(world)
    if seed is not None:
        from mitsuba_gdpt.scenes import variations

        variations.vary(world, base, seed, None if blocks is None else Path(blocks))
    if integrator is None:
        integrator = "path"
    if isinstance(integrator, str):
        integrator = {"type": integrator, "max_depth": max_depth}
    camera = entry.info.camera.as_dict() | {
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


def _entry(name: str) -> _Entry:
    try:
        return _SCENES[name]
    except KeyError:
        close = difflib.get_close_matches(name, _SCENES, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"there is no built-in scene {name!r}; {hint}known: {', '.join(_SCENES)}"
        ) from None


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
