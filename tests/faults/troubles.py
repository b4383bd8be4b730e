"""What befalls the machine or the files of a search under nnictl, and how its owner mends it."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import psutil
from work import PATIENCE_S, Work

from nni_spos.worker.patience import SILENCE_S

LASTS_S = 10.0
"""Seconds after which a trouble is mended, if the search has not ended before."""


class Running(Protocol):
    """A search under nnictl that goes on."""

    work: Work
    output: Path
    command: subprocess.Popen[str]


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a file system of its own on a folder, for a while; needs root."""
    _mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", folder)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def full_disk(search: Running) -> Iterator[None]:
    """OUTPUT's file system has no room for a while."""
    filler = search.output / "filler"
    room = os.statvfs(search.output)
    with contextlib.suppress(OSError), filler.open("wb") as stream:
        stream.write(bytes(room.f_bavail * room.f_frsize))
    try:
        yield from _for_a_while(search)
    finally:
        filler.unlink()


@contextlib.contextmanager
def unwritable(search: Running) -> Iterator[None]:
    """OUTPUT cannot be written for a while; permissions would not stop root."""
    _mount("--bind", search.output, search.output)
    _mount("-o", "remount,bind,ro", search.output)
    try:
        yield from _for_a_while(search)
    finally:
        subprocess.run(["umount", "--lazy", search.output], check=True)


@contextlib.contextmanager
def little_memory(search: Running) -> Iterator[None]:
    """No worker gets any more memory for a while."""
    limited: list[psutil.Process] = []
    end = time.monotonic() + LASTS_S
    while search.command.poll() is None and time.monotonic() < end:
        for worker in search.work.processes("worker"):
            with contextlib.suppress(psutil.Error):
                size = worker.memory_info().vms
                worker.rlimit(psutil.RLIMIT_AS, (size, resource.RLIM_INFINITY))
                limited.append(worker)
        time.sleep(0.2)
    yield
    for worker in limited:
        with contextlib.suppress(psutil.Error):
            worker.rlimit(psutil.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


@contextlib.contextmanager
def stopped_worker(search: Running) -> Iterator[None]:
    """A worker stands still for good: its trials find another, and it is ended.

    If it had sent the last scores before, the search ends without it, and nobody looks for it.
    """
    workers = search.work.processes("worker")
    for worker in workers:
        worker.suspend()
    yield
    end = time.monotonic() + SILENCE_S + PATIENCE_S
    while search.command.poll() is None and any(map(_lives, workers)):
        if time.monotonic() > end:
            search.work.note("a search with a stopped worker stands still")
            break
        time.sleep(0.2)
    for worker in filter(_lives, workers):
        worker.kill()


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def hangup(search: Running) -> Iterator[None]:
    """The terminal of ``start`` is closed: nothing may be left running."""
    search.command.send_signal(signal.SIGHUP)
    yield
    search.command.wait(PATIENCE_S)
    left = [x for x in ("manager", "tuner", "trial") if search.work.processes(x)]
    if left:
        search.work.note(f"SIGHUP left processes: {left}")


@contextlib.contextmanager
def replaced_supernet(search: Running) -> Iterator[None]:
    """Somebody trains another supernet in its place, which stays there."""
    new = search.output / "new.pt"
    shutil.copy(search.work.folder / "other/runs/supernet.pt", new)
    os.replace(new, search.output / "supernet.pt")
    yield


@contextlib.contextmanager
def changed_images(search: Running) -> Iterator[None]:
    """Training images of two classes change places while a worker has to open them anew."""
    root = search.work.folder / "images/train"
    _swap(root / "0", root / "1")
    for worker in search.work.processes("worker"):
        with contextlib.suppress(psutil.Error):
            worker.kill()
    try:
        yield from _for_a_while(search)
    finally:
        _swap(root / "0", root / "1")


TROUBLES: dict[str, Callable[[Running], contextlib.AbstractContextManager[None]]] = {
    "full disk": full_disk,
    "unwritable": unwritable,
    "little memory": little_memory,
    "stopped worker": stopped_worker,
    "hangup": hangup,
    "replaced supernet": replaced_supernet,
    "changed images": changed_images,
}

NEED_A_WORKER = ("little memory", "stopped worker", "changed images")
"""Troubles that begin while there is one."""


def _for_a_while(search: Running) -> Iterator[None]:
    end = time.monotonic() + LASTS_S
    while search.command.poll() is None and time.monotonic() < end:
        time.sleep(0.2)
    yield


def _mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def _swap(one: Path, other: Path) -> None:
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)
