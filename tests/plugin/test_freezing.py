"""Frozen renders: bit for bit what tracing again gives, whatever changed since the recording."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt.integrators.freezing import FrozenMethod
from tests.statistical.cases import camera, rgb, stage

DIFFUSE = {"type": "diffuse", "reflectance": {"type": "rgb", "value": [0.4, 0.6, 0.3]}}
SAMPLERS = ("independent", "stratified", "multijitter", "orthogonal", "ldsampler")


def make(**options: Any) -> Any:
    import mitsuba as mi

    return mi.load_dict(
        {"type": "gdpt", "max_depth": 5, "variances": True, "freeze": True} | options
    )


def image(scene: Any, integrator: Any, seed: int = 0, spp: int = 4) -> np.ndarray:
    import mitsuba as mi

    return np.array(mi.render(scene, integrator=integrator, spp=spp, seed=seed))


def traced(scene: Any, seed: int = 0, spp: int = 4, **options: Any) -> np.ndarray:
    return image(scene, make(freeze=False, **options), seed, spp)


def warm(scene: Any, integrator: Any, **options: Any) -> int:
    """Render until nothing new is recorded; return the number of recordings."""
    for seed in range(4):
        image(scene, integrator, seed, **options)
    return int(integrator._frozen_tile.recordings)


def textured() -> dict[str, Any]:
    """A stage with everything whose parameters the tests change."""
    import mitsuba as mi

    pixels = np.random.default_rng(1).random((8, 8, 3)).astype(np.float32)
    texture = {"type": "bitmap", "bitmap": mi.Bitmap(pixels), "raw": not mi.is_spectral}
    sky = {"type": "envmap", "bitmap": mi.Bitmap(pixels[:4]), "scale": 0.3}
    mesh = {"type": "cube", "id": "mesh", "bsdf": DIFFUSE}
    return stage({"type": "diffuse", "reflectance": texture}) | {"sky": sky, "mesh": mesh}


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_new_numbers(sampler: str) -> None:
    import mitsuba as mi

    scene = stage(DIFFUSE)
    scene["sensor"] = camera() | {"sampler": {"type": sampler, "sample_count": 4}}
    scene = mi.load_dict(scene)
    frozen = make(freeze=True)
    recordings = warm(scene, frozen)
    for seed in (11, 12, 13, 14, 4_000_000_000):
        assert np.array_equal(image(scene, frozen, seed), traced(scene, seed))
    # What the other integrator did to the scene may cost a recording; seeds may not.
    assert frozen._frozen_tile.recordings <= recordings + 1


@pytest.mark.usefixtures("variants_llvm")
@pytest.mark.parametrize("features", ["", "position,visibility,diffuse,specular,roughness"])
@pytest.mark.parametrize("shifts", [0, 1, 2, 4])
def test_frozen_equals_traced(shifts: int, features: str) -> None:
    import mitsuba as mi

    scene = mi.load_dict(textured())
    options: dict[str, Any] = {"shifts": shifts, "features": features}
    frozen = make(**options)
    warm(scene, frozen)
    assert np.array_equal(image(scene, frozen, 9), traced(scene, 9, **options))


def _set(key: str, value: Callable[[Any], Any]) -> Callable[[Any], None]:
    def change(scene: Any) -> None:
        import mitsuba as mi

        params = mi.traverse(scene)
        names = [name for name, _ in params if name.endswith(key)]
        assert names, f"none of {params} ends with {key}"
        for name in names:
            params[name] = value(params[name])
        params.update()

    return change


def _move(scene: Any) -> None:
    import mitsuba as mi

    params = mi.traverse(scene)
    name = next(name for name, _ in params if name.endswith("to_world") and "sensor" in name)
    params[name] = mi.Transform4f().translate([0.1, 0.2, 0]) @ params[name]
    params.update()


CHANGES = {
    "texture": _set("reflectance.data", lambda x: x * 0.5),
    "colour": _set("mesh.bsdf.reflectance.value", lambda x: x * 0.5),
    "lamp": _set("emitter.radiance.value", lambda x: x * 3),
    "sky": _set("sky.data", lambda x: x * 0.5 + 0.1),
    "vertices": _set("mesh.vertex_positions", lambda x: x * 0.7),
    "camera": _move,
}


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("what", CHANGES)
def test_changes_of_the_scene_show(what: str) -> None:
    import mitsuba as mi

    scene = mi.load_dict(textured())
    frozen = make()
    warm(scene, frozen)
    before = image(scene, frozen)
    CHANGES[what](scene)
    after = image(scene, frozen)
    assert np.array_equal(after, traced(scene))
    assert not np.array_equal(after, before)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_scenes_sizes_and_tiles_take_turns() -> None:
    import mitsuba as mi

    small = stage(DIFFUSE)
    wide = textured()
    wide["sensor"]["film"] |= {"width": 33, "height": 18}
    scenes = [mi.load_dict(small), mi.load_dict(wide)]
    frozen = make(max_lanes=700)
    for turn in range(2):
        for scene in scenes:
            for spp in (2, 3):
                expected = traced(scene, turn, spp, max_lanes=700)
                assert np.array_equal(image(scene, frozen, turn, spp), expected)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_scenes_that_are_loaded_anew_are_rendered_anew() -> None:
    """Kernels hold addresses of a scene, which the next one may get."""
    import mitsuba as mi

    frozen = make()
    for reflectance in (0.1, 0.9, 0.1, 0.5):
        scene = mi.load_dict(stage({"type": "diffuse", "reflectance": reflectance}))
        assert np.array_equal(image(scene, frozen), traced(scene))
        assert np.array_equal(image(scene, frozen, 1), traced(scene, 1))


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_a_scene_that_holds_its_integrator_is_freed() -> None:
    import mitsuba as mi

    scene = mi.load_dict(stage(DIFFUSE) | {"integrator": {"type": "gdpt", "freeze": True}})
    watched = weakref.ref(scene.integrator())
    mi.render(scene, spp=1)
    del scene
    gc.collect()
    assert watched() is None


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_thin_lenses_and_spectra_are_rendered_without_a_word(
    capfd: pytest.CaptureFixture[str],
) -> None:
    import mitsuba as mi

    for variant in ("llvm_ad_rgb", "llvm_ad_spectral"):
        mi.set_variant(variant)
        lens = camera() | {"type": "thinlens", "aperture_radius": 0.1, "focus_distance": 3.0}
        scene = mi.load_dict(stage(DIFFUSE, sensor=lens))
        frozen = make()
        for seed in range(2):
            assert np.array_equal(image(scene, frozen, seed), traced(scene, seed))
    out = capfd.readouterr()
    assert out.out + out.err == ""


class Interrupt:
    """Stands for Ctrl-C at a point of the Python code that a render runs through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        original = getattr(module, name)

        def stop(*args: Any, **kwargs: Any) -> Any:
            if self.armed:
                raise KeyboardInterrupt
            return original(*args, **kwargs)

        self.armed = True
        monkeypatch.setattr(module, name, stop)


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("where", ["offset_path.jacobian", "emitter_table._visible"])
def test_an_interrupt_ends_a_render_and_nothing_else(
    freeze: bool, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    import mitsuba as mi

    module, name = where.split(".")
    module = importlib.import_module(f"mitsuba_gdpt.integrators.{module}")
    lamp = {"type": "point", "position": [0, 1.5, 1.0], "intensity": 1.0}
    scene = mi.load_dict(stage(DIFFUSE) | {"second": lamp})
    integrator = make(freeze=freeze)
    interrupt = Interrupt(monkeypatch, module, name)
    with pytest.raises(KeyboardInterrupt):
        integrator.render(scene, spp=4)  # the wrapper mi.render makes RuntimeErrors of everything
    assert gc.isenabled()
    interrupt.armed = False
    for seed in (0, 1):
        assert np.array_equal(image(scene, integrator, seed), traced(scene, seed))
    assert (integrator._frozen_tile.recordings > 0) == freeze


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_changed_parameters_of_the_integrator_show() -> None:
    """A parameter that is missing here fails: each decides about the image, or is named."""
    import mitsuba as mi

    from mitsuba_gdpt.integrators.parameters import Parameters

    changes: dict[str, list[Any]] = {
        "max_depth": [2, -1, 1],
        "rr_depth": [1],
        "hide_emitters": [True],
        "shifts": [2, 1, 0],
        "features": ["position"],
        "variances": [False],
        "shared_subpixel": [False],
        "stratified": [False],
        "emitter_importance": [False],
        "features_only": [True],
        "max_lanes": [300],
        "freeze": [False],
    }
    assert set(changes) == set(Parameters.defaults())
    scene = mi.load_dict(stage(DIFFUSE))
    frozen = make(max_depth=3)
    warm(scene, frozen)
    for name, values in changes.items():
        before = getattr(frozen, name)
        for value in values:
            setattr(frozen, name, value)
            options = {"max_depth": 3, name: value} | {"freeze": False}
            expected = image(scene, make(**options))
            assert np.array_equal(image(scene, frozen), expected), (name, value)
        setattr(frozen, name, before)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_gradients_enabled_on_the_scene_do_not_matter() -> None:
    import drjit as dr
    import mitsuba as mi

    scene = mi.load_dict(stage(DIFFUSE))
    frozen = make()
    params = mi.traverse(scene)
    name = next(name for name, _ in params if name.endswith("reflectance.value"))
    for turn in range(4):
        if turn == 2:
            dr.enable_grad(params[name])
            params.update()
        assert np.array_equal(image(scene, frozen, turn), traced(scene, turn))


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_plugins_in_python_are_not_frozen() -> None:
    import drjit as dr
    import mitsuba as mi

    class Paint(mi.BSDF):
        """Diffuse, with an upload from NumPy that no recording could repeat."""

        def __init__(self, props: mi.Properties) -> None:
            super().__init__(props)
            self.m_components = [mi.BSDFFlags.DiffuseReflection | mi.BSDFFlags.FrontSide]
            self.m_flags = self.m_components[0]

        def eval_pdf(self, ctx: Any, si: Any, wo: Any, active: Any = True) -> Any:
            colour = mi.Color3f(mi.Float(np.array([0.3], np.float32)))
            up = active & (mi.Frame3f.cos_theta(si.wi) > 0) & (mi.Frame3f.cos_theta(wo) > 0)
            pdf = dr.select(up, mi.warp.square_to_cosine_hemisphere_pdf(wo), 0)
            return colour * pdf, pdf

        def eval(self, ctx: Any, si: Any, wo: Any, active: Any = True) -> Any:
            return self.eval_pdf(ctx, si, wo, active)[0]

        def pdf(self, ctx: Any, si: Any, wo: Any, active: Any = True) -> Any:
            return self.eval_pdf(ctx, si, wo, active)[1]

        def sample(self, ctx: Any, si: Any, u1: Any, u2: Any, active: Any = True) -> Any:
            bs = mi.BSDFSample3f()
            bs.wo = mi.warp.square_to_cosine_hemisphere(u2)
            bs.sampled_type = mi.UInt32(+self.m_flags)
            bs.sampled_component = mi.UInt32(0)
            bs.eta = mi.Float(1)
            value, bs.pdf = self.eval_pdf(ctx, si, bs.wo, active)
            return bs, dr.select(bs.pdf > 0, value / bs.pdf, 0)

        def traverse(self, callback: Any) -> None:
            pass

    mi.register_bsdf("paint", Paint)
    scene = mi.load_dict(stage({"type": "twosided", "nested": {"type": "paint"}}))
    integrator = make()
    images = [image(scene, integrator, seed) for seed in range(3)]
    assert integrator._frozen_tile.recordings == 0
    assert np.isfinite(images).all()
    assert images[0][..., :3].max() > 0


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_what_cannot_be_recorded_is_traced() -> None:
    import mitsuba as mi

    from mitsuba_gdpt.integrators.freezing import FrozenMethod

    class Curious:
        def look(self, scene: Any, sensor: Any, sampler: Any, arrays: Any, key: Any) -> Any:
            return arrays + (arrays + 1)[0] + key

    scene = mi.load_dict(stage(DIFFUSE))
    sensor, curious = scene.sensors()[0], Curious()
    frozen = FrozenMethod(curious.look)
    for recordings in (0, 0):  # and it is not tried again
        assert frozen(scene, sensor, sensor.sampler(), mi.Float(1, 2), 3)[1] == 7
        assert frozen.recordings == recordings


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_recordings_keep_neither_integrator_nor_plugins_alive() -> None:
    import mitsuba as mi

    scene = mi.load_dict(stage({"type": "diffuse", "reflectance": rgb(0.2, 0.3, 0.4)}))
    integrator = make()
    warm(scene, integrator)
    watched = weakref.ref(integrator)
    del integrator
    gc.collect()
    assert watched() is None


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_nothing_is_collected_during_a_recording() -> None:
    """Dr.Jit aborts the process if a destructor gets into a recording."""
    import mitsuba as mi

    seen = []

    class Method:
        def add(self, scene: Any, sensor: Any, sampler: Any, arrays: Any, key: Any) -> Any:
            seen.append(gc.isenabled())
            return arrays + 1

    scene = mi.load_dict(stage(DIFFUSE))
    sensor = scene.sensors()[0]
    method = Method()
    frozen = FrozenMethod(method.add)
    for start in (1.0, 2.0):
        result = frozen(scene, sensor, sensor.sampler(), mi.Float(start, 5.0), 0)
        assert result.numpy().tolist() == [start + 1, 6.0]
    assert seen == [False]  # the second call replayed
    assert gc.isenabled()


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_lamps_cost_no_recordings() -> None:
    """Dr.Jit guesses the size of a kernel by its inputs, which goes wrong for some numbers."""
    import mitsuba as mi

    for count in (2, 13, 20):
        lamps = {
            f"lamp{i}": {"type": "point", "position": [0.1 * i, 1.5, 1.0], "intensity": 1.0}
            for i in range(count)
        }
        scene = mi.load_dict(stage(DIFFUSE) | lamps)
        frozen = make(freeze=True)
        recordings = warm(scene, frozen)
        for seed in (11, 12, 13):
            assert np.array_equal(image(scene, frozen, seed), traced(scene, seed))
        assert frozen._frozen_tile.recordings <= recordings + 1, count


def test_looking_at_a_scene_leaves_no_garbage(variant_llvm_rgb: str) -> None:
    """An emitter that waits for the collector outlives its shape: Mitsuba still calls it, dead."""
    import mitsuba as mi

    from mitsuba_gdpt.integrators.plugins import walk

    scene = mi.load_dict(mi.cornell_box())
    walk([scene])
    gc.collect()
    walk([scene])
    assert gc.collect() == 0
