"""Open-air scenes: sky and sun, leaves, wires, strings of lights."""

from __future__ import annotations

import numpy as np

from mitsuba_gdpt.scenes import parts
from mitsuba_gdpt.scenes.geometry import (
    Floats,
    Mesh,
    arch,
    box,
    cylinder,
    ellipsoid,
    join,
    lathe,
    panel,
    quad,
    rod,
    sphere,
    spline,
    surface,
    torus,
    tube,
)
from mitsuba_gdpt.scenes.materials import (
    bitmap,
    bumpy,
    glossy,
    leafy,
    matte,
    metal,
    pane,
    planck,
    polished,
)
from mitsuba_gdpt.scenes.registry import Camera, scene
from mitsuba_gdpt.scenes.textures import (
    bricks,
    noise,
    ramp,
    sky,
    tiles,
    wood,
)
from mitsuba_gdpt.scenes.world import World


def _compass(angle: float) -> Floats:
    """Return the horizontal unit vector at an angle in radians, from +z towards +x."""
    return np.array([np.sin(angle), 0.0, np.cos(angle)])


def _up(height: float) -> Floats:
    """Return a vertical vector."""
    return np.array([0.0, height, 0.0])


def _tree(rng: np.random.Generator, height: float, leaves: int, size: float) -> tuple[Mesh, Mesh]:
    """Return (wood, leaf cards) of a small broad-leaved tree."""
    trunk = spline([(0, 0, 0), (0.04, 0.25 * height, 0.02), (0.0, 0.5 * height, -0.03)], 4)
    branches = [tube(trunk, np.linspace(0.035, 0.022, len(trunk)) * height, 12)]
    tips = []
    for k in range(14):
        angle = 2.399963 * k
        start = trunk[-1 - (k % 5)]
        out = _compass(angle) * rng.uniform(0.14, 0.36) * height
        rise = _up(rng.uniform(0.18, 0.48) * height)
        path = spline([start, start + 0.5 * out + 0.35 * rise, start + out + rise], 5)
        branches.append(tube(path, np.linspace(0.014, 0.004, len(path)) * height, 6))
        tips.append(path[4:])
    points = np.concatenate(tips)
    pick = rng.integers(0, len(points), leaves)
    offset = rng.standard_normal((leaves, 3)) * 0.075 * height
    anchors = points[pick] + offset
    directions = offset / (0.075 * height) - _up(0.3)
    sizes = (0.7 * size, 1.3 * size)
    return join(branches), parts.foliage(rng, anchors, directions, parts.leaf(), sizes)


def _column(height: float, radius: float) -> Mesh:
    """Return a round column with base, entasis and capital."""
    r, h = radius, height
    shaft = [(1.0 * r, 0.3), (1.0 * r, 0.34), (0.98 * r, 0.5 * h), (0.82 * r, h - 0.3)]
    return join(
        [
            box((-1.4 * r, 0, -1.4 * r), (1.4 * r, 0.12, 1.4 * r), 0.01),
            torus(1.12 * r, 0.07).moved(y=0.18),
            torus(1.02 * r, 0.05).moved(y=0.28),
            lathe(shaft, 48, smooth=4),
            torus(0.84 * r, 0.035).moved(y=h - 0.3),
            lathe([(0.82 * r, h - 0.3), (0.86 * r, h - 0.2), (1.2 * r, h - 0.1)], 48, smooth=4),
            box((-1.3 * r, h - 0.1, -1.3 * r), (1.3 * r, h, 1.3 * r), 0.008),
        ]
    )


def _vines(w: World, rng: np.random.Generator, leaf: str) -> None:
    """Let vines climb five columns of the pergola, cover its roof in patches and hang down."""
    card = parts.leaf(width=0.8)
    for x, z, turns in (
        (-1.7, 0.0, 3.2),
        (1.7, 2.2, 4.0),
        (1.7, -2.2, 3.0),
        (-1.7, -4.4, 3.5),
        (-1.7, 4.4, 3.0),
    ):
        t = np.linspace(0, 1, 60)
        angle = 2 * np.pi * turns * t
        helix = np.stack([x + 0.19 * np.sin(angle), 2.75 * t, z + 0.19 * np.cos(angle)], axis=1)
        w.add("bark", tube(helix, np.linspace(0.02, 0.008, 60), 7))
        pick = rng.integers(6, 60, 150)
        out = helix[pick] - np.array([x, 0, z])
        out[:, 1] = -0.08
        anchors = helix[pick] + 0.04 * rng.standard_normal((150, 3))
        w.add(leaf, parts.foliage(rng, anchors, out, card, (0.08, 0.17)))

    count = 2600
    anchors = np.stack(
        [
            rng.uniform(-2.1, 2.1, count),
            2.86 + 0.12 * rng.standard_normal(count),
            rng.uniform(-5.0, 6.0, count),
        ],
        axis=1,
    )
    density = noise((64, 64), 35, 1.6)
    row, column = (anchors[:, [0, 2]] * [12, 5] + 30).astype(int).T % 64
    anchors = anchors[density[row, column] > 0.5]
    drop = rng.standard_normal(anchors.shape) - _up(0.6)
    w.add(leaf, parts.foliage(rng, anchors, drop, card, (0.09, 0.18)))

    for _ in range(26):  # hanging shoots
        x, z, long = rng.uniform(-1.6, 1.6), rng.uniform(-4.5, 4.0), rng.uniform(0.25, 0.75)
        line = spline([(x, 2.8, z), (x + 0.05, 2.8 - 0.5 * long, z + 0.04), (x, 2.8 - long, z)], 5)
        w.add("bark", tube(line, 0.004, 5))
        pick = rng.integers(1, len(line), 12)
        drop = rng.standard_normal((12, 3)) - _up(0.8)
        w.add(leaf, parts.foliage(rng, line[pick], drop, card, (0.07, 0.13)))


def _flowering_shrub(
    w: World,
    rng: np.random.Generator,
    at: tuple[float, float],
    radius: float,
    height: float,
    leaf: str,
) -> None:
    """Add a round shrub with flowers in a pot of the given radius at (x, z)."""
    x, z = at
    shell, soil = parts.pot(radius, 1.6 * radius)
    w.place({"clay": shell, "soil": soil}, x, 0, z)
    count = 420
    direction = rng.standard_normal((count, 3)) + _up(0.5)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    centre = np.array([x, 1.5 * radius + 0.42 * height, z])
    reach = np.array([0.42, 0.5, 0.42]) * height * rng.uniform(0.55, 1.0, (count, 1))
    anchors = centre + direction * reach
    w.add("bark", rod((x, 1.3 * radius, z), (x, 1.5 * radius + 0.4 * height, z), 0.025))
    w.add(leaf, parts.foliage(rng, anchors, direction, parts.leaf(), (0.08, 0.14)))
    blossom = ellipsoid(0.022, 0.018, 0.022, segments=10)
    w.add("flower", *(blossom.moved(*(1.1 * p - 0.1 * centre)) for p in anchors[:40]))


@scene(
    title="Pergola",
    tags=("environment", "textured", "mask", "thin", "interreflection"),
    camera=Camera((-0.75, 1.6, 6.4), (0.25, 1.42, -2.0), fov=54),
)
def pergola(w: World) -> None:
    """Walk under a pergola on a summer terrace: procedural sky, sun, slat shadows, vines.

    Hard and soft shadows alternate on textured paving, leaves are alpha-masked cards.
    """
    rng = np.random.default_rng(12)
    w.environment(
        sky(
            (-0.6, 0.72, 0.42),
            5,
            sun_radiance=3600,
            sun_degrees=1.6,
            clouds=0.4,
            ground=(0.55, 0.6, 0.62),
        ),
        0.75,
    )
    paving = tiles(("cdbb9c", "bfa98a", "d8cab0"), "8d7f6a", 31, 6)
    w.material("paving", matte(bitmap(paving, 3.0)))
    grain = ramp(["d6c9b0", "efe6d4"], noise((256, 256), 32, 1.4))
    w.material("stone", matte(bitmap(grain, 1.2)))
    w.material("timber", matte(bitmap(wood("a07a52", "5a3f26", 33, planks=2), 0.8)))
    w.material("clay", matte("b9653d"))
    w.material("soil", matte(0.03))
    w.material("bark", matte("5b4a35"))
    field = ramp(["53663a", "8a9a52", "a8a45e"], noise((256, 256), 34, 1.6))
    w.material("field", matte(bitmap(field, 40.0)))
    w.material("iron", metal("Cr", 0.35))
    w.material("water", polished("2f5d63"))
    vine = w.material("vine", leafy("a9c05a", "3c6a24", lobes=3))
    shrub = w.material("shrub", leafy("7fa04a", "27501f"))
    w.material("flower", matte("b23a6b"))

    w.add("paving", quad((-4, 0, 8), (8, 0, 0), (0, 0, -13)))
    hills = surface(
        lambda s, t: (
            400 * (s - 0.5),
            -7.0
            + 14 * t**1.5 * (1 + 0.55 * np.sin(9 * s + 1.0) + 0.35 * np.sin(23 * s + 5 * t))
            + 1.2 * np.sin(40 * s) * t,
            -5.5 - 170 * t,
        ),
        160,
        40,
        (400, 170),
    )
    w.add("field", hills)
    w.add("stone", box((-4, -8, -5.3), (4, -0.01, -5.0)))
    # Two rows of columns, beams, rafters.
    for z in (-4.4, -2.2, 0.0, 2.2, 4.4):
        for x in (-1.7, 1.7):
            w.add("stone", _column(2.6, 0.17).moved(x, 0, z))
    for x in (-1.7, 1.7):
        w.add("timber", box((x - 0.1, 2.6, -5.0), (x + 0.1, 2.8, 6.4), 0.01))
    for z in np.arange(-4.8, 6.4, 0.46):
        w.add("timber", box((-2.2, 2.8, z - 0.04), (2.2, 2.95, z + 0.04), 0.008))
    for x in (-1.1, -0.4, 0.4, 1.1):
        w.add("timber", box((x - 0.02, 2.95, -5.0), (x + 0.02, 2.99, 6.4)))
    # The balustrade at the end and on the right, with turned balusters.
    baluster = lathe(
        [(0.05, 0), (0.05, 0.04), (0.03, 0.1), (0.065, 0.25), (0.03, 0.5), (0.05, 0.6)],
        20,
        smooth=3,
    )
    for k in range(21):
        w.add("stone", baluster.moved(-3.8 + 0.38 * k, 0.1, -4.85))
    w.add(
        "stone",
        box((-4, 0, -5.0), (4, 0.1, -4.7), 0.01),
        box((-4, 0.7, -5.02), (4, 0.8, -4.68), 0.015),
    )
    for x in (-4.0, 0.0, 4.0):
        w.add("stone", box((x - 0.16, 0, -5.03), (x + 0.16, 0.9, -4.67), 0.012))

    _vines(w, rng, vine)

    # Pots with shrubs and flowers, a bench, a stone bird bath.
    for x, z, r, tall in (
        (-1.25, 2.6, 0.26, 0.75),
        (1.15, 0.6, 0.3, 0.95),
        (-1.2, -1.5, 0.26, 0.8),
        (1.1, -3.6, 0.28, 0.8),
    ):
        _flowering_shrub(w, rng, (x, z), r, tall, shrub)
    w.add(
        "timber",
        *(box((0.95 + 0.09 * k, 0.43, 2.7), (1.02 + 0.09 * k, 0.46, 4.1), 0.004) for k in range(5)),
    )
    w.add(
        "timber",
        *(box((1.42, 0.55 + 0.1 * k, 2.7), (1.45, 0.62 + 0.1 * k, 4.1), 0.004) for k in range(4)),
    )
    for z in (2.8, 4.0):
        w.add(
            "iron", tube([(1.0, 0, z), (1.0, 0.42, z), (1.42, 0.42, z), (1.47, 0.95, z)], 0.015, 8)
        )
        w.add("iron", rod((1.4, 0, z), (1.4, 0.42, z), 0.015, 8))
    profile = [(0.26, 0), (0.26, 0.06), (0.12, 0.14), (0.1, 0.62), (0.16, 0.7), (0.42, 0.82)]
    profile += [(0.42, 0.86), (0.38, 0.86), (0.1, 0.78), (0, 0.78)]
    w.add("stone", lathe(profile, 64).moved(-0.1, 0, -3.2))
    w.add("water", cylinder(0.36, 0.01, 64).moved(-0.1, 0.83, -3.2))


def _shutter(height: float) -> Mesh:
    """Return a louvred shutter, 0.4 m wide, hinged on x = 0."""
    slats = [
        box((0, 0.02 + 0.06 * j, -0.012), (0.4, 0.065 + 0.06 * j, 0.012))
        for j in range(round(height / 0.06))
    ]
    stiles = [box((x, 0, -0.018), (x + 0.04, height, 0.018)) for x in (0.0, 0.36)]
    return join([*slats, *stiles])


def _bistro_table(w: World, x: float, z: float, turn: float, chair: Mesh) -> None:
    """Add a round table with a cloth, three chairs, plates, a bottle and a lit candle."""
    w.add("cloth", cylinder(0.52, 0.03, 64, 0.01).moved(x, 0.72, z))
    w.add("iron", rod((x, 0, z), (x, 0.72, z), 0.03), cylinder(0.28, 0.03).moved(x, 0, z))

    def skirt(s: Floats, t: Floats) -> tuple[Floats, Floats, Floats]:
        radius = 0.52 + 0.03 * t * np.cos(28 * np.pi * s)
        angle = 2 * np.pi * s
        return radius * np.sin(angle), 0.745 - 0.2 * t, radius * np.cos(angle)

    w.add("cloth", surface(skirt, 168, 4).moved(x, 0, z))
    w.add("wine", parts.bottle(0.3, 0.038).moved(x + 0.15, 0.75, z - 0.1))
    plate = cylinder(0.1, 0.012, 40, 0.004)
    for k in range(3):
        angle = np.radians(turn + 120 * k)
        seat = 0.78 * _compass(angle) + [x, 0, z]
        w.add("timber", chair.turned("y", turn + 120 * k + 180).moved(*seat))
        w.add("glaze", plate.moved(*(0.3 * _compass(angle + 0.6) + [x, 0.75, z])))
    w.add("glaze", cylinder(0.025, 0.09, 20).moved(x - 0.06, 0.75, z + 0.05))
    w.ball_light((x - 0.06, 0.862, z + 0.05), 0.02, planck(2000, 130.0))


@scene(
    title="String lights",
    tags=("many-lights", "thin", "textured", "bump", "glossy"),
    camera=Camera((-1.3, 1.6, 6.2), (0.2, 1.75, -1.0), fov=62),
)
def string_lights(w: World) -> None:
    """Hang a hundred coloured bulbs over a courtyard at dusk, with candles on the tables.

    Every light is small and near something: choosing among many emitters decides the noise.
    """
    rng = np.random.default_rng(9)
    w.environment(
        sky(
            (-0.9, 0.06, -0.5),
            8,
            sun_radiance=0.0,
            zenith=(0.05, 0.08, 0.2),
            horizon=(0.45, 0.25, 0.22),
            ground=(0.01, 0.01, 0.01),
            clouds=0.35,
        ),
        0.3,
    )
    red, relief = bricks("9a5a42", "a89c8a", 61)
    w.material(
        "brick", bumpy(bitmap(relief, (1.2, 0.75), raw=True), 0.02, matte(bitmap(red, (1.2, 0.75))))
    )
    cobble, bump = bricks("77706a", "3d3934", 62, rows=8, columns=8)
    w.material(
        "cobble", bumpy(bitmap(bump, 1.2, raw=True), 0.02, glossy(bitmap(cobble, 1.2), 0.25))
    )
    w.material(
        "plaster", matte(bitmap(ramp(["c9a878", "e3cba0"], noise((256, 256), 63, 1.6)), 3.0))
    )
    w.material("shutter", glossy("3f6b64", 0.25))
    w.material("stone", matte("bdb3a2"))
    w.material("timber", glossy(bitmap(wood("9a6d42", "553519", 64, planks=3), 0.8), 0.2))
    w.material("iron", metal("Cr", 0.3))
    w.material("wire", matte(0.02))
    w.material("cloth", matte("d8d2c4"))
    w.material("clay", matte("b9653d"))
    w.material("bark", matte("5b4a35"))
    w.material("soil", matte(0.03))
    w.material("glaze", polished("e6e0d2"))
    w.material("wine", glossy("20402a", 0.05))
    leaf = w.material("leaf", leafy("a9c463", "4a7a38"))

    w.add("cobble", quad((-5, 0, 8), (10, 0, 0), (0, 0, -12)))
    # Left: plaster house with shuttered windows; right: brick wall; back: an arcade.
    windows = [
        (0.0, 0.9, 0.8, 2.2),
        (2.2, 0.9, 3.0, 2.2),
        (-2.4, 0.9, -1.6, 2.2),
        (0.0, 3.2, 0.8, 4.3),
        (2.2, 3.2, 3.0, 4.3),
        (-2.4, 3.2, -1.6, 4.3),
    ]
    holes = [(b, a, d, c) for a, b, c, d in windows]  # along y, z
    w.add("plaster", panel((-4.2, 0, -4), (-3.9, 5.5, 8), holes))
    for k, (z0, y0, z1, y1) in enumerate(windows):
        w.add("stone", box((-3.95, y0 - 0.1, z0 - 0.1), (-3.8, y0, z1 + 0.1), 0.01))
        w.add("shutter", parts.sash(z1 - z0, y1 - y0, 2, 3).turned("y", 90).moved(-4.0, y0, z1))
        shutter = _shutter(y1 - y0)
        w.add("shutter", shutter.turned("y", 66).moved(-3.88, y0, z0))
        w.add("shutter", shutter.turned("y", -66).moved(-3.88, y0, z1))
        if k in (0, 2, 4):
            w.panel_light(
                (-4.35, (y0 + y1) / 2, (z0 + z1) / 2),
                (0, (y0 + y1) / 2, (z0 + z1) / 2),
                (z1 - z0, y1 - y0),
                planck(3000, 3.5),
            )
    w.add("brick", box((3.9, 0, -4), (4.2, 4.2, 8)))
    for x in (-2.9, -0.7, 1.5):
        w.add("brick", arch(1.5, 1.7, 4.4, 2.2, 0.4).moved(x, 0, -3.6))
    w.add("brick", box((2.6, 0, -3.6), (4.0, 4.4, -3.2)))
    w.add("plaster", quad((-4.2, 0, -5.4), (8.4, 0, 0), (0, 4.4, 0)))
    w.add("stone", box((-4.2, 4.4, -3.7), (4.2, 4.55, -3.1), 0.015))
    for x in (-2.9, -0.7, 1.5):
        w.ball_light((x, 2.5, -4.6), 0.12, planck(3200, 30.0))

    # Strings of bulbs in catenaries across the court.
    colours = [
        (1.0, 0.55, 0.2),
        (1.0, 0.75, 0.45),
        (1.0, 0.25, 0.12),
        (0.3, 0.9, 0.45),
        (0.25, 0.5, 1.0),
    ]
    ends = [
        ((-3.9, 3.4, -2.6), (3.9, 3.6, -1.4)),
        ((3.9, 3.6, -1.4), (-3.9, 3.5, 0.2)),
        ((-3.9, 3.5, 0.2), (3.9, 3.6, 1.6)),
        ((3.9, 3.6, 1.6), (-3.9, 3.5, 3.2)),
        ((-3.9, 3.5, 3.2), (3.9, 3.6, 4.6)),
    ]
    socket = cylinder(0.016, 0.05, 10)
    for a, b in ends:
        t = np.linspace(0, 1, 81)[:, None]
        line = (1 - t) * np.array(a) + t * np.array(b) - _up(2.6) * t * (1 - t)
        w.add("wire", tube(line, 0.006, 5))
        for k in range(20):
            at = line[2 + 4 * k] - _up(0.075)
            w.add("wire", socket.moved(*(at + _up(0.025))))
            hue = np.array(colours[int(rng.integers(len(colours)))])
            w.ball_light(at, 0.05, tuple(float(c) for c in 46.0 * hue))
    for k, (x, y, z) in enumerate(  # paper lanterns: large and dim enough to show their colours
        (
            (-2.6, 2.35, 1.2),
            (-0.9, 2.5, -1.6),
            (2.5, 2.4, 1.9),
            (2.9, 2.3, -1.3),
            (-3.0, 2.4, -2.2),
            (1.0, 2.55, 2.6),
        )
    ):
        hue = np.array(colours[k % len(colours)])
        w.add(
            "wire",
            rod((x, y, z), (x, 3.25, z), 0.004, 5),
            cylinder(0.06, 0.03, 20).moved(x, y + 0.15, z),
        )
        w.ball_light((x, y, z), 0.17, tuple(float(c) for c in 0.95 * hue + 0.03))

    # Tables with candles, chairs, a tree in a stone ring, pots along the walls.
    chair = parts.chair()
    for x, z, turn in ((-1.6, 2.5, 20), (1.5, 3.2, -35), (-1.9, -0.8, 60), (2.2, -0.6, 10)):
        _bistro_table(w, x, z, turn, chair)
    trunk, cards = _tree(rng, 3.6, 2200, 0.16)
    w.add("bark", trunk.moved(1.0, 0.2, 0.2))
    w.add(leaf, cards.moved(1.0, 0.2, 0.2))
    w.add("stone", torus(0.62, 0.14).scaled(1, 1.4, 1).moved(1.0, 0.18, 0.2))
    w.add("bark", cylinder(0.6, 0.22).moved(1.0, 0, 0.2))
    for x, z, tall in (
        (3.45, 0.9, 0.8),
        (3.5, 2.4, 1.0),
        (-3.45, -0.6, 0.9),
        (3.4, -2.6, 1.0),
        (-3.4, 3.9, 0.9),
    ):
        materials = ("clay", "soil", "bark", leaf)
        w.place(parts.potted_plant(rng, tall, 56, 0.22, materials), x, 0, z)


def _spiral_stair(steps: int = 15, radius: float = 0.85, rise: float = 0.19) -> Mesh:
    """Return a spiral stair around a post, with two balusters per tread and a double rail."""
    pieces = [rod((0, 0, 0), (0, 3.4, 0), 0.045, 16)]
    tread = box((0.04, -0.015, -0.13), (radius, 0.0, 0.13), 0.004)
    rail = []
    for k in range(steps):
        turn, y = 24.0 * k + 100, rise * (k + 1)
        pieces.append(tread.turned("y", turn).moved(y=y))
        for part in (0.0, 0.5):
            foot = radius * _compass(np.radians(turn + 24 * part + 90)) + _up(y + rise * part)
            pieces.append(rod(foot, foot + _up(0.9), 0.007, 6))
            rail.append(foot + _up(0.9))
    pieces += [tube(rail, 0.018, 10), tube(np.array(rail) - _up(0.45), 0.007, 6)]
    return join(pieces)


def _plant_stand(w: World, rng: np.random.Generator, at: Floats, leaves: tuple[str, str]) -> None:
    """Add a tiered stand of wire with small potted plants on it."""
    for level, radius in ((0.3, 0.55), (0.75, 0.42), (1.2, 0.28)):
        centre = at + _up(level)
        ring = torus(radius, 0.008, 48, 6).moved(*centre)
        w.add("dark", ring, ring.moved(y=0.12))
        for angle in np.linspace(0, 2 * np.pi, 25)[:-1]:
            rim = centre + radius * _compass(angle)
            w.add("dark", rod(centre, rim, 0.004, 5), rod(rim, rim + _up(0.12), 0.003, 5))
        for k in range(max(1, int(7 * radius / 0.55))):
            place = centre + 0.62 * radius * _compass(2.4 * k + level) + _up(0.01)
            materials = ("clay", "soil", "stem", leaves[k % 2])
            w.place(parts.potted_plant(rng, 0.34, 21, 0.085, materials, 0.7), *place)
    for angle in np.linspace(0, 2 * np.pi, 4)[:-1]:
        out = _compass(angle)
        w.add("dark", tube([at + 0.6 * out, at + 0.27 * out + _up(1.32)], 0.012, 8))


def _bird_cage(radius: float = 0.24, wall: float = 0.26) -> Mesh:
    """Return a domed cage of wires with a perch."""
    pieces = [torus(radius, 0.005, 48, 6).moved(y=y) for y in (0.0, wall / 2, wall)]
    t = np.linspace(0, np.pi, 25)
    arc = np.stack([radius * np.cos(t), wall + 0.3 * np.sin(t), 0 * t], axis=1)
    wire = tube(np.concatenate([[(radius, 0, 0)], arc, [(-radius, 0, 0)]]), 0.0035, 5)
    pieces += [wire.turned("y", 15.0 * k) for k in range(12)]
    pieces += [cylinder(radius + 0.005, 0.015), rod((-0.2, 0.16, 0), (0.2, 0.16, 0), 0.006, 6)]
    return join(pieces)


def _hanging_basket(w: World, rng: np.random.Generator, at: Floats, leaf: str) -> None:
    """Hang a bowl of trailing plants from the roof by three wires."""
    w.add("dark", parts.bowl(0.22, 0.2).moved(*at))
    knot = at + _up(0.85)
    for angle in (0.0, 2.094, 4.189):
        w.add("dark", rod(at + 0.21 * _compass(angle) + _up(0.2), knot, 0.003, 5))
    w.add("dark", rod(knot, (at[0], 3.4, at[2]), 0.003, 5))
    for _ in range(16):
        out, long = _compass(rng.uniform(0, 2 * np.pi)), rng.uniform(0.15, 0.6)
        line = spline([0 * out, 0.22 * out + _up(0.08), 0.3 * out - _up(long)], 6) + at + _up(0.2)
        w.add("stem", tube(line, 0.003, 5))
        pick = rng.integers(2, len(line), 12)
        aim = 0.5 * out + 0.5 * rng.standard_normal((12, 3)) - _up(0.5)
        w.add(leaf, parts.foliage(rng, line[pick], aim, parts.leaf(), (0.05, 0.1)))


def _wire_chair() -> Mesh:
    """Return a garden chair of thin wires that faces +z."""
    pieces = [tube([(-0.2, 0.95, -0.26), (0.2, 0.95, -0.26)], 0.01, 8)]
    for x in np.linspace(-0.2, 0.2, 9):
        bend = [(x, 0.95, -0.26), (x, 0.55, -0.2), (x, 0.45, -0.16), (x, 0.44, 0.2)]
        pieces.append(tube(spline(bend, 4), 0.004, 5))
    pieces += [rod((-0.2, 0.445, z), (0.2, 0.445, z), 0.004, 5) for z in np.linspace(-0.16, 0.2, 8)]
    for side in (-1, 1):
        for z in (-0.16, 0.2):
            pieces.append(rod((side * 0.24, 0, 1.2 * z), (side * 0.2, 0.44, z), 0.009, 8))
    return join(pieces)


@scene(
    title="Glasshouse",
    tags=("thin", "mask", "environment", "glossy", "glass"),
    camera=Camera((-0.55, 1.55, 5.2), (0.15, 1.55, -1.0), fov=60),
)
def glasshouse(w: World) -> None:
    """Fill an iron glasshouse with glazing bars, railings, wires, cages and leaves.

    Most edges are thinner than a pixel, and a spiral stair makes them overlap.
    """
    rng = np.random.default_rng(31)
    w.environment(
        sky(
            (-0.35, 0.8, -0.45),
            15,
            sun_radiance=420,
            sun_degrees=3.0,
            clouds=0.6,
            ground=(0.16, 0.25, 0.08),
        ),
        1.05,
    )
    w.material("iron", glossy("e9ece6", 0.2))
    w.material("dark", metal("Cr", 0.25))
    w.material("rail", glossy("24382f", 0.15))
    checks = tiles(["c7bfae", "7f8f86"], "5d5a52", 71, 8, checker=True)
    w.material("floor", glossy(bitmap(checks, 2.4), 0.15))
    w.material("brick", matte(bitmap(bricks("a86a4d", "b5a996", 72)[0], (1.2, 0.8))))
    w.material("clay", matte("b9653d"))
    w.material("soil", matte(0.03))
    w.material("stem", matte("55682f"))
    w.material("pane", pane())
    w.material("copper", metal("Cu", 0.15))
    w.material("lawn", matte(bitmap(ramp(["4f7034", "86a352"], noise((256, 256), 73, 1.2)), 8.0)))
    broad = w.material("broad", leafy("a5cf6c", "3f7f35"))
    fern = w.material("fern", leafy("bfdc78", "56953a", lobes=7))

    w.add("floor", quad((-2.6, 0, 6), (5.2, 0, 0), (0, 0, -10)))
    w.add("lawn", quad((-60, -0.02, 60), (120, 0, 0), (0, 0, -120)))
    # Low brick walls, glazed sides, a gabled roof; panes only in the gable end, where one sees them
    for x in (-2.7, 2.6):
        w.add("brick", box((x, 0, -4), (x + 0.1, 0.6, 6)))
        w.add("iron", parts.sash(10, 2.0, 20, 2, 0.035).turned("y", 90).moved(x + 0.05, 0.6, 6))
    w.add("brick", panel((-2.7, 0, -4.1), (2.7, 0.6, -4), [(-0.7, 0, 0.7, 0.6)]))
    w.add("iron", parts.sash(2.0, 2.0, 4, 3, 0.035).moved(-2.7, 0.6, -4.05))
    w.add("iron", parts.sash(2.0, 2.0, 4, 3, 0.035).moved(0.7, 0.6, -4.05))
    w.add("iron", parts.sash(1.4, 2.6, 2, 4, 0.05).moved(-0.7, 0, -4.05))
    w.add(
        "pane",
        quad((-2.7, 0.6, -4.05), (2.0, 0, 0), (0, 2.0, 0)),
        quad((0.7, 0.6, -4.05), (2.0, 0, 0), (0, 2.0, 0)),
    )
    ridge, eave = 3.9, 2.6
    for z in np.arange(-4.05, 6.1, 0.5):
        for side in (-1, 1):
            w.add("iron", rod((side * 2.65, eave, z), (0, ridge, z), 0.014, 8))
    for height in np.linspace(0, 1, 5):
        for side in (-1, 1):
            x, y = side * 2.65 * (1 - height), eave + (ridge - eave) * height
            w.add("iron", rod((x, y, -4.05), (x, y, 6), 0.012 if 0 < height < 1 else 0.03, 8))
    for z in (-2.0, 0.5, 3.0):  # tie rods and hangers
        w.add(
            "iron",
            rod((-2.65, eave, z), (2.65, eave, z), 0.009, 8),
            rod((0, eave, z), (0, ridge, z), 0.007, 8),
        )
        for side in (-1, 1):
            w.add("iron", rod((side * 1.3, eave, z), (side * 1.3, eave + 0.64, z), 0.006, 6))

    w.add("rail", _spiral_stair().moved(-1.05, 0, -1.5))
    _plant_stand(w, rng, np.array([1.7, 0.0, -0.8]), (broad, fern))
    w.add("copper", _bird_cage().moved(0.62, 1.75, 0.55))
    w.add("copper", rod((0.62, 2.31, 0.55), (0.62, 3.6, 0.55), 0.004, 5))
    for x, y, z in ((-0.9, 2.15, 1.4), (1.55, 2.05, 1.9), (0.5, 2.2, -1.9), (-1.9, 2.1, 2.9)):
        _hanging_basket(w, rng, np.array([x, y, z]), broad)
    for x, z, tall, kind, count in (
        (-2.2, 0.2, 1.1, fern, 150),
        (2.1, -2.9, 2.0, fern, 260),
        (0.55, -3.5, 1.3, fern, 200),
        (2.2, 0.9, 1.0, broad, 150),
        (-2.25, 1.9, 0.8, broad, 130),
        (-2.2, -3.4, 1.9, broad, 260),
    ):
        materials = ("clay", "soil", "stem", kind)
        w.place(parts.potted_plant(rng, tall, count, 0.26, materials, 0.4), x, 0, z)
    w.add("rail", _wire_chair().turned("y", 30).moved(-0.35, 0, 0.9))
    small_table = [
        cylinder(0.34, 0.012, 48).moved(y=0.7),
        rod((0, 0, 0), (0, 0.7, 0), 0.02),
        torus(0.22, 0.012, 40, 8).moved(y=0.02),
    ]
    w.add("rail", join(small_table).moved(0.45, 0, 1.2))
    cup = [(0, 0), (0.07, 0), (0.08, 0.1), (0.05, 0.13), (0.045, 0.12), (0.07, 0.09), (0, 0.02)]
    w.add("copper", lathe(cup, 32, smooth=3).moved(0.45, 0.712, 1.2))
    w.add("copper", sphere(0.03).moved(0.62, 0.742, 1.12))
