"""Variations of built-in scenes: what training sees besides the scenes that people composed.

``NAME@SEED`` is the scene NAME with its materials, textures, lamps and sky drawn anew, and with
objects that were not there. Geometry and free space stay, so the camera boxes of the catalogue
hold for all variations. Everything is a function of name, seed and folder of blocks.

The distributions are meant to be wide, not pretty: what is learned on them should know smooth and
rough glass, metals, mirrors, bumps, thin objects, lamps in view that are 10^5 times as bright as
what they light, one colour of light or several.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt.scenes import parts, textures
from mitsuba_gdpt.scenes.blocks import find_blocks
from mitsuba_gdpt.scenes.catalogue import Catalogue
from mitsuba_gdpt.scenes.geometry import Mesh, box, ellipsoid, join, rod, sphere, torus
from mitsuba_gdpt.scenes.loading import loading_threads
from mitsuba_gdpt.scenes.materials import (
    Paint,
    Plugin,
    bitmap,
    bumpy,
    frosted_glass,
    glass,
    glossy,
    luminance_of,
    matte,
    metal,
    mirror,
    planck,
    polished,
    tinted_glass,
)
from mitsuba_gdpt.scenes.world import World

_METALS = ("Au", "Ag", "Cu", "Al", "Cr", "W")
_TEXTURE_SIZE = 256
#: BSDFs whose meshes need not be opaque, and those that depend on their own mesh.
_GLASS = ("dielectric", "roughdielectric")
_KEPT = ("mask", "thindielectric")
#: How far the objects and lamps of a variation are from the boxes of cameras, in their own radii.
_CLEARANCE = 1.2


def vary(world: World, name: str, seed: int, blocks: Path | None = None) -> None:
    """Draw a built-in scene anew, in place.

    Args:
        world: The scene as composed.
        name: Of the scene, for its catalogue entry: objects go to what cameras look at.
        seed: Of all that is random.
        blocks: Folder of :func:`~mitsuba_gdpt.scenes.blocks.find_blocks`, used besides what code
            makes.

    Raises:
        FormatError: The folder holds neither.
    """
    meshes, skies = ([], []) if blocks is None else find_blocks(blocks)
    rng = np.random.default_rng([seed, *name.encode()])
    for material, bsdf in world.materials.items():
        kind = bsdf["type"]
        if kind not in _KEPT and rng.uniform() < 0.7:
            world.material(material, _glass(rng) if kind in _GLASS else _opaque(rng))
    _lamps(world, rng)
    if world.environment_mean is not None:
        _sky(world, rng, world.environment_mean, skies)
    _objects(world, rng, name, meshes)


# -------------------------------------------------------------------------------------------
# Materials
# -------------------------------------------------------------------------------------------


def _colour(rng: np.random.Generator) -> tuple[float, float, float]:
    """Return a reflectance: any hue, often pale, 0.03 to 0.85."""
    level = rng.uniform(0.05, 0.85)
    tint = rng.uniform(-1, 1, 3) * rng.choice([0.05, 0.3, 0.9])
    red, green, blue = np.clip(level * (1 + tint), 0.03, 0.85)
    return float(red), float(green), float(blue)


def _texture(rng: np.random.Generator) -> NDArray[np.float32]:
    a, b, c = (_colour(rng) for _ in range(3))
    seed, size = int(rng.integers(1 << 16)), _TEXTURE_SIZE
    makers: Sequence[Callable[[], NDArray[np.float32]]] = (
        lambda: textures.wood(a, b, seed, size, planks=int(rng.integers(1, 8))),
        lambda: textures.bricks(a, b, seed, size=size)[0],
        lambda: textures.tiles((a, b, c), c, seed, int(rng.integers(2, 12)), size),
        lambda: textures.tiles((a, b), a, seed, int(rng.integers(2, 24)), size, checker=True),
        lambda: textures.marble(a, b, seed, size),
        lambda: textures.damask(a, b, seed, size),
        lambda: textures.rug((a, b, c), seed, size),
        lambda: textures.painting(seed, size),
        lambda: textures.speckle(a, (b, c), seed, size),
        lambda: textures.ramp((a, b, c), textures.noise((size, size), seed, rng.uniform(0.6, 2))),
    )
    return makers[int(rng.integers(len(makers)))]()


def _paint(rng: np.random.Generator) -> Paint:
    if rng.uniform() < 0.5:
        return _colour(rng)
    return bitmap(_texture(rng), metres=float(2 ** rng.uniform(-2, 1.5)))


def _roughness(rng: np.random.Generator) -> float:
    return float(10 ** rng.uniform(-1.8, -0.3))


def _opaque(rng: np.random.Generator) -> Plugin:
    """Return a two-sided material."""
    kind = rng.choice(6, p=[0.36, 0.26, 0.12, 0.13, 0.09, 0.04])
    if kind == 0:
        return matte(_paint(rng))
    if kind == 1:
        return glossy(_paint(rng), _roughness(rng))
    if kind == 2:
        return polished(_paint(rng))
    if kind == 3:
        alpha = _roughness(rng)  # drawn first
        return metal(str(rng.choice(_METALS)), alpha)
    if kind == 4:
        height = textures.noise(
            (_TEXTURE_SIZE, _TEXTURE_SIZE), int(rng.integers(1 << 16)), rng.uniform(0.8, 1.8)
        )
        relief = bitmap(height, metres=float(2 ** rng.uniform(-3, 0)), raw=True)
        base = matte(_colour(rng)) if rng.uniform() < 0.5 else glossy(_colour(rng), _roughness(rng))
        return bumpy(relief, float(10 ** rng.uniform(-2.5, -1)), base)
    return mirror(str(rng.choice(_METALS)))


def _glass(rng: np.random.Generator) -> Plugin:
    """Return a material for a closed mesh that light passes through."""
    kind = rng.choice(3, p=[0.5, 0.25, 0.25])
    if kind == 0:
        return glass(float(rng.uniform(1.3, 1.9)))
    if kind == 1:
        return tinted_glass(tuple(rng.uniform(0.2, 1.0, 3)), float(rng.uniform(1.3, 1.9)))
    return frosted_glass(_roughness(rng), float(rng.uniform(1.3, 1.9)))


# -------------------------------------------------------------------------------------------
# Light
# -------------------------------------------------------------------------------------------


def _lamps(world: World, rng: np.random.Generator) -> None:
    """Change colours, powers and sizes of the area lights."""
    common = rng.uniform(2200, 9000)
    alike = rng.uniform() < 0.5
    for name, shape in world.lamps.items():
        luminance = luminance_of(shape["emitter"]["radiance"]) * 2.0 ** rng.normal(0, 1.2)
        shrink = float(10 ** rng.uniform(-1, 0)) if rng.uniform() < 0.4 else 1.0
        if shape["type"] == "sphere":
            shape = shape | {"radius": shape["radius"] * shrink}
        elif shape["type"] == "rectangle":
            import mitsuba as mi

            scale = mi.ScalarTransform4f().scale([shrink, shrink, 1.0])
            shape = shape | {"to_world": shape["to_world"] @ scale}
        else:
            shrink = 1.0
        kelvin = common if alike else rng.uniform(1900, 10000)
        radiance = planck(float(kelvin), float(luminance / shrink**2))
        world.replace(name, shape | {"emitter": {"type": "area", "radiance": radiance}})


def _sky(world: World, rng: np.random.Generator, radiance: float, skies: Sequence[Path]) -> None:
    """Put another sky of about this mean radiance in place of the environment."""
    import mitsuba as mi

    if skies and rng.uniform() < 0.7:
        file = skies[int(rng.integers(len(skies)))]
        with loading_threads():
            loaded = mi.Bitmap(str(file))
        pixels = np.array(loaded.convert(mi.Bitmap.PixelFormat.RGB, mi.Struct.Type.Float32, False))
        pixels = np.roll(pixels, int(rng.integers(pixels.shape[1])), axis=1)
    else:
        azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 1.2)
        sun = (np.cos(height) * np.cos(azimuth), np.sin(height), np.cos(height) * np.sin(azimuth))
        pixels = textures.sky(
            sun,
            int(rng.integers(1 << 16)),
            sun_radiance=float(10 ** rng.uniform(2, 4.3)),
            ground=_colour(rng),
            clouds=float(rng.uniform(0, 1)),
        )
    mean = float(pixels.mean())
    scale = radiance / mean if mean > 0 else 1.0
    world.environment(pixels.astype(np.float32), scale * float(2.0 ** rng.normal(0, 0.7)))


# -------------------------------------------------------------------------------------------
# Objects
# -------------------------------------------------------------------------------------------


def _unit(mesh: Mesh) -> Mesh:
    """Return a mesh about the origin that fits into a sphere of radius 1."""
    low, high = mesh.bounds
    middle = (low + high) / 2
    mesh = mesh.moved(*(-middle))
    return mesh.scaled(1 / float(np.linalg.norm((high - low) / 2)))


def _shape(rng: np.random.Generator) -> tuple[Mesh, bool]:
    """Return an object of radius 1, and whether it is closed, so that it may be glass."""
    kind = int(rng.integers(10))
    if kind == 0:
        return sphere(1.0), True
    if kind == 1:
        return _unit(box((-1, -1, -1), tuple(rng.uniform(0, 1, 3)), 0.05)), True
    if kind == 2:
        return _unit(torus(1.0, float(rng.uniform(0.15, 0.5)))), True
    if kind == 3:
        return _unit(parts.knot(2, 3, 1.0, float(rng.uniform(0.05, 0.3)))), True
    if kind == 4:
        return _unit(parts.vase(int(rng.integers(4)), 1.0)), True
    if kind == 5:
        return _unit(parts.wine_glass()), True
    if kind == 6:
        return _unit(parts.bottle()), True
    if kind == 7:
        return _unit(ellipsoid(1.0, *rng.uniform(0.3, 1, 2), power=float(rng.uniform(2, 6)))), True
    if kind == 8:
        thick = float(rng.uniform(0.004, 0.02))
        ends = rng.uniform(-1, 1, (24, 2, 3))
        return _unit(join([rod(a, b, thick, 6) for a, b in ends])), False
    return _unit(parts.railing((-1, 0, 0), (1, 0, 0), 1.0, 0.1, 0.008)), False


def _objects(world: World, rng: np.random.Generator, name: str, meshes: Sequence[Path]) -> None:
    """Add objects, some of them lamps, at what cameras look at."""
    entry = Catalogue.builtin().scene(name)
    targets = np.array(entry.targets)
    lows = np.array([b.min for b in entry.boxes])
    highs = np.array([b.max for b in entry.boxes])

    def clearance(point: NDArray[np.float64]) -> float:
        outside = np.maximum(np.maximum(lows - point, point - highs), 0)
        return float(np.linalg.norm(outside, axis=1).min())

    count = min(int(rng.integers(3, 10)), len(targets))
    for index, place in enumerate(rng.permutation(targets)[:count]):
        distance = clearance(place)
        radius = distance * float(rng.uniform(0.05, 0.3))
        centre = place + np.array(entry.up) * radius * float(rng.uniform(0.3, 1.0))
        radius = min(radius, clearance(centre) / _CLEARANCE)
        if radius <= 0:
            continue
        if rng.uniform() < 0.15:  # a small lamp that lights its surroundings about as the others do
            small = 0.2 * radius
            luminance = (distance / small) ** 2 * float(10 ** rng.uniform(-1.5, 0.3))
            world.ball_light(centre, small, planck(float(rng.uniform(1900, 9000)), luminance))
        elif meshes and rng.uniform() < 0.5:
            _block(world, rng, meshes, centre, radius, f"variation_{index}")
        else:
            mesh, closed = _shape(rng)
            clear_glass = closed and rng.uniform() < 0.35
            bsdf = _glass(rng) if clear_glass else _opaque(rng)
            material = world.material(f"variation_{index}", bsdf)
            mesh = mesh.turned("y", float(rng.uniform(0, 360))).turned(
                "x", float(rng.normal(0, 20))
            )
            world.add(material, mesh.scaled(radius).moved(*centre))


def _block(
    world: World,
    rng: np.random.Generator,
    meshes: Sequence[Path],
    centre: NDArray[np.float64],
    radius: float,
    name: str,
) -> None:
    """Add a mesh from a file, in its own colours or in a material."""
    import mitsuba as mi

    file = meshes[int(rng.integers(len(meshes)))]
    if rng.uniform() < 0.6:
        colours = {"type": "mesh_attribute", "name": "vertex_color"}
        bsdf: dict[str, Any] = {
            "type": "principled",
            "base_color": colours,
            "roughness": float(rng.uniform(0.1, 1.0)),
            "specular": 0.5,
        }
        world.material(name, {"type": "twosided", "bsdf": bsdf})
    else:
        world.material(name, _opaque(rng))
    with loading_threads():
        loaded = mi.load_dict({"type": "ply", "filename": str(file)}).bbox()
    middle, size = np.array(loaded.center()), np.array(loaded.extents())
    to_world = (
        mi.ScalarTransform4f()
        .translate(list(centre))
        .rotate([0, 1, 0], float(rng.uniform(0, 360)))
        .scale(radius / float(np.linalg.norm(size / 2)))
        .translate(list(-middle))
    )
    world.shape(name, {"type": "ply", "filename": str(file), "to_world": to_world})
