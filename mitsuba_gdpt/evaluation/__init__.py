"""Comparison of reconstruction methods at equal, measured render time.

    settings = Settings(scenes=("builtin:corner-gallery",), methods=(MethodSpec("poisson-l1"),))
    records = evaluate(settings, Path("results"))
    print(Results(records).value("corner-gallery", "poisson-l1", 8, "relmse"))

The budget is the wall time of ``gdpt`` with its features at a number of samples. Methods that read
gradients get that render; all others get as many path-traced samples, with features, as take the
same time in the same run. A Mitsuba variant has to be set. With ``frames`` above 1 fly-throughs are
compared instead of single views.
"""

from __future__ import annotations

from mitsuba_gdpt.evaluation.page import write_results
from mitsuba_gdpt.evaluation.runner import evaluate
from mitsuba_gdpt.evaluation.settings import MethodSpec, Settings
from mitsuba_gdpt.evaluation.store import Record
from mitsuba_gdpt.evaluation.summary import Results

__all__ = [
    "MethodSpec",
    "Record",
    "Results",
    "Settings",
    "evaluate",
    "write_results",
]
