"""The report of a training run: it grows, survives kills, and says what the files say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from mitsuba_gdpt.errors import MissingDependencyError
from mitsuba_gdpt.metrics.weights import ENVIRONMENT_VARIABLE
from mitsuba_gdpt.training import history, page, run, validation
from mitsuba_gdpt.training.config import TrainingConfig, load_config
from tests import crops

TINY = {"growth": [4, 4], "units": [1, 1], "down": [4], "up": [4], "patch": 1}
_PLOTS = re.compile(r"<figure class=\"plot\">\s*<h3>([^<]*)</h3>")


class _Killed(BaseException):
    """Stands for a signal: nothing in between catches it."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "set.zarr"
    crops.fill(str(path), crops.fill_plan(size=16, crops=4))
    return path


def config(data: Path, output: Path, **more: Any) -> TrainingConfig:
    values = {
        "method": "ngpt-small", "data": [str(data)], "output": str(output), "steps": 6, "batch": 2,
        "checkpoint_every": 2, "validate_every": 2, "report_every": 1, "network": TINY,
        "validation_examples": 3, "validation_scenes": ["second"], "threads": 1, **more,
    }  # fmt: skip
    return load_config(None, values)


def test_it_grows(data: Path, tmp_path: Path) -> None:
    """And a run that was killed and resumed has the same curves as one that was not."""
    pages: list[str] = []
    path = tmp_path / "run" / page.FILE

    def watch(line: str) -> None:
        if line.startswith("step 5/"):
            pages.append(path.read_text())
            raise _Killed

    settings = config(data, tmp_path / "run")
    with pytest.raises(_Killed):
        run.train(settings, report=watch)
    assert history.curve(tmp_path / "run", "loss", 100)[0] == [1, 2, 3, 4]
    history.add(tmp_path / "run", 5, {"loss": 99.0})  # of a step that is done again
    run.train(settings, resume=True)
    pages.append(path.read_text())
    shown = ["Loss", "Learning rate", "Validation: relMSE", "Validation: SMAPE"]
    for text, step in zip(pages, (4, 6), strict=True):
        assert f"Validation at step {step}" in text
        assert f"{step} of 6, 2 examples each" in text
        assert _PLOTS.findall(text) == shown
        assert "src=" not in text  # nothing from elsewhere
        assert not re.search(r'<link [^>]*href="(?!data:)|url\(http', text)
    steps, values = history.curve(tmp_path / "run", "loss", 100)
    assert steps == [1, 2, 3, 4, 5, 6]
    run.train(config(data, tmp_path / "whole"))
    assert history.curve(tmp_path / "whole", "loss", 100) == (steps, values)
    assert history.validations(tmp_path / "whole") == history.validations(tmp_path / "run")


def test_first_validation_has_no_plots_of_one_point(data: Path, tmp_path: Path) -> None:
    run.train(config(data, tmp_path, steps=1, validate_every=100))
    text = (tmp_path / page.FILE).read_text()
    assert _PLOTS.findall(text) == []
    for name in ("primal", "output", "target"):
        assert f'"label":"{name}"' in text.replace('": "', '":"')


def test_without_the_packages(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "obstacle", lambda: MissingDependencyError("no jinja2"))
    lines: list[str] = []
    run.train(config(data, tmp_path, steps=1), report=lines.append)
    assert lines.count("no report.html: no jinja2") == 1
    assert not (tmp_path / page.FILE).exists()


def test_long_curves_are_thinned(tmp_path: Path) -> None:
    for step in range(1, 1001):
        history.add(tmp_path, step, {"loss": float(step), "zero": 0.0})
    x, y = history.curve(tmp_path, "loss", 400)
    assert len(x) == 334  # of three steps each
    assert (x[0], y[0], x[-1]) == (2.0, 2.0, 1000.0)
    assert history.curve(tmp_path, "zero", 400) == ([], [])
    with (tmp_path / "losses.jsonl").open("a") as file:
        file.write('{"step": 1001, "lo')  # killed here
    assert history.curve(tmp_path, "loss", 400) == (x, y)


def test_perceptual_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where weights are installed, and the image is large enough."""
    image, target = torch.rand(2, 3, 1, 80, 72, 3).unbind(0)
    monkeypatch.setattr(validation.metrics, "lpips", lambda a, b: (a - b).abs().mean())
    monkeypatch.setattr(validation.metrics, "elpips", lambda a, b, draws: (a - b).square().mean())
    monkeypatch.setattr(
        type(validation.metrics.find("elpips")), "obstacle", lambda self, weights=None: None
    )
    values = validation._measure(image, [target])
    assert set(values) == {"relmse", "smape", "lpips-squeeze", "elpips"}
    assert values["lpips-squeeze"] == pytest.approx(float((image - target).abs().mean()))
    assert set(values) <= set(validation.LABELS)
    small = validation._measure(image[..., :32, :], [target[..., :32, :]])
    assert set(small) == {"relmse", "smape"}


def test_no_perceptual_figures_without_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    image = torch.rand(1, 1, 64, 64, 3)
    assert set(validation._measure(image, [image])) == {"relmse", "smape"}
