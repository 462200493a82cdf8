"""TOML files that nobody would write: one line with the file, in bounded time."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from mitsuba_gdpt import toml
from mitsuba_gdpt.errors import ConfigError, FormatError


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "9" * 5000,
        "a = 0x" + "f" * 5000,
        "a = 99999999999999999999",
        "a = " + "[" * 100_000,
        "a = " + "[" * 50 + "]" * 50,
        "a = " + "{ b = " * 10_000,
        ".".join("a" * 100_000) + " = 1",
        ".".join(['"a"'] * 1000) + " = 1",
        "x" * 900_000,
        "a" + "." * 900_000,
        "[" + " a ." * 10_000 + "b]",
        "# " + "x" * (1 << 20),
        "a = 1979-99-99",
        "a = '\xff",
        "a = 1\na = 2",
    ],
    ids=lambda text: text[:12],
)
def test_one_line_and_no_time(tmp_path: Path, text: str) -> None:
    path = tmp_path / "jobs.toml"
    path.write_bytes(text.encode("latin-1"))
    start = time.process_time()
    with pytest.raises(FormatError) as caught:
        toml.read(path)
    assert time.process_time() - start < 5
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 200


def test_what_people_write_is_read(tmp_path: Path) -> None:
    path = tmp_path / "jobs.toml"
    path.write_bytes(
        b'a.b.c = 1\r\nd = [[1, 2], [3.5]]\r\nf = "x.y.z"\r\ng = 9223372036854775807\r\n'
    )
    assert toml.read(path) == {
        "a": {"b": {"c": 1}},
        "d": [[1, 2], [3.5]],
        "f": "x.y.z",
        "g": 2**63 - 1,
    }


@pytest.mark.parametrize(
    ("convert", "value", "message"),
    [
        (toml.number, float("nan"), r"f\.toml: x is nan; expected a finite number"),
        (toml.number, True, "expected a finite number"),
        (toml.integer, 1.0, "expected a whole number"),
        (toml.pixels, 10**9, "expected at most 65536"),
        (toml.settings, {"a": {}}, r"f\.toml, x: 'a' is \{\}; expected a number"),
        (toml.settings, {"a": float("inf")}, r"'a' is inf; expected a finite number"),
        (toml.texts, ["a", ""], "expected a text"),
        (toml.boolean, 1, "expected true or false"),
    ],
)
def test_every_error_names_its_file(convert, value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        toml.Table({"x": value}, "f.toml").take("x", convert)
    assert str(caught.value).startswith("f.toml")
