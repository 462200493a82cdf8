"""The choice of libLLVM, in processes of its own because Dr.Jit makes it only once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mitsuba_gdpt import _llvm

ROOT = Path(__file__).parents[2]
OLD = next(iter(sorted(Path("/usr/lib").glob("*-linux-gnu/libLLVM-15.so*"))), None)
WHEEL = _llvm.find_wheel()

needs_old = pytest.mark.skipif(OLD is None, reason="no LLVM 15 on this machine")
needs_wheel = pytest.mark.skipif(WHEEL is None, reason=f"{_llvm.WHEEL} is not installed")

#: As if the start-up file of the installed package were not there.
UNSET = "import os; os.environ.pop('DRJIT_LIBLLVM_PATH', None)"
HIDE_WHEEL = f"""
{UNSET}
import importlib.metadata
def distribution(name):
    raise importlib.metadata.PackageNotFoundError(name)
importlib.metadata.distribution = distribution
"""
RENDER = """
image = mi.render(mi.load_dict({"type": "scene", "sensor": {"type": "perspective",
    "film": {"type": "hdrfilm", "width": 4, "height": 4}}, "light": {"type": "constant"},
    "integrator": {"type": "gdpt"}}), spp=2)
print("rendered", image.shape, _llvm.loaded_version()[0])
"""


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {k: v for k, v in os.environ.items() if k != _llvm.ENVIRONMENT_VARIABLE}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        env={**inherited, **environment},
        cwd=ROOT,
    )


ORDERS = {
    "ours first": "import mitsuba_gdpt, mitsuba as mi; mi.set_variant('llvm_ad_rgb')",
    "mitsuba first": "import mitsuba as mi, mitsuba_gdpt; mi.set_variant('llvm_ad_rgb')",
    "variant first": "import mitsuba as mi; mi.set_variant('llvm_ad_rgb'); import mitsuba_gdpt",
    "variants first": "import mitsuba as mi; mi.set_variant('llvm_ad_spectral'); "
    "mi.set_variant('llvm_ad_rgb'); import mitsuba_gdpt",
}


@needs_wheel
@pytest.mark.parametrize("order", ORDERS)
def test_import_order_does_not_matter(order: str) -> None:
    if order != "ours first" and OLD is None and _llvm.find_system() is None:
        pytest.skip("no system LLVM for Dr.Jit to start with")
    done = python(f"{UNSET}\n{ORDERS[order]}\nfrom mitsuba_gdpt import _llvm\n{RENDER}")
    assert done.returncode == 0, done.stderr
    # Mitsuba's log writes to the same stream, before or after, as the buffers want.
    found = re.search(r"rendered \(4, 4, 16\) (\d+)", done.stdout)
    assert found, done.stdout
    assert int(found[1]) >= _llvm.MINIMUM


@needs_wheel
@needs_old
def test_restart_keeps_variables_and_results() -> None:
    code = """
import mitsuba as mi, drjit as dr
mi.set_variant("llvm_ad_rgb")
evaluated = dr.arange(mi.Float, 100) + 0.5
dr.eval(evaluated)
pending = evaluated * 2
generator = mi.PCG32(3)
drawn = generator.next_float32()
import mitsuba_gdpt
print(dr.detail.llvm_version()[0], dr.sum(pending)[0], *drawn, *generator.next_float32())
"""
    late = python(f"{UNSET}\n{code}")
    early = python(f"{UNSET}\nimport mitsuba_gdpt\n{code}")
    assert late.returncode == 0, late.stderr
    assert late.stdout == early.stdout
    assert late.stderr == ""


@needs_wheel
@needs_old
def test_too_late_for_restart() -> None:
    done = python(
        f"{UNSET}\nimport mitsuba as mi; mi.set_variant('llvm_ad_rgb')\n"
        "sphere = mi.load_dict({'type': 'sphere'})\n"
        "import mitsuba_gdpt; mitsuba_gdpt._llvm.require('llvm_ad_rgb')"
    )
    assert done.returncode == 1
    assert "LLVMError: Dr.Jit runs on LLVM 15" in done.stderr
    assert "import mitsuba_gdpt before the first scene" in done.stderr


@needs_old
@pytest.mark.skipif(_llvm.find_system() is not None, reason="this machine has a good system LLVM")
@pytest.mark.parametrize(
    "use",
    [
        "mitsuba_gdpt._llvm.require('llvm_ad_rgb')",
        "mi.set_variant('llvm_ad_rgb'); mi.load_dict({'type': 'gdpt'})",
    ],
)
def test_old_system_library_only(use: str) -> None:
    done = python(f"{HIDE_WHEEL}\nimport mitsuba_gdpt, mitsuba as mi\n{use}")
    assert done.returncode == 1, (done.returncode, done.stderr)  # not -6, an abort
    assert "Dr.Jit runs on LLVM 15" in done.stderr
    assert f"pip install {_llvm.WHEEL}" in done.stderr


@needs_wheel
def test_good_path_of_the_user_is_kept() -> None:
    assert WHEEL is not None
    folder = WHEEL.path.parent
    chosen = folder / ".." / folder.name / WHEEL.path.name  # another spelling than our own
    code = "import mitsuba_gdpt, os; print(os.environ['DRJIT_LIBLLVM_PATH']);"
    code += "mitsuba_gdpt._llvm.require('llvm_ad_rgb')"
    done = python(code, DRJIT_LIBLLVM_PATH=str(chosen))
    assert done.stdout.strip() == str(chosen)
    assert done.returncode == 0, done.stderr


@needs_old
def test_old_path_of_the_user_is_refused() -> None:
    code = "import mitsuba_gdpt; mitsuba_gdpt._llvm.require('llvm_ad_rgb')"
    done = python(code, DRJIT_LIBLLVM_PATH=str(OLD))
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert "Dr.Jit runs on LLVM 15" in done.stderr
    assert "unset DRJIT_LIBLLVM_PATH" in done.stderr


def test_missing_path_of_the_user_is_refused() -> None:
    code = "import mitsuba_gdpt; print('imported'); mitsuba_gdpt._llvm.require('llvm_ad_rgb')"
    done = python(code, DRJIT_LIBLLVM_PATH="/nonexistent/libLLVM.so")
    assert done.stdout.strip() == "imported"
    assert done.returncode == 1, (done.returncode, done.stderr)
    assert "RuntimeWarning: DRJIT_LIBLLVM_PATH=/nonexistent/libLLVM.so names no file" in done.stderr
    assert "LLVMError: Dr.Jit could not load" in done.stderr


def test_scalar_variants_need_no_library() -> None:
    code = (
        "import mitsuba_gdpt, mitsuba as mi; mi.set_variant('scalar_rgb'); "
        "mitsuba_gdpt._llvm.require('scalar_rgb'); mi.load_dict({'type': 'sphere'})"
    )
    done = python(code, DRJIT_LIBLLVM_PATH="/nonexistent/libLLVM.so")
    assert done.returncode == 0, done.stderr


#: How Python 3.15 reads a file of startup entry points (PEP 829), as far as ours goes.
LIKE_SITE = """
import pkgutil, sys
from pathlib import Path
sys.path.insert(0, folder)  # before an installed one
for line in Path(folder, "mitsuba_gdpt_libllvm.start").read_text("utf-8").splitlines():
    if line.strip() and not line.startswith("#"):
        module, colon, function = line.strip().partition(":")
        assert colon and function.isidentifier(), line
        pkgutil.resolve_name(line.strip())()
assert "mitsuba" not in sys.modules and "mitsuba_gdpt" not in sys.modules
"""


@pytest.mark.parametrize("kind", ["pth", "start"])
@pytest.mark.parametrize("user_path", [None, "/chosen/by/user.so"])
def test_startup_file(tmp_path: Path, user_path: str | None, kind: str) -> None:
    """The files of the installed package find the wheel's library beside site-packages."""
    site = tmp_path / "lib" / "python3" / "site-packages"
    site.mkdir(parents=True)
    library = tmp_path / "lib" / "libLLVM.so.19.1"
    library.touch()
    (tmp_path / "lib" / "libLLVM-15.so").touch()
    for source in (ROOT / "packaging").glob("mitsuba_gdpt_libllvm.*"):
        (site / source.name).write_text(source.read_text())
    read = f"import site; site.addsitedir({str(site)!r})"
    if kind == "start":
        read = f"folder = {str(site)!r}\n{LIKE_SITE}"
    code = f"import os; {'pass' if user_path else UNSET}\n{read}\n"
    code += "print(os.environ['DRJIT_LIBLLVM_PATH'])"
    done = python(code, **({_llvm.ENVIRONMENT_VARIABLE: user_path} if user_path else {}))
    assert done.stderr == ""
    assert done.stdout.strip() == (user_path or str(library))


def test_startup_file_without_library(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_text((ROOT / "packaging/mitsuba_gdpt_libllvm.pth").read_text())
    done = python(
        f"import os, site; {UNSET}; site.addsitedir({str(tmp_path)!r})\n"
        "print('DRJIT_LIBLLVM_PATH' in os.environ)"
    )
    assert (done.stdout.strip(), done.stderr) == ("False", "")


@pytest.mark.parametrize(
    ("name", "major"),
    [
        ("libLLVM-15.so.1", 15),
        ("libLLVM-14.0.6.so.1", 14),
        ("libLLVM.so.19.1", 19),
        ("libLLVM.so.23.1", 23),
        ("libLLVM-17.so", 17),
        ("libLLVM.so", None),
        ("libLLVMCore.a", None),
    ],
)
def test_version_from_name(tmp_path: Path, name: str, major: int | None) -> None:
    (tmp_path / name).touch()
    library = _llvm._library(tmp_path / name, "system")
    assert (library.major if library else None) == major


def test_newest_of_this_machine(tmp_path: Path) -> None:
    header = Path(sys.executable).resolve().read_bytes()[:20]
    other = header[:18] + bytes(2)
    for name, content in {
        "libLLVM-15.so.1": header,
        "libLLVM-17.so.1": header,
        "libLLVM.so.19.1": header,
        "libLLVM.so.21.1": other,
        "libLLVM.so.22.1": b"text",
    }.items():
        (tmp_path / name).write_bytes(content)
    found = [_llvm._library(path, "system") for path in tmp_path.iterdir()]
    newest = _llvm._newest(found)
    assert newest is not None
    assert newest.path.name == "libLLVM.so.19.1"
    assert _llvm._newest([]) is None
