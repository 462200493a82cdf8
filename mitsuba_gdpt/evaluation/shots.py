"""What is looked at: the views of scenes, fly-throughs of catalogues, cameras at rest in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mitsuba_gdpt.data.frames import catalogue_sequence
from mitsuba_gdpt.errors import ConfigError, GDPTError
from mitsuba_gdpt.evaluation.settings import Settings
from mitsuba_gdpt.scenes import Camera, SceneRef
from mitsuba_gdpt.scenes.catalogue import Catalogue, CatalogueScene, shipped


@dataclass(frozen=True)
class Shot:
    """One still image or sequence.

    Attributes:
        scene: Name of the scene.
        source: Where it comes from.
        parameters: Values for the ``$name`` parameters of an XML file, besides its catalogue's.
        cameras: One per frame; none for a still image, the view of the scene's own camera.
        static: Whether the camera of a sequence is at rest.
        exposure: Factor on the radiance that suits pictures.
        middle: The camera in the middle of the span. Equal time is measured on it, also for
            the sequence at rest, so that both get the same samples.
    """

    scene: str
    source: SceneRef
    parameters: Mapping[str, str] = field(default_factory=dict)
    cameras: tuple[Camera, ...] = ()
    static: bool = False
    exposure: float = 1.0
    middle: Camera | None = None

    @property
    def is_still(self) -> bool:
        """Whether it is a single view of the scene's own camera."""
        return not self.cameras

    @property
    def name(self) -> str:
        """Name in tables and files."""
        if self.is_still:
            return self.scene
        return f"{self.scene}-{'static' if self.static else 'fly'}"


def find_shots(settings: Settings) -> list[Shot]:
    """Return what an evaluation looks at: scene by scene, the fly-through first.

    Raises:
        FormatError: A catalogue is missing or no TOML.
        ConfigError: A scene is unknown or has no fly-through, or two have the same name.
    """
    if settings.moving:
        scenes = [scene for word in settings.scenes for scene in find_scenes(word)]
        shots = [
            _sequence(scene, settings, static=static)
            for scene in scenes
            for static in ((False, True) if settings.static else (False,))
        ]
    else:
        shots = [_still(SceneRef.parse(word)) for word in settings.scenes]
    names = [shot.name for shot in shots]
    if twice := sorted({shot.scene for shot in shots if names.count(shot.name) > 1}):
        raise ConfigError(f"two scenes are named {', '.join(twice)}; evaluate them one by one")
    return shots


def _still(source: SceneRef) -> Shot:
    try:
        entry = None if source.is_builtin else source.entry()
    except GDPTError:  # it will not load either, which is a failure of its cells alone
        entry = None
    return Shot(source.name, source, exposure=1.0 if entry is None else entry.exposure)


def _sequence(scene: CatalogueScene, settings: Settings, *, static: bool) -> Shot:
    found = catalogue_sequence(
        scene, settings.frames, at_rest=static, split="test", span=settings.span
    )
    return Shot(
        scene.name,
        SceneRef.parse(found.source),
        dict(found.parameters),
        found.cameras,
        static,
        scene.exposure,
        scene.fly(sum(settings.span) / 2),
    )


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
