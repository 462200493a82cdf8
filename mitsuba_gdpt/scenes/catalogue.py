"""Scene catalogues: which scenes to render for data sets, from where, and who made them.

A catalogue is a TOML file (docs/how-to/catalogue.md) with, for each scene, boxes that are free of
geometry and points worth looking at. :meth:`CatalogueScene.sample_camera` turns random numbers
into a view as Kettunen et al. do for "Deep Convolutional Reconstruction for Gradient-Domain
Rendering" (TOG 38(4), 2019). Nothing here loads a scene: ``rendering.open_source`` takes what a
:class:`CatalogueScene` holds.
"""

from __future__ import annotations

import difflib
import functools
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt import toml
from mitsuba_gdpt.errors import ConfigError, FormatError
from mitsuba_gdpt.scenes import registry
from mitsuba_gdpt.scenes.blocks import find_blocks
from mitsuba_gdpt.scenes.flythrough import KeyFrame, fly, vector
from mitsuba_gdpt.scenes.places import ROOT_VARIABLE, builtin_name, missing_files, scene_file
from mitsuba_gdpt.scenes.registry import Camera, Vector

#: What a catalogue may be used for.
SPLITS = ("train", "dev", "test")
#: Length of the vector that :meth:`CatalogueScene.sample_camera` takes: position (3), look-at (2),
#: roll, field of view, aperture.
CAMERA_DIMENSIONS = 8

_APERTURE_SPREAD = 0.005  # standard deviation of the lens radius over the focus distance
_MAX_INVERTIBLE = 1.0 - 1e-9  # the normal distribution has no quantile for 1


@dataclass(frozen=True)
class CameraBox:
    """An axis-aligned box in world coordinates without geometry inside, where cameras may be."""

    min: Vector
    max: Vector

    def __post_init__(self) -> None:
        """Check that the box is not empty."""
        for axis, low, high in zip("xyz", self.min, self.max, strict=True):
            if not low < high:
                raise ConfigError(
                    f"a camera box needs min < max along every axis, got {low} and {high} for "
                    f"{axis}"
                )

    @property
    def volume(self) -> float:
        """Volume in cubic units of the scene."""
        return math.prod(high - low for low, high in zip(self.min, self.max, strict=True))


@dataclass(frozen=True)
class CatalogueScene:
    """A scene of a catalogue.

    Attributes:
        name: Identifier: small letters, digits, ``-`` and ``_``; fit for file names.
        source: Absolute path of a Mitsuba XML file, or ``builtin:NAME``; what
            ``rendering.open_source`` takes.
        title: Human-readable name.
        author: Whom to credit.
        licence: Short name of the licence.
        split: One of :data:`SPLITS`.
        parameters: Values for the ``$name`` parameters of the XML file, or of a variation of a
            built-in scene.
        max_depth: Path depth for data sets; -1 is unlimited.
        exposure: Factor on the radiance that suits a picture, as ``SceneInfo.exposure``.
        up: The world's vertical axis; fly-throughs and limited rolls refer to it.
        fov: Least and greatest field of view in degrees, along the wider image axis.
        max_roll: Greatest roll of a sampled camera against ``up``, in degrees; 180 is any.
        weight: Share of the crops, relative to the other scenes of the catalogue.
        boxes: Where sampled cameras may be.
        targets: What they look at; without any, they look in random directions.
        fly_through: Key frames of a camera path through free space.
    """

    name: str
    source: str
    title: str
    author: str
    licence: str
    split: str = "train"
    parameters: Mapping[str, str] = field(default_factory=dict)
    max_depth: int = 12
    exposure: float = 1.0
    up: Vector = (0.0, 1.0, 0.0)
    fov: tuple[float, float] = (35.0, 70.0)
    max_roll: float = 180.0
    weight: float = 1.0
    boxes: tuple[CameraBox, ...] = ()
    targets: tuple[Vector, ...] = ()
    fly_through: tuple[KeyFrame, ...] = ()

    def __post_init__(self) -> None:
        """Check what the types do not say."""
        problem = _problem(self)
        if problem:
            raise ConfigError(f"scene {self.name!r}: {problem}")

    @property
    def builtin(self) -> str | None:
        """Name of the built-in scene that it is, ``NAME@SEED`` for a variation; else None."""
        return builtin_name(self.source)

    @property
    def file(self) -> Path | None:
        """The XML file; None for a built-in scene."""
        return Path(self.source) if self.builtin is None else None

    def sample_camera(self, u: Sequence[float] | NDArray[np.floating[Any]]) -> Camera:
        """Turn a point of the unit cube into a view; the same point always gives the same view.

        The position is uniform in the boxes, a box being as likely as its share of their summed
        volume; the view goes to a uniformly chosen target, or in a uniform direction where there
        are none. The roll is uniform up to ``max_roll``: where that is 180, this is the
        distribution that an up vector uniform on the sphere gives. A camera that looks at a target
        focuses on it with a lens radius of the absolute value of N(0, (0.005 focus)²); others are
        pinholes.

        All maps are monotonous per dimension and spend each dimension on one choice (the first one
        on box and x, in this order), so that stratified points give stratified cameras.

        Args:
            u: :data:`CAMERA_DIMENSIONS` numbers in [0, 1): position (3), look-at (2; only the first
                counts where there are targets), roll, field of view, aperture.

        Raises:
            ConfigError: The scene has no boxes, or ``u`` has a wrong length or range.
        """
        values = np.asarray(u, dtype=np.float64)
        if values.shape != (CAMERA_DIMENSIONS,):
            raise ConfigError(
                f"sample_camera takes {CAMERA_DIMENSIONS} numbers, got shape {values.shape}"
            )
        if not ((values >= 0) & (values < 1)).all():
            raise ConfigError(f"sample_camera takes numbers in [0, 1), got {values.tolist()}")
        if not self.boxes:
            raise ConfigError(
                f"scene {self.name!r} has no camera boxes, so no view of it can be sampled "
                f"(its split is {self.split!r}); add boxes to the catalogue or leave the scene out"
            )
        origin = self._sample_position(values[:3])
        if self.targets:
            target = np.array(self.targets[int(values[3] * len(self.targets))])
            focus = float(np.linalg.norm(target - origin))
            quantile = NormalDist().inv_cdf(min((1.0 + values[7]) / 2.0, _MAX_INVERTIBLE))
            aperture = _APERTURE_SPREAD * focus * quantile
            direction = (target - origin) / focus
        else:
            z = 1.0 - 2.0 * values[4]
            azimuth, radius = 2.0 * math.pi * values[3], math.sqrt(max(0.0, 1.0 - z * z))
            direction = np.array([radius * math.cos(azimuth), radius * math.sin(azimuth), z])
            target, focus, aperture = origin + direction, None, 0.0
        roll = math.radians(self.max_roll) * (2.0 * values[5] - 1.0)
        low, high = self.fov
        return Camera(
            origin=vector(origin),
            target=vector(target),
            up=vector(_rolled(direction, np.array(self.up), roll)),
            fov=float(low + (high - low) * values[6]),
            aperture=float(aperture),
            focus=focus,
        )

    def fly(self, time: float) -> Camera:
        """Return the camera of the fly-through at a time in 0..1; see :func:`flythrough.fly`."""
        return fly(self.fly_through, time)

    def _sample_position(self, u: NDArray[np.float64]) -> NDArray[np.float64]:
        edges = np.cumsum([box.volume for box in self.boxes])
        edges = np.concatenate([[0.0], edges / edges[-1]])
        index = min(int(np.searchsorted(edges, u[0], side="right")) - 1, len(self.boxes) - 1)
        box = self.boxes[index]
        within = np.array([(u[0] - edges[index]) / (edges[index + 1] - edges[index]), u[1], u[2]])
        low, high = np.array(box.min), np.array(box.max)
        return np.asarray(low + (high - low) * within)


@dataclass(frozen=True)
class Catalogue:
    """The scenes of a catalogue, in the order of the file.

    Attributes:
        name: Where it comes from, for messages.
        split: What the scenes may be used for, one of :data:`SPLITS`.
        scenes: By name.
    """

    name: str
    split: str
    scenes: tuple[CatalogueScene, ...]

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        root: str | os.PathLike[str] | None = None,
        check_files: bool = True,
    ) -> Catalogue:
        """Read a catalogue.

        Args:
            path: TOML file, or the name of a catalogue of the package (see :func:`shipped`).
            root: Folder that sources are relative to. By default that in the environment variable
                ``MITSUBA_GDPT_SCENES``, else the key ``root`` of the file, itself relative to the
                file, else the folder of the file.
            check_files: Whether every scene file has to be there.

        Raises:
            FormatError: The file is missing or no TOML, or scene files are missing.
            ConfigError: A key is unknown, missing or has a value that makes no sense.
        """
        file = _find(path)
        table = toml.Table(toml.read(file), str(file))
        split = table.take("split", _split)
        own_root = table.take("root", toml.text, ".")
        folder = Path(root or os.environ.get(ROOT_VARIABLE) or file.parent / own_root).resolve()
        entries = table.take("scenes", toml.table)
        table.finish()
        if not entries:
            raise ConfigError(f"{file}: expected at least one table [scenes.NAME]")
        read = tuple(
            _read_scene(file, name, entry, split, folder) for name, entry in entries.items()
        )
        files = [entry.file for entry in read]
        missing = [f for f in files if f is not None and not f.is_file()]
        if check_files and missing:
            raise FormatError(
                f"{file}: {missing_files(missing)}, or give it with the option root; they are "
                f"looked for in {folder}"
            )
        return cls(name=str(path), split=split, scenes=read)

    @classmethod
    def builtin(cls) -> Catalogue:
        """Return the catalogue of all built-in scenes."""
        return cls.open("builtin")

    def scene(self, name: str) -> CatalogueScene:
        """Return a scene by its name.

        Raises:
            ConfigError: There is none of that name.
        """
        known = {scene.name: scene for scene in self.scenes}
        if name in known:
            return known[name]
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ConfigError(f"{self.name} has no scene {name!r}; {hint}known: {', '.join(known)}")

    def varied(self, count: int, blocks: str | os.PathLike[str] | None = None) -> Catalogue:
        """Return variations of the built-in scenes in place of all scenes.

        Args:
            count: Variations of each scene, with the seeds 1 to ``count``. Scene ``NAME`` becomes
                ``NAME-v1``, ``NAME-v2`` and so on.
            blocks: Folder with ``meshes/*.ply`` and ``hdri/*.exr`` that they draw from too.

        Raises:
            ConfigError: A scene is not built in, or varied already.
            FormatError: The folder of blocks holds none.
        """
        if blocks is not None:
            find_blocks(blocks)  # before anything is rendered
        parameters = {} if blocks is None else {registry.BLOCKS: str(Path(blocks).resolve())}
        made = []
        for scene in self.scenes:
            if scene.builtin is None or registry.parse_name(scene.builtin)[1] is not None:
                raise ConfigError(
                    f"variations are made of built-in scenes, got {scene.name} ({scene.source}); "
                    "choose the catalogue builtin, or some of its scenes"
                )
            made += [
                replace(
                    scene,
                    name=f"{scene.name}-v{seed}",
                    source=f"{scene.source}{registry.VARIATION_SIGN}{seed}",
                    title=f"{scene.title}, variation {seed}",
                    parameters=parameters,
                    fly_through=(),  # may lead through what was added
                )
                for seed in range(1, count + 1)
            ]
        return replace(self, scenes=tuple(made))

    def chosen(self, names: Iterable[str]) -> Catalogue:
        """Return some of the scenes, in the given order.

        Raises:
            ConfigError: There is none of a name.
        """
        return replace(self, scenes=tuple(self.scene(name) for name in names))

    def shares(self) -> dict[str, float]:
        """Return each scene's share of the crops; they sum to 1."""
        total = sum(scene.weight for scene in self.scenes)
        return {scene.name: scene.weight / total for scene in self.scenes}

    def require_training(self) -> None:
        """Refuse a catalogue that must not be trained on.

        Raises:
            ConfigError: Its split is not ``train``.
        """
        if self.split != "train":
            raise ConfigError(
                f"{self.name} is marked split = {self.split!r}: its scenes are for measuring, and "
                "networks must not be trained on them; choose a catalogue with split = 'train'"
            )


def shipped() -> dict[str, Path]:
    """Return the catalogues that come with the package: name to file."""
    folder = Path(str(resources.files("mitsuba_gdpt.scenes"))) / "catalogues"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


@functools.cache
def measured_scenes() -> dict[str, str]:
    """Return the scenes of shipped catalogues that methods are measured on: name to catalogue."""
    opened = {name: Catalogue.open(name, check_files=False) for name in shipped()}
    return {
        scene.name: name
        for name, catalogue in opened.items()
        if catalogue.split != "train"
        for scene in catalogue.scenes
    }


def require_unmeasured(names: Iterable[str], remedy: str) -> None:
    """Refuse to train on scenes that methods are measured on.

    Args:
        names: Of scenes; upper and lower case, and ``_`` and ``-``, are the same.
        remedy: What to do.

    Raises:
        ConfigError: There is such a scene.
    """
    known = measured_scenes()
    places = {name: known.get(name.lower().replace("_", "-")) for name in dict.fromkeys(names)}
    if found := [f"{name} (catalogue {place!r})" for name, place in places.items() if place]:
        raise ConfigError(
            f"methods are measured on the scene(s) {', '.join(found)}: "
            f"networks that have seen them look better than they are. {remedy}"
        )


def to_toml(scene: CatalogueScene, *, source: str | None = None) -> str:
    """Return a scene as a TOML table, ready for a catalogue.

    Args:
        scene: What to write; the split belongs to the catalogue as a whole and is left out.
        source: Written instead of the absolute path.
    """
    lines = [
        f"[scenes.{scene.name}]",
        f"source = {toml.quote(source or scene.source)}",
        f"title = {toml.quote(scene.title)}",
        f"author = {toml.quote(scene.author)}",
        f"licence = {toml.quote(scene.licence)}",
        f"exposure = {toml.numeral(scene.exposure)}",
        f"max_depth = {scene.max_depth}",
        f"up = {_triple(scene.up)}",
        f"fov = [{toml.numeral(scene.fov[0])}, {toml.numeral(scene.fov[1])}]",
        f"weight = {toml.numeral(scene.weight)}",
    ]
    if scene.max_roll != 180.0:
        lines.append(f"max_roll = {toml.numeral(scene.max_roll)}")
    if scene.parameters:
        pairs = (f"{toml.quote(key)} = {toml.quote(v)}" for key, v in scene.parameters.items())
        lines.append(f"parameters = {{ {', '.join(pairs)} }}")
    if scene.targets:
        lines += ["targets = [", *(f"  {_triple(t)}," for t in scene.targets), "]"]
    # Inline tables: a box or key frame per line can be read, compared and moved.
    if scene.boxes:
        rows = (f"  {{ min = {_triple(b.min)}, max = {_triple(b.max)} }}," for b in scene.boxes)
        lines += ["boxes = [", *rows, "]"]
    if scene.fly_through:
        frames = (
            f"  {{ origin = {_triple(k.origin)}, target = {_triple(k.target)}, "
            f"up = {_triple(k.up)}, fov = {toml.numeral(k.fov)} }},"
            for k in scene.fly_through
        )
        lines += ["fly_through = [", *frames, "]"]
    return "\n".join(lines) + "\n"


def _find(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if file.is_file():
        return file
    known = shipped()
    if str(path) in known:
        return known[str(path)]
    raise FormatError(
        f"{file}: there is no such catalogue; expected a TOML file or one of the package's: "
        f"{', '.join(known)}"
    )


def _read_scene(file: Path, name: str, entry: Any, split: str, root: Path) -> CatalogueScene:
    table = toml.Table(entry, f"{file}, scene {name!r}")
    source = table.take("source", toml.text)
    try:
        scene = CatalogueScene(
            name=name,
            source=source if builtin_name(source) else str(scene_file(source, root)),
            split=split,
            title=table.take("title", toml.text),
            author=table.take("author", toml.text),
            licence=table.take("licence", toml.text),
            parameters=table.take("parameters", toml.parameters, {}),
            max_depth=table.take("max_depth", toml.integer, 12),
            exposure=table.take("exposure", toml.positive, 1.0),
            up=table.take("up", _vector, (0.0, 1.0, 0.0)),
            fov=table.take("fov", _range, (35.0, 70.0)),
            max_roll=table.take("max_roll", toml.number, 180.0),
            weight=table.take("weight", toml.positive, 1.0),
            targets=table.take("targets", _vectors, ()),
            boxes=table.tables("boxes", _read_box),
            fly_through=table.tables("fly_through", _read_key_frame),
        )
    except ConfigError as error:
        if str(file) in str(error):
            raise
        raise ConfigError(f"{file}: {error}") from None
    table.finish()
    return scene


def _read_box(table: toml.Table) -> CameraBox:
    try:
        return CameraBox(table.take("min", _vector), table.take("max", _vector))
    except ConfigError as error:
        if table.where in str(error):
            raise
        raise ConfigError(f"{table.where}: {error}") from None


def _read_key_frame(table: toml.Table) -> KeyFrame:
    return KeyFrame(
        origin=table.take("origin", _vector),
        target=table.take("target", _vector),
        up=table.take("up", _vector, (0.0, 1.0, 0.0)),
        fov=table.take("fov", toml.positive),
    )


def _split(value: Any) -> str:
    if value not in SPLITS:
        raise ValueError(f"expected one of {', '.join(SPLITS)}")
    return str(value)


def _range(value: Any) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("expected least and greatest, such as [35, 70]")
    low, high = (toml.number(item) for item in value)
    return low, high


def _vector(value: Any) -> Vector:
    """Convert three finite numbers of a TOML file."""
    if not isinstance(value, list) or len(value) != 3:
        raise ValueError("expected 3 numbers, such as [0.0, 1.5, 0.0]")
    x, y, z = (toml.number(component) for component in value)
    return x, y, z


def _vectors(value: Any) -> tuple[Vector, ...]:
    """Convert a list of points of a TOML file."""
    if not isinstance(value, list):
        raise ValueError("expected a list of points, such as [[0.0, 1.5, 0.0]]")
    return tuple(_vector(point) for point in value)


def _triple(value: Vector) -> str:
    """Write a vector into a TOML file."""
    return "[" + ", ".join(toml.numeral(component) for component in value) + "]"


def _problem(scene: CatalogueScene) -> str | None:
    """Return what is wrong with the values of a scene."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", scene.name):
        return "a name consists of small letters, digits, '-' and '_', and starts with neither sign"
    if scene.split not in SPLITS:
        return f"split is {scene.split!r}; expected one of {', '.join(SPLITS)}"
    if scene.builtin is not None:
        registry.describe(scene.builtin)  # raises for an unknown name
        registry.check_parameters(scene.builtin, scene.parameters)
    if scene.max_depth != -1 and scene.max_depth < 1:
        return f"max_depth is {scene.max_depth}; expected at least 1, or -1 for no limit"
    low, high = scene.fov
    if not 0.0 < low <= high < 180.0:
        return f"fov is [{low}, {high}]; expected 0 < least <= greatest < 180 degrees"
    if not 0.0 <= scene.max_roll <= 180.0:
        return f"max_roll is {scene.max_roll}; expected 0 to 180 degrees"
    if not any(scene.up):
        return "up is a zero vector; expected the vertical axis, such as [0, 1, 0]"
    if scene.split != "train" and (scene.boxes or scene.targets):
        return (
            f"split is {scene.split!r}, so it must not have boxes and targets, which are for "
            "training views; leave them out"
        )
    for target in scene.targets:
        if any(_contains(box, target) for box in scene.boxes):
            return f"the target {list(target)} lies inside a camera box; move it onto a surface"
    for number, frame in enumerate(scene.fly_through, start=1):
        view = np.subtract(frame.target, frame.origin)
        if not np.linalg.norm(np.cross(view, frame.up)) > 1e-6 * np.linalg.norm(view):
            return f"key frame {number} looks along its up vector, or nowhere"
        if not 0.0 < frame.fov < 180.0:
            return f"key frame {number} has fov {frame.fov}; expected 0 to 180 degrees"
    if len(scene.fly_through) == 1:
        return "a fly-through needs at least 2 key frames, got 1"
    return None


def _contains(box: CameraBox, point: Vector) -> bool:
    return all(low <= x <= high for low, x, high in zip(box.min, point, box.max, strict=True))


def _rolled(
    direction: NDArray[np.float64], up: NDArray[np.float64], roll: float
) -> NDArray[np.float64]:
    """Return the unit vector across ``direction`` that is ``roll`` radians away from ``up``."""
    upright = up - direction * (up @ direction)
    if np.linalg.norm(upright) < 1e-4 * np.linalg.norm(up):  # straight up or down: any will do
        least = np.eye(3)[np.argmin(np.abs(direction))]
        upright = least - direction * (least @ direction)
    upright /= np.linalg.norm(upright)
    aside = np.cross(direction, upright)
    return np.asarray(math.cos(roll) * upright + math.sin(roll) * aside)
