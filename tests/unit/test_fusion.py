"""oidn-fusion: gradients repair an image where they are precise, and only there."""

from __future__ import annotations

import pytest
import torch

from mitsuba_gdpt import denoise
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.errors import ConfigError, LayoutError

LAYOUT = Layout.make(variances=True)


def scene() -> tuple[FrameBuffers, torch.Tensor]:
    """Buffers with exact gradients and a primal with 20 % of noise, and the clean image."""
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    clean = (2 + (x / 3).sin() * (y / 4).cos())[..., None].expand(-1, -1, 3).contiguous()
    buffers = FrameBuffers(torch.zeros(24, 32, LAYOUT.count), LAYOUT)
    noise = torch.randn(clean.shape, generator=generator)
    buffers["primal"][:] = clean * (1 + 0.2 * noise)
    buffers["dx"][:, :-1], buffers["dy"][:-1] = clean.diff(dim=1), clean.diff(dim=0)
    return buffers, clean


def error(image: torch.Tensor, clean: torch.Tensor) -> float:
    return float((image - clean).square().mean())


def fuse(buffers: FrameBuffers, **options: float | str) -> torch.Tensor:
    image: torch.Tensor = denoise(buffers, "oidn-fusion", **({"using": "none"} | options))
    return image


def test_precise_gradients_repair_the_image() -> None:
    buffers, clean = scene()
    noisy = error(buffers["primal"], clean)
    errors = [error(fuse(buffers, weight=weight), clean) for weight in (0.1, 1.0, 10.0)]
    assert noisy > errors[0] > errors[1] > errors[2]
    assert errors[1] < 0.5 * noisy


def test_noisy_gradients_are_left_out() -> None:
    buffers, _ = scene()
    buffers["dx"][:] = buffers["dy"][:] = 50.0
    for name in ("dx.var", "dy.var"):
        buffers[name].fill_(50.0**2)
    image = fuse(buffers)
    assert ((image - buffers["primal"]) / buffers["primal"]).abs().max() < 0.01


def test_brightness_does_not_matter() -> None:
    buffers, _ = scene()
    buffers["dx.var"].fill_(0.01)
    factors = torch.ones(LAYOUT.count)
    for name in ("primal", "dx", "dy"):
        factors[LAYOUT.slices[name]] = 64.0
        factors[LAYOUT.slices[name + ".var"]] = 64.0**2
    brighter = FrameBuffers(buffers.data * factors, LAYOUT)
    torch.testing.assert_close(fuse(brighter), 64 * fuse(buffers), rtol=1e-4, atol=1e-4)


def test_refusals() -> None:
    buffers, _ = scene()
    with pytest.raises(ConfigError, match="weight is 0"):
        fuse(buffers, weight=0.0)
    plain = FrameBuffers(torch.rand(4, 4, 16), Layout.make())
    with pytest.raises(LayoutError, match=r"dx\.var"):
        fuse(plain)


def test_with_oidn() -> None:
    pytest.importorskip("mitsuba_oidn")
    buffers, clean = scene()
    assert error(denoise(buffers, "oidn-fusion"), clean) < error(denoise(buffers, "oidn"), clean)
