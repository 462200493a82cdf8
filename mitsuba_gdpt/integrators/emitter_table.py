"""How much each emitter matters at a vertex, for choosing among them.

The importance of an emitter is an estimate of the irradiance that it sends to the vertex: flux over
squared distance, with the cosines at both ends, softened by the angle under which the emitter is
seen (A. Conty Estevez and C. Kulla, *Importance Sampling of Many Lights with Adaptive Tree
Splitting*, HPG 2018, section 4, in a simpler form), times the root of the share of it that is not
occluded on average: if that is random, the root is what lowers the variance most. What is needed of
an emitter is measured, with rays that leave it and with shadow rays from points that the camera
sees, so any plugin will do, and every change of the scene is followed.

A loop over all emitters stands for the tree of the paper. It is unrolled, so that the processor
reads each emitter once for all lanes. Where there are more than :data:`GROUPS`, neighbours form
groups, one of which is chosen first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import drjit as dr
import mitsuba as mi

from mitsuba_gdpt.integrators import probing
from mitsuba_gdpt.integrators.accumulate import widened

#: Emitters are chosen one by one up to this number, in groups beyond.
GROUPS = 16
#: More emitters than this are chosen by their sampling weights alone, as in ``path``.
MOST = 1024
#: Share of the samples that is spread evenly. What the estimate takes for unimportant has at most
#: its inverse times the variance that it had.
_DEFENSIVE = 0.1
#: An emitter that is seen under a wide angle is found by sampling the BSDF as well. This takes up
#: to two thirds off its importance.
_WIDE = 2.0
#: Rays that an emitter is known by.
_RAYS = 256
#: Camera rays times emitters, within bounds for the rays.
_PROBES, _LEAST_PROBES, _MOST_PROBES = 4096, 64, 256
#: Least share that is taken for visible, since few points are looked at.
_LEAST_VISIBLE = 0.01
#: Squared radius of what shines from nowhere: a ball around any scene of the size 1.
_FAR = 1e20
#: Against divisions by 0, where sizes and fluxes are about 1.
_TINY = 1e-30
#: Least flux of an emitter relative to the greatest: what the rays took for black can be chosen.
_LEAST_FLUX = 1e-12


@dataclass(frozen=True)
class Vertex:
    """Where light arrives.

    Attributes:
        p: Position in the frame of the table.
        n: Shading normal on the side that is seen.
        both_sides: Light from the other side counts as well.
    """

    p: mi.Point3f
    n: mi.Normal3f
    both_sides: mi.Bool


@dataclass(frozen=True)
class Row:
    """What is known of an emitter, or of a group of them, per lane.

    Attributes:
        where: Mean position and squared radius.
        what: Mean direction, of length 1 for one flat side and 0 for a ball, and flux.
        share: What of the samples that are spread evenly falls to it.
    """

    where: mi.Vector4f
    what: mi.Vector4f
    share: mi.Float


@dataclass(frozen=True)
class Rows:
    """Rows in memory: the attributes of :class:`Row`, one after the other."""

    where: mi.Float
    what: mi.Float
    share: mi.Float

    @classmethod
    def of(
        cls,
        center: Iterable[mi.Float],
        radius2: mi.Float,
        axis: Iterable[mi.Float],
        flux: mi.Float,
        share: mi.Float,
    ) -> Rows:
        """Pack rows, given as arrays over them."""
        where, what = mi.Vector4f(*center, radius2), mi.Vector4f(*axis, flux)
        return cls(dr.ravel(where), dr.ravel(what), share)

    def row(self, i: mi.UInt32) -> Row:
        """Look a row up."""
        return Row(
            dr.gather(mi.Vector4f, self.where, i),
            dr.gather(mi.Vector4f, self.what, i),
            dr.gather(mi.Float, self.share, i),
        )


@dataclass(frozen=True)
class _Extent:
    """Where a scene is and how big: importances are computed as if it had size 1, at the origin.

    So no number depends on the unit of length, and none is lost far from the origin.

    Attributes:
        center: Centre of its bounding box.
        scale: 1 / its diagonal.
    """

    center: mi.Point3f
    scale: mi.Float

    @classmethod
    def of(cls, scene: mi.Scene) -> _Extent:
        """Measure a scene; opaque, so that one kernel serves all scenes."""
        bbox = scene.bbox()
        size = dr.norm(bbox.extents()) if bbox.valid() else 0
        center = [*bbox.center()] if size > 0 else [0, 0, 0]
        return cls(
            mi.Point3f(*(dr.opaque(mi.Float, x) for x in center)),
            dr.opaque(mi.Float, 1 / size if size > 0 else 1),
        )

    def place(self, p: mi.Point3f) -> mi.Point3f:
        """Return a point in the frame of the table."""
        return (p - self.center) * self.scale


@dataclass(frozen=True)
class EmitterTable:
    """What is known of the emitters of a scene.

    Attributes:
        extent: The frame of all positions here.
        rows: One of each group; the shares are of all samples.
        groups: The same in memory.
        members: Emitters in the order of groups, padded to the same number in each; the shares
            are of the samples of the group.
        member: Index of each of these.
        place: Where each emitter is in that order.
        identity: Registry numbers of the emitters in ascending order, and whose they are.
    """

    extent: _Extent
    rows: list[Row]
    groups: Rows
    members: Rows
    member: mi.UInt32
    place: mi.UInt32
    identity: tuple[mi.UInt32, mi.UInt32]

    @classmethod
    def of(
        cls, scene: mi.Scene, probes: Callable[[int], mi.Ray3f] | None = None
    ) -> EmitterTable | None:
        """Look at the emitters of a scene.

        Args:
            scene: The scene.
            probes: Makes a number of camera rays, at whose first two hits to look for what is
                visible; None takes everything for visible.

        Returns:
            A table; None where there is no choice, or one among too many, or where the scene is so
            small or far from the origin that the choice is part of the image.
        """
        emitters = scene.emitters()
        if not 1 < len(emitters) <= MOST or probing.rays_are_displaced(scene):
            return None
        pointers = scene.emitters_dr()
        extent = _Extent.of(scene)
        center, radius2, axis, flux = _measure(pointers, extent)
        if probes is not None:
            count = max(_LEAST_PROBES, min(_MOST_PROBES, _PROBES // len(emitters)))
            flux *= dr.sqrt(_visible(scene, probes(count)))
        eligible = widened(pointers.sampling_weight() > 0, len(emitters))
        most = dr.max(flux)
        flux = dr.select(most > 0, flux / most, 1)
        flux = dr.select(eligible, dr.maximum(flux, _LEAST_FLUX), 0)
        flux = dr.select(radius2 >= _FAR, flux * _FAR, flux)
        nowhere = sum(mi.has_flag(e.flags(), mi.EmitterFlags.Infinite) for e in emitters)
        place, size = _places(center, len(emitters), nowhere, radius2 >= _FAR)
        slots = min(len(emitters), GROUPS) * size
        member = _inverse(place, slots)

        filled = dr.zeros(mi.UInt32, slots)
        dr.scatter(filled, mi.UInt32(1), place)
        weight = dr.select(filled == 1, dr.gather(mi.Float, flux, member), 0)
        even = dr.select((filled == 1) & dr.gather(mi.Bool, eligible, member), mi.Float(1), 0)
        sums, counts = dr.block_sum(weight, size), dr.block_sum(even, size)
        part = weight / dr.repeat(dr.maximum(sums, _TINY), size)

        def mean(values: mi.Float) -> mi.Float:
            return dr.block_sum(part * dr.gather(mi.Float, values, member), size)

        middle = mi.Point3f(*(mean(x) for x in center))
        apart = dr.squared_norm(center - dr.gather(mi.Point3f, middle, place // size))
        groups = Rows.of(
            middle,
            mean(radius2 + apart),
            [mean(x) for x in axis],
            sums,
            counts / dr.maximum(dr.sum(counts), 1),
        )
        members = Rows.of(
            dr.gather(mi.Point3f, center, member),
            dr.gather(mi.Float, radius2, member),
            dr.gather(mi.Vector3f, axis, member),
            weight,
            even / dr.repeat(dr.maximum(counts, 1), size),
        )
        numbers = dr.reinterpret_array(mi.UInt32, pointers)
        owner = _inverse(_rank(numbers, len(emitters)), len(emitters))
        identity = dr.gather(mi.UInt32, numbers, owner), owner
        dr.eval(groups, members, member, place, identity)
        rows = [groups.row(mi.UInt32(g)) for g in range(slots // size)]
        dr.eval(rows)
        return cls(extent, rows, groups, members, member, place, identity)

    def at(self, si: mi.SurfaceInteraction3f, flags: mi.UInt32) -> Importances:
        """Look at all emitters from a vertex.

        Args:
            si: The vertex.
            flags: Those of its BSDF.
        """
        both_sides = mi.has_flag(flags, mi.BSDFFlags.Transmission)
        vertex = Vertex(self.extent.place(si.p), probing.facing(si), both_sides)
        total = mi.Float(0)
        for row in self.rows:
            total += _importance(vertex, row)
        return Importances(self, vertex, total)

    def index(self, emitter: mi.EmitterPtr, active: mi.Bool | bool = True) -> mi.UInt32:
        """Return the index of an emitter in the scene."""
        numbers, owner = self.identity
        wanted = dr.reinterpret_array(mi.UInt32, emitter)
        found = dr.binary_search(
            0,
            dr.width(numbers) - 1,
            lambda i: dr.gather(mi.UInt32, numbers, i, active) < wanted,
        )
        return dr.gather(mi.UInt32, owner, found, active)


@dataclass(frozen=True)
class Importances:
    """Importances of all emitters at one vertex, and the choice that follows them.

    Attributes:
        table: What is known of the emitters.
        vertex: Where they shall shine.
        total: Sum of all importances.
    """

    table: EmitterTable
    vertex: Vertex
    total: mi.Float

    @property
    def _size(self) -> int:
        """Places in a group."""
        return int(dr.width(self.table.member)) // len(self.table.rows)

    def choose(self, u: mi.Float) -> tuple[mi.UInt32, mi.Float, mi.Float]:
        """Choose an emitter.

        Args:
            u: Random number in [0, 1).

        Returns:
            Index, probability, and a fresh random number.
        """
        group, probability, passed = mi.UInt32(0), mi.Float(0), mi.Float(0)
        below = mi.Float(0)
        for g, row in enumerate(self.table.rows):
            p = self._probability(row, self.total)
            reached = (below <= u) & (p > 0)
            group = dr.select(reached, g, group)
            probability = dr.select(reached, p, probability)
            passed = dr.select(reached, below, passed)
            below += p
        u = _fresh(u - passed, probability)
        if self._size == 1:
            return dr.gather(mi.UInt32, self.table.member, group), probability, u

        first, total = group * self._size, self._total_of(group)
        last = first + (self._size - 1)

        def step(
            slot: mi.UInt32, left: mi.Float, p: mi.Float
        ) -> tuple[mi.UInt32, mi.Float, mi.Float]:
            return slot + 1, left - p, self._inside(total, slot + 1)

        slot, left, p = dr.while_loop(
            (first, u, self._inside(total, first)),
            lambda slot, left, p: (left >= p) & (slot < last),
            step,
            label="choose_emitter",
        )
        return dr.gather(mi.UInt32, self.table.member, slot), probability * p, _fresh(left, p)

    def probability(self, index: mi.UInt32) -> mi.Float:
        """Return the probability with which :meth:`choose` returns an emitter."""
        slot = dr.gather(mi.UInt32, self.table.place, index)
        group = slot // self._size
        p = self._probability(self.table.groups.row(group), self.total)
        if self._size == 1:
            return p
        return p * self._inside(self._total_of(group), slot)

    def _total_of(self, group: mi.UInt32) -> mi.Float:
        """Return the sum of the importances of the members of a group."""
        first, members = group * self._size, self.table.members
        last = first + self._size
        return dr.while_loop(
            (first, mi.Float(0)),
            lambda slot, _: slot < last,
            lambda slot, sums: (slot + 1, sums + _importance(self.vertex, members.row(slot))),
            label="emitters_of_group",
        )[1]

    def _inside(self, total: mi.Float, slot: mi.UInt32) -> mi.Float:
        """Return the probability of a member inside its group."""
        return self._probability(self.table.members.row(slot), total)

    def _probability(self, row: Row, total: mi.Float) -> mi.Float:
        return _mixed(_importance(self.vertex, row), total, row.share)


def _importance(vertex: Vertex, row: Row) -> mi.Float:
    """Estimate the irradiance from an emitter or a group of them, up to a common factor."""
    where, what = row.where, row.what
    axis, flux = mi.Vector3f(what.x, what.y, what.z), what.w
    to, radius2 = mi.Vector3f(where.x, where.y, where.z) - vertex.p, where.w
    distance2 = dr.maximum(dr.squared_norm(to), _TINY)
    towards = to * dr.rsqrt(distance2)
    # Squared sine of half the angle under which the emitters are seen.
    angle2 = dr.minimum(radius2 / distance2, 1)
    angle = dr.sqrt(angle2)
    leaving = dr.clip(angle - dr.dot(axis, towards), 0, 1)
    cosine = dr.dot(vertex.n, towards)
    cosine = dr.select(vertex.both_sides, dr.abs(cosine), cosine)
    arriving = dr.clip(angle + cosine, 0, 1)
    shape = dr.fma(4, leaving, 1 - dr.squared_norm(axis))
    return flux * shape * arriving / (dr.maximum(distance2, radius2) * dr.fma(_WIDE, angle2, 1))


def _mixed(importance: mi.Float, total: mi.Float, share: mi.Float) -> mi.Float:
    return dr.select(total > 0, dr.lerp(importance / total, share, _DEFENSIVE), share)


def _fresh(rest: mi.Float, probability: mi.Float) -> mi.Float:
    """Return a random number from what is left of one that has decided with a probability."""
    return dr.clip(rest / probability, 0, dr.one_minus_epsilon(mi.Float))


def _measure(
    pointers: mi.EmitterPtr, extent: _Extent
) -> tuple[mi.Point3f, mi.Float, mi.Vector3f, mi.Float]:
    """Return mean origin, its squared spread, mean direction and weighted flux of emitters.

    What shines from nowhere has the flux that gives the same irradiance from the distance 1.
    """
    count = dr.width(pointers)
    lane = probing.lanes(count * _RAYS)
    u = probing.numbers(lane % _RAYS)
    emitter = dr.gather(mi.EmitterPtr, pointers, lane // _RAYS)
    ray, weight = emitter.sample_ray(
        mi.Float(0), u[0], mi.Point2f(u[1], u[2]), mi.Point2f(u[3], u[4]), mi.Bool(True)
    )
    # Rays begin off the surface, by more than a whole scene where it is small or far away.
    position, _ = emitter.sample_position(mi.Float(0), mi.Point2f(u[1], u[2]), mi.Bool(True))
    nowhere = mi.has_flag(emitter.flags(), mi.EmitterFlags.Infinite)
    origin = extent.place(dr.select(nowhere, ray.o, position.p))

    def mean(x: mi.Float) -> mi.Float:
        x = widened(x, count * _RAYS)
        return dr.block_sum(dr.select(dr.isfinite(x), x, 0), _RAYS) / _RAYS

    center = mi.Point3f(*(mean(x) for x in origin))
    radius2 = mean(dr.squared_norm(origin - dr.gather(mi.Point3f, center, lane // _RAYS)))
    # The mean direction of a flat, diffuse side has length 2/3.
    axis = mi.Vector3f(*(1.5 * mean(x) for x in ray.d))
    axis /= dr.maximum(1, dr.norm(axis))
    flux = mean(dr.mean(weight)) * pointers.sampling_weight()
    nowhere = mi.has_flag(pointers.flags(), mi.EmitterFlags.Infinite)
    flux = dr.select(nowhere, flux / radius2, flux)
    return center, dr.select(nowhere, _FAR, radius2), dr.select(nowhere, 0, axis), flux


def _visible(scene: mi.Scene, probes: mi.Ray3f) -> mi.Float:
    """Return the share of each emitter's light that reaches what the camera sees.

    Args:
        scene: The scene.
        probes: Camera rays. Their first hits are looked at, and those after one bounce.
    """
    count = dr.width(probes)
    lane = probing.lanes(dr.width(scene.emitters_dr()) * count)
    emitter = dr.gather(mi.EmitterPtr, scene.emitters_dr(), lane // count)
    u = probing.numbers(lane)
    si = scene.ray_intersect(dr.gather(mi.Ray3f, probes, lane % count))
    bs, _ = si.bsdf().sample(mi.BSDFContext(), si, u[0], mi.Point2f(u[1], u[2]), si.is_valid())
    onward = si.spawn_ray(si.to_world(bs.wo))
    hits = si, scene.ray_intersect(onward, active=si.is_valid())
    arriving, seen = mi.Float(0), mi.Float(0)
    for si, numbers in zip(hits, (mi.Point2f(u[3], u[4]), mi.Point2f(u[4], u[3])), strict=True):
        rough = si.is_valid() & mi.has_flag(si.bsdf().flags(), mi.BSDFFlags.Smooth)
        ds, weight = emitter.sample_direction(si, numbers, rough)
        light = dr.mean(weight) * dr.maximum(dr.dot(ds.d, probing.facing(si)), 0)
        light = dr.select(rough & (ds.pdf != 0) & dr.isfinite(light), light, 0)
        occluded = scene.ray_test(si.spawn_ray_to(ds.p), light > 0)
        arriving += light
        seen += dr.select(occluded, 0, light)
    arriving, seen = (dr.block_sum(widened(x, dr.width(lane)), count) for x in (arriving, seen))
    return dr.select(arriving > 0, dr.maximum(seen / arriving, _LEAST_VISIBLE), 1)


def _places(
    center: mi.Point3f, count: int, nowhere: int, is_nowhere: mi.Bool
) -> tuple[mi.UInt32, int]:
    """Put emitters into groups of neighbours.

    Args:
        center: Their positions.
        count: Their number.
        nowhere: Number of those without a position; they are a group of their own.
        is_nowhere: Which these are.

    Returns:
        The place of each in the order of groups, and places in a group.
    """
    if count <= GROUPS:
        return dr.arange(mi.UInt32, count), 1
    groups, somewhere = GROUPS - (nowhere > 0), count - nowhere
    size = max(-(-somewhere // groups), nowhere)
    code = mi.UInt32(0)
    for axis, x in enumerate(center):
        low = dr.min(dr.select(is_nowhere, dr.inf, x))
        high = dr.max(dr.select(is_nowhere, -dr.inf, x))
        cell = mi.UInt32(dr.clip((x - low) / dr.maximum(high - low, _TINY), 0, 1) * 1023)
        for bit in range(10):  # Morton order
            code |= ((cell >> bit) & 1) << (3 * bit + axis)
    rank = _rank(dr.select(is_nowhere, mi.UInt32(0xFFFFFFFF), code), count)
    return dr.select(is_nowhere, rank + (groups * size - somewhere), rank), size


def _inverse(place: mi.UInt32, size: int) -> mi.UInt32:
    """Return who is at each of ``size`` places: the first emitter where nobody is."""
    result = dr.zeros(mi.UInt32, size)
    dr.scatter(result, dr.arange(mi.UInt32, dr.width(place)), place)
    return result


def _rank(keys: mi.UInt32, count: int) -> mi.UInt32:
    """Return the place of each key in ascending order; equal ones keep theirs."""
    lane = probing.lanes(count * count)
    i, j = lane // count, lane % count
    mine, other = dr.gather(mi.UInt32, keys, i), dr.gather(mi.UInt32, keys, j)
    before = (other < mine) | ((other == mine) & (j < i))
    return dr.block_sum(dr.select(before, mi.UInt32(1), mi.UInt32(0)), count)
