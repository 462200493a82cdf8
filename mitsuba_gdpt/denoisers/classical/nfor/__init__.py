r"""NFOR: nonlinearly weighted first-order regression.

B. Bitterli, F. Rousselle, B. Moon, J. A. Iglesias-Guitián, D. Adler, K. Mitchell, W. Jarosz and
J. Novák, *Nonlinearly Weighted First-order Regression for Denoising Monte Carlo Renderings*,
Computer Graphics Forum 35(4), 2016. The steps, and the modules that take them:

1. Features are smoothed by NL-means, each half with weights from the other (``nlmeans``).
2. Colours of each half are regressed on the features of the other half, with NL-means weights from
   the colours of the other half, for each of two bandwidths (``regression``).
3. The squared error of each bandwidth is estimated by comparing halves; pixels take the best one
   (``selection``).
4. The result is filtered once more in the same way, now with the variance that is left.

Radii and bandwidths of weights and features are the paper's. What differs:

* The variance is one number per pixel, the mean over RGB, because that is what the ``gdpt``
  integrator records. So distances of patches are means over channels (as in Rousselle et al.
  2012, while the authors' published program takes the largest), and the bandwidth is chosen for
  all channels together.
* Sample variances are scaled to agree with the difference of the halves: the samples of ``gdpt``
  are stratified, so their variance is too large, above all at edges. The authors sample randomly.
* The unfiltered image competes with those of the two bandwidths. Beside sharp highlights both can
  be worse than no filter, by orders of magnitude at few samples. For the same reason the choice
  is smoothed with a bandwidth of 0.5, not 1.
* Least squares are solved with a small ridge instead of a pivoted QR decomposition.
* The image is clamped to values >= 0: linear models overshoot next to very bright pixels.

Bias: weights, regression and selection are nonlinear in the image; the result is biased, and
converges to the expected image as the variance falls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import PRIMAL, VARIANCE_SUFFIX
from mitsuba_gdpt.denoisers.classical.nfor import inputs
from mitsuba_gdpt.denoisers.classical.nfor.inputs import Image
from mitsuba_gdpt.denoisers.classical.nfor.nlmeans import PatchDistances, filter_images
from mitsuba_gdpt.denoisers.classical.nfor.pair import Pair
from mitsuba_gdpt.denoisers.classical.nfor.regression import regress
from mitsuba_gdpt.denoisers.classical.nfor.selection import select, squared_error
from mitsuba_gdpt.denoisers.exposure import Exposure
from mitsuba_gdpt.denoisers.registry import register
from mitsuba_gdpt.errors import ConfigError

_LARGEST_RADIUS = 30  # memory and time grow with its square
# NL-means of the features; the smaller window belongs to the second pass.
_FEATURE_BANDWIDTH, _FEATURE_PATCH = 0.5, 3
_FEATURE_WINDOW, _SECOND_FEATURE_WINDOW = 5, 2
_SELECTION_PATCH = 1
_SECOND_BANDWIDTH = 1.0


@register(
    "nfor",
    needs=(
        PRIMAL,
        *inputs.FEATURES,
        *(name + VARIANCE_SUFFIX for name in (PRIMAL, *inputs.FEATURES)),
    ),
    uses=(inputs.VISIBILITY,),
    doc="nonlinearly weighted first-order regression on features; best with halves",
    exposure=Exposure.BINARY,
    group="baseline",
)
def nfor(
    buffers: FrameBuffers,
    *,
    halves: tuple[FrameBuffers, FrameBuffers] | None = None,
    bandwidths: Sequence[float] = (0.5, 1.0),
    patch_radius: int = 3,
    window_radius: int = 9,
) -> torch.Tensor:
    """Denoise the primal by first-order regression on the features.

    Gradients are not used.

    Args:
        buffers: Needs ``primal``, ``albedo``, ``normal``, ``depth`` and their variances: a render
            with ``variances=True`` and 2 or more samples per pixel.
        halves: Two renders of the same size with independent samples, of which ``buffers`` is the
            mean, weighted by their numbers of samples. They need no variances, and so 1 sample
            per pixel is enough for each. ``visibility`` becomes a feature where all three have it.
            Without halves, weights and regression see the same noise, and there is neither a
            choice between candidates nor a second pass.
        bandwidths: Candidates for the bandwidth k of the weights, > 0; larger smooths more.
            Without halves the smallest is used.
        patch_radius: Patches of (2 r + 1)^2 pixels are compared.
        window_radius: Windows of (2 r + 1)^2 pixels are regressed over, >= 1.

    Returns:
        (H, W, 3) float32 scene-linear radiance >= 0 on the buffers' device.

    Raises:
        ConfigError: An option is out of range, or ``buffers`` is not the mean of the halves.
        LayoutError: The halves differ in size or device, or lack a buffer.
        NonFiniteError: The halves contain NaN or infinity.
    """
    options = _Options(tuple(bandwidths), patch_radius, window_radius)
    colour, features = inputs.read(buffers, halves)
    if colour.halves is None:
        image = _single_pass(colour, features, options)
    else:
        pairs = [_smooth_halves(feature) for feature in features]
        image = _second_pass(_first_pass(colour, colour.halves, pairs, options), pairs, options)
    return image.clamp_min_(0).movedim(0, -1).contiguous()


@dataclass(frozen=True)
class _Options:
    """Options of :func:`nfor`, checked."""

    bandwidths: tuple[float, ...]
    patch_radius: int
    window_radius: int

    def __post_init__(self) -> None:
        if not self.bandwidths or not all(0 < k < math.inf for k in self.bandwidths):
            raise ConfigError(f"bandwidths is {self.bandwidths}; expected one or more numbers > 0")
        for name, least in (("patch_radius", 0), ("window_radius", 1)):
            if not least <= getattr(self, name) <= _LARGEST_RADIUS:
                raise ConfigError(
                    f"{name} is {getattr(self, name)}; expected {least} .. {_LARGEST_RADIUS}"
                )

    def distances(self, guide: torch.Tensor, variance: torch.Tensor) -> PatchDistances:
        return PatchDistances(guide, variance, self.patch_radius, self.window_radius)


def _single_pass(colour: Image, features: Sequence[Image], options: _Options) -> torch.Tensor:
    """Denoise without halves: everything sees the same noise."""
    smooth = [_smooth(image.value, image.value, image.variance) for image in features]
    distances = options.distances(colour.value, colour.variance)
    (image,) = regress(colour.value, torch.cat(smooth), distances, [min(options.bandwidths)])
    return image


def _first_pass(colour: Image, halves: Pair, features: Sequence[Pair], options: _Options) -> Pair:
    """Denoise each half, with the bandwidth that is best around each pixel (section 5.3)."""
    candidates = _filter_halves(colour, halves, features, options)
    # Unfiltered halves are an honest candidate too. Black pixels beside a noisy highlight need it:
    # no patch distance tells them from samples of the highlight that happen to be black.
    candidates.append(halves)
    errors = [squared_error(halves, colour.variance, pair) for pair in candidates]
    distances = PatchDistances(
        colour.value, colour.variance, _SELECTION_PATCH, options.window_radius
    )
    return select(torch.stack(errors), candidates, distances)


def _filter_halves(
    colour: Image, halves: Pair, features: Sequence[Pair], options: _Options
) -> list[Pair]:
    """Filter each half with weights and features of the other (section 5.2), by bandwidth."""
    variance_a, variance_b = halves.variances_of_halves(colour.variance)
    filtered_a = regress(
        halves.a,
        torch.cat([feature.b for feature in features]),
        options.distances(halves.b, variance_b),
        options.bandwidths,
    )
    filtered_b = regress(
        halves.b,
        torch.cat([feature.a for feature in features]),
        options.distances(halves.a, variance_a),
        options.bandwidths,
    )
    return [Pair(a, b, halves.share) for a, b in zip(filtered_a, filtered_b, strict=True)]


def _second_pass(image: Pair, features: Sequence[Pair], options: _Options) -> torch.Tensor:
    """Denoise the mean of the filtered halves with what variance it still has (section 5.4)."""
    mean = image.mean()
    smooth = [
        _smooth(pair.mean(), pair.mean(), pair.variance(), _SECOND_FEATURE_WINDOW)
        for pair in features
    ]
    distances = options.distances(mean, image.variance())
    (result,) = regress(mean, torch.cat(smooth), distances, [_SECOND_BANDWIDTH])
    return result


def _smooth_halves(feature: Image) -> Pair:
    """Filter each half of a feature with weights of the other (section 5.1)."""
    halves = feature.halves
    assert halves is not None
    variance_a, variance_b = halves.variances_of_halves(feature.variance)
    return Pair(
        _smooth(halves.a, halves.b, variance_b),
        _smooth(halves.b, halves.a, variance_a),
        halves.share,
    )


def _smooth(
    feature: torch.Tensor,
    guide: torch.Tensor,
    variance: torch.Tensor,
    window_radius: int = _FEATURE_WINDOW,
) -> torch.Tensor:
    distances = PatchDistances(guide, variance, _FEATURE_PATCH, window_radius)
    return filter_images(feature, distances, _FEATURE_BANDWIDTH)
