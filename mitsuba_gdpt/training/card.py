"""The draft of a model card: what trained weights are, for the one who publishes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt import provenance
from mitsuba_gdpt.denoisers.learned.model import Model
from mitsuba_gdpt.training.tasks import task_of
from mitsuba_gdpt.training.validation import LABELS

if TYPE_CHECKING:
    from mitsuba_gdpt.training.config import TrainingConfig


def model_card(
    model: Model,
    config: TrainingConfig,
    sets: Any,
    path: Path,
    results: Mapping[str, Mapping[str, float]],
    step: int,
) -> str:
    """Return the draft in Markdown.

    Args:
        model: The trained model.
        config: How it was trained.
        sets: Training and validation examples.
        path: File of the weights.
        results: From :func:`mitsuba_gdpt.training.validation.validate`.
        step: Steps done.
    """
    parameters = sum(parameter.numel() for parameter in model.parameters())
    terms = ", ".join(f"{weight:g} {name}" for name, weight in config.loss_terms.items())
    origin = provenance.describe()
    images = f"; images of {', '.join(model.guides)}" if model.guides else ""
    figures = list(next(iter(results.values())))
    table = [
        ["image", *(LABELS[figure] for figure in figures)],
        ["---"] * (1 + len(figures)),
        *([name, *(f"{values[f]:.4g}" for f in figures)] for name, values in results.items()),
    ]
    rows = "\n".join(f"| {' | '.join(row)} |" for row in table)
    return f"""# {path.stem}

*Draft, written by the training run. Before publishing: say what it is good and bad at, and measure
it on test scenes that it was not trained on.*

- **Use:** `{task_of(config).use(config.method, path)}`
- **Size:** {parameters:,} parameters
- **Reads:** {", ".join(model.needs)}{images}
- **Data:** {len(sets.training)} examples of {", ".join(Path(data).name for data in config.data)}; \
targets: {_targets(config, sets)}
- **Training:** {step} of {config.steps} steps of {config.batch}; loss: {terms}; \
schedule {config.schedule}, learning rate {config.learning_rate:g}; seed {config.seed}
- **Commit:** {origin.get("commit", "unknown")}; {origin["libraries"]}; {origin["machine"]}
- **Licence:** {config.licence}

Validation, {min(config.validation_examples, len(sets.validation))} held-out examples, mean over
examples:

{rows}
"""


def _targets(config: TrainingConfig, sets: Any) -> str:
    if config.targets:
        return f"reconstructed by {config.targets} from them and the other noisy renders"
    return "one image" if sets.training.targets == 1 else "two independent noisy halves"
