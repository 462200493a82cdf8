"""What a block of code copies between host and device, as the profilers of torch and Dr.Jit see it.

torch's profiler (CUPTI underneath) records all copies of the process on the GPU, Dr.Jit's too. On
the CPU it records none; then Dr.Jit's history of copies is all there is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import drjit as dr
import torch
from torch.profiler import ProfilerActivity, profile

#: How CUPTI names copies between host and device.
_ACROSS = ("Memcpy DtoH", "Memcpy HtoD")


@dataclass
class Copies:
    """Filled when the block has ended.

    Attributes:
        across: Name and bytes of each copy between host and device.
        drjit: Bytes of each copy that Dr.Jit made, in whatever direction.
        operators: Names of the torch operators that ran.
    """

    across: list[tuple[str, int]] = field(default_factory=list)
    drjit: list[int] = field(default_factory=list)
    operators: set[str] = field(default_factory=set)

    def of_at_least(self, size: int) -> list[tuple[str, int]]:
        """Return the copies of ``size`` bytes or more."""
        found = [*self.across, *(("Dr.Jit Memcpy", count) for count in self.drjit)]
        return [copy for copy in found if copy[1] >= size]


@contextmanager
def copies(folder: Path) -> Iterator[Copies]:
    """Record the ``with`` block; a trace for chrome://tracing stays in ``folder``."""
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    result = Copies()
    with dr.scoped_set_flag(dr.JitFlag.KernelHistory, True):
        dr.sync_thread()
        dr.kernel_history_clear()
        with profile(activities=activities) as recorded:
            yield result
            dr.sync_thread()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
        history = dr.kernel_history([dr.KernelType.Memcpy])
    result.drjit = [int(entry["size"]) for entry in history]
    path = folder / "trace.json"
    recorded.export_chrome_trace(str(path))
    read_trace(path, result)


def read_trace(path: Path, result: Copies) -> None:
    """Add what a trace of torch's profiler holds."""
    for event in json.loads(path.read_text(encoding="utf-8"))["traceEvents"]:
        kind, name = event.get("cat"), event.get("name", "")
        if kind == "gpu_memcpy" and name.startswith(_ACROSS):
            result.across.append((name, int(event["args"]["bytes"])))
        elif kind == "cpu_op":
            result.operators.add(name)
