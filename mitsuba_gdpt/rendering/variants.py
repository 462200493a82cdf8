"""Choice of a Mitsuba variant, for programs only: the command line and worker processes.

Library code takes whatever variant is set and never changes it.
"""

from __future__ import annotations

from mitsuba_gdpt import _llvm
from mitsuba_gdpt.errors import ConfigError, VariantError

#: Tried in this order where the user names none.
PREFERRED = ("cuda_ad_rgb", "llvm_ad_rgb")
_BACKENDS = {"cuda": "CUDA", "metal": "Metal"}


def supported_variants() -> list[str]:
    """Return the variants that ``gdpt`` is made for, whether or not they work on this machine."""
    import mitsuba as mi

    from mitsuba_gdpt import integrators

    return [variant for variant in mi.variants() if integrators.is_supported(variant)]


def works(variant: str) -> bool:
    """Tell whether this machine can run a Mitsuba variant."""
    import drjit as dr

    if variant.startswith("llvm"):
        return _llvm.problem() is None
    for prefix in ("cuda", "metal"):
        if variant.startswith(prefix):
            _llvm.loaded_version()  # waits for Dr.Jit's start-up thread
            return bool(dr.has_backend(getattr(dr.JitBackend, _BACKENDS[prefix])))
    return True


def set_variant(name: str | None) -> str:
    """Set a Mitsuba variant for the rest of the process.

    Args:
        name: Variant, or None for the first of :data:`PREFERRED` that works.

    Returns:
        The name of the variant that was set.

    Raises:
        ConfigError: There is no such variant.
        VariantError: ``gdpt`` does not support it, or this machine does not.
        LLVMError: It needs LLVM, and there is no good one.
    """
    import mitsuba as mi

    if name is None:
        name = next(filter(works, PREFERRED), PREFERRED[-1])
    supported = supported_variants()
    if name not in mi.variants():
        raise ConfigError(f"there is no variant {name!r}; choose: {', '.join(supported)}")
    if name not in supported:
        raise VariantError(
            f"gdpt does not support the variant {name!r}; choose: {', '.join(supported)}"
        )
    _llvm.require(name)
    if not works(name):
        device = "an NVIDIA GPU" if name.startswith("cuda") else "a GPU of Apple"
        raise VariantError(f"the variant {name!r} needs {device}, and Dr.Jit found none")
    mi.set_variant(name)
    return name
