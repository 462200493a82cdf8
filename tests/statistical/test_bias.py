"""The integrator has no bias: primal against ``path``, gradients against its differences.

``python -m tests.statistical.test_bias [SCALE] [case ...] [llvm|cuda]`` prints the table with all
p-values.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

import mitsuba_gdpt  # noqa: F401  (registers the integrator)
from tests.statistical.bias import Finding, compare_renders
from tests.statistical.cases import CASES, Case

BATCHES, GDPT_SPP, PATH_SPP = 16, 128, 512


def batches(scene: Any, integrator: Any, spp: int, count: int, first_seed: int) -> np.ndarray:
    """Render independent batches; returns (count, H, W, C) float64."""
    import mitsuba as mi

    images = [
        np.array(mi.render(scene, integrator=integrator, spp=spp, seed=first_seed + i))
        for i in range(count)
    ]
    return np.stack(images).astype(np.float64)


def examine(case: Case, scale: int = 1) -> list[Finding]:
    """Render a case with both integrators under the active variant and compare.

    Args:
        case: What to render.
        scale: Multiplies the samples of both; biases that are s times smaller show at s^2.
    """
    import mitsuba as mi

    scene = mi.load_dict(case.build())
    options = case.options | case.gdpt
    gdpt = mi.load_dict({"type": "gdpt", "shifts": 4} | options)
    path = mi.load_dict({"type": "path"} | case.options)
    ours = batches(scene, gdpt, GDPT_SPP * scale, BATCHES, 1000)
    theirs = batches(scene, path, PATH_SPP * scale, BATCHES, 5000)
    assert gdpt.nonfinite_samples == 0
    slices = gdpt.layout.slices
    named = {name: ours[..., slices[name]].mean(-1) for name in ("primal", "dx", "dy")}
    return compare_renders(named, theirs[..., :3].mean(-1))


def table(backend: str) -> list[tuple[str, Case]]:
    """Return all variants and cases of ``llvm`` or ``cuda``.

    Sorted by variant: every switch reloads Mitsuba's Python side.
    """
    return [
        (f"{backend}_ad_{colours}", case)
        for colours in ("rgb", "mono", "spectral")
        for case in CASES
        if colours in case.colours
    ]


@pytest.mark.parametrize(
    ("variant", "case"),
    [
        pytest.param(variant, case, id=f"{case.name}-{variant}", marks=marks)
        for backend, marks in (("llvm", pytest.mark.device), ("cuda", pytest.mark.cuda))
        for variant, case in table(backend)
    ],
)
def test_unbiased(variant: str, case: Case) -> None:
    import mitsuba as mi

    mi.set_variant(variant)
    findings = examine(case)
    assert not [f for f in findings if f.biased], findings


if __name__ == "__main__":
    import time

    import mitsuba as mi

    scale = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 1
    backend = "cuda" if "cuda" in sys.argv[1:] else "llvm"
    wanted = [word for word in sys.argv[1:] if not word.isdigit() and word not in ("llvm", "cuda")]
    for variant, case in table(backend):
        if wanted and case.name not in wanted:
            continue
        mi.set_variant(variant)
        start = time.time()
        try:
            findings = examine(case, scale)
        except Exception as error:
            print(f"{case.name:18s} {variant:16s} ERROR {error}", flush=True)
            continue
        worst = "BIASED" if any(f.biased for f in findings) else "ok"
        ps = " ".join(f"{f.p:.1e}" for f in findings)
        print(
            f"{case.name:18s} {variant:16s} {worst:6s} {time.time() - start:5.1f}s {ps}",
            flush=True,
        )
