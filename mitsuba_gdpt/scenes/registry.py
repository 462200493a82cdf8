"""The list of built-in scenes: a decorator that fills it and the functions that read it."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt.errors import ConfigError
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


def builder(name: str) -> Callable[[World], None]:
    """Return the function that fills a world as a built-in scene, variations left out.

    Raises:
        ConfigError: There is no such scene.
    """
    return _entry(name).build


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


def _entry(name: str) -> _Entry:
    try:
        return _SCENES[name]
    except KeyError:
        close = difflib.get_close_matches(name, _SCENES, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(
            f"there is no built-in scene {name!r}; {hint}known: {', '.join(_SCENES)}"
        ) from None
