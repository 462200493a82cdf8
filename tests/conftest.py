"""What all tests share: tiers, variants, the folder of shared data, loud skips.

The tier of a test is its folder; the marker of the same name is set here. ``cuda`` tests are
skipped where Dr.Jit finds no device, ``slow`` ones unless ``--slow`` is given.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports torch, and inherited by the programs that tests start: where others want
# the same cores, waiting threads would spin their time slices away. See mitsuba_gdpt/cli/app.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).parents[1]
TIERS = ("unit", "plugin", "statistical", "e2e", "packaging")
SHARED = ROOT.parent / "shared"
_NO_SHARED = "missing shared data"
#: Skips for one of these reasons are listed at the end.
_LOUD = (_NO_SHARED, "no Chromium")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    no_cuda = pytest.mark.skip(reason="no CUDA device")
    too_slow = pytest.mark.skip(reason="slow; run with --slow")
    for item in items:
        tier = item.path.relative_to(ROOT / "tests").parts[0]
        if tier not in TIERS:
            raise pytest.UsageError(f"{item.path} is in no tier; expected one of {TIERS}")
        item.add_marker(tier)
        if "variant_cuda_rgb" in getattr(item, "fixturenames", ()):
            item.add_marker("cuda")
        if item.get_closest_marker("cuda") and not _has_cuda():
            item.add_marker(no_cuda)
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(too_slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the tests that could not run here, so that nobody takes them for passed."""
    skipped: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", ()):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if any(words in reason for words in _LOUD):
            skipped.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)
    for reason, nodeids in skipped.items():
        terminalreporter.section(f"NOT TESTED: {len(nodeids)} tests, {reason}")
        for nodeid in nodeids:
            terminalreporter.line(nodeid)


def _has_cuda() -> bool:
    from mitsuba_gdpt import rendering

    return rendering.works("cuda_ad_rgb")


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real scenes and weights beside the repository; tests skip without it."""
    if not SHARED.is_dir():
        pytest.skip(f"{_NO_SHARED}: there is no folder {SHARED}")
    return SHARED


def _use(variant: str) -> Iterator[str]:
    import drjit as dr
    import mitsuba as mi

    from mitsuba_gdpt import _llvm

    _llvm.require(variant)  # otherwise an old library would abort pytest
    mi.set_variant(variant)
    mi.set_log_level(mi.LogLevel.Warn)
    yield variant
    gc.collect()
    dr.sync_thread()
    dr.flush_malloc_cache()


@pytest.fixture
def variant_llvm_rgb() -> Iterator[str]:
    yield from _use("llvm_ad_rgb")


@pytest.fixture
def variant_llvm_mono() -> Iterator[str]:
    yield from _use("llvm_ad_mono")


@pytest.fixture
def variant_llvm_spectral() -> Iterator[str]:
    yield from _use("llvm_ad_spectral")


@pytest.fixture
def variant_cuda_rgb() -> Iterator[str]:
    """The test becomes a ``cuda`` test by using this."""
    yield from _use("cuda_ad_rgb")


@pytest.fixture(params=["llvm_ad_rgb", "llvm_ad_mono", "llvm_ad_spectral"])
def variants_llvm(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from _use(request.param)
