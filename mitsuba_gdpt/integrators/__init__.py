"""The ``gdpt`` integrator plugin and its registration with Mitsuba."""

from __future__ import annotations

import mitsuba as mi


def install() -> None:
    """Register the plugin for the active variant, and for every variant that is set later."""
    mi.detail.add_variant_callback(_register)
    if mi.variant() is not None:
        _register(None, mi.variant())


def _register(_old: str | None, new: str) -> None:
    from mitsuba_gdpt.integrators.gdpt import make_plugin

    # A class body binds the types of one variant, so every variant gets a class of its own.
    mi.register_integrator("gdpt", make_plugin())
