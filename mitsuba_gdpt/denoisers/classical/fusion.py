"""Fusion of another method's image with the sampled gradients, weighed by their variance.

The solver is :func:`mitsuba_gdpt.denoisers.solvers.screened_poisson.fuse`. Here are the weights
that it starts from, and the method ``oidn-fusion``, which uses them as they are. Networks with the
head ``"fusion"`` multiply them, pixel by pixel, by what they have learned.
"""

from __future__ import annotations

import math

import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import DIFFERENCE_AXES, GRADIENTS, PRIMAL, Layout
from mitsuba_gdpt.denoisers import registry
from mitsuba_gdpt.denoisers.images import difference, exposure_scale, mean_square
from mitsuba_gdpt.denoisers.solvers.screened_poisson import ITERATIONS, fuse
from mitsuba_gdpt.denoisers.variances import Variances, cautious_variances
from mitsuba_gdpt.errors import ConfigError

#: The image that gradients are fused with: as good as can be had without them.
INNER = "oidn(ensemble=4, prefilter=balanced)"
#: Buffers that fusion reads by default.
NEEDS = GRADIENTS
#: Channels of the logits of :func:`fuse_gradients`: one for dx, one for dy.
LOGITS = 2

# Relative standard deviation of a gradient that halves its weight, that is, of the image that is
# fused with it. Found on the development scenes, where 0.05 to 0.25 differ by a few per cent.
_NOISE = 0.1
#: Part of a gradient's deviation from the image that counts as its standard deviation. 8 to 32 were
#: alike on the development scenes; without it single fireflies survive.
_CONTRADICTION = 16.0
_EPSILON = 0.01  # brightness, at common exposure, below which noise is not taken relative to it
_LIMIT = 20.0  # largest weight: what the solver's number of steps suffices for


def fuse_gradients(
    image: torch.Tensor,
    data: torch.Tensor,
    layout: Layout,
    logits: torch.Tensor,
    variances: Variances,
    *,
    limited: bool = True,
    iterations: int = ITERATIONS,
) -> torch.Tensor:
    r"""Bring an image into line with the sampled gradients.

    The weight of a gradient is :math:`e^l (0.1 b)^2 / ((0.1 b)^2 + v + (r / 16)^2)` with the
    brightness :math:`b` of the image, the gradient's variance :math:`v`, its deviation :math:`r`
    from the image, and a logit :math:`l`. So a firefly, whose variance is about its square, has a
    pull that falls with its size, and so has one that nothing else contradicts than the image.

    Args:
        image: (N, H, W, 3) radiance.
        data: (N, H, W, C) buffers.
        layout: Meaning of C; has the primal, dx and dy.
        logits: (N, H, W, 2), for dx and dy, or anything that broadcasts to it.
        variances: Those of dx and dy.
        limited: Count the deviation r. For a network in training it would hide the corrections
            that there is most to learn from.
        iterations: Steps of the solver.

    Returns:
        (N, H, W, 3) radiance, differentiable with respect to image and logits.
    """
    slices = layout.slices
    bright = brightness(image.detach(), exposure_scale(data[..., slices[PRIMAL]]))
    tolerated = (_NOISE * bright).square()
    factors = logits.expand(*image.shape[:-1], LOGITS).clamp_max(math.log(_LIMIT)).exp()
    gradients, weights = [], []
    for factor, (name, dim) in zip(factors.split(1, -1), DIFFERENCE_AXES.items(), strict=True):
        gradient = data[..., slices[name]]
        distrust = variances[name]
        if limited:
            deviation = gradient - difference(image.detach(), dim)
            distrust = distrust + mean_square(deviation / _CONTRADICTION)
        weights.append(factor * (tolerated / (tolerated + distrust)))
        gradients.append(gradient)
    (dx, dy), (weight_x, weight_y) = gradients, weights
    return fuse(image, dx, dy, weight_x, weight_y, bright, iterations)


def brightness(image: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return what errors of an image count relative to, (N, H, W, 1), above 0.

    Args:
        image: (N, H, W, 3) radiance.
        scale: (N, 1, 1, 1), of :func:`~mitsuba_gdpt.denoisers.images.exposure_scale`, which decides
            what is dark.
    """
    return image.clamp_min(0).mean(-1, keepdim=True) + _EPSILON / scale


@registry.register(
    "oidn-fusion",
    needs=(PRIMAL, *NEEDS),
    group="experiment",
    seconds_per_megapixel=16.0,
    doc="OIDN's image fused with the gradients by their variance, without a network",
)
def oidn_fusion(
    buffers: FrameBuffers, *, using: registry.Call | str = INNER, weight: float = 1.0
) -> torch.Tensor:
    """Fuse the image of another method with the gradients.

    Args:
        buffers: Needs the gradients and their variances, and what the other method needs.
        using: The other method, with options, as ``"oidn(aux=raw)"``.
        weight: Factor on the weights of all gradients, > 0.

    Returns:
        (H, W, 3) float32 scene-linear radiance on the buffers' device.

    Raises:
        ConfigError: ``weight`` is out of range.
    """
    if not (math.isfinite(weight) and weight > 0):
        raise ConfigError(f"weight is {weight}; expected a number > 0")
    image = registry.Call.parse(using).within(buffers)
    logits = image.new_full((1, 1, 1, LOGITS), math.log(weight))
    data, layout = buffers.data[None], buffers.layout
    return fuse_gradients(image[None], data, layout, logits, cautious_variances(data, layout))[0]
