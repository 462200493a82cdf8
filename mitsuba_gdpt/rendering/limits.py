"""When a render on a budget ends, and how much of its time is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mitsuba_gdpt import checks
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.rendering import timing


@dataclass(frozen=True)
class Budget:
    """When a render ends: after some seconds, with some samples per pixel, or at a noise level.

    Attributes:
        seconds: Of rendering and reconstruction. Compiling kernels, and what else happens only the
            first time, is not part of it unless ``wall`` is set.
        spp: Samples per pixel in all; with ``noise`` the most.
        noise: Estimated relMSE of the reconstruction at which it is good enough.
        wall: Whether ``seconds`` is what a clock on the wall shows.
        spent: Seconds that were spent before (loading the scene), for ``wall``.
    """

    seconds: float | None = None
    spp: int | None = None
    noise: float | None = None
    wall: bool = False
    spent: float = 0.0

    def __post_init__(self) -> None:
        if self.noise is not None:
            if self.seconds is not None:
                raise ConfigError("got both noise and seconds; expected noise, or noise and spp")
            checks.real("noise", self.noise, above=0)
        elif (self.seconds is None) == (self.spp is None):
            raise ConfigError("give a budget: either seconds or spp, or noise")
        if self.seconds is not None:
            checks.budget("seconds", self.seconds)
        elif self.wall:
            raise ConfigError("wall is about seconds; give them, or leave it out")
        if self.spp is not None:
            checks.spp("spp", self.spp)


class Purse:
    """Where the time of a budget goes.

    Attributes:
        budget: That is spent.
        clock: Of what is spent, in seconds.
        seconds: By what they went for: ``render``, ``denoise`` and ``first`` (what happens only the
            first time).
    """

    def __init__(self, budget: Budget, clock: Callable[[], float] = time.perf_counter) -> None:
        """Nothing is spent before :meth:`open`."""
        self.budget, self.clock = budget, clock
        self.seconds = dict.fromkeys(("render", "denoise", "first"), 0.0)
        self._start = 0.0

    def open(self) -> None:
        """Begin to count."""
        self._start = self.clock()

    def pay(self, part: str, start: float) -> float:
        """Count the time since ``start`` for a part, and return it."""
        seconds = self.clock() - start
        self.seconds[part] += seconds
        return seconds

    @property
    def knows_compiling(self) -> bool:
        """Whether :meth:`rendering` tells compiling apart."""
        return timing.is_known(self.clock)

    @contextmanager
    def rendering(self) -> Iterator[timing.Timed]:
        """Count what happens inside as rendering, but for compiling."""
        with timing.timed(self.clock) as block:
            yield block
        self.seconds["render"] += block.seconds
        self.seconds["first"] += block.compiling

    def excuse(self, seconds: float, part: str) -> None:
        """Count seconds that only the first time takes apart."""
        seconds = max(0.0, seconds)
        self.seconds[part] -= seconds
        self.seconds["first"] += seconds

    @property
    def left(self) -> float:
        """Seconds that are left of the budget."""
        assert self.budget.seconds is not None
        spent = self.clock() - self._start
        spent += self.budget.spent if self.budget.wall else -self.seconds["first"]
        return self.budget.seconds - spent
