"""Pieces of the path-tracing estimator that base and offset paths must share exactly.

A gradient is a difference of two estimators, so any difference between the two implementations
would be a bias: both call these functions.
"""

from __future__ import annotations

from dataclasses import dataclass

import drjit as dr
import mitsuba as mi

from mitsuba_gdpt.integrators.emitters import Emitters, LightSampling

#: Directions that are drawn with a larger density, 1/sr, are replayed: a reconnected neighbour
#: would look beside the peak of its lobe. About that of roughness 0.14, seen from above.
PEAK = 4.0

#: A path survives Russian roulette for sure until it has lost this part of its throughput.
_LOSS = 0.5
#: From this depth on it may end even so: what is caught in glass loses nothing.
_DEEP, _MOST = 16, 0.95


@dataclass(frozen=True)
class Context:
    """What all paths of a render share.

    Attributes:
        emitters: The emitters of the scene.
        bsdf: Which lobes count: all.
        hide_emitters: Hide directly visible emitters.
        roulette: When paths end.
    """

    emitters: Emitters
    bsdf: mi.BSDFContext
    hide_emitters: bool
    roulette: Roulette

    @property
    def scene(self) -> mi.Scene:
        """The scene."""
        return self.emitters.scene


def mis_weight(pdf_a: mi.Float, pdf_b: mi.Float) -> mi.Float:
    """Power heuristic (beta = 2) for a sample drawn with ``pdf_a``; 0 where undefined."""
    a2 = dr.square(pdf_a)
    w = a2 / dr.fma(pdf_b, pdf_b, a2)
    return dr.select(dr.isfinite(w), w, 0)


@dataclass(frozen=True)
class Roulette:
    """Russian roulette by what a path has lost since it left the surface that the camera sees.

    Mitsuba's ``path`` takes the throughput itself. But a dark surface makes all of its pixel dark,
    so that what is seen there needs paths as long as on a bright one; and while little is lost,
    ending a path makes more noise than its time is worth.

    Attributes:
        depth: At which it begins.
    """

    depth: int

    def reference(
        self, before: mi.Float, beta: mi.Spectrum, eta: mi.Float, delta: mi.Bool
    ) -> mi.Float:
        """Return what the throughput of a path is compared with.

        Args:
            before: What this returned at its previous vertex; 0 at the first.
            beta: Its throughput after this vertex.
            eta: Product of the relative refractive indices until there.
            delta: Whether this vertex is a mirror or glass, which the camera looks through.

        Returns:
            The largest component after the first vertex that scatters light; 0 before.
        """
        return dr.select((before == 0) & ~delta, _brightness(beta, eta), before)

    def survival(
        self, beta: mi.Spectrum, eta: mi.Float, reference: mi.Float, depth: mi.UInt32
    ) -> mi.Float:
        """Return the probability to survive, 1 before roulette begins.

        Args:
            beta: Throughput of the path.
            eta: Product of the relative refractive indices.
            reference: See :meth:`reference`.
            depth: Of the path.
        """
        whole = dr.select(reference > 0, reference, 1) * _LOSS
        most = dr.select(depth >= _DEEP, mi.Float(_MOST), 1)
        q = dr.minimum(_brightness(beta, eta) / whole, most)
        return dr.select(depth >= self.depth, q, 1)


def _brightness(beta: mi.Spectrum, eta: mi.Float) -> mi.Float:
    """Return the largest component, without what refraction does to radiance."""
    return dr.max(beta) * dr.square(eta)


def is_rough(flags: mi.UInt32) -> mi.Bool:
    """Whether a BSDF has smooth (non-delta) lobes, whichever lobe a sample may pick."""
    return mi.has_flag(flags, mi.BSDFFlags.Smooth)


def is_connectable(hit: mi.PreliminaryIntersection3f, pdf: mi.Float) -> mi.Bool:
    """Whether a segment to this hit may be reconnected: rough, an emitter, or escaped.

    Args:
        hit: Where the segment ends.
        pdf: Density of its direction, 1/sr.
    """
    return is_spread(pdf) & (glows(hit) | is_rough(hit.shape.bsdf().flags()))


def is_spread(pdf: mi.Float) -> mi.Bool:
    """Whether a direction drawn with this density (1/sr) comes from no sharp peak."""
    return pdf <= PEAK


def glows(hit: mi.PreliminaryIntersection3f) -> mi.Bool:
    """Whether there may be emission to find at a hit: an emitter, or an escaped ray."""
    return ~hit.is_valid() | (hit.shape.emitter() != None)  # noqa: E711 - lane by lane


def directly_visible(scene: mi.Scene, si: mi.SurfaceInteraction3f, active: mi.Bool) -> mi.Spectrum:
    """Return the radiance that a camera ray sees at its first vertex."""
    return si.emitter(scene, active).eval(si, active)


def emission(
    at: LightSampling, si: mi.SurfaceInteraction3f, delta: mi.Bool, active: mi.Bool
) -> tuple[mi.Spectrum, mi.Float]:
    """Return the radiance that ``si`` emits towards a vertex, and its light-sampling density.

    Args:
        at: Light sampling at that vertex, the previous one of the path.
        si: Vertex on an emitter, or an escaped ray (then the environment answers).
        delta: The direction was sampled from a delta lobe, which light sampling cannot do.
        active: Lanes of interest. Emitters are rare, so the code is skipped where none is hit.

    Returns:
        ``Le`` (radiance, not MIS-weighted) and ``q`` (1/sr), 0 where inactive.
    """

    def evaluate(Le: mi.Spectrum, q: mi.Float) -> tuple[mi.Spectrum, mi.Float]:
        emitter = si.emitter(at.scene)
        found = emitter != None  # noqa: E711
        ds = mi.DirectionSample3f(at.scene, si, at.si)
        q = at.pdf(ds, found & ~delta)
        return emitter.eval(si, found), dr.select(delta, 0, q)

    return dr.if_stmt(
        (mi.Spectrum(0), mi.Float(0)), active, evaluate, lambda Le, q: (Le, q), label="emission"
    )
