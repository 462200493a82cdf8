"""Augmentation: an example seen in a mirror, transposed, in other colours, at other brightness.

All changes keep the buffers consistent with one another. A flip in x negates dx and moves it by
one pixel, so that it stays the forward difference of the flipped image; it negates the x component
of vectors in camera space. Mitsuba's camera looks with +X to the left and +Y up, both opposite to
the image's axes, so that transposing the image exchanges X and Y without a sign.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import permutations

import torch

from mitsuba_gdpt.channels import DIFFERENCE_AXES, VARIANCE_SUFFIX, Layout, of_kind

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
        depth: Multiply the normalised depth by a factor between 0.1 and 1.1.
    """

    flip: bool = True
    transpose: bool = True
    permute: bool = True
    colour: bool = True
    brightness: bool = True
    shift: bool = True
    depth: bool = True


@dataclass(frozen=True)
class Example:
    """One training example.

    Attributes:
        buffers: (H, W, C); meaning of C as in ``layout``.
        layout: Channels of ``buffers``.
        images: (K, H, W, 3) radiance that goes with them: targets and guides.
    """

    buffers: torch.Tensor
    layout: Layout
    images: torch.Tensor

    def buffer(self, name: str) -> torch.Tensor:
        """Return a view of one buffer, (H, W, c)."""
        return self.buffers[..., self.layout.slices[name]]


def augment(example: Example, which: Augmentation, generator: torch.Generator) -> Example:
    """Draw changes and apply them; the example itself is left as it is."""

    def coin() -> bool:
        return bool(torch.rand((), generator=generator) < 0.5)

    # Draws do not depend on each other's outcome: switching one off does not change the others.
    flips, swap = (coin(), coin()), coin()
    order = _PERMUTATIONS[int(torch.randint(6, (), generator=generator))]
    cuts = torch.rand(2, generator=generator).sort().values
    simplex = torch.diff(cuts, prepend=torch.zeros(1), append=torch.ones(1))
    normal = torch.randn((), generator=generator)
    if which.flip:
        for axis in (0, 1):
            if flips[axis]:
                example = flip(example, axis)
    if which.transpose and swap and example.buffers.shape[0] == example.buffers.shape[1]:
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
        axis: 0: exchange top and bottom; 1: left and right.
    """
    buffers = example.buffers.flip(axis)
    result = replace(example, buffers=buffers, images=example.images.flip(axis + 1))
    for name, along in DIFFERENCE_AXES.items():
        if along != axis - 3:  # axes are counted from the end there
            continue
        for layer, sign in ((name, -1), (name + VARIANCE_SUFFIX, 1)):
            if layer in example.layout:
                # After mirroring, the entry that means nothing stands first: it goes to the end.
                result.buffer(layer)[:] = sign * result.buffer(layer).roll(-1, axis)
    for name in _VECTORS:
        if name in example.layout:
            result.buffer(name)[..., 1 - axis] *= -1
    return result


def transpose(example: Example) -> Example:
    """Exchange x and y."""
    buffers = example.buffers.transpose(0, 1).contiguous()
    result = replace(example, buffers=buffers, images=example.images.transpose(1, 2))
    for suffix in ("", VARIANCE_SUFFIX):
        if "dx" + suffix in example.layout and "dy" + suffix in example.layout:
            dx, dy = result.buffer("dx" + suffix), result.buffer("dy" + suffix)
            kept = dx.clone()
            dx[:] = dy
            dy[:] = kept
    for name in _VECTORS:
        if name in example.layout:
            vector = result.buffer(name)
            vector[..., :2] = vector[..., :2].flip(-1)
    return result


def permute(example: Example, order: tuple[int, ...]) -> Example:
    """Give the colour channels another order."""
    indices = list(order)
    buffers = example.buffers.clone()
    result = replace(example, buffers=buffers, images=example.images[..., indices])
    for name in (*_RADIANCE, *_REFLECTANCE):
        if name in example.layout:
            result.buffer(name)[:] = example.buffer(name)[..., indices]
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
    buffers = example.buffers.clone()
    total = factors.to(buffers) * brightness
    result = replace(example, buffers=buffers, images=example.images * total)
    for names, factor in ((_RADIANCE, total), (_REFLECTANCE, factors.to(buffers))):
        for name in names:
            if name in example.layout:
                result.buffer(name).mul_(factor)
            if name + VARIANCE_SUFFIX in example.layout:
                result.buffer(name + VARIANCE_SUFFIX).mul_(factor.square().mean())
    return result
