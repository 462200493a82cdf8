"""Configuration of a training run: defaults, overridden by a TOML file, overridden by flags."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mitsuba_gdpt import checks, toml
from mitsuba_gdpt.decoding import decode
from mitsuba_gdpt.denoisers.learned.methods import PRESETS
from mitsuba_gdpt.denoisers.learned.model import PRECISIONS, ModelConfig
from mitsuba_gdpt.denoisers.learned.recurrent import RecurrentModelConfig
from mitsuba_gdpt.denoisers.learned.weights import check_portable
from mitsuba_gdpt.denoisers.registry import Call
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.scenes.catalogue import require_unmeasured
from mitsuba_gdpt.training.augment import Augmentation
from mitsuba_gdpt.training.losses import LOSSES, NAMES, check_terms
from mitsuba_gdpt.training.recipes import recipes
from mitsuba_gdpt.training.sequence_losses import SEQUENCE_TERMS

SCHEDULES = ("ngpt", "one-cycle", "constant", "inverse-sqrt")


@dataclass(frozen=True)
class SequenceSettings:
    """How recurrent methods are trained.

    Attributes:
        length: Frames of a window.
        size: Rows and columns of the crop that is the same for all its frames.
        stop: Probability that the camera is stopped: one frame with the noise of other renders.
        reverse: Probability that time runs backwards.
    """

    length: int = 7
    size: int = 128
    stop: float = 0.2
    reverse: float = 0.5

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: A number is out of range.
        """
        checks.whole("sequence.length", self.length, least=1)
        checks.pixels("sequence.size", self.size)
        for name in ("stop", "reverse"):
            checks.real(f"sequence.{name}", getattr(self, name), least=0, most=1)


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides the result of a run.

    Attributes:
        method: A key of ``denoisers.learned.methods.PRESETS``. For :func:`load_config` also the
            name of a recipe, see :mod:`mitsuba_gdpt.training.recipes`.
        data: Crop sets to train on; frame sets for recurrent methods.
        output: Folder of the run; by default ``runs/METHOD``, or ``runs/METHOD-2`` and so on.
        validation: Sets to validate on; by default some of ``data`` is held out.
        holdout: Share of crops to hold out where there are no validation sets; of scenes (one at
            least) for recurrent methods.
        scenes: Train only on these scenes of ``data``; all if empty.
        validation_scenes: Validate only on these scenes of ``validation``, or of ``data`` (they
            are then not trained on).
        measured_scenes: Whether scenes may be trained on that methods are measured on: those of
            shipped catalogues for development and tests.
        validation_examples: Most examples to validate on, spread evenly.
        steps: Number of minibatches.
        batch: Examples per minibatch.
        loss: A key of ``training.losses.LOSSES``; by default the method's where it suits the data:
            ``"noise2noise"`` where targets are noisy halves that would bias it, ``"ngpt-l1"`` where
            the weights of E-LPIPS are not there.
        terms: Weights of terms, replacing ``loss``.
        border: Pixels on each side of a crop that do not count in the loss, before the window that
            does is moved with the crop (``augmentation.shift``); not for sequences.
        learning_rate: Its maximum.
        beta2: Of Adam.
        schedule: ``"ngpt"``: the original's, its 600,000 steps scaled to ``steps``;
            ``"one-cycle"``; ``"constant"``; ``"inverse-sqrt"``: over the square root of the epoch.
        half_life: Of the rate of ``"ngpt"``, in the original's steps; 85,000 in 102 and 103.
        clip: Largest norm of the gradient; 0 for no limit.
        average: Decay of the moving average of the weights, which is what is validated and
            exported.
        seed: Decides initial weights, order of examples, augmentation.
        initial_weights: File of weights, or name of a method whose weights ship, to start from
            instead of random ones; it has to be of the same model.
        teacher: Weights, as ``initial_weights``, of a model that reads the same buffers and guides.
            In the beginning what it makes of the examples is their target; the share of steps with
            the targets of the set rises linearly from none to all. So a smaller network learns from
            few examples what a larger one has learned from many.
        precision: ``"auto"``, ``"float32"`` or ``"bfloat16"``; see
            :func:`~mitsuba_gdpt.denoisers.learned.model.autocast`.
        threads: Of torch; its own choice if 0.
        workers: Processes that load data; 0: load between steps. They compute images of other
            methods on the CPU; :func:`~mitsuba_gdpt.training.run.prepare_guides` does it on a GPU.
        resident: Read all examples in the beginning and keep them in the memory of the device that
            trains. Not for sequences.
        checkpoint_every: Steps.
        validate_every: Steps.
        report_every: Steps.
        augmentation: See :class:`~mitsuba_gdpt.training.augment.Augmentation`.
        inputs: What a dense network sees besides the preset's: ``"diffuse"``, ``"specular"``,
            and ``"variances"`` of all buffers that it sees. ``"-depth"`` takes a buffer away that
            data lack.
        guides: Methods whose images the network sees, instead of the preset's: ``"oidn"``,
            ``"oidn(aux=raw)"``, ``"poisson-l1"``, ...
        network: Replaces sizes of the preset's network (``growth``, ``units``, ...; for recurrent
            methods also ``head``, ``warp``, ``history``, ``adaptation``).
        sequence: See :class:`SequenceSettings`; for recurrent methods only.
        targets: Method that reconstructs the targets of crops, from the noisy targets and the
            buffers of the other noisy renders: ``"oidn"``, ``"oidn-fusion"``. By default the noisy
            targets are used as they are.
        tag: Version of the exported weights, part of their file name.
        licence: Of the exported weights.
    """

    method: str
    data: tuple[str, ...]
    output: str = ""
    validation: tuple[str, ...] = ()
    holdout: float = 0.05
    scenes: tuple[str, ...] = ()
    validation_scenes: tuple[str, ...] = ()
    measured_scenes: bool = False
    validation_examples: int = 64
    steps: int = 20_000
    batch: int = 8
    loss: str = ""
    terms: dict[str, float] = field(default_factory=dict)
    border: int = 7
    learning_rate: float = 5e-4
    beta2: float = 0.99
    schedule: str = "ngpt"
    half_life: int = 70_000
    clip: float = 1.0
    average: float = 0.999
    seed: int = 0
    initial_weights: str = ""
    teacher: str = ""
    precision: str = "auto"
    threads: int = 0
    workers: int = 0
    resident: bool = False
    checkpoint_every: int = 200
    validate_every: int = 1000
    report_every: int = 50
    augmentation: Augmentation = field(default_factory=Augmentation)
    inputs: tuple[str, ...] = ()
    guides: tuple[str, ...] = ()
    network: dict[str, Any] = field(default_factory=dict)
    sequence: SequenceSettings | None = None
    targets: str = ""
    tag: str = "v1"
    licence: str = "BSD-3-Clause"

    def __post_init__(self) -> None:
        """Refuse values that make no sense.

        Raises:
            ConfigError: A name is unknown or a number out of range.
        """
        for name, value, choice in (
            ("method", self.method, tuple(PRESETS)),
            ("schedule", self.schedule, SCHEDULES),
            ("precision", self.precision, PRECISIONS),
            ("loss", self.loss, ("", *LOSSES)),
        ):
            if value not in choice:
                names = dict.fromkeys((*choice, *(recipes() if name == "method" else ())))
                known = ", ".join(filter(None, names))
                raise ConfigError(f"{name} is {checks.show(value)}; expected one of {known}")
        for name in (
            "steps", "batch", "checkpoint_every", "validate_every", "report_every",
            "validation_examples", "half_life",
        ):  # fmt: skip
            checks.whole(name, getattr(self, name), least=1)
        for name in ("border", "threads", "workers"):
            checks.whole(name, getattr(self, name))
        checks.whole("seed", self.seed, most=checks.MOST_SEED)
        checks.real("clip", self.clip, least=0)
        checks.real("learning_rate", self.learning_rate, above=0)
        for name in ("average", "beta2", "holdout"):
            if checks.real(name, getattr(self, name), least=0) >= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 <= {name} < 1")
        checks.file_name("tag", f"{self.method}-{self.tag}-00000000.safetensors")
        if not self.data:
            raise ConfigError("got no data; expected at least one crop set or frame set")
        self._check_kind()
        check_terms(self.loss_terms, tuple(SEQUENCE_TERMS) if self.is_recurrent else NAMES)
        check_portable(self.model)  # and the overridden sizes have to fit together

    @property
    def loss_terms(self) -> dict[str, float]:
        """Terms and weights of the loss."""
        return self.terms or LOSSES[self.loss or PRESETS[self.method].loss]

    @property
    def is_recurrent(self) -> bool:
        """Whether the method sees sequences of frames instead of single images."""
        return isinstance(PRESETS[self.method].config, RecurrentModelConfig)

    def _check_kind(self) -> None:
        """Refuse settings that mean nothing for the kind of the method."""
        if not self.is_recurrent and self.sequence is not None:
            raise ConfigError(f"method {self.method!r} sees single frames; leave 'sequence' out")
        if self.is_recurrent and self.resident:
            raise ConfigError("resident is true, but windows of sequences are cut out as they come")
        if self.is_recurrent and self.targets:
            raise ConfigError(
                f"targets is {self.targets!r}, but frame sets are rendered with their targets; "
                f"see 'dataset frames --targets'"
            )

    def require_unmeasured(self, scenes: Iterable[str]) -> None:
        """Refuse to train on scenes that methods are measured on, unless told otherwise.

        Raises:
            ConfigError: There is one.
        """
        if not self.measured_scenes:
            require_unmeasured(scenes, "Name the others as 'scenes', or set measured_scenes = true")

    @property
    def model(self) -> Any:
        """Configuration of the model: the preset with other inputs, guides and sizes."""
        for guide in self.guides:
            Call.parse(guide)
        preset: ModelConfig = PRESETS[self.method].config
        return preset.changed(self.network, guides=self.guides, inputs=self.inputs)


def load_config(
    path: str | os.PathLike[str] | None = None, overrides: Mapping[str, Any] | None = None
) -> TrainingConfig:
    """Build a configuration from a TOML file and overrides.

    Args:
        path: A TOML file with fields of :class:`TrainingConfig`; tables for the nested ones.
        overrides: Take precedence over the file. Keys may be dotted (``"terms.l1"``).

    Both take precedence over the recipe that ``method`` names.

    Raises:
        FormatError: The file is missing or no TOML.
        ConfigError: A field is unknown, missing, or has a bad value.
    """
    values: dict[str, Any] = {} if path is None else toml.read(Path(path))
    for key, value in (overrides or {}).items():
        table = values
        *parents, last = key.split(".")
        for parent in parents:
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                raise ConfigError(f"cannot set {key}: {parent} is not a table")
        table[last] = value
    method = values.get("method")
    if isinstance(method, str) and (recipe := recipes().get(method)) is not None:
        values = {**recipe, **values, "method": recipe["method"]}
    config: TrainingConfig = decode(TrainingConfig, values, "configuration")
    return config
