"""When paths end: by what they lost since the first vertex that scatters light."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

ROOM = {"type": "cube", "flip_normals": True}


def bounces(reflectance: float, **options: Any) -> float:
    """Return how often paths are scattered in a closed box, in the mean."""
    import mitsuba as mi

    scene = {
        "type": "scene",
        "room": ROOM | {"bsdf": {"type": "diffuse", "reflectance": reflectance}},
        "lamp": {"type": "point", "position": [0, 0, 0.5], "intensity": 1.0},
        "sensor": {
            "type": "perspective",
            "to_world": mi.ScalarTransform4f().look_at([0, 0, -0.5], [0, 0, 1], [0, 1, 0]),
            "film": {"type": "hdrfilm", "width": 16, "height": 16},
        },
    }
    integrator = mi.load_dict({"type": "gdpt", "shifts": 0, **options})
    mi.render(mi.load_dict(scene), integrator=integrator, spp=64)
    return float(np.array(integrator.bounces).mean())


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("eta", [1.0, 1.5])
def test_probability_is_twice_the_share_that_is_left(eta: float) -> None:
    import mitsuba as mi

    from mitsuba_gdpt.integrators.estimators import Roulette

    roulette = Roulette(3)
    first, index = mi.Spectrum(0.05, 0.2, 0.1) / eta**2, mi.Float(eta)
    reference = roulette.reference(mi.Float(0), first, index, mi.Bool(False))
    assert reference[0] == pytest.approx(0.2)
    kept = roulette.reference(reference, first / 4, index, mi.Bool(False))
    assert kept[0] == reference[0]
    for share, depth, expected in (
        (1.0, 3, 1.0),
        (0.5, 3, 1.0),
        (0.1, 3, 0.2),
        (0.1, 2, 1.0),
        (2.0, 15, 1.0),
        (2.0, 16, 0.95),
        (0.1, 16, 0.2),
    ):
        q = roulette.survival(first * share, index, reference, mi.UInt32(depth))
        assert q[0] == pytest.approx(expected), (share, depth)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_mirrors_and_glass_before_the_first_vertex_do_not_count() -> None:
    import mitsuba as mi

    from mitsuba_gdpt.integrators.estimators import Roulette

    roulette, one = Roulette(1), mi.Float(1)
    reference = roulette.reference(mi.Float(0), mi.Spectrum(0.4), one, mi.Bool(True))
    assert reference[0] == 0
    q = roulette.survival(mi.Spectrum(0.4), one, reference, mi.UInt32(1))
    assert q[0] == pytest.approx(0.8)
    reference = roulette.reference(reference, mi.Spectrum(0.3), one, mi.Bool(False))
    assert reference[0] == pytest.approx(0.3)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_paths_end_where_nothing_is_lost() -> None:
    """One in twenty from depth 16 on: 15 bounces and those of a geometric distribution."""
    assert bounces(1.0) == pytest.approx(15 + 20, rel=0.05)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_dark_walls_end_paths_by_what_they_lose_after_the_first() -> None:
    """With a reflectance of R: until R^k < 1/2, and from there on with probability R."""
    dark, depth = 0.4, 3
    expected = depth + (2 * dark**2) / (1 - dark)
    assert bounces(dark) == pytest.approx(expected, rel=0.05)
    assert bounces(dark, rr_depth=5) > bounces(dark) + 1


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_roulette_can_begin_later_or_never() -> None:
    assert bounces(0.2, max_depth=12, rr_depth=100) == pytest.approx(11, rel=1e-3)
