"""Where samples go: shares, portions, maps, and when they go everywhere alike."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.integrators.pixels import PORTION
from mitsuba_gdpt.rendering import adaptive
from mitsuba_gdpt.rendering.passes import Accumulation, Pass

SIZE = (64, 96)
#: Shows the noise as it is: what of it a reconstruction leaves is not the matter here.
PLAIN = Call.parse("none")


def noisy(noise: np.ndarray, seed: int, scale: float = 1.0) -> FrameBuffers:
    """A grey frame with noise of a given deviation by pixel."""
    layout = Layout.make()
    generator = np.random.default_rng(seed)
    data = np.zeros((*SIZE, layout.count), np.float32)
    values = scale * (1 + noise[..., None] * generator.standard_normal((*SIZE, 3)))
    data[..., layout.slices["primal"]] = values
    return FrameBuffers(torch.from_numpy(data), layout)


def piloted(
    noise: np.ndarray, bounces: np.ndarray | None = None, scale: float = 1.0
) -> adaptive.Streams:
    streams = adaptive.Streams()
    bounces = np.ones(SIZE, np.float32) if bounces is None else bounces
    for seed in range(adaptive.PARTS):
        streams.add_pilot(noisy(noise, seed, scale), Pass(seed, 8, 1), bounces)
    return streams


@pytest.fixture
def half() -> np.ndarray:
    """Deviation of 0.4 in the left half, of 0.05 in the right one."""
    noise = np.full(SIZE, 0.05)
    noise[:, : SIZE[1] // 2] = 0.4
    return noise


@pytest.mark.parametrize(("spp", "part"), [(16, 4), (128, 8), (300, 16), (100_000, 32)])
def test_pilot_is_a_quarter(spp: int, part: int) -> None:
    assert adaptive.pilot_spp(spp) == part


def test_parts_are_filled_in_turn() -> None:
    streams = adaptive.Streams()
    for number in range(8):
        streams.add_pilot(noisy(np.ones(SIZE), number), Pass(number, 2, 1), np.ones(SIZE))
        assert streams.least_spp == 2 * ((number + 1) // adaptive.PARTS)


def test_samples_go_where_noise_is(half: np.ndarray) -> None:
    streams = piloted(half)
    assert streams.plan(PLAIN, 96) == pytest.approx(1)
    total = np.zeros(SIZE)
    for _ in range(3):
        counts = streams.next_counts(16)
        streams.skip(16)
        streams.skip(16)  # the other stream's turn
        assert not (counts % PORTION).any()
        assert counts.mean() == pytest.approx(16, rel=0.03)
        total += counts
    # Of the root of the error the power 2/3: (0.4 / 0.05) ** (2 / 3) = 4, with the pilot's 16.
    left, _, _, right = (16 + part.mean() for part in np.split(total, 4, axis=1))
    assert left / right == pytest.approx(4, rel=0.2)
    # In all they are what was planned, to a portion.
    assert total.mean() == pytest.approx(48, abs=0.5)


def test_dear_pixels_get_less(half: np.ndarray) -> None:
    bounces = np.ones(SIZE, np.float32)
    bounces[: SIZE[0] // 2] = 8
    streams = piloted(np.full(SIZE, 0.3) * (1 + half), bounces)
    price = streams.plan(PLAIN, 96)
    assert price is not None
    assert price < 1
    counts = streams.next_counts(48)
    top, _, _, bottom = (16 + part.mean() for part in np.split(counts, 4))
    assert bottom / top == pytest.approx(8 ** (2 / 3), rel=0.25)
    costs = (bounces + adaptive._LEAST_COST) / (bounces + adaptive._LEAST_COST).mean()
    assert price == pytest.approx((counts * costs).mean() / counts.mean(), rel=0.05)


def test_even_where_the_maps_do_not_agree() -> None:
    assert piloted(np.full(SIZE, 0.3)).plan(PLAIN, 96) is None
    assert piloted(np.zeros(SIZE)).plan(PLAIN, 96) is None


@pytest.mark.filterwarnings("error")
def test_even_in_a_single_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.unit.test_adaptive.SIZE", (1, 1))
    assert piloted(np.full((1, 1), 0.3), np.ones((1, 1), np.float32)).plan(PLAIN, 96) is None


def test_counts_come_from_the_other_stream(half: np.ndarray) -> None:
    """Noise in one stream's pilot changes the other's counts only."""
    streams, changed = piloted(half), adaptive.Streams()
    more = half + 0.5 * np.linspace(0, 1, SIZE[0])[:, None]
    for seed in range(adaptive.PARTS):
        noise = more if seed in (0, 2) else half  # parts 0 and 2, in turn, are the first stream's
        changed.add_pilot(noisy(noise, seed), Pass(seed, 8, 1), np.ones(SIZE))
    assert [part.passes[0].seed for part in changed._parts] == [0, 2, 1, 3]
    for each in (streams, changed):
        assert each.plan(PLAIN, 96) is not None
    assert (streams.next_counts(48) == changed.next_counts(48)).all()
    for each in (streams, changed):
        each.skip(48)
    assert (streams.next_counts(48) != changed.next_counts(48)).any()


@pytest.mark.parametrize("scale", [1e-5, 1e5])
def test_unit_of_radiance_does_not_matter(half: np.ndarray, scale: float) -> None:
    counts = []
    for unit in (1.0, scale):
        streams = piloted(half, scale=unit)
        assert streams.plan(PLAIN, 96) is not None
        counts.append(streams.next_counts(48))
    assert (counts[0] != counts[1]).mean() < 1e-3


def spikes(spp: np.ndarray, generator: np.random.Generator) -> FrameBuffers:
    """A frame of which most samples are 0 and few are 50: 1 in the mean."""
    layout = Layout.make()
    data = np.zeros((*SIZE, layout.count), np.float32)
    hits = generator.binomial(spp.astype(int), 1 / 50)
    data[..., layout.slices["primal"]] = (50 * hits / np.maximum(spp, 1))[..., None]
    return FrameBuffers(torch.from_numpy(data), layout)


@pytest.fixture
def by_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of single pixels: smoothing would hide most of a bias."""
    monkeypatch.setattr(adaptive, "_LEAST_AGREEMENT", -2.0)
    monkeypatch.setattr(adaptive, "_WINDOW", 1)
    monkeypatch.setattr(adaptive, "_REDUCTION", 1)
    monkeypatch.setattr(adaptive, "_QUANTILE", 1.0)


def render_of_spikes(generator: np.random.Generator) -> Accumulation:
    streams = adaptive.Streams()
    for number in range(adaptive.PARTS):
        frame = spikes(np.full(SIZE, 8), generator)
        streams.add_pilot(frame, Pass(number, 8, 0), np.ones(SIZE))
    assert streams.plan(PLAIN, 64) is not None
    for number in (0, 1):
        counts = streams.next_counts(32)
        frame = spikes(counts, generator)
        streams.add(frame, Pass(adaptive.PARTS + number, 32, 0), counts, 32)
    return streams.mean()


def deviation(renders: Iterable[Accumulation]) -> float:
    """Return by how many standard errors the means differ from 1."""
    means = [float(done.frame.primal.mean(dtype=torch.float64)) for done in renders]
    return float((np.mean(means) - 1) / (np.std(means, ddof=1) / len(means) ** 0.5))


@pytest.mark.usefixtures("by_pixel")
@pytest.mark.parametrize("own", [False, True])
def test_unbiased_unless_pixels_decide_for_themselves(
    own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if own:
        monkeypatch.setattr(adaptive, "reversed", lambda maps: iter(maps), raising=False)
    generator = np.random.default_rng(11)
    z = deviation(render_of_spikes(generator) for _ in range(12))
    assert (z < -6) if own else (abs(z) < 4)


@pytest.mark.usefixtures("by_pixel")
@pytest.mark.parametrize("by_counts", [False, True])
def test_resumed_renders_are_unbiased_unless_their_counts_weigh(by_counts: bool) -> None:
    """What a pixel has seen decides on its counts, so these must not decide on its weights."""

    def resumed(before: Accumulation, after: Accumulation) -> Accumulation:
        if not by_counts:
            return Accumulation.together(before, after)
        done = Pass(99, after.spp, 0)
        before.add(after.frame, done, after.samples)
        return before

    generator = np.random.default_rng(12)
    pairs = ((render_of_spikes(generator), render_of_spikes(generator)) for _ in range(12))
    z = deviation(resumed(*pair) for pair in pairs)
    assert (abs(z) > 6) if by_counts else (abs(z) < 4)
