"""What a command needs around its work: variant, progress bar, clock and memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mitsuba_gdpt import _llvm, progress
from mitsuba_gdpt.errors import ConfigError, VariantError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Tried in this order where the user names none.
PREFERRED = ("cuda_ad_rgb", "llvm_ad_rgb")


def supported_variants() -> list[str]:
    """Return the variants that ``gdpt`` is made for, whether or not they work on this machine."""
    import mitsuba as mi

    return [v for v in mi.variants() if v.startswith(("cuda", "llvm")) and "polarized" not in v]


def works(variant: str) -> bool:
    """Tell whether this machine can run a Mitsuba variant."""
    import drjit as dr

    if variant.startswith("llvm"):
        return _llvm.problem() is None
    if variant.startswith("cuda"):
        _llvm.loaded_version()  # waits for Dr.Jit's start-up thread
        return bool(dr.has_backend(dr.JitBackend.CUDA))
    return True


def set_variant(name: str | None) -> str:
    """Set a Mitsuba variant for the rest of the process.

    Args:
        name: Variant, or None for the first of :data:`PREFERRED` that works.

    Returns:
        The name of the variant that was set.

    Raises:
        ConfigError: There is no such variant.
        VariantError: ``gdpt`` does not support it, or this machine does not.
        LLVMError: It needs LLVM, and there is no good one.
    """
    import mitsuba as mi

    if name is None:
        name = next(filter(works, PREFERRED), PREFERRED[-1])
    supported = supported_variants()
    if name not in mi.variants():
        raise ConfigError(f"there is no variant {name!r}; choose: {', '.join(supported)}")
    if name not in supported:
        raise VariantError(
            f"gdpt does not support the variant {name!r}; choose: {', '.join(supported)}"
        )
    _llvm.require(name)
    if not works(name):
        raise VariantError(f"the variant {name!r} needs an NVIDIA GPU, and Dr.Jit found none")
    mi.set_variant(name)
    return name


class _BarTask:
    def __init__(self, bar: Progress, identifier: TaskID) -> None:
        self.bar, self.identifier = bar, identifier

    def advance(self, amount: float = 1.0) -> None:
        self.bar.advance(self.identifier, amount)

    def close(self) -> None:
        self.bar.remove_task(self.identifier)


class _BarReporter:
    def __init__(self, bar: Progress) -> None:
        self.bar = bar

    def start(self, description: str, total: float) -> progress.Task:
        return _BarTask(self.bar, self.bar.add_task(description, total=total))


@contextmanager
def progress_bar() -> Iterator[None]:
    """Show progress reports as a bar on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress

    with (
        Progress(console=Console(stderr=True), transient=True) as bar,
        progress.reporting(_BarReporter(bar)),
    ):
        yield


class Stopwatch:
    """Seconds of the parts of a command.

    Example:
        >>> watch = Stopwatch()
        >>> with watch.part("render"):
        ...     pass
        >>> watch.seconds["render"] < 1
        True
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time the ``with`` block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start


def peak_memory() -> str:
    """Return the largest amount of memory that this process has used, for people."""
    unit = 1 if sys.platform == "darwin" else 1024
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    text = f"{host / 2**30:.2f} GiB"
    import drjit as dr

    if device := dr.detail.malloc_watermark(dr.JitBackend.CUDA):
        text += f" + {device / 2**30:.2f} GiB on the GPU"
    return text


def count(number: float) -> str:
    """Return a number with a metric suffix: 1.23 M."""
    for factor, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= factor:
            return f"{number / factor:.3g}{suffix}"
    return f"{number:.3g}"
