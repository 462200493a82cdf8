"""Rendering again without tracing the program again.

Dr.Jit traces the Python code of a render every time, for a tenth of a second: as long as eight
samples of a small frame take. ``dr.freeze`` records the kernels that come out, and launches them
again with other numbers.

What of a scene ends up in the kernels cannot be told: addresses of its objects do, and numbers that
plugins keep on the host, or derive from others. So a recording is used only for the very scene and
sensor that it was made of, and only while nothing about them has changed (:class:`State`). What may
differ between two calls is what is handed over as arrays: seeds, and numbers made of them.
"""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any

import drjit as dr
import mitsuba as mi

from mitsuba_gdpt.errors import reraise_interrupt
from mitsuba_gdpt.integrators.plugins import walk

#: Recordings that are kept: one for each tile and number of samples in use.
_LIMIT = 32


class FrozenMethod:
    """Calls a bound method, by replaying its kernels where that is possible.

    Recordings belong to one scene, which they keep alive: they are dropped when another one is
    rendered, when something about the scene or the sensor has changed, and with this object.

    Args:
        method: ``method(scene, sensor, sampler, arrays, key)``. It must not look at values of
            arrays, nor make arrays of NumPy's. Its object is not kept alive.
        enabled: Whether to freeze at all.

    Attributes:
        enabled: As above; can be changed.
        recordings: How often the method was traced to record it.
    """

    def __init__(self, method: Callable[..., Any], enabled: bool = True) -> None:
        # The object holds this one: a cycle through Dr.Jit would never be collected.
        self._method = weakref.WeakMethod(method)
        self.enabled = enabled
        self.recordings = 0
        self._state: State | None = None
        self._recorded: dict[Hashable, Any] = {}
        self._refused: State | None = None

    def __call__(
        self, scene: mi.Scene, sensor: mi.Sensor, sampler: mi.Sampler, arrays: Any, key: Hashable
    ) -> Any:
        """Return the result of the method.

        Args:
            scene: The scene.
            sensor: The sensor.
            sampler: Seeded, with an opaque seed.
            arrays: A PyTree of Dr.Jit arrays.
            key: Whatever else the result depends on.
        """
        state = self._freezable_state(scene, sensor, sampler)
        if state is None:
            self.clear()
            return self._bound()(scene, sensor, sampler, arrays, key)
        if state != self._state:
            self.clear()
        try:
            return self._replay(scene, sensor, sampler, arrays, key)
        except RuntimeError as error:
            self.clear()
            reraise_interrupt(error)
            if "frozen function" not in str(error):
                raise
            self._refused = state
            reason = error.__cause__ or error
            mi.Log(mi.LogLevel.Debug, f"gdpt: this scene cannot be frozen: {reason}")
        except BaseException:
            self.clear()
            raise
        return self._bound()(scene, sensor, sampler, arrays, key)

    def clear(self) -> None:
        """Drop all recordings, and let go of the scene."""
        self._state = None
        self._recorded.clear()

    def _bound(self) -> Callable[..., Any]:
        bound = self._method()
        assert bound is not None
        return bound

    def _freezable_state(
        self, scene: mi.Scene, sensor: mi.Sensor, sampler: mi.Sampler
    ) -> State | None:
        """Return the state of what is rendered, None where that is not to be recorded."""
        if not self.enabled or mi.is_spectral:  # its tables of colour are no part of a scene
            return None
        state = State.of(scene, sensor, sampler)
        if state is None or (self._refused is not None and state.same_objects(self._refused)):
            return None
        # A scene that holds the integrator that holds the scene would never be freed.
        integrator = scene.integrator()
        if integrator is not None and integrator is getattr(self._method(), "__self__", None):
            return None
        return state

    def _replay(
        self, scene: mi.Scene, sensor: mi.Sensor, sampler: mi.Sampler, arrays: Any, key: Hashable
    ) -> Any:
        frozen = self._recorded.pop(key, None)
        if frozen is None:
            frozen = self._recorder(key)
            while len(self._recorded) >= _LIMIT:  # the one that was used longest ago
                del self._recorded[next(iter(self._recorded))]
        before = frozen.n_recordings
        with _no_garbage_collection():
            result = frozen(scene, sensor, sampler, arrays)
        self._recorded[key] = frozen
        if made := frozen.n_recordings - before:
            self.recordings += made
            # Recording moves literals of the scene to memory, which replaces variables.
            self._state = State.of(scene, sensor, sampler)
        return result

    def _recorder(self, key: Hashable) -> Any:
        """Return a function that is recorded for one key only: ``dr.freeze`` may confuse keys."""
        method = self._method

        def call(scene: mi.Scene, sensor: mi.Sensor, sampler: mi.Sampler, arrays: Any) -> Any:
            bound = method()
            assert bound is not None
            return bound(scene, sensor, sampler, arrays, key)

        return dr.freeze(call, limit=1, warn_after=1 << 30)


@dataclass(frozen=True, eq=False)
class State:
    """Everything about a scene and a sensor that can be changed: by ``==``, whether it was.

    Attributes:
        objects: Scene, sensor, sampler and their plugins, which are kept alive so that nothing
            else can be taken for them.
        values: Names and values of all parameters; Dr.Jit arrays as such, kept alive likewise: an
            array that is written to becomes another variable.
    """

    objects: tuple[mi.Object, ...]
    values: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, scene: mi.Scene, sensor: mi.Sensor, sampler: mi.Sampler) -> State | None:
        """Look at a scene; None if it cannot be seen whole.

        Plugins written in Python are opaque, and so are parameters of unknown types.
        """
        values: list[tuple[str, Any]] = [("sampler", sampler.class_name())]
        plugins = walk([scene, sensor, sensor.film(), sensor.sampler()])
        for plugin in plugins:
            for name, value in plugin.values.items():
                seen = _value(value)
                if seen is None:
                    return None
                values.append((name, seen))
        objects = tuple(plugin.plugin for plugin in plugins)
        used = (plugin for plugin in objects if not isinstance(plugin, mi.Integrator))
        if not all(map(_is_native, (sampler, *used))):
            return None
        return cls(objects, tuple(values))

    def same_objects(self, other: State) -> bool:
        """Whether both are about the same objects."""
        return len(self.objects) == len(other.objects) and all(
            a is b for a, b in zip(self.objects, other.objects, strict=True)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, State) and self.same_objects(other) and self.values == other.values

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class _Variable:
    """A Dr.Jit variable, equal to none but itself.

    Attributes:
        index: Numbers of the variable and of its derivative.
        array: Keeps these from being given to others.
    """

    index: tuple[int, int]
    array: Any = field(compare=False, repr=False)

    @classmethod
    def of(cls, array: Any) -> _Variable:
        """Take hold of the variable that a parameter has now, not of the parameter."""
        array = type(array)(array)
        return cls((array.index, array.index_ad), array)


def _value(value: Any) -> Any:
    """Return the value of a parameter in a form that ``==`` compares exactly; None if unknown."""
    if value is None or isinstance(value, bool | int | str):
        return type(value), value
    if isinstance(value, float):
        return float, value.hex()  # NaN equals NaN, and 0 is not -0
    if dr.is_array_v(value):
        if dr.is_tensor_v(value):
            return type(value), value.shape, _value(value.array)
        if dr.is_jit_v(value) and dr.depth_v(value) == 1:
            return type(value), _Variable.of(value)
        parts = tuple(_value(part) for part in value)
    elif dr.is_struct_v(value):
        parts = tuple(_value(getattr(value, name)) for name in type(value).DRJIT_STRUCT)
    else:
        return None
    return None if None in parts else (type(value), *parts)


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep Python from destroying unrelated objects in the ``with`` block.

    What a scene or a recording of someone else does when it is destroyed would become part of the
    recording that is being made, and aborts the process.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _is_native(plugin: mi.Object) -> bool:
    return type(plugin).__module__.partition(".")[0] == "mitsuba"
