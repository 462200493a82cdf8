"""Renders of any origin as named buffers: plain images, Mitsuba's AOVs, files of other programs.

What ``gdpt`` made is viewed, never copied (:func:`mitsuba_gdpt.buffers.as_frame_buffers`). All else
is found by the names in :mod:`mitsuba_gdpt.naming` and brought to what our buffers mean. Normals
have to be in the camera's frame: those in world space are turned, and those of an unknown frame
are left out, with a warning that says what to pass.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mitsuba_gdpt import channels, colorimetry, exr, image_files, naming
from mitsuba_gdpt.buffers import FrameBuffers, as_frame_buffers, as_tensor, is_bitmap
from mitsuba_gdpt.channels import MOTION, PRIMAL, Layout
from mitsuba_gdpt.errors import ConfigError, FormatError, LayoutError
from mitsuba_gdpt.naming import Frame

_RGB, _XYZ = ("R", "G", "B"), ("X", "Y", "Z")
_FAR = 1e9  # depths from here on stand for a ray that escapes
_NORMAL = "normal"


@dataclass(frozen=True)
class Words:
    """What a caller says of a render besides its layout, in the words of ``mi.OptixDenoiser``.

    Attributes:
        noisy_ch: Layer of the noisy image.
        albedo_ch: Layer of the albedo.
        normals_ch: Layer of the normals.
        flow_ch: Layer of the optical flow.
        albedo: (H, W, 3) albedo.
        normals: (H, W, 3) normals.
        flow: (H, W, 2) motion from the previous frame to this one, pixels, +x right, +y down.
        to_sensor: Transform that takes the normals to the camera's frame: ``mi.Transform4f`` or a
            (4, 4) matrix; for world space ``sensor.world_transform().inverse()``.
        normals_space: "camera" says that the normals are in Mitsuba's camera frame already.
    """

    noisy_ch: str = ""
    albedo_ch: str = ""
    normals_ch: str = ""
    flow_ch: str = ""
    albedo: Any = None
    normals: Any = None
    flow: Any = None
    to_sensor: Any = None
    normals_space: str | None = None

    def __post_init__(self) -> None:
        """Check the words."""
        if self.normals_space not in (None, "camera", "world"):
            raise ConfigError(
                f"normals_space is {self.normals_space!r}; expected 'camera' or 'world'"
            )
        if self.normals_space == "world" and self.to_sensor is None:
            raise ConfigError(
                "normals_space is 'world'; pass to_sensor=sensor.world_transform().inverse() too"
            )
        for name in ("albedo", "normals", "flow"):
            if isinstance(getattr(self, name), str):
                raise ConfigError(f"{name} is a text; to name a layer, pass {name}_ch")


@dataclass(frozen=True)
class _Named:
    """Channels with names.

    Attributes:
        data: (H, W, C) float32.
        names: Of the channels.
        in_world: Whether normals are known to be in world space.
        metadata: As of :class:`FrameBuffers`.
        attributes: As of :class:`FrameBuffers`.
    """

    data: torch.Tensor
    names: Sequence[str]
    in_world: bool = False
    metadata: Mapping[str, str] | None = None
    attributes: Mapping[str, Any] | None = None


def take(source: Any, layout: Any = None, words: Words | None = None) -> FrameBuffers:
    """Return any kind of render as named buffers.

    Args:
        source: ``FrameBuffers``; a Mitsuba ``TensorXf``, torch tensor or NumPy array (H, W, C);
            ``mi.Bitmap``; or the path of an image file.
        layout: What the channels of a tensor or array are: the integrator that rendered (``gdpt``
            or ``aov``), the scene with it, a :class:`Layout`, or channel names of any program.
            One and three channels are an image, two and four one with alpha.
        words: What else is known.

    Raises:
        LayoutError: The source is of another kind, or no image can be found in it.
        FormatError: A file cannot be read.
        ConfigError: The words contradict each other.
    """
    words = Words() if words is None else words
    told = words.to_sensor is not None
    if is_scene(layout):
        if words.to_sensor is None and layout.sensors():
            words = _with_sensor(words, layout.sensors()[0])
        layout = _SceneLayout.of(layout)
    named = _named(source, layout)
    if isinstance(named, FrameBuffers):
        frame = named
        if told and words.normals is None and _NORMAL in frame:
            warnings.warn(
                "to_sensor is left out: these normals are in the camera's frame already",
                stacklevel=3,
            )
    else:
        frame = _assemble(named, words)
    return _with_images(frame, words)


def layer(source: Any, layout: Any, name: str, word: str) -> torch.Tensor:
    """Return a layer of three channels, (H, W, 3), by the name that it has in a render.

    Args:
        source: As for :func:`take`.
        layout: As for :func:`take`.
        name: Of the layer.
        word: What the caller calls it, for messages.

    Raises:
        LayoutError: There is none of that name.
    """
    named = _named(source, _SceneLayout.of(layout) if is_scene(layout) else layout)
    if isinstance(named, FrameBuffers):
        named = _Named(named.data, named.layout.channels)
    return _layer(named, name, word)


def is_scene(thing: object) -> bool:
    """Tell whether an object is an ``mi.Scene``, without importing Mitsuba."""
    return hasattr(thing, "sensors") and hasattr(thing, "integrator")


@dataclass(frozen=True)
class _SceneLayout:
    """What the channels of a scene's own render are."""

    integrator: Any
    xyz: bool

    @classmethod
    def of(cls, scene: Any) -> Any:
        integrator, sensors = scene.integrator(), scene.sensors()
        if integrator is None:
            raise LayoutError(
                "the scene has no integrator, so it does not say what the channels are; pass the "
                "integrator or channel names as layout"
            )
        if hasattr(integrator, "layout"):
            return integrator.layout
        film = str(sensors[0].film()) if sensors else ""
        return cls(integrator, "pixel_format = xyz" in film)


def _with_sensor(words: Words, sensor: Any) -> Words:
    return Words(**{**vars(words), "to_sensor": sensor.world_transform().inverse()})


def _named(source: Any, layout: Any) -> FrameBuffers | _Named:
    if isinstance(source, FrameBuffers):
        return source
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        if path.suffix.lower() not in image_files.SUFFIXES:
            raise LayoutError(
                f"got {str(path)!r}; expected the path of an image "
                f"({', '.join(image_files.SUFFIXES)}), a Mitsuba TensorXf, FrameBuffers, a torch "
                f"tensor, a NumPy array or an mi.Bitmap"
            )
        return _from_file(path)
    if is_bitmap(source):
        names = [field.name for field in source.struct_()]
        if _is_ours(names):
            return FrameBuffers.from_bitmap(source)
        return _Named(_bitmap_data(source), names)
    xyz = isinstance(layout, _SceneLayout) and layout.xyz
    if isinstance(layout, _SceneLayout):
        layout = layout.integrator
    if hasattr(layout, "aov_names") and not hasattr(layout, "layout"):  # one of Mitsuba's
        data = _tensor(source)
        made = naming.render_names(list(layout.aov_names()), data.shape[-1], xyz)
        if made is None:
            raise LayoutError(
                f"got a tensor with {data.shape[-1]} channels, which this integrator does not "
                f"make; pass the one that rendered it"
            )
        return _Named(data, made, in_world=True)
    if layout is None and _count(source) in naming.FILM:
        return _Named(_tensor(source), naming.FILM[_count(source)])
    if _is_names(layout) and set(layout) - _KNOWN:
        names = list(layout)
        data = _tensor(source)
        if len(names) != data.shape[-1]:
            raise LayoutError(
                f"got {len(names)} channel names for a tensor with {data.shape[-1]} channels; "
                f"expected one name per channel"
            )
        return _Named(data, names)
    return as_frame_buffers(source, layout)


#: Channel names of ours; whoever passes no others means what we mean by them.
_KNOWN = frozenset(
    channel
    for buffer in channels.TABLE
    for name in buffer.channels
    for channel in (name, f"<root>.{name}")
) | {"A", "<root>.A"}


def _is_names(layout: Any) -> bool:
    return (
        isinstance(layout, Sequence)
        and not isinstance(layout, str)
        and all(isinstance(name, str) for name in layout)
    )


def _is_ours(names: Sequence[str]) -> bool:
    """Tell whether ``gdpt`` made these channels: nothing else has gradients beside features."""
    bare = {name.removeprefix("<root>.") for name in names}
    core = Layout.make().channels
    return bare >= set(core)


def _count(source: Any) -> int:
    shape = tuple(getattr(source, "shape", ()))
    return int(shape[2]) if len(shape) == 3 else 0


def _tensor(source: Any) -> torch.Tensor:
    """Return the values of an array of any library as (H, W, C) float32."""
    tensor = as_tensor(source)
    if tensor.ndim != 3 or 0 in tensor.shape or not tensor.is_floating_point():
        raise LayoutError(
            f"got {tensor.dtype} values of shape {tuple(tensor.shape)}; expected linear floating "
            f"point values (H, W, C)"
        )
    return tensor.to(torch.float32)


def _bitmap_data(bitmap: Any) -> torch.Tensor:
    array = np.array(bitmap, copy=False)
    if array.dtype.kind != "f" or bitmap.srgb_gamma():
        raise LayoutError(
            f"got a bitmap of {array.dtype} components (sRGB-encoded: {bitmap.srgb_gamma()}); "
            f"expected linear floating point values"
        )
    array = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _from_file(path: Path) -> FrameBuffers | _Named:
    image = image_files.read(path)
    real = {name: plane for name, plane in image.channels.items() if plane.dtype.kind == "f"}
    if not real:
        raise FormatError(
            f"{path}: whole numbers in {exr.summarise(image.channels)}; expected half or float"
        )
    names = list(real)
    planes = [plane.astype(np.float32, copy=False) for plane in real.values()]
    data = torch.from_numpy(np.stack(planes, axis=-1))
    if _is_ours(names) or image.metadata:
        try:
            return FrameBuffers.from_named(data, names, image.metadata, image.attributes)
        except LayoutError as error:
            raise FormatError(f"{path}: {error}") from error
    return _Named(data, names, metadata=image.metadata, attributes=image.attributes)


def read_image(path: str | os.PathLike[str], buffer: str) -> torch.Tensor:
    """Read one image from a file of its own, such as the albedo that OIDN's programs take.

    Args:
        path: EXR, PFM or NPZ file.
        buffer: Which of our buffers it is: a layer that the file names so counts, else the only
            three channels, or those without a layer.

    Returns:
        (H, W, 3).

    Raises:
        FormatError: The file cannot be read, or has no such image.
    """
    path = Path(path)
    named = _from_file(path)
    if isinstance(named, FrameBuffers):
        if buffer in named:
            return named[buffer]
        named = _Named(named.data, named.layout.channels)
    match = naming.find(named.names).get(buffer)
    indices = match.indices if match else naming.find_layer(named.names, "")
    if indices is None and len(named.names) == 3:
        layer = named.names[0].rpartition(".")[0]
        indices = naming.find_layer(named.names, layer)
    if indices is None:
        raise FormatError(
            f"{path}: no {buffer} of three channels; the file has: {exr.summarise(named.names)}"
        )
    return named.data[..., list(indices)]


# ------------------------------------------------------------------------------ buffers by name


def _assemble(named: _Named, words: Words) -> FrameBuffers:
    """Copy what can be found among named channels into buffers."""
    found: dict[str, torch.Tensor] = {}
    within = words.noisy_ch.rpartition(".")[0] or None
    matches = naming.find(named.names, within)
    if within is None and PRIMAL in matches:
        _tell_view_layers(named.names, matches[PRIMAL])
    for name, match in matches.items():
        found[name] = named.data[..., list(match.indices)]
    frame = matches[_NORMAL].frame if _NORMAL in matches else None
    layer = matches[_NORMAL].layer if _NORMAL in matches else ""
    if named.in_world:
        frame = Frame.WORLD
    elif frame is Frame.UNKNOWN and "dx" in found:  # of tracers of gradients, NGPT's was the first
        frame = Frame.CAMERA
    for name, word in ((PRIMAL, "noisy_ch"), ("albedo", "albedo_ch"), (_NORMAL, "normals_ch")):
        if asked := getattr(words, word):
            found[name] = _layer(named, asked, word)
    if words.normals_ch:
        layer = words.normals_ch
        known = naming.find([f"{layer}.{suffix}" for suffix in _XYZ]).get(_NORMAL)
        if known is None or known.frame is Frame.UNKNOWN:
            # What mi.OptixDenoiser takes a layer for that it is told of.
            frame = Frame.WORLD if named.in_world or words.to_sensor is not None else Frame.CAMERA
        else:
            frame = known.frame
    if words.flow_ch:
        found[MOTION] = -_layer(named, words.flow_ch, "flow_ch", (("X", "Y"), ("R", "G")))
    for torn in naming.torn(named.names):
        warnings.warn(f"the layer {torn!r} lacks channels and is left out", stacklevel=4)
    if PRIMAL not in found:
        found[PRIMAL] = _from_other_colour(named)
    if "albedo" in found:
        found["albedo"] = found["albedo"].clamp(0, 1)
    if "depth" in found:
        depth = found["depth"]
        if bool((depth < 0).any()):
            warnings.warn(
                "the depth is negative, as along an axis that points to the viewer; its absolute "
                "value is taken",
                stacklevel=4,
            )
            depth = depth.abs()
        found["depth"] = torch.where(torch.isfinite(depth) & (depth < _FAR), depth, 0.0)
    if _NORMAL in found:
        found[_NORMAL] = _decoded(found[_NORMAL])
    if _NORMAL in found and words.normals is None:
        normals = _in_camera(found.pop(_NORMAL), frame, words, layer)
        if normals is not None:
            found[_NORMAL] = normals
    layout = Layout(tuple(buffer for buffer in channels.TABLE if buffer.name in found))
    data = torch.cat([found[buffer.name] for buffer in layout.buffers], dim=-1)
    return FrameBuffers(data, layout, named.metadata, named.attributes)


def _tell_view_layers(names: Sequence[str], image: naming.Match) -> None:
    """Warn of view layers that are left out: each has an image of its own."""
    others = [other for other in naming.view_layers(names) if other not in ("", image.parent)]
    if image.parent and others:
        last = image.layer.rpartition(".")[2]
        warnings.warn(
            f"of the view layers {', '.join(map(repr, [image.parent, *others]))} the first is "
            f"denoised; noisy_ch={f'{others[0]}.{last}'!r} names another",
            stacklevel=5,
        )


def _layer(
    named: _Named, layer: str, word: str, suffixes: Sequence[tuple[str, ...]] = (_RGB, _XYZ)
) -> torch.Tensor:
    indices = naming.find_layer(named.names, layer, suffixes)
    if indices is None:
        raise LayoutError(
            f"{word} is {layer!r}, but there is no such layer of {len(suffixes[0])} channels; "
            f"there are: {exr.summarise(named.names)}"
        )
    return named.data[..., list(indices)]


def _from_other_colour(named: _Named) -> torch.Tensor:
    """Return RGB of a film that stores luminance or XYZ, or of the only layer with colour.

    Raises:
        LayoutError: There is none of them, or gradients are there, which are RGB.
    """
    xyz, grey = naming.find_layer(named.names, "", (_XYZ,)), None
    if xyz is None:
        grey = naming.find_layer(named.names, "", (("Y",),))
    if xyz is None and grey is None:
        if (lone := naming.lone_layer(named.names)) is not None:
            warnings.warn(
                f"the image is taken from the layer {lone!r}, the only one that there is",
                stacklevel=5,
            )
            return _layer(named, lone, "noisy_ch")
        raise LayoutError(
            f"no channels of an image (R, G, B); there are: {exr.summarise(named.names)}. Pass "
            f"its layer as noisy_ch"
        )
    if any(name.startswith("dx.") for name in named.names):
        held = "luminance" if xyz is None else "xyz"
        raise LayoutError(
            f"the film's pixel_format is {held!r}, but gradients are RGB; set pixel_format to "
            f"'rgb' or 'rgba', or pass the tensor that the render returned"
        )
    if xyz is None:
        assert grey is not None
        return named.data[..., list(grey)].expand(-1, -1, 3)
    matrix = np.linalg.inv(colorimetry.rgb_to_xyz(colorimetry.REC709))
    return named.data[..., list(xyz)] @ torch.as_tensor(matrix.T, dtype=torch.float32).to(
        named.data.device
    )


# ------------------------------------------------------------------------------------- normals


def _in_camera(
    normals: torch.Tensor, frame: Frame | None, words: Words, layer: str
) -> torch.Tensor | None:
    """Return normals in the camera's frame; None, with a warning, where that cannot be known."""
    if words.normals_space == "camera" or frame is Frame.CAMERA:
        return normals
    if frame is Frame.MIRRORED:
        return normals * normals.new_tensor([-1.0, 1.0, 1.0])
    if words.to_sensor is not None:
        return _turned(normals, words.to_sensor)
    if frame is Frame.PBRT:
        warnings.warn(
            f"the normals {layer!r} are taken for those of pbrt's camera frame; if its film uses "
            f"the world (coordinatesystem), pass to_sensor",
            stacklevel=5,
        )
        return normals * normals.new_tensor([-1.0, 1.0, 1.0])
    which = "are in world space" if frame is Frame.WORLD else "may be in world space"
    also = "" if frame is Frame.WORLD else ", or normals_space='camera' if they are in that frame"
    warnings.warn(
        f"the normals {layer!r} {which} and are left out; pass "
        f"to_sensor=sensor.world_transform().inverse(){also}",
        stacklevel=5,
    )
    return None


def _decoded(normals: torch.Tensor) -> torch.Tensor:
    """Undo, with a warning, that (H, W, 3) normals are stored as colours, as n / 2 + 1 / 2.

    They are if none is negative, and the lengths say so. What is black or grey is no normal.
    """
    coded = 2 * normals - 1
    there = (normals.abs().amax(-1) > 0) & (torch.linalg.vector_norm(coded, dim=-1) > 0.5)
    if not there.any() or not bool((normals >= 0).all()):
        return normals

    def off(vectors: torch.Tensor) -> float:
        return float((torch.linalg.vector_norm(vectors[there], dim=-1) - 1).abs().median())

    if not off(coded) < 0.05 < off(normals):
        return normals
    warnings.warn(
        "the normals are coded as colours between 0 and 1, and are decoded: 2 n - 1", stacklevel=5
    )
    return torch.where(there[..., None], coded, 0.0)


def _turned(normals: torch.Tensor, transform: Any) -> torch.Tensor:
    """Apply a transform to (H, W, 3) normals; where there is none (0), none is made."""
    matrix = np.array(getattr(transform, "matrix", transform), dtype=np.float64)
    if matrix.size != 16 or not np.isfinite(matrix).all():
        raise ConfigError(
            f"to_sensor has the shape {matrix.shape}; expected a Transform4f or a (4, 4) matrix"
        )
    linear = matrix.reshape(4, 4)[:3, :3]
    if abs(np.linalg.det(linear)) <= 1e-12 * np.linalg.norm(linear) ** 3:  # whatever its scale
        raise ConfigError("to_sensor cannot be inverted; expected a sensor's transform")
    inverse = torch.as_tensor(np.linalg.inv(linear), dtype=normals.dtype, device=normals.device)
    turned = normals @ inverse  # normals transform with the inverse transpose
    length = torch.linalg.vector_norm(turned, dim=-1, keepdim=True)
    original = torch.linalg.vector_norm(normals, dim=-1, keepdim=True)
    return torch.where(length > 0, turned / length.clamp(min=1e-30) * original, turned)


def _with_images(frame: FrameBuffers, words: Words) -> FrameBuffers:
    """Put images that were handed over beside the render in the place of its own buffers."""
    given: dict[str, torch.Tensor] = {}
    if words.albedo is not None:
        given["albedo"] = image_beside(words.albedo, frame, "albedo", 3).clamp(0, 1)
    if words.normals is not None:
        normals = _decoded(image_beside(words.normals, frame, "normals", 3))
        given[_NORMAL] = normals if words.to_sensor is None else _turned(normals, words.to_sensor)
    if words.flow is not None:
        given[MOTION] = -image_beside(words.flow, frame, "flow", 2)
    if old := [name for name in given if name in frame]:
        frame = frame.without(old)
    for name, image in given.items():
        frame = frame.appended(name, image)
    return frame


def image_beside(source: Any, frame: FrameBuffers, name: str, count: int) -> torch.Tensor:
    """Return an image that was handed over beside a render, on the device of the render.

    Args:
        source: Array, tensor or bitmap.
        frame: The render.
        name: What the image is called in messages.
        count: Channels that it has to have.

    Raises:
        LayoutError: It has another shape or type.
    """
    image = _bitmap_data(source) if is_bitmap(source) else _tensor(source)
    if image.shape != (frame.height, frame.width, count):
        raise LayoutError(
            f"{name} has the shape {tuple(image.shape)}; expected ({frame.height}, {frame.width}, "
            f"{count}), as the image"
        )
    return image.to(frame.device)
