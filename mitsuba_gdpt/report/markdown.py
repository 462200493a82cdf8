"""Tables as Markdown, for issues and documents."""

from __future__ import annotations

from mitsuba_gdpt.report.model import Cell, Table
from mitsuba_gdpt.report.ranking import Mark, marks
from mitsuba_gdpt.report.style import number


def to_markdown(table: Table) -> str:
    """Return a table as Markdown: the best values bold, those not significantly worse italic.

    Title and caption are left to the caller; links are dropped.
    """
    header = [table.corner, *(head.label for head in table.columns)]
    lines = [header, ["---"] * len(header)]
    for head, row, row_marks in zip(table.rows, table.cells, marks(table), strict=True):
        lines.append([head.label, *map(_cell, row, row_marks)])
    return "\n".join("| " + " | ".join(_escape(text) for text in line) + " |" for line in lines)


def _cell(cell: Cell, mark: Mark) -> str:
    if cell.error is not None:
        return "failed"
    if cell.value is None:
        return cell.text or ""
    text = number(cell.value, cell.standard_error)
    if cell.standard_error is not None:
        text += f" ± {cell.standard_error:.2g}"
    return {"best": f"**{text}**", "tie": f"_{text}_", "": text}[mark]


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
