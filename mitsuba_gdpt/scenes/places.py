"""Where scenes come from, as catalogues write it: ``builtin:NAME`` or a path."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

#: The catalogue of the scenes that are made by code.
BUILTIN = "builtin"
#: Environment variable with the folder that the sources of catalogues are relative to.
ROOT_VARIABLE = "MITSUBA_GDPT_SCENES"
#: File that a folder which is given as a scene has to hold.
_FILE = "scene.xml"
_SHOWN = 3  # missing files that are named


def builtin_name(source: str) -> str | None:
    """Return the name of a built-in scene; None for what is a path."""
    catalogue, colon, name = source.rpartition(":")
    return name if colon and catalogue == BUILTIN else None


def scene_file(text: str, folder: Path | None = None) -> Path:
    """Return the XML file of a path.

    Args:
        text: Path of the file, or of a folder with a ``scene.xml``.
        folder: What paths are relative to; by default the current folder.
    """
    path = Path(text) if folder is None else folder / text
    return path / _FILE if path.is_dir() else path


def missing_files(files: Iterable[Path]) -> str:
    """Say in one line which scene files are missing, and what to do."""
    paths = [str(path) for path in dict.fromkeys(files)]
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return (
        f"missing scene files: {', '.join(paths[:_SHOWN])}{more}. Scenes of catalogues do not come "
        f"with the package: set {ROOT_VARIABLE} to the folder that has them"
    )
