"""Batches of tiny renders: files, reuse, failures, resumption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mitsuba_gdpt import batch, denoisers, exr, provenance, rendering
from mitsuba_gdpt.batch import Batch, IntegratorChoice, Override, SceneChoice
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.cli import main
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import ConfigError, FormatError, GDPTError
from mitsuba_gdpt.execution import ClusterOptions

SQUARE = """<scene version="3.0.0">
  <integrator type="path"/>
  <sensor type="perspective">
    <film type="hdrfilm">
      <integer name="width" value="12"/><integer name="height" value="8"/><rfilter type="box"/>
    </film>
    <transform name="to_world"><lookat origin="0,0,3" target="0,0,0" up="0,1,0"/></transform>
  </sensor>
  <emitter type="constant"/>
  <shape type="rectangle"><bsdf type="diffuse"/></shape>
</scene>"""
DENOISERS = ("none", "poisson-l2")


@pytest.fixture
def square(tmp_path: Path) -> str:
    path = tmp_path / "square.xml"
    path.write_text(SQUARE)
    return str(path)


@pytest.fixture
def spec(square: str, tmp_path: Path) -> Batch:
    return Batch(
        scenes=(SceneChoice(square),), output=tmp_path / "out", spp=(1, 2), denoisers=DENOISERS
    )


@pytest.fixture
def renders(monkeypatch) -> list[int]:
    """The spp of the renders that are made in this process."""
    calls: list[int] = []
    original = rendering.render

    def render(*arguments, spp, **options):
        calls.append(spp)
        return original(*arguments, spp=spp, **options)

    monkeypatch.setattr(rendering, "render", render)
    return calls


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_jobs_with_a_time(square: str, tmp_path: Path) -> None:
    spec = Batch(
        scenes=(SceneChoice(square),), output=tmp_path, seconds=(0.2,), denoisers=("poisson-l2",)
    )
    assert not batch.run(spec).failed
    (path,) = tmp_path.rglob("*.exr")
    passes = FrameBuffers.from_exr(path).metadata["passes"].split()
    # Two measure what a sample costs; how many follow depends on the machine.
    assert len(passes) >= 2
    assert {p.split(":")[2] for p in passes} == {"1"}
    record = json.loads(path.with_suffix(".json").read_text())
    assert (record["job"]["seconds"], record["job"]["spp"]) == (0.2, None)
    stamp = path.stat().st_mtime_ns
    batch.run(spec)
    assert path.stat().st_mtime_ns == stamp


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_files_and_reuse(spec: Batch, square: str, tmp_path: Path, renders: list[int]) -> None:
    source = rendering.open_source(square)
    reference = tmp_path / "reference.exr"
    integrator = rendering.make_integrator({})
    rendering.render(source, integrator, spp=64, seed=9).to_exr(reference)
    del renders[:]
    spec = replace(
        spec,
        scenes=(SceneChoice(square, reference=(str(reference),)),),
        metrics=("relmse", "psnr"),
        overrides=(Override({"denoiser": "none"}, {"png": False}),),
    )
    result = batch.run(spec)
    assert (result.summary.done, result.failed) == (2, {})
    assert renders == [1, 2]  # each serves both denoisers
    assert len(result.jobs) == 4

    path = spec.output / "square/0-gdpt-2spp-0-poisson-l2.exr"
    frame = FrameBuffers.from_exr(path)
    expected = denoisers.denoise(frame, "poisson-l2").numpy()
    np.testing.assert_allclose(exr.read_image(path, exr.DENOISED), expected, rtol=1e-5, atol=1e-6)
    assert (frame.width, frame.height, frame.metadata["spp"]) == (12, 8, "2")
    assert Image.open(path.with_suffix(".png")).size == (12, 8)
    assert not (spec.output / "square/0-gdpt-2spp-0-none.png").exists()
    report = json.loads(path.with_suffix(".json").read_text())
    difference = expected - exr.read_image(reference)
    grey = exr.read_image(reference).mean(-1, keepdims=True)
    assert report["metrics"]["relmse"] == pytest.approx(
        float((difference**2 / (grey**2 + 1e-2)).mean()), rel=1e-4
    )
    assert report["metrics"]["psnr"] > 10
    assert report["render_seconds"] > 0
    assert report["sources"] == provenance.sources()
    assert report["job"]["method"] == "poisson-l2"
    page = (spec.output / "gallery.html").read_text()
    assert page.count("data:image/png;base64") == 4
    assert 'href="square/0-gdpt-2spp-0-poisson-l2.exr"' in page
    assert "relMSE" in page
    before = {job.output: job.output.stat().st_mtime_ns for job in result.jobs}

    # Nothing has changed.
    assert str(batch.run(spec).summary) == "0 done, 2 skipped, 0 failed"
    # Another option of a denoiser: reconstructed again, from the buffers that are there.
    calls = {"none": Call("none"), "poisson-l2": Call.parse("poisson-l2(alpha=1.0)")}
    other = replace(spec, denoisers=calls)
    assert str(batch.run(other).summary) == "2 done, 0 skipped, 0 failed"
    assert renders == [1, 2]
    assert np.array_equal(FrameBuffers.from_exr(path).data, frame.data)
    assert not np.allclose(exr.read_image(path, exr.DENOISED), expected)
    untouched = [p for p, time in before.items() if p.stat().st_mtime_ns == time]
    assert [p.name for p in untouched] == ["0-gdpt-1spp-0-none.exr", "0-gdpt-2spp-0-none.exr"]
    # A setting of the integrator: rendered again. A file is missing: made again.
    deeper = replace(
        other, overrides=(*other.overrides, Override({"spp": 2}, {"settings": {"max_depth": 2}}))
    )
    batch.run(deeper)
    assert renders == [1, 2, 2]
    path.with_suffix(".png").unlink()
    assert str(batch.run(deeper).summary) == "1 done, 1 skipped, 0 failed"
    assert path.with_suffix(".png").exists()
    assert renders == [1, 2, 2]


@pytest.mark.usefixtures("variant_llvm_rgb")
@pytest.mark.parametrize("suffix", [".exr", ".png", ".json"])
@pytest.mark.parametrize("kept", [0.0, 0.7])
def test_damaged_files_are_made_again(
    spec: Batch, renders: list[int], suffix: str, kept: float
) -> None:
    spec = replace(spec, spp=(1,), gallery=False)
    result = batch.run(spec)
    path = result.jobs[1].output.with_suffix(suffix)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    assert [job.is_done() for job in result.jobs] == [True, False]
    assert str(batch.run(spec).summary) == "1 done, 0 skipped, 0 failed"
    assert renders == [1]  # the other job has the buffers
    assert all(job.is_done() for job in result.jobs)
    if suffix == ".png":
        assert path.read_bytes() == whole


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_other_code_makes_everything_again(
    spec: Batch, renders: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(spec, spp=(1,), gallery=False)
    batch.run(spec)
    monkeypatch.setattr(provenance, "sources", lambda: "other code")
    assert str(batch.run(spec).summary) == "1 done, 0 skipped, 0 failed"
    assert renders == [1, 1]


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_links_are_quoted(spec: Batch) -> None:
    spec = replace(spec, spp=(1,), name="50% of #1?{denoiser}.exr".replace("?", "/"))
    batch.run(spec)
    page = (spec.output / "gallery.html").read_text()
    assert 'href="50%25%20of%20%231/none.exr"' in page


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_a_reference_has_the_size_of_the_crop_window(spec: Batch, square: str) -> None:
    crop = "".join(
        f'<integer name="crop_{name}" value="{value}"/>'
        for name, value in {"offset_x": 2, "offset_y": 1, "width": 6, "height": 5}.items()
    )
    scene, reference = Path(square), Path(square).with_name("reference.exr")
    scene.write_text(SQUARE.replace("<rfilter", f"{crop}<rfilter"))
    exr.write_image(reference, np.ones((5, 6, 3), np.float32))
    choice = SceneChoice(square, reference=(str(reference),))
    assert not batch.run(replace(spec, scenes=(choice,), spp=(1,), denoisers=("none",))).failed


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_failures_do_not_stop_the_others(spec: Batch, tmp_path: Path, renders: list[int]) -> None:
    broken = tmp_path / "broken.xml"
    broken.write_text(SQUARE.replace("diffuse", "nonsense"))
    small = tmp_path / "small.exr"
    exr.write_image(small, np.ones((2, 3, 3), np.float32))
    spec = replace(
        spec,
        scenes=(
            SceneChoice(str(broken)),
            *spec.scenes,
            SceneChoice(spec.scenes[0].source, "other", reference=(str(small),)),
        ),
        spp=(1,),
    )
    result = batch.run(spec)
    # "square" and "other" share a render, so that counts as failed, but "square" has its images.
    assert (len(result.summary.failed), len(result.failed)) == (2, 4)
    errors = {path.parent.name: error for path, error in result.failed.items()}
    assert "nonsense" in errors["broken"]
    assert "the reference has 3x2 pixels, the render 12x8" in errors["other"]
    assert renders == [1]
    page = (spec.output / "gallery.html").read_text()
    assert "nonsense" in page
    assert page.count("data:image/png;base64") == 2


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_all_is_checked_before_anything_is_rendered(
    spec: Batch, square: str, tmp_path: Path
) -> None:
    reference = (str(tmp_path / "missing.exr"),)
    for change, message in (
        ({"scenes": (SceneChoice("builtin:nothing"),)}, "nothing"),
        ({"scenes": (SceneChoice("nothing.xml"),)}, "the file nothing.xml does not exist"),
        ({"scenes": (SceneChoice("builtin:tiled-hall", parameters={"a": "1"}),)}, "no parameters"),
        ({"scenes": (SceneChoice(square, reference=reference),)}, "no such file"),
        ({"denoisers": ("magic",)}, "unknown reconstruction method 'magic'"),
        ({"denoisers": ("none(a=1)",)}, "has no option 'a'"),
        ({"integrators": (IntegratorChoice("x", {"depth": 1}),)}, "integrator 'x': .*depth"),
        ({"integrators": (IntegratorChoice("x", {"shifts": 3}),)}, "integrator 'x': .*shifts"),
    ):
        with pytest.raises((ConfigError, FormatError, GDPTError), match=message):
            batch.run(replace(spec, **change))
    here = tmp_path / "reference.exr"
    exr.write_image(here, np.ones((8, 12, 3), np.float32))
    scene = SceneChoice(square, reference=(str(here),))
    with pytest.raises(ConfigError, match="unknown metric 'beauty'"):
        batch.run(replace(spec, scenes=(scene,), metrics=("beauty",)))
    with pytest.raises(ConfigError, match="unknown metric 'beauty'"):
        batch.run(replace(spec, metrics=("beauty",)))
    here.write_bytes(here.read_bytes()[:-20])
    with pytest.raises(FormatError, match="reference"):
        batch.run(replace(spec, scenes=(scene,)))
    assert not spec.output.exists()
    spec.output.mkdir()
    (spec.output / "square").touch()
    with pytest.raises(ConfigError, match="square: there is a file of that name"):
        batch.run(spec)
    (spec.output / "square").unlink()
    (spec.output / "square/0-gdpt-1spp-0-none.exr").mkdir(parents=True)
    with pytest.raises(ConfigError, match="there is a folder of that name"):
        batch.run(spec)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_workers_make_the_same_images(spec: Batch, tmp_path: Path) -> None:
    here = batch.run(spec)
    there = batch.run(
        replace(spec, output=tmp_path / "workers"), cluster=ClusterOptions(workers=2, threads=1)
    )
    assert (there.summary.done, there.failed) == (2, {})
    for a, b in zip(here.jobs, there.jobs, strict=True):
        assert np.array_equal(
            FrameBuffers.from_exr(a.output).data, FrameBuffers.from_exr(b.output).data
        )


JOBS = """
output = "out"
scenes = ["square.xml"]
spp = [1, 2]
seeds = [0, 1, 2, 3]
denoisers = ["none", "poisson-l2"]
gallery = false
"""


def test_killed_batch_is_resumed(square: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.toml").write_text(JOBS)
    command = [sys.executable, "-m", "mitsuba_gdpt", "batch", str(tmp_path / "jobs.toml")]
    killed = subprocess.Popen([*command, "--workers", "1"], stdout=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while len(list(tmp_path.glob("out/square/*.exr"))) < 3:
        assert time.monotonic() < end
        assert killed.poll() is None
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    time.sleep(1.5)  # its unit process notices
    there = list(tmp_path.glob("out/square/*.exr"))
    assert len(there) < 16
    before = {path: path.stat().st_mtime_ns for path in there}
    done = subprocess.run([*command, "--workers", "0"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("16 images, renders: ")
    assert " 0 skipped" not in done.stdout
    for path in tmp_path.glob("out/square/*.exr"):
        FrameBuffers.from_exr(path)
        exr.read_image(path, exr.DENOISED)
        assert before.get(path, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
    assert len(list(tmp_path.glob("out/square/*.png"))) == 16


def test_command(square: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["batch", str(tmp_path / "jobs.toml"), *arguments])
        return (int(stop.value.code or 0), *capfd.readouterr())

    (tmp_path / "jobs.toml").write_text(JOBS.replace("[0, 1, 2, 3]", "[0]"))
    code, out, err = call("--dry-run")
    assert code == 0, err
    assert out.count("todo") == 4
    assert out.splitlines()[-1] == "4 images from 2 renders"
    assert not (tmp_path / "out").exists()
    code, _, err = call("--workers", "0", "--threads", "2")
    assert (code, "--workers 0 means this process" in err) == (2, True)
    code, out, err = call("--workers", "0")
    assert (code, out.startswith("4 images, renders: 2 done, 0 skipped, 0 failed, ")) == (0, True)
    assert call("--dry-run")[1].count("done  ") == 4

    (tmp_path / "square.xml").write_text(SQUARE.replace("diffuse", "nonsense"))
    code, out, err = call("--workers", "0")
    assert code == 1
    assert "2 failed" in out
    assert err.count("failed: ") == 4
    (tmp_path / "jobs.toml").write_text(JOBS + "spq = 3")
    code, _, err = call()
    assert (code, "unknown key 'spq'" in err) == (2, True)


def test_interrupted_command(square: str, tmp_path: Path, capfd, monkeypatch) -> None:
    (tmp_path / "jobs.toml").write_text(JOBS)

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(rendering, "render", interrupt)
    with pytest.raises(SystemExit) as stop:
        main(["batch", str(tmp_path / "jobs.toml"), "--workers", "0"])
    assert stop.value.code == 130
    assert "interrupted with 0 of 8 results complete; run the same again" in capfd.readouterr().err


@pytest.fixture
def fly(tmp_path: Path) -> Batch:
    return Batch(
        scenes=(SceneChoice("builtin:corner-gallery", "corner"),),
        output=tmp_path / "out",
        spp=(6,),
        fly_through=2,
        span=(0.4, 0.42),
        width=16,
        height=12,
        integrators=(IntegratorChoice("direct", {"max_depth": 2}),),
        denoisers=("temporal(using=poisson-l2)",),
    )


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_sequences(fly: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    result = batch.run(fly)
    assert (result.summary.done, result.failed) == (1, {})
    (job,) = result.jobs
    frames = [FrameBuffers.from_exr(path) for path in job.buffers]
    assert [frame.metadata["spp"] for frame in frames] == ["6", "6"]
    assert frames[0].metadata["method"] == "temporal(using=poisson-l2)"
    assert not np.array_equal(frames[0].data, frames[1].data)
    assert [Image.open(p.with_suffix(".png")).size for p in job.buffers] == [(16, 12)] * 2
    record = json.loads(job.cell.record.read_text())
    assert (record["spp"], record["job"]["fly_through"]) == ([6, 6], 2)
    page = (fly.output / "gallery.html").read_text()
    assert "1 sequences from 1 renders, 0 failed" in page
    assert 'href="corner/0-direct-6spp-0-temporal-using-poisson-l2/frame-0001.exr"' in page
    assert str(batch.run(fly).summary) == "0 done, 1 skipped, 0 failed"

    passes = []
    original = rendering.frame.render

    def render(*arguments, spp, **options):
        passes.append(spp)
        return original(*arguments, spp=spp, **options)

    monkeypatch.setattr(rendering.frame, "render", render)
    bits = [frame.data for frame in frames]

    def again(spec: Batch) -> list[int]:
        del passes[:]
        assert str(batch.run(spec).summary) == "1 done, 0 skipped, 0 failed"
        assert job.is_done() == (spec is fly)
        found = [FrameBuffers.from_exr(path).data for path in job.buffers]
        assert all(map(np.array_equal, found, bits))
        return passes

    # Brighter pictures need no samples; damaged files do, also with no record of what they were.
    assert again(replace(fly, exposure=1.0)) == []
    assert again(fly) == []
    whole = job.buffers[0].read_bytes()
    job.buffers[0].write_bytes(whole[: len(whole) // 2])
    assert again(fly) == [2, 2, 2, 2, 2, 2]
    job.buffers[0].write_bytes(whole[: len(whole) // 2])
    job.cell.record.unlink()
    assert again(fly) == [2, 2, 2, 2, 2, 2]
    # Killed before the last round: what was sampled is not sampled again.
    job.cell.record.unlink()
    assert again(fly) == []


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_interrupted_sequence_goes_on(fly: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = replace(fly, output=fly.output.with_name("whole"))
    expected = [FrameBuffers.from_exr(path) for path in batch.run(whole).jobs[0].buffers]
    original, passes = rendering.frame.render, []

    def render(*arguments, **options):
        passes.append(options["spp"])
        if len(passes) == 6:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(rendering.frame, "render", render)
    with pytest.raises(KeyboardInterrupt):
        batch.run(fly)
    (job,) = batch.run(fly).jobs
    assert job.is_done()
    assert len(passes) == 7  # the first passes, a frame; the one that was interrupted, again
    found = [FrameBuffers.from_exr(path) for path in job.buffers]
    for frame, other in zip(found, expected, strict=True):
        assert np.array_equal(frame.data, other.data)


@pytest.mark.usefixtures("variant_llvm_rgb")
def test_sequences_are_checked_before_anything_is_rendered(fly: Batch, square: str) -> None:
    with pytest.raises(ConfigError, match=r"scene 'square': no fly-through is known for"):
        batch.run(replace(fly, scenes=(SceneChoice(square),)))
    fly.output.mkdir()
    (fly.output / "corner").mkdir()
    (fly.output / "corner/0-direct-6spp-0-temporal-using-poisson-l2").touch()
    with pytest.raises(ConfigError, match="there is a file of that name; expected a folder"):
        batch.run(fly)
