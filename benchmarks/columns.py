"""Search for ``COLUMNS`` of integrators/sampling.py: which pixel of a block gets which stratum.

The points of one draw in a block of 8 x 8 pixels are one sequence: sample s of the pixel at place p
(binary digits of its column and row in turn) gets point 64 s + (p xor M s). So each sample number
has a point in every one of 64 strata. The matrix M over GF(2), a column of six digits for each
digit of s, decides how well the samples of one pixel are spread, and those of 2 x 2 and 4 x 4.

Optimised is the defect t of such points as a (t, m, 2)-net: t is the least number for which every
elementary interval of an area of 2^t / 2^m has its share, 2^t, of 2^m points. The score, less is
better, is the sum of t^2 over all powers of two of samples, weighted by :data:`WEIGHTS`.

First the first ten columns at once, for up to 1024 samples: flips of digits, as long as the score
gets better, of random matrices and of the best one so far with some digits flipped. Then column
after column, each the best of all 64. Random numbers are those of C's ``rand()`` in glibc, as the
search was first written in C; so the defaults find what is committed.

    python benchmarks/columns.py                 # COLUMNS: half a minute
    python benchmarks/columns.py --starts 5744   # goes on until the score is 141.5, not 166
    python benchmarks/columns.py --show          # scores of COLUMNS and of random matrices

What scores better is no replacement by that alone: another matrix means other noise in every
render, and has to show in the errors of denoised images.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from functools import cache

import mitsuba_gdpt  # noqa: F401  (before Dr.Jit starts: chooses its LLVM)

#: Digits of a place in a block, and of what is searched: columns at once, and in all.
PLACE, AT_ONCE, COUNT = 6, 10, 16
#: What the square of a defect counts for blocks of 1, 2 x 2 and 4 x 4 pixels.
WEIGHTS = (10.0, 3.0, 1.5)
#: Of ``rand()``, of the order of columns that are equally good, and random starts of the search.
SEED, TIES, STARTS = 11, 5, 384
#: Scores of ``COLUMNS``: of the first ten, and of all.
SCORES = (166.0, 442.0)


@cache
def defect(level: int, columns: tuple[int, ...]) -> int:
    """Return t of the points that pixels of a block get with some samples each.

    Args:
        level: Of blocks of 2^level x 2^level pixels.
        columns: Of the matrix, one for each digit of the samples: they are 2^len(columns).
    """
    # What each free digit, of a place or of a sample, changes in the number of the point.
    changes = [1 << digit for digit in range(2 * level)]
    changes += [column | 1 << (PLACE + digit) for digit, column in enumerate(columns)]
    # Rows of the generator matrices: on which free digits a digit of x, or of y, depends.
    first = [0] * (PLACE + len(columns))
    for free, change in enumerate(changes):
        for digit in range(len(first)):
            first[digit] |= (change >> digit & 1) << free
    second = [0] * len(first)
    for row in range(len(first)):
        for digit in range(row, len(first)):
            if row & digit == row:  # the binomial coefficient is odd
                second[row] ^= first[digit]
    # Elementary intervals of a digits of x and b of y have their share if these are independent.
    independent, basis = len(changes), []
    for taken in range(len(changes) + 1):
        if taken >= independent:
            break
        independent = min(independent, taken + _extends(basis, second))
        if not _added(basis, first[taken]):
            independent = min(independent, taken)
    return len(changes) - independent


def _extends(basis: list[int], rows: Sequence[int]) -> int:
    """Return how many rows, from the first on, are independent of a basis and of each other."""
    own = list(basis)
    return next((count for count, row in enumerate(rows) if not _added(own, row)), len(rows))


def _added(basis: list[int], row: int) -> bool:
    """Add a row to a basis unless it depends on it."""
    for other in basis:
        row = min(row, row ^ other)
    if row:
        basis.append(row)
    return bool(row)


def score(columns: Sequence[int], most: float = float("inf")) -> float:
    """Return the score of a matrix, or something above ``most`` if it is above that."""
    total = 0.0
    for count in range(len(columns) + 1):
        for level, weight in enumerate(WEIGHTS):
            total += weight * defect(level, tuple(columns[:count])) ** 2
        if total > most:
            break
    return total


class Rand:
    """``srand`` and ``rand`` of glibc."""

    def __init__(self, seed: int) -> None:
        """Begin with a seed, 1 or more."""
        state = [seed]
        for _ in range(30):
            state.append(16807 * state[-1] % (2**31 - 1))
        self._state = [*state, *state[:3]]
        for _ in range(310):
            self()

    def __call__(self) -> int:
        """Return the next number, 0 to 2^31 - 1."""
        self._state = [*self._state[-33:], (self._state[-3] + self._state[-31]) % 2**32]
        return self._state[-1] >> 1


def search(starts: int, seed: int = SEED) -> list[int]:
    """Return the best ten columns that a number of starts leads to."""
    rand = Rand(seed)
    best: list[int] = []
    least = float("inf")
    for start in range(starts):
        columns = _random(rand) if start % 3 == 0 or not best else _flipped(best, rand)
        now, improves = score(columns), True
        while improves:
            improves = False
            for _ in range(PLACE * AT_ONCE):
                digit, number = rand() % PLACE, rand() % AT_ONCE
                columns[number] ^= 1 << digit
                then = score(columns, now)
                if then < now:
                    now, improves = then, True
                elif then > now or rand() % 2 == 0:
                    columns[number] ^= 1 << digit
        if now < least:
            best, least = list(columns), now
            print(f"start {start}: {least:g} {best}", flush=True)
    return best


def _random(rand: Rand) -> list[int]:
    rows = [rand() for _ in range(PLACE)]
    return [
        sum((row >> number & 1) << digit for digit, row in enumerate(rows))
        for number in range(AT_ONCE)
    ]


def _flipped(columns: Sequence[int], rand: Rand) -> list[int]:
    """Return columns with one to four digits flipped."""
    result, count = list(columns), 0
    while count < 1 + rand() % 4:
        number, digit = rand() % AT_ONCE, rand() % PLACE
        result[number] ^= 1 << digit
        count += 1
    return result


def extended(columns: Sequence[int], seed: int = TIES) -> list[int]:
    """Return more columns than these, each the best that can follow."""
    order = random.Random(seed)
    result = list(columns)
    while len(result) < COUNT:
        candidates = list(range(2**PLACE))
        order.shuffle(candidates)
        result.append(min(candidates, key=lambda column: score([*result, column])))
    return result


def show(columns: Sequence[int], name: str) -> None:
    """Print the score of the first ten columns, that of all, and the defects of single pixels."""
    defects = [defect(0, tuple(columns[:count])) for count in range(len(columns) + 1)]
    print(f"{name}: {score(columns[:AT_ONCE]):g}, {score(columns):g}, {defects}")


def main() -> None:
    """Search, and compare with what is committed."""
    from mitsuba_gdpt.integrators.sampling import COLUMNS

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--starts", type=int, default=STARTS, help="of the search (default: 384)")
    parser.add_argument("--seed", type=int, default=SEED, help="of rand() (default: 11)")
    parser.add_argument("--show", action="store_true", help="no search")
    args = parser.parse_args()
    if not args.show:
        found = extended(search(args.starts, args.seed))
        show(found, "found")
        print("that is COLUMNS" if tuple(found) == COLUMNS else f"another than COLUMNS: {found}")
    show(COLUMNS, "COLUMNS")
    order = random.Random(0)
    for number in range(3):
        columns = [order.randrange(2**PLACE) for _ in range(COUNT)]
        show(columns, f"random {number + 1}")


if __name__ == "__main__":
    main()
