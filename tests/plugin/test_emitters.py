"""Choosing among emitters: the probabilities are those of the choice, and they make sense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt.integrators import emitter_table
from tests.plugin.test_gdpt import AS_PATH, render
from tests.statistical.cases import BY_NAME, lamp, rgb, stage

DIFFUSE = {"type": "diffuse", "reflectance": {"type": "rgb", "value": [0.4, 0.6, 0.3]}}
#: Several kinds of emitters one by one; and more than there are groups.
SCENES = ("many_lights", "mixed_lights", "grouped_lights")


def load(name: str) -> Any:
    import mitsuba as mi

    return mi.load_dict(BY_NAME[name].build(), optimize=False)


def vertices(scene: Any, count: int) -> Any:
    """Surface interactions all over the frame, but not on lamps."""
    import drjit as dr
    import mitsuba as mi

    rng = np.random.default_rng(5)
    film = mi.Point2f(*rng.random((2, count)).astype(np.float32))
    ray, _ = scene.sensors()[0].sample_ray(mi.Float(0), mi.Float(0.5), film, mi.Point2f(0.5))
    si = scene.ray_intersect(ray)
    smooth = mi.has_flag(si.bsdf().flags(), mi.BSDFFlags.Smooth)
    wanted = dr.compress(si.is_valid() & smooth & ~si.shape.is_emitter())
    return dr.gather(mi.SurfaceInteraction3f, si, wanted)


def probes(scene: Any, count: int) -> Any:
    import mitsuba as mi

    rng = np.random.default_rng(6)
    film = mi.Point2f(*rng.random((2, count)).astype(np.float32))
    return scene.sensors()[0].sample_ray(mi.Float(0), mi.Float(0.5), film, mi.Point2f(0.5))[0]


def table_of(scene: Any) -> emitter_table.EmitterTable:
    table = emitter_table.EmitterTable.of(scene, lambda count: probes(scene, count))
    assert table is not None
    return table


def probabilities(scene: Any, si: Any) -> np.ndarray:
    """(emitters, vertices)"""
    import mitsuba as mi

    at = table_of(scene).at(si, si.bsdf().flags())
    return np.array([at.probability(mi.UInt32(i)) for i in range(len(scene.emitters()))])


def noise_left(scene: Any) -> np.ndarray:
    """Variance of primal and dx where it is large, over that without importance."""

    def noise(importance: bool) -> np.ndarray:
        runs = [
            render(scene, 8, seed=s, shifts=4, emitter_importance=importance)[0] for s in range(8)
        ]
        buffers = [np.stack([run[name] for run in runs]) for name in ("primal", "dx")]
        # Fireflies would decide about the mean.
        return np.array([np.quantile(b.var(0, ddof=1).mean(-1), 0.9) for b in buffers])

    return noise(True) / noise(False)


# ------------------------------------------------------------------------------- bookkeeping


@pytest.mark.usefixtures("variants_llvm")
@pytest.mark.parametrize("name", SCENES)
def test_emitters_are_chosen_with_their_probabilities(name: str) -> None:
    import drjit as dr
    import mitsuba as mi

    scene = load(name)
    si = vertices(scene, 16)
    count, lights, draws = dr.width(si), len(scene.emitters()), 1 << 14
    expected = probabilities(scene, si)
    assert expected.sum(0) == pytest.approx(1, abs=1e-5)

    lane = dr.arange(mi.UInt32, count * draws)
    many = dr.gather(mi.SurfaceInteraction3f, si, lane // draws)
    at = table_of(scene).at(many, many.bsdf().flags())
    u = (mi.Float(lane % draws) + 0.5) / draws
    index, probability, fresh = at.choose(u)
    index, probability, fresh = (
        np.array(x).reshape(count, draws) for x in (index, probability, fresh)
    )
    for k in range(count):
        share = np.bincount(index[k], minlength=lights) / draws
        # Evenly spread numbers: no more than one too many or too few at each end.
        assert share == pytest.approx(expected[:, k], abs=3 / draws)
        assert probability[k] == pytest.approx(expected[index[k], k], rel=1e-3, abs=1e-7)
        for light in np.flatnonzero(share > 0.05):
            rest = np.sort(fresh[k][index[k] == light])
            even = (np.arange(len(rest)) + 0.5) / len(rest)
            assert np.abs(rest - even).max() < 0.02, "what is left of u is uniform again"


@pytest.mark.usefixtures("variants_llvm")
@pytest.mark.parametrize("name", SCENES)
def test_emitters_are_found_by_their_pointers(name: str) -> None:
    load("many_lights")  # registry numbers do not begin at this scene
    scene = load(name)
    found = table_of(scene).index(scene.emitters_dr())
    assert np.array_equal(np.array(found), np.arange(len(scene.emitters())))


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("name", SCENES)
def test_density_of_a_direction_is_that_of_its_sample(name: str) -> None:
    import drjit as dr
    import mitsuba as mi

    from mitsuba_gdpt.integrators.emitters import Emitters

    scene = load(name)
    si = vertices(scene, 20_000)
    light = Emitters(scene, table_of(scene)).at(si, si.bsdf().flags())
    u = np.random.default_rng(1).random((2, len(si.t))).astype(np.float32)
    choice = light.choose(mi.Point2f(*u))
    assert np.array(light.ratio(choice)) == pytest.approx(1, rel=1e-3)
    ds, _ = light.sample(choice)
    # Of lamps that face the other way Mitsuba samples directions whose density it says is 0.
    known = np.array((ds.pdf > 0) & ~ds.delta & ((dr.dot(ds.d, ds.n) < 0) | (ds.dist > 1e3)))
    assert known.sum() > 1000
    assert np.array(ds.pdf)[known] == pytest.approx(np.array(light.pdf(ds))[known], rel=1e-2)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_sampling_weights_count() -> None:
    import mitsuba as mi

    scene = mi.load_dict(BY_NAME["mixed_lights"].build(), optimize=False)
    weights = np.array(scene.emitters_dr().sampling_weight())
    assert sorted(set(weights)) == [0, 1]
    found = probabilities(scene, vertices(scene, 100))
    assert (found[weights == 0] == 0).all()
    assert (found[weights > 0] > 0).all()
    params = mi.traverse(scene)
    key = next(name for name, _ in params if name.startswith("near.emitter.sampling_weight"))
    params[key] = 5.0
    params.update()
    ratio = probabilities(scene, vertices(scene, 100)) / np.where(found > 0, found, 1)
    assert np.argmax(ratio.mean(1)) == np.argmax(np.array(scene.emitters_dr().sampling_weight()))


# ---------------------------------------------------------------------------------- judgement


def two_lamps(**second: Any) -> Any:
    import mitsuba as mi

    ball = {"type": "sphere", "radius": 0.02, "emitter": {"type": "area", "radiance": rgb(9, 9, 9)}}
    floor = stage()["floor"]
    lights = {"a": ball | {"center": [0, 1, 0]}, "b": ball | {"center": [0, 1, 0]} | second}
    scene = mi.load_dict(
        {"type": "scene", "sensor": stage()["sensor"], "floor": floor} | lights, optimize=False
    )
    si = scene.ray_intersect(mi.Ray3f(mi.Point3f(0, 0.5, 0), mi.Vector3f(0, -1, 0)))
    names = [e.id() for e in scene.emitters()]
    table = emitter_table.EmitterTable.of(scene)
    assert table is not None
    at = table.at(si, si.bsdf().flags())
    values = [float(at.probability(mi.UInt32(i))[0]) for i in range(len(names))]
    spread = 0.5 * emitter_table._DEFENSIVE
    return (values[1] - spread) / (values[0] - spread)


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize(
    ("second", "ratio"),
    [
        ({}, 1),
        ({"center": [0, 3, 0]}, 1 / 9),
        ({"emitter": {"type": "area", "radiance": rgb(3, 3, 3)}}, 1 / 3),
        ({"radius": 0.04}, 4),
        ({"center": [0.8, 0.6, 0]}, 0.6),  # at the same distance, lower
        ({"center": [0, -1, 0]}, 0.0),  # behind the floor
    ],
)
def test_choice_follows_irradiance(second: dict[str, Any], ratio: float) -> None:
    assert two_lamps(**second) == pytest.approx(ratio, rel=0.1, abs=0.01)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_lamps_that_shine_away_or_are_hidden_are_rarely_chosen() -> None:
    import mitsuba as mi

    T = mi.ScalarTransform4f()
    up = T.translate([0, 1.9, 0.2]).rotate([1, 0, 0], -90).scale(0.4)
    box = {"type": "cube", "to_world": T.translate([-0.8, 1.6, 0]).scale(0.2), "bsdf": DIFFUSE}
    boxed = {
        "type": "sphere",
        "center": [-0.8, 1.6, 0],
        "radius": 0.1,
        "emitter": {"type": "area", "radiance": rgb(50, 50, 50)},
    }
    lights = {"up": lamp() | {"to_world": up}, "box": box, "boxed": boxed}
    scene = mi.load_dict(stage(DIFFUSE) | lights, optimize=False)
    si = vertices(scene, 400)
    names = [s.id() for s in scene.shapes() if s.is_emitter()]
    mean = dict(zip(names, probabilities(scene, si).mean(1), strict=True))
    assert mean["light"] > 0.75, mean


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("weak", [8, 40])
def test_noise_falls(weak: int) -> None:
    """One lamp lights the stage, beside many that hardly do."""
    import mitsuba as mi

    lamps = {
        f"weak{i}": {
            "type": "sphere",
            "center": [1.3 * np.cos(i), 0.2 + 1.5 * ((0.618 * i) % 1), 0.9 * np.sin(i)],
            "radius": 0.02,
            "emitter": {"type": "area", "radiance": rgb(0.5, 0.5, 0.5)},
        }
        for i in range(weak)
    }
    primal, dx = noise_left(mi.load_dict(stage(DIFFUSE) | lamps))
    assert primal < 0.4
    assert dx < 0.6


# -------------------------------------------------------------------- where nothing is chosen


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("name", ["many_lights", "mixed_lights"])
def test_without_importance_it_is_path(name: str) -> None:
    import mitsuba as mi

    scene = load(name)
    ours, _ = render(scene, 16, seed=3, **AS_PATH)
    path = mi.load_dict({"type": "path", "max_depth": 5, "rr_depth": 100})
    theirs = np.array(mi.render(scene, integrator=path, spp=16, seed=3))[..., :3]
    assert ours["primal"] == pytest.approx(theirs, rel=1e-3, abs=1e-4)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_one_emitter_or_too_many_are_left_to_the_scene(monkeypatch: pytest.MonkeyPatch) -> None:
    def same(scene: Any) -> bool:
        a, b = (render(scene, 4, emitter_importance=value)[0] for value in (True, False))
        return all(np.array_equal(a[name], b[name]) for name in a)

    assert same(stage(DIFFUSE))
    assert not same(load("many_lights"))
    monkeypatch.setattr(emitter_table, "MOST", 3)
    assert same(load("many_lights"))


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_an_emitter_that_cannot_be_measured_is_no_error() -> None:
    """A plugin in Python that has what ``path`` needs, and no rays to offer."""
    import drjit as dr
    import mitsuba as mi

    class Beacon(mi.Emitter):
        def __init__(self, props: mi.Properties) -> None:
            mi.Emitter.__init__(self, props)
            self.m_flags = int(mi.EmitterFlags.DeltaPosition)

        def sample_direction(self, it: Any, sample: Any, active: Any = True) -> Any:
            ds = mi.DirectionSample3f()
            ds.p = mi.Point3f(0.5, 1.9, 1.0)
            ds.d = ds.p - it.p
            distance2 = dr.squared_norm(ds.d)
            ds.dist = dr.sqrt(distance2)
            ds.d /= ds.dist
            ds.n, ds.uv, ds.time = 0, 0, it.time
            ds.pdf, ds.delta, ds.emitter = 1, True, mi.EmitterPtr(self)
            return ds, mi.Spectrum(4) / distance2

        def pdf_direction(self, it: Any, ds: Any, active: Any = True) -> Any:
            return mi.Float(0)

        def eval(self, si: Any, active: Any = True) -> Any:
            return mi.Spectrum(0)

        def bbox(self) -> Any:
            return mi.ScalarBoundingBox3f()

    mi.register_emitter("beacon", Beacon)
    scene = mi.load_dict(stage(DIFFUSE, mine={"type": "beacon"}))
    with_importance, _ = render(scene, 16)
    without, _ = render(scene, 16, emitter_importance=False)
    assert np.array_equal(with_importance["primal"], without["primal"])
    assert without["primal"].mean() > render(stage(DIFFUSE), 16)[0]["primal"].mean()
