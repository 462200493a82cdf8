"""Write what documents state about the code into them, between markers.

    python docs/generate.py           # write
    python docs/generate.py --check   # say which documents are not what the code and data give

A block begins with ``<!-- generated: NAME -->`` and ends with ``<!-- end of NAME -->``; ``BLOCKS``
says what NAME is made of. Nothing between the markers is written by hand.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import cards
import integrator_cost
import measured
import total_time

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[a-z0-9-]+) -->\n).*?(?P<end><!-- end of (?P=name) -->)",
    re.DOTALL,
)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; bars in cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    cells = ([str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def parameters() -> str:
    """Parameters of the ``gdpt`` plugin."""
    from mitsuba_gdpt.integrators.parameters import Parameters

    return Parameters.table().rstrip("\n") + "\n"


def buffers() -> str:
    """Every buffer, with the condition under which it is there."""
    from mitsuba_gdpt import channels

    asked = {
        **dict.fromkeys(channels.CORE, "always"),
        **{b: f'`features="{b.name}"`' for b in channels.OPTIONAL},
        **dict.fromkeys(channels.VARIANCES, "`variances=True`"),
        **dict.fromkeys(channels.DERIVED, "`add_motion()`"),
        **{
            b: f"`render({'noise=...' if b.name == channels.ERROR else 'adaptive=True'})`"
            for b in channels.REPORTED
        },
    }
    rows = [
        (f"`{b.name}`", ", ".join(f"`{c}`" for c in b.channels), b.kind, asked[b], b.doc)
        for b in channels.TABLE
    ]
    return table(("buffer", "EXR channels", "kind", "there with", "meaning"), rows)


def command_line() -> str:
    """The help of every command."""
    import typer.main

    from mitsuba_gdpt.cli import app

    def section(command: Any, words: tuple[str, ...]) -> Iterable[str]:
        yield f"## `{' '.join(words)}`\n"
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
        usage = [*words, *(p.metavar or p.name.upper() for p in arguments), "[OPTIONS]"]
        if not hasattr(command, "commands"):
            yield f"```text\n{' '.join(usage)}\n```\n"
        yield _prose(command.help or "")
        rows = [
            (
                ", ".join(f"`{word}`" for word in (*p.opts, *p.secondary_opts)),
                ""
                if p.default in (None, (), [], False) or callable(p.default)
                else f"`{p.default}`",
                " ".join((p.help or "").split()),
            )
            for p in (*arguments, *options)
            if "--help" not in p.opts
        ]
        if rows:
            yield table(("argument or option", "default", "meaning"), rows)
        for name, child in sorted(getattr(command, "commands", {}).items()):
            yield from section(child, (*words, name))

    return "\n".join(section(typer.main.get_command(app), ("mitsuba-gdpt",)))


def _prose(text: str) -> str:
    """Return the help of a command as Markdown: its examples as code."""
    paragraphs = []
    for paragraph in text.replace("\b", "").strip().split("\n\n"):
        # What is kept line by line in a terminal is an introduction and a command.
        lines = paragraph.strip().splitlines()
        kept = any(line.strip().startswith("mitsuba-gdpt ") for line in lines)
        paragraphs += [line.strip() for line in lines] if kept else [" ".join(paragraph.split())]
    shown = []
    for paragraph in paragraphs:
        before, found, code = paragraph.partition(": mitsuba-gdpt ")
        if paragraph.startswith("mitsuba-gdpt "):
            before, found, code = "", "mitsuba-gdpt ", paragraph.removeprefix("mitsuba-gdpt ")
        elif found:
            before = f"{before}:\n\n"
        shown.append(f"{before}```sh\nmitsuba-gdpt {code}\n```" if found else paragraph)
    return "\n\n".join(shown) + "\n"


def key_files() -> str:
    """Every kind of file that has keys."""
    from mitsuba_gdpt import keys

    return table(("in the table", "file"), keys.FILES.items())


def all_keys() -> str:
    """Every key of what is written."""
    from mitsuba_gdpt import keys

    rows = [(f"`{key.name}`", key.meaning, ", ".join(key.files)) for key in keys.TABLE]
    return table(("key", "value", "in"), rows)


def stored_settings(module: str, name: str) -> str:
    """Every field of settings that are written as they were given."""
    settings = getattr(importlib.import_module(f"mitsuba_gdpt.{module}"), name)
    rows = [(f"`{name}`", default, meaning) for name, default, meaning in _fields(settings)]
    return table(("key", "default", "meaning"), rows)


def training_settings() -> str:
    """Every key of a training."""
    from mitsuba_gdpt.training.augment import Augmentation
    from mitsuba_gdpt.training.config import SequenceSettings, TrainingConfig

    rows = [
        (f"`{prefix}{name}`", default, meaning)
        for prefix, settings in (
            ("", TrainingConfig),
            ("augmentation.", Augmentation),
            ("sequence.", SequenceSettings),
        )
        for name, default, meaning in _fields(settings)
    ]
    return table(("key", "default", "meaning"), rows)


def _fields(settings: Any) -> Iterable[tuple[str, str, str]]:
    """Yield the fields of a dataclass with their defaults, and what its docstring says of each."""
    text = inspect.cleandoc(settings.__doc__).partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w|\Z)", text, re.DOTALL | re.MULTILINE)
    told = {name: _markdown(meaning) for name, meaning in entries}
    for field in dataclasses.fields(settings):
        simple = isinstance(field.default, bool | int | float | str) and field.default != ""
        shown = json.dumps(field.default) if simple else ""
        yield field.name, shown and f"`{shown}`", told[field.name]


def _markdown(text: str) -> str:
    """Return a docstring's text as Markdown, in one line."""
    text = re.sub(r":\w+:`~?\.?([^`]+)`", r"`\1`", " ".join(text.split()))
    return text.replace("``", "`")


def loss_terms() -> str:
    """Every term that a loss can have."""
    from mitsuba_gdpt.training import losses, sequence_losses

    found = re.findall(r"^\| ``(.*?)`` \| (.*?) \| (.*?) \|$", losses.__doc__ or "", re.MULTILINE)
    rows = [(f"`{name}`", formula, unbiased) for name, formula, unbiased in found]
    missing = set(losses.NAMES) - {name for name, *_ in found}
    if missing:
        raise ValueError(f"the docstring of losses does not say what {missing} are")
    rows += [
        (f"`{name}`", f"of sequences: {meaning}", "no")
        for name, meaning in sequence_losses.SEQUENCE_TERMS.items()
    ]
    return table(("term", "value", "unbiased under noise in the target"), rows)


def named_losses() -> str:
    """Every loss that has a name."""
    from mitsuba_gdpt.training.losses import LOSSES

    rows = [
        (f"`{name}`", " + ".join(f"{weight:g} `{term}`" for term, weight in terms.items()))
        for name, terms in LOSSES.items()
    ]
    return table(("loss", "terms"), rows)


def training_recipes() -> str:
    """Every recipe, with all that it sets."""
    from mitsuba_gdpt.training.recipes import recipes

    rows = [
        (f"`{name}`", ", ".join(f"`{key}` {json.dumps(value)}" for key, value in recipe.items()))
        for name, recipe in recipes().items()
    ]
    return table(("recipe", "settings"), rows)


def quality_levels() -> str:
    """What denoise() does where no method is named."""
    from mitsuba_gdpt.channels import OPTIONAL, Layout
    from mitsuba_gdpt.denoisers.choice import LEVELS, default_candidate, without_gradients

    whole = Layout.make(features=[buffer.name for buffer in OPTIONAL])
    rows = []
    for name in LEVELS:
        found = [default_candidate(kind, name) for kind in (whole, without_gradients(whole))]
        seconds = " / ".join(f"{best.seconds_per_megapixel:g}" for best in found)
        rows.append((f"`{name}`", *(f"`{best.call}`" for best in found), seconds))
    return table(
        ("`quality`", "with gradients", "without", "s per megapixel, with / without"), rows
    )


def cuda_goals() -> str:
    """What is to be reached on a GPU."""
    from on_cuda import GOALS

    rows = [(f"`{name}`", f"{goal:g}") for name, goal in GOALS.items()]
    return table(("what", "at most"), rows)


BLOCKS: dict[str, Callable[[], str]] = {
    "buffers": buffers,
    "command-line": command_line,
    "crop-plan": functools.partial(stored_settings, "data.plan", "CropPlan"),
    "cuda-goals": cuda_goals,
    "evaluation-settings": functools.partial(stored_settings, "evaluation.settings", "Settings"),
    "frame-settings": functools.partial(stored_settings, "data.frame_plan", "FrameSettings"),
    "key-files": key_files,
    "keys": all_keys,
    "loss-terms": loss_terms,
    "named-losses": named_losses,
    "parameters": parameters,
    "quality-levels": quality_levels,
    "training-recipes": training_recipes,
    "training-settings": training_settings,
    **cards.blocks(table),
    **integrator_cost.blocks(table),
    **measured.blocks(table),
    **total_time.blocks(table),
}


def documents() -> list[Path]:
    """Return all documents that may hold blocks."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def generated(text: str) -> str:
    """Return a document with all its blocks made anew.

    Raises:
        KeyError: A block has a name that nothing makes.
    """
    return _BLOCK.sub(lambda m: m["begin"] + BLOCKS[m["name"]]() + m["end"], text)


def main(arguments: Sequence[str]) -> int:
    """Write the blocks, or check them."""
    stale = []
    for path in documents():
        text = path.read_text(encoding="utf-8")
        if (new := generated(text)) != text:
            stale.append(str(path.relative_to(ROOT)))
            if "--check" not in arguments:
                path.write_text(new, encoding="utf-8")
    print("\n".join(stale) or "all documents are current")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
