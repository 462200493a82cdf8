"""Training on crops that are rendered when they are needed, with nothing on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.data.plan import CropPlan
from mitsuba_gdpt.data.render import LAYOUT, CropRenderer, RenderedCrop
from mitsuba_gdpt.errors import ConfigError

_SHUFFLE = 2  # part of the key of the seed sequence; those of the plan are 0 and 1


@dataclass
class _Slot:
    item: dict[str, Any]
    uses: int


class OnlineCrops(IterableDataset[dict[str, Any]]):
    """An endless stream of freshly rendered crops, each used a few times.

    Items are those of :class:`~mitsuba_gdpt.data.CropDataset`; ``index`` counts noisy renders. The
    tensors are the renderer's own memory, on its device: nothing is copied, and nobody may write to
    them.

    Rendered crops go into a replay buffer, from which items are drawn at random. An item leaves
    after ``reuse`` draws, and as soon as there is room for a crop the next one is rendered. So
    after the buffer has been filled, one crop is rendered per ``levels * reuse`` items.

    Rendering takes turns with training in the same thread. A second thread would win nothing, as
    Dr.Jit and torch each keep all cores, or the one GPU, busy; and it would make the order of
    items depend on the machine's load. This way the same plan gives the same stream. For the same
    reason it cannot run in the worker processes of a ``DataLoader``: give it ``num_workers=0``.

    Attributes:
        layout: Channels of ``buffers``.
        rendered: Number of crops rendered so far.

    Example:
        >>> crops = OnlineCrops(plan, capacity=256, reuse=4)  # doctest: +SKIP
        >>> loader = torch.utils.data.DataLoader(crops, batch_size=8)  # doctest: +SKIP
    """

    def __init__(self, plan: CropPlan, *, capacity: int = 256, reuse: int = 4) -> None:
        """Prepare a stream; scenes are loaded when it is first iterated over.

        Args:
            plan: What to render; ``plan.crops`` does not bound it, scenes are chosen in proportion
                to their weight. All scenes stay in memory.
            capacity: Noisy renders in the replay buffer, at least ``plan.levels``. An item of 128 x
                128 pixels takes 2.4 MB.
            reuse: How often each noisy render is used.

        Raises:
            ConfigError: A number is too small.
        """
        super().__init__()
        if capacity < plan.levels:
            raise ConfigError(
                f"capacity is {capacity}; expected at least the {plan.levels} levels of a crop"
            )
        if reuse < 1:
            raise ConfigError(f"reuse is {reuse}; expected at least 1")
        self.plan, self.capacity, self.reuse = plan, capacity, reuse
        self.layout: Layout = LAYOUT
        self.rendered = 0
        self._renderers: list[CropRenderer] = []

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield items without end; every iterator begins the same stream anew.

        Raises:
            ConfigError: Called in a worker process of a ``DataLoader``.
            NonFiniteError: A pixel is NaN or infinite; names scene, crop and seed.
        """
        if get_worker_info() is not None:
            raise ConfigError(
                "crops cannot be rendered in the worker processes of a DataLoader: what Dr.Jit "
                "keeps does not survive a fork; use num_workers=0"
            )
        random = np.random.default_rng(
            np.random.SeedSequence(self.plan.seed, spawn_key=(_SHUFFLE,))
        )
        fresh = self._render_forever(random)
        slots: list[_Slot] = []
        while True:
            while len(slots) + self.plan.levels <= self.capacity:
                crop = next(fresh)
                slots += [_Slot(item, self.reuse) for item in crop]
            chosen = int(random.integers(len(slots)))
            slot = slots[chosen]
            slot.uses -= 1
            if not slot.uses:  # the order of slots means nothing
                slots[chosen] = slots[-1]
                slots.pop()
            yield slot.item

    def _render_forever(self, random: np.random.Generator) -> Iterator[list[dict[str, Any]]]:
        if not self._renderers:
            # All of them before the first render: loading a scene changes the kernels of others.
            self._renderers = [CropRenderer(scene, self.plan) for scene in self.plan.scenes]
        weights = np.array([scene.weight for scene in self.plan.scenes])
        counts, index = [0] * len(weights), 0
        while True:
            which = int(random.choice(len(weights), p=weights / weights.sum()))
            renderer = self._renderers[which]
            crop = renderer.render(self.plan.crop(renderer.scene, counts[which]))
            counts[which] += 1
            self.rendered += 1
            yield _items(crop, index)
            index += self.plan.levels


def _items(crop: RenderedCrop, first: int) -> list[dict[str, Any]]:
    return [
        {
            "buffers": frame.data,
            "targets": crop.targets,
            "target_variance": crop.target_variance,
            "spp": torch.tensor(spp),
            "index": torch.tensor(first + level),
            "scene": crop.spec.scene,
        }
        for level, (frame, spp) in enumerate(zip(crop.noisy, crop.spec.spp, strict=True))
    ]
