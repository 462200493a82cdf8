"""LPIPS and E-LPIPS: published digits with the real weights, properties with random ones."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from mitsuba_gdpt import metrics
from mitsuba_gdpt.errors import ConfigError, LayoutError, WeightsError
from mitsuba_gdpt.metrics import ELPIPS, LPIPS, Ensemble, Reference
from mitsuba_gdpt.metrics.backbones import AlexNet, Backbone, SqueezeNet
from mitsuba_gdpt.metrics.weights import ENVIRONMENT_VARIABLE, FEATURES, HEADS

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def published(shared_dir: Path) -> Path:
    """The weights that the published numbers were made with."""
    return shared_dir / "weights"


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the right shapes; enough for whatever does not depend on training."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(3)
    backbones: dict[str, Backbone] = {"squeeze": SqueezeNet(), "alex": AlexNet()}
    heads = {}
    for network, backbone in backbones.items():
        save_file(backbone.state_dict(), folder / FEATURES[network])
        for index, count in enumerate(backbone.channels):
            heads[f"lpips_v0.1.{network}.lin{index}"] = torch.rand(count)
    for index, count in enumerate(SqueezeNet(every_layer=True).channels):
        heads[f"elpips.squeeze_full_maxpool.lin{index}"] = torch.rand(count)
    save_file(heads, folder / HEADS)
    return folder


def picture(height: int = 64, width: int = 64, *, batch: int = 1, seed: int = 0) -> Tensor:
    """Smooth colours and a few edges, values in [0, 1]; (N, H, W, 3)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 6, 6, generator=generator)
    smooth = functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    stripes = (torch.arange(width) // 9 % 2).float() * 0.2
    return (0.8 * smooth + stripes).movedim(1, -1).contiguous()


def with_noise(image: Tensor, sigma: float, seed: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (image + sigma * torch.randn(image.shape, generator=generator)).clamp(0, 1)


def blurred(image: Tensor, sigma: float) -> Tensor:
    radius = math.ceil(3 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    x = functional.pad(image.movedim(-1, 1), (radius,) * 4, mode="reflect")
    x = functional.conv2d(x, kernel, groups=3)
    return functional.conv2d(x, kernel.transpose(2, 3), groups=3).movedim(1, -1)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------- published numbers


def test_lpips_squeeze_gives_the_digits_of_torchmetrics(published: Path) -> None:
    """The example in the documentation of torchmetrics' LPIPS."""
    generator = seeded(42)
    a, b = (torch.rand(2, 3, 100, 100, generator=generator).movedim(1, -1) for _ in range(2))
    values = LPIPS("squeeze", weights=published)(a, b)
    assert [round(float(v), 4) for v in values] == [0.1024, 0.0938]


def test_lpips_alex_is_in_use_with_published_weights(published: Path) -> None:
    """No published digits on images that can be had here."""
    a = picture()
    values = [float(LPIPS("alex", weights=published)(with_noise(a, s), a)) for s in (0, 0.05, 0.2)]
    assert values[0] == 0
    assert values == sorted(values)


@pytest.mark.parametrize("metric", ["lpips", "elpips"])
def test_more_noise_and_more_blur_are_worse(published: Path, metric: str) -> None:
    """The orderings that the reference implementations give."""
    if metric == "lpips":
        distance: Any = LPIPS("squeeze", weights=published)
    else:
        module = ELPIPS(draws=8, weights=published)
        distance = lambda a, b: module(a, b, generator=seeded())  # noqa: E731
    clean = picture(96, 96)
    noise = [float(distance(with_noise(clean, sigma), clean)) for sigma in (0.01, 0.03, 0.1, 0.3)]
    blur = [float(distance(blurred(clean, sigma), clean)) for sigma in (0.5, 1.0, 2.0, 4.0)]
    assert noise == sorted(noise)
    assert blur == sorted(blur)
    assert noise[0] < 0.1 * noise[-1]
    assert blur[0] < 0.1 * blur[-1]


def test_published_weights_load_for_every_entry(published: Path) -> None:
    image, reference = with_noise(picture(32, 32)[0], 0.1), picture(32, 32)[0]
    for name, metric in metrics.METRICS.items():
        if metric.needs_weights:
            assert metric.obstacle(published) is None
            assert 0 < metric(image, reference, weights=published).value < 1, name


# ----------------------------------------------------------------------------------------- modules


def modules(folder: Path) -> list[Any]:
    return [
        LPIPS("squeeze", weights=folder),
        LPIPS("alex", weights=folder),
        ELPIPS(draws=2, weights=folder),
        ELPIPS(draws=2, ensemble=Ensemble(scale_levels=1, mode="fast"), weights=folder),
    ]


def test_identical_images_have_no_distance_and_a_finite_gradient(random_weights: Path) -> None:
    for module in modules(random_weights):
        for base in (picture(), torch.zeros(1, 64, 64, 3), torch.full((1, 64, 64, 3), 0.5)):
            image = base.clone().requires_grad_()
            value = module(image, base)
            assert value.tolist() == [0]
            value.sum().backward()
            assert image.grad is not None
            assert image.grad.isfinite().all()


def test_black_images_have_finite_gradients(random_weights: Path) -> None:
    for module in modules(random_weights):
        image = torch.zeros(1, 64, 64, 3, requires_grad=True)
        module(image, picture()).sum().backward()
        assert image.grad is not None
        assert image.grad.isfinite().all()
        assert image.grad.abs().max() > 0


def test_dead_features_have_finite_gradients(random_weights: Path) -> None:
    """Where all channels of a tap are 0 the unit vector has no direction."""
    for module in modules(random_weights):
        with torch.no_grad():
            for parameter in module.backbone.parameters():
                parameter.copy_(-parameter.abs() if parameter.ndim == 1 else 0 * parameter)
        image = picture(seed=1).requires_grad_()
        module(image, picture()).sum().backward()
        assert image.grad is not None
        assert image.grad.isfinite().all()


def test_gradient_is_that_of_the_distance(random_weights: Path) -> None:
    """Against a central difference along the gradient; in double precision."""
    for module in modules(random_weights):
        module = module.double()
        options = {"generator": seeded()} if isinstance(module, ELPIPS) else {}
        reference = picture().double()
        image = with_noise(reference, 0.1).double().requires_grad_()
        value = module(image, reference, **options)
        (gradient,) = torch.autograd.grad(value.sum(), image)
        step = 1e-6 * gradient / gradient.norm()
        with torch.no_grad():
            ends = []
            for sign in (1, -1):
                if options:
                    options["generator"] = seeded()
                ends.append(float(module(image + sign * step, reference, **options)))
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float(gradient.norm()), rel=1e-3)


def test_batches_are_compared_image_by_image(random_weights: Path) -> None:
    a, b = picture(batch=3), picture(batch=3, seed=1)
    for network in ("squeeze", "alex"):
        module = LPIPS(network, weights=random_weights)  # type: ignore[arg-type]
        alone = [float(module(a[i : i + 1], b[i : i + 1])) for i in range(3)]
        assert module(a, b).tolist() == pytest.approx(alone, rel=1e-5)
    plain = ELPIPS(ensemble=Ensemble.identity(), weights=random_weights)
    alone = [float(plain(a[i : i + 1], b[i : i + 1])) for i in range(3)]
    assert plain(a, b).tolist() == pytest.approx(alone, rel=1e-5)


def test_networks_are_frozen(random_weights: Path) -> None:
    for module in modules(random_weights):
        assert not any(parameter.requires_grad for parameter in module.parameters())
        assert not module.backbone.training


@pytest.mark.parametrize("kind", ["squeeze", "every layer", "alex"])
def test_least_side_is_the_least(kind: str) -> None:
    networks = {"squeeze": SqueezeNet(), "every layer": SqueezeNet(every_layer=True)}
    network = networks.get(kind) or AlexNet()
    side = network.least_side
    taps = network(torch.rand(1, 3, side, side))
    assert tuple(tap.shape[1] for tap in taps) == network.channels
    assert all(tap.numel() for tap in taps)
    with pytest.raises(RuntimeError):
        network(torch.rand(1, 3, side - 1, side - 1))


def test_small_images(random_weights: Path) -> None:
    small = torch.rand(1, 16, 80, 3)
    for network in ("squeeze", "alex"):
        with pytest.raises(LayoutError, match=r"16 x 80 pixels, .* expected at least"):
            LPIPS(network, weights=random_weights)(small, small)  # type: ignore[arg-type]
    with pytest.raises(LayoutError, match="sees 23 on the shorter side; expected at least 31"):
        ELPIPS(weights=random_weights)(small, small)
    with pytest.raises(LayoutError, match="smaller than the offset of 40"):
        ELPIPS(ensemble=Ensemble(offset=40), weights=random_weights)(picture(40), picture(40))
    least = torch.rand(1, 24, 24, 3)
    assert float(ELPIPS(weights=random_weights)(least, least)) == 0


def test_bad_batches(random_weights: Path) -> None:
    module = LPIPS(weights=random_weights)
    with pytest.raises(LayoutError, match=r"image: got shape \(64, 64, 3\); expected a batch"):
        module(picture()[0], picture())
    with pytest.raises(LayoutError, match="expected the same"):
        module(picture(), picture(batch=2))
    with pytest.raises(ConfigError, match="got network 'vgg'"):
        LPIPS("vgg", weights=random_weights)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="got draws = 0"):
        ELPIPS(draws=0, weights=random_weights)
    with pytest.raises(ConfigError, match="got domain 'srgb'"):
        metrics.elpips(picture(), picture(), domain="srgb", weights=random_weights)  # type: ignore[arg-type]


def test_nan_is_passed_on_by_the_modules(random_weights: Path) -> None:
    image = picture()
    image[0, 5, 5, 0] = math.nan
    for module in modules(random_weights):
        assert module(image, picture()).isnan().all()


# ---------------------------------------------------------------------------------------- ensemble


def test_distribution_of_the_draws() -> None:
    """Levels have probability ~ 1/s^2, the rest is uniform over its range."""
    draws = Ensemble(scale_levels=3).draw(60_000, 256, 256, seeded())
    share = {s: n / 60_000 for s, n in Counter(draws.level.tolist()).items()}
    total = 1 + 1 / 4 + 1 / 9
    assert share == pytest.approx({1: 1 / total, 2: 0.25 / total, 3: 1 / 9 / total}, abs=1e-4)
    for level in (1, 2, 3):
        origins = Counter(map(tuple, draws.origin[draws.level == level].tolist()))
        assert len(origins) == level**2
        assert min(origins.values()) > 0.85 * max(origins.values())
    for values, count in ((draws.offset[:, 0], 8), (draws.flip, 4), (draws.transpose, 2)):
        assert set(Counter(values.tolist()).values()) == {60_000 // count}  # stratified: exact
    factors = draws.color.sum(2)
    assert factors.min() >= 0.2
    assert factors.max() < 1
    assert np.allclose(factors.mean(0), 0.6, atol=1e-4)
    orders = Counter(map(tuple, draws.color.argmax(2).tolist()))
    assert set(orders.values()) == {10_000}
    assert len(orders) == 6
    # Nothing is tied to anything else.
    columns = torch.stack([draws.level, draws.offset[:, 0], draws.flip, draws.transpose]).double()
    correlation = torch.corrcoef(torch.cat([columns, factors.T]))
    assert (correlation - torch.eye(7)).abs().max() < 0.02


def test_default_number_of_levels() -> None:
    ensemble = Ensemble()
    sizes = [(32, 300), (128, 128), (256, 300), (1000, 2000)]
    assert [ensemble.levels(*size) for size in sizes] == [1, 2, 4, 8]
    assert Ensemble(scale_levels=2).levels(1000, 1000) == 2


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("size", [(70, 70), (70, 83)])
def test_transformations_against_numpy(mode: Any, size: tuple[int, int]) -> None:
    ensemble = Ensemble(scale_levels=3, mode=mode)
    images = picture(*size, batch=2).double()
    draws = ensemble.draw(40, *size, seeded(4))
    who = torch.arange(40) % 2
    for row in range(40):
        one = torch.tensor([row])
        got = ensemble.apply(images.movedim(-1, 1), who[one], draws[one])[0].movedim(0, -1).numpy()
        expected = second_transformation(images[who[row]].numpy(), draws, row, mode)
        assert np.allclose(got, expected, atol=1e-12)
        s, transpose = int(draws.level[row]), int(draws.transpose[row])
        sides = tuple(ensemble.side(side, s) for side in size)
        assert got.shape[:2] == (sides[::-1] if transpose else sides)


def second_transformation(image: Any, draws: Any, row: int, mode: str) -> Any:
    """The steps of the paper one by one."""
    s, (y, x) = int(draws.level[row]), draws.origin[row].tolist()
    height, width = image.shape[:2]
    if s > 1 and mode == "exact":
        full = [(side + 2 * (s - 1)) // s * s for side in (height, width)]
        pads = ((y, full[0] - height - y), (x, full[1] - width - x), (0, 0))
        image = np.pad(image, pads, mode="reflect")
    elif s > 1:
        full = [(side - s + 1) // s * s for side in (height, width)]
        image = image[y : y + full[0], x : x + full[1]]
    image = image.reshape(image.shape[0] // s, s, image.shape[1] // s, s, 3).mean((1, 3))
    y, x = draws.offset[row].tolist()
    if mode == "exact":
        image = np.pad(image, ((7 - y, y), (7 - x, x), (0, 0)), mode="reflect")
    else:
        image = image[y : image.shape[0] - 7 + y, x : image.shape[1] - 7 + x]
    flip = int(draws.flip[row])
    if flip & 1:
        image = image[:, ::-1]
    if flip & 2:
        image = image[::-1]
    if int(draws.transpose[row]):
        image = image.transpose(1, 0, 2)
    color = draws.color[row].numpy()
    return np.stack(
        [image[..., o] * f for o, f in zip(color.argmax(1), color.sum(1), strict=True)], -1
    )


def test_sizes_of_ngpts_training() -> None:
    """114 x 114 crops become 107 and 49 pixels wide, as the original's do."""
    ensemble = Ensemble(scale_levels=2, mode="fast")
    assert [ensemble.side(114, level) for level in (1, 2)] == [107, 49]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale_levels": 0}, "scale_levels = 0"),
        ({"offset": -1}, "offset = -1"),
        ({"factors": "hue"}, "factors = 'hue'"),
        ({"dropout": 1.0}, "dropout = 1.0"),
        ({"mode": "quick"}, "mode = 'quick'"),
    ],
)
def test_bad_ensembles(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Ensemble(**options)


# ----------------------------------------------------------------------------------------- E-LPIPS


def test_transformations_off_is_the_plain_distance(random_weights: Path) -> None:
    module = ELPIPS(ensemble=Ensemble.identity(), weights=random_weights)
    a, b = picture(), picture(seed=1)
    assert float(module(a, b)) == pytest.approx(float(second_distance(module, a, b)), rel=1e-4)


def second_distance(module: ELPIPS, a: Tensor, b: Tensor) -> Tensor:
    """The sum over taps written out."""
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    taps = [module.backbone(((2 * x - 1 - shift) / scale).movedim(-1, 1)) for x in (a, b)]
    total = torch.zeros(())
    for index, (fa, fb) in enumerate(zip(*taps, strict=True)):
        fa, fb = (f.double() / f.double().norm(dim=1, keepdim=True) for f in (fa, fb))
        head = module.get_buffer(f"head{index}").double()
        total = total + ((fa - fb) ** 2).mean((2, 3)) @ head
    return total


def test_same_seed_same_value(random_weights: Path) -> None:
    module = ELPIPS(draws=3, weights=random_weights)
    a, b = picture(batch=2), picture(batch=2, seed=1)
    first = module(a, b, generator=seeded())
    assert torch.equal(first, module(a, b, generator=seeded()))
    assert not torch.equal(first, module(a, b, generator=seeded(2)))
    torch.manual_seed(0)
    first = module(a, b)
    torch.manual_seed(0)
    assert torch.equal(first, module(a, b))


def test_dropout_is_shared_by_the_pair_only(random_weights: Path) -> None:
    """Equal images stay equal under it, and different draws get different masks."""
    only_dropout = Ensemble(1, 0, False, False, False, "none", dropout=0.3)
    module = ELPIPS(draws=4, ensemble=only_dropout, weights=random_weights)
    a, b = picture(), picture(seed=1)
    assert float(module(a, a)) == 0
    values = module.sets(a, b, generator=seeded())[:, 0]
    assert len(set(values.tolist())) == 4


def test_dropout_keeps_the_mean(random_weights: Path) -> None:
    drop: Any = ELPIPS(ensemble=Ensemble(dropout=0.25), weights=random_weights)._dropout(
        torch.device("cpu"), seeded()
    )
    masks = drop(torch.ones(4, 3, 200, 200))
    assert torch.equal(masks[:2], masks[2:])
    assert not torch.equal(masks[0], masks[1])
    assert masks.unique().tolist() == pytest.approx([0, 4 / 3])
    assert float(masks.mean()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_draws_do_not_depend_on_how_they_are_batched(
    random_weights: Path, mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dropout, whose masks are drawn in the order of the batches."""
    ensemble = Ensemble(scale_levels=2, dropout=0.0, mode=mode)
    module = ELPIPS(draws=7, ensemble=ensemble, weights=random_weights)
    a, b = picture(80, 96, batch=2), picture(80, 96, batch=2, seed=1)
    whole = module.sets(a, b, generator=seeded())
    assert whole.shape == (7, 2)
    monkeypatch.setattr("mitsuba_gdpt.metrics.elpips_distance._BATCH_PIXELS", {"cpu": 1})
    assert torch.allclose(whole, module.sets(a, b, generator=seeded()), rtol=1e-5)


def test_standard_error_is_that_of_repeated_estimates(random_weights: Path) -> None:
    """Stratified draws are not independent; the error has to be right nevertheless."""
    ensemble = Ensemble(scale_levels=1, mode="fast")
    module = ELPIPS(draws=40, ensemble=ensemble, weights=random_weights)
    a, b = with_noise(picture(40, 40), 0.2), picture(40, 40)
    with torch.no_grad():
        estimates = [module.estimate(a, b, generator=seeded(seed)) for seed in range(24)]
    spread = float(torch.cat([e.value for e in estimates]).std())
    errors = [float(e.standard_error) for e in estimates if e.standard_error is not None]
    assert len(errors) == 24
    claimed = math.sqrt(np.mean(np.square(errors)))
    # Relative deviation of the spread itself: 1 / sqrt(2 * 23), 15 %.
    assert 0.55 < claimed / spread < 1.8


def test_one_draw_has_no_standard_error(random_weights: Path) -> None:
    module = ELPIPS(draws=1, weights=random_weights)
    assert module.estimate(picture(), picture(seed=1)).standard_error is None
    linear = picture()
    single = metrics.elpips_estimate(linear, linear, draws=1, weights=random_weights)
    assert single.standard_error is None


def test_accumulator_is_the_function_of_the_whole(random_weights: Path) -> None:
    reference = picture(40, 40, batch=3)
    image = with_noise(reference, 0.2)
    options: Any = {"draws": 4, "weights": random_weights}
    value, error = metrics.elpips_estimate(image, reference, **options)
    parts = metrics.MeanELPIPS(**options)
    assert parts.standard_error is None
    parts.update(image[0], reference[0])
    parts.update(image[1:], reference[1:])
    assert float(parts.compute()) == pytest.approx(float(value), rel=1e-5)
    assert parts.standard_error == pytest.approx(float(error or 0), rel=1e-5)
    assert float(metrics.elpips(image, reference, **options)) == pytest.approx(float(value))
    whole = metrics.MeanLPIPS(weights=random_weights)
    whole.update(image, reference)
    expected = metrics.lpips(image, reference, weights=random_weights)
    assert float(whole.compute()) == pytest.approx(float(expected), rel=1e-6)


def test_merged_accumulators_pool_their_errors(random_weights: Path) -> None:
    reference = picture(40, 40)
    image = with_noise(reference, 0.2)
    a, b = (metrics.MeanELPIPS(draws=4, weights=random_weights) for _ in range(2))
    for metric in (a, b):
        metric.update(image, reference)
    before = a.standard_error
    a.merge(b)
    assert a.count == 2
    assert before is not None
    assert a.standard_error == pytest.approx(before / math.sqrt(2))
    one = metrics.MeanELPIPS(draws=1, weights=random_weights)
    one.update(image, reference)
    assert one.standard_error is None
    with pytest.raises(ConfigError, match="cannot merge"):
        a.merge(one)


def test_functions_take_linear_images(random_weights: Path) -> None:
    """They encode; the modules do not."""
    reference = 4 * picture(40, 40)
    image = 4 * with_noise(picture(40, 40), 0.1)
    shown = [metrics.encode_display(x) for x in (image, reference)]
    lpips = metrics.lpips(image, reference, network="alex", weights=random_weights)
    assert float(lpips) == pytest.approx(float(LPIPS("alex", weights=random_weights)(*shown)))
    module = ELPIPS(draws=3, weights=random_weights)
    for domain, inputs in (("display", shown), ("linear", [image, reference])):
        value = metrics.elpips(
            image, reference, draws=3, seed=9, domain=domain, weights=random_weights
        )  # type: ignore[call-overload]
        assert float(value) == pytest.approx(float(module(*inputs, generator=seeded(9))))


def test_table_reports_the_standard_error(
    random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = 4 * picture(32, 32)[0]
    image = 4 * with_noise(picture(32, 32), 0.1)[0]
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(random_weights))
    value = metrics.find("elpips")(image, reference)
    assert value.standard_error is not None
    assert 0 < value.standard_error < 0.2 * value.value
    again = metrics.find("elpips")(image, Reference(reference), weights=random_weights)
    assert again == value
    assert metrics.find("lpips-alex")(image, reference).standard_error is None


# ----------------------------------------------------------------------------------------- weights


def test_missing_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="mitsuba-gdpt weights elpips"):
        LPIPS()
    image = picture()[0]
    for name in ("lpips-squeeze", "elpips"):
        metric = metrics.find(name)
        assert isinstance(metric.obstacle(), WeightsError)
        with pytest.raises(WeightsError, match=f"set {ENVIRONMENT_VARIABLE} to a folder"):
            metric(image, image)
    with pytest.raises(WeightsError, match=r"nowhere \(argument\): no such folder"):
        LPIPS(weights=tmp_path / "nowhere")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match=rf"\({ENVIRONMENT_VARIABLE}\): no such folder"):
        ELPIPS()
    with pytest.raises(WeightsError, match=r"squeezenet1_1_features.safetensors: no such file"):
        ELPIPS(weights=tmp_path)


def test_damaged_weights(random_weights: Path, tmp_path: Path) -> None:
    for name in (*FEATURES.values(), HEADS):
        (tmp_path / name).write_bytes((random_weights / name).read_bytes())
    features, heads = tmp_path / FEATURES["squeeze"], tmp_path / HEADS
    whole = heads.read_bytes()
    save_file({"lpips_v0.1.squeeze.lin0": torch.rand(7)}, heads)
    with pytest.raises(WeightsError, match=r"squeeze.lin0: got shape \(7,\); expected .*\(64,\)"):
        LPIPS(weights=tmp_path)
    with pytest.raises(WeightsError, match=r"maxpool.lin0: got nothing; expected shape \(3,\)"):
        ELPIPS(weights=tmp_path)
    heads.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="no readable safetensors file: "):
        LPIPS(weights=tmp_path)
    state = SqueezeNet().state_dict()
    state["12.squeeze.bias"][3] = math.nan
    save_file(state, features)
    with pytest.raises(WeightsError, match=r"12\.squeeze\.bias contains NaN"):
        LPIPS(weights=tmp_path)
    del state["12.squeeze.bias"]
    save_file(state, features)
    with pytest.raises(WeightsError, match=r"does not fit SqueezeNet: (?s:.*)12\.squeeze\.bias"):
        LPIPS(weights=tmp_path)
