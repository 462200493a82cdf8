"""Sampling plans of crop sets."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

from mitsuba_gdpt.data.plan import REFERENCE_SPP, CropPlan, spp_levels
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.scenes.catalogue import CatalogueScene
from tests.crops import scene

SCENE = scene(targets=())  # random directions use all dimensions of a camera
PLAN = CropPlan((SCENE,), crops=256)


def held_out(name: str, split: str) -> CatalogueScene:
    return scene(name, split=split, boxes=(), targets=())


def test_spp_are_stratified() -> None:
    for u in np.linspace(0, 1, 37, endpoint=False):
        levels = spp_levels(u, 5, 2, 1024)
        assert list(levels) == sorted(levels)
        # One count in each fifth of the logarithmic range (a floor may fall below its lower end).
        bounds = 2 * 512 ** (np.arange(6) / 5)
        for count, low, high in zip(levels, bounds, bounds[1:], strict=False):
            assert np.floor(low) <= count < high
    assert spp_levels(0.5, 5, 2, 1024) == (3, 12, 45, 157, 548)
    assert min(spp_levels(0.0, 5, 2, 1024)) == 2
    assert max(spp_levels(1 - 1e-12, 1, 2, 1024)) == 1023


def test_golden_crop() -> None:
    """The plan decides what a set contains: it must not change between versions."""
    crop = PLAN.crop(SCENE, 7)
    assert (crop.frame, crop.offset, crop.spp) == GOLDEN[0]
    assert crop.seeds + crop.target_seeds == GOLDEN[1]
    np.testing.assert_allclose(crop.camera.origin, GOLDEN[2], rtol=1e-12)


GOLDEN = (
    ((1264, 712), (245, 87), (4, 16, 57, 199, 695)),
    (2812413849, 1927421261, 739165080, 1986867126, 3229339520, 1748567094, 1122778570),
    (-0.0730872082460658, -0.4121301899766763, 3.488331200389024),
)


def test_crop_depends_on_nothing_but_plan_and_index() -> None:
    crops = [PLAN.crop(SCENE, index) for index in range(8)]
    larger = CropPlan((scene("other"), SCENE), crops=2000)
    restored = pickle.loads(pickle.dumps(larger))
    assert [restored.crop(SCENE, index) for index in reversed(range(8))] == crops[::-1]
    assert PLAN.crop(SCENE, 1500) == larger.crop(SCENE, 1500)  # another block of the sequence
    assert replace(PLAN, seed=1).crop(SCENE, 0) != crops[0]
    assert PLAN.crop(scene("other"), 0).spp != PLAN.crop(scene("another"), 0).spp


def test_each_dimension_is_stratified_and_rotated_by_itself() -> None:
    """64 points of a Sobol sequence fall into 64 intervals, also after a rotation per dimension.

    With a rotation per point (the original's error) about 40 % of the intervals stay empty.
    """
    specs = [PLAN.crop(SCENE, index) for index in range(64)]
    box = SCENE.boxes[0]
    low, high = np.array(box.min), np.array(box.max)
    positions = (np.array([s.camera.origin for s in specs]) - low) / (high - low)
    fov = (np.array([s.camera.fov for s in specs]) - SCENE.fov[0]) / (SCENE.fov[1] - SCENE.fov[0])
    columns = [*positions.T, fov]
    shifts = []
    for u in columns:
        shift = (u * 64 % 1).mean()  # all points lie equally in their intervals of 1/64 ...
        np.testing.assert_allclose(u * 64 % 1, shift, atol=1e-6)
        assert len({int(v * 64) for v in u}) == 64  # ... one in each
        shifts.append(shift)
    assert len({round(shift, 6) for shift in shifts}) == len(columns)


def test_crops_cover_zooms_and_frame() -> None:
    specs = list(PLAN.specs(SCENE))
    frames = np.array([s.frame for s in specs])
    offsets = np.array([s.offset for s in specs])
    assert (frames % 2 == 0).all()
    assert (frames <= (1280, 720)).all()
    assert (offsets >= 0).all()
    assert (offsets + PLAN.size <= frames).all()
    np.testing.assert_allclose(frames[:, 0] / frames[:, 1], 16 / 9, rtol=0.02)
    scale = (frames[:, 0] / 1280 - 128 / 720) / (1 - 128 / 720)
    np.testing.assert_allclose(np.histogram(scale, 8, (0, 1))[0], 32, atol=2)
    place = offsets / np.maximum(frames - PLAN.size, 1)
    np.testing.assert_allclose(place.mean(0), 0.5, atol=0.05)
    assert len({s.frame for s in specs}) > 200


def test_seeds_never_repeat() -> None:
    specs = [PLAN.crop(s, i) for s in (SCENE, scene("other")) for i in range(100)]
    seeds = [seed for spec in specs for seed in spec.seeds + spec.target_seeds]
    assert len(set(seeds)) == len(seeds) == 200 * 7


def test_crops_follow_the_weight() -> None:
    plan = CropPlan((SCENE, scene("half", weight=0.5), scene("rare", weight=1e-6)), crops=9)
    assert [plan.count(s) for s in plan.scenes] == [9, 4, 1]


def test_json() -> None:
    stored = json.loads(json.dumps(PLAN.to_dict()))
    assert PLAN.differences(stored) == []
    assert CropPlan((scene(targets=(), source="moved.xml"),), crops=256).differences(stored) == []
    assert replace(PLAN, crops=255, seed=3).differences(stored) == ["crops", "seed"]
    assert replace(PLAN, scenes=(scene(),)).differences(stored) == ["scene squares"]
    assert replace(PLAN, scenes=(SCENE, scene("b"))).differences(stored) == ["scene b"]
    del stored["shifts"]  # as in sets from before there was a choice: four
    assert PLAN.differences(stored) == ["shifts"]
    assert replace(PLAN, shifts=4).differences(stored) == []
    stored["shifts"] = PLAN.shifts
    del stored["seed"]
    stored["news"] = 1
    assert PLAN.differences(stored) == ["seed", "news"]


def test_reference_spp_follows_the_target() -> None:
    assert PLAN.spp_behind_target == 256
    assert replace(PLAN, target="path", reference_spp=None).spp_behind_target == 4096
    assert replace(PLAN, target="gdpt-l2", reference_spp=None).spp_behind_target == 512
    renders = {t: replace(PLAN, target=t).target_renders for t in REFERENCE_SPP}
    assert renders == {"halves": 2, "path": 1, "gdpt-l1": 1, "gdpt-l2": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scenes": ()}, "at least one scene"),
        ({"scenes": (SCENE, SCENE)}, "squares more than once"),
        ({"scenes": (SCENE, held_out("room", "dev"))}, r"not for training: room \(dev\)"),
        ({"scenes": (held_out("room", "test"),)}, "not for training"),
        ({"crops": 0}, "crops is 0"),
        ({"size": 4}, "size is 4"),
        ({"size": 721}, "do not fit"),
        ({"levels": 0}, "levels is 0"),
        ({"min_spp": 1}, "min_spp is 1"),
        ({"max_spp": 2}, "max_spp is 2; expected at least 3"),
        ({"target": "soap"}, "'soap'; expected one of halves, path, gdpt-l1"),
        ({"reference_spp": 2}, "reference_spp is 2; expected at least 4"),
        ({"reference_spp": 9}, "expected an even number"),
        ({"reference_spp": 9, "target": "gdpt-l2"}, "expected an even number"),
        ({"reference_spp": 2, "target": "gdpt-l2"}, "reference_spp is 2; expected at least 4"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_plan(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(PLAN, **change)


def test_scene_without_boxes_cannot_be_sampled() -> None:
    plan = CropPlan((scene(boxes=()),))
    with pytest.raises(ConfigError, match="no camera boxes"):
        plan.crop(plan.scenes[0], 0)
