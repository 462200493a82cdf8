"""The folder of an evaluation: one small file per finished cell, so that a rerun continues.

OUT/cells/SCENE/METHOD-8spp-0.json      one cell: errors, times, or what went wrong
OUT/timing/SCENE-8spp.json              sample counts of equal time
OUT/costs/SCENE-1280x720.json           seconds of pairs, at equal total time
OUT/views/SCENE.json                    says that the references are there
OUT/images/SCENE/METHOD-8spp.exr        the image of the first seed (half float)
OUT/images/SCENE/reference.exr
OUT/references/SCENE.npz                a reference that was rendered here
OUT/report.html, results.csv, results.json, results.md

Of sequences, whose names end in -fly or -static:

OUT/cells/SEQUENCE/METHOD-8spp-0.json                   a method on all frames
OUT/images/SEQUENCE/METHOD-8spp/frame-0003.exr          of the first seed
OUT/images/SEQUENCE/reference/frame-0003.exr
OUT/references/SCENE/0123456789abcdef.npz               one camera; the name is a hash of it
OUT/animations/SEQUENCE/METHOD-8spp.png, -strip.png     to be looked at
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt import exr, provenance, records
from mitsuba_gdpt.evaluation.settings import file_name
from mitsuba_gdpt.execution import Cell


@dataclass(frozen=True)
class Record:
    """One cell: a method on one scene or sequence at one budget, with one seed.

    Attributes:
        scene: Name of the scene or sequence.
        method: Label of the method.
        domain: Domain of its input, ``"gradient"`` or ``"primal"``.
        spp: Samples per pixel of ``gdpt`` that set the budget.
        rendered_spp: Samples per pixel of this method's own input.
        seed: Number of the repetition.
        render_seconds: Median render time of such an input; of a sequence, per frame.
        denoise_seconds: Time of the reconstruction; of a sequence, the mean per frame.
        metrics: Metric name to value.
        standard_errors: Metric name to the metric's own standard error, where it has one.
        error: What went wrong, or None.
        fingerprint: Hash of everything that the result depends on.
        sources: State of the code that made it, see :func:`mitsuba_gdpt.provenance.sources`.
    """

    scene: str
    method: str
    domain: str
    spp: int
    seed: int
    rendered_spp: int = 0
    render_seconds: float = 0.0
    denoise_seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    fingerprint: str = ""
    sources: str = field(default_factory=lambda: provenance.sources())


class Store:
    """Reads and writes the folder; see the module's docstring."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def record(self, scene: str, label: str, spp: int, seed: int) -> Record | None:
        """Return a cell that has been written, failed or not; None if a file of it is damaged."""
        path = self._cell(scene, label, spp, seed)
        values = records.read(path)
        if values is None or not records.is_complete(path, values, values.get("fingerprint", "")):
            return None
        del values["files"]
        try:
            return Record(**values)
        except TypeError:  # of another version
            return None

    def write_record(self, record: Record, pictures: Iterable[Path] = ()) -> None:
        """Keep a cell, after the pictures that belong to it."""
        self.cell(record).keep(asdict(record), pictures)

    def forget_failure(self, record: Record) -> None:
        """Remove what was written of an earlier failure of a cell."""
        found = self.record(record.scene, record.method, record.spp, record.seed)
        if found is not None and found.error is not None:
            self.cell(record).record.unlink(missing_ok=True)

    def cell(self, record: Record) -> Cell:
        """Return the place of a method's errors."""
        path = self._cell(record.scene, record.method, record.spp, record.seed)
        return Cell(record.method, path, record.fingerprint)

    def timing(self, scene: str, spp: int, fingerprint: str) -> Cell:
        """Return the place of sample counts of equal time."""
        name = f"{scene}-{spp}spp"
        return Cell(name, self.folder / "timing" / f"{name}.json", fingerprint)

    def costs(self, name: str, fingerprint: str) -> Cell:
        """Return the place of the costs of all pairs on one scene."""
        return Cell(name, self.folder / "costs" / f"{name}.json", fingerprint)

    def view(self, shot: str, fingerprint: str) -> Cell:
        """Return the place of the note that the references of a scene or sequence are there."""
        return Cell(shot, self.folder / "views" / f"{shot}.json", fingerprint)

    def image_path(self, scene: str, label: str | None, spp: int = 0) -> Path:
        """Return where a picture is kept; that of the reference without a label."""
        name = "reference" if label is None else f"{file_name(label)}-{spp}spp"
        return self.folder / "images" / scene / f"{name}.exr"

    def read_image(self, scene: str, label: str | None, spp: int = 0) -> NDArray[np.float32]:
        """Read a picture, (H, W, 3); see :meth:`image_path`.

        Raises:
            FormatError: There is none, or it is damaged.
        """
        image = exr.read_image(self.image_path(scene, label, spp))
        return np.ascontiguousarray(image[..., :3], np.float32)

    def write_image(self, path: Path, image: NDArray[np.float32]) -> None:
        """Keep a picture as half float, values beyond its range clipped to it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        limit = float(np.finfo(np.float16).max)
        exr.write_image(path, np.clip(image, -limit, limit), half=True)

    def frame_path(self, shot: str, label: str | None, spp: int, frame: int | None) -> Path:
        """Return where a frame is kept; that of the reference without a label.

        Args:
            shot: Name of the scene or sequence.
            label: Of the method that made it.
            spp: Budget.
            frame: Its number; None for a still image.
        """
        path = self.image_path(shot, label, spp)
        return path if frame is None else path.with_suffix("") / f"frame-{frame:04d}.exr"

    def animation_path(self, sequence: str, label: str | None, spp: int) -> Path:
        """Return where the animated picture of a sequence is kept; its folder is made."""
        path = self.folder / "animations" / sequence / self.image_path(sequence, label, spp).name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_suffix(".png")

    def reference_path(self, scene: str, view: str = "") -> Path:
        """Return where a reference that has to be rendered is kept.

        Args:
            scene: Scene name.
            view: Tells the cameras of one scene apart, where there are several.
        """
        path = self.folder / "references" / (f"{scene}/{view}.npz" if view else f"{scene}.npz")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _cell(self, scene: str, label: str, spp: int, seed: int) -> Path:
        return self.folder / "cells" / scene / f"{file_name(label)}-{spp}spp-{seed}.json"
