r"""``temporal``: another method, on samples gathered over frames along the motion.

Most of what a frame shows was there in the frames before, with noise of its own. So the buffers of
up to eight frames are averaged before a method reconstructs the image: where a pixel has been in
sight for :math:`n` frames, the method sees :math:`n` times the samples, and the samples that two
frames have in common do not flicker. (To average the method's *images* instead, as ``rdae-oidn``
begins, lowers their noise but not the blur that it caused.)

- Samples are fetched from the nearest pixel, without interpolation: what the methods take for noise
  must be independent from pixel to pixel. The position in each past frame is carried along with its
  fraction, so that rounding does not add up.
- A sample counts the less, the more albedo, normal and depth say that it shows something else.
  Depth changes as the camera moves, and so is compared from frame to frame, all the way back.
- Few samples hit an edge differently in each frame. Where nothing has moved, a sample agrees if it
  lies in the range of the pixel and its eight neighbours. In motion that would drag edges along.
- Where the radiance around has changed by more than its noise explains, samples count less too:
  highlights move over surfaces that stay. Single pixels say more about fireflies than about
  change, so means over windows are compared, of pixels no brighter than their neighbours.
- The image of the frame before, moved along the motion and limited to the range of the new one's
  neighbours, is mixed in with what the two frames agree on: it takes out what the method makes of
  the same samples when they fall on the pixels differently (the feedback of temporal
  anti-aliasing: B. Karis, *High-Quality Temporal Supersampling*, SIGGRAPH courses 2014).
- What is gathered is the primal and its gradients, features, and variances, all with the same
  weights. Light that is seen emitted (the optional buffer ``emission``) is left out of primal and
  gradients meanwhile, and gathered only where nothing moves: half a pixel beside a lamp, its light
  would be thousands of times that of the wall, and no feature tells the two apart.

The scene is taken to be static. Reflections are as good as their motion, see
:mod:`mitsuba_gdpt.motion`. Of what moves by itself, that leaves a trail which changes the
radiance around by less than its noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch.nn import functional

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import DIFFERENCE_AXES, DIRECT, MOTION, PRIMAL, Layout
from mitsuba_gdpt.denoisers import registry
from mitsuba_gdpt.denoisers.exposure import Exposure, expose
from mitsuba_gdpt.denoisers.images import difference, warp, window_mean, without_spikes
from mitsuba_gdpt.errors import ConfigError, LayoutError

#: What is compared between frames.
FEATURES = ("albedo", "normal", "depth")
#: What is kept apart, if it is there.
EMISSION = "emission"

# Differences that lower the weight of a sample to 1/e. Found on 2 spp renders of three development
# scenes and four built-in ones; half and twice of each differ by a few per cent.
_ALBEDO = 0.2  # root of the mean square over RGB
_NORMAL = 0.5  # length
_DEPTH_STEP = 0.1  # relative, from one frame to the next
_DEPTH = 0.3  # relative, over all frames
_LIGHT = 0.15  # of the mean radiance around, relative, beyond what noise explains
_LIGHT_WINDOW = 9  # side of what is around, in pixels
_LIGHT_NOISE = 3.0  # standard deviations that noise explains; with 2, noise counts as change
_STILL = 0.2  # motion in pixels that narrows the range of the neighbours to 1/e
_DARKEST = 1e-3  # radiance, relative to the mean, at which logarithms become linear
_NEAREST = 1e-30  # depth that counts as none, in any unit of length
_BLACK = 1e-12  # radiance at common brightness, likewise


@dataclass(frozen=True)
class PastFrame:
    """An earlier frame, and where in it the pixels of the latest frame are.

    Attributes:
        data: (H, W, C) buffers as rendered, but without emission in primal and gradients.
        light: (H, W, 2) mean radiance around each pixel, and the variance of this mean.
        position: (H, W, 2) x and y, pixel centres at whole numbers.
        trust: (H, W) from 0 to 1; 0 where the way back leads out of sight.
        spp: Samples per pixel, by which frames count; 1 where that is not known.
    """

    data: torch.Tensor
    light: torch.Tensor
    position: torch.Tensor
    trust: torch.Tensor
    spp: float = 1.0


@dataclass(frozen=True)
class History:
    """The frames before; not changed by :func:`accumulate`.

    Attributes:
        layout: Of their buffers.
        frames: The latest one first.
        image: (H, W, 3) what was made of the latest frame; None if nothing was.
    """

    layout: Layout
    frames: tuple[PastFrame, ...]
    image: torch.Tensor | None = None

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        held = [getattr(frame, field.name) for frame in self.frames for field in fields(frame)]
        tensors = [value for value in (*held, self.image) if isinstance(value, torch.Tensor)]
        return sum(t.numel() * t.element_size() for t in tensors)

    def exposed(self, factor: float) -> History:
        """Multiply the radiance in it by a factor."""
        light = torch.tensor([factor, factor**2])
        frames = tuple(
            replace(
                frame,
                data=expose(FrameBuffers(frame.data, self.layout), factor).data,
                light=frame.light * light.to(frame.light),
            )
            for frame in self.frames
        )
        image = None if self.image is None else self.image * factor
        return History(self.layout, frames, image)


def accumulate(
    buffers: FrameBuffers, history: History | None = None, *, frames: int = 8
) -> tuple[FrameBuffers, History, torch.Tensor]:
    """Average the buffers of a frame with those of the frames before, by their samples.

    Args:
        buffers: The frame: with albedo, normal and depth, and, unless it is the first, with motion.
            ``spp`` in its metadata says how much it counts beside others.
        history: What the frame before left; None for the first, and after a scene cut.
        frames: Largest number of frames to average, this one included.

    Returns:
        The same buffers without motion and emission, the history for the next frame, and how much
        the frame before shows what is in each pixel or beside it, (H, W, 1) from 0 to 1.

    Raises:
        LayoutError: Motion is missing, or size or layout are not those of the frame before.
    """
    frame = buffers.without([MOTION])  # a copy: the caller may reuse the memory
    if emission := EMISSION in frame.layout:
        _add_emission(frame, -frame[EMISSION])
    data, slices = frame.data, frame.layout.slices
    shown = {name: _Feature.of(frame[name]) for name in FEATURES}
    past = () if history is None else _follow(buffers, frame, shown["depth"], history)
    light, spp = _light(frame["primal"]), _spp(frame)
    variance = torch.tensor(
        [b.variance_of is not None for b in frame.layout.buffers for _ in b.suffixes],
        device=data.device,
    )
    here = _pixels(data)
    weighted, total = data.clone(), torch.ones_like(data[..., :1])
    at_rest = torch.ones_like(total)
    agreement = torch.zeros_like(total)
    for earlier in past:
        pixel, inside = _nearest(earlier.position)
        samples = _fetch(earlier.data, pixel)
        showed = {name: samples[..., slices[name]] for name in FEATURES}
        still = _stillness(earlier.position - here)
        same_light = inside[..., None] * _same_light(light, _fetch(earlier.light, pixel))
        weight = earlier.trust[..., None] * same_light * _agreement(shown, showed, still, _DEPTH)
        if earlier is past[0]:
            everywhere = torch.ones_like(still)
            agreement = same_light * _agreement(shown, showed, everywhere, _DEPTH_STEP)
            agreement *= earlier.trust[..., None] > 0  # in sight
        weight = weight * (earlier.spp / spp)
        weights = torch.where(variance, weight.square(), weight)
        total += weight
        if emission:
            weights[..., slices[EMISSION]] *= still
            at_rest += weight * still
        weighted += weights * samples
    totals = torch.where(variance, total.square(), total)
    if emission:
        totals[..., slices[EMISSION]] = at_rest
    mean = FrameBuffers(weighted / totals, frame.layout, frame.metadata)
    if emission:
        _add_emission(mean, mean[EMISSION])
        mean = mean.without([EMISSION])
        slices = mean.layout.slices
    # There is no difference across the last border; that of an earlier frame lay further in.
    for name, end in (("dx", mean.data[:, -1]), ("dy", mean.data[-1])):
        if name in slices:
            end[:, slices[name]] = 0
    latest = PastFrame(data, light, here, torch.ones_like(data[..., 0]), spp)
    return mean, History(frame.layout, (latest, *past)[: frames - 1]), agreement


def _mix(
    image: torch.Tensor, before: torch.Tensor, motion: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """Mix the image before into the new one, by logarithms: edges of lamps would spread else.

    Args:
        image: (H, W, 3) radiance.
        before: (H, W, 3) radiance.
        motion: (H, W, 2) where in it the pixels are.
        weight: (H, W, 1) of the image before, from 0 to 1; 0 where it is out of sight.
    """
    darkest = _DARKEST * image.clamp_min(0).mean() + torch.finfo(image.dtype).tiny
    new, old = ((x.clamp_min(0) + darkest).log().movedim(-1, 0)[None] for x in (image, before))
    moved = warp(old.permute(0, 2, 3, 1), motion[None], "bicubic", "border").permute(0, 3, 1, 2)
    above, below = (functional.max_pool2d(x, 3, 1, 1) for x in (new, -new))
    moved = torch.minimum(torch.maximum(moved, -below), above)
    mixed = torch.lerp(new, moved, weight.movedim(-1, 0)[None])
    mixed = (mixed[0].movedim(0, -1).exp() - darkest).clamp_min(0)
    return torch.where(weight > 0, mixed, image)


def _spp(frame: FrameBuffers) -> float:
    """Return the samples per pixel of a frame, 1 where it does not say."""
    try:
        return max(1.0, float(frame.metadata["spp"]))
    except (KeyError, ValueError):
        return 1.0


def _add_emission(frame: FrameBuffers, emission: torch.Tensor) -> None:
    """Add light that is seen emitted, (H, W, 3), to all that it is part of, in place."""
    for name in (PRIMAL, DIRECT):
        if name in frame.layout:
            frame[name].add_(emission)
    for name, dim in DIFFERENCE_AXES.items():
        if name in frame.layout:
            frame[name].add_(difference(emission, dim))


def _follow(
    buffers: FrameBuffers, frame: FrameBuffers, depth: _Feature, history: History
) -> tuple[PastFrame, ...]:
    """Find the pixels of a new frame (with and without motion) in the past ones."""
    if not history.frames:
        return ()
    last = history.frames[0].data
    if frame.data.shape[:2] != last.shape[:2]:
        raise LayoutError(
            f"got a frame of {frame.width} x {frame.height} pixels after one of "
            f"{last.shape[1]} x {last.shape[0]}; reset the stream before a frame of another size"
        )
    if MOTION not in buffers.layout:
        raise LayoutError(
            f"method 'temporal' needs the buffer motion from the second frame on; there are: "
            f"{', '.join(frame.names)}. Frame sets have it; for other renders call "
            f"mitsuba_gdpt.add_motion"
        )
    if frame.layout != history.layout:
        raise LayoutError(
            f"got the buffers {', '.join(frame.names)} after {', '.join(history.layout.names)}; "
            f"expected the same in all frames of a sequence"
        )
    position = _pixels(last) + buffers[MOTION]
    pixel, inside = _nearest(position)
    offset = position - position.round()
    before = _fetch(last[..., frame.layout.slices["depth"]], pixel)
    step = depth.relative(before, _stillness(buffers[MOTION])) / _DEPTH_STEP
    trust = inside * (-step.square()).exp()[..., 0]
    return tuple(
        PastFrame(
            earlier.data,
            earlier.light,
            _fetch(earlier.position, pixel) + offset,
            _fetch(earlier.trust[..., None], pixel)[..., 0] * trust,
            earlier.spp,
        )
        for earlier in history.frames
    )


@dataclass(frozen=True)
class _Feature:
    """What a frame shows, and how far the eight pixels around go below and above; (H, W, c)."""

    values: torch.Tensor
    below: torch.Tensor
    above: torch.Tensor

    @classmethod
    def of(cls, values: torch.Tensor) -> _Feature:
        both = torch.cat([-values, values], -1).movedim(-1, 0)
        below, above = (functional.max_pool2d(both, 3, 1, 1) - both).movedim(0, -1).chunk(2, -1)
        return cls(values, below, above)

    def outside(self, earlier: torch.Tensor, still: torch.Tensor) -> torch.Tensor:
        """Return how far earlier values (H, W, c) lie outside of what is shown.

        Args:
            earlier: (H, W, c).
            still: (H, W, 1) how much of the range around counts as shown, from 0 to 1.
        """
        change = earlier - self.values
        return functional.relu(change - still * self.above) + functional.relu(
            -change - still * self.below
        )

    def relative(self, earlier: torch.Tensor, still: torch.Tensor) -> torch.Tensor:
        """Return the same relative to the larger of both values."""
        return self.outside(earlier, still) / torch.maximum(self.values, earlier).clamp_min(
            _NEAREST
        )


def _agreement(
    shown: Mapping[str, _Feature],
    earlier: Mapping[str, torch.Tensor],
    still: torch.Tensor,
    depth: float,
) -> torch.Tensor:
    """Return how much an earlier frame shows the same thing, (H, W, 1) from 0 to 1.

    Args:
        shown: What the frame shows.
        earlier: What the pixels of the earlier frame show, (H, W, c).
        still: See :meth:`_Feature.outside`.
        depth: Relative difference in depth that lowers it to 1/e.
    """
    albedo, normal = (shown[name].outside(earlier[name], still) for name in ("albedo", "normal"))
    distance = (
        albedo.square().mean(-1, keepdim=True) / _ALBEDO**2
        + normal.square().sum(-1, keepdim=True) / _NORMAL**2
        + (shown["depth"].relative(earlier["depth"], still) / depth).square()
    )
    return (-distance).exp()


def _stillness(motion: torch.Tensor) -> torch.Tensor:
    """Return 1 where nothing has moved, falling to 0; (H, W, 2) to (H, W, 1)."""
    return (-motion.square().sum(-1, keepdim=True) / _STILL**2).exp()


def _light(primal: torch.Tensor) -> torch.Tensor:
    """Return the mean of radiance around each pixel and the variance of this mean, (H, W, 2)."""
    limited = without_spikes({PRIMAL: primal[None]})[PRIMAL].mean(-1, keepdim=True)
    # Of differences from a common value, which do not cancel, the variance is the same.
    common = limited.mean()
    centred = limited - common
    moments = torch.cat([centred, centred.square()], -1)
    mean, square = window_mean(moments, _LIGHT_WINDOW).split(1, -1)
    variance = (square - mean.square()).clamp_min(0) / _pixels_around(limited)
    return torch.cat([mean + common, variance], -1)[0]


def _pixels_around(image: torch.Tensor) -> torch.Tensor:
    """Return how many pixels of an image (N, H, W, c) lie in the window, (H, W, 1)."""
    reach = _LIGHT_WINDOW // 2
    sides = []
    for size in image.shape[1:3]:
        at = torch.arange(size, device=image.device)
        sides.append((at + reach + 1).clamp_max(size) - (at - reach).clamp_min(0))
    rows, columns = sides
    return (rows[:, None] * columns)[..., None]


def _same_light(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return how far two results of :func:`_light` agree, (H, W, 1) from 0 to 1."""
    (mean_a, variance_a), (mean_b, variance_b) = a.split(1, -1), b.split(1, -1)
    noise = _LIGHT_NOISE**2 * (variance_a + variance_b)
    change = ((mean_a - mean_b).square() - noise).clamp_min(0)
    tolerated = _LIGHT * torch.maximum(mean_a, mean_b).clamp_min(_BLACK)
    return (-change / tolerated.square()).exp()


def _pixels(image: torch.Tensor) -> torch.Tensor:
    """Return the positions of the pixels of an image, (H, W, 2)."""
    height, width = image.shape[:2]
    rows, columns = (torch.arange(size, device=image.device) for size in (height, width))
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], -1).to(image.dtype)


def _nearest(position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the number of the pixel at each position, and whether it is of use; (H, W) each.

    Beyond the last column and row there are no differences, so they serve their like only.
    """
    height, width = position.shape[:2]
    x, y = position.round().unbind(-1)
    rows, columns = (torch.arange(size, device=position.device) for size in (height, width))
    inside = (x >= 0) & (y >= 0)
    inside &= (x < width - 1) | ((x == width - 1) & (columns == width - 1))
    inside &= (y < height - 1) | ((y == height - 1) & (rows == height - 1)[:, None])
    return (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).long(), inside


def _fetch(image: torch.Tensor, pixel: torch.Tensor) -> torch.Tensor:
    """Return (H, W, c) values at (H, W) pixels."""
    return image.flatten(0, 1)[pixel]


@registry.register(
    "temporal",
    group="everyday",
    needs=(PRIMAL, *FEATURES),
    uses=(MOTION, EMISSION),
    doc="another method on the samples of several frames, gathered along the motion",
    recurrent=True,
    exposure=Exposure.BINARY,
)
def temporal(
    buffers: FrameBuffers,
    history: History | None,
    *,
    frames: int = 8,
    feedback: float = 0.3,
    using: registry.Call | str = "ngpt-fusion",
) -> tuple[torch.Tensor, History]:
    """Reconstruct the next frame of a sequence.

    Args:
        buffers: Needs what the other method needs, albedo, normal and depth, and, after the first
            frame, motion. With emission, edges of bright lamps stay sharp in motion.
        history: What the frame before left. Per frame and pixel, 4 bytes for each channel and 20
            more are kept, and 12 for the image: 0.55 GB for seven frames of 1280x720 pixels and 16
            channels.
        frames: Largest number of frames to average, 1 or more.
        feedback: Weight of the image before where both frames agree, 0 or more and below 1.
        using: The other method, which sees one frame at a time, with options, as
            ``"oidn(aux=raw)"``.

    Returns:
        (H, W, 3) float32 scene-linear radiance on the buffers' device, and the new history.

    Raises:
        ConfigError: ``frames`` or ``feedback`` is out of range, or the other method has a memory of
            its own.
        LayoutError: See :func:`accumulate`.
    """
    if frames < 1:
        raise ConfigError(f"frames is {frames}; expected 1 or more")
    if not 0 <= feedback < 1:
        raise ConfigError(f"feedback is {feedback}; expected 0 <= feedback < 1")
    other = registry.Call.parse(using)
    if other.target.recurrent:
        raise ConfigError(f"using is {other}, which is recurrent; expected one that is not")
    before = None if history is None else history.image
    gathered, history, agreement = accumulate(buffers, history, frames=frames)
    image = other.within(gathered)
    if feedback and frames > 1 and before is not None:
        image = _mix(image, before, buffers[MOTION], feedback * agreement)
    return image, replace(history, image=image)
