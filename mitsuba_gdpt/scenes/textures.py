"""Procedural textures as numpy arrays: linear RGB (H, W, 3) or single-channel (H, W), float32.

All of them tile, all are seeded. What turns them into Mitsuba plugins is in ``materials``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Image = NDArray[np.float32]
#: An sRGB hex code such as ``"c8553d"``, or linear RGB.
Colour = str | tuple[float, float, float]


def rgb(colour: Colour) -> NDArray[np.float64]:
    """Return linear RGB."""
    if not isinstance(colour, str):
        return np.array(colour)
    channels = np.array([int(colour[k : k + 2], 16) / 255 for k in (0, 2, 4)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def noise(
    shape: tuple[int, int], seed: int, slope: float = 1.8, stretch: tuple[float, float] = (1, 1)
) -> Image:
    """Return tileable fractal noise in 0..1 (flat histogram).

    White noise shaped in the Fourier domain: periodic by construction, no lattice to show.

    Args:
        shape: (height, width).
        seed: Seed of the generator.
        slope: Exponent of the amplitude's fall-off with frequency; larger is smoother.
        stretch: Features are this much longer along (y, x).
    """
    height, width = shape
    white = np.random.default_rng(seed).standard_normal(shape)
    fy = np.fft.fftfreq(height)[:, None] * height * stretch[0]
    fx = np.fft.rfftfreq(width)[None, :] * width * stretch[1]
    radius = np.hypot(fy, fx)
    radius[0, 0] = np.inf  # no constant term
    field = np.fft.irfft2(np.fft.rfft2(white) * radius**-slope, s=shape)
    # The field is Gaussian; a logistic curve is its distribution function to within 1 %.
    return (1 / (1 + np.exp(-1.702 * field / field.std()))).astype(np.float32)


def blend(low: ArrayLike, high: ArrayLike, weight: NDArray[np.floating]) -> Image:
    """Interpolate between two colours (or RGB images) with a (H, W) weight."""
    w = np.asarray(weight, dtype=np.float64)[..., None]
    return ((1 - w) * np.asarray(low) + w * np.asarray(high)).astype(np.float32)


def ramp(colours: Sequence[Colour], position: NDArray[np.floating]) -> Image:
    """Map (H, W) values in 0..1 through evenly spaced colours."""
    knots = np.linspace(0, 1, len(colours))
    table = np.array([rgb(c) for c in colours])
    channels = [np.interp(position, knots, table[:, c]) for c in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def wood(
    light: Colour, dark: Colour, seed: int, size: int = 512, planks: int = 6, joint: float = 0.35
) -> Image:
    """Planks along the image's x axis, with grain, per-plank tone and dark joints."""
    rng = np.random.default_rng(seed)
    grain = noise((size, size), seed + 1, 1.5, (0.5, 14))
    fine = noise((size, size), seed + 2, 0.8, (0.6, 30))
    plank = np.arange(size) * planks // size
    shift = rng.integers(0, size, planks)[plank]
    columns = (np.arange(size)[None, :] + shift[:, None]) % size
    grain = np.take_along_axis(grain, columns, axis=1)
    ends = (columns * 2 // size).astype(int)  # two boards per row
    tone = rng.uniform(-0.3, 0.3, (planks, 2))[plank[:, None], ends]
    weight = np.clip(0.55 * grain + 0.25 * fine + 0.1 + tone, 0, 1)
    inside = (np.arange(size) * planks % size) / planks
    seam = (inside < 1.5)[:, None] | (columns % (size // 2) < 2)
    return (blend(rgb(light), rgb(dark), weight) * np.where(seam, joint, 1.0)[..., None]).astype(
        np.float32
    )


def bricks(
    base: Colour,
    mortar: Colour,
    seed: int,
    rows: int = 8,
    columns: int = 4,
    size: int = 512,
    joint: float = 0.07,
) -> tuple[Image, Image]:
    """Running-bond bricks; returns (colour, height), the height for bump maps in 0..1."""
    rng = np.random.default_rng(seed)
    v, u = np.meshgrid(np.arange(size) / size, np.arange(size) / size, indexing="ij")
    row = (v * rows).astype(int)
    along = u * columns + 0.5 * (row % 2)
    column = along.astype(int) % columns
    ratio = rows / columns  # the joint is equally wide in both directions
    dv = np.minimum(v * rows % 1, 1 - v * rows % 1)
    du = np.minimum(along % 1, 1 - along % 1) * ratio
    rough = noise((size, size), seed + 1, 1.0)
    edge = np.clip((np.minimum(du, dv) - joint + 0.04 * (rough - 0.5)) / 0.05, 0, 1)
    tone = rng.uniform(0.6, 1.25, (rows, columns))[row, column]
    tint = rng.uniform(-0.12, 0.12, (rows, columns))[row, column]
    stone = rgb(base) * (tone * (0.75 + 0.5 * rough))[..., None]
    stone = stone * (1 + tint[..., None] * np.array([1.0, -0.3, -0.8]))
    colour = blend(rgb(mortar) * (0.8 + 0.4 * rough)[..., None], np.clip(stone, 0, 0.95), edge)
    height = (edge * (0.8 + 0.2 * rough)).astype(np.float32)
    return np.clip(colour, 0, 0.95), height


def tiles(
    colours: Sequence[Colour],
    grout: Colour,
    seed: int,
    count: int = 8,
    size: int = 512,
    joint: float = 0.035,
    checker: bool = False,
) -> Image:
    """Square tiles in random (or chequered) choices of the given colours."""
    rng = np.random.default_rng(seed)
    index = np.arange(size) * count // size
    row, column = np.meshgrid(index, index, indexing="ij")
    choice = rng.integers(0, len(colours), (count, count))
    if checker:
        choice = np.add.outer(np.arange(count), np.arange(count)) % len(colours)
    tone = rng.uniform(0.88, 1.08, (count, count))
    face = np.array([rgb(c) for c in colours])[choice[row, column]] * tone[row, column][..., None]
    face = face * (0.93 + 0.14 * noise((size, size), seed + 1, 1.4))[..., None]
    inside = np.arange(size) * count % size / size
    near = np.minimum(inside, 1 - inside) < joint
    return np.where((near[:, None] | near[None, :])[..., None], rgb(grout), face).astype(np.float32)


def marble(light: Colour, vein: Colour, seed: int, size: int = 512) -> Image:
    """Veined stone: thin level lines of warped noise."""
    warp = noise((size, size), seed, 1.9)
    detail = noise((size, size), seed + 1, 1.3)
    lines = np.abs(np.sin(np.pi * (3.0 * warp + 0.35 * detail)))
    weight = np.exp(-((lines / 0.09) ** 2)) * (0.3 + 0.7 * noise((size, size), seed + 2, 1.7))
    return blend(rgb(light) * (0.9 + 0.1 * detail)[..., None], rgb(vein), weight)


def damask(base: Colour, figure: Colour, seed: int, size: int = 512, repeats: int = 4) -> Image:
    """Wallpaper with a staggered ornamental figure."""
    v, u = np.meshgrid(np.arange(size) / size, np.arange(size) / size, indexing="ij")
    weight = np.zeros((size, size))
    for du, dv in ((0.0, 0.0), (0.5, 0.5)):
        x = ((u * repeats + du) % 1 - 0.5) * 2
        y = ((v * repeats * 0.75 + dv) % 1 - 0.5) * 2
        r, angle = np.hypot(x, 0.8 * y), np.arctan2(x, y)
        petal = 0.42 + 0.16 * np.cos(6 * angle) + 0.08 * np.cos(12 * angle)
        ring = np.exp(-(((r - petal) / 0.035) ** 2))
        weight = np.maximum.reduce(
            [weight, ring, (r < 0.6 * petal) * 0.8, np.exp(-(((r - 0.75) / 0.02) ** 2)) * 0.5]
        )
    weight = weight * (0.85 + 0.15 * noise((size, size), seed, 0.8))
    return blend(rgb(base), rgb(figure), np.clip(weight, 0, 1))


def rug(colours: Sequence[Colour], seed: int, size: int = 512) -> Image:
    """A woven rug: nested borders around a field of lozenges, with thread noise. Not tileable."""
    v, u = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size), indexing="ij")
    border = np.maximum(np.abs(u), np.abs(v))
    lozenge = np.abs((u * 3 + 0.5) % 1 - 0.5) + np.abs((v * 3 + 0.5) % 1 - 0.5)
    index = np.where(lozenge < 0.22, 2, np.where(lozenge < 0.32, 3, 0))
    zigzag = np.abs((np.where(np.abs(u) > np.abs(v), v, u) * 10) % 1 - 0.5)
    for low, high, value in ((0.72, 0.76, 1), (0.76, 0.9, 2), (0.9, 0.94, 1), (0.94, 1.01, 3)):
        index = np.where((border >= low) & (border < high), value, index)
    index = np.where((border >= 0.78) & (border < 0.88) & (zigzag < 0.22), 1, index)
    thread = 0.75 + 0.35 * noise((size, size), seed, 0.5, (1, 3))
    return (np.array([rgb(c) for c in colours])[index % len(colours)] * thread[..., None]).astype(
        np.float32
    )


def painting(seed: int, size: int = 256) -> Image:
    """An abstract picture: overlapping blobs and strokes in a random harmonious palette."""
    rng = np.random.default_rng(seed)
    hue = rng.uniform()
    v, u = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size), indexing="ij")

    def tone(offset: float, light: float) -> NDArray[np.float64]:
        phase = 2 * np.pi * (hue + offset + np.array([0.0, 1 / 3, 2 / 3]))
        return np.clip(light * (0.45 + 0.24 * np.cos(phase)), 0.02, 0.9)

    image = blend(tone(0.0, 1.5), tone(0.1, 0.8), v)
    for k in range(14):
        cx, cy, r = rng.uniform(0, 1), rng.uniform(0.1, 0.9), rng.uniform(0.05, 0.28)
        wobble = 0.08 * noise((size, size), seed * 50 + k, 2.0)
        if k % 3 == 0:
            angle = rng.uniform(0, np.pi)
            distance = np.abs((u - cx) * np.cos(angle) + (v - cy) * np.sin(angle)) * 3
        else:
            distance = np.hypot(u - cx, v - cy)
        weight = np.clip((r - distance - wobble) * 60, 0, 1) * rng.uniform(0.6, 1.0)
        image = blend(
            image, tone(rng.uniform(-0.2, 0.2) + 0.5 * (k % 4 == 1), rng.uniform(0.4, 1.6)), weight
        )
    canvas = 0.9 + 0.15 * noise((size, size), seed + 7, 0.4)
    return np.clip(image * canvas[..., None], 0.01, 0.9).astype(np.float32)


def speckle(base: Colour, chips: Sequence[Colour], seed: int, size: int = 512) -> Image:
    """Terrazzo: irregular stone chips in a cement bed (a jittered Voronoi diagram)."""
    rng = np.random.default_rng(seed)
    cells = 28
    jitter = rng.uniform(0.1, 0.9, (cells, cells, 2))
    radius = rng.uniform(0.15, 0.62, (cells, cells))
    choice = rng.integers(0, len(chips), (cells, cells))
    v, u = np.meshgrid(
        np.arange(size) * cells / size, np.arange(size) * cells / size, indexing="ij"
    )
    wobble = 0.35 * (noise((size, size), seed + 1, 1.2) - 0.5)
    best = np.full((size, size), np.inf)
    owner = np.zeros((size, size, 2), dtype=int)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            cy, cx = v.astype(int) + dy, u.astype(int) + dx
            point = jitter[cy % cells, cx % cells]
            distance = np.hypot(v - cy - point[..., 0], u - cx - point[..., 1]) + wobble
            nearer = distance < best
            best = np.where(nearer, distance, best)
            owner[nearer] = np.stack([cy % cells, cx % cells], -1)[nearer]
    inside = best < radius[owner[..., 0], owner[..., 1]]
    colour = np.array([rgb(c) for c in chips])[choice[owner[..., 0], owner[..., 1]]]
    bed = rgb(base) * (0.9 + 0.2 * noise((size, size), seed + 2, 0.8))[..., None]
    return np.where(inside[..., None], colour, bed).astype(np.float32)


def leaf_mask(size: int = 128, lobes: int = 0) -> Image:
    """Opacity of one leaf: 1 inside. The leaf points along v, with ``lobes`` notches per side."""
    v, u = np.meshgrid(np.linspace(0, 1, size), np.linspace(-1, 1, size), indexing="ij")
    width = 0.9 * np.sin(np.pi * np.clip(v, 0, 1) ** 0.8) ** 0.8
    if lobes:
        width = width * (0.62 + 0.38 * np.abs(np.cos(np.pi * lobes * (v + 0.25 * np.abs(u)))))
    stalk = (np.abs(u) < 0.04) & (v < 0.2)
    return ((np.abs(u) < width) | stalk).astype(np.float32)


def leaf_colour(light: Colour, dark: Colour, size: int = 128) -> Image:
    """Green of one leaf, with a midrib and side veins."""
    v, u = np.meshgrid(np.linspace(0, 1, size), np.linspace(-1, 1, size), indexing="ij")
    rib = np.exp(-((u / 0.05) ** 2))
    veins = np.exp(-((((v * 9 - np.abs(u) * 3) % 1 - 0.5) / 0.12) ** 2)) * 0.5
    return blend(rgb(dark), rgb(light), np.clip(np.maximum(rib, veins) + 0.25 * np.abs(u), 0, 1))


def sky(
    sun: ArrayLike,
    seed: int,
    width: int = 512,
    sun_radiance: float = 2500.0,
    sun_degrees: float = 1.6,
    zenith: Colour = (0.12, 0.28, 0.75),
    horizon: Colour = (0.75, 0.85, 1.0),
    ground: Colour = (0.25, 0.22, 0.18),
    clouds: float = 0.5,
) -> Image:
    """Return an equirectangular HDR sky (Y up, Mitsuba's ``envmap`` orientation).

    A gradient, fractal clouds lit from the sun's side, a halo and a sun disc (several times the
    real size, so that a half-degree pixel grid and a path tracer can hit it).

    Args:
        sun: Direction towards the sun.
        seed: Seed of the clouds.
        width: Pixels around; the height is half of it.
        sun_radiance: Radiance of the disc; the sky itself is about 1.
        sun_degrees: Radius of the disc.
        zenith: Colour overhead.
        horizon: Colour at the horizon.
        ground: Colour below the horizon.
        clouds: Covered fraction of the sky.
    """
    height = width // 2
    theta = (np.arange(height)[:, None] + 0.5) * np.pi / height
    phi = (np.arange(width)[None, :] + 0.5) * 2 * np.pi / width
    # Mitsuba looks up u = atan2(x, -z) / 2 pi, v = acos(y) / pi.
    direction = np.stack(
        np.broadcast_arrays(
            np.sin(phi) * np.sin(theta), np.cos(theta), -np.cos(phi) * np.sin(theta)
        ),
        axis=-1,
    )
    to_sun = np.asarray(sun, dtype=float) / np.linalg.norm(sun)
    cosine = np.clip(direction @ to_sun, -1, 1)
    up = direction[..., 1]
    image = blend(rgb(horizon), rgb(zenith), np.clip(up, 0, 1) ** 0.45)
    # Clouds live on a plane overhead, so that they shrink towards the horizon.
    plane = noise((512, 512), seed, 1.6)
    reach = 90.0 / np.maximum(up, 0.08)
    x = ((direction[..., 0] * reach) % 512).astype(int)
    z = ((direction[..., 2] * reach) % 512).astype(int)
    cover = np.clip((plane[z, x] - (1 - clouds)) * 3.0, 0, 1) * np.clip(up * 8, 0, 1)
    lit = (0.7 + 0.5 * np.clip(cosine, 0, 1) ** 2)[..., None] * np.array([1.25, 1.2, 1.15])
    image = blend(image, lit, 0.9 * cover)
    angle = np.degrees(np.arccos(cosine))
    warm = np.array([1.0, 0.86, 0.66])
    image = image + (1.5 * np.exp(-angle / 12) + 12 * np.exp(-angle / 3.0))[..., None] * warm
    image = np.where((up < 0)[..., None], rgb(ground), image)
    disc = np.clip((sun_degrees - angle) * 2 + 0.5, 0, 1)[..., None]
    return (image * (1 - disc) + sun_radiance * warm * disc).astype(np.float32)
