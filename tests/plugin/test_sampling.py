"""The stratified random numbers: their distribution, and that renders use them without bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.statistical.cases import camera, stage

SIDE = 64
PIXELS = SIDE * SIDE
DIFFUSE = {"type": "diffuse", "reflectance": {"type": "rgb", "value": [0.4, 0.6, 0.3]}}


def draws(spp: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One 1D draw and two 2D draws: (PIXELS, spp), (PIXELS, spp, 2) twice."""
    import mitsuba as mi

    from mitsuba_gdpt.integrators.pixels import Tile
    from mitsuba_gdpt.integrators.sampling import SobolSampler

    lanes = Tile(0, 0, SIDE, SIDE).lanes(spp)
    x, y = mi.UInt32(lanes.x), mi.UInt32(lanes.y)
    sampler = SobolSampler.start(mi.UInt32(seed), x, y, lanes.sample, spp)
    one, first, second = sampler.next_1d(), sampler.next_2d(), sampler.next_2d()
    points = [np.array(p).T.reshape(PIXELS, spp, 2) for p in (first, second)]
    return np.array(one).reshape(PIXELS, spp), points[0], points[1]


def of_blocks(points: np.ndarray, side: int) -> np.ndarray:
    """Points of square blocks of pixels together: (blocks, points, 2)."""
    tiles = points.reshape(SIDE // side, side, SIDE // side, side, -1, 2)
    return tiles.swapaxes(1, 2).reshape(-1, side * side * points.shape[1], 2)


def defect(points: np.ndarray) -> int:
    """The least t for which the points of each set are a (t, m, 2)-net in base 2."""
    bits = int(np.log2(points.shape[1]))
    assert 2**bits == points.shape[1]
    for t in range(bits + 1):
        grids = [(2**k, 2 ** (bits - t - k)) for k in range(bits - t + 1)]
        if all((counts(points, *grid) == 2**t).all() for grid in grids):
            return t
    raise AssertionError("the whole square holds all points")


def counts(points: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """How many points of each set lie in each cell of a grid."""
    cells = (points[..., 0] * columns).astype(int) * rows + (points[..., 1] * rows).astype(int)
    cells += np.arange(len(points))[:, None] * columns * rows
    return np.bincount(cells.ravel(), minlength=len(points) * columns * rows)


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("bits", range(7))
def test_powers_of_two_are_nets(bits: int) -> None:
    """Of each pixel, and of each block of pixels."""
    one, *planes = draws(2**bits)
    flat = np.stack([one, np.zeros_like(one)], -1)
    assert (counts(flat, max(1, 2**bits // 2), 1) == min(2, 2**bits)).all()
    for points in planes:
        assert points.min() >= 0
        assert points.max() < 1
        assert defect(points) <= (bits > 2)
        assert defect(of_blocks(points, 2)) <= 2
        assert defect(of_blocks(points, 4)) <= 2
        assert defect(of_blocks(points, 8)) == 0
        # shifts=2 uses the samples of one parity by themselves, shifts=1 those of one remainder.
        for halvings in range(1, min(bits, 2) + 1):
            for remainder in range(2**halvings):
                part = points[:, remainder :: 2**halvings]
                assert defect(part) <= 1
                assert defect(of_blocks(part, 8)) == 0


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("spp", [1, 5, 8])
def test_each_sample_is_uniform_and_independent_between_draws_and_blocks(spp: int) -> None:
    one, first, second = draws(spp)
    columns = [one[..., None], first, second]
    for sample in range(spp):
        values = np.concatenate([c[:, sample] for c in columns], axis=1)  # (PIXELS, 5)
        bins = 8
        for i in range(5):
            for j in range(i):
                hits = np.histogram2d(values[:, i], values[:, j], bins, [[0, 1]] * 2)[0]
                expected = PIXELS / bins**2
                statistic = ((hits - expected) ** 2 / expected).sum()
                assert statistic < 63 + 5.5 * (2 * 63) ** 0.5  # chi squared, 63 degrees of freedom
        grid = values[:, 0].reshape(SIDE, SIDE)
        for apart in (grid[8:], grid[:-8]), (grid[:, 8:], grid[:, :-8]):
            assert abs(np.corrcoef(*(a.ravel() for a in apart))[0, 1]) < 5 / PIXELS**0.5
        # Neighbours do not resemble each other: what is positively correlated looks like detail.
        for near, most in ((grid[1:], grid[:-1]), 0.08), ((grid[:, 1:], grid[:, :-1]), -0.1):
            assert np.corrcoef(*(a.ravel() for a in near))[0, 1] < most


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("spp", [1, 4, 6, 16])
def test_errors_of_neighbours_cancel(spp: int) -> None:
    """The mean over small blocks has less noise than as many independent pixels would give it."""
    points = draws(spp)[1]
    estimates = np.minimum(points[..., 0] * 1.3, 1) * points[..., 1] ** 2
    alone = estimates.mean(1).var()
    for side, least in ((2, 1.15), (4, 0.15), (8, 0.03)):
        blocks = of_blocks(np.stack([estimates, estimates], -1), side)[..., 0]
        assert blocks.mean(1).var() < least * alone / side**2, side


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_an_average_has_less_noise_than_of_independent_numbers() -> None:
    random = np.random.default_rng(0)

    def noise(points: np.ndarray) -> float:
        return float((np.minimum(points[..., 0] * 1.3, 1) * points[..., 1] ** 2).mean(1).std())

    assert noise(draws(16)[1]) < 0.3 * noise(random.random((PIXELS, 16, 2)))
    # Numbers of different draws together: no worse than independent ones.
    _, first, second = draws(16)
    joint = np.stack([first[..., 0], second[..., 1]], -1)
    assert noise(joint) < 0.8 * noise(random.random((PIXELS, 16, 2)))


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_seeds_differ() -> None:
    assert not np.array_equal(draws(8, 3)[1], draws(8, 4)[1])


def _renders(scene: Any, count: int, **options: Any) -> np.ndarray:
    import mitsuba as mi

    integrator = mi.load_dict({"type": "gdpt", "max_depth": 5} | options)
    return np.array(
        [np.array(mi.render(scene, integrator=integrator, spp=16, seed=s)) for s in range(count)]
    )


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("shifts", [1, 2, 4])
def test_renders_have_the_same_mean_and_less_noise(shifts: int) -> None:
    import mitsuba as mi

    scene = mi.load_dict(stage(DIFFUSE))
    plain = _renders(scene, 48, shifts=shifts, stratified=False)
    ours = _renders(scene, 48, shifts=shifts)
    deviation = np.sqrt((plain.var(0, ddof=1) + ours.var(0, ddof=1)) / 48)
    z = (ours.mean(0) - plain.mean(0))[..., :9] / np.maximum(deviation[..., :9], 1e-6)
    assert np.sqrt((z**2).mean()) < 1.15
    less = (ours.var(0) + 1e-12) / (plain.var(0) + 1e-12)
    assert np.median(less[..., :3]) < 0.8
    assert np.median(less[..., 3:9]) < 1


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_other_samplers_are_used_as_they_are() -> None:
    import mitsuba as mi

    for sampler, replaced in (("independent", True), ("multijitter", False)):
        scene = stage(DIFFUSE)
        scene["sensor"] = camera() | {"sampler": {"type": sampler, "sample_count": 16}}
        loaded = mi.load_dict(scene)
        same = np.array_equal(_renders(loaded, 1), _renders(loaded, 1, stratified=False))
        assert same != replaced


class Pinhole:
    """What a sensor says that has neither lens nor shutter."""

    def needs_aperture_sample(self) -> bool:
        return False

    def shutter_open_time(self) -> float:
        return 0.0


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("spp", [1, 2, 3, 4, 8, 32])
def test_shared_positions_are_uniform_and_centred(spp: int) -> None:
    from mitsuba_gdpt.integrators.camera import shared_subpixel

    sets = [shared_subpixel(Pinhole(), spp, seed) for seed in range(600)]
    points = np.array([np.array(pair) for pair in sets])  # (600, 2, spp)
    assert points.min() >= 0
    assert points.max() < 1
    for sample in range(spp):
        for axis in range(2):
            assert stats.kstest(points[:, axis, sample], "uniform").pvalue > 1e-4
        assert abs(np.corrcoef(points[:, 0, sample], points[:, 1, sample])[0, 1]) < 0.16
    displacement = points.mean(2) - 0.5
    if spp % 2 == 0:  # one that is off by a tenth of a pixel shifts the whole image by that
        assert np.abs(displacement).max() < 1e-6
    if spp == 8:  # shifts=1 uses the samples of one remainder by themselves
        for remainder in range(4):
            assert np.abs(points[:, :, remainder::4].mean(2) - 0.5).max() < 1e-6
    cells = np.sort((points[:, 0] * spp).astype(int), axis=1)
    if spp & (spp - 1) == 0:  # powers of two
        assert (cells == np.arange(spp)).all()


@pytest.mark.parametrize("shifts", [0, 1, 4])
def test_passes_are_as_well_stratified_as_one_render(variant_llvm_rgb: str, shifts: int) -> None:
    """The mean of passes of one sequence is the primal of one render, to rounding."""
    import mitsuba as mi

    scene = mi.load_dict({**stage({"type": "diffuse"}), "sensor": camera()})
    plugin = mi.load_dict({"type": "gdpt", "shifts": shifts, "max_depth": 4})
    whole = np.array(plugin.render(scene, spp=64, seed=5))[..., :3]
    taken, total = 0, np.zeros(whole.shape)
    for spp in (4, 4, 8, 16, 32):
        image = np.array(plugin.render(scene, spp=spp, seed=5, first=taken))[..., :3]
        total += spp * image.astype(np.float64)
        taken += spp
    np.testing.assert_allclose(total / taken, whole, rtol=1e-4, atol=1e-5)


def test_other_samplers_go_on_with_other_numbers(variant_llvm_rgb: str) -> None:
    import mitsuba as mi

    scene = mi.load_dict({**stage({"type": "diffuse"}), "sensor": camera()})
    for options in ({"stratified": False}, {}):
        plugin = mi.load_dict({"type": "gdpt", "max_depth": 3, **options})
        first, again, later = (
            np.array(plugin.render(scene, spp=4, seed=5, first=taken)) for taken in (0, 0, 4)
        )
        assert (first == again).all()
        assert (first != later).any()


def test_tiles_do_not_matter(variant_llvm_rgb: str) -> None:
    import mitsuba as mi

    scene = mi.load_dict({**stage({"type": "diffuse"}), "sensor": camera()})
    images = [
        np.array(mi.load_dict({"type": "gdpt", "max_lanes": lanes}).render(scene, spp=8, seed=2))
        for lanes in (1 << 22, 400)
    ]
    np.testing.assert_allclose(*images, rtol=1e-4, atol=1e-5)
