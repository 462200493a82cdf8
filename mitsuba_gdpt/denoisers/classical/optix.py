"""NVIDIA's OptiX denoiser, through ``mi.OptixDenoiser``; needs an NVIDIA GPU.

The network is part of the graphics driver. The same pretrained kind as
:mod:`~mitsuba_gdpt.denoisers.classical.oidn`: it reads the primal, albedo and normal, and no
gradients.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.utils.dlpack

from mitsuba_gdpt import _llvm, subprocesses
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import MOTION, PRIMAL
from mitsuba_gdpt.denoisers.exposure import Exposure
from mitsuba_gdpt.denoisers.registry import register
from mitsuba_gdpt.errors import LayoutError, VariantError

_GUIDES = ("albedo", "normal")
#: Where recent drivers for Linux keep the weights. Containers often get the libraries only.
_WEIGHTS = Path("/usr/share/nvidia/nvoptix.bin")


def _check(options: Mapping[str, Any]) -> None:
    """Raise if OptiX cannot run in this process.

    Raises:
        VariantError: There is no NVIDIA GPU, Mitsuba is not set to use it, or the driver's denoiser
            does not start.
    """
    del options
    import drjit as dr
    import mitsuba as mi

    _llvm.loaded_version()  # waits for Dr.Jit's start-up thread
    if not dr.has_backend(dr.JitBackend.CUDA):
        raise VariantError("OptiX needs an NVIDIA GPU, and Dr.Jit found none; try 'oidn'")
    variant = mi.variant()
    if variant is None or not variant.startswith("cuda"):
        raise VariantError(
            f"mi.OptixDenoiser needs a CUDA variant, the active one is {variant}; "
            f"call mi.set_variant('cuda_ad_rgb') first"
        )
    if not (_WEIGHTS.exists() or _survives(variant)):
        raise VariantError(
            f"the OptiX denoiser does not start here: {_WEIGHTS} with its weights is missing. "
            f"Install the driver's package that holds them, or try 'oidn'"
        )


@functools.cache
def _survives(variant: str) -> bool:
    """Tell whether a denoiser can be made: where it cannot, Dr.Jit aborts the whole process."""
    code = f"import mitsuba as mi; mi.set_variant({variant!r}); mi.OptixDenoiser([16, 16])"
    done = subprocess.run(
        subprocesses.python(code),
        env=subprocesses.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


@register(
    "optix",
    group="baseline",
    needs=("primal",),
    uses=_GUIDES,
    doc="NVIDIA OptiX denoiser (GPU only)",
    check=_check,
    exposure=Exposure.BINARY,
)
def optix(buffers: FrameBuffers, *, guided: bool = True) -> torch.Tensor:
    """Denoise the primal, guided by albedo and normal.

    Buffers in host memory are copied to the GPU, and the result back.

    Args:
        buffers: Needs ``primal``, and unless ``guided`` is off ``albedo`` and ``normal``. The
            latter is in camera space already, as Mitsuba's class expects it.
        guided: Use albedo and normal.

    Returns:
        (H, W, 3) float32.

    Raises:
        LayoutError: ``albedo`` or ``normal`` is missing.
        VariantError: There is no NVIDIA GPU, or no CUDA variant of Mitsuba is active.
    """
    return _denoise(buffers, guided, {})


@dataclass(frozen=True)
class Previous:
    """What ``optix-temporal`` remembers: the image of the frame before, (H, W, 3)."""

    image: torch.Tensor

    def exposed(self, factor: float) -> Previous:
        """Multiply its radiance by a factor."""
        return Previous(self.image * factor)


@register(
    "optix-temporal",
    group="baseline",
    needs=("primal",),
    uses=(*_GUIDES, MOTION),
    doc="NVIDIA OptiX denoiser for sequences (GPU only)",
    check=_check,
    exposure=Exposure.BINARY,
    recurrent=True,
    after=Previous,
)
def optix_temporal(
    buffers: FrameBuffers, previous: Previous | None, *, guided: bool = True
) -> tuple[torch.Tensor, Previous]:
    """Denoise the primal of the next frame of a sequence, which also sees the image before it.

    Args:
        buffers: As for :func:`optix`. Without ``motion``, pixels are taken to rest.
        previous: None for the first frame, which sees itself, as OptiX recommends.
        guided: Use albedo and normal.

    Returns:
        (H, W, 3) float32, and what to remember.

    Raises:
        LayoutError: ``albedo`` or ``normal`` is missing, or the frame before had another size.
        VariantError: There is no NVIDIA GPU, or no CUDA variant of Mitsuba is active.
    """
    before = buffers[PRIMAL] if previous is None else previous.image
    if before.shape != buffers[PRIMAL].shape:
        raise LayoutError(
            f"got a frame of shape {tuple(buffers[PRIMAL].shape)} after one of "
            f"{tuple(before.shape)}; call reset() where a sequence changes its size"
        )
    rest = torch.zeros_like(before[..., :2])
    flow = -buffers[MOTION] if MOTION in buffers else rest  # ours looks back, theirs forward
    image = _denoise(buffers, guided, {"flow": flow, "previous_denoised": before})
    return image, Previous(image)


def _denoise(
    buffers: FrameBuffers, guided: bool, temporal: Mapping[str, torch.Tensor]
) -> torch.Tensor:
    guides = _GUIDES if guided else ()
    if missing := [name for name in guides if name not in buffers]:
        raise LayoutError(
            f"optix needs the buffer(s) {', '.join(missing)}; there are: "
            f"{', '.join(buffers.names)}. Pass guided=False to denoise the primal alone"
        )
    import mitsuba as mi

    size = buffers.width, buffers.height
    denoiser = _denoiser(mi.variant(), *size, guided, bool(temporal))
    images = [_to_mitsuba(buffers[name]) for name in (PRIMAL, *guides)]
    words = {name: _to_mitsuba(image) for name, image in temporal.items()}
    return _to_torch(denoiser(*images, **words), buffers.device)


@functools.lru_cache(maxsize=4)
def _denoiser(variant: str, width: int, height: int, guided: bool, temporal: bool) -> Any:
    """Make the denoiser for a size; the object belongs to the active ``variant``."""
    import mitsuba as mi

    return mi.OptixDenoiser([width, height], albedo=guided, normals=guided, temporal=temporal)


def _to_mitsuba(image: torch.Tensor) -> Any:
    import mitsuba as mi

    image = image.detach().contiguous()
    if not image.is_cuda:
        return mi.TensorXf(image.numpy())
    torch.cuda.current_stream(image.device).synchronize()  # Dr.Jit does not wait for torch
    return mi.TensorXf(image)


def _to_torch(image: Any, device: torch.device) -> torch.Tensor:
    if device.type == "cpu":
        return torch.from_numpy(image.numpy())
    return torch.utils.dlpack.from_dlpack(image).to(device)
