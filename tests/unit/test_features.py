"""Input of networks: transfer functions, demodulation, exposure, padding, tiles."""

from __future__ import annotations

import pytest
import torch

from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.denoisers.images import (
    difference,
    exposure_scale,
    planar,
    window_mean,
    without_spikes,
)
from mitsuba_gdpt.denoisers.learned import tiling
from mitsuba_gdpt.denoisers.learned.features import (
    Feature,
    InputConfig,
    Padding,
    Prepared,
    preprocess,
)
from mitsuba_gdpt.denoisers.learned.methods import PRESETS
from mitsuba_gdpt.denoisers.learned.networks import DenseUNet, DenseUNetConfig
from mitsuba_gdpt.errors import ConfigError, LayoutError

LAYOUT = Layout.make(variances=True)
SIZES = [(1, 1), (1, 5), (2, 3), (7, 9), (16, 24), (33, 40)]


def differences(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Forward differences of (N, H, W, c); 0 in the last column and row."""
    dx, dy = torch.zeros_like(image), torch.zeros_like(image)
    dx[:, :, :-1] = image[:, :, 1:] - image[:, :, :-1]
    dy[:, :-1] = image[:, 1:] - image[:, :-1]
    return dx, dy


def buffers(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Random buffers whose gradients are exactly those of their primal."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.rand(2, height, width, LAYOUT.count, generator=generator)
    slices = LAYOUT.slices
    data[..., slices["normal"]] = 2 * data[..., slices["normal"]] - 1
    data[..., slices["primal"]] *= 5
    data[..., slices["dx"]], data[..., slices["dy"]] = differences(data[..., slices["primal"]])
    return data


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("shift", [(0, 0), (-7, 3)])
class TestPadding:
    def pad(self, x: torch.Tensor, source: str, shift: tuple[int, int]) -> torch.Tensor:
        return Padding.around(x.shape[1], x.shape[2], 8, shift).apply(x, source)

    def test_gradients_stay_differences(
        self, height: int, width: int, shift: tuple[int, int]
    ) -> None:
        data = buffers(height, width)
        primal = self.pad(data[..., LAYOUT.slices["primal"]], "primal", shift)
        assert primal.shape[1] % 8 == primal.shape[2] % 8 == 0
        for name, expected in zip(("dx", "dy"), differences(primal), strict=True):
            padded = self.pad(data[..., LAYOUT.slices[name]], name, shift)
            torch.testing.assert_close(padded, expected, rtol=0, atol=0)

    def test_frame_is_where_remove_looks(
        self, height: int, width: int, shift: tuple[int, int]
    ) -> None:
        data = buffers(height, width)
        padding = Padding.around(height, width, 8, shift)
        for buffer in LAYOUT.buffers:
            values = data[..., LAYOUT.slices[buffer.name]].clone()
            if buffer.name in ("dx", "dx.var"):  # by convention
                values[:, :, -1] = 0
            if buffer.name in ("dy", "dy.var"):
                values[:, -1] = 0
            padded = padding.remove(padding.apply(values, buffer.name))
            along_x, along_y = buffer.name.startswith("dx"), buffer.name.startswith("dy")
            rows, columns = height - along_y, width - along_x  # beyond it the reflection begins
            torch.testing.assert_close(
                padded[:, :rows, :columns], values[:, :rows, :columns], rtol=0, atol=1e-6
            )

    def test_depth_goes_on_straight(self, height: int, width: int, shift: tuple[int, int]) -> None:
        rows, columns = torch.arange(height) * 2.0, torch.arange(width) * 3.0
        plane = (rows[:, None] + columns).expand(1, -1, -1)[..., None]
        padding = Padding.around(height, width, 8, shift)
        padded = padding.apply(plane, "depth")
        slope_y = 2.0 if height > 1 else 0.0
        slope_x = 3.0 if width > 1 else 0.0
        y = torch.arange(padded.shape[1]) - padding.top
        x = torch.arange(padded.shape[2]) - padding.left
        expected = y[:, None] * slope_y + x * slope_x
        torch.testing.assert_close(padded[0, ..., 0], expected, rtol=0, atol=1e-4)


def test_reflection_does_not_repeat_the_edge() -> None:
    row = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 4, 1)
    padded = Padding(3, 0, 3, 0).apply(row, "albedo").flatten().tolist()
    assert padded == [4, 3, 2, 1, 2, 3, 4, 3, 2, 1]
    variance = torch.tensor([1.0, 2.0, 3.0, 0.0]).view(1, 1, 4, 1)  # of the three differences
    padded = Padding(2, 0, 2, 0).apply(variance, "dx.var").flatten().tolist()
    assert padded == [2, 1, 1, 2, 3, 3, 2, 0]


def test_large_shift_is_an_error() -> None:
    with pytest.raises(ConfigError, match="less than 8"):
        Padding.around(8, 8, 8, (8, 0))


class TestPreprocess:
    def run(self, config: InputConfig, data: torch.Tensor, **options: object) -> torch.Tensor:
        prepared = preprocess(data, LAYOUT, config, alignment=8, **options)  # type: ignore[arg-type]
        return prepared.padding.remove(prepared.input)

    def test_features_of_the_paper(self) -> None:
        data = buffers(9, 12)
        inputs = self.run(PRESETS["ngpt"].config.inputs, data)
        s = LAYOUT.slices
        dx, dy = data[..., s["dx"]], data[..., s["dy"]]
        depth = data[..., s["depth"]]
        largest = depth.flatten(1).max(1).values.view(2, 1, 1, 1)
        expected = [
            torch.log(1 + data[..., s["primal"]]), dx.sign() * torch.log(1 + dx.abs()),
            dy.sign() * torch.log(1 + dy.abs()), data[..., s["albedo"]], data[..., s["normal"]],
            depth / (1e-10 + largest),
        ]  # fmt: skip
        inner = (slice(None), slice(0, -1), slice(0, -1))
        torch.testing.assert_close(inputs[inner], torch.cat(expected, -1)[inner])
        assert inputs.shape[-1] == 16
        assert PRESETS["ngpt-nograd"].config.inputs.channels == 10

    def test_demodulated_gradients_are_differences(self) -> None:
        data = buffers(9, 12)
        features = tuple(Feature(name) for name in ("primal", "dx", "dy"))
        inputs = self.run(InputConfig(features, demodulate=True, exposure=True), data)
        expected = differences(inputs[..., :3])
        inner = (slice(None), slice(0, -1), slice(0, -1))
        for channel, exact in zip((3, 6), expected, strict=True):
            values = inputs[..., channel : channel + 3]
            torch.testing.assert_close(values[inner], exact[inner], rtol=1e-3, atol=1e-4)

    def test_brightness_does_not_matter_with_exposure(self) -> None:
        data = buffers(32, 48)
        names = ("primal", "dx", "dy", "primal.var")
        config = InputConfig(tuple(Feature(name, "none") for name in names), exposure=True)
        brighter = data.clone()
        for name, factor in (("primal", 7.0), ("dx", 7.0), ("dy", 7.0), ("primal.var", 49.0)):
            brighter[..., LAYOUT.slices[name]] *= factor
        torch.testing.assert_close(self.run(config, data), self.run(config, brighter))

    def test_restore_undoes_normalise(self) -> None:
        data, image = buffers(9, 12), torch.rand(2, 9, 12, 3)
        config = InputConfig((Feature("primal", "log1p"),), demodulate=True, exposure=True)
        prepared = preprocess(data, LAYOUT, config, alignment=8)
        torch.testing.assert_close(prepared.restore(prepared.normalise(image)), image)

    def test_black_frame_is_left_alone(self) -> None:
        assert exposure_scale(torch.zeros(1, 20, 20, 3)).item() == 1

    def test_exposure_ignores_black_blocks(self) -> None:
        image = torch.zeros(1, 32, 32, 3)
        image[:, :16] = 0.5
        assert exposure_scale(image).item() == pytest.approx(0.36)

    def test_missing_buffer_and_guide_are_errors(self) -> None:
        config = InputConfig((Feature("diffuse", "log1p"),))
        with pytest.raises(LayoutError, match=r"needs the buffer\(s\) diffuse"):
            self.run(config, buffers(4, 4))
        with pytest.raises(LayoutError, match="poisson-l1"):
            self.run(InputConfig((Feature("guide:poisson-l1", "log1p"),)), buffers(4, 4))
        with pytest.raises(LayoutError, match="unknown buffer"):
            Feature("nonsense")
        with pytest.raises(ConfigError, match="unknown transfer"):
            Feature("primal", "sqrt")


@pytest.mark.parametrize("patch", [1, 2])
def test_tiles_give_the_same_image(patch: int) -> None:
    config = DenseUNetConfig(
        inputs=4, growth=(4, 4, 4), units=(1, 1, 1), down=(4, 4), up=(4, 4), patch=patch
    )
    torch.manual_seed(0)
    network = DenseUNet(config)
    reach = tiling.overlap(config.alignment, config.radius)
    x = torch.rand(1, 4 * reach + 24, 3 * reach + 16, 4)
    with torch.no_grad():
        whole = network(x)
        arguments = {"alignment": config.alignment, "radius": config.radius}
        tiled = tiling.run_tiled(network, x, side=2 * reach + 16, **arguments)
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-4)
        # The overlap is needed: with a smaller one the seams show.
        seams = tiling.run_tiled(network, x, side=24, alignment=config.alignment, radius=1)
        assert (seams - whole).abs().max() > 1e-3


@pytest.mark.parametrize("in_planes", [False, True])
def test_tiles_of_several_inputs_keep_their_channels_where_they_lie(in_planes: bool) -> None:
    x = [torch.rand(1, 37, 21, 3), torch.rand(1, 37, 21, 1)]
    x = [planar(part) for part in x] if in_planes else x

    def add(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        assert a.is_contiguous() != in_planes
        return a + b

    result = tiling.run_tiled(add, *x, side=12, alignment=2, radius=2)
    assert torch.equal(result, x[0] + x[1])
    assert result.stride() == (planar(result) if in_planes else result.contiguous()).stride()


def test_tile_size_follows_the_budget() -> None:
    assert tiling.tile_size(100, 8, 20, 100 * 512 * 512) == 512
    with pytest.raises(ConfigError, match="too small"):
        tiling.tile_size(100, 8, 20, 100 * 48 * 48)


@pytest.mark.parametrize("demodulate", [False, True])
def test_residual_is_what_the_guide_has_wrong(demodulate: bool) -> None:
    """It vanishes for a perfect guide, and shows an error of the guide with its sign."""
    data = buffers(9, 12)
    features = (Feature("residual:dx"), Feature("residual:dy"), Feature("guide:none"))
    config = InputConfig(features, demodulate=demodulate, exposure=True)
    assert config.needs == (
        ("dx", "dy", "albedo", "primal") if demodulate else ("dx", "dy", "primal")
    )
    primal = data[..., LAYOUT.slices["primal"]]

    def residuals(guide: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, Prepared]:
        prepared = preprocess(data, LAYOUT, config, alignment=4, guides=guide[:, None])
        inner = prepared.padding.remove(prepared.input)
        return inner[..., :3], inner[..., 3:6], prepared

    dx, dy, _ = residuals(primal)
    assert max(dx.abs().max(), dy.abs().max()) < 1e-4
    guide = primal.clone()
    guide[:, 4, 5] += 0.5
    dx, dy, prepared = residuals(guide)
    factor = prepared.normalise(torch.ones_like(primal))
    for dim, residual in ((2, dx), (1, dy)):
        n = primal.shape[dim] - 1
        mean = (factor.narrow(dim, 0, n) + factor.narrow(dim, 1, n)) / 2
        expected = (primal - guide).diff(dim=dim) * mean
        torch.testing.assert_close(residual.narrow(dim, 0, n), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("source", ["residual:albedo", "residual:guide:none"])
def test_only_gradients_have_residuals(source: str) -> None:
    with pytest.raises((ConfigError, LayoutError)):
        Feature(source)


def test_least_albedo() -> None:
    data = torch.zeros(1, 1, 3, LAYOUT.count)
    slices = LAYOUT.slices
    data[..., slices["primal"]] = 2.0
    data[0, 0, :, slices["albedo"]] = torch.tensor([0.0, 0.05, 0.5])[:, None]
    config = InputConfig((Feature("primal"),), demodulate=True, least_albedo=0.1)
    prepared = preprocess(data, LAYOUT, config, alignment=1, margin=0)
    factors = torch.tensor([1.0, 0.11, 0.51])
    torch.testing.assert_close(prepared.input[0, 0, :, 0], 2 / factors)
    torch.testing.assert_close(
        prepared.restore(prepared.input), data[..., slices["primal"]], rtol=1e-6, atol=0
    )


class TestSpikes:
    def test_single_pixels_are_limited_and_pairs_stay(self) -> None:
        primal = torch.ones(1, 6, 8, 3)
        primal[0, 2, 2] = torch.tensor([30.0, 60.0, 90.0])
        primal[0, 4, 5] = primal[0, 4, 6] = 50.0
        dx, dy = differences(primal)
        limited = without_spikes({"primal": primal, "dx": dx, "dy": dy})
        expected = primal.clone()
        expected[0, 2, 2] = torch.tensor([0.5, 1.0, 1.5])  # of the colour that it had
        torch.testing.assert_close(limited["primal"], expected)
        pair = (slice(None), slice(3, 6), slice(4, 8))
        assert torch.equal(limited["dx"][pair], dx[pair])
        assert (
            limited["dx"][:, :3].abs().mean(-1).max()
            == limited["dy"][:, :3, :4].abs().mean(-1).max()
            == 1
        )

    @pytest.mark.parametrize(("height", "width"), SIZES)
    def test_smooth_images_stay(self, height: int, width: int) -> None:
        primal = (
            torch.linspace(0, 1, height * width).view(1, height, width, 1).expand(-1, -1, -1, 3)
        )
        limited = without_spikes({"primal": primal, "dx": torch.zeros_like(primal)})
        inner = limited["primal"].flatten()[:-3]  # the last pixel is the brightest
        torch.testing.assert_close(inner, primal.flatten()[:-3])

    def test_models_that_want_it_do_not_see_them(self) -> None:
        data = buffers(8, 8)
        spiked = data.clone()
        spiked[:, 3, 3, LAYOUT.slices["primal"]] = 1e6
        names = tuple(Feature(name, "none") for name in ("primal", "dx", "dy"))
        for despike, largest in ((False, 1e5), (True, 10)):
            config = InputConfig(names, despike=despike)
            x = preprocess(spiked, LAYOUT, config, alignment=1).input
            assert (x.max() > largest) == (not despike)


@pytest.mark.parametrize(("height", "width", "size"), [(1, 1, 5), (2, 9, 7), (12, 3, 3)])
def test_window_mean_is_that_of_what_lies_inside(height: int, width: int, size: int) -> None:
    x = torch.rand(1, height, width, 2, generator=torch.Generator().manual_seed(0))
    r = size // 2
    expected = torch.stack(
        [
            x[0, max(0, i - r) : i + r + 1, max(0, j - r) : j + r + 1].mean((0, 1))
            for i in range(height)
            for j in range(width)
        ]
    ).view_as(x)
    for image in (x, planar(x)):
        torch.testing.assert_close(window_mean(image, size), expected)
        for dim in (1, 2):
            steps = difference(image, dim)
            last = x.shape[dim] - 1
            assert torch.equal(steps.narrow(dim, 0, last), x.diff(dim=dim))
            assert not bool(steps.narrow(dim, last, 1).any())
