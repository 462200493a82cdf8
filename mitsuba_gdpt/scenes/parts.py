"""Things that more than one built-in scene contains: furniture, vessels, plants, openings.

Every function returns meshes standing on y = 0 around the origin; the scenes choose places and
materials.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mitsuba_gdpt.scenes.geometry import (
    Floats,
    Mesh,
    box,
    cylinder,
    ellipsoid,
    join,
    lathe,
    quad,
    rod,
    scatter,
    spline,
    surface,
    tube,
)

# -------------------------------------------------------------------------------------------
# Rooms and openings
# -------------------------------------------------------------------------------------------


def room(low: ArrayLike, high: ArrayLike) -> dict[str, Mesh]:
    """Return the six inward-facing sides of a box-shaped room, by name, uvs in metres."""
    a, b = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    x, y, z = np.diag(b - a)
    return {
        "floor": quad(a, z, x),
        "ceiling": quad(a + y, x, z),
        "back": quad(a, x, y),  # at the smallest z, facing +z
        "front": quad(a + z + x, -x, y),
        "left": quad(a + z, -z, y),  # at the smallest x
        "right": quad(a + x, z, y),
    }


def sash(width: float, height: float, columns: int, rows: int, bar: float = 0.04) -> Mesh:
    """Return a window frame in the XY plane with glazing bars, lower left corner at the origin."""
    depth = bar * 1.2
    bars = []
    for k in range(columns + 1):
        x = k * width / columns
        thick = bar if k in (0, columns) else 0.6 * bar
        bars.append(box((x - thick / 2, 0, -depth / 2), (x + thick / 2, height, depth / 2), 0.004))
    for k in range(rows + 1):
        y = k * height / rows
        thick = bar if k in (0, rows) else 0.6 * bar
        bars.append(box((0, y - thick / 2, -depth / 2), (width, y + thick / 2, depth / 2), 0.004))
    return join(bars)


def frame(width: float, height: float, border: float = 0.05, depth: float = 0.03) -> Mesh:
    """Return a picture frame in the XY plane around a centred opening."""
    w, h, b = width / 2, height / 2, border
    return join(
        [
            box((-w - b, h, 0), (w + b, h + b, depth), 0.008),
            box((-w - b, -h - b, 0), (w + b, -h, depth), 0.008),
            box((-w - b, -h, 0), (-w, h, depth), 0.008),
            box((w, -h, 0), (w + b, h, depth), 0.008),
        ]
    )


def picture(width: float, height: float) -> Mesh:
    """Return a centred rectangle in the XY plane, facing +z, with uvs in 0..1."""
    return quad((-width / 2, -height / 2, 0), (width, 0, 0), (0, height, 0)).tiled(
        1 / width, 1 / height
    )


def railing(
    start: ArrayLike,
    end: ArrayLike,
    height: float = 0.95,
    spacing: float = 0.12,
    wire: float = 0.007,
) -> Mesh:
    """Return a balustrade of thin bars between two points (the feet), with a round handrail."""
    a, b = np.asarray(start, dtype=float), np.asarray(end, dtype=float)
    up = np.array([0.0, height, 0.0])
    count = max(2, round(float(np.linalg.norm(b - a)) / spacing))
    pieces = [rod(a + up, b + up, 0.025, 12), rod(a + 0.08 * up, b + 0.08 * up, 0.012, 8)]
    for k in range(count + 1):
        foot = a + (b - a) * k / count
        thick = 0.018 if k % 8 == 0 else wire
        pieces.append(rod(foot, foot + up, thick, 8))
    return join(pieces)


# -------------------------------------------------------------------------------------------
# Furniture
# -------------------------------------------------------------------------------------------


def table(width: float, depth: float, height: float = 0.74, top: float = 0.035) -> Mesh:
    """Return a table with four tapering legs."""
    w, d = width / 2, depth / 2
    pieces = [
        box((-w, height - top, -d), (w, height, d), 0.006),
        box((-w + 0.08, height - top - 0.08, -d + 0.07), (w - 0.08, height - top, d - 0.07)),
    ]
    for sx in (-1, 1):
        for sz in (-1, 1):
            head = np.array([sx * (w - 0.09), height - top, sz * (d - 0.08)])
            foot = np.array([sx * (w - 0.05), 0.0, sz * (d - 0.045)])
            pieces.append(tube([foot, head], [0.014, 0.026], 12))
    return join(pieces)


def chair(seat: float = 0.45) -> Mesh:
    """Return a spindle-back chair that faces +z."""
    pieces = [ellipsoid(0.22, 0.025, 0.21, 4.0, 32).moved(y=seat)]
    for sx in (-1, 1):
        pieces.append(tube([(sx * 0.2, 0, 0.19), (sx * 0.16, seat, 0.15)], [0.012, 0.019], 10))
        pieces.append(tube([(sx * 0.2, 0, -0.2), (sx * 0.15, seat, -0.14)], [0.012, 0.019], 10))
        pieces.append(rod((sx * 0.185, 0.17, 0.17), (sx * 0.185, 0.17, -0.175), 0.009, 8))
    crest = []
    for k in range(7):
        s = k / 6 * 2 - 1
        foot = (0.17 * s, seat, -0.17 + 0.02 * s * s)
        head = (0.21 * s, seat + 0.42, -0.27 + 0.05 * s * s)
        crest.append(head)
        pieces.append(rod(foot, head, 0.008, 8))
    pieces.append(tube(spline(crest, 3), 0.02, 10))
    return join(pieces)


def sofa(width: float = 2.0, seats: int = 2) -> tuple[Mesh, Mesh]:
    """Return (upholstery, feet) of a sofa, or with one seat an armchair, that faces +z."""
    w = width / 2
    share = (w - 0.15) / seats  # half the width of one cushion
    soft = [
        ellipsoid(w, 0.13, 0.42, 6.0).moved(y=0.25),
        ellipsoid(w, 0.27, 0.11, 5.0).turned("x", -10).moved(y=0.58, z=-0.36),
    ]
    for side in (-1, 1):
        soft.append(ellipsoid(0.1, 0.22, 0.42, 5.0).moved(x=side * (w - 0.06), y=0.4))
    for k in range(seats):
        x = (2 * k + 1 - seats) * share
        soft.append(ellipsoid(share, 0.09, 0.33, 4.0).moved(x, 0.43, 0.05))
        soft.append(ellipsoid(share - 0.01, 0.2, 0.09, 4.0).turned("x", -14).moved(x, 0.66, -0.23))
    feet = [
        rod((sx * (w - 0.15), 0, sz * 0.3), (sx * (w - 0.18), 0.14, sz * 0.27), 0.02)
        for sx in (-1, 1)
        for sz in (-1, 1)
    ]
    return join(soft), join(feet)


def shelf_unit(
    width: float, height: float, depth: float, boards: int, board: float = 0.025
) -> Mesh:
    """Return an open bookcase with ``boards`` compartments, its back at z = 0."""
    w = width / 2
    pieces = [
        box((-w - board, 0, 0), (-w, height, depth), 0.003),
        box((w, 0, 0), (w + board, height, depth), 0.003),
        box((-w, 0, 0), (w, height, 0.012)),
    ]
    for k in range(boards + 1):
        y = k * (height - board) / boards
        pieces.append(box((-w, y, 0), (w, y + board, depth), 0.003))
    return join(pieces)


def books(
    rng: np.random.Generator, width: float, height: float, depth: float, colours: int
) -> list[list[Mesh]]:
    """Fill one compartment with books; returns the covers grouped by colour, pages last.

    The row starts at x = 0 and stands on y = 0 with the spines towards +z.
    """
    groups: list[list[Mesh]] = [[] for _ in range(colours + 1)]
    x = 0.0
    while True:
        thick = rng.uniform(0.015, 0.05)
        tall = rng.uniform(0.62, 0.95) * height
        deep = rng.uniform(0.65, 0.92) * depth
        if x + thick > width:
            break
        lean = rng.uniform(8, 16) if rng.uniform() < 0.05 else 0.0
        shift = tall * np.sin(np.radians(lean))
        if x + thick + shift > width:
            break
        colour = int(rng.integers(colours))
        cover = [
            box((0, 0, 0), (0.003, tall, deep)),
            box((thick - 0.003, 0, 0), (thick, tall, deep)),
            box((0, 0, deep - 0.004), (thick, tall, deep), 0.002),
        ]
        pages = box((0.003, 0.004, 0), (thick - 0.003, tall - 0.005, deep - 0.006))
        for mesh in cover:
            groups[colour].append(mesh.turned("z", -lean).moved(x=x, y=0.0))
        groups[-1].append(pages.turned("z", -lean).moved(x=x, y=0.0))
        x += thick + shift + 0.001
        if rng.uniform() < 0.04:  # a gap that one can look into
            x += rng.uniform(0.03, 0.12)
    return groups


def stand(height: float, rod_radius: float = 0.012, foot: float = 0.16) -> Mesh:
    """Return a thin pole on a round foot: lamps, coat stands."""
    return join([rod((0, 0, 0), (0, height, 0), rod_radius), cylinder(foot, 0.02, bevel=0.004)])


def shade(bottom: float, top: float, height: float, thickness: float = 0.003) -> Mesh:
    """Return a conical lamp shade, open at both ends, from y = 0 to ``height``."""
    t = thickness
    return lathe([(bottom, 0), (top, height), (top - t, height), (bottom - t, 0), (bottom, 0)], 48)


# -------------------------------------------------------------------------------------------
# Vessels and ornaments
# -------------------------------------------------------------------------------------------

#: (radius, height) control points of vases, all about one unit high.
VASES: tuple[tuple[tuple[float, float], ...], ...] = (
    ((0.0, 0.0), (0.2, 0.0), (0.34, 0.3), (0.3, 0.55), (0.13, 0.8), (0.14, 0.93), (0.2, 1.0)),
    ((0.0, 0.0), (0.16, 0.0), (0.2, 0.12), (0.4, 0.45), (0.42, 0.62), (0.2, 0.86), (0.24, 1.0)),
    ((0.0, 0.0), (0.24, 0.0), (0.22, 0.25), (0.28, 0.6), (0.36, 0.85), (0.34, 1.0)),
    ((0.0, 0.0), (0.3, 0.0), (0.36, 0.12), (0.2, 0.4), (0.08, 0.6), (0.08, 0.9), (0.13, 1.0)),
)


def vase(kind: int, height: float, segments: int = 64) -> Mesh:
    """Return an open vase (outside, lip and inside) from :data:`VASES`."""
    outside = spline(VASES[kind % len(VASES)], 8)
    inside = np.maximum(outside[::-1] - np.array([0.025, 0.0]), [0.0, 0.03])
    return lathe(np.concatenate([outside, inside]) * height, segments, smooth=1)


def bowl(radius: float, height: float, wall: float = 0.006) -> Mesh:
    """Return an open bowl with a foot ring."""
    r, h = radius, height
    profile = [(0, 0), (0.35 * r, 0), (0.38 * r, 0.06 * h), (0.75 * r, 0.35 * h), (r, h)]
    profile += [(r - wall, h), (0.73 * r, 0.42 * h), (0.35 * r, 0.14 * h), (0, 0.1 * h)]
    return lathe(profile, 64, smooth=5)


def wine_glass(height: float = 0.2) -> Mesh:
    """Return a closed (solid-glass) stem glass."""
    outer = [(0, 0), (0.17, 0.0), (0.175, 0.012), (0.03, 0.04), (0.02, 0.2), (0.022, 0.4)]
    outer += [(0.1, 0.5), (0.19, 0.62), (0.2, 0.78), (0.165, 1.0)]
    inner = [(0.158, 1.0), (0.19, 0.78), (0.18, 0.63), (0.09, 0.52), (0.0, 0.475)]
    profile = np.concatenate([spline(outer, 6), spline(inner, 6)]) * height
    return lathe(profile, 64, smooth=1)


def tumbler(radius: float, height: float, wall: float = 0.003) -> Mesh:
    """Return a closed (solid-glass) straight drinking glass with a thick bottom."""
    r = radius
    return lathe(
        [
            (0, 0),
            (0.9 * r, 0),
            (0.93 * r, 0.004),
            (r, height),
            (r - wall, height),
            (0.88 * r, 0.016),
            (0, 0.014),
        ],
        64,
    )


def bottle(height: float = 0.3, radius: float = 0.037) -> Mesh:
    """Return a closed (solid-glass) bottle with a hollow inside."""
    r, h = radius, height
    outer = [
        (0, 0.012),
        (0.7 * r, 0.0),
        (r, 0.012),
        (r, 0.2 * h),
        (r, 0.58 * h),
        (0.75 * r, 0.7 * h),
    ]
    outer += [(0.36 * r, 0.78 * h), (0.34 * r, 0.95 * h), (0.4 * r, 0.96 * h), (0.4 * r, h)]
    inner = [(0.25 * r, h), (0.24 * r, 0.79 * h), (0.66 * r, 0.69 * h), (r - 0.003, 0.57 * h)]
    inner += [(r - 0.003, 0.2 * h), (r - 0.003, 0.022), (0.6 * r, 0.014), (0, 0.024)]
    profile = np.concatenate([spline(outer, 5), spline(inner, 5)])
    return lathe(profile, 48, smooth=1)


def knot(p: int, q: int, size: float, thickness: float, segments: int = 400) -> Mesh:
    """Return a (p, q) torus knot about the origin."""
    t = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    ring = size * (1 + 0.45 * np.cos(q * t))
    path = np.stack([ring * np.cos(p * t), 0.45 * size * np.sin(q * t), ring * np.sin(p * t)], 1)
    return tube(path, thickness, 20, closed=True)


# -------------------------------------------------------------------------------------------
# Plants
# -------------------------------------------------------------------------------------------


def leaf(length: float = 1.0, width: float = 0.4, droop: float = 0.25) -> Mesh:
    """Return a curved card along +z with uvs in 0..1, to be cut out by a leaf mask."""

    def function(s: Floats, t: Floats) -> tuple[Floats, Floats, Floats]:
        side = s - 0.5
        return (
            width * side,
            length * (droop * (t * 0.8 - t * t) * 1.2 + 0.5 * side * side * (1 - t)),
            length * t,
        )

    return surface(function, 2, 4).flipped()  # few quads: scenes have thousands of leaves


def foliage(
    rng: np.random.Generator,
    anchors: Floats,
    directions: Floats,
    card: Mesh,
    sizes: tuple[float, float],
) -> Mesh:
    """Put one leaf card at each anchor, pointing roughly along its direction, upper side up.

    Args:
        rng: Source of the sizes and tilts.
        anchors: (N, 3) positions of the stalks.
        directions: (N, 3) where the leaves point.
        card: A mesh along +z.
        sizes: Smallest and largest scale.
    """
    forward = directions + 0.25 * rng.standard_normal(directions.shape)
    forward /= np.linalg.norm(forward, axis=1, keepdims=True)
    up = np.array([0.0, 1.0, 0.0]) + 0.35 * rng.standard_normal(directions.shape)
    side = np.cross(up, forward)
    side /= np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-9)
    up = np.cross(forward, side)
    scale = rng.uniform(*sizes, len(anchors))[:, None, None]
    return scatter(card, np.stack([side, up, forward], axis=2) * scale, anchors)


def plant(
    rng: np.random.Generator, height: float, leaves: int, spread: float = 0.5
) -> tuple[Mesh, Mesh]:
    """Return (stems, leaf cards) of an arching house plant rooted at the origin."""
    stems, anchors, directions = [], [], []
    count = max(3, leaves // 7)
    size = height * (21 / leaves) ** 0.5  # more leaves are smaller ones
    for k in range(count):
        angle = 2.399963 * k + rng.uniform(-0.3, 0.3)  # the golden angle spreads the stems
        reach = spread * height * rng.uniform(0.3, 1.0)
        tall = height * rng.uniform(0.6, 1.0)
        out = np.array([np.sin(angle), 0.0, np.cos(angle)])
        up = np.array([0.0, 1.0, 0.0])
        path = spline([0 * up, 0.5 * tall * up + 0.25 * reach * out, tall * up + reach * out], 5)
        stems.append(tube(path, np.linspace(0.008, 0.003, len(path)) * height, 6))
        for j in range(leaves // count):
            place = path[-1 - (j * len(path) // (2 * max(1, leaves // count)))]
            turn = angle + (2.0 * (j % 3) - 2.0) * 0.6 + rng.uniform(-0.4, 0.4)
            anchors.append(place)
            directions.append([np.sin(turn), rng.uniform(-0.1, 0.5), np.cos(turn)])
    cards = foliage(rng, np.array(anchors), np.array(directions), leaf(), (0.3 * size, 0.55 * size))
    return join(stems), cards


def pot(radius: float, height: float) -> tuple[Mesh, Mesh]:
    """Return (pot, soil)."""
    r, h = radius, height
    shell = lathe(
        [
            (0, 0),
            (0.72 * r, 0),
            (0.95 * r, 0.82 * h),
            (r, 0.82 * h),
            (r, h),
            (0.9 * r, h),
            (0.88 * r, 0.8 * h),
        ],
        48,
    )
    return shell, cylinder(0.9 * r, 0.01).moved(y=0.85 * h)


def potted_plant(
    rng: np.random.Generator,
    height: float,
    leaves: int,
    radius: float,
    materials: tuple[str, str, str, str] = ("clay", "soil", "stem", "leaf"),
    spread: float = 0.5,
) -> dict[str, Mesh]:
    """Return a potted plant: meshes by the names of ``materials`` (pot, soil, stem, leaf)."""
    level = 1.4 * radius
    shell, soil = pot(radius, 1.65 * radius)
    stems, cards = (mesh.moved(y=level) for mesh in plant(rng, height, leaves, spread))
    return dict(zip(materials, (shell, soil, stems, cards), strict=True))
