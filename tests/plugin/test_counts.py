"""Pixels with different numbers of samples: the same numbers as with one, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.integrators.pixels import PORTION
from tests.statistical.cases import BY_NAME

CASE = BY_NAME["roughdielectric"]


def integrator(**options: Any) -> Any:
    import mitsuba as mi

    return mi.load_dict({"type": "gdpt", "max_depth": 4, "variances": True} | options)


@pytest.fixture
def scene(variant_llvm_rgb: str) -> Any:
    import mitsuba as mi

    return mi.load_dict(CASE.build())


def size_of(scene: Any) -> tuple[int, int]:
    width, height = scene.sensors()[0].film().crop_size()
    return height, width


@pytest.mark.parametrize("shifts", [0, 1, 2, 4])
def test_equal_counts_are_a_render(scene: Any, shifts: int) -> None:
    plugin = integrator(shifts=shifts)
    for spp in (PORTION, 5 * PORTION):
        expected = np.array(plugin.render(scene, spp=spp, seed=3))
        bounces = np.array(plugin.bounces)
        counts = np.full(size_of(scene), spp)
        found = np.array(plugin.render_counts(scene, counts, seed=3))
        # Sums are added up in another order.
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-5)
        np.testing.assert_allclose(np.array(plugin.bounces), bounces, rtol=1e-5)
        assert bounces.shape == size_of(scene)


def test_pixels_without_samples_are_black(scene: Any) -> None:
    plugin = integrator(shifts=1)
    counts = np.zeros(size_of(scene), int)
    counts[3:6, 2:7] = 2 * PORTION
    counts[4, 4] = 4 * PORTION
    image = np.array(plugin.render_counts(scene, counts, seed=1))
    assert (image[counts == 0] == 0).all()
    assert (image[counts > 0][:, :3] > 0).any(axis=1).all()
    slices = plugin.layout.slices
    dx, dy = image[..., slices["dx"]], image[..., slices["dy"]]
    # A difference takes both of its pixels.
    assert dx[3:6, 2:6].any(axis=(0, 2)).all()
    assert not dx[:, 6].any()
    assert dy[3:5, 2:7].any(axis=(0, 2)).all()
    assert not dy[5].any()


def test_parts_that_fit_the_lanes(scene: Any) -> None:
    rng = np.random.default_rng(2)
    counts = PORTION * rng.integers(0, 6, size_of(scene))
    whole = integrator(shifts=1)
    parts = integrator(shifts=1, max_lanes=500)
    means = [
        np.mean([np.array(p.render_counts(scene, counts, seed=s))[..., :3] for s in range(8)], 0)
        for p in (whole, parts)
    ]
    assert ((means[0] > 0) == (means[1] > 0)).all()
    assert means[1].mean() == pytest.approx(means[0].mean(), rel=0.05)


def test_same_seed_same_bits(scene: Any) -> None:
    plugin = integrator(shifts=1)
    counts = PORTION * np.random.default_rng(2).integers(0, 4, size_of(scene))
    first, second = (np.array(plugin.render_counts(scene, counts, seed=7)) for _ in range(2))
    assert (first == second).all()
    assert (first != np.array(plugin.render_counts(scene, counts, seed=8))).any()


def test_variances_are_those_of_the_means(scene: Any) -> None:
    plugin = integrator(shifts=1, stratified=False, shared_subpixel=False)
    counts = PORTION * np.random.default_rng(2).integers(1, 5, size_of(scene))
    renders = np.stack(
        [np.array(plugin.render_counts(scene, counts, seed=seed)) for seed in range(48)]
    )
    slices = plugin.layout.slices
    for name in ("primal", "dx", "dy"):
        true = renders[..., slices[name]].var(0, ddof=1).mean()
        said = renders[..., slices[f"{name}.var"]].mean()
        assert said == pytest.approx(true, rel=0.15), name


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.full((2, 3), 8), "shape"),
        (np.full((12, 12), 8.0), "whole numbers"),
        (np.full((12, 12), 12), "multiples of 8"),
        (np.full((12, 12), -8), "none below 0"),
        (np.zeros((12, 12), int), "one above it"),
    ],
)
def test_counts_that_make_no_sense(scene: Any, counts: np.ndarray, message: str) -> None:
    if counts.shape == (12, 12):
        counts = np.resize(counts, size_of(scene))
    with pytest.raises(ConfigError, match=message):
        integrator().render_counts(scene, counts)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_samplers_that_round_are_refused() -> None:
    import mitsuba as mi

    scene = mi.load_dict(BY_NAME["orthogonal"].build())
    with pytest.raises(ConfigError, match="expected another"):
        integrator().render_counts(scene, np.full(size_of(scene), 8))
