"""Exceptions of the package: every message says what was got, what was expected and what to do.

All derive from :class:`GDPTError`, and also from the built-in exception that a caller would
expect (``ValueError`` for bad input, ``RuntimeError`` for a bad environment), so that neither
``except mitsuba_gdpt.GDPTError`` nor plain Python habits are disappointed.
"""

from __future__ import annotations

import re


class GDPTError(Exception):
    """Base class of all errors raised by mitsuba_gdpt."""


class ConfigError(GDPTError, ValueError):
    """A parameter has a value that makes no sense (``spp=0``, an unknown method, ...)."""


class LayoutError(GDPTError, ValueError):
    """A buffer tensor has the wrong rank, channel count or channel names."""


class NonFiniteError(GDPTError, ValueError):
    """A buffer contains NaN or infinity; the message counts them per channel."""


class FormatError(GDPTError, ValueError):
    """A file is missing, unreadable or lacks layers that were asked for."""


class MissingScenesError(GDPTError, RuntimeError):
    """Scenes of a catalogue, which do not come with the package, are not on this machine."""


class VariantError(GDPTError, RuntimeError):
    """The active Mitsuba variant (or none at all) cannot run this code."""


class LLVMError(GDPTError, RuntimeError):
    """No LLVM library that Dr.Jit can use safely was found or selected."""


class WeightsError(GDPTError, RuntimeError):
    """Weights of a network are missing, damaged or do not fit."""


class MissingDependencyError(GDPTError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""


def reraise_interrupt(error: BaseException) -> None:
    """Raise what an error hides: an interrupt inside a callback, of which Dr.Jit made an error.

    Call it in every ``except`` around code that traces, before the error is explained otherwise.

    Raises:
        KeyboardInterrupt: The error, or what caused it, is one.
        SystemExit: Likewise.
    """
    cause: BaseException | None = error
    while cause is not None:
        if not isinstance(cause, Exception):
            raise cause.with_traceback(None) from None
        cause = cause.__cause__ or cause.__context__


def plain(error: BaseException) -> str:
    """Return a message in one line, without Mitsuba's positions in C++ files.

    An exception raised in a Python plugin arrives as the text of its traceback: of that, the
    message is what counts. Where there is none, the name of the error says what there is to say.
    """
    text = str(error).strip()
    if "Traceback (most recent call last)" in text:
        text = text.splitlines()[-1]
        text = re.sub(r"^[\w.]+: ", "", text)
    text = re.sub(r"\[\w+\.(?:cpp|h):\d+\] ", "", text)
    return " ".join(text.split()) or type(error).__name__
