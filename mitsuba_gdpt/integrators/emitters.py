"""Light sampling at the vertices of base and offset paths.

Mitsuba's ``path`` chooses among emitters by their ``sampling_weight`` alone, usually all the same.
A far lamp, a weak one and one that shines the other way then take as many shadow rays as the one
that lights the vertex. With an :class:`EmitterTable` the choice follows what each would send there,
and with an :class:`EnvironmentTable` so do directions to the environment.

An offset path takes the emitter of its base, not that which the same random number would choose at
its own vertex: where the two differ, the gradient would be the difference of unrelated lamps. The
probability of the choice is another one there instead, a ratio of densities like any other.
"""

from __future__ import annotations

from dataclasses import dataclass

import drjit as dr
import mitsuba as mi

from mitsuba_gdpt.integrators.emitter_table import EmitterTable, Importances
from mitsuba_gdpt.integrators.environment_table import EnvironmentTable, Spot


@dataclass(frozen=True)
class Emitters:
    """The emitters of a scene.

    Attributes:
        scene: The scene.
        table: What is known about each emitter; None leaves the choice to the scene.
        environment: What is known about the environment; None leaves directions to it. Not without
            a table, unless it is the only emitter.
    """

    scene: mi.Scene
    table: EmitterTable | None = None
    environment: EnvironmentTable | None = None

    def at(self, si: mi.SurfaceInteraction3f, flags: mi.UInt32) -> LightSampling:
        """Return the light sampling of a vertex.

        Args:
            si: The vertex.
            flags: Those of its BSDF.
        """
        importances = None if self.table is None else self.table.at(si, flags)
        sky = (
            None
            if self.environment is None
            else Sky(self.environment, self.environment.side(si, flags))
        )
        return LightSampling(self.scene, si, importances, sky)


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
        pick: The emitter. None: the scene chooses, with ``u``, unless there is a spot.
        spot: The direction, where that is to the environment. None: that chooses, with ``u``.
    """

    u: mi.Point2f
    pick: Pick | None = None
    spot: Spot | None = None


@dataclass(frozen=True)
class Sky:
    """The environment as a vertex looks at it.

    Attributes:
        table: What is known about it.
        side: That the vertex looks to.
    """

    table: EnvironmentTable
    side: mi.UInt32

    def density(self, spot: Spot) -> mi.Float:
        """Return the density of a direction here, in 1/sr; 0 where none was chosen."""
        return self.table.density_of(self.side, spot.place, spot.density > 0)


@dataclass(frozen=True)
class LightSampling:
    """Light sampling at one vertex.

    Attributes:
        scene: The scene.
        si: The vertex.
        importances: Of the emitters there. None: the scene chooses among them.
        sky: The environment as seen from there. None: it chooses directions itself.
    """

    scene: mi.Scene
    si: mi.SurfaceInteraction3f
    importances: Importances | None = None
    sky: Sky | None = None

    def choose(self, u: mi.Point2f) -> Choice:
        """Choose an emitter, or a direction to the environment, with two random numbers."""
        pick, spot = None, None
        if self.importances is not None:
            index, probability, x = self.importances.choose(u.x)
            pick, u = Pick(index, probability), mi.Point2f(x, u.y)
        if self.sky is not None:
            spot = self.sky.table.choose(self.sky.side, u, self._is_environment(pick))
        return Choice(u, pick, spot)

    def ratio(self, choice: Choice) -> mi.Float:
        """Return the density of a choice here over that where it was made."""
        ratio, pick, spot = mi.Float(1), choice.pick, choice.spot
        if self.importances is not None and pick is not None:
            here = self.importances.probability(pick.index)
            ratio = dr.select(pick.probability > 0, here / pick.probability, 1)
        if self.sky is not None and spot is not None:
            ratio *= dr.select(spot.density > 0, self.sky.density(spot) / spot.density, 1)
        return ratio

    def sample(
        self, choice: Choice, ratio: mi.Float | float = 1.0, active: mi.Bool | bool = True
    ) -> tuple[mi.DirectionSample3f, mi.Spectrum]:
        """Sample a direction towards an emitter, like ``scene.sample_emitter_direction``.

        Args:
            choice: The emitter, and the direction to the environment.
            ratio: What :meth:`ratio` says, where the choice was made at another vertex.
            active: Lanes of interest.

        Returns:
            The direction with the density that it has at this vertex, 0 where nothing arrives;
            and the radiance over the density with which it *was* chosen.
        """
        scene, pick = self.scene, choice.pick
        if pick is None and choice.spot is None:
            return scene.sample_emitter_direction(self.si, choice.u, True, active)
        ds, weight = self._direction(choice, active)
        probability = mi.Float(1) if pick is None else pick.probability
        lit = active & (ds.pdf != 0) & (probability > 0)
        lit &= ~scene.ray_test(self.si.spawn_ray_to(ds.p), lit)
        ds.pdf = dr.select(lit, ds.pdf * probability * ratio, 0)
        return ds, dr.select(lit, weight / probability, 0)

    def pdf(self, ds: mi.DirectionSample3f, active: mi.Bool | bool = True) -> mi.Float:
        """Return the density of a direction, like ``scene.pdf_emitter_direction``, in 1/sr."""
        if self.importances is None and self.sky is None:
            return self.scene.pdf_emitter_direction(self.si, ds, active)
        pick, probability = None, mi.Float(1)
        if self.importances is not None:
            index = self.importances.table.index(ds.emitter, active)
            probability = self.importances.probability(index)
            pick = Pick(index, probability)
        outside = self._is_environment(pick)
        density = ds.emitter.pdf_direction(self.si, ds, active & ~outside)
        if self.sky is not None:
            inside = self.sky.table.pdf(self.sky.side, ds.d, active & outside)
            density = dr.select(outside, inside, density)
        return density * probability

    def _is_environment(self, pick: Pick | None) -> mi.Bool:
        """Whether an emitter is the environment, and directions to it are chosen here."""
        if self.sky is None:
            return mi.Bool(False)
        return mi.Bool(True) if pick is None else pick.index == self.sky.table.index

    def _direction(
        self, choice: Choice, active: mi.Bool | bool
    ) -> tuple[mi.DirectionSample3f, mi.Spectrum]:
        """Sample a direction towards the emitter that was chosen, whatever is in between."""
        pick, spot, sky = choice.pick, choice.spot, self.sky

        def outside() -> tuple[mi.DirectionSample3f, mi.Spectrum]:
            assert sky is not None
            assert spot is not None
            return sky.table.sample(self.si, spot, active)

        if pick is None:
            return outside()
        emitter = dr.gather(mi.EmitterPtr, self.scene.emitters_dr(), pick.index, active)
        if sky is None or spot is None:
            return emitter.sample_direction(self.si, choice.u, active)
        is_outside = self._is_environment(pick)
        found = emitter.sample_direction(self.si, choice.u, active & ~is_outside)
        return dr.if_stmt(
            found, is_outside, lambda *_: outside(), lambda *found: found, label="environment"
        )
