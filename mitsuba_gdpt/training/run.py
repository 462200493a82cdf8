"""A training run: its folder, the loop, checkpoints, validation, export.

The folder holds ``run.json`` (resolved configuration and origin), ``last.ckpt``, TensorBoard
events, a picture and figures of each validation (``validation/``), the averaged weights as of the
last one with a draft of their model card, and a report that grows (``report.html``).

A run can be killed at any moment. Resumed from its last checkpoint on the same machine, it ends
with exactly the weights that it would have had: everything random in a step follows from the seed
and the number of the step.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mitsuba_gdpt import progress, provenance
from mitsuba_gdpt.denoisers.learned.fusion import FusionModelConfig
from mitsuba_gdpt.denoisers.learned.methods import PRESETS
from mitsuba_gdpt.denoisers.learned.model import Model
from mitsuba_gdpt.denoisers.learned.weights import (
    WeightsInfo,
    find_weights,
    make_model,
    read_weights,
    save_weights,
)
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.files import replace_file, replace_text
from mitsuba_gdpt.training import card, history, page, validation
from mitsuba_gdpt.training.config import TrainingConfig
from mitsuba_gdpt.training.examples import (
    Example,
    ExampleSet,
    Resident,
    StepBatches,
    worker_options,
)
from mitsuba_gdpt.training.folder import (
    CHECKPOINT,
    choose_folder,
    open_run,
    step_of,
    write_run_file,
)
from mitsuba_gdpt.training.framework import TensorBoardLogger, TorchCheckpointIO, pl
from mitsuba_gdpt.training.losses import SUIT_NOISE
from mitsuba_gdpt.training.module import Training
from mitsuba_gdpt.training.tasks import task_of


@dataclasses.dataclass(frozen=True)
class Sets:
    """Training and validation examples."""

    training: ExampleSet
    validation: ExampleSet


def train(
    config: TrainingConfig,
    *,
    resume: bool = False,
    sets: Sets | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Path:
    """Train a model and export its weights.

    Args:
        config: What to do.
        resume: Go on from the last checkpoint in the folder of the run, if there is one; also of a
            finished run, if ``config.steps`` are more than it had.
        sets: Examples to use instead of the crop sets that ``config`` names.
        report: Gets a line of text now and then: throughput, losses, validation.

    Returns:
        The file of the weights.

    Raises:
        ConfigError: The folder holds a run already, or one of another configuration.
        GDPTError: Data, guides or backbones of losses are missing or damaged.
        NonFiniteError: The loss became NaN or infinite.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    sets = sets or open_sets(config)
    config = fitting(config, sets, report)
    folder = choose_folder(config, resume=resume)
    checkpoint = open_run(folder, config, resume=resume)
    report(
        f"{config.method}: {len(sets.training)} examples to train on, "
        f"{len(sets.validation)} to validate on, in {folder}"
    )
    if sets.training.targets > 1 and (biased := sorted(set(config.loss_terms) - SUIT_NOISE)):
        warnings.warn(
            f"the targets are noisy halves, which bias the loss term(s) {', '.join(biased)}; "
            f"see mitsuba_gdpt.training.losses",
            stacklevel=2,
        )
    torch.manual_seed(config.seed)  # initial weights
    module = Training(_initial_model(config), config, len(sets.training), _teacher(config))
    examples_of = {"training": len(sets.training), "validation": len(sets.validation)}
    write_run_file(folder, config, examples_of)
    if (obstacle := page.obstacle()) is not None:
        report(f"no {page.FILE}: {obstacle}")
    monitor = _Monitor(config, sets, folder, report)
    trainer = _make_trainer(config, folder, [monitor])
    start = 0 if checkpoint is None else step_of(checkpoint)
    history.begin(folder, start)
    batches = StepBatches(len(sets.training), config.batch, config.steps, config.seed, start=start)
    if checkpoint is None or start < config.steps:
        examples: Any = sets.training
        workers = config.workers
        if config.resident:
            _compute_on(examples, torch.device("cpu") if workers else accelerator())
            examples, workers = Resident(examples, accelerator(), workers), 0
        loader = DataLoader(
            examples,
            batch_sampler=batches,
            collate_fn=Example.stack,
            persistent_workers=workers > 0,
            **worker_options(workers),
        )
        with (
            progress.task(f"training {config.method}", total=config.steps) as monitor.task,
            warnings.catch_warnings(),
        ):
            monitor.task.advance(start)
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
        if trainer.interrupted:
            raise KeyboardInterrupt
    else:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        module.load_state_dict(state["state_dict"])
    path = export(module, config, sets, folder, config.steps, report)
    _log_validation(trainer.logger, folder, config.steps)
    trainer.logger.finalize("success")
    return path


def fitting(config: TrainingConfig, sets: Sets, report: Callable[[str], None]) -> TrainingConfig:
    """Return a configuration with the loss and the augmentation that suit its data.

    Args:
        config: Its loss is replaced if it names none.
        sets: What is trained on.
        report: Gets a line for each change.
    """
    if not config.loss and not config.terms:
        loss, remark = task_of(config).default_loss(
            PRESETS[config.method].loss, sets.training.targets
        )
        config = dataclasses.replace(config, loss=loss)
        if remark:
            report(remark)
    if not sets.training.mirrored and (config.augmentation.flip or config.augmentation.transpose):
        which = dataclasses.replace(config.augmentation, flip=False, transpose=False)
        config = dataclasses.replace(config, augmentation=which)
        report("normals in world space: no flips and transpositions")
    return config


def _initial_model(config: TrainingConfig) -> Model:
    """Return the model that training starts from.

    Raises:
        ConfigError: The initial weights are of another model.
        WeightsError: They cannot be read.
    """
    if not config.initial_weights:
        return make_model(config.model)
    model, info = _read_like(config.initial_weights, config.model)
    if model.config != config.model:
        raise ConfigError(
            f"initial_weights: {info.path.name} holds another model ({info.config}); expected "
            f"{config.model}. Choose the method, guides and network that it was trained with"
        )
    return model


def _teacher(config: TrainingConfig) -> Model | None:
    """Return the model that sets the targets in the beginning, if there is one.

    Raises:
        ConfigError: It reads what the one in training does not.
        WeightsError: Its weights cannot be read.
    """
    if not config.teacher:
        return None
    teacher, info = _read_like(config.teacher, config.model)
    student = make_model(config.model)
    if teacher.guides != student.guides or not {*teacher.needs} <= {*student.needs}:
        raise ConfigError(
            f"teacher: {info.path.name} reads {', '.join((*teacher.needs, *teacher.guides))}; "
            f"expected no more than {config.method!r} reads: "
            f"{', '.join((*student.needs, *student.guides))}"
        )
    return teacher


def _read_like(name: str, config: Any) -> tuple[Any, WeightsInfo]:
    """Read a model; one of fusion gets the guides and the steps of another configuration.

    No parameter of it depends on whose image is fused, or in how many steps.
    """
    model: Any
    model, info = read_weights(find_weights(name))
    if isinstance(config, FusionModelConfig) and isinstance(info.config, FusionModelConfig):
        changed = dataclasses.replace(
            info.config, guides=config.guides, iterations=config.iterations
        )
        fresh = make_model(changed)
        fresh.load_state_dict(model.state_dict())
        return fresh, info
    return model, info


def prepare_guides(sets: Sets) -> None:
    """Compute and store the images of other methods for all examples; can be interrupted."""
    for examples, name in ((sets.training, "training"), (sets.validation, "validation")):
        _compute_on(examples, accelerator())
        with progress.task(f"guides for {name}", total=examples.preparations) as task:
            for _ in examples.prepare():
                task.advance()


def accelerator() -> torch.device:
    """Return the device that everything is computed on."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _compute_on(examples: ExampleSet, device: torch.device) -> None:
    """Let images of other methods be computed on a device."""
    for cache in (examples.guides, getattr(examples, "reconstructed", None)):
        if cache is not None:
            cache.device = device


def open_sets(config: TrainingConfig) -> Sets:
    """Open the data of a configuration; raises as :meth:`~.tasks.Task.open_sets`."""
    return Sets(*task_of(config).open_sets(config, make_model(config.model)))


def export(
    module: Training,
    config: TrainingConfig,
    sets: Sets,
    folder: Path,
    step: int,
    report: Callable[[str], None],
) -> Path:
    """Validate the averaged weights, write them and a draft of their card; return the file."""
    (folder / "validation").mkdir(parents=True, exist_ok=True)
    module.averaged.eval()
    pictures: dict[int, dict[str, torch.Tensor]] = {}
    results = validation.validate(
        module.averaged,
        module.task,
        sets.validation,
        most=config.validation_examples,
        precision=config.precision,
        batch=config.batch,
        sheet=folder / "validation" / f"step-{step:07d}.png",
        show=pictures.__setitem__,
    )
    figures = folder / "validation" / f"step-{step:07d}.json"
    replace_text(figures, json.dumps(results, indent=2) + "\n")
    report(f"step {step}: {validation.summary(results)}")
    origin = provenance.describe()
    recipe = dataclasses.asdict(config) | {"terms": config.loss_terms, "trained_steps": step}
    path = save_weights(
        module.averaged,
        folder,
        name=config.method,
        tag=config.tag,
        recipe=json.dumps(recipe, sort_keys=True),
        commit=origin.get("commit", "unknown"),
        licence=config.licence,
        metadata={
            "trained_on": ", ".join(Path(data).name for data in config.data),
            "examples": str(len(sets.training)),
            "validation": json.dumps(results, sort_keys=True),
            "libraries": origin["libraries"],
        },
    )
    for old in folder.glob(f"{config.method}-{config.tag}-*.safetensors"):
        if old != path:
            old.unlink()
    if page.obstacle() is None:
        facts = {
            "examples": f"{len(sets.training)} to train on, {len(sets.validation)} held out",
            "weights": path.name,
        }
        page.write_page(folder, config, step, pictures, facts)
    replace_text(
        folder / "model-card.md",
        card.model_card(module.averaged, config, sets, path, results, step),
    )
    return path


# -------------------------------------------------------------------------------- Lightning


class _AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints that are complete or not there."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        replace_file(path, lambda temporary: torch.save(checkpoint, temporary))


class _Monitor(pl.Callback):
    """Reports, checkpoints and validation, each after a fixed number of steps."""

    def __init__(
        self, config: TrainingConfig, sets: Sets, folder: Path, report: Callable[[str], None]
    ) -> None:
        self.config, self.sets, self.folder, self.report = config, sets, folder, report
        self.losses: list[float] = []
        self.started = time.perf_counter()
        self.task: progress.Task

    def on_train_start(self, trainer: Any, module: Any) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int
    ) -> None:
        step, config = trainer.global_step, self.config
        module.update_average()
        self.task.advance()
        self.losses.append(float(module.terms["loss"].detach()))
        if step % config.report_every == 0 or step == config.steps:
            self._report(trainer, module, step)
        # Validation first: a checkpoint then means that everything before it is on the disk.
        if step % config.validate_every == 0 and step < config.steps:
            export(module, config, self.sets, self.folder, step, self.report)
            _log_validation(trainer.logger, self.folder, step)
            self.started, self.losses = time.perf_counter(), []
        if step % config.checkpoint_every == 0 or step == config.steps:
            trainer.save_checkpoint(self.folder / CHECKPOINT)

    def _report(self, trainer: Any, module: Any, step: int) -> None:
        seconds = (time.perf_counter() - self.started) / len(self.losses)
        loss = sum(self.losses) / len(self.losses)
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        speed = self.config.batch / seconds
        left = (self.config.steps - step) * seconds
        self.report(
            f"step {step}/{self.config.steps}: loss {loss:.5f}, learning rate {rate:.2e}, "
            f"{speed:.2f} examples/s, {left / 60:.0f} min left"
        )
        values = {f"loss/{name}": float(value.detach()) for name, value in module.terms.items()}
        values |= {"learning_rate": rate, "examples_per_second": speed}
        trainer.logger.log_metrics(values, step)
        history.add(self.folder, step, {"loss": loss, "learning_rate": rate})
        self.started, self.losses = time.perf_counter(), []


def _log_validation(logger: Any, folder: Path, step: int) -> None:
    """Put figures and the picture of a validation into TensorBoard."""
    figures = folder / "validation" / f"step-{step:07d}.json"
    for image, values in json.loads(figures.read_text(encoding="utf-8")).items():
        named = {f"validation/{image}/{name}": value for name, value in values.items()}
        logger.log_metrics(named, step)
    picture = Image.open(figures.with_suffix(".png"))
    pixels = np.asarray(picture.convert("RGB"))
    logger.experiment.add_image("validation/examples", pixels, step, dataformats="HWC")


def _make_trainer(config: TrainingConfig, folder: Path, callbacks: list[Any]) -> Any:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return pl.Trainer(
        accelerator=accelerator().type,
        devices=1,
        max_steps=config.steps,
        max_epochs=-1,
        gradient_clip_val=config.clip or None,
        logger=TensorBoardLogger(folder, name="", version=""),
        callbacks=callbacks,
        plugins=[_AtomicCheckpoints()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
