"""What metrics cost per image, and how biased relMSE is against noisy references.

    python benchmarks/metrics.py [FOLDER_OF_WEIGHTS] [--publish]

Prints the two tables of docs/reference/metrics.md; ``--publish`` writes what they are made of,
docs/results/data/DATE-metrics.json. One thread; "CPU s" is the time of the
processor, which other load on the machine changes little.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from common import publish, table

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


def costs(weights: str | None) -> dict[str, float]:
    """Return the processor seconds of every metric that can run."""
    rng = np.random.default_rng(0)
    reference = radiance()
    image = noisy(reference, 0.2, rng)
    found = {}
    for name, metric in metrics.METRICS.items():
        if (obstacle := metric.obstacle(weights)) is not None:
            print(f"{name}: {obstacle}")
            continue
        if metric.label[:2] != "E-":
            metric(image, reference, weights=weights)  # imports, loads
        start = time.process_time()
        metric(image, reference, weights=weights)
        found[name] = time.process_time() - start
    return found


def bias() -> list[list[float]]:
    """Return rows of the true relMSE, the deviation of a half, and both biases."""
    rng = np.random.default_rng(0)
    truth = radiance().double()
    rows = []
    for error in (0.1, 0.5):
        image = noisy(truth, error, rng)
        true = float(metrics.relmse(image, truth))
        for deviation in (0.03, 0.1, 0.3):
            split, mean = [], []
            for _ in range(REPETITIONS):
                halves = Reference(noisy(truth, deviation, rng), noisy(truth, deviation, rng))
                split.append(float(metrics.relmse(image, halves)) / true - 1)
                mean.append(float(metrics.relmse(image, halves.mean)) / true - 1)
            rows.append([true, deviation, float(np.mean(split)), float(np.mean(mean))])
    return rows


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="?", help="folder of LPIPS's and E-LPIPS's weights")
    parser.add_argument("--publish", action="store_true", help="see above")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seconds, biases = costs(arguments.weights), bias()
    print(table(["metric", f"CPU s per {SIDE} x {SIDE} image"], [*seconds.items()]))
    print()
    head = ["true relMSE", "deviation of a half", "bias, halves", "bias, their mean"]
    print(table(head, biases))
    if arguments.publish:
        publish("metrics", {"settings": {"side": SIDE}, "seconds": seconds, "bias": biases})


if __name__ == "__main__":
    main()
