"""ngpt-fusion: starts as oidn-fusion, sees what matters, treats both directions alike."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mitsuba_gdpt import denoise
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.denoisers.classical.fusion import fuse_gradients
from mitsuba_gdpt.denoisers.images import difference, exposure_scale
from mitsuba_gdpt.denoisers.learned import inference
from mitsuba_gdpt.denoisers.learned.fusion import (
    DIRECTED,
    SHARED,
    FusionModel,
    FusionModelConfig,
    features,
)
from mitsuba_gdpt.denoisers.learned.networks import FusionWeights, FusionWeightsConfig
from mitsuba_gdpt.denoisers.learned.networks.fusion_weights import _merged
from mitsuba_gdpt.denoisers.learned.networks.layers import Convolution
from mitsuba_gdpt.denoisers.learned.weights import load_weights
from mitsuba_gdpt.denoisers.variances import estimated_variances
from mitsuba_gdpt.errors import ConfigError, LayoutError
from mitsuba_gdpt.training.augment import transpose
from tests import examples

LAYOUT = Layout.make()


def render(height: int = 18, width: int = 18) -> FrameBuffers:
    generator = torch.Generator().manual_seed(0)
    data = torch.rand(height, width, LAYOUT.count, generator=generator)
    return FrameBuffers(data, LAYOUT)


def model(*, consistency: float = 0.0, trained: bool = True, patch: int = 1) -> FusionModel:
    torch.manual_seed(0)
    config = FusionModelConfig(("poisson-l2",), 6, consistency, patch)
    result = FusionModel(config).eval()
    if trained:
        result.network.head.scale.data.fill_(2.0)
    return result.requires_grad_(False)


@pytest.mark.parametrize("patch", [1, 2])
def test_starts_as_fusion_by_estimated_variances(patch: int) -> None:
    buffers = render()
    guide, data = denoise(buffers, "poisson-l2")[None], buffers.data[None]
    logits, variances = torch.zeros(1, 1, 1, 2), estimated_variances(data, LAYOUT)
    expected = fuse_gradients(guide, data, LAYOUT, logits, variances)[0]
    image = inference.reconstruct(model(trained=False, patch=patch), buffers)
    torch.testing.assert_close(image, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(
        inference.reconstruct(model(patch=patch), buffers), expected, rtol=0.01
    )


def test_converges_to_the_primal() -> None:
    buffers = render()  # an image and gradients that agree have no noise
    buffers["dx"].copy_(difference(buffers["primal"][None], 2)[0])
    buffers["dy"].copy_(difference(buffers["primal"][None], 1)[0])
    image = inference.reconstruct(model(consistency=0.005), buffers)
    torch.testing.assert_close(image, buffers["primal"], rtol=0.01, atol=0.01)


@pytest.mark.parametrize(("patch", "side"), [(1, 18), (2, 20)])
def test_transposed_frames_give_the_transposed_image(patch: int, side: int) -> None:
    buffers = render(side, side)
    guide = denoise(buffers, "poisson-l2")[None]
    example = transpose(examples.frame(buffers.data, LAYOUT, guide))
    here, there = (
        model(patch=patch)(data[None], LAYOUT, guides[None])
        for data, guides in ((buffers.data, guide), (example.buffers.data, example.target))
    )
    torch.testing.assert_close(there.transpose(1, 2), here, rtol=1e-4, atol=1e-4)


def test_exposure_does_not_matter() -> None:
    buffers = render()
    factors = torch.ones(LAYOUT.count)
    for name in ("primal", "dx", "dy"):
        factors[LAYOUT.slices[name]] = 64.0

    def see(factors: torch.Tensor, factor: float) -> torch.Tensor:
        data = (buffers.data * factors)[None]
        image = factor * buffers["primal"][None]
        scale = exposure_scale(data[..., LAYOUT.slices["primal"]])
        return features(data, LAYOUT, image, estimated_variances(data, LAYOUT), scale)

    plain = see(torch.ones_like(factors), 1.0)
    assert plain.shape[1] == 2 * DIRECTED + SHARED
    torch.testing.assert_close(see(factors, 64.0), plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("patch", [1, 2])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 2), (7, 30)])
def test_any_size(height: int, width: int, patch: int) -> None:
    image = inference.reconstruct(model(patch=patch), render(height, width))
    assert image.shape == (height, width, 3)
    assert bool(image.isfinite().all())


@pytest.mark.parametrize("patch", [1, 2])
def test_tiles_give_the_same_image(patch: int) -> None:
    buffers = render(70, 90)
    network = model(patch=patch)
    whole, tiled = (
        inference.reconstruct(network, buffers, precision="float32", memory=memory)
        for memory in (2.0**30, 1.5e6)
    )
    torch.testing.assert_close(tiled, whole, rtol=1e-4, atol=1e-4)


def test_radius_is_not_too_small() -> None:
    torch.manual_seed(0)
    config = FusionWeightsConfig(2, 1, 4)
    network = FusionWeights(config)
    network.head.scale.data.fill_(1.0)
    x = torch.rand(1, 40, 40, config.inputs)
    changed = x.clone()
    changed[:, 20, 20] += 10.0
    with torch.no_grad():
        rows = (network(changed) != network(x)).any(-1)[0].any(1).nonzero()[:, 0]
    assert 20 - config.radius <= int(rows.min())
    assert int(rows.max()) <= 20 + config.radius


def test_a_missing_buffer_is_named() -> None:
    poor = Layout(tuple(b for b in LAYOUT.buffers if b.name != "depth"))
    with pytest.raises(LayoutError, match="depth"):
        inference.reconstruct(model(), FrameBuffers(torch.rand(4, 4, poor.count), poor))


@pytest.mark.parametrize("turned", [False, True])
def test_merging_is_a_layer_on_both_at_one_resolution(turned: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(2, c, s, s + 2, generator=generator) for c, s in ((3, 8), (5, 4)))
    y = y[..., :5]
    layer = Convolution(8, 4, 3)
    both = torch.cat([x, functional.interpolate(y, scale_factor=2)], 1)
    filters = layer.effective_weight()
    filters = filters.transpose(2, 3) if turned else filters
    expected = functional.leaky_relu(functional.conv2d(both, filters, layer.bias, padding=1), 0.1)
    torch.testing.assert_close(_merged(x, y, layer, turned=turned), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", ["none", "poisson-l2"])
def test_fuses_the_image_of_a_method_that_is_named(text: str) -> None:
    buffers = render()
    call = Call.parse(f"ngpt-fusion(using={text})")
    assert call.identity.endswith(f"(using={text})")
    model = load_weights("ngpt-fusion")
    # In float32: bfloat16 makes more of a last bit of the named image than the tolerance.
    wanted = inference.reconstruct(model, buffers, guides=[Call(text)], precision="float32")
    found = denoise(buffers, call, precision="float32")
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    noisy = denoise(buffers, "ngpt-fusion", using="none")
    assert torch.equal(noisy, denoise(buffers, call)) == (text == "none")
    with pytest.raises(ConfigError, match="unknown reconstruction method 'oidm'"):
        denoise(buffers, "ngpt-fusion", using="oidm")


def test_fuses_the_image_that_its_weights_name() -> None:
    guides = load_weights("ngpt-fusion").guides
    assert guides == FusionModelConfig().guides
    assert Call("ngpt-fusion").target.callees({}) == tuple(map(Call.parse, guides))
