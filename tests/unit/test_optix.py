"""optix: the real thing on a GPU, a clear obstacle elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import CORE, Layout
from mitsuba_gdpt.denoisers import denoise, find, registry, stream
from mitsuba_gdpt.denoisers.classical import optix
from mitsuba_gdpt.errors import LayoutError, VariantError


def frame(height: int = 33, width: int = 47) -> FrameBuffers:
    random = torch.Generator().manual_seed(0)
    buffers = FrameBuffers(torch.zeros(height, width, Layout.make().count), Layout.make())
    buffers.primal.copy_(-torch.log(torch.rand(height, width, 3, generator=random) + 1e-3))
    buffers.albedo.fill_(0.5)
    buffers.normal[..., 2] = -1
    return buffers


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import drjit as dr

    monkeypatch.setattr(dr, "has_backend", lambda _: False)


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import drjit as dr

    monkeypatch.setattr(dr, "has_backend", lambda _: True)


def test_without_gpu(no_gpu: None) -> None:
    with pytest.raises(VariantError, match=r"needs an NVIDIA GPU, and Dr\.Jit found none"):
        denoise(frame(), "optix")
    obstacle = find("optix").obstacle  # what 'mitsuba-gdpt info' shows
    assert isinstance(obstacle, VariantError)


def test_with_another_variant(a_gpu: None, variant_llvm_rgb: str) -> None:
    with pytest.raises(VariantError, match=r"the active one is llvm_ad_rgb; call mi\.set_variant"):
        denoise(frame(), "optix")


def test_denoiser_that_would_abort(
    a_gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mitsuba as mi

    weights = tmp_path / "nvoptix.bin"
    monkeypatch.setattr(mi, "variant", lambda: "cuda_ad_rgb")
    monkeypatch.setattr(optix, "_WEIGHTS", weights)
    monkeypatch.setattr(optix, "_survives", lambda variant: False)
    with pytest.raises(VariantError, match=r"nvoptix\.bin with its weights is missing"):
        denoise(frame(), "optix")
    weights.touch()
    assert find("optix").obstacle is None


def test_process_that_dies_does_not_survive() -> None:
    assert not optix._survives("no_such_variant")


def test_guides_are_missing() -> None:
    buffers = FrameBuffers(torch.rand(4, 4, 3), Layout(CORE[:1]))
    with pytest.raises(LayoutError, match=r"buffer\(s\) albedo, normal; .* Pass guided=False"):
        optix.optix(buffers)


@pytest.fixture
def working(variant_cuda_rgb: str) -> None:
    """Skips where the driver lacks the denoiser."""
    if (obstacle := find("optix").obstacle) is not None:
        pytest.skip(str(obstacle))


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("size", [(33, 47), (1, 1), (3, 5)])
def test_denoises(size: tuple[int, int], guided: bool, working: None) -> None:
    buffers = frame(*size)
    image = denoise(buffers, "optix", guided=guided)
    assert image.shape == (*size, 3)
    assert torch.isfinite(image).all()
    if size == (33, 47):
        assert image.std() < buffers.primal.std() / 4
        assert float((image.mean() - buffers.primal.mean()).abs()) < 0.1


def test_equals_mitsuba(working: None) -> None:
    import mitsuba as mi

    buffers = frame()
    denoiser = mi.OptixDenoiser([buffers.width, buffers.height], albedo=True, normals=True)
    images = [
        mi.TensorXf(buffers[name].contiguous().numpy()) for name in ("primal", "albedo", "normal")
    ]
    expected = torch.from_numpy(denoiser(*images).numpy())
    assert torch.allclose(denoise(buffers, "optix"), expected, rtol=1e-3, atol=1e-4)


class FakeDenoiser:
    """Keeps what it is given; its image is the noisy one plus the image before."""

    def __init__(self) -> None:
        self.calls: list[tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]] = []

    def __call__(self, *images: torch.Tensor, **words: torch.Tensor) -> torch.Tensor:
        self.calls.append((images, words))
        return images[0] + words["previous_denoised"]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeDenoiser:
    denoiser = FakeDenoiser()
    monkeypatch.setattr(optix, "_denoiser", lambda *words: denoiser)
    monkeypatch.setattr(optix, "_to_mitsuba", lambda image: image)
    monkeypatch.setattr(optix, "_to_torch", lambda image, device: image)
    entry = replace(find("optix-temporal"), check=None)
    monkeypatch.setitem(registry._METHODS, "optix-temporal", entry)
    return denoiser


def test_sequences_pass_motion_and_the_image_before(fake: FakeDenoiser) -> None:
    first = frame()
    moving = first.appended("motion", torch.rand(33, 47, 2))
    video = stream("optix-temporal")
    start, second = video(first), video(moving)
    torch.testing.assert_close(start, 2 * first.primal)  # the first frame sees itself
    torch.testing.assert_close(second, 3 * first.primal)
    images, words = fake.calls[1]
    assert torch.equal(words["flow"], -moving.motion)
    assert torch.equal(fake.calls[0][1]["flow"], torch.zeros(33, 47, 2))
    for image, name in zip(images, ("primal", "albedo", "normal"), strict=True):
        torch.testing.assert_close(image, first[name])
    with pytest.raises(LayoutError, match=r"\(4, 4, 3\) after one of \(33, 47, 3\).*reset"):
        video(frame(4, 4))


def test_words_of_the_temporal_denoiser(fake: FakeDenoiser) -> None:
    """A loop of mi.OptixDenoiser(temporal=True), with the name of the function changed."""
    buffers, before = frame(), torch.rand(33, 47, 3)
    flow = torch.rand(33, 47, 2)
    image = denoise(buffers, "optix-temporal", flow=flow, previous_denoised=before)
    torch.testing.assert_close(image, buffers.primal + before)
    torch.testing.assert_close(fake.calls[0][1]["flow"], flow)
    # Whatever the unit of radiance.
    bright = FrameBuffers(buffers.data.clone(), buffers.layout)
    bright.primal.mul_(2.0**20)
    scaled = denoise(bright, "optix-temporal", flow=flow, previous_denoised=before * 2.0**20)
    torch.testing.assert_close(scaled, image * 2.0**20)
