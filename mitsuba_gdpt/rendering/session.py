"""A render on a budget under way: its passes so far, and what rendering and reconstruction take.

What passes there are and when it ends is not decided here but in :mod:`.choice` and
:mod:`.spending`, which share one :class:`Session`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mitsuba_gdpt.rendering.contenders import Contender, Costs
from mitsuba_gdpt.rendering.frame import make_integrator
from mitsuba_gdpt.rendering.limits import Budget, Purse
from mitsuba_gdpt.rendering.passes import Accumulation, Pass, render_pass, seed_of
from mitsuba_gdpt.rendering.source import Source

if TYPE_CHECKING:
    import mitsuba as mi
    import numpy as np
    import torch

    from mitsuba_gdpt.buffers import FrameBuffers
    from mitsuba_gdpt.channels import Layout

Update = Callable[["torch.Tensor", "FrameBuffers"], None]


class Session:
    """What all parts of one render on a budget share.

    Attributes:
        purse: The budget, and where its time went.
        parameters: Of ``gdpt``; ``shifts`` may be open.
        accumulation: The passes so far.
        costs: Of passes, by their number of offset paths.
        update: Called with the image so far and its buffers.
    """

    def __init__(
        self,
        source: Source,
        purse: Purse,
        parameters: Mapping[str, Any],
        accumulation: Accumulation,
        *,
        sensor: int | mi.Sensor,
        seed: int,
        update: Update | None,
    ) -> None:
        """Begin with what an earlier render left, if it left something.

        Args:
            source: Scene.
            purse: The budget.
            parameters: Of ``gdpt``.
            accumulation: What is gone on with; passes are added to it.
            sensor: Index of a sensor of the scene, or a sensor.
            seed: Of the sampler, for what goes on with nothing.
            update: As of the class.
        """
        self.purse, self.parameters, self.update = purse, parameters, update
        self.accumulation = accumulation
        self.costs: dict[int, Costs] = {}
        self._source, self._sensor = source, sensor
        self._seed = accumulation.passes[0].seed if accumulation.passes else seed
        self._integrators: dict[int, Any] = {}

    @property
    def budget(self) -> Budget:
        """When it ends."""
        return self.purse.budget

    def integrator(self, shifts: int) -> Any:
        """Return ``gdpt`` with so many offset paths per sample."""
        if shifts not in self._integrators:
            self._integrators[shifts] = make_integrator({**self.parameters, "shifts": shifts})
        return self._integrators[shifts]

    @property
    def first_integrator(self) -> Any:
        """The one that came into question first; they all render the same buffers."""
        return next(iter(self._integrators.values()))

    @property
    def layout(self) -> Layout:
        """What the channels of each pass are."""
        layout: Layout = self.first_integrator.layout
        return layout

    @property
    def least_spp(self) -> int:
        """Samples per pixel that a pass has at least."""
        return max(i.parameters.least_spp for i in self._integrators.values())

    def take(
        self,
        shifts: int,
        spp: int,
        sequence: int,
        add: Callable[[FrameBuffers, Pass], None] | None = None,
    ) -> float:
        """Render a pass with the same samples in all pixels, and return its seconds.

        Args:
            shifts: Offset paths per sample.
            spp: Samples per pixel.
            sequence: Of random numbers; independent passes have different ones.
            add: Called with the pass before it is added to the others.
        """
        with self.purse.rendering() as block:
            frame, done = self.render(shifts, spp, sequence)
            if add is not None:
                add(frame, done)
            self.accumulation.add(frame, done)
        self.costs.setdefault(shifts, Costs()).note(done.spp, block.seconds, block.growing)
        return block.seconds

    def render(
        self,
        shifts: int,
        spp: int,
        sequence: int,
        counts: np.ndarray[Any, np.dtype[np.intp]] | None = None,
    ) -> tuple[FrameBuffers, Pass]:
        """Render the next pass of a sequence of random numbers, and neither add nor count it.

        Args:
            shifts: Offset paths per sample.
            spp: Samples per pixel, or their mean.
            sequence: Of random numbers.
            counts: Samples of each pixel, (H, W), where their numbers differ.
        """
        return render_pass(
            self._source,
            self.integrator(shifts),
            spp=spp,
            seed=seed_of(self._seed, sequence),
            sensor=self._sensor,
            before=self.accumulation,
            counts=counts,
        )

    def denoise(self, contender: Contender, frame: FrameBuffers) -> torch.Tensor:
        """Return the reconstruction of buffers, (H, W, 3)."""
        from mitsuba_gdpt import denoisers

        start = self.purse.clock()
        image: torch.Tensor = denoisers.denoise(frame, contender.method)
        if image.is_cuda:
            import torch

            torch.cuda.synchronize(image.device)
        self.purse.pay("denoise", start)
        return image
