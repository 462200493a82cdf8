"""The ``gdpt`` integrator plugin and its registration with Mitsuba."""

from __future__ import annotations

from collections.abc import Callable

import mitsuba as mi

from mitsuba_gdpt import _llvm
from mitsuba_gdpt.errors import VariantError

PLUGIN_ID = "gdpt"
#: Variants whose loops are compiled. Those for Metal come with later versions of Mitsuba.
COMPILED = ("llvm_", "cuda_", "metal_")


def install() -> None:
    """Register the plugin for the active variant, and for every variant that is set later."""
    mi.detail.add_variant_callback(_register)
    if mi.variant() is not None:
        register()


def register() -> None:
    """Register the plugin for the active variant, in place of what is registered there."""
    _register(None, mi.variant())


def _register(_old: str | None, new: str) -> None:
    plugin: Callable[[mi.Properties], mi.Integrator] = _refuse
    if is_supported(new):
        # A class body binds the types of one variant, so every variant gets a class of its own.
        from mitsuba_gdpt.integrators.gdpt import make_plugin

        plugin = make_plugin()

    def create(props: mi.Properties) -> mi.Integrator:
        _llvm.require(new)
        return plugin(props)

    mi.register_integrator(PLUGIN_ID, create)


def is_supported(variant: str) -> bool:
    """Whether ``gdpt`` runs in a variant: rgb, mono and spectral ones that are compiled."""
    return variant.startswith(COMPILED) and "polarized" not in variant


def _refuse(_props: mi.Properties) -> mi.Integrator:
    raise VariantError(
        f"the gdpt integrator does not run in the variant {mi.variant()!r}; expected an "
        "unpolarized llvm_*, cuda_* or metal_* variant, for example mi.set_variant('llvm_ad_rgb')"
    )
