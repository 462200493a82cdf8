"""What the documents name exists: commands, options, files, modules, environment variables.

Nothing is run here: the guides for users of other tools, the README and the notebooks are run by
tests of their own. Research notes are history and are left out.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from mitsuba_gdpt.cli import app

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "mitsuba_gdpt"
DOCUMENTS = [
    path
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    if path.name != "CHANGELOG.md" and not {"research", "project"} & set(path.parts)
]
#: Words of ``oidnDenoise``, which ``denoise`` takes; ``test_guides`` runs them.
OIDN_WORDS = {"--hdr", "--ldr"}
#: Options of other programs that pages speak of without a command line around them.
FOREIGN = {"--extra-index-url", "--inplace", "--nthreads", "--slow"}


def blocks(text: str) -> Iterator[str]:
    """Yield the lines of all shell blocks, continued lines joined."""
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield from block.replace("\\\n", " ").splitlines()


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of all commands, in shell blocks and in the middle of sentences."""
    inline = re.findall(r"`((?:mitsuba-gdpt|python) [^`]+)`", text)
    for line in (*blocks(text), *inline):
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in (*lexer, ";"):
            if word and not set(word) <= set("|&;"):
                words.append(word)
            elif words:
                yield words
                words = []


@functools.cache
def program() -> Any:
    """Return the command line as click sees it."""
    return typer.main.get_command(app)


def resolve(words: list[str]) -> tuple[set[str], str]:
    """Return the options of the command of ours that words call, and its name."""
    command = program()
    known = set(command.params)
    name = "mitsuba-gdpt"
    for word in words[1:]:
        children = getattr(command, "commands", {})
        if word in children:
            command, name = children[word], f"{name} {word}"
            known |= set(command.params)
    names = {option for param in known for option in (*param.opts, *param.secondary_opts)}
    if OIDN_WORDS & set(words):  # then all words are those of oidnDenoise
        names |= {word for word in words if word.startswith("--")}
    return names | {"--help", "-h", "--debug"}, name


def complaints(text: str) -> list[str]:
    """Return what commands of a document have that does not exist."""
    found = []
    for words in commands(text):
        options = [w.partition("=")[0] for w in words[1:] if re.fullmatch(r"--?[a-z].*", w, re.I)]
        called = words[0].rsplit("/", 1)[-1]
        if called == "mitsuba-gdpt":
            known, name = resolve(words)
            if name == "mitsuba-gdpt" and not options:
                found.append(f"no command: {' '.join(words)}")
            options = [o if o.startswith("--") else o[:2] for o in options]
            found += [f"{name} has no {option}" for option in options if option not in known]
        elif called in ("python", "python3") and len(words) > 1 and words[1].endswith(".py"):
            script = ROOT / words[1]
            if not script.is_file():
                found.append(f"no {words[1]}")
                continue
            source = script.read_text(encoding="utf-8")
            found += [f"{words[1]} has no {o}" for o in options if f'"{o}"' not in source]
    return found


#: Pages that speak of other programs' options; what is ours on them is run by ``test_guides``.
OWN = [path for path in DOCUMENTS if not path.stem.startswith("from-")]


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_commands_exist(path: Path) -> None:
    assert not complaints(path.read_text(encoding="utf-8"))


def unchecked(text: str) -> list[str]:
    """Return the commands of ours in blocks that are not ``sh``: nothing checks those.

    A synopsis, with its names in capitals, is not to be typed.
    """
    return [
        line
        for language, block in re.findall(
            r"^```([^\n]*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE
        )
        if language != "sh"
        for line in block.splitlines()
        if re.match(r"(\$ )?(\S*/)?(mitsuba-gdpt|python3? (benchmarks|docs|-m tests)\b)", line)
        and not line.endswith(" [OPTIONS]")
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_commands_are_in_blocks_that_are_checked(path: Path) -> None:
    assert not unchecked(path.read_text(encoding="utf-8"))


def test_commands_in_other_blocks_are_noticed() -> None:
    text = """
```sh
mitsuba-gdpt info
```
```text
mitsuba-gdpt render SCENE [OPTIONS]
mitsuba-gdpt render scene.xml
python train.py hdr
```
```
.venv/bin/mitsuba-gdpt info
$ python docs/generate.py
```"""
    assert unchecked(text) == [
        "mitsuba-gdpt render scene.xml",
        ".venv/bin/mitsuba-gdpt info",
        "$ python docs/generate.py",
    ]


def test_commands_that_do_not_exist_are_noticed() -> None:
    text = """
```sh
mitsuba-gdpt render a.xml --spp 2 --colour red && mitsuba-gdpt paint
python docs/generate.py --check --fast
```
See `mitsuba-gdpt dataset crops --size 3 --colour 1` and `python benchmarks/nothing.py`."""
    assert complaints(text) == [
        "mitsuba-gdpt render has no --colour",
        "no command: mitsuba-gdpt paint",
        "docs/generate.py has no --fast",
        "mitsuba-gdpt dataset crops has no --colour",
        "no benchmarks/nothing.py",
    ]


def all_options() -> set[str]:
    """Return every option of every command of ours, of the benchmarks and of the documents."""

    def of(command: Any) -> Iterator[str]:
        for param in command.params:
            yield from (*param.opts, *param.secondary_opts)
        for child in getattr(command, "commands", {}).values():
            yield from of(child)

    scripts = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "docs").glob("*.py")]
    given = re.findall(r'"(--[a-z-]+)"', "".join(p.read_text(encoding="utf-8") for p in scripts))
    return {*of(program()), *given, *FOREIGN, "--help", "--debug"}


def test_options_in_sentences_exist() -> None:
    known = all_options()
    unknown = [
        f"{path.relative_to(ROOT)}: {option}"
        for path in OWN
        for option in re.findall(r"`(--[a-z][a-z-]*)(?![\w-])", path.read_text(encoding="utf-8"))
        if option not in known
    ]
    assert not unknown


def test_files_and_variables_exist() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    missing = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        where = path.relative_to(ROOT)
        for name in re.findall(
            r"`((?:docs|benchmarks|tests|examples|mitsuba_gdpt)/[\w./-]*)`", text
        ):
            if not (ROOT / name).exists():
                missing.append(f"{where}: {name}")
        for name in re.findall(r"\bMITSUBA_GDPT_[A-Z_]+", text):
            if f'"{name}"' not in sources:
                missing.append(f"{where}: {name}")
    assert not missing


def exists(name: str) -> bool:
    """Tell whether there is a module, or a name in one."""
    module, _, last = name.rpartition(".")
    parent: Any = None
    if module:
        with contextlib.suppress(ImportError):
            parent = importlib.import_module(module)
        if parent is None:  # a class, say
            return exists(module)
        if hasattr(parent, last):
            return True
    return hasattr(parent, "__path__") and importlib.util.find_spec(name) is not None


def test_modules_and_names_exist() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in DOCUMENTS
        for name in re.findall(r"`(mitsuba_gdpt(?:\.\w+)+)", path.read_text(encoding="utf-8"))
        if not exists(name)
    ]
    assert not missing
    assert not exists("mitsuba_gdpt.data.nothing")
