"""A pytest plugin that writes what happens as it happens: one JSON object per line.

So nothing is lost when a process dies or hangs in a test. The file is named by the environment
variable ``OUTCOMES``; load it with ``-p outcomes`` and this folder in ``PYTHONPATH``.
"""

from __future__ import annotations

import json
import os
from typing import Any


def _write(**values: Any) -> None:
    with open(os.environ["OUTCOMES"], "a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def pytest_runtest_logstart(nodeid: str) -> None:
    _write(event="start", test=nodeid)


def pytest_runtest_logreport(report: Any) -> None:
    if report.when != "call" and report.passed:
        return  # setting up and tearing down are only news where they fail
    text = ""
    if report.skipped and isinstance(report.longrepr, tuple):
        text = report.longrepr[2].removeprefix("Skipped: ")
    elif report.failed:
        text = report.longreprtext[-4000:]
    _write(
        event="end",
        test=report.nodeid,
        outcome=report.outcome,
        seconds=round(report.duration, 3),
        text=text,
    )
