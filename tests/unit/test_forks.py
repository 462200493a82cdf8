"""Denoising in a process that was forked from one that has denoised: an image, and soon."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_SCRIPT = """
import os, sys
import torch
from mitsuba_gdpt import FrameBuffers, Layout, denoise

layout = Layout.make()
generator = torch.Generator().manual_seed(0)
frame = FrameBuffers(torch.rand(96, 80, layout.count, generator=generator), layout)
method = sys.argv[1]
torch.set_num_threads(1)  # forked processes have one: sums of floats are rounded as there
expected = denoise(frame, method)
torch.set_num_threads(2)
denoise(frame, method)
child = os.fork()
if child == 0:
    same = torch.equal(denoise(frame, method), expected)
    os._exit(0 if same else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("method", ["oidn", "poisson-l1", "ngpt-fusion"])
def test_forked_process_denoises(method: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", _SCRIPT, method], start_new_session=True)
    try:
        assert process.wait(timeout=120) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
