"""What a report shows, as plain data: tables, plots, images, failures.

Nothing here knows where numbers and images come from. Everything is checked when it is built, so
that :func:`~mitsuba_gdpt.report.write_report` does not fail after hours of rendering.

Methods are known by their label: a curve, a table header and an image of the same label share a
colour, and an image keeps its number key in all views.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit

import numpy as np

from mitsuba_gdpt.errors import ConfigError, LayoutError, NonFiniteError

Better = Literal["lower", "higher"]

#: Where links may lead; "" is a relative one. Not to scripts.
_LINK_SCHEMES = ("", "file", "http", "https", "mailto")


def _check_link(href: str | None) -> None:
    if href is not None and urlsplit(href).scheme not in _LINK_SCHEMES:
        raise ConfigError(f"got a link to {href!r}; expected http, https, file or a relative one")


@dataclass(frozen=True)
class Cell:
    """One cell of a table: a number, a text, or a failure.

    Attributes:
        value: The number; None for a text or a failure.
        standard_error: Of ``value``, in its units; None if unknown.
        text: Shown where there is no number.
        error: Why there is no number; the cell shows that it failed, with this as its tooltip.
        href: Where a click leads: a URL, or :func:`view_link`.
    """

    value: float | None = None
    standard_error: float | None = None
    text: str | None = None
    error: str | None = None
    href: str | None = None

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            raise NonFiniteError(
                f"got a cell of value {self.value}; expected a finite number. Give a cell that has "
                "none an error or a text instead"
            )
        if self.value is not None and self.error is not None:
            raise ConfigError(f"got a cell with both a value and the error {self.error!r}")
        _check_link(self.href)
        error = self.standard_error
        if error is not None and not (math.isfinite(error) and error >= 0):
            raise ConfigError(f"got a standard error of {error}; expected a finite number >= 0")


@dataclass(frozen=True)
class Header:
    """Head of a row or column.

    Attributes:
        label: Text; if it is the label of a method, it gets that method's colour.
        better: Which of the numbers below (or beside) it is best; None marks none.
        href: Where a click on a row's head leads.
    """

    label: str
    better: Better | None = None
    href: str | None = None

    def __post_init__(self) -> None:
        _check_link(self.href)


@dataclass(frozen=True)
class Table:
    """Numbers in rows and columns.

    Attributes:
        title: Heading.
        columns: Heads of the columns.
        rows: Heads of the rows.
        cells: One list per row, one cell per column.
        corner: Head of the column of row heads.
        caption: Below the table.
    """

    title: str
    columns: Sequence[Header]
    rows: Sequence[Header]
    cells: Sequence[Sequence[Cell]]
    corner: str = ""
    caption: str = ""

    def __post_init__(self) -> None:
        got = [len(row) for row in self.cells]
        if got != [len(self.columns)] * len(self.rows):
            raise LayoutError(
                f"table {self.title!r}: got rows of {got} cells; expected {len(self.rows)} rows of "
                f"{len(self.columns)}"
            )
        if any(h.better for h in self.columns) and any(h.better for h in self.rows):
            raise ConfigError(
                f"table {self.title!r} compares along rows and along columns; set 'better' on the "
                "heads of one of them"
            )


@dataclass(frozen=True)
class Curve:
    """One method in a plot.

    Attributes:
        label: Method.
        x: Positions, > 0.
        y: Values, > 0.
        error: Standard errors of ``y``; None draws no bars.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or (
            self.error is not None and len(self.error) != len(self.y)
        ):
            raise LayoutError(
                f"curve {self.label!r}: x, y and error have "
                f"{len(self.x)}, {len(self.y)}, {len(self.error or self.y)} values"
            )
        if bad := [v for v in (*self.x, *self.y) if not (math.isfinite(v) and v > 0)]:
            raise ConfigError(
                f"curve {self.label!r}: got {bad[0]}; logarithmic axes need finite numbers > 0"
            )


@dataclass(frozen=True)
class Plot:
    """Curves over logarithmic axes, usually error against spp or against seconds.

    Attributes:
        title: Heading.
        curves: One per method.
        x_label: With units.
        y_label: With units.
        caption: Below the plot.
        slopes: Whether the slopes of fitted lines are shown; against samples they mean something.
    """

    title: str
    curves: Sequence[Curve]
    x_label: str
    y_label: str
    caption: str = ""
    slopes: bool = True


@dataclass(frozen=True, eq=False)
class ViewImage:
    """One image of a view.

    Attributes:
        label: Method; unique within the view.
        pixels: (H, W, 3) scene-linear radiance; stored as float16. None if the method failed.
        reference: Whether errors are measured against this image.
        flip: FLIP error of each pixel, (H, W) in [0, 1]; stored in 8 bits.
        metrics: Name to value, shown beside the label.
        seconds: What the image cost.
        error: Why there is no image.
    """

    label: str
    pixels: Any = None
    reference: bool = False
    flip: Any = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        if (self.pixels is None) == (self.error is None):
            raise ConfigError(f"image {self.label!r}: expected either pixels or an error")
        if self.pixels is None:
            return
        pixels = np.asarray(self.pixels)
        if pixels.ndim != 3 or pixels.shape[-1] != 3 or 0 in pixels.shape:
            raise LayoutError(
                f"image {self.label!r}: got pixels of shape {pixels.shape}; expected (H, W, 3)"
            )
        if bad := int(np.count_nonzero(~np.isfinite(pixels))):
            raise NonFiniteError(
                f"image {self.label!r}: {bad} of {pixels.size} values are NaN or infinite; give "
                "the image an error instead of pixels, or repair it and say so"
            )
        if self.flip is None:
            return
        flip = np.asarray(self.flip)
        if flip.shape != pixels.shape[:2]:
            raise LayoutError(
                f"image {self.label!r}: got a FLIP map of shape {flip.shape}; expected "
                f"{pixels.shape[:2]}"
            )
        if not (flip.min() >= 0 and flip.max() <= 1):  # also catches NaN
            raise ConfigError(f"image {self.label!r}: expected a FLIP map with values in [0, 1]")


@dataclass(frozen=True)
class View:
    """Images of one scene that are compared with each other.

    Views of one title and group that have a frame number are the frames of a sequence, which the
    viewer plays in their order of appearance.

    Attributes:
        title: Scene.
        images: All of one size; at most one is the reference.
        group: What tells views of the same scene apart, for example ``"8 spp"``.
        frame: Number of the frame in a sequence; None for a still image.
        exposure: Stops that suit the scene; the viewer's exposure is relative to it.
        caption: Below the image.
    """

    title: str
    images: Sequence[ViewImage]
    group: str = ""
    exposure: float = 0.0
    caption: str = ""
    frame: int | None = None

    def __post_init__(self) -> None:
        name = f"view {self.title!r} {self.group}".strip()
        sizes = {np.shape(i.pixels)[:2] for i in self.images if i.pixels is not None}
        if len(sizes) != 1:
            raise LayoutError(
                f"{name}: got images of {len(sizes)} sizes {sorted(sizes)}; expected one size"
            )
        labels = [image.label for image in self.images]
        if len(set(labels)) != len(labels):
            raise ConfigError(f"{name}: two images have the same label, of: {', '.join(labels)}")
        if sum(image.reference for image in self.images) > 1:
            raise ConfigError(f"{name}: got more than one reference")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        shapes = (np.shape(i.pixels) for i in self.images if i.pixels is not None)
        height, width, _ = next(shapes)
        return height, width


@dataclass(frozen=True)
class Failure:
    """Something that did not work and has to be seen.

    Attributes:
        title: What was tried.
        message: What went wrong; line breaks are kept.
    """

    title: str
    message: str


@dataclass(frozen=True)
class Report:
    """One page.

    Attributes:
        title: Heading, and the title of the browser's window.
        subtitle: One line below it.
        provenance: How to make the numbers again: command, commit, machine, versions, date.
        tables: In order.
        plots: In order.
        views: In order of appearance; views of the same title belong together.
        failures: Shown first.
        notes: One paragraph each.
        epsilon: Of the relative error (x - r)² / (grey(r)² + epsilon) in the viewer.
    """

    title: str
    subtitle: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    views: Sequence[View] = ()
    failures: Sequence[Failure] = ()
    notes: Sequence[str] = ()
    epsilon: float = 1e-2

    def __post_init__(self) -> None:
        if not self.epsilon > 0:
            raise ConfigError(f"got epsilon={self.epsilon}; expected a number > 0")
        self._check_sequences()
        references = {i.label for v in self.views for i in v.images if i.reference}
        if mixed := references & {i.label for v in self.views for i in v.images if not i.reference}:
            raise ConfigError(
                f"{', '.join(sorted(mixed))} is a reference in some views and a method in others"
            )

    def _check_sequences(self) -> None:
        sequences: dict[tuple[str, str], dict[int | None, View]] = {}
        for view in self.views:
            frames = sequences.setdefault((view.title, view.group), {})
            if view.frame in frames or (frames and None in (view.frame, *frames)):
                number = "" if view.frame is None else f", frame {view.frame}"
                raise ConfigError(
                    f"two views have the title and group {(view.title, view.group)}{number}; "
                    f"expected frames that are numbered, each number once"
                )
            frames[view.frame] = view
        for name, frames in sequences.items():
            if len(sizes := {view.size for view in frames.values()}) > 1:
                raise LayoutError(
                    f"sequence {name}: got frames of {len(sizes)} sizes {sorted(sizes)}; expected "
                    f"one size"
                )

    @property
    def methods(self) -> list[str]:
        """Labels of all methods, in order of appearance; references are not among them."""
        images = [image for view in self.views for image in view.images if not image.reference]
        curves = [curve for plot in self.plots for curve in plot.curves]
        return list(dict.fromkeys([i.label for i in images] + [c.label for c in curves]))


@dataclass(frozen=True, eq=False)
class GalleryItem:
    """One tile of a gallery.

    Attributes:
        title: Below the picture.
        image: (H, W, 3) scene-linear radiance, the path of an 8-bit picture, or None.
        exposure: Stops, for radiance only.
        caption: Below the title.
        links: Text to URL.
        metrics: Name to value.
        error: What went wrong with this item; shown in place of the picture or on it.
    """

    title: str
    image: Any | str | os.PathLike[str] | None = None
    exposure: float = 0.0
    caption: str = ""
    links: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None

    def __post_init__(self) -> None:
        for url in self.links.values():
            _check_link(url)


@dataclass(frozen=True)
class Gallery:
    """A page of pictures.

    Attributes:
        title: Heading.
        items: In order.
        subtitle: One line below the heading.
    """

    title: str
    items: Sequence[GalleryItem]
    subtitle: str = ""


def view_link(title: str, group: str = "", method: str | None = None) -> str:
    """Return a link, for :attr:`Cell.href`, that opens a view of the same report.

    Args:
        title: Of the view.
        group: Of the view.
        method: Label of the image to show; None leaves the choice to the viewer.
    """
    fields = {"view": title}
    if group:
        fields["group"] = group
    if method is not None:
        fields["a"] = method
    return "#" + urlencode(fields)
