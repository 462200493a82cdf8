"""Architectures of the neural methods: tensors in, tensors out; no buffers, no files."""

from __future__ import annotations

from mitsuba_gdpt.denoisers.networks.dense_unet import DenseUNet, DenseUNetConfig
from mitsuba_gdpt.denoisers.networks.fusion import fuse
from mitsuba_gdpt.denoisers.networks.fusion_weights import FusionWeights, FusionWeightsConfig
from mitsuba_gdpt.denoisers.networks.layers import fold_weight_norm
from mitsuba_gdpt.denoisers.networks.predicted_kernels import (
    KernelNetwork,
    KernelNetworkConfig,
    apply_kernels,
)
from mitsuba_gdpt.denoisers.networks.recurrent_unet import RecurrentUNet, RecurrentUNetConfig

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
