"""Write what documents state about the code into them, between markers.

    python docs/generate.py           # write
    python docs/generate.py --check   # say which documents are not what the code and data give

A block begins with ``<!-- generated: NAME -->`` and ends with ``<!-- end of NAME -->``; ``BLOCKS``
says what NAME is made of. Nothing between the markers is written by hand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(
    r"(?P<begin><!-- generated: (?P<name>[a-z-]+) -->\n).*?(?P<end><!-- end of (?P=name) -->)",
    re.DOTALL,
)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; bars in cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    cells = ([str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"


def parameters() -> str:
    """Parameters of the ``gdpt`` plugin."""
    from mitsuba_gdpt.integrators.parameters import Parameters

    return Parameters.table().rstrip("\n") + "\n"


def buffers() -> str:
    """Every buffer, with the condition under which it is there."""
    from mitsuba_gdpt import channels

    asked = {
        **dict.fromkeys(channels.CORE, "always"),
        **{b: f'`features="{b.name}"`' for b in channels.OPTIONAL},
        **dict.fromkeys(channels.VARIANCES, "`variances=True`"),
        **dict.fromkeys(channels.DERIVED, "`add_motion()`"),
    }
    rows = [
        (f"`{b.name}`", ", ".join(f"`{c}`" for c in b.channels), b.kind, asked[b], b.doc)
        for b in channels.TABLE
    ]
    return table(("buffer", "EXR channels", "kind", "there with", "meaning"), rows)


def command_line() -> str:
    """The help of every command."""
    import typer.main

    from mitsuba_gdpt.cli import app

    def section(command: Any, words: tuple[str, ...]) -> Iterable[str]:
        yield f"## `{' '.join(words)}`\n\n{_prose(command.help or '')}"
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
        usage = [*words, *(p.metavar or p.name.upper() for p in arguments), "[OPTIONS]"]
        if not hasattr(command, "commands"):
            yield f"```text\n{' '.join(usage)}\n```\n"
        rows = [
            (
                ", ".join(f"`{word}`" for word in (*p.opts, *p.secondary_opts)),
                ""
                if p.default in (None, (), [], False) or callable(p.default)
                else f"`{p.default}`",
                " ".join((p.help or "").split()),
            )
            for p in (*arguments, *options)
            if "--help" not in p.opts
        ]
        if rows:
            yield table(("argument or option", "default", "meaning"), rows)
        for name, child in sorted(getattr(command, "commands", {}).items()):
            yield from section(child, (*words, name))

    return "\n".join(section(typer.main.get_command(app), ("mitsuba-gdpt",)))


def _prose(text: str) -> str:
    """Return the help of a command as Markdown: its examples as code."""
    paragraphs = [" ".join(p.split()) for p in text.replace("\b", "").strip().split("\n\n")]
    shown = []
    for paragraph in paragraphs:
        before, found, code = paragraph.partition("Example: ")
        shown.append(f"{before}Example:\n\n```sh\n{code}\n```" if found else paragraph)
    return "\n\n".join(shown) + "\n"


BLOCKS: dict[str, Callable[[], str]] = {
    "buffers": buffers,
    "command-line": command_line,
    "parameters": parameters,
}


def documents() -> list[Path]:
    """Return all documents that may hold blocks."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def generated(text: str) -> str:
    """Return a document with all its blocks made anew.

    Raises:
        KeyError: A block has a name that nothing makes.
    """
    return _BLOCK.sub(lambda m: m["begin"] + BLOCKS[m["name"]]() + m["end"], text)


def main(arguments: Sequence[str]) -> int:
    """Write the blocks, or check them."""
    stale = []
    for path in documents():
        text = path.read_text(encoding="utf-8")
        if (new := generated(text)) != text:
            stale.append(str(path.relative_to(ROOT)))
            if "--check" not in arguments:
                path.write_text(new, encoding="utf-8")
    print("\n".join(stale) or "all documents are current")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
