"""Image files: multi-layer OpenEXR in and out, PNG out.

Works on NumPy arrays and channel names only; :class:`mitsuba_gdpt.buffers.FrameBuffers` puts the
layout on top. Imports neither torch nor mitsuba.

Files that are written are single-part scanline EXRs. Channels are stored under the names of
:mod:`mitsuba_gdpt.channels`, float32 unless asked otherwise; OpenEXR sorts them alphabetically, so
readers must go by name. A file appears under its final name only when it is complete.

Of files that are read, the other attributes of the header are kept, so that what is made of an
image can be written with its windows, chromaticities and the rest.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
from numpy.typing import NDArray
from PIL import Image

from mitsuba_gdpt import checks, colorimetry, naming
from mitsuba_gdpt.errors import FormatError, LayoutError, NonFiniteError
from mitsuba_gdpt.files import replace_file

#: Layer that holds a reconstructed image beside the buffers that it was made from.
DENOISED = "denoised"
#: Namespace of our own header attributes.
METADATA_PREFIX = "mitsuba_gdpt."

_RGB = ("R", "G", "B")
_HALF_MAX = float(np.finfo(np.float16).max)
_DPI = 72.0
_CHROMA = ("RY", "BY")
#: Attributes that say how pixels are stored; they are chosen anew for each file.
_STORAGE = frozenset(
    ("channels", "chunkCount", "compression", "lineOrder", "maxSamplesPerPixel", "tiles")
    + ("type", "version")
)
#: A file of so many bytes of pixels, or of so many times its own size, is taken for what it says.
_ALWAYS_READ, _MOST_COMPRESSED = 1 << 28, 2048


@dataclass(frozen=True)
class ExrImage:
    """Contents of an EXR file.

    Attributes:
        channels: Full channel name (``R``, ``dx.R``) to an (H, W) array, float32 or float16.
        metadata: Header attributes written by this package, without their prefix.
        attributes: All other attributes of the header but those that say how pixels are stored.
    """

    channels: dict[str, NDArray[Any]]
    metadata: dict[str, str]
    attributes: dict[str, Any] = field(default_factory=dict)


def read(path: str | os.PathLike[str]) -> ExrImage:
    """Read all channels of an EXR file, ours or another program's.

    Channels of later parts get the part's name as their layer, unless they have one; those of the
    first part only where it names a feature, such as albedo. Files of luminance and chroma are
    read as RGB.

    Raises:
        FormatError: The file is missing, damaged, not an EXR, or deep, or its parts or channels
            differ in size.
    """
    headers = [part.header for part in _open(path, header_only=True).parts]
    if not headers:
        raise FormatError(f"{path}: no readable part; the file is damaged")
    for header in headers:
        _check_header(path, header)
    file = _open(path)
    if len(file.parts) != len(headers):
        raise FormatError(
            f"{path}: {len(file.parts)} of {len(headers)} parts are readable; the file is damaged"
        )
    arrays: dict[str, NDArray[Any]] = {}
    for index, part in enumerate(file.parts):
        if str(part.header["dataWindow"]) != str(headers[0]["dataWindow"]):
            raise FormatError(
                f"{path}: the parts have different data windows; expected one. Split the file, "
                f"for example with 'exrmultipart -separate'"
            )
        planes = _pixels(path, part)
        named = index > 0 or (len(headers) > 1 and naming.is_feature(part.name(), [*planes]))
        for name, pixels in planes.items():
            full = f"{part.name()}.{name}" if named and "." not in name else name
            if full in arrays:
                raise FormatError(f"{path}: two parts have the channel {full!r}; expected one")
            arrays[full] = pixels
    return ExrImage(arrays, _metadata(headers[0]), _attributes(headers[0]))


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read what :func:`write` was given as ``metadata``, without reading pixels.

    Raises:
        FormatError: The file is missing or not an EXR.
    """
    return _metadata(_open(path, header_only=True).header())


def write(
    path: str | os.PathLike[str],
    channels: Mapping[str, NDArray[Any]],
    *,
    metadata: Mapping[str, object] | None = None,
    attributes: Mapping[str, Any] | None = None,
    half: Collection[str] = (),
) -> None:
    """Write channels to an EXR file, atomically.

    Args:
        path: Replaced if it exists.
        channels: Channel name to an (H, W) array; all of one shape.
        metadata: Stored as strings in the header (``spp``, ``seed``, ``scene``, ...).
        attributes: Further attributes of the header, as of :class:`ExrImage`; its windows only
            where the data window has the size of the channels.
        half: Names of channels to store as float16; all others are float32.

    Raises:
        FormatError: The folder does not exist, the disk is full, or a value does not fit float16.
        LayoutError: The arrays differ in shape or are not two-dimensional.
    """
    shapes = {np.shape(array) for array in channels.values()}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 2 or 0 in shape:
        raise LayoutError(
            f"{path}: expected channels of one shape (H, W) with H, W >= 1; got "
            + (", ".join(f"{name} {np.shape(array)}" for name, array in channels.items()) or "none")
        )
    pixels = {}
    for name, array in channels.items():
        if name in half:
            pixels[name] = _to_half(path, name, array)
        else:
            pixels[name] = np.ascontiguousarray(array, dtype=np.float32)
    kept = dict(attributes or {})
    if "dataWindow" in kept and _size(kept) != shape:  # of another image
        del kept["dataWindow"]
        kept.pop("displayWindow", None)
    header: dict[str, object] = {
        **kept,
        "compression": OpenEXR.ZIP_COMPRESSION,
        "type": OpenEXR.scanlineimage,
    }
    header.update({METADATA_PREFIX + key: str(value) for key, value in (metadata or {}).items()})
    replace_file(path, lambda temporary: OpenEXR.File(header, pixels).write(str(temporary)))


def read_image(path: str | os.PathLike[str], layer: str = "") -> NDArray[np.float32]:
    """Read one RGB layer, by default the file's own colour.

    Args:
        path: An EXR file.
        layer: Layer name, for example :data:`DENOISED`.

    Returns:
        (H, W, 3) float32, scene-linear.

    Raises:
        FormatError: As for :func:`read`, or the layer is missing.
    """
    names = _layer_channels(layer)
    channels = read(path).channels
    if missing := [name for name in names if name not in channels]:
        raise FormatError(
            f"{path}: no channel {', '.join(missing)}; the file has: {summarise(channels)}"
        )
    return np.stack([channels[name].astype(np.float32) for name in names], axis=-1)


def write_image(
    path: str | os.PathLike[str],
    image: Any,
    *,
    metadata: Mapping[str, object] | None = None,
    attributes: Mapping[str, Any] | None = None,
    half: bool = False,
) -> None:
    """Write an RGB image to an EXR file, atomically.

    Args:
        path: Replaced if it exists.
        image: (H, W, 3) scene-linear; NumPy array, torch tensor or Mitsuba ``TensorXf``.
        metadata: Stored as strings in the header.
        attributes: As for :func:`write`.
        half: Store float16 instead of float32.

    Raises:
        FormatError: As for :func:`write`.
        LayoutError: ``image`` has another shape.
    """
    channels = image_channels(image)
    small = tuple(channels) if half else ()
    write(path, channels, metadata=metadata, attributes=attributes, half=small)


def write_png(
    path: str | os.PathLike[str],
    image: Any,
    *,
    exposure: float = 0.0,
    attributes: Mapping[str, Any] | None = None,
) -> None:
    """Write an 8-bit sRGB PNG of a scene-linear image, atomically.

    Args:
        path: Replaced if it exists.
        image: (H, W, 3) scene-linear; values outside [0, 1] after the exposure are clipped.
        exposure: Stops; +1 doubles the brightness.
        attributes: Of the EXR file that the image comes from. Its chromaticities say what the
            primaries are, by default those of Rec. 709, and its pixel aspect ratio is stored.

    Raises:
        FormatError: The folder does not exist, the disk is full, or the chromaticities make no
            sense.
        LayoutError: ``image`` has another shape.
        NonFiniteError: ``image`` contains NaN or infinity, which no 8-bit value could show.
    """
    attributes = attributes or {}
    aspect = float(attributes.get("pixelAspectRatio", 1.0))
    options = {}
    if aspect != 1.0 and math.isfinite(aspect) and aspect > 0:  # dots per inch along x and y
        options["dpi"] = (_DPI / max(aspect, 1.0), _DPI * min(aspect, 1.0))
    try:
        picture = Image.fromarray(displayed(image, exposure=exposure, attributes=attributes))
    except (FormatError, LayoutError, NonFiniteError) as error:
        raise type(error)(f"{path}: {error}") from error
    replace_file(path, lambda temporary: picture.save(temporary, format="PNG", **options))


def displayed(
    image: Any, *, exposure: float = 0.0, attributes: Mapping[str, Any] | None = None
) -> NDArray[np.uint8]:
    """Encode an image as 8-bit sRGB; its primaries as for :func:`write_png`.

    Raises:
        FormatError: The chromaticities make no sense.
        LayoutError: ``image`` has another shape.
        NonFiniteError: ``image`` contains NaN or infinity.
    """
    matrix = colorimetry.to_rec709((attributes or {}).get("chromaticities"))
    array = _as_rgb(image)
    if matrix is not None:
        array = (array @ matrix.T).astype(np.float32)
    return to_8bit(array, exposure=exposure)


def to_8bit(image: Any, *, exposure: float = 0.0) -> NDArray[np.uint8]:
    """Encode a scene-linear (H, W, 3) image as 8-bit sRGB; see :func:`write_png`.

    Raises:
        ConfigError: ``exposure`` makes no sense.
        LayoutError: ``image`` has another shape.
        NonFiniteError: ``image`` contains NaN or infinity.
    """
    checks.stops("exposure", exposure)
    array = _as_rgb(image)
    if bad := int(np.count_nonzero(~np.isfinite(array).all(axis=-1))):
        raise NonFiniteError(
            f"{bad} of {array.shape[0] * array.shape[1]} pixels are NaN or infinite; "
            f"a PNG needs finite values. Write an EXR to look at them"
        )
    encoded = linear_to_srgb(array * np.float32(2.0**exposure))
    return (encoded * 255 + 0.5).astype(np.uint8)


def linear_to_srgb(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Encode linear values with the sRGB curve (IEC 61966-2-1), clipped to [0, 1] before."""
    linear = np.clip(values, 0, 1)
    curve = 1.055 * linear ** (1 / 2.4) - 0.055
    return np.where(linear <= 0.0031308, 12.92 * linear, curve).astype(np.float32)


def image_channels(image: Any, layer: str = "") -> dict[str, NDArray[np.float32]]:
    """Split an (H, W, 3) image into named channels for :func:`write`.

    Raises:
        LayoutError: ``image`` has another shape.
    """
    array = _as_rgb(image)
    return {name: array[..., i] for i, name in enumerate(_layer_channels(layer))}


def cropped(
    attributes: Mapping[str, Any], x: int, y: int, width: int, height: int
) -> dict[str, Any]:
    """Return the attributes of a rectangle of an image: the data window is that rectangle."""
    result = dict(attributes)
    if "dataWindow" in result:
        left, top = (int(v) for v in result["dataWindow"][0])
        corners = (left + x, top + y), (left + x + width - 1, top + y + height - 1)
        result["dataWindow"] = tuple(np.array(corner, dtype=np.int32) for corner in corners)
    return result


def summarise(names: Iterable[str]) -> str:
    """List channel names layer by layer for a message: ``B, G, R, dx.(B, G, R)``."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layer, _, channel = name.rpartition(".")
        layers.setdefault(layer, []).append(channel)
    parts = [
        ", ".join(channels) if not layer else f"{layer}.({', '.join(channels)})"
        for layer, channels in layers.items()
    ]
    return ", ".join(parts) or "nothing"


def _layer_channels(layer: str) -> tuple[str, ...]:
    return tuple(f"{layer}.{channel}" if layer else channel for channel in _RGB)


def _as_rgb(image: Any) -> NDArray[np.float32]:
    """Bring an image of any array type to host memory as (H, W, 3) float32."""
    if hasattr(image, "detach"):  # a torch tensor, perhaps on a GPU
        image = image.detach().cpu()
    array = np.asarray(image, dtype=np.float32)
    if array.ndim != 3 or array.shape[-1] != len(_RGB):
        raise LayoutError(f"got an image of shape {array.shape}; expected (H, W, 3)")
    return array


def _to_half(path: str | os.PathLike[str], name: str, array: NDArray[Any]) -> NDArray[np.float16]:
    finite = np.abs(array[np.isfinite(array)])
    if finite.size and (largest := float(finite.max())) > _HALF_MAX:
        raise FormatError(
            f"{path}: channel {name!r} reaches {largest:g}, float16 ends at {_HALF_MAX:g}; "
            f"write float32 (half=False)"
        )
    return np.ascontiguousarray(array, dtype=np.float16)


def _check_header(path: str | os.PathLike[str], header: Mapping[str, Any]) -> None:
    """Refuse what is no flat image, or cannot be one, before memory is spent on its pixels."""
    channels = header["channels"]
    if header.get("type") in (OpenEXR.deepscanline, OpenEXR.deeptile):
        names = ", ".join(repr(channel.name) for channel in channels[:1])
        raise FormatError(
            f"{path}: channel {names} is deep, with any number of samples per pixel; expected one "
            f"value per pixel. Flatten the file first"
        )
    for channel in channels:
        step = channel.xSampling, channel.ySampling
        if step != (1, 1) and not (channel.name in _CHROMA and set(step) <= {1, 2}):
            raise FormatError(
                f"{path}: channel {channel.name!r} is subsampled; expected one value per pixel"
            )
    sizes = [_size(header)]
    if tiles := header.get("tiles"):
        sizes.append((tiles.ySize, tiles.xSize))
    promised = max(height * width for height, width in sizes) * 2 * len(channels)
    actual = Path(path).stat().st_size
    if promised > max(_ALWAYS_READ, _MOST_COMPRESSED * actual):
        raise FormatError(
            f"{path}: the header promises {promised / 2**20:.0f} MiB of pixels, too many for "
            f"{actual} bytes; the file is damaged"
        )


def _pixels(path: str | os.PathLike[str], part: Any) -> dict[str, NDArray[Any]]:
    """Return the channels of a part as (H, W) arrays; luminance and chroma become R, G and B."""
    header = part.header
    arrays = {name: channel.pixels for name, channel in part.channels.items()}
    if arrays.keys() >= {"Y", *_CHROMA}:
        luminance, *chroma = (arrays.pop(name).astype(np.float32) for name in ("Y", *_CHROMA))
        weights = colorimetry.luminance_weights(header.get("chromaticities"))
        arrays.update(colorimetry.rgb_from_chroma(luminance, chroma, weights))
    for name, pixels in arrays.items():
        if getattr(pixels, "shape", None) != _size(header):
            raise FormatError(
                f"{path}: channel {name!r} has another size than the image; the file is damaged"
            )
    return arrays


def _size(header: Mapping[str, Any]) -> tuple[int, int]:
    """Return height and width of the data window."""
    (left, top), (right, bottom) = header["dataWindow"]
    return int(bottom) - int(top) + 1, int(right) - int(left) + 1


def _attributes(header: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value
        for key, value in header.items()
        if key not in _STORAGE and not key.startswith(METADATA_PREFIX)
    }


def _metadata(header: Mapping[str, object]) -> dict[str, str]:
    return {
        key.removeprefix(METADATA_PREFIX): value
        for key, value in header.items()
        if key.startswith(METADATA_PREFIX) and isinstance(value, str)
    }


def _open(path: str | os.PathLike[str], header_only: bool = False) -> Any:
    """Open an EXR file; the library's own messages do not tell these cases apart."""
    path = Path(path)
    if not path.exists():
        raise FormatError(f"{path}: no such file; expected an EXR image")
    if not path.is_file() or not OpenEXR.isOpenExrFile(str(path)):
        raise FormatError(f"{path}: not an OpenEXR file")
    try:
        return OpenEXR.File(str(path), separate_channels=True, header_only=header_only)
    except (RuntimeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise FormatError(f"{path}: cannot read this EXR file: {text}") from error
