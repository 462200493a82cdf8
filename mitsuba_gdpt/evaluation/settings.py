"""What is compared with what."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mitsuba_gdpt import checks, metrics
from mitsuba_gdpt.channels import MOTION, OPTIONAL, VARIANCE_SUFFIX, of_kind
from mitsuba_gdpt.decoding import call_parts, call_text, decode
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.integrators.parameters import Parameters
from mitsuba_gdpt.provenance import digest

GRADIENT, PRIMAL = "gradient", "primal"
_INTEGRATORS = ("gdpt", "path")
#: What contenders are told by the evaluation, and what else ``path`` and ``gdpt`` have in common.
_OF_ALL = ("max_depth", "features", "variances")
_OF_PATH = ("rr_depth", "hide_emitters")
#: The metric that means something only where the camera is at rest.
STATIC_ONLY = "static-variance"
#: What can measure costs, in seconds: as they pass, or those of all processors over their number,
#: which is about what passes on a machine that does nothing else.
CLOCKS: dict[str, Callable[[], float]] = {
    "wall": time.perf_counter,
    "processor": lambda: time.process_time() / _processors(),
}
_MOST_NAME_BYTES = 150  # room for budget, seed and suffix
_MOST_SEEDS = 10_000
_MOST_FRAMES = 100_000


def _processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def domain_of(method: Call) -> str:
    """Return ``"gradient"`` if a method reads dx and dy, else ``"primal"``."""
    return GRADIENT if "dx" in method.reads else PRIMAL


def file_name(label: str) -> str:
    """Return a label, fit for a file name; a long one is cut, and told apart by a hash."""
    name = "".join(c if c.isalnum() or c in "-.=" else "_" for c in label)
    name = name.rstrip("_") or "_"
    if len(name.encode()) <= _MOST_NAME_BYTES:
        return name
    cut = name.encode()[:_MOST_NAME_BYTES].decode(errors="ignore")
    return f"{cut}-{digest(label)}"


#: With these ``gdpt`` is Mitsuba's ``path``, sample by sample.
PLAIN: Mapping[str, Any] = {
    "shifts": 0,
    "shared_subpixel": False,
    "stratified": False,
    "emitter_importance": False,
}


@dataclass(frozen=True)
class IntegratorSpec:
    """An integrator with parameters, as a contender at equal total time.

    Attributes:
        name: ``gdpt``, or ``path`` for Mitsuba's own path tracer.
        options: Parameters that differ from the integrator's defaults, decoded.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Decode the options.

        Raises:
            ConfigError: The name or a parameter is unknown, or a value makes no sense.
        """
        if self.name not in _INTEGRATORS:
            raise ConfigError(
                f"got the integrator {checks.show(self.name)}; expected one of "
                f"{', '.join(_INTEGRATORS)}"
            )
        own = Parameters.defaults()
        known = _OF_PATH if self.is_path else [key for key in own if key not in _OF_ALL]
        if unknown := [key for key in self.options if key not in known]:
            remark = f" ({', '.join(_OF_ALL)} are those of the whole evaluation)"
            raise ConfigError(
                f"{self.name} has no parameter {', '.join(map(checks.show, unknown))} here"
                f"{remark if set(unknown) & set(_OF_ALL) else ''}; expected some of: "
                f"{', '.join(known)}"
            )
        options = {
            key: decode(type(own[key]), value, f"{self.name}: {key}")
            for key, value in self.options.items()
        }
        Parameters(**options)
        object.__setattr__(self, "options", options)

    @classmethod
    def parse(cls, text: str) -> IntegratorSpec:
        """Read ``NAME``, or ``NAME(OPTION=VALUE, ...)`` as methods are written.

        Raises:
            ConfigError: The name is unknown, or the text is malformed.
        """
        return cls(*call_parts(text, lambda _: (), "integrator"))

    @property
    def label(self) -> str:
        """Its text, as :meth:`parse` reads it."""
        return call_text(self.name, self.options)

    @property
    def is_path(self) -> bool:
        """Whether it is Mitsuba's own path tracer."""
        return self.name == "path"

    @property
    def has_gradients(self) -> bool:
        """Whether it estimates the differences dx and dy."""
        return not self.is_path and self.options.get("shifts") != 0

    def needs_variances(self, settings: Settings) -> bool:
        """Tell whether a method that it may go with reads variances."""
        return any(
            name.endswith(VARIANCE_SUFFIX) for method in settings.methods for name in method.reads
        )

    def parameters(self, settings: Settings) -> dict[str, Any]:
        """Return the parameters of ``gdpt``: own ones, path depth, buffers that methods read.

        ``path`` is rendered by ``gdpt`` too, as the same image sample by sample: then it has the
        features that its users would have to pay for. Parts of its radiance nobody gets from it.
        """
        read = {name for method in settings.methods for name in method.reads}
        if self.is_path:
            read -= set(of_kind("radiance"))
        return {
            **(PLAIN if self.is_path else {}),
            **self.options,
            "max_depth": settings.max_depth,
            "features": ",".join(b.name for b in OPTIONAL if b.name in read),
            "variances": self.needs_variances(settings),
        }


#: The integrators that are compared where nobody says.
CONTENDERS = (
    IntegratorSpec("path"),
    IntegratorSpec("gdpt", {"shifts": 0}),
    IntegratorSpec("gdpt", {"shifts": 1}),
    IntegratorSpec("gdpt", {"shifts": 4}),
)


@dataclass(frozen=True)
class Settings:
    """A whole evaluation: scenes x methods x sample counts x seeds.

    A still image is a sequence of one frame: the view of the scene's own camera. Of several frames
    the cameras are those of a fly-through, and those at rest in the middle of it.

    Attributes:
        scenes: Mitsuba XML files, folders with a ``scene.xml``, or ``builtin:NAME``. For sequences
            catalogues or scenes of catalogues; see
            :func:`mitsuba_gdpt.rendering.fly_through.find_scenes`.
        methods: Rows of the comparison.
        spp: Sample counts of ``gdpt``. Each sets a budget: methods that do not read gradients get
            as many samples as fit into the same render time.
        seeds: Independent repetitions of each cell; they give the standard errors.
        metrics: Names out of ``metrics.METRICS``, the most important first; of sequences also out
            of ``metrics.SEQUENCE_METRICS``. Those of images are taken over the frames as over a
            data set.
        max_depth: Longest path of all renders, references included.
        width: Image width in pixels; by default that of the stored reference, else 320.
        reference_spp: Samples per pixel of *each half* of a reference that has to be rendered, for
            each frame.
        repeats: Timed renders per measurement; the median counts.
        gdpt: Further parameters of the ``gdpt`` integrator, such as ``{"shifts": 2}``.
        plain_path: Path tracing, for the methods that do not read gradients, draws independent
            samples and chooses among emitters by their sampling weights, as Mitsuba's ``path``
            does, instead of being stratified and aimed like ``gdpt``.
        frames: Frames of each sequence; 1 for still images.
        static: Also look at every scene with a camera at rest, the middle one of the span.
        span: Part of the fly-through that the frames cover, as times 0..1.
        seconds: Budgets of total time, render and reconstruction, at ``cost_size``; see
            :func:`mitsuba_gdpt.evaluation.evaluate_total_time`. ``spp`` has no meaning then.
        integrators: Contenders at equal total time, each with every method that it goes with.
        cost_size: Width and height in pixels at which costs are measured.
        clock: What measures these costs, a key of :data:`CLOCKS`.
    """

    scenes: tuple[str, ...]
    methods: tuple[Call, ...]
    spp: tuple[int, ...] = (2, 8, 32)
    seeds: int = 3
    metrics: tuple[str, ...] = ("relmse",)
    max_depth: int = 12
    width: int | None = None
    reference_spp: int = 1024
    repeats: int = 3
    gdpt: Mapping[str, Any] = field(default_factory=dict)
    plain_path: bool = False
    frames: int = 1
    static: bool = False
    span: tuple[float, float] = (0.0, 1.0)
    seconds: tuple[float, ...] = ()
    integrators: tuple[IntegratorSpec, ...] = CONTENDERS
    cost_size: tuple[int, int] = (1280, 720)
    clock: str = "wall"

    def __post_init__(self) -> None:
        for name in ("scenes", "methods", "spp", "metrics"):
            values: Sequence[Any] = getattr(self, name)
            if not values:
                raise ConfigError(f"an evaluation needs at least one of: {name}")
        for name in ("scenes", "methods", "spp", "metrics", "seconds"):
            values = getattr(self, name)
            if len({str(value) for value in values}) != len(values):
                raise ConfigError(f"{name} holds a value twice: {', '.join(map(str, values))}")
        checks.whole("frames", self.frames, least=1, most=_MOST_FRAMES)
        for end in self.span:
            checks.real("span", end, least=0, most=1)
        for budget in self.seconds:
            checks.budget("seconds", budget)
        for side in self.cost_size:
            checks.pixels("cost_size", side)
        if self.clock not in CLOCKS:
            raise ConfigError(f"clock is {self.clock!r}; expected one of: {', '.join(CLOCKS)}")
        if self.seconds and self.moving:
            raise ConfigError("got budgets of total time for sequences; expected still images")
        if self.seconds and not self.integrators:
            raise ConfigError("got budgets of total time and no integrator; expected at least one")
        names = [integrator.label for integrator in self.integrators]
        if len(set(names)) != len(names):
            raise ConfigError(f"two integrators have the same label: {', '.join(names)}")
        self._check_metrics()
        labels = [str(method) for method in self.methods]
        if len(set(map(file_name, labels))) != len(labels):
            raise ConfigError(
                f"two methods would write the same files: {', '.join(labels)}; evaluate them one "
                "by one"
            )
        checks.whole("seeds", self.seeds, least=1, most=_MOST_SEEDS)
        checks.whole("repeats", self.repeats, least=1)
        checks.spp("reference_spp", self.reference_spp)
        checks.whole("max_depth", self.max_depth, least=1)
        if self.width is not None:
            checks.pixels("width", self.width)
        IntegratorSpec("gdpt", self.gdpt)
        for spp in self.spp:
            checks.spp("spp", spp)
        if min(self.spp) < 2 and self.needs_variances(GRADIENT):
            raise ConfigError(
                f"spp is {min(self.spp)}; expected at least 2, since a method reads variances"
            )

    def of_domain(self, name: str) -> tuple[Call, ...]:
        """Return the methods that read gradients, or those that do not."""
        return tuple(method for method in self.methods if domain_of(method) == name)

    def features(self, domain: str) -> tuple[str, ...]:
        """Return the optional buffers that the methods of a domain read."""
        read = {name for method in self.of_domain(domain) for name in method.reads}
        return tuple(buffer.name for buffer in OPTIONAL if buffer.name in read)

    @property
    def seed_count(self) -> str:
        """The number of seeds, in words."""
        return "1 seed" if self.seeds == 1 else f"{self.seeds} seeds"

    @property
    def needs_halves(self) -> bool:
        """Tell whether a method of the primal domain reads two independent renders."""
        return any(method.target.takes_halves for method in self.of_domain(PRIMAL))

    def needs_variances(self, domain: str) -> bool:
        """Tell whether a method of the domain reads variances."""
        return any(
            name.endswith(VARIANCE_SUFFIX)
            for method in self.of_domain(domain)
            for name in method.reads
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON-compatible values."""
        methods = [str(method) for method in self.methods]
        return {**dataclasses.asdict(self), "methods": methods}

    @property
    def moving(self) -> bool:
        """Whether sequences are compared, not still images."""
        return self.frames > 1

    def needs_motion(self, domain: str) -> bool:
        """Tell whether a method of the domain reads screen-space motion."""
        return any(MOTION in method.reads for method in self.of_domain(domain))

    def metrics_of(self, *, static: bool) -> tuple[str, ...]:
        """Return the metrics of one kind of sequence: some mean nothing where the camera moves."""
        return tuple(name for name in self.metrics if static or name != STATIC_ONLY)

    def _check_metrics(self) -> None:
        temporal = [name for name in self.metrics if metrics.find(name).temporal]
        if temporal and not self.moving:
            raise ConfigError(
                f"{', '.join(temporal)}: of sequences only; compare sequences (--sequence), or "
                f"choose among {', '.join(metrics.METRICS)}"
            )
        if self.static and not self.moving:
            raise ConfigError("frames is 1, of a camera at rest; expected at least 2 (--sequence)")
