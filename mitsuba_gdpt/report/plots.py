"""Plots as SVG that takes its colours from the page: one file suits light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mitsuba_gdpt import packages
from mitsuba_gdpt.report.model import Curve, Plot

_SIZE = (6.0, 3.9)  # inches at 72 dpi: the units of the SVG; the page scales it
_MARKERS = "osD^vPX<>"  # so that curves differ by more than colour
_MARKED = 40  # longer curves have no markers
_AXIS_TICKS = 8  # as many positions on the x axis are labelled as they are
_FEW_DECADES = 2.2  # below that, powers of ten alone are too few labels
#: Colours that matplotlib writes, and what the page knows them as.
_INK, _FAINT = "#000001", "#000002"


@dataclass(frozen=True)
class LegendEntry:
    """One method below a plot.

    Attributes:
        label: Method.
        colour: Name of a CSS variable.
        curve: Id of the curve's group in the SVG.
        slope: Of the line fitted in logarithms, or None for a single point and where it is not
            shown: -1 is how the variance of independent samples falls.
    """

    label: str
    colour: str
    curve: str
    slope: float | None

    @property
    def slope_text(self) -> str:
        """The slope with its sign, typeset."""
        if self.slope is None:
            return ""
        return f"{round(self.slope, 2) + 0.0:+.2f}".replace("-", "−")  # never "−0.00"


def slope(curve: Curve) -> float | None:
    """Fit log y = a + slope * log x by least squares; None if there are no two positions."""
    if len(set(curve.x)) < 2:
        return None
    return float(np.polyfit(np.log(curve.x), np.log(curve.y), 1)[0])


def draw(plot: Plot, colours: Mapping[str, str], prefix: str) -> tuple[str, list[LegendEntry]]:
    """Draw a plot.

    Args:
        plot: What to draw.
        colours: CSS variable of each method.
        prefix: Makes the ids in the SVG unique within the page.

    Returns:
        The ``<svg>`` element, and its legend, which the page sets in HTML.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    matplotlib = packages.load("matplotlib", "eval")
    figure_class = packages.load("matplotlib.figure", "eval").Figure
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": prefix,
        "font.family": "sans-serif",
        "font.size": 11,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _FAINT,
        "xtick.color": _FAINT,
        "ytick.color": _FAINT,
        "xtick.labelcolor": _INK,
        "ytick.labelcolor": _INK,
        "grid.color": _FAINT,
        "grid.alpha": 0.25,
        "grid.linewidth": 0.6,
    }
    names = {_INK: "--ink", _FAINT: "--faint"}
    legend = []
    with matplotlib.rc_context(style):
        figure = figure_class(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.set(xscale="log", yscale="log", xlabel=plot.x_label, ylabel=plot.y_label)
        axes.grid(True, which="both")
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(which="both", length=0)
        for index, curve in enumerate(plot.curves):
            fitted = slope(curve) if plot.slopes else None
            entry = LegendEntry(curve.label, colours[curve.label], f"{prefix}-{index}", fitted)
            stand_in = f"#0000{16 + index:02x}"
            names[stand_in] = entry.colour
            _draw_curve(axes, curve, stand_in, _MARKERS[index % len(_MARKERS)], entry.curve)
            legend.append(entry)
        _label_axes(axes, plot)
        buffer = io.StringIO()
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    return _for_page(buffer.getvalue(), names, prefix), legend


def _draw_curve(axes: Any, curve: Curve, colour: str, marker: str, gid: str) -> None:
    order = np.argsort(curve.x)
    x, y = np.asarray(curve.x)[order], np.asarray(curve.y)[order]
    shown = marker if len(x) <= _MARKED else ""
    (line,) = axes.plot(x, y, color=colour, marker=shown, markersize=5, linewidth=1.6, zorder=3)
    line.set_gid(gid)
    if curve.error is None:
        return
    error = np.asarray(curve.error)[order]
    # A bar that reaches below zero has no end on a logarithmic axis.
    below = np.minimum(error, 0.9 * y)
    bars = axes.errorbar(x, y, (below, error), fmt="none", ecolor=colour, elinewidth=1, capsize=2.5)
    for part in (*bars[1], *bars[2]):
        part.set_gid(f"{gid}-bars")


def _label_axes(axes: Any, plot: Plot) -> None:
    """Label with plain numbers; the x axis with the positions that were measured, if few."""
    ticker = packages.load("matplotlib.ticker", "eval")
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        between = (1.0, 2.0, 5.0) if np.log10(high / low) < _FEW_DECADES else (1.0,)
        axis.set_major_locator(ticker.LogLocator(subs=between, numticks=20))
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(ticker.NullFormatter())
    positions = [set(curve.x) for curve in plot.curves]
    shared = set().union(*positions)
    if len(shared) <= _AXIS_TICKS and all(own <= max(positions, key=len) for own in positions):
        axes.set_xticks(sorted(shared), [f"{x:g}" for x in sorted(shared)])
        axes.set_xticks([], minor=True)


def _for_page(svg: str, names: Mapping[str, str], prefix: str) -> str:
    """Turn a file into an element of an HTML page."""
    svg = svg[svg.index("<svg") :]
    for colour, name in names.items():
        svg = svg.replace(colour, f"var({name})")
    svg = re.sub(r'(\bid="|url\(#|href="#)(?!' + re.escape(prefix) + "-)", rf"\1{prefix}-", svg)
    # The page's own fonts, and its scale.
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    return re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
