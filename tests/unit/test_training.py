"""Training: losses, augmentation, examples and guides, configuration, kill and resume."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mitsuba_gdpt import progress
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import DERIVED, Layout
from mitsuba_gdpt.denoisers import Call, denoise, load_weights
from mitsuba_gdpt.denoisers.images import warp
from mitsuba_gdpt.denoisers.learned import weights
from mitsuba_gdpt.denoisers.learned.features import Padding
from mitsuba_gdpt.denoisers.learned.methods import PRESETS
from mitsuba_gdpt.denoisers.learned.weights import find_weights, make_model, read_weights
from mitsuba_gdpt.errors import (
    ConfigError,
    FormatError,
    LayoutError,
    MissingDependencyError,
    NonFiniteError,
)
from mitsuba_gdpt.training import augment, folder, losses, page, run
from mitsuba_gdpt.training.augment import Augmentation
from mitsuba_gdpt.training.config import TrainingConfig, load_config
from mitsuba_gdpt.training.crops import Crops, split
from mitsuba_gdpt.training.examples import Example, StepBatches, worker_options
from mitsuba_gdpt.training.guides import GuideCache
from mitsuba_gdpt.training.module import Training, learning_rate_factor
from mitsuba_gdpt.training.recipes import recipes
from mitsuba_gdpt.training.tasks import loss_window
from tests import examples as made_up

LAYOUT = Layout.make(features=("position", "diffuse", "specular"), variances=True)
TINY = {"growth": [4, 4], "units": [1, 1], "down": [4], "up": [4], "patch": 1}


def reinhard(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return x / (1 + np.abs(x).mean(-1, keepdims=True))


def huber(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < 0.5, x**2 / 2, 0.5 * (np.abs(x) - 0.25))


class TestLosses:
    """Against formulas written out in NumPy."""

    @pytest.fixture
    def pair(self) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        p, y = torch.randn(2, 2, 5, 6, 3, generator=generator).exp()
        return p - 0.5, y

    def test_values(self, pair: tuple[torch.Tensor, torch.Tensor]) -> None:
        p, y = (x.double().numpy() for x in pair)
        error = p - y
        grey, bright = (x.mean(-1, keepdims=True) ** 2 + 0.01 for x in (p, y))
        dx = [x[:, :, 1:] - x[:, :, :-1] for x in (p, y)]
        dy = [x[:, 1:] - x[:, :-1] for x in (p, y)]
        expected = {
            "l1": np.abs(error).mean(),
            "l1-tonemapped": np.abs(reinhard(p) - reinhard(y)).mean(),
            "gradient-l1-tonemapped": np.abs(reinhard(dx[0]) - reinhard(dx[1])).mean()
            + np.abs(reinhard(dy[0]) - reinhard(dy[1])).mean(),
            "smape": (np.abs(error) / (np.abs(p) + np.abs(y) + 0.01)).mean(),
            "relative-l2": (error**2 / grey).mean(),
            "gradient-relative-l2": ((dx[0] - dx[1]) ** 2 / grey[:, :, 1:]).mean()
            + ((dy[0] - dy[1]) ** 2 / grey[:, 1:]).mean(),
            "log-noise2noise": np.log(1e-4 + (error**2 / grey).mean((1, 2, 3))).mean(),
            "log-relative-l2": np.log(1e-4 + (error**2 / bright).mean((1, 2, 3))).mean(),
            "log-relative-l1": np.log(
                1e-3 + (np.abs(error) / np.sqrt(bright)).mean((1, 2, 3))
            ).mean(),
            "log-l1-tonemapped": np.log(
                1e-3 + np.abs(reinhard(p) - reinhard(y)).mean((1, 2, 3))
            ).mean(),
            "relative-huber": huber(error / np.sqrt(grey)).mean(),
        }
        assert set(expected) == set(losses.TERMS)
        for name, value in expected.items():
            assert losses.TERMS[name](*pair).item() == pytest.approx(value, rel=1e-4), name

    def test_border_has_no_gradient(self) -> None:
        """A ramp has the same difference everywhere, so the last column must not count as zero."""
        ramp = torch.arange(6.0).view(1, 1, 6, 1).expand(1, 5, 6, 3)
        assert losses.gradient_l1_tonemapped(ramp + 3, ramp).item() == pytest.approx(0, abs=1e-6)

    @pytest.mark.parametrize("name", sorted(losses.TERMS))
    def test_which_are_unbiased_under_noise(self, name: str) -> None:
        """Is the mean of noisy targets where the loss against them is least?

        The noise is skewed, as that of radiance is: exponential, around a mean with edges.
        """
        generator = torch.Generator().manual_seed(0)
        mean = 1 + 4 * torch.rand(1, 4, 5, 3, generator=generator)
        y = mean * -torch.rand(5000, 4, 5, 3, generator=generator).clamp_min(1e-6).log()
        p = y.mean(0, keepdim=True).requires_grad_()
        (gradient,) = torch.autograd.grad(losses.TERMS[name](p.expand_as(y), y), p)
        # In units of the gradient where the prediction is wrong by a tenth.
        wrong = (0.9 * p).detach().requires_grad_()
        (scale,) = torch.autograd.grad(losses.TERMS[name](wrong.expand_as(y), y), wrong)
        bias = float(gradient.abs().mean() / scale.abs().mean())
        if name in losses.UNBIASED:
            assert bias < 1e-3
        else:
            assert bias > 0.3

    def test_huber_is_nearly_unbiased_under_moderate_noise_and_ignores_fireflies(self) -> None:
        """Skewed noise of a quarter, and one target in fifty that is a hundred times too bright."""
        generator = torch.Generator().manual_seed(0)
        mean = 1 + 4 * torch.rand(1, 4, 5, 3, generator=generator)
        noise = -torch.rand(5000, 16, 4, 5, 3, generator=generator).clamp_min(1e-6).log()
        y = mean * noise.mean(1)
        for term, fireflies, bound in (
            ("relative-huber", False, 0.06),
            ("relative-huber", True, 0.2),
            ("relative-l2", True, None),
        ):
            if fireflies:
                y = y.clone()
                y[::50] = 100 * mean
            p = mean.clone().requires_grad_()
            optimiser = torch.optim.Adam([p], lr=0.02)
            for _ in range(300):
                optimiser.zero_grad()
                losses.TERMS[term](p.expand_as(y), y).backward()
                optimiser.step()
            off = float((p / mean - 1).detach().abs().mean())
            assert off < bound if bound is not None else off > 0.5, (term, fireflies)

    def test_noise_biases_the_logarithm_of_an_image_the_less_the_larger_it_is(self) -> None:
        generator = torch.Generator().manual_seed(0)
        biases = []
        for pixels in (20, 20 * 64):
            mean = 1 + 4 * torch.rand(1, 1, 20, 3, generator=generator)
            noise = torch.rand(100_000 // pixels, pixels // 20, 20, 3, generator=generator)
            y = mean * -noise.clamp_min(1e-6).log()
            slopes = []
            for share in (1.0, 0.9):  # of what the targets are on average
                p = (share * y.mean((0, 1))).requires_grad_()
                losses.log_noise2noise(p.expand_as(y), y).backward()
                assert p.grad is not None
                slopes.append(float(p.grad.abs().mean()))
            biases.append(slopes[0] / slopes[1])
        assert biases[0] > 0.3
        assert biases[1] < 0.02

    def test_terms_are_weighted(self) -> None:
        p, a = torch.rand(2, 2, 8, 8, 3)
        values = losses.Loss({"l1": 2.0, "smape": 0.5})(p[:, None], a[:, None])
        expected = 2 * losses.l1(p, a) + 0.5 * losses.smape(p, a)
        torch.testing.assert_close(values["loss"], expected)
        assert set(values) == {"l1", "smape", "loss"}

    def test_bad_terms(self) -> None:
        with pytest.raises(ConfigError, match="unknown loss l3"):
            losses.Loss({"l3": 1.0})
        with pytest.raises(ConfigError, match="without terms"):
            losses.Loss({"l1": 0.0})

    def test_loss_of_the_paper(self, shared_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MITSUBA_GDPT_PERCEPTUAL_WEIGHTS", str(shared_dir / "weights"))
        loss = losses.Loss(losses.LOSSES["ngpt"])
        p = torch.rand(1, 114, 114, 3, requires_grad=True)
        y = torch.rand(1, 1, 114, 114, 3)
        values = [loss(p, y[:, 0], torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
        assert set(values[0]) == {"elpips", "l1-tonemapped", "gradient-l1-tonemapped", "loss"}
        assert values[0]["elpips"] == values[1]["elpips"] != values[2]["elpips"]
        values[0]["loss"].backward()
        assert p.grad is not None
        assert p.grad.abs().sum() > 0
        same = loss(y, y, torch.Generator().manual_seed(1))
        assert float(same["loss"]) == pytest.approx(0, abs=1e-6)


def example(height: int = 6, width: int = 6) -> Example:
    """A plane seen by a camera, with radiance of which the gradients are exact.

    Geometry comes from a formula: camera space has +X left and +Y up, the image x right and y
    down, so that the pixel (y, x) of a pinhole camera looks along (-u, -v, 1).
    """
    generator = torch.Generator().manual_seed(0)
    data = torch.rand(height, width, LAYOUT.count, generator=generator)
    images = torch.rand(2, height, width, 3, generator=generator)
    result = made_up.frame(data, LAYOUT, images)
    primal = result.buffers["primal"]
    for name, dim in (("dx", 1), ("dy", 0)):
        difference = torch.zeros_like(primal)
        difference.narrow(dim, 0, primal.shape[dim] - 1)[:] = primal.diff(dim=dim)
        result.buffers[name][:] = difference
        result.buffers[name + ".var"].select(dim, -1)[:] = 0
    normal = torch.tensor([0.3, -0.5, -1.0])
    result.buffers["normal"][:] = normal / normal.norm()
    result.buffers["position"][:] = intersect(normal, height, width)
    return result


def intersect(normal: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Camera-space points of the plane through (0, 0, 4) with this normal, (H, W, 3)."""
    v, u = torch.meshgrid(
        (torch.arange(height) + 0.5 - height / 2) / height,
        (torch.arange(width) + 0.5 - width / 2) / width,
        indexing="ij",
    )
    direction = torch.stack([-u, -v, torch.ones_like(u)], -1)
    return direction * (4 * normal[2] / (direction @ normal))[..., None]


CHANGES = {
    "flip x": lambda e: augment.flip(e, augment.X),
    "flip y": lambda e: augment.flip(e, augment.Y),
    "both": lambda e: augment.flip(augment.flip(e, augment.Y), augment.X),
    "transpose": augment.transpose,
    "rotate": lambda e: augment.transpose(augment.flip(e, augment.X)),
}


class TestAugmentation:
    @pytest.mark.parametrize("change", CHANGES)
    def test_gradients_stay_differences(self, change: str) -> None:
        changed = CHANGES[change](example())
        primal = changed.buffers["primal"]
        for name, dim in (("dx", 1), ("dy", 0)):
            gradient = changed.buffers[name]
            length = primal.shape[dim] - 1
            torch.testing.assert_close(gradient.narrow(dim, 0, length), primal.diff(dim=dim))
            assert not gradient.select(dim, -1).any()
            assert not changed.buffers[name + ".var"].select(dim, -1).any()

    @pytest.mark.parametrize("change", CHANGES)
    def test_geometry_is_that_of_a_changed_camera(self, change: str) -> None:
        """The changed normals and points are what the camera sees of the changed plane."""
        changed = CHANGES[change](example())
        normal = changed.buffers["normal"][0, 0]
        torch.testing.assert_close(changed.buffers["position"], intersect(normal, 6, 6))

    @pytest.mark.parametrize("change", CHANGES)
    def test_variances_go_with_their_differences(self, change: str) -> None:
        """If the variance of each difference is its square, it still is afterwards."""
        start = example()
        for name in ("dx", "dy"):
            start.buffers[name + ".var"][:] = start.buffers[name].square().mean(-1, keepdim=True)
        changed = CHANGES[change](start)
        for name in ("dx", "dy"):
            expected = changed.buffers[name].square().mean(-1, keepdim=True)
            torch.testing.assert_close(changed.buffers[name + ".var"], expected)

    @pytest.mark.parametrize("change", CHANGES)
    def test_images_go_with_the_primal(self, change: str) -> None:
        start = example()
        start.target[0] = start.buffers["primal"]
        changed = CHANGES[change](start)
        torch.testing.assert_close(changed.target[0], changed.buffers["primal"])

    def test_undone_by_repetition(self) -> None:
        start = example()
        for change in ("flip x", "flip y", "transpose"):
            twice = CHANGES[change](CHANGES[change](start))
            torch.testing.assert_close(twice.buffers.data, start.buffers.data)
            torch.testing.assert_close(twice.target, start.target)

    def test_colours(self) -> None:
        start = example()
        factors = torch.tensor([0.5, 2.0, 0.1])
        changed = augment.multiply(augment.permute(start, (2, 0, 1)), factors, 3.0)
        for name in ("primal", "dx", "dy", "diffuse", "specular"):
            expected = start.buffers[name][..., [2, 0, 1]] * factors * 3
            torch.testing.assert_close(changed.buffers[name], expected)
        expected = start.buffers["albedo"][..., [2, 0, 1]] * factors
        torch.testing.assert_close(changed.buffers["albedo"], expected)
        torch.testing.assert_close(changed.target, start.target[..., [2, 0, 1]] * factors * 3)
        for name in ("normal", "depth", "position", "normal.var", "depth.var"):
            assert torch.equal(changed.buffers[name], start.buffers[name])
        gain = (factors * 3).square().mean()
        torch.testing.assert_close(changed.buffers["dx.var"], start.buffers["dx.var"] * gain)
        gain = factors.square().mean()
        torch.testing.assert_close(
            changed.buffers["albedo.var"], start.buffers["albedo.var"] * gain
        )

    def test_the_example_is_not_written_to(self) -> None:
        start = example()
        before = start.buffers.data.clone(), start.target.clone()
        for seed in range(8):
            augment.augment(start, Augmentation(), torch.Generator().manual_seed(seed))
        assert torch.equal(start.buffers.data, before[0])
        assert torch.equal(start.target, before[1])

    def test_distribution_and_switches(self) -> None:
        start = made_up.frame(torch.ones(2, 2, LAYOUT.count), LAYOUT, torch.ones(1, 2, 2, 3))
        only = dict.fromkeys(Augmentation.__dataclass_fields__, False)

        def means(name: str) -> torch.Tensor:
            which = Augmentation(**{**only, name: True})
            generator = torch.Generator().manual_seed(0)
            drawn = [augment.augment(start, which, generator).target for _ in range(1500)]
            return torch.stack(drawn)[:, 0, 0, 0]

        factors = means("colour")
        torch.testing.assert_close(factors.mean(0), torch.ones(3), rtol=0, atol=0.08)
        torch.testing.assert_close(factors.std(0), torch.full((3,), 0.5**0.5), rtol=0, atol=0.08)
        torch.testing.assert_close(factors.sum(1), torch.full((1500,), 3.0))
        brightness = means("brightness")[:, 0]
        assert brightness.log().mean() == pytest.approx(-0.5, abs=0.08)
        assert brightness.log().std() == pytest.approx(1, abs=0.08)
        none = augment.augment(start, Augmentation(**only), torch.Generator())
        assert torch.equal(none.buffers.data, start.buffers.data)

    def test_motion_goes_on_pointing_to_the_same_content(self) -> None:
        """A frame fetched from the one before by its motion, before and after each change."""
        layout = Layout((*Layout.make().buffers, *DERIVED))
        before = torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(0))
        data = torch.zeros(8, 8, layout.count)
        data[..., layout.slices["motion"]] = torch.tensor([1.0, -2.0])
        start = made_up.frame(data, layout, before[None])
        now = warp(before[None], start.buffers["motion"][None])
        for change in CHANGES.values():
            changed = change(start)
            moved = warp(changed.target, changed.buffers["motion"][None])
            expected = change(made_up.frame(data, layout, now)).target
            torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-4)


class Toy:
    """A data set in memory with the interface of ``CropDataset``."""

    layout = Layout.make(variances=True)

    def __init__(self, count: int = 10, size: int = 20, halves: int = 2) -> None:
        self.count, self.size, self.halves = count, size, halves

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        clean = torch.rand(3, generator=generator).expand(self.size, self.size, 3)
        shape = (self.halves, self.size, self.size, 3)
        targets = clean * -torch.rand(shape, generator=generator).clamp_min(1e-6).log()
        data = torch.rand(self.size, self.size, self.layout.count, generator=generator)
        data[..., self.layout.slices["primal"]] = targets[0].flip(0)
        return {"buffers": data, "targets": targets, "index": torch.tensor(index)}


class TestExamples:
    def test_guides_are_computed_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = GuideCache(tmp_path / "guides", ("poisson-l2", "none"))
        examples = Crops(Toy(), range(4), ("primal", "albedo"), cache)
        first = [examples[i] for i in range(4)]
        assert examples.layout.names == ("primal", "albedo")
        assert first[0].buffers.data.shape == (1, 20, 20, 6)
        assert first[0].target.shape == first[0].inner.shape == (1, 2, 20, 20, 3)
        buffers = FrameBuffers(Toy()[1]["buffers"], Toy.layout)
        torch.testing.assert_close(
            first[1].inner[0, 0], denoise(buffers, "poisson-l2"), rtol=1e-3, atol=1e-3
        )
        torch.testing.assert_close(first[1].target[0], Toy()[1]["targets"])
        monkeypatch.setattr(Call, "__call__", None)
        for one, other in zip(first, (examples[i] for i in range(4)), strict=True):
            assert torch.equal(one.inner, other.inner)
        # They go with the buffers, not with the position.
        shifted = Crops(Toy(), [3, 2], ("primal", "albedo"), cache)
        assert torch.equal(shifted[0].inner, first[3].inner)
        (tmp_path / "guides").rename(tmp_path / "away")
        with pytest.raises(TypeError):  # nothing but the files could have answered
            _ = examples[0]

    def test_guides_of_a_network_go_with_its_weights(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Other weights make other images; those of the old ones must not be taken for them."""
        buffers = FrameBuffers(Toy()[1]["buffers"], Toy.layout)
        cache = GuideCache(tmp_path / "guides", ("ngpt-small",))
        first = cache.images(buffers)
        shipped = find_weights("ngpt-small")
        monkeypatch.setattr(weights, "folders", lambda: [tmp_path / "weights"])
        (tmp_path / "weights").mkdir()
        model = make_model(
            load_config(None, {"method": "ngpt-small", "data": ["a"], "output": "o"}).model
        )
        weights.save_weights(
            model, tmp_path / "weights", name="ngpt-small", tag="new", recipe="none", commit="0",
            licence="BSD-3-Clause",
        )  # fmt: skip
        assert not torch.equal(cache.images(buffers), first)
        names = {path.name for path in (tmp_path / "guides").iterdir()}
        assert shipped.stem in names
        assert len(names) == 2

    def test_targets_can_be_reconstructed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Rich(Toy):
            def target_buffers(self, index: int) -> FrameBuffers:
                data = self[index]["buffers"].clone()
                data[..., self.layout.slices["primal"]] = self[index]["targets"].mean(0)
                return FrameBuffers(data, self.layout)

        guides = GuideCache(tmp_path, ("none",))
        examples = Crops(
            Rich(), range(2), ("primal",), guides, GuideCache(tmp_path, ["poisson-l2"])
        )
        assert examples.targets == 1
        target = examples[1].target
        decoded = Rich.target_buffers
        monkeypatch.setattr(Rich, "target_buffers", None)
        assert torch.equal(examples[1].target, target), "kept, without the other renders"
        monkeypatch.setattr(Rich, "target_buffers", decoded)
        assert target.shape == (1, 1, 20, 20, 3)
        expected = denoise(Rich().target_buffers(1), "poisson-l2")
        torch.testing.assert_close(target[0, 0], expected, rtol=1e-3, atol=1e-3)
        primal = examples[1].buffers.primal
        torch.testing.assert_close(examples[1].inner[:, 0], primal, rtol=1e-3, atol=1e-3)

    def test_workers_where_oidn_has_run(self) -> None:
        """Its threads would be missing in forked processes, which would wait for ever."""
        pytest.importorskip("mitsuba_oidn")
        examples = Crops(Toy(), range(2), ("primal",), GuideCache(None, ("oidn",)))
        expected = [examples[index].inner for index in range(2)]
        loader = DataLoader(examples, batch_size=None, timeout=200, **worker_options(1))
        for example, images in zip(loader, expected, strict=True):
            torch.testing.assert_close(example.inner, images, rtol=1e-2, atol=1e-3)

    @pytest.mark.parametrize("length", [0, 5, 200])
    def test_damaged_guide_is_made_anew(self, tmp_path: Path, length: int) -> None:
        examples = Crops(Toy(), range(1), ("primal",), GuideCache(tmp_path, ("none",)))
        expected = examples[0].inner
        (file,) = tmp_path.rglob("*.npy")
        whole = file.read_bytes()
        file.write_bytes(whole[:length])
        assert torch.equal(examples[0].inner, expected)
        assert file.read_bytes() == whole

    def test_missing_buffer_is_an_error(self) -> None:
        with pytest.raises(LayoutError, match=r"lack the buffer\(s\) diffuse"):
            Crops(Toy(), range(1), ("primal", "diffuse"), GuideCache(None, ()))
        guides = GuideCache(None, ("oidn-fusion(using=kpcn-small)",))
        with pytest.raises(LayoutError, match=r"lack the buffer\(s\) diffuse"):
            Crops(Toy(), range(1), ("primal",), guides)

    def test_batches_are_permutations_and_can_start_anywhere(self) -> None:
        batches = list(StepBatches(count=7, batch=3, steps=14, seed=5))
        flat = [index for batch in batches for index, _ in batch]
        assert [sample for batch in batches for _, sample in batch] == list(range(42))
        passes = [flat[i : i + 7] for i in range(0, 42, 7)]
        assert all(sorted(one) == list(range(7)) for one in passes)
        assert len({tuple(one) for one in passes}) > 1
        for start in (1, 5, 13):
            assert list(StepBatches(7, 3, 14, 5, start=start)) == batches[start:]
        assert list(StepBatches(7, 3, 14, 6)) != batches

    @pytest.mark.parametrize("count", [2, 3, 8])
    def test_some_of_a_small_set_is_held_out(self, count: int) -> None:
        crops = [("scene", str(crop)) for crop in range(count) for _ in range(5)]
        for holdout in (0.001, 0.05, 0.5):
            kept, held = split(crops, holdout, ())
            assert kept
            assert held
            assert len(held) % 5 == 0
            assert sorted(kept + held) == list(range(5 * count))
        assert split(crops, 0.0, ()) == (list(range(5 * count)), [])
        assert split(crops[:5], 0.05, ())[0] == list(range(5))  # one crop is for training

    def test_split_is_by_crop_and_stable(self) -> None:
        crops = [(f"scene{s}", f"{c}") for s in range(4) for c in range(100) for _ in range(3)]
        kept, held = split(crops, 0.1, ())
        assert sorted(kept + held) == list(range(1200))
        assert 60 < len(held) < 180
        assert not {crops[i] for i in kept} & {crops[i] for i in held}
        grown, held_of_grown = split(crops + [("scene9", "1")], 0.1, ())
        assert set(kept) <= set(grown)
        assert set(held) <= set(held_of_grown)
        kept, held = split(crops, 0.1, ("scene2",))
        assert {crops[i][0] for i in held} == {"scene2"}
        assert "scene2" not in {crops[i][0] for i in kept}


class TestConfig:
    def test_flags_precede_the_file(self, tmp_path: Path) -> None:
        file = tmp_path / "c.toml"
        file.write_text(
            'method = "ngpt"\ndata = ["a"]\noutput = "o"\nsteps = 7\nlearning_rate = 1\n'
            "[augmentation]\nflip = false\n[terms]\nl1 = 2\n"
        )
        config = load_config(file, {"steps": 9, "terms.smape": 1, "batch": 3})
        assert (config.steps, config.batch, config.learning_rate) == (9, 3, 1.0)
        assert config.augmentation == Augmentation(flip=False)
        assert config.loss_terms == {"l1": 2.0, "smape": 1.0}
        assert isinstance(config.learning_rate, float)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"method": "x"}, "method is 'x'"),
            ({"steps": 0}, "steps is 0"),
            ({"steps": "many"}, "configuration.steps is 'many'"),
            ({"nonsense": 1}, "no entry nonsense"),
            ({"augmentation.spin": True}, "no entry spin"),
            ({"network.depth": 3}, "no entry depth"),
            ({"network.down": [1]}, "expected L, L, L-1, L-1"),
            ({"average": 1.0}, "average is 1.0"),
            ({"loss": "l9"}, "loss is 'l9'"),
            ({"data": []}, "no data"),
            ({"method": "rdae", "resident": True}, "resident is true"),
        ],
    )
    def test_bad_values(self, change: dict[str, Any], message: str) -> None:
        values = {"method": "ngpt-small", "data": ["a"], "output": "o", **change}
        with pytest.raises(ConfigError, match=message):
            load_config(None, values)

    def test_guides_can_be_replaced(self) -> None:
        values = {"method": "ngpt-oidn", "data": ["a"], "output": "o"}
        assert load_config(None, values).model.guides == ("oidn",)
        model = load_config(None, values | {"guides": ["oidn", "poisson-l1,alpha=0.1"]}).model
        assert model.guides == model.inputs.guides == ("oidn", "poisson-l1,alpha=0.1")
        assert make_model(model)(
            torch.rand(1, 8, 8, LAYOUT.count), LAYOUT, torch.rand(1, 2, 8, 8, 3)
        ).shape == (1, 8, 8, 3)
        with pytest.raises(ConfigError, match="'oidn' has no option 'alpha'"):
            load_config(None, values | {"guides": ["oidn,alpha=1"]})
        with pytest.raises(ConfigError, match="sees no images"):
            load_config(None, values | {"method": "ngpt", "guides": ["oidn"]})

    def test_bad_files(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match="no such file"):
            load_config(tmp_path / "none.toml")
        (tmp_path / "c.toml").write_text("steps = ")
        with pytest.raises(FormatError, match="cannot read this TOML"):
            load_config(tmp_path / "c.toml")

    def test_schedule_of_the_paper(self) -> None:
        """The values of the original, at its own length."""
        first, third = (load_config(None, {"method": f"ngpt-{n}", "data": ["a"], "output": "o"})
                        for n in (100, 102))  # fmt: skip
        for step, rate in ((0, 5e-8), (5_000, 5e-6), (50_000, 5e-4), (120_000, 2.5e-4),
                           (600_000, 2.15e-6)):  # fmt: skip
            value = 5e-4 * learning_rate_factor(first, step, 10_000)
            assert value == pytest.approx(rate, rel=0.01)
        assert learning_rate_factor(third, 135_000, 10_000) == pytest.approx(0.5)
        shorter = dataclasses.replace(first, steps=600)
        assert learning_rate_factor(shorter, 50, 1) == pytest.approx(
            learning_rate_factor(first, 50_000, 1)
        )

    def test_schedule_of_the_recurrent_original(self) -> None:
        config = load_config(None, {"method": "rdae", "data": ["a"], "output": "o"})
        assert (config.learning_rate, config.batch) == (1e-3, 10)
        factors = [learning_rate_factor(config, step, 40) for step in (0, 3, 4, 8, 12)]
        assert factors == pytest.approx([1, 1, 2**-0.5, 3**-0.5, 0.5])

    def test_recipes_are_the_configurations_of_the_original(self) -> None:
        models = {}
        for number in range(100, 107):
            values = {"method": f"ngpt-{number}", "data": ["a"], "output": "o"}
            config = load_config(None, values)
            assert (config.steps, config.batch, config.beta2) == (600_000, 20, 0.99)
            assert config.loss == ("ngpt-l1" if number in (102, 103) else "ngpt")
            models[number] = config.model
        assert [models[n].inputs.channels for n in range(100, 104)] == [16, 10, 16, 10]
        assert models[100] == models[102]
        resampling = [(m.network.pool, m.network.unpool) for m in map(models.get, range(104, 107))]
        assert resampling == [
            ("lanczos", "lanczos"), ("average", "bilinear"), ("average", "nearest"),
        ]  # fmt: skip
        values = {"method": "ngpt-104", "data": ["a"], "output": "o", "steps": 5, "tag": "x"}
        assert load_config(None, values).steps == 5

    def test_every_recipe_can_be_trained(self) -> None:
        for name in recipes():
            config = load_config(None, {"method": name, "data": ["a"], "output": "o"})
            assert config.method in PRESETS

    def test_optional_inputs(self) -> None:
        values = {"method": "ngpt-small", "data": ["a"], "output": "o"}
        plain = load_config(None, values).model
        config = load_config(None, values | {"inputs": ["variances", "specular"]})
        names = [feature.source for feature in config.model.inputs.features]
        kept = [feature.source for feature in plain.inputs.features]
        variances = [f"{name}.var" for name in (*kept, "specular")]
        assert names == [*kept, "specular", *variances]
        layout = Layout.make(features=("diffuse", "specular"), variances=True)
        data = torch.rand(1, 8, 8, layout.count)
        assert make_model(config.model)(data, layout).shape == (1, 8, 8, 3)
        with pytest.raises(ConfigError, match="got colours; expected some of diffuse, specular"):
            load_config(None, values | {"inputs": ["colours"]})
        less = load_config(None, values | {"inputs": ["-depth", "-dx", "variances"]}).model
        kept = [name for name in kept if name not in ("depth", "dx")]
        assert [f.source for f in less.inputs.features] == [*kept, *(f"{n}.var" for n in kept)]
        with pytest.raises(ConfigError, match="got -primal; what can be taken away is dx, dy, alb"):
            load_config(None, values | {"inputs": ["-primal"]})
        with pytest.raises(ConfigError, match="got -dx; what can be taken away is"):
            load_config(None, values | {"method": "ngpt-oidn", "inputs": ["-dx"]})
        with pytest.raises(ConfigError, match="has no optional inputs; got diffuse"):
            load_config(None, values | {"method": "rdae", "inputs": ["diffuse"]})

    def test_every_pixel_of_a_crop_counts_in_the_loss(self) -> None:
        """Over all shifts as often as in the original: 1 to 14 times at the borders, 15 inside."""
        ramp = torch.arange(36.0)[None, None, :, None].expand(1, 20, 36, 3)
        counts = torch.zeros(36, dtype=torch.int64)
        for x in range(-7, 8):
            window = loss_window(ramp, 7, [(x, 0)])
            assert window.shape == (1, 6, 22, 3)
            counts[window[0, 0, :, 0].long()] += 1
        rise = list(range(1, 15))
        assert counts.tolist() == rise + [15] * 8 + rise[::-1]

    @pytest.mark.parametrize("shift", [(0, 0), (7, -7), (-3, 5)])
    def test_loss_window_is_that_of_the_padded_crop(self, shift: tuple[int, int]) -> None:
        image = torch.rand(1, 24, 32, 3, generator=torch.Generator().manual_seed(0))
        padded = Padding.around(24, 32, 8, shift).apply(image, "primal")
        assert torch.equal(loss_window(image, 7, [shift]), padded[:, 15:-15, 15:-15])

    def test_loss_window_without_border(self) -> None:
        image = torch.rand(2, 5, 6, 3)
        assert torch.equal(loss_window(image, 0, [(7, 7), (-7, 0)]), image)
        assert torch.equal(loss_window(image, 3, [(7, 7), (-7, 0)]), image)  # nothing is left

    def test_every_example_has_its_own_shift(self) -> None:
        """And the network sees it: the same crop twice, moved and not."""
        values = {"method": "ngpt-small", "data": ["a"], "output": "o", "network": TINY}
        model = make_model(load_config(None, values).model).eval()
        data = torch.rand(1, 16, 16, LAYOUT.count).expand(2, -1, -1, -1)
        moved = model.vary(data, LAYOUT, shifts=[(0, 0), (5, -2)], depth_scale=None)
        torch.testing.assert_close(moved[:1], model(data[:1], LAYOUT))
        alone = model.vary(data[:1], LAYOUT, shifts=[(5, -2)], depth_scale=None)
        torch.testing.assert_close(moved[1:], alone)
        assert (moved[0] - moved[1]).abs().max() > 1e-3


class _Killed(BaseException):
    """Stands for a signal: nothing in between catches it."""


@pytest.mark.usefixtures("one_thread")
class TestRun:
    @pytest.fixture(autouse=True)
    def _quiet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Writing a report takes longer than these runs; test_run_page.py does it.
        monkeypatch.setattr(page, "obstacle", lambda: MissingDependencyError("not here"))

    def config(self, output: Path, **more: Any) -> TrainingConfig:
        values = {
            "method": "ngpt-poisson", "data": ["toy"], "output": str(output), "steps": 6,
            "batch": 2, "checkpoint_every": 2, "validate_every": 4, "report_every": 1,
            "validation_examples": 3, "network": TINY, **more,
        }  # fmt: skip
        return load_config(None, values)

    def sets(self, config: TrainingConfig, toy: Toy | None = None) -> run.Sets:
        model, toy = make_model(config.model), toy or Toy()
        cache = GuideCache(None, model.guides)
        return run.Sets(
            Crops(toy, range(7), model.needs, cache),
            Crops(toy, range(7, 10), model.needs, cache),
        )

    @pytest.mark.parametrize("at", [3, 4, 5])
    def test_killed_and_resumed_equals_undisturbed(self, tmp_path: Path, at: int) -> None:
        whole = self.config(tmp_path / "whole")
        path = run.train(whole, sets=self.sets(whole))

        def kill(line: str) -> None:
            if line.startswith(f"step {at}/"):
                raise _Killed

        config = self.config(tmp_path / "killed")
        with pytest.raises(_Killed):
            run.train(config, sets=self.sets(config), report=kill)
        lines: list[str] = []
        again = run.train(config, sets=self.sets(config), resume=True, report=lines.append)
        first = next(line for line in lines if line.startswith("step"))
        assert first.startswith(f"step {(at - 1) // 2 * 2 + 1}/")  # not from the beginning
        expected, found = (read_weights(p)[0].state_dict() for p in (path, again))
        for name, value in expected.items():
            assert torch.equal(value, found[name]), name
        states = [
            torch.load(tmp_path / name / folder.CHECKPOINT, weights_only=True)
            for name in ("whole", "killed")
        ]
        moments = [s["optimizer_states"][0]["state"] for s in states]
        for key, values in moments[0].items():
            assert torch.equal(values["exp_avg_sq"], moments[1][key]["exp_avg_sq"])

    def test_resident_examples_change_nothing(self, tmp_path: Path) -> None:
        paths = []
        for resident in (False, True):
            config = self.config(tmp_path / str(resident), resident=resident)
            paths.append(run.train(config, sets=self.sets(config)))
        expected, found = (read_weights(path)[0].state_dict() for path in paths)
        for name, value in expected.items():
            assert torch.equal(value, found[name]), name

    def test_starts_from_given_weights(self, tmp_path: Path) -> None:
        config = self.config(tmp_path / "first", steps=2)
        first = run.train(config, sets=self.sets(config))
        # A rate of (nearly) zero leaves the weights where they are.
        more = {"initial_weights": str(first), "steps": 1, "learning_rate": 1e-30}
        config = self.config(tmp_path / "second", **more)
        second = run.train(config, sets=self.sets(config))
        model, info = read_weights(second)
        for name, value in read_weights(first)[0].state_dict().items():
            assert torch.equal(value, model.state_dict()[name]), name
        assert json.loads(info.metadata["recipe"])["initial_weights"] == first.name
        other = {**TINY, "growth": [4, 8]}
        config = self.config(tmp_path / "third", **more, network=other)
        with pytest.raises(ConfigError, match="holds another model"):
            run.train(config, sets=self.sets(config))

    def test_fusion_starts_from_weights_of_another_guide(self) -> None:
        other = ("oidn(aux=raw)",)
        config = TrainingConfig(
            "ngpt-fusion", ("x",), "out", initial_weights="ngpt-fusion", guides=other
        )
        model = run._initial_model(config)
        assert model.guides == other
        for name, value in read_weights(find_weights("ngpt-fusion"))[0].state_dict().items():
            assert torch.equal(value, model.state_dict()[name]), name
        wider = dataclasses.replace(config, network={"width": 12})
        with pytest.raises(ConfigError, match="holds another model"):
            run._initial_model(wider)

    def test_teacher_sets_the_targets_in_the_beginning(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        toy = Toy(halves=1)  # noisy halves would bias the loss, of which a warning tells
        config = self.config(tmp_path / "first", steps=1)
        first = str(run.train(config, sets=self.sets(config, toy)))
        more = {"initial_weights": first, "teacher": first, "terms": {"l1": 1.0}}
        config = self.config(tmp_path / "second", **more, steps=1)
        lines: list[str] = []
        run.train(config, sets=self.sets(config, toy), report=lines.append)
        # who is one's own teacher has nothing to learn
        assert any("step 1/1: loss 0.00000" in line for line in lines)
        config = self.config(tmp_path / "third", **more, steps=200)
        module = Training(run._initial_model(config), config, 7, run._teacher(config))
        taught = []
        for step in range(201):
            monkeypatch.setattr(Training, "global_step", step)
            taught.append(module._is_taught())
        assert taught[0]
        assert not taught[-1]
        assert sum(taught[:50]) > sum(taught[150:]) + 20

    def test_teacher_reads_no_more_than_its_student(self) -> None:
        guides = ("oidn(aux=raw)",)
        fusion = {"method": "ngpt-fusion", "data": ("x",), "output": "out", "guides": guides}
        student = TrainingConfig(**fusion, teacher="ngpt-fusion", network={"patch": 2})
        teacher = run._teacher(student)
        assert teacher is not None
        assert teacher.guides == guides
        with pytest.raises(ConfigError, match=r"teacher: ngpt-fusion-v4.* reads "):
            run._teacher(TrainingConfig("ngpt-small", ("x",), "out", teacher="ngpt-fusion"))

    def test_network_that_does_not_see_the_primal(self, tmp_path: Path) -> None:
        class Parts(Toy):
            layout = LAYOUT

        small = {"layers": 2, "width": 4, "filter": 3, "kernel": 3}
        config = self.config(tmp_path, method="kpcn-small", network=small, steps=1, border=0)
        run.train(config, sets=self.sets(config, Parts()))
        results = json.loads((tmp_path / "validation" / "step-0000001.json").read_text())
        assert set(results) == {"primal", "output"}

    def test_seed_decides(self, tmp_path: Path) -> None:
        names = set()
        for name, seed in (("a", 0), ("b", 0), ("c", 1)):
            config = self.config(tmp_path / name, steps=2, seed=seed)
            path = run.train(config, sets=self.sets(config))
            names.add(tuple(read_weights(path)[0].network.head.weight.flatten().tolist()))
        assert len(names) == 2

    def test_what_a_run_leaves(self, tmp_path: Path) -> None:
        config = self.config(tmp_path / "run")
        lines: list[str] = []
        path = run.train(config, sets=self.sets(config), report=lines.append)
        assert any("examples/s" in line for line in lines)
        stored = json.loads((tmp_path / "run" / folder.RUN_FILE).read_text())
        assert stored["config"]["seed"] == 0
        assert stored["loss"] == losses.LOSSES["robust"]
        assert stored["provenance"]["libraries"]
        assert sorted(p.name for p in (tmp_path / "run" / "validation").iterdir()) == [
            f"step-000000{step}.{suffix}" for step in (4, 6) for suffix in ("json", "png")
        ]
        assert list((tmp_path / "run").glob("*.safetensors")) == [path]
        assert list((tmp_path / "run").glob("events*"))
        card = (tmp_path / "run" / "model-card.md").read_text()
        assert path.name in card
        assert "| poisson-l1 |" in card
        _, info = read_weights(path)
        assert json.loads(info.metadata["recipe"])["trained_steps"] == 6
        buffers = FrameBuffers(Toy()[0]["buffers"], Toy.layout)
        assert denoise(buffers, "ngpt-small", weights=str(path)).shape == (20, 20, 3)
        assert load_weights(path).config == config.model

    def test_it_learns(self, tmp_path: Path) -> None:
        """Noise-to-noise on constant images: the error falls far below that of the primal."""
        config = self.config(
            tmp_path, method="ngpt-small", loss="noise2noise", steps=120, batch=4,
            learning_rate=5e-3, schedule="one-cycle", average=0.9, validate_every=1000,
            checkpoint_every=1000,
        )  # fmt: skip
        run.train(config, sets=self.sets(config))
        results = json.loads((tmp_path / "validation" / "step-0000120.json").read_text())
        assert results["output"]["relmse"] < 0.3 * results["primal"]["relmse"]

    def test_folder_is_not_overwritten(self, tmp_path: Path) -> None:
        config = self.config(tmp_path / "run", steps=1)
        run.train(config, sets=self.sets(config))
        with pytest.raises(ConfigError, match="holds a run already"):
            run.train(config, sets=self.sets(config))
        other = self.config(tmp_path / "run", steps=1, learning_rate=1e-4)
        with pytest.raises(ConfigError, match=r"learning_rate: 0\.0005 -> 0\.0001"):
            run.train(other, sets=self.sets(other), resume=True)
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "thesis.tex").touch()
        config = self.config(tmp_path / "full")
        with pytest.raises(ConfigError, match="is not empty and holds no run"):
            run.train(config, sets=self.sets(config))

    def test_more_steps_for_a_finished_run(self, tmp_path: Path) -> None:
        more = {"schedule": "constant", "checkpoint_every": 100}
        whole = self.config(tmp_path / "whole", **more)
        expected = read_weights(run.train(whole, sets=self.sets(whole)))[0].state_dict()
        first = self.config(tmp_path / "run", **more, steps=2)
        run.train(first, sets=self.sets(first))
        config = self.config(tmp_path / "run", **more)
        path = run.train(config, sets=self.sets(config), resume=True)
        found = read_weights(path)[0].state_dict()
        assert all(torch.equal(value, found[name]) for name, value in expected.items())
        stored = json.loads((tmp_path / "run" / folder.RUN_FILE).read_text())
        assert stored["config"]["steps"] == 6
        with pytest.raises(ConfigError, match="steps is 2, but 6 are done"):
            run.train(first, sets=self.sets(first), resume=True)

    def test_one_cycle_does_not_go_on(self, tmp_path: Path) -> None:
        first, config = (
            self.config(tmp_path, steps=steps, schedule="one-cycle") for steps in (1, 2)
        )
        run.train(first, sets=self.sets(first))
        with pytest.raises(ConfigError, match=r"over after its steps.*initial_weights"):
            run.train(config, sets=self.sets(config), resume=True)

    def test_folder_by_default(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        config = load_config(None, {"method": "ngpt-small", "data": ["a"]})
        choose = folder.choose_folder
        names = ["ngpt-small", "ngpt-small-2", "ngpt-small-3"]
        for number, name in enumerate(names):
            assert choose(config, resume=False) == Path("runs") / name
            latest = names[max(0, number - 1)]
            assert choose(config, resume=True) == Path("runs") / latest
            (Path("runs") / name).mkdir(parents=True)

    def test_short_runs_show_in_tensorboard(self, tmp_path: Path) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        config = self.config(tmp_path, steps=2, report_every=50, validate_every=1000)
        run.train(config, sets=self.sets(config))
        events = EventAccumulator(str(tmp_path)).Reload()
        scalars = set(events.Tags()["scalars"])
        assert {"loss/loss", "validation/output/relmse", "validation/primal/smape"} <= scalars
        assert events.Tags()["images"] == ["validation/examples"]

    @pytest.mark.parametrize("method", ["ngpt-small", "kpcn-small", "ngpt-fusion", "ngpt-oidn"])
    def test_defaults_fit_each_other(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        """Of data sets and methods: no bias, nothing to download."""

        class Parts(Toy):
            layout = LAYOUT

        monkeypatch.delenv("MITSUBA_GDPT_PERCEPTUAL_WEIGHTS", raising=False)
        monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
        guides = ["poisson-l2"] if method in ("ngpt-fusion", "ngpt-oidn") else []
        values = {"method": method, "data": ["toy"], "output": "o", "guides": guides}
        config = load_config(None, values)
        lines: list[str] = []
        for halves in (2, 1):
            sets = self.sets(config, Parts(halves=halves))
            terms = run.fitting(config, sets, lines.append).loss_terms
            losses.Loss(terms)  # it can be made
            assert halves == 1 or terms.keys() <= losses.SUIT_NOISE
        assert any("mitsuba-gdpt weights elpips" in line for line in lines) == (
            method == "ngpt-small"
        )
        asked = dataclasses.replace(config, loss="smape")
        assert run.fitting(asked, sets, print).loss == "smape"

    def test_progress_is_told(self, tmp_path: Path) -> None:
        told: dict[str, list[float]] = {}

        class Recorder:
            def start(self, description: str, total: float) -> Any:
                steps = told.setdefault(f"{description}: {total:g}", [])
                return SimpleNamespace(advance=lambda n=1.0: steps.append(n), close=lambda: None)

        first, config = (
            self.config(tmp_path, steps=steps, schedule="constant") for steps in (2, 3)
        )
        run.train(first, sets=self.sets(first))
        with progress.reporting(Recorder()):
            run.train(config, sets=self.sets(config), resume=True)
        assert told[f"training {config.method}: 3"] == [2, 1]
        assert told["validating: 3"] == [2, 1]

    def test_non_finite_loss_names_the_examples(self, tmp_path: Path) -> None:
        class Broken(Toy):
            def __getitem__(self, index: int) -> dict[str, Any]:
                item = super().__getitem__(index)
                item["targets"][0, 0] = float("inf")
                return item

        config = self.config(tmp_path, border=0)
        with pytest.raises(NonFiniteError, match=r"step 0, with the examples \[\d, \d\]"):
            run.train(config, sets=self.sets(config, Broken()))

    def test_biased_loss_on_noisy_targets_warns(self, tmp_path: Path) -> None:
        config = self.config(tmp_path / "a", steps=1, loss="smape")
        with pytest.warns(UserWarning, match="bias the loss term"):
            run.train(config, sets=self.sets(config))
