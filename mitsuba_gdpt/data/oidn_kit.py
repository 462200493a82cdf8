"""Export in the layout of OIDN's training toolkit: one image of three channels per file.

    FOLDER/BASE_0008spp.hdr.exr, BASE_0008spp.alb.exr, BASE_0008spp.nrm.exr    noisy, with features
    FOLDER/BASE_ref.hdr.exr, BASE_ref.alb.exr, BASE_ref.nrm.exr                what it should be

``FOLDER`` is a data set of the toolkit, as ``data/train``; files of one ``BASE`` show the same. The
features of references are what its ``--clean_aux`` and networks that filter features learn from.
Source: ``training/dataset.py`` of Intel Open Image Denoise 2.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mitsuba_gdpt import checks, exr
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import CORE, PRIMAL, Layout
from mitsuba_gdpt.data.dataset import Crop, CropSet
from mitsuba_gdpt.data.frame_set import FrameSet
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.foreign import take

#: The toolkit's names of features.
FEATURES = {PRIMAL: "hdr", "albedo": "alb", "normal": "nrm"}
_SPP = "spp"  # metadata entry of renders


def export_crops(crops: CropSet, folder: str | os.PathLike[str]) -> int:
    """Export the finished crops of a set; the reference is the mean of a crop's targets.

    Its features are the means over all samples that the set has of them, where it says how many.

    Returns:
        Number of noisy images.

    Raises:
        FormatError: A crop is damaged, or a file cannot be written.
    """
    folder = _made(folder)
    return sum(
        _export(
            folder,
            f"{crop.scene}-{crop.index:05d}",
            [(frame, int(spp)) for frame, spp in zip(crop.buffers, crop.spp, strict=True)],
            _reference(crops, position, crop),
        )
        for position, crop in ((position, crops[position]) for position in range(len(crops)))
    )


def export_frames(
    frames: FrameSet, folder: str | os.PathLike[str], splits: Iterable[str] = ("train",)
) -> int:
    """Export the frames of a set.

    Args:
        frames: Ours or another tool's.
        folder: Data set of the toolkit.
        splits: Which parts of the set.

    Returns:
        Number of noisy images.

    Raises:
        FormatError: A frame is damaged, or a file cannot be written.
    """
    folder, count = _made(folder), 0
    for sequence in frames.sequences:
        if sequence.split not in splits:
            continue
        for frame in sequence:
            noisy = [frame.noisy(k) for k in range(frame.renders)]
            base = f"{sequence.scene}-{frame.index:05d}"
            count += _export(folder, base, [(n, _spp(n)) for n in noisy], frame.target())
    return count


def export_renders(
    renders: Sequence[str | os.PathLike[str]],
    reference: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    name: str = "",
) -> int:
    """Export renders of one view.

    Args:
        renders: Files of noisy renders, with features or without; as for ``denoise()``.
        reference: File of the converged image, with features or without.
        folder: Data set of the toolkit.
        name: What the files begin with; by default the name of the reference.

    Returns:
        Number of noisy images.

    Raises:
        ConfigError: There is no render, they differ in size or features, or ``name`` is no file
            name.
        FormatError: A file cannot be read or written.
    """
    if not renders:
        raise ConfigError("got no noisy render to export; expected at least one")
    name = checks.file_name("name", name or Path(reference).stem)
    frames = [take(path) for path in renders]
    target = take(reference)
    for path, frame in zip(renders, frames, strict=True):
        if frame[PRIMAL].shape != target[PRIMAL].shape:
            raise ConfigError(
                f"{path} has {frame.width} x {frame.height} pixels, and {reference} "
                f"{target.width} x {target.height}; expected one size"
            )
        if (had := _features(frame)) != (wanted := _features(frames[0])):
            raise ConfigError(
                f"{path} has {', '.join(had)}, and {renders[0]} {', '.join(wanted)}; expected the "
                f"same in all: the toolkit leaves out views with an image that lacks a feature"
            )
    return _export(_made(folder), name, [(frame, _spp(frame)) for frame in frames], target)


def _reference(crops: CropSet, position: int, crop: Crop) -> FrameBuffers:
    if crops.levels > 1 and int(crop.spp.min()) > 0:
        return crops.target_buffers(position, 0)
    return FrameBuffers(crop.targets.mean(0), Layout(CORE[:1]))


def _features(frame: FrameBuffers) -> list[str]:
    return [name for name in FEATURES if name in frame]


def _made(folder: str | os.PathLike[str]) -> Path:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _spp(frame: FrameBuffers) -> int:
    """Return how many samples a render says that it has; 1 if it does not."""
    text = frame.metadata.get(_SPP, "")
    return int(text) if text.isdecimal() else 1


def _export(
    folder: Path, base: str, noisy: Sequence[tuple[FrameBuffers, int]], target: FrameBuffers
) -> int:
    """Write the versions of an image; those with equal samples get references of their own."""
    seen: dict[int, int] = {}
    for frame, spp in noisy:
        _write(folder / f"{_numbered(base, seen.get(spp, 0))}_{spp:04d}spp", frame)
        seen[spp] = seen.get(spp, 0) + 1
    for repeat in range(max(seen.values())):
        _write(folder / f"{_numbered(base, repeat)}_ref", target)
    return len(noisy)


def _write(prefix: Path, frame: FrameBuffers) -> None:
    for name in _features(frame):
        exr.write_image(f"{prefix}.{FEATURES[name]}.exr", frame[name])


def _numbered(base: str, repeat: int) -> str:
    return f"{base}-{repeat}" if repeat else base
