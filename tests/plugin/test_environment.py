"""Sampling the environment: the densities are those of the directions, and they make sense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt.integrators import environment_table as tables
from tests.plugin.test_emitters import DIFFUSE, noise_left, probes, vertices
from tests.plugin.test_gdpt import AS_PATH, render
from tests.statistical.bias import Finding, compare, finite_difference
from tests.statistical.cases import rgb, room, stage, striped
from tests.statistical.test_bias import batches


def sunny() -> dict[str, Any]:
    return {"type": "sunsky", "sun_direction": [0.5, 0.7, 0.3], "turbidity": 3.0}


SKIES = {"striped": striped, "sunny": sunny}


def load(scene: dict[str, Any]) -> Any:
    import mitsuba as mi

    return mi.load_dict(scene, optimize=False)


def table_of(scene: Any) -> tables.EnvironmentTable:
    table = tables.EnvironmentTable.of(scene, lambda count: probes(scene, count))
    assert table is not None
    return table


# ------------------------------------------------------------------------------- bookkeeping


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("sky", [*SKIES])
def test_cells_are_chosen_with_their_densities(sky: str) -> None:
    import mitsuba as mi

    table = table_of(load(room(SKIES[sky]())))
    cells = tables.HEIGHT * tables.WIDTH
    density = np.array(table.density).reshape(-1, cells).astype(np.float64)
    assert density.mean(1) * 4 * np.pi == pytest.approx(1, abs=2e-5)
    draws, side = 1 << 20, 3
    rng = np.random.default_rng(2)
    u = mi.Point2f(*rng.random((2, draws)).astype(np.float32))
    spot = table.choose(mi.UInt32(side), u, mi.Bool(True))
    x, y = np.array(spot.place) * [[tables.WIDTH], [tables.HEIGHT]]
    index = y.astype(int) * tables.WIDTH + x.astype(int)
    again = np.array(table.density_of(mi.UInt32(side), spot.place))
    assert np.isclose(np.array(spot.density), again, rtol=1e-4).mean() > 0.999
    # A hundred groups of cells, which are met as often as they should be.
    group = np.arange(cells) * 100 // cells
    expected = np.bincount(group, weights=density[side]) / density[side].sum() * draws
    found = np.bincount(group[index], minlength=100)
    assert (np.abs(found - expected) < 5 * np.sqrt(expected) + 5).all()
    # The mean of 1 / density is the solid angle: none is forgotten, nor counted twice.
    assert np.mean(1 / again.astype(np.float64)) == pytest.approx(4 * np.pi, rel=0.03)


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("sky", [*SKIES])
def test_density_of_a_direction_is_that_of_its_sample(sky: str) -> None:
    import drjit as dr
    import mitsuba as mi

    from mitsuba_gdpt.integrators.emitter_table import EmitterTable
    from mitsuba_gdpt.integrators.emitters import Emitters

    scene = load(room(SKIES[sky]()) | {"lamp": lamp_inside()})
    emitters = EmitterTable.of(scene, lambda count: probes(scene, count))
    si = vertices(scene, 20_000)
    light = Emitters(scene, emitters, table_of(scene)).at(si, si.bsdf().flags())
    u = np.random.default_rng(1).random((2, len(si.t))).astype(np.float32)
    choice = light.choose(mi.Point2f(*u))
    assert np.array(light.ratio(choice)) == pytest.approx(1, rel=1e-3)
    ds, weight = light.sample(choice)
    outside = np.array((ds.pdf > 0) & (ds.dist > 5))
    assert outside.sum() > 300
    pdf = np.array(light.pdf(ds))[outside]
    # Rounding moves a few across the border of a cell.
    close = np.isclose(pdf, np.array(ds.pdf)[outside], rtol=1e-2)
    assert close.mean() > 0.98
    assert np.isfinite(np.array(dr.max(weight))).all()


def lamp_inside() -> dict[str, Any]:
    return {
        "type": "sphere",
        "center": [-1, 0, -1],
        "radius": 0.1,
        "emitter": {"type": "area", "radiance": rgb(5, 5, 5)},
    }


# ------------------------------------------------------------------------------ no bias


def findings() -> list[Finding]:
    """Compare gdpt with path in a room that is lit through a window.

    The signs of the edges are of other renders than those that they are summed up with: where the
    noise is this strong, they would follow it.
    """
    import mitsuba as mi

    scene = mi.load_dict(room(striped()))
    gdpt = mi.load_dict({"type": "gdpt", "max_depth": 4, "shifts": 4})
    path = mi.load_dict({"type": "path", "max_depth": 4})
    ours = batches(scene, gdpt, 256, 16, 1000)
    theirs = batches(scene, path, 1024, 32, 5000)[..., :3].mean(-1)
    signs_of, theirs = theirs[:16], theirs[16:]
    result = []
    for name, axis in (("primal", None), ("dx", "x"), ("dy", "y")):
        other, reference = (
            (x if axis is None else finite_difference(x, axis)) for x in (signs_of, theirs)
        )
        mean = other.mean(0)
        edges = np.sign(mean) * (np.abs(mean) > np.quantile(np.abs(mean), 0.75))
        buffer = ours[..., gdpt.layout.slices[name]].mean(-1)
        rounding = 5e-5 * np.abs(theirs).mean(0)
        result += compare(name, buffer, reference, edges, rounding)
    return result


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_there_is_no_bias() -> None:
    found = findings()
    assert not any(f.biased for f in found), found


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_a_wrong_density_at_the_offset_vertex_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from mitsuba_gdpt.integrators.emitters import Sky

    density = Sky.density
    monkeypatch.setattr(Sky, "density", lambda self, spot: 2 * density(self, spot))
    assert any(f.biased for f in findings() if not f.name.startswith("primal"))


# ---------------------------------------------------------------------------------- judgement


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_what_is_visible_is_sampled() -> None:
    """Through a window in the ceiling, a constant sky is seen straight above."""
    import mitsuba as mi

    scene = load(room({"type": "constant"}))
    table = table_of(scene)
    density = np.array(table.density).reshape(-1, tables.HEIGHT, tables.WIDTH)
    y, x = np.mgrid[: tables.HEIGHT, : tables.WIDTH]
    place = mi.Point2f((x.ravel() + 0.5) / tables.WIDTH, (y.ravel() + 0.5) / tables.HEIGHT)
    d = np.array(tables._direction(place)).reshape(3, tables.HEIGHT, tables.WIDTH)
    up = tables._side(mi.Normal3f(0, 1, 0))[0]
    # A slit of 1 x 4, four above the floor.
    seen = density[up][(np.abs(d[0]) < 0.2 * d[1]) & (np.abs(d[2]) < 0.4 * d[1])]
    hidden = density[up][d[1] < 0]
    assert seen.mean() > 20 * hidden.mean()
    # Whatever the rays took for hidden can be sampled.
    assert density.min() > 0.002 / (4 * np.pi)


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize(("sky", "most"), [("striped", 0.9), ("sunny", 1.3)])
def test_noise_falls(sky: str, most: float) -> None:
    """The sun alone is sampled as well by the sky itself."""
    primal, dx = noise_left(load(room(SKIES[sky]())))
    assert primal < most
    assert dx < most


# -------------------------------------------------------------------- where nothing is chosen


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_without_importance_it_is_path() -> None:
    import mitsuba as mi

    scene = load(room(striped()))
    ours, _ = render(scene, 16, seed=3, **AS_PATH)
    path = mi.load_dict({"type": "path", "max_depth": 5, "rr_depth": 100})
    theirs = np.array(mi.render(scene, integrator=path, spp=16, seed=3))[..., :3]
    assert ours["primal"] == pytest.approx(theirs, rel=1e-3, abs=1e-4)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_there_is_no_table_where_there_is_nothing_to_choose_or_the_choice_would_show() -> None:
    import mitsuba as mi

    assert tables.EnvironmentTable.of(load(stage(DIFFUSE)), lambda _: None) is None
    scene = load(room(striped()))
    assert tables.EnvironmentTable.of(scene) is None
    # Mitsuba merges these, and forgets where they are.
    tiles = {
        name: {
            "type": "rectangle",
            "to_world": mi.ScalarTransform4f().translate([0, x, 0]),
            "bsdf": DIFFUSE,
        }
        for name, x in (("a", 0), ("b", 3))
    }
    merged = mi.load_dict({"type": "scene", "sky": {"type": "constant"}} | tiles)
    assert tables.EnvironmentTable.of(merged, lambda count: probes(scene, count)) is None
    far = mi.ScalarTransform4f().translate([1e5, 0, 0])
    ball = {"type": "sphere", "to_world": far}
    distant = load({"type": "scene", "ball": ball, "sky": {"type": "constant"}})
    assert tables.EnvironmentTable.of(distant, lambda count: probes(scene, count)) is None


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_a_black_environment_and_a_changed_one_are_no_trouble() -> None:
    import mitsuba as mi

    scene = load(room({"type": "constant", "radiance": 0.0}))
    integrator = mi.load_dict({"type": "gdpt", "max_depth": 4, "freeze": True})
    assert np.all(np.array(mi.render(scene, integrator=integrator, spp=4))[..., :3] == 0)
    params = mi.traverse(scene)
    params["sky.radiance.value"] = 2.0
    params.update()
    image = np.array(mi.render(scene, integrator=integrator, spp=64))[..., :3]
    path = mi.load_dict({"type": "path", "max_depth": 4})
    expected = np.array(mi.render(scene, integrator=path, spp=256))[..., :3]
    assert image.mean() == pytest.approx(expected.mean(), rel=0.05)
