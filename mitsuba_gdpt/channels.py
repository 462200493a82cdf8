"""The one table of buffers: names, order, channel suffixes and meaning.

Everything that needs a channel number, a layer name or a channel count asks this module; no
other file contains one. It imports neither torch nor mitsuba, so the renderer side and the
reconstruction side can both depend on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mitsuba_gdpt.errors import ConfigError, LayoutError


@dataclass(frozen=True)
class Buffer:
    """One named group of channels in the output of the ``gdpt`` integrator.

    Attributes:
        name: Layer name; also the attribute name on ``FrameBuffers`` (dots become underscores).
        suffixes: Channel names inside the layer, in tensor order.
        doc: Meaning and unit.
        signed: True where negative values are legitimate.
    """

    name: str
    suffixes: tuple[str, ...]
    doc: str
    signed: bool = False

    @property
    def attribute(self) -> str:
        """Attribute name on ``FrameBuffers``, for example ``dx_var``."""
        return self.name.replace(".", "_")

    @property
    def channels(self) -> tuple[str, ...]:
        """Full channel names as they appear in an EXR file, for example ``dx.R``."""
        if self.name == PRIMAL:  # the film's own colour: the root layer
            return self.suffixes
        if self.name.endswith(VARIANCE_SUFFIX):  # 'dx.var' is one channel inside the layer 'dx'
            return (self.name,)
        return tuple(f"{self.name}.{suffix}" for suffix in self.suffixes)

    def __len__(self) -> int:
        return len(self.suffixes)


PRIMAL = "primal"
MOTION = "motion"
VARIANCE_SUFFIX = ".var"
_RGB, _XYZ = ("R", "G", "B"), ("X", "Y", "Z")

#: Always present, in tensor order.
CORE: tuple[Buffer, ...] = (
    Buffer(PRIMAL, _RGB, "path-traced radiance, scene-linear, directly visible light included"),
    Buffer("dx", _RGB, "I[y, x+1] - I[y, x]; last column 0", signed=True),
    Buffer("dy", _RGB, "I[y+1, x] - I[y, x], +y down; last row 0", signed=True),
    Buffer("albedo", _RGB, "reflectance at the feature vertex, 0..1"),
    Buffer("normal", _XYZ, "shading normal there, camera space, facing the camera", signed=True),
    Buffer(
        "depth", ("T",), "path length to the feature vertex, scene units; 0 where the ray escapes"
    ),
)

#: Present on request (``features="position,..."``), in this order.
OPTIONAL: tuple[Buffer, ...] = (
    Buffer(
        "position", _XYZ, "feature vertex in camera space, scene units; 0 where it escapes", True
    ),
    Buffer("visibility", ("I",), "unoccluded fraction of the base path's shadow rays, 1 if none"),
    Buffer("diffuse", _RGB, "part of the primal scattered by diffuse lobes at the first rough hit"),
    Buffer("specular", _RGB, "primal - diffuse"),
    Buffer("roughness", ("I",), "0 (mirror) .. 1 (diffuse) at the feature vertex"),
    Buffer(
        "emission",
        _RGB,
        "part of the primal that is seen emitted, directly or in mirrors and glass",
    ),
)

#: Present with ``variances=True``: variance of the pixel mean, averaged over the components. Those
#: of the core buffers always, those of diffuse and specular where these are.
VARIANCES: tuple[Buffer, ...] = tuple(
    Buffer(b.name + VARIANCE_SUFFIX, ("var",), f"variance of the pixel mean of {b.name}")
    for b in (*CORE, *OPTIONAL)
    if b in CORE or b.name in ("diffuse", "specular")
)

#: Not rendered but computed from a frame and its neighbours, and stored beside it.
DERIVED: tuple[Buffer, ...] = (
    Buffer(
        MOTION,
        ("X", "Y"),
        "where the pixel's content was in the previous frame minus where it is, pixels, +Y down",
        signed=True,
    ),
)

#: Every buffer there is, in the order of a file that has them all.
TABLE: tuple[Buffer, ...] = (*CORE, *OPTIONAL, *VARIANCES, *DERIVED)

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
        if derived := sorted(wanted & {b.name for b in DERIVED}):
            raise ConfigError(
                f"{', '.join(derived)} cannot be rendered: it takes the camera of the previous "
                f"frame. Leave it out and call mitsuba_gdpt.data.motion.add_motion on the buffers"
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

    @property
    def channels(self) -> tuple[str, ...]:
        """All channel names in tensor order."""
        return tuple(name for buffer in self.buffers for name in buffer.channels)

    @property
    def count(self) -> int:
        """Number of channels."""
        return sum(len(buffer) for buffer in self.buffers)

    @property
    def names(self) -> tuple[str, ...]:
        """Buffer names in tensor order."""
        return tuple(buffer.name for buffer in self.buffers)

    @property
    def slices(self) -> dict[str, slice]:
        """Buffer name to its slice of the last axis."""
        result, start = {}, 0
        for buffer in self.buffers:
            result[buffer.name] = slice(start, start + len(buffer))
            start += len(buffer)
        return result

    def __contains__(self, name: str) -> bool:
        return name in self.names


def buffer(name: str) -> Buffer:
    """Return the table row of a buffer name; raises :class:`LayoutError` for unknown names."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise LayoutError(f"unknown buffer {name!r}; known: {', '.join(_BY_NAME)}") from None
