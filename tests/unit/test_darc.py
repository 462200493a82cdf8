"""Darc files written to the description of the format, whole and damaged."""

from __future__ import annotations

import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt.channels import Layout
from mitsuba_gdpt.data import darc
from mitsuba_gdpt.data.darc import DarcFile
from mitsuba_gdpt.errors import ConfigError, FormatError
from tests.darcs import PLACES, TYPES, crops, npy, write


def test_order_of_the_channels() -> None:
    position, places = 0, {}
    for name in darc.ORDER:
        places[name] = position
        position += len(darc.channels.buffer(name))
    assert places == PLACES
    assert position == 30


class TestCrops:
    @pytest.mark.parametrize("chunk", [(1, 5, 7, 3), (1, 4, 4, 3), (2, 3, 5, 7), (9, 9, 9, 40)])
    def test_values_and_layout(self, tmp_path: Path, chunk: tuple[int, ...]) -> None:
        arrays = crops()
        with DarcFile(write(tmp_path / "a.darc", arrays, chunk)) as file:
            assert len(file) == 2
            assert file.version == 2
            read = list(file.crops())
        assert Layout.make(features=("diffuse", "specular"), variances=True) == darc.LAYOUT
        for i, (crop, array) in enumerate(zip(read, arrays, strict=True)):
            assert crop.index == i
            assert crop.noisy.shape == (3, 5, 7, 30)
            assert crop.noisy.dtype == np.float16
            assert crop.noisy.flags.c_contiguous
            assert crop.nonfinite == {}
            for name, where in darc.LAYOUT.slices.items():
                first = PLACES[name]
                expected = array[:-1, ..., first : first + where.stop - where.start]
                np.testing.assert_array_equal(crop.noisy[..., where], expected)
            np.testing.assert_array_equal(crop.target, array[-1, ..., :3])

    def test_infinities_are_counted_and_kept(self, tmp_path: Path) -> None:
        array = crops(1)[0]
        array[0, 0, :2, 0] = np.inf
        array[1, 2, 3, PLACES["dx.var"]] = -np.inf
        array[-1, 0, 0, 2] = np.nan
        array[-1, 0, 0, PLACES["albedo"]] = np.inf  # not part of the result
        with DarcFile(write(tmp_path / "a.darc", [array], (1, 5, 7, 3))) as file:
            (crop,) = file.crops()
        assert crop.nonfinite == {"primal": 2, "dx.var": 1, "target": 1}
        assert np.isinf(crop.noisy[0, 0, :2, 0]).all()

    def test_one_crop_in_memory_at_a_time(self, tmp_path: Path) -> None:
        import tracemalloc

        arrays = crops(count=12, height=32, width=32)
        path = write(tmp_path / "a.darc", arrays, (1, 32, 32, 3))
        tracemalloc.start()
        with DarcFile(path) as file:
            for crop in file.crops():
                del crop
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 5 * arrays[0].nbytes

    @pytest.mark.parametrize(
        "array",
        [
            np.zeros((3, 4, 4, 29), np.float16),
            np.zeros((1, 4, 4, 30), np.float16),
            np.zeros((3, 4, 4, 30), np.float32),
            np.zeros((3, 4, 30), np.float16),
        ],
    )
    def test_other_arrays(self, tmp_path: Path, array: np.ndarray) -> None:
        path = write(tmp_path / "a.darc", [array], array.shape)
        with DarcFile(path) as file, pytest.raises(FormatError, match="array 0 is float"):
            next(file.crops())


class TestArrays:
    @pytest.mark.parametrize("version", [1, 2])
    @pytest.mark.parametrize("name", TYPES)
    def test_types(self, tmp_path: Path, name: str, version: int) -> None:
        array = np.arange(30).reshape(5, 6).astype(name)
        with DarcFile(write(tmp_path / "a.darc", [array], (2, 4), version)) as file:
            read = file.read(0)
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)

    def test_version_0_holds_bytes(self, tmp_path: Path) -> None:
        array = np.arange(30, dtype=np.uint8).reshape(5, 6)
        with DarcFile(write(tmp_path / "a.darc", [array], (2, 4), 0)) as file:
            np.testing.assert_array_equal(file.read(0), array)
            assert file.names() == {}

    @pytest.mark.parametrize(("first", "last"), [(0, 1), (1, 4), (2, 5), (4, 5), (0, None)])
    @pytest.mark.parametrize("step", [1, 2, 3, 8])
    def test_range(self, tmp_path: Path, first: int, last: int | None, step: int) -> None:
        array = np.random.default_rng(1).integers(0, 99, (5, 3, 4))
        with DarcFile(write(tmp_path / "a.darc", [array, array + 1], (step, 2, 3))) as file:
            np.testing.assert_array_equal(file.read(1, first, last), array[first:last] + 1)
            assert file.shape(1) == (5, 3, 4)

    def test_no_such_array_or_range(self, tmp_path: Path) -> None:
        with DarcFile(write(tmp_path / "a.darc", [np.zeros((2, 2))], (1, 1))) as file:
            with pytest.raises(ConfigError, match="has 1 arrays; there is no number 1"):
                file.read(1)
            for first, last in ((0, 3), (1, 1), (-1, 1)):
                with pytest.raises(ConfigError, match=r"inside 0\.\.2"):
                    file.read(0, first, last)


class TestNames:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_any_protocol(self, tmp_path: Path, protocol: int) -> None:
        names = {"a": 1, "b": np.int64(1 << 40), "c": np.int32(-2)}
        array = np.array(names, dtype=object)
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        blob = stream.getvalue() + pickle.dumps(array, protocol=protocol)
        path = write(tmp_path / "a.darc", crops(), (1, 5, 7, 3), names=blob)
        with DarcFile(path) as file:
            assert file.names() == {"a": 1, "b": 1 << 40, "c": -2}

    def test_as_numpy_writes_it(self, tmp_path: Path) -> None:
        with DarcFile(write(tmp_path / "a.darc", crops(), (1, 5, 7, 3))) as file:
            assert file.names() == {"crop-0": 0, "crop-1": 1}

    def test_as_older_numpy_wrote_it(self, tmp_path: Path) -> None:
        blob = npy({"x": 3})
        old = blob.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        if b"\x8c\x16numpy._core.multiarray" in blob:  # length-prefixed in protocol 4
            old = blob.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
        with DarcFile(write(tmp_path / "a.darc", crops(), (1, 5, 7, 3), names=old)) as file:
            assert file.names() == {"x": 3}

    @pytest.mark.parametrize("wrap", [True, False])
    @pytest.mark.parametrize("protocol", [0, 2, 4])
    def test_malicious_pickle_is_not_run(self, tmp_path: Path, wrap: bool, protocol: int) -> None:
        witness = tmp_path / "executed"

        class Attack:
            def __reduce__(self) -> Any:
                return os.system, (f"touch {witness}",)

        content: Any = {"a": Attack()} if wrap else Attack()
        blob = npy(0)[:128] + pickle.dumps(content, protocol=protocol)
        path = write(tmp_path / "a.darc", crops(), (1, 5, 7, 3), names=blob)
        with DarcFile(path) as file:
            with pytest.raises(FormatError, match=r"refers to posix\.system, which is not allowed"):
                file.names()
            assert len(list(file.crops())) == 2  # the arrays do not need it
        assert not witness.exists()
        pickle.loads(blob[128:])  # the attack is real
        assert witness.exists()

    @pytest.mark.parametrize(
        "code",
        [
            b"\x80\x04cbuiltins\neval\n(Vopen('x','w')\ntR.",  # GLOBAL
            b"\x80\x04\x8c\x08builtins\x8c\x04exec\x93.",  # STACK_GLOBAL
            b"(S'touch x'\nios\nsystem\n.",  # INST
            b"\x80\x02\x82\x01.",  # EXT1
            b"\x80\x05\x96\x00\x00\x00\x00\x00\x00\x00\x10.",  # BYTEARRAY8 of 1 EB
            b"cnumpy\nfromfile\n(V/etc/passwd\ntR.",
            b"Pid\n.",  # PERSID
            b"",
            b"\x80",
            b"}.}}",
        ],
    )
    def test_hand_made_pickles(self, tmp_path: Path, code: bytes) -> None:
        path = write(tmp_path / "a.darc", crops(), (1, 5, 7, 3), names=npy(0)[:128] + code)
        with DarcFile(path) as file:
            try:
                assert file.names() == {}
            except FormatError:
                pass
            else:
                assert code == b"}.}}"  # an empty dictionary and rubbish

    @pytest.mark.parametrize("value", [[1], {"a": "b"}, {1: 1}, {"a": 1.5}, None])
    def test_other_contents(self, tmp_path: Path, value: Any) -> None:
        path = write(tmp_path / "a.darc", crops(), (1, 5, 7, 3), names=npy(value))
        with DarcFile(path) as file, pytest.raises(FormatError, match="map of names"):
            file.names()

    def test_no_npy(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.darc", crops(), (1, 5, 7, 3), names=b"rubbish")
        with DarcFile(path) as file, pytest.raises(FormatError, match="map of names"):
            file.names()


class TestDamage:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(FormatError, match="No such file"):
            DarcFile(tmp_path / "a.darc")

    def test_wrong_magic(self, tmp_path: Path) -> None:
        path = tmp_path / "a.darc"
        path.write_bytes(b"PK\x03\x04" + bytes(100))
        with pytest.raises(FormatError, match=r"not a Darc file; it begins with b'PK"):
            DarcFile(path)

    def test_future_version(self, tmp_path: Path) -> None:
        path = tmp_path / "a.darc"
        path.write_bytes(b"darc" + struct.pack("<IQQ", 3, 24, 24) + bytes(100))
        with pytest.raises(FormatError, match="Darc version 3; expected 0, 1 or 2"):
            DarcFile(path)

    def test_truncated_anywhere(self, tmp_path: Path) -> None:
        whole = write(tmp_path / "a.darc", crops(), (1, 4, 4, 3), names=b"").read_bytes()
        path = tmp_path / "b.darc"
        for length in (0, 3, 4, 7, 15, 23, 24, 100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            with pytest.raises(FormatError, match=r"b\.darc"):
                DarcFile(path)

    def test_array_that_would_pass_the_end(self, tmp_path: Path) -> None:
        path = write(tmp_path / "a.darc", [np.zeros((4, 4), np.uint8)], (2, 2))
        data = bytearray(path.read_bytes())
        data[24 + 4 : 24 + 8] = struct.pack("<I", 0xFFFFFFFF)  # its height
        path.write_bytes(data)
        with pytest.raises(FormatError, match="truncated; array 0 should end at byte"):
            DarcFile(path)

    def test_huge_directory(self, tmp_path: Path) -> None:
        path = tmp_path / "a.darc"
        path.write_bytes(b"darc" + struct.pack("<IQQQ", 2, 24, 24, 1 << 60))
        with pytest.raises(FormatError, match=r"a directory of \d+ arrays, expected at most 65536"):
            DarcFile(path)

    @pytest.mark.parametrize("word", [0, 1, 3, 5])  # dimensions, height, chunk height, type
    @pytest.mark.parametrize("value", [0, 99])
    def test_damaged_array_header(self, tmp_path: Path, word: int, value: int) -> None:
        if (word, value) == (5, 0):
            value = 14
        path = write(tmp_path / "a.darc", [np.zeros((4, 4), np.uint8)], (2, 2))
        data = bytearray(path.read_bytes())
        data[24 + 4 * word : 28 + 4 * word] = struct.pack("<I", value)
        path.write_bytes(data)
        with pytest.raises(FormatError, match="array 0"):
            DarcFile(path)

    def test_random_flips_never_crash(self, tmp_path: Path) -> None:
        whole = write(tmp_path / "a.darc", crops(1, 1, 3, 3), (1, 2, 2, 30)).read_bytes()
        random, outcomes = np.random.default_rng(2), {"read": 0, "refused": 0}
        path, structure = tmp_path / "b.darc", [*range(64), *range(len(whole) - 300, len(whole))]
        places = [structure, range(64, len(whole))]  # of the second kind, most are pixels
        for trial in range(200):
            data = bytearray(whole)
            for at in random.choice(places[trial % 2], 1 + trial % 3):
                data[at] = random.integers(256)
            path.write_bytes(data)
            try:
                with DarcFile(path) as file:
                    file.names()
                    list(file.crops())
                outcomes["read"] += 1
            except FormatError:
                outcomes["refused"] += 1
        assert sum(outcomes.values()) == 200
        assert min(outcomes.values()) >= 10, outcomes

    @pytest.mark.parametrize("key", ["tuple", "frozenset", "bytearray"])
    def test_names_whose_hash_takes_for_ever(self, tmp_path: Path, key: str) -> None:
        """Tuples of the same tuple twice, sixty times over: 2**60 to hash, a few bytes to write."""
        build = {
            "tuple": b")" + b"2\x86" * 60,  # dup, then a tuple of two
            "frozenset": b"(\x91" + b"(h\x00\x91" * 20,
            "bytearray": b"\x96" + struct.pack("<Q", 1 << 62),
        }[key]
        pickled = b"\x80\x05}" + build + b"K\x00s."
        blob = npy({"a": 0})
        header = blob[: blob.index(b"\n") + 1]
        path = write(tmp_path / "a.darc", crops(1), (1, 5, 7, 3), names=header + pickled)
        with DarcFile(path) as file, pytest.raises(FormatError, match="cannot read the map of"):
            file.names()
