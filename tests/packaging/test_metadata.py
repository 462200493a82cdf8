"""What the package says about itself: version, entry point, dependencies, documents."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mitsuba_gdpt
from tests import crops

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def metadata() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution("mitsuba-gdpt")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("mitsuba-gdpt is not installed; run: pip install -e .")


def requirements(metadata: importlib.metadata.Distribution, extra: str | None) -> dict[str, str]:
    """Map the required names to their specifiers, for an extra or without any."""
    found = {}
    for line in metadata.requires or ():
        requirement, _, marker = line.partition(";")
        if (f'extra == "{extra}"' in marker.replace("'", '"')) != (extra is not None):
            continue
        if extra is None and "extra ==" in marker:
            continue
        name = re.match(r"[\w.-]+", requirement)
        assert name is not None
        found[name.group().lower()] = requirement[name.end() :].strip()
    return found


def test_one_version(metadata: importlib.metadata.Distribution) -> None:
    assert metadata.version == mitsuba_gdpt.__version__
    assert f"[{metadata.version}]" in (ROOT / "CHANGELOG.md").read_text()
    assert f"\nversion: {metadata.version}\n" in (ROOT / "CITATION.cff").read_text()


def test_entry_point(metadata: importlib.metadata.Distribution) -> None:
    from mitsuba_gdpt.cli import main

    (entry,) = metadata.entry_points.select(group="console_scripts", name="mitsuba-gdpt")
    assert entry.load() is main


def test_renderer_is_pinned_and_torch_is_not(metadata: importlib.metadata.Distribution) -> None:
    base = requirements(metadata, None)
    assert base["mitsuba"] in ("<3.10,>=3.9", ">=3.9,<3.10")
    assert base["torch"].startswith(">=")
    assert "," not in base["torch"]  # an installed CUDA build has to be good enough
    assert requirements(metadata, "cpu")["torch"].startswith("==")


def test_license(metadata: importlib.metadata.Distribution) -> None:
    assert metadata.metadata["License-Expression"] == "BSD-3-Clause"
    assert (ROOT / "LICENSE").read_text().startswith("BSD 3-Clause License")


def test_readme_commands_are_those_of_ci() -> None:
    """CI extracts the two commands from the README, so each has to be there, on one line."""
    readme = (ROOT / "README.md").read_text()
    for label, program in {"try": "mitsuba-gdpt render", "test": "python -m pytest"}.items():
        found = re.findall(rf"<!-- {label} -->\n```sh\n(.+)\n```", readme)
        assert len(found) == 1, f"README.md needs one line of shell after <!-- {label} -->"
        assert program in found[0]


def test_module_runs_as_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mitsuba_gdpt", "--version"], capture_output=True, text=True
    )
    assert done.stdout.strip() == mitsuba_gdpt.__version__


#: What only extras install, by import name.
EXTRAS = ("zarr", "numcodecs", "lightning", "tensorboard", "dask", "distributed", "matplotlib")

WITHOUT_EXTRAS = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)

sys.meta_path.insert(0, Absent())
import torch
import mitsuba_gdpt as gdpt
from mitsuba_gdpt.cli import main
from mitsuba_gdpt.data import CropSet, FrameSet

layout = gdpt.Layout.make()
frame = gdpt.FrameBuffers(torch.rand(8, 8, layout.count), layout)
assert gdpt.denoise(frame, "poisson-l2").shape == (8, 8, 3)
try:
    CropSet.open(sys.argv[1])
except gdpt.MissingDependencyError as error:
    print(error)
"""


def test_core_runs_without_extras(tmp_path: Path) -> None:
    crops.fill(str(tmp_path / "set.zarr"), crops.fill_plan(size=16, crops=1))
    command = [sys.executable, "-c", WITHOUT_EXTRAS, str(tmp_path / "set.zarr")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "'zarr' cannot be imported" in done.stdout
    assert "pip install 'mitsuba-gdpt[data]'" in done.stdout


def test_extras_hold_what_the_core_does_without() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = [re.split(r"[^\w-]", line)[0] for line in project["dependencies"]]
    assert not set(EXTRAS) & set(core)
    assert all(
        any(name in line for line in project["optional-dependencies"]["data"])
        for name in ("zarr", "numcodecs")
    )
    assert "mitsuba-gdpt[data]" in project["optional-dependencies"]["train"]
