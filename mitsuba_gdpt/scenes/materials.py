"""Short spellings of the Mitsuba dictionaries that the built-in scenes use: BSDFs and spectra.

Nothing here depends on the variant. Emission spectra of lamps are Planck curves and metals are
measured presets, so the scenes carry real spectra in spectral variants and their colours in
the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt.scenes.textures import Colour, leaf_colour, leaf_mask, rgb

Plugin = dict[str, Any]
Paint = Colour | float | Plugin | NDArray[np.float32]


def paint(value: Paint) -> Plugin:
    """Turn a colour, a grey level, an image (one copy per metre) or a texture into a texture."""
    if isinstance(value, dict):
        return value
    if isinstance(value, np.ndarray):
        return bitmap(value)
    if isinstance(value, int | float):
        value = (value, value, value)
    return {"type": "rgb", "value": [float(c) for c in rgb(value)]}


def bitmap(
    pixels: NDArray[np.floating], metres: float | tuple[float, float] = 1.0, raw: bool = False
) -> Plugin:
    """Wrap an image as a repeating texture.

    Args:
        pixels: (H, W, 3) linear RGB or (H, W) values.
        metres: How many uv units (metres, on boxes) one copy of the image covers.
        raw: Values are data (opacity, height), not colours to be upsampled to spectra.
    """
    import mitsuba as mi

    u, v = (metres, metres) if isinstance(metres, int | float) else metres
    data = np.ascontiguousarray(pixels if pixels.ndim == 3 else pixels[..., None], dtype=np.float32)
    return {
        "type": "bitmap",
        "bitmap": mi.Bitmap(data),
        "raw": raw,
        "to_uv": mi.ScalarTransform3f().scale([1 / u, 1 / v]),
    }


def matte(colour: Paint) -> Plugin:
    """Two-sided diffuse."""
    return {"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": paint(colour)}}


def glossy(colour: Paint, alpha: float = 0.1, ior: float = 1.5) -> Plugin:
    """Two-sided rough plastic: varnished wood, paint, glazed ceramics."""
    return {
        "type": "twosided",
        "bsdf": {
            "type": "roughplastic",
            "diffuse_reflectance": paint(colour),
            "alpha": alpha,
            "int_ior": ior,
            "nonlinear": True,
        },
    }


def polished(colour: Paint, ior: float = 1.5) -> Plugin:
    """Two-sided smooth plastic: a sharp reflection over a diffuse base."""
    return {
        "type": "twosided",
        "bsdf": {"type": "plastic", "diffuse_reflectance": paint(colour), "int_ior": ior},
    }


def metal(material: str, alpha: float | tuple[float, float] | Plugin = 0.1) -> Plugin:
    """Two-sided rough conductor with measured optical constants; a pair is anisotropic."""
    bsdf: Plugin = {"type": "roughconductor", "material": material, "distribution": "ggx"}
    if isinstance(alpha, tuple):
        bsdf |= {"alpha_u": alpha[0], "alpha_v": alpha[1]}
    else:
        bsdf["alpha"] = alpha
    return {"type": "twosided", "bsdf": bsdf}


def mirror(material: str = "Ag") -> Plugin:
    """Two-sided perfect mirror with the reflectance of a metal."""
    return {"type": "twosided", "bsdf": {"type": "conductor", "material": material}}


def glass(ior: float | str = "bk7") -> Plugin:
    """Clear solid glass; the mesh must be closed."""
    return {"type": "dielectric", "int_ior": ior}


def tinted_glass(colour: Paint, ior: float = 1.5) -> Plugin:
    """Glass that tints what passes through its surface."""
    return {"type": "dielectric", "int_ior": ior, "specular_transmittance": paint(colour)}


def frosted_glass(alpha: float, ior: float = 1.5) -> Plugin:
    """Rough solid glass; the mesh must be closed."""
    return {"type": "roughdielectric", "int_ior": ior, "alpha": alpha, "distribution": "ggx"}


def pane(ior: float = 1.5) -> Plugin:
    """Thin window glass: reflects and transmits without refraction."""
    return {"type": "thindielectric", "int_ior": ior}


def masked(opacity: Plugin, bsdf: Plugin) -> Plugin:
    """Cut a BSDF out by an opacity texture: leaves, fences."""
    return {"type": "mask", "opacity": opacity, "bsdf": bsdf}


def leafy(light: Colour, dark: Colour, lobes: int = 0) -> Plugin:
    """Two-sided leaves cut out of cards by their opacity."""
    opacity = bitmap(leaf_mask(lobes=lobes), raw=True)
    return masked(opacity, matte(leaf_colour(light, dark)))


def bumpy(height: Plugin, scale: float, bsdf: Plugin) -> Plugin:
    """Perturb the normals of a two-sided BSDF by a height texture.

    ``twosided`` goes outside: Mitsuba's bump map is written for the front side only.
    """
    return {
        "type": "twosided",
        "bsdf": {"type": "bumpmap", "texture": height, "scale": scale, "bsdf": bsdf["bsdf"]},
    }


def planck(kelvin: float, luminance: float) -> Plugin:
    """Return the emission spectrum of a black body scaled to a luminance.

    Mitsuba's own ``blackbody`` works in spectral variants only; a sampled curve works in all of
    them (it is converted to a colour in RGB variants).

    Args:
        kelvin: Temperature: 1900 candle, 2700 bulb, 5000 daylight, 9000 overcast sky.
        luminance: Radiance of a flat spectrum that looks equally bright.
    """
    wavelengths = np.arange(380.0, 781.0, 10.0)
    metres = wavelengths * 1e-9
    power = metres**-5 / np.expm1(1.4388e-2 / (metres * kelvin))
    eye = _eye(wavelengths)
    power *= luminance * eye.sum() / (eye * power).sum()
    return spectrum(wavelengths, power)


def luminance_of(radiance: Plugin) -> float:
    """Return what :func:`planck` was given, or about the luminance of a colour; 1 for the rest."""
    if radiance["type"] == "spectrum":
        wavelengths, power = np.array(radiance["value"]).T
        eye = _eye(wavelengths)
        return float((eye * power).sum() / eye.sum())
    if radiance["type"] == "rgb":
        return float(np.mean(radiance["value"]))
    return 1.0


def _eye(wavelengths: NDArray[np.floating]) -> NDArray[np.floating]:
    # One-lobe fit of the luminous efficiency curve; only the overall scale depends on it.
    return np.asarray(np.exp(-0.5 * ((wavelengths - 557) / 43) ** 2))


def spectrum(wavelengths: NDArray[np.floating], values: NDArray[np.floating]) -> Plugin:
    """Wrap samples (wavelengths in nm) as a reflectance or emission spectrum."""
    pairs = [(float(w), float(v)) for w, v in zip(wavelengths, values, strict=True)]
    return {"type": "spectrum", "value": pairs}
