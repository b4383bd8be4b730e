"""Where the trials meet a worker: its address, their connections and their questions."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import selectors
import socket
import sys
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

from nni_spos.display.progress import num_signs
from nni_spos.files.owned import check_private_folder, open_own
from nni_spos.path import Path
from nni_spos.process.nni_processes import is_alive
from nni_spos.worker.patience import HEARTBEAT, HEARTBEAT_S, MAX_MESSAGE
from nni_spos.worker.place import WorkerFolder

SUFFIX = ".socket"
"""How the names of sockets end."""

MAX_PID = 1 << 31
"""What the numbers of processes stay below."""

_Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


START_S = 10.0
"""Seconds in which a new thread must begin."""


class Endpoint:
    """Where a worker listens, and the file that tells the trials so.

    Parameters
    ----------
    folder
        Of the worker. What a worker before left there is removed.
    """

    def __init__(self, folder: WorkerFolder):
        check_private_folder(folder.private)
        self._file = folder.address
        for left in folder.private.glob(f"*{SUFFIX}"):
            left.unlink(missing_ok=True)
        self.key = secrets.token_bytes(32)
        self.listener = _listen(folder.private)
        self.is_removed = False
        self._content = json.dumps(
            {"address": self.listener.address, "key": self.key.hex(), "pid": os.getpid()}
        )
        temporary = self._file.with_suffix(f".{secrets.token_hex(4)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(open_own(temporary, flags, 0o600), "w") as stream:
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
            self.listener.close()  # which removes it


def _listen(folder: FilePath) -> Listener:
    if hasattr(socket, "AF_UNIX"):
        with contextlib.suppress(OSError):  # not all file systems have sockets
            name = folder / f"{secrets.token_hex(4)}{SUFFIX}"
            return Listener(str(name), "AF_UNIX", backlog=128)
    return Listener(("127.0.0.1", 0), "AF_INET", backlog=128)


class TrialConnection:
    """A trial that is connected; its answer is sent from another thread than it is read by."""

    def __init__(self, connection: Connection):
        self._connection = connection
        self._lock = threading.Lock()
        self._waits = False
        self.is_gone = False

    def receive(self) -> Any:
        """Return its next message; EOFError, OSError or ValueError if there is none."""
        message = json.loads(self._connection.recv_bytes(MAX_MESSAGE))
        self._waits = True
        return message

    def send(self, answer: Mapping[str, Any]) -> None:
        """Answer it, if it is still there."""
        with self._lock, contextlib.suppress(OSError):
            self._waits = False
            if not self.is_gone:
                self._connection.send_bytes(json.dumps(answer).encode())

    def beat(self, state: Mapping[str, Any]) -> None:
        """Tell it, if it waits for an answer, that the worker lives."""
        with self._lock, contextlib.suppress(OSError):
            # One that is stopped reads nothing, and must not keep the others waiting.
            if self._waits and not self.is_gone and _takes_more(self._connection):
                self._connection.send_bytes(json.dumps({HEARTBEAT: state}).encode())

    def close(self) -> None:
        """End the connection."""
        with self._lock:
            self.is_gone = True
            self._connection.close()


def _takes_more(connection: Connection) -> bool:
    """Whether a connection has room for a small message, so that sending it does not wait."""
    with _Selector() as selector:
        selector.register(connection, selectors.EVENT_WRITE)
        return bool(selector.select(0))


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

    trial: TrialConnection
    path: Path


class Reception:
    """Take the trials' connections and questions, a thread for each.

    Parameters
    ----------
    endpoint
        Where they come from, and the secret that they must know.

    Attributes
    ----------
    share
        How much of what is evaluated is done, above 0 and up to 1; the trials that wait are told.
    """

    def __init__(self, endpoint: Endpoint):
        self._endpoint = endpoint
        self._lock = threading.Lock()
        self._requests: queue.Queue[Request] = queue.Queue()
        self._trials: set[TrialConnection] = set()
        self._managers: dict[int, psutil.Process | None] = {}
        self.share = 0.0
        self._last_use = time.monotonic()
        self._starting_since: float | None = None

    def open(self) -> None:
        """Begin, in threads that end with this process."""
        threading.Thread(target=self._accept, name="accept", daemon=True).start()
        threading.Thread(target=self._beat, name="beat", daemon=True).start()

    @property
    def num_connected(self) -> int:
        """Trials that are connected and have proved that they know the secret."""
        return len(self._trials)

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

    def note_manager(self, pid: int) -> None:
        """Take an NNI manager on which this worker's life depends.

        Parameters
        ----------
        pid
            Number of its process, which has just been there: the number may be given to another
            process later. When it began is not compared with what another process says, since the
            system's clock may be set in between.
        """
        if type(pid) is not int or pid not in range(1, MAX_PID):
            raise ValueError(f"{pid!r:.50} is not the number of a process")
        with self._lock:
            known = self._managers.get(pid)
            if known is None or not is_alive(known):
                self._managers[pid] = _find(pid)

    def is_deserted(self) -> bool:
        """Whether trials named managers, and all of these are gone."""
        with self._lock:
            managers = list(self._managers.values())
        return bool(managers) and not any(x is not None and is_alive(x) for x in managers)

    def is_stuck(self) -> bool:
        """Whether a trial cannot be served, nor any after it.

        Python waits for ever for a new thread that had no memory for its first words.
        """
        since = self._starting_since
        return since is not None and time.monotonic() - since > START_S

    def idle_s(self) -> float:
        """Return for how many seconds no trial has been connected."""
        with self._lock:
            return 0.0 if self._trials else time.monotonic() - self._last_use

    def _accept(self) -> None:
        while True:
            try:
                connection = self._endpoint.listener.accept()
            except (OSError, MemoryError) as problem:  # e.g. too many open files
                if self._endpoint.is_removed:
                    return
                log(f"a trial cannot connect: {problem!r}")
                time.sleep(0.1)
                continue
            self._starting_since = time.monotonic()
            try:
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
            except (RuntimeError, MemoryError) as problem:  # no memory for one more thread
                log(f"a trial is turned away: {problem!r}")
                connection.close()
            self._starting_since = None

    def _serve(self, connection: Connection) -> None:
        try:
            deliver_challenge(connection, self._endpoint.key)
            answer_challenge(connection, self._endpoint.key)
        except Exception as problem:  # also what Python raises for other bytes than expected
            log(f"a connection is refused: {type(problem).__name__} {problem}")
            connection.close()
            return
        trial = TrialConnection(connection)
        with self._lock:
            self._trials.add(trial)
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
            with self._lock:
                self._trials.remove(trial)
                self._last_use = time.monotonic()

    def _read(self, trial: TrialConnection) -> Request:
        message = trial.receive()
        if message["manager"] is not None:
            self.note_manager(message["manager"])
        return Request(trial, dict(message["path"]))

    def _beat(self) -> None:
        while not self._endpoint.is_removed:
            with self._lock:
                trials = list(self._trials)
            for trial in trials:
                with contextlib.suppress(MemoryError):
                    trial.beat({"signs": num_signs(), "share": self.share})
            time.sleep(HEARTBEAT_S)


def log(text: str) -> None:
    """Write a line to standard error, which is the worker's log; on a full disk there is none."""
    moment = time.strftime("%Y-%m-%d %H:%M:%S")
    with contextlib.suppress(OSError):
        print(f"{moment} worker {os.getpid()}: {text}", file=sys.stderr, flush=True)


def _find(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None
