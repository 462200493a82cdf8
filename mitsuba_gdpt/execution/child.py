"""The program of a unit process; started by :mod:`mitsuba_gdpt.execution.process`.

Units run in the main thread, because Mitsuba keeps its variant per thread. Messages travel over a
socket of their own: Mitsuba and Dr.Jit write to standard output as they like.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from multiprocessing.connection import Connection
from types import FrameType

from mitsuba_gdpt import subprocesses
from mitsuba_gdpt.execution import link
from mitsuba_gdpt.execution.units import Outcome, attempt

#: Seconds without a unit after which a process ends, should its worker have forgotten it.
IDLE_LIMIT = 600.0
_DYING = 0.05  # seconds in which a dying parent lets go of its locks after its connections


def main(parent: int, threads: int, scratch: str, address: str) -> None:
    """Run units until the worker closes the connection or dies.

    Args:
        parent: Process that has to live for this one to go on.
        threads: Size of Dr.Jit's thread pool.
        scratch: Folder of the parent's temporary files, removed here if it dies.
        address: Of the connection, see :mod:`mitsuba_gdpt.execution.link`.
    """
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's business
    subprocesses.end_with(parent, lambda: subprocesses.remove_orphan(scratch))
    try:
        _serve(link.connect(address), threads)
    finally:  # also where a worker whose driver has died sends SIGTERM
        sys.stderr.flush()
        if not subprocesses.remove_orphan(scratch):
            time.sleep(_DYING)
            subprocesses.remove_orphan(scratch)
    os._exit(0)  # nothing is left to be saved, and freeing large scenes takes time


def _serve(connection: Connection, threads: int) -> None:
    connection.send(_set_up(connection.recv_bytes(), threads))
    while connection.poll(IDLE_LIMIT):
        try:
            payload = connection.recv_bytes()
        except EOFError:
            break
        try:
            outcome = attempt(pickle.loads(payload))
        except Exception as error:  # the unit's class cannot be imported here
            outcome = Outcome.of(error)
        connection.send(outcome)


def _set_up(pickled: bytes, threads: int) -> Outcome:
    import drjit as dr

    try:
        dr.set_thread_count(threads)
        setup = pickle.loads(pickled)
        if setup is not None:
            setup()
    except Exception as error:
        return Outcome.of(error)
    return Outcome()


def _leave(signum: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + signum)  # so that temporary files are removed on the way
