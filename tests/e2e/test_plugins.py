"""Methods and metrics of others, as docs/how-to/plugins.md has them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mitsuba_gdpt import exr, plugins
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.cli import main
from mitsuba_gdpt.errors import ConfigError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "plugins.md"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file of the page."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    path = tmp_path / "my.py"
    path.write_text(code)
    return path


def start(*words: object, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, filter(None, [path, ROOT]))),
    }
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_file_on_the_command_line(file: Path, tmp_path: Path) -> None:
    """And what it registers depends on its content."""
    buffers = FrameBuffers(torch.rand(5, 6, Layout.make().count), Layout.make())
    noisy, clean = tmp_path / "noisy.exr", tmp_path / "clean.exr"
    buffers.to_exr(noisy)
    words = ("denoise", noisy, "-o", clean, "--method", "box-blur(size=5)")
    done = start("-m", "mitsuba_gdpt", "--import", file, *words)
    assert done.returncode == 0, done.stderr
    expected = buffers.primal[:3, :3].mean((0, 1))
    np.testing.assert_allclose(exr.read_image(clean)[0, 0], expected, rtol=1e-4)
    program = (
        "import sys, torch; from mitsuba_gdpt import plugins, metrics, provenance; "
        "plugins.add([sys.argv[1]]); print(provenance.sources()); "
        "metric = metrics.find('largest'); "
        "print(metric(torch.ones(2, 3, 3), torch.zeros(2, 3, 3)).value)"
    )
    first = start("-c", program, file).stdout.split()
    assert first[1] == "1.0"
    file.write_text(file.read_text() + "\n")
    second = start("-c", program, file).stdout.split()
    assert second[0] != first[0]
    assert second[1] == "1.0"


def test_installed_packages(file: Path, tmp_path: Path) -> None:
    """Entry points register; one that fails is a warning."""
    info = tmp_path / "mine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{plugins.GROUP}]\nmine = my\nbroken = nothing_of_this_name\n"
    )
    program = "from mitsuba_gdpt import denoisers; print(denoisers.find('box-blur').doc)"
    done = start("-c", program, path=tmp_path)
    assert done.stdout == "mean over a window\n", done.stderr
    assert "mine 1.0: nothing_of_this_name fails" in done.stderr


def test_what_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(plugins.VARIABLE, "")
    with pytest.raises(SystemExit) as stop:
        main(["--import", str(tmp_path / "none.py"), "info"])
    assert stop.value.code == 2
    assert "none.py: no such file" in capsys.readouterr().err
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0")
    with pytest.raises(ConfigError, match=r"broken\.py: cannot import this: ZeroDivisionError"):
        plugins.add([str(broken)])
