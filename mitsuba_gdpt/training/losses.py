r"""Losses between predicted and target radiance, and which of them noise in the target biases.

A loss is a weighted sum of terms. *p* is the prediction, *y* the target, linear RGB, (N, H, W, 3);
:math:`R(x) = x / (1 + \mathrm{mean}_{RGB} |x|)` is the tone curve of NGPT.

| term | formula | unbiased under noise in y |
|---|---|---|
| ``l1-tonemapped`` | mean abs(R(p) - R(y)) | no |
| ``gradient-l1-tonemapped`` | the same of forward differences, x plus y | no |
| ``elpips`` | E-LPIPS (SqueezeNet) of sRGB(R(.)) | no |
| ``smape`` | mean abs(p - y) / (abs(p) + abs(y) + 0.01) | no |
| ``l1`` | mean abs(p - y) | no |
| ``relative-l2`` | mean (p - y)^2 / g, g = mean_RGB(p)^2 + 0.01 held constant | yes |
| ``gradient-relative-l2`` | the same numerator of forward differences | yes |
| ``log-noise2noise`` | mean log(0.0001 + mean (p - y)^2 / g) | nearly |
| ``log-relative-l2`` | mean log(0.0001 + mean (p - y)^2 / h), h = mean_RGB(y)^2 + 0.01 | no |
| ``log-relative-l1`` | mean log(0.001 + mean abs(p - y) / sqrt(h)) | no |
| ``log-l1-tonemapped`` | mean log(0.001 + mean abs(R(p) - R(y))) | no |
| ``relative-huber`` | mean H((p - y) / sqrt(g)), H of Huber, bend at 0.5 | nearly |

The inner means of the logarithms are those of an image, the outer one is over images.

The two of relative-l2 follow Lehtinen et al., *Noise2Noise*, ICML 2018, section 3.3: the gradient
with respect to p is proportional to (p - y), so noise of mean zero in y averages out, and the
minimum is at the expectation of y. Every term that treats y non-linearly (a tone curve, an absolute
value, y in the denominator) has its minimum elsewhere: L1 at the median, which lies below the mean
of path-traced radiance. With those, use converged targets. ``relative-huber`` is the square as long
as the relative deviation of the target is below a half, and so unbiased, and linear beyond:
fireflies in a target of moderate noise, which make most of the gradient of relative-l2, lose their
power, and the energy that they stand for is lost with them. ``log-noise2noise`` has the gradient of
relative-l2 within an image, and weighs images as the logarithm does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from mitsuba_gdpt import checks
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.metrics import ELPIPS, Ensemble, reinhard, srgb

SMAPE_EPSILON = 1e-2
RELATIVE_EPSILON = 1e-2
#: Relative deviation at which ``relative-huber`` turns from quadratic to linear.
HUBER_BEND = 0.5
# Errors that are too small to go on about: they keep the logarithms finite.
_LEAST_ERROR, _LEAST_DEVIATION = 1e-4, 1e-3

#: Terms and weights of the named losses. ngpt: configurations 100 and 101 of the original;
#: ngpt-l1: 102 and 103. rdae is of sequences, see mitsuba_gdpt.training.sequence_losses.
LOSSES: dict[str, dict[str, float]] = {
    "ngpt": {"elpips": 1.0, "l1-tonemapped": 0.01, "gradient-l1-tonemapped": 0.01},
    "ngpt-l1": {"l1-tonemapped": 1.0, "gradient-l1-tonemapped": 0.01},
    "smape": {"smape": 1.0},
    "noise2noise": {"relative-l2": 1.0, "gradient-relative-l2": 0.2},
    "robust": {"relative-huber": 1.0},
    "backbone": {"log-noise2noise": 0.5, "log-relative-l1": 0.25, "log-l1-tonemapped": 0.25},
    "fusion": {"log-relative-l2": 0.6, "log-relative-l1": 0.4},
    "fusion-seen": {"log-relative-l2": 0.5, "log-l1-tonemapped": 0.5},
    "rdae": {"spatial": 0.8, "edges": 0.1, "temporal": 0.1},
}


def differences(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return forward differences in x and y, (N, H, W-1, 3) and (N, H-1, W, 3).

    There is no difference across the border, so the last column and row do not count (in the
    original they compare a zero with a real difference).
    """
    return image.diff(dim=2), image.diff(dim=1)


def l1(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean absolute error."""
    return (p - y).abs().mean()


def l1_tonemapped(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean absolute error behind the tone curve of NGPT."""
    return l1(reinhard(p), reinhard(y))


def gradient_l1_tonemapped(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Mean absolute error of forward differences, each behind the tone curve; sum of x and y."""
    pairs = zip(differences(p), differences(y), strict=True)
    return torch.stack([l1_tonemapped(a, b) for a, b in pairs]).sum()


def smape(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Symmetric mean absolute percentage error."""
    return ((p - y).abs() / (p.abs() + y.abs() + SMAPE_EPSILON)).mean()


def relative_l2(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Squared error relative to the prediction, unbiased under noise in y."""
    return ((p - y).square() / _brightness(p)).mean()


def gradient_relative_l2(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Squared error of forward differences relative to the prediction; sum of x and y."""
    dx, dy = differences(p - y)
    brightness = _brightness(p)
    return (dx.square() / brightness[:, :, 1:]).mean() + (dy.square() / brightness[:, 1:]).mean()


def relative_huber(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Huber loss of the deviation relative to the prediction; see the module's docstring."""
    deviation = (p - y) / _brightness(p).sqrt()
    zero = torch.zeros_like(deviation)
    return functional.huber_loss(deviation, zero, delta=HUBER_BEND)


def log_relative_l2(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Logarithm of each image's squared error relative to the target.

    Every image counts by the share of its error that is gained or lost, however hard it is; the
    mean is that of the geometric means that methods are compared by.
    """
    return _mean_log((p - y).square() / _brightness(y), _LEAST_ERROR)


def log_noise2noise(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Logarithm of each image's squared error relative to the prediction.

    Within an image the gradient is that of :func:`relative_l2`; only how much an image counts
    depends on the noise of its target: less, the more there is.
    """
    return _mean_log((p - y).square() / _brightness(p), _LEAST_ERROR)


def log_relative_l1(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Logarithm of each image's absolute error relative to the target."""
    return _mean_log((p - y).abs() / _brightness(y).sqrt(), _LEAST_DEVIATION)


def log_l1_tonemapped(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Logarithm of each image's absolute error behind the tone curve: of what is seen of it."""
    return _mean_log((reinhard(p) - reinhard(y)).abs(), _LEAST_DEVIATION)


def _mean_log(errors: torch.Tensor, least: float) -> torch.Tensor:
    """Return the mean over images of the logarithm of an image's mean error (N, H, W, 3)."""
    return errors.mean((1, 2, 3)).add(least).log().mean()


def _brightness(p: torch.Tensor) -> torch.Tensor:
    return p.detach().mean(-1, keepdim=True).square() + RELATIVE_EPSILON


TERMS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "l1": l1,
    "l1-tonemapped": l1_tonemapped,
    "gradient-l1-tonemapped": gradient_l1_tonemapped,
    "smape": smape,
    "relative-l2": relative_l2,
    "log-noise2noise": log_noise2noise,
    "log-relative-l2": log_relative_l2,
    "log-relative-l1": log_relative_l1,
    "log-l1-tonemapped": log_l1_tonemapped,
    "gradient-relative-l2": gradient_relative_l2,
    "relative-huber": relative_huber,
}
ELPIPS_TERM = "elpips"
#: All terms that a loss can have.
NAMES = (*TERMS, ELPIPS_TERM)
#: Terms whose minimum noise in the target does not move.
UNBIASED = frozenset({"relative-l2", "gradient-relative-l2"})
#: Terms that noisy targets do not spoil; moderate noise moves the minimum of ``relative-huber``
#: little, and that of ``log-noise2noise`` the less, the more pixels an image has.
SUIT_NOISE = UNBIASED | {"relative-huber", "log-noise2noise"}


def check_terms(weights: Mapping[str, float], known: Sequence[str] = NAMES) -> None:
    """Check the names of the terms of a loss.

    Args:
        weights: Term to weight.
        known: Names of the terms that there are.

    Raises:
        ConfigError: One is unknown, or its weight is no finite number of 0 or more.
    """
    if unknown := [name for name in weights if name not in known]:
        named = ", ".join(name[:60] for name in unknown[:5])
        raise ConfigError(f"unknown loss {named}; known: {', '.join(known)}")
    for name, weight in weights.items():
        checks.real(f"terms.{name}", weight, least=0)


class Loss(nn.Module):
    """A weighted sum of terms.

    Args:
        weights: Term to weight; see the module.

    Raises:
        ConfigError: A term is unknown or there is none.
        WeightsError: E-LPIPS is wanted and its backbone is not there.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        check_terms(weights)
        self.weights = {name: weight for name, weight in weights.items() if weight}
        if not self.weights:
            raise ConfigError("got a loss without terms; expected at least one weight above 0")
        self.elpips: ELPIPS | None = None
        if ELPIPS_TERM in self.weights:
            self.elpips = ELPIPS(draws=3, ensemble=Ensemble(scale_levels=2, mode="fast"))

    def forward(
        self, p: torch.Tensor, y: torch.Tensor, generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """Evaluate all terms.

        Args:
            p: (..., H, W, 3) prediction.
            y: (..., H, W, 3) target; of independent noisy ones the mean. A squared loss has the
                same gradient for the mean as for each on its own, on average.
            generator: Source of the random draws of E-LPIPS.

        Returns:
            The value of each term, and their weighted sum under ``loss``.
        """
        p, y = (image.flatten(0, -4) for image in (p, y))
        values = {}
        for name in self.weights:
            if name == ELPIPS_TERM:
                assert self.elpips is not None
                shown = [srgb(reinhard(image).clamp(min=0)) for image in (p, y)]
                values[name] = self.elpips(shown[0], shown[1], generator=generator).mean()
            else:
                values[name] = TERMS[name](p, y)
        total = torch.stack([weight * values[name] for name, weight in self.weights.items()])
        return {**values, "loss": total.sum()}
