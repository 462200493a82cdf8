"""Fly-throughs: smooth camera paths through key frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.scenes.registry import Camera, Vector


@dataclass(frozen=True)
class KeyFrame:
    """A camera that a fly-through passes.

    Attributes:
        origin: Position.
        target: Point in the middle of the picture.
        up: Direction that is vertical in the picture.
        fov: Field of view in degrees along the wider image axis.
    """

    origin: Vector
    target: Vector
    up: Vector = (0.0, 1.0, 0.0)
    fov: float = 45.0


def fly(key_frames: Sequence[KeyFrame], time: float) -> Camera:
    """Return the camera at a moment of a fly-through.

    Positions, targets, up vectors and fields of view follow cubic Hermite curves through the key
    frames, which are equally far apart in time. Tangents are those of Catmull and Rom, and zero at
    both ends: the camera starts and stops at rest.

    Args:
        key_frames: At least two.
        time: 0 is the first key frame, 1 the last.

    Raises:
        ConfigError: There are fewer than two key frames, or the time is outside of 0..1.
    """
    if len(key_frames) < 2:
        raise ConfigError(
            f"a fly-through needs at least 2 key frames, got {len(key_frames)}; add some to the "
            "catalogue's fly_through"
        )
    if not 0.0 <= time <= 1.0:
        raise ConfigError(f"the time of a fly-through goes from 0 to 1, got {time}")
    values = np.array([[*k.origin, *k.target, *k.up, k.fov] for k in key_frames])
    row = _hermite(values, time * (len(key_frames) - 1))
    return Camera(
        origin=vector(row[0:3]), target=vector(row[3:6]), up=vector(row[6:9]), fov=float(row[9])
    )


def _hermite(values: NDArray[np.float64], position: float) -> NDArray[np.float64]:
    """Evaluate the curve through the rows of ``values`` at a fractional row number."""
    tangents = np.zeros_like(values)
    tangents[1:-1] = (values[2:] - values[:-2]) / 2
    i = min(int(position), len(values) - 2)
    t = position - i
    return np.asarray(
        (1 + 2 * t) * (1 - t) ** 2 * values[i]
        + t * (1 - t) ** 2 * tangents[i]
        + t**2 * (3 - 2 * t) * values[i + 1]
        + t**2 * (t - 1) * tangents[i + 1]
    )


def vector(values: Sequence[float] | NDArray[np.float64]) -> Vector:
    """Return three numbers as a tuple of Python floats."""
    x, y, z = (float(value) for value in values)
    return x, y, z
