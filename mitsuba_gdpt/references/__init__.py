"""References in two independent halves: stored, rendered once and kept, or given.

Evaluations and batches have the same ones. Those that are stored lie in the folder that
``MITSUBA_GDPT_REFERENCES`` names, or beside the scenes.
"""

from __future__ import annotations

from mitsuba_gdpt.references.halves import (
    BRIGHTEST,
    DEFAULT_WIDTH,
    FILE_NAME,
    FOLDER_VARIABLE,
    STORED_DEPTH,
    Halves,
    describe,
    identity,
    images,
    is_same,
    load,
    places,
    read,
    stored,
    stored_path,
)
from mitsuba_gdpt.references.renders import from_gradients, render

__all__ = [
    "BRIGHTEST",
    "DEFAULT_WIDTH",
    "FILE_NAME",
    "FOLDER_VARIABLE",
    "STORED_DEPTH",
    "Halves",
    "describe",
    "from_gradients",
    "identity",
    "images",
    "is_same",
    "load",
    "places",
    "read",
    "render",
    "stored",
    "stored_path",
]
