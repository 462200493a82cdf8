"""Which sequences are looked at: fly-throughs of catalogues, and cameras at rest in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mitsuba_gdpt.data.frames import CameraSequence, catalogue_sequence
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.evaluation.settings import SequenceSettings
from mitsuba_gdpt.scenes import Camera, SceneRef
from mitsuba_gdpt.scenes.catalogue import Catalogue, CatalogueScene, shipped


@dataclass(frozen=True)
class Shot:
    """One sequence.

    Attributes:
        scene: Name of the scene in its catalogue.
        sequence: Scene file and cameras.
        static: Whether the camera is at rest.
        exposure: Factor on the radiance that suits pictures.
        middle: The camera in the middle of the span. Equal time is measured on it, also for
            the sequence at rest, so that both get the same samples.
    """

    scene: str
    sequence: CameraSequence
    static: bool
    exposure: float
    middle: Camera

    @property
    def name(self) -> str:
        """Name of the sequence in tables and files."""
        return f"{self.scene}-{'static' if self.static else 'fly'}"


def find_shots(settings: SequenceSettings) -> list[Shot]:
    """Return the sequences of an evaluation: scene by scene, the fly-through first.

    Raises:
        FormatError: A catalogue is missing or no TOML.
        ConfigError: A scene is unknown or has no fly-through, or two have the same name.
    """
    scenes = [scene for word in settings.scenes for scene in find_scenes(word)]
    names = [scene.name for scene in scenes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"two scenes are named {', '.join(twice)}; evaluate them one by one")
    return [
        Shot(
            scene.name,
            catalogue_sequence(
                scene, settings.frames, at_rest=static, split="test", span=settings.span
            ),
            static,
            scene.exposure,
            scene.fly(sum(settings.span) / 2),
        )
        for scene in scenes
        for static in ((False, True) if settings.static else (False,))
    ]


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


def _open(name: str) -> Catalogue:
    return Catalogue.open(name, check_files=False)  # only the scenes that are looked at count
