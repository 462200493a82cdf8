"""Malformed files: mutations of valid ones, the same for the same seed, and what reads each kind.

As a script it reads files in a process of its own and tells what became of each; see :func:`read`.
"""

from __future__ import annotations

import hashlib
import json
import random
import resource
import shutil
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

Random = random.Random


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Attributes:
        kind: One of :data:`KINDS`.
        number: Of the file among those of its kind.
        result: ``"read"``, ``"refused"`` (one line that names the file), or what was wrong.
        seconds: Time it took.
        megabytes: Largest memory of the process until then.
    """

    kind: str
    number: int
    result: str
    seconds: float
    megabytes: float


# --------------------------------------------------------------------------------- valid files


def valid_exr(path: Path) -> None:
    from mitsuba_gdpt.buffers import FrameBuffers
    from mitsuba_gdpt.channels import Layout

    layout = Layout.make()
    FrameBuffers(torch.rand(6, 7, layout.count), layout, {"spp": "4"}).to_exr(path)


def valid_crop_set(path: Path) -> None:
    from mitsuba_gdpt.data import store
    from mitsuba_gdpt.data.render import LAYOUT
    from tests import crops

    plan = crops.fill_plan(size=16, crops=2)
    store.create(plan, LAYOUT, path, crops_per_shard=2)
    for shard in store.shards(plan, path, 2):
        shard.write(*crops.made_up(plan, shard))


def valid_darc(path: Path) -> None:
    from tests import darcs

    darcs.write(path, darcs.crops(2, 1, 4, 4), (1, 4, 4, 30))


def valid_weights(path: Path) -> None:
    from mitsuba_gdpt.denoisers.learned.weights import find_weights

    names = ("ngpt-fusion", "kpcn-small", "rdae")
    sources = [find_weights(name) for name in names]
    shutil.copyfile(min(sources, key=lambda source: source.stat().st_size), path)


TOML = """method = "ngpt-small"
data = ["a.zarr"]
output = "run"
steps = 100
learning_rate = 5e-4
scenes = ["a", "b"]
[terms]
smape = 1.0
[augmentation]
flip = false
[network]
growth = 12
"""

FRAMES = {
    "format": "mitsuba_gdpt.frames",
    "version": 1,
    "plan": {"sequences": [{"scene": "A", "split": "train"}], "settings": {"width": 8, "spp": 1}},
    "provenance": {"version": "0.1.0"},
}


def valid_toml(path: Path) -> None:
    path.write_text(TOML)


def valid_frame_set(path: Path) -> None:
    frame = path / "train" / "A" / "frame-0000"
    frame.mkdir(parents=True)
    (path / "frames.json").write_text(json.dumps(FRAMES))
    for name in ("target.exr", "noisy-0.exr"):
        valid_exr(frame / name)


def valid_guide(path: Path) -> None:
    """A folder with the image that ``poisson-l2`` makes of :func:`guide_buffers`, as kept."""
    from mitsuba_gdpt.training.guides import GuideCache

    GuideCache(path, ("none",)).images(guide_buffers())


def guide_buffers() -> Any:
    from mitsuba_gdpt.buffers import FrameBuffers
    from mitsuba_gdpt.channels import Layout

    layout = Layout.make()
    data = torch.rand(6, 7, layout.count, generator=torch.Generator().manual_seed(0))
    return FrameBuffers(data, layout)


# ------------------------------------------------------------------------------------- readers


def read_exr(path: Path) -> None:
    from mitsuba_gdpt.buffers import FrameBuffers

    FrameBuffers.from_exr(path)


def read_crop_set(path: Path) -> None:
    from mitsuba_gdpt.data import CropSet

    crop_set = CropSet.open(path)
    for i in range(min(len(crop_set), 4)):
        _ = crop_set[i]
    crop_set.table("one", "camera")


def read_darc(path: Path) -> None:
    from mitsuba_gdpt.data import DarcFile

    with DarcFile(path) as file:
        file.names()
        for _ in file.crops():
            pass


def read_weights(path: Path) -> None:
    from mitsuba_gdpt.denoisers import load_weights

    load_weights(path)


def read_toml(path: Path) -> None:
    from mitsuba_gdpt.training import load_config

    load_config(path)


def read_frame_set(path: Path) -> None:
    from mitsuba_gdpt.data import FrameSet

    for sequence in FrameSet.open(path).sequences:
        for frame in sequence:
            frame.target()
            for k in range(frame.renders):
                frame.noisy(k)


def read_guide(path: Path) -> None:
    from mitsuba_gdpt.training.guides import GuideCache

    images = GuideCache(path, ("none",)).images(guide_buffers())
    assert images.shape == (1, 6, 7, 3)
    assert bool(torch.isfinite(images).all())


# ------------------------------------------------------------------------------------ mutations

#: Values that make trouble: far too large, of another type, not finite, deep, long.
EXTREMES: tuple[Callable[[Random], Any], ...] = (
    lambda rng: 10 ** rng.choice([9, 12, 18, 19, 30]),
    lambda rng: -(10 ** rng.choice([0, 9, 30])),
    lambda rng: rng.choice([0, 1, -1, 0.5, 1e308, 1e-308]),
    lambda rng: rng.choice([float("nan"), float("inf"), -float("inf")]),
    lambda rng: rng.choice([None, True, False, [], {}, "", [[]], [None], {"": None}]),
    lambda rng: rng.choice(["a/b", "..", "\0", "ü" * 3, "x" * 10_000, "1" * 5000]),
    lambda rng: [rng.randrange(100)] * rng.choice([2, 3, 10_000]),
    lambda rng: {str(i): i for i in range(rng.choice([1, 1000]))},
)


def mutate_bytes(content: bytes, rng: Random) -> bytes:
    """Damage anything: bits, numbers, pieces that are lost, doubled, exchanged or made up."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5])):
        # Headers are where the trouble is.
        end = rng.choice([min(len(data), 64), min(len(data), 1024), len(data)])
        at = rng.randrange(max(end, 1))
        match rng.randrange(8):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                data[at : at + 1] = bytes([(data[at] if data else 0) ^ 1 << rng.randrange(8)])
            case 2:
                extremes = [0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.getrandbits(32)]
                data[at : at + 4] = struct.pack("<I", rng.choice(extremes))
            case 3:
                numbers = [1 << 40, 1 << 62, 2**64 - 1, rng.getrandbits(64)]
                data[at : at + 8] = struct.pack("<Q", rng.choice(numbers))
            case 4:
                del data[at:]
            case 5:
                del data[at : at + rng.randrange(1, 64)]
            case 6:
                data[at:at] = data[at : at + rng.randrange(1, 256)]
            case _:
                data[at:at] = rng.randbytes(rng.randrange(1, 64))
    return bytes(data)


def mutate_json(content: bytes, rng: Random) -> bytes:
    """Replace, remove or add values of a JSON text, or damage the text."""
    roll = rng.random()
    if roll < 0.15:
        return mutate_bytes(content, rng)
    if roll < 0.25:
        depth = rng.choice([100, 5000, 100_000])
        return content.rstrip()[:-1] + b', "deep": ' + b"[" * depth + b"]" * depth + b"}"
    if roll < 0.3:
        return content.rstrip()[:-1] + b', "long": ' + b"9" * 5000 + b"}"
    tree = json.loads(content)
    for _ in range(rng.choice([1, 1, 2])):
        places = [*_places(tree)]
        if not places:
            break
        parent, key = rng.choice(places)
        match rng.randrange(4):
            case 0:
                del parent[key]
            case _:
                parent[key] = rng.choice(EXTREMES)(rng)
    return json.dumps(tree).encode()


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree))
    for key in keys:
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from _places(tree[key])


def mutate_toml(content: bytes, rng: Random) -> bytes:
    """Replace values of a TOML text by trouble, add keys, or damage the text."""
    lines = content.decode().splitlines()
    values = [
        *("9" * 5000, "0x" + "f" * 5000, "nan", "inf", "-inf", "1e400", "-1", "0", "true"),
        *('""', "[]", "{}", "[" * 2000 + "]" * 2000, "'" + "x" * 100_000 + "'", '"a/../b"'),
        *("1e308", "2.5", "99999999999", "[1, 'a']", "1979-05-27", "{a.b.c = 1}", '"\\u0000"'),
    ]
    match rng.randrange(6):
        case 0 | 1 | 2:
            settings = [i for i, line in enumerate(lines) if "=" in line]
            at = rng.choice(settings)
            lines[at] = f"{lines[at].partition('=')[0]}= {rng.choice(values)}"
        case 3:
            lines.insert(rng.randrange(len(lines)), f"steps = {rng.choice(values)}")
        case 4:
            parts = rng.choice([10, 5000, 100_000])
            lines.insert(0, ".".join(["a"] * parts) + " = 1")
        case _:
            return mutate_bytes(content, rng)
    return "\n".join(lines).encode()


def mutate_weights(content: bytes, rng: Random) -> bytes:
    """Damage the header of weights as JSON, in its metadata too, or anything."""
    if rng.random() < 0.4:
        return mutate_bytes(content, rng)
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    if rng.random() < 0.5:
        config = mutate_json(header["__metadata__"]["config"].encode(), rng)
        header["__metadata__"]["config"] = config.decode("utf-8", "replace")
        text = json.dumps(header).encode()
    else:
        text = mutate_json(json.dumps(header).encode(), rng)
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


Mutation = Callable[[bytes, Random], bytes]


def mutate_folder(folder: Path, rng: Random) -> None:
    """Damage one file of a folder; descriptions as JSON."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    described = [file for file in files if file.suffix == ".json"]
    file = rng.choice(described if described and rng.random() < 0.7 else files)
    if rng.random() < 0.1:
        file.unlink()
        return
    mutation: Mutation = mutate_json if file in described else mutate_bytes
    file.write_bytes(mutation(file.read_bytes(), rng))


@dataclass(frozen=True)
class Kind:
    """One kind of file: how a valid one is made, what damages it, what reads it."""

    make: Callable[[Path], None]
    read: Callable[[Path], None]
    mutation: Mutation | None  # None: a folder


KINDS = {
    "exr": Kind(valid_exr, read_exr, mutate_bytes),
    "crops.zarr": Kind(valid_crop_set, read_crop_set, None),
    "darc": Kind(valid_darc, read_darc, mutate_bytes),
    "safetensors": Kind(valid_weights, read_weights, mutate_weights),
    "toml": Kind(valid_toml, read_toml, mutate_toml),
    "frames": Kind(valid_frame_set, read_frame_set, None),
    "guides": Kind(valid_guide, read_guide, None),
}


def corpus(kind: str, count: int, seed: int, folder: Path) -> Iterator[Path]:
    """Make malformed files (or folders) of a kind, one after the other; each is gone with the next.

    Args:
        kind: A key of :data:`KINDS`.
        count: How many.
        seed: Decides everything.
        folder: Where to make them.
    """
    how = KINDS[kind]
    torch.manual_seed(seed)
    valid, path = folder / f"valid.{kind}", folder / f"malformed.{kind}"
    how.make(valid)
    for number in range(count):
        rng = Random(f"{kind} {seed} {number}")
        if how.mutation is None:
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(valid, path)
            mutate_folder(path, rng)
        else:
            content = how.mutation(valid.read_bytes(), rng)
            if kind == "safetensors":  # with the right hash in its name, or nobody looks into it
                path.unlink(missing_ok=True)
                digest = hashlib.sha256(content).hexdigest()[:8]
                path = folder / f"malformed-v1-{digest}.safetensors"
            path.write_bytes(content)
        yield path


def read(kind: str, path: Path) -> str:
    """Read a file of a kind; return ``"read"``, ``"refused"``, or what is wrong with how it ended.

    What is allowed: no error, or one of ours, in one line of bounded length that names the file.
    """
    from mitsuba_gdpt.errors import GDPTError

    try:
        KINDS[kind].read(path)
    except GDPTError as error:
        text = str(error)
        if "\n" in text or len(text) > 2000:
            return f"long or of several lines ({len(text)}): {text[:200]!r}"
        if path.name not in text and kind != "toml":
            return f"does not name the file: {text[:200]}"
        return "refused"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return f"raw {type(error).__name__}: {str(error)[:150]} ({where.name}:{where.lineno})"
    return "read"


def main(kinds: list[str], count: int, seed: int, folder: Path) -> None:
    """Read the corpus of some kinds, and print an :class:`Outcome` per file as JSON."""
    np.seterr(all="ignore")
    for kind in kinds:
        for number, path in enumerate(corpus(kind, count, seed, folder)):
            print(json.dumps([kind, number]), flush=True)  # so that somebody sees what hangs
            start = time.monotonic()
            result = read(kind, path)
            seconds = time.monotonic() - start
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(json.dumps(asdict(Outcome(kind, number, result, seconds, memory))), flush=True)


if __name__ == "__main__":
    from tests import malformed

    malformed.main(sys.argv[4:], int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
