"""A folder of this user alone, on this machine, with a short name: where processes meet.

What a recipe's output folder has may be another user's, or may lie on a file system without
sockets or locks; and the name of a socket must be short.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path as FilePath

from nni_spos.files.owned import NotOwnError, check_private_folder

MAX_SOCKET_NAME = 100
"""Bytes that the name of a socket may have; Linux allows 107, macOS 103."""

ROOM = 36
"""Bytes of that name that what is below the folder may take."""


def meeting_place() -> FilePath:
    """Return the folder, which need not be there.

    It is in the folder for temporary files; in ``/tmp`` if that has too long a name.
    """
    user = os.geteuid() if hasattr(os, "geteuid") else os.environ.get("USERNAME", "user")
    folder = FilePath(tempfile.gettempdir(), f"nni-spos-{user}")
    if len(os.fsencode(folder)) > MAX_SOCKET_NAME - ROOM and os.path.isdir("/tmp"):  # nosec B108
        folder = FilePath("/tmp", folder.name)  # nosec B108
    return folder


def make_private(folder: FilePath) -> None:
    """Make a folder in the meeting place, and check that both are this user's alone.

    Raises
    ------
    nni_spos.files.owned.NotOwnError
        One of them is not.
    """
    for place in (folder.parent, folder):
        try:
            with contextlib.suppress(FileExistsError):
                place.mkdir(mode=0o700)
            check_private_folder(place)
        except NotOwnError as problem:
            text = f"{problem.strerror}, or set TMPDIR to another folder"
            raise NotOwnError(problem.errno, text, problem.filename) from None
