"""The learned methods: what can be trained, and which of it ships with weights.

- NGPT and its family: M. Kettunen, E. Härkönen, J. Lehtinen, *Deep Convolutional Reconstruction for
  Gradient-Domain Rendering*, ACM TOG 38(4), 2019.
- The recurrent autoencoder and its relatives: C. R. A. Chaitanya et al., *Interactive
  Reconstruction of Monte Carlo Image Sequences using a Recurrent Denoising Autoencoder*, ACM TOG
  36(4), 2017.

A row of :data:`PRESETS` is a model before it is trained. Those in :data:`SHIPPED` are methods.
Weights of the others run as an option of one that has the same task: ``ngpt-small(weights=FILE)``
for single frames, ``rdae(weights=FILE)`` for sequences; what such a method needs follows from the
file.

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

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import PRIMAL, VARIANCE_SUFFIX
from mitsuba_gdpt.denoisers import registry
from mitsuba_gdpt.denoisers.learned import tiling
from mitsuba_gdpt.denoisers.learned import weights as weight_files
from mitsuba_gdpt.denoisers.learned.backbone import BackboneConfig
from mitsuba_gdpt.denoisers.learned.dense import DenseModelConfig
from mitsuba_gdpt.denoisers.learned.features import GUIDE, RESIDUAL, Feature, InputConfig
from mitsuba_gdpt.denoisers.learned.fusion import FusionModelConfig
from mitsuba_gdpt.denoisers.learned.inference import reconstruct, step
from mitsuba_gdpt.denoisers.learned.kpcn import KPCNConfig
from mitsuba_gdpt.denoisers.learned.recurrent import RecurrentModelConfig, State

_PRIMAL = Feature(PRIMAL, "log1p")
_GRADIENTS = (Feature("dx", "signed-log1p"), Feature("dy", "signed-log1p"))
_AUXILIARY = (Feature("albedo"), Feature("normal"), Feature("depth", "max"))
_VARIANCES = (Feature(PRIMAL + VARIANCE_SUFFIX, "sqrt-log1p"),)
_GRADIENT_VARIANCES = tuple(Feature(name + VARIANCE_SUFFIX, "sqrt-log1p") for name in ("dx", "dy"))

#: Albedo and normal prefiltered.
_OIDN = "oidn"
_RESIDUALS = (
    Feature(RESIDUAL + "dx", "signed-log1p"),
    Feature(RESIDUAL + "dy", "signed-log1p"),
)

#: Sizes of the small networks: half the resolution inside, about 0.15 MFLOP per pixel.
_SMALL: dict[str, Any] = {
    "growth": (32, 32, 32, 32),
    "units": (2, 2, 2, 2),
    "down": (64, 64, 64),
    "up": (32, 48, 64),
    "patch": 2,
}


#: A function of depth that is the same in all frames, whatever is in view.
_GEOMETRY = (Feature("normal"), Feature("depth", "log1p"))

#: Of networks whose image is theirs alone. Against 0, trained alike, relMSE on held-out windows is
#: 0.6 times as large (``rdae``); see the model card.
_LEAST_ALBEDO = 0.1

#: Half the resolution inside; the coarsest stage is the same as that of the paper.
_HALF: dict[str, Any] = {
    "stages": (32, 43, 57, 76, 101),
    "decoder": (76, 57, 43),
    "finest": (64, 64),
    "patch": 2,
}


@dataclass(frozen=True)
class Preset:
    """A neural method before it is trained.

    Attributes:
        config: Configuration of the model.
        loss: Name of the loss that it is trained with by default; see mitsuba_gdpt.training.
        doc: One line.
    """

    config: Any
    loss: str
    doc: str


def _correction(
    features: tuple[Feature, ...],
    guides: tuple[str, ...],
    head: str,
    remark: str = "",
) -> Preset:
    """Return the preset of a small dense U-Net that corrects images of other methods."""
    images = tuple(Feature(GUIDE + guide, "log1p") for guide in guides)
    config = DenseModelConfig.make(
        InputConfig((*features, *images), demodulate=True, exposure=True),
        head=head,
        guides=guides,
        consistency=0.005,
        **_SMALL,
    )
    doc = f"correction of {' and '.join(guides)} by a small dense U-Net{remark}"
    return Preset(config, "robust", doc)


def _still_presets() -> dict[str, Preset]:
    table = {}
    for size, sizes, doc in (
        ("ngpt", {}, "dense U-Net of Kettunen et al. 2019"),
        ("ngpt-small", _SMALL, "small dense U-Net, sized for a CPU"),
    ):
        for loss, loss_name, loss_doc in (("", "ngpt", ""), ("-l1", "ngpt-l1", ", L1 loss")):
            for twin in ("", "-nograd"):
                gradients: tuple[Feature, ...] = () if twin else _GRADIENTS
                inputs = InputConfig((_PRIMAL, *gradients, *_AUXILIARY))
                text = doc + loss_doc + ("" if gradients else ", without gradients")
                table[size + loss + twin] = Preset(
                    DenseModelConfig.make(inputs, **sizes), loss_name, text
                )
    seen = (_PRIMAL, *_VARIANCES, *_AUXILIARY)
    gradients = (*_GRADIENTS, *_GRADIENT_VARIANCES)
    table["ngpt-oidn"] = _correction((*seen, *gradients, *_RESIDUALS), (_OIDN,), "fusion")
    table["ngpt-oidn-nograd"] = _correction(seen, (_OIDN,), "blend", ", without gradients")
    table["ngpt-poisson"] = _correction((*seen, *gradients), ("poisson-l1",), "blend")
    table["ngpt-fusion"] = Preset(
        FusionModelConfig(iterations=12),
        "fusion",
        "OIDN's image, fused with the gradients by a small U-Net",
    )
    table["ngpt-backbone"] = Preset(
        BackboneConfig(), "fusion-seen", "OIDN's network with an adapter that reads the gradients"
    )
    table["kpcn"] = Preset(KPCNConfig(), "ngpt-l1", "predicted filters, Bako et al. 2017")
    table["kpcn-small"] = Preset(
        KPCNConfig(layers=5, width=32, filter=5, kernel=13), "ngpt-l1", "KPCN, sized for a CPU"
    )
    return table


def _sequence_presets() -> dict[str, Preset]:
    table = {}
    for name, seen, demodulate, text in (
        ("rdae", (), True, "recurrent autoencoder of Chaitanya et al. 2017"),
        ("rdae-plain", (), False, "rdae without albedo"),
        ("rdae-grad", _GRADIENTS, True, "rdae with gradients"),
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
        ("rdae-oidn-nograd", (), "rdae-oidn without gradients"),
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


#: What can be trained: name to its configuration before training.
PRESETS: dict[str, Preset] = {**_still_presets(), **_sequence_presets()}


@dataclass(frozen=True)
class Shipped:
    """What a preset is as a method.

    Attributes:
        group: See :data:`mitsuba_gdpt.denoisers.registry.GROUPS`.
        seconds: Per megapixel on two CPU cores, roughly, guides included; None if not measured.
    """

    group: str
    seconds: float | None = None


#: Methods: the presets that weights ship for, with this package or with ``mitsuba-gdpt-weights``.
SHIPPED = {
    "ngpt-fusion": Shipped("everyday", 4.0),
    "ngpt": Shipped("baseline", 11.0),
    "kpcn-small": Shipped("baseline", 7.6),
    "rdae": Shipped("baseline"),
    "ngpt-oidn": Shipped("experiment", 14.0),
    "ngpt-oidn-nograd": Shipped("experiment"),
    "ngpt-small": Shipped("experiment", 1.3),
    "ngpt-small-nograd": Shipped("experiment", 1.3),
    "ngpt-small-l1": Shipped("experiment", 1.3),
    "ngpt-small-l1-nograd": Shipped("experiment", 1.3),
    "rdae-oidn": Shipped("experiment"),
    "rdae-grad": Shipped("experiment"),
}


def runs_as(name: str) -> str:
    """Return the method that runs weights of a preset: its own, or one of the same task."""
    if name in SHIPPED:
        return name
    return "rdae" if isinstance(PRESETS[name].config, RecurrentModelConfig) else "ngpt-small"


def _still_method(name: str) -> Callable[..., torch.Tensor]:
    def method(
        buffers: FrameBuffers,
        *,
        weights: str | os.PathLike[str] | None = None,
        precision: str = "auto",
        memory: float = tiling.DEFAULT_MEMORY,
    ) -> torch.Tensor:
        """Reconstruct an image with a network; see :func:`reconstruct`.

        Args:
            buffers: Needs the buffers that the weights were trained with.
            weights: File of weights, or folder of a run; by default those that ship for the method.
            precision: ``"auto"``, ``"float32"`` or ``"bfloat16"``.
            memory: Bytes of activations.
        """
        model = weight_files.cached_model(weights or name, buffers.device)
        return reconstruct(model, buffers, precision=precision, memory=memory)

    return method


def _fusion_method(name: str) -> Callable[..., torch.Tensor]:
    def method(
        buffers: FrameBuffers,
        *,
        using: registry.Call | str | None = None,
        weights: str | os.PathLike[str] | None = None,
        precision: str = "auto",
        memory: float = tiling.DEFAULT_MEMORY,
    ) -> torch.Tensor:
        """Fuse the image of another method with the gradients; see :func:`reconstruct`.

        Args:
            buffers: Needs the buffers that the weights were trained with, and those of the other
                method.
            using: The other method, with options, as ``"oidn(aux=raw)"``; by default the one that
                the weights name. Weights fit the images of related methods too.
            weights: File of weights, or folder of a run; by default those that ship for the method.
            precision: ``"auto"``, ``"float32"`` or ``"bfloat16"``.
            memory: Bytes of activations.
        """
        model = weight_files.cached_model(weights or name, buffers.device)
        guides = None if using is None else (registry.Call.parse(using),)
        return reconstruct(model, buffers, precision=precision, memory=memory, guides=guides)

    return method


def _sequence_method(name: str) -> Callable[..., tuple[torch.Tensor, State]]:
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
            weights: File of weights, or folder of a run; by default those that ship for the method.
            precision: ``"auto"``, ``"float32"`` or ``"bfloat16"``.
        """
        model = weight_files.cached_model(weights or name, buffers.device)
        return step(model, buffers, state, precision=precision)

    return method


def _config(name: str, options: Mapping[str, Any]) -> Any:
    """Return what a method runs: the model of the weights that are given, or its own."""
    path = options.get("weights")
    return PRESETS[name].config if path is None else weight_files.describe(path).config


def _later(config: Any) -> tuple[str, ...]:
    """Return the buffers that a recurrent model reads of frames with a predecessor."""
    return config.later if isinstance(config, RecurrentModelConfig) else ()


def _check(name: str, options: Mapping[str, Any]) -> None:
    """Raise if there are no weights."""
    weight_files.find_weights(options.get("weights") or name)


def _register(name: str) -> None:
    preset = PRESETS[name]
    recurrent = isinstance(preset.config, RecurrentModelConfig)
    fusion = isinstance(preset.config, FusionModelConfig)
    make = _sequence_method if recurrent else _fusion_method if fusion else _still_method
    registry.register(
        name,
        needs=lambda options: _config(name, options).needs,
        uses=(lambda options: _later(_config(name, options))) if recurrent else (),
        calls=lambda options: () if options.get("using") else _config(name, options).guides,
        doc=preset.doc,
        check=lambda options: _check(name, options),
        version=lambda options: weight_files.find_weights(options.get("weights") or name).stem,
        recurrent=recurrent,
        anywhere=True,
        group=SHIPPED[name].group,
        seconds_per_megapixel=SHIPPED[name].seconds,
    )(make(name))


for _name in SHIPPED:
    _register(_name)
