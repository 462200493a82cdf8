"""Training examples, and minibatches of them as a function of the step."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from mitsuba_gdpt import progress, subprocesses
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.training.guides import GuideCache

#: Position of an example in its set; in training with the number of the sample, from which follows
#: what is drawn for it.
Key = int | tuple[int, int]


@dataclass(frozen=True)
class Example:
    """One frame, the frames of a window, or a minibatch of windows. A still is a window of one.

    Attributes:
        buffers: (..., H, W, C); the leading axes are (T,) of a window, (N, T) of a minibatch.
        target: (..., K, H, W, 3) radiance: one image, or two independent noisy ones.
        inner: (..., G, H, W, 3) radiance: the images of the methods that the model calls.
        index: (...) int64, position in its set; without the axis T.
    """

    buffers: FrameBuffers
    target: torch.Tensor
    inner: torch.Tensor
    index: torch.Tensor

    @classmethod
    def stack(cls, examples: Sequence[Example]) -> Example:
        """Put examples of the same kind along a new first axis."""
        return cls(
            _wrap(torch.stack([e.buffers.data for e in examples]), examples[0].buffers),
            torch.stack([e.target for e in examples]),
            torch.stack([e.inner for e in examples]),
            torch.stack([e.index for e in examples]),
        )

    @classmethod
    def window(cls, frames: Sequence[Example]) -> Example:
        """Put consecutive frames along the axis T."""
        return replace(cls.stack(frames), index=frames[0].index)

    def __getitem__(self, position: int) -> Example:
        """Return a view of one example of several."""
        return Example(
            _wrap(self.buffers.data[position], self.buffers),
            self.target[position],
            self.inner[position],
            self.index[position],
        )

    def __len__(self) -> int:
        """Number of examples, windows or frames along the first axis."""
        return len(self.target)

    def to(self, device: torch.device | str) -> Example:
        """Return the example on another device."""
        return Example(
            self.buffers.to(device),
            self.target.to(device),
            self.inner.to(device),
            self.index.to(device),
        )

    def flattened(self) -> Example:
        """Return the frames of all windows along one axis."""
        return Example(
            _wrap(self.buffers.data.flatten(0, -4), self.buffers),
            self.target.flatten(0, -5),
            self.inner.flatten(0, -5),
            self.index.repeat_interleave(self.buffers.leading[-1]),
        )

    def cropped(self, x: int, y: int, width: int, height: int) -> Example:
        """Copy a rectangle, as if only that had been rendered."""
        rows, columns = slice(y, y + height), slice(x, x + width)
        return replace(
            self,
            buffers=self.buffers.crop(x, y, width, height),
            target=self.target[..., rows, columns, :],
            inner=self.inner[..., rows, columns, :],
        )


def _wrap(data: torch.Tensor, like: FrameBuffers) -> FrameBuffers:
    return FrameBuffers(data, like.layout)


class ExampleSet(Dataset[Example]):
    """What training takes: windows by their :data:`Key`.

    Attributes:
        layout: Channels of the buffers of an example.
        targets: K, the number of target images.
        guides: Cache of the images of other methods.
        mirrored: Whether flips and transpositions keep buffers consistent.
    """

    mirrored: bool = True
    layout: Layout
    targets: int
    guides: GuideCache

    def __len__(self) -> int:
        """Number of examples."""
        raise NotImplementedError

    def __getitem__(self, key: Key) -> Example:
        """Return an example."""
        raise NotImplementedError

    @property
    def preparations(self) -> int:
        """Number of frames that guides can be made of."""
        raise NotImplementedError

    def prepare(self) -> Iterator[None]:
        """Compute and store the guides of one frame after the other."""
        raise NotImplementedError


class Resident(Dataset[Example]):
    """Examples that stay in memory, on a device: taking one costs nothing.

    What they need is computed and read once, in the beginning. 2000 examples of 128x128 pixels with
    16 channels and 3 images take 3.3 GB.
    """

    def __init__(self, examples: ExampleSet, device: torch.device, workers: int = 0) -> None:
        """Read all examples.

        Args:
            examples: What to keep; nothing is drawn for a sample.
            device: Where.
            workers: Processes that read; 0: this one. They compute missing images of other methods
                where ``examples`` says, and cannot use CUDA.
        """
        self._count = len(examples)
        with progress.task("reading examples", total=self._count) as task:
            reader = DataLoader(examples, batch_size=None, **worker_options(workers))
            for position, example in enumerate(reader):
                if position == 0:
                    self._all = self._space_for(example, device)
                for kept, value in zip(_tensors(self._all), _tensors(example), strict=True):
                    kept[position] = value
                task.advance()

    def _space_for(self, example: Example, device: torch.device) -> Example:
        data, *rest = (
            torch.empty((self._count, *t.shape), dtype=t.dtype, device=device)
            for t in _tensors(example)
        )
        return Example(_wrap(data, example.buffers), *rest)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, key: Key) -> Example:
        """Return an example; the tensors are views."""
        return self._all[key if isinstance(key, int) else key[0]]


def _tensors(example: Example) -> tuple[torch.Tensor, ...]:
    return example.buffers.data, example.target, example.inner, example.index


def worker_options(workers: int) -> dict[str, Any]:
    """Return options of a ``DataLoader``: how many processes, and how they start.

    They are not forked: threads that libraries have started here would be missing in them, and
    their first image of another method would wait for ever. Python starts them by importing the
    main script, which therefore has to keep its work below ``if __name__ == "__main__"``.
    They end when this process is killed, in the middle of an image too.
    """
    if not workers:
        return {"num_workers": 0}
    return {
        "num_workers": workers,
        "multiprocessing_context": "spawn",
        "worker_init_fn": functools.partial(_start_worker, os.getpid()),
    }


def _start_worker(parent: int, worker: int) -> None:
    subprocesses.end_with(parent)


class StepBatches(Sampler[list[tuple[int, int]]]):
    """Keys of the minibatches of a run, from some step on: pairs of index and number of the sample.

    Each pass over the examples is a new permutation, which follows from seed and pass alone. So
    a resumed run sees what it would have seen.
    """

    def __init__(self, count: int, batch: int, steps: int, seed: int, start: int = 0) -> None:
        """Choose.

        Args:
            count: Number of examples.
            batch: Examples per step.
            steps: Steps of the whole run.
            seed: Of the run.
            start: First step to yield.
        """
        self.count, self.batch, self.steps = count, batch, steps
        self.seed, self.start = seed, start

    def __len__(self) -> int:
        """Steps of the whole run: where a run stands is not the loader's concern."""
        return self.steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order, current = torch.empty(0), -1
        for step in range(self.start, self.steps):
            keys = []
            for sample in range(step * self.batch, (step + 1) * self.batch):
                epoch, position = divmod(sample, self.count)
                if epoch != current:
                    generator = seeded(self.seed, "order", epoch)
                    order, current = torch.randperm(self.count, generator=generator), epoch
                keys.append((int(order[position]), sample))
            yield keys


def seeded(seed: int, purpose: str, number: int) -> torch.Generator:
    """Return a source of random numbers that depends on these three only."""
    digest = hashlib.blake2b(f"{seed} {purpose} {number}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
