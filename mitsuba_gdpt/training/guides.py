"""Images of the methods that a network sees the results of (guides), kept on disk.

They are costly, so each is computed once and kept beside the data, as float16, under a hash of the
buffers that it was made from: whatever happens to the set, a guide never goes with other buffers.
Files appear only when they are complete.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.denoisers.learned.inference import guide_images
from mitsuba_gdpt.denoisers.registry import Call
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
        with torch.no_grad():
            image = Call.parse(method)(moved).cpu().clamp(-_LARGEST, _LARGEST).half()
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
