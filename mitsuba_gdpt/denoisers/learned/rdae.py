"""The recurrent denoising autoencoder and its relatives: the table of recurrent methods.

C. R. A. Chaitanya et al., *Interactive Reconstruction of Monte Carlo Image Sequences using a
Recurrent Denoising Autoencoder*, ACM TOG 36(4), 2017.

| method | sees | head |
|---|---|---|
| ``rdae`` | radiance by albedo, normal, depth: 7 channels | direct |
| ``rdae-plain`` | radiance with albedo, normal, depth; for sets that have nothing else | direct |
| ``rdae-grad`` | as ``rdae``, with dx and dy: 13 channels | direct |
| ``rdae-oidn`` | as ``rdae-grad``, with OIDN's image and the image before, moved | blend |
| ``rdae-oidn-nograd`` | the same without dx and dy | blend |

The first three have the network of the paper, in the reading of *rae-lightning*: 1,951,935
parameters with 7 inputs. The others work on blocks of 2x2 pixels, with one stage less, at a quarter
of the cost; they begin as a running mean of OIDN's images along the motion and learn from there.

Differences from the paper: the normal has its three components (the paper's two leave its
sign out), roughness is not used; depth is log(1 + depth) in a unit of the first frame, radiance
log(1 + x) at a slowly changing exposure instead of a power of 0.2, which has no slope at 0 and no
negative side.
Networks without OIDN's image see the primal without isolated bright pixels: no data set here is
large enough to teach them what fireflies are.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import PRIMAL
from mitsuba_gdpt.decoding import decode
from mitsuba_gdpt.denoisers import registry
from mitsuba_gdpt.denoisers.learned import weights as weight_files
from mitsuba_gdpt.denoisers.learned.features import GUIDE, Feature, InputConfig, require
from mitsuba_gdpt.denoisers.learned.methods import (
    Preset,
    check_weights,
    guide_images,
    weights_version,
)
from mitsuba_gdpt.denoisers.learned.model import Model, autocast
from mitsuba_gdpt.denoisers.learned.networks import RecurrentUNetConfig
from mitsuba_gdpt.denoisers.learned.recurrent import RecurrentModel, RecurrentModelConfig, State
from mitsuba_gdpt.errors import ConfigError

__all__ = ["PRESETS", "State", "step", "with_changes"]

_PRIMAL = Feature(PRIMAL, "log1p")
_GRADIENTS = (Feature("dx", "signed-log1p"), Feature("dy", "signed-log1p"))
#: A function of depth that is the same in all frames, whatever is in view.
_GEOMETRY = (Feature("normal"), Feature("depth", "log1p"))

#: Of networks whose image is theirs alone. Against 0, trained alike, relMSE on held-out windows is
#: 0.6 times as large (``rdae``); see the model card.
_LEAST_ALBEDO = 0.1

#: Albedo and normal prefiltered; with ``"oidn,aux=raw"`` models are faster and worse.
_OIDN = "oidn"

#: Half the resolution inside; the coarsest stage is the same as that of the paper.
_HALF: dict[str, Any] = {
    "stages": (32, 43, 57, 76, 101),
    "decoder": (76, 57, 43),
    "finest": (64, 64),
    "patch": 2,
}


def _presets() -> dict[str, Preset]:
    table = {}
    for name, seen, demodulate, text in (
        ("rdae", (), True, "recurrent autoencoder of Chaitanya et al. 2017"),
        ("rdae-plain", (), False, "the same without albedo"),
        ("rdae-grad", _GRADIENTS, True, "the same with gradients"),
    ):
        features = (_PRIMAL, *seen, *_GEOMETRY)
        inputs = InputConfig(
            features,
            demodulate=demodulate,
            exposure=True,
            despike=True,
            least_albedo=_LEAST_ALBEDO * demodulate,
        )
        table[name] = Preset(RecurrentModelConfig.make(inputs), "rdae", text)
    for name, seen, text in (
        ("rdae-oidn", _GRADIENTS, "oidn, made steady over time by a recurrent autoencoder"),
        ("rdae-oidn-nograd", (), "the same without gradients"),
    ):
        features = (_PRIMAL, *seen, *_GEOMETRY, Feature(GUIDE + _OIDN, "log1p"))
        config = RecurrentModelConfig.make(
            InputConfig(features, demodulate=True, exposure=True),
            head="blend",
            guides=(_OIDN,),
            warp=True,
            history=True,
            network=_HALF,
        )
        table[name] = Preset(config, "rdae", text)
    return table


#: Method name to its configuration before training.
PRESETS: dict[str, Preset] = _presets()


def step(
    model: Model,
    buffers: FrameBuffers,
    state: State | None = None,
    *,
    precision: str = "auto",
) -> tuple[torch.Tensor, State]:
    """Apply a recurrent model to the next frame, running the methods whose images it needs first.

    A function of its arguments alone: the same frame after the same state gives the same image.

    Args:
        model: On the buffers' device.
        buffers: The frame.
        state: What the frame before left; None for the first, and after a scene cut.
        precision: See :func:`mitsuba_gdpt.denoisers.learned.model.autocast`.

    Returns:
        (H, W, 3) float32 radiance, and the state for the next frame.

    Raises:
        ConfigError: The weights are those of a method that is not recurrent.
        LayoutError: A buffer is missing, or the state is that of another size.
        NonFiniteError: A buffer that the model reads contains NaN or infinity.
    """
    if not isinstance(model, RecurrentModel):
        raise ConfigError(
            f"got a {type(model).__name__}, which has no state; expected weights of one of: "
            f"{', '.join(PRESETS)}"
        )
    require(model.needs, buffers.layout)
    buffers.validate((*model.needs, *model.config.later))
    guides = guide_images(model.guides, buffers)
    with torch.no_grad(), autocast(precision, buffers.device):
        image, state = model.step(buffers.data[None], buffers.layout, guides[None], state)
    return image[0].float().contiguous(), state


def with_changes(
    config: RecurrentModelConfig, guides: Sequence[str], changes: Mapping[str, Any]
) -> RecurrentModelConfig:
    """Give a model other guides, sizes, or parts; channel counts follow.

    Args:
        config: What to change.
        guides: Methods whose images it shall see, if there are any, instead of those that it has.
        changes: Fields of :class:`~mitsuba_gdpt.denoisers.learned.networks.RecurrentUNetConfig`,
            and ``head``, ``warp``, ``history``, ``adaptation``.

    Raises:
        ConfigError: A field is unknown or has a bad value, or the model sees no guides.
    """
    if guides and not config.guides:
        raise ConfigError("this method sees no images of other methods")
    for guide in guides:
        registry.Call.parse(guide)
    guides = tuple(guides) or config.guides
    features = [feature for feature in config.inputs.features if feature.guide is None]
    features += [Feature(GUIDE + guide, "log1p") for guide in guides]
    kinds = typing.get_type_hints(RecurrentModelConfig)
    options = {
        name: decode(kinds[name], changes.get(name, getattr(config, name)), name)
        for name in ("head", "warp", "history", "adaptation")
    }
    sizes = dataclasses.asdict(config.network)
    del sizes["zero_head"]  # follows the head
    sizes |= {name: value for name, value in changes.items() if name not in options}
    network = decode(RecurrentUNetConfig, sizes, "network")
    chosen = {name: getattr(network, name) for name in sizes}
    inputs = dataclasses.replace(config.inputs, features=tuple(features))
    return RecurrentModelConfig.make(inputs, guides=guides, network=chosen, **options)


def _method(name: str) -> Callable[..., tuple[torch.Tensor, State]]:
    def method(
        buffers: FrameBuffers,
        state: State | None,
        *,
        weights: str | os.PathLike[str] | None = None,
        precision: str = "auto",
    ) -> tuple[torch.Tensor, State]:
        """Reconstruct the next frame of a sequence with a network; see :func:`step`.

        Args:
            buffers: Needs the buffers that the weights were trained with.
            state: What the frame before left.
            weights: File of weights; by default those that ship under the method's name.
            precision: ``"auto"``, ``"float32"`` or ``"bfloat16"``.
        """
        model = weight_files.cached_model(weights or name, buffers.device)
        return step(model, buffers, state, precision=precision)

    return method


def _register() -> None:
    for name, preset in PRESETS.items():
        config: RecurrentModelConfig = preset.config
        registry.register(
            name,
            needs=config.needs,
            uses=config.later,
            doc=preset.doc,
            check=check_weights(name, config.guides),
            version=weights_version(name),
            anywhere=True,
            recurrent=True,
        )(_method(name))


_register()
