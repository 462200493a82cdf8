"""Examples in docstrings and in the README run as they stand there."""

from __future__ import annotations

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crops import XML

ROOT = Path(__file__).parents[2]
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted((ROOT / "mitsuba_gdpt").rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


SENSOR = """<sensor type="perspective">
  <transform name="to_world"><lookat origin="0, 0, 4" target="0, 0, 0" up="0, 1, 0"/></transform>
  <film type="hdrfilm">
    <integer name="width" value="16"/><integer name="height" value="16"/>
  </film>
</sensor>"""


@pytest.mark.parametrize("module", MODULES)
def test_docstrings(module: str) -> None:
    import torch

    found = doctest.testmod(
        importlib.import_module(module),
        extraglobs={"torch": torch},
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE,
    )
    assert found.failed == 0


def test_there_are_examples() -> None:
    assert len(MODULES) >= 8


def test_readme(tmp_path: Path) -> None:
    """All Python of the README, one block after the other, beside a scene called scene.xml."""
    (tmp_path / "scene.xml").write_text(XML.replace("<emitter", f"{SENSOR}<emitter", 1))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 2
    program = "\n".join(blocks)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "frame.exr").is_file()
