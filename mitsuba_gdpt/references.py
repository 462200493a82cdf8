"""References in two independent halves: stored beside the scene, rendered once and kept, or given.

Evaluations and batches have the same ones.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from mitsuba_gdpt import denoisers, exr, metrics, progress, rendering
from mitsuba_gdpt.errors import ConfigError, FormatError, GDPTError
from mitsuba_gdpt.files import replace_file
from mitsuba_gdpt.scenes import SceneRef

if TYPE_CHECKING:
    import mitsuba as mi

#: File beside a scene's XML with the arrays ``a`` and ``b``, (H, W, 3) linear radiance.
FILE_NAME = "reference.npz"
#: Path depth of stored references that do not say.
STORED_DEPTH = 12
#: Width of pictures where neither the user nor a stored reference says.
DEFAULT_WIDTH = 320

#: What NumPy raises for files that are missing, cut short or something else.
_DAMAGE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)
_RGB = ("R", "G", "B")
_SAMPLES_PER_PASS = 64
_FIRST_SEED = 0x5EED_0000  # far from the seeds of the renders that are judged
_SEEDS_PER_FRAME = 1 << 12


@dataclass(frozen=True)
class Halves:
    """Two independent estimates of the same image.

    Attributes:
        a: (H, W, 3) float32 linear radiance.
        b: The same with other samples.
        max_depth: Longest path in them.
        spp: Samples per pixel of each.
    """

    a: NDArray[np.float32]
    b: NDArray[np.float32]
    max_depth: int
    spp: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return int(self.a.shape[1]), int(self.a.shape[0])

    @property
    def mean(self) -> NDArray[np.float32]:
        """The better estimate, (H, W, 3)."""
        return (0.5 * (self.a + self.b)).astype(np.float32)

    def reference(self, *, denoised: bool = False) -> metrics.Reference:
        """Return both halves as metrics take them.

        Args:
            denoised: Errors are relative to the brightness of OIDN's image of the mean, not of the
                mean itself, whose noise would count errors too much where it is dark.

        Raises:
            ConfigError: OIDN is asked for and not installed.
        """
        a, b = torch.from_numpy(self.a), torch.from_numpy(self.b)
        brightness = None
        if denoised:
            mean = torch.from_numpy(self.mean)
            image = denoisers.denoise(mean, "oidn", layout=_RGB, aux="none")
            brightness = image.mean(-1, keepdim=True)
        return metrics.Reference(a, b, brightness)

    def save(self, path: Path) -> None:
        """Write an npz file, atomically."""
        arrays: dict[str, Any] = {"a": self.a, "b": self.b}
        arrays |= {"max_depth": np.int64(self.max_depth), "spp": np.int64(self.spp)}

        def write_to(temporary: Path) -> None:
            with temporary.open("wb") as stream:
                np.savez_compressed(stream, **arrays)

        replace_file(path, write_to)


def read(path: Path) -> Halves:
    """Read a reference file.

    Raises:
        FormatError: The file is damaged, an array is missing, or shapes do not fit.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except _DAMAGE as error:
        raise FormatError(f"{path}: cannot read this reference: {error}") from error
    if missing := {"a", "b"} - set(arrays):
        raise FormatError(
            f"{path}: no array {', '.join(sorted(missing))}; expected two independent halves a, b"
        )
    a, b = (arrays[name].astype(np.float32) for name in ("a", "b"))
    if a.shape != b.shape or a.ndim != 3 or a.shape[-1] != 3:
        raise FormatError(f"{path}: shapes {a.shape} and {b.shape}; expected (H, W, 3) twice")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise FormatError(f"{path}: the reference contains NaN or infinity")
    depth = int(arrays.get("max_depth", STORED_DEPTH))
    return Halves(a, b, depth, int(arrays.get("spp", 0)))


def images(path: str | os.PathLike[str]) -> list[NDArray[np.float32]]:
    """Read the images of a reference file: both halves of an npz file, one image of an EXR file.

    Raises:
        FormatError: The file is missing or damaged.
    """
    path = Path(path)
    if path.suffix == ".npz":
        halves = read(path)
        return [halves.a, halves.b]
    return [exr.read_image(path)]


def load(paths: Sequence[str], width: int, height: int) -> metrics.Reference:
    """Read a reference that somebody gives.

    Args:
        paths: One EXR file, two of independent halves, or one npz file of both.
        width: Of the renders, in pixels.
        height: Of the renders, in pixels.

    Raises:
        FormatError: A file is missing or damaged.
        ConfigError: It has another size than the renders, or there are more than two images.
    """
    found = []
    for path in paths:
        for image in images(path):
            if image.shape[:2] != (height, width):
                raise ConfigError(
                    f"{path}: the reference has {image.shape[1]}x{image.shape[0]} pixels, the "
                    f"render {width}x{height}; set width and height"
                )
            found.append(torch.from_numpy(image))
    if len(found) > 2:
        raise ConfigError(
            f"{', '.join(map(str, paths))}: got {len(found)} images; expected one, or two halves"
        )
    return metrics.Reference(*found)


def stored_path(scene: SceneRef) -> Path | None:
    """Return where the reference beside a scene file would lie; None for scenes without a file."""
    try:
        file = scene.file
    except GDPTError:  # it does not load either, which is said then
        return None
    return None if file is None else file.parent / FILE_NAME


def stored(scene: SceneRef, max_depth: int) -> Halves | None:
    """Return the reference beside a scene file, if there is one of that path depth."""
    path = stored_path(scene)
    if path is None or not path.is_file():
        return None
    halves = read(path)
    return halves if halves.max_depth == max_depth else None


def render(
    source: rendering.Source,
    *,
    spp: int,
    max_depth: int,
    target: Path,
    label: str,
    sensor: int | mi.Sensor = 0,
    frame: int = 0,
) -> Halves:
    """Path-trace a reference, or go on where an earlier call was interrupted.

    Sums are kept in float64 and written beside ``target`` after every pass, under the name
    ``*.partial.npz``.

    Args:
        source: Scene.
        spp: Samples per pixel of each half.
        max_depth: Longest path.
        target: File to write when done; read instead of rendering if it fits.
        label: What progress reports call the work.
        sensor: What is rendered.
        frame: Number of the frame in a sequence; frames have their own random numbers.
    """
    with suppress(FormatError):  # not there, or cut short
        halves = read(target)
        if halves.spp >= spp and halves.max_depth == max_depth:
            return halves
    tracer = rendering.make_integrator(
        {**source.integrator, "max_depth": max_depth, "shifts": 0, "features": ""}
        | {"freeze": True}  # many seeds of one scene that nobody changes
    )
    counts = [min(_SAMPLES_PER_PASS, spp - done) for done in range(0, spp, _SAMPLES_PER_PASS)]
    partial = target.with_suffix(".partial.npz")
    sums, passes = _read_partial(partial, spp, max_depth)
    with progress.task(label, total=2 * len(counts)) as task:
        task.advance(passes)
        for index in range(passes, 2 * len(counts)):
            half, count = index % 2, counts[index // 2]
            seed = _FIRST_SEED + frame * _SEEDS_PER_FRAME + index
            image = rendering.render(source, tracer, spp=count, seed=seed, sensor=sensor)
            sums[half] = sums[half] + count * image.primal.numpy().astype(np.float64)
            _write_partial(partial, sums, index + 1, spp, max_depth)
            task.advance()
    a, b = ((total / spp).astype(np.float32) for total in sums)
    halves = Halves(a, b, max_depth, spp)
    halves.save(target)
    partial.unlink(missing_ok=True)
    return halves


def _write_partial(path: Path, sums: list[Any], passes: int, spp: int, max_depth: int) -> None:
    def write_to(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez(stream, a=sums[0], b=sums[1], state=np.array([passes, spp, max_depth]))

    replace_file(path, write_to)


def _read_partial(path: Path, spp: int, max_depth: int) -> tuple[list[Any], int]:
    """Return the two sums and the number of passes in them; zeros for a fresh start."""
    with (
        suppress(*_DAMAGE),
        np.load(path, allow_pickle=False) as stored_sums,
    ):
        passes, *rest = (int(value) for value in stored_sums["state"])
        if rest == [spp, max_depth]:
            return [stored_sums["a"], stored_sums["b"]], passes
    return [np.float64(0), np.float64(0)], 0
