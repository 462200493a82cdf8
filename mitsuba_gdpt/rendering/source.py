"""Scenes from anywhere: Mitsuba XML files and built-in ones, in the size that is wanted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt import checks
from mitsuba_gdpt.errors import ConfigError, FormatError, plain
from mitsuba_gdpt.rendering.integrators import all_have_films, settings_of_scene
from mitsuba_gdpt.scenes.contents import Contents
from mitsuba_gdpt.scenes.loading import loading_threads
from mitsuba_gdpt.scenes.reference import SceneRef

if TYPE_CHECKING:
    import mitsuba as mi

_DEFAULT_FILM_SIZE = {"width": 768, "height": 576}  # Mitsuba's


@dataclass(frozen=True)
class Source:
    """A loaded scene.

    Attributes:
        name: Short name, for messages.
        scene: The scene.
        integrator: Settings for ``gdpt`` that the scene's own integrator asks for.
        exposure: Factor on the radiance that suits an 8-bit picture.
        contents: What it is made of, if it comes from files.
    """

    name: str
    scene: mi.Scene
    integrator: dict[str, Any] = field(default_factory=dict)
    exposure: float = 1.0
    contents: Contents = field(default_factory=Contents)

    @classmethod
    def of(cls, scene: mi.Scene | Source) -> Source:
        """Return a scene that was loaded by hand as a source.

        Raises:
            ConfigError: It is none.
        """
        if isinstance(scene, Source):
            return scene
        if not hasattr(scene, "sensors"):  # whatever the variant
            raise ConfigError(
                f"got a scene of type {type(scene).__name__}; expected a Mitsuba scene, as "
                "mi.load_file() returns it"
            )
        return cls("scene", scene)

    def view(self, sensor: int | mi.Sensor) -> mi.Sensor:
        """Return a sensor of the scene by its index, or another one as it is.

        Raises:
            ConfigError: The scene has none of that index, or it is no sensor.
        """
        if hasattr(sensor, "__index__"):  # NumPy's whole numbers too
            return self.sensor(sensor.__index__())
        if not hasattr(sensor, "film"):
            raise ConfigError(
                f"the sensor is {checks.show(sensor)}; expected the index of a sensor of the "
                "scene, or a Mitsuba sensor"
            )
        return sensor

    def size(self, sensor: int | mi.Sensor) -> tuple[int, int]:
        """Return width and height of its renders in pixels: those of the film's crop window.

        Raises:
            ConfigError: As :meth:`view`.
        """
        width, height = self.view(sensor).film().crop_size()
        return int(width), int(height)

    def sensor(self, index: int) -> mi.Sensor:
        """Return a sensor of the scene.

        Raises:
            ConfigError: The scene has none, or not so many.
        """
        sensors = self.scene.sensors()
        if not sensors:
            raise ConfigError(f"the scene {self.name!r} has no sensor, so there is nothing to see")
        if not 0 <= index < len(sensors):
            raise ConfigError(
                f"the scene {self.name!r} has {len(sensors)} sensor(s), so there is no sensor "
                f"{index}; count from 0"
            )
        return sensors[index]


def open_source(
    source: str | SceneRef,
    *,
    width: int | None = None,
    height: int | None = None,
    parameters: Mapping[str, str] | None = None,
) -> Source:
    """Load a scene; a Mitsuba variant has to be set.

    Args:
        source: The scene, or what :meth:`SceneRef.parse` reads: ``builtin:NAME``,
            ``CATALOGUE:NAME`` or a path.
        width: Image width in pixels. With one of width and height the other follows from the
            scene's own proportions; without both its own size is taken.
        height: Image height in pixels.
        parameters: Values for the ``$name`` parameters of an XML file; ``blocks`` for a variation
            of a built-in scene.

    Raises:
        FormatError: The file is missing or Mitsuba cannot load it.
        ConfigError: The built-in scene does not exist, or a parameter is out of place.
        MissingScenesError: The scene of a catalogue is not on this machine.
    """
    reference = source if isinstance(source, SceneRef) else SceneRef.parse(source)
    reference.check()
    path = reference.file
    contents = reference.contents(parameters)  # first: what is edited now has been edited since
    if path is None:
        return _open_builtin(reference.target, width, height, parameters or {}, contents)
    entry = reference.entry()
    known = {} if entry is None else entry.parameters
    scene, settings = _open_file(path, width, height, {**known, **(parameters or {})})
    exposure = 1.0 if entry is None else entry.exposure
    return Source(reference.name, scene, settings, exposure, contents)


def _open_builtin(
    name: str,
    width: int | None,
    height: int | None,
    parameters: Mapping[str, str],
    contents: Contents,
) -> Source:
    import mitsuba as mi

    from mitsuba_gdpt import scenes

    scenes.check_parameters(name, parameters)
    description = scenes.as_dict(
        name, width=width, height=height, blocks=parameters.get(scenes.BLOCKS)
    )
    with loading_threads():
        scene = mi.load_dict(description, optimize=False)  # as in _open_file()
    return Source(
        name=name,
        scene=scene,
        integrator={"max_depth": description["integrator"]["max_depth"]},
        exposure=scenes.describe(name).exposure,
        contents=contents,
    )


#: What scenes of Mitsuba 0.6 and of its branch with the original ``gpt`` have and Mitsuba 3 does
#: not: the sign in an error message, and what to do.
_OLD_WORDS = {
    "element: <animation>": ". Mitsuba 3 moves nothing while the shutter is open: give the object "
    "or camera one <transform>, and render its way as a fly-through of a catalogue",
    'Plugin "multifilm" not found': ". It held the images of the original gpt; here every render "
    'has them as channels: write <film type="hdrfilm">',
    'Plugin "gpt" not found': '. That is the original; here it is <integrator type="gdpt">',
}


def _open_file(
    path: Path, width: int | None, height: int | None, parameters: Mapping[str, str]
) -> tuple[mi.Scene, dict[str, Any]]:
    """Return a scene and what it asks of ``gdpt``."""
    import mitsuba as mi

    # The steps of mi.load_file(), with a look at the parsed scene in between: the size of the film
    # has to be known before a sensor is made, and not every scene has parameters for it.
    config = mi.parser.ParserConfig(mi.variant())
    # Merging orders meshes by their address in memory, and with them the emitters: the same seed
    # would give another image each time the scene is loaded.
    config.merge_meshes = False
    try:
        state = mi.parser.parse_file(config, str(path), **parameters)
        # Both after Mitsuba has brought the files of older versions to its own names.
        mi.parser.transform_all(config, state)
        for node in state.nodes:
            if node.type == mi.ObjectType.Film:
                _resize(node.props, width, height)
        if (width, height) != (None, None) and not all_have_films(state):
            raise ConfigError(
                f"a sensor of {path} has no film, so it has Mitsuba's size, which --width and "
                '--height cannot change; give it <film type="hdrfilm"/>'
            )
        settings, remarks = settings_of_scene(state)  # now: making the scene empties the state
        with _files_beside(path), loading_threads():
            scene = mi.parser.instantiate(config, state)
    except RuntimeError as error:
        reason = plain(error)
        advice = next((words for sign, words in _OLD_WORDS.items() if sign in reason), "")
        raise FormatError(f"cannot load the scene {path}: {reason}{advice}") from error
    scene = scene[0] if isinstance(scene, list) else scene
    if not isinstance(scene, mi.Scene):
        raise FormatError(f"{path} describes a {type(scene).__name__}, not a scene")
    for remark in remarks:
        warnings.warn(f"{path}: {remark}", stacklevel=3)
    return scene, settings


@contextmanager
def _files_beside(scene: Path) -> Iterator[None]:
    """Let relative file names of a scene mean files in its folder, as ``mi.load_file`` does."""
    import mitsuba as mi

    before = mi.file_resolver()
    resolver = mi.FileResolver(before)
    resolver.prepend(str(scene.parent.resolve()))
    mi.set_file_resolver(resolver)
    try:
        yield
    finally:
        mi.set_file_resolver(before)


def _resize(film: mi.Properties, width: int | None, height: int | None) -> None:
    """Change the size in a film's properties, keeping its proportions where one side is given."""
    if width is None and height is None:
        return
    if crops := [key for key in film.keys() if key.startswith("crop_")]:  # noqa: SIM118
        raise ConfigError(
            f"the scene's film has a crop window ({', '.join(crops)}), which --width and --height "
            "would move; leave them out or edit the scene"
        )
    own_width, own_height = (int(film.get(key, d)) for key, d in _DEFAULT_FILM_SIZE.items())
    if width is None:
        assert height is not None
        width = max(1, round(own_width * height / own_height))
    if height is None:
        height = max(1, round(own_height * width / own_width))
    film["width"], film["height"] = width, height
