"""From which parts of the environment light arrives, for sampling directions to it.

An environment's own sampling follows its radiance. Most of that is behind walls in a room with a
window, and half of it below the horizon of any surface. Here a direction is drawn in proportion to
the radiance, times the root of the mean of what is visible of it times the squared cosine: if that
is random, the root is what lowers the variance most. The mean is over points that the camera sees,
at the first two hits of its rays, whose normals look to the same of six sides. (Bitterli et al.,
*Portal-Masked Environment Map Sampling*, EGSR 2015, need the portals for that.)

Radiance and visibility are measured, on grids of equal solid angles, so any plugin will do and
every change of the scene is followed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import drjit as dr
import mitsuba as mi

from mitsuba_gdpt.integrators import probing
from mitsuba_gdpt.integrators.accumulate import widened

#: Cells of the radiance.
HEIGHT, WIDTH = 256, 512
_CELLS = HEIGHT * WIDTH
#: Cells of the radiance along each side of one of what is visible.
_COARSE = 16
_ROWS, _COLUMNS = HEIGHT // _COARSE, WIDTH // _COARSE
#: Sides that a normal may look to; after them comes what lets light through.
_SIDES = 6
#: Camera rays, and directions that are looked in at each of their hits.
_PROBES, _DIRECTIONS = 16384, 4
#: What the directions of the same ray are apart in the square that they are drawn from: an additive
#: recurrence of its own, since they share their numbers.
_APART = 0.7548776662, 0.5698402910
#: A side of which fewer rays are known is taken for the mean of all, the more so the fewer.
_PRIOR = 256
#: Least importance of a cell relative to the greatest, and shares of the samples that follow the
#: radiance alone and that are spread evenly: what the rays took for hidden can be chosen.
_LEAST, _DEFENSIVE, _EVEN = 0.02, 0.05, 0.01
#: Share of the radiance around a cell in its own: that is known from four points.
_AROUND = 0.25
#: Cells along each side of a square around the brightest one, and parts along each side of these. A
#: sun of half a degree is smaller than a cell: what is drawn beside it would be noise.
_PEAK, _PARTS = 5, 16
#: Share of the samples of such a cell that are spread evenly over it.
_EVEN_INSIDE = 0.05
#: Cosines are added up as whole numbers, whose sum does not depend on the order.
_UNIT = 1 << 12
#: Wavelengths that radiance is measured at, in nm.
_WAVELENGTHS = (450.0, 520.0, 580.0, 640.0)


@dataclass(frozen=True)
class Spot:
    """A direction to the environment that was chosen.

    Attributes:
        place: In the square that the directions are laid out in, see :func:`_direction`.
        density: Of the direction, in 1/sr; 0 where something else than the environment was chosen.
    """

    place: mi.Point2f
    density: mi.Float


@dataclass(frozen=True)
class Peak:
    """The cells around the brightest one, in parts.

    Attributes:
        x: Column of the first cell. The others follow, around the horizon.
        y: Its row.
        density: Of each part of each cell, relative to that of the cell.
        rows: Of each cell: share of its samples up to each row of parts, that row included.
        columns: Likewise up to each part of a row.
    """

    x: mi.UInt32
    y: mi.UInt32
    density: mi.Float
    rows: mi.Float
    columns: mi.Float

    @classmethod
    def of(cls, emitter: mi.Emitter, radiance: mi.Float) -> tuple[Peak, mi.Float]:
        """Look closely at the brightest cell and its neighbours.

        Args:
            emitter: The environment.
            radiance: Of all cells.

        Returns:
            The peak, and the radiance of all cells, better known here.
        """
        dr.eval(radiance)
        cell = probing.lanes(_CELLS)
        brightest = dr.min(dr.select(radiance == dr.max(radiance), cell, mi.UInt32(_CELLS - 1)))
        x = (brightest % WIDTH + (WIDTH - _PEAK // 2)) % WIDTH
        y = mi.UInt32(dr.clip(mi.Int32(brightest // WIDTH) - _PEAK // 2, 0, HEIGHT - _PEAK))
        part = probing.lanes(_PEAK**2 * _PARTS**2)
        inside, near = part % _PARTS**2, part // _PARTS**2
        row, column = y + near // _PEAK, (x + near % _PEAK) % WIDTH
        place = mi.Point2f(
            (mi.Float(column) + (mi.Float(inside % _PARTS) + 0.5) / _PARTS) / WIDTH,
            (mi.Float(row) + (mi.Float(inside // _PARTS) + 0.5) / _PARTS) / HEIGHT,
        )
        light = _evaluated(emitter, place)
        mean = dr.block_sum(light, _PARTS**2) * (1 / _PARTS**2)
        dr.eval(mean)
        every = dr.repeat(mean, _PARTS**2)
        density = dr.select(every > 0, dr.lerp(light / every, 1, _EVEN_INSIDE), 1)
        dr.eval(density)
        columns = _running_share(density, _PARTS)
        rows = _running_share(dr.block_sum(density, _PARTS), _PARTS)
        radiance = mi.Float(radiance)
        near = probing.lanes(_PEAK**2)
        target = (y + near // _PEAK) * WIDTH + (x + near % _PEAK) % WIDTH
        dr.scatter(radiance, mean, target)
        dr.eval(x, y, rows, columns, radiance)
        return cls(x, y, density, rows, columns), radiance

    def choose(self, x: mi.UInt32, y: mi.UInt32, u: mi.Point2f, active: mi.Bool) -> mi.Point2f:
        """Choose a point of a cell, in [0, 1)^2.

        Args:
            x: Column of the cell.
            y: Its row.
            u: Random numbers in [0, 1)^2.
            active: Lanes of interest.
        """
        number, near = self._number(x, y)
        near &= active
        first = number * _PARTS
        row, v = _inverted(self.rows, first, _PARTS, u.y, near)
        first = (first + row) * _PARTS
        column, w = _inverted(self.columns, first, _PARTS, u.x, near)
        point = mi.Point2f(mi.Float(column) + w, mi.Float(row) + v) / _PARTS
        return dr.select(near, point, u)

    def relative_density(
        self, x: mi.UInt32, y: mi.UInt32, point: mi.Point2f, active: mi.Bool | bool
    ) -> mi.Float:
        """Return the density of a point of a cell relative to that of the cell."""
        number, near = self._number(x, y)
        near &= active
        column, row = (dr.minimum(mi.UInt32(p * _PARTS), _PARTS - 1) for p in point)
        part = (number * _PARTS + row) * _PARTS + column
        return dr.select(near, dr.gather(mi.Float, self.density, part, near), 1)

    def _number(self, x: mi.UInt32, y: mi.UInt32) -> tuple[mi.UInt32, mi.Bool]:
        """Return the number of a cell, and whether it is one of these."""
        column, row = (x + WIDTH - self.x) % WIDTH, y - self.y  # which wraps around below 0
        return row * _PEAK + column, (column < _PEAK) & (row < _PEAK)


@dataclass(frozen=True)
class EnvironmentTable:
    """Densities of directions to the environment.

    Attributes:
        emitter: The environment.
        index: Of it among the emitters of the scene.
        center: Centre of a sphere around the scene.
        radius: Of that sphere.
        peak: The brightest cells.
        density: In 1/sr, by the side that a vertex looks to and cell.
        rows: Of each side: share of the samples up to each row of cells, that row included.
        columns: Likewise up to each cell of a row.
    """

    emitter: mi.Emitter
    index: mi.UInt32
    center: mi.Point3f
    radius: mi.Float
    peak: Peak
    density: mi.Float
    rows: mi.Float
    columns: mi.Float

    @classmethod
    def of(
        cls, scene: mi.Scene, probes: Callable[[int], mi.Ray3f] | None = None
    ) -> EnvironmentTable | None:
        """Look at the environment of a scene.

        Args:
            scene: The scene.
            probes: Makes a number of camera rays.

        Returns:
            A table; None where there is no environment, or no camera, or where the choice is part
            of the image: the scene is small or far from the origin, or its extent is not known.
        """
        emitter = scene.environment()
        if emitter is None or probes is None:
            return None
        if probing.rays_are_displaced(scene) or not probing.extent_is_known(scene):
            return None
        peak, radiance = Peak.of(emitter, _radiance(emitter))
        importance = _importance(scene, probes(_PROBES))
        sides = _SIDES + 1
        lane = probing.lanes(sides * _CELLS)
        cell = lane % _CELLS
        x, y = cell % WIDTH, cell // WIDTH
        coarse = ((lane // _CELLS) * _ROWS + y // _COARSE) * _COLUMNS + x // _COARSE
        light = dr.gather(mi.Float, radiance, cell)
        weight = light * dr.gather(mi.Float, importance, coarse)

        def share(values: mi.Float) -> mi.Float:
            """Divide by the mean of each side; even where all is black."""
            # In two steps, which is how shares are added up: one long sum would be rounded more.
            mean = dr.block_sum(dr.block_sum(values, WIDTH), HEIGHT) * (1 / _CELLS)
            mean = dr.repeat(mean, _CELLS)
            return dr.select(mean > 0, values / mean, 1)

        defensive = _DEFENSIVE * share(light) + _EVEN
        density = share((1 - _DEFENSIVE - _EVEN) * share(weight) + defensive)
        dr.eval(density)
        columns = _running_share(density, WIDTH)
        rows = _running_share(dr.block_sum(density, WIDTH), HEIGHT)
        density *= dr.inv_four_pi
        sphere = scene.bbox().bounding_sphere()
        center = mi.Point3f(*(dr.opaque(mi.Float, float(x)) for x in sphere.center))
        radius = dr.opaque(mi.Float, max(float(sphere.radius), float(mi.math.RayEpsilon)))
        numbers = [*scene.emitters()]
        index = dr.opaque(mi.UInt32, numbers.index(emitter))
        dr.eval(density, rows, columns)
        return cls(emitter, index, center, radius, peak, density, rows, columns)

    def side(self, si: mi.SurfaceInteraction3f, flags: mi.UInt32) -> mi.UInt32:
        """Return the number of the side that a vertex looks to.

        Args:
            si: The vertex.
            flags: Those of its BSDF.
        """
        both = mi.has_flag(flags, mi.BSDFFlags.Transmission)
        return dr.select(both, mi.UInt32(_SIDES), _side(probing.facing(si)))

    def choose(self, side: mi.UInt32, u: mi.Point2f, active: mi.Bool) -> Spot:
        """Choose a direction.

        Args:
            side: What the vertex looks to.
            u: Random numbers in [0, 1)^2.
            active: Lanes of interest; elsewhere the density is 0.
        """
        first = side * HEIGHT
        y, v = _inverted(self.rows, first, HEIGHT, u.y, active)
        first = (first + y) * WIDTH
        x, w = _inverted(self.columns, first, WIDTH, u.x, active)
        point = self.peak.choose(x, y, mi.Point2f(w, v), active)
        place = (mi.Point2f(mi.Float(x), mi.Float(y)) + point) / mi.Point2f(WIDTH, HEIGHT)
        # Looked up, as everywhere: rounding may have moved it across a border.
        place = dr.clip(place, 0, dr.one_minus_epsilon(mi.Float))
        return Spot(place, self.density_of(side, place, active))

    def density_of(
        self, side: mi.UInt32, place: mi.Point2f, active: mi.Bool | bool = True
    ) -> mi.Float:
        """Return the density of a direction, seen from a side, in 1/sr.

        Args:
            side: What the vertex looks to.
            place: Of the direction, as in :class:`Spot`.
            active: Lanes of interest; elsewhere it is 0.
        """
        x, y = place.x * WIDTH, place.y * HEIGHT
        column = dr.minimum(mi.UInt32(x), WIDTH - 1)
        row = dr.minimum(mi.UInt32(y), HEIGHT - 1)
        point = mi.Point2f(x - mi.Float(column), y - mi.Float(row))
        density = dr.gather(mi.Float, self.density, (side * HEIGHT + row) * WIDTH + column, active)
        return density * self.peak.relative_density(column, row, point, active)

    def pdf(self, side: mi.UInt32, d: mi.Vector3f, active: mi.Bool | bool = True) -> mi.Float:
        """Return the density of a direction, seen from a side, in 1/sr."""
        return self.density_of(side, _place(d), active)

    def sample(
        self, si: mi.SurfaceInteraction3f, spot: Spot, active: mi.Bool | bool
    ) -> tuple[mi.DirectionSample3f, mi.Spectrum]:
        """Sample a direction that was chosen, like ``Emitter.sample_direction``.

        Args:
            si: The vertex.
            spot: The direction.
            active: Lanes of interest.

        Returns:
            The direction with the density with which it was chosen, and the radiance over that.
        """
        d = _direction(spot.place)
        # A new mask: this one may be used outside of a branch that this is called in.
        active = mi.Bool(active) & (spot.density > 0)
        ds = dr.zeros(mi.DirectionSample3f)
        # Beyond all of the scene, as environments do themselves.
        ds.dist = 2 * dr.maximum(self.radius, dr.norm(si.p - self.center))
        ds.p = dr.fma(d, ds.dist, si.p)
        ds.n = -d
        ds.d = d
        ds.time = si.time
        ds.delta = mi.Bool(False)
        ds.emitter = mi.EmitterPtr(self.emitter)
        ds.pdf = dr.select(active, spot.density, 0)
        escaped = dr.zeros(mi.SurfaceInteraction3f)
        escaped.wi, escaped.time, escaped.wavelengths = -d, si.time, si.wavelengths
        weight = self.emitter.eval(escaped, active) / spot.density
        return ds, dr.select(active, weight, 0)


def _radiance(emitter: mi.Emitter) -> mi.Float:
    """Return the mean radiance of the cells, over four points of each, and some of what is around.

    Small things between the points are caught by their neighbours.
    """
    cell = probing.lanes(_CELLS)
    x, y = cell % WIDTH, cell // WIDTH
    mean = mi.Float(0)
    for u in (0.25, 0.75):
        for v in (0.25, 0.75):
            place = mi.Point2f((mi.Float(x) + u) / WIDTH, (mi.Float(y) + v) / HEIGHT)
            mean += 0.25 * _evaluated(emitter, place)
    dr.eval(mean)
    return dr.lerp(mean, _blurred(mean, HEIGHT, WIDTH, mi.UInt32(0), x, y), _AROUND)


def _evaluated(emitter: mi.Emitter, place: mi.Point2f) -> mi.Float:
    """Return the radiance of directions, the mean over colours; 0 where it is broken."""
    count = dr.width(place)
    si = dr.zeros(mi.SurfaceInteraction3f, count)
    if mi.is_spectral:
        si.wavelengths = type(si.wavelengths)(*_WAVELENGTHS)
    si.wi = -_direction(place)
    radiance = widened(dr.mean(emitter.eval(si)), count)
    return dr.select(dr.isfinite(radiance), dr.maximum(radiance, 0), 0)


def _importance(scene: mi.Scene, probes: mi.Ray3f) -> mi.Float:
    """Return the importance of what is visible in each coarse cell, by side."""
    width = _ROWS * _COLUMNS
    seen = dr.zeros(mi.UInt32, _SIDES * width)
    known = dr.zeros(mi.UInt32, _SIDES)
    lane = probing.lanes(dr.width(probes))
    u = probing.numbers(lane)
    si = scene.ray_intersect(probes)
    bs, _ = si.bsdf().sample(mi.BSDFContext(), si, u[0], mi.Point2f(u[1], u[2]), si.is_valid())
    onward = si.spawn_ray(si.to_world(bs.wo))
    hits = si, scene.ray_intersect(onward, active=si.is_valid())
    for number, si in enumerate(hits):
        rough = si.is_valid() & mi.has_flag(si.bsdf().flags(), mi.BSDFFlags.Smooth)
        normal = probing.facing(si)
        side = _side(normal)
        for k in range(number * _DIRECTIONS, (number + 1) * _DIRECTIONS):
            # Rays that are drawn by the cosine, and count by it: by its square altogether.
            point = mi.Point2f(u[3] + k * _APART[0], u[4] + k * _APART[1])
            local = mi.warp.square_to_cosine_hemisphere(point - dr.floor(point))
            d = mi.Frame3f(normal).to_world(local)
            visible = rough & ~scene.ray_test(si.spawn_ray(d), rough)
            place = _place(d)
            cell = (side * _ROWS + mi.UInt32(place.y * _ROWS)) * _COLUMNS
            cell += mi.UInt32(place.x * _COLUMNS)
            count = mi.UInt32(dr.select(visible, local.z, 0) * _UNIT)
            dr.scatter_reduce(dr.ReduceOp.Add, seen, count, cell, visible)
            dr.scatter_reduce(dr.ReduceOp.Add, known, mi.UInt32(1), side, rough)
    dr.eval(seen, known)

    lane = probing.lanes((_SIDES + 1) * width)
    cell = lane % width
    side = lane // width
    x, y = cell % _COLUMNS, cell // _COLUMNS
    everywhere, rays = mi.Float(0), mi.Float(0)
    for i in range(_SIDES):
        everywhere += mi.Float(dr.gather(mi.UInt32, seen, cell + i * width))
        rays += mi.Float(dr.gather(mi.UInt32, known, mi.UInt32(i)))
    everywhere /= dr.maximum(rays, 1)
    own = side < _SIDES
    here = mi.Float(dr.gather(mi.UInt32, seen, lane, own))
    weight = dr.select(own, mi.Float(dr.gather(mi.UInt32, known, side, own)), 0)
    mean = dr.fma(everywhere, _PRIOR, here) / (weight + _PRIOR)
    dr.eval(mean)
    root = dr.sqrt(_blurred(mean, _ROWS, _COLUMNS, side * width, x, y))
    most = dr.repeat(dr.block_reduce(dr.ReduceOp.Max, root, width), width)
    # Where all is hidden there is nothing to go by.
    return dr.select(most > 0, dr.maximum(root, _LEAST * most), 1)


def _blurred(
    values: mi.Float, rows: int, columns: int, first: mi.UInt32, x: mi.UInt32, y: mi.UInt32
) -> mi.Float:
    """Return the binomial means of cells and their neighbours, around the horizon."""
    total = mi.Float(0)
    for i, a in ((-1, 1), (0, 2), (1, 1)):
        row = mi.UInt32(dr.clip(mi.Int32(y) + i, 0, rows - 1))
        for j, b in ((columns - 1, 1), (0, 2), (1, 1)):
            cell = first + row * columns + (x + j) % columns
            total += dr.gather(mi.Float, values, cell) * (a * b / 16)
    return total


def _running_share(values: mi.Float, size: int) -> mi.Float:
    """Return running sums of blocks over their totals."""
    sums = dr.block_prefix_reduce(dr.ReduceOp.Add, values, size, exclusive=False)
    last = probing.lanes(dr.width(values)) // size * size + (size - 1)
    return sums / dr.gather(mi.Float, sums, last)


def _inverted(
    shares: mi.Float, first: mi.UInt32, size: int, u: mi.Float, active: mi.Bool
) -> tuple[mi.UInt32, mi.Float]:
    """Return where running shares pass a number, and how far between two that is."""
    found = dr.binary_search(
        0, size - 1, lambda i: dr.gather(mi.Float, shares, first + i, active) <= u
    )
    upper = dr.gather(mi.Float, shares, first + found, active)
    later = active & (found > 0)
    lower = dr.select(later, dr.gather(mi.Float, shares, first + found - 1, later), 0)
    rest = (u - lower) / (upper - lower)
    rest = dr.select(upper > lower, dr.clip(rest, 0, dr.one_minus_epsilon(mi.Float)), 0.5)
    return found, rest


def _direction(place: mi.Point2f) -> mi.Vector3f:
    """Map [0, 1)^2 to directions, keeping areas."""
    z = dr.fma(-2, place.y, 1)
    radius = dr.safe_sqrt(dr.fma(-z, z, 1))
    sine, cosine = dr.sincos(dr.two_pi * place.x)
    return mi.Vector3f(cosine * radius, sine * radius, z)


def _place(d: mi.Vector3f) -> mi.Point2f:
    """Undo :func:`_direction`."""
    x = dr.atan2(d.y, d.x) * dr.inv_two_pi
    place = mi.Point2f(dr.select(x < 0, x + 1, x), dr.fma(-0.5, d.z, 0.5))
    return dr.clip(place, 0, dr.one_minus_epsilon(mi.Float))


def _side(n: mi.Normal3f) -> mi.UInt32:
    """Return the number of the side that a normal looks to most."""
    a = dr.abs(n)
    along_x, along_y = (a.x >= a.y) & (a.x >= a.z), a.y >= a.z
    axis = dr.select(along_x, mi.UInt32(0), dr.select(along_y, mi.UInt32(1), mi.UInt32(2)))
    towards = dr.select(along_x, n.x, dr.select(along_y, n.y, n.z))
    return 2 * axis + dr.select(towards < 0, mi.UInt32(1), mi.UInt32(0))
