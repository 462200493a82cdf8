"""Checkpoints of the original NGPT, https://github.com/mkettune/ngpt, as weights of this one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from mitsuba_gdpt.denoisers.learned.dense import DenseModel
from mitsuba_gdpt.denoisers.learned.networks import DenseUNetConfig
from mitsuba_gdpt.denoisers.learned.weights import make_model, save_weights
from mitsuba_gdpt.errors import WeightsError
from mitsuba_gdpt.training.config import load_config
from mitsuba_gdpt.training.tensor_bundle import read_bundle

_SCOPE = "model/reconstruct/"
#: Of filters: (rows, columns, inputs, outputs), of transposed ones outputs before inputs.
_FILTER, _TRANSPOSED = (3, 2, 0, 1), (2, 3, 0, 1)


def convert_checkpoint(path: Path, folder: Path, recipe: str, *, tag: str = "original") -> Path:
    """Write a checkpoint of the original as weights.

    Args:
        path: What the files of the checkpoint begin with.
        folder: Where the weights go.
        recipe: Which configuration it is of: ``"ngpt-100"`` to ``"ngpt-106"``.
        tag: Version of the weights, part of their file name.

    Returns:
        The file of the weights.

    Raises:
        FormatError: The checkpoint is missing or damaged.
        ConfigError: There is no such recipe.
        WeightsError: It is of another configuration.
    """
    # What is trained on, and where, does not matter here.
    config = load_config(None, {"method": recipe, "data": ["unknown"], "output": str(folder)})
    model = make_model(config.model)
    if not isinstance(model, DenseModel):
        raise WeightsError(f"{recipe} is no configuration of NGPT; expected ngpt-100 to ngpt-106")
    tensors = read_bundle(path)
    state = _state(tensors, model, path)
    model.load_state_dict(state)
    return save_weights(
        model,
        folder,
        name=config.method,
        tag=tag,
        recipe=json.dumps({"recipe": recipe, "checkpoint": path.name}),
        commit="unknown",
        licence="BSD-2-Clause",
        metadata={"trained_on": "the training set of the original"},
    )


def variables(config: DenseUNetConfig) -> Iterator[tuple[str, str, bool]]:
    """Yield the layers of a dense U-Net: name here, name in the original, whether transposed."""
    levels = range(len(config.growth))
    for level in levels:
        for unit in range(config.units[level]):
            for side, scope in (("encoders", "E"), ("decoders", "D")):
                for part, name in (("reduce", "Bottleneck"), ("filter", "Conv0")):
                    ours = f"{side}.{level}.{unit}.{part}"
                    yield ours, f"{scope}{level}_Unit{unit}_{name}", False
    for level in levels[:-1]:
        yield f"pools.{level}.layer", f"E{level}_pool", False
        yield f"unpools.{level}.layer", f"D{level}_unpool", config.unpool == "conv"
    yield "head", "R0_RGB", False


def _state(
    tensors: Mapping[str, NDArray[Any]], model: DenseModel, path: Path
) -> dict[str, torch.Tensor]:
    expected = model.state_dict()
    state = {}
    for ours, theirs, transposed in variables(model.config.network):
        for part, letter in (("weight", "W"), ("scale", "s"), ("bias", "b")):
            key, name = f"network.{ours}.{part}", f"{_SCOPE}{theirs}_{letter}"
            if name not in tensors:
                raise WeightsError(f"{path}: no variable {name}; it is of another configuration")
            values = torch.from_numpy(tensors[name]).float()
            if part == "weight":
                values = values.permute(_TRANSPOSED if transposed else _FILTER)
            elif part == "scale":
                values = values.flatten()
            if values.shape != expected[key].shape:
                raise WeightsError(
                    f"{path}: {name} has the shape {tensors[name].shape}, which does not fit; "
                    f"expected that of {key}, {tuple(expected[key].shape)}. It is of another "
                    f"configuration"
                )
            state[key] = values.contiguous()
    return state
