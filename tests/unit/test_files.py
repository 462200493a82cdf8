"""Files that are complete or not there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mitsuba_gdpt import files
from mitsuba_gdpt.errors import FormatError
from mitsuba_gdpt.files import Checksums, read_json, replace_file, replace_text


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


def test_too_long_a_name_is_refused_before_the_work(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        raise AssertionError("nothing may be written")

    with pytest.raises(FormatError, match="this name has 256 bytes; expected at most 255"):
        replace_file(tmp_path / ("x" * 256), write)


# ------------------------------------------------------------------------------ unfinished files

KILLED = """
import os, signal, sys
from pathlib import Path
from mitsuba_gdpt.files import replace_file
def write(temporary):
    temporary.write_text("half")
    print(temporary.name, flush=True)
    os.kill(os.getpid(), signal.SIGKILL if sys.argv[2] == "kill" else signal.SIGSTOP)
replace_file(Path(sys.argv[1]) / "x.txt", write)
"""


def stopped(folder: Path, how: str) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that is killed or stopped while it writes; return its unfinished file."""
    command = [sys.executable, "-c", KILLED, str(folder), how]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    return child, folder / child.stdout.readline().strip()


def test_what_the_dead_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    dead, left = stopped(tmp_path, "kill")
    assert files.is_abandoned(left) or dead.wait() < 0
    dead.communicate()
    alive, unfinished = stopped(tmp_path, "stop")
    foreign = tmp_path / ".x.txt.01234567-12-34-89abcdef.tmp"  # of another host
    others = [foreign, tmp_path / ".notes.tmp", tmp_path / ".a.1-2-3-4.tmp"]
    for path in others:
        path.write_text("somebody's")
    folder = left.with_name(left.name.replace("x.txt", "set"))
    (folder / "inner").mkdir(parents=True)
    try:
        replace_text(tmp_path / "other.txt", "")
        assert not left.exists()
        assert not folder.exists()
        assert unfinished.exists()
        assert all(path.exists() for path in others)
    finally:
        alive.kill()
        alive.communicate()
    files._swept.clear()  # as in the next process
    os.utime(foreign, (time.time() - 2 * 24 * 3600,) * 2)
    replace_text(tmp_path / "other.txt", "")
    assert not unfinished.exists()
    assert [path.exists() for path in others] == [False, True, True]


def test_a_number_that_another_process_got_since(tmp_path: Path) -> None:
    mine = files.temporary_beside(tmp_path / "x")
    assert not files.is_abandoned(mine)
    host, pid, born, random = mine.name.split(".")[-2].split("-")
    earlier = f".x.{host}-{pid}-{int(born) - 1}-{random}.tmp"
    assert files.is_abandoned(tmp_path / earlier)


# ------------------------------------------------------------------------------------- checksums


def test_checksums(tmp_path: Path) -> None:
    path, notes = tmp_path / "a", Checksums(tmp_path)
    path.write_bytes(b"123456789")
    assert files.checksum(path) == (9, 0xCBF43926)  # the check value of CRC-32
    assert notes.intact("a") is None
    notes.add("a")
    assert notes.intact("a")
    path.write_bytes(b"123456788")
    assert notes.intact("a") is False
    path.unlink()
    assert notes.intact("a") is False
    with pytest.raises(FormatError, match="cannot read"):
        notes.add("a")
    (tmp_path / Checksums.NAME).write_text('{"a": 1')  # as if there were no notes
    assert notes.intact("a") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot read this JSON file"),
        (b"[1]", "got a JSON list; expected an object"),
        (b"\xff\xfe", "cannot read this JSON file"),
        (b'{"a": ' + b"9" * 5000 + b"}", "cannot read this JSON file"),
        (b'{"a": ' + b"[" * 100_000, "cannot read this JSON file"),
    ],
)
def test_json_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        read_json(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000
    with pytest.raises(FormatError, match="No such file"):
        read_json(tmp_path / "y.json")
