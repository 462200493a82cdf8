r"""From buffers to the input of a network, and from its output back to radiance.

What a network sees is a list of :class:`Feature` stored with its weights. Training and inference
both call :func:`preprocess` with it, so they cannot disagree.

Features are padded by reflection, in a way that keeps them consistent with one another: the padded
dx is exactly the forward difference of the padded primal, the padded depth goes on as it arrived at
the border. Any frame size works, down to one pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from mitsuba_gdpt.channels import DIFFERENCE_AXES, PRIMAL, Layout, buffer
from mitsuba_gdpt.denoisers.images import difference, exposure_scale, without_spikes
from mitsuba_gdpt.errors import ConfigError, LayoutError

#: Prefix of the source of a feature that is another method's image.
GUIDE = "guide:"
#: Prefix of the source of a feature that is a sampled gradient minus that of the first guide: what
#: the guide has wrong.
RESIDUAL = "residual:"
#: Pixels of padding on each side, as in NGPT.
MARGIN = 8

_TINY = 1e-30  # what counts as none, in any unit
_ALBEDO_EPSILON = 0.01  # of the demodulation; black surfaces must not blow noise up
_NO_ALBEDO = 0.02  # mean over RGB; a pixel below it shows next to no surface


def _signed_log1p(x: torch.Tensor) -> torch.Tensor:
    return x.sign() * x.abs().log1p()


def _relative_to_maximum(x: torch.Tensor) -> torch.Tensor:
    return x / x.amax((1, 2, 3), keepdim=True).clamp_min(_TINY)


#: Transfer functions by name; (N, H, W, c) to the same.
TRANSFERS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "none": lambda x: x,
    "log1p": lambda x: x.clamp_min(0).log1p(),
    "signed-log1p": _signed_log1p,
    "sqrt-log1p": lambda x: x.clamp_min(0).sqrt().log1p(),
    "max": _relative_to_maximum,
}


@dataclass(frozen=True)
class Feature:
    """One input of a network.

    Attributes:
        source: Name of a buffer, ``"guide:METHOD"`` for the image that another method makes of
            the same buffers, or ``"residual:dx"`` or ``"residual:dy"`` for that gradient minus the
            forward difference of the first guide's image.
        transfer: A key of :data:`TRANSFERS`: ``"log1p"`` clamps at 0 first, ``"max"`` divides by
            the maximum of the frame.
    """

    source: str
    transfer: str = "none"

    def __post_init__(self) -> None:
        """Refuse unknown names.

        Raises:
            ConfigError: The transfer function is unknown.
            LayoutError: The buffer is unknown.
        """
        if self.transfer not in TRANSFERS:
            raise ConfigError(
                f"unknown transfer function {self.transfer!r}; expected one of "
                f"{', '.join(TRANSFERS)}"
            )
        if self.guide is None:
            buffer(self.buffer)
        if self.residual and self.buffer not in DIFFERENCE_AXES:
            raise ConfigError(f"got {self.source!r}; expected residual:dx or residual:dy")

    @property
    def residual(self) -> bool:
        """Whether this is a gradient minus that of the first guide."""
        return self.source.startswith(RESIDUAL)

    @property
    def buffer(self) -> str:
        """The buffer that this is or is derived from, if it is no guide."""
        return self.source.removeprefix(RESIDUAL)

    @property
    def guide(self) -> str | None:
        """The method whose image this is, or None for a buffer."""
        return self.source.removeprefix(GUIDE) if self.source.startswith(GUIDE) else None

    @property
    def channels(self) -> int:
        """Number of channels."""
        return 3 if self.guide is not None else len(buffer(self.buffer))


@dataclass(frozen=True)
class InputConfig:
    """What a network sees.

    Attributes:
        features: The inputs, in channel order.
        demodulate: Divide radiance by albedo + 0.01 first, and multiply the output by it.
            Gradients follow by the product rule.
        exposure: Scale radiance to a common brightness first, and the output back. The factor is
            0.18 over the geometric mean of the luminance of 16x16 blocks, as in OIDN.
        despike: Show the primal without isolated bright pixels, and no larger gradients than it
            allows; see :func:`without_spikes`. Too dark in the mean, which networks learn, but
            free of fireflies, which few examples do not teach them to remove.
        least_albedo: With ``demodulate``, albedo counts as this at least, so that what a network
            gets wrong on dark surfaces is not blown up; and as 1 where there is none, as of lamps
            and of what lies behind the scene.
    """

    features: tuple[Feature, ...]
    demodulate: bool = False
    exposure: bool = False
    despike: bool = False
    least_albedo: float = 0.0

    @property
    def channels(self) -> int:
        """Number of input channels of the network."""
        return sum(feature.channels for feature in self.features)

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the buffers that :func:`preprocess` reads."""
        names = [feature.buffer for feature in self.features if feature.guide is None]
        names += ["albedo"] * self.demodulate + [PRIMAL]
        return tuple(dict.fromkeys(names))

    @property
    def guides(self) -> tuple[str, ...]:
        """Names of the methods whose images are inputs."""
        return tuple(feature.guide for feature in self.features if feature.guide is not None)


@dataclass(frozen=True)
class Padding:
    """Pixels added on each side of a frame."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def around(
        cls,
        height: int,
        width: int,
        alignment: int,
        shift: tuple[int, int] = (0, 0),
        margin: int = MARGIN,
    ) -> Padding:
        """Return a margin on all sides, and more at the right and bottom up to full multiples.

        Args:
            height: Of the frame.
            width: Of the frame.
            alignment: What the padded size is to be a multiple of.
            shift: Move the frame by (x, y) pixels inside the padding, by less than the margin.
            margin: Pixels on each side.
        """
        x, y = shift
        if (x or y) and max(abs(x), abs(y)) >= margin:
            raise ConfigError(f"got a shift of {shift}; expected less than {margin} pixels")
        more_x, more_y = (-(size + 2 * margin) % alignment for size in (width, height))
        return cls(margin + x, margin + y, margin - x + more_x, margin - y + more_y)

    def apply(self, x: torch.Tensor, source: str | None) -> torch.Tensor:
        """Pad a feature (N, H, W, c) by the rule of its buffer; None for what is no buffer."""
        x = _extend(x, -2, self.left, self.right, _border_rule(source, -2))
        return _extend(x, -3, self.top, self.bottom, _border_rule(source, -3))

    def remove(self, x: torch.Tensor) -> torch.Tensor:
        """Cut the padding off (N, H, W, c)."""
        height, width = x.shape[1:3]
        return x[:, self.top : height - self.bottom, self.left : width - self.right]


@dataclass(frozen=True)
class BatchPadding:
    """What was added around the frames of a minibatch: to each its own, or to all the same."""

    each: tuple[Padding, ...]

    def apply(self, x: torch.Tensor, source: str | None) -> torch.Tensor:
        """See :meth:`Padding.apply`."""
        return self._map(x, lambda padding, frames: padding.apply(frames, source))

    def remove(self, x: torch.Tensor) -> torch.Tensor:
        """See :meth:`Padding.remove`."""
        return self._map(x, Padding.remove)

    def _map(
        self, x: torch.Tensor, change: Callable[[Padding, torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        if len(self.each) == 1:
            return change(self.each[0], x)
        pairs = zip(self.each, x.split(1), strict=True)
        return torch.cat([change(padding, frame) for padding, frame in pairs])


@dataclass(frozen=True)
class Prepared:
    """Input of a network, and what is needed to interpret its output.

    Attributes:
        input: (N, H', W', C), padded.
        padding: What was added around the frames.
        scale: (N, 1, 1, 1) exposure that radiance was multiplied by.
        modulation: (N, H, W, 3) albedo that it was divided by, or None.
    """

    input: torch.Tensor
    padding: BatchPadding
    scale: torch.Tensor
    modulation: torch.Tensor | None

    def normalise(self, image: torch.Tensor) -> torch.Tensor:
        """Bring radiance (N, H, W, 3) to the scale that the network works on."""
        image = image * self.scale
        return image if self.modulation is None else image / self.modulation

    def restore(self, image: torch.Tensor) -> torch.Tensor:
        """Undo :meth:`normalise`."""
        image = image / self.scale
        return image if self.modulation is None else image * self.modulation


def preprocess(
    data: torch.Tensor,
    layout: Layout,
    config: InputConfig,
    *,
    alignment: int,
    guides: torch.Tensor | None = None,
    shifts: Sequence[tuple[int, int]] = (),
    depth_scale: torch.Tensor | None = None,
    exposure: torch.Tensor | None = None,
    margin: int = MARGIN,
) -> Prepared:
    """Make the input of a network.

    Args:
        data: (N, H, W, C) buffers, finite.
        layout: Meaning of C.
        config: What the network sees.
        alignment: What the padded size is to be a multiple of.
        guides: (N, G, H, W, 3) radiance, in the order of ``config.guides``.
        shifts: Of each frame, see :meth:`Padding.around`; for training. None is moved by default.
        depth_scale: (N,) factors on features with the transfer function ``"max"``; for training.
        exposure: (N, 1, 1, 1) factors on radiance, instead of those of ``config.exposure``.
        margin: See :meth:`Padding.around`.

    Raises:
        LayoutError: A buffer or guide is missing.
    """
    require(config.needs, layout)
    slices = layout.slices
    given = 0 if guides is None else guides.shape[1]
    if given < len(config.guides):
        raise LayoutError(
            f"got {given} guide image(s); the network needs: {', '.join(config.guides)}"
        )
    n, height, width, _ = data.shape
    primal = data[..., slices[PRIMAL]]
    buffers = {name: data[..., part] for name, part in slices.items()}
    if config.despike:
        buffers |= without_spikes(buffers)
    if exposure is not None:
        scale = exposure
    else:
        scale = exposure_scale(primal) if config.exposure else data.new_ones(n, 1, 1, 1)
    modulation = None
    if config.demodulate:
        modulation = _modulation(data[..., slices["albedo"]], config.least_albedo)
    padding = BatchPadding(
        tuple(
            Padding.around(height, width, alignment, shift, margin) for shift in shifts or ((0, 0),)
        )
    )
    prepared = Prepared(data[:0], padding, scale, modulation)
    # Gradients of the demodulated image need an image; that of a guide is the cleaner one.
    base = buffers[PRIMAL] if guides is None or not given else guides[:, 0]
    parts = []
    for feature in config.features:
        if feature.guide is not None:
            assert guides is not None
            image = guides[:, config.guides.index(feature.guide)]
            values = prepared.normalise(image)
        else:
            values = _normalise_buffer(feature.buffer, buffers[feature.buffer], base, prepared)
            if feature.residual:
                dim = DIFFERENCE_AXES[feature.buffer]
                values = values - difference(prepared.normalise(base), dim)
        values = TRANSFERS[feature.transfer](values)
        if depth_scale is not None and feature.transfer == "max":
            values = values * depth_scale[:, None, None, None]
        parts.append(padding.apply(values, None if feature.guide else feature.buffer))
    return Prepared(torch.cat(parts, dim=-1), padding, scale, modulation)


def require(names: Sequence[str], layout: Layout) -> None:
    """Check that buffers which a network reads are there.

    Raises:
        LayoutError: One is missing.
    """
    if missing := [name for name in names if name not in layout]:
        raise LayoutError(
            f"the network needs the buffer(s) {', '.join(missing)}; there are: "
            f"{', '.join(layout.names)}. Render them, or use other weights"
        )


def _modulation(albedo: torch.Tensor, least: float) -> torch.Tensor:
    """Return what radiance is divided by, (N, H, W, 3)."""
    factor = albedo.clamp_min(least) + _ALBEDO_EPSILON
    if not least:
        return factor
    nothing = albedo.mean(-1, keepdim=True) < _NO_ALBEDO
    return torch.where(nothing, torch.ones_like(factor), factor)


def _normalise_buffer(
    name: str, values: torch.Tensor, base: torch.Tensor, prepared: Prepared
) -> torch.Tensor:
    """Apply exposure and demodulation to a buffer, if it is radiance or the variance of it."""
    row = buffer(name)
    if row.kind != "radiance":
        return values
    modulation = prepared.modulation if row.demodulated else None
    if row.variance_of is not None:
        values = values * prepared.scale.square()
        if modulation is not None:  # one variance for RGB: take the mean of the factors
            values = values / modulation.square().mean(-1, keepdim=True)
        return values
    values = values * prepared.scale
    if modulation is None:
        return values
    if row.difference is None:
        return values / modulation
    return _product_rule(values, base * prepared.scale, modulation.reciprocal(), row.difference)


def _product_rule(
    gradient: torch.Tensor, image: torch.Tensor, factor: torch.Tensor, dim: int
) -> torch.Tensor:
    r"""Return the forward difference of image times factor from that of the image.

    Exact if ``gradient`` is the difference of ``image``:
    :math:`\Delta(I w) = \Delta I\, \bar w + \bar I\, \Delta w` with means over the two pixels.
    """
    length = image.shape[dim] - 1

    def pair(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.narrow(dim, 0, length), x.narrow(dim, 1, length)

    (i0, i1), (w0, w1) = pair(image), pair(factor)
    inner = gradient.narrow(dim, 0, length) * ((w0 + w1) / 2) + (i0 + i1) / 2 * (w1 - w0)
    last = torch.zeros_like(gradient.narrow(dim, length, 1))
    return torch.cat([inner, last], dim=dim)


# --------------------------------------------------------------------------------- borders


def _border_rule(source: str | None, axis: int) -> str:
    """How a buffer, or another image (None), continues beyond the border along an axis."""
    if source is None:
        return "even"
    row = buffer(source)
    if row.difference == axis:
        return "difference" if row.variance_of is None else "difference variance"
    return "odd" if row.kind == "distance" and row.variance_of is None else "even"


def _extend(x: torch.Tensor, dim: int, before: int, after: int, rule: str) -> torch.Tensor:
    """Continue a tensor along an axis, by reflection about its first and last entry."""
    size = x.shape[dim]
    position = torch.arange(-before, size + after + 1, device=x.device)
    period = max(2 * (size - 1), 1)
    folded = position.remainder(period)
    # Position i of the extended primal shows pixel source[i] of the frame.
    source = torch.where(folded < size, folded, period - folded)
    here, following = source[:-1], source[1:]
    shape = [1] * x.dim()
    shape[dim] = -1
    if rule.startswith("difference"):
        values = x.index_select(dim, torch.minimum(here, following))
        sign = following - here  # -1 where the extended image runs backwards, 0 for one pixel
        sign[-1] = 0  # by convention there is no difference across the last border
        sign = sign.abs() if rule.endswith("variance") else sign
        return values * sign.to(x.dtype).view(shape)
    values = x.index_select(dim, here)
    if rule == "even":
        return values
    first, last = x.narrow(dim, 0, 1), x.narrow(dim, size - 1, 1)
    backwards = (folded[:-1] >= size).to(x.dtype).view(shape)
    periods = position[:-1].div(period, rounding_mode="floor").to(x.dtype).view(shape)
    rise = 2 * (last - first)  # from one period to the next
    return values * (1 - 2 * backwards) + 2 * last * backwards + rise * periods
