"""Count what a checkout consists of, beside another one.

    python benchmarks/house.py OLD NEW

Lines and modules of the package, names that it exports, uses of ``Any`` in the integrators, names
that functions in several modules share (twins, or a habit), tests and lines of tests. Nothing is
imported.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path


def counts(root: Path) -> dict[str, int]:
    """Count what is in a checkout."""
    package = {
        path: path.read_text(encoding="utf-8") for path in (root / "mitsuba_gdpt").rglob("*.py")
    }
    tests = {path: path.read_text(encoding="utf-8") for path in (root / "tests").rglob("*.py")}
    trees = {path: ast.parse(text) for path, text in package.items()}
    integrators = [tree for path, tree in trees.items() if "integrators" in path.parts]
    homes: Counter[str] = Counter()
    for tree in trees.values():
        homes.update({f.name for f in tree.body if isinstance(f, ast.FunctionDef)})
    cases = [
        node
        for text in tests.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    return {
        "modules": len(package),
        "lines": sum(text.count("\n") for text in package.values()),
        "exported names": sum(len(exported(tree)) for tree in trees.values()),
        "public functions and classes": sum(len(public(tree)) for tree in trees.values()),
        "Any in integrators": sum(uses(tree, "Any") for tree in integrators),
        "function names in several modules": sum(n > 1 for n in homes.values()),
        "test functions": len(cases),
        "lines of tests": sum(text.count("\n") for text in tests.values()),
    }


def exported(tree: ast.Module) -> list[str]:
    """Return the names in ``__all__``."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [ast.unparse(item) for item in getattr(node.value, "elts", ())]
    return []


def public(tree: ast.Module) -> list[str]:
    """Return the functions and classes of a module whose names have no underscore in front."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [n.name for n in tree.body if isinstance(n, kinds) and not n.name.startswith("_")]


def uses(tree: ast.Module, name: str) -> int:
    """Count how often a name is read."""
    return sum(isinstance(node, ast.Name) and node.id == name for node in ast.walk(tree))


def main(old: Path, new: Path) -> None:
    """Print a table."""
    a, b = counts(old), counts(new)
    for key, value in a.items():
        print(f"{key:34} {value:7} {b[key]:7}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python benchmarks/house.py OLD NEW")
    main(*map(Path, sys.argv[1:]))
