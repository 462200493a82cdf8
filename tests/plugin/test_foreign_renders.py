"""``denoise()`` on what Mitsuba's own integrators render."""

from __future__ import annotations

import warnings
from typing import Any

import mitsuba as mi
import numpy as np
import pytest
import torch

from mitsuba_gdpt import denoise
from mitsuba_gdpt.errors import LayoutError
from mitsuba_gdpt.foreign import Words, take

pytestmark = pytest.mark.usefixtures("variant_llvm_rgb")

AOVS = "albedo:albedo,nn:sh_normal,dd.y:depth"
FORMATS = ("rgb", "rgba", "luminance", "luminance_alpha", "xyz", "xyza")


def scene(pixel_format: str = "rgb", integrator: dict[str, Any] | None = None) -> mi.Scene:
    camera = mi.ScalarTransform4f().look_at([3, 2, 2], [0, 0, 0], [0, 1, 0])
    film = {"type": "hdrfilm", "width": 12, "height": 8, "pixel_format": pixel_format}
    film |= {"component_format": "float32", "rfilter": {"type": "box"}}
    colour = {"type": "rgb", "value": [0.8, 0.5, 0.2]}
    return mi.load_dict(
        {
            "type": "scene",
            "integrator": integrator or aov(),
            "sensor": {"type": "perspective", "to_world": camera, "film": film},
            "ball": {"type": "sphere", "bsdf": {"type": "diffuse", "reflectance": colour}},
            "light": {"type": "constant"},
        }
    )


def aov(aovs: str = AOVS) -> dict[str, Any]:
    return {"type": "aov", "aovs": aovs, "image": {"type": "path", "max_depth": 3}}


def reference() -> Any:
    """The same render by gdpt, whose buffers mean what ours mean."""
    tracer = mi.load_dict({"type": "gdpt", "max_depth": 3})
    return take(tracer.render(scene(), spp=64), tracer)


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("kind", ["tensor", "tensor and integrator", "bitmap"])
def test_aov_in_all_pixel_formats(pixel_format: str, kind: str) -> None:
    if kind == "tensor and integrator" and pixel_format.startswith("xyz"):
        pytest.skip("only the scene knows")
    if kind == "tensor and integrator" and pixel_format.startswith("lum"):
        pytest.skip("as bitmap")
    loaded = scene(pixel_format)
    sensor = loaded.sensors()[0]
    to_sensor = sensor.world_transform().inverse()
    tensor = mi.render(loaded, spp=64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if kind == "tensor":
            frame = take(tensor, loaded)
        elif kind == "bitmap":
            frame = take(sensor.film().bitmap(), None, Words(to_sensor=to_sensor))
        else:
            frame = take(tensor, loaded.integrator(), Words(to_sensor=to_sensor))
    expected = reference()
    assert frame.names == ("primal", "albedo", "normal", "depth")
    primal = expected.primal
    if pixel_format.startswith("luminance"):
        primal = (primal @ torch.tensor([0.2126, 0.7152, 0.0722]))[..., None].expand(-1, -1, 3)
    torch.testing.assert_close(frame.primal.mean((0, 1)), primal.mean((0, 1)), rtol=0.02, atol=0)
    inner = (expected.albedo[..., 0] > 0.795) & (frame.albedo[..., 0] > 0.795)  # no silhouette
    assert inner.sum() > 20
    torch.testing.assert_close(frame.normal[inner], expected.normal[inner], rtol=0, atol=0.1)
    torch.testing.assert_close(frame.albedo[inner], expected.albedo[inner], rtol=0, atol=0.03)
    torch.testing.assert_close(frame.depth[inner], expected.depth[inner], rtol=0.03, atol=0)


def test_normals_of_aov_are_in_world_space_whatever_their_name() -> None:
    loaded = scene(integrator=aov("normal:sh_normal"))
    tensor = mi.render(loaded, spp=4)
    with pytest.warns(UserWarning, match="'normal' are in world space and are left out"):
        assert "normal" not in take(tensor, loaded.integrator())
    bitmap = loaded.sensors()[0].film().bitmap()
    with pytest.warns(UserWarning, match="'normal' may be in world space and are left out"):
        assert "normal" not in take(bitmap)


@pytest.mark.parametrize("kind", ["tensor", "bitmap"])
def test_path_renders(kind: str) -> None:
    loaded = scene(integrator={"type": "path", "max_depth": 3})
    tensor = mi.render(loaded, spp=4)
    source = tensor if kind == "tensor" else loaded.sensors()[0].film().bitmap()
    image = denoise(source, "none")
    assert type(image) is type(source)
    np.testing.assert_array_equal(np.array(image), np.array(tensor))
    assert np.array(denoise(source)).shape == (8, 12, 3)
    assert take(tensor, loaded).names == ("primal",)


def test_words_of_the_optix_denoiser() -> None:
    """The tutorial's call, with the name of the function changed."""
    loaded = scene(integrator=aov("albedo:albedo,normals:sh_normal"))
    mi.render(loaded, spp=4)
    sensor = loaded.sensors()[0]
    noisy, to_sensor = sensor.film().bitmap(), sensor.world_transform().inverse()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clean = denoise(noisy, albedo_ch="albedo", normals_ch="normals", to_sensor=to_sensor)
        frame = take(noisy, None, Words(to_sensor=to_sensor))
    assert clean.pixel_format() == mi.Bitmap.PixelFormat.RGB
    np.testing.assert_array_equal(np.array(clean), denoise(frame).numpy())


@pytest.mark.parametrize("pixel_format", ["luminance", "luminance_alpha", "xyz", "xyza"])
def test_gdpt_on_a_film_without_rgb(pixel_format: str) -> None:
    loaded = scene(pixel_format, {"type": "gdpt"})
    tensor = mi.render(loaded, spp=2)
    assert denoise(tensor, "poisson-l2", layout=loaded).shape == (8, 12, 3)
    with pytest.raises(LayoutError, match=f"pixel_format is '{pixel_format[:3]}"):
        denoise(loaded.sensors()[0].film().bitmap(), "poisson-l2")


def test_a_scene_without_integrator_does_not_say() -> None:
    loaded = mi.load_dict({"type": "scene", "ball": {"type": "sphere"}})
    with pytest.raises(LayoutError, match="no integrator"):
        take(torch.rand(4, 4, 5), loaded)


def test_another_integrator() -> None:
    loaded = scene()
    with pytest.raises(LayoutError, match="got a tensor with 20 channels"):
        take(torch.rand(4, 4, 20), loaded.integrator())
