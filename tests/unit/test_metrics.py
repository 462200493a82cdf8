"""Metrics of the linear and of the display domain against second formulas, and every refusal."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity
from torch import Tensor

from mitsuba_gdpt import exr, metrics
from mitsuba_gdpt.errors import (
    ConfigError,
    LayoutError,
    MissingDependencyError,
    NonFiniteError,
)
from mitsuba_gdpt.metrics import Exposures, Reference

Array = NDArray[np.float64]


pytestmark = pytest.mark.usefixtures("one_thread")


def rendered(height: int = 40, width: int = 33, *, seed: int = 1, batch: int = 0) -> Tensor:
    """Smooth radiance from 0 to about 4 with bright spots."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    frames = []
    for _ in range(batch or 1):
        phase = 6.3 * torch.rand(3, generator=generator)
        base = 1 + torch.sin(6 * x[..., None] + 4 * y[..., None] + phase)
        spots = torch.rand(height, width, 1, generator=generator) > 0.99
        frames.append(base + 2 * spots)
    return torch.stack(frames) if batch else frames[0]


def noisy(image: Tensor, sigma: float = 0.2, seed: int = 2) -> Tensor:
    """Multiplicative gamma noise: non-negative, right mean, relative deviation sigma."""
    rng = np.random.default_rng(seed)
    shape = 1 / sigma**2
    return image * torch.from_numpy(rng.gamma(shape, 1 / shape, image.shape)).to(image)


def display(image: Tensor) -> Array:
    """Second formula of the display encoding, in NumPy."""
    linear = image.double().numpy()
    curve = exr.linear_to_srgb(linear / (1 + np.abs(linear).mean(-1, keepdims=True)))
    return np.asarray(curve, np.float64)


def second_relmse(epsilon: float) -> Callable[[Array, Array], float]:
    def compute(p: Array, r: Array) -> float:
        total = 0.0
        for row, target in zip(p.reshape(-1, 3), r.reshape(-1, 3), strict=True):
            total += ((row - target) ** 2).sum() / ((target.sum() / 3) ** 2 + epsilon)
        return total / p.size

    return compute


SECOND_FORMULAS: dict[str, Callable[[Array, Array], float]] = {
    "l1": lambda p, r: float(np.linalg.norm((p - r).ravel(), 1) / p.size),
    "l2": lambda p, r: float(np.linalg.norm((p - r).ravel()) ** 2 / p.size),
    "relmse": second_relmse(0.01),
    "relmse-ngpt": second_relmse(0.001),
    "smape": lambda p, r: float(np.average(np.abs(p - r) / (np.abs(p) + np.abs(r) + 0.01))),
}


@pytest.mark.parametrize("name", SECOND_FORMULAS)
def test_linear_metrics_follow_second_formula(name: str) -> None:
    reference = rendered()
    image = noisy(reference) - 0.1  # some values are negative
    assert (image < 0).any()
    expected = SECOND_FORMULAS[name](image.double().numpy(), reference.double().numpy())
    assert metrics.find(name)(image, reference).value == pytest.approx(expected, rel=1e-5)


def test_psnr_follows_second_formula() -> None:
    reference, image = rendered(), noisy(rendered())
    error = np.mean((display(image) - display(reference)) ** 2)
    assert float(metrics.psnr(image, reference)) == pytest.approx(-10 * math.log10(error), abs=1e-4)
    assert metrics.find("psnr")(reference, reference).value == math.inf


def test_ssim_is_that_of_skimage() -> None:
    reference, image = rendered(), noisy(rendered())
    _, full = structural_similarity(
        display(image),
        display(reference),
        channel_axis=-1,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    expected = full[5:-5, 5:-5].mean()  # windows inside the image only
    assert float(metrics.ssim(image, reference)) == pytest.approx(expected, abs=2e-5)


def test_ms_ssim_is_the_product_over_scales() -> None:
    reference, image = rendered(176, 192), noisy(rendered(176, 192))
    shown, target = display(image), display(reference)
    value = np.ones(3)
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if scale:
            shown, target = (
                a.reshape(a.shape[0] // 2, 2, a.shape[1] // 2, 2, 3).mean((1, 3))
                for a in (shown, target)
            )
        value *= np.maximum(ssim_terms(shown, target, whole=scale == 4), 0) ** weight
    assert float(metrics.ms_ssim(image, reference)) == pytest.approx(value.mean(), abs=2e-4)


def ssim_terms(a: Array, b: Array, whole: bool) -> Array:
    """Mean over pixels of contrast times structure, and of luminance too at the last scale."""
    from scipy.ndimage import gaussian_filter

    def blur(x: Array) -> Array:
        return gaussian_filter(x, (1.5, 1.5, 0), truncate=3.4)[5:-5, 5:-5]

    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma**2, blur(b * b) - mb**2, blur(a * b) - ma * mb
    term = (2 * cov + 0.03**2) / (va + vb + 0.03**2)
    if whole:
        term = term * (2 * ma * mb + 0.01**2) / (ma**2 + mb**2 + 0.01**2)
    return np.asarray(term.mean((0, 1)))


def test_display_encoding() -> None:
    image = torch.tensor([[[0.0, 0.001, 0.002], [0.5, 1.0, 1.5], [30.0, 0.0, 0.0]]])
    assert np.allclose(metrics.encode_display(image).numpy(), display(image), atol=1e-6)
    # One component of a saturated pixel exceeds 1 before clipping.
    assert float(metrics.reinhard(image)[0, 2, 0]) == pytest.approx(30 / 11)
    assert float(metrics.srgb(metrics.reinhard(image)).max()) > 1
    assert torch.equal(metrics.reinhard(-image), -metrics.reinhard(image))


def test_srgb_has_finite_gradient_everywhere() -> None:
    values = torch.tensor([-1.0, 0.0, 0.0031308, 0.5, 3.0], requires_grad=True)
    metrics.srgb(values).sum().backward()
    assert values.grad is not None
    assert values.grad.isfinite().all()
    assert float(values.grad[0]) == pytest.approx(12.92)


def test_displayable_clamps_and_nothing_else() -> None:
    image = rendered() - 0.5
    assert torch.equal(metrics.displayable(image), torch.where(image < 0, 0, image))
    image[0, 0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="1 values are NaN"):
        metrics.displayable(image)


# ------------------------------------------------------------------------------ noisy references


def halves(truth: Tensor, sigma: float, seed: int) -> Reference:
    return Reference(noisy(truth, sigma, seed), noisy(truth, sigma, seed + 1))


def test_halves_remove_the_bias_of_l2() -> None:
    """The mean over many noisy references is the true error; against their mean it is not."""
    truth = rendered(64, 64).double()
    image = noisy(truth, 0.1, seed=77)
    expected = float(metrics.l2(image, truth))
    split = [float(metrics.l2(image, halves(truth, 0.3, 2 * i))) for i in range(100)]
    naive = [float(metrics.l2(image, halves(truth, 0.3, 2 * i).mean)) for i in range(100)]
    error = np.std(split, ddof=1) / math.sqrt(len(split))
    assert abs(np.mean(split) - expected) < 4 * error
    assert error < 0.03 * expected  # otherwise the line above would say little
    # Variance of the mean of two halves with relative deviation 0.3.
    bias = 0.3**2 / 2 * float((truth**2).mean())
    assert np.mean(naive) - expected == pytest.approx(bias, rel=0.05)


def test_brightness_without_noise_removes_the_bias_of_relmse() -> None:
    """References that deviate by three tenths, where relMSE without it is off by its own size."""
    truth = rendered(64, 64).double()
    image = noisy(truth, 0.1, seed=77)
    expected = float(metrics.relmse(image, truth))
    grey = truth.mean(-1, keepdim=True)
    references = [halves(truth, 0.3, 2 * i) for i in range(100)]
    values = [float(metrics.relmse(image, Reference(r.a, r.b, grey))) for r in references]
    error = np.std(values, ddof=1) / math.sqrt(len(values))
    assert abs(np.mean(values) - expected) < 4 * error
    assert error < 0.1 * expected
    assert np.mean([float(metrics.relmse(image, r)) for r in references]) > 1.5 * expected


def test_brightness_is_checked() -> None:
    Reference(IMAGE, brightness=IMAGE[..., :1])
    with pytest.raises(LayoutError, match="brightness"):
        Reference(IMAGE, brightness=IMAGE)
    with pytest.raises(NonFiniteError, match="brightness"):
        Reference(IMAGE, brightness=IMAGE[..., :1] * math.inf)
    with pytest.raises(ConfigError, match="brightness"):
        Reference(IMAGE, brightness=IMAGE[..., :1].double())


def test_halves_leave_a_small_bias_in_relmse() -> None:
    """As documented, with references that deviate by a tenth."""
    truth = rendered(64, 64).double()
    image = noisy(truth, 0.1, seed=77)
    expected = float(metrics.relmse(image, truth))
    split = np.mean([float(metrics.relmse(image, halves(truth, 0.1, 2 * i))) for i in range(100)])
    naive = np.mean(
        [float(metrics.relmse(image, halves(truth, 0.1, 2 * i).mean)) for i in range(100)]
    )
    assert abs(split - expected) < 0.04 * expected
    assert naive - expected > 0.3 * expected


def test_remaining_bias_of_relmse_matters_for_very_noisy_references() -> None:
    """As documented: off by a good part of itself with a relative deviation of 0.3 per half."""
    truth = rendered(64, 64).double()
    image = noisy(truth, 0.1, seed=77)
    expected = float(metrics.relmse(image, truth))
    split = np.mean([float(metrics.relmse(image, halves(truth, 0.3, 2 * i))) for i in range(50)])
    naive = np.mean(
        [float(metrics.relmse(image, halves(truth, 0.3, 2 * i).mean)) for i in range(50)]
    )
    assert 0.2 < split / expected - 1 < 2
    assert naive / expected - 1 > 3


def test_estimate_can_be_negative() -> None:
    truth = rendered()
    values = [float(metrics.l2(truth, halves(truth, 0.3, 2 * i))) for i in range(20)]
    assert min(values) < 0 < max(values)


@pytest.mark.parametrize("name", ["l1", "smape", "psnr", "ssim", "hdr-flip", "ldr-flip"])
def test_other_metrics_use_the_mean_of_the_halves(name: str) -> None:
    metric = metrics.find(name)
    assert not metric.unbiased
    reference = halves(rendered(), 0.2, 5)
    image = noisy(rendered(), 0.1)
    assert metric(image, reference).value == metric(image, reference.mean).value


@pytest.mark.parametrize("name", ["l2", "relmse", "relmse-ngpt"])
def test_unbiased_metrics_use_the_halves(name: str) -> None:
    metric = metrics.find(name)
    assert metric.unbiased
    reference = halves(rendered(), 0.2, 5)
    image = noisy(rendered(), 0.1)
    assert metric(image, reference).value < 0.8 * metric(image, reference.mean).value


def test_maps_have_the_metric_as_mean() -> None:
    reference, image = rendered(), noisy(rendered())
    relative = metrics.relative_error_map(image, reference)
    assert relative.shape == (40, 33)
    assert float(relative.mean()) == pytest.approx(float(metrics.relmse(image, reference)))
    visible = metrics.flip_map(image, reference)
    assert visible.shape == (40, 33)
    assert visible.dtype == torch.float32
    assert float(visible.mean()) == pytest.approx(float(metrics.hdr_flip(image, reference)))
    # A single wrong pixel shows where it is.
    image = reference.clone()
    image[7, 20] += 3
    for error in (metrics.relative_error_map(image, reference), metrics.flip_map(image, reference)):
        assert divmod(int(error.argmax()), 33) == (7, 20)
    assert float(error[30:, :5].max()) == 0
    with pytest.raises(LayoutError, match=r"expected one image \(H, W, 3\)"):
        metrics.relative_error_map(image[None], reference[None])


# ------------------------------------------------------------------------------------------- FLIP


@pytest.mark.parametrize("size", [(9, 7), (8, 6), (64, 64)])
def test_exposures_are_those_of_the_evaluator(size: tuple[int, int]) -> None:
    import flip_evaluator

    reference = noisy(rendered(*size), 1.0)
    array = reference.numpy()
    _, _, used = flip_evaluator.evaluate(array, array, "HDR", applyMagma=False)
    ours = metrics.hdr_flip_exposures(reference)
    assert ours.start == pytest.approx(used["startExposure"], abs=1e-5)
    assert ours.stop == pytest.approx(used["stopExposure"], abs=1e-5)
    assert ours.count == used["numExposures"]


def test_flip_is_the_evaluators() -> None:
    import flip_evaluator

    reference, image = rendered(), noisy(rendered())
    _, hdr, _ = flip_evaluator.evaluate(reference.numpy(), image.numpy(), "HDR", applyMagma=False)
    assert float(metrics.hdr_flip(image, reference)) == pytest.approx(hdr, abs=1e-6)
    shown = (display(reference).astype(np.float32), display(image).astype(np.float32))
    _, ldr, _ = flip_evaluator.evaluate(*shown, "LDR", applyMagma=False)
    assert float(metrics.ldr_flip(image, reference)) == pytest.approx(ldr, abs=1e-5)


def test_flip_reports_its_exposures() -> None:
    reference, image = rendered(), noisy(rendered())
    value = metrics.find("hdr-flip")(image, reference)
    exposures = metrics.hdr_flip_exposures(reference)
    assert value.details == {
        "start_exposure": exposures.start,
        "stop_exposure": exposures.stop,
        "exposures": exposures.count,
    }
    assert metrics.find("ldr-flip")(image, reference).details == {}
    chosen = Exposures(-2.0, 2.0, 3)
    result = metrics.flip(image, reference, exposures=chosen)
    assert result.exposures == chosen
    assert result.mean != value.value


def test_flip_of_dark_references() -> None:
    image = torch.full((16, 16, 3), 0.1)
    black = torch.zeros_like(image)
    with pytest.raises(ConfigError, match="the reference is black"):
        metrics.hdr_flip(image, black)
    assert float(metrics.hdr_flip(image, black, exposures=Exposures(0, 1, 2))) > 0
    mostly = black.clone()
    mostly[:4] = 1.0
    assert metrics.hdr_flip_exposures(mostly).stop == pytest.approx(24.0833, abs=1e-3)
    constant = metrics.hdr_flip_exposures(image)
    assert constant.start == constant.stop
    assert constant.count == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0.0, math.inf, 2), "finite"), ((0.0, 1.0, 1), "at least 2"), ((1.0, 0.0, 2), "start <= st")],
)
def test_bad_exposures(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Exposures(*arguments)


def test_bad_flip_arguments_raise_instead_of_exiting() -> None:
    image = rendered(8, 8)
    with pytest.raises(ConfigError, match="got domain 'sdr'"):
        metrics.flip(image, image, "sdr")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="pixels_per_degree = -1"):
        metrics.flip(image, image, pixels_per_degree=-1)
    with pytest.raises(ConfigError, match="exposures for LDR"):
        metrics.flip(image, image, "ldr", exposures=Exposures(0, 1, 2))


# ------------------------------------------------------------------------------- all of the table

WITHOUT_WEIGHTS = [name for name, metric in metrics.METRICS.items() if not metric.needs_weights]


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_identical_images_are_best(name: str) -> None:
    metric = metrics.find(name)
    reference = rendered(176, 165)
    best = {"psnr": math.inf, "ssim": 1.0, "ms-ssim": 1.0}.get(name, 0.0)
    assert metric(reference, reference).value == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_more_noise_is_worse(name: str) -> None:
    metric = metrics.find(name)
    reference = rendered(176, 165)
    values = [metric(noisy(reference, sigma), reference).value for sigma in (0.03, 0.1, 0.4)]
    assert values == sorted(values, reverse=metric.higher_is_better)
    assert len(set(values)) == 3


@pytest.mark.parametrize("name", WITHOUT_WEIGHTS)
def test_accumulator_is_the_function_of_the_whole(name: str) -> None:
    """One by one, in batches and merged: the same as all at once."""
    reference = rendered(170, 165, batch=3)
    image = noisy(reference)
    metric = metrics.find(name)
    whole, parts, other = (metric.accumulator(None) for _ in range(3))
    whole.update(image, reference)
    parts.update(image[0], reference[0])
    other.update(image[1:], reference[1:])
    parts.merge(other)
    assert parts.count == whole.count == 3
    assert parts.higher_is_better == metric.higher_is_better
    assert float(parts.compute()) == pytest.approx(float(whole.compute()), rel=1e-6)
    if name != "psnr":  # pooled, the others are means over images
        singles = [metric(i, r).value for i, r in zip(image, reference, strict=True)]
        assert float(whole.compute()) == pytest.approx(np.mean(singles), rel=1e-5)
    parts.reset()
    assert parts.count == 0
    with pytest.raises(ConfigError, match="has seen no image"):
        parts.compute()


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (metrics.l1, "l1"),
        (metrics.l2, "l2"),
        (metrics.relmse, "relmse"),
        (metrics.smape, "smape"),
        (metrics.psnr, "psnr"),
        (metrics.ssim, "ssim"),
        (metrics.ms_ssim, "ms-ssim"),
        (metrics.hdr_flip, "hdr-flip"),
        (metrics.ldr_flip, "ldr-flip"),
    ],
)
def test_function_of_a_batch_is_the_accumulated_value(
    function: Callable[..., Tensor], name: str
) -> None:
    reference = rendered(162, 165, batch=2)
    image = noisy(reference)
    accumulator = metrics.find(name).accumulator(None)
    accumulator.update(image, reference)
    assert float(function(image, reference)) == pytest.approx(
        float(accumulator.compute()), rel=1e-5
    )


def test_images_have_one_vote_whatever_their_size() -> None:
    metric = metrics.MeanL1()
    metric.update(torch.ones(4, 4, 3), torch.zeros(4, 4, 3))
    metric.update(torch.ones(16, 16, 3), torch.ones(16, 16, 3))
    assert float(metric.compute()) == 0.5


def test_psnr_is_pooled() -> None:
    reference = rendered(batch=2)
    image = noisy(reference)
    image[0] = reference[0]  # infinite by itself
    half = metrics.find("psnr")(image[1], reference[1]).value + 10 * math.log10(2)
    metric = metrics.PooledPSNR()
    metric.update(image, reference)
    assert float(metric.compute()) == pytest.approx(half, abs=1e-3)


def test_merging_needs_the_same_metric() -> None:
    with pytest.raises(ConfigError, match="cannot merge MeanRelMSE"):
        metrics.MeanRelMSE().merge(metrics.MeanRelMSE(epsilon=0.1))
    with pytest.raises(ConfigError, match="cannot merge MeanL2"):
        metrics.MeanL1().merge(metrics.MeanL2())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "function", [metrics.l1, metrics.l2, metrics.relmse, metrics.smape, metrics.psnr, metrics.ssim]
)
def test_gradients(function: Callable[..., Tensor]) -> None:
    reference = rendered(12, 13).double()
    image = (noisy(reference) + 0.05).requires_grad_()  # off the kinks of absolute values
    assert torch.autograd.gradcheck(lambda x: function(x, reference), image, fast_mode=True)


def test_dtype_is_kept() -> None:
    image = rendered()
    assert metrics.relmse(image, image).dtype == torch.float32
    assert metrics.relmse(image.double(), image.double()).dtype == torch.float64


def test_find() -> None:
    assert [metric.name for metric in metrics.METRICS.values()] == list(metrics.METRICS)
    with pytest.raises(ConfigError, match=r"unknown metric 'relMSE'; known: l1, l2, relmse, "):
        metrics.find("relMSE")


def test_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pytorch_msssim", None)
    image = rendered()
    with pytest.raises(MissingDependencyError, match=r"mitsuba-gdpt\[eval\]"):
        metrics.ssim(image, image)
    obstacle = metrics.find("ssim").obstacle()
    assert isinstance(obstacle, MissingDependencyError)
    assert metrics.find("psnr").obstacle() is None


# --------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("name", list(metrics.METRICS))
@pytest.mark.parametrize("where", ["image", "reference"])
def test_non_finite_values_are_counted(name: str, where: str) -> None:
    """In weight-dependent metrics too: values are looked at before weights are."""
    good, bad = rendered(), rendered()
    bad[3, 4, 0] = math.nan
    bad[5, 6] = math.inf
    arguments = (bad, good) if where == "image" else (good, bad)
    with pytest.raises(NonFiniteError, match=rf"{where}: 1 values are NaN and 3 infinite, of 3960"):
        metrics.find(name)(*arguments)


@pytest.mark.parametrize("name", list(metrics.METRICS))
@pytest.mark.parametrize("where", ["image", "reference"])
def test_negative_values_are_refused_where_light_is_shown(name: str, where: str) -> None:
    metric = metrics.find(name)
    good, bad = rendered(), rendered()
    bad[3, 4] = -0.25
    arguments = (bad, good) if where == "image" else (good, bad)
    if metric.nonnegative:
        with pytest.raises(ConfigError, match=rf"{where}: 3 of 3960 values .* down to -0.25"):
            metric(*arguments)
    elif not metric.needs_weights:
        assert metric(*arguments).value >= 0


@pytest.mark.parametrize("name", ["hdr-flip", "ssim"])
def test_halves_may_be_below_zero(name: str) -> None:
    """Those of an unbiased solve are, where light is none."""
    metric = metrics.find(name)
    if (obstacle := metric.obstacle()) is not None:
        pytest.skip(str(obstacle))
    image, a, b = rendered(), rendered(), rendered()
    a[3, 4], b[3, 4] = -0.5, 0.25
    black = 0.5 * (a + b)
    black[3, 4] = 0
    assert metric(image, metrics.Reference(a, b)).value == metric(image, black).value


IMAGE = torch.ones(6, 5, 3)


@pytest.mark.parametrize(
    ("image", "reference", "error", "message"),
    [
        (IMAGE.numpy(), IMAGE, ConfigError, "image: got ndarray; expected a torch tensor"),
        (IMAGE, IMAGE.numpy(), ConfigError, "reference: got ndarray"),
        (IMAGE.movedim(-1, 0), IMAGE, LayoutError, r"\(3, 6, 5\).*channels come last"),
        (IMAGE[..., :1], IMAGE, LayoutError, r"got shape \(6, 5, 1\)"),
        (IMAGE[0], IMAGE, LayoutError, r"got shape \(5, 3\)"),
        (IMAGE[:0], IMAGE[:0], LayoutError, r"got shape \(0, 5, 3\)"),
        (IMAGE, IMAGE[:5], LayoutError, r"image: got shape \(6, 5, 3\); expected that of the ref"),
        (IMAGE[None], IMAGE, LayoutError, r"got shape \(1, 6, 5, 3\); expected that"),
        (IMAGE.double(), IMAGE, ConfigError, "got torch.float64 on cpu; expected as the reference"),
        (IMAGE.half(), IMAGE, ConfigError, "expected float32 or float64"),
        (IMAGE, IMAGE.int(), ConfigError, r"reference: got torch\.int32"),
    ],
)
def test_bad_images(image: Any, reference: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        metrics.l1(image, reference)


def test_bad_halves() -> None:
    with pytest.raises(LayoutError, match=r"second half of the reference: got shape \(5, 5, 3\)"):
        Reference(IMAGE, IMAGE[:5])
    with pytest.raises(NonFiniteError, match="second half of the reference: 90 values are NaN"):
        Reference(IMAGE, IMAGE * math.nan)


def test_table_takes_one_image() -> None:
    with pytest.raises(LayoutError, match=r"got shape \(1, 6, 5, 3\); expected one image"):
        metrics.find("l1")(IMAGE[None], IMAGE[None])


def test_small_images() -> None:
    with pytest.raises(LayoutError, match="got an image of 6 x 5 pixels; expected at least 11"):
        metrics.ssim(IMAGE, IMAGE)
    with pytest.raises(LayoutError, match="expected at least 161"):
        metrics.ms_ssim(rendered(160, 200), rendered(160, 200))


def test_overflow_is_an_error() -> None:
    with pytest.raises(NonFiniteError, match=r"L2 is inf, although .* up to 1e\+30, are too large"):
        metrics.find("l2")(1e30 * IMAGE, IMAGE)


def test_trimmed_relmse_leaves_out_the_worst_pixels() -> None:
    generator = torch.Generator().manual_seed(3)
    reference = torch.rand(50, 60, 3, generator=generator)
    image = reference + 0.1 * torch.randn(50, 60, 3, generator=generator)
    clean = metrics.trimmed_relmse(image, reference)
    image[7, 8] = 1000.0  # one of 3000 pixels; three are left out
    assert metrics.trimmed_relmse(image, reference) == pytest.approx(float(clean), rel=1e-2)
    assert metrics.relmse(image, reference) > 100
    pixels = np.sort(metrics.relative_error_map(image, reference).numpy().ravel())
    assert metrics.trimmed_relmse(image, reference) == pytest.approx(pixels[:2997].mean())
    untrimmed = metrics.trimmed_relmse(image, reference, trim=0)
    assert untrimmed == pytest.approx(float(metrics.relmse(image, reference)))
    with pytest.raises(ConfigError, match="share of the pixels"):
        metrics.trimmed_relmse(image, reference, trim=1.0)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf])
def test_bad_epsilon(epsilon: float) -> None:
    for function in (metrics.relmse, metrics.smape, metrics.relative_error_map):
        with pytest.raises(ConfigError, match="expected a positive number"):
            function(IMAGE, IMAGE, epsilon=epsilon)
    for accumulator in (metrics.MeanRelMSE, metrics.MeanTrimmedRelMSE, metrics.MeanSMAPE):
        with pytest.raises(ConfigError, match="expected a positive number"):
            accumulator(epsilon=epsilon)
