"""Rendering again without tracing the program again.

Dr.Jit traces the Python code of a render every time, for a tenth of a second: as long as eight
samples of a small frame take. ``dr.freeze`` records the kernels that come out, and launches them
again when the same method gets other numbers: another seed, a moved camera, changed materials.
"""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import drjit as dr
import mitsuba as mi

#: Recordings that are kept: one for each scene, size of tile and number of samples in use.
_LIMIT = 32


class FrozenMethod:
    """Calls a bound method, by replaying its kernels where that is possible.

    Scenes with plugins written in Python are rendered as usual: what their code does outside
    Dr.Jit would not be repeated.

    Args:
        method: ``method(scene, sensor, sampler, arrays, key)``. It must not look at values of
            arrays, nor make arrays of NumPy's. Its object is not kept alive.
        enabled: Whether to freeze at all.

    Attributes:
        enabled: As above; can be changed.
    """

    def __init__(self, method: Callable[..., Any], enabled: bool = True) -> None:
        # The object holds this one: a cycle through Dr.Jit would never be collected.
        weak = weakref.WeakMethod(method)

        def call(scene: Any, sensor: Any, sampler: Any, arrays: Any, key: Any) -> Any:
            bound = weak()
            assert bound is not None
            return bound(scene, sensor, sampler, arrays, key)

        self.enabled = enabled
        self._call = call
        # Many recordings are no sign of a mistake here: scenes come and go.
        self._frozen = dr.freeze(call, limit=_LIMIT, warn_after=1 << 30)

    @property
    def recordings(self) -> int:
        """How often the method was traced to record it."""
        return int(self._frozen.n_recordings)

    def __call__(self, scene: Any, sensor: Any, sampler: Any, arrays: Any, key: Any) -> Any:
        """Return the result of the method.

        Args:
            scene: The scene.
            sensor: The sensor.
            sampler: Seeded, with an opaque seed.
            arrays: A PyTree of Dr.Jit arrays.
            key: A PyTree of whatever else the result depends on.
        """
        if self.enabled and all(map(_is_native, (sampler, sensor, *_plugins(scene)))):
            try:
                with _no_garbage_collection():
                    return self._frozen(scene, sensor, sampler, arrays, key)
            except RuntimeError as error:
                if "frozen function" not in str(error):
                    raise
                self.enabled = False
                mi.Log(
                    mi.LogLevel.Warn,
                    f"gdpt: this scene cannot be frozen ({error}); going on without. Set freeze to "
                    f"false to silence this warning.",
                )
        return self._call(scene, sensor, sampler, arrays, key)


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


def _is_native(plugin: Any) -> bool:
    return type(plugin).__module__.partition(".")[0] == "mitsuba"


def _plugins(scene: Any) -> list[Any]:
    """Return the plugins of a scene that take part in a render."""
    hierarchy = mi.traverse(scene).hierarchy
    return [plugin for plugin in hierarchy if not isinstance(plugin, mi.Integrator)]
