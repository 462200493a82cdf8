"""What Dr.Jit spends on compiling, told apart from rendering."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass


@dataclass
class Compiled:
    """What was compiled inside a block; known when it has ended.

    Attributes:
        seconds: By the clock, as far as known.
    """

    seconds: float = 0.0


#: Returns a block in which compiling is watched.
Watch = Callable[[], AbstractContextManager[Compiled]]


def is_watched(clock: Callable[[], float]) -> bool:
    """Whether compiling is known by a clock: not where the clock is made up."""
    return clock is time.perf_counter


def watch_by(clock: Callable[[], float]) -> Watch:
    """Return what watches compiling by a clock, if anything does."""
    return _watched if is_watched(clock) else _unwatched


@contextmanager
def _watched() -> Iterator[Compiled]:
    """Add up the times of the kernels that are compiled inside.

    Dr.Jit keeps one history of kernels: where the user records one, it is left alone.
    """
    import drjit as dr

    result = Compiled()
    if dr.flag(dr.JitFlag.KernelHistory):
        yield result
        return
    with dr.scoped_set_flag(dr.JitFlag.KernelHistory, True):
        dr.kernel_history_clear()
        try:
            yield result
        finally:
            kernels = dr.kernel_history([dr.KernelType.JIT])
    missed = (kernel for kernel in kernels if not kernel["cache_hit"])
    result.seconds = sum(k["codegen_time"] + k["backend_time"] for k in missed) / 1e3


@contextmanager
def _unwatched() -> Iterator[Compiled]:
    yield Compiled()
