"""benchmarks/columns.py: the score that the matrix of the stratified random numbers is found by."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mitsuba_gdpt.integrators.sampling import COLUMNS


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("columns")


def test_the_committed_matrix_has_the_score_that_is_said(script: ModuleType) -> None:
    assert (script.score(COLUMNS[: script.AT_ONCE]), script.score(COLUMNS)) == script.SCORES
    random = np.random.default_rng(0).integers(2**script.PLACE, size=(20, script.COUNT)).tolist()
    assert min(script.score(columns) for columns in random) > 2 * script.SCORES[1]


def test_the_committed_matrix_is_what_the_search_goes_on_with(script: ModuleType) -> None:
    assert tuple(script.extended(COLUMNS[: script.AT_ONCE])) == COLUMNS


def points(columns: tuple[int, ...], level: int) -> np.ndarray:
    """Points of the pixels of a block, as the sampler has them without scrambling: (n, 2)."""
    samples, places = np.arange(2 ** len(columns))[:, None], np.arange(4**level)
    stratum = np.broadcast_to(places, (len(samples), len(places))).copy()
    for digit, column in enumerate(columns):
        stratum ^= (samples >> digit & 1) * column
    index = (samples * 64 + stratum).ravel()
    digits = index[:, None] >> np.arange(20) & 1
    pascal = np.array([[row & digit == row for digit in range(20)] for row in range(20)], int)
    weights = 0.5 ** np.arange(1, 21)
    return np.stack([digits @ weights, (digits @ pascal.T % 2) @ weights], axis=-1)


def counted_defect(points: np.ndarray) -> int:
    """The least t for which all elementary intervals hold 2^t points, by counting them."""
    bits = int(np.log2(len(points)))
    for t in range(bits + 1):
        grids = [(2**k, 2 ** (bits - t - k)) for k in range(bits - t + 1)]
        cells = ((points * grid).astype(int) @ (grid[1], 1) for grid in np.array(grids))
        if all((np.bincount(c, minlength=2 ** (bits - t)) == 2**t).all() for c in cells):
            return t
    raise AssertionError("the whole square holds all points")


@pytest.mark.parametrize("level", [0, 1, 2])
def test_defects_are_those_of_the_points(script: ModuleType, level: int) -> None:
    random = np.random.default_rng(level)
    seen = set()
    for count in (0, 1, 3, 5, 6):
        for _ in range(6):
            columns = tuple(random.integers(64, size=count).tolist())
            seen.add(script.defect(level, columns))
            assert script.defect(level, columns) == counted_defect(points(columns, level)), columns
    assert len(seen) > 3


def test_the_search_draws_what_c_draws_and_finds_better_matrices(script: ModuleType) -> None:
    rand = script.Rand(1)
    assert [rand() for _ in range(3)] == [1804289383, 846930886, 1681692777]
    assert script.score(script.search(5)) == 286
