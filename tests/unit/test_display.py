"""Pictures in notebooks and in tev: what each buffer looks like, and that nothing is injected."""

from __future__ import annotations

import base64
import io
import re
import socket
import struct
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mitsuba_gdpt import Layout, Live, exr, methods, pictures, progress, show, to_tev
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import CORE
from mitsuba_gdpt.denoisers.listing import Methods
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
    assert ">poisson-l2</td>" in html
    assert methods()[0]._repr_html_().count("<tr>") == 2
    assert tuple(methods()) == methods()


def test_methods_are_a_table_in_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    found = methods()
    lines = found.text(80).splitlines()
    assert lines[0].split() == ["methods", "s/MP", "error"]
    assert max(map(len, lines)) <= 80
    names = [line.split()[0] for line in lines if re.match(r"  \S", line)]
    assert sorted(names) == sorted(method.name for method in found)
    by_error = [method.error for name in names for method in found if method.name == name]
    everyday = sum(method.group == "everyday" for method in found)
    known = [error for error in by_error[:everyday] if error is not None]
    assert known == sorted(known)
    assert len(known) >= 2
    for width in (70, 120):
        monkeypatch.setenv("COLUMNS", str(width))
        assert width - 20 < max(map(len, repr(found).splitlines())) <= width
    assert "no weights here" in _refusing().text(80)


def test_a_method_says_what_it_takes() -> None:
    text = repr(next(method for method in methods() if method.name == "poisson-l1"))
    assert text.startswith("poisson-l1 (everyday): screened Poisson")
    assert "\n  needs: primal, dx, dy" in text
    assert re.search(r"\n  options: .*alpha=", text)
    assert "here" not in text
    assert "\n  here: no weights here" in repr(_refusing()[0])


def _refusing() -> Methods:
    def check(options: object) -> None:
        raise MissingDependencyError("no weights here")

    return Methods([replace(methods()[0], check=check)])


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a notebook is told to show; stands for IPython in a kernel."""
    shown: list[Any] = []
    handle = SimpleNamespace(update=shown.append)

    def display(thing: Any, display_id: bool) -> SimpleNamespace:
        assert display_id
        shown.append(thing)
        return handle

    ipython, module = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=None)  # type: ignore[attr-defined]
    module.HTML, module.display = str, display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return shown


class TestProgress:
    def test_long_work_is_shown_and_goes(
        self, updates: list[Any], monkeypatch: pytest.MonkeyPatch
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

    def test_short_work_is_not(self, updates: list[Any]) -> None:
        with progress.task("rendering", 1) as task:
            task.advance()
        assert not updates

    def test_a_terminal_is_no_notebook(
        self, updates: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: None)
        assert isinstance(progress.current(), progress.SilentReporter)


class FakeIpc:
    """Stands for ``tevclient.Ipc``: keeps what it is told."""

    last: FakeIpc

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


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the fake in the place of tevclient."""
    module = ModuleType("tevclient")
    module.Ipc = FakeIpc  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tevclient", module)


def test_tev_gets_all_layers(client: None) -> None:
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


class TestLive:
    """A render while it goes on; ``on_update`` of ``render()``."""

    IMAGE = torch.full((6, 8, 3), 2.0)

    def test_one_picture_in_a_notebook(self, updates: list[Any]) -> None:
        live, buffers = Live("room"), frame()
        for spp, factor in (("2", 1), ("4", 0.5)):
            buffers.metadata["spp"] = spp
            live(self.IMAGE * factor, buffers)
        first, second = (shown(picture._repr_html_()) for picture in updates)
        assert [*first, *second] == ["room, 2 spp", "room, 4 spp"]
        assert first["room, 2 spp"][0, 0, 0] == 231
        assert second["room, 4 spp"][0, 0, 0] == exr.to_8bit(np.full((1, 1, 3), 0.4))[0, 0, 0]

    def test_one_image_in_tev(self, client: None) -> None:
        live, buffers = Live("room", tev=True), frame()
        live(self.IMAGE, buffers)
        host, made, _, clean, _, _ = FakeIpc.last.told
        assert host == ("localhost", 14158)
        assert (made[0], clean[0]) == ("room", "room, denoised")
        live(self.IMAGE / 2, buffers)
        _, pixels, image, _ = FakeIpc.last.told  # nothing is created anew
        np.testing.assert_array_equal(image[1], self.IMAGE / 2)
        assert pixels[2] == list(buffers.layout.channels)

    def test_a_viewer_that_is_closed_ends_no_render(
        self, client: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(GDPTError, match="no tev listens at far:1"):
            Live(tev="far:1")(self.IMAGE, frame())
        live = Live(tev="far:2")
        live(self.IMAGE, frame())

        def refuse(ipc: FakeIpc) -> FakeIpc:
            raise ConnectionRefusedError(111, "Connection refused")

        monkeypatch.setattr(FakeIpc, "__enter__", refuse)
        with pytest.warns(UserWarning, match="no tev listens at far:2.*the render goes on"):
            live(self.IMAGE, frame())

    def test_nowhere_to_show(self) -> None:
        with pytest.raises(ConfigError, match=r"no notebook .* pass tev=True"):
            Live()


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
