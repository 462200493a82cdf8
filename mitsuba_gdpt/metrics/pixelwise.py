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

    :math:`\bar r` is the mean of the reference's channels (grey). No outlier is removed.

    Bias: with halves the numerator is :math:`(p - a)(p - b)` and :math:`\bar r` comes from their
    mean. The numerator alone is unbiased. What remains is of relative order
    :math:`\mathrm{Var}[\bar r]/(\bar r^2 + \epsilon)`, because numerator and denominator share
    noise; it matters only where the reference itself is off by tens of percent, in dark pixels
    with rare bright samples. Against the mean alone, the bias is that same ratio *added* to the
    error, which matters as soon as it is not small compared with the error itself.

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
        self.epsilon = _positive(epsilon)

    def _update(self, image: Tensor, reference: Tensor | Reference) -> Tensor:
        return _relmse_update(image, reference, self.epsilon)


class MeanSMAPE(Accumulator):
    """Mean over images of :func:`smape`."""

    def __init__(self, *, epsilon: float = SMAPE_EPSILON) -> None:
        """Choose the constant of :func:`smape`."""
        super().__init__()
        self.epsilon = _positive(epsilon)

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


def _relative_squared_error(image: Tensor, reference: Tensor | Reference, epsilon: float) -> Tensor:
    image, reference = pair(image, reference)
    grey = reference.mean.mean(-1, keepdim=True)
    return reference.squared_error(image) / (grey**2 + _positive(epsilon))


def _smape_update(image: Tensor, reference: Tensor | Reference, epsilon: float) -> Tensor:
    image, reference = pair(image, reference)
    mean = reference.mean
    error = (image - mean).abs() / (image.abs() + mean.abs() + _positive(epsilon))
    return error.mean((1, 2, 3))


def _positive(epsilon: float) -> float:
    if not 0 < epsilon < float("inf"):
        raise ConfigError(f"got epsilon = {epsilon}; expected a positive number")
    return epsilon
