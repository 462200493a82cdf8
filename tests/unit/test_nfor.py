"""NFOR against a slow, direct implementation and the properties that it must have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mitsuba_gdpt import denoisers
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.denoisers.classical import nfor as nfor_module
from mitsuba_gdpt.denoisers.classical.nfor import inputs, nfor
from mitsuba_gdpt.denoisers.classical.nfor.nlmeans import (
    PatchDistances,
    Tile,
    filter_images,
    tiles,
    weights_of,
)
from mitsuba_gdpt.denoisers.classical.nfor.pair import Pair
from mitsuba_gdpt.denoisers.classical.nfor.regression import BandedWeights, regress
from mitsuba_gdpt.denoisers.classical.nfor.selection import select, squared_error
from mitsuba_gdpt.errors import ConfigError, LayoutError, NonFiniteError

Array = NDArray[np.float64]
LAYOUT = Layout.make(features=("visibility",), variances=True)
Halves = tuple[FrameBuffers, FrameBuffers]


pytestmark = pytest.mark.usefixtures("one_thread")


# ------------------------------------------------------------------------------------- scenes


def truth(height: int, width: int) -> dict[str, Array]:
    """Noise-free buffers: a floor and a wall, textured, with a shadow that no feature knows of."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    wall = (y < 0.4)[..., None]
    checks = ((x * 8).astype(int) + (y * 8).astype(int))[..., None] % 2
    albedo = np.where(wall, [0.7, 0.6, 0.4], 0.3 + 0.4 * checks * np.array([1.0, 0.8, 0.5]))
    light = 1.5 - x[..., None] - 0.8 * (((x - 0.6) ** 2 + (y - 0.7) ** 2) < 0.03)[..., None]
    return {
        "primal": albedo * light,
        "albedo": albedo,
        "normal": np.where(wall, [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]),
        "depth": (5 - 2 * y)[..., None],
        "visibility": np.clip(light, 0, 1),
    }


SIGMA = {"primal": 0.8, "albedo": 0.02, "normal": 0.02, "depth": 0.05, "visibility": 0.2}


def rendered(
    clean: dict[str, Array], spp: int, seed: int, fireflies: float = 0.0
) -> tuple[FrameBuffers, FrameBuffers]:
    """Return the mean of ``spp`` noisy samples, with variances and without (a half needs none)."""
    rng = np.random.default_rng(seed)
    height, width = clean["primal"].shape[:2]
    frame = torch.zeros(height, width, LAYOUT.count)
    for name, sigma in SIGMA.items():
        noise = sigma * rng.standard_normal((spp, *clean[name].shape))
        if name == "primal":
            noise += 50 * (rng.random((spp, height, width, 1)) < fireflies)
        samples = clean[name] + noise
        frame[..., LAYOUT.slices[name]] = torch.from_numpy(samples.mean(0)).float()
        if name + ".var" in LAYOUT:
            variance = samples.var(0, ddof=1).mean(-1, keepdims=True) / spp if spp > 1 else 0
            frame[..., LAYOUT.slices[name + ".var"]] = torch.as_tensor(variance).float()
    buffers = FrameBuffers.from_tensor(frame, LAYOUT)
    return buffers, without(buffers, ".var")


def without(buffers: FrameBuffers, ending: str) -> FrameBuffers:
    """Leave out the buffers whose names end so."""
    kept = Layout(tuple(b for b in buffers.layout.buffers if not b.name.endswith(ending)))
    return FrameBuffers.from_tensor(torch.cat([buffers[name] for name in kept.names], -1), kept)


def merged(a: FrameBuffers, b: FrameBuffers, share: float = 0.5) -> FrameBuffers:
    """The render whose halves are a and b; variances of the means added up."""
    data = share * a.data + (1 - share) * b.data
    for name, place in LAYOUT.slices.items():
        if name.endswith(".var"):
            data[..., place] = share**2 * a.data[..., place] + (1 - share) ** 2 * b.data[..., place]
    return FrameBuffers.from_tensor(data, LAYOUT)


def case(
    height: int = 24, width: int = 28, spp: int = 8, fireflies: float = 0.0
) -> tuple[FrameBuffers, Halves, dict[str, Array]]:
    clean = truth(height, width)
    a, thin_a = rendered(clean, spp, 1, fireflies)
    b, thin_b = rendered(clean, spp, 2, fireflies)
    return merged(a, b), (thin_a, thin_b), clean


def mse(image: torch.Tensor, clean: Array) -> float:
    return float(np.square(image.numpy() - clean).mean())


SMALL: dict[str, Any] = {"patch_radius": 1, "window_radius": 3}


# ----------------------------------------------------------------- slow, direct implementation


def slow_weights(guide: Array, variance: Array, patch: int, window: int, k: float) -> Array:
    """(H, W, H, W) weights by the formulas, one pair of pixels after the other."""
    height, width = variance.shape
    weights = np.zeros((height, width, height, width))

    def inside(y: int, x: int) -> bool:
        return 0 <= y < height and 0 <= x < width

    steps = range(-patch, patch + 1)
    for p in np.ndindex(height, width):
        for q in np.ndindex(height, width):
            if max(abs(p[0] - q[0]), abs(p[1] - q[1])) > window:
                continue
            terms = []
            for dy in steps:
                for dx in steps:
                    r, s = (p[0] + dy, p[1] + dx), (q[0] + dy, q[1] + dx)
                    if inside(*r) and inside(*s):
                        v, u = variance[r], variance[s]
                        squared = np.mean((guide[r] - guide[s]) ** 2)
                        terms.append(min((squared - (v + min(v, u))) / (v + u), 1e4))
            weights[p][q] = math.exp(-max(np.mean(terms), 0) / k**2)
    return weights


def slow_regress(
    colour: Array, features: Array, weights: Array, window: int, ridge: float
) -> Array:
    """Weighted least squares for every pixel's window, predictions averaged; features (H, W, D)."""
    height, width = colour.shape[:2]
    y, x = np.mgrid[:height, :width]
    coordinates = np.stack([y, x], -1) / window
    design = np.concatenate([coordinates, features], -1).reshape(height * width, -1)
    sums = np.zeros((height * width, 3))
    total = np.zeros((height * width, 1))
    for p in np.ndindex(height, width):
        w = weights[p].reshape(-1, 1)
        centred = design - design[p[0] * width + p[1]]
        matrix = np.concatenate([np.ones_like(w), centred], -1)
        penalty = np.sqrt(ridge) * np.eye(matrix.shape[1])[1:]
        rows = np.concatenate([np.sqrt(w) * matrix, penalty])
        right = np.concatenate([np.sqrt(w) * colour.reshape(-1, 3), np.zeros((len(penalty), 3))])
        fit = np.linalg.lstsq(rows, right, rcond=None)[0]
        sums += w * (matrix @ fit)
        total += w
    return (sums / total).reshape(colour.shape)


def planar(image: Array) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(image, -1, 0)).float().contiguous()


def interleaved(image: torch.Tensor) -> Array:
    return np.moveaxis(image.double().numpy(), 0, -1)


def noisy_case(height: int, width: int) -> tuple[Array, Array, Array]:
    """Guide with its variance, and features."""
    rng = np.random.default_rng(3)
    clean = truth(height, width)
    guide = clean["primal"] + 0.2 * rng.standard_normal(clean["primal"].shape)
    variance = 0.04 * rng.uniform(0.5, 1.5, (height, width))
    features = np.concatenate([clean["albedo"], clean["depth"] / 4], -1)
    return guide, variance, features + 0.02 * rng.standard_normal(features.shape)


class TestAgainstDirectImplementation:
    @pytest.mark.parametrize(("patch", "window"), [(1, 2), (2, 3), (0, 1)])
    def test_weights(self, patch: int, window: int) -> None:
        guide, variance, _ = noisy_case(7, 9)
        expected = slow_weights(guide, variance, patch, window, 0.8)
        distances = PatchDistances(planar(guide), torch.from_numpy(variance).float(), patch, window)
        weights = weights_of(distances(Tile(0, 0, 7, 9)), 0.8).numpy()
        found = np.zeros_like(expected)
        for y, x, i, j in np.ndindex(7, 9, *weights.shape[:2]):
            q = y + i - window, x + j - window
            if 0 <= q[0] < 7 and 0 <= q[1] < 9:
                found[y, x][q] = weights[i, j, y, x]
            else:
                assert weights[i, j, y, x] == 0
        assert expected[expected > 0].std() > 0.05  # weights of all sizes were compared
        np.testing.assert_allclose(found, expected, atol=2e-5)

    @pytest.mark.parametrize(("height", "width", "window"), [(8, 9, 2), (5, 11, 3), (3, 2, 4)])
    def test_regression(self, height: int, width: int, window: int) -> None:
        guide, variance, features = noisy_case(height, width)
        colour = noisy_case(height, width)[0][::-1].copy()  # another image than the guide
        weights = slow_weights(guide, variance, 1, window, 1.0)
        expected = slow_regress(colour, features, weights, window, 1e-3)
        distances = PatchDistances(planar(guide), torch.from_numpy(variance).float(), 1, window)
        (found,) = regress(planar(colour), planar(features), distances, [1.0], ridge=1e-3)
        np.testing.assert_allclose(interleaved(found), expected, atol=1e-4)

    def test_filter(self) -> None:
        guide, variance, features = noisy_case(8, 9)
        weights = slow_weights(guide, variance, 1, 2, 0.7).reshape(72, 72)
        expected = weights @ features.reshape(72, -1) / weights.sum(1, keepdims=True)
        distances = PatchDistances(planar(guide), torch.from_numpy(variance).float(), 1, 2)
        found = interleaved(filter_images(planar(features), distances, 0.7))
        np.testing.assert_allclose(found, expected.reshape(features.shape), atol=1e-5)

    def test_scatter_is_the_transpose_of_gather(self) -> None:
        rng = np.random.default_rng(0)
        banded = BandedWeights(torch.from_numpy(rng.random((5, 5, 3, 4))))
        outer = torch.from_numpy(rng.random((7, 8, 1)))
        inner = torch.from_numpy(rng.random((3, 4, 1)))
        left = (banded.gather(outer) * inner).sum()
        torch.testing.assert_close(left, (outer * banded.scatter(inner)).sum())


# --------------------------------------------------------------------------------- properties


class TestRegression:
    def regress(self, colour: Array, features: Array, variance: float, **options: Any) -> Array:
        guide = planar(colour)
        distances = PatchDistances(guide, torch.full(guide.shape[1:], variance), 1, 4)
        return interleaved(regress(guide, planar(features), distances, [1.0], **options)[0])

    def test_is_exact_where_colour_is_linear_in_features(self) -> None:
        _, _, features = noisy_case(13, 17)
        y, x = np.mgrid[:13, :17]
        mix = np.random.default_rng(1).random((features.shape[-1], 3))
        colour = 2 + features @ mix + 0.01 * x[..., None] - 0.02 * y[..., None]
        found = self.regress(colour, features, 10.0, ridge=1e-9)
        np.testing.assert_allclose(found, colour, rtol=1e-5)
        assert np.abs(colour - colour.mean((0, 1))).max() > 0.3

    def test_ridge_hardly_shrinks_features_that_matter(self) -> None:
        features = truth(20, 20)["albedo"]
        found = self.regress(features * 3, features, 10.0)
        np.testing.assert_allclose(found, features * 3, atol=5e-3)

    @pytest.mark.parametrize("features", ["constant", "duplicate", "huge", "zero"])
    def test_degenerate_features(self, features: str) -> None:
        rng = np.random.default_rng(0)
        colour = 1 + 0.1 * rng.standard_normal((9, 9, 3))
        column = rng.random((9, 9, 1))
        design = {
            "constant": np.full((9, 9, 2), 0.3),
            "duplicate": np.concatenate([column, column, 1 - column], -1),
            "huge": np.concatenate([column, 1e6 * column], -1),
            "zero": np.zeros((9, 9, 1)),
        }[features]
        found = self.regress(colour, design, 0.01)
        assert np.isfinite(found).all()
        assert np.square(found - 1).mean() < 0.3 * np.square(colour - 1).mean()

    def test_tiles_change_nothing(self) -> None:
        guide, variance, features = noisy_case(23, 31)
        distances = PatchDistances(planar(guide), torch.from_numpy(variance).float(), 2, 3)
        arguments = (planar(guide), planar(features), distances, [0.5, 1.0])
        whole = regress(*arguments, tile_size=(23, 31))
        for size in ((7, 5), (23, 1), (16, 30)):
            tiled = regress(*arguments, tile_size=size)
            for a, b in zip(whole, tiled, strict=True):
                torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
        smooth = filter_images(planar(guide), distances, 0.5, tile_size=40)
        torch.testing.assert_close(smooth, filter_images(planar(guide), distances, 0.5, 6))

    def test_tiles_cover_each_pixel_once(self) -> None:
        image = torch.zeros(13, 17)
        for tile in tiles(13, 17, 4, 5):
            tile.of(image).add_(1)
        assert bool((image == 1).all())


class TestSelection:
    def test_error_estimate_is_unbiased(self) -> None:
        rng = np.random.default_rng(0)
        share, bias, sigma, rest = 0.25, 0.3, 0.5, 0.2  # of the mean; of filtered halves
        shape = (3, 200, 200)

        def noise(deviation: float) -> torch.Tensor:
            return torch.from_numpy(deviation * rng.standard_normal(shape)).float()

        parts = (share, 1 - share)
        colour = Pair(*(1 + noise(sigma / math.sqrt(part)) for part in parts), share)
        filtered = Pair(*(1 + bias + noise(rest / math.sqrt(part)) for part in parts), share)
        estimate = squared_error(colour, torch.full(shape[1:], sigma**2), filtered)
        true = (filtered.mean() - 1).square().mean(0)
        deviation = float((estimate - true).std()) / math.sqrt(estimate.numel())
        assert float(true.mean()) == pytest.approx(bias**2 + rest**2, rel=0.02)
        assert float((estimate - true).mean()) == pytest.approx(0, abs=4 * deviation)
        assert deviation < 0.01

    def test_takes_the_candidate_with_less_error(self) -> None:
        errors = torch.zeros(3, 12, 20)
        errors[1, :, :10], errors[2, :, 10:] = -1.0, -1.0
        candidates = [
            Pair(torch.full((3, 12, 20), v), torch.full((3, 12, 20), -v), 0.5)
            for v in (1.0, 2.0, 3.0)
        ]
        guide = torch.zeros(1, 12, 20)
        guide[..., 10:] = 1.0  # an edge where the choice changes
        distances = PatchDistances(guide, torch.full((12, 20), 1e-4), 1, 3)
        chosen = select(errors, candidates, distances)
        expected = torch.tensor([2.0] * 9 + [3.0] * 9).expand(3, 12, 18)
        columns = [*range(9), *range(11, 20)]  # patches at the edge see both sides
        torch.testing.assert_close(chosen.a[..., columns], expected)
        torch.testing.assert_close(chosen.b[..., columns], -expected)


class TestNfor:
    @pytest.mark.parametrize("with_halves", [True, False])
    def test_removes_noise(self, with_halves: bool) -> None:
        buffers, halves, clean = case(40, 44)
        image = nfor(buffers, halves=halves if with_halves else None)
        factor = mse(buffers["primal"], clean["primal"]) / mse(image, clean["primal"])
        assert factor > (12 if with_halves else 8)

    def test_halves_help(self) -> None:
        buffers, halves, clean = case(40, 44)
        with_halves = mse(nfor(buffers, halves=halves), clean["primal"])
        assert with_halves < mse(nfor(buffers), clean["primal"])

    def test_choice_of_bandwidth_is_local(self) -> None:
        """One side needs a small bandwidth (details that no feature knows), the other a large."""
        clean = truth(24, 48)
        y, x = np.mgrid[:24, :48]
        details = (((y // 2 + x // 3) % 2) * 3.0 * (x < 24))[..., None]
        clean["primal"] = 1 + details + np.zeros(3)
        (a, thin_a), (b, thin_b) = rendered(clean, 8, 1), rendered(clean, 8, 2)
        colour, features = inputs.read(merged(a, b), (thin_a, thin_b))
        smooth = [nfor_module._smooth_halves(feature) for feature in features]

        assert colour.halves is not None

        def errors(pair: Pair) -> Array:
            squared = np.square(interleaved(pair.mean()) - clean["primal"])
            return np.array([squared[:, :21].mean(), squared[:, 27:].mean()])

        arguments = (colour, colour.halves, smooth, nfor_module._Options((0.2, 3.0), 1, 4))
        small, large = map(errors, nfor_module._filter_halves(*arguments))
        chosen = errors(nfor_module._first_pass(*arguments))
        assert small[0] < 0.5 * large[0]
        assert large[1] < 0.7 * small[1]
        assert (chosen < 1.15 * np.minimum(small, large)).all()

    def test_two_samples_with_halves_of_one(self) -> None:
        clean = truth(32, 32)
        (_, a), (_, b) = rendered(clean, 1, 1), rendered(clean, 1, 2)
        buffers = FrameBuffers.from_tensor(torch.zeros(32, 32, LAYOUT.count), LAYOUT)
        for name in a.names:
            buffers[name][:] = (a[name] + b[name]) / 2
            if name + ".var" in buffers:
                buffers[name + ".var"][:] = (a[name] - b[name]).square().mean(-1, True) / 4
        image = nfor(buffers, halves=(a, b))
        assert mse(buffers["primal"], clean["primal"]) > 8 * mse(image, clean["primal"])

    @pytest.mark.parametrize("with_halves", [True, False])
    def test_constant_image_stays(self, with_halves: bool) -> None:
        buffers, halves, _ = case(12, 14)
        for part in (buffers, *halves):
            part["primal"][:] = torch.tensor([0.2, 0.5, 3.0])
        image = nfor(buffers, halves=halves if with_halves else None, **SMALL)
        torch.testing.assert_close(image, buffers["primal"], rtol=1e-4, atol=0)

    @pytest.mark.parametrize("with_halves", [True, False])
    @pytest.mark.parametrize("factor", [1e-3, 1e4])
    def test_exposure_scales_the_result(self, with_halves: bool, factor: float) -> None:
        buffers, halves, _ = case(14, 16)
        before = nfor(buffers, halves=halves if with_halves else None, **SMALL)
        for part in (buffers, *halves):
            part["primal"].mul_(factor)
        buffers["primal.var"].mul_(factor**2)
        after = nfor(buffers, halves=halves if with_halves else None, **SMALL)
        torch.testing.assert_close(after / factor, before, rtol=1e-3, atol=1e-4)

    def test_unit_of_length_does_not_matter(self) -> None:
        buffers, halves, _ = case(14, 16)
        before = nfor(buffers, halves=halves, **SMALL)
        for part in (buffers, *halves):
            part["depth"].mul_(1000)
        buffers["depth.var"].mul_(1000**2)
        torch.testing.assert_close(
            nfor(buffers, halves=halves, **SMALL), before, rtol=1e-3, atol=1e-4
        )

    @pytest.mark.parametrize("flip", [0, 1])
    def test_mirrored_input_gives_mirrored_output(self, flip: int) -> None:
        buffers, halves, _ = case(15, 18)
        expected = nfor(buffers, halves=halves, **SMALL).flip(flip)
        parts = [FrameBuffers.from_tensor(p.data.flip(flip), p.layout) for p in (buffers, *halves)]
        found = nfor(parts[0], halves=(parts[1], parts[2]), **SMALL)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("size", [(1, 1), (1, 20), (20, 1), (2, 3), (5, 30)])
    @pytest.mark.parametrize("with_halves", [True, False])
    def test_any_size(self, size: tuple[int, int], with_halves: bool) -> None:
        buffers, halves, _ = case(*size)
        image = nfor(buffers, halves=halves if with_halves else None)
        assert image.shape == (*size, 3)
        assert image.dtype == torch.float32
        assert bool(torch.isfinite(image).all())

    def test_result_is_nonnegative_and_finite_with_fireflies(self) -> None:
        buffers, halves, clean = case(40, 44, fireflies=0.005)
        image = nfor(buffers, halves=halves)
        assert bool(torch.isfinite(image).all())
        assert float(image.min()) >= 0
        assert mse(buffers["primal"], clean["primal"]) > 4 * mse(image, clean["primal"])

    def test_extreme_values_give_no_nan(self) -> None:
        buffers, halves, _ = case(12, 12)
        for part, value in ((buffers, 1e18), (halves[0], 2e18)):
            part["primal"][5, 5] = value
        halves[1]["primal"][5, 5] = 0
        buffers["primal.var"][5, 5] = 1e36
        assert bool(torch.isfinite(nfor(buffers, halves=halves, **SMALL)).all())
        assert bool(torch.isfinite(nfor(buffers, **SMALL)).all())

    def test_black_image_stays_black(self) -> None:
        data = torch.zeros(6, 7, LAYOUT.count)
        assert not nfor(FrameBuffers.from_tensor(data, LAYOUT)).any()

    def test_input_is_left_alone(self) -> None:
        buffers, halves, _ = case(10, 12)
        before = [part.data.clone() for part in (buffers, *halves)]
        nfor(buffers, halves=halves, **SMALL)
        for part, data in zip((buffers, *halves), before, strict=True):
            assert torch.equal(part.data, data)

    def test_order_of_halves_does_not_matter(self) -> None:
        buffers, (a, b), _ = case(14, 16)
        one, other = nfor(buffers, halves=(a, b), **SMALL), nfor(buffers, halves=(b, a), **SMALL)
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)

    def test_weights_of_a_half_come_from_the_other(self) -> None:
        """Each half's filtered image is linear in that half's own colours."""
        buffers, halves, _ = case(12, 14)
        colour, features = inputs.read(buffers, halves)
        pair = colour.halves
        assert pair is not None
        smooth = [nfor_module._smooth_halves(feature) for feature in features]
        options = nfor_module._Options((0.7,), 1, 3)

        def filtered(a: torch.Tensor) -> Pair:
            halves = Pair(a, pair.b, 0.5)
            (result,) = nfor_module._filter_halves(colour, halves, smooth, options)
            return result

        other = torch.rand(pair.a.shape, generator=torch.Generator().manual_seed(0)) * 3
        blended = filtered(0.3 * pair.a + 0.7 * other)
        expected = 0.3 * filtered(pair.a).a + 0.7 * filtered(other).a
        torch.testing.assert_close(blended.a, expected, atol=1e-4, rtol=1e-4)
        # ... while the other half, whose weights do see the change, is not.
        bent = 0.3 * filtered(pair.a).b + 0.7 * filtered(other).b
        assert float((blended.b - bent).abs().max()) > 1e-2

    def test_is_not_worse_than_no_filter(self) -> None:
        """The unfiltered image competes: here no bandwidth on offer keeps what is to be seen."""
        clean = truth(24, 24)
        clean["primal"] = np.random.default_rng(0).uniform(0, 30, (24, 24, 3))
        (a, thin_a), (b, thin_b) = rendered(clean, 8, 1), rendered(clean, 8, 2)
        colour, features = inputs.read(merged(a, b), (thin_a, thin_b))
        smooth = [nfor_module._smooth_halves(feature) for feature in features]
        assert colour.halves is not None

        def error(image: torch.Tensor) -> float:
            return float(np.square(interleaved(image) - clean["primal"]).mean())

        arguments = (colour, colour.halves, smooth, nfor_module._Options((100.0,), 1, 4))
        (filtered,) = nfor_module._filter_halves(*arguments)
        chosen = nfor_module._first_pass(*arguments)
        assert error(filtered.mean()) > 100 * error(colour.value)
        assert error(chosen.mean()) < 1.5 * error(colour.value)

    def test_agrees_with_cpu(self, device: torch.device) -> None:
        buffers, (a, b), _ = case(20, 24)
        result = nfor(buffers.to(device), halves=(a.to(device), b.to(device)), **SMALL)
        assert result.device.type == device.type
        expected = nfor(buffers, halves=(a, b), **SMALL)
        torch.testing.assert_close(result.cpu(), expected, rtol=1e-3, atol=1e-3)


class TestInputs:
    @pytest.mark.parametrize("share", [0.5, 1 / 3, 0.9])
    def test_share_of_samples_is_found(self, share: float) -> None:
        clean = truth(12, 12)
        a, b = rendered(clean, 4, 1)[0], rendered(clean, 4, 2)[0]
        colour, _ = inputs.read(merged(a, b, share), (a, b))
        assert colour.halves is not None
        assert colour.halves.share == pytest.approx(share, abs=1e-5)
        torch.testing.assert_close(colour.halves.mean(), colour.value)

    def test_variance_of_pair_is_that_of_its_mean(self) -> None:
        rng = np.random.default_rng(0)
        share, deviation = 0.2, 0.3
        a, b = (
            torch.from_numpy(deviation / math.sqrt(part) * rng.standard_normal((3, 100, 100)))
            for part in (share, 1 - share)
        )
        pair = Pair(a, b, share)
        assert float(pair.variance().mean()) == pytest.approx(deviation**2, rel=0.03)
        assert float(pair.mean().var()) == pytest.approx(deviation**2, rel=0.03)

    def test_variance_of_stratified_samples_is_scaled_down(self) -> None:
        buffers, halves, _ = case(30, 30)
        honest = inputs.read(buffers, halves)[0].variance
        buffers["primal.var"].mul_(5)
        corrected = inputs.read(buffers, halves)[0].variance
        assert float(corrected.mean() / honest.mean()) == pytest.approx(1, abs=0.15)
        kept = inputs.read(buffers, None)[0].variance
        torch.testing.assert_close(kept, buffers["primal.var"][..., 0])

    def test_visibility_is_used_with_halves_only(self) -> None:
        buffers, halves, _ = case(8, 8)
        assert len(inputs.read(buffers, halves)[1]) == 4
        assert len(inputs.read(buffers, None)[1]) == 3
        assert len(inputs.read(buffers, (halves[0], without(halves[1], "visibility")))[1]) == 3

    def test_missing_variances_say_what_to_do(self) -> None:
        _, (half, _), _ = case(4, 4)
        with pytest.raises(LayoutError, match=r"primal\.var.*variances=True.*2 or more samples"):
            denoisers.denoise(half, "nfor")

    def test_refuses_halves_of_another_size(self) -> None:
        buffers, (a, b), _ = case(8, 8)
        with pytest.raises(LayoutError, match=r"half b is 8 x 7 on cpu; expected 8 x 8 on cpu"):
            nfor(buffers, halves=(a, b.crop(0, 0, 7, 8)))

    def test_refuses_halves_that_lack_buffers(self) -> None:
        buffers, (a, b), _ = case(8, 8)
        with pytest.raises(LayoutError, match=r"half a lacks the buffer\(s\) normal; there are: "):
            nfor(buffers, halves=(without(a, "normal"), b))

    def test_refuses_halves_of_another_render(self) -> None:
        buffers, (a, _), clean = case(8, 8)
        stranger = rendered(clean, 8, 7)[1]
        with pytest.raises(ConfigError, match="primal is not the mean of the two halves'"):
            nfor(buffers, halves=(a, stranger))

    def test_refuses_the_render_as_its_own_half(self) -> None:
        buffers, (a, _), _ = case(8, 8)
        with pytest.raises(ConfigError, match="primal is not the mean of the two halves'"):
            nfor(buffers, halves=(buffers, a))

    def test_refuses_nonfinite_halves(self) -> None:
        buffers, (a, b), _ = case(8, 8)
        b["albedo"][2, 3, 1] = math.nan
        with pytest.raises(NonFiniteError, match=r"albedo\.G: 1"):
            nfor(buffers, halves=(a, b))

    @pytest.mark.parametrize(
        "option",
        [
            {"bandwidths": ()},
            {"bandwidths": (0.5, 0.0)},
            {"bandwidths": (math.nan,)},
            {"patch_radius": -1},
            {"patch_radius": 31},
            {"window_radius": 0},
            {"window_radius": 31},
        ],
    )
    def test_refuses_bad_options(self, option: dict[str, Any]) -> None:
        (name,) = option
        with pytest.raises(ConfigError, match=f"{name} is .*; expected"):
            nfor(case(3, 3)[0], **option)
