"""Estimates of errors without a reference, on images whose error is known."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mitsuba_gdpt import metrics
from mitsuba_gdpt.rendering import noise


def halves(scale: float, spikes: int = 0) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return an image with stripes on its left half, and two noisy ones of it."""
    generator = torch.Generator().manual_seed(3)
    truth = torch.ones(96, 128, 3)
    truth.view(96, 16, 8, 3)[:, :8, :4] = 1.4
    noisy = [truth + scale * torch.randn(truth.shape, generator=generator) for _ in range(2)]
    for image in noisy:
        image.view(-1, 3)[torch.randperm(96 * 128, generator=generator)[:spikes]] = 300.0
    return truth, noisy


def blurred(image: torch.Tensor, size: int) -> torch.Tensor:
    planes = functional.pad(image.permute(2, 0, 1)[None], (size // 2,) * 4, mode="reflect")
    return functional.avg_pool2d(planes, size, stride=1)[0].permute(1, 2, 0)


@pytest.mark.parametrize("size", [3, 9])
def test_bias_of_a_reconstruction_is_part_of_the_estimate(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """A blur is off at edges, in both halves alike; what is estimated is the error of a half.

    Up to the brightness that errors are relative to, which is blurred as well.
    """
    monkeypatch.setattr(noise, "ALL_OVER_HALF", 1.0)
    truth, noisy = halves(0.1)
    images = [blurred(image, size) for image in noisy]
    found = noise.error_map(blurred(sum(noisy) / 2, size), images, noisy)
    true = sum(metrics.relmse(image, truth) for image in images) / 2
    alike = float((images[0] - images[1]).square().mean()) / 4
    assert float(found.mean()) == pytest.approx(float(true), rel=0.2)
    assert float(true) > 3 * alike
    # And it is where the edges are.
    assert found[:, :48].mean() > 3 * found[:, 80:].mean()


def test_single_spikes_do_not_decide() -> None:
    truth, noisy = halves(0.3, spikes=4)
    clean = [truth.clone(), truth + 0.1]
    found = float(noise.error_map(truth + 0.05, clean, noisy).mean())
    true = 0.5 * float(metrics.relmse(clean[1], truth)) * noise.ALL_OVER_HALF
    assert found == pytest.approx(true, rel=0.25)


def test_no_less_than_the_variance_that_is_seen() -> None:
    image = torch.ones(4, 4, 3)
    found = noise.error_map(image, [image - 0.1, image + 0.1], [image, image])
    assert float(found.mean()) == pytest.approx(0.01 / 1.01)


def test_black_and_noiseless() -> None:
    black = torch.zeros(3, 5, 3)
    assert not noise.error_map(black, [black, black], [black, black]).any()
