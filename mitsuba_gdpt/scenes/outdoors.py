"""Open-air scenes: sky and sun, leaves, wires, strings of lights."""

from __future__ import annotations

from typing import Any

import numpy as np

from mitsuba_gdpt.scenes import parts
from mitsuba_gdpt.scenes.geometry import (
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


def _tree(rng: np.random.Generator, height: float, leaves: int, size: float) -> tuple[Mesh, Mesh]:
    """Return (wood, leaf cards) of a small broad-leaved tree."""
    branches: list[Mesh] = []
    anchors: Any = []
    directions: Any = []
    trunk = spline([(0, 0, 0), (0.04, 0.25 * height, 0.02), (0.0, 0.5 * height, -0.03)], 4)
    branches.append(tube(trunk, np.linspace(0.035, 0.022, len(trunk)) * height, 12))
    tips = []
    for k in range(14):
        angle = 2.399963 * k
        start = trunk[-1 - (k % 5)]
        out = np.array([np.sin(angle), 0.0, np.cos(angle)]) * rng.uniform(0.14, 0.36) * height
        rise = np.array([0.0, rng.uniform(0.18, 0.48) * height, 0.0])
        path = spline([start, start + 0.5 * out + 0.35 * rise, start + out + rise], 5)
        branches.append(tube(path, np.linspace(0.014, 0.004, len(path)) * height, 6))
        tips.append(path[4:])
    points = np.concatenate(tips)
    pick = rng.integers(0, len(points), leaves)
    offset = rng.standard_normal((leaves, 3)) * 0.075 * height
    anchors = points[pick] + offset
    directions = offset / (0.075 * height) + np.array([0.0, -0.3, 0.0])
    return join(branches), parts.foliage(
        rng, anchors, directions, parts.leaf(), (0.7 * size, 1.3 * size)
    )


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

    # Vines climb three of the columns and hang from the rafters.
    for x, z, turns in (
        (-1.7, 0.0, 3.2),
        (1.7, 2.2, 4.0),
        (1.7, -2.2, 3.0),
        (-1.7, -4.4, 3.5),
        (-1.7, 4.4, 3.0),
    ):
        t = np.linspace(0, 1, 60)
        helix = np.stack(
            [
                x + 0.19 * np.sin(2 * np.pi * turns * t),
                2.75 * t,
                z + 0.19 * np.cos(2 * np.pi * turns * t),
            ],
            axis=1,
        )
        w.add("bark", tube(helix, np.linspace(0.02, 0.008, 60), 7))
        pick = rng.integers(6, 60, 150)
        out = helix[pick] - np.array([x, 0, z])
        out[:, 1] = -0.08
        w.add(
            vine,
            parts.foliage(
                rng,
                helix[pick] + 0.04 * rng.standard_normal((150, 3)),
                out,
                parts.leaf(width=0.8),
                (0.08, 0.17),
            ),
        )
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
    keep = (
        density[
            (anchors[:, 0] * 12 + 30).astype(int) % 64, (anchors[:, 2] * 5 + 30).astype(int) % 64
        ]
        > 0.5
    )
    anchors = anchors[keep]
    drop = rng.standard_normal(anchors.shape) + np.array([0, -0.6, 0])
    w.add(vine, parts.foliage(rng, anchors, drop, parts.leaf(width=0.8), (0.09, 0.18)))
    for _ in range(26):  # hanging shoots
        x, z, long = rng.uniform(-1.6, 1.6), rng.uniform(-4.5, 4.0), rng.uniform(0.25, 0.75)
        line = spline([(x, 2.8, z), (x + 0.05, 2.8 - 0.5 * long, z + 0.04), (x, 2.8 - long, z)], 5)
        w.add("bark", tube(line, 0.004, 5))
        pick = rng.integers(1, len(line), 12)
        w.add(
            vine,
            parts.foliage(
                rng,
                line[pick],
                rng.standard_normal((12, 3)) - [0, 0.8, 0],
                parts.leaf(width=0.8),
                (0.07, 0.13),
            ),
        )

    # Pots with shrubs and flowers, a bench, a stone bird bath.
    for x, z, r, tall in (
        (-1.25, 2.6, 0.26, 0.75),
        (1.15, 0.6, 0.3, 0.95),
        (-1.2, -1.5, 0.26, 0.8),
        (1.1, -3.6, 0.28, 0.8),
    ):
        shell, soil = parts.pot(r, 1.6 * r)
        w.place({"clay": shell, "soil": soil}, x, 0, z)
        count = 420
        direction = rng.standard_normal((count, 3)) + np.array([0, 0.5, 0])
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        centre = np.array([x, 1.5 * r + 0.42 * tall, z])
        shell_points = centre + direction * np.array([0.42, 0.5, 0.42]) * tall * rng.uniform(
            0.55, 1.0, (count, 1)
        )
        w.add("bark", rod((x, 1.3 * r, z), (x, 1.5 * r + 0.4 * tall, z), 0.025))
        w.add(shrub, parts.foliage(rng, shell_points, direction, parts.leaf(), (0.08, 0.14)))
        for point in shell_points[:40]:
            w.add(
                "flower",
                ellipsoid(0.022, 0.018, 0.022, segments=10).moved(
                    *(point + 0.1 * (point - centre))
                ),
            )
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
    w.add(
        "stone",
        lathe(
            [
                (0.26, 0),
                (0.26, 0.06),
                (0.12, 0.14),
                (0.1, 0.62),
                (0.16, 0.7),
                (0.42, 0.82),
                (0.42, 0.86),
                (0.38, 0.86),
                (0.1, 0.78),
                (0, 0.78),
            ],
            64,
        ).moved(-0.1, 0, -3.2),
    )
    w.add("water", cylinder(0.36, 0.01, 64).moved(-0.1, 0.83, -3.2))


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
        for z, turn in ((z0, 24), (z1, -24)):
            slats = [
                box((0, 0.02 + 0.06 * j, -0.012), (0.4, 0.065 + 0.06 * j, 0.012))
                for j in range(round((y1 - y0) / 0.06))
            ]
            leaf_panel = join(
                [
                    *slats,
                    box((0, 0, -0.018), (0.04, y1 - y0, 0.018)),
                    box((0.36, 0, -0.018), (0.4, y1 - y0, 0.018)),
                ]
            )
            side = leaf_panel.turned("y", 90 - turn if z == z0 else -90 - turn)
            w.add("shutter", side.moved(-3.88, y0, z))
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
    for a, b in ends:
        t = np.linspace(0, 1, 81)[:, None]
        line = (1 - t) * np.array(a) + t * np.array(b) - np.array([0.0, 2.6, 0.0]) * t * (1 - t)
        w.add("wire", tube(line, 0.006, 5))
        for k in range(20):
            at = line[2 + 4 * k] - np.array([0, 0.075, 0])
            w.add("wire", cylinder(0.016, 0.05, 10).moved(*(at + np.array([0, 0.025, 0]))))
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
    for x, z, turn in ((-1.6, 2.5, 20), (1.5, 3.2, -35), (-1.9, -0.8, 60), (2.2, -0.6, 10)):
        w.add("cloth", cylinder(0.52, 0.03, 64, 0.01).moved(x, 0.72, z))
        w.add("iron", rod((x, 0, z), (x, 0.72, z), 0.03), cylinder(0.28, 0.03).moved(x, 0, z))
        skirt = surface(
            lambda s, t: (
                (0.52 + 0.03 * t * np.cos(28 * np.pi * s)) * np.sin(2 * np.pi * s),
                0.745 - 0.2 * t,
                (0.52 + 0.03 * t * np.cos(28 * np.pi * s)) * np.cos(2 * np.pi * s),
            ),
            168,
            4,
        )
        w.add("cloth", skirt.moved(x, 0, z))
        w.add("wine", parts.bottle(0.3, 0.038).moved(x + 0.15, 0.75, z - 0.1))
        for k in range(3):
            a = np.radians(turn + 120 * k)
            w.add(
                "timber",
                parts.chair()
                .turned("y", turn + 120 * k + 180)
                .moved(x + 0.78 * np.sin(a), 0, z + 0.78 * np.cos(a)),
            )
            cx, cz = x + 0.3 * np.sin(a + 0.6), z + 0.3 * np.cos(a + 0.6)
            w.add("glaze", cylinder(0.1, 0.012, 40, 0.004).moved(cx, 0.75, cz))
        w.add("glaze", cylinder(0.025, 0.09, 20).moved(x - 0.06, 0.75, z + 0.05))
        w.ball_light((x - 0.06, 0.862, z + 0.05), 0.02, planck(2000, 130.0))
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

    # A spiral stair around a post on the left.
    centre = np.array([-1.05, 0.0, -1.5])
    w.add("rail", rod(centre, centre + (0, 3.4, 0), 0.045, 16))
    steps, outer = 15, 0.85
    rail_points = []
    for k in range(steps):
        turn = 24.0 * k + 100
        y = 0.19 * (k + 1)
        tread = box((0.04, -0.015, -0.13), (outer, 0.0, 0.13), 0.004)
        w.add("rail", tread.turned("y", turn).moved(*centre).moved(y=y))
        for sub in (0.0, 12.0):
            a = np.radians(turn + sub)
            foot = centre + np.array([outer * np.cos(a), y + 0.19 * sub / 24, -outer * np.sin(a)])
            w.add("rail", rod(foot, foot + (0, 0.9, 0), 0.007, 6))
            rail_points.append(foot + np.array([0, 0.9, 0]))
    w.add(
        "rail", tube(rail_points, 0.018, 10), tube(np.array(rail_points) - [0, 0.45, 0], 0.007, 6)
    )

    # Wire plant stands, bird cage, hanging baskets, wire chair.
    stand = np.array([1.7, 0.0, -0.8])
    for level, radius in ((0.3, 0.55), (0.75, 0.42), (1.2, 0.28)):
        ring = torus(radius, 0.008, 48, 6).moved(*stand)
        w.add("dark", ring.moved(y=level), ring.moved(y=level + 0.12))
        for a in np.linspace(0, 2 * np.pi, 25)[:-1]:
            direction = np.array([np.sin(a), 0, np.cos(a)])
            w.add(
                "dark",
                rod(stand + (0, level, 0), stand + (0, level, 0) + radius * direction, 0.004, 5),
            )
            w.add(
                "dark",
                rod(
                    stand + (0, level, 0) + radius * direction,
                    stand + (0, level + 0.12, 0) + radius * direction,
                    0.003,
                    5,
                ),
            )
        for k in range(max(1, int(7 * radius / 0.55))):
            a = 2.4 * k + level
            place = stand + np.array(
                [0.62 * radius * np.sin(a), level + 0.01, 0.62 * radius * np.cos(a)]
            )
            materials = ("clay", "soil", "stem", fern if k % 2 else broad)
            w.place(parts.potted_plant(rng, 0.34, 21, 0.085, materials, 0.7), *place)
    for a in np.linspace(0, 2 * np.pi, 4)[:-1]:
        direction = np.array([np.sin(a), 0, np.cos(a)])
        w.add(
            "dark",
            tube([stand + 0.6 * direction, stand + 0.27 * direction + (0, 1.32, 0)], 0.012, 8),
        )

    cage = np.array([0.62, 1.75, 0.55])
    for a in np.linspace(0, np.pi, 13)[:-1]:
        t = np.linspace(0, np.pi, 25)
        dome = np.stack(
            [0.24 * np.cos(t) * np.cos(a), 0.26 + 0.3 * np.sin(t), 0.24 * np.cos(t) * np.sin(a)], 1
        )
        wire = np.concatenate(
            [[[dome[0, 0], 0, dome[0, 2]]], dome, [[dome[-1, 0], 0, dome[-1, 2]]]]
        )
        w.add("copper", tube(wire + cage, 0.0035, 5))
    for y in (0.0, 0.13, 0.26):
        w.add("copper", torus(0.24, 0.005, 48, 6).moved(*cage).moved(y=y))
    w.add(
        "copper",
        cylinder(0.245, 0.015).moved(*cage),
        rod(cage + (0, 0.56, 0), (cage[0], 3.6, cage[2]), 0.004, 5),
    )
    w.add("copper", rod(cage + (-0.2, 0.16, 0), cage + (0.2, 0.16, 0), 0.006, 6))

    for x, z, y in ((-0.9, 1.4, 2.15), (1.55, 1.9, 2.05), (0.5, -1.9, 2.2), (-1.9, 2.9, 2.1)):
        basket = parts.bowl(0.22, 0.2)
        w.add("dark", basket.moved(x, y, z))
        for a in (0.0, 2.094, 4.189):
            w.add(
                "dark",
                rod(
                    (x + 0.21 * np.sin(a), y + 0.2, z + 0.21 * np.cos(a)),
                    (x, y + 0.85, z),
                    0.003,
                    5,
                ),
            )
        w.add("dark", rod((x, y + 0.85, z), (x, 3.4, z), 0.003, 5))
        for _ in range(16):
            a, long = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.6)
            out = np.array([np.sin(a), 0, np.cos(a)])
            line = spline([np.zeros(3), 0.22 * out + (0, 0.08, 0), 0.3 * out - (0, long, 0)], 6) + [
                x,
                y + 0.2,
                z,
            ]
            w.add("stem", tube(line, 0.003, 5))
            pick = rng.integers(2, len(line), 12)
            w.add(
                broad,
                parts.foliage(
                    rng,
                    line[pick],
                    0.5 * out + rng.standard_normal((12, 3)) * 0.5 - [0, 0.5, 0],
                    parts.leaf(),
                    (0.05, 0.1),
                ),
            )
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
    seat = np.array([-0.35, 0.0, 0.9])  # wire chair and table
    for offset in np.linspace(-0.2, 0.2, 9):
        back = [
            (offset, 0.95, -0.26),
            (offset, 0.55, -0.2),
            (offset, 0.45, -0.16),
            (offset, 0.44, 0.2),
        ]
        w.add("rail", tube(spline(np.array(back), 4), 0.004, 5).turned("y", 30).moved(*seat))
    for z in np.linspace(-0.16, 0.2, 8):
        w.add("rail", rod((-0.2, 0.445, z), (0.2, 0.445, z), 0.004, 5).turned("y", 30).moved(*seat))
    w.add(
        "rail",
        tube([(-0.2, 0.95, -0.26), (0.2, 0.95, -0.26)], 0.01, 8).turned("y", 30).moved(*seat),
    )
    for sx in (-1, 1):
        for sz in (-0.16, 0.2):
            w.add(
                "rail",
                rod((sx * 0.24, 0, sz * 1.2), (sx * 0.2, 0.44, sz), 0.009, 8)
                .turned("y", 30)
                .moved(*seat),
            )
    w.add(
        "rail",
        *(
            m.moved(0.45, 0, 1.2)
            for m in (
                cylinder(0.34, 0.012, 48).moved(y=0.7),
                rod((0, 0, 0), (0, 0.7, 0), 0.02),
                torus(0.22, 0.012, 40, 8).moved(y=0.02),
            )
        ),
    )
    w.add(
        "copper",
        lathe(
            [(0, 0), (0.07, 0), (0.08, 0.1), (0.05, 0.13), (0.045, 0.12), (0.07, 0.09), (0, 0.02)],
            32,
            smooth=3,
        ).moved(0.45, 0.712, 1.2),
    )
    w.add("copper", sphere(0.03).moved(0.62, 0.742, 1.12))
