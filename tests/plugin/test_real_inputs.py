"""What people have: renders of Mitsuba and files as other programs write them, row by row.

``ROWS`` is the table in docs/how-to/inputs.md: what it says of an input is what is checked.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import mitsuba as mi
import numpy as np
import OpenEXR
import pytest
import torch

from mitsuba_gdpt import Layout, colorimetry, denoise, exr, pfm
from mitsuba_gdpt.data.frame_set import read_frame
from mitsuba_gdpt.denoisers import methods
from mitsuba_gdpt.errors import GDPTError, LayoutError
from mitsuba_gdpt.foreign import Words, read_image, take

pytestmark = pytest.mark.usefixtures("variant_llvm_rgb")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "inputs.md"
AOVS = "albedo:albedo,nn:sh_normal,dd.y:depth"
FORMATS = ("rgb", "rgba", "luminance", "luminance_alpha", "xyz", "xyza")
ALL = ("primal", "albedo", "normal", "depth")
RGB, XYZ = ("R", "G", "B"), ("X", "Y", "Z")
H, W = 8, 12


def scene(pixel_format: str = "rgb", integrator: dict[str, Any] | None = None) -> mi.Scene:
    camera = mi.ScalarTransform4f().look_at([3, 2, 2], [0, 0, 0], [0, 1, 0])
    film = {"type": "hdrfilm", "width": W, "height": H, "pixel_format": pixel_format}
    film |= {"component_format": "float32", "rfilter": {"type": "box"}}
    colour = {"type": "rgb", "value": [0.8, 0.5, 0.2]}
    return mi.load_dict(
        {
            "type": "scene",
            "integrator": integrator or aov(),
            "sensor": {"type": "perspective", "to_world": camera, "film": film},
            "ball": {"type": "sphere", "bsdf": {"type": "diffuse", "reflectance": colour}},
            "light": {"type": "constant"},
        }
    )


def aov(aovs: str = AOVS) -> dict[str, Any]:
    return {"type": "aov", "aovs": aovs, "image": {"type": "path", "max_depth": 3}}


# ------------------------------------------------------------------------------------- the table


@dataclass
class Given:
    """An input.

    Attributes:
        source: As for ``denoise()``.
        layout: Likewise.
        words: Likewise.
        expected: Buffers whose values are known.
    """

    source: Any
    layout: Any = None
    words: dict[str, Any] = field(default_factory=dict)
    expected: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        input: What it is.
        passed: What is passed besides.
        happens: Buffers that are found; after a semicolon, what is said. Or: refused, and why.
        make: Makes it.
    """

    input: str
    passed: str
    happens: str
    make: Callable[[Path], Given]


ROWS: list[Row] = []


def row(
    input: str, passed: str, happens: str
) -> Callable[[Callable[[Path], Given]], Callable[[Path], Given]]:
    def enter(make: Callable[[Path], Given]) -> Callable[[Path], Given]:
        ROWS.append(Row(input, passed, happens, make))
        return make

    return enter


def colour(tensor: np.ndarray, pixel_format: str) -> np.ndarray:
    """Return the RGB of the film's own channels."""
    if pixel_format.startswith("luminance"):
        return np.repeat(tensor[..., :1], 3, axis=-1)
    if pixel_format.startswith("xyz"):
        return tensor[..., :3] @ np.linalg.inv(colorimetry.rgb_to_xyz(colorimetry.REC709)).T
    return tensor[..., :3]


def rendered(pixel_format: str, aovs: str = AOVS) -> tuple[mi.Scene, Any, dict[str, Any]]:
    """Return a scene with Mitsuba's aov, its render, and the buffers by their place in it."""
    loaded = scene(pixel_format, aov(aovs))
    tensor = mi.render(loaded, spp=1)
    values = np.array(tensor)
    rotation = np.array(to_sensor(loaded).matrix).reshape(4, 4)[:3, :3]
    buffers = {
        "primal": colour(values, pixel_format),
        "albedo": values[..., -7:-4],
        "normal": values[..., -4:-1] @ rotation.T,
        "depth": values[..., -1:],
    }
    return loaded, tensor, buffers


def to_sensor(loaded: mi.Scene) -> Any:
    return loaded.sensors()[0].world_transform().inverse()


def enter_aovs(pixel_format: str) -> None:
    film = f"`aov` render, film of `{pixel_format}`"

    @row(f"{film}: tensor", "`layout=scene`", ", ".join(ALL))
    def tensor_and_scene(folder: Path) -> Given:
        loaded, tensor, buffers = rendered(pixel_format)
        return Given(tensor, loaded, {}, buffers)

    @row(f"{film}: bitmap", "`to_sensor=`", ", ".join(ALL))
    def bitmap(folder: Path) -> Given:
        loaded, _, buffers = rendered(pixel_format)
        words = {"to_sensor": to_sensor(loaded)}
        return Given(loaded.sensors()[0].film().bitmap(), None, words, buffers)

    @row(f"{film}: EXR", "`to_sensor=`", ", ".join(ALL))
    def file(folder: Path) -> Given:
        loaded, _, buffers = rendered(pixel_format)
        loaded.sensors()[0].film().bitmap().write(str(folder / "a.exr"))
        return Given(folder / "a.exr", None, {"to_sensor": to_sensor(loaded)}, buffers)

    @row(f"`path` render, film of `{pixel_format}`: EXR", "", "primal")
    def plain(folder: Path) -> Given:
        loaded = scene(pixel_format, {"type": "path", "max_depth": 3})
        tensor = np.array(mi.render(loaded, spp=1))
        loaded.sensors()[0].film().bitmap().write(str(folder / "a.exr"))
        return Given(folder / "a.exr", None, {}, {"primal": colour(tensor, pixel_format)})


for name in FORMATS:
    enter_aovs(name)


@row("`path` render: tensor", "", "primal")
def path_tensor(folder: Path) -> Given:
    tensor = mi.render(scene("rgb", {"type": "path"}), spp=1)
    return Given(tensor, None, {}, {"primal": np.array(tensor)})


@row("`path` render with alpha: bitmap", "", "primal")
def path_bitmap(folder: Path) -> Given:
    loaded = scene("rgba", {"type": "path"})
    tensor = np.array(mi.render(loaded, spp=1))
    bitmap = loaded.sensors()[0].film().bitmap()
    return Given(bitmap, None, {}, {"primal": tensor[..., :3]})


@row("`path` render, film of `luminance`: tensor", "", "primal")
def grey_tensor(folder: Path) -> Given:
    tensor = mi.render(scene("luminance", {"type": "path"}), spp=1)
    return Given(tensor, None, {}, {"primal": np.repeat(np.array(tensor), 3, axis=-1)})


@row("`aov` render: tensor", "`layout=integrator`", "primal, albedo, depth; in world space")
def tensor_and_integrator(folder: Path) -> Given:
    loaded, tensor, buffers = rendered("rgb")
    return Given(tensor, loaded.integrator(), {}, buffers)


@row(
    "`aov` render with normals called `normal`: bitmap",
    "",
    "primal, albedo, depth; may be in world space",
)
def normal_of_unknown_frame(folder: Path) -> Given:
    loaded, _, buffers = rendered("rgb", "albedo:albedo,normal:sh_normal,depth:depth")
    return Given(loaded.sensors()[0].film().bitmap(), None, {}, buffers)


@row(
    "script of `mi.OptixDenoiser`: bitmap",
    "`albedo_ch, normals_ch, to_sensor`",
    "primal, albedo, normal",
)
def optix_bitmap(folder: Path) -> Given:
    loaded, _, buffers = rendered("rgb", "other:depth,a:albedo,b:sh_normal,c:depth")
    words = {"albedo_ch": "a", "normals_ch": "b", "to_sensor": to_sensor(loaded)}
    return Given(loaded.sensors()[0].film().bitmap(), None, words, buffers)


@row(
    "script of `mi.OptixDenoiser`: tensors",
    "`albedo, normals, to_sensor`",
    "primal, albedo, normal",
)
def optix_tensors(folder: Path) -> Given:
    loaded, tensor, buffers = rendered("rgb")
    words = {"albedo": tensor[..., -7:-4], "normals": tensor[..., -4:-1]}
    words |= {"to_sensor": to_sensor(loaded)}
    return Given(tensor[..., :3], None, words, buffers)


@row("script of `mi.OptixDenoiser(temporal=True)`", "`flow_ch`", "primal, motion")
def optix_flow(folder: Path) -> Given:
    channels = planes(root=RGB, flow=("X", "Y"))
    write(folder / "a.exr", channels)
    expected = {"primal": stack(channels, *RGB), "motion": -stack(channels, "flow.X", "flow.Y")}
    return Given(folder / "a.exr", None, {"flow_ch": "flow"}, expected)


@row("`gdpt` render: tensor", "", ", ".join(Layout.make().names))
def gdpt_tensor(folder: Path) -> Given:
    tensor = mi.render(scene("rgb", {"type": "gdpt", "max_depth": 3}), spp=1)
    return Given(tensor, None, {}, {"dx": np.array(tensor)[..., 3:6]})


@row("`gdpt` render, film of `luminance`: bitmap", "", "refused: pixel_format is 'luminance'")
def gdpt_grey(folder: Path) -> Given:
    loaded = scene("luminance", {"type": "gdpt", "max_depth": 3})
    mi.render(loaded, spp=1)
    return Given(loaded.sensors()[0].film().bitmap())


# ------------------------------------------------------------------ files, as the programs do it


def planes(prefix: str = "", **layers: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return channels with values of their own; 'root' has no name, '__' is a blank."""
    random = np.random.default_rng(0)
    return {
        prefix + (c if layer == "root" else f"{layer.replace('__', ' ')}.{c}"): (
            random.random((H, W), np.float32)
        )
        for layer, suffixes in layers.items()
        for c in suffixes
    }


def stack(channels: dict[str, np.ndarray], *names: str) -> np.ndarray:
    return np.stack([np.asarray(channels[name], np.float32) for name in names], axis=-1)


def write(
    path: Path, channels: dict[str, np.ndarray], kind: Any = np.float32, **header: Any
) -> Path:
    """Write an EXR file with OpenEXR itself, scanlines or whatever the header says."""
    for name, plane in channels.items():
        channels[name] = plane.astype(kind)
    header = {"compression": OpenEXR.PIZ_COMPRESSION, "type": OpenEXR.scanlineimage} | header
    OpenEXR.File(header, {n: p.copy() for n, p in channels.items()}).write(str(path))
    return path


DENOISING = {"Denoising__Albedo": RGB, "Denoising__Normal": XYZ, "Denoising__Depth": ("Z",)}


@row(
    "Blender, multilayer EXR with denoising data",
    "",
    "primal, albedo, normal, depth",
)
def blender(folder: Path) -> Given:
    four = (*RGB, "A")
    channels = planes("ViewLayer.", Combined=four, Noisy__Image=four, Normal=XYZ, **DENOISING)
    write(folder / "a.exr", channels)
    normal = stack(channels, *(f"ViewLayer.Denoising Normal.{c}" for c in XYZ))
    expected = {
        "primal": stack(channels, *(f"ViewLayer.Noisy Image.{c}" for c in RGB)),
        "albedo": stack(channels, *(f"ViewLayer.Denoising Albedo.{c}" for c in RGB)),
        "normal": normal * [-1, 1, 1],
        "depth": stack(channels, "ViewLayer.Denoising Depth.Z"),
    }
    return Given(folder / "a.exr", None, {}, expected)


@row(
    "Blender, multilayer EXR with the passes Combined, Normal, Depth",
    "",
    "primal, depth; in world space",
)
def blender_passes(folder: Path) -> Given:
    channels = planes("ViewLayer.", Combined=(*RGB, "A"), Depth=("Z",), Normal=XYZ)
    channels["ViewLayer.Depth.Z"][0, 0] = 1e10  # the sky
    write(folder / "a.exr", channels)
    depth = stack(channels, "ViewLayer.Depth.Z")
    expected = {"primal": stack(channels, *(f"ViewLayer.Combined.{c}" for c in RGB))}
    return Given(folder / "a.exr", None, {}, expected | {"depth": np.where(depth > 1e9, 0, depth)})


@row("Blender, EXR in parts, half floats", "", "primal, albedo, normal")
def blender_parts(folder: Path) -> Given:
    layers = {"Noisy Image": (*RGB, "A"), "Denoising Albedo": RGB, "Denoising Normal": XYZ}
    parts, channels = [], {}
    for name, suffixes in layers.items():
        own = {c: p.astype(np.float16) for c, p in planes(root=suffixes).items()}
        channels |= {f"{name}.{c}": p for c, p in own.items()}
        header = {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIPS_COMPRESSION}
        full = {f"ViewLayer.{name}.{c}": p.copy() for c, p in own.items()}
        parts.append(OpenEXR.Part(header | {"name": name}, full, name))
    OpenEXR.File(parts).write(str(folder / "a.exr"))
    expected = {"albedo": stack(channels, *(f"Denoising Albedo.{c}" for c in RGB))}
    return Given(folder / "a.exr", None, {}, expected)


PBRT = {"root": RGB, "Albedo": RGB, "P": XYZ, "N": XYZ, "Ns": XYZ, "Variance": RGB}


def pbrt(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    channels = planes(**PBRT, u=("u",), v=("v",))
    window = (np.array([2, 1], np.int32), np.array([1 + W, H], np.int32))
    full = (np.zeros(2, np.int32), np.array([15, 9], np.int32))
    path = write(folder / "a.exr", channels, np.float16, dataWindow=window, displayWindow=full)
    return path, channels


@row(
    "pbrt, `gbuffer` film, half floats, cropped", "", "primal, albedo, normal; pbrt's camera frame"
)
def pbrt_camera(folder: Path) -> Given:
    path, channels = pbrt(folder)
    expected = {
        "primal": stack(channels, *RGB),
        "albedo": stack(channels, *(f"Albedo.{c}" for c in RGB)),
        "normal": stack(channels, *(f"Ns.{c}" for c in XYZ)) * [-1, 1, 1],
    }
    return Given(path, None, {}, expected)


@row("pbrt, `gbuffer` film in world space", "`to_sensor=`", "primal, albedo, normal")
def pbrt_world(folder: Path) -> Given:
    path, channels = pbrt(folder)
    turn = np.array([[0, 0, -1, 3], [0, 1, 0, 5], [1, 0, 0, 7], [0, 0, 0, 1]], float)
    normal = stack(channels, *(f"Ns.{c}" for c in XYZ)) @ turn[:3, :3].T
    return Given(path, None, {"to_sensor": turn}, {"normal": normal})


def ngpt(folder: Path, *names: str) -> dict[str, np.ndarray]:
    """Write files of NGPT's renderer, half floats, three channels each."""
    images = {}
    for index, name in enumerate(names):
        image = np.random.default_rng(index).random((H, W, 3)).astype(np.float16)
        exr.write_image(folder / f"scene-{name}.exr", image, half=True)
        images[name] = image.astype(np.float32)
    return images


@row("NGPT, `scene-primal.exr` and its five siblings", "", "primal, dx, dy, albedo, normal, depth")
def ngpt_files(folder: Path) -> Given:
    images = ngpt(folder, "primal", "dx", "dy", "albedo", "normal", "depth")
    images["depth"] = images["depth"][..., :1]
    return Given(folder / "scene-primal.exr", None, {}, images)


@row(
    "gradient-domain tracer of 2015, `-primal`, `-dx`, `-dy`, `-direct`",
    "",
    "primal, dx, dy; add it to the result",
)
def gpt_files(folder: Path) -> Given:
    images = ngpt(folder, "primal", "dx", "dy", "direct")
    del images["direct"]
    return Given(folder / "scene-primal.exr", None, {}, images)


@row("NGPT, result as NPZ", "", "primal")
def ngpt_result(folder: Path) -> Given:
    image = np.random.default_rng(0).random((H, W, 3)).astype(np.float32)
    np.savez(folder / "scene-ngpt.npz", image)
    return Given(folder / "scene-ngpt.npz", None, {}, {"primal": image})


def rae(folder: Path, normals: tuple[str, ...]) -> tuple[Path, dict[str, np.ndarray]]:
    channels = planes(root=RGB, depth=("Z",), normal=normals)
    channels["depth.Z"][0, 0] = np.inf
    return write(folder / "noisy-0.exr", channels), channels


@row("rae, seven channels", "", "primal, depth; may be in world space")
def rae_frame(folder: Path) -> Given:
    path, channels = rae(folder, RGB)
    depth = stack(channels, "depth.Z")
    expected = {"primal": stack(channels, *RGB), "depth": np.where(np.isinf(depth), 0, depth)}
    return Given(path, None, {}, expected)


@row("rae, seven channels, normals as X, Y, Z", "`normals_space='camera'`", "primal, normal, depth")
def rae_camera(folder: Path) -> Given:
    path, channels = rae(folder, XYZ)
    normal = stack(channels, *(f"normal.{c}" for c in XYZ))
    return Given(path, None, {"normals_space": "camera"}, {"normal": normal})


@row("rae, frame of a set", "`read_frame()`", "primal, normal, depth")
def rae_set(folder: Path) -> Given:
    path, channels = rae(folder, RGB)
    normal = stack(channels, *(f"normal.{c}" for c in RGB))
    return Given(
        read_frame(path), None, {}, {"normal": normal, "depth": stack(channels, "depth.Z")}
    )


@row(
    "OIDN, `color`, `albedo` and `normal` in PFM files",
    "`albedo=, normals=`",
    "primal, albedo, normal",
)
def oidn_files(folder: Path) -> Given:
    images = {n: np.random.default_rng(i).random((H, W, 3)) for i, n in enumerate(ALL[:3])}
    for name, image in images.items():
        pfm.write(folder / f"{name}.pfm", image)
    words = {"albedo": read_image(folder / "albedo.pfm", "albedo")}
    words |= {"normals": read_image(folder / "normal.pfm", "normal")}
    return Given(folder / "primal.pfm", None, words, images)


@row("OIDN, layers `color`, `albedo`, `nrm`", "`normals_space='camera'`", "primal, albedo, normal")
def oidn_layers(folder: Path) -> Given:
    channels = planes(color=RGB, albedo=RGB, nrm=XYZ)
    expected = {"normal": stack(channels, "nrm.X", "nrm.Y", "nrm.Z")}
    return Given(write(folder / "a.exr", channels), None, {"normals_space": "camera"}, expected)


@row("any renderer, tiled EXR with small letters and `Z`", "", "primal, depth")
def tiled(folder: Path) -> Given:
    channels = {n.lower(): p for n, p in planes(root=(*RGB, "Z")).items()}
    tiles = OpenEXR.TileDescription()
    path = write(folder / "a.exr", channels, type=OpenEXR.tiledimage, tiles=tiles)
    return Given(path, None, {}, {"primal": stack(channels, *"rgb"), "depth": stack(channels, "z")})


@row("NumPy array (H, W, 4)", "", "primal")
def array(folder: Path) -> Given:
    image = np.random.default_rng(0).random((H, W, 4)).astype(np.float32)
    return Given(image, None, {}, {"primal": image[..., :3]})


@row("torch tensor with channel names of any program", "`layout=[...]`", "primal, albedo")
def named_tensor(folder: Path) -> Given:
    channels = planes(root=RGB, albedo=RGB, P=XYZ)
    expected = {"albedo": stack(channels, *(f"albedo.{c}" for c in RGB))}
    return Given(torch.from_numpy(stack(channels, *channels)), list(channels), {}, expected)


@row("layers of unknown names", "", "refused: no channels of an image")
def unknown(folder: Path) -> Given:
    return Given(write(folder / "a.exr", planes(beauty1=RGB, extra=XYZ)))


@row("EXR of whole numbers", "", "refused: whole numbers in B, G, R; expected half or float")
def integers(folder: Path) -> Given:
    return Given(write(folder / "a.exr", planes(root=RGB), np.uint32))


@pytest.mark.parametrize("entry", ROWS, ids=lambda entry: f"{entry.input} {entry.passed}")
def test_row(tmp_path: Path, entry: Row) -> None:
    given = entry.make(tmp_path)
    found, _, said = entry.happens.partition("; ")
    if found.startswith("refused: "):
        with pytest.raises(GDPTError, match=re.escape(found.removeprefix("refused: "))):
            take(given.source, given.layout, Words(**given.words))
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame = take(given.source, given.layout, Words(**given.words))
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == bool(said), messages
    assert all(said in message for message in messages)
    assert sorted(frame.names) == sorted(found.split(", "))
    known = {name: image for name, image in given.expected.items() if name in frame}
    assert known or not given.expected
    for name, image in known.items():
        np.testing.assert_allclose(frame[name].numpy(), image, rtol=2e-5, atol=2e-6, err_msg=name)
    assert denoise(frame, "none").shape == (H, W, 3)


def test_the_page_has_the_same_rows() -> None:
    """Printed where it differs: copy it."""
    lines = ["| input | passed besides | what happens |", "|---|---|---|"]
    lines += [f"| {entry.input} | {entry.passed} | {entry.happens} |" for entry in ROWS]
    assert len(ROWS) >= 30
    assert "\n".join(lines) + "\n" in PAGE.read_text(encoding="utf-8"), "\n".join(lines)


# -------------------------------------------------------------------------------- what they mean


def reference() -> Any:
    """The same render by gdpt, whose buffers mean what ours mean."""
    tracer = mi.load_dict({"type": "gdpt", "max_depth": 3})
    return take(tracer.render(scene(), spp=64), tracer)


def test_aovs_mean_what_those_of_gdpt_mean() -> None:
    loaded = scene()
    frame, expected = take(mi.render(loaded, spp=64), loaded), reference()
    torch.testing.assert_close(
        frame.primal.mean((0, 1)), expected.primal.mean((0, 1)), rtol=0.02, atol=0
    )
    inner = (expected.albedo[..., 0] > 0.795) & (frame.albedo[..., 0] > 0.795)  # no silhouette
    assert inner.sum() > 20
    torch.testing.assert_close(frame.normal[inner], expected.normal[inner], rtol=0, atol=0.1)
    torch.testing.assert_close(frame.albedo[inner], expected.albedo[inner], rtol=0, atol=0.03)
    torch.testing.assert_close(frame.depth[inner], expected.depth[inner], rtol=0.03, atol=0)


@cache
def all_buffers() -> tuple[Any, torch.Tensor]:
    """Return a frame with everything that methods read, and its normals in world space."""
    extra = {"variances": True, "features": "diffuse,specular"}
    tracer = mi.load_dict({"type": "gdpt", "max_depth": 3, **extra})
    loaded = scene("rgb", extra | {"type": "gdpt"})
    frame = take(tracer.render(loaded, spp=4), tracer)
    frame = frame.appended("motion", torch.zeros(H, W, 2))
    rotation = np.array(loaded.sensors()[0].world_transform().matrix).reshape(4, 4)[:3, :3]
    return frame, frame.normal @ frame.normal.new_tensor(rotation).T


@pytest.mark.parametrize("method", [entry.name for entry in methods() if entry.available])
def test_world_space_equals_the_camera_frame_in_every_method(method: str) -> None:
    frame, world = all_buffers()
    expected = denoise(frame, method)
    result = denoise(frame, method, normals=world, to_sensor=to_sensor(scene()))
    torch.testing.assert_close(result, expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("kind", ["tensor", "bitmap"])
def test_the_same_kind_comes_back(kind: str) -> None:
    loaded = scene(integrator={"type": "path", "max_depth": 3})
    tensor = mi.render(loaded, spp=4)
    source = tensor if kind == "tensor" else loaded.sensors()[0].film().bitmap()
    image = denoise(source, "none")
    assert type(image) is type(source)
    np.testing.assert_array_equal(np.array(image), np.array(tensor))
    assert np.array(denoise(source)).shape == (H, W, 3)


def test_words_of_the_optix_denoiser() -> None:
    """The tutorial's call, with the name of the function changed."""
    loaded = scene(integrator=aov("albedo:albedo,normals:sh_normal"))
    mi.render(loaded, spp=4)
    noisy = loaded.sensors()[0].film().bitmap()
    words = {"albedo_ch": "albedo", "normals_ch": "normals", "to_sensor": to_sensor(loaded)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clean = denoise(noisy, **words)
        frame = take(noisy, None, Words(to_sensor=to_sensor(loaded)))
    assert clean.pixel_format() == mi.Bitmap.PixelFormat.RGB
    np.testing.assert_array_equal(np.array(clean), denoise(frame).numpy())


@pytest.mark.parametrize("pixel_format", ["luminance_alpha", "xyz"])
def test_gdpt_on_a_film_without_rgb(pixel_format: str) -> None:
    loaded = scene(pixel_format, {"type": "gdpt"})
    tensor = mi.render(loaded, spp=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array(denoise(tensor, "poisson-l2", layout=loaded)).shape == (H, W, 3)
    with pytest.raises(LayoutError, match=f"pixel_format is '{pixel_format[:3]}"):
        denoise(loaded.sensors()[0].film().bitmap(), "poisson-l2")


def test_a_scene_without_integrator_does_not_say() -> None:
    loaded = mi.load_dict({"type": "scene", "ball": {"type": "sphere"}})
    with pytest.raises(LayoutError, match="no integrator"):
        take(torch.rand(4, 4, 5), loaded)


def test_another_integrator() -> None:
    loaded = scene()
    with pytest.raises(LayoutError, match="got a tensor with 20 channels"):
        take(torch.rand(4, 4, 20), loaded.integrator())
