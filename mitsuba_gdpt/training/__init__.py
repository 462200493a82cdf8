"""Training of reconstruction networks on crop sets, and of recurrent ones on frame sets.

:func:`run.train` does it all; the parts are losses, augmentation, guides (images of other methods),
batches that are a function of the step, the Lightning module, and the run folder. Losses, windows
and the module of recurrent methods are in modules of their own.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mitsuba_gdpt.training.config import TrainingConfig, load_config
    from mitsuba_gdpt.training.run import train

__all__ = ["TrainingConfig", "load_config", "train"]

#: Loaded when first asked for: the configuration needs neither torch nor Lightning.
_HOMES = {"TrainingConfig": "config", "load_config": "config", "train": "run"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
