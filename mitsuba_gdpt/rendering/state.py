"""What an adaptive render needs to go on with the same bits, in the EXR file of its image so far.

The image is the mean of two streams and cannot be taken apart again, and where the samples to come
go is decided by the pilot. So as long as such a render is not complete, its file also has the
buffers of the parts of the pilot, or of the streams and the plan; all in one file, which is
replaced at once, so that they belong together whenever a render is killed. They are channels of the
layer :data:`LAYER`, which no reader takes for buffers, and one line of the header.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from mitsuba_gdpt import exr
from mitsuba_gdpt.errors import FormatError

if TYPE_CHECKING:
    import numpy as np

    from mitsuba_gdpt.buffers import FrameBuffers

#: Layer of the channels, and key of the metadata that says what they are.
LAYER = KEY = "adaptive"

Planes: TypeAlias = "dict[str, np.ndarray[Any, np.dtype[np.float32]]]"


@dataclass(frozen=True)
class State:
    """What a file says besides its image.

    Attributes:
        path: EXR file.
        known: Numbers and words.
    """

    path: str
    known: Mapping[str, Any]

    @classmethod
    def from_exr(cls, path: str | os.PathLike[str], metadata: Mapping[str, str]) -> State | None:
        """Read what a header says; None if its render was complete, or not adaptive.

        Raises:
            FormatError: It does not make sense.
        """
        if KEY not in metadata:
            return None
        try:
            known = json.loads(metadata[KEY])
        except ValueError:
            known = None
        if not isinstance(known, dict):
            _damaged(path, f"its header has {KEY} = {metadata[KEY][:60]!r}")
        return cls(str(path), known)

    @property
    def planes(self) -> Planes:
        """Read the (H, W) channels by their names; those that are not there raise FormatError."""
        planes = _Stored(self.path)
        for name, plane in exr.read(self.path).channels.items():
            layer, _, own = name.partition(".")
            if layer == LAYER:
                planes[own.replace("/", ".")] = plane
        return planes

    def part(self, *keys: str | int) -> Any:
        """Return something known, found by keys.

        Raises:
            FormatError: It is not there.
        """
        found: Any = self.known
        try:
            for key in keys:
                found = found[key]
        except (LookupError, TypeError):
            _damaged(self.path, f"its header lacks {KEY} {' '.join(map(str, keys))}")
        return found


class _Stored(dict[str, Any]):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def __missing__(self, name: str) -> NoReturn:
        _damaged(self.path, f"it lacks the channel {name!r} of the layer {LAYER!r}")


def _damaged(path: str | os.PathLike[str], what: str) -> NoReturn:
    raise FormatError(
        f"{path} does not hold what an adaptive render needs to go on: {what}. Give --uniform to "
        "add samples to its image all the same, or begin a new file"
    )


def attach(frame: FrameBuffers, known: Mapping[str, Any], planes: Planes) -> FrameBuffers:
    """Return the same buffers with a state that is written with them."""
    from mitsuba_gdpt.buffers import FrameBuffers

    header = {**frame.metadata, KEY: json.dumps(known, separators=(",", ":"))}
    result = FrameBuffers(frame.data, frame.layout, header, frame.attributes)
    # One level of layers, which looks like none of ours.
    result.planes = {f"{LAYER}.{name.replace('.', '/')}": plane for name, plane in planes.items()}
    return result
