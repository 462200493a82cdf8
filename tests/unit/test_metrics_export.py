"""Perceptual weights by their command, with stand-ins for torchvision and others' packages."""

from __future__ import annotations

import importlib.machinery
import os
import pickle
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from mitsuba_gdpt.cli import main
from mitsuba_gdpt.errors import MissingDependencyError, WeightsError
from mitsuba_gdpt.metrics import ELPIPS, LPIPS, export_weights
from mitsuba_gdpt.metrics.backbones import AlexNet, SqueezeNet
from mitsuba_gdpt.metrics.weights import FEATURES, HEADS


def elpips_file(folder: Path, content: Any) -> Path:
    path = folder / "elpips" / "squeeze_full_maxpool.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, content, allow_pickle=True)
    return folder


def elpips_content() -> dict[str, Any]:
    return {
        f"lin{i}.model.1.weight": np.random.default_rng(i).random((1, 1, c, 1), np.float32)
        for i, c in enumerate(SqueezeNet(every_layer=True).channels)
    }


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Fake torchvision and lpips, with weights of the right shapes."""
    networks: dict[str, Any] = {"squeezenet1_1": SqueezeNet(), "alexnet": AlexNet()}

    def build(name: str) -> Any:
        def builder(*, weights: str) -> Any:
            assert weights == "IMAGENET1K_V1"
            return SimpleNamespace(features=networks[name])

        return builder

    torchvision = ModuleType("torchvision")
    torchvision.models = SimpleNamespace(**{name: build(name) for name in networks})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    lpips = ModuleType("lpips")
    lpips.__spec__ = importlib.machinery.ModuleSpec("lpips", None, is_package=True)
    lpips.__spec__.submodule_search_locations = [str(tmp_path / "lpips")]
    monkeypatch.setitem(sys.modules, "lpips", lpips)
    heads = tmp_path / "lpips" / "weights" / "v0.1"
    heads.mkdir(parents=True)
    for network, backbone in (("squeeze", SqueezeNet()), ("alex", AlexNet())):
        state = {
            f"lin{i}.model.1.weight": torch.rand(1, c, 1, 1)
            for i, c in enumerate(backbone.channels)
        }
        torch.save(state, heads / f"{network}.pth")
    return networks


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["weights", "elpips", *map(str, words)])
    return int(stop.value.code or 0)


def test_whole_folder(
    packages: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkout = elpips_file(tmp_path / "checkout", elpips_content())
    out = tmp_path / "new" / "weights"
    assert run(out, "--heads", checkout) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:-1] == [f"wrote {out / name}" for name in (*FEATURES.values(), HEADS)]
    assert printed[-1] == f"set MITSUBA_GDPT_PERCEPTUAL_WEIGHTS={out}"
    image, reference = torch.rand(2, 1, 32, 32, 3)
    for module in (LPIPS("squeeze", weights=out), LPIPS("alex", weights=out), ELPIPS(weights=out)):
        assert float(module(image, reference)) > 0
    loaded = LPIPS(weights=out).backbone.state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in packages["squeezenet1_1"].state_dict().items())
    with safe_open(out / FEATURES["squeeze"], "pt") as file:
        assert "ImageNet" in file.metadata()["licence"]


def test_without_elpips(
    packages: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "weights"
    assert run(out) == 0
    assert "without E-LPIPS" in capsys.readouterr().out
    LPIPS(weights=out)
    with pytest.raises(WeightsError, match=r"squeeze_full_maxpool\.lin0: got nothing"):
        ELPIPS(weights=out)


def test_default_folder_is_found(
    packages: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("MITSUBA_GDPT_PERCEPTUAL_WEIGHTS", raising=False)
    with pytest.raises(WeightsError, match="mitsuba-gdpt weights elpips"):
        ELPIPS()
    assert run("--heads", elpips_file(tmp_path / "checkout", elpips_content())) == 0
    ELPIPS()


def test_missing_packages(
    packages: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(MissingDependencyError, match="pip install lpips"):
        export_weights.export(tmp_path / "out")
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert run(tmp_path / "out") == 1
    assert "pip install torchvision lpips" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_network_is_refused(packages: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="torchvision's alexnet does not fit"):
        export_weights.save_features(SqueezeNet().state_dict(), "alex", tmp_path)
    assert list(tmp_path.glob("*.safetensors")) == []


@pytest.mark.parametrize("protocol", [2, 4])
def test_elpips_file_is_flattened(tmp_path: Path, protocol: int) -> None:
    """The authors' file has protocol 2, NumPy of today writes a later one."""
    content = elpips_content()
    array = np.empty((), dtype=object)
    array[()] = content
    path = tmp_path / "heads.npy"
    with path.open("wb") as file:
        header = {"descr": "|O", "fortran_order": False, "shape": ()}
        np.lib.format.write_array_header_1_0(file, header)
        pickle.dump(array, file, protocol=protocol)
    heads = export_weights.elpips_heads(path)
    assert list(heads) == [f"elpips.squeeze_full_maxpool.lin{i}" for i in range(10)]
    assert np.array_equal(
        heads["elpips.squeeze_full_maxpool.lin3"].numpy(), content["lin3.model.1.weight"].ravel()
    )


class Malicious:
    def __reduce__(self) -> Any:
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Malicious(), "refused to load posix.mkdir"),
        ({"weights": np.ones(3)}, r"expected lin0\.model\.1\.weight"),
        ([1, 2], "cannot be read"),
    ],
)
def test_bad_elpips_files(
    tmp_path: Path, content: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    array = np.empty((), dtype=object)
    array[()] = content
    checkout = elpips_file(tmp_path, array)
    with pytest.raises(WeightsError, match=message):
        export_weights.elpips_heads(checkout / "elpips" / "squeeze_full_maxpool.npy")
    assert not (tmp_path / "pwned").exists()


def test_bad_lpips_files(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"squeeze\.pth: cannot be read"):
        export_weights.lpips_heads(tmp_path)
    torch.save({"lin0": torch.ones(1, 64, 1, 1)}, tmp_path / "squeeze.pth")
    with pytest.raises(WeightsError, match=r"got lin0; expected lin0\.model"):
        export_weights.lpips_heads(tmp_path)
