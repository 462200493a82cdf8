"""NGPT and its family: the table of its methods, and how they run on one frame.

M. Kettunen, E. Härkönen, J. Lehtinen, *Deep Convolutional Reconstruction for Gradient-Domain
Rendering*, ACM TOG 38(4), 2019. A method is a row of :data:`PRESETS`: its configuration, made
into a model by training, and from then on read from its weights.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import PRIMAL, TABLE, VARIANCE_SUFFIX
from mitsuba_gdpt.denoisers import registry
from mitsuba_gdpt.denoisers.learned import tiling
from mitsuba_gdpt.denoisers.learned import weights as weight_files
from mitsuba_gdpt.denoisers.learned.backbone import BackboneConfig
from mitsuba_gdpt.denoisers.learned.dense import DenseModelConfig
from mitsuba_gdpt.denoisers.learned.features import GUIDE, RESIDUAL, Feature, InputConfig, require
from mitsuba_gdpt.denoisers.learned.fusion import FusionModelConfig
from mitsuba_gdpt.denoisers.learned.kpcn import KPCNConfig
from mitsuba_gdpt.denoisers.learned.model import Model, autocast
from mitsuba_gdpt.errors import ConfigError

_PRIMAL = Feature(PRIMAL, "log1p")
_GRADIENTS = (Feature("dx", "signed-log1p"), Feature("dy", "signed-log1p"))
_AUXILIARY = (Feature("albedo"), Feature("normal"), Feature("depth", "max"))
_VARIANCES = (Feature(PRIMAL + VARIANCE_SUFFIX, "sqrt-log1p"),)
_GRADIENT_VARIANCES = tuple(Feature(name + VARIANCE_SUFFIX, "sqrt-log1p") for name in ("dx", "dy"))

#: Albedo and normal prefiltered; with ``"oidn,aux=raw"`` models are faster and worse.
_OIDN = "oidn"
_RESIDUALS = (
    Feature(RESIDUAL + "dx", "signed-log1p"),
    Feature(RESIDUAL + "dy", "signed-log1p"),
)

#: One pass: albedo and normal as rendered.
_OIDN_RAW = "oidn,aux=raw"

#: Sizes of the small networks: half the resolution inside, about 0.15 MFLOP per pixel.
_SMALL: dict[str, Any] = {
    "growth": (32, 32, 32, 32),
    "units": (2, 2, 2, 2),
    "down": (64, 64, 64),
    "up": (32, 48, 64),
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
    loss: str = "robust",
    limit: float = 0.0,
) -> Preset:
    """Return the preset of a small dense U-Net that corrects images of other methods."""
    images = tuple(Feature(GUIDE + guide, "log1p") for guide in guides)
    config = DenseModelConfig.make(
        InputConfig((*features, *images), demodulate=True, exposure=True),
        head=head,
        guides=guides,
        consistency=0.005,
        limit=limit,
        **_SMALL,
    )
    doc = f"correction of {' and '.join(guides)} by a small dense U-Net{remark}"
    return Preset(config, loss, doc)


def _presets() -> dict[str, Preset]:
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
        FusionModelConfig(), "fusion", "oidn-fusion with weights predicted by a small U-Net"
    )
    table["ngpt-fusion-fast"] = Preset(
        FusionModelConfig((_OIDN_RAW,), iterations=12),
        "fusion",
        "the same from one pass of OIDN",
    )
    table["ngpt-backbone"] = Preset(
        BackboneConfig(), "fusion-seen", "OIDN's network with an adapter that reads the gradients"
    )
    table["ngpt-refined"] = _correction(
        (_PRIMAL, *_AUXILIARY, *_GRADIENTS, *_RESIDUALS),
        ("ngpt-fusion",),
        "residual",
        loss="fusion",
        limit=0.25,  # the guide is good: what is far from it is more often wrong than right
    )
    table["kpcn"] = Preset(KPCNConfig(), "ngpt-l1", "predicted filters, Bako et al. 2017")
    table["kpcn-small"] = Preset(
        KPCNConfig(layers=5, width=32, filter=5, kernel=13), "ngpt-l1", "KPCN, sized for a CPU"
    )
    return table


#: Method name to its configuration before training.
PRESETS: dict[str, Preset] = _presets()


def reconstruct(
    model: Model,
    buffers: FrameBuffers,
    *,
    precision: str = "auto",
    memory: float = tiling.DEFAULT_MEMORY,
) -> torch.Tensor:
    """Apply a model to one frame, running the methods whose images it needs first.

    Args:
        model: On the buffers' device.
        buffers: The frame.
        precision: See :func:`mitsuba_gdpt.denoisers.learned.model.autocast`.
        memory: Bytes of activations; larger frames are worked on in tiles, with the same result.

    Returns:
        (H, W, 3) float32 radiance.

    Raises:
        LayoutError: A buffer that the model needs is missing.
        NonFiniteError: It contains NaN or infinity.
    """
    require(model.needs, buffers.layout)
    buffers.validate(model.needs)
    guides = guide_images(model.guides, buffers)
    with torch.no_grad(), autocast(precision, buffers.device):
        image = model(buffers.data[None], buffers.layout, guides[None], memory=memory)
    return image[0].float().contiguous()


def guide_images(names: tuple[str, ...], buffers: FrameBuffers) -> torch.Tensor:
    """Run other methods on the same buffers.

    Args:
        names: As for :meth:`~mitsuba_gdpt.denoisers.registry.Call.parse`.
        buffers: The frame.

    Returns:
        (G, H, W, 3) radiance, one image per name.
    """
    if not names:
        return buffers.data.new_empty(0, buffers.height, buffers.width, 3)
    with torch.no_grad():
        return torch.stack([registry.Call.parse(name)(buffers) for name in names])


#: Inputs that the networks of NGPT can have besides, and do not have in its shipped configurations.
OPTIONAL_INPUTS = ("diffuse", "specular", "variances")


def with_inputs(config: DenseModelConfig, names: tuple[str, ...]) -> DenseModelConfig:
    """Let a model see more than it does.

    Args:
        config: The model.
        names: Of :data:`OPTIONAL_INPUTS`; ``"variances"`` are those of all buffers that it sees
            then, one channel each.

    Raises:
        ConfigError: A name is unknown.
    """
    if unknown := [name for name in names if name not in OPTIONAL_INPUTS]:
        raise ConfigError(
            f"inputs: got {', '.join(unknown)}; expected some of {', '.join(OPTIONAL_INPUTS)}"
        )
    features = list(config.inputs.features)
    seen = [feature.source for feature in features]
    added = [name for name in OPTIONAL_INPUTS[:-1] if name in names and name not in seen]
    if "variances" in names:
        sources = [s + VARIANCE_SUFFIX for s in (*seen, *added)]
        known = {row.name for row in TABLE}
        added += [name for name in sources if name in known and name not in seen]
    features += [Feature(name, "log1p") for name in added]
    inputs = dataclasses.replace(config.inputs, features=tuple(features))
    network = dataclasses.replace(config.network, inputs=inputs.channels)
    return dataclasses.replace(config, inputs=inputs, network=network)


def with_guides(config: DenseModelConfig, guides: tuple[str, ...]) -> DenseModelConfig:
    """Give a model the images of other methods than it has, as inputs and for its head."""
    features = [feature for feature in config.inputs.features if feature.guide is None]
    features += [Feature(GUIDE + guide, "log1p") for guide in guides]
    network = dataclasses.asdict(config.network)
    del network["inputs"], network["outputs"]
    return DenseModelConfig.make(
        dataclasses.replace(config.inputs, features=tuple(features)),
        head=config.head,
        guides=guides,
        consistency=config.consistency,
        limit=config.limit,
        **network,
    )


def _method(name: str) -> Callable[..., torch.Tensor]:
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
            weights: File of weights; by default those that ship under the method's name.
            precision: ``"auto"``, ``"float32"`` or ``"bfloat16"``.
            memory: Bytes of activations.
        """
        model = weight_files.cached_model(weights or name, buffers.device)
        return reconstruct(model, buffers, precision=precision, memory=memory)

    return method


def check_weights(name: str, guides: tuple[str, ...]) -> Callable[[Mapping[str, Any]], None]:
    """Make a ``check`` for the registry: weights are given, or ship, and the guides can run."""

    def check(options: Mapping[str, Any]) -> None:
        if options.get("weights") is not None:
            return
        weight_files.find_weights(name)
        for guide in guides:
            if (obstacle := registry.Call.parse(guide).obstacle) is not None:
                raise obstacle

    return check


def weights_version(name: str) -> Callable[[Mapping[str, Any]], str]:
    """Make a ``version`` for the registry: the name of the file of weights, which has a hash."""

    def version(options: Mapping[str, Any]) -> str:
        return weight_files.find_weights(options.get("weights") or name).stem

    return version


def _register() -> None:
    for name, preset in PRESETS.items():
        registry.register(
            name,
            needs=preset.config.needs,
            doc=preset.doc,
            check=check_weights(name, getattr(preset.config, "guides", ())),
            version=weights_version(name),
            anywhere=True,
        )(_method(name))


_register()
