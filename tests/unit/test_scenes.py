"""The built-in scenes load in every kind of variant, are lit, and are what they claim to be."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt import scenes
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.scenes import geometry, parts
from mitsuba_gdpt.scenes.materials import planck
from mitsuba_gdpt.scenes.textures import noise

#: What a scene with a tag must contain; plugins of which one is enough.
EVIDENCE = {
    "glossy": {"roughconductor", "roughplastic"},
    "mirror": {"conductor"},
    "glass": {"dielectric", "roughdielectric", "thindielectric"},
    "textured": {"bitmap"},
    "environment": {"envmap"},
    "mask": {"mask"},
    "bump": {"bumpmap"},
    "depth-of-field": {"thinlens"},
    "spectral": {"spectrum"},
}


def _plugins(node: Any) -> Counter[str]:
    """Count the plugin types that occur in a scene dictionary."""
    found: Counter[str] = Counter()
    if isinstance(node, dict):
        if isinstance(node.get("type"), str):
            found[node["type"]] += 1
        for child in node.values():
            found += _plugins(child)
    return found


def _triangles(scene: dict[str, Any]) -> int:
    files = [v["filename"] for v in scene.values() if isinstance(v, dict) and "filename" in v]
    headers = [Path(name).read_bytes()[:1000] for name in files]
    return sum(int(re.search(rb"element face (\d+)", header)[1]) for header in headers)


def test_there_are_enough_and_they_cover_the_phenomena() -> None:
    assert len(scenes.names()) >= 8
    tags = {tag for name in scenes.names() for tag in scenes.describe(name).tags}
    needed = {"interreflection", "glossy", "textured", "environment", "many-lights", "thin"}
    assert needed <= tags
    assert {"depth-of-field", "spectral"} <= tags
    assert {"mirror", "glass", "caustics"} <= tags


@pytest.mark.parametrize("name", scenes.names())
@pytest.mark.usefixtures("variant_llvm_rgb")
def test_renders_and_is_lit(name: str) -> None:
    import mitsuba as mi

    info = scenes.describe(name)
    assert dataclasses.is_dataclass(info)
    assert info.title
    assert info.doc
    scene = scenes.load(name, width=32, height=20)
    image = np.array(
        mi.render(scene, integrator=mi.load_dict({"type": "path", "max_depth": 6}), spp=8)
    )
    assert image.shape == (20, 32, 3)
    assert np.all(np.isfinite(image))
    # Pixels are too noisy for their median to say how bright the scene looks; 4x4 blocks will do.
    blocks = image.reshape(5, 4, 8, 4, 3).mean(axis=(1, 3, 4))
    assert 0.03 < np.median(blocks) * info.exposure < 1
    assert image.mean() * info.exposure < 1


@pytest.mark.parametrize("name", ["corner-gallery", "spectral-bench"])
@pytest.mark.parametrize("variant", ["llvm_ad_mono", "llvm_ad_spectral"])
def test_loads_in_other_variants(name: str, variant: str) -> None:
    import mitsuba as mi

    mi.set_variant(variant)
    scene = scenes.load(name, width=16, height=16)
    image = np.array(
        mi.render(scene, integrator=mi.load_dict({"type": "path", "max_depth": 3}), spp=2)
    )
    assert np.all(np.isfinite(image))
    assert image.mean() > 0


@pytest.mark.parametrize("name", scenes.names())
@pytest.mark.usefixtures("variant_llvm_rgb")
def test_contains_what_its_tags_say(name: str) -> None:
    description = scenes.as_dict(name)
    found, tags = _plugins(description), scenes.describe(name).tags
    assert set(tags) <= set(scenes.TAGS)
    for tag in set(tags) & set(EVIDENCE):
        assert EVIDENCE[tag] & set(found), tag
    assert ("thinlens" in found) == ("depth-of-field" in tags)
    assert (found["area"] >= 24) == ("many-lights" in tags)
    assert 0 < _triangles(description) <= 200_000


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_same_scene_every_time() -> None:
    import mitsuba as mi

    path = mi.load_dict({"type": "path", "max_depth": 2})
    a, b = (
        np.array(
            mi.render(
                scenes.load("string-lights", width=24, height=16), integrator=path, spp=1, seed=1
            )
        )
        for _ in range(2)
    )
    assert np.array_equal(a, b)
    orders = [[s.id() for s in scenes.load("string-lights").shapes()] for _ in range(4)]
    assert orders.count(orders[0]) == 4
    first, second = (scenes.as_dict("string-lights") for _ in range(2))
    names = [k for k, v in first.items() if isinstance(v, dict) and "filename" in v]
    # Files are named by their content, so equal names mean equal meshes.
    assert [first[k]["filename"] for k in names] == [second[k]["filename"] for k in names]


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_options_reach_the_scene() -> None:
    info = scenes.describe("light-steps")
    plain = scenes.as_dict("light-steps")
    film = plain["sensor"]["film"]
    assert (film["width"], film["height"]) == (info.width, info.height)
    assert plain["integrator"] == {"type": "path", "max_depth": 12}

    changed = scenes.as_dict(
        "light-steps",
        width=64,
        spp=7,
        sensor={"fov": 20.0, "principal_point_offset_x": 0.1},
        integrator={"type": "direct"},
    )
    sensor = changed["sensor"]
    assert (sensor["film"]["width"], sensor["film"]["height"]) == (64, 36)
    assert sensor["sampler"]["sample_count"] == 7
    assert sensor["fov"] == 20.0
    assert sensor["principal_point_offset_x"] == 0.1
    assert changed["integrator"] == {"type": "direct"}
    tall = scenes.as_dict("light-steps", height=72, integrator="path", max_depth=3)
    assert tall["sensor"]["film"]["width"] == 128
    assert tall["integrator"] == {"type": "path", "max_depth": 3}


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_dictionary_can_be_edited() -> None:
    import mitsuba as mi

    path = mi.load_dict({"type": "path", "max_depth": 3})
    description = scenes.as_dict("corner-gallery", width=16)
    before = np.array(mi.render(mi.load_dict(description), integrator=path, spp=8))
    description["white"] = {"type": "diffuse", "reflectance": 0.0}
    after = np.array(mi.render(mi.load_dict(description), integrator=path, spp=8))
    assert np.median(after) < 0.5 * np.median(before)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_bad_requests() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'corner-gallery'\? known: .*chess"):
        scenes.describe("corner-galery")
    for options, message in (
        ({"width": 0}, "width is 0; expected at least 1"),
        ({"height": -3}, "height is -3; expected at least 1"),
        ({"spp": 0}, "spp must be at least 1"),
        ({"max_depth": -2}, "max_depth"),
    ):
        with pytest.raises(ConfigError, match=message):
            scenes.load(scenes.names()[0], **options)
    camera = scenes.describe(scenes.names()[0]).camera
    with pytest.raises(ConfigError, match="unknown tags"):
        scenes.scene(title="x", tags=("nonsense",), camera=camera)(lambda world: None)

    def corner_gallery(world: object) -> None:
        """Take a name that is taken."""

    with pytest.raises(ConfigError, match="two built-in scenes"):
        scenes.scene(title="x", tags=(), camera=camera)(corner_gallery)


def test_needs_a_variant() -> None:
    code = (
        "from mitsuba_gdpt import scenes, errors\n"
        "try: scenes.load('chess')\n"
        "except errors.VariantError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60
    )
    assert "mi.set_variant" in done.stdout


@pytest.mark.parametrize(
    ("mesh", "volume"),
    [
        (geometry.box((0, 0, 0), (1, 2, 3)), 6.0),
        (geometry.box((1, 2, 3), (0, 0, 0), bevel=0.1), 5.885),
        (geometry.panel((0, 0, 0), (4, 3, 0.1), [(1, 1, 2, 2)]), 1.1),
        (geometry.sphere(1.0), 4.159),
        (geometry.ellipsoid(1.0, 2.0, 3.0), 24.95),
        (geometry.torus(1.0, 0.2), 0.774),
        (geometry.cylinder(1.0, 1.0, segments=400), np.pi),
        (geometry.tube([(0, 0, 0), (0, 1, 0), (0, 2, 0)], 0.1, sides=200), 0.02 * np.pi),
        (geometry.extrude([(0, 0), (1, 0), (1, 1)], 2.0), 1.0),
        (geometry.arch(1.0, 1.0, 2.0, 2.0, 0.5, segments=200), 1.5 - np.pi / 16),
        (parts.wine_glass(0.2), None),
        (parts.bottle(), None),
        (parts.tumbler(0.04, 0.1), None),
    ],
)
def test_solid_is_closed_and_faces_outwards(mesh: geometry.Mesh, volume: float | None) -> None:
    # Refraction needs both: inside and outside are told by the normal.
    corners = mesh.positions[mesh.faces]
    areas = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    signed = np.einsum("ij,ij->", corners[:, 0], areas.reshape(-1, 3)) / 6
    assert signed > 0
    if volume is not None:
        assert signed == pytest.approx(volume, rel=0.02)
    # The vector areas of a closed surface cancel.
    assert np.abs(areas.sum(axis=0)).max() < 1e-6 * np.abs(areas).sum()
    normals = mesh.normals[mesh.faces].mean(axis=1)
    assert np.mean(np.einsum("ij,ij->i", normals, areas) > 0) > 0.99
    assert np.allclose(np.linalg.norm(mesh.normals, axis=1), 1)


def test_meshes_move_rigidly() -> None:
    mesh = geometry.box((0, 0, 0), (1, 2, 3), bevel=0.1).turned("y", 90).moved(1, 0, 0)
    low, high = mesh.bounds
    assert np.allclose(low, (1, 0, -1))
    assert np.allclose(high, (4, 2, 0))
    joined = geometry.join([mesh, mesh.scaled(2)])
    assert len(joined.faces) == 2 * len(mesh.faces)
    assert joined.faces.max() == 2 * len(mesh.positions) - 1


def test_noise_tiles_and_is_seeded() -> None:
    field = noise((64, 128), 5, 1.6)
    assert np.array_equal(field, noise((64, 128), 5, 1.6))
    assert not np.array_equal(field, noise((64, 128), 6, 1.6))
    inner = np.abs(np.diff(field, axis=1)).mean()
    assert np.abs(field[:, 0] - field[:, -1]).mean() < 1.5 * inner


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_black_bodies_have_the_luminance_asked_for() -> None:
    import mitsuba as mi

    for kelvin in (2000.0, 5000.0, 12000.0):
        rgb = mi.load_dict({"type": "area", "radiance": planck(kelvin, 1.0)})
        colour = np.array(mi.traverse(rgb)["radiance.value"]).ravel()
        assert colour @ (0.2126, 0.7152, 0.0722) == pytest.approx(1.0, rel=0.1)
