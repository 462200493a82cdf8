"""Rendering of frame sets: sequences of one scene each, as a tree of EXR files.

A frame is a unit of work: a target with many samples and several noisy renders with few, all of
the same camera and with their own seeds. Everything follows from the plan and the position of the
frame in it, so a frame rendered twice, anywhere, gives the same files; and a file appears only when
it is complete. Whatever was killed, rerunning it finishes the set.
"""

from __future__ import annotations

import functools
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mitsuba_gdpt import denoisers, execution, exr, provenance, rendering
from mitsuba_gdpt._version import __version__
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import GRADIENTS
from mitsuba_gdpt.data import frame_set, origins, workers
from mitsuba_gdpt.data.frame_plan import (
    TARGET_DENOISER,
    TARGETS,
    CameraSequence,
    FramePlan,
    FrameSettings,
    catalogue_sequence,
    fly_through,
    still,
)
from mitsuba_gdpt.errors import ConfigError, FormatError
from mitsuba_gdpt.files import Checksums, replace_text, sweep_once
from mitsuba_gdpt.motion import PinholeCamera, add_motion
from mitsuba_gdpt.scenes import Camera, SceneRef, make_sensor
from mitsuba_gdpt.scenes.contents import Contents

#: With what plans are made of (:mod:`.frame_plan`).
__all__ = [
    "CameraSequence",
    "FramePlan",
    "FrameSettings",
    "FrameUnit",
    "catalogue_sequence",
    "fly_through",
    "frame_units",
    "render_frames",
    "still",
]


@dataclass(frozen=True)
class FrameUnit:
    """One frame to render; a unit of work as ``mitsuba_gdpt.execution`` takes it.

    Attributes:
        root: Folder of the set.
        split: As of its :class:`CameraSequence`, like the following four.
        scene: Name of the folder.
        source: Scene to load.
        parameters: Names and values, sorted.
        max_depth: Path depth, or None.
        index: Number of the frame.
        target_index: First frame with this camera without a move since: all frames of a camera at
            rest have the same target, so that what flickers is the noise.
        camera: Of this frame.
        previous: Of the previous frame, None for the first.
        settings: Of the set.
        contents: Key of what the scene is made of, as of ``scenes.contents``.
    """

    root: str
    split: str
    scene: str
    source: str
    parameters: tuple[tuple[str, str], ...]
    max_depth: int | None
    index: int
    target_index: int
    camera: Camera
    previous: Camera | None
    settings: FrameSettings
    contents: str

    @property
    def key(self) -> str:
        """Unique name within the set."""
        return f"{self.split}-{self.scene}-{self.index:04d}"

    @property
    def folder(self) -> Path:
        """Where the files go."""
        return frame_set.frame_folder(self.root, self.split, self.scene, self.index)

    def is_done(self) -> bool:
        """Tell whether all files are there and intact."""
        return all(self._is_intact(name) for name, *_ in self._renders())

    def _is_intact(self, name: str) -> bool:
        path = self.folder / name
        if not path.is_file():
            return False
        if (intact := self._checksums.intact(name)) is None:
            try:  # killed just before the note, or of an older version: look into the file
                exr.read(path)
            except FormatError:
                return False
            return True
        return intact

    @property
    def _checksums(self) -> Checksums:
        return Checksums(self.folder)

    def run(self) -> None:
        """Render what is not there yet, the target last.

        Raises:
            GDPTError: The scene cannot be loaded or rendered, has been edited since the work was
                begun, or a file cannot be written.
        """
        import mitsuba as mi

        self.folder.mkdir(parents=True, exist_ok=True)
        sweep_once(self.folder)
        origins.require_now(self.contents, self.source, dict(self.parameters))
        source = _open(mi.variant(), self.source, self.parameters, self.contents)
        size = self.settings.width, self.settings.height
        sensor = make_sensor(self.camera, *size)
        camera = PinholeCamera.from_sensor(sensor)
        previous = None
        if self.previous is not None:
            previous = PinholeCamera.from_sensor(make_sensor(self.previous, *size))
        for name, seed, spp, gradients in self._renders():
            path = self.folder / name
            if self._is_intact(name):
                continue
            integrator = rendering.make_integrator(self._parameters(source, gradients))
            frame = rendering.render(source, integrator, spp=spp, seed=seed, sensor=sensor)
            if not gradients:
                frame = self._finish_target(frame)
            if self.settings.motion:
                frame = add_motion(frame, camera, previous)
            frame.validate()
            metadata = {
                "scene": self.scene,
                "source": self.source,
                "split": self.split,
                "frame": self.index,
                "variant": mi.variant(),
                "version": __version__,
                **camera.metadata(),
            }
            if not gradients and self.settings.target != TARGETS[0]:
                metadata["method"] = TARGET_DENOISER
            frame.to_exr(path, metadata=metadata, half=self.settings.half and gradients)
            self._checksums.add(name)

    def _finish_target(self, frame: FrameBuffers) -> FrameBuffers:
        """Take out what means nothing in a target; denoise the primal if that is wanted."""
        frame = frame.without(GRADIENTS)  # with ``shifts=0`` the integrator leaves them 0
        if self.settings.target == "denoised":
            frame["primal"][:] = denoisers.denoise(frame, TARGET_DENOISER)
        return frame

    def seed(self, k: int) -> int:
        """Return the seed of render number ``k``: 0 is the target, 1 the first noisy one."""
        index = self.target_index if k == 0 else self.index
        place = zlib.crc32(f"{self.split}/{self.scene}".encode())
        sequence = np.random.SeedSequence(self.settings.seed, spawn_key=(place, index, k))
        return int(sequence.generate_state(1)[0])

    def _renders(self) -> list[tuple[str, int, int, bool]]:
        """List file name, seed, samples per pixel and whether gradients are wanted."""
        settings = self.settings
        noisy = [
            (frame_set.noisy_name(k), self.seed(1 + k), settings.spp, True)
            for k in range(settings.noisy)
        ]
        return [*noisy, (frame_set.TARGET, self.seed(0), settings.target_spp, False)]

    def _parameters(self, source: rendering.Source, gradients: bool) -> dict[str, Any]:
        parameters = {
            **source.integrator,
            "features": ",".join(self.settings.features),
            "variances": self.settings.variances,
            "max_lanes": self.settings.max_lanes,
        }
        if self.max_depth is not None:
            parameters["max_depth"] = self.max_depth
        parameters["shifts"] = self.settings.shifts if gradients else 0
        return parameters


def frame_units(plan: FramePlan, root: str | os.PathLike[str]) -> list[FrameUnit]:
    """Return the units of work of a plan, scene by scene."""
    units = []
    contents = _contents(plan)
    for sequence in plan.sequences:
        target_index = 0
        for index, camera in enumerate(sequence.cameras):
            previous = sequence.cameras[index - 1] if index else None
            if camera != previous:
                target_index = index
            unit = FrameUnit(
                root=os.fspath(root),
                split=sequence.split,
                scene=sequence.scene,
                source=sequence.source,
                parameters=tuple(sorted(sequence.parameters.items())),
                max_depth=sequence.max_depth,
                index=index,
                target_index=target_index,
                camera=camera,
                previous=previous,
                settings=plan.settings,
                contents=contents[sequence.scene].key,
            )
            units.append(unit)
    return units


def render_frames(
    plan: FramePlan,
    root: str | os.PathLike[str],
    *,
    cluster: execution.ClusterOptions | None = None,
) -> execution.Summary:
    """Render a frame set, or what is missing of it.

    A frame that fails does not stop the others. Without ``cluster`` a Mitsuba variant has to be
    set; workers set that of this process, unless they have a ``setup`` of their own.

    Args:
        plan: What to render.
        root: Folder of the set; created if it does not exist.
        cluster: Workers to use; by default frames are rendered in this process, one by one.

    Returns:
        How many frames were rendered, were there already, and failed, and why.

    Raises:
        ConfigError: The folder holds a set of another plan, or a scene of it has been edited.
        MissingDependencyError: Targets shall be denoised, and ``oidn`` is not installed.
        VariantError: No variant is set, where one is needed.
    """
    cluster = workers.with_variant(cluster)
    root = Path(root).absolute()  # workers may have other working directories
    root.mkdir(parents=True, exist_ok=True)
    _describe(plan, root)
    # Now, and not after the first target is rendered.
    obstacle = denoisers.find(TARGET_DENOISER).obstacle
    if plan.settings.target == "denoised" and obstacle is not None:
        raise obstacle
    units = frame_units(plan, root)
    return execution.run(units, cluster=cluster, description="rendering frames")


def _describe(plan: FramePlan, root: Path) -> None:
    """Write the description of a set, or compare with the one that is there."""
    path = root / frame_set.DESCRIPTION
    description: dict[str, Any] = {
        "format": frame_set.FORMAT,
        "version": frame_set.VERSION,
        "plan": plan.as_dict(),
        "provenance": provenance.describe(date=False),
    }
    if path.is_file():
        description = frame_set.read_description(path)
    stored = description.get("plan")
    if stored != (wanted := plan.as_dict()):
        raise ConfigError(
            f"{path} describes another set; it differs in {_difference(stored, wanted)}. Choose "
            f"another folder, or the plan that this one was begun with"
        )
    splits = {sequence.scene: sequence.split for sequence in plan.sequences}

    def is_begun(scene: str) -> bool:
        return any((root / splits[scene] / scene).glob("*/*.exr"))

    kept = origins.agreed(_contents(plan), description.get(origins.SCENES), is_begun, root)
    if not path.is_file() or kept != description.get(origins.SCENES):
        replace_text(path, json.dumps({**description, origins.SCENES: kept}, indent=1) + "\n")


def _contents(plan: FramePlan) -> dict[str, Contents]:
    """Return what the scenes of a plan are made of, by the folders of the sequences."""
    return {
        sequence.scene: SceneRef.parse(sequence.source).contents(sequence.parameters)
        for sequence in plan.sequences
    }


def _difference(stored: Any, wanted: Mapping[str, Any]) -> str:
    settings = stored.get("settings", {}) if isinstance(stored, dict) else {}
    differing = [
        f"{name} ({settings.get(name)!r}, now {value!r})"
        for name, value in {**dict.fromkeys(settings), **wanted["settings"]}.items()
        if settings.get(name) != value
    ]
    return ", ".join(differing) or "its sequences"


@functools.lru_cache(maxsize=2)  # units come scene by scene; a scene may take gigabytes
def _open(
    variant: str | None, source: str, parameters: tuple[tuple[str, str], ...], contents: str
) -> rendering.Source:
    """Load a scene, once per process as long as the same one is asked for.

    The key of its contents tells files that have changed apart.
    """
    return rendering.open_source(source, parameters=dict(parameters))
