"""Writing the folder of weights that LPIPS and E-LPIPS need; ``mitsuba-gdpt weights elpips``.

Backbones come from the installed torchvision, which downloads them. The weights of their channels
come from the installed package ``lpips`` and, for E-LPIPS, from a checkout of
https://github.com/mkettune/elpips. Nothing of this is imported by the rest of the package.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from mitsuba_gdpt.errors import FormatError, MissingDependencyError, WeightsError
from mitsuba_gdpt.files import replace_file
from mitsuba_gdpt.metrics.backbones import AlexNet, Backbone, SqueezeNet
from mitsuba_gdpt.metrics.weights import FEATURES, HEADS

_BUILDERS = {"squeeze": "squeezenet1_1", "alex": "alexnet"}
_ELPIPS_FILE = Path("elpips", "squeeze_full_maxpool.npy")
_LICENCE = (
    "torchvision (BSD-3-Clause code); the weights may carry the terms of their training data, "
    "ImageNet-1k"
)


def export(folder: Path, elpips: Path | None = None) -> list[Path]:
    """Write the files.

    Args:
        folder: Created if it does not exist; files in it are replaced.
        elpips: A checkout of the E-LPIPS repository; None leaves its heads out.

    Returns:
        The paths written.

    Raises:
        MissingDependencyError: torchvision or lpips is not installed.
        WeightsError: What they hold is not what was expected.
        FormatError: A file cannot be written.
    """
    models = optional_for_export("torchvision").models
    states = {
        network: getattr(models, builder)(weights="IMAGENET1K_V1").features.state_dict()
        for network, builder in _BUILDERS.items()
    }
    heads = lpips_heads(_lpips_folder())
    if elpips is not None:
        heads |= elpips_heads(elpips / _ELPIPS_FILE)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FormatError(f"{folder}: cannot make this folder: {error}") from error
    paths = [save_features(state, network, folder) for network, state in states.items()]
    return [*paths, save_heads(heads, folder)]


def optional_for_export(package: str) -> Any:
    """Import a package that no extra of this one brings.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependencyError(f"{error}; run: pip install torchvision lpips") from error


def save_features(state: Mapping[str, Tensor], network: str, folder: Path) -> Path:
    """Write the ``features`` of a torchvision network, after checking that they fit.

    Args:
        state: ``model.features.state_dict()``.
        network: ``"squeeze"`` or ``"alex"``.
        folder: Where to.

    Raises:
        WeightsError: Tensors are missing, too many, or of another shape.
    """
    backbone: Backbone = SqueezeNet() if network == "squeeze" else AlexNet()
    try:
        backbone.load_state_dict(dict(state))
    except RuntimeError as error:
        raise WeightsError(f"torchvision's {_BUILDERS[network]} does not fit: {error}") from error
    source = f"torchvision {_BUILDERS[network]} IMAGENET1K_V1, features"
    return _save(backbone.state_dict(), folder / FEATURES[network], source, _LICENCE)


def save_heads(heads: Mapping[str, Tensor], folder: Path) -> Path:
    """Write the weights of the taps' channels, (C,) each."""
    return _save(heads, folder / HEADS, "lpips v0.1; mkettune/elpips", "BSD-2-Clause")


def lpips_heads(folder: Path) -> dict[str, Tensor]:
    """Read version 0.1 of the package ``lpips``.

    Args:
        folder: Its ``weights/v0.1``.

    Raises:
        WeightsError: A file is missing or holds something else.
    """
    heads: dict[str, Tensor] = {}
    for network in FEATURES:
        path = folder / f"{network}.pth"
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise WeightsError(f"{path}: cannot be read: {error}") from error
        heads |= _flatten(state, f"lpips_v0.1.{network}", path)
    return heads


def elpips_heads(path: Path) -> dict[str, Tensor]:
    """Read the file of E-LPIPS's authors: a pickled dictionary of arrays inside an ``.npy``.

    Only arrays are unpickled, nothing that runs code.

    Raises:
        WeightsError: The file is missing or holds something else.
    """
    try:
        file = io.BytesIO(path.read_bytes())
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        content = _ArrayUnpickler(file, encoding="latin1").load().item()
        state = {name: torch.as_tensor(np.array(value)) for name, value in content.items()}
    except (OSError, ValueError, AttributeError, TypeError, pickle.UnpicklingError) as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error
    # Theirs are (1, 1, C, 1), in the order of TensorFlow's convolutions.
    return _flatten(state, "elpips.squeeze_full_maxpool", path)


class _ArrayUnpickler(pickle.Unpickler):
    _ALLOWED = frozenset({"_reconstruct", "ndarray", "dtype", "scalar"})

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):  # how protocol 2 stores bytes
            return lambda text, encoding: text.encode("latin1")
        if module.split(".")[0] != "numpy" or name not in self._ALLOWED:
            raise pickle.UnpicklingError(f"refused to load {module}.{name}")
        return super().find_class(module, name)


def _flatten(state: Mapping[str, Tensor], prefix: str, path: Path) -> dict[str, Tensor]:
    heads = {}
    for index in range(len(state)):
        name = f"lin{index}.model.1.weight"
        if name not in state:
            raise WeightsError(f"{path}: got {', '.join(state)}; expected {name}")
        heads[f"{prefix}.lin{index}"] = state[name].float().flatten().contiguous()
    return heads


def _lpips_folder() -> Path:
    spec = importlib.util.find_spec("lpips")  # importing it would need torchvision's operators
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("the package 'lpips' is not installed; run: pip install lpips")
    return Path(spec.submodule_search_locations[0], "weights", "v0.1")


def _save(tensors: Mapping[str, Tensor], path: Path, source: str, licence: str) -> Path:
    contents = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"source": source, "licence": licence}
    replace_file(path, lambda temporary: save_file(contents, temporary, metadata))
    return path
