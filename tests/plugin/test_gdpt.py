"""The plugin as a citizen of Mitsuba: parameters, film, passes, features, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.errors import ConfigError, VariantError
from mitsuba_gdpt.integrators.parameters import Parameters
from tests.statistical.cases import bitmap, camera, checker, lamp, quad, rgb, stage

DIFFUSE = {"type": "diffuse", "reflectance": {"type": "rgb", "value": [0.4, 0.6, 0.3]}}

#: The same random numbers as those of Mitsuba's ``path``, independent between samples, and the same
#: choice of emitters.
AS_PATH = {
    "shared_subpixel": False,
    "stratified": False,
    "emitter_importance": False,
    "rr_depth": 100,  # roulette is another one
}


def render(
    scene: Any, spp: int = 4, seed: int = 0, **options: Any
) -> tuple[dict[str, np.ndarray], Any]:
    """Render; returns the buffers by name and the integrator."""
    import mitsuba as mi

    scene = mi.load_dict(scene) if isinstance(scene, dict) else scene
    integrator = mi.load_dict({"type": "gdpt", "max_depth": 5} | options)
    image = np.array(mi.render(scene, integrator=integrator, spp=spp, seed=seed))
    return {name: image[..., s] for name, s in integrator.layout.slices.items()}, integrator


def only(bsdf: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A big ball of one material that fills most of the frame, under a uniform sky."""
    ball = {"type": "sphere", "center": [0, 0.75, 0], "radius": 1.2, "bsdf": bsdf}
    return {
        "type": "scene",
        "sensor": camera(),
        "ball": ball,
        "sky": {"type": "constant", "radiance": rgb(1, 1, 1)},
    } | more


# ---------------------------------------------------------------------------------- interface


@pytest.mark.usefixtures("variants_llvm")
def test_render_from_dict_and_xml_agree() -> None:
    import mitsuba as mi

    scene = mi.load_dict(stage(DIFFUSE))
    a = mi.render(scene, integrator=mi.load_dict({"type": "gdpt", "max_depth": 3}), spp=2)
    xml = mi.load_string(
        "<scene version='3.0.0'><integrator type='gdpt'><integer name='max_depth' value='3'/>"
        "</integrator></scene>"
    )
    b = mi.render(scene, integrator=xml.integrator(), spp=2)
    assert a.shape == (20, 20, Layout.make().count)
    assert np.array_equal(np.array(a), np.array(b))


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_parameters_reach_the_integrator() -> None:
    import mitsuba as mi

    options = {"max_depth": 7, "hide_emitters": True, "features": "roughness, position"}
    integrator = mi.load_dict({"type": "gdpt", **options})
    assert integrator.parameters == Parameters(**options)
    assert str(integrator) == str(integrator.parameters)
    assert "max_depth" in type(integrator).__doc__
    integrator.max_depth = 3
    assert integrator.parameters.max_depth == 3
    with pytest.raises(ConfigError, match="max_depth"):
        integrator.max_depth = 2.5


@pytest.mark.usefixtures("device_variant")
@pytest.mark.parametrize("pixel_format", ["rgb", "rgba"])
def test_film_has_named_layers(pixel_format: str, tmp_path: Any) -> None:
    import mitsuba as mi

    sensor = camera()
    sensor["film"]["pixel_format"] = pixel_format
    scene = mi.load_dict(only(DIFFUSE, sensor=sensor))
    integrator = mi.load_dict({"type": "gdpt", "features": "diffuse", "variances": True})
    image = np.array(mi.render(scene, integrator=integrator, spp=4))
    film = scene.sensors()[0].film()
    film.write(str(tmp_path / "film.exr"))
    written = mi.Bitmap(str(tmp_path / "film.exr"))
    names = [written.struct_()[i].name for i in range(len(written.struct_()))]
    values = np.array(written)
    for i, channel in enumerate(integrator.layout.channels):
        assert np.allclose(values[..., names.index(channel)], image[..., i], rtol=1e-6), channel
    assert ("A" in names) == (pixel_format == "rgba")


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_alpha_is_that_of_path() -> None:
    import mitsuba as mi

    sensor = camera()
    sensor["film"]["pixel_format"] = "rgba"
    scene = mi.load_dict(stage(DIFFUSE, sensor=sensor))
    integrator = mi.load_dict({"type": "gdpt", "max_depth": 4} | AS_PATH)
    mi.render(scene, integrator=integrator, spp=16)
    ours = np.array(scene.sensors()[0].film().bitmap())[..., 3]
    path = mi.load_dict({"type": "path", "max_depth": 4})
    theirs = np.array(mi.render(scene, integrator=path, spp=16))[..., 3]
    assert 0 < ours.mean() < 1
    assert np.allclose(ours, theirs, atol=1e-6)


@pytest.mark.usefixtures("variants_llvm")
def test_nested_in_moment_it_is_the_plain_path() -> None:
    import mitsuba as mi

    scene = mi.load_dict(stage(DIFFUSE))
    nested = {"type": "gdpt", "max_depth": 3}
    moment = mi.load_dict({"type": "moment", "nested": nested})
    names = moment.aov_names()
    image = np.array(mi.render(scene, integrator=moment, spp=64))
    path = np.array(
        mi.render(scene, integrator=mi.load_dict({"type": "path", "max_depth": 3}), spp=64)
    )
    assert np.allclose(image[..., : path.shape[2]], path, rtol=1e-3, atol=1e-4)
    offset = image.shape[2] - len(names)
    gradient = [i for i, name in enumerate(names) if "dx.R" in name]
    albedo = [i for i, name in enumerate(names) if "albedo.R" in name]
    assert gradient
    assert albedo
    assert np.all(image[..., [offset + i for i in gradient]] == 0)
    assert image[..., offset + albedo[0]].max() > 0.2


@pytest.mark.usefixtures("device_variant")
def test_unshared_primal_is_path_sample_by_sample() -> None:
    import mitsuba as mi

    scene = mi.load_dict(stage({"type": "roughplastic"}))
    ours, _ = render(scene, 16, seed=3, max_depth=6, **AS_PATH)
    path = mi.load_dict({"type": "path", "max_depth": 6, "rr_depth": 100})
    theirs = np.array(mi.render(scene, integrator=path, spp=16, seed=3))
    assert np.allclose(ours["primal"], theirs, rtol=1e-3, atol=1e-4)


# -------------------------------------------------------------------------------------- passes


@pytest.mark.usefixtures("device_variant")
def test_same_seed_same_image_and_other_seed_other_image() -> None:
    scene = stage({"type": "dielectric"})
    a, b, c = (render(scene, seed=s, variances=True)[0] for s in (5, 5, 6))
    for name in a:
        assert np.array_equal(a[name], b[name]), name
    assert not np.array_equal(a["primal"], c["primal"])


@pytest.mark.usefixtures("device_variant")
@pytest.mark.parametrize("max_lanes", [1 << 22, 20 * 16 * 7, 100, 1])
def test_tiles_do_not_show(max_lanes: int) -> None:
    """Noise-free buffers (shared sub-pixels) must not depend on how the frame is split."""
    options = {"features": "position", "max_depth": 2}
    whole, _ = render(stage(DIFFUSE), 16, **options)
    split, _ = render(stage(DIFFUSE), 16, max_lanes=max_lanes, **options)
    for name in ("albedo", "normal", "depth", "position"):
        assert np.allclose(whole[name], split[name], atol=1e-5), name
    # Gradients across the seams exist and have the same size as elsewhere.
    assert np.allclose(np.abs(split["dy"]).mean(), np.abs(whole["dy"]).mean(), rtol=0.2)


@pytest.mark.usefixtures("device_variant")
def test_progress_is_reported_per_tile() -> None:
    from mitsuba_gdpt import progress

    seen: list[float] = []

    class Task:
        def advance(self, amount: float = 1.0) -> None:
            seen.append(amount)

        def close(self) -> None:
            seen.append(-1)

    class Reporter:
        def start(self, description: str, total: float) -> Task:
            seen.append(total)
            return Task()

    with progress.reporting(Reporter()):
        render(stage(DIFFUSE), 4, max_lanes=20 * 4 * 5)
    assert seen == [400, 100, 100, 100, 100, -1]


@pytest.mark.usefixtures("variants_llvm")
def test_border_rule() -> None:
    buffers, _ = render(stage(DIFFUSE))
    assert np.all(buffers["dx"][:, -1] == 0)
    assert np.all(buffers["dy"][-1] == 0)
    assert np.all(np.abs(buffers["dx"][:, -2]).sum(0) > 0)
    assert np.all(np.abs(buffers["dy"][-2]).sum(0) > 0)


@pytest.mark.usefixtures("device_variant")
def test_constant_scene_has_no_gradient() -> None:
    buffers, _ = render({"type": "scene", "sensor": camera(), "sky": {"type": "constant"}})
    assert np.allclose(buffers["primal"], 1, atol=1e-6)
    assert np.all(buffers["dx"] == 0)
    assert np.all(buffers["dy"] == 0)


@pytest.mark.usefixtures("device_variant")
def test_variances_predict_the_scatter_between_renders() -> None:
    scene = stage(DIFFUSE)
    runs = [render(scene, 16, seed=s, variances=True, **AS_PATH)[0] for s in range(128)]
    for name in ("primal", "dx", "dy", "albedo", "depth"):
        scatter = np.var([r[name] for r in runs], axis=0, ddof=1).mean()
        predicted = np.mean([r[f"{name}.var"] for r in runs])
        assert predicted == pytest.approx(scatter, rel=0.15), name


# ------------------------------------------------------------------------------------ features


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize(
    ("bsdf", "low", "high"),
    [
        (DIFFUSE, [0.39, 0.59, 0.29], [0.41, 0.61, 0.31]),
        (
            {"type": "roughconductor", "material": "Cu", "alpha": 0.1},
            [0.8, 0.4, 0.3],
            [1, 0.8, 0.7],
        ),
        (
            {"type": "roughconductor", "material": "Cu", "alpha": 0.02},
            [0.8, 0.4, 0.3],
            [1, 0.8, 0.7],
        ),
        ({"type": "roughdielectric", "alpha": 0.1}, [0.9] * 3, [1] * 3),
        (
            {"type": "plastic", "diffuse_reflectance": rgb(0.2, 0.3, 0.6)},
            [0.19, 0.29, 0.59],
            [0.21, 0.31, 0.61],
        ),
        (
            {"type": "roughplastic", "diffuse_reflectance": rgb(0.2, 0.3, 0.6)},
            [0.19, 0.29, 0.59],
            [0.21, 0.31, 0.61],
        ),
        (
            {"type": "principled", "base_color": rgb(0.8, 0.4, 0.2), "metallic": 1.0},
            [0.79, 0.39, 0.19],
            [0.81, 0.41, 0.21],
        ),
        (
            {"type": "twosided", "n": {"type": "conductor", "material": "Au"}},
            [0.9, 0.6, 0.2],
            [1, 0.9, 0.7],
        ),
    ],
    ids=lambda v: v["type"] if isinstance(v, dict) else "",
)
def test_albedo_means_the_same_everywhere(bsdf: Any, low: list[float], high: list[float]) -> None:
    buffers, _ = render(only(bsdf), 16)
    assert buffers["albedo"].min() >= 0
    assert buffers["albedo"].max() <= 1
    centre = buffers["albedo"][8:12, 8:12].mean((0, 1))
    assert np.all(centre >= low), centre
    assert np.all(centre <= high), centre


@pytest.mark.usefixtures("variants_llvm")
def test_albedo_of_white_is_white() -> None:
    buffers, _ = render(only({"type": "diffuse", "reflectance": rgb(1, 1, 1)}), 256)
    assert np.allclose(buffers["albedo"][8:12, 8:12].mean((0, 1)), 1, atol=0.03)


@pytest.mark.usefixtures("device_variant")
def test_features_follow_glass_and_mirrors() -> None:
    wall = {
        "type": "rectangle",
        "to_world": camera()["to_world"].translate([0, 0, 6]).rotate([0, 1, 0], 180).scale(9),
        "bsdf": {"type": "twosided", "n": DIFFUSE},
    }
    pane = {
        "type": "rectangle",
        "to_world": camera()["to_world"].translate([0, 0, 2]).rotate([0, 1, 0], 180).scale(9),
        "bsdf": {"type": "thindielectric"},
    }
    scene = {"type": "scene", "sensor": camera(), "wall": wall, "sky": {"type": "constant"}}
    direct, _ = render(scene, 16)
    behind, _ = render(scene | {"pane": pane}, 256)
    straight = behind["albedo"][10, 10] / direct["albedo"][10, 10]
    assert np.all(straight > 0.8)  # the rest is reflected into the empty sky
    assert behind["depth"][10, 10] == pytest.approx(direct["depth"][10, 10], rel=0.25)
    mirror = scene | {
        "pane": pane
        | {"bsdf": {"type": "conductor"}, "to_world": pane["to_world"].rotate([0, 1, 0], 0)},
        "wall": wall | {"to_world": camera()["to_world"].translate([0, 0, -1]).scale(9)},
    }
    reflected, _ = render(mirror, 16)
    # 2 to the mirror and 3 back to the wall behind the camera
    assert reflected["depth"][10, 10, 0] == pytest.approx(5, rel=0.02)
    assert np.allclose(reflected["albedo"][10, 10], [0.4, 0.6, 0.3], atol=1e-3)


@pytest.mark.usefixtures("device_variant")
def test_geometry_features() -> None:
    features = {"features": "position,roughness,visibility"}
    buffers, _ = render(only(DIFFUSE), 64, **features)
    centre, corner = (10, 10), (0, 0)
    assert np.allclose(np.linalg.norm(buffers["normal"], axis=-1)[centre], 1, atol=0.02)
    assert buffers["normal"][centre][2] < -0.9  # towards the camera, which looks along +Z
    distance = np.linalg.norm([0, 1.4 - 0.75, 4.2]) - 1.2
    assert buffers["depth"][centre][0] == pytest.approx(distance, abs=0.05)
    assert np.linalg.norm(buffers["position"][centre]) == pytest.approx(distance, abs=0.05)
    assert buffers["roughness"][centre] == 1
    # Shadow rays go where the sky is likely to be seen. Half of all directions are below the
    # horizon of the ball, or behind it.
    assert 0.7 < buffers["visibility"][centre] <= 1
    evenly, _ = render(only(DIFFUSE), 64, emitter_importance=False, **features)
    assert 0.2 < evenly["visibility"][centre] < 0.6
    assert buffers["depth"][corner] == 0
    assert np.all(buffers["albedo"][corner] == 0)
    assert np.linalg.norm(buffers["normal"][corner]) == pytest.approx(1, abs=0.01)


@pytest.mark.usefixtures("device_variant")
def test_emission_is_what_is_seen_emitted() -> None:
    """Directly or in mirrors: of one bounce it is all there is, of a diffuse ball nothing."""
    for bsdf, depth in ((DIFFUSE, 1), ({"type": "conductor"}, 2), ({"type": "conductor"}, 12)):
        buffers, _ = render(only(bsdf), 16, features="emission", max_depth=depth)
        np.testing.assert_allclose(buffers["emission"], buffers["primal"], rtol=1e-5, atol=1e-6)
    buffers, _ = render(only(DIFFUSE), 16, features="emission,diffuse,specular")
    assert np.all(buffers["emission"][8:12, 8:12] == 0)
    assert buffers["primal"][8:12, 8:12].min() > 0
    np.testing.assert_allclose(buffers["emission"][0, 0], buffers["primal"][0, 0], rtol=1e-5)
    hidden, _ = render(only(DIFFUSE), 4, features="emission", hide_emitters=True)
    assert np.all(hidden["emission"] == 0)


@pytest.mark.usefixtures("device_variant")
@pytest.mark.parametrize("shifts", [0, 1])
def test_direct_light_is_that_of_the_feature_vertex(shifts: int) -> None:
    """Of rough surfaces what paths of two bounces bring; in a mirror, what it shows of the same."""
    import mitsuba as mi

    place = mi.ScalarTransform4f().translate([0, -1, 0]).rotate([1, 0, 0], -90).scale(5)
    floor = {"type": "rectangle", "bsdf": DIFFUSE, "to_world": place}
    room = {**only(DIFFUSE), "floor": floor}
    options: dict[str, Any] = {"features": "direct", "shifts": shifts}
    whole, _ = render(room, 16, **options, max_depth=8)
    two, _ = render(room, 16, **options, max_depth=2)
    np.testing.assert_allclose(whole["direct"], two["primal"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(two["direct"], two["primal"], rtol=1e-5, atol=1e-6)
    rest = whole["primal"] - whole["direct"]
    assert rest.min() > -1e-5 * whole["primal"].max()
    assert rest[8:12, 8:12].mean() > 0.05 * whole["primal"][8:12, 8:12].mean()
    shown = {**only({"type": "conductor"}), "floor": floor}
    mirrored, _ = render(shown, 64, **options, max_depth=3)
    np.testing.assert_allclose(
        mirrored["direct"][8:12, 8:12], mirrored["primal"][8:12, 8:12], rtol=1e-4
    )
    assert mirrored["direct"][8:12, 8:12].min() > 0
    hidden, _ = render(only(DIFFUSE), 4, **options, hide_emitters=True)
    assert np.all(hidden["direct"][0, 0] == 0)
    assert hidden["direct"][8:12, 8:12].min() > 0


@pytest.mark.usefixtures("device_variant")
def test_roughness_through_wrappers() -> None:
    nested = {"type": "roughconductor", "alpha": 0.3}
    for bsdf, expected in (
        ({"type": "twosided", "n": nested}, 0.3),
        ({"type": "bumpmap", "t": bitmap(np.full((4, 4, 1), 0.5)), "n": nested}, 0.3),
        ({"type": "principled", "roughness": 0.5}, 0.25),
        ({"type": "plastic"}, 1.0),
    ):
        buffers, _ = render(only(bsdf), 4, features="roughness")
        assert buffers["roughness"][10, 10, 0] == pytest.approx(expected, abs=1e-3), bsdf


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_roughness_is_that_of_every_bsdf() -> None:
    import drjit as dr
    import mitsuba as mi

    from mitsuba_gdpt.integrators.features import roughness_table

    def rough(bsdf: dict[str, Any]) -> float:
        scene = mi.load_dict({"type": "scene", "s": {"type": "sphere", "bsdf": bsdf}})
        index = dr.reinterpret_array(mi.UInt32, mi.BSDFPtr(scene.shapes()[0].bsdf()))
        return float(roughness_table(scene)[index[0]])

    half = np.full((8, 8, 1), 0.2)
    half[:4] = 0.6
    checks = {"type": "checkerboard", "color0": 0.1, "color1": 0.5}
    conductor = {"type": "roughconductor", "alpha": bitmap(half)}
    for bsdf, expected in (
        ({"type": "roughconductor", "alpha": 0.1}, 0.1),
        ({"type": "roughconductor", "alpha_u": 0.3, "alpha_v": 0.2}, 0.2),
        ({"type": "roughplastic", "alpha": 0.3}, 0.3),
        ({"type": "roughdielectric", "alpha": checks}, 0.3),
        (conductor, 0.4),
        ({"type": "twosided", "nested": conductor}, 0.4),
        ({"type": "blendbsdf", "weight": 0.5, "a": {"type": "diffuse"}, "b": conductor}, 0.4),
        ({"type": "principled", "roughness": bitmap(half)}, (0.04 + 0.36) / 2),
        ({"type": "principled", "roughness": checks}, 0.13),
        ({"type": "hair"}, 0.5),
        ({"type": "dielectric"}, 0.0),
        ({"type": "diffuse"}, 1.0),
    ):
        assert rough(bsdf) == pytest.approx(expected, abs=1e-2), bsdf  # textures are blurred

    group = {"type": "shapegroup", "s": {"type": "sphere", "bsdf": conductor}}
    placed = {"type": "instance", "r": {"type": "ref", "id": "g"}}
    buffers, _ = render(
        {"type": "scene", "sensor": camera(), "g": group, "i": placed, "e": {"type": "constant"}},
        features="roughness",
    )
    assert buffers["roughness"][12, 10, 0] == pytest.approx(0.4, abs=2e-3)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_roughness_of_a_mesh_attribute() -> None:
    import mitsuba as mi

    from mitsuba_gdpt.integrators.features import roughness_table

    mesh = mi.Mesh("quad", 4, 2, has_vertex_texcoords=False)
    bsdf = {"type": "roughconductor", "alpha": {"type": "mesh_attribute", "name": "vertex_rough"}}
    mesh.add_attribute("vertex_rough", 1, [0.1, 0.2, 0.3, 0.6])
    mesh.set_bsdf(mi.load_dict(bsdf))
    scene = mi.load_dict({"type": "scene", "mesh": mesh})
    assert min(roughness_table(scene)) == pytest.approx(0.3)


@pytest.mark.usefixtures("device_variant")
def test_diffuse_and_specular_add_up_to_the_primal() -> None:
    buffers, _ = render(
        stage({"type": "roughplastic", "alpha": 0.2}), 16, features="diffuse,specular"
    )
    assert np.allclose(buffers["diffuse"] + buffers["specular"], buffers["primal"], atol=1e-5)
    assert buffers["specular"][12:15, 9:12].mean() > 0
    matt, _ = render(only(DIFFUSE), 4, features="diffuse,specular")
    assert np.allclose(matt["specular"][8:12, 8:12], 0, atol=1e-5)
    metal, _ = render(only({"type": "roughconductor"}), 4, features="diffuse,specular")
    assert np.allclose(metal["diffuse"], 0, atol=1e-6)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_features_behind_a_mask() -> None:
    """Holes show what lies behind; the leaf keeps its own colour, not colour times opacity."""
    leaf = quad(1.1) | {"bsdf": {"type": "mask", "opacity": 0.5, "n": DIFFUSE}}
    scene = {"type": "scene", "sensor": camera(), "leaf": leaf, "lamp": lamp()}
    buffers, _ = render(scene, 256)
    inside = buffers["albedo"][8, 11]
    assert np.allclose(inside, 0.5 * np.array([0.4, 0.6, 0.3]), rtol=0.15), inside


# ----------------------------------------------------------------------------------- bad input


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("spp", [1, 4])
@pytest.mark.parametrize(
    "scene",
    [
        {"s": {"type": "sphere", "radius": 3.0}, "e": {"type": "constant"}},
        {"e": {"type": "constant"}},
        {"s": {"type": "sphere", "radius": 3.0, "emitter": {"type": "area", "radiance": 0.0}}},
        {"s": {"type": "sphere", "radius": 3.0, "bsdf": {"type": "diffuse", "reflectance": 0.0}}},
    ],
    ids=["sky", "sky only", "lamp that is off", "no light"],
)
def test_what_is_the_same_in_all_samples_counts_for_all(scene: dict[str, Any], spp: int) -> None:
    """Dr.Jit keeps it as one number, of which a sum over samples has to know."""
    import mitsuba as mi

    sensor = camera()
    sensor["film"] |= {"pixel_format": "rgba", "width": 3, "height": 3}
    loaded = mi.load_dict({"type": "scene", "sensor": sensor} | scene)
    features = "position,visibility,diffuse,specular,roughness,emission,direct"
    options = {"features": features, "variances": spp > 1, "max_depth": 2}
    buffers, integrator = render(loaded, spp, **options)
    assert integrator.nonfinite_samples == 0
    ours = np.array(loaded.sensors()[0].film().bitmap())[..., :4]
    assert np.all(ours[..., 3] == 1)
    if len(loaded.shapes()) == 0:
        for name in ("primal", "emission", "direct", "specular", "visibility"):
            assert np.allclose(buffers[name], 1), name
        for name in ("diffuse", "albedo", "depth", "position", "dx", "dy", "roughness"):
            assert np.all(buffers[name] == 0), name


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_each_camera_of_a_batch_has_its_own_frame() -> None:
    import mitsuba as mi

    T = mi.ScalarTransform4f()
    origins = ([0, 3, 5], [5, 3, 0], [-4, 2, -3])
    views = [T.look_at(origin, [0, 0, 0], [0, 1, 0]) for origin in origins]

    def make(sensor: dict[str, Any]) -> Any:
        return mi.load_dict(only(DIFFUSE, sensor=sensor))

    def view(i: int, **more: Any) -> dict[str, Any]:
        return {"type": "perspective", "fov": 40, "to_world": views[i]} | more

    def film(width: int) -> dict[str, Any]:
        return camera()["film"] | {"width": width, "height": 4}

    cameras = {f"camera{i}": view(i) for i in range(3)}
    both, _ = render(make({"type": "batch", "film": film(12), **cameras}), 8, features="position")
    for i in range(3):
        alone, _ = render(make(view(i, film=film(4))), 8, features="position")
        for name in ("normal", "position", "depth", "albedo"):
            part = both[name][:, 4 * i : 4 * i + 4]
            assert np.allclose(part, alone[name], atol=0.2), (i, name)
            assert np.allclose(part.mean((0, 1)), alone[name].mean((0, 1)), atol=0.03), (i, name)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_sensors_need_no_more_than_mitsuba_asks_of_them() -> None:
    import mitsuba as mi

    film = camera()["film"] | {"width": 1, "height": 1}
    disk = {"type": "disk", "sensor": {"type": "irradiancemeter", "film": film}}
    scene = {"type": "scene", "d": disk, "e": {"type": "constant", "radiance": 1.0}}
    buffers, _ = render(mi.load_dict(scene), 16)
    assert np.allclose(buffers["primal"], np.pi, rtol=1e-5)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_differentiation_is_refused_by_name() -> None:
    import drjit as dr
    import mitsuba as mi

    scene = mi.load_dict(only(DIFFUSE))
    params = mi.traverse(scene)
    key = next(key for key in params.keys() if "reflectance" in key)  # noqa: SIM118
    dr.enable_grad(params[key])
    params.update()
    integrator = mi.load_dict({"type": "gdpt"})
    image = mi.render(scene, params, integrator=integrator, spp=1)
    for derive in (dr.backward, lambda image: dr.forward(params[key])):
        with pytest.raises((RuntimeError, ConfigError), match="gdpt is not differentiable"):
            derive(image)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_integrators_and_scenes_of_another_variant_are_refused() -> None:
    import mitsuba as mi

    old, old_scene = mi.load_dict({"type": "gdpt"}), mi.load_dict(only(DIFFUSE))
    mi.set_variant("llvm_ad_mono")
    new, scene = mi.load_dict({"type": "gdpt"}), mi.load_dict(only(DIFFUSE))
    for integrator, what in ((old, old_scene), (old, scene), (new, old_scene)):
        with pytest.raises(VariantError, match=r"variant.*mi\.set_variant"):
            integrator.render(what, spp=1)


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_depth": -2}, "max_depth.*-2.*expected"),
        ({"rr_depth": 0}, "rr_depth.*0.*expected"),
        ({"shifts": 3}, "shifts.*3.*expected 0, 1, 2 or 4"),
        ({"features": "colour"}, "colour.*position"),
        ({"max_lanes": 0}, "max_lanes"),
        ({"no_such_parameter": 1}, "no_such_parameter"),
    ],
)
def test_bad_parameters(options: dict[str, Any], message: str) -> None:
    import mitsuba as mi

    with pytest.raises(RuntimeError, match=f"(?s){message}"):
        mi.load_dict({"type": "gdpt"} | options)


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize(
    ("options", "spp", "message"),
    [
        ({}, -1, "spp is -1"),
        ({}, 2.5, "spp is 2.5; expected 1 to"),
        ({}, float("nan"), "spp is nan"),
        ({}, 10**12, "spp is 1000000000000; expected 1 to 4294967295"),
        ({"variances": True}, 1, "needs at least 2"),
        ({"variances": True, "shifts": 2}, 1, "needs at least 2"),
    ],
)
def test_bad_sample_counts(options: dict[str, Any], spp: int, message: str) -> None:
    import mitsuba as mi

    scene = mi.load_dict(stage(DIFFUSE))
    integrator = mi.load_dict({"type": "gdpt"} | options)
    with pytest.raises(ConfigError, match=message):
        integrator.render(scene, spp=spp)


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sensor": None}, "the sensor is None; expected the index"),
        ({"sensor": "0"}, "the sensor is '0'; expected the index"),
        ({"sensor": 0.0}, r"the sensor is 0\.0; expected the index"),
        ({"sensor": np.int64(3)}, "sensor 3 was asked for, but the scene has 1"),
        ({"first": -1}, "first is -1; expected at least 0"),
        ({"first": 2**32}, "first is 4294967296; expected at most"),
        ({"first": 1.5}, r"first is 1\.5; expected a whole number"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    import mitsuba as mi

    scene, integrator = mi.load_dict(stage(DIFFUSE)), mi.load_dict({"type": "gdpt"})
    with pytest.raises(ConfigError, match=message):
        integrator.render(scene, spp=1, **arguments)
    numbered = integrator.render(scene, spp=1, sensor=np.int64(0))
    assert np.array_equal(numbered, integrator.render(scene, spp=1, sensor=scene.sensors()[0]))


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_one_sample_takes_two_shifts() -> None:
    import mitsuba as mi

    scene = mi.load_dict(stage(DIFFUSE))

    def render(shifts: int) -> np.ndarray:
        integrator = mi.load_dict({"type": "gdpt", "shifts": shifts})
        return np.array(integrator.render(scene, spp=1, seed=3))

    np.testing.assert_array_equal(render(1), render(2))
    assert not np.array_equal(render(2), render(4))


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize(("shifts", "spp"), [(1, 2), (1, 3), (2, 1)])
def test_gradients_of_few_samples(shifts: int, spp: int) -> None:
    """Each difference comes from one of its pixels: from both in turn, and right on average."""
    import mitsuba as mi

    scene = mi.load_dict(stage(DIFFUSE))
    buffers, _ = render(scene, 512, seed=77, shifts=4)
    expected = np.concatenate([buffers["dx"], buffers["dy"]], -1)
    few = mi.load_dict({"type": "gdpt", "max_depth": 5, "shifts": shifts})
    gradients = [few.layout.slices["dx"], few.layout.slices["dy"]]
    runs = []
    for seed in range(400):
        image = np.array(mi.render(scene, integrator=few, spp=spp, seed=seed))
        runs.append(np.concatenate([image[..., s] for s in gradients], -1))
    # Sums over the image with random signs, and its rows and columns: of each a mean over renders.
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (24, *expected.shape))
    errors = np.stack(runs) - expected
    sums = np.einsum("khwc,nhwc->nk", signs, errors)
    deviation = sums.mean(0) / (sums.std(0, ddof=1) / len(runs) ** 0.5)
    assert np.abs(deviation).max() < 5, deviation
    # The signal is far above what would go unseen.
    signal = np.einsum("khwc,hwc->k", signs, expected) / (sums.std(0, ddof=1) / len(runs) ** 0.5)
    assert np.abs(signal).max() > 10


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("spp", [2, 3])
def test_variance_of_a_gradient_from_one_sample_is_an_upper_bound(spp: int) -> None:
    """Its mean is that of the squares: the variance over many renders plus a square, not less."""
    import mitsuba as mi

    scene = mi.load_dict(stage(DIFFUSE))
    integrator = mi.load_dict({"type": "gdpt", "shifts": 2, "variances": True})
    slices = integrator.layout.slices
    renders = np.stack(
        [np.array(integrator.render(scene, spp=spp, seed=seed)) for seed in range(200)]
    )
    for name in ("dx", "dy"):
        inside = renders[:, :-1, :-1]
        spread = inside[..., slices[name]].var(0).mean(-1)
        claimed = inside[..., slices[name + ".var"]].mean(0)[..., 0]
        assert bool(np.isfinite(renders).all())
        assert claimed.sum() > 0.95 * spread.sum()
        assert claimed.sum() < 10 * spread.sum(), "a bound that says something"


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_what_is_ignored_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    import mitsuba as mi

    sensor = camera()
    sensor["film"]["rfilter"] = {"type": "gaussian"}
    smoke = {"type": "sphere", "bsdf": {"type": "null"}, "interior": {"type": "homogeneous"}}
    for scene, word in (
        (stage(DIFFUSE, sensor=sensor), "box filter"),
        (stage(DIFFUSE, smoke=smoke), "media are ignored"),
    ):
        loaded = mi.load_dict(scene)
        integrator = mi.load_dict({"type": "gdpt", "max_depth": 2})
        for _ in range(2):
            mi.render(loaded, integrator=integrator, spp=1)
        assert "".join(capfd.readouterr()).count(word) == 1, word
    render(stage(DIFFUSE), 1)
    assert "gdpt" not in "".join(capfd.readouterr())


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_scene_without_emitters_is_black() -> None:
    scene = stage(DIFFUSE)
    del scene["light"]
    buffers, _ = render(scene)
    assert np.all(buffers["primal"] == 0)
    assert np.all(buffers["dx"] == 0)
    assert buffers["albedo"].max() > 0.3


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_scene_without_sensors() -> None:
    import mitsuba as mi

    from mitsuba_gdpt.errors import ConfigError

    scene = mi.load_dict({"type": "scene", "ball": {"type": "sphere"}})
    with pytest.raises(ConfigError, match="the scene has 0"):
        mi.load_dict({"type": "gdpt"}).render(scene)


@pytest.mark.usefixtures("device_variant")
def test_nan_is_counted_and_does_not_spread(capfd: pytest.CaptureFixture[str]) -> None:
    poison = np.full((8, 8, 3), 0.5, np.float32)
    poison[4, 4] = np.nan
    sheet = quad(0.9) | {
        "bsdf": {"type": "twosided", "n": {"type": "diffuse", "reflectance": bitmap(poison)}}
    }
    buffers, integrator = render(stage(shape=sheet), 16, max_depth=2)
    for name, values in buffers.items():
        assert np.all(np.isfinite(values)), name
    assert 0 < integrator.nonfinite_samples < 400 * 16
    assert "NaN or infinite" in "".join(capfd.readouterr())
    matt = {"type": "twosided", "n": DIFFUSE}
    clean, _ = render(stage(shape=quad(0.9) | {"bsdf": matt}), 16, max_depth=2)
    elsewhere = np.s_[:5, :, :]  # the sheet begins below
    assert buffers["primal"][elsewhere].max() > 0
    for name in ("primal", "dx"):
        assert np.allclose(buffers[name][elsewhere], clean[name][elsewhere], atol=1e-4), name


@pytest.mark.usefixtures("device_variant")
@pytest.mark.parametrize(
    ("kind", "value"), [("sphere", 1e25), ("sphere", 1e38), ("constant", 1e25), ("point", 1e38)]
)
def test_what_is_too_bright_for_sums_is_counted(
    kind: str, value: float, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each sample is finite, but neither their sum nor the squares of their deviations are."""
    light = {"type": "rgb", "value": value}
    light_source = {
        "sphere": {"type": "sphere", "center": [0, 1, 0], "radius": 0.3}
        | {"emitter": {"type": "area", "radiance": light}},
        "constant": {"type": "constant", "radiance": light},
        "point": {"type": "point", "position": [0, 1, 1], "intensity": light},
    }[kind]
    features = "diffuse,specular,direct,emission"
    scene = stage(light=light_source)
    buffers, integrator = render(scene, 16, max_depth=3, features=features, variances=True)
    assert any(name.endswith(".var") for name in buffers)
    for name, values in buffers.items():
        assert np.all(np.isfinite(values)), name
    assert integrator.nonfinite_samples > 0
    assert "beyond 1e+15) and were counted as black" in "".join(capfd.readouterr())


def test_scalar_variant_is_refused() -> None:
    import mitsuba as mi

    mi.set_variant("scalar_rgb")
    with pytest.raises(RuntimeError, match="does not run in the variant 'scalar_rgb'"):
        mi.load_dict({"type": "gdpt"})


@pytest.mark.usefixtures("device_variant")
def test_checkerboard_edges_are_in_the_gradient() -> None:
    """A textured floor: the expected gradient of the primal is in dx, not only its noise."""
    scene = stage(floor={"type": "diffuse", "reflectance": checker()})
    buffers, _ = render(scene, 256, max_depth=2)
    difference = buffers["primal"][:, 1:] - buffers["primal"][:, :-1]
    correlation = np.corrcoef(buffers["dx"][:, :-1].ravel(), difference.ravel())[0, 1]
    assert correlation > 0.98
