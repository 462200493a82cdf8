"""Import of packages that only some metrics need."""

from __future__ import annotations

import importlib
from typing import Any

from mitsuba_gdpt.errors import MissingDependencyError


def optional(package: str, extra: str = "eval") -> Any:
    """Import an optional package.

    Args:
        package: Import name.
        extra: The extra of this package that installs it.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"the package {package!r} cannot be imported ({error}); "
            f"run: pip install 'mitsuba-gdpt[{extra}]'"
        ) from error
