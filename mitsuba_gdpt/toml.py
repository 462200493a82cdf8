"""Strict reading of TOML tables: every key is known and has the type that it should have."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mitsuba_gdpt.errors import ConfigError, FormatError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")
_REQUIRED: Any = object()


def read(path: Path) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        FormatError: It is missing, unreadable or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FormatError(f"{path}: cannot read this TOML file: {error}") from error


class Table:
    """A TOML table of which keys are taken one by one, until none is left.

    Args:
        content: The parsed table.
        where: File and place, for messages.

    Raises:
        ConfigError: ``content`` is no table.
    """

    def __init__(self, content: Any, where: str) -> None:
        if not isinstance(content, Mapping):
            raise ConfigError(f"{where}: expected a table, got {_show(content)}")
        self.where = where
        self._left = dict(content)
        self._asked: list[str] = []

    def take(self, key: str, convert: Callable[[Any], T], default: T = _REQUIRED) -> T:
        """Return a value, converted.

        Args:
            key: Its key.
            convert: One of the functions below, which raise ``ValueError("expected ...")``.
            default: Returned where the key is missing; without it that is an error.

        Raises:
            ConfigError: The key is missing, or its value is not what it should be.
        """
        self._asked.append(key)
        if key not in self._left:
            if default is _REQUIRED:
                raise ConfigError(f"{self.where}: the key {key!r} is missing")
            return default
        value = self._left.pop(key)
        try:
            return convert(value)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"{self.where}: {key} is {_show(value)}; {error}") from None

    def tables(self, key: str, convert: Callable[[Table], T]) -> tuple[T, ...]:
        """Return an array of tables (``[[...]]``), each converted; empty where it is missing."""
        self._asked.append(key)
        rows = self._left.pop(key, [])
        if not isinstance(rows, list):
            raise ConfigError(f"{self.where}: {key} is {_show(rows)}; expected an array of tables")
        result = []
        for number, row in enumerate(rows, start=1):
            table = Table(row, f"{self.where}, {key} number {number}")
            result.append(convert(table))
            table.finish()
        return tuple(result)

    def finish(self) -> None:
        """Complain about keys that nobody asked for.

        Raises:
            ConfigError: There is one; the message suggests the known key that is most like it.
        """
        for key in self._left:
            close = difflib.get_close_matches(key, self._asked, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise ConfigError(
                f"{self.where}: unknown key {key!r}; {hint}known: {', '.join(self._asked)}"
            )


def text(value: Any) -> str:
    """Convert a string that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("expected a text that is not empty")
    return value


def number(value: Any) -> float:
    """Convert a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("expected a finite number")
    return float(value)


def positive(value: Any) -> float:
    """Convert a finite number above 0."""
    result = number(value)
    if result <= 0:
        raise ValueError("expected a number above 0")
    return result


def integer(value: Any) -> int:
    """Convert a whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("expected a whole number")
    return value


def parameters(value: Any) -> dict[str, str]:
    """Convert a table of numbers and texts to the texts that Mitsuba's XML parser takes."""
    if not isinstance(value, Mapping):
        raise ValueError("expected a table, such as { max_depth = 12 }")
    result = {}
    for key, item in value.items():
        if isinstance(item, bool):
            result[key] = str(item).lower()
        elif isinstance(item, int | float | str):
            result[key] = str(item)
        else:
            raise ValueError(f"expected a number, a truth value or a text for {key!r}")
    return result


def table(value: Any) -> dict[str, Any]:
    """Convert a table whose keys are free."""
    if not isinstance(value, Mapping):
        raise ValueError("expected a table")
    return dict(value)


def quote(value: str) -> str:
    """Write a text as a TOML basic string."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
    return '"' + "".join(escapes.get(letter, letter) for letter in value) + '"'


def numeral(value: float) -> str:
    """Write a number with at most 5 significant digits: coordinates are no measurements."""
    shown = float(f"{value:.5g}")
    return str(int(shown)) if shown.is_integer() else repr(shown)


def _show(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
