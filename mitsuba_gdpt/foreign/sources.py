"""Channels and their names, wherever a render comes from."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mitsuba_gdpt import arrays, channels, exr, image_files, naming
from mitsuba_gdpt.buffers import FrameBuffers, as_frame_buffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.errors import FormatError, LayoutError


@dataclass(frozen=True)
class Named:
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


def is_scene(thing: object) -> bool:
    """Tell whether an object is an ``mi.Scene``, without importing Mitsuba."""
    return hasattr(thing, "sensors") and hasattr(thing, "integrator")


@dataclass(frozen=True)
class SceneLayout:
    """What the channels of a scene's own render are."""

    integrator: Any
    xyz: bool

    @classmethod
    def of(cls, scene: Any) -> Any:
        """Return what a scene says of its channels: a :class:`Layout` where ``gdpt`` renders it.

        Raises:
            LayoutError: It has no integrator.
        """
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


def named_channels(source: Any, layout: Any) -> FrameBuffers | Named:
    """Return the channels of any kind of render with their names.

    Args:
        source: As of :func:`~mitsuba_gdpt.foreign.take`.
        layout: As of it, or of :meth:`SceneLayout.of` for a scene.

    Returns:
        ``FrameBuffers`` where the names are ours, and mean what we mean by them.

    Raises:
        LayoutError: The source is of another kind, or does not fit the layout.
        FormatError: A file cannot be read.
    """
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
        return channels_of_file(path)
    if arrays.is_bitmap(source):
        names = [field.name for field in source.struct_()]
        if _is_ours(names):
            return FrameBuffers.from_bitmap(source)
        return Named(arrays.bitmap_values(source), names)
    xyz = isinstance(layout, SceneLayout) and layout.xyz
    if isinstance(layout, SceneLayout):
        layout = layout.integrator
    if hasattr(layout, "aov_names") and not hasattr(layout, "layout"):  # one of Mitsuba's
        data = float_image(source)
        made = naming.render_names(list(layout.aov_names()), data.shape[-1], xyz)
        if made is None:
            raise LayoutError(
                f"got a tensor with {data.shape[-1]} channels, which this integrator does not "
                f"make; pass the one that rendered it"
            )
        return Named(data, made, in_world=True)
    if layout is None and _count(source) in naming.FILM:
        return Named(float_image(source), naming.FILM[_count(source)])
    if _is_names(layout) and set(layout) - _KNOWN:
        names = list(layout)
        data = float_image(source)
        if len(names) != data.shape[-1]:
            raise LayoutError(
                f"got {len(names)} channel names for a tensor with {data.shape[-1]} channels; "
                f"expected one name per channel"
            )
        return Named(data, names)
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


def float_image(source: Any) -> torch.Tensor:
    """Return the values of an array of any library as (H, W, C) float32."""
    tensor = arrays.as_tensor(source)
    if tensor.ndim != 3 or 0 in tensor.shape or not tensor.is_floating_point():
        raise LayoutError(
            f"got {tensor.dtype} values of shape {tuple(tensor.shape)}; expected linear floating "
            f"point values (H, W, C)"
        )
    return tensor.to(torch.float32)


def channels_of_file(path: Path) -> FrameBuffers | Named:
    """Return the channels of an image file, as of :func:`named_channels`.

    Raises:
        FormatError: It cannot be read, or lacks channels.
    """
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
    return Named(data, names, metadata=image.metadata, attributes=image.attributes)
