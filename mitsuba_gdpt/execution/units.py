"""What is run, and what is known about it afterwards. No Dask in here."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from mitsuba_gdpt import interrupts
from mitsuba_gdpt.errors import GDPTError


class Unit(Protocol):
    """One idempotent piece of work; has to be picklable (a frozen dataclass is)."""

    @property
    def key(self) -> str:
        """Unique among the units of a run, the same each time, fit for file names."""

    def is_done(self) -> bool:
        """Tell from the disk, cheaply, whether the result is there and complete."""

    def run(self) -> None:
        """Do the work; may be called again after a crash, even while an earlier call still runs.

        The result appears under its final name only when it is complete (see
        :func:`mitsuba_gdpt.files.replace_file`).
        """


AnyUnit = TypeVar("AnyUnit", bound=Unit)


@dataclass
class Summary:
    """What became of the units of a run.

    Attributes:
        done: Number of units that ran to their end.
        skipped: Number of units whose result was there already.
        failed: Unit key to a one-line error.
    """

    done: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.done} done, {self.skipped} skipped, {len(self.failed)} failed"


class Interrupted(KeyboardInterrupt):
    """The user stopped a run; the message says how far it got and how to go on."""


class ClusterError(GDPTError, RuntimeError):
    """There is no cluster to work with: no connection, or no worker that can run units."""


@dataclass(frozen=True)
class Outcome:
    """What one attempt at a unit came to; travels from the unit process to the driver.

    Attributes:
        error: One line, or empty if all went well.
        details: Traceback or last output, for the log.
        unfit: Address of the worker if that, not the unit, is to blame: others may do better.
    """

    error: str = ""
    details: str = ""
    unfit: str = ""

    @classmethod
    def of(cls, error: Exception) -> Outcome:
        """Describe a failed attempt."""
        text = " ".join(str(error).split())
        if not isinstance(error, GDPTError) or not text:  # the texts of ours stand alone
            text = f"{type(error).__name__}: {text}".rstrip(": ")
        return cls(text, "".join(traceback.format_exception(error)))


def attempt(unit: Unit) -> Outcome:
    """Run a unit in this process and catch what it raises.

    Looks for the result first: a unit that was sent twice, because the connection to a worker
    was lost, is not run twice.

    Raises:
        KeyboardInterrupt: Ctrl-C, also where a library made another error of it or swallowed it.
    """
    try:
        if not unit.is_done():
            unit.run()
    except Exception as error:
        interrupts.pass_on(error)
        return Outcome.of(error)
    interrupts.check()
    return Outcome()
