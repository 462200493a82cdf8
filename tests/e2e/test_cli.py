"""The command line: what it writes, what it prints, and how it fails."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mitsuba_gdpt import Layout, denoise, display, exr, pfm, references, scenes
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.cli import main
from mitsuba_gdpt.cli.options import key_values, typed_values
from mitsuba_gdpt.denoisers import Call, find
from mitsuba_gdpt.errors import ConfigError, plain

SCENE = scenes.names()[0]

#: A lit square in front of the camera; the parameter "shade" has a default, the film a size.
XML = """<scene version="3.0.0">
  <default name="shade" value="0.5"/>
  {integrator}
  <sensor type="perspective">
    <film type="hdrfilm">
      <integer name="width" value="12"/>
      <integer name="height" value="8"/>
      {film}
      <rfilter type="box"/>
    </film>
    <transform name="to_world"><lookat origin="0,0,3" target="0,0,0" up="0,1,0"/></transform>
  </sensor>
  <emitter type="constant"/>
  <shape type="rectangle">
    <bsdf type="diffuse"><rgb name="reflectance" value="$shade"/></bsdf>
  </shape>
</scene>"""


def write_scene(folder: Path, film: str = "", integrator: str = '<integrator type="path"/>') -> str:
    path = folder / "square.xml"
    path.write_text(XML.format(film=film, integrator=integrator))
    return str(path)


def program(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "mitsuba_gdpt", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
        env={**os.environ, **environment},
    )


class Result:
    """What a call of the command line within this process did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]):
    def call(*arguments: object) -> Result:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in arguments])
        out, err = capfd.readouterr()
        return Result(int(stop.value.code or 0), out, err)

    return call


def test_render_and_denoise(tmp_path: Path) -> None:
    """The command of the README, in processes of their own."""
    buffers, picture = tmp_path / "out.exr", tmp_path / "out.png"
    command = ("render", f"builtin:{SCENE}", "--width", 24, "--height", 16, "--spp", 4)
    done = program(*command, "--denoise", "poisson-l1", "-o", buffers, "--png", picture)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{SCENE}: 24x16, 4 spp, ")
    for word in ("rendered in", "samples/s", "poisson-l1 in", "peak memory", "wrote"):
        assert word in done.stdout
    assert len(done.stdout.splitlines()) == 1

    frame = FrameBuffers.from_exr(buffers)
    assert (frame.width, frame.height) == (24, 16)
    assert frame.names == ("primal", "dx", "dy", "albedo", "normal", "depth")
    assert frame.metadata["spp"] == "4"
    assert frame.metadata["method"] == "poisson-l1"
    assert Image.open(picture).size == (24, 16)
    denoised = exr.read_image(buffers, exr.DENOISED)
    assert np.isfinite(denoised).all()
    assert denoised.mean() > 0

    clean = tmp_path / "clean.exr"
    again = program("denoise", buffers, "--method", "poisson-l1", "-o", clean)
    assert again.returncode == 0, again.stderr
    np.testing.assert_allclose(exr.read_image(clean), denoised, rtol=1e-5, atol=1e-6)


def test_seed_decides(run, tmp_path: Path) -> None:
    scene, images = write_scene(tmp_path), []
    for seed in (1, 1, 2):
        path = tmp_path / "a.exr"
        done = run("render", scene, "--spp", 2, "--seed", seed, "--denoise", "none", "-o", path)
        assert done.code == 0, done.err
        images.append(exr.read_image(path))
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


@pytest.mark.parametrize("builtin", [True, False])
def test_same_image_each_time_it_is_loaded(run, tmp_path: Path, builtin: bool) -> None:
    """Mitsuba's own loader shuffles the emitters of a scene."""
    light = """<shape type="{}"><transform name="to_world"><scale value="0.2"/>
        <translate x="{}" y="0.6" z="1"/></transform>
        <emitter type="area"><rgb name="radiance" value="{}"/></emitter></shape>"""
    lights = "".join(light.format("cube", x / 4 - 1, x) for x in range(8))
    scene, images = write_scene(tmp_path, integrator=lights), []
    words = ("--width", 16, "--spp", 1, "--max-depth", 3, "--denoise", "none")
    for i in range(3):
        path = tmp_path / f"{i}.exr"
        done = run("render", "builtin:string-lights" if builtin else scene, *words, "-o", path)
        assert done.code == 0, done.err
        images.append(exr.read_image(path))
    assert np.array_equal(images[0], images[1])
    assert np.array_equal(images[0], images[2])


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ((), (12, 8)),
        (("--width", "6"), (6, 4)),
        (("--height", "4"), (6, 4)),
        (("--width", "5", "--height", "7"), (5, 7)),
    ],
)
def test_size(run, tmp_path: Path, arguments: tuple[str, ...], size: tuple[int, int]) -> None:
    picture = tmp_path / "a.png"
    done = run("render", write_scene(tmp_path), "--spp", 1, "--png", picture, *arguments)
    assert done.code == 0, done.err
    assert Image.open(picture).size == size


def test_scene_parameters_and_exposure(run, tmp_path: Path) -> None:
    scene = write_scene(tmp_path)
    # A square that glows by itself has no noise.
    glowing = Path(scene).read_text().replace("bsdf", "emitter").replace("diffuse", "area")
    Path(scene).write_text(glowing.replace("reflectance", "radiance"))
    common = ("--spp", 4, "--denoise", "none")
    means = []
    for i, words in enumerate([(), ("-D", "shade=0.25"), ("--exposure", "-1")]):
        picture, buffers = tmp_path / f"{i}.png", tmp_path / f"{i}.exr"
        done = run("render", scene, *common, "--png", picture, "-o", buffers, *words)
        assert done.code == 0, done.err
        means.append((exr.read_image(buffers)[4, 6, 0], Image.open(picture).getpixel((6, 4))[0]))
    radiance, encoded = zip(*means, strict=True)
    np.testing.assert_allclose(radiance, [0.5, 0.25, 0.5], rtol=1e-3)
    assert encoded == (188, 137, 137)  # sRGB of 1/2 and 1/4


def test_files_beside_the_scene_are_found(run, tmp_path: Path) -> None:
    """Textures and meshes are named relative to the XML file, not to the working directory."""
    scene = write_scene(tmp_path)
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "red.png")
    rgb = '<rgb name="reflectance" value="$shade"/>'
    texture = '<texture type="bitmap" name="reflectance"><string name="filename" value="red.png"/>'
    text = Path(scene).read_text().replace(rgb, texture + "</texture>")
    Path(scene).write_text(text.replace('<default name="shade" value="0.5"/>', ""))
    buffers = tmp_path / "a.exr"
    done = run("render", scene, "--spp", 2, "-o", buffers)
    assert done.code == 0, done.err
    assert np.allclose(FrameBuffers.from_exr(buffers).albedo[4, 6], [1, 0, 0], atol=0.01)


def test_settings_of_the_scene_are_kept(run, tmp_path: Path) -> None:
    path = '<integrator type="path"><integer name="max_depth" value="3"/></integrator>'
    gdpt = '<integrator type="gdpt"><boolean name="variances" value="true"/></integrator>'
    for integrator, words, expected in [
        (path, (), "max_depth = 3,"),
        (path, ("--max-depth", 5), "max_depth = 5,"),
        (gdpt, (), "variances = True,"),
        ("", (), "max_depth = -1,"),
    ]:
        buffers = tmp_path / "a.exr"
        scene = write_scene(tmp_path, integrator=integrator)
        done = run("render", scene, "--spp", 2, "-o", buffers, *words)
        assert done.code == 0, done.err
        assert expected in exr.read_metadata(buffers)["integrator"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-m", "none", "-m", "oidn(ensemble=3)"), "ensemble is 3; expected one of: 1, 2, 4"),
        (("-m", "poisson-l1(alpha=-1)"), "alpha is -1.0; expected a number > 0"),
        (("-m", "oidn(weights=/nowhere.tza)"), "/nowhere.tza: cannot read these weights"),
        (("-m", "temporal(using=optix)"), "NVIDIA GPU"),
        (("-m", "none", "--shifts", "3"), '"shifts" is 3'),
    ],
)
def test_evaluate_refuses_what_cannot_run_before_it_renders(
    run, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    done = run("evaluate", f"builtin:{SCENE}", *words, "-o", tmp_path / "out")
    assert (done.code, message in done.err) == (2, True), done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            '<sensor type="perspective"><animation name="toWorld"/></sensor>',
            "Mitsuba 3 moves nothing while the shutter is open",
        ),
        (
            '<sensor type="perspective"><film type="multifilm"/></sensor>',
            'write <film type="hdrfilm">',
        ),
        ('<integrator type="gpt"/>', 'here it is <integrator type="gdpt">'),
    ],
)
@pytest.mark.parametrize("version", ["0.6.0", "3.0.0"])
def test_what_scenes_of_the_originals_have_besides(
    run, tmp_path: Path, part: str, message: str, version: str
) -> None:
    scene = tmp_path / "old.xml"
    scene.write_text(f'<scene version="{version}">{part}</scene>')
    done = run("render", scene, "-o", tmp_path / "out.exr")
    assert (done.code, done.err.count("error:")) == (2, 1), done.err
    assert message in " ".join(done.err.split())


def test_reference_is_what_evaluate_takes(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, folder = write_scene(tmp_path), tmp_path / "references"
    command = ("reference", scene, "--max-depth", 3, "--width", 12, "-o", folder)
    first = run(*command, "--spp", 64, "--noise", 0)
    assert first.code == 0, first.err
    assert "square.npz: 12x8, 64 spp in each half, noise " in first.out
    monkeypatch.setenv(references.FOLDER_VARIABLE, str(folder))
    more = run(*command, "--spp", 128, "--noise", 0)
    assert "12x8, 128 spp in each half" in more.out
    assert "; noise before: " in more.out
    results = tmp_path / "results"
    words = ("-m", "none", "--spp", 2, "--seeds", 1, "--max-depth", 3, "--metric", "relmse")
    done = run("evaluate", scene, *words, "-o", results)
    assert done.code == 0, done.err
    told = json.loads((results / "results.json").read_text())["references"]["square"]
    assert told == references.describe(folder / "square.npz")
    assert told["sha256"] in (results / "report.html").read_text()
    refused = run("reference", f"builtin:{SCENE}", "-o", folder)
    assert refused.code == 2
    assert "has no file" in refused.err
    # What took long is not replaced by another kind of reference.
    for words in (("--width", 10, "--max-depth", 3), ("--width", 12, "--max-depth", 4)):
        refused = run("reference", scene, *words, "--spp", 8, "-o", folder)
        expect_bad_input(refused, "give --width 12 --max-depth 3 to go on with it, or another")
    assert told == references.describe(folder / "square.npz")


def test_optional_buffers(run, tmp_path: Path) -> None:
    path = tmp_path / "a.exr"
    words = ("--features", "roughness,position", "--variances", "--shifts", 2, "--spp", 4)
    done = run("render", write_scene(tmp_path), *words, "-o", path)
    assert done.code == 0, done.err
    assert {"roughness", "position", "dx.var"} <= set(FrameBuffers.from_exr(path).names)


def test_methods_ask_for_what_they_need(run, tmp_path: Path) -> None:
    """Variances for one, further features for another that it calls; given ones stay."""
    path = tmp_path / "a.exr"
    words = ("--spp", 4, "--shifts", 2, "--features", "roughness", "-o", path)
    method = "oidn-fusion(using=kpcn-small)"
    done = run("render", write_scene(tmp_path), "--denoise", method, *words)
    assert done.code == 0, done.err
    names = set(FrameBuffers.from_exr(path).names)
    assert set(find("kpcn-small").needs) <= names
    assert {"roughness", "primal.var", "diffuse.var"} <= names


def test_scene_list(run) -> None:
    done = run("scenes")
    assert done.code == 0
    for name in scenes.names():
        assert f"builtin:{name}" in done.out


def test_scene_previews(run, tmp_path: Path) -> None:
    names = scenes.names()[:2]
    done = run("scenes", *names, "--preview", tmp_path / "p", "--width", 16, "--spp", 1)
    assert done.code == 0, done.err
    assert sorted(p.stem for p in (tmp_path / "p").iterdir()) == sorted([*names, "contact-sheet"])
    assert Image.open(tmp_path / "p" / f"{names[0]}.png").width == 16
    assert Image.open(tmp_path / "p" / "contact-sheet.png").width >= 32


def test_info(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = run("info")
    assert done.code == 0, done.err
    for word in ("mitsuba_gdpt", "Dr.Jit", "LLVM", "llvm_ad_rgb", "torch"):
        assert word in done.out
    words = done.out.split()
    order = ("methods", "oidn", "baselines", "nfor", "experiments", "ngpt-small")
    assert sorted(order, key=words.index) == list(order)
    assert re.search(r"ngpt-fusion +4 +0\.0\d+  OIDN", done.out)
    assert re.search(r"balanced \(default\) +4  ngpt-fusion: ", done.out)
    # A path of this machine may be longer.
    assert all(len(x) <= 80 for x in done.out.splitlines() if os.sep not in x)


def test_environment_of_a_python_caller_is_its_own(run) -> None:
    before = dict(os.environ)
    assert run("scenes").code == 0
    assert dict(os.environ) == before


def test_help_is_complete_and_light() -> None:
    code = (
        "import sys\nfrom mitsuba_gdpt.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    for command in ("render", "denoise", "scenes", "info"):
        done = subprocess.run(
            [sys.executable, "-c", code, command, "--help"],
            capture_output=True,
            text=True,
            env={**os.environ, "COLUMNS": "200"},
        )
        assert done.returncode == 0, done.stderr
        assert "Usage: mitsuba-gdpt" in done.stdout


GOOD = ("-o", "a.exr", "--spp", "1")

#: Arguments of `render` after the scene, and a part of the message.
BAD_RENDERS = {
    "no output": ((), "nothing would be written"),
    "wrong suffix": (("-o", "a.png"), "should end in .exr"),
    "no folder": (("-o", "nowhere/a.exr"), "folder nowhere does not exist"),
    "file as folder": (("-o", "square.xml/a.exr"), "square.xml is no folder"),
    "long name": (("-o", f"{'a' * 300}.exr"), "has 304 bytes; expected at most 240"),
    "exposure": ((*GOOD, "--exposure", "1e12"), "--exposure is 1000000000000.0; expected a finite"),
    "spp 0": (("-o", "a.exr", "--spp", "0"), "--spp"),
    "spp text": (("-o", "a.exr", "--spp", "many"), "--spp"),
    "width 0": ((*GOOD, "--width", "0"), "--width"),
    "unknown option": ((*GOOD, "--nonsense"), "--nonsense"),
    "unknown parameter": ((*GOOD, "-D", "nonsense=1"), "$nonsense=1"),
    "malformed parameter": ((*GOOD, "-D", "shade"), "not of the form KEY=VALUE"),
    "scalar variant": ((*GOOD, "--variant", "scalar_rgb"), "does not support"),
    "polarised variant": ((*GOOD, "--variant", "llvm_ad_spectral_polarized"), "does not support"),
    "unknown variant": ((*GOOD, "--variant", "rgb"), "there is no variant 'rgb'"),
    "sensor": ((*GOOD, "--sensor", "1"), "1 sensor(s)"),
    "shifts": ((*GOOD, "--shifts", "3"), "expected 0, 1, 2 or 4"),
    "feature": ((*GOOD, "--features", "smell"), "unknown feature(s) 'smell'"),
    "max_depth": ((*GOOD, "--max-depth", "-2"), "--max-depth"),
    "method": ((*GOOD, "--denoise", "soap"), "unknown reconstruction method 'soap'"),
    "method option": ((*GOOD, "--option", "alhpa=1"), "no option 'alhpa'"),
    "too few samples": ((*GOOD, "--variances"), "spp is 1"),
}


def test_folder_that_cannot_be_written_to(run, tmp_path: Path, monkeypatch) -> None:
    """Told before the render, not after it; root may write anywhere."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    done = run("render", write_scene(tmp_path), "-o", tmp_path / "a.exr")
    assert done.code == 2
    assert f"the folder {tmp_path} cannot be written to" in done.err


@pytest.mark.parametrize("case", BAD_RENDERS)
def test_bad_render(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    arguments, message = BAD_RENDERS[case]
    scene = write_scene(tmp_path)
    monkeypatch.chdir(tmp_path)
    expect_bad_input(run("render", scene, *arguments), message)
    assert not Path("a.exr").exists()


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        (None, "does not exist"),
        ("", "cannot load"),
        ("<scene", "cannot load"),
        ('<scene version="3.0.0"><bsdf type="soap"/></scene>', '"soap" not found'),
        ('<scene version="3.0.0"><shape type="sphere"/></scene>', "has no sensor"),
        ('<bsdf version="3.0.0" type="diffuse"/>', "not a scene"),
        (
            XML.format(
                film="",
                integrator='<integrator type="gdpt"><string name="a" value="b"/></integrator>',
            ),
            '"a"',
        ),
        (
            XML.format(film='<integer name="crop_width" value="0"/>', integrator=""),
            "crop",
        ),
    ],
)
def test_bad_scene(run, tmp_path: Path, xml: str | None, message: str) -> None:
    path = tmp_path / "bad.xml"
    if xml is not None:
        path.write_text(xml)
    expect_bad_input(run("render", path, "-o", tmp_path / "a.exr", "--spp", 1), message)


def test_crop_window(run, tmp_path: Path) -> None:
    film = "".join(
        f'<integer name="crop_{key}" value="{value}"/>'
        for key, value in {"offset_x": 2, "offset_y": 1, "width": 5, "height": 4}.items()
    )
    scene, picture = write_scene(tmp_path, film=film), tmp_path / "a.png"
    assert run("render", scene, "--spp", 1, "--png", picture).code == 0
    assert Image.open(picture).size == (5, 4)
    expect_bad_input(run("render", scene, "--png", picture, "--width", 9), "crop window")


@pytest.mark.parametrize(
    ("scene", "message"),
    [
        ("builtin:nowhere", "no built-in scene 'nowhere'"),
        (SCENE, f"did you mean builtin:{SCENE}?"),
    ],
)
def test_bad_builtin(run, scene: str, message: str) -> None:
    expect_bad_input(run("render", scene, "-o", "a.exr"), message)


def test_builtin_takes_no_parameters(run) -> None:
    done = run("render", f"builtin:{SCENE}", "-o", "a.exr", "-D", "x=1")
    expect_bad_input(done, "take no parameters")


def test_bad_denoise(run, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "b.exr")
    text = tmp_path / "a.exr"
    expect_bad_input(run("denoise", text, *out), "no such file")
    text.write_text("no picture")
    expect_bad_input(run("denoise", text, *out), "not an OpenEXR file")
    expect_bad_input(run("denoise", text), "nothing would be written")
    expect_bad_input(run("denoise", text, *out, "--method", "soap"), "'soap'")
    expect_bad_input(run("denoise", text, *out, "--device", "soap"), "--device")
    primal_only = tmp_path / "c.exr"
    exr.write_image(primal_only, np.ones((4, 4, 3), np.float32))
    poisson = ("--method", "poisson-l1")
    expect_bad_input(run("denoise", primal_only, *out, *poisson), "needs the buffer(s) dx, dy")
    assert not out[1].exists()
    assert run("denoise", primal_only, *out).code == 0, "the default does without"
    before = primal_only.read_bytes()
    alias = tmp_path / "alias.exr"
    alias.symlink_to(primal_only)
    for words in ((primal_only, "-o", alias), (out[1], "--albedo", primal_only, "-o", primal_only)):
        expect_bad_input(run("denoise", *words), "which it is made of; give -o another name")
    assert primal_only.read_bytes() == before


def test_nan_in_a_file_is_counted(run, tmp_path: Path) -> None:
    path = tmp_path / "a.exr"
    planes = {name: np.zeros((4, 4), np.float32) for name in Layout.make().channels}
    planes["dx.G"][1, 2] = np.nan
    exr.write(path, planes)
    command = ("denoise", path, "-o", tmp_path / "b.exr", "--method", "poisson-l1")
    expect_bad_input(run(*command), "dx.G: 1")


def test_old_llvm_is_an_error_not_an_abort(tmp_path: Path) -> None:
    old = sorted(Path("/usr/lib").glob("*-linux-gnu/libLLVM-15.so*"))
    if not old:
        pytest.skip("no LLVM 15 on this machine")
    words = ("render", f"builtin:{SCENE}", "-o", tmp_path / "a.exr", "--variant", "llvm_ad_rgb")
    done = program(*words, DRJIT_LIBLLVM_PATH=str(old[0]))
    assert done.returncode == 1
    assert done.stderr.startswith("error: Dr.Jit runs on LLVM 15")
    assert len(done.stderr.splitlines()) == 1


def test_debug_shows_the_traceback(run, tmp_path: Path) -> None:
    done = run("render", tmp_path / "no.xml", "-o", tmp_path / "a.exr", "--debug")
    assert done.code == 2
    assert "Traceback" in done.err
    assert done.err.splitlines()[-1].startswith("error: ")


def test_rendered_buffers_survive_a_failing_denoiser(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mitsuba_gdpt import denoisers

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of soap")

    monkeypatch.setattr(denoisers, "check_method", lambda *_: None)
    monkeypatch.setattr(denoisers, "denoise", fail)
    path = tmp_path / "a.exr"
    done = run("render", write_scene(tmp_path), "--spp", 1, "-o", path)
    assert (done.code, done.err) == (1, "error: out of soap\n")
    assert "dx" in FrameBuffers.from_exr(path)


def test_option_values() -> None:
    words = ["alpha=0.1", "cg_iterations=3", "preset=L1D", "regularisation=none"]
    call = Call("poisson-l1").with_options(typed_values(words, "--option"))
    assert call.options == {
        "alpha": 0.1,
        "cg_iterations": 3,
        "preset": "L1D",
        "regularisation": None,
    }
    assert key_values(["a=b=c"], "-D") == {"a": "b=c"}
    for words in (["a"], ["=1"], ["a=1", "a=2"]):
        with pytest.raises(ConfigError):
            key_values(words, "-D")


def test_plain_message() -> None:
    text = "[parser.cpp:12] At x.xml: failed:\n Traceback (most recent call last):\n  File\n"
    assert plain(RuntimeError(text + "mitsuba_gdpt.errors.ConfigError: bad")) == "bad"
    assert plain(RuntimeError("[scene.h:3] no\n  luck")) == "no luck"


def expect_bad_input(done: Result, message: str) -> None:
    assert done.code == 2, (done.code, done.err)
    lines = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.err
    assert message in lines[0]
    assert "Traceback" not in done.err
    assert done.out == ""


#: A command whose first render is interrupted as a terminal does it.
INTERRUPTED = """
import os, signal, sys, time
from mitsuba_gdpt import rendering
from mitsuba_gdpt.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for its "command &"

def render(*arguments, **options):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

rendering.render = render
main(sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("command", "last_line"),
    [
        (["render", f"builtin:{SCENE}", "--width", "8", "--png", "out.png"], "interrupted"),
        (
            ["evaluate", f"builtin:{SCENE}", "--width", "8", "--method", "none", "-o", "results"],
            "interrupted with 0 of 9 cells complete; run the same again to go on from the last "
            "finished cell",
        ),
        (
            ["dataset", "crops", "builtin", "--scenes", SCENE, "--crops", "1", "-o", "set.zarr"],
            "interrupted with 0 of 1 results complete; run the same again to go on from there",
        ),
    ],
)
def test_interruption_is_one_line(command: list[str], last_line: str, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, *command],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 130, done.stderr
    assert done.stderr.strip().splitlines()[-1] == last_line
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_interrupted_training_says_how_to_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from mitsuba_gdpt.training import run

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "train", interrupted)
    with pytest.raises(SystemExit) as stop:
        main(["train", "ngpt-small", "crops.zarr", "-o", str(tmp_path / "run")])
    assert stop.value.code == 130
    expected = "interrupted; run the same with --resume to go on from the last checkpoint\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("utf8", ["1", "0"])
def test_names_in_the_locale_c(tmp_path: Path, utf8: str) -> None:
    """Python knows UTF-8 there unless that is turned off."""
    exr.write_image(tmp_path / "Küche.exr", np.ones((2, 3, 3)))
    words = ("denoise", tmp_path / "Küche.exr", "--method", "none", "-o", tmp_path / "Möbel.exr")
    done = program(*words, LC_ALL="C", PYTHONUTF8=utf8, PYTHONCOERCECLOCALE="0")
    if utf8 == "1":
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "Möbel.exr").is_file()
    else:
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert "set LC_ALL=C.UTF-8" in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_header_of_a_foreign_image_survives(run, tmp_path: Path) -> None:
    window = np.array([10, 20], np.int32), np.array([12, 21], np.int32)
    foreign = {
        "owner": "me",
        "pixelAspectRatio": 2.0,
        "dataWindow": window,
        "displayWindow": (np.array([0, 0], np.int32), np.array([63, 63], np.int32)),
        "chromaticities": (0.708, 0.292, 0.17, 0.797, 0.131, 0.046, 0.3127, 0.329),
    }
    exr.write_image(tmp_path / "in.exr", np.full((2, 3, 3), [0.25, 0, 0]), attributes=foreign)
    out, png = tmp_path / "out.exr", tmp_path / "out.png"
    done = run("denoise", tmp_path / "in.exr", "--method", "none", "-o", out, "--png", png)
    assert done.code == 0, done.err
    kept = exr.read(out).attributes
    assert str(kept) == str(exr.read(tmp_path / "in.exr").attributes)
    assert kept["owner"] == "me"
    assert np.array_equal(kept["dataWindow"], window)
    # Rec. ITU-R BT.2087: the red of Rec. 2020 is brighter than that of Rec. 709.
    red = float(exr.linear_to_srgb(np.array(0.25 * 1.6605)))
    assert Image.open(png).getpixel((0, 0)) == (round(red * 255), 0, 0)


class TestFilesOfOtherPrograms:
    """The words of oidnDenoise, sequences, normals in world space."""

    GUIDED = ("color", "albedo", "normal")
    RNG = np.random.default_rng(0)
    COLOUR, ALBEDO = RNG.random((2, 8, 12, 3)).astype(np.float32)
    NORMAL = (RNG.random((8, 12, 3)) * 2 - 1).astype(np.float32)

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        images = {"color": self.COLOUR, "albedo": self.ALBEDO, "normal": self.NORMAL}
        for name, image in images.items():
            exr.write_image(f"{name}.exr", image)
            pfm.write(f"{name}.pfm", image)
        return tmp_path

    def by_library(self, *names: str, **settings: Any) -> np.ndarray:
        """Denoise these images of the folder with the library itself."""
        oidn = pytest.importorskip("mitsuba_oidn")
        network = oidn.Device(oidn.DeviceType.CPU).new_filter("RT")
        for name, value in settings.items():
            setattr(network, name, value)
        images = {"color": self.COLOUR, "albedo": self.ALBEDO, "normal": self.NORMAL}
        for name in names:
            network.set_image(name, torch.from_numpy(images[name]))
        expected = torch.empty(8, 12, 3)
        network.set_image("output", expected)
        network.execute()
        return expected.numpy()

    @pytest.mark.parametrize("suffix", ["exr", "pfm"])
    def test_images_of_oidn(self, run, folder: Path, suffix: str) -> None:
        expected = self.by_library("color", "albedo", "normal", hdr=True)
        files = ("--albedo", f"albedo.{suffix}", "--normal", f"normal.{suffix}")
        out = ("-o", f"out.{suffix}", "--method", "oidn", "--option", "aux=raw")
        done = run("denoise", f"color.{suffix}", *files, *out)
        assert (done.code, done.err) == (0, "")
        read = exr.read_image if suffix == "exr" else pfm.read
        np.testing.assert_array_equal(read(f"out.{suffix}"), expected)

    @pytest.mark.parametrize(
        ("words", "names", "settings"),
        [
            ("--hdr color.pfm --alb albedo.pfm --nrm normal.pfm", GUIDED, {"hdr": True}),
            ("--hdr color.pfm", ("color",), {"hdr": True}),
            ("-ldr color.pfm -alb albedo.pfm -nrm normal.pfm -f RT", GUIDED, {"hdr": False}),
            (
                "--alb albedo.pfm --nrm normal.pfm --hdr color.pfm --clean_aux -d cpu",
                GUIDED,
                {"hdr": True, "clean_aux": True},
            ),
            ("--hdr color.pfm --is 0.5", ("color",), {"hdr": True, "input_scale": 0.5}),
            ("--hdr color.pfm -q b", ("color",), {"hdr": True, "quality": "Balanced"}),
        ],
    )
    def test_words_of_oidn(
        self, run, folder: Path, words: str, names: tuple[str, ...], settings: dict[str, Any]
    ) -> None:
        if "quality" in settings:
            oidn = pytest.importorskip("mitsuba_oidn")
            settings = settings | {"quality": getattr(oidn.Quality, settings["quality"])}
        expected = self.by_library(*names, **settings)
        done = run("denoise", *words.split(), "-o", "out.pfm")
        assert (done.code, done.err) == (0, "")
        np.testing.assert_array_equal(pfm.read("out.pfm"), expected)

    def test_words_of_oidn_without_effect(self, run, folder: Path) -> None:
        pytest.importorskip("mitsuba_oidn")
        words = "--hdr color.pfm --threads 4 -t half --inplace -n 2 -v 2 --buffer host"
        done = run("denoise", *words.split(), "--maxmem", "100", "-o", "out.pfm")
        assert done.code == 0
        expected = "--threads, -t, --inplace, -n, -v, --buffer, --maxmem"
        assert done.err == f"warning: without effect here: {expected}\n"

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--hdr color.pfm -f RTLightmap", "-f is 'RTLightmap'; expected RT"),
            ("--hdr color.pfm --srgb", "decode the sRGB curve first"),
            ("--dir color.pfm", "lightmaps are not denoised here"),
            ("--hdr color.pfm -r a.pfm", "compare the images with mitsuba_gdpt.metrics"),
            ("--hdr color.pfm --ld", "'mitsuba-gdpt info' lists the devices"),
            ("--hdr color.pfm -q best", "-q is 'best'; expected one of: default, h, b, f, high"),
            ("--hdr color.pfm -d sycl", "-d is 'sycl'; expected cpu or cuda"),
            ("--hdr -o", "--hdr of oidnDenoise needs a value after it"),
            ("--alb albedo.pfm --clean_aux", "Missing argument 'IN.exr'"),
        ],
    )
    def test_words_of_oidn_that_are_refused(
        self, run, folder: Path, words: str, message: str
    ) -> None:
        expect_bad_input(run("denoise", *words.split(), "-o", "out.pfm"), message)

    def test_layers_by_name(self, run, folder: Path) -> None:
        generator = np.random.default_rng(0)
        names = [f"{layer}.{c}" for layer in ("beauty1", "flat", "facing") for c in "RGB"]
        channels = {name: generator.random((4, 4), np.float32) for name in names}
        exr.write("a.exr", channels)
        message = "no channels of an image (R, G, B)"
        expect_bad_input(run("denoise", "a.exr", "-o", "out.exr"), message)
        words = ("--noisy-ch", "beauty1", "--albedo-ch", "flat", "--normals-ch", "facing")
        done = run("denoise", "a.exr", *words, "-m", "none", "-o", "out.exr")
        assert (done.code, done.err) == (0, "")
        np.testing.assert_array_equal(exr.read_image("out.exr"), exr.read_image("a.exr", "beauty1"))

    def test_default_on_an_image_alone(self, run, folder: Path) -> None:
        done = run("denoise", "color.pfm", "-o", "out.exr", "--png", "out.png")
        assert done.code == 0, done.err
        assert exr.read_image("out.exr").shape == (8, 12, 3)

    def test_sequence(self, run, folder: Path) -> None:
        for number in (3, 4, 10):
            exr.write_image(f"frame.{number:04d}.exr", number * self.COLOUR)
        done = run("denoise", "frame.####.exr", "-o", "clean.####.exr", "--method", "none")
        assert done.code == 0, done.err
        assert len(done.out.splitlines()) == 3
        for number in (3, 4, 10):
            image = exr.read_image(f"clean.{number:04d}.exr")
            np.testing.assert_array_equal(image, np.float32(number * self.COLOUR))
        words = ("-o", "part.####.exr", "--method", "none", "--frames", "3-4")
        assert run("denoise", "frame.####.exr", *words).code == 0
        assert sorted(path.name for path in folder.glob("part.*")) == [
            "part.0003.exr",
            "part.0004.exr",
        ]

    def test_animation(self, run, folder: Path) -> None:
        for number in (1, 2, 3):
            exr.write_image(f"frame.{number}.exr", self.COLOUR / number)
        words = ("--method", "none", "--exposure", "1", "--animation")
        done = run("denoise", "frame.#.exr", *words, "all.png", "--rate", "10", "--frames", "2-3")
        assert done.code == 0, done.err
        assert done.out.splitlines()[-1] == "wrote all.png: 2 frames at 10 per second"
        with Image.open("all.png") as picture:
            assert picture.info["duration"] == 100
            for index, number in enumerate((2, 3)):
                picture.seek(index)
                expected = exr.to_8bit(self.COLOUR / number, exposure=1)
                np.testing.assert_array_equal(np.asarray(picture.convert("RGB")), expected)
        expect_bad_input(run("denoise", "frame.#.exr", *words, "all.gif"), "cannot animate all.gif")

    def test_tev(self, run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: list[tuple[str, Any]] = []
        monkeypatch.setattr(display, "_send", lambda frames, *_: sent.extend(frames.items()))
        assert run("denoise", "color.exr", "--method", "none", "--tev").code == 0
        assert [name for name, _ in sent] == ["color.exr", "color.exr by none"]
        sent.clear()
        words = ("render", write_scene(folder), "--denoise", "none", "--tev")
        done = run(*words, "--spp", "2")
        assert done.code == 0, done.err
        assert [name for name, _ in sent] == ["square", "square, denoised"]
        assert sent[0][1].primal.shape == sent[1][1].primal.shape
        sent.clear()
        done = run(*words, "--spp", "4", "--progressive")
        assert done.code == 0, done.err
        assert [name for name, _ in sent] == 2 * ["square", "square, denoised"]
        assert not torch.equal(sent[0][1].primal, sent[2][1].primal)

    def test_npz_and_files_of_ngpt(self, run, folder: Path) -> None:
        for name in ("primal", "dx", "dy"):
            exr.write_image(f"scene-{name}.exr", self.COLOUR, half=True)
        done = run("denoise", "scene-primal.exr", "-o", "out.npz", "--method", "poisson-l2")
        assert done.code == 0, done.err
        expected = torch.from_numpy(np.float32(np.float16(self.COLOUR))).repeat(1, 1, 3)
        layout = [f"{layer}{c}" for layer in ("", "dx.", "dy.") for c in "RGB"]
        image = denoise(expected, "poisson-l2", layout=layout)
        np.testing.assert_array_equal(np.load("out.npz")["arr_0"], image)

    def test_world_space(self, run, folder: Path) -> None:
        plane = np.ones((4, 4), np.float32)
        channels = dict.fromkeys(("R", "G", "B", "nn.X", "nn.Y", "nn.Z"), plane)
        exr.write("aov.exr", channels)
        done = run("denoise", "aov.exr", "--method", "none", "-o", "out.exr")
        assert done.code == 0
        assert "warning: the normals 'nn' may be in world space and are left out" in done.err
        matrix = ",".join(map(str, np.eye(4).ravel()))
        for words in (("--to-sensor", matrix), ("--normals-space", "camera")):
            done = run("denoise", "aov.exr", "--method", "none", "-o", "out.exr", *words)
            assert (done.code, done.err) == (0, "")

    @pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
    def test_a_damaged_file_is_one_line(self, run, folder: Path, kept: float) -> None:
        exr.write_image("big.exr", np.random.default_rng(0).random((64, 64, 3)))
        content = Path("big.exr").read_bytes()
        Path("big.exr").write_bytes(content[: int(len(content) * kept)])
        done = run("denoise", "big.exr", "-o", "out.exr")
        assert done.code == 2
        assert done.out == ""
        (line,) = done.err.splitlines()
        assert line.startswith("error: big.exr: ")

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (("frame.####.exr", "-o", "out.exr"), "expected #### in every name"),
            (("color.exr", "-o", "out.####.exr"), "expected #### in every name"),
            (("frame.####.exr", "-o", "out.####.exr"), "there are no such files"),
            (("color.exr", "-o", "out.exr", "--frames", "1-2"), "--frames is about sequences"),
            (("c.####.exr", "-o", "o.####.exr", "--frames", "2-1"), "expected FIRST-LAST"),
            (("c.####.exr", "-o", "o.####.exr", "--frames", "1"), "c.0001.exr: no such file"),
            (("color.exr", "-o", "out.jpg"), "should end in .exr or .pfm or .npz"),
            (("color.exr", "--animation", "a.png"), "--animation is about sequences"),
            (("color.####.exr", "--animation", "a.gif"), "there are no such files"),
            (("color.exr", "-o", "out.exr", "--to-sensor", "1,2"), "has 2 numbers; expected 16"),
            (("color.exr", "-o", "out.exr", "--albedo", "no.exr"), "no.exr: no such file"),
            (("color.exr", "-o", "out.exr", "--normals-space", "up"), "normals_space is 'up'"),
        ],
    )
    def test_what_makes_no_sense(
        self, run, folder: Path, words: tuple[str, ...], message: str
    ) -> None:
        before = sorted(folder.iterdir())
        expect_bad_input(run("denoise", *words), message)
        assert sorted(folder.iterdir()) == before
