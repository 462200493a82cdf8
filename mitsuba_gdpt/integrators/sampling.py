"""Random numbers that are stratified over the samples of a pixel, and over blocks of pixels.

B. Burley, *Practical Hash-based Owen Scrambling*, JCGT 9(4), 2020: the first two dimensions of the
Sobol sequence, once for every draw, with the order of the samples shuffled and the values scrambled
by the hash of Laine and Karras 2011 (section 3). One number alone is uniform and independent of
those of other draws, up to the quality of the hash; so estimates stay unbiased, and every offset
path can replay them.

The pixels of a block share the sequence of each draw, so that small groups of pixels have well
spread points too: their errors cancel when a denoiser, or the eye, averages over them (the aim of
A. Ahmed and P. Wonka, *Screen-Space Blue-Noise Diffusion of Monte Carlo Sampling Error via
Hierarchical Ordering of Pixels*, TOG 39(6), 2020). Where they order pixels first and samples after,
which takes a number of samples that is known and a power of two, here each sample number takes a
point from every stratum of a block, and :data:`COLUMNS` says which pixel gets which. So any number
of samples will do, in one pass or in many: what comes later fills the gaps.

Mitsuba's own stratified samplers round the number of samples (32 become 35 in ``multijitter``, 64
in ``ldsampler``), and compile anew for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import drjit as dr
import mitsuba as mi

#: Binary digits of a pixel's column, and of its row, within a block of 8 x 8.
_LEVELS = 3
#: How the stratum of a pixel changes with the sample number: column k of a matrix over GF(2), as a
#: number, for digit k. Found by benchmarks/columns.py for the least defects of the points of single
#: pixels first, then of blocks of 2 x 2 and 4 x 4 pixels, for all powers of two up to 65,536
#: samples: as (t, m, 2)-nets, those of pixels have t <= 1 up to 4096 samples, and t <= 2 beyond.
COLUMNS = (43, 58, 20, 50, 37, 29, 54, 45, 35, 11, 18, 41, 24, 21, 34, 9)
#: Rows of the matrix: which digits of the sample number decide over each digit of the stratum. A
#: count of these is half as long a program as a sum of columns.
_ROWS = tuple(
    sum(((column >> row) & 1) << digit for digit, column in enumerate(COLUMNS))
    for row in range(2 * _LEVELS)
)

#: Class of the samplers that are replaced: what a scene has that asks for nothing special.
PLAIN = "IndependentSampler"


class Sampler(Protocol):
    """What the path loop draws from: Mitsuba's samplers or :class:`SobolSampler`."""

    def next_1d(self) -> mi.Float:
        """Return numbers in [0, 1)."""

    def next_2d(self) -> mi.Point2f:
        """Return points in [0, 1)^2."""


@dataclass
class SobolSampler:
    """Draws like a Mitsuba sampler; a PyTree of Dr.Jit arrays.

    Attributes:
        index: Number of the sample in its pixel, over lanes.
        place: Of the pixel in its block, 0..63: digits of column and row in turn (Morton).
        block: Seed of the block.
        draw: Number of the draw.
    """

    index: mi.UInt32
    place: mi.UInt32
    block: mi.UInt32
    draw: mi.UInt32

    @classmethod
    def start(
        cls,
        seed: mi.UInt32,
        x: mi.UInt32,
        y: mi.UInt32,
        sample: mi.UInt32,
        spp: int,
        first: mi.UInt32 | int = 0,
    ) -> SobolSampler:
        """Begin samples of pixels.

        Args:
            seed: Of width 1.
            x: Column of the pixel of each lane.
            y: Row of it.
            sample: Index of the sample in its pixel.
            spp: Samples per pixel; where pixels differ, the largest number.
            first: Samples that have been taken of the same sequence before.
        """
        index = sequence_index(sample, spp) + first
        place = mi.UInt32(0)
        for digit in range(_LEVELS):
            place |= ((x >> digit) & 1) << (2 * digit)
            place |= ((y >> digit) & 1) << (2 * digit + 1)
        row = mi.sample_tea_32(y >> _LEVELS, seed)[0]
        block = mi.sample_tea_32(x >> _LEVELS, row)[0]
        return cls(index, place, block, mi.UInt32(0))

    def next_1d(self) -> mi.Float:
        """Return numbers in [0, 1)."""
        index, seed = self._next()
        return _to_unit(_scramble(index, seed))

    def next_2d(self) -> mi.Point2f:
        """Return points in [0, 1)^2."""
        index, seed = self._next()
        x = _scramble(index, seed)
        y = _scramble(_second_dimension(index), _other(seed))
        return mi.Point2f(_to_unit(x), _to_unit(y))

    def _next(self) -> tuple[mi.UInt32, mi.UInt32]:
        """Return the points of the next draw in the sequence of the block, and its seed."""
        order, seed = mi.sample_tea_32(self.block, self.draw)
        self.draw = self.draw + 1
        # Samples and pixels are shuffled alike for all of a block: that keeps what is spread.
        sample = _shuffle(self.index, order)
        stratum = _shuffle(self.place, _other(order)) & (4**_LEVELS - 1)
        for digit, mask in enumerate(_ROWS):
            stratum ^= (dr.popcnt(sample & mask) & 1) << digit
        return (sample << (2 * _LEVELS)) | stratum, seed


def sequence_index(sample: mi.UInt32, spp: int) -> mi.UInt32:
    """Return the place of a sample in a low-discrepancy sequence.

    Samples whose numbers have the same remainder modulo 4 stand together, in the order 0, 2, 1, 3:
    those of one remainder or one parity, which ``shifts`` of 1 and 2 use by themselves, are then as
    evenly spread as all of them.
    """
    result, first = sample >> 2, 0
    for remainder in (0, 2, 1, 3):
        offset = dr.opaque(mi.UInt32, first)
        result += dr.select((sample & 3) == remainder, offset, mi.UInt32(0))
        first += (spp + 3 - remainder) // 4
    return result


def _other(seed: mi.UInt32) -> mi.UInt32:
    """Return another seed."""
    return seed * 0x9E3779B9 + 0x7F4A7C15


def _hash(x: mi.UInt32, seed: mi.UInt32) -> mi.UInt32:
    """Permute 32-bit numbers so that a bit depends on the lower ones only (Laine and Karras)."""
    x = x ^ (x * 0x3D20ADEA)
    x = x + seed
    x = x * ((seed >> 16) | 1)
    x = x ^ (x * 0x05526C56)
    return x ^ (x * 0x53A22864)


def _shuffle(index: mi.UInt32, seed: mi.UInt32) -> mi.UInt32:
    """Change the order of the samples, aligned blocks of 2^k staying together."""
    return dr.brev(_hash(dr.brev(index), seed))


def _scramble(index: mi.UInt32, seed: mi.UInt32) -> mi.UInt32:
    """Return the Owen-scrambled radical inverse of an index."""
    return dr.brev(_hash(index, seed))


def _second_dimension(index: mi.UInt32) -> mi.UInt32:
    """Multiply by the second generator matrix of Sobol: the binomial coefficients modulo 2."""
    for shift, mask in (
        (1, 0xAAAAAAAA),
        (2, 0xCCCCCCCC),
        (4, 0xF0F0F0F0),
        (8, 0xFF00FF00),
        (16, 0xFFFF0000),
    ):
        index = index ^ ((index & mask) >> shift)
    return index


def _to_unit(bits: mi.UInt32) -> mi.Float:
    return mi.Float(bits >> 8) * 2.0**-24
