"""Light sampling at the vertices of base and offset paths.

Mitsuba's ``path`` chooses among emitters by their ``sampling_weight`` alone, usually all the same.
A far lamp, a weak one and one that shines the other way then take as many shadow rays as the one
that lights the vertex. With an :class:`EmitterTable` the choice follows what each would send there.

An offset path takes the emitter of its base, not that which the same random number would choose at
its own vertex: where the two differ, the gradient would be the difference of unrelated lamps. The
probability of the choice is another one there instead, a ratio of densities like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi

from mitsuba_gdpt.integrators.emitter_table import EmitterTable


@dataclass(frozen=True)
class Emitters:
    """The emitters of a scene.

    Attributes:
        scene: The scene.
        table: What is known about each emitter; None leaves the choice to the scene.
    """

    scene: Any
    table: EmitterTable | None = None

    def at(self, si: Any, flags: Any) -> LightSampling:
        """Return the light sampling of a vertex.

        Args:
            si: The vertex.
            flags: Those of its BSDF.
        """
        if self.table is None:
            return LightSampling(self, si)
        vertex = self.table.vertex(si, flags)
        return LightSampling(self, si, vertex, self.table.total(vertex))


@dataclass
class Choice:
    """An emitter that was chosen.

    Attributes:
        u: What the direction to it is sampled with: a Point2f in [0, 1)^2.
        index: Among the emitters of the scene. None: the scene chooses, with ``u``.
        probability: Of the choice.
    """

    u: Any
    index: Any = None
    probability: Any = None


@dataclass(frozen=True)
class LightSampling:
    """Light sampling at one vertex.

    Attributes:
        emitters: The emitters of the scene.
        si: The vertex.
        vertex: What the table wants to know of it.
        total: Sum of all importances there.
    """

    emitters: Emitters
    si: Any
    vertex: Any = None
    total: Any = None

    def choose(self, u: Any) -> Choice:
        """Choose an emitter with two random numbers in [0, 1)."""
        table = self.emitters.table
        if table is None:
            return Choice(u)
        index, probability, x = table.choose(self.vertex, self.total, u.x)
        return Choice(mi.Point2f(x, u.y), index, probability)

    def ratio(self, choice: Choice) -> Any:
        """Return the probability of a choice here over that where it was made."""
        table = self.emitters.table
        if table is None:
            return mi.Float(1)
        here = table.probability(self.vertex, self.total, choice.index)
        return dr.select(choice.probability > 0, here / choice.probability, 1)

    def sample(self, choice: Choice, ratio: Any = 1.0, active: Any = True) -> tuple[Any, Any]:
        """Sample a direction towards an emitter, like ``scene.sample_emitter_direction``.

        Args:
            choice: The emitter.
            ratio: What :meth:`ratio` says, where the choice was made at another vertex.
            active: Lanes of interest.

        Returns:
            ``DirectionSample3f`` with the density that it has at this vertex, 0 where nothing
            arrives; and the radiance over the density with which the emitter *was* chosen
            (Spectrum).
        """
        scene = self.emitters.scene
        if choice.index is None:
            return scene.sample_emitter_direction(self.si, choice.u, True, active)
        emitter = dr.gather(mi.EmitterPtr, scene.emitters_dr(), choice.index, active)
        ds, weight = emitter.sample_direction(self.si, choice.u, active)
        lit = active & (ds.pdf != 0) & (choice.probability > 0)
        lit &= ~scene.ray_test(self.si.spawn_ray_to(ds.p), lit)
        ds.pdf = dr.select(lit, ds.pdf * choice.probability * ratio, 0)
        return ds, dr.select(lit, weight / choice.probability, 0)

    def pdf(self, ds: Any, active: Any = True) -> Any:
        """Return the density of a direction, like ``scene.pdf_emitter_direction``, in 1/sr."""
        table = self.emitters.table
        if table is None:
            return self.emitters.scene.pdf_emitter_direction(self.si, ds, active)
        index = table.index(ds.emitter, active)
        probability = table.probability(self.vertex, self.total, index)
        return ds.emitter.pdf_direction(self.si, ds, active) * probability
