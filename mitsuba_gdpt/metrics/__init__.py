"""Errors of images against references: relMSE to E-LPIPS, noisy references included.

Three ways in:

* functions: ``relmse(image, reference)``, on (H, W, 3) or (N, H, W, 3) linear tensors,
  differentiable where the metric is;
* accumulators over a data set: ``MeanRelMSE().update(image, reference)``;
* :data:`METRICS`, :data:`SEQUENCE_METRICS` and :func:`find`: the same by name, one image or
  sequence at a time, for evaluation.

:class:`LPIPS` and :class:`ELPIPS` are modules for training. Definitions: docs/reference/metrics.md.
"""

from __future__ import annotations

from mitsuba_gdpt.metrics.accumulator import Accumulator
from mitsuba_gdpt.metrics.elpips_distance import (
    ELPIPS,
    Estimate,
    MeanELPIPS,
    elpips,
    elpips_estimate,
)
from mitsuba_gdpt.metrics.ensemble import Ensemble
from mitsuba_gdpt.metrics.flip_difference import (
    Exposures,
    FlipResult,
    MeanFLIP,
    flip,
    flip_map,
    hdr_flip,
    hdr_flip_exposures,
    ldr_flip,
)
from mitsuba_gdpt.metrics.images import Reference, displayable, encode_display, reinhard, srgb
from mitsuba_gdpt.metrics.lpips_distance import LPIPS, MeanLPIPS, lpips
from mitsuba_gdpt.metrics.pixelwise import (
    MeanL1,
    MeanL2,
    MeanRelMSE,
    MeanSMAPE,
    MeanTrimmedRelMSE,
    l1,
    l2,
    relative_error_map,
    relmse,
    smape,
    trimmed_relmse,
)
from mitsuba_gdpt.metrics.structural import (
    MeanMSSSIM,
    MeanSSIM,
    PooledPSNR,
    ms_ssim,
    psnr,
    ssim,
)
from mitsuba_gdpt.metrics.table import (
    METRICS,
    SEQUENCE_METRICS,
    Metric,
    MetricValue,
    find,
    register,
)
from mitsuba_gdpt.metrics.temporal import (
    MeanFlicker,
    MeanStaticVariance,
    SequenceAccumulator,
    flicker,
    static_variance,
)

__all__ = [
    "ELPIPS",
    "LPIPS",
    "METRICS",
    "SEQUENCE_METRICS",
    "Accumulator",
    "Ensemble",
    "Estimate",
    "Exposures",
    "FlipResult",
    "MeanELPIPS",
    "MeanFLIP",
    "MeanFlicker",
    "MeanL1",
    "MeanL2",
    "MeanLPIPS",
    "MeanMSSSIM",
    "MeanRelMSE",
    "MeanSMAPE",
    "MeanSSIM",
    "MeanStaticVariance",
    "MeanTrimmedRelMSE",
    "Metric",
    "MetricValue",
    "PooledPSNR",
    "Reference",
    "SequenceAccumulator",
    "displayable",
    "elpips",
    "elpips_estimate",
    "encode_display",
    "find",
    "flicker",
    "flip",
    "flip_map",
    "hdr_flip",
    "hdr_flip_exposures",
    "l1",
    "l2",
    "ldr_flip",
    "lpips",
    "ms_ssim",
    "psnr",
    "register",
    "reinhard",
    "relative_error_map",
    "relmse",
    "smape",
    "srgb",
    "ssim",
    "static_variance",
    "trimmed_relmse",
]
