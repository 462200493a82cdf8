"""Several passes are one set of samples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import GRADIENTS, Layout
from mitsuba_gdpt.errors import ConfigError, FormatError
from mitsuba_gdpt.rendering.passes import Accumulation, Pass, seed_of

LAYOUT = Layout.make(variances=True)


def frame_of(samples: torch.Tensor) -> FrameBuffers:
    """Return means and variances of the mean of (N, H, W, C) samples."""
    data = torch.zeros(*samples.shape[1:3], LAYOUT.count)
    for buffer in LAYOUT.buffers:
        part = LAYOUT.slices[buffer.name]
        if buffer.variance_of is None:
            data[..., part] = samples[..., part].mean(0)
        else:
            seen = samples[..., LAYOUT.slices[buffer.variance_of]]
            data[..., part] = seen.var(0).mean(-1, keepdim=True) / len(samples)
    return FrameBuffers(data, LAYOUT)


@pytest.fixture
def samples() -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(14, 3, 4, LAYOUT.count, generator=generator) * 5


def test_means_and_variances_are_those_of_all_samples(samples: torch.Tensor) -> None:
    accumulation, start = Accumulation(), 0
    for number, count in enumerate((2, 4, 8)):
        part = samples[start : start + count]
        accumulation.add(frame_of(part), Pass(number, count, 1))
        start += count
    assert accumulation.spp == accumulation.gradient_spp == 14
    torch.testing.assert_close(accumulation.frame.data, frame_of(samples).data)


def test_passes_without_offset_paths_say_nothing_about_gradients(samples: torch.Tensor) -> None:
    gradients = [name for name in GRADIENTS if name in LAYOUT]
    flat = frame_of(samples[:6])
    flat.data[..., LAYOUT.indices(gradients)] = 0  # as ``shifts=0`` leaves them
    accumulation = Accumulation()
    accumulation.add(flat, Pass(0, 6, 0))
    accumulation.add(frame_of(samples[6:10]), Pass(1, 4, 1))
    accumulation.add(frame_of(samples[10:]), Pass(2, 4, 2))
    assert (accumulation.spp, accumulation.gradient_spp) == (14, 8)
    found, whole = accumulation.frame, frame_of(samples)
    for name in LAYOUT.names:
        expected = frame_of(samples[6:]) if name in gradients else whole
        torch.testing.assert_close(found[name], expected[name])


def test_later_passes_without_offset_paths_leave_gradients(samples: torch.Tensor) -> None:
    accumulation = Accumulation()
    accumulation.add(frame_of(samples[:4]), Pass(0, 4, 1))
    before = accumulation.frame.data.clone()
    accumulation.add(frame_of(samples[4:8]), Pass(1, 4, 0))
    for name in ("dx", "dy", "dx.var", "dy.var"):
        assert torch.equal(accumulation.frame[name], before[..., LAYOUT.slices[name]])


def test_from_a_file_it_goes_on_with_the_same_bits(samples: torch.Tensor, tmp_path: Path) -> None:
    parts = [frame_of(samples[:4]), frame_of(samples[4:9]), frame_of(samples[9:])]
    passes = [Pass(seed_of(7, i), n, 1) for i, n in enumerate((4, 5, 5))]
    whole = Accumulation()
    for part, done in zip(parts, passes, strict=True):
        whole.add(part, done)
    first = Accumulation()
    for part, done in zip(parts[:2], passes, strict=False):
        first.add(part, done)
    first.frame.to_exr(tmp_path / "a.exr")
    second = Accumulation.from_exr(tmp_path / "a.exr")
    assert second.passes == passes[:2]
    second.add(parts[2], passes[2])
    assert torch.equal(second.frame.data, whole.frame.data)
    assert second.frame.metadata["spp"] == "14"


@pytest.mark.parametrize("text", ["", "1:2", "1:0:1", "1:2:3", "x:2:1", "-1:2:1", "1:2:1:1"])
def test_files_that_do_not_say(samples: torch.Tensor, tmp_path: Path, text: str) -> None:
    frame_of(samples).to_exr(tmp_path / "a.exr", metadata={"passes": text})
    with pytest.raises(FormatError, match=r"a\.exr: the header does not say which passes"):
        Accumulation.from_exr(tmp_path / "a.exr")


def test_other_renders_are_not_mixed(samples: torch.Tensor) -> None:
    accumulation = Accumulation()
    frame = frame_of(samples)
    frame.metadata.update(scene="a.xml", integrator="gdpt[ shifts = 0, max_depth = 3 ]")
    accumulation.add(frame, Pass(0, 14, 0))
    accumulation.check(4, 3, {"scene": "a.xml", "integrator": "gdpt[ shifts = 1, max_depth = 3 ]"})
    for size, given in (
        ((4, 4), {}),
        ((4, 3), {"scene": "b.xml"}),
        ((4, 3), {"integrator": "gdpt[ shifts = 0, max_depth = 4 ]"}),
    ):
        with pytest.raises(ConfigError, match="what was rendered before has"):
            accumulation.check(*size, given)
    with pytest.raises(
        ConfigError, match="integrator 'max_depth = 3', this render has 'max_depth = 4'"
    ):
        accumulation.check(4, 3, {"integrator": "gdpt[ shifts = 0, max_depth = 4 ]"})
    with pytest.raises(ConfigError, match="cannot be added"):
        accumulation.add(frame_of(samples[:, :2]), Pass(1, 14, 0))


def test_neighbouring_seeds_share_no_pass() -> None:
    seeds = {seed_of(seed, number) for seed in range(20) for number in range(50)}
    assert len(seeds) == 1000
    assert seed_of(5, 0) == 5


def test_counts_may_differ_from_pixel_to_pixel(samples: torch.Tensor) -> None:
    """Means and variances of each pixel are those of its own samples."""
    first, second = samples[:4], samples[4:]
    counts = torch.full((3, 4, 1), 4.0)
    counts[:, 2:] = 10
    accumulation = Accumulation()
    accumulation.add(frame_of(first), Pass(0, 4, 4))
    few, many = frame_of(second[:4]), frame_of(second)
    mixed = torch.where(counts == 4, few.data, many.data)
    accumulation.add(FrameBuffers(mixed, LAYOUT), Pass(1, 7, 4), counts)
    expected = torch.where(counts == 4, frame_of(samples[:8]).data, frame_of(samples).data)
    inside = torch.tensor([0, 2, 3])  # of both neighbours as many: all but where counts change
    got = accumulation.frame.data[:, inside]
    torch.testing.assert_close(got, expected[:, inside], rtol=1e-4, atol=1e-4)
    assert accumulation.samples[..., 0].tolist() == (4 + counts[..., 0]).tolist()


def test_differences_between_counts_have_their_harmonic_mean() -> None:
    generator = torch.Generator().manual_seed(5)
    counts = torch.tensor([[[8.0], [24.0]]])
    draws = []
    for _ in range(4000):
        accumulation = Accumulation()
        # dx of n and m samples a side has the variance 1 / n + 1 / m; of the other pass 2 / 8.
        for number, (deviation, given) in enumerate(
            [((2 / 8) ** 0.5, None), ((1 / 8 + 1 / 24) ** 0.5, counts)]
        ):
            data = torch.zeros(1, 2, LAYOUT.count)
            data[..., LAYOUT.slices["dx"]] = 3 + deviation * torch.randn(
                1, 2, 3, generator=generator
            )
            data[..., LAYOUT.slices["dx.var"]] = deviation**2
            accumulation.add(FrameBuffers(data, LAYOUT), Pass(number, 8, 4), given)
        draws.append(accumulation.frame.data[0, 0])
    found = torch.stack(draws)
    dx = found[..., LAYOUT.slices["dx"]]
    assert dx.mean() == pytest.approx(3, abs=0.02)
    true = 1 / (8 / 2 + 1 / (1 / 8 + 1 / 24))  # of independent estimates, weighted best
    assert dx.var() == pytest.approx(true, rel=0.05)
    assert found[..., LAYOUT.slices["dx.var"]].mean() == pytest.approx(true, rel=0.05)


def test_mean_of_streams_has_equal_weights(samples: torch.Tensor) -> None:
    streams = [Accumulation(), Accumulation()]
    streams[0].add(frame_of(samples[:4]), Pass(0, 4, 4))
    streams[1].add(frame_of(samples[4:]), Pass(1, 10, 4))
    both = Accumulation.mean(*streams)
    a, b = (stream.frame for stream in streams)
    for name in ("primal", "dx", "depth"):
        assert torch.equal(both.frame[name], (a[name] + b[name]) / 2)
    torch.testing.assert_close(both.frame.primal_var, (a.primal_var + b.primal_var) / 4)
    assert both.spp == 14
    assert set(both.samples.flatten().tolist()) == {14.0}
