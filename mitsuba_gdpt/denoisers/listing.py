"""How methods are shown: a table in terminals, one in notebooks."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from mitsuba_gdpt import pictures
from mitsuba_gdpt.errors import GDPTError

#: What methods are there for: to be used, to be compared with, or to see what else is possible.
GROUPS = ("everyday", "baseline", "experiment")
_HEADINGS = dict(zip(GROUPS, ("methods", "baselines", "experiments"), strict=True))

_LEGEND = (
    "s/MP: seconds per megapixel on two CPU cores, roughly. error: relMSE at 8 spp without the "
    "0.1 % of pixels with the largest, mean over six scenes; of single images, by default."
)


class Listed(Protocol):
    """What is shown of a :class:`~mitsuba_gdpt.denoisers.registry.Method`."""

    @property
    def name(self) -> str:
        """Method name."""

    @property
    def group(self) -> str:
        """One of :data:`GROUPS`."""

    @property
    def doc(self) -> str:
        """One line."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of required buffers."""

    @property
    def options(self) -> Mapping[str, Any]:
        """Options and their defaults."""

    @property
    def obstacle(self) -> GDPTError | None:
        """Why it cannot run here."""

    @property
    def error(self) -> float | None:
        """Where it is known."""

    @property
    def seconds_per_megapixel(self) -> float | None:
        """Where it is known."""


AnyMethod = TypeVar("AnyMethod", bound=Listed)


class Methods(tuple[AnyMethod, ...]):
    """Methods, which terminals and notebooks show as a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        return self.text(shutil.get_terminal_size().columns)

    def text(self, width: int) -> str:
        """Return a table of what each takes and how good it is, in groups.

        Args:
            width: Of a line, in characters.
        """
        sections: dict[str, list[tuple[str, ...]]] = {}
        obstacles: dict[str, list[str]] = {}
        for method in sorted(self, key=lambda method: (GROUPS.index(method.group), _rank(method))):
            row = (method.name, *_figures(method), method.doc)
            sections.setdefault(_HEADINGS[method.group], []).append(row)
            if (obstacle := method.obstacle) is not None:
                obstacles.setdefault(str(obstacle), []).append(method.name)
        told = [f"Not here: {', '.join(names)}: {text}" for text, names in obstacles.items()]
        return "\n".join(
            [
                pictures.to_text(("s/MP", "error", ""), sections, width),
                "",
                *(pictures.wrapped(text, width) for text in (_LEGEND, *told)),
            ]
        )

    def _repr_html_(self) -> str:
        head = ("method", "group", "s/MP", "error", "what", "needs", "options", "here")
        return pictures.to_table(head, (row(method) for method in self))


def row(method: Listed) -> tuple[str, ...]:
    """Return what the table of notebooks says of a method: the texts of its columns."""
    options = ", ".join(
        name if default is None else f"{name}={default}" for name, default in method.options.items()
    )
    obstacle = method.obstacle
    here = "yes" if obstacle is None else str(obstacle)
    needs = ", ".join(method.needs)
    return method.name, method.group, *_figures(method), method.doc, needs, options, here


def _rank(method: Listed) -> float:
    return math.inf if method.error is None else method.error


def _figures(method: Listed) -> tuple[str, str]:
    """Return seconds per megapixel and error as texts; empty where they are not known."""
    cost, error = method.seconds_per_megapixel, method.error
    return "" if cost is None else f"{cost:g}", "" if error is None else f"{error:#.2g}"
