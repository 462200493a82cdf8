"""Checkpoints of the original: files as TensorFlow writes them, and what becomes of them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from mitsuba_gdpt.denoisers.learned.weights import read_weights
from mitsuba_gdpt.errors import FormatError, WeightsError
from mitsuba_gdpt.training.original import convert_checkpoint
from mitsuba_gdpt.training.tensor_bundle import read_bundle

#: Growth, units, channels after pooling and unpooling, by level: the numbers of the paper.
GROWTH, UNITS, DOWN, UP = (40, 80, 80, 80), (4, 3, 2, 2), (160, 160, 160), (80, 160, 160)


def variables(inputs: int = 16) -> dict[str, np.ndarray]:
    """The variables of the original's network in their shapes, at random."""
    random = np.random.default_rng(inputs)
    made: dict[str, np.ndarray] = {}

    def layer(name: str, rows: int, before: int, after: int, *, transposed: bool = False) -> None:
        sizes = (after, before) if transposed else (before, after)
        scale = (1, 1, after, 1) if transposed else (1, 1, 1, after)
        for letter, shape in (("W", (rows, rows, *sizes)), ("s", scale), ("b", (after,))):
            values = random.standard_normal(shape, dtype=np.float32)
            made[f"model/reconstruct/{name}_{letter}"] = values

    def units(scope: str, level: int, width: int) -> int:
        for unit in range(UNITS[level]):
            layer(f"{scope}{level}_Unit{unit}_Bottleneck", 1, width, 2 * GROWTH[level])
            layer(f"{scope}{level}_Unit{unit}_Conv0", 3, 2 * GROWTH[level], GROWTH[level])
            width += GROWTH[level]
        return width

    widths = []
    for level, entering in enumerate((inputs, *DOWN)):
        widths.append(units("E", level, entering))
        if level < 3:
            layer(f"E{level}_pool", 2, widths[level], DOWN[level])
    width = units("D", 3, widths[3])
    for level in (2, 1, 0):
        layer(f"D{level}_unpool", 2, width, UP[level], transposed=True)
        width = units("D", level, widths[level] + UP[level])
    layer("R0_RGB", 1, width, 3)
    return made


def varint(value: int) -> bytes:
    digits = []
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def block(entries: dict[bytes, bytes]) -> bytes:
    """A block of a LevelDB table: every 16th key in full, of the others what is new."""
    content, starts, before = b"", [], b""
    for number, (key, value) in enumerate(sorted(entries.items())):
        shared = 0
        if number % 16:
            while shared < min(len(key), len(before)) and key[shared] == before[shared]:
                shared += 1
        else:
            starts.append(len(content))
        content += varint(shared) + varint(len(key) - shared) + varint(len(value))
        content += key[shared:] + value
        before = key
    return content + b"".join(struct.pack("<I", x) for x in (*starts, len(starts)))


def entry(kind: int, shape: tuple[int, ...], offset: int, size: int) -> bytes:
    """A BundleEntryProto."""
    dims = b"".join(b"\x12" + varint(1 + len(varint(n))) + b"\x08" + varint(n) for n in shape)
    described = b"\x08" + varint(kind) + b"\x12" + varint(len(dims)) + dims
    return described + b"\x20" + varint(offset) + b"\x28" + varint(size) + b"\x35" + bytes(4)


def write(prefix: Path, tensors: dict[str, np.ndarray]) -> Path:
    entries, data = {b"": b"\x08\x01\x1a\x02\x08\x01"}, b""
    for name, values in sorted(tensors.items()):
        entries[name.encode()] = entry(1, values.shape, len(data), values.nbytes)
        data += values.tobytes()
    entries[b"model/batch_index"] = entry(9, (), len(data), 8)  # int64
    data += bytes(8)
    tables = b""
    handles = []
    for part in (block(entries), block({})):  # the blocks, and that of metadata
        handles.append((len(tables), len(part)))
        tables += part + bytes(5)
    index = block({b"n": varint(handles[0][0]) + varint(handles[0][1])})
    footer = b"".join(map(varint, (*handles[1], len(tables), len(index)))).ljust(40, b"\0")
    magic = bytes.fromhex("57fb808b247547db")
    prefix.with_name(prefix.name + ".index").write_bytes(tables + index + bytes(5) + footer + magic)
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)
    return prefix


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return variables()


@pytest.fixture(scope="module")
def checkpoint(tensors: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("saves") / "100_ngpt_elpips_sqz.ckpt", tensors)


def test_bundle_is_read(checkpoint: Path, tensors: dict[str, np.ndarray]) -> None:
    found = read_bundle(checkpoint)
    assert len(found) == 153
    assert sum(values.size for values in found.values()) == 4_358_534
    assert found.keys() == tensors.keys()
    for name, values in tensors.items():
        assert np.array_equal(found[name], values), name
    assert read_bundle(Path(f"{checkpoint}.index")).keys() == found.keys()


def test_layers_do_what_they_did(
    checkpoint: Path, tensors: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """A filter, a strided and a transposed one, by the definitions of TensorFlow's operations."""
    path = convert_checkpoint(checkpoint, tmp_path, "ngpt-100")
    model, info = read_weights(path)
    assert (info.name, info.tag) == ("ngpt", "original")
    network = model.network
    random = np.random.default_rng(0)

    def weights(name: str, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        w, s, b = (tensors[f"model/reconstruct/{name}_{part}"].astype(float) for part in "Wsb")
        return w * (s * np.sqrt(2) / np.sqrt(1e-8 + (w**2).sum(axes, keepdims=True))), b

    def same(layer: torch.nn.Module, x: np.ndarray, expected: np.ndarray) -> None:
        with torch.no_grad():
            y = layer(torch.from_numpy(x).float()[None])[0].numpy()
        np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-4)

    w, b = weights("E1_Unit2_Conv0", (0, 1, 2))
    x = random.random((5, 6, 160))
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    parts = [padded[r : r + 5, c : c + 6] @ w[r, c] for r in range(3) for c in range(3)]
    same(network.encoders[1][2].filter, x, sum(parts) + b)
    w, b = weights("E0_pool", (0, 1, 2))
    x = random.random((4, 6, 176))
    parts = [x[r::2, c::2] @ w[r, c] for r in range(2) for c in range(2)]
    same(network.pools[0].layer, x, sum(parts) + b)
    w, b = weights("D1_unpool", (0, 1, 3))
    x = random.random((2, 3, 640))
    y = np.zeros((4, 6, 160))
    for r, c in np.ndindex(2, 2):
        y[r::2, c::2] = x @ w[r, c].T + b
    same(network.unpools[1].layer, x, y)


def test_other_configurations_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"E0_Unit0_Bottleneck_W has the shape \(1, 1, 16, 80\)"):
        convert_checkpoint(checkpoint, tmp_path, "ngpt-101")
    with pytest.raises(WeightsError, match="no configuration of NGPT"):
        convert_checkpoint(checkpoint, tmp_path, "rdae")
    assert not list(tmp_path.iterdir())


def test_damaged_checkpoints_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    index = Path(f"{checkpoint}.index").read_bytes()
    data = Path(f"{checkpoint}.data-00000-of-00001").read_bytes()
    copy = tmp_path / "copy"
    with pytest.raises(FormatError, match="cannot read this file of a checkpoint"):
        read_bundle(copy)
    Path(f"{copy}.index").write_bytes(index)
    with pytest.raises(FormatError, match="cannot read this file of a checkpoint"):
        read_bundle(copy)
    Path(f"{copy}.data-00000-of-00001").write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match="cut short"):
        read_bundle(copy)
    Path(f"{copy}.data-00000-of-00001").write_bytes(data)
    random = np.random.default_rng(0)
    outcomes = {"read": 0, "refused": 0}
    for cut in (0, 40, len(index) // 2, len(index) - 1):
        Path(f"{copy}.index").write_bytes(index[:cut])
        with pytest.raises(FormatError):
            read_bundle(copy)
    for _ in range(60):
        changed = bytearray(index)
        changed[random.integers(len(index))] ^= 1 << random.integers(8)
        Path(f"{copy}.index").write_bytes(changed)
        try:
            read_bundle(copy)
            outcomes["read"] += 1  # names and checksums may differ
        except FormatError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 0
