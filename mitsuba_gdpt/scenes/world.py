"""Collects the parts of a scene and turns them into a dictionary for ``mi.load_dict``."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mitsuba_gdpt.scenes.geometry import Mesh, join
from mitsuba_gdpt.scenes.materials import Paint, Plugin, paint

_store: tempfile.TemporaryDirectory[str] | None = None
_store_owner = -1


def _mesh_file(mesh: Mesh) -> str:
    """Write a mesh to this process's own directory, once per content, and return the path.

    ``mi.load_dict`` takes geometry from files only, if BSDFs are to stay editable references. A
    forked child must not share the directory, since whoever exits first removes it.
    """
    global _store, _store_owner
    if _store is None or _store_owner != os.getpid() or not Path(_store.name).is_dir():
        _store = tempfile.TemporaryDirectory(prefix="mitsuba_gdpt-scenes-")
        _store_owner = os.getpid()
    content = mesh.to_ply()
    path = Path(_store.name) / f"{hashlib.sha256(content).hexdigest()[:16]}.ply"
    if not path.exists():
        path.write_bytes(content)
    return str(path)


class World:
    """A scene under construction: named materials, meshes merged per material, lights.

    Merging keeps the number of shapes small, which is what loading time and the size of the
    acceleration structure depend on.
    """

    def __init__(self) -> None:
        self._materials: dict[str, Plugin] = {}
        self._meshes: dict[str, list[Mesh]] = {}
        self._others: dict[str, Plugin] = {}

    def material(self, name: str, bsdf: Plugin) -> str:
        """Declare a material; returns its name."""
        self._materials[name] = bsdf
        return name

    @property
    def materials(self) -> dict[str, Plugin]:
        """The declared materials by name: a copy."""
        return dict(self._materials)

    @property
    def lamps(self) -> dict[str, Plugin]:
        """The shapes that emit light, by their names for :meth:`replace`: a copy."""
        return {name: plugin for name, plugin in self._others.items() if "emitter" in plugin}

    def add(self, material: str, *meshes: Mesh) -> None:
        """Add meshes made of a declared material."""
        if material not in self._materials:
            raise KeyError(f"material {material!r} is not declared")
        self._meshes.setdefault(material, []).extend(meshes)

    def place(
        self,
        parts: Mapping[str, Mesh],
        x: float = 0.0,
        y: float = 0.0,
        z: float = 0.0,
        turn: float = 0.0,
    ) -> None:
        """Add the parts of an object, by material, turned about Y and moved together."""
        for material, mesh in parts.items():
            self.add(material, (mesh.turned("y", turn) if turn else mesh).moved(x, y, z))

    def ball(self, material: str, centre: ArrayLike, radius: float) -> None:
        """Add an exact (analytic) sphere."""
        self._append("ball", self._sphere(centre, radius) | {"bsdf": self._reference(material)})

    def shape(self, material: str, plugin: Plugin) -> None:
        """Add any shape plugin made of a declared material."""
        self._append("shape", plugin | {"bsdf": self._reference(material)})

    def replace(self, name: str, plugin: Plugin) -> None:
        """Put another plugin in the place of one of :attr:`lamps`."""
        if name not in self._others:
            raise KeyError(f"there is no {name!r}")
        self._others[name] = plugin

    def ball_light(self, centre: ArrayLike, radius: float, radiance: Paint) -> None:
        """Add a spherical area light."""
        self._append("ball_light", self._sphere(centre, radius) | _emission(radiance))

    def mesh_light(self, mesh: Mesh, radiance: Paint) -> None:
        """Add a mesh that emits from its outside."""
        self._append(
            "mesh_light", {"type": "ply", "filename": _mesh_file(mesh)} | _emission(radiance)
        )

    def panel_light(
        self, centre: ArrayLike, facing: ArrayLike, size: tuple[float, float], radiance: Paint
    ) -> None:
        """Add a rectangular light that emits towards the point ``facing``."""
        import mitsuba as mi

        origin, target = np.asarray(centre, dtype=float), np.asarray(facing, dtype=float)
        towards = (target - origin) / np.linalg.norm(target - origin)
        up = [0.0, 0.0, 1.0] if abs(towards[1]) > 0.99 else [0.0, 1.0, 0.0]
        frame = mi.ScalarTransform4f().look_at(
            origin=origin.tolist(), target=target.tolist(), up=up
        )
        to_world = frame @ mi.ScalarTransform4f().scale([size[0] / 2, size[1] / 2, 1.0])
        self._append(
            "panel_light", {"type": "rectangle", "to_world": to_world} | _emission(radiance)
        )

    def environment(self, pixels: NDArray[np.float32], scale: float = 1.0) -> None:
        """Light the scene by an equirectangular image."""
        import mitsuba as mi

        self._others["environment"] = {
            "type": "envmap",
            "bitmap": mi.Bitmap(np.ascontiguousarray(pixels)),
            "scale": scale,
        }

    @property
    def environment_mean(self) -> float | None:
        """Mean of the environment's pixels times its scale; None without one."""
        if (plugin := self._others.get("environment")) is None:
            return None
        return float(np.array(plugin["bitmap"]).mean()) * float(plugin["scale"])

    def as_dict(self) -> dict[str, Any]:
        """Return materials, shapes and emitters as entries of a scene dictionary."""
        shapes = {
            f"{name}_mesh": {
                "type": "ply",
                "filename": _mesh_file(join(meshes)),
                "bsdf": self._reference(name),
            }
            for name, meshes in self._meshes.items()
        }
        return {**self._materials, **shapes, **self._others}

    def _append(self, kind: str, plugin: Plugin) -> None:
        self._others[f"{kind}_{len(self._others)}"] = plugin

    def _reference(self, material: str) -> Plugin:
        if material not in self._materials:
            raise KeyError(f"material {material!r} is not declared")
        return {"type": "ref", "id": material}

    @staticmethod
    def _sphere(centre: ArrayLike, radius: float) -> Plugin:
        x, y, z = (float(c) for c in np.asarray(centre))
        return {"type": "sphere", "center": [x, y, z], "radius": float(radius)}


def _emission(radiance: Paint) -> Plugin:
    # A lamp reflects nothing: what it emits would hide it, and black ends paths early.
    return {
        "emitter": {"type": "area", "radiance": paint(radiance)},
        "bsdf": {"type": "diffuse", "reflectance": paint(0.0)},
    }
