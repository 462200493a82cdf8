"""Choice of the LLVM library that Dr.Jit compiles with, made before Dr.Jit makes its own.

Dr.Jit loads libLLVM the moment it is imported and takes what the dynamic linker offers. Versions
older than :data:`MINIMUM` abort the process in the middle of a render ("Cannot select:
fminimum"), which no ``except`` can catch. So importing :mod:`mitsuba_gdpt` sets
``DRJIT_LIBLLVM_PATH`` to a good library, in this order:

1. a path that the user has set is respected;
2. the ``karellen-llvm-core`` wheel, a dependency of this package on Linux;
3. the newest system library that is new enough.

Where Dr.Jit was imported first and has taken an old library, it is restarted with the good one,
as long as no Mitsuba object exists yet. (Where it has found none at all there is no second try;
for that case the installed package has a one-line ``.pth`` file that sets the variable when
Python starts, and for Python 3.15 and later a ``.start`` file.) What is left after that is refused
by :func:`require` with an exception.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import os
import platform
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mitsuba_gdpt.errors import LLVMError

ENVIRONMENT_VARIABLE = "DRJIT_LIBLLVM_PATH"
WHEEL = "karellen-llvm-core"

#: Oldest major version that Dr.Jit 1.5 can render with: 15 and 16 were seen to abort, 17 to 23
#: to work (X86-64 with AVX-512).
MINIMUM = 17

#: Mitsuba's object types, which are the domains of Dr.Jit's instance registry.
_DOMAINS = (
    *("Scene", "Shape", "BSDF", "Texture", "Emitter", "Endpoint", "Sensor", "Film", "Sampler"),
    *("ReconstructionFilter", "Integrator", "Medium", "PhaseFunction", "Volume"),
)
#: Functions of Dr.Jit's core library; see _core().
_HAS_BACKEND = "_Z15jit_has_backend10JitBackend"
_SHUTDOWN, _INIT = "_Z12jit_shutdowni", "_Z8jit_initj"
_LIST_VARIABLES = "_Z12jit_var_whosv"
_COUNT_INSTANCES = "_Z21jit_registry_id_boundPKcS0_"

_FILE_NAME = re.compile(r"libLLVM(?:-(\d+)[\d.]*)?\.so(?:\.(\d+)[\d.]*)?$")


@dataclass(frozen=True)
class Library:
    """An LLVM library on disk.

    Attributes:
        path: The file, symbolic links resolved.
        major: Major version, as its name says.
        origin: ``"wheel"`` or ``"system"``.
    """

    path: Path
    major: int
    origin: str


def _library(path: Path, origin: str) -> Library | None:
    """Describe a file, or return None if it is missing or its name tells no version."""
    path = path.resolve()
    match = _FILE_NAME.match(path.name)
    if not path.is_file() or match is None:
        return None
    # 'libLLVM-16.so.1' (up to 17) has its version before '.so', 'libLLVM.so.19.1' after it.
    version = match.group(1) or match.group(2)
    return Library(path, int(version), origin) if version else None


@functools.cache
def _machine(path: Path) -> bytes:
    """Return word size and architecture of an ELF file (empty for anything else)."""
    try:
        with path.open("rb") as file:
            header = file.read(20)
    except OSError:
        return b""
    return header[4:6] + header[18:20] if header.startswith(b"\x7fELF") else b""


def _newest(found: Iterable[Library | None]) -> Library | None:
    """Return the newest library that is new enough and built for this interpreter."""
    machine = _machine(Path(sys.executable).resolve())
    good = [
        library
        for library in found
        if library and library.major >= MINIMUM and _machine(library.path) == machine
    ]
    return max(good, key=lambda library: library.major, default=None)


def find_wheel() -> Library | None:
    """Return the library of the ``karellen-llvm-core`` wheel, wherever pip has put it."""
    try:
        wheel = importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [Path(str(wheel.locate_file(f))) for f in wheel.files or () if "libLLVM" in f.name]
    return _newest(_library(path, "wheel") for path in paths)


def find_system() -> Library | None:
    """Return the newest usable library in the places where Linux distributions put it."""
    multiarch = sysconfig.get_config_var("MULTIARCH") or ""
    folders = [
        *map(Path, filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))),
        *(Path(root) / multiarch for root in ("/usr/lib", "/lib", "/usr/local/lib")),
        *map(Path, ("/usr/lib64", "/usr/lib", "/usr/local/lib64", "/usr/local/lib")),
        *Path("/usr/lib").glob("llvm-*/lib"),
        *Path("/usr/lib64").glob("llvm*/lib*"),
    ]
    if Path(sys.prefix, "conda-meta").is_dir():
        folders.insert(0, Path(sys.prefix, "lib"))
    return _newest(
        _library(path, "system") for folder in folders for path in folder.glob("libLLVM*.so*")
    )


def select() -> None:
    """Make Dr.Jit use a good library; called when the package is imported.

    Never raises: without a good library everything but the ``llvm_*`` variants still works.
    """
    if user_path := os.environ.get(ENVIRONMENT_VARIABLE):
        if not Path(user_path).exists():
            warnings.warn(
                f"{ENVIRONMENT_VARIABLE}={user_path} names no file, so the llvm variants will not "
                f"load; {_remedy()}",
                RuntimeWarning,
                stacklevel=3,
            )
        return
    if not sys.platform.startswith("linux"):
        return  # Dr.Jit knows where Homebrew and the Windows installer put it
    if library := find_wheel() or find_system():
        os.environ[ENVIRONMENT_VARIABLE] = str(library.path)
        if "drjit" in sys.modules:
            _restart()


def _core() -> ctypes.CDLL | None:
    """Return Dr.Jit's core library, or None if it lacks the functions that are needed here.

    They have no Python binding; the C++ names are those of the pinned version.
    """
    import drjit as dr

    name = {"win32": "drjit-core.dll", "darwin": "libdrjit-core.dylib"}
    path = Path(dr.__file__).with_name(name.get(sys.platform, "libdrjit-core.so"))
    try:
        core = ctypes.CDLL(str(path))
        for function in (_HAS_BACKEND, _SHUTDOWN, _INIT, _LIST_VARIABLES, _COUNT_INSTANCES):
            getattr(core, function)
    except (OSError, AttributeError):
        return None
    getattr(core, _LIST_VARIABLES).restype = ctypes.c_char_p
    return core


def loaded_version() -> tuple[int, int, int] | None:
    """Return the version of the library that Dr.Jit has loaded, None if there is none."""
    import drjit as dr

    # Dr.Jit starts in a thread of its own, which takes the interpreter lock if it has a warning to
    # print. dr.has_backend() would wait for that thread with the lock held; ctypes releases it.
    if core := _core():
        getattr(core, _HAS_BACKEND)(dr.JitBackend.LLVM.value)
    if not dr.has_backend(dr.JitBackend.LLVM):
        return None
    major, minor, patch = dr.detail.llvm_version()
    return major, minor, patch


def _restart() -> None:
    """Restart Dr.Jit's LLVM backend if it runs on an old library and nothing depends on it."""
    import drjit as dr

    version, core = loaded_version(), _core()
    if core is None or (version is not None and version[0] >= MINIMUM):
        return
    # Plain variables survive a restart, Mitsuba objects and CUDA memory do not.
    if b" CUDA " in getattr(core, _LIST_VARIABLES)() or _count_objects(core):
        return
    warn_about_leaks = dr.detail.leak_warnings()
    dr.detail.set_leak_warnings(False)  # Mitsuba's colour tables stay alive, as they should
    getattr(core, _SHUTDOWN)(0)
    getattr(core, _INIT)(1 << dr.JitBackend.CUDA.value | 1 << dr.JitBackend.LLVM.value)
    dr.detail.set_leak_warnings(warn_about_leaks)


def _count_objects(core: ctypes.CDLL) -> int:
    """Count the live Mitsuba objects of all just-in-time compiled variants."""
    mitsuba = sys.modules.get("mitsuba")
    variants = [v for v in mitsuba.variants() if not v.startswith("scalar")] if mitsuba else []
    return sum(
        int(getattr(core, _COUNT_INSTANCES)(variant.encode(), domain.encode()))
        for variant in variants
        for domain in _DOMAINS
    )


def _remedy() -> str:
    """Say how to get a good library, given what the environment says now."""
    unset = f"unset {ENVIRONMENT_VARIABLE}, or " if os.environ.get(ENVIRONMENT_VARIABLE) else ""
    return (
        f"to solve this, {unset}{_installation()} and import mitsuba_gdpt first, or point "
        f"{ENVIRONMENT_VARIABLE} at LLVM {MINIMUM} or newer before Python starts"
    )


def _installation() -> str:
    """Say how LLVM is installed on this kind of machine."""
    if sys.platform == "darwin":
        return "run 'brew install llvm'"
    if sys.platform == "win32":
        return "install LLVM from https://github.com/llvm/llvm-project/releases"
    if platform.machine() in ("x86_64", "AMD64"):
        return f"run 'pip install {WHEEL}'"
    # The wheel is made for x86-64 only.
    return "install LLVM from your system (on Debian and Ubuntu 'apt install libllvm19')"


def _load_error(path: str) -> str:
    """Say why the dynamic linker refuses a file (empty if it does not)."""
    try:
        ctypes.CDLL(path)
    except OSError as error:
        return str(error)
    return ""


def problem() -> str | None:
    """Explain what is wrong with the LLVM backend; None if it is fine."""
    version = loaded_version()
    if version is not None and version[0] >= MINIMUM:
        return None
    path = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if version is None:
        reason = _load_error(path) or f"{path} is too old for Dr.Jit" if path else "none was found"
        return f"Dr.Jit could not load an LLVM library ({reason}); {_remedy()}"
    text = (
        f"Dr.Jit runs on LLVM {'.'.join(map(str, version))}, which aborts the process during a "
        f"render; expected version {MINIMUM} or newer; "
    )
    chosen = _library(Path(path), "") if path else None
    if chosen and chosen.major >= MINIMUM:  # select() came too late
        return f"{text}import mitsuba_gdpt before the first scene is loaded (it takes {path})"
    return text + _remedy()


def require(variant: str) -> None:
    """Refuse to run on a library that would abort the process.

    Args:
        variant: The Mitsuba variant that is about to be used; only ``llvm_*`` needs the library.

    Raises:
        LLVMError: Dr.Jit has loaded no library, or one older than :data:`MINIMUM`.
    """
    if variant.startswith("llvm") and (text := problem()) is not None:
        raise LLVMError(text)
