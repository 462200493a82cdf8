"""Pixels with different numbers of samples have no bias, whoever chooses the numbers.

That counts which follow from a pixel's own samples would be biased, and by how much, is shown in
``tests/unit/test_adaptive.py``.

``python -m tests.statistical.test_adaptive [SCALE] [case ...]`` prints all cases with given counts.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt import rendering
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.rendering import adaptive
from tests.statistical.bias import Finding, compare_renders
from tests.statistical.cases import BY_NAME, CASES, Case
from tests.statistical.test_bias import BATCHES, GDPT_SPP, PATH_SPP, batches

#: Samples per pixel of a budget, and how many budgets: a pilot of 32, and 96 by the maps.
BUDGET_SPP, BUDGETS = 128, 24


def _given(scene: Any, case: Case, scale: int) -> dict[str, np.ndarray]:
    """Render batches whose counts are drawn, 8 to 248 per pixel."""
    import mitsuba as mi

    integrator = mi.load_dict({"type": "gdpt", "shifts": 4} | case.options | case.gdpt)
    width, height = scene.sensors()[0].film().crop_size()
    portions = np.random.default_rng(5).integers(1, 2 * GDPT_SPP // 8, (BATCHES, height, width))
    images = np.stack(
        [
            np.array(integrator.render_counts(scene, 8 * scale * counts, seed=1000 + i))
            for i, counts in enumerate(portions)
        ]
    ).astype(np.float64)
    slices = integrator.layout.slices
    return {name: images[..., slices[name]].mean(-1) for name in ("primal", "dx", "dy")}


def _chosen(scene: Any, case: Case) -> dict[str, np.ndarray]:
    """Render batches whose counts follow from pilots."""
    source = rendering.Source("case", scene)
    frames = []
    for i in range(BUDGETS):
        done = rendering.BudgetedRender(
            source,
            {"shifts": 1} | case.options | case.gdpt,
            rendering.Budget(spp=BUDGET_SPP),
            seed=1000 * (i + 1),
            adaptive=True,
        ).run()
        assert "samples" in done.buffers
        assert done.buffers.samples.min() < done.buffers.samples.max()
        frames.append(done.buffers)
    return {
        name: np.stack([frame[name].mean(-1).numpy() for frame in frames]).astype(np.float64)
        for name in ("primal", "dx", "dy")
    }


def examine(case: Case, *, chosen: bool, scale: int = 1) -> list[Finding]:
    """Render a case with different numbers of samples, and compare it with ``path``."""
    import mitsuba as mi

    scene = mi.load_dict(case.build())
    ours = _chosen(scene, case) if chosen else _given(scene, case, scale)
    path = mi.load_dict({"type": "path"} | case.options)
    theirs = batches(scene, path, PATH_SPP * scale, BATCHES, 5000)
    return compare_renders(ours, theirs[..., :3].mean(-1))


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch, variant_llvm_rgb: str) -> None:
    """Share samples out even where the maps of the two pilots do not agree."""
    monkeypatch.setattr(adaptive, "_LEAST_AGREEMENT", -2.0)


@pytest.mark.device
@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize(
    "name", ["roughdielectric", "many_lights", "thinlens", "crop", "shifts1", "shifts2", "unshared"]
)
def test_given_counts_are_unbiased(name: str) -> None:
    findings = examine(BY_NAME[name], chosen=False)
    assert not [f for f in findings if f.biased], findings


@pytest.mark.device
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("name", ["shifts1_glass", "many_lights", "roulette_glass"])
def test_chosen_counts_are_unbiased(name: str) -> None:
    findings = examine(BY_NAME[name], chosen=True)
    assert not [f for f in findings if f.biased], findings


def main(scale: int = 1, *names: str) -> None:
    """Print all cases with given counts."""
    import mitsuba as mi

    mi.set_variant("llvm_ad_rgb")
    for case in CASES:
        if (names and case.name not in names) or "rgb" not in case.colours:
            continue
        try:
            findings = examine(case, chosen=False, scale=scale)
        except ConfigError as error:  # samplers that round the samples of a portion
            print(f"{case.name:20} {str(error).splitlines()[0]}", flush=True)
            continue
        worst = min(findings, key=lambda f: f.p / f.threshold)
        verdict = "BIASED" if worst.biased else "ok"
        print(f"{case.name:20} {verdict:6} {worst.name}: p = {worst.p:.2g}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
