"""Pictures in notebooks and in tev: what each buffer looks like, and that nothing is injected."""

from __future__ import annotations

import base64
import io
import re
import socket
import struct
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mitsuba_gdpt import Layout, methods, pictures, progress, show, to_tev
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import CORE
from mitsuba_gdpt.errors import ConfigError, GDPTError, MissingDependencyError


def shown(html: str) -> dict[str, np.ndarray]:
    """Return the pictures in HTML by their names."""
    found = re.findall(r'base64,([^"]+)" alt="([^"]*)"', html)
    return {
        name: np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data, name in found
    }


def frame(height: int = 6, width: int = 8) -> FrameBuffers:
    layout = Layout.make(features=("position",), variances=True)
    return FrameBuffers(torch.zeros(height, width, layout.count), layout)


def test_every_buffer_is_seen_as_what_it_is() -> None:
    buffers = frame()
    buffers.primal[:] = 4
    buffers.primal[0] = 0
    buffers.dx[2] = -1
    buffers.dx[3] = 1
    buffers.albedo[:] = torch.tensor([1.0, 0.0, 0.5])
    buffers.normal[..., 2] = -1
    buffers.depth[1:] = 5
    buffers.primal_var[:] = 4
    html = buffers._repr_html_()
    seen = shown(html)
    assert list(seen) == list(buffers.names)
    assert seen["primal"][1, 0].tolist() == [231, 231, 231]  # sRGB of 0.8: the brightest
    assert seen["primal"][0, 0].tolist() == [0, 0, 0]
    assert [int(seen["dx"][row, 0, 0]) for row in (1, 2, 3)] == [128, 0, 255]
    assert seen["albedo"][0, 0].tolist() == [255, 0, 188]
    assert seen["normal"][0, 0].tolist() == [128, 128, 0]
    assert [int(seen["depth"][row, 0, 0]) for row in (0, 1)] == [0, 51]  # the sky is black
    assert seen["primal.var"][0, 0].tolist() == [255, 255, 255]
    assert "<b>primal</b>" in html
    assert "0 … 4<" in html
    assert "-1 … 1<" in html


def test_what_is_not_finite_is_marked_and_counted() -> None:
    buffers = frame()
    buffers.primal[0, 0, 1] = torch.nan
    buffers.primal[1, 2] = torch.inf
    html = buffers._repr_html_()
    assert "2 pixels not finite" in html
    assert shown(html)["primal"][0, 0].tolist() == [255, 0, 255]
    nothing = FrameBuffers(torch.full((2, 2, 3), torch.nan), Layout(CORE[:1]))
    assert "4 pixels not finite" in nothing._repr_html_()


def test_large_frames_are_small_pictures() -> None:
    html = FrameBuffers(torch.rand(720, 1280, 3), Layout(CORE[:1]))._repr_html_()
    assert shown(html)["primal"].shape == (144, 256, 3)
    assert len(html) < 200_000
    several = FrameBuffers(torch.rand(2, 4, 4, 3), Layout(CORE[:1]))
    assert shown(several._repr_html_())["primal"].shape == (4, 4, 3)


def test_images_are_shown_with_one_exposure(tmp_path: Path) -> None:
    image = np.full((4, 6, 3), 2.0, np.float32)
    pair = show(dark=image / 2, bright=torch.from_numpy(image))
    seen = shown(pair._repr_html_())
    assert seen["dark"][0, 0, 0] == 231
    assert seen["bright"][0, 0, 0] == 255
    fixed = shown(show(image, exposure=-1)._repr_html_())
    assert fixed["image"][0, 0, 0] == 255
    assert list(shown(show(image, frame())._repr_html_())) == ["image 1", "image 2"]
    pair.save(tmp_path / "a.html")
    assert shown((tmp_path / "a.html").read_text())["dark"].shape == (4, 6, 3)
    with pytest.raises(ConfigError, match="no image to show"):
        show()


def test_names_are_no_html() -> None:
    evil = "<script>alert(1)</script>"
    html = show(**{evil: np.ones((2, 2, 3), np.float32)})._repr_html_()
    assert "<script>" not in html
    assert "<script>" not in pictures.to_table(("a",), [(evil,)])


def test_methods_are_a_table() -> None:
    html = methods()._repr_html_()
    assert html.count("<tr>") == len(methods()) + 1
    assert "<td>poisson-l2</td>" in html
    assert methods()[0]._repr_html_().count("<tr>") == 2
    assert tuple(methods()) == methods()


class TestProgress:
    @pytest.fixture
    def updates(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What a notebook is told to show; stands for IPython in a kernel."""
        texts: list[str] = []
        handle = SimpleNamespace(update=texts.append)

        def display(text: str, display_id: bool) -> SimpleNamespace:
            texts.append(text)
            return handle

        ipython, module = ModuleType("IPython"), ModuleType("IPython.display")
        ipython.get_ipython = lambda: SimpleNamespace(kernel=None)  # type: ignore[attr-defined]
        module.HTML, module.display = str, display  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "IPython", ipython)
        monkeypatch.setitem(sys.modules, "IPython.display", module)
        return texts

    def test_long_work_is_shown_and_goes(
        self, updates: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert isinstance(progress.current(), progress.NotebookReporter)
        with progress.reporting(progress.NotebookReporter(0)), progress.task("a < b", 4) as task:
            task.advance()
            task.advance()
        assert [re.sub(" after.*", "", text) for text in updates] == [
            '<progress value="25" max="100"></progress> a &lt; b: 25 %',
            '<progress value="50" max="100"></progress> a &lt; b: 50 %',
            "",
        ]

    def test_short_work_is_not(self, updates: list[str]) -> None:
        with progress.task("rendering", 1) as task:
            task.advance()
        assert not updates

    def test_a_terminal_is_no_notebook(
        self, updates: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
        assert isinstance(progress.current(), progress.SilentReporter)


class FakeIpc:
    """Stands for ``tevclient.Ipc``: keeps what it is told."""

    def __init__(self, host: str, port: int) -> None:
        self.told: list[Any] = [(host, port)]
        FakeIpc.last = self

    def __enter__(self) -> FakeIpc:
        if self.told[0][1] == 1:
            raise ConnectionRefusedError(111, "Connection refused")
        return self

    def __exit__(self, *error: object) -> None:
        self.told.append("closed")

    def create_image(self, *words: Any) -> None:
        self.told.append(words)

    def update_image(self, *words: Any) -> None:
        self.told.append(words)


def test_tev_gets_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("tevclient")
    module.Ipc = FakeIpc  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tevclient", module)
    buffers = frame()
    to_tev(buffers, clean=np.ones((6, 8, 3), np.float32), address="far:14158")
    (host, first, pixels, second, image, end) = FakeIpc.last.told
    channels = list(buffers.layout.channels)
    assert (host, end) == (("far", 14158), "closed")
    assert first == ("frame 1", 8, 6, channels)
    assert second == ("clean", 8, 6, ["R", "G", "B"])
    assert (pixels[0], pixels[2]) == ("frame 1", channels)
    np.testing.assert_array_equal(pixels[1], buffers.data.numpy())
    np.testing.assert_array_equal(image[1], 1)
    with pytest.raises(GDPTError, match=r"no tev listens at far:1 \(Connection refused\)"):
        to_tev(buffers, address="far:1")
    with pytest.raises(ConfigError, match="expected HOST:PORT"):
        to_tev(buffers, address="far")


def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tevclient", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mitsuba-gdpt\[tev\]'"):
        to_tev(frame())


def test_the_protocol_of_tev() -> None:
    """With the real client: a socket gets packets, each of the length that it begins with."""
    pytest.importorskip("tevclient")
    server = socket.create_server(("localhost", 0))
    received = bytearray()

    def listen() -> None:
        connection, _ = server.accept()
        with connection:
            while block := connection.recv(1 << 16):
                received.extend(block)

    listener = threading.Thread(target=listen)
    listener.start()
    to_tev(frame(), address=f"localhost:{server.getsockname()[1]}")
    listener.join(10)
    server.close()
    lengths, offset = [], 0
    while offset < len(received):
        lengths.append(struct.unpack_from("<I", received, offset)[0])
        offset += lengths[-1]
    assert offset == len(received)
    assert len(lengths) == 2
    assert lengths[1] > frame().data.numel() * 4
