"""Training on sequences: windows, their augmentation, the loss, kill and resume."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.data.frame_set import FrameSet
from mitsuba_gdpt.denoisers import denoise_sequence
from mitsuba_gdpt.denoisers.images import warp
from mitsuba_gdpt.denoisers.learned.recurrent import RecurrentModel
from mitsuba_gdpt.denoisers.learned.weights import make_model, read_weights
from mitsuba_gdpt.errors import ConfigError, FormatError, LayoutError, NonFiniteError
from mitsuba_gdpt.training import run, sequence_losses
from mitsuba_gdpt.training.augment import Augmentation, augment
from mitsuba_gdpt.training.config import SequenceSettings, TrainingConfig, load_config
from mitsuba_gdpt.training.examples import Example, seeded
from mitsuba_gdpt.training.guides import GuideCache
from mitsuba_gdpt.training.tasks import SequenceTask
from mitsuba_gdpt.training.windows import Windows
from tests import sequences

TINY = {"stages": [3, 4, 4], "decoder": [4], "finest": [4, 4]}
NEEDS = ("primal", "dx", "dy", "albedo", "normal", "depth", "motion")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sequences.write(tmp_path_factory.mktemp("frames") / "set")


def windows(root: Path, needs: tuple[str, ...] = NEEDS, **settings: Any) -> Windows:
    values = {"length": 3, "size": 16, "stop": 0.0, "reverse": 0.0, **settings}
    opened = FrameSet.open(root)
    return Windows(opened.sequences, SequenceSettings(**values), needs, GuideCache(None, ()))


class TestLoss:
    def test_frame_weights_of_the_original(self) -> None:
        expected = [0.011, 0.044, 0.135, 0.325, 0.607, 0.882, 1.0]
        np.testing.assert_allclose(sequence_losses.frame_weights(7), expected, atol=6e-4)

    def test_edges_against_scipy(self) -> None:
        """Each channel by itself, with the filter of the original shifted to a sum of 0."""
        axis = np.arange(9) - 4.0
        square = axis[:, None] ** 2 + axis**2
        s = 1.5
        kernel = -1 / (np.pi * s**4) * (1 - square / (2 * s**2)) * np.exp(-square / (2 * s**2))
        kernel -= kernel.mean()
        image = torch.rand(2, 14, 12, 3, generator=torch.Generator().manual_seed(0))
        found = sequence_losses.find_edges(image)
        assert found.shape == (2, 6, 4, 3)
        for n in range(2):
            for c in range(3):
                expected = scipy.ndimage.correlate(image[n, ..., c].double().numpy(), kernel)
                np.testing.assert_allclose(found[n, ..., c], expected[4:-4, 4:-4], atol=1e-5)
        grey = torch.full((1, 10, 10, 3), 7.0)
        assert sequence_losses.find_edges(grey).abs().max() < 1e-5
        assert sequence_losses.find_edges(image[:, :8]).numel() == 0

    def test_values(self) -> None:
        """Against the formula in NumPy."""
        generator = torch.Generator().manual_seed(0)
        p, y = torch.randn(2, 2, 4, 12, 13, 3, generator=generator)
        y = y.abs() + 0.1
        values = sequence_losses.SequenceLoss({"spatial": 0.8, "edges": 0.1, "temporal": 0.1})(p, y)
        exposure = sequence_losses.common_exposure(y).double().numpy()
        assert exposure.shape == (2, 1, 1, 1, 1)
        a, b = (np.sign(x) * np.log1p(10 * np.abs(x * exposure)) for x in
                (p.double().numpy(), y.double().numpy()))  # fmt: skip
        d = a - b
        w = np.exp(-(np.arange(3, -1, -1) ** 2) / 8)
        spatial = (w * np.abs(d).mean((0, 2, 3, 4))).mean()
        edges = sequence_losses.find_edges(torch.from_numpy(d).flatten(0, 1)).numpy()
        edges = (w * np.abs(edges.reshape(2, 4, -1)).mean((0, 2))).mean()
        temporal = (w[1:] * np.abs(d[:, 1:] - d[:, :-1]).mean((0, 2, 3, 4))).sum() / 4
        assert values["spatial"].item() == pytest.approx(spatial, rel=1e-4)
        assert values["edges"].item() == pytest.approx(edges, rel=1e-4)
        assert values["temporal"].item() == pytest.approx(temporal, rel=1e-4)
        total = 0.8 * spatial + 0.1 * edges + 0.1 * temporal
        assert values["loss"].item() == pytest.approx(total, rel=1e-4)

    def test_steady_error_does_not_flicker(self) -> None:
        y = torch.rand(1, 3, 5, 5, 3, generator=torch.Generator().manual_seed(0)) + 0.5
        y = y[:, :1].expand(1, 3, 5, 5, 3)
        assert sequence_losses.flicker(0.5 * y, y) == 0
        assert sequence_losses.flicker(y * torch.tensor([1, 2, 1]).view(1, 3, 1, 1, 1), y) > 0.1

    def test_gradient_of_black_and_negative_predictions(self) -> None:
        for value in (0.0, -0.5):
            p = torch.full((1, 2, 9, 9, 3), value, requires_grad=True)
            loss = sequence_losses.SequenceLoss({"spatial": 1.0})
            loss(p, torch.ones(1, 2, 9, 9, 3))["loss"].backward()
            assert p.grad is not None
            assert bool((p.grad < 0).all())


class TestWindows:
    def test_number_and_content(self, root: Path) -> None:
        made = windows(root)
        assert len(made) == 3 * 3
        assert made.layout.names == NEEDS
        item = made[4]  # validation: whole frames, forwards, the first render
        frames = FrameSet.open(root).sequences[1].frames[1:4]
        assert item.buffers.data.shape == (3, 20, 24, made.layout.count)
        assert item.target.shape == (3, 1, 20, 24, 3)
        for t, frame in enumerate(frames):
            assert torch.equal(item.target[t, 0], frame.target().primal)
            assert torch.equal(item.buffers.data[t], frame.noisy(0).data)

    def test_samples_are_functions_of_their_number(self, root: Path) -> None:
        made, again = windows(root, reverse=0.5, stop=0.5), windows(root, reverse=0.5, stop=0.5)
        for sample in range(6):
            first, second = made[(2, sample)], again[(2, sample)]
            assert torch.equal(first.buffers.data, second.buffers.data)
            assert torch.equal(first.target, second.target)
        contents = {made[(2, sample)].target.sum().item() for sample in range(12)}
        assert len(contents) > 6

    def test_crop_is_shared_and_every_position_comes_up(self, root: Path) -> None:
        made = windows(root, size=19)
        frames = FrameSet.open(root).sequences[0]
        positions = set()
        for sample in range(80):
            images = made[(0, sample)].target[:, 0]
            for y, x in np.ndindex(2, 6):
                if torch.equal(images[0], frames[0].target().primal[y : y + 19, x : x + 19]):
                    positions.add((y, x))
                    for t in (1, 2):
                        expected = frames[t].target().primal[y : y + 19, x : x + 19]
                        assert torch.equal(images[t], expected)
        assert len(positions) == 2 * 6

    def test_crop_as_large_as_the_frame(self, root: Path) -> None:
        assert windows(root, size=20)[(0, 1)].buffers.data.shape[1:3] == (20, 20)
        square = windows(sequences.write(root.parent / "square", ("s",), size=(12, 12)), size=12)
        assert torch.equal(square[(0, 7)].target, square[0].target)
        with pytest.raises(ConfigError, match="24 x 20 pixels, smaller than a crop of 21"):
            windows(root, size=21)

    def test_gradients_end_at_the_crop(self, root: Path) -> None:
        view = windows(root)[(0, 3)].buffers
        assert not view.dx[..., -1, :].any()
        torch.testing.assert_close(view.dx[..., :-1, :], view.primal.diff(dim=-2))

    def test_one_noise_per_window(self, root: Path) -> None:
        """Every frame of a window is the same render number; both come up."""
        made, frames = windows(root, size=20), FrameSet.open(root).sequences[0]
        seen = set()
        for sample in range(12):
            window = made[(0, sample)].buffers.primal
            which = []
            for t in range(3):
                for k in range(2):
                    whole = frames[t].noisy(k).primal
                    crops = [whole[:, x : x + 20] for x in range(5)]
                    if any(torch.equal(window[t], crop) for crop in crops):
                        which.append(k)
            assert len(which) == 3
            assert len(set(which)) == 1
            seen.add(which[0])
        assert seen == {0, 1}

    def test_motion_fetches_the_frame_before(self, root: Path) -> None:
        """Forwards and backwards: of the clean images, so that it can be seen."""
        for reverse in (0.0, 1.0):
            made = windows(root, reverse=reverse)
            for sample in range(4):
                item = made[(3, sample)]
                motion = item.buffers.motion
                sign = 1 if reverse else -1
                for t in (1, 2):
                    fetched = warp(item.target[t - 1], motion[t][None])
                    inner = np.s_[:, 3:-3]
                    torch.testing.assert_close(
                        fetched[0][inner], item.target[t, 0][inner], rtol=1e-3, atol=1e-3
                    )
                    # The camera goes right, so the content was further to the right before.
                    assert motion[t, 5, 5, 0].item() * sign == pytest.approx(-2.0, abs=1e-3)

    def test_stopped_camera(self, root: Path) -> None:
        made = windows(root, stop=1.0)
        for sample in range(4):
            item = made[(3, sample)]
            assert not item.buffers.motion.any()
            for t in (1, 2):
                assert torch.equal(item.target[t], item.target[0])
                noise = [item.buffers.primal[i] for i in (t - 1, t)]
                assert not torch.equal(*noise)

    def test_data_that_do_not_suffice(self, root: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="has 5 frames; windows have 7"):
            windows(root, length=7)
        with pytest.raises(LayoutError, match=r"lacks the buffer\(s\) roughness"):
            windows(root, (*NEEDS, "roughness"))
        broken = Path(shutil.copytree(root, tmp_path / "broken"))
        path = broken / "train" / "one" / "frame-0001" / "noisy-0.exr"
        buffers = FrameSet.open(broken).sequences[0][1].noisy(0)
        buffers.primal[2, 2] = float("nan")
        buffers.to_exr(path)
        with pytest.raises(NonFiniteError, match=r"frame-0001: NaN or infinity"):
            _ = windows(broken)[0]
        buffers.crop(0, 0, 16, 16).to_exr(path)
        with pytest.raises(FormatError, match="expected the same size"):
            _ = windows(broken)[0]


class TestAugmentation:
    """Of whole windows; of single frames see test_training."""

    def changed(self, window: Example, which: Augmentation, seed: int) -> Example:
        """What a step of training makes of a window."""
        kept: list[Example] = []

        class Task(SequenceTask):
            def reconstruct(self, model: object, batch: Example) -> torch.Tensor:
                kept.append(batch)
                return batch.buffers.primal

        config = TrainingConfig("rdae", ("x",), "out", augmentation=which)
        Task().step(None, Example.stack([window]), config, seeded(seed, "", 0))
        return kept[0][0]

    def test_window_changes_as_each_of_its_frames(self, root: Path) -> None:
        window, which = windows(root)[(0, 0)], Augmentation(depth=False)
        changes = set()
        for seed in range(8):
            changed = self.changed(window, which, seed)
            for t in range(3):
                generator = seeded(seed, "", 0)
                frame = Example(
                    FrameBuffers(window.buffers.data[t], window.buffers.layout),
                    window.target[t],
                    window.inner[t],
                    window.index,
                )
                expected = augment(frame, which, generator)
                assert torch.equal(changed.buffers.data[t], expected.buffers.data)
                assert torch.equal(changed.target[t], expected.target)
            changes.add(changed.target.sum().item())
        assert len(changes) == 8

    def test_motion_of_a_changed_window(self, root: Path) -> None:
        window = windows(root)[(0, 1)]
        which = Augmentation(permute=False, colour=False, brightness=False)
        for seed in range(8):
            changed = self.changed(window, which, seed)
            fetched = warp(changed.target[0], changed.buffers.motion[1][None])[0]
            inner = np.s_[3:-3, 3:-3]
            expected = changed.target[1, 0][inner]
            torch.testing.assert_close(fetched[inner], expected, rtol=1e-3, atol=1e-3)


class _Killed(BaseException):
    """Stands for a signal: nothing in between catches it."""


@pytest.mark.usefixtures("one_thread")
class TestRun:
    def config(self, data: Path, output: Path, **more: Any) -> TrainingConfig:
        values = {
            "method": "rdae-oidn", "data": [str(data)], "output": str(output), "steps": 6,
            "batch": 2, "checkpoint_every": 2, "validate_every": 4, "report_every": 1,
            "validation_examples": 2, "network": TINY, "guides": ["poisson-l2"],
            "sequence": {"length": 3, "size": 16}, **more,
        }  # fmt: skip
        return load_config(None, values)

    @pytest.mark.parametrize("at", [3, 5])
    def test_killed_and_resumed_equals_undisturbed(
        self, root: Path, tmp_path: Path, at: int
    ) -> None:
        path = run.train(self.config(root, tmp_path / "whole"))

        def kill(line: str) -> None:
            if line.startswith(f"step {at}/"):
                raise _Killed

        config = self.config(root, tmp_path / "killed")
        with pytest.raises(_Killed):
            run.train(config, report=kill)
        lines: list[str] = []
        again = run.train(config, resume=True, report=lines.append)
        first = next(line for line in lines if line.startswith("step"))
        assert first.startswith(f"step {(at - 1) // 2 * 2 + 1}/")  # not from the beginning
        expected, found = (read_weights(p)[0].state_dict() for p in (path, again))
        assert all(torch.equal(value, found[name]) for name, value in expected.items())

    def test_what_a_run_leaves(self, root: Path, tmp_path: Path) -> None:
        config = self.config(root, tmp_path / "run", validation_scenes=["second"])
        lines: list[str] = []
        path = run.train(config, report=lines.append)
        assert lines[0].startswith("rdae-oidn: 6 examples to train on, 3 to validate on, in")
        folder = tmp_path / "run"
        results = json.loads((folder / "validation" / "step-0000006.json").read_text())
        assert list(results) == ["primal", "poisson-l2", "output"]
        assert set(results["output"]) == {"relmse", "smape", "flicker"}
        # It starts as a running mean of the guide, so it is better than that from the beginning.
        for metric in ("relmse", "flicker"):
            assert results["output"][metric] < 0.9 * results["poisson-l2"][metric]
        card = (folder / "model-card.md").read_text()
        assert "| image | relMSE | SMAPE | flicker |" in card
        assert "mitsuba_gdpt.stream('rdae-oidn'" in card
        assert len(list((root.parent / "set.guides" / "poisson-l2").rglob("*.npy"))) > 4
        assert read_weights(path)[1].config == config.model
        frames = [frame.noisy(0) for frame in FrameSet.open(root).sequences[1]]
        images = list(denoise_sequence(frames, "rdae-oidn", weights=str(path)))
        assert images[-1].shape == (20, 24, 3)

    def test_it_learns(self, root: Path, tmp_path: Path) -> None:
        """On a wall with a pattern the error falls far below that of the primal."""
        config = self.config(
            root, tmp_path, method="rdae", guides=[], steps=80, batch=2, learning_rate=5e-3,
            schedule="one-cycle", average=0.9, validate_every=1000, checkpoint_every=1000,
            network={"stages": [8, 8, 8], "decoder": [8], "finest": [8, 8]},
        )  # fmt: skip
        run.train(config)
        results = json.loads((tmp_path / "validation" / "step-0000080.json").read_text())
        assert results["output"]["relmse"] < 0.3 * results["primal"]["relmse"]
        assert results["output"]["flicker"] < 0.3 * results["primal"]["flicker"]

    def test_scenes_are_never_on_both_sides(self, root: Path, tmp_path: Path) -> None:
        sets = run.open_sets(self.config(root, tmp_path))
        sides = [
            {s.scene for s in side.sequences}  # type: ignore[attr-defined]
            for side in (sets.training, sets.validation)
        ]
        assert (len(sides[0]), len(sides[1])) == (2, 1)
        assert not sides[0] & sides[1]
        config = self.config(root, tmp_path, scenes=["one", "third"], validation_scenes=["third"])
        sets = run.open_sets(config)
        assert [s.scene for s in sets.training.sequences] == ["one"]  # type: ignore[attr-defined]
        other = sequences.write(tmp_path / "other", ("dev",), split="test")
        sets = run.open_sets(self.config(root, tmp_path, validation=[str(other)]))
        assert len(sets.training.sequences) == 3  # type: ignore[attr-defined]
        assert [s.scene for s in sets.validation.sequences] == ["dev"]  # type: ignore[attr-defined]
        with pytest.raises(ConfigError, match="0 sequences are left to train on"):
            run.open_sets(self.config(other, tmp_path))  # never on the folder test
        measured = sequences.write(tmp_path / "measured", ("staircase2", "attic"))
        config = self.config(measured, tmp_path, validation_scenes=["attic"])
        with pytest.raises(ConfigError, match=r"staircase2 \(catalogue 'dev'\)"):
            run.open_sets(config)
        run.open_sets(self.config(measured, tmp_path, validation_scenes=["staircase2"]))
        run.open_sets(replace(config, measured_scenes=True))
        with pytest.raises(ConfigError, match="no scene nowhere; there are: one, second, third"):
            run.open_sets(self.config(root, tmp_path, validation_scenes=["nowhere"]))

    def test_guides_are_those_of_whole_frames(self, root: Path, tmp_path: Path) -> None:
        sets = run.open_sets(self.config(root, tmp_path))
        item = sets.validation[0]
        model = make_model(self.config(root, tmp_path).model)
        assert isinstance(model, RecurrentModel)
        assert item.inner.shape == item.target.shape == (3, 1, 20, 24, 3)
        crop = sets.training[(0, 5)].inner[0, 0]
        frames = sets.training.sequences[0]  # type: ignore[attr-defined]
        from mitsuba_gdpt.denoisers import denoise

        whole = [denoise(f.noisy(k), "poisson-l2").half().float() for f in frames for k in (0, 1)]
        assert any(
            torch.equal(crop, image[y : y + 16, x : x + 16])
            for image in whole
            for y, x in np.ndindex(5, 9)
        )

    def test_foreign_set(self, tmp_path: Path) -> None:
        data = sequences.write_foreign(tmp_path / "foreign")
        more = {"method": "rdae-plain", "guides": [], "validation": [str(data)], "steps": 2}
        lines: list[str] = []
        path = run.train(self.config(data, tmp_path / "run", **more), report=lines.append)
        assert "normals in world space: no flips and transpositions" in lines
        assert read_weights(path)[0].needs == ("primal", "normal", "depth")
        frames = FrameSet.open(data).sequences[0]
        window = run.open_sets(self.config(data, tmp_path, **more)).validation[0]
        for t in range(3):
            for name in ("depth", "normal"):  # those of the target: the others are noisy
                assert torch.equal(window.buffers[name][t], frames[t].target()[name])
                assert not torch.equal(window.buffers[name][t], frames[t].noisy(0)[name])
            assert torch.equal(window.buffers.primal[t], frames[t].noisy(0).primal)
        config = self.config(data, tmp_path / "b", method="rdae", guides=[], validation=[str(data)])
        with pytest.raises(LayoutError, match=r"lacks the buffer\(s\) albedo.*rdae-plain"):
            run.open_sets(config)

    def test_one_scene(self, tmp_path: Path) -> None:
        """Is validated on the folder test, or on its own end; no frame is on both sides."""
        data = sequences.write(tmp_path / "set", ("one",), frames=9)
        config = self.config(data, tmp_path)

        def frames() -> list[list[tuple[str, int]]]:
            sets = run.open_sets(config)
            return [
                [(s.scene, f.index) for s in side.sequences for f in s]  # type: ignore[attr-defined]
                for side in (sets.training, sets.validation)
            ]

        assert frames() == [[("one", i) for i in range(6)], [("one", i) for i in (6, 7, 8)]]
        sequences.write(data, ("other",), split="test")
        assert frames() == [[("one", i) for i in range(9)], [("other", i) for i in range(5)]]
        short = sequences.write(tmp_path / "short", ("one",), frames=5)
        with pytest.raises(ConfigError, match="0 to validate on"):
            run.open_sets(self.config(short, tmp_path))

    def test_bad_settings(self, root: Path, tmp_path: Path) -> None:
        for changes, message in (
            ({"terms": {"l1": 1.0}}, "unknown loss l1; known: spatial, edges, temporal"),
            ({"loss": "smape"}, "unknown loss smape"),
            ({"sequence": {"length": 0}}, "sequence.length is 0; expected at least 1"),
            ({"sequence": {"stop": 2.0}}, "sequence.stop is 2.0; expected a finite"),
            ({"sequence": {"reverse": float("nan")}}, "sequence.reverse is nan; expected a finite"),
            ({"network": {"head": "sideways"}}, "sideways"),
            ({"network": {"colour": 1}}, "no entry colour"),
            ({"method": "rdae"}, "sees no images of other methods"),
            ({"method": "ngpt-poisson", "network": {}, "guides": []}, "sees single frames"),
        ):
            with pytest.raises(ConfigError, match=message):
                self.config(root, tmp_path, **changes)

    def test_parts_of_the_model_are_settings(self, root: Path, tmp_path: Path) -> None:
        network = {**TINY, "warp": True, "adaptation": 0.5}
        config = self.config(root, tmp_path, method="rdae-grad", guides=[], network=network)
        assert (config.model.warp, config.model.adaptation) == (True, 0.5)
        assert config.model.needs == Layout.make().names[:1] + NEEDS[1:3] + NEEDS[4:6] + ("albedo",)
        assert config.model.network.inputs == 13
