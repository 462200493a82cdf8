"""Reconstruction models: input description, network and interpretation of its output in one.

A model is an ``nn.Module`` from buffers (and images of other methods, its *guides*) to radiance.
It is described completely by a configuration, which is stored with its weights. There are three
architectures: ``dense-unet`` here, ``kpcn`` in :mod:`mitsuba_gdpt.denoisers.kpcn`, and
``recurrent-unet``, with a state, in :mod:`mitsuba_gdpt.denoisers.recurrent`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from mitsuba_gdpt.channels import PRIMAL, VARIANCE_SUFFIX, Layout
from mitsuba_gdpt.denoisers import fusion, noise, tiling
from mitsuba_gdpt.denoisers.inputs import (
    InputConfig,
    Prepared,
    mean_square,
    preprocess,
    window_mean,
)
from mitsuba_gdpt.denoisers.networks import DenseUNet, DenseUNetConfig, fold_weight_norm
from mitsuba_gdpt.errors import ConfigError, LayoutError

HEADS = ("direct", "residual", "blend", "fusion")
PRECISIONS = ("auto", "float32", "bfloat16")

#: Head start of the first guide in the logits of "blend": exp(6) to 1.
FAVOUR = 6.0

_BLUR = 7  # pixels; the variance of one pixel alone is too noisy an estimate to trust
_GATE_EPSILON = 1e-4  # squared radiance at common brightness


class Model(nn.Module):
    """What all models share.

    Attributes:
        needs: Names of the buffers that the model reads.
        guides: Names of the methods whose images it gets besides.
    """

    needs: tuple[str, ...]
    guides: tuple[str, ...]

    def forward(
        self,
        data: torch.Tensor,
        layout: Layout,
        guides: torch.Tensor | None = None,
        *,
        shift: tuple[int, int] = (0, 0),
        depth_scale: torch.Tensor | None = None,
        memory: float | None = None,
    ) -> torch.Tensor:
        """Reconstruct images.

        Args:
            data: (N, H, W, C) buffers, finite.
            layout: Meaning of C.
            guides: (N, G, H, W, 3) radiance, in the order of ``self.guides``.
            shift: Position of the frame inside its padding; for training.
            depth_scale: (N,) factors on the normalised depth; for training.
            memory: Bytes of activations that inference may use; larger frames are tiled. None
                never tiles. Ignored while gradients are recorded.

        Returns:
            (N, H, W, 3) radiance.
        """
        raise NotImplementedError

    def _choose(self, guides: torch.Tensor | None, names: tuple[str, ...]) -> torch.Tensor | None:
        """Return some of the guides, or None if none are wanted.

        Raises:
            LayoutError: There are none.
        """
        if not names:
            return None
        if guides is None:
            raise LayoutError(f"this model needs images of: {', '.join(self.guides)}")
        return guides[:, [self.guides.index(name) for name in names]]

    def _in_tiles(
        self,
        function: Callable[[torch.Tensor], torch.Tensor],
        x: torch.Tensor,
        *,
        floats: float,
        alignment: int,
        radius: int,
        memory: float | None,
    ) -> torch.Tensor:
        """Apply a local function, in tiles if it has to be.

        Args:
            function: See :func:`~mitsuba_gdpt.denoisers.tiling.run_tiled`, as the other arguments.
            x: (N, H, W, C).
            floats: How many the function keeps alive at once, per pixel.
            alignment: Phase of the function.
            radius: How far an input pixel can influence the output.
            memory: See :meth:`forward`.
        """
        if torch.is_grad_enabled() or memory is None:
            return function(x)
        side = tiling.tile_size(4 * floats * len(x), alignment, radius, memory)
        return tiling.run_tiled(function, x, alignment=alignment, radius=radius, side=side)

    def prepare_inference(self) -> None:
        """Freeze the parameters, and fold what only training needs apart."""
        self.eval().requires_grad_(False)
        fold_weight_norm(self)


@dataclasses.dataclass(frozen=True)
class DenseModelConfig:
    """A dense U-Net and how it is used.

    Attributes:
        inputs: What it sees.
        network: Sizes; inputs and outputs follow from the rest and may be left at 0.
        head: ``"direct"``: the output is the image's log(1 + x). ``"residual"``: it is added to
            that of the first guide. ``"blend"``: it holds a weight for each guide and the primal
            (softmax), and three residuals that are added to the weighted mean of log(1 + x).
            ``"fusion"``: that image is then brought into line with dx and dy by a screened Poisson
            solve (:mod:`mitsuba_gdpt.denoisers.fusion`); the output holds factors on its weights,
            one per pixel and direction. All but ``"direct"`` start as the first guide, ``"fusion"``
            as that fused by the variance of the gradients.
        guides: Methods whose images the head uses; they are inputs too if ``inputs`` says so.
        consistency: If not 0, the relative standard deviation of the primal at which the result
            consists half of the primal. It makes the method consistent: as the number of samples
            grows, the result converges to the primal, whatever the network says. The variance is
            estimated (:mod:`mitsuba_gdpt.denoisers.noise`) unless a rendered one is an input.
        limit: If not 0, the largest residual: how far log(1 + x) can be from that of the guide.
    """

    inputs: InputConfig
    network: DenseUNetConfig
    head: str = "direct"
    guides: tuple[str, ...] = ()
    consistency: float = 0.0
    limit: float = 0.0

    def __post_init__(self) -> None:
        """Refuse combinations that make no sense.

        Raises:
            ConfigError: The head is unknown or lacks a guide, or a channel count does not fit.
        """
        if self.limit < 0 or (self.limit and self.head != "residual"):
            raise ConfigError(
                f"limit is {self.limit} with head {self.head!r}; expected 0, or a positive number "
                f"with head 'residual'"
            )
        if self.head not in HEADS:
            raise ConfigError(f"head is {self.head!r}; expected one of {', '.join(HEADS)}")
        if self.head != "direct" and not self.guides:
            raise ConfigError(f"head {self.head!r} needs at least one guide")
        if self.consistency < 0:
            raise ConfigError(f"consistency is {self.consistency}; expected 0 or more")
        expected = (self.inputs.channels, self.outputs)
        if (self.network.inputs, self.network.outputs) != expected:
            raise ConfigError(
                f"the network has {self.network.inputs} inputs and {self.network.outputs} outputs; "
                f"features and head need {expected[0]} and {expected[1]}"
            )

    @property
    def outputs(self) -> int:
        """Number of output channels that the head needs."""
        return _outputs(self.head, len(self.guides))

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the buffers that the model reads."""
        needs = [*self.inputs.needs]
        if self.consistency:
            needs += [PRIMAL + VARIANCE_SUFFIX] if self.measured else noise.SOURCES
        needs += fusion.NEEDS if self.head == "fusion" else ()
        return tuple(dict.fromkeys(needs))

    @property
    def measured(self) -> bool:
        """Whether the variance of the primal is one that was rendered, as one of the inputs is."""
        return PRIMAL + VARIANCE_SUFFIX in self.inputs.needs

    @classmethod
    def make(
        cls,
        inputs: InputConfig,
        *,
        head: str = "direct",
        guides: tuple[str, ...] = (),
        consistency: float = 0.0,
        limit: float = 0.0,
        **network: Any,
    ) -> DenseModelConfig:
        """Fill in the channel counts; ``network`` are fields of :class:`DenseUNetConfig`."""
        outputs = _outputs(head, len(guides))
        direct = head == "direct"
        sizes = {"head_activation": direct, "zero_head": not direct, **network}
        return cls(
            inputs,
            DenseUNetConfig(inputs=inputs.channels, outputs=outputs, **sizes),
            head,
            guides,
            consistency,
            limit,
        )


def _outputs(head: str, guides: int) -> int:
    """Return the number of output channels that a head needs."""
    blended = guides + 1 if head in ("blend", "fusion") else 0
    return 3 + blended + (fusion.LOGITS if head == "fusion" else 0)


class DenseModel(Model):
    """Reconstruction by a dense U-Net (NGPT and its relatives); see :class:`DenseModelConfig`."""

    def __init__(self, config: DenseModelConfig) -> None:
        super().__init__()
        self.config = config
        self.network = DenseUNet(config.network)
        self.guides = tuple(dict.fromkeys((*config.guides, *config.inputs.guides)))
        self.needs = config.needs

    def forward(
        self,
        data: torch.Tensor,
        layout: Layout,
        guides: torch.Tensor | None = None,
        *,
        shift: tuple[int, int] = (0, 0),
        depth_scale: torch.Tensor | None = None,
        memory: float | None = None,
    ) -> torch.Tensor:
        """Reconstruct images; see :meth:`Model.forward`."""
        config = self.config
        prepared = preprocess(
            data,
            layout,
            config.inputs,
            alignment=config.network.alignment,
            guides=self._choose(guides, config.inputs.guides),
            shift=shift,
            depth_scale=depth_scale,
        )
        output = prepared.padding.remove(self._run(prepared.input, memory)).float()
        fused = fusion.LOGITS if config.head == "fusion" else 0
        output, logits = output.split([output.shape[-1] - fused, fused], dim=-1)
        image = prepared.restore(
            self._interpret(output, data, layout, prepared, self._choose(guides, config.guides))
        )
        if fused:
            image = fusion.fuse_gradients(image, data, layout, logits, noise.measured(data, layout))
        if config.consistency:
            source = noise.measured if config.measured else noise.estimated
            primal, variances = data[..., layout.slices[PRIMAL]], source(data, layout)
            image = converge(image, primal, variances[PRIMAL], config.consistency)
        return image

    def _run(self, x: torch.Tensor, memory: float | None) -> torch.Tensor:
        """Apply the network."""
        size = self.config.network
        # All levels are alive at once; the finest one also holds a unit's intermediate features
        # and what a resampling layer rearranges.
        floats = sum(
            (width + 4 * size.growth[level]) / 4**level for level, width in enumerate(size.widths)
        )
        floats = floats / size.patch**2 + size.inputs * 2
        return self._in_tiles(
            self.network,
            x,
            floats=floats,
            alignment=size.alignment,
            radius=size.radius,
            memory=memory,
        )

    def _interpret(
        self,
        output: torch.Tensor,
        data: torch.Tensor,
        layout: Layout,
        prepared: Prepared,
        guides: torch.Tensor | None,
    ) -> torch.Tensor:
        """Turn the output of the network into an image on its own scale."""
        if self.config.head == "direct":
            return output.expm1()
        assert guides is not None  # the configuration has some
        candidates = list(guides.unbind(1))
        mixed = self.config.head != "residual"
        if mixed:
            candidates.append(data[..., layout.slices[PRIMAL]])
        # Logarithms also keep a firefly of the primal from showing with the smallest of weights.
        candidates = [compressed(image, prepared) for image in candidates]
        if mixed:
            start = output.new_zeros(len(candidates))
            start[0] = FAVOUR
            return blend(output, candidates, start).expm1()
        if limit := self.config.limit:
            output = limit * (output / limit).tanh()
        return (candidates[0] + output).expm1()


def compressed(image: torch.Tensor, prepared: Prepared) -> torch.Tensor:
    """Bring radiance (N, H, W, 3) to the scale of a network's output, log(1 + x)."""
    return prepared.normalise(image).clamp_min(0).log1p()


def blend(
    output: torch.Tensor, candidates: Sequence[torch.Tensor], start: torch.Tensor
) -> torch.Tensor:
    """Mix images by weights that a network gives, and add its residual.

    Args:
        output: (N, H, W, K + 3): logits of the weights, then the residual.
        candidates: K images (N, H, W, 3), all on the scale of the residual.
        start: What is added to the logits, any shape that fits (N, H, W, K). Minus infinity
            excludes a candidate.

    Returns:
        (N, H, W, 3).
    """
    count = len(candidates)
    weights = (output[..., :count] + start).softmax(-1)
    mixed = (weights[..., None, :] * torch.stack(list(candidates), -1)).sum(-1)
    return mixed + output[..., count:]


def converge(
    image: torch.Tensor, primal: torch.Tensor, variance: torch.Tensor, consistency: float
) -> torch.Tensor:
    """Replace an image by the primal to the extent that the primal is free of noise.

    Args:
        image: (N, H, W, 3) radiance.
        primal: (N, H, W, 3) radiance.
        variance: (N, H, W, 1), of the primal.
        consistency: Relative standard deviation of the primal at which each counts a half.
    """
    variance, square = (window_mean(x, _BLUR) for x in (variance, mean_square(primal)))
    noise = variance / (square + _GATE_EPSILON)
    share = noise / (noise + consistency**2)
    return primal + share * (image - primal)


# ------------------------------------------------------------------------------- precision


def native_bfloat16(device: torch.device) -> bool:
    """Tell whether a device computes bfloat16 faster than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # Without the instructions torch falls back to code that is many times slower than float32.
    tests = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in tests)


@contextlib.contextmanager
def precision(name: str, device: torch.device) -> Iterator[None]:
    """Run the ``with`` block in a precision.

    Args:
        name: ``"float32"``, ``"bfloat16"`` (mixed, by torch's autocast), or ``"auto"``: bfloat16
            where the device has instructions for it.
        device: Where the tensors are.

    Raises:
        ConfigError: The name is unknown.
    """
    if name not in PRECISIONS:
        raise ConfigError(f"precision is {name!r}; expected one of {', '.join(PRECISIONS)}")
    mixed = name == "bfloat16" or (name == "auto" and native_bfloat16(device))
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        yield
