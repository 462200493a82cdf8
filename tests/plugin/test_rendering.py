"""What is taken over from a scene file, and what a render says of itself."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import mitsuba as mi
import pytest

from mitsuba_gdpt import rendering
from mitsuba_gdpt.errors import ConfigError, FormatError
from mitsuba_gdpt.rendering.integrators import PATH_TRACERS

pytestmark = pytest.mark.usefixtures("variant_llvm_rgb")

#: Parameters of a film and of an integrator, as the versions of Mitsuba spell them.
OLD, NEW = "0.5.0", "3.0.0"
SPELLINGS = {
    "0.4.0": ("maxDepth", "rrDepth", "hideEmitters", "cropOffsetX", "cropWidth"),
    "0.5.0": ("maxDepth", "rrDepth", "hideEmitters", "cropOffsetX", "cropWidth"),
    "0.6.0": ("maxDepth", "rrDepth", "hideEmitters", "cropOffsetX", "cropWidth"),
    "2.0.0": ("max_depth", "rr_depth", "hide_emitters", "crop_offset_x", "crop_width"),
    "2.2.1": ("max_depth", "rr_depth", "hide_emitters", "crop_offset_x", "crop_width"),
    "3.0.0": ("max_depth", "rr_depth", "hide_emitters", "crop_offset_x", "crop_width"),
    "3.9.1": ("max_depth", "rr_depth", "hide_emitters", "crop_offset_x", "crop_width"),
}
PATH = """<integrator type="path"><integer name="max_depth" value="2"/>
<integer name="rr_depth" value="9"/><boolean name="hide_emitters" value="true"/></integrator>"""
SETTINGS = {"max_depth": 2, "rr_depth": 9, "hide_emitters": True}


def write(
    folder: Path, integrator: str = "", film: str = "", sampler: str = "", version: str = NEW
) -> str:
    path = folder / "scene.xml"
    path.write_text(
        f"""<scene version="{version}">{integrator}<sensor type="perspective">{sampler}
        <film type="hdrfilm"><integer name="width" value="12"/><integer name="height" value="8"/>
        {film}<rfilter type="box"/></film></sensor>
        <shape type="sphere"/><emitter type="constant"/></scene>"""
    )
    return str(path)


def settings(folder: Path, integrator: str) -> dict[str, Any]:
    """Return what is taken over, where nothing has to be said about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return rendering.open_source(write(folder, integrator)).integrator


def nested(outer: str, *inner: str, more: str = "") -> str:
    aovs = '<string name="aovs" value="dd:depth"/>' if outer == "aov" else ""
    return f'<integrator type="{outer}">{aovs}{more}{"".join(inner)}</integrator>'


@pytest.mark.parametrize("version", SPELLINGS)
def test_settings_of_any_version_of_the_format(tmp_path: Path, version: str) -> None:
    depth, rr, hide, *_ = SPELLINGS[version]
    text = f"""<integrator type="path"><integer name="{depth}" value="2"/>
    <integer name="{rr}" value="9"/><boolean name="{hide}" value="true"/></integrator>"""
    assert rendering.open_source(write(tmp_path, text, version=version)).integrator == SETTINGS


def test_size_of_a_sensor_without_a_film_cannot_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "scene.xml"
    path.write_text('<scene version="3.0.0"><sensor type="perspective"/></scene>')
    assert [*rendering.open_source(str(path)).sensor(0).film().size()] == [768, 576]
    with pytest.raises(ConfigError, match="has no film, so it has Mitsuba's size"):
        rendering.open_source(str(path), width=8)


@pytest.mark.parametrize("version", SPELLINGS)
def test_crop_of_any_version_is_refused_with_a_size(tmp_path: Path, version: str) -> None:
    *_, offset, width = SPELLINGS[version]
    film = f'<integer name="{offset}" value="2"/><integer name="{width}" value="5"/>'
    path = write(tmp_path, film=film, version=version)
    with pytest.raises(ConfigError, match="crop window"):
        rendering.open_source(path, width=6)
    assert [*rendering.open_source(path).sensor(0).film().crop_size()] == [5, 8]
    path = write(tmp_path, version=version)
    assert [*rendering.open_source(path, width=6).sensor(0).film().size()] == [6, 4]


@pytest.mark.parametrize(
    "text",
    [
        PATH,
        nested("aov", PATH),
        nested("moment", PATH),
        nested("moment", nested("aov", PATH)),
        nested("aov", nested("moment", nested("aov", PATH))),
        nested("aov", PATH, more='<boolean name="hide_emitters" value="false"/>'),
        PATH.replace('"path"', '"volpath"'),
        nested("aov", PATH.replace('"path"', '"prb"')),
    ],
)
def test_the_innermost_path_tracer_counts(tmp_path: Path, text: str) -> None:
    assert settings(tmp_path, text) == SETTINGS


def test_no_integrator_is_path(tmp_path: Path) -> None:
    assert settings(tmp_path, "") == {}


@pytest.mark.parametrize("name", PATH_TRACERS)
def test_defaults_are_those_of_the_plugin(tmp_path: Path, name: str) -> None:
    """As far as the plugin tells; no depth is 2^32 - 1 in some of them."""
    plugin = mi.load_dict({"type": name})
    depth = getattr(plugin, "max_depth", None)
    if depth is None and (match := re.search(r"max_depth = (-?\d+)", str(plugin))):
        depth = int(match[1])
    expected = {"direct": 2}.get(name, depth)
    taken = settings(tmp_path, f'<integrator type="{name}"/>').get("max_depth", -1)
    assert taken % 2**32 == expected % 2**32
    # All others agree with gdpt.
    assert getattr(plugin, "rr_depth", 5) in (5, taken)
    assert not getattr(plugin, "hide_emitters", False)


def test_every_integrator_of_mitsuba_is_known_or_said_to_be_none(tmp_path: Path) -> None:
    """The plugins that are shipped, compiled and in Python."""
    folder = Path(mi.__file__).parent
    kind = mi.PluginManager.instance().plugin_type
    compiled = {path.stem for path in (folder / "plugins").glob("*.*")}
    python = {path.stem for path in (folder / "python/ad/integrators").glob("[!_]*.py")}
    integrators = {name for name in compiled if kind(name) == mi.ObjectType.Integrator}
    integrators |= python - {"common"}
    integrators -= {"stokes"}  # for polarised variants
    others = integrators - set(PATH_TRACERS)
    assert others == {"aov", "moment", "depth", "volprim_rf_basic"} & integrators
    assert integrators >= {"path", "direct", "volpath", "prb", "depth", "moment"}
    for name in others:
        with pytest.warns(UserWarning, match=f"{name!r} is no path tracer that gdpt knows"):
            rendering.open_source(write(tmp_path, nested(name)))


def test_direct_is_direct_light(tmp_path: Path) -> None:
    text = '<integrator type="direct"><boolean name="hide_emitters" value="true"/></integrator>'
    assert settings(tmp_path, text) == {"max_depth": 2, "hide_emitters": True}


def test_parameters_without_equivalent_are_named(tmp_path: Path) -> None:
    text = '<integrator type="direct"><integer name="bsdf_samples" value="0"/></integrator>'
    with pytest.warns(UserWarning, match="'direct' sets bsdf_samples, for which gdpt has no"):
        assert rendering.open_source(write(tmp_path, text)).integrator == {"max_depth": 2}


def test_several_path_tracers(tmp_path: Path) -> None:
    path = write(tmp_path, nested("aov", PATH, '<integrator type="prb"/>'))
    with pytest.warns(UserWarning, match="of several path tracers"):
        assert rendering.open_source(path).integrator == SETTINGS


def test_gdpt_inside_another_keeps_all_its_parameters(tmp_path: Path) -> None:
    text = '<integrator type="gdpt"><integer name="shifts" value="2"/></integrator>'
    assert settings(tmp_path, nested("aov", text)) == {"shifts": 2}


@pytest.mark.parametrize("text", [PATH, nested("aov", PATH)])
def test_misspelt_parameters_are_still_refused(tmp_path: Path, text: str) -> None:
    text = text.replace('"rr_depth"', '"rr_dept"')
    with pytest.raises(FormatError, match="rr_dept"):
        rendering.open_source(write(tmp_path, text))


@pytest.mark.parametrize(
    ("sampler", "spp"),
    [
        ("independent", 5),
        ("stratified", 9),
        ("multijitter", 6),
        ("orthogonal", 9),
        ("ldsampler", 16),
    ],
)
def test_metadata_are_those_of_the_render(tmp_path: Path, sampler: str, spp: int) -> None:
    """Of every sampler that Mitsuba ships: those that round say to what."""
    source = rendering.open_source(write(tmp_path, sampler=f'<sampler type="{sampler}"/>'))
    tracer = rendering.make_integrator({"max_depth": 3, "shifts": 0})
    taken = source.sensor(0).sampler().clone()
    taken.set_sample_count(5)
    buffers = rendering.render(source, tracer, spp=5, seed=2**32 + 7)
    assert buffers.metadata["spp"] == str(spp) == str(taken.sample_count())
    assert buffers.metadata["seed"] == "7"
    assert "max_depth = 3" in buffers.metadata["integrator"]
    # Rounding is done: asking for what was taken gives the same image.
    again = rendering.render(source, tracer, spp=spp, seed=7)
    assert again.metadata == buffers.metadata
    assert (again.data == buffers.data).all()


def test_impossible_numbers_of_samples(tmp_path: Path) -> None:
    source = rendering.open_source(write(tmp_path))
    tracer = rendering.make_integrator({})
    for spp in (-1, 2**32):
        with pytest.raises(ConfigError, match=f"spp is {spp}; expected 1 to"):
            rendering.render(source, tracer, spp=spp)


def test_films_of_bands_are_refused_before_rendering(variant_llvm_spectral: str) -> None:
    band = {"type": "spectrum", "value": [(450, 0.0), (500, 1.0), (550, 0.0)]}
    film = {"type": "specfilm", "width": 4, "height": 4, "band": band}
    sensor = {"type": "perspective", "film": film}
    scene = mi.load_dict({"type": "scene", "shape": {"type": "sphere"}, "sensor": sensor})
    source = rendering.Source("bands", scene)
    with pytest.raises(ConfigError, match=r"specfilm is not supported.*use hdrfilm"):
        rendering.render(source, rendering.make_integrator({}), spp=1)


def test_scene_of_a_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name, with the parameters and the exposure that the catalogue gives."""
    path = Path(write(tmp_path, PATH.replace('"2"', '"$depth"')))
    (tmp_path / "mine.toml").write_text(
        f"""split = "dev"
        [scenes.hall]
        source = "{path.name}"
        title = "T"
        author = "A"
        licence = "L"
        exposure = 4
        parameters = {{ depth = "3" }}"""
    )
    source = rendering.open_source(f"{tmp_path}/mine.toml:hall")
    assert (source.name, source.exposure, source.integrator["max_depth"]) == ("hall", 4.0, 3)
    changed = rendering.open_source(f"{tmp_path}/mine.toml:hall", parameters={"depth": "7"})
    assert changed.integrator["max_depth"] == 7
