"""The built-in scenes load in every kind of variant, are lit, and are what they claim to be."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt import scenes
from mitsuba_gdpt.errors import ConfigError


def _plugins(node: Any) -> set[str]:
    """Return all plugin types that occur in a scene dictionary."""
    if not isinstance(node, dict):
        return set()
    found = {node["type"]} if isinstance(node.get("type"), str) else set()
    return found.union(*(_plugins(child) for child in node.values()))


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
        mi.render(scene, integrator=mi.load_dict({"type": "path", "max_depth": 4}), spp=2)
    )
    assert image.shape == (20, 32, 3)
    assert np.all(np.isfinite(image))
    assert 0.02 < np.median(image.mean(-1)) * info.exposure < 2


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


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_lens_is_there_where_it_is_claimed() -> None:
    for name in scenes.names():
        has_lens = "thinlens" in _plugins(scenes.as_dict(name))
        assert has_lens == ("depth-of-field" in scenes.describe(name).tags), name


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


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_bad_requests() -> None:
    with pytest.raises(ConfigError, match="corner-gallery"):
        scenes.describe("corner-galery")
    with pytest.raises(ConfigError, match="width"):
        scenes.load(scenes.names()[0], width=0)
