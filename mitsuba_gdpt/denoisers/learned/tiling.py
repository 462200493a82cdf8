"""Inference on frames that do not fit into memory at once: overlapping tiles, the same result."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from mitsuba_gdpt.errors import ConfigError

#: Bytes of activations that inference may use unless told otherwise.
DEFAULT_MEMORY = 2 << 30


def tile_size(bytes_per_pixel: float, alignment: int, radius: int, memory: float) -> int:
    """Return the largest side of a square tile, overlap included, that stays within a budget.

    Raises:
        ConfigError: Not even the overlap fits, or the budget is no number above 0.
    """
    if not 0 < memory < math.inf:
        raise ConfigError(f"memory is {memory}; expected a number of bytes > 0")
    side = int((memory / bytes_per_pixel) ** 0.5) // alignment * alignment
    if side <= 2 * overlap(alignment, radius):
        least = (2 * overlap(alignment, radius) + alignment) ** 2 * bytes_per_pixel
        raise ConfigError(
            f"a memory budget of {memory / 2**20:.0f} MiB is too small for this network; it needs "
            f"{least / 2**20:.0f} MiB or more"
        )
    return side


def overlap(alignment: int, radius: int) -> int:
    """Return how far a tile has to reach beyond the pixels that are kept of it."""
    return -(-radius // alignment) * alignment


def run_tiled(
    function: Callable[..., torch.Tensor],
    *inputs: torch.Tensor,
    alignment: int,
    radius: int,
    side: int,
) -> torch.Tensor:
    """Apply a local function tile by tile.

    The result equals ``function(*inputs)`` up to rounding: each tile reaches ``radius`` pixels
    beyond what is kept of it, and starts at a multiple of ``alignment``.

    Args:
        function: (N, H, W, C), ... to (N, H, W, c), where H and W are multiples of ``alignment``,
            but for what ends where the inputs do.
        inputs: (N, H, W, C) each. Tiles of contiguous ones are contiguous.
        alignment: Phase of the function: the factor of its pooling.
        radius: How far an input pixel can influence the output.
        side: Most rows and columns of a tile, overlap included; a multiple of ``alignment``.
    """
    height, width = inputs[0].shape[1:3]
    if max(height, width) <= side:
        return function(*inputs)
    reach = overlap(alignment, radius)
    result: torch.Tensor | None = None
    for top, bottom, kept_rows in _spans(height, side, reach):
        for left, right, kept_columns in _spans(width, side, reach):
            parts = [x[:, top:bottom, left:right] for x in inputs]
            tile = function(
                *(
                    part.contiguous() if x.is_contiguous() else part
                    for part, x in zip(parts, inputs, strict=True)
                )
            )
            if result is None:
                result = _frame_like(tile, height, width)
            first, last = kept_rows
            start, stop = kept_columns
            result[:, first:last, start:stop] = tile[
                :, first - top : last - top, start - left : stop - left
            ]
    assert result is not None
    return result


def _frame_like(tile: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return memory for a whole frame, with the channels where the tile has them."""
    n, *_, channels = tile.shape
    if tile.is_contiguous():
        return tile.new_empty(n, height, width, channels)
    return tile.new_empty(n, channels, height, width).permute(0, 2, 3, 1)


def _spans(length: int, side: int, reach: int) -> list[tuple[int, int, tuple[int, int]]]:
    """Cut an axis into tiles: (first, last, (first kept, last kept)), ends exclusive."""
    if length <= side:
        return [(0, length, (0, length))]
    step = side - 2 * reach
    spans = []
    for kept in range(0, length, step):
        end = min(kept + step, length)
        spans.append((max(kept - reach, 0), min(end + reach, length), (kept, end)))
    return spans
