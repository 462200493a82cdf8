"""Crop sets on disk: encoding, completeness, and what a killed process may leave behind."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.data import CropDataset, CropSet, store
from mitsuba_gdpt.data.plan import CropPlan
from mitsuba_gdpt.data.render import LAYOUT
from mitsuba_gdpt.errors import ConfigError, FormatError, NonFiniteError
from tests import crops, emitted, kills
from tests.crops import content
from tests.kills import DRIVER, WORKER

ROOT = Path(__file__).parents[2]
PLAN = crops.fill_plan()
VARIANCES = store.variance_channels(LAYOUT)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of made-up crops, written without disturbance; not to be changed."""
    path = tmp_path_factory.mktemp("full") / "set.zarr"
    crops.fill(str(path))
    return path


# ------------------------------------------------------------------------------------- encoding


def test_half_keeps_small_variances_and_counts_fireflies() -> None:
    values = np.array([[1e-9, 3.0, -2.0, 1e-9], [7e4, 65504.0, -1e6, 4e9]], np.float32)
    encoded, clamped = store.to_half(values, slice(3, 4))
    assert encoded.dtype == np.float16
    assert clamped == 2
    assert encoded[1, :3].tolist() == [65504, 65504, -65504]
    np.testing.assert_allclose(encoded[0, :3], [0, 3, -2], atol=1e-7)
    np.testing.assert_allclose(encoded[:, 3].astype(np.float32) ** 2, values[:, 3], rtol=2e-3)
    assert values[0, 3] == np.float32(1e-9)  # the caller's array is left alone


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_half_refuses_what_is_not_finite(bad: float) -> None:
    with pytest.raises(NonFiniteError, match="1 of 6 values"):
        store.to_half(np.array([[1, 2, 3], [4, bad, 6]], np.float32))
    with pytest.raises(NonFiniteError), np.errstate(invalid="ignore"):
        store.to_half(np.array([[-1.0]]), slice(0, 1))  # a negative variance


def test_variance_channels() -> None:
    assert [LAYOUT.channels[i] for i in range(LAYOUT.count)[VARIANCES]] == [
        f"{name}.var" for name in LAYOUT.names if f"{name}.var" in LAYOUT
    ]
    empty = store.variance_channels(LAYOUT.make())
    assert range(16)[empty] == range(16, 16)


# --------------------------------------------------------------------------------------- reading


def test_round_trip(full: Path) -> None:
    crop_set = CropSet.open(full)
    assert (len(crop_set), crop_set.planned, crop_set.scenes) == (22, 22, ["one", "second"])
    assert crop_set.faults == {"clamped": 2 * sum(range(11)), "nonfinite_samples": 0}
    position = 0
    for shard in store.shards(PLAN, full, 2):
        noisy, targets, deviation, _ = crops.made_up(PLAN, shard)
        for row, index in enumerate(range(shard.start, shard.stop)):
            crop = crop_set[position]
            spec = PLAN.crop(PLAN.scene(shard.scene), index)
            assert (crop.scene, crop.index, crop.clamped) == (shard.scene, index, index)
            assert tuple(crop.spp.tolist()) == spec.spp
            plain = slice(0, VARIANCES.start)
            assert np.array_equal(crop.noisy[..., plain], noisy[row][..., plain])
            squared = noisy[row][..., VARIANCES].astype(np.float32) ** 2
            assert np.array_equal(crop.noisy[..., VARIANCES], squared)
            assert np.array_equal(crop.targets, targets[row])
            assert np.array_equal(crop.target_variance, deviation[row].astype(np.float32) ** 2)
            position += 1
    frame = crop_set[3].buffers[2]
    assert isinstance(frame, FrameBuffers)
    assert torch.equal(frame["dx.var"], crop_set[3].noisy[2][..., LAYOUT.slices["dx.var"]])


def test_records_say_what_the_plan_said(full: Path) -> None:
    crop_set, scene = CropSet.open(full), PLAN.scenes[1]
    specs = list(PLAN.specs(scene))
    window, camera, seed = (crop_set.table("second", n) for n in ("window", "camera", "seed"))
    for index, spec in enumerate(specs):
        assert (window["frame_width"][index], window["frame_height"][index]) == spec.frame
        assert (window["x"][index], window["y"][index]) == spec.offset
        up = [camera[f"up.{axis}"][index] for axis in "xyz"]
        assert np.array_equal(up, spec.camera.up)
        assert camera["focus"][index] == spec.camera.focus
        assert tuple(int(seed[name][index]) for name in seed) == spec.seeds + spec.target_seeds
    assert "mitsuba 3" in crop_set.attributes["provenance"]["libraries"]
    assert emitted.unknown("set", crop_set.attributes) == []
    assert PLAN.differences(crop_set.attributes["plan"]) == []


def test_dataset_items(full: Path, tmp_path: Path) -> None:
    data = CropDataset(full)
    assert len(data) == 22 * 3
    item = data[3 * 5 + 1]
    crop = data.sets[0][5]
    assert {key: (tuple(v.shape), v.dtype) for key, v in item.items() if key != "scene"} == {
        "buffers": ((32, 32, 30), torch.float32),
        "targets": ((2, 32, 32, 3), torch.float32),
        "target_variance": ((32, 32), torch.float32),
        "spp": ((), torch.int64),
        "index": ((), torch.int64),
    }
    assert torch.equal(item["buffers"], crop.noisy[1])
    assert torch.equal(item["targets"], crop.targets)
    assert torch.equal(item["target_variance"], crop.target_variance)
    assert (int(item["spp"]), int(item["index"]), item["scene"]) == (int(crop.spp[1]), 16, "one")

    assert len(CropDataset([full, full])) == 2 * len(data)
    chosen = CropDataset([full], scenes=["second"])
    assert len(chosen) == 33
    assert chosen[0]["scene"] == "second"
    with pytest.raises(ConfigError, match="no scene third"):
        CropDataset(full, scenes=["third"])
    with pytest.raises(ConfigError, match="at least one"):
        CropDataset([])
    other = tmp_path / "other.zarr"
    crops.fill(str(other), replace(PLAN, target="path", reference_spp=8, crops=1))
    with pytest.raises(ConfigError, match="target_count is 2 and 1"):
        CropDataset([full, other])


def test_target_buffers_leave_the_item_out(full: Path) -> None:
    data = CropDataset(full)
    level, levels = 1, 3
    crop = data.sets[0][0]  # items 0 to 2 are its noisy renders
    buffers = data.target_buffers(level)
    spp = crop.spp.double()
    assert buffers.names == (
        *("primal", "dx", "dy", "albedo", "normal", "depth"),
        *("dx.var", "dy.var"),
    )
    torch.testing.assert_close(buffers["primal"], crop.targets.mean(0))
    weights = spp / spp.sum()
    albedo = sum(weights[i] * crop.buffers[i]["albedo"].double() for i in range(levels))
    torch.testing.assert_close(buffers["albedo"].double(), albedo, rtol=1e-5, atol=1e-6)
    shares = {i: spp[i] / (spp.sum() - spp[level]) for i in range(levels) if i != level}
    dx = sum(share * crop.buffers[i]["dx"].double() for i, share in shares.items())
    torch.testing.assert_close(buffers["dx"].double(), dx, rtol=1e-5, atol=1e-6)
    variance = sum(s**2 * crop.buffers[i]["dx.var"].double() for i, s in shares.items())
    torch.testing.assert_close(buffers["dx.var"].double(), variance, rtol=1e-5, atol=1e-6)


def test_dataset_in_worker_processes(full: Path) -> None:
    """Handles of Zarr do not survive a fork or a pickle; the data set has to."""
    data = CropDataset(full)
    expected = data[20]["buffers"]
    assert torch.equal(pickle.loads(pickle.dumps(data))[20]["buffers"], expected)
    loader = torch.utils.data.DataLoader(data, batch_size=4, num_workers=2, timeout=60)
    batches = list(loader)
    assert torch.equal(torch.cat([b["index"] for b in batches]), torch.arange(66))
    assert torch.equal(batches[5]["buffers"][0], expected)


# ----------------------------------------------------------------------------------- completeness


def test_unfinished_set(full: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.zarr"
    store.create(PLAN, LAYOUT, path, crops_per_shard=2)
    assert len(CropSet.open(path)) == 0
    with pytest.raises(ConfigError, match="no crop is finished"):
        CropDataset(path)
    shards = store.shards(PLAN, path, 2)
    for shard in (shards[3], shards[5]):  # the last one of a scene holds one crop only
        shard.write(*crops.made_up(PLAN, shard))
    crop_set = CropSet.open(path)
    assert [crop_set.where(i) for i in range(len(crop_set))] == [("one", i) for i in (6, 7, 10)]
    assert crop_set.planned == 22
    assert torch.equal(crop_set[2].noisy, CropSet.open(full)[10].noisy)
    assert [s.number for s in shards if s.is_complete()] == [3, 5]
    with pytest.raises(IndexError):
        crop_set[3]


def test_black_crops_are_complete(tmp_path: Path) -> None:
    """Zarr writes no file for a chunk of zeros."""
    path = tmp_path / "set.zarr"
    store.create(PLAN, LAYOUT, path, crops_per_shard=2)
    shard = store.shards(PLAN, path, 2)[0]
    shard.write(*(np.zeros_like(values) for values in crops.made_up(PLAN, shard)))
    assert shard.is_complete()
    assert len(CropSet.open(path)) == 2
    assert not CropSet.open(path)[1].noisy.any()


def test_create_at_the_same_time(tmp_path: Path) -> None:
    path = tmp_path / "set.zarr"

    def create(crops_per_shard: int) -> int:
        attributes = store.create(PLAN, LAYOUT, path, crops_per_shard=crops_per_shard)
        return int(attributes["crops_per_shard"])

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(create, [2, 3, 4, 5]))) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["set.zarr"]


def test_another_plan_or_format_is_refused(full: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"another plan: crops, seed differ"):
        store.create(replace(PLAN, crops=12, seed=1), LAYOUT, full, crops_per_shard=2)
    with pytest.raises(ConfigError, match="Choose another folder"):
        store.create(PLAN, LAYOUT.make(), full, crops_per_shard=2)
    with pytest.raises(FormatError, match="does not exist; create it first"):
        store.create(PLAN, LAYOUT, tmp_path / "no" / "set.zarr", crops_per_shard=2)
    with pytest.raises(FormatError, match="no crop set"):
        CropSet.open(tmp_path / "nothing.zarr")
    header = tmp_path / "zarr.json"
    for text, message in [
        ("{", "no crop set; its zarr.json: cannot read this JSON file"),
        ('{"attributes": {}}', "says nothing"),
        ('{"attributes": {"format": "mitsuba_gdpt crops", "version": 2}}', "version 2; expected"),
    ]:
        header.write_text(text)
        with pytest.raises(FormatError, match=message):
            CropSet.open(tmp_path)


def test_damaged_chunk_is_named(full: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.zarr"
    shutil.copytree(full, path)
    file = path / "one/noisy/c/1/0/0/0/0"
    file.write_bytes(file.read_bytes()[:-9])
    crop_set = CropSet.open(path)
    assert crop_set[0].noisy.any()
    with pytest.raises(FormatError, match="noisy of crop 2 of 'one' cannot be read"):
        crop_set[2]


# ------------------------------------------------------------------------------------- damage


def delete(file: Path) -> None:
    file.unlink()


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-9])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def corrupt(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


@pytest.mark.parametrize("damage", [delete, truncate, empty, corrupt])
@pytest.mark.parametrize(
    "name",
    ["noisy/c/1/0/0/0/0", "targets/c/1/0/0/0/0", "target_deviation/c/1/0/0", "faults/c/1/0"],
)
def test_damaged_shard_is_made_anew(
    full: Path, tmp_path: Path, damage: Callable[[Path], None], name: str
) -> None:
    path = tmp_path / "set.zarr"
    shutil.copytree(full, path)
    damage(path / "one" / name)
    incomplete = [s.key for s in store.shards(PLAN, path, 2) if not s.is_complete()]
    assert incomplete == ["one-0001"]
    crop_set = CropSet.open(path)  # the others stay readable
    position = [crop_set.where(i) for i in range(len(crop_set))].index(("second", 3))
    assert torch.equal(crop_set[position].noisy, CropSet.open(full)[14].noisy)
    if ("one", 2) in [crop_set.where(i) for i in range(len(crop_set))] and damage != corrupt:
        with pytest.raises(FormatError, match="of crop 2 of 'one' cannot be read"):
            crop_set[2]
    crops.fill(str(path))
    assert content(path) == content(full)


@pytest.mark.parametrize("damage", [truncate, empty, corrupt])
def test_damaged_description_is_made_anew(
    full: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """All that stands in a set from the start, but what says whose it is."""
    path = tmp_path / "set.zarr"
    shutil.copytree(full, path)
    files = [*(path / "one").rglob("zarr.json")]
    files += [path / "second" / name / "c/0/0" for name in ("spp", "window", "camera", "seed")]
    for file in files:
        damage(file)
    if damage != corrupt:  # what is still JSON may say something harmless
        with pytest.raises(FormatError, match=r"set.zarr/one is damaged"):
            CropSet.open(path)
    crops.fill(str(path))
    assert content(path) == content(full)
    empty(path / "second" / "spp" / "c/0/0")
    with pytest.raises(FormatError, match=r"set.zarr/second/spp is damaged"):
        CropSet.open(path)


def test_checksums_that_are_lost_or_older_than_the_set(full: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.zarr"
    shutil.copytree(full, path)
    for scene in ("one", "second"):
        shutil.rmtree(path / scene / "checksums")
    assert all(shard.is_complete() for shard in store.shards(PLAN, path, 2))
    assert len(CropSet.open(path)) == 22
    delete(path / "one/noisy/c/0/0/0/0/0")
    truncate(path / "one/targets/c/2/0/0/0/0")
    incomplete = [s.key for s in store.shards(PLAN, path, 2) if not s.is_complete()]
    assert incomplete == ["one-0000", "one-0002"]
    with pytest.raises(FormatError, match="noisy of crop 0 of 'one' cannot be read"):
        CropSet.open(path)[0]  # not black


def test_writers_leave_each_other_alone(full: Path, tmp_path: Path) -> None:
    """Also when they write the same shard: nobody sweeps what another one is writing."""
    path = tmp_path / "set.zarr"
    store.create(PLAN, LAYOUT, path, crops_per_shard=2)
    shard = store.shards(PLAN, path, 2)[0]
    values = crops.made_up(PLAN, shard)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: shard.write(*values), range(20)))
    assert shard.is_complete()
    assert torch.equal(CropSet.open(path)[1].noisy, CropSet.open(full)[1].noisy)
    assert not [file for file in path.rglob("*") if file.suffix in (".tmp", ".partial")]


# -------------------------------------------------------------------------------- interruptions


def start(
    path: Path, plan: CropPlan, workers: int = 0, die_at: int | None = None
) -> subprocess.Popen[str]:
    words = [str(word) for word in (path, plan.size, plan.crops, workers)]
    command = [sys.executable, "-m", "tests.crops", *words]
    environment = os.environ if die_at is None else {**os.environ, kills.DIE_AT: str(die_at)}
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    assert die_at is not None or child.stdout.readline() == "ready\n"
    return child


def finish(path: Path, plan: CropPlan) -> None:
    with start(path, plan) as child:
        assert child.wait(120) == 0


def kill_and_rerun(path: Path, plan: CropPlan, undisturbed: Path, times: int) -> int:
    """Kill writers at random moments, finish the set; return how many were caught at work."""
    expected, caught, rng = content(undisturbed), 0, random.Random(times)
    seconds = 0.3
    for _ in range(times):
        with start(path, plan) as child:
            time.sleep(rng.uniform(0, seconds))
            child.kill()
            killed = child.wait() != 0
        caught += killed
        if not killed:  # it was done: begin again, and be quicker
            shutil.rmtree(path)
            seconds /= 2
            continue
        kills.check_readable(path, undisturbed)
    finish(path, plan)
    assert content(path) == expected
    return caught


@pytest.mark.parametrize(
    "points",
    [
        # Before the set appears, and before each of the five files of a shard.
        pytest.param([0, 32], id="few"),
        pytest.param(range(60), id="each", marks=pytest.mark.slow),
    ],
)
def test_killed_at_known_points(full: Path, tmp_path: Path, points: Iterable[int]) -> None:
    path = tmp_path / "set.zarr"
    for point in points:
        with start(path, PLAN, die_at=point) as child:
            if child.wait(120) == 0:  # all was written with fewer renamings
                shutil.rmtree(path)
                continue
            assert child.returncode == -signal.SIGKILL
        if path.exists():
            kills.check_readable(path, full)
    finish(path, PLAN)
    assert content(path) == content(full)
    assert [*tmp_path.iterdir()] == [path]  # and inside nothing but the content


@pytest.mark.slow
def test_killed_at_random_moments(tmp_path: Path) -> None:
    plan, folder = crops.fill_plan(size=48, crops=80), tmp_path / "sets"
    folder.mkdir()
    crops.fill(str(tmp_path / "full.zarr"), plan)
    assert kill_and_rerun(folder / "set.zarr", plan, tmp_path / "full.zarr", times=100) >= 50
    assert [path.name for path in folder.iterdir()] == ["set.zarr"]


@pytest.mark.parametrize(
    "victims",
    [
        pytest.param([WORKER, DRIVER, WORKER, DRIVER], id="few"),
        pytest.param([WORKER] * 5 + [DRIVER, WORKER] * 5, id="many", marks=pytest.mark.slow),
    ],
)
def test_workers_and_driver_killed(tmp_path: Path, victims: list[str]) -> None:
    path, undisturbed = tmp_path / "set.zarr", tmp_path / "full.zarr"
    plan = crops.fill_plan(crops=10 * len(victims))
    crops.fill(str(undisturbed), plan)
    caught = kills.disturb(
        lambda: start(path, plan, workers=2), path, undisturbed, victims, len(victims)
    )
    finish(path, plan)
    assert content(path) == content(undisturbed)
    assert caught >= len(victims) // 2


def test_several_processes_at_once(full: Path, tmp_path: Path) -> None:
    path = tmp_path / "set.zarr"
    children = [start(path, PLAN) for _ in range(2)]
    for child in children:
        with child:
            assert child.wait(60) == 0
    assert content(path) == content(full)


def test_full_disk(full: Path, tmp_path: Path) -> None:
    """The limit of a file's size stands in for a full disk: both stop a write half-way."""
    path = tmp_path / "set.zarr"
    code = f"""
import resource
from tests import crops
from tests.crops import content
plan = crops.fill_plan()
crops.store.create(plan, crops.LAYOUT, {str(path)!r}, crops_per_shard=2)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, -1))
crops.fill({str(path)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert "cannot write crops 0 to 1 of 'one': File too large. What was written" in error
    assert not list(path.rglob("*.partial"))
    crops.fill(str(path))
    assert content(path) == content(full)
