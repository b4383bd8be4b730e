"""Where the trials meet a worker: its address, their connections and their questions."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import socket
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import (
    Connection,
    Listener,
    answer_challenge,
    deliver_challenge,
)
from pathlib import Path as FilePath
from typing import Any

import psutil

from nni_spos.experiment.processes import is_alive
from nni_spos.experiment.worker_client import MAX_MESSAGE, WorkerFolder
from nni_spos.path import Path

MAX_SOCKET_NAME = 100
"""Bytes that the name of a socket may have; Linux allows 107, macOS 103."""

SUFFIX = ".socket"
"""How the names of sockets end."""

MAX_PID = 1 << 31
"""What the numbers of processes stay below."""

PRIVATE = "nni_spos_"
"""How the names of temporary folders for sockets begin."""


class Endpoint:
    """Where a worker listens, and the file that tells the trials so.

    Parameters
    ----------
    folder
        Of the worker. What a worker before left there is removed.
    """

    def __init__(self, folder: WorkerFolder):
        self._file = folder.address
        for left in folder.path.glob(f"*{SUFFIX}"):
            _remove_socket(str(left))
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
            _remove_socket(json.loads(self._file.read_text(encoding="utf-8"))["address"])
        self.key = secrets.token_bytes(32)
        self.listener = _listen(folder.path)
        self.is_removed = False
        self._address = self.listener.address
        self._content = json.dumps(
            {"address": self._address, "key": self.key.hex(), "pid": os.getpid()}
        )
        temporary = self._file.with_suffix(f".{os.getpid()}")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            stream.write(self._content)
        os.replace(temporary, self._file)

    def is_published(self) -> bool:
        """Whether trials that look for a worker find this one."""
        with contextlib.suppress(OSError):
            return self._file.read_text(encoding="utf-8") == self._content
        return False

    def remove(self) -> None:
        """Let no trial find this worker any more; a second time does nothing."""
        self.is_removed = True
        if self.is_published():
            self._file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # somebody has removed the socket
            self.listener.close()
        _remove_socket(self._address)


def _listen(folder: FilePath) -> Listener:
    name = f"{os.getpid()}_{secrets.token_hex(4)}{SUFFIX}"
    if not hasattr(socket, "AF_UNIX"):
        return Listener(("127.0.0.1", 0), "AF_INET", backlog=128)
    if len(os.fsencode(folder / name)) <= MAX_SOCKET_NAME:
        with contextlib.suppress(OSError):  # not all file systems have sockets
            return Listener(str(folder / name), "AF_UNIX", backlog=128)
    private = FilePath(tempfile.mkdtemp(prefix=PRIVATE))
    return Listener(str(private / name), "AF_UNIX", backlog=128)


def _remove_socket(address: Any) -> None:
    if not isinstance(address, str):
        return
    with contextlib.suppress(OSError):
        if stat.S_ISSOCK(os.lstat(address).st_mode):
            os.unlink(address)
    folder = os.path.dirname(address)
    if os.path.basename(folder).startswith(PRIVATE):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


class Trial:
    """A trial that is connected; its answer is sent from another thread than it is read by."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._lock = threading.Lock()
        self.is_gone = False

    def receive(self) -> Any:
        """Return its next message; EOFError, OSError or ValueError if there is none."""
        return json.loads(self._connection.recv_bytes(MAX_MESSAGE))

    def send(self, answer: Mapping[str, Any]) -> None:
        """Answer it, if it is still there."""
        with self._lock, contextlib.suppress(OSError):
            if not self.is_gone:
                self._connection.send_bytes(json.dumps(answer).encode())

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            self.is_gone = True
            self._connection.close()


@dataclass(frozen=True)
class Request:
    """A path that a trial waits for.

    Parameters
    ----------
    trial
        Who asked.
    path
        Label to choice, not checked yet.
    """

    trial: Trial
    path: Path


class Reception:
    """Take the trials' connections and questions, a thread for each.

    Parameters
    ----------
    endpoint
        Where they come from, and the secret that they must know.

    Attributes
    ----------
    num_connected
        Trials that are connected and have proved that they know the secret.
    """

    def __init__(self, endpoint: Endpoint):
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._requests: queue.Queue[Request] = queue.Queue()
        self.num_connected = 0
        self._managers: set[tuple[int, float]] = set()
        self._last_use = time.monotonic()

    def open(self) -> None:
        """Begin, in threads that end with this process."""
        threading.Thread(target=self._accept, name="accept", daemon=True).start()

    def gather(self, expected: int = 1, quiet_s: float = 0.0) -> list[Request]:
        """Wait for a request, then for those of other trials.

        Parameters
        ----------
        expected
            How many trials are likely to ask; with fewer, and when a connected one has not asked
            yet, there is something to wait for.
        quiet_s
            Seconds in which nothing new comes after which that is given up.
        """
        requests = [self._requests.get()]
        while len(requests) < max(expected, self.num_connected):
            try:
                requests.append(self._requests.get(timeout=quiet_s))
            except queue.Empty:
                break
        return [request for request in requests if not request.trial.is_gone]

    def note_manager(self, pid: int, created: float) -> None:
        """Take an NNI manager on which this worker's life depends.

        Parameters
        ----------
        pid
            Number of its process.
        created
            When that began, in seconds: the number may be given to another process later.
        """
        process = (int(pid), float(created))
        if process[0] not in range(1, MAX_PID):
            raise ValueError(f"{process[0]} is not the number of a process")
        with self._lock:
            self._managers.add(process)

    def is_deserted(self) -> bool:
        """Whether trials named managers, and all of these are gone."""
        with self._lock:
            managers = list(self._managers)
        return bool(managers) and not any(_runs(*manager) for manager in managers)

    def idle_s(self) -> float:
        """Return for how many seconds no trial has been connected."""
        with self._lock:
            return 0.0 if self.num_connected else time.monotonic() - self._last_use

    def _accept(self) -> None:
        while True:
            try:
                connection = self._endpoint.listener.accept()
            except OSError as problem:  # e.g. too many open files
                if self._endpoint.is_removed:
                    return
                log(f"a trial cannot connect: {problem}")
                time.sleep(0.1)
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        try:
            deliver_challenge(connection, self._endpoint.key)
            answer_challenge(connection, self._endpoint.key)
        except Exception as problem:  # also what Python raises for other bytes than expected
            log(f"a connection is refused: {type(problem).__name__} {problem}")
            connection.close()
            return
        trial = Trial(connection)
        self._count(1)
        try:
            while True:
                self._requests.put(self._read(trial))
        except (EOFError, OSError):
            pass  # it has its answer, or it died
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError) as problem:
            log(f"a question cannot be understood: {problem!r}")
            trial.send({"error": f"the question cannot be understood: {problem!r:.200}"})
        finally:
            trial.close()
            self._count(-1)

    def _read(self, trial: Trial) -> Request:
        message = trial.receive()
        if message["manager"] is not None:
            self.note_manager(*message["manager"])
        return Request(trial, dict(message["path"]))

    def _count(self, change: int) -> None:
        with self._lock:
            self.num_connected += change
            self._last_use = time.monotonic()


def log(text: str) -> None:
    """Write a line to standard error, which is the worker's log; on a full disk there is none."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    with contextlib.suppress(OSError):
        print(f"{moment} worker {os.getpid()}: {text}", file=sys.stderr, flush=True)


def _runs(pid: int, created: float) -> bool:
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1.0 and is_alive(process)
    except psutil.Error:
        return False
