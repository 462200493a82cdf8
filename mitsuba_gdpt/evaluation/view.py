"""A loaded scene with the cameras and references of a shot."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mitsuba_gdpt import metrics, references, rendering
from mitsuba_gdpt.evaluation.settings import Settings
from mitsuba_gdpt.evaluation.shots import Shot
from mitsuba_gdpt.evaluation.store import Store
from mitsuba_gdpt.motion import PinholeCamera
from mitsuba_gdpt.provenance import digest
from mitsuba_gdpt.scenes import make_sensor


@dataclass
class View:
    """A loaded scene with the cameras and references of a shot.

    Attributes:
        source: The scene.
        sensors: One per frame.
        halves: References: one per frame, in memory or in a file.
        timed_sensor: What equal time is measured on.
        denoised: Whether errors are relative to the brightness of a denoised reference.
    """

    source: rendering.Source
    sensors: list[Any]
    halves: list[references.Halves | Path]
    timed_sensor: Any
    denoised: bool
    _last: tuple[Path, metrics.Reference] | None = None

    def reference(self, frame: int) -> metrics.Reference:
        """Return the reference of a frame."""
        kept = self.halves[frame]
        if not isinstance(kept, Path):
            return kept.reference(denoised=self.denoised)
        if self._last is None or self._last[0] != kept:  # a camera at rest has one for all frames
            self._last = kept, references.read(kept).reference(denoised=self.denoised)
        return self._last[1]

    @cached_property
    def cameras(self) -> list[PinholeCamera]:
        """The cameras of the frames, for motion."""
        return [PinholeCamera.from_sensor(sensor) for sensor in self.sensors]


def stored_reference(shot: Shot, settings: Settings) -> references.Halves | None:
    """Return the stored reference of a still image, if one of the size that is asked for."""
    halves = references.stored(shot.source, settings.max_depth) if shot.is_still else None
    return halves if halves and settings.width in (None, halves.size[0]) else None


def load(shot: Shot, settings: Settings, store: Store) -> View:
    """Load the scene of a shot; read its references, or render and keep them.

    Raises:
        GDPTError: The scene or a reference cannot be loaded.
    """
    halves = stored_reference(shot, settings)
    if halves is not None:
        width, height = halves.size
        source = rendering.open_source(
            shot.source, width=width, height=height, parameters=shot.parameters
        )
    else:
        width = settings.width or references.DEFAULT_WIDTH
        source = rendering.open_source(shot.source, width=width, parameters=shot.parameters)
    if not shot.is_still:
        return _load_sequence(source, shot, settings, store)
    if halves is None:
        halves = references.render(
            source,
            spp=settings.reference_spp,
            max_depth=settings.max_depth,
            target=store.reference_path(shot.name),
            label=f"reference of {shot.name}",
            scene=references.identity(shot.source, shot.parameters),
        )
    store.write_image(store.frame_path(shot.name, None, 0, None), halves.mean)
    return View(source, [0], [halves], 0, denoised=False)


def _load_sequence(source: rendering.Source, shot: Shot, settings: Settings, store: Store) -> View:
    width, height = (int(side) for side in source.sensor(0).film().size())
    scene = references.identity(shot.source, shot.parameters)
    sensors: list[Any] = []
    paths: list[references.Halves | Path] = []
    for frame, camera in enumerate(shot.cameras):
        sensor = make_sensor(camera, width, height)
        mark = digest(
            str(shot.source), dict(shot.parameters), dataclasses.asdict(camera), width, height
        )
        path = store.reference_path(shot.scene, mark)
        if path not in paths:  # a camera at rest has one reference
            halves = references.render(
                source,
                spp=settings.reference_spp,
                max_depth=settings.max_depth,
                target=path,
                label=f"reference of {shot.name}, frame {frame}",
                sensor=sensor,
                frame=frame,
                scene=scene,
            )
        store.write_image(store.frame_path(shot.name, None, 0, frame), halves.mean)
        sensors.append(sensor)
        paths.append(path)
    assert shot.middle is not None
    timed = make_sensor(shot.middle, width, height)
    return View(source, sensors, paths, timed, denoised=True)
