"""Which numbers of a table are best, and which are not significantly worse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from mitsuba_gdpt.report.model import Better, Cell, Table

Mark = Literal["best", "tie", ""]

#: Two values differ significantly if they are further apart than this many standard errors of
#: their difference: 5 % of equal ones do by chance.
SIGNIFICANCE = 1.96


def marks(table: Table) -> list[list[Mark]]:
    """Return a mark for every cell of a table, compared along rows or columns as its heads say."""
    result: list[list[Mark]] = [["" for _ in row] for row in table.cells]
    for x, head in enumerate(table.columns):
        if head.better:
            column = compare([row[x] for row in table.cells], head.better)
            for y, mark in enumerate(column):
                result[y][x] = mark
    for y, head in enumerate(table.rows):
        if head.better:
            result[y] = compare(table.cells[y], head.better)
    return result


def compare(cells: Sequence[Cell], better: Better) -> list[Mark]:
    """Mark the best of some cells, and ties with it.

    The errors are taken as independent. Those of methods that share their noise are correlated,
    usually positively: then fewer differences are significant here than are in truth.
    """
    values = [cell.value for cell in cells if cell.value is not None]
    if len(values) < 2:
        return ["" for _ in cells]
    target = min(values) if better == "lower" else max(values)
    leader = next(cell for cell in cells if cell.value == target)
    return [_mark(cell, leader) for cell in cells]


def _mark(cell: Cell, leader: Cell) -> Mark:
    if cell.value is None or leader.value is None:
        return ""
    if cell.value == leader.value:
        return "best"
    if cell.standard_error is None or leader.standard_error is None:
        return ""
    spread = math.hypot(cell.standard_error, leader.standard_error)
    return "tie" if abs(cell.value - leader.value) <= SIGNIFICANCE * spread else ""
