"""Weights of the learned metrics: where they are looked for, and what must be in them.

They are not part of the package: the backbones were trained on ImageNet, whose terms travel with
them. A folder holds

* ``squeezenet1_1_features.safetensors``, ``alexnet_features.safetensors``: the state dictionary of
  ``features`` of torchvision's networks (``IMAGENET1K_V1``);
* ``lin_weights.safetensors``: per tap the weights of the channels, ``<heads>.lin0``, ...; ``heads``
  is ``lpips_v0.1.squeeze``, ``lpips_v0.1.alex`` or ``elpips.squeeze_full_maxpool``.

``python -m mitsuba_gdpt.metrics.export_weights FOLDER`` writes such a folder from torchvision and
the packages of the metrics' authors.
"""

from __future__ import annotations

import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mitsuba_gdpt.errors import WeightsError
from mitsuba_gdpt.metrics.backbones import Backbone

ENVIRONMENT_VARIABLE = "MITSUBA_GDPT_PERCEPTUAL_WEIGHTS"
FEATURES = {
    "squeeze": "squeezenet1_1_features.safetensors",
    "alex": "alexnet_features.safetensors",
}
HEADS = "lin_weights.safetensors"

_REMEDY = (
    f"Set {ENVIRONMENT_VARIABLE} to a folder of such files, or pass weights=FOLDER. To make one, "
    "where torchvision may download: pip install torchvision lpips; "
    "python -m mitsuba_gdpt.metrics.export_weights FOLDER"
)


def find_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of weights: the argument, or that of the environment variable.

    Raises:
        WeightsError: Neither is given, or it is no folder.
    """
    source = folder if folder is not None else os.environ.get(ENVIRONMENT_VARIABLE)
    if not source:
        raise WeightsError(f"no weights for LPIPS and E-LPIPS are known. {_REMEDY}")
    path = Path(source)
    if not path.is_dir():
        origin = "argument" if folder is not None else ENVIRONMENT_VARIABLE
        raise WeightsError(f"{path} ({origin}): no such folder of weights. {_REMEDY}")
    return path


def load_features(backbone: Backbone, network: str, folder: Path) -> None:
    """Fill a backbone, strictly.

    Raises:
        WeightsError: The file is missing or damaged, or has other tensors.
    """
    path = folder / FEATURES[network]
    state = _load(path)
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path}: does not fit {type(backbone).__name__}: {error}") from error


def load_heads(heads: str, channels: tuple[int, ...], folder: Path) -> list[Tensor]:
    """Read the weights of the channels of each tap, (C,) each.

    Raises:
        WeightsError: The file is missing or damaged, or lacks these heads in these sizes.
    """
    path = folder / HEADS
    state = _load(path)
    loaded = []
    for index, count in enumerate(channels):
        name = f"{heads}.lin{index}"
        if name not in state or state[name].shape != (count,):
            got = f"shape {tuple(state[name].shape)}" if name in state else "nothing"
            raise WeightsError(f"{path}: {name}: got {got}; expected shape ({count},). {_REMEDY}")
        loaded.append(state[name])
    return loaded


def _load(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file. {_REMEDY}")
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: no readable safetensors file: {error}. {_REMEDY}") from error
    for name, tensor in state.items():
        if not bool(tensor.isfinite().all()):
            raise WeightsError(f"{path}: {name} contains NaN or infinity; the file is damaged")
    return state
