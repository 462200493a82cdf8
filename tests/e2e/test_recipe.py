"""The steps of docs/how-to/train-a-network.md, as they stand there, with little of everything."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitsuba_gdpt.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "train-a-network.md"
TOY = {
    "TRAIN": "corner-gallery",
    "TEST": "corner-gallery",
    "CROPS": 2,
    "SIZE": 16,
    "REFERENCE": 4,
    "STEPS": 3,
    "WIDTH": 24,
}


def commands() -> Iterator[list[str]]:
    """Yield the words of each command, with variables replaced as a shell does."""
    text = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL))
    defined = dict(re.findall(r"^([A-Z]+)=(\S+)$", text, re.MULTILINE))
    assert defined.keys() == TOY.keys()
    for name, value in TOY.items():
        assert f"${name}" in text, name
        text = text.replace(f"${name}", str(value))
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("mitsuba-gdpt "):
            assert not set("*?[") & set(line), line  # a shell finds no files in weights=run/*
            yield shlex.split(line)[1:]


def test_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = []
    for words in commands():
        with pytest.raises(SystemExit) as stop:
            main(words)
        printed = capsys.readouterr()
        assert not stop.value.code, (words, printed.err)
        assert "bias" not in printed.err  # defaults of data and network fit each other
        done.append(words[0])
    assert done == ["dataset", "dataset", "train", "render", "denoise", "evaluate"]
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    cells = results["records"]
    assert len(cells) == 4
    assert not [cell["error"] for cell in cells if cell.get("error")]
    assert (tmp_path / "clean.png").is_file()
