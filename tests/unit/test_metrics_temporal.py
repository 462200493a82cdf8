"""Flicker and variance over time: slow second formulas, known flicker, noise of known variance."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mitsuba_gdpt import metrics
from mitsuba_gdpt.errors import ConfigError, LayoutError, NonFiniteError
from mitsuba_gdpt.metrics import Reference

NAMES = list(metrics.SEQUENCE_METRICS)
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "flicker": metrics.flicker,
    "static-variance": metrics.static_variance,
}
EPSILON = 0.01


def sequence(frames: int = 5, height: int = 6, width: int = 7, seed: int = 1) -> Tensor:
    """A gradient that moves to the right, plus noise of its own."""
    generator = torch.Generator().manual_seed(seed)
    t, y, x = torch.meshgrid(*map(torch.arange, (frames, height, width)), indexing="ij")
    base = 1 + torch.sin(0.8 * (x - t) + 0.3 * y)
    colour = torch.tensor([1.0, 0.7, 0.4])
    return base[..., None] * colour + 0.1 * torch.rand(
        frames, height, width, 3, generator=generator
    )


def slow_flicker(p: Any, a: Any, b: Any) -> float:
    total, count = 0.0, 0
    frames, height, width, _ = p.shape
    for t in range(1, frames):
        for y in range(height):
            for x in range(width):
                greys = [float((a[u, y, x] + b[u, y, x]).sum()) / 6 for u in (t - 1, t)]
                square = (greys[0] ** 2 + greys[1] ** 2) / 2
                for c in range(3):
                    step = p[t, y, x, c] - p[t - 1, y, x, c]
                    first = step - (a[t, y, x, c] - a[t - 1, y, x, c])
                    second = step - (b[t, y, x, c] - b[t - 1, y, x, c])
                    total += first * second / (square + EPSILON)
                    count += 1
    return total / count


def slow_variance(p: Any, a: Any, b: Any) -> float:
    total = []
    _, height, width, _ = p.shape
    for y in range(height):
        for x in range(width):
            grey = float(np.mean([a[:, y, x], b[:, y, x]]))
            for c in range(3):
                both = np.cov(p[:, y, x, c] - a[:, y, x, c], p[:, y, x, c] - b[:, y, x, c])
                total.append(both[0, 1] / (grey**2 + EPSILON))
    return float(np.mean(total))


SLOW = {"flicker": slow_flicker, "static-variance": slow_variance}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("halves", [False, True])
def test_slow_formula(name: str, halves: bool) -> None:
    images, a, b = (sequence(seed=seed) for seed in (1, 2, 3))
    reference = Reference(a, b) if halves else Reference(a)
    arrays = [t.double().numpy() for t in (images, a, b if halves else a)]
    expected = SLOW[name](*arrays)
    assert metrics.find(name)(images, reference).value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_frames_may_arrive_in_any_portions(name: str) -> None:
    images, reference = sequence(7), Reference(sequence(7, seed=2), sequence(7, seed=3))
    expected = float(FUNCTIONS[name](images, reference))
    for portions in ([1] * 7, [7], [2, 1, 4], [1, 6]):
        accumulator = metrics.find(name).accumulator(None)
        start = 0
        for count in portions:
            part = slice(start, start + count)
            assert reference.b is not None
            accumulator.update(images[part], Reference(reference.a[part], reference.b[part]))
            start += count
        assert float(accumulator.compute()) == pytest.approx(expected, rel=1e-5), portions
    alone = metrics.find(name).accumulator(None)
    for image, target in zip(images, reference.a, strict=True):  # without a batch axis
        alone.update(image, target)
    assert float(alone.compute()) == pytest.approx(float(FUNCTIONS[name](images, reference.a)))


@pytest.mark.parametrize("name", NAMES)
def test_a_perfect_sequence_has_none(name: str) -> None:
    images = sequence()
    assert float(FUNCTIONS[name](images, images.clone())) == 0
    assert float(FUNCTIONS[name](images + 0.25, images)) == pytest.approx(0, abs=1e-11)
    still = sequence(1).expand(6, -1, -1, -1)
    assert float(FUNCTIONS[name](1.5 * still, still)) == 0, "what is wrong but stays is no flicker"


def test_known_flicker() -> None:
    """Brightness alternates by 0.2 around a grey of 0.5, where the reference is constant."""
    reference = torch.full((6, 4, 4, 3), 0.5)
    swing = torch.tensor([0.1, -0.1] * 3)[:, None, None, None]
    expected = 0.2**2 / (0.5**2 + EPSILON)
    assert float(metrics.flicker(reference + swing, reference)) == pytest.approx(expected, rel=1e-5)
    variance = 6 / 5 * 0.1**2 / (0.5**2 + EPSILON)
    assert float(metrics.static_variance(reference + swing, reference)) == pytest.approx(
        variance, rel=1e-5
    )
    # The same swing in the reference costs nothing.
    assert float(metrics.flicker(reference + swing, reference + swing)) == 0


@pytest.mark.parametrize(("name", "factor"), [("flicker", 2.0), ("static-variance", 1.0)])
def test_independent_noise_gives_the_analytic_value(name: str, factor: float) -> None:
    generator = torch.Generator().manual_seed(4)
    truth, sigma = 0.8, 0.1
    reference = torch.full((9, 64, 64, 3), truth)
    images = reference + sigma * torch.randn(reference.shape, generator=generator)
    expected = factor * sigma**2 / (truth**2 + EPSILON)
    # 8 x 64 x 64 x 3 squares: their mean is known to about 0.6 %.
    assert float(FUNCTIONS[name](images, reference)) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(("name", "factor"), [("flicker", 2.0), ("static-variance", 1.0)])
def test_noise_of_the_reference_is_not_counted(name: str, factor: float) -> None:
    """References rendered frame by frame, with four times the variance of the images."""
    generator = torch.Generator().manual_seed(5)
    truth, sigma = 4.0, 0.05  # so bright that noise in the denominator is negligible

    def noisy(deviation: float) -> Tensor:
        return truth + deviation * torch.randn(9, 64, 64, 3, generator=generator)

    images, a, b = noisy(sigma), noisy(2 * sigma), noisy(2 * sigma)
    expected = factor * sigma**2 / (truth**2 + EPSILON)
    assert float(FUNCTIONS[name](images, Reference(a, b))) == pytest.approx(expected, rel=0.05)
    biased = float(FUNCTIONS[name](images, 0.5 * (a + b)))
    assert biased == pytest.approx(3 * expected, rel=0.05), "their mean has twice the variance"


@pytest.mark.parametrize("name", NAMES)
def test_every_sequence_has_one_vote(name: str) -> None:
    long, short = sequence(9, seed=1), sequence(2, seed=2)
    references = sequence(9, seed=3), sequence(2, seed=4)
    values = [float(FUNCTIONS[name](*pair)) for pair in zip((long, short), references, strict=True)]
    metric = metrics.find(name).accumulator(None)
    metric.update(long, references[0])
    assert isinstance(metric, metrics.SequenceAccumulator)
    metric.cut()
    metric.cut()  # nothing is under way
    assert metric.count == 1
    metric.update(short, references[1])
    assert float(metric.compute()) == pytest.approx(np.mean(values), rel=1e-5)
    other = metrics.find(name).accumulator(None)
    other.update(short, references[1])
    metric.merge(other)
    assert metric.count == 3
    assert float(metric.compute()) == pytest.approx((values[0] + 2 * values[1]) / 3, rel=1e-5)
    metric.reset()
    with pytest.raises(ConfigError, match="has seen no image"):
        metric.compute()


@pytest.mark.parametrize("name", NAMES)
def test_gradients(name: str) -> None:
    images = sequence(3, 2, 2).double().requires_grad_()
    reference = Reference(sequence(3, 2, 2, seed=2).double(), sequence(3, 2, 2, seed=3).double())
    assert torch.autograd.gradcheck(lambda x: FUNCTIONS[name](x, reference), images)


@pytest.mark.parametrize("name", NAMES)
def test_bad_input_is_refused(name: str) -> None:
    function, images = FUNCTIONS[name], sequence()
    with pytest.raises(LayoutError, match=r"expected a sequence \(T, H, W, 3\)"):
        function(images[0], images[0])
    with pytest.raises(LayoutError, match=r"sequence of 1 frame\(s\); expected 2 or more"):
        function(images[:1], images[:1])
    with pytest.raises(LayoutError, match="expected that of the reference"):
        function(images, images[1:])
    with pytest.raises(ConfigError, match="epsilon = 0"):
        function(images, images, epsilon=0)
    broken = images.clone()
    broken[3, 0, 0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="1 values are NaN"):
        metrics.find(name)(broken, images)
    running = metrics.find(name).accumulator(None)
    running.update(images[0], images[0])
    with pytest.raises(LayoutError, match=r"of the frame before.*cut\(\)"):
        running.update(images[0, 1:], images[0, 1:])


@pytest.mark.parametrize("name", NAMES)
def test_errors_are_relative_to_the_brightness_that_is_given(name: str) -> None:
    images, a, b = (sequence(seed=seed) for seed in (1, 2, 3))
    grey = a.mean(-1, keepdim=True) * 3
    expected = float(FUNCTIONS[name](images, Reference(a, b, ((a + b) / 2).mean(-1, keepdim=True))))
    assert expected == pytest.approx(float(FUNCTIONS[name](images, Reference(a, b))))
    brighter = float(FUNCTIONS[name](images, Reference(a, b, grey)))
    assert 0 < abs(brighter) < abs(expected) / 2
