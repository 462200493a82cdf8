"""The Lightning module of recurrent models: one step on a batch of windows."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.denoisers.learned.model import autocast
from mitsuba_gdpt.denoisers.learned.recurrent import RecurrentModel
from mitsuba_gdpt.training.augment import Augmentation, Example, augment
from mitsuba_gdpt.training.config import TrainingConfig
from mitsuba_gdpt.training.examples import seeded
from mitsuba_gdpt.training.module import Training
from mitsuba_gdpt.training.sequence_losses import SequenceLoss

_DEPTH_FACTOR = 4.0  # the largest, and the inverse of the smallest: scenes have different units


class SequenceTraining(Training):
    """A recurrent model in training; gradients go back to the first frame of each window."""

    model: RecurrentModel

    def make_loss(self, config: TrainingConfig) -> nn.Module:
        """Return the loss."""
        return SequenceLoss(config.loss_terms)

    def evaluate(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the values of the loss terms on (N, T, H, W, C) windows."""
        config = self.settings
        generator = seeded(config.seed, "step", self.global_step)
        windows = [
            augment_window(buffers, images, self.layout, config.augmentation, generator)
            for buffers, images in zip(batch["buffers"], batch["images"], strict=True)
        ]
        buffers, images = (torch.stack(parts) for parts in zip(*windows, strict=True))
        with autocast(config.precision, buffers.device):
            predicted = self.model.sequence(buffers, self.layout, images[:, :, self.targets :])
        values: dict[str, torch.Tensor] = self.loss(
            predicted.float(), images[:, :, : self.targets].mean(2)
        )
        return values


def augment_window(
    buffers: torch.Tensor,
    images: torch.Tensor,
    layout: Layout,
    which: Augmentation,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw changes once and apply them to all frames of a window.

    Those of single images (see :func:`~mitsuba_gdpt.training.augment.augment`), and instead of the
    normalised depth the depth itself is multiplied, by a factor between 1/4 and 4.

    Args:
        buffers: (T, H, W, C).
        images: (T, K, H, W, 3) radiance that goes with them.
        layout: Meaning of C.
        which: Which changes are made.
        generator: Source of the draws; goes on by the same amount whatever is drawn.
    """
    exponent = 2 * float(torch.rand((), generator=generator)) - 1
    start = generator.get_state()
    frames = []
    for buffer, image in zip(buffers, images, strict=True):
        generator.set_state(start)
        frames.append(augment(Example(buffer, layout, image), which, generator))
    if which.depth and "depth" in layout:
        frames = [_scale_depth(frame, math.pow(_DEPTH_FACTOR, exponent)) for frame in frames]
    return torch.stack([f.buffers for f in frames]), torch.stack([f.images for f in frames])


def _scale_depth(example: Example, factor: float) -> Example:
    result = replace(example, buffers=example.buffers.clone())
    result.buffer("depth").mul_(factor)
    return result
