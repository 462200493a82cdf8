"""Arrays of any library as torch tensors, without copies where possible, and back.

No Mitsuba variant has to be known, and neither Mitsuba nor Dr.Jit is imported.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.utils.dlpack

from mitsuba_gdpt.errors import LayoutError, MissingDependencyError

_DLPACK_CPU, _DLPACK_CUDA = 1, 2  # kDLCPU and kDLCUDA of the DLPack standard


def as_tensor(source: Any) -> torch.Tensor:
    """View an array as a torch tensor of the same type, without copying where possible.

    Args:
        source: Mitsuba ``TensorXf``, torch tensor or NumPy array.

    Raises:
        LayoutError: The source is of another kind, or does not hold all of its values.
        MissingDependencyError: It lives on a GPU and torch was built without CUDA.
    """
    if isinstance(source, torch.Tensor):
        if source.layout != torch.strided or source.is_meta:
            where = "meta" if source.is_meta else str(source.layout)
            raise LayoutError(f"got a {where} tensor; expected one with all of its values")
        return source
    if isinstance(source, np.ndarray):
        if isinstance(source, np.ma.MaskedArray) and (hidden := np.ma.count_masked(source)):
            raise LayoutError(
                f"got a masked array with {hidden} hidden values; expected all of them, as of "
                "array.filled(0)"
            )
        return _from_numpy(source)
    if is_drjit_tensor(source):
        return from_drjit(source)
    raise LayoutError(
        f"got an object of type {type(source).__module__}.{type(source).__qualname__}; expected a "
        f"Mitsuba TensorXf, FrameBuffers, a torch tensor, a NumPy array or an mi.Bitmap"
    )


def same_kind(image: torch.Tensor, source: Any) -> Any:
    """Convert an (H, W, 3) float32 tensor to the type of ``source``, without copying if possible.

    What is no array, as the path of a file, gets the tensor itself.
    """
    if isinstance(source, torch.Tensor):
        return image.to(source.dtype)
    if isinstance(source, np.ndarray):
        return image.numpy().astype(source.dtype, copy=False)
    if is_bitmap(source):
        kind = type(source)
        return kind(image.numpy(), kind.PixelFormat.RGB)
    if not is_drjit_tensor(source):
        return image
    if image.is_cuda:  # Dr.Jit does not wait for torch's stream
        torch.cuda.current_stream(image.device).synchronize()
    if not _shares_memory(source):
        return type(source)(image.cpu().numpy())
    return type(source)(image.to(torch.utils.dlpack.from_dlpack(source).dtype))


def is_bitmap(source: object) -> bool:
    """Tell whether an object is an ``mi.Bitmap``, without importing Mitsuba."""
    return type(source).__name__ == "Bitmap" and hasattr(source, "struct_")


def is_drjit_tensor(source: object) -> bool:
    """Tell whether an object is a tensor of any Dr.Jit backend, without importing Dr.Jit."""
    return type(source).__module__.startswith("drjit") and hasattr(source, "__dlpack__")


def bitmap_values(bitmap: Any) -> torch.Tensor:
    """Return the values of an ``mi.Bitmap``, (H, W, C) float32.

    Raises:
        LayoutError: They are integers, or not linear.
    """
    array = np.array(bitmap, copy=False)
    if array.dtype.kind != "f" or bitmap.srgb_gamma():
        raise LayoutError(
            f"got a bitmap of {array.dtype} components (sRGB-encoded: {bitmap.srgb_gamma()}); "
            f"expected linear floating point values"
        )
    array = array[..., None] if array.ndim == 2 else array
    return _from_numpy(array).to(torch.float32)


def from_drjit(tensor: Any) -> torch.Tensor:
    """Share memory with a Dr.Jit tensor, or copy what torch cannot address (that of Metal).

    Raises:
        MissingDependencyError: It lives on a GPU and torch was built without CUDA.
    """
    if not _shares_memory(tensor):
        return torch.from_numpy(tensor.numpy())
    if tensor.__dlpack_device__()[0] == _DLPACK_CUDA and not torch.cuda.is_available():
        raise MissingDependencyError(
            "the render output is in GPU memory, but this torch has no CUDA support; install "
            "a CUDA build of torch, or render with an llvm_* variant"
        )
    return torch.utils.dlpack.from_dlpack(tensor)


def _shares_memory(tensor: Any) -> bool:
    return tensor.__dlpack_device__()[0] in (_DLPACK_CPU, _DLPACK_CUDA)


def _from_numpy(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """Share memory with an array where torch can: writable, native order, no negative strides."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)
