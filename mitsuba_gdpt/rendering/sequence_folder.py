"""The folder of a sequence: the files of its frames, and what was decided about them.

The folder is the memory: each pass is added to the file of its frame, and what was decided is
written before it is done. Whatever ends a render, the same call goes on and gives the same bits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mitsuba_gdpt import files
from mitsuba_gdpt.errors import ConfigError, FormatError
from mitsuba_gdpt.rendering.passes import Accumulation
from mitsuba_gdpt.scenes.contents import FILES, HASH, Contents

#: What was decided, in the folder of a sequence.
PLAN = "sequence.json"
#: Fields of it, as plans of before call them.
_RENAMED = {
    "denoise": "denoise_seconds",
    "spent": "spent_seconds",
    "costs": "seconds_per_spp",
}
_FRAME = re.compile(r"frame-\d{4,}\.(exr|png)")


@dataclass
class Plan:
    """What was decided so far; in the folder, what is written before it is done.

    Attributes:
        described: What is rendered; another call must describe the same.
        shifts: Offset paths per sample.
        method: Text of the call.
        denoise_seconds: What the reconstruction of a frame is expected to take.
        spent_seconds: Of the budget.
        seconds_per_spp: Of each frame; 1 where samples are counted.
        share: Samples per pixel of each frame after its first passes, by what these cost.
        rounds: Samples per pixel that each frame has in all at the end of each round.
    """

    described: Mapping[str, Any]
    shifts: int
    method: str
    denoise_seconds: float
    spent_seconds: float = 0.0
    seconds_per_spp: list[float] = field(default_factory=list)
    share: int | None = None
    rounds: list[list[int]] = field(default_factory=list)

    @classmethod
    def read(cls, folder: Path, described: Mapping[str, Any], contents: Contents) -> Plan | None:
        """Read what an earlier call decided, if there was one.

        Args:
            folder: Of the sequence.
            described: What is rendered now.
            contents: What the scene is made of now.

        Raises:
            ConfigError: The folder holds another sequence, or the scene has been edited.
            FormatError: The file is damaged.
        """
        path = folder / PLAN
        if not path.exists():
            return None
        stored = files.read_json(path)
        before = stored.get("described", {})
        words = {key: value for key, value in described.items() if key not in (HASH, FILES)}
        if differing := [key for key, value in words.items() if before.get(key) != value]:
            raise ConfigError(
                f"{folder} holds another sequence: {', '.join(differing)} of it differ; "
                "give the same settings, or another folder"
            )
        contents.require(before, f"{folder} was begun", "give another folder")
        return cls(**{_RENAMED.get(key, key): value for key, value in stored.items()})

    def write(self, folder: Path) -> None:
        """Write it to the folder of the sequence."""
        files.replace_text(folder / PLAN, json.dumps(asdict(self)) + "\n")


def frame_path(folder: Path, number: int) -> Path:
    """Return the file of a frame in the folder of a sequence."""
    return folder / f"frame-{number:04d}.exr"


def holds(folder: Path, described: Mapping[str, str]) -> bool:
    """Tell whether a folder has what an earlier call left, all of it readable.

    Args:
        folder: Of the sequence.
        described: Words of :class:`SequenceRender` that what was left must have.
    """
    try:
        stored = files.read_json(folder / PLAN)
        before = stored["described"]
        if any(before[key] != value for key, value in described.items()):
            return False
        if stored["share"] is not None:  # before that, files do not count
            for number in range(len(before["cameras"])):
                Accumulation.from_exr(frame_path(folder, number))
    except (FormatError, LookupError, TypeError):
        return False
    return True


def forget(folder: Path) -> None:
    """Remove what an earlier call left, pictures of the frames included."""
    if (folder / PLAN).exists():
        for path in folder.iterdir():
            if _FRAME.fullmatch(path.name):
                path.unlink()
        (folder / PLAN).unlink()
