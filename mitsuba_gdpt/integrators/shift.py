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
from typing import Any

import drjit as dr
import mitsuba as mi

from mitsuba_gdpt.integrators.estimators import (
    directly_visible,
    emission,
    glows,
    is_connectable,
    is_rough,
    mis_weight,
    survival_probability,
)

#: Modes of an offset path. The order matters: ``mode <= RECENT`` means "has work of its own".
REPLAY, RECENT, CONNECTED, DEAD = range(4)


@dataclass
class Bounce:
    """What the base path did at its vertex x_k and where it went: read by every offset path."""

    si: Any  # x_k
    rough: Any  # x_k has smooth (non-delta) lobes
    u_emitter: Any  # random numbers of this vertex, replayed by the offset paths
    u_lobe: Any
    u_direction: Any
    ds: Any  # emitter sample at x_k
    em_weight: Any  # its radiance / pdf
    lit: Any  # the emitter sample counts: x_k is rough and sees it
    nee_factor: Any  # light-sampling term without throughput: mis * f * em_weight
    nee: Any  # base contribution of that term
    bs: Any  # BSDF sample at x_k
    bsdf_weight: Any  # its f cos / pdf
    delta: Any  # it came from a delta lobe
    q: Any  # Russian roulette survival probability, 1 before rr_depth
    alive: Any  # survived with non-zero throughput: x_{k+1} exists
    ray: Any  # x_k -> x_{k+1}
    next_si: Any  # x_{k+1}; invalid where the ray escaped
    next_connectable: Any
    next_glows: Any  # there may be emission at x_{k+1}
    next_Le: Any  # emission at x_{k+1}, not MIS-weighted
    next_q: Any  # density with which light sampling at x_k would have found it, 1/sr
    emission_factor: Any  # BSDF-sampling term without throughput: mis * Le
    emission: Any  # base contribution of that term
    rr_active: Any  # Russian roulette applies at this depth


@dataclass
class Offset:
    """State of one offset path.

    While it replays, ``ray`` and ``hit`` describe its own vertex y_k. Just after reconnection
    (RECENT), only ``ray.d`` counts: the direction y_{k-1} -> x_k.
    """

    mode: Any
    ray: Any
    hit: Any
    T: Any
    r: Any
    eta: Any  # product of relative refractive indices, for Russian roulette
    met_surface: Any  # scattered at something that is not index-matched (for hide_emitters)


@dataclass
class _Step:
    """Outcome of one bounce: the new state and the emission found at the new vertex."""

    offset: Offset
    emission_factor: Any  # mis * Le as seen by this path


def start(scene: mi.Scene, ray: Any, hit: Any, base_Le: Any, enabled: Any, hide: bool) -> Any:
    """Begin an offset path at its primary hit.

    Args:
        scene: The scene.
        ray: Primary ray of the neighbouring pixel, same lens, time and wavelength samples.
        hit: Its preliminary intersection.
        base_Le: Radiance that the base path saw directly.
        enabled: False for lanes whose neighbour lies outside the film.
        hide: Whether directly visible emitters are hidden.

    Returns:
        The :class:`Offset` and the gradient of the directly visible light.
    """
    visible = enabled & hit.is_valid()
    lamp = glows(hit) & (visible if hide else enabled)
    si = hit.compute_surface_interaction(ray, mi.RayFlags.All, lamp)
    Le = directly_visible(scene, si, lamp)
    # An escaped path is gone before the terms of its first vertex are added.
    offset = Offset(
        mode=dr.select(visible, mi.UInt32(REPLAY), mi.UInt32(DEAD)),
        ray=mi.Ray3f(ray),
        hit=hit,
        T=dr.select(visible, mi.Spectrum(1), mi.Spectrum(0)),
        r=dr.select(visible, mi.Float(1), mi.Float(0)),
        eta=mi.Float(1),
        met_surface=mi.Bool(False),
    )
    return offset, 0.5 * (Le - base_Le)


def advance(
    scene: mi.Scene, ctx: mi.BSDFContext, offset: Offset, D: Any, b: Bounce, hide: bool
) -> tuple[Offset, Any]:
    """Move an offset path over the bounce ``b`` of its base path.

    Both terms of the estimator (light sampling at x_k, emission found at x_{k+1}) are added to
    the gradient. Returns the new state and the new ``D``.
    """
    return dr.if_stmt(
        (offset, D),
        offset.mode <= RECENT,
        lambda o, D: _shift(scene, ctx, o, D, b, hide),
        lambda o, D: _follow(o, D, b),
        label="shift",
    )


def _follow(o: Offset, D: Any, b: Bounce) -> tuple[Offset, Any]:
    """Connected offset path (everything is the base's, scaled by T) or dead one (T = r = 0)."""
    D = D + dr.rcp(1 + o.r) * (o.T * b.nee_factor - b.nee)
    step = _Step(
        Offset(o.mode, o.ray, o.hit, o.T * b.bsdf_weight, o.r, o.eta * b.bs.eta, o.met_surface),
        b.emission_factor,
    )
    return _finish(step, D, b)


def _shift(
    scene: mi.Scene, ctx: mi.BSDFContext, o: Offset, D: Any, b: Bounce, hide: bool
) -> tuple[Offset, Any]:
    """Offset path that is replaying, or that has just been reconnected to x_k."""
    replay = o.mode == REPLAY

    # The vertex: y_k of its own, or x_k seen from y_{k-1}
    own = o.hit.compute_surface_interaction(o.ray, mi.RayFlags.All, replay)
    si = dr.select(replay, own, _seen_along(b.si, o.ray.d))
    bsdf = si.bsdf()
    rough = is_rough(bsdf)

    # Light sampling: replayed with the base's random numbers, or the base's own sample.
    # No Jacobian: the emitter sample of y is a function of the same random numbers.
    ds, em_weight = scene.sample_emitter_direction(si, b.u_emitter, True, replay & rough)
    lit = dr.select(replay, rough & (ds.pdf != 0), b.lit)
    em_weight = dr.select(replay, em_weight, b.em_weight)
    f, pdf = bsdf.eval_pdf(ctx, si, si.to_local(dr.select(replay, ds.d, b.ds.d)), lit)
    mis = dr.select(
        dr.select(replay, ds.delta, b.ds.delta),
        1,
        mis_weight(dr.select(replay, ds.pdf, b.ds.pdf), pdf),
    )
    D = D + dr.rcp(1 + o.r) * (dr.select(lit, o.T * f * em_weight * mis, 0) - b.nee)

    # The next segment
    both_rough = b.rough & rough
    connect = replay & b.alive & ~b.delta & both_rough & b.next_connectable
    step = _reconnect(scene, ctx, o, si, bsdf, connect, b)
    step = dr.if_stmt(
        (step,),
        replay & b.alive & ~connect,
        lambda s: _replay(scene, ctx, o, si, bsdf, both_rough, b, hide),
        lambda s: s,
        label="replay",
    )
    return _finish(step, D, b)


def _reconnect(
    scene: mi.Scene, ctx: mi.BSDFContext, o: Offset, si: Any, bsdf: Any, connect: Any, b: Bounce
) -> _Step:
    """Connect y_k to x_{k+1} (``connect``), or pass on from x_k after a connection (the rest)."""
    surface = b.next_si.is_valid()
    to_next = b.next_si.p - si.p
    # An escaped ray is reconnected by its direction: the environment is at infinity.
    direction = dr.select(connect & surface, dr.normalize(to_next), b.ray.d)
    shadow_ray = dr.select(surface, si.spawn_ray_to(b.next_si.p), si.spawn_ray(direction))
    occluded = scene.ray_test(shadow_ray, connect)

    active = b.alive & ~b.delta & dr.select(connect, ~occluded, o.mode == RECENT)
    f, pdf = bsdf.eval_pdf(ctx, si, dr.select(connect, si.to_local(direction), b.bs.wo), active)
    J = dr.select(connect & surface, jacobian(b, direction, to_next), 1)
    active &= (pdf > 0) & dr.isfinite(J)
    scale = dr.select(active, J / b.bs.pdf, 0)

    # Emission at x_{k+1}: seen from y_k, or as the base saw it but with y's own BSDF density
    seen = _seen_along(b.next_si, direction)
    Le, q = emission(scene, seen, si, mi.Bool(False), active & connect & b.next_glows)
    Le, q = dr.select(connect, Le, b.next_Le), dr.select(connect, q, b.next_q)

    ray = mi.Ray3f(o.ray)
    ray.d = direction
    mode = dr.select(connect, mi.UInt32(RECENT), mi.UInt32(CONNECTED))
    offset = Offset(
        mode=dr.select(active, mode, mi.UInt32(DEAD)),
        ray=ray,
        hit=o.hit,
        T=o.T * f * scale,
        r=o.r * pdf * scale,
        eta=o.eta * b.bs.eta,
        met_surface=o.met_surface,
    )
    return _Step(offset, Le * mis_weight(pdf, q))


def jacobian(b: Bounce, direction: Any, to_next: Any) -> Any:
    """Solid-angle Jacobian dw_y / dw_x of reconnecting to x_{k+1}, with geometric normals."""
    n = b.next_si.n
    cos_y = dr.abs(dr.dot(n, direction))
    cos_x = dr.abs(dr.dot(n, b.ray.d))
    return cos_y / cos_x * dr.squared_norm(b.next_si.p - b.si.p) / dr.squared_norm(to_next)


def _replay(
    scene: mi.Scene,
    ctx: mi.BSDFContext,
    o: Offset,
    si: Any,
    bsdf: Any,
    both_rough: Any,
    b: Bounce,
    hide: bool,
) -> _Step:
    """Sample y_{k+1} with the base's random numbers: T takes y's own weight, r is unchanged."""
    bs, weight = bsdf.sample(ctx, si, b.u_lobe, b.u_direction)
    delta = mi.has_flag(bs.sampled_type, mi.BSDFFlags.Delta)
    active = (delta == b.delta) & (dr.max(weight) > 0)
    ray = si.spawn_ray(si.to_world(bs.wo))
    hit = scene.ray_intersect_preliminary(ray, coherent=False, active=active)
    # Not invertible: seen as a base path, y would connect this segment instead of replaying it.
    active &= delta | ~both_rough | ~is_connectable(hit)

    met_surface = o.met_surface | ~mi.has_flag(bs.sampled_type, mi.BSDFFlags.Null)
    lit = active & glows(hit)
    if hide:
        lit &= hit.is_valid() | met_surface
    next_si = hit.compute_surface_interaction(ray, mi.RayFlags.All, lit)
    Le, q = emission(scene, next_si, si, delta, lit)
    offset = Offset(
        mode=dr.select(active, mi.UInt32(REPLAY), mi.UInt32(DEAD)),
        ray=ray,
        hit=hit,
        T=o.T * weight,
        r=mi.Float(o.r),
        eta=o.eta * bs.eta,
        met_surface=met_surface,
    )
    return _Step(offset, Le * mis_weight(bs.pdf, q))


def _finish(step: _Step, D: Any, b: Bounce) -> tuple[Offset, Any]:
    """Apply the base's Russian roulette, bury the dead, add the emission term of x_{k+1}."""
    o = step.offset
    # y as a base path ends at a zero throughput, so as an offset path it must carry no weight.
    alive = (o.mode != DEAD) & (dr.max(o.T) > 0) & (o.r > 0) & dr.isfinite(o.r)
    # Had y been the base path, its throughput would have been T / r.
    q_y = survival_probability(o.T / dr.select(alive, o.r, 1), o.eta)
    T = dr.select(alive, o.T / b.q, 0)
    r = dr.select(alive, dr.select(b.rr_active, o.r * q_y / b.q, o.r), 0)
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
        met_surface=o.met_surface,
    ), D


def _seen_along(si: Any, direction: Any) -> Any:
    """Return a copy of a surface interaction reached along ``direction``."""
    result = mi.SurfaceInteraction3f(si)
    result.wi = dr.select(si.is_valid(), si.to_local(-direction), -direction)
    return result
