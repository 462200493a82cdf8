"""What can be found in a render of any origin, brought to what our buffers mean."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mitsuba_gdpt import arrays, channels, colorimetry, exr, naming
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import MOTION, PRIMAL, Layout
from mitsuba_gdpt.errors import FormatError, LayoutError
from mitsuba_gdpt.foreign.normals import decoded, in_camera, turned
from mitsuba_gdpt.foreign.sources import (
    Named,
    SceneLayout,
    channels_of_file,
    float_image,
    is_scene,
    named_channels,
)
from mitsuba_gdpt.foreign.words import Words
from mitsuba_gdpt.naming import Frame

_RGB, _XYZ, _GREY = ("R", "G", "B"), ("X", "Y", "Z"), ("Y",)
_FAR = 1e9  # depths from here on stand for a ray that escapes
_NORMAL = "normal"


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
        layout = SceneLayout.of(layout)
    named = named_channels(source, layout)
    if isinstance(named, FrameBuffers):
        frame = _with_layers(named, words)
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
    named = named_channels(source, SceneLayout.of(layout) if is_scene(layout) else layout)
    if isinstance(named, FrameBuffers):
        named = Named(named.data, named.layout.channels)
    return _layer(named, name, word)


def _with_sensor(words: Words, sensor: Any) -> Words:
    return Words(**{**vars(words), "to_sensor": sensor.world_transform().inverse()})


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
    named = channels_of_file(path)
    if isinstance(named, FrameBuffers):
        if buffer in named:
            return named[buffer]
        named = Named(named.data, named.layout.channels)
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


def _assemble(named: Named, words: Words) -> FrameBuffers:
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
    found = _renamed(found, named, words)
    if words.normals_ch:
        layer = words.normals_ch
        known = naming.find([f"{layer}.{suffix}" for suffix in _XYZ]).get(_NORMAL)
        if known is None or known.frame is Frame.UNKNOWN:
            # What mi.OptixDenoiser takes a layer for that it is told of.
            frame = Frame.WORLD if named.in_world or words.to_sensor is not None else Frame.CAMERA
        else:
            frame = known.frame
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
        found[_NORMAL] = decoded(found[_NORMAL])
    if _NORMAL in found and words.normals is None:
        normals = in_camera(found.pop(_NORMAL), frame, words, layer)
        if normals is not None:
            found[_NORMAL] = normals
    layout = Layout(tuple(buffer for buffer in channels.TABLE if buffer.name in found))
    data = torch.cat([found[buffer.name] for buffer in layout.buffers], dim=-1)
    return FrameBuffers(data, layout, named.metadata, named.attributes)


def _renamed(
    found: Mapping[str, torch.Tensor], named: Named, words: Words
) -> dict[str, torch.Tensor]:
    """Put layers that are named in the place of what was found by the usual names.

    Args:
        found: (H, W, c) by buffer.
        named: All channels.
        words: Which layers.

    Raises:
        LayoutError: There is no layer of a name.
    """
    result = dict(found)
    if words.noisy_ch:  # of luminance alone, too
        image = _layer(named, words.noisy_ch, "noisy_ch", (_RGB, _XYZ, _GREY))
        result[PRIMAL] = image.expand(-1, -1, 3)
    for name, word in (("albedo", "albedo_ch"), (_NORMAL, "normals_ch")):
        if asked := getattr(words, word):
            result[name] = _layer(named, asked, word)
    if words.flow_ch:
        result[MOTION] = -_layer(named, words.flow_ch, "flow_ch", (("X", "Y"), ("R", "G")))
    if PRIMAL in found and not torch.equal(result[PRIMAL], found[PRIMAL]):
        radiance = (name for name in found if channels.buffer(name).kind == "radiance")
        if parts := [name for name in radiance if name != PRIMAL]:
            for name in parts:
                del result[name]
            warnings.warn(
                f"{', '.join(parts)} are left out: they belong to another image than "
                f"{words.noisy_ch!r}",
                stacklevel=5,
            )
    return result


def _with_layers(frame: FrameBuffers, words: Words) -> FrameBuffers:
    """Put layers that are named in the place of our own buffers; normals are as ours."""
    if not any((words.noisy_ch, words.albedo_ch, words.normals_ch, words.flow_ch)):
        return frame
    own = {name: frame[name] for name in frame.names}
    found = _renamed(own, Named(frame.data, frame.layout.channels), words)
    layout = Layout(tuple(buffer for buffer in channels.TABLE if buffer.name in found))
    data = torch.cat([found[buffer.name] for buffer in layout.buffers], dim=-1)
    return FrameBuffers(data, layout, frame.metadata, frame.attributes)


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
    named: Named, layer: str, word: str, suffixes: Sequence[tuple[str, ...]] = (_RGB, _XYZ)
) -> torch.Tensor:
    indices = naming.find_layer(named.names, layer, suffixes)
    if indices is None:
        raise LayoutError(
            f"{word} is {layer!r}, but there is no such layer of {len(suffixes[0])} channels; "
            f"there are: {exr.summarise(named.names)}"
        )
    return named.data[..., list(indices)]


def _from_other_colour(named: Named) -> torch.Tensor:
    """Return RGB of a film that stores luminance or XYZ, or of the only layer with colour.

    Raises:
        LayoutError: There is none of them, or gradients are there, which are RGB.
    """
    xyz, grey = naming.find_layer(named.names, "", (_XYZ,)), None
    if xyz is None:
        grey = naming.find_layer(named.names, "", (_GREY,))
    if xyz is None and grey is None:
        if (lone := naming.lone_layer(named.names)) is not None:
            warnings.warn(
                f"the image is taken from the layer {lone!r}, the only one that there is",
                stacklevel=5,
            )
            return _layer(named, lone, "noisy_ch")
        raise LayoutError(
            f"no channels of an image (R, G, B); there are: {exr.summarise(named.names)}. Name "
            f"its layer: noisy_ch, on the command line --noisy-ch"
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


def _with_images(frame: FrameBuffers, words: Words) -> FrameBuffers:
    """Put images that were handed over beside the render in the place of its own buffers."""
    given: dict[str, torch.Tensor] = {}
    if words.albedo is not None:
        given["albedo"] = image_beside(words.albedo, frame, "albedo", 3).clamp(0, 1)
    if words.normals is not None:
        normals = decoded(image_beside(words.normals, frame, "normals", 3))
        given[_NORMAL] = normals if words.to_sensor is None else turned(normals, words.to_sensor)
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
    image = arrays.bitmap_values(source) if arrays.is_bitmap(source) else float_image(source)
    if image.shape != (frame.height, frame.width, count):
        raise LayoutError(
            f"{name} has the shape {tuple(image.shape)}; expected ({frame.height}, {frame.width}, "
            f"{count}), as the image"
        )
    return image.to(frame.device)
