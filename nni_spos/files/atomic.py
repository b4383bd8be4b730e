"""Files: written so that a reader, or a crash, never sees half of one; read whatever is in them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path as FilePath
from typing import Any, BinaryIO

from nni_spos.errors import SposError
from nni_spos.files.owned import open_own

MAX_JSON_BYTES = 64 << 20
"""Largest JSON file that is read; a cost table with the most entries has a third of it."""


def write_atomically(file: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> FilePath:
    """Call `write` on a temporary file beside `file`, then rename it to `file`.

    Parameters
    ----------
    file
        Final name; missing parent folders are made.
    write
        Receives the open binary file.

    Returns
    -------
    The final name. On any error the temporary file is removed and `file` is as it was.
    """
    target = FilePath(file)
    with _temporary(target, write) as name:
        os.replace(name, target)
    return target


def replace_atomically(
    file: str | os.PathLike[str], write: Callable[[BinaryIO], object]
) -> FilePath:
    """As `write_atomically`, but what was there before stays beside it, see `previous`."""
    target = FilePath(file)
    with _temporary(target, write) as name:
        if target.exists():
            _keep(target)
        os.replace(name, target)
    return target


def _keep(file: FilePath) -> None:
    """Give a file a second name; there is no moment without a file under its own."""
    previous(file).unlink(missing_ok=True)
    try:
        os.link(file, previous(file))
    except OSError:  # a file system without links
        with open(file, "rb") as source, _new(previous(file)) as copy:
            shutil.copyfileobj(source, copy)


def previous(file: str | os.PathLike[str]) -> FilePath:
    """Return where the content of a file stays that was replaced last."""
    return FilePath(f"{os.fspath(file)}.previous")


def check_writable(file: str | os.PathLike[str]) -> None:
    """Raise OSError if a file, or a missing folder above it, cannot be made; nothing is written.

    For what is written at the end of hours of work.
    """
    target = FilePath(file).absolute()
    folder = next(parent for parent in target.parents if parent.exists())
    if target.is_dir():
        code = errno.EISDIR
    elif not folder.is_dir():
        code = errno.ENOTDIR
    elif not os.access(folder, os.W_OK | os.X_OK):
        code = errno.EACCES
    else:
        return
    raise OSError(code, f"cannot be written: {os.strerror(code)}", os.fspath(file))


def unlinked(file: str | os.PathLike[str]) -> FilePath:
    """Return a file with its folder's own name, whatever links led there.

    What is relative to the folder, such as ``../out``, is then the same for everybody. The file
    itself may be a link: what is beside the link counts.
    """
    target = FilePath(file).absolute()
    try:
        return FilePath(os.path.realpath(target.parent)) / target.name
    except (OSError, ValueError):  # no file has this name: whoever reads it says so
        return target


def check_name(file: str | os.PathLike[str], error: type[SposError]) -> None:
    """Raise `error` if a name cannot be written into files: recipes, journals and NNI's records.

    The names of files are bytes, those in other files are text.
    """
    try:
        os.fspath(file).encode()
    except UnicodeEncodeError:
        raise error(f"{file}: this name of a file or folder is not UTF-8. Rename it.") from None


def append_durably(file: str | os.PathLike[str], content: bytes) -> None:
    """Add to the end of a file, all or nothing; on return it is on the disk.

    A crash may leave a part; an error, such as a full disk, does not. For files that one process
    at a time writes. Raises `nni_spos.files.owned.NotOwnError` for a link or another user's file.
    """
    handle = open_own(file, os.O_WRONLY | os.O_APPEND)
    end = os.fstat(handle).st_size
    try:
        rest = content
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    except BaseException as problem:
        os.ftruncate(handle, end)
        if isinstance(problem, OSError):
            problem.filename = os.fspath(file)
        raise
    finally:
        os.close(handle)


def drop_end(file: str | os.PathLike[str], num_bytes: int) -> None:
    """Take the last bytes off a file of this user. Raises `nni_spos.files.owned.NotOwnError`."""
    handle = open_own(file, os.O_WRONLY)
    try:
        os.ftruncate(handle, os.fstat(handle).st_size - num_bytes)
    finally:
        os.close(handle)


def _new(file: str | os.PathLike[str]) -> BinaryIO:
    """Make a file, with the permissions of any new one, that was not there, not even as a link."""
    return os.fdopen(open_own(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb")


@contextlib.contextmanager
def _temporary(target: FilePath, write: Callable[[BinaryIO], object]) -> Iterator[str]:
    """Write a temporary file beside `target`; it is removed on any error, also of the block."""
    target.parent.mkdir(parents=True, exist_ok=True)
    name = os.fspath(target.with_name(f".{target.name}.{secrets.token_hex(4)}"))
    stream = _new(name)
    try:
        with stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        yield name
    except BaseException as problem:
        os.unlink(name)
        if isinstance(problem, OSError) and problem.filename is None:
            problem.filename = str(target)  # a full disk is reported without one
        raise


def write_text(file: str | os.PathLike[str], text: str) -> FilePath:
    """Write lines of text, atomically."""
    return write_atomically(file, lambda stream: stream.write(f"{text}\n".encode()))


def write_json(file: str | os.PathLike[str], content: Any) -> FilePath:
    """Write `content` as indented JSON, atomically; NaN and infinity are refused."""
    return write_text(file, json.dumps(content, indent=2, allow_nan=False))


def read_json(file: str | os.PathLike[str], error: type[SposError]) -> Any:
    """Read JSON from `file`; anything wrong is raised as `error` with the file's name."""
    text = read_text(file, error, MAX_JSON_BYTES)
    try:
        return json.loads(text, object_pairs_hook=_mapping)
    except (ValueError, RecursionError) as problem:
        raise error(f"{file}: is not valid JSON ({problem}).") from None


def read_text(file: str | os.PathLike[str], error: type[SposError], max_bytes: int) -> str:
    """Read a text in UTF-8.

    Parameters
    ----------
    file
        A file, or a link to one; what never ends, such as a device or a pipe, is refused.
    error
        What is raised, with the file's name, if it cannot be read.
    max_bytes
        How large the file may be.
    """
    try:
        found = os.stat(file)
        if not stat.S_ISREG(found.st_mode):
            raise error(f"{file}: cannot be read (it is not a file).")
        if found.st_size > max_bytes:
            raise error(f"{file}: has {found.st_size} bytes; more than {max_bytes} are not read.")
        return FilePath(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error(f"{file}: no such file.") from None
    except OSError as problem:
        raise error(f"{file}: cannot be read ({problem.strerror}).") from None
    except ValueError as problem:  # bytes that are no text, or a zero in the name
        raise error(f"{file}: cannot be read ({problem}).") from None


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; of a key that is there twice, readers differ in which they take."""
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"the key {twice!r:.80} is there twice")
    return content
