"""``temporal``: samples of several frames, gathered along the motion."""

from __future__ import annotations

import pytest
import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout, buffer
from mitsuba_gdpt.denoisers import denoise, find, stream
from mitsuba_gdpt.denoisers.classical.temporal import History, accumulate
from mitsuba_gdpt.errors import ConfigError, LayoutError

PLAIN = Layout.make(variances=True)
MOVING = Layout((*PLAIN.buffers, buffer("motion")))
HEIGHT, WIDTH = 12, 16


def plane(
    seed: int,
    offset: tuple[int, int] = (0, 0),
    motion: tuple[float, float] = (0, 0),
    size: int = 40,
) -> FrameBuffers:
    """A noisy view of a fixed picture: pixel (x, y) shows its pixel (x, y) + offset."""
    generator = torch.Generator().manual_seed(99)
    picture = torch.rand(size, size, 3, generator=generator)
    x, y = offset[0] + 10, offset[1] + 10
    truth = picture[y : y + HEIGHT + 1, x : x + WIDTH + 1]
    noise = torch.Generator().manual_seed(seed)
    frame = FrameBuffers(torch.zeros(HEIGHT, WIDTH, MOVING.count), MOVING)
    shown = truth[:HEIGHT, :WIDTH]
    # Of neighbours, one is brighter and one is darker: means over windows hardly change.
    checks = (torch.arange(HEIGHT)[:, None] + torch.arange(WIDTH)) % 2 - 0.5
    frame["primal"][:] = shown * (1 + torch.rand((), generator=noise) * checks[..., None])
    frame["dx"][:, :-1] = (truth[:HEIGHT, 1:] - shown)[:, :-1]
    frame["dy"][:-1] = (truth[1:, :WIDTH] - shown)[:-1]
    frame["albedo"][:] = 0.1 * shown
    frame["normal"][..., 2] = 1
    frame["depth"][:] = 5.0
    frame["primal.var"][:] = 1.0
    frame["motion"][:] = torch.tensor(motion)
    return frame


def gather(shots: list[FrameBuffers], **options: int) -> tuple[FrameBuffers, History]:
    history = None
    for frame in shots:
        mean, history, _ = accumulate(frame, history, **options)
    assert history is not None
    return mean, history


def test_at_rest_it_is_the_mean_of_the_last_frames() -> None:
    frames = [plane(seed) for seed in range(6)]
    before = [frame.data.clone() for frame in frames]
    for count in (1, 4, 8):
        mean, history = gather(frames, frames=count)
        expected = torch.stack([frame["primal"] for frame in frames[-count:]]).mean(0)
        torch.testing.assert_close(mean["primal"], expected)
        used = min(count, 6)
        torch.testing.assert_close(mean["primal.var"], torch.full((HEIGHT, WIDTH, 1), 1 / used))
        torch.testing.assert_close(mean["dx"], frames[0]["dx"])
        assert len(history.frames) == min(count - 1, 6)
        assert "motion" not in mean.layout
    assert all(torch.equal(frame.data, old) for frame, old in zip(frames, before, strict=True))


def test_frames_count_by_their_samples() -> None:
    frames = [plane(0), plane(1)]
    for frame, spp in zip(frames, (6, 2), strict=True):
        frame.metadata["spp"] = str(spp)
    mean, _ = gather(frames)
    torch.testing.assert_close(
        mean["primal"], 0.75 * frames[0]["primal"] + 0.25 * frames[1]["primal"]
    )
    expected = torch.full((HEIGHT, WIDTH, 1), 0.75**2 + 0.25**2)
    torch.testing.assert_close(mean["primal.var"], expected)


def test_memory_of_a_frame_may_be_used_again() -> None:
    first = plane(0)
    without = FrameBuffers(first.data[..., : PLAIN.count].contiguous(), PLAIN)
    _, history, _ = accumulate(without)
    without.data.zero_()
    mean, _, _ = accumulate(plane(1), history)
    torch.testing.assert_close(mean["primal"], (first["primal"] + plane(1)["primal"]) / 2)


def test_what_moves_is_followed() -> None:
    """The view goes right by two pixels and down by one per frame."""
    frames = [plane(t, (2 * t, t), (2, 1)) for t in range(4)]
    mean, _ = gather(frames)
    for y, x in ((0, 0), (5, 7), (HEIGHT - 6, WIDTH - 9)):
        places = [frames[t]["primal"][y + (3 - t), x + 2 * (3 - t)] for t in range(4)]
        torch.testing.assert_close(mean["primal"][y, x], torch.stack(places).mean(0))
    # What has just come into sight has one sample, and no difference is taken beyond the border.
    torch.testing.assert_close(mean["primal"][-1, -1], frames[-1]["primal"][-1, -1])
    assert not mean["dx"][:, -1].any()
    assert not mean["dy"][-1].any()
    torch.testing.assert_close(mean["dx"], frames[-1]["dx"])
    torch.testing.assert_close(mean["dy"], frames[-1]["dy"])


def test_fractions_of_pixels_add_up() -> None:
    """At 0.4 pixels per frame, five frames are two pixels: each is rounded once."""
    offsets = [round(0.4 * t) for t in range(6)]
    frames = [plane(t, (offsets[t], 0), (0.4, 0)) for t in range(6)]
    _, history = gather(frames)
    x = torch.arange(WIDTH, dtype=torch.float32)
    for t, past in enumerate(history.frames[1:], 1):
        inner = past.trust[3] > 0
        torch.testing.assert_close(past.position[3, inner, 0], (x + 0.4 * t)[inner])


@pytest.mark.parametrize("motion", [0.0, 1.0])
def test_an_edge_at_rest_may_be_hit_differently_in_each_frame(motion: float) -> None:
    """Column 5 shows the near plane in even frames and the far one in odd frames."""
    frames = [plane(t, motion=(motion, 0)) for t in range(4)]
    for t, frame in enumerate(frames):
        near = 6 if t % 2 == 0 else 5
        frame["depth"][:, near:] = 20.0
        frame["normal"][:, near:] = torch.tensor([0.0, 1, 0])
    mean, _ = gather(frames)
    samples = 1 / mean["primal.var"][2:-2, :, 0]
    assert (samples[:, 8:11] > 3.9).all(), "away from the edge there are four"
    if motion:  # what is fetched from across the edge would be dragged along
        assert samples[:, 3:7].min() < 2.1
    else:
        assert (samples > 3.9).all()


@pytest.mark.parametrize(("name", "value"), [("albedo", 1.0), ("normal", -1.0), ("depth", 20.0)])
def test_what_differs_is_left_out(name: str, value: float) -> None:
    frames = [plane(0), plane(1)]
    frames[0][name][3:6, 3:6] = value
    mean, _ = gather(frames)
    torch.testing.assert_close(
        mean["primal"][3:6, 3:6], frames[1]["primal"][3:6, 3:6], atol=1e-3, rtol=0
    )
    both = (frames[0]["primal"] + frames[1]["primal"]) / 2
    torch.testing.assert_close(mean["primal"][8:], both[8:])


def test_what_is_lit_differently_is_left_out() -> None:
    """A highlight moves on over a surface that stays; fireflies are no change."""
    shots = [plane(0), plane(1)]
    shots[0]["primal"][:, :8] *= 4
    mean, _ = gather(shots)
    torch.testing.assert_close(mean["primal"][:, :4], shots[1]["primal"][:, :4], atol=1e-2, rtol=0)
    shots = [plane(0), plane(1)]
    shots[0]["primal"][5, 5] = 1000.0
    mean, _ = gather(shots)
    assert mean["primal"][5, 5].min() > 400


@pytest.mark.parametrize("motion", [0.0, 1.0])
def test_lamp_does_not_leak_to_its_neighbours_in_motion(motion: float) -> None:
    """A lamp that albedo, normal and depth do not show, hit differently in each frame."""
    layout = Layout((*MOVING.buffers, buffer("emission"), buffer("direct")))
    shots = []
    for i in range(4):
        plain = plane(i, motion=(motion, 0))
        plain["primal"][:], plain["albedo"][:] = 0.5, 0.1
        plain["dx"][:], plain["dy"][:] = 0, 0
        frame = FrameBuffers(torch.cat([plain.data, torch.zeros(HEIGHT, WIDTH, 6)], -1), layout)
        frame["emission"][5, 6] = 100.0 * (i + 1)
        frame["primal"].add_(frame["emission"])
        frame["direct"].copy_(frame["primal"] - 0.2)
        frame["dx"][:, :-1] = frame["primal"].diff(dim=1)
        frame["dy"][:-1] = frame["primal"].diff(dim=0)
        shots.append(frame)
    mean, _ = gather(shots)
    assert mean.layout == Layout((*PLAIN.buffers, buffer("direct")))
    expected = torch.full((HEIGHT, WIDTH, 3), 0.5)
    expected[5, 6] += 400.0 if motion else 250.0  # that of the last frame, or the mean
    torch.testing.assert_close(mean["primal"], expected)
    torch.testing.assert_close(mean["direct"], expected - 0.2)
    torch.testing.assert_close(mean["dx"][:, :-1], expected.diff(dim=1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mean["dy"][:-1], expected.diff(dim=0), rtol=1e-4, atol=1e-4)


def test_depth_may_change_slowly() -> None:
    """Four per cent per frame, as of a camera that goes ahead: all frames still count."""
    frames = [plane(t) for t in range(5)]
    for t, frame in enumerate(frames):
        frame["depth"][:] = 5 * 0.96**t
    mean, _ = gather(frames)
    share = (mean["primal.var"].mean() - 1 / 5).item()  # 1/5 if all had the same weight
    assert 0 <= share < 0.05


def test_method_sees_the_mean() -> None:
    frames = [plane(seed) for seed in range(3)]
    video = stream("temporal", using="poisson-l2,alpha=0.3", frames=2, feedback=0)
    images = [video(frame) for frame in frames]
    assert torch.equal(images[0], denoise(frames[0], "poisson-l2", alpha=0.3))
    mean, _ = gather(frames, frames=2)
    assert torch.equal(images[2], denoise(mean, "poisson-l2", alpha=0.3))
    video.reset()
    assert torch.equal(video(frames[0]), images[0])
    assert torch.equal(denoise(frames[0], "temporal", using="poisson-l2,alpha=0.3"), images[0])


def images(shots: list[FrameBuffers], feedback: float) -> list[torch.Tensor]:
    video = stream("temporal", using="none", frames=2, feedback=feedback)
    return [video(frame) for frame in shots]


def test_feedback_steadies_what_stays() -> None:
    """Noise that is small beside the differences of neighbours, which limit what is mixed in."""
    shots = []
    for seed in range(20):
        frame = plane(0)
        noise = torch.Generator().manual_seed(seed)
        frame["primal"].mul_(1 + 0.01 * torch.randn(HEIGHT, WIDTH, 1, generator=noise))
        shots.append(frame)
    without, mixed = (torch.stack(images(shots, share)[4:]) for share in (0.0, 0.5))
    assert mixed.std(0).mean() < 0.8 * without.std(0).mean()
    torch.testing.assert_close(mixed.mean(), without.mean(), rtol=2e-3, atol=0)


def test_feedback_follows_the_motion() -> None:
    """An image that only moves is mixed with itself."""
    shots = [plane(0, (2 * t, t), (2, 1)) for t in range(4)]
    for shot in shots:
        shot["primal"].div_(shot["primal"].mean(-1, keepdim=True))  # without the checks
    for a, b in zip(images(shots, 0.0), images(shots, 0.5), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    wrong = [plane(0, (2 * t, t), (0, 0)) for t in range(2)]
    assert not torch.allclose(images(wrong, 0.0)[1], images(wrong, 0.5)[1], rtol=1e-2)


@pytest.mark.parametrize("name", ["albedo", "normal", "depth"])
def test_no_feedback_of_something_else(name: str) -> None:
    shots = [plane(0), plane(1)]
    shots[1][name][:, WIDTH // 2 :] += 5
    a, b = (images(shots, share)[1] for share in (0.0, 0.5))
    torch.testing.assert_close(a[:, WIDTH // 2 + 1 :], b[:, WIDTH // 2 + 1 :])
    assert not torch.equal(a[:, : WIDTH // 2 - 1], b[:, : WIDTH // 2 - 1])


def test_feedback_stays_in_the_range_of_the_new_image() -> None:
    lamp, dark = plane(0), plane(0)
    lamp["primal"][5, 5] = 1000.0
    image = images([lamp, dark], 0.9)[1]
    alone = images([dark, dark], 0.0)[1]
    # What is gathered still holds it (the light around is limited before it is compared).
    new = stream("temporal", using="none", frames=2, feedback=0)
    new(lamp)
    limit = new(dark)
    assert image[5, 5].max() <= limit[4:7, 4:7].max() * 1.0001
    torch.testing.assert_close(image[9:, 9:], alone[9:, 9:], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_units_do_not_matter(scale: float) -> None:
    shots = [plane(seed, (seed, 0), (1, 0)) for seed in range(3)]
    expected = images(shots, 0.5)[2]
    for shot in shots:
        for name, power in (("primal", 1), ("dx", 1), ("dy", 1), ("primal.var", 2)):
            shot[name].mul_(scale**power)
    torch.testing.assert_close(images(shots, 0.5)[2] / scale, expected, rtol=1e-3, atol=1e-5)


def test_black_stays_black() -> None:
    shots = [plane(0), plane(1)]
    for shot in shots:
        shot["primal"].zero_()
    assert torch.equal(images(shots, 0.5)[1], shots[1]["primal"])


def test_a_single_frame_needs_no_motion() -> None:
    video = stream("temporal", using="none", frames=1)
    for seed in range(2):
        frame = plane(seed)
        without = FrameBuffers(frame.data[..., : PLAIN.count].contiguous(), PLAIN)
        assert torch.equal(video(without), frame["primal"])


def test_streams_choose_it_where_there_is_motion() -> None:
    video = stream(frames=3)
    video(plane(0))
    assert video.method == "temporal"
    still = plane(0)
    without = FrameBuffers(still.data[..., : PLAIN.count].contiguous(), PLAIN)
    other = stream()
    assert torch.equal(other(without), denoise(without))
    assert other.method != "temporal"


def test_domain_follows_the_other_method() -> None:
    method = find("temporal")
    assert "dx" in method.reads({})
    assert "dx" not in method.reads({"using": "oidn"})
    assert "dx.var" in method.reads({"using": "oidn-fusion(using=oidn)"})


def test_memory_stays_constant() -> None:
    _, history = gather([plane(t) for t in range(12)], frames=4)
    assert history.bytes == 3 * HEIGHT * WIDTH * 4 * (PLAIN.count + 5)


def test_bad_input() -> None:
    frame = plane(0)
    with pytest.raises(ConfigError, match="frames is 0"):
        denoise(frame, "temporal", frames=0)
    with pytest.raises(ConfigError, match=r"feedback is 1\.0; expected 0 <= feedback < 1"):
        denoise(frame, "temporal", feedback=1.0)
    with pytest.raises(ConfigError, match="recurrent"):
        denoise(frame, "temporal", using="temporal")
    with pytest.raises(ConfigError, match="unknown reconstruction method"):
        denoise(frame, "temporal", using="nothing")
    video = stream("temporal", using="poisson-l2")
    video(frame)
    without = FrameBuffers(frame.data[..., : PLAIN.count].contiguous(), PLAIN)
    with pytest.raises(LayoutError, match="add_motion"):
        video(without)
    small = FrameBuffers(frame.data[:-1].contiguous(), MOVING)
    with pytest.raises(LayoutError, match="reset"):
        video(small)
    fewer = Layout((*Layout.make().buffers, buffer("motion")))
    other = torch.cat([frame[b.name] for b in fewer.buffers], -1)
    with pytest.raises(LayoutError, match="expected the same"):
        video(FrameBuffers(other, fewer))
    assert video.frames == 1
    video(plane(1))
