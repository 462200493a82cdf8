"""Architectures of the neural methods: tensors in, tensors out; no buffers, no files."""

from __future__ import annotations

from mitsuba_gdpt.denoisers.learned.networks.dense_unet import DenseUNet, DenseUNetConfig
from mitsuba_gdpt.denoisers.learned.networks.fusion_weights import (
    FusionWeights,
    FusionWeightsConfig,
)
from mitsuba_gdpt.denoisers.learned.networks.layers import fold_weight_norm
from mitsuba_gdpt.denoisers.learned.networks.predicted_kernels import (
    KernelNetwork,
    KernelNetworkConfig,
    apply_kernels,
)
from mitsuba_gdpt.denoisers.learned.networks.recurrent_unet import (
    RecurrentUNet,
    RecurrentUNetConfig,
)
from mitsuba_gdpt.denoisers.solvers.screened_poisson import fuse

__all__ = [
    "DenseUNet",
    "DenseUNetConfig",
    "FusionWeights",
    "FusionWeightsConfig",
    "KernelNetwork",
    "KernelNetworkConfig",
    "RecurrentUNet",
    "RecurrentUNetConfig",
    "apply_kernels",
    "fold_weight_norm",
    "fuse",
]
