"""Crop sets on disk: Zarr v3 with one group per scene; the format is docs/formats/crops_v1.md.

A set is created whole but empty, and then filled shard by shard, by any number of processes. A
shard holds a few crops. It is written in a folder of its own, and its files are then moved into the
set: first the images, then :data:`CHECKSUMS` of these, last the array :data:`MARKER`. Readers look
at nothing that is not marked: whatever a killed process leaves behind is overwritten when the shard
is rendered again. So is what no longer is what it was when it was written.

Radiance is stored as float16. Variances are stored as standard deviations, because a variance of
1e-8 is common and float16 ends there.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt import packages, provenance
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.data.metadata import (
    CHECKSUMS,
    FAULTS,
    FORMAT,
    IMAGES,
    MARKER,
    METADATA,
    SUMMED,
    VERSION,
    read_attributes,
    read_rows,
)
from mitsuba_gdpt.data.plan import Records
from mitsuba_gdpt.errors import ConfigError, FormatError, NonFiniteError
from mitsuba_gdpt.files import checksum, sweep_once, temporary_beside

#: Arrays that are filled shard by shard, in the order of writing, and their dimensions.
_DIMENSIONS = {"noisy": 5, "targets": 5, "target_deviation": 3, CHECKSUMS: 2, MARKER: 2}
#: Largest value of float16, 65504.
HALF_MAX = float(np.finfo(np.float16).max)

Array: TypeAlias = NDArray[Any]


class SceneContent(Protocol):
    """A scene of a set."""

    @property
    def name(self) -> str:
        """Name, fit for a folder."""

    @property
    def exposure(self) -> float:
        """Factor on the radiance that suits a picture."""


class Content(Protocol):
    """What a set holds when it is finished: renders (``CropPlan``) or imported files."""

    @property
    def scenes(self) -> Sequence[SceneContent]:
        """The scenes, under different names."""

    @property
    def size(self) -> int:
        """Width and height of a crop in pixels."""

    @property
    def levels(self) -> int:
        """Noisy renders per crop."""

    @property
    def target_renders(self) -> int:
        """Target images per crop."""

    def count(self, scene: Any) -> int:
        """Return the number of crops of a scene."""

    def records(self, scene: Any) -> Records:
        """Return what is known about the crops of a scene; at least their ``spp``."""

    def to_dict(self) -> dict[str, Any]:
        """Return the attribute ``plan`` of the set.

        Readers need ``size``, ``levels``, and ``name`` and ``exposure`` of each of ``scenes``.
        """

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """Name what differs from the attribute ``plan`` of a set."""


# --------------------------------------------------------------------------------------- encoding


def to_half(values: Array, variances: slice | None = None) -> tuple[NDArray[np.float16], int]:
    """Encode values as float16.

    Values beyond the range of float16 (fireflies) become its largest value, and are counted.

    Args:
        values: (..., C) float32, finite.
        variances: Channels that are variances: their square roots are stored.

    Returns:
        The encoded values, and how many were clamped.

    Raises:
        NonFiniteError: A value is NaN or infinite.
    """
    values = np.asarray(values, np.float32)
    if variances is not None:
        values = values.copy()
        with np.errstate(invalid="ignore"):  # of negative values: found in the next line
            np.sqrt(values[..., variances], out=values[..., variances])
    if bad := int(values.size - np.isfinite(values).sum()):
        raise NonFiniteError(f"{bad} of {values.size} values are NaN or infinite")
    clamped = int((np.abs(values) > HALF_MAX).sum())
    if clamped:
        values = np.clip(values, -HALF_MAX, HALF_MAX)
    return values.astype(np.float16), clamped


def variance_channels(layout: Layout) -> slice:
    """Return the channels of a layout that are variances; they are the last ones."""
    first = [i for i, b in enumerate(layout.buffers) if b.variance_of is not None]
    if not first:
        return slice(layout.count, layout.count)
    start = sum(len(buffer) for buffer in layout.buffers[: first[0]])
    assert first == list(range(first[0], len(layout.buffers))), "variances come last"
    return slice(start, layout.count)


# ---------------------------------------------------------------------------------------- creation


def create(
    plan: Content,
    layout: Layout,
    path: str | os.PathLike[str],
    *,
    crops_per_shard: int,
    attributes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Make an empty set, or check that the set that is there is one of the same plan.

    Several processes may do this at once: a set appears complete or not at all. What the plan says
    about crops, and how arrays are stored, is written anew where it is damaged.

    Args:
        plan: What will be rendered or imported.
        layout: Channels of the noisy renders.
        path: Folder of the set; its parent exists.
        crops_per_shard: Crops that are written together.
        attributes: Further attributes, such as the variant.

    Returns:
        The attributes of the set: those of an earlier call if it was there.

    Raises:
        ConfigError: There is a set of another plan, or other files.
        FormatError: The folder cannot be written.
    """
    path = Path(path)
    if not path.exists():
        if not path.absolute().parent.is_dir():
            raise FormatError(f"{path}: the folder {path.parent} does not exist; create it first")
        temporary = temporary_beside(path)
        try:
            _build(plan, layout, temporary, crops_per_shard, attributes or {})
            os.rename(temporary, path)
        except OSError as error:
            if not path.exists():  # else another process was quicker
                raise FormatError(f"{path}: cannot create the crop set: {error}") from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    else:
        sweep_once(path.absolute().parent)
        sweep_once(path)
    stored = read_attributes(path)
    if different := plan.differences(stored["plan"]):
        raise ConfigError(
            f"{path} is a crop set of another plan: {', '.join(different)} differ(s); choose "
            "another folder, or remove this one"
        )
    if list(layout.channels) != stored["channels"]:
        raise ConfigError(
            f"{path} holds the channels {', '.join(stored['channels'])}; this version writes "
            f"{', '.join(layout.channels)}. Choose another folder"
        )
    _mend(plan, layout, path, stored["crops_per_shard"])
    return stored


def _mend(plan: Content, layout: Layout, path: Path, crops_per_shard: int) -> None:
    """Compare all that is there from the start with what should be, and replace what is not.

    Raises:
        FormatError: The folder cannot be written.
    """
    fresh = temporary_beside(path)
    try:
        _build(plan, layout, fresh, crops_per_shard, {})
        for file in fresh.rglob("*"):
            name = file.relative_to(fresh)
            present = path / name
            if not file.is_file() or name == Path(METADATA):  # that of the root says who made it
                continue
            if not present.is_file() or not filecmp.cmp(file, present, shallow=False):
                present.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, present)
    except OSError as error:
        raise FormatError(f"{path}: cannot mend the crop set: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _build(
    plan: Content,
    layout: Layout,
    path: Path,
    crops_per_shard: int,
    attributes: Mapping[str, Any],
) -> None:
    zarr = packages.load("zarr", "data")

    root = zarr.create_group(
        path,
        attributes={
            "format": FORMAT,
            "version": VERSION,
            "channels": list(layout.channels),
            "crops_per_shard": crops_per_shard,
            "plan": plan.to_dict(),
            "provenance": provenance.describe(date=False),
            **attributes,
        },
    )
    for scene in plan.scenes:
        group = root.create_group(scene.name, attributes={"exposure": scene.exposure})
        _create_arrays(group, plan, scene, layout, crops_per_shard)


def _create_arrays(
    group: Any, plan: Content, scene: SceneContent, layout: Layout, crops_per_shard: int
) -> None:
    codecs = packages.load("zarr.codecs", "data")
    count, size, levels, targets = plan.count(scene), plan.size, plan.levels, plan.target_renders
    # Planes instead of pixels, and in them bits of equal weight together: 0.46 of the size, and
    # faster to read than channel-last (0.78).
    codec = codecs.BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=2)

    def images(name: str, dimensions: Mapping[str, int], planar: tuple[int, ...]) -> None:
        shape = tuple(dimensions.values())
        ones = len(shape) - 3 if name == "noisy" else 0  # a chunk is what is read together
        group.create_array(
            name,
            shape=(count, *shape),
            chunks=(1,) * (1 + ones) + shape[ones:],
            shards=(crops_per_shard, *shape),
            dtype="float16",
            filters=codecs.TransposeCodec(order=planar),
            compressors=codec,
            fill_value=0,
            dimension_names=("crop", *dimensions),
        )

    pixels = {"y": size, "x": size}
    images("noisy", {"level": levels, **pixels, "channel": layout.count}, (0, 1, 4, 2, 3))
    images("targets", {"target": targets, **pixels, "rgb": 3}, (0, 1, 4, 2, 3))
    images("target_deviation", pixels, (0, 1, 2))
    group.create_array(
        MARKER,
        shape=(count, len(FAULTS)),
        chunks=(crops_per_shard, len(FAULTS)),
        dtype="int64",
        fill_value=-1,
        compressors=None,
        dimension_names=("crop", "fault"),
        attributes={"components": list(FAULTS)},
    )
    group.create_array(
        CHECKSUMS,
        shape=(-(-count // crops_per_shard), 2 * len(SUMMED)),
        chunks=(1, 2 * len(SUMMED)),
        dtype="int64",
        fill_value=-1,
        compressors=None,
        dimension_names=("shard", "file"),
        attributes={"components": [f"{name}.{x}" for name in SUMMED for x in ("bytes", "crc32")]},
    )
    for name, (table, components) in plan.records(scene).items():
        array = group.create_array(
            name,
            shape=table.shape,
            chunks=table.shape,
            dtype=table.dtype,
            dimension_names=("crop", "component"),
            attributes={"components": list(components)},
        )
        array[:] = table


# ------------------------------------------------------------------------------------------ shards


@dataclass(frozen=True)
class Shard:
    """Where a few crops of a set are stored.

    Attributes:
        path: Folder of the set.
        scene: Name of the scene.
        number: Number of the shard in the scene.
        start: First crop.
        stop: Crop after the last one.
    """

    path: Path
    scene: str
    number: int
    start: int
    stop: int

    @property
    def key(self) -> str:
        """Name of the shard, unique in the set."""
        return f"{self.scene}-{self.number:04d}"

    @property
    def folder(self) -> Path:
        """Folder of the scene."""
        return self.path / self.scene

    def is_complete(self) -> bool:
        """Whether the shard has been written, and is what was written: reads all of it."""
        marks = read_rows(self.folder, MARKER, self.number, len(FAULTS))
        count = self.stop - self.start
        if marks is None or len(marks) < count or (marks[:count] < 0).any():
            return False
        known = read_rows(self.folder, CHECKSUMS, self.number, 2 * len(SUMMED))
        if known is None:
            return self._is_readable()
        return known.tolist() == [self._checksums(self.folder)]

    def _checksums(self, folder: Path) -> list[int]:
        """Return size and checksum of each file, in the folder of a scene."""
        result: list[int] = []
        for name in SUMMED:
            try:
                result += checksum(folder / self._file(name))
            except OSError:  # all is zero
                result += [0, 0]
        return result

    def _is_readable(self) -> bool:
        """Whether the images can be read, of sets that have no checksums."""
        zarr = packages.load("zarr", "data")

        if not all((self.folder / self._file(name)).is_file() for name in IMAGES[:2]):
            return False
        try:
            group: Any = zarr.open_group(self.folder, mode="r")
            for name in IMAGES:
                group[name][self.start : self.stop]
        except Exception:  # the library raises whatever a damaged file leads to
            return False
        return True

    def _file(self, name: str) -> str:
        """Return the path of the shard's file of an array, within the scene."""
        return f"{name}/c/{self.number}" + "/0" * (_DIMENSIONS[name] - 1)

    def write(self, noisy: Array, targets: Array, deviation: Array, faults: Array) -> None:
        """Write encoded crops; the same values again leave the same files.

        Args:
            noisy: (crops, L, H, W, C) float16, see :func:`to_half`.
            targets: (crops, T, H, W, 3) float16.
            deviation: (crops, H, W) float16.
            faults: (crops, 2) integers, see :data:`FAULTS`.

        Raises:
            FormatError: The disk is full, or another error of the system.
        """
        zarr = packages.load("zarr", "data")

        scratch = temporary_beside(self.path / self.key)
        try:
            present = [name for name in _DIMENSIONS if (self.folder / name).is_dir()]
            for name in ("", *present):
                (scratch / name).mkdir()
                shutil.copyfile(self.folder / name / METADATA, scratch / name / METADATA)
            group: Any = zarr.open_group(scratch, mode="r+")
            images = zip(IMAGES, (noisy, targets, deviation), strict=True)
            for name, values in (*images, (MARKER, faults)):
                group[name][self.start : self.stop] = values
            if CHECKSUMS in present:
                group[CHECKSUMS][self.number] = self._checksums(scratch)
            for name in present:
                self._move(scratch, name)
        except OSError as error:
            raise FormatError(
                f"{self.path}: cannot write crops {self.start} to {self.stop - 1} of "
                f"{self.scene!r}: {error.strerror or error}. What was written before is kept; make "
                "room and run the same command again"
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _move(self, scratch: Path, name: str) -> None:
        """Put the file of an array into its place; where all is zero, there is none."""
        made, place = scratch / self._file(name), self.folder / self._file(name)
        if made.is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(made, place)
        else:
            place.unlink(missing_ok=True)


@dataclass(frozen=True)
class ShardUnit:
    """A shard as a piece of work; subclasses say how it is filled.

    Attributes:
        shard: What to write.
    """

    shard: Shard

    @property
    def key(self) -> str:
        """Name of the work, unique in the set."""
        return self.shard.key

    def is_done(self) -> bool:
        """Whether the shard has been written and is intact."""
        return self.shard.is_complete()


class ShardReader:
    """Reads single chunks of one array of a scene, with no more than that takes.

    Zarr reads the same files, but hands each step to another thread: 2.5 ms per chunk instead of
    0.5 ms. Only for the layout that :func:`create` makes. Has no open files, so it can be pickled.
    """

    _EMPTY = 2**64 - 1  # offset and length of a chunk that is all zeros, and of no data

    def __init__(self, folder: Path, shape: tuple[int, ...], crops_per_shard: int) -> None:
        """Describe an array.

        Args:
            folder: That of the array.
            shape: Length of the array's dimensions: crop, and further ones.
            crops_per_shard: Crops in one file.
        """
        self._folder, self._crops = folder, crops_per_shard
        self._levels = shape[1] if folder.name == "noisy" else 1
        self._shape = shape[2:] if folder.name == "noisy" else shape[1:]
        self._planar = self._shape if len(self._shape) == 2 else _channels_first(self._shape)
        self._tail = "/0" * (len(shape) - 1)
        self._sizes: dict[int, int | None] = {}

    def read(self, crop: int, level: int = 0) -> Array:
        """Return a chunk as float16, channel-last in name but stored as planes.

        Raises:
            OSError: The file cannot be read.
            ValueError: The file is damaged.
        """
        blosc = packages.load("numcodecs", "data").Blosc()

        shard, row = divmod(crop, self._crops)
        try:
            file = (self._folder / f"c/{shard}{self._tail}").open("rb")
        except FileNotFoundError:
            # Without checksums a black shard, which has no file, cannot be told from a lost one.
            # Deviations of 0 are common, images without anything in them are not.
            unknown = self._size(shard) is None and self._folder.name == IMAGES[-1]
            if unknown or self._size(shard) == 0:
                return np.zeros(self._shape, np.float16)
            raise
        count = self._crops * self._levels
        with file:
            if self._size(shard) not in (None, found := os.fstat(file.fileno()).st_size):
                raise ValueError(f"{found} bytes; expected {self._size(shard)}")
            # Sharding codec of Zarr v3: offset and length of each chunk, then a checksum.
            file.seek(-(16 * count + 4), os.SEEK_END)
            index = np.frombuffer(file.read(16 * count), "<u8").reshape(count, 2)
            offset, length = (int(v) for v in index[row * self._levels + level])
            if offset == self._EMPTY:
                return np.zeros(self._shape, np.float16)
            if offset + length > file.tell():
                raise ValueError("the file is shorter than its index says")
            file.seek(offset)
            planes = np.empty(self._planar, np.float16)
            blosc.decode(file.read(length), out=planes)
        return planes if planes.ndim == 2 else np.moveaxis(planes, -3, -1)

    def _size(self, shard: int) -> int | None:
        """Return what size the file of a shard had when it was written, None if that is unknown."""
        if shard not in self._sizes:
            known = read_rows(self._folder.parent, CHECKSUMS, shard, 2 * len(SUMMED))
            column = 2 * IMAGES.index(self._folder.name)
            self._sizes[shard] = int(known[0, column]) if known is not None and len(known) else None
        return self._sizes[shard]


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (*shape[:-3], shape[-1], *shape[-3:-1])


def shards(plan: Content, path: str | os.PathLike[str], crops_per_shard: int) -> list[Shard]:
    """Return all shards of a set, scene by scene."""
    result = []
    for scene in plan.scenes:
        count = plan.count(scene)
        for number, start in enumerate(range(0, count, crops_per_shard)):
            stop = min(start + crops_per_shard, count)
            result.append(Shard(Path(path), scene.name, number, start, stop))
    return result
