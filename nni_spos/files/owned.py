"""Files and folders of this user alone: nobody else decides where the bytes go, or what is read.

A folder of results may be shared. What another user put there, a link to some file above all, must
not be written through, nor be trusted where only this user's word counts.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile


class NotOwnError(OSError):
    """A file is a link, no file at all, or another user's; the text is one line."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


def open_own(file: str | os.PathLike[str], flags: int, mode: int = 0o666) -> int:
    """Open a file that only this user's processes write.

    Parameters
    ----------
    file
        The folders above it may be links, it may not.
    flags
        As for `os.open`; without ``O_TRUNC``, which would empty a file before it is looked at.
    mode
        Permissions of a new file, less the umask.

    Returns
    -------
    The handle of a file that child processes do not inherit.

    Raises
    ------
    NotOwnError
        It is a link, not a regular file, or belongs to another user.
    OSError
        It cannot be opened.
    """
    name = os.fspath(file)
    try:
        _check_file(name, os.lstat(name))  # before it is opened: a pipe would wait, a device act
    except FileNotFoundError:
        if not flags & os.O_CREAT:
            raise
    no_follow = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        handle = os.open(name, flags | no_follow, mode)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            _check_file(name, os.lstat(name))  # it may have become a link meanwhile
        raise
    try:
        _check_file(name, os.fstat(handle))
    except OSError:
        os.close(handle)
        raise
    if hasattr(os, "O_NONBLOCK"):
        os.set_blocking(handle, True)
    return handle


def check_own_file(file: str | os.PathLike[str]) -> None:
    """Check a file that a library is going to open for writing.

    Raises
    ------
    NotOwnError
        It is a link, not a regular file, or another user's.
    OSError
        It is not there.
    """
    name = os.fspath(file)
    _check_file(name, os.lstat(name))


def check_own_folder(folder: str | os.PathLike[str]) -> None:
    """Check that a folder is this user's.

    Raises
    ------
    NotOwnError
        It is a link, not a folder, or another user's.
    OSError
        It is not there.
    """
    name = os.fspath(folder)
    found = os.lstat(name)
    if not stat.S_ISDIR(found.st_mode):
        raise NotOwnError(errno.ENOTDIR, "is not a folder. Remove it", name)
    _check_owner(name, found)


def check_private_folder(folder: str | os.PathLike[str]) -> None:
    """Check that a folder is this user's, and that nobody else can enter it.

    Raises
    ------
    NotOwnError
        See `check_own_folder`; or others may enter it.
    OSError
        It is not there.
    """
    check_own_folder(folder)
    mode = stat.S_IMODE(os.lstat(folder).st_mode)
    if hasattr(os, "geteuid") and mode & 0o077:
        text = f"others may enter it (mode {mode:o}). Remove it, or give it the mode 700"
        raise NotOwnError(errno.EPERM, text, os.fspath(folder))


def _check_file(name: str, found: os.stat_result) -> None:
    if stat.S_ISLNK(found.st_mode):
        text = "is a link, and what is written does not follow links. Remove it"
        raise NotOwnError(errno.ELOOP, text, name)
    if not stat.S_ISREG(found.st_mode):
        raise NotOwnError(errno.EINVAL, "is not a regular file. Remove it", name)
    _check_owner(name, found)


def _check_owner(name: str, found: os.stat_result) -> None:
    if not hasattr(os, "geteuid") or found.st_uid == os.geteuid():
        return
    # Some file systems (a network's, a container's) give all files to one user.
    if found.st_uid == _owner_of_new_files(os.path.dirname(name)):
        return
    text = (
        f"belongs to another user (number {found.st_uid}; this process has {os.geteuid()}). Use a "
        "folder of your own"
    )
    raise NotOwnError(errno.EPERM, text, name)


def _owner_of_new_files(folder: str) -> int:
    try:
        with tempfile.TemporaryFile(dir=folder or ".") as new:
            return os.fstat(new.fileno()).st_uid
    except OSError:
        return -1
