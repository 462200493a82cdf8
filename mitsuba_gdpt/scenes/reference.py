"""What people write for a scene, parsed once: ``builtin:NAME``, ``CATALOGUE:NAME`` or a path."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mitsuba_gdpt.errors import FormatError, GDPTError, MissingScenesError
from mitsuba_gdpt.scenes import contents, registry
from mitsuba_gdpt.scenes.blocks import find_blocks
from mitsuba_gdpt.scenes.catalogue import Catalogue, CatalogueScene, shipped
from mitsuba_gdpt.scenes.contents import Contents
from mitsuba_gdpt.scenes.places import BUILTIN, missing_files, scene_file


@dataclass(frozen=True)
class SceneRef:
    """Where a scene comes from; ``str()`` gives back what :meth:`parse` took.

    Attributes:
        target: Name of a scene in a catalogue, or path of a Mitsuba XML file.
        catalogue: :data:`BUILTIN`, another catalogue of the package, or the path of a TOML file;
            None for a path.
    """

    target: str
    catalogue: str | None = None

    @classmethod
    def parse(cls, text: str | os.PathLike[str], folder: Path | None = None) -> SceneRef:
        """Read what a person wrote.

        Args:
            text: ``builtin:NAME``, ``CATALOGUE:NAME`` (a name as ``dev``, or a TOML file), the path
                of an XML file, or that of a folder with a ``scene.xml``.
            folder: What paths are relative to; by default the current folder.
        """
        text = str(text)
        catalogue, colon, name = text.rpartition(":")
        if colon and (catalogue in shipped() or catalogue.endswith(".toml")):
            if folder is not None and catalogue.endswith(".toml"):
                catalogue = str(folder / catalogue)
            return cls(name, catalogue)
        return cls(str(scene_file(text, folder)))

    def __str__(self) -> str:
        return self.target if self.catalogue is None else f"{self.catalogue}:{self.target}"

    @property
    def is_builtin(self) -> bool:
        """Whether the scene is made by code: there is no file, and there are no parameters."""
        return self.catalogue == BUILTIN

    @property
    def name(self) -> str:
        """Short name, for messages, tables and file names.

        That of its catalogue; of a file the name without suffix, or that of the folder where the
        file is called ``scene``.
        """
        if self.catalogue is not None:
            return self.target
        path = Path(self.target)
        return path.parent.resolve().name if path.stem == "scene" else path.stem

    def entry(self) -> CatalogueScene | None:
        """Return what a catalogue says of the scene; None for a path.

        Raises:
            FormatError: There is no such catalogue, or it is no TOML.
            ConfigError: There is no such scene in it.
        """
        if self.catalogue is None:
            return None
        return Catalogue.open(self.catalogue, check_files=False).scene(self.target)

    @property
    def file(self) -> Path | None:
        """The XML file; None for a built-in scene.

        Raises:
            GDPTError: As for :meth:`entry`.
        """
        if self.is_builtin:
            return None
        entry = self.entry()
        return Path(self.target if entry is None else entry.source)

    @property
    def parameters(self) -> Mapping[str, str]:
        """Values for the ``$name`` parameters of the XML file that the catalogue gives.

        Raises:
            GDPTError: As for :meth:`entry`.
        """
        entry = None if self.is_builtin else self.entry()
        return {} if entry is None else entry.parameters

    def contents(self, parameters: Mapping[str, str] | None = None) -> Contents:
        """Return what the scene is made of; nothing where its file or catalogue is missing.

        Args:
            parameters: Values for ``$name`` parameters besides those of its catalogue.
        """
        try:
            file, known = self.file, {**self.parameters, **(parameters or {})}
            if file is not None:
                return contents.of_xml(file, known)
            meshes, skies = find_blocks(known[registry.BLOCKS])
        except (GDPTError, KeyError):  # a scene that does not load, or is made by code alone
            return Contents()
        return contents.of_files([*meshes, *skies])

    def check(self) -> None:
        """Make sure that there is such a scene, without loading it.

        Raises:
            ConfigError: There is no such built-in scene, or no such scene in its catalogue.
            FormatError: There is no such file or catalogue.
            MissingScenesError: The scene of a catalogue is not on this machine.
        """
        if self.is_builtin:
            registry.describe(self.target)
            return
        file = self.file
        assert file is not None
        if file.is_file():
            return
        if self.catalogue is not None:
            raise MissingScenesError(missing_files([file]))
        known = self.target in registry.names()
        hint = f"; did you mean {BUILTIN}:{self.target}?" if known else ""
        raise FormatError(f"no scene: the file {file} does not exist{hint}")


def require_any(references: Iterable[SceneRef]) -> None:
    """Make sure that one of some scenes is there at least, before any work is done.

    Raises:
        FormatError: There is no such file or catalogue.
        ConfigError: There is no such scene.
        MissingScenesError: None of several is there.
    """
    missing = []
    for reference in references:
        file = reference.file
        if file is None or file.is_file():
            return
        missing.append(reference)
    if len(missing) == 1:
        missing[0].check()
    if missing:
        raise MissingScenesError(missing_files(ref.file for ref in missing if ref.file))
