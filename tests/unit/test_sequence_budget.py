"""How samples are shared out between the frames of a sequence."""

from __future__ import annotations

import numpy as np
import pytest

from mitsuba_gdpt.rendering.sequence import _Pilot, allocate

FRAMES, HAVE = 6, 4


def pilots(seen: int, errors: list[float] | None = None) -> list[_Pilot]:
    """Frames of four pixels, each of which sees so many frames before."""
    errors = errors or [1.0] * FRAMES
    return [
        _Pilot(np.full(4, error), np.ones((4, min(number, seen) + 1)))
        for number, error in enumerate(errors)
    ]


def total_error(pilot: list[_Pilot], counts: np.ndarray, exponent: float) -> float:
    found = 0.0
    for number, frame in enumerate(pilot):
        seen = [number - k for k in range(frame.trust.shape[1])]
        ratio = (frame.trust @ counts[seen]) / frame.trust.sum(-1)
        found += float((frame.errors * ratio**-exponent).mean())
    return found


def share(pilot: list[_Pilot], costs: np.ndarray | None = None, total: float = 120) -> np.ndarray:
    costs = np.ones(FRAMES) if costs is None else costs
    return allocate(pilot, np.full(FRAMES, HAVE), costs, total, 0.6)


def test_equal_frames_without_memory_get_the_same() -> None:
    assert (share(pilots(0)) == HAVE + 20).all()
    assert (share([]) == HAVE + 20).all()


def test_a_noisy_frame_gets_more() -> None:
    counts = share(pilots(0, [1, 1, 4, 1, 1, 1]))
    # Without bounds: by the power 1 / (1 + exponent) of the errors.
    assert counts[2] / counts[0] == pytest.approx(4 ** (1 / 1.6), rel=0.05)


def test_samples_go_where_later_frames_see_them() -> None:
    pilot = pilots(5)
    counts = share(pilot)
    assert counts[0] > counts[-1]
    equal = np.full(FRAMES, HAVE + 20)
    assert total_error(pilot, counts, 0.6) < 0.97 * total_error(pilot, equal, 0.6)


def test_a_frame_that_shows_what_is_new_gets_more() -> None:
    pilot = pilots(2)
    pilot[3] = _Pilot(pilot[3].errors, np.array([[1.0, 0.05, 0.0]] * 4))  # a corner is passed
    counts = share(pilot)
    assert counts[3] > 1.3 * counts[2]


@pytest.mark.parametrize("seen", [0, 3])
@pytest.mark.parametrize("total", [0.0, 3.0, 120.0, 5000.0])
def test_what_there_is_is_spent_and_no_more(seen: int, total: float) -> None:
    costs = np.array([1.0, 2.0, 1.0, 1.0, 3.0, 1.0])
    counts = share(pilots(seen, [1, 9, 1, 0, 1, 1]), costs, total)
    assert (counts >= HAVE).all()
    spent = float(((counts - HAVE) * costs).sum())
    assert total - costs.sum() - 1e-6 <= spent <= total + 1e-6
    assert counts.max() <= max(HAVE, 3.01 * (total / costs.sum() + HAVE))


def test_black_frames() -> None:
    assert share(pilots(3, [0.0] * FRAMES)).min() >= HAVE
