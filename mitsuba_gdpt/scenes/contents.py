"""What a scene is made of: its file, the files that it includes, and all that these name.

Whatever is stored of a scene keeps :class:`Contents` of it, and is compared with them when it is
used again. Nothing here loads a scene: files are found in the XML, as Mitsuba finds them, and
hashed, once per process as long as size and times stay.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from mitsuba_gdpt import provenance
from mitsuba_gdpt.errors import ConfigError

#: Keys of what is stored: the hash of the scene's own file, and those of all others by their names.
HASH, FILES = "scene_hash", "scene_files"
_DIGITS = 16
_SHOWN = 3  # changed files that are named
_DEEPEST = 32  # includes within includes; Mitsuba takes 15


@dataclass(frozen=True)
class Contents:
    """The files that a scene is made of, and hashes of what is in them.

    Attributes:
        own: Hash of the scene's own file; empty for built-in scenes and missing files.
        others: Of the files that it includes or names (textures, meshes, volumes, spectra), by the
            names that the XML gives them; those that are not there are left out.
        name: Of the scene's own file, for messages.
    """

    own: str = ""
    others: Mapping[str, str] = field(default_factory=dict)
    name: str = ""

    @property
    def key(self) -> str:
        """Hash of all of it, for fingerprints; empty where there are no files."""
        return provenance.digest(self.own, dict(self.others)) if self.own or self.others else ""

    def as_dict(self) -> dict[str, Any]:
        """Return what is stored, JSON-compatible; nothing where there are no files."""
        if not (self.own or self.others):
            return {}
        return {HASH: self.own[:_DIGITS], FILES: {k: v[:_DIGITS] for k, v in self.others.items()}}

    def words(self) -> dict[str, str]:
        """Return the same as texts, for headers."""
        stored = self.as_dict()
        if stored:
            stored[FILES] = json.dumps(stored[FILES], separators=(",", ":"))
        return stored

    def changed(self, before: Mapping[str, Any]) -> list[str]:
        """Name the files that differ from those of an earlier state.

        Args:
            before: As :meth:`as_dict` or :meth:`words` returned it, among other keys. What it does
                not say, as it was stored by an older version, counts as the same.
        """
        now = self.as_dict()
        if not now:
            return []  # missing files are somebody else's matter
        names = [self.name] if before.get(HASH, now[HASH]) != now[HASH] else []
        known, found = _table(before.get(FILES)), now[FILES]
        if known is not None:
            every = {**known, **found}
            names += [name for name in every if known.get(name) != found.get(name)]
        return names

    def require(self, before: Mapping[str, Any], what: str, remedy: str) -> None:
        """Refuse to go on with what was made of an earlier state.

        Args:
            before: As for :meth:`changed`.
            what: When it was made, such as ``"a.exr was rendered"``.
            remedy: What to do instead of taking the files back.

        Raises:
            ConfigError: A file has been edited; the message names it.
        """
        if names := self.changed(before):
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            have = "have" if len(names) > 1 else "has"
            raise ConfigError(
                f"{', '.join(names[:_SHOWN])}{more} {have} been edited since {what}; {remedy}, or "
                "take it back"
            )


def of_files(named: Iterable[Path]) -> Contents:
    """Return the contents of a scene that is made by code from some files."""
    return Contents("", {path.name: provenance.content(path) for path in named})


def of_xml(path: Path, parameters: Mapping[str, str]) -> Contents:
    """Return the contents of a scene file.

    Args:
        path: The XML file.
        parameters: Values for its ``$name`` parameters.
    """
    own = provenance.content(path)
    if not own:
        return Contents(name=path.name)
    others: dict[str, list[str]] = {}
    for name, file in _named(path, [path.parent], dict(parameters), set(), 0):
        if (known := provenance.content(file)) and known not in others.setdefault(name, []):
            others[name].append(known)
    # One name may mean one of several files, by where Mitsuba looks first: an edit of any counts.
    hashes = {
        name: known[0] if len(known) == 1 else provenance.digest(known)
        for name, known in sorted(others.items())
        if known
    }
    return Contents(own, hashes, path.name)


def _named(
    path: Path, folders: list[Path], parameters: dict[str, str], seen: set[Path], depth: int
) -> Iterator[tuple[str, Path]]:
    """Yield names and paths of all that an XML file names, and what it includes names.

    Args:
        path: The file.
        folders: Where names are looked for; ``<path>`` adds to them.
        parameters: Values of ``$name``; ``<default>`` adds to them.
        seen: Files that were read before.
        depth: How many files include this one.
    """
    if path in seen or depth > _DEEPEST:
        return
    seen.add(path)
    for kind, text in _texts(path, provenance.content(path)):
        if kind == "default":
            name, _, value = text.partition("\n")
            parameters.setdefault(name, _substituted(value, parameters))
            continue
        name = _substituted(text, parameters)
        if kind == "path":
            folders += [folder / name for folder in {path.parent: 0, folders[0]: 0}]
            continue
        places = [folder / name for folder in dict.fromkeys([*folders, path.parent])]
        found = [place for place in places if _is_file(place)]
        if not found and _is_file(Path(name)):  # in the current folder, where Mitsuba looks last
            found = [Path(name)]
        for file in found:
            yield name, file
            if kind == "include":
                yield from _named(file, folders, parameters, seen, depth + 1)


@functools.lru_cache(maxsize=1024)
def _texts(path: Path, content: str) -> tuple[tuple[str, str], ...]:
    """Return what may name files in an XML file, once each: element and text.

    Args:
        path: The file.
        content: Hash of it: an edited file is read again.
    """
    found: dict[tuple[str, str], None] = {}

    def begin(tag: str, given: dict[str, str]) -> None:
        value, file = given.get("value", ""), given.get("filename")
        if tag == "default":
            found[tag, f"{given.get('name')}\n{value}"] = None
        elif value and tag in ("path", "string"):
            found[tag, value] = None
        if file:
            found[tag, file] = None

    parser = expat.ParserCreate()
    parser.StartElementHandler = begin
    try:
        with path.open("rb") as file:
            parser.ParseFile(file)
    except (expat.ExpatError, OSError, ValueError):
        pass  # Mitsuba says what is wrong with it
    return tuple(found)


def _substituted(text: str, parameters: Mapping[str, str]) -> str:
    """Return a text with the values of its ``$name`` parameters; the longest name counts first."""
    if "$" not in text or not parameters:
        return text
    names = "|".join(map(re.escape, sorted(parameters, key=len, reverse=True)))
    return re.sub(rf"\$({names})", lambda match: str(parameters[match[1]]), text)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that is no name of a file
        return False


def _table(stored: Any) -> Mapping[str, Any] | None:
    """Return a table of hashes as it was stored; None if there is none, or it is damaged."""
    if isinstance(stored, str):
        try:
            stored = json.loads(stored)
        except ValueError:
            return None
    return stored if isinstance(stored, Mapping) else None
