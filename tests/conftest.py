"""What all tests share: tiers, variants, the folder of shared data, loud skips.

The tier of a test is its folder; the marker of the same name is set here. ``cuda`` tests are
skipped where Dr.Jit finds no device, ``slow`` ones unless ``--slow`` is given.

What has to hold on every device takes the fixture ``device_variant`` (or ``device``, where Mitsuba
plays no part): the same test runs on the CPU, and on a GPU as a ``cuda`` test.
"""

from __future__ import annotations

import functools
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

# Before anything imports torch, and inherited by the programs that tests start: where others want
# the same cores, waiting threads would spin their time slices away. See mitsuba_gdpt/cli/app.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Lines of progress on standard error depend on how busy the machine is.
os.environ.setdefault("MITSUBA_GDPT_PROGRESS", "0")
# Where a developer keeps scenes must not decide where tests look for theirs.
os.environ.pop("MITSUBA_GDPT_SCENES", None)

# A shell starts its background jobs with Ctrl-C ignored, and all that these start inherit that; the
# tests of interrupts are about programs that somebody sits at.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
TIERS = ("unit", "plugin", "statistical", "e2e", "packaging")
SHARED = ROOT.parent / "shared"
_NO_SHARED = "missing shared data"
_NO_CUDA = "no CUDA device"
#: Skips for one of these reasons are listed at the end.
_LOUD = (_NO_SHARED, "no Chromium", "the OptiX denoiser does not start")
#: Skips for one of these reasons are counted at the end.
_COUNTED = (_NO_CUDA, "this torch has no CUDA support")
_ON_DEVICE = {"device", "device_variant"}
_CUDA = pytest.mark.cuda


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    no_cuda = pytest.mark.skip(reason=_NO_CUDA)
    too_slow = pytest.mark.skip(reason="slow; run with --slow")
    for item in items:
        tier = item.path.relative_to(ROOT / "tests").parts[0]
        if tier not in TIERS:
            raise pytest.UsageError(f"{item.path} is in no tier; expected one of {TIERS}")
        item.add_marker(tier)
        fixtures = getattr(item, "fixturenames", ())
        if "variant_cuda_rgb" in fixtures:
            item.add_marker("cuda")
        if _ON_DEVICE.intersection(fixtures):
            item.add_marker("device")
        if item.get_closest_marker("cuda") and not _has_cuda():
            item.add_marker(no_cuda)
        if item.get_closest_marker("slow") and not config.getoption("--slow"):
            item.add_marker(too_slow)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests could not run here, so that nobody takes them for passed."""
    skipped: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", ()):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if any(words in reason for words in (*_LOUD, *_COUNTED)):
            skipped.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)
    for reason, nodeids in skipped.items():
        terminalreporter.section(f"NOT TESTED: {len(nodeids)} tests, {reason}")
        for nodeid in nodeids if reason not in _COUNTED else ():
            terminalreporter.line(nodeid)


@functools.cache
def _has_cuda() -> bool:
    from mitsuba_gdpt import rendering

    return rendering.works("cuda_ad_rgb")


@pytest.fixture(autouse=True)
def lacking_keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A test fails if it lets the package write a key that docs/reference/keys.md lacks."""
    from tests import emitted

    with emitted.watching(monkeypatch) as lacking:
        yield lacking
    assert not lacking, f"mitsuba_gdpt/keys.py lacks {', '.join(dict.fromkeys(lacking))}"


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


@pytest.fixture(params=["llvm_ad_rgb", pytest.param("cuda_ad_rgb", marks=_CUDA)])
def device_variant(request: pytest.FixtureRequest) -> Iterator[str]:
    """A variant on each kind of device, for what Mitsuba and torch do together."""
    if request.param.startswith("cuda"):
        _require_cuda_torch()
    yield from _use(request.param)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch computes with one thread: the same bits each time, and faster where it is little."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=_CUDA)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each kind of device, for what torch does alone."""
    import torch

    if request.param == "cuda":
        _require_cuda_torch()
    return torch.device(request.param)


def _require_cuda_torch() -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA support")
