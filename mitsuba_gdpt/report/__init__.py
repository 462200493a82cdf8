"""Pictures and pages that show results to people."""

from __future__ import annotations

from mitsuba_gdpt.report.sheet import contact_sheet

__all__ = ["contact_sheet"]
