"""Random numbers that are stratified over the samples of each pixel, for any number of samples.

B. Burley, *Practical Hash-based Owen Scrambling*, JCGT 9(4), 2020: the first two dimensions of the
Sobol sequence, once for every draw, with the order of the samples shuffled and the values scrambled
by the hash of Laine and Karras 2011 (section 3). Each pixel has seeds of its own, so the noise of
neighbours is independent. One number alone is uniform and independent of those of other draws, up
to the quality of the hash; so estimates stay unbiased, and every offset path can replay them.

The sequence is one for all passes of a render: what comes later fills the gaps.

Mitsuba's own stratified samplers round the number of samples (32 become 35 in ``multijitter``, 64
in ``ldsampler``), and compile anew for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import drjit as dr
import mitsuba as mi

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
        pixel: Seed of the pixel.
        draw: Number of the draw.
    """

    index: mi.UInt32
    pixel: mi.UInt32
    draw: mi.UInt32

    @classmethod
    def start(
        cls,
        seed: mi.UInt32,
        pixel: mi.UInt32,
        sample: mi.UInt32,
        spp: int,
        first: mi.UInt32 | int = 0,
    ) -> SobolSampler:
        """Begin samples of pixels.

        Args:
            seed: Of width 1.
            pixel: Number of the pixel of each lane.
            sample: Index of the sample in its pixel.
            spp: Samples per pixel; where pixels differ, the largest number.
            first: Samples that have been taken of the same sequence before.
        """
        index = sequence_index(sample, spp) + first
        return cls(index, mi.sample_tea_32(pixel, seed)[0], mi.UInt32(0))

    def next_1d(self) -> mi.Float:
        """Return numbers in [0, 1)."""
        first, second = self._seeds()
        return _to_unit(_scramble(_shuffle(self.index, first), second))

    def next_2d(self) -> mi.Point2f:
        """Return points in [0, 1)^2."""
        first, second = self._seeds()
        index = _shuffle(self.index, first)
        x = _scramble(index, second)
        y = _scramble(_second_dimension(index), second * 0x9E3779B9 + 0x7F4A7C15)
        return mi.Point2f(_to_unit(x), _to_unit(y))

    def _seeds(self) -> tuple[mi.UInt32, mi.UInt32]:
        seeds = mi.sample_tea_32(self.pixel, self.draw)
        self.draw = self.draw + 1
        return seeds[0], seeds[1]


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
