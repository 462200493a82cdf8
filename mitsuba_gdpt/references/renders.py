"""Rendering references in passes that are written down, by paths alone or with gradients.

With offset paths each half is the screened Poisson reconstruction, L2, of its sums, which is linear
and so unbiased: with one weight everywhere or with the other half's variances, whichever leaves
less noise. The halves share no random numbers.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mitsuba_gdpt import denoisers, progress, rendering
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import CORE, DIFFERENCE_AXES, PRIMAL, Layout
from mitsuba_gdpt.denoisers.halves import reconstruct_halves
from mitsuba_gdpt.errors import FormatError
from mitsuba_gdpt.files import replace_file
from mitsuba_gdpt.references.halves import DAMAGE, Halves, is_same, read

if TYPE_CHECKING:
    import mitsuba as mi

#: Weight of the primal against the gradients. At the shifts of references (4) it leaves the least
#: noise on the development scenes; the default of ``poisson-l2`` is meant for few samples.
ALPHA = 0.8

_SAMPLES_PER_PASS = 64
_FIRST_SEED = 0x5EED_0000  # far from the seeds of the renders that are judged
_SEEDS_PER_FRAME = 1 << 12
_GROWTH = 1.1  # of the samples, between two looks at the noise
_LAYOUT = Layout(tuple(b for b in CORE if b.name in (PRIMAL, *DIFFERENCE_AXES)))


def render(
    source: rendering.Source,
    *,
    spp: int,
    max_depth: int,
    target: Path,
    label: str,
    sensor: int | mi.Sensor = 0,
    frame: int = 0,
    shifts: int = 0,
    noise: float = 0.0,
    seconds: float = math.inf,
    scene: str = "",
    keep: bool = False,
) -> Halves:
    """Render a reference, or go on where an earlier call was interrupted.

    Sums are kept in float64 and written beside ``target`` after every pass, under the name
    ``*.partial.npz``.

    Args:
        source: Scene.
        spp: Samples per pixel of each half, at most.
        max_depth: Longest path.
        target: File to write when done; read instead of rendering if it fits.
        label: What progress reports call the work.
        sensor: What is rendered.
        frame: Number of the frame in a sequence; frames have their own random numbers.
        shifts: Offset paths per sample; 0 for paths alone.
        noise: Enough is what has so little, as :attr:`Halves.noise` measures it; 0 for ``spp`` in
            any case.
        seconds: No pass begins later than that, but for the first of each half.
        scene: As :func:`identity` gives it, written into the file.
        keep: The file is of half floats and is written again and again while its samples grow, and
            the sums stay: a later call goes on to more samples or less noise.

    Returns:
        The reference.
    """
    size = source.size(sensor)
    with suppress(FormatError):  # not there, or cut short
        halves = read(target)
        enough = halves.spp >= spp or 0 < halves.noise <= noise
        alike = (halves.max_depth, halves.size) == (max_depth, size)
        if enough and alike and is_same(halves.scene, scene):
            return halves
    tracer = rendering.make_integrator(
        {**source.integrator, "max_depth": max_depth, "shifts": shifts, "features": ""}
        | {"freeze": True}  # many seeds of one scene that nobody changes
    )
    partial = target.with_suffix(".partial.npz")
    sums = _Sums.read(partial, [max_depth, shifts, scene], size)
    end = time.monotonic() + seconds
    shown = 0
    with progress.task(label, total=2 * spp) as task:
        task.advance(sum(sums.spp))
        while min(sums.spp) < spp:
            half = sums.passes % 2
            if half == 0 and sums.passes:
                if time.monotonic() >= end:
                    break
                if (keep or noise) and sums.spp[0] >= _GROWTH * shown:
                    shown = sums.spp[0]
                    halves = sums.halves(max_depth, scene)
                    if keep:
                        halves.save(target, half=True)
                    if halves.noise <= noise:
                        break
            count = min(_SAMPLES_PER_PASS, spp - sums.spp[half])
            seed = _FIRST_SEED + frame * _SEEDS_PER_FRAME + sums.passes
            image = rendering.render(source, tracer, spp=count, seed=seed, sensor=sensor)
            sums.add(image, count)
            sums.write(partial)
            task.advance(count)
    halves = sums.halves(max_depth, scene)
    halves.save(target, half=keep)
    if keep:
        return read(target)
    partial.unlink(missing_ok=True)
    return halves


def from_gradients(
    a: FrameBuffers, b: FrameBuffers, max_depth: int, spp: int, scene: str = ""
) -> Halves:
    """Reconstruct two independent renders with gradients, without bias.

    Args:
        a: A render with ``primal``, ``dx`` and ``dy``.
        b: Another one with other samples.
        max_depth: Longest path in them.
        spp: Samples per pixel of each.
        scene: As :func:`identity` gives it.

    Returns:
        The pair with less noise of: weights that are the same everywhere, and weights by the
        variances of the other half.
    """
    uniform = [denoisers.denoise(frame, "poisson-l2", alpha=ALPHA) for frame in (a, b)]
    pairs = (uniform, reconstruct_halves(a, b))
    made = [Halves(x.cpu().numpy(), y.cpu().numpy(), max_depth, spp, scene) for x, y in pairs]
    return min(made, key=lambda halves: halves.noise)


@dataclass
class _Sums:
    """Sums over the samples of both halves, which take turns.

    Attributes:
        kind: What they were made with: longest path, offset paths, scene.
        spp: Samples per pixel in each.
        passes: Renders in both.
        values: (H, W, C) float64 each: the primal, with offset paths also dx and dy.
    """

    kind: list[Any]
    spp: list[int] = field(default_factory=lambda: [0, 0])
    passes: int = 0
    values: list[Any] = field(default_factory=lambda: [np.float64(0), np.float64(0)])

    def add(self, frame: FrameBuffers, count: int) -> None:
        """Add a render of ``count`` samples to the half whose turn it is."""
        half, (_, shifts, _) = self.passes % 2, self.kind
        names = [b.name for b in _LAYOUT.buffers] if shifts else [PRIMAL]
        image = torch.cat([frame[name] for name in names], -1).cpu().numpy()
        self.values[half] = self.values[half] + count * image.astype(np.float64)
        self.spp[half] += count
        self.passes += 1

    def halves(self, max_depth: int, scene: str) -> Halves:
        """Return what has been estimated so far."""
        means = [total / spp for total, spp in zip(self.values, self.spp, strict=True)]
        if means[0].shape[-1] == 3:  # paths alone
            a, b = (mean.astype(np.float32) for mean in means)
            return Halves(a, b, max_depth, min(self.spp), scene)
        first, second = (
            FrameBuffers.from_tensor(torch.from_numpy(mean).float(), _LAYOUT) for mean in means
        )
        return from_gradients(first, second, max_depth, min(self.spp), scene)

    def write(self, path: Path) -> None:
        """Write them, atomically."""
        depth, shifts, scene = self.kind
        state = np.array([self.passes, *self.spp, depth, shifts])

        def write_to(temporary: Path) -> None:
            with temporary.open("wb") as stream:
                np.savez(
                    stream, a=self.values[0], b=self.values[1], state=state, scene=np.array(scene)
                )

        replace_file(path, write_to)

    @classmethod
    def read(cls, path: Path, kind: list[Any], size: tuple[int, int]) -> _Sums:
        """Return what an earlier call left, or none, if it left none of this kind."""
        with suppress(*DAMAGE), np.load(path, allow_pickle=False) as stored:
            passes, first, second, *made = (int(value) for value in stored["state"])
            values = [stored["a"], stored["b"]]
            sizes = {value.shape[1::-1] for value in values if value.ndim}  # 0 is of any
            alike = made == kind[:-1] and is_same(str(stored["scene"]), kind[-1])
            if alike and sizes <= {size}:
                return cls(kind, [first, second], passes, values)
        return cls(kind)
