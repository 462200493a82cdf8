r"""Screen-space motion between two frames of a static scene, from depth and the two cameras.

The pixel :math:`p` with unit direction :math:`\omega` (camera space) and path length :math:`t` to
its feature vertex shows what is, or seems to be, at :math:`t \omega`. Through the two cameras that
point goes to the pixel :math:`p'` of the previous frame, and ``motion`` is :math:`p' - p`.

Behind a plane mirror or thin glass the point :math:`t \omega` is the virtual image, which stays in
place when the camera moves: there too the motion is exact, where the vertex itself would project
to a pixel that does not show it. Curved mirrors and solid glass are approximated as if plane. Where
the ray escapes, the content is infinitely far away and only the camera's rotation counts. Pixels at
silhouettes have the mean depth of what is in them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import MOTION
from mitsuba_gdpt.errors import ConfigError, FormatError, LayoutError

if TYPE_CHECKING:
    import mitsuba as mi

_TO_WORLD, _TO_PIXEL, _NEAR = "camera_to_world", "camera_to_pixel", "camera_near"
_PROBES = ((0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75))  # film positions, 0..1
_TOLERANCE = 1e-3  # of the image size; rays are float32


@dataclass(frozen=True, eq=False)
class PinholeCamera:
    """What a perspective camera does to points.

    Attributes:
        to_world: (4, 4) float64, camera to world; in camera space +X is left, +Y up, +Z forward.
        to_pixel: (3, 3) float64, camera space to homogeneous pixel coordinates: (x, y) is
            ``(to_pixel @ P)[:2] / P[2]``, +x right, +y down, the upper left pixel's centre at
            (0.5, 0.5).
        near: Distance along +Z at which rays, and so depths, start.
    """

    to_world: NDArray[np.float64]
    to_pixel: NDArray[np.float64]
    near: float = 0.0

    @classmethod
    def from_sensor(cls, sensor: mi.Sensor) -> PinholeCamera:
        """Find the matrices of a sensor by looking at its rays.

        Lenses are taken for pinholes, moving cameras as they are when the shutter opens.

        Raises:
            ConfigError: The sensor is not a perspective camera.
        """
        import mitsuba as mi

        width, height = (int(v) for v in sensor.film().crop_size())
        inverse = np.linalg.inv(_matrix(sensor.world_transform()))
        slopes, nears = [], []
        for probe in _PROBES:
            ray, _ = sensor.sample_ray(
                sensor.shutter_open(), 0.5, mi.Point2f(*probe), mi.Point2f(0.5)
            )
            direction = inverse[:3, :3] @ np.array(ray.d, dtype=np.float64).reshape(3)
            origin = inverse[:3, :3] @ np.array(ray.o, dtype=np.float64).reshape(3) + inverse[:3, 3]
            slopes.append(direction[:2] / direction[2])
            nears.append(origin[2])
        pixels = np.array(_PROBES) * (width, height)
        # A perspective camera maps slopes (X/Z, Y/Z) to pixels by an affine map.
        design = np.column_stack([np.array(slopes), np.ones(len(_PROBES))])
        solution = np.linalg.lstsq(design, pixels, rcond=None)[0]
        error = float(np.abs(design @ solution - pixels).max())
        if not error < _TOLERANCE * max(width, height):
            raise ConfigError(
                f"the sensor {type(sensor).__name__} {sensor.id()!r} is no perspective camera "
                f"(off by {error:.3g} pixels); motion needs 'perspective' or 'thinlens'"
            )
        to_pixel = np.vstack([solution.T, [0.0, 0.0, 1.0]])
        return cls(_matrix(sensor.world_transform()), to_pixel, float(np.mean(nears)))

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> PinholeCamera:
        """Read what :meth:`metadata` gave.

        Raises:
            FormatError: An entry is missing or damaged.
        """
        try:
            to_world = np.array(json.loads(metadata[_TO_WORLD]), dtype=np.float64)
            to_pixel = np.array(json.loads(metadata[_TO_PIXEL]), dtype=np.float64)
            near = float(metadata[_NEAR])
        except (KeyError, ValueError, TypeError) as error:
            raise FormatError(f"no camera in this metadata: {error!r}") from error
        if to_world.shape != (4, 4) or to_pixel.shape != (3, 3):
            raise FormatError(
                f"camera matrices have the shapes {to_world.shape} and {to_pixel.shape}; "
                f"expected (4, 4) and (3, 3)"
            )
        return cls(to_world, to_pixel, near)

    def metadata(self) -> dict[str, str]:
        """Return the matrices, row by row, as JSON texts for the header of an image file."""
        return {
            _TO_WORLD: json.dumps(self.to_world.tolist()),
            _TO_PIXEL: json.dumps(self.to_pixel.tolist()),
            _NEAR: repr(self.near),
        }


def screen_motion(
    depth: torch.Tensor, camera: PinholeCamera, previous: PinholeCamera
) -> torch.Tensor:
    """Compute where each pixel's content was in the previous frame; see the module's docstring.

    Args:
        depth: (H, W, 1) path length to the feature vertex, scene units; 0 where the ray escapes.
        camera: Of this frame.
        previous: Of the previous frame, of the same size.

    Returns:
        (H, W, 2) float32, pixels, +x right, +y down: content at pixel centre (x, y) was at
        (x, y) + motion. What was behind the previous camera gets the motion (W, H), which leads
        out of the frame from anywhere.

    Raises:
        LayoutError: ``depth`` has another shape.
    """
    if depth.ndim != 3 or depth.shape[2] != 1:
        raise LayoutError(f"got depth of shape {tuple(depth.shape)}; expected (H, W, 1)")
    height, width, _ = depth.shape
    centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), axis=-1)
    homogeneous = np.concatenate([centres, np.ones((height, width, 1))], axis=-1)
    slope = _tensor(homogeneous @ np.linalg.inv(camera.to_pixel).T, depth)  # points with Z = 1
    escaped = depth == 0
    # Points in homogeneous coordinates: (direction, 0) where the ray escapes.
    along = depth.double() / torch.linalg.vector_norm(slope, dim=-1, keepdim=True) + camera.near
    point = torch.where(escaped, slope, slope * along)
    relative = np.eye(4)
    if not np.array_equal(camera.to_world, previous.to_world):  # rest stays exactly at rest
        relative = np.linalg.inv(previous.to_world) @ camera.to_world
    matrix = _tensor(relative, depth)
    before = point @ matrix[:3, :3].T + torch.where(escaped, 0.0, matrix[:3, 3])
    in_front = before[..., 2:] > 0
    motion = _project(before, previous) - _project(point, camera)
    outside = _tensor(np.array([width, height]), depth)
    return torch.where(in_front, motion, outside).float()


def add_motion(
    buffers: FrameBuffers, camera: PinholeCamera, previous: PinholeCamera | None
) -> FrameBuffers:
    """Append the buffer ``motion`` to a frame; see :func:`screen_motion`.

    Args:
        buffers: With ``depth``.
        camera: Of this frame.
        previous: Of the previous frame; None for the first, whose motion is 0.

    Raises:
        LayoutError: There is no ``depth``, or there is ``motion`` already.
    """
    previous = camera if previous is None else previous
    return buffers.appended(MOTION, screen_motion(buffers["depth"], camera, previous))


def add_known_motion(
    buffers: FrameBuffers, previous: PinholeCamera | None
) -> tuple[FrameBuffers, PinholeCamera | None]:
    """Append ``motion`` where the metadata say the camera, as those of rendered sequences do.

    Args:
        buffers: Of this frame; with ``motion``, or without ``depth`` or camera, left as they are.
        previous: What this returned for the frame before; None for the first.

    Returns:
        The buffers, and the camera of this frame; None where it is not known.

    Raises:
        FormatError: The camera of the metadata is damaged.
    """
    if _TO_WORLD not in buffers.metadata:
        return buffers, None
    camera = PinholeCamera.from_metadata(buffers.metadata)
    if MOTION in buffers.layout or "depth" not in buffers.layout:
        return buffers, camera
    return add_motion(buffers, camera, previous), camera


def _project(point: torch.Tensor, camera: PinholeCamera) -> torch.Tensor:
    """Project camera-space points (H, W, 3) to pixels (H, W, 2); any finite value behind it."""
    z = point[..., 2:]
    return (point @ _tensor(camera.to_pixel.T, point))[..., :2] / torch.where(z > 0, z, 1.0)


def _tensor(array: NDArray[Any], like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(array, dtype=torch.float64, device=like.device)


def _matrix(transform: Any) -> NDArray[np.float64]:
    """Return the matrix of a Mitsuba transform, evaluated if it lives in Dr.Jit arrays."""
    return np.array(transform.matrix, dtype=np.float64).reshape(4, 4)
