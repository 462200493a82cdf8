"""Results that are kept one by one: the cells of batches, evaluations and whatever else is resumed.

A *cell* is a record on disk (see :mod:`mitsuba_gdpt.records`), perhaps with files beside it, and
the fingerprint of all that it depends on. It counts only if it was made with the same fingerprint
and nothing of it was damaged since; otherwise it is made anew. What is made together, of one render
usually, is a :class:`CellUnit`, which :func:`mitsuba_gdpt.execution.run` runs here or on workers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mitsuba_gdpt import interrupts, records
from mitsuba_gdpt.errors import GDPTError, plain

#: What a cell may die of without taking others along; anything else is a bug, and ends the unit.
FAILURES = (GDPTError, ArithmeticError, RuntimeError, MemoryError)


@dataclass(frozen=True)
class Cell:
    """One result on disk.

    Attributes:
        name: Tells it from others of its unit, in messages.
        record: JSON file, written after all files that belong to the result.
        fingerprint: Of all that it depends on.
    """

    name: str
    record: Path
    fingerprint: str

    def kept(self) -> dict[str, Any] | None:
        """Return the content of the record; None if there is none that counts."""
        values = records.read(self.record)
        if values is None or not records.is_complete(self.record, values, self.fingerprint):
            return None
        return values

    def keep(self, values: Mapping[str, Any], products: Iterable[Path] = ()) -> None:
        """Write the record.

        Args:
            values: JSON-compatible.
            products: Files that belong to it, in its folder or below it.

        Raises:
            FormatError: It cannot be written.
        """
        self.record.parent.mkdir(parents=True, exist_ok=True)
        records.write(self.record, self.fingerprint, values, products)


class CellsError(GDPTError, RuntimeError):
    """Some cells of a unit failed; the message names them."""


class CellUnit(ABC):
    """A unit of work that makes cells; see :class:`mitsuba_gdpt.execution.Unit`."""

    @property
    @abstractmethod
    def key(self) -> str:
        """As of any unit."""

    @property
    @abstractmethod
    def cells(self) -> Sequence[Cell]:
        """What it makes."""

    @abstractmethod
    def make(self, missing: Sequence[Cell]) -> Mapping[str, str]:
        """Make some cells, each kept as soon as it is there.

        Returns:
            Names of those that failed, and what they died of; see :func:`collecting`.
        """

    def missing(self) -> list[Cell]:
        """Return the cells that are not there, or do not count."""
        return [cell for cell in self.cells if cell.kept() is None]

    def is_done(self) -> bool:
        """Tell whether all cells are there."""
        return not self.missing()

    def run(self) -> None:
        """Make the cells that are missing.

        Raises:
            CellsError: Some failed.
        """
        errors = self.make(self.missing())
        if errors:
            raise CellsError("; ".join(f"{name}: {text}" for name, text in errors.items()))


@contextmanager
def collecting(errors: dict[str, str], name: str) -> Iterator[None]:
    """Note what a cell dies of instead of raising it.

    In words: the traceback of an exception that is kept keeps the scene of the frames that it went
    through, and the next one would be compiled together with its remains.
    """
    try:
        yield
    except FAILURES as error:
        interrupts.pass_on(error)
        errors[name] = plain(error)
