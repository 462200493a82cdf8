"""Objects on tables and shelves: metals, glass, lenses, spectra, light sources of many sizes."""

from __future__ import annotations

from typing import Any

import numpy as np

from mitsuba_gdpt.scenes import parts
from mitsuba_gdpt.scenes.geometry import (
    Floats,
    Mesh,
    box,
    cylinder,
    ellipsoid,
    extrude,
    join,
    lathe,
    quad,
    rod,
    sphere,
    surface,
    torus,
)
from mitsuba_gdpt.scenes.materials import (
    bitmap,
    frosted_glass,
    glass,
    glossy,
    matte,
    metal,
    mirror,
    planck,
    polished,
    spectrum,
    tinted_glass,
)
from mitsuba_gdpt.scenes.registry import Camera, scene
from mitsuba_gdpt.scenes.textures import marble, tiles, wood
from mitsuba_gdpt.scenes.world import World


@scene(
    title="Metal shelves",
    tags=("glossy", "interreflection", "mis"),
    camera=Camera((0.6, 1.2, 3.35), (0.0, 1.0, 0.0), fov=46),
    width=416,
    height=320,
)
def metal_shelves(w: World) -> None:
    """Line up metals and lacquers of many roughnesses on shelves that they reflect.

    Soft boxes of different sizes make highlights that neither emitter nor BSDF sampling gets alone.
    """
    w.material("wall", matte("9fb0bc"))
    w.material("board", glossy(bitmap(wood("b5834e", "6b4322", 41, planks=3), 0.9), 0.12))
    w.material("floor", glossy("4a4f57", 0.08))
    finishes = {
        "gold_smooth": metal("Au", 0.03),
        "gold_rough": metal("Au", 0.3),
        "copper": metal("Cu", 0.12),
        "copper_brushed": metal("Cu", (0.05, 0.4)),
        "silver": metal("Ag", 0.015),
        "silver_satin": metal("Ag", 0.2),
        "aluminium": metal("Al", 0.35),
        "chrome": metal("Cr", 0.06),
        "tungsten": metal("W", 0.25),
        "red_lacquer": glossy("a31621", 0.05),
        "blue_lacquer": glossy("1d4e89", 0.2),
        "jade": glossy("3f8f6b", 0.1),
        "ivory": glossy("eadfc8", 0.3),
    }
    for name, bsdf in finishes.items():
        w.material(name, bsdf)

    w.material("studio", matte("cfcac2"))
    sides = parts.room((-3, 0, -0.45), (3, 3.2, 4.2))
    w.add("wall", sides["back"])
    w.add("floor", sides["floor"])
    w.add("studio", *(sides[k] for k in ("ceiling", "front", "left", "right")))
    levels = (0.18, 0.76, 1.34)
    for y in levels:
        w.add("board", box((-1.3, y - 0.035, -0.45), (1.3, y, 0.12), 0.006))
    w.add("board", box((-1.3, 1.88, -0.45), (1.3, 1.915, 0.12), 0.006))
    for x in (-1.3, -0.44, 0.43, 1.27):
        w.add("board", box((x, 0, -0.45), (x + 0.03, 1.915, 0.1), 0.004))

    def put(material: str, mesh: Mesh, x: float, level: int, z: float = -0.14) -> None:
        w.add(material, mesh.moved(x, levels[level] - float(mesh.bounds[0][1]) + 0.001, z))

    put("gold_smooth", sphere(0.15), -1.05, 2)
    put("silver_satin", parts.vase(0, 0.42), -0.68, 2)
    put("copper", parts.knot(2, 3, 0.13, 0.04).turned("x", 78), -0.2, 2)
    put("red_lacquer", parts.bowl(0.16, 0.12), 0.16, 2)
    put("chrome", parts.vase(3, 0.45), 0.66, 2)
    put("gold_rough", ellipsoid(0.15, 0.15, 0.15, 4.0), 1.0, 2)

    put("blue_lacquer", parts.vase(1, 0.46), -1.06, 1)
    put("aluminium", cylinder(0.13, 0.3, 64, 0.012), -0.68, 1)
    put("silver", sphere(0.17), -0.2, 1)
    put("ivory", parts.vase(2, 0.36), 0.18, 1)
    put("copper_brushed", parts.bowl(0.18, 0.15), 0.66, 1)
    put("jade", parts.knot(3, 2, 0.12, 0.035).turned("x", 65), 1.03, 1)

    put("tungsten", torus(0.15, 0.06), -1.06, 0)
    put("red_lacquer", sphere(0.12), -1.06, 0, -0.14)
    put("gold_smooth", parts.vase(2, 0.42), -0.66, 0)
    put("ivory", box((-0.14, 0, -0.14), (0.14, 0.28, 0.14), 0.03).turned("y", 33), -0.19, 0)
    put("copper", sphere(0.14), 0.2, 0)
    put("silver", parts.vase(0, 0.44), 0.66, 0)
    put("chrome", ellipsoid(0.15, 0.11, 0.15, 3.0), 1.03, 0)

    w.panel_light((-2.3, 1.9, 2.2), (0, 1.0, -0.2), (0.7, 1.8), planck(6500, 15.0))
    w.panel_light((2.5, 1.5, 1.6), (0, 1.0, -0.2), (0.35, 2.2), planck(4000, 22.0))
    w.panel_light((0.2, 3.0, 1.0), (0, 1.0, -0.1), (1.6, 0.5), planck(5000, 20.0))
    for x in (-0.87, 0.0, 0.86):  # small spots under the top board
        w.panel_light((x, 1.879, 0.02), (x, 0, -0.1), (0.5, 0.03), planck(3400, 45.0))


@scene(
    title="Glass bar",
    tags=("glass", "mirror", "caustics", "glossy", "textured"),
    camera=Camera((-0.4, 1.36, 1.3), (0.04, 1.27, -0.3), fov=58),
)
def glass_bar(w: World) -> None:
    """Set a bar counter with glasses, bottles and a mirror behind: chains of specular bounces.

    The globes above cast caustics through the glasses onto the counter.
    """
    stone = marble("ece8e1", "8a7f74", 33)
    w.material("counter", glossy(bitmap(stone, 1.1), 0.06))
    w.material("wall", matte("b9c4c0"))
    zellige = tiles(("2d6f73", "3c8a86", "24585f"), "b9b5a8", 10, 10)
    w.material("tiles", polished(bitmap(zellige, 0.8)))
    w.material("mirror", mirror())
    w.material("brass", metal("Cu", 0.08))
    w.material("walnut", glossy(bitmap(wood("7d4f2d", "3c2212", 44, planks=2), 0.8), 0.15))
    w.material("glass", glass())
    w.material("green_glass", tinted_glass("7fc08a"))
    w.material("amber_glass", tinted_glass("e0a050"))
    w.material("blue_glass", tinted_glass("86a8e8"))
    w.material("frosted", frosted_glass(0.15))
    w.material("orange", glossy("e5832a", 0.25))
    w.material("lime", glossy("8fb52f", 0.25))
    w.material("steel", metal("Cr", 0.05))

    sides = parts.room((-2.4, 0, -0.9), (2.4, 2.8, 3.0))
    w.add("wall", *(sides[k] for k in ("floor", "ceiling", "front", "left", "right")))
    w.add("tiles", sides["back"])
    w.add("counter", box((-1.7, 0.96, -0.42), (1.7, 1.0, 0.5), 0.01))
    w.add("walnut", box((-1.65, 0, -0.35), (1.65, 0.96, 0.42)))
    # The mirror with its shelf of bottles.
    w.add("mirror", quad((-1.35, 1.12, -0.87), (2.7, 0, 0), (0, 1.2, 0)))
    w.add("brass", parts.frame(2.7, 1.2, 0.035, 0.03).moved(0, 1.72, -0.885))
    w.add("walnut", box((-1.4, 1.28, -0.85), (1.4, 1.305, -0.6), 0.004))
    kinds = ("green_glass", "amber_glass", "glass", "blue_glass", "frosted")
    rng = np.random.default_rng(6)
    for k in range(11):
        tall, x = rng.uniform(0.24, 0.34), -1.25 + 0.25 * k
        w.add(kinds[k % 5], parts.bottle(tall, rng.uniform(0.034, 0.05)).moved(x, 1.306, -0.72))
    top = 1.001
    for x, z, tall in (
        (-0.62, 0.12, 0.21),
        (-0.42, -0.06, 0.21),
        (0.5, 0.1, 0.24),
        (0.72, -0.05, 0.24),
    ):
        w.add("glass", parts.wine_glass(tall).moved(x, top, z))
    for x, z in ((-0.15, 0.2), (0.02, 0.08)):
        w.add("glass", parts.tumbler(0.042, 0.1).moved(x, top, z))
    w.add("blue_glass", parts.tumbler(0.045, 0.13).moved(0.92, top, 0.22))
    w.ball("glass", (0.27, top + 0.085, 0.22), 0.085)
    w.add("amber_glass", parts.bottle(0.3, 0.055).moved(-0.88, top, -0.08))
    w.add("steel", parts.vase(3, 0.27).moved(0.25, top, -0.12))
    w.add("brass", parts.bowl(0.15, 0.075).moved(-0.22, top, -0.16))
    for x, y, z, name in (
        (-0.27, 0.075, -0.16, "orange"),
        (-0.17, 0.075, -0.18, "lime"),
        (-0.21, 0.11, -0.1, "orange"),
    ):
        w.ball(name, (x, top + y, z), 0.045)
    for x in (-1.0, -0.33, 0.33, 1.0):
        w.add(
            "brass",
            rod((x, 2.02, 0.05), (x, 2.8, 0.05), 0.006),
            cylinder(0.035, 0.05).moved(x, 1.99, 0.05),
        )
        w.ball_light((x, 1.92, 0.05), 0.105, planck(3800, 23.0))
    w.panel_light((-2.38, 1.9, 1.3), (0, 1.0, 0.2), (1.0, 1.0), planck(5500, 6.0))


def _piece(kind: str) -> Mesh:
    """Return one chess piece, about one unit wide, standing on y = 0."""
    foot = [(0, 0), (0.42, 0), (0.44, 0.1), (0.4, 0.16), (0.3, 0.2), (0.27, 0.28)]
    collar = [(0.27, 0.0), (0.28, 0.04), (0.18, 0.08)]

    def stem(height: float, waist: float) -> list[tuple[float, float]]:
        return [
            (waist + 0.03, 0.5),
            (waist, 0.55 * height + 0.2),
            (waist + 0.02, height - 0.06),
        ] + [(r, height + y) for r, y in collar]

    if kind == "pawn":
        body = lathe(foot + stem(0.85, 0.15), 32, smooth=3)
        return join([body, sphere(0.22, 32).moved(y=1.08)])
    if kind == "rook":
        body = lathe([*foot, *stem(0.95, 0.22), (0.3, 1.08), (0.32, 1.1)], 32, smooth=3)
        crown = lathe([(0.32, 1.1), (0.34, 1.38), (0.24, 1.38), (0.22, 1.22), (0, 1.22)], 40)
        return join([body, crown])
    if kind == "bishop":
        body = lathe(foot + stem(1.2, 0.16), 32, smooth=3)
        mitre = lathe(
            [(0.0, 1.25), (0.2, 1.35), (0.22, 1.5), (0.12, 1.72), (0, 1.82)], 32, smooth=4
        )
        return join([body, mitre, sphere(0.06, 20).moved(y=1.86)])
    if kind == "knight":
        body = lathe([*foot, (0.24, 0.42), (0.27, 0.5), (0.0, 0.52)], 32, smooth=3)
        neck = [
            (-0.22, 0.45),
            (0.2, 0.45),
            (0.16, 0.75),
            (0.24, 0.95),
            (0.02, 1.45),
            (-0.16, 1.2),
            (-0.28, 0.8),
        ]
        muzzle = [(0.05, 1.42), (0.0, 1.12), (0.34, 0.88), (0.42, 0.98), (0.38, 1.1)]
        return join([body, extrude(neck, 0.26).moved(z=-0.13), extrude(muzzle, 0.2).moved(z=-0.1)])
    if kind == "queen":
        body = lathe(
            [*foot, *stem(1.45, 0.17), (0.2, 1.6), (0.3, 1.86), (0.2, 1.86), (0, 1.8)], 32, smooth=3
        )
        pearls = [
            sphere(0.05, 16).moved(0.27 * np.sin(a), 1.88, 0.27 * np.cos(a))
            for a in np.linspace(0, 2 * np.pi, 9)[:-1]
        ]
        return join([body, *pearls, sphere(0.08, 20).moved(y=1.9)])
    body = lathe(
        [*foot, *stem(1.55, 0.18), (0.22, 1.7), (0.29, 1.98), (0.18, 2.02), (0, 2.04)], 32, smooth=3
    )
    cross = [
        box((-0.04, 2.0, -0.04), (0.04, 2.34, 0.04), 0.01),
        box((-0.13, 2.14, -0.04), (0.13, 2.22, 0.04), 0.01),
    ]
    return join([body, *cross])


@scene(
    title="Chess",
    tags=("depth-of-field", "glossy", "textured", "many-lights"),
    camera=Camera((0.5, 0.27, 0.72), (0.02, 0.1, -0.08), fov=37, aperture=0.013, focus=0.72),
)
def chess(w: World) -> None:
    """Photograph a chess game with an open lens: sharp pieces, blurred rows, bokeh."""
    squares = tiles(["e9dcc0", "4a2c1a"], "2c1a10", 3, 8, joint=0.012, checker=True)
    w.material("board", glossy(bitmap(squares, 0.56), 0.06))
    w.material("rim", glossy(bitmap(wood("6f4324", "331c0d", 51, planks=1), 0.4), 0.1))
    w.material("table", glossy(bitmap(wood("8d6a45", "54371d", 52, planks=6), 1.0), 0.2))
    w.material("white", polished("efe6d2"))
    w.material("black", glossy("2a211e", 0.08))
    w.material("wall", matte("7a8894"))
    w.material("shelf", matte("5a3d28"))
    w.material("metal", metal("Cu", 0.1))

    w.add("table", box((-1.2, -0.07, -0.9), (1.2, -0.03, 0.9), 0.01))
    w.add("board", quad((-0.28, 0, 0.28), (0.56, 0, 0), (0, 0, -0.56)))
    w.add("rim", box((-0.33, -0.03, -0.33), (0.33, -0.001, 0.33), 0.004))
    cell = 0.07
    layout = {
        "white": "rook a1, king g1, rook f1, bishop e3, knight f3, queen d2, "
        "pawn a2, pawn b2, pawn c4, pawn e4, pawn f2, pawn g2, pawn h3",
        "black": "rook a8, king g8, rook f8, bishop b7, knight d7, queen c7, "
        "pawn a6, pawn b5, pawn d6, pawn e5, pawn f7, pawn g6, pawn h7",
    }
    shapes = {
        kind: _piece(kind).scaled(0.052)
        for kind in ("pawn", "rook", "bishop", "knight", "queen", "king")
    }
    for colour, men in layout.items():
        for man in men.split(", "):
            kind, square = man.split()
            x = ("abcdefgh".index(square[0]) - 3.5) * cell
            z = (3.5 - (int(square[1]) - 1)) * cell
            turned = shapes[kind].turned("y", 90 if colour == "white" else -90)
            w.add(colour, turned.moved(x, 0.0005, z))
    for k, (x, z) in enumerate(((0.42, 0.1), (0.4, -0.06), (0.47, -0.15))):  # taken pieces
        mesh = shapes[("pawn", "knight", "bishop")[k]]
        w.add("black" if k else "white", mesh.moved(x, -0.029, z))

    # The room behind: a wall with vases on shelves between strings of small lamps.
    w.add("wall", quad((-5, -0.9, -2.6), (9, 0, 0), (0, 3.2, 0)))
    w.add("wall", quad((-5, -0.9, 3), (9, 0, 0), (0, 0, -5.6)))
    w.add("shelf", box((-4, 0.3, -2.6), (3, 0.33, -2.3)), box((-4, -0.32, -2.6), (3, -0.28, -2.3)))
    for k, x in enumerate(np.linspace(-3.4, 1.2, 14)):
        vase = parts.vase(k, 0.3, segments=32)
        w.add(("metal", "white", "black")[k % 3], vase.moved(x, 0.33 if k % 2 else -0.28, -2.45))
    rng = np.random.default_rng(88)
    for k in range(30):
        x, y = -3.4 + 0.15 * k, 0.14 + 0.09 * np.cos(1.7 * k) + rng.uniform(-0.03, 0.03)
        w.ball_light((x, y, -2.2), 0.021, planck((2200, 3300, 5200)[k % 3], 40.0))
    for k in range(16):
        x, y = -3.0 + 0.25 * k, -0.4 + 0.06 * np.sin(2.2 * k)
        w.ball_light((x, y, -1.9), 0.015, planck(2700, 40.0))
    w.panel_light((-1.5, 1.6, 0.4), (0, 0, 0), (0.8, 0.8), planck(4300, 22.0))
    w.panel_light((1.4, 1.3, -1.2), (0, 0, 0), (0.3, 0.9), planck(7500, 22.0))
    w.panel_light((-1.0, 1.8, -1.6), (-1.0, 0.2, -2.6), (2.5, 0.2), planck(3300, 5.0))


@scene(
    title="Spectral bench",
    tags=("spectral", "glossy", "glass", "interreflection"),
    camera=Camera((0.0, 0.9, 6.2), (0.0, 0.8, 0.0), fov=31),
    width=480,
    height=304,
)
def spectral_bench(w: World) -> None:
    """Show the same metals and colour chips in eight booths, each under another kind of lamp.

    Black bodies, a sodium lamp, a three-band tube, LEDs: spectra that colours alone cannot tell.
    """
    nm = np.arange(380.0, 781.0, 10.0)

    def band(centre: float, width: float, height: float = 1.0) -> np.ndarray:
        return height * np.exp(-0.5 * ((nm - centre) / width) ** 2)

    def edge(centre: float, width: float) -> np.ndarray:
        return 1 / (1 + np.exp(-(nm - centre) / width))

    w.material("booth", matte(0.72))
    w.material("outside", matte("8b9096"))
    chips = {
        "blue": 0.08 + band(455, 36, 0.5),
        "green": 0.09 + band(540, 38, 0.42),
        "yellow": 0.05 + 0.75 * edge(505, 12),
        "orange": 0.05 + 0.7 * edge(575, 14),
        "red": 0.04 + 0.65 * edge(610, 12),
        "magenta": 0.08 + band(430, 35, 0.45) + 0.55 * edge(610, 15),
        "cyan": 0.16 + 0.4 * (1 - edge(560, 18)),
        "neodymium": 0.7 - band(580, 8, 0.6) - band(525, 8, 0.4) - band(740, 14, 0.45),
    }
    for name, values in chips.items():
        w.material(name, matte(spectrum(nm, np.clip(values, 0.02, 0.95))))
    metals = ("Au", "Cu", "Ag", "Al", "Cr", "W", "TiN", "Hg")
    for k, name in enumerate(metals):
        w.material(f"metal_{k}", metal(name, 0.04 + 0.035 * k))
    w.material("glass", glass("bk7"))
    w.material("diamond", glass("diamond"))

    def scaled(values: np.ndarray, luminance: float) -> dict[str, object]:
        eye = band(557, 43)
        return spectrum(nm, values * luminance * eye.sum() / (eye * values).sum())

    level = 22.0
    lamps = (
        planck(2000, level),
        planck(3200, level),
        planck(5500, level),
        planck(12000, level),
        scaled(band(590, 12) + 0.25 * edge(560, 20) + 0.09, level * 0.8),
        scaled(band(440, 9, 0.7) + band(545, 7, 1.4) + band(611, 7, 1.1) + 0.02, level),
        scaled(band(450, 10, 1.0) + band(560, 55, 0.7), level),
        scaled(band(450, 14, 1.0) + band(635, 16, 0.9) + 0.16, level * 0.7),
    )
    size, gap, names = 0.72, 0.06, tuple(chips)
    for k, lamp in enumerate(lamps):
        column, row = k % 4, k // 4
        x = (column - 1.5) * (size + gap)
        y = 0.06 + (1 - row) * (size + gap)
        low, high = (x - size / 2, y, -0.4), (x + size / 2, y + size, 0.1)
        sides = parts.room(low, high)
        w.add("booth", *(sides[s] for s in ("floor", "back", "left", "right", "ceiling")))
        w.panel_light((x, y + size - 0.012, -0.1), (x, y, -0.1), (0.42, 0.12), lamp)
        for j, name in enumerate(names):
            cx = x + (j % 4 - 1.5) * 0.15
            cy = y + 0.52 - 0.15 * (j // 4)
            w.add(
                name, box((cx - 0.065, cy - 0.065, -0.4), (cx + 0.065, cy + 0.065, -0.385), 0.004)
            )
        w.ball(f"metal_{k}", (x - 0.17, y + 0.115, -0.2), 0.115)
        w.add(f"metal_{(k + 3) % 8}", parts.vase(k, 0.2).moved(x + 0.08, y, -0.27))
        shape = lathe([(0, 0), (0.075, 0.02), (0.11, 0.07), (0.075, 0.11), (0, 0.11)], 8)
        w.add(
            "diamond" if k % 2 else "glass",
            shape.turned("y", 20.0 * k).moved(x + 0.19, y + 0.001, -0.07),
        )
    w.add("outside", quad((-4, 0, 0.1), (8, 0, 0), (0, 0, 6)).flipped())
    # The front of the rack, with the booths as openings.
    pitch, rows = size + gap, 0.06 + 2 * (size + gap)
    bars = []
    for k in range(5):
        x = (k - 2) * pitch
        bars.append(box((x - gap / 2, 0, -0.42), (x + gap / 2, rows, 0.104), 0.004))
    for y in (0.0, 0.06 + size, 0.06 + 2 * size + gap):
        bars.append(box((-2 * pitch - 0.03, y, -0.42), (2 * pitch + 0.03, y + gap, 0.102), 0.004))
    w.add("outside", *bars)
    w.add("outside", quad((-4, 0, -0.5), (8, 0, 0), (0, 3, 0)))
    w.panel_light((0, 2.9, 2.6), (0, 0.6, 0), (2.0, 0.6), planck(6500, 6.0))


@scene(
    title="Light steps",
    tags=("glossy", "mis"),
    camera=Camera((0.0, 2.05, 6.6), (0.0, 1.3, -1.5), fov=44),
)
def light_steps(w: World) -> None:
    """Climb curved metal steps of rising roughness lit by orbs of very different sizes.

    Every pairing of roughness and light size occurs: the classical test of sample combination.
    """
    w.material("floor", matte("8d8f92"))
    w.material("wall", matte("b7b2aa"))
    w.material("post", metal("Cr", 0.2))
    w.material("riser", matte("4a4d52"))
    roughness = (0.01, 0.035, 0.08, 0.16, 0.3)
    for k, alpha in enumerate(roughness):
        w.material(f"step_{k}", metal(("Ag", "Al", "Cu", "Au", "Cr")[k], alpha))

    w.add("floor", quad((-8, 0, 8), (16, 0, 0), (0, 0, -12.2)))
    w.add("wall", quad((-8, 0, -4.2), (16, 0, 0), (0, 6, 0)))
    eye, row = np.array([2.05, 6.6]), np.array([2.75, -3.3])  # (y, z) of the camera and the orbs
    for k in range(5):
        # Rings about an axis at z = 3, rising away from the viewer. The slope of each tread makes
        # it mirror the row of orbs into the camera.
        inner, width, base = 2.9 + 0.62 * k, 0.5, 0.1 + 0.27 * k
        here = np.array([base, 3.0 - inner - width / 2])
        half = sum((p - here) / np.linalg.norm(p - here) for p in (eye, row))
        slope = half[1] / half[0]

        def tread(
            s: Floats,
            t: Floats,
            r: float = inner,
            d: float = width,
            y: float = base,
            m: float = slope,
        ) -> tuple[Floats, ...]:
            angle, radius = np.radians(52) * (2 * s - 1), r + d * t
            return radius * np.sin(angle), y + m * d * t, 3.0 - radius * np.cos(angle)

        top = surface(tread, 96, 4)
        w.add(f"step_{k}", top, top.flipped().moved(y=-0.05))

        def riser(s: Floats, t: Floats, front: Any = tread) -> tuple[Floats, ...]:
            x, y, z = front(s, 0 * t)
            return x, y * (1 - t), z

        w.add("riser", surface(riser, 96, 1))
    orbs = (
        (-2.3, 0.03, 2300),
        (-1.35, 0.075, 3200),
        (-0.3, 0.15, 4600),
        (0.9, 0.27, 6800),
        (2.3, 0.45, 11000),
    )
    for x, radius, kelvin in orbs:
        # Equal power: radiance falls with the area.
        w.ball_light((x, row[0], row[1]), radius, planck(kelvin, 0.4 / radius**2))
        w.add("post", rod((x, row[0] + radius, row[1]), (x, 6, row[1]), 0.012))
    w.panel_light((0, 5.5, 4.0), (0, 0, 0), (3.0, 1.5), planck(6500, 2.0))
