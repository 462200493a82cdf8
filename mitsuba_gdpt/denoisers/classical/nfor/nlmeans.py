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
# Added to the variance, relative to the guide's mean square: without noise only equals are alike.
_LEAST_VARIANCE = 1e-12
_LARGEST_VARIANCE = 1e30  # twice as much must not be infinite


@dataclass(frozen=True)
class Tile:
    """The pixels [y, y + height) x [x, x + width) of an image."""

    y: int
    x: int
    height: int
    width: int

    def of(self, image: torch.Tensor, margin: int = 0) -> torch.Tensor:
        """View of the tile in an image (..., H, W).

        Args:
            image: All pixels, padded by ``margin`` on all sides.
            margin: So many pixels around the tile are in the view too.
        """
        rows = slice(self.y, self.y + self.height + 2 * margin)
        columns = slice(self.x, self.x + self.width + 2 * margin)
        return image[..., rows, columns]


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
        least = guide.double().square().mean() * _LEAST_VARIANCE
        least = least.clamp(torch.finfo(guide.dtype).tiny, _LARGEST_VARIANCE).to(guide.dtype)
        variance = (variance + least).clamp_max(_LARGEST_VARIANCE)
        self._guide = F.pad(guide, (margin,) * 4)
        self._variance = F.pad(variance, (margin,) * 4, value=1.0)

    def __call__(self, tile: Tile) -> torch.Tensor:
        """Compute the distances for the pixels of one tile.

        Returns:
            (n, n, h, w) with n = 2 window_radius + 1: distance >= 0 between pixel (y, x) and
            pixel (y + i - window_radius, x + j - window_radius); infinite where that is outside.
        """
        window, patch = self.window_radius, self.patch_radius
        n = 2 * window + 1
        rows, columns = tile.height + 2 * patch, tile.width + 2 * patch
        guide = tile.of(self._guide, window + patch)
        variance = tile.of(self._variance, window + patch)
        inner = slice(window, window + rows), slice(window, window + columns)
        guide_p, variance_p = guide[:, inner[0], inner[1]][:, None], variance[inner]
        both_y = self._both_inside(tile.y, rows, self.height, guide)
        both_x = self._both_inside(tile.x, columns, self.width, guide)
        count_y, count_x = _box(both_y, patch, -1), _box(both_x, patch, -1)
        result = guide.new_empty(n, n, tile.height, tile.width)
        for i in range(n):
            # All n shifts along x at once: one overlapping view instead of n small tensors.
            guide_q = guide[:, i : i + rows].unfold(-1, columns, 1).movedim(2, 1)
            variance_q = variance[i : i + rows].unfold(-1, columns, 1).movedim(1, 0)
            distance = _mean_square(guide_p, guide_q)
            distance -= torch.minimum(variance_p, variance_q).add_(variance_p)
            distance /= variance_p + variance_q
            distance.clamp_(max=_LARGEST_DISTANCE)
            distance *= both_y[i, :, None]
            distance *= both_x[:, None]
            total = _box(_box(distance, patch, -1), patch, -2)
            count = (count_y[i, :, None] * count_x[:, None]).clamp_min_(1)
            torch.div(total, count, out=result[i])
        result.clamp_(min=0)
        for both, shape in ((both_y, (n, 1, -1, 1)), (both_x, (1, n, 1, -1))):
            outside = both[:, patch : both.shape[1] - patch] == 0
            if bool(outside.any()):
                result.masked_fill_(outside.view(shape), torch.inf)
        return result

    def _both_inside(self, start: int, count: int, size: int, like: torch.Tensor) -> torch.Tensor:
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
    height, width = images.shape[-2:]
    for tile in tiles(height, width, tile_size, tile_size):
        weights = weights_of(distances(tile), bandwidth)
        source = tile.of(padded, window)
        total = torch.zeros_like(tile.of(images))
        for i in range(n):
            for j in range(n):
                shifted = source[:, i : i + tile.height, j : j + tile.width]
                total.addcmul_(weights[i, j], shifted)
        tile.of(result).copy_(total / weights.sum((0, 1)))
    return result


def weights_of(distances: torch.Tensor, bandwidth: float) -> torch.Tensor:
    """Turn distances into weights, 1 for the pixel itself and 0 outside of the image."""
    return distances.mul(-1 / bandwidth**2).exp_()


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
    total = values.narrow(dim, 0, length).clone()  # the width is odd: its last digit is 1
    start, span = 1, 2
    while span <= width:
        kept = values.shape[dim] - span // 2
        values = values.narrow(dim, 0, kept) + values.narrow(dim, span // 2, kept)
        if width & span:
            total += values.narrow(dim, start, length)
            start += span
        span *= 2
    return total
