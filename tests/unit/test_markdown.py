"""Tables as Markdown."""

from __future__ import annotations

from mitsuba_gdpt.report import Cell, Header, Table, to_markdown


def test_best_values_ties_failures_and_bars() -> None:
    table = Table(
        title="t",
        columns=[Header("a|b", better="lower"), Header("c")],
        rows=[Header("x"), Header("y"), Header("z")],
        cells=[
            [Cell(0.1, 0.01), Cell(3.0)],
            [Cell(0.11, 0.01), Cell(text="-")],
            [Cell(error="out of paint"), Cell(2.0)],
        ],
        corner="method",
    )
    assert to_markdown(table).splitlines() == [
        "| method | a\\|b | c |",
        "| --- | --- | --- |",
        "| x | **0.100 ± 0.01** | 3 |",
        "| y | _0.110 ± 0.01_ | - |",
        "| z | failed | 2 |",
    ]
