"""Frame sets on disk: names of folders and files, and the reader.

The format is described in ``docs/formats/frames_v1.md``.

    ROOT/frames.json
    ROOT/{train|test}/<Scene>/frame-0000/{target.exr,noisy-0.exr,...}

The same tree with the channels of other tools (R, G, B, depth.Z, normal.*) is read too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mitsuba_gdpt import channels, exr, naming
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.checks import show
from mitsuba_gdpt.errors import ConfigError, FormatError
from mitsuba_gdpt.files import read_json
from mitsuba_gdpt.motion import PinholeCamera

#: Folders of a set.
SPLITS = ("train", "test")
#: File that describes how a set was rendered.
DESCRIPTION = "frames.json"
FORMAT, VERSION = "mitsuba_gdpt.frames", 1
TARGET = "target.exr"

#: Metadata entry of buffers whose channels had other names; lists those.
CONVERTED = "converted_from"

_FRAME = re.compile(r"frame-(\d{4,})")
_NOISY = re.compile(r"noisy-(\d+)\.exr")


def frame_folder(root: str | os.PathLike[str], split: str, scene: str, index: int) -> Path:
    """Return the folder of a frame."""
    return Path(root) / split / scene / f"frame-{index:04d}"


def noisy_name(k: int) -> str:
    """Return the file name of noisy render number ``k``."""
    return f"noisy-{k}.exr"


@dataclass(frozen=True)
class Frame:
    """Files of one frame.

    Attributes:
        index: Number in its sequence.
        folder: Where the files are.
        renders: Number of noisy renders.
    """

    index: int
    folder: Path
    renders: int

    def target(self) -> FrameBuffers:
        """Read the clean render and its features.

        Raises:
            FormatError: As for :func:`read_frame`.
        """
        return read_frame(self.folder / TARGET)

    def noisy(self, k: int) -> FrameBuffers:
        """Read noisy render number ``k``.

        Raises:
            ConfigError: There are not so many.
            FormatError: As for :func:`read_frame`.
        """
        if k not in range(self.renders):
            raise ConfigError(f"{self.folder} has {self.renders} noisy renders; there is no {k}")
        return read_frame(self.folder / noisy_name(k))

    def camera(self) -> PinholeCamera:
        """Read the camera from the header of the target, without reading pixels.

        Raises:
            FormatError: The file has none; other tools do not store it.
        """
        path = self.folder / TARGET
        try:
            return PinholeCamera.from_metadata(exr.read_metadata(path))
        except FormatError as error:
            raise FormatError(f"{path}: {error}") from error


@dataclass(frozen=True)
class FrameSequence:
    """Consecutive frames of one scene.

    Attributes:
        split: One of :data:`SPLITS`.
        scene: Name of the scene.
        frames: In order of time.
    """

    split: str
    scene: str
    frames: tuple[Frame, ...]

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Frame:
        return self.frames[index]

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.frames)


@dataclass(frozen=True)
class FrameSet:
    """A complete tree of frames; open one with :meth:`open`.

    Attributes:
        root: Its folder.
        sequences: One per scene, sorted by split (train first) and name.
    """

    root: Path
    sequences: tuple[FrameSequence, ...]

    @classmethod
    def open(cls, root: str | os.PathLike[str]) -> FrameSet:
        """List the frames under a folder; no pixels are read.

        Raises:
            FormatError: There are none, a frame has no target or no noisy render, or numbers are
                missing in between.
        """
        root = Path(root)
        _check_version(root)
        sequences = tuple(
            _scan_sequence(split, folder) for split in SPLITS for folder in _folders(root / split)
        )
        if not sequences:
            raise FormatError(
                f"{root}: no frame set; expected folders like train/SCENE/frame-0000 in it"
            )
        return cls(root, sequences)

    def scenes(self, split: str) -> tuple[str, ...]:
        """Return the names of a split's scenes.

        Raises:
            ConfigError: There is no such split.
        """
        if split not in SPLITS:
            raise ConfigError(f"there is no split {split!r}; expected one of: {', '.join(SPLITS)}")
        return tuple(s.scene for s in self.sequences if s.split == split)

    def sequence(self, split: str, scene: str) -> FrameSequence:
        """Return the frames of a scene.

        Raises:
            ConfigError: There is no such split or scene.
        """
        names = self.scenes(split)
        for sequence in self.sequences:
            if (sequence.split, sequence.scene) == (split, scene):
                return sequence
        raise ConfigError(
            f"{self.root / split} has no scene {scene!r}; there are: {', '.join(names) or 'none'}"
        )


def read_frame(path: str | os.PathLike[str]) -> FrameBuffers:
    """Read one image of a frame set, ours or another tool's.

    Names of other tools (:data:`mitsuba_gdpt.naming.ALIASES`) are translated; the entry
    :data:`CONVERTED` of ``metadata`` then lists them. Values stay as they are: normals of such
    files are usually in *world* space, ours are in camera space.

    Raises:
        FormatError: The file is missing or damaged, or lacks the primal or channels of a buffer.
    """
    image = exr.read(path)
    names = list(image.channels)
    matches = naming.find(names)
    ours = {channel: channel for buffer in channels.TABLE for channel in buffer.channels}
    for name, match in matches.items():
        kept = channels.buffer(name).channels
        ours.update(zip((names[i] for i in match.indices), kept, strict=True))
        for other in kept:  # the table says which of two names counts
            if other in names and names.index(other) not in match.indices:
                del ours[other]
    foreign = [name for name in names if ours.get(name, name) != name]
    if not foreign:
        return FrameBuffers.from_exr(path, require=[channels.PRIMAL])
    if channels.PRIMAL not in matches:
        raise FormatError(f"{path}: expected R, G, B; the file has: {exr.summarise(names)}")
    if torn := naming.torn(names):
        raise FormatError(
            f"{path}: {torn[0]!r} lacks channels; the file has: {exr.summarise(names)}"
        )
    planes = [image.channels[name].astype(np.float32) for name in names if name in ours]
    data = torch.from_numpy(np.stack(planes, axis=-1))
    metadata = {**image.metadata, CONVERTED: ", ".join(sorted(foreign))}
    return FrameBuffers.from_named(data, [ours[n] for n in names if n in ours], metadata)


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(p for p in parent.iterdir() if p.is_dir() and not p.name.startswith("."))


def _scan_sequence(split: str, folder: Path) -> FrameSequence:
    frames = []
    for entry in _folders(folder):
        if match := _FRAME.fullmatch(entry.name):
            frames.append(_scan_frame(int(match[1]), entry))
    if not frames:
        raise FormatError(f"{folder}: no frames; expected folders frame-0000, frame-0001, ...")
    frames.sort(key=lambda frame: frame.index)
    first, last = frames[0].index, frames[-1].index
    present = {frame.index for frame in frames}
    if missing := [index for index in range(first, last + 1) if index not in present]:
        raise FormatError(
            f"{folder}: frame-{missing[0]:04d} is missing ({len(missing)} in all); expected "
            f"consecutive frames. Render the set to its end"
        )
    return FrameSequence(split, folder.name, tuple(frames))


def _scan_frame(index: int, folder: Path) -> Frame:
    names = {entry.name for entry in folder.iterdir()}
    numbers = sorted(int(match[1]) for name in names if (match := _NOISY.fullmatch(name)))
    if TARGET not in names or not numbers or numbers != list(range(len(numbers))):
        raise FormatError(
            f"{folder}: incomplete; expected {TARGET} and {noisy_name(0)}, {noisy_name(1)}, ... "
            f"without gaps. Render the set to its end, or remove this folder"
        )
    return Frame(index, folder, len(numbers))


def _check_version(root: Path) -> None:
    path = root / DESCRIPTION
    if not path.is_file():
        return  # a set of another tool
    description = read_description(path)
    found = description.get("format"), description.get("version")
    if found != (FORMAT, VERSION):
        raise FormatError(
            f"{path}: got a set of format {show(found[0])}, version {show(found[1])}; this reads "
            f"{FORMAT!r}, version {VERSION}"
        )


def read_description(path: Path) -> dict[str, Any]:
    """Read a ``frames.json``.

    Raises:
        FormatError: It is damaged.
    """
    try:
        return read_json(path)
    except FormatError as error:
        raise FormatError(
            f"{error}. Remove it, and render the set again with the same settings where it is"
        ) from error
