"""Estimates of errors without a reference, on images whose error is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from mitsuba_gdpt import metrics
from mitsuba_gdpt.rendering import noise
from mitsuba_gdpt.rendering.noise import Half

HEIGHT, WIDTH = 96, 128


def striped() -> torch.Tensor:
    """Return an image with stripes on its left half."""
    truth = torch.ones(HEIGHT, WIDTH, 3)
    truth.view(HEIGHT, 16, 8, 3)[:, :8, :4] = 1.4
    return truth


def noisy(truth: torch.Tensor, scale: float) -> list[torch.Tensor]:
    """Return four independent images with noise."""
    generator = torch.Generator().manual_seed(3)
    return [truth + scale * torch.randn(truth.shape, generator=generator) for _ in range(4)]


def half(image: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> Half:
    return Half(image, (first + second) / 2, (first, second))


def blurred(image: torch.Tensor, size: int) -> torch.Tensor:
    planes = functional.pad(image.permute(2, 0, 1)[None], (size // 2,) * 4, mode="reflect")
    return functional.avg_pool2d(planes, size, stride=1)[0].permute(1, 2, 0)


@pytest.mark.parametrize(("size", "tolerance"), [(3, 0.12), (9, 0.06)])
def test_bias_of_a_reconstruction_is_part_of_the_estimate(size: int, tolerance: float) -> None:
    """A blur is off at edges, in both halves and the whole alike."""
    truth = striped()
    a, b, c, d = noisy(truth, 0.2)
    halves = [half(blurred((p + q) / 2, size), p, q) for p, q in ((a, b), (c, d))]
    image = (halves[0].image + halves[1].image) / 2
    found = noise.estimate(image, *halves).map
    true = float(metrics.relmse(image, truth))
    alike = float((halves[0].image - halves[1].image).square().mean()) / 4
    assert float(found.mean()) == pytest.approx(true, rel=tolerance)
    assert true > 2 * alike
    # And it is where the edges are.
    assert found[:, :48].mean() > 3 * found[:, 80:].mean()


def test_all_pairs_of_parts_have_the_error_as_their_mean() -> None:
    truth = striped()
    parts = noisy(truth, 0.2)
    images = truth + 0.1, truth - 0.3
    halves = [half(image, *parts[i::2]) for i, image in enumerate(images)]
    found = noise._error_of_half(*halves)
    deviation = float(found.std()) / found.numel() ** 0.5
    assert float(found.mean()) == pytest.approx((0.01 + 0.09) / 2, abs=3 * deviation)
    # Without an error, what is left is the mean of six products of the noise of three channels.
    found = noise._error_of_half(half(truth, *parts[::2]), half(truth, *parts[1::2]))
    assert float(found.std()) == pytest.approx(0.2**2 / 18**0.5, rel=0.03)


@pytest.mark.parametrize("spikes", [False, True])
def test_what_noise_hides_is_told_by_the_variance(spikes: bool) -> None:
    """With fireflies in two parts the mean over the pixels says nothing."""
    truth = torch.ones(HEIGHT, WIDTH, 3)
    a, b, c, d = noisy(truth, 0.3)
    if spikes:
        for part in (a, c):
            part[::40, ::40] = 300.0
    halves = half(truth, a, b), half(truth + 0.1, c, d)
    found = noise.estimate(truth + 0.05, *halves).map
    error = noise._error_of_half(*halves)
    if spikes:
        assert float(error.std()) / error.numel() ** 0.5 > 1.0
        expected = (noise.TIMES_VARIANCE - 1) * 0.05**2
        assert float(found.mean()) == pytest.approx(expected, rel=0.15)
        assert float(found.max()) < 0.05
    else:
        assert float(found.mean()) == pytest.approx(0.05**2, rel=0.2)


def test_brightness_is_that_of_the_primal_where_noise_does_not_explain_the_difference() -> None:
    """A lamp whose light a reconstruction spreads over dark pixels with little noise."""
    truth = torch.full((HEIGHT, WIDTH, 3), 0.1)
    truth[40:44] = 100.0
    a, b, c, d = noisy(truth, 0.01)
    spread = truth.clone()
    spread[36:40] = 2.0
    halves = half(spread, a, b), half(spread, c, d)
    true = float(metrics.relmse(spread, truth))
    assert noise.estimate(spread, *halves).level == pytest.approx(true, rel=0.05)
    # With noise that explains it the reconstruction counts.
    truth[36:40] = 2.0
    halves = half(truth, *noisy(truth, 1.0)[:2]), half(truth, *noisy(truth, 1.0)[2:])
    brightness = noise._brightness(truth, *halves)
    assert float((brightness[36:40] - 2.0).abs().mean()) < 0.1


def test_a_spike_that_one_half_keeps_is_an_error_of_its_height() -> None:
    truth = torch.ones(HEIGHT, WIDTH, 3)
    parts = noisy(truth, 0.01)
    parts[0][50, 60] = 41.0
    first = truth.clone()
    first[50, 60] = 21.0
    image = (first + truth) / 2
    halves = half(first, parts[0], parts[2]), half(truth, parts[1], parts[3])
    brightness = noise._brightness(image, *halves)
    assert float(brightness[50, 60]) == pytest.approx(1.0, abs=0.01)


def test_no_less_than_the_variance_that_is_seen() -> None:
    image = torch.ones(4, 4, 3)
    found = noise.estimate(image, half(image - 0.1, image, image), half(image + 0.1, image, image))
    assert found.level == pytest.approx(0.01 / 1.01, rel=0.05)
    assert found.low >= 0.99 * 0.01 / 1.01


def test_levels() -> None:
    """Between what is measured and what the variance says, by how sure the first is."""

    def likely(*numbers: float) -> float:
        low, middle, high = noise._levels(*numbers)
        assert low <= middle <= high
        return middle

    assert likely(0.4, 1e-5, 0.1) == pytest.approx(0.4, rel=0.02)
    assert likely(20.0, 1e-3, 0.1) > 10.0
    assert likely(0.0, 1e9, 0.1) == pytest.approx(0.1 * noise.TIMES_VARIANCE, rel=0.1)
    assert 0.5 < likely(0.6, 0.1, 0.1) < 0.6
    assert likely(-1.0, 0.01, 0.1) == pytest.approx(0.2, rel=0.05)  # that of a half
    assert likely(0.5, 0.1, 0.0) == 0.5
    assert likely(-0.5, 0.1, 0.0) == 0.0
    # The range is as wide as its ends are uncertain.
    low, middle, high = noise._levels(0.4, 1e-5, 0.1)
    assert 1.1 < high / low < 1.4
    low, middle, high = noise._levels(0.4, 1.0, 0.1)
    assert high / middle == pytest.approx(math.exp(1.28 * noise.SPREAD), rel=0.1)


def test_black_and_noiseless() -> None:
    black = torch.zeros(3, 5, 3)
    nothing = half(black, black, black)
    found = noise.estimate(black, nothing, nothing)
    assert not found.map.any()
    assert found.low == found.level == found.high == 0.0
    # Both halves are off alike, and nothing else is known.
    grey = torch.ones(3, 5, 3)
    off = half(grey, grey + 0.1, grey + 0.1)
    assert noise.estimate(grey, off, off).level == pytest.approx(0.01 / (1.21 + 0.01))
