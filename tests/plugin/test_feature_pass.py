"""Features without a path trace."""

from __future__ import annotations

import mitsuba as mi
import pytest
import torch

import mitsuba_gdpt
from mitsuba_gdpt import FrameBuffers, denoise
from mitsuba_gdpt.errors import ConfigError

FEATURES = ("albedo", "normal", "depth")


def scene(x: float = 0.0) -> mi.Scene:
    """Balls of plaster, gold, mirror and glass on a floor, under a lamp."""
    place = mi.ScalarTransform4f
    camera = place().look_at([x, 1, 6], [x, 0.4, 0], [0, 1, 0])
    film = {"type": "hdrfilm", "width": 24, "height": 12, "rfilter": {"type": "box"}}
    balls = {
        "plaster": {"type": "diffuse", "reflectance": {"type": "rgb", "value": [0.8, 0.4, 0.2]}},
        "gold": {"type": "roughconductor", "material": "Au", "alpha": 0.2},
        "mirror": {"type": "conductor"},
        "glass": {"type": "dielectric"},
    }
    shapes = {
        name: {
            "type": "sphere",
            "to_world": place().translate([i - 1.5, 0.4, 0]).scale(0.4),
            "bsdf": bsdf,
        }
        for i, (name, bsdf) in enumerate(balls.items())
    }
    floor = place().rotate([1, 0, 0], -90).scale(4)
    return mi.load_dict(
        {
            "type": "scene",
            "integrator": {"type": "path"},
            "sensor": {"type": "perspective", "to_world": camera, "film": film},
            "floor": {"type": "rectangle", "to_world": floor},
            "light": {"type": "constant"},
            **shapes,
        }
    )


@pytest.mark.parametrize("also", [(), ("position", "roughness")])
def test_features_are_those_of_gdpt(variants_llvm: str, also: tuple[str, ...]) -> None:
    loaded = scene()
    found = mitsuba_gdpt.features(loaded, spp=8, seed=3, also=also)
    assert found.names == (*FEATURES, *also)
    tracer = mi.load_dict({"type": "gdpt", "shifts": 0, "features": ",".join(also)})
    full = FrameBuffers.from_render(tracer.render(loaded, spp=8, seed=3), tracer)
    for name in found.names:
        assert torch.equal(found[name], full[name]), name
    assert found.metadata["spp"] == "8"


@pytest.mark.parametrize("hide_emitters", [False, True])
def test_only_light_that_is_seen_counts(variants_llvm: str, hide_emitters: bool) -> None:
    loaded = scene()
    images = []
    for only in (False, True):
        tracer = mi.load_dict(
            {
                "type": "gdpt",
                "features": "emission,direct,diffuse,specular,visibility",
                "features_only": only,
                "hide_emitters": hide_emitters,
            }
        )
        render = tracer.render(loaded, spp=16, seed=5)
        images.append(FrameBuffers.from_render(render, tracer))
    full, seen = images
    assert 0 < seen.primal.sum() < full.primal.sum()
    for name in ("primal", "emission", "direct", "specular"):
        torch.testing.assert_close(seen[name], full.emission, rtol=1e-5, atol=1e-6)
    assert seen.diffuse.abs().max() == 0
    assert seen.visibility.min() == 1  # no shadow ray was blocked
    assert full.dx.abs().max() > 0
    assert seen.dx.abs().max() == seen.dy.abs().max() == 0


def test_they_guide_the_render_of_another_integrator(variant_llvm_rgb: str) -> None:
    loaded = scene()
    image = mi.render(loaded, spp=2)
    found = mitsuba_gdpt.features(loaded, spp=8)
    clean = denoise(image, albedo=found.albedo, normals=found.normal)
    assert type(clean) is type(image)
    assert clean.shape == (12, 24, 3)


def test_motion(variant_llvm_rgb: str) -> None:
    before, now = scene(0.0), scene(0.5)
    found = mitsuba_gdpt.features(now, spp=2, previous=before.sensors()[0])
    assert found.names == (*FEATURES, "motion")
    # The camera went right (+x of the world): the floor went left, so it was further right.
    assert (found.motion[-1, :, 0] > 0.2).all() or (found.motion[-1, :, 0] < -0.2).all()
    still = mitsuba_gdpt.features(now, spp=2, previous=now.sensors()[0])
    assert still.motion.abs().max() == 0


def test_unknown_names(variant_llvm_rgb: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown feature.* 'diffuse'; expected: position"):
        mitsuba_gdpt.features(scene(), also=("diffuse",))
    with pytest.raises(ConfigError, match="there is no sensor"):
        mitsuba_gdpt.features(scene(), sensor=3)
