"""Augmentation: an example seen in a mirror, transposed, in other colours, at other brightness.

All changes keep the buffers consistent with one another. A flip in x negates dx and moves it by
one pixel, so that it stays the forward difference of the flipped image; it negates the x component
of vectors in camera space. Mitsuba's camera looks with +X to the left and +Y up, both opposite to
the image's axes, so that transposing the image exchanges X and Y without a sign.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations

import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import DIFFERENCE_AXES, VARIANCE_SUFFIX, of_kind
from mitsuba_gdpt.training.examples import Example

_Change = Callable[[torch.Tensor], torch.Tensor]

#: Axes of an image, counted from the end as in :data:`~mitsuba_gdpt.channels.DIFFERENCE_AXES`.
X, Y = -2, -3

_PERMUTATIONS = tuple(permutations(range(3)))
#: Displacements are no vectors of camera space, but go with the image's axes: the same signs.
_VECTORS = of_kind("direction", "point", "displacement")
_RADIANCE = of_kind("radiance")
_REFLECTANCE = of_kind("reflectance")


@dataclass(frozen=True)
class Augmentation:
    """Which changes are made, each with the distribution of NGPT.

    Attributes:
        flip: Mirror in x and in y, with probability 1/2 each.
        transpose: Exchange x and y with probability 1/2; only square crops.
        permute: Permute RGB.
        colour: Multiply RGB by three times a point drawn uniformly on the unit simplex.
        brightness: Multiply radiance by a log-normal factor of mean 1.
        shift: Move the crop inside its padding by up to 7 pixels.
        depth: Multiply the normalised depth by a factor between 0.1 and 1.1; not of sequences.
    """

    flip: bool = True
    transpose: bool = True
    permute: bool = True
    colour: bool = True
    brightness: bool = True
    shift: bool = True
    depth: bool = True


def augment(example: Example, which: Augmentation, generator: torch.Generator) -> Example:
    """Draw changes and apply them, alike to all frames; the example itself is left as it is."""

    def coin() -> bool:
        return bool(torch.rand((), generator=generator) < 0.5)

    # Draws do not depend on each other's outcome: switching one off does not change the others.
    flips, swap = {Y: coin(), X: coin()}, coin()
    order = _PERMUTATIONS[int(torch.randint(6, (), generator=generator))]
    cuts = torch.rand(2, generator=generator).sort().values
    simplex = torch.diff(cuts, prepend=torch.zeros(1), append=torch.ones(1))
    normal = torch.randn((), generator=generator)
    if which.flip:
        for axis, flipped in flips.items():
            if flipped:
                example = flip(example, axis)
    if which.transpose and swap and example.buffers.height == example.buffers.width:
        example = transpose(example)
    if which.permute:
        example = permute(example, order)
    factors = 3 * simplex if which.colour else torch.ones(3)
    brightness = float((normal - 0.5).exp()) if which.brightness else 1.0
    return multiply(example, factors, brightness)


def flip(example: Example, axis: int) -> Example:
    """Mirror an example.

    Args:
        example: What to mirror.
        axis: :data:`X`: exchange left and right; :data:`Y`: top and bottom.
    """
    result = _mapped(example, lambda image: image.flip(axis))
    for name, along in DIFFERENCE_AXES.items():
        if along != axis:
            continue
        for layer, sign in ((name, -1), (name + VARIANCE_SUFFIX, 1)):
            if layer in result.buffers:
                # After mirroring, the entry that means nothing stands first: it goes to the end.
                result.buffers[layer][:] = sign * result.buffers[layer].roll(-1, axis)
    for name in _VECTORS:
        if name in result.buffers:
            result.buffers[name][..., X - axis] *= -1
    return result


def transpose(example: Example) -> Example:
    """Exchange x and y."""
    result = _mapped(example, lambda image: image.transpose(X, Y).contiguous())
    buffers = result.buffers
    for suffix in ("", VARIANCE_SUFFIX):
        if "dx" + suffix in buffers and "dy" + suffix in buffers:
            dx, dy = buffers["dx" + suffix], buffers["dy" + suffix]
            kept = dx.clone()
            dx[:] = dy
            dy[:] = kept
    for name in _VECTORS:
        if name in buffers:
            vector = buffers[name]
            vector[..., :2] = vector[..., :2].flip(-1)
    return result


def permute(example: Example, order: tuple[int, ...]) -> Example:
    """Give the colour channels another order."""
    indices = list(order)
    result = _copied(example, lambda image: image[..., indices])
    for name in (*_RADIANCE, *_REFLECTANCE):
        if name in result.buffers:
            result.buffers[name][:] = example.buffers[name][..., indices]
    return result


def multiply(example: Example, factors: torch.Tensor, brightness: float) -> Example:
    """Multiply radiance by a colour and a brightness, and albedo by the colour.

    Variances are means over RGB. They are multiplied by the mean of the squared factors, which is
    exact only if the three variances are equal.

    Args:
        example: What to change.
        factors: (3,) colour.
        brightness: Factor on radiance only.
    """
    colour = factors.to(example.target)
    total = colour * brightness
    result = _copied(example, lambda image: image * total)
    for names, factor in ((_RADIANCE, total), (_REFLECTANCE, colour)):
        for name in names:
            if name in result.buffers:
                result.buffers[name].mul_(factor)
            if name + VARIANCE_SUFFIX in result.buffers:
                result.buffers[name + VARIANCE_SUFFIX].mul_(factor.square().mean())
    return result


def _mapped(example: Example, change: _Change) -> Example:
    """Apply a change of (..., H, W, c), which copies, to buffers and images alike."""
    return _changed(example, change, change(example.buffers.data))


def _copied(example: Example, change: _Change) -> Example:
    """Apply a change to the images, and copy the buffers."""
    return _changed(example, change, example.buffers.data.clone())


def _changed(example: Example, change: _Change, data: torch.Tensor) -> Example:
    buffers = FrameBuffers(data, example.buffers.layout)
    return Example(buffers, change(example.target), change(example.inner), example.index)
