"""The command line of Intel's ``oidnDenoise`` in words of ``mitsuba-gdpt denoise``.

One of its own words, such as ``--hdr color.pfm`` or ``--clean_aux``, makes all words those of that
program: ``--quality`` is then the size of the network. Its image comes out, bit for bit. As there,
words may begin with any number of dashes. Source: ``apps/oidnDenoise.cpp`` of Open Image Denoise 2.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from mitsuba_gdpt.cli import options
from mitsuba_gdpt.errors import ConfigError

_SCALE = ("is", "input_scale", "input-scale", "inputScale", "inputscale")
_CLEAN = ("clean_aux", "clean-aux", "cleanAux", "cleanaux")
#: Words that are not ours, and tell that the program's are meant.
_TELLING = ("hdr", "ldr", "dir", "srgb", "weights", "maxmem", *_SCALE, *_CLEAN)
_QUALITIES = {"h": "high", "b": "balanced", "f": "fast"}
_QUALITIES |= {name: name for name in _QUALITIES.values()}

#: Words with a file or value to ours.
_SAME = {
    **dict.fromkeys(("alb", "albedo"), "--albedo"),
    **dict.fromkeys(("nrm", "normal"), "--normal"),
    **dict.fromkeys(("o", "out", "output"), "--output"),
}
#: Words with a value to options of the method.
_OPTIONS = {
    **dict.fromkeys(_SCALE, "input_scale"),
    **dict.fromkeys(("w", "weights"), "weights"),
    **dict.fromkeys(("q", "quality"), "quality"),
}
#: Words that change nothing of the image, or nothing that can be seen: how many values follow.
_WITHOUT_EFFECT = {
    **dict.fromkeys(("t", "type", "threads", "affinity", "maxmem", "maxMemoryMB"), 1),
    **dict.fromkeys(("buffer", "n", "v", "verbose"), 1),
    "inplace": 0,
}
_REFERENCE = "denoise first, and compare the images with mitsuba_gdpt.metrics"
#: Words that are refused, and what to do.
_REFUSED = {
    "srgb": "images are linear here; decode the sRGB curve first",
    "dir": "lightmaps are not denoised here",
    **dict.fromkeys(("r", "ref", "reference"), _REFERENCE),
    **dict.fromkeys(("maxerror", "maxError", "max_error", "maxerr"), _REFERENCE),
    **dict.fromkeys(
        ("ld", "list_devices", "list-devices", "listDevices", "listdevices"),
        "'mitsuba-gdpt info' lists the devices",
    ),
}


class Command(options.Command):
    """A command that knows the words of ``oidnDenoise`` besides its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse words of either program."""
        return super().parse_args(ctx, translated(args))


def translated(words: Sequence[str]) -> list[str]:
    """Return the words of ``mitsuba-gdpt denoise`` for some of ``oidnDenoise``.

    Args:
        words: After ``denoise``; without one that only ``oidnDenoise`` has, they stay as they are.

    Raises:
        ConfigError: A word asks for what is not done here, or lacks its value.
    """
    if not any(_name(word) in _TELLING for word in words):
        return list(words)
    rest, result, idle = list(words), [], []
    image, given = "", {"aux": "none"}
    while rest:
        word = rest.pop(0)
        name = _name(word)
        if name in _REFUSED:
            raise ConfigError(f"{word} of oidnDenoise: {_REFUSED[name]}")
        if name in ("hdr", "ldr"):
            image = _value(word, rest)
            given["hdr"] = str(name == "hdr").lower()
        elif name in _SAME:
            result += [_SAME[name], _value(word, rest)]
            if name not in ("o", "out", "output") and given["aux"] == "none":
                given["aux"] = "raw"
        elif name in _CLEAN:
            given["aux"] = "clean"
        elif name in _OPTIONS:
            value = _value(word, rest)
            given[_OPTIONS[name]] = value
            if _OPTIONS[name] == "quality":
                given["quality"] = _quality(word, value)
        elif name in ("d", "dev", "device"):
            result += _device(word, _value(word, rest))
        elif name in ("f", "filter"):
            if (value := _value(word, rest)) != "RT":
                raise ConfigError(f"{word} is {value!r}; expected RT: {_REFUSED['dir']}")
        elif name in _WITHOUT_EFFECT:
            idle.append(word)
            for _ in range(_WITHOUT_EFFECT[name]):
                _value(word, rest)
        else:
            result.append(word)
    if idle:
        warnings.warn(f"without effect here: {', '.join(idle)}", stacklevel=1)
    if not {"-m", "--method"} & {*result}:
        result += ["--method", "oidn"]
    for key, value in given.items():
        result += ["--option", f"{key}={value}"]
    return [*([image] if image else []), *result]


def _name(word: str) -> str:
    """Return a word without its dashes; nothing for one that has none."""
    return word.lstrip("-") if word.startswith("-") else ""


def _value(word: str, rest: list[str]) -> str:
    if not rest or (rest[0].startswith("-") and not rest[0][1:2].isdigit()):
        raise ConfigError(f"{word} of oidnDenoise needs a value after it")
    return rest.pop(0)


def _quality(word: str, value: str) -> str:
    if value.lower() == "default":
        return "high"
    if value.lower() not in _QUALITIES:
        expected = ", ".join(("default", *_QUALITIES))
        raise ConfigError(f"{word} is {value!r}; expected one of: {expected}")
    return _QUALITIES[value.lower()]


def _device(word: str, value: str) -> list[str]:
    if value == "default":
        return []
    if value not in ("cpu", "cuda"):
        raise ConfigError(f"{word} is {value!r}; expected cpu or cuda, which oidn has here")
    return ["--device", value]
