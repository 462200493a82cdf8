"""All neural methods before they are trained: name to configuration."""

from __future__ import annotations

from mitsuba_gdpt.denoisers import ngpt, rdae
from mitsuba_gdpt.denoisers.ngpt import Preset

__all__ = ["PRESETS", "Preset"]

PRESETS: dict[str, Preset] = {**ngpt.PRESETS, **rdae.PRESETS}
