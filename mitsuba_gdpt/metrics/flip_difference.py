"""FLIP: the difference that a viewer sees when flipping between two images, by NVIDIA's own code.

P. Andersson et al., *FLIP: A Difference Evaluator for Alternating Images*, HPG 2020, and
*Visualizing Errors in Rendered High Dynamic Range Images*, Eurographics 2021 (HDR-FLIP). The
package ``flip-evaluator`` ends the process on some bad arguments and swallows broken pixels in
silence, so everything is checked before it is called. Not differentiable; runs on the CPU.

HDR-FLIP is the maximum over a range of exposures that depends on the *reference* (and, like any
other constant, has to be known to compare two values): from the exposure that maps its brightest
pixel to 0.85 of the ACES curve's range to the one that does so for its median. Methods compared
with the same reference share it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from mitsuba_gdpt import packages
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.metrics.accumulator import Accumulator
from mitsuba_gdpt.metrics.images import Reference, as_reference, encode_display, one_image, pair

Domain = Literal["hdr", "ldr"]

#: Pixels per degree of visual angle: 0.7 m from a display that is 0.7 m and 3840 pixels wide.
PIXELS_PER_DEGREE = 0.7 * 3840 / 0.7 * math.pi / 180

_LUMINANCE = (0.2126, 0.7152, 0.0722)
_BRIGHT = 0.85  # tone-mapped value that bounds the range of exposures
_ACES = (0.6 * 0.6 * 2.51, 0.6 * 0.03, 0.0, 0.6 * 0.6 * 2.43, 0.6 * 0.59, 0.14)
_LEAST_LUMINANCE = 2.0**-23  # of the median, so that a mostly black image has a range at all


@dataclass(frozen=True)
class Exposures:
    """The range of exposures that HDR-FLIP looks at.

    Attributes:
        start: First exposure, in stops.
        stop: Last exposure, in stops.
        count: Number of exposures, evenly spaced, at least 2 (with one, the evaluator's result is
            0 for any image).

    Raises:
        ConfigError: The range is empty or not finite, or there are fewer than two exposures.
    """

    start: float
    stop: float
    count: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and math.isfinite(self.stop)) or self.count < 2:
            raise ConfigError(f"got {self}; expected finite exposures, at least 2 of them")
        if self.start > self.stop:
            raise ConfigError(f"got {self}; expected start <= stop")


@dataclass(frozen=True, eq=False)
class FlipResult:
    """FLIP of one image.

    Attributes:
        map: (H, W) float32 on the host, 0 (no difference) to 1.
        exposures: What HDR-FLIP looked at; None for LDR-FLIP.
    """

    map: Tensor
    exposures: Exposures | None

    @property
    def mean(self) -> float:
        """Mean over pixels, the value that is reported."""
        return float(self.map.mean(dtype=torch.float64))


def hdr_flip_exposures(reference: Tensor | Reference) -> Exposures:
    """Compute the exposures that HDR-FLIP uses with a reference, as ``flip-evaluator`` does.

    Args:
        reference: (H, W, 3), scene-linear, non-negative; of halves, their mean is used.

    Raises:
        LayoutError: It is not one image.
        ConfigError: A value is negative, or the reference is black.
        NonFiniteError: A value is NaN or infinite.
    """
    reference = as_reference(reference)
    one_image(reference.a)
    pair(reference.mean, reference, nonnegative=True)
    luminance = reference.mean.double() @ torch.tensor(
        _LUMINANCE, dtype=torch.float64, device=reference.a.device
    )
    ordered = luminance.flatten().sort().values
    brightest, median = float(ordered[-1]), float(ordered[len(ordered) // 2])
    if brightest == 0:
        raise ConfigError(
            "the reference is black: no exposure makes it visible, and HDR-FLIP is undefined. "
            "Pass exposures=Exposures(start, stop, count)"
        )
    bright = _inverse_aces(_BRIGHT)
    start = math.log2(bright / brightest)
    stop = max(start, math.log2(bright / max(median, _LEAST_LUMINANCE)))
    return Exposures(start, stop, max(2, math.ceil(stop - start)))


def flip(
    image: Tensor,
    reference: Tensor | Reference,
    domain: Domain = "hdr",
    *,
    pixels_per_degree: float = PIXELS_PER_DEGREE,
    exposures: Exposures | None = None,
) -> FlipResult:
    """Compare one image with its reference.

    Args:
        image: (H, W, 3), scene-linear, non-negative.
        reference: Of the same shape; of halves, the mean is used.
        domain: ``"hdr"``: several exposures of the linear images, ACES tone curve. ``"ldr"``: the
            displayed images, :func:`~.images.encode_display`.
        pixels_per_degree: Of visual angle; sets how much the eye blurs.
        exposures: Of HDR-FLIP; by default :func:`hdr_flip_exposures` of the reference. Give it to
            compare values over several references.

    Raises:
        LayoutError: Shapes are wrong or differ.
        ConfigError: Another argument is wrong, a value is negative, or the reference is black.
        NonFiniteError: A value is NaN or infinite.
        MissingDependencyError: ``flip-evaluator`` (extra ``eval``) is not installed.
    """
    one_image(image)
    reference = as_reference(reference)
    (batch,), _ = pair(image.detach(), reference, nonnegative=True)
    if domain not in ("hdr", "ldr"):
        raise ConfigError(f"got domain {domain!r}; expected 'hdr' or 'ldr'")
    if not 0 < pixels_per_degree < math.inf:
        raise ConfigError(f"got pixels_per_degree = {pixels_per_degree}; expected a positive one")
    if domain == "ldr" and exposures is not None:
        raise ConfigError("got exposures for LDR-FLIP; only HDR-FLIP has any")
    evaluator = packages.load("flip_evaluator", "eval")
    target = reference.mean.detach()
    parameters: dict[str, float | int] = {"ppd": float(pixels_per_degree)}
    if domain == "ldr":
        batch, target = encode_display(batch), encode_display(target)
    else:
        exposures = exposures or hdr_flip_exposures(reference)
        parameters["startExposure"] = exposures.start
        parameters["stopExposure"] = exposures.stop
        parameters["numExposures"] = exposures.count
    error, _, _ = evaluator.evaluate(
        _host(target),  # the reference comes first
        _host(batch),
        domain.upper(),
        applyMagma=False,
        computeMeanError=False,
        parameters=parameters,
    )
    return FlipResult(torch.from_numpy(np.array(error[..., 0])), exposures)


def flip_map(
    image: Tensor,
    reference: Tensor | Reference,
    domain: Domain = "hdr",
    *,
    pixels_per_degree: float = PIXELS_PER_DEGREE,
    exposures: Exposures | None = None,
) -> Tensor:
    """Return FLIP per pixel, (H, W) float32 in [0, 1]; arguments and errors of :func:`flip`."""
    return flip(
        image, reference, domain, pixels_per_degree=pixels_per_degree, exposures=exposures
    ).map


def hdr_flip(
    image: Tensor,
    reference: Tensor | Reference,
    *,
    pixels_per_degree: float = PIXELS_PER_DEGREE,
    exposures: Exposures | None = None,
) -> Tensor:
    """Mean HDR-FLIP of one image or a batch.

    Args:
        image: (H, W, 3) or (N, H, W, 3), scene-linear, non-negative.
        reference: Of the same shape.
        pixels_per_degree: As for :func:`flip`.
        exposures: As for :func:`flip`; by default each reference has its own.

    Returns:
        Scalar; mean over the batch, without gradient.

    Raises:
        LayoutError, ConfigError, NonFiniteError, MissingDependencyError: As for :func:`flip`.
    """
    return _flip_update(image, reference, "hdr", pixels_per_degree, exposures).mean()


def ldr_flip(
    image: Tensor,
    reference: Tensor | Reference,
    *,
    pixels_per_degree: float = PIXELS_PER_DEGREE,
) -> Tensor:
    """Mean LDR-FLIP of the displayed image or batch; otherwise as :func:`hdr_flip`."""
    return _flip_update(image, reference, "ldr", pixels_per_degree, None).mean()


class MeanFLIP(Accumulator):
    """Mean over images of :func:`hdr_flip` or :func:`ldr_flip`."""

    def __init__(
        self,
        domain: Domain = "hdr",
        *,
        pixels_per_degree: float = PIXELS_PER_DEGREE,
        exposures: Exposures | None = None,
    ) -> None:
        """Choose the arguments of :func:`flip`."""
        super().__init__()
        self.domain = domain
        self.pixels_per_degree = pixels_per_degree
        self.exposures = exposures

    def _update(self, image: Tensor, reference: Tensor | Reference) -> Tensor:
        return _flip_update(image, reference, self.domain, self.pixels_per_degree, self.exposures)


def _flip_update(
    image: Tensor,
    reference: Tensor | Reference,
    domain: Domain,
    pixels_per_degree: float,
    exposures: Exposures | None,
) -> Tensor:
    images, references = pair(image, reference)
    values = [
        flip(one, target, domain, pixels_per_degree=pixels_per_degree, exposures=exposures).mean
        for one, target in zip(images, references.mean, strict=True)
    ]
    return torch.tensor(values, dtype=images.dtype)


def _inverse_aces(value: float) -> float:
    """Return the larger luminance at which the rational ACES curve reaches ``value``."""
    a, b, c = (_ACES[i] - value * _ACES[i + 3] for i in range(3))
    return -0.5 * b / a + math.sqrt((0.5 * b / a) ** 2 - c / a)


def _host(image: Tensor) -> np.ndarray:
    return np.ascontiguousarray(image.cpu().numpy(), dtype=np.float32)
