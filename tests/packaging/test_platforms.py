"""Systems that cannot be had here: their modules hidden, their devices faked where they are asked.

What only such a system can show is listed as untested in docs/reference/platforms.md.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mitsuba_gdpt import (
    Layout,
    _llvm,
    arrays,
    denoisers,
    files,
    integrators,
    rendering,
    subprocesses,
)
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.denoisers import registry
from mitsuba_gdpt.errors import VariantError
from mitsuba_gdpt.execution import link, process
from tests.work import Crash, Raise, WriteFile

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


class TestUnitsWithoutInheritance:
    """Processes for units where children inherit no descriptors, as on Windows: really started."""

    @pytest.fixture
    def keeper(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Iterator[process.ProcessKeeper]:
        started = subprocess.Popen

        def popen(*words: Any, **options: Any) -> Any:
            assert not options.keys() & {"pass_fds", "start_new_session", "preexec_fn"}
            return started(*words, **options)

        monkeypatch.setattr(link, "INHERITS", False)
        monkeypatch.setattr(process.subprocess, "Popen", popen)
        monkeypatch.delattr(process.os, "pread")
        monkeypatch.setattr(subprocesses, "_fcntl", None)
        kept = process.ProcessKeeper(
            setup=pickle.dumps(None),
            threads=1,
            units_per_process=2,
            retries=1,
            memory_limit=None,
            name="worker",
        )
        yield kept
        kept.close()

    def test_units(self, keeper: process.ProcessKeeper, tmp_path: Path) -> None:
        units = [WriteFile(tmp_path, f"u{i}") for i in range(3)]
        for unit in units:
            assert not keeper.run(pickle.dumps(unit)).error
        first, second, third = (unit.record()["pid"] for unit in units)
        assert first == second != third
        assert len({first, third, os.getpid()}) == 3
        outcome = keeper.run(pickle.dumps(Raise(tmp_path, "a")))
        assert outcome.error == "ZeroDivisionError: not this time"

    def test_deaths(self, keeper: process.ProcessKeeper, tmp_path: Path) -> None:
        outcome = keeper.run(pickle.dumps(Crash(tmp_path, "a")))
        assert "Critical failure: no more registers" in outcome.details
        assert ", 2 times in a row" in outcome.error

    def test_one_that_never_connects(
        self, keeper: process.ProcessKeeper, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(process, "_PROGRAM", "print('no memory'); sys.exit(3)")
        outcome = keeper.run(b"")
        assert outcome.error == "setting up failed: its process ended with exit code 3"
        assert outcome.details == "no memory"

    def test_strangers_are_turned_away(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(link, "INHERITS", False)
        program = (
            "import os, sys; from mitsuba_gdpt.execution import link; "
            "link.connect(sys.argv[1]).send(sorted(k for k in os.environ if 'GDPT_LINK' in k))"
        )

        def child(address: str, more: Mapping[str, str], words: dict[str, Any]) -> Any:
            host, port = address.split(":")
            with socket.create_connection((host, int(port))) as stranger:
                stranger.sendall(bytes(100))
            environment = subprocesses.environment() | more
            command = subprocesses.python(program, address)
            return subprocess.Popen(command, env=environment, **words)

        started, connection = link.start(child)
        with connection:
            assert connection.poll(60)
            assert connection.recv() == []
        assert started.wait(60) == 0


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
        assert arrays.as_tensor(source).shape == (4, 6, 3)

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
        assert {"ngpt", "ngpt-fusion", "kpcn-small", "rdae"} <= {n.name for n in networks}
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
