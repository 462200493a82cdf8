"""Numbers and names that come from outside: what makes sense is decided here, for all parts.

Each function returns the value that it was given, or raises a ``ConfigError`` that says what was
got, what was expected, and which setting it is.
"""

from __future__ import annotations

import math
import os
from pathlib import PurePosixPath
from typing import Any

from mitsuba_gdpt.errors import ConfigError

#: Whole numbers beyond this do not fit into the counters and seeds of Mitsuba.
MOST = 2**31 - 1
#: Largest seed of NumPy and torch.
MOST_SEED = 2**63 - 1
#: Samples per pixel beyond this are not told apart by a float32 mean.
MOST_SPP = 2**24
#: Photographic stops up or down beyond this leave the range of float32 sooner or later.
MOST_STOPS = 100
#: Seconds beyond this are no budget: a week.
MOST_SECONDS = 604_800
#: Pixels along a side beyond this fit into no memory.
MOST_PIXELS = 2**16
#: Bytes of a file name: file systems take 255, and files are written as ``.NAME.XXXXXXXX.tmp``.
MOST_NAME_BYTES = 240

_FORBIDDEN = frozenset('\\:*?"<>|')
_DEVICES = frozenset(
    {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}
)
_SHOWN = 60
_REASON = 300


def whole(name: str, value: Any, *, least: int = 0, most: int = MOST) -> int:
    """Check a whole number.

    Args:
        name: Of the setting, for the message.
        value: What was given; NumPy integers count, truth values do not.
        least: Smallest that makes sense.
        most: Largest.

    Raises:
        ConfigError: It is no whole number, or out of range.
    """
    kind = f"a whole number from {least} to {most}"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ConfigError(f"{name} is {show(value)}; expected {kind}")
    number = value.__index__()
    if number < least:
        raise ConfigError(f"{name} is {show(number)}; expected at least {least}")
    if number > most:
        raise ConfigError(f"{name} is {show(number)}; expected at most {most}")
    return int(number)


def real(
    name: str,
    value: Any,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
) -> float:
    """Check a finite number.

    Args:
        name: Of the setting, for the message.
        value: What was given; truth values are no numbers.
        least: Smallest that makes sense.
        most: Largest.
        above: Bound that is itself too small.

    Raises:
        ConfigError: It is no number, NaN, infinite or out of range.
    """
    bounds = [f"at least {least:g}"] if least > -math.inf else []
    bounds += [f"above {above:g}"] if above > -math.inf else []
    bounds += [f"at most {most:g}"] if most < math.inf else []
    expected = " and ".join(["a finite number", *bounds][:1] + bounds)
    if isinstance(value, bool | str | bytes):
        raise ConfigError(f"{name} is {show(value)}; expected {expected}")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ConfigError(f"{name} is {show(value)}; expected {expected}") from None
    if not math.isfinite(number) or not least <= number <= most or not number > above:
        raise ConfigError(f"{name} is {show(value)}; expected {expected}")
    return number


def spp(name: str, value: Any, *, least: int = 1) -> int:
    """Check a number of samples per pixel; see :func:`whole`."""
    return whole(name, value, least=least, most=MOST_SPP)


def stops(name: str, value: Any) -> float:
    """Check a brightness in photographic stops; see :func:`real`."""
    return real(name, value, least=-MOST_STOPS, most=MOST_STOPS)


def budget(name: str, value: Any) -> float:
    """Check a number of seconds to spend; see :func:`real`."""
    return real(name, value, above=0, most=MOST_SECONDS)


def pixels(name: str, value: Any) -> int:
    """Check the width or height of an image; see :func:`whole`."""
    return whole(name, value, least=1, most=MOST_PIXELS)


def file_name(what: str, name: str) -> str:
    """Check a text that becomes the name of a file or folder, as a whole.

    Args:
        what: What has the name, for the message.
        name: Without folders.

    Raises:
        ConfigError: It is empty, means a folder (``.``, ``..``, ``a/b``), holds characters that
            some file system refuses, or is too long.
    """
    shown = show(name)
    if name in ("", ".", "..") or "/" in name:
        raise ConfigError(f"{what}: got the file name {shown}; expected one without folders")
    if bad := sorted({c for c in name if c in _FORBIDDEN or not c.isprintable()}):
        raise ConfigError(
            f"{what}: got the file name {shown}; expected none of the characters "
            f"{', '.join(map(repr, bad))}, which not every file system takes"
        )
    if name != name.strip():
        raise ConfigError(f"{what}: got the file name {shown}; expected no space at its ends")
    if name.partition(".")[0].upper() in _DEVICES:
        raise ConfigError(f"{what}: got the file name {shown}, which is a device on Windows")
    return file_system_name(what, name)


def file_system_name(what: str, name: str) -> str:
    """Check that this file system takes a name, whoever has chosen it.

    Args:
        what: What has the name, for the message.
        name: Without folders.

    Raises:
        ConfigError: It is too long, or has characters that the locale lacks.
    """
    shown = show(name)
    try:
        length = len(os.fsencode(name))
    except UnicodeEncodeError:
        raise ConfigError(
            f"{what}: the file name {shown} has characters that the file system cannot write in "
            "this locale; set LC_ALL=C.UTF-8, or choose other letters"
        ) from None
    if length > MOST_NAME_BYTES:
        raise ConfigError(
            f"{what}: the file name {shown} has {length} bytes; expected at most {MOST_NAME_BYTES}"
        )
    return name


def relative_path(what: str, path: str) -> PurePosixPath:
    """Check a path that has to stay inside a folder, part by part.

    Args:
        what: What has the path, for the message.
        path: With ``/`` between folders.

    Returns:
        The path.

    Raises:
        ConfigError: It is absolute, leaves the folder, or a part is no :func:`file_name`.
    """
    if path.startswith("/") or path.endswith("/"):
        raise ConfigError(f"{what}: got the path {show(path)}; expected one inside the folder")
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise ConfigError(
                f"{what}: got the path {show(path)}; expected one inside the folder, without "
                "empty parts, '.' and '..'"
            )
        file_name(what, part)
    return PurePosixPath(path)


def setting(name: str, value: Any) -> Any:
    """Check a value of a free table: a number, a truth value, a text, None, or several of them.

    Raises:
        ConfigError: It is something else, or a number that is not finite.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, list | tuple):
        return type(value)(setting(name, item) for item in value)
    if hasattr(value, "__index__"):
        return whole(name, value, least=-(2**63), most=2**63 - 1)
    if not isinstance(value, float):
        raise ConfigError(
            f"{name} is {show(value)}; expected a number, a truth value, a text or a list of them"
        )
    return real(name, value)


def show(value: Any) -> str:
    """Return a value for a message, shortened; never fails and never takes long."""
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 200:
        return f"a whole number of about {round(value.bit_length() * 0.30103)} digits"
    if isinstance(value, str | bytes) and len(value) > 4 * _SHOWN:
        value = value[: 4 * _SHOWN]
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def reason(error: BaseException) -> str:
    """Return what another library says of a file, in one line of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _REASON else f"{text[: _REASON - 3]}..."
