"""Condense an evaluation at equal total time into data that is committed.

    mitsuba-gdpt evaluate ../scenes/dev/*/scene.xml --seconds 2.5,7.5,25 ... -o RESULTS
    python docs/publish.py RESULTS total-time

writes ``docs/results/data/DATE-total-time.json``: costs, samples and errors of every scene and
pair, means over the seeds, rounded to four digits, with what is needed to make them again. Then it
makes all tables and plots anew. Pages have figures from these files (``docs/generate.py``) and from
nothing else. Without arguments the tables and plots are made of the data that are there.

    mitsuba-gdpt reference ../scenes/dev/*/scene.xml -o REFERENCES | tee -a REFERENCES/log.txt
    python docs/publish.py REFERENCES references

does the same with samples, noise and times of references.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import generate
import numpy as np
import total_time

_DIGITS = 4


def rounded(value: Any) -> Any:
    """Return a value with every number rounded to four significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return value


def condense(results: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a ``results.json`` that is published.

    Raises:
        ValueError: A cell failed, or cells are of several states of the code.
    """
    records = results["records"]
    if failed := [r for r in records if r["error"] is not None]:
        raise ValueError(f"{len(failed)} cells failed, the first: {failed[0]['error']}")
    sources = sorted({r["sources"] for r in records})
    if len(sources) != 1:
        raise ValueError(f"cells of {len(sources)} states of the code; evaluate again")
    provenance = {**results["provenance"], "sources": sources[0]}
    if "command" in provenance:  # folders of this machine say nothing to others
        provenance["command"] = re.sub(r"(?<=\s)/\S*/", "", provenance["command"])
    cells: dict[tuple[str, str, int], list[dict[str, float]]] = defaultdict(list)
    for record in records:
        cells[record["scene"], record["method"], record["spp"]].append(record["metrics"])
    kept = ("seconds", "cost_size", "seeds", "repeats", "clock", "metrics", "max_depth", "width")
    return rounded(
        {
            "provenance": provenance,
            "settings": {key: results["settings"][key] for key in kept},
            "costs": {
                scene: {
                    pair: [*cost.values()]  # fixed, per sample, denoise
                    for pair, cost in costs.items()
                }
                for scene, costs in results["costs"].items()
            },
            "references": {
                scene: {key: values[key] for key in ("sha256", "spp", "noise")}
                for scene, values in results.get("references", {}).items()
            },
            "spp": [[s["scene"], s["pair"], s["seconds"], s["spp"]] for s in results["spp"]],
            "errors": [
                [scene, pair, spp, {m: statistics.fmean(v[m] for v in values) for m in values[0]}]
                for (scene, pair, spp), values in cells.items()
            ],
        }
    )


#: What ``mitsuba-gdpt reference`` prints of each.
_TOLD = re.compile(
    r"(?P<name>[^/\n]+)\.npz: .*, (?P<seconds>\d+) s; noise before: (?P<before>[\d.e-]+)$",
    re.MULTILINE,
)


def condense_references(folder: Path) -> dict[str, Any]:
    """Return what is published of a folder of references, of which ``log.txt`` tells the times.

    Raises:
        ValueError: A reference has no line in ``log.txt``.
    """
    from mitsuba_gdpt import provenance, references

    seconds: dict[str, int] = defaultdict(int)
    before = {}
    for told in _TOLD.finditer((folder / "log.txt").read_text(encoding="utf-8")):
        seconds[told["name"]] += int(told["seconds"])
        before[told["name"]] = float(told["before"])
    scenes = {}
    for sums in sorted(folder.glob("*.partial.npz")):
        name = sums.name.removesuffix(".partial.npz")
        if name not in before:
            raise ValueError(f"{folder / 'log.txt'} has no line of {name}; keep what is printed")
        halves = references.read(folder / f"{name}.npz")
        with np.load(sums, allow_pickle=False) as stored:
            shifts = int(stored["state"][-1])
        scenes[name] = {
            "size": list(halves.size),
            "shifts": shifts,
            "spp": halves.spp,
            "seconds": seconds[name],
            "before": before[name],
            "noise": halves.noise,
        }
    origin = {"command": "mitsuba-gdpt reference", **provenance.describe()}
    return rounded({"provenance": origin, "scenes": scenes})


def write(folder: str, name: str) -> None:
    """Condense the results of a folder."""
    if name == "references":
        values = condense_references(Path(folder))
    else:
        results = json.loads((Path(folder) / "results.json").read_text(encoding="utf-8"))
        values = condense(results)
    date = values["provenance"].get("date", "")[:10]
    if not date:
        raise SystemExit("results.json has no date in its provenance")
    total_time.DATA.mkdir(parents=True, exist_ok=True)
    path = total_time.DATA / f"{date}-{name}.json"
    lines = ",\n".join(f" {json.dumps(key)}: {_lines(value)}" for key, value in values.items())
    path.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    print(path)


def refresh() -> None:
    """Make all tables and plots of the newest data."""
    generate.main([])
    target = Path(__file__).parent / "images" / "frontier.png"
    total_time.plot(target)
    print(target)


def _lines(value: Any) -> str:
    """Return JSON with one line per entry: small differences make small diffs."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "[\n  " + ",\n  ".join(json.dumps(item) for item in value) + "\n ]"
    if isinstance(value, dict) and any(isinstance(item, dict) for item in value.values()):
        inner = (f"  {json.dumps(key)}: {json.dumps(item)}" for key, item in value.items())
        return "{\n" + ",\n".join(inner) + "\n }"
    return json.dumps(value)


if __name__ == "__main__":
    if len(sys.argv) not in (1, 3):
        sys.exit("usage: python docs/publish.py [RESULTS NAME]")
    if len(sys.argv) == 3:
        write(*sys.argv[1:])
    refresh()
