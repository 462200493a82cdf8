"""Registry of reconstruction methods: what they are called, need, and can be told.

A method is a function from :class:`~mitsuba_gdpt.buffers.FrameBuffers` and keyword options to an
image:

    @register("poisson-l2", needs=("primal", "dx", "dy"), doc="screened Poisson, L2")
    def poisson_l2(buffers: FrameBuffers, *, alpha: float = 0.2) -> torch.Tensor: ...

The signature is the documentation of the options: their names, types and defaults are read from
it, and values are checked and converted by :mod:`mitsuba_gdpt.decoding`, wherever they
come from. A method with options is a value, :class:`Call`. An option of that type is a method that
this one calls, its *inner* method, on the same buffers: by :meth:`Call.within`, since what a method
and all that it calls need has been checked once, before the outermost runs.

A *recurrent* method also takes what it remembers of the frames before, and returns it renewed. Its
state is a value of its own making, None before the first frame:

    @register("rdae", needs=..., doc=..., recurrent=True)
    def rdae(buffers: FrameBuffers, state: State | None, *, ...) -> tuple[Tensor, State]: ...
"""

from __future__ import annotations

import functools
import inspect
import os
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from mitsuba_gdpt import checks, packages, plugins, toml
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import MOTION
from mitsuba_gdpt.channels import buffer as table_row
from mitsuba_gdpt.decoding import call_parts, call_text, decode, encode
from mitsuba_gdpt.denoisers.exposure import ExposedState, Exposure, expose, expose_option, restore
from mitsuba_gdpt.denoisers.listing import GROUPS, Methods, row
from mitsuba_gdpt.errors import ConfigError, GDPTError, LayoutError

Target = TypeVar("Target", bound=Callable[..., Any])
_Names = Callable[[Mapping[str, Any]], tuple[str, ...]]


@dataclass(frozen=True)
class Call:
    """A method with options, as a value.

    Its text is ``method``, or ``method(option=value, ...)`` with the options that were given:
    ``temporal(frames=4, using=oidn(ensemble=4))``. Values are numbers, ``true``, ``false``,
    ``none``, words (in quotes if there are brackets, commas or blanks in them), lists
    ``(0.5, 1.0)``, and calls.

    Attributes:
        method: Name of the method.
        options: Options that were given, decoded.
    """

    method: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Decode the options.

        Raises:
            ConfigError: The method or an option is unknown, or an option is of another type.
        """
        object.__setattr__(self, "options", find(self.method).decode(self.options))

    @classmethod
    def parse(cls, text: str | Call) -> Call:
        """Read a call from its text; a call is returned as it is.

        The form of files of before, ``method,option=value,...``, is read too; in it, what follows
        a method that is an option belongs to that method.

        Raises:
            ConfigError: The method or an option is unknown, or the text is malformed.
        """
        if isinstance(text, Call):
            return text
        if not isinstance(text, str):
            raise ConfigError(
                f"the method is {checks.show(text)}; expected its name, with options if need be, "
                "as 'oidn(aux=raw)'"
            )
        name, options = call_parts(text, lambda name: find(name).inner)
        return cls(name, options)

    def with_options(self, options: Mapping[str, Any]) -> Call:
        """Return the call with further options, which replace those that it has.

        Raises:
            ConfigError: An option is unknown, or of another type.
        """
        return Call(self.method, {**self.options, **options}) if options else self

    def __str__(self) -> str:
        return call_text(self.method, self.options)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def target(self) -> Method:
        """The method itself."""
        return find(self.method)

    @property
    def requires(self) -> tuple[str, ...]:
        """Names of the buffers without which it fails."""
        return self.target.requires(self.options)

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of all buffers that it reads if they are there."""
        return self.target.reads(self.options)

    @property
    def obstacle(self) -> GDPTError | None:
        """Why it cannot run here, or None if it can."""
        return self.target.obstacle_for(self.options)

    def after(self, image: torch.Tensor) -> ExposedState | None:
        """Return the state after a frame of which only the image is left; None if it needs more."""
        make = self.target.after
        return None if make is None else ExposedState(1.0, make(image))

    @property
    def identity(self) -> str:
        """Its text, with the weights in place of a network: they may be replaced."""
        method = self.target
        name = method.version(self.options) if method.version else self.method
        options = {**self.options, **method.inner_calls(self.options)}
        if method.version:
            options.pop("weights", None)
        words = [
            f"{key}={value.identity if isinstance(value, Call) else encode(value)}"
            for key, value in options.items()
        ]
        return f"{name}({', '.join(words)})" if words else name

    def __call__(self, buffers: FrameBuffers) -> torch.Tensor:
        """Reconstruct one frame that has no predecessors; see :meth:`Method.advance`."""
        return self.advance(buffers, None)[0]

    def within(self, buffers: FrameBuffers) -> torch.Tensor:
        """Reconstruct for a method that calls this one: what there is to check has been checked."""
        return self.target.run(buffers, None, self.options)[0]

    def advance(self, buffers: FrameBuffers, state: Any) -> tuple[torch.Tensor, Any]:
        """Reconstruct the next frame of a sequence; see :meth:`Method.advance`."""
        return self.target.advance(buffers, state, self.options)


@dataclass(frozen=True, repr=False)
class Method:
    """One entry of the registry.

    Attributes:
        name: As given to ``denoise(method=...)``.
        needs: Names of the buffers without which the method cannot run, by default.
        uses: Names of further buffers that it reads when they are there.
        doc: One line.
        target: The registered function.
        check: Raises if the method cannot run here with some options (a package or weights are
            missing).
        recurrent: Whether it remembers earlier frames of a sequence.
        exposure: What brings frames to common brightness for it, or a function of the options.
        version: Which weights it uses, given some options, for what is kept of its results.
        after: Makes the state that follows a frame of its image alone, where a recurrent method
            can.
        anywhere: Whether it computes on every device of torch; others on CPU and CUDA only.
        needed: Names of the buffers that it cannot do without, given some options, where they
            depend on these.
        used: The same of further buffers.
        calls: Methods that it calls besides those that are options, given some options.
        group: One of :data:`GROUPS`.
        seconds_per_megapixel: What it takes by default on two CPU cores, roughly; None if that is
            not known, or it runs on a GPU only.
    """

    name: str
    needs: tuple[str, ...]
    uses: tuple[str, ...]
    doc: str
    target: Callable[..., Any]
    check: Callable[[Mapping[str, Any]], None] | None = None
    recurrent: bool = False
    exposure: Exposure | Callable[[Mapping[str, Any]], Exposure] = Exposure.COMMON
    version: Callable[[Mapping[str, Any]], str] | None = None
    after: Callable[[torch.Tensor], Any] | None = None
    anywhere: bool = False
    needed: _Names | None = None
    used: _Names | None = None
    calls: _Names | None = None
    group: str = GROUPS[0]
    seconds_per_megapixel: float | None = None

    @property
    def error(self) -> float | None:
        """Error by default: relMSE without the 0.1 % of pixels with the largest.

        Measured at 8 spp, ``shifts=1``, as a geometric mean over six scenes that nothing was
        trained on; None if it was not.
        """
        return _errors().get(self.name)

    def needs_for(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the buffers that it cannot do without, other methods apart."""
        return self.needs if self.needed is None else self.needed(options)

    def uses_for(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of further buffers that it reads, other methods apart."""
        return self.uses if self.used is None else self.used(options)

    @property
    def options(self) -> dict[str, Any]:
        """Keyword options and their defaults."""
        return {
            name: parameter.default
            for name, parameter in inspect.signature(self.target).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }

    @functools.cached_property
    def types(self) -> dict[str, Any]:
        """Types of the options."""
        parameters = inspect.signature(self.target).parameters
        annotations = {
            name: Any if (kind := parameters[name].annotation) is inspect.Parameter.empty else kind
            for name in self.options
        }
        names = getattr(self.target, "__globals__", {})
        return typing.get_type_hints(types.SimpleNamespace(__annotations__=annotations), names)

    @property
    def inner(self) -> tuple[str, ...]:
        """Names of the options that are methods which this one calls."""
        return tuple(
            name for name, kind in self.types.items() if Call in (kind, *typing.get_args(kind))
        )

    @property
    def takes_halves(self) -> bool:
        """Whether it can be given two halves of the render."""
        return "halves" in self.options

    def decode(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Check and convert options.

        Raises:
            ConfigError: One is unknown, or of another type.
        """
        known = self.options
        if unknown := [name for name in options if name not in known]:
            choice = ", ".join(f"{name} ({default!r})" for name, default in known.items())
            raise ConfigError(
                f"method {self.name!r} has no option {', '.join(map(repr, unknown))}; "
                f"its options and defaults: {choice or 'none'}"
            )
        return {name: decode(self.types[name], value, name) for name, value in options.items()}

    def inner_calls(self, options: Mapping[str, Any]) -> dict[str, Call]:
        """Return the calls of the methods that options name, given or by default."""
        values = {name: options.get(name, self.options[name]) for name in self.inner}
        return {name: Call.parse(value) for name, value in values.items() if value is not None}

    def callees(self, options: Mapping[str, Any]) -> tuple[Call, ...]:
        """Return all calls of methods that this one calls: options, and what weights ask for."""
        others = () if self.calls is None else self.calls(options)
        return (*self.inner_calls(options).values(), *map(Call.parse, others))

    def reads(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of all buffers that are read if they are there, given some options."""
        own = (*self.needs_for(options), *self.uses_for(options))
        others = [name for call in self.callees(options) for name in call.reads]
        return tuple(dict.fromkeys((*own, *others)))

    def requires(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the buffers without which the method fails, given some options."""
        others = [name for call in self.callees(options) for name in call.requires]
        return tuple(dict.fromkeys((*self.needs_for(options), *others)))

    def exposure_for(self, options: Mapping[str, Any]) -> Exposure:
        """Return what brings frames to common brightness, given some options."""
        for call in self.inner_calls(options).values():
            if call.target.exposure_for(call.options) is Exposure.ABSOLUTE:
                return Exposure.ABSOLUTE
        return self.exposure(options) if callable(self.exposure) else self.exposure

    def obstacle_for(self, options: Mapping[str, Any]) -> GDPTError | None:
        """Return why the method cannot run here with some options, or None if it can."""
        try:
            if self.check is not None:
                self.check(options)
        except GDPTError as error:
            return error
        obstacles = (call.obstacle for call in self.callees(options))
        return next(filter(None, obstacles), None)

    @property
    def obstacle(self) -> GDPTError | None:
        """Why the method cannot run here by default, or None if it can."""
        return self.obstacle_for({})

    @property
    def available(self) -> bool:
        """Whether the method can run here."""
        return self.obstacle is None

    def __repr__(self) -> str:
        _, group, _, _, doc, needs, options, here = row(self)
        told = {"needs": needs, "uses": ", ".join(self.uses), "options": options}
        told |= {"here": here} if here != "yes" else {}
        lines = [f"{self.name} ({group}): {doc}", *(f"  {k}: {v}" for k, v in told.items() if v)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return Methods([self])._repr_html_()

    def __call__(self, buffers: FrameBuffers, options: Mapping[str, Any]) -> torch.Tensor:
        """Reconstruct one frame that has no predecessors; see :meth:`advance`.

        Returns:
            (H, W, 3) float32 on the buffers' device.
        """
        return self.advance(buffers, None, options)[0]

    def advance(
        self, buffers: FrameBuffers, state: Any, options: Mapping[str, Any]
    ) -> tuple[torch.Tensor, Any]:
        """Check options, needs and input, then reconstruct the next frame of a sequence.

        The checks include those of all methods that this one calls.

        Args:
            buffers: The frame. The method sees it at a common brightness; what it makes of k times
                the radiance is k times the image.
            state: What the frame before gave; None for the first. It is not changed.
            options: Options of the method.

        Returns:
            (H, W, 3) float32 on the buffers' device, and the state for the next frame; None from
            methods that are not recurrent.

        Raises:
            ConfigError: An option is unknown or has a bad value.
            LayoutError: A buffer is missing, there are several frames, or the frame does not fit
                the state.
            NonFiniteError: A buffer that the method reads contains NaN or infinity.
            GDPTError: Whatever ``check`` raises.
        """
        options = self.decode(options)
        buffers.require_one_frame()
        self._look_for_needs(buffers, options)
        if (obstacle := self.obstacle_for(options)) is not None:
            raise obstacle
        _survive_fork()
        buffers.validate(self.reads(options))
        return self.run(buffers, state, options)

    def _look_for_needs(self, buffers: FrameBuffers, options: Mapping[str, Any]) -> None:
        """Raise a LayoutError that names the method, this one or one that it calls."""
        if missing := [name for name in self.needs_for(options) if name not in buffers]:
            raise LayoutError(
                f"method {self.name!r} needs the buffer(s) {', '.join(missing)}; "
                f"there are: {', '.join(buffers.names)}{_remedy(missing)}"
            )
        for call in self.callees(options):
            call.target._look_for_needs(buffers, call.options)

    def run(
        self, buffers: FrameBuffers, state: Any, options: Mapping[str, Any]
    ) -> tuple[torch.Tensor, Any]:
        """Reconstruct the next frame of a sequence, checked or not; see :meth:`advance`."""
        if not (self.anywhere or buffers.device.type in _EVERYWHERE):
            options = {name: _on(value, "cpu") for name, value in options.items()}
            image, state = self.run(_on(buffers, "cpu"), state, options)
            return _on(image, buffers.device), state
        exposure = self.exposure_for(options)
        factor: float | None = 1.0
        held = None if state is None else state.state
        if exposure.applies:
            factor = exposure.factor(buffers, self.needs_for(options))
            if state is not None:
                factor, held = state.at(factor)
            buffers = expose(buffers, factor)
            options = {name: expose_option(value, factor) for name, value in options.items()}
        if not self.recurrent:
            return restore(self.target(buffers, **options), factor), None
        image, held = self.target(buffers, held, **options)
        return restore(image, factor), ExposedState(factor, held)


#: Kinds of devices on which every method computes.
_EVERYWHERE = ("cpu", "cuda")


def _on(value: Any, device: torch.device | str) -> Any:
    """Return a frame or an image, or those that the value of an option consists of, on a device."""
    if isinstance(value, FrameBuffers | torch.Tensor):
        return value.to(device)
    if isinstance(value, tuple | list):
        return type(value)(_on(item, device) for item in value)
    return value


_process = os.getpid()


def _survive_fork() -> None:
    """Let torch do with one thread in a forked process: it would wait for those that are not there.

    So do the workers of torch's data loaders.
    """
    global _process
    if _process != os.getpid():
        torch.set_num_threads(1)
        _process = os.getpid()


def _remedy(missing: Sequence[str]) -> str:
    """Say how to get buffers that a render has only on request."""
    if any(table_row(name).variance_of for name in missing):
        return ". For variances, render with variances=True and 2 or more samples per pixel"
    if MOTION in missing:
        return ". For motion, call mitsuba_gdpt.add_motion, or use a frame set"
    return ""


_METHODS: dict[str, Method] = {}


@functools.cache
def _errors() -> dict[str, float]:
    """Return :attr:`Method.error` by method, as ``benchmarks/methods.py`` measured it."""
    table: dict[str, float] = toml.read(Path(__file__).with_name("errors.toml"))
    return table


def register(
    name: str,
    *,
    needs: tuple[str, ...] | _Names,
    uses: tuple[str, ...] | _Names = (),
    calls: _Names | None = None,
    doc: str,
    check: Callable[[Mapping[str, Any]], None] | None = None,
    recurrent: bool = False,
    exposure: Exposure | Callable[[Mapping[str, Any]], Exposure] = Exposure.COMMON,
    version: Callable[[Mapping[str, Any]], str] | None = None,
    after: Callable[[torch.Tensor], Any] | None = None,
    anywhere: bool = False,
    group: str = GROUPS[0],
    seconds_per_megapixel: float | None = None,
) -> Callable[[Target], Target]:
    """Enter a function under a method name; see the module's docstring.

    Args:
        name: Method name; must be new.
        needs: Names of required buffers, or a function of the options.
        uses: Names of buffers that are read when present, or a function of the options.
        calls: Methods, as text, that it calls besides those that are options, given some options.
        doc: One line for ``mitsuba-gdpt info``.
        check: Called with the options before every run; raises a :class:`GDPTError` if the method
            cannot run here. Packages that only this method needs are imported when it runs, not
            before. Methods that it calls are checked anyway.
        recurrent: It takes (buffers, state) and returns (image, state); see the module. Its states
            have a method ``exposed(factor)``, which multiplies the radiance in them.
        exposure: What brings frames to common brightness before the method sees them, or a
            function of the options; see :mod:`mitsuba_gdpt.denoisers.exposure`.
        version: Which weights it uses, given some options.
        after: Makes a state of the image of the frame before, (H, W, 3).
        anywhere: It needs no float64, so that it computes on devices such as Apple's ``mps`` too.
            For others, frames are brought to the host, and the image back.
        group: One of :data:`GROUPS`.
        seconds_per_megapixel: What it takes by default on two CPU cores, roughly.

    Raises:
        ConfigError: The name is taken, the group is unknown, or the options are not spelt out in
            the signature.
        LayoutError: A buffer name is not in the table.
    """
    needed, used = (names if callable(names) else None for names in (needs, uses))
    always, sometimes = (names({}) if callable(names) else names for names in (needs, uses))
    for buffer_name in (*always, *sometimes):
        table_row(buffer_name)
    if group not in GROUPS:
        raise ConfigError(f"group is {group!r}; expected one of: {', '.join(GROUPS)}")
    if name in _METHODS:
        raise ConfigError(f"a method named {name!r} is registered already; choose another name")

    def enter(target: Target) -> Target:
        parameters = inspect.signature(target).parameters.values()
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            raise ConfigError(f"method {name!r} takes **options; expected named keyword options")
        _METHODS[name] = Method(
            name,
            always,
            sometimes,
            doc,
            target,
            check,
            recurrent,
            exposure,
            version,
            after,
            anywhere,
            needed,
            used,
            calls,
            group,
            seconds_per_megapixel,
        )
        return target

    return enter


def requires_package(package: str, extra: str) -> Callable[[Mapping[str, Any]], None]:
    """Make a ``check`` for :func:`register` that looks for an optional package.

    Args:
        package: Import name, for example ``"mitsuba_oidn"``.
        extra: The extra of this package that installs it, for example ``"oidn"``.
    """

    def check(options: Mapping[str, Any] | None = None) -> None:
        packages.check(package, extra)

    return check


def methods() -> Methods[Method]:
    """Return all registered methods, available or not; those of plug-ins too.

    Those of everyday use come first, then baselines, then experiments; see :data:`GROUPS`.
    """
    plugins.load()
    return Methods(sorted(_METHODS.values(), key=lambda method: GROUPS.index(method.group)))


def find(name: str) -> Method:
    """Return a method by name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in _METHODS:
        plugins.load()
    try:
        return _METHODS[name]
    except KeyError:
        raise ConfigError(
            f"unknown reconstruction method {name!r}; known: {', '.join(_METHODS)}"
        ) from None
