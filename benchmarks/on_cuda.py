"""What a GPU is for, in one go, in under 10 minutes, with one summary at the end.

All CUDA tests, references of the real scenes, a training set, networks trained on it, benchmarks.

    python benchmarks/on_cuda.py [--output cuda-results] [--only STEP ...] [--scale 1]
    python benchmarks/on_cuda.py --variant llvm_ad_rgb --quick     # tries this script without a GPU

Needs the package in ``PYTHONPATH`` (or the checkout as it is), pytest, scipy, scikit-image and a
torch with CUDA. Every step is a process of its own with a time limit, and a test that hangs or
kills its process takes only itself along. Real scenes are used where ``MITSUBA_GDPT_SCENES`` names
their folder. The output folder gets ``summary.md``, ``summary.json``, a log per step, references
and runs of training as they come; the training set, which is big, is made in ``.cuda-data``. The
exit code is 0 if every step ended well and no test failed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from common import dev_scenes, table

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
#: Of the training set, which takes gigabytes: a second run goes on with it.
DATA = ROOT / ".cuda-data"
#: Seconds without news after which a test counts as hung.
PATIENCE = 90.0
#: Results of tests that the step had no time for.
UNFINISHED = ("not run", "out of time")
#: Seconds before its time is up when a command is interrupted, so that it tells what it has done.
FAREWELL = 5.0
#: At most, on an H100 at 1280x720 and 8 spp; the first render is one of 128x128 with four shifts.
GOALS = {
    "gdpt / path": 1.3,
    "gdpt, shifts=4 / path": 1.6,
    "ngpt-fusion, ms": 20.0,
    "ngpt, ms": 20.0,
    "ngpt-small, ms": 5.0,
    "first render, s": 6.0,
}
#: Built-in scenes where there are no real ones: an interior, metal, glass.
SCENES = ("morning-room", "metal-shelves", "glass-bar")


@dataclass
class Outcome:
    """What became of one test.

    Attributes:
        result: passed, failed, skipped, hung, crashed, out of time, or not run.
        seconds: How long it took.
        text: Why it did not pass.
    """

    result: str
    seconds: float = 0.0
    text: str = ""


@dataclass
class Result:
    """What became of a step.

    Attributes:
        name: Of the step.
        result: ok, failed, or out of time.
        seconds: How long it took.
        text: What it printed (benchmarks), or why it failed.
        tables: The Markdown tables in the text, as rows of column name to cell.
        tests: Node id to outcome, for steps of tests.
    """

    name: str
    result: str
    seconds: float = 0.0
    text: str = ""
    tables: list[list[dict[str, str]]] = field(default_factory=list)
    tests: dict[str, Outcome] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """A step: a command, or a selection of tests.

    Attributes:
        name: For ``--only`` and the summary.
        seconds: Time limit before ``--scale``.
        command: Arguments of Python.
        tests: Arguments of pytest that select, instead of a command.
    """

    name: str
    seconds: float
    command: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()


def steps(variant: str, quick: bool, output: Path, scale: float = 1.0) -> list[Step]:
    """Return all steps, the most important first.

    Args:
        variant: Of Mitsuba.
        quick: Tiny sizes.
        output: Folder for what is small enough to be taken home.
        scale: Factor on the time limits, so on what the steps do that have as much as they like.
    """
    on_gpu = variant.startswith("cuda")
    mark = ("-m", "cuda" if on_gpu else "device and not cuda")
    real = dev_scenes()
    chosen = ["--variant", variant]
    size, spp = ("160x90", "2") if quick else ("1280x720", "8")
    width, repeats = size.partition("x")[0], "1" if quick else "5"
    scenes = ("corner-gallery",) if quick else (*real, *SCENES)
    methods = ("none", "poisson-l1", "ngpt-small") if quick else ()
    frame_methods = methods or ("none", "poisson-l1", "ngpt-small", "ngpt-fusion")
    cores = os.cpu_count() or 1
    data = str(DATA / ("crops-quick.zarr" if quick else "crops.zarr"))
    crops = ["--scenes", "corner-gallery", "--crops", "3", "--size", "32", "--frame", "64", "48"]
    crops += ["--spp-levels", "1", "--max-spp", "4", "--reference-spp", "4"]
    if not quick:
        # 2002 crops; one process per core, since each compiles the kernels of its scenes.
        crops = ["--crops", "143", "--spp-levels", "3", "--max-spp", "65", "--reference-spp"]
        crops += ["1024", "--workers", str(cores), "--threads", "1"]
    reference = ["--seconds", str(85 * scale - 15)]
    if quick:
        reference = ["--seconds", "2", "--spp", "4", "--width", "48"]
    tests = ("tests/unit",) if quick else ("tests/unit", "tests/plugin")
    table_of_bias = ("-k", "diffuse or roulette_glass") if quick else ()

    def script(name: str, *arguments: str) -> tuple[str, ...]:
        return (str(BENCHMARKS / f"{name}.py"), *arguments)

    def package(*arguments: str) -> tuple[str, ...]:
        return ("-m", "mitsuba_gdpt", *arguments)

    def training(method: str, recipe: str, steps: int, *more: str) -> tuple[str, ...]:
        recipe = str(ROOT / "docs" / "models" / f"{recipe}.toml")
        run = str(output / f"training-{method}")
        steps, every = (2, 2) if quick else (round(steps * scale), steps // 3)
        sizes = ("--steps", str(steps), "--set", f"validate_every={every}")
        return package("train", method, data, "-o", run, "--config", recipe, *sizes, *more)

    def resident(command: tuple[str, ...]) -> tuple[str, ...]:
        return (*command, "--set", "resident=true") if on_gpu else command

    on_top = ("--set", "initial_weights=ngpt-fusion")  # of those that ship

    return [
        Step("facts", 20, script("on_cuda", "--facts", *chosen)),
        Step("tests", 105, tests=(*tests, *mark)),
        Step("bias", 80, tests=("tests/statistical/test_bias.py", *mark, *table_of_bias)),
        Step(
            "references",
            85,
            script(
                *("references", *(scenes[:1] if quick else real or SCENES), *chosen, *reference),
                *("--output", str(output / "references")),
            ),
        ),
        Step(
            "crops",
            105,
            package(
                *("dataset", "crops", "builtin", "-o", data, "--target", "gdpt-l2", *chosen),
                *crops,
            ),
        ),
        Step("training", 45, resident(training("ngpt-fusion", "ngpt-fusion-finish", 300, *on_top))),
        Step("training-twin", 45, resident(training("ngpt-backbone", "ngpt-backbone", 600))),
        Step(
            "frame",
            25,
            script(
                *("frame", scenes[0], "--width", width, "--spp", spp, *chosen),
                *("--drjit-log", str(output / "drjit.log")),
                *("--repeats", repeats, "--method", *frame_methods),
            ),
        ),
        Step(
            "integrator",
            45,
            script("integrator", *scenes[:3], "--width", width, "--spp", spp, *chosen),
        ),
        Step(
            "denoisers",
            25,
            script(
                *("denoise", *methods, "--size", size, "--synthetic", "--untrained", *chosen),
                *("--repeats", repeats, "--no-memory"),
            ),
        ),
        Step("latency", 15, script("integrator", "--latency-only", *chosen)),
    ]


# ----------------------------------------------------------------------------------- running


def environment() -> dict[str, str]:
    """Let child processes find the package, the tests and the plugin of outcomes."""
    path = [str(ROOT), str(BENCHMARKS), os.environ.get("PYTHONPATH", "")]
    return {
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "PYTHONUNBUFFERED": "1",
    }


def stop(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def run_command(step: Step, seconds: float, output: Path) -> Result:
    """Run a step that is one command; its standard output is kept even if it is cut short.

    When its time is nearly up it is interrupted, as by Ctrl-C, and may say what it has done.
    """
    out, log = output / f"{step.name}.md", output / f"{step.name}.log"
    start = time.monotonic()
    with out.open("wb") as stdout, log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, *step.command],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        try:
            farewell = min(FAREWELL, seconds / 10)
            code: int | None = process.wait(seconds - farewell)
        except subprocess.TimeoutExpired:
            code = None
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(farewell)
        finally:
            stop(process)
    text = out.read_text(encoding="utf-8", errors="replace").strip()
    result = Result(step.name, "ok", time.monotonic() - start, text, tables_of(text))
    if code:
        last = "\n".join(log.read_text(errors="replace").strip().splitlines()[-15:])
        result.result = "failed"
        result.text += f"\n\nexit code {code}:\n\n```\n{last}\n```"
    elif code is None:
        result.result = "out of time"
    return result


def run_tests(step: Step, seconds: float, output: Path, jobs: int) -> Result:
    """Run a step of tests, in ``jobs`` processes at a time."""
    start = time.monotonic()
    deadline = start + seconds
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*collect, "-o", "addopts=", *step.tests],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return Result(step.name, "out of time", seconds, "collecting tests took too long")
    ids = [line for line in done.stdout.splitlines() if re.match(r"tests/\S+::", line)]
    said = ""
    if done.returncode:  # some files may still be fine
        said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}".strip()  # usage errors: the latter
        said = f"pytest ended with exit code {done.returncode} while collecting:\n\n{said}"
    if not ids:
        return Result(step.name, "failed", time.monotonic() - start, said or "found no tests")
    outcomes: dict[str, Outcome] = {}
    threads = [
        threading.Thread(
            target=run_share,
            args=(ids[i::jobs], deadline, output / f"{step.name}-{i}", outcomes),
        )
        for i in range(jobs)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tests = {test: outcomes.get(test, Outcome("not run")) for test in ids}
    counts = Counter(outcome.result for outcome in tests.values())
    result = "ok" if not counts.keys() - {"passed", "skipped"} else "failed"
    if counts["passed"] == 0 or said:
        result = "failed"  # nothing, or not all, has been tested
    elif result == "failed" and not counts.keys() - {"passed", "skipped", *UNFINISHED}:
        result = "out of time"
    text = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
    text = "\n\n".join(filter(None, [text, said]))
    return Result(step.name, result, time.monotonic() - start, text, tests=tests)


def run_share(ids: list[str], deadline: float, stem: Path, outcomes: dict[str, Outcome]) -> None:
    """Run some tests, starting again after each that hangs or kills its process."""
    attempt = 0
    while ids and time.monotonic() < deadline:
        attempt += 1
        events = stem.with_name(f"{stem.name}-{attempt}.jsonl")
        events.touch()
        with stem.with_name(f"{stem.name}-{attempt}.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "pytest", "-p", "outcomes", "-p", "no:cacheprovider"),
                    *ids,
                ],
                cwd=ROOT,
                env={**environment(), "OUTCOMES": str(events)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            news = time.monotonic()
            size, hung = 0, False
            while process.poll() is None and time.monotonic() < deadline and not hung:
                time.sleep(0.2)
                if events.stat().st_size != size:
                    size, news = events.stat().st_size, time.monotonic()
                hung = time.monotonic() - news > PATIENCE
            ended = process.poll() is not None
            stop(process)
        current = read_events(events, outcomes)
        if current is None and ended:
            # It did all it could, or it would end the same way if it were started again.
            reason = f"pytest ended with exit code {process.returncode} and did not run this"
            for test in ids:
                outcomes.setdefault(test, Outcome("crashed", text=reason))
        elif ended:
            outcomes[current] = Outcome("crashed", text=f"exit code {process.returncode}")
        elif hung:
            first = "before the first test" if current is None else "in this test"
            test = current or next(test for test in ids if test not in outcomes)
            outcomes[test] = Outcome("hung", PATIENCE, f"no news for {PATIENCE:.0f} s {first}")
        elif current is not None:
            outcomes[current] = Outcome("out of time", text="was running when the time was up")
        left = [test for test in ids if test not in outcomes]
        if len(left) == len(ids):  # it would go on like this until the time is up
            lost = Outcome("crashed", text=f"no progress; see {log.name}")
            outcomes.update(dict.fromkeys(left, lost))
            return
        ids = left


def read_events(path: Path, outcomes: dict[str, Outcome]) -> str | None:
    """Read what the plugin wrote; return the test that was running at the end."""
    current: str | None = None
    for line in path.read_text(encoding="utf-8").splitlines():
        event = json.loads(line)
        if event["event"] == "start":
            current = event["test"]
            continue
        known = outcomes.get(event["test"])
        if known is None or known.result == "passed":  # a failing teardown outranks a pass
            outcomes[event["test"]] = Outcome(event["outcome"], event["seconds"], event["text"])
        current = None
    return current


# ------------------------------------------------------------------------------------- facts


def facts(variant: str) -> None:
    """Print what this machine is, as a Markdown table."""
    import drjit as dr
    import torch

    from mitsuba_gdpt import denoisers, provenance, rendering

    rows: list[tuple[str, object]] = list(provenance.describe().items())
    rows += [("torch", f"{torch.__version__}, built for CUDA {torch.version.cuda}")]
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        memory = f"{device.total_memory / 2**30:.1f} GiB"
        processors = f"{device.multi_processor_count} multiprocessors"
        rows += [("GPU", f"{device.name}, sm_{device.major}{device.minor}, {processors}, {memory}")]
        rows += [("cuDNN", torch.backends.cudnn.version())]
    else:
        rows += [("GPU", "none seen by torch")]
    rows += [("driver and clocks", nvidia_smi()), ("OptiX library", optix_library())]
    works = rendering.works(variant)
    rows += [(f"Dr.Jit runs {variant}", works)]
    if works and variant.startswith("cuda"):
        rows += [
            ("Dr.Jit: CUDA", dr.detail.cuda_version()),
            ("Dr.Jit: compute capability", dr.detail.cuda_compute_capability()),
        ]
    if works:
        rendering.set_variant(variant)
        missing = [f"{m.name} ({m.obstacle})" for m in denoisers.methods() if m.obstacle]
        rows += [("methods that cannot run", "; ".join(missing) or "none")]
    print(table(["fact", "value"], [[k, str(v).replace("|", "/")] for k, v in rows]))
    if not works:
        sys.exit(f"{variant} does not work here")


def nvidia_smi() -> str:
    query = "driver_version,pstate,clocks.sm,clocks.mem,power.limit,memory.used"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no nvidia-smi: {error}"
    return f"{done.stdout.strip() or done.stderr.strip()} ({query})"


def optix_library() -> str:
    """Say whether the driver brings OptiX, which Dr.Jit loads by this name."""
    name = "libnvoptix.so.1"
    try:
        ctypes.CDLL(name)
    except OSError as error:
        return f"{name} does not load: {error}"
    return f"{name} loads"


# ----------------------------------------------------------------------------------- summary


def tables_of(markdown: str) -> list[list[dict[str, str]]]:
    """Read the Markdown tables in a text."""
    found: list[list[dict[str, str]]] = []
    header: list[str] | None = None
    lines = [*markdown.splitlines(), ""]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.startswith("|"):
            header = None
        elif following.replace(" ", "").startswith("|---"):
            header = cells
            found.append([])
        elif header is not None and not line.replace(" ", "").startswith("|---"):
            found[-1].append(dict(zip(header, cells, strict=False)))
    return found


def measured(results: Sequence[Result]) -> dict[str, float | None]:
    """Return what :data:`GOALS` are about, None for what was not measured."""
    values: dict[str, float | None] = dict.fromkeys(GOALS)
    rows = {r.name: [row for rows in r.tables for row in rows] for r in results}
    wanted = [f"geometric mean, {group}" for group in ("dev scenes", "built-in")]
    for row in rows.get("integrator", ()):
        for key in ("gdpt / path", "gdpt, shifts=4 / path"):
            column = key.removesuffix(" / path")
            if row.get("scene") in wanted and column in row and values[key] is None:
                values[key] = float(row[column])  # real scenes come first
    for row in rows.get("latency", ()):
        if row.get("integrator") == "gdpt, shifts=4" and row.get("kernels") == "to be compiled":
            values["first render, s"] = float(row["1st render"])
    for row in rows.get("denoisers", ()):
        key = f"{next(iter(row.values()))}, ms"
        if key in values:
            values[key] = 1000 * float(row["median, s"])
    return values


def markdown(results: Sequence[Result], title: str, seconds: float) -> str:
    """Return the summary."""
    parts = [f"# {title}", f"{seconds:.0f} s in all."]
    overview = [
        [r.name, r.result, f"{r.seconds:.0f}", r.text.splitlines()[0] if r.tests else ""]
        for r in results
    ]
    parts.append(table(["step", "result", "s", "tests"], overview))
    goals = [
        [name, f"{value:.3g}" if value is not None else "not measured", f"<= {GOALS[name]}"]
        for name, value in measured(results).items()
    ]
    parts += [
        "## Goals",
        "For an H100 at 1280x720 and 8 spp.",
        table(["what", "measured", "goal"], goals),
    ]
    for result in results:
        parts.append(f"## {result.name}")
        if not result.tests:
            parts.append(result.text or "(no output)")
            continue
        parts.append(result.text)
        reasons = Counter(o.text for o in result.tests.values() if o.result == "skipped")
        parts += [f"- {count} skipped: {reason}" for reason, count in reasons.items()]
        for test, outcome in result.tests.items():
            if outcome.result in ("passed", "skipped", "not run"):
                continue
            tail = "\n".join(outcome.text.splitlines()[-12:])
            parts.append(f"### {outcome.result}: `{test}`\n\n```\n{tail}\n```")
        slow = sorted(result.tests.items(), key=lambda item: -item[1].seconds)[:5]
        rows = [[test, outcome.seconds] for test, outcome in slow]
        parts.append(table(["slowest tests", "s"], rows))
    return "\n\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="cuda_ad_rgb")
    parser.add_argument("--output", type=Path, default=Path("cuda-results"))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try this script")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="leave out the other steps")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on all time limits")
    parser.add_argument("--jobs", type=int, help="processes of tests at a time")
    parser.add_argument("--facts", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.facts:
        facts(args.variant)
        return 0
    output, start = args.output.absolute(), time.monotonic()
    plan = steps(args.variant, args.quick, output, args.scale)
    if unknown := set(args.only or ()) - {step.name for step in plan}:
        parser.error(f"no step {', '.join(unknown)}; there are: {[step.name for step in plan]}")
    plan = [step for step in plan if not args.only or step.name in args.only]
    # Compiling for OptiX is the work of one core per process.
    jobs = args.jobs or (min(4, os.cpu_count() or 1) if args.variant.startswith("cuda") else 1)
    output.mkdir(parents=True, exist_ok=True)
    DATA.mkdir(exist_ok=True)
    results: list[Result] = []
    title = f"{args.variant}: tests and benchmarks{', quick' if args.quick else ''}"
    for step in plan:
        seconds = step.seconds * args.scale
        if step.tests:
            results.append(run_tests(step, seconds, output, jobs))
        else:
            results.append(run_command(step, seconds, output))
        last = results[-1]
        print(f"{step.name}: {last.result}, {last.seconds:.0f} s", flush=True)
        # After every step: whoever stops this program keeps what there is.
        elapsed = time.monotonic() - start
        (output / "summary.md").write_text(markdown(results, title, elapsed), encoding="utf-8")
        values = {"variant": args.variant, "quick": args.quick, "seconds": elapsed}
        values |= {"goals": measured(results), "steps": [asdict(result) for result in results]}
        (output / "summary.json").write_text(json.dumps(values, indent=1), encoding="utf-8")
    print((output / "summary.md").read_text(encoding="utf-8"))
    return 0 if all(result.result == "ok" for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
