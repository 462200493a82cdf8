"""Small made-up frame sets: a camera that slides along a wall with a pattern."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from mitsuba_gdpt import exr
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import DERIVED, Layout
from mitsuba_gdpt.data.frame_set import TARGET, frame_folder, noisy_name
from mitsuba_gdpt.motion import PinholeCamera, add_motion

NOISY = Layout.make()
TARGETS = Layout(tuple(b for b in NOISY.buffers if b.name not in ("dx", "dy")))
MOTION = DERIVED[0].name
STEP = 2.0  # pixels between frames, to the right
DEPTH = 4.0


def camera(index: int, height: int, width: int) -> PinholeCamera:
    """Looks along +Z; one unit at the distance of the wall is as many pixels as the frame is high.

    Camera space has +X to the left: the camera goes to the right, to smaller x.
    """
    focal = height * DEPTH
    to_pixel = np.array([[-focal, 0, width / 2], [0, -focal, height / 2], [0, 0, 1.0]])
    to_world = np.eye(4)
    to_world[0, 3] = -index * STEP / height
    return PinholeCamera(to_world, to_pixel)


def picture(index: int, height: int, width: int, shade: float) -> torch.Tensor:
    """Radiance of the wall as the camera of a frame sees it, (H, W, 3)."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    x = x + index * STEP
    waves = [torch.sin(x / 3 + c) * torch.cos(y / 4 - c) for c in range(3)]
    return shade * (0.6 + 0.4 * torch.stack(waves, -1))


def frame(
    index: int,
    layout: Layout,
    size: tuple[int, int],
    shade: float,
    noise: torch.Generator | None,
) -> FrameBuffers:
    """Return a frame with motion; its primal is the picture times noise of mean 1."""
    height, width = size
    data = torch.zeros(height, width, layout.count)
    buffers = FrameBuffers(data, layout)
    buffers.primal[:] = picture(index, height, width, shade)
    if noise is not None:
        uniform = torch.rand(height, width, 3, generator=noise).clamp_min(1e-3)
        buffers.primal.mul_(-uniform.log())
    for name, axis in (("dx", 1), ("dy", 0)):
        if name in layout:
            change = buffers.primal.diff(dim=axis)
            buffers[name].narrow(axis, 0, change.shape[axis])[:] = change
    buffers.albedo.fill_(0.5)
    buffers.normal[:] = torch.tensor([0.0, 0.0, 1.0])
    now = camera(index, height, width)
    slope = np.linalg.inv(now.to_pixel)
    y, x = np.mgrid[:height, :width] + 0.5
    directions = np.stack([x, y, np.ones_like(x)], -1) @ slope.T
    lengths = np.linalg.norm(directions, axis=-1) * DEPTH
    buffers.depth[..., 0] = torch.from_numpy(lengths).float()
    previous = camera(index - 1, height, width) if index else None
    return add_motion(buffers, now, previous)


def write(
    root: Path,
    scenes: tuple[str, ...] = ("one", "second", "third"),
    *,
    frames: int = 5,
    size: tuple[int, int] = (20, 24),
    renders: int = 2,
    split: str = "train",
) -> Path:
    """Write a frame set."""
    for number, scene in enumerate(scenes):
        shade = math.exp(number - 1)
        for index in range(frames):
            folder = frame_folder(root, split, scene, index)
            folder.mkdir(parents=True)
            metadata = camera(index, *size).metadata()
            frame(index, TARGETS, size, shade, None).to_exr(folder / TARGET, metadata=metadata)
            for k in range(renders):
                noise = torch.Generator().manual_seed(hash((number, index, k)))
                path = folder / noisy_name(k)
                frame(index, NOISY, size, shade, noise).to_exr(path, metadata=metadata)
    return root


def write_foreign(root: Path, frames: int = 4, size: int = 16) -> Path:
    """Write a set with the channels of rae-lightning."""
    generator = np.random.default_rng(0)
    names = ("R", "G", "B", "depth.Z", "normal.R", "normal.G", "normal.B")
    for index in range(frames):
        folder = frame_folder(root, "train", "Room", index)
        folder.mkdir(parents=True)
        for name in (TARGET, noisy_name(0)):
            planes = generator.random((7, size, size), dtype=np.float32)
            exr.write(folder / name, dict(zip(names, planes, strict=True)))
    return root
