"""OIDN's network in torch: the library's image, an adapter that starts as nothing, its weights."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch

from mitsuba_gdpt import denoise
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.denoisers.classical import oidn_weights
from mitsuba_gdpt.denoisers.learned import backbone, inference, weights
from mitsuba_gdpt.denoisers.learned.backbone import BackboneConfig, BackboneModel
from mitsuba_gdpt.errors import ConfigError, WeightsError

pytest.importorskip("mitsuba_oidn")

LAYOUT = Layout.make()
BASE = BackboneConfig(adapter=(), consistency=0.0)
SMALL = BackboneConfig(adapter=(4, 4, 4, 4), consistency=0.0)


def render(height: int = 48, width: int = 64) -> FrameBuffers:
    """Noise on a pattern whose brightness spans five orders of magnitude."""
    generator = torch.Generator().manual_seed(0)
    data = torch.rand(height, width, LAYOUT.count, generator=generator)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pattern = (3 * (x / 9).sin() + 3 * (y / 7).cos()).exp()[..., None]
    data[..., LAYOUT.slices["primal"]] *= pattern
    for name in ("dx", "dy"):
        data[..., LAYOUT.slices[name]] = 0.1 * pattern
    data[..., LAYOUT.slices["normal"]] = 2 * data[..., LAYOUT.slices["normal"]] - 1
    return FrameBuffers(data, LAYOUT)


def trained(config: BackboneConfig = SMALL) -> BackboneModel:
    torch.manual_seed(0)
    model = BackboneModel(config)
    adapter = model.network.adapter
    assert adapter is not None
    for joint in adapter.joints.parameters():
        torch.nn.init.normal_(joint, std=0.02)
    return model


def test_image_of_the_library() -> None:
    buffers = render()
    expected = denoise(buffers, "oidn", aux="raw")
    image = inference.reconstruct(BackboneModel(BASE), buffers, precision="float32")
    torch.testing.assert_close(image, expected, rtol=3e-3, atol=1e-4)


def test_adapter_starts_as_nothing_and_can_say_something() -> None:
    buffers = render()
    plain = inference.reconstruct(BackboneModel(BASE), buffers)
    assert torch.equal(inference.reconstruct(BackboneModel(SMALL), buffers), plain)
    assert not torch.allclose(inference.reconstruct(trained(), buffers), plain, rtol=0.01)


def test_only_the_adapter_learns() -> None:
    model = BackboneModel(SMALL)
    assert all(name.startswith("network.adapter") for name in model.state_dict())
    data = render().data[None]
    before = model.network.base.enc_conv0_weight.clone()
    target = 1.1 * denoise(render(), "oidn", aux="raw")[None]
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for _ in range(6):
        loss = (backbone.encode(model(data, LAYOUT)) - backbone.encode(target)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    assert torch.equal(model.network.base.enc_conv0_weight, before)


def test_tuned_weights_are_stored_as_differences(tmp_path: Path) -> None:
    config = BackboneConfig(adapter=(), tuned=True, consistency=0.0)
    model = BackboneModel(config)
    assert model.network.delta is not None
    assert torch.equal(*(inference.reconstruct(m, render()) for m in (model, BackboneModel(BASE))))
    torch.nn.init.normal_(model.network.delta["dec_conv0_weight"], std=0.01)
    facts = {"recipe": "none", "commit": "none", "licence": "BSD-3-Clause"}
    path = weights.save_weights(model, tmp_path, name="ngpt-backbone", tag="t", **facts)
    loaded = weights.load_weights(path)
    assert torch.equal(*(inference.reconstruct(m, render()) for m in (model, loaded)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 40), (33, 17)])
def test_any_size(height: int, width: int) -> None:
    image = inference.reconstruct(trained(), render(height, width))
    assert image.shape == (height, width, 3)
    assert bool(image.isfinite().all())


def test_unit_of_radiance_does_not_matter() -> None:
    model = trained(BackboneConfig(adapter=(4, 4, 4, 4)))
    buffers = render()
    factors = torch.ones(LAYOUT.count)
    for name in ("primal", "dx", "dy"):
        factors[LAYOUT.slices[name]] = 1024.0
    brighter = inference.reconstruct(model, FrameBuffers(buffers.data * factors, LAYOUT))
    torch.testing.assert_close(
        brighter / 1024, inference.reconstruct(model, buffers), rtol=2e-3, atol=1e-4
    )


def test_radius_is_not_too_small() -> None:
    model = trained()
    side = 4 * backbone.RADIUS
    x = torch.rand(1, 32, side, backbone.INPUTS + backbone.EVIDENCE)
    changed = x.clone()
    changed[:, :, : backbone.RADIUS] = 0
    with torch.no_grad():
        far = (model.network(changed) - model.network(x))[:, :, 2 * backbone.RADIUS :]
    assert float(far.abs().max()) < 1e-5


def test_transfer_function_is_undone() -> None:
    radiance = torch.cat([torch.zeros(1), torch.logspace(-8, 4.5, 60)])
    torch.testing.assert_close(
        backbone.decode(backbone.encode(radiance)), radiance, rtol=2e-4, atol=1e-9
    )
    values = torch.linspace(-0.5, 1.5, 41, requires_grad=True)
    backbone.decode(values).sum().backward()
    assert values.grad is not None
    assert bool(values.grad.isfinite().all())


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="base is 'ldr'; expected one of: hdr_alb_nrm"):
        BackboneConfig(base="ldr")
    with pytest.raises(ConfigError, match="four widths"):
        BackboneConfig(adapter=(8, 8))


def test_another_version_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(oidn_weights.HASHES, "another", "0" * 64)
    with pytest.raises(WeightsError, match=r"no weights 'another'.* pip install mitsuba-oidn=="):
        oidn_weights.read("another")


def test_blobs_are_found_among_other_bytes() -> None:
    values = torch.arange(6.0).view(1, 2, 3, 1).numpy().astype("<f2").tobytes()
    header = struct.pack("<HBBQ", 0x41D7, 2, 0, 12 + len(values))
    table = struct.pack("<IH1sB4I", 1, 1, b"w", 4, 1, 2, 3, 1) + b"oihwh" + struct.pack("<Q", 12)
    blob = header + values + table
    magic = struct.pack("<HBB", 0x41D7, 2, 0)
    found = list(oidn_weights.blobs(b"...." + magic + b"noise" + blob + magic))
    assert found == [blob]
    (tensor,) = oidn_weights.parse(blob).values()
    torch.testing.assert_close(tensor, torch.arange(6.0).view(1, 2, 3, 1))


def test_larger_network_is_that_of_the_library() -> None:
    buffers = render()
    large = BackboneConfig(base="hdr_calb_cnrm_large", adapter=(), consistency=0.0)
    image = inference.reconstruct(BackboneModel(large), buffers, precision="float32")
    expected = denoise(buffers, "oidn", aux="clean")
    torch.testing.assert_close(image, expected, rtol=3e-3, atol=1e-4)


def test_larger_network_takes_the_adapter() -> None:
    buffers = render()
    sizes = {"base": "hdr_calb_cnrm_large", "consistency": 0.0}
    plain = inference.reconstruct(BackboneModel(BackboneConfig(adapter=(), **sizes)), buffers)
    config = BackboneConfig(adapter=(4, 4, 4, 4), **sizes)
    assert torch.equal(inference.reconstruct(BackboneModel(config), buffers), plain)
    changed = inference.reconstruct(trained(config), buffers)
    assert not torch.allclose(changed, plain, rtol=0.01)
