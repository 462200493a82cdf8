"""The tables of metrics, for evaluation and reports: image, reference, one number.

:data:`METRICS` compare single images, :data:`SEQUENCE_METRICS` whole sequences.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from mitsuba_gdpt import packages, plugins
from mitsuba_gdpt.errors import ConfigError, GDPTError, NonFiniteError
from mitsuba_gdpt.metrics import pixelwise, structural, temporal
from mitsuba_gdpt.metrics.accumulator import Accumulator
from mitsuba_gdpt.metrics.elpips_distance import MeanELPIPS, elpips_estimate
from mitsuba_gdpt.metrics.flip_difference import MeanFLIP, flip
from mitsuba_gdpt.metrics.images import Reference, as_reference, displayable, one_image
from mitsuba_gdpt.metrics.lpips_distance import MeanLPIPS, lpips
from mitsuba_gdpt.metrics.weights import find_folder

#: What an image is turned into before it is compared: nothing, or display values.
Domain = Literal["linear", "display"]
Folder = str | os.PathLike[str] | None


@dataclass(frozen=True)
class MetricValue:
    """What a metric says of one image or sequence.

    Attributes:
        value: The number; finite, but for the PSNR of identical images (infinite).
        standard_error: Of the metric's own random numbers (E-LPIPS); None for all others. The noise
            of images and references is not in it.
        details: Further numbers that belong to the value (the exposures of HDR-FLIP).
    """

    value: float
    standard_error: float | None = None
    details: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """One line of the table.

    Attributes:
        name: As given to :func:`find`; lower case.
        label: For tables and axes.
        doc: One line: the definition and its constants.
        domain: ``"linear"``, or ``"display"``: sRGB of Reinhard, clipped to [0, 1].
        higher_is_better: Whether a larger value means a better image.
        needs_weights: Whether it needs files that are not part of the package.
        nonnegative: Whether negative values are refused; see
            :func:`mitsuba_gdpt.metrics.displayable`.
        unbiased: Whether a reference of two halves removes the bias of the reference's noise
            (for relMSE: nearly); otherwise the mean of the halves is used.
        package: Optional package it needs, or None.
        temporal: Whether it compares sequences, (T, H, W, 3), and not single images.
        accumulator: Makes the accumulator of the same metric, given the folder of weights.
        compute: Computes it; call the metric itself instead.
    """

    name: str
    label: str
    doc: str
    domain: Domain
    compute: Callable[[Tensor, Reference, Folder], MetricValue]
    accumulator: Callable[[Folder], Accumulator]
    higher_is_better: bool = False
    needs_weights: bool = False
    nonnegative: bool = False
    unbiased: bool = False
    package: str | None = None
    temporal: bool = False

    def obstacle(self, weights: Folder = None) -> GDPTError | None:
        """Return why the metric cannot be computed here, or None if it can.

        Args:
            weights: Folder of weights, where it needs any; by default that of the environment.
        """
        try:
            if self.package is not None:
                packages.load(self.package, "eval")
            if self.needs_weights:
                find_folder(weights)
        except GDPTError as error:
            return error
        return None

    def __call__(
        self, image: Tensor, reference: Tensor | Reference, *, weights: Folder = None
    ) -> MetricValue:
        """Compare one image, or a sequence where the metric is temporal, with its reference.

        Args:
            image: (H, W, 3) or (T, H, W, 3), scene-linear.
            reference: Of the same shape. Where negative values must not be, those of the mean of
                two halves count as 0: an unbiased estimate may be below 0 where light is none.
            weights: Folder of weights, where the metric needs any.

        Raises:
            LayoutError: Shapes are wrong, differ or are too small.
            ConfigError: Dtypes or devices are wrong or differ, or a value is negative and must not
                be.
            NonFiniteError: A value is NaN or infinite, or the metric itself overflows.
            MissingDependencyError: A package is not installed.
            WeightsError: Weights are missing or damaged.
        """
        if not self.temporal:  # the temporal ones themselves ask for sequences
            one_image(image)
        reference = as_reference(reference)
        if self.nonnegative and reference.b is not None:
            reference = Reference(displayable(reference.mean))
        with torch.no_grad():
            result = self.compute(image, reference, weights)
        if not math.isfinite(result.value) and not (self.name == "psnr" and result.value > 0):
            raise NonFiniteError(
                f"{self.label} is {result.value}, although image and reference are finite; "
                f"their values, up to {float(image.abs().max()):g}, are too large for it"
            )
        return result


def find(name: str) -> Metric:
    """Return a metric of either table by name.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in METRICS and name not in SEQUENCE_METRICS:
        plugins.load()
    known = {**METRICS, **SEQUENCE_METRICS}
    try:
        return known[name]
    except KeyError:
        raise ConfigError(f"unknown metric {name!r}; known: {', '.join(known)}") from None


def register(metric: Metric) -> Metric:
    """Make a metric known by its name; see :mod:`mitsuba_gdpt.plugins`.

    Raises:
        ConfigError: There is one of that name.
    """
    table = SEQUENCE_METRICS if metric.temporal else METRICS
    if metric.name in METRICS or metric.name in SEQUENCE_METRICS:
        raise ConfigError(f"there is a metric {metric.name!r} already; choose another name")
    table[metric.name] = metric
    return metric


def _plain(
    function: Callable[..., Tensor], **constants: object
) -> Callable[[Tensor, Reference, Folder], MetricValue]:
    def compute(image: Tensor, reference: Reference, weights: Folder) -> MetricValue:
        return MetricValue(float(function(image, reference, **constants)))

    return compute


def _flip(domain: Literal["hdr", "ldr"]) -> Callable[[Tensor, Reference, Folder], MetricValue]:
    def compute(image: Tensor, reference: Reference, weights: Folder) -> MetricValue:
        result = flip(image, reference, domain)
        details = {}
        if (used := result.exposures) is not None:
            details = {
                "start_exposure": used.start,
                "stop_exposure": used.stop,
                "exposures": float(used.count),
            }
        return MetricValue(result.mean, details=details)

    return compute


def _lpips(network: Literal["squeeze", "alex"]) -> Metric:
    def compute(image: Tensor, reference: Reference, weights: Folder) -> MetricValue:
        return MetricValue(float(lpips(image, reference, network=network, weights=weights)))

    name = {"squeeze": "SqueezeNet", "alex": "AlexNet"}[network]
    return Metric(
        f"lpips-{network}",
        f"LPIPS ({name})",
        f"distance of {name} features, version 0.1",
        "display",
        compute,
        lambda weights: MeanLPIPS(network, weights=weights),
        needs_weights=True,
        nonnegative=True,
    )


def _elpips(domain: Domain) -> Metric:
    def compute(image: Tensor, reference: Reference, weights: Folder) -> MetricValue:
        value, error = elpips_estimate(image, reference, domain=domain, weights=weights)
        return MetricValue(float(value), None if error is None else float(error))

    linear = domain == "linear"
    return Metric(
        "elpips-linear" if linear else "elpips",
        "E-LPIPS (linear)" if linear else "E-LPIPS",
        "SqueezeNet, 200 draws, exact mode, 1 to 8 scale levels by image size"
        + (", on radiance as it is, as NGPT's evaluation scripts" if linear else ""),
        domain,
        compute,
        lambda weights: MeanELPIPS(domain=domain, weights=weights),
        needs_weights=True,
        nonnegative=not linear,
    )


_ENTRIES = (
    Metric(
        "l1",
        "L1",
        "mean |p - r|",
        "linear",
        _plain(pixelwise.l1),
        lambda _: pixelwise.MeanL1(),
    ),
    Metric(
        "l2",
        "L2",
        "mean (p - r)^2",
        "linear",
        _plain(pixelwise.l2),
        lambda _: pixelwise.MeanL2(),
        unbiased=True,
    ),
    Metric(
        "relmse",
        "relMSE",
        "mean (p - r)^2 / (grey(r)^2 + 0.01)",
        "linear",
        _plain(pixelwise.relmse),
        lambda _: pixelwise.MeanRelMSE(),
        unbiased=True,
    ),
    Metric(
        "relmse-trimmed",
        "relMSE (trimmed)",
        "relMSE without the 0.1 % of pixels with the largest error",
        "linear",
        _plain(pixelwise.trimmed_relmse),
        lambda _: pixelwise.MeanTrimmedRelMSE(),
    ),
    Metric(
        "relmse-ngpt",
        "relMSE (NGPT)",
        "mean (p - r)^2 / (grey(r)^2 + 0.001)",
        "linear",
        _plain(pixelwise.relmse, epsilon=pixelwise.RELMSE_NGPT_EPSILON),
        lambda _: pixelwise.MeanRelMSE(epsilon=pixelwise.RELMSE_NGPT_EPSILON),
        unbiased=True,
    ),
    Metric(
        "smape",
        "SMAPE",
        "mean |p - r| / (|p| + |r| + 0.01)",
        "linear",
        _plain(pixelwise.smape),
        lambda _: pixelwise.MeanSMAPE(),
    ),
    Metric(
        "psnr",
        "PSNR [dB]",
        "-10 log10 of the mean squared error, peak 1",
        "display",
        _plain(structural.psnr),
        lambda _: structural.PooledPSNR(),
        higher_is_better=True,
        nonnegative=True,
    ),
    Metric(
        "ssim",
        "SSIM",
        "Gaussian window of 11 pixels, sigma 1.5, K 0.01 and 0.03",
        "display",
        _plain(structural.ssim),
        lambda _: structural.MeanSSIM(),
        higher_is_better=True,
        nonnegative=True,
        package="pytorch_msssim",
    ),
    Metric(
        "ms-ssim",
        "MS-SSIM",
        "five scales of SSIM; sides of at least 161 pixels",
        "display",
        _plain(structural.ms_ssim),
        lambda _: structural.MeanMSSSIM(),
        higher_is_better=True,
        nonnegative=True,
        package="pytorch_msssim",
    ),
    Metric(
        "hdr-flip",
        "HDR-FLIP",
        "67 pixels per degree, ACES, exposures from the reference",
        "linear",
        _flip("hdr"),
        lambda _: MeanFLIP("hdr"),
        nonnegative=True,
        package="flip_evaluator",
    ),
    Metric(
        "ldr-flip",
        "LDR-FLIP",
        "67 pixels per degree",
        "display",
        _flip("ldr"),
        lambda _: MeanFLIP("ldr"),
        nonnegative=True,
        package="flip_evaluator",
    ),
    _lpips("squeeze"),
    _lpips("alex"),
    _elpips("display"),
    _elpips("linear"),
)

_SEQUENCE_ENTRIES = (
    Metric(
        "flicker",
        "flicker",
        "relMSE of frame differences: mean ((p_t - p_(t-1)) - (r_t - r_(t-1)))^2 "
        "/ ((grey(r_t)^2 + grey(r_(t-1))^2) / 2 + 0.01)",
        "linear",
        _plain(temporal.flicker),
        lambda _: temporal.MeanFlicker(),
        unbiased=True,
        temporal=True,
    ),
    Metric(
        "static-variance",
        "variance over time",
        "camera at rest: mean of the variance over time of p - r, / (grey(r)^2 + 0.01)",
        "linear",
        _plain(temporal.static_variance),
        lambda _: temporal.MeanStaticVariance(),
        unbiased=True,
        temporal=True,
    ),
)

#: All metrics of images by name, in the order of tables.
METRICS: dict[str, Metric] = {metric.name: metric for metric in _ENTRIES}
#: All metrics of sequences by name.
SEQUENCE_METRICS: dict[str, Metric] = {metric.name: metric for metric in _SEQUENCE_ENTRIES}
