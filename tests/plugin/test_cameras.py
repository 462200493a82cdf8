"""Proposed cameras, boxes, targets and fly-throughs of a small closed room."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt.errors import ConfigError, VariantError
from mitsuba_gdpt.scenes import Camera, CatalogueScene
from mitsuba_gdpt.scenes import cameras as proposals
from mitsuba_gdpt.scenes.probe import Probe, axes, own_camera, rays
from mitsuba_gdpt.scenes.survey import Survey

#: Half the size of the room, which is around the origin.
ROOM = np.array([3.0, 1.5, 4.0])
#: A closed crate on the floor, and a ball.
CRATE = (np.array([-1.0, -1.5, -2.0]), np.array([0.6, 0.3, -0.6]))
BALL = (np.array([1.8, -0.9, -1.0]), 0.6)
CAMERA = Camera((0.3, 0.2, 3.2), (0.0, -0.4, -1.0), fov=60.0)


def _cube(low: Any, high: Any, **more: Any) -> dict[str, Any]:
    import mitsuba as mi

    low, high = np.asarray(low), np.asarray(high)
    return {
        "type": "cube",
        "to_world": mi.ScalarTransform4f().translate(((low + high) / 2).tolist())
        @ mi.ScalarTransform4f().scale(((high - low) / 2).tolist()),
        "bsdf": {"type": "twosided", "bsdf": {"type": "diffuse"}},
        **more,
    }


def _room(camera: Camera = CAMERA, **more: Any) -> Any:
    import mitsuba as mi

    return mi.load_dict(
        {
            "type": "scene",
            "integrator": {"type": "path"},
            "sensor": camera.as_dict() | {"film": {"type": "hdrfilm", "width": 32, "height": 18}},
            "room": _cube(-ROOM, ROOM),
            "crate": _cube(*CRATE),
            "ball": {"type": "sphere", "center": BALL[0].tolist(), "radius": BALL[1]},
            "lamp": _cube(
                [-0.5, 1.3, -0.5],
                [0.5, 1.4, 0.5],
                emitter={"type": "area", "radiance": {"type": "rgb", "value": 8.0}},
            ),
            **more,
        }
    )


@pytest.fixture
def survey(variant_llvm_rgb: str) -> Survey:
    return Survey(_room(), seed=5)


def _is_outside_of_things(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    in_room = (np.abs(points) < ROOM).all(axis=1)
    in_crate = ((points > CRATE[0]) & (points < CRATE[1])).all(axis=1)
    in_ball = np.linalg.norm(points - BALL[0], axis=1) < BALL[1]
    return in_room & ~in_crate & ~in_ball


def test_survey_finds_the_free_space(survey: Survey) -> None:
    assert survey.indoors
    assert survey.up == (0, 1, 0)
    assert len(survey.free) > 200
    assert _is_outside_of_things(survey.free).all()
    assert (np.ptp(survey.free, axis=0) > 1.2 * ROOM).all(), "not only near the camera"


def test_proposed_cameras_stand_in_the_room_and_do_not_stare(survey: Survey) -> None:
    found = proposals.propose_cameras(survey, 24)
    assert len(found) == 24
    origins = np.array([proposal.camera.origin for proposal in found])
    assert _is_outside_of_things(origins).all()
    assert np.linalg.norm(origins[:, None] - origins[None], axis=-1).max() > 2.0
    assert [p.score for p in found] == sorted((p.score for p in found), reverse=True)
    for proposal in found:
        hits = survey.probe.view([proposal.camera], 16, 9)
        planes = np.round(np.c_[hits.normal, np.einsum("ij,ij->i", hits.normal, hits.point)], 1)
        _, counts = np.unique(planes, axis=0, return_counts=True)
        assert counts.max() < 0.9 * len(planes)


def test_bad_views_are_told_apart(survey: Survey) -> None:
    views = {
        None: CAMERA,
        "stares at a plane": Camera((2.0, 0.0, 2.0), (3.0, 0.0, 2.0), fov=50.0),
        "something is right before it": Camera((0.0, 0.8, 3.9), (0.0, 0.8, 4.0), fov=70.0),
        "dark": Camera((-0.2, -0.5, -1.9), (-0.2, -0.6, -0.6), fov=70.0),  # in the crate
    }
    reasons = [verdict.reason for verdict in survey.judge(list(views.values()))]
    assert reasons[:3] == list(views)[:3]
    assert reasons[3] is not None
    assert survey.judge([]) == []


def test_unlit_and_overexposed_views_are_rejected(variant_llvm_rgb: str) -> None:
    scene = _room()
    for exposure, reason in ((1e-4, "dark"), (1e4, "overexposed"), (0.3, None)):
        assert Survey(scene, exposure=exposure).judge([CAMERA])[0].reason == reason


def test_boxes_are_free(survey: Survey) -> None:
    found = [p.camera for p in proposals.propose_cameras(survey, 12)]
    boxes = proposals.propose_boxes(survey, found, 4)
    assert boxes
    assert sum(box.volume for box in boxes) > 5.0
    rng = np.random.default_rng(0)
    for box in boxes:
        points = rng.uniform(box.min, box.max, size=(4000, 3))
        assert _is_outside_of_things(points).all()
    # A box of which only the middle is filled is not free; its empty half is.
    low, high = np.array([-1.5, -1.4, -2.5]), np.array([1.0, 1.0, 0.0])
    assert not survey.probe.is_free(low, high)
    assert survey.probe.is_free(np.array([-1.5, 0.4, -2.5]), high)


def test_targets_are_on_surfaces_with_variety(survey: Survey) -> None:
    targets = np.array(proposals.propose_targets(survey, 8))
    assert len(targets) == 8
    distance = np.linalg.norm(targets[:, None] - targets[None], axis=-1)
    assert distance[np.triu_indices(8, 1)].min() > 0.2
    on_wall = np.isclose(np.abs(targets), ROOM, atol=1e-3).any(axis=1)
    on_ball = np.isclose(np.linalg.norm(targets - BALL[0], axis=1), BALL[1], atol=1e-3)
    inset = np.abs(targets - np.clip(targets, *CRATE)).max(axis=1) < 1e-3
    assert on_ball.any()
    assert (inset & ~on_wall).any()


def test_fly_through_stays_in_free_space(survey: Survey) -> None:
    found = proposals.propose_cameras(survey, 32)
    frames = proposals.propose_fly_through(survey, found, 4)
    assert len(frames) >= 3
    assert frames[0].origin == pytest.approx(CAMERA.origin)
    scene = _entry(fly_through=frames)
    path = np.array([scene.fly(t).origin for t in np.linspace(0, 1, 300)])
    assert _is_outside_of_things(path).all()
    assert np.linalg.norm(np.diff(path, axis=0), axis=1).sum() > 0.2 * survey.scale


def test_whole_proposal_is_deterministic_and_good(survey: Survey) -> None:
    def propose(known: Survey) -> tuple[CatalogueScene, proposals.Report]:
        return proposals.propose_scene(
            known, "room", "builtin:chess", title="Room", author="A", licence="CC0"
        )

    scene, report = propose(survey)
    assert report.accepted > 0.8
    assert propose(Survey(survey.probe.scene, seed=5)) == (scene, report)
    assert (Survey(survey.probe.scene, seed=6).free[:20] != survey.free[:20]).any()


def test_open_scene_is_seen_from_above_the_ground(variant_llvm_rgb: str) -> None:
    import mitsuba as mi

    ground = mi.ScalarTransform4f().translate([0, -1, 0]).rotate([1, 0, 0], -90).scale(50)
    scene = mi.load_dict(
        {
            "type": "scene",
            "sensor": Camera((2, 1.5, 4), (0, 0, 0), fov=40).as_dict()
            | {"film": {"type": "hdrfilm", "width": 32, "height": 18}},
            "sky": {"type": "constant"},
            "ground": {"type": "rectangle", "to_world": ground},
            "ball": {"type": "sphere"},
            "crate": _cube([1.2, -1, -1], [2.2, 0, 0]),
        }
    )
    survey = Survey(scene)
    assert not survey.indoors
    found = proposals.propose_cameras(survey, 20)
    origins = np.array([proposal.camera.origin for proposal in found])
    assert len(found) == 20
    assert (origins[:, 1] > -1).all()
    assert (np.linalg.norm(origins, axis=1) > 1).all()
    assert (np.linalg.norm(origins, axis=1) < 8).all()
    sides = {(x > 0, z > 0) for x, _, z in origins}
    assert len(sides) == 4, "all around the object"
    targets = np.array(proposals.propose_targets(survey))
    assert (np.linalg.norm(targets, axis=1) < 4).all()


def test_own_camera_is_read_back(variant_llvm_rgb: str) -> None:
    import mitsuba as mi

    probe = Probe(_room())
    own = own_camera(probe)
    assert own.origin == pytest.approx(CAMERA.origin)
    assert own.fov == pytest.approx(60.0, abs=1e-3)
    np.testing.assert_allclose(axes(own), axes(CAMERA), atol=1e-4)
    # The rays of a view are those of Mitsuba's sensor.
    origins, directions = rays([own], 32, 18)
    x, y = 5, 3
    position = mi.Point2f((x + 0.5) / 32, (y + 0.5) / 18)
    ray, _ = probe.scene.sensors()[0].sample_ray(0.0, 0.5, position, mi.Point2f(0.5))
    np.testing.assert_allclose(np.array(ray.d).ravel(), directions[y * 32 + x], atol=1e-4)
    assert origins[0] == pytest.approx(CAMERA.origin)
    portrait = CAMERA.as_dict() | {"film": {"type": "hdrfilm", "width": 18, "height": 32}}
    assert own_camera(Probe(_room(sensor=portrait))).fov == pytest.approx(60.0, abs=1e-3)


def test_unusable_sensors_and_variants_are_errors(variant_llvm_rgb: str) -> None:
    import mitsuba as mi

    with pytest.raises(ConfigError, match=r"1 sensor\(s\), so there is no number 1"):
        Survey(_room(), sensor=1)
    with pytest.raises(ConfigError, match="around a perspective or thinlens sensor"):
        Survey(_room(sensor={"type": "orthographic"}))
    mi.set_variant("llvm_ad_spectral")
    with pytest.raises(VariantError, match="such as llvm_ad_rgb"):
        Probe(_room())


def _entry(**values: Any) -> CatalogueScene:
    return CatalogueScene(
        "room", "builtin:chess", title="Room", author="A", licence="CC0", **values
    )
