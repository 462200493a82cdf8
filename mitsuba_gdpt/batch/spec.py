"""What a batch consists of, as frozen dataclasses and as a TOML file."""

from __future__ import annotations

import os
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from mitsuba_gdpt import checks, toml
from mitsuba_gdpt.data.frame_plan import MOST_FRAMES
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.rendering.sequence import LEAST_SPP
from mitsuba_gdpt.scenes import SceneRef

T = TypeVar("T")

DEFAULT_NAME = "{scene}/{sensor}-{integrator}-{spp}spp-{seed}-{denoiser}.exr"
#: The same where jobs have a time instead of a number of samples.
TIMED_NAME = DEFAULT_NAME.replace("{spp}spp", "{seconds:g}s")
#: Suffix of the files of images; sequences are folders.
SUFFIX = ".exr"
_DEFAULT_SPP = (16,)
_WHOLE = (0.0, 1.0)

#: What tells jobs apart: the placeholders of names, and the keys that an override can match. A job
#: has either spp or seconds.
AXES = ("scene", "sensor", "integrator", "spp", "seconds", "seed", "denoiser")
#: What an override can change. Tables are merged into what is there, all else replaces it.
OVERRIDABLE = (
    "width",
    "height",
    "parameters",
    "settings",
    "options",
    "exposure",
    "reference",
    "metrics",
    "png",
    "skip",
)
_FORMAT = re.compile(r"(?:[^{}]?[<>=^])?0?\d{0,2}(?:\.\d{1,2})?[a-z]?")
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _check_label(what: str, label: str) -> None:
    if not _LABEL.fullmatch(label):
        raise ConfigError(
            f"{what}: got the name {label!r}; expected letters, digits, '.', '_' and '-', because "
            "it becomes part of file names"
        )
    checks.file_name(what, label)


def _check_settings(what: str, settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        checks.setting(f"{what}: {key}", value)


def _check_values(values: Mapping[str, Any]) -> None:
    """Check what a batch and an override have in common, as far as it is there."""
    for key in ("width", "height"):
        if (value := values.get(key)) is not None:
            checks.pixels(key, value)
    if "exposure" in values:
        checks.stops("exposure", values["exposure"])
    for key in ("settings", "options"):
        _check_settings(key, values.get(key, {}))


@dataclass(frozen=True)
class SceneChoice:
    """One scene.

    Attributes:
        source: Path of an XML file, or ``builtin:NAME``.
        name: Label; by default the scene's own name.
        parameters: Values for the ``$name`` parameters of an XML file.
        reference: EXR files of one reference, or of two independent halves; empty for none.
    """

    source: str
    name: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    reference: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", SceneRef.parse(self.source).name)
        _check_label("scene", self.name)
        if len(self.reference) > 2:
            raise ConfigError(
                f"scene {self.name!r}: got {len(self.reference)} files as reference; expected one, "
                "or two independent halves"
            )


@dataclass(frozen=True)
class IntegratorChoice:
    """Settings of ``gdpt`` under a label.

    Attributes:
        name: Label.
        settings: Parameters of the plugin; they take precedence over what the scene asks for.
    """

    name: str = "gdpt"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_label("integrator", self.name)
        _check_settings(f"integrator {self.name!r}", self.settings)


@dataclass(frozen=True)
class Override:
    """Other values for some jobs.

    Attributes:
        match: Axis (out of :data:`AXES`) to a label or number, or a tuple of them; a job has to
            agree in all.
        values: Out of :data:`OVERRIDABLE`; ``skip=True`` removes the jobs.
    """

    match: Mapping[str, Any]
    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        for what, given, known in (("match", self.match, AXES), ("set", self.values, OVERRIDABLE)):
            if not given:
                raise ConfigError(
                    f"got an override with nothing to {what}; known: {', '.join(known)}"
                )
            if unknown := [key for key in given if key not in known]:
                raise ConfigError(
                    f"an override cannot {what} {', '.join(map(repr, unknown))}; "
                    f"known: {', '.join(known)}"
                )
        _check_values(self.values)

    def matches(self, labels: Mapping[str, Any]) -> bool:
        """Tell whether a job of these labels is meant."""
        return all(labels[axis] in _as_tuple(wanted) for axis, wanted in self.match.items())


@dataclass(frozen=True)
class Batch:
    """The axes of the product, and what is made of each combination.

    Attributes:
        scenes: Scenes.
        output: Folder of all results; made if it is missing.
        integrators: Settings of the integrator.
        denoisers: Reconstruction methods by their labels: calls or the text of calls. None is the
            best one that can run here on what the integrator records, as in
            :func:`mitsuba_gdpt.denoise`. A sequence of such gets the text of each as its label,
            with ``-`` for what no file name should have.
        sensors: Indices of sensors, for all scenes.
        spp: Samples per pixel.
        seconds: Instead of ``spp``: times for rendering and reconstruction, as in
            :func:`mitsuba_gdpt.render`. Then every job renders for itself.
        seeds: Seeds of the random numbers.
        fly_through: Instead of images: so many frames of the fly-through that a catalogue has for
            each scene, ``seconds`` or ``spp`` being the budget of all, as in
            :func:`mitsuba_gdpt.render_sequence`. Then every job renders for itself.
        span: Part of the fly-through that the frames cover, as times 0..1.
        name: Template of the EXR files, relative to ``output``; PNG and JSON get the same name. By
            default :data:`DEFAULT_NAME`, or :data:`TIMED_NAME` with ``seconds``. Of folders, with
            the same names without the suffix, where there is a ``fly_through``.
        title: Heading of the gallery.
        width: Image width in pixels; see :func:`mitsuba_gdpt.rendering.open_source`.
        height: Image height in pixels.
        exposure: Stops for PNG and gallery, on top of the scene's own exposure.
        metrics: Names of metrics, computed where a scene has a reference.
        png: Whether to write PNG files.
        gallery: Whether to write ``gallery.html``.
        overrides: Later ones win.

    Raises:
        ConfigError: A value makes no sense, or labels are not unique.
    """

    scenes: tuple[SceneChoice, ...]
    output: Path
    integrators: tuple[IntegratorChoice, ...] = (IntegratorChoice(),)
    denoisers: Mapping[str, Call | None] | Sequence[Call | str | None] = (None,)
    sensors: tuple[int, ...] = (0,)
    spp: tuple[int, ...] = _DEFAULT_SPP
    seconds: tuple[float, ...] = ()
    seeds: tuple[int, ...] = (0,)
    fly_through: int | None = None
    span: tuple[float, float] = _WHOLE
    name: str = ""
    title: str = "Batch"
    width: int | None = None
    height: int | None = None
    exposure: float = 0.0
    metrics: tuple[str, ...] = ("relmse",)
    png: bool = True
    gallery: bool = True
    overrides: tuple[Override, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            name = TIMED_NAME if self.seconds else DEFAULT_NAME
            name = name if self.fly_through is None else name.removesuffix(SUFFIX)
            object.__setattr__(self, "name", name)
        for axis in ("scenes", "integrators", "denoisers", "sensors", "spp", "seconds", "seeds"):
            values = list(self.calls) if axis == "denoisers" else getattr(self, axis)
            labels = [getattr(value, "name", value) for value in values]
            if not labels and axis != "seconds":
                raise ConfigError(f"got no {axis}; expected at least one")
            if twice := sorted(str(label) for label, n in Counter(labels).items() if n > 1):
                raise ConfigError(
                    f"{axis}: {', '.join(twice)} comes twice; give each entry a name of its own"
                )
        if self.seconds and self.spp != _DEFAULT_SPP:
            raise ConfigError("got both spp and seconds; expected one of them")
        least = 1 if self.fly_through is None else LEAST_SPP
        for spp in self.spp:
            checks.spp("spp", spp, least=least)
        for seconds in self.seconds:
            checks.real("seconds", seconds, above=0)
        for axis in ("sensors", "seeds"):
            for number in getattr(self, axis):
                checks.whole(axis, number)
        _check_values({"width": self.width, "height": self.height, "exposure": self.exposure})
        self._check_fly_through()
        absent = "spp" if self.seconds else "seconds"
        if absent in check_template(self.name, folders=self.fly_through is not None):
            raise ConfigError(
                f"name: {self.name!r} has {{{absent}}}, which these jobs do not have; expected "
                f"{{{'seconds' if self.seconds else 'spp'}}}"
            )

    def _check_fly_through(self) -> None:
        """Refuse what does not go together with sequences, or only with them."""
        if self.fly_through is None:
            if self.span != _WHOLE:
                raise ConfigError("span is about a fly-through; add fly_through = FRAMES")
            return
        checks.whole("fly_through", self.fly_through, least=2, most=MOST_FRAMES)
        if len(self.span) != 2 or not 0 <= self.span[0] < self.span[1] <= 1:
            raise ConfigError(f"got the span {self.span}; expected 0 <= start < stop <= 1")
        if self.sensors != (0,):
            raise ConfigError(
                "got both sensors and fly_through, which has cameras of its own; expected one"
            )
        overridden = (override.values.get("reference") for override in self.overrides)
        if any(overridden) or any(scene.reference for scene in self.scenes):
            raise ConfigError(
                "got a reference and fly_through; references are single images: leave them out, "
                "or measure sequences with: mitsuba-gdpt evaluate --sequence"
            )

    @property
    def things(self) -> str:
        """What comes out, in the plural."""
        return "images" if self.fly_through is None else "sequences"

    @property
    def amounts(self) -> tuple[tuple[int | None, float | None], ...]:
        """The axis of samples or of seconds: both for each job, one of them None."""
        if self.seconds:
            return tuple((None, seconds) for seconds in self.seconds)
        return tuple((spp, None) for spp in self.spp)

    @property
    def calls(self) -> Mapping[str, Call | None]:
        """The denoisers by label; that of the default is empty: it becomes the method's name."""
        return _labelled(self.denoisers)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Batch:
        """Read a batch from a file; relative paths in it are relative to its folder.

        Raises:
            FormatError: The file is missing or not TOML.
            ConfigError: A key is unknown or missing, or a value makes no sense.
        """
        path = Path(path)
        table = toml.Table(toml.read(path), str(path))
        folder = path.parent
        given: dict[str, Any] = {
            "scenes": table.take("scenes", _entries(lambda v: _scene(v, folder, path))),
            "output": table.take("output", lambda v: folder / toml.text(v)),
        }
        optional: dict[str, Callable[[Any], Any]] = {
            "integrators": _entries(lambda v: _integrator(v, path)),
            "denoisers": _denoisers,
            "sensors": toml.integers,
            "spp": toml.integers,
            "seconds": toml.positives,
            "seeds": toml.integers,
            "fly_through": toml.integer,
            "span": _span,
            "name": toml.text,
            "title": toml.text,
            "width": toml.pixels,
            "height": toml.pixels,
            "exposure": toml.number,
            "metrics": toml.texts,
            "png": toml.boolean,
            "gallery": toml.boolean,
        }
        for key, convert in optional.items():
            if (value := table.take(key, convert, None)) is not None:
                given[key] = value
        overrides = table.tables("override", lambda row: _override(row, folder))
        table.finish()
        try:
            return cls(**given, overrides=overrides)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error


def check_template(template: str, *, folders: bool = False) -> set[str]:
    """Check the template of names, and return its placeholders.

    Args:
        template: For files, or for folders.
        folders: Whether it is for folders.

    Raises:
        ConfigError: A placeholder is unknown, it leaves the folder, or it does not end in ``.exr``;
            names of folders must not. What the placeholders make of it is looked at when they are
            filled.
    """
    try:
        parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
        if bad := [part[2] for part in parts if not _FORMAT.fullmatch(part[2] or "") or part[3]]:
            raise ConfigError(
                f"name: {checks.show(template)} has the format {checks.show(bad[0])}; expected at "
                "most a width of two digits, such as {spp:04}"
            )
        fields = [str(part[1]) for part in parts]
        if unknown := [name for name in fields if name not in AXES]:
            raise ConfigError(
                f"name: {template!r} has unknown placeholders "
                f"{', '.join('{' + name + '}' for name in unknown)}; "
                f"known: {', '.join('{' + axis + '}' for axis in AXES)}"
            )
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"name: {template!r} is not a template: {error}") from error
    path = PurePosixPath(template)
    if (path.suffix == SUFFIX) == folders or path.is_absolute() or ".." in path.parts:
        expected = "of a folder, without suffix" if folders else f"that ends in {SUFFIX}"
        raise ConfigError(
            f"name: got {template!r}; expected a path inside the output folder, {expected}"
        )
    return set(fields)


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


# ------------------------------------------------------------------------------------------ TOML


def _entries(convert: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    """Make a converter of a list of names or tables, or of a single one."""

    def convert_all(value: Any) -> tuple[T, ...]:
        return tuple(convert(item) for item in _as_tuple(value))

    return convert_all


def _scene(value: Any, folder: Path, file: Path) -> SceneChoice:
    if isinstance(value, str):
        return SceneChoice(_source(value, folder))
    table = toml.Table(value, f"{file}, scenes")
    choice = SceneChoice(
        source=table.take("source", lambda v: _source(toml.text(v), folder)),
        name=table.take("name", toml.text, ""),
        parameters=table.take("parameters", toml.parameters, {}),
        reference=table.take("reference", lambda v: _paths(v, folder), ()),
    )
    table.finish()
    return choice


def _span(value: Any) -> tuple[float, float]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("expected two numbers, as [0.4, 0.5]")
    return toml.number(value[0]), toml.number(value[1])


def _integrator(value: Any, file: Path) -> IntegratorChoice:
    table = toml.Table(value, f"{file}, integrators")
    choice = IntegratorChoice(
        name=table.take("name", toml.text), settings=table.take("settings", toml.settings, {})
    )
    table.finish()
    return choice


def _denoisers(value: Any) -> Any:
    """Read the text of a call, a list of such, or a table of such by their labels."""
    if isinstance(value, Mapping):
        return {label: toml.text(text) for label, text in value.items()}
    if any(isinstance(item, Mapping) for item in _as_tuple(value)):
        raise ConfigError(
            "got a table in a list; expected calls, as 'poisson-l2(alpha=0.1)', or a table of "
            "calls by their names, as { soft = 'poisson-l2(alpha=0.1)' }"
        )
    return tuple(toml.text(item) for item in _as_tuple(value))


def _labelled(
    denoisers: Mapping[str, Call | str | None] | Sequence[Call | str | None],
) -> Mapping[str, Call | None]:
    """Return calls by labels.

    Raises:
        ConfigError: A call is malformed, or a label is not fit for a file name, or comes twice.
    """
    named = denoisers.items() if isinstance(denoisers, Mapping) else ((None, d) for d in denoisers)
    pairs: list[tuple[str, Call | None]] = []
    for label, text in named:
        call = None if text is None else Call.parse(text)
        pairs.append((_label(call) if label is None else label, call))
        if pairs[-1] != ("", None):
            _check_label("denoiser", pairs[-1][0])
    if twice := sorted(label for label, n in Counter(label for label, _ in pairs).items() if n > 1):
        raise ConfigError(
            f"denoisers: {', '.join(twice)} comes twice; give each entry a name of its own"
        )
    return dict(pairs)


def _label(call: Call | None) -> str:
    return re.sub(r"[^A-Za-z0-9._]+", "-", str(call)).strip("-") if call else ""


def _override(table: toml.Table, folder: Path) -> Override:
    match = table.take("match", toml.settings)
    row = toml.Table(table.take("values", toml.table), f"{table.where}, values")
    converters: dict[str, Callable[[Any], Any]] = {
        "width": toml.pixels,
        "height": toml.pixels,
        "parameters": toml.parameters,
        "settings": toml.settings,
        "options": toml.settings,
        "exposure": toml.number,
        "reference": lambda v: _paths(v, folder),
        "metrics": toml.texts,
        "png": toml.boolean,
        "skip": toml.boolean,
    }
    values = {
        key: value
        for key in OVERRIDABLE
        if (value := row.take(key, converters[key], None)) is not None
    }
    row.finish()
    return Override(match, values)


def _source(source: str, folder: Path) -> str:
    return str(SceneRef.parse(source, folder))


def _paths(value: Any, folder: Path) -> tuple[str, ...]:
    return tuple(str(folder / name) for name in toml.texts(value))
