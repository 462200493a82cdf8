"""Batches on paper: products, overrides, names, files of settings."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

import pytest

from mitsuba_gdpt import denoisers, provenance
from mitsuba_gdpt.batch import (
    Batch,
    IntegratorChoice,
    Override,
    SceneChoice,
    expand,
)
from mitsuba_gdpt.batch.runner import captions
from mitsuba_gdpt.batch.unit import group
from mitsuba_gdpt.denoisers import Call
from mitsuba_gdpt.errors import ConfigError, FormatError

VARIANT = "llvm_ad_rgb"
A, B = SceneChoice("builtin:corner-gallery", "a"), SceneChoice("builtin:tiled-hall", "b")
NONE, L1 = "none", "poisson-l1"


def make(**arguments) -> Batch:
    return Batch(**{"scenes": (A, B), "output": Path("out"), **arguments})


def test_product() -> None:
    batch = make(
        integrators=(IntegratorChoice("x"), IntegratorChoice("y", {"max_depth": 3})),
        denoisers=(NONE, L1),
        sensors=(0, 1),
        spp=(1, 2, 3),
        seeds=(4, 5),
    )
    jobs = expand(batch, VARIANT)
    assert len(jobs) == 2 * 2 * 2 * 2 * 3 * 2
    assert jobs[0].output == Path("out/a/0-x-1spp-4-none.exr")
    assert jobs[-1].output == Path("out/b/1-y-3spp-5-poisson-l1.exr")
    assert jobs[-1].settings == {"max_depth": 3}
    assert len({job.settings_key for job in jobs}) == len(jobs)
    assert [job.settings_key for job in expand(batch, VARIANT)] == [j.settings_key for j in jobs]


def test_one_render_serves_all_denoisers_and_scenes_stay_together() -> None:
    jobs = expand(make(denoisers=(NONE, L1), spp=(1, 2)), VARIANT)
    units = group(tuple(reversed(jobs)))
    assert [[(j.scene, j.spp, j.denoiser) for j in unit.jobs] for unit in units] == [
        [("b", 2, "poisson-l1"), ("b", 2, "none")],
        [("b", 1, "poisson-l1"), ("b", 1, "none")],
        [("a", 2, "poisson-l1"), ("a", 2, "none")],
        [("a", 1, "poisson-l1"), ("a", 1, "none")],
    ]
    assert len({unit.key for unit in units}) == 4


def test_overrides() -> None:
    batch = make(
        denoisers=(NONE, L1),
        spp=(1, 2, 4),
        integrators=(IntegratorChoice("x", {"max_depth": 3, "shifts": 2}),),
        width=100,
        overrides=(
            Override({"scene": "a", "spp": (2, 4)}, {"width": 8, "settings": {"max_depth": 5}}),
            Override({"scene": "a", "spp": 4}, {"width": 9}),
            Override({"denoiser": "poisson-l1"}, {"options": {"alpha": 0.1}}),
            Override({"scene": "b", "spp": [1, 4]}, {"skip": True}),
        ),
    )
    jobs = {(j.scene, j.spp, j.denoiser): j for j in expand(batch, VARIANT)}
    assert len(jobs) == 8
    assert [jobs["a", spp, "none"].width for spp in (1, 2, 4)] == [100, 8, 9]
    assert jobs["a", 1, "none"].settings == {"max_depth": 3, "shifts": 2}
    assert jobs["a", 2, "none"].settings == {"max_depth": 5, "shifts": 2}
    assert jobs["a", 2, "poisson-l1"].call.options == {"alpha": 0.1}
    assert jobs["a", 2, "none"].call.options == {}
    assert {key[1] for key in jobs if key[0] == "b"} == {2}


def test_what_changes_a_render_and_what_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keys(**arguments) -> tuple[str, str]:
        (job,) = expand(make(scenes=(scene,), **arguments), VARIANT)
        return job.render_key, job.settings_key

    file = tmp_path / "scene.xml"
    file.write_text("<scene/>")
    scene = SceneChoice(str(file), "s")
    before = keys()
    for change in ({"spp": (3,)}, {"seeds": (3,)}, {"width": 3}, {"sensors": (1,)}):
        assert keys(**change)[0] != before[0]
        assert keys(**change)[1] != before[1]
    for change in ({"exposure": 1.0}, {"png": False}, {"denoisers": (NONE,)}):
        assert keys(**change)[0] == before[0]
        assert keys(**change)[1] != before[1]
    for change in ({"title": "x"}, {"gallery": False}, {"metrics": ()}):  # there is no reference
        assert keys(**change) == before
    file.write_text("<scene />")
    assert keys()[0] != before[0]
    file.write_text("<scene/>")
    monkeypatch.setattr(provenance, "sources", lambda: "other code")
    assert keys()[0] != before[0]
    assert keys()[1] != before[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "{scene}-{gamma}.exr"}, r"unknown placeholders \{gamma\}; known: \{scene\}"),
        ({"name": "{scene.name}.exr"}, "unknown placeholders"),
        ({"name": "{scene.exr"}, "is not a template"),
        ({"name": "{scene}.png"}, "ends in .exr"),
        ({"name": "../{scene}.exr"}, "inside the output folder"),
        ({"name": "/elsewhere/{scene}.exr"}, "inside the output folder"),
        ({"name": "{spp:>999999999}.exr"}, "expected at most a width of two digits"),
        ({"name": "{scene:{seed}}.exr"}, "expected at most a width of two digits"),
        ({"name": "{scene!r}.exr"}, "expected at most a width of two digits"),
        ({"spp": (10**12,)}, "spp is 1000000000000; expected at most"),
        ({"seeds": (2**40,)}, "seeds is .*; expected at most"),
        ({"width": 10**9}, "width is .*; expected at most 65536"),
        ({"exposure": float("nan")}, "exposure is nan; expected a finite number"),
        ({"scenes": ()}, "got no scenes"),
        ({"scenes": (A, A)}, "scenes: a comes twice"),
        ({"spp": (1, 1)}, "spp: 1 comes twice"),
        ({"spp": (1,), "seconds": (3.0,)}, "got both spp and seconds"),
        ({"seconds": (0.0,)}, "seconds is 0.0; expected a finite number and above 0"),
        ({"seconds": (1.0,), "name": "{spp}.exr"}, "has {spp}, which these jobs do not have"),
        ({"name": "{seconds}.exr"}, "has {seconds}, which these jobs do not have"),
        ({"spp": (0,)}, "spp is 0; expected at least 1"),
        ({"sensors": (-1,)}, "sensors is -1; expected at least 0"),
    ],
)
def test_bad_batches(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "{scene}.exr", "spp": (1, 2)}, r"two jobs would write out/a\.exr: a sensor 0"),
        ({"name": "{scene:d}.exr"}, "does not fit"),
        ({"name": "{spp:/>5}.exr"}, "inside the folder"),
        ({"name": "{scene:.>2.0}/{scene:.>2.0}/x{spp}.exr"}, "inside the folder"),
        ({"name": "a:{spp}.exr", "scenes": (A,)}, "none of the characters ':'"),
        ({"name": "{scene:\n<9}.exr"}, "none of the characters"),
        ({"name": "x" * 250 + "{scene}.exr"}, "has 255 bytes; expected at most 240"),
        ({"seeds": tuple(range(300)), "spp": tuple(range(1, 400))}, "expected at most 100000"),
        ({"overrides": (Override({"scene": "c"}, {"width": 2}),)}, "number 1 matches no job"),
        ({"overrides": (Override({"spp": 16}, {"skip": True}),)}, "nothing is left to do"),
    ],
)
def test_bad_products(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        expand(make(**arguments), VARIANT)


def test_name_with_a_format() -> None:
    jobs = expand(make(scenes=(A,), name="{spp:04d}/{scene}.exr", spp=(1, 64)), VARIANT)
    assert [job.output.as_posix() for job in jobs] == ["out/0001/a.exr", "out/0064/a.exr"]


@pytest.mark.parametrize(
    ("match", "values", "message"),
    [
        ({}, {"width": 1}, "nothing to match"),
        ({"spp": 1}, {}, "nothing to set"),
        ({"colour": 1}, {"width": 1}, "cannot match 'colour'"),
        ({"spp": 1}, {"spp": 2}, "cannot set 'spp'"),
    ],
)
def test_bad_overrides(match: dict, values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Override(match, values)


@pytest.mark.parametrize(
    "values",
    [
        {"width": 0},
        {"height": 10**9},
        {"exposure": float("inf")},
        {"settings": {"max_depth": datetime.date(1979, 5, 27)}},
        {"options": {"alpha": float("nan")}},
    ],
)
def test_overrides_with_values_that_make_no_sense(values: dict) -> None:
    with pytest.raises(ConfigError, match="; expected"):
        Override({"spp": 1}, values)


@pytest.mark.parametrize("label", ["", "a/b", "..", "a b", "-a"])
def test_labels_fit_into_file_names(label: str) -> None:
    with pytest.raises(ConfigError, match="part of file names"):
        IntegratorChoice(label)


def test_names_of_scenes() -> None:
    assert SceneChoice("builtin:tiled-hall").name == "tiled-hall"
    assert SceneChoice("a/kitchen/scene.xml").name == "kitchen"
    assert SceneChoice("a/kitchen.xml").name == "kitchen"
    with pytest.raises(ConfigError, match="two independent halves"):
        SceneChoice("a.xml", reference=("1", "2", "3"))


FILE = """
title = "Comparison"
output = "results"
scenes = [
    "builtin:tiled-hall",
    { source = "kitchen/scene.xml", reference = ["a.exr", "b.exr"], parameters = { depth = 3 } },
]
spp = [4, 16]
seeds = 7
denoisers = { none = "none", soft = "poisson-l2(alpha=0.1)" }
metrics = ["relmse", "psnr"]
width = 64
exposure = 1

[[integrators]]
name = "short"
settings = { max_depth = 4 }

[[override]]
match = { scene = "kitchen", spp = [16] }
values = { height = 32, reference = "c.exr" }
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "jobs.toml"
    path.write_text(text)
    return path


def test_toml(tmp_path: Path) -> None:
    batch = Batch.from_toml(write(tmp_path, FILE))
    kitchen = SceneChoice(
        str(tmp_path / "kitchen/scene.xml"),
        "kitchen",
        {"depth": "3"},
        (str(tmp_path / "a.exr"), str(tmp_path / "b.exr")),
    )
    assert batch == Batch(
        scenes=(SceneChoice("builtin:tiled-hall"), kitchen),
        output=tmp_path / "results",
        integrators=(IntegratorChoice("short", {"max_depth": 4}),),
        denoisers={"none": "none", "soft": "poisson-l2(alpha=0.1)"},
        spp=(4, 16),
        seeds=(7,),
        title="Comparison",
        width=64,
        exposure=1.0,
        metrics=("relmse", "psnr"),
        overrides=(
            Override(
                {"scene": "kitchen", "spp": [16]},
                {"height": 32, "reference": (str(tmp_path / "c.exr"),)},
            ),
        ),
    )
    jobs = expand(batch, VARIANT)
    assert {job.reference for job in jobs if job.scene == "kitchen" and job.spp == 16} == {
        (str(tmp_path / "c.exr"),)
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scenes = ", "cannot read this TOML file"),
        ('output = "x"', "'scenes' is missing"),
        ('output = "x"\nscenes = "builtin:a"\nspps = 3', "unknown key 'spps'; did you mean 'spp'"),
        ('output = "x"\nscenes = "builtin:a"\nspp = 2.5', "spp is 2.5; expected a whole number"),
        ('output = "x"\nscenes = "builtin:a"\nwidth = 0', "width is 0; expected at least 1"),
        ('output = "x"\nscenes = "builtin:a"\npng = 1', "png is 1; expected true or false"),
        ('output = "x"\nscenes = [{ name = "a" }]', "scenes: the key 'source' is missing"),
        (
            'output = "x"\nscenes = "builtin:a"\n'
            'integrators = [{ name = "a", settings = { max_depth = 1979-05-27 } }]',
            r"jobs\.toml, integrators, settings: 'max_depth' is datetime.*; expected a number",
        ),
        (
            'output = "x"\nscenes = "builtin:a"\nexposure = nan',
            "exposure is nan; expected a finite",
        ),
        ('output = "x"\nscenes = { source = "a.xml", name = "a/b" }', r"jobs\.toml, scenes: .*a/b"),
        (
            'output = "x"\nscenes = "builtin:a"\n[[override]]\nmatch = { spp = 1 }\n'
            "values = { with = 3 }",
            "unknown key 'with'; did you mean 'width'",
        ),
        ('output = "x"\nscenes = "builtin:a"\nspp = [0]', r"jobs\.toml: spp is 0"),
    ],
)
def test_bad_toml(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises((ConfigError, FormatError), match=message):
        Batch.from_toml(write(tmp_path, text))


def test_times_instead_of_samples(tmp_path: Path) -> None:
    jobs = expand(make(scenes=(A,), denoisers=(NONE, L1), seconds=(0.5, 10.0)), VARIANT)
    assert [job.output.name for job in jobs] == [
        "0-gdpt-0.5s-0-none.exr",
        "0-gdpt-0.5s-0-poisson-l1.exr",
        "0-gdpt-10s-0-none.exr",
        "0-gdpt-10s-0-poisson-l1.exr",
    ]
    assert {(job.spp, job.seconds) for job in jobs} == {(None, 0.5), (None, 10.0)}
    assert "10 s, seed 0" in jobs[-1].label
    # What a reconstruction takes decides on the samples of its render.
    assert len(group(jobs)) == 4
    (tmp_path / "jobs.toml").write_text('output = "x"\nscenes = "builtin:a"\nseconds = 3')
    assert Batch.from_toml(tmp_path / "jobs.toml").seconds == (3.0,)


def test_default_denoiser() -> None:
    integrators = (
        IntegratorChoice("bare"),
        IntegratorChoice("full", {"variances": True, "features": "diffuse, specular"}),
    )
    spec = Batch(scenes=(A,), output=Path("out"), integrators=integrators)
    bare, full = expand(spec, VARIANT)
    assert bare.call == denoisers.default_call()  # it reads what every render has
    assert full.call == bare.call
    for job in (bare, full):
        assert job.denoiser == job.call.method
        assert job.output.name.endswith(f"-{job.call.method}.exr")


def test_labels_of_denoisers_follow_from_their_options() -> None:
    calls = ("oidn(aux=raw, ensemble=4)", "oidn-fusion(using=oidn(aux=raw))", None)
    jobs = expand(make(scenes=(A,), denoisers=calls), VARIANT)
    labels = list(dict.fromkeys(job.denoiser for job in jobs))
    assert labels[:2] == ["oidn-aux-raw-ensemble-4", "oidn-fusion-using-oidn-aux-raw"]
    assert labels[2] == denoisers.default_call().method
    assert jobs[0].call == Call("oidn", {"aux": "raw", "ensemble": 4})


def test_captions_say_what_differs() -> None:
    jobs = expand(make(scenes=(A,), denoisers=(NONE, "oidn(aux=raw)"), spp=(1,)), VARIANT)
    assert captions(jobs) == ["1 spp", "oidn(aux=raw), 1 spp"]
    jobs = expand(make(scenes=(A,), seeds=(4, 5), sensors=(0, 1), denoisers=(NONE,)), VARIANT)
    assert captions(jobs)[:2] == ["sensor 0, 16 spp, seed 4", "sensor 0, 16 spp, seed 5"]


def test_sequences_instead_of_images(tmp_path: Path) -> None:
    text = 'output = "x"\nscenes = "builtin:corner-gallery"\nfly_through = 4\nspan = [0.4, 0.5]\n'
    jobs = expand(Batch.from_toml(write(tmp_path, text + 'denoisers = ["none"]')), VARIANT)
    assert jobs[0].output == tmp_path / "x/corner-gallery/0-gdpt-16spp-0-none"
    assert jobs[0].cell.record.name == "0-gdpt-16spp-0-none.json"
    assert [path.name for path in jobs[0].pictures][::4] == ["frame-0000.exr", "frame-0000.png"]
    assert len(jobs[0].shot.cameras) == 4
    spec = Batch.from_toml(write(tmp_path, text + "seconds = [0.5, 2]"))
    jobs = expand(spec, VARIANT)
    assert [str(job.call) for job in jobs] == [f"temporal(using={denoisers.default_call()})"] * 2
    assert jobs[0].output.name == "0-gdpt-0.5s-0-temporal"
    assert jobs[0].cell.record.name == "0-gdpt-0.5s-0-temporal.json"
    # Frames, their cameras and the method decide on what is rendered.
    changed = [
        expand(replace(spec, **change), VARIANT)[0].render_key
        for change in ({}, {"fly_through": 5}, {"span": (0.4, 0.6)}, {"denoisers": (NONE,)})
    ]
    assert len(set(changed)) == 4
    assert [type(unit).__name__ for unit in group(jobs)] == ["SequenceUnit", "SequenceUnit"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fly_through": 1}, "fly_through is 1; expected"),
        ({"fly_through": None, "span": (0.1, 0.2)}, "span is about a fly-through"),
        ({"span": (0.5, 0.4)}, "0 <= start < stop <= 1"),
        ({"spp": (3,)}, "spp is 3; expected .* 4"),
        ({"sensors": (0, 1)}, "both sensors and fly_through"),
        ({"name": "{scene}.exr"}, "of a folder, without suffix"),
        ({"scenes": (SceneChoice("builtin:a", reference=("a.exr",)),)}, "references are single"),
        ({"overrides": (Override({"scene": "a"}, {"reference": ("a",)}),)}, "references are si"),
    ],
)
def test_sequences_that_make_no_sense(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**{"fly_through": 4, **arguments})
