r"""``ngpt-fusion``: the method ``oidn-fusion`` with weights that a network predicts.

What :mod:`mitsuba_gdpt.denoisers.classical.fusion` derives from the variance of a gradient alone,
this model derives from all that speaks for or against it: the noise around it, how far it
contradicts the guide's image, what albedo, normal and depth do there. Noise is what contradicts
itself in the buffers (:mod:`mitsuba_gdpt.denoisers.variances`): variances need not be rendered.
Networks that saw rendered ones besides, or instead, were no better. The network returns logarithms
of factors on the weights, nothing else: wherever it is wrong, the result is still a fusion of two
good sources.

All inputs are relative to the brightness of the guide's image, so the exposure does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from mitsuba_gdpt.channels import DIFFERENCE_AXES, PRIMAL, Layout
from mitsuba_gdpt.denoisers.classical import fusion
from mitsuba_gdpt.denoisers.images import (
    difference,
    exposure_scale,
    mean_depth,
    mean_square,
    planar,
    window_mean,
)
from mitsuba_gdpt.denoisers.learned.features import require
from mitsuba_gdpt.denoisers.learned.model import How, Model, ModelConfig, converge
from mitsuba_gdpt.denoisers.learned.networks import FusionWeights, FusionWeightsConfig
from mitsuba_gdpt.denoisers.solvers.screened_poisson import ITERATIONS
from mitsuba_gdpt.denoisers.variances import SAMPLED, Variances, estimated_variances
from mitsuba_gdpt.errors import ConfigError

_FLOOR = 1e-4  # of what is shown as a logarithm: a relative standard deviation of one per cent
_LOGARITHM = 0.25  # scale of logarithms, so that inputs are about 1
_LARGEST = 3.0  # relative deviations beyond it look the same
_DEPTH_EPSILON = 2.5e-4  # of the mean depth
#: Smallest logit: a weight of a four-hundredth is as good as none.
_LEAST_LOGIT = -6.0
#: Slope below it: a network that has lost all trust must be able to gain it again.
_LEAK = 0.02

#: The image that gradients are fused with by default: one pass of the large network, which takes
#: features for clean, costs half of what filtering them first does.
INNER = "oidn(aux=clean)"

#: How far, in pixels, :func:`features` and :func:`block_features` see.
_REACH = 4
#: Floats per pixel that they keep alive.
_QUANTITIES = 60
#: Bytes that a tile may take on a CPU. Memory of larger ones is returned to the system when it is
#: freed, and filled with zeros when it is wanted again, which costs more than the overlap of tiles.
_TILE = 320 << 20

#: Channels of :func:`features`, per direction and besides.
DIRECTED, SHARED = 11, 4
#: Quantities of :func:`block_features`, per direction and besides: of each pixel, of the block.
DIRECTED_BLOCK, SHARED_BLOCK = (5, 6), (1, 3)


@dataclass(frozen=True)
class FusionModelConfig(ModelConfig):
    """The model.

    Attributes:
        guides: The one method whose image is fused with the gradients.
        width: Channels of the network at its finest resolution.
        patch: Side of the blocks of pixels that the network works on: 1, or 2, which costs a third.
        iterations: Steps of the solver, in training and after.
        consistency: See :class:`~mitsuba_gdpt.denoisers.learned.dense.DenseModelConfig`.
    """

    guides: tuple[str, ...] = (INNER,)
    width: int = 24
    consistency: float = 0.005
    patch: int = 1
    iterations: int = ITERATIONS

    def __post_init__(self) -> None:
        """Refuse sizes that there are no features for.

        Raises:
            ConfigError: ``patch`` is neither 1 nor 2, or there are no iterations.
        """
        if self.iterations < 1:
            raise ConfigError(f"iterations is {self.iterations}; expected 1 or more")
        if self.patch not in (1, 2):
            raise ConfigError(f"patch is {self.patch}; expected 1 or 2")

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the buffers that the model reads: what every render has."""
        return (*SAMPLED, "albedo", "normal", "depth")

    def changed(
        self,
        changes: Mapping[str, Any],
        *,
        guides: tuple[str, ...] = (),
        inputs: tuple[str, ...] = (),
    ) -> FusionModelConfig:
        """See :meth:`ModelConfig.changed`: any fields."""
        config = replace(self, guides=guides) if guides else self
        return super(FusionModelConfig, config).changed(changes, inputs=inputs)

    @property
    def network(self) -> FusionWeightsConfig:
        """Sizes of the network."""
        if self.patch == 1:
            return FusionWeightsConfig(DIRECTED, SHARED, self.width)
        directed, shared = (a * self.patch**2 + b for a, b in (DIRECTED_BLOCK, SHARED_BLOCK))
        return FusionWeightsConfig(
            directed, shared, self.width, self.patch, DIRECTED_BLOCK[0], SHARED_BLOCK[0]
        )


class FusionModel(Model):
    """Fusion with predicted weights; see the module."""

    def __init__(self, config: FusionModelConfig) -> None:
        super().__init__()
        self.config = config
        self.guides, self.needs = config.guides, config.needs
        self.network = FusionWeights(config.network)

    def image(
        self, data: torch.Tensor, layout: Layout, guides: torch.Tensor | None, how: How
    ) -> torch.Tensor:
        """See :meth:`Model.image`; variations mean nothing here."""
        require(self.needs, layout)
        chosen = self._choose(guides, self.guides)
        assert chosen is not None  # there is one
        read = layout.chosen(self.needs)
        image, data = planar(chosen[:, 0]), planar(_channels(data, layout.indices(read.names)))
        layout = read
        variances = estimated_variances(data, layout)
        logits = self._logits(data, layout, image, variances, how.memory)
        logits = _LEAST_LOGIT + functional.leaky_relu(logits - _LEAST_LOGIT, _LEAK)
        image = fusion.fuse_gradients(
            image,
            data,
            layout,
            logits,
            variances,
            limited=not self.training,
            iterations=self.config.iterations,
        )
        if not self.config.consistency:
            return image
        primal = data[..., layout.slices[PRIMAL]]
        return converge(image, primal, variances[PRIMAL], self.config.consistency)

    def _logits(
        self,
        data: torch.Tensor,
        layout: Layout,
        image: torch.Tensor,
        variances: Variances,
        memory: float | None,
    ) -> torch.Tensor:
        """Apply the network, (N, H, W, 2) float32."""
        size = self.config.network
        scale = exposure_scale(data[..., layout.slices[PRIMAL]])
        aligned = size.alignment * size.patch

        def run(data: torch.Tensor, image: torch.Tensor, stacked: torch.Tensor) -> torch.Tensor:
            height, width = data.shape[1:3]
            split = dict(zip(SAMPLED, stacked.split(1, -1), strict=True))
            if size.patch == 1:
                x = features(data, layout, image, split, scale, aligned)
            else:
                x = block_features(data, layout, image, split, scale, size.patch, aligned)
            x = x.contiguous(memory_format=torch.channels_last).permute(0, 2, 3, 1)
            values = torch.as_tensor(self.network(x)).permute(0, 3, 1, 2).float()
            values = functional.pixel_shuffle(values, size.patch)[..., :height, :width]
            return values.permute(0, 2, 3, 1)

        if memory is not None and data.device.type == "cpu":
            memory = min(memory, _TILE)
        return self._in_tiles(
            run,
            data,
            image,
            torch.cat([variances[name].permute(0, 3, 1, 2) for name in SAMPLED], 1).permute(
                0, 2, 3, 1
            ),
            floats=_QUANTITIES + (2 * size.inputs + 8 * size.width) / size.pixels,
            alignment=aligned,
            radius=size.patch * size.radius + _REACH,
            memory=memory,
        )


def _channels(data: torch.Tensor, indices: list[int]) -> torch.Tensor:
    """Return some channels of (N, H, W, C), where they are if they are neighbours."""
    first, last = indices[0], indices[-1]
    if indices == list(range(first, last + 1)):
        return data[..., first : last + 1]
    return data[..., indices]


@dataclass(frozen=True)
class _Quantities:
    """What the network sees, before logarithms; (N, H, W, 1) each, relative to the brightness.

    Attributes:
        variance: Of the gradient, or of the primal.
        residual: Gradient minus difference of the guide's image, or primal minus that image; mean
            over RGB.
        squared: Square of the residual; of gradients only, as what follows.
        expected: Square of the difference of the guide's image.
        gradient: Square of the gradient.
        albedo: Squared difference.
        normal: Squared difference.
        depth: Squared relative difference.
    """

    variance: torch.Tensor
    residual: torch.Tensor
    squared: torch.Tensor
    expected: torch.Tensor
    gradient: torch.Tensor
    albedo: torch.Tensor
    normal: torch.Tensor
    depth: torch.Tensor


def _directed(
    data: torch.Tensor,
    layout: Layout,
    image: torch.Tensor,
    variances: Variances,
    brightness: torch.Tensor,
) -> list[_Quantities]:
    """Return the quantities of dx, and of dy."""
    buffers = {name: data[..., part] for name, part in layout.slices.items()}
    factor = brightness.reciprocal()
    depth = buffers["depth"]
    nearness = (depth + _DEPTH_EPSILON * mean_depth(depth)).reciprocal()
    result = []
    for name, dim in DIFFERENCE_AXES.items():
        gradient = buffers[name] * factor
        expected = difference(image, dim) * factor
        residual = gradient - expected
        result.append(
            _Quantities(
                variance=variances[name] * factor.square(),
                residual=residual.mean(-1, keepdim=True).clamp(-_LARGEST, _LARGEST),
                squared=mean_square(residual),
                expected=mean_square(expected),
                gradient=mean_square(gradient),
                albedo=3 * mean_square(difference(buffers["albedo"], dim)),
                normal=3 * mean_square(difference(buffers["normal"], dim)),
                depth=(difference(depth, dim) * nearness).square(),
            )
        )
    return result


def _deviation(primal: torch.Tensor, image: torch.Tensor, brightness: torch.Tensor) -> torch.Tensor:
    """Return how far the primal is from the guide's image, relative to the brightness."""
    deviation = (primal - image).mean(-1, keepdim=True) / brightness
    return deviation.clamp(-_LARGEST, _LARGEST)


def _shown_brightness(brightness: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (brightness * scale).log_().mul_(_LOGARITHM)


def block_features(
    data: torch.Tensor,
    layout: Layout,
    image: torch.Tensor,
    variances: Variances,
    scale: torch.Tensor,
    patch: int,
    aligned: int,
) -> torch.Tensor:
    """Make the input of a network that works on blocks of pixels.

    Logarithms of single pixels are there only of what decides where exactly a gradient fails.

    Args:
        data: (N, H, W, C) buffers.
        layout: Meaning of C.
        image: (N, H, W, 3) radiance of the guide.
        variances: Those of the primal, dx and dy.
        scale: (N, 1, 1, 1) factor that brings the frame to a common brightness.
        patch: Side of a block, in pixels.
        aligned: What height and width are filled up to multiples of, with the last row and column.

    Returns:
        (N, C, h, w), in the order of
        :class:`~mitsuba_gdpt.denoisers.learned.networks.FusionWeightsConfig`.
    """
    height, width = data.shape[1:3]
    rest = (0, -width % aligned, 0, -height % aligned)
    primal = data[..., layout.slices[PRIMAL]]
    brightness = fusion.brightness(image, scale)

    def filled(*planes: torch.Tensor) -> torch.Tensor:
        stacked = torch.cat([x.permute(0, 3, 1, 2) for x in planes], dim=1)
        return functional.pad(stacked, rest, mode="replicate") if any(rest) else stacked

    def pixels(planes: torch.Tensor) -> torch.Tensor:
        return functional.pixel_unshuffle(planes, patch)

    def means(planes: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(planes, patch)

    def around(planes: torch.Tensor) -> torch.Tensor:
        return window_mean(planes.permute(0, 2, 3, 1), 3).permute(0, 3, 1, 2)

    parts = []
    for q in _directed(data, layout, image, variances, brightness):
        edges = q.albedo + q.normal
        parts += [
            pixels(_log(filled(q.variance, q.squared))),
            pixels(filled(q.residual)),
            pixels(_log(filled(q.expected, edges))),
            _log(around(means(filled(q.variance, q.squared)))),
            _log(means(filled(q.gradient, q.albedo, q.normal, q.depth))),
        ]
    variance = means(filled(variances[PRIMAL] / brightness.square()))
    parts += [
        pixels(filled(_deviation(primal, image, brightness))),
        _log(variance),
        _log(around(variance)),
        means(filled(_shown_brightness(brightness, scale))),
    ]
    return torch.cat(parts, dim=1).to(_precision(image))


def features(
    data: torch.Tensor,
    layout: Layout,
    image: torch.Tensor,
    variances: Variances,
    scale: torch.Tensor,
    aligned: int = 1,
) -> torch.Tensor:
    """Make the input of the network.

    Args:
        data: (N, H, W, C) buffers.
        layout: Meaning of C.
        image: (N, H, W, 3) radiance of the guide.
        variances: Those of the primal, dx and dy.
        scale: (N, 1, 1, 1) factor that brings the frame to a common brightness.
        aligned: What height and width are filled up to multiples of, with zeros.

    Returns:
        (N, 2 :data:`DIRECTED` + :data:`SHARED`, h, w): what belongs to dx, to dy, to neither.
    """
    height, width = data.shape[1:3]
    primal = data[..., layout.slices[PRIMAL]]
    brightness = fusion.brightness(image, scale)
    directed = []
    for q in _directed(data, layout, image, variances, brightness):
        directed += [
            _log(q.variance),
            _log(window_mean(q.variance, 5)),
            _log(window_mean(q.variance, 3)),
            _log(q.squared),
            _log(window_mean(q.squared, 3)),
            q.residual,
            _log(q.expected),
            _log(q.gradient),
            _log(q.albedo),
            _log(q.normal),
            _log(q.depth),
        ]
    variance = variances[PRIMAL] / brightness.square()
    shared = [
        _log(variance),
        _log(window_mean(variance, 5)),
        _deviation(primal, image, brightness),
        _shown_brightness(brightness, scale),
    ]
    return _stacked(
        [plane[..., 0] for plane in (*directed, *shared)],
        height + -height % aligned,
        width + -width % aligned,
    )


def _stacked(planes: list[torch.Tensor], height: int, width: int) -> torch.Tensor:
    """Make one input of planes (N, H, W), filled up with zeros, in the network's precision.

    Returns:
        (N, C, height, width).
    """
    dtype = _precision(planes[0])
    n, rows, columns = planes[0].shape
    if torch.is_grad_enabled() or planes[0].device.type != "cpu":
        x = torch.stack(planes, dim=1).to(dtype)
        return functional.pad(x, (0, width - columns, 0, height - rows))
    # One by one, and rounded on the way: each is still in the cache.
    x = planes[0].new_zeros(n, len(planes), height, width, dtype=dtype)
    for channel, plane in enumerate(planes):
        x[:, channel, :rows, :columns] = plane
    return x


def _precision(x: torch.Tensor) -> torch.dtype:
    """Return what the network computes in: inputs are rounded once, not for each of its halves."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def _log(x: torch.Tensor) -> torch.Tensor:
    return (x + _FLOOR).log_().mul_(_LOGARITHM)
