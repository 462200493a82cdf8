"""Loading files with Mitsuba: what has to be so while it does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

_LEAST_THREADS = 2


@contextmanager
def loading_threads() -> Iterator[None]:
    """Have two threads at least: with one, Mitsuba 3.9 waits forever for some bitmaps to load."""
    import drjit as dr

    threads = dr.thread_count()
    if threads >= _LEAST_THREADS:
        yield
        return
    dr.set_thread_count(_LEAST_THREADS)
    try:
        yield
    finally:
        dr.set_thread_count(threads)
