"""Every parameter of every plugin that Mitsuba ships decides whether a recording is used again.

A recording is used only while :class:`State` says that nothing has changed. So each parameter is
changed in turn, and has to show there; with ``--slow`` each change is rendered as well, frozen and
traced. A plugin that Mitsuba ships and that no table here lists fails the test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt.integrators.freezing import State

Scene = dict[str, Any]

#: Plugins that are no part of what the parameters of a scene can change in a render of ``gdpt``.
OTHERS = {
    "integrators": "aov depth direct moment path ptracer stokes volpath volpathmis",
    "participating media, which are ignored": "heterogeneous homogeneous",
    "their phase functions": "blendphase hg isotropic rayleigh sggx tabphase",
    "their volumes": "gridvolume",
    "reconstruction filters, which are ignored": "box catmullrom gaussian lanczos mitchell tent",
    "merges meshes when a scene is loaded": "merge",
    "needs polarized variants": "measured_polarized",
    "refused by gdpt": "specfilm",
    "made by Blender only": "blender",
    "not rendered by path in variants with just-in-time compilation either": "timed_sunsky",
    "spectral variants only, which are not frozen": "d65 irregular regular blackbody",
}


def image(size: int = 4, channels: int = 3) -> Any:
    import mitsuba as mi

    return mi.Bitmap(np.random.default_rng(size).random((size, size, channels)).astype("f4"))


def bitmap(channels: int = 3) -> Scene:
    return {"type": "bitmap", "bitmap": image(channels=channels), "raw": True}


def matt() -> Scene:
    return {"type": "diffuse"}


BSDFS: dict[str, Callable[[Path], Scene]] = {
    "blendbsdf": lambda _: {"weight": 0.3, "a": matt(), "b": {"type": "roughconductor"}},
    "bumpmap": lambda _: {"t": bitmap(1), "scale": 0.2, "n": matt()},
    "circular": lambda _: {},
    "conductor": lambda _: {},
    "dielectric": lambda _: {},
    "diffuse": lambda _: {"reflectance": {"type": "rgb", "value": [0.2, 0.4, 0.6]}},
    "hair": lambda _: {},
    "mask": lambda _: {"opacity": 0.4, "n": matt()},
    "measured": lambda folder: {"filename": measured(folder)},
    "normalmap": lambda _: {"normalmap": bitmap(), "n": matt()},
    "null": lambda _: {},
    "plastic": lambda _: {},
    "polarizer": lambda _: {},
    "pplastic": lambda _: {},
    "principled": lambda _: {
        "roughness": 0.4,
        "metallic": 0.2,
        "spec_trans": 0.3,
        "clearcoat": 0.5,
        "sheen": 0.2,
        "anisotropic": 0.1,
        "flatness": 0.1,
        "spec_tint": 0.1,
        "sheen_tint": 0.1,
        "clearcoat_gloss": 0.5,
    },
    "principledthin": lambda _: {"roughness": 0.4, "spec_trans": 0.3, "diff_trans": 0.5},
    "retarder": lambda _: {},
    "roughconductor": lambda _: {"alpha_u": 0.2, "alpha_v": 0.4},
    "roughdielectric": lambda _: {"alpha": 0.2},
    "roughplastic": lambda _: {"alpha": 0.2},
    "thindielectric": lambda _: {},
    "twosided": lambda _: {"n": matt()},
}

TEXTURES: dict[str, Callable[[Path], Scene]] = {
    "bitmap": lambda _: {"bitmap": image(), "raw": True},
    "checkerboard": lambda _: {"color0": 0.2, "color1": 0.7},
    "mesh_attribute": lambda _: {"name": "vertex_color"},
    "rawconstant": lambda _: {"value": 0.4},
    "srgb": lambda _: {"color": [0.2, 0.4, 0.6]},
    "uniform": lambda _: {"value": 0.4},
    "volume": lambda _: {"volume": {"type": "constvolume", "value": 0.4}},
}

EMITTERS: dict[str, Callable[[Path], Scene]] = {
    "constant": lambda _: {},
    "directional": lambda _: {"direction": [0, -1, -0.3]},
    "envmap": lambda _: {"bitmap": image(8)},
    "point": lambda _: {"position": [0, 2, 2]},
    "projector": lambda _: {"irradiance": bitmap(), "to_world": transform([0, 2, 4])},
    "spot": lambda _: {"to_world": transform([0, 2, 4])},
    "sunsky": lambda _: {"sun_direction": [0.3, 0.4, 0.8]},
}
AREA_EMITTERS = {"area": {"radiance": 4.0}, "directionalarea": {"radiance": 4.0}}

SHAPES: dict[str, Callable[[Path], Scene]] = {
    "bsplinecurve": lambda folder: {"filename": curve(folder)},
    "cube": lambda _: {},
    "cylinder": lambda _: {},
    "disk": lambda _: {},
    "ellipsoids": lambda _: ellipsoids(),
    "ellipsoidsmesh": lambda _: ellipsoids(),
    "linearcurve": lambda folder: {"filename": curve(folder)},
    "obj": lambda folder: {"filename": mesh(folder, "obj")},
    "ply": lambda folder: {"filename": mesh(folder, "ply")},
    "rectangle": lambda _: {},
    "sdfgrid": lambda _: {"grid": sdf()},
    "serialized": lambda folder: {"filename": mesh(folder, "serialized")},
    "sphere": lambda _: {},
}

SENSORS: dict[str, Callable[[Path], Scene]] = {
    "batch": lambda _: {"a": pinhole(), "b": pinhole()},
    "distant": lambda _: {"direction": [0, -1, -1], "target": [0, 0, 0]},
    "orthographic": lambda _: {"to_world": transform([0, 1, 4])},
    "perspective": lambda _: {"to_world": transform([0, 1, 4])},
    "radiancemeter": lambda _: {"origin": [0, 1, 4], "direction": [0, -0.2, -1]},
    "thinlens": lambda _: {
        "to_world": transform([0, 1, 4]),
        "aperture_radius": 0.1,
        "focus_distance": 4.0,
    },
}

SAMPLERS = ("independent", "ldsampler", "multijitter", "orthogonal", "stratified")


def transform(origin: list[float]) -> Any:
    import mitsuba as mi

    return mi.ScalarTransform4f().look_at(origin, [0, 0.5, 0], [0, 1, 0])


def pinhole() -> Scene:
    return {"type": "perspective", "to_world": transform([0, 1, 4])}


def film(size: int = 8) -> Scene:
    return {"type": "hdrfilm", "width": size, "height": size, "rfilter": {"type": "box"}}


def curve(folder: Path) -> str:
    path = folder / "curve.txt"
    path.write_text("".join(f"{x} {0.5 * x} 0 0.2\n" for x in (-1, -0.5, 0, 0.5, 1)))
    return str(path)


def measured(folder: Path) -> str:
    from tests.statistical.cases import BY_NAME

    return str(BY_NAME["measured"].build()["object"]["bsdf"]["filename"])


def mesh(folder: Path, kind: str) -> str:
    """A triangle, as a file."""
    import mitsuba as mi

    path = folder / f"mesh.{kind}"
    if kind == "obj":
        path.write_text("v -1 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
        return str(path)
    if kind == "ply":
        mi.load_dict({"type": "cube"}).write_ply(str(path))
    else:
        path.write_bytes(serialized())
    return str(path)


def serialized() -> bytes:
    """A triangle in Mitsuba's own format, version 4."""
    import struct
    import zlib

    points = np.array([[-1, 0, 0], [1, 0, 0], [0, 1, 0]], "<f4").tobytes()
    body = struct.pack("<I", 0x1000) + b"triangle\0" + struct.pack("<QQ", 3, 1)
    body += points + np.array([0, 1, 2], "<u4").tobytes()
    chunk = struct.pack("<HH", 0x041C, 4) + zlib.compress(body)
    return chunk + struct.pack("<QI", 0, 1)


def ellipsoids() -> Scene:
    import mitsuba as mi

    return {
        "centers": mi.TensorXf(np.array([[0, 0, 0], [0.5, 0, 0]], np.float32)),
        "scales": mi.TensorXf(np.full((2, 3), 0.3, np.float32)),
        "quaternions": mi.TensorXf(np.tile(np.array([[0, 0, 0, 1]], np.float32), (2, 1))),
    }


def sdf() -> Any:
    import mitsuba as mi

    x = np.linspace(-1, 1, 6, dtype=np.float32)
    z, y, x = np.meshgrid(x, x, x, indexing="ij")
    return mi.TensorXf((np.sqrt(x**2 + y**2 + z**2) - 0.7)[..., None])


def world(**changed: Any) -> Scene:
    """A ball on a floor under two lights, seen by a pinhole camera."""
    import mitsuba as mi

    turned = mi.ScalarTransform4f().rotate([1, 0, 0], -90).scale(3)
    return {
        "type": "scene",
        "floor": {"type": "rectangle", "to_world": turned, "bsdf": matt()},
        "object": {"type": "sphere", "radius": 0.8, "bsdf": matt()},
        "sky": {"type": "constant", "radiance": 0.3},
        "lamp": {"type": "point", "position": [1, 3, 1], "intensity": 3.0},
        "sensor": pinhole() | {"film": film(), "sampler": {"type": "independent"}},
    } | changed


def colored() -> Any:
    """A mesh with an attribute that textures can read."""
    import mitsuba as mi

    made = mi.load_dict({"type": "cube", "bsdf": matt()})
    count = made.vertex_count()
    made.add_attribute("vertex_color", 3, np.linspace(0.1, 0.9, 3 * count).tolist())
    return made


def worlds(folder: Path) -> Iterator[tuple[str, str, Callable[[], Scene]]]:
    """Yield kind and name of each plugin, and what makes a scene with it."""

    def ball(bsdf: Scene) -> Scene:
        return {"type": "sphere", "radius": 0.8, "bsdf": bsdf}

    def of(kind: str, name: str) -> Scene:
        table = {"bsdf": BSDFS, "texture": TEXTURES, "emitter": EMITTERS, "shape": SHAPES}
        made = {"type": name} | (table | {"sensor": SENSORS})[kind][name](folder)
        if kind == "bsdf":
            return world(object=ball(made))
        if kind == "texture":
            color = {"type": "diffuse", "reflectance": made}
            shape = ball(color)
            if name == "mesh_attribute":
                import mitsuba as mi

                shape = colored()
                shape.set_bsdf(mi.load_dict(color))
            return world(object=shape)
        if kind == "emitter":
            infinite = name in ("constant", "envmap", "sunsky")
            return world(**{"sky" if infinite else "lamp": made})
        if kind == "shape":
            return world(object=made | {"bsdf": matt()})
        if kind == "sensor":
            size = 1 if name in ("distant", "radiancemeter") else 8
            return world(sensor=made | {"film": film(size)})
        raise AssertionError(kind)

    for kind, names in (
        ("bsdf", BSDFS),
        ("texture", TEXTURES),
        ("emitter", EMITTERS),
        ("shape", SHAPES),
        ("sensor", SENSORS),
    ):
        for name in names:
            yield kind, name, lambda kind=kind, name=name: of(kind, name)
    for name, emitter in AREA_EMITTERS.items():
        shape = {"type": "rectangle", "emitter": {"type": name} | emitter}
        yield "emitter", name, lambda shape=shape: world(lamp=shape)
    for name in SAMPLERS:
        sensor = {"film": film(), "sampler": {"type": name, "sample_count": 4}}
        yield "sampler", name, lambda sensor=sensor: world(sensor=pinhole() | sensor)
    yield "film", "hdrfilm", world
    disk = {"type": "disk", "sensor": {"type": "irradiancemeter", "film": film()}}
    plain = world()
    del plain["sensor"]
    yield "sensor", "irradiancemeter", lambda: plain | {"disk": disk}
    group = {"type": "shapegroup", "s": {"type": "sphere", "bsdf": matt()}}
    placed = {"type": "instance", "r": {"type": "ref", "id": "group"}}
    for name in ("instance", "shapegroup"):
        yield "shape", name, lambda: world(group=group, object=placed)
    yield "volume", "constvolume", lambda: of("texture", "volume")


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_the_tables_list_what_mitsuba_ships(tmp_path: Path) -> None:
    import mitsuba as mi

    shipped = {path.stem for path in (Path(mi.__file__).parent / "plugins").glob("*.so")}
    walked = {name for _, name, _ in worlds(tmp_path)}
    others = {name for names in OTHERS.values() for name in names.split()}
    assert not walked & others
    assert walked | others == shipped


def changed(value: Any) -> Any:
    """Return another value of the same type and size; None where there is none to be made up."""
    import drjit as dr

    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return 0.9 * value + 0.05
    if value is None or isinstance(value, str):
        return None
    if dr.is_jit_v(value) and dr.width(value) == 0:
        return None
    if dr.is_tensor_v(value):
        return type(value)(np.array(value) * 0.9 + 0.05) if dr.is_float_v(value) else None
    if dr.is_struct_v(value):  # transforms
        return type(value)().translate([0.05, 0.03, 0.02][: dr.size_v(value.matrix) - 1]) @ value
    if dr.is_integral_v(value):
        if dr.depth_v(value) > 1 or not dr.is_jit_v(value):
            # Of a film the size comes first, then that of its crop, then the place of that.
            return type(value)([int(v) - 1 if v > 1 else int(v) + 1 for v in value])
        return type(value)(np.array(value)[::-1].copy())
    return value * 0.9 + 0.05


def walk_parameters(scene: Any) -> Iterator[tuple[str, Any]]:
    """Change each parameter of a scene in turn; yield its name and what came of it.

    What comes is ``"changed"``, or why a parameter could not be.
    """
    import mitsuba as mi

    params = mi.traverse(scene)
    for key, (_, _, _, flags) in list(params.properties.items()):
        if flags & mi.ParamFlags.ReadOnly:
            yield key, "read-only"
            continue
        if key in CRASHES:
            yield key, "crashes Mitsuba"
            continue
        try:
            value = params[key]
        except TypeError:  # parameters without one
            value = None
        other = changed(value)
        if other is None:
            yield key, "without another value"
            continue
        try:
            params[key] = other
            params.update()
        except RuntimeError:
            params[key] = value
            params.update()
            yield key, "refused by Mitsuba"
        else:
            yield key, "changed"


#: Without pigments hair reads a texture that is not there: any render that knows of it crashes,
#: those of other scenes and integrators too.
CRASHES = {"object.bsdf.use_pigmentation"}


def state(scene: Any) -> State:
    sensor = scene.sensors()[0]
    seen = State.of(scene, sensor, sensor.sampler().clone())
    assert seen is not None, "something about this scene cannot be seen"
    return seen


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_every_parameter_shows_in_the_state(tmp_path: Path) -> None:
    import mitsuba as mi

    mi.set_log_level(mi.LogLevel.Error)
    counts, plugins = Counter[str](), Counter[str]()
    for kind, name, make in worlds(tmp_path):
        scene = mi.load_dict(make(), optimize=False)
        plugins[kind] += 1
        before = state(scene)
        assert before == state(scene), (kind, name)
        for key, outcome in walk_parameters(scene):
            counts[outcome] += 1
            after = state(scene)
            if outcome == "changed":
                assert after != before, (kind, name, key)
            before = after
        assert before != state(mi.load_dict(make(), optimize=False)), "scenes are never the same"
    print(f"\n{sum(plugins.values())} plugins {dict(plugins)}; parameters: {dict(counts)}")
    assert counts["changed"] > 300


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_changes_of_structure_show_in_the_state() -> None:
    import mitsuba as mi

    scene = mi.load_dict(world(), optimize=False)
    sensor, sampler = scene.sensors()[0], scene.sensors()[0].sampler()
    before = State.of(scene, sensor, sampler)
    other = mi.load_dict(pinhole() | {"film": film()})
    assert State.of(scene, other, sampler) != before
    assert State.of(scene, sensor, mi.load_dict({"type": "stratified"})) != before
    bigger = mi.load_dict(world(more={"type": "cube"}), optimize=False)
    assert State.of(bigger, sensor, sampler) != before
    scene.shapes()[0].set_bsdf(mi.load_dict({"type": "conductor"}))
    assert State.of(scene, sensor, sampler) != before


def rendered(scene: Any, integrator: Any) -> np.ndarray:
    return np.array(integrator.render(scene, spp=1, seed=3))


#: Rendered in every run: values that Mitsuba keeps on the host are constants of kernels.
ON_THE_HOST = {
    ("bsdf", "dielectric"): {"object.bsdf.eta"},
    ("bsdf", "bumpmap"): {"object.bsdf.scale"},
    ("sensor", "perspective"): {"sensor.near_clip", "sensor.film.size"},
}


def compare_renders(make: Callable[[], Scene], wanted: Callable[[str], bool]) -> int:
    """Change the wanted parameters of a scene in turn; return how many renders were compared."""
    import mitsuba as mi

    options = {"type": "gdpt", "max_depth": 3, "shifts": 0}
    frozen, traced = (mi.load_dict(options | {"freeze": freeze}) for freeze in (True, False))
    scene = mi.load_dict(make(), optimize=False)
    count = 0

    def compare(key: str) -> None:
        expected = rendered(scene, traced)
        for _ in range(2):  # recorded or replayed, then surely replayed
            assert np.array_equal(rendered(scene, frozen), expected, equal_nan=True), key

    compare("as loaded")
    for key, outcome in walk_parameters(scene):
        if outcome == "changed" and wanted(key):
            compare(key)
            count += 1
    return count


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize(("kind", "name"), ON_THE_HOST)
def test_values_on_the_host_show_in_frozen_renders(kind: str, name: str, tmp_path: Path) -> None:
    (make,) = (make for k, n, make in worlds(tmp_path) if (k, n) == (kind, name))
    wanted = ON_THE_HOST[kind, name]
    assert compare_renders(make, wanted.__contains__) == len(wanted)


@pytest.mark.slow
@pytest.mark.usefixtures("variant_llvm_rgb")
def test_every_parameter_shows_in_frozen_renders(tmp_path: Path) -> None:
    import mitsuba as mi

    mi.set_log_level(mi.LogLevel.Error)
    common = {*mi.traverse(mi.load_dict(world(), optimize=False)).keys()}
    total = 0
    for kind, name, make in worlds(tmp_path):
        # What all scenes share is changed in one of them.
        count = compare_renders(make, lambda key, film=kind == "film": film or key not in common)
        total += count
        print(f"{kind} {name}: {count}", flush=True)
    print(f"{total} renders compared")
