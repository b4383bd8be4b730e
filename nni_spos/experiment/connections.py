"""To which users the ends of TCP connections belong, as Linux says it in ``/proc/net``."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path as FilePath

from nni_spos.errors import ExperimentError

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
ESTABLISHED, LISTENING = "01", "0A"


@dataclass(frozen=True)
class _Entry:
    """One end of a connection, or a listener."""

    local_port: int
    remote_port: int
    state: str
    user: int
    inode: int


def knows_users() -> bool:
    """Whether this system says to whom a connection belongs; macOS, for one, does not."""
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
        ports = client.getsockname()[1], server.getsockname()[1]
        return any(
            (entry.local_port, entry.remote_port) == ports
            and entry.state == ESTABLISHED
            and entry.inode
            and entry.user == os.getuid()
            for entry in _entries()
        )


def check_listener(port: int) -> None:
    """Check that nobody else answers on a port of this machine, as far as the system says it.

    Raises
    ------
    ExperimentError
        Another user does.
    """
    users = {x.user for x in _entries() if x.local_port == port and x.state == LISTENING}
    if users - {os.getuid()}:
        raise ExperimentError(
            f"another user of this machine listens on port {port}, in the place of NNI's manager; "
            f"choose another with --port, e.g. --port {port + 1}."
        )


def _entries() -> Iterator[_Entry]:
    for table in TABLES:
        try:
            lines = FilePath(table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:  # another system, or no IPv6
            continue
        for line in lines:
            _, local, remote, state, _, _, _, user, _, inode, *_ = line.split()
            yield _Entry(_port(local), _port(remote), state, int(user), int(inode))


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
