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


@dataclass(frozen=True)
class Context:
    """What all paths of a render share.

    Attributes:
        emitters: The emitters of the scene.
        bsdf: Which lobes count: all.
        hide_emitters: Hide directly visible emitters.
    """

    emitters: Emitters
    bsdf: mi.BSDFContext
    hide_emitters: bool

    @property
    def scene(self) -> mi.Scene:
        """The scene."""
        return self.emitters.scene


def mis_weight(pdf_a: mi.Float, pdf_b: mi.Float) -> mi.Float:
    """Power heuristic (beta = 2) for a sample drawn with ``pdf_a``; 0 where undefined."""
    a2 = dr.square(pdf_a)
    w = a2 / dr.fma(pdf_b, pdf_b, a2)
    return dr.select(dr.isfinite(w), w, 0)


def survival_probability(throughput: mi.Spectrum, eta: mi.Float) -> mi.Float:
    """Russian roulette survival probability, as in Mitsuba's ``path``."""
    return dr.minimum(dr.max(throughput) * dr.square(eta), 0.95)


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
