"""What a render is called with: refused where it makes no sense, and brought into one form."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np

from mitsuba_gdpt import checks
from mitsuba_gdpt.errors import ConfigError, VariantError, reraise_interrupt
from mitsuba_gdpt.integrators.parameters import MOST_LANES, Parameters
from mitsuba_gdpt.integrators.pixels import PORTION


def check_variant(variant: str, scene: mi.Scene) -> None:
    """Refuse an integrator or a scene of another variant than the one that is set now.

    Raises:
        VariantError: Names both.
    """
    if (now := mi.variant()) != variant:
        raise VariantError(
            f"this gdpt integrator was made for the variant {variant!r}, but {now!r} is set; load "
            "integrator and scene again after mi.set_variant()"
        )
    if not isinstance(scene, mi.Scene):
        raise VariantError(
            f"the scene is a {type(scene).__name__} of another variant; expected one that was "
            f"loaded after mi.set_variant({variant!r})"
        )


def sensor_of(scene: mi.Scene, sensor: int | mi.Sensor) -> mi.Sensor:
    """Return a sensor, which may be given by its index in the scene.

    Raises:
        ConfigError: The scene has no such sensor, or it is none.
    """
    if not isinstance(sensor, int | np.integer):
        if not isinstance(sensor, mi.Sensor):
            raise ConfigError(
                f"the sensor is {checks.show(sensor)}; expected the index of a sensor of the "
                "scene, or a sensor of this variant"
            )
        return sensor
    sensors = scene.sensors()
    if not 0 <= sensor < len(sensors):
        raise ConfigError(
            f"sensor {sensor} was asked for, but the scene has {len(sensors)}; "
            "add a <sensor> to the scene or pick another index"
        )
    return sensors[int(sensor)]


def check_film(film: mi.Film) -> None:
    """Refuse a film without pixels, or one that wants other channels than colour.

    Raises:
        ConfigError: It is one, as ``specfilm``.
    """
    size = [*film.crop_size()]
    if not all(size):
        raise ConfigError(f"the film's crop window is {size} pixels; expected 1 x 1 or more")
    if mi.has_flag(film.flags(), mi.FilmFlags.Special):
        name = film.class_name()
        name = "specfilm" if name == "SpecFilm" else name
        raise ConfigError(
            f"the film {name} is not supported: gdpt renders RGB, not bands; use hdrfilm"
        )


def seed_of(seed: int | mi.UInt32) -> int:
    """Return a seed in [0, 2^32).

    Raises:
        ConfigError: It is no whole number.
    """
    value = seed[0] if isinstance(seed, mi.UInt32) and dr.width(seed) == 1 else seed
    if not isinstance(value, int | np.integer):
        raise ConfigError(f"the seed is {seed}; expected a whole number")
    return int(value) % 2**32


def counts_of(counts: np.ndarray[Any, Any], film: mi.Film) -> np.ndarray[Any, np.dtype[np.intp]]:
    """Return numbers of samples by pixel, (H, W).

    Raises:
        ConfigError: Another shape than the film's crop window, no whole numbers, too few or too
            many samples, or part of a portion.
    """
    array = np.asarray(counts)
    width, height = film.crop_size()
    if array.shape != (height, width) or array.dtype.kind not in "iu":
        raise ConfigError(
            f"counts are {array.dtype} of shape {array.shape}; expected whole numbers of shape "
            f"{(height, width)}, one for each pixel"
        )
    least, most = int(array.min()), int(array.max())
    if least < 0 or not 0 < most <= MOST_LANES or (array % PORTION).any():
        raise ConfigError(
            f"counts are {least} to {most}; expected multiples of {PORTION}, none below 0, one "
            "above it"
        )
    return array.astype(np.intp)


def prepared_sampler(sensor: mi.Sensor, spp: int, parameters: Parameters) -> mi.Sampler:
    """Return a copy of a sensor's sampler that takes ``spp`` samples per pixel in one pass.

    Args:
        sensor: The sensor.
        spp: Samples per pixel, which some samplers round; 0 leaves them to the sampler.
        parameters: Of the integrator.

    Raises:
        ConfigError: Too few samples, too many, or part of one.
    """
    least = parameters.least_spp
    if not isinstance(spp, int | np.integer) or not 0 <= spp <= MOST_LANES:
        raise ConfigError(f"spp is {spp}; expected {least} to {MOST_LANES}")
    sampler = sensor.sampler().clone()
    if spp:
        sampler.set_sample_count(int(spp))
    spp = sampler.sample_count()
    if spp < least:
        raise ConfigError(f"spp is {spp}; variances={parameters.variances} needs at least {least}")
    sampler.set_samples_per_wavefront(spp)
    return sampler


def portion_sampler(sensor: mi.Sensor, parameters: Parameters) -> mi.Sampler:
    """Return a copy of a sensor's sampler that takes a portion of the samples of a pixel.

    Raises:
        ConfigError: It rounds their number.
    """
    sampler = prepared_sampler(sensor, PORTION, parameters)
    if sampler.sample_count() != PORTION:
        raise ConfigError(
            f"the sampler {sampler.class_name()} takes {sampler.sample_count()} samples where "
            f"{PORTION} are asked for, which counts need; expected another, as 'independent'"
        )
    return sampler


def ignored(scene: mi.Scene, film: mi.Film) -> list[str]:
    """Say what of a scene and its film makes no difference to a render."""
    found = []
    if not film.rfilter().is_box_filter():
        found.append(
            "the film's reconstruction filter is used as a box filter; add "
            '<rfilter type="box"/> to the film to silence this warning.'
        )
    if any(shape.is_medium_transition() for shape in scene.shapes()):
        found.append("participating media are ignored, as by the path integrator.")
    return found


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C inside a callback of Dr.Jit end a render as what it is."""
    try:
        yield
    except RuntimeError as error:
        reraise_interrupt(error)
        raise
