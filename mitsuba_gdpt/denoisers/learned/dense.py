"""The dense U-Net of NGPT and its relatives: its inputs, and what its output means."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from mitsuba_gdpt.channels import PRIMAL, TABLE, VARIANCE_SUFFIX, Layout
from mitsuba_gdpt.decoding import decode
from mitsuba_gdpt.denoisers.classical import fusion
from mitsuba_gdpt.denoisers.learned.features import (
    GUIDE,
    Feature,
    InputConfig,
    Prepared,
    preprocess,
)
from mitsuba_gdpt.denoisers.learned.model import (
    FAVOUR,
    How,
    Model,
    ModelConfig,
    blend,
    compressed,
    converge,
)
from mitsuba_gdpt.denoisers.learned.networks import DenseUNet, DenseUNetConfig
from mitsuba_gdpt.denoisers.variances import SAMPLED, estimated_variances, rendered_variances
from mitsuba_gdpt.errors import ConfigError

HEADS = ("direct", "blend", "fusion")
#: Inputs that the networks can have besides, and do not have in the shipped configurations.
OPTIONAL_INPUTS = ("diffuse", "specular", "variances")
_BUFFERS = {row.name for row in TABLE}


@dataclasses.dataclass(frozen=True)
class DenseModelConfig(ModelConfig):
    """A dense U-Net and how it is used.

    Attributes:
        inputs: What it sees.
        network: Sizes; inputs and outputs follow from the rest and may be left at 0.
        head: ``"direct"``: the output is the image's log(1 + x). ``"blend"``: it holds a weight for
            each guide and the primal (softmax), and three residuals that are added to the weighted
            mean of log(1 + x).
            ``"fusion"``: that image is then brought into line with dx and dy by a screened Poisson
            solve (:mod:`mitsuba_gdpt.denoisers.classical.fusion`); the output holds factors on its
            weights, one per pixel and direction. All but ``"direct"`` start as the first guide,
            ``"fusion"`` as that fused by the variance of the gradients.
        guides: Methods whose images the head uses; they are inputs too if ``inputs`` says so.
        consistency: If not 0, the relative standard deviation of the primal at which the result
            consists half of the primal. It makes the method consistent: as the number of samples
            grows, the result converges to the primal, whatever the network says. The variance is
            estimated (:mod:`mitsuba_gdpt.denoisers.variances`) unless a rendered one is an input.
    """

    inputs: InputConfig
    network: DenseUNetConfig
    head: str = "direct"
    guides: tuple[str, ...] = ()
    consistency: float = 0.0

    def __post_init__(self) -> None:
        """Refuse combinations that make no sense.

        Raises:
            ConfigError: The head is unknown or lacks a guide, or a channel count does not fit.
        """
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
            needs += [PRIMAL + VARIANCE_SUFFIX] if self.measured else SAMPLED
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
        )

    def changed(
        self,
        changes: Mapping[str, Any],
        *,
        guides: tuple[str, ...] = (),
        inputs: tuple[str, ...] = (),
    ) -> DenseModelConfig:
        """See :meth:`ModelConfig.changed`: fields of the network, of inputs OPTIONAL_INPUTS.

        A name of a buffer with a minus before it takes that away.
        """
        if guides and not self.guides:
            raise ConfigError("this method sees no images of other methods")
        images = guides or self.guides
        kept = self._kept([name[1:] for name in inputs if name.startswith("-")])
        features = [
            *kept,
            *self._added([name for name in inputs if not name.startswith("-")], kept),
        ]
        if guides:
            features = [feature for feature in features if feature.guide is None]
            features += [Feature(GUIDE + guide, "log1p") for guide in guides]
        sizes = {**dataclasses.asdict(self.network), **changes}
        network = dataclasses.asdict(decode(DenseUNetConfig, sizes, "network"))
        del network["inputs"], network["outputs"]
        return DenseModelConfig.make(
            dataclasses.replace(self.inputs, features=tuple(features)),
            head=self.head,
            guides=images,
            consistency=self.consistency,
            **network,
        )

    def _kept(self, without: list[str]) -> list[Feature]:
        """Return the features but those of some buffers, which the rest of the model can miss."""
        seen = [feature.source for feature in self.inputs.features]
        fixed = {PRIMAL, *(fusion.NEEDS if self.head == "fusion" else ())}
        if self.inputs.demodulate:
            fixed.add("albedo")
        free = [name for name in seen if name not in fixed and name in _BUFFERS]
        if unknown := [name for name in without if name not in free]:
            raise ConfigError(
                f"inputs: got -{', -'.join(unknown)}; what can be taken away is {', '.join(free)}"
            )
        return [feature for feature in self.inputs.features if feature.source not in without]

    def _added(self, names: list[str], kept: list[Feature]) -> list[Feature]:
        """Return further features; ``"variances"``: one for each buffer that there is then."""
        if unknown := [name for name in names if name not in OPTIONAL_INPUTS]:
            raise ConfigError(
                f"inputs: got {', '.join(unknown)}; expected some of {', '.join(OPTIONAL_INPUTS)}"
            )
        seen = [feature.source for feature in kept]
        added = [name for name in OPTIONAL_INPUTS[:-1] if name in names and name not in seen]
        if "variances" in names:
            sources = [name + VARIANCE_SUFFIX for name in (*seen, *added)]
            added += [name for name in sources if name in _BUFFERS and name not in seen]
        return [Feature(name, "log1p") for name in added]


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

    def image(
        self, data: torch.Tensor, layout: Layout, guides: torch.Tensor | None, how: How
    ) -> torch.Tensor:
        """See :meth:`Model.image`."""
        config = self.config
        prepared = preprocess(
            data,
            layout,
            config.inputs,
            alignment=config.network.alignment,
            guides=self._choose(guides, config.inputs.guides),
            shifts=how.shifts,
            depth_scale=how.depth_scale,
        )
        output = prepared.padding.remove(self._run(prepared.input, how.memory)).float()
        fused = fusion.LOGITS if config.head == "fusion" else 0
        output, logits = output.split([output.shape[-1] - fused, fused], dim=-1)
        image = prepared.restore(
            self._interpret(output, data, layout, prepared, self._choose(guides, config.guides))
        )
        if fused:
            image = fusion.fuse_gradients(
                image, data, layout, logits, rendered_variances(data, layout)
            )
        if config.consistency:
            source = rendered_variances if config.measured else estimated_variances
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
        candidates = [*guides.unbind(1), data[..., layout.slices[PRIMAL]]]
        # Logarithms also keep a firefly of the primal from showing with the smallest of weights.
        candidates = [compressed(image, prepared) for image in candidates]
        start = output.new_zeros(len(candidates))
        start[0] = FAVOUR
        return blend(output, candidates, start).expm1()


# ------------------------------------------------------------------------------- precision
