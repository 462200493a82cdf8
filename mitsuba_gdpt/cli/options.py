"""Options that several commands share, and the parsing of their values."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from mitsuba_gdpt import checks
from mitsuba_gdpt.decoding import Text
from mitsuba_gdpt.errors import ConfigError

#: Headings of the help of commands that denoise.
INPUT, METHOD, OUTPUT, SEQUENCE = "What to denoise", "How to denoise", "Output", "Sequences"

Variant = Annotated[
    str | None,
    typer.Option(
        help="Mitsuba variant; by default cuda_ad_rgb where it works, else llvm_ad_rgb.",
        show_default=False,
    ),
]
DenoiserOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--option",
        metavar="KEY=VALUE",
        help="Option of the denoising method, such as alpha=0.1; may be repeated.",
        show_default=False,
        rich_help_panel=METHOD,
    ),
]
Quality = Annotated[
    str | None,
    typer.Option(
        help="Level of denoising where no method is named: fast, balanced (the default) or high; "
        "'mitsuba-gdpt info' says what each takes.",
        metavar="LEVEL",
        show_default=False,
        rich_help_panel=METHOD,
    ),
]
Define = Annotated[
    list[str] | None,
    typer.Option(
        "--define",
        "-D",
        metavar="KEY=VALUE",
        help="Value of a $KEY parameter of the XML file; may be repeated.",
        show_default=False,
    ),
]
ResultsFolder = Annotated[
    Path,
    typer.Option("--output", "-o", help="Folder for the report, tables, images and cells."),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        "-m",
        metavar="NAME[(KEY=VALUE, ...)]",
        help="Method with options; may be repeated. By default all that run here.",
        show_default=False,
    ),
]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown.")]
Png = Annotated[
    Path | None,
    typer.Option(
        help="Write the denoised image as 8-bit sRGB, to look at.",
        metavar="FILE.png",
        show_default=False,
        rich_help_panel=OUTPUT,
    ),
]
Exposure = Annotated[
    float,
    typer.Option(
        help="Brightness of the PNG in photographic stops; +1 doubles it.",
        metavar="EV",
        rich_help_panel=OUTPUT,
    ),
]

Tev = Annotated[
    bool,
    typer.Option(
        "--tev",
        help="Show the result, beside what it was made from, in the viewer tev, which has to run "
        "(extra 'tev').",
        rich_help_panel=OUTPUT,
    ),
]


class Command(TyperCommand):
    """A command whose numbers are looked at before it starts, on top of the bounds it declares."""

    def __init__(self, *args: Any, help: str | None = None, **settings: Any) -> None:
        """Take the words of :class:`typer.core.TyperCommand`; paragraphs of the help may flow."""
        super().__init__(*args, help=help and _flowing(help), **settings)

    def invoke(self, ctx: Any) -> Any:
        """Check the numbers, then run the command.

        Raises:
            ConfigError: One is not finite, or so large that it makes no sense.
        """
        for parameter in self.params:
            name = parameter.opts[0] if parameter.opts else str(parameter.name)
            _check_numbers(name, str(parameter.name), ctx.params.get(str(parameter.name)))
        return super().invoke(ctx)


def _flowing(text: str) -> str:
    """Join the lines of each paragraph but those with examples, which are indented."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(p if "\n  " in p else p.replace("\n", " ") for p in paragraphs)


def _check_numbers(option: str, name: str, value: Any) -> None:
    if isinstance(value, list | tuple):
        for item in value:
            _check_numbers(option, name, item)
    elif isinstance(value, float):
        (checks.stops if name == "exposure" else checks.real)(option, value)
    elif isinstance(value, int) and not isinstance(value, bool):
        most = checks.MOST
        if name == "spp" or name.endswith("_spp"):
            most = checks.MOST_SPP
        elif name in ("width", "height", "size", "frame"):
            most = checks.MOST_PIXELS
        checks.whole(option, value, least=-checks.MOST, most=most)


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """Read whole numbers that are separated by commas.

    Raises:
        ConfigError: A word is none.
    """
    words = text.split(",")
    if not all(word.strip().isdecimal() and len(word) < 30 for word in words):
        raise ConfigError(
            f"{option} is {checks.show(text)}; expected a list of whole numbers such as 2,8"
        )
    return tuple(int(word) for word in words)


def check_quality(quality: str | None, method: str | None) -> None:
    """Refuse a level that is unknown, or one beside a method, which would have no effect.

    Raises:
        ConfigError: It is one of these.
    """
    if quality is None:
        return
    if method is not None:
        raise ConfigError(
            f"--quality {quality} chooses a method, but {method!r} is named; leave one out, or "
            f"give the method's own option: --option quality={quality}"
        )
    from mitsuba_gdpt import denoisers

    denoisers.find_level(quality)


def key_values(words: Sequence[str] | None, option: str) -> dict[str, str]:
    """Split ``KEY=VALUE`` words.

    Raises:
        ConfigError: A word has no ``=`` or no key, or a key comes twice.
    """
    result: dict[str, str] = {}
    for word in words or ():
        key, equals, value = word.partition("=")
        if not (key and equals):
            raise ConfigError(f"{option} {word!r} is not of the form KEY=VALUE")
        if key in result:
            raise ConfigError(f"{option} sets {key!r} twice")
        result[key] = value
    return result


def typed_values(words: Sequence[str] | None, option: str) -> dict[str, Text]:
    """Split ``KEY=VALUE`` words, whose values mean what the type that is expected says."""
    return {key: Text(value) for key, value in key_values(words, option).items()}


def check_folder(path: Path) -> None:
    """Refuse an output folder that is something else, before any work is done.

    Raises:
        ConfigError: There is a file of that name.
    """
    checks.file_system_name("cannot write this folder", path.name)
    if path.exists() and not path.is_dir():
        raise ConfigError(f"cannot write into {path}: it is not a folder")


def check_output(path: Path | None, *suffixes: str, folder: bool = False) -> None:
    """Refuse an output that could not be written, before any work is done.

    Args:
        path: File to write, or None.
        *suffixes: What it has to end in, one of these.
        folder: The output is a folder, which may be there already, and not a file.

    Raises:
        ConfigError: The suffix is wrong, the parent does not exist or cannot be written to, or
            there is a folder where a file is to be, or the reverse.
    """
    if path is None:
        return
    if path.suffix.lower() not in suffixes:
        raise ConfigError(f"output file {path} should end in {' or '.join(suffixes)}")
    checks.file_system_name("cannot write this file", path.name)
    within = path.parent
    if not within.is_dir():
        if within.exists():
            raise ConfigError(f"cannot write {path}: {within} is no folder")
        raise ConfigError(f"cannot write {path}: the folder {within} does not exist")
    if not os.access(within, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot write {path}: the folder {within} cannot be written to")
    if path.exists() and path.is_dir() != folder:
        raise ConfigError(f"cannot write {path}: it is {'no' if folder else 'a'} folder")
