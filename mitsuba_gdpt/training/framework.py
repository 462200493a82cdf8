"""Lightning, or an error that says how to get it."""

from __future__ import annotations

from mitsuba_gdpt.errors import MissingDependencyError

try:
    import lightning.pytorch as pl
    import tensorboard  # noqa: F401  # the logger imports it only when it writes
    from lightning.pytorch.loggers import TensorBoardLogger
    from lightning.pytorch.plugins.io import TorchCheckpointIO
except ImportError as error:
    raise MissingDependencyError(
        f"training needs Lightning and TensorBoard ({error}); "
        f"run: pip install 'mitsuba-gdpt[train]'"
    ) from error

__all__ = ["TensorBoardLogger", "TorchCheckpointIO", "pl"]
