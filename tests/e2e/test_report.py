"""Reports and galleries in a real browser."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from mitsuba_gdpt import exr
from mitsuba_gdpt.report import (
    Cell,
    Curve,
    Failure,
    Gallery,
    GalleryItem,
    Header,
    Plot,
    Report,
    Table,
    View,
    ViewImage,
    view_link,
    write_gallery,
    write_report,
)
from tests.e2e.browser import SHIFT, Browser
from tests.e2e.viewer import (
    DRAWN,
    EPSILON,
    SETTLED,
    H,
    W,
    as_shown,
    colour_at,
    picture,
    point,
    position,
    press,
    read_out,
    scale_of,
    show,
    shown_colour,
    tags,
    text,
)

HOSTILE = "</script><script>window.hacked = 1</script><b>&amp;\"'"


REFERENCE = picture(0)
METHODS = {"none": picture(1), "poisson-l1": picture(2)}
BRIGHT = picture(3)
BRIGHT[5, 7] = (1e6, -1e6, 0.5)


def error_of(image: np.ndarray) -> np.ndarray:
    """Relative error of every pixel, after both images went through float16."""
    x, r = (a.astype(np.float16).astype(np.float64) for a in (image, REFERENCE))
    return np.asarray(((x - r) ** 2).mean(-1) / (r.mean(-1) ** 2 + EPSILON))


def views() -> list[View]:
    flip = np.linspace(0, 1, H * W, dtype=np.float32).reshape(H, W)
    result = []
    for title, exposure in (("hall", 0.0), ("garden", 1.0)):
        for group, scale in (("8 spp", 1.0), ("32 spp", 0.5)):
            images = [
                ViewImage(label, scale * pixels, flip=flip, metrics={"relMSE": 0.25, "A": 2})
                for label, pixels in METHODS.items()
            ]
            images += [
                ViewImage("ngpt", error="WeightsError: none"),
                ViewImage("bright", BRIGHT),
                ViewImage("reference", REFERENCE, reference=True),
            ]
            result.append(View(title, images, group, exposure))
    return result


TABLE = Table(
    "Errors",
    [Header("relMSE", better="lower"), Header("PSNR", better="higher"), Header("remark")],
    [Header("ngpt"), Header("none"), Header("poisson-l1"), Header("bright")],
    [
        [Cell(error="WeightsError: none"), Cell(error="WeightsError: none"), Cell(text="a")],
        [Cell(0.9, 0.02), Cell(20.5), Cell(text="noisy")],
        [Cell(0.1, 0.01, href=view_link("garden", "32 spp", "poisson-l1")), Cell(31.0), Cell()],
        [Cell(0.11, 0.01), Cell(9.5), Cell(text="z")],
    ],
)
REPORT = Report(
    "Comparison",
    "of synthetic images",
    provenance={"command": "pytest"},
    tables=[TABLE],
    plots=[
        Plot(
            "Convergence",
            [Curve("none", [8, 32], [0.4, 0.1], [0.1, 0.2]), Curve("poisson-l1", [8, 32], [2, 1])],
            "samples per pixel",
            "relMSE",
        )
    ],
    views=views(),
    failures=[Failure("ngpt", "WeightsError: none")],
    notes=["A note."],
    epsilon=EPSILON,
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(REPORT, path)
    return path


@pytest.fixture
def viewer(chromium: Browser, page: Path) -> Iterator[Browser]:
    """The report, just opened; what the page complains about fails the test."""
    chromium.resize(1280, 900)
    show(chromium, page)
    yield chromium
    assert chromium.errors == []


def test_opens_from_a_file_without_network(viewer: Browser, page: Path) -> None:
    assert [url for url in viewer.requests if not url.startswith("data:")] == [page.as_uri()]
    assert text(viewer, "h1") == "Comparison"
    assert tags(viewer) == ["none"]
    assert shown_colour(viewer, 10, 10) == as_shown(METHODS["none"], 10, 10)
    assert viewer.evaluate("location.hash") == ""


def test_keys_choose_methods_that_can_be_shown(viewer: Browser) -> None:
    press(viewer, "2")
    assert tags(viewer) == ["poisson-l1"]
    assert shown_colour(viewer, 30, 20) == as_shown(METHODS["poisson-l1"], 30, 20)
    press(viewer, "3")  # failed
    assert tags(viewer) == ["poisson-l1"]
    assert "failed" in text(viewer, "#methods li:nth-child(3)")
    press(viewer, "4")
    assert tags(viewer) == ["bright"]
    press(viewer, "0")
    assert tags(viewer) == ["reference"]
    viewer.key("1", "Digit1", SHIFT)
    viewer.wait(DRAWN)
    assert tags(viewer) == ["reference", "none"]


def test_arrows_change_scene_and_version_only_while_the_viewer_is_used(viewer: Browser) -> None:
    press(viewer, "ArrowRight")
    assert text(viewer, "#groups [aria-pressed=true]") == "8 spp"
    viewer.evaluate("document.getElementById('stage').focus()")
    press(viewer, "ArrowRight", "ArrowDown")
    assert text(viewer, "#groups [aria-pressed=true]") == "32 spp"
    assert viewer.evaluate("document.getElementById('scene').value") == "garden"
    # The scene's own exposure counts.
    assert shown_colour(viewer, 30, 20) == as_shown(0.5 * METHODS["none"], 30, 20, 1)


def test_keys_go_on_working_after_clicks(viewer: Browser) -> None:
    viewer.click("#groups button:nth-child(2)")
    press(viewer, "ArrowRight", "ArrowRight", "ArrowDown")
    assert text(viewer, "#groups [aria-pressed=true]") == "32 spp"
    assert viewer.evaluate("document.getElementById('scene').value") == "garden"
    viewer.click("#exposure")
    press(viewer, "2", "ArrowDown")  # the slider keeps the arrows
    assert tags(viewer) == ["poisson-l1"]
    assert viewer.evaluate("document.getElementById('scene').value") == "garden"
    viewer.click("#methods li:nth-child(4) button")
    press(viewer, "ArrowUp")
    assert tags(viewer) == ["bright"]
    assert viewer.evaluate("document.getElementById('scene').value") == "hall"


def test_read_out_equals_the_half_float_file(viewer: Browser, tmp_path: Path) -> None:
    exr.write_image(tmp_path / "none.exr", METHODS["none"], half=True)
    stored = exr.read(tmp_path / "none.exr").channels
    for x, y in ((0, 0), (20, 10), (W - 1, H - 1), (31, 17), (5, 40)):
        values = point(viewer, x, y)["none"][:3]
        assert text(viewer, "#pixel") == f"x {x}, y {y}"
        for channel, value in zip("RGB", values, strict=True):
            assert np.float16(value) == stored[channel][y, x], (x, y, channel, value)


def test_values_beyond_float16_are_marked(viewer: Browser) -> None:
    press(viewer, "4")
    assert point(viewer, 7, 5)["bright"][:3] == ["≥65504", "≤-65504", "0.5"]
    press(viewer, "1")  # this image reaches the largest float16 without going beyond
    assert point(viewer, W - 1, H - 1)["none"][0] == "65504"


def test_exposure_and_tone_change_what_is_displayed(viewer: Browser) -> None:
    press(viewer, "e", "e")
    assert text(viewer, "#exposure-value") == "+1.0"
    assert shown_colour(viewer, 30, 20) == as_shown(METHODS["none"], 30, 20, 1)
    press(viewer, "E", "E", "E", "E")
    assert text(viewer, "#exposure-value") == "−1.0"
    assert shown_colour(viewer, 30, 20) == as_shown(METHODS["none"], 30, 20, -1)
    press(viewer, "r", "t")
    curve = METHODS["none"] / (1 + np.maximum(METHODS["none"], 0))
    assert np.allclose(shown_colour(viewer, 30, 20), as_shown(curve, 30, 20), atol=1)


def test_split_shows_two_methods_and_can_be_moved(viewer: Browser) -> None:
    press(viewer, "s")
    assert tags(viewer) == ["none", "reference"]
    assert shown_colour(viewer, 20, 24) == as_shown(METHODS["none"], 20, 24)
    assert shown_colour(viewer, 44, 24) == as_shown(REFERENCE, 44, 24)
    handle = viewer.box(".divider")
    middle = (handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2)
    viewer.drag(middle, (position(viewer, 54, 0)[0], middle[1]))
    viewer.wait(DRAWN)
    assert shown_colour(viewer, 44, 24) == as_shown(METHODS["none"], 44, 24)
    assert shown_colour(viewer, 60, 24) == as_shown(REFERENCE, 60, 24)
    before = int(viewer.evaluate("document.querySelector('.divider').ariaValueNow"))
    press(viewer, "ArrowLeft")  # it has the focus
    assert int(viewer.evaluate("document.querySelector('.divider').ariaValueNow")) == before - 2


def test_side_by_side_reads_the_same_pixel_on_both_sides(viewer: Browser) -> None:
    press(viewer, "d")
    box = viewer.box("#stage")
    left = (box["x"] + 0.25 * box["width"] + 3, box["y"] + box["height"] / 2 + 3)
    right = (left[0] + box["width"] / 2, left[1])
    assert colour_at(viewer, *left) == as_shown(METHODS["none"], 32, 24)
    assert colour_at(viewer, *right) == as_shown(REFERENCE, 32, 24)
    for at in (left, right):
        viewer.mouse("mouseMoved", *at)
        assert text(viewer, "#pixel") == "x 32, y 24"
        assert list(read_out(viewer)) == ["none", "reference"]


def test_wheel_zooms_to_the_cursor_without_interpolation(viewer: Browser) -> None:
    x, y = 20, 10  # the firefly
    before, at = scale_of(viewer), position(viewer, x + 0.5, y + 0.5)
    viewer.evaluate(SETTLED)  # the page has scrolled to the stage
    viewer.mouse("mouseMoved", *at)
    for _ in range(4):
        viewer.mouse("mouseWheel", *at, deltaX=0, deltaY=-120)
    viewer.evaluate(SETTLED)
    viewer.wait(DRAWN)
    scale = scale_of(viewer)
    assert scale > 2 * before
    viewer.mouse("mouseMoved", at[0] + 1, at[1])
    assert text(viewer, "#pixel") == f"x {x}, y {y}"
    reach = 0.3 * scale
    around = [
        colour_at(viewer, at[0] + dx, at[1] + dy) for dx in (-reach, reach) for dy in (-reach, 0)
    ]
    if scale < 52:  # larger pixels carry their values
        assert all(colour == as_shown(METHODS["none"], x, y) for colour in around)
    press(viewer, "0", "ArrowRight")  # other images, same place
    viewer.mouse("mouseMoved", *at)
    assert text(viewer, "#pixel") == f"x {x}, y {y}"
    press(viewer, "Home")
    assert scale_of(viewer) == before


def test_dragging_pans(viewer: Browser) -> None:
    press(viewer, "+", "+")
    scale, box = scale_of(viewer), viewer.box("#stage")
    centre = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    viewer.mouse("mouseMoved", *centre)
    x, y = map(int, re.findall(r"\d+", text(viewer, "#pixel")))
    viewer.drag(centre, (centre[0] + 4 * scale, centre[1] - 3 * scale))
    viewer.mouse("mouseMoved", *centre)
    assert text(viewer, "#pixel") == f"x {x - 4}, y {y + 3}"


def test_large_pixels_carry_their_values(viewer: Browser) -> None:
    press(viewer, "+", "+")
    assert scale_of(viewer) < 52
    box = viewer.box("#stage")
    area = (
        "(() => { const c = document.querySelector('#stage canvas');"
        "const d = new Uint32Array(c.getContext('2d').getImageData(0, 0, c.width, c.height).data"
        ".buffer); return new Set(d).size; })()"
    )
    plain = viewer.evaluate(area)
    press(viewer, "+", "+", "+")
    assert scale_of(viewer) > 52
    assert viewer.evaluate(area) > max(plain, 400), box  # anti-aliased letters have many colours


def test_error_map_is_the_relative_error(viewer: Browser) -> None:
    press(viewer, "m")
    errors = error_of(METHODS["none"])
    for x, y in ((20, 10), (31, 17), (40, 30)):
        shown = float(point(viewer, x, y)["none"][3])
        assert shown == pytest.approx(
            errors[y, x], rel=6e-2 if errors[y, x] < 1e-2 or errors[y, x] > 1e3 else 6e-3
        )
    y, x = (int(i) for i in np.unravel_index(errors.argmax(), errors.shape))
    assert errors[y, x] > 10  # beyond the scale, so it has the colour of its end
    assert shown_colour(viewer, x, y) == [0xFD, 0xE7, 0x25]
    for index in np.argsort(errors, axis=None)[::200]:  # from the smallest error to the largest
        y, x = divmod(int(index), W)
        level = (np.log10(max(errors[y, x], 1e-9)) + 4) / 5
        expected = 255 * np.array(colormaps["viridis"](float(np.clip(level, 0, 1)))[:3])
        assert np.allclose(shown_colour(viewer, x, y), expected, atol=5)
    assert "grey(r)² + 0.01" in text(viewer, ".colourbar .name")
    press(viewer, "0")  # the reference has no error: it shows itself
    assert shown_colour(viewer, 20, 20) == as_shown(REFERENCE, 20, 20)


def test_flip_map(viewer: Browser) -> None:
    press(viewer, "m", "m")
    assert text(viewer, ".colourbar .name") == "FLIP"
    assert shown_colour(viewer, 0, 0) == [0, 0, 4]
    assert shown_colour(viewer, W - 1, H - 1) == [0xFC, 0xFD, 0xBF]
    expected = (24 * W + 30) / (H * W - 1)
    assert float(point(viewer, 30, 24)["none"][3]) == pytest.approx(expected, abs=0.003)
    press(viewer, "m")
    assert shown_colour(viewer, 30, 24) == as_shown(METHODS["none"], 30, 24)


def test_insets_show_all_methods(viewer: Browser) -> None:
    viewer.drag(position(viewer, 12.4, 8.4), position(viewer, 24.6, 16.6), SHIFT)
    viewer.wait("document.querySelectorAll('#insets figure').length === 4")
    assert "x 12, y 8, 13 × 9" in text(viewer, "#insets .number")
    captions = viewer.evaluate(
        "[...document.querySelectorAll('#insets figcaption')].map(c => c.textContent)"
    )
    for caption, (label, image) in zip(captions, METHODS.items(), strict=False):
        assert caption.startswith(label)
        expected = error_of(image)[8:17, 12:25].mean()
        assert float(caption.removeprefix(label)) == pytest.approx(expected, rel=6e-3)
    assert captions[3] == "reference"
    crop = viewer.evaluate(
        "(() => { const c = document.querySelector('#insets canvas');"
        "return [c.width, c.height, ...c.getContext('2d').getImageData(3, 2, 1, 1).data]; })()"
    )
    assert crop[:5] == [13, 9, *as_shown(METHODS["none"], 15, 10)]
    press(viewer, "c")
    viewer.wait("document.querySelectorAll('#insets section').length === 2")
    viewer.click("#insets button[aria-label='Remove inset 1']")
    viewer.wait("document.querySelectorAll('#insets section').length === 1")


def test_a_link_restores_everything(viewer: Browser, page: Path) -> None:
    viewer.evaluate("document.getElementById('stage').focus()")
    press(viewer, "ArrowDown", "ArrowRight", "2", "s", "e", "t", "m", "+", "+", "c")
    viewer.key("4", "Digit4", SHIFT)
    viewer.drag(position(viewer, 24, 20), position(viewer, 30, 24))  # not the divider
    summary = (
        "[document.getElementById('scene').value,"
        "...['#groups [aria-pressed=true]', '.tag-a', '.tag-b', '#zoom', '#exposure-value',"
        "'#map [aria-pressed=true]', '#layout [aria-pressed=true]', '#tone [aria-pressed=true]',"
        "'#insets .number'].map(s => document.querySelector(s).textContent),"
        "document.querySelector('#stage canvas').toDataURL()]"
    )
    handle = viewer.box(".divider")
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    viewer.drag((x, y), (x + 80, y))
    viewer.evaluate(SETTLED)
    viewer.wait(DRAWN)
    before, fragment = viewer.evaluate(summary), viewer.evaluate("location.hash")
    assert before[:4] == ["garden", "32 spp", "poisson-l1", "bright"]
    show(viewer, page, fragment)
    viewer.evaluate(SETTLED)
    viewer.wait(DRAWN)
    after = viewer.evaluate(summary)
    assert after[:-1] == before[:-1]
    assert after[-1] == before[-1], "the picture differs"


@pytest.mark.parametrize(
    "fragment",
    [
        "#view=nowhere&a=none",
        "#view=hall&group=none&a=missing&b=ngpt&layout=upside&map=x&tone=y&zoom=z&at=1&stops=nan",
        "#view=hall&zoom=-5&at=1e9,-1e9&split=7&stops=99&insets=1,2;a,b,c,d;60,40,90,90;-1,0,5,5",
        "#tables",
    ],
)
def test_a_link_that_makes_no_sense_shows_the_view_anyway(
    viewer: Browser, page: Path, fragment: str
) -> None:
    show(viewer, page, fragment)
    assert tags(viewer)[0] == "none"
    assert viewer.evaluate("document.querySelectorAll('#insets section').length") == 0


def test_a_cell_leads_to_its_image(viewer: Browser) -> None:
    viewer.click("table a")
    viewer.wait(f"document.getElementById('scene').value === 'garden' && {DRAWN}")
    assert tags(viewer) == ["poisson-l1"]
    assert text(viewer, "#groups [aria-pressed=true]") == "32 spp"


def test_tables_sort_and_failures_come_last(viewer: Browser) -> None:
    def order() -> list[str]:
        rows: list[str] = viewer.evaluate(
            "[...document.querySelectorAll('tbody th[scope=row]')].slice(0, 4)"
            ".map(h => h.textContent)"
        )
        return rows

    original = order()
    assert original == ["ngpt", "none", "poisson-l1", "bright"]
    viewer.click("thead th:nth-child(2) button")
    assert order() == ["poisson-l1", "bright", "none", "ngpt"]
    viewer.click("thead th:nth-child(2) button")
    assert order() == ["none", "bright", "poisson-l1", "ngpt"]
    assert viewer.evaluate("document.querySelector('th:nth-child(2)').ariaSort") == "descending"
    viewer.click("thead th:nth-child(2) button")
    assert order() == original
    viewer.click("thead th:nth-child(3) button")  # as numbers: 9.5 < 20.5
    assert order() == ["bright", "none", "poisson-l1", "ngpt"]
    viewer.click("thead th:nth-child(1) button")
    assert order() == sorted(original)


def test_the_best_values_stand_out(viewer: Browser) -> None:
    style = (
        "(row, column) => { const cell = document.querySelector('tbody').rows[row].cells[column];"
        "const s = getComputedStyle(cell.querySelector('.value') ?? cell);"
        "return [s.fontWeight === '700', s.textDecorationLine]; }"
    )
    weights = [viewer.evaluate(f"({style})({row}, 1)") for row in (1, 2, 3)]
    assert weights == [[False, "none"], [True, "none"], [False, "underline"]]
    assert viewer.evaluate(f"({style})(2, 2)") == [True, "none"]
    failed = viewer.evaluate("document.querySelector('td .failed').title")
    assert failed == "WeightsError: none"
    assert "WeightsError" in text(viewer, "#failures")


def test_plots_are_in_the_page_with_slopes(viewer: Browser) -> None:
    assert text(viewer, ".legend li") == "none −1.00"
    assert text(viewer, ".legend li:nth-child(2)") == "poisson-l1 −0.50"
    colour = "getComputedStyle(document.querySelector('#plot0-0 path')).stroke"
    light = viewer.evaluate(colour)
    assert light == "rgb(0, 114, 178)"
    dot = "getComputedStyle(document.querySelector('#methods .dot')).backgroundColor"
    assert viewer.evaluate(dot) == light
    viewer.resize(1280, 900, dark=True)
    assert viewer.evaluate(colour) == viewer.evaluate(dot) != light
    assert viewer.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 28)"


def test_help_and_fullscreen_keys(viewer: Browser) -> None:
    viewer.key("?")
    viewer.wait("document.getElementById('help').open")
    viewer.key("2", "Digit2")  # not while the list is open
    viewer.key("Escape")
    viewer.wait("!document.getElementById('help').open")
    assert tags(viewer) == ["none"]
    viewer.key("f")
    viewer.wait("document.fullscreenElement !== null")
    viewer.key("f")
    viewer.wait("document.fullscreenElement === null")


def test_phone(viewer: Browser, page: Path) -> None:
    viewer.resize(390, 844, mobile=True)
    show(viewer, page)
    press(viewer, "s", "m", "c")
    assert viewer.evaluate("document.documentElement.scrollWidth") == 390
    assert viewer.evaluate("document.getElementById('stage').clientWidth") <= 390
    press(viewer, "s", "m", "m")
    box = viewer.box("#stage")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    viewer.touch("touchStart", (x + 60, y))
    viewer.touch("touchMove", (x, y))
    viewer.touch("touchMove", (x - 60, y))
    viewer.touch("touchEnd")
    viewer.wait("document.querySelector('.tag-a').textContent === 'poisson-l1'")
    before = scale_of(viewer)
    viewer.touch("touchStart", (x - 20, y), (x + 20, y))
    for reach in (30, 45, 60):
        viewer.touch("touchMove", (x - reach, y), (x + reach, y))
    viewer.touch("touchEnd")
    viewer.wait(DRAWN)
    assert scale_of(viewer) == pytest.approx(3 * before, rel=0.05)
    assert tags(viewer) == ["poisson-l1"]


def test_controls_have_names(viewer: Browser) -> None:
    press(viewer, "s", "c")
    nameless = viewer.evaluate(
        "[...document.querySelectorAll('button, select, input, [role=slider], [tabindex=\"0\"]')]"
        ".filter(e => !(e.ariaLabel || e.labels?.length || e.textContent.trim()))"
        ".map(e => e.outerHTML)"
    )
    assert nameless == []


def test_hostile_texts_stay_texts(chromium: Browser, tmp_path: Path) -> None:
    image = np.ones((4, 4, 3), np.float32)
    hostile = Report(
        HOSTILE,
        HOSTILE,
        provenance={HOSTILE: HOSTILE},
        tables=[
            Table(HOSTILE, [Header(HOSTILE)], [Header(HOSTILE)], [[Cell(error=HOSTILE)]], HOSTILE)
        ],
        plots=[Plot(HOSTILE, [Curve(HOSTILE, [1, 2], [1, 2])], HOSTILE, HOSTILE, HOSTILE)],
        views=[
            View(
                HOSTILE,
                [
                    ViewImage(HOSTILE, image, metrics={HOSTILE: 1.0}),
                    ViewImage("r" + HOSTILE, image, reference=True),
                    ViewImage("f" + HOSTILE, error=HOSTILE),
                ],
                HOSTILE,
                caption=HOSTILE,
            )
        ],
        failures=[Failure(HOSTILE, HOSTILE)],
        notes=[HOSTILE],
    )
    chromium.resize(1280, 900)
    write_report(hostile, tmp_path / "report.html")
    show(chromium, tmp_path / "report.html")
    press(chromium, "s", "c")
    chromium.mouse("mouseMoved", *[v + 9 for v in (chromium.box("#stage")["x"], 400)])
    item = GalleryItem(HOSTILE, image, caption=HOSTILE, metrics={HOSTILE: 1}, error=HOSTILE)
    write_gallery(Gallery(HOSTILE, [item], HOSTILE), tmp_path / "gallery.html")
    assert tags(chromium) == [HOSTILE, "r" + HOSTILE]
    for name in ("report", "gallery"):
        chromium.open(tmp_path / f"{name}.html")
        assert text(chromium, "h1") == HOSTILE
        assert chromium.evaluate("document.title") == HOSTILE
        assert chromium.evaluate("typeof window.hacked") == "undefined"
        assert chromium.evaluate("document.querySelectorAll('body b').length") == 0
        assert chromium.errors == []


@pytest.mark.parametrize("kept", [0, 800])
def test_a_truncated_file_says_so(chromium: Browser, page: Path, tmp_path: Path, kept: int) -> None:
    source = page.read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    end = source.index('<script type="text/plain" id="blob-0"') + kept
    broken.write_text(source[:end], encoding="utf-8")
    chromium.open(broken)
    chromium.wait("!document.querySelector('.message').hidden")
    assert "incomplete" in text(chromium, ".message")


def test_a_report_of_tables_alone(chromium: Browser, tmp_path: Path) -> None:
    path = tmp_path / "tables.html"
    write_report(dataclasses.replace(REPORT, views=[], plots=[]), path)
    chromium.open(path)
    assert chromium.errors == []
    assert chromium.evaluate("document.getElementById('images')") is None
    assert path.stat().st_size < 40_000


def test_gallery(chromium: Browser, tmp_path: Path) -> None:
    exr.write_png(tmp_path / "b.png", METHODS["none"])
    large = np.full((100, 1000, 3), 0.5, np.float32)
    items = [
        GalleryItem("alpha", METHODS["none"], exposure=1, caption="day", links={"EXR": "a.exr"}),
        GalleryItem("beta", tmp_path / "b.png", caption="night", metrics={"seconds": 1.5}),
        GalleryItem("gamma", error="RuntimeError: out of memory"),
        GalleryItem("delta", large),
    ]
    path = tmp_path / "gallery.html"
    write_gallery(Gallery("Batch", items), path, size=200)
    chromium.resize(1280, 800)
    chromium.open(path)
    visible = (
        "[...document.querySelectorAll('.tile')].filter(t => !t.hidden)"
        ".map(t => t.querySelector('h2').textContent)"
    )
    assert chromium.evaluate(visible) == ["alpha", "beta", "gamma", "delta"]
    sizes = (
        "[...document.querySelectorAll('.tile img')].map(i => [i.naturalWidth, i.naturalHeight])"
    )
    assert chromium.evaluate(sizes) == [[W, H], [W, H], [200, 20]]
    assert "out of memory" in text(chromium, ".broken")

    chromium.evaluate("document.getElementById('filter').focus()")
    for letter in "night":
        chromium.key(letter)
    assert chromium.evaluate(visible) == ["beta"]
    assert text(chromium, "#count") == "1 of 4"
    chromium.evaluate("document.getElementById('filter').value = ''")
    chromium.click("#only-failed")
    assert chromium.evaluate(visible) == ["gamma"]
    chromium.click("#only-failed")

    chromium.click(".tile:nth-child(2) .open")
    chromium.wait("document.getElementById('lightbox').open")
    assert text(chromium, "#lightbox-title") == "beta"
    chromium.key("ArrowRight")  # past the one without a picture
    assert text(chromium, "#lightbox-title") == "delta"
    chromium.key("Escape")
    chromium.wait("!document.getElementById('lightbox').open")

    chromium.resize(390, 844, mobile=True)
    chromium.open(path)
    assert chromium.evaluate("document.documentElement.scrollWidth") == 390
    assert chromium.errors == []
    first = Image.fromarray(exr.to_8bit(METHODS["none"], exposure=1))
    pixel = chromium.evaluate(
        "(() => { const c = document.createElement('canvas'), x = c.getContext('2d');"
        "x.drawImage(document.querySelector('.tile img'), 0, 0);"
        "return [...x.getImageData(9, 5, 1, 1).data]; })()"
    )
    assert tuple(pixel[:3]) == first.getpixel((9, 5))
