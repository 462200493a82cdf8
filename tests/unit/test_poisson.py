"""Poisson reconstruction against independent solvers and the properties that it must have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import CORE, Layout
from mitsuba_gdpt.denoisers.classical import poisson
from mitsuba_gdpt.denoisers.solvers.screened_poisson import ConjugateGradients
from mitsuba_gdpt.errors import ConfigError

Array = NDArray[np.float64]
LAYOUT = Layout(CORE[:3])  # primal, dx, dy
SIZES = [(37, 53), (36, 52), (24, 31), (1, 41), (1, 40), (29, 1), (28, 1), (2, 2), (1, 1)]


def frame(primal: Any, dx: Any, dy: Any) -> FrameBuffers:
    data = np.concatenate([primal, dx, dy], axis=-1).astype(np.float32)
    return FrameBuffers.from_tensor(torch.from_numpy(data), LAYOUT)


def differences(image: Array) -> tuple[Array, Array]:
    dx, dy = np.zeros_like(image), np.zeros_like(image)
    dx[:, :-1] = image[:, 1:] - image[:, :-1]
    dy[:-1] = image[1:] - image[:-1]
    return dx, dy


def picture(height: int, width: int) -> Array:
    """A piecewise smooth, coloured image with values around 1."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    disc = ((x - 0.4) ** 2 + (y - 0.3) ** 2 < 0.04)[..., None] * np.array([1.0, 0.4, 0.1])
    return 0.5 + np.stack([x, y, 1 - x], -1) * 0.5 + disc


def noisy(height: int, width: int, fireflies: float = 0.0, seed: int = 1) -> FrameBuffers:
    """Primal with standard deviation 0.3, gradients with 0.05; some samples are 100 too high."""
    rng = np.random.default_rng(seed)
    image = picture(height, width)
    primal, dx, dy = image, *differences(image)
    result = []
    for buffer, sigma in ((primal, 0.3), (dx, 0.05), (dy, 0.05)):
        outlier = (rng.random((height, width, 1)) < fireflies) * 100.0
        result.append(buffer + sigma * rng.standard_normal(buffer.shape) + outlier)
    result[1][:, -1] = 0
    result[2][-1] = 0
    return frame(*result)


def system(buffers: FrameBuffers, alpha: float) -> tuple[Any, Array]:
    """The least-squares matrix and right-hand side, pixels in row-major order, (rows, 3)."""
    height, width = buffers.height, buffers.width

    def step(n: int) -> Any:
        return sp.diags_array([-np.ones(n), np.ones(n)], offsets=[0, 1], shape=(max(n - 1, 0), n))

    blocks = [alpha * sp.eye_array(height * width)]
    targets = [alpha * buffers.primal.reshape(-1, 3)]
    if width > 1:
        blocks.append(sp.kron(sp.eye_array(height), step(width)))
        targets.append(buffers.dx[:, :-1].reshape(-1, 3))
    if height > 1:
        blocks.append(sp.kron(step(height), sp.eye_array(width)))
        targets.append(buffers.dy[:-1].reshape(-1, 3))
    return sp.vstack(blocks).tocsr(), np.concatenate(targets).astype(np.float64)


def solve_weighted(matrix: Any, target: Array, weights: Array) -> Array:
    weighted = matrix.T @ sp.diags_array(weights)
    return splu((weighted @ matrix).tocsc()).solve(weighted @ target)


def irls(buffers: FrameBuffers, steps: int, first: float, decay: float, alpha: float = 0.2) -> Any:
    """L1 reconstruction in double precision with exactly solved systems."""
    matrix, target = system(buffers, alpha)
    weights = np.ones(len(target))
    for k in range(steps):
        image = solve_weighted(matrix, target, weights)
        residual = np.linalg.norm(target - matrix @ image, axis=1)
        weights = 1 / (residual + first * decay**k)
    return torch.from_numpy(image.reshape(buffers.data[..., :3].shape))


def original_l1d(buffers: FrameBuffers, alpha: float = 0.2) -> torch.Tensor:
    """The preset L1D as the authors run it: 20 systems, 50 plain CG steps each, from the primal."""
    matrix, target = system(buffers, alpha)
    image = buffers.primal.reshape(-1, 3).double().numpy()
    weights = np.ones((len(target), 1))
    for k in range(20):
        if k > 0:
            norm = np.linalg.norm(target - matrix @ image, axis=1, keepdims=True)
            weights = 1 / (norm + 0.05 * 0.5 ** (k - 1))
            weights /= weights.mean()
        residual = matrix.T @ (weights * (target - matrix @ image))
        direction, squared = residual.copy(), (residual**2).sum(0)
        for _ in range(50):
            product = matrix.T @ (weights * (matrix @ direction))
            length = squared / np.maximum((direction * product).sum(0), 1e-300)
            image = image + length * direction
            residual -= length * product
            previous, squared = squared, (residual**2).sum(0)
            direction = residual + squared / np.maximum(previous, 1e-300) * direction
    return torch.from_numpy(image.reshape(buffers.data[..., :3].shape))


class TestL2:
    @pytest.mark.parametrize("size", SIZES)
    def test_equals_sparse_solve(self, size: tuple[int, int]) -> None:
        buffers = noisy(*size)
        matrix, target = system(buffers, 0.2)
        expected = solve_weighted(matrix, target, np.ones(len(target))).reshape(*size, 3)
        np.testing.assert_allclose(poisson.poisson_l2(buffers), expected, atol=1e-4)

    @pytest.mark.parametrize("alpha", [1e-3, 0.05, 1.0, 30.0])
    def test_equals_sparse_solve_for_every_alpha(self, alpha: float) -> None:
        buffers = noisy(23, 41)
        matrix, target = system(buffers, alpha)
        expected = solve_weighted(matrix, target, np.ones(len(target))).reshape(23, 41, 3)
        np.testing.assert_allclose(poisson.poisson_l2(buffers, alpha=alpha), expected, atol=1e-4)

    def test_minimises_the_energy(self) -> None:
        buffers = noisy(13, 17)
        best = poisson.poisson_l2(buffers)
        lowest = poisson.energy(best, buffers, 0.2, 2)
        generator = torch.Generator().manual_seed(0)
        for _ in range(10):
            other = best + 0.01 * torch.randn(best.shape, generator=generator)
            assert poisson.energy(other, buffers, 0.2, 2) > lowest

    def test_is_linear(self) -> None:
        a, b = noisy(16, 19, seed=1), noisy(16, 19, seed=2)
        both = FrameBuffers(a.data - 3 * b.data, LAYOUT)
        expected = poisson.poisson_l2(a) - 3 * poisson.poisson_l2(b)
        torch.testing.assert_close(poisson.poisson_l2(both), expected, atol=1e-4, rtol=0)

    def test_keeps_the_mean(self) -> None:
        buffers = noisy(31, 20)
        mean = poisson.poisson_l2(buffers, alpha=1e-4).mean((0, 1))
        torch.testing.assert_close(mean, buffers.primal.mean((0, 1)), atol=1e-5, rtol=0)


class TestL1:
    @pytest.mark.parametrize("fireflies", [0.0, 0.01])
    def test_energy_is_not_above_the_original(self, fireflies: float) -> None:
        buffers = noisy(40, 60, fireflies)
        ours = poisson.energy(poisson.poisson_l1(buffers), buffers, 0.2, 1)
        original = poisson.energy(original_l1d(buffers), buffers, 0.2, 1)
        assert ours <= original * (1 + 1e-4)

    @pytest.mark.parametrize(
        ("preset", "tolerance"), [("L1D", 0.01), ("L1Q", 0.002), ("L1L", 0.05)]
    )
    def test_energy_is_close_to_the_minimum(self, preset: str, tolerance: float) -> None:
        buffers = noisy(24, 31, 0.01)
        minimum = poisson.energy(irls(buffers, 120, 1.0, 0.85), buffers, 0.2, 1)
        image = poisson.poisson_l1(buffers, preset=preset)
        energy = poisson.energy(image, buffers, 0.2, 1)
        assert minimum * (1 - 1e-4) <= energy <= minimum * (1 + tolerance)

    @pytest.mark.parametrize("size", SIZES)
    def test_equals_exact_irls(self, size: tuple[int, int]) -> None:
        """With the systems solved to the end, the iterates are those of a direct solver."""
        buffers = noisy(*size, 0.01)
        image = poisson.poisson_l1(buffers, irls_iterations=5, cg_iterations=500, cg_tolerance=0)
        np.testing.assert_allclose(image, irls(buffers, 5, 0.05, 0.5), atol=2e-3)

    def test_one_iteration_is_l2(self) -> None:
        buffers = noisy(12, 15)
        image = poisson.poisson_l1(buffers, irls_iterations=1)
        assert torch.equal(image, poisson.poisson_l2(buffers))

    def test_survives_outliers(self) -> None:
        buffers = noisy(48, 48, 0.005)
        clean = torch.from_numpy(picture(48, 48)).float()
        l1 = (poisson.poisson_l1(buffers) - clean).abs().mean()
        l2 = (poisson.poisson_l2(buffers) - clean).abs().mean()
        primal = (buffers.primal - clean).abs().mean()
        assert l1 < 0.1 * l2
        assert l1 < 0.25 * primal

    def test_many_iterations_stay_finite(self) -> None:
        image = poisson.poisson_l1(noisy(8, 9), irls_iterations=300, cg_iterations=3)
        assert torch.isfinite(image).all()

    def test_channels_share_weights(self) -> None:
        """RGB residuals are measured by one norm: rotating the colour space changes nothing."""
        buffers = noisy(20, 22, 0.01)
        rotation = torch.linalg.qr(torch.tensor([[1.0, 2, 3], [4, 5, 7], [2, 0, 1]]))[0]
        rotated = FrameBuffers(
            torch.cat([buffers[name] @ rotation for name in buffers.names], -1), LAYOUT
        )
        options = {"irls_iterations": 6, "cg_iterations": 300, "cg_tolerance": 0.0}
        expected = poisson.poisson_l1(buffers, **options) @ rotation
        actual = poisson.poisson_l1(rotated, **options)
        torch.testing.assert_close(actual, expected, atol=5e-3, rtol=0)


@pytest.mark.parametrize("method", [poisson.poisson_l1, poisson.poisson_l2])
class TestBoth:
    @pytest.mark.parametrize("size", SIZES)
    def test_reproduces_consistent_input(self, method: Any, size: tuple[int, int]) -> None:
        image = picture(*size)
        result = method(frame(image, *differences(image)))
        assert result.shape == (*size, 3)
        assert result.dtype == torch.float32
        assert result.is_contiguous()
        np.testing.assert_allclose(result, image, atol=1e-5)

    def test_gradients_matter(self, method: Any) -> None:
        """A constant primal with true gradients gives the image, up to a constant and alpha."""
        image = picture(30, 40)
        flat = np.broadcast_to(image.mean((0, 1)), image.shape)
        result = method(frame(flat, *differences(image)), alpha=1e-3)
        np.testing.assert_allclose(result, image, atol=0.02)

    def test_ignores_what_lies_beyond_the_border(self, method: Any) -> None:
        buffers = noisy(11, 14)
        spoiled = FrameBuffers(buffers.data.clone(), LAYOUT)
        spoiled.dx[:, -1] = 1e3
        spoiled.dy[-1] = -1e3
        torch.testing.assert_close(method(spoiled), method(buffers), atol=1e-6, rtol=0)

    def test_mirrored_input_gives_mirrored_image(self, method: Any) -> None:
        buffers = noisy(18, 21, 0.01)
        dx, dy = torch.zeros_like(buffers.dx), torch.zeros_like(buffers.dy)
        dx[:, :-1] = -buffers.dx[:, :-1].flip(1)
        dy[:] = buffers.dy.flip(1)
        mirrored = frame(buffers.primal.flip(1), dx, dy)
        torch.testing.assert_close(method(mirrored).flip(1), method(buffers), atol=2e-3, rtol=0)

    def test_transposed_input_gives_transposed_image(self, method: Any) -> None:
        buffers = noisy(18, 21, 0.01)
        swapped = [buffers[name].transpose(0, 1) for name in ("primal", "dy", "dx")]
        result = method(frame(*swapped)).transpose(0, 1)
        torch.testing.assert_close(result, method(buffers), atol=2e-3, rtol=0)

    def test_leaves_its_input_alone(self, method: Any) -> None:
        buffers = noisy(5, 6)
        before = buffers.data.clone()
        method(buffers)
        assert torch.equal(buffers.data, before)

    def test_black_stays_black(self, method: Any) -> None:
        result = method(FrameBuffers(torch.zeros(7, 5, LAYOUT.count), LAYOUT))
        assert torch.equal(result, torch.zeros(7, 5, 3))

    @pytest.mark.parametrize("scale", [1e-4, 1e6])
    def test_extreme_exposure(self, method: Any, scale: float) -> None:
        image = picture(20, 16) * scale
        result = method(frame(image, *differences(image)))
        np.testing.assert_allclose(result, image, rtol=1e-4)

    @pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
    def test_refuses_bad_alpha(self, method: Any, alpha: float) -> None:
        with pytest.raises(ConfigError, match=r"alpha is .*expected a number > 0"):
            method(noisy(3, 3), alpha=alpha)


def test_refuses_unknown_preset() -> None:
    with pytest.raises(ConfigError, match="unknown preset 'L3'; expected one of L"):
        poisson.poisson_l1(noisy(3, 3), preset="L3")


@pytest.mark.parametrize(
    "option",
    [
        {"irls_iterations": 0},
        {"cg_iterations": 0},
        {"cg_tolerance": 1.0},
        {"cg_tolerance": -0.1},
        {"regularisation": 0.0},
        {"regularisation_decay": 1.5},
        {"regularisation_decay": 0.0},
    ],
)
def test_refuses_bad_options(option: dict[str, Any]) -> None:
    (name,) = option
    with pytest.raises(ConfigError, match=f"{name} is .*expected"):
        poisson.poisson_l1(noisy(3, 3), **option)


def test_channels_are_solved_as_if_alone() -> None:
    """One needs more steps than the others; a GPU takes all at once, a CPU one after the other."""
    generator = torch.Generator().manual_seed(0)
    right = torch.randn(3, 20, 30, generator=generator)
    right[1] = torch.linspace(-1, 1, 30)  # smooth: many steps
    right[2] = 0
    couplings = torch.full((20, 29), 0.249), torch.full((19, 30), 0.249)
    together = ConjugateGradients(right)(right.clone(), *couplings, 200, 0.1)
    solve = ConjugateGradients(right[:1])
    alone = [solve(channel[None].clone(), *couplings, 200, 0.1)[0].clone() for channel in right]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [poisson.poisson_l1, poisson.poisson_l2])
def test_agrees_with_cpu(method: Any, device: torch.device) -> None:
    buffers = noisy(37, 53, 0.01)
    result = method(buffers.to(device))
    assert result.device.type == device.type
    torch.testing.assert_close(result.cpu(), method(buffers), atol=5e-3, rtol=0)
