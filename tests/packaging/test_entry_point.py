"""Mitsuba 3.10 finds the plugin through an entry point; this Mitsuba through an import."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: What Mitsuba 3.10 does when a variant is set: import the module once, reload it from then on.
LIKE_MITSUBA = """
import importlib, sys
import mitsuba as mi
from importlib.metadata import EntryPoint

module = None
def use(variant):
    global module
    mi.set_variant(variant)
    if module is None:
        module = EntryPoint("gdpt", "mitsuba_gdpt.mitsuba_plugin", "mitsuba").load()
    else:
        importlib.reload(module)
    return type(mi.load_dict({"type": "gdpt", "shifts": 2}))

{before}
first = use("llvm_ad_rgb")
second = use("llvm_ad_mono")
assert first is not second and issubclass(second, mi.Integrator), (first, second)
assert issubclass(use("llvm_ad_rgb"), mi.Integrator)
assert "torch" not in sys.modules
"""


@pytest.mark.parametrize("before", ["", "import mitsuba_gdpt"], ids=["alone", "after-import"])
def test_plugin_is_known_after_import_and_reload(before: str) -> None:
    code = LIKE_MITSUBA.replace("{before}", before)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_entry_point_names_the_module() -> None:
    import importlib.metadata

    try:
        distribution = importlib.metadata.distribution("mitsuba-gdpt")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("mitsuba-gdpt is not installed; run: pip install -e .")
    (entry,) = distribution.entry_points.select(group="mitsuba")
    assert (entry.name, entry.value) == ("gdpt", "mitsuba_gdpt.mitsuba_plugin")
