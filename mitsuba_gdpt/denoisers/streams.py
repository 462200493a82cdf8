"""Sequences of frames: one frame in, one image out, whatever the method.

Most methods look at one frame at a time. Recurrent ones, such as ``rdae``, carry a state from frame
to frame; its size depends on the resolution only, so a sequence may be as long as it likes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from mitsuba_gdpt.arrays import same_kind
from mitsuba_gdpt.denoisers.choice import default_sequence_call, find_level, usable_layout
from mitsuba_gdpt.denoisers.registry import Call
from mitsuba_gdpt.foreign import take


class Stream:
    """Reconstructs the frames of a sequence one after the other; made by :func:`stream`.

    Attributes:
        method: Name of the method; None if none was given and no frame has been seen.
        frames: Number of frames since the start or the last :meth:`reset`.
    """

    def __init__(
        self,
        call: Call | None,
        layout: Any,
        options: dict[str, Any],
        quality: str | None = None,
    ) -> None:
        self._call, self._layout, self._options = call, layout, options
        self._quality = quality
        self._state: Any = None
        self.frames = 0

    @property
    def method(self) -> str | None:
        """Name of the method."""
        return None if self._call is None else self._call.method

    def __call__(self, buffers: Any) -> Any:
        """Reconstruct the next frame.

        A frame that is refused leaves the state as it was.

        Args:
            buffers: As for :func:`~mitsuba_gdpt.denoise`.

        Returns:
            (H, W, 3) scene-linear radiance, of the same kind as ``buffers`` and on their device.

        Raises:
            LayoutError: In a recurrent method, the frame is of another size than the one before:
                call :meth:`reset` first.
            GDPTError: As for :func:`~mitsuba_gdpt.denoise`.
        """
        frame = take(buffers, self._layout)
        if self._call is None:
            chosen = default_sequence_call(usable_layout(frame), self._quality)
            self._call = chosen.with_options(self._options)
        with torch.no_grad():
            image, self._state = self._call.advance(frame, self._state)
        self.frames += 1
        return same_kind(image, buffers)

    def reset(self) -> None:
        """Forget the frames so far: before a scene cut, a jump of the camera, another size."""
        self._state, self.frames = None, 0

    def __repr__(self) -> str:
        return f"Stream(method={self.method!r}, frames={self.frames})"


def stream(
    method: str | Call | None = None,
    *,
    layout: Any = None,
    quality: str | None = None,
    **options: Any,
) -> Stream:
    """Make an object that reconstructs a sequence frame by frame, in constant memory.

    Cuts are not detected: call :meth:`Stream.reset` where one is. The first frame after it is
    reconstructed as :func:`~mitsuba_gdpt.denoise` would do it.

    Args:
        method: As for :func:`~mitsuba_gdpt.denoise`. By default the one that
            :func:`~mitsuba_gdpt.denoise` would choose for the first frame; if that frame has
            motion (zeros will do), on the samples of several frames: ``"temporal"``.
        layout: As for :func:`~mitsuba_gdpt.denoise`; the same for all frames.
        quality: As for :func:`~mitsuba_gdpt.denoise`, for each frame.
        **options: Options of the method.

    Raises:
        ConfigError: The method, an option or the quality is unknown.

    Example:
        >>> video = stream("poisson-l2", alpha=0.1)
        >>> video(torch.zeros(4, 6, 16)).shape
        torch.Size([4, 6, 3])
        >>> video.reset()
    """
    if method is None:
        find_level(quality)
        return Stream(None, layout, dict(options), quality)
    if quality is not None:
        options["quality"] = quality
    return Stream(Call.parse(method).with_options(options), layout, {})


def denoise_sequence(
    frames: Iterable[Any],
    /,
    method: str | Call | None = None,
    *,
    layout: Any = None,
    **options: Any,
) -> Iterator[Any]:
    """Reconstruct the frames of one sequence, lazily, each when it is asked for.

    Args:
        frames: One shot without cuts; each frame as for :func:`~mitsuba_gdpt.denoise`.
        method: As for :func:`stream`.
        layout: As for :func:`stream`.
        **options: Options of the method.

    Yields:
        One image per frame; see :meth:`Stream.__call__`.

    Raises:
        ConfigError: The method is unknown; raised by the call itself, not by the first frame.
    """
    return map(stream(method, layout=layout, **options), frames)
