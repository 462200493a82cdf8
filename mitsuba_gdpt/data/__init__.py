"""Training and test data: sampling plans, rendering, storage, torch data sets.

Crop sets: a :class:`CropPlan` says what to render, :func:`render_crops` does it, and
:class:`CropSet` or :class:`CropDataset` reads the result. :class:`OnlineCrops` renders crops while
a network is trained, without storing them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mitsuba_gdpt.data.dataset import Crop, CropDataset, CropSet
    from mitsuba_gdpt.data.online import OnlineCrops
    from mitsuba_gdpt.data.plan import CropPlan, CropSpec
    from mitsuba_gdpt.data.units import render_crops

__all__ = ["Crop", "CropDataset", "CropPlan", "CropSet", "CropSpec", "OnlineCrops", "render_crops"]

#: Loaded when they are first asked for: rendering needs no torch data sets, and reading no Mitsuba.
_HOMES = {
    "Crop": "dataset",
    "CropDataset": "dataset",
    "CropPlan": "plan",
    "CropSet": "dataset",
    "CropSpec": "plan",
    "OnlineCrops": "online",
    "render_crops": "units",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
