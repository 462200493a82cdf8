"""What the tests of reports do with the image viewer, and the images that they show in it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs

import numpy as np

from mitsuba_gdpt import exr
from tests.e2e.browser import Browser

W, H = 64, 48
EPSILON = 1e-2
DRAWN = "document.getElementById('stage').getAttribute('aria-busy') === 'false'"
SETTLED = "new Promise(done => setTimeout(done, 300))"  # the address is written after 0.2 s


def picture(seed: int) -> np.ndarray:
    """Radiance with everything that a renderer can produce."""
    image = np.random.default_rng(seed).lognormal(-1, 1.5, (H, W, 3)).astype(np.float32)
    image[0, 0] = (-0.25, 0.0, 1e-6)
    image[10, 20] = (3000.0, 0.5, 0.25)  # a firefly
    image[H - 1, W - 1] = (65504.0, 2.0**-24, 1.0)
    return image


def show(browser: Browser, path: Path, fragment: str = "") -> None:
    browser.open(path, fragment)
    browser.wait(DRAWN)


def press(browser: Browser, *keys: str, modifiers: int = 0) -> None:
    for key in keys:
        browser.key(key, f"Digit{key}" if key.isdigit() else "", modifiers)
    browser.wait(DRAWN)


def scale_of(browser: Browser) -> float:
    return float(browser.evaluate("document.getElementById('zoom').textContent").split()[0]) / 100


def position(browser: Browser, x: float, y: float) -> tuple[float, float]:
    """Where in the window a position of the image is, while the whole image is shown."""
    box, scale = browser.box("#stage"), scale_of(browser)
    return (
        box["x"] + box["width"] / 2 + (x - W / 2) * scale,
        box["y"] + box["height"] / 2 + (y - H / 2) * scale,
    )


def colour_at(browser: Browser, x: float, y: float) -> list[int]:
    """The colour on the canvas at a position in the window."""
    colour: list[int] = browser.evaluate(
        "(() => { const c = document.querySelector('#stage canvas'), b = c.getBoundingClientRect();"
        f"return [...c.getContext('2d').getImageData({x} - b.x, {y} - b.y, 1, 1).data]; }})()"
    )
    return colour[:3]


def shown_colour(browser: Browser, x: int, y: int) -> list[int]:
    return colour_at(browser, *position(browser, x + 0.5, y + 0.5))


def read_out(browser: Browser) -> dict[str, list[str]]:
    """Cells of the read-out by label."""
    rows: dict[str, list[str]] = browser.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#readout tbody tr')].map("
        "row => [row.dataset.label, [...row.querySelectorAll('td')].map(c => c.textContent)]))"
    )
    return rows


def point(browser: Browser, x: int, y: int) -> dict[str, list[str]]:
    browser.mouse("mouseMoved", *position(browser, x + 0.5, y + 0.5))
    return read_out(browser)


def tags(browser: Browser) -> list[str]:
    found: list[str] = browser.evaluate(
        "[...document.querySelectorAll('.tag:not([hidden])')].map(tag => tag.textContent)"
    )
    return found


def text(browser: Browser, selector: str) -> str:
    return str(browser.evaluate(f"document.querySelector({selector!r}).textContent")).strip()


def address(browser: Browser) -> dict[str, list[str]]:
    browser.evaluate(SETTLED)
    return parse_qs(browser.evaluate("location.hash")[1:])


def as_shown(image: np.ndarray, x: int, y: int, stops: float = 0.0) -> list[int]:
    half = image.astype(np.float16).astype(np.float32)
    return [int(v) for v in exr.to_8bit(half, exposure=stops)[y, x]]
