"""Sampling plans: which crops a training set consists of, decided before anything is rendered.

Cameras, zooms, crop windows and sample counts follow the data set of Kettunen et al., "Deep
Convolutional Reconstruction for Gradient-Domain Rendering" (TOG 38(4), 2019): one point of a
low-discrepancy sequence per crop, randomly rotated *in each dimension* (their code drew one
rotation per point and used it in all dimensions, which destroys the stratification).

The sequence is Sobol's, from torch: unlike a Hammersley set, its first points do not depend on how
many follow, so a larger plan begins with the crops of a smaller one. SciPy's generator is as good,
but only the tests need SciPy.

Everything is a function of the plan alone. Crop k is the same whoever renders it, and in whatever
order.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt import checks
from mitsuba_gdpt.data.metadata import MOST_CROPS, MOST_LEVELS, SHIFTS_BEFORE_CHOICE
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.integrators.parameters import DEFAULT_SHIFTS
from mitsuba_gdpt.scenes.catalogue import CAMERA_DIMENSIONS, CatalogueScene
from mitsuba_gdpt.scenes.registry import Camera

#: What a network is trained towards; see :attr:`CropPlan.target`.
TargetKind = Literal["halves", "path", "gdpt-l1", "gdpt-l2"]

#: Targets that are two independent images, each of half the samples.
HALVED: frozenset[str] = frozenset({"halves", "gdpt-l2"})

#: Samples per pixel behind the target where the plan names none.
REFERENCE_SPP: Mapping[str, int] = {"halves": 256, "path": 4096, "gdpt-l1": 4096, "gdpt-l2": 512}

#: Tables about the crops of a scene, as a set stores them: name to rows and names of columns.
Records: TypeAlias = dict[str, tuple[NDArray[Any], tuple[str, ...]]]

#: Columns of the table ``camera``; focus is 0 for a pinhole.
CAMERA = (
    *(f"{vector}.{axis}" for vector in ("origin", "target", "up") for axis in "xyz"),
    *("fov", "aperture", "focus"),
)
#: Columns of the table ``window``, in pixels.
WINDOW = ("frame_width", "frame_height", "x", "y")

_ZOOM, _X, _Y, _SPP = range(CAMERA_DIMENSIONS, CAMERA_DIMENSIONS + 4)
_DIMENSIONS = CAMERA_DIMENSIONS + 4
_ROTATION, _SEEDS = range(2)  # what a random number is for: part of the key of its seed sequence
_LEAST_SIZE = 8


@dataclass(frozen=True)
class CropSpec:
    """One crop of a plan: all that its renders depend on.

    Attributes:
        scene: Name of the scene.
        index: Number of the crop in its scene.
        camera: View of the full frame.
        frame: Width and height of the full frame in pixels, both even.
        offset: Column and row of the crop's upper left pixel in the full frame.
        size: Width and height of the crop.
        spp: Samples per pixel of the noisy renders, ascending.
        seeds: Seed of each noisy render.
        target_seeds: Seed of each render behind the target.
    """

    scene: str
    index: int
    camera: Camera
    frame: tuple[int, int]
    offset: tuple[int, int]
    size: int
    spp: tuple[int, ...]
    seeds: tuple[int, ...]
    target_seeds: tuple[int, ...]


@dataclass(frozen=True)
class CropPlan:
    """Which crops to render.

    Attributes:
        scenes: Scenes of a catalogue with ``split = "train"``.
        crops: Crops of a scene with weight 1; others get more or fewer in proportion.
        size: Width and height of a crop in pixels.
        levels: Noisy renders per crop. Their sample counts are stratified over min_spp..max_spp.
        min_spp: Least samples per pixel; at least 2, which variances need.
        max_spp: Samples per pixel that are never reached: counts are in [min_spp, max_spp).
        target: ``"halves"``: two independent renders (of the primal only) with half of
            reference_spp each, for noise-to-noise training and an unbiased error estimate.
            ``"path"``: one such render with reference_spp. ``"gdpt-l1"``: ``gdpt`` with
            reference_spp, reconstructed by ``poisson-l1`` (slightly biased, but far cleaner).
            ``"gdpt-l2"``: two independent renders of ``gdpt`` with four shifts and half of
            reference_spp each, reconstructed by least squares with weights from each other's
            variances (:func:`mitsuba_gdpt.denoisers.halves.reconstruct_halves`): unbiased, and
            less noisy than ``"halves"`` of as many samples, up to 30 times.
        reference_spp: Samples per pixel behind the target; None for :data:`REFERENCE_SPP`.
        seed: Changes everything that is random.
        shifts: Offset paths of the noisy renders, as of ``gdpt``: 1, 2 or 4.
        frame: Width and height of the full frame at zoom 1.
        max_lanes: As of ``gdpt``: paths per pass, which bounds the memory (0.3 kB each). Part of
            the plan because the random numbers of a render depend on how it is split.

    Raises:
        ConfigError: A value makes no sense, or a scene is not for training.
    """

    scenes: tuple[CatalogueScene, ...]
    crops: int = 250
    size: int = 128
    levels: int = 5
    min_spp: int = 2
    max_spp: int = 1024
    target: TargetKind = "halves"
    reference_spp: int | None = None
    seed: int = 0
    shifts: int = DEFAULT_SHIFTS
    frame: tuple[int, int] = (1280, 720)
    max_lanes: int = 1 << 20

    def __post_init__(self) -> None:
        """Fill in what depends on other fields, and check all."""
        object.__setattr__(self, "scenes", tuple(self.scenes))
        object.__setattr__(self, "frame", tuple(self.frame))
        if self.target not in get_args(TargetKind):
            raise ConfigError(
                f"the target is {self.target!r}; expected one of {', '.join(get_args(TargetKind))}"
            )
        if self.reference_spp is None:
            object.__setattr__(self, "reference_spp", REFERENCE_SPP[self.target])
        self._check_scenes()
        self._check_numbers()

    def _check_scenes(self) -> None:
        names = [scene.name for scene in self.scenes]
        if not names:
            raise ConfigError("a plan needs at least one scene, got none")
        for name in names:
            checks.file_name("scene", name)
        if double := sorted({name for name in names if names.count(name) > 1}):
            raise ConfigError(f"the plan names {', '.join(double)} more than once")
        if held_out := [f"{s.name} ({s.split})" for s in self.scenes if s.split != "train"]:
            raise ConfigError(
                f"not for training: {', '.join(held_out)}; networks must not see the scenes that "
                "they are measured on. Choose scenes of a catalogue with split = 'train'"
            )

    def _check_numbers(self) -> None:
        bounds = {
            "crops": (1, MOST_CROPS),
            "size": (_LEAST_SIZE, checks.MOST_PIXELS),
            "levels": (1, MOST_LEVELS),
            "min_spp": (2, checks.MOST_SPP),
            "max_spp": (self.min_spp + 1, checks.MOST_SPP),
            # Halves need variances of their own, so two samples each.
            "reference_spp": (4 if self.target in HALVED else 2, checks.MOST_SPP),
            "seed": (0, checks.MOST_SEED),
            "max_lanes": (1, checks.MOST),
        }
        if self.shifts not in (1, 2, 4):
            raise ConfigError(f"shifts is {self.shifts}; expected 1, 2 or 4: crops need gradients")
        for name, (least, most) in bounds.items():
            checks.whole(name, getattr(self, name), least=least, most=most)
        for side in self.frame:
            checks.pixels("frame", side)
        if self.target in HALVED and self.spp_behind_target % 2:
            raise ConfigError(
                f"reference_spp is {self.reference_spp}; expected an even number for two halves"
            )
        if self.size > min(self.frame):
            raise ConfigError(
                f"crops of {self.size} pixels do not fit into a frame of "
                f"{self.frame[0]} x {self.frame[1]}"
            )

    # ------------------------------------------------------------------------------- content

    @property
    def spp_behind_target(self) -> int:
        """``reference_spp``, which is never None once the plan is made."""
        assert self.reference_spp is not None
        return self.reference_spp

    @property
    def target_renders(self) -> int:
        """Number of renders behind a target, which is also the number of target images."""
        return 2 if self.target in HALVED else 1

    def scene(self, name: str) -> CatalogueScene:
        """Return a scene of the plan.

        Raises:
            ConfigError: There is none of that name.
        """
        for scene in self.scenes:
            if scene.name == name:
                return scene
        names = ", ".join(scene.name for scene in self.scenes)
        raise ConfigError(f"the plan has no scene {name!r}; it has: {names}")

    def count(self, scene: CatalogueScene) -> int:
        """Return the number of crops of a scene: in proportion to its weight, at least one."""
        return max(1, round(self.crops * scene.weight))

    def crop(self, scene: CatalogueScene, index: int) -> CropSpec:
        """Return one crop. Any index >= 0 is possible, also beyond :meth:`count`."""
        # Keyed by the name, so that other scenes may come and go.
        key = zlib.crc32(scene.name.encode())
        u = (_sobol_point(index) + self._rotation(key)) % 1.0
        width, height = (self._zoomed(u[_ZOOM], side) for side in self.frame)
        renders = self.levels + self.target_renders
        seeds = _distinct(
            np.random.SeedSequence(self.seed, spawn_key=(key, _SEEDS, index)), renders
        )
        return CropSpec(
            scene=scene.name,
            index=index,
            camera=scene.sample_camera(u[:CAMERA_DIMENSIONS]),
            frame=(width, height),
            # One more position than in the original, which never took the last one.
            offset=(
                int(u[_X] * (width - self.size + 1)),
                int(u[_Y] * (height - self.size + 1)),
            ),
            size=self.size,
            spp=spp_levels(u[_SPP], self.levels, self.min_spp, self.max_spp),
            seeds=seeds[: self.levels],
            target_seeds=seeds[self.levels :],
        )

    def specs(self, scene: CatalogueScene) -> Iterator[CropSpec]:
        """Yield all crops of a scene."""
        return (self.crop(scene, index) for index in range(self.count(scene)))

    def records(self, scene: CatalogueScene) -> Records:
        """Return what the plan says about the crops of a scene, as a crop set stores it."""
        specs = list(self.specs(scene))
        levels = level_names(self.levels)
        renders = levels + tuple(f"target {i}" for i in range(self.target_renders))
        seeds = [spec.seeds + spec.target_seeds for spec in specs]
        return {
            "spp": (np.array([spec.spp for spec in specs], np.int32), levels),
            "seed": (np.array(seeds, np.uint32), renders),
            "window": (np.array([spec.frame + spec.offset for spec in specs], np.int32), WINDOW),
            "camera": (np.array([_camera_row(spec.camera) for spec in specs], np.float64), CAMERA),
        }

    def _rotation(self, key: int) -> NDArray[np.float64]:
        sequence = np.random.SeedSequence(self.seed, spawn_key=(key, _ROTATION))
        return sequence.generate_state(_DIMENSIONS, np.uint64) / 2.0**64

    def _zoomed(self, u: float, side: int) -> int:
        """Return a side of the full frame in pixels: even, and so long that the crop fits in."""
        least = max(self.size / full for full in self.frame)
        return 2 * math.ceil(side * (least + (1.0 - least) * u) / 2)

    # --------------------------------------------------------------------------------- JSON

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain data for JSON."""
        data: dict[str, Any] = dataclasses.asdict(self)
        for scene in data["scenes"]:
            scene["parameters"] = dict(scene["parameters"])
        return dict(_lists(data))

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """Name the entries of another plan, as :meth:`to_dict` gave it, that are not as here.

        Where a scene's files lie and who made them counts for nothing. Plans that say nothing of
        shifts are older than the choice.
        """
        stored = {"shifts": SHIFTS_BEFORE_CHOICE, **stored}
        return differences(self.to_dict(), stored, unimportant=_UNIMPORTANT)


_UNIMPORTANT = ("source", "title", "author", "licence", "fly_through")


def differences(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], *, unimportant: Sequence[str] = ()
) -> list[str]:
    """Name the entries in which two plans, as plain data, differ.

    Args:
        ours: A plan: numbers, and under ``"scenes"`` a list of tables with a ``"name"``.
        theirs: Another one.
        unimportant: Keys of scenes that count for nothing.
    """

    def content(plan: Mapping[str, Any]) -> dict[str, Any]:
        numbers = {key: value for key, value in plan.items() if key != "scenes"}
        scenes = {
            f"scene {scene['name']}": {k: v for k, v in scene.items() if k not in unimportant}
            for scene in plan["scenes"]
        }
        return numbers | scenes

    here, there = content(ours), content(theirs)
    names = [*here, *(name for name in there if name not in here)]
    return [name for name in names if here.get(name) != there.get(name)]


def level_names(levels: int) -> tuple[str, ...]:
    """Return the names of the columns of the table ``spp``."""
    return tuple(f"level {i}" for i in range(levels))


def _camera_row(camera: Camera) -> tuple[float, ...]:
    c = camera
    return (*c.origin, *c.target, *c.up, c.fov, c.aperture, c.focus or 0.0)


def spp_levels(u: float, levels: int, least: int, bound: int) -> tuple[int, ...]:
    """Return sample counts of one crop: log-uniform in [least, bound), stratified, ascending.

    Level i of Kettunen et al. takes ``(u + i / levels) mod 1``; here the counts are sorted, so that
    level 0 is the noisiest.
    """
    positions = (u + np.arange(levels) / levels) % 1.0
    counts = np.floor(np.exp(math.log(least) + math.log(bound / least) * positions))
    return tuple(int(n) for n in np.sort(np.clip(counts, least, bound - 1)))


@functools.lru_cache(maxsize=1)
def _sobol_block(block: int) -> NDArray[np.float64]:
    from torch.quasirandom import SobolEngine

    engine = SobolEngine(_DIMENSIONS)
    engine.fast_forward(block * _BLOCK)
    return np.asarray(engine.draw(_BLOCK).double().numpy())


_BLOCK = 1024  # starting an engine takes longer than drawing this many points


def _sobol_point(index: int) -> NDArray[np.float64]:
    """Return point ``index`` of the unscrambled Sobol sequence, (dimensions,) in [0, 1)."""
    block, row = divmod(index, _BLOCK)
    return np.asarray(_sobol_block(block)[row])


def _distinct(sequence: np.random.SeedSequence, count: int) -> tuple[int, ...]:
    """Return different 32-bit seeds: equal ones would give two renders the same noise."""
    size = count
    while len(seeds := dict.fromkeys(sequence.generate_state(size).tolist())) < count:
        size += 1
    return tuple(seeds)[:count]


def _lists(value: Any) -> Any:
    """Replace tuples by lists, as JSON does."""
    if isinstance(value, Mapping):
        return {key: _lists(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_lists(item) for item in value]
    return value
