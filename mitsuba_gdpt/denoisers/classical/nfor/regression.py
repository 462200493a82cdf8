r"""First-order regression of colour on features in the window of every pixel, collaboratively.

For each pixel :math:`p` the colours :math:`c_q` of its window are fitted by a linear function of
the features :math:`f_q`, in weighted least squares with the NL-means weights :math:`w_{pq}`. The
fit predicts *all* pixels of the window, and a pixel's result is the average of the predictions of
all windows that it belongs to, with the same weights; B. Bitterli et al., *Nonlinearly Weighted
First-order Regression for Denoising Monte Carlo Renderings*, CGF 35(4), 2016, section 5.2.

Both the sums over windows that the normal equations consist of (moments) and those of the
predictions are matrix products with the weights: in a tile, the weights of the pixels of one row
form a banded matrix against the pixels of the rows that their windows touch. More than half of its
entries are zeros, and still this takes half the time of adding up shifted images on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812

from mitsuba_gdpt import progress
from mitsuba_gdpt.denoisers.classical.nfor.nlmeans import PatchDistances, Tile, tiles, weights_of

#: Height and width of tiles. Narrow ones make for fewer zeros in :class:`BandedWeights`.
TILE = (48, 24)
#: Added to the diagonal of the normal equations, which hold sums over the window of squared
#: features of order 1: directions in which the features hardly vary get slope 0.
RIDGE = 1e-3


def regress(
    colour: torch.Tensor,
    features: torch.Tensor,
    distances: PatchDistances,
    bandwidths: Sequence[float],
    *,
    ridge: float = RIDGE,
    tile_size: tuple[int, int] = TILE,
) -> list[torch.Tensor]:
    """Denoise an image by collaborative first-order regression.

    Args:
        colour: (3, H, W) float32 noisy image.
        features: (D, H, W) float32, of order 1. Pixel coordinates are added to them.
        distances: Of the guide that the weights come from, best one with independent noise.
        bandwidths: Bandwidths k of the weights.
        ridge: See :data:`RIDGE`.
        tile_size: Height and width of tiles; changes nothing but memory and time.

    Returns:
        One (3, H, W) float32 image for each bandwidth.
    """
    height, width = colour.shape[-2:]
    window = distances.window_radius
    padding = (window,) * 4
    colour_padded, features_padded = F.pad(colour, padding), F.pad(features, padding)
    inside = F.pad(colour.new_ones(1, height, width), padding)
    # Sums of predictions and of their weights; the margin receives nothing but zero weights.
    sums = [
        colour.new_zeros(len(colour) + 1, height + 2 * window, width + 2 * window)
        for _ in bandwidths
    ]
    parts = list(tiles(height, width, *tile_size))
    with progress.task("regressing", total=len(parts)) as task:
        for tile in parts:
            design = _design(tile.of(features_padded, window), tile.of(inside, window), window)
            products = _products(design, tile.of(colour_padded, window))
            found = distances(tile)
            for total, bandwidth in zip(sums, bandwidths, strict=True):
                weights = BandedWeights(weights_of(found, bandwidth))
                slopes = _solve(weights.gather(products), design.shape[-1], ridge)
                tile.of(total, window).add_(_predict(weights.scatter(slopes), design))
            task.advance()
    sums = [Tile(window, window, height, width).of(total) for total in sums]
    return [total[:-1] / total[-1:] for total in sums]


class BandedWeights:
    """The weights of a tile's pixels as one matrix per row of pixels.

    Row ``x`` of the matrix of pixel row ``y`` has an entry for every pixel of the image rows
    y - r .. y + r, from the left to the right end of the tile with its margin r.
    """

    def __init__(self, weights: torch.Tensor) -> None:
        """Spread (n, n, h, w) weights of window offsets (y, x) into the matrices."""
        n, _, height, width = weights.shape
        span = width + n - 1
        # Double precision: the moments are sums of products, of which differences are taken.
        matrix = weights.new_zeros(height, width, n, span, dtype=torch.float64)
        strides = (width * n * span, n * span + 1, span, 1)  # one step to the right per pixel
        matrix.as_strided((height, width, n, n), strides).copy_(weights.permute(2, 3, 0, 1))
        self._matrix = matrix.view(height, width, n * span)
        self._n, self._span = n, span

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Sum values over windows: (h + n - 1, w + n - 1, C) float64 to (h, w, C)."""
        height, count = len(self._matrix), values.shape[-1]
        row = self._span * count
        windows = values.contiguous().as_strided(
            (height, self._n * self._span, count), (row, count, 1)
        )
        return torch.bmm(self._matrix, windows)

    def scatter(self, values: torch.Tensor) -> torch.Tensor:
        """Spread values to windows: (h, w, C) float64 to (h + n - 1, w + n - 1, C)."""
        height, _, count = values.shape
        spread = torch.bmm(self._matrix.transpose(1, 2), values)
        spread = spread.view(height, self._n, self._span, count)
        result = values.new_zeros(height + self._n - 1, self._span, count)
        for offset in range(self._n):
            result[offset : offset + height] += spread[:, offset]
        return result


def _design(features: torch.Tensor, inside: torch.Tensor, window: int) -> torch.Tensor:
    """Put together what colours are regressed on, of the pixels of a tile and its margin.

    Constant, coordinates and features become (h, w, D) float64. Coordinates and features have a
    mean of about 0: the fit is the same, but loses fewer digits.
    """
    height, width = features.shape[-2:]
    y = torch.arange(height, dtype=torch.float64, device=features.device) - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64, device=features.device) - (width - 1) / 2
    mean = (features.double() * inside).sum((1, 2), keepdim=True) / inside.sum()
    planes = [
        torch.ones_like(inside, dtype=torch.float64),
        (y / window)[:, None].expand(1, height, width),
        (x / window).expand(1, height, width),
        features - mean,
    ]
    return torch.cat(planes).permute(1, 2, 0)


def _products(design: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """Products that the normal equations sum up: design × design (upper triangle), then × colour.

    (h, w, D) and (C, h, w) to (h, w, D (D + 1) / 2 + D C).
    """
    count = design.shape[-1]
    i, j = torch.triu_indices(count, count, device=design.device)
    mixed = design[..., None] * colour.permute(1, 2, 0)[..., None, :]
    return torch.cat([design[..., i] * design[..., j], mixed.flatten(-2)], -1)


def _solve(moments: torch.Tensor, count: int, ridge: float) -> torch.Tensor:
    """Solve the normal equations of all pixels.

    An LDLᵀ factorisation of all matrices at once: LAPACK would take them one by one. The matrices
    are positive semidefinite, the ridge makes them definite.

    Args:
        moments: (h, w, ...) sums over windows of what :func:`_products` returns.
        count: D, number of columns of the design.
        ridge: Added to the diagonal, but for the constant.

    Returns:
        (h, w, D C + 1) coefficients, constant first, and a 1 for the sum of weights.
    """
    height, width, _ = moments.shape
    planes = moments.permute(2, 0, 1).contiguous()
    i, j = torch.triu_indices(count, count, device=moments.device)
    matrix = planes.new_empty(count, count, height, width)
    matrix[i, j] = matrix[j, i] = planes[: len(i)]
    matrix.diagonal().permute(2, 0, 1)[1:] += ridge
    right = planes[len(i) :].view(count, -1, height, width)
    for k in range(count):
        factor = matrix[k + 1 :, k] / matrix[k, k]
        matrix[k + 1 :, k + 1 :] -= factor[:, None] * matrix[k, k + 1 :]
        right[k + 1 :] -= factor[:, None] * right[k]
    for k in reversed(range(count)):
        right[k] -= (matrix[k, k + 1 :, None] * right[k + 1 :]).sum(0)
        right[k] /= matrix[k, k]
    ones = torch.ones_like(planes[:1])
    return torch.cat([right.flatten(0, 1), ones]).permute(1, 2, 0)


def _predict(coefficients: torch.Tensor, design: torch.Tensor) -> torch.Tensor:
    """Evaluate sums of linear models: (h, w, D C + 1) to (C + 1, h, w), weights last."""
    height, width, count = design.shape
    slopes = coefficients[..., :-1].view(height, width, count, -1)
    colours = (design[..., None] * slopes).sum(-2)
    return torch.cat([colours, coefficients[..., -1:]], -1).permute(2, 0, 1)
