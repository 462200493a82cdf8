"""The Lightning module: one training step, the schedule, the moving average of the weights."""

from __future__ import annotations

import copy
from typing import Any

import torch

from mitsuba_gdpt.denoisers.learned.model import Model, autocast
from mitsuba_gdpt.errors import NonFiniteError
from mitsuba_gdpt.training.config import TrainingConfig
from mitsuba_gdpt.training.examples import Example, seeded
from mitsuba_gdpt.training.framework import pl
from mitsuba_gdpt.training.tasks import task_of

_ORIGINAL_STEPS = 600_000
_BETA1, _ADAM_EPSILON = 0.9, 1e-8


class Training(pl.LightningModule):
    """A model in training.

    All randomness of a step follows from the seed and the number of the step.

    Attributes:
        model: What is trained.
        averaged: Moving average of its weights; what is validated and exported.
        task: Of stills or sequences.
        teacher: What sets the targets in the beginning, or None.
        terms: Values of the loss terms in the last step.
    """

    def __init__(
        self, model: Model, config: TrainingConfig, examples: int, teacher: Model | None = None
    ) -> None:
        """Begin.

        Args:
            model: What to train.
            config: How.
            examples: Number of examples to train on, which make an epoch.
            teacher: What sets the targets in the beginning.
        """
        super().__init__()
        self.model = model
        self.averaged = copy.deepcopy(model).requires_grad_(False)
        self.task = task_of(config)
        self.loss = self.task.loss(config.loss_terms)
        self.settings, self.examples = config, examples
        self.teacher = None if teacher is None else teacher.requires_grad_(False)
        self.terms: dict[str, torch.Tensor] = {}

    def training_step(self, batch: Example, batch_index: int) -> torch.Tensor:
        """Return the loss of one minibatch."""
        self.terms = {
            name: value if name == "loss" else value.detach()
            for name, value in self.evaluate(batch).items()
        }
        loss = self.terms["loss"]
        if not bool(torch.isfinite(loss.detach())):
            raise NonFiniteError(
                f"the loss is {float(loss.detach())} in step {self.global_step}, with the examples "
                f"{batch.index.tolist()}; look at them, or lower the learning rate"
            )
        return loss

    def evaluate(self, batch: Example) -> dict[str, torch.Tensor]:
        """Return the values of the loss terms, and their sum under ``loss``."""
        generator = self._draws("step")
        with autocast(self.settings.precision, batch.target.device):
            image, targets = self.task.step(self.model, batch, self.settings, generator)
            target = targets.mean(-4)
            if self.teacher is not None and self._is_taught():
                with torch.no_grad():  # the same draws
                    target, _ = self.task.step(
                        self.teacher, batch, self.settings, self._draws("step")
                    )
        values: dict[str, torch.Tensor] = self.loss(image.float(), target.float(), generator)
        return values

    def _is_taught(self) -> bool:
        """Tell whether the teacher sets the targets of this step."""
        drawn = float(torch.rand((), generator=self._draws("teacher")))
        return drawn >= self.global_step / self.settings.steps

    def _draws(self, purpose: str) -> torch.Generator:
        return seeded(self.settings.seed, purpose, self.global_step)

    def update_average(self) -> None:
        """Update the moving average after a step; it starts with the weights themselves.

        Not a hook: Lightning runs those of callbacks first, and the one that writes checkpoints
        needs the average to be up to date.
        """
        step = self.global_step
        decay = min(self.settings.average, step / (step + 10))
        with torch.no_grad():
            for average, current in zip(
                self.averaged.parameters(), self.model.parameters(), strict=True
            ):
                average.lerp_(current, 1 - decay)

    def configure_optimizers(self) -> Any:
        """Return Adam and the schedule."""
        config = self.settings
        optimizer = torch.optim.Adam(
            self.model.parameters(),
            lr=config.learning_rate,
            betas=(_BETA1, config.beta2),
            eps=_ADAM_EPSILON,
        )
        schedule: Any
        if config.schedule == "one-cycle":
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                config.learning_rate,
                config.steps + 1,
                pct_start=0.15,
                cycle_momentum=False,
            )
        else:
            schedule = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: learning_rate_factor(config, step, self.examples)
            )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


def learning_rate_factor(config: TrainingConfig, step: int, examples: int) -> float:
    """Return the factor on the learning rate.

    ``"ngpt"`` is the original's: exponential growth from 1e-4 to 1 over 10,000 of its 600,000
    steps, constant up to 50,000, then halved every ``half_life``; all scaled to ``steps``.
    ``"inverse-sqrt"`` is one over the square root of the epoch, counted from 1.
    """
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "inverse-sqrt":
        return float((1 + step * config.batch // examples) ** -0.5)
    original = step * _ORIGINAL_STEPS / config.steps
    rise = float(1e4 ** min(1.0, (1 + original) / 10_000))
    return 1e-4 * rise * float(0.5 ** (max(original - 50_000, 0) / config.half_life))
