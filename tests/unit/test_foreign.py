"""What ``denoise()`` takes besides renders of gdpt: the names of other programs, files, arrays."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mitsuba_gdpt import Layout, denoise, exr, naming
from mitsuba_gdpt.buffers import FrameBuffers
from mitsuba_gdpt.errors import ConfigError, FormatError, LayoutError
from mitsuba_gdpt.foreign import Words, take

H, W = 6, 8
RGB, XYZ = ("R", "G", "B"), ("X", "Y", "Z")
#: World to camera: a quarter turn about the vertical axis.
TURN = np.array([[0, 0, -1, 3], [0, 1, 0, 5], [1, 0, 0, 7], [0, 0, 0, 1]], np.float64)


def planes(**layers: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return channels with values of their own; 'root' is the layer without a name."""
    generator = np.random.default_rng(0)
    return {
        (suffix if layer == "root" else f"{layer.replace('__', ' ')}.{suffix}"): (
            generator.random((H, W), np.float32)
        )
        for layer, suffixes in layers.items()
        for suffix in suffixes
    }


def layered(prefix: str, **layers: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {f"{prefix}.{name}": plane for name, plane in planes(**layers).items()}


def stacked(channels: dict[str, np.ndarray], *names: str) -> torch.Tensor:
    return torch.from_numpy(np.stack([channels[name] for name in names], axis=-1))


AOV = planes(root=RGB, img=(*RGB, "A"), albedo=RGB, sh_normal=XYZ, dd=("T",))
BLENDER = layered(
    "ViewLayer",
    Combined=(*RGB, "A"),
    Noisy__Image=(*RGB, "A"),
    Denoising__Albedo=RGB,
    Denoising__Normal=XYZ,
    Denoising__Depth=("Z",),
    Normal=XYZ,
    Depth=("Z",),
)
PBRT = planes(root=RGB, Albedo=RGB, P=XYZ, N=XYZ, Ns=XYZ, Variance=RGB)
VIEW_LAYERS = planes(
    **{
        "Back.Combined": (*RGB, "A"),
        "Back.Depth": ("Z",),
        "Hero.Combined": (*RGB, "A"),
        "Hero.Denoising Albedo": RGB,
        "Hero.Denoising Depth": ("Z",),
    }
)
SEVEN = planes(root=RGB, depth=("Z",), normal=RGB)
OLD_PBRT = (*RGB, *(f"Albedo.{c}" for c in RGB), "Nx", "Ny", "Nz", "Nsx", "Nsy", "Nsz")
MIRROR = torch.tensor([-1.0, 1.0, 1.0])

#: File, words, the buffers that are found: name to channels (and a factor), warnings.
FILES: dict[str, tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Any], tuple[str, ...]]] = {
    "image": (planes(root=RGB), {}, {"primal": RGB}, ()),
    "image with alpha": (planes(root=(*RGB, "A")), {}, {"primal": RGB}, ()),
    "aov of Mitsuba": (
        AOV,
        {},
        {"primal": RGB, "albedo": ("albedo.R", "albedo.G", "albedo.B"), "depth": ("dd.T",)},
        ("'sh_normal' are in world space and are left out; pass to_sensor",),
    ),
    "aov, normals called normal": (
        planes(root=RGB, normal=XYZ),
        {},
        {"primal": RGB},
        ("'normal' may be in world space",),
    ),
    "aov, normals called nn": (
        planes(root=RGB, nn=XYZ),
        {},
        {"primal": RGB},
        ("'nn' may be in world space",),
    ),
    "aov, normals in the camera's frame": (
        planes(root=RGB, nn=XYZ),
        {"normals_space": "camera"},
        {"primal": RGB, "normal": ("nn.X", "nn.Y", "nn.Z")},
        (),
    ),
    "words of OptixDenoiser": (
        planes(root=RGB, a=RGB, b=XYZ, f=("X", "Y")),
        {"albedo_ch": "a", "normals_ch": "b"},
        {"primal": RGB, "albedo": ("a.R", "a.G", "a.B"), "normal": ("b.X", "b.Y", "b.Z")},
        (),
    ),
    "flow of OptixDenoiser": (
        planes(root=RGB, f=("X", "Y")),
        {"flow_ch": "f"},
        {"primal": RGB, "motion": ("f.X", "f.Y", -1)},
        (),
    ),
    "another noisy layer": (
        planes(root=RGB, other=RGB),
        {"noisy_ch": "other"},
        {"primal": ("other.R", "other.G", "other.B")},
        (),
    ),
    "Blender": (
        BLENDER,
        {},
        {
            "primal": tuple(f"ViewLayer.Noisy Image.{c}" for c in RGB),
            "albedo": tuple(f"ViewLayer.Denoising Albedo.{c}" for c in RGB),
            "normal": (*(f"ViewLayer.Denoising Normal.{c}" for c in XYZ), MIRROR),
            "depth": ("ViewLayer.Denoising Depth.Z",),
        },
        (),
    ),
    "Blender without denoising data": (
        layered("View Layer", Combined=(*RGB, "A"), Normal=XYZ, Depth=("Z",)),
        {},
        {
            "primal": tuple(f"View Layer.Combined.{c}" for c in RGB),
            "depth": ("View Layer.Depth.Z",),
        },
        ("'View Layer.Normal' are in world space",),
    ),
    "pbrt": (
        PBRT,
        {},
        {
            "primal": RGB,
            "albedo": ("Albedo.R", "Albedo.G", "Albedo.B"),
            "normal": ("Ns.X", "Ns.Y", "Ns.Z", MIRROR),
        },
        ("'Ns' are taken for those of pbrt's camera frame",),
    ),
    "pbrt of 2020": (
        dict(zip(OLD_PBRT, planes(a=RGB, b=RGB, c=RGB, d=RGB).values(), strict=True)),
        {},
        {
            "primal": RGB,
            "albedo": ("Albedo.R", "Albedo.G", "Albedo.B"),
            "normal": ("Nsx", "Nsy", "Nsz", MIRROR),
        },
        ("'Ns' are taken for those of pbrt's camera frame",),
    ),
    "seven channels": (
        SEVEN,
        {"normals_space": "camera"},
        {
            "primal": RGB,
            "depth": ("depth.Z",),
            "normal": ("normal.R", "normal.G", "normal.B"),
        },
        (),
    ),
    "NGPT in layers": (
        planes(primal=RGB, dx=RGB, dy=RGB, albedo=RGB),
        {},
        {name: tuple(f"{name}.{c}" for c in RGB) for name in ("primal", "dx", "dy", "albedo")},
        (),
    ),
    "OIDN in layers": (
        planes(color=RGB, albedo=RGB, nrm=XYZ),
        {},
        {
            "primal": ("color.R", "color.G", "color.B"),
            "albedo": ("albedo.R", "albedo.G", "albedo.B"),
        },
        ("'nrm' may be in world space",),
    ),
    "small letters": (
        {name.lower(): plane for name, plane in planes(root=RGB, albedo=RGB).items()},
        {},
        {"primal": ("r", "g", "b"), "albedo": ("albedo.r", "albedo.g", "albedo.b")},
        (),
    ),
    "Blender, two view layers": (
        VIEW_LAYERS,
        {},
        {
            "primal": tuple(f"Hero.Combined.{c}" for c in RGB),
            "albedo": tuple(f"Hero.Denoising Albedo.{c}" for c in RGB),
            "depth": ("Hero.Denoising Depth.Z",),
        },
        ("of the view layers 'Hero', 'Back' the first is denoised; noisy_ch='Back.Combined'",),
    ),
    "Blender, the other view layer": (
        VIEW_LAYERS,
        {"noisy_ch": "Back.Combined"},
        {"primal": tuple(f"Back.Combined.{c}" for c in RGB), "depth": ("Back.Depth.Z",)},
        (),
    ),
    "Blender, composite beside the view layer": (
        planes(
            **{
                "Composite.Combined": (*RGB, "A"),
                "ViewLayer.Noisy Image": (*RGB, "A"),
                "ViewLayer.Denoising Albedo": RGB,
            }
        ),
        {},
        {
            "primal": tuple(f"ViewLayer.Noisy Image.{c}" for c in RGB),
            "albedo": tuple(f"ViewLayer.Denoising Albedo.{c}" for c in RGB),
        },
        ("of the view layers 'ViewLayer', 'Composite' the first is denoised",),
    ),
    "names of OIDN's split_exr": (
        planes(root=RGB, VisibleDiffuse=("red", "green", "blue"), OptixNormals=RGB),
        {},
        {
            "primal": RGB,
            "albedo": tuple(f"VisibleDiffuse.{c}" for c in ("red", "green", "blue")),
        },
        ("'OptixNormals' may be in world space",),
    ),
    "pbrt, one layer of another name": (
        planes(**{"A1-L": RGB}),
        {},
        {"primal": tuple(f"A1-L.{c}" for c in RGB)},
        ("the image is taken from the layer 'A1-L'",),
    ),
    "one of two layers of luminance": (
        planes(connect=("Y",), merge=("Y",)),
        {"noisy_ch": "merge"},
        {"primal": ("merge.Y",) * 3},
        (),
    ),
    "depth alone": (planes(root=(*RGB, "Z")), {}, {"primal": RGB, "depth": ("Z",)}, ()),
}


def check(frame: FrameBuffers, channels: dict[str, np.ndarray], expected: dict[str, Any]) -> None:
    assert set(frame.names) == set(expected)
    for name, wanted in expected.items():
        names = [word for word in wanted if isinstance(word, str)]
        image = stacked(channels, *names)
        for factor in wanted[len(names) :]:
            image = image * factor
        assert torch.equal(frame[name], image), name


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("kind", ["file", "names"])
def test_names_of_other_programs(tmp_path: Path, case: str, kind: str) -> None:
    channels, words, expected, said = FILES[case]
    source: Any = tmp_path / "a.exr"
    layout = None
    if kind == "file":
        exr.write(source, channels)
    else:
        source, layout = np.stack([*channels.values()], axis=-1), list(channels)
        if not set(layout) - {"A", *(c for b in Layout.make().buffers for c in b.channels)}:
            pytest.skip("names of ours mean ours")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame = take(source, layout, Words(**words))
    check(frame, channels, expected)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == len(said), messages
    for message, part in zip(messages, said, strict=True):
        assert part in message


@pytest.mark.parametrize("case", ["aov of Mitsuba", "aov, normals called nn"])
def test_world_space_is_turned(tmp_path: Path, case: str) -> None:
    channels, _, expected, _ = FILES[case]
    exr.write(tmp_path / "a.exr", channels)
    layer = "sh_normal" if "Mitsuba" in case else "nn"
    frame = take(tmp_path / "a.exr", None, Words(to_sensor=TURN))
    world = stacked(channels, *(f"{layer}.{c}" for c in XYZ))
    assert set(frame.names) == {*expected, "normal"}
    torch.testing.assert_close(frame.normal, world @ torch.tensor(TURN[:3, :3].T).float())


def test_depth_and_albedo_mean_what_ours_mean(tmp_path: Path) -> None:
    channels = planes(root=RGB, albedo=RGB, dd=("T",))
    channels["albedo.G"][0, 0] = 290
    channels["dd.T"][0, :3] = [np.inf, 1e10, 12]
    exr.write(tmp_path / "a.exr", channels)
    frame = take(tmp_path / "a.exr")
    assert frame.albedo[0, 0, 1] == 1
    assert frame.depth[0, :3, 0].tolist() == [0, 0, 12]
    channels["dd.T"] = -channels["dd.T"]
    exr.write(tmp_path / "a.exr", channels)
    with pytest.warns(UserWarning, match="the depth is negative"):
        turned = take(tmp_path / "a.exr")
    assert torch.equal(turned.depth, frame.depth)


def test_what_gdpt_wrote_is_taken_as_it_is(tmp_path: Path) -> None:
    layout = Layout.make(features=("position",), variances=True)
    frame = FrameBuffers(torch.rand(H, W, layout.count), layout)
    frame.to_exr(tmp_path / "a.exr")
    frame.select(("primal", "normal")).to_exr(tmp_path / "b.exr", metadata={"spp": 4})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(take(tmp_path / "a.exr").data, frame.data)
        assert torch.equal(take(tmp_path / "b.exr").normal, frame.normal)
    assert take(frame) is frame
    assert take(frame.data, layout).data.data_ptr() == frame.data.data_ptr()
    with pytest.warns(UserWarning, match="to_sensor is left out"):
        take(frame, None, Words(to_sensor=TURN))


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_plain_images(count: int, kind: Any) -> None:
    array = np.random.default_rng(0).random((H, W, count)).astype(np.float32)
    image = denoise(kind(array), "none")
    assert type(image) is type(kind(array))
    assert np.array_equal(np.asarray(image), array[..., :3])


def test_images_beside_the_render() -> None:
    arrays = {
        name: np.random.default_rng(i).random((H, W, n)).astype(np.float32)
        for i, (name, n) in enumerate((("image", 3), ("albedo", 3), ("normals", 3), ("flow", 2)))
    }
    image = arrays.pop("image")
    frame = take(image, None, Words(**arrays))
    assert frame.names == ("primal", "albedo", "normal", "motion")
    assert np.array_equal(frame.normal, arrays["normals"])
    assert np.array_equal(frame.motion, -arrays["flow"])
    turned = take(image, None, Words(normals=arrays["normals"], to_sensor=TURN)).normal
    tiny = TURN * np.array([1e-5, 1e-5, 1e-5, 1])[:, None]  # a camera of a scene in small units
    same = take(image, None, Words(normals=arrays["normals"], to_sensor=tiny)).normal
    torch.testing.assert_close(same, turned)
    torch.testing.assert_close(turned, frame.normal @ torch.tensor(TURN[:3, :3].T).float())
    # In the place of the render's own.
    assert np.array_equal(take(frame, None, Words(albedo=image)).albedo, image)


@pytest.mark.parametrize(
    ("names", "left_out"),
    [
        (RGB, "albedo and normal"),
        ((*RGB, "albedo.R", "albedo.G", "albedo.B"), "normal"),
        ((*RGB, "normal.X", "normal.Y", "normal.Z"), "albedo and normal"),
    ],
)
def test_oidn_does_without_what_is_missing(names: tuple[str, ...], left_out: str) -> None:
    pytest.importorskip("mitsuba_oidn")
    image = torch.rand(16, 16, len(names))
    with pytest.warns(UserWarning, match=f"oidn does without {left_out}, which"):
        result = denoise(image, "oidn", layout=list(names))
    if "albedo" in left_out:
        expected = denoise(image, "oidn", layout=list(names), aux="none")
        assert torch.equal(result, expected)


@pytest.mark.parametrize(
    "names",
    [
        RGB,
        (*RGB, "albedo.R", "albedo.G", "albedo.B"),
        (*RGB, "dx.R", "dx.G", "dx.B", "dy.R", "dy.G", "dy.B"),
    ],
)
def test_the_default_runs_on_whatever_is_there(names: tuple[str, ...]) -> None:
    image = np.random.default_rng(0).random((16, 16, len(names)), np.float32)
    assert denoise(image, layout=list(names)).shape == (16, 16, 3)


def test_a_path_is_read(tmp_path: Path) -> None:
    exr.write_image(tmp_path / "a.exr", np.full((H, W, 3), 0.5))
    for path in (tmp_path / "a.exr", str(tmp_path / "a.exr")):
        assert torch.equal(denoise(path, "none"), torch.full((H, W, 3), 0.5))
    with pytest.raises(FormatError, match=r"b\.exr: no such file"):
        denoise(tmp_path / "b.exr")


@pytest.mark.parametrize("word", ["previous_denoised", "previous_denoised_ch"])
def test_previous_denoised_is_said_to_be_left_out(word: str) -> None:
    channels = planes(root=RGB, before=RGB)
    image = np.stack([*channels.values()], axis=-1)
    words: dict[str, Any] = {word: "before" if word.endswith("_ch") else image[..., 3:]}
    with pytest.warns(UserWarning, match="left out: none does not read it, 'optix-temporal' does"):
        denoise(image, "none", layout=list(channels), **words)
    words = {word: "after" if word.endswith("_ch") else image}
    with pytest.raises(LayoutError, match=rf"{word} .*(no such layer|expected \(6, 8, 3\))"):
        denoise(image, "none", layout=list(channels), **words)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"normals_space": "left"}, ConfigError, "normals_space is 'left'"),
        ({"normals_space": "world"}, ConfigError, "pass to_sensor"),
        ({"albedo": "albedo"}, ConfigError, "pass albedo_ch"),
        ({"albedo_ch": "alb"}, LayoutError, "albedo_ch is 'alb', but there is no such layer"),
        ({"albedo": torch.rand(2, 2, 3)}, LayoutError, r"shape \(2, 2, 3\); expected \(6, 8, 3\)"),
        ({"normals": torch.rand(H, W, 3), "to_sensor": np.eye(3)}, ConfigError, "to_sensor has"),
        ({"normals": torch.rand(H, W, 3), "to_sensor": np.zeros((4, 4))}, ConfigError, "inverted"),
    ],
)
def test_words_that_do_not_fit(words: dict[str, Any], error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        take(torch.rand(H, W, 3), None, Words(**words))


def test_layers_of_our_own_that_are_named() -> None:
    layout = Layout.make(["diffuse", "position"], True)
    frame = FrameBuffers(torch.rand(H, W, layout.count), layout)
    with pytest.warns(UserWarning, match="dx, dy, .*left out: they belong to another .*'diffuse'"):
        taken = take(frame, None, Words(noisy_ch="diffuse", albedo_ch="normal"))
    assert torch.equal(taken.primal, frame["diffuse"])
    assert torch.equal(taken.albedo, frame.normal)
    assert "position" in taken
    assert not {"dx", "primal.var", "diffuse"} & {*taken.names}
    for word in ("noisy_ch", "albedo_ch", "normals_ch", "flow_ch"):
        with pytest.raises(LayoutError, match=f"{word} is 'foo', but there is no such layer"):
            take(frame, None, Words(**{word: "foo"}))


def test_nothing_to_denoise() -> None:
    channels = planes(a=RGB, normals=XYZ)
    with pytest.raises(LayoutError, match=r"no channels of an image.*a\.\(R, G, B\).*noisy_ch"):
        take(np.stack([*channels.values()], axis=-1), list(channels))
    with pytest.raises(LayoutError, match="6 channel names"):
        take(torch.rand(H, W, 3), list(channels))


def test_the_table_names_buffers_of_ours() -> None:
    known = {buffer.name for buffer in Layout.make().buffers}
    for alias in naming.ALIASES:
        assert alias.buffer in known
        assert alias.layer == naming.plain(alias.layer)
        assert (alias.frame is not None) == (alias.buffer == "normal")


NGPT = {"primal": RGB, "dx": RGB, "dy": RGB, "albedo": RGB, "normal": RGB, "depth": RGB}


def write_ngpt(folder: Path, skipped: str = "") -> dict[str, np.ndarray]:
    """Write the files of NGPT's renderer, half floats each; return them as layers."""
    images = {name: np.random.default_rng(i).random((H, W, 3)) for i, name in enumerate(NGPT)}
    for name, image in images.items():
        images[name] = image.astype(np.float16).astype(np.float32)
        if name != skipped:
            exr.write_image(folder / f"scene-{name}.exr", image, half=True)
    return images


@pytest.mark.parametrize("skipped", ["", "depth", "normal", "albedo"])
def test_files_of_ngpt_are_one_input(tmp_path: Path, skipped: str) -> None:
    images = write_ngpt(tmp_path, skipped)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frame = take(tmp_path / "scene-primal.exr")
    assert set(frame.names) == set(NGPT) - {skipped}
    for name in frame.names:
        assert np.array_equal(frame[name], images[name][..., : frame[name].shape[-1]]), name


def test_files_of_ngpt_that_do_not_fit(tmp_path: Path) -> None:
    write_ngpt(tmp_path, "dy")
    assert take(tmp_path / "scene-primal.exr").names == ("primal",)  # an image alone
    assert take(tmp_path / "scene-dx.exr").names == ("primal",)
    write_ngpt(tmp_path)
    exr.write_image(tmp_path / "scene-direct.exr", np.zeros((H, W, 3)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        take(tmp_path / "scene-primal.exr")
    exr.write_image(tmp_path / "scene-direct.exr", np.ones((H, W, 3)))
    with pytest.warns(UserWarning, match=r"scene-direct\.exr is light .* add it to the result"):
        take(tmp_path / "scene-primal.exr")
    exr.write_image(tmp_path / "scene-dx.exr", np.zeros((2, 3, 3)))
    with pytest.raises(FormatError, match=r"scene-dx\.exr: 3 x 2 pixels; expected 8 x 6, as in"):
        take(tmp_path / "scene-primal.exr")


def test_a_torn_layer_is_said_to_be_left_out(tmp_path: Path) -> None:
    exr.write(tmp_path / "a.exr", planes(root=RGB, albedo=("R", "G")))
    with pytest.warns(UserWarning, match="the layer 'albedo' lacks channels and is left out"):
        assert take(tmp_path / "a.exr").names == ("primal",)


def test_normals_that_are_coded_as_colours(tmp_path: Path) -> None:
    """As programs that know colours only store them; black and grey pixels have no normal."""
    draw = np.random.default_rng(0)
    normals = draw.standard_normal((6, 8, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    image, coded = draw.random((6, 8, 3), np.float32), normals / 2 + 0.5
    coded[0, 0], coded[0, 1], normals[0, :2] = 0, 0.5, 0
    with pytest.warns(UserWarning, match="coded as colours"):
        frame = take(image, None, Words(normals=coded))
    np.testing.assert_allclose(frame.normal, normals, atol=1e-6)
    planes = {name: image[..., i] for i, name in enumerate("RGB")}
    planes |= {f"N.{name}": coded[..., i] for i, name in enumerate("XYZ")}
    exr.write(tmp_path / "a.exr", planes)
    with pytest.warns(UserWarning, match="coded as colours"):
        frame = take(tmp_path / "a.exr", None, Words(normals_space="camera"))
    np.testing.assert_allclose(frame.normal, normals, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kept in (normals, np.abs(normals), draw.random((6, 8, 3), np.float32)):
            np.testing.assert_array_equal(take(image, None, Words(normals=kept)).normal, kept)
