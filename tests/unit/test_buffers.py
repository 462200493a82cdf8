"""FrameBuffers: names, shared memory, sources of every kind, border rule, validation."""

from __future__ import annotations

import copy
import gc
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mitsuba_gdpt.buffers import FrameBuffers, as_frame_buffers
from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.denoisers import denoise
from mitsuba_gdpt.errors import ConfigError, LayoutError, MissingDependencyError, NonFiniteError

FULL = Layout.make(features=("roughness", "position"), variances=True)


def numbered(height: int = 4, width: int = 5, layout: Layout = FULL) -> torch.Tensor:
    """A tensor in which every value occurs once."""
    count = height * width * layout.count
    return torch.arange(count, dtype=torch.float32).reshape(height, width, layout.count)


class TestAccess:
    def test_views_share_memory(self) -> None:
        data = numbered()
        buffers = FrameBuffers(data, FULL)
        offset = 0
        for buffer in FULL.buffers:
            view = buffers[buffer.name]
            assert view.shape == (4, 5, len(buffer))
            assert view.data_ptr() == data.data_ptr() + 4 * offset
            assert torch.equal(getattr(buffers, buffer.attribute), view)
            offset += len(buffer)
        buffers.dx_var[:] = -1
        assert (data == -1).sum() == 20

    def test_properties(self) -> None:
        buffers = FrameBuffers(numbered(4, 7), FULL)
        assert (buffers.height, buffers.width) == (4, 7)
        assert buffers.names == FULL.names
        assert buffers.layout is FULL
        assert buffers.device.type == "cpu"
        assert "roughness" in buffers
        assert "visibility" not in buffers
        assert "dx_var" in dir(buffers)
        assert "4 x 7" in repr(buffers)

    def test_missing_buffer(self) -> None:
        buffers = FrameBuffers(numbered(layout=Layout.make()), Layout.make())
        with pytest.raises(LayoutError, match=r"no buffer 'dx.var'; there are: primal, dx"):
            _ = buffers["dx.var"]
        with pytest.raises(AttributeError, match=r"no buffer 'dx.var'"):
            _ = buffers.dx_var
        with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
            _ = buffers.nonsense
        assert not hasattr(buffers, "roughness")

    def test_survives_copy_and_pickle(self) -> None:
        buffers = FrameBuffers(numbered(), FULL, {"spp": "8"})
        for clone in (copy.deepcopy(buffers), pickle.loads(pickle.dumps(buffers))):
            assert torch.equal(clone.data, buffers.data)
            assert clone.names == buffers.names
            assert clone.metadata == {"spp": "8"}
            assert torch.equal(clone.depth, buffers.depth)

    def test_to(self) -> None:
        buffers = FrameBuffers(numbered(), FULL, {"spp": "8"})
        assert buffers.to("cpu").data.data_ptr() == buffers.data.data_ptr()
        moved = buffers.to("meta")
        assert moved.device.type == "meta"
        assert (moved.layout, moved.metadata) == (FULL, {"spp": "8"})


class TestFromTensor:
    @pytest.mark.parametrize("variances", [False, True])
    def test_default_layouts_need_no_names(self, variances: bool) -> None:
        layout = Layout.make(variances=variances)
        data = numbered(layout=layout)
        buffers = FrameBuffers.from_tensor(data)
        assert buffers.layout == layout
        assert buffers.data.data_ptr() == data.data_ptr()

    @pytest.mark.parametrize(
        "layout",
        [FULL, list(FULL.channels), SimpleNamespace(layout=FULL)],
        ids=["layout", "names", "integrator"],
    )
    def test_other_layouts(self, layout: Any) -> None:
        data = numbered()
        buffers = FrameBuffers.from_tensor(data, layout)
        assert buffers.layout == FULL
        assert buffers.data.data_ptr() == data.data_ptr()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_other_precisions_become_float32(self, dtype: torch.dtype) -> None:
        data = torch.rand(2, 3, 16).to(dtype)
        assert torch.equal(FrameBuffers.from_tensor(data).data, data.to(torch.float32))

    def test_alpha_is_dropped_by_name(self) -> None:
        layout = Layout.make()
        data = numbered(layout=layout)
        for position in (0, 3, layout.count):
            names = list(layout.channels)
            names.insert(position, "A")
            with_alpha = torch.cat(
                [data[..., :position], torch.full((4, 5, 1), -1.0), data[..., position:]], -1
            )
            buffers = FrameBuffers.from_tensor(with_alpha, names)
            assert buffers.layout == layout
            assert torch.equal(buffers.data, data)
            at_the_end = position in (0, layout.count)
            shared = buffers.data.untyped_storage().data_ptr() == with_alpha.data_ptr()
            assert shared == at_the_end

    def test_any_order_of_names(self) -> None:
        data = numbered()
        order = sorted(range(FULL.count), key=lambda i: FULL.channels[i])
        shuffled = data[..., order].clone()
        buffers = FrameBuffers.from_tensor(shuffled, [FULL.channels[i] for i in order])
        assert buffers.layout == FULL
        assert torch.equal(buffers.data, data)

    def test_order_of_buffers_is_kept_where_that_saves_a_copy(self) -> None:
        data = torch.rand(2, 3, 6)
        names = ["dx.R", "dx.G", "dx.B", "R", "G", "B"]
        buffers = FrameBuffers.from_tensor(data, names)
        assert buffers.names == ("dx", "primal")
        assert buffers.data.data_ptr() == data.data_ptr()
        assert torch.equal(buffers.primal, data[..., 3:])

    @pytest.mark.parametrize(
        ("shape", "layout", "message"),
        [
            ((4, 16), None, r"shape \(4, 16\); expected \(H, W, C\)"),
            ((0, 4, 16), None, r"shape \(0, 4, 16\); expected .* H, W >= 1"),
            ((2, 2, 17), None, "17 channels; without names only 16"),
            ((2, 2, 3), 5, "got the layout 5; expected a Layout, channel names"),
            ((2, 2, 16), FULL, r"16 channels; the layout has 26 .*Pass the layout"),
            ((2, 2, 3), ["R", "G"], "a tensor with 3 channels; expected one name per channel"),
            ((2, 2, 3), "RGB", "expected one name per channel"),
            ((2, 2, 3), ["R", "G", "G"], "'G' occurs twice"),
            ((2, 2, 3), ["R", "G", "Q"], "unknown channel.* 'Q'"),
            ((2, 2, 3), ["R", "G", "dx.R"], r"no channel B, dx.G, dx.B; there are: R, G, dx"),
            ((2, 2, 1), ["A"], "no channel of a known buffer; there are: A"),
        ],
    )
    def test_refuses(self, shape: tuple[int, ...], layout: Any, message: str) -> None:
        with pytest.raises(LayoutError, match=message):
            FrameBuffers.from_tensor(torch.zeros(shape), layout)

    def test_refuses_integers(self) -> None:
        with pytest.raises(LayoutError, match=r"torch.uint8.*expected linear floating point"):
            FrameBuffers.from_tensor(torch.zeros(2, 2, 16, dtype=torch.uint8))

    def test_constructor_refuses_other_types_than_float32(self) -> None:
        with pytest.raises(LayoutError, match=r"torch.float64 tensor; expected float32"):
            FrameBuffers(torch.zeros(2, 2, 16, dtype=torch.float64), Layout.make())


class TestFromNumPy:
    def test_shares_memory(self) -> None:
        array = numbered().numpy()
        assert as_frame_buffers(array, FULL).data.data_ptr() == array.ctypes.data

    @pytest.mark.filterwarnings("error")  # torch would warn of an array that must not be written
    def test_unusual_arrays_are_copied(self) -> None:
        array = numbered().numpy()
        frozen = array.copy()
        frozen.flags.writeable = False
        for unusual in (frozen, array[::-1, ::-1], array.astype(">f4"), array[:, ::2]):
            buffers = as_frame_buffers(unusual, FULL)
            np.testing.assert_array_equal(buffers.data.numpy(), unusual)


class TestFromRender:
    def test_shares_memory_with_drjit(self, device_variant: str) -> None:
        import drjit as dr
        import mitsuba as mi

        tensor = mi.TensorXf(2 * dr.arange(mi.Float, 4 * 5 * 16), (4, 5, 16))  # not evaluated yet
        buffers = FrameBuffers.from_render(tensor)
        assert buffers.device.type == {"llvm": "cpu", "cuda": "cuda"}[device_variant[:4]]
        again = torch.utils.dlpack.from_dlpack(tensor)  # alive at the same time: no second copy
        address = again.data_ptr()
        assert buffers.data.data_ptr() == address
        assert buffers.dx.data_ptr() == address + 3 * 4
        if device_variant.startswith("llvm"):
            assert tensor.numpy().ctypes.data == address
        assert torch.equal(buffers.data.flatten().cpu(), 2.0 * torch.arange(320))
        buffers.data.fill_(7)
        if buffers.data.is_cuda:
            torch.cuda.synchronize()
        assert bool(dr.all(tensor.array == 7))  # what torch writes, Dr.Jit reads

    def test_outlives_the_render_output(self, variant_llvm_rgb: str) -> None:
        import drjit as dr
        import mitsuba as mi

        tensor = mi.TensorXf(dr.arange(mi.Float, 4 * 5 * 16), (4, 5, 16))
        view = FrameBuffers.from_render(tensor).depth
        del tensor
        gc.collect()
        dr.flush_malloc_cache()
        other = mi.TensorXf(dr.full(mi.Float, -1, 4 * 5 * 16), (4, 5, 16))
        dr.eval(other)
        expected = torch.arange(320, dtype=torch.float32).reshape(4, 5, 16)[..., 15:]
        assert torch.equal(view, expected)

    def test_gpu_output_needs_a_cuda_build_of_torch(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        on_gpu = SimpleNamespace(__dlpack_device__=lambda: (2, 0))
        with pytest.raises(MissingDependencyError, match="install a CUDA build of torch"):
            FrameBuffers.from_render(on_gpu)


class TestFromBitmap:
    """``mi.Bitmap`` works without a variant; nothing here needs LLVM."""

    @staticmethod
    def bitmap(array: Any, names: list[str]) -> Any:
        import mitsuba as mi

        return mi.Bitmap(
            np.ascontiguousarray(array),
            pixel_format=mi.Bitmap.PixelFormat.MultiChannel,
            channel_names=names,
        )

    def test_as_a_film_makes_it(self) -> None:
        data = numbered().numpy()
        names = list(FULL.channels)
        with_alpha = np.insert(data, 3, -1, axis=-1)
        buffers = FrameBuffers.from_bitmap(self.bitmap(with_alpha, [*names[:3], "A", *names[3:]]))
        assert buffers.layout == FULL
        np.testing.assert_array_equal(buffers.data, data)

    def test_any_order_root_prefix_and_foreign_channels(self) -> None:
        data = numbered(layout=Layout.make()).numpy()
        names = [f"<root>.{name}" if "." not in name else name for name in Layout.make().channels]
        array = np.concatenate([data[..., ::-1], data[..., :1]], -1)
        buffers = FrameBuffers.from_bitmap(self.bitmap(array, [*names[::-1], "shape_index.I"]))
        assert buffers.layout == Layout.make()
        np.testing.assert_array_equal(buffers.data, data)

    def test_half_precision(self) -> None:
        data = numbered(2, 2, Layout.make()).numpy()
        bitmap = self.bitmap(data.astype(np.float16), list(Layout.make().channels))
        np.testing.assert_array_equal(as_frame_buffers(bitmap).data, data)

    def test_to_bitmap_and_back(self) -> None:
        buffers = FrameBuffers(numbered(), FULL)
        bitmap = buffers.to_bitmap()
        assert [field.name for field in bitmap.struct_()] == list(FULL.channels)
        again = FrameBuffers.from_bitmap(bitmap)
        assert again.layout == FULL
        assert torch.equal(again.data, buffers.data)

    def test_shares_memory_where_the_order_allows_it(self) -> None:
        bitmap = FrameBuffers(numbered(), FULL).to_bitmap()
        address = np.array(bitmap, copy=False).ctypes.data
        assert FrameBuffers.from_bitmap(bitmap).data.data_ptr() == address

    def test_data_outlives_the_bitmap(self) -> None:
        buffers = FrameBuffers.from_bitmap(FrameBuffers(numbered(), FULL).to_bitmap())
        gc.collect()
        assert torch.equal(buffers.data, numbered())

    def test_refuses_encoded_and_foreign_bitmaps(self) -> None:
        import mitsuba as mi

        with pytest.raises(LayoutError, match=r"uint8 components .*expected linear"):
            FrameBuffers.from_bitmap(mi.Bitmap(np.zeros((2, 2, 3), np.uint8)))
        encoded = mi.Bitmap(np.zeros((2, 2, 3), np.float32))
        encoded.set_srgb_gamma(True)
        with pytest.raises(LayoutError, match=r"sRGB-encoded: True\); expected linear"):
            FrameBuffers.from_bitmap(encoded)
        with pytest.raises(LayoutError, match="no channel of a known buffer; there are: Y"):
            FrameBuffers.from_bitmap(mi.Bitmap(np.zeros((2, 2), np.float32)))


class TestChoice:
    def test_select_copies_in_its_own_order(self) -> None:
        buffers = FrameBuffers(numbered(), FULL, {"scene": "x"})
        chosen = buffers.select(["depth", "primal"])
        assert chosen.names == ("primal", "depth")
        assert torch.equal(chosen.depth, buffers.depth)
        assert chosen.metadata == {"scene": "x"}
        chosen.data.zero_()
        assert torch.equal(buffers.data, numbered())
        with pytest.raises(LayoutError, match="no buffer motion; there are: primal"):
            buffers.select(["motion"])

    def test_without(self) -> None:
        buffers = FrameBuffers(numbered(), FULL)
        rest = buffers.without(["dx", "motion"])  # that is not there anyway
        assert rest.names == tuple(name for name in buffers.names if name != "dx")
        assert torch.equal(rest.dy, buffers.dy)
        with pytest.raises(LayoutError, match="none of the buffers is left"):
            buffers.without(buffers.names)

    def test_appended(self) -> None:
        buffers = FrameBuffers(numbered(), FULL, {"scene": "x"})
        motion = torch.rand(4, 5, 2)
        more = buffers.appended("motion", motion)
        assert more.names == (*buffers.names, "motion")
        assert torch.equal(more.motion, motion)
        assert more.metadata == {"scene": "x"}
        with pytest.raises(LayoutError, match="these buffers have motion already"):
            more.appended("motion", motion)
        with pytest.raises(LayoutError, match=r"got motion of shape .*; expected \(4, 5, 2\)"):
            buffers.appended("motion", motion[:1])


class TestSeveralFrames:
    frames = FrameBuffers(torch.rand(2, 3, 4, 5, FULL.count), FULL)

    def test_views_and_sizes(self) -> None:
        assert (self.frames.leading, self.frames.height, self.frames.width) == ((2, 3), 4, 5)
        assert self.frames.dx.shape == (2, 3, 4, 5, 3)
        assert "2 x 3 x 4 x 5" in repr(self.frames)

    def test_each_frame_is_cropped_and_counted(self) -> None:
        cropped = self.frames.crop(1, 2, 3, 2)
        for i in range(2):
            alone = FrameBuffers(self.frames.data[i, 1], FULL).crop(1, 2, 3, 2)
            assert torch.equal(cropped.data[i, 1], alone.data)
        cropped["depth"][:, 0, 1, 1] = float("nan")
        with pytest.raises(NonFiniteError, match=r"depth.T: 2 \(of 36 each\)"):
            cropped.validate()

    def test_what_takes_one_frame_says_so(self, tmp_path: Path) -> None:
        message = r"shape \(2, 3, 4, 5, \d+\); expected one frame"
        with pytest.raises(LayoutError, match=message):
            self.frames.to_exr(tmp_path / "x.exr")
        with pytest.raises(LayoutError, match=message):
            denoise(self.frames, "poisson-l2")


class TestCrop:
    def test_copies_and_restores_the_border(self) -> None:
        parent = FrameBuffers(numbered(6, 8), FULL, {"spp": "8"})
        before = parent.data.clone()
        crop = parent.crop(2, 1, 4, 3)
        expected = before[1:4, 2:6].clone()
        for name in ("dx", "dx.var"):
            expected[:, -1, FULL.slices[name]] = 0
        for name in ("dy", "dy.var"):
            expected[-1, :, FULL.slices[name]] = 0
        assert torch.equal(crop.data, expected)
        assert crop.metadata == {"spp": "8"}
        crop.data.fill_(-1)
        assert torch.equal(parent.data, before)

    def test_whole_frame_and_single_pixel(self) -> None:
        parent = FrameBuffers(numbered(6, 8), FULL)
        assert parent.crop(0, 0, 8, 6).data.shape == parent.data.shape
        assert torch.equal(parent.crop(7, 5, 1, 1).depth[0, 0], parent.depth[5, 7])

    @pytest.mark.parametrize(
        "rectangle", [(-1, 0, 2, 2), (0, -1, 2, 2), (7, 0, 2, 2), (0, 5, 2, 2), (0, 0, 0, 2)]
    )
    def test_refuses(self, rectangle: tuple[int, int, int, int]) -> None:
        parent = FrameBuffers(numbered(6, 8), FULL)
        with pytest.raises(ConfigError, match=r"x=.*inside the 8 x 6 frame"):
            parent.crop(*rectangle)

    def test_refuses_negative_size(self) -> None:
        with pytest.raises(ConfigError, match="width=-2"):
            FrameBuffers(numbered(6, 8), FULL).crop(4, 0, -2, 2)


class TestValidate:
    def test_counts_pixels_per_channel(self) -> None:
        buffers = FrameBuffers(numbered(), FULL)
        buffers.validate()
        buffers.dx[0, :2, 1] = float("nan")
        buffers.depth[3, 4] = float("-inf")
        with pytest.raises(NonFiniteError, match=r"pixels of dx\.G: 2, depth\.T: 1 \(of 20 each"):
            buffers.validate()

    def test_looks_only_at_what_it_is_told_to(self) -> None:
        buffers = FrameBuffers(numbered(), FULL)
        buffers.depth[:] = float("nan")
        buffers.validate(["primal", "dx", "dy", "visibility"])
        with pytest.raises(NonFiniteError):
            buffers.validate(["depth"])


def test_refuses_foreign_objects() -> None:
    with pytest.raises(LayoutError, match=r"type builtins.list; expected a Mitsuba TensorXf"):
        as_frame_buffers([1, 2, 3])
