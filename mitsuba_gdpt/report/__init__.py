"""Pictures and pages that show results to people.

:func:`write_report` writes a page of tables, plots and images that can be compared pixel by pixel,
:func:`write_gallery` a page of pictures, :func:`contact_sheet` a picture of pictures,
:func:`write_animation` a picture that moves. All take plain data and know nothing about where it
comes from. See docs/how-to/report.md.
"""

from __future__ import annotations

from mitsuba_gdpt.report.animation import check_animation, write_animation
from mitsuba_gdpt.report.gallery import write_gallery
from mitsuba_gdpt.report.markdown import to_markdown
from mitsuba_gdpt.report.model import (
    Cell,
    Curve,
    Failure,
    Gallery,
    GalleryItem,
    Header,
    Plot,
    Report,
    Table,
    View,
    ViewImage,
    view_link,
)
from mitsuba_gdpt.report.page import write_report
from mitsuba_gdpt.report.sheet import contact_sheet

__all__ = [
    "Cell",
    "Curve",
    "Failure",
    "Gallery",
    "GalleryItem",
    "Header",
    "Plot",
    "Report",
    "Table",
    "View",
    "ViewImage",
    "check_animation",
    "contact_sheet",
    "to_markdown",
    "view_link",
    "write_animation",
    "write_gallery",
    "write_report",
]
