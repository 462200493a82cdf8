r"""Errors of image sequences that single frames do not show: flicker, and variance over time.

A sequence is a tensor (T, H, W, 3) of consecutive frames of one shot without cuts, T >= 2. The
functions look at one sequence; the accumulators take its frames as they come, in constant memory.

Both are blind to errors that stay: a blurred sequence, or one that is wrong in the same way all the
time, is perfect here. Read them beside relMSE, never alone.

Both refer to the reference's brightness as relMSE does, so they are on one scale with it: where
all error is noise, independent from frame to frame, and relMSE is :math:`v`, flicker is :math:`2 v`
and the variance over time :math:`v`.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from mitsuba_gdpt.errors import ConfigError, LayoutError
from mitsuba_gdpt.metrics.accumulator import Accumulator, Self
from mitsuba_gdpt.metrics.images import Reference, pair
from mitsuba_gdpt.metrics.pixelwise import RELMSE_EPSILON, positive


def flicker(
    images: Tensor, reference: Tensor | Reference, *, epsilon: float = RELMSE_EPSILON
) -> Tensor:
    r"""Relative squared error of frame differences against those of the reference.

    .. math::
        \frac{1}{T-1} \sum_{t=1}^{T-1} \mathrm{mean}
        \frac{((p_t - p_{t-1}) - (r_t - r_{t-1}))^2}
        {(\bar r_t^2 + \bar r_{t-1}^2) / 2 + \epsilon}

    Means are over pixels and channels, :math:`\bar r` is the mean of the reference's channels, or
    its ``brightness``. What moves in the reference costs nothing if it moves alike in the images.
    An error belongs to one of the two frames, so it counts relative to both: relative to the latter
    alone, all would be ruled by what was bright a frame ago.

    With halves the numerator is :math:`(\Delta p - \Delta a)(\Delta p - \Delta b)`, unbiased by
    itself if :math:`a` and :math:`b` are independent of each other; the frames of one half may
    depend on each other (a camera at rest has one reference for all frames). The bias of the
    denominator is that of :func:`~mitsuba_gdpt.metrics.relmse`. A value can be slightly negative.

    Args:
        images: (T, H, W, 3), scene-linear, consecutive frames.
        reference: Of the same shape.
        epsilon: As for :func:`~mitsuba_gdpt.metrics.relmse`.

    Returns:
        Scalar; differentiable.

    Raises:
        LayoutError: Shapes are wrong or differ, or there are fewer than two frames.
        ConfigError: Dtypes or devices are wrong or differ, or ``epsilon`` is not positive.
        NonFiniteError: A value is NaN or infinite.
    """
    return MeanFlicker(epsilon=epsilon).of_sequence(images, reference)


def static_variance(
    images: Tensor, reference: Tensor | Reference, *, epsilon: float = RELMSE_EPSILON
) -> Tensor:
    r"""Variance over time of each pixel, relative to its brightness, of a camera at rest.

    .. math::
        \mathrm{mean}\, \frac{\frac{1}{T-1} \sum_t (e_t - \bar e)^2}{\bar r^2 + \epsilon},
        \qquad e_t = p_t - r_t, \quad \bar e = \frac{1}{T} \sum_t e_t

    Means are over pixels and channels, :math:`\bar r` is the mean over time and channels of the
    reference, or over time of its ``brightness``. Where nothing moves, all frames have one
    reference, whose own variance over time is 0, and this is the variance of the images alone: its
    noise cannot add to it. Where lights or objects move, what the reference itself varies by is
    taken out. With halves the square becomes
    the product of the terms for :math:`p - a` and :math:`p - b`, so that the noise of references
    that differ from frame to frame does not count either.

    Args:
        images: (T, H, W, 3), scene-linear, frames of one camera that differ in their noise.
        reference: Of the same shape.
        epsilon: As for :func:`~mitsuba_gdpt.metrics.relmse`.

    Returns:
        Scalar; differentiable.

    Raises:
        LayoutError, ConfigError, NonFiniteError: As for :func:`flicker`.
    """
    return MeanStaticVariance(epsilon=epsilon).of_sequence(images, reference)


class SequenceAccumulator(Accumulator):
    """Collects one number per sequence, whose frames arrive one by one or several at a time.

    Every sequence has one vote, whatever its length. ``count`` is the number of sequences that have
    ended.

    Example:
        >>> from mitsuba_gdpt.metrics import MeanFlicker
        >>> metric = MeanFlicker()
        >>> for level in (1.0, 2.0, 1.0):
        ...     metric.update(torch.full((4, 4, 3), level), torch.zeros(4, 4, 3))
        >>> metric.cut()  # the next frame begins another sequence
        >>> metric.compute()
        tensor(100., dtype=torch.float64)
    """

    def __init__(self, *, epsilon: float = RELMSE_EPSILON) -> None:
        """Choose the constant; see :func:`flicker`."""
        self.epsilon = positive(epsilon)
        super().__init__()

    @abstractmethod
    def _begin(self) -> None:
        """Forget the frames of the running sequence."""

    @abstractmethod
    def _add(self, images: Tensor, reference: Reference) -> None:
        """Take further frames, (N, H, W, 3)."""

    @abstractmethod
    def _value(self) -> Tensor:
        """Return the number of the running sequence, of two frames or more."""

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._restart()

    def update(self, image: Tensor, reference: Tensor | Reference) -> None:
        """Add the next frame of the running sequence, or several; no gradient is kept.

        Args:
            image: (H, W, 3) or (N, H, W, 3), scene-linear.
            reference: Of the same shape.

        Raises:
            LayoutError: Shapes are wrong or differ, also from those of the frames before.
            ConfigError, NonFiniteError: As for the function of the same metric.
        """
        with torch.no_grad():
            self._take(*pair(image, reference))

    def cut(self) -> None:
        """End the running sequence, if there is one; the next frame begins another.

        Raises:
            LayoutError: The sequence has a single frame.
        """
        if not self._frames:
            return
        self._total += self._checked_value().to(self._total)
        self._count += 1
        self._restart()

    def merge(self: Self, other: Self) -> None:
        """Add what another one of the same kind has seen; sequences under way end in both."""
        for accumulator in (self, other):
            if isinstance(accumulator, SequenceAccumulator):
                accumulator.cut()
        super().merge(other)

    def compute(self) -> Tensor:
        """Return the mean over all sequences, the running one included, float64 scalar.

        Raises:
            ConfigError: No frame has been seen.
            LayoutError: The running sequence has a single frame.
        """
        if not self._frames:
            return super().compute()
        return (self._total + self._checked_value().to(self._total)) / (self._count + 1)

    def of_sequence(self, images: Tensor, reference: Tensor | Reference) -> Tensor:
        """Return the number of one whole sequence, differentiable, and keep nothing of it."""
        if isinstance(images, Tensor) and images.ndim != 4:
            raise LayoutError(
                f"images: got shape {tuple(images.shape)}; expected a sequence (T, H, W, 3)"
            )
        fresh = type(self)(epsilon=self.epsilon)
        fresh._take(*pair(images, reference))
        return fresh._checked_value()

    def _update(self, image: Tensor, reference: Tensor | Reference) -> Tensor:
        raise NotImplementedError("frames have no number of their own")

    def _restart(self) -> None:
        self._frames, self._shape = 0, torch.Size()
        self._begin()

    def _take(self, images: Tensor, reference: Reference) -> None:
        if self._frames and images.shape[1:] != self._shape:
            raise LayoutError(
                f"image: got shape {tuple(images.shape[1:])}; expected that of the frame before, "
                f"{tuple(self._shape)}. Call cut() where another sequence begins"
            )
        self._shape = images.shape[1:]
        self._add(images, reference)
        self._frames += len(images)

    def _checked_value(self) -> Tensor:
        if self._frames < 2:
            raise LayoutError(f"got a sequence of {self._frames} frame(s); expected 2 or more")
        return self._value()


class MeanFlicker(SequenceAccumulator):
    """Mean over sequences of :func:`flicker`."""

    def _begin(self) -> None:
        self._last: tuple[Tensor, ...] = ()
        self._sum: Tensor | float = 0.0

    def _add(self, images: Tensor, reference: Reference) -> None:
        halves = [reference.a] if reference.b is None else [reference.a, reference.b]
        frames = [images, reference.grey, *halves]
        if self._last and len(self._last) != len(frames):
            raise ConfigError(
                "got a reference of another number of halves; expected that of the frame before"
            )
        if self._last:
            frames = [torch.cat([last, new]) for last, new in zip(self._last, frames, strict=True)]
        self._last = tuple(frame[-1:] for frame in frames)
        if len(frames[0]) < 2:
            return
        step, *halves = (frame.diff(dim=0) for frame in (frames[0], *frames[2:]))
        error = Reference(*halves).squared_error(step)
        brightness = frames[1].square()
        mean = (brightness[1:] + brightness[:-1]) / 2 + self.epsilon
        self._sum = self._sum + (error / mean).mean((1, 2, 3)).sum()

    def _value(self) -> Tensor:
        return torch.as_tensor(self._sum) / (self._frames - 1)


class MeanStaticVariance(SequenceAccumulator):
    """Mean over sequences of :func:`static_variance`."""

    def _begin(self) -> None:
        self._origin: tuple[Tensor, Tensor] | None = None
        # Sums over time of p - a, p - b, their product, and grey; (H, W, 3 or 1) float64.
        self._sums: list[Tensor] = []

    def _add(self, images: Tensor, reference: Reference) -> None:
        a, b = reference.a, reference.a if reference.b is None else reference.b
        first, second = (images - half for half in (a, b))
        # Deviations from the first frame: sums of squares of what does not vary are exactly 0.
        self._origin = self._origin or (first[0], second[0])
        x, y = (e.double() - e0 for e, e0 in zip((first, second), self._origin, strict=True))
        new = [x.sum(0), y.sum(0), (x * y).sum(0), reference.grey.double().sum(0)]
        old = self._sums or [torch.zeros_like(total) for total in new]
        self._sums = [total + part for total, part in zip(old, new, strict=True)]
        self._dtype = images.dtype

    def _value(self) -> Tensor:
        x, y, product, grey = self._sums
        variance = (product - x * y / self._frames) / (self._frames - 1)
        error = variance / ((grey / self._frames) ** 2 + self.epsilon)
        return error.mean().to(self._dtype)
