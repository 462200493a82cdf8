"""From the variant's spectrum type to the R, G, B channels of the buffers."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import drjit as dr
import mitsuba as mi

#: Of rays, in nm: as many as the variant has at a time; none in rgb and mono.
Wavelengths = Any


def radiance_rgb(value: mi.Spectrum, wavelengths: Wavelengths) -> list[mi.Float]:
    """Return the linear sRGB components of a radiance (sensor weight applied)."""
    if mi.is_spectral:
        return [*mi.spectrum_to_srgb(value, wavelengths)]
    if mi.is_monochromatic:
        return [value.x] * 3
    return [*value]


def reflectance_rgb(
    value: mi.Spectrum, weight: mi.Spectrum | None, wavelengths: Wavelengths
) -> list[mi.Float]:
    """Return the linear sRGB components of a reflectance.

    Spectral variants look at it under D65, the white of sRGB, for which Mitsuba upsamples RGB
    reflectances; so a reflectance of one has the expected value (1, 1, 1). The wavelength
    samples make it noisy, and single samples may leave [0, 1]. Without a ``weight``, that of the
    sensor's wavelength samples (``None``), the colour is unknown and the mean is returned.
    """
    if mi.is_spectral and weight is None:
        return [dr.mean(value)] * 3
    if mi.is_spectral:
        si = mi.SurfaceInteraction3f()
        si.wavelengths = wavelengths
        value = value * weight * _d65(mi.variant()).eval(si)
    return radiance_rgb(value, wavelengths)


@lru_cache
def _d65(variant: str) -> mi.Texture:
    return mi.load_dict({"type": "d65"})
