"""Numbers and names from outside."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pytest

from mitsuba_gdpt import checks, exr
from mitsuba_gdpt.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2.5, "spp is 2.5; expected a whole number"),
        (math.nan, "expected a whole number"),
        (True, "expected a whole number"),
        ("7", "expected a whole number"),
        (0, "spp is 0; expected at least 1"),
        (10**12, "spp is 1000000000000; expected at most 16777216"),
        (10**5000, "spp is a whole number of about 5000 digits; expected at most"),
    ],
    ids=range(7),
)
def test_counts_that_make_no_sense(value: object, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        checks.spp("spp", value)


def test_counts() -> None:
    assert checks.spp("spp", np.int64(8)) == 8
    assert type(checks.spp("spp", np.int64(8))) is int
    assert checks.pixels("width", 65536) == 65536
    assert checks.whole("seed", checks.MOST) == 2**31 - 1


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, "1", None, True, 10**400, {}], ids=range(8)
)
def test_numbers_that_are_none(value: object) -> None:
    with pytest.raises(ConfigError, match=r"exposure is .*; expected a finite number"):
        checks.real("exposure", value)


def test_bounds_of_numbers() -> None:
    assert checks.real("rate", 12) == 12.0
    assert checks.real("share", 1, least=0, most=1) == 1.0
    with pytest.raises(ConfigError, match="rate is 0; expected a finite number and above 0"):
        checks.real("rate", 0, above=0)
    with pytest.raises(ConfigError, match=r"share is 1\.5; .* at least 0 and at most 1"):
        checks.real("share", 1.5, least=0, most=1)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "a:b",
        "a\\b",
        "a\nb",
        "a\0b",
        " a",
        "a ",
        "x*",
        "é" * 121,
        "\ud800",
        "nul.exr",
    ],
)
def test_names_that_no_file_may_have(name: str) -> None:
    with pytest.raises(ConfigError, match="file name"):
        checks.file_name("tag", name)


@pytest.mark.parametrize("name", ["a", "é" * 120, "x" * 240, "a b=(1, 2).exr", ".hidden"])
def test_names_that_files_may_have(name: str) -> None:
    assert checks.file_name("tag", name) == name


@pytest.mark.parametrize("path", ["/a", "a/", "a//b", "../a", "a/../b", "./a", "a/b:c", "a/ /b"])
def test_paths_that_leave_their_folder(path: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        checks.relative_path("name", path)


def test_settings() -> None:
    for value in (None, True, 3, 0.5, "x", [1, 2.0], ("a",)):
        assert checks.setting("s", value) == value
    for value in (datetime.date(1979, 5, 27), math.nan, [math.inf], {}, 2**70):
        with pytest.raises(ConfigError, match="s is "):
            checks.setting("s", value)


def test_showing_takes_no_time() -> None:
    assert len(checks.show("x" * 10**7)) <= 60
    assert checks.show(1 << 10**6).startswith("a whole number of about 30103")
    nested: list = []
    for _ in range(10**5):
        nested = [nested]
    assert "list" in checks.show(nested)
    while nested:  # freed level by level: all at once would overflow the stack of older Pythons
        nested = nested[0]


@pytest.mark.parametrize("value", [math.nan, 1e12, -1e12])
def test_stops_and_budgets(value: float) -> None:
    with pytest.raises(ConfigError, match="expected a finite number and at least -100"):
        checks.stops("--exposure", value)
    with pytest.raises(ConfigError, match="above 0 and at most"):
        checks.budget("seconds", value)
    with pytest.raises(ConfigError, match="exposure is"):
        exr.to_8bit(np.zeros((1, 1, 3)), exposure=value)
