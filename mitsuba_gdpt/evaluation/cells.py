"""What the cells of one scene or sequence depend on, and which of them are there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mitsuba_gdpt import records, references
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.evaluation.equal_time import EqualTime
from mitsuba_gdpt.evaluation.settings import GRADIENT, PRIMAL, Settings, domain_of
from mitsuba_gdpt.evaluation.shots import Shot
from mitsuba_gdpt.evaluation.store import Record, Store
from mitsuba_gdpt.evaluation.view import stored_reference
from mitsuba_gdpt.execution import Cell
from mitsuba_gdpt.provenance import digest, fingerprint


class Cells:
    """All cells of one scene or sequence; loads nothing.

    Attributes:
        shot: What is looked at.
        settings: What is compared.
        store: Where results are kept.
    """

    def __init__(self, shot: Shot, settings: Settings, store: Store) -> None:
        self.shot, self.settings, self.store = shot, settings, store
        source = str(shot.source), shot.source.contents(shot.parameters).key, dict(shot.parameters)
        middle = None if shot.middle is None else dataclasses.asdict(shot.middle)
        #: What measured times depend on beyond the settings.
        self._timing_identity: tuple[Any, ...] = (*source, middle)
        places = references.places(shot.source) if shot.is_still else []
        kept = [records.stamp(place) for place in places]
        path = [dataclasses.asdict(camera) for camera in shot.cameras]
        #: What results depend on beyond settings, method and samples.
        self._identity = (*source, path, settings.reference_spp, kept)

    @property
    def view_key(self) -> str:
        """Fingerprint of the references."""
        settings = self.settings
        return digest(self._identity, settings.max_depth, settings.width)

    @property
    def view(self) -> Cell:
        """The references."""
        return self.store.view(self.shot.name, self.view_key)

    def reference_file(self) -> Path:
        """Return where the reference of a still image is, or will be once it is rendered.

        Raises:
            FormatError: A stored reference is damaged.
        """
        path = references.stored_path(self.shot.source, self.settings.max_depth)
        if path is not None and stored_reference(self.shot, self.settings) is not None:
            return path
        return self.store.reference_path(self.shot.name)

    def timing(self, spp: int) -> Cell:
        """Return the sample counts of equal time for a budget."""
        settings = self.settings
        mark = fingerprint(
            settings.max_depth,
            settings.width,
            dict(settings.gdpt),
            settings.plain_path,
            settings.features(GRADIENT),
            settings.needs_variances(GRADIENT),
            *self._timing_identity,
        )
        return self.store.timing(self.shot.scene, spp, mark)

    def are_there(self, spp: int) -> bool:
        """Tell whether all cells of a budget are, whatever equal time would be measured now."""
        return all(self.kept(spp, seed) for seed in range(self.settings.seeds))

    def kept(self, spp: int, seed: int) -> list[Record]:
        """Return the cells of a seed, if all that were asked for are there, with any samples."""
        found = [self.record(method, spp, seed) for method in self.settings.methods]
        return [] if None in found else [record for record in found if record is not None]

    def record(self, method: Call, spp: int, seed: int) -> Record | None:
        """Return a cell that was made before with these settings, with any samples."""
        record = self.store.record(self.shot.name, str(method), spp, seed)
        if record is None or record.error is not None:
            return None
        return record if record.fingerprint == self._hash(method, record.rendered_spp) else None

    def blank(self, method: Call, timing: EqualTime, seed: int) -> Record:
        """Return what is known of a cell before it is made."""
        primal = domain_of(method) == PRIMAL
        rendered = samples(domain_of(method), timing)
        return Record(
            scene=self.shot.name,
            method=str(method),
            domain=domain_of(method),
            spp=timing.spp,
            seed=seed,
            rendered_spp=rendered,
            render_seconds=timing.primal_render_seconds if primal else timing.render_seconds,
            fingerprint=self._hash(method, rendered),
        )

    def _hash(self, method: Call, rendered_spp: int) -> str:
        settings = self.settings
        return fingerprint(
            settings.max_depth,
            settings.width,
            dict(settings.gdpt),
            domain_of(method) == PRIMAL and (settings.plain_path, settings.needs_halves),
            settings.metrics,
            method.method,
            {key: str(value) for key, value in method.options.items()},
            rendered_spp,
            *self._identity,
        )


def samples(domain: str, timing: EqualTime) -> int:
    """Return the samples per pixel that a domain's methods get for a budget."""
    return timing.primal_spp if domain == PRIMAL else timing.spp
