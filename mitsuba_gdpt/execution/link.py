"""The connection between a worker and its unit process.

On POSIX the child inherits one end of a socket by its number. Elsewhere nothing can be inherited
so: the child connects to a port of this machine, and both sides prove that they know a secret that
was handed over by the environment.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from collections.abc import Callable, Mapping
from multiprocessing.connection import (
    Client,
    Connection,
    Pipe,
    answer_challenge,
    deliver_challenge,
)
from typing import Any

#: Whether children inherit descriptors by their numbers.
INHERITS = os.name == "posix"
_SECRET = "MITSUBA_GDPT_LINK"
_HERE = "127.0.0.1"
_POLL_INTERVAL = 0.1

#: Starts the child: what it is told to connect to, further environment, words for ``Popen``.
Start = Callable[[str, Mapping[str, str], dict[str, Any]], "subprocess.Popen[bytes]"]


def start(child: Start) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start a child that calls :func:`connect`, and return it with our end.

    The end is closed where the child died before it could connect.
    """
    if INHERITS:
        ours, theirs = Pipe()
        with theirs:
            words = {"pass_fds": (theirs.fileno(),), "start_new_session": True}
            return child(str(theirs.fileno()), {}, words), ours
    secret = secrets.token_hex()
    with socket.create_server((_HERE, 0)) as server:
        server.settimeout(_POLL_INTERVAL)
        port = server.getsockname()[1]
        group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)  # out of reach of Ctrl-C
        process = child(f"{_HERE}:{port}", {_SECRET: secret}, {"creationflags": group})
        while process.poll() is None:
            try:
                accepted, _ = server.accept()
            except TimeoutError:
                continue
            accepted.setblocking(True)
            connection = Connection(accepted.detach())
            try:
                deliver_challenge(connection, secret.encode())
                answer_challenge(connection, secret.encode())
            except Exception:  # somebody else who tried ports
                connection.close()
                continue
            return process, connection
    dead, other = Pipe()
    other.close()
    dead.close()
    return process, dead


def connect(address: str) -> Connection:
    """Return the child's end."""
    host, _, port = address.rpartition(":")
    if not host:
        return Connection(int(port))
    return Client((host, int(port)), authkey=os.environ.pop(_SECRET).encode())
