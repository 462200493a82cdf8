"""What a frame set will hold: sequences of one scene each, and how they are rendered."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mitsuba_gdpt import checks
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.data import frame_set
from mitsuba_gdpt.data.metadata import SHIFTS_BEFORE_CHOICE
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.integrators.parameters import DEFAULT_SHIFTS
from mitsuba_gdpt.scenes import Camera
from mitsuba_gdpt.scenes.catalogue import CatalogueScene

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
#: More than any sequence has.
MOST_FRAMES = 100_000
#: What the primal of a target is.
TARGETS = ("rendered", "denoised")
#: What makes it of a render, for ``"denoised"``: albedo and normal are filtered first.
TARGET_DENOISER = "oidn"


@dataclass(frozen=True)
class CameraSequence:
    """One scene, seen by one camera after the other.

    Attributes:
        scene: Name of the folder: letters, digits, ``-`` and ``_``.
        split: One of :data:`~mitsuba_gdpt.data.frame_set.SPLITS`.
        source: What :func:`mitsuba_gdpt.rendering.open_source` takes.
        cameras: One per frame; see :func:`fly_through` and :func:`still`.
        parameters: Values for the ``$name`` parameters of an XML file.
        max_depth: Path depth; None for the scene's own.

    Raises:
        ConfigError: The name or the split is not allowed, or there are no cameras.
    """

    scene: str
    split: str
    source: str
    cameras: tuple[Camera, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)
    max_depth: int | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        object.__setattr__(self, "cameras", tuple(self.cameras))
        if not _NAME.fullmatch(self.scene):
            raise ConfigError(
                f"got the scene name {self.scene!r}; expected letters, digits, '-' and '_', since "
                f"it becomes a folder"
            )
        if self.split not in frame_set.SPLITS:
            raise ConfigError(
                f"the split of {self.scene!r} is {self.split!r}; expected one of: "
                f"{', '.join(frame_set.SPLITS)}"
            )
        if not self.cameras:
            raise ConfigError(f"the sequence {self.scene!r} has no cameras; expected one per frame")


@dataclass(frozen=True)
class FrameSettings:
    """What all frames of a set have in common.

    Attributes:
        width: Of the images, in pixels.
        height: Of the images, in pixels.
        spp: Samples per pixel of the noisy renders.
        noisy: Number of noisy renders per frame.
        target_spp: Samples per pixel of the target.
        target: One of :data:`TARGETS`. ``"denoised"``: the primal of the target is what ``oidn``
            makes of it, for where converged targets cost too much. It is smooth but not right: a
            network learns the habits of the denoiser, and nothing can be measured against it.
        features: Optional buffers to store, as of the integrator.
        variances: Store variances.
        motion: Store screen-space motion.
        half: Store primal and albedo of the noisy renders as float16.
        shifts: Offset paths of the noisy renders, as of ``gdpt``: 1, 2 or 4.
        seed: Changes all noise.
        max_lanes: As of ``gdpt``: paths per pass, which bounds the memory. Part of the settings
            because the random numbers of a render depend on how it is split.

    Raises:
        ConfigError: A value makes no sense.
    """

    width: int = 1280
    height: int = 720
    spp: int = 1
    noisy: int = 5
    target_spp: int = 1024
    features: tuple[str, ...] = ()
    variances: bool = False
    motion: bool = True
    half: bool = False
    seed: int = 0
    max_lanes: int = 1 << 20
    target: str = "rendered"
    shifts: int = DEFAULT_SHIFTS

    def __post_init__(self) -> None:
        """Check the values."""
        object.__setattr__(self, "features", tuple(self.features))
        if self.target not in TARGETS:
            raise ConfigError(f"target is {self.target!r}; expected one of {', '.join(TARGETS)}")
        for name, most in (
            ("width", checks.MOST_PIXELS),
            ("height", checks.MOST_PIXELS),
            ("spp", checks.MOST_SPP),
            ("noisy", checks.MOST),
            ("target_spp", checks.MOST_SPP),
            ("max_lanes", checks.MOST),
        ):
            checks.whole(name, getattr(self, name), least=1, most=most)
        if self.shifts not in (1, 2, 4):
            raise ConfigError(f"shifts is {self.shifts}; expected 1, 2 or 4: frames need gradients")
        checks.whole("seed", self.seed, most=checks.MOST_SEED)
        if self.variances and min(self.spp, self.target_spp) < 2:
            raise ConfigError(
                f"spp is {self.spp} and target_spp {self.target_spp}; variances need 2 or more"
            )
        Layout.make(self.features, self.variances)  # refuses unknown names


@dataclass(frozen=True)
class FramePlan:
    """A frame set that is to be rendered.

    Raises:
        ConfigError: Two sequences would share a folder, or a scene is both trained on and tested.
    """

    sequences: tuple[CameraSequence, ...]
    settings: FrameSettings = FrameSettings()

    def __post_init__(self) -> None:
        """Check the values."""
        object.__setattr__(self, "sequences", tuple(self.sequences))
        names = [sequence.scene for sequence in self.sequences]
        if double := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(
                f"{', '.join(double)}: more than one sequence of that name; expected one per "
                f"scene, in one split. Give a second sequence of a scene another name"
            )
        if not names:
            raise ConfigError("the plan has no sequences; expected at least one")

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as it is stored, in types that JSON keeps."""
        plan: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        # Sets from before there was a choice say nothing.
        for name, value in (("target", TARGETS[0]), ("shifts", SHIFTS_BEFORE_CHOICE)):
            if getattr(self.settings, name) == value:
                del plan["settings"][name]
        return plan


def fly_through(path: Callable[[float], Camera], frames: int) -> tuple[Camera, ...]:
    """Return cameras at equal steps along a path.

    Args:
        path: Time 0..1 to a camera, for example the fly-through of a catalogue's scene.
        frames: How many; the first is at time 0, the last at time 1.

    Raises:
        ConfigError: ``frames`` is less than 2.
    """
    if frames < 2:
        raise ConfigError(f"got {frames} frame(s); expected 2 or more. A still camera: still()")
    return tuple(path(index / (frames - 1)) for index in range(frames))


def still(camera: Camera, frames: int) -> tuple[Camera, ...]:
    """Return one camera for all frames: a sequence in which only the noise changes.

    Raises:
        ConfigError: ``frames`` is less than 1.
    """
    if frames < 1:
        raise ConfigError(f"got {frames} frames; expected 1 or more")
    return (camera,) * frames


def catalogue_sequence(
    scene: CatalogueScene,
    frames: int,
    *,
    at_rest: bool = False,
    split: str | None = None,
    span: tuple[float, float] = (0.0, 1.0),
) -> CameraSequence:
    """Return the fly-through of a catalogue's scene as a sequence.

    Args:
        scene: One with key frames.
        frames: How many.
        at_rest: Stay at the middle of the span instead.
        span: Part of the fly-through that the frames cover, as times 0..1. Few frames of all of it
            are a sequence in jumps, of which a network learns nothing about motion.
        split: One of :data:`~mitsuba_gdpt.data.frame_set.SPLITS`; by default ``train`` for scenes
            to train on, else ``test``.

    Raises:
        ConfigError: The scene has no key frames, there are too few frames, the split is unknown,
            or ``train`` for a scene that is not to be trained on.
    """
    if not scene.fly_through:
        raise ConfigError(
            f"scene {scene.name!r} has no fly-through; add key frames to the catalogue (see: "
            f"mitsuba-gdpt catalogue propose) or leave the scene out"
        )
    if split is None:
        split = "train" if scene.split == "train" else "test"
    if split == "train" and scene.split != "train":
        raise ConfigError(
            f"not for training: {scene.name} ({scene.split}); networks must not see the scenes "
            f"that they are measured on. Choose the split 'test'"
        )
    start, stop = span
    checks.whole("frames", frames, least=1, most=MOST_FRAMES)
    if not 0 <= start < stop <= 1:
        raise ConfigError(f"got the span {start:g} to {stop:g}; expected 0 <= start < stop <= 1")
    if at_rest:
        cameras = still(scene.fly((start + stop) / 2), frames)
    else:
        cameras = fly_through(lambda time: scene.fly(start + (stop - start) * time), frames)
    return CameraSequence(
        scene=scene.name,
        split=split,
        source=scene.source,
        cameras=cameras,
        parameters=scene.parameters,
        max_depth=scene.max_depth,
    )
