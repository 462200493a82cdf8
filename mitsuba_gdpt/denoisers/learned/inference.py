"""How a trained model runs on frames: its guides, its precision, tiles."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.denoisers import registry
from mitsuba_gdpt.denoisers.learned import tiling
from mitsuba_gdpt.denoisers.learned.model import Model, autocast
from mitsuba_gdpt.denoisers.learned.recurrent import RecurrentModel, State
from mitsuba_gdpt.errors import ConfigError


def reconstruct(
    model: Model,
    buffers: FrameBuffers,
    *,
    precision: str = "auto",
    memory: float = tiling.DEFAULT_MEMORY,
    guides: Sequence[registry.Call] | None = None,
) -> torch.Tensor:
    """Apply a model to one frame, running the methods whose images it needs first.

    Args:
        model: On the buffers' device.
        buffers: The frame; what the model reads of it has to be finite.
        precision: See :func:`mitsuba_gdpt.denoisers.learned.model.autocast`.
        memory: Bytes of activations; larger frames are worked on in tiles, with the same result.
        guides: Methods whose images it gets instead of those that it names, in the same order.

    Returns:
        (H, W, 3) float32 radiance.

    Raises:
        LayoutError: A buffer that the model needs is missing.
    """
    images = guide_images(model.guides if guides is None else guides, buffers)
    with torch.no_grad(), autocast(precision, buffers.device):
        image = model(buffers.data[None], buffers.layout, images[None], memory=memory)
    return image[0].float().contiguous()


def step(
    model: Model,
    buffers: FrameBuffers,
    state: State | None = None,
    *,
    precision: str = "auto",
) -> tuple[torch.Tensor, State]:
    """Apply a recurrent model to the next frame, running the methods whose images it needs first.

    A function of its arguments alone: the same frame after the same state gives the same image.

    Args:
        model: On the buffers' device.
        buffers: The frame.
        state: What the frame before left; None for the first, and after a scene cut.
        precision: See :func:`mitsuba_gdpt.denoisers.learned.model.autocast`.

    Returns:
        (H, W, 3) float32 radiance, and the state for the next frame.

    Raises:
        ConfigError: The weights are those of a method that is not recurrent.
        LayoutError: A buffer is missing, or the state is that of another size.
    """
    if not isinstance(model, RecurrentModel):
        raise ConfigError(
            f"got a {type(model).__name__}, which has no state; expected weights of a recurrent "
            f"model, as those of rdae"
        )
    guides = guide_images(model.guides, buffers)
    with torch.no_grad(), autocast(precision, buffers.device):
        image, state = model.step(buffers.data[None], buffers.layout, guides[None], state)
    return image[0].float().contiguous(), state


def guide_images(calls: Sequence[registry.Call | str], buffers: FrameBuffers) -> torch.Tensor:
    """Run other methods on the same buffers, which are known to have what these need, finite.

    Args:
        calls: As for :meth:`~mitsuba_gdpt.denoisers.registry.Call.parse`.
        buffers: The frame.

    Returns:
        (G, H, W, 3) radiance, one image per call.
    """
    if not calls:
        return buffers.data.new_empty(0, buffers.height, buffers.width, 3)
    with torch.no_grad():
        return torch.stack([registry.Call.parse(call).within(buffers) for call in calls])
