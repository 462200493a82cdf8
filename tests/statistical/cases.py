"""Small scenes, one phenomenon each, on which the integrator is tested for bias.

All share a stage: a floor, a back wall and a coloured side wall, an object in front. A case says
what is on the stage and how it is lit and seen.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 20
_folder = tempfile.TemporaryDirectory(prefix="mitsuba_gdpt_test_")  # removed at the end
TMP = Path(_folder.name)


@dataclass(frozen=True)
class Case:
    """A scene and the options of both integrators.

    Attributes:
        name: Test id.
        build: Returns the dictionary for ``mi.load_dict``.
        options: Parameters of ``gdpt`` and ``path`` alike.
        gdpt: Parameters of ``gdpt`` only.
        colours: Kinds of variants to test in.
    """

    name: str
    build: Callable[[], dict[str, Any]]
    options: dict[str, Any] = field(default_factory=dict)
    gdpt: dict[str, Any] = field(default_factory=dict)
    colours: tuple[str, ...] = ("rgb",)


def rgb(*value: float) -> dict[str, Any]:
    return {"type": "rgb", "value": [*value]}


def _transform() -> Any:
    import mitsuba as mi

    return mi.ScalarTransform4f()


def camera(**overrides: Any) -> dict[str, Any]:
    fov = {} if overrides.get("type") == "orthographic" else {"fov": 42}
    return (
        fov
        | {
            "type": "perspective",
            "to_world": _transform().look_at(
                origin=[0, 1.4, 4.2], target=[0, 0.75, 0], up=[0, 1, 0]
            ),
            "film": {
                "type": "hdrfilm",
                "width": SIZE,
                "height": SIZE,
                "rfilter": {"type": "box"},
                "pixel_format": "rgb",
                "component_format": "float32",
            },
            "sampler": {"type": "independent"},
        }
        | overrides
    )


def lamp(radiance: Any = None) -> dict[str, Any]:
    """Area light above the stage, visible at the upper edge of the frame."""
    return {
        "type": "rectangle",
        "to_world": _transform()
        .translate([0.3, 1.9, 0.2])
        .rotate([1, 0, 0], 90)
        .scale([0.5, 0.35, 1]),
        "emitter": {"type": "area", "radiance": radiance or rgb(9, 8, 6)},
    }


def stage(
    bsdf: dict[str, Any] | None = None,
    *,
    shape: dict[str, Any] | None = None,
    light: dict[str, Any] | None = None,
    sensor: dict[str, Any] | None = None,
    floor: dict[str, Any] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Return a scene: three diffuse walls, one object, one light."""
    T = _transform()
    wall = {"type": "twosided", "n": {"type": "diffuse", "reflectance": rgb(0.7, 0.7, 0.65)}}
    red = {"type": "twosided", "n": {"type": "diffuse", "reflectance": rgb(0.7, 0.15, 0.1)}}
    scene = {
        "type": "scene",
        "sensor": sensor or camera(),
        "floor": {
            "type": "rectangle",
            "to_world": T.rotate([1, 0, 0], -90).scale([2, 2, 1]),
            "bsdf": floor or wall,
        },
        "back": {
            "type": "rectangle",
            "to_world": T.translate([0, 1, -1.5]).scale([2, 1.2, 1]),
            "bsdf": wall,
        },
        "side": {
            "type": "rectangle",
            "to_world": T.translate([-1.4, 1, 0]).rotate([0, 1, 0], 90).scale([2, 1.2, 1]),
            "bsdf": red,
        },
        "light": light or lamp(),
    }
    if bsdf is not None or shape is not None:
        default = {"type": "sphere", "center": [0.15, 0.6, 0.3], "radius": 0.6}
        scene["object"] = (shape or default) | ({"bsdf": bsdf} if bsdf else {})
    return scene | more


def quad(height: float = 0.7) -> dict[str, Any]:
    """Tilted rectangle: an object with texture coordinates and a tangent frame."""
    T = _transform()
    return {
        "type": "rectangle",
        "to_world": T.translate([0.2, height, 0.4])
        .rotate([1, 0, 0], -40)
        .rotate([0, 1, 0], 20)
        .scale([0.7, 0.6, 1]),
    }


def checker(a: float = 0.1, b: float = 0.9, scale: float = 5.0) -> dict[str, Any]:
    return {
        "type": "checkerboard",
        "color0": rgb(a, a, a),
        "color1": rgb(b, b * 0.8, b * 0.6),
        "to_uv": _transform().scale([scale, scale, 1]),
    }


def bitmap(values: np.ndarray, raw: bool = True) -> dict[str, Any]:
    import mitsuba as mi

    return {"type": "bitmap", "bitmap": mi.Bitmap(values.astype(np.float32)), "raw": raw}


def _waves(components: int) -> np.ndarray:
    y, x = np.mgrid[0:32, 0:32] / 32 * 2 * np.pi
    if components == 1:
        return (0.5 + 0.5 * np.sin(2 * x) * np.cos(3 * y))[..., None]
    n = np.stack([0.35 * np.sin(2 * x), 0.35 * np.cos(3 * y), np.ones_like(x)], -1)
    return 0.5 + 0.5 * n / np.linalg.norm(n, axis=-1, keepdims=True)


def _environment() -> dict[str, Any]:
    y, x = np.mgrid[0:16, 0:32]
    sky = 0.2 + 0.6 * np.exp(-((x - 10) ** 2 + (y - 4) ** 2) / 6)[..., None] * [6, 5, 4]
    import mitsuba as mi

    return {"type": "envmap", "bitmap": mi.Bitmap(sky.astype(np.float32))}


def striped() -> dict[str, Any]:
    """An environment of which every part is another."""
    import mitsuba as mi

    y, x = np.mgrid[:32, :64]
    picture = np.stack([0.1 + (x % 7 == 3), 0.2 + 0.02 * y, 0.1 + (y % 5 == 1)], -1)
    return {"type": "envmap", "bitmap": mi.Bitmap(picture.astype(np.float32))}


def room(sky: dict[str, Any], window: float = 1.2) -> dict[str, Any]:
    """A closed box with a hole in the ceiling and a ball on the floor, seen from inside."""
    import mitsuba as mi

    T = mi.ScalarTransform4f()

    def wall(transform: Any) -> dict[str, Any]:
        # A cube: of rectangles that Mitsuba merges it does not know the extent, and shadow rays to
        # the sky end too early.
        slab = transform.scale([1, 1, 0.01])
        return {"type": "cube", "to_world": slab, "bsdf": _DIFFUSE}

    rest = (2 - window) / 2
    return {
        "type": "scene",
        "sensor": camera() | {"to_world": T.look_at([0, -1, 1.9], [0, -1.5, 0], [0, 1, 0])},
        "floor": wall(T.translate([0, -2, 0]).rotate([1, 0, 0], -90).scale(2)),
        "left": wall(T.translate([-2, 0, 0]).rotate([0, 1, 0], 90).scale(2)),
        "right": wall(T.translate([2, 0, 0]).rotate([0, 1, 0], -90).scale(2)),
        "back": wall(T.translate([0, 0, -2]).scale(2)),
        "front": wall(T.translate([0, 0, 2]).rotate([0, 1, 0], 180).scale(2)),
        "west": wall(T.translate([-window - rest, 2, 0]).rotate([1, 0, 0], 90).scale([rest, 2, 1])),
        "east": wall(T.translate([window + rest, 2, 0]).rotate([1, 0, 0], 90).scale([rest, 2, 1])),
        "ball": {"type": "sphere", "center": [0.6, -1.5, -0.5], "radius": 0.5, "bsdf": _DIFFUSE},
        "sky": sky,
    }


def _hair() -> dict[str, Any]:
    path = TMP / "strands.txt"
    lines = []
    for i in range(6):
        x = -0.5 + 0.22 * i
        points = [
            (x + 0.05 * np.sin(i + 2 * t), 0.1 + 1.1 * t, 0.6 - 0.2 * t)
            for t in np.linspace(0, 1, 6)
        ]
        lines += [f"{px:.4f} {py:.4f} {pz:.4f} 0.06" for px, py, pz in points] + [""]
    path.write_text("\n".join(lines))
    return {"type": "bsplinecurve", "filename": str(path)}


def _measured() -> dict[str, Any]:
    """Synthetic measurement in the RGL file format: a smooth lobe that varies with incidence."""
    from mitsuba.python import tensor_io  # type: ignore[import-not-found]

    path = TMP / "synthetic.bsdf"
    n, incidences = 8, 4
    u = (np.arange(n) + 0.5) / n
    ndf = np.ones((n, n), np.float32)
    vndf = np.stack([1 + 0.5 * k * np.outer(u, np.ones(n)) for k in range(incidences)])[None]
    luminance = np.stack(
        [0.3 + 0.1 * k + 0.2 * np.outer(np.ones(n), u) for k in range(incidences)]
    )[None]
    tensor_io.write(
        str(path),
        description=np.frombuffer(b"synthetic", np.uint8),
        phi_i=np.zeros(1, np.float32),
        theta_i=np.linspace(0, np.pi / 2, incidences).astype(np.float32),
        ndf=ndf,
        sigma=ndf,
        vndf=vndf.astype(np.float32),
        luminance=luminance.astype(np.float32),
        rgb=np.stack([luminance, luminance * 0.7, luminance * 0.4], 2).astype(np.float32),
        jacobian=np.array([0], np.uint8),
    )
    return {"type": "measured", "filename": str(path)}


def _instances() -> dict[str, Any]:
    T = _transform()
    group = {
        "type": "shapegroup",
        "ball": {
            "type": "sphere",
            "radius": 0.3,
            "bsdf": {"type": "diffuse", "reflectance": rgb(0.3, 0.5, 0.8)},
        },
        "cube": {
            "type": "cube",
            "to_world": T.translate([0, 0.45, 0]).scale(0.18),
            "bsdf": {"type": "roughconductor", "material": "Au", "alpha": 0.2},
        },
    }
    place = {
        f"instance{i}": {
            "type": "instance",
            "to_world": T.translate([x, 0.35, 0.4 * i]).rotate([0, 1, 0], 25 * i),
            "group": {"type": "ref", "id": "group"},
        }
        for i, x in enumerate((-0.6, 0.2, 0.8))
    }
    return stage() | {"group": group} | place


def _hidden() -> dict[str, Any]:
    leaf = {"type": "mask", "opacity": checker(0.0, 1.0), "n": {"type": "diffuse"}}
    return stage(
        {"type": "twosided", "n": {"type": "diffuse"}},
        sky={"type": "constant", "radiance": rgb(0.3, 0.4, 0.6)},
    ) | {"leaf": quad(1.1) | {"bsdf": leaf}}


def _dark_wall() -> dict[str, Any]:
    """A checkered floor whose light all comes from a dark wall, where roulette decides.

    The lamp is close to the wall and shines on nothing else.
    """
    T = _transform()
    place = T.translate([0, 1, -1.1]).rotate([0, 1, 0], 180).scale([0.9, 0.7, 1])
    dark = {"type": "twosided", "n": {"type": "diffuse", "reflectance": rgb(0.2, 0.2, 0.15)}}
    down = T.look_at(origin=[0, 1.5, 1.2], target=[0, 0, 0.2], up=[0, 1, 0])
    scene = stage(
        floor={"type": "twosided", "n": {"type": "diffuse", "reflectance": checker(0.15, 0.85, 8)}},
        light=lamp() | {"to_world": place},
        sensor=camera(to_world=down),
    )
    scene["back"] |= {"bsdf": dark}
    scene["side"] |= {"bsdf": dark}
    return scene


def _crop() -> dict[str, Any]:
    sensor = camera()
    sensor["film"] |= {
        "width": 3 * SIZE,
        "height": 3 * SIZE,
        "crop_offset_x": SIZE,
        "crop_offset_y": SIZE + 3,
        "crop_width": SIZE,
        "crop_height": SIZE - 2,
    }
    return stage({"type": "roughplastic", "alpha": 0.2}, sensor=sensor)


def _point(kind: str) -> dict[str, Any]:
    T = _transform()
    if kind == "point":
        return {"type": "point", "position": [0.5, 1.9, 1.0], "intensity": rgb(4, 4, 3)}
    if kind == "spot":
        look = T.look_at(origin=[1, 2.2, 1.5], target=[0, 0.4, 0], up=[0, 1, 0])
        return {"type": "spot", "to_world": look, "intensity": rgb(14, 14, 12), "cutoff_angle": 30}
    if kind == "projector":
        look = T.look_at(origin=[0.6, 1.8, 2.5], target=[0, 0.5, 0], up=[0, 1, 0])
        image = bitmap(0.2 + np.tile(_waves(1), 3), raw=True)
        return {"type": "projector", "to_world": look, "irradiance": image, "fov": 40, "scale": 8.0}
    return {"type": "directional", "direction": [-0.4, -1, -0.6], "irradiance": rgb(2, 2, 1.8)}


def _sphere_lamp() -> dict[str, Any]:
    return {
        "type": "sphere",
        "center": [0.5, 1.3, 0.6],
        "radius": 0.2,
        "emitter": {"type": "area", "radiance": rgb(12, 10, 8)},
    }


def _many() -> dict[str, Any]:
    lights = {
        f"lamp{i}": {
            "type": "sphere",
            "center": [-1 + 0.4 * i, 1.2 + 0.3 * (i % 2), -0.8 + 0.3 * (i % 3)],
            "radius": 0.06,
            "emitter": {"type": "area", "radiance": rgb(30 * (i % 2 + 0.3), 20, 12)},
        }
        for i in range(6)
    }
    return stage({"type": "plastic"}) | lights


def _mixed_lights() -> dict[str, Any]:
    """All kinds of emitters: near and far, strong and weak, some that shine the other way."""
    import mitsuba as mi

    away = lamp(rgb(20, 15, 15)) | {
        "to_world": _transform().translate([0.9, 0.5, 0.9]).rotate([0, 1, 0], -20).scale(0.15)
    }
    near = _sphere_lamp() | {"center": [-0.7, 0.25, 0.7], "radius": 0.08}
    unsampled = lamp() | {
        "to_world": _transform().translate([-0.9, 0.9, -1.2]).scale(0.3),
        "emitter": {"type": "area", "radiance": rgb(1, 2, 1), "sampling_weight": 0.0},
    }
    kinds = {kind: _point(kind) for kind in ("point", "spot", "directional")}
    if not mi.is_spectral:  # its image is raw
        kinds["projector"] = _point("projector")
    lights = kinds | {"away": away, "near": near, "unsampled": unsampled, "sky": _environment()}
    return stage({"type": "roughplastic", "alpha": 0.2}) | lights


def _grouped_lights() -> dict[str, Any]:
    """More emitters than are told apart one by one."""
    rng = np.random.default_rng(3)
    lights = {
        f"lamp{i}": {
            "type": "sphere",
            "center": rng.uniform([-1.2, 0.1, -1.3], [1.4, 2, 1]).tolist(),
            "radius": 0.04,
            "emitter": {"type": "area", "radiance": rgb(*rng.lognormal(2.5, 1, 3))},
        }
        for i in range(37)
    }
    return stage({"type": "plastic"}, sky={"type": "constant", "radiance": 0.1}) | lights


def _mirror_strip() -> dict[str, Any]:
    """Floor under a ceiling that is lamp on the left, mirror in the middle, open on the right.

    Where a path hits the mirror and its offset path misses it, the shift is not invertible. Lamp
    and void beside the mirror make that loss one-sided, so ignoring it gives a large bias.
    """
    T = _transform()
    down = T.rotate([1, 0, 0], 90)
    return {
        "type": "scene",
        "sensor": camera(
            to_world=T.look_at(origin=[0, 0.35, 3.5], target=[0, 0, 0], up=[0, 1, 0]), fov=24
        ),
        "floor": {"type": "rectangle", "to_world": T.rotate([1, 0, 0], -90).scale(2)},
        "lamp": {
            "type": "rectangle",
            "to_world": T.translate([-0.7, 0.5, 0]) @ down.scale([0.5, 1, 1]),
            "emitter": {"type": "area", "radiance": rgb(1, 1, 1)},
        },
        "mirror": {
            "type": "rectangle",
            "to_world": T.translate([0, 0.5, 0]) @ down.scale([0.2, 1, 1]),
            "bsdf": {"type": "twosided", "n": {"type": "conductor"}},
        },
    }


def _object(bsdf: Any, shape: Any = None, **more: Any) -> Callable[[], dict[str, Any]]:
    """Return a builder; arguments may be callables, evaluated under the active variant."""

    def build() -> dict[str, Any]:
        made = bsdf() if callable(bsdf) else bsdf
        return stage(made, shape=shape() if shape else None, **{k: v() for k, v in more.items()})

    return build


_GLASS = {"type": "dielectric", "int_ior": 1.5}
_DIFFUSE = {"type": "diffuse", "reflectance": {"type": "rgb", "value": [0.4, 0.6, 0.3]}}
_ALL = ("rgb", "mono", "spectral")


def _case(name: str, build: Callable[[], dict[str, Any]], **kwargs: Any) -> Case:
    kwargs.setdefault("options", {"max_depth": 5})
    return Case(name, build, **kwargs)


def _placed(far: float = 0.0, scale: float = 1.0) -> dict[str, Any]:
    """Two lamps over two balls, moved and scaled."""
    at = _transform().translate([far, 0, 0]).scale(scale)

    def ball(center: list[float], radius: float, **more: Any) -> dict[str, Any]:
        place = at.translate(center).scale(radius)
        return {"type": "sphere", "to_world": place, **more}

    area = {"type": "area", "radiance": 10.0}
    small = {"type": "area", "radiance": 5.0}
    eye = _transform().look_at(
        [far + 0.0, 1.5 * scale, 5 * scale], [far, 0.8 * scale, 0], [0, 1, 0]
    )
    return {
        "type": "scene",
        "sensor": camera(to_world=eye, near_clip=0.01 * scale, far_clip=100 * scale),
        "ball": ball([0, 0.6, 0], 0.6),
        "metal": ball([1.1, 0.4, 0.5], 0.4, bsdf={"type": "roughconductor", "alpha": 0.2}),
        "floor": {"type": "rectangle", "to_world": at.rotate([1, 0, 0], -90).scale(3)},
        "lamp": {
            "type": "rectangle",
            "to_world": at.translate([0, 3, 0]).rotate([1, 0, 0], 90).scale(0.6),
            "emitter": area,
        },
        "bulb": ball([1.5, 1.5, 0], 0.1, emitter=small),
    }


CASES: tuple[Case, ...] = (
    # ---- BSDFs
    _case("diffuse", _object(_DIFFUSE), colours=_ALL),
    _case("textured", _object(lambda: {"type": "diffuse", "reflectance": checker()}, quad)),
    _case(
        "roughconductor",
        _object({"type": "roughconductor", "material": "Cu", "alpha": 0.2}),
        colours=_ALL,
    ),
    _case(
        "anisotropic",
        _object(
            {"type": "roughconductor", "material": "Al", "alpha_u": 0.05, "alpha_v": 0.4}, quad
        ),
    ),
    _case("conductor", _object({"type": "conductor", "material": "Ag"})),
    _case("dielectric", _object(_GLASS), colours=("rgb", "spectral")),
    _case("thindielectric", _object({"type": "thindielectric"}, quad)),
    _case("roughdielectric", _object({"type": "roughdielectric", "alpha": 0.2})),
    _case("plastic", _object({"type": "plastic", "diffuse_reflectance": rgb(0.2, 0.3, 0.6)})),
    _case("roughplastic", _object({"type": "roughplastic", "alpha": 0.15})),
    _case(
        "pplastic",
        _object({"type": "pplastic", "alpha": 0.2, "diffuse_reflectance": rgb(0.5, 0.2, 0.2)}),
    ),
    _case(
        "principled",
        _object(
            {
                "type": "principled",
                "base_color": rgb(0.8, 0.4, 0.2),
                "metallic": 0.5,
                "roughness": 0.4,
                "clearcoat": 0.6,
                "clearcoat_gloss": 0.7,
            }
        ),
    ),
    _case(
        "principled_glass",
        _object({"type": "principled", "spec_trans": 0.8, "roughness": 0.35, "eta": 1.4}),
    ),
    _case(
        "principledthin",
        _object(
            {"type": "principledthin", "roughness": 0.4, "spec_trans": 0.5, "diff_trans": 0.8}, quad
        ),
    ),
    _case("twosided", _object({"type": "twosided", "n": _DIFFUSE}, lambda: quad(0.9))),
    _case(
        "mask", _object(lambda: {"type": "mask", "opacity": checker(0.2, 0.9), "n": _DIFFUSE}, quad)
    ),
    _case(
        "blend",
        _object(
            lambda: {
                "type": "blendbsdf",
                "weight": checker(0.1, 0.8),
                "a": _DIFFUSE,
                "b": {"type": "roughconductor", "alpha": 0.15},
            },
            quad,
        ),
    ),
    _case(
        "normalmap",
        _object(lambda: {"type": "normalmap", "normalmap": bitmap(_waves(3)), "n": _DIFFUSE}, quad),
    ),
    _case(
        "bumpmap",
        _object(
            lambda: {
                "type": "bumpmap",
                "t": bitmap(_waves(1)),
                "n": {"type": "roughplastic"},
                "scale": 0.1,
            },
            quad,
        ),
    ),
    _case("hair", _object({"type": "hair"}, _hair)),
    _case("measured", _object(_measured)),
    _case("null", _object({"type": "null"})),
    # ---- Emitters
    _case("envmap", _object(_DIFFUSE, light=_environment), colours=_ALL),
    _case(
        "constant",
        _object(_DIFFUSE, light=lambda: {"type": "constant", "radiance": rgb(0.8, 0.9, 1)}),
    ),
    _case("point", _object(_DIFFUSE, light=lambda: _point("point"))),
    _case("spot", _object(_DIFFUSE, light=lambda: _point("spot"))),
    _case("directional", _object(_DIFFUSE, light=lambda: _point("directional"))),
    _case("projector", _object(_DIFFUSE, light=lambda: _point("projector"))),
    _case("sphere_light", _object({"type": "roughconductor", "alpha": 0.3}, light=_sphere_lamp)),
    _case("textured_light", _object(_DIFFUSE, light=lambda: lamp(bitmap(1 + 13 * _waves(1))))),
    _case(
        "sunsky",
        _object(
            _DIFFUSE,
            light=lambda: {"type": "sunsky", "sun_direction": [0.4, 0.6, 0.7], "sun_scale": 0.0},
        ),
    ),
    _case("many_lights", _many),
    _case("mixed_lights", _mixed_lights, colours=_ALL),
    _case("grouped_lights", _grouped_lights),
    _case("sampling_weights", _mixed_lights, gdpt={"emitter_importance": False}),
    # ---- Camera and film
    _case(
        "thinlens",
        _object(
            _DIFFUSE,
            sensor=lambda: camera(type="thinlens", aperture_radius=0.15, focus_distance=3.0),
        ),
    ),
    _case(
        "orthographic",
        _object(
            {"type": "roughplastic"},
            sensor=lambda: camera(
                type="orthographic",
                to_world=_transform()
                .look_at(origin=[0, 1.2, 4], target=[0, 0.9, 0], up=[0, 1, 0])
                .scale([1.2, 1.2, 1]),
            ),
        ),
    ),
    _case("crop", _crop),
    _case(
        "multijitter",
        _object({"type": "roughplastic"}, sensor=lambda: camera(sampler={"type": "multijitter"})),
    ),
    _case("orthogonal", _object(_DIFFUSE, sensor=lambda: camera(sampler={"type": "orthogonal"}))),
    _case("unshared", _object({"type": "roughplastic"}), gdpt={"shared_subpixel": False}),
    # ---- Estimator
    *(
        _case(f"sharp_{name}", _object({"type": name, "alpha": alpha}))
        for name, alpha in (
            ("roughconductor", 0.03),
            ("roughplastic", 0.02),
            ("roughdielectric", 0.05),
        )
    ),
    _case("mirror_strip", _mirror_strip),
    _case("instancing", _instances),
    _case("depth1", _object(_DIFFUSE), options={"max_depth": 1}),
    _case("depth2", _object({"type": "roughconductor", "alpha": 0.2}), options={"max_depth": 2}),
    _case("depth3", _object(_GLASS), options={"max_depth": 3}),
    _case("roulette", _object({"type": "roughplastic"}), options={"max_depth": -1, "rr_depth": 2}),
    _case("roulette_glass", _object(_GLASS), options={"max_depth": -1, "rr_depth": 2}),
    _case("roulette_dark", _dark_wall, options={"max_depth": -1, "rr_depth": 2}),
    _case("hide_emitters", _hidden, options={"max_depth": 5, "hide_emitters": True}),
    _case("shifts2", _object({"type": "roughplastic"}), gdpt={"shifts": 2}),
    _case("shifts2_glass", _object(_GLASS), gdpt={"shifts": 2}),
    _case("shifts1", _object({"type": "roughplastic"}), gdpt={"shifts": 1}),
    _case("shifts1_glass", _object(_GLASS), gdpt={"shifts": 1}),
    # ---- Far from the origin, and tiny: rays begin further off the surface than the scene is big
    _case("far_1e4", lambda: _placed(far=1e4)),
    _case("far_1e5", lambda: _placed(far=1e5)),
    _case("small_1e-3", lambda: _placed(scale=1e-3)),
    _case("small_1e-5", lambda: _placed(scale=1e-5)),
    _case("tiles", _object(_GLASS), gdpt={"max_lanes": 4096}),
)

BY_NAME = {case.name: case for case in CASES}
