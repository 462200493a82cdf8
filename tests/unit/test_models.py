"""Neural methods: heads, consistency, KPCN against slow code, weights files, the registry."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from mitsuba_gdpt import denoise
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.decoding import decode
from mitsuba_gdpt.denoisers import find, load_weights
from mitsuba_gdpt.denoisers.learned import inference, methods, weights
from mitsuba_gdpt.denoisers.learned.dense import DenseModel, DenseModelConfig
from mitsuba_gdpt.denoisers.learned.features import Feature, InputConfig
from mitsuba_gdpt.denoisers.learned.kpcn import KPCN, KPCNConfig, preprocess
from mitsuba_gdpt.denoisers.learned.model import autocast
from mitsuba_gdpt.errors import ConfigError, LayoutError, NonFiniteError, WeightsError

LAYOUT = Layout.make(features=("diffuse", "specular"), variances=True)
SIZES: dict[str, Any] = {"growth": (4, 6), "units": (1, 1), "down": (6,), "up": (5,)}


def render(height: int = 12, width: int = 15, seed: int = 0) -> FrameBuffers:
    generator = torch.Generator().manual_seed(seed)
    data = torch.rand(height, width, LAYOUT.count, generator=generator)
    return FrameBuffers(data, LAYOUT)


def tiny(
    head: str = "direct", guides: tuple[str, ...] = (), *, measured: bool = False, **more: Any
) -> DenseModel:
    torch.manual_seed(0)
    features = (Feature("primal", "log1p"), Feature("dx", "signed-log1p"), Feature("albedo"))
    if measured:
        features += (Feature("primal.var", "sqrt-log1p"),)
    images = tuple(Feature("guide:" + guide, "log1p") for guide in guides)
    inputs = InputConfig((*features, *images), demodulate=True, exposure=True)
    return DenseModel(DenseModelConfig.make(inputs, head=head, guides=guides, **SIZES, **more))


def preset(name: str) -> DenseModel:
    """Return a model of its real size, not trained."""
    torch.manual_seed(0)
    return DenseModel(methods.PRESETS[name].config)


def save(model: Any, folder: Path, name: str = "ngpt-small") -> Path:
    return weights.save_weights(
        model, folder, name=name, tag="v1", recipe="none", commit="0", licence="BSD-3-Clause"
    )


class TestHeads:
    def test_blend_starts_near_its_first_guide(self) -> None:
        buffers = render()
        image = inference.reconstruct(tiny("blend", ("poisson-l2", "poisson-l1")), buffers)
        first = denoise(buffers, "poisson-l2").clamp_min(0)
        assert (image - first).abs().mean() < 0.1 * (first - buffers["primal"]).abs().mean()

    def test_firefly_does_not_leak_into_the_blend(self) -> None:
        buffers = render()
        buffers["primal"][:] = 1.0
        model = tiny("blend", ("poisson-l2",))
        clean = inference.reconstruct(model, buffers)
        data = buffers.data.clone()
        data[5, 5, LAYOUT.slices["primal"]] = 1000.0
        guide = denoise(buffers, "poisson-l2")[None, None]
        with torch.no_grad():
            image = model(data[None], LAYOUT, guide)[0]
        # A weighted mean of radiance would show exp(-6) of it, which is 2.5.
        assert (image - clean)[5, 5].abs().max() < 0.5

    def test_blend_can_choose_any_candidate(self) -> None:
        buffers, model = render(), tiny("blend", ("poisson-l2", "poisson-l1"))
        for index, method in enumerate(("poisson-l2", "poisson-l1", "none")):
            model.network.head.bias.data.zero_()
            model.network.head.bias.data[index] = 100
            image = inference.reconstruct(model, buffers)
            expected = denoise(buffers, method)
            lit = (expected > 0).all(-1)
            torch.testing.assert_close(image[lit], expected[lit], rtol=1e-4, atol=1e-4)

    def test_guides_have_options(self) -> None:
        buffers = render()
        (image,) = inference.guide_images(("poisson-l2,alpha=2.0",), buffers)
        assert torch.equal(image, denoise(buffers, "poisson-l2", alpha=2.0))

    def test_direct_head_is_a_logarithm(self) -> None:
        model, buffers = tiny(), render()
        for parameter in model.network.head.parameters():
            parameter.data.zero_()
        model.network.head.bias.data.fill_(1.0)
        prepared_scale = inference.reconstruct(model, buffers) / (buffers["albedo"] + 0.01)
        assert prepared_scale.std() < 1e-4 * prepared_scale.mean()  # (e - 1) / exposure
        assert prepared_scale.mean() > 0

    def test_fusion_reads_gradients_where_it_trusts_them(self) -> None:
        """With full weight an image without detail gets that of the gradients."""
        buffers = render()
        scene = buffers["primal"].clone()
        buffers["dx"].zero_(), buffers["dy"].zero_()
        buffers["dx"][:, :-1], buffers["dy"][:-1] = scene.diff(dim=1), scene.diff(dim=0)
        for name in ("dx.var", "dy.var"):
            buffers[name].zero_()
        model = tiny("fusion", ("none",))
        assert {"dx", "dy", "dx.var", "dy.var"} <= set(model.needs)
        flat = scene.mean((0, 1), keepdim=True).expand(1, 1, *scene.shape)

        def error(logit: float) -> float:
            model.network.head.bias.data[-2:] = logit
            with torch.no_grad():
                image = model(buffers.data[None], LAYOUT, flat)[0]
            return float((image - scene).square().mean())

        unfused = float((flat[0, 0] - scene).square().mean())
        assert error(-20) == pytest.approx(unfused, rel=0.05)
        assert error(0) < 0.5 * unfused
        assert error(20) < 0.1 * unfused

    def test_firefly_in_a_gradient_does_not_leak_into_the_fusion(self) -> None:
        buffers, model = render(), tiny("fusion", ("none",))
        for name in ("dx", "dy", "dx.var", "dy.var"):
            buffers[name].zero_()
        clean = inference.reconstruct(model, buffers)
        buffers["dx"][5, 5], buffers["dx.var"][5, 5] = 1000.0, 1000.0**2
        image = inference.reconstruct(model, buffers)
        assert 0 < (image - clean).abs().max() < 0.03  # 1000 / 9 without the prior

    def test_consistency_gate(self) -> None:
        """As the variance falls the result goes to the primal; with noise it is the network's."""
        buffers, guide = render(), ("poisson-l2",)
        free = inference.reconstruct(tiny("blend", guide, measured=True), buffers)
        gated = tiny("blend", guide, measured=True, consistency=0.005)
        assert "primal.var" in gated.needs
        errors = []
        for variance in (1e2, 1e-5, 1e-12):
            buffers["primal.var"].fill_(variance)
            image = inference.reconstruct(gated, buffers)
            errors.append(float((image - buffers["primal"]).abs().max()))
            if variance == 1e2:
                torch.testing.assert_close(image, free, rtol=1e-3, atol=1e-3)
        assert errors[0] > errors[1] > errors[2]
        assert errors[2] < 1e-4

    def test_consistency_gate_without_a_variance(self) -> None:
        """Where no variance is rendered, what the gradients say against the primal is the noise."""
        gated = tiny("blend", ("poisson-l2",), consistency=0.005)
        assert "primal.var" not in gated.needs
        assert {"primal", "dx", "dy"} <= set(gated.needs)
        buffers = render()
        free = inference.reconstruct(tiny("blend", ("poisson-l2",)), buffers)
        torch.testing.assert_close(
            inference.reconstruct(gated, buffers), free, rtol=1e-3, atol=1e-3
        )
        primal = buffers["primal"]
        buffers["dx"][:, :-1], buffers["dy"][:-1] = primal.diff(dim=1), primal.diff(dim=0)
        torch.testing.assert_close(inference.reconstruct(gated, buffers), primal)

    @pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (8, 8), (17, 30)])
    def test_any_size(self, height: int, width: int) -> None:
        buffers = render(height, width)
        for model in (tiny(), tiny("blend", ("none",), patch=2, consistency=0.01)):
            assert inference.reconstruct(model, buffers).shape == (height, width, 3)

    def test_tiles_are_chosen_by_the_budget(self) -> None:
        model, buffers = tiny(), render(120, 100)
        whole = inference.reconstruct(model, buffers)
        calls: list[tuple[int, ...]] = []
        model.network.register_forward_hook(lambda _, args, __: calls.append(args[0].shape[1:3]))
        tiled = inference.reconstruct(model, buffers, memory=300 * 40 * 40)
        assert len(calls) > 1
        torch.testing.assert_close(tiled, whole, rtol=1e-4, atol=1e-4)

    def test_impossible_combinations(self) -> None:
        inputs = InputConfig((Feature("primal", "log1p"),))
        with pytest.raises(ConfigError, match="needs at least one guide"):
            DenseModelConfig.make(inputs, head="blend", **SIZES)
        with pytest.raises(ConfigError, match="expected one of direct"):
            DenseModelConfig.make(inputs, head="x", **SIZES)
        good = DenseModelConfig.make(inputs, **SIZES)
        with pytest.raises(ConfigError, match="features and head need 3 and 3"):
            dataclasses.replace(good, network=dataclasses.replace(good.network, inputs=4))


@pytest.mark.parametrize("make", [tiny, lambda: preset("ngpt-small")], ids=["tiny", "ngpt-small"])
def test_agrees_with_cpu(make: Callable[[], DenseModel], device: torch.device) -> None:
    model, buffers = make(), render(33, 47)
    expected = inference.reconstruct(model, buffers, precision="float32")
    result = inference.reconstruct(model.to(device), buffers.to(device), precision="float32")
    assert result.device.type == device.type
    # The GPU may multiply in TF32 (10 bits of mantissa) where cuDNN convolves.
    assert (result.cpu() - expected).abs().mean() < 2e-3 * expected.abs().mean()


def test_bfloat16_is_close(device: torch.device) -> None:
    model, buffers = tiny().to(device), render().to(device)
    exact = inference.reconstruct(model, buffers, precision="float32")
    rough = inference.reconstruct(model, buffers, precision="bfloat16")
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    assert (rough - exact).abs().mean() < 0.02 * exact.abs().mean()
    with pytest.raises(ConfigError, match="precision is 'half'"), autocast("half", exact.device):
        pass


class TestKPCN:
    """Preprocessing and filtering against plain NumPy."""

    @staticmethod
    def slow_input(b: dict[str, NDArray[Any]], diffuse: bool) -> NDArray[Any]:
        def with_gradients(x: NDArray[Any], var: NDArray[Any]) -> list[NDArray[Any]]:
            height, width, channels = x.shape
            dx, dy = np.zeros_like(x), np.zeros_like(x)
            for i in range(height):
                for j in range(width):
                    for c in range(channels):
                        if j + 1 < width:
                            dx[i, j, c] = x[i, j + 1, c] - x[i, j, c]
                        if i + 1 < height:
                            dy[i, j, c] = x[i + 1, j, c] - x[i, j, c]
            return [x, dx, dy, var]

        if diffuse:
            factor = b["albedo"] + 0.00316
            part = b["diffuse"] / factor
            variance = b["diffuse.var"] / np.mean(factor**2, axis=-1, keepdims=True)
        else:
            part = np.log(1 + b["specular"])
            squared = np.mean((1 + b["specular"]) ** 2, axis=-1, keepdims=True)
            variance = b["specular.var"] / squared
        largest = b["depth"].max()
        return np.concatenate(
            [
                *with_gradients(part, variance),
                *with_gradients(b["normal"], b["normal.var"]),
                *with_gradients(b["depth"] / largest, b["depth.var"] / largest**2),
                *with_gradients(b["albedo"], b["albedo.var"]),
            ],
            axis=-1,
        )

    def test_preprocessing(self) -> None:
        buffers = render(5, 6)
        b = {name: buffers[name].double().numpy() for name in buffers.names}
        diffuse, specular, factor = preprocess(buffers.data[None], LAYOUT)
        np.testing.assert_allclose(diffuse[0], self.slow_input(b, True), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(specular[0], self.slow_input(b, False), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(factor[0], b["albedo"] + 0.00316, rtol=1e-6)
        assert diffuse.shape[-1] == KPCNConfig().network.inputs == 34

    def test_identity_kernels_give_the_input_back(self) -> None:
        model, buffers = KPCN(KPCNConfig(layers=2, width=4, filter=3, kernel=5)), render()
        for network in (model.diffuse, model.specular):
            for parameter in network[-1].parameters():
                parameter.data.zero_()
            network[-1].bias.data[12] = 100.0  # the centre
        image = inference.reconstruct(model, buffers)
        torch.testing.assert_close(image, buffers["diffuse"] + buffers["specular"])

    def test_tiles_give_the_same_image(self) -> None:
        torch.manual_seed(0)
        model, buffers = KPCN(KPCNConfig(layers=2, width=4, filter=3, kernel=5)), render(60, 50)
        whole = inference.reconstruct(model, buffers)
        tiled = inference.reconstruct(model, buffers, memory=600 * 20 * 20)
        # Beyond a tile a filter would repeat the border: only the overlap prevents it.
        torch.testing.assert_close(tiled, whole, rtol=1e-4, atol=1e-4)


class TestWeights:
    def test_round_trip(self, tmp_path: Path) -> None:
        model = tiny("blend", ("poisson-l2",), consistency=0.01)
        path = save(model, tmp_path)
        loaded = load_weights(path)
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        buffers = render()
        torch.testing.assert_close(
            inference.reconstruct(loaded, buffers), inference.reconstruct(model, buffers)
        )
        again, info = weights.read_weights(path)
        assert again.config == model.config == info.config
        expected = model.state_dict()
        assert all(torch.equal(t, expected[name]) for name, t in again.state_dict().items())
        assert (info.name, info.tag, info.arch) == ("ngpt-small", "v1", "dense-unet")
        assert save(model, tmp_path) == path  # the same contents have the same name

    @pytest.mark.parametrize("name", list(methods.PRESETS))
    def test_every_preset_survives_json(self, name: str) -> None:
        config = methods.PRESETS[name].config
        data = json.loads(json.dumps(dataclasses.asdict(config)))
        assert decode(type(config), data, "config") == config

    @pytest.mark.parametrize(
        "name", ["ngpt-small", "ngpt-fusion", "kpcn-small", "rdae", "ngpt-oidn"]
    )
    def test_parameters_are_made_up_once_at_most(self, name: str) -> None:
        """Random values on the meta device, which has none, make torch import its compiler."""
        drawn = []

        class Watch(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                if "normal" in str(func) or "uniform" in str(func):
                    drawn.append(args[0].device.type)
                return func(*args, **(kwargs or {}))

        with Watch():
            load_weights(name)
        assert set(drawn) <= {"cpu"}

    def test_changed_renamed_and_truncated_files(self, tmp_path: Path) -> None:
        path = save(tiny(), tmp_path)
        contents = path.read_bytes()
        flipped = bytearray(contents)
        flipped[-1] ^= 1
        path.write_bytes(bytes(flipped))
        with pytest.raises(WeightsError, match="damaged or was changed"):
            load_weights(path)
        path.write_bytes(contents[:100])
        with pytest.raises(WeightsError, match="damaged or was changed"):
            load_weights(path)
        other = tmp_path / "mine.safetensors"
        other.write_bytes(contents)
        with pytest.raises(WeightsError, match="not named as weights are"):
            load_weights(other)
        with pytest.raises(WeightsError, match="no such file"):
            load_weights(tmp_path / "ngpt-v1-00000000.safetensors")

    def test_folder_of_a_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "run").mkdir()
        with pytest.raises(WeightsError, match=r"run has no file .* expected one file of weights"):
            weights.find_weights("run")
        kept = save(tiny(), tmp_path / "run")
        for word in ("run", tmp_path / "run", "./run"):
            assert weights.find_weights(word).samefile(kept)
        (tmp_path / "run" / "other.safetensors").touch()
        with pytest.raises(WeightsError, match=r"run has .*other\.safetensors; expected one file"):
            weights.find_weights("run")
        (tmp_path / "ngpt-fusion").mkdir()  # names of methods come first
        assert weights.find_weights("ngpt-fusion").is_file()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"format_version": "2"}, "format version 2"),
            ({"arch": "u-net"}, "unknown architecture"),
            ({"config": '{"depth": 3}'}, "no entry depth"),
            ({"licence": None}, "no licence in the metadata"),
            ({"config": None}, "no config in the metadata"),
        ],
    )
    def test_bad_metadata(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        contents = save(tiny(), tmp_path).read_bytes()
        with pytest.raises(WeightsError, match=message):
            load_weights(self.forge(tmp_path, contents, change))

    def test_tensors_must_fit(self, tmp_path: Path) -> None:
        contents = save(tiny(), tmp_path).read_bytes()
        config = json.loads(json.dumps(dataclasses.asdict(tiny(pool="average").config)))
        forged = self.forge(tmp_path, contents, {"config": json.dumps(config)})
        with pytest.raises(WeightsError, match="do not fit the configuration"):
            load_weights(forged)

    @staticmethod
    def forge(folder: Path, contents: bytes, change: dict[str, Any]) -> Path:
        """Change metadata and give the file the name that goes with it."""
        size = int.from_bytes(contents[:8], "little")
        header = json.loads(contents[8 : 8 + size])
        header["__metadata__"].update({k: v for k, v in change.items() if v is not None})
        for key in (k for k, v in change.items() if v is None):
            del header["__metadata__"][key]
        text = json.dumps(header).encode()
        forged = len(text).to_bytes(8, "little") + text + contents[8 + size :]
        path = folder / f"forged-v1-{weights._hash(forged)}.safetensors"
        path.write_bytes(forged)
        return path

    def test_parameters_that_are_not_finite_are_not_loaded(self, tmp_path: Path) -> None:
        path = save(tiny(), tmp_path)
        contents = bytearray(path.read_bytes())
        contents[-4:] = b"\x00\x00\xc0\x7f"
        forged = self.forge(tmp_path, bytes(contents), {})
        with pytest.raises(WeightsError, match=f"{forged.name}: NaN or infinity in 1 of"):
            load_weights(forged)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"consistency": math.nan}, "the number nan"),
            ({"consistency": 1e300}, "the number 1e"),
            ({"network": {"units": [10**9] * 4}}, "the number 1e"),
            ({"network": {"growth": [1] * 1000}}, "a list of 1000"),
            ({"network": {"growth": [2000] * 2}}, "do not fit the configuration"),
        ],
    )
    def test_configurations_that_make_no_sense(
        self, tmp_path: Path, change: dict[str, Any], message: str
    ) -> None:
        model = tiny("blend", ("poisson-l2",))
        config = json.loads(json.dumps(dataclasses.asdict(model.config)))
        for key, value in change.items():
            config[key] = {**config[key], **value} if isinstance(value, dict) else value
        contents = save(model, tmp_path).read_bytes()
        forged = self.forge(tmp_path, contents, {"config": json.dumps(config)})
        with pytest.raises(WeightsError, match=message) as caught:
            load_weights(forged)
        assert forged.name in str(caught.value)

    def test_malformed_headers(self, tmp_path: Path) -> None:
        contents = save(tiny(), tmp_path).read_bytes()
        size = int.from_bytes(contents[:8], "little")
        header, tensors = contents[8 : 8 + size], contents[8 + size :]
        digits = b'{"__metadata__": {"name": ' + b"9" * 6000 + b"}}"
        headers = [b"", b"null", b"[]", b"[" * 200_000, b'{"a":' * 100_000, digits]
        headers += [header.replace(b'"shape":[', b'"shape":[9' + b"0" * 20 + b","), header[:-9]]
        headers += [header.replace(b'"F32"', word) for word in (b'"F64"', b'"X"', b"3")]
        forged = [len(text).to_bytes(8, "little") + text + tensors for text in headers]
        forged += [length.to_bytes(8, "little") + contents[8:] for length in (0, 1, 2**40, 2**63)]
        for data in [*forged, *(contents[:end] for end in (0, 4, 8, 60, size, len(contents) - 1))]:
            path = tmp_path / f"forged-v1-{weights._hash(data)}.safetensors"
            path.write_bytes(data)
            with pytest.raises(WeightsError) as caught:
                load_weights(path)
            assert path.name in str(caught.value)
            assert "\n" not in str(caught.value)
            assert len(str(caught.value)) < 1000

    def test_contain_no_absolute_path(self, tmp_path: Path) -> None:
        recipe = json.dumps({"data": ["/home/me/a/x.zarr", "sets/y.zarr"], "to": "~/z/w.zarr"})
        told = {"trained_on": "C:\\Users\\me\\x.zarr, https://example.org/y"}
        options: dict[str, Any] = {
            "name": "ngpt-small",
            "tag": "v1",
            "commit": "",
            "licence": "MIT",
        }
        path = weights.save_weights(tiny(), tmp_path, recipe=recipe, metadata=told, **options)
        metadata = weights.read_weights(path)[1].metadata
        kept = json.loads(metadata["recipe"])
        assert kept["data"] == ["x.zarr", "sets/y.zarr"]
        assert kept["to"] == "w.zarr"
        assert metadata["trained_on"] == "x.zarr, https://example.org/y"
        assert not any(word in str(metadata) for word in ("home", "Users", "~"))
        model = tiny("blend", ("ngpt-small,weights=/home/me/x-v1-00000000.safetensors",))
        with pytest.raises(ConfigError, match="/home/me/x"):
            weights.save_weights(model, tmp_path, recipe="", **options)

    def test_non_finite_parameters_are_not_saved(self, tmp_path: Path) -> None:
        model = tiny()
        model.network.head.bias.data[0] = float("nan")
        with pytest.raises(WeightsError, match=r"not finite: network\.head\.bias"):
            save(model, tmp_path)
        assert not list(tmp_path.iterdir())


def test_memory_belongs_to_a_call(tmp_path: Path) -> None:
    """Calls with other budgets at the same time share a cached model, and nothing else."""
    path = save(tiny(), tmp_path)
    buffers = render(40, 44)

    def refused(budget: float) -> list[bool]:
        result = []
        for _ in range(20):
            try:
                denoise(buffers, "ngpt-small", weights=path, memory=budget, precision="float32")
            except ConfigError:
                result.append(True)
            else:
                result.append(False)
        return result

    with ThreadPoolExecutor(4) as pool:
        enough, least, none, no_number = pool.map(refused, (2.0**31, 300 * 40 * 40, 1.0, math.nan))
    assert not any(enough + least)
    assert all(none + no_number)


class TestMethods:
    def test_shipped_weights_by_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(weights, "folders", lambda: [tmp_path])
        method = find("ngpt-small")
        assert isinstance(method.obstacle, WeightsError)
        assert "mitsuba-gdpt train ngpt-small" in str(method.obstacle)
        path = save(tiny(), tmp_path)
        save(tiny(), tmp_path, name="ngpt-small-l1")  # another method's
        assert method.available
        image = denoise(render(), "ngpt-small")
        torch.testing.assert_close(image, denoise(render(), "ngpt-small", weights=str(path)))
        torch.manual_seed(1)
        save(tiny(head="blend", guides=("none",)), tmp_path)
        assert "2 files" in str(method.obstacle)

    def test_weights_option_works_without_shipped_ones(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(weights, "folders", list)
        path = save(tiny(), tmp_path)
        assert denoise(render(), "ngpt", weights=str(path)).shape == (12, 15, 3)
        with pytest.raises(WeightsError, match="no weights for"):
            denoise(render(), "ngpt")

    def test_needs_of_other_weights_are_checked(self, tmp_path: Path) -> None:
        model = tiny("blend", ("none",), measured=True, consistency=0.01)
        path = save(model, tmp_path)
        plain = FrameBuffers(torch.rand(8, 8, 16), Layout.make())
        with pytest.raises(LayoutError, match=r"primal\.var"):
            denoise(plain, "ngpt-small", weights=str(path))
        buffers = render()
        buffers["primal.var"][0, 0] = float("nan")
        with pytest.raises(NonFiniteError, match=r"primal\.var"):
            denoise(buffers, "ngpt-small", weights=str(path))

    def test_twins_differ_by_gradients_only(self) -> None:
        for name in ("ngpt", "ngpt-l1", "ngpt-small", "ngpt-small-l1"):
            needs, twin = (
                set(methods.PRESETS[preset].config.needs) for preset in (name, name + "-nograd")
            )
            assert needs - twin == {"dx", "dy"}
        assert not {"dx", "dy"} & set(find("ngpt-oidn-nograd").needs)


def test_calls_in_threads_keep_apart() -> None:
    """They share one model; how much memory each may use must not reach the others."""
    model, buffers = tiny(), render(120, 100)
    here, tiles = threading.local(), set()
    model.network.register_forward_hook(
        lambda _, inputs, __: tiles.add((here.memory, len(inputs[0][0])))
    )

    def reconstruct(memory: float) -> torch.Tensor:
        here.memory = memory
        return inference.reconstruct(model, buffers, memory=memory)

    memories = [2.0**30, 300.0 * 40 * 40] * 6
    alone = {memory: reconstruct(memory) for memory in memories[:2]}
    rows = set(tiles)
    assert max(size for memory, size in rows if memory == memories[1]) < 120 < max(rows)[1]
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(reconstruct, memories))
    assert tiles == rows
    assert all(torch.equal(image, alone[m]) for m, image in zip(memories, images, strict=True))
