"""Lightning, or an error that says how to get it."""

from __future__ import annotations

from typing import Any

from mitsuba_gdpt import packages

packages.check("tensorboard", "train")  # the logger imports it only when it writes
pl: Any = packages.load("lightning.pytorch", "train")
TensorBoardLogger: Any = packages.load("lightning.pytorch.loggers", "train").TensorBoardLogger
TorchCheckpointIO: Any = packages.load("lightning.pytorch.plugins.io", "train").TorchCheckpointIO
