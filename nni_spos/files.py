"""Writing files so that a reader, or a crash, never sees half of one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any, BinaryIO

from nni_spos.errors import SposError


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
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # mkstemp makes private files; results are not secret
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise
    return target


def write_json(file: str | os.PathLike[str], content: Any) -> FilePath:
    """Write `content` as indented JSON, atomically; NaN and infinity are refused."""
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    return write_atomically(file, lambda stream: stream.write(text.encode()))


def read_json(file: str | os.PathLike[str], error: type[SposError]) -> Any:
    """Read JSON from `file`; anything wrong is raised as `error` with the file's name."""
    try:
        return json.loads(FilePath(file).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{file}: no such file.") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"{file}: cannot be read ({problem}).") from None
    except (ValueError, RecursionError) as problem:
        raise error(f"{file}: is not valid JSON ({problem}).") from None
