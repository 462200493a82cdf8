"""Colours of other primaries than Rec. 709: NumPy matrices on (..., 3) arrays.

Chromaticities are the eight numbers of the attribute of that name in OpenEXR files: x and y of red,
green, blue and white. Imports neither torch nor mitsuba.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mitsuba_gdpt.errors import FormatError

Matrix = NDArray[np.float64]

#: Rec. 709 and sRGB; what an OpenEXR file has where it does not say.
REC709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.3290)
_TOLERANCE = 1e-4  # chromaticities are stored as float32, often rounded to four digits
#: Bradford's cone responses; see Lindbloom, "Chromatic Adaptation", http://www.brucelindbloom.com.
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def rgb_to_xyz(chromaticities: Sequence[float]) -> Matrix:
    """Return the (3, 3) matrix that takes RGB of these primaries to CIE XYZ; white has Y = 1.

    Raises:
        FormatError: The numbers are not those of three primaries and a white.
    """
    values = np.asarray(chromaticities, dtype=np.float64)
    problem = f"chromaticities {tuple(float(v) for v in values.ravel())} are no primaries and white"
    if values.shape != (8,) or not np.isfinite(values).all() or values[7] == 0:
        raise FormatError(problem)
    x, y = values.reshape(4, 2).T
    columns = np.stack([x, y, 1 - x - y])
    primaries, white = columns[:, :3], columns[:, 3] / y[3]
    if abs(np.linalg.det(primaries)) < 1e-9:
        raise FormatError(problem)
    matrix = primaries * np.linalg.solve(primaries, white)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
        raise FormatError(problem)
    return np.asarray(matrix)


def luminance_weights(chromaticities: Sequence[float] | None) -> NDArray[np.float64]:
    """Return the (3,) weights of R, G and B in the luminance.

    Raises:
        FormatError: As for :func:`rgb_to_xyz`.
    """
    return np.asarray(rgb_to_xyz(REC709 if chromaticities is None else chromaticities)[1])


def to_rec709(chromaticities: Sequence[float] | None) -> Matrix | None:
    """Return the (3, 3) matrix that takes RGB of these primaries to Rec. 709, white to white.

    Whites are adapted by Bradford's method.

    Args:
        chromaticities: Eight numbers, or None for Rec. 709.

    Returns:
        None if nothing is to be done.

    Raises:
        FormatError: As for :func:`rgb_to_xyz`.
    """
    if chromaticities is None or np.allclose(chromaticities, REC709, rtol=0, atol=_TOLERANCE):
        return None
    source, target = rgb_to_xyz(chromaticities), rgb_to_xyz(REC709)
    from_white, to_white = _BRADFORD @ source.sum(1), _BRADFORD @ target.sum(1)
    adapt = np.linalg.inv(_BRADFORD) @ np.diag(to_white / from_white) @ _BRADFORD
    return np.asarray(np.linalg.inv(target) @ adapt @ source)


#: Weights of the samples at distances -13, -11 ... 13, for a sample between those of half the rate:
#: the filter that OpenEXR's own programs reconstruct chroma with (ImfRgbaYca.cpp).
_HALF_RATE = (0.002128, -0.007540, 0.019597, -0.043159, 0.087929, -0.186077, 0.627123)
_TAPS = np.array([*_HALF_RATE, *_HALF_RATE[::-1]], dtype=np.float32)


def rgb_from_chroma(
    luminance: NDArray[np.float32],
    chroma: Sequence[NDArray[np.float32]],
    weights: NDArray[np.float64],
) -> dict[str, NDArray[np.float32]]:
    """Return R, G and B of an OpenEXR image of luminance and chroma.

    Args:
        luminance: (H, W).
        chroma: (R - Y) / Y and (B - Y) / Y, (H, W) or of every second pixel of an axis, from the
            first on.
        weights: (3,) as of :func:`luminance_weights`.
    """
    full = []
    for plane in chroma:
        for axis in (0, 1):
            if plane.shape[axis] != luminance.shape[axis]:
                plane = _upsampled(plane, luminance.shape[axis], axis)
        full.append((plane + 1) * luminance)
    red, blue = full
    green = (luminance - weights[0] * red - weights[2] * blue) / weights[1]
    return {"R": red, "G": green.astype(np.float32), "B": blue}


def _upsampled(plane: NDArray[np.float32], size: int, axis: int) -> NDArray[np.float32]:
    """Double the rate of samples along an axis; borders are repeated."""
    samples = np.moveaxis(plane, axis, 0)
    half = len(_TAPS) // 2
    padded = np.pad(samples, ((half, half), (0, 0)), mode="edge")
    gaps = len(samples) + 1
    between = sum(tap * padded[i : i + gaps] for i, tap in enumerate(_TAPS))
    both = np.empty((2 * len(samples) + 1, *samples.shape[1:]), dtype=np.float32)
    both[0::2], both[1::2] = between, samples
    return np.moveaxis(both[1 : size + 1], 0, axis)
