"""Examples with the images of other methods (guides), and minibatches as a function of the step.

Guides are costly, so each is computed once and kept beside the crop set, as float16, under a hash
of the buffers that it was made from: whatever happens to the set, a guide never goes with other
buffers. Files appear only when they are complete.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from mitsuba_gdpt import progress
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import PRIMAL, Layout
from mitsuba_gdpt.denoisers.learned.methods import guide_images
from mitsuba_gdpt.denoisers.registry import Call
from mitsuba_gdpt.errors import LayoutError
from mitsuba_gdpt.files import replace_file

_FILE_NAME = re.compile(r"[A-Za-z0-9_.,=() -]{1,100}")
_LARGEST = float(np.finfo(np.float16).max)
_MOST_HEADER = 4096  # bytes before the values of a guide


class GuideCache:
    """Images that methods make of buffers, kept on disk.

    Attributes:
        folder: Where the files go; made when the first is written. None keeps nothing.
        methods: Names of the methods.
        device: Where images are computed. A process that a data loader has forked cannot use CUDA,
            so it is the CPU unless somebody knows better.
    """

    def __init__(self, folder: Path | None, methods: Sequence[str]) -> None:
        self.folder, self.methods = folder, tuple(methods)
        self.device = torch.device("cpu")

    @property
    def needs(self) -> set[str]:
        """Names of the buffers that the methods need."""
        return {name for method in self.methods for name in Call.parse(method).requires}

    def images(self, buffers: FrameBuffers) -> torch.Tensor:
        """Return the images, read or computed, (G, H, W, 3) float32 rounded to float16.

        Values beyond the range of float16 are limited to it.

        A file that is damaged is written anew.

        Raises:
            FormatError: A file cannot be written.
            GDPTError: A method cannot run here.
        """
        if not self.methods:
            return guide_images((), buffers)
        key = self.key(buffers)
        return torch.stack([self._one(method, buffers, key) for method in self.methods])

    @staticmethod
    def key(buffers: FrameBuffers) -> str:
        """Return what the images of these buffers are kept under."""
        digest = hashlib.blake2b(buffers.data.contiguous().numpy().tobytes(), digest_size=16)
        digest.update(",".join(buffers.layout.channels).encode())
        return digest.hexdigest()

    def kept(self, key: str, size: tuple[int, int]) -> torch.Tensor | None:
        """Return the images under a key, or None if one is not there or is damaged.

        Args:
            key: See :meth:`key`.
            size: Height and width.
        """
        found = []
        for method in self.methods:
            path = self._path(method, key)
            image = None if path is None else self._read(path, (*size, 3))
            if image is None:
                return None
            found.append(image)
        return torch.stack(found)

    def _path(self, method: str, key: str) -> Path | None:
        return self.folder and self.folder / _folder(method) / key[:2] / f"{key}.npy"

    def _one(self, method: str, buffers: FrameBuffers, key: str) -> torch.Tensor:
        path = self._path(method, key)
        size = buffers.height, buffers.width, 3
        if path is not None and (kept := self._read(path, size)) is not None:
            return kept
        moved = buffers.to(self.device)
        image = guide_images((method,), moved)[0].cpu().clamp(-_LARGEST, _LARGEST).half()
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            array = image.numpy()

            def write(temporary: Path) -> None:
                with temporary.open("wb") as file:  # given a path, NumPy appends a suffix
                    np.save(file, array)

            replace_file(path, write)
        return image.float()

    @staticmethod
    def _read(path: Path, shape: tuple[int, ...]) -> torch.Tensor | None:
        """Read an image; None if there is none, or one that has to be made anew."""
        values = math.prod(shape)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size > _MOST_HEADER + 2 * values:
                    return None
                array = np.lib.format.read_array(io.BytesIO(file.read()), allow_pickle=False)
        except Exception:  # the header is Python's syntax, of which damaged files make anything
            return None
        if array.shape != shape or array.dtype != np.float16 or not np.isfinite(array).all():
            return None
        return torch.from_numpy(array.astype(np.float32))


def _folder(method: str) -> str:
    """Return the folder of a method's images, which go with the weights that it uses."""
    identity = Call.parse(method).identity
    if _FILE_NAME.fullmatch(identity):
        return identity
    digest = hashlib.blake2b(identity.encode(), digest_size=6).hexdigest()
    return f"{Call.parse(method).method}-{digest}"


class Examples(Dataset[dict[str, torch.Tensor]]):
    """Examples of a crop set with guides, cut down to the buffers that a model needs.

    An item has ``buffers`` (H, W, C), ``images`` (T + G, H, W, 3) (targets, then guides) and
    ``index`` ().

    Attributes:
        layout: Channels of ``buffers``.
        targets: T, the number of target images.
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
            raise LayoutError(
                f"the data lack the buffer(s) {', '.join(missing)}; they have: "
                f"{', '.join(base.layout.names)}. Train another method or render other data"
            )
        self.layout: Layout = base.layout.chosen(kept)
        self._channels = base.layout.indices(kept)
        self.targets = len(self._targets(self.indices[0])) if self.indices else 0

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        """Return an example."""
        item = self.base[self.indices[position]]
        buffers = item["buffers"]
        guides = self.guides.images(FrameBuffers(buffers, self.base.layout))
        targets = self._targets(self.indices[position], item)
        return {
            "buffers": buffers[..., self._channels],
            "images": torch.cat([targets, guides]),
            "index": torch.tensor(self.indices[position]),
        }

    def _targets(self, index: int, item: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
        """Return the targets of an item of the base, (T, H, W, 3)."""
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


class Resident(Dataset[dict[str, torch.Tensor]]):
    """Examples that stay in memory, on a device: taking one costs nothing.

    What they need is computed and read once, in the beginning. 2000 examples of 128x128 pixels with
    16 channels and 3 images take 3.3 GB.

    Attributes:
        layout: As of :class:`Examples`.
        targets: As of :class:`Examples`.
    """

    def __init__(self, examples: Examples, device: torch.device, workers: int = 0) -> None:
        """Read all examples.

        Args:
            examples: What to keep.
            device: Where.
            workers: Processes that read; 0: this one. They compute missing images of other methods
                where ``examples`` says, and cannot use CUDA.
        """
        self.layout, self.targets = examples.layout, examples.targets
        self._items: dict[str, torch.Tensor] = {}
        with progress.task("reading examples", total=len(examples)) as task:
            reader = DataLoader(examples, batch_size=None, **worker_options(workers))
            for position, example in enumerate(reader):
                for key, value in example.items():
                    if key not in self._items:
                        shape = (len(examples), *value.shape)
                        self._items[key] = torch.empty(shape, dtype=value.dtype, device=device)
                    self._items[key][position] = value
                task.advance()

    def __len__(self) -> int:
        return len(next(iter(self._items.values())))

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        """Return an example; the tensors are views."""
        return {key: values[position] for key, values in self._items.items()}


def worker_options(workers: int) -> dict[str, Any]:
    """Return options of a ``DataLoader``: how many processes, and how they start.

    They are not forked: threads that libraries have started here would be missing in them, and
    their first image of another method would wait for ever. Python starts them by importing the
    main script, which therefore has to keep its work below ``if __name__ == "__main__"``.
    """
    return {"num_workers": workers, "multiprocessing_context": "spawn" if workers else None}


class StepBatches(Sampler[list[Any]]):
    """Keys of the minibatches of a run, from some step on.

    Each pass over the examples is a new permutation, which follows from seed and pass alone. So
    a resumed run sees what it would have seen.
    """

    def __init__(
        self,
        count: int,
        batch: int,
        steps: int,
        seed: int,
        start: int = 0,
        *,
        numbered: bool = False,
    ) -> None:
        """Choose.

        Args:
            count: Number of examples.
            batch: Examples per step.
            steps: Steps of the whole run.
            seed: Of the run.
            start: First step to yield.
            numbered: Yield pairs of an index and the number of the sample, for data sets that draw
                something for each sample.
        """
        self.numbered = numbered
        self.count, self.batch, self.steps = count, batch, steps
        self.seed, self.start = seed, start

    def __len__(self) -> int:
        """Steps of the whole run: where a run stands is not the loader's concern."""
        return self.steps

    def __iter__(self) -> Iterator[list[Any]]:
        order, current = torch.empty(0), -1
        for step in range(self.start, self.steps):
            keys: list[Any] = []
            for sample in range(step * self.batch, (step + 1) * self.batch):
                epoch, position = divmod(sample, self.count)
                if epoch != current:
                    generator = seeded(self.seed, "order", epoch)
                    order, current = torch.randperm(self.count, generator=generator), epoch
                index = int(order[position])
                keys.append((index, sample) if self.numbered else index)
            yield keys


def seeded(seed: int, purpose: str, number: int) -> torch.Generator:
    """Return a source of random numbers that depends on these three only."""
    digest = hashlib.blake2b(f"{seed} {purpose} {number}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


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
