"""Intel Open Image Denoise, through the ``mitsuba-oidn`` package.

A pretrained network for images of a path tracer, guided by albedo and normal; A. Áfra, *Intel Open
Image Denoise*, https://www.openimagedenoise.org. It is the baseline that any reconstruction has to
beat, and reads nothing of what the gradient domain adds: the primal, albedo and normal.

Filters are kept, because making one reads and converts the weights; see :class:`_Pipeline`. A
forked process makes its own.
The library computes on the thread pool of Dr.Jit, so that a renderer and the denoiser in one
process do not fight over cores; torch's own threads are not used.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import DIRECT, PRIMAL
from mitsuba_gdpt.denoisers.classical import oidn_weights
from mitsuba_gdpt.denoisers.exposure import Exposure
from mitsuba_gdpt.denoisers.registry import register, requires_package
from mitsuba_gdpt.errors import ConfigError, FormatError, LayoutError

if TYPE_CHECKING:
    import mitsuba_oidn

#: What can be done with albedo and normal.
AUX = ("prefiltered", "clean", "raw", "none")
#: Prefiltered, of those that are there.
_AUTO = "auto"
#: Size of the networks: the library's own names.
QUALITIES = ("high", "balanced", "fast")
#: Numbers of mirror images that can be averaged, and the axes of (H, W, C) that each is flipped in.
ENSEMBLES: dict[int, tuple[tuple[int, ...], ...]] = {
    1: ((),),
    2: ((), (0, 1)),
    4: ((), (0,), (1,), (0, 1)),
}
#: Most combinations of size, device and options whose filters are kept.
CACHE_SIZE = 4

_GUIDES = ("albedo", "normal")
#: Bytes of a file of weights: the header of a blob, and ten times the largest network.
_LEAST_WEIGHTS, _MOST_WEIGHTS = 64, 160 << 20


def _exposure(options: Mapping[str, Any]) -> Exposure:
    """Leave the unit of radiance alone where an option is about it."""
    absolute = options.get("input_scale") is not None or not options.get("hdr", True)
    return Exposure.ABSOLUTE if absolute else Exposure.BINARY


@register(
    "oidn",
    group="everyday",
    seconds_per_megapixel=9.5,
    needs=lambda options: (PRIMAL, DIRECT) if options.get("split") else (PRIMAL,),
    uses=_GUIDES,
    doc="Intel Open Image Denoise",
    check=requires_package("mitsuba_oidn", "oidn"),
    exposure=_exposure,
)
def oidn(
    buffers: FrameBuffers,
    *,
    aux: str | None = _AUTO,
    quality: str = "high",
    hdr: bool = True,
    weights: str | os.PathLike[str] | None = None,
    input_scale: float | None = None,
    ensemble: int = 1,
    prefilter: str | None = None,
    split: bool = False,
) -> torch.Tensor:
    """Denoise the primal, guided by albedo and normal.

    Runs on the device of the buffers and reads them in place.

    Args:
        buffers: Needs ``primal``; reads ``albedo`` and ``normal`` unless ``aux`` is "none".
            Negative values of the primal count as 0: the networks know non-negative radiance only,
            and the library clamps on the way in.
        aux: "prefiltered": denoise albedo and normal first, each with the network made for it, and
            take them for free of noise. "clean": take them for free of noise as they are
            (``cleanAux`` of the library). "raw": take them for noisy. "none" (or None, which is
            what the command line makes of it): do without. "auto": "prefiltered", or "none"
            where there is no albedo. Normals that are missing are done without. A warning says
            what is left out.
        quality: "high", "balanced" or "fast", for all networks that run.
        hdr: Take the primal as radiance without an upper bound; otherwise it is clamped to [0, 1].
        weights: File of weights for the main network (``.tza``), as the training toolkit of
            the library exports them. The networks that prefilter stay the built-in ones.
        input_scale: Factor on the primal before the network sees it; undone after. By default the
            library derives it from the image, so that its brightness does not matter. A sequence
            of frames flickers less with one factor for all.
        ensemble: 1, 2 or 4. Above 1, the main network also sees mirror images, and the results are
            averaged; of four values the mean of the middle two counts, so that one that is far
            off does no harm. The network is not symmetric, so its errors differ (self-ensemble;
            Timofte et al., "Seven ways to improve example-based single image super resolution",
            CVPR 2016, section 3.3).
        prefilter: Quality of the networks that filter albedo and normal, instead of ``quality``.
            "balanced" halves their time, which is most of that of "high", at nearly the same
            errors; see docs/how-to/oidn.md.
        split: Denoise the buffer ``direct`` and the rest of the primal one after the other, and
            add the results: twice the time of the main network. The noise of the one hides the
            edges of the other no more, and each gets an ``input_scale`` of its own by default. As
            in film production, where renderers denoise passes apart.

    Returns:
        (H, W, 3) float32, never negative.

    Raises:
        ConfigError: An option has a bad value.
        LayoutError: ``aux`` asks for albedo, and there is none.
        FormatError: ``weights`` does not exist, is damaged, or is for other inputs.
    """
    aux = "none" if aux is None else aux
    _check_choice("aux", aux, (*AUX, _AUTO))
    _check_choice("quality", quality, QUALITIES)
    prefilter = quality if prefilter is None else prefilter
    _check_choice("prefilter", prefilter, QUALITIES)
    if ensemble not in ENSEMBLES:
        known = ", ".join(map(str, ENSEMBLES))
        raise ConfigError(f"ensemble is {ensemble!r}; expected one of: {known}")
    if input_scale is not None and not (math.isfinite(input_scale) and input_scale > 0):
        raise ConfigError(f"input_scale is {input_scale}; expected a number > 0, or None")
    if split and not hdr:
        raise ConfigError("got both split and hdr=false; parts of an image have no upper bound")
    guides: tuple[str, ...] = () if aux == "none" else _GUIDES
    if aux == _AUTO or (aux != "none" and "albedo" in buffers):
        guides = _present(buffers)
        if aux == _AUTO:
            aux = "prefiltered" if guides else "none"
    if missing := [name for name in guides if name not in buffers]:
        raise LayoutError(
            f"oidn with aux={aux!r} needs the buffer(s) {', '.join(missing)}; there are: "
            f"{', '.join(buffers.names)}. Pass aux='none' to denoise the primal alone"
        )
    blob = None if weights is None else _read_weights(weights)
    key = (
        (buffers.height, buffers.width),
        _device_key(buffers.device),
        (aux, guides, quality, prefilter, hdr, input_scale),
        hashlib.sha256(blob).digest() if blob else None,
    )
    primal = buffers[PRIMAL]
    parts = [buffers[DIRECT], primal - buffers[DIRECT]] if split else [primal]
    images = {name: _bindable(buffers[name]) for name in guides}
    import mitsuba_oidn

    with _lock:  # a filter works on one image at a time
        pipeline = _pipelines.get(key)
        if pipeline is None:
            pipeline = _Pipeline(
                buffers.device, aux, guides, (quality, prefilter), hdr, input_scale, blob
            )
        try:
            image = pipeline.run([_bindable(p) for p in parts], images, ENSEMBLES[ensemble])
        except mitsuba_oidn.Error as error:
            if blob is None:
                raise
            raise FormatError(
                f"{weights}: cannot use these weights with aux={aux!r}: {error}"
            ) from (error)
        _pipelines[key] = pipeline
        _pipelines.move_to_end(key)
        while len(_pipelines) > CACHE_SIZE:
            _pipelines.popitem(last=False)
    return image


def _present(buffers: FrameBuffers) -> tuple[str, ...]:
    """Return the auxiliary images that are there; the networks know no normals without albedo."""
    guides = tuple(name for name in _GUIDES if name in buffers and "albedo" in buffers)
    if missing := [name for name in _GUIDES if name not in guides]:
        why = "" if "normal" not in missing or "normal" not in buffers else " (normals need albedo)"
        warnings.warn(
            f"oidn does without {' and '.join(missing)}, which the buffers do not have{why}; "
            f"aux='none' says that this is meant",
            stacklevel=4,
        )
    return guides


class _Pipeline:
    """The filters for images of one size on one device, with one choice of options.

    Between runs it holds the networks and their scratch memory, but no image.
    """

    def __init__(
        self,
        device: torch.device,
        aux: str,
        guides: tuple[str, ...],
        qualities: tuple[str, str],
        hdr: bool,
        input_scale: float | None,
        weights: bytes | None,
    ) -> None:
        quality, prefilter = qualities
        self._device = _make_device(device)
        self._prefilters: dict[str, mitsuba_oidn.Filter] = {}
        if aux == "prefiltered":
            self._prefilters = {name: self._new_filter(prefilter) for name in guides}
        self._main = self._new_filter(quality)
        self._main.hdr = hdr
        self._main.clean_aux = aux in ("prefiltered", "clean")
        self._main.input_scale = input_scale
        if weights is not None:
            self._main.set_data("weights", weights)

    def run(
        self,
        parts: Sequence[torch.Tensor],
        guides: Mapping[str, torch.Tensor],
        mirrors: tuple[tuple[int, ...], ...],
    ) -> torch.Tensor:
        """Filter images and add the results.

        Args:
            parts: What to filter, (H, W, 3) each.
            guides: ``albedo``, ``normal``, (H, W, 3) each.
            mirrors: Axes that the images are flipped in, for each run of the main network.
        """
        guides = dict(guides)
        for name, prefilter in self._prefilters.items():
            guides[name] = _execute(prefilter, {name: guides[name]})
        results = [[self._filter(part, guides, axes) for part in parts] for axes in mirrors]
        sums = [sum(r[1:], r[0]) for r in results]
        if len(sums) == 1:
            return sums[0]
        spread = torch.stack(sums).sort(0).values
        outside = (len(sums) - 1) // 2
        return spread[outside : len(sums) - outside].mean(0)

    def _filter(
        self, image: torch.Tensor, guides: Mapping[str, torch.Tensor], axes: tuple[int, ...]
    ) -> torch.Tensor:
        """Apply the main network, mirrored along some axes."""
        images = {"color": image, **guides}
        if not axes:
            return _execute(self._main, images)
        return _execute(self._main, {k: v.flip(axes) for k, v in images.items()}).flip(axes)

    def _new_filter(self, quality: str) -> mitsuba_oidn.Filter:
        import mitsuba_oidn

        result = self._device.new_filter("RT")
        result.quality = getattr(mitsuba_oidn.Quality, quality.capitalize())
        return result


_pipelines: OrderedDict[Any, _Pipeline] = OrderedDict()
_lock = threading.Lock()
#: Of the processes that this one was forked from: their threads are not here, so that neither
#: running nor destroying them would end.
_foreign: list[Any] = []


def _start_anew() -> None:
    """Make filters anew in a forked process, whatever the others were doing."""
    global _pipelines, _lock
    _foreign.append(_pipelines)
    _pipelines, _lock = OrderedDict(), threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_start_anew)


def _execute(network: mitsuba_oidn.Filter, images: dict[str, torch.Tensor]) -> torch.Tensor:
    first = next(iter(images.values()))
    output = torch.empty(first.shape, dtype=torch.float32, device=first.device)
    bound = {**images, "output": output}
    try:
        for name, image in bound.items():
            network.set_image(name, image)
        network.execute()
    finally:  # a filter would keep the last frame in memory; binding anew costs microseconds
        for name in bound:
            network.unset_image(name)
    return output


def _make_device(device: torch.device) -> mitsuba_oidn.Device:
    import mitsuba_oidn

    if device.type == "cpu":
        return mitsuba_oidn.Device(mitsuba_oidn.DeviceType.CPU)
    if device.type == "cuda":
        stream = torch.cuda.current_stream(device)  # so that it waits for what torch has queued
        return mitsuba_oidn.Device.cuda(stream.device.index, stream.cuda_stream)
    raise ConfigError(
        f"the buffers are on the device {str(device)!r}, which oidn cannot use here; "
        f"move them: buffers.to('cpu')"
    )


def _device_key(device: torch.device) -> Any:
    if device.type == "cuda":
        stream = torch.cuda.current_stream(device)
        return stream.device.index, stream.cuda_stream
    return device.type


def _bindable(image: torch.Tensor) -> torch.Tensor:
    """Return the image itself if the library can address it, otherwise a copy."""
    image = image.detach()
    rows, columns, channels = image.stride()
    in_place = channels == 1 and columns >= image.shape[2] and rows >= columns * image.shape[1]
    return image if in_place else image.clone(memory_format=torch.contiguous_format)


def _read_weights(path: str | os.PathLike[str]) -> bytes:
    try:
        size = Path(path).stat().st_size
        if not _LEAST_WEIGHTS <= size <= _MOST_WEIGHTS:
            raise FormatError(f"{path}: {size} bytes; expected the weights of a network (.tza)")
        blob = Path(path).read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: cannot read these weights: {error.strerror}") from error
    try:
        oidn_weights.parse(blob)
    except ValueError as error:
        raise FormatError(f"{path}: cannot use these weights: {error}") from error
    return blob


def _check_choice(option: str, value: str, choice: tuple[str, ...]) -> None:
    if value not in choice:
        raise ConfigError(f"{option} is {value!r}; expected one of: {', '.join(choice)}")
