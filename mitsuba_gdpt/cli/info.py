"""``mitsuba-gdpt info``: what a bug report should contain."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

from mitsuba_gdpt import _llvm, pictures, provenance, rendering
from mitsuba_gdpt._version import __version__
from mitsuba_gdpt.errors import GDPTError

#: Distributions whose versions matter, besides Mitsuba and Dr.Jit.
_LIBRARIES = (
    *("torch", "numpy", "mitsuba-oidn", "OpenEXR", "zarr", "pillow"),
    *("typer", "rich", "karellen-llvm-core"),
)


def info() -> None:
    """Print versions, LLVM, variants, devices and methods, to be pasted into a bug report."""
    rows = [
        ("mitsuba_gdpt", f"{__version__} ({Path(__file__).parents[1]})"),
        ("Python", f"{platform.python_version()} ({sys.executable})"),
        ("system", f"{platform.platform()}, {provenance.processor()}, {os.cpu_count()} threads"),
        *_mitsuba(),
        *_torch(),
        ("libraries", ", ".join(f"{name} {provenance.version(name)}" for name in _LIBRARIES)),
    ]
    width = shutil.get_terminal_size().columns
    indent = max(len(label) for label, _ in rows) + 2
    for label, text in rows:
        lines = pictures.wrapped(text, max(width - indent, indent))
        print(label.ljust(indent) + lines.replace("\n", "\n" + " " * indent))
    print(f"\n{_denoisers(width)}")


def _mitsuba() -> list[tuple[str, str]]:
    import drjit as dr
    import mitsuba as mi

    version = _llvm.loaded_version()  # first: it waits for Dr.Jit's start-up thread
    llvm = ".".join(map(str, version)) if version else "none"
    path = os.environ.get(_llvm.ENVIRONMENT_VARIABLE)
    if path:
        wheel = _llvm.find_wheel()
        origin = f"of the {_llvm.WHEEL} wheel" if wheel and str(wheel.path) == path else "as set"
        llvm += f", {path} ({origin})"
    else:
        llvm += ", found by Dr.Jit itself"
    if problem := _llvm.problem():
        llvm += f"; PROBLEM: {problem}"
    supported = rendering.supported_variants()
    variants = [v for v in supported if rendering.works(v)]
    return [
        ("Mitsuba", f"{mi.__version__}, Dr.Jit {dr.__version__}"),
        ("LLVM", llvm),
        ("CUDA", "found by Dr.Jit" if rendering.works("cuda_ad_rgb") else "not found by Dr.Jit"),
        ("variants", ", ".join(variants) or f"none works, of {', '.join(supported)}"),
        ("threads", f"Dr.Jit {dr.thread_count()}"),
    ]


def _torch() -> list[tuple[str, str]]:
    try:
        import torch
    except ImportError as error:
        return [("torch", f"does not load: {error}")]
    if torch.backends.mps.is_available():
        device = "MPS"
    elif torch.cuda.is_available():
        device = f"CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}"
    else:
        device = f"CPU, {torch.get_num_threads()} threads"
    return [("torch", f"{torch.__version__}, {device}")]


def _denoisers(width: int) -> str:
    """Return tables of all methods and of the levels of quality."""
    try:
        from mitsuba_gdpt import denoisers
    except ImportError as error:
        return f"denoisers NOT AVAILABLE: {error}"

    levels = []
    for quality, level in denoisers.LEVELS.items():
        name = f"{quality} (default)" if quality == denoisers.DEFAULT_QUALITY else quality
        try:
            best = denoisers.default_candidate(quality=quality)
        except GDPTError as error:
            levels.append((name, "", f"NOT AVAILABLE: {error}: {level.doc}"))
        else:
            cost = f"{best.seconds_per_megapixel:g}"
            levels.append((name, cost, f"{best.text}: {level.doc}"))
    quality = pictures.to_text(("s/MP", ""), {"quality": levels}, width)
    return f"{denoisers.methods().text(width)}\n\n{quality}"
