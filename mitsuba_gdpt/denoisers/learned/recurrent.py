r"""The recurrent model: a sequence of frames to a sequence of images, with an explicit state.

:meth:`RecurrentModel.step` takes a frame and the :class:`State` that the frame before left, and
returns an image and a new state. Nothing else remembers anything.

What keeps the result steady over time, besides the memory of the network:

- Nothing is normalised by what happens to be in view. Depth goes through a fixed function;
  the exposure follows the brightness of the frames slowly (:attr:`RecurrentModelConfig.adaptation`)
  from that of the first frame.
- ``warp``: what the state holds is moved to where its content is now, by the buffer ``motion``.
- ``history``: the image before, moved likewise, is an input and a candidate of the head. It counts
  for as many frames as are in it, up to eight, so that an untrained head is a running mean. Where
  depth and normal say that it shows something else, it counts less.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from mitsuba_gdpt.channels import MOTION, PRIMAL, Layout
from mitsuba_gdpt.decoding import decode
from mitsuba_gdpt.denoisers.images import exposure_scale, warp
from mitsuba_gdpt.denoisers.learned.features import (
    GUIDE,
    BatchPadding,
    Feature,
    InputConfig,
    Prepared,
    preprocess,
)
from mitsuba_gdpt.denoisers.learned.model import FAVOUR, How, Model, ModelConfig, blend, compressed
from mitsuba_gdpt.denoisers.learned.networks import RecurrentUNet, RecurrentUNetConfig
from mitsuba_gdpt.errors import ConfigError, LayoutError

HEADS = ("direct", "blend")

_DEPTH = "depth"
_GEOMETRY = (_DEPTH, "normal")
_MEDIAN_DEPTH = 4.0  # of the first frame, as a network sees it
_HISTORY_CHANNELS = 4  # the image before, and the frames in it
_OLDEST = 8.0  # frames; training on windows of seven does not see more, so neither must use
_DEPTH_TOLERANCE = 0.1  # relative
_NEAREST = 1e-30  # depth that counts as none, in any unit of length
_LEAST_AGE = 1e-3  # the network can overrule the comparison of depth and normal
_ABSENT = -30.0  # logit of what is not there


@dataclass(frozen=True)
class RecurrentModelConfig(ModelConfig):
    """A recurrent autoencoder and how it is used.

    Attributes:
        inputs: What it sees of a frame.
        network: Sizes; inputs and outputs follow from the rest, see :meth:`make`.
        head: One of :data:`HEADS`, which are as of
            :class:`~mitsuba_gdpt.denoisers.learned.dense.DenseModelConfig`. Its candidates are the
            guides, the primal, and the image before if ``history``.
        guides: Methods whose images the head uses; they are inputs too if ``inputs`` says so.
        warp: Move the state by ``motion``.
        history: Show the image before to the network and, with ``"blend"``, to the head.
        adaptation: By how much of the difference in stops the exposure approaches that of a new
            frame; 0 keeps that of the first.
    """

    inputs: InputConfig
    network: RecurrentUNetConfig
    head: str = "direct"
    guides: tuple[str, ...] = ()
    warp: bool = False
    history: bool = False
    adaptation: float = 0.1

    def __post_init__(self) -> None:
        """Refuse combinations that make no sense.

        Raises:
            ConfigError: The head is unknown, a number out of range, or a channel count wrong.
        """
        if self.head not in HEADS:
            raise ConfigError(f"head is {self.head!r}; expected one of {', '.join(HEADS)}")
        if not 0 <= self.adaptation <= 1:
            raise ConfigError(f"adaptation is {self.adaptation}; expected 0 to 1")
        expected = _channel_counts(self.inputs, self.head, self.guides, self.history)
        if (self.network.inputs, self.network.outputs) != expected:
            raise ConfigError(
                f"the network has {self.network.inputs} inputs and {self.network.outputs} outputs; "
                f"features, history and head need {expected[0]} and {expected[1]}"
            )

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the buffers that every frame must have."""
        return tuple(dict.fromkeys((*self.inputs.needs, *(_GEOMETRY if self.history else ()))))

    @property
    def later(self) -> tuple[str, ...]:
        """Names of the buffers that frames with a predecessor must have besides."""
        return (MOTION,) if self.warp else ()

    def changed(
        self,
        changes: Mapping[str, Any],
        *,
        guides: tuple[str, ...] = (),
        inputs: tuple[str, ...] = (),
    ) -> RecurrentModelConfig:
        """See :meth:`ModelConfig.changed`.

        ``changes`` are fields of
        :class:`~mitsuba_gdpt.denoisers.learned.networks.RecurrentUNetConfig`, and ``head``,
        ``warp``, ``history``, ``adaptation``.
        """
        if inputs:
            raise ConfigError(f"this model has no optional inputs; got {', '.join(inputs)}")
        if guides and not self.guides:
            raise ConfigError("this method sees no images of other methods")
        images = tuple(guides) or self.guides
        features = [feature for feature in self.inputs.features if feature.guide is None]
        features += [Feature(GUIDE + guide, "log1p") for guide in images]
        kinds = typing.get_type_hints(RecurrentModelConfig)
        options = {
            name: decode(kinds[name], changes.get(name, getattr(self, name)), name)
            for name in ("head", "warp", "history", "adaptation")
        }
        sizes = dataclasses.asdict(self.network)
        del sizes["zero_head"]  # follows the head
        sizes |= {name: value for name, value in changes.items() if name not in options}
        network = decode(RecurrentUNetConfig, sizes, "network")
        chosen = {name: getattr(network, name) for name in sizes}
        seen = dataclasses.replace(self.inputs, features=tuple(features))
        return RecurrentModelConfig.make(seen, guides=images, network=chosen, **options)

    @classmethod
    def make(
        cls,
        inputs: InputConfig,
        *,
        head: str = "direct",
        guides: tuple[str, ...] = (),
        history: bool = False,
        network: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> RecurrentModelConfig:
        """Fill in the channel counts.

        Args:
            inputs: What the network sees.
            head: As of this class.
            guides: As of this class.
            history: As of this class.
            network: Fields of :class:`RecurrentUNetConfig`; its channel counts are ignored.
            **options: Other fields of this class.
        """
        count, outputs = _channel_counts(inputs, head, guides, history)
        sizes = {"zero_head": head != "direct", **(network or {})}
        sizes |= {"inputs": count, "outputs": outputs}
        return cls(inputs, RecurrentUNetConfig(**sizes), head, guides, history=history, **options)


def _channel_counts(
    inputs: InputConfig, head: str, guides: Sequence[str], history: bool
) -> tuple[int, int]:
    """Return how many inputs and outputs a network needs."""
    candidates = len(guides) + 1 + history  # the primal is one
    logits = candidates if head == "blend" else 0
    return inputs.channels + _HISTORY_CHANNELS * history, 3 + logits


@dataclass(frozen=True)
class State:
    """What one frame leaves to the next; of a size that depends on the resolution only.

    Attributes:
        hidden: Outputs of the recurrent blocks, (N, h, w, c) per stage, padded.
        exposure: (N, 1, 1, 1) factor on radiance.
        length: (N, 1, 1, 1) median depth of the first frame in which anything was hit; 0: none yet.
        image: (N, H, W, 3) radiance, or None without ``history``. Its noise is not that of the
            albedo: to divide by one frame's albedo and multiply by another's would add the noise
            of both at every edge and in every light.
        geometry: (N, H, W, 4) depth and normal, likewise.
        age: (N, H, W, 1) number of frames in the image, likewise.
        size: H, W of the frame.
    """

    hidden: tuple[torch.Tensor, ...]
    exposure: torch.Tensor
    length: torch.Tensor
    image: torch.Tensor | None
    geometry: torch.Tensor | None
    age: torch.Tensor | None
    size: tuple[int, int]

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        tensors = (*self.hidden, self.exposure, self.length, self.image, self.geometry, self.age)
        return sum(t.numel() * t.element_size() for t in tensors if t is not None)

    def exposed(self, factor: float) -> State:
        """Multiply the radiance in it by a factor."""
        image = None if self.image is None else self.image * factor
        return replace(self, exposure=self.exposure / factor, image=image)


class RecurrentModel(Model):
    """Reconstruction of sequences; see the module and :class:`RecurrentModelConfig`."""

    def __init__(self, config: RecurrentModelConfig) -> None:
        super().__init__()
        self.config = config
        self.network = RecurrentUNet(config.network)
        self.guides = tuple(dict.fromkeys((*config.guides, *config.inputs.guides)))
        self.needs = config.needs

    def image(
        self, data: torch.Tensor, layout: Layout, guides: torch.Tensor | None, how: How
    ) -> torch.Tensor:
        """Reconstruct single frames; ``how`` means nothing here."""
        return self.step(data, layout, guides)[0]

    def sequence(
        self, data: torch.Tensor, layout: Layout, guides: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Reconstruct whole sequences, with gradients through time if they are recorded.

        Args:
            data: (N, T, H, W, C) buffers, finite.
            layout: Meaning of C.
            guides: (N, T, G, H, W, 3) radiance, in the order of ``self.guides``.

        Returns:
            (N, T, H, W, 3) radiance; the same as T calls of :meth:`step`.
        """
        state, images = None, []
        for t in range(data.shape[1]):
            shown = None if guides is None else guides[:, t]
            image, state = self.step(data[:, t], layout, shown, state)
            images.append(image)
        return torch.stack(images, 1)

    def step(
        self,
        data: torch.Tensor,
        layout: Layout,
        guides: torch.Tensor | None = None,
        state: State | None = None,
    ) -> tuple[torch.Tensor, State]:
        """Reconstruct the next frame.

        Args:
            data: (N, H, W, C) buffers, finite.
            layout: Meaning of C.
            guides: (N, G, H, W, 3) radiance, in the order of ``self.guides``.
            state: What the frame before left; None for the first. It is not changed.

        Returns:
            (N, H, W, 3) radiance, and the state for the next frame.

        Raises:
            LayoutError: A buffer or a guide is missing, or the state is that of another size.
        """
        config, slices = self.config, layout.slices
        height, width = int(data.shape[1]), int(data.shape[2])
        state = self._fit(state, data, layout)
        exposure = self._exposure(data[..., slices[PRIMAL]], state)
        data, length = self._in_common_unit(data, layout, state)
        prepared = preprocess(
            data,
            layout,
            config.inputs,
            alignment=config.network.alignment,
            guides=self._choose(guides, config.inputs.guides),
            exposure=exposure,
            margin=0,
        )
        motion = data[..., slices[MOTION]] if config.warp and state is not None else None
        geometry = None
        x, before, age = prepared.input, None, None
        if config.history:
            geometry = torch.cat([data[..., slices[name]] for name in _GEOMETRY], -1)
            past, age = _history(state, geometry, motion)
            before = compressed(past, prepared)
            shown = [prepared.padding.apply(part, None) for part in (before, age / _OLDEST)]
            x = torch.cat([x, *shown], -1)
        hidden = None if state is None else self._move(state.hidden, motion, prepared.padding)
        output, hidden = self.network(x, hidden)
        output = prepared.padding.remove(output).float()
        images = self._candidates(data, layout, prepared, self._choose(guides, config.guides))
        if before is not None:
            images.append(before)
        image = prepared.restore(self._interpret(output, images, age).expm1())
        kept = image if config.history else None
        age = None if age is None else (age + 1).clamp_max(_OLDEST)
        return image, State(hidden, exposure, length, kept, geometry, age, (height, width))

    # ------------------------------------------------------------------------------ parts

    def _fit(self, state: State | None, data: torch.Tensor, layout: Layout) -> State | None:
        """Check that a state belongs to a frame; return the state."""
        if state is None:
            return None
        size = (int(data.shape[1]), int(data.shape[2]))
        if state.size != size or len(state.exposure) != len(data):
            raise LayoutError(
                f"got a frame of {size[1]} x {size[0]} pixels after one of {state.size[1]} x "
                f"{state.size[0]}; the state does not fit. Reset the stream before the first frame "
                f"of another size"
            )
        if missing := [name for name in self.config.later if name not in layout]:
            raise LayoutError(
                f"the network needs the buffer(s) {', '.join(missing)} from the second frame on; "
                f"there are: {', '.join(layout.names)}. Frame sets have motion; for other renders "
                f"call mitsuba_gdpt.add_motion"
            )
        return state

    def _exposure(self, primal: torch.Tensor, state: State | None) -> torch.Tensor:
        if not self.config.inputs.exposure:
            return primal.new_ones(len(primal), 1, 1, 1)
        wanted = exposure_scale(primal)
        if state is None:
            return wanted
        return torch.lerp(state.exposure.log(), wanted.log(), self.config.adaptation).exp()

    def _in_common_unit(
        self, data: torch.Tensor, layout: Layout, state: State | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Bring depth to the unit of length that the network has learned with.

        Returns:
            The buffers, and the length that the next frame is to be measured with as well:
            whatever is in view, equal surfaces are to look equal in all frames.
        """
        length = data.new_zeros(len(data), 1, 1, 1) if state is None else state.length
        if _DEPTH not in layout:
            return data, length
        depth = data[..., layout.slices[_DEPTH]]
        hit = torch.where(depth > 0, depth, torch.nan).flatten(1)
        median = hit.nanmedian(1).values.nan_to_num(0)[:, None, None, None]
        length = torch.where(length > 0, length, median)
        data = data.clone()
        data[..., layout.slices[_DEPTH]] = depth * torch.where(
            length > 0, _MEDIAN_DEPTH / length, torch.ones_like(length)
        )
        return data, length

    def _candidates(
        self, data: torch.Tensor, layout: Layout, prepared: Prepared, guides: torch.Tensor | None
    ) -> list[torch.Tensor]:
        images = [] if guides is None else list(guides.unbind(1))
        images.append(data[..., layout.slices[PRIMAL]])
        return [compressed(image, prepared) for image in images]

    def _interpret(
        self, output: torch.Tensor, images: list[torch.Tensor], age: torch.Tensor | None
    ) -> torch.Tensor:
        """Turn the output of the network into log(1 + image) without albedo."""
        if self.config.head == "direct":
            return output
        start = output.new_zeros((*output.shape[:-1], len(images)))
        start[..., 0] = FAVOUR
        if age is not None:
            known = FAVOUR + age.clamp_min(_LEAST_AGE).log()
            start[..., -1:] = torch.where(age > 0, known, torch.full_like(known, _ABSENT))
        return blend(output, images, start)

    def _move(
        self,
        hidden: tuple[torch.Tensor, ...],
        motion: torch.Tensor | None,
        padding: BatchPadding,
    ) -> tuple[torch.Tensor, ...]:
        """Warp the states of all stages."""
        if motion is None:
            return hidden
        padded = padding.apply(motion, None)
        result = []
        for level, state in enumerate(hidden):
            block = self.config.network.patch << level
            pooled = functional.avg_pool2d(padded.permute(0, 3, 1, 2), block).permute(0, 2, 3, 1)
            # Positions in bfloat16 would be off by pixels.
            result.append(warp(state.float(), pooled / block))
        return tuple(result)


def _history(
    state: State | None, geometry: torch.Tensor, motion: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the image before, (N, H, W, 3), and the frames in it that count, (N, H, W, 1)."""
    if state is None:
        shape = geometry.shape[:-1]
        return geometry.new_zeros((*shape, 3)), geometry.new_zeros((*shape, 1))
    assert state.image is not None
    assert state.geometry is not None
    assert state.age is not None
    image, old, age = state.image, state.geometry, state.age
    inside = torch.ones_like(age)
    if motion is not None:
        # Bilinear interpolation, frame after frame, would blur what is kept.
        image = warp(image, motion, "bicubic").clamp_min(0)
        parts = (old, age, inside)
        moved = warp(torch.cat(parts, -1), motion)
        old, age, inside = moved.split([part.shape[-1] for part in parts], -1)
    depth, normal = geometry[..., :1], geometry[..., 1:]
    scale = torch.maximum(depth, old[..., :1]).clamp_min(_NEAREST) * _DEPTH_TOLERANCE
    same_depth = (-((depth - old[..., :1]).abs() / scale)).exp()
    # Both are 0 where the ray escapes, which is agreement.
    nothing = (normal.square().sum(-1, keepdim=True) == 0) & (depth == 0)
    facing = (normal * old[..., 1:]).sum(-1, keepdim=True).clamp(0, 1)
    age = age * same_depth * torch.where(nothing, 1.0, facing)
    # Within a pixel of the border the image fades out; it must not darken the result.
    return image, torch.where(inside > 0.99, age, 0.0)
