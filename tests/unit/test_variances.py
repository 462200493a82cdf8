"""Variances from contradictions between the primal and its gradients."""

from __future__ import annotations

import pytest
import torch

from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.denoisers.images import difference
from mitsuba_gdpt.denoisers.variances import (
    cautious_variances,
    estimated_variances,
    rendered_variances,
)

LAYOUT = Layout.make()


def buffers(height: int, width: int) -> torch.Tensor:
    """An image without noise, and its exact gradients; (1, H, W, C)."""
    data = torch.rand(1, height, width, LAYOUT.count, generator=torch.Generator().manual_seed(0))
    data[..., LAYOUT.slices["dx"]] = difference(data[..., LAYOUT.slices["primal"]], 2)
    data[..., LAYOUT.slices["dy"]] = difference(data[..., LAYOUT.slices["primal"]], 1)
    return data


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (7, 1), (2, 2), (30, 40)])
def test_what_fits_together_has_no_noise(height: int, width: int) -> None:
    for variance in estimated_variances(buffers(height, width), LAYOUT).values():
        assert variance.shape == (1, height, width, 1)
        torch.testing.assert_close(variance, torch.zeros_like(variance), rtol=0, atol=1e-12)


def test_noise_is_found_where_and_as_large_as_it_is() -> None:
    generator = torch.Generator().manual_seed(1)
    sigmas = {"primal": 0.5, "dx": 0.2, "dy": 0.1}
    data = buffers(200, 300)
    for name, sigma in sigmas.items():
        part = data[..., :150, LAYOUT.slices[name]]  # the left half
        part += sigma * torch.randn(part.shape, generator=generator)
    estimates = estimated_variances(data, LAYOUT)
    inside = {name: values[:, 1:-1, 1:148].mean() for name, values in estimates.items()}
    outside = {name: values[:, :-1, 151:-1].mean() for name, values in estimates.items()}
    square = {name: sigma**2 for name, sigma in sigmas.items()}
    gradients = (square["dx"] + square["dy"]) / 2  # a square of pixels has two of each
    assert float(inside["dx"]) == pytest.approx(gradients, rel=0.03)
    assert float(inside["dy"]) == pytest.approx(gradients, rel=0.03)
    assert float(inside["primal"]) == pytest.approx(square["primal"] + gradients / 2, rel=0.03)
    assert all(float(value) < 1e-12 for value in outside.values())


def test_missing_differences_have_no_variance() -> None:
    data = torch.rand(1, 6, 5, LAYOUT.count)
    for name in ("dx", "dy"):
        dim = {"dx": 2, "dy": 1}[name]
        part = data[..., LAYOUT.slices[name]]
        part.narrow(dim, part.shape[dim] - 1, 1).zero_()
    estimates = estimated_variances(data, LAYOUT)
    assert not bool(estimates["dx"][:, :, -1].any())
    assert not bool(estimates["dy"][:, -1].any())
    assert bool((estimates["dx"][:, :, :-1] > 0).all())
    assert bool((estimates["dy"][:, :-1] > 0).all())


def test_rendered_variances_are_the_buffers() -> None:
    layout = Layout.make(variances=True)
    data = torch.rand(1, 4, 5, layout.count)
    found = rendered_variances(data, layout)
    assert list(found) == ["primal", "dx", "dy"]
    for name, values in found.items():
        assert torch.equal(values, data[..., layout.slices[name + ".var"]])
    assert not rendered_variances(data[..., :16], LAYOUT)


def test_neither_a_lucky_variance_nor_a_lucky_estimate_counts() -> None:
    layout = Layout.make(variances=True)
    data = torch.rand(1, 8, 9, layout.count, generator=torch.Generator().manual_seed(2))
    data[:, :4, :, layout.slices["dx.var"]] = 0.0
    estimates, found = estimated_variances(data, layout), cautious_variances(data, layout)
    assert torch.equal(found["dx"][:, :4], estimates["dx"][:, :4])
    assert bool((found["dy"] >= data[..., layout.slices["dy.var"]]).all())
    assert bool((found["dy"] >= estimates["dy"]).all())
    assert torch.equal(found["primal"], data[..., layout.slices["primal.var"]])
