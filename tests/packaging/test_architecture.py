"""Imports point downwards only, and neither torch nor Mitsuba is imported where it must not be."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PACKAGE = "mitsuba_gdpt"
ROOT = Path(__file__).parents[2] / PACKAGE

#: Top-level parts of the package, lowest first; a part may import from the layers below its own.
LAYERS = (
    {"errors", "_version", "interrupts"},
    {"checks", "keys", "plugins"},
    {"arrays", "channels", "colorimetry", "decoding", "progress", "files", "packages"}
    | {"provenance", "subprocesses", "toml", "_llvm"},
    {"naming"},
    {"exr", "npz", "pfm", "records"},
    {"image_files", "pictures"},
    {"buffers"},
    {"motion", "foreign"},
    {"integrators", "denoisers", "metrics", "scenes", "display"},
    {"rendering", "report", "execution"},
    {"data", "references"},
    {"training", "batch", "evaluation"},
    {"cli"},
    {PACKAGE, "__main__", "mitsuba_plugin"},  # the public API in __init__.py; what Mitsuba imports
)
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
#: The same inside of ``denoisers``.
ROOMS = (
    {"images", "listing", "solvers"},
    {"exposure", "variances"},
    {"registry", "halves"},
    {"choice", "classical"},
    {"learned", "streams"},
)
ROOM_LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}

#: Parts that must not import a library when they are imported themselves, directly or not.
FORBIDDEN_AT_IMPORT = {
    "errors": {"torch", "mitsuba", "drjit"},
    "interrupts": {"torch", "mitsuba", "drjit"},
    "checks": {"torch", "mitsuba", "drjit"},
    "channels": {"torch", "mitsuba", "drjit"},
    "progress": {"torch", "mitsuba", "drjit"},
    "_llvm": {"torch", "mitsuba", "drjit"},
    "decoding": {"torch", "mitsuba", "drjit"},
    "toml": {"torch", "mitsuba", "drjit"},
    "integrators": {"torch"},
    "scenes": {"torch"},
    "rendering": {"torch", "mitsuba", "drjit"},
    "report": {"torch", "mitsuba", "drjit"},
    "denoisers": {"mitsuba", "drjit"},
    "metrics": {"mitsuba", "drjit"},
    "motion": {"mitsuba", "drjit"},
    "cli": {"torch"},
    PACKAGE: {"torch"},
}
#: Parts that must not import a library anywhere, functions included.
FORBIDDEN = {"integrators": {"torch"}}


@dataclass
class Module:
    """Absolute names of what a source file imports."""

    name: str
    at_import: set[str] = field(default_factory=set)
    anywhere: set[str] = field(default_factory=set)
    for_types: set[str] = field(default_factory=set)  # where TYPE_CHECKING holds, and only there

    @property
    def part(self) -> str:
        return part_of(self.name)


def part_of(name: str) -> str:
    words = name.split(".")
    return words[1] if len(words) > 1 else words[0]


def read(root: Path) -> dict[str, Module]:
    """Parse a package folder."""
    files = {}
    for path in sorted(root.rglob("*.py")):
        words = path.relative_to(root.parent).with_suffix("").parts
        files[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    modules = {}
    for name, path in files.items():
        module = modules[name] = Module(name)
        package = name if path.stem == "__init__" else name.rpartition(".")[0]
        by_time: dict[str, set[str]] = {"import": set(), "call": set(), "types": set()}
        for node, when in imports(ast.parse(path.read_text()), "import"):
            by_time[when] |= {resolve(target, files) for target in targets(node, package)}
        module.at_import = by_time["import"]
        module.anywhere = set.union(*by_time.values())
        module.for_types = by_time["types"] - by_time["import"] - by_time["call"]
    return modules


def imports(node: ast.AST, when: str) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Yield import statements, and when they run: at "import", at a "call", or for "types"."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node, when
    elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
        for child in node.body:
            yield from imports(child, "types")
        for child in node.orelse:
            yield from imports(child, when)
    else:
        in_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from imports(child, "call" if in_function and when == "import" else when)


def targets(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = node.module or ""
    if node.level:  # relative
        words = package.split(".")
        base = ".".join(words[: len(words) - node.level + 1] + ([base] if base else []))
    return [f"{base}.{alias.name}" for alias in node.names]


def resolve(target: str, files: dict[str, Path]) -> str:
    """Return the module of ours that a name lives in, or the other library's top-level name."""
    if target.split(".")[0] != PACKAGE:
        return target.split(".")[0]
    while target not in files and "." in target:
        target = target.rpartition(".")[0]
    return target


def violations(modules: dict[str, Module]) -> list[str]:
    """Return every breach of the rules above, as sentences."""
    found = []
    for module in modules.values():
        if module.part not in LEVEL:
            found.append(f"{module.name} is in no layer: add {module.part!r} to LAYERS")
            continue
        for other in sorted(module.anywhere):
            if other.split(".")[0] != PACKAGE or part_of(other) == module.part:
                continue
            if LEVEL.get(part_of(other), 0) >= LEVEL[module.part]:
                found.append(f"{module.name} imports {other}, which is not below it")
        for library in sorted(FORBIDDEN.get(module.part, set()) & module.anywhere):
            found.append(f"{module.name} imports {library}")
        for library in sorted(FORBIDDEN_AT_IMPORT.get(module.part, set())):
            if chain := path_to(library, module, modules):
                found.append(f"importing {module.name} imports {library}: {' -> '.join(chain)}")
    return found


def path_to(library: str, start: Module, modules: dict[str, Module]) -> list[str]:
    """Return how importing a module leads to a library, empty if it does not."""
    todo, seen = [[start.name]], {start.name}
    while todo:
        chain = todo.pop()
        for name in sorted(modules[chain[-1]].at_import - seen):
            if name == library:
                return [*chain, name]
            if name in modules:
                seen.add(name)
                todo.append([*chain, name])
    return []


def circle(modules: dict[str, Module]) -> list[str]:
    """Return modules that import each other in a circle, in functions or not; none if all is well.

    An import in a function hides a circle, but does not dissolve it.
    """
    graph = {
        name: {other for other in module.anywhere - module.for_types - {name} if other in modules}
        for name, module in modules.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_package_obeys() -> None:
    assert violations(read(ROOT)) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle(read(ROOT)) == []


@pytest.mark.parametrize(
    ("back", "found"),
    [
        ("from mitsuba_gdpt.scenes import x", True),
        ("def f():\n    from mitsuba_gdpt.scenes.x import X", True),
        ("if TYPE_CHECKING:\n    from . import x", False),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    from . import x", True),
    ],
)
def test_a_circle_is_found(tmp_path: Path, back: str, found: bool) -> None:
    files = {"scenes/x.py": "from mitsuba_gdpt.scenes.y import Y", "scenes/y.py": back}
    expected = {f"{PACKAGE}.scenes.x", f"{PACKAGE}.scenes.y"} if found else set()
    assert {*circle(read(fabricate(tmp_path, files)))} == expected


def test_rooms_of_the_denoisers_build_on_those_below() -> None:
    prefix = f"{PACKAGE}.denoisers."
    for name, module in read(ROOT).items():
        room = name.removeprefix(prefix).split(".")[0]
        if not name.startswith(prefix) or room == "__init__":
            continue
        others = {n.removeprefix(prefix).split(".")[0] for n in module.anywhere if prefix in n}
        assert [o for o in others - {room} if ROOM_LEVEL[o] >= ROOM_LEVEL[room]] == [], name


@pytest.mark.parametrize(
    ("file", "source", "message"),
    [
        ("integrators/x.py", "import torch", "integrators.x imports torch"),
        ("integrators/x.py", "def f():\n    from torch import nn", "integrators.x imports torch"),
        ("integrators/x.py", "from mitsuba_gdpt.buffers import B", "imports torch: "),
        ("integrators/x.py", "from mitsuba_gdpt import scenes", "scenes, which is not below"),
        ("denoisers/x.py", "import mitsuba as mi", "importing mitsuba_gdpt.denoisers.x"),
        ("denoisers/x.py", "if True:\n    import drjit.llvm", "imports drjit"),
        ("denoisers/x.py", "from ..cli.app import main", "cli.app, which is not below"),
        ("errors.py", "def f():\n    import mitsuba_gdpt.channels", "channels, which is not below"),
        ("data/x.py", "from mitsuba_gdpt.training import x", "training.x, which is not below"),
        ("scenes/x.py", "from mitsuba_gdpt import denoise", "mitsuba_gdpt, which is not below"),
        (
            "__init__.py",
            "from mitsuba_gdpt.buffers import B",
            "importing mitsuba_gdpt imports torch",
        ),
        ("novelty.py", "", "is in no layer"),
    ],
)
def test_breach_is_found(tmp_path: Path, file: str, source: str, message: str) -> None:
    modules = read(fabricate(tmp_path, {file: source}))
    assert any(message in line for line in violations(modules)), violations(modules)


def test_legal_imports_pass(tmp_path: Path) -> None:
    root = fabricate(
        tmp_path,
        {
            "integrators/x.py": "import mitsuba\nfrom ..channels import Layout\nfrom . import y",
            "integrators/y.py": "from mitsuba_gdpt.integrators.x import z",
            "denoisers/x.py": "import torch\ndef f():\n    import mitsuba",
            "scenes/x.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
            "cli/app.py": "import mitsuba_gdpt.errors\n"
            "def f():\n    import mitsuba_gdpt.training.x",
        },
    )
    assert violations(read(root)) == []


def fabricate(folder: Path, files: dict[str, str]) -> Path:
    """Write a small package that obeys the rules, then add or replace files."""
    files = {
        "__init__.py": "from mitsuba_gdpt import integrators",
        "errors.py": "",
        "channels.py": "from mitsuba_gdpt.errors import E",
        "buffers.py": "import torch",
        "cli/app.py": "",
        "training/x.py": "",
        **{f"{part}/__init__.py": "" for part in ("integrators", "denoisers", "scenes", "cli")},
        **files,
    }
    root = folder / PACKAGE
    for name, source in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return root


@pytest.mark.parametrize("module", [PACKAGE, f"{PACKAGE}.cli", f"{PACKAGE}.scenes"])
def test_import_needs_neither_torch_nor_variant(module: str) -> None:
    code = (
        f"import sys, {module}, mitsuba; "
        "assert 'torch' not in sys.modules; assert mitsuba.variant() is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_exist() -> None:
    import mitsuba_gdpt

    for name in mitsuba_gdpt.__all__:
        assert getattr(mitsuba_gdpt, name) is not None
    assert set(mitsuba_gdpt.__all__) <= set(dir(mitsuba_gdpt))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = mitsuba_gdpt.nonsense
