"""The command line, ``mitsuba-gdpt``: one module per command, nothing that a library user needs.

Commands import Mitsuba objects, torch and denoisers inside their functions, so that ``--help``
stays quick. Errors end up in :func:`mitsuba_gdpt.cli.app.main`, which alone decides how they are
shown and with what exit code.
"""

from __future__ import annotations

from mitsuba_gdpt.cli.app import app, main

__all__ = ["app", "main"]
