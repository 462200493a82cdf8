"""Crop sets on disk: Zarr v3 with one group per scene; the format is docs/formats/crops_v1.md.

A set is created whole but empty, and then filled shard by shard (:mod:`.shard`), by any number of
processes.

Radiance is stored as float16. Variances are stored as standard deviations, because a variance of
1e-8 is common and float16 ends there.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt import packages, provenance
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.data.metadata import (
    CHECKSUMS,
    FAULTS,
    FORMAT,
    MARKER,
    METADATA,
    SUMMED,
    VERSION,
    read_attributes,
)
from mitsuba_gdpt.data.plan import Records
from mitsuba_gdpt.data.shard import Array, Shard
from mitsuba_gdpt.errors import ConfigError, FormatError, NonFiniteError
from mitsuba_gdpt.files import read_json, replace_text, sweep_once, temporary_beside

#: Largest value of float16, 65504.
HALF_MAX = float(np.finfo(np.float16).max)


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


def amend(path: Path, attributes: Mapping[str, Any]) -> None:
    """Change attributes of a set.

    Raises:
        FormatError: They cannot be read or written.
    """
    content = read_json(path / METADATA)
    content["attributes"] |= attributes
    replace_text(path / METADATA, json.dumps(content, indent=2) + "\n")


def is_begun(folder: Path) -> bool:
    """Tell whether a set holds crops of a scene, finished or not, by the folder of the scene."""
    return any((folder / MARKER / "c").glob("*/*"))


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


def shards(plan: Content, path: str | os.PathLike[str], crops_per_shard: int) -> list[Shard]:
    """Return all shards of a set, scene by scene."""
    result = []
    for scene in plan.scenes:
        count = plan.count(scene)
        for number, start in enumerate(range(0, count, crops_per_shard)):
            stop = min(start + crops_per_shard, count)
            result.append(Shard(Path(path), scene.name, number, start, stop))
    return result
