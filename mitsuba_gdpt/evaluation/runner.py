"""The loop over all cells: render, reconstruct, compare, write down; failures do not stop it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from mitsuba_gdpt import denoisers, metrics, progress, rendering
from mitsuba_gdpt._version import __version__
from mitsuba_gdpt.errors import GDPTError
from mitsuba_gdpt.evaluation import equal_time, references
from mitsuba_gdpt.evaluation.equal_time import EqualTime
from mitsuba_gdpt.evaluation.inputs import (
    Inputs,
    render_gradient,
    render_primal,
    timed_integrators,
)
from mitsuba_gdpt.evaluation.settings import GRADIENT, PRIMAL, MethodSpec, Settings
from mitsuba_gdpt.evaluation.store import Record, Store, fingerprint

#: What a cell may die of without taking the others along; anything else is a bug and is raised.
_FAILURES = (GDPTError, RuntimeError, MemoryError)


def evaluate(
    settings: Settings, folder: Path, *, on_record: Callable[[Record], None] | None = None
) -> list[Record]:
    """Run all cells that ``folder`` does not hold yet.

    Args:
        settings: What is compared.
        folder: Results are written here, one file per cell; see :mod:`.store`.
        on_record: Called with every new cell.

    Returns:
        All cells of these settings, in the order scene, spp, seed, method. Cells that failed have
        an ``error``; they are tried again by the next call.

    Raises:
        FormatError: The folder cannot be written.
        ConfigError: Two scenes have the same name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder)
    total = len(settings.scenes) * len(settings.spp) * settings.seeds * len(settings.methods)
    records = []
    with progress.task("evaluating", total=total) as task:
        for scene in settings.scenes:
            for record in _Scene(scene, settings, store).records():
                records.append(record)
                if on_record is not None:
                    on_record(record)
                task.advance()
    return records


def scene_name(scene: str) -> str:
    """Return the short name of a scene, as used in tables and file names."""
    if scene.startswith(rendering.BUILTIN):
        return scene.removeprefix(rendering.BUILTIN)
    path = scene_file(scene)
    return path.parent.resolve().name if path.stem == "scene" else path.stem


def scene_file(scene: str) -> Path:
    """Return the XML file of a scene that is given as a file or as its folder."""
    path = Path(scene)
    return path / "scene.xml" if path.is_dir() else path


@dataclass
class _Prepared:
    """A loaded scene with its reference."""

    source: rendering.Source
    reference: metrics.Reference


class _Scene:
    """All cells of one scene; loads it only if a cell is missing."""

    def __init__(self, scene: str, settings: Settings, store: Store) -> None:
        self.scene, self.settings, self.store = scene, settings, store
        self.name = scene_name(scene)
        self._prepared: _Prepared | Exception | None = None
        self._warm: set[tuple[str, int, int]] = set()

    def records(self) -> Iterator[Record]:
        """Yield the cells, old ones and new ones."""
        for spp in self.settings.spp:
            for seed in range(self.settings.seeds):
                yield from self._cells(spp, seed)

    def _cells(self, spp: int, seed: int) -> Iterator[Record]:
        missing = []
        for method in self.settings.methods:
            record = self.store.record(self.name, method, spp, seed)
            if (
                record is not None
                and record.error is None
                and record.fingerprint == self._hash(method, record.rendered_spp)
            ):
                yield record
            else:
                missing.append(method)
        if not missing:
            return
        try:
            timing = self._timing(spp)
            inputs: dict[str, Inputs | Exception] = {}
        except _FAILURES as error:
            for method in missing:
                yield self._keep(method, self._failure(method, spp, seed, error))
            return
        for method in missing:
            if method.domain not in inputs:
                inputs[method.domain] = self._render(method.domain, timing, seed)
            yield self._keep(method, self._cell(method, timing, seed, inputs[method.domain]))

    # ------------------------------------------------------------------ steps

    def _prepare(self) -> _Prepared:
        """Load the scene and its reference, once; a failure is not tried again either."""
        if self._prepared is None:
            try:
                self._prepared = self._load()
            except _FAILURES as error:
                self._prepared = error
        if isinstance(self._prepared, Exception):
            raise self._prepared
        return self._prepared

    def _load(self) -> _Prepared:
        settings, scene = self.settings, self.scene
        if not scene.startswith(rendering.BUILTIN):
            scene = str(scene_file(scene))
        halves = references.stored(scene, settings.max_depth)
        if halves is not None and settings.width in (None, halves.size[0]):
            width, height = halves.size
            source = rendering.open_source(scene, width=width, height=height)
        else:
            width = settings.width or references.DEFAULT_WIDTH
            source = rendering.open_source(scene, width=width)
            halves = references.render(
                source,
                spp=settings.reference_spp,
                max_depth=settings.max_depth,
                target=self.store.reference_path(self.name),
                label=f"reference of {self.name}",
            )
        path = self.store.image_path(self.name, None)
        self.store.write_image(path, halves.mean)
        reference = metrics.Reference(torch.from_numpy(halves.a), torch.from_numpy(halves.b))
        return _Prepared(source, reference)

    def _timing(self, spp: int) -> EqualTime:
        settings = self.settings
        mark = fingerprint(
            settings.max_depth,
            settings.width,
            dict(settings.gdpt),
            settings.features(GRADIENT),
            settings.needs_variances(GRADIENT),
            __version__,
        )
        timing = self.store.timing(self.name, spp, mark)
        if timing is None:
            source = self._prepare().source
            gradient, primal = timed_integrators(source, settings)
            timing = equal_time.measure(source, gradient, primal, spp=spp, repeats=settings.repeats)
            self.store.write_timing(self.name, timing, mark)
        return timing

    def _render(self, domain: str, timing: EqualTime, seed: int) -> Inputs | Exception:
        source = self._prepare().source
        try:
            if domain == GRADIENT:
                return render_gradient(source, self.settings, spp=timing.spp, seed=seed)
            return render_primal(source, self.settings, spp=timing.primal_spp, seed=seed)
        except _FAILURES as error:
            return error

    def _cell(
        self, method: MethodSpec, timing: EqualTime, seed: int, inputs: Inputs | Exception
    ) -> Record:
        if isinstance(inputs, Exception):
            return self._failure(method, timing.spp, seed, inputs)
        try:
            image, seconds = self._denoise(method, inputs)
            values, errors = self._compare(image)
        except _FAILURES as error:
            return self._failure(method, timing.spp, seed, error)
        if seed == 0:
            path = self.store.image_path(self.name, method, timing.spp)
            self.store.write_image(path, image.cpu().numpy())
        primal = method.domain == PRIMAL
        rendered = timing.primal_spp if primal else timing.spp
        return Record(
            scene=self.name,
            method=method.label,
            domain=method.domain,
            spp=timing.spp,
            seed=seed,
            rendered_spp=rendered,
            render_seconds=timing.primal_seconds if primal else timing.seconds,
            denoise_seconds=seconds,
            metrics=values,
            standard_errors=errors,
            fingerprint=self._hash(method, rendered),
        )

    def _denoise(self, method: MethodSpec, inputs: Inputs) -> tuple[torch.Tensor, float]:
        options = dict(method.options)
        if "halves" in denoisers.find(method.name).options and inputs.halves is not None:
            options["halves"] = inputs.halves
        frame = inputs.frame
        key = (method.label, frame.width, frame.height)
        if key not in self._warm:  # weights are loaded and kernels compiled outside of the time
            denoisers.denoise(frame, method.name, **options)
            self._warm.add(key)
        _synchronise(frame.device)
        start = time.perf_counter()
        image: torch.Tensor = denoisers.denoise(frame, method.name, **options)
        _synchronise(frame.device)
        return image, time.perf_counter() - start

    def _compare(self, image: torch.Tensor) -> tuple[dict[str, float], dict[str, float]]:
        reference = self._prepare().reference
        values, errors = {}, {}
        image = image.cpu()
        for name in self.settings.metrics:
            metric = metrics.find(name)
            shown = metrics.displayable(image) if metric.nonnegative else image
            result = metric(shown, reference)
            values[name] = result.value
            if result.standard_error is not None:
                errors[name] = result.standard_error
        return values, errors

    # ------------------------------------------------------------------ book-keeping

    def _hash(self, method: MethodSpec, rendered_spp: int) -> str:
        settings = self.settings
        return fingerprint(
            settings.max_depth,
            settings.width,
            dict(settings.gdpt),
            settings.metrics,
            method.name,
            {key: str(value) for key, value in method.options.items()},
            rendered_spp,
            __version__,
        )

    def _failure(self, method: MethodSpec, spp: int, seed: int, error: Exception) -> Record:
        text = " ".join(rendering.plain(error).split()) if str(error) else type(error).__name__
        return Record(self.name, method.label, method.domain, spp, seed, error=text)

    def _keep(self, method: MethodSpec, record: Record) -> Record:
        self.store.write_record(record, method)
        return record


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
