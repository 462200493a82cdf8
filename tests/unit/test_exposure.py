"""Units do not matter: k times the radiance gives k times the image, k times lengths the same."""

from __future__ import annotations

import functools
import math
import zlib

import pytest
import torch

from mitsuba_gdpt import denoise, denoise_sequence, denoisers
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import MOTION, REPORTED, TABLE, VARIANCE_SUFFIX, Layout, of_kind
from mitsuba_gdpt.denoisers import registry
from mitsuba_gdpt.denoisers.exposure import ExposedState, Exposure
from mitsuba_gdpt.denoisers.images import exposure_scale
from mitsuba_gdpt.denoisers.learned import model

RADIANCE = of_kind("radiance")
LENGTHS = (*of_kind("distance"), *of_kind("point"))
# Everything that any method reads: not what is known of its result.
LAYOUT = Layout(tuple(buffer for buffer in TABLE if buffer not in REPORTED))

#: Methods with the options that change what they compute.
OPTIONS = (
    "nfor(bandwidths=(0.25), patch_radius=1, window_radius=4)",
    "oidn(aux=raw)",
    "oidn(aux=none, quality=fast)",
    "oidn(aux=clean, split=true)",
    "oidn(ensemble=4, prefilter=balanced)",
    "oidn-fusion(weight=4.0, using=poisson-l1)",
    "poisson-l1(preset=L1Q, irls_iterations=3, cg_iterations=9)",
    "poisson-l1(alpha=1.0, regularisation=1.0, irls_iterations=3)",
    "poisson-l2(alpha=0.01)",
    "temporal(frames=2, using=poisson-l1)",
    "temporal(feedback=0.9, using=none)",
)
CALLS = (*(method.name for method in denoisers.methods() if method.available), *OPTIONS)

# Rounding to float32, relative to the mean, at the worst pixel. Networks amplify it most.
TOLERANCE = 2e-5


pytestmark = pytest.mark.usefixtures("one_thread")


def noisy(seed: int, height: int = 9, width: int = 10) -> FrameBuffers:
    """Return a frame of noise of about the right sizes, with every buffer there is."""
    frame = FrameBuffers(torch.zeros(height, width, LAYOUT.count), LAYOUT)
    for name in LAYOUT.names:  # numbers of their own: a new buffer leaves the others as they were
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()) + seed)
        frame[name].uniform_(generator=generator)
    for name, dim in (("dx", 1), ("dy", 0)):
        frame[name].zero_()
        frame[name].narrow(dim, 0, frame.data.shape[dim] - 1).copy_(
            0.7 * frame["primal"].diff(dim=dim)
        )
    frame["diffuse"].mul_(0.1)
    frame["specular"].copy_(frame["primal"] - frame["diffuse"])
    frame["emission"].mul_(0.01)
    frame["direct"].mul_(frame["primal"])
    frame[MOTION].sub_(0.5)
    frame["depth"][2:4] = 0  # nothing was hit
    for name in frame.names:
        if name.endswith(VARIANCE_SUFFIX):
            frame[name].mul_(0.01)
    return frame


def times(frame: FrameBuffers, factor: float, names: tuple[str, ...] = RADIANCE) -> FrameBuffers:
    """Return a frame in another unit of radiance, or of other buffers."""
    result = FrameBuffers(frame.data.clone(), frame.layout)
    for name in names:
        result[name].mul_(factor)
        if name + VARIANCE_SUFFIX in result:
            result[name + VARIANCE_SUFFIX].mul_(factor).mul_(factor)
    return result


FRAMES = [noisy(seed) for seed in range(2)]


@pytest.fixture
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let networks compute in float32: in bfloat16 the last bit of an input may turn a per cent."""
    monkeypatch.setattr(model, "native_bfloat16", lambda device: False)


@functools.cache
def at_unit(call: str) -> torch.Tensor:
    """Return the images of a short sequence in float32, (2, H, W, 3)."""
    return images(call, FRAMES)


def images(call: str, frames: list[FrameBuffers]) -> torch.Tensor:
    return torch.stack(list(denoise_sequence(frames, call)))


@pytest.mark.parametrize("call", CALLS)
class TestEveryMethod:
    @pytest.mark.usefixtures("_float32")
    @pytest.mark.parametrize("factor", [1e-6, 1 / 3, 1e6])
    def test_k_times_the_radiance_gives_k_times_the_image(self, call: str, factor: float) -> None:
        expected = at_unit(call)
        result = images(call, [times(frame, factor) for frame in FRAMES]) / factor
        assert float((result - expected).abs().max()) < TOLERANCE * float(expected.abs().mean())

    @pytest.mark.usefixtures("_float32")
    @pytest.mark.parametrize("factor", [1e-5, 1e5])
    def test_the_unit_of_length_does_not_matter(self, call: str, factor: float) -> None:
        expected = at_unit(call)
        result = images(call, [times(frame, factor, LENGTHS) for frame in FRAMES])
        assert float((result - expected).abs().max()) < TOLERANCE * float(expected.abs().mean())

    @pytest.mark.parametrize("exponent", [-30, 20])
    def test_twice_the_radiance_gives_exactly_twice_the_image(
        self, call: str, exponent: int
    ) -> None:
        factor = 2.0**exponent
        result, expected = (
            images(call, [times(frame, k) for frame in FRAMES]) for k in (factor, 2 * factor)
        )
        assert torch.equal(2 * result, expected)

    def test_black_stays_black(self, call: str) -> None:
        assert not bool(images(call, [times(frame, 0) for frame in FRAMES]).any())

    def test_finite_input_gives_finite_images(self, call: str) -> None:
        whole = FRAMES[0]
        largest = torch.finfo(torch.float32).max
        extreme = FrameBuffers(times(whole, 1e30).data.clamp(-largest, largest), LAYOUT)
        spike, other = times(whole, 1), times(whole, 0)
        spike["primal"][3, 4] = 1e30
        spike["dx"][3, 3:5] = torch.tensor([1e30, -1e30])[:, None]
        other["primal"][0, 0] = 1e-30
        for frame in (extreme, spike, other, whole.crop(2, 3, 1, 1), spike.crop(4, 3, 1, 1)):
            assert bool(torch.isfinite(images(call, [frame])).all())
        everything = FrameBuffers(torch.full_like(whole.data[:3, :2], largest), LAYOUT)
        assert bool(torch.isfinite(images(call, [everything])).all())


def test_with_halves() -> None:
    a, b = noisy(1), noisy(2)
    whole = FrameBuffers((a.data + b.data) / 2, LAYOUT)
    expected = denoise(whole, "nfor", halves=(a, b))
    factor = 2.0**-20
    half = (times(a, factor), times(b, factor))
    assert torch.equal(denoise(times(whole, factor), "nfor", halves=half), expected * factor)


def test_options_in_the_unit_of_radiance_keep_it() -> None:
    frame = noisy(0)
    dim = times(frame, 0.25)
    clamped = denoise(times(frame, 16.0), "oidn", hdr=False)
    assert float(clamped.max()) < 1.5  # to 1, whatever the brightness of the frame
    scaled = denoise(dim, "oidn", input_scale=4.0)
    torch.testing.assert_close(scaled, denoise(frame, "oidn", input_scale=1.0) / 4)
    inside = denoise(dim, "temporal", using="oidn(input_scale=4.0)")
    assert torch.equal(inside, scaled)


class TestFactor:
    def test_common_brightness(self) -> None:
        frame = FrameBuffers(torch.full((20, 20, LAYOUT.count), 0.25), LAYOUT)
        assert Exposure.COMMON.factor(frame, ("primal",)) == pytest.approx(2.0)
        assert Exposure.BINARY.factor(times(frame, 0.9), ("primal",)) == 1.0
        assert Exposure.BINARY.factor(times(frame, 0.9e-3), ("primal",)) == 2.0**11
        assert Exposure.COMMON.factor(times(frame, 2.0), ("primal",)) == 1.0

    def test_black_frames_and_frames_without_light(self) -> None:
        frame = FrameBuffers(torch.zeros(4, 4, LAYOUT.count), LAYOUT)
        assert Exposure.COMMON.factor(frame, ("primal", "dx")) is None
        assert Exposure.COMMON.factor(noisy(0), ("albedo",)) == 1
        frame["dx"][1, 1] = 0.5
        assert Exposure.COMMON.factor(frame, ("primal", "dx")) == pytest.approx(1.0)

    @pytest.mark.parametrize("exponent", [-140, -100, 40, 127])
    def test_any_unit(self, exponent: int) -> None:
        image = torch.full((1, 8, 8, 3), 2.0**exponent)
        scale = float(exposure_scale(image))
        assert math.isfinite(scale)
        if abs(exponent) < 118:
            assert scale == float(exposure_scale(torch.ones(1, 8, 8, 3))) * 2.0**-exponent

    def test_sequences_keep_theirs_until_a_frame_is_far_from_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))

        class Total:
            def __init__(self, image: torch.Tensor) -> None:
                self.image = image

            def exposed(self, factor: float) -> Total:
                return Total(self.image * factor)

        @registry.register("total", needs=("primal",), doc="sum of all frames", recurrent=True)
        def total(buffers: FrameBuffers, state: Total | None) -> tuple[torch.Tensor, Total]:
            image = buffers["primal"] if state is None else buffers["primal"] + state.image
            return image, Total(image)

        frame, video = noisy(0), denoisers.stream("total")
        factors = [0.0, 1.0, 0.0, 0.01, 1e-9, 1e9]
        states: list[ExposedState] = []
        for i, factor in enumerate(factors):
            image = video(times(frame, factor))
            states.append(video._state)
            torch.testing.assert_close(image, frame["primal"] * sum(factors[: i + 1]))
        used = [state.factor for state in states]
        assert used[0] is None
        assert used[1] == used[2] == used[3]
        assert used[4] != used[3]
        assert used[5] != used[4]
