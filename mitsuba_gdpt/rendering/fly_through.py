"""Which scenes of catalogues have a fly-through."""

from __future__ import annotations

from pathlib import Path

from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.scenes import SceneRef
from mitsuba_gdpt.scenes.catalogue import Catalogue, CatalogueScene, shipped


def find_scenes(word: str) -> list[CatalogueScene]:
    """Return the scenes that a word means.

    Args:
        word: A catalogue of the package (``dev``) or a TOML file: all its scenes that have a
            fly-through. ``CATALOGUE:NAME`` (``builtin:hall``, ``dev:bathroom``): one scene. A scene
            file or its folder: what a catalogue of the package knows of it.

    Raises:
        FormatError: There is no such catalogue, or it is no TOML.
        ConfigError: There is no such scene, or none with a fly-through.
    """
    known = shipped()
    if word in known or word.endswith(".toml"):
        found = [scene for scene in _open(word).scenes if scene.fly_through]
        if not found:
            raise ConfigError(f"no scene of the catalogue {word} has a fly-through")
        return found
    reference = SceneRef.parse(word)
    if (entry := reference.entry()) is not None:
        return [entry]
    file = Path(reference.target).resolve()
    for name in known:
        for scene in _open(name).scenes:
            if Path(scene.source).resolve() == file:
                return [scene]
    raise ConfigError(
        f"no fly-through is known for {word!r}; expected a catalogue ({', '.join(known)}, or a "
        f"TOML file), a scene of one (builtin:NAME), or a scene file that one of these names. "
        f"To make one: mitsuba-gdpt catalogue propose"
    )


def find_scene(word: str) -> CatalogueScene:
    """Return the one scene that a word means; see :func:`find_scenes`.

    Raises:
        FormatError: There is no such catalogue, or it is no TOML.
        ConfigError: There is no such scene, none with a fly-through, or there are several.
    """
    first, *others = find_scenes(word)
    if others:
        names = ", ".join(entry.name for entry in (first, *others))
        raise ConfigError(f"{word} has several scenes ({names}); name one, as {word}:{first.name}")
    return first


def _open(name: str) -> Catalogue:
    return Catalogue.open(name, check_files=False)  # only the scenes that are looked at count
