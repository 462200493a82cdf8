"""Reconstruction of a clean image from the buffers of one render."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from mitsuba_gdpt.arrays import same_kind
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.denoisers import classical as classical  # registers its methods, as the next
from mitsuba_gdpt.denoisers import learned as learned
from mitsuba_gdpt.denoisers.choice import (
    DEFAULT_QUALITY,
    LEVELS,
    Candidate,
    default_call,
    default_candidate,
    extra_buffers,
    find_level,
    usable_layout,
    without_gradients,
)
from mitsuba_gdpt.denoisers.exposure import Exposure
from mitsuba_gdpt.denoisers.learned.weights import load_weights
from mitsuba_gdpt.denoisers.registry import Call, Method, find, methods, register, requires_package
from mitsuba_gdpt.denoisers.streams import Stream, denoise_sequence, stream
from mitsuba_gdpt.foreign import Words, image_beside, layer, take

__all__ = [
    "DEFAULT_QUALITY",
    "LEVELS",
    "Call",
    "Candidate",
    "Method",
    "Stream",
    "check_method",
    "default_call",
    "default_candidate",
    "denoise",
    "denoise_sequence",
    "extra_buffers",
    "find",
    "find_level",
    "load_weights",
    "methods",
    "register",
    "requires_package",
    "stream",
    "usable_layout",
    "without_gradients",
]


def denoise(
    buffers: Any,
    method: str | Call | None = None,
    *,
    layout: Any = None,
    quality: str | None = None,
    albedo: Any = None,
    normals: Any = None,
    flow: Any = None,
    previous_denoised: Any = None,
    noisy_ch: str = "",
    albedo_ch: str = "",
    normals_ch: str = "",
    flow_ch: str = "",
    previous_denoised_ch: str = "",
    to_sensor: Any = None,
    normals_space: str | None = None,
    **options: Any,
) -> Any:
    """Reconstruct a clean image from noisy buffers.

    Works where the buffers are: on a GPU nothing is copied to the host. A recurrent method starts
    anew with each call; for the frames of a sequence, use :func:`stream`.

    Args:
        buffers: Output of ``mi.render`` with any integrator ((H, W, C) ``TensorXf``),
            ``film.bitmap()`` of such a render (``mi.Bitmap``), :class:`FrameBuffers`, a torch
            tensor or a NumPy array, (H, W, C) each, or the path of an image file. Layers of
            Mitsuba's ``aov``, OIDN, Blender, pbrt and NGPT are found by their names; see
            docs/how-to/inputs.md.
        method: One of :func:`methods`, or a :class:`Call`, or the text of one, such as
            ``"oidn(ensemble=4)"``; by default what ``quality`` says.
        layout: What the channels are, where that is not obvious from their number (one and three
            are an image, two and four one with alpha) or from names: the integrator, the scene, a
            :class:`~mitsuba_gdpt.Layout`, or a list of channel names.
        quality: ``"fast"``, ``"balanced"`` (the default) or ``"high"``: the method that gives most
            for about 2, 4 or 7 seconds per megapixel on two CPU cores, of those that can run
            here on these buffers; see :data:`LEVELS`. Together with ``method``, an option of that
            method, where it has one.
        albedo: (H, W, 3) albedo, where it is an array of its own.
        normals: (H, W, 3) normals in the camera's frame, or in world space with ``to_sensor``.
        flow: (H, W, 2) motion from the previous frame to this one in pixels, +x right, +y down.
        previous_denoised: (H, W, 3) image of the frame before, which ``optix-temporal`` reads; for
            whole sequences, and with other methods, use :func:`stream`.
        noisy_ch: Name of the layer to denoise, where ``buffers`` has names.
        albedo_ch: Name of the layer with the albedo.
        normals_ch: Name of the layer with normals.
        flow_ch: Name of the layer with ``flow``.
        previous_denoised_ch: As ``previous_denoised``.
        to_sensor: ``sensor.world_transform().inverse()``: takes normals from world space to the
            camera's frame. Normals that are or may be in world space are left out without it.
        normals_space: "camera": normals of unknown origin are in Mitsuba's camera frame.
        **options: Options of the method; see :func:`methods`.

    Returns:
        (H, W, 3) scene-linear radiance, of the same kind as ``buffers`` and on the same device;
        a torch tensor for :class:`FrameBuffers` and files. Negative values are possible.

    Raises:
        ConfigError: The method, the quality or an option is unknown, or an option has a bad value.
        LayoutError: Shape or names do not fit, or the method needs a buffer that is missing.
        FormatError: A file cannot be read.
        NonFiniteError: A buffer that the method reads contains NaN or infinity.
        MissingDependencyError: The method needs a package that is not installed.
        WeightsError: The method needs weights that do not ship, or that are damaged.

    Example:
        >>> image = denoise(torch.zeros(4, 6, 16), method="poisson-l2", alpha=0.1)
        >>> image.shape
        torch.Size([4, 6, 3])
    """
    # A wrong name is the first thing to tell.
    call = None if method is None else Call.parse(method)
    if call is None:
        find_level(quality)
    elif quality is not None:
        options["quality"] = quality
    words = Words(
        noisy_ch=noisy_ch,
        albedo_ch=albedo_ch,
        normals_ch=normals_ch,
        flow_ch=flow_ch,
        albedo=albedo,
        normals=normals,
        flow=flow,
        to_sensor=to_sensor,
        normals_space=normals_space,
    )
    frame = take(buffers, layout, words)
    if previous_denoised_ch:
        previous_denoised = layer(buffers, layout, previous_denoised_ch, "previous_denoised_ch")
    call = (call or default_call(usable_layout(frame), quality)).with_options(options)
    state = None
    if previous_denoised is not None:
        state = call.after(image_beside(previous_denoised, frame, "previous_denoised", 3))
        if state is None:
            warnings.warn(
                f"previous_denoised is left out: {call.method} does not read it, 'optix-temporal' "
                f"does; for sequences, use stream()",
                stacklevel=2,
            )
    with torch.no_grad():
        image, _ = call.advance(frame, state)
    return same_kind(image, buffers)


@register(
    "none",
    needs=("primal",),
    doc="the noisy primal itself",
    group="baseline",
    seconds_per_megapixel=0.0,
    exposure=Exposure.UNTOUCHED,
    anywhere=True,
)
def _primal(buffers: FrameBuffers) -> torch.Tensor:
    """Return a copy of the primal, (H, W, 3)."""
    return buffers["primal"].clone(memory_format=torch.contiguous_format)


def check_method(method: str | Call, options: Mapping[str, Any], layout: Layout) -> None:
    """Try a method on four black pixels, before hours go into rendering.

    Raises:
        GDPTError: The method or one of its options is unknown, a buffer that it needs would be
            missing, or it cannot run on this machine.
    """
    denoise(torch.zeros(2, 2, layout.count), method, layout=layout, **options)
