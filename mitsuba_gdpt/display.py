"""Pictures for people: in a notebook, in a file, or in the image viewer tev.

mitsuba_gdpt.show(noisy=image, clean=mitsuba_gdpt.denoise(image))
"""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt import exr, packages, pictures, progress
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import PRIMAL
from mitsuba_gdpt.errors import ConfigError, GDPTError
from mitsuba_gdpt.files import replace_text
from mitsuba_gdpt.foreign import take

#: Where tev listens.
TEV = "localhost:14158"


class Pictures:
    """Images side by side, made by :func:`show`. Notebooks show the last value of a cell."""

    def __init__(self, images: dict[str, NDArray[np.float32]], exposure: float | None) -> None:
        self._images = images
        first = next(iter(images.values()))
        self.factor = pictures.automatic_exposure(first) if exposure is None else 2.0**exposure

    def _repr_html_(self) -> str:
        shown = [
            pictures.of_image(image, name, self.factor) for name, image in self._images.items()
        ]
        return pictures.to_html(shown, "")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them as an HTML page of its own.

        Raises:
            FormatError: The folder does not exist or the disk is full.
        """
        title = ", ".join(self._images)
        page = f'<!DOCTYPE html><meta charset="utf-8"><title>{title}</title>'
        replace_text(Path(path), page + self._repr_html_())

    def __repr__(self) -> str:
        sizes = {f"{image.shape[1]}x{image.shape[0]}" for image in self._images.values()}
        return f"Pictures({', '.join(self._images)}; {', '.join(sorted(sizes))})"


def show(*images: Any, exposure: float | None = None, **named: Any) -> Pictures:
    """Show images side by side in a notebook, all with the same exposure.

    Args:
        *images: As for :func:`mitsuba_gdpt.denoise`; of several buffers, the image is shown.
        exposure: Photographic stops; by default what suits the first image.
        **named: The same with names.

    Returns:
        What a notebook shows where it is the last value of a cell; see :meth:`Pictures.save`.

    Raises:
        ConfigError: There is no image.
        LayoutError, FormatError: As for :func:`mitsuba_gdpt.denoise`.

    Example:
        >>> show(noisy=np.ones((4, 6, 3), np.float32))
        Pictures(noisy; 6x4)
    """
    given = {f"image {i + 1}" if len(images) > 1 else "image": x for i, x in enumerate(images)}
    given |= named
    if not given:
        raise ConfigError("got no image to show; expected at least one")
    return Pictures({name: _image(source) for name, source in given.items()}, exposure)


class Live:
    """A render while it goes on: in a notebook a picture below the cell, or an image in tev.

    mitsuba_gdpt.render(scene, seconds=30, on_update=mitsuba_gdpt.Live())
    """

    def __init__(
        self, name: str = "render", *, exposure: float | None = None, tev: bool | str = False
    ) -> None:
        """Say where to show it.

        Args:
            name: What it is called there.
            exposure: Photographic stops of the picture; by default what suits the first one.
            tev: Send it to tev while that runs, with all buffers as layers, instead of showing it
                below the cell: True, or host and port, see :func:`to_tev`.

        Raises:
            ConfigError: Neither tev is asked for nor is this a notebook.
        """
        if not tev and not progress.in_notebook():
            raise ConfigError("there is no notebook to show the render in; pass tev=True for tev")
        self._name, self._exposure = name, exposure
        self._tev = TEV if tev is True else tev
        self._known: set[str] = set()  # to tev
        self._handle: Any = None

    def __call__(self, image: Any, buffers: FrameBuffers) -> None:
        """Show the image so far in the place of the one before.

        Args:
            image: (H, W, 3).
            buffers: What it was made from.

        Raises:
            MissingDependencyError, ConfigError, GDPTError: As for :func:`to_tev`, the first time;
                a viewer that is closed later ends no render.
        """
        if self._tev:
            self._send({self._name: buffers, f"{self._name}, denoised": take(image)})
            return
        spp = buffers.metadata.get("spp", "")
        shown = Pictures(
            {f"{self._name}, {spp} spp" if spp else self._name: _image(image)}, self._exposure
        )
        self._exposure = math.log2(shown.factor)  # brightness does not change from pass to pass
        if self._handle is None:
            from IPython.display import display

            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)

    def _send(self, frames: dict[str, FrameBuffers]) -> None:
        assert isinstance(self._tev, str)
        try:
            _send(frames, self._tev, self._known)
        except GDPTError as error:
            if not self._known:
                raise
            warnings.warn(f"{error}; the render goes on", stacklevel=4)


def to_tev(*frames: Any, address: str = TEV, **named: Any) -> None:
    """Send images, with all their buffers as layers, to the viewer tev while it runs.

    Args:
        *frames: As for :func:`mitsuba_gdpt.denoise`.
        address: Host and port, as tev shows them.
        **named: The same with names.

    Raises:
        MissingDependencyError: The package ``tevclient`` is not installed (extra ``tev``).
        ConfigError: The address is none.
        GDPTError: Nothing listens there.
    """
    given = {f"frame {i + 1}": x for i, x in enumerate(frames)} | named
    _send({name: take(source) for name, source in given.items()}, address, set())


def _send(frames: dict[str, FrameBuffers], address: str, known: set[str]) -> None:
    """Send frames to tev; those that it knows by their names replace what it shows."""
    tevclient = packages.load("tevclient", "tev")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"tev's address is {address!r}; expected HOST:PORT, as {TEV}")
    try:
        with tevclient.Ipc(host, int(port)) as tev:
            for name, frame in frames.items():
                names = list(frame.layout.channels)
                if name not in known:
                    tev.create_image(name, frame.width, frame.height, names)
                    known.add(name)
                tev.update_image(name, _array(frame), names)
    except OSError as error:
        raise GDPTError(
            f"no tev listens at {address} ({error.strerror or error}); start the viewer first"
        ) from error


def _image(source: Any) -> NDArray[np.float32]:
    if isinstance(source, FrameBuffers) or not _is_plain(source):
        frame = take(source)
        source = frame[PRIMAL].detach().cpu().numpy()
    return np.stack([*exr.image_channels(source).values()], axis=-1)


def _is_plain(source: Any) -> bool:
    shape = tuple(getattr(source, "shape", ()))
    return len(shape) == 3 and shape[-1] == 3


def _array(frame: FrameBuffers) -> NDArray[np.float32]:
    frame.require_one_frame()
    return np.ascontiguousarray(frame.data.detach().cpu().numpy())
