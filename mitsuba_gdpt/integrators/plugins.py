"""What Mitsuba tells of its plugins: parameters and nested plugins, by the names they have there.

``mi.traverse`` tells the same in one flat table, from which the parts cannot be found again: names
may contain dots, and parameters without a value stop it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import mitsuba as mi


@dataclass
class Plugin:
    """A plugin and its own parameters.

    Attributes:
        plugin: The plugin.
        values: Its parameters: numbers, texts and Dr.Jit arrays, None where one is not set.
        children: Nested plugins.
    """

    plugin: mi.Object
    values: dict[str, Any] = field(default_factory=dict)
    children: dict[str, mi.Object] = field(default_factory=dict)

    @classmethod
    def of(cls, plugin: mi.Object) -> Plugin:
        """Ask a plugin."""
        found = cls(plugin)
        plugin.traverse(_callback_class(mi.TraversalCallback)(found))
        return found


@functools.cache
def _callback_class(base: type) -> type:
    """Return a class that writes what a plugin tells into a :class:`Plugin`.

    There is one for all: every class is a cycle of references. One for each call would keep its
    plugin, so that an emitter can outlive its shape, and Dr.Jit calls whatever is alive.
    """

    class Callback(base):
        def __init__(self, found: Plugin) -> None:
            super().__init__()
            self._found = found

        def put(self, name: str, value: Any, flags: Any, kind: Any = None) -> None:
            if isinstance(value, mi.Object):
                self.put_object(name, value, flags)
            else:
                self.put_value(name, value, flags, kind)

        def put_value(self, name: str, value: Any, flags: Any, kind: Any) -> None:
            if kind is not None:
                value = mi.get_property(value, kind, self._found.plugin)
            self._found.values[name] = value

        def put_object(self, name: str, value: Any, flags: Any) -> None:
            children = self._found.children
            if value is not None:
                while name in children:  # siblings may have the same
                    name += "'"
                children[name] = value

    return Callback


def walk(roots: Iterable[mi.Object]) -> list[Plugin]:
    """Return plugins and all that is nested in them, each once, outer ones first."""
    found: dict[mi.Object, Plugin] = {}
    waiting = [*roots]
    while waiting:
        plugin = waiting.pop(0)
        if plugin not in found:
            found[plugin] = Plugin.of(plugin)
            waiting += found[plugin].children.values()
    return [*found.values()]
