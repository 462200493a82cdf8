"""What all models share: the interface, precision, and how images are mixed.

A model is an ``nn.Module`` from buffers (and images of other methods, its *guides*) to radiance.
It is described completely by a configuration, which is stored with its weights.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, cast

import torch
from torch import nn

from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.decoding import decode
from mitsuba_gdpt.denoisers.images import mean_square, window_mean
from mitsuba_gdpt.denoisers.learned import tiling
from mitsuba_gdpt.denoisers.learned.features import Prepared
from mitsuba_gdpt.denoisers.learned.networks import fold_weight_norm
from mitsuba_gdpt.errors import ConfigError, LayoutError

PRECISIONS = ("auto", "float32", "bfloat16")

#: Head start of the first guide in the logits of "blend": exp(6) to 1.
FAVOUR = 6.0

_BLUR = 7  # pixels; the variance of one pixel alone is too noisy an estimate to trust
_GATE_EPSILON = 1e-4  # squared radiance at common brightness


class ModelConfig:
    """What the configurations of all models share; each is a frozen dataclass."""

    guides: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of the buffers that the model reads."""
        raise NotImplementedError

    def changed(
        self,
        changes: Mapping[str, Any],
        *,
        guides: tuple[str, ...] = (),
        inputs: tuple[str, ...] = (),
    ) -> Self:
        """Return the same model with other sizes, guides or further inputs; counts follow.

        Args:
            changes: Sizes and parts by name; which there are is up to the model.
            guides: Methods whose images it sees instead of those that it has; none leaves them.
            inputs: Names of inputs that it sees besides; with a minus before them, does not see.

        Raises:
            ConfigError: A name is unknown or has a bad value, or the model has no such part.
        """
        if inputs:
            raise ConfigError(f"this model has no optional inputs; got {', '.join(inputs)}")
        if guides:
            raise ConfigError("this method sees no images of other methods")
        if not changes:
            return self
        return cast("Self", decode(type(self), {**asdict(self), **changes}, "network"))  # type: ignore[call-overload]


@dataclass(frozen=True)
class How:
    """How images are reconstructed: arguments of :meth:`Model.forward` and :meth:`Model.vary`."""

    memory: float | None = None
    shifts: Sequence[tuple[int, int]] = ()
    depth_scale: torch.Tensor | None = None


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
        memory: float | None = None,
    ) -> torch.Tensor:
        """Reconstruct images.

        Args:
            data: (N, H, W, C) buffers, finite.
            layout: Meaning of C.
            guides: (N, G, H, W, 3) radiance, in the order of ``self.guides``.
            memory: Bytes of activations that inference may use; larger frames are tiled. None
                never tiles. Ignored while gradients are recorded, and by models with a state.

        Returns:
            (N, H, W, 3) radiance.
        """
        return self.image(data, layout, guides, How(memory))

    def vary(
        self,
        data: torch.Tensor,
        layout: Layout,
        guides: torch.Tensor | None = None,
        *,
        shifts: Sequence[tuple[int, int]],
        depth_scale: torch.Tensor | None,
    ) -> torch.Tensor:
        """Reconstruct images in training, with variations of what the network sees.

        Models for which these mean nothing reconstruct the images as :meth:`forward` does.

        Args:
            data: See :meth:`forward`.
            layout: See :meth:`forward`.
            guides: See :meth:`forward`.
            shifts: Position of each frame inside its padding.
            depth_scale: (N,) factors on the normalised depth, or None.
        """
        return self.image(data, layout, guides, How(None, shifts, depth_scale))

    def image(
        self, data: torch.Tensor, layout: Layout, guides: torch.Tensor | None, how: How
    ) -> torch.Tensor:
        """Reconstruct images: what makes one model another.

        Args:
            data: See :meth:`forward`.
            layout: See :meth:`forward`.
            guides: See :meth:`forward`.
            how: What means nothing to a model is left alone.

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
        function: Callable[..., torch.Tensor],
        *inputs: torch.Tensor,
        floats: float,
        alignment: int,
        radius: int,
        memory: float | None,
    ) -> torch.Tensor:
        """Apply a local function, in tiles if it has to be.

        Args:
            function: See :func:`~mitsuba_gdpt.denoisers.learned.tiling.run_tiled`, as the others.
            inputs: (N, H, W, C) each.
            floats: How many the function keeps alive at once, per pixel.
            alignment: Phase of the function.
            radius: How far an input pixel can influence the output.
            memory: See :meth:`forward`.
        """
        if torch.is_grad_enabled() or memory is None:
            return function(*inputs)
        side = tiling.tile_size(4 * floats * len(inputs[0]), alignment, radius, memory)
        return tiling.run_tiled(function, *inputs, alignment=alignment, radius=radius, side=side)

    def prepare_inference(self) -> None:
        """Freeze the parameters, and fold what only training needs apart."""
        self.eval().requires_grad_(False)
        fold_weight_norm(self)


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
def autocast(precision: str, device: torch.device) -> Iterator[None]:
    """Run the ``with`` block in a precision.

    Args:
        precision: ``"float32"``, ``"bfloat16"`` (mixed, by torch's autocast), or ``"auto"``:
            bfloat16 where the device has instructions for it.
        device: Where the tensors are.

    Raises:
        ConfigError: The name is unknown.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}; expected one of {', '.join(PRECISIONS)}")
    mixed = precision == "bfloat16" or (precision == "auto" and native_bfloat16(device))
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        yield
