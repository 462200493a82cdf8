"""References in two independent halves: their files, and where those of a scene are looked for."""

from __future__ import annotations

import os
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mitsuba_gdpt import denoisers, exr, metrics, provenance
from mitsuba_gdpt.errors import ConfigError, FormatError, GDPTError
from mitsuba_gdpt.files import replace_file
from mitsuba_gdpt.scenes import SceneRef

#: Environment variable with a folder of references, ``NAME.npz`` each, which come before those
#: beside the scenes.
FOLDER_VARIABLE = "MITSUBA_GDPT_REFERENCES"
#: File beside a scene's XML with the arrays ``a`` and ``b``, (H, W, 3) linear radiance.
FILE_NAME = "reference.npz"
#: Path depth of stored references that do not say.
STORED_DEPTH = 12
#: Width of pictures where neither the user nor a stored reference says.
DEFAULT_WIDTH = 320
#: Largest value of a half float.
BRIGHTEST = float(np.finfo(np.float16).max)

#: What NumPy raises for files that are missing, cut short or something else.
DAMAGE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)
_RGB = ("R", "G", "B")


@dataclass(frozen=True)
class Halves:
    """Two independent estimates of the same image.

    Attributes:
        a: (H, W, 3) float32 linear radiance.
        b: The same with other samples.
        max_depth: Longest path in them.
        spp: Samples per pixel of each.
        scene: :func:`identity` of the scene; empty where nobody wrote it down.
    """

    a: NDArray[np.float32]
    b: NDArray[np.float32]
    max_depth: int
    spp: int
    scene: str = ""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return int(self.a.shape[1]), int(self.a.shape[0])

    @property
    def mean(self) -> NDArray[np.float32]:
        """The better estimate, (H, W, 3)."""
        return (0.5 * (self.a + self.b)).astype(np.float32)

    @cached_property
    def noise(self) -> float:
        """What the noise of :attr:`mean` has as expected relMSE, estimated from the halves."""
        mean = torch.from_numpy(self.mean).mean(-1, keepdim=True)
        a, b = torch.from_numpy(self.a), torch.from_numpy(self.b)
        return float(metrics.relmse(a, metrics.Reference(b, brightness=mean))) / 4

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

    def save(self, path: Path, *, half: bool = False) -> None:
        """Write an npz file, losslessly compressed, atomically.

        Args:
            path: The file.
            half: As half floats, whose rounding (relMSE 1e-7) is far below any noise that is left;
                values beyond their range are cut off.
        """
        arrays: dict[str, Any] = {"a": self.a, "b": self.b}
        if half:
            arrays = {
                name: np.clip(image, -BRIGHTEST, BRIGHTEST).astype(np.float16)
                for name, image in arrays.items()
            }
        arrays |= {"max_depth": np.int64(self.max_depth), "spp": np.int64(self.spp)}
        if self.scene:
            arrays["scene"] = np.array(self.scene)

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
    except DAMAGE as error:
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
    spp, scene = int(arrays.get("spp", 0)), str(arrays.get("scene", ""))
    return Halves(a, b, depth, spp, scene)


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


def identity(scene: SceneRef, parameters: Mapping[str, str] | None = None) -> str:
    """Return a hash of a scene's files and of the values for its ``$name`` parameters.

    Args:
        scene: The scene.
        parameters: Values besides those of its catalogue.

    Returns:
        ``OWN-OTHERS``: of the scene's XML file and the values, and of the files that this includes
        and names. Without such files it is ``OWN``, as it always is in references of before these
        were looked at; see :func:`is_same`.
    """
    contents = scene.contents(parameters)
    own = provenance.digest(contents.own, {**scene.parameters, **(parameters or {})})
    return f"{own}-{contents.key}" if contents.others else own


def is_same(stored: str, scene: str) -> bool:
    """Tell whether what is stored is of a scene, as far as it says.

    Args:
        stored: As :func:`identity` gave it once; empty where nobody wrote it down.
        scene: As :func:`identity` gives it now.
    """
    return stored in ("", scene, scene.partition("-")[0])


def places(scene: SceneRef) -> list[Path]:
    """Return where a reference of a scene file would lie, the first that counts first.

    That is ``NAME.npz`` in the folder that :data:`FOLDER_VARIABLE` names, if it is set, and
    :data:`FILE_NAME` beside the scene. There is none for scenes without a file.
    """
    try:
        file = scene.file
    except GDPTError:  # it does not load either, which is said then
        return []
    if file is None:
        return []
    folder = os.environ.get(FOLDER_VARIABLE)
    return [*([Path(folder) / f"{scene.name}.npz"] if folder else []), file.parent / FILE_NAME]


def stored_path(scene: SceneRef, max_depth: int) -> Path | None:
    """Return the file of the reference of a scene, if there is one of that path depth.

    One that was made of another scene, or of an earlier state of this one, does not count: a
    warning tells.

    Raises:
        FormatError: A file is damaged.
    """
    for path in places(scene):
        if path.is_file():
            halves, now = read(path), identity(scene)
            if halves.max_depth == max_depth and is_same(halves.scene, now):
                return path
            if halves.max_depth == max_depth:
                same_xml = halves.scene.partition("-")[0] == now.partition("-")[0]
                what = "files that it includes or names" if same_xml else "its XML or parameters"
                warnings.warn(
                    f"{path} is left out: it is of another state of the scene {scene.name} "
                    f"({what} were edited since), or of another scene of that name",
                    stacklevel=2,
                )
    return None


def stored(scene: SceneRef, max_depth: int) -> Halves | None:
    """Return the reference of :func:`stored_path`, if there is one."""
    path = stored_path(scene, max_depth)
    return None if path is None else read(path)


def describe(path: Path) -> dict[str, Any]:
    """Return what a record says of a reference, JSON-compatible.

    Returns:
        ``file``, ``sha256`` (of the file, 12 digits), ``width``, ``height``, ``spp`` (of each
        half; 0 where the file does not say), ``max_depth``, and ``noise`` (see
        :attr:`Halves.noise`).

    Raises:
        FormatError: The file is damaged.
    """
    halves = read(path)
    width, height = halves.size
    return {
        "file": str(path),
        "sha256": provenance.content(path)[:12],
        "width": width,
        "height": height,
        "spp": halves.spp,
        "max_depth": halves.max_depth,
        "noise": halves.noise,
    }
