"""Rooms: diffuse interreflection, light through doors and windows, textures, furniture."""

from __future__ import annotations

import numpy as np

from mitsuba_gdpt.scenes import parts
from mitsuba_gdpt.scenes.geometry import (
    arch,
    box,
    cylinder,
    ellipsoid,
    join,
    panel,
    quad,
    rod,
    sphere,
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
    planck,
    polished,
)
from mitsuba_gdpt.scenes.registry import Camera, scene
from mitsuba_gdpt.scenes.textures import (
    bricks,
    damask,
    marble,
    noise,
    painting,
    ramp,
    rug,
    sky,
    speckle,
    tiles,
    wood,
)
from mitsuba_gdpt.scenes.world import World


def _hang(
    w: World,
    seed: int,
    size: tuple[float, float],
    at: tuple[float, float, float],
    turn: float,
    frame: str,
    border: float = 0.05,
) -> None:
    """Hang a framed picture; ``at`` is the middle of its back, ``turn`` 0 faces +z."""
    w.material(f"picture_{seed}", matte(painting(seed)))
    objects = {
        f"picture_{seed}": parts.picture(*size).moved(z=0.012),
        frame: parts.frame(*size, border, 0.6 * border),
    }
    w.place(objects, *at, turn=turn)


@scene(
    title="Corner gallery",
    tags=("interreflection", "interior"),
    camera=Camera((0.15, 1.5, 5.6), (0.0, 1.32, 0.0), fov=44),
    width=384,
    height=384,
)
def corner_gallery(w: World) -> None:
    """Show colour bleeding: a white room with one coral and one teal wall.

    An apse, plinths and a coffered ceiling give occlusion edges at all scales.
    """
    w.material("white", matte("ece7df"))
    w.material("coral", matte("e0603f"))
    w.material("teal", matte("1f8a8a"))
    w.material("ochre", matte("e3a53a"))
    w.material("stone", matte("b9b2a8"))
    w.material("satin", glossy("f0ece4", 0.25))

    sides = parts.room((-1.9, 0, -2.0), (1.9, 3.2, 6.2))
    w.add("white", sides["floor"], sides["front"])
    w.add("coral", sides["left"])
    w.add("teal", sides["right"])
    # The back wall opens into a half-round apse.
    w.add("white", arch(1.9, 1.55, 3.2, 3.8, 0.12).moved(z=-2.0))
    apse = surface(
        lambda s, t: (
            0.95 * np.cos(np.pi * s),
            np.where(t < 0.5, 3.1 * t, 1.55 + 0.95 * np.sin(np.pi * (t - 0.5))),
            -2.0 - 0.8 * np.sin(np.pi * s) * np.where(t < 0.5, 1.0, np.cos(np.pi * (t - 0.5))),
        ),
        40,
        40,
    )
    # Towards the crown the apse narrows like a quarter sphere.
    taper = np.where(
        apse.positions[:, 1] > 1.55,
        np.sqrt(np.clip(1 - ((apse.positions[:, 1] - 1.55) / 0.95) ** 2, 0, 1)),
        1.0,
    )
    apse.positions[:, 0] *= taper
    w.add("white", apse, quad((-0.95, 0, -2.9), (0, 0, 1), (1.9, 0, 0)))

    # Ceiling: beams across, the light sits above the middle bay.
    w.add("white", panel((-1.9, 3.2, -2.0), (1.9, 3.3, 6.2), [(-0.75, -0.9, 0.75, 0.9)]))
    for x in (-0.75, 0.72):
        w.add("white", box((x, 3.2, -0.9), (x + 0.03, 3.7, 0.9)))
    for z in (-0.9, 0.87):
        w.add("white", box((-0.75, 3.2, z), (0.75, 3.7, z + 0.03)))
    for x in (-1.3, 1.3):
        w.add("white", box((x - 0.07, 2.98, -2), (x + 0.07, 3.2, 6.2), 0.01))
    w.add("white", box((-1.9, 3.04, -1.3), (1.9, 3.2, -1.16), 0.01))
    w.panel_light((0, 3.68, 0), (0, 0, 0), (1.44, 1.74), planck(5200, 11.5))

    for step in range(3):  # a round stair in front of the apse
        w.add("stone", cylinder(1.15 - 0.3 * step, 0.1, 64, 0.008).moved(y=0.1 * step, z=-1.9))
    w.add("satin", parts.knot(2, 3, 0.3, 0.085).turned("x", 90).moved(y=1.02, z=-1.75))
    w.add("stone", cylinder(0.16, 0.42, 48, 0.01).moved(y=0.2, z=-1.75))

    w.add("white", box((-1.45, 0, -0.6), (-0.75, 1.05, 0.1), 0.012))
    w.add("ochre", sphere(0.3).moved(x=-1.1, y=1.35, z=-0.25))
    w.add(
        "white", box((-0.3, 0, -0.3), (0.3, 0.62, 0.3), 0.012).turned("y", 28).moved(x=1.1, z=0.35)
    )
    w.add(
        "coral", box((-0.2, 0, -0.2), (0.2, 0.4, 0.2), 0.01).turned("y", -12).moved(1.1, 0.62, 0.35)
    )
    w.add("teal", torus(0.25, 0.1).moved(x=-0.85, y=0.1, z=1.15))
    w.add("ochre", parts.vase(0, 0.55).moved(x=0.45, z=1.35))
    w.add("white", ellipsoid(0.17, 0.17, 0.17).moved(x=-0.35, y=0.17, z=1.75))


@scene(
    title="Light through a door",
    tags=("indirect", "interreflection", "interior", "glossy"),
    camera=Camera((-2.7, 1.5, 1.15), (2.4, 1.08, 0.05), fov=62),
)
def door_ajar(w: World) -> None:
    """Light a room only through a door: nearly everything seen is lit by several bounces.

    The lamp is in the corridor behind it and shines onto a wall out of sight; furniture of varied
    materials fills the room.
    """
    w.material("wall", matte("ece8dd"))
    w.material("dado", glossy("8aa083", 0.3))
    w.material("door", glossy("dcd6c8", 0.15))
    w.material("brass", metal("Cu", 0.12))
    boards = wood("a9743f", "5a3519", 11, planks=8)
    w.material("boards", glossy(bitmap(boards, 1.6), 0.18))
    w.material("oak", glossy(bitmap(wood("c49a62", "83562b", 5, planks=2), 0.8), 0.2))
    w.material("corridor", matte("a08a66"))
    w.material("cloth", matte("8c2f2b"))
    w.material("steel", metal("Cr", 0.08))
    w.material("glaze", polished("2f5d7c"))
    w.material("cream", glossy("e9dfc9", 0.1))

    # The door is in the left wall as the camera looks (z = -1.6), towards +x.
    sides = parts.room((-2.9, 0, -1.6), (2.6, 2.7, 2.3))
    w.add("boards", sides["floor"])
    w.add("wall", sides["ceiling"], sides["front"], sides["left"], sides["right"])
    w.add("wall", panel((-2.9, 0, -1.72), (2.6, 2.7, -1.6), [(0.3, 0, 1.3, 2.1)]))
    for low, high in (
        ((-2.9, 0, -1.6), (0.22, 0.95, -1.575)),
        ((1.38, 0, -1.6), (2.6, 0.95, -1.575)),
        ((-2.9, 0, 2.275), (2.6, 0.95, 2.3)),
        ((2.575, 0, -1.6), (2.6, 0.95, 2.3)),
    ):
        w.add("dado", box(low, high, 0.006))
    for low, high in (
        ((0.2, 0, -1.74), (0.3, 2.2, -1.55)),
        ((1.3, 0, -1.74), (1.4, 2.2, -1.55)),
        ((0.2, 2.1, -1.74), (1.4, 2.2, -1.55)),
    ):
        w.add("door", box(low, high, 0.01))

    # The leaf: a panelled slab, hinged on the far side, opening into the room.
    leaf = [box((-0.98, 0.01, -0.02), (0, 2.09, 0.02), 0.004)]
    for y0, y1 in ((0.18, 0.85), (1.02, 1.92)):
        for x0, x1 in ((-0.86, -0.53), (-0.45, -0.12)):
            for side in (-1, 1):
                leaf.append(
                    box((x0, y0, side * 0.024 - 0.006), (x1, y1, side * 0.024 + 0.006), 0.005)
                )
    handle = [
        tube([(-0.92, 1.02, s * 0.02), (-0.92, 1.02, s * 0.07), (-0.8, 1.02, s * 0.075)], 0.011)
        for s in (-1, 1)
    ]
    w.add("door", join(leaf).turned("y", 80).moved(1.3, 0, -1.6))
    w.add("brass", join(handle).turned("y", 80).moved(1.3, 0, -1.6))

    # Corridor behind it, with the only light: what it hits in the room is out of sight.
    hall = parts.room((-1.6, 0, -3.6), (3.0, 2.7, -1.72))
    w.add("corridor", hall["back"], hall["ceiling"], hall["left"], hall["right"], hall["floor"])
    w.panel_light((0.0, 2.3, -3.4), (0.45, 0.7, 1.4), (1.3, 0.5), planck(4300, 280.0))

    # A table with a still life and chairs.
    w.add("oak", parts.table(0.85, 1.4).moved(0.95, 0, 1.0))
    w.add("oak", parts.chair().turned("y", 75).moved(0.2, 0, 0.75))
    w.add("oak", parts.chair().turned("y", -100).moved(1.65, 0, 1.15))
    w.add("steel", parts.vase(1, 0.36).moved(0.95, 0.74, 0.6))
    w.add("glaze", parts.bowl(0.16, 0.09).moved(0.8, 0.74, 1.0))
    for x, y, z in ((0.76, 0.815, 0.97), (0.86, 0.815, 1.03), (0.82, 0.85, 0.94)):
        w.ball("cloth", (x, y, z), 0.045)
    w.add("cream", parts.vase(3, 0.32).moved(1.1, 0.74, 1.3))

    # Along the far wall: a chest of drawers, a picture, a coat stand; a pouf in front.
    w.add("oak", box((2.08, 0.08, 0.35), (2.56, 0.9, 1.75), 0.01))
    for row in range(3):
        low, high = 0.13 + 0.26 * row, 0.36 + 0.26 * row
        w.add("oak", box((2.06, low, 0.39), (2.085, high, 1.71), 0.006))
        for z in (0.72, 1.38):
            w.ball("brass", (2.04, low + 0.12, z), 0.018)
    w.add("cream", parts.vase(0, 0.42).moved(2.3, 0.9, 0.62))
    w.add("glaze", parts.vase(2, 0.22).moved(2.3, 0.9, 0.95))
    _hang(w, 21, (0.95, 0.7), (2.598, 1.72, 1.0), -90, "oak")
    w.add("cloth", ellipsoid(0.36, 0.2, 0.32, 3.0).moved(0.0, 0.2, -0.55))
    w.add("steel", parts.stand(1.75, 0.016, 0.2).moved(2.25, 0, -0.35))
    hook = rod((0, 1.6, 0), (0, 1.7, 0.16), 0.009)
    w.add("steel", *(hook.turned("y", 90.0 * k + 20).moved(2.25, 0, -0.35) for k in range(4)))


@scene(
    title="Morning room",
    tags=("environment", "interior", "interreflection", "textured", "glossy", "thin", "mask"),
    camera=Camera((1.15, 1.45, 3.2), (-0.45, 0.95, -1.2), fov=66),
)
def morning_room(w: World) -> None:
    """Light a living room by sky and sun through two windows with glazing bars.

    Sun patches on the floor, soft skylight on the walls, a plant with masked leaves.
    """
    rng = np.random.default_rng(301)
    w.material("wall", matte("e6e3dc"))
    w.material("accent", matte("8fb0c4"))
    w.material("frame", glossy("f4f1ea", 0.2))
    oak = wood("c39a66", "7c5228", 31, planks=8)
    w.material("parquet", glossy(bitmap(oak, 1.5), 0.14))
    w.material("walnut", glossy(bitmap(wood("7a4e2c", "3a2212", 8, planks=2)), 0.15))
    w.material("sofa", matte("4f6f64"))
    w.material("cushion", matte("d99a3a"))
    w.material("brass", metal("Cu", 0.15))
    w.material("linen", matte("e9dcc0"))
    w.material("clay", matte("b4643f"))
    w.material("soil", matte(0.03))
    w.material("stem", matte("5f6f3a"))
    w.material("ceramic", polished("dfe6ea"))
    carpet = rug(("8a3b2f", "e0cfa8", "33475b", "c28a3d"), 3)

    sun = (-0.75, 0.62, 0.25)
    w.environment(sky(sun, 40, sun_radiance=1700, clouds=0.45), 4.2)
    sides = parts.room((-2.4, 0, -2.2), (2.4, 2.75, 3.4))
    w.add("parquet", sides["floor"])
    w.add("wall", sides["ceiling"], sides["front"], sides["right"])
    w.add("accent", sides["back"])
    # Left wall, thick, with two tall windows.
    openings = [(-1.55, 0.35), (0.65, 2.55)]
    holes = [(0.35, z0, 2.4, z1) for z0, z1 in openings]
    w.add("wall", panel((-2.6, 0, -2.2), (-2.4, 2.75, 3.4), holes))
    for z0, z1 in openings:
        w.add("frame", parts.sash(z1 - z0, 2.05, 4, 3).turned("y", 90).moved(-2.5, 0.35, z1))
        w.add("frame", box((-2.42, 0.3, z0 - 0.05), (-2.25, 0.35, z1 + 0.05), 0.008))
        for end in (z0 - 0.16, z1 + 0.16):  # curtains: pleated sheets
            w.add(
                "linen",
                surface(
                    lambda s, t, end=end: (
                        -2.3 + 0.035 * np.sin(26 * s + 1.3 * np.sin(3 * t)),
                        0.03 + 2.5 * t,
                        end + 0.26 * (s - 0.5) * (1 + 0.25 * np.cos(2.2 * t)),
                    ),
                    72,
                    10,
                ),
            )
        w.add("brass", rod((-2.3, 2.54, z0 - 0.4), (-2.3, 2.54, z1 + 0.4), 0.012))
    w.add(
        "frame",
        box((-2.4, 0, -2.2), (2.4, 0.1, -2.18), 0.004),
        box((2.38, 0, -2.2), (2.4, 0.1, 3.4)),
    )

    body, feet = parts.sofa(1.9)
    w.place({"sofa": body, "walnut": feet}, 0.35, 0, -1.62)
    for x, turn in ((-0.35, 12), (0.98, -16)):
        pillow = ellipsoid(0.21, 0.21, 0.08, 2.6).turned("x", -20).turned("y", turn)
        w.add("cushion", pillow.moved(x, 0.7, -1.38))
    w.material("rug", matte(bitmap(carpet)))
    w.add("rug", quad((-1.0, 0.008, 1.2), (2.7, 0, 0), (0, 0, -1.8)).tiled(1 / 2.7, 1 / 1.8))
    w.add("walnut", parts.table(1.1, 0.55, 0.42).moved(0.3, 0, -0.2))
    w.add("ceramic", parts.bowl(0.15, 0.08).moved(0.1, 0.42, -0.15))
    for x, z in ((0.06, -0.18), (0.15, -0.12), (0.08, -0.09)):
        w.ball("cushion", (x, 0.475, z), 0.04)
    covers = parts.books(rng, 0.16, 0.26, 0.2, 3)
    for name, group in zip(("clay", "accent", "linen", "ceramic"), covers, strict=True):
        for mesh in group:
            w.add(name, mesh.turned("z", 90).turned("y", 25).moved(0.66, 0.42, -0.28))

    # Floor lamp (off), side board, pictures, plants.
    lamp = {"brass": parts.stand(1.5), "linen": parts.shade(0.25, 0.17, 0.3).moved(y=1.42)}
    w.place(lamp, 1.75, 0, -1.75)
    _hang(w, 60, (0.62, 0.82), (-0.45, 1.72, -2.199), 0, "walnut", 0.025)
    _hang(w, 61, (0.5, 0.5), (0.32, 1.55, -2.199), 0, "walnut", 0.025)
    _hang(w, 62, (0.5, 0.3), (0.32, 2.08, -2.199), 0, "walnut", 0.025)
    _hang(w, 63, (0.6, 0.75), (1.05, 1.75, -2.199), 0, "walnut", 0.025)
    w.material("leaf", leafy("8fb35a", "2f5d27"))
    w.place(parts.potted_plant(rng, 1.25, 60, 0.2), -1.75, 0, -1.6)
    w.place(parts.potted_plant(rng, 0.9, 48, 0.17), 2.05, 0, 0.2)


@scene(
    title="Tiled hall",
    tags=("textured", "bump", "glossy", "interreflection", "interior"),
    camera=Camera((0.5, 1.55, 5.3), (-0.1, 1.35, -1.0), fov=58),
)
def tiled_hall(w: World) -> None:
    """Cover every surface with a texture: tiles, bricks with relief, wallpaper, planks, pictures.

    Textures live in the albedo buffer, so this is where a reconstruction must not blur.
    """
    red, relief = bricks("a8563a", "b8ad9c", 17)
    w.material(
        "brick", bumpy(bitmap(relief, (1.0, 0.6), raw=True), 0.02, matte(bitmap(red, (1.0, 0.6))))
    )
    checks = tiles(["ded7c9", "2b3036"], "8f897d", 5, checker=True)
    w.material("tiles", glossy(bitmap(checks, 2.4), 0.12))
    mosaic = tiles(("1d5f7a", "2f8f9d", "e7e0cf", "c97b3a"), "d8d2c4", 9, 12)
    w.material("mosaic", polished(bitmap(mosaic, 0.9)))
    w.material("paper", matte(bitmap(damask("7d8f6d", "c9c79a", 4), 1.2)))
    w.material("beam", glossy(bitmap(wood("8a5c34", "40260f", 3, planks=3)), 0.25))
    w.material("plaster", matte(bitmap(ramp(["d8cdb8", "efe8d9"], noise((256, 256), 6, 1.5)), 2.0)))
    w.material("marble", polished(bitmap(marble("e8e4df", "6d6660", 12))))
    w.material(
        "terrazzo",
        glossy(bitmap(speckle("b9b2a6", ("7d3b2b", "34403f", "e9e4d8", "c99f5b"), 7)), 0.1),
    )
    w.material("gilt", metal("Au", 0.2))
    w.material("iron", metal("Cr", 0.3))

    sides = parts.room((-2.2, 0, -3.0), (2.2, 3.3, 5.6))
    w.add("tiles", sides["floor"])
    w.add("paper", sides["left"], sides["right"])
    w.add("plaster", sides["ceiling"], sides["front"])
    for z in np.arange(-2.4, 5.5, 1.3):
        w.add("beam", box((-2.2, 3.08, z - 0.09), (2.2, 3.3, z + 0.09), 0.01))
    # Mosaic wainscot with a terrazzo ledge on both sides.
    for x in (-2.2, 2.2):
        w.add("mosaic", box((x, 0.12, -3), (0.986 * x, 1.0, 5.6)))
        w.add("terrazzo", box((x, 1.0, -3), (0.96 * x, 1.05, 5.6), 0.01))
        w.add("beam", box((x, 0, -3), (0.977 * x, 0.12, 5.6), 0.01))

    # Brick screen with a round arch, a bright niche behind it.
    w.add("brick", arch(1.7, 1.6, 3.3, 4.4, 0.35).moved(z=-1.8))
    w.add("plaster", sides["back"])
    w.add("terrazzo", box((-0.85, 0, -2.95), (0.85, 0.12, -1.45), 0.01))
    w.add("marble", cylinder(0.26, 0.08, 48, 0.01).moved(0, 0.12, -2.2))
    w.add("marble", cylinder(0.19, 0.75, 48, 0.01).moved(0, 0.2, -2.2))
    w.add("marble", cylinder(0.26, 0.07, 48, 0.01).moved(0, 0.95, -2.2))
    w.add("gilt", parts.vase(1, 0.55).moved(0, 1.02, -2.2))
    w.panel_light((0, 3.0, -2.3), (0, 0, -2.35), (0.7, 0.5), planck(4200, 34.0))

    runner = rug(("5b1f24", "d9c08a", "1f3a4d", "a8452f"), 22)
    w.material("runner", matte(bitmap(runner)))
    w.add("runner", quad((-0.6, 0.006, 4.2), (1.2, 0, 0), (0, 0, -4.4)).tiled(1 / 1.2, 2 / 4.4))
    _hang(w, 80, (1.0, 0.75), (-2.199, 1.95, 0.0), 90, "gilt", 0.06)
    _hang(w, 81, (0.8, 1.0), (-2.199, 1.95, 1.9), 90, "gilt", 0.06)
    _hang(w, 82, (0.7, 0.9), (2.199, 1.95, -0.3), -90, "gilt", 0.06)
    _hang(w, 83, (1.1, 0.8), (2.199, 1.95, 1.4), -90, "gilt", 0.06)
    w.add("terrazzo", box((-2.1, 0.4, 0.3), (-1.68, 0.48, 1.9), 0.01))
    for z in (0.45, 1.75):
        w.add("marble", box((-2.05, 0, z - 0.06), (-1.73, 0.4, z + 0.06), 0.008))
    w.add("mosaic", parts.vase(2, 0.6).tiled(3, 1).moved(1.72, 0, 0.5))
    w.add("marble", parts.vase(0, 0.85).tiled(2, 1).moved(-1.7, 0, -0.75))
    for z in (0.3, 4.3):  # pendant globes
        w.add("iron", rod((0, 2.45, z), (0, 3.3, z), 0.008), cylinder(0.07, 0.06).moved(0, 2.42, z))
        w.ball_light((0, 2.22, z), 0.24, planck(4000, 30.0))


@scene(
    title="Office corridor",
    tags=("interior", "interreflection", "glossy", "textured"),
    camera=Camera((0.35, 1.5, 7.6), (-0.12, 1.15, -4.0), fov=52),
)
def office_corridor(w: World) -> None:
    """Look down a long corridor with ceiling panels, lockers, doors and a polished floor.

    Strong perspective: the far end packs many edges into few pixels.
    """
    rng = np.random.default_rng(77)
    w.material("wall", matte("dfe2df"))
    w.material("green", glossy("5e8f78", 0.2))
    lino = speckle("9aa3a0", ("5f6b69", "c9cfcc", "7d8a86"), 19)
    w.material("floor", glossy(bitmap(lino, 1.4), 0.07))
    grid = tiles(["eceae4"], "b9b6ae", 2, 4, joint=0.02)
    w.material("ceiling", matte(bitmap(grid, 2.4)))
    w.material("door", glossy(bitmap(wood("b98b58", "7d5630", 14, planks=1)), 0.15))
    w.material("frame", glossy("3d4a52", 0.2))
    w.material("steel", metal("Cr", 0.12))
    w.material("lockers", glossy("3f6c96", 0.12))
    w.material("orange", glossy("e07a2d", 0.2))
    w.material("leafy", matte("3d6b2f"))
    w.material("paper", matte("efe9dc"))

    sides = parts.room((-1.3, 0, -8.0), (1.3, 2.6, 8.2))
    w.add("floor", sides["floor"])
    w.add("ceiling", sides["ceiling"])
    w.add("wall", sides["front"], sides["right"], sides["left"])
    w.add("wall", panel((-1.3, 0, -8.1), (1.3, 2.6, -8.0), [(-0.75, 0.1, 0.75, 2.2)]))
    w.add("frame", parts.sash(1.5, 2.1, 2, 3, 0.05).moved(-0.75, 0.1, -8.05))
    w.panel_light((0, 1.3, -8.6), (0, 1.1, 0), (2.4, 2.6), planck(7500, 3.5))
    for z in (-6.4, -3.6, -0.8, 2.0, 4.8, 7.4):
        for x in (-0.32, 0.32):
            w.add("frame", box((x - 0.012, 2.575, z - 0.62), (x + 0.012, 2.6, z + 0.62)))
        w.panel_light((0, 2.59, z), (0, 0, z), (0.6, 1.2), planck(4300, 7.5))
    for x, end in ((-1.3, 1.2), (1.3, 8.0)):
        w.add("green", box((x, 0, -8), (0.985 * x, 0.12, 8.2)))
        w.add("green", box((x, 0.88, -8), (0.985 * x, 0.98, 8.2), 0.004))
        w.add("steel", rod((0.93 * x, 0.93, -7.5), (0.93 * x, 0.93, end), 0.018))
    door = {  # in a wall facing +z
        "door": box((-0.45, 0, 0.01), (0.45, 2.1, 0.045), 0.006),
        "frame": join(
            [
                box((-0.53, 0, 0), (-0.45, 2.18, 0.065), 0.006),
                box((0.45, 0, 0), (0.53, 2.18, 0.065), 0.006),
                box((-0.45, 2.1, 0), (0.45, 2.18, 0.065), 0.006),
            ]
        ),
        "steel": tube([(-0.36, 1.03, 0.045), (-0.36, 1.03, 0.105), (-0.23, 1.03, 0.105)], 0.011),
        "paper": box((-0.12, 1.5, 0.045), (0.12, 1.62, 0.051)),
    }
    for x, z in ((-1.3, -5.6), (-1.3, -2.2), (1.3, -4.6), (1.3, -0.9), (1.3, 3.0)):
        w.place(door, x, 0, z, turn=-90 if x > 0 else 90)
    # Lockers on the left.
    louvres = [box((0.395, 0.7 + 0.03 * j, 0.1), (0.403, 0.71 + 0.03 * j, 0.3)) for j in range(4)]
    locker = {
        "door": box((0, 0, 0), (0.4, 0.86, 0.4), 0.012),
        "frame": join(louvres),
        "steel": rod((0.42, 0.38, 0.34), (0.42, 0.48, 0.34), 0.01),
    }
    for k in range(9):
        colour = "orange" if k in (2, 5) else "lockers"
        for y in (0.12, 1.0):
            w.place(
                {colour if m == "door" else m: mesh for m, mesh in locker.items()},
                -1.3,
                y,
                1.6 + 0.42 * k,
            )
    w.add("frame", box((-1.3, 0, 1.6), (-0.93, 0.12, 5.4)))
    # Bench, notice board, plant.
    w.add("door", box((0.86, 0.42, 0.2), (1.24, 0.47, 1.9), 0.008))
    for x, z in ((0.9, 0.4), (1.2, 0.4), (0.9, 1.7), (1.2, 1.7)):
        w.add("steel", rod((x, 0, z), (x, 0.42, z), 0.018))
    w.add("frame", box((1.27, 1.25, 0.3), (1.3, 2.05, 1.8), 0.004))
    for _ in range(16):
        y, z = rng.uniform(1.32, 1.85), rng.uniform(0.38, 1.55)
        name = ("paper", "paper", "orange", "lockers")[int(rng.integers(4))]
        w.add(
            name,
            box((1.262, y, z), (1.268, y + rng.uniform(0.08, 0.18), z + rng.uniform(0.08, 0.16))),
        )
    pot = parts.potted_plant(rng, 1.0, 60, 0.2, ("orange", "frame", "leafy", "leafy"))
    w.place(pot, 1.0, 0, -2.4)


@scene(
    title="Reading room",
    tags=("interior", "indirect", "interreflection", "textured", "glossy"),
    camera=Camera((0.75, 1.5, 3.1), (-0.25, 1.12, -1.2), fov=62),
)
def reading_room(w: World) -> None:
    """Fill shelves with hundreds of books and light them by shaded lamps only.

    The bulbs are hidden by opaque shades: light leaves through the openings and bounces.
    """
    rng = np.random.default_rng(2024)
    palette = ("7c2d26", "23405c", "2f5a3c", "b98a3c", "5a4632", "d8c7a2", "3c3c44", "8a5a78")
    for k, code in enumerate(palette):
        w.material(f"cover_{k}", matte(code))
    w.material("pages", matte("e6dcc3"))
    bindings = [*(f"cover_{k}" for k in range(len(palette))), "pages"]
    oak = wood("8c5a30", "4a2a12", 23, planks=4)
    w.material("oak", glossy(bitmap(oak, 1.0), 0.15))
    floor = wood("a0703f", "5c3a1c", 26, planks=10)
    w.material("floor", glossy(bitmap(floor, 1.4), 0.12))
    w.material("wall", matte("efe9db"))
    w.material("leather", glossy("6b2f22", 0.28))
    w.material("brass", metal("Cu", 0.1))
    w.material("shade", matte("efe2c2"))
    w.material("enamel", glossy("1f5a45", 0.08))
    w.material("rug", matte(bitmap(rug(("7b2b2a", "e0c997", "24384f", "b5713a"), 14))))

    sides = parts.room((-2.5, 0, -2.0), (2.3, 2.9, 3.4))
    w.add("floor", sides["floor"])
    w.add("wall", sides["ceiling"], sides["front"], sides["left"], sides["right"], sides["back"])

    def bookcase(width: float, turn: float, x: float, z: float, gap: tuple[int, ...] = ()) -> None:
        rows, depth, tall = 6, 0.3, 2.55
        w.add("oak", parts.shelf_unit(width, tall, depth, rows).turned("y", turn).moved(x, 0, z))
        for row in range(rows):
            if row in gap:
                continue
            y = row * (tall - 0.025) / rows + 0.025
            clear = (tall - 0.025) / rows - 0.03
            for name, group in zip(
                bindings, parts.books(rng, width - 0.02, clear, depth, len(palette)), strict=True
            ):
                if group:
                    row_of_books = join(group).moved(0.01 - width / 2, y, 0.015)
                    w.place({name: row_of_books}, x, 0, z, turn=turn)

    for k in range(4):
        bookcase(1.1, 0, -1.88 + 1.16 * k, -1.98, (2,) if k == 2 else ())
    for k in range(3):
        bookcase(1.1, 90, -2.48, -0.95 + 1.16 * k, (3,) if k == 1 else ())
    w.add("brass", parts.vase(1, 0.3).moved(0.25, 0.89, -1.8))
    w.add("enamel", parts.vase(3, 0.32).moved(0.62, 0.89, -1.8))
    w.add("shade", parts.bowl(0.12, 0.1).moved(-2.3, 1.3, 0.3))

    # A desk with a banker's lamp, an open book, papers.
    w.add("oak", parts.table(1.5, 0.75, 0.75).turned("y", 14).moved(0.75, 0, -0.55))
    w.add("oak", parts.chair().turned("y", 8).moved(0.7, 0, -1.15))
    w.add("brass", parts.stand(0.38, 0.01, 0.09).moved(1.12, 0.75, -0.75))
    trough = surface(
        lambda s, t: (
            0.2 * (t - 0.5) * 2,
            0.085 * np.sin(np.pi * s),
            -0.095 * np.cos(np.pi * s),
        ),
        24,
        2,
    )
    w.add("enamel", trough.turned("y", 14).moved(1.12, 1.1, -0.75))
    tube_light = rod((-0.16, 0, 0), (0.16, 0, 0), 0.014).turned("y", 14)
    w.mesh_light(tube_light.moved(1.12, 1.12, -0.75), planck(3500, 520.0))
    for side in (-1, 1):
        page = surface(
            lambda s, t, side=side: (
                side * 0.17 * s,
                0.018 * np.sin(np.pi * np.sqrt(np.abs(s))) + 0.004,
                -0.12 + 0.24 * t,
            ),
            16,
            1,
        )
        w.add(
            "pages", (page.flipped() if side < 0 else page).turned("y", 8).moved(0.62, 0.752, -0.5)
        )
    for k in range(5):
        volume = box((-0.1, 0, -0.13), (0.1, 0.033, 0.13), 0.003).turned("y", 17.0 * k)
        w.add(f"cover_{k}", volume.moved(0.2, 0.75 + 0.035 * k, -0.42))

    # An armchair under a floor lamp, a rug, a step ladder.
    body, feet = parts.sofa(0.95, seats=1)
    w.place({"leather": body, "oak": feet}, -1.35, 0, -0.75, turn=48)
    lamp = {"brass": parts.stand(1.6), "shade": parts.shade(0.26, 0.16, 0.3).moved(y=1.5)}
    w.place(lamp, -1.95, 0, -0.35)
    w.ball_light((-1.95, 1.62, -0.35), 0.095, planck(3400, 420.0))
    w.add("rug", quad((-1.7, 0.006, 1.5), (2.7, 0, 0), (0, 0, -1.8)).tiled(1 / 2.7, 1 / 1.8))
    w.add("brass", rod((1.75, 2.0, 0.4), (1.75, 2.9, 0.4), 0.008))
    w.add("enamel", parts.shade(0.24, 0.07, 0.2).moved(1.75, 1.9, 0.4))
    w.ball_light((1.75, 1.97, 0.4), 0.085, planck(3400, 420.0))
    for x in (-1.3, 0.0, 1.3):  # up-lights on top of the shelves wash the ceiling
        w.add("enamel", box((x - 0.3, 2.56, -1.78), (x + 0.3, 2.62, -1.66), 0.004))
        w.panel_light((x, 2.63, -1.72), (x, 2.9, -1.66), (0.56, 0.08), planck(3700, 260.0))
    for x in (-0.3, 0.15):
        w.add("oak", tube([(x, 0, -1.25), (x, 2.3, -1.72)], 0.018))
    for k in range(8):
        s = (k + 0.5) / 8.4
        w.add(
            "oak", rod((-0.3, 2.3 * s, -1.25 - 0.47 * s), (0.15, 2.3 * s, -1.25 - 0.47 * s), 0.012)
        )
