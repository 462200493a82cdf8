"""What stills and sequences do not have in common in training: data, draws, loss, figures.

All else, the module, the run and validation, sees windows of frames; a still is a window of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from mitsuba_gdpt.denoisers.learned.features import MARGIN
from mitsuba_gdpt.denoisers.learned.methods import runs_as
from mitsuba_gdpt.denoisers.learned.model import Model
from mitsuba_gdpt.denoisers.learned.recurrent import RecurrentModel
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.metrics import find
from mitsuba_gdpt.training import losses, sequence_losses
from mitsuba_gdpt.training.augment import augment
from mitsuba_gdpt.training.config import TrainingConfig
from mitsuba_gdpt.training.crops import Crops, crop_names, split
from mitsuba_gdpt.training.examples import Example, ExampleSet
from mitsuba_gdpt.training.guides import GuideCache
from mitsuba_gdpt.training.windows import open_windows


class Task(Protocol):
    """A kind of training."""

    def open_sets(self, config: TrainingConfig, model: Any) -> tuple[ExampleSet, ExampleSet]:
        """Open the data of a configuration.

        Returns:
            What to train on and what to validate on.

        Raises:
            ConfigError: Sets do not fit together, or nothing is left on one side.
            FormatError: A path is no such set.
            LayoutError: The data lack a buffer that the model or a guide needs.
        """

    def default_loss(self, wanted: str, targets: int) -> tuple[str, str]:
        """Choose a loss for somebody who names none.

        Args:
            wanted: That of the method.
            targets: Number of target images: one, or two noisy ones.

        Returns:
            Its name, and a remark if there is a better one; else the latter is empty.
        """

    def loss(self, weights: Mapping[str, float]) -> nn.Module:
        """Return the loss: (N, T, H, W, 3) images, targets and a generator to values of terms."""

    def step(
        self, model: Any, batch: Example, config: TrainingConfig, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw changes of a minibatch and reconstruct it.

        Returns:
            What the loss compares: images (N, T, h, w, 3) and targets (N, T, K, h, w, 3).
        """

    def reconstruct(self, model: Any, batch: Example) -> torch.Tensor:
        """Return the images (N, T, H, W, 3) of a minibatch that is left as it is."""

    def use(self, method: str, weights: Path) -> str:
        """Return how trained weights are used, for their model card."""


class StillTask:
    """Single images, of crop sets."""

    def open_sets(self, config: TrainingConfig, model: Model) -> tuple[ExampleSet, ExampleSet]:
        """See :meth:`Task.open_sets`."""
        from mitsuba_gdpt.data import CropDataset

        def examples(dataset: Any, indices: list[int], targets: str = "") -> Crops:
            folder = Path(dataset.sets[0].path)
            folder = folder.with_name(folder.name + ".guides")
            reconstructed = GuideCache(folder, [targets]) if targets else None
            guides = GuideCache(folder, model.guides)
            return Crops(dataset, indices, model.needs, guides, reconstructed)

        scenes = (*config.scenes, *(() if config.validation else config.validation_scenes))
        chosen = scenes if config.scenes else ()
        dataset = CropDataset(list(config.data), scenes=chosen or None)
        if config.validation:
            kept = list(range(len(dataset)))
            other_scenes = config.validation_scenes
            other = CropDataset(list(config.validation), scenes=other_scenes or None)
            held_out = examples(other, list(range(len(other))))
        else:
            kept, held = split(
                crop_names(dataset, chosen), config.holdout, config.validation_scenes
            )
            held_out = examples(dataset, held)
        if not kept or not len(held_out):
            raise ConfigError(
                f"{len(kept)} examples are left to train on and {len(held_out)} to validate on; "
                f"expected some of each. Render more crops, name a set for 'validation', or change "
                f"'holdout' (now {config.holdout:g}) or the scenes"
            )
        names = crop_names(dataset, chosen)
        config.require_unmeasured(names[index][0] for index in kept)
        # Validation keeps the noisy targets: in two halves they make figures without bias.
        return examples(dataset, kept, config.targets), held_out

    def default_loss(self, wanted: str, targets: int) -> tuple[str, str]:
        """See :meth:`Task.default_loss`."""
        terms = losses.LOSSES[wanted]
        if targets > 1:
            return (wanted if terms.keys() <= losses.SUIT_NOISE else "noise2noise"), ""
        if losses.ELPIPS_TERM in terms and find("elpips").obstacle() is not None:
            return "ngpt-l1", (
                "loss ngpt-l1: that of the method needs perceptual weights, which "
                "'mitsuba-gdpt weights elpips' makes"
            )
        return wanted, ""

    def loss(self, weights: Mapping[str, float]) -> nn.Module:
        """See :meth:`Task.loss`."""
        return losses.Loss(weights)

    def step(
        self, model: Model, batch: Example, config: TrainingConfig, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`Task.step`."""
        which = config.augmentation
        changed = Example.stack([augment(batch[i], which, generator) for i in range(len(batch))])
        drawn = torch.randint(1 - MARGIN, MARGIN, (len(batch), 2), generator=generator).tolist()
        shifts = [(x, y) if which.shift else (0, 0) for x, y in drawn]
        depth = torch.empty(len(batch)).uniform_(0.1, 1.1, generator=generator)
        frames = changed.flattened()
        data = frames.buffers.data
        image = model.vary(
            data,
            frames.buffers.layout,
            frames.inner,
            shifts=shifts,
            depth_scale=depth.to(data) if which.depth else None,
        )[:, None]
        return (
            loss_window(image, config.border, shifts),
            loss_window(changed.target, config.border, shifts),
        )

    def reconstruct(self, model: Model, batch: Example) -> torch.Tensor:
        """See :meth:`Task.reconstruct`."""
        frames = batch.flattened()
        image: torch.Tensor = model(frames.buffers.data, frames.buffers.layout, frames.inner)
        return image[:, None]

    def use(self, method: str, weights: Path) -> str:
        """See :meth:`Task.use`."""
        return (
            f"mitsuba-gdpt denoise in.exr -o out.exr --method {runs_as(method)} "
            f"--option weights={weights.name}"
        )


class SequenceTask:
    """Windows of frame sets, for recurrent models; gradients go back to their first frame."""

    def open_sets(
        self, config: TrainingConfig, model: RecurrentModel
    ) -> tuple[ExampleSet, ExampleSet]:
        """See :meth:`Task.open_sets`."""
        return open_windows(config, model)

    def default_loss(self, wanted: str, targets: int) -> tuple[str, str]:
        """See :meth:`Task.default_loss`."""
        return wanted, ""

    def loss(self, weights: Mapping[str, float]) -> nn.Module:
        """See :meth:`Task.loss`."""
        return sequence_losses.SequenceLoss(weights)

    def step(
        self,
        model: RecurrentModel,
        batch: Example,
        config: TrainingConfig,
        generator: torch.Generator,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See :meth:`Task.step`."""
        which = config.augmentation
        windows = Example.stack([augment(batch[i], which, generator) for i in range(len(batch))])
        return self.reconstruct(model, windows), windows.target

    def reconstruct(self, model: RecurrentModel, batch: Example) -> torch.Tensor:
        """See :meth:`Task.reconstruct`."""
        return model.sequence(batch.buffers.data, batch.buffers.layout, batch.inner)

    def use(self, method: str, weights: Path) -> str:
        """See :meth:`Task.use`."""
        stream = f"mitsuba_gdpt.stream({runs_as(method)!r}, weights={weights.name!r})"
        return f"{stream}, called frame by frame"


def task_of(config: TrainingConfig) -> Task:
    """Return what is particular to the kind of the method of a configuration."""
    return SequenceTask() if config.is_recurrent else StillTask()


def loss_window(
    images: torch.Tensor, border: int, shifts: Sequence[tuple[int, int]]
) -> torch.Tensor:
    """Cut out what counts in the loss.

    As in NGPT, where the window stands still in the *padded* crop, and the crop moves below it: so
    each pixel of the crop counts sometimes, those at its edges most seldom.

    Args:
        images: (N, ..., H, W, 3).
        border: Pixels on each side of a crop that has not moved that do not count; 0, or too small
            a crop for it: all do.
        shifts: How far each crop has moved in x and y; as far as the border reaches.

    Returns:
        (N, ..., H - 2 border, W - 2 border, 3).
    """
    height, width = (size - 2 * border for size in images.shape[-3:-1])
    if min(height, width) <= 0:
        return images
    windows = []
    for image, shift in zip(images, shifts, strict=True):
        x, y = (border - max(-border, min(border, moved)) for moved in shift)
        windows.append(image[..., y : y + height, x : x + width, :])
    return torch.stack(windows)
