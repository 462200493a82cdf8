"""Feature buffers, gathered from the hits that the base path has anyway.

The *feature vertex* is the first vertex with smooth lobes, following mirrors, glass and the
transparent parts of masks along the sampled path. A chain that ends before it finds one (it
escapes, or runs into the depth limit) keeps the features of its last specular vertex. Where the
camera ray itself escapes: albedo 0, normal = minus the ray direction, depth 0 (NGPT's rule).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

from mitsuba_gdpt import channels
from mitsuba_gdpt.errors import reraise_interrupt
from mitsuba_gdpt.integrators.accumulate import is_sound
from mitsuba_gdpt.integrators.color import Wavelengths, radiance_rgb, reflectance_rgb
from mitsuba_gdpt.integrators.plugins import walk

#: Points along each side of a grid on which textures are averaged.
_TEXELS = 128

#: Names of the optional buffers.
OPTIONAL = frozenset(buffer.name for buffer in channels.OPTIONAL)


@dataclass(frozen=True)
class FeatureConfig:
    """What to record.

    Attributes:
        names: Names of optional buffers (``channels.OPTIONAL``).
        to_camera: World-to-camera transform.
        roughness: Roughness per BSDF, indexed by registry id; ``None`` if not recorded.
    """

    names: frozenset[str]
    to_camera: mi.Transform4f
    roughness: mi.Float | None = None

    @property
    def split(self) -> bool:
        """Whether radiance is split into its diffuse and specular parts."""
        return bool(self.names & {"diffuse", "specular"})


@dataclass
class Features:
    """Features of one path sample; a PyTree of Dr.Jit arrays that travels through the loop."""

    albedo: mi.Spectrum
    normal: mi.Vector3f  # camera space
    depth: mi.Float
    walked: mi.Float  # path length so far
    done: mi.Bool  # the feature vertex has been found
    extra: dict[str, Any] = field(default_factory=dict)  # state of optional buffers


@dataclass
class Event:
    """What happened at vertex x_k of the base path."""

    si: mi.SurfaceInteraction3f
    bsdf: mi.BSDFPtr
    rough: mi.Bool  # x_k has smooth lobes
    null: mi.Bool  # an index-matched lobe was sampled: the path passed straight through
    delta: mi.Bool  # any delta lobe was sampled
    u_lobe: mi.Float
    u_direction: mi.Point2f
    ds: mi.DirectionSample3f | None  # emitter sample; None: light is not sampled
    lit: mi.Bool  # it counted
    bs: mi.BSDFSample3f  # BSDF sample
    nee: mi.Spectrum  # contribution of the emitter sample
    found: mi.Spectrum  # contribution of the emission at x_{k+1}
    next_si: mi.SurfaceInteraction3f


def start(
    si: mi.SurfaceInteraction3f, ray: mi.Ray3f, emission: mi.Spectrum, config: FeatureConfig
) -> Features:
    """Return the features before the first bounce: those of a camera ray that escapes.

    Args:
        si: Where the camera ray ends.
        ray: The camera ray.
        emission: Directly visible radiance.
        config: What to record.
    """
    extra: dict[str, Any] = {}
    if "position" in config.names:
        extra["position"] = mi.Vector3f(0)
    if "roughness" in config.names:
        extra["roughness"] = mi.Float(0)
    if "visibility" in config.names:
        extra["shadow_rays"], extra["lit"] = mi.Float(0), mi.Float(0)
    if config.split:
        extra["diffuse"], extra["share"] = mi.Spectrum(0), mi.Spectrum(0)
    if "emission" in config.names:
        extra["emission"] = mi.Spectrum(emission)
    if "direct" in config.names:
        extra["direct"] = mi.Spectrum(emission)
    return Features(
        albedo=mi.Spectrum(0),
        normal=mi.Vector3f(dr.normalize(config.to_camera @ -ray.d)),
        depth=mi.Float(0),
        walked=dr.select(si.is_valid(), dr.norm(si.p - ray.o), 0),
        done=mi.Bool(False),
        extra=extra,
    )


def follow(f: Features, config: FeatureConfig, e: Event) -> Features:
    """Record vertex x_k unless the feature vertex has been found before."""
    extra = dict(f.extra)
    if "visibility" in config.names and e.ds is not None:
        extra["shadow_rays"] = f.extra["shadow_rays"] + dr.select(e.rough, 1.0, 0.0)
        extra["lit"] = f.extra["lit"] + dr.select(e.lit, 1.0, 0.0)
    if config.split and e.ds is not None:
        extra["diffuse"], extra["share"] = _split(f, e, e.ds)
    if "direct" in config.names:
        extra["direct"] = f.extra["direct"] + dr.select(f.done, mi.Spectrum(0), e.nee + e.found)
    f = Features(f.albedo, f.normal, f.depth, f.walked, f.done, extra)
    f = dr.if_stmt(
        (f,),
        ~f.done,
        lambda f: _record(f, config, e.si, e.bsdf, ~e.null, e.rough, e.u_lobe, e.u_direction),
        lambda f: f,
        label="features",
    )
    if "emission" in config.names:
        # Until there is a feature vertex, the next one is seen as if directly.
        f.extra["emission"] = f.extra["emission"] + dr.select(f.done, mi.Spectrum(0), e.found)
    f.walked = f.walked + dr.select(e.next_si.is_valid(), dr.norm(e.next_si.p - e.si.p), 0)
    return f


def finish(f: Features, config: FeatureConfig, si: mi.SurfaceInteraction3f) -> Features:
    """Record the vertex at which the depth limit stopped a path before a feature vertex."""
    half = mi.Float(0.5)
    return dr.if_stmt(
        (f,),
        ~f.done & si.is_valid(),
        lambda f: _record(f, config, si, si.bsdf(), True, True, half, mi.Point2f(half, half)),
        lambda f: f,
        label="last_features",
    )


def lanes(
    f: Features,
    names: tuple[str, ...],
    L: mi.Spectrum,
    valid: mi.Bool,
    weight: mi.Spectrum | None,
    wavelengths: Wavelengths,
) -> dict[str, list[mi.Float]]:
    """Return the components of each feature buffer, by buffer name, over lanes.

    Args:
        f: What was recorded.
        names: Of the buffers that are wanted.
        L: Radiance of the paths.
        valid: Where they met something.
        weight: Sensor weight; None where no sensor is known.
        wavelengths: Of the samples.
    """
    found: dict[str, list[mi.Float]] = {
        "albedo": reflectance_rgb(f.albedo, weight, wavelengths),
        "normal": [*f.normal],
        "depth": [f.depth],
    }
    if "position" in names:
        found["position"] = [*f.extra["position"]]
    if "visibility" in names:
        rays = f.extra["shadow_rays"]
        found["visibility"] = [dr.select(rays > 0, f.extra["lit"] / rays, 1)]
    if "roughness" in names:
        found["roughness"] = [f.extra["roughness"]]
    counts = valid & dr.all(is_sound(L))
    parts = {}
    if "diffuse" in names or "specular" in names:
        parts["diffuse"] = dr.select(counts, f.extra["diffuse"], 0)
        parts["specular"] = dr.select(counts, L, 0) - parts["diffuse"]
    for name in ("emission", "direct"):
        if name in names:
            parts[name] = dr.select(counts, f.extra[name], 0)
    for name, part in parts.items():
        if name in names:
            part = part if weight is None else part * weight
            found[name] = radiance_rgb(part, wavelengths)
    return found


def _record(
    f: Features,
    config: FeatureConfig,
    si: mi.SurfaceInteraction3f,
    bsdf: mi.BSDFPtr,
    write: mi.Bool | bool,
    rough: mi.Bool | bool,
    u_lobe: mi.Float,
    u_direction: mi.Point2f,
) -> Features:
    """Overwrite the features with those of ``si`` where ``write``; done where also ``rough``."""
    n = dr.select(si.wi.z < 0, -si.sh_frame.n, si.sh_frame.n)
    extra = dict(f.extra)
    if "position" in extra:
        extra["position"] = dr.select(
            write, mi.Vector3f(config.to_camera @ si.p), extra["position"]
        )
    if "roughness" in extra:
        index = dr.reinterpret_array(mi.UInt32, bsdf)
        extra["roughness"] = dr.select(
            write, dr.gather(mi.Float, config.roughness, index), extra["roughness"]
        )
    return Features(
        albedo=dr.select(write, albedo(bsdf, si, u_lobe, u_direction), f.albedo),
        normal=dr.select(
            write, dr.normalize(mi.Vector3f(config.to_camera @ mi.Vector3f(n))), f.normal
        ),
        depth=dr.select(write, f.walked, f.depth),
        walked=mi.Float(f.walked),
        done=f.done | (rough & write),
        extra=extra,
    )


def albedo(
    bsdf: mi.BSDFPtr, si: mi.SurfaceInteraction3f, u_lobe: mi.Float, u_direction: mi.Point2f
) -> mi.Spectrum:
    """Return a reflectance in [0, 1] that means the same for every BSDF.

    Diffuse reflectance where the plugin defines one. Mitsuba's fallback for the others evaluates
    the BSDF along the normal, which returns the height of the highlight (23 to 290 on rough
    conductors) or 0 (glass). There, one sample at normal incidence is weighted instead: f cos/p
    is the specular reflectance of a conductor, the tint of a glass, and the colour of what a
    mask carries.

    Args:
        bsdf: The BSDF.
        si: Surface interaction.
        u_lobe: Random number that chose the lobe of the path itself. Replayed, it chooses the
            same part of a mask.
        u_direction: Random numbers for the direction.

    Returns:
        In [0, 1].
    """
    flags = bsdf.flags()
    plain = mi.has_flag(flags, mi.BSDFFlags.Diffuse) & ~mi.has_flag(flags, mi.BSDFFlags.Null)
    diffuse = bsdf.eval_diffuse_reflectance(si, plain)
    plain &= dr.max(diffuse) <= 1
    upright = mi.SurfaceInteraction3f(si)
    upright.wi = mi.Vector3f(0, 0, dr.copysign(mi.Float(1), si.wi.z))
    # Importance transport: radiance shrinks by 1 / eta^2 inside glass, reflectance does not.
    ctx = mi.BSDFContext(mi.TransportMode.Importance)
    _, weight = bsdf.sample(ctx, upright, u_lobe, u_direction, ~plain)
    return dr.clip(dr.select(plain, diffuse, weight), 0, 1)


def _split(f: Features, e: Event, ds: mi.DirectionSample3f) -> tuple[mi.Spectrum, mi.Spectrum]:
    """Return the diffuse radiance gathered so far, and the diffuse share of what is to come."""
    ctx = mi.BSDFContext()
    ctx.type_mask = mi.BSDFFlags.Diffuse
    first = ~f.done & e.rough & ~e.null
    em_diffuse = e.bsdf.eval(ctx, e.si, e.si.to_local(ds.d), ~f.done & e.lit)
    em_all = e.bsdf.eval(mi.BSDFContext(), e.si, e.si.to_local(ds.d), ~f.done & e.lit)
    bounce = first & ~e.delta
    f_diffuse = e.bsdf.eval(ctx, e.si, e.bs.wo, bounce)
    f_all = e.bsdf.eval(mi.BSDFContext(), e.si, e.bs.wo, bounce)
    nee_share = dr.select(f.done, f.extra["share"], _ratio(em_diffuse, em_all))
    share = dr.select(first, _ratio(f_diffuse, f_all), f.extra["share"])
    diffuse = f.extra["diffuse"] + nee_share * e.nee + share * e.found
    return mi.Spectrum(diffuse), mi.Spectrum(share)  # products of spectra are plain arrays


def _ratio(part: mi.Spectrum, whole: mi.Spectrum) -> mi.Spectrum:
    return dr.select(whole > 0, dr.clip(part / whole, 0, 1), 0)


def roughness_table(scene: mi.Scene) -> mi.Float:
    """Return the roughness of every BSDF of a scene, indexed by Dr.Jit registry id.

    Mitsuba has no roughness query, and wrappers (``twosided``, ``mask``, ``bumpmap``, ...) do not
    forward attributes, so the parameters are read on the host: the microfacet alpha of the
    sharpest lobe (``principled``: roughness squared), the mean for textures, 1 for diffuse, 0 for
    mirrors and glass, and 0.5 for glossy BSDFs that expose none (``hair``, ``measured``).
    """
    found = {}
    plugins = walk([scene])
    attributes = [p.values for p in plugins if isinstance(p.plugin, mi.Mesh)]
    for plugin in (p.plugin for p in plugins):
        if isinstance(plugin, mi.BSDF):
            index = dr.reinterpret_array(mi.UInt32, mi.BSDFPtr(plugin))[0]
            found[index] = _roughness(plugin, attributes)
    table = [0.5] * (max(found, default=0) + 1)
    for index, value in found.items():
        table[index] = value
    return mi.Float(table)


def _roughness(bsdf: mi.BSDF, attributes: list[dict[str, Any]]) -> float:
    """Return the roughness of a BSDF, which may have others inside.

    Args:
        bsdf: The BSDF.
        attributes: Parameters of the meshes, among them what textures may read from meshes.
    """
    alphas = []
    for part in walk([bsdf]):
        for name, value in (part.values | part.children).items():
            if name.startswith("alpha"):
                alphas.append(_mean(value, 1, attributes))
            elif name == "roughness":
                alphas.append(_mean(value, 2, attributes))
    if known := [alpha for alpha in alphas if alpha is not None]:
        return min(known)
    flags = bsdf.flags()
    if mi.has_flag(flags, mi.BSDFFlags.Glossy):
        return 0.5
    return 1.0 if mi.has_flag(flags, mi.BSDFFlags.Diffuse) else 0.0


def _mean(value: Any, power: int, attributes: list[dict[str, Any]]) -> float | None:
    """Return the mean of a power of a parameter or texture; None if it cannot be told."""
    if isinstance(value, mi.Texture):
        if value.class_name() == "MeshAttribute":
            name = re.search(r'name = "([^"]*)"', str(value))
            buffers = [a[name[1]] for a in attributes if name and name[1] in a]
            if not buffers:
                return None
            value = dr.concat(buffers)
        else:
            try:
                value = value.eval_1(_grid(_TEXELS))
            except RuntimeError as error:  # textures of three channels, volumes of none
                reraise_interrupt(error)
                return None
    elif not isinstance(value, float) and not dr.is_array_v(value):
        return None
    return float(np.mean(np.square(value) if power == 2 else np.array(value)))


def _grid(size: int) -> mi.SurfaceInteraction3f:
    """Return surface interactions whose texture coordinates are the centres of a square grid."""
    index = dr.arange(mi.UInt32, size * size)
    row = index // size
    si = dr.zeros(mi.SurfaceInteraction3f, size * size)
    si.uv = (mi.Point2f(mi.Float(index - row * size), mi.Float(row)) + 0.5) / size
    return si
