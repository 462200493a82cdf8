"""Recipes: settings that a training begins with, by name; the table is ``recipes.toml``."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from mitsuba_gdpt import toml

_TABLE = Path(__file__).with_name("recipes.toml")
_LIKE = "like"


@functools.cache
def recipes() -> dict[str, dict[str, Any]]:
    """Return all recipes: name to settings, those of the recipes that they start from included."""
    table = toml.read(_TABLE)

    def complete(name: str) -> dict[str, Any]:
        own = dict(table[name])
        base = own.pop(_LIKE, None)
        return own if base is None else {**complete(base), **own}

    return {name: complete(name) for name in table}
