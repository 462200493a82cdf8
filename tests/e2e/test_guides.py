"""How-to guides: every command and every snippet on these pages runs, small."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import mitsuba as mi
import numpy as np
import pytest

import mitsuba_gdpt as gdpt
from mitsuba_gdpt import exr, pfm
from mitsuba_gdpt.cli import main
from tests import crops

PAGES = Path(__file__).parents[2] / "docs" / "how-to"
NAMES = ("from-optix-denoiser", "from-oidn", "from-ngpt", "from-rae", "from-blender")
TOY_TRAINING = "--steps 1 --batch 1 --set threads=1 --set validate_every=1"
TOY_NETWORK = (
    "--set network.growth=[4,4] --set network.units=[1,1] "
    "--set network.down=[4] --set network.up=[4]"
)
TOY_EVALUATION = "--seeds 1 --reference-spp 4 --repeats 1 --width 16"
TOY_CROPS = "--crops 2 --size 16 --spp-levels 2 --max-spp 4 --reference-spp 4"
#: Sizes on the pages, and what is enough here.
SMALL = (
    (r"(--width|--height) \d+", r"\1 16"),
    (r"--frames \d+", "--frames 2"),
    (r"--fly-through \d+", "--fly-through 2 --width 16"),
    (r"\bwidth=\d+, height=\d+", "width=16, height=16"),
    (r"\b640, 360\b", "16, 16"),
    (r"\bcrops=\d+, size=\d+, levels=\d+, max_spp=\d+", "crops=2, size=16, levels=2, max_spp=4"),
    (r"\breference_spp=\d+", "reference_spp=4"),
    (r"\bcapacity=\d+", "capacity=2"),
    (r"--variations \d+", "--variations 1"),
    (r"(,| data/train-)tiled-hall(-10-5.darc)?", ""),  # one scene will do
    (r"-10-5\.darc", "-2-2.darc"),
    (r"--time \d+", "--time 0.3"),
    (r"seconds=\d+", "seconds=0.3"),
    (r"(--noise |\bnoise=)0\.01", r"\g<1>0.5"),
    (r"--(target-)?spp \d+", r"--\1spp 2"),
    (r"\bspp=\d+", "spp=2"),
    (r"--size \d+", "--size 8"),
    (r"(catalogue review \S+)", r"\1 --count 2 --width 32 --spp 2"),
    (r"--workers \d+", "--workers 1"),
    (r"\bworkers=\d+\)", "workers=1)"),
    # Of options that are given twice the last one counts.
    (r"(--fly-through .*)--spp 2", r"\1--spp 4"),
    (r"(mitsuba-gdpt train .*)", rf"\1 {TOY_TRAINING}"),
    (r"(mitsuba-gdpt train (?!rdae|.*--initial-weights).*)", rf"\1 {TOY_NETWORK}"),
    (r"(mitsuba-gdpt train rdae.*)", r"\1 --seq-length 2 --set sequence.size=16"),
    (r"(dataset frames .*)", r"\1 --frames 4 --width 16 --height 16 --noisy 2 --target-spp 2"),
    (r"(mitsuba-gdpt evaluate .*)", rf"\1 {TOY_EVALUATION}"),
    (r"(mitsuba-gdpt evaluate (?!.*--seconds).*)", r"\1 --spp 2"),
    (r"(dataset evaluate (?!.* -m ).*)", r"\1 -m none"),
    (r"(mitsuba-gdpt evaluate (?!.* -m ).*)", r"\1 -m none -m poisson-l1"),
    (r"--seconds [\d,]+", "--seconds 0.5"),
    (r"--cost-size \d+x\d+", "--cost-size 16x16"),
    (r"(mitsuba-gdpt reference .*)", r"\1 --spp 64 --width 16"),
    (r"(dataset crops .*)", rf"\1 {TOY_CROPS}"),
    (r"(dataset \S+ builtin (?!.*--scenes).*)", r"\1 --scenes corner-gallery"),
)
RGB, XYZ = ("R", "G", "B"), ("X", "Y", "Z")


def blocks(page: str, before: str = "", *, toml: bool = False) -> list[tuple[str, str]]:
    """Return the languages and texts of a page's commands and snippets, up to a heading."""
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    if before:
        text, heading, _ = text.partition(f"\n## {before}\n")
        assert heading
    languages = "sh|python|toml" if toml else "sh|python"
    found = re.findall(rf"^```({languages})\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found
    return found


def small(text: str) -> str:
    for long, short in SMALL:
        text = re.sub(long, short, text)
    return text


def planes(*names: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {name: random.random((8, 12), np.float32) for name in names}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the pages name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MITSUBA_GDPT_REFERENCES", "")  # pages set it
    image = np.random.default_rng(0).random((8, 12, 3)).astype(np.float32)
    for name in ("color", "albedo", "normal"):
        pfm.write(f"{name}.pfm", image)
        exr.write_image(f"{name}.exr", image)
    for name in ("primal", "dx", "dy", "albedo", "normal", "depth"):
        exr.write_image(f"scene-{name}.exr", image / 2, half=True)
    normals = [f"normal.{c}" for c in XYZ]
    exr.write("layers.exr", planes(*RGB, *(f"albedo.{c}" for c in RGB), *normals))
    layers = {"Noisy Image": RGB, "Denoising Albedo": RGB, "Denoising Normal": XYZ}
    view = planes(*(f"ViewLayer.{name}.{c}" for name, suffixes in layers.items() for c in suffixes))
    exr.write("blender.exr", view)
    for number in (0, 1, 2):
        exr.write_image(f"frame.{number:04d}.exr", image, metadata={"spp": number + 1})
        exr.write(f"blender.{number:04d}.exr", view)
        frame = tmp_path / "set" / "train" / "Room" / f"frame-{number:04d}"
        frame.mkdir(parents=True)
        for name in ("noisy-0.exr", "target.exr"):
            exr.write(frame / name, planes(*RGB, "depth.Z", *(f"normal.{c}" for c in RGB)))
    for kind in ("hdr", "alb", "nrm"):
        exr.write_image(f"view_0004spp.{kind}.exr", image)
    crops.fill("crops.zarr", crops.fill_plan(size=8, crops=2))
    Path("scene.xml").write_text(SCENE)
    Path("jobs.toml").write_text('output = "jobs"\nscenes = ["scene.xml"]\nspp = 2\n')
    return tmp_path


#: A room that is open to the front: walls that a camera must not touch.
SCENE = """<scene version="3.0.0">
  <integrator type="path"/>
  <sensor type="perspective">
    <float name="fov" value="60"/>
    <film type="hdrfilm">
      <integer name="width" value="12"/><integer name="height" value="8"/>
      <rfilter type="box"/>
    </film>
    <transform name="to_world"><lookat origin="0,1,3.5" target="0,1,0" up="0,1,0"/></transform>
  </sensor>
  <emitter type="constant"/>
  <shape type="cube">
    <transform name="to_world"><scale x="3" y="2" z="4"/></transform>
    <bsdf type="twosided"><bsdf type="diffuse"/></bsdf>
  </shape>
  <shape type="sphere"><point name="center" x="1" y="0.5" z="-1"/><float name="radius" value="0.5"/>
    <emitter type="area"><rgb name="radiance" value="5"/></emitter></shape>
  <shape type="cube">
    <transform name="to_world"><scale value="0.5"/><rotate y="1" angle="30"/>
      <translate x="-1" y="-1" z="-1.5"/></transform>
    <bsdf type="diffuse"><rgb name="reflectance" value="0.8,0.3,0.2"/></bsdf>
  </shape>
</scene>"""


def lines(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()


def run(language: str, text: str, names: dict[str, Any]) -> None:
    if language == "python":
        exec(small(text), names)
        return
    for line in lines(text):
        words = shlex.split(small(re.sub(r" +# .*", "", line)))
        if words[0] == "export":
            name, _, value = words[1].partition("=")
            os.environ[name] = value.replace("$PWD", str(Path.cwd()))
            continue
        assert words[0] == "mitsuba-gdpt", line
        with pytest.raises(SystemExit) as stop:
            main(words[1:])
        assert not stop.value.code, line


@pytest.mark.parametrize("page", NAMES)
def test_everything_on_the_page_runs(page: str, folder: Path, variant_llvm_rgb: str) -> None:
    scene = mi.load_file("scene.xml")
    names: dict[str, Any] = {"scene": scene, "sensor": scene.sensors()[0]}
    for language, text in blocks(page):
        run(language, text, names)


def test_budgets(folder: Path, variant_llvm_rgb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the images in between, those for a notebook and for tev go nowhere."""
    live = lambda **options: lambda image, buffers: None  # noqa: E731
    monkeypatch.setattr(gdpt, "Live", live)
    scene = mi.load_file("scene.xml")
    names: dict[str, Any] = {"gdpt": gdpt, "scene": scene}
    for language, text in blocks("budget"):
        # What is complete has the samples that it is resumed to have.
        run(language, text.replace("--spp 512", "--spp 4"), names)
    assert exr.read_metadata("out.exr")["spp"] == "2"
    assert len([*folder.glob("frames/*.exr")]) == len([*folder.glob("flight/*.exr")]) == 2


def test_batches(folder: Path, variant_llvm_rgb: str) -> None:
    """The descriptions are complete, and hold together; the snippet runs a small one."""
    names: dict[str, Any] = {}
    ((_, snippet),) = (block for block in blocks("batch") if block[0] == "python")
    run("python", snippet, names)
    assert names["result"].failed == {}
    (folder / "kitchen").mkdir()
    (folder / "kitchen" / "scene.xml").write_text(SCENE)
    for name in ("ref-a.exr", "ref-b.exr"):
        exr.write_image(name, np.zeros((8, 12, 3), np.float32))
    text = (PAGES / "batch.md").read_text(encoding="utf-8")
    descriptions = re.findall(r"^```toml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert len(descriptions) == 2
    for description in descriptions:
        Path("jobs.toml").write_text(description)
        run("sh", "mitsuba-gdpt batch jobs.toml --dry-run", {})


def test_catalogue_of_a_scene(folder: Path, variant_llvm_rgb: str) -> None:
    for language, text in blocks("catalogue", before="Catalogues of the package"):
        run(language, text, {})
    files = sorted(path.name for path in (folder / "frames/train/room/frame-0001").iterdir())
    assert "target.exr" in files
    assert "noisy-0.exr" in files


def test_training(folder: Path, variant_llvm_rgb: str) -> None:
    (_, own), (_, file), (_, again), (_, recipe) = blocks("training", toml=True)
    run("sh", own.replace("crops.zarr", "own.zarr"), {})
    Path("run.toml").write_text(file)
    run("sh", again + recipe, {})
    assert Path("clean.png").is_file()
    assert {path.parent.name for path in folder.glob("**/*.safetensors")} == {"run", "oidn", "ngpt"}


def test_sequences(folder: Path, variant_llvm_rgb: str) -> None:
    names: dict[str, Any] = {}
    for language, text in blocks("sequences"):
        run(language, text, names)
    assert len(names["frames"]) == len([*names["images"]]) == 3
    assert "motion" in names["buffers"].names
    for name in ("clean", "own"):
        assert len([*folder.glob(f"{name}-*.exr")]) == 2


def test_data_sets(folder: Path, variant_llvm_rgb: str) -> None:
    names: dict[str, Any] = {}
    for language, text in blocks("datasets"):
        run(language, text, names)
    assert names["batch"]["buffers"].shape == (8, 16, 16, names["crops"].layout.count)
    sets = ("train", "own", "varied", "ngpt")
    assert all(len(gdpt.data.CropSet.open(f"{name}.zarr")) == 2 for name in sets)


def test_evaluation(folder: Path, variant_llvm_rgb: str, simulated_clock: None) -> None:
    crops.fill("test.zarr", crops.fill_plan(size=16, crops=1))
    run("sh", "mitsuba-gdpt dataset export-darc test.zarr -o ngpt-test-sets", {})
    for language, text in blocks("evaluation", before="Publishing"):
        run(language, text.replace(" --metric elpips-linear", ""), {})  # its weights do not ship
    results = json.loads(Path("against-references/results.json").read_text())
    (reference,) = results["references"].values()
    assert Path(reference["file"]).parent == folder / "references"
    for name in ("results", "frontier", "stored", "ngpt"):
        records = json.loads(Path(name, "results.json").read_text())["records"]
        assert not [record for record in records if record.get("error")]


def test_evaluation_of_sequences(
    folder: Path, variant_llvm_rgb: str, simulated_clock: None
) -> None:
    for language, text in blocks("sequence-evaluation"):
        run(language, text, {})
    records = json.loads(Path("sequences/results.json").read_text())["records"]
    assert len(records) == 4
    assert not [record for record in records if record.get("error")]


def test_running_elsewhere(folder: Path) -> None:
    """What needs other machines is looked at as far as one goes; ``test_workers`` has a cluster."""
    from distributed.cli import dask_scheduler, dask_worker

    from mitsuba_gdpt.execution import ClusterOptions
    from mitsuba_gdpt.execution.cluster import slurm_cluster

    _, (_, hosts), (_, jobs), (_, slurm), (_, example) = blocks("execution", toml=True)
    scheduler, worker, command = (shlex.split(line, comments=True) for line in lines(hosts))
    for words, program in ((scheduler, dask_scheduler), (worker, dask_worker)):
        program.main.make_context(words[1], words[2:])
    address = command[command.index("--scheduler") + 1]
    assert ClusterOptions(scheduler=address).scheduler == worker[2]
    Path("options.toml").write_text(jobs.replace("ib0", "lo"))
    with slurm_cluster("options.toml", workers=20) as cluster:
        assert "--nthreads 8" in cluster.job_script()
    assert "--slurm options.toml --workers 20" in slurm
    names: dict[str, Any] = {"__name__": "__main__"}  # a script's classes go along with the units
    exec(small(example), names)
    summary = names["summary"]
    assert (summary.done, summary.failed) == (2, {})


def test_running_on_this_machine(folder: Path) -> None:
    shutil.rmtree("crops.zarr")
    run(*blocks("execution")[0], {})
    assert Path("crops.zarr/corner-gallery").is_dir()
    assert [*Path("jobs").glob("**/*.exr")]
