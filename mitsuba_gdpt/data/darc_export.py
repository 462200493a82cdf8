"""Export of crop sets as Darc files, for the original NGPT to train and test on.

One file per scene, in the container's version 2, in the chunks and with the channels that the
original's own tools write and read; see ``docs/formats/darc.md``.
"""

from __future__ import annotations

import io
import itertools
import os
import pickle
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray

from mitsuba_gdpt import channels, checks, progress
from mitsuba_gdpt.channels import PRIMAL, VARIANCE_SUFFIX, Layout
from mitsuba_gdpt.data import darc
from mitsuba_gdpt.data.dataset import Crop, CropSet
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.files import replace_file

#: Chunks of the original's files: one image, three channels.
CHUNK = (1, 128, 128, 3)
_VERSION = 2
_HEADER = "<4sIQQ"  # magic, version, addresses of the directory and of the names
_PREFIX = re.compile(r"[A-Za-z0-9_.]+")


def export_darc(
    crops: CropSet, folder: str | os.PathLike[str], *, prefix: str = "train"
) -> list[Path]:
    """Export the finished crops of a set, one file per scene.

    Args:
        crops: The set; noisy renders as they are, the mean of the targets as the clean image.
        folder: Created if it is not there.
        prefix: First word of the names, ``{prefix}-{scene}-{crops}-{levels}.darc``.

    Returns:
        The files.

    Raises:
        ConfigError: The prefix is not of letters, digits, dots and underscores, or no crop is
            finished.
        FormatError: A crop is damaged, or a file cannot be written.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(
            f"prefix is {checks.show(prefix)}; expected letters, digits, dots and underscores"
        )
    positions: dict[str, list[int]] = {}
    for position in range(len(crops)):
        positions.setdefault(crops.where(position)[0], []).append(position)
    if not positions:
        raise ConfigError(f"{crops.path} has no finished crop to export")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    with progress.task("exporting crops", total=len(crops)) as task:

        def images(scene: str) -> Iterator[NDArray[np.float16]]:
            for position in positions[scene]:
                yield crop_images(crops[position])
                task.advance()

        for scene, numbers in positions.items():
            path = folder / f"{prefix}-{scene}-{len(numbers)}-{crops.levels}.darc"
            write_darc(path, images(scene))
            paths.append(path)
    return paths


def crop_images(crop: Crop) -> NDArray[np.float16]:
    """Return a crop as a file holds it.

    Values above 65504 become infinite, as the original's do. A set may lack what a file has room
    for: variances are then infinite, which is how the original marks those that are unknown;
    diffuse and specular are 0.

    Returns:
        (L + 1, H, W, 30) float16. In the last image the primal is the mean of the targets; the
        other buffers are those of the render with the most samples.
    """
    clean = crop.noisy[-1:].clone()
    clean[..., crop.layout.slices[PRIMAL]] = crop.targets.mean(0)
    images = torch.cat((crop.noisy, clean))
    parts = [_buffer(images, crop.layout, name) for name in darc.ORDER]
    with np.errstate(over="ignore"):
        return np.concatenate(parts, axis=-1).astype(np.float16)


def write_darc(
    path: str | os.PathLike[str],
    arrays: Iterable[NDArray[Any]],
    *,
    chunk: tuple[int, ...] = CHUNK,
    names: Mapping[str, int] | None = None,
) -> None:
    """Write a Darc file of version 2, one array in memory at a time.

    Args:
        path: Replaced if it exists.
        arrays: Of one of the types that a file can hold.
        chunk: Shape of the chunks, of as many axes as the arrays; larger than these is fine.
        names: Name to number of an array; the original's files have none.

    Raises:
        ConfigError: An array is of another type or number of axes, or empty.
        FormatError: The file cannot be written.
    """

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(bytes(struct.calcsize(_HEADER)))
            addresses = []
            for array in arrays:
                addresses.append(file.tell())
                _write_array(file, array, chunk)
            directory = file.tell()
            file.write(struct.pack(f"<Q{len(addresses)}Q", len(addresses), *addresses))
            at = file.tell()
            file.write(_names(dict(names or {})))
            file.seek(0)
            file.write(struct.pack(_HEADER, darc.MAGIC, _VERSION, directory, at))

    replace_file(path, fill)


def _buffer(images: torch.Tensor, layout: Layout, name: str) -> NDArray[np.float32]:
    """Return a buffer of images (N, H, W, C), made up if they have none of that name."""
    if name in layout:
        found: NDArray[np.float32] = images[..., layout.slices[name]].numpy()
        return found
    unknown = np.inf if name.endswith(VARIANCE_SUFFIX) else 0
    shape = (*images.shape[:-1], len(channels.buffer(name)))
    return np.full(shape, unknown, np.float32)


def _write_array(file: BinaryIO, array: NDArray[Any], chunk: tuple[int, ...]) -> None:
    stored = array.dtype.newbyteorder("<")
    if stored not in darc.DTYPES or array.ndim != len(chunk) or not array.size:
        known = ", ".join(dtype.name for dtype in darc.DTYPES)
        raise ConfigError(
            f"got an array {array.dtype.name} {array.shape}; expected {len(chunk)} axes, none of "
            f"them empty, and one of the types {known}"
        )
    chunk = tuple(min(size, step) for size, step in zip(array.shape, chunk, strict=True))
    words = (array.ndim, *array.shape, *chunk, darc.DTYPES.index(stored))
    file.write(struct.pack(f"<{len(words)}I", *words))
    steps = [range(0, size, step) for size, step in zip(array.shape, chunk, strict=True)]
    for corner in itertools.product(*steps):
        inside = tuple(slice(at, at + step) for at, step in zip(corner, chunk, strict=True))
        piece = array[inside]
        padded = np.zeros(chunk, stored)
        padded[tuple(map(slice, piece.shape))] = piece
        file.write(padded.tobytes())


def _names(names: dict[str, int]) -> bytes:
    """Return the map of names as an ``.npy`` file, for any version of NumPy.

    NumPy pickles under the names of its own modules, and those of version 2 do not exist in the
    versions that the original runs with; the old ones exist in all.
    """
    stream = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": ()}
    np.lib.format.write_array_header_1_0(stream, header)
    data = pickle.dumps(np.array(names, dtype=object), protocol=2)
    stream.write(data.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))
    return stream.getvalue()
