"""Crop sets as training examples, divided into those to train and those to validate on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import PRIMAL
from mitsuba_gdpt.errors import LayoutError
from mitsuba_gdpt.training.examples import Example, ExampleSet, Key
from mitsuba_gdpt.training.guides import GuideCache


class Crops(ExampleSet):
    """Examples of a crop set with guides, cut down to the buffers that a model needs.

    Attributes:
        layout: Channels of the buffers of an example.
        targets: Number of target images.
        guides: Cache of the guides.
        mirrored: Not where the model sees normals that are in world space.
    """

    def __init__(
        self,
        base: Any,
        indices: Sequence[int],
        needs: Sequence[str],
        guides: GuideCache,
        reconstructed: GuideCache | None = None,
    ) -> None:
        """Choose examples.

        Args:
            base: A :class:`~mitsuba_gdpt.data.CropDataset`, or anything with its items and its
                ``layout``.
            indices: Which of its items.
            needs: Names of the buffers that the model reads. The primal is kept in any case:
                validation compares with it.
            guides: Cache of the guides; its methods are the ones that the model wants.
            reconstructed: Cache of targets: its one method replaces the noisy targets by what it
                makes of ``base.target_buffers(index)``. None leaves the targets as they are.

        Raises:
            LayoutError: The set lacks a buffer that the model, a guide or a reconstruction of
                targets needs.
        """
        self.base, self.indices, self.guides = base, list(indices), guides
        self.reconstructed = reconstructed
        self._target_keys: dict[int, str] = {}  # spares decoding all renders of a crop
        kept = {PRIMAL, *needs}
        required = kept | guides.needs
        if reconstructed is not None:
            required |= reconstructed.needs
        if missing := sorted(required - set(base.layout.names)):
            less = ",".join(f"-{name}" for name in missing)
            raise LayoutError(
                f"the data lack the buffer(s) {', '.join(missing)}; they have: "
                f"{', '.join(base.layout.names)}. Render other data, or train another method; "
                f"dense networks can do without some (inputs={less})"
            )
        self.layout = base.layout.chosen(kept)
        sets = getattr(base, "sets", ())
        self.mirrored = "normal" not in self.layout or all(crops.mirrored for crops in sets)
        self.targets = len(self._targets(self.indices[0])) if self.indices else 0

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: Key) -> Example:
        """Return an example, a window of one frame."""
        index = self.indices[key if isinstance(key, int) else key[0]]
        item = self.base[index]
        buffers = FrameBuffers(item["buffers"], self.base.layout)
        guides = self.guides.images(buffers)
        frame = Example(
            buffers.select(self.layout.names),
            self._targets(index, item),
            guides,
            torch.tensor(index),
        )
        return Example.window([frame])

    def _targets(self, index: int, item: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Return the targets of an item of the base, (K, H, W, 3)."""
        item = item or self.base[index]
        if self.reconstructed is None:
            return item["targets"]
        if index in self._target_keys:
            size = item["buffers"].shape[0], item["buffers"].shape[1]
            kept = self.reconstructed.kept(self._target_keys[index], size)
            if kept is not None:
                return kept
        buffers = self.base.target_buffers(index)
        self._target_keys[index] = self.reconstructed.key(buffers)
        return self.reconstructed.images(buffers)

    @property
    def preparations(self) -> int:
        """Number of items that guides can be made of."""
        return len(self)

    def prepare(self) -> Iterator[None]:
        """Compute and store the guides of one item after the other."""
        for position in range(len(self)):
            self[position]
            yield


def split(
    crops: Sequence[tuple[str, str]], holdout: float, scenes: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Divide a data set into training and validation examples.

    A crop is held out or not because of its name, so it stays on its side when a set grows. Of a
    small set, in which no name would be, the first by its hash is; the last never is.

    Args:
        crops: Scene and name of the crop of each example. Examples of one crop share a side.
        holdout: Share of crops to hold out, at least one unless it is 0; ignored if there are
            ``scenes``.
        scenes: Hold out these scenes.

    Returns:
        Indices of the training and of the validation examples.
    """
    if scenes:
        out = {(scene, crop) for scene, crop in crops if scene in scenes}
    else:
        hashes = {
            (scene, crop): int.from_bytes(
                hashlib.blake2b(f"{scene} {crop}".encode(), digest_size=4).digest(), "little"
            )
            for scene, crop in crops
        }
        out = {name for name, digest in hashes.items() if digest < holdout * 2**32}
        order = sorted(hashes, key=lambda name: hashes[name])
        if not out and holdout > 0:
            out = {*order[:1]}
        out -= {*order[-1:]}  # and one is left to train on
    kept = [index for index, name in enumerate(crops) if name not in out]
    held = [index for index, name in enumerate(crops) if name in out]
    return kept, held


def crop_names(dataset: Any, scenes: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Return scene and name of the crop of each example of a ``CropDataset``.

    Args:
        dataset: A :class:`~mitsuba_gdpt.data.CropDataset`.
        scenes: Those that it was restricted to, or none.
    """
    names = []
    for crops in dataset.sets:
        for position in range(len(crops)):
            scene, crop = crops.where(position)
            if not scenes or scene in scenes:
                names += [(scene, f"{crops.path.name}/{crop}")] * crops.levels
    return names
