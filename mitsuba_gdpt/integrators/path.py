"""The base path: Mitsuba's ``path``, with hooks for offset paths and features.

One symbolic loop advances the base path by a bounce and then lets every offset path follow. Once
the last offset path of a SIMD packet (or warp) is connected or dead, its branch is skipped and
only base-path work remains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import drjit as dr
import mitsuba as mi

from mitsuba_gdpt.integrators import features as feat
from mitsuba_gdpt.integrators import offset_path
from mitsuba_gdpt.integrators.emitters import Emitters
from mitsuba_gdpt.integrators.estimators import (
    Context,
    Roulette,
    directly_visible,
    emission,
    glows,
    is_connectable,
    is_rough,
    mis_weight,
)
from mitsuba_gdpt.integrators.sampling import Sampler


@dataclass(frozen=True)
class PathConfig:
    """Parameters of the estimator; constants of the compiled kernel.

    Attributes:
        max_depth: Longest path depth as in ``path``; 2**32 - 1 for infinite.
        rr_depth: Depth at which Russian roulette begins.
        hide_emitters: Hide directly visible emitters.
        features: What to record beside the radiance.
        features_only: End paths at the feature vertex, with the light that is seen until there.
    """

    max_depth: int
    rr_depth: int
    hide_emitters: bool
    features: feat.FeatureConfig
    features_only: bool = False


@dataclass
class PrimaryHit:
    """Where the camera rays of one pixel (shifted by whole pixels) hit the scene."""

    ray: mi.Ray3f
    hit: mi.PreliminaryIntersection3f
    enabled: mi.Bool  # False where the neighbour lies outside the film


@dataclass
class _State:
    """Loop state: the base path at x_k, its offset paths and what has been gathered."""

    si: mi.SurfaceInteraction3f
    beta: mi.Spectrum
    L: mi.Spectrum
    eta: mi.Float
    reference: mi.Float  # of its throughput, for Russian roulette
    depth: mi.UInt32
    active: mi.Bool
    met_surface: mi.Bool  # scattered at something that is not index-matched
    offsets: list[offset_path.Offset]
    D: list[mi.Spectrum]
    features: feat.Features


@dataclass
class PathSample:
    """Result of tracing one base path per lane.

    Attributes:
        L: Radiance.
        valid: Whether the path met a surface or a visible environment (alpha channel).
        D: One gradient per offset path.
        features: Recorded features.
        bounces: How often the base path was scattered.
    """

    L: mi.Spectrum
    valid: mi.Bool
    D: list[mi.Spectrum]
    features: feat.Features
    bounces: mi.UInt32


def trace(
    emitters: Emitters,
    sampler: Sampler,
    base: PrimaryHit,
    neighbours: list[PrimaryHit],
    config: PathConfig,
) -> PathSample:
    """Trace base paths and their offset paths.

    Args:
        emitters: The emitters of the scene, and the scene.
        sampler: Source of random numbers, positioned after the camera dimensions.
        base: Primary hits of the base paths.
        neighbours: Primary hits of the offset paths, one per shift.
        config: Parameters of the estimator.
    """
    hide = config.hide_emitters
    scene = emitters.scene
    ctx = Context(emitters, mi.BSDFContext(), hide, Roulette(config.rr_depth))
    lit = config.max_depth > 0

    # ---- Primary vertex: directly visible light and features
    si = base.hit.compute_surface_interaction(base.ray, mi.RayFlags.All, base.enabled)
    seen = si.is_valid() if hide else mi.Bool(True)
    Le = directly_visible(scene, si, base.enabled & seen & lit)
    offsets, D = [], []
    for n in neighbours:
        offset, gradient = offset_path.start(ctx, n.ray, n.hit, Le, n.enabled & lit)
        offsets.append(offset)
        D.append(gradient)
    state = _State(
        si=si,
        beta=mi.Spectrum(1),
        L=Le,
        eta=mi.Float(1),
        reference=mi.Float(0),
        depth=mi.UInt32(0),
        active=base.enabled & si.is_valid() & (config.max_depth > 1),
        met_surface=base.enabled & si.is_valid() & (config.max_depth == 1),
        offsets=offsets,
        D=D,
        features=feat.start(si, base.ray, Le, config.features),
    )

    if config.features_only:
        step, label = _look, "gdpt_features"
    else:
        step, label = _bounce, "gdpt" if neighbours else "gdpt_primal"
    state, _ = dr.while_loop(
        (state, sampler),
        lambda s, _: s.active,
        lambda s, sampler: (step(ctx, sampler, s, config), sampler),
        label=label,
    )

    valid = state.met_surface
    if not hide and scene.environment() is not None:
        valid = mi.Bool(True)
    last = feat.finish(state.features, config.features, state.si)
    return PathSample(state.L, valid, state.D, last, state.depth)


def _bounce(ctx: Context, sampler: Sampler, s: _State, config: PathConfig) -> _State:
    """Advance the base path from x_k to x_{k+1}, then its offset paths."""
    si = s.si
    bsdf = si.bsdf()
    flags = bsdf.flags()
    rough = is_rough(flags)

    # ---- Light sampling
    u_emitter = sampler.next_2d()
    light = ctx.emitters.at(si, flags)
    choice = light.choose(u_emitter)
    ds, em_weight = light.sample(choice, active=rough)
    lit = rough & (ds.pdf != 0)
    wo = si.to_local(ds.d)
    u_lobe, u_direction = sampler.next_1d(), sampler.next_2d()
    f, pdf, bs, bsdf_weight = bsdf.eval_pdf_sample(ctx.bsdf, si, wo, u_lobe, u_direction)
    mis = dr.select(ds.delta, 1, mis_weight(ds.pdf, pdf))
    nee_factor = dr.select(lit, f * em_weight * mis, 0)
    nee = s.beta * nee_factor

    # ---- BSDF sampling and Russian roulette
    beta = s.beta * bsdf_weight
    eta = s.eta * bs.eta
    depth = s.depth + 1
    delta = mi.has_flag(bs.sampled_type, mi.BSDFFlags.Delta)
    null = mi.has_flag(bs.sampled_type, mi.BSDFFlags.Null)
    met_surface = s.met_surface | ~null
    reference = ctx.roulette.reference(s.reference, beta, eta, delta)
    q = ctx.roulette.survival(beta, eta, reference, depth)
    alive, beta = _survivors(sampler, beta, q)

    # ---- Next vertex and the emission found there
    ray, hit, next_si, next_glows = _next_vertex(ctx, si, bs.wo, alive, met_surface)
    next_Le, next_q = emission(light, next_si, delta, next_glows)
    emission_factor = next_Le * mis_weight(bs.pdf, next_q)
    found = beta * emission_factor

    # ---- Offset paths
    offsets, D = s.offsets, s.D
    if offsets:
        b = offset_path.Bounce(
            si=si,
            rough=rough,
            choice=choice,
            u_lobe=u_lobe,
            u_direction=u_direction,
            ds=ds,
            em_weight=em_weight,
            lit=lit,
            nee_factor=nee_factor,
            nee=nee,
            bs=bs,
            bsdf_weight=bsdf_weight,
            delta=delta,
            q=q,
            alive=alive,
            ray=ray,
            next_si=next_si,
            next_connectable=is_connectable(hit, bs.pdf),
            next_glows=next_glows,
            next_Le=next_Le,
            next_q=next_q,
            emission_factor=emission_factor,
            emission=found,
            depth=depth,
        )
        moved = [offset_path.advance(ctx, o, d, b) for o, d in zip(offsets, D, strict=True)]
        offsets, D = [o for o, _ in moved], [d for _, d in moved]

    features = feat.follow(
        s.features,
        config.features,
        feat.Event(
            si=si,
            bsdf=bsdf,
            rough=rough,
            null=null,
            delta=delta,
            u_lobe=u_lobe,
            u_direction=u_direction,
            ds=ds,
            lit=lit,
            bs=bs,
            nee=nee,
            found=found,
            next_si=next_si,
        ),
    )
    goes_on = depth + 1 < config.max_depth
    return _State(
        si=next_si,
        beta=beta,
        L=s.L + nee + found,
        eta=eta,
        reference=reference,
        depth=depth,
        active=alive & next_si.is_valid() & goes_on,
        met_surface=met_surface | (next_si.is_valid() & ~goes_on),
        offsets=offsets,
        D=D,
        features=features,
    )


def _look(ctx: Context, sampler: Sampler, s: _State, config: PathConfig) -> _State:
    """Advance a path that ends at its feature vertex: :func:`_bounce` without light sampling.

    It draws the same random numbers, so its features have the same bits. A path that goes on was
    not scattered by a smooth lobe: what it finds is seen as if directly.
    """
    si = s.si
    bsdf = si.bsdf()
    rough = is_rough(bsdf.flags())
    sampler.next_2d()  # the emitter sample
    u_lobe, u_direction = sampler.next_1d(), sampler.next_2d()
    bs, bsdf_weight = bsdf.sample(ctx.bsdf, si, u_lobe, u_direction)
    beta, eta, depth = s.beta * bsdf_weight, s.eta * bs.eta, s.depth + 1
    null = mi.has_flag(bs.sampled_type, mi.BSDFFlags.Null)
    met_surface = s.met_surface | ~null
    q = ctx.roulette.survival(beta, eta, s.reference, depth)
    alive, beta = _survivors(sampler, beta, q)

    # ---- Next vertex and what is seen there, where this was not the last one
    alive &= ~rough | null
    _, _, next_si, next_glows = _next_vertex(ctx, si, bs.wo, alive, met_surface)
    found = beta * directly_visible(ctx.scene, next_si, next_glows)

    features = feat.follow(
        s.features,
        config.features,
        feat.Event(
            si=si,
            bsdf=bsdf,
            rough=rough,
            null=null,
            delta=mi.has_flag(bs.sampled_type, mi.BSDFFlags.Delta),
            u_lobe=u_lobe,
            u_direction=u_direction,
            ds=None,
            lit=mi.Bool(False),
            bs=bs,
            nee=mi.Spectrum(0),
            found=found,
            next_si=next_si,
        ),
    )
    goes_on = depth + 1 < config.max_depth
    return replace(
        s,
        si=next_si,
        beta=beta,
        L=s.L + found,
        eta=eta,
        depth=depth,
        active=alive & next_si.is_valid() & goes_on,
        met_surface=met_surface | (next_si.is_valid() & ~goes_on),
        features=features,
    )


def _next_vertex(
    ctx: Context,
    si: mi.SurfaceInteraction3f,
    wo: mi.Vector3f,
    alive: mi.Bool,
    met_surface: mi.Bool,
) -> tuple[mi.Ray3f, mi.PreliminaryIntersection3f, mi.SurfaceInteraction3f, mi.Bool]:
    """Return the ray to the next vertex, what it hits, and whether emission may be found there.

    Args:
        ctx: What all paths share.
        si: This vertex.
        wo: Where the path goes on, in the frame of the surface.
        alive: Where it does.
        met_surface: Where it was scattered at something that is not index-matched.
    """
    ray = si.spawn_ray(si.to_world(wo))
    hit = ctx.scene.ray_intersect_preliminary(ray, coherent=False, active=alive)
    next_si = hit.compute_surface_interaction(ray, mi.RayFlags.All, alive)
    may_glow = alive & glows(hit)
    if ctx.hide_emitters:
        may_glow &= next_si.is_valid() | met_surface
    return ray, hit, next_si, may_glow


def _survivors(sampler: Sampler, beta: mi.Spectrum, q: mi.Float) -> tuple[mi.Bool, mi.Spectrum]:
    """Return which paths survive Russian roulette with probability ``q``, and their throughput."""
    u_survive = sampler.next_1d()
    alive = (dr.max(beta) > 0) & (u_survive < q)
    return alive, dr.select(alive, beta / q, 0)
