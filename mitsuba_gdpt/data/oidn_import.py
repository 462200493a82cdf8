"""Import of data sets in the layout of OIDN's training toolkit into crop sets.

The layout is that of :mod:`mitsuba_gdpt.data.oidn_kit`. Each view is covered by crops that do not
overlap. Of its versions the reference is the target; the others are its noisy renders.

There are no gradients and no depth, so networks that see them cannot be trained on such a set, and
nothing says how noisy references are: their deviation is stored as 0, which means "unknown".
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt import checks, exr, foreign
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import CORE, PRIMAL, Layout
from mitsuba_gdpt.data import store
from mitsuba_gdpt.data.oidn_kit import FEATURES
from mitsuba_gdpt.data.plan import Records, differences, level_names
from mitsuba_gdpt.data.shard import ShardUnit
from mitsuba_gdpt.errors import ConfigError, FormatError, NonFiniteError
from mitsuba_gdpt.scenes.catalogue import require_unmeasured

if TYPE_CHECKING:
    from mitsuba_gdpt.execution import Summary

#: Frames that normals can be in; the toolkit asks for none in particular.
SPACES = ("world", "camera")
_COLOUR = f".{FEATURES[PRIMAL]}.exr"
#: Last words of the names of references; others end in the number of samples per pixel.
_REFERENCES = ("ref", "reference", "gt", "target")
_VERSION = re.compile(
    rf"(?P<view>.+)_(?:(?P<spp>\d+)(?:spp)?|{'|'.join(_REFERENCES)})", re.IGNORECASE
)
_WINDOW = ("frame_width", "frame_height", "x", "y")


def import_oidn(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    size: int = 128,
    crops: int = 0,
    normals_space: str = "world",
    measured_scenes: bool = False,
) -> Summary:
    """Import a data set of OIDN's toolkit, or what is missing of it.

    Args:
        folder: A data set of the toolkit, such as ``data/train``. Its subfolders are scenes; a view
            that lies in no subfolder is a scene of its own.
        output: Folder of the crop set, by custom ``NAME.zarr``; created if it is not there.
        size: Width and height of a crop in pixels.
        crops: Most crops of a view; 0: as many as it has room for.
        normals_space: ``"camera"`` if normals are in Mitsuba's camera frame, so that training may
            mirror them; else ``"world"``.
        measured_scenes: Also import scenes that methods are measured on.

    Returns:
        Which shards were imported, were there already or failed.

    Raises:
        ConfigError: There is no view of a noisy image and a reference, views differ in features or
            are smaller than a crop, a scene is one to measure on, or there is another set at
            ``output``.
        FormatError: A file is damaged, or the set cannot be created.
    """
    from mitsuba_gdpt import execution

    plan = OidnPlan.open(folder, size=size, crops=crops, normals_space=normals_space)
    if not measured_scenes:
        require_unmeasured(
            (scene.name for scene in plan.scenes),
            "Leave them out, or say measured_scenes=True (--measured-scenes)",
        )
    # A shard reads the views that it takes crops of, whole: so it holds all of a view.
    each = max(len(view.corners) for scene in plan.scenes for view in scene.views)
    stored = store.create(plan, plan.layout, output, crops_per_shard=each)
    scenes = {scene.name: scene for scene in plan.scenes}
    units = [
        OidnUnit(shard, scenes[shard.scene], size, plan.levels, plan.features)
        for shard in store.shards(plan, Path(output).absolute(), stored["crops_per_shard"])
    ]
    return execution.run(units, description="crops")


@dataclass(frozen=True)
class View:
    """The versions of an image.

    Attributes:
        name: What all their files begin with, relative to the folder of the scene.
        noisy: Paths without feature and suffix, from few to many samples.
        spp: Samples per pixel of these.
        reference: Likewise.
        corners: x and y of its crops.
        width: In pixels.
        height: In pixels.
    """

    name: str
    noisy: tuple[Path, ...]
    spp: tuple[int, ...]
    reference: Path
    corners: tuple[tuple[int, int], ...]
    width: int
    height: int

    def chosen(self, levels: int) -> list[int]:
        """Return which of the noisy renders are taken, the first and the last among them."""
        return np.linspace(0, len(self.noisy) - 1, levels).round().astype(int).tolist()


@dataclass(frozen=True)
class OidnScene:
    """Views of a subfolder, or one view.

    Attributes:
        name: Of the scene.
        views: In order of their names.
        exposure: 1, as files say nothing of it.
    """

    name: str
    views: tuple[View, ...]
    exposure: float = 1.0

    def crops(self) -> Iterator[tuple[View, tuple[int, int]]]:
        """Yield view and corner of each crop."""
        for view in self.views:
            for corner in view.corners:
                yield view, corner


@dataclass(frozen=True)
class OidnPlan:
    """What a set of imported images will hold; a :class:`~mitsuba_gdpt.data.store.Content`.

    Attributes:
        scenes: Sorted by name.
        size: Width and height of all crops in pixels.
        levels: Noisy renders of all crops: as many as the view with the fewest has.
        features: Buffers that all noisy renders have.
        normals_space: One of :data:`SPACES`.
        crops: Most crops of a view, 0 for no limit.
        target_renders: One, the reference.
    """

    scenes: tuple[OidnScene, ...]
    size: int
    levels: int
    features: tuple[str, ...]
    normals_space: str
    crops: int
    target_renders: int = 1

    @classmethod
    def open(
        cls, folder: str | os.PathLike[str], *, size: int, crops: int, normals_space: str
    ) -> OidnPlan:
        """Look at the names and sizes of files, without reading pixels.

        Raises:
            ConfigError: As of :func:`import_oidn`.
            FormatError: A file is damaged.
        """
        folder = Path(folder)
        checks.whole("size", size, least=8)
        checks.whole("crops", crops)
        if normals_space not in SPACES:
            raise ConfigError(
                f"normals_space is {checks.show(normals_space)}; expected 'camera' or 'world'"
            )
        views: dict[str, list[View]] = {}
        alone = []
        for (scene, name), versions in sorted(_versions(folder).items()):
            if len(versions) < 2:
                alone.append(versions[0])
                continue
            *noisy, reference = (folder / path for path in versions)
            spp = tuple(_spp(path.name) or 0 for path in noisy)
            corners, width, height = _corners(reference, size, crops)
            view = View(name, tuple(noisy), spp, reference, corners, width, height)
            views.setdefault(scene, []).append(view)
        if alone:
            others = f" and {len(alone) - 1} more" if alone[1:] else ""
            warnings.warn(
                f"left out, as there is no other version of it: {alone[0]}{_COLOUR}{others}",
                stacklevel=3,
            )
        if not views:
            raise ConfigError(
                f"{folder}: no noisy image with a reference; expected files like "
                f"SCENE/VIEW_0008spp{_COLOUR} and SCENE/VIEW_ref{_COLOUR}"
            )
        every = [view for listed in views.values() for view in listed]
        fewest = min(every, key=lambda view: len(view.noisy))
        if more := sum(len(view.noisy) - len(fewest.noisy) for view in every):
            warnings.warn(
                f"{more} noisy images are left out: all crops of a set have the same number, and "
                f"{fewest.reference.parent / fewest.name} has {len(fewest.noisy)}",
                stacklevel=3,
            )
        return cls(
            tuple(OidnScene(name, tuple(listed)) for name, listed in sorted(views.items())),
            size,
            len(fewest.noisy),
            _common_features(every),
            normals_space,
            crops,
        )

    @property
    def layout(self) -> Layout:
        """Channels of the noisy renders."""
        return Layout(tuple(buffer for buffer in CORE if buffer.name in self.features))

    def count(self, scene: OidnScene) -> int:
        """Return the number of crops of a scene."""
        return sum(len(view.corners) for view in scene.views)

    def records(self, scene: OidnScene) -> Records:
        """Return sample counts, and where crops lie in their views."""
        spp = [[view.spp[i] for i in view.chosen(self.levels)] for view, _ in scene.crops()]
        windows = [(view.width, view.height, *corner) for view, corner in scene.crops()]
        return {
            "spp": (np.array(spp, np.int32), level_names(self.levels)),
            "window": (np.array(windows, np.int32), _WINDOW),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the attribute ``plan`` of the set."""
        return {
            "imported": "oidn",
            "size": self.size,
            "levels": self.levels,
            "normals_space": self.normals_space,
            "crops": self.crops,
            "scenes": [
                {
                    "name": scene.name,
                    "exposure": scene.exposure,
                    "views": [
                        {
                            "name": view.name,
                            "width": view.width,
                            "height": view.height,
                            "spp": list(view.spp),
                        }
                        for view in scene.views
                    ],
                }
                for scene in self.scenes
            ],
        }

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """Name what differs from the attribute ``plan`` of a set; the files may have moved."""
        return differences(self.to_dict(), stored)


@dataclass(frozen=True)
class OidnUnit(ShardUnit):
    """One shard to be filled from images; picklable.

    Attributes:
        scene: To read from.
        size: Width and height of a crop in pixels.
        levels: Noisy renders of a crop.
        features: Buffers to read.
    """

    scene: OidnScene
    size: int
    levels: int
    features: tuple[str, ...]

    def run(self) -> None:
        """Read the views of the crops and write these.

        Raises:
            FormatError: A file is damaged, or the shard cannot be written.
            NonFiniteError: A value is NaN.
        """
        rows = []
        opened: View | None = None
        for view, (x, y) in list(self.scene.crops())[self.shard.start : self.shard.stop]:
            if view is not opened:
                noisy, target, opened = *self._read(view), view
            window = (..., slice(y, y + self.size), slice(x, x + self.size), slice(None))
            try:
                halves, a = store.to_half(noisy[window])
                targets, b = store.to_half(target[window])
            except NonFiniteError as error:
                raise NonFiniteError(
                    f"{view.reference.parent / view.name}, {self.size} x {self.size} pixels at "
                    f"({x}, {y}): {error}"
                ) from error
            deviation = np.zeros(targets.shape[:2], np.float16)
            rows.append((halves, targets[np.newaxis], deviation, np.array([a + b, 0], np.int64)))
        self.shard.write(*(np.stack(column) for column in zip(*rows, strict=True)))

    def _read(self, view: View) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the noisy renders (L, H, W, C) and the reference (H, W, 3); infinity is cut."""
        frames = [self._frame(view.noisy[index], view) for index in view.chosen(self.levels)]
        images = [np.stack([frame.data.numpy() for frame in frames])]
        images.append(_image(view.reference, PRIMAL, view))
        largest = np.finfo(
            np.float32
        ).max  # is clamped and counted with what float16 has no room for
        noisy, target = (np.clip(image, -largest, largest) for image in images)
        return noisy, target

    def _frame(self, prefix: Path, view: View) -> FrameBuffers:
        images = {name: _image(prefix, name, view) for name in self.features}
        words = foreign.Words(albedo=images.get("albedo"), normals=images.get("normal"))
        return foreign.take(images[PRIMAL], words=words)


def _versions(folder: Path) -> dict[tuple[str, str], list[str]]:
    """Return scene and name of each view, with its versions: files without feature and suffix.

    They are sorted by their samples; a reference comes last.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; expected a data set of OIDN's toolkit")
    found: dict[tuple[str, str], list[str]] = {}
    for path in sorted(folder.rglob(f"*{_COLOUR}")):
        version = path.relative_to(folder).as_posix().removesuffix(_COLOUR)
        parent, _, last = version.rpartition("/")
        match = _VERSION.fullmatch(last)
        view = match["view"] if match else last
        found.setdefault((parent.replace("/", "-") or view, view), []).append(version)

    def samples(version: str) -> tuple[float, str]:
        spp = _spp(version)
        return (np.inf if spp is None else spp, version)

    return {key: sorted(versions, key=samples) for key, versions in found.items()}


def _spp(version: str) -> int | None:
    """Return the samples per pixel that a name ends in; None of references."""
    match = _VERSION.fullmatch(version.rpartition("/")[2])
    return int(match["spp"]) if match and match["spp"] else None


def _corners(reference: Path, size: int, most: int) -> tuple[tuple[tuple[int, int], ...], int, int]:
    """Cover an image with crops, or with some that are spread over it; and return its size."""
    path = _file(reference, PRIMAL)
    height, width = next(iter(exr.read(path).channels.values())).shape
    if min(width, height) < size:
        raise ConfigError(
            f"{path} has {width} x {height} pixels, and crops {size} x {size}; expected a smaller "
            f"size"
        )
    columns, rows = width // size, height // size
    left, top = (width - columns * size) // 2, (height - rows * size) // 2
    corners = [(left + i * size, top + j * size) for j in range(rows) for i in range(columns)]
    if 0 < most < len(corners):
        chosen = np.linspace(0, len(corners) - 1, most).round().astype(int)
        corners = [corners[index] for index in chosen]
    return tuple(corners), width, height


def _common_features(views: list[View]) -> tuple[str, ...]:
    """Return the features that noisy images have.

    Raises:
        ConfigError: Some have a feature that others lack.
    """
    having: dict[tuple[str, ...], Path] = {}
    for prefix in (prefix for view in views for prefix in view.noisy):
        names = tuple(name for name in FEATURES if _file(prefix, name).is_file())
        having.setdefault(names, prefix)
    if len(having) > 1:
        told = "; ".join(f"{prefix}: {', '.join(names)}" for names, prefix in having.items())
        raise ConfigError(f"expected the same features of all noisy images, got {told}")
    return next(iter(having))


def _file(prefix: Path, name: str) -> Path:
    return prefix.with_name(f"{prefix.name}.{FEATURES[name]}.exr")


def _image(prefix: Path, name: str, view: View) -> NDArray[np.float32]:
    path = _file(prefix, name)
    image = exr.read_image(path)
    if image.shape[:2] != (view.height, view.width):
        raise FormatError(
            f"{path}: {image.shape[1]} x {image.shape[0]} pixels; expected {view.width} x "
            f"{view.height}, as in the reference"
        )
    return image
