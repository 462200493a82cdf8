"""Parameters of the plugin: what is refused, how they print, and that the manual lists them."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.errors import ConfigError
from mitsuba_gdpt.integrators.parameters import Parameters

MANUAL = Path(__file__).parents[2] / "docs" / "reference" / "integrator.md"

#: Another legal value of each parameter.
OTHER = {
    "max_depth": 7,
    "rr_depth": 4,
    "hide_emitters": True,
    "shifts": 2,
    "features": "position,roughness",
    "variances": True,
    "shared_subpixel": False,
    "stratified": False,
    "emitter_importance": False,
    "features_only": True,
    "max_lanes": 1000,
    "freeze": True,
}


def test_every_parameter_is_described_and_part_of_the_key() -> None:
    assert set(OTHER) == set(Parameters.defaults())
    default = Parameters()
    for name, value in OTHER.items():
        changed = replace(default, **{name: value})
        assert changed != default
        assert hash(changed) != hash(default)
        expected = f'"{value}"' if isinstance(value, str) else str(value)
        assert f"  {name} = {expected}" in str(changed)
        assert f" * - {name}\n" in Parameters.plugin_parameters()


def test_the_manual_is_that_of_the_parameters() -> None:
    assert Parameters.table() in MANUAL.read_text()


def test_one_default_of_shifts() -> None:
    """Of the plugin, data sets and commands; an evaluation's default is that of the plugin."""
    from mitsuba_gdpt.cli import dataset, evaluate
    from mitsuba_gdpt.data.frame_plan import FrameSettings
    from mitsuba_gdpt.data.plan import CropPlan

    commands = (dataset.crops, dataset.frames, evaluate.evaluate)
    defaults = [inspect.signature(command).parameters["shifts"].default for command in commands]
    defaults += [FrameSettings.shifts, CropPlan.shifts, Parameters().shifts]
    assert set(defaults) == {1}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_depth", -2, "-1 (infinite) to 2147483647"),
        ("max_depth", 2.5, "a whole number"),
        ("max_depth", 3.0, "a whole number"),
        ("max_depth", float("nan"), "a whole number"),
        ("max_depth", 2**31, "to 2147483647"),
        ("max_depth", True, "a whole number"),
        ("max_depth", "3", "a whole number"),
        ("rr_depth", 0, "1 to"),
        ("rr_depth", float("inf"), "a whole number"),
        ("shifts", 3, "0, 1, 2 or 4"),
        ("shifts", 1.0, "0, 1, 2 or 4"),
        ("max_lanes", 0, "1 to 4294967295"),
        ("max_lanes", 2**32, "1 to 4294967295"),
        ("max_lanes", 1e6, "a whole number"),
        ("variances", 1, "true or false"),
        ("stratified", "no", "true or false"),
        ("freeze", None, "true or false"),
        ("features", 3, "text"),
        ("features", "colour", "position"),
    ],
)
def test_values_that_make_no_sense(name: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Parameters(**{name: value})
    message = str(caught.value)
    assert "\n" not in message
    assert expected in message
    assert repr(value).strip("'") in message


def test_numbers_of_numpy_are_numbers() -> None:
    made = Parameters(max_depth=np.int64(3), variances=np.bool_(True))
    assert made == Parameters(max_depth=3, variances=True)
    assert type(made.max_depth) is int


def test_features_in_any_order_are_one_layout() -> None:
    made = Parameters(features=" roughness,position , roughness,")
    assert made.features == "position,roughness"
    assert made.layout == Layout.make(("position", "roughness"))
    assert made.with_layout(Layout.make((), True)) == Parameters(variances=True)
    with pytest.raises(ConfigError, match="cannot have the channels"):
        made.with_layout(Layout(Layout.make().buffers[:2]))
