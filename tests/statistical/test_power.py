"""The bias tests can fail: broken estimators are found, and ``path`` against itself passes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.statistical.bias import compare_renders, finite_difference
from tests.statistical.cases import BY_NAME
from tests.statistical.test_bias import BATCHES, PATH_SPP, batches, examine


def _no_jacobian(monkeypatch: pytest.MonkeyPatch) -> None:
    import mitsuba as mi

    from mitsuba_gdpt.integrators import offset_path

    monkeypatch.setattr(offset_path, "jacobian", lambda *_: mi.Float(1))


def _equal_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Force r = 1 for every offset path, dead or alive: all terms are weighted 1/2.

    (Between living pairs alone any symmetric weights would be unbiased, only noisy.)
    """
    import mitsuba as mi

    from mitsuba_gdpt.integrators import offset_path

    finish, start = offset_path._finish, offset_path.start

    def forced(*args: Any) -> Any:
        offset, D = finish(*args)
        return dataclasses.replace(offset, r=mi.Float(1)), D

    def begun(*args: Any) -> Any:
        offset, D = start(*args)
        return dataclasses.replace(offset, r=mi.Float(1)), D

    monkeypatch.setattr(offset_path, "_finish", forced)
    monkeypatch.setattr(offset_path, "start", begun)


def _not_invertible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an offset replay a segment that it would connect if it were the base path."""
    import mitsuba as mi

    from mitsuba_gdpt.integrators import offset_path

    monkeypatch.setattr(offset_path, "is_connectable", lambda *_: mi.Bool(False))


def _peaks_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnect a segment that an offset would replay if it were the base path."""
    import mitsuba as mi

    from mitsuba_gdpt.integrators import offset_path

    monkeypatch.setattr(offset_path, "is_spread", lambda _: mi.Bool(True))


def _escaped_dies_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give an offset path whose camera ray escaped half of its next term."""
    import drjit as dr

    from mitsuba_gdpt.integrators import offset_path

    start = offset_path.start

    def late(*args: Any) -> Any:
        offset, D = start(*args)
        return dataclasses.replace(offset, r=dr.select(offset.r == 0, 1, offset.r)), D

    monkeypatch.setattr(offset_path, "start", late)


def _no_roulette_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an offset path survive for sure, had it been the base path."""
    import mitsuba as mi

    from mitsuba_gdpt.integrators import offset_path

    finish = offset_path._finish

    def surviving(ctx: Any, step: Any, D: Any, b: Any) -> Any:
        return finish(ctx, step, D, dataclasses.replace(b, depth=mi.UInt32(0)))

    monkeypatch.setattr(offset_path, "_finish", surviving)


def _choice_twice_as_probable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the emitter of the base for twice as probable at the offset vertex."""
    from mitsuba_gdpt.integrators.emitters import LightSampling

    ratio = LightSampling.ratio
    monkeypatch.setattr(LightSampling, "ratio", lambda *args: 2 * ratio(*args))


def _wrong_emitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look the probability of another emitter up where sampling the BSDF finds one."""
    import mitsuba as mi

    from mitsuba_gdpt.integrators.emitter_table import EmitterTable

    monkeypatch.setattr(EmitterTable, "index", lambda *_: mi.UInt32(0))


@pytest.mark.parametrize(
    ("defect", "case"),
    [
        (_no_jacobian, "diffuse"),
        (_equal_weights, "diffuse"),
        (_not_invertible, "mirror_strip"),
        (_peaks_connected, "anisotropic"),
        (_escaped_dies_late, "point"),
        (_no_roulette_of_its_own, "roulette_dark"),
        (_choice_twice_as_probable, "grouped_lights"),
    ],
)
def test_defect_is_found(
    defect: Callable[[pytest.MonkeyPatch], None], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mitsuba as mi

    mi.set_variant("llvm_ad_rgb")
    defect(monkeypatch)
    findings = examine(BY_NAME[case])
    assert any(f.biased for f in findings if not f.name.startswith("primal")), findings


def test_defect_of_the_primal_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import mitsuba as mi

    mi.set_variant("llvm_ad_rgb")
    _wrong_emitter(monkeypatch)
    findings = examine(BY_NAME["mixed_lights"])
    assert any(f.biased for f in findings if f.name.startswith("primal")), findings


@pytest.mark.parametrize("case", ["diffuse", "roughdielectric", "envmap", "many_lights"])
def test_path_against_itself_passes(case: str) -> None:
    import mitsuba as mi

    mi.set_variant("llvm_ad_rgb")
    scene = mi.load_dict(BY_NAME[case].build())
    path = mi.load_dict({"type": "path"} | BY_NAME[case].options)
    a = batches(scene, path, PATH_SPP, BATCHES, 100)[..., :3].mean(-1)
    b = batches(scene, path, PATH_SPP, BATCHES, 900)[..., :3].mean(-1)
    named = {"primal": a, "dx": finite_difference(a, "x"), "dy": finite_difference(a, "y")}
    assert not [f for f in compare_renders(named, b) if f.biased]


def test_size_by_simulation() -> None:
    """With no bias at all, the false alarms of all tests stay near the nominal rate."""
    rng = np.random.default_rng(7)
    alarms, trials = 0, 200
    truth = rng.random((12, 12))
    for _ in range(trials):
        # Log-normal noise: skewed, as rendering noise is.
        a, b = ((truth * rng.lognormal(-0.02, 0.2, (16, 64, 12, 12))).mean(1) for _ in range(2))
        named = {"primal": a, "dx": finite_difference(a, "x"), "dy": finite_difference(a, "y")}
        alarms += sum(f.biased for f in compare_renders(named, b, alpha=0.01))
    tests = 9 * trials
    assert alarms <= 0.01 * tests + 4 * np.sqrt(0.01 * tests), f"{alarms} false alarms in {tests}"
