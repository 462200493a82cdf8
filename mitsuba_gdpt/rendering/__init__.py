"""From a scene file or the name of a built-in scene to named buffers.

What the command line, the evaluation and the rendering of data sets share. Imports neither torch
nor Mitsuba before something is rendered.
"""

from __future__ import annotations

from mitsuba_gdpt.rendering.budget import BudgetedRender, Rendered
from mitsuba_gdpt.rendering.feature_pass import features
from mitsuba_gdpt.rendering.frame import make_integrator, render, with_buffers
from mitsuba_gdpt.rendering.limits import Budget
from mitsuba_gdpt.rendering.passes import Accumulation
from mitsuba_gdpt.rendering.sequence import RenderedSequence, SequenceRender, render_sequence
from mitsuba_gdpt.rendering.source import Source, open_source
from mitsuba_gdpt.rendering.variants import set_variant, supported_variants, works

__all__ = [
    "Accumulation",
    "Budget",
    "BudgetedRender",
    "Rendered",
    "RenderedSequence",
    "SequenceRender",
    "Source",
    "features",
    "make_integrator",
    "open_source",
    "render",
    "render_sequence",
    "set_variant",
    "supported_variants",
    "with_buffers",
    "works",
]
