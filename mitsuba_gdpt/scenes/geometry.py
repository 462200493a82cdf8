"""Procedural triangle meshes: a small numpy modelling kit for the built-in scenes.

Everything is Y-up, in metres, and a pure function of its arguments. :class:`Mesh`
values are immutable; ``moved``, ``turned``,
``scaled`` and ``join`` return new ones. Every mesh carries normals and texture coordinates, so
that any two can be joined.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
_AXES = {"x": 0, "y": 1, "z": 2}


@dataclass(frozen=True)
class Mesh:
    """An indexed triangle mesh.

    Attributes:
        positions: (N, 3) vertex positions.
        normals: (N, 3) unit shading normals.
        uvs: (N, 2) texture coordinates.
        faces: (M, 3) vertex indices, counter-clockwise seen from outside.
    """

    positions: Floats
    normals: Floats
    uvs: Floats
    faces: NDArray[np.int64]

    def moved(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Mesh:
        """Return the mesh translated by (x, y, z)."""
        return Mesh(self.positions + np.array([x, y, z]), self.normals, self.uvs, self.faces)

    def turned(self, axis: str, degrees: float) -> Mesh:
        """Return the mesh rotated about the ``x``, ``y`` or ``z`` axis through the origin."""
        matrix = rotation(axis, degrees)
        return Mesh(self.positions @ matrix.T, self.normals @ matrix.T, self.uvs, self.faces)

    def scaled(self, x: float, y: float | None = None, z: float | None = None) -> Mesh:
        """Return the mesh scaled (positive factors) per axis; one argument scales uniformly."""
        factors = np.array([x, x if y is None else y, x if z is None else z])
        normals = _unit(self.normals / factors)
        return Mesh(self.positions * factors, normals, self.uvs, self.faces)

    def tiled(self, u: float, v: float | None = None) -> Mesh:
        """Return the mesh with texture coordinates multiplied by (u, v)."""
        factors = np.array([u, u if v is None else v])
        return Mesh(self.positions, self.normals, self.uvs * factors, self.faces)

    def flipped(self) -> Mesh:
        """Return the mesh turned inside out."""
        return Mesh(self.positions, -self.normals, self.uvs, self.faces[:, ::-1])

    @property
    def bounds(self) -> tuple[Floats, Floats]:
        """Smallest and largest corner of the bounding box."""
        return self.positions.min(axis=0), self.positions.max(axis=0)

    def to_ply(self) -> bytes:
        """Serialise as binary little-endian PLY with normals and texture coordinates."""
        vertices = np.concatenate([self.positions, self.normals, self.uvs], axis=1)
        triangles = np.empty(
            len(self.faces), dtype=np.dtype([("count", "u1"), ("index", "<i4", (3,))])
        )
        triangles["count"], triangles["index"] = 3, self.faces
        names = ("x", "y", "z", "nx", "ny", "nz", "u", "v")
        header = [
            "ply",
            "format binary_little_endian 1.0",
            f"element vertex {len(vertices)}",
            *(f"property float {name}" for name in names),
            f"element face {len(triangles)}",
            "property list uchar int vertex_indices",
            "end_header\n",
        ]
        return "\n".join(header).encode() + vertices.astype("<f4").tobytes() + triangles.tobytes()


def rotation(axis: str, degrees: float) -> Floats:
    """Return the (3, 3) matrix of a right-handed rotation about a coordinate axis."""
    first, second = ((1, 2), (2, 0), (0, 1))[_AXES[axis]]
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = cos
    matrix[first, second], matrix[second, first] = -sin, sin
    return matrix


def join(meshes: Iterable[Mesh]) -> Mesh:
    """Concatenate meshes into one."""
    parts = list(meshes)
    offsets = np.cumsum([0, *(len(m.positions) for m in parts[:-1])])
    return Mesh(
        np.concatenate([m.positions for m in parts]),
        np.concatenate([m.normals for m in parts]),
        np.concatenate([m.uvs for m in parts]),
        np.concatenate([m.faces + offset for m, offset in zip(parts, offsets, strict=True)]),
    )


def scatter(mesh: Mesh, frames: Floats, offsets: Floats) -> Mesh:
    """Copy a mesh N times.

    Args:
        mesh: What to copy.
        frames: (N, 3, 3) matrices, columns are the images of the x, y and z axes. They may scale
            uniformly; reflections are not supported.
        offsets: (N, 3) positions of the copies.
    """
    count, vertices = len(offsets), len(mesh.positions)
    positions = np.einsum("nij,vj->nvi", frames, mesh.positions) + offsets[:, None]
    normals = _unit(np.einsum("nij,vj->nvi", frames, mesh.normals))
    faces = mesh.faces[None] + (np.arange(count) * vertices)[:, None, None]
    return Mesh(
        positions.reshape(-1, 3),
        normals.reshape(-1, 3),
        np.tile(mesh.uvs, (count, 1)),
        faces.reshape(-1, 3),
    )


def _unit(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(lengths, 1e-300)  # no lower: derivatives near an axis are tiny


def _flat(corners: Floats, uvs: Floats) -> Mesh:
    """Make a mesh from (M, K, 3) planar convex polygons with (M, K, 2) uvs, one normal each."""
    count, sides = corners.shape[:2]
    normals = _unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, -1] - corners[:, 0]))
    fan = np.array([[0, k, k + 1] for k in range(1, sides - 1)])
    faces = (np.arange(count)[:, None, None] * sides + fan).reshape(-1, 3)
    return Mesh(
        corners.reshape(-1, 3), np.repeat(normals, sides, axis=0), uvs.reshape(-1, 2), faces
    )


# -------------------------------------------------------------------------------------------
# Flat things
# -------------------------------------------------------------------------------------------


def quad(origin: ArrayLike, edge_u: ArrayLike, edge_v: ArrayLike) -> Mesh:
    """Make a parallelogram; its normal is edge_u x edge_v, its uvs are in metres."""
    o, u, v = (np.asarray(a, dtype=float) for a in (origin, edge_u, edge_v))
    size = np.array([np.linalg.norm(u), np.linalg.norm(v)])
    uvs = np.array([[[0, 0], [1, 0], [1, 1], [0, 1]]]) * size
    return _flat(np.array([[o, o + u, o + u + v, o + v]]), uvs)


@functools.cache
def _box_template(chamfered: bool) -> tuple[Floats, Floats, Floats, NDArray[np.int64], Floats]:
    """Return what all boxes share.

    Returns:
        (N, 3) signs of the corners, (N, 3) which coordinates a chamfer insets, normals, faces,
        and the (N, 3, 2) selector of the coordinates that serve as uvs.
    """
    polygons: list[list[tuple[list[int], int]]] = []  # corners: signs and the axis not inset
    for axis in range(3):  # the six faces
        j, k = (axis + 1) % 3, (axis + 2) % 3
        for side in (-1, 1):
            ring = []
            for sj, sk in ((-1, -1), (1, -1), (1, 1), (-1, 1))[::side]:
                signs = [0, 0, 0]
                signs[axis], signs[j], signs[k] = side, sj, sk
                ring.append((signs, axis))
            polygons.append(ring)
    if chamfered:
        for axis in range(3):  # the twelve edges, each between the faces of the two other axes
            j, k = (axis + 1) % 3, (axis + 2) % 3
            for sj, sk in itertools.product((-1, 1), repeat=2):
                ring = []
                for full, end in ((j, -1), (j, 1), (k, 1), (k, -1))[:: -sj * sk]:
                    signs = [0, 0, 0]
                    signs[axis], signs[j], signs[k] = end, sj, sk
                    ring.append((signs, full))
                polygons.append(ring)
        for corner in itertools.product((-1, 1), repeat=3):  # the eight corners
            order = (0, 1, 2)[:: corner[0] * corner[1] * corner[2]]
            polygons.append([(list(corner), axis) for axis in order])
    signs, inset, normals, faces, select = [], [], [], [], []
    start = 0
    for ring in polygons:
        normal = np.zeros(3)
        for axis in {axis for _, axis in ring}:
            normal[axis] = ring[0][0][axis]
        u, v = ((2, 1), (0, 2), (0, 1))[int(np.abs(normal).argmax())]
        for corner_signs, axis in ring:
            signs.append(corner_signs)
            inset.append(1.0 - np.eye(3)[axis])
            normals.append(normal / np.linalg.norm(normal))
            select.append(np.eye(3)[:, [u, v]])
        faces += [[start, start + k, start + k + 1] for k in range(1, len(ring) - 1)]
        start += len(ring)
    return (
        np.array(signs, float),
        np.array(inset),
        np.array(normals),
        np.array(faces),
        np.array(select),
    )


def box(low: ArrayLike, high: ArrayLike, bevel: float = 0.0) -> Mesh:
    """Make an axis-aligned box between two corners, optionally chamfered; uvs are in metres.

    A chamfer costs 32 triangles more and catches light along the edges, as real objects do.
    """
    a, b = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    half = np.abs(b - a) / 2
    signs, inset, normals, faces, select = _box_template(bevel > 0)
    positions = (a + b) / 2 + signs * (half - min(bevel, 0.98 * float(half.min())) * inset)
    return Mesh(positions, normals, np.einsum("ni,nij->nj", positions, select), faces)


def panel(
    low: ArrayLike, high: ArrayLike, holes: Sequence[tuple[float, float, float, float]]
) -> Mesh:
    """Make a thin box (a wall) with rectangular openings.

    Args:
        low: Smallest corner; the axis with the smallest extent is the wall's thickness.
        high: Largest corner.
        holes: (a0, b0, a1, b1) each, along the two remaining axes in x, y, z order.
    """
    a, b = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    thin = int(np.argmin(b - a))
    p, q = (axis for axis in range(3) if axis != thin)
    cuts_p = sorted({a[p], b[p], *(h[0] for h in holes), *(h[2] for h in holes)})
    cuts_q = sorted({a[q], b[q], *(h[1] for h in holes), *(h[3] for h in holes)})
    cells = []
    for p0, p1 in itertools.pairwise(cuts_p):
        for q0, q1 in itertools.pairwise(cuts_q):
            mp, mq = (p0 + p1) / 2, (q0 + q1) / 2
            if any(h[0] < mp < h[2] and h[1] < mq < h[3] for h in holes):
                continue
            lo, hi = a.copy(), b.copy()
            lo[p], hi[p], lo[q], hi[q] = p0, p1, q0, q1
            cells.append(box(lo, hi))
    return join(cells)


# -------------------------------------------------------------------------------------------
# Grids of vertices: everything curved
# -------------------------------------------------------------------------------------------


def surface(
    function: Callable[[Floats, Floats], Sequence[Floats]],
    columns: int,
    rows: int,
    size: tuple[float, float] = (1.0, 1.0),
) -> Mesh:
    """Sample a parametric surface (s, t in 0..1 -> x, y, z) on a grid, with smooth normals.

    Normals point along d/ds x d/dt. Where the parametrisation degenerates (poles) they are taken
    from a nearby ring.

    Args:
        function: Maps two (rows + 1, columns + 1) arrays s, t to three coordinate arrays.
        columns: Number of quads along s.
        rows: Number of quads along t.
        size: Texture coordinates run from 0 to this along s and t.
    """
    grid = np.meshgrid(np.linspace(0, 1, columns + 1), np.linspace(0, 1, rows + 1))
    s, t = grid[0], grid[1]

    def at(ss: Floats, tt: Floats) -> Floats:
        return np.stack(np.broadcast_arrays(*function(ss, tt)), axis=-1).astype(float)

    step = 1e-4
    tt = np.clip(t, 2 * step, 1 - 2 * step)  # stay off the poles
    ds = at(s + step, tt) - at(s - step, tt)
    dt = at(s, tt + step) - at(s, tt - step)
    positions, normals = at(s, t), _unit(np.cross(ds, dt))
    index = np.arange(s.size).reshape(s.shape)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], axis=2).reshape(-1, 3)
    flat = positions.reshape(-1, 3)
    edges = np.cross(flat[faces[:, 1]] - flat[faces[:, 0]], flat[faces[:, 2]] - flat[faces[:, 0]])
    faces = faces[np.linalg.norm(edges, axis=1) > 1e-14]  # slivers at the poles
    uvs = np.stack([s * size[0], t * size[1]], axis=-1)
    return Mesh(flat, normals.reshape(-1, 3), uvs.reshape(-1, 2), faces)


def lathe(profile: ArrayLike, segments: int = 48, smooth: int = 0) -> Mesh:
    """Rotate an (r, y) polyline about the Y axis.

    The outside is on the left when walking along the profile from bottom to top, i.e. a profile
    from bottom to top has outward normals.

    Args:
        profile: Points (radius, height).
        segments: Number of quads around.
        smooth: 0 keeps every profile segment flat-shaded with hard creases; n > 0 runs a
            Catmull-Rom spline through the points with n pieces per segment.
    """
    points = np.asarray(profile, dtype=float)
    if smooth:
        curve = spline(points, smooth)
        curve[:, 0] = np.maximum(curve[:, 0], 0)  # splines overshoot at the axis
        return _revolve(curve, segments)
    rings = [_revolve(points[k : k + 2], segments) for k in range(len(points) - 1)]
    return join(rings)


def _revolve(points: Floats, segments: int) -> Mesh:
    along = np.linspace(0, 1, len(points))

    def function(s: Floats, t: Floats) -> Sequence[Floats]:
        radius = np.interp(t, along, points[:, 0])
        angle = 2 * np.pi * s
        return radius * np.sin(angle), np.interp(t, along, points[:, 1]), radius * np.cos(angle)

    return surface(function, segments, len(points) - 1)


def spline(points: ArrayLike, pieces: int, closed: bool = False) -> Floats:
    """Run a Catmull-Rom spline through (N, D) points; returns (M, D) samples."""
    p = np.asarray(points, dtype=float)
    if closed:
        padded = np.concatenate([p[-1:], p, p[:2]])
    else:
        padded = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, 1, pieces, endpoint=False)[:, None]
    samples = []
    for k in range(len(padded) - 3):
        a, b, c, d = padded[k : k + 4]
        samples.append(
            b
            + 0.5 * t * (c - a)
            + t**2 * (a - 2.5 * b + 2 * c - 0.5 * d)
            + t**3 * (1.5 * (b - c) + 0.5 * (d - a))
        )
    if not closed:
        samples.append(padded[-2:-1])
    return np.concatenate(samples)


def sphere(radius: float = 1.0, segments: int = 48) -> Mesh:
    """Make a sphere about the origin."""
    return ellipsoid(radius, radius, radius, segments=segments)


def ellipsoid(x: float, y: float, z: float, power: float = 2.0, segments: int = 48) -> Mesh:
    """Make a superellipsoid about the origin: power 2 is round, larger ones become cushions."""
    e = 2.0 / power

    def signed(a: Floats) -> Floats:
        return np.sign(a) * np.abs(a) ** e

    def function(s: Floats, t: Floats) -> Sequence[Floats]:
        lon, lat = 2 * np.pi * s, np.pi * (t - 0.5)
        ring = signed(np.cos(lat))
        return (
            x * ring * signed(np.sin(lon)),
            y * signed(np.sin(lat)),
            z * ring * signed(np.cos(lon)),
        )

    mesh = surface(function, segments, segments // 2)
    if power == 2.0:
        return mesh
    # The parametrisation of a superellipsoid stalls at its flat spots; its implicit form gives
    # the exact normal everywhere.
    scaled = mesh.positions / np.array([x, y, z])
    gradient = np.sign(scaled) * np.abs(scaled) ** (power - 1) / np.array([x, y, z])
    return Mesh(mesh.positions, _unit(gradient), mesh.uvs, mesh.faces)


def torus(major: float, minor: float, segments: int = 48, sides: int = 20) -> Mesh:
    """Make a torus in the XZ plane."""
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    ring = np.stack([major * np.sin(angle), 0 * angle, major * np.cos(angle)], axis=-1)
    return tube(ring, minor, sides=sides, closed=True)


def tube(path: ArrayLike, radius: float | ArrayLike, sides: int = 10, closed: bool = False) -> Mesh:
    """Sweep a circle along a polyline (wires, rails, legs); open ends get caps.

    Args:
        path: (N, 3) points.
        radius: One value or one per point.
        sides: Number of quads around.
        closed: Join the last point to the first.
    """
    points = np.asarray(path, dtype=float)
    radii = np.broadcast_to(np.asarray(radius, dtype=float), len(points))
    if closed:
        ahead, behind = np.roll(points, -1, axis=0), np.roll(points, 1, axis=0)
        tangents = _unit(ahead - behind)
    else:
        tangents = _unit(np.gradient(points, axis=0))
    # Parallel transport: each frame is the previous one with the new tangent projected out, which
    # never twists the way a fixed 'up' vector does.
    helper = np.eye(3)[np.abs(tangents[0]).argmin()]
    frames = [_unit(np.cross(tangents[0], helper))]
    for tangent in tangents[1:]:
        frames.append(_unit(frames[-1] - tangent * (frames[-1] @ tangent)))
    side = np.array(frames)
    if closed:  # spread the holonomy of the loop so that the seam matches
        last = _unit(side[-1] - tangents[0] * (side[-1] @ tangents[0]))
        twist = np.arctan2(np.cross(last, side[0]) @ tangents[0], last @ side[0])
        angle = np.linspace(0, twist, len(points), endpoint=False)[:, None]
        side = np.cos(angle) * side + np.sin(angle) * np.cross(tangents, side)
        points, tangents, side = (np.concatenate([a, a[:1]]) for a in (points, tangents, side))
        radii = np.concatenate([radii, radii[:1]])
    other = np.cross(tangents, side)
    around = np.linspace(0, 2 * np.pi, sides + 1)
    normals = (
        np.cos(around)[None, :, None] * side[:, None]
        + np.sin(around)[None, :, None] * other[:, None]
    )
    positions = points[:, None] + radii[:, None, None] * normals
    index = np.arange(positions.shape[0] * (sides + 1)).reshape(-1, sides + 1)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.stack([np.stack([a, b, c], -1), np.stack([a, c, d], -1)], axis=2).reshape(-1, 3)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    uvs = np.stack(np.broadcast_arrays(around[None] / (2 * np.pi), length[:, None]), axis=-1)
    body = Mesh(positions.reshape(-1, 3), normals.reshape(-1, 3), uvs.reshape(-1, 2), faces)
    if closed:
        return body
    caps = []
    for end, order in ((0, slice(None, None, -1)), (-1, slice(None))):
        if radii[end] > 1e-9:
            ring = positions[end, :-1][order][None]
            caps.append(_flat(ring, np.zeros((*ring.shape[:2], 2))))
    return join([body, *caps])


def rod(start: ArrayLike, end: ArrayLike, radius: float, sides: int = 10) -> Mesh:
    """Make a straight round bar between two points."""
    return tube([start, end], radius, sides)


def cylinder(radius: float, height: float, segments: int = 40, bevel: float = 0.0) -> Mesh:
    """Make a closed upright cylinder standing on the origin, with an optional chamfer."""
    b = min(bevel, 0.4 * radius, 0.4 * height)
    profile = [(0.0, 0.0), (radius - b, 0.0), (radius, b), (radius, height - b)]
    profile += [(radius - b, height), (0.0, height)]
    kept = [profile[0]]
    for point in profile[1:]:
        if point != kept[-1]:
            kept.append(point)
    return lathe(kept, segments)


def _box_uvs(corners: Floats) -> Floats:
    """Project polygons along the dominant axis of their normals (uv in metres, v along Y)."""
    normals = np.abs(np.cross(corners[:, 1] - corners[:, 0], corners[:, -1] - corners[:, 0]))
    axis = normals.argmax(axis=1)
    pick = np.array([[2, 1], [0, 2], [0, 1]])[axis]
    return np.take_along_axis(corners, pick[:, None, :].repeat(corners.shape[1], axis=1), axis=2)


def extrude(outline: ArrayLike, depth: float) -> Mesh:
    """Extrude a convex polygon in the XY plane (counter-clockwise) from z = 0 to ``depth``."""
    ring = np.asarray(outline, dtype=float)
    count = len(ring)
    front = np.concatenate([ring, np.full((count, 1), float(depth))], axis=1)
    back = np.concatenate([ring, np.zeros((count, 1))], axis=1)
    following = np.roll(np.arange(count), -1)
    walls = np.stack([back, back[following], front[following], front], axis=1)
    caps = [
        _flat(front[None], front[None, :, :2]),
        _flat(back[::-1][None], back[None, ::-1, :2]),
    ]
    return join([_flat(walls, _box_uvs(walls)), *caps])


def arch(
    width: float, spring: float, top: float, total: float, depth: float, segments: int = 24
) -> Mesh:
    """Make a wall piece with a round-headed opening, centred on x, standing on y = 0.

    Args:
        width: Width of the opening.
        spring: Height where the curve starts; the crown is at ``spring + width / 2``.
        top: Height of the piece.
        total: Width of the piece.
        depth: Thickness, from z = 0.
        segments: Pieces of the curve.
    """
    half, radius = total / 2, width / 2
    angle = np.linspace(np.pi, 0, segments + 1)
    curve = np.stack([radius * np.cos(angle), spring + radius * np.sin(angle)], axis=1)
    pieces = [
        box((-half, 0, 0), (-radius, top, depth)),
        box((radius, 0, 0), (half, top, depth)),
    ]
    for a, b in itertools.pairwise(curve):
        pieces.append(extrude([a, b, (b[0], top), (a[0], top)], depth))
    return join(pieces)
