"""Schedules of offset paths: what each sample looks at, and what follows for the differences."""

from __future__ import annotations

import numpy as np
import pytest

#: One-sided gradients by side, the same in all pixels.
GRADIENTS = {"right": 3.0, "left": -5.0, "down": 7.0, "up": -11.0}
WIDTH, HEIGHT = 3, 4


def one_sided(shifts: int, spp: int, seed: int, variances: bool = False) -> dict[str, np.ndarray]:
    """What a schedule makes of samples without noise: (H, W) by side."""
    import drjit as dr
    import mitsuba as mi

    from mitsuba_gdpt.integrators.shifts import SIDES, ShiftSchedule

    schedule = ShiftSchedule.of(shifts, spp)
    lane = dr.arange(mi.UInt32, WIDTH * HEIGHT * spp)
    pixel, sample = lane // spp, lane % spp
    x, y = mi.Int32(pixel % WIDTH), mi.Int32(pixel // WIDTH)
    moves = schedule.moves(x, y, sample, dr.opaque(mi.UInt32, seed))
    gradients = []
    for dx, dy in moves:
        value, found = mi.Float(0), mi.UInt32(0)
        for side, (axis, sign) in SIDES.items():
            here = ((dx, dy)[axis] == sign) & ((dx, dy)[1 - axis] == 0)
            value = dr.select(here, GRADIENTS[side], value)
            found += dr.select(here, mi.UInt32(1), 0)
        assert np.all(np.array(found) == 1), "to exactly one side"
        gradients.append([value + dr.zeros(mi.Float, dr.width(lane))])
    means = schedule.estimates(gradients, moves, sample, variances)
    return {
        side: np.array(mean.variance if variances else mean.mean[0]).reshape(HEIGHT, WIDTH)
        for side, mean in means.items()
    }


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("spp", [1, 2, 3, 4, 5, 6, 9])
@pytest.mark.parametrize("shifts", [1, 2, 4])
def test_differences_have_their_expectation(shifts: int, spp: int) -> None:
    differences: dict[str, list[np.ndarray]] = {"dx": [], "dy": []}
    for seed in range(32):
        of = one_sided(shifts, spp, seed)
        differences["dx"].append(of["right"][:, :-1] - of["left"][:, 1:])
        differences["dy"].append(of["down"][:-1] - of["up"][1:])
    few = {(1, 1): ("dx", "dy"), (1, 2): ("dx", "dy"), (1, 3): ("dy",), (2, 1): ("dx", "dy")}
    for name, (ahead, behind) in {"dx": ("right", "left"), "dy": ("down", "up")}.items():
        a, b = GRADIENTS[ahead], GRADIENTS[behind]
        values = np.array(differences[name])
        if name not in few.get((shifts, spp), ()):
            assert np.allclose(values, a - b, rtol=1e-6)
            continue
        # From one of the two pixels alone: twice its term, or twice that of the other.
        assert set(np.unique(values)) == {2 * a, -2 * b}
        # The bit of a line is that of all its pixels: the other term is never counted too.
        lines = values if name == "dx" else values.transpose(0, 2, 1)
        assert (lines == lines[..., :1]).all()
        assert 0.35 < (values == 2 * a).mean() < 0.65


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_samples_without_noise_have_no_variance_but_lonely_ones() -> None:
    for shifts, spp in ((1, 8), (2, 4), (4, 2)):
        for variance in one_sided(shifts, spp, 0, variances=True).values():
            assert np.allclose(variance, 0, atol=1e-9)
    # One sample of a side: its square stands in.
    for side, variance in one_sided(1, 4, 0, variances=True).items():
        assert np.allclose(variance, GRADIENTS[side] ** 2)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_no_shifts_estimate_nothing() -> None:
    assert one_sided(0, 4, 0) == {}
