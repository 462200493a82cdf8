"""What has to be known about a loaded scene before views of it can be proposed or judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mitsuba_gdpt.scenes.flythrough import vector
from mitsuba_gdpt.scenes.probe import Points, Probe, own_camera, sphere
from mitsuba_gdpt.scenes.registry import Camera, Vector

if TYPE_CHECKING:
    import mitsuba as mi

_VIEW = (24, 14)  # pixels of a view whose geometry is judged
_LIGHT_VIEW = (12, 7)  # pixels of a view whose light is judged: few, with little noise each
_SPP = 12
_MIDDLE_GREY = 0.18  # what the geometric mean of a well-exposed picture is near
_WHITE = 4.0  # greatest value that the brightest twentieth of a picture is exposed to

# Lengths are shares of ``Survey.scale``, the distance at which the scene's own camera sees things.
_CLEARANCE = 0.04
_NEAR = 0.1  # surfaces nearer than this fill the view
_REACH = 2.5  # how far from the own camera a room is looked at
_SAME_PLANE = 0.02

# Shares of a view's pixels.
_MAX_NEAR = 0.3
_MAX_FLAT = 0.85
_MIN_LIT = 0.6
_MAX_SATURATED = 0.6

_DARK, _SATURATED = 0.004, 2.0  # luminance after exposure
_CLOSED = 0.56  # share of directions with a surface, from which on a place counts as indoors
_INSIDE = 0.9  # share of directions with back faces, from which on a place counts as inside
_OPENER = 0.15  # how much less than the own camera's this share may be elsewhere


@dataclass(frozen=True)
class Verdict:
    """What a view is worth.

    Attributes:
        reason: Why it was rejected, None if it was not.
        score: About 0 to 4, the more varied, the higher; 0 for rejected views.
    """

    reason: str | None
    score: float

    @property
    def good(self) -> bool:
        """Whether the view was accepted."""
        return self.reason is None


class Survey:
    """A loaded scene with its scale, its free space and a measure for views.

    All lengths are judged against ``scale``. The scene's own camera is trusted: it stands in free
    space, and everything that sight lines can reach from there, over several corners, is the free
    space of which the survey speaks. This holds where normals do not: in most scenes on the web
    walls are single sheets whose normals point anywhere.

    Args:
        scene: A scene with a ``perspective`` or ``thinlens`` sensor.
        seed: Of the random positions; the same seed gives the same survey.
        sensor: Which of the scene's sensors to trust.
        exposure: Factor on the radiance; by default chosen from the own camera's view.
        up: Vertical axis; by default the axis that is most like the own camera's up vector.

    Attributes:
        probe: For further questions.
        own: The scene's own camera.
        up: Vertical axis.
        scale: Median distance of what the own camera sees.
        indoors: Whether the own camera is surrounded by surfaces.
        exposure: Factor on the radiance.
        low: Least corner of the region in which views are looked for.
        high: Greatest corner.
        free: (N, 3) positions in free space with some clearance, the own camera's first.

    Raises:
        ConfigError: The scene has no usable sensor.
        VariantError: The variant is a spectral one.
    """

    def __init__(
        self,
        scene: mi.Scene,
        *,
        seed: int = 0,
        sensor: int = 0,
        exposure: float | None = None,
        up: Vector | None = None,
    ) -> None:
        self.seed = seed
        self.probe = probe = Probe(scene)
        self.own = own_camera(probe, sensor)
        self.up = up or _main_axis(self.own.up)
        origin = np.array([self.own.origin])
        view = probe.view([self.own], *_VIEW)
        self.scale = float(np.median(view.distance[view.valid]))
        surroundings = probe.around(origin)
        self._own_enclosure = float(surroundings.enclosure[0])
        # A room that is one mesh with normals outwards looks like the inside of an object.
        self._trust_normals = bool(surroundings.back[0] < _INSIDE)
        self.indoors = self._own_enclosure >= _CLOSED
        self._own_hits = float(view.valid.mean())
        self._floor = self._find_floor(view.point[view.valid])
        self.exposure = exposure or self._find_exposure()
        self.low, self.high = self._find_region(view.point[view.valid])
        self.free = self._find_free(np.random.default_rng([seed, 1]))

    def height(self, points: Points) -> Points:
        """Return the height of points above the floor, (N,)."""
        return np.asarray(points @ np.array(self.up) / np.linalg.norm(self.up) - self._floor)

    def is_free(self, points: Points) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Tell which points are fit for a camera, if sight lines reach them (see ``reachable``)."""
        around = self.probe.around(points)
        good = around.clearance >= _CLEARANCE * self.scale
        good &= self.height(points) >= _CLEARANCE * self.scale
        if self.indoors:  # not out of the window
            good &= around.enclosure >= self._own_enclosure - _OPENER
        if self._trust_normals:
            good &= around.back < _INSIDE
        return np.asarray(good)

    def judge(self, cameras: Sequence[Camera]) -> list[Verdict]:
        """Judge views by what their pixels see, and those that pass by a small render.

        A view is rejected if it sees too little of the scene, if something is right before it, if
        most of it is one plane, if too little of it is lit or if most of it is overexposed.
        """
        if not cameras:
            return []
        verdicts = self.judge_geometry(cameras)
        good = [i for i, verdict in enumerate(verdicts) if verdict.good]
        if not good:
            return verdicts
        luminance = self.exposure * self.probe.radiance(
            [cameras[i] for i in good], *_LIGHT_VIEW, _SPP, self.seed
        )
        for i, pixels in zip(good, luminance, strict=True):
            lit, saturated = (pixels > _DARK).mean(), (pixels > _SATURATED).mean()
            if lit < _MIN_LIT:
                verdicts[i] = Verdict("dark", 0.0)
            elif saturated > _MAX_SATURATED:
                verdicts[i] = Verdict("overexposed", 0.0)
            else:
                verdicts[i] = Verdict(None, verdicts[i].score + float(lit - saturated))
        return verdicts

    def judge_geometry(self, cameras: Sequence[Camera]) -> list[Verdict]:
        """Judge views as :meth:`judge` does, but without light."""
        hits = self.probe.view(cameras, *_VIEW)
        shape = (len(cameras), -1)
        verdicts = []
        rows = zip(
            hits.distance.reshape(shape),
            hits.point.reshape(*shape, 3),
            hits.normal.reshape(*shape, 3),
            hits.shape.reshape(shape),
            strict=True,
        )
        for distance, point, normal, shapes in rows:
            valid = np.isfinite(distance)
            near = (distance < _NEAR * self.scale).mean()
            if valid.mean() < 0.5 * self._own_hits:
                verdicts.append(Verdict("sees too little of the scene", 0.0))
            elif near > _MAX_NEAR:
                verdicts.append(Verdict("something is right before it", 0.0))
            else:
                flat = _share_of_one_plane(
                    point[valid], normal[valid], _SAME_PLANE * self.scale
                ) * float(valid.mean())
                if flat > _MAX_FLAT:
                    verdicts.append(Verdict("stares at a plane", 0.0))
                    continue
                depth = float(np.log(np.maximum(distance[valid], 1e-6 * self.scale)).std())
                _, counts = np.unique(shapes, return_counts=True)
                share = counts / counts.sum()
                entropy = float(-(share * np.log2(share)).sum())
                verdicts.append(Verdict(None, 1 - flat + min(depth, 1.0) + min(entropy / 4, 1.0)))
        return verdicts

    def _find_floor(self, seen: Points) -> float:
        """Return the height of what is below the own camera, else of the lowest things it sees."""
        up = np.array(self.up) / np.linalg.norm(self.up)
        origin = np.array(self.own.origin)
        below = self.probe.cast(origin[None], -up[None])
        if below.valid[0]:
            return float(below.point[0] @ up)
        lowest = float(np.percentile(seen @ up, 2))
        return min(lowest, float(origin @ up) - 2 * _CLEARANCE * self.scale)

    def _find_exposure(self) -> float:
        pixels = self.probe.radiance([self.own], *_VIEW, 4 * _SPP, self.seed)
        mean = float(np.exp(np.log(pixels + 1e-5).mean()))
        exposure = min(_MIDDLE_GREY / mean, _WHITE / max(float(np.percentile(pixels, 95)), 1e-5))
        return float(f"{exposure:.2g}")

    def _find_region(self, seen: Points) -> tuple[Points, Points]:
        origin, target = np.array(self.own.origin), np.array(self.own.target)
        if not self.indoors:
            reach = 1.2 * float(np.linalg.norm(origin - target))
            return target - reach, target + reach
        directions = sphere(2048)
        hits = self.probe.cast(origin[None], directions)
        points = np.concatenate([seen, hits.point[hits.valid]])
        points = points[np.linalg.norm(points - origin, axis=1) < _REACH * self.scale]
        low, high = np.percentile(points, [1, 99], axis=0)
        return np.minimum(low, origin), np.maximum(high, origin)

    def _candidates(self, count: int, rng: np.random.Generator) -> Points:
        """Return random positions: in the region indoors, in a shell around the object outside."""
        if self.indoors:
            return np.asarray(self.low + (self.high - self.low) * rng.random((count, 3)))
        target = np.array(self.own.target)
        distance = float(np.linalg.norm(np.array(self.own.origin) - target))
        direction = rng.normal(size=(count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        radius = distance * (0.4 + 0.7 * rng.random((count, 1)))
        elevation = direction @ np.array(self.up) / np.linalg.norm(self.up)
        keep = (elevation > -0.2) & (elevation < 0.9)
        return np.asarray((target + radius * direction)[keep])

    def _find_free(self, rng: np.random.Generator, count: int = 800, rounds: int = 6) -> Points:
        candidates = self._candidates(count, rng)
        candidates = candidates[self.is_free(candidates)]
        known = np.array([self.own.origin])
        for _ in range(rounds):
            if not len(candidates):
                break
            reached = self.reachable(candidates, known, rng)
            if not reached.any():
                break
            known = np.concatenate([known, candidates[reached]])
            candidates = candidates[~reached]
        return known

    def reachable(
        self, points: Points, known: Points, rng: np.random.Generator, tries: int = 12
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
        """Tell which points are seen from at least one of a few ``known`` ones, randomly chosen."""
        chosen = known[rng.permutation(len(known))[:tries]]
        sees = self.probe.sees(
            np.tile(chosen, (len(points), 1)), np.repeat(points, len(chosen), axis=0)
        )
        return np.asarray(sees.reshape(len(points), len(chosen)).any(axis=1))


def upright(survey: Survey, origin: Points, target: Points, fov: float) -> Camera:
    """Return a camera that is not rolled."""
    return Camera(vector(origin), vector(target), survey.up, fov=fov)


def _main_axis(up: Vector) -> Vector:
    """Return the axis that an up vector is most like; y wins narrow decisions, as it is usual."""
    axis = int(np.argmax(np.abs(up) * (1.0, 1.1, 1.0)))
    result = [0.0, 0.0, 0.0]
    result[axis] = math.copysign(1.0, up[axis])
    return vector(result)


def _share_of_one_plane(points: Points, normals: Points, tolerance: float) -> float:
    """Return the share of the points that lie on the same plane as the luckiest of some of them."""
    chosen = slice(None, None, max(1, len(points) // 48))
    parallel = normals[chosen] @ normals.T > 0.99
    offset = np.einsum("ij,ij->i", points[chosen], normals[chosen])[:, None]
    level = np.abs(normals[chosen] @ points.T - offset) < tolerance
    return float((parallel & level).mean(axis=1).max())
