"""oidn: the library's own result, options, any size, no memory held, clear errors."""

from __future__ import annotations

import gc
import re
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mitsuba_gdpt import packages
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import CORE, Layout
from mitsuba_gdpt.denoisers import check_method, denoise, find
from mitsuba_gdpt.denoisers.classical import oidn
from mitsuba_gdpt.errors import (
    ConfigError,
    FormatError,
    LayoutError,
    MissingDependencyError,
    NonFiniteError,
)

library = pytest.importorskip("mitsuba_oidn")


def noisy(height: int = 40, width: int = 56, seed: int = 0) -> FrameBuffers:
    """Two planes of different colour and orientation under multiplicative noise, partly HDR."""
    random = torch.Generator().manual_seed(seed)
    buffers = FrameBuffers(torch.zeros(height, width, Layout.make().count), Layout.make())
    left = (torch.arange(width) < width / 2)[None, :, None].float()
    albedo = left * torch.tensor([0.8, 0.3, 0.2]) + (1 - left) * torch.tensor([0.2, 0.5, 0.7])
    normal = left * torch.tensor([0.0, 0.6, 0.8]) + (1 - left) * torch.tensor([0.8, 0.0, 0.6])
    grain = torch.rand(height, width, 3, generator=random)
    buffers.albedo.copy_(albedo * (0.7 + 0.6 * grain).clamp(max=1))
    buffers.normal.copy_(normal + 0.1 * torch.randn(height, width, 3, generator=random))
    light = torch.linspace(0.2, 4.0, height)[:, None, None]
    buffers.primal.copy_(-albedo * light * torch.log(grain.clamp(min=1e-4)))
    return buffers


def directly(
    frame: FrameBuffers, aux: str, quality: str, prefilter_quality: str = "", **options: Any
) -> torch.Tensor:
    """What a user of the library alone would write, on contiguous copies."""
    levels = {q.name.lower(): q for q in library.Quality}
    level = levels[quality]
    color, albedo, normal = (frame[name].contiguous() for name in ("primal", "albedo", "normal"))
    if aux == "none":
        return library.denoise(color, hdr=True, quality=level, **options)
    if aux == "raw":
        return library.denoise(color, albedo, normal, hdr=True, quality=level, **options)
    if aux == "clean":
        guides = {"albedo": albedo, "normal": normal, "clean_aux": True}
        return library.denoise(color, **guides, hdr=True, quality=level, **options)
    clean = {}
    for name, image in (("albedo", albedo), ("normal", normal)):
        prefilter = library.Device(library.DeviceType.CPU).new_filter("RT")
        clean[name] = torch.empty_like(image)
        prefilter.quality = levels[prefilter_quality or quality]
        prefilter.set_image(name, image)
        prefilter.set_image("output", clean[name])
        prefilter.execute()
        assert not torch.equal(clean[name], image)
    return library.denoise(color, **clean, hdr=True, clean_aux=True, quality=level, **options)


@pytest.mark.parametrize("quality", oidn.QUALITIES)
@pytest.mark.parametrize("aux", oidn.AUX)
def test_equals_the_library_bit_for_bit(aux: str, quality: str) -> None:
    frame = noisy()
    image = denoise(frame, "oidn", aux=aux, quality=quality)
    assert torch.equal(image, directly(frame, aux, quality))
    assert torch.equal(image, denoise(frame, "oidn", aux=aux, quality=quality))  # from the cache


def test_prefilters_of_another_quality() -> None:
    frame = noisy()
    image = denoise(frame, "oidn", prefilter="balanced")
    assert torch.equal(image, directly(frame, "prefiltered", "high", "balanced"))
    assert not torch.equal(image, denoise(frame, "oidn"))
    with pytest.raises(ConfigError, match="prefilter is 'best'; expected one of"):
        denoise(frame, "oidn", prefilter="best")


def test_modes_differ() -> None:
    frame = noisy()
    images = [
        denoise(frame, "oidn", aux=aux, quality=quality)
        for aux in oidn.AUX
        for quality in ("high", "fast")
    ]
    for i, image in enumerate(images):
        assert all(not torch.equal(image, other) for other in images[:i])


def test_default_is_prefiltered_and_high() -> None:
    frame = noisy()
    assert torch.equal(denoise(frame, "oidn"), directly(frame, "prefiltered", "high"))


def test_denoises() -> None:
    clean = torch.stack([noisy(seed=seed).primal for seed in range(64)]).mean(0)
    frame = noisy(seed=100)
    before = (frame.primal - clean).square().mean()
    after = (denoise(frame, "oidn") - clean).square().mean()
    assert after < before / 10


def test_none_on_the_command_line() -> None:
    frame = noisy()
    image = denoise(frame, "oidn(aux=none, quality=fast)")  # as after --denoise
    assert torch.equal(image, directly(frame, "none", "fast"))


def test_input_scale() -> None:
    frame = noisy()
    image = denoise(frame, "oidn", aux="raw", input_scale=0.25)
    assert torch.equal(image, directly(frame, "raw", "high", input_scale=0.25))
    assert not torch.equal(image, denoise(frame, "oidn", aux="raw"))


def test_ensemble_is_symmetric_and_better() -> None:
    """The mean over all mirror images does not change when the frame is mirrored."""
    frame = noisy()
    mirrored = FrameBuffers(frame.data.flip(1).contiguous(), frame.layout)
    images = {n: denoise(frame, "oidn", ensemble=n, aux="none") for n in (1, 2, 4)}
    others = {n: denoise(mirrored, "oidn", ensemble=n, aux="none").flip(1) for n in (1, 4)}
    torch.testing.assert_close(others[4], images[4], rtol=1e-3, atol=1e-3)
    assert not torch.allclose(others[1], images[1], rtol=1e-2, atol=1e-2)
    turned = FrameBuffers(frame.data.flip(0, 1).contiguous(), frame.layout)
    both = images[1], denoise(turned, "oidn", aux="none").flip(0, 1)
    torch.testing.assert_close(images[2], (both[0] + both[1]) / 2)
    frames = [noisy(seed=seed) for seed in range(8)]
    clean = torch.stack([noisy(seed=seed).primal for seed in range(2000)]).mean(0)
    errors = [
        sum(float((denoise(f, "oidn", ensemble=n) - clean).square().mean()) for f in frames)
        for n in (1, 4)
    ]
    assert errors[1] < 0.95 * errors[0]


def test_parts_are_denoised_apart_and_added() -> None:
    frame = noisy()
    shade = torch.linspace(0, 1, frame.width)[None, :, None]
    parts = frame.primal * shade, frame.primal * (1 - shade)
    split = frame.appended("direct", parts[0])
    alone = [FrameBuffers(frame.data.clone(), frame.layout) for _ in parts]
    for buffers, part in zip(alone, parts, strict=True):
        buffers.primal.copy_(part)
    for options in ({"aux": "clean"}, {}, {"ensemble": 2, "aux": "raw"}):
        expected = sum(denoise(buffers, "oidn", **options) for buffers in alone)
        image = denoise(split, "oidn", split=True, **options)
        torch.testing.assert_close(image, expected, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(image, denoise(frame, "oidn", **options), rtol=1e-2)
    assert torch.equal(denoise(split, "oidn"), denoise(frame, "oidn"))
    everything = frame.appended("direct", frame.primal)
    torch.testing.assert_close(denoise(everything, "oidn", split=True), denoise(frame, "oidn"))


def test_parts_need_a_buffer_and_radiance() -> None:
    with pytest.raises(LayoutError, match=r"direct"):
        denoise(noisy(), "oidn", split=True)
    with pytest.raises(ConfigError, match=r"both split and hdr=false"):
        denoise(noisy().appended("direct", noisy().primal), "oidn", split=True, hdr=False)


def test_without_hdr_the_input_is_clamped() -> None:
    frame = noisy()
    image = denoise(frame, "oidn", hdr=False)
    assert float(frame.primal.max()) > 1
    assert float(image.max()) <= 1


def test_negative_radiance_counts_as_zero() -> None:
    frame = noisy()
    frame.primal.sub_(0.3)
    clamped = FrameBuffers(frame.data.clone(), frame.layout)
    clamped.primal.clamp_(min=0)
    assert float(frame.primal.min()) < 0
    image = denoise(frame, "oidn", aux="raw")
    assert torch.equal(image, denoise(clamped, "oidn", aux="raw"))
    assert float(image.min()) >= 0


@pytest.mark.parametrize("aux", oidn.AUX)
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (1, 9), (17, 1)])
def test_any_size(size: tuple[int, int], aux: str) -> None:
    frame = noisy(*size)
    image = denoise(frame, "oidn", aux=aux)
    assert image.shape == (*size, 3)
    assert torch.isfinite(image).all()
    assert torch.equal(image, directly(frame, aux, "high"))


def test_memory_order_does_not_matter() -> None:
    frame = noisy()
    planar = frame.data.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    mirrored = FrameBuffers(planar, frame.layout)
    assert mirrored.primal.stride(2) != 1
    assert torch.equal(denoise(mirrored, "oidn"), denoise(frame, "oidn"))
    even = FrameBuffers(frame.data[:1, :1].expand(4, 6, -1), frame.layout)
    assert torch.equal(
        denoise(even, "oidn"), denoise(FrameBuffers(even.data.clone(), frame.layout), "oidn")
    )


def test_reads_render_output_in_place() -> None:
    view = noisy().primal
    assert oidn._bindable(view).data_ptr() == view.data_ptr()


def test_keeps_no_image_and_few_filters() -> None:
    oidn._pipelines.clear()
    frame = noisy()
    memory = weakref.ref(frame.data)
    image = denoise(frame, "oidn", quality="fast")
    result = weakref.ref(image)
    del frame, image
    gc.collect()
    assert memory() is None
    assert result() is None
    for width in range(8, 8 + 2 * oidn.CACHE_SIZE):
        denoise(noisy(8, width), "oidn", aux="none", quality="fast")
    assert len(oidn._pipelines) == oidn.CACHE_SIZE


def test_mitsuba_tensor_in_and_out(variant_llvm_rgb: str) -> None:
    import drjit as dr
    import mitsuba as mi

    tensor = mi.TensorXf(noisy().data.numpy())
    image = denoise(tensor, "oidn")
    assert type(image) is mi.TensorXf
    np.testing.assert_array_equal(image.numpy(), directly(noisy(), "prefiltered", "high").numpy())
    assert dr.allclose(dr.sum(mi.Float([1, 2, 3])), 6)  # Dr.Jit's threads still work


class TestOwnWeights:
    @pytest.fixture
    def blobs(self) -> list[bytes]:
        """The weights inside the library: TZA archives, one after the other."""
        core = Path(library.__file__).with_name("libmitsuba_oidn_core.so")
        if not core.is_file():
            pytest.skip(f"no {core.name} in this build of mitsuba_oidn")
        data = core.read_bytes()
        starts = [match.start() for match in re.finditer(rb"\xd7\x41\x02\x00", data)]
        return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]

    def test_of_the_library_give_its_result(self, blobs: list[bytes], tmp_path: Path) -> None:
        frame = noisy(24, 24)
        builtin = denoise(frame, "oidn", aux="none", quality="fast")
        same = other = refused = 0
        for i, blob in enumerate(blobs):
            path = tmp_path / f"{i}.tza"
            path.write_bytes(blob)
            try:
                image = denoise(frame, "oidn", aux="none", quality="fast", weights=path)
            except FormatError:
                refused += 1
                continue
            same += torch.equal(image, builtin)
            other += not torch.equal(image, builtin)
        assert same
        assert other
        assert refused  # networks with other inputs

    def test_prefilters_stay(self, blobs: list[bytes], tmp_path: Path) -> None:
        frame, builtin, found = noisy(24, 24), None, 0
        builtin = denoise(frame, "oidn", quality="fast")
        for i, blob in enumerate(blobs):
            path = tmp_path / f"{i}.tza"
            path.write_bytes(blob)
            try:
                found += torch.equal(denoise(frame, "oidn", quality="fast", weights=path), builtin)
            except FormatError:
                continue
        assert found

    @pytest.mark.parametrize("content", [b"", b"garbage", b"garbage" * 100, b"\xd7\x41\x02\0" * 99])
    def test_damaged(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "own.tza"
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"own\.tza"):
            denoise(noisy(), "oidn", weights=path)

    def test_malformed(self, blobs: list[bytes], tmp_path: Path) -> None:
        """Refused by name, or another image; the library itself reads wherever a table points."""
        random = np.random.default_rng(5)
        blob, frame, refused, shown = blobs[0], noisy(16, 16), 0, 0
        (table,) = np.frombuffer(blob, "<u8", 1, 4)
        for i in range(60):
            damaged = bytearray(blob)
            if i % 3 == 0:
                del damaged[int(random.integers(16, len(blob))) :]
            else:  # in the table of 32 tensors, and anywhere
                first, last = (int(table), int(table) + 1000) if i % 3 == 1 else (0, len(blob))
                for at in random.integers(first, min(last, len(blob)), 4):
                    damaged[at] = random.integers(256)
            path = tmp_path / f"{i}.tza"
            path.write_bytes(damaged)
            try:
                image = denoise(frame, "oidn", aux="none", quality="fast", weights=path)
            except FormatError as error:
                refused += str(path) in str(error)
            else:
                shown += image.shape == (16, 16, 3)
        assert refused >= 40
        assert refused + shown == 60

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match=r"none\.tza: cannot read these weights: No such"):
            denoise(noisy(), "oidn", weights=tmp_path / "none.tza")

    def test_failure_leaves_no_filter_behind(self, tmp_path: Path) -> None:
        path = tmp_path / "own.tza"
        path.write_bytes(b"garbage" * 100)
        oidn._pipelines.clear()
        with pytest.raises(FormatError):
            denoise(noisy(), "oidn", weights=path)
        assert not oidn._pipelines


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"aux": "best"}, "aux is 'best'; expected one of: prefiltered, clean, raw, none"),
            ({"quality": "best"}, "quality is 'best'; expected one of: high, balanced, fast"),
            ({"input_scale": 0.0}, "input_scale is 0.0; expected a number > 0"),
            ({"input_scale": float("nan")}, "input_scale is nan"),
            ({"ensemble": 3}, "ensemble is 3; expected one of: 1, 2, 4"),
            ({"clean_aux": True}, "has no option 'clean_aux'"),
        ],
    )
    def test_bad_option(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=re.escape(message)):
            denoise(noisy(), "oidn", **options)

    @pytest.mark.parametrize("aux", ["prefiltered", "clean", "raw"])
    def test_guides_are_missing(self, aux: str) -> None:
        layout = Layout(CORE[:1])
        with pytest.raises(LayoutError, match=r"buffer\(s\) albedo, normal; .* Pass aux='none'"):
            denoise(torch.rand(4, 4, 3), "oidn", layout=layout, aux=aux)
        image = denoise(torch.rand(4, 4, 3), "oidn", layout=layout, aux="none")
        assert image.shape == (4, 4, 3)

    @pytest.mark.parametrize("aux", ["clean", "raw"])
    def test_albedo_alone(self, aux: str) -> None:
        frame = noisy().select(["primal", "albedo"])
        with pytest.warns(UserWarning, match="oidn does without normal"):
            image = denoise(frame, "oidn", aux=aux)
        network = library.Device(library.DeviceType.CPU).new_filter("RT")
        network.hdr, network.clean_aux = True, aux == "clean"
        expected = torch.empty_like(image)
        network.set_image("color", frame.primal.contiguous())
        network.set_image("albedo", frame.albedo.contiguous())
        network.set_image("output", expected)
        network.execute()
        assert torch.equal(image, expected)

    def test_nonfinite(self) -> None:
        frame = noisy()
        frame.albedo[2, 3, 1] = torch.nan
        with pytest.raises(NonFiniteError, match=r"albedo\.G: 1"):
            denoise(frame, "oidn")

    def test_package_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(packages.importlib.util, "find_spec", lambda _: None)
        with pytest.raises(MissingDependencyError, match=r"mitsuba-gdpt\[oidn\]"):
            denoise(noisy(), "oidn")
        assert not find("oidn").available

    def test_before_rendering(self) -> None:
        check_method("oidn", {"quality": "fast"}, Layout.make())
        with pytest.raises(ConfigError, match="quality"):
            check_method("oidn", {"quality": "slow"}, Layout.make())
