"""The one table of buffers: names, order, channel suffixes and meaning.

Everything that needs a channel number, a layer name or a channel count asks this module; no
other file contains one. It imports neither torch nor mitsuba, so the renderer side and the
reconstruction side can both depend on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, get_args

from mitsuba_gdpt.errors import ConfigError, LayoutError

#: What the values of a buffer are, which says how they change:
#: radiance: with the exposure, the colours of the light and of the surfaces;
#: reflectance: with the colours of the surfaces;
#: direction: a unit vector of camera space, with the camera's axes;
#: point: a place in camera space, with its axes and the unit of length;
#: distance: a length, with the unit of length;
#: share: 0..1, with nothing;
#: count: of samples, with nothing;
#: displacement: a vector on the image, in pixels, with the image's axes.
Kind: TypeAlias = Literal[
    "radiance", "reflectance", "direction", "point", "distance", "share", "count", "displacement"
]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Buffer:
    """One named group of channels in the output of the ``gdpt`` integrator.

    Attributes:
        name: Layer name; also the attribute name on ``FrameBuffers`` (dots become underscores).
        suffixes: Channel names inside the layer, in tensor order.
        kind: What the values are; of a variance, what it is the variance of.
        doc: Meaning and unit.
        difference: Axis of (..., H, W, C) that it is the forward difference along, -2 (x) or -3
            (y); None for buffers that are no difference.
        demodulated: Whether networks that divide radiance by the albedo divide this.
        variance_of: Name of the buffer that it is the variance of, or None.
    """

    name: str
    suffixes: tuple[str, ...]
    kind: Kind
    doc: str
    difference: int | None = None
    demodulated: bool = False
    variance_of: str | None = None

    @property
    def attribute(self) -> str:
        """Attribute name on ``FrameBuffers``, for example ``dx_var``."""
        return self.name.replace(".", "_")

    @property
    def channels(self) -> tuple[str, ...]:
        """Full channel names as they appear in an EXR file, for example ``dx.R``."""
        if self.name == PRIMAL:  # the film's own colour: the root layer
            return self.suffixes
        if self.variance_of is not None:  # 'dx.var' is one channel inside the layer 'dx'
            return (self.name,)
        return tuple(f"{self.name}.{suffix}" for suffix in self.suffixes)

    def __len__(self) -> int:
        return len(self.suffixes)


PRIMAL = "primal"
DIRECT = "direct"
MOTION = "motion"
ERROR = "error"
SAMPLES = "samples"
VARIANCE_SUFFIX = ".var"
_RGB, _XYZ = ("R", "G", "B"), ("X", "Y", "Z")

#: Always present, in tensor order.
CORE: tuple[Buffer, ...] = (
    Buffer(
        PRIMAL,
        _RGB,
        "radiance",
        "path-traced radiance, scene-linear, directly visible light included",
        demodulated=True,
    ),
    Buffer("dx", _RGB, "radiance", "I[y, x+1] - I[y, x]; last column 0", -2, demodulated=True),
    Buffer(
        "dy", _RGB, "radiance", "I[y+1, x] - I[y, x], +y down; last row 0", -3, demodulated=True
    ),
    Buffer("albedo", _RGB, "reflectance", "reflectance at the feature vertex, 0..1"),
    Buffer("normal", _XYZ, "direction", "shading normal there, camera space, facing the camera"),
    Buffer(
        "depth",
        ("T",),
        "distance",
        "path length to the feature vertex, scene units; 0 where the ray escapes",
    ),
)

#: Present on request (``features="position,..."``), in this order.
OPTIONAL: tuple[Buffer, ...] = (
    Buffer(
        "position",
        _XYZ,
        "point",
        "feature vertex in camera space, scene units; 0 where it escapes",
    ),
    Buffer(
        "visibility",
        ("I",),
        "share",
        "unoccluded fraction of the base path's shadow rays, 1 if none",
    ),
    Buffer(
        "diffuse",
        _RGB,
        "radiance",
        "part of the primal scattered by diffuse lobes at the first rough hit",
    ),
    Buffer("specular", _RGB, "radiance", "primal - diffuse"),
    Buffer("roughness", ("I",), "share", "0 (mirror) .. 1 (diffuse) at the feature vertex"),
    Buffer(
        "emission",
        _RGB,
        "radiance",
        "part of the primal that is seen emitted, directly or in mirrors and glass",
    ),
    Buffer(
        DIRECT,
        _RGB,
        "radiance",
        "emission and what the feature vertex scatters of light that comes straight from emitters",
    ),
)

#: Present with ``variances=True``: variance of the pixel mean, averaged over the components. Those
#: of the core buffers always, those of diffuse and specular where these are.
VARIANCES: tuple[Buffer, ...] = tuple(
    Buffer(
        b.name + VARIANCE_SUFFIX,
        ("var",),
        b.kind,
        f"variance of the pixel mean of {b.name}",
        b.difference,
        b.demodulated,
        b.name,
    )
    for b in (*CORE, *OPTIONAL)
    if b in CORE or b.name in ("diffuse", "specular")
)

#: Not rendered but computed from a frame and its neighbours, and stored beside it.
DERIVED: tuple[Buffer, ...] = (
    Buffer(
        MOTION,
        ("X", "Y"),
        "displacement",
        "where the pixel's content was in the previous frame minus where it is, pixels, +Y down",
    ),
)

#: What :func:`mitsuba_gdpt.render` knows about an image, written beside what it was made of.
REPORTED: tuple[Buffer, ...] = (
    Buffer(SAMPLES, ("I",), "count", "samples of each pixel, where their numbers differ"),
    Buffer(
        ERROR,
        ("I",),
        "share",
        "estimated squared error of the reconstruction, relative to its squared brightness; its "
        "mean is the estimated relMSE",
    ),
)

#: Every buffer there is, in the order of a file that has them all.
TABLE: tuple[Buffer, ...] = (*CORE, *OPTIONAL, *VARIANCES, *DERIVED, *REPORTED)


def of_kind(*kinds: Kind) -> tuple[str, ...]:
    """Return the names of the buffers of these kinds, in table order, without variances."""
    return tuple(b.name for b in TABLE if b.kind in kinds and b.variance_of is None)


#: Buffers that are forward differences of the primal, and the axis of (..., H, W, C) of each.
DIFFERENCE_AXES: dict[str, int] = {
    b.name: b.difference for b in TABLE if b.difference is not None and b.variance_of is None
}
#: Those and their variances: what means nothing without offset paths.
GRADIENTS: tuple[str, ...] = tuple(b.name for b in TABLE if b.difference is not None)

_BY_NAME = {b.name: b for b in TABLE}


@dataclass(frozen=True)
class Layout:
    """An ordered choice of buffers: what the last axis of a buffer tensor means.

    Example:
        >>> Layout.make(features=("roughness",)).slices["roughness"]
        slice(16, 17, None)
    """

    buffers: tuple[Buffer, ...]

    @classmethod
    def make(cls, features: Iterable[str] = (), variances: bool = False) -> Layout:
        """Return the layout of a ``gdpt`` render with these options.

        Args:
            features: Names out of :data:`OPTIONAL`, in any order.
            variances: Append one variance channel per core buffer, and per diffuse and specular
                buffer that is wanted.

        Raises:
            ConfigError: A name is unknown, or a buffer of that name cannot be rendered.
        """
        wanted = set(features)
        known = {b.name for b in OPTIONAL}
        if reported := sorted(wanted & {b.name for b in REPORTED}):
            raise ConfigError(
                f"{', '.join(reported)} cannot be rendered: {ERROR} comes with a noise level, as "
                f"mitsuba_gdpt.render(scene, noise=0.01), {SAMPLES} with adaptive=True"
            )
        if derived := sorted(wanted & {b.name for b in DERIVED}):
            raise ConfigError(
                f"{', '.join(derived)} cannot be rendered: it takes the camera of the previous "
                f"frame. Leave it out and call mitsuba_gdpt.add_motion on the buffers"
            )
        if unknown := sorted(wanted - known):
            raise ConfigError(
                f"unknown feature(s) {', '.join(map(repr, unknown))}; "
                f"expected a comma-separated choice of: {', '.join(sorted(known))}"
            )
        optional = tuple(b for b in OPTIONAL if b.name in wanted)
        present = {b.name + VARIANCE_SUFFIX for b in CORE + optional} if variances else set()
        return cls(CORE + optional + tuple(b for b in VARIANCES if b.name in present))

    @classmethod
    def from_channels(cls, names: Sequence[str]) -> Layout:
        """Return the layout whose channel names are exactly ``names`` (order included).

        Raises:
            LayoutError: The names do not spell a sequence of known buffers.
        """
        found: list[Buffer] = []
        position = 0
        while position < len(names):
            for buffer in _BY_NAME.values():
                span = tuple(names[position : position + len(buffer)])
                if span == buffer.channels and buffer not in found:
                    found.append(buffer)
                    position += len(buffer)
                    break
            else:
                raise LayoutError(
                    f"channel {position} is named {names[position]!r}, which starts no buffer; "
                    f"expected names as listed by mitsuba_gdpt.channels (R, G, B, dx.R, dx.G, ...)"
                )
        return cls(tuple(found))

    @classmethod
    def from_count(cls, channels: int) -> Layout:
        """Guess the layout of an unnamed tensor from its channel count.

        Only the two default layouts can be told apart by a count: the core buffers alone and
        core + variances. Everything else needs the names.

        Raises:
            LayoutError: The count fits neither.
        """
        for variances in (False, True):
            layout = cls.make(variances=variances)
            if layout.count == channels:
                return layout
        raise LayoutError(
            f"got a tensor with {channels} channels; without names only "
            f"{cls.make().count} (core) and {cls.make(variances=True).count} (with variances) "
            f"are understood. Pass layout=integrator.layout or the list of channel names"
        )

    @classmethod
    def of(cls, names: Iterable[str]) -> Layout:
        """Return the layout of the buffers of these names, in table order.

        Raises:
            LayoutError: A name is unknown.
        """
        wanted = {buffer(name) for name in names}
        return cls(tuple(b for b in TABLE if b in wanted))

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """All channel names in tensor order."""
        return tuple(name for buffer in self.buffers for name in buffer.channels)

    @cached_property
    def count(self) -> int:
        """Number of channels."""
        return sum(len(buffer) for buffer in self.buffers)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Buffer names in tensor order."""
        return tuple(buffer.name for buffer in self.buffers)

    @cached_property
    def slices(self) -> dict[str, slice]:
        """Buffer name to its slice of the last axis."""
        result, start = {}, 0
        for buffer in self.buffers:
            result[buffer.name] = slice(start, start + len(buffer))
            start += len(buffer)
        return result

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def indices(self, names: Iterable[str]) -> list[int]:
        """Return the channel numbers of some buffers, in the order of this layout.

        Raises:
            LayoutError: There is no such buffer.
        """
        numbers = range(self.count)
        return [i for name in self.chosen(names).names for i in numbers[self.slices[name]]]

    def chosen(self, names: Iterable[str]) -> Layout:
        """Return the layout of some of these buffers, in the order of this layout.

        Raises:
            LayoutError: There is no such buffer.
        """
        wanted = set(names)
        if missing := sorted(wanted - set(self.names)):
            raise LayoutError(f"no buffer {', '.join(missing)}; there are: {', '.join(self.names)}")
        return Layout(tuple(b for b in self.buffers if b.name in wanted))


def buffer(name: str) -> Buffer:
    """Return the table row of a buffer name; raises :class:`LayoutError` for unknown names."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise LayoutError(f"unknown buffer {name!r}; known: {', '.join(_BY_NAME)}") from None
