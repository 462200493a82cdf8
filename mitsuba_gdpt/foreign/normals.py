"""Normals of any origin in the camera's frame."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch

from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.foreign.words import Words
from mitsuba_gdpt.naming import Frame


def in_camera(
    normals: torch.Tensor, frame: Frame | None, words: Words, layer: str
) -> torch.Tensor | None:
    """Return normals in the camera's frame; None, with a warning, where that cannot be known."""
    if words.normals_space == "camera" or frame is Frame.CAMERA:
        return normals
    if frame is Frame.MIRRORED:
        return normals * normals.new_tensor([-1.0, 1.0, 1.0])
    if words.to_sensor is not None:
        return turned(normals, words.to_sensor)
    if frame is Frame.PBRT:
        warnings.warn(
            f"the normals {layer!r} are taken for those of pbrt's camera frame; if its film uses "
            f"the world (coordinatesystem), pass to_sensor",
            stacklevel=5,
        )
        return normals * normals.new_tensor([-1.0, 1.0, 1.0])
    which = "are in world space" if frame is Frame.WORLD else "may be in world space"
    also = "" if frame is Frame.WORLD else ", or normals_space='camera' if they are in that frame"
    warnings.warn(
        f"the normals {layer!r} {which} and are left out; pass "
        f"to_sensor=sensor.world_transform().inverse(){also}",
        stacklevel=5,
    )
    return None


def decoded(normals: torch.Tensor) -> torch.Tensor:
    """Undo, with a warning, that (H, W, 3) normals are stored as colours, as n / 2 + 1 / 2.

    They are if none is negative, and the lengths say so. What is black or grey is no normal.
    """
    coded = 2 * normals - 1
    there = (normals.abs().amax(-1) > 0) & (torch.linalg.vector_norm(coded, dim=-1) > 0.5)
    if not there.any() or not bool((normals >= 0).all()):
        return normals

    def off(vectors: torch.Tensor) -> float:
        return float((torch.linalg.vector_norm(vectors[there], dim=-1) - 1).abs().median())

    if not off(coded) < 0.05 < off(normals):
        return normals
    warnings.warn(
        "the normals are coded as colours between 0 and 1, and are decoded: 2 n - 1", stacklevel=5
    )
    return torch.where(there[..., None], coded, 0.0)


def turned(normals: torch.Tensor, transform: Any) -> torch.Tensor:
    """Apply a transform to (H, W, 3) normals; where there is none (0), none is made."""
    matrix = np.array(getattr(transform, "matrix", transform), dtype=np.float64)
    if matrix.size != 16 or not np.isfinite(matrix).all():
        raise ConfigError(
            f"to_sensor has the shape {matrix.shape}; expected a Transform4f or a (4, 4) matrix"
        )
    linear = matrix.reshape(4, 4)[:3, :3]
    if abs(np.linalg.det(linear)) <= 1e-12 * np.linalg.norm(linear) ** 3:  # whatever its scale
        raise ConfigError("to_sensor cannot be inverted; expected a sensor's transform")
    inverse = torch.as_tensor(np.linalg.inv(linear), dtype=normals.dtype, device=normals.device)
    turned = normals @ inverse  # normals transform with the inverse transpose
    length = torch.linalg.vector_norm(turned, dim=-1, keepdim=True)
    original = torch.linalg.vector_norm(normals, dim=-1, keepdim=True)
    return torch.where(length > 0, turned / length.clamp(min=1e-30) * original, turned)
