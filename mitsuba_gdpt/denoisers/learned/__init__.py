"""Methods whose networks are trained with this package, and their weights."""

from __future__ import annotations

from mitsuba_gdpt.denoisers.learned import methods as methods  # registers them
