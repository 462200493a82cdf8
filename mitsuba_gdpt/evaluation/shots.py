"""What is looked at: the views of scenes, fly-throughs of catalogues, cameras at rest in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mitsuba_gdpt.data.frame_plan import catalogue_sequence
from mitsuba_gdpt.errors import ConfigError, GDPTError
from mitsuba_gdpt.evaluation.settings import Settings
from mitsuba_gdpt.rendering.fly_through import find_scenes
from mitsuba_gdpt.scenes import Camera, SceneRef
from mitsuba_gdpt.scenes.catalogue import CatalogueScene


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
