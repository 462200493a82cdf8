"""``mitsuba-gdpt train``: from a crop set to weights that denoise, killed on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.cli import main
from mitsuba_gdpt.data import CropSet
from mitsuba_gdpt.data.render import LAYOUT
from mitsuba_gdpt.denoisers.learned.weights import read_weights
from tests import crops, sequences

SETTINGS = """
steps = 8
batch = 2
threads = 1
checkpoint_every = 2
validate_every = 6
report_every = 1
validation_examples = 3
validation_scenes = ["second"]
[network]
growth = [4, 4]
units = [1, 1]
down = [4]
up = [4]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    crops.fill(str(folder / "set.zarr"), crops.fill_plan(size=20, crops=4))
    (folder / "run.toml").write_text(SETTINGS)
    return folder


def words(data: Path, output: Path, method: str = "ngpt-poisson") -> list[str]:
    settings = ["--config", data / "run.toml", "-o", output]
    return [str(word) for word in ("train", method, data / "set.zarr", *settings)]


def run(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    output = capsys.readouterr()
    return int(stop.value.code or 0), output.out, output.err


def test_train_kill_resume_denoise(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = [*words(data, tmp_path / "killed"), "--set", "workers=1"]
    with subprocess.Popen(
        [sys.executable, "-m", "mitsuba_gdpt", *killed], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step 5/"):
                break
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    assert len(children) >= 2
    assert not psutil.wait_procs(children, timeout=20)[1], "processes that load data are left"
    assert process.returncode != 0
    assert not list((tmp_path / "killed").glob("*.safetensors"))
    code, out, err = run(capsys, [*killed, "--resume"])
    assert code == 0, err
    assert "12 examples to train on, 12 to validate on" in out
    assert out.index("step 5/8") < out.index("step 8/8")
    assert "step 4/8" not in out

    code, _, err = run(capsys, [*words(data, tmp_path / "whole"), "--set", "workers=0"])
    assert code == 0, err
    (resumed,), (whole,) = (list((tmp_path / f).glob("*.safetensors")) for f in ("killed", "whole"))
    expected = read_weights(whole)[0].state_dict()
    found = read_weights(resumed)[0].state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    assert (data / "set.zarr.guides" / "poisson-l1").is_dir()

    frame = FrameBuffers(CropSet.open(data / "set.zarr")[0].noisy[0], LAYOUT)
    frame.to_exr(tmp_path / "in.exr")
    arguments = ["denoise", tmp_path / "in.exr", "-o", tmp_path / "out.exr"]
    arguments += ["--method", "ngpt-small", "--option", f"weights={whole}"]
    code, _, err = run(capsys, [str(word) for word in arguments])
    assert code == 0, err
    assert (tmp_path / "out.exr").exists()


def test_guides_only(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, [*words(data, tmp_path / "run"), "--guides-only"])
    assert code == 0, err
    assert out == "24 renders have their guides: poisson-l1\n"
    assert len(list((data / "set.zarr.guides" / "poisson-l1").rglob("*.npy"))) == 24
    assert not (tmp_path / "run").exists()


def test_everything_in_the_file(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"method": "ngpt-poisson", "data": [str(data / "set.zarr")], "output": str(tmp_path)}
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in names.items())
    (tmp_path / "all.toml").write_text(text + SETTINGS)
    code, out, err = run(capsys, ["train", "--config", str(tmp_path / "all.toml"), "--guides-only"])
    assert (code, out[:2]) == (0, "24"), err
    (tmp_path / "none.toml").write_text(SETTINGS)
    code, _, err = run(capsys, ["train", "--config", str(tmp_path / "none.toml")])
    assert (code, err) == (
        2,
        "error: configuration lacks method, data; expected at least method, data\n",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--set", "stepz=1"], "no entry stepz"),
        (["--set", "terms.l9=1"], "unknown loss l9"),
        (["--set", 'scenes=["nowhere"]'], "no scene nowhere"),
        (["--set", 'validation_scenes=["nowhere"]'], "0 to validate on"),
        (["--config", "none.toml"], "there is no such file"),
    ],
)
def test_bad_input(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: list[str],
    message: str,
) -> None:
    code, _, err = run(capsys, [*words(data, tmp_path / "run"), *change])
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_method_that_the_data_do_not_suffice_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, ["train", "ngpt", str(tmp_path / "no.zarr"), "-o", "x"])
    assert code == 2
    assert "no.zarr" in err


def test_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A recurrent method, from a frame set to weights, in the words of the original's script."""
    root = sequences.write(tmp_path / "frames")
    arguments = ["train", "rdae-grad", root, "-o", tmp_path / "run", "--max_epochs", "1"]
    arguments += ["--batch_size", "4", "--num_workers", "1", "--set", "threads=1"]
    arguments += ["--seq_length", "3", "--set", "sequence.size=16"]
    arguments += ["--set", "validation_examples=1", "--set", 'validation_scenes=["third"]']
    arguments += ["--set", "network.stages=[3, 4]", "--set", "network.decoder=[]"]
    arguments += ["--set", "network.finest=[4, 4]"]
    code, out, err = run(capsys, [str(word) for word in arguments])
    assert code == 0, err
    assert "6 examples to train on, 3 to validate on" in out
    (path,) = (tmp_path / "run").glob("*.safetensors")
    assert json.loads(read_weights(path)[1].metadata["recipe"])["trained_steps"] == 2  # ceil(6 / 4)
    code, _, err = run(capsys, [str(word) for word in [*arguments, "--steps", "3"]])
    assert (code, "expected one of them" in err) == (2, True)
    arguments[arguments.index(tmp_path / "run")] = tmp_path / "more"
    code, _, err = run(capsys, [str(word) for word in [*arguments, "--ckpt", path]])
    assert code == 0, err
    (more,) = (tmp_path / "more").glob("*.safetensors")
    assert path.name in json.loads(read_weights(more)[1].metadata["recipe"])["initial_weights"]
