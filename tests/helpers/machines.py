"""'Machines' for NNI's remote service: sshd on two loopback addresses, each with its own home."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRIVILEGE_SEPARATION = Path("/run/sshd")

CONFIGURATION = """\
Port {port}
ListenAddress {host}
HostKey {keys}/host
PidFile none
AuthorizedKeysFile {keys}/user.pub
StrictModes no
UsePAM no
PasswordAuthentication no
Subsystem sftp internal-sftp
SetEnv HOME={home} PYTHONPATH={root} OMP_NUM_THREADS=1 PIP_NO_INDEX=1
"""


@dataclass(frozen=True)
class Machine:
    """A running sshd whose sessions have a home of their own."""

    host: str
    port: int
    home: Path
    key: Path
    process: subprocess.Popen

    @property
    def settings(self) -> dict:
        """The machine in NNI's machineList."""
        return {
            "host": self.host,
            "port": self.port,
            "user": getpass.getuser(),
            "sshKeyFile": str(self.key),
            "pythonPath": str(Path(sys.executable).parent),
        }

    def listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex((self.host, self.port)) == 0

    def end(self) -> None:
        self.process.terminate()
        self.process.wait()


@contextlib.contextmanager
def running_machines(folder: Path, hosts: tuple[str, ...]) -> Iterator[list[Machine]]:
    """Start a machine for each host and end it; or skip the test and say why."""
    sshd = shutil.which("sshd", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))
    if sshd is None or not shutil.which("ssh-keygen"):
        pytest.skip("needs sshd and ssh-keygen (Debian: apt-get install openssh-server)")
    keys = folder / "keys"
    keys.mkdir()
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / name)]
        subprocess.run(command, check=True)
    with contextlib.ExitStack() as stack:
        # Run by root, sshd needs this empty folder, which its service makes as well.
        if os.getuid() == 0 and not PRIVILEGE_SEPARATION.exists():
            PRIVILEGE_SEPARATION.mkdir(mode=0o755)
            stack.callback(PRIVILEGE_SEPARATION.rmdir)
        yield [_start(sshd, folder / f"home_{host}", host, keys, stack) for host in hosts]


def _start(sshd: str, home: Path, host: str, keys: Path, stack: contextlib.ExitStack) -> Machine:
    home.mkdir()
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError as problem:
            pytest.skip(f"needs the loopback address {host} ({problem.strerror})")
        port = probe.getsockname()[1]
    file = keys / f"{host}.conf"
    file.write_text(CONFIGURATION.format(host=host, port=port, keys=keys, home=home, root=ROOT))
    log = keys / f"{host}.log"
    with log.open("wb") as stream:
        # An environment of its own: what runs in its sessions is known by the home.
        process = subprocess.Popen([sshd, "-D", "-e", "-f", str(file)], stderr=stream, env={})
    machine = Machine(host, port, home, keys / "user", process)
    stack.callback(machine.end)
    while not machine.listens():
        if process.poll() is not None:
            pytest.skip(f"sshd does not run here: {log.read_text().strip()}")
        time.sleep(0.1)
    return machine
