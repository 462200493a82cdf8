"""E-LPIPS: LPIPS averaged over random transformations and dropout, which makes it hard to fool.

M. Kettunen et al., arXiv:1906.03973; the variant with SqueezeNet and its max pooling kept, and with
the channel weights that the authors trained for it. Of the transformations, see
:mod:`~mitsuba_gdpt.metrics.ensemble`.

The value is a Monte-Carlo estimate, so it comes with a standard error. Draws come in sets: inside a
set they are stratified, sets are independent of each other, and the standard error is that of the
mean over sets. (The spread of single draws would overstate it, as it ignores the stratification.)

The module :class:`ELPIPS` takes display values, for training; the functions and the accumulator
take linear images as all other metrics do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from mitsuba_gdpt.errors import ConfigError, LayoutError
from mitsuba_gdpt.metrics.accumulator import Accumulator
from mitsuba_gdpt.metrics.backbones import Perturbation, SqueezeNet
from mitsuba_gdpt.metrics.ensemble import Ensemble
from mitsuba_gdpt.metrics.images import Reference, pair
from mitsuba_gdpt.metrics.lpips_distance import FeatureDistance, Folder, require_side, stacked
from mitsuba_gdpt.metrics.structural import displayed_pair
from mitsuba_gdpt.metrics.weights import find_folder, load_features, load_heads

#: Draws per image in evaluation; the authors' scripts use as many.
EVALUATION_DRAWS = 200

Domain = Literal["display", "linear"]

_HEADS = "elpips.squeeze_full_maxpool"
_MOST_SETS = 20  # enough to estimate a standard error from; more would stratify less
_BATCH_PIXELS = {"cpu": 2**18, "cuda": 2**22}  # transformed pixels per pass: memory, and CPU caches
_SEEDS = 2**62


class Estimate(NamedTuple):
    """A Monte-Carlo estimate and its standard error (None: fewer than two independent sets)."""

    value: Tensor
    standard_error: Tensor | None


class ELPIPS(FeatureDistance):
    """E-LPIPS as a frozen, differentiable module on display values.

    NGPT trains with ``ELPIPS(draws=3, ensemble=Ensemble(scale_levels=2, mode="fast"))`` on
    ``srgb(reinhard(x).clamp(min=0))``.

    Args:
        draws: Draws per image and call; 1 to 3 in training.
        ensemble: The transformations.
        weights: Folder of weights; see :mod:`mitsuba_gdpt.metrics.weights`.

    Raises:
        ConfigError: ``draws`` is not positive.
        WeightsError: The weights are missing or damaged.
    """

    def __init__(
        self,
        *,
        draws: int = 1,
        ensemble: Ensemble | None = None,
        weights: Folder = None,
    ) -> None:
        if draws < 1:
            raise ConfigError(f"got draws = {draws}; expected 1 or more")
        folder = find_folder(weights)
        backbone = SqueezeNet(every_layer=True)
        load_features(backbone, "squeeze", folder)
        super().__init__(backbone, load_heads(_HEADS, backbone.channels, folder))
        self.draws = draws
        self.ensemble = ensemble or Ensemble()

    def forward(
        self, image: Tensor, reference: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Estimate the distances of a batch; see :meth:`sets`.

        Returns:
            (N,) means over draws; 0 for identical images, larger is worse.
        """
        return self.sets(image, reference, generator=generator).mean(0)

    def estimate(
        self, image: Tensor, reference: Tensor, *, generator: torch.Generator | None = None
    ) -> Estimate:
        """Estimate the distances of a batch and their standard errors, (N,) each."""
        return _mean_over_sets(self.sets(image, reference, generator=generator))

    def sets(
        self, image: Tensor, reference: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the mean distance of each independent set of draws.

        Draws are stratified over all draws of a set and all images of the batch. NaN is passed
        on, not looked for: that would make a GPU wait in every training step.

        Args:
            image: (N, H, W, 3) display values, nominally in [0, 1].
            reference: Of the same shape. Both get the same transformations and dropout masks.
            generator: On the CPU, whatever the images are on; None: torch's own. With a seeded
                one, results are reproducible on each kind of device.

        Returns:
            (S, N), with S = min(draws, 20) sets. Each row's expectation is the metric.

        Raises:
            LayoutError: Shapes are wrong, differ, or are too small for the ensemble.
        """
        pairs = stacked(image, reference)
        count, (height, width) = len(image), image.shape[1:3]
        self._require_size(image)
        sizes = _split(self.draws, min(self.draws, _MOST_SETS))
        drawn = [
            self.ensemble.draw(count * size, height, width, generator=generator) for size in sizes
        ]
        draws = type(drawn[0])(
            **{name: torch.cat([getattr(d, name) for d in drawn]) for name in vars(drawn[0])}
        )
        who = torch.cat([torch.arange(count).repeat(size) for size in sizes])
        which = torch.cat([torch.full((count * size,), i) for i, size in enumerate(sizes)])
        share = torch.cat([torch.full((count * size,), 1 / size) for size in sizes])
        perturb = self._dropout(pairs.device, generator)

        rows, values = [], []
        for batch in self._batches(draws.level, draws.transpose, height, width):
            part = draws[batch]
            transformed = torch.cat(
                [
                    self.ensemble.apply(pairs[:count], who[batch], part),
                    self.ensemble.apply(pairs[count:], who[batch], part),
                ]
            )
            values.append(self.distance(transformed, perturb))
            rows.append(batch)
        order = torch.cat(rows)
        weighted = torch.cat(values) * share[order].to(pairs)
        target = (which[order] * count + who[order]).to(pairs.device)
        total = weighted.new_zeros(len(sizes) * count).index_add(0, target, weighted)
        return total.unflatten(0, (len(sizes), count))

    def _batches(
        self, level: Tensor, transpose: Tensor, height: int, width: int
    ) -> Iterator[Tensor]:
        """Group draws whose results have one shape, and few enough of them."""
        most = _BATCH_PIXELS.get(self.get_buffer("shift").device.type, _BATCH_PIXELS["cpu"])
        shape = level if height == width else 2 * level + transpose
        for key in shape.unique().tolist():
            rows = (shape == key).nonzero()[:, 0]
            one = int(level[rows[0]])
            pixels = self.ensemble.side(height, one) * self.ensemble.side(width, one)
            yield from rows.split(max(1, most // pixels))

    def _dropout(
        self, device: torch.device, generator: torch.Generator | None
    ) -> Perturbation | None:
        """Make a function that masks the two halves of a batch alike, differently at each call."""
        if not self.ensemble.dropout:
            return None
        keep = 1 - self.ensemble.dropout
        masks = torch.Generator(device)
        masks.manual_seed(int(torch.randint(_SEEDS, (), generator=generator)))

        def drop(x: Tensor) -> Tensor:
            # In the layout of x, for speed: channels last.
            mask = x.new_empty((len(x) // 2, *x.shape[2:], x.shape[1]))
            mask = mask.bernoulli_(keep, generator=masks).div_(keep).movedim(-1, 1)
            return (x.unflatten(0, (2, -1)) * mask).flatten(0, 1)

        return drop

    def _require_size(self, image: Tensor) -> None:
        height, width = image.shape[1:3]
        shorter, ensemble = min(height, width), self.ensemble
        for level in range(1, ensemble.levels(height, width) + 1):
            side = ensemble.side(shorter, level)
            require_side(side, self.backbone.least_side, image)
            # Reflection cannot reach further than the opposite border.
            if ensemble.mode == "exact" and side - ensemble.offset <= ensemble.offset:
                raise LayoutError(
                    f"got images of {height} x {width} pixels; at scale level {level} they are "
                    f"smaller than the offset of {ensemble.offset}. Use fewer scale levels"
                )


def elpips(
    image: Tensor,
    reference: Tensor | Reference,
    *,
    draws: int = EVALUATION_DRAWS,
    seed: int = 0,
    domain: Domain = "display",
    ensemble: Ensemble | None = None,
    weights: Folder = None,
) -> Tensor:
    """E-LPIPS of the displayed image; see :func:`elpips_estimate` for arguments and errors.

    Returns:
        Scalar; mean over the batch. Differentiable.
    """
    return elpips_estimate(
        image,
        reference,
        draws=draws,
        seed=seed,
        domain=domain,
        ensemble=ensemble,
        weights=weights,
    ).value


def elpips_estimate(
    image: Tensor,
    reference: Tensor | Reference,
    *,
    draws: int = EVALUATION_DRAWS,
    seed: int = 0,
    domain: Domain = "display",
    ensemble: Ensemble | None = None,
    weights: Folder = None,
) -> Estimate:
    """E-LPIPS with the standard error of its Monte-Carlo estimate.

    The i-th image of a batch (or of an accumulator) is given the draws of seed + i, whatever method
    it comes from: images compared with the same reference share them, so their difference is known
    better than either value.

    Args:
        image: (H, W, 3) or (N, H, W, 3), scene-linear, non-negative.
        reference: Of the same shape; of halves, the mean is used.
        draws: Per image.
        seed: Of the draws.
        domain: ``"display"``: :func:`~.images.encode_display`. ``"linear"``: radiance as it is, as
            NGPT's evaluation scripts do; then negative values are accepted.
        ensemble: The transformations; default: all, ``"exact"``.
        weights: Folder of weights; see :mod:`mitsuba_gdpt.metrics.weights`.

    Returns:
        Scalars: the mean over the batch and its standard error.

    Raises:
        LayoutError: Shapes are wrong, differ, or are too small for the ensemble.
        ConfigError: Dtypes or devices are wrong or differ, a value is negative, or another
            argument makes no sense.
        NonFiniteError: A value is NaN or infinite.
        WeightsError: The weights are missing or damaged.
    """
    settings = _Settings(draws, seed, domain, ensemble or Ensemble(), weights)
    values, errors = _elpips_update(image, reference, settings)
    return Estimate(values.mean(), None if errors is None else _pooled(errors))


class MeanELPIPS(Accumulator):
    """Mean over images of :func:`elpips`, with the standard error of the draws."""

    def __init__(
        self,
        *,
        draws: int = EVALUATION_DRAWS,
        seed: int = 0,
        domain: Domain = "display",
        ensemble: Ensemble | None = None,
        weights: Folder = None,
    ) -> None:
        """Choose the arguments of :func:`elpips_estimate`."""
        super().__init__()
        self.settings = _Settings(draws, seed, domain, ensemble or Ensemble(), weights)

    def reset(self) -> None:
        """Forget everything; draws begin again with the seed."""
        super().reset()
        self._variance: float | None = 0.0

    def merge(self, other: MeanELPIPS) -> None:
        """Add what another one has seen, with another seed; see :meth:`Accumulator.merge`."""
        super().merge(other)
        both = self._variance is not None and other._variance is not None
        self._variance = self._variance + other._variance if both else None  # type: ignore[operator]

    @property
    def standard_error(self) -> float | None:
        """Standard error of the mean; None with fewer than two draws per image."""
        if self._variance is None or not self._count:
            return None
        return math.sqrt(self._variance) / self._count

    def _update(self, image: Tensor, reference: Tensor | Reference) -> Tensor:
        settings = self.settings._replace(seed=self.settings.seed + self._count)
        values, errors = _elpips_update(image, reference, settings)
        if errors is None:
            self._variance = None
        elif self._variance is not None:
            self._variance += float(errors.square().sum(dtype=torch.float64))
        return values


class _Settings(NamedTuple):
    draws: int
    seed: int
    domain: Domain
    ensemble: Ensemble
    weights: Folder


@lru_cache(maxsize=4)
def _module(draws: int, ensemble: Ensemble, folder: str, device: str, dtype: torch.dtype) -> ELPIPS:
    module = ELPIPS(draws=draws, ensemble=ensemble, weights=folder)
    return module.to(device=device, dtype=dtype)


def _elpips_update(
    image: Tensor, reference: Tensor | Reference, settings: _Settings
) -> tuple[Tensor, Tensor | None]:
    """Return value and standard error per image, (N,) each."""
    if settings.domain not in ("display", "linear"):
        raise ConfigError(f"got domain {settings.domain!r}; expected 'display' or 'linear'")
    if settings.domain == "display":
        images, targets = displayed_pair(image, reference)
    else:
        images, references = pair(image, reference)
        targets = references.mean
    folder = str(find_folder(settings.weights).resolve())
    module = _module(settings.draws, settings.ensemble, folder, str(images.device), images.dtype)
    estimates = []
    for i in range(len(images)):
        generator = torch.Generator().manual_seed(settings.seed + i)
        estimates.append(
            module.estimate(images[i : i + 1], targets[i : i + 1], generator=generator)
        )
    values = torch.cat([estimate.value for estimate in estimates])
    errors = [e.standard_error for e in estimates if e.standard_error is not None]
    return values, torch.cat(errors) if errors else None


def _mean_over_sets(sets: Tensor) -> Estimate:
    count = len(sets)
    if count < 2:
        return Estimate(sets.mean(0), None)
    return Estimate(sets.mean(0), sets.detach().std(0) / math.sqrt(count))


def _pooled(errors: Tensor) -> Tensor:
    """Standard error of the mean of independent estimates."""
    return errors.square().sum().sqrt() / len(errors)


def _split(total: int, parts: int) -> list[int]:
    """Split a number into parts that differ by one at most."""
    return [total // parts + (i < total % parts) for i in range(parts)]
