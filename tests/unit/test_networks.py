"""Architectures: sizes, memory modes, weight normalisation, predicted kernels."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mitsuba_gdpt.denoisers.learned.networks import (
    DenseUNet,
    DenseUNetConfig,
    KernelNetwork,
    KernelNetworkConfig,
    apply_kernels,
    fold_weight_norm,
    resampling,
)
from mitsuba_gdpt.denoisers.learned.networks.dense_unet import (
    DenseList,
    Resample,
    multiplications_per_pixel,
)
from mitsuba_gdpt.denoisers.learned.networks.layers import Convolution, Down, Pointwise, Up
from mitsuba_gdpt.denoisers.solvers.screened_poisson import fuse
from mitsuba_gdpt.errors import ConfigError

SMALL = DenseUNetConfig(
    inputs=5, growth=(4, 6, 8), units=(2, 1, 1), down=(6, 7), up=(5, 6), outputs=2
)


def count(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def randomise(network: torch.nn.Module) -> torch.nn.Module:
    """Give scales and biases values that a mistake would show."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in network.named_parameters():
        if name.endswith(("scale", "bias")):
            parameter.data.uniform_(0.5, 1.5, generator=generator)
    return network


@pytest.mark.parametrize(("inputs", "parameters"), [(16, 4_358_534), (10, 4_350_836)])
def test_size_is_that_of_the_paper(inputs: int, parameters: int) -> None:
    config = DenseUNetConfig(inputs=inputs)
    assert count(DenseUNet(config)) == parameters
    assert config.widths == (400 + inputs, 800, 640, 480)
    assert multiplications_per_pixel(config) == pytest.approx(0.83e6, rel=0.01)


def test_what_follows_the_features_so_far_is_no_number_out_of_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Products of torch 2.13 on processors with AMX read it, times 0."""

    def unwritten(like: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
        return like.new_full(size, math.nan)

    monkeypatch.setattr(torch.Tensor, "new_empty", unwritten)
    with torch.no_grad():
        features = DenseList(torch.ones(1, 2, 3, 33), 64).features
    assert features.stride() == (6 * 64, 3 * 64, 64, 1)
    everything = torch.as_strided(features, (6 * 64,), (1,))
    assert everything.isfinite().all()
    assert everything.sum() == 6 * 33


@pytest.mark.parametrize("changes", [
    {}, {"patch": 2}, {"pool": "average", "unpool": "bilinear"},
    {"pool": "max", "unpool": "nearest"}, {"pool": "lanczos", "unpool": "lanczos"},
    {"head_activation": False},
])  # fmt: skip
def test_shapes_gradients_and_memory_modes(changes: dict[str, object]) -> None:
    config = DenseUNetConfig(**{**SMALL.__dict__, **changes})  # type: ignore[arg-type]
    network = randomise(DenseUNet(config))
    x = torch.rand(2, 16, 24, config.inputs)
    y = network(x)
    assert y.shape == (2, 16, 24, 2)
    y.square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in network.parameters())
    with torch.no_grad():
        torch.testing.assert_close(network(x), y.detach())  # one buffer instead of concatenation
        fold_weight_norm(network)
        torch.testing.assert_close(network(x), y.detach())
    assert list(network.state_dict()) == list(DenseUNet(config).state_dict())


def test_zero_head_returns_zeros_but_learns() -> None:
    network = DenseUNet(DenseUNetConfig(**{**SMALL.__dict__, "zero_head": True}))
    y = network(torch.rand(1, 8, 8, 5))
    assert not y.any()
    (y - 1).square().sum().backward()
    assert network.head.scale.grad is not None
    assert network.head.scale.grad.any()


def test_radius_is_not_too_small() -> None:
    """No input beyond the radius has an influence, and some within half of it does."""
    for changes in (
        {},
        {"patch": 2},
        {"pool": "average", "unpool": "bilinear"},
        {"pool": "lanczos", "unpool": "lanczos"},
    ):
        config = DenseUNetConfig(**{**SMALL.__dict__, **changes})  # type: ignore[arg-type]
        network = randomise(DenseUNet(config)).double()
        x = torch.rand(1, 8, 128, 5, dtype=torch.double, requires_grad=True)
        for column in (64, 67):
            (gradient,) = torch.autograd.grad(network(x)[0, :, column].sum(), x)
            reached = (gradient != 0).any(-1).any(1)[0].nonzero().flatten()
            farthest = int((reached - column).abs().max())
            assert config.radius / 2 < farthest <= config.radius


def test_misfit_is_an_error() -> None:
    with pytest.raises(ConfigError, match="multiples of 4"):
        DenseUNet(SMALL)(torch.zeros(1, 6, 8, 5))
    with pytest.raises(ConfigError, match="expected L, L, L-1, L-1"):
        DenseUNetConfig(growth=(1, 2))
    with pytest.raises(ConfigError, match="pool is 'x'"):
        DenseUNetConfig(pool="x")


class TestResampling:
    """Against matrices along one axis, written out by the formulas of the original."""

    SIZE = 6

    def matrix(self, kind: str) -> np.ndarray:
        """What a kind does to six pixels; NumPy reflects about the last pixel as TensorFlow."""
        padded = np.pad(np.eye(self.SIZE), ((3, 3), (0, 0)), "reflect")
        if kind == "lanczos down":
            t = np.arange(-3, 5)
            taps = np.sinc((t - 0.5) / 2) * np.sinc((t - 0.5) / 4)
            return np.stack([taps / taps.sum() @ padded[i : i + 8] for i in (0, 2, 4)])
        rows = []
        for pixel in range(2 * self.SIZE):
            place = (pixel + 0.5) / 2 - 0.5  # of its centre, between the pixels of the input
            before = math.floor(place)
            if kind == "bilinear":
                taps = np.array([1 - (place - before), place - before])
                first = before
            else:
                t = np.arange(-1, 3) - (place - before)
                taps = np.sinc(t) * np.sinc(t / 2)
                first = before - 1
            rows.append(taps / taps.sum() @ padded[3 + first : 3 + first + len(taps)])
        return np.stack(rows)

    @pytest.mark.parametrize("kind", ["lanczos down", "lanczos up", "bilinear"])
    def test_along_both_axes(self, kind: str) -> None:
        x = torch.rand(2, 6, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.double)
        function = {
            "lanczos down": resampling.lanczos_down,
            "lanczos up": resampling.lanczos_up,
            "bilinear": resampling.bilinear,
        }[kind]
        matrix = self.matrix(kind)
        expected = np.einsum("yh,xw,nhwc->nyxc", matrix, matrix, x.numpy())
        np.testing.assert_allclose(function(x), expected, atol=1e-12)

    def test_images_of_any_size(self) -> None:
        """Where there are fewer pixels than taps, too."""
        for size in (1, 2, 3):
            grey = torch.full((1, size, size, 1), 0.5)
            torch.testing.assert_close(
                resampling.lanczos_up(grey), torch.full((1, 2 * size, 2 * size, 1), 0.5)
            )
        grey = torch.full((1, 2, 2, 1), 0.5)
        torch.testing.assert_close(resampling.lanczos_down(grey), grey[:, :1, :1])

    def test_slope_after_the_pointwise_convolution_is_that_of_the_original(self) -> None:
        for kind, slope in (("conv", 0.01), ("average", 0.2), ("lanczos", 0.2)):
            layer = Resample(3, 3, kind, 0.01, up=False)
            with torch.no_grad():
                layer.layer.weight.zero_()
                layer.layer.bias.fill_(-1.0)
            torch.testing.assert_close(
                layer(torch.zeros(1, 8, 8, 3)), torch.full((1, 4, 4, 3), -slope)
            )


class TestLayers:
    """Against torch's convolutions with explicitly normalised filters."""

    @staticmethod
    def effective(layer: torch.nn.Module) -> torch.Tensor:
        weight, scale = layer.weight.detach(), layer.scale.detach()
        norms = torch.stack([torch.sqrt(1e-8 + w.square().sum()) for w in weight])
        return weight * (scale * math.sqrt(2) / norms)[:, None, None, None]

    @pytest.mark.parametrize(
        ("make", "options"),
        [
            (lambda: Pointwise(3, 5), {}),
            (lambda: Convolution(3, 5, 3), {"padding": 1}),
            (lambda: Down(3, 5), {"stride": 2}),
        ],
    )
    def test_convolutions(
        self, make: Callable[[], torch.nn.Module], options: dict[str, int]
    ) -> None:
        layer = randomise(make())
        x = torch.rand(2, 6, 8, 3)
        expected = torch.nn.functional.conv2d(
            x.permute(0, 3, 1, 2), self.effective(layer), layer.bias, **options
        )
        torch.testing.assert_close(layer(x), expected.permute(0, 2, 3, 1))

    def test_transposed_convolution(self) -> None:
        layer = randomise(Up(3, 5))
        x = torch.rand(2, 3, 4, 3)
        expected = torch.nn.functional.conv_transpose2d(
            x.permute(0, 3, 1, 2), self.effective(layer).transpose(0, 1), layer.bias, stride=2
        )
        torch.testing.assert_close(layer(x), expected.permute(0, 2, 3, 1))


class TestKernels:
    def test_application_against_loops(self) -> None:
        generator = np.random.default_rng(0)
        image = generator.random((1, 4, 5, 2)).astype(np.float32)
        logits = generator.normal(size=(1, 4, 5, 9)).astype(np.float32)
        expected = np.zeros_like(image)
        for y in range(4):
            for x in range(5):
                weights = np.exp(logits[0, y, x])
                weights /= weights.sum()
                for i in range(3):
                    for j in range(3):
                        row, column = np.clip(y + i - 1, 0, 3), np.clip(x + j - 1, 0, 4)
                        expected[0, y, x] += weights[3 * i + j] * image[0, row, column]
        result = apply_kernels(torch.from_numpy(image), torch.from_numpy(logits))
        np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5)

    def test_large_logits_stay_finite(self) -> None:
        logits = torch.zeros(1, 3, 3, 9)
        logits[..., 4] = 1e4
        image = torch.rand(1, 3, 3, 3)
        torch.testing.assert_close(apply_kernels(image, logits), image)

    def test_even_kernel_is_an_error(self) -> None:
        with pytest.raises(ConfigError, match="odd square"):
            apply_kernels(torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 4))

    def test_network_of_the_paper(self) -> None:
        config = KernelNetworkConfig(inputs=34)
        weights = 34 * 100 * 25 + 7 * 100 * 100 * 25 + 100 * 441 * 25
        assert count(KernelNetwork(config)) == weights + 8 * 100 + 441
        assert config.radius == 9 * 2 + 10


class TestFusion:
    """The screened Poisson solve with weights per pixel."""

    HEIGHT, WIDTH = 4, 5

    def problem(self) -> list[torch.Tensor]:
        """Base, dx, dy, both weights and the brightness, float64."""
        generator = torch.Generator().manual_seed(3)
        shape = (2, self.HEIGHT, self.WIDTH)
        images = [torch.randn(*shape, 3, generator=generator).double() for _ in range(3)]
        weights = [torch.rand(*shape, 1, generator=generator).double() * 3 for _ in range(2)]
        brightness = torch.rand(*shape, 1, generator=generator).double() + 0.2
        return [*images, *weights, brightness]

    def test_is_the_minimum_of_the_energy(self) -> None:
        base, dx, dy, weight_x, weight_y, brightness = self.problem()
        n = self.HEIGHT * self.WIDTH
        image = torch.eye(n, dtype=torch.float64).view(n, self.HEIGHT, self.WIDTH)
        rows_x = image.diff(dim=2).flatten(1).T  # a row of the matrix per difference
        rows_y = image.diff(dim=1).flatten(1).T
        fused = fuse(base, dx, dy, weight_x, weight_y, brightness)
        for k, b in enumerate(brightness):
            weight = (weight_x[k, :, :-1] / (b[:, 1:] * b[:, :-1])).sqrt().flatten()[:, None]
            scaled_x = weight * rows_x, weight * dx[k, :, :-1].reshape(-1, 3)
            weight = (weight_y[k, :-1] / (b[1:] * b[:-1])).sqrt().flatten()[:, None]
            scaled_y = weight * rows_y, weight * dy[k, :-1].reshape(-1, 3)
            relative = torch.diag(1 / b.flatten()), base[k].reshape(n, 3) / b.reshape(n, 1)
            matrix, right = (torch.cat(x) for x in zip(relative, scaled_x, scaled_y, strict=True))
            expected = torch.linalg.lstsq(matrix, right).solution
            torch.testing.assert_close(fused[k].reshape(n, 3), expected, rtol=1e-5, atol=1e-5)

    def test_derivatives(self) -> None:
        *inputs, brightness = self.problem()
        inputs = [x.requires_grad_() for x in inputs]
        assert torch.autograd.gradcheck(lambda *x: fuse(*x, brightness), inputs, atol=1e-5)

    def test_steps_suffice_for_the_largest_weights(self) -> None:
        generator = torch.Generator().manual_seed(0)
        base, dx, dy = (torch.randn(1, 64, 64, 3, generator=generator) for _ in range(3))
        weight = torch.full((1, 64, 64, 1), 20.0)
        problem = (base, dx, dy, weight, weight, torch.ones_like(weight))
        fused, exact = fuse(*problem), fuse(*problem, iterations=500)
        assert not torch.equal(fused, exact)
        assert (fused - exact).norm() < 0.03 * (exact - base).norm()

    def test_a_lamp_does_not_shine_into_the_wall(self) -> None:
        """An error of 1 % in a bright pixel is repaired there, not spread to dark ones."""
        truth = torch.full((1, 8, 8, 3), 0.1)
        truth[:, :, 4:] = 1000.0
        base = truth.clone()
        base[:, :, 4:] *= 1.01
        dx = torch.zeros_like(truth)
        dx[:, :, :-1] = truth.diff(dim=2)
        weight, dy = torch.ones(1, 8, 8, 1), torch.zeros_like(truth)
        fused = fuse(base, dx, dy, weight, weight, truth[..., :1])
        assert ((fused - truth) / truth)[:, :, :4].abs().max() < 0.01
        assert (fused - truth)[:, :, 4].abs().max() < (base - truth)[:, :, 4].abs().max()

    def test_without_weights_nothing_changes(self) -> None:
        base, dx, dy, weight_x, weight_y, brightness = self.problem()
        assert torch.equal(fuse(base, dx, dy, 0 * weight_x, 0 * weight_y, brightness), base)

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (6, 1)])
    def test_any_size(self, height: int, width: int) -> None:
        base, ones = torch.rand(1, height, width, 3), torch.ones(1, height, width, 1)
        flat = fuse(base, 0 * base, 0 * base, ones, ones, ones)
        torch.testing.assert_close(flat.mean((1, 2)), base.mean((1, 2)))
        assert flat.std() <= base.std() or base.numel() == 3
