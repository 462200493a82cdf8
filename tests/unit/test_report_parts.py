"""Parts of reports that need no browser: checks, ranking, numbers, stored images, plots."""

from __future__ import annotations

import base64
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mitsuba_gdpt import denoisers
from mitsuba_gdpt.errors import (
    ConfigError,
    FormatError,
    LayoutError,
    MissingDependencyError,
    NonFiniteError,
)
from mitsuba_gdpt.report import (
    Cell,
    Curve,
    Gallery,
    GalleryItem,
    Header,
    Plot,
    Report,
    Table,
    View,
    ViewImage,
    planes,
    plots,
    ranking,
    style,
    view_link,
    write_gallery,
    write_report,
)

IMAGE = np.ones((3, 4, 3), np.float32)


def image(**changes: object) -> ViewImage:
    return ViewImage(**{"label": "a", "pixels": IMAGE, **changes})  # type: ignore[arg-type]


BROKEN = {
    "value and error": (lambda: Cell(1.0, error="x"), ConfigError, "both a value"),
    "value not finite": (lambda: Cell(float("nan")), NonFiniteError, "finite number"),
    "negative error": (lambda: Cell(1.0, -0.1), ConfigError, "-0.1"),
    "error not finite": (lambda: Cell(1.0, float("inf")), ConfigError, "inf"),
    "script": (lambda: Cell(1.0, href="javascript:alert(1)"), ConfigError, "javascript"),
    "script in a head": (lambda: Header("a", href=" javascript:x"), ConfigError, "javascript"),
    "script in a gallery": (
        lambda: GalleryItem("a", links={"x": "data:text/html,x"}),
        ConfigError,
        "data:",
    ),
    "ragged": (
        lambda: Table("t", [Header("a")], [Header("b")], [[Cell(1.0), Cell(2.0)]]),
        LayoutError,
        r"rows of \[2\] cells",
    ),
    "both ways": (
        lambda: Table("t", [Header("a", "lower")], [Header("b", "lower")], [[Cell(1.0)]]),
        ConfigError,
        "along rows and along columns",
    ),
    "lengths": (lambda: Curve("c", [1, 2], [1]), LayoutError, "2, 1, 1"),
    "zero": (lambda: Curve("c", [1, 2], [1, 0]), ConfigError, "got 0"),
    "neither": (lambda: ViewImage("a"), ConfigError, "either pixels or an error"),
    "shape": (lambda: image(pixels=IMAGE[..., :2]), LayoutError, r"\(3, 4, 2\)"),
    "nan": (lambda: image(pixels=IMAGE * np.nan), NonFiniteError, "36 of 36"),
    "flip shape": (lambda: image(flip=IMAGE[:2, :, 0]), LayoutError, r"\(2, 4\)"),
    "flip range": (lambda: image(flip=2 * IMAGE[..., 0]), ConfigError, r"\[0, 1\]"),
    "flip nan": (lambda: image(flip=np.nan * IMAGE[..., 0]), ConfigError, r"\[0, 1\]"),
    "sizes": (
        lambda: View("v", [image(), image(label="b", pixels=IMAGE[1:])]),
        LayoutError,
        "2 sizes",
    ),
    "nothing": (lambda: View("v", [image(pixels=None, error="x")]), LayoutError, "0 sizes"),
    "labels": (lambda: View("v", [image(), image()]), ConfigError, "same label"),
    "references": (
        lambda: View("v", [image(reference=True), image(label="b", reference=True)]),
        ConfigError,
        "more than one reference",
    ),
    "views": (lambda: Report("r", views=[View("v", [image()])] * 2), ConfigError, "two views"),
    "roles": (
        lambda: Report("r", views=[View("v", [image()]), View("w", [image(reference=True)])]),
        ConfigError,
        "a is a reference in some views",
    ),
    "epsilon": (lambda: Report("r", epsilon=0), ConfigError, "epsilon=0"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_makes_no_sense_is_refused(case: str) -> None:
    build, error, message = BROKEN[case]
    with pytest.raises(error, match=message):
        build()


@pytest.mark.parametrize(
    ("cells", "better", "expected"),
    [
        ([Cell(3), Cell(1), Cell(2)], "lower", ["", "best", ""]),
        ([Cell(3), Cell(1), Cell(2)], "higher", ["best", "", ""]),
        ([Cell(1), Cell(1), Cell(2)], "lower", ["best", "best", ""]),
        ([Cell(error="x"), Cell(1), Cell(text="y"), Cell(2)], "lower", ["", "best", "", ""]),
        ([Cell(1), Cell(error="x")], "lower", ["", ""]),  # nothing to compare with
        # sqrt(0.1² + 0.1²) * 1.96 = 0.277
        ([Cell(1, 0.1), Cell(1.27, 0.1), Cell(1.28, 0.1)], "lower", ["best", "tie", ""]),
        ([Cell(1, 0.1), Cell(1.2), Cell(1.2, 0.1)], "lower", ["best", "", "tie"]),
    ],
)
def test_ranking(cells: list[Cell], better: str, expected: list[str]) -> None:
    assert ranking.compare(cells, better) == expected  # type: ignore[arg-type]


def test_tables_are_ranked_along_rows_or_columns() -> None:
    cells = [[Cell(1.0), Cell(2.0)], [Cell(3.0), Cell(1.0)]]
    plain, lower = [Header("a"), Header("b")], [Header("a", "lower"), Header("b")]
    assert ranking.marks(Table("t", lower, plain, cells)) == [["best", ""], ["", ""]]
    assert ranking.marks(Table("t", plain, lower, cells)) == [["best", ""], ["", ""]]
    higher = [Header("a"), Header("b", "higher")]
    assert ranking.marks(Table("t", higher, plain, cells)) == [["", "best"], ["", ""]]
    assert ranking.marks(Table("t", plain, higher, cells)) == [["", ""], ["best", ""]]


@pytest.mark.parametrize(
    ("cells", "bold", "underlined"),
    [
        ([Cell(1, 0.1), Cell(1.1, 0.1)], True, True),
        ([Cell(1), Cell(1.1)], True, False),
        ([Cell(1), Cell(text="-")], False, False),
    ],
)
def test_a_report_explains_the_marks_that_it_has(
    cells: list[Cell], bold: bool, underlined: bool, tmp_path: Path
) -> None:
    table = Table("t", [Header("error", "lower")], [Header("a"), Header("b")], [[c] for c in cells])
    write_report(Report("r", tables=[table]), tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    key = page.partition('<p class="key">')[2].partition("</p>")[0]
    assert ("Bold" in key, "Underlined" in key) == (bold, underlined)
    assert "Click a head to sort." in key


@pytest.mark.parametrize(("points", "told"), [([(1.0, 2.0), (2.0, 1.0)], True), ([(1, 2)], False)])
def test_slopes_are_explained_where_there_are_some(
    points: list[tuple[float, float]], told: bool, tmp_path: Path
) -> None:
    plot = Plot("p", [Curve("a", *zip(*points, strict=True))], "spp", "error")
    write_report(Report("r", plots=[plot]), tmp_path / "r.html")
    assert ("is the slope" in (tmp_path / "r.html").read_text(encoding="utf-8")) == told


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (0.123456, None, "0.1235"),
        (0.5, None, "0.5000"),
        (8.0, None, "8"),
        (0.0, None, "0"),
        (0.0, 0.1, "0"),
        (-12.3456, None, "-12.35"),
        (1.5e-6, None, "1.500e-06"),
        (0.08, 0.01, "0.080"),
        (0.123456, 0.00021, "0.12346"),
        (12.3456, 4.0, "12.3"),
        (1.0, 50.0, "1.0"),
        (1234.5, 3.0, "1234.5"),
        (1.23456789, 1e-9, "1.23457"),
    ],
)
def test_numbers_have_as_many_digits_as_they_deserve(
    value: float, error: float | None, expected: str
) -> None:
    assert style.number(value, error) == expected


def unpack(data: bytes, height: int, width: int) -> np.ndarray:
    """Decode as docs/how-to/report.md says: (H, W, 3) float16."""
    stored = np.frombuffer(zlib.decompress(data), np.uint8).reshape(3, 2, height, width)
    bits = (stored[:, 0].astype(np.uint16) << 8) | stored[:, 1]
    green, red, blue = bits[0], bits[1] + bits[0], bits[2] + bits[0]
    return np.ascontiguousarray(np.stack([red, green, blue], -1)).view(np.float16)


def test_pixels_survive_bit_by_bit() -> None:
    every = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)
    finite = every[np.isfinite(every)][: 3 * 21000].reshape(100, 210, 3)
    data, saturated = planes.pack_pixels(finite)
    assert saturated == 0
    expected = finite.astype(np.float16)
    assert unpack(data, 100, 210).tobytes() == expected.tobytes()  # the sign of zero included


def test_too_large_values_saturate_and_are_counted() -> None:
    pixels = np.array([[[65504, 65505, -1e6]]], np.float32)
    data, saturated = planes.pack_pixels(pixels)
    assert saturated == 2
    assert unpack(data, 1, 1).ravel().tolist() == [65504, 65504, -65504]


def test_equal_data_are_stored_once() -> None:
    store = planes.BlobStore()
    first, second = planes.pack_map(np.zeros((2, 2))), planes.pack_map(np.ones((2, 2)))
    assert [store.add(first), store.add(second), store.add(bytes(first))] == [0, 1, 0]
    assert [base64.b64decode(text) for text in store.texts] == [first, second]
    assert zlib.decompress(second) == b"\xff" * 4


def test_a_reference_of_many_views_is_stored_once(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((64, 64, 3), np.float32)

    def size(groups: int) -> int:
        images = [image(pixels=noise), image(label="r", pixels=noise, reference=True)]
        write_report(Report("r", views=[View("v", images, str(g)) for g in range(groups)]), path)
        return path.stat().st_size

    path = tmp_path / "report.html"
    assert size(5) - size(1) < 2000


def test_slopes() -> None:
    assert plots.slope(Curve("c", [1, 10, 100], [5, 0.5, 0.05])) == pytest.approx(-1)
    assert plots.slope(Curve("c", [4, 16], [2, 1])) == pytest.approx(-0.5)
    assert plots.slope(Curve("c", [4], [2])) is None
    assert plots.slope(Curve("c", [4, 4], [2, 3])) is None


@pytest.mark.parametrize(
    ("slope", "text"), [(-0.996, "−1.00"), (0.5, "+0.50"), (-0.001, "+0.00"), (None, "")]
)
def test_slopes_are_written_with_their_sign(slope: float | None, text: str) -> None:
    assert plots.LegendEntry("a", "--method-0", "p0-0", slope).slope_text == text


def test_every_method_has_a_colour_of_its_own() -> None:
    many = [method.name for method in denoisers.methods()]
    assert len(set(style.colour_names(many).values())) == len(many)
    for paper in zip(*style.PALETTE, strict=True):
        assert len(set(paper)) == len(paper)


def test_plots_take_their_colours_from_the_page() -> None:
    methods = [f"method {i}" for i in range(12)]
    curves = [Curve(name, [8, 32], [2 + i, 1 + i], [3.0, 0.1]) for i, name in enumerate(methods)]
    colours = style.colour_names(methods)
    svg, legend = plots.draw(Plot("p", curves, "spp", "a < b"), colours, "p0")
    assert svg.startswith("<svg")
    assert "#0000" not in svg
    assert svg.count("<script") == 0
    for name in set(colours.values()):
        assert f"var({name})" in svg
    assert len(set(colours.values())) == len(methods)
    assert "a &lt; b" in svg
    assert [entry.label for entry in legend] == methods
    assert all(f'id="{entry.curve}"' in svg for entry in legend)
    ids = {part.split('"')[0] for part in svg.split(' id="')[1:]}
    assert all(name.startswith("p0-") for name in ids)
    assert len(svg) < 60_000
    assert svg == plots.draw(Plot("p", curves, "spp", "a < b"), colours, "p0")[0]


def test_methods_are_ordered_by_appearance() -> None:
    views = [View("v", [image(label="b"), image(label="r", reference=True), image(label="a")])]
    plot = Plot("p", [Curve("c", [1], [1]), Curve("a", [1], [1])], "x", "y")
    assert Report("r", views=views, plots=[plot]).methods == ["b", "a", "c"]


def test_links_to_views_are_escaped() -> None:
    assert view_link("a&b", "8 spp", "x=y") == "#view=a%26b&group=8+spp&a=x%3Dy"
    assert view_link("a") == "#view=a"


def test_torch_tensors_are_accepted(tmp_path: Path) -> None:
    import torch

    tensor = torch.ones(4, 4, 3)
    views = [View("v", [ViewImage("a", tensor, flip=torch.zeros(4, 4))])]
    write_report(Report("r", views=views), tmp_path / "r.html")
    assert (tmp_path / "r.html").exists()


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_missing_package_is_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    style._environment.cache_clear()
    report = Report("r", plots=[Plot("p", [Curve("c", [1], [1])], "x", "y")])
    with pytest.raises(MissingDependencyError, match=rf"{package}.*mitsuba-gdpt\[eval\]"):
        write_report(report, tmp_path / "r.html")
    assert list(tmp_path.iterdir()) == []


def test_broken_pictures_of_a_gallery_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    target = tmp_path / "g.html"
    for item, error in (
        (GalleryItem("first", tmp_path / "a.png"), FormatError),
        (GalleryItem("first", tmp_path / "missing.png"), FormatError),
        (GalleryItem("first", IMAGE * np.nan), NonFiniteError),
        (GalleryItem("first", IMAGE[0]), LayoutError),
    ):
        with pytest.raises(error, match="first"):
            write_gallery(Gallery("g", [item]), target)
    assert not target.exists()


def test_the_code_in_the_document_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "report.md").read_text(encoding="utf-8")
    write, read = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(write, names)
    exec(read, names)
    stored = names["noisy"].astype(np.float32).astype(np.float16)
    assert names["rgb"].tobytes() == stored.tobytes()
