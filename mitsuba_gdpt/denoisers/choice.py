"""Which method is used where none is named: levels of quality, each with what to fall back to."""

from __future__ import annotations

from dataclasses import dataclass

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import GRADIENTS, MOTION, OPTIONAL, Layout
from mitsuba_gdpt.denoisers.registry import Call, find
from mitsuba_gdpt.errors import ConfigError, LayoutError


@dataclass(frozen=True)
class Candidate:
    """A way to reconstruct an image.

    Attributes:
        text: Method with options, as for :meth:`~mitsuba_gdpt.denoisers.registry.Call.parse`.
        seconds_per_megapixel: What it takes on two CPU cores, roughly.
        needs: Names of the buffers that its options ask for besides those that the method needs.
    """

    text: str
    seconds_per_megapixel: float
    needs: tuple[str, ...] = ()

    @property
    def call(self) -> Call:
        """The method with options."""
        return Call.parse(self.text)

    def obstacle(self, layout: Layout | None) -> str | None:
        """Say why it cannot run here on such buffers, or return None if it can.

        Args:
            layout: What the buffers are; without it, as if they held everything.
        """
        if (error := self.call.obstacle) is not None:
            return f"{self.text}: {error}"
        needs = (*self.call.requires, *self.needs)
        if layout is not None and (missing := [name for name in needs if name not in layout]):
            return f"{self.text} needs {', '.join(dict.fromkeys(missing))}"
        return None


@dataclass(frozen=True)
class Level:
    """A level of quality.

    Attributes:
        candidates: The first that can run is used.
        doc: One line.
    """

    candidates: tuple[Candidate, ...]
    doc: str


_GUIDES = ("albedo", "normal")
_RAW = Candidate("oidn(aux=raw)", 1.4, _GUIDES)
_CLEAN = Candidate("oidn(aux=clean)", 3.1, _GUIDES)
_SPLIT = Candidate("oidn(aux=clean, split=true)", 6.3, _GUIDES)
_TWICE = Candidate("oidn(aux=clean, ensemble=2)", 6.3, _GUIDES)
_ALONE = Candidate("oidn(aux=none)", 1.2)
# Where OIDN is not installed.
_POISSON = Candidate("poisson-l1", 0.8)

#: Levels of quality, by rising cost.
LEVELS: dict[str, Level] = {
    "fast": Level(
        (Candidate(f"ngpt-fusion(using={_RAW.text})", 2.1), _RAW, _ALONE, _POISSON),
        "one pass of OIDN's smaller network, fused with the gradients",
    ),
    "balanced": Level(
        (Candidate("ngpt-fusion", 4.0), _CLEAN, _ALONE, _POISSON),
        "one pass of OIDN's large network, fused with the gradients",
    ),
    "high": Level(
        (
            Candidate(f"ngpt-fusion(using={_SPLIT.text})", 7.3),
            Candidate(f"ngpt-fusion(using={_TWICE.text})", 7.3),
            _SPLIT,
            _TWICE,
            _ALONE,
            _POISSON,
        ),
        "the large network on direct and indirect light apart (without the buffer direct: on two "
        "mirror images), fused with the gradients",
    ),
}
#: The level where none is named.
DEFAULT_QUALITY = "balanced"


def find_level(quality: str | None) -> Level:
    """Return a level of quality.

    Args:
        quality: A key of :data:`LEVELS`; by default :data:`DEFAULT_QUALITY`.

    Raises:
        ConfigError: There is none of that name.
    """
    quality = DEFAULT_QUALITY if quality is None else quality
    if quality not in LEVELS:
        raise ConfigError(f"quality is {quality!r}; expected one of: {', '.join(LEVELS)}")
    return LEVELS[quality]


def extra_buffers(quality: str | None = None) -> tuple[str, ...]:
    """Return the names of optional buffers that a level of quality makes use of here.

    Args:
        quality: A key of :data:`LEVELS`; by default :data:`DEFAULT_QUALITY`.

    Raises:
        ConfigError: There is no such level.
    """
    optional = {row.name for row in OPTIONAL}
    for candidate in find_level(quality).candidates:
        if candidate.obstacle(None) is None:
            return tuple(name for name in candidate.call.requires if name in optional)
    return ()


def usable_layout(frame: FrameBuffers) -> Layout:
    """Return what a frame holds, without gradients that are zero everywhere.

    ``gdpt`` with ``shifts=0`` samples none and leaves them at 0. A method that reads gradients
    would take that for the word of the samples that the image is flat.
    """
    if any(bool(frame[name].any()) for name in GRADIENTS if name in frame):
        return frame.layout
    return without_gradients(frame.layout)


def without_gradients(layout: Layout) -> Layout:
    """Return a layout without the gradients and their variances."""
    return layout.chosen(name for name in layout.names if name not in GRADIENTS)


def default_call(layout: Layout | None = None, quality: str | None = None) -> Call:
    """Return the method, with its options, that ``denoise()`` uses where none is named.

    Args:
        layout: What the buffers are; without it, as if they held everything.
        quality: A key of :data:`LEVELS`; by default :data:`DEFAULT_QUALITY`.

    Raises:
        ConfigError: There is no such level.
        LayoutError: No method of the level can run here on such buffers.
    """
    return default_candidate(layout, quality).call


def default_candidate(layout: Layout | None = None, quality: str | None = None) -> Candidate:
    """Return what :func:`default_call` is the call of, with what it takes.

    Args:
        layout: See :func:`default_call`.
        quality: See :func:`default_call`.

    Raises:
        GDPTError: See :func:`default_call`.
    """
    obstacles = []
    for candidate in find_level(quality).candidates:
        if (obstacle := candidate.obstacle(layout)) is None:
            return candidate
        obstacles.append(obstacle)
    given = "any buffers" if layout is None else f"the buffers {', '.join(layout.names)}"
    raise LayoutError(f"no method can run here on {given}: {'; '.join(obstacles)}")


def default_sequence_call(layout: Layout, quality: str | None = None) -> Call:
    """Return the method, with its options, that streams use where none is named.

    Args:
        layout: What the buffers of the first frame are.
        quality: See :func:`default_call`.

    Raises:
        GDPTError: See :func:`default_call`.
    """
    single = default_call(layout, quality)
    if all(name in layout for name in (*find("temporal").needs, MOTION)):
        return Call("temporal", {"using": single})
    return single
