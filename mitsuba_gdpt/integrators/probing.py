"""What the tables of emitters and of the environment share: looking around in a scene."""

from __future__ import annotations

import drjit as dr
import mitsuba as mi

#: Rays leave surfaces at most this share of the scene's size off them. Beyond, light sampling and
#: BSDF sampling do not see the same scene: their MIS weights do not add up to 1 (nor do those of
#: ``path``), and any other choice of emitters gives another image.
_MOST_DISPLACED = 0.01


def rays_are_displaced(scene: mi.Scene) -> bool:
    """Return whether rays begin so far off surfaces that the choice of light is part of the image.

    Relative to the size of the scene: so in scenes that are tiny or far from the origin.
    """
    bbox = scene.bbox()
    size = float(dr.norm(bbox.extents())) if bbox.valid() else 0.0
    if size == 0:
        return False
    farthest = max(float(dr.max(dr.abs(bbox.min))), float(dr.max(dr.abs(bbox.max))))
    return float(mi.math.RayEpsilon) * (1 + farthest) / size > _MOST_DISPLACED


def extent_is_known(scene: mi.Scene) -> bool:
    """Return whether Mitsuba knows where all shapes are.

    Of rectangles that it merges (version 3.9.1) it does not. Shadow rays to the environment may
    then end inside the scene, and light sampling sees more than BSDF sampling.
    """
    return all(shape.bbox().valid() for shape in scene.shapes())


def facing(si: mi.SurfaceInteraction3f) -> mi.Normal3f:
    """Return the shading normal on the side that is seen."""
    return dr.select(mi.Frame3f.cos_theta(si.wi) < 0, -si.sh_frame.n, si.sh_frame.n)


def lanes(count: int) -> mi.UInt32:
    """Return the numbers of ``count`` lanes, in memory.

    ``dr.freeze`` knows the size of a kernel by its inputs. With none as long as the kernel itself
    it is misled by others that happen to be, such as the parameters of all plugins.
    """
    lane = dr.arange(mi.UInt32, count)
    dr.eval(lane)
    return lane


def numbers(k: mi.UInt32) -> list[mi.Float]:
    """Return five numbers in [0, 1) that are evenly spread over k: an additive recurrence."""
    root = 1.1673039782614187  # of x^6 = x + 1: its powers are badly approximable together
    values = (dr.fma(mi.Float(k), root**-d, 0.5) for d in range(1, 6))
    return [x - dr.floor(x) for x in values]
