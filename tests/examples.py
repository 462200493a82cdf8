"""Training examples from tensors."""

from __future__ import annotations

import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.training.examples import Example


def frame(data: torch.Tensor, layout: Layout, target: torch.Tensor) -> Example:
    """Return one frame whose model calls no other method."""
    return Example(FrameBuffers(data, layout), target, target[:0], torch.tensor(0))
