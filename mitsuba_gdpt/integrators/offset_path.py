"""Hybrid shift mapping: random replay until a connectable segment, then reconnection.

An *offset path* y starts one pixel away from its base path x and is dragged along while x is
traced. Notation, as in the literature (Kettunen et al. 2015, "Gradient-Domain Path Tracing";
Lin et al. 2022, "Generalized Resampled Importance Sampling", for the hybrid shift):

=========  ====================================================================================
``T``      throughput of the offset path, J f(y) / p(x)
``r``      density ratio, J p(y) / p(x); the MIS weight of the base in its pair is 1 / (1 + r)
``J``      Jacobian |dT/dx| of the shift. It lives inside ``T`` and ``r`` (the *ratio form*): no
           product of densities is ever stored, so float32 is enough
``D``      accumulated gradient: sum of (C_y - C_x) / (1 + r) over the terms of the estimator
=========  ====================================================================================

Why the sums are unbiased: for every pair (x, y) either both directions x -> y and y -> x are
possible, with weights that add up to one, or neither is. Hence each rule below treats both paths
symmetrically, and whatever ends y as a base path (escaping, a zero throughput) must kill y as an
offset path too, *before* the next term is added.
"""

from __future__ import annotations

from dataclasses import dataclass

import drjit as dr
import mitsuba as mi

from mitsuba_gdpt.integrators.emitters import Choice, LightSampling
from mitsuba_gdpt.integrators.estimators import (
    Context,
    directly_visible,
    emission,
    glows,
    is_connectable,
    is_rough,
    is_spread,
    mis_weight,
)

#: Modes of an offset path. The order matters: ``mode <= RECENT`` means "has work of its own".
REPLAY, RECENT, CONNECTED, DEAD = range(4)


@dataclass
class Bounce:
    """What the base path did at its vertex x_k and where it went: read by every offset path."""

    si: mi.SurfaceInteraction3f  # x_k
    rough: mi.Bool  # x_k has smooth (non-delta) lobes
    choice: Choice  # emitter to sample, and random numbers: offset paths take the same
    u_lobe: mi.Float
    u_direction: mi.Point2f
    ds: mi.DirectionSample3f  # emitter sample at x_k
    em_weight: mi.Spectrum  # its radiance / pdf
    lit: mi.Bool  # the emitter sample counts: x_k is rough and sees it
    nee_factor: mi.Spectrum  # light-sampling term without throughput: mis * f * em_weight
    nee: mi.Spectrum  # base contribution of that term
    bs: mi.BSDFSample3f  # BSDF sample at x_k
    bsdf_weight: mi.Spectrum  # its f cos / pdf
    delta: mi.Bool  # it came from a delta lobe
    q: mi.Float  # Russian roulette survival probability, 1 before rr_depth
    alive: mi.Bool  # survived with non-zero throughput: x_{k+1} exists
    ray: mi.Ray3f  # x_k -> x_{k+1}
    next_si: mi.SurfaceInteraction3f  # x_{k+1}; invalid where the ray escaped
    next_connectable: mi.Bool
    next_glows: mi.Bool  # there may be emission at x_{k+1}
    next_Le: mi.Spectrum  # emission at x_{k+1}, not MIS-weighted
    next_q: mi.Float  # density with which light sampling at x_k would have found it, 1/sr
    emission_factor: mi.Spectrum  # BSDF-sampling term without throughput: mis * Le
    emission: mi.Spectrum  # base contribution of that term
    depth: mi.UInt32  # of x_{k+1}


@dataclass
class Offset:
    """State of one offset path.

    While it replays, ``ray`` and ``hit`` describe its own vertex y_k. Just after reconnection
    (RECENT), only ``ray.d`` counts: the direction y_{k-1} -> x_k.
    """

    mode: mi.UInt32
    ray: mi.Ray3f
    hit: mi.PreliminaryIntersection3f
    T: mi.Spectrum
    r: mi.Float
    eta: mi.Float  # product of relative refractive indices, for Russian roulette
    reference: mi.Float  # of its throughput as a base path, for Russian roulette
    met_surface: mi.Bool  # scattered at something that is not index-matched (for hide_emitters)


@dataclass
class _Step:
    """Outcome of one bounce: the new state and the emission found at the new vertex."""

    offset: Offset
    emission_factor: mi.Spectrum  # mis * Le as seen by this path


def start(
    ctx: Context,
    ray: mi.Ray3f,
    hit: mi.PreliminaryIntersection3f,
    base_Le: mi.Spectrum,
    enabled: mi.Bool,
) -> tuple[Offset, mi.Spectrum]:
    """Begin an offset path at its primary hit.

    Args:
        ctx: What all paths share.
        ray: Primary ray of the neighbouring pixel, same lens, time and wavelength samples.
        hit: Its preliminary intersection.
        base_Le: Radiance that the base path saw directly.
        enabled: False for lanes whose neighbour lies outside the film.

    Returns:
        The :class:`Offset` and the gradient of the directly visible light.
    """
    visible = enabled & hit.is_valid()
    lamp = glows(hit) & (visible if ctx.hide_emitters else enabled)
    si = hit.compute_surface_interaction(ray, mi.RayFlags.All, lamp)
    Le = directly_visible(ctx.scene, si, lamp)
    # An escaped path is gone before the terms of its first vertex are added.
    offset = Offset(
        mode=dr.select(visible, mi.UInt32(REPLAY), mi.UInt32(DEAD)),
        ray=mi.Ray3f(ray),
        hit=hit,
        T=dr.select(visible, mi.Spectrum(1), mi.Spectrum(0)),
        r=dr.select(visible, mi.Float(1), mi.Float(0)),
        eta=mi.Float(1),
        reference=mi.Float(0),
        met_surface=mi.Bool(False),
    )
    return offset, 0.5 * (Le - base_Le)


def advance(ctx: Context, offset: Offset, D: mi.Spectrum, b: Bounce) -> tuple[Offset, mi.Spectrum]:
    """Move an offset path over the bounce ``b`` of its base path.

    Both terms of the estimator (light sampling at x_k, emission found at x_{k+1}) are added to
    the gradient. Returns the new state and the new ``D``.

    Each mode has a branch of its own, because a branch that no lane of a SIMD packet (or warp)
    takes costs nothing, and neighbouring lanes are samples of one pixel.
    """

    def own(
        o: Offset, C: mi.Spectrum, ratio: mi.Float, step: _Step
    ) -> tuple[mi.Spectrum, mi.Float, _Step]:
        return dr.if_stmt(
            (o, C, ratio, step),
            o.mode == REPLAY,
            lambda o, C, ratio, step: (o, *_at_own_vertex(ctx, o, step, b)),
            lambda o, C, ratio, step: (o, *_at_shared_vertex(ctx, o, b)),
            label="unconnected",
        )[1:]

    # Connected offset path: everything is the base's, scaled by T. Dead one: T = r = 0.
    step = _Step(
        Offset(
            mode=mi.UInt32(offset.mode),
            ray=mi.Ray3f(offset.ray),
            hit=mi.PreliminaryIntersection3f(offset.hit),
            T=offset.T * b.bsdf_weight,
            r=mi.Float(offset.r),
            eta=offset.eta * b.bs.eta,
            reference=mi.Float(offset.reference),
            met_surface=mi.Bool(offset.met_surface),
        ),
        mi.Spectrum(b.emission_factor),
    )
    _, C, ratio, step = dr.if_stmt(
        (offset, offset.T * b.nee_factor, mi.Float(1), step),
        offset.mode <= RECENT,
        lambda o, C, ratio, step: (o, *own(o, C, ratio, step)),
        lambda o, C, ratio, step: (o, C, ratio, step),
        label="shift",
    )
    D = D + dr.rcp(1 + offset.r * ratio) * (C - b.nee)
    return _finish(ctx, step, D, b)


def _at_own_vertex(
    ctx: Context, o: Offset, step: _Step, b: Bounce
) -> tuple[mi.Spectrum, mi.Float, _Step]:
    """Offset path at a vertex y_k of its own: light sampling, then reconnect or replay.

    Returns its light-sampling contribution (Spectrum), the ratio of the probabilities with which
    the emitter is chosen at y_k and x_k, and the step to the next vertex, which replaces ``step``.
    """
    si = o.hit.compute_surface_interaction(o.ray, mi.RayFlags.All)
    bsdf = si.bsdf()
    flags = bsdf.flags()
    rough = is_rough(flags)
    light = ctx.emitters.at(si, flags)
    ratio = light.ratio(b.choice)

    def light_sampling(C: mi.Spectrum) -> mi.Spectrum:
        # Replayed with the base's random numbers: no Jacobian, because the emitter sample is the
        # same function of the same numbers for both paths. Only the choice of the emitter, which
        # is the base's as well, has another probability here.
        ds, em_weight = light.sample(b.choice, ratio)
        lit = ds.pdf != 0
        f, pdf = bsdf.eval_pdf(ctx.bsdf, si, si.to_local(ds.d), lit)
        mis = dr.select(ds.delta, 1, mis_weight(ds.pdf, pdf))
        return dr.select(lit, o.T * f * em_weight * mis, 0)

    C = dr.if_stmt((mi.Spectrum(0),), rough, light_sampling, lambda C: C, label="replay_nee")

    both_rough = b.rough & rough
    connect = b.alive & ~b.delta & both_rough & b.next_connectable
    _, step = dr.if_stmt(
        (o, step),
        connect,
        lambda o, step: (o, _reconnect(ctx, o, bsdf, light, b)),
        lambda o, step: (o, _replay(ctx, o, bsdf, light, both_rough, b)),
        label="reconnect",
    )
    return C, ratio, step


def _reconnect(ctx: Context, o: Offset, bsdf: mi.BSDFPtr, light: LightSampling, b: Bounce) -> _Step:
    """Connect y_k to x_{k+1}."""
    si = light.si
    surface = b.next_si.is_valid()
    # An escaped ray is reconnected by its direction: the environment is at infinity.
    ray = dr.select(surface, si.spawn_ray_to(b.next_si.p), si.spawn_ray(b.ray.d))
    visible = ~ctx.scene.ray_test(ray)
    # Rays begin off the surface, by more than a whole scene where it is small or far away. As a
    # base path, y would leave from there too.
    direction = ray.d

    f, pdf = bsdf.eval_pdf(ctx.bsdf, si, si.to_local(direction), visible)
    J = dr.select(surface, jacobian(b, direction, b.next_si.p - ray.o), 1)
    # Not invertible: seen as a base path, y would replay a segment from a sharp peak.
    active = visible & (pdf > 0) & is_spread(pdf) & dr.isfinite(J)
    # And from the same side: the point may lie between the surface and where rays begin.
    active &= ~surface | (dr.dot(si.n, b.next_si.p - si.p) * dr.dot(si.n, direction) >= 0)
    scale = dr.select(active, J / b.bs.pdf, 0)

    seen = _seen_along(b.next_si, direction)
    Le, q = emission(light, seen, mi.Bool(False), active & b.next_glows)

    arriving = mi.Ray3f(o.ray)
    arriving.d = direction
    offset = Offset(
        mode=dr.select(active, mi.UInt32(RECENT), mi.UInt32(DEAD)),
        ray=arriving,
        hit=o.hit,
        T=o.T * f * scale,
        r=o.r * pdf * scale,
        eta=o.eta * b.bs.eta,
        reference=mi.Float(o.reference),
        met_surface=o.met_surface,
    )
    return _Step(offset, Le * mis_weight(pdf, q))


def _at_shared_vertex(ctx: Context, o: Offset, b: Bounce) -> tuple[mi.Spectrum, mi.Float, _Step]:
    """Offset path at x_k, to which it has just been connected, arriving from y_{k-1}.

    Both directions of x_k are the base's, but its BSDF is seen from another side. The emitter is
    chosen with the same probability: it depends on the side only where nothing passes through.
    """
    si = _seen_along(b.si, o.ray.d)
    bsdf = si.bsdf()
    f, pdf = bsdf.eval_pdf(ctx.bsdf, si, si.to_local(b.ds.d), b.lit)
    mis = dr.select(b.ds.delta, 1, mis_weight(b.ds.pdf, pdf))
    C = dr.select(b.lit, o.T * f * b.em_weight * mis, 0)

    active = b.alive & ~b.delta
    f, pdf = bsdf.eval_pdf(ctx.bsdf, si, b.bs.wo, active)
    active &= pdf > 0
    scale = dr.select(active, dr.rcp(b.bs.pdf), 0)
    offset = Offset(
        mode=dr.select(active, mi.UInt32(CONNECTED), mi.UInt32(DEAD)),
        ray=o.ray,
        hit=o.hit,
        T=o.T * f * scale,
        r=o.r * pdf * scale,
        eta=o.eta * b.bs.eta,
        reference=mi.Float(o.reference),
        met_surface=o.met_surface,
    )
    return C, mi.Float(1), _Step(offset, b.next_Le * mis_weight(pdf, b.next_q))


def jacobian(b: Bounce, direction: mi.Vector3f, to_next: mi.Vector3f) -> mi.Float:
    """Solid-angle Jacobian dw_y / dw_x of reconnecting to x_{k+1}, with geometric normals."""
    n = b.next_si.n
    cos_y = dr.abs(dr.dot(n, direction))
    cos_x = dr.abs(dr.dot(n, b.ray.d))
    return cos_y / cos_x * dr.squared_norm(b.next_si.p - b.ray.o) / dr.squared_norm(to_next)


def _replay(
    ctx: Context,
    o: Offset,
    bsdf: mi.BSDFPtr,
    light: LightSampling,
    both_rough: mi.Bool,
    b: Bounce,
) -> _Step:
    """Sample y_{k+1} with the base's random numbers: T takes y's own weight, r is unchanged."""
    si = light.si
    bs, weight = bsdf.sample(ctx.bsdf, si, b.u_lobe, b.u_direction)
    delta = mi.has_flag(bs.sampled_type, mi.BSDFFlags.Delta)
    active = b.alive & (delta == b.delta) & (dr.max(weight) > 0)
    ray = si.spawn_ray(si.to_world(bs.wo))
    hit = ctx.scene.ray_intersect_preliminary(ray, coherent=False, active=active)
    # Not invertible: seen as a base path, y would connect this segment instead of replaying it.
    active &= delta | ~both_rough | ~is_connectable(hit, bs.pdf)

    met_surface = o.met_surface | ~mi.has_flag(bs.sampled_type, mi.BSDFFlags.Null)
    lit = active & glows(hit)
    if ctx.hide_emitters:
        lit &= hit.is_valid() | met_surface
    next_si = hit.compute_surface_interaction(ray, mi.RayFlags.All, lit)
    Le, q = emission(light, next_si, delta, lit)
    offset = Offset(
        mode=dr.select(active, mi.UInt32(REPLAY), mi.UInt32(DEAD)),
        ray=ray,
        hit=hit,
        T=o.T * weight,
        r=mi.Float(o.r),
        eta=o.eta * bs.eta,
        reference=mi.Float(o.reference),
        met_surface=met_surface,
    )
    return _Step(offset, Le * mis_weight(bs.pdf, q))


def _finish(ctx: Context, step: _Step, D: mi.Spectrum, b: Bounce) -> tuple[Offset, mi.Spectrum]:
    """Apply the base's Russian roulette, bury the dead, add the emission term of x_{k+1}."""
    o = step.offset
    # y as a base path ends at a zero throughput, so as an offset path it must carry no weight.
    alive = (o.mode != DEAD) & (dr.max(o.T) > 0) & (o.r > 0) & dr.isfinite(o.r)
    # Had y been the base path, its throughput would have been T / r.
    beta_y = o.T / dr.select(alive, o.r, 1)
    reference = ctx.roulette.reference(o.reference, beta_y, o.eta, b.delta)
    q_y = ctx.roulette.survival(beta_y, o.eta, reference, b.depth)
    T = dr.select(alive, o.T / b.q, 0)
    r = dr.select(alive, o.r * q_y / b.q, 0)
    D = D + dr.rcp(1 + r) * (T * step.emission_factor - b.emission)

    # An escaped path had its emission and is gone before the terms of its next vertex.
    alive &= (o.mode != REPLAY) | o.hit.is_valid()
    return Offset(
        mode=dr.select(alive, o.mode, mi.UInt32(DEAD)),
        ray=o.ray,
        hit=o.hit,
        T=dr.select(alive, T, 0),
        r=dr.select(alive, r, 0),
        eta=o.eta,
        reference=reference,
        met_surface=o.met_surface,
    ), D


def _seen_along(si: mi.SurfaceInteraction3f, direction: mi.Vector3f) -> mi.SurfaceInteraction3f:
    """Return a copy of a surface interaction reached along ``direction``."""
    result = mi.SurfaceInteraction3f(si)
    result.wi = dr.select(si.is_valid(), si.to_local(-direction), -direction)
    return result
