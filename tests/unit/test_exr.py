"""Files: round trips, foreign files, atomic writing, damaged input, PNG."""

from __future__ import annotations

import os
import stat
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

    def test_multi_part(self, tmp_path: Path) -> None:
        parts = [
            OpenEXR.Part({}, {"Z": np.zeros((2, 2), np.float32)}, name=name) for name in ("a", "b")
        ]
        OpenEXR.File(parts).write(str(tmp_path / "a.exr"))
        with pytest.raises(FormatError, match="got 2 readable parts; expected one"):
            exr.read(tmp_path / "a.exr")


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

    def test_refuses_nan(self, tmp_path: Path) -> None:
        image = np.zeros((2, 3, 3))
        image[1, 1, 0] = np.nan
        with pytest.raises(NonFiniteError, match="1 of 6 pixels are NaN or infinite"):
            exr.write_png(tmp_path / "a.png", image)
        assert list(tmp_path.iterdir()) == []
