"""Weights of the learned metrics: where they are looked for, and what must be in them.

They are not part of the package: the backbones were trained on ImageNet, whose terms travel with
them. A folder holds

* ``squeezenet1_1_features.safetensors``, ``alexnet_features.safetensors``: the state dictionary of
  ``features`` of torchvision's networks (``IMAGENET1K_V1``);
* ``lin_weights.safetensors``: per tap the weights of the channels, ``<heads>.lin0``, ...; ``heads``
  is ``lpips_v0.1.squeeze``, ``lpips_v0.1.alex`` or ``elpips.squeeze_full_maxpool``.

``mitsuba-gdpt weights elpips`` writes such a folder from torchvision and the packages of the
metrics' authors, to :func:`default_folder` if no other is named.
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
    "To make them, where torchvision may download: pip install torchvision lpips; "
    "git clone https://github.com/mkettune/elpips; mitsuba-gdpt weights elpips --heads elpips. "
    f"Or set {ENVIRONMENT_VARIABLE} to a folder of such files, or pass weights=FOLDER"
)


def default_folder() -> Path:
    """Return where weights are looked for if nobody says: in the user's data."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "mitsuba-gdpt" / "perceptual"


def find_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of weights.

    The argument, or that of the environment variable, or :func:`default_folder`.

    Raises:
        WeightsError: It does not exist.
    """
    for source, origin in (
        (folder, "argument"),
        (os.environ.get(ENVIRONMENT_VARIABLE) or None, ENVIRONMENT_VARIABLE),
    ):
        if source is not None:
            if not (path := Path(source)).is_dir():
                raise WeightsError(f"{path} ({origin}): no such folder of weights. {_REMEDY}")
            return path
    if not (path := default_folder()).is_dir():
        raise WeightsError(f"no weights for LPIPS and E-LPIPS are known. {_REMEDY}")
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
