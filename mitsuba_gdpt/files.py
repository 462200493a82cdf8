"""Files that are complete or not there, and known to be what was written.

A file is written under a temporary name, then renamed. The temporary name says which process made
it: that process removes it, and where it was killed, the next one that writes to the same folder
does. Nobody removes what a living process is writing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mitsuba_gdpt.checks import reason
from mitsuba_gdpt.errors import FormatError

#: Longest file name that common file systems take, in bytes.
_LONGEST_NAME = 255
#: Longest part of a file's name that its temporary name repeats, in bytes.
_LONGEST_STEM = 160
_TEMPORARY = re.compile(
    r"\..*\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<born>\d+)-[0-9a-f]{8}\.tmp", re.DOTALL
)
#: Seconds after which what a process of another host left counts as dead: no file takes so long.
_FORGOTTEN = 24 * 3600.0
#: Whether signal 0 asks a process if it lives.
_CAN_ASK = os.name == "posix"
#: Largest JSON file that is read, in bytes.
_LARGEST_JSON = 64 << 20
_BLOCK = 1 << 20


def replace_file(path: str | os.PathLike[str], write_to: Callable[[Path], object]) -> None:
    """Let ``write_to`` fill a temporary file beside ``path``, then rename it.

    Not made by ``tempfile``, whose files only the owner may read.

    Args:
        path: Replaced if it exists.
        write_to: Called with the temporary path; leaves the finished file there.

    Raises:
        FormatError: The folder does not exist, the disk is full, or another error of the system.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FormatError(f"{path}: the folder {path.parent} does not exist; create it first")
    temporary = temporary_beside(path)
    try:
        write_to(temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        raise FormatError(f"{path}: cannot write this file: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def replace_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file; see :func:`replace_file`."""
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        FormatError: It is missing, larger than 64 MiB, no JSON, or holds something else.
    """
    path = Path(path)
    try:
        if (size := path.stat().st_size) > _LARGEST_JSON:
            raise FormatError(f"{path}: {size} bytes; expected a JSON file of at most 64 MiB")
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FormatError(f"{path}: cannot read this file: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # of 5000 digits or 5000 brackets, too
        raise FormatError(f"{path}: cannot read this JSON file: {reason(error)}") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path}: got a JSON {type(content).__name__}; expected an object")
    return content


# ------------------------------------------------------------------------------ unfinished files


def temporary_beside(path: Path) -> Path:
    """Return a free path beside another one, for what becomes it; see :func:`is_abandoned`.

    What dead processes left in the folder is removed when this process first writes there.

    Raises:
        FormatError: The name of ``path`` is too long for any file system.
    """
    if (length := len(os.fsencode(path.name))) > _LONGEST_NAME:
        raise FormatError(f"{path}: this name has {length} bytes; expected at most {_LONGEST_NAME}")
    sweep_once(path.parent)
    owner = f"{_host()}-{os.getpid()}-{_born(os.getpid())}-{secrets.token_hex(4)}"
    return path.with_name(f".{_stem(path.name)}.{owner}.tmp")


def sweep_once(folder: Path) -> None:
    """Remove what dead processes left in a folder; does nothing the second time."""
    key = (os.getpid(), os.path.abspath(folder))  # a forked process is another one
    if key in _swept:
        return
    _swept.add(key)
    try:
        entries = [entry for entry in folder.iterdir() if is_abandoned(entry)]
    except OSError:
        return
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


_swept: set[tuple[int, str]] = set()


def is_abandoned(path: Path) -> bool:
    """Whether a path is temporary, and the process that made it is no more.

    Processes of other hosts cannot be asked, nor those of Windows, where the question would be
    taken for Ctrl-C: what they made is abandoned after a day.
    """
    match = _TEMPORARY.fullmatch(path.name)
    if match is None:
        return False
    if match["host"] != _host() or not _CAN_ASK:
        try:
            return time.time() - path.stat().st_mtime > _FORGOTTEN
        except OSError:
            return False
    return _born(int(match["pid"])) != int(match["born"])


def _stem(name: str) -> str:
    """Return a name, or the beginning and a hash of one that leaves no room for an owner."""
    encoded = os.fsencode(name)
    if len(encoded) <= _LONGEST_STEM:
        return name
    digest = hashlib.blake2b(encoded, digest_size=8).hexdigest()
    return encoded[:_LONGEST_STEM].decode("utf-8", "ignore") + "~" + digest


@functools.cache
def _host() -> str:
    """Return what tells apart where process numbers mean something else."""
    where = platform.node()
    with contextlib.suppress(OSError):
        where += os.readlink("/proc/self/ns/pid")  # containers may share a name
    return hashlib.blake2b(where.encode(), digest_size=4).hexdigest()


def _born(pid: int) -> int:
    """Return when a process of this host started, in ticks since it booted; -1 without one.

    Process numbers are used again, but not with the same start. Where the system does not say
    when a process started, any living one counts as started at 0.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        state, *fields = stat.rpartition(")")[2].split()
        return -1 if state in "ZX" else int(fields[18])  # a zombie writes nothing any more
    except (OSError, ValueError, IndexError):
        pass
    if Path("/proc/self/stat").exists():
        return -1
    if not _CAN_ASK:
        return 0
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return -1
    except OSError:  # somebody else's
        pass
    return 0


# ------------------------------------------------------------------------------------- checksums


def checksum(path: Path) -> tuple[int, int]:
    """Return size in bytes and CRC-32 of a file: about a second per GiB.

    Raises:
        OSError: It cannot be read.
    """
    size, value = 0, 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            size, value = size + len(block), zlib.crc32(block, value)
    return size, value


class Checksums:
    """Sizes and checksums of the finished files of a folder, in a JSON file beside them."""

    NAME = ".checksums.json"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str) -> None:
        """Note what a file is now.

        Raises:
            FormatError: It is not there, or the note cannot be written.
        """
        path = self.folder / name
        try:
            found = list(checksum(path))
        except OSError as error:
            raise FormatError(f"{path}: cannot read this file: {error.strerror}") from error
        content = json.dumps(self._read() | {name: found}, indent=1, sort_keys=True)
        replace_text(self.folder / self.NAME, content + "\n")

    def intact(self, name: str) -> bool | None:
        """Whether a file is what was noted; None where nothing is known about it."""
        known = self._read().get(name)
        if known is None:
            return None
        path = self.folder / name
        try:
            return path.stat().st_size == known[0] and list(checksum(path)) == known
        except OSError:
            return False

    def _read(self) -> dict[str, list[int]]:
        """Return what is noted; nothing if that is damaged, which only costs a closer look."""
        try:
            content = read_json(self.folder / self.NAME)
        except FormatError:
            return {}
        return {
            name: known
            for name, known in content.items()
            if isinstance(known, list) and len(known) == 2
        }
