"""Training and test data: sampling plans, rendering, storage, torch data sets.

Crop sets: a :class:`CropPlan` says what to render, :func:`render_crops` does it, and
:class:`CropSet` or :class:`CropDataset` reads the result. :class:`OnlineCrops` renders crops while
a network is trained, without storing them.

Frame sets: a :class:`FramePlan` says which sequences to render, :func:`render_frames` does it, and
:class:`FrameSet` reads the result, and sets of other tools. :class:`DarcFile` reads the data sets
of the original NGPT, and :func:`import_darc` makes crop sets of them; :func:`export_darc`
makes them of crop sets. :func:`import_oidn` makes crop sets of data for OIDN's training toolkit.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mitsuba_gdpt.data.darc import DarcFile
    from mitsuba_gdpt.data.darc_export import export_darc
    from mitsuba_gdpt.data.darc_import import import_darc
    from mitsuba_gdpt.data.dataset import Crop, CropDataset, CropSet
    from mitsuba_gdpt.data.frame_plan import FramePlan
    from mitsuba_gdpt.data.frame_set import FrameSet
    from mitsuba_gdpt.data.frames import render_frames
    from mitsuba_gdpt.data.oidn_import import import_oidn
    from mitsuba_gdpt.data.online import OnlineCrops
    from mitsuba_gdpt.data.plan import CropPlan, CropSpec
    from mitsuba_gdpt.data.units import render_crops

__all__ = [
    "Crop",
    "CropDataset",
    "CropPlan",
    "CropSet",
    "CropSpec",
    "DarcFile",
    "FramePlan",
    "FrameSet",
    "OnlineCrops",
    "export_darc",
    "import_darc",
    "import_oidn",
    "render_crops",
    "render_frames",
]

#: Loaded when they are first asked for: rendering needs no torch data sets, and reading no Mitsuba.
_HOMES = {
    "Crop": "dataset",
    "CropDataset": "dataset",
    "CropPlan": "plan",
    "CropSet": "dataset",
    "CropSpec": "plan",
    "DarcFile": "darc",
    "FramePlan": "frame_plan",
    "FrameSet": "frame_set",
    "OnlineCrops": "online",
    "export_darc": "darc_export",
    "import_darc": "darc_import",
    "import_oidn": "oidn_import",
    "render_crops": "units",
    "render_frames": "frames",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
