"""Headless Chromium, driven over its DevTools protocol.

The protocol is spoken through a pipe, as JSON: no package, no driver program of a matching version
and no open port are needed, only the browser.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

EXECUTABLE = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
#: Nothing on a test machine should be downloaded, updated or asked.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
TIMEOUT = 30.0
SHIFT = 8

# Chromium reads commands from descriptor 3 and answers on 4.
_LAUNCHER = """
import os, sys
reads, writes, *command = sys.argv[1:]
os.dup2(int(reads), 3)
os.dup2(int(writes), 4)
os.execv(command[0], command)
"""
#: Complaints about what tests do, not about what the page does.
_OUR_OWN = "Canvas2D: Multiple readback operations"


class BrowserError(Exception):
    """The page threw, or the browser refused a command."""


class Browser:
    """One page in a browser of its own."""

    def __init__(self, profile: Path) -> None:
        assert EXECUTABLE is not None
        ends = [*os.pipe(), *os.pipe()]
        # Out of the way of 3 and 4.
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in ends]
        for end in ends:
            os.close(end)
        child_reads, self._write, self._read, child_writes = high
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCHER, str(child_reads), str(child_writes),
             EXECUTABLE, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(child_reads, child_writes),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(child_reads)
        os.close(child_writes)
        self._buffer = b""
        self._next = 0
        self._session: str | None = None
        #: Messages of the console above "info", and exceptions that nobody caught.
        self.errors: list[str] = []
        #: Addresses that the page asked for, its own included.
        self.requests: list[str] = []
        targets = self.command("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self.command("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def close(self) -> None:
        self._session = None
        with contextlib.suppress(OSError, BrowserError):
            self.command("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def command(self, method: str, **params: Any) -> Any:
        self._next += 1
        message = {"id": self._next, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == self._next:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']['message']}")
                return answer["result"]
            self._note(answer)

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(deadline - time.monotonic(), 0))
            chunk = os.read(self._read, 1 << 20) if ready else b""
            if not chunk:
                raise BrowserError("the browser has ended" if ready else "the browser is silent")
            self._buffer += chunk
        text, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.errors.append(
                    str([a.get("value", a.get("description")) for a in params["args"]])
                )
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                if params["entry"]["text"].startswith(_OUR_OWN):
                    return
                self.errors.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; promises are awaited."""
        answer = self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description", details["text"]))
        return answer["result"].get("value")

    def wait(self, condition: str, timeout: float = TIMEOUT) -> None:
        """Wait until a JavaScript expression becomes true."""
        deadline = time.monotonic() + timeout
        while not self.evaluate(condition):
            if time.monotonic() > deadline:
                raise BrowserError(f"after {timeout} s this is still not true: {condition}")
            time.sleep(0.02)

    def open(self, path: Path, fragment: str = "") -> None:
        # By way of an empty page: a change of the fragment alone would not load anything.
        self.command("Page.navigate", url="about:blank")
        self.errors.clear()
        self.requests.clear()
        url = path.resolve().as_uri() + fragment
        self.command("Page.navigate", url=url)
        loaded = "document.readyState === 'complete' && location.protocol === 'file:'"
        self.wait(loaded)

    def resize(self, width: int, height: int, *, mobile: bool = False, dark: bool = False) -> None:
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=mobile,
        )  # fmt: skip
        self.command("Emulation.setTouchEmulationEnabled", enabled=mobile)
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            # Scrolling that goes on for a while would move what the tests point at.
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.command("Emulation.setEmulatedMedia", features=features)

    def key(self, key: str, code: str = "", modifiers: int = 0) -> None:
        text = key if len(key) == 1 else ""
        number = {"Escape": 27, "Enter": 13}.get(key, 0)  # what the browser itself reacts to
        for kind in ("keyDown", "keyUp"):
            self.command(
                "Input.dispatchKeyEvent",
                type=kind, key=key, code=code, modifiers=modifiers, windowsVirtualKeyCode=number,
                **({"text": text} if text and kind == "keyDown" else {}),
            )  # fmt: skip

    def mouse(self, kind: str, x: float, y: float, **params: Any) -> None:
        self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, **params)

    def drag(
        self, start: tuple[float, float], end: tuple[float, float], modifiers: int = 0
    ) -> None:
        held = {"button": "left", "buttons": 1, "clickCount": 1, "modifiers": modifiers}
        self.mouse("mouseMoved", *start)
        self.mouse("mousePressed", *start, **held)
        for step in range(1, 5):
            at = (a + (b - a) * step / 4 for a, b in zip(start, end, strict=True))
            self.mouse("mouseMoved", *at, **held)
        self.mouse("mouseReleased", *end, **held)

    def touch(self, kind: str, *points: tuple[float, float]) -> None:
        self.command(
            "Input.dispatchTouchEvent",
            type=kind,
            touchPoints=[{"x": x, "y": y, "id": index} for index, (x, y) in enumerate(points)],
        )

    def click(self, selector: str) -> None:
        box = self.box(selector)
        held = {"button": "left", "buttons": 1, "clickCount": 1}
        at = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        self.mouse("mousePressed", *at, **held)
        self.mouse("mouseReleased", *at, **held)

    def box(self, selector: str) -> dict[str, float]:
        """Scroll an element into view and return where it is then."""
        found: dict[str, float] = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'nearest', behavior: 'instant'});"
            "return e.getBoundingClientRect().toJSON(); })()"
        )
        return found

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        answer = self.command("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))
