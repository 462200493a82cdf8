"""Optional packages: imported where they are needed, with an error that says how to get them."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from mitsuba_gdpt.errors import MissingDependencyError


def load(package: str, extra: str) -> Any:
    """Import an optional package.

    Args:
        package: Import name, for example ``"mitsuba_oidn"``.
        extra: The extra of this package that installs it, for example ``"oidn"``.

    Raises:
        MissingDependencyError: It is not installed, or does not load.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(_remedy(package, extra, str(error))) from error


def check(package: str, extra: str) -> None:
    """Look for an optional package without importing it.

    Raises:
        MissingDependencyError: It is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingDependencyError(_remedy(package, extra, "it is not installed"))


def _remedy(package: str, extra: str, reason: str) -> str:
    return (
        f"the package {package.split('.')[0]!r} cannot be imported: {reason}; "
        f"run: pip install 'mitsuba-gdpt[{extra}]'"
    )
