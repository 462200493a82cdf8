"""Files of images in any format that is read here, as channels with names; and one image out.

The suffix decides the format. The six files that NGPT's renderer writes, ``scene-primal.exr``,
``scene-dx.exr`` and so on, are one input: the name of the first one stands for all.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt import channels, exr, naming, npz, pfm
from mitsuba_gdpt.channels import PRIMAL, Layout
from mitsuba_gdpt.errors import FormatError, LayoutError
from mitsuba_gdpt.exr import ExrImage

#: What images may be stored in.
SUFFIXES = (".exr", ".pfm", ".npz")

#: Files of NGPT beside the primal's; only these two have to be there.
_GRADIENTS = ("dx", "dy")
_FEATURES = ("albedo", "normal", "depth")
#: Light that tracers of before NGPT keep out of primal and gradients.
_DIRECT = ("direct", "very_direct")
_COUNTS = {**naming.FILM, 1: ("R",), 2: ("X", "Y")}


def read(path: str | os.PathLike[str]) -> ExrImage:
    """Read the channels of a file, or of the files of NGPT that belong to it.

    Raises:
        FormatError: It is missing or damaged, of another format, or the files differ in size.
    """
    path = Path(path)
    if siblings := _siblings(path):
        return _read_siblings(path, siblings)
    return _read(path)


def write(
    path: str | os.PathLike[str],
    image: Any,
    *,
    metadata: Mapping[str, object] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write an (H, W, 3) image, atomically.

    Args:
        path: One of :data:`SUFFIXES`. NPZ archives get one array, :data:`mitsuba_gdpt.npz.UNNAMED`.
        image: Scene-linear; a NumPy array or a torch tensor on the CPU.
        metadata: As for :func:`mitsuba_gdpt.exr.write_image`; other formats have no room for it.
        attributes: Likewise.

    Raises:
        FormatError: The folder does not exist, the disk is full, or the format is another.
        LayoutError: ``image`` has another shape.
    """
    path = Path(path)
    suffix = _suffix(path)
    if suffix == ".exr":
        exr.write_image(path, image, metadata=metadata, attributes=attributes)
    elif suffix == ".pfm":
        pfm.write(path, np.asarray(image))
    else:
        npz.write(path, {npz.UNNAMED: np.stack([*exr.image_channels(image).values()], axis=-1)})


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise FormatError(f"{path}: expected a name that ends in {' or '.join(SUFFIXES)}")
    return suffix


def _read(path: Path) -> ExrImage:
    suffix = _suffix(path)
    if suffix == ".exr":
        return exr.read(path)
    if suffix == ".pfm":
        image = pfm.read(path)
        return ExrImage(_planes(image, naming.FILM[image.shape[-1]]), {})
    return ExrImage(_archive(path, npz.read(path)), {})


def _archive(path: Path, images: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
    """Name the channels of an archive: its arrays are buffers of ours, or layers of any program.

    Raises:
        FormatError: The arrays differ in size, or one alone has an unknown number of channels.
    """
    if len(sizes := {image.shape[:2] for image in images.values()}) > 1:
        raise FormatError(f"{path}: arrays of the sizes {sorted(sizes)}; expected one size")
    if len(images) == 1:
        (image,) = images.values()
        count = image.shape[-1]
        if count in naming.FILM:
            return _planes(image, naming.FILM[count])
        try:
            return _planes(image, Layout.from_count(count).channels)
        except LayoutError as error:
            raise FormatError(f"{path}: {error}") from error
    ours = {buffer.name: buffer.channels for buffer in channels.TABLE}
    planes: dict[str, NDArray[Any]] = {}
    for name, image in images.items():
        names = ours.get(name, ())
        if len(names) != image.shape[-1]:
            suffixes = _COUNTS.get(image.shape[-1], ())
            names = tuple(f"{name}.{suffix}" for suffix in suffixes)
        planes.update(_planes(image, names))
    return planes


def _planes(image: NDArray[Any], names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    return {name: image[..., index] for index, name in enumerate(names)}


def _siblings(path: Path) -> dict[str, Path]:
    """Return the files of NGPT that belong to one of a primal, by their buffers; none otherwise."""
    stem, dash, last = path.stem.rpartition("-")
    if not dash or last != PRIMAL:
        return {}
    paths = {
        name: path.with_name(f"{stem}-{name}{path.suffix}") for name in (*_GRADIENTS, *_FEATURES)
    }
    found = {name: sibling for name, sibling in paths.items() if sibling.is_file()}
    return found if found.keys() >= set(_GRADIENTS) else {}


def _read_siblings(path: Path, siblings: Mapping[str, Path]) -> ExrImage:
    first = _read(path)
    planes: dict[str, NDArray[Any]] = {}
    size: tuple[int, ...] = ()
    for name, file in {PRIMAL: path, **siblings}.items():
        image = first if file == path else _read(file)
        shape = next(iter(image.channels.values())).shape
        if (size := size or shape) != shape:
            raise FormatError(
                f"{file}: {shape[1]} x {shape[0]} pixels; expected {size[1]} x {size[0]}, as in "
                f"{path.name}"
            )
        for channel, pixels in image.channels.items():
            planes[f"{name}.{channel.rpartition('.')[2]}"] = pixels
    for word in _DIRECT:
        direct = path.with_name(f"{path.stem.removesuffix(PRIMAL)}{word}{path.suffix}")
        if direct.is_file() and any(plane.any() for plane in _read(direct).channels.values()):
            warnings.warn(
                f"{direct.name} is light that is in no other file; add it to the result",
                stacklevel=4,
            )
    return ExrImage(planes, first.metadata, first.attributes)
