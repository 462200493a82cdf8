"""Gradient-domain path tracing with learned and classical reconstruction for Mitsuba 3.

Importing the package registers the ``gdpt`` integrator with every LLVM and CUDA variant of
Mitsuba, whichever is set, now or later:

    import mitsuba as mi, mitsuba_gdpt as gdpt

    mi.set_variant("llvm_ad_rgb")
    scene = mi.load_file("scene.xml")
    buffers = mi.render(scene, integrator=mi.load_dict({"type": "gdpt"}), spp=8)
    image = gdpt.denoise(buffers, method="poisson-l1")

Everything else is loaded on first use; in particular, torch is not imported before it is needed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt import interrupts

interrupts.guard_start()  # Ctrl-C may come during all that follows

from mitsuba_gdpt import _llvm

_llvm.select()  # has to come before anything that imports Mitsuba

from mitsuba_gdpt import integrators
from mitsuba_gdpt._version import __version__
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.errors import (
    ConfigError,
    FormatError,
    GDPTError,
    LayoutError,
    LLVMError,
    MissingDependencyError,
    NonFiniteError,
    VariantError,
    WeightsError,
)

if TYPE_CHECKING:
    from mitsuba_gdpt import denoisers, scenes
    from mitsuba_gdpt.buffers import FrameBuffers
    from mitsuba_gdpt.denoisers import denoise, denoise_sequence, load_weights, methods, stream
    from mitsuba_gdpt.display import Live, show, to_tev
    from mitsuba_gdpt.motion import PinholeCamera, add_motion
    from mitsuba_gdpt.rendering import features
    from mitsuba_gdpt.rendering.budget import render
    from mitsuba_gdpt.rendering.sequence import render_sequence

__all__ = [
    "ConfigError",
    "FormatError",
    "FrameBuffers",
    "GDPTError",
    "LLVMError",
    "Layout",
    "LayoutError",
    "Live",
    "MissingDependencyError",
    "NonFiniteError",
    "PinholeCamera",
    "VariantError",
    "WeightsError",
    "__version__",
    "add_motion",
    "denoise",
    "denoise_sequence",
    "denoisers",
    "features",
    "integrators",
    "load_weights",
    "methods",
    "render",
    "render_sequence",
    "scenes",
    "show",
    "stream",
    "to_tev",
]

#: Public names that are imported when they are first asked for, and where they live.
_LAZY = {
    "FrameBuffers": "mitsuba_gdpt.buffers",
    "Live": "mitsuba_gdpt.display",
    "PinholeCamera": "mitsuba_gdpt.motion",
    "add_motion": "mitsuba_gdpt.motion",
    "denoise": "mitsuba_gdpt.denoisers",
    "denoise_sequence": "mitsuba_gdpt.denoisers",
    "features": "mitsuba_gdpt.rendering",
    "load_weights": "mitsuba_gdpt.denoisers",
    "methods": "mitsuba_gdpt.denoisers",
    "render": "mitsuba_gdpt.rendering.budget",
    "render_sequence": "mitsuba_gdpt.rendering.sequence",
    "show": "mitsuba_gdpt.display",
    "stream": "mitsuba_gdpt.denoisers",
    "to_tev": "mitsuba_gdpt.display",
    "denoisers": "",
    "scenes": "",
}

integrators.install()


def __getattr__(name: str) -> Any:
    try:
        module = _LAZY[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    if not module:
        return importlib.import_module(f"{__name__}.{name}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
