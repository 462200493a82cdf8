"""What Dr.Jit spends on compiling, told apart from rendering."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Timed:
    """What a block took, by a clock; known when it has ended.

    Attributes:
        seconds: Without compiling.
        compiling: As far as it is known.
    """

    seconds: float = 0.0
    compiling: float = 0.0


def is_known(clock: Callable[[], float]) -> bool:
    """Whether :func:`timed` can tell compiling apart.

    It has no part in a clock that is made up. Dr.Jit keeps one history of kernels: where the user
    records one, it is left alone.
    """
    import drjit as dr

    return clock is time.perf_counter and not dr.flag(dr.JitFlag.KernelHistory)


@contextmanager
def timed(clock: Callable[[], float]) -> Iterator[Timed]:
    """Time a block, and what kernels that are compiled inside take of it."""
    import drjit as dr

    result, start = Timed(), clock()
    if not is_known(clock):
        yield result
        result.seconds = clock() - start
        return
    with dr.scoped_set_flag(dr.JitFlag.KernelHistory, True):
        dr.kernel_history_clear()
        try:
            yield result
        finally:
            kernels = dr.kernel_history([dr.KernelType.JIT])
    missed = (kernel for kernel in kernels if not kernel["cache_hit"])
    compiled = sum(k["codegen_time"] + k["backend_time"] for k in missed) / 1e3
    taken = clock() - start
    result.compiling = min(compiled, taken)  # several threads compile
    result.seconds = taken - result.compiling
