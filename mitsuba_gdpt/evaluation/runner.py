"""Still images: every method on one view of each scene."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from mitsuba_gdpt import denoisers, interrupts, metrics, records, rendering
from mitsuba_gdpt.evaluation import cells, references
from mitsuba_gdpt.evaluation.cells import FAILURES, Cells, Values
from mitsuba_gdpt.evaluation.equal_time import EqualTime
from mitsuba_gdpt.evaluation.inputs import Inputs, render_inputs
from mitsuba_gdpt.evaluation.settings import MethodSpec, Settings
from mitsuba_gdpt.evaluation.store import Record, Store
from mitsuba_gdpt.scenes import SceneRef
from mitsuba_gdpt.scenes.reference import require_any


def evaluate(
    settings: Settings, folder: Path, *, on_record: Callable[[Record], None] | None = None
) -> list[Record]:
    """Run all cells that ``folder`` does not hold yet.

    Args:
        settings: What is compared.
        folder: Results are written here, one file per cell; see :mod:`.store`.
        on_record: Called with every cell.

    Returns:
        All cells of these settings, in the order scene, spp, seed, method. Cells that failed have
        an ``error``; they are tried again by the next call.

    Raises:
        FormatError: The folder cannot be written.
        ConfigError: There is no such scene.
        MissingScenesError: None of the scene files is there.
    """
    scenes = [SceneRef.parse(scene) for scene in settings.scenes]
    require_any(scenes)
    folder.mkdir(parents=True, exist_ok=True)
    store = Store(folder)
    return cells.run([_Scene(scene, settings, store) for scene in scenes], on_record)


@dataclass
class _View:
    """A loaded scene with its reference."""

    source: rendering.Source
    reference: metrics.Reference
    timed_sensor: int = 0


class _Scene(Cells[_View]):
    """All cells of one scene."""

    def __init__(self, scene: SceneRef, settings: Settings, store: Store) -> None:
        super().__init__(scene.name, settings, store)
        self.scene = scene
        self.timing_identity = (str(scene), scene.content)
        stored = references.stored_path(scene)
        kept = None if stored is None else records.stamp(stored)
        self.identity = (*self.timing_identity, kept, settings.reference_spp)
        self._warm: set[tuple[str, int, int]] = set()

    def _load(self) -> _View:
        settings, scene = self.settings, self.scene
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
        self.store.write_image(self.store.image_path(self.name, None), halves.mean)
        return _View(source, halves.reference())

    def _measure(
        self, methods: Sequence[MethodSpec], timing: EqualTime, seed: int
    ) -> Iterator[Record]:
        inputs: dict[str, Inputs | Exception] = {}
        for method in methods:
            if method.domain not in inputs:
                inputs[method.domain] = self._render(method.domain, timing, seed)
            record = self._cell(method, timing, seed, inputs[method.domain])
            path = self.store.image_path(self.name, method, timing.spp)
            yield self._keep(method, record, [path] if seed == 0 else [])

    def _render(self, domain: str, timing: EqualTime, seed: int) -> Inputs | Exception:
        source = self._prepare().source
        spp = cells.samples(domain, timing)
        try:
            return render_inputs(source, self.settings, domain, spp=spp, seed=seed)
        except FAILURES as error:
            interrupts.pass_on(error)
            return error

    def _cell(
        self, method: MethodSpec, timing: EqualTime, seed: int, inputs: Inputs | Exception
    ) -> Record:
        if isinstance(inputs, Exception):
            return self._failure(method, timing.spp, seed, inputs)
        try:
            image, seconds = self._denoise(method, inputs)
            values = self._compare(image)
        except FAILURES as error:
            interrupts.pass_on(error)
            return self._failure(method, timing.spp, seed, error)
        if seed == 0:
            path = self.store.image_path(self.name, method, timing.spp)
            self.store.write_image(path, image.cpu().numpy())
        return self._success(method, timing, seed, seconds, values)

    def _denoise(self, method: MethodSpec, inputs: Inputs) -> tuple[torch.Tensor, float]:
        frame, options = inputs.frame, cells.options_for(method, inputs)

        def denoise() -> torch.Tensor:
            image: torch.Tensor = denoisers.denoise(frame, method.name, **options)
            return image

        key = (method.label, frame.width, frame.height)
        if key not in self._warm:  # weights are loaded and kernels compiled outside of the time
            denoise()
            self._warm.add(key)
        return cells.timed(denoise, frame.device)

    def _compare(self, image: torch.Tensor) -> Values:
        reference = self._prepare().reference
        values = Values({}, {})
        image = image.cpu()
        for name in self.settings.metrics:
            metric = metrics.find(name)
            result = metric(cells.shown(image, metric), reference)
            values.means[name] = result.value
            if result.standard_error is not None:
                values.standard_errors[name] = result.standard_error
        return values
