"""``FrameBuffers``: the output of the ``gdpt`` integrator as named torch tensors.

The one place where tensors, bitmaps and files of any origin become named buffers. Imports torch,
but Mitsuba only inside :meth:`FrameBuffers.to_bitmap`; no variant is needed or changed.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mitsuba_gdpt import arrays, channels, exr, pictures
from mitsuba_gdpt.channels import CORE, TABLE, Layout
from mitsuba_gdpt.errors import (
    ConfigError,
    FormatError,
    LayoutError,
    NonFiniteError,
)

_NAME_OF_ATTRIBUTE = {buffer.attribute: buffer.name for buffer in TABLE}
_ALPHA = "A"  # a film with alpha stores it; nothing here uses it
_ROOT = "<root>."  # what mi.Bitmap.split() calls the layer without a name
#: Differences lose too much in float16; features are read beside other programs' float32 ones.
_HALF_BUFFERS = tuple(
    b.name for b in CORE if b.kind in ("radiance", "reflectance") and b.difference is None
)


class FrameBuffers:
    """Named views of one (..., H, W, C) float32 tensor: a frame, or several of one size and kind.

    Buffers are attributes (``buffers.dx``, ``buffers.dx_var``) or items (``buffers["dx.var"]``):
    (..., H, W, c) views that share the memory of ``data``, and with it, after
    :meth:`from_render`, the memory of the Dr.Jit tensor. Writing to them changes the render output.

    Attributes:
        data: (..., H, W, C) float32; meaning of C as in ``layout``.
        layout: Which buffers there are, in which order.
        metadata: Strings from the header of the file that the buffers were read from; written
            again by :meth:`to_exr`.
        attributes: The other attributes of that header (windows, chromaticities, ...), written
            again too.
        planes: Further (H, W) float32 channels that :meth:`to_exr` writes, by their full names.
            They are no buffers, and copies do without.

    Example:
        >>> buffers = FrameBuffers.from_tensor(torch.zeros(4, 6, Layout.make().count))
        >>> buffers.dx.shape
        torch.Size([4, 6, 3])
    """

    def __init__(
        self,
        data: torch.Tensor,
        layout: Layout,
        metadata: Mapping[str, str] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Wrap a tensor without copying it; see the ``from_...`` methods for other sources.

        Raises:
            LayoutError: Rank, size or channel count do not fit, or the type is not float32.
        """
        if data.ndim < 3 or 0 in data.shape:
            raise LayoutError(
                f"got a tensor of shape {tuple(data.shape)}; expected (H, W, C) with H, W >= 1, or "
                f"more axes before them"
            )
        if data.shape[-1] != layout.count:
            raise LayoutError(
                f"got a tensor with {data.shape[-1]} channels; the layout has {layout.count} "
                f"({', '.join(layout.channels)}). Pass the layout that it was rendered with"
            )
        if data.dtype != torch.float32:
            raise LayoutError(f"got a {data.dtype} tensor; expected float32 (use from_tensor)")
        self.data = data
        self.layout = layout
        self.metadata = dict(metadata or {})
        self.attributes = dict(attributes or {})
        self.planes: dict[str, np.ndarray[Any, np.dtype[np.float32]]] = {}
        self._slices = layout.slices

    # ------------------------------------------------------------------------------ sources

    @classmethod
    def from_render(cls, tensor: Any, layout: Any = None) -> FrameBuffers:
        """View the output of ``mi.render`` without copying it.

        Evaluates the tensor if it is not yet. Its memory stays alive as long as any view of it.
        Gradients (of automatic differentiation) are not tracked across this boundary.

        Args:
            tensor: Mitsuba ``TensorXf`` of shape (H, W, C), on CPU or GPU.
            layout: A :class:`Layout`, channel names, or the integrator that rendered (anything
                with a ``layout`` attribute). Without it, only the default layouts are understood.

        Raises:
            LayoutError: Shape and layout do not fit.
            MissingDependencyError: The tensor lives on a GPU and torch was built without CUDA.
        """
        return cls.from_tensor(arrays.from_drjit(tensor), layout)

    @classmethod
    def from_tensor(cls, tensor: torch.Tensor, layout: Any = None) -> FrameBuffers:
        """View a torch tensor.

        Args:
            tensor: (..., H, W, C), any device; copied only if it is not float32 or if its channels
                are named in another order than buffers can be sliced from.
            layout: As for :meth:`from_render`. Given as names, an alpha channel ``A`` is dropped.

        Raises:
            LayoutError: Shape and layout do not fit, or a name is unknown.
        """
        if not tensor.is_floating_point():
            raise LayoutError(f"got a {tensor.dtype} tensor; expected linear floating point values")
        tensor = tensor.to(torch.float32)
        if tensor.ndim < 3:
            raise LayoutError(f"got a tensor of shape {tuple(tensor.shape)}; expected (H, W, C)")
        while layout is not None and hasattr(layout, "layout"):
            layout = layout.layout
        if layout is None:
            layout = Layout.from_count(tensor.shape[-1])
        if isinstance(layout, Layout):
            return cls(tensor, layout)
        return cls._from_named(tensor, layout, strict=True)

    @classmethod
    def from_bitmap(cls, bitmap: Any) -> FrameBuffers:
        """Take the named channels of a Mitsuba bitmap, as ``film.bitmap()`` returns them.

        Channels may come in any order; alpha and channels of other integrators are left out.

        Args:
            bitmap: ``mi.Bitmap`` with linear floating point components.

        Raises:
            LayoutError: Components are integers, or no known buffer is complete.
        """
        names = [field.name for field in bitmap.struct_()]
        return cls._from_named(arrays.bitmap_values(bitmap), names, strict=False)

    @classmethod
    def from_exr(
        cls,
        path: str | os.PathLike[str],
        *,
        require: Iterable[str] = (),
        device: torch.device | str = "cpu",
    ) -> FrameBuffers:
        """Read buffers from a multi-layer EXR file, written by this package or by a film.

        Other layers are left out.

        Args:
            path: EXR file with channels named as in :mod:`mitsuba_gdpt.channels`.
            require: Names of buffers that must be there.
            device: Where the tensor shall live.

        Raises:
            FormatError: The file is missing, damaged or not an EXR, or it lacks a layer.
        """
        image = exr.read(path)
        try:
            layout, order = _arrange(list(image.channels), strict=False)
        except LayoutError as error:
            raise FormatError(f"{path}: {error}") from error
        if missing := [name for name in require if name not in layout]:
            present = exr.summarise(image.channels)
            raise FormatError(f"{path}: no layer {', '.join(missing)}; the file has: {present}")
        planes = list(image.channels.values())
        data = torch.empty((*planes[0].shape, layout.count), dtype=torch.float32)
        for target, source in enumerate(order):
            data[..., target] = torch.from_numpy(planes[source].astype(np.float32, copy=False))
        return cls(data.to(device), layout, image.metadata, image.attributes)

    @classmethod
    def from_named(
        cls,
        data: torch.Tensor,
        names: Sequence[str],
        metadata: Mapping[str, str] | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> FrameBuffers:
        """Take the channels of a tensor that have names of ours, in any order.

        Args:
            data: (..., H, W, C) float32.
            names: One per channel; others, and alpha, are left out.
            metadata: As of the class.
            attributes: As of the class.

        Raises:
            LayoutError: No known buffer is complete, or a name comes twice.
        """
        frame = cls._from_named(data, names, strict=False)
        return cls(frame.data, frame.layout, metadata, attributes)

    @classmethod
    def _from_named(cls, data: torch.Tensor, names: Sequence[str], strict: bool) -> FrameBuffers:
        """Wrap a tensor whose channels have names; a view if their order allows one."""
        if not isinstance(names, Iterable):
            raise LayoutError(
                f"got the layout {names!r}; expected a Layout, channel names, or the integrator "
                f"that rendered"
            )
        if isinstance(names, str) or len(names) != data.shape[-1]:
            raise LayoutError(
                f"got the channel names {names!r} for a tensor with {data.shape[-1]} channels; "
                f"expected one name per channel"
            )
        layout, order = _arrange(names, strict)
        first = order[0]
        if order == list(range(first, first + len(order))):
            return cls(data[..., first : first + len(order)], layout)
        return cls(data[..., order], layout)

    # ------------------------------------------------------------------------------- access

    @property
    def height(self) -> int:
        """Number of rows."""
        return int(self.data.shape[-3])

    @property
    def width(self) -> int:
        """Number of columns."""
        return int(self.data.shape[-2])

    @property
    def leading(self) -> tuple[int, ...]:
        """Sizes of the axes before (H, W, C); empty for one frame."""
        return tuple(self.data.shape[:-3])

    @property
    def names(self) -> tuple[str, ...]:
        """Buffer names in tensor order."""
        return self.layout.names

    @property
    def device(self) -> torch.device:
        """Where the tensor lives."""
        return self.data.device

    def __contains__(self, name: object) -> bool:
        return name in self._slices

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a buffer as a (..., H, W, c) view.

        Raises:
            LayoutError: There is no such buffer.
        """
        try:
            return self.data[..., self._slices[name]]
        except KeyError:
            raise LayoutError(f"no buffer {name!r}; there are: {', '.join(self.names)}") from None

    def __getattr__(self, attribute: str) -> torch.Tensor:
        # Only called for what is not an ordinary attribute. Private names are asked for by
        # copy and pickle before there is any state to look into.
        if not attribute.startswith("_"):
            name = _NAME_OF_ATTRIBUTE.get(attribute)
            if name in self._slices:
                return self[name]
            if name is not None:
                raise AttributeError(f"no buffer {name!r}; there are: {', '.join(self.names)}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {attribute!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(buffer.attribute for buffer in self.layout.buffers)})

    def __repr__(self) -> str:
        return (
            f"FrameBuffers({' x '.join(map(str, self.data.shape[:-1]))}, {', '.join(self.names)}, "
            f"device={str(self.device)!r})"
        )

    def _repr_html_(self) -> str:
        """Return a small picture of each buffer, for notebooks; of several frames the first."""
        frame = self.data.flatten(0, -4)[0] if self.leading else self.data
        values = frame.detach().cpu().numpy()
        return pictures.to_html(pictures.of_buffers(values, self.layout.buffers), repr(self))

    # --------------------------------------------------------------------------- operations

    def validate(self, names: Iterable[str] | None = None) -> None:
        """Check that values are finite.

        Args:
            names: Buffers to look at; by default all.

        Raises:
            NonFiniteError: A channel contains NaN or infinity; names channels and pixel counts.
        """
        if math.isfinite(self.largest()):
            return
        faults = []
        for part in self.layout.buffers:
            if names is not None and part.name not in names:
                continue
            finite = torch.isfinite(self[part.name])
            if bool(finite.all()):
                continue
            counts = (~finite).flatten(0, -2).sum(0).tolist()
            faults += [
                f"{channel}: {count}"
                for channel, count in zip(part.channels, counts, strict=True)
                if count
            ]
        if faults:
            raise NonFiniteError(
                f"NaN or infinity in pixels of {', '.join(faults)} (of "
                f"{self.data[..., 0].numel()} each); expected finite values. Find the material or "
                f"emitter that produces them, or replace those pixels before reconstruction"
            )

    def largest(self) -> float:
        """Return the largest absolute value of all channels; NaN if there is one that is NaN."""
        if not self.data.numel():
            return 0.0
        low, high = (float(value) for value in torch.aminmax(self.data))
        return max(-low, high)  # NaN is in both

    def crop(self, x: int, y: int, width: int, height: int) -> FrameBuffers:
        """Copy a rectangle, as if only that rectangle had been rendered.

        The copy obeys the border rule: differences across the new right and bottom border, and
        their variances, are 0.

        Args:
            x: First column.
            y: First row.
            width: Number of columns.
            height: Number of rows.

        Raises:
            ConfigError: The rectangle is empty or leaves the frame.
        """
        columns, rows = range(self.width + 1), range(self.height + 1)
        inside = x in columns and x + width in columns and y in rows and y + height in rows
        if not inside or width < 1 or height < 1:
            raise ConfigError(
                f"got the rectangle x={x}, y={y}, width={width}, height={height}; expected one "
                f"inside the {self.width} x {self.height} frame, with width, height >= 1"
            )
        cropped = FrameBuffers(
            self.data[..., y : y + height, x : x + width, :].clone(),
            self.layout,
            self.metadata,
            exr.cropped(self.attributes, x, y, width, height),
        )
        for part in self.layout.buffers:
            if part.difference is not None:
                cropped[part.name].select(part.difference, -1).zero_()
        return cropped

    def select(self, names: Iterable[str]) -> FrameBuffers:
        """Copy some of the buffers, in the order that they have here.

        Args:
            names: Of buffers that are here; a single name is one buffer.

        Raises:
            LayoutError: There is no such buffer, or none is named.
        """
        layout = self.layout.chosen((names,) if isinstance(names, str) else names)
        if not layout.buffers:
            raise LayoutError(f"none of the buffers is left; there are: {', '.join(self.names)}")
        data = self.data[..., self.layout.indices(layout.names)]
        return FrameBuffers(data, layout, self.metadata, self.attributes)

    def without(self, names: Iterable[str]) -> FrameBuffers:
        """Copy all buffers but these, in the order that they have here.

        Args:
            names: Of buffers to leave out; those that are not here are no fault, and a single
                name is one buffer.

        Raises:
            LayoutError: Nothing would be left.
        """
        unwanted = {names} if isinstance(names, str) else set(names)
        return self.select(name for name in self.names if name not in unwanted)

    def appended(self, name: str, values: torch.Tensor) -> FrameBuffers:
        """Copy the buffers and append another one.

        Args:
            name: Of the buffer table, and not here yet.
            values: (..., H, W, c) of that buffer.

        Raises:
            LayoutError: The name is unknown or here already, or the shape does not fit.
        """
        row = channels.buffer(name)
        if name in self:
            raise LayoutError(f"these buffers have {name} already; expected buffers without")
        expected = (*self.data.shape[:-1], len(row))
        if tuple(values.shape) != expected:
            raise LayoutError(
                f"got {name} of shape {tuple(values.shape)}; expected {expected}, as of the buffers"
            )
        data = torch.cat([self.data, values.to(self.data)], dim=-1)
        layout = Layout((*self.layout.buffers, row))
        return FrameBuffers(data, layout, self.metadata, self.attributes)

    def require_one_frame(self) -> None:
        """Refuse several frames where one is meant.

        Raises:
            LayoutError: The tensor has axes before (H, W, C).
        """
        if self.leading:
            raise LayoutError(
                f"got buffers of shape {tuple(self.data.shape)}; expected one frame, (H, W, C)"
            )

    def to(self, device: torch.device | str) -> FrameBuffers:
        """Return the buffers on another device (the same memory if they are there already)."""
        return FrameBuffers(self.data.to(device), self.layout, self.metadata, self.attributes)

    # -------------------------------------------------------------------------------- sinks

    def to_exr(
        self,
        path: str | os.PathLike[str],
        *,
        image: Any = None,
        metadata: Mapping[str, object] | None = None,
        half: bool = False,
    ) -> None:
        """Write all buffers to a multi-layer EXR file, atomically.

        Args:
            path: Replaced if it exists.
            image: (H, W, 3) reconstruction to store beside them, as layer ``denoised``.
            metadata: Added to (and taking precedence over) ``self.metadata``.
            half: Store primal and albedo as float16; everything else is always float32.

        Raises:
            FormatError: The file cannot be written, or a value does not fit float16.
            LayoutError: ``image`` has another size, or there is more than one frame.
        """
        self.require_one_frame()
        array = self.data.detach().cpu().numpy()
        layers = {name: array[..., i] for i, name in enumerate(self.layout.channels)}
        layers.update(self.planes)
        if image is not None:
            layers.update(exr.image_channels(image, exr.DENOISED))
        small = [
            channel
            for buffer in self.layout.buffers
            if half and buffer.name in _HALF_BUFFERS
            for channel in buffer.channels
        ]
        exr.write(
            path,
            layers,
            metadata={**self.metadata, **(metadata or {})},
            attributes=self.attributes,
            half=small,
        )

    def to_bitmap(self) -> Any:
        """Copy all buffers into a multi-channel ``mi.Bitmap`` with named channels.

        Raises:
            LayoutError: There is more than one frame.
        """
        import mitsuba as mi

        self.require_one_frame()

        return mi.Bitmap(
            self.data.detach().cpu().contiguous().numpy(),
            pixel_format=mi.Bitmap.PixelFormat.MultiChannel,
            channel_names=list(self.layout.channels),
        )


def as_frame_buffers(source: Any, layout: Any = None) -> FrameBuffers:
    """View any kind of render output as :class:`FrameBuffers`, without copying where possible.

    Args:
        source: ``FrameBuffers``, Mitsuba ``TensorXf``, torch tensor, NumPy array ((H, W, C) each)
            or ``mi.Bitmap`` with named channels.
        layout: As for :meth:`FrameBuffers.from_render`; bitmaps and ``FrameBuffers`` know theirs.

    Raises:
        LayoutError: The source is of another kind, or does not fit the layout.
    """
    if isinstance(source, FrameBuffers):
        return source
    if arrays.is_bitmap(source):
        return FrameBuffers.from_bitmap(source)
    return FrameBuffers.from_tensor(arrays.as_tensor(source), layout)


def _arrange(names: Sequence[str], strict: bool) -> tuple[Layout, list[int]]:
    """Find complete buffers among channel names.

    Args:
        names: Channel names in tensor order, possibly with alpha and ``<root>.`` prefixes.
        strict: Refuse names that belong to no buffer instead of leaving them out, and keep the
            order of the buffers if the names spell whole ones, so that a tensor can be viewed.

    Returns:
        The layout (in the order of the buffer table unless ``strict`` says otherwise) and the
        index into ``names`` of each of its channels.

    Raises:
        LayoutError: A name occurs twice or is unknown, a buffer is incomplete, or there is none.
    """
    position: dict[str, int] = {}
    for index, name in enumerate(names):
        plain = name.removeprefix(_ROOT)
        if plain in position:
            raise LayoutError(f"the channel name {plain!r} occurs twice; expected unique names")
        position[plain] = index
    position.pop(_ALPHA, None)
    known = {channel: buffer for buffer in TABLE for channel in buffer.channels}
    if strict and (unknown := [name for name in position if name not in known]):
        raise LayoutError(
            f"unknown channel(s) {', '.join(map(repr, unknown))}; expected names as listed by "
            f"mitsuba_gdpt.channels (R, G, B, dx.R, dx.G, ...)"
        )
    touched = {known[name].name for name in position if name in known}
    buffers = tuple(buffer for buffer in TABLE if buffer.name in touched)
    missing = [name for buffer in buffers for name in buffer.channels if name not in position]
    if missing or not buffers:
        raise LayoutError(
            f"no channel {', '.join(missing) if missing else 'of a known buffer'}; there are: "
            f"{exr.summarise(names)}"
        )
    layout = Layout(buffers)
    if strict:
        with contextlib.suppress(LayoutError):  # all known, but sorted or interleaved
            layout = Layout.from_channels(list(position))
    return layout, [position[name] for name in layout.channels]
