"""Sequences in the report's viewer: frames are stepped through, played, and compared."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mitsuba_gdpt.errors import ConfigError, LayoutError
from mitsuba_gdpt.report import Report, View, ViewImage, write_report
from tests.e2e.browser import Browser
from tests.e2e.viewer import (
    DRAWN,
    EPSILON,
    SETTLED,
    address,
    as_shown,
    picture,
    point,
    press,
    show,
    shown_colour,
    tags,
    text,
)

REFERENCE = picture(0)
FRAMES = 4
MOVING = [
    View(
        "walk",
        [
            ViewImage("none", picture(10 + frame), metrics={"relMSE": 0.5}),
            ViewImage("rdae", picture(20 + frame), metrics={"relMSE": 0.1}),
            ViewImage("broken", error="WeightsError: none"),
            ViewImage("reference", picture(30 + frame), reference=True),
        ],
        group,
        frame=frame,
    )
    for group in ("2 spp", "8 spp")
    for frame in range(FRAMES)
]


STILL = View("hall", [ViewImage("none", REFERENCE)])


@pytest.fixture(scope="module")
def strip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a sequence of two versions, and a still image."""
    path = tmp_path_factory.mktemp("strip") / "report.html"
    write_report(Report("Sequences", views=[*MOVING, STILL], epsilon=EPSILON), path)
    return path


@pytest.fixture
def player(chromium: Browser, strip: Path) -> Iterator[Browser]:
    chromium.resize(1280, 900)
    show(chromium, strip)
    yield chromium
    assert chromium.errors == []


def frame_number(browser: Browser) -> int:
    return int(text(browser, "#frame-number").split("/")[0])


def test_a_still_image_has_no_player(player: Browser) -> None:
    player.click("[data-do=scene-next]")
    player.wait(DRAWN)
    assert player.evaluate("document.getElementById('player').hidden")
    press(player, "p", ".")
    assert address(player) == {"view": ["hall"], "a": ["none"]}


def test_frames_are_stepped_through_in_a_circle(player: Browser, strip: Path) -> None:
    assert [url for url in player.requests if not url.startswith("data:")] == [strip.as_uri()]
    assert text(player, "#frame-number") == f"1 / {FRAMES}"
    scenes = "[...document.getElementById('scene').options].map(o => o.value)"
    assert player.evaluate(scenes) == ["walk", "hall"]
    for number in (2, 3, 4, 1):
        press(player, ".")
        assert frame_number(player) == number
        assert shown_colour(player, 30, 20) == as_shown(picture(9 + number), 30, 20)
    press(player, ",")
    assert frame_number(player) == FRAMES
    player.click("[data-do=frame-previous]")
    player.wait(DRAWN)
    assert frame_number(player) == FRAMES - 1


def test_the_slider_chooses_a_frame(player: Browser) -> None:
    player.evaluate(
        "(() => { const s = document.getElementById('frame'); s.focus(); s.value = 2;"
        "s.dispatchEvent(new Event('input', {bubbles: true})); })()"
    )
    player.wait(DRAWN)
    assert shown_colour(player, 30, 20) == as_shown(picture(12), 30, 20)
    assert player.evaluate("document.getElementById('frame').ariaValueText") == "frame 2"
    press(player, "ArrowLeft")  # the slider has the focus: this is a frame, not another version
    assert text(player, "#groups [aria-pressed=true]") == "2 spp"


def test_method_split_and_version_stay_with_the_frame(player: Browser) -> None:
    press(player, "2", "s", ".", ".")
    assert tags(player) == ["rdae", "reference"]
    assert shown_colour(player, 20, 24) == as_shown(picture(22), 20, 24)
    assert shown_colour(player, 44, 24) == as_shown(picture(32), 44, 24)
    player.click("#groups button:nth-child(2)")
    player.wait(DRAWN)
    assert frame_number(player) == 3
    assert address(player) == {
        "view": ["walk"],
        "group": ["8 spp"],
        "frame": ["2"],
        "a": ["rdae"],
        "b": ["reference"],
        "layout": ["split"],
        "split": ["0.5"],
    }
    press(player, "m")  # the error is against the reference of the same frame
    x, r = (p.astype(np.float16).astype(np.float64)[17, 20] for p in (picture(22), picture(32)))
    expected = ((x - r) ** 2).mean() / (r.mean() ** 2 + EPSILON)
    assert float(point(player, 20, 17)["rdae"][3]) == pytest.approx(expected, rel=6e-2)


def test_a_link_leads_to_a_frame(player: Browser, strip: Path) -> None:
    show(player, strip, "#view=walk&group=8+spp&frame=3&a=rdae")
    assert frame_number(player) == 4
    assert shown_colour(player, 30, 20) == as_shown(picture(23), 30, 20)
    show(player, strip, "#view=walk&group=8+spp&frame=nonsense&a=rdae")
    assert frame_number(player) == 1


def test_playing_shows_all_frames_until_it_is_paused(player: Browser) -> None:
    player.evaluate(
        "document.getElementById('rate').value = 24,"
        "document.getElementById('rate').dispatchEvent(new Event('change'))"
    )
    player.evaluate(
        "window.seen = [], new MutationObserver(() => seen.push("
        "parseInt(document.getElementById('frame-number').textContent)))"
        ".observe(document.getElementById('frame-number'), {childList: true})"
    )
    player.click("#play")
    assert text(player, "#play") == "Pause"
    player.wait("window.seen.length > 9")
    press(player, "p")
    assert text(player, "#play") == "Play"
    seen = player.evaluate("window.seen.filter((n, i) => n !== window.seen[i - 1])")
    assert len(seen) >= 5
    steps = {(b - a) % FRAMES for a, b in itertools.pairwise(seen)}
    assert steps == {1}, "no frame is left out"
    stopped = frame_number(player)
    player.evaluate(SETTLED)
    assert frame_number(player) == stopped
    assert shown_colour(player, 30, 20) == as_shown(picture(9 + stopped), 30, 20)
    player.evaluate("document.getElementById('stage').focus()")
    press(player, " ")
    assert text(player, "#play") == "Pause"
    press(player, ".")
    assert text(player, "#play") == "Play", "a step by hand pauses"


def test_playing_stops_at_a_still_image(player: Browser) -> None:
    press(player, "p")
    player.click("[data-do=scene-next]")
    player.wait(DRAWN)
    assert player.evaluate("document.getElementById('player').hidden")
    player.click("[data-do=scene-next]")
    player.wait(DRAWN)
    assert text(player, "#play") == "Play"


@pytest.mark.parametrize("width", [1280, 390])
def test_the_player_fits_into_the_window(
    chromium: Browser, strip: Path, width: int, tmp_path: Path
) -> None:
    chromium.resize(width, 900, mobile=width < 500)
    show(chromium, strip)
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width
    for selector in ("#play", "#frame", "#frame-number", "#rate"):
        box = chromium.box(selector)
        assert box["width"] > 20
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    chromium.screenshot(tmp_path / "player.png")
    assert Image.open(tmp_path / "player.png").width == width
    assert chromium.errors == []


def test_frames_have_to_be_numbered() -> None:
    image = [ViewImage("none", REFERENCE)]
    first, second = View("a", image, frame=0), View("a", image, frame=1)
    Report("fine", views=[first, second])
    for other in (View("a", image), View("a", image, frame=0)):
        for order in ([first, other], [other, first]):
            with pytest.raises(ConfigError, match="expected frames that are numbered"):
                Report("bad", views=order)
    small = View("a", [ViewImage("none", REFERENCE[1:])], frame=2)
    with pytest.raises(LayoutError, match="frames of 2 sizes"):
        Report("bad", views=[first, small])
