"""Files that are complete or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from mitsuba_gdpt.errors import FormatError
from mitsuba_gdpt.files import replace_file, replace_text


def test_a_file_appears_whole_and_replaces_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    replace_text(path, "old")
    replace_text(path, "neu ü")
    assert path.read_text(encoding="utf-8") == "neu ü"
    assert [*tmp_path.iterdir()] == [path]


def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    replace_text(path, "old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise OSError("disk full")

    with pytest.raises(FormatError, match="disk full"):
        replace_file(path, fail)
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="nowhere does not exist"):
        replace_text(tmp_path / "nowhere" / "a.txt", "")


@pytest.mark.parametrize("name", ["a" * 240, "a" * 255, "ü" * 120, "雪" * 85])
def test_names_as_long_as_a_file_system_takes(tmp_path: Path, name: str) -> None:
    replace_text(tmp_path / name, "text")
    assert [*tmp_path.iterdir()] == [tmp_path / name]
