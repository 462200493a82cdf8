"""denoise(): kinds in and out, options, requirements; the registry behind it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mitsuba_gdpt import denoisers
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.denoisers import denoise, registry
from mitsuba_gdpt.denoisers.exposure import Exposure
from mitsuba_gdpt.errors import (
    ConfigError,
    LayoutError,
    MissingDependencyError,
    NonFiniteError,
)

LAYOUT = Layout.make(features=("roughness",))
METHODS = ["none", "poisson-l1", "poisson-l2"]


def render(height: int = 6, width: int = 7, layout: Layout = LAYOUT) -> torch.Tensor:
    return torch.rand(height, width, layout.count, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations made by a test are forgotten after it."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry._METHODS))


class TestKinds:
    """The result is of the input's kind, on its device, and the same whatever the kind."""

    @pytest.fixture(params=METHODS)
    def method(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture
    def expected(self, method: str) -> torch.Tensor:
        return denoisers.find(method)(FrameBuffers(render(), LAYOUT), {})

    def test_torch(self, method: str, expected: torch.Tensor) -> None:
        image = denoise(render(), method, layout=LAYOUT)
        assert isinstance(image, torch.Tensor)
        assert image.shape == (6, 7, 3)
        assert image.device.type == "cpu"
        assert image.is_contiguous()
        assert torch.equal(image, expected)

    def test_frame_buffers(self, method: str, expected: torch.Tensor) -> None:
        image = denoise(FrameBuffers(render(), LAYOUT), method)
        assert torch.equal(image, expected)

    def test_numpy(self, method: str, expected: torch.Tensor) -> None:
        image = denoise(render().numpy(), method, layout=LAYOUT.channels)
        assert isinstance(image, np.ndarray)
        assert image.dtype == np.float32
        np.testing.assert_array_equal(image, expected)

    def test_bitmap(self, method: str, expected: torch.Tensor) -> None:
        import mitsuba as mi

        image = denoise(FrameBuffers(render(), LAYOUT).to_bitmap(), method)
        assert isinstance(image, mi.Bitmap)
        assert image.pixel_format() == mi.Bitmap.PixelFormat.RGB
        assert not image.srgb_gamma()
        np.testing.assert_array_equal(np.array(image), expected)

    def test_drjit(
        self,
        method: str,
        expected: torch.Tensor,
        device_variant: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        import mitsuba as mi

        tensor = mi.TensorXf(render().numpy())
        with monkeypatch.context() as forbidden:  # copying to the host

            def copied(*_: Any, **__: Any) -> None:
                raise AssertionError("copied to the host")

            forbidden.setattr(torch.Tensor, "cpu", copied)
            forbidden.setattr(torch.Tensor, "numpy", copied)
            image = denoise(tensor, method, layout=LAYOUT)
        assert type(image) is mi.TensorXf
        assert image.shape == (6, 7, 3)
        tolerance = 0 if device_variant.startswith("llvm") else 1e-3
        np.testing.assert_allclose(image.numpy(), expected, rtol=0, atol=tolerance)
        assert mi.variant() == device_variant

    def test_double_precision(self, method: str, expected: torch.Tensor) -> None:
        image = denoise(render().double(), method, layout=LAYOUT)
        assert image.dtype == torch.float64
        assert torch.equal(image, expected.double())

    def test_input_is_left_alone(self, method: str, expected: torch.Tensor) -> None:
        tensor = render()
        denoise(tensor, method, layout=LAYOUT).fill_(-1)
        assert torch.equal(tensor, render())


def test_drjit_result_is_not_copied(device_variant: str, own_registry: None) -> None:
    import mitsuba as mi

    made = []

    @registry.register("made", needs=("primal",), doc="its result", exposure=Exposure.UNTOUCHED)
    def make(buffers: FrameBuffers) -> torch.Tensor:
        made.append(buffers.primal.contiguous())
        return made[0]

    image = denoise(mi.TensorXf(render().numpy()), "made", layout=LAYOUT)
    assert torch.utils.dlpack.from_dlpack(image).data_ptr() == made[0].data_ptr()


def test_double_precision_variant(variant_llvm_rgb: str) -> None:
    import drjit as dr

    tensor = dr.llvm.ad.TensorXf64(render().numpy())
    image = denoise(tensor, "none", layout=LAYOUT)
    assert type(image) is dr.llvm.ad.TensorXf64
    np.testing.assert_array_equal(image.numpy(), render()[..., :3])


def default_name(layout: Layout | None = None, quality: str | None = None) -> str:
    """Return the default as a user would write it."""
    return str(denoisers.default_call(layout, quality))


BLIND = denoisers.without_gradients(LAYOUT)
SPLIT = "oidn(aux=clean, split=true)"
TWICE = "oidn(aux=clean, ensemble=2)"
FINEST = f"ngpt-fusion(using={SPLIT})"
BARE = Layout(tuple(b for b in LAYOUT.buffers if b.name == "primal"))


@pytest.mark.parametrize(
    ("quality", "whole", "blind"),
    [
        ("fast", "ngpt-fusion(using=oidn(aux=raw))", "oidn(aux=raw)"),
        ("balanced", "ngpt-fusion", "oidn(aux=clean)"),
        ("high", f"ngpt-fusion(using={TWICE})", TWICE),
    ],
)
def test_levels_of_quality(quality: str, whole: str, blind: str) -> None:
    pytest.importorskip("mitsuba_oidn")
    assert default_name(LAYOUT, quality) == whole
    assert default_name(Layout.make(variances=True), quality) == whole
    assert default_name(BLIND, quality) == blind
    assert default_name(BARE, quality) == "oidn(aux=none)"
    image = denoise(render(), layout=LAYOUT, quality=quality)
    assert torch.equal(image, denoise(render(), whole, layout=LAYOUT))
    assert default_name(quality=quality) == (FINEST if quality == "high" else whole)


def test_the_highest_level_splits_where_it_can() -> None:
    pytest.importorskip("mitsuba_oidn")
    parts = Layout.make(features=("direct",))
    assert default_name(parts, "high") == default_name(quality="high") == FINEST
    assert default_name(denoisers.without_gradients(parts), "high") == SPLIT
    assert default_name(parts) == default_name(LAYOUT)
    extra = {quality: denoisers.extra_buffers(quality) for quality in denoisers.LEVELS}
    assert extra == {"fast": (), "balanced": (), "high": ("direct",)}


def test_nothing_extra_is_rendered_for_what_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def obstacle(self: denoisers.Method, options: object) -> ConfigError | None:
        return ConfigError("not here") if "oidn" in self.name or "fusion" in self.name else None

    monkeypatch.setattr(denoisers.Method, "obstacle_for", obstacle)
    assert denoisers.extra_buffers("high") == ()


def test_default_without_oidn(monkeypatch: pytest.MonkeyPatch) -> None:
    def obstacle(self: denoisers.Method, options: object) -> ConfigError | None:
        return ConfigError("not here") if "oidn" in self.name or "fusion" in self.name else None

    monkeypatch.setattr(denoisers.Method, "obstacle_for", obstacle)
    for quality, expected in (("fast", "poisson-l1"), ("balanced", "poisson-l1")):
        assert default_name(LAYOUT, quality) == expected
    with pytest.raises(LayoutError, match=r"oidn\(aux=none\): not here; poisson-l1 needs dx, dy"):
        denoisers.default_call(BARE)


def test_level_of_the_default() -> None:
    image = denoise(render(), layout=LAYOUT)
    assert torch.equal(image, denoise(render(), layout=LAYOUT, quality=denoisers.DEFAULT_QUALITY))
    with pytest.raises(ConfigError, match="quality is 'best'; expected one of: fast, balanced"):
        denoise(render(), layout=LAYOUT, quality="best")
    with pytest.raises(ConfigError, match="'none' has no option 'quality'"):
        denoise(render(), "none", layout=LAYOUT, quality="high")


def test_gradients_that_were_not_sampled_are_not_read() -> None:
    """A render with shifts=0 leaves them at 0, which does not mean that the image is flat."""
    pytest.importorskip("mitsuba_oidn")
    frame = render()
    for name in ("dx", "dy"):
        frame[..., LAYOUT.slices[name]] = 0
    image = denoise(frame, layout=LAYOUT)
    assert torch.equal(image, denoise(frame, "oidn", layout=LAYOUT, aux="clean"))


def test_own_quality_of_a_method() -> None:
    pytest.importorskip("mitsuba_oidn")
    fast, high = (denoise(render(), "oidn", layout=LAYOUT, quality=q) for q in ("fast", "high"))
    assert not torch.equal(fast, high)


def test_none_is_the_primal() -> None:
    assert torch.equal(denoise(render(), "none", layout=LAYOUT), render()[..., :3])


def test_layout_of_an_integrator() -> None:
    integrator = SimpleNamespace(layout=LAYOUT)
    image = denoise(render(), "poisson-l2", layout=integrator)
    assert torch.equal(image, denoise(render(), "poisson-l2", layout=LAYOUT))


def test_options_reach_the_method() -> None:
    images = [denoise(render(), "poisson-l2", layout=LAYOUT, alpha=a) for a in (0.2, 0.4)]
    assert not torch.equal(*images)
    assert torch.equal(images[0], denoise(render(), "poisson-l2", layout=LAYOUT))


def test_results_carry_no_autograd_history() -> None:
    tensor = render().requires_grad_()
    for method in METHODS:
        assert not denoise(tensor, method, layout=LAYOUT).requires_grad


class TestRefusals:
    def test_unknown_method(self) -> None:
        message = "unknown reconstruction method 'oidm'; known: .*poisson-l1"
        with pytest.raises(ConfigError, match=message):
            denoise(render(), "oidm", layout=LAYOUT)

    def test_unknown_option(self) -> None:
        message = r"'poisson-l2' has no option 'beta'; .*alpha \(0.2\)"
        with pytest.raises(ConfigError, match=message):
            denoise(render(), "poisson-l2", layout=LAYOUT, beta=1)
        with pytest.raises(ConfigError, match=r"'none' has no option 'alpha'; .*: none"):
            denoise(render(), "none", layout=LAYOUT, alpha=1)

    def test_positional_parameter_is_no_option(self) -> None:
        with pytest.raises(TypeError, match="multiple values for argument 'buffers'"):
            denoise(render(), "none", layout=LAYOUT, **{"buffers": 1})

    def test_missing_buffers(self) -> None:
        message = "'poisson-l1' needs the buffer.* dx, dy; there are: primal, albedo"
        names = ["R", "G", "B", "albedo.R", "albedo.G", "albedo.B"]
        with pytest.raises(LayoutError, match=message):
            denoise(torch.zeros(2, 2, 6), "poisson-l1", layout=names)

    def test_wrong_channel_count(self) -> None:
        with pytest.raises(LayoutError, match="17 channels"):
            denoise(render(), "poisson-l1")

    def test_non_finite_input(self) -> None:
        tensor = render()
        tensor[2, 3, 4] = float("nan")
        with pytest.raises(NonFiniteError, match=r"dx\.G: 1 \(of 42 each\)"):
            denoise(tensor, "poisson-l1", layout=LAYOUT)
        denoise(tensor, "none", layout=LAYOUT)  # does not look at dx

    def test_foreign_object(self) -> None:
        with pytest.raises(LayoutError, match=r"got 'scene.xml'; expected the path of an image"):
            denoise("scene.xml")
        with pytest.raises(LayoutError, match=r"expected .*a Mitsuba TensorXf"):
            denoise(object())

    def test_arrays_that_lack_values(self) -> None:
        image = torch.rand(4, 5, 3)
        masked = np.ma.masked_greater(image.numpy(), 0.5)
        with pytest.raises(LayoutError, match="hidden values; expected all of them"):
            denoise(masked, "none")
        assert np.array_equal(denoise(np.ma.asarray(image.numpy()), "none"), image)
        for tensor, kind in ((image.to_sparse(), "sparse_coo"), (image.to("meta"), "meta")):
            with pytest.raises(LayoutError, match=f"{kind} tensor; expected one with all"):
                denoise(tensor, "none")


class TestRegistry:
    def test_lists_requirements(self) -> None:
        listed = {method.name: method for method in denoisers.methods()}
        assert set(METHODS) <= set(listed)
        method = listed["poisson-l1"]
        assert method.needs == ("primal", "dx", "dy")
        assert method.options["alpha"] == 0.2
        assert method.options["preset"] == "L1D"
        assert method.available
        assert method.obstacle is None
        assert method.doc

    def test_optional_buffers_are_validated_but_not_required(self, own_registry: None) -> None:
        @registry.register("rough", needs=("primal",), uses=("roughness",), doc="")
        def rough(buffers: FrameBuffers) -> torch.Tensor:
            return buffers.primal

        denoise(render(layout=Layout.make()), "rough")
        tensor = render()
        tensor[0, 0, LAYOUT.slices["roughness"]] = float("inf")
        with pytest.raises(NonFiniteError, match=r"roughness\.I: 1"):
            denoise(tensor, "rough", layout=LAYOUT)

    def test_missing_package(self, own_registry: None) -> None:
        check = registry.requires_package("no_such_package", "oidn")

        @registry.register("absent", needs=("primal",), doc="", check=check)
        def absent(buffers: FrameBuffers) -> torch.Tensor:
            raise AssertionError("must not run")

        method = denoisers.find("absent")
        assert not method.available
        message = r"'no_such_package' cannot be imported: .* pip install 'mitsuba-gdpt\[oidn\]'"
        with pytest.raises(MissingDependencyError, match=message):
            denoise(render(), "absent", layout=LAYOUT)

    def test_present_package(self) -> None:
        registry.requires_package("numpy", "oidn")()

    def test_refuses_bad_registrations(self, own_registry: None) -> None:
        with pytest.raises(ConfigError, match="'none' is registered already"):
            registry.register("none", needs=("primal",), doc="")
        with pytest.raises(LayoutError, match="unknown buffer 'primel'"):
            registry.register("new", needs=("primel",), doc="")

        def greedy(buffers: FrameBuffers, **options: Any) -> torch.Tensor:
            return buffers.primal

        with pytest.raises(ConfigError, match=r"takes \*\*options; expected named keyword"):
            registry.register("greedy", needs=("primal",), doc="")(greedy)
