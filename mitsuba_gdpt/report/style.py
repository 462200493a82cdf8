"""What all pages share: templates, colours of methods, the look of numbers."""

from __future__ import annotations

import importlib
import math
from functools import cache
from typing import Any

from mitsuba_gdpt.errors import MissingDependencyError

#: Colours of methods on light and on dark paper, after Okabe and Ito, "Color Universal Design"
#: (2008), with further dark hues; told apart with all common kinds of colour blindness.
PALETTE = (
    ("#0072b2", "#4aa3e0"),  # blue
    ("#d55e00", "#f5873f"),  # vermilion
    ("#009e73", "#35c99e"),  # green
    ("#b5478f", "#e08cc0"),  # purple
    ("#b98200", "#f0b83c"),  # amber
    ("#3a96cf", "#93d0f5"),  # sky
    ("#3b2d8c", "#9a90f0"),  # indigo
    ("#8a1f4c", "#d9698e"),  # wine
    ("#73732a", "#b9b95c"),  # olive
)


def colour_names(methods: list[str]) -> dict[str, str]:
    """Give each method its colour, as the name of a CSS variable; they repeat after nine."""
    return {name: f"--method-{index % len(PALETTE)}" for index, name in enumerate(methods)}


def number(value: float, standard_error: float | None = None) -> str:
    """Write a number with as many digits as its standard error warrants, otherwise four.

    Example:
        >>> number(0.123456), number(0.123456, 0.002)
        ('0.1235', '0.1235')
        >>> number(12.3456, 0.9)
        '12.35'
        >>> number(12.3456, 4), number(1.5e-06)
        ('12.3', '1.5e-06')
    """
    digits = 4
    if standard_error and value:
        # Two digits of the standard error; its last one is noise already.
        magnitude = math.floor(math.log10(abs(value))) - math.floor(math.log10(standard_error))
        digits = min(max(magnitude + 2, 2), 6)
        return f"{value:#.{digits}g}".rstrip(".")
    return f"{value:.{digits}g}"


def load(package: str) -> Any:
    """Import a package of the extra ``eval``.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"reports need the package {package.split('.')[0]!r}, which is not installed; "
            "run: pip install 'mitsuba-gdpt[eval]'"
        ) from error


@cache
def _environment() -> Any:
    jinja2 = load("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mitsuba_gdpt.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def source(name: str) -> Any:
        """Insert a style sheet or script as it is: braces in it are not template code."""
        text = environment.loader.get_source(environment, name)[0]
        return load("markupsafe").Markup(text)

    environment.globals.update(source=source, palette=PALETTE)
    environment.filters["number"] = number
    return environment


def fill(template: str, **values: Any) -> str:
    """Fill a template of this package; everything in ``values`` is escaped.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    text: str = _environment().get_template(template).render(**values)
    return text
