"""Means over two sets of samples, and the variances of these means.

Every buffer is the mean over the samples that estimate it: gradients over those with offset paths,
all else over all. Variances of the means are combined as Chan, Golub and LeVeque do (*Algorithms
for computing the sample variance*, The American Statistician 37, 1983).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mitsuba_gdpt.channels import DIFFERENCE_AXES, VARIANCE_SUFFIX

if TYPE_CHECKING:
    import torch

    from mitsuba_gdpt.buffers import FrameBuffers


@dataclass(frozen=True)
class Counts:
    """Samples behind a pixel's buffers: the same everywhere, or (H, W, 1).

    Attributes:
        primal: Of all buffers that are no gradients.
        dx: Of the difference to the right; where its pixels have n and m samples, their harmonic
            mean, which is what its variance goes with.
        dy: Of the difference downwards, likewise.
    """

    primal: float | torch.Tensor
    dx: float | torch.Tensor
    dy: float | torch.Tensor

    @classmethod
    def even(cls, spp: int, gradient_spp: int) -> Counts:
        """Return those of pixels with so many samples each, and so many with offset paths."""
        return cls(spp, gradient_spp, gradient_spp)

    @classmethod
    def uneven(cls, samples: torch.Tensor, *, gradients: bool) -> Counts:
        """Return those of pixels with different numbers of samples.

        Args:
            samples: Of each pixel, (H, W, 1).
            gradients: Whether they have offset paths.
        """
        if not gradients:
            return cls(samples, 0, 0)
        return cls(samples, *(_harmonic_mean(samples, axis) for axis in (-2, -3)))

    def of_buffer(self, name: str) -> float | torch.Tensor:
        """Return the samples behind a buffer."""
        axis = DIFFERENCE_AXES.get(name)
        if axis is None:
            return self.primal
        return self.dx if axis == -2 else self.dy

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.primal + other.primal, self.dx + other.dx, self.dy + other.dy)


def _harmonic_mean(samples: torch.Tensor, axis: int) -> torch.Tensor:
    """Return that of each pixel and the next along an axis of (H, W, 1); itself in the last."""
    import torch

    last = samples.shape[axis] - 1
    following = torch.cat([samples.narrow(axis, 1, last), samples.narrow(axis, last, 1)], axis)
    return 2 * samples * following / (samples + following).clamp_min(1)


def combined(
    before: FrameBuffers, frame: FrameBuffers, counts: Counts, more: Counts
) -> FrameBuffers:
    """Return the means of two sets of samples together, and the variances of these means.

    Args:
        before: Of the first set; the result has its metadata.
        frame: Of the second.
        counts: Samples of the first.
        more: Samples of the second.
    """
    from mitsuba_gdpt.buffers import FrameBuffers

    mean = before.data.clone()
    for buffer in before.layout.buffers:
        if buffer.variance_of is not None:
            continue
        old, new = counts.of_buffer(buffer.name), more.of_buffer(buffer.name)
        total = _at_least_one(old + new)
        part = before.layout.slices[buffer.name]
        change = frame.data[..., part] - before.data[..., part]
        mean[..., part] += change * (new / total)
        variance = buffer.name + VARIANCE_SUFFIX
        if variance in before.layout:
            part = before.layout.slices[variance]
            squares = change.square().mean(-1, keepdim=True) * (old * new / total)
            squares += before.data[..., part] * (old * (old - 1))
            squares += frame.data[..., part] * (new * (new - 1))
            mean[..., part] = squares / (total * _at_least_one(total - 1))
    return FrameBuffers(mean, before.layout, before.metadata, before.attributes)


def averaged(first: FrameBuffers, second: FrameBuffers) -> FrameBuffers:
    """Return the mean of two independent frames with equal weights, whatever their counts.

    Weights that followed the counts would be biased where counts follow from the other frame.
    """
    from mitsuba_gdpt.buffers import FrameBuffers

    data = (first.data + second.data) / 2
    for buffer in first.layout.buffers:
        if buffer.variance_of is not None:
            data[..., first.layout.slices[buffer.name]] /= 2
    return FrameBuffers(data, first.layout, first.metadata, first.attributes)


def _at_least_one(count: float | torch.Tensor) -> float | torch.Tensor:
    return max(1, count) if isinstance(count, int | float) else count.clamp_min(1)
