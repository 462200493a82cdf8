"""Imports the modules that register scenes; their order is the order of ``names()``."""

from __future__ import annotations

from mitsuba_gdpt.scenes import interiors, outdoors, still_lifes  # noqa: F401
