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

import drjit as dr
import mitsuba as mi

from mitsuba_gdpt.integrators.emitter_table import EmitterTable, Importances


@dataclass(frozen=True)
class Emitters:
    """The emitters of a scene.

    Attributes:
        scene: The scene.
        table: What is known about each emitter; None leaves the choice to the scene.
    """

    scene: mi.Scene
    table: EmitterTable | None = None

    def at(self, si: mi.SurfaceInteraction3f, flags: mi.UInt32) -> LightSampling:
        """Return the light sampling of a vertex.

        Args:
            si: The vertex.
            flags: Those of its BSDF.
        """
        importances = None if self.table is None else self.table.at(si, flags)
        return LightSampling(self.scene, si, importances)


@dataclass(frozen=True)
class Pick:
    """An emitter that was chosen by importance.

    Attributes:
        index: Among the emitters of the scene.
        probability: Of the choice.
    """

    index: mi.UInt32
    probability: mi.Float


@dataclass(frozen=True)
class Choice:
    """How light is sampled.

    Attributes:
        u: What the direction to the emitter is sampled with, in [0, 1)^2.
        pick: The emitter. None: the scene chooses, with ``u``.
    """

    u: mi.Point2f
    pick: Pick | None = None


@dataclass(frozen=True)
class LightSampling:
    """Light sampling at one vertex.

    Attributes:
        scene: The scene.
        si: The vertex.
        importances: Of the emitters there. None: the scene chooses among them.
    """

    scene: mi.Scene
    si: mi.SurfaceInteraction3f
    importances: Importances | None = None

    def choose(self, u: mi.Point2f) -> Choice:
        """Choose an emitter with two random numbers in [0, 1)."""
        if self.importances is None:
            return Choice(u)
        index, probability, x = self.importances.choose(u.x)
        return Choice(mi.Point2f(x, u.y), Pick(index, probability))

    def ratio(self, choice: Choice) -> mi.Float:
        """Return the probability of a choice here over that where it was made."""
        pick = choice.pick
        if self.importances is None or pick is None:
            return mi.Float(1)
        here = self.importances.probability(pick.index)
        return dr.select(pick.probability > 0, here / pick.probability, 1)

    def sample(
        self, choice: Choice, ratio: mi.Float | float = 1.0, active: mi.Bool | bool = True
    ) -> tuple[mi.DirectionSample3f, mi.Spectrum]:
        """Sample a direction towards an emitter, like ``scene.sample_emitter_direction``.

        Args:
            choice: The emitter.
            ratio: What :meth:`ratio` says, where the choice was made at another vertex.
            active: Lanes of interest.

        Returns:
            The direction with the density that it has at this vertex, 0 where nothing arrives;
            and the radiance over the density with which the emitter *was* chosen.
        """
        scene, pick = self.scene, choice.pick
        if pick is None:
            return scene.sample_emitter_direction(self.si, choice.u, True, active)
        emitter = dr.gather(mi.EmitterPtr, scene.emitters_dr(), pick.index, active)
        ds, weight = emitter.sample_direction(self.si, choice.u, active)
        lit = active & (ds.pdf != 0) & (pick.probability > 0)
        lit &= ~scene.ray_test(self.si.spawn_ray_to(ds.p), lit)
        ds.pdf = dr.select(lit, ds.pdf * pick.probability * ratio, 0)
        return ds, dr.select(lit, weight / pick.probability, 0)

    def pdf(self, ds: mi.DirectionSample3f, active: mi.Bool | bool = True) -> mi.Float:
        """Return the density of a direction, like ``scene.pdf_emitter_direction``, in 1/sr."""
        if self.importances is None:
            return self.scene.pdf_emitter_direction(self.si, ds, active)
        index = self.importances.table.index(ds.emitter, active)
        probability = self.importances.probability(index)
        return ds.emitter.pdf_direction(self.si, ds, active) * probability
