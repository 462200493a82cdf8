"""Proposals for catalogues: cameras, camera boxes, targets and fly-throughs of a loaded scene.

They are found by rays and small renders (:class:`Survey`), and are made to be looked at and edited
by a person: ``mitsuba-gdpt catalogue propose`` and ``review``. Everything is deterministic given
the seed of the survey, up to differences between processors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.scenes.catalogue import CAMERA_DIMENSIONS, CameraBox, CatalogueScene
from mitsuba_gdpt.scenes.flythrough import KeyFrame, fly, vector
from mitsuba_gdpt.scenes.probe import Points, axes
from mitsuba_gdpt.scenes.registry import Camera, Vector
from mitsuba_gdpt.scenes.survey import Survey, upright

# Lengths are shares of ``Survey.scale``.
_MARGIN = 0.03  # between camera boxes and surfaces
_STEP = 0.08  # by which a box grows at a time
_FIRST = 0.02  # half the side of the box that starts to grow
_LONGEST = 1.2  # side of a box
_TARGET_SPACING = 0.25
_CONE = 0.08  # tangent of the angle around a target in which variety counts
_FLIGHT = (0.12, 0.7)  # distance between key frames
_FLIGHT_CLEARANCE = 0.02
_TRUSTED = 0.1  # around the own camera, where a flight may pass near things
_FLIGHT_TURN = 50.0  # degrees between the views of two key frames

_GOOD_SHARE = 0.5  # of the views with a target or box, below which it is dropped
_TRIALS = 96  # views that are judged to decide this


@dataclass(frozen=True)
class Proposal:
    """A camera that passed all tests, with its score; see :class:`survey.Verdict`."""

    camera: Camera
    score: float


@dataclass(frozen=True)
class Report:
    """How good the sampled views of a scene are.

    Attributes:
        accepted: Share of the views without complaint.
        complaints: Reason to share of the views.
    """

    accepted: float
    complaints: dict[str, float]


def propose_targets(survey: Survey, count: int = 10) -> tuple[Vector, ...]:
    """Find points worth looking at: hits with different shapes, normals and depths around them.

    Args:
        survey: Of the scene.
        count: Greatest number of points; they are far apart from each other.
    """
    rng = np.random.default_rng([survey.seed, 2])
    eyes = survey.free[rng.integers(len(survey.free), size=600)]
    aims = _interesting_points(survey, len(eyes), rng)
    direction = aims - eyes
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    hits = survey.probe.cast(eyes, direction)
    good = hits.valid & (hits.distance > 0.15 * survey.scale)
    good &= ((hits.point >= survey.low) & (hits.point <= survey.high)).all(axis=1)
    if not survey.indoors:
        reach = 0.45 * np.linalg.norm(np.subtract(survey.own.origin, survey.own.target))
        good &= np.linalg.norm(hits.point - np.array(survey.own.target), axis=1) < reach
    if not good.any():
        return (survey.own.target,)
    points = hits.point[good]
    variety = _variety(survey, eyes[good], direction[good], rng)
    best = np.argsort(-variety, kind="stable")[: max(count, len(points) // 3)]
    chosen = _spread(points[best], count, variety[best], _TARGET_SPACING * survey.scale)
    return tuple(vector(point) for point in chosen)


def propose_cameras(
    survey: Survey,
    count: int = 32,
    *,
    targets: Sequence[Vector] | None = None,
    boxes: Sequence[CameraBox] = (),
    fov: tuple[float, float] | None = None,
    tries: int = 96,
) -> list[Proposal]:
    """Find views that pass :meth:`Survey.judge`, best first.

    Args:
        survey: Of the scene.
        count: Greatest number of views.
        targets: Points to look at; by default :func:`propose_targets`. An empty sequence stands
            for random directions.
        boxes: Where the cameras may be; by default anywhere in the survey's free space.
        fov: Range of fields of view in degrees; by default one that suits the scene.
        tries: Number of views that are judged.
    """
    rng = np.random.default_rng([survey.seed, 3])
    targets = propose_targets(survey) if targets is None else targets
    if boxes:
        pool = np.concatenate([rng.uniform(box.min, box.max, size=(tries, 3)) for box in boxes])
        pool = pool[survey.is_free(pool)]
        if not len(pool):
            return []
    else:
        pool = survey.free
    low, high = fov or propose_fov(survey)
    eyes = pool[rng.integers(len(pool), size=tries)]
    if len(targets):
        aims = np.array(targets)[rng.integers(len(targets), size=tries)]
    else:
        aims = eyes + rng.normal(size=(tries, 3)) * survey.scale
    lenses = low + (high - low) * rng.random(tries)
    cameras = [
        upright(survey, eye, aim, float(lens))
        for eye, aim, lens in zip(eyes, aims, lenses, strict=True)
        if _is_level(survey, aim - eye)
    ]
    verdicts = survey.judge(cameras)
    found = [
        Proposal(camera, verdict.score)
        for camera, verdict in zip(cameras, verdicts, strict=True)
        if verdict.good
    ]
    return sorted(found, key=lambda proposal: -proposal.score)[:count]


def propose_fov(survey: Survey) -> tuple[float, float]:
    """Return a range of fields of view in degrees around that of the scene's own camera."""
    own = survey.own.fov
    if survey.indoors:
        own = min(max(own, 50.0), 75.0)
    return round(0.7 * own), round(1.2 * own)


def propose_boxes(
    survey: Survey, cameras: Sequence[Camera], count: int = 5
) -> tuple[CameraBox, ...]:
    """Grow boxes without geometry around good cameras, and keep the largest different ones.

    The scene's own position, and points between it and what it looks at, are tried too.

    Args:
        survey: Of the scene.
        cameras: Around which to grow; see :func:`propose_cameras`.
        count: Greatest number of boxes.
    """
    origin, target = np.array(survey.own.origin), np.array(survey.own.target)
    starts = [origin, *(origin + s * (target - origin) for s in (0.25, 0.5))]
    starts = [start for start in starts if survey.is_free(start[None])[0]]
    starts += list(_spread(np.array([camera.origin for camera in cameras]), 2 * count))
    grown = [box for box in (_grow(survey, start) for start in starts) if box is not None]
    grown.sort(key=lambda box: -box.volume)
    chosen: list[CameraBox] = []
    for box in grown:
        if all(_overlap(box, other) < 0.4 for other in chosen):
            chosen.append(box)
    return tuple(chosen[:count])


def propose_fly_through(
    survey: Survey, proposals: Sequence[Proposal], count: int = 5
) -> tuple[KeyFrame, ...]:
    """Link good cameras to a smooth path that begins at the scene's own camera.

    Every moment of the path is in free space and sees what :meth:`Survey.judge_geometry` accepts.
    Where no camera can be reached, the path moves a little around the own camera.

    Args:
        survey: Of the scene.
        proposals: Cameras to choose from.
        count: Number of key frames.

    Returns:
        Key frames; none if there is no room to move at all.
    """
    frames = [_key_frame(survey.own)]
    pool = [proposal.camera for proposal in proposals] + _moves(survey)
    while len(frames) < count:
        ranked = sorted(pool, key=lambda camera: _detour(survey, frames, camera))
        for camera in ranked[:40]:
            if _detour(survey, frames, camera) == np.inf:
                continue
            longer = [*frames, replace(_key_frame(camera), fov=survey.own.fov)]
            if _is_flyable(survey, longer):
                frames = longer
                break
        else:
            break
    return tuple(frames) if len(frames) > 1 else ()


def propose_scene(
    survey: Survey, name: str, source: str, *, title: str, author: str, licence: str
) -> tuple[CatalogueScene, Report]:
    """Propose everything that a catalogue says about a scene.

    Targets and boxes of which most sampled views are rejected are dropped.

    Returns:
        The scene, and how good the views are that it samples.

    Raises:
        ConfigError: No view, box or path was found.
    """
    targets = propose_targets(survey)
    proposals = propose_cameras(survey, 40, targets=targets)
    if not proposals:
        raise ConfigError(
            f"found no good view of {name!r} around its own camera; write boxes and targets by hand"
        )
    boxes = propose_boxes(survey, [proposal.camera for proposal in proposals])
    if not boxes:
        raise ConfigError(f"found no room for a camera box in {name!r}; write boxes by hand")
    scene = CatalogueScene(
        name=name,
        source=source,
        title=title,
        author=author,
        licence=licence,
        exposure=survey.exposure,
        up=survey.up,
        fov=propose_fov(survey),
        targets=targets,
        boxes=boxes,
        fly_through=propose_fly_through(survey, proposals),
    )
    scene = _drop_bad(survey, scene)
    return scene, review(survey, scene)


def sample_views(scene: CatalogueScene, count: int, seed: int = 0) -> list[Camera]:
    """Return sampled cameras of a scene, spread evenly (a scrambled Latin hypercube)."""
    rng = np.random.default_rng([seed, 4])
    strata = np.stack([rng.permutation(count) for _ in range(CAMERA_DIMENSIONS)], axis=1)
    return [scene.sample_camera(u) for u in (strata + rng.random(strata.shape)) / count]


def review(survey: Survey, scene: CatalogueScene, count: int = _TRIALS) -> Report:
    """Judge sampled views of a scene; the exposure is the survey's."""
    verdicts = survey.judge(sample_views(scene, count, survey.seed))
    complaints = [verdict.reason for verdict in verdicts if verdict.reason]
    shares = {reason: complaints.count(reason) / count for reason in sorted(set(complaints))}
    return Report(1.0 - len(complaints) / count, shares)


def _drop_bad(survey: Survey, scene: CatalogueScene) -> CatalogueScene:
    """Drop targets, then boxes, that mostly give rejected views; the best one always stays."""
    views = sample_views(scene, _TRIALS, survey.seed)
    good = np.array([verdict.good for verdict in survey.judge(views)])
    aims = np.array([view.target for view in views])
    scores = [_mean(good[np.abs(aims - target).max(axis=1) < 1e-6]) for target in scene.targets]
    keep = [t for t, s in zip(scene.targets, scores, strict=True) if s >= _GOOD_SHARE]
    scene = replace(scene, targets=tuple(keep or [scene.targets[int(np.argmax(scores))]]))

    # A box gets views of its own, since by volume a small one would get too few to be judged.
    shares = [review(survey, replace(scene, boxes=(b,)), 24).accepted for b in scene.boxes]
    boxes = [b for b, s in zip(scene.boxes, shares, strict=True) if s >= _GOOD_SHARE]
    return replace(scene, boxes=tuple(boxes or [scene.boxes[int(np.argmax(shares))]]))


def _mean(values: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> float:
    return float(values.mean()) if len(values) else 0.0


def _interesting_points(survey: Survey, count: int, rng: np.random.Generator) -> Points:
    """Return points to aim at: mostly what the own camera sees, which somebody has composed."""
    if survey.indoors:
        others = rng.uniform(survey.low, survey.high, size=(count, 3))
    else:
        target = np.array(survey.own.target)
        reach = 0.3 * np.linalg.norm(np.subtract(survey.own.origin, target))
        others = target + reach * rng.normal(size=(count, 3))
    hits = survey.probe.view([survey.own], 48, 27)
    seen = hits.point[hits.valid]
    seen = seen[rng.integers(len(seen), size=count)]
    return np.where(rng.random((count, 1)) < 0.65, seen, others)


def _variety(survey: Survey, eyes: Points, direction: Points, rng: np.random.Generator) -> Points:
    """Return how much shapes, normals and depths differ in a cone around each ray, (N,)."""
    rays = 24
    d = np.repeat(direction, rays, axis=0)
    d = d + _CONE * rng.normal(size=d.shape)
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    hits = survey.probe.cast(np.repeat(eyes, rays, axis=0), d)
    shape = hits.shape.reshape(-1, rays)
    normals = hits.normal.reshape(-1, rays, 3)
    depth = np.where(hits.valid, hits.distance, 4 * survey.scale).reshape(-1, rays)
    shapes = np.array([len(np.unique(row)) for row in shape])
    bend = 1.0 - np.linalg.norm(normals.mean(axis=1), axis=1)
    steps = np.log(np.maximum(depth, 1e-6 * survey.scale)).std(axis=1)
    return np.asarray(np.minimum(shapes - 1, 4) / 4 + bend + np.minimum(steps, 0.5))


def _spread(
    points: Points, count: int, value: Points | None = None, spacing: float = np.inf
) -> Points:
    """Choose points far from each other, beginning with the first.

    Args:
        points: (N, 3).
        count: Greatest number.
        value: (N,) what else counts: 1 is worth as much as being ``spacing`` away from all others.
        spacing: Distance that is far enough; with infinity only the distance counts.
    """
    if not len(points):
        return points
    chosen: list[int] = [0]
    distance = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < min(count, len(points)):
        gain = distance
        if value is not None:
            gain = np.minimum(distance / spacing, 1.0) + value
        gain = np.where(distance > 0, gain, -1.0)
        chosen.append(int(np.argmax(gain)))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return points[chosen]


def _is_level(survey: Survey, direction: Points) -> bool:
    up = np.array(survey.up)
    cosine = abs(direction @ up) / (np.linalg.norm(direction) * np.linalg.norm(up))
    return bool(cosine < 0.95)


def _grow(survey: Survey, start: Points) -> CameraBox | None:
    """Push the faces of a small box outwards, in turn, as long as it stays free."""
    margin = _MARGIN * survey.scale
    low, high = start - _FIRST * survey.scale, start + _FIRST * survey.scale
    if not _box_is_free(survey, low, high, margin):
        return None
    growing = [True] * 6
    while any(growing):
        for face in range(6):
            if not growing[face]:
                continue
            side, axis = divmod(face, 3)
            new_low, new_high = low.copy(), high.copy()
            if side:
                new_high[axis] += _STEP * survey.scale
            else:
                new_low[axis] -= _STEP * survey.scale
            growing[face] = (
                new_high[axis] - new_low[axis] <= _LONGEST * survey.scale
                and bool((new_low >= survey.low).all() and (new_high <= survey.high).all())
                and _box_is_free(survey, new_low, new_high, margin)
            )
            if growing[face]:
                low, high = new_low, new_high
    return CameraBox(vector(low), vector(high))


def _box_is_free(survey: Survey, low: Points, high: Points, margin: float) -> bool:
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True)), axis=-1).reshape(-1, 3)
    return survey.probe.is_free(low - margin, high + margin) and bool(
        survey.is_free(np.concatenate([corners, [(low + high) / 2]])).all()
    )


def _overlap(a: CameraBox, b: CameraBox) -> float:
    """Return the common volume over that of the smaller box."""
    sides = np.minimum(a.max, b.max) - np.maximum(a.min, b.min)
    return float(np.prod(np.maximum(sides, 0.0))) / min(a.volume, b.volume)


def _key_frame(camera: Camera) -> KeyFrame:
    return KeyFrame(camera.origin, camera.target, camera.up, camera.fov)


def _moves(survey: Survey) -> list[Camera]:
    """Return slight variations of the own camera: aside, up, down, nearer, turned."""
    right, upwards, forward = axes(survey.own)
    origin, target = np.array(survey.own.origin), np.array(survey.own.target)
    steps = [
        a * right + b * upwards + c * forward
        for a in (-0.3, -0.15, 0.0, 0.15, 0.3)
        for b in (-0.08, 0.0, 0.12)
        for c in (0.0, 0.15, 0.3)
    ]
    return [
        upright(
            survey,
            origin + survey.scale * step,
            target + shift * survey.scale * right,
            survey.own.fov,
        )
        for step in steps
        for shift in (-0.1, 0.0, 0.1)
        if np.abs(step).max() > 0
    ]


def _detour(survey: Survey, frames: Sequence[KeyFrame], camera: Camera) -> float:
    """Return how unnatural a camera is as the next key frame, infinite if out of the question."""
    last = frames[-1]
    step = np.subtract(camera.origin, last.origin)
    length = float(np.linalg.norm(step)) / survey.scale
    if not _FLIGHT[0] <= length <= _FLIGHT[1]:
        return float(np.inf)
    if any(
        np.linalg.norm(np.subtract(camera.origin, frame.origin)) < _FLIGHT[0] * survey.scale
        for frame in frames
    ):
        return float(np.inf)
    turn = _angle(np.subtract(camera.target, camera.origin), np.subtract(last.target, last.origin))
    if turn > _FLIGHT_TURN:
        return float(np.inf)
    bend = 0.0
    if len(frames) > 1:
        bend = _angle(step, np.subtract(last.origin, frames[-2].origin))
    return turn / _FLIGHT_TURN + bend / 90.0 + abs(length - 0.35)


def _angle(a: Points, b: Points) -> float:
    cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def _is_flyable(survey: Survey, frames: Sequence[KeyFrame]) -> bool:
    """Test the last part of a path, and the one before, whose shape a new key frame changes."""
    parts = len(frames) - 1
    times = np.linspace(max(0, parts - 2) / parts, 1.0, 25)
    cameras = [fly(frames, float(time)) for time in times]
    points = np.array([camera.origin for camera in cameras])
    if not survey.probe.sees(points[:-1], points[1:]).all():
        return False
    # The own camera is trusted, whatever is beside it.
    left = np.linalg.norm(points - np.array(survey.own.origin), axis=1) > _TRUSTED * survey.scale
    points, cameras = points[left], [c for c, far in zip(cameras, left, strict=True) if far]
    clearance = survey.probe.around(points).clearance
    return bool(
        (clearance >= _FLIGHT_CLEARANCE * survey.scale).all()
        and (survey.height(points) >= _FLIGHT_CLEARANCE * survey.scale).all()
        and all(verdict.good for verdict in survey.judge_geometry(cameras))
    )
