r"""NL-means: weights from the similarity of patches, and filtering with them.

The distance of the patches around pixels :math:`p` and :math:`q` is the mean over the patch of

.. math:: \Delta(p, q) = \frac{\overline{(g_p - g_q)^2} - (v_p + \min(v_p, v_q))}{v_p + v_q}

with the guide image :math:`g` (mean over its channels) and the variance :math:`v` of one of its
channels; F. Rousselle et al., *Adaptive Rendering with Non-Local Means Filtering*, ACM TOG 31(6),
2012, section 4. The weight is :math:`\exp(-\max(0, d)/k^2)`: their bandwidth k scales the
denominator, which is the same.

Everything is planar, (C, H, W), and works on one tile of the image at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

_TILE = 64
# One pixel counts for no more than this in the distance of two patches: fireflies of zero
# estimated variance would otherwise exceed float32.
_LARGEST_DISTANCE = 1e4
# Of the variance, relative to the guide's mean square: where nothing varies, equal is equal.
_LEAST_VARIANCE = 1e-12


@dataclass(frozen=True)
class Tile:
    """The pixels [y, y + height) x [x, x + width) of an image."""

    y: int
    x: int
    height: int
    width: int

    @property
    def index(self) -> tuple[slice, slice]:
        """Index of the tile into the last two axes of an image."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    def grown(self, margin: int) -> tuple[slice, slice]:
        """Index of the tile with a margin, into an image that was padded by that margin."""
        return (
            slice(self.y, self.y + self.height + 2 * margin),
            slice(self.x, self.x + self.width + 2 * margin),
        )


def tiles(height: int, width: int, tile_height: int, tile_width: int) -> Iterator[Tile]:
    """Cut an image into tiles, row by row; those at the right and bottom may be smaller."""
    for y in range(0, height, tile_height):
        for x in range(0, width, tile_width):
            yield Tile(y, x, min(tile_height, height - y), min(tile_width, width - x))


class PatchDistances:
    """Distances of every pixel's patch to those in the window around it, tile by tile.

    Patches and windows are cut off at the image border: pairs of which one pixel lies outside
    count for nothing.
    """

    def __init__(
        self, guide: torch.Tensor, variance: torch.Tensor, patch_radius: int, window_radius: int
    ) -> None:
        """Prepare an image.

        Args:
            guide: (C, H, W) float32.
            variance: (H, W) variance of one channel of the guide, >= 0.
            patch_radius: A patch has (2 r + 1)^2 pixels.
            window_radius: A window has (2 r + 1)^2 pixels.
        """
        self.patch_radius, self.window_radius = patch_radius, window_radius
        self.height, self.width = guide.shape[-2:]
        margin = patch_radius + window_radius
        scale = guide.square().mean().clamp_min(torch.finfo(guide.dtype).tiny / _LEAST_VARIANCE)
        self._guide = F.pad(guide, (margin,) * 4)
        self._variance = F.pad(variance + scale * _LEAST_VARIANCE, (margin,) * 4, value=1.0)

    def __call__(self, tile: Tile) -> torch.Tensor:
        """Compute the distances for the pixels of one tile.

        Returns:
            (n, n, h, w) with n = 2 window_radius + 1: distance >= 0 between pixel (y, x) and
            pixel (y + i - window_radius, x + j - window_radius); infinite where that is outside.
        """
        window, patch = self.window_radius, self.patch_radius
        n = 2 * window + 1
        rows, columns = tile.height + 2 * patch, tile.width + 2 * patch
        guide = self._guide[(slice(None), *tile.grown(patch + window))]
        variance = self._variance[tile.grown(patch + window)]
        inner = slice(window, window + rows), slice(window, window + columns)
        guide_p, variance_p = guide[(slice(None), None, *inner)], variance[inner]
        inside_y = self._inside(tile.y, rows, self.height, guide)
        inside_x = self._inside(tile.x, columns, self.width, guide)
        count_x = _box(inside_x, patch, -1)
        result = guide.new_empty(n, n, tile.height, tile.width)
        for i in range(n):
            # All n shifts along x at once: one overlapping view instead of n small tensors.
            guide_q = guide[:, i : i + rows].unfold(-1, columns, 1).movedim(2, 1)
            variance_q = variance[i : i + rows].unfold(-1, columns, 1).movedim(1, 0)
            distance = _mean_square(guide_p, guide_q)
            distance -= torch.minimum(variance_p, variance_q).add_(variance_p)
            distance /= variance_p + variance_q
            distance.clamp_(max=_LARGEST_DISTANCE)
            distance *= inside_y[i, :, None]
            distance *= inside_x[:, None]
            total = _box(_box(distance, patch, -1), patch, -2)
            count = _box(inside_y[i], patch, -1)[:, None] * count_x[:, None]
            torch.div(total, count.clamp_min_(1), out=result[i])
        result.clamp_(min=0)
        centre_y = inside_y[:, patch : patch + tile.height] == 0
        centre_x = inside_x[:, patch : patch + tile.width] == 0
        if bool(centre_y.any()):
            result.masked_fill_(centre_y[:, None, :, None], torch.inf)
        if bool(centre_x.any()):
            result.masked_fill_(centre_x[None, :, None, :], torch.inf)
        return result

    def _inside(self, start: int, count: int, size: int, like: torch.Tensor) -> torch.Tensor:
        """(n, count): 1 where a coordinate and the one it is compared with are in the image."""
        window = self.window_radius
        p = torch.arange(count, device=like.device) + (start - self.patch_radius)
        q = p + torch.arange(-window, window + 1, device=like.device)[:, None]
        return ((p >= 0) & (p < size) & (q >= 0) & (q < size)).to(like.dtype)


def filter_images(
    images: torch.Tensor, distances: PatchDistances, bandwidth: float, tile_size: int = _TILE
) -> torch.Tensor:
    """Average each pixel's window with NL-means weights.

    Args:
        images: (C, H, W); need not be the guide of the distances ("cross filtering").
        distances: Of a guide of the same size.
        bandwidth: k above; larger smooths more.
        tile_size: Height and width of the tiles; changes nothing but memory and time.

    Returns:
        (C, H, W) float32.
    """
    window = distances.window_radius
    n = 2 * window + 1
    padded = F.pad(images, (window,) * 4)
    result = torch.empty_like(images)
    for tile in tiles(*images.shape[-2:], tile_size, tile_size):
        weights = weights_of(distances(tile), bandwidth)
        source = padded[(slice(None), *tile.grown(window))]
        total = torch.zeros_like(images[(slice(None), *tile.index)])
        for i in range(n):
            for j in range(n):
                shifted = source[:, i : i + tile.height, j : j + tile.width]
                total.addcmul_(weights[i, j], shifted)
        result[(slice(None), *tile.index)] = total / weights.sum((0, 1))
    return result


def weights_of(distances: torch.Tensor, bandwidth: float) -> torch.Tensor:
    """Turn distances into weights, 1 for the pixel itself and 0 outside of the image."""
    return distances.mul(-1 / bandwidth**2).exp_()


def box_mean(image: torch.Tensor, radius: int) -> torch.Tensor:
    """Average (H, W) over a box of (2 radius + 1)^2 pixels, which the image border cuts off."""
    stacked = F.pad(torch.stack([image, torch.ones_like(image)]), (radius,) * 4)
    total, count = _box(_box(stacked, radius, -1), radius, -2)
    return total / count


def _mean_square(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Mean over the first axis of the squared difference; a reduction would be slower."""
    difference = p[0] - q[0]
    total = difference * difference
    for channel in range(1, len(p)):
        torch.sub(p[channel], q[channel], out=difference)
        total.addcmul_(difference, difference)
    return total.div_(len(p))


def _box(values: torch.Tensor, radius: int, dim: int) -> torch.Tensor:
    """Sum over 2 radius + 1 neighbours along one axis, which shrinks by 2 radius.

    Sums of 1, 2, 4, ... neighbours are combined as the binary digits of the width say.
    """
    width, length = 2 * radius + 1, values.shape[dim] - 2 * radius
    total, start, span = None, 0, 1
    while True:
        if width & span:
            part = values.narrow(dim, start, length)
            total = part.clone() if total is None else total.add_(part)
            start += span
        if 2 * span > width:
            return total
        kept = values.shape[dim] - span
        values = values.narrow(dim, 0, kept) + values.narrow(dim, span, kept)
        span *= 2
