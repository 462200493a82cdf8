"""Building blocks of variations that come from files: meshes and skies."""

from __future__ import annotations

import os
from pathlib import Path

from mitsuba_gdpt.errors import FormatError


def find_blocks(folder: str | os.PathLike[str]) -> tuple[list[Path], list[Path]]:
    """Return the files ``meshes/*.ply`` and ``hdri/*.exr`` (equirectangular) of a folder.

    Raises:
        FormatError: There is none of both kinds.
    """
    root = Path(folder)
    meshes, skies = sorted(root.glob("meshes/*.ply")), sorted(root.glob("hdri/*.exr"))
    if not (meshes or skies):
        raise FormatError(
            f"the folder of blocks {root} has no meshes/*.ply and no hdri/*.exr; give one that "
            "has, or leave it out"
        )
    return meshes, skies
