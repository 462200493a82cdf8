"""What a crop set says about itself: its attributes, its arrays, which crops are finished.

Nothing of it is trusted. Whatever stands there, reading it takes little time and memory, and ends
with an error of one line or with values that fit together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt import packages
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.checks import reason, show
from mitsuba_gdpt.errors import FormatError, LayoutError
from mitsuba_gdpt.files import read_json

Array: TypeAlias = NDArray[Any]

FORMAT, VERSION = "mitsuba_gdpt crops", 1

#: Written last: values clamped to float16 and samples that were not finite, per crop; -1 where the
#: crop is not rendered yet.
MARKER = "faults"
FAULTS = ("clamped", "nonfinite_samples")
#: Offset paths of the noisy renders of sets, of crops or frames, whose plan says nothing of them.
SHIFTS_BEFORE_CHOICE = 4
#: Arrays of images.
IMAGES = ("noisy", "targets", "target_deviation")
#: Written before the marker: size and CRC-32 of each file of a shard, 0 where there is none since
#: all is zero. Sets may be older than this array.
CHECKSUMS = "checksums"
#: Arrays whose files have checksums.
SUMMED = (*IMAGES, MARKER)
#: File in which Zarr describes a group or an array.
METADATA = "zarr.json"

#: More than any set has: what goes beyond is damaged.
MOST_CROPS = 2_000_000
_MOST_PIXELS, MOST_LEVELS, _MOST_COLUMNS = 1 << 14, 1000, 4096


def read_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of a set.

    Raises:
        FormatError: The folder is missing, is no crop set, or of a version that is not understood.
    """
    try:
        content = read_json(path / METADATA)
    except FormatError as error:
        why = str(error).partition(": ")[2]
        raise FormatError(
            f"{path} is no crop set; its {METADATA}: {why}. Make one with: mitsuba-gdpt dataset "
            f"crops"
        ) from error
    attributes = content.get("attributes")
    if not isinstance(attributes, dict) or not {"format", "version"} <= attributes.keys():
        raise FormatError(f"{path} is no crop set: its {METADATA} says nothing of one")
    kind, version = attributes["format"], attributes["version"]
    if kind != FORMAT or version != VERSION:
        raise FormatError(
            f"{path} is {show(kind)} version {show(version)}; expected {FORMAT!r} version {VERSION}"
        )
    if fault := _fault(attributes):
        raise FormatError(f"{path / METADATA} is damaged: {fault}; make the set anew")
    return attributes


def _fault(attributes: Mapping[str, Any]) -> str:
    """Say what is wrong with the attributes of a set that readers need; empty if nothing is."""
    plan = attributes.get("plan")
    if not isinstance(plan, dict):
        return "it has no plan"
    names = attributes.get("channels")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return "channels is no list of names"
    for table, name, most in (
        (attributes, "crops_per_shard", MOST_CROPS),
        (plan, "size", _MOST_PIXELS),
        (plan, "levels", MOST_LEVELS),
    ):
        value = table.get(name)
        if type(value) is not int or not 1 <= value <= most:
            return f"{name} is {show(value)}, expected a whole number from 1 to {most}"
    scenes = plan.get("scenes")
    if not isinstance(scenes, list) or not all(isinstance(scene, dict) for scene in scenes):
        return "plan.scenes is no list of scenes"
    for scene in scenes:
        name, exposure = scene.get("name"), scene.get("exposure")
        if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0"):
            return f"a scene is called {show(name)}, expected a name of a folder"
        if type(exposure) not in (int, float) or not 0 < exposure < math.inf:
            return f"the exposure of {name!r} is {show(exposure)}, expected a number above 0"
    try:
        Layout.from_channels(names)
    except LayoutError as error:
        return reason(error)
    return ""


def open_arrays(path: Path, attributes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Open the arrays of all scenes, and check that they are as :func:`create` makes them.

    Args:
        path: Folder of the set.
        attributes: Of the set.

    Returns:
        Scene to name to array.

    Raises:
        FormatError: One is missing or damaged.
    """
    zarr = packages.load("zarr", "data")
    arrays = {}
    for scene in attributes["plan"]["scenes"]:
        folder = path / scene["name"]
        try:
            group: Any = zarr.open_group(folder, mode="r")
            names = sorted(file.parent.name for file in folder.glob(f"*/{METADATA}"))
            found = {name: group[name] for name in names}
        except Exception as error:  # the library raises whatever a damaged file leads to
            raise FormatError(f"{folder} is damaged: {reason(error)}") from error
        if fault := _array_fault(found, attributes):
            raise FormatError(f"{folder} is damaged: {fault}; render or import it again")
        arrays[scene["name"]] = found
    return arrays


def _array_fault(arrays: Mapping[str, Any], attributes: Mapping[str, Any]) -> str:
    """Say what is wrong with the arrays of a scene; empty if nothing is."""
    if missing := [name for name in (*IMAGES, MARKER, "spp") if name not in arrays]:
        return f"there is no array {', '.join(missing)}"
    plan, rows = attributes["plan"], attributes["crops_per_shard"]
    size, levels = plan["size"], plan["levels"]
    count = arrays[MARKER].shape[0]
    if not 1 <= count <= MOST_CROPS:
        return f"it has {count} crops, expected 1 to {MOST_CROPS}"
    targets = arrays["targets"].shape[1:2]
    channels = Layout.from_channels(attributes["channels"]).count
    expected = {
        "noisy": ((count, levels, size, size, channels), 2),
        "targets": ((count, *targets, size, size, 3), 1),
        "target_deviation": ((count, size, size), 1),
    }
    for name, (shape, single) in expected.items():
        array = arrays[name]
        layout = (array.shape, array.shards, array.chunks, array.dtype)
        chunk = (1,) * single + shape[single:]
        if layout != (shape, (rows, *shape[1:]), chunk, np.dtype("float16")):
            return f"{name} is {array.dtype} {array.shape}, expected float16 {shape}"
    if arrays[MARKER].shape != (count, len(FAULTS)) or arrays[MARKER].dtype != np.int64:
        return f"{MARKER} is {arrays[MARKER].shape}, expected {(count, len(FAULTS))}"
    for name, array in arrays.items():
        if name in (*expected, MARKER, CHECKSUMS):
            continue
        table = array.ndim == 2 and array.shape[0] == count and array.shape[1] <= _MOST_COLUMNS
        if not table or array.chunks != array.shape or array.dtype.kind not in "iuf":
            return f"{name} is {array.dtype} {array.shape}, expected a table of {count} rows"
    if arrays["spp"].shape != (count, levels):
        return f"spp is {arrays['spp'].shape}, expected {(count, levels)}"
    return ""


def read_table(path: Path, arrays: Mapping[str, Any], name: str) -> Array:
    """Read a table about the crops of a scene.

    Args:
        path: Folder of the scene.
        arrays: Its arrays.
        name: Of the table.

    Raises:
        FormatError: It is damaged.
    """
    try:
        return np.asarray(arrays[name][:])
    except Exception as error:  # the library raises whatever a damaged file leads to
        raise FormatError(
            f"{path / name} is damaged: {reason(error)}; make the set again where it is, which "
            f"mends it"
        ) from error


def read_marks(path: Path, count: int, crops_per_shard: int) -> NDArray[np.int64]:
    """Return the marks of a scene's crops, (count, faults); -1 for those that are not finished.

    A mark that is damaged is none: its shard will be made again.

    Args:
        path: Folder of the scene.
        count: Crops of the scene.
        crops_per_shard: Crops that are written together.
    """
    marks = np.full((count, len(FAULTS)), -1, np.int64)
    for number, start in enumerate(range(0, count, crops_per_shard)):
        rows = marks[start : start + crops_per_shard]
        found = read_rows(path, MARKER, number, len(FAULTS))
        if found is None or len(found) != crops_per_shard:
            continue
        if (found[: len(rows)] >= 0).all():
            rows[:] = found[: len(rows)]
    return marks


def read_rows(path: Path, name: str, number: int, columns: int) -> NDArray[np.int64] | None:
    """Read the chunk of an array of numbers without compression; None if it is not there."""
    try:
        content = (path / name / f"c/{number}/0").read_bytes()
    except OSError:
        return None
    row = 8 * columns
    whole = content[: len(content) // row * row] if len(content) % row == 0 else b""
    return np.frombuffer(whole, "<i8").reshape(-1, columns).astype(np.int64)
