"""What the benchmarks share: scenes by name, untrained weights, and Markdown tables."""

from __future__ import annotations

import atexit
import functools
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mitsuba_gdpt.references import Halves

DATA = Path(__file__).parents[1] / "docs" / "results" / "data"
SHARED = Path(
    os.environ.get("MITSUBA_GDPT_SCENES", Path(__file__).parents[2] / "shared" / "scenes")
)
#: Interiors of the dev scenes: long paths, mostly diffuse.
INTERIORS = ("living-room", "staircase2", "living-room-3", "veach-bidir")
DEV = (*INTERIORS, "glass-of-water", "veach-mis")


def dev_scenes() -> list[str]:
    """Names of the real scenes, empty (with a notice) where they are not on this machine."""
    if not (SHARED / "dev").is_dir():
        print(f"note: no real scenes in {SHARED / 'dev'}; built-in scenes only", flush=True)
        return []
    return [*DEV]


def scene_file(name: str) -> str:
    """Return what ``rendering.open_source`` takes for a dev or built-in scene."""
    file = SHARED / "dev" / name / "scene.xml"
    return str(file) if file.is_file() else f"builtin:{name}"


def dev_reference(name: str) -> Halves:
    """Return the reference of a dev scene: of ``MITSUBA_GDPT_REFERENCES``, or beside the scene."""
    from mitsuba_gdpt import references
    from mitsuba_gdpt.scenes import SceneRef

    found = references.stored(SceneRef.parse(scene_file(name)), references.STORED_DEPTH)
    if found is None:
        raise SystemExit(
            f"{scene_file(name)}: no reference of path depth {references.STORED_DEPTH}"
        )
    return found


def load(name: str, width: int, max_depth: int) -> Any:
    """Load a dev or built-in scene at ``width`` pixels, in its own aspect ratio."""
    import mitsuba as mi

    from mitsuba_gdpt import scenes

    if name in DEV:
        path = str(SHARED / "dev" / name / "scene.xml")
        film = mi.load_file(path).sensors()[0].film().size()
        height = round(width * film[1] / film[0])
        return mi.load_file(path, resx=width, resy=height, max_depth=max_depth)
    info = scenes.describe(name)
    return scenes.load(name, width=width, height=round(width * info.height / info.width))


@functools.cache
def untrained_weights(method: str) -> str | None:
    """Return a file of random weights for a network of that name, None if it is no network.

    Its images are noise, but time and memory do not depend on the values.
    """
    from mitsuba_gdpt.denoisers.learned import methods, weights

    if method not in methods.PRESETS:
        return None
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    model = weights.make_model(methods.PRESETS[method].config)
    facts = {"tag": "untrained", "recipe": "none", "commit": "none", "licence": "none"}
    return str(weights.save_weights(model, Path(folder.name), name=method, **facts))


def geometric_mean(values: Sequence[float]) -> float:
    """Return exp(mean(log(values)))."""
    return float(np.exp(np.mean(np.log(values))))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; floats with three significant digits."""

    def cell(value: object) -> str:
        return f"{value:#.3g}".rstrip(".") if isinstance(value, float) else str(value)

    lines = [header, ["---"] * len(header), *([cell(v) for v in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def publish(name: str, values: dict[str, Any]) -> None:
    """Write ``docs/results/data/DATE-NAME.json``: values with what is needed to make them again.

    Numbers are rounded to four significant digits.
    """
    from mitsuba_gdpt import provenance

    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.4g}")
        if isinstance(value, dict):
            return {key: rounded(item) for key, item in value.items()}
        return [rounded(item) for item in value] if isinstance(value, list | tuple) else value

    origin = provenance.describe()
    words = [word for word in sys.argv if not word.startswith("/")]  # folders of this machine
    made = {"provenance": {"command": " ".join(["python", *words]), **origin}, **rounded(values)}
    path = DATA / f"{origin['date'][:10]}-{name}.json"
    path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    print(f"\n{path}; now: python docs/generate.py")
