"""The application: list of commands, error messages and exit codes."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, TextIO

import typer

from mitsuba_gdpt import interrupts, plugins, subprocesses
from mitsuba_gdpt._version import __version__
from mitsuba_gdpt.cli import oidn_words, options
from mitsuba_gdpt.cli.batch import batch
from mitsuba_gdpt.cli.catalogue import catalogue
from mitsuba_gdpt.cli.dataset import dataset
from mitsuba_gdpt.cli.denoise import denoise
from mitsuba_gdpt.cli.evaluate import evaluate
from mitsuba_gdpt.cli.info import info
from mitsuba_gdpt.cli.reference import reference
from mitsuba_gdpt.cli.render import render
from mitsuba_gdpt.cli.scenes import scenes
from mitsuba_gdpt.cli.stored import evaluate_stored
from mitsuba_gdpt.cli.train import train
from mitsuba_gdpt.cli.weights import weights
from mitsuba_gdpt.errors import (
    ConfigError,
    FormatError,
    LayoutError,
    NonFiniteError,
    VariantError,
    WeightsError,
)

FAILURE, BAD_INPUT, INTERRUPTED = 1, 2, interrupts.EXIT_CODE

#: Errors that the user can mend by calling the command differently.
_INPUT_ERRORS = (
    ConfigError,
    FormatError,
    LayoutError,
    NonFiniteError,
    VariantError,
    WeightsError,
)

app = typer.Typer(
    name="mitsuba-gdpt",
    help="Gradient-domain path tracing and reconstruction for Mitsuba 3.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted. "
    "Start with: mitsuba-gdpt scenes",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (render, denoise, evaluate, reference, batch, train, scenes, info):
    app.command()(command)
dataset.command("evaluate")(evaluate_stored)
for group in (app, catalogue, dataset, weights):
    for registered in group.registered_commands:
        registered.cls = oidn_words.Command if registered.callback is denoise else options.Command
app.add_typer(catalogue)
app.add_typer(dataset)
app.add_typer(weights)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
    imports: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            metavar="FILE.py",
            help="Register the methods and metrics of this file or module; may be repeated.",
        ),
    ] = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show Python tracebacks of errors; allowed anywhere.")
    ] = False,
) -> None:
    if imports:  # main() has dealt with --debug already
        plugins.add(imports)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"warning: {message}", file=sys.stderr)


def _exit_code(error: Exception) -> int:
    if hasattr(error, "format_message"):  # a wrong option: typer's and click's common ground
        return BAD_INPUT
    return BAD_INPUT if isinstance(error, _INPUT_ERRORS) else FAILURE


def _message(error: Exception) -> str:
    """Return what went wrong in one line."""
    if hasattr(error, "format_message"):
        text: Any = error.format_message()
    elif isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, MemoryError):
        text = "out of memory; try a smaller picture"
    else:
        text = str(error) or type(error).__name__
    return " ".join(str(text).split())


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit; the console script of the package.

    Args:
        arguments: Words after the program name; by default those of the process.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [word for word in arguments if word != "--debug"]
    with _environment(), warnings.catch_warnings(), interrupts.watching():
        if not debug:
            warnings.showwarning = _show_warning
        code = _run(arguments, debug)
    interrupts.finish()
    sys.exit(code)


@contextmanager
def _environment() -> Iterator[None]:
    """Set what libraries and their processes read; a caller in Python gets its own back."""
    before = dict(os.environ)
    # Denoisers run many short parallel loops. Where other programs want the same cores, torch's
    # threads by default spin away the time slices that they wait for: 10 to 40 times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is imported
    # What torch lacks on Apple's GPUs shall run on the CPU instead of failing.
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    # Python processes that libraries start shall not look for modules in the current folder.
    os.environ.update(subprocesses.environment())
    try:
        yield
    finally:
        for name in ("OMP_WAIT_POLICY", "PYTORCH_ENABLE_MPS_FALLBACK", "PYTHONSAFEPATH"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def _check_letters(arguments: list[str]) -> None:
    """Refuse names that Python has but libraries cannot be told, before any work is done.

    Raises:
        ConfigError: A word holds bytes that are no letters in this locale.
    """
    for word in arguments:
        try:
            word.encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"{word!a} has letters that this locale ({sys.getfilesystemencoding()}) does "
                "not know; set LC_ALL=C.UTF-8, or choose other letters"
            ) from None


def _run(arguments: list[str], debug: bool) -> int:
    """Run a command, show its error if there is one, and return the exit code."""
    try:
        _check_letters(arguments)
        code = app(args=arguments, prog_name="mitsuba-gdpt", standalone_mode=False) or 0
        if code != INTERRUPTED:  # what typer makes of Ctrl-C
            interrupts.check()
            return int(code)
        error: BaseException = KeyboardInterrupt()
    except BaseException as raised:
        error = raised
    if interrupts.noticed() or isinstance(error, KeyboardInterrupt | typer.Abort):
        told = isinstance(error, KeyboardInterrupt | typer.Abort) and str(error)
        print(" ".join(str(error).split()) if told else "interrupted", file=sys.stderr)
        return INTERRUPTED
    if not isinstance(error, Exception):  # SystemExit
        raise error
    if debug:
        traceback.print_exception(error)
    # `mitsuba-gdpt` alone prints the help, which typer reports as an error without a message.
    if text := _message(error):
        print(f"error: {text}", file=sys.stderr)
    return _exit_code(error)
