"""What all pages share: templates, colours of methods, the look of numbers."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from mitsuba_gdpt import packages

#: Colours of methods on light and on dark paper, after Okabe and Ito, "Color Universal Design"
#: (2008), with further dark hues: the first nine are told apart with all common kinds of colour
#: blindness, those after them with the help of the markers in plots.
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
    ("#5f6368", "#b8bcc2"),  # grey
    ("#00626e", "#3cbccb"),  # teal
    ("#7a3b12", "#cf8e5c"),  # brown
    ("#1f6b1f", "#74c974"),  # fir
    ("#d81b7a", "#ff85bd"),  # rose
    ("#7b2fc9", "#c59bff"),  # violet
    ("#4f7f00", "#a5d64a"),  # lime
    ("#c62828", "#ff8a80"),  # red
    ("#00897b", "#64d8c8"),  # sea
    ("#455a91", "#9db4f0"),  # slate
    ("#9c6b30", "#e0b072"),  # ochre
    ("#ad1fad", "#f07ff0"),  # magenta
    ("#2f4f2f", "#93b893"),  # moss
    ("#16324f", "#7fa8d1"),  # navy
    ("#6d4c41", "#bfa094"),  # umber
)


def colour_names(methods: list[str]) -> dict[str, str]:
    """Give each method its colour, as the name of a CSS variable; they repeat after 24."""
    return {name: f"--method-{index % len(PALETTE)}" for index, name in enumerate(methods)}


def number(value: float, standard_error: float | None = None) -> str:
    """Write a number to the second digit of its standard error, without one to four digits.

    Example:
        >>> number(0.123456), number(0.123456, 0.002), number(0.08, 0.01)
        ('0.1235', '0.1235', '0.080')
        >>> number(12.3456, 4.0), number(0.5), number(8.0)
        ('12.3', '0.5000', '8')
    """
    digits = 4
    if standard_error and value:
        magnitude = math.floor(math.log10(abs(value))) - math.floor(math.log10(standard_error))
        digits = min(max(magnitude + 2, 2), 6)
    elif float(value).is_integer() and abs(value) < 1e6:
        return str(int(value))
    return f"{value:#.{digits}g}".rstrip(".")


@cache
def _environment() -> Any:
    jinja2 = packages.load("jinja2", "eval")
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
        return packages.load("markupsafe", "eval").Markup(text)

    # Metrics keep their order.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "allow_nan": False}
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
