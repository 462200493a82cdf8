"""What metrics cost per image, and how biased relMSE is against noisy references.

    python benchmarks/metrics.py [FOLDER_OF_WEIGHTS]

Prints the two tables of docs/reference/metrics.md. One thread; "CPU s" is the time of the
processor, which other load on the machine changes little.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch

from mitsuba_gdpt import metrics
from mitsuba_gdpt.metrics import Reference

SIDE = 256
REPETITIONS = 12


def radiance() -> torch.Tensor:
    """Random pixels: dark ones are frequent, as in renders; structure does not matter here."""
    generator = torch.Generator().manual_seed(1)
    return 4 * torch.rand(SIDE, SIDE, 3, generator=generator) ** 3


def noisy(image: torch.Tensor, deviation: float, rng: np.random.Generator) -> torch.Tensor:
    """Gamma noise of a relative standard deviation, independent per channel."""
    shape = 1 / deviation**2
    return image * torch.from_numpy(rng.gamma(shape, 1 / shape, image.shape)).to(image)


def costs(weights: str | None) -> None:
    rng = np.random.default_rng(0)
    reference = radiance()
    image = noisy(reference, 0.2, rng)
    print(f"| metric | CPU s per {SIDE} x {SIDE} image |\n|---|---|")
    for name, metric in metrics.METRICS.items():
        if (obstacle := metric.obstacle(weights)) is not None:
            print(f"| {name} | {obstacle} |")
            continue
        if metric.label[:2] != "E-":
            metric(image, reference, weights=weights)  # imports, loads
        start = time.process_time()
        metric(image, reference, weights=weights)
        print(f"| {name} | {time.process_time() - start:.3f} |", flush=True)


def bias() -> None:
    rng = np.random.default_rng(0)
    truth = radiance().double()
    print("\n| true relMSE | deviation of a half | bias, halves | bias, their mean |")
    print("|---|---|---|---|")
    for error in (0.1, 0.5):
        image = noisy(truth, error, rng)
        true = float(metrics.relmse(image, truth))
        for deviation in (0.03, 0.1, 0.3):
            split, mean = [], []
            for _ in range(REPETITIONS):
                halves = Reference(noisy(truth, deviation, rng), noisy(truth, deviation, rng))
                split.append(float(metrics.relmse(image, halves)) / true - 1)
                mean.append(float(metrics.relmse(image, halves.mean)) / true - 1)
            print(f"| {true:.3f} | {deviation} | {np.mean(split):+.1%} | {np.mean(mean):+.1%} |")


if __name__ == "__main__":
    torch.set_num_threads(1)
    costs(sys.argv[1] if len(sys.argv) > 1 else None)
    bias()
