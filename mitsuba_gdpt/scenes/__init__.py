"""Built-in procedural scenes: made by code, no asset files, every Mitsuba variant.

``names()`` lists them, ``describe(name)`` tells what one covers, ``load(name)`` gives a
``mi.Scene`` and ``as_dict(name)`` the dictionary behind it. A :class:`Catalogue` says from where to
render scenes, built-in or not, for data sets.
"""

from __future__ import annotations

from mitsuba_gdpt.scenes import builtin as _builtin  # noqa: F401  (registers the scenes)
from mitsuba_gdpt.scenes.catalogue import CameraBox, Catalogue, CatalogueScene
from mitsuba_gdpt.scenes.composing import as_dict, load
from mitsuba_gdpt.scenes.flythrough import KeyFrame
from mitsuba_gdpt.scenes.reference import SceneRef
from mitsuba_gdpt.scenes.registry import (
    BLOCKS,
    TAGS,
    Camera,
    SceneInfo,
    check_parameters,
    describe,
    film,
    make_sensor,
    names,
    scene,
)

__all__ = [
    "BLOCKS",
    "TAGS",
    "Camera",
    "CameraBox",
    "Catalogue",
    "CatalogueScene",
    "KeyFrame",
    "SceneInfo",
    "SceneRef",
    "as_dict",
    "check_parameters",
    "describe",
    "film",
    "load",
    "make_sensor",
    "names",
    "scene",
]
