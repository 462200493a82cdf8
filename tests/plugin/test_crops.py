"""Rendering of crop sets: kernels are shared, crops are what they say, sets are reproducible."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest
import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.data import CropSet, OnlineCrops, render_crops, units, workers
from mitsuba_gdpt.data.metadata import read_attributes
from mitsuba_gdpt.data.origins import SCENES
from mitsuba_gdpt.data.plan import CropPlan, CropSpec
from mitsuba_gdpt.data.render import LAYOUT, CropRenderer, make_sensor
from mitsuba_gdpt.errors import ConfigError, NonFiniteError, VariantError
from tests.crops import XML, scene, write_scene

SMALL: dict[str, Any] = {
    "size": 16,
    "levels": 2,
    "max_spp": 9,
    "reference_spp": 8,
    "frame": (48, 32),
    "crops": 3,
}


@pytest.fixture
def plan(device_variant: str, tmp_path: Path) -> Iterator[CropPlan]:
    yield CropPlan((write_scene(tmp_path),), **SMALL)
    units._open.clear()  # scenes of other tests would be in the kernels


def kernels(renderer: CropRenderer, index: int) -> set[str]:
    """Return the hashes of all kernels that the renders of a crop need."""
    with dr.scoped_set_flag(dr.JitFlag.KernelHistory, True):
        dr.kernel_history_clear()
        renderer.render(renderer.plan.crop(renderer.scene, index))
        return {str(k["hash"]) for k in dr.kernel_history([dr.KernelType.JIT])}


@pytest.mark.parametrize("lens", [False, True])
def test_all_crops_share_their_kernels(plan: CropPlan, lens: bool) -> None:
    """Hashes instead of cache misses: kernels of an earlier test run are in the cache on disk."""
    (squares,) = plan.scenes
    if not lens:
        plan = replace(plan, scenes=(replace(squares, targets=()),))
    # Of each crop the first level fits into one tile; the second and the targets are split. Renders
    # of fewer samples than directions are another program.
    plan = replace(plan, min_spp=4, max_spp=64, max_lanes=16 * 16 * 15, reference_spp=32)
    specs = [plan.crop(plan.scenes[0], index) for index in range(4)]
    assert all((spec.camera.aperture > 0) == lens for spec in specs)
    assert all(spec.spp[0] < 16 <= spec.spp[1] for spec in specs)
    assert len({(spec.frame, spec.offset, spec.spp) for spec in specs}) == 4
    renderer = CropRenderer(plan.scenes[0], plan)
    first = kernels(renderer, 0)
    for index in range(1, 4):
        assert kernels(renderer, index) <= first


@pytest.mark.parametrize("aperture", [0.0, 0.05])
def test_a_crop_is_part_of_the_full_frame(plan: CropPlan, aperture: float) -> None:
    spec = plan.crop(plan.scenes[0], 2)
    spec = replace(spec, frame=(44, 30), offset=(11, 5), seeds=(3,), spp=(64,))
    spec = replace(spec, camera=replace(spec.camera, aperture=aperture))
    film = {
        **{"type": "hdrfilm", "width": 44, "height": 30, "rfilter": {"type": "box"}},
        **{"crop_width": 16, "crop_height": 16, "crop_offset_x": 11, "crop_offset_y": 5},
    }
    full = mi.load_dict(spec.camera.as_dict() | {"film": film, "sampler": {"type": "independent"}})
    renderer = CropRenderer(plan.scenes[0], plan)
    images = [
        renderer._render(renderer._gdpt, sensor, spec, 64, 3).data
        for sensor in (make_sensor(spec), full)
    ]
    difference = (images[0] - images[1]).abs()
    scale = images[1].abs().mean((0, 1)) + 1e-6
    # Same random numbers, so all but the few samples agree that rounding sends past an edge.
    assert (difference.mean((0, 1)) < 0.01 * scale).all()
    assert (difference.flatten().quantile(0.97) < 1e-3).all()


def test_gradients_are_differences_of_the_target(plan: CropPlan, tmp_path: Path) -> None:
    """In expectation, and as far as float16 allows; neither a shift nor a wrong sign passes."""
    changes = {"levels": 1, "min_spp": 500, "max_spp": 501, "reference_spp": 2048, "crops": 2}
    path = tmp_path / "set.zarr"
    render_crops(replace(plan, **changes), path)
    # Normalised squared errors: 1 if the variances are right, less where samples are stratified.
    for crop in map(CropSet.open(path).__getitem__, range(2)):
        (frame,), clean = crop.buffers, crop.targets.mean(0)
        for name, axis in (("dx", 1), ("dy", 0)):
            gradient, variance = frame[name], frame[f"{name}.var"]
            expected = torch.diff(clean, dim=axis)
            noise = crop.target_variance[..., None]
            noise = noise.narrow(axis, 1, 15) + noise.narrow(axis, 0, 15)
            noise = noise + variance.narrow(axis, 0, 15) + (5e-4 * clean.abs().max()) ** 2

            def error(values: torch.Tensor, noise: torch.Tensor = noise) -> float:
                return float((values.square() / noise).mean())

            inner = gradient.narrow(axis, 0, 15)
            assert error(inner - expected) < 1.5
            assert error(inner + expected) > 4
            assert error(inner.roll(1, axis) - expected) > 2
            assert not gradient.narrow(axis, 15, 1).any()


def test_halves_are_independent_and_their_variance_is_right(plan: CropPlan) -> None:
    plan = replace(plan, reference_spp=32)
    renderer = CropRenderer(plan.scenes[0], plan)
    spec = replace(plan.crop(plan.scenes[0], 0), spp=(), seeds=())  # targets only
    seeds = [(2 * i, 2 * i + 1) for i in range(40)]
    crops = [renderer.render(replace(spec, target_seeds=pair)) for pair in seeds]
    a, b = torch.stack([crop.targets for crop in crops]).unbind(1)
    a, b = a - a.mean(0), b - b.mean(0)
    correlation = (a * b).sum() / (a.square().sum() * b.square().sum()).sqrt()
    assert abs(float(correlation)) < 0.05
    measured = ((a + b) / 2).var(0).mean()
    promised = torch.stack([crop.target_variance for crop in crops]).mean()
    # Random numbers are stratified, which the estimate does not know: it is on the safe side.
    assert 0.02 < float(measured / promised) < 1


@pytest.mark.parametrize("target", ["path", "gdpt-l1", "gdpt-l2"])
def test_kinds_of_targets_agree(plan: CropPlan, target: Any) -> None:
    plan = replace(plan, target=target, reference_spp=512)
    spec = plan.crop(plan.scenes[0], 1)
    crop = CropRenderer(plan.scenes[0], plan).render(spec)
    assert crop.targets.shape == (plan.target_renders, 16, 16, 3)
    halves = replace(plan, target="halves", reference_spp=1024)
    other = CropRenderer(plan.scenes[0], halves).render(halves.crop(plan.scenes[0], 1))
    reference = other.targets.mean(0)
    target_image = crop.targets.mean(0)
    torch.testing.assert_close(target_image.mean((0, 1)), reference.mean((0, 1)), rtol=0.03, atol=0)
    error = (target_image - reference).square().mean(-1)
    assert float(error.mean()) < 3 * float((crop.target_variance + other.target_variance).mean())
    assert target == "gdpt-l2" or (crop.targets >= 0).all()  # to clamp would bias


def test_halves_from_gradients_are_cleaner_and_independent(plan: CropPlan) -> None:
    noise = {}
    for target in ("halves", "gdpt-l2"):
        kind = replace(plan, target=target, reference_spp=64)
        spec = replace(kind.crop(kind.scenes[0], 1), spp=(), seeds=())  # targets only
        a, b = CropRenderer(kind.scenes[0], kind).render(spec).targets
        assert not torch.equal(a, b)
        noise[target] = float((a - b).square().mean())
    assert noise["gdpt-l2"] < noise["halves"] / 2


def hashes(path: Path) -> dict[str, str]:
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return {str(f.relative_to(path)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def test_sets_are_reproducible_and_resumable(plan: CropPlan, tmp_path: Path) -> None:
    (squares,) = plan.scenes
    plan = replace(plan, scenes=(squares, replace(squares, name="again", max_depth=2)))
    first, second = tmp_path / "a.zarr", tmp_path / "b.zarr"
    assert (render_crops(plan, first, crops_per_shard=2)).done == 4
    missing = [
        replace(unit, shard=replace(unit.shard, path=second))
        for unit in (units.CropUnit(s, plan, "") for s in units.store.shards(plan, first, 2))
    ]
    same = {key: read_attributes(first)[key] for key in ("variant", SCENES)}
    units.store.create(plan, LAYOUT, second, crops_per_shard=2, attributes=same)
    missing[2].run()  # somebody rendered one shard, in another order
    summary = render_crops(plan, second)
    assert (summary.done, summary.skipped, summary.failed) == (3, 1, {})
    assert hashes(first) == hashes(second)
    assert render_crops(plan, first).skipped == 4
    crop = CropSet.open(first)[0]
    assert crop.noisy.shape == (2, 16, 16, LAYOUT.count)
    assert crop.noisy[0].count_nonzero() > 0
    assert not torch.equal(crop.noisy[0], crop.noisy[1])


def test_a_broken_scene_stops_only_itself(plan: CropPlan, tmp_path: Path) -> None:
    broken = tmp_path / "broken.xml"
    broken.write_text("<scene")
    plan = replace(plan, crops=1, scenes=(scene("broken", broken), *plan.scenes, scene("gone")))
    path = tmp_path / "set.zarr"
    summary = render_crops(plan, path)
    assert (summary.done, sorted(summary.failed)) == (1, ["broken-0000", "gone-0000"])
    assert "cannot load the scene" in summary.failed["broken-0000"]
    assert "does not exist" in summary.failed["gone-0000"]
    assert [CropSet.open(path).where(0)] == [("squares", 0)]
    broken.write_text(XML)  # mended
    assert sorted(render_crops(plan, path).failed) == ["gone-0000"]
    assert len(CropSet.open(path)) == 2


def test_nan_is_an_error_with_scene_crop_and_seed(
    plan: CropPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = CropRenderer(plan.scenes[0], plan)
    spec = plan.crop(plan.scenes[0], 2)

    def broken(*_: Any, **__: Any) -> FrameBuffers:
        data = torch.zeros(16, 16, LAYOUT.count)
        data[3, 4, 5] = np.nan
        return FrameBuffers(data, LAYOUT)

    monkeypatch.setattr("mitsuba_gdpt.rendering.render", broken)
    pattern = rf"scene 'squares', crop 2, {spec.spp[0]} spp, seed {spec.seeds[0]}: .*dx.B: 1"
    with pytest.raises(NonFiniteError, match=pattern):
        renderer.render(spec)


def test_fireflies_are_clamped_and_counted(plan: CropPlan, tmp_path: Path) -> None:
    path = tmp_path / "bright.xml"
    path.write_text(XML.replace('value="0.2"', 'value="1e6"'))
    bright = replace(plan, crops=1, scenes=(scene("bright", path),))
    render_crops(bright, tmp_path / "set.zarr")
    crop = CropSet.open(tmp_path / "set.zarr")[0]
    assert crop.clamped > 16 * 16
    assert float(crop.targets.max()) == 65504


def test_rendering_needs_a_variant(plan: CropPlan, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(workers, "variant", lambda: None)
    with pytest.raises(VariantError, match="no Mitsuba variant is set"):
        render_crops(plan, tmp_path / "set.zarr")


# ----------------------------------------------------------------------------------------- online


def count_renders(monkeypatch: pytest.MonkeyPatch) -> list[CropSpec]:
    seen: list[CropSpec] = []
    render = CropRenderer.render

    def counting(self: CropRenderer, spec: CropSpec) -> Any:
        seen.append(spec)
        return render(self, spec)

    monkeypatch.setattr(CropRenderer, "render", counting)
    return seen


def test_online_crops_are_reused_and_replaced(
    plan: CropPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = count_renders(monkeypatch)
    stream = OnlineCrops(plan, capacity=6, reuse=3)
    indices, rendered = [], []
    for item in islice(stream, 30):
        indices.append(int(item["index"]))
        rendered.append(stream.rendered)
    assert rendered[0] == 3  # the buffer is full: three crops of two levels
    assert rendered[-1] - 3 <= 30 / (2 * 3)  # one crop per levels * reuse items
    assert len(seen) == stream.rendered
    uses = np.bincount(indices)
    assert uses.max() == 3
    assert len({(s.scene, s.index) for s in seen}) == len(seen)
    assert indices[:6] != sorted(indices[:6])  # drawn at random

    again = [int(item["index"]) for item in islice(OnlineCrops(plan, capacity=6, reuse=3), 30)]
    assert again == indices


def test_online_items_are_the_renderers_memory(plan: CropPlan) -> None:
    stream = OnlineCrops(plan, capacity=2, reuse=1)
    items = sorted(islice(stream, 2), key=lambda item: int(item["index"]))
    spec = plan.crop(plan.scenes[0], 0)
    crop = CropRenderer(plan.scenes[0], plan).render(spec)
    for item, frame, spp in zip(items, crop.noisy, spec.spp, strict=True):
        assert torch.equal(item["buffers"], frame.data)  # the crop that a set would hold
        assert torch.equal(item["targets"], crop.targets)
        assert int(item["spp"]) == spp
    loader = torch.utils.data.DataLoader(stream, batch_size=3)
    batch = next(iter(loader))
    assert batch["buffers"].shape == (3, 16, 16, LAYOUT.count)
    assert batch["scene"] == ["squares"] * 3


def test_online_rendering_copies_nothing(plan: CropPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    pointers = []
    from_render = FrameBuffers.from_render

    def recording(tensor: Any, layout: Any = None) -> FrameBuffers:
        pointers.append(torch.from_dlpack(tensor).data_ptr())
        return from_render(tensor, layout)

    monkeypatch.setattr(FrameBuffers, "from_render", recording)
    item = next(iter(OnlineCrops(plan, capacity=2, reuse=1)))
    assert item["buffers"].data_ptr() == pointers[int(item["index"])]


def test_online_limits(plan: CropPlan) -> None:
    with pytest.raises(ConfigError, match="capacity is 1"):
        OnlineCrops(plan, capacity=1)
    with pytest.raises(ConfigError, match="reuse is 0"):
        OnlineCrops(plan, reuse=0)
    loader = torch.utils.data.DataLoader(OnlineCrops(plan), num_workers=1, timeout=60)
    with pytest.raises(ConfigError, match="use num_workers=0"):
        next(iter(loader))
