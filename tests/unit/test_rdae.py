"""The recurrent autoencoder: its network, its state, what it does with motion."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path
from typing import Any

import pytest
import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import DERIVED, Layout
from mitsuba_gdpt.denoisers import denoise, denoise_sequence, stream
from mitsuba_gdpt.denoisers.images import warp
from mitsuba_gdpt.denoisers.learned import inference, weights
from mitsuba_gdpt.denoisers.learned.methods import PRESETS
from mitsuba_gdpt.denoisers.learned.networks import RecurrentUNet, RecurrentUNetConfig
from mitsuba_gdpt.denoisers.learned.recurrent import RecurrentModel, RecurrentModelConfig
from mitsuba_gdpt.errors import ConfigError, LayoutError, NonFiniteError

CORE = Layout.make()
LAYOUT = Layout((*CORE.buffers, *DERIVED))
SIZES: dict[str, Any] = {"stages": (4, 5, 6), "decoder": (5,), "finest": (4, 4)}


pytestmark = pytest.mark.usefixtures("one_thread")


def render(seed: int = 0, height: int = 12, width: int = 15) -> FrameBuffers:
    generator = torch.Generator().manual_seed(seed)
    buffers = FrameBuffers(torch.rand(height, width, LAYOUT.count, generator=generator), LAYOUT)
    buffers.motion.zero_()
    return buffers


def tiny(preset: str = "rdae-grad", **changes: Any) -> RecurrentModel:
    torch.manual_seed(0)
    config: RecurrentModelConfig = PRESETS[preset].config
    values = {
        "head": config.head, "guides": config.guides, "warp": config.warp,
        "history": config.history, "adaptation": config.adaptation, **changes,
    }  # fmt: skip
    network = {**SIZES, **values.pop("network", {})}
    return RecurrentModel(RecurrentModelConfig.make(config.inputs, network=network, **values))


def save(model: RecurrentModel, folder: Path, name: str = "rdae-grad") -> str:
    path = weights.save_weights(
        model, folder, name=name, tag="v1", recipe="none", commit="0", licence="BSD-3-Clause"
    )
    return str(path)


class TestNetwork:
    def test_parameters_of_the_original(self) -> None:
        network = RecurrentUNet(RecurrentUNetConfig())
        assert sum(p.numel() for p in network.parameters()) == 1_951_935
        assert PRESETS["rdae"].config.network == RecurrentUNetConfig()
        assert PRESETS["rdae-grad"].config.network == RecurrentUNetConfig(inputs=13)

    def test_shapes(self) -> None:
        network = RecurrentUNet(RecurrentUNetConfig())
        with torch.no_grad():
            y, hidden = network(torch.rand(2, 64, 32, 7))
        assert y.shape == (2, 64, 32, 3)
        assert [tuple(h.shape) for h in hidden] == [
            (2, 64 >> i, 32 >> i, width) for i, width in enumerate((32, 43, 57, 76, 101, 101))
        ]

    def test_hidden_state_is_the_output_of_the_recurrent_block(self) -> None:
        """It is what the merging convolution of the next frame sees, and nothing else of it."""
        network = RecurrentUNet(RecurrentUNetConfig(inputs=2, **SIZES))
        seen: list[torch.Tensor] = []
        for stage in network.encoder:
            stage.merge.register_forward_hook(lambda _, args, __: seen.append(args[0]))
        with torch.no_grad():
            _, hidden = network(torch.rand(1, 8, 8, 2))
            assert all(not x[:, x.shape[1] // 2 :].any() for x in seen)
            seen.clear()
            network(torch.rand(1, 8, 8, 2), hidden)
        for x, state in zip(seen, hidden, strict=True):
            assert torch.equal(x[:, x.shape[1] // 2 :].permute(0, 2, 3, 1), state)

    def test_patch_is_the_resolution_inside(self) -> None:
        network = RecurrentUNet(RecurrentUNetConfig(inputs=2, outputs=5, patch=2, **SIZES))
        assert network.config.alignment == 8
        with torch.no_grad():
            y, hidden = network(torch.rand(1, 16, 8, 2))
        assert y.shape == (1, 16, 8, 5)
        assert hidden[0].shape == (1, 8, 4, 4)

    def test_sizes_that_do_not_fit(self) -> None:
        with pytest.raises(ConfigError, match="expected L, L-2, 2"):
            RecurrentUNetConfig(decoder=(76, 57))
        with pytest.raises(ConfigError, match="must be 1 or more"):
            RecurrentUNetConfig(stages=(32, 43, 57, 76, 101, 0))
        config = PRESETS["rdae-grad"].config
        with pytest.raises(ConfigError, match="need 13 and 3"):
            dataclasses.replace(config, network=RecurrentUNetConfig())


class TestState:
    @pytest.mark.parametrize("preset", ["rdae", "rdae-grad", "rdae-plain"])
    def test_stream_equals_batch_call(self, preset: str, tmp_path: Path) -> None:
        model = tiny(preset)
        path = save(model, tmp_path, preset)
        frames = [render(seed) for seed in range(5)]
        whole = model.sequence(torch.stack([f.data for f in frames])[None], LAYOUT)[0].detach()
        for image, expected in zip(
            denoise_sequence(frames, "rdae", weights=path, precision="float32"),
            whole,
            strict=True,
        ):
            torch.testing.assert_close(image, expected, rtol=1e-5, atol=1e-5)

    def test_frames_before_count_and_frames_after_do_not(self, tmp_path: Path) -> None:
        path = save(tiny(), tmp_path)
        images = [
            list(denoise_sequence([render(s) for s in seeds], "rdae-grad", weights=path))
            for seeds in ((0, 1, 2), (0, 1, 3), (4, 1, 2))
        ]
        assert torch.equal(images[0][1], images[1][1])
        assert not torch.allclose(images[0][1], images[2][1], rtol=1e-3)

    def test_reset_equals_fresh_and_equals_a_single_frame(self, tmp_path: Path) -> None:
        path = save(tiny(), tmp_path)
        video = stream("rdae-grad", weights=path)
        first = video(render(0))
        assert not torch.equal(video(render(0)), first)
        video.reset()
        assert torch.equal(video(render(0)), first)
        assert torch.equal(denoise(render(0), "rdae-grad", weights=path), first)

    def test_step_is_a_function(self) -> None:
        model = tiny()
        _, state = inference.step(model, render(0))
        kept = [h.clone() for h in state.hidden]
        image, _ = inference.step(model, render(1), state)
        again, _ = inference.step(model, render(1), state)
        assert torch.equal(image, again)
        assert all(torch.equal(a, b) for a, b in zip(kept, state.hidden, strict=True))

    def test_memory_is_flat(self, tmp_path: Path) -> None:
        video = stream("rdae-oidn", weights=save(tiny("rdae-oidn", guides=("none",)), tmp_path))
        sizes, counts = set(), []
        for i in range(200):
            image = video(render(i % 7, 9, 9))
            assert not image.requires_grad
            sizes.add(video._state.state.bytes)
            if i % 50 == 9:
                gc.collect()
                counts.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))
        assert len(sizes) == 1
        assert len(set(counts)) == 1
        assert all(h.grad_fn is None for h in video._state.state.hidden)

    def test_another_resolution(self, tmp_path: Path) -> None:
        video = stream("rdae-grad", weights=save(tiny(), tmp_path))
        video(render(0))
        with pytest.raises(LayoutError, match=r"9 x 8 pixels after one of 15 x 12.*Reset"):
            video(render(1, 8, 9))
        video.reset()
        assert video(render(1, 8, 9)).shape == (8, 9, 3)

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (8, 8), (17, 30)])
    def test_any_size(self, height: int, width: int) -> None:
        for model in (tiny(), tiny("rdae-oidn", guides=("none",), network={"patch": 2})):
            state = None
            for seed in range(2):
                buffers = render(seed, height, width)
                image, state = inference.step(model, buffers, state)
                assert image.shape == (height, width, 3)
                assert bool(torch.isfinite(image).all())

    def test_gradient_reaches_the_first_frame(self) -> None:
        model = tiny()
        data = torch.stack([render(s).data for s in range(4)])[None].requires_grad_()
        model.sequence(data, LAYOUT)[:, -1].sum().backward()
        assert data.grad is not None
        primal = data.grad[0, ..., LAYOUT.slices["primal"]].abs().amax((1, 2, 3))
        assert bool((primal > 0).all())


class TestExposure:
    def test_it_follows_slowly(self) -> None:
        model = tiny("rdae", adaptation=0.25)
        bright = render(0)
        bright["primal"].mul_(16)
        _, state = inference.step(model, render(0))
        start = float(state.exposure)
        _, state = inference.step(model, bright, state)
        assert float(state.exposure) == pytest.approx(start * 16**-0.25, rel=1e-4)

    def test_scale_of_radiance_does_not_matter(self) -> None:
        model = tiny("rdae-grad")
        images = []
        for factor in (1.0, 50.0):
            state, image = None, None
            for seed in range(3):
                buffers = render(seed)
                for name in ("primal", "dx", "dy"):
                    buffers[name].mul_(factor)
                image, state = inference.step(model, buffers, state, precision="float32")
            images.append(image / factor)
        torch.testing.assert_close(images[1], images[0], rtol=1e-3, atol=1e-4)

    def test_depth_in_view_does_not_matter(self) -> None:
        """A far pixel changes nothing but its surroundings, unlike with division by a maximum."""
        model = tiny("rdae")
        frames = [render(0, 200, 8), render(0, 200, 8)]
        frames[1].depth[0, 0] = 1000.0
        near, far = (inference.step(model, f, precision="float32")[0] for f in frames)
        assert not torch.equal(near[:8], far[:8])
        torch.testing.assert_close(near[150:], far[150:], rtol=1e-2, atol=1e-2)


class TestMotion:
    def test_warp(self) -> None:
        image = torch.rand(1, 6, 7, 2)
        motion = torch.zeros(1, 6, 7, 2)
        torch.testing.assert_close(warp(image, motion), image)
        motion[..., 0], motion[..., 1] = 2.0, -1.0  # it was two to the right and one above
        moved = warp(image, motion)
        torch.testing.assert_close(moved[:, 1:, :-2], image[:, :-1, 2:])
        assert moved[:, 0].max() < 1e-6
        assert moved[:, :, -2:].max() < 1e-6
        motion[..., 0], motion[..., 1] = 0.5, 0.0
        torch.testing.assert_close(
            warp(image, motion)[:, :, :-1], (image[:, :, 1:] + image[:, :, :-1]) / 2
        )

    def test_state_moves_at_all_resolutions(self) -> None:
        """After a pan by one coarsest block the inner states are those of the panned frame."""
        model = tiny("rdae", warp=True)
        step = model.config.network.alignment
        _, state = inference.step(model, render(0, 24, 32), precision="float32")
        motion = torch.zeros(1, 24, 32, 2)
        motion[..., 0] = step
        padding = type("", (), {"apply": staticmethod(lambda x, source: x)})()
        moved = model._move(state.hidden, motion, padding)
        for level, (before, after) in enumerate(zip(state.hidden, moved, strict=True)):
            shift = step >> level
            torch.testing.assert_close(
                after[:, :, :-shift], before[:, :, shift:], rtol=1e-4, atol=1e-5
            )

    def test_history_starts_as_a_running_mean_of_the_guide(self) -> None:
        """At rest, on a surface that faces the camera: of all frames, later of about nine."""
        model = tiny("rdae-oidn", guides=("none",))
        state, logs = None, []
        for seed in range(12):
            buffers = self.wall(seed)
            image, state = inference.step(model, buffers, state)
            exposure = state.exposure[0]
            logs.append((buffers.primal / 0.51).log())
            found = (image / 0.51 * exposure).log1p()
            if seed < 8:
                guides = [(log.exp() * exposure).log1p() for log in logs]
                mean = torch.stack(guides).mean(0)
                torch.testing.assert_close(found, mean, rtol=3e-2, atol=3e-2)
            assert state.age.mean().item() == pytest.approx(min(seed + 1, 8))

    def test_history_of_something_else_is_not_favoured(self) -> None:
        model, images = tiny("rdae-oidn", guides=("none",)), []
        for change in ("nothing", "depth", "normal", "motion"):
            _, state = inference.step(model, self.wall(0))
            buffers = self.wall(1)
            if change == "depth":
                buffers.depth.mul_(3)
            if change == "normal":
                buffers.normal[:] = torch.tensor([1.0, 0.0, 0.0])
            if change == "motion":
                buffers.motion.fill_(100.0)  # out of the frame
            image, _ = inference.step(model, buffers, state)
            images.append(float((image - buffers.primal).abs().mean()))
        assert images[0] > 10 * max(images[1:])

    @staticmethod
    def wall(seed: int) -> FrameBuffers:
        buffers = render(seed)
        buffers.depth.fill_(2.0)
        buffers.normal[:] = torch.tensor([0.0, 0.0, 1.0])
        buffers.albedo.fill_(0.5)
        return buffers

    def test_missing_motion(self, tmp_path: Path) -> None:
        path = save(tiny("rdae-oidn", guides=("none",)), tmp_path, "rdae-oidn")
        video = stream("rdae-oidn", weights=path)
        still = FrameBuffers(render(0).data[..., : CORE.count], CORE)
        assert video(still).shape == (12, 15, 3)  # the first frame needs none
        with pytest.raises(LayoutError, match=r"motion from the second frame on.*add_motion"):
            video(still)


class TestMethods:
    def test_round_trip(self, tmp_path: Path) -> None:
        model = tiny("rdae-oidn", guides=("none",))
        path = save(model, tmp_path)
        loaded, info = weights.read_weights(path)
        assert info.arch == "recurrent-unet"
        assert info.config == model.config
        expected = model.state_dict()
        assert all(torch.equal(t, expected[k]) for k, t in loaded.state_dict().items())

    def test_missing_buffers_and_weights(self, tmp_path: Path) -> None:
        layout = Layout(tuple(b for b in CORE.buffers if b.name != "normal"))
        frame = FrameBuffers(torch.rand(4, 4, layout.count), layout)
        with pytest.raises(LayoutError, match=r"needs the buffer\(s\) normal"):
            denoise(frame, "rdae", weights=save(tiny("rdae"), tmp_path))

    def test_what_is_needed_follows_from_the_weights(self, tmp_path: Path) -> None:
        """Without albedo there is no shipped network, but one's own."""
        layout = Layout(tuple(b for b in CORE.buffers if b.name != "albedo"))
        frame = FrameBuffers(torch.rand(4, 4, layout.count), layout)
        path = save(tiny("rdae-plain"), tmp_path)
        assert denoise(frame, "rdae", weights=path).shape == (4, 4, 3)
        with pytest.raises(LayoutError, match=r"needs the buffer\(s\) albedo"):
            denoise(frame, "rdae")
        with pytest.raises(ConfigError, match="unknown reconstruction method 'rdae-plain'"):
            denoise(frame, "rdae-plain")

    def test_non_finite_motion(self, tmp_path: Path) -> None:
        buffers = render()
        buffers.motion[0, 0] = float("inf")
        path = save(tiny("rdae-oidn", guides=("none",)), tmp_path)
        with pytest.raises(NonFiniteError, match=r"motion\.X: 1"):
            denoise(buffers, "rdae-oidn", weights=path)

    def test_weights_of_another_method(self, tmp_path: Path) -> None:
        path = save(tiny(), tmp_path)
        with pytest.raises(ConfigError, match="has no state"):
            inference.step(torch.nn.Identity(), render())  # type: ignore[arg-type]
        # A recurrent model can be asked for one frame by anybody.
        assert denoise(render(), "ngpt-small", weights=path).shape == (12, 15, 3)
