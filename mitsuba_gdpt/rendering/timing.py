"""What a block of work takes: compiling told apart, and what grows with the samples."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Timed:
    """What a block took, by a clock; known when it has ended.

    Attributes:
        seconds: Without compiling.
        compiling: As far as it is known.
        growing: Part of ``seconds`` that grows with the samples; None where it is not known.
    """

    seconds: float = 0.0
    compiling: float = 0.0
    growing: float | None = None


def is_known(clock: Callable[[], float]) -> bool:
    """Whether :func:`timed` can tell compiling apart.

    It has no part in a clock that is made up. Dr.Jit keeps one history of kernels: where the user
    records one, it is left alone.
    """
    import drjit as dr

    return clock is time.perf_counter and not dr.flag(dr.JitFlag.KernelHistory)


@contextmanager
def timed(clock: Callable[[], float]) -> Iterator[Timed]:
    """Time a block: what kernels take that are compiled inside, and those that trace samples."""
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
    result.growing = min(of_samples(kernels), result.seconds) or None


def of_samples(kernels: Sequence[Mapping[str, Any]]) -> float:
    """Return the seconds of the kernels that have a lane per sample: most of the time is theirs.

    Tiles of a frame have the same size but for the last, and those of pixels of different numbers
    of samples roughly so.

    Args:
        kernels: Entries of Dr.Jit's history.
    """
    by_size: defaultdict[int, float] = defaultdict(float)
    for kernel in kernels:
        by_size[kernel["size"]] += kernel["execution_time"]
    lanes = max(by_size, key=by_size.__getitem__, default=0)
    return sum(time for size, time in by_size.items() if lanes / 4 < size < lanes * 4) / 1e3
