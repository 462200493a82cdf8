"""Renders in several passes: their means and variances, and going on with one from a file.

Passes with one seed share a sequence of random numbers, in which each goes on where the one before
ended: together they are as well stratified as one render. So a render that was interrupted after
some passes and goes on later has the same passes, and the same bits, as one that was not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt import checks
from mitsuba_gdpt.channels import REPORTED
from mitsuba_gdpt.errors import ConfigError, FormatError
from mitsuba_gdpt.rendering import frame as frames
from mitsuba_gdpt.rendering.means import Counts, averaged, combined
from mitsuba_gdpt.rendering.source import Source
from mitsuba_gdpt.rendering.state import KEY, Planes, State

if TYPE_CHECKING:
    import mitsuba as mi
    import numpy as np
    import torch

    from mitsuba_gdpt.buffers import FrameBuffers
    from mitsuba_gdpt.channels import Layout

#: Key of the metadata that lists the passes: ``seed:spp:shifts`` each, separated by blanks.
PASSES = "passes"
#: Samples per pixel of the first pass; later ones double the sum, up to the largest pass.
FIRST_SPP, LARGEST_SPP = 2, 128

_GOLDEN = 0x9E3779B9  # 2**32 over the golden ratio: neighbouring seeds share no pass
_SEEDS = 2**32
_MOST_PASSES = 100_000


@dataclass(frozen=True)
class Pass:
    """One pass.

    Attributes:
        seed: Of the sampler, 0 to 2^32 - 1.
        spp: Samples per pixel.
        shifts: Offset paths per sample.
    """

    seed: int
    spp: int
    shifts: int

    def __str__(self) -> str:
        return f"{self.seed}:{self.spp}:{self.shifts}"


def seed_of(seed: int, number: int) -> int:
    """Return the seed of an independent sequence; that of the first is the seed of the render."""
    return (seed + _GOLDEN * number) % _SEEDS


def render_pass(
    source: Source,
    integrator: Any,
    *,
    spp: int,
    seed: int,
    sensor: int | mi.Sensor,
    before: Accumulation,
    counts: np.ndarray[Any, np.dtype[np.intp]] | None = None,
) -> tuple[FrameBuffers, Pass]:
    """Render a pass, and wait until it is complete; it is not added to those before.

    Args:
        source: Scene.
        integrator: ``gdpt``.
        spp: Samples per pixel, or their mean.
        seed: Of the sequence that it goes on with, see :func:`seed_of`.
        sensor: Index of a sensor of the scene, or a sensor.
        before: The passes before.
        counts: Samples of each pixel, (H, W), where their numbers differ.

    Raises:
        ConfigError: The integrator cannot work with these numbers.
        RuntimeError: Mitsuba failed.
    """
    import drjit as dr

    frame = frames.render(
        source,
        integrator,
        spp=spp,
        seed=seed,
        sensor=sensor,
        counts=counts,
        first=before.taken(seed),
    )
    dr.sync_thread()
    return frame, Pass(seed, int(frame.metadata["spp"]), integrator.parameters.shifts)


class Accumulation:
    """The mean over all passes so far.

    How means and variances are combined is in :mod:`.means`; all passes are one set of samples.

    Attributes:
        passes: In order.
        state: What an adaptive render that was interrupted left besides, see :mod:`.state`.
    """

    def __init__(self) -> None:
        self.passes: list[Pass] = []
        self.state: State | None = None
        self._frame: FrameBuffers | None = None
        self._counts = Counts.even(0, 0)

    @classmethod
    def from_exr(cls, path: str | os.PathLike[str]) -> Accumulation:
        """Read what a render left, to go on with it.

        Args:
            path: EXR file with all buffers.

        Raises:
            FormatError: The file is damaged or does not say which passes it is made of.
        """
        from mitsuba_gdpt.buffers import FrameBuffers

        frame = FrameBuffers.from_exr(path, require=("primal",))
        passes = _parse(path, frame.metadata.get(PASSES, ""))
        state = State.from_exr(path, frame.metadata)
        frame.metadata.pop(KEY, None)
        # What is known about the image so far does not hold for the next.
        resumed = cls.of(frame.without(buffer.name for buffer in REPORTED), passes)
        resumed.state = state
        return resumed

    @classmethod
    def of(cls, frame: FrameBuffers, passes: list[Pass]) -> Accumulation:
        """Return what has the same number of samples in all pixels.

        Args:
            frame: (H, W, C) means.
            passes: That they are of.
        """
        result = cls()
        result.passes = passes
        result._set(passes, frame, Counts.even(result.spp, result.gradient_spp))
        return result

    def put(self, planes: Planes, name: str) -> dict[str, Any]:
        """Store this among named planes.

        Args:
            planes: Added to.
            name: What their names begin with.

        Returns:
            What else :meth:`taken_from` has to know.
        """
        for i, channel in enumerate(self.frame.layout.channels):
            planes[f"{name} {channel}"] = self.frame.data[..., i].cpu().numpy()
        numbers = {}
        for key, count in vars(self._counts).items():
            if isinstance(count, int | float):
                numbers[key] = count
            else:
                planes[f"{name} samples {key}"] = count[..., 0].cpu().numpy()
        return {PASSES: " ".join(map(str, self.passes)), "samples": numbers}

    @classmethod
    def taken_from(
        cls, state: State, planes: Planes, like: FrameBuffers, *keys: str | int
    ) -> Accumulation:
        """Return what :meth:`put` stored, with the bits that it had.

        Args:
            state: Where what :meth:`put` returned is found by the keys.
            planes: By name.
            like: (H, W, C) buffers with the same layout and header.
            keys: Together they are the name.

        Raises:
            FormatError: Something is missing.
        """
        import torch

        from mitsuba_gdpt.buffers import FrameBuffers

        name, known = " ".join(map(str, keys)), state.part(*keys, "samples")
        stored = [torch.from_numpy(planes[f"{name} {c}"]) for c in like.layout.channels]
        counts = {
            key: known[key]
            if key in known
            else torch.from_numpy(planes[f"{name} samples {key}"]).to(like.device)[..., None]
            for key in ("primal", "dx", "dy")
        }
        data = torch.stack(stored, -1).to(like.device)
        frame = FrameBuffers(data, like.layout, like.metadata, like.attributes)
        result = cls()
        result._set(_parse(state.path, state.part(*keys, PASSES)), frame, Counts(**counts))
        return result

    def check(
        self,
        width: int,
        height: int,
        described: Mapping[str, str],
        layout: Layout | None = None,
    ) -> None:
        """Check that what comes is of the same picture; all is well before the first pass.

        Args:
            width: In pixels.
            height: In pixels.
            described: Metadata that has to be the same.
            layout: Buffers that have to be the same, if that is known.

        Raises:
            ConfigError: It is not.
        """
        if self._frame is None:
            return
        found = {"size": f"{self._frame.width}x{self._frame.height}", **self._frame.metadata}
        for key, value in {"size": f"{width}x{height}", **described}.items():
            before, now = (_comparable(text) for text in (found.get(key, ""), value))
            if before != now:
                before, now = _differing(before, now)
                raise ConfigError(
                    f"what was rendered before has {key} {checks.show(before)}, this render has "
                    f"{checks.show(now)}; give the same settings, or begin a new file"
                )
        if layout not in (None, self._frame.layout):
            raise ConfigError(
                f"what was rendered before has {', '.join(self._frame.names)}; expected "
                f"{', '.join(layout.names)}. Go on with the file that was rendered, not with what "
                "became of it"
            )

    @property
    def spp(self) -> int:
        """Samples per pixel so far."""
        return sum(done.spp for done in self.passes)

    def taken(self, seed: int) -> int:
        """Return the samples per pixel that were taken with a seed so far."""
        return sum(done.spp for done in self.passes if done.seed == seed)

    @property
    def gradient_spp(self) -> int:
        """Samples per pixel with offset paths so far."""
        return sum(done.spp for done in self.passes if done.shifts)

    @property
    def frame(self) -> FrameBuffers:
        """The means, (H, W, C), with metadata that says which passes they are of.

        Raises:
            ConfigError: There was no pass yet.
        """
        if self._frame is None:
            raise ConfigError("nothing was rendered yet")
        return self._frame

    def next_spp(self) -> int:
        """Return the samples of the next pass of the usual sequence: as many as there are."""
        return min(max(FIRST_SPP, self.spp), LARGEST_SPP)

    def add(self, frame: FrameBuffers, done: Pass, samples: torch.Tensor | None = None) -> None:
        """Add a pass.

        Args:
            frame: (H, W, C) buffers, the same in every pass.
            done: How they were rendered.
            samples: Of each pixel, (H, W, 1), where their numbers differ.

        Raises:
            ConfigError: The buffers or their size differ from those of the passes before.
        """
        before = self._frame
        if before is not None and (
            before.layout != frame.layout or before.data.shape != frame.data.shape
        ):
            raise ConfigError(
                f"a pass of {frame.width}x{frame.height} pixels with {', '.join(frame.names)} "
                f"cannot be added to {before.width}x{before.height} pixels with "
                f"{', '.join(before.names)}"
            )
        if samples is None:
            counts = Counts.even(done.spp, done.spp if done.shifts else 0)
        else:
            counts = Counts.uneven(samples, gradients=bool(done.shifts))
        mean = frame if before is None else combined(before, frame, self._counts, counts)
        self._set([*self.passes, done], mean, self._counts + counts)

    @classmethod
    def together(cls, first: Accumulation, second: Accumulation) -> Accumulation:
        """Return the mean of two independent renders, with weights that are their mean counts."""
        if not first.passes:
            return second
        result = cls()
        counts = [Counts.even(done.spp, done.gradient_spp) for done in (first, second)]
        mean = combined(first.frame, second.frame, *counts)
        result._set([*first.passes, *second.passes], mean, first._counts + second._counts)
        return result

    def _set(self, passes: list[Pass], frame: FrameBuffers, counts: Counts) -> None:
        from mitsuba_gdpt.buffers import FrameBuffers

        header = {
            **frame.metadata,
            PASSES: " ".join(map(str, passes)),
            "spp": str(sum(done.spp for done in passes)),
        }
        # The frame of the caller may be part of other means, and keeps its own header.
        own = FrameBuffers(frame.data, frame.layout, header, frame.attributes)
        # Ctrl-C comes before or after this line.
        self.passes, self._frame, self._counts = passes, own, counts

    @property
    def samples(self) -> torch.Tensor:
        """Samples of each pixel, (H, W, 1)."""
        import torch

        return torch.as_tensor(self._counts.primal).expand(*self.frame.data.shape[:2], 1)

    def copied(self) -> Accumulation:
        """Return what there is now, whatever is added here later."""
        other = Accumulation()
        other.passes, other._frame, other._counts = self.passes, self._frame, self._counts
        return other

    @classmethod
    def mean(cls, first: Accumulation, second: Accumulation) -> Accumulation:
        """Return the mean of two independent halves with equal weights, see :func:`averaged`."""
        result = cls()
        frame = averaged(first.frame, second.frame)
        result._set([*first.passes, *second.passes], frame, first._counts + second._counts)
        return result


def _comparable(text: str) -> str:
    """Leave out what may differ from pass to pass."""
    return re.sub(r"\bshifts = \d", "", text)


def _differing(first: str, second: str) -> tuple[str, str]:
    """Leave out of two texts the settings (``name = value``) that they share, if they have any."""
    settings = [re.findall(r"\w+ = [^,\]]+", text) for text in (first, second)]
    if not all(settings):
        return first, second
    shared = {*settings[0]} & {*settings[1]}
    return tuple(  # type: ignore[return-value]
        ", ".join(s.strip() for s in found if s not in shared) or "nothing like it"
        for found in settings
    )


def _parse(path: str | os.PathLike[str], text: str) -> list[Pass]:
    words = text.split()
    try:
        if not 0 < len(words) <= _MOST_PASSES:
            raise ValueError
        found = [Pass(*map(int, word.split(":"))) for word in words]
        if any(
            p.spp < 1 or p.shifts not in (0, 1, 2, 4) or not 0 <= p.seed < _SEEDS for p in found
        ):
            raise ValueError
    except (TypeError, ValueError):
        raise FormatError(
            f"{path}: the header does not say which passes it is made of (passes = "
            f"{checks.show(text)}); only renders with --time, --progressive, "
            "--adaptive or --resume can go on"
        ) from None
    return found
