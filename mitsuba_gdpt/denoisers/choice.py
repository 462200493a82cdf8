"""Which method is used where none is named."""

from __future__ import annotations

from typing import Any

from mitsuba_gdpt.channels import MOTION, Layout
from mitsuba_gdpt.denoisers.registry import Method, find

#: What ``denoise(buffers)`` uses: the first of these that can run here on these buffers.
PREFERRED_METHODS = ("ngpt-fusion", "oidn", "poisson-l1")


def default_method(layout: Layout | None = None) -> Method:
    """Return the method that ``denoise()`` uses where none is named.

    Args:
        layout: What the buffers are; without it, as if they held everything.
    """
    *preferred, last = map(find, PREFERRED_METHODS)
    for method in preferred:
        if method.available and (layout is None or all(name in layout for name in method.needs)):
            return method
    return last


def default_sequence_method(layout: Layout) -> tuple[Method, dict[str, Any]]:
    """Return the method, and options, that streams use where none is named.

    Args:
        layout: What the buffers of the first frame are.
    """
    single, temporal = default_method(layout), find("temporal")
    if all(name in layout for name in (*temporal.needs, MOTION)):
        return temporal, {"using": single.name}
    return single, {}
