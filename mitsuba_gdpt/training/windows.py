"""Windows of frame sets: consecutive frames, one choice of noise, one crop for all of them.

What is drawn for a window in training (noise, crop, direction of time, a stopped camera) follows
from the seed and the number of the sample. Nothing is drawn for validation: whole frames, forwards,
the first render of each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import MOTION, PRIMAL, Layout
from mitsuba_gdpt.data.frame_set import CONVERTED, Frame, FrameSequence, FrameSet
from mitsuba_gdpt.denoisers.learned.recurrent import RecurrentModel
from mitsuba_gdpt.errors import ConfigError, FormatError, LayoutError, NonFiniteError
from mitsuba_gdpt.motion import screen_motion
from mitsuba_gdpt.training.config import SequenceSettings, TrainingConfig
from mitsuba_gdpt.training.examples import Example, ExampleSet, Key, seeded
from mitsuba_gdpt.training.guides import GuideCache

_FEATURES_OF_TARGETS = {"depth", "normal"}


class Windows(ExampleSet):
    """All windows of some sequences, overlapping, cut down to the buffers that a model needs.

    An example is drawn, for training, if its key holds the number of the sample; else it is the
    whole window, for validation.

    Sets of other tools have depth and normals that are as noisy as the image in the noisy files;
    those of the target are used, as these tools do.

    Attributes:
        layout: Channels of the buffers of an example.
        targets: 1, the number of target images.
        guides: Cache of the guides, which are made of whole frames.
        mirrored: Not with sets of other tools, whose normals are in world space.
    """

    targets = 1

    def __init__(
        self,
        sequences: Sequence[FrameSequence],
        settings: SequenceSettings,
        needs: Sequence[str],
        guides: GuideCache,
        seed: int = 0,
    ) -> None:
        """Choose sequences.

        Args:
            sequences: What to cut windows from.
            settings: Their length and size, and what is drawn.
            needs: Names of the buffers that the model reads.
            guides: Its methods are the ones that the model wants.
            seed: Decides what is drawn.

        Raises:
            ConfigError: A sequence is shorter than a window, or its frames smaller than a crop.
            LayoutError: Its frames lack a buffer that the model or a guide needs.
        """
        self.sequences, self.settings, self.guides = tuple(sequences), settings, guides
        self.seed = seed
        self.layout = Layout.of(needs)
        required = set(needs) | guides.needs
        self.mirrored = True
        self._windows = []
        for number, sequence in enumerate(self.sequences):
            self._check(sequence, required)
            starts = len(sequence) - settings.length + 1
            self._windows += [(number, start) for start in range(starts)]

    def _check(self, sequence: FrameSequence, required: set[str]) -> None:
        settings, folder = self.settings, sequence[0].folder.parent
        if len(sequence) < settings.length:
            raise ConfigError(
                f"{folder} has {len(sequence)} frames; windows have {settings.length}. Render a "
                f"longer sequence, leave the scene out, or set sequence.length"
            )
        first = sequence[0].noisy(0)
        self.mirrored &= CONVERTED not in first.metadata
        if missing := sorted(required - set(first.names)):
            raise LayoutError(
                f"{folder} lacks the buffer(s) {', '.join(missing)}; it has: "
                f"{', '.join(first.names)}. Train another method ('rdae-plain' needs least) or "
                f"render other data"
            )
        if min(first.height, first.width) < settings.size:
            raise ConfigError(
                f"{folder} has frames of {first.width} x {first.height} pixels, smaller than a "
                f"crop of {settings.size}; render larger ones or set sequence.size"
            )

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, key: Key) -> Example:
        """Return a window."""
        position, sample = key if isinstance(key, tuple) else (key, None)
        number, start = self._windows[position]
        sequence, length = self.sequences[number], self.settings.length
        index = torch.tensor(position)
        if sample is None:
            frames = [sequence[start + t] for t in range(length)]
            return Example.window([self._load(frame, 0, index) for frame in frames])
        generator = seeded(self.seed, "window", sample)
        u = torch.rand(6, generator=generator).tolist()  # always as many, whatever is used
        renders = min(sequence[start + t].renders for t in range(length))
        if u[0] < self.settings.stop and renders > 1:
            frame = sequence[start + int(u[1] * length)]
            order = torch.randperm(renders, generator=generator).tolist()
            examples = [
                self._load(frame, order[t % renders], index, still=True) for t in range(length)
            ]
        else:
            render = int(u[2] * renders)
            frames = [sequence[start + t] for t in range(length)]
            followers: list[Frame | None] = [None] * length
            if u[3] < self.settings.reverse:
                frames.reverse()
                followers = [None, *frames[:-1]]  # in the file's time these come later
            examples = [
                self._load(frame, render, index, follower=follower)
                for frame, follower in zip(frames, followers, strict=True)
            ]
        window, size = Example.window(examples), self.settings.size
        x = int(u[4] * (window.buffers.width - size + 1))
        y = int(u[5] * (window.buffers.height - size + 1))
        return window.cropped(x, y, size, size)

    def _load(
        self,
        frame: Frame,
        render: int,
        index: torch.Tensor,
        *,
        still: bool = False,
        follower: Frame | None = None,
    ) -> Example:
        """Read a frame.

        Args:
            frame: Which.
            render: Number of the noisy render.
            index: Of the window that it belongs to.
            still: The camera has not moved since the frame before.
            follower: The frame that takes the place of the frame before, if time runs backwards.
        """
        whole, clean = frame.noisy(render), frame.target()
        target = clean[PRIMAL]
        if target.shape != whole[PRIMAL].shape:
            raise FormatError(
                f"{frame.folder}: the target is {target.shape[1]} x {target.shape[0]} pixels, the "
                f"noisy render {whole.width} x {whole.height}; expected the same size"
            )
        if CONVERTED in whole.metadata:
            for name in _FEATURES_OF_TARGETS & set(whole.names) & set(clean.names):
                whole[name].copy_(clean[name])
        guides = self.guides.images(whole)
        try:
            buffers = whole.select(self.layout.names)
            buffers.validate()
            FrameBuffers(target.contiguous(), Layout.of([PRIMAL])).validate()
        except (NonFiniteError, LayoutError) as error:
            raise type(error)(f"{frame.folder}: {error}") from error
        if MOTION in self.layout and still:
            buffers[MOTION].zero_()
        elif MOTION in self.layout and follower is not None:
            buffers[MOTION][:] = screen_motion(whole["depth"], frame.camera(), follower.camera())
        return Example(buffers, target[None], guides, index)

    @property
    def preparations(self) -> int:
        """Number of renders that guides can be made of."""
        return sum(frame.renders for sequence in self.sequences for frame in sequence)

    def prepare(self) -> Iterator[None]:
        """Compute and store the guides of one render after the other."""
        for sequence in self.sequences:
            for frame in sequence:
                for render in range(frame.renders):
                    self.guides.images(frame.noisy(render))
                    yield


def open_windows(config: TrainingConfig, model: RecurrentModel) -> tuple[Windows, Windows]:
    """Open the frame sets of a configuration, divided by scene.

    Windows overlap, so no frame is ever on both sides. Without validation sets and scenes,
    ``holdout`` of the scenes are held out, one at least; which follows from their names. If there
    is one only, the folder ``test`` is validated on, and without it the end of that scene.

    Returns:
        Windows to train on and to validate on.

    Raises:
        ConfigError: A scene does not exist, nothing is left on one side, or see :class:`Windows`.
        FormatError: A path is no frame set.
        LayoutError: See :class:`Windows`.
    """
    sequences = [s for path in config.data for s in FrameSet.open(path).sequences]
    others = [s for path in config.validation for s in FrameSet.open(path).sequences]
    _check_names(config.scenes, sequences)
    _check_names(config.validation_scenes, others or sequences)
    held = set(config.validation_scenes)
    training = [s for s in sequences if s.split == "train"]
    if config.scenes:
        training = [s for s in training if s.scene in config.scenes]
    if others:
        validation = [s for s in others if not held or s.scene in held]
    elif not held and len(training) == 1:
        validation = [s for s in sequences if s.split == "test"]
        if not validation:
            training, validation = _cut(training[0], config)
    else:
        held = held or _hold_out([s.scene for s in training], config.holdout)
        validation = [s for s in sequences if s.scene in held]
        training = [s for s in training if s.scene not in held]
    if not training or not validation:
        raise ConfigError(
            f"{len(training)} sequences are left to train on (of the folder 'train') and "
            f"{len(validation)} to validate on; expected some of each. Render more scenes, or "
            f"change the scenes"
        )
    config.require_unmeasured(s.scene for s in training)
    folder = Path(config.data[0]).absolute()
    cache = GuideCache(folder.with_name(folder.name + ".guides"), model.guides)
    needs = (*model.needs, *model.config.later)
    settings = config.sequence or SequenceSettings()
    return (
        Windows(training, settings, needs, cache, config.seed),
        Windows(validation, settings, needs, cache, config.seed),
    )


def _check_names(names: Sequence[str], sequences: Sequence[FrameSequence]) -> None:
    known = sorted({s.scene for s in sequences})
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"no scene {', '.join(unknown)}; there are: {', '.join(known)}")


def _cut(
    sequence: FrameSequence, config: TrainingConfig
) -> tuple[list[FrameSequence], list[FrameSequence]]:
    """Divide a sequence into what comes first and its end; all of it first if it is too short."""
    length = (config.sequence or SequenceSettings()).length
    end = len(sequence) - max(length, round(config.holdout * len(sequence)))
    if end < length:
        return [sequence], []
    parts = sequence.frames[:end], sequence.frames[end:]
    first, last = (replace(sequence, frames=frames) for frames in parts)
    return [first], [last]


def _hold_out(scenes: Sequence[str], share: float) -> set[str]:
    """Choose scenes by their names, at least one."""
    order = sorted(set(scenes), key=lambda s: hashlib.blake2b(s.encode(), digest_size=8).digest())
    return set(order[: max(1, round(share * len(order)))])
