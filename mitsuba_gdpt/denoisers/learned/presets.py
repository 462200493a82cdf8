"""All neural methods before they are trained: name to configuration."""

from __future__ import annotations

from mitsuba_gdpt.denoisers.learned import methods, rdae
from mitsuba_gdpt.denoisers.learned.methods import Preset

__all__ = ["PRESETS", "Preset"]

PRESETS: dict[str, Preset] = {**methods.PRESETS, **rdae.PRESETS}
