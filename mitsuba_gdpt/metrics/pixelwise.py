"""Errors of pixel values in the linear domain: L1, L2, relMSE, SMAPE.

All are differentiable and defined for negative values. With a :class:`~.images.Reference` of two
halves, L2 is unbiased and relMSE nearly so; L1 and SMAPE are compared with the mean of the halves,
whose noise adds to them.
"""

from __future__ import annotations

from torch import Tensor

from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.metrics.accumulator import Accumulator
from mitsuba_gdpt.metrics.images import Reference, one_image, pair

#: Added to the squared reference; that of SBMC (Gharbi et al. 2019, who also halve the result).
RELMSE_EPSILON = 1e-2
#: The same in NGPT's evaluation scripts (Kettunen et al. 2019).
RELMSE_NGPT_EPSILON = 1e-3
#: Added to the sum of magnitudes; that of SBMC.
SMAPE_EPSILON = 1e-2
#: Share of the pixels that :func:`trimmed_relmse` leaves out.
TRIMMED_SHARE = 1e-3


def l1(image: Tensor, reference: Tensor | Reference) -> Tensor:
    r"""Mean absolute error, :math:`\mathrm{mean}\,|p - r|` over pixels and channels.

    With halves: against their mean; the noise of the reference makes it larger.

    Args:
        image: (H, W, 3) or (N, H, W, 3), scene-linear.
        reference: Of the same shape.

    Returns:
        Scalar; mean over the batch. The unit is that of the images.

    Raises:
        LayoutError: Shapes are wrong or differ.
        ConfigError: Dtypes or devices are wrong or differ.
        NonFiniteError: A value is NaN or infinite.
    """
    return _l1_update(image, reference).mean()


def l2(image: Tensor, reference: Tensor | Reference) -> Tensor:
    r"""Mean squared error, :math:`\mathrm{mean}\,(p - r)^2` over pixels and channels.

    With halves: :math:`\mathrm{mean}\,(p - a)(p - b)`, unbiased, possibly negative.
    Arguments, result and errors are those of :func:`l1`.
    """
    return _l2_update(image, reference).mean()


def relmse(
    image: Tensor, reference: Tensor | Reference, *, epsilon: float = RELMSE_EPSILON
) -> Tensor:
    r"""Relative squared error, mean of :math:`(p - r)^2 / (\bar r^2 + \epsilon)`.

    :math:`\bar r` is the mean of the reference's channels (grey), or its ``brightness``. No outlier
    is removed.

    Bias: with halves the numerator is :math:`(p - a)(p - b)`, unbiased by itself, and
    :math:`\bar r` comes from their mean. As the two share noise, a bias remains that is of second
    order: with the relative variance :math:`v` of a pixel in one half, it is a fraction of order
    :math:`v` of the error, plus a term of order :math:`v^2` (against the mean alone,
    :math:`v / 2` is added). It matters where a half deviates by more than about a tenth; with
    three tenths, relMSE can be off by its own size. A ``brightness`` with less noise takes most of
    that away. docs/reference/metrics.md has figures.

    Args:
        image: (H, W, 3) or (N, H, W, 3), scene-linear.
        reference: Of the same shape.
        epsilon: :data:`RELMSE_EPSILON`, or :data:`RELMSE_NGPT_EPSILON` for figures to compare
            with NGPT. In units of squared radiance: values depend on the scene's scale.

    Returns:
        Scalar; mean over the batch.

    Raises:
        LayoutError, NonFiniteError: As for :func:`l1`.
        ConfigError: As for :func:`l1`, or ``epsilon`` is not positive.
    """
    return _relmse_update(image, reference, epsilon).mean()


def trimmed_relmse(
    image: Tensor,
    reference: Tensor | Reference,
    *,
    epsilon: float = RELMSE_EPSILON,
    trim: float = TRIMMED_SHARE,
) -> Tensor:
    """Return relMSE without the pixels of the largest error: what it is but for fireflies.

    A single firefly can make more than nine tenths of an image's relMSE, so that two methods are
    compared by whether one pixel of one seed got lucky. Read this beside :func:`relmse`, never
    alone: a method that leaves fireflies standing looks as good here as one that removes them.

    Args:
        image: (H, W, 3) or (N, H, W, 3), scene-linear.
        reference: Of the same shape. With halves a small negative bias remains, since the trimmed
            pixels are also those where the reference's own noise adds to the error.
        epsilon: As for :func:`relmse`.
        trim: Share of each image's pixels to leave out.

    Returns:
        Scalar; mean over the batch.

    Raises:
        LayoutError, NonFiniteError: As for :func:`l1`.
        ConfigError: As for :func:`relmse`, or ``trim`` is not in [0, 1).
    """
    return _trimmed_update(image, reference, epsilon, trim).mean()


def relative_error_map(
    image: Tensor, reference: Tensor | Reference, *, epsilon: float = RELMSE_EPSILON
) -> Tensor:
    """Return relMSE per pixel; its mean is :func:`relmse`.

    Args:
        image: (H, W, 3), scene-linear.
        reference: (H, W, 3). Of halves, the values of single pixels can be negative.
        epsilon: As for :func:`relmse`.

    Returns:
        (H, W), mean over channels.

    Raises:
        LayoutError: As for :func:`l1`, or a batch is given.
        ConfigError, NonFiniteError: As for :func:`relmse`.
    """
    one_image(image)
    return _relative_squared_error(image, reference, epsilon)[0].mean(-1)


def smape(
    image: Tensor, reference: Tensor | Reference, *, epsilon: float = SMAPE_EPSILON
) -> Tensor:
    r"""Symmetric mean absolute percentage error, mean of :math:`|p-r| / (|p|+|r|+\epsilon)`.

    Between 0 and 1, over pixels and channels. With halves: against their mean.

    Args:
        image: (H, W, 3) or (N, H, W, 3), scene-linear.
        reference: Of the same shape.
        epsilon: In units of radiance.

    Returns:
        Scalar; mean over the batch.

    Raises:
        LayoutError, ConfigError, NonFiniteError: As for :func:`relmse`.
    """
    return _smape_update(image, reference, epsilon).mean()


class MeanL1(Accumulator):
    """Mean over images of :func:`l1`."""

    def _update(self, image: Tensor, reference: Tensor | Reference) -> Tensor:
        return _l1_update(image, reference)


class MeanL2(Accumulator):
    """Mean over images of :func:`l2`."""

    def _update(self, image: Tensor, reference: Tensor | Reference) -> Tensor:
        return _l2_update(image, reference)


class MeanRelMSE(Accumulator):
    """Mean over images of :func:`relmse`."""

    def __init__(self, *, epsilon: float = RELMSE_EPSILON) -> None:
        """Choose the constant of :func:`relmse`."""
        super().__init__()
        self.epsilon = positive(epsilon)

    def _update(self, image: Tensor, reference: Tensor | Reference) -> Tensor:
        return _relmse_update(image, reference, self.epsilon)


class MeanTrimmedRelMSE(Accumulator):
    """Mean over images of :func:`trimmed_relmse`."""

    def __init__(self, *, epsilon: float = RELMSE_EPSILON, trim: float = TRIMMED_SHARE) -> None:
        """Choose the constants of :func:`trimmed_relmse`."""
        super().__init__()
        self.epsilon, self.trim = positive(epsilon), trim

    def _update(self, image: Tensor, reference: Tensor | Reference) -> Tensor:
        return _trimmed_update(image, reference, self.epsilon, self.trim)


class MeanSMAPE(Accumulator):
    """Mean over images of :func:`smape`."""

    def __init__(self, *, epsilon: float = SMAPE_EPSILON) -> None:
        """Choose the constant of :func:`smape`."""
        super().__init__()
        self.epsilon = positive(epsilon)

    def _update(self, image: Tensor, reference: Tensor | Reference) -> Tensor:
        return _smape_update(image, reference, self.epsilon)


def _l1_update(image: Tensor, reference: Tensor | Reference) -> Tensor:
    image, reference = pair(image, reference)
    return (image - reference.mean).abs().mean((1, 2, 3))


def _l2_update(image: Tensor, reference: Tensor | Reference) -> Tensor:
    image, reference = pair(image, reference)
    return reference.squared_error(image).mean((1, 2, 3))


def _relmse_update(image: Tensor, reference: Tensor | Reference, epsilon: float) -> Tensor:
    return _relative_squared_error(image, reference, epsilon).mean((1, 2, 3))


def _trimmed_update(
    image: Tensor, reference: Tensor | Reference, epsilon: float, trim: float
) -> Tensor:
    if not 0 <= trim < 1:
        raise ConfigError(f"got trim = {trim}; expected a share of the pixels, 0 <= trim < 1")
    pixels = _relative_squared_error(image, reference, epsilon).mean(-1).flatten(1)
    kept = max(1, int(pixels.shape[1] * (1 - trim)))
    return pixels.sort(1).values[:, :kept].mean(1)


def _relative_squared_error(image: Tensor, reference: Tensor | Reference, epsilon: float) -> Tensor:
    image, reference = pair(image, reference)
    return reference.squared_error(image) / (reference.grey**2 + positive(epsilon))


def _smape_update(image: Tensor, reference: Tensor | Reference, epsilon: float) -> Tensor:
    image, reference = pair(image, reference)
    mean = reference.mean
    error = (image - mean).abs() / (image.abs() + mean.abs() + positive(epsilon))
    return error.mean((1, 2, 3))


def positive(epsilon: float) -> float:
    """Return a constant that has to be positive and finite.

    Raises:
        ConfigError: It is not.
    """
    if not 0 < epsilon < float("inf"):
        raise ConfigError(f"got epsilon = {epsilon}; expected a positive number")
    return epsilon
