"""What other programs call our buffers: the one table of their names.

A channel's full name is ``LAYER.SUFFIX``. Layers are compared without case, spaces, dots, dashes
and underscores, and with or without what stands before their last part (``ViewLayer.Combined``).
Imports neither torch nor mitsuba.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mitsuba_gdpt.channels import PRIMAL

_RGB, _XYZ = ("R", "G", "B"), ("X", "Y", "Z")
_ROOT = "<root>"  # what mi.Bitmap.split() calls the layer without a name

#: Names of a film's colour by their number, as far as it tells.
FILM = {1: ("Y",), 2: ("Y", "A"), 3: _RGB, 4: (*_RGB, "A")}
_FILM_XYZ = {3: _XYZ, 4: (*_XYZ, "A")}
_NESTED = (*_RGB, "A")
#: Suffixes that some programs write out.
_LONG = {"RED": "R", "GREEN": "G", "BLUE": "B", "ALPHA": "A"}

#: Normals of pbrt before its channels had dots.
_PBRT_OLD = frozenset(f"{layer}{suffix}" for layer in ("N", "Ns") for suffix in "xyz")


class Frame(enum.Enum):
    """The coordinate frame of directions in a layer."""

    #: Mitsuba's sensors: +X left, +Y up, +Z forward. That of our buffers.
    CAMERA = "camera"
    #: The camera of Cycles: as Mitsuba's, but +X right.
    MIRRORED = "mirrored"
    #: As MIRRORED, unless pbrt's film was told to use the world (``coordinatesystem``).
    PBRT = "pbrt"
    #: The world.
    WORLD = "world"
    #: The name does not say.
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Alias:
    """A name that some program gives to one of our buffers.

    Attributes:
        buffer: Name of ours.
        layer: The program's, as :func:`plain` makes it; empty for channels without a layer.
        program: Whose name it is.
        suffixes: Sets of channels that the layer may have, in our order.
        frame: Of directions; None for other buffers.
        parents: Whether something may stand before the layer's name.
    """

    buffer: str
    layer: str
    program: str
    suffixes: tuple[tuple[str, ...], ...] = (_RGB,)
    frame: Frame | None = None
    parents: bool = True


def _directions(layer: str, program: str, frame: Frame, parents: bool = True) -> Alias:
    return Alias("normal", layer, program, (_XYZ, _RGB), frame, parents)


def _depth(layer: str, program: str) -> Alias:
    return Alias("depth", layer, program, (("T",), ("Z",), ("V",), ("Y",), ("R",)), None)


#: Of several that a file has, the first one counts.
ALIASES: tuple[Alias, ...] = (
    Alias(PRIMAL, "noisyimage", "Blender"),  # 'Combined' is denoised where this one is there
    Alias(PRIMAL, "", "any", parents=False),
    Alias(PRIMAL, "primal", "NGPT", parents=False),
    Alias(PRIMAL, "color", "OIDN", parents=False),
    Alias(PRIMAL, "beauty", "any", parents=False),
    Alias(PRIMAL, "rgba", "any", parents=False),
    Alias(PRIMAL, "rgb", "any", parents=False),
    Alias(PRIMAL, "combined", "Blender"),
    # Gradients never inside another layer: there, gdpt leaves them 0.
    Alias("dx", "dx", "NGPT", parents=False),
    Alias("dy", "dy", "NGPT", parents=False),
    Alias("albedo", "denoisingalbedo", "Blender"),
    Alias("albedo", "albedo", "Mitsuba, OIDN, pbrt"),
    Alias("albedo", "visiblediffuse", "OIDN's split_exr"),
    Alias("albedo", "diffcol", "Blender"),
    _directions("denoisingnormal", "Blender", Frame.MIRRORED),
    _directions("shnormal", "Mitsuba's aov, by its type", Frame.WORLD),
    _directions("geonormal", "Mitsuba's aov, by its type", Frame.WORLD),
    _directions("normal", "any", Frame.UNKNOWN),
    _directions("normals", "Mitsuba, OptixDenoiser", Frame.UNKNOWN),
    _directions("nrm", "OIDN", Frame.UNKNOWN),
    _directions("visiblenormals", "OIDN's split_exr", Frame.UNKNOWN),
    _directions("optixnormals", "OIDN's split_exr", Frame.UNKNOWN),
    _directions("nn", "Mitsuba", Frame.UNKNOWN),
    _directions("ns", "pbrt", Frame.PBRT, parents=False),
    _directions("n", "pbrt, Mitsuba", Frame.UNKNOWN, parents=False),
    _depth("denoisingdepth", "Blender"),
    _depth("depth", "Mitsuba, NGPT, Blender"),
    _depth("dd", "Mitsuba"),
    _depth("ddy", "Mitsuba"),
    Alias("depth", "", "any", (("Z",),), None, parents=False),
)


@dataclass(frozen=True)
class Match:
    """A buffer that was found among named channels.

    Attributes:
        alias: The row of the table.
        layer: The layer as the file names it.
        indices: Where its channels are among the names, in our order.
        parent: What stands before the layer's own name.
    """

    alias: Alias
    layer: str
    indices: tuple[int, ...]
    parent: str = ""

    @property
    def frame(self) -> Frame | None:
        """The coordinate frame, where layer and parent tell it."""
        if self.alias.layer == "normal" and self.parent:  # Blender's pass of a view layer
            return Frame.WORLD
        return self.alias.frame


def plain(layer: str) -> str:
    """Return a layer's name as the table has it."""
    return "".join(c for c in layer.lower() if c not in " ._-")


def find(names: Sequence[str], within: str | None = None) -> dict[str, Match]:
    """Find our buffers among channel names.

    Args:
        names: Full names of channels, such as ``albedo.R``, in any order.
        within: What stands before the layers that count, besides those with nothing before them:
            a view layer of Blender's. By default that of the image, if there is something.

    Returns:
        Buffer name to what was found; without what is incomplete.
    """
    layers = _layers(names)
    if within is None:
        within = next(iter(_view_layers(layers)), "")
    found: dict[str, Match] = {}
    for alias in ALIASES:
        matches = (m for m in _matches(alias, layers) if not within or m.parent in ("", within))
        if alias.buffer not in found and (match := next(matches, None)) is not None:
            found[alias.buffer] = match
    return found


def view_layers(names: Sequence[str]) -> list[str]:
    """Return what stands before the names of images; where it differs, it is a view layer's name.

    The first one is that of the image that :func:`find` finds, with most buffers beside it.
    """
    return _view_layers(_layers(names))


def _view_layers(layers: Mapping[str, Mapping[str, int]]) -> list[str]:
    images: dict[str, None] = {}
    for alias in ALIASES:
        if alias.buffer != PRIMAL:
            continue
        parents = [match.parent for match in _matches(alias, layers)]
        images |= dict.fromkeys(sorted(parents, key=lambda p: -_count(p, layers)))
    return list(images)


def _count(parent: str, layers: Mapping[str, Mapping[str, int]]) -> int:
    """Return how many of our buffers something before layers' names has."""
    return len(
        {a.buffer for a in ALIASES for match in _matches(a, layers) if match.parent == parent}
    )


def _matches(alias: Alias, layers: Mapping[str, Mapping[str, int]]) -> Iterator[Match]:
    for layer, channels in layers.items():
        parent, _, last = layer.rpartition(".")
        whole = plain(layer) == alias.layer
        if not whole and not (alias.parents and parent and plain(last) == alias.layer):
            continue
        if alias.buffer == "depth" and not layer and channels.keys() >= {*_XYZ}:
            continue  # Z of a film of XYZ
        if (indices := _indices(channels, alias.suffixes)) is not None:
            yield Match(alias, layer, indices, "" if whole else parent)


def lone_layer(names: Sequence[str]) -> str | None:
    """Return the layer of R, G and B that is all there is, and no feature by its name; or None."""
    layers = _layers(names)
    if len(layers) != 1:
        return None
    ((layer, channels),) = layers.items()
    colour = _indices(channels, (_RGB,)) is not None and not is_feature(layer, _RGB)
    return layer if colour else None


def is_feature(layer: str, suffixes: Sequence[str]) -> bool:
    """Tell whether a layer of these channels is a buffer of ours other than the image."""
    return any(name != PRIMAL for name in find([f"{layer}.{suffix}" for suffix in suffixes]))


def torn(names: Sequence[str]) -> list[str]:
    """Return the layers of buffers that were not found since some of their channels are missing."""
    found = find(names)
    wanted = {alias.layer for alias in ALIASES if alias.layer and alias.buffer not in found}
    return [layer for layer in _layers(names) if plain(layer) in wanted]


def render_names(aovs: Sequence[str], count: int, xyz: bool = False) -> list[str] | None:
    """Name the channels of the tensor that ``mi.render`` returns with one of Mitsuba's integrators.

    That of ``aov`` begins with the renders of the integrators inside, each with the colour of the
    film, where the film itself has R, G, B and A of each as AOVs; the first one is the image.

    Args:
        aovs: ``integrator.aov_names()``.
        count: Channels of the tensor.
        xyz: Whether the film's colour is XYZ.

    Returns:
        ``count`` names; None if the integrator makes no such tensor.
    """
    film = FILM | _FILM_XYZ if xyz else FILM
    nested: list[str] = []
    for index, name in enumerate(aovs):
        layer = name.removesuffix(".R")
        four = [f"{layer}.{suffix}" for suffix in _NESTED]
        outer = any(layer.startswith(f"{other}.") for other in nested)
        if layer != name and list(aovs[index : index + 4]) == four and not outer:
            nested.append(layer)
    if not nested:
        colour = film.get(count - len(aovs))
        return None if colour is None else [*colour, *aovs]
    colours, rest = divmod(count - (len(aovs) - 4 * len(nested)), len(nested))
    if rest or colours not in film:
        return None
    names: list[str] = []
    for name in aovs:
        layer, _, suffix = name.rpartition(".")
        if layer not in nested:
            names.append(name)
        elif suffix == "R":
            first = layer == nested[0]
            names += [c if first else f"{layer}.{c}" for c in film[colours]]
    return names


def find_layer(
    names: Sequence[str], layer: str, suffixes: Iterable[tuple[str, ...]] = (_RGB, _XYZ)
) -> tuple[int, ...] | None:
    """Return where the channels of a layer are, given its exact name; None if it is not there."""
    return _indices(_layers(names).get("" if layer == _ROOT else layer, {}), suffixes)


def _layers(names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Group channel names: layer, then suffix in capitals, to position."""
    layers: dict[str, dict[str, int]] = {}
    for index, name in enumerate(names):
        layer, _, suffix = name.removeprefix(f"{_ROOT}.").rpartition(".")
        if not layer and name in _PBRT_OLD:
            layer, suffix = name[:-1], name[-1]
        suffix = suffix.upper()
        layers.setdefault(layer, {}).setdefault(_LONG.get(suffix, suffix), index)
    return layers


def _indices(
    channels: Mapping[str, int], suffixes: Iterable[tuple[str, ...]]
) -> tuple[int, ...] | None:
    for wanted in suffixes:
        if all(suffix in channels for suffix in wanted):
            return tuple(channels[suffix] for suffix in wanted)
    return None
