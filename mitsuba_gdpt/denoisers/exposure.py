"""The brightness of a frame: every method works on a common one, whatever unit radiance is in.

What a method makes of k times the radiance is to be k times the image. Constants in its code and
all that a network has learned would break that. So a frame is brought to a common brightness before
a method sees it, and the image back after. This is done in one place, where methods are called
(:meth:`~mitsuba_gdpt.denoisers.registry.Method.advance`): methods may take radiance to be of order
1, and their constants are relative to that.

Twice the radiance has exactly half the factor, and so, bit by bit, twice the image. Other factors
give the same image up to rounding.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import PRIMAL, Buffer, of_kind
from mitsuba_gdpt.denoisers.images import LARGEST_EXPONENT, LEARNED_KEY, exposure_scale

#: Geometric mean of the luminance of a frame when a method sees it. Shipped networks that have no
#: exposure of their own have learned from radiance of about this size.
KEY = 0.5


#: Largest radiance at common brightness: squares, and sums of them over a frame, stay finite.
_LARGEST = 1e12
#: A factor as close to 1 is 1: the frame has been exposed already, by the method that calls.
_SAME = 1e-5
#: Stops from common brightness within which range is no matter.
_ORDINARY = 6
#: Stops by which a sequence may get brighter or darker before its factor is chosen anew.
_LARGEST_CHANGE = 10

_RADIANCE = of_kind("radiance")
#: Of the kinds that have no largest value by nature; the others are about 1.
_LARGEST_FEATURE = 1e4
_UNBOUNDED = ("radiance", "distance", "point", "displacement")


class Exposure(enum.Enum):
    """What brings a frame to common brightness for a method."""

    #: The factor that does it: for whatever knows bright from dark.
    COMMON = "common"
    #: The nearest power of two, and for frames of about common brightness nothing: for methods that
    #: are proportional to radiance by themselves, but for rounding and range.
    BINARY = "binary"
    #: Nothing: the method is proportional to radiance whatever its size.
    UNTOUCHED = "untouched"
    #: Nothing: the method, or an option of it, is about radiance in the unit of the frame.
    ABSOLUTE = "absolute"

    @property
    def applies(self) -> bool:
        """Whether frames are changed at all."""
        return self in (Exposure.COMMON, Exposure.BINARY)

    def factor(self, buffers: FrameBuffers, names: Collection[str]) -> float | None:
        """Return what the radiance of a frame is to be multiplied by.

        Args:
            buffers: The frame.
            names: Of the buffers that are there for certain, and finite.

        Returns:
            The factor; 1 if no buffer holds radiance, None for a black frame, which goes with any.
        """
        present = [buffers[name] for name in _RADIANCE if name in names]
        if not present:
            return 1.0
        factor = _factor(present, buffers[PRIMAL] if PRIMAL in names else None)
        if factor is None:
            return None
        if self is Exposure.BINARY:
            stops = round(math.log2(factor))
            return 1.0 if abs(stops) <= _ORDINARY else 2.0**stops
        return 1.0 if abs(factor - 1) < _SAME else factor


def _factor(present: Sequence[torch.Tensor], primal: torch.Tensor | None) -> float | None:
    """Return the factor that brings a frame to common brightness, or None for a black one.

    Args:
        present: Buffers of radiance.
        primal: What decides, if it is there; otherwise the sum of the others.
    """
    light = torch.stack(list(present)).sum(0) if primal is None else primal
    if bool((light > 0).any()):
        return float(exposure_scale(light.clamp_min(0)[None])) * (KEY / LEARNED_KEY)
    largest = max(float(values.abs().max()) for values in present)  # differences without an image
    return min(KEY / largest, 2.0**LARGEST_EXPONENT) if largest else None


@dataclass(frozen=True)
class ExposedState:
    """What a recurrent method remembers, and the factor on radiance that goes with it.

    Attributes:
        factor: What radiance has been multiplied by; None if all frames were black.
        state: The method's own; it has a method ``exposed(factor)`` that multiplies the radiance
            in it.
    """

    factor: float | None
    state: Any

    def at(self, wanted: float | None) -> tuple[float | None, Any]:
        """Return the factor for the next frame, and the state that goes with it.

        A sequence keeps its factor, so that nothing flickers, until the next frame is far from it.

        Args:
            wanted: The factor that the frame has by itself, None for a black one.
        """
        if wanted is None or self.factor is None:
            return wanted or self.factor, self.state  # black frames go with any factor
        if abs(math.log2(wanted / self.factor)) <= _LARGEST_CHANGE:
            return self.factor, self.state
        return wanted, self.state.exposed(wanted / self.factor)


def expose(buffers: FrameBuffers, factor: float | None) -> FrameBuffers:
    """Multiply the radiance of a frame by a factor, and variances of radiance by its square.

    Values of which no square can be taken are limited: what is 1e12 times as bright as the frame is
    beyond any picture, and must not make others infinite.

    Returns:
        A copy, or the same if there is nothing to do.
    """
    factor = 1.0 if factor is None else factor
    channels = [buffer for buffer in buffers.layout.buffers for _ in buffer.suffixes]
    exponents = torch.tensor([_exponent(buffer) for buffer in channels]).to(buffers.device)
    limits = torch.tensor([_limit(buffer) for buffer in channels]).to(buffers.device)
    largest = buffers.largest() * max(1.0, factor**2)
    ordinary = largest <= float(limits.min())  # spares another pass over all values
    if factor == 1 and (ordinary or not bool((buffers.data.abs() > limits).any())):
        return buffers
    data = buffers.data * torch.where(exponents > 0, factor, 1.0)
    if bool((exponents > 1).any()):
        data *= torch.where(exponents > 1, factor, 1.0)  # a square might leave float32's range
    data = data if ordinary else data.clamp_(-limits, limits)
    return FrameBuffers(data, buffers.layout, buffers.metadata)


def _exponent(buffer: Buffer) -> int:
    """Return the power of the factor that a buffer is multiplied by."""
    if buffer.kind != "radiance":
        return 0
    return 1 if buffer.variance_of is None else 2


def _limit(buffer: Buffer) -> float:
    """Return the largest value of a buffer that methods must cope with."""
    limit = _LARGEST if buffer.kind in _UNBOUNDED else _LARGEST_FEATURE
    return limit if buffer.variance_of is None else limit**2


def expose_option(value: Any, factor: float | None) -> Any:
    """Expose the frames that the value of an option consists of, if it does."""
    if isinstance(value, FrameBuffers):
        return expose(value, factor)
    if isinstance(value, tuple | list):
        return type(value)(expose_option(item, factor) for item in value)
    return value


def restore(image: torch.Tensor, factor: float | None) -> torch.Tensor:
    """Divide an image by the factor that its frame was multiplied by; black stays black."""
    if factor is None:
        return torch.zeros_like(image)
    if factor == 1:
        return image
    largest = torch.finfo(image.dtype).max
    return (image / factor).clamp(-largest, largest)
