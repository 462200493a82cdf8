"""The random transformations of E-LPIPS: how they are drawn and applied.

M. Kettunen et al., *E-LPIPS: Robust Perceptual Image Similarity via Random Transformation
Ensembles*, arXiv:1906.03973. One draw, in the order of application:

1. scale level s with probability proportional to 1/s^2: box-filtered s x s blocks, whose grid has a
   random origin;
2. offset by 0 to 7 pixels on both axes;
3. flip on none, one or both axes; 4. transposition;
5. permutation of the channels; 6. a factor between 0.2 and 1 on each channel.

Draws are stratified, as by the authors, but also over the draws of one image and also in scale and
transposition, of which the authors draw one per batch. Every single draw has the same
distribution, so the expected distance is the same; its variance is smaller.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from mitsuba_gdpt.errors import ConfigError

_MOST_LEVELS = 8  # the authors' default
_SIDE_PER_LEVEL = 64  # "crop size / levels should be at least 64"
_LEAST_FACTOR = 0.2
_PERMUTATIONS = torch.tensor(list(permutations(range(3))))


@dataclass(frozen=True)
class Ensemble:
    """Which transformations are drawn, and from what range.

    Attributes:
        scale_levels: Number of scale levels; None: the authors' rule, one per 64 pixels of the
            shorter side, and not more than their default of 8.
        offset: Largest offset, in pixels.
        flip: Whether to flip.
        transpose: Whether to transpose.
        permute: Whether to permute channels.
        factors: ``"color"``: a factor per channel; ``"brightness"``: one for all; ``"none"``.
        dropout: Probability with which each input value of each convolution is set to 0.
        mode: ``"exact"`` pads with reflected pixels where scale and offset leave the image;
            ``"fast"`` crops instead, so pixels near the border count less.

    Raises:
        ConfigError: A value makes no sense.
    """

    scale_levels: int | None = None
    offset: int = 7
    flip: bool = True
    transpose: bool = True
    permute: bool = True
    factors: Literal["color", "brightness", "none"] = "color"
    dropout: float = 0.01
    mode: Literal["exact", "fast"] = "exact"

    def __post_init__(self) -> None:
        if self.scale_levels is not None and self.scale_levels < 1:
            raise ConfigError(
                f"got scale_levels = {self.scale_levels}; expected 1 or more, or None"
            )
        if self.offset < 0:
            raise ConfigError(f"got offset = {self.offset}; expected 0 or more pixels")
        if self.factors not in ("color", "brightness", "none"):
            raise ConfigError(
                f"got factors = {self.factors!r}; expected 'color', 'brightness' or 'none'"
            )
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"got dropout = {self.dropout}; expected a value in [0, 1)")
        if self.mode not in ("exact", "fast"):
            raise ConfigError(f"got mode = {self.mode!r}; expected 'exact' or 'fast'")

    @classmethod
    def identity(cls) -> Ensemble:
        """Return the ensemble of one member that changes nothing."""
        return cls(1, 0, False, False, False, "none", 0.0)

    def levels(self, height: int, width: int) -> int:
        """Return the number of scale levels for an image size."""
        if self.scale_levels is not None:
            return self.scale_levels
        return max(1, min(_MOST_LEVELS, min(height, width) // _SIDE_PER_LEVEL))

    def side(self, side: int, level: int) -> int:
        """Return the length of a transformed side."""
        if self.mode == "exact":
            return -(-(side + level - 1) // level) + self.offset
        return (side - level + 1) // level - self.offset

    def draw(
        self, count: int, height: int, width: int, generator: torch.Generator | None = None
    ) -> Draws:
        """Draw a stratified set of transformations.

        Args:
            count: Number of draws M; strata are spread over them at random.
            height: Of the images, in pixels.
            width: Of the images, in pixels.
            generator: Of the CPU, so that draws do not depend on the device; None: torch's own.
        """

        def stratified() -> Tensor:
            u = (torch.arange(count) + torch.rand(count, generator=generator).double()) / count
            return u[torch.randperm(count, generator=generator)]

        def choice(among: int | Tensor) -> Tensor:
            return (stratified() * among).long()

        levels = torch.arange(1, self.levels(height, width) + 1)
        weight = 1 / levels.double() ** 2
        # The last bound must not fall below 1 by rounding; u itself is below 1.
        bounds = (weight.cumsum(0) / weight.sum())[:-1]
        level = 1 + torch.bucketize(stratified(), bounds, right=True)
        none = torch.zeros(count, dtype=torch.long)
        factor = torch.ones(count, 3, dtype=torch.float64)
        if self.factors == "brightness":
            factor *= stratified()[:, None]
        elif self.factors == "color":
            factor = torch.stack([stratified() for _ in range(3)], 1)
        if self.factors != "none":
            factor = _LEAST_FACTOR + (1 - _LEAST_FACTOR) * factor
        order = _PERMUTATIONS[choice(len(_PERMUTATIONS)) if self.permute else none]
        return Draws(
            level=level,
            origin=torch.stack([choice(level), choice(level)], 1),
            offset=torch.stack([choice(self.offset + 1), choice(self.offset + 1)], 1),
            flip=choice(4) if self.flip else none,
            transpose=choice(2) if self.transpose else none,
            color=torch.eye(3, dtype=torch.float64)[order] * factor[..., None],
        )

    def apply(self, images: Tensor, index: Tensor, draws: Draws) -> Tensor:
        """Transform images.

        Args:
            images: (N, 3, H, W).
            index: (M,) which image each draw is applied to.
            draws: M draws of one scale level that all transpose, or none of them; if H = W, both.

        Returns:
            (M, 3, h, w).
        """
        level = int(draws.level[0])
        if level > 1:
            images = torch.cat(
                [
                    self._downscale(images[i : i + 1], level, y, x)
                    for i, (y, x) in zip(index.tolist(), draws.origin.tolist(), strict=True)
                ]
            )
            index = torch.arange(len(index))
        if self.mode == "exact" and self.offset:
            # Padded on all sides at once; every draw then cuts out its own part.
            images = functional.pad(images, (self.offset,) * 4, mode="reflect")
        height, width = (size - self.offset for size in images.shape[2:])
        parts = []
        for i, (y, x), flip, transpose in zip(
            index.tolist(),
            draws.offset.tolist(),
            draws.flip.tolist(),
            draws.transpose.tolist(),
            strict=True,
        ):
            part = images[i, :, y : y + height, x : x + width]
            axes = [axis for bit, axis in ((1, 2), (2, 1)) if flip & bit]
            part = part.flip(axes) if axes else part
            parts.append(part.transpose(1, 2) if transpose else part)
        color = draws.color.to(device=images.device, dtype=images.dtype)
        return (color @ torch.stack(parts).flatten(2)).unflatten(2, parts[0].shape[1:])

    def _downscale(self, image: Tensor, level: int, y: int, x: int) -> Tensor:
        """Average (1, 3, H, W) over blocks of a grid that begins at, or before, (y, x)."""
        height, width = image.shape[2:]
        if self.mode == "exact":
            full = [-(-(side + level - 1) // level) * level for side in (height, width)]
            padding = (x, full[1] - width - x, y, full[0] - height - y)
            image = functional.pad(image, padding, mode="reflect")
        else:
            full = [(side - level + 1) // level * level for side in (height, width)]
            image = image[..., y : y + full[0], x : x + full[1]]
        return functional.avg_pool2d(image, level)


@dataclass(frozen=True, eq=False)
class Draws:
    """M draws, on the CPU.

    Attributes:
        level: (M,) scale level, 1 and up.
        origin: (M, 2) y, x of the block grid, 0 to level - 1.
        offset: (M, 2) y, x, in pixels of the scale level.
        flip: (M,) bit 1: left-right, bit 2: up-down.
        transpose: (M,) 0 or 1.
        color: (M, 3, 3) permutation times factors, applied from the left.
    """

    level: Tensor
    origin: Tensor
    offset: Tensor
    flip: Tensor
    transpose: Tensor
    color: Tensor

    def __getitem__(self, rows: Tensor) -> Draws:
        """Select some draws."""
        return Draws(**{name: value[rows] for name, value in vars(self).items()})
