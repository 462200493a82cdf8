"""Methods and metrics of others: those of installed packages, and of files that somebody names.

A package says in its entry points, group :data:`GROUP`, which of its modules registers what it has;
files and modules stand in the environment variable :data:`VARIABLE`, where child processes find
them too. All are imported when a registry is first asked for a name.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
import threading
import warnings
from pathlib import Path

from mitsuba_gdpt.errors import ConfigError

GROUP = "mitsuba_gdpt.plugins"
VARIABLE = "MITSUBA_GDPT_IMPORT"

_loaded: set[str] = set()
_lock = threading.RLock()  # again by the same thread: a plug-in may ask a registry itself


def add(names: list[str]) -> None:
    """Name files (``my.py``) or modules to import, here and in child processes.

    Raises:
        ConfigError: A file is not there, or importing one fails.
    """
    found = [_identified(name) for name in names]
    os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys([*_named(), *found]))
    load()


def load() -> None:
    """Import what has not been imported yet.

    Raises:
        ConfigError: A file or module that somebody has named cannot be imported.
    """
    with _lock:
        for entry in _entry_points():
            if entry.value not in _loaded:
                _loaded.add(entry.value)
                try:
                    entry.load()
                except Exception as error:  # of others: it must not take everything down
                    warnings.warn(f"{_owner(entry)}: {entry.value} fails: {error!r}", stacklevel=2)
        for name in _named():
            if name not in _loaded:
                _loaded.add(name)
                try:
                    _import(name)
                except Exception as error:
                    _loaded.discard(name)
                    raise ConfigError(f"{name}: cannot import this: {error!r}") from error


def identity() -> list[str]:
    """Return what results depend on if plug-ins made them: names with versions or hashes."""
    entries = [f"{entry.value} of {_owner(entry)}" for entry in _entry_points()]
    return sorted([*entries, *(f"{name} {_hash(name)}" for name in _named())])


@functools.cache
def _entry_points() -> list[importlib.metadata.EntryPoint]:
    return sorted(importlib.metadata.entry_points(group=GROUP), key=lambda entry: entry.value)


def _owner(entry: importlib.metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an installed package"


def _named() -> list[str]:
    return [name for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


def _identified(name: str) -> str:
    """Return the absolute path of a file, or the name of a module."""
    path = Path(name).expanduser()
    if path.suffix != ".py" and os.sep not in name:
        return name
    if not path.is_file():
        raise ConfigError(f"{name}: no such file; expected a Python file or the name of a module")
    return str(path.resolve())


def _import(name: str) -> None:
    if not name.endswith(".py"):
        importlib.import_module(name)
        return
    # A name of its own: a file called json.py must not stand for the module.
    module_name = f"mitsuba_gdpt_plugin_{_hash(name)}"
    spec = importlib.util.spec_from_file_location(module_name, name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)


def _hash(name: str) -> str:
    try:
        return hashlib.sha256(Path(name).read_bytes()).hexdigest()[:12]
    except OSError:  # a module by its name
        return ""
