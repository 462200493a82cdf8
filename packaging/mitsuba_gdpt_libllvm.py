"""What Python 3.15 and later call when they start, as ``mitsuba_gdpt_libllvm.start`` says.

Older ones execute the line of ``mitsuba_gdpt_libllvm.pth``, which does the same; newer ones ignore
that line where the ``.start`` file is beside it (PEP 829). Imports nothing that costs time.
"""

import os


def select() -> None:
    """Let Dr.Jit find the LLVM of the karellen-llvm-core wheel; see ``mitsuba_gdpt/_llvm.py``."""
    if os.environ.get("DRJIT_LIBLLVM_PATH"):
        return
    lib = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if os.path.isdir(lib):
        for name in sorted(os.listdir(lib)):
            if name.startswith("libLLVM.so."):
                os.environ["DRJIT_LIBLLVM_PATH"] = os.path.join(lib, name)
