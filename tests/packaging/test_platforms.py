"""Systems that cannot be had here: their modules hidden, their devices faked where they are asked.

What only such a system can show is listed as untested in docs/reference/platforms.md.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mitsuba_gdpt import Layout, _llvm, buffers, denoisers, files, integrators, rendering
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.denoisers import registry
from mitsuba_gdpt.errors import ConfigError, VariantError

#: What only POSIX has, for our own modules: libraries know what they do.
HIDDEN = """
import builtins, os, sys
import torch, multiprocessing.reduction  # libraries look at these when they are imported
modules = {"resource", "fcntl", "termios", "pwd", "grp", "pty", "tty", "syslog", "posix"}
original = builtins.__import__
def hidden(name, globals=None, *more, **words):
    who = (globals or {}).get("__name__", "")
    if who.startswith("mitsuba_gdpt") and name.partition(".")[0] in modules:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return original(name, globals, *more, **words)
builtins.__import__ = hidden
names = ("pread", "fork", "register_at_fork", "getuid", "sched_getaffinity", "killpg", "setsid")
for name in names:
    delattr(os, name)
from mitsuba_gdpt.cli import main
for words in sys.argv[1].split(";"):
    try:
        main(words.split())
    except SystemExit as stop:
        assert not stop.code, words
"""


def test_the_core_does_without_posix(tmp_path: Path) -> None:
    size = "--spp 1 --width 16 --height 16"
    commands = (
        "info",
        f"render builtin:corner-gallery {size} --denoise poisson-l2 -o a.exr --png a.png",
        "denoise a.exr -o b.exr --quality fast",
    )
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN, ";".join(commands)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "peak memory unknown, wrote b.exr" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.exr", "a.png", "b.exr"]


def test_units_of_work_say_where_they_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mitsuba_gdpt.execution import process

    monkeypatch.setattr(process.os, "name", "nt")
    with pytest.raises(ConfigError, match="which 'nt' has not; use Linux, macOS or WSL"):
        process.UnitProcess(b"", 1, None, tmp_path)


def test_processes_of_windows_are_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, signal 0 is Ctrl-C for everybody."""
    monkeypatch.setattr(files, "_CAN_ASK", False)
    monkeypatch.setattr(files.os, "kill", None)
    other = files.temporary_beside(tmp_path / "a.exr")
    other.touch()
    assert not files.is_abandoned(other)
    old = files.time.time() - 2 * files._FORGOTTEN
    files.os.utime(other, (old, old))
    assert files.is_abandoned(other)


@pytest.mark.parametrize(
    ("platform", "machine", "remedy"),
    [
        ("linux", "x86_64", "pip install karellen-llvm-core"),
        ("linux", "aarch64", "apt install libllvm19"),
        ("darwin", "arm64", "brew install llvm"),
        ("win32", "AMD64", "github.com/llvm/llvm-project/releases"),
    ],
)
def test_how_llvm_is_installed(
    platform: str, machine: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_llvm.sys, "platform", platform)
    monkeypatch.setattr(_llvm.platform, "machine", lambda: machine)
    monkeypatch.setattr(_llvm, "loaded_version", lambda: None)
    text = _llvm.problem()
    assert text is not None
    assert remedy in text
    assert ("karellen" in text) == (machine == "x86_64")


class TestMetal:
    """Variants of Mitsuba, Dr.Jit's tensors, torch's device."""

    @pytest.mark.parametrize("found", [True, False])
    def test_variants(self, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        import drjit as dr
        import mitsuba as mi

        names = ["scalar_rgb", "llvm_ad_rgb", "metal_ad_rgb", "metal_ad_spectral_polarized"]
        chosen: list[str] = []
        monkeypatch.setattr(mi, "variants", lambda: names)
        monkeypatch.setattr(mi, "set_variant", chosen.append)
        monkeypatch.setattr(
            dr, "has_backend", lambda backend: found or backend is not dr.JitBackend.Metal
        )
        assert rendering.supported_variants() == ["llvm_ad_rgb", "metal_ad_rgb"]
        assert integrators.is_supported("metal_ad_mono")
        if found:
            assert rendering.set_variant("metal_ad_rgb") == "metal_ad_rgb"
            assert chosen == ["metal_ad_rgb"]
        else:
            with pytest.raises(VariantError, match="needs a GPU of Apple, and"):
                rendering.set_variant("metal_ad_rgb")

    def test_tensors_are_copied(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class TensorXf:
            """Stands for ``drjit.metal.ad.TensorXf``."""

            def __init__(self, array: np.ndarray) -> None:
                self.array, self.shape = array, array.shape

            def __dlpack__(self) -> Any:
                raise BufferError

            def __dlpack_device__(self) -> tuple[int, int]:
                return 8, 0  # kDLMetal

            def numpy(self) -> np.ndarray:
                return self.array

        TensorXf.__module__ = "drjit.metal.ad"
        source = TensorXf(np.random.default_rng(0).random((4, 6, 3)).astype(np.float32))
        image = denoisers.denoise(source, "none")
        assert type(image) is TensorXf
        np.testing.assert_array_equal(image.array, source.array)
        assert buffers.as_tensor(source).shape == (4, 6, 3)

    @pytest.mark.parametrize("method", ["poisson-l1", "oidn", "nfor", "temporal", "oidn-fusion"])
    def test_methods_that_need_the_host(self, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Buffers that say they are on mps are brought to the host, the image back."""

        class OnMetal(FrameBuffers):
            device = torch.device("mps")

        moves: list[str] = []

        def moved(value: Any, device: Any) -> Any:
            if isinstance(value, OnMetal | torch.Tensor):
                moves.append(str(device))
            return FrameBuffers(value.data, value.layout) if isinstance(value, OnMetal) else value

        monkeypatch.setattr(registry, "_on", moved)
        frame = self.frame()
        expected = denoisers.denoise(frame, method)
        image = denoisers.denoise(OnMetal(frame.data, frame.layout), method)
        assert torch.equal(image, expected)
        assert moves == ["cpu", "mps"]

    def test_networks_compute_what_the_device_can(self) -> None:
        """Apple's GPUs have no float64."""
        frame = self.frame()
        networks = [entry for entry in denoisers.methods() if entry.anywhere and entry.available]
        assert {"ngpt", "ngpt-fusion-fast", "kpcn-small", "rdae"} <= {n.name for n in networks}
        for entry in networks:
            if entry.name == "ngpt":
                continue  # the architecture of ngpt-small, thirty times its size
            state = (None,) if entry.recurrent else ()
            with torch.no_grad(), NoFloat64(entry.name):
                entry.target(frame, *state)

    def frame(self) -> FrameBuffers:
        layout = Layout.make(features=("diffuse", "specular"), variances=True)
        random = torch.Generator().manual_seed(0)
        data = torch.rand(16, 16, layout.count, generator=random) + 0.01
        return FrameBuffers(data, layout).appended("motion", torch.zeros(16, 16, 2))


class NoFloat64(TorchDispatchMode):
    """Refuses results of twice the precision, as mps does; methods on the host are let through."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), words: Any = None):
        result = function(*args, **(words or {}))
        tensors = result if isinstance(result, tuple | list) else (result,)
        for tensor in tensors:
            double = isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64
            assert not double, f"{self.name}: {function} makes float64"
        return result
