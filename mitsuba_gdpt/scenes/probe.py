"""Questions about the free space of a loaded scene, answered by rays: NumPy in, NumPy out.

All questions are asked for many points at once, as one Dr.Jit wavefront each. Directions and
points are float64 arrays (N, 3) in world coordinates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt.errors import ConfigError, VariantError
from mitsuba_gdpt.scenes.flythrough import vector
from mitsuba_gdpt.scenes.registry import Camera

if TYPE_CHECKING:
    import mitsuba as mi

Points = NDArray[np.float64]

_SPHERE = 96  # directions that stand for all
_PATH_DEPTH = 6  # of renders that only ask whether a view is lit


@dataclass(frozen=True)
class Hits:
    """The nearest surfaces along some rays.

    Attributes:
        distance: (N,), infinite where a ray escapes.
        point: (N, 3), undefined where a ray escapes.
        normal: (N, 3) geometric normal towards the ray's origin; 0 where a ray escapes.
        front: (N,), whether the side that is seen is the one the mesh's own normal points to.
        shape: (N,) number that tells shapes apart, 0 where a ray escapes.
    """

    distance: Points
    point: Points
    normal: Points
    front: NDArray[np.bool_]
    shape: NDArray[np.uint32]

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(N,), whether a ray hits something."""
        return np.isfinite(self.distance)


@dataclass(frozen=True)
class Surroundings:
    """What surrounds some points.

    Attributes:
        clearance: (N,) distance of the nearest surface.
        enclosure: (N,) share of directions in which there is any: 1 in a closed room, about a half
            on a plain.
        back: (N,) share of directions in which the nearest surface shows its back: 1 inside a
            closed mesh.
    """

    clearance: Points
    enclosure: Points
    back: Points


class Probe:
    """Asks a scene. A variant of kind rgb or mono has to be set.

    Raises:
        VariantError: The variant is a spectral one.
    """

    def __init__(self, scene: mi.Scene) -> None:
        import mitsuba as mi

        if mi.is_spectral:
            raise VariantError(
                "views are judged by rgb renders, and the variant is spectral; "
                "set another one, such as llvm_ad_rgb"
            )
        self.scene = scene
        self._integrator = mi.load_dict({"type": "path", "max_depth": _PATH_DEPTH})

    def cast(self, origins: Points, directions: Points) -> Hits:
        """Trace rays; one of the two arguments may be a single row."""
        import drjit as dr
        import mitsuba as mi

        origins, directions = np.broadcast_arrays(origins, directions)
        found = self.scene.ray_intersect_preliminary(
            mi.Ray3f(mi.Point3f(_rows(origins)), mi.Vector3f(_rows(directions))), coherent=False
        )
        ray = mi.Ray3f(mi.Point3f(_rows(origins)), mi.Vector3f(_rows(directions)))
        surface = found.compute_surface_interaction(ray, mi.RayFlags.Minimal)
        valid = found.is_valid()
        shape = dr.select(valid, dr.reinterpret_array(mi.UInt32, surface.shape), 0)
        dr.eval(valid, surface.t, surface.n, shape)
        hit = np.array(valid)
        distance = np.where(hit, np.array(surface.t, dtype=np.float64), np.inf)
        normal = np.where(hit[:, None], np.array(surface.n, dtype=np.float64).T, 0.0)
        front = np.einsum("ij,ij->i", normal, directions) <= 0.0
        reach = np.where(hit, distance, 0.0)[:, None]
        return Hits(
            distance=distance,
            point=origins + reach * directions,
            normal=np.where(front[:, None], normal, -normal),
            front=front,
            shape=np.array(shape),
        )

    def sees(self, a: Points, b: Points) -> NDArray[np.bool_]:
        """Tell for each row whether nothing lies between two points; glass counts as something."""
        import mitsuba as mi

        a, b = np.broadcast_arrays(a, b)
        offset = b - a
        length = np.linalg.norm(offset, axis=1)
        direction = offset / np.maximum(length, 1e-30)[:, None]
        ray = mi.Ray3f(
            o=mi.Point3f(_rows(a)),
            d=mi.Vector3f(_rows(direction)),
            maxt=mi.Float(np.ascontiguousarray(length * (1 - 1e-5), dtype=np.float32)),
            time=0.0,
            wavelengths=[],
        )
        return ~np.array(self.scene.ray_test(ray))

    def around(self, points: Points) -> Surroundings:
        """Look in all directions from some points."""
        count = len(points)
        directions = np.tile(sphere(_SPHERE), (count, 1))
        hits = self.cast(np.repeat(points, _SPHERE, axis=0), directions)
        return Surroundings(
            clearance=hits.distance.reshape(count, _SPHERE).min(axis=1),
            enclosure=hits.valid.reshape(count, _SPHERE).mean(axis=1),
            back=(hits.valid & ~hits.front).reshape(count, _SPHERE).mean(axis=1),
        )

    def view(self, cameras: Sequence[Camera], width: int, height: int) -> Hits:
        """Trace one ray through the middle of each pixel of pinhole cameras.

        Returns:
            Hits with N = cameras · height · width rows, in this order.
        """
        return self.cast(*rays(cameras, width, height))

    def radiance(
        self, cameras: Sequence[Camera], width: int, height: int, spp: int, seed: int
    ) -> Points:
        """Render pinhole views with ``path``; (cameras, height, width) luminance."""
        import mitsuba as mi

        origins, directions = rays(cameras, width, height, spp, np.random.default_rng(seed))
        sampler = mi.load_dict({"type": "independent"})
        sampler.seed(seed, len(origins))
        ray = mi.RayDifferential3f(
            mi.Ray3f(mi.Point3f(_rows(origins)), mi.Vector3f(_rows(directions)))
        )
        radiance, _, _ = self._integrator.sample(self.scene, sampler, ray, None, True)
        luminance = mi.luminance(radiance) if mi.is_rgb else radiance[0]
        pixels = np.array(luminance, dtype=np.float64).reshape(len(cameras), height, width, spp)
        return np.asarray(pixels.mean(axis=3))

    def is_free(self, low: Points, high: Points, resolution: int = 20) -> bool:
        """Tell whether an axis-aligned box contains no surface, as far as a grid of rays finds.

        Along each axis, rays cross the box in parallel and through its centre. What is smaller than
        the box over ``resolution`` in all directions may stay unseen.
        """
        ticks = (np.arange(resolution) + 0.5) / resolution
        first, second = (grid.ravel() for grid in np.meshgrid(ticks, ticks))
        starts: list[Points] = []
        ends: list[Points] = []
        for axis in range(3):
            for opposite in ((first, second), (1 - first, 1 - second)):
                for points, along, (u, v) in ((starts, 0, (first, second)), (ends, 1, opposite)):
                    point = np.empty((len(u), 3))
                    point[:, axis] = along
                    point[:, (axis + 1) % 3] = u
                    point[:, (axis + 2) % 3] = v
                    points.append(point)
        size = high - low
        return bool(
            self.sees(low + np.concatenate(starts) * size, low + np.concatenate(ends) * size).all()
        )


def sphere(count: int) -> Points:
    """Return evenly spread unit vectors (count, 3): a Fibonacci lattice."""
    i = np.arange(count) + 0.5
    z = 1 - 2 * i / count
    azimuth = math.pi * (3 - math.sqrt(5)) * i
    radius = np.sqrt(1 - z * z)
    return np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z], axis=1)


def rays(
    cameras: Sequence[Camera],
    width: int,
    height: int,
    spp: int = 1,
    rng: np.random.Generator | None = None,
) -> tuple[Points, Points]:
    """Return origins and directions of pinhole rays: camera, row, column, sample.

    Rays go through the middle of pixels, or with ``rng`` through random points in them.
    """
    size = (height, width, spp)
    offset = np.full((2, *size), 0.5) if rng is None else rng.random((2, *size))
    row, column, _ = np.meshgrid(*(np.arange(n) for n in size), indexing="ij")
    longer = max(width, height)
    x = (2 * (column + offset[0]) - width) / longer
    y = (height - 2 * (row + offset[1])) / longer
    origins, directions = [], []
    for camera in cameras:
        right, upwards, forward = axes(camera)
        scale = math.tan(math.radians(camera.fov) / 2)
        d = forward + scale * (x[..., None] * right + y[..., None] * upwards)
        directions.append((d / np.linalg.norm(d, axis=-1, keepdims=True)).reshape(-1, 3))
        origins.append(np.broadcast_to(np.array(camera.origin), directions[-1].shape))
    return np.concatenate(origins), np.concatenate(directions)


def axes(camera: Camera) -> tuple[Points, Points, Points]:
    """Return a camera's unit vectors to the right, upwards and forward."""
    forward = np.subtract(camera.target, camera.origin)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, camera.up)
    right /= np.linalg.norm(right)
    return right, np.cross(right, forward), forward


def own_camera(probe: Probe, index: int = 0) -> Camera:
    """Return a sensor of a scene as a camera that looks at what is in the middle of its picture.

    Raises:
        ConfigError: There is no such sensor, or it is neither ``perspective`` nor ``thinlens``.
    """
    import mitsuba as mi

    sensors = probe.scene.sensors()
    if index >= len(sensors):
        raise ConfigError(
            f"the scene has {len(sensors)} sensor(s), so there is no number {index}; views are "
            "searched around an existing one, add it to the scene"
        )
    sensor = sensors[index]
    parameters = mi.traverse(sensor)
    if "x_fov" not in parameters:
        raise ConfigError(
            f"views are searched around a perspective or thinlens sensor, got "
            f"{sensor.class_name()}; give the scene one"
        )
    width, height = (int(n) for n in sensor.film().size())
    fov = float(np.ravel(np.array(parameters["x_fov"]))[0])
    if height > width:
        fov = math.degrees(2 * math.atan(math.tan(math.radians(fov) / 2) * height / width))
    matrix = np.array(sensor.world_transform().matrix, dtype=np.float64).reshape(4, 4)
    origin, up = matrix[:3, 3], matrix[:3, 1]
    forward = matrix[:3, 2] / np.linalg.norm(matrix[:3, 2])
    middle = Camera(vector(origin), vector(origin + forward), vector(up), fov=fov / 4)
    hits = probe.view([middle], 9, 9)
    if not hits.valid.any():
        hits = probe.view([Camera(middle.origin, middle.target, middle.up, fov=fov)], 15, 15)
    if not hits.valid.any():
        raise ConfigError("the scene's own camera sees nothing; point it at the scene")
    distance = float(np.median(hits.distance[hits.valid]))
    return Camera(vector(origin), vector(origin + distance * forward), vector(up), fov=fov)


def _rows(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return (N, 3) as the (3, N) that Mitsuba takes for N vectors."""
    return np.ascontiguousarray(np.asarray(values, dtype=np.float32).T)
