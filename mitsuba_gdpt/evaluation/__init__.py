"""Comparison of reconstruction methods at equal, measured render time.

    settings = Settings(scenes=("builtin:corner-gallery",), methods=(Call("poisson-l1"),))
    records = evaluate(settings, Path("results"))
    print(Results(records).value("corner-gallery", "poisson-l1", 8, "relmse"))

The budget is the wall time of ``gdpt`` with its features at a number of samples. Methods that read
gradients get that render; all others get as many path-traced samples, with features, as take the
same time in the same run. With ``frames`` above 1 fly-throughs are compared, else single views.
:func:`evaluate_total_time` compares pairs of integrator and method on budgets of render plus
reconstruction. A Mitsuba variant has to be set.
"""

from __future__ import annotations

from mitsuba_gdpt.evaluation.frontier import write_total_time
from mitsuba_gdpt.evaluation.page import write_results
from mitsuba_gdpt.evaluation.runner import evaluate
from mitsuba_gdpt.evaluation.settings import IntegratorSpec, Settings
from mitsuba_gdpt.evaluation.store import Record
from mitsuba_gdpt.evaluation.summary import Results
from mitsuba_gdpt.evaluation.total_time import TotalTime, evaluate_total_time

__all__ = [
    "IntegratorSpec",
    "Record",
    "Results",
    "Settings",
    "TotalTime",
    "evaluate",
    "evaluate_total_time",
    "write_results",
    "write_total_time",
]
