"""What model cards say of weights and networks, from the files and the code."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FOLDERS = (
    ROOT / "mitsuba_gdpt" / "denoisers" / "weights",
    ROOT / "weights" / "mitsuba_gdpt_weights",
)


def files() -> dict[str, Path]:
    """Return the weights that ship, by the method that they are for."""
    found = {}
    for folder in FOLDERS:
        for path in sorted(folder.glob("*.safetensors")):
            name, _, _ = path.stem.rsplit("-", 2)
            found[name] = path
    return found


def card(path: Path) -> str:
    """What a file of weights is, as items of a list."""
    from mitsuba_gdpt.denoisers.learned import weights

    info = weights.describe(path)
    reads = _reads(info.config)
    return (
        f"- **Weights:** `{path.name}`, {_parameters(info.config):,} parameters, "
        f"{path.stat().st_size / 1e6:.1f} MB, architecture `{info.arch}`\n"
        f"- **Reads:** {reads}\n"
        f"- **Licence:** {info.metadata['licence']}\n"
    )


def networks(table: Callable[..., str]) -> str:
    """Every network that can be trained: size and inputs."""
    from mitsuba_gdpt.denoisers.learned import methods, weights

    shipped = files()
    rows = [
        (
            f"`{name}`",
            "yes" if name in shipped else "",
            f"`{weights.architecture_of(preset.config)}`",
            f"{_parameters(preset.config):,}",
            _reads(preset.config),
        )
        for name, preset in methods.PRESETS.items()
    ]
    return table(("method", "weights ship", "architecture", "parameters", "reads"), rows)


@functools.cache
def _model(config: Any) -> Any:
    """Return a model of that shape, without values."""
    import torch

    from mitsuba_gdpt.denoisers.learned import weights

    with torch.device("meta"):
        return weights.make_model(config)


def _parameters(config: Any) -> int:
    return sum(parameter.numel() for parameter in _model(config).parameters())


def _reads(config: Any) -> str:
    """Return the buffers and images that a model is given."""
    model = _model(config)
    later = [name for name in getattr(config, "later", ()) if name not in model.needs]
    names = ", ".join(f"`{name}`" for name in (*model.needs, *later))
    images = " and ".join(f"`{guide}`" for guide in model.guides)
    return f"{names}; the image of {images}" if images else names


def configurations(table: Callable[..., str]) -> str:
    """The configurations of the original, and what is trained of them here."""
    import json

    from mitsuba_gdpt.denoisers.learned import weights
    from mitsuba_gdpt.denoisers.learned.methods import PRESETS
    from mitsuba_gdpt.training.losses import LOSSES
    from mitsuba_gdpt.training.recipes import recipes

    def terms(values: dict[str, float]) -> str:
        return " + ".join(f"{weight:g} `{term}`" for term, weight in values.items())

    shipped = files()
    rows = []
    for name, recipe in recipes().items():
        method = recipe["method"]
        if not name.startswith("ngpt-") or name in PRESETS:
            continue
        wanted, steps = LOSSES[recipe["loss"]], recipe["steps"] * recipe["batch"]
        trained, told = "no", "none"
        config = PRESETS[method].config.changed(recipe.get("network", {}))
        if method in shipped and weights.describe(shipped[method]).config == config:
            run = json.loads(weights.describe(shipped[method]).metadata["recipe"])
            learned = run["terms"] or LOSSES[run["loss"] or PRESETS[method].loss]
            examples = run["trained_steps"] * run["batch"]
            if learned == wanted and examples >= steps:
                trained = "yes"
            more = ", and those of a run before it" if run.get("initial_weights") else ""
            told = f"`{shipped[method].name}`: {terms(learned)}; {examples:,} examples{more}"
        rows.append((f"`{name}`", f"`{method}`", terms(wanted), f"{steps:,}", trained, told))
    head = ("recipe", "network", "loss", "examples", "trained here", "weights of that network")
    return table(head, rows)


def blocks(table: Callable[[Sequence[str], Any], str]) -> dict[str, Callable[[], str]]:
    """Return the generated blocks of this module, by name."""
    cards = {f"card-{name}": functools.partial(card, path) for name, path in files().items()}
    return {
        **cards,
        "configurations": functools.partial(configurations, table),
        "networks": functools.partial(networks, table),
    }
