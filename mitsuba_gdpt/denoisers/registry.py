"""Registry of reconstruction methods: what they are called, need, and can be told.

A method is a function from :class:`~mitsuba_gdpt.buffers.FrameBuffers` and keyword options to an
image, or a class that is constructed with the options and called with the buffers:

    @register("poisson-l2", needs=("primal", "dx", "dy"), doc="screened Poisson, L2")
    def poisson_l2(buffers: FrameBuffers, *, alpha: float = 0.2) -> torch.Tensor: ...

The signature is the documentation of the options: their names and defaults are read from it.

A *recurrent* method also takes what it remembers of the frames before, and returns it renewed. Its
state is a value of its own making, None before the first frame:

    @register("rdae", needs=..., doc=..., recurrent=True)
    def rdae(buffers: FrameBuffers, state: State | None, *, ...) -> tuple[Tensor, State]: ...
"""

from __future__ import annotations

import ast
import functools
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from mitsuba_gdpt import packages
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import MOTION, buffer
from mitsuba_gdpt.channels import buffer as table_row
from mitsuba_gdpt.denoisers.exposure import (
    ExposedState,
    Exposure,
    expose,
    expose_option,
    restore,
)
from mitsuba_gdpt.errors import ConfigError, GDPTError, LayoutError

Target = TypeVar("Target", bound=Callable[..., Any])


@dataclass(frozen=True)
class Method:
    """One entry of the registry.

    Attributes:
        name: As given to ``denoise(method=...)``.
        needs: Names of the buffers without which the method cannot run.
        uses: Names of further buffers that it reads when they are there.
        doc: One line.
        target: The registered function or class.
        check: Raises if the method cannot run here (a package or weights are missing).
        check_unless: Name of an option that makes the check needless when it is given.
        delegate: Name of an option that names another method, which runs on the same buffers.
        recurrent: Whether it remembers earlier frames of a sequence.
        exposure: What brings frames to common brightness for it, or a function of the options.
    """

    name: str
    needs: tuple[str, ...]
    uses: tuple[str, ...]
    doc: str
    target: Callable[..., Any]
    check: Callable[[], None] | None = None
    check_unless: str | None = None
    delegate: str | None = None
    recurrent: bool = False
    exposure: Exposure | Callable[[Mapping[str, Any]], Exposure] = Exposure.COMMON

    @property
    def options(self) -> dict[str, Any]:
        """Keyword options and their defaults."""
        return {
            name: parameter.default
            for name, parameter in inspect.signature(self.target).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }

    def reads(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of all buffers that are read if they are there, given some options."""
        own = (*self.needs, *self.uses)
        if self.delegate is None:
            return own
        other, others = self._delegated(options)
        return tuple(dict.fromkeys((*own, *other.reads(others))))

    def requires(self, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names of the buffers without which the method fails, given some options."""
        if self.delegate is None:
            return self.needs
        other, others = self._delegated(options)
        return tuple(dict.fromkeys((*self.needs, *other.requires(others))))

    def exposure_for(self, options: Mapping[str, Any]) -> Exposure:
        """Return what brings frames to common brightness, given some options."""
        if self.delegate is not None:
            other, others = self._delegated(options)
            if other.exposure_for(others) is Exposure.ABSOLUTE:
                return Exposure.ABSOLUTE
        return self.exposure(options) if callable(self.exposure) else self.exposure

    def _delegated(self, options: Mapping[str, Any]) -> tuple[Method, dict[str, Any]]:
        """Return the method that this one calls, and its options."""
        assert self.delegate is not None
        return parse_call(options.get(self.delegate, self.options[self.delegate]))

    @property
    def obstacle(self) -> GDPTError | None:
        """Why the method cannot run here, or None if it can."""
        try:
            self.ensure_available()
        except GDPTError as error:
            return error
        return None

    def ensure_available(self) -> None:
        """Do nothing if the method can run here.

        Raises:
            GDPTError: It cannot; says why.
        """
        if self.check is not None:
            self.check()

    @property
    def available(self) -> bool:
        """Whether the method can run here."""
        return self.obstacle is None

    def __call__(self, buffers: FrameBuffers, options: Mapping[str, Any]) -> torch.Tensor:
        """Reconstruct one frame that has no predecessors; see :meth:`advance`.

        Returns:
            (H, W, 3) float32 on the buffers' device.
        """
        return self.advance(buffers, None, options)[0]

    def advance(
        self, buffers: FrameBuffers, state: Any, options: Mapping[str, Any]
    ) -> tuple[torch.Tensor, Any]:
        """Check options, requirements and input, then reconstruct the next frame of a sequence.

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
        known = self.options
        if unknown := [name for name in options if name not in known]:
            choice = ", ".join(f"{name} ({default!r})" for name, default in known.items())
            raise ConfigError(
                f"method {self.name!r} has no option {', '.join(map(repr, unknown))}; "
                f"its options and defaults: {choice or 'none'}"
            )
        buffers.require_one_frame()
        if missing := [name for name in self.needs if name not in buffers]:
            raise LayoutError(
                f"method {self.name!r} needs the buffer(s) {', '.join(missing)}; "
                f"there are: {', '.join(buffers.names)}{_remedy(missing)}"
            )
        needless = self.check_unless is not None and options.get(self.check_unless) is not None
        if not needless and (obstacle := self.obstacle) is not None:
            raise obstacle
        _survive_fork()
        buffers.validate((*self.needs, *self.uses))
        target: Any = self.target
        if inspect.isclass(self.target):
            target = target(**options)
            options = {}
        exposure = self.exposure_for(options)
        factor: float | None = 1.0
        held = None if state is None else state.state
        if exposure.applies:
            factor = exposure.factor(buffers, self.needs)
            if state is not None:
                factor, held = state.at(factor)
            buffers = expose(buffers, factor)
            options = {name: expose_option(value, factor) for name, value in options.items()}
        if not self.recurrent:
            return restore(target(buffers, **options), factor), None
        image, held = target(buffers, held, **options)
        return restore(image, factor), ExposedState(factor, held)


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
    if any(buffer(name).variance_of for name in missing):
        return ". For variances, render with variances=True and 2 or more samples per pixel"
    if MOTION in missing:
        return ". For motion, call mitsuba_gdpt.add_motion, or use a frame set"
    return ""


_METHODS: dict[str, Method] = {}


def register(
    name: str,
    *,
    needs: tuple[str, ...],
    uses: tuple[str, ...] = (),
    doc: str,
    check: Callable[[], None] | None = None,
    check_unless: str | None = None,
    delegate: str | None = None,
    recurrent: bool = False,
    exposure: Exposure | Callable[[Mapping[str, Any]], Exposure] = Exposure.COMMON,
) -> Callable[[Target], Target]:
    """Enter a function or class under a method name; see the module's docstring.

    Args:
        name: Method name; must be new.
        needs: Names of required buffers.
        uses: Names of buffers that are read when present.
        doc: One line for ``mitsuba-gdpt info``.
        check: Called before every run; raises a :class:`GDPTError` if the method cannot run here.
            Packages that only this method needs are imported when it runs, not before.
        check_unless: Name of an option (``"weights"``) that makes the check needless when given.
        delegate: Name of an option whose value is a call of another method, as
            :func:`parse_call` reads it.
        recurrent: It takes (buffers, state) and returns (image, state); see the module. Its states
            have a method ``exposed(factor)``, which multiplies the radiance in them.
        exposure: What brings frames to common brightness before the method sees them, or a
            function of the options; see :mod:`mitsuba_gdpt.denoisers.exposure`.

    Raises:
        ConfigError: The name is taken, or the options are not spelt out in the signature.
        LayoutError: A buffer name is not in the table.
    """
    for buffer_name in (*needs, *uses):
        table_row(buffer_name)
    if name in _METHODS:
        raise ConfigError(f"a method named {name!r} is registered already; choose another name")

    def enter(target: Target) -> Target:
        parameters = inspect.signature(target).parameters.values()
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            raise ConfigError(f"method {name!r} takes **options; expected named keyword options")
        _METHODS[name] = Method(
            name, needs, uses, doc, target, check, check_unless, delegate, recurrent, exposure
        )
        return target

    return enter


def requires_package(package: str, extra: str) -> Callable[[], None]:
    """Make a ``check`` for :func:`register` that looks for an optional package.

    Args:
        package: Import name, for example ``"mitsuba_oidn"``.
        extra: The extra of this package that installs it, for example ``"oidn"``.
    """
    return functools.partial(packages.check, package, extra)


def methods() -> tuple[Method, ...]:
    """Return all registered methods, available or not."""
    return tuple(_METHODS.values())


def parse_call(text: str) -> tuple[Method, dict[str, Any]]:
    """Read a method with options from a text such as ``"oidn,aux=raw"``.

    Args:
        text: Name, then ``,KEY=VALUE`` any number of times. Values are numbers, booleans or None as
            in Python, or else text. An option that names another method comes last, and what
            follows are options of that one: ``"temporal,frames=4,using=oidn,ensemble=4"``.

    Raises:
        ConfigError: The method or an option is unknown, or the text is malformed.
    """
    name, *words = text.split(",")
    method, options = find(name), {}
    for index, word in enumerate(words):
        key, equals, value = word.partition("=")
        if not equals or key not in method.options:
            raise ConfigError(
                f"{text!r}: {word!r} sets no option of {name!r}; "
                f"it has: {', '.join(method.options) or 'none'}"
            )
        if key == method.delegate:
            options[key] = ",".join([value, *words[index + 1 :]])
            parse_call(options[key])
            break
        try:
            options[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[key] = value
    return method, options


def find(name: str) -> Method:
    """Return a method by name.

    Raises:
        ConfigError: There is none of that name.
    """
    try:
        return _METHODS[name]
    except KeyError:
        raise ConfigError(
            f"unknown reconstruction method {name!r}; known: {', '.join(_METHODS)}"
        ) from None
