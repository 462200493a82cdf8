"""Files: round trips, foreign files, atomic writing, damaged input, PNG."""

from __future__ import annotations

import os
import resource
import stat
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
import torch
from PIL import Image

from mitsuba_gdpt import exr
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.errors import FormatError, LayoutError, NonFiniteError

FULL = Layout.make(features=("visibility", "specular"), variances=True)
METADATA = {"version": "0.1.0", "spp": 8, "seed": 2**40, "scene": "Küche.xml"}


def buffers(layout: Layout = FULL, height: int = 5, width: int = 7) -> FrameBuffers:
    generator = torch.Generator().manual_seed(0)
    return FrameBuffers(torch.randn(height, width, layout.count, generator=generator), layout)


def pixel_types(path: Path) -> dict[str, Any]:
    channels = OpenEXR.File(str(path), separate_channels=True).channels()
    return {name: channel.pixels.dtype for name, channel in channels.items()}


class TestRoundTrip:
    @pytest.mark.parametrize("size", [(5, 7), (1, 1), (1, 9), (64, 3)])
    @pytest.mark.parametrize("layout", [Layout.make(), FULL])
    def test_values_names_and_metadata(
        self, tmp_path: Path, size: tuple[int, int], layout: Layout
    ) -> None:
        frame = buffers(layout, *size)
        frame.to_exr(tmp_path / "a.exr", metadata=METADATA)
        again = FrameBuffers.from_exr(tmp_path / "a.exr")
        assert again.layout == layout
        assert torch.equal(again.data, frame.data)
        assert again.metadata == {key: str(value) for key, value in METADATA.items()}
        assert exr.read_metadata(tmp_path / "a.exr") == again.metadata

    def test_layers_are_float32_and_named_as_in_the_table(self, tmp_path: Path) -> None:
        buffers().to_exr(tmp_path / "a.exr")
        types = pixel_types(tmp_path / "a.exr")
        assert set(types) == set(FULL.channels)
        assert {"R", "dx.G", "normal.Z", "depth.T", "dx.var"} <= set(types)
        assert set(types.values()) == {np.dtype(np.float32)}

    def test_half_concerns_only_primal_and_albedo(self, tmp_path: Path) -> None:
        buffers().to_exr(tmp_path / "a.exr", half=True)
        half = {name for name, kind in pixel_types(tmp_path / "a.exr").items() if kind == "f2"}
        assert half == {"R", "G", "B", "albedo.R", "albedo.G", "albedo.B"}
        again = FrameBuffers.from_exr(tmp_path / "a.exr")
        assert torch.equal(again.dx, buffers().dx)
        torch.testing.assert_close(again.primal, buffers().primal, atol=0, rtol=1e-3)

    def test_half_refuses_what_would_become_infinite(self, tmp_path: Path) -> None:
        frame = buffers()
        frame.primal[0, 0, 1] = 7e4
        with pytest.raises(FormatError, match="channel 'G' reaches 70000, float16 ends at 65504"):
            frame.to_exr(tmp_path / "a.exr", half=True)
        assert list(tmp_path.iterdir()) == []

    def test_values_that_are_not_finite_survive(self, tmp_path: Path) -> None:
        frame = buffers()
        frame.dy[1, 2] = torch.tensor([float("nan"), float("inf"), float("-inf")])
        frame.to_exr(tmp_path / "a.exr")
        again = FrameBuffers.from_exr(tmp_path / "a.exr")
        torch.testing.assert_close(again.data, frame.data, equal_nan=True, atol=0, rtol=0)

    def test_denoised_image_beside_the_buffers(self, tmp_path: Path) -> None:
        image = torch.rand(5, 7, 3)
        buffers().to_exr(tmp_path / "a.exr", image=image)
        np.testing.assert_array_equal(exr.read_image(tmp_path / "a.exr", exr.DENOISED), image)
        again = FrameBuffers.from_exr(tmp_path / "a.exr")
        assert again.layout == FULL
        assert torch.equal(again.data, buffers().data)

    def test_metadata_travels_with_the_buffers(self, tmp_path: Path) -> None:
        buffers().to_exr(tmp_path / "a.exr", metadata={"spp": 8, "seed": 1})
        again = FrameBuffers.from_exr(tmp_path / "a.exr").crop(0, 0, 3, 3)
        again.to_exr(tmp_path / "b.exr", metadata={"seed": 2})
        assert exr.read_metadata(tmp_path / "b.exr") == {"spp": "8", "seed": "2"}

    def test_data_set_is_not_changed_by_writing(self, tmp_path: Path) -> None:
        channels = {"R": np.ones((2, 2), np.float32)}
        exr.write(tmp_path / "a.exr", channels)
        assert isinstance(channels["R"], np.ndarray)

    @pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
    @pytest.mark.parametrize("half", [False, True])
    def test_image(self, tmp_path: Path, kind: Any, half: bool) -> None:
        array = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
        exr.write_image(tmp_path / "a.exr", kind(array), half=half, metadata={"spp": 1})
        np.testing.assert_array_equal(exr.read_image(tmp_path / "a.exr"), array)
        assert set(pixel_types(tmp_path / "a.exr").values()) == {np.dtype("f2" if half else "f4")}
        assert exr.read_metadata(tmp_path / "a.exr") == {"spp": "1"}


class TestForeignFiles:
    """Written by Mitsuba, which needs no variant for that."""

    @pytest.mark.parametrize("dtype", [np.float16, np.float32])
    def test_film(self, tmp_path: Path, dtype: Any) -> None:
        import mitsuba as mi

        layout = Layout.make(variances=True)
        data = np.random.default_rng(0).random((4, 6, layout.count)).astype(dtype)
        names = list(layout.channels)
        mi.Bitmap(
            np.insert(data, 3, 1, axis=-1),
            pixel_format=mi.Bitmap.PixelFormat.MultiChannel,
            channel_names=[*names[:3], "A", *names[3:]],
        ).write(str(tmp_path / "a.exr"))
        frame = FrameBuffers.from_exr(tmp_path / "a.exr", require=("primal", "dx", "dy.var"))
        assert frame.layout == layout
        np.testing.assert_array_equal(frame.data, data.astype(np.float32))
        assert frame.metadata == {}

    def test_plain_image(self, tmp_path: Path) -> None:
        import mitsuba as mi

        array = np.random.default_rng(0).random((4, 6, 3)).astype(np.float32)
        mi.Bitmap(array).write(str(tmp_path / "a.exr"))
        np.testing.assert_array_equal(exr.read_image(tmp_path / "a.exr"), array)
        assert FrameBuffers.from_exr(tmp_path / "a.exr").names == ("primal",)

    def test_our_files_open_in_mitsuba(self, tmp_path: Path) -> None:
        import mitsuba as mi

        buffers().to_exr(tmp_path / "a.exr", metadata=METADATA)
        frame = FrameBuffers.from_bitmap(mi.Bitmap(str(tmp_path / "a.exr")))
        assert frame.layout == FULL
        assert torch.equal(frame.data, buffers().data)


#: One attribute of each type of the format, windows and our own aside.
ATTRIBUTES: dict[str, Any] = {
    "pixelAspectRatio": 2.0,
    "screenWindowCenter": np.array([1, 2], np.float32),
    "screenWindowWidth": 3.0,
    "chromaticities": (1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.25, 0.25),
    "envmap": OpenEXR.ENVMAP_LATLONG,
    "framesPerSecond": Fraction(24000, 1001),
    "keyCode": OpenEXR.KeyCode(1, 2, 3, 4, 5, 4, 64),
    "timeCode": OpenEXR.TimeCode(1, 2, 3, 4, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8),
    "multiView": ["left", "right"],
    "worldToCamera": np.arange(16, dtype=np.float32).reshape(4, 4),
    "exact": np.arange(9, dtype=np.float64).reshape(3, 3),
    "weights": [1.5, 2.5],
    "count": 3,
    "owner": "Zoë",
    "preview": OpenEXR.PreviewImage(1, 1),
    "strange": OpenEXR.OpaqueAttribute(b"abc", "mytype"),
}


def window(left: int, top: int, right: int, bottom: int) -> tuple[Any, Any]:
    return np.array([left, top], np.int32), np.array([right, bottom], np.int32)


def attributes(path: Path) -> dict[bytes, bytes]:
    """Return the attributes of a header as they are stored, with their types."""
    content, position, found = path.read_bytes(), 8, {}
    while content[position]:
        name, kind, rest = content[position:].split(b"\0", 2)
        start = position + len(name) + len(kind) + 6
        (size,) = struct.unpack_from("<i", rest)
        found[name] = kind + b":" + content[start : start + size]
        position = start + size
    return found


class TestAttributes:
    """What other programs wrote into the header stays."""

    @pytest.mark.parametrize(
        ("data", "display"),
        [
            (window(10, 20, 15, 23), window(0, 0, 63, 63)),
            (window(-2, -1, 3, 2), window(0, 0, 1, 1)),  # overscan
            (window(0, 0, 5, 3), window(0, 0, 5, 3)),
        ],
    )
    def test_all_types_survive(self, tmp_path: Path, data: Any, display: Any) -> None:
        path, result = tmp_path / "a.exr", tmp_path / "b.exr"
        header = {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION}
        header |= {"dataWindow": data, "displayWindow": display, **ATTRIBUTES}
        planes = dict.fromkeys("RGB", np.ones((4, 6), np.float32))
        OpenEXR.File(header, planes).write(str(path))
        frame = FrameBuffers.from_exr(path)
        exr.write_image(result, frame.primal, attributes=frame.attributes)
        assert attributes(result) == attributes(path)
        frame.to("cpu").to_exr(result)
        assert attributes(result) == attributes(path)

    def test_storage_is_chosen_anew(self, tmp_path: Path) -> None:
        header = {
            "type": OpenEXR.tiledimage,
            "tiles": OpenEXR.TileDescription(),
            "compression": OpenEXR.PIZ_COMPRESSION,
            "lineOrder": OpenEXR.RANDOM_Y,
            "owner": "me",
        }
        planes = {name: np.full((70, 40), i, np.float16) for i, name in enumerate("RGB")}
        OpenEXR.File(header, planes).write(str(tmp_path / "a.exr"))
        frame = FrameBuffers.from_exr(tmp_path / "a.exr")
        assert frame.primal[3, 4].tolist() == [0, 1, 2]
        frame.to_exr(tmp_path / "b.exr")
        written = OpenEXR.File(str(tmp_path / "b.exr"), header_only=True).header()
        assert written["type"] == OpenEXR.scanlineimage
        assert written["owner"] == "me"
        assert "tiles" not in written

    def test_crop_moves_the_data_window(self, tmp_path: Path) -> None:
        header = {"dataWindow": window(10, 20, 15, 23), "displayWindow": window(0, 0, 63, 63)}
        planes = dict.fromkeys("RGB", np.ones((4, 6), np.float32))
        OpenEXR.File(header, planes).write(str(tmp_path / "a.exr"))
        FrameBuffers.from_exr(tmp_path / "a.exr").crop(2, 1, 3, 2).to_exr(tmp_path / "b.exr")
        written = exr.read(tmp_path / "b.exr").attributes
        assert np.array_equal(written["dataWindow"], window(12, 21, 14, 22))
        assert np.array_equal(written["displayWindow"], window(0, 0, 63, 63))

    def test_windows_of_another_size_are_left_out(self, tmp_path: Path) -> None:
        old = {"dataWindow": window(1, 1, 2, 2), "displayWindow": window(0, 0, 9, 9), "owner": "me"}
        exr.write_image(tmp_path / "a.exr", np.zeros((4, 6, 3)), attributes=old)
        written = exr.read(tmp_path / "a.exr").attributes
        assert np.array_equal(written["dataWindow"], window(0, 0, 5, 3))
        assert np.array_equal(written["displayWindow"], window(0, 0, 5, 3))
        assert written["owner"] == "me"

    def test_layers_of_parts(self, tmp_path: Path) -> None:
        plane = np.ones((2, 3), np.float32)
        parts = [
            OpenEXR.Part({"owner": "me"}, dict.fromkeys("RGB", plane), name="beauty"),
            OpenEXR.Part({}, dict.fromkeys("RGB", 2 * plane), name="albedo"),
            OpenEXR.Part({}, {f"normal.{c}": 3 * plane for c in "XYZ"}, name="third"),
        ]
        OpenEXR.File(parts).write(str(tmp_path / "a.exr"))
        frame = FrameBuffers.from_exr(tmp_path / "a.exr")
        assert frame.names == ("primal", "albedo", "normal")
        assert frame.data[0, 0].tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
        assert frame.attributes["owner"] == "me"

    def test_the_first_part_may_be_a_feature(self, tmp_path: Path) -> None:
        plane = np.ones((2, 3), np.float32)
        parts = [
            OpenEXR.Part({}, dict.fromkeys("RGB", plane), name="ViewLayer.Denoising Albedo"),
            OpenEXR.Part({}, dict.fromkeys("RGB", 2 * plane), name="ViewLayer.Noisy Image"),
        ]
        OpenEXR.File(parts).write(str(tmp_path / "a.exr"))
        channels = exr.read(tmp_path / "a.exr").channels
        assert channels["ViewLayer.Denoising Albedo.R"].mean() == 1
        assert channels["ViewLayer.Noisy Image.R"].mean() == 2
        assert len(channels) == 6


def write_chroma(path: Path, left: int, top: int, planes: dict[str, Any]) -> None:
    """Write an uncompressed file of luminance and chroma, which OpenEXR's Python module cannot."""
    height, width = planes["Y"].shape
    names, content = sorted(planes), b""
    for name in names:
        step = 1 if name == "Y" else 2
        content += name.encode() + b"\0" + struct.pack("<iB3x2i", 2, 0, step, step)
    box = struct.pack("<4i", left, top, left + width - 1, top + height - 1)
    header = {
        b"channels\0chlist": content + b"\0",
        b"compression\0compression": b"\0",
        b"dataWindow\0box2i": box,
        b"displayWindow\0box2i": box,
        b"lineOrder\0lineOrder": b"\0",
        b"pixelAspectRatio\0float": struct.pack("<f", 1),
        b"screenWindowCenter\0v2f": struct.pack("<2f", 0, 0),
        b"screenWindowWidth\0float": struct.pack("<f", 1),
    }
    head = struct.pack("<2i", 20000630, 2)
    for name, value in header.items():
        head += name + b"\0" + struct.pack("<i", len(value)) + value
    head += b"\0"
    rows, counter = [], dict.fromkeys(names, 0)
    for y in range(top, top + height):
        row = b""
        for name in names:
            if name == "Y" or y % 2 == 0:
                row += planes[name][counter[name]].astype("<f4").tobytes()
                counter[name] += 1
        rows.append(struct.pack("<2i", y, len(row)) + row)
    start, offsets = len(head) + 8 * height, []
    for row in rows:
        offsets.append(start)
        start += len(row)
    path.write_bytes(head + struct.pack(f"<{height}q", *offsets) + b"".join(rows))


@pytest.mark.parametrize(("left", "top"), [(0, 0), (-4, 2)])
def test_luminance_and_chroma_are_rgb(tmp_path: Path, left: int, top: int) -> None:
    """Colours that vary linearly over the picture come out as they went in."""
    height, width = 40, 44
    x, y = np.meshgrid(np.arange(left, left + width), np.arange(top, top + height))
    luminance = 1 + 0.05 * np.cos(x) + 0.01 * y
    ry, by = 0.01 * x - 0.3, 0.1 - 0.02 * y
    even = (slice(None, None, 2), slice(None, None, 2))  # windows begin at even pixels
    write_chroma(tmp_path / "a.exr", left, top, {"Y": luminance, "RY": ry[even], "BY": by[even]})
    red, blue = (ry + 1) * luminance, (by + 1) * luminance
    green = (luminance - 0.2126 * red - 0.0722 * blue) / 0.7152
    image = exr.read_image(tmp_path / "a.exr")
    inner = (slice(14, -14), slice(14, -14))  # borders are repeated
    expected = np.stack([red, green, blue], axis=-1)
    np.testing.assert_allclose(image[inner], expected[inner], rtol=0, atol=2e-4)
    np.testing.assert_allclose(image, expected, rtol=0, atol=0.3)


class TestBadFiles:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match=r"a\.exr: no such file; expected an EXR"):
            exr.read(tmp_path / "a.exr")

    @pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n rest", b"v/1\x01"[:3]])
    def test_not_an_exr(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.exr").write_bytes(content)
        with pytest.raises(FormatError, match=r"a\.exr: not an OpenEXR file"):
            exr.read(tmp_path / "a.exr")
        with pytest.raises(FormatError, match="not an OpenEXR file"):
            exr.read_metadata(tmp_path)

    @pytest.mark.parametrize("kept", [0.05, 0.5, 0.98])
    def test_truncated(self, tmp_path: Path, kept: float, capfd: Any) -> None:
        buffers(height=64, width=64).to_exr(tmp_path / "a.exr")
        content = (tmp_path / "a.exr").read_bytes()
        (tmp_path / "a.exr").write_bytes(content[: int(len(content) * kept)])
        with pytest.raises(FormatError, match=r"a\.exr: "):
            FrameBuffers.from_exr(tmp_path / "a.exr")

    def test_missing_layers_are_named(self, tmp_path: Path) -> None:
        exr.write_image(tmp_path / "a.exr", np.zeros((2, 2, 3)))
        with pytest.raises(FormatError, match=r"no layer dx, dy; the file has: B, G, R"):
            FrameBuffers.from_exr(tmp_path / "a.exr", require=("primal", "dx", "dy"))
        with pytest.raises(FormatError, match=r"no channel denoised.R.*has: B, G, R"):
            exr.read_image(tmp_path / "a.exr", exr.DENOISED)

    def test_incomplete_layer(self, tmp_path: Path) -> None:
        plane = np.zeros((2, 2))
        exr.write(tmp_path / "a.exr", {"R": plane, "G": plane, "B": plane, "dx.R": plane})
        with pytest.raises(FormatError, match=r"a\.exr: no channel dx\.G, dx\.B; there are: B, G"):
            FrameBuffers.from_exr(tmp_path / "a.exr")

    def test_parts_of_different_size(self, tmp_path: Path) -> None:
        parts = [
            OpenEXR.Part(
                {"displayWindow": window(0, 0, 8, 8)},
                {"Z": np.zeros((2, n), np.float32)},
                name=f"part{n}",
            )
            for n in (2, 3)
        ]
        OpenEXR.File(parts).write(str(tmp_path / "a.exr"))
        with pytest.raises(FormatError, match=r"a\.exr: the parts have different data windows"):
            exr.read(tmp_path / "a.exr")

    @pytest.mark.parametrize("kind", ["deepscanline", "deeptile"])
    def test_deep(self, tmp_path: Path, kind: str) -> None:
        pixels = np.empty((4, 4), dtype=object)
        for index in np.ndindex(4, 4):
            pixels[index] = np.full(2, 0.5, np.float32)
        header = {
            "type": getattr(OpenEXR, kind),
            "compression": OpenEXR.ZIPS_COMPRESSION,
            "tiles": OpenEXR.TileDescription(),
        }
        if kind == "deepscanline":
            del header["tiles"]
        OpenEXR.File(header, dict.fromkeys("ABGRZ", pixels)).write(str(tmp_path / "a.exr"))
        with pytest.raises(FormatError, match=r"a\.exr: channel 'A' is deep"):
            FrameBuffers.from_exr(tmp_path / "a.exr")

    @pytest.mark.parametrize("attribute", ["dataWindow", "tiles"])
    def test_promises_that_the_file_cannot_keep(self, tmp_path: Path, attribute: str) -> None:
        header: dict[str, Any] = {"type": OpenEXR.scanlineimage}
        if attribute == "tiles":
            header = {"type": OpenEXR.tiledimage, "tiles": OpenEXR.TileDescription()}
        header["compression"] = OpenEXR.ZIP_COMPRESSION
        path = tmp_path / "a.exr"
        OpenEXR.File(header, dict.fromkeys("RGB", np.ones((4, 4), np.float32))).write(str(path))
        content = bytearray(path.read_bytes())
        kind = b"box2i" if attribute == "dataWindow" else b"tiledesc"
        start = content.index(attribute.encode() + b"\0" + kind + b"\0") + len(attribute + "__")
        start += len(kind) + 4 + (8 if attribute == "dataWindow" else 0)
        content[start : start + 8] = struct.pack("<2i", 60_000, 60_000)
        path.write_bytes(content)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with pytest.raises(FormatError, match=r"a\.exr: "):
            exr.read(path)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**18  # KiB

    def test_damaged_files(self, tmp_path: Path, capfd: Any) -> None:
        """Every one is read or refused in one line that names the file; some of each."""
        path = tmp_path / "a.exr"
        buffers(Layout.make(), 16, 16).to_exr(path, metadata=METADATA)
        whole, read, refused = path.read_bytes(), 0, 0
        extremes = [struct.pack("<i", v) for v in (-1, 0, 2**31 - 1, -(2**31), 65535)]
        random = np.random.default_rng(0)
        for turn in range(300):
            content = bytearray(whole)
            head = int(random.integers(8, 900))
            if turn % 3 == 0:
                content[head : head + 4] = extremes[turn % len(extremes)]
            elif turn % 3 == 1:
                content[head] = int(random.integers(256))
            else:
                del content[int(random.integers(len(content))) :]
            path.write_bytes(content)
            message = None
            try:
                FrameBuffers.from_exr(path)
                read += 1
            except FormatError as error:
                message = str(error)
                refused += 1
            assert message is None or message.startswith(f"{path}: ")
            assert "\n" not in (message or "")
        assert read > 20
        assert refused > 100


class TestWriting:
    def test_failure_leaves_the_old_file(self, tmp_path: Path, monkeypatch: Any) -> None:
        path = tmp_path / "a.exr"
        buffers().to_exr(path)
        before = path.read_bytes()

        def break_off(self: Any, name: str) -> None:
            Path(name).write_bytes(before[:100])
            raise RuntimeError("disk full")

        class Broken(OpenEXR.File):
            write = break_off

        monkeypatch.setattr(OpenEXR, "File", Broken)
        with pytest.raises(FormatError, match=r"a\.exr: cannot write this file: disk full"):
            buffers().to_exr(path)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]

    def test_replaces_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "a.exr"
        exr.write_image(path, np.full((2, 2, 3), 1.0))
        before = path.read_bytes()
        with path.open("rb") as reader:
            exr.write_image(path, np.full((2, 2, 3), 2.0))
            assert reader.read() == before  # who has the file open keeps a whole one
        assert exr.read_image(path).max() == 2
        assert list(tmp_path.iterdir()) == [path]

    def test_readable_by_others(self, tmp_path: Path) -> None:
        previous = os.umask(0o022)
        try:
            exr.write_image(tmp_path / "a.exr", np.zeros((2, 2, 3)))
            exr.write_png(tmp_path / "a.png", np.zeros((2, 2, 3)))
        finally:
            os.umask(previous)
        for path in tmp_path.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o644

    @pytest.mark.parametrize("write", [exr.write_image, exr.write_png])
    def test_missing_folder(self, tmp_path: Path, write: Any) -> None:
        with pytest.raises(FormatError, match=r"the folder .*nowhere does not exist; create it"):
            write(tmp_path / "nowhere" / "a.x", np.zeros((2, 2, 3)))

    @pytest.mark.parametrize("write", [exr.write_image, exr.write_png])
    @pytest.mark.parametrize("shape", [(2, 2), (2, 2, 4), (1, 2, 2, 3)])
    def test_refuses_other_shapes(self, tmp_path: Path, write: Any, shape: Any) -> None:
        with pytest.raises(LayoutError, match=r"shape \(.*expected \(H, W, 3\)"):
            write(tmp_path / "a.x", np.zeros(shape))

    @pytest.mark.parametrize(
        "channels",
        [{}, {"R": np.zeros(3)}, {"R": np.zeros((0, 2))}, {"R": np.eye(2), "G": np.eye(3)}],
    )
    def test_refuses_channels_of_unequal_shape(self, tmp_path: Path, channels: Any) -> None:
        with pytest.raises(LayoutError, match=r"expected channels of one shape"):
            exr.write(tmp_path / "a.exr", channels)


class TestPng:
    def test_encodes_srgb(self, tmp_path: Path) -> None:
        # IEC 61966-2-1: linear 0.5 is 187.5 of 255; 0.002 lies on the straight part.
        values = np.array([-1, 0, 0.002, 0.2158605, 0.5, 1, 7], np.float32)
        exr.write_png(tmp_path / "a.png", np.repeat(values, 3).reshape(1, 7, 3))
        picture = np.asarray(Image.open(tmp_path / "a.png"))
        assert picture.dtype == np.uint8
        assert picture[0, :, 1].tolist() == [0, 0, 7, 128, 188, 255, 255]

    def test_channels_and_orientation(self, tmp_path: Path) -> None:
        image = np.zeros((2, 3, 3))
        image[0, 2] = [1, 0, 0]
        image[1, 0] = [0, 0, 1]
        exr.write_png(tmp_path / "a.png", torch.from_numpy(image))
        picture = Image.open(tmp_path / "a.png").convert("RGB")
        assert picture.size == (3, 2)
        assert picture.getpixel((2, 0)) == (255, 0, 0)
        assert picture.getpixel((0, 1)) == (0, 0, 255)

    def test_exposure_counts_stops(self, tmp_path: Path) -> None:
        exr.write_png(tmp_path / "a.png", np.full((1, 1, 3), 0.125), exposure=2)
        exr.write_png(tmp_path / "b.png", np.full((1, 1, 3), 0.5))
        assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()

    def test_primaries_become_those_of_srgb(self, tmp_path: Path) -> None:
        """Grey stays grey, and the red of Rec. 2020 is beyond that of Rec. 709."""
        wide = {"chromaticities": (0.708, 0.292, 0.17, 0.797, 0.131, 0.046, 0.3127, 0.329)}
        image = np.array([[[0.5, 0.5, 0.5], [0.25, 0, 0], [0.25, 0.25, 0]]], np.float32)
        exr.write_png(tmp_path / "a.png", image, attributes=wide)
        # Rec. ITU-R BT.2087: linear Rec. 709 red is 1.6605 R - 0.5876 G - 0.0728 B.
        picture = np.asarray(Image.open(tmp_path / "a.png"))
        encoded = exr.linear_to_srgb(np.array([0.25 * 1.6605, 0.25 * (1.6605 - 0.5876)]))
        assert picture[0, 0].tolist() == [188, 188, 188]
        assert picture[0, 1, 0] == round(float(encoded[0]) * 255)
        assert picture[0, 1, 1:].tolist() == [0, 0]
        assert picture[0, 2, 0] == round(float(encoded[1]) * 255)

    @pytest.mark.parametrize("white", [(1 / 3, 1 / 3), (0.32168, 0.33767)])
    def test_white_stays_white(self, tmp_path: Path, white: tuple[float, float]) -> None:
        primaries = {"chromaticities": (1.0, 0.0, 0.0, 1.0, 0.0, 0.0, *white)}
        exr.write_png(tmp_path / "a.png", np.full((1, 1, 3), 0.5), attributes=primaries)
        assert np.asarray(Image.open(tmp_path / "a.png")).tolist() == [[[188, 188, 188]]]

    def test_primaries_that_make_no_sense(self, tmp_path: Path) -> None:
        for values in ((0.0,) * 8, (0.3, 0.3) * 4, (float("nan"),) * 8):
            with pytest.raises(FormatError, match=r"a\.png: chromaticities .* are no primaries"):
                exr.write_png(
                    tmp_path / "a.png", np.ones((1, 1, 3)), attributes={"chromaticities": values}
                )

    @pytest.mark.parametrize(("aspect", "ratio"), [(2.0, 0.5), (0.5, 2.0), (1.0, None)])
    def test_pixel_aspect(self, tmp_path: Path, aspect: float, ratio: float | None) -> None:
        given = {"pixelAspectRatio": aspect}
        exr.write_png(tmp_path / "a.png", np.ones((2, 2, 3)), attributes=given)
        dpi = Image.open(tmp_path / "a.png").info.get("dpi")
        assert (dpi is None) if ratio is None else dpi[0] / dpi[1] == pytest.approx(ratio, rel=1e-3)

    def test_refuses_nan(self, tmp_path: Path) -> None:
        image = np.zeros((2, 3, 3))
        image[1, 1, 0] = np.nan
        with pytest.raises(NonFiniteError, match="1 of 6 pixels are NaN or infinite"):
            exr.write_png(tmp_path / "a.png", image)
        assert list(tmp_path.iterdir()) == []
