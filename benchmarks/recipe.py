"""Walk the guide that trains a network, as it is written, and say what every step costs.

    python benchmarks/recipe.py FOLDER [--publish]

Runs the commands of docs/how-to/train-a-network.md one after the other in FOLDER, which must be
empty, and stops at the first that fails. Processor seconds are those of a step and of all
processes that it started, so other work on the machine changes them little; the time on the clock
depends on it. ``--publish`` writes what the guide's table is made of.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from common import publish, table

PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "train-a-network.md"


def steps(page: str) -> tuple[str, list[str]]:
    """Return the variables of the guide as a shell reads them, and its commands."""
    text = "".join(re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE))
    lines = text.replace("\\\n", " ").splitlines()
    variables = [line for line in lines if re.match("[A-Z]+=", line)]
    return "\n".join(variables), [" ".join(line.split()) for line in lines if line not in variables]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the commands run; new or empty")
    parser.add_argument("--publish", action="store_true", help="see above")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if any(arguments.folder.iterdir()):
        parser.error(f"{arguments.folder} is not empty, and the guide goes on with what is there")
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables, commands = steps(PAGE.read_text(encoding="utf-8"))
    found = []
    for command in commands:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        subprocess.run(
            ["bash", "-ec", f"{variables}\n{command}"],
            cwd=arguments.folder,
            env={**os.environ, "PATH": programs},
            check=True,
        )
        clock = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processor = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        found.append({"command": command, "processor": processor, "clock": clock})
    head = ["command", "processor, s", "clock, s"]
    print(table(head, [list(step.values()) for step in found]))
    if arguments.publish:
        publish("recipe", {"steps": found})


if __name__ == "__main__":
    main()
