"""One decoder for typed values: options and configurations from Python, TOML, JSON and text."""

from __future__ import annotations

import ast
import collections.abc
import dataclasses
import math
import os
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from mitsuba_gdpt.errors import ConfigError

_BRACKETS = {"(": ")", "[": "]"}
_LONGEST_NUMBER = 40
_LARGEST = 2**64


class Text(str):
    """A value as somebody has written it: what it means follows from the type that is expected."""

    __slots__ = ()


def decode(kind: Any, value: Any, where: str) -> Any:
    """Make a value of a type out of data: dataclasses, tuples, optional and plain values.

    Args:
        kind: The expected type. A class with a method ``parse`` is made from strings by it.
        value: The data; :class:`Text` is converted, other strings are strings.
        where: Name of the value, for messages.

    Raises:
        ConfigError: A key is unknown or missing, or a value is of another type or not finite.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return _decode_union(arguments, value, where)
    if isinstance(value, str) and hasattr(kind, "parse"):
        return kind.parse(str(value))
    if isinstance(value, Text):
        return _decode_text(kind, value, where)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return value if isinstance(value, kind) else _decode_dataclass(kind, value, where)  # type: ignore[arg-type]
    if origin in (tuple, collections.abc.Sequence) and isinstance(value, list | tuple):
        return tuple(decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {str(k): decode(arguments[1], item, f"{where}.{k}") for k, item in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value, where)
    if kind is int and isinstance(value, int) and abs(value) > _LARGEST:
        raise ConfigError(f"{where} has {value.bit_length()} bits; expected {_LARGEST:g} at most")
    if isinstance(value, origin or kind) and isinstance(value, bool) == (kind is bool):
        return value
    raise _mismatch(kind, value, where)


def _mismatch(kind: Any, value: Any, where: str) -> ConfigError:
    return ConfigError(f"{where} is {str(value)[:80]!r}; expected {describe(kind)}")


def describe(kind: Any) -> str:
    """Say in words what values of a type are."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(dict.fromkeys(map(describe, arguments)))
    if origin in (tuple, collections.abc.Sequence):
        return f"a list, each {describe(arguments[0])}"
    names = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a word",
        types.NoneType: "none",
        os.PathLike: "a path",
    }
    return names.get(origin or kind, getattr(kind, "__name__", str(kind)))


def _finite(value: float, where: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ConfigError(f"{where} is {number}; expected a finite number")
    return number


def _decode_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """Decode as the first of several types that fits."""
    named = any(hasattr(kind, "parse") for kind in kinds)  # "none" may be the name of something
    if types.NoneType in kinds and (value is None or (not named and _is_none(value))):
        return None
    others = [kind for kind in kinds if kind is not types.NoneType]
    if len(others) == 1:
        return decode(others[0], value, where)
    for kind in others:
        if isinstance(value, str) and hasattr(kind, "parse"):
            return kind.parse(str(value))
        try:
            return decode(kind, value, where)
        except ConfigError:
            continue
    raise _mismatch(typing.Union[kinds], value, where)  # noqa: UP007  # of a tuple of types


def _is_none(value: Any) -> bool:
    return isinstance(value, Text) and value.strip().lower() == "none"


def _decode_text(kind: Any, text: Text, where: str) -> Any:
    """Decode what somebody has written."""
    word = text.strip()
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (tuple, collections.abc.Sequence):
        inside = word[1:-1] if word[:1] in _BRACKETS and word.endswith(_BRACKETS[word[0]]) else word
        items = [Text(item) for item in split(inside, where) if item.strip()]
        return tuple(decode(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if kind is bool and word.lower() in ("true", "false"):
        return word.lower() == "true"
    if kind in (int, float) and len(word) <= _LONGEST_NUMBER:
        try:
            number = kind(word)
        except ValueError:
            raise _mismatch(kind, word, where) from None
        return _finite(number, where) if kind is float else number
    if kind is str or origin is os.PathLike:
        return unquote(word)
    if kind is Any:
        try:
            return ast.literal_eval(word.capitalize() if word.isalpha() else word)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return word
    raise _mismatch(kind, word, where)


def unquote(word: str) -> str:
    """Take the quotes off a word that has some."""
    if len(word) > 1 and word[0] in "\"'" and word[-1] == word[0]:
        return word[1:-1]
    return word


def split(text: str, where: str) -> list[str]:
    """Split at the commas that stand outside of brackets and quotes.

    Raises:
        ConfigError: A bracket or quote is not closed, or one closes that was not opened.
    """
    parts, start, expected, quote = [], 0, [], ""
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        elif c in _BRACKETS:
            expected.append(_BRACKETS[c])
        elif c in ")]":
            if not expected or expected.pop() != c:
                raise ConfigError(f"{where}: {text[:80]!r} closes a bracket that is not open")
        elif c == "," and not expected:
            parts.append(text[start:i])
            start = i + 1
    if quote or expected:
        raise ConfigError(f"{where}: {text[:80]!r} does not close a bracket or a quote")
    return [*parts, text[start:]]


_NAME = re.compile(r"\s*([A-Za-z0-9_.-]+)\s*")
_PLAIN = re.compile(r"[^\s,()\[\]=\"']+")
_LONGEST_CALL = 4096
_MOST_OPTIONS = 64  # of it and its inner calls


def call_parts(
    text: str, inner: Callable[[str], Collection[str]], what: str = "method"
) -> tuple[str, dict[str, Text]]:
    """Take a call apart, ``name(option=value, ...)`` or ``name,option=value,...``.

    Args:
        text: The call.
        inner: Gives the options of a method that are calls themselves: in the second form, what
            follows such a one belongs to it.
        what: What is called, for messages.

    Returns:
        The name, and the options as they are written.

    Raises:
        ConfigError: The text is malformed, or an option is given twice.
    """
    where = f"{what} {text[:80]!r}"
    match = _NAME.match(text)
    if match is None or len(text) > _LONGEST_CALL or text.count("=") > _MOST_OPTIONS:
        raise ConfigError(f"{where}; expected NAME or NAME(OPTION=VALUE, ...)")
    name, rest = match[1], text[match.end() :].strip()
    words: list[str] = []
    if rest.startswith(","):
        words = split(rest[1:], where)
    elif rest.startswith("(") and rest.endswith(")"):
        words = split(rest[1:-1], where) if rest[1:-1].strip() else []
    elif rest:
        raise ConfigError(f"{where}; expected NAME or NAME(OPTION=VALUE, ...)")
    options: dict[str, Text] = {}
    for index, word in enumerate(words):
        key, equals, value = (part.strip() for part in word.partition("="))
        if not (equals and key and value) or key in options:
            raise ConfigError(f"{where}: {word.strip()!r} sets no option, or one that is set")
        if rest.startswith(",") and key in inner(name):
            options[key] = Text(",".join([value, *words[index + 1 :]]))
            break
        options[key] = Text(value)
    return name, options


def call_text(name: str, options: Mapping[str, Any]) -> str:
    """Write a call so that :func:`call_parts` reads it."""
    words = [f"{key}={encode(value)}" for key, value in options.items()]
    return f"{name}({', '.join(words)})" if words else name


def encode(value: Any) -> str:
    """Write a value so that :func:`decode` reads it from text."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"({', '.join(map(encode, value))})"
    if not isinstance(value, str | os.PathLike):
        return str(value)
    word = os.fspath(value)
    if _PLAIN.fullmatch(word) and word.lower() != "none":
        return word
    return f"'{word}'" if '"' in word else f'"{word}"'


def _decode_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is {value!r}; expected a table with fields of {kind.__name__}")
    types_of = typing.get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(set(value) - known):
        raise ConfigError(
            f"{where} has no entry {', '.join(unknown)}; expected some of "
            f"{', '.join(sorted(known))}"
        )
    required = [
        field.name
        for field in dataclasses.fields(kind)
        if field.init and field.default is field.default_factory is dataclasses.MISSING
    ]
    if missing := [name for name in required if name not in value]:
        raise ConfigError(
            f"{where} lacks {', '.join(missing)}; expected at least {', '.join(required)}"
        )
    given = {key: decode(types_of[key], item, f"{where}.{key}") for key, item in value.items()}
    try:
        return kind(**given)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error
