"""The folder of a run: where it is, whether it fits a configuration, what it says of itself."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mitsuba_gdpt import checks, provenance
from mitsuba_gdpt.errors import ConfigError, FormatError
from mitsuba_gdpt.files import read_json, replace_text
from mitsuba_gdpt.training.config import TrainingConfig

CHECKPOINT = "last.ckpt"
RUN_FILE = "run.json"
#: Where runs go that nobody has named a folder for.
RUNS = Path("runs")

#: Fields that may differ when a run is resumed: they do not change the result.
_FREE = (
    "output",
    "threads",
    "workers",
    "resident",
    "checkpoint_every",
    "validate_every",
    "report_every",
)
_STEPS = "steps"


def choose_folder(config: TrainingConfig, *, resume: bool) -> Path:
    """Return the folder of a run: that of the configuration, or one below :data:`RUNS`.

    Args:
        config: Of the run.
        resume: Take the latest of the method's folders that is there, instead of a new one.
    """
    if config.output:
        return Path(config.output)
    names = (config.method if n == 1 else f"{config.method}-{n}" for n in itertools.count(1))
    folders = (RUNS / name for name in names)
    taken = list(itertools.takewhile(Path.exists, folders))
    if resume and taken:
        return taken[-1]
    number = len(taken) + 1
    return RUNS / (config.method if number == 1 else f"{config.method}-{number}")


def open_run(folder: Path, config: TrainingConfig, *, resume: bool) -> Path | None:
    """Make or check the folder of a run; return the checkpoint to go on from, if any.

    Raises:
        ConfigError: It holds something else, a run that is not to be resumed, or one of another
            configuration. More steps are no other one.
        FormatError: A file in it is damaged.
    """
    run_file, checkpoint = folder / RUN_FILE, folder / CHECKPOINT
    if not run_file.exists():
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(f"{folder} is not empty and holds no run; choose another folder")
        folder.mkdir(parents=True, exist_ok=True)
        return None
    if not resume:
        raise ConfigError(f"{folder} holds a run already; resume it, or choose another folder")
    stored = read_json(run_file).get("config")
    if not isinstance(stored, dict):
        raise FormatError(f"{run_file}: it says no configuration; expected the file of a run")
    now = json.loads(json.dumps(dataclasses.asdict(config)))
    keys = sorted({*stored, *now} - {*_FREE, _STEPS})
    if changed := [key for key in keys if stored.get(key) != now.get(key)]:
        differences = ", ".join(f"{k}: {stored.get(k)!r} -> {now.get(k)!r}" for k in changed)
        raise ConfigError(
            f"{folder} was started with another configuration ({differences}); resume it with the "
            f"same one, or choose another folder and start from its weights (initial_weights)"
        )
    if not checkpoint.exists():
        return None
    if stored.get(_STEPS) != config.steps:
        _check_steps(folder, config, step_of(checkpoint))
    return checkpoint


def _check_steps(folder: Path, config: TrainingConfig, done: int) -> None:
    """Refuse another number of steps where a run cannot go on to it."""
    if config.schedule == "one-cycle":
        raise ConfigError(
            f"{folder}: the schedule 'one-cycle' is over after its steps; choose another folder "
            f"and start from the weights of this one (initial_weights)"
        )
    if done > config.steps:
        raise ConfigError(
            f"{folder}: steps is {config.steps}, but {done} are done; expected more, or none"
        )


def write_run_file(folder: Path, config: TrainingConfig, examples: Mapping[str, int]) -> None:
    """Say how the run is made.

    Args:
        folder: Of the run.
        config: What it was started with.
        examples: Numbers of examples to train and to validate on.
    """
    description = {
        "config": dataclasses.asdict(config),
        "loss": config.loss_terms,
        "model": dataclasses.asdict(config.model),
        "provenance": provenance.describe(),
        "examples": dict(examples),
    }
    replace_text(folder / RUN_FILE, json.dumps(description, indent=2) + "\n")


def step_of(checkpoint: Path) -> int:
    """Return the number of steps that a checkpoint was written after.

    Raises:
        FormatError: It is damaged.
    """
    try:
        content: Any = torch.load(checkpoint, map_location="cpu", weights_only=True)
        return int(content["global_step"])
    except Exception as error:  # the library raises whatever a damaged file leads to
        raise FormatError(
            f"{checkpoint}: cannot read this checkpoint: {checks.reason(error)}. Remove it to "
            f"begin again"
        ) from error
