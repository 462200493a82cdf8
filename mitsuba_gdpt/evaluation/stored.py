"""Comparison of reconstruction methods on renders that are stored: crop sets and Darc files.

    source = open_stored(["test.zarr"])
    results = evaluate_stored(source, (Call("poisson-l1"),), ("relmse",), Path("results"))
    write_stored(results, ("relmse",), Path("results"), {})

Every method gets every noisy render as it is. Nothing is rendered, so this is not equal time: a
method without gradients gets no samples in place of them. The folder holds one small file per
render and method, so that a rerun goes on:

OUT/cells/SCENE-00012-1/METHOD.json     errors and time, or what went wrong
OUT/images/SCENE-00012-1/METHOD.exr     of the renders that the report shows (half float)
OUT/images/SCENE-00012-1/reference.exr
OUT/report.html, results.csv, summary.csv, results.json, results.md
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from mitsuba_gdpt import denoisers, execution, metrics, provenance, records
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.data import darc
from mitsuba_gdpt.data.darc import DarcFile
from mitsuba_gdpt.data.darc_import import finite, scene_name
from mitsuba_gdpt.data.dataset import CropSet
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.evaluation.runs import timed
from mitsuba_gdpt.evaluation.settings import file_name
from mitsuba_gdpt.evaluation.store import Store
from mitsuba_gdpt.execution import Cell

#: Renders whose images are kept and shown, at most.
SHOWN = 12
_SHOWN_PIXELS = 1 << 20  # of all of them together; what a report takes of a method


@dataclass(frozen=True)
class Example:
    """One noisy render of a set.

    Attributes:
        scene: Name of the scene.
        crop: Number of the crop in the scene; crops are independent of each other.
        level: Number of the render among those of its crop, fewest samples first.
        spp: Samples per pixel; 0 where the set does not say.
        pixels: Of the image.
    """

    scene: str
    crop: int
    level: int
    spp: int
    pixels: int

    @property
    def name(self) -> str:
        """Name in files."""
        return f"{file_name(self.scene)}-{self.crop:05d}-{self.level}"


class Stored(Protocol):
    """Noisy renders with references."""

    @property
    def layout(self) -> Layout:
        """Channels of the renders."""

    @property
    def identity(self) -> Any:
        """What results depend on, JSON-compatible."""

    def examples(self) -> list[Example]:
        """Return what there is, crop by crop."""

    def load(self, example: Example) -> tuple[FrameBuffers, metrics.Reference]:
        """Read a render and its reference.

        Raises:
            FormatError: The data are damaged.
        """


class StoredCrops:
    """A crop set; references in two halves remove their own noise from squared errors."""

    def __init__(self, path: Path) -> None:
        """Open a set, finished or not; raises as :meth:`.CropSet.open`."""
        self.crops = CropSet.open(path)
        self._position = {self.crops.where(i): i for i in range(len(self.crops))}

    @property
    def layout(self) -> Layout:
        """See :class:`Stored`."""
        return self.crops.layout

    @property
    def identity(self) -> Any:
        """See :class:`Stored`."""
        return self.crops.attributes

    def examples(self) -> list[Example]:
        """See :class:`Stored`."""
        samples = {
            scene: np.stack(list(self.crops.table(scene, "spp").values()), axis=-1)
            for scene in self.crops.scenes
        }
        return [
            Example(scene, crop, level, int(samples[scene][crop, level]), self.crops.size**2)
            for scene, crop in self._position
            for level in range(self.crops.levels)
        ]

    def load(self, example: Example) -> tuple[FrameBuffers, metrics.Reference]:
        """See :class:`Stored`."""
        item = self.crops.level(self._position[example.scene, example.crop], example.level)
        targets = [half.contiguous() for half in item["targets"][:2]]
        return FrameBuffers(item["buffers"].contiguous(), self.layout), metrics.Reference(*targets)


class StoredDarc:
    """A Darc file for training or testing; infinities become the largest value of float16."""

    layout = darc.LAYOUT

    def __init__(self, path: Path) -> None:
        """Look into a file; raises as :class:`.DarcFile`."""
        self.path = path
        try:
            self.scene = scene_name(path)
        except ConfigError:  # named otherwise
            self.scene = path.stem
        with DarcFile(path) as file:
            self._shapes = [file.crop_shape(index) for index in range(len(file))]

    @property
    def identity(self) -> Any:
        """See :class:`Stored`."""
        status = self.path.stat()
        return [self.path.name, status.st_size, status.st_mtime_ns]

    def examples(self) -> list[Example]:
        """See :class:`Stored`."""
        return [
            Example(self.scene, crop, level, 0, height * width)
            for crop, (levels, height, width) in enumerate(self._shapes)
            for level in range(levels)
        ]

    def load(self, example: Example) -> tuple[FrameBuffers, metrics.Reference]:
        """See :class:`Stored`."""
        with DarcFile(self.path) as file:
            noisy, target = map(_plain, file.level(example.crop, example.level))
        return FrameBuffers(noisy, self.layout), metrics.Reference(target)


class StoredSets:
    """Several of them, of scenes with different names."""

    def __init__(self, parts: Sequence[Stored]) -> None:
        """Put sets together.

        Raises:
            ConfigError: Two have a scene of the same name, or there is no example.
        """
        self._home: dict[Example, Stored] = {}
        owners: dict[str, Stored] = {}
        for part in parts:
            for example in part.examples():
                if owners.setdefault(example.scene, part) is not part:
                    raise ConfigError(
                        f"two of the sets have a scene {example.scene!r}; evaluate them apart"
                    )
                self._home[example] = part
        if not self._home:
            raise ConfigError("the sets have no finished crop to evaluate on")

    @functools.cached_property
    def layouts(self) -> list[Layout]:
        """The layouts of all sets."""
        return list(dict.fromkeys(part.layout for part in self._home.values()))

    def examples(self, scenes: Sequence[str] = (), most: int | None = None) -> list[Example]:
        """Return what there is, crop by crop.

        Args:
            scenes: Only these.
            most: This many crops, spread evenly; None for all.

        Raises:
            ConfigError: There is no such scene.
        """
        known = list(dict.fromkeys(example.scene for example in self._home))
        if unknown := sorted({*scenes} - {*known}):
            raise ConfigError(
                f"no scene {', '.join(unknown)} in the sets; they have: {', '.join(known)}"
            )
        chosen = [e for e in self._home if not scenes or e.scene in scenes]
        crops = list(dict.fromkeys((e.scene, e.crop) for e in chosen))
        kept = {*spread(crops, len(crops) if most is None else most)}
        return [e for e in chosen if (e.scene, e.crop) in kept]

    def load(self, example: Example) -> tuple[FrameBuffers, metrics.Reference]:
        """See :class:`Stored`."""
        return self._home[example].load(example)

    def mark(self, example: Example) -> str:
        """Return a hash of what an example depends on."""
        return provenance.digest(self._home[example].identity, asdict(example))


@dataclass(frozen=True)
class StoredCell:
    """One method on one render.

    Attributes:
        example: The render.
        method: Label of the method.
        denoise_seconds: Time of the reconstruction.
        metrics: Metric name to value.
        standard_errors: Metric name to the metric's own standard error, where it has one.
        error: What went wrong, or None.
        sources: State of the code that made it, see :func:`mitsuba_gdpt.provenance.sources`.
    """

    example: Example
    method: str
    denoise_seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    standard_errors: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    sources: str = field(default_factory=lambda: provenance.sources())

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, those of the render beside the others, JSON-compatible."""
        values = asdict(self)
        return {**values.pop("example"), **values}


def open_stored(paths: Sequence[str | os.PathLike[str]]) -> StoredSets:
    """Open crop sets, Darc files and folders of Darc files.

    Raises:
        ConfigError: A folder is neither, two sets have a scene of the same name, or no crop is
            finished.
        FormatError: A file is missing or damaged, or of another kind.
    """
    parts: list[Stored] = []
    for path in map(Path, paths):
        if path.suffix.lower() == ".zarr" or (path / "zarr.json").is_file():
            parts.append(StoredCrops(path))
        elif path.is_dir():
            files = sorted(path.glob("*.darc"))
            if not files:
                raise ConfigError(
                    f"{path}: neither a crop set nor a folder with Darc files (*.darc)"
                )
            parts += map(StoredDarc, files)
        else:
            parts.append(StoredDarc(path))
    return StoredSets(parts)


def evaluate_stored(
    sets: StoredSets,
    methods: Sequence[Call],
    names: Sequence[str],
    folder: Path,
    *,
    scenes: Sequence[str] = (),
    most: int | None = None,
    on_cell: Callable[[StoredCell], None] | None = None,
) -> list[StoredCell]:
    """Run all methods on all renders, but for what ``folder`` holds already.

    Args:
        sets: As from :func:`open_stored`.
        methods: Methods with options.
        names: Metric names.
        folder: Results are written here; see the module.
        scenes: Only these.
        most: This many crops, spread evenly; None for all.
        on_cell: Called with every result.

    Returns:
        All results, render by render. Those that failed have an ``error``; they are tried again by
        the next call.

    Raises:
        ConfigError: There is no such scene.
        FormatError: The folder cannot be written.
    """
    examples = sets.examples(scenes, most)
    shown = {*shown_examples(examples)}
    warm: set[tuple[Call, int]] = set()
    found = []

    def ended(unit: _ExampleUnit, error: str) -> None:
        for cell in unit.results(error):
            found.append(cell)
            if on_cell is not None:
                on_cell(cell)

    units = [
        _ExampleUnit(sets, example, methods, names, folder, keep=example in shown, warm=warm)
        for example in examples
    ]
    execution.run(units, description="evaluating", on_ended=ended)
    order = {example: number for number, example in enumerate(examples)}
    return sorted(found, key=lambda cell: order[cell.example])


def shown_examples(examples: Sequence[Example]) -> list[Example]:
    """Return the renders whose images are kept, spread evenly; at least one."""
    most = min(SHOWN, _SHOWN_PIXELS // max(example.pixels for example in examples))
    return spread(examples, max(most, 1))


def spread(items: Sequence[Any], most: int) -> list[Any]:
    """Return at most so many of the items, spread evenly."""
    count = min(most, len(items))
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def image_path(folder: Path, example: Example, label: str | None) -> Path:
    """Return where an image is kept; that of the reference without a label."""
    name = "reference" if label is None else file_name(label)
    return folder / "images" / example.name / f"{name}.exr"


class _ExampleUnit(execution.CellUnit):
    """All methods on one render, which is read when the first needs it."""

    def __init__(
        self,
        sets: StoredSets,
        example: Example,
        methods: Sequence[Call],
        names: Sequence[str],
        folder: Path,
        *,
        keep: bool,
        warm: set[tuple[Call, int]],
    ) -> None:
        self.example, self.folder, self.keep = example, folder, keep
        self._sets, self._warm = sets, warm
        self._methods = {str(method): method for method in methods}
        self._metrics = [metrics.find(name) for name in names]
        self._mark = sets.mark(example)

    @property
    def key(self) -> str:
        """Name of the render."""
        return self.example.name

    @functools.cached_property
    def cells(self) -> list[Cell]:
        """One per method."""
        names = [metric.name for metric in self._metrics]
        return [
            Cell(
                label,
                self.folder / "cells" / self.example.name / f"{file_name(label)}.json",
                provenance.fingerprint(self._mark, method.identity, names, self.keep),
            )
            for label, method in self._methods.items()
        ]

    def make(self, missing: Sequence[Cell]) -> dict[str, str]:
        """Read the render and reconstruct it by the methods that are missing."""
        errors: dict[str, str] = {}
        data: list[tuple[FrameBuffers, metrics.Reference]] = []
        for cell in missing:
            with execution.collecting(errors, cell.name):
                if not data:
                    data.append(self._sets.load(self.example))
                    if self.keep:
                        self._write(None, data[0][1].mean)
                frame, reference = data[0]
                image, result = self._run(self._methods[cell.name], frame, reference)
                pictures = []
                if self.keep:
                    reference_path = image_path(self.folder, self.example, None)
                    pictures = [self._write(cell.name, image), reference_path]
                cell.keep(result.as_dict(), pictures)
        for cell in missing:
            if error := errors.get(cell.name):
                failed = StoredCell(self.example, cell.name, error=error)
                replace(cell, fingerprint="").keep(failed.as_dict())
        return errors

    def results(self, error: str) -> list[StoredCell]:
        """Return what the unit came to.

        Args:
            error: What it died of, for cells that do not say it themselves.
        """
        found = []
        for cell in self.cells:
            values = cell.kept()
            if values is None:  # it failed, and may say why
                written = records.read(cell.record) or {}
                values = written if written.get("error") else {}
            kept = {f.name: values[f.name] for f in fields(StoredCell) if f.name in values}
            known = {"method": cell.name, "error": error or None}
            found.append(StoredCell(**{**known, **kept, "example": self.example}))
        return found

    def _run(
        self, method: Call, frame: FrameBuffers, reference: metrics.Reference
    ) -> tuple[torch.Tensor, StoredCell]:
        def work() -> torch.Tensor:
            image: torch.Tensor = denoisers.denoise(frame, method)
            return image

        if (method, self.example.pixels) not in self._warm:  # loads weights, compiles kernels
            work()
            self._warm.add((method, self.example.pixels))
        image, seconds = timed(work, frame.device)
        image = image.cpu()
        values, errors = {}, {}
        for metric in self._metrics:
            shown = metrics.displayable(image) if metric.nonnegative else image
            result = metric(shown, reference)
            values[metric.name] = result.value
            if result.standard_error is not None:
                errors[metric.name] = result.standard_error
        return image, StoredCell(self.example, str(method), seconds, values, errors)

    def _write(self, label: str | None, image: torch.Tensor) -> Path:
        path = image_path(self.folder, self.example, label)
        Store(self.folder).write_image(path, image.numpy())
        return path


def crops_of(cells: Sequence[StoredCell]) -> list[list[StoredCell]]:
    """Return the cells, crop by crop."""
    groups: dict[tuple[str, int], list[StoredCell]] = {}
    for cell in cells:
        groups.setdefault((cell.example.scene, cell.example.crop), []).append(cell)
    return list(groups.values())


def _plain(values: Any) -> torch.Tensor:
    """Return values of a file, which may be infinite, as float32."""
    return torch.from_numpy(finite(values)[0].astype(np.float32))
