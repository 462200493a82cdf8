"""The parameters of the ``gdpt`` plugin: the one place that lists them.

:class:`Parameters` checks values, describes itself, is part of the key of recorded kernels, and is
what the plugin's docstring and the table in docs/reference/integrator.md are made of.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mitsuba_gdpt import channels
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Container

    import mitsuba as mi

#: Mitsuba's depths are signed 32-bit numbers.
_MOST_DEPTH = 2**31 - 1
#: Dr.Jit counts lanes in 32 bits.
MOST_LANES = 2**32 - 1
#: Offset paths per base path, of plugin, command line, data sets and evaluations: the best for the
#: default denoiser at equal time.
DEFAULT_SHIFTS = 1
_OPTIONAL = [buffer.name for buffer in channels.OPTIONAL]


class _Choice(tuple[int, ...]):
    """A few values; reads like a range in messages."""

    def __str__(self) -> str:
        return f"{', '.join(map(str, self[:-1]))} or {self[-1]}"


@dataclass(frozen=True)
class _Range:
    """Whole numbers from ``low`` to ``high``, both included."""

    low: int
    high: int
    note: str = ""

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low}{self.note} to {self.high}"


def _parameter(default: Any, doc: str, allowed: Container[int] | None = None) -> Any:
    return field(default=default, metadata={"doc": doc, "allowed": allowed})


@dataclass(frozen=True)
class Parameters:
    """Values of all parameters; hashable, and equal where renders are.

    Raises:
        ConfigError: A value makes no sense.
    """

    max_depth: int = _parameter(
        -1,
        "Longest path depth, as in ``path``; -1 is infinite. 1 shows directly visible emitters "
        "only.",
        _Range(-1, _MOST_DEPTH, " (infinite)"),
    )
    rr_depth: int = _parameter(
        3,
        "Path depth at which Russian roulette begins. It ends paths that have lost more than half "
        "of the throughput with which they left the first vertex that scatters light; from depth "
        "16 on, a twentieth of all others.",
        _Range(1, _MOST_DEPTH),
    )
    hide_emitters: bool = _parameter(False, "Hide directly visible emitters.")
    shifts: int = _parameter(
        DEFAULT_SHIFTS,
        "Offset paths per base path. 1: right, down, left and up in turns. 2: right and down or "
        "left and up on alternating samples. 4: right, left, down and up. Renders of fewer than "
        "4 / shifts samples estimate a difference from one of its two pixels alone, by turns of "
        "chance. 0: none, gradients are not estimated and stay 0.",
        _Choice((0, 1, 2, 4)),
    )
    features: str = _parameter(
        "",
        f"Comma-separated optional buffers: {', '.join(_OPTIONAL)}.",
    )
    variances: bool = _parameter(
        False,
        "Append the variance of the pixel mean of each core buffer, and of diffuse and specular "
        "where they are wanted; needs two samples or more. Where a part of a gradient rests on one "
        "sample (fewer than 4 samples with two shifts, than 8 with one), its square counts as its "
        "variance: an upper bound on average.",
    )
    shared_subpixel: bool = _parameter(
        True,
        "Pinhole cameras: use one sub-pixel position per sample index in all pixels, so that the "
        "primary hits of neighbours can be shared.",
    )
    stratified: bool = _parameter(
        True,
        "Where the sensor's sampler is ``independent``, draw numbers that are stratified over the "
        "samples of each pixel, and over blocks of pixels, instead. Any other sampler is used as "
        "it is.",
    )
    emitter_importance: bool = _parameter(
        True,
        "Choose the emitters that are sampled by estimated irradiance (flux over squared distance "
        "and cosines, times their ``sampling_weight``), not by ``sampling_weight`` alone, and "
        "directions to the environment by its radiance and how much of it is visible.",
    )
    features_only: bool = _parameter(
        False,
        "End paths at the vertex whose features are recorded: albedo, normal, depth, position and "
        "roughness as always, no light but what is seen directly or through mirrors and glass, and "
        "no offset paths.",
    )
    max_lanes: int = _parameter(
        1 << 22,
        "Largest number of paths per pass; larger jobs are split into tiles. Bounds the memory, "
        "about 0.3 kB per lane.",
        _Range(1, MOST_LANES),
    )
    freeze: bool = _parameter(
        False,
        "Record the kernels of a render, and launch them again while the same scene and sensor, "
        "unchanged, are rendered with other seeds: saves about 0.1 s each time. Any change is "
        "traced anew.",
    )

    def __post_init__(self) -> None:
        for item in fields(self):
            allowed = item.metadata["allowed"]
            value = _checked(item.name, getattr(self, item.name), type(item.default), allowed)
            object.__setattr__(self, item.name, value)
        # In the order of the table, each name once.
        names = (name for name in self.layout.names if name in _OPTIONAL)
        object.__setattr__(self, "features", ",".join(names))

    @classmethod
    def from_properties(cls, props: mi.Properties) -> Parameters:
        """Read the parameters of a plugin in a scene."""
        return cls(**{name: props.get(name, default) for name, default in cls.defaults().items()})

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the default values by name, in the order of the manual."""
        return {item.name: item.default for item in fields(cls)}

    @property
    def layout(self) -> Layout:
        """What the channels of a render mean."""
        return Layout.make(feature_names(self.features), self.variances)

    def with_layout(self, layout: Layout) -> Parameters:
        """Return a copy whose renders have these channels.

        Raises:
            ConfigError: No choice of ``features`` and ``variances`` gives them.
        """
        names = ",".join(name for name in layout.names if name in _OPTIONAL)
        variances = any(name.endswith(channels.VARIANCE_SUFFIX) for name in layout.names)
        changed = replace(self, features=names, variances=variances)
        if changed.layout != layout:
            raise ConfigError(
                f"a render cannot have the channels {', '.join(layout.channels)}; expected a "
                "layout of Layout.make(features, variances)"
            )
        return changed

    @property
    def offset_paths(self) -> int:
        """Offset paths that are traced per base path."""
        return 0 if self.features_only else self.shifts

    @property
    def least_spp(self) -> int:
        """Samples that a render needs."""
        return 2 if self.variances else 1

    def __str__(self) -> str:
        lines = (f"  {item.name} = {_text(getattr(self, item.name))}" for item in fields(self))
        return "GDPTIntegrator[\n" + ",\n".join(lines) + "\n]"

    @classmethod
    def table(cls) -> str:
        """Return the Markdown table of docs/reference/integrator.md."""
        lines = ["| parameter | type | default | meaning |", "| --- | --- | --- | --- |"]
        for item in fields(cls):
            meaning = item.metadata["doc"].replace("``", "`")
            kind, default = type(item.default).__name__, _text(item.default)
            lines.append(f"| `{item.name}` | {kind} | `{default}` | {meaning} |")
        return "\n".join(lines)

    @classmethod
    def plugin_parameters(cls) -> str:
        """Return the directive that Mitsuba's manual describes parameters with."""
        lines = [".. pluginparameters::", ""]
        for item in fields(cls):
            kinds = {"str": "string"}
            kind = kinds.get(type(item.default).__name__, type(item.default).__name__)
            meaning = f"{item.metadata['doc']} (Default: {_text(item.default)})"
            lines += [f" * - {item.name}", f"   - |{kind}|", f"   - {meaning}"]
        return "\n".join(lines)


def feature_names(text: str) -> list[str]:
    """Return the names that the parameter ``features`` lists."""
    return [name for name in (word.strip() for word in text.split(",")) if name]


def _checked(name: str, value: Any, kind: type, allowed: Container[int] | None) -> Any:
    """Return a value as ``bool``, ``int`` or ``str``."""
    is_bool = isinstance(value, bool | np.bool_)  # which Python counts among the integers
    if kind is bool and is_bool:
        return bool(value)
    if kind is int and isinstance(value, numbers.Integral) and not is_bool:
        if allowed is not None and int(value) not in allowed:
            raise ConfigError(f'"{name}" is {value}; expected {allowed}')
        return int(value)
    if kind is str and isinstance(value, str):
        return value
    expected = {bool: "true or false", int: f"a whole number, {allowed}", str: "text"}[kind]
    raise ConfigError(f'"{name}" is {value!r}; expected {expected}')


def _text(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
