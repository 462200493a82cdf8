"""Streams: any method over a sequence, with an explicit state where there is one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

import mitsuba_gdpt
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.denoisers import default_call, denoise, denoise_sequence, registry, stream
from mitsuba_gdpt.denoisers.exposure import Exposure
from mitsuba_gdpt.errors import ConfigError, LayoutError, NonFiniteError

LAYOUT = Layout.make()


def frame(seed: int, height: int = 5, width: int = 6) -> FrameBuffers:
    generator = torch.Generator().manual_seed(seed)
    return FrameBuffers(torch.rand(height, width, LAYOUT.count, generator=generator), LAYOUT)


@pytest.fixture
def running_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """A recurrent method: the mean of all primals so far, times ``gain``."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))

    @registry.register(
        "mean", needs=("primal",), doc="", recurrent=True, exposure=Exposure.UNTOUCHED
    )
    def mean(
        buffers: FrameBuffers, state: tuple[torch.Tensor, int] | None, *, gain: float = 1.0
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, int]]:
        total, count = state or (torch.zeros_like(buffers["primal"]), 0)
        if total.shape != buffers["primal"].shape:
            raise LayoutError("reset")
        total = total + buffers["primal"]
        return gain * total / (count + 1), (total, count + 1)


def test_method_without_a_state() -> None:
    video = stream("poisson-l2", alpha=0.3)
    for seed in range(3):
        image = video(frame(seed))
        assert torch.equal(image, denoise(frame(seed), "poisson-l2", alpha=0.3))
    assert video(frame(0, 3, 4)).shape == (3, 4, 3)  # nothing depends on the size before
    assert (video.method, video.frames) == ("poisson-l2", 4)


def test_recurrent_method(running_mean: None) -> None:
    frames = [frame(seed) for seed in range(4)]
    video = stream("mean", gain=2.0)
    images = [video(f) for f in frames]
    for i, image in enumerate(images):
        expected = 2 * torch.stack([f["primal"] for f in frames[: i + 1]]).mean(0)
        torch.testing.assert_close(image, expected)
    video.reset()
    assert video.frames == 0
    assert torch.equal(video(frames[2]), 2 * frames[2]["primal"])
    # A single frame has no predecessors.
    assert torch.equal(denoise(frames[2], "mean", gain=2.0), 2 * frames[2]["primal"])


def test_refused_frame_leaves_the_state(running_mean: None) -> None:
    video, frames = stream("mean"), [frame(seed) for seed in range(2)]
    video(frames[0])
    broken = frame(5)
    broken.data[0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError):
        video(broken)
    with pytest.raises(LayoutError, match="reset"):
        video(frame(6, 3, 4))
    assert video.frames == 1
    torch.testing.assert_close(video(frames[1]), (frames[0]["primal"] + frames[1]["primal"]) / 2)


def test_sequence_is_lazy_and_of_the_kind_of_its_frames(running_mean: None) -> None:
    seen = []

    def frames() -> Iterator[np.ndarray]:
        for seed in range(100):
            seen.append(seed)
            yield frame(seed).data.numpy()

    images = denoise_sequence(frames(), "mean", layout=LAYOUT)
    assert seen == []
    first = next(images)
    assert isinstance(first, np.ndarray)
    np.testing.assert_array_equal(first, frame(0)["primal"])
    assert seen == [0]
    two = list(denoise_sequence([frame(0), frame(1)], "mean"))
    np.testing.assert_allclose(next(images), two[1], rtol=1e-6)


def test_method_is_chosen_by_the_first_frame() -> None:
    video = stream()
    assert video.method is None
    image = video(frame(0))
    assert video.method == default_call(LAYOUT).method
    assert torch.equal(image, denoise(frame(0)))


def test_bad_calls() -> None:
    with pytest.raises(ConfigError, match="unknown reconstruction method 'nothing'"):
        stream("nothing")
    with pytest.raises(ConfigError, match="unknown reconstruction method 'nothing'"):
        denoise_sequence([], "nothing")
    with pytest.raises(ConfigError, match="no option 'beta'"):
        stream("none", beta=1)(frame(0))


def test_public_names() -> None:
    assert mitsuba_gdpt.stream is stream
    assert mitsuba_gdpt.denoise_sequence is denoise_sequence
