"""Strict reading of TOML tables: every key is known and has the type that it should have."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mitsuba_gdpt import checks
from mitsuba_gdpt.checks import show as _show
from mitsuba_gdpt.errors import ConfigError, FormatError

T = TypeVar("T")
_REQUIRED: Any = object()
#: Settings and catalogues are a few kilobytes. Larger files take the parser minutes.
_MOST_BYTES = 1 << 20
_MOST_LEVELS = 32
#: A key of so many parts costs the parser time in the square of them.
_KEY = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![\w-]){_KEY}(?:[ \t]*+\.[ \t]*+{_KEY}){{{_MOST_LEVELS}}}")


def read(path: Path) -> dict[str, Any]:
    """Parse a TOML file, in bounded time and memory whatever it holds.

    Raises:
        FormatError: It is missing, unreadable, no TOML, or no settings that anybody would write:
            over a megabyte, nested dozens of levels deep, whole numbers beyond 64 bits.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise FormatError(f"{path}: the file has over {_MOST_BYTES} bytes; expected settings")
        text = content.decode("utf-8")
        if _LONG_KEY.search(text):
            raise FormatError(f"{path}: a key has over {_MOST_LEVELS} parts; expected a few")
        found = tomllib.loads(text.replace("\r\n", "\n"))
    except FileNotFoundError:
        raise FormatError(f"{path}: there is no such file") from None
    except RecursionError:
        raise FormatError(f"{path}: it is nested too deep; expected a few levels") from None
    except FormatError:
        raise
    except (OSError, ValueError) as error:  # also of numbers of thousands of digits, and of UTF-8
        reason = " ".join(str(error).split())
        raise FormatError(f"{path}: cannot read this TOML file: {reason}") from error
    _check_values(path, found)
    return found


def _check_values(path: Path, content: Any) -> None:
    """Refuse what the parser takes and nobody else does."""
    waiting = [(content, 0)]
    while waiting:
        value, level = waiting.pop()
        if level > _MOST_LEVELS:
            raise FormatError(f"{path}: it is nested over {_MOST_LEVELS} levels; expected a few")
        if isinstance(value, dict):
            waiting += [(item, level + 1) for item in value.values()]
        elif isinstance(value, list):
            waiting += [(item, level + 1) for item in value]
        elif isinstance(value, int) and value.bit_length() > 63:
            raise FormatError(f"{path}: got {_show(value)}; expected at most 64 bits")


class _LocatedError(ConfigError):
    """Names the file and the place in it already."""


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
            raise _LocatedError(f"{where}: expected a table, got {_show(content)}")
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
                raise _LocatedError(f"{self.where}: the key {key!r} is missing")
            return default
        value = self._left.pop(key)
        try:
            return convert(value)
        except _LocatedError:
            raise
        except ConfigError as error:
            raise _LocatedError(f"{self.where}, {key}: {error}") from error
        except ValueError as error:
            raise _LocatedError(f"{self.where}: {key} is {_show(value)}; {error}") from None

    def tables(self, key: str, convert: Callable[[Table], T]) -> tuple[T, ...]:
        """Return an array of tables (``[[...]]``), each converted; empty where it is missing."""
        self._asked.append(key)
        rows = self._left.pop(key, [])
        if not isinstance(rows, list):
            raise _LocatedError(
                f"{self.where}: {key} is {_show(rows)}; expected an array of tables"
            )
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
            close = difflib.get_close_matches(key[:60], self._asked, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise _LocatedError(
                f"{self.where}: unknown key {_show(key)}; {hint}known: {', '.join(self._asked)}"
            )


def text(value: Any) -> str:
    """Convert a string that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError("expected a text that is not empty")
    return value


def number(value: Any) -> float:
    """Convert a finite number."""
    return _expected(checks.real, value)


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


def _expected(check: Callable[[str, Any], T], value: Any) -> T:
    """Apply a check, and leave to the table to say what was got."""
    try:
        return check("it", value)
    except ConfigError as error:
        raise ValueError(str(error).rpartition("; ")[2]) from None


def texts(value: Any) -> tuple[str, ...]:
    """Convert a text, or an array of texts."""
    return tuple(text(item) for item in (value if isinstance(value, list) else [value]))


def integers(value: Any) -> tuple[int, ...]:
    """Convert a whole number, or an array of them."""
    return tuple(integer(item) for item in (value if isinstance(value, list) else [value]))


def positives(value: Any) -> tuple[float, ...]:
    """Convert a finite number above 0, or an array of them."""
    return tuple(positive(item) for item in (value if isinstance(value, list) else [value]))


def boolean(value: Any) -> bool:
    """Convert a truth value."""
    if not isinstance(value, bool):
        raise ValueError("expected true or false")
    return value


def pixels(value: Any) -> int:
    """Convert the width or height of an image."""
    return _expected(checks.pixels, value)


def settings(value: Any) -> dict[str, Any]:
    """Convert a table of numbers, truth values and texts, and arrays of them."""
    if not isinstance(value, Mapping):
        raise ValueError("expected a table, such as { max_depth = 12 }")
    for key, item in value.items():
        checks.setting(repr(key), item)
    return dict(value)


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
            raise ValueError(f"expected a number, a truth value or a text for {_show(key)}")
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
